import assert from 'node:assert/strict'
import test from 'node:test'
import { creditsOf, inCredits, parameterValue, shareOf, span, wei } from '../../src/ledger/amounts'
import { random } from './random'

test('wei are told in credits', () => {
  for (const [amount, text] of [
    ['0', '0'], ['1', '<0.000001'], ['1000000000000', '0.000001'], ['1500000000000000000', '1.5'], ['1000000000000000000', '1'],
    ['1234567000000000000000000', '1,234,567'], ['999999999999999999', '0.999999'], ['1000000000000000000000000000001', '1,000,000,000,000'],
    ['-1', 'unknown'], ['1e18', 'unknown'], ['', 'unknown'], ['9'.repeat(79), 'unknown'],
  ] as const) assert.equal(inCredits(amount), text, amount)
  assert.deepEqual([creditsOf('1000000000000000000'), creditsOf('2000000000000000000'), creditsOf('x')], ['1 credit', '2 credits', 'unknown'])
})

test('what is told of an amount is never more than it is', () => {
  const next = random(7)
  for (let round = 0; round < 2000; round += 1) {
    const amount = (BigInt(next(2 ** 31)) ** 3n) >> BigInt(next(90))
    const text = inCredits(amount)
    if (text.startsWith('<')) {
      assert.ok(amount > 0n && amount < 10n ** 12n)
      continue
    }
    const [whole = '', fraction = ''] = text.replaceAll(',', '').split('.')
    const told = BigInt(whole + fraction.padEnd(18, '0'))
    assert.ok(told <= amount && amount - told < 10n ** 12n, `${amount}: ${text}`)
    assert.equal(wei(amount.toString()), amount)
  }
})

test('shares are of 0 to 1, or no number', () => {
  assert.equal(shareOf('1', '4'), 0.25)
  assert.equal(shareOf('5', '0'), 0)
  assert.equal(shareOf('7', '7'), 1)
  assert.ok(Number.isNaN(shareOf('x', '7')))
})

test('parameters are told in their unit', () => {
  for (const [name, value, text] of [
    ['timelock_s', '604800', '7 days'], ['pace_ms', '250', '250 ms'], ['quorum_bps', '3334', '33.34 %'], ['audit_ppm', '20000', '2 %'], ['upgrade_lead_blocks', '1', '1 block'],
    ['worker_stake_min', '10000000000000000000', '10 credits'], ['minimum_gas_price', '1000000000', '1,000,000,000 wei'], ['dispute_words_per_s', '2097152', '2,097,152'],
    ['jail_missed_percent', '50', '50 %'], ['validators_max', '32', '32'], ['timelock_s', 'never', 'never'], ['timelock_s', '340282366920938463463374607431768211455', '340,282,366,920,938,463,463,374,607,431,768,211,455'],
  ] as const) assert.equal(parameterValue(name, value), text, name)
  assert.deepEqual([0, 1, 90, 3605, 3660, 90_000].map(span), ['0 seconds', '1 second', '1 minute 30 seconds', '1 hour', '1 hour 1 minute', '1 day 1 hour'])
})
