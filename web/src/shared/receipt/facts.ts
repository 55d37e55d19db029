/** What a receipt that holds says, for people. Its readable part was compared with what is signed: only what the verifier accepted is read here. */
import type { Verdict } from './verify'

export interface Part {
  worker: string
  /** Whether it repeats the answer to check it. */
  isCheck: boolean
  outputTokens: number
  /** Whether its worker broke off. */
  isBroken: boolean
  /** The digest of its receipt. */
  receipt: string | null
}

/** One of the answers to a request, of all the parts that it was given in. */
export interface AnswerFacts {
  text: string
  finish: string
  workers: string[]
  /** Who computed it too, and came to the same. */
  checkedBy: string[]
}

export interface Message {
  role: string
  content: string
}

export interface Facts {
  requestId: string
  gateway: string
  payer: string
  modelName: string
  modelId: string
  /** Micro-credits, as decimal text. */
  charge: string
  receivedMs: number
  doneMs: number
  promptTokens: number
  outputTokens: number
  /** Whether a server of somebody else's answered, by the operator's word. */
  isByWord: boolean
  isConfidential: boolean
  isVector: boolean
  /** Why there is no answer, where a worker refused or failed. */
  failure: string | null
  messages: Message[]
  /** The prompt, where it is a text; its tokens have none. */
  prompt: string | null
  answers: AnswerFacts[]
  parts: Part[]
}

// The verifier has compared this with the signed bytes, to the last field.
interface File {
  request_id: string
  answers: { text: string; output_ids: number[] }[]
  view: { envelope: any; answers: any[] }
}

/** Reads a file that holds. */
export function factsOf(file: unknown, verdict: Verdict & { holds: true }): Facts {
  const { request_id, answers: kept, view } = file as File
  const { envelope } = view
  const signed = view.answers
  const first = signed[0]
  const prompt = first.request.prompt
  const answers: AnswerFacts[] = []
  let isNew = true
  for (const [index, part] of envelope.parts.entries()) {
    const { receipt } = signed[index]
    const isEnd = receipt !== null && receipt.outcome === 'completed'
    if (part.purpose === 'check') {
      answers[signed[index].order.choice]?.checkedBy.push(part.worker)
      continue
    }
    if (isNew || signed[index].order.resumed === null) {
      if (isNew) answers.push({ text: '', finish: '', workers: [], checkedBy: [] })
      else Object.assign(answers.at(-1) as AnswerFacts, { text: '' })
    }
    const answer = answers.at(-1) as AnswerFacts
    answer.text += kept[index]?.text ?? ''
    answer.workers.push(part.worker)
    if (receipt !== null) answer.finish = receipt.finish
    isNew = isEnd
  }
  const last = signed.findLast((_, index) => envelope.parts[index].purpose !== 'check') ?? first
  const failed = last.receipt?.outcome?.failed
  return {
    requestId: request_id,
    gateway: envelope.gateway,
    payer: first.order.payer,
    modelName: envelope.model_name,
    modelId: first.order.model,
    charge: envelope.charge,
    receivedMs: envelope.received_ms,
    doneMs: envelope.done_ms,
    promptTokens: first.receipt?.prompt_tokens ?? first.acceptance?.prompt_tokens ?? 0,
    outputTokens: envelope.parts.reduce((sum: number, part: any) => sum + (part.purpose === 'check' ? 0 : part.output_tokens), 0),
    isByWord: verdict.answers.some((answer) => answer.checked.includes('word')),
    isConfidential: verdict.answers.some((answer) => answer.notChecked.includes('audit')),
    isVector: first.request.embedding !== null,
    failure: failed ? `${String(failed.code).replaceAll('_', ' ')}: ${failed.message}` : null,
    messages: prompt.chat ? prompt.chat.messages.map(({ role, content }: Message) => ({ role, content })) : [],
    prompt: typeof prompt.text === 'string' ? prompt.text : null,
    answers,
    parts: envelope.parts.map((part: any, index: number) => ({
      worker: part.worker, isCheck: part.purpose === 'check', outputTokens: part.output_tokens, isBroken: signed[index].receipt === null,
      receipt: part.receipt,
    })),
  }
}

/** The request that has the same answer computed again, by none of these: same model, messages, seed and parameters. Null where it has no seed to repeat. */
export function rerunBody(file: unknown, ignore: string[]): string | null {
  const { view } = file as File
  const { order, request } = view.answers[0]
  if (order.seed === 'nonce' || !request.prompt.chat || request.prompt.chat.tools.length > 0 || request.grammar !== null) return null
  if (!Number.isSafeInteger(order.seed.caller) || order.choice !== 0) return null
  const { grammar: _, logit_bias, top_k, ...numbers } = order.sampling
  return JSON.stringify({
    model: order.model,
    messages: request.prompt.chat.messages.map(({ role, content }: Message) => ({ role, content })),
    seed: order.seed.caller,
    max_tokens: order.max_output_tokens,
    ...Object.fromEntries(Object.entries(numbers).map(([field, value]) => [field, Number(value)])),
    top_k,
    ...(logit_bias.length > 0 ? { logit_bias: Object.fromEntries(logit_bias.map(([id, bias]: [number, string]) => [id, Number(bias)])) } : {}),
    ...(request.stop.length > 0 ? { stop: request.stop } : {}),
    ...(order.ignore_end ? { ignore_eos: true } : {}),
    provider: { ignore },
  })
}
