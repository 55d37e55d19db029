/** What the explorer says in words: moves of a dispute, what remains in question, blocks' rhythm. */
import { creditsOf, grouped, wei } from '../ledger/amounts'
import { count, duration, percent, whole } from '../shared/words'
import type { BlockRow, DisputeRow, Field, Money, Step, TransactionRow } from './shapes'

/** What a transaction does, in a word or two. */
export function deed(transaction: Pick<TransactionRow, 'kind' | 'module' | 'function'>): string {
  switch (transaction.kind) {
    case 'module':
      return `${transaction.module ?? 'a module'} · ${transaction.function ?? 'no function of it'}`
    case 'transfer':
      return 'transfer'
    case 'deployment':
      return 'deploys a contract'
    default:
      return 'calls a contract'
  }
}

/** Fields that are amounts of credits, by name; the others are told as they are. Prices are not among them. */
const AMOUNTS = new Set([
  'amount', 'value', 'bond', 'bonded', 'slashed', 'refund', 'costs', 'bounty', 'toOperator', 'forfeited', 'balance', 'totalClaimed', 'maxClaimableAmount', 'compensation', 'paid', 'pay', 'deposit',
])

/** The text that 32 bytes are, filled up with zeros; null if they are none. */
function textOf(word: string): string | null {
  const [, digits = ''] = /^0x((?:[2-7][0-9a-f])+?)(?:00)*$/.exec(word) ?? []
  return digits ? `“${digits.replace(/../g, (pair) => String.fromCharCode(parseInt(pair, 16)))}”` : null
}

/** A field's value as people read it, by the fields beside it; null if it says nothing more than the value itself. */
export function meaning(field: Field, beside: Field[] = []): string | null {
  if (field.value === undefined) return null
  if (field.type === 'bytes32' && field.name === 'name') return textOf(field.value)
  if (!field.type.startsWith('uint')) return null
  // A parameter's value is of whatever the parameter counts.
  const isParameter = field.name === 'value' && beside.some(({ name, type }) => name === 'name' && type === 'bytes32')
  if (AMOUNTS.has(field.name) && !isParameter) return wei(field.value) === null ? null : creditsOf(field.value)
  if (/^(moveUntil|until|jailedUntil|matureAt|startedAt)$/.test(field.name)) {
    const seconds = Number(field.value)
    return seconds > 1e9 && seconds < 1e11 ? new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ') + ' UTC' : null
  }
  return field.value.length > 4 && field.value.length <= 20 ? grouped(field.value) : null
}

const RAISED = '⁰¹²³⁴⁵⁶⁷⁸⁹'

/** How many words are in question, as the power of two that is nearest. */
export function power(words: number): string {
  if (!(words >= 1)) return '0'
  const exponent = Math.log2(words)
  const raised = [...String(Math.round(exponent))].map((digit) => RAISED[Number(digit)]).join('')
  return `${Number.isInteger(exponent) ? '' : '≈ '}2${raised}`
}

/** A move in words. */
export function move(step: Step): string {
  switch (step.function) {
    case 'open':
      return 'accuses the answer: order, receipt and model are shown, signed and of each other.'
    case 'openAsking':
      return 'accuses the answer, and asks which tokens the worker was given.'
    case 'showIds':
      return 'shows the tokens that it was given; they are those the receipt commits to.'
    case 'root':
      return `opens the receipt’s commitment and names the whole computation by one digest${parts(step)}.`
    case 'divide':
      return `shows what is in question${parts(step)}; it is of what it named before.`
    case 'pick':
      return step.index === null ? 'picks the first part that differs from its own computation.' : `picks part ${whole(step.index)}: the first that differs from its own computation.`
    case 'leaf':
      return 'names the first word that differs, with everything that it is computed from. The ledger computes it.'
    case 'claimOutput':
      return `shows that output ${step.index === null ? '' : whole(step.index) + ' '}is not what the worker’s own computation samples.`
    case 'claimState':
      return 'shows that the worker’s own computation ends in another state than the receipt says.'
    case 'claimText':
      return 'shows that the text is not what the answer’s tokens spell.'
    case 'claimPrompt':
      return 'shows that the tokens given are not what the request renders to.'
    case 'timeOut':
      return 'says that the other side’s time is over. It was silent.'
    case 'twoAnswers':
      return 'shows two answers that the worker signed to one order.'
    case 'pastEnd':
      return `shows that the answer goes on past an end: token ${step.index === null ? '' : whole(step.index) + ' '}of it is one.`
    case 'falseStop':
      return 'shows that the answer was called finished where its last token is no end.'
    default:
      return `calls ${step.function}.`
  }
}

