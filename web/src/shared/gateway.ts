/** The gateway's API, as far as pages read it. Everything in it came from elsewhere: fields may be missing. */

export interface Model {
  id: string
  context_length: number
  surety: {
    id: string
    architecture: string
    tier: string
    note?: string
    file_bytes: number
    formats: string[]
    chat: boolean
    workers_ready: number
  }
}

export interface Offer {
  model: string
  prompt: string
  output: string
}

export interface WorkerReport {
  id: string
  state: string
  active_requests: number
  models: { id: string; names: string[]; context_tokens: number; decode_tokens_per_second: number }[]
  measured: { models: { id: string; tokens_per_second?: number }[] }
  operator?: string
  region_claimed?: string
  offers?: Offer[]
}

export interface NetworkStatus {
  gateway: string
  software: string
  workers: WorkerReport[]
  ledger?: { block?: number; problem?: string; hint?: string }
}

/** What the gateway says of an answer, in its last event. */
export interface SuretyNote {
  request_id: string
  receipt: string | null
  model: string
  tier: string
  workers: string[]
  verification: string
  checked_by?: string[]
  handovers: number
  cost: string
  checked: string[]
  not_checked: string[]
  note?: string
}

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
}

/** Why something was not done, in the gateway's words. */
export class GatewayError extends Error {
  override name = 'GatewayError'

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly param: string | null = null,
    readonly isRetryable = false,
    readonly retryAfterMs = 0,
    readonly requestId: string | null = null,
  ) {
    super(message)
  }

  /** Reads an error object, or makes the best of what is none. */
  static of(status: number, body: unknown): GatewayError {
    const error = field(body, 'error')
    const metadata = field(error, 'metadata')
    const message = text(field(error, 'message')) ?? `The gateway answered ${status} and did not say why.`
    return new GatewayError(
      status,
      text(field(error, 'code')) ?? 'unknown',
      message.replace(/\s*id=req_[0-9a-f]+\s*$/, ''),
      text(field(error, 'param')),
      field(metadata, 'retryable') === true,
      Number(field(metadata, 'retry_after_ms')) || 0,
      text(field(metadata, 'request_id')) ?? /id=(req_[0-9a-f]+)/.exec(message)?.[1] ?? null,
    )
  }
}

export function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined
}

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null)

/** What is sent with every request; the key, if the gateway asks for one. */
export function headers(key: string, more: Record<string, string> = {}): Record<string, string> {
  return key ? { authorization: `Bearer ${key}`, ...more } : more
}

/** GETs JSON. Throws a `GatewayError`, or a `TypeError` if the gateway cannot be reached. */
export async function getJson<T>(path: string, key: string): Promise<T> {
  const response = await fetch(path, { headers: headers(key, { accept: 'application/json' }), cache: 'no-store' })
  const body: unknown = await response.json().catch(() => null)
  if (!response.ok) throw GatewayError.of(response.status, body)
  return body as T
}
