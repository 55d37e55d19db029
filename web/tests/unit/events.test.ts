import assert from 'node:assert/strict'
import test from 'node:test'
import { EventReader } from '../../src/chat/answer/events'
import { random } from './random'

const STREAM =
  ': keep-alive\n\nid: req_1:0\ndata: {"a":1}\n\nid: req_1:5\r\ndata:two\r\ndata: lines\r\n\r\nevent: odd\nretry: 5\ndata\n\ndata: [DONE]\n\n'
const EVENTS = [
  { id: 'req_1:0', data: '{"a":1}' },
  { id: 'req_1:5', data: 'two\nlines' },
  { id: null, data: '' },
  { id: null, data: '[DONE]' },
]

test('events are the same wherever the stream is cut', () => {
  for (let seed = 0; seed < 300; seed += 1) {
    const below = random(seed)
    const reader = new EventReader()
    const found = []
    for (let at = 0; at < STREAM.length; ) {
      const length = 1 + below(12)
      found.push(...reader.take(STREAM.slice(at, at + length)))
      at += length
    }
    assert.deepEqual(found, EVENTS, `seed ${seed}`)
  }
})

test('an event that has not ended is not told', () => {
  const reader = new EventReader()
  assert.deepEqual(reader.take('data: half\n'), [])
  assert.deepEqual(reader.take('\n'), [{ id: null, data: 'half' }])
})

test('a line without an end is refused before it takes all memory', () => {
  const reader = new EventReader()
  const piece = 'x'.repeat(1 << 20)
  assert.throws(() => {
    for (let count = 0; count < 20; count += 1) reader.take(piece)
  }, /without an end/)
})
