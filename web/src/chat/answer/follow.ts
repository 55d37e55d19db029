/**
 * Following an answer to its end: through lost connections, a gateway that begins again, and pages that are reloaded.
 *
 * The gateway tells with each event how far the text is (`docs/api/streams.md`); whoever sends the same request again with the last event's id
 * gets the rest of the same answer, to the byte.
 */
import { field, GatewayError, getJson, headers, type SuretyNote, type Usage } from '../../shared/gateway'
import type { Failure, Resume } from '../messages'
import { EventReader } from './events'

const PATH = '/v1/chat/completions'
/** Without a sign of life for so long, not even a comment, the line is dead. */
const SILENCE_MS = 45_000
/** How long a gateway that cannot be reached is waited for. */
const PATIENCE_MS = 120_000
const PAUSE_MS_MAX = 5_000
/** How often something that may pass is tried again. */
const TRIES_MAX = 6

export interface Progress {
  text: string
  resume: Resume
}

export interface End {
  finish: string
  usage: Usage | null
  note: SuretyNote | null
}

export interface Follower {
  key: () => string
  signal: AbortSignal
  /** The text has become longer, or where to go on is known. */
  progress: (progress: Progress) => void
  /** What the reader waits for; null: nothing. */
  waiting: (why: string | null) => void
}

/** The answer failed, with as much of it as came. */
export class AnswerFailed extends Error {
  constructor(readonly failure: Failure) {
    super(failure.message)
  }
}

/** Follows an answer from where `resume` says; throws `AnswerFailed`, or the signal's reason once it is aborted. */
export async function follow(begun: Progress, follower: Follower): Promise<End> {
  const answer = new Answer(begun, follower)
  let tries = 0
  let unreachableSince: number | null = null
  for (;;) {
    follower.signal.throwIfAborted()
    const before = answer.text.length
    try {
      const end = await answer.attempt()
      if (end) return end
      follower.waiting('The connection was lost. Going on with the answer…')
    } catch (error) {
      follower.signal.throwIfAborted()
      if (error instanceof GatewayError) {
        unreachableSince = null
        if (answer.isWhole(error)) return answer.fromReceipt()
        const isOver = !error.isRetryable || (tries += 1) > TRIES_MAX
        if (isOver && !answer.beginsAnew(error)) throw failed(error, answer.resume.requestId)
        follower.waiting(error.message)
        await pause(Math.max(error.retryAfterMs, 500), follower.signal)
        continue
      }
      // The clock that people see may be set meanwhile; this one goes on.
      unreachableSince ??= performance.now()
      if (performance.now() - unreachableSince > PATIENCE_MS) throw unreachable(answer.resume.requestId)
      follower.waiting('The gateway cannot be reached. Trying again…')
    }
    if (answer.text.length > before) {
      tries = 0
      unreachableSince = null
    }
    tries += 1
    await pause(Math.min(250 * 2 ** tries, PAUSE_MS_MAX), follower.signal)
  }
}

function failed(error: GatewayError, requestId: string | null): AnswerFailed {
  return new AnswerFailed({ message: error.message, code: error.code, requestId: error.requestId ?? requestId })
}

function unreachable(requestId: string | null): AnswerFailed {
  const message = 'The gateway cannot be reached. See that it runs (`surety up`), then try again; what has come so far is kept.'
  return new AnswerFailed({ message, code: 'unreachable', requestId })
}

class Answer {
  text: string
  resume: Resume
  #follower: Follower

  constructor({ text, resume }: Progress, follower: Follower) {
    this.text = text
    this.resume = { ...resume }
    this.#follower = follower
  }