function parts(step: Step): string {
  if (step.nodes !== null) return `, in ${count(step.nodes, 'part')}`
  return step.bytes === null ? '' : `: its ${count(step.bytes, 'byte')}`
}

const MOVES = {
  root: 'to name its computation by one digest',
  pick: 'to pick the first part that differs',
  division: 'to take apart what is in question',
  leaf: 'to show the word that is wrong',
  ids: 'to show the tokens it was given',
}

/** Whose move it is and until when, by this machine's clock. */
export function turn(dispute: DisputeRow, now: number): string | null {
  if (!dispute.turn || !dispute.awaited) return null
  const left = dispute.move_until === null ? null : dispute.move_until * 1000 - now
  const until = left === null ? '' : left > 0 ? `, within ${duration(left)}` : '; its time is over, and whoever says so on the ledger ends the dispute'
  return `It is the ${dispute.turn}’s turn ${MOVES[dispute.awaited]}${until}. Who is silent loses.`
}

export const STATES = {
  open: { word: 'open', tone: 'caution' },
  convicted: { word: 'convicted', tone: 'danger' },
  dismissed: { word: 'dismissed', tone: 'quiet' },
  overtaken: { word: 'convicted by other evidence', tone: 'quiet' },
} as const

export function stateOf(dispute: DisputeRow): (typeof STATES)[keyof typeof STATES] {
  if (dispute.is_open) return STATES.open
  if (dispute.is_convicted) return STATES.convicted
  return dispute.state === 10 ? STATES.overtaken : STATES.dismissed
}

const FROM = { stake: 'The operator’s stake', bond: 'The challenger’s bond' }
const TO = { payer: 'who paid for the answer', challenger: 'the challenger', operator: 'the operator', validators: 'the bonds of the next validators' }
const WHY = { refund: 'refund', costs: 'costs of the dispute', bounty: 'bounty: it had committed to the accusation', defence: 'costs of the defence', forfeited: 'the rest', returned: 'its own bond, given back' }

export const paid = (money: Money): { from: string; to: string; why: string } => ({ from: FROM[money.from], to: TO[money.to], why: WHY[money.why] })

/** What the operator lost, in wei. */
export const lost = (money: Money[]): bigint => money.filter((one) => one.from === 'stake').reduce((sum, one) => sum + (wei(one.amount) ?? 0n), 0n)

export interface Rhythm {
  blocks: number
  /** From the first of them to the last. */
  spanMs: number
  meanMs: number
  longestMs: number
  busy: number
  fullest: number
}

/** How blocks followed each other; they come newest first. Null of fewer than two. */
export function rhythm(blocks: BlockRow[], gasLimit: number): Rhythm | null {
  const [newest, oldest] = [blocks[0], blocks.at(-1)]
  if (!newest || !oldest || blocks.length < 2) return null
  const spanMs = newest.timestamp_ms - oldest.timestamp_ms
  let longestMs = 0
  for (let at = 1; at < blocks.length; at += 1) longestMs = Math.max(longestMs, (blocks[at - 1]?.timestamp_ms ?? 0) - (blocks[at]?.timestamp_ms ?? 0))
  return {
    blocks: blocks.length,
    spanMs,
    meanMs: spanMs / (blocks.length - 1),
    longestMs,
    busy: blocks.filter((block) => block.gas_used > 0).length,
    fullest: fullness(Math.max(...blocks.map((block) => block.gas_used)), gasLimit),
  }
}

export const fullness = (gas: number, limit: number): number => (limit > 0 ? Math.min(1, gas / limit) : 0)

export function rhythmSaid(found: Rhythm): string {
  return `${whole(found.blocks)} blocks in ${duration(found.spanMs)}: one every ${duration(found.meanMs)}, ${duration(found.longestMs)} at most between two. ${found.busy === 0 ? 'All are empty.' : `${count(found.busy, 'has', 'have')} transactions; the fullest used ${percent(found.fullest)} of its gas.`}`
}

/** The 32 bits of a word, and which of them are others in another word. */
export function bits(word: string, other: string): { bit: string; differs: boolean }[] {
  const [own, others] = [binary(word), binary(other)]
  return [...own].map((bit, index) => ({ bit, differs: others.length === own.length && others[index] !== bit }))
}

function binary(word: string): string {
  return /^0x[0-9a-f]{8}$/.test(word) ? Number(word).toString(2).padStart(32, '0') : ''
}
