//! The law: a deterministic state transition over the EVM, with the network's modules as precompiles.
//!
//! In:     a reader of the state, a block or a call.
//! Out:    writes, receipts and roots; the next validators at an epoch's end; or why it is refused.
//! Touches: nothing. No I/O, clock, randomness, async or floats.
//! Holds:  the same input gives the same output everywhere; all balances together never change; nobody has power alone:
//!         no function is reserved to an owner, and parameters change by vote and timelock only.
//! Absent: agreement on blocks (`consensus`), pools, RPC and indexes (`validator`), computing answers again (`worker`).

mod crypto;
pub mod execute;
pub mod genesis;
mod host;
mod ledger;
pub mod machine;
mod modules;
pub mod params;
pub mod regenesis;
pub mod replay;
pub mod simulate;
pub mod spec;
pub mod state;
pub mod tariff;
pub mod transaction;
pub mod validators;
pub mod views;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use execute::{
    BlockInput, Built, Executed, Execution, ExecutionError, Header, InvalidBlock, Skipped, TxReceipt, build,
    execute, hints,
};
pub use genesis::{Balance, Genesis, GenesisError, GenesisValidator, genesis_writes};
pub use modules::{
    claims::{DAY_S as CLAIM_DAY_S, compensation as claim_compensation, payee_proof_message},
    models::{LeafError, dispute_leaf_bytes},
    powers::{POWERS, Power, Who},
    receipts::{inclusion_path, leaf_hash, root_of, verify_inclusion},
    staking::{SignedVote, VoteKind, validator_proof_message, worker_proof_message},
};
pub use params::{PARAMETERS, Parameter, Params, ParamsError};
pub use regenesis::{Exported, Origin, RegenesisError, regenesis_writes};
pub use replay::{ReplayError, Replayed, ReplayedMove, Shown, bundled_parameters, replay};
pub use simulate::{CallRequest, Estimate, SimulationOutcome, estimate_gas, simulate};
pub use spec::{
    BLOCK_TRANSACTIONS_BYTES_MAX, ChainSpec, MISSED_MAX, STATE_VALUE_BYTES_MAX, TRANSACTION_BYTES_MAX,
    VALIDATORS_MAX,
};
pub use state::{
    AccountState, CorruptValue, MemoryState, Read, ReadCache, StateKey, StateReader, StateValue, decode_slot,
};
pub use transaction::{AdmissionError, Recovered, TransactionError, check_admission};
pub use validators::{UpgradeNeeded, UpgradePlan, Validator, ValidatorSet};
pub use views::{account, params, upgrade_plan, validator_set};
