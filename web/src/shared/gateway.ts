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
  reason?: string
  software?: string
  waiting_requests?: number
  models: { id: string; names: string[]; context_tokens: number; decode_tokens_per_second: number }[]
  measured: {
    answers?: number
    failures?: number
    reliability?: number
    breaker?: string
    orders?: number
    models: { id: string; newcomer?: boolean; tokens_per_second?: number; first_token_ms?: number; first_token_p95_ms?: number }[]
  }
  operator?: string
  bonded?: string
  unsettled?: string
  region_claimed?: string
  offers?: Offer[]
}

export interface NetworkStatus {
  gateway: string
  software: string
  workers: WorkerReport[]
  ledger?: { block?: number; problem?: string; hint?: string }
}

/** `/v1/network/live`. */
export interface LiveNetwork extends NetworkStatus {
  active_requests: number
  pulse: { span_ms: number; spans: { answers: number; failures: number; output_tokens: number }[] }
  models: Model[]
}

export interface Count {
  answered: number
  failed: number
}

export interface Bucket extends Count {
  from_ms: number
}

export interface FailedBy {
  worker: number
  gateway: number
  network: number
  unknown: number
}

export interface Span extends Count {
  ms: number
  failed_by: FailedBy
  refused: number
  left: number
  handed_over: number
}

export interface Orders {
  finished: number
  failed: number
  declined: number
}

/** How a worker ranks with a model, for a request without wishes. */
export interface Score {
  worker: string
  model: string
  rank: number | null
  of: number
  kept_out: string | null
  cost: number | null
  factors: { name: string; weight: number; input: number | null; cost: number; least: number }[]
}

/** `/v1/network/operators/{id}`. */
export interface OperatorNote {
  id: string
  scores: Score[]
  jobs: { minute_ms: number; worker: string; model: string | null; end: 'finished' | 'failed' | 'declined' }[]
}

/** `/v1/network/models/{id}/names`. */
export interface ModelNames {
  model: string
  names: { name: string; holder: string | null; versions: { version: number; model: string; block: number }[]; left_out: number }[]
}

/** `/v1/network/operators/{id}/ledger`. */
export interface OperatorOnLedger {
  bonded_wei: string
  audit_ppm: number
  audits_passed: number
  audits_missed: number
  audits_unconfirmed: number
  audits_differing: number
  withheld_until_epoch: number
  exposure_wei: string
  exposure_cap_wei: string
  claims_answered: number
  claims_failed: number
  claims_compensated: number
  jailed_until: number
  disputes: { id: number; receipt: string; worker: string; state: string; is_open: boolean; is_convicted: boolean }[]
  disputes_left_out: number
}

export interface Incident extends Count {
  began_ms: number
  ended_ms: number
  is_over: boolean
  code: string
  means: string
  model: string | null
  failed_by: FailedBy
}

/** `/v1/network/service`. */
export interface ServiceStatus {
  state: string
  /** `since_ms`: of a model that nobody serves any more, when it was known last. */
  components: { kind: string; name: string; state: string; because: string[]; since_ms?: number }[]
  since_ms: number | null
  spans: Span[]
  hours: Bucket[]
  days: Bucket[]
  models: { model: string; spans: Count[]; hours: Bucket[] }[]
  operators: { operator: string | null; workers: string[]; spans: Orders[] }[]
  incidents: Incident[]
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
