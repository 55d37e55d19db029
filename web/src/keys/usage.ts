/** Usage as it is drawn and listed. */
import type { Bucket, RequestNote, Totals, Width } from './shapes'

export type Measure = 'tokens' | 'cost' | 'answers'

/** Models that are drawn by themselves; the others are one. */
const DRAWN_MAX = 6
export const OTHERS = 'other models'

const ZERO: Totals = { requests: 0, prompt_tokens: 0, cached_tokens: 0, output_tokens: 0, cost: '0' }

/** Micro-credits; nothing where it is no amount. */
export const micro = (text: string): bigint => (/^\d{1,40}$/.test(text) ? BigInt(text) : 0n)

export function plus(one: Totals, other: Totals): Totals {
  return {
    requests: one.requests + other.requests,
    prompt_tokens: one.prompt_tokens + other.prompt_tokens,
    cached_tokens: one.cached_tokens + other.cached_tokens,
    output_tokens: one.output_tokens + other.output_tokens,
    cost: String(micro(one.cost) + micro(other.cost)),
  }
}

export const sum = (all: Totals[]): Totals => all.reduce(plus, ZERO)

/** As it is drawn: costs in micro-credits. */
export function measured(totals: Totals, measure: Measure): number {
  if (measure === 'answers') return totals.requests
  return measure === 'cost' ? Number(micro(totals.cost)) : totals.prompt_tokens + totals.output_tokens
}

/** What each model was used for in all of the spans, the most first. */
export function byModel(buckets: Bucket[], measure: Measure): { model: string; totals: Totals }[] {
  const found = new Map<string, Totals>()
  for (const one of buckets.flatMap((bucket) => bucket.models)) {
    const name = one.model ?? OTHERS
    found.set(name, plus(found.get(name) ?? ZERO, one))
  }
  const rows = [...found].map(([model, totals]) => ({ model, totals }))
  return rows.sort((a, b) => Number(a.model === OTHERS) - Number(b.model === OTHERS) || measured(b.totals, measure) - measured(a.totals, measure) || (a.model < b.model ? -1 : 1))
}

/** Bars of the spans, divided by model. */
export function bars(buckets: Bucket[], measure: Measure, name: (bucket: Bucket) => string): { names: string[]; bars: { name: string; parts: number[] }[] } {
  const models = byModel(buckets, measure).map(({ model }) => model)
  const own = models.filter((model) => model !== OTHERS)
  const drawn = own.slice(0, own.length === models.length && own.length <= DRAWN_MAX + 1 ? DRAWN_MAX + 1 : DRAWN_MAX)
  const names = drawn.length < models.length ? [...drawn, OTHERS] : drawn
  return {
    names,
    bars: buckets.map((bucket) => {
      const parts = names.map(() => 0)
      for (const one of bucket.models) {
        const at = drawn.indexOf(one.model ?? OTHERS)
        parts[at < 0 ? names.length - 1 : at]! += measured(one, measure)
      }
      return { name: name(bucket), parts }
    }),
  }
}

const two = (value: number): string => String(value).padStart(2, '0')

/** When a span begins, in UTC, as those of one width are told apart. */
export function began(startMs: number, width: Width): string {
  const at = new Date(startMs)
  const day = `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`
  return width === '1d' ? day : `${width === '1h' ? `${day.slice(5)} ` : ''}${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`
}

export interface Failures {
  code: string
  times: number
  /** The latest. */
  message: string
  at_ms: number
  act: string | null
}

/** What failed, by its code, the latest first. */
export function failures(requests: RequestNote[]): Failures[] {
  const found = new Map<string, Failures>()
  for (const { failure, ended_ms, received_ms } of requests) {
    if (!failure) continue
    const known = found.get(failure.code)
    if (known) known.times += 1
    else found.set(failure.code, { code: failure.code, times: 1, message: failure.message, at_ms: ended_ms ?? received_ms, act: failure.act })
  }
  return [...found.values()]
}
