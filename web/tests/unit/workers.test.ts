import assert from 'node:assert/strict'
import { test } from 'node:test'
import { busy, health, how, ofWei, operators, pace, prices, served, throughput } from '../../src/network/workers'
import type { LiveNetwork, Model, WorkerReport } from '../../src/shared/gateway'

const worker = (id: string, more: Partial<WorkerReport> = {}): WorkerReport => ({
  id,
  state: 'ready',
  active_requests: 0,
  models: [{ id: 'blake3:1', names: ['tiny'], context_tokens: 10, decode_tokens_per_second: 100 }],
  measured: { models: [], breaker: 'closed' },
  ...more,
})

const model = (name: string): Model => ({ id: name, context_length: 10, surety: { id: 'blake3:1', architecture: 'llama', tier: 'exact', file_bytes: 1, formats: [], chat: true, workers_ready: 1 } })

const network = (workers: WorkerReport[], models: Model[]): LiveNetwork => ({ gateway: '', software: '', active_requests: 0, workers, models, pulse: { span_ms: 5000, spans: [] } })

test('workers are together under who answers for them, and those of nobody each alone', () => {
  const found = operators([worker('1', { operator: '0xa' }), worker('2'), worker('3', { operator: '0xa' }), worker('4')])
  assert.deepEqual(found.map((one) => [one.id, one.isListed, one.workers.map((each) => each.id)]), [['0xa', true, ['1', '3']], ['2', false, ['2']], ['4', false, ['4']]])
})

test('a worker that rests after failures is not ready', () => {
  assert.equal(how(worker('1')).tone, 'good')
  assert.deepEqual(how(worker('1', { measured: { models: [], breaker: 'open' } })).word, 'resting')
  assert.deepEqual(how(worker('1', { state: 'unreachable', reason: 'it left' })), { tone: 'danger', word: 'unreachable', why: 'it left' })
  assert.equal(how(worker('1', { state: 'something new' })).tone, 'danger')
})

test('a model has its names together, and as many operators must fail as have one ready', () => {
  const workers = [worker('1', { operator: '0xa' }), worker('2', { operator: '0xa' }), worker('3', { state: 'starting' })]
  const [found, ...more] = served(network(workers, [model('tiny'), model('also-tiny')]))
  assert.ok(found)
  assert.deepEqual([found.names, found.hosts.length, found.ready, found.operators, more], [['tiny', 'also-tiny'], 3, 2, 1, []])
  assert.equal(health(found).word, 'fewer hosts')
  assert.equal(health({ ...found, ready: 0 }).tone, 'danger')
})

test('what was measured counts before what is said, and nothing is made up', () => {
  assert.deepEqual(pace(worker('1')), { tokens: 100, isMeasured: false })
  assert.deepEqual(pace(worker('1', { measured: { models: [{ id: 'blake3:1', tokens_per_second: 7 }] } })), { tokens: 7, isMeasured: true })
  assert.equal(pace(worker('1'), 'blake3:2'), null)
  assert.equal(busy(worker('1', { active_requests: 2, waiting_requests: 1, measured: { models: [], orders: 1 } })), 3)
})

test('amounts from elsewhere are amounts, or unknown', () => {
  const offer = (prompt: string, output: string) => [{ model: 'blake3:1', prompt, output }]
  assert.deepEqual(prices([worker('1', { offers: offer('100000', '400000') }), worker('2', { offers: offer('80000', '400000') })], 'blake3:1'), { prompt: '0.08–0.1', output: '0.4', least: 400000n })
  assert.equal(prices([worker('1', { offers: offer('<b>', '-1') })], 'blake3:1'), null)
  assert.deepEqual(['100000000000000000000', '0', 'x', undefined].map(ofWei), ['100 credits', '0 credits', 'unknown', 'unknown'])
})

test('throughput is of the whole minute', () => {
  const spans = Array.from({ length: 12 }, (_, index) => ({ answers: 0, failures: 0, output_tokens: index === 3 ? 600 : 0 }))
  assert.equal(throughput({ ...network([], []), pulse: { span_ms: 5000, spans } }), 10)
})
