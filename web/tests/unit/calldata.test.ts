import assert from 'node:assert/strict'
import test from 'node:test'
import { executeData, queueData, voteData } from '../../src/governance/calldata'

const word = (value: number) => value.toString(16).padStart(64, '0')

test('calls are a selector and its words', () => {
  assert.equal(voteData(3, 'for'), `0x943e8216${word(3)}${word(1)}`)
  assert.equal(voteData(260, 'against'), `0x943e8216${word(260)}${word(0)}`)
  assert.equal(voteData(1, 'abstain'), `0x943e8216${word(1)}${word(2)}`)
  assert.equal(queueData(12), `0xddf0b009${word(12)}`)
  assert.equal(executeData(12), `0xfe0d94c1${word(12)}`)
  for (const wrong of [-1, 1.5, Number.NaN, 2 ** 60]) assert.throws(() => queueData(wrong), RangeError)
})
