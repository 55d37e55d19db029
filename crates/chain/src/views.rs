//! Views: what a running process reads of the state without calling a contract.

use alloy_primitives::{Address, B256};

use crate::{
    execute::{Execution, ExecutionError, Header, surroundings},
    host::{Host, Outcome, Own, Stop},
    ledger::Ledger,
    modules::{governance, params, staking},
    params::Params,
    spec::ChainSpec,
    state::{AccountState, StateReader},
    validators::{UpgradePlan, ValidatorSet},
};

/// Reads something through the modules.
fn view<T>(
    reader: &dyn StateReader,
    read: impl FnOnce(&mut dyn Host) -> Outcome<T>,
) -> Result<Execution<T>, ExecutionError> {
    let spec = ChainSpec { chain_id: 0, epoch_blocks: 1 };
    let header = Header {
        number: 0,
        timestamp_ms: 0,
        epoch: 0,
        view: 0,
        parent_hash: B256::ZERO,
        beacon: B256::ZERO,
        proposer: 0,
        missed: Vec::new(),
    };
    let surroundings = surroundings(&spec, &header, Params::default());
    let mut ledger = Ledger::new(reader);
    let outcome = read(&mut Own { surroundings: &surroundings, ledger: &mut ledger });
    let missing = ledger.missing()?;
    match outcome {
        Ok(value) if missing.is_empty() => Ok(Execution::Done(Box::new(value))),
        Ok(_) | Err(Stop::Refused(_) | Stop::OutOfGas) => Ok(Execution::Needs(missing)),
    }
}

/// The parameters as they stand.
pub fn params(reader: &dyn StateReader) -> Result<Execution<Params>, ExecutionError> {
    view(reader, params::load)
}

/// The validators of an epoch: this one, the one before, or at an epoch's end the next. Of any other there is nothing.
pub fn validator_set(
    reader: &dyn StateReader,
    epoch: u64,
) -> Result<Execution<Option<ValidatorSet>>, ExecutionError> {
    view(reader, |host| {
        let set = staking::load_set(host, epoch)?;
        Ok((set.epoch == epoch && !set.members.is_empty()).then_some(set))
    })
}

/// The upgrade that is scheduled, or that came last.
pub fn upgrade_plan(reader: &dyn StateReader) -> Result<Execution<Option<UpgradePlan>>, ExecutionError> {
    view(reader, governance::upgrade)
}

/// An account; nothing if it does not exist.
pub fn account(
    reader: &dyn StateReader,
    address: Address,
) -> Result<Execution<Option<AccountState>>, ExecutionError> {
    let mut ledger = Ledger::new(reader);
    let account = ledger.account(address);
    let missing = ledger.missing()?;
    Ok(if missing.is_empty() { Execution::Done(Box::new(account)) } else { Execution::Needs(missing) })
}
