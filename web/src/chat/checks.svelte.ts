/**
 * Checks of answers: the receipt is verified in this page, against what the page shows; then the ledger is asked, now and then, whether an audit
 * computed the answer again; and whoever wishes has it computed again by somebody else.
 */
import { SvelteMap } from 'svelte/reactivity'
import { field, GatewayError, getJson, headers } from '../shared/gateway'
import { factsOf, rerunBody, type Facts } from '../shared/receipt/facts'
import { leadsToRoot, type Inclusion } from '../shared/receipt/inclusion'
import { loadVerifier, type Found, type Verdict } from '../shared/receipt/verify'
import { errorText, short } from '../shared/words'
import { chats } from './history.svelte'
import { fullText, type Message } from './messages'
import { network } from './network.svelte'

/** Between two questions to the ledger: an audit takes epochs, and most receipts are never drawn. */
const LEDGER_PAUSES_MS = [8_000, 20_000, 60_000, 180_000, 600_000, 1_800_000]

export interface Part {
  operator: string | null
  receipt: string | null
  inclusion: Inclusion | null
  /** Whether this page has followed the path from the receipt that it verified to the root. Null: it cannot hash, or there is no path. */
  isIncluded: boolean | null
  drawn: boolean
  audit: string | null
  auditor: string | null
  confirmed: boolean
  contested: boolean
  convicted: boolean
  dispute_state: string | null
  refunded: boolean | null
  said: string[]
}

export type Ledger = { kind: 'asking' } | { kind: 'none' } | { kind: 'unknown'; why: string } | { kind: 'told'; parts: Part[] }

export type Rerun =
  | { kind: 'running' }
  | { kind: 'same' | 'differs'; worker: string; requestId: string; cost: string; text: string }
  | { kind: 'failed'; why: string }

/** How far a check is, and what came of it. */
export class Check {
  phase = $state<'waiting' | 'checking' | 'holds' | 'refused' | 'unavailable'>('waiting')
  /** Why it is refused, or cannot be checked. */
  why = $state('')
  facts = $state.raw<Facts | null>(null)
  envelope = $state.raw<Found | null>(null)
  found = $state.raw<Found | null>(null)
  ledger = $state.raw<Ledger | null>(null)
  rerun = $state.raw<Rerun | null>(null)
  /** The receipt, as it came. */
  text = $state.raw('')
  /** Milliseconds that verifying took. */
  tookMs = $state(0)

  /** Whether somebody else computed the answer, and came to the same. */
  readonly isModelChecked = $derived.by(() => {
    if (this.phase !== 'holds') return false
    const told = this.ledger?.kind === 'told' ? this.ledger.parts : []
    return this.isRepeated || this.rerun?.kind === 'same' || (told.length > 0 && told.every((part) => part.confirmed))
  })
  readonly isRepeated = $derived((this.facts?.answers[0]?.checkedBy.length ?? 0) > 0)
  /** What speaks against the answer, though its receipt holds. */
  readonly objection = $derived.by(() => {
    const told = this.ledger?.kind === 'told' ? this.ledger.parts : []
    if (told.some((part) => part.convicted)) return 'Its worker was convicted of a false receipt for it.'
    if (told.some((part) => part.audit === 'differing')) return 'An audit computed it again, and did not come to the same.'
    if (this.rerun?.kind === 'differs') return 'Another worker computed it again, and did not come to the same. One of the two does not compute the model; comparing does not show which.'
    return null
  })
}

class Checks {
  #all = new SvelteMap<string, Check>()

  of(id: string): Check | undefined {
    return this.#all.get(id)
  }

  /** Checks an answer, unless that is done or under way. */
  async begin(message: Message): Promise<void> {
    const known = this.#all.get(message.id)
    if (known && known.phase !== 'unavailable') return
    const check = known ?? new Check()
    if (!known) this.#all.set(message.id, check)
    check.phase = 'checking'
    if (await verify(message, check)) void followAudit(message, check)
  }

  /** Has somebody else compute the answer. */
  async rerun(message: Message): Promise<void> {
    const check = this.#all.get(message.id)
    if (!check?.facts || check.rerun?.kind === 'running') return
    check.rerun = { kind: 'running' }
    check.rerun = await computedAgain(check).catch((error: unknown) => ({ kind: 'failed' as const, why: errorText(error) }))
  }
}

export const checks = new Checks()

/** Whether the receipt holds, and is this answer's. */
async function verify(message: Message, check: Check): Promise<boolean> {
  const { note } = message
  try {
    if (!note?.receipt) throw new Error('The gateway could not keep a receipt for it.')
    const [text, verifier] = await Promise.all([receiptText(note.receipt), loadVerifier()])
    const file = new TextEncoder().encode(text)
    const before = performance.now()
    const verdict = verifier.verify(file)
    check.tookMs = performance.now() - before
    check.text = text
    const facts = verdict.holds ? factsOf(JSON.parse(text), verdict) : null
    const why = facts ? mismatch(message, facts) : (verdict as Verdict & { holds: false }).why
    check.why = why ?? ''
    if (why !== null || !verdict.holds) {
      check.phase = 'refused'
      return false
    }
    check.facts = facts
    check.envelope = verdict.envelope
    check.found = verdict.answers[0] ?? null
    check.phase = 'holds'
    return true
  } catch (error) {
    check.why = error instanceof TypeError ? 'The gateway cannot be reached; its receipt is not here.' : errorText(error)
    check.phase = 'unavailable'
    return false
  }
}

