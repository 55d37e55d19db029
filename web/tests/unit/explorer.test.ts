import assert from 'node:assert/strict'
import { test } from 'node:test'
import { spans } from '../../src/explorer/narrowing'
import { place, route, to } from '../../src/explorer/route'
import type { BlockRow, DisputeRow, Step } from '../../src/explorer/shapes'
import { bits, deed, fullness, lost, meaning, move, power, rhythm, rhythmSaid, stateOf, turn } from '../../src/explorer/words'

const dispute = (more: Partial<DisputeRow> = {}): DisputeRow => ({
  id: 1, state: 1, said: 'it is open', is_open: true, is_convicted: false, turn: 'worker', awaited: 'root', move_until: 1000, operator: '0x1', worker: '1', challenger: '0x2', order: '3', receipt: '4',
  words: 1_000_000, moves: 1, opened_at: 0, bond: '1', paid: '0', owed: '0', ...more,
})

const step = (more: Partial<Step> = {}): Step => ({
  block: 1, timestamp_ms: 0, transaction: '0x', sender: '0x', by: 'challenger', function: 'pick', index: null, nodes: null, bytes: null, first_word: null, words_left: null, ...more,
})

const block = (number: number, timestamp_ms: number, gas_used = 0): BlockRow => ({ number, timestamp_ms, gas_used, hash: '', proposer_key: '', proposer: null, transactions: gas_used > 0 ? 1 : 0, proven: true })

test('a hash leads somewhere and back', () => {
  for (const [kind, id] of [['block', '12'], ['transaction', '0xab'], ['account', '0x77'], ['dispute', '3'], ['find', 'a b/ü#"<b>']] as const) assert.deepEqual(route(to(kind, id)), { kind, id })
  assert.deepEqual(route('#blocks-before-40'), { kind: 'blocks', before: 40 })
  assert.deepEqual(route('#disputes'), { kind: 'disputes' })
  for (const none of ['', '#', '#block-', '#blocks-before-1e9', '#constructor-1', `#block-${'1'.repeat(400)}`]) assert.deepEqual(route(none), { kind: 'overview' })
  assert.deepEqual(route('#find-%E0%A4'), { kind: 'find', id: '%E0%A4' })
  assert.equal(place({ kind: 'model', id: 'blake3:1', said: '' }), '/network#model=blake3%3A1')
  assert.equal(place({ kind: 'request', id: 'req_1', said: '' }), '/verify#req_1')
  assert.equal(place({ kind: 'dispute', id: '3', said: '' }), '#dispute-3')
})

test('what is in question only ever becomes less, and ends with the word', () => {
  const steps = [
    step({ function: 'open', first_word: 0, words_left: 1_000_000 }),
    step({ function: 'root', first_word: 0, words_left: 1_000_000 }),
    step({ first_word: 524_288, words_left: 1024 }),
    // Of another game: it is not within what was left.
    step({ first_word: 0, words_left: 512 }),
    step({ function: 'divide', first_word: 524_288, words_left: 1024 }),
  ]
  const leaf = { word: 524_300 } as Parameters<typeof spans>[0]['leaf']
  assert.deepEqual(spans({ dispute: dispute(), steps, leaf }), [{ first: 0, words: 1_000_000 }, { first: 524_288, words: 1024 }, { first: 524_300, words: 1 }])
  assert.deepEqual(spans({ dispute: dispute({ words: 0 }), steps, leaf: null }), [])
  assert.deepEqual(spans({ dispute: dispute(), steps: [], leaf: null }), [{ first: 0, words: 1_000_000 }])
})

