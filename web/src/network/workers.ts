/** Workers as people compare them. */
import type { LiveNetwork, Model, WorkerReport } from '../shared/gateway'
import { range } from '../shared/models'
import { credits, short } from '../shared/words'
import type { Tone } from '../pages/State.svelte'

export interface Operator {
  /** The account, or the key of a worker that no ledger lists. */
  id: string
  isListed: boolean
  workers: WorkerReport[]
}

export interface How {
  tone: Tone
  word: string
  why?: string
}

/** Workers by who answers for them, as the gateway lists them. */
export function operators(workers: WorkerReport[]): Operator[] {
  const found = new Map<string, Operator>()
  for (const worker of workers) {
    const id = worker.operator ?? worker.id
    const operator = found.get(id) ?? { id, isListed: worker.operator !== undefined, workers: [] }
    operator.workers.push(worker)
    found.set(id, operator)
  }
  return [...found.values()]
}

/** How a worker is, for an order that comes now. */
export function how(worker: WorkerReport): How {
  const breaker = worker.measured.breaker ?? 'closed'
  if (worker.state === 'ready' && breaker !== 'closed') return { tone: 'caution', word: 'resting', why: 'It failed again and again, and gets an order now and then as a trial.' }
  if (worker.state === 'ready') return { tone: 'good', word: 'ready' }
  if (worker.state === 'starting') return { tone: 'quiet', word: 'starting' }
  if (worker.state === 'draining') return { tone: 'quiet', word: 'leaving', why: 'It ends what it has, and takes nothing new.' }
  return { tone: 'danger', word: 'unreachable', ...(worker.reason ? { why: worker.reason } : {}) }
}

export const isReady = (worker: WorkerReport): boolean => how(worker).tone === 'good'

export const serves = (worker: WorkerReport, model: string): boolean => worker.models.some((one) => one.id === model)

/** Names of what it serves, shortest first where one model has several. */
export const modelNames = (worker: WorkerReport): string[] => worker.models.map((model) => model.names.toSorted((a, b) => a.length - b.length)[0] ?? short(model.id))

/** Tokens a second of one answer: of the model, or of the quickest it serves; measured by the gateway, else as it says. */
export function pace(worker: WorkerReport, model?: string): { tokens: number; isMeasured: boolean } | null {
  const of = <T extends { id: string }>(all: T[]) => (model ? all.filter((one) => one.id === model) : all)
  const measured = Math.max(0, ...of(worker.measured.models).map((one) => one.tokens_per_second ?? 0))
  if (measured > 0) return { tokens: measured, isMeasured: true }
  const said = Math.max(0, ...of(worker.models).map((one) => one.decode_tokens_per_second))
  return said > 0 ? { tokens: said, isMeasured: false } : null
}

/** Requests that it has: those of this gateway's, or those it tells of. */
export const busy = (worker: WorkerReport): number => Math.max(worker.measured.orders ?? 0, worker.active_requests + (worker.waiting_requests ?? 0))

/** A model under all its names. */
export interface Served {
  id: string
  names: string[]
  /** As the gateway lists it under the first of them. */
  model: Model
  hosts: WorkerReport[]
  ready: number
  /** Operators of whom at least one worker is ready. */
  operators: number
}

export function served(network: LiveNetwork): Served[] {
  const found = new Map<string, Served>()
  for (const model of network.models) {
    const known = found.get(model.surety.id)
    if (known) {
      known.names.push(model.id)
      continue
    }
    const hosts = network.workers.filter((worker) => serves(worker, model.surety.id))
    const ready = hosts.filter(isReady)
    found.set(model.surety.id, { id: model.surety.id, names: [model.id], model, hosts, ready: ready.length, operators: operators(ready).length })
  }
  return [...found.values()]
}

/** How a model is, for a request that comes now. */
export function health(served: Served): How {
  if (served.ready === 0) return { tone: 'danger', word: 'not available' }
  if (served.ready < served.hosts.length) return { tone: 'caution', word: 'fewer hosts' }
  return { tone: 'good', word: 'available' }
}

const bare = (micro: string): string => credits(micro).replace(/ credits?$/, '')

/** Credits per million tokens, from the least to the most that is asked; null where nothing is. */
export function prices(hosts: WorkerReport[], model: string): { prompt: string; output: string; least: bigint } | null {
  const offers = hosts.flatMap((worker) => worker.offers?.filter((offer) => offer.model === model) ?? [])
  const between = (amounts: string[]) => {
    const found = range(amounts)
    return found && (found[0] === found[1] ? bare(found[0]) : `${bare(found[0])}–${bare(found[1])}`)
  }
  const [prompt, output] = [between(offers.map((offer) => offer.prompt)), between(offers.map((offer) => offer.output))]
  const least = range(offers.map((offer) => offer.output))?.[0]
  return prompt && output && least !== undefined ? { prompt, output, least: BigInt(least) } : null
}

/** Wei as credits, to four digits after the point. */
export function ofWei(wei: string | undefined): string {
  if (wei === undefined || !/^\d{1,40}$/.test(wei)) return 'unknown'
  return credits(String(BigInt(wei) / 10n ** 12n))
}

/** Tokens of the answers that ended in the last minute, for each second of it. */
export function throughput(network: LiveNetwork): number {
  const { spans, span_ms: ms } = network.pulse
  return spans.reduce((sum, span) => sum + span.output_tokens, 0) / ((spans.length * ms) / 1000)
}