async function receiptText(path: string): Promise<string> {
  const response = await fetch(path, { headers: headers(network.key, { accept: 'application/json' }), cache: 'no-store' })
  const text = await response.text()
  if (response.ok) return text
  let body: unknown = null
  try {
    body = JSON.parse(text)
  } catch {
    // What is no JSON says nothing.
  }
  throw GatewayError.of(response.status, body)
}

/** In what a receipt that holds is not this answer's. Null: it is. */
function mismatch(message: Message, facts: Facts): string | null {
  const { note } = message
  if (facts.requestId !== note?.request_id) return `This is the receipt of another request, ${facts.requestId}: somebody put it in the place of this answer’s.`
  const answer = facts.answers[0]
  if (answer?.text !== message.text) return 'The text in the receipt is not the text that this page shows: one of the two was changed.'
  const question = chats.messages.get(message.parent ?? '')
  if (question && facts.messages.at(-1)?.content !== fullText(question)) return 'What the worker answered is not what you asked: the receipt is for another prompt.'
  if (note.model && facts.modelId !== note.model) return 'The model in the receipt is not the one that the gateway names.'
  return null
}

async function followAudit(message: Message, check: Check): Promise<void> {
  const { facts } = check
  if (!facts || facts.isByWord || facts.isConfidential || !message.note) return
  check.ledger = { kind: 'asking' }
  for (const pause of LEDGER_PAUSES_MS) {
    if (!document.hidden) {
      try {
        const { parts } = await getJson<{ parts: Part[] }>(`/v1/receipts/${message.note.request_id}/ledger`, network.key)
        for (const part of parts) part.isIncluded = await included(facts, part)
        check.ledger = { kind: 'told', parts }
        const isOver = parts.every((part) => part.confirmed || part.convicted || part.audit === 'no answer to compute' || part.audit === 'confidential')
        if (isOver) return
      } catch (error) {
        const code = error instanceof GatewayError ? error.code : null
        check.ledger = code === 'no_ledger' ? { kind: 'none' } : { kind: 'unknown', why: errorText(error) }
        if (code === 'no_ledger' || code === 'not_found') return
      }
    }
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
}

async function included(facts: Facts, { receipt, inclusion }: Part): Promise<boolean | null> {
  if (inclusion?.state !== 'included') return null
  if (receipt === null || !facts.parts.some((part) => part.receipt === receipt)) return false
  return isSecureContext ? leadsToRoot(receipt, inclusion) : null
}

async function computedAgain(check: Check): Promise<Rerun> {
  const facts = check.facts as Facts
  const workers = [...new Set(facts.parts.map(({ worker }) => worker))]
  const operators = workers.map((worker) => network.operatorOf(worker)).filter((operator) => operator !== undefined)
  const file: unknown = JSON.parse(check.text)
  const body = rerunBody(file, [...new Set([...workers, ...operators])])
  if (body === null) return { kind: 'failed', why: 'It cannot be asked for again from here: it has no seed, or tools that this page does not send. `surety verify --recompute` computes it again all the same.' }
  const response = await fetch('/v1/chat/completions', { method: 'POST', headers: headers(network.key, { 'content-type': 'application/json' }), body })
  const told: unknown = await response.json().catch(() => null)
  if (!response.ok) {
    const error = GatewayError.of(response.status, told)
    return { kind: 'failed', why: error.code === 'no_worker' ? `There is no second worker to ask. ${error.message}` : error.message }
  }
  const id = String(field(field(told, 'surety'), 'request_id') ?? response.headers.get('x-request-id'))
  const text = await receiptText(`/v1/receipts/${id}`)
  const verdict = (await loadVerifier()).verify(new TextEncoder().encode(text))
  if (!verdict.holds) return { kind: 'failed', why: `Another worker answered, and its receipt does not hold: ${verdict.why}` }
  const again = factsOf(JSON.parse(text), verdict)
  const [mine, theirs] = [ordered(file), ordered(JSON.parse(text))]
  const other = again.answers[0]
  const worker = other?.workers[0] ?? ''
  if (workers.includes(worker)) return { kind: 'failed', why: `The gateway asked the same worker again, ${short(worker)}.` }
  if (mine.request !== theirs.request || mine.model !== theirs.model || mine.seed !== theirs.seed || mine.sampling !== theirs.sampling) {
    return { kind: 'failed', why: 'The gateway did not order the same of the second worker (a template with another day’s date, for example), so the two cannot be compared.' }
  }
  const isSame = other?.text === facts.answers[0]?.text && other?.finish === facts.answers[0]?.finish
  return { kind: isSame ? 'same' : 'differs', worker, requestId: again.requestId, cost: again.charge, text: other?.text ?? '' }
}

/** What was ordered, to compare; the view is what is signed. */
function ordered(file: unknown): { request: unknown; model: unknown; seed: string; sampling: string } {
  const view = field(file, 'view')
  const answers = field(view, 'answers') as unknown[]
  const order = field(answers[0], 'order')
  return {
    request: field(order, 'request_digest'),
    model: field(order, 'model'),
    seed: JSON.stringify(field(order, 'seed')),
    sampling: JSON.stringify(field(order, 'sampling')),
  }
}