test('moves, turns and states are worded', () => {
  assert.match(move(step({ index: 5 })), /^picks part 5:/)
  assert.match(move(step({ function: 'root', nodes: 1024 })), /by one digest, in 1,024 parts\.$/)
  assert.match(move(step({ function: 'divide', bytes: 8192 })), /its 8,192 bytes/)
  for (const name of ['open', 'openAsking', 'showIds', 'leaf', 'claimOutput', 'claimState', 'claimText', 'claimPrompt', 'timeOut', 'twoAnswers', 'pastEnd', 'falseStop']) assert.doesNotMatch(move(step({ function: name })), /^calls/, name)
  assert.equal(move(step({ function: '<b>' })), 'calls <b>.')
  assert.equal(turn(dispute(), 940_000), 'It is the worker’s turn to name its computation by one digest, within 60 s. Who is silent loses.')
  assert.match(turn(dispute(), 1_000_001) ?? '', /its time is over/)
  assert.equal(turn(dispute({ turn: null, awaited: null }), 0), null)
  assert.equal(stateOf(dispute()).word, 'open')
  assert.equal(stateOf(dispute({ is_open: false, is_convicted: true, state: 2 })).tone, 'danger')
  assert.equal(stateOf(dispute({ is_open: false, state: 9 })).word, 'dismissed')
  assert.equal(stateOf(dispute({ is_open: false, state: 10 })).word, 'convicted by other evidence')
  assert.equal(lost([{ from: 'stake', to: 'payer', why: 'refund', amount: '7' }, { from: 'bond', to: 'challenger', why: 'returned', amount: '9' }]), 7n)
})

test('numbers are told as what they are', () => {
  assert.deepEqual([power(0), power(1), power(1024), power(1_000_000)], ['0', '2⁰', '2¹⁰', '≈ 2²⁰'])
  assert.equal(meaning({ name: 'amount', type: 'uint256', value: '2000000000000000000' }), '2 credits')
  const changed = [{ name: 'name', type: 'bytes32', value: `0x74696d656c6f636b5f73${'00'.repeat(22)}` }, { name: 'value', type: 'uint256', value: '120' }]
  assert.deepEqual(changed.map((field) => meaning(field, changed)), ['“timelock_s”', null], 'a parameter is no amount')
  assert.equal(meaning({ name: 'value', type: 'uint256', value: '2000000000000000000' }, [{ name: 'to', type: 'address', value: '0x' }]), '2 credits')
  for (const value of ['0x', `0x${'00'.repeat(32)}`, `0x74006d${'00'.repeat(29)}`, `0x0a${'00'.repeat(31)}`]) assert.equal(meaning({ name: 'name', type: 'bytes32', value }), null)
  assert.equal(meaning({ name: 'epoch', type: 'uint64', value: '1099511627776' }), '1,099,511,627,776')
  assert.equal(meaning({ name: 'moveUntil', type: 'uint64', value: '1700000000' }), '2023-11-14 22:13:20 UTC')
  assert.equal(meaning({ name: 'name', type: 'string', value: '123456' }), null)
  assert.equal(meaning({ name: 'papers', type: 'tuple', fields: [] }), null)
  assert.equal(deed({ kind: 'module', module: 'operators', function: 'offer' }), 'operators · offer')
  assert.equal(deed({ kind: 'contract', module: null, function: null }), 'calls a contract')
  assert.equal(deed({ kind: 'module', module: 'staking', function: null }), 'staking · no function of it')
  const found = bits('0x3f800001', '0x3f800000')
  assert.equal(found.map(({ bit }) => bit).join(''), '00111111100000000000000000000001')
  assert.deepEqual(found.map(({ differs }) => differs).lastIndexOf(true), 31)
  assert.equal(found.filter(({ differs }) => differs).length, 1)
  assert.deepEqual(bits('no', '0x00000000'), [])
})

test('the rhythm of blocks', () => {
  const blocks = [block(4, 4000, 500), block(3, 3000), block(2, 1000), block(1, 0)]
  const found = rhythm(blocks, 1000)
  assert.deepEqual(found, { blocks: 4, spanMs: 4000, meanMs: 4000 / 3, longestMs: 2000, busy: 1, fullest: 0.5 })
  assert.equal(found && rhythmSaid(found), '4 blocks in 4.0 s: one every 1.3 s, 2.0 s at most between two. 1 has transactions; the fullest used 50.0 % of its gas.')
  assert.equal(rhythm(blocks.slice(0, 1), 1000), null)
  assert.equal(fullness(5, 0), 0)
})
