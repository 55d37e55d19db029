/** Amounts and parameters of the ledger as people read them. */
import { count, duration } from '../shared/words'

const DECIMALS = 18
const SHOWN = 6
const NUMBER = /^\d{1,78}$/
const GROUPS = /\B(?=(\d{3})+(?!\d))/g

export const grouped = (digits: string): string => digits.replace(GROUPS, ',')

/** Wei, as decimal text; null if it is none. */
export const wei = (text: string): bigint | null => (NUMBER.test(text) ? BigInt(text) : null)

/** Wei in credits, without the word: at most six decimals, and never nothing where there is something. */
export function inCredits(text: string | bigint): string {
  const amount = typeof text === 'bigint' ? text : wei(text)
  if (amount === null || amount < 0n) return 'unknown'
  const digits = amount.toString().padStart(DECIMALS + 1, '0')
  const whole = grouped(digits.slice(0, -DECIMALS))
  const fraction = digits.slice(-DECIMALS, -DECIMALS + SHOWN).replace(/0+$/, '')
  if (fraction) return `${whole}.${fraction}`
  return whole === '0' && amount > 0n ? '<0.000001' : whole
}

/** Wei in credits. */
export function creditsOf(text: string | bigint): string {
  const amount = inCredits(text)
  return amount === 'unknown' ? amount : `${amount} ${amount === '1' ? 'credit' : 'credits'}`
}

/** A part of a whole, from 0 to 1; of nothing it is none. */
export function shareOf(part: string | bigint, all: string | bigint): number {
  const [one, whole] = [typeof part === 'bigint' ? part : wei(part), typeof all === 'bigint' ? all : wei(all)]
  if (one === null || whole === null) return Number.NaN
  if (whole === 0n) return 0
  // Twelve digits are more than any bar shows.
  return Number((one * 1_000_000_000_000n) / whole) / 1e12
}

export const ppm = (millionths: number): string => `${trimmed(millionths / 10_000)} %`
export const bps = (tenThousandths: number): string => `${trimmed(tenThousandths / 100)} %`
const trimmed = (value: number): string => Number(value.toFixed(4)).toString()

/** Parameters that are amounts; the names of the others end with their unit. */
const AMOUNTS = new Set(['validator_stake_min', 'worker_stake_min', 'proposal_stake_min', 'claim_bond', 'claim_fixed', 'dispute_bond_min', 'dispute_words_price', 'audit_stake_max'])

/** A parameter's value. */
export function parameterValue(name: string, value: string): string {
  const amount = wei(value)
  if (amount === null) return value
  if (AMOUNTS.has(name)) return creditsOf(amount)
  const plain = grouped(value)
  if (name === 'minimum_gas_price') return `${plain} wei`
  if (amount > BigInt(Number.MAX_SAFE_INTEGER)) return plain
  const small = Number(amount)
  if (name.endsWith('_bps')) return bps(small)
  if (name.endsWith('_ppm')) return ppm(small)
  if (name.endsWith('_percent')) return `${plain} %`
  if (name.endsWith('_ms')) return duration(small)
  if (name.endsWith('_s') && !name.endsWith('_per_s')) return span(small)
  if (name.endsWith('_blocks')) return count(small, 'block')
  return plain
}

/** A length of time in seconds, in its two largest units. */
export function span(seconds: number): string {
  const units: [number, string][] = [[86_400, 'day'], [3_600, 'hour'], [60, 'minute'], [1, 'second']]
  const at = units.findIndex(([length]) => seconds >= length)
  if (at < 0) return '0 seconds'
  const [length, name] = units[at] ?? [1, 'second']
  const [next, nextName] = units[at + 1] ?? [0, '']
  const rest = seconds % length
  const more = next > 0 && rest >= next ? ` ${count(Math.floor(rest / next), nextName)}` : ''
  return `${count(Math.floor(seconds / length), name)}${more}`
}
