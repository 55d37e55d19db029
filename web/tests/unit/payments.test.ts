import assert from 'node:assert/strict'
import test from 'node:test'
import { OTHERS, UNKNOWN, picture } from '../../src/economics/payments'
import { random } from './random'

test('a picture of payments shows every wei once', () => {
  const next = random(3)
  for (let round = 0; round < 200; round += 1) {
    const parties = 1 + next(30)
    const payments = Array.from({ length: next(60) }, () => ({
      from: next(10) === 0 ? null : `0x${next(parties)}`,
      to: `0x${next(parties)}`,
      amount: String(next(2 ** 31) * 1000),
    }))
    const total = payments.reduce((sum, { amount }) => sum + BigInt(amount), 0n)
    const shown = picture(payments)
    const sum = (all: { amount: bigint }[]) => all.reduce((sum, { amount }) => sum + amount, 0n)
    assert.deepEqual([shown.total, sum(shown.payers), sum(shown.payees), sum(shown.bands)], [total, total, total, total])
    assert.ok(shown.payers.length <= 9 && shown.payees.length <= 9)
    for (const side of [shown.payers, shown.payees]) {
      side.forEach((party, index) => assert.ok(index === 0 || party.y >= (side[index - 1]?.y ?? 0) + (side[index - 1]?.height ?? 0), 'nobody stands over another'))
    }
    for (const band of shown.bands) {
      const [from, to] = [shown.payers.find(({ id }) => id === band.from), shown.payees.find(({ id }) => id === band.to)]
      assert.ok(from && to && band.fromY >= from.y - 1e-6 && band.fromY + band.height <= from.y + from.height + 1e-6)
      assert.ok(band.toY >= to.y - 1e-6 && band.toY + band.height <= to.y + to.height + 1e-6)
    }
  }
})

test('who has little is drawn with the others, and who is not known by that name', () => {
  const payments = Array.from({ length: 12 }, (_, index) => ({ from: index === 0 ? null : `payer ${index}`, to: 'operator', amount: String(100 - index) }))
  const { payers } = picture(payments)
  assert.equal(payers.length, 9)
  assert.equal(payers.find(({ id }) => id === UNKNOWN)?.amount, 100n)
  assert.equal(payers.find(({ id }) => id === OTHERS)?.amount, 92n + 91n + 90n + 89n)
  assert.deepEqual(picture([{ from: 'a', to: 'b', amount: 'nonsense' }]).bands, [])
})
