/** What somebody drops, pastes or names, taken as a receipt: verified in this page, or said in a sentence why that cannot be. */
import { factsOf, type Facts } from '../shared/receipt/facts'
import { MAX_BYTES, type Found, type Verifier } from '../shared/receipt/verify'
import { bytes } from '../shared/words'

export type Outcome =
  | { kind: 'holds'; facts: Facts; envelope: Found; answers: Found[]; wrapped: boolean }
  | { kind: 'refused'; code: string; why: string; answer: number | null }
  /** It is no receipt, or cannot be read at all. */
  | { kind: 'unreadable'; why: string }

const HOWEVER = 'A receipt is the JSON that a gateway gives at /v1/receipts/ID, or that `surety verify` takes.'

export function tooLong(size: number): Outcome {
  return { kind: 'unreadable', why: `That is ${bytes(size)}; a receipt has at most ${bytes(MAX_BYTES)}. Nothing of it was read.` }
}

/** Reads what was given, as bytes. */
export function read(file: Uint8Array, verifier: Verifier): Outcome {
  if (file.length > MAX_BYTES) return tooLong(file.length)
  if (file.length === 0) return { kind: 'unreadable', why: `There is nothing in it. ${HOWEVER}` }
  const given = parsed(file)
  if (given === undefined) {
    return { kind: 'unreadable', why: `That is not JSON in UTF-8. ${HOWEVER} A bundle of a dispute is judged again by \`surety dispute\`.` }
  }
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return { kind: 'unreadable', why: `That is JSON, but no receipt. ${HOWEVER}` }
  if ('surety_dossier' in given) return ofDossier(given as Record<string, unknown>, verifier)
  if (!('surety' in given)) {
    const error = (given as { error?: { message?: unknown } }).error?.message
    const told = typeof error === 'string' ? ` It is an error of a gateway: “${error.slice(0, 300)}”` : ''
    return { kind: 'unreadable', why: `That is JSON, but no receipt.${told || ` ${HOWEVER}`}` }
  }
  return verified(file, verifier, false)
}

/** What `surety explain` saves holds a receipt, if there was an answer, beside what the gateway says. */
function ofDossier(dossier: Record<string, unknown>, verifier: Verifier): Outcome {
  if (!dossier.evidence) {
    return { kind: 'unreadable', why: 'What `surety explain` saved of this request holds no receipt: the request was not answered. Read it with `surety explain`.' }
  }
  return verified(new TextEncoder().encode(JSON.stringify(dossier.evidence)), verifier, true)
}

function verified(file: Uint8Array, verifier: Verifier, wrapped: boolean): Outcome {
  const verdict = verifier.verify(file)
  if (!verdict.holds) return { kind: 'refused', code: verdict.code, why: verdict.why, answer: verdict.answer }
  return { kind: 'holds', facts: factsOf(parsed(file), verdict), envelope: verdict.envelope, answers: verdict.answers, wrapped }
}

/** Undefined: no JSON. */
function parsed(file: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(file))
  } catch {
    return undefined
  }
}

export type Comparison = { kind: 'same' | 'space' } | { kind: 'differs'; at: number }

/** Whether a text that somebody saw is the signed one. */
export function compare(seen: string, signed: string): Comparison {
  if (seen === signed) return { kind: 'same' }
  const plain = (text: string) => text.replace(/\r\n/g, '\n').trim()
  if (plain(seen) === plain(signed)) return { kind: 'space' }
  let at = 0
  while (at < seen.length && seen[at] === signed[at]) at += 1
  return { kind: 'differs', at }
}
