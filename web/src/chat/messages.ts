import type { SuretyNote, Usage } from '../shared/gateway'

export interface Attachment {
  name: string
  text: string
}

/** What a conversation asks of the model, beside its messages. Empty: the model's own default. */
export interface Wishes {
  model: string
  system: string
  temperature: number | null
  top_p: number | null
  max_tokens: number | null
  seed: number | null
  stop: string[]
}

export const NO_WISHES: Wishes = { model: '', system: '', temperature: null, top_p: null, max_tokens: null, seed: null, stop: [] }

export interface Chat {
  id: string
  title: string
  /** Once somebody has named it, it is not named by its first message any more. */
  isNamed: boolean
  created: number
  updated: number
  wishes: Wishes
  /** The last message of the branch that is shown. */
  leaf: string | null
}

/** How an answer that broke off can be gone on with. */
export interface Resume {
  body: string
  requestId: string | null
  /** The last event's, and how much of the text it stood at the end of. */
  eventId: string | null
  eventLength: number
}

export interface Failure {
  message: string
  code: string
  requestId: string | null
}

export type MessageState = 'whole' | 'answering' | 'stopped' | 'failed'

export interface Message {
  id: string
  chat: string
  parent: string | null
  role: 'user' | 'assistant'
  text: string
  created: number
  state: MessageState
  attachments?: Attachment[]
  model?: string
  finish?: string
  usage?: Usage
  note?: SuretyNote
  /** Milliseconds from sending to the first text, and to the end. */
  firstMs?: number
  tookMs?: number
  /** Where another worker went on: tokens that were there by then. */
  handoverTokens?: number[]
  failure?: Failure
  resume?: Resume
}

/** A message's text as the model gets it: with what is attached. */
export function fullText(message: Pick<Message, 'text' | 'attachments'>): string {
  const attached = (message.attachments ?? []).map(({ name, text }) => {
    const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), (run) => run[0].length))
    const fence = '`'.repeat(longest + 1)
    return `File ${JSON.stringify(name)}:\n${fence}\n${text}\n${fence}\n\n`
  })
  return attached.join('') + message.text
}

/** The body of the request that has the last message answered. `seed` is where nobody wished for one: whoever has it can compute the answer again. */
export function requestBody(wishes: Wishes, path: Message[], seed: number): string {
  const { model, system, stop, ...numbers } = wishes
  const said = path.map((message) => ({ role: message.role, content: fullText(message) }))
  const set = Object.entries(numbers).filter(([, value]) => value !== null)
  return JSON.stringify({
    model,
    messages: system.trim() ? [{ role: 'system', content: system }, ...said] : said,
    stream: true,
    stream_options: { include_usage: true },
    seed,
    ...Object.fromEntries(set),
    ...(stop.length > 0 ? { stop } : {}),
  })
}

export function titleOf(text: string): string {
  const line = text.trim().split('\n', 1)[0] ?? ''
  const plain = line.replace(/[#*_`>]+/g, '').trim()
  return plain.length > 60 ? `${plain.slice(0, 57).trimEnd()}…` : plain || 'New chat'
}
