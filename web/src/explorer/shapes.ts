/** What the gateway tells of the ledger, thing by thing. Amounts are wei, as decimal text; all text came from elsewhere. */

export interface BlockRow {
  number: number
  hash: string
  timestamp_ms: number
  proposer_key: string
  proposer: string | null
  transactions: number
  gas_used: number
  proven: boolean
}

/** `/v1/network/blocks` */
export interface BlockPage {
  tip: number
  gas_limit: number
  blocks: BlockRow[]
  more: boolean
}

export interface TransactionRow {
  hash: string
  from: string
  to: string | null
  kind: 'module' | 'transfer' | 'deployment' | 'contract'
  module: string | null
  function: string | null
  value: string
  success: boolean
  gas_used: number
}

/** `/v1/network/blocks/{id}` */
export interface Block extends BlockRow {
  tip: number
  parent_hash: string
  follows_genesis: boolean
  epoch: number
  view: number
  state_root: string
  transactions_root: string
  receipts_root: string
  next_validators: number | null
  entries: TransactionRow[]
  left_out: number
}

/** A value with its name: one of its last four is there. */
export interface Field {
  name: string
  type: string
  value?: string
  /** How many bytes there are of which `value` is the beginning. */
  bytes?: number
  fields?: Field[]
  left_out?: number
}

export interface Noted {
  address: string
  module: string | null
  name: string | null
  fields: Field[]
  topics: string[]
  data: string
}

/** `/v1/network/transactions/{hash}` */
export interface Transaction extends TransactionRow {
  waits: boolean
  block: number | null
  block_hash: string | null
  index: number | null
  timestamp_ms: number | null
  proven: boolean
  nonce: number
  gas_limit: number
  gas_price: string | null
  fee: string | null
  arguments: Field[] | null
  input: string
  input_bytes: number
  created: string | null
  refused_now: string | null
  events: Noted[]
  events_left_out: number
}

/** `/v1/network/accounts/{address}` */
export interface Account {
  number: number
  address: string
  module: string | null
  code_hash: string | null
  nonce: number
  balance: string
  bonded: string
  given: string | null
  given_why: string | null
  operator: { name: string; url: string; registered: number; workers: number; offers: number; bonded_to: string } | null
  validator: { key: string | null; bonded: string; jailed_until: number; slashed: boolean } | null
}

export interface DisputeRow {
  id: number
  state: number
  said: string
  is_open: boolean
  is_convicted: boolean
  turn: 'worker' | 'challenger' | null
  awaited: 'root' | 'pick' | 'division' | 'leaf' | 'ids' | null
  move_until: number | null
  operator: string
  worker: string
  challenger: string
  order: string
  receipt: string
  words: number
  moves: number
  opened_at: number
  bond: string
  paid: string
  owed: string
}

/** `/v1/network/disputes` */
export interface DisputePage {
  number: number
  count: number
  disputes: DisputeRow[]
}

export interface Step {
  block: number
  timestamp_ms: number
  transaction: string
  sender: string
  by: 'challenger' | 'worker' | 'anyone'
  function: string
  index: number | null
  nodes: number | null
  bytes: number | null
  first_word: number | null
  words_left: number | null
}

export interface Bits {
  bits: string
  value: string
}

export interface Operand {
  of: 'trace' | 'weights' | 'rotary' | 'ids' | 'spelling'
  what: string
  reading: 'float' | 'integer' | 'bits'
  count: number
  values: string[]
}

export interface Leaf {
  word: number
  kind: string
  place: string
  reading: 'float' | 'integer' | 'bits'
  claimed: Bits
  computed: Bits
  lied: boolean
  operands: Operand[]
}

export interface Money {
  from: 'stake' | 'bond'
  to: 'payer' | 'challenger' | 'operator' | 'validators'
  why: 'refund' | 'costs' | 'bounty' | 'defence' | 'forfeited' | 'returned'
  amount: string
}

/** `/v1/network/disputes/{id}` */
export interface Story {
  number: number
  dispute: DisputeRow
  answer: { model: string; prompt_tokens: number; output_tokens: number } | null
  steps: Step[]
  blocks_proven: boolean
  replayed: boolean
  replay_failure: string | null
  leaf: Leaf | null
  money: Money[]
}

/** `/v1/network/find` */
export interface Findings {
  query: string
  found: { kind: 'block' | 'transaction' | 'account' | 'dispute' | 'model' | 'request'; id: string; said: string }[]
  looked: string[]
}
