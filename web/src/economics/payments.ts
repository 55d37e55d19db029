/** Lays payments out as a picture: who paid on the left, who was paid on the right, bands as wide as amounts. */
import { wei } from '../ledger/amounts'
import type { Payment } from '../ledger/shapes'

/** Parties on each side that are drawn by themselves; the others are one. */
const DRAWN_MAX = 8
export const OTHERS = 'others'
export const UNKNOWN = 'unknown'

export interface Party {
  id: string
  amount: bigint
  /** In the picture, from the top. */
  y: number
  height: number
}

export interface Band {
  from: string
  to: string
  amount: bigint
  fromY: number
  toY: number
  height: number
}

export interface Picture {
  payers: Party[]
  payees: Party[]
  bands: Band[]
  height: number
  total: bigint
}

const GAP = 6
const LEAST = 3
/** What a party's two lines of text need. */
const LINES = 30

/** `tall`: how high the bands of one side are together. */
export function picture(payments: Payment[], tall = 220): Picture {
  const read = payments.map(({ from, to, amount }) => ({ from: from ?? UNKNOWN, to, amount: wei(amount) ?? 0n })).filter(({ amount }) => amount > 0n)
  const [payers, payees] = [drawn(read, 'from'), drawn(read, 'to')]
  const sums = new Map<string, { from: string; to: string; amount: bigint }>()
  let total = 0n
  for (const one of read) {
    const from = payers.has(one.from) ? one.from : OTHERS
    const to = payees.has(one.to) ? one.to : OTHERS
    const id = `${from} ${to}`
    sums.set(id, { from, to, amount: (sums.get(id)?.amount ?? 0n) + one.amount })
    total += one.amount
  }
  const links = [...sums.values()].sort((one, two) => Number(two.amount > one.amount) - Number(two.amount < one.amount))
  const height = (amount: bigint) => (total === 0n ? 0 : Math.max(LEAST, (Number((amount * 1_000_000n) / total) / 1e6) * tall))
  const bands = links.map((link) => ({ ...link, fromY: 0, toY: 0, height: height(link.amount) }))
  const [left, right] = [stack(bands, 'from'), stack(bands, 'to')]
  const at = { from: new Map(left.map((one) => [one.id, one.y])), to: new Map(right.map((one) => [one.id, one.y])) }
  for (const band of bands) {
    band.fromY = take(at.from, band.from, band.height)
    band.toY = take(at.to, band.to, band.height)
  }
  const end = (side: Party[]) => side.reduce((sum, party) => sum + Math.max(party.height, LINES) + GAP, 0)
  return { payers: left, payees: right, bands, height: Math.max(end(left), end(right)), total }
}

/** The parties of a side that have most. */
function drawn(payments: { from: string; to: string; amount: bigint }[], side: 'from' | 'to'): Set<string> {
  const sums = new Map<string, bigint>()
  for (const one of payments) sums.set(one[side], (sums.get(one[side]) ?? 0n) + one.amount)
  const most = [...sums].sort(([, one], [, two]) => Number(two > one) - Number(two < one))
  return new Set(most.slice(0, DRAWN_MAX).map(([id]) => id))
}

function stack(bands: Band[], side: 'from' | 'to'): Party[] {
  const parties = new Map<string, Party>()
  for (const band of bands) {
    const party = parties.get(band[side]) ?? { id: band[side], amount: 0n, y: 0, height: 0 }
    party.amount += band.amount
    party.height += band.height
    parties.set(band[side], party)
  }
  let y = 0
  for (const party of parties.values()) {
    const room = Math.max(party.height, LINES)
    party.y = y + (room - party.height) / 2
    y += room + GAP
  }
  return [...parties.values()]
}

function take(at: Map<string, number>, id: string, height: number): number {
  const y = at.get(id) ?? 0
  at.set(id, y + height)
  return y
}
