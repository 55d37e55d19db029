import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { factsOf, rerunBody } from '../../src/shared/receipt/facts'
import { Verifier } from '../../src/shared/receipt/verify'
import { compare, read, tooLong } from '../../src/verify/read'

const ROOT = new URL('../../../../', import.meta.url)
const evidence = (name: string): Buffer => readFileSync(new URL(`sdk/testdata/${name}.json`, ROOT))
const verifier = new Verifier(new WebAssembly.Module(readFileSync(new URL('web/src/shared/receipt/verifier.wasm', ROOT))))

interface Forged {
  base: unknown
  by_word: [(string | number)[], unknown][]
  held: { name: string; edits: [(string | number)[], unknown][] }[]
  cases: { name: string; code: string; edits: [(string | number)[], unknown][] }[]
}
const forged = JSON.parse(evidence('refused').toString()) as Forged

function made(edits: [(string | number)[], unknown][]): Buffer {
  const file = structuredClone(forged.base) as Record<string | number, unknown>
  for (const [path, value] of edits) {
    const last = path.at(-1) as string | number
    const place = path.slice(0, -1).reduce<Record<string | number, unknown>>((at, step) => at[step] as Record<string | number, unknown>, file)
    place[last] = value
  }
  return Buffer.from(JSON.stringify(file))
}

test('real receipts hold, and say who answered what', () => {
  for (const name of ['chat', 'choices', 'tokens', 'embedding', 'resumed']) {
    const file = evidence(name)
    const verdict = verifier.verify(file)
    assert.ok(verdict.holds, name)
    const facts = factsOf(JSON.parse(file.toString()), verdict)
    assert.match(facts.requestId, /^req_/)
    assert.ok(facts.answers.length > 0 && facts.answers.every(({ workers }) => workers.length > 0), name)
  }
  const file = evidence('resumed')
  const verdict = verifier.verify(file)
  assert.ok(verdict.holds)
  const facts = factsOf(JSON.parse(file.toString()), verdict)
  assert.equal(facts.answers.length, 1)
  assert.equal(new Set(facts.answers[0]?.workers).size, 2)
  assert.ok(verdict.envelope.checked.includes('continuation'))
})

test('an answer that was checked by another says by whom, and one by word that it is', () => {
  const checked = made(forged.held.find(({ name }) => name === 'check')?.edits ?? [])
  const found = read(checked, verifier)
  assert.equal(found.kind === 'holds' && found.facts.answers.length, 1)
  assert.equal(found.kind === 'holds' && found.facts.answers[0]?.checkedBy.length, 1)
  const word = read(made(forged.by_word), verifier)
  assert.ok(word.kind === 'holds' && word.facts.isByWord)
})

test('every forgery is refused in words', () => {
  for (const { name, edits } of forged.cases) {
    const outcome = read(made(edits), verifier)
    assert.equal(outcome.kind, 'refused', name)
    assert.ok(outcome.kind === 'refused' && outcome.why.endsWith('.'), name)
  }
})

test('what is no receipt is told in a sentence', () => {
  const told = (text: string): string => {
    const outcome = read(Buffer.from(text), verifier)
    return outcome.kind === 'unreadable' ? outcome.why : outcome.kind
  }
  assert.match(told(''), /nothing in it/)
  assert.match(told('hello'), /not JSON/)
  assert.match(told('[1]'), /no receipt/)
  assert.match(told('{"error":{"message":"Nothing is kept."}}'), /Nothing is kept/)
  assert.match(told('['.repeat(2_000_000)), /not JSON/)
  assert.equal(told(`{"surety":${'['.repeat(100_000)}${']'.repeat(100_000)}}`), 'refused')
  assert.match(told('{"surety_dossier":1,"evidence":null}'), /not answered/)
  assert.equal(told(`{"surety_dossier":1,"evidence":${evidence('chat').toString()}}`), 'holds')
  const large = tooLong(100_000_000)
  assert.ok(large.kind === 'unreadable' && large.why.includes('100 MB'))
})

test('a text is compared with the signed one', () => {
  assert.deepEqual(compare('a\nb', 'a\nb'), { kind: 'same' })
  assert.deepEqual(compare(' a\r\nb ', 'a\nb'), { kind: 'space' })
  assert.deepEqual(compare('abX', 'abc'), { kind: 'differs', at: 2 })
})

test('an answer with a seed can be asked for again, of others', () => {
  const file = JSON.parse(evidence('chat').toString())
  const body = rerunBody(file, ['w'])
  const { order } = file.view.answers[0]
  if (order.seed === 'nonce') {
    assert.equal(body, null)
    file.view.answers[0].order.seed = { caller: 7 }
  }
  const asked = JSON.parse(rerunBody(file, ['w']) ?? 'null')
  assert.deepEqual([asked.model, asked.seed, asked.provider.ignore], [order.model, 7, ['w']])
  assert.equal(asked.temperature, Number(order.sampling.temperature))
})