  /** One request. Null: the stream broke off, and may be gone on with. */
  async attempt(): Promise<End | null> {
    const from = this.#lastEvent()
    this.#tell(this.text.slice(0, from.length))
    const silence = new AbortController()
    let timer = setTimeout(() => silence.abort(), SILENCE_MS)
    try {
      const response = await fetch(PATH, {
        method: 'POST',
        headers: headers(this.#follower.key(), { 'content-type': 'application/json', ...from.header }),
        body: this.resume.body,
        signal: AbortSignal.any([this.#follower.signal, silence.signal]),
      })
      if (!response.ok || !response.body) throw GatewayError.of(response.status, await response.json().catch(() => null))
      // An error has an id of its own; the answer keeps the one that it began with.
      this.resume.requestId = response.headers.get('x-request-id') ?? this.resume.requestId
      this.#tell(this.text)
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      const events = new EventReader()
      const end: Partial<End> = {}
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return null
        clearTimeout(timer)
        timer = setTimeout(() => silence.abort(), SILENCE_MS)
        for (const { id, data } of events.take(value)) {
          if (data === '[DONE]') return { finish: end.finish ?? 'stop', usage: end.usage ?? null, note: end.note ?? null }
          this.#chunk(id, data, end)
        }
      }
    } catch (error) {
      if (silence.signal.aborted) return null
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  #chunk(id: string | null, data: string, end: Partial<End>): void {
    const chunk: unknown = JSON.parse(data)
    if (field(chunk, 'error')) throw GatewayError.of(200, chunk)
    const choice = (field(chunk, 'choices') as unknown[] | undefined)?.[0]
    const content = field(field(choice, 'delta'), 'content')
    const finish = field(choice, 'finish_reason')
    if (typeof finish === 'string') end.finish = finish
    const usage = field(chunk, 'usage') as Usage | null | undefined
    if (usage) end.usage = usage
    const note = field(chunk, 'surety') as SuretyNote | undefined
    if (note) end.note = note
    const text = typeof content === 'string' ? this.text + content : this.text
    if (id) {
      this.resume.eventId = id
      this.resume.eventLength = text.length
    }
    if (text.length > this.text.length) this.#follower.waiting(null)
    this.#tell(text)
  }

  #tell(text: string): void {
    this.text = text
    this.#follower.progress({ text, resume: { ...this.resume } })
  }

  /** Where to go on, and how much of the text stands before that. */
  #lastEvent(): { header: Record<string, string>; length: number } {
    const { requestId, eventId, eventLength } = this.resume
    if (eventId) return { header: { 'last-event-id': eventId }, length: eventLength }
    // The first events may have come without an id.
    if (requestId) return { header: { 'last-event-id': `${requestId}:0` }, length: 0 }
    return { header: {}, length: 0 }
  }

  /** Whether the gateway says that it had given the answer to its end. */
  isWhole(error: GatewayError): boolean {
    return error.code === 'not_found' && error.param === 'Last-Event-ID' && error.message.includes('/v1/receipts/')
  }

  async fromReceipt(): Promise<End> {
    const id = this.resume.requestId ?? this.resume.eventId?.split(':')[0] ?? ''
    const evidence = await getJson<unknown>(`/v1/receipts/${encodeURIComponent(id)}`, this.#follower.key())
    return this.#readReceipt(id, evidence)
  }

  #readReceipt(id: string, evidence: unknown): End {
    const view = field(evidence, 'view')
    const envelope = field(view, 'envelope')
    const signed = list(field(view, 'answers'))
    const kept = list(field(evidence, 'answers'))
    // What was computed again to be compared was told to nobody.
    const parts = list(field(envelope, 'parts')).map((part, index) => ({ part, text: field(kept[index], 'text'), signed: signed[index] }))
    const told = parts.filter(({ part }) => !field(part, 'purpose'))
    const last = told.at(-1)
    if (!last || told.some(({ text }) => typeof text !== 'string')) throw failed(new GatewayError(200, 'page', 'The receipt of this answer cannot be read here.'), id)
    this.#tell(told.map(({ text }) => text).join(''))
    const outputTokens = told.reduce((sum, { part }) => sum + (Number(field(part, 'output_tokens')) || 0), 0)
    return {
      finish: 'stop',
      usage: { prompt_tokens: Number(field(field(last.signed, 'receipt'), 'prompt_tokens')) || 0, completion_tokens: outputTokens },
      note: {
        request_id: id,
        receipt: `/v1/receipts/${id}`,
        model: String(field(field(last.signed, 'order'), 'model') ?? ''),
        tier: '',
        workers: [...new Set(told.map(({ part }) => String(field(part, 'worker'))))],
        verification: 'unknown',
        handovers: told.length - 1,
        cost: String(field(envelope, 'charge') ?? ''),
        checked: [],
        not_checked: [],
      },
    }
  }

  /** Nothing is kept of a stream that had hardly begun: it is asked for anew. */
  beginsAnew(error: GatewayError): boolean {
    const isGone = error.code === 'not_found' && error.param === 'Last-Event-ID'
    if (!isGone || this.resume.eventId) return false
    this.resume.requestId = null
    return true
  }
}

const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : [])

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const over = (): void => {
      clearTimeout(timer)
      removeEventListener('online', over)
      signal.removeEventListener('abort', stopped)
      resolve()
    }
    const stopped = (): void => reject(signal.reason as Error)
    const timer = setTimeout(over, ms)
    addEventListener('online', over)
    signal.addEventListener('abort', stopped)
  })
}
