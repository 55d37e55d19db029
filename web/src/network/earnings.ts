/** What the ledger shows that an operator was paid, as it is drawn and listed. */
import { wei } from '../ledger/amounts'

/** Amounts are wei, as decimal text. */
export interface EpochEarnings {
  epoch: number
  settled: string
  for_auditors: string
  for_proposers: string
  taken: string
  audits: string
  hosting: string
  bonds: string
  received: string
  slashed: string
}

/** `/v1/network/operators/{id}/earnings`. */
export interface Earnings {
  operator: string
  number: number
  timestamp_ms: number
  claimed: string
  settled: string
  unpaid: string
  due: string
  to_be_taken: string
  balance: string
  bonded: string
  epochs: EpochEarnings[]
}

export const amount = (text: string): bigint => wei(text) ?? 0n

/** What orders brought it: what was settled of its claims, less what others are given of it. */
export const ofOrders = (one: EpochEarnings): bigint => {
  const own = amount(one.settled) - amount(one.for_auditors) - amount(one.for_proposers) - amount(one.taken)
  return own > 0n ? own : 0n
}

const KINDS: [string, (one: EpochEarnings) => bigint][] = [
  ['Orders', ofOrders],
  ['Audits of others', (one) => amount(one.audits)],
  ['Hosting', (one) => amount(one.hosting)],
  ['Bonds of failed claims', (one) => amount(one.bonds)],
]

/** Credits, for drawing. */
const drawn = (value: bigint): number => Number(value) / 1e18

/** What reached it, by epoch and kind; kinds that brought nothing are left out. */
export function bars(epochs: EpochEarnings[]): { names: string[]; bars: { name: string; parts: number[] }[] } {
  const kinds = KINDS.filter(([, of]) => epochs.some((one) => of(one) > 0n))
  return { names: kinds.map(([name]) => name), bars: epochs.map((one) => ({ name: `epoch ${one.epoch}`, parts: kinds.map(([, of]) => drawn(of(one))) })) }
}

/** Epochs in which anything was paid or taken, the latest first. */
export const told = (epochs: EpochEarnings[]): EpochEarnings[] => epochs.filter((one) => [one.settled, one.received, one.slashed].some((text) => amount(text) > 0n)).toReversed()

export const received = (epochs: EpochEarnings[]): bigint => epochs.reduce((sum, one) => sum + amount(one.received), 0n)
