/** What the gateway tells of the ledger: `/v1/network/powers`, `…/economics`, `…/governance`. Amounts are wei, as decimal text. */

/** As of which block a page is. */
export interface AsOf {
  number: number
  timestamp_ms: number
}

export type Risk = 'low' | 'medium' | 'high'

export interface PowerRow {
  what: string
  who: string
  takes: number | null
  nobody: boolean
  delay: string
  veto: string
  last_used: string
}

export interface Slice {
  name: string
  risk: Risk
  why: string
}

export interface Coefficient {
  name: string
  value: number | null
  of: number | null
  how: string
}

export interface UpgradeInFlight {
  version: string
  height: number
  blocks_left: number
  about_s: number
  source_revision: string
  binary_hashes: string[]
  readiness: string
}

export interface FunctionPower {
  function: string
  who: string
  timelock: boolean
}

export interface Powers extends AsOf {
  alarms: string[]
  stage: number
  missing: string[]
  powers: PowerRow[]
  slices: Slice[]
  coefficients: Coefficient[]
  minimum: number | null
  upgrade: UpgradeInFlight | null
  emergency: PowerRow
  functions: FunctionPower[]
}

export interface Payment {
  from: string | null
  to: string
  amount: string
}

/** Sums by account. */
export type Parties = Record<string, string>

export interface Flows {
  epoch: number
  first_block: number
  last_block: number
  payments: Payment[]
  deposits: Parties
  claims: Parties
  settlements: Parties
  refunds: Parties
  withdrawals: Parties
  hosting_funded: Parties
  hosting_paid: Parties
  slashes: Parties
  compensated: Parties
  kept_for_auditors: Parties
  audits_paid: Parties
  fees: Parties | null
}

export interface Conduct {
  operator: string
  audit_ppm: number
  audits_passed: number
  audits_missed: number
  audits_unconfirmed: number
  audits_differing: number
  exposure: string
  exposure_cap: string
  claims_compensated: number
  disputes_open: number
  convictions: number
  disputes_dismissed: number
  jailed_until: number
}

export interface Economics extends AsOf {
  supply: string
  held: { place: string; amount: string }[]
  accounted: { listed: string; remainder: string; excess: string }
  burned: string
  insurance: string
  genesis: { account: string; given: string; why: string; now: string; bonded: string }[]
  genesis_count: number
  flows: Flows | null
  flows_so_far: Flows | null
  parameters: { name: string; value: string }[]
  audits: {
    rate_ppm: number | null
    share_bps: number | null
    paid_ppm_of_spend: number | null
    done: { operators: Conduct[]; unknown: string[]; disputes: number; disputes_looked_at: number }
  }
  at_risk: {
    bonded: string
    in_channels: string
    bond_per_credit_percent: number | null
    operators: { operator: string; bonded: string; claimed_unpaid: string; audit_ppm_needed: number | null }[]
    unclaimed_by_operator: string
  }
}

export interface Proposal {
  id: number
  title: string | null
  proposer: string
  kind: 'parameter' | 'upgrade' | 'cancel-upgrade' | 'unknown'
  state: 'voting' | 'defeated' | 'succeeded' | 'queued' | 'executable' | 'executed' | 'expired' | 'unknown'
  next: string
  voting_ends_at: number
  executable_at: number | null
  votes_for: string
  votes_against: string
  votes_abstaining: string
  bonded_total: string
  quorum_needed: string
  quorum_reached: boolean
  changes: { name: string; now: string | null; proposed: string }[]
  upgrade: { height: number; version: string; source_revision: string; binary_hashes: string[] } | null
  number: number
}

export interface Parameter {
  name: string
  value: string
  least: string
  most: string
  fixed: boolean
}

export interface Governance extends AsOf {
  chain_id: number
  address: string
  bonded_total: string
  quorum_needed: string
  threshold_bps: number
  proposal_stake_min: string
  voting_s: number
  timelock_s: number
  proposal_count: number
  proposals: Proposal[]
  parameters: Parameter[]
  rpc_url: string | null
}
