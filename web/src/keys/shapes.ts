/** What the gateway tells whoever has a key: `/v1/key`, `/v1/credits`, `/v1/usage/buckets`, `/v1/requests`. Amounts are micro-credits, as decimal text. */

export interface Limit {
  limit: number
  remaining: number
  full_ms: number
}

export interface KeyNote {
  /** Null: the gateway asks for no key. */
  name: string | null
  created_ms: number | null
  expires_ms: number | null
  models: string[]
  max_price: { prompt: string; cached: string; output: string } | null
  requests: Limit | null
  tokens: Limit | null
  sells_credits: boolean
  now_ms: number
}

export interface Credits {
  budget: string | null
  bought: string
  used: string
  reserved: string
  left: string | null
  requests: number
}

export interface Totals {
  requests: number
  prompt_tokens: number
  cached_tokens: number
  output_tokens: number
  cost: string
}

export interface Bucket extends Totals {
  start_ms: number
  end_ms: number
  models: (Totals & { model: string | null })[]
}

export type Width = '1m' | '1h' | '1d'

export interface Buckets {
  bucket_width: Width
  data: Bucket[]
  earlier: Totals
  total: Totals
}

export interface RequestNote {
  id: string
  path: string | null
  model: string | null
  received_ms: number
  ended_ms: number | null
  state: 'under_way' | 'answered' | 'counted' | 'left' | 'failed' | 'interrupted'
  cost: string
  prompt_tokens: number | null
  output_tokens: number | null
  failure?: { code: string; message: string; accountable: string; means: string | null; act: string | null }
}

export interface Requests {
  data: RequestNote[]
  looked_back_to_ms: number | null
}
