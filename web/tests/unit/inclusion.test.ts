import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import test from 'node:test'
import { leadsToRoot, type Inclusion } from '../../src/shared/receipt/inclusion'
import { random } from './random'

const sha256 = (...parts: Buffer[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest()
const leafOf = (entry: Buffer): Buffer => sha256(Buffer.of(0), entry)
const rootOf = (leaves: Buffer[]): Buffer => {
  if (leaves.length < 2) return leaves[0] ?? sha256()
  const half = 2 ** Math.ceil(Math.log2(leaves.length) - 1)
  return sha256(Buffer.of(1), rootOf(leaves.slice(0, half)), rootOf(leaves.slice(half)))
}
const pathOf = (leaves: Buffer[], index: number): Buffer[] => {
  if (leaves.length < 2) return []
  const half = 2 ** Math.ceil(Math.log2(leaves.length) - 1)
  return index < half
    ? [...pathOf(leaves.slice(0, half), index), rootOf(leaves.slice(half))]
    : [...pathOf(leaves.slice(half), index - half), rootOf(leaves.slice(0, half))]
}

const entries = Array.from({ length: 33 }, (_, index) => sha256(Buffer.of(index)))
const hex = (bytes: Buffer): string => bytes.toString('hex')

function included(size: number, index: number): Inclusion {
  const leaves = entries.slice(0, size).map(leafOf)
  return { state: 'included', epoch: 1, index, size, root: hex(rootOf(leaves)), path: pathOf(leaves, index).map(hex) }
}

test('a receipt is in its log by one path and place', async () => {
  for (let size = 1; size <= entries.length; size += 1)
    for (let index = 0; index < size; index += 1) {
      const proof = included(size, index)
      const receipt = hex(entries[index] as Buffer)
      assert.ok(await leadsToRoot(receipt, proof), `${index} of ${size}`)
      assert.ok(!(await leadsToRoot(hex(sha256(Buffer.of(99))), proof)), 'another receipt')
      assert.ok(!(await leadsToRoot(receipt, { ...proof, index: (index + 1) % size })) || size === 1, 'another place')
      assert.ok(!(await leadsToRoot(receipt, { ...proof, path: [...proof.path, receipt] })), 'a longer path')
      assert.ok(size === 1 || !(await leadsToRoot(receipt, { ...proof, path: proof.path.slice(1) })), 'a shorter path')
      assert.ok(!(await leadsToRoot(receipt, { ...proof, root: receipt })), 'another root')
    }
})

test('what is no path is none, and throws nothing', async () => {
  const next = random(11)
  const proof = included(9, 4)
  const receipt = hex(entries[4] as Buffer)
  for (const wrong of [{ index: null }, { size: null }, { root: null }, { index: -1 }, { index: 9 }, { size: 1.5 }, { size: 2 ** 60 }, { path: ['x'] }, { path: Array(49).fill(receipt) }])
    assert.ok(!(await leadsToRoot(receipt, { ...proof, ...wrong } as Inclusion)), JSON.stringify(wrong))
  for (let round = 0; round < 200; round += 1) {
    const path = proof.path.map((hash) => (next(2) ? hash : hex(sha256(Buffer.of(next(256))))))
    if (path.join() !== proof.path.join()) assert.ok(!(await leadsToRoot(receipt, { ...proof, path })))
  }
  assert.ok(!(await leadsToRoot('', proof)))
})
