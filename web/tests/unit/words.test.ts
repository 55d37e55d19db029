import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ago, duration, moment, percent } from '../../src/shared/words'

test('a share is told as whole or as nothing only where it is', () => {
  for (const [share, text] of [
    [0, '0 %'], [1, '100 %'], [0.5, '50.0 %'], [0.99994, '99.99 %'], [0.999999, '99.99 %'], [0.0000001, '0.01 %'], [0.004, '0.40 %'],
    [Number.NaN, 'unknown'], [1.2, 'unknown'], [-0.1, 'unknown'],
  ] as const) assert.equal(percent(share), text, String(share))
})

test('times are told in the unit that fits', () => {
  for (const [ms, text] of [
    [-5, '0 ms'], [0, '0 ms'], [12, '12 ms'], [999.9, '1.0 s'], [1500, '1.5 s'], [12_345, '12 s'], [600_000, '10 min'], [7_500_000, '2 h 5 min'], [5 * 86_400_000, '5 days'],
  ] as const) assert.equal(duration(ms), text, String(ms))
  assert.deepEqual([ago(200), ago(2000), ago(61_000), ago(-1)], ['now', '2 s ago', '61 s ago', 'now'])
  assert.deepEqual([moment(0), moment(1e18)], ['1970-01-01 00:00 UTC', 'unknown'])
})
