/** What there is to know of a model from the workers that serve it. */
import type { Model, WorkerReport } from './gateway'

/** The least and the most of some amounts, in micro-credits per million tokens. */
export function range(amounts: string[]): [string, string] | null {
  const sorted = amounts.filter((amount) => /^\d{1,30}$/.test(amount)).map(BigInt).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
  const [least, most] = [sorted[0], sorted.at(-1)]
  return least === undefined || most === undefined ? null : [String(least), String(most)]
}

/** Tokens a second: what was measured, else what the worker says of itself. */
export function speed(model: Model, workers: WorkerReport[]): { measured: boolean; tokens: number } | null {
  const id = model.surety.id
  const measured = workers.flatMap((worker) => worker.measured.models.filter((one) => one.id === id).map((one) => one.tokens_per_second ?? 0))
  const fastest = Math.max(0, ...measured)
  if (fastest > 0) return { measured: true, tokens: fastest }
  const said = Math.max(0, ...workers.flatMap((worker) => worker.models.filter((one) => one.id === id).map((one) => one.decode_tokens_per_second)))
  return said > 0 ? { measured: false, tokens: said } : null
}
