/** Answers under way: begun here, stopped, gone on with after a reload, and seen through to their end. */
import { SvelteMap } from 'svelte/reactivity'
import { field, getJson } from '../shared/gateway'
import { errorText } from '../shared/words'
import { AnswerFailed, follow, type End, type Progress } from './answer/follow'
import { chats } from './history.svelte'
import { requestBody, type Message, type Resume } from './messages'
import { network } from './network.svelte'
import * as database from './store/database'
import * as tabs from './store/tabs'
import { pathTo } from './tree'

/** Between two writes of a growing answer. */
const KEEP_MS = 400
/** Without a first word for so long, the page says that it still waits. */
const SLOW_MS = 8_000

/** An answer that this tab follows. */
class Live {
  text = $state.raw('')
  waiting = $state.raw<string | null>(null)
  readonly controller = new AbortController()
}

class Answers {
  live = new SvelteMap<string, Live>()
  /** What a screen reader is told. */
  announced = $state('')
  /** Those that this tab follows, or will if the tab that does is closed. */
  #waiting = new Set<string>()

  /** Has a message answered. */
  async begin(answer: Message): Promise<void> {
    await this.#lead({ ...answer, resume: asked(answer) }, true)
  }

  /** Goes on with whatever of the shown chat is under way, and nobody follows: its tab was closed or reloaded. */
  recover(): void {
    const others = [...chats.messages.values()].filter((message) => message.state === 'answering' && !chats.own.has(message.id))
    for (const message of others) void this.#lead(message, false)
  }

  stop(): void {
    for (const message of chats.path) {
      if (message.state !== 'answering') continue
      this.stopOne(message.id)
      tabs.tell({ kind: 'stop', message: message.id })
    }
  }

  stopOne(id: string): void {
    this.live.get(id)?.controller.abort(new DOMException('stopped', 'AbortError'))
  }

  stopAll(): void {
    for (const id of this.live.keys()) this.stopOne(id)
  }

  /** Follows an answer, as the only tab that does; whichever waits for its turn goes on if that tab is closed. */
  async #lead(message: Message, isFresh: boolean): Promise<void> {
    if (this.#waiting.has(message.id)) return
    this.#waiting.add(message.id)
    await tabs.alone(`answer-${message.id}`, async () => {
      const kept = isFresh ? message : await database.message(message.id)
      if (kept?.state === 'answering') await this.#follow({ ...kept, resume: kept.resume ?? asked(kept) })
    })
    this.#waiting.delete(message.id)
  }

  async #follow(message: Message & { resume: Resume }): Promise<void> {
    const live = new Live()
    live.text = message.text
    chats.own.add(message.id)
    this.live.set(message.id, live)
    this.announced = `${message.model ?? 'The model'} is answering.`
    const began = performance.now()
    let now: Message = message
    let keeping: ReturnType<typeof setTimeout> | undefined
    let frame = 0
    const isFirst = message.text === ''
    const slow = setTimeout(() => (live.waiting ??= 'Still waiting for the first word: the worker may be busy, or loading the model. You can go on waiting, or stop.'), SLOW_MS)
    const keep = (): void => {
      keeping = undefined
      void chats.update(now)
    }
    const progress = ({ text, resume }: Progress): void => {
      if (text && !now.text) {
        clearTimeout(slow)
        if (isFirst) now = { ...now, firstMs: Math.round(performance.now() - began) }
      }
      const isKnown = resume.requestId !== now.resume?.requestId
      now = { ...now, text, resume }
      frame ||= requestAnimationFrame(() => {
        frame = 0
        live.text = now.text
      })
      if (isKnown) keep()
      else keeping ??= setTimeout(keep, KEEP_MS)
    }
    try {
      const end = await follow({ text: message.text, resume: message.resume }, {
        key: () => network.key,
        signal: live.controller.signal,
        progress,
        waiting: (why) => (live.waiting = why),
      })
      now = await this.#ended(now, end, Math.round(performance.now() - began))
      this.announced = `Answer: ${now.text.slice(0, 2000)}`
    } catch (error) {
      now = failedAs(now, error, live.controller.signal.aborted)
      this.announced = now.state === 'stopped' ? 'Stopped.' : `The answer failed. ${now.failure?.message ?? ''}`
    } finally {
      clearTimeout(slow)
      clearTimeout(keeping)
      cancelAnimationFrame(frame)
      // The frame may have held the last words.
      live.text = now.text
    }
    await chats.update(now)
    this.live.delete(message.id)
    void network.refresh()
  }

  async #ended({ resume: _, ...message }: Message, { finish, usage, note }: End, tookMs: number): Promise<Message> {
    const ended: Message = { ...message, state: 'whole', finish, tookMs, ...(usage ? { usage } : {}), ...(note ? { note } : {}) }
    if (!note?.handovers) return ended
    // When another worker went on is in the receipt; if that cannot be had, it is left out.
    const handoverTokens = await handovers(note.request_id).catch(() => [])
    return { ...ended, handoverTokens }
  }
}

/** The request that has a message answered. */
function asked(answer: Message): Resume {
  return { body: requestBody(chats.wishes, pathTo(chats.messages, answer.parent), randomSeed()), requestId: null, eventId: null, eventLength: 0 }
}

const randomSeed = (): number => crypto.getRandomValues(new Uint32Array(1))[0] ?? 0

async function handovers(id: string): Promise<number[]> {
  const evidence = await getJson<unknown>(`/v1/receipts/${id}`, network.key)
  const parts = field(field(field(evidence, 'view'), 'envelope'), 'parts')
  const told = (Array.isArray(parts) ? parts : []).filter((part) => !field(part, 'purpose'))
  return told.slice(1).map((part) => Number(field(part, 'first_output_token')) || 0)
}

function failedAs({ resume: _, ...message }: Message, error: unknown, isStopped: boolean): Message {
  if (isStopped) return { ...message, state: 'stopped' }
  const failure = error instanceof AnswerFailed ? error.failure : { message: errorText(error), code: 'page', requestId: null }
  return { ...message, state: 'failed', failure }
}

export const answers = new Answers()
