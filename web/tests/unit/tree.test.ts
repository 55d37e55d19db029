import assert from 'node:assert/strict'
import test from 'node:test'
import { leafUnder, pathTo, siblings, type Node } from '../../src/chat/tree'
import { random } from './random'

const tree = (...rows: [string, string | null, number][]) => new Map<string, Node>(rows.map(([id, parent, created]) => [id, { id, parent, created }]))
const ids = (nodes: Node[]) => nodes.map(({ id }) => id).join('')

test('a branch is from its first message to its last', () => {
  const messages = tree(['a', null, 1], ['b', 'a', 2], ['c', 'b', 3], ['d', 'a', 4], ['e', 'd', 5])
  assert.equal(ids(pathTo(messages, 'c')), 'abc')
  assert.equal(ids(pathTo(messages, 'e')), 'ade')
  assert.equal(ids(pathTo(messages, null)), '')
  assert.equal(ids(siblings(messages, messages.get('d')!)), 'bd')
  assert.equal(leafUnder(messages, 'a'), 'e')
  assert.equal(leafUnder(messages, 'b'), 'c')
})

test('the first message has versions, too', () => {
  const messages = tree(['a', null, 2], ['b', null, 1])
  assert.equal(ids(siblings(messages, messages.get('a')!)), 'ba')
})

test('what is missing, or turns in a circle, ends a branch', () => {
  assert.equal(ids(pathTo(tree(['b', 'a', 1], ['c', 'b', 2]), 'c')), 'bc')
  assert.equal(ids(pathTo(tree(['a', 'b', 1], ['b', 'a', 2]), 'a')), 'ba')
})

test('every leaf of a random tree is found from each message above it', () => {
  for (let seed = 0; seed < 50; seed += 1) {
    const below = random(seed)
    const messages = new Map<string, Node>()
    for (let count = 0; count < 40; count += 1) {
      const parent = count === 0 ? null : `m${below(count)}`
      messages.set(`m${count}`, { id: `m${count}`, parent, created: count })
    }
    for (const id of messages.keys()) {
      const path = pathTo(messages, leafUnder(messages, id))
      assert.ok(path.some((message) => message.id === id), `seed ${seed}, ${id}`)
      assert.equal(path[0]?.id, 'm0')
    }
  }
})
