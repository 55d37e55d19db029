import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Bucket, RequestNote, Totals } from '../../src/keys/shapes'
import { bars, began, byModel, failures, measured, OTHERS, sum } from '../../src/keys/usage'
import { bars as earned, ofOrders, received, told, type EpochEarnings } from '../../src/network/earnings'
import { random } from './random'

const totals = (requests: number, prompt: number, output: number, cost: string): Totals => ({ requests, prompt_tokens: prompt, cached_tokens: 0, output_tokens: output, cost })

function bucket(start: number, models: Record<string, Totals>): Bucket {
  const parts = Object.entries(models).map(([model, of]) => ({ model: model === OTHERS ? null : model, ...of }))
  return { start_ms: start, end_ms: start + 60_000, ...sum(parts), models: parts }
}

test('bars and rows by model are all that was used, however many models there are', () => {
  const next = random(7)
  for (let round = 0; round < 200; round += 1) {
    const names = Array.from({ length: next(9) }, (_, index) => (next(6) === 0 ? OTHERS : `m${index}`))
    const buckets = Array.from({ length: 5 }, (_, at) => bucket(at * 60_000, Object.fromEntries(names.map((name) => [name, totals(next(3), next(50), next(50), String(next(90)))]))))
    for (const measure of ['tokens', 'cost', 'answers'] as const) {
      const drawn = bars(buckets, measure, (one) => String(one.start_ms))
      assert.equal(new Set(drawn.names).size, drawn.names.length)
      assert.ok(drawn.names.length <= 7)
      drawn.bars.forEach((bar, at) => assert.equal(bar.parts.reduce((one, other) => one + other, 0), measured(buckets[at]!, measure)))
      assert.deepEqual(sum(byModel(buckets, measure).map((row) => row.totals)), sum(buckets))
    }
  }
})

test('costs beyond what a number holds are summed exactly', () => {
  assert.equal(sum([totals(1, 0, 0, '9007199254740993'), totals(1, 0, 0, '2')]).cost, '9007199254740995')
  assert.equal(sum([totals(1, 0, 0, 'no amount')]).cost, '0')
})

test('spans are named by when they begin, in UTC', () => {
  const at = Date.UTC(2026, 0, 2, 3, 4)
  assert.deepEqual([began(at, '1m'), began(at, '1h'), began(at, '1d')], ['03:04', '01-02 03:04', '2026-01-02'])
})

test('failures are together by their code, the latest first', () => {
  const note = (id: string, code?: string): RequestNote => ({
    id, path: null, model: null, received_ms: 1, ended_ms: 2, state: code ? 'failed' : 'answered', cost: '0', prompt_tokens: null, output_tokens: null,
    ...(code ? { failure: { code, message: `of ${id}`, accountable: 'caller', means: null, act: null } } : {}),
  })
  const found = failures([note('1', 'b'), note('2'), note('3', 'a'), note('4', 'b')])
  assert.deepEqual(found.map(({ code, times, message }) => [code, times, message]), [['b', 2, 'of 1'], ['a', 1, 'of 3']])
})

test('what reached an operator is drawn by what it was for', () => {
  const nothing: EpochEarnings = { epoch: 3, settled: '0', for_auditors: '0', for_proposers: '0', taken: '0', audits: '0', hosting: '0', bonds: '0', received: '0', slashed: '0' }
  const paid: EpochEarnings = { ...nothing, epoch: 4, settled: '2000000000000000000', for_auditors: '500000000000000000', audits: '250000000000000000', received: '1750000000000000000' }
  assert.equal(ofOrders(paid), 1_500_000_000_000_000_000n)
  assert.deepEqual(earned([nothing, paid]), { names: ['Orders', 'Audits of others'], bars: [{ name: 'epoch 3', parts: [0, 0] }, { name: 'epoch 4', parts: [1.5, 0.25] }] })
  assert.deepEqual(told([nothing, paid]).map(({ epoch }) => epoch), [4])
  assert.equal(received([nothing, paid]), 1_750_000_000_000_000_000n)
  assert.equal(ofOrders({ ...paid, taken: '9000000000000000000' }), 0n)
})
