//! Re-genesis: a chain that goes on, under another id, from the state another chain had after some block.
//!
//! In:     that state as an export tells it, every key and value; the new chain's id and first validators.
//! Out:    the genesis everyone computes alike; the state of its block 0.
//! Holds:  the same export and arguments give the same genesis; all balances together are what they were, to the wei;
//!         heights and epochs go on, so that whatever the state holds of them means what it meant.
//! Absent: files (`consensus`), and whose state it is: whoever computes a genesis compares the digest of its export with
//!         those of others.
//!
//! Why heights and epochs go on. Keys of the state are hashes: nobody can list what it holds, so a height or epoch inside
//! it cannot be found and translated. The new chain begins with the first block of the epoch after the origin's; the
//! numbers between belong to no block. Delays of staking, channels, jail and governance are in seconds of the clock
//! and come due when they would have.

use std::collections::BTreeMap;

use alloy_primitives::{B256, U256, keccak256};
use serde::{Deserialize, Serialize};
use surety_types::{PublicKey, abi::Module};

use crate::{
    execute::{ExecutionError, Header, surroundings},
    genesis::{Genesis, GenesisError, GenesisValidator},
    host::{Outcome, Own, Stop},
    ledger::{HISTORY_BLOCKS, HISTORY_STORAGE_ADDRESS, Ledger},
    modules::{CODE, channels, credit, params, staking},
    params::{PARAMETERS, Params, ParamsError},
    spec::STATE_VALUE_BYTES_MAX,
    state::{AccountState, MemoryState, StateKey, StateValue, decode_slot},
    validators::ValidatorSet,
};

/// Where a chain goes on that began elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The chain whose state it is.
    pub chain_id: u64,
    /// The digest of that chain's genesis.
    pub genesis: B256,
    /// Its last block that counts.
    pub number: u64,
    /// The epoch of that block.
    pub epoch: u64,
    /// The hash of that block.
    pub block_hash: B256,
    /// The root of the state after that block.
    pub state_root: B256,
    /// The digest of the export: it names every key and value.
    pub export: B256,
    /// All there is, in wei.
    pub supply: U256,
}

impl Origin {
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        for number in [self.chain_id, self.number, self.epoch] {
            bytes.extend(number.to_be_bytes());
        }
        for word in [self.genesis, self.block_hash, self.state_root, self.export, self.supply.into()] {
            bytes.extend(word);
        }
    }
}

/// A state to go on from, as an export tells it. Nobody vouches for it but its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Of which chain and block.
    pub origin: Origin,
    /// Blocks of an epoch; they stay what they were.
    pub epoch_blocks: u64,
    /// The time of that block.
    pub timestamp_ms: u64,
    /// Every key and value, by increasing key.
    pub writes: Vec<(StateKey, StateValue)>,
}

/// Why no chain goes on so.
#[derive(Debug, thiserror::Error)]
pub enum RegenesisError {
    /// A key whose value is none.
    #[error("the export holds {bytes} bytes under key {key} that are no account, slot or code")]
    Value {
        /// Where.
        key: B256,
        /// How many.
        bytes: usize,
    },
    /// Keys in disorder.
    #[error("the export's keys are out of order at {0}")]
    Order(B256),
    /// Money that was not there, or is there no longer.
    #[error("all balances of the export together are {found} wei; its chain has {expected}")]
    Supply {
        /// What the export says the chain has.
        expected: U256,
        /// What its accounts have.
        found: U256,
    },
    /// A rule of the chain.
    #[error("the state cannot go on so: {0}")]
    Refused(String),
    /// Its parameters.
    #[error("the parameters in the export are invalid")]
    Params(#[from] ParamsError),
    /// Values that decode to nothing.
    #[error("the export is damaged")]
    Damaged(#[from] ExecutionError),
    /// The genesis it would be.
    #[error("the genesis is not sound")]
    Genesis(#[from] GenesisError),
    /// Of another export, or with other arguments.
    #[error("the genesis is not of this export: {what} is {expected} there, {found} here")]
    Differs {
        /// What differs.
        what: &'static str,
        /// What the genesis says.
        expected: String,
        /// What the export yields.
        found: String,
    },
}

impl RegenesisError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Value { .. } | Self::Order(_) | Self::Supply { .. } | Self::Damaged(_) => {
                "compare the export's digest with what others printed, and take theirs if they agree"
            }
            Self::Refused(_) => {
                "name validators that are registered, not slashed, and have the validator's minimum bonded"
            }
            Self::Differs { .. } => {
                "take the export and genesis that belong together: compare digests with others"
            }
            Self::Genesis(_) | Self::Params(_) => return None,
        })
    }
}

/// What a key of the state holds, as far as money is concerned.
fn balance_under(key: &StateKey, value: &[u8]) -> Result<U256, RegenesisError> {
    let damaged = || RegenesisError::Value { key: B256::from(key.0), bytes: value.len() };
    if value.len() > STATE_VALUE_BYTES_MAX {
        return Err(damaged());
    }
    // Code is known by its key; accounts are longer than any slot.
    if StateKey::code(&keccak256(value)) == *key {
        return Ok(U256::ZERO);
    }
    if value.len() > 32 {
        return AccountState::decode(value).map(|account| account.balance).map_err(|_| damaged());
    }
    decode_slot(value).map(|_| U256::ZERO).map_err(|_| damaged())
}

fn obeyed<T>(outcome: Outcome<T>) -> Result<T, RegenesisError> {
    outcome.map_err(|stop| match stop {
        Stop::Refused(reason) => RegenesisError::Refused(reason.into_owned()),
        Stop::OutOfGas => RegenesisError::Refused("out of gas".into()),
    })
}

impl Exported {
    /// Whether every value is one, and all balances together are what they should be.
    pub fn check(&self) -> Result<(), RegenesisError> {
        let mut found = U256::ZERO;
        let mut last = None;
        for (key, value) in &self.writes {
            if last.is_some_and(|last| last >= key) {
                return Err(RegenesisError::Order(B256::from(key.0)));
            }
            last = Some(key);
            found = found.saturating_add(balance_under(key, value)?);
        }
        let expected = self.origin.supply;
        if found != expected || found > U256::from(u128::MAX) {
            return Err(RegenesisError::Supply { expected, found });
        }
        Ok(())
    }

    /// The genesis of the chain that goes on from here. Without `validators` an election decides as at an epoch's end;
    /// otherwise these, who must be registered, and not slashed, and have the minimum bonded. Whoever is not among them
    /// keeps its stake and stands as a validator again when it registers again.
    pub fn genesis(
        &self,
        chain_id: u64,
        validators: Option<&[PublicKey]>,
    ) -> Result<Genesis, RegenesisError> {
        self.begin(chain_id, validators).map(|(genesis, _)| genesis)
    }

    fn begin(
        &self,
        chain_id: u64,
        validators: Option<&[PublicKey]>,
    ) -> Result<(Genesis, Vec<(StateKey, StateValue)>), RegenesisError> {
        self.check()?;
        let mut genesis = Genesis {
            chain_id,
            timestamp_ms: self.timestamp_ms,
            epoch_blocks: self.epoch_blocks,
            balances: Vec::new(),
            validators: Vec::new(),
            params: Params::default(),
            origin: Some(self.origin.clone()),
        };
        if genesis.epoch_blocks == 0 {
            return Err(GenesisError::Zero("epoch_blocks").into());
        }
        let mut state = MemoryState(self.writes.iter().cloned().collect::<BTreeMap<_, _>>());
        let writes = {
            let mut ledger = Ledger::new(&state);
            let (params, set) = self.lay_down(&genesis, &mut ledger, validators)?;
            if !ledger.missing()?.is_empty() {
                return Err(RegenesisError::Refused("the state is not whole".into()));
            }
            genesis.params = params;
            genesis.validators = set.members.into_iter().map(GenesisValidator::from).collect();
            ledger.writes()
        };
        genesis.check()?;
        state.apply(writes);
        Ok((genesis, state.0.into_iter().collect()))
    }

    /// Writes what the first block finds otherwise than the origin's next block would have.
    fn lay_down(
        &self,
        genesis: &Genesis,
        ledger: &mut Ledger<'_>,
        validators: Option<&[PublicKey]>,
    ) -> Result<(Params, ValidatorSet), RegenesisError> {
        let (first, epoch) = (genesis.first_block(), genesis.first_epoch());
        // A module that is younger than the state.
        for module in Module::ALL {
            let account = ledger.account(module.address()).unwrap_or_default();
            if account.nonce == 0 {
                let code = ledger.deploy(revm::state::Bytecode::new_legacy((&CODE).into()));
                let account = AccountState { nonce: 1, code_hash: code, ..account };
                ledger.set_account(module.address(), Some(account));
            }
        }
        // The hash of the origin stands where contracts look for it; those between are of no block.
        let number = self.origin.number;
        let slot = |number: u64| U256::from(number % HISTORY_BLOCKS);
        for between in number.saturating_add(1)..first.min(number.saturating_add(HISTORY_BLOCKS)) {
            ledger.set_slot(HISTORY_STORAGE_ADDRESS, slot(between), U256::ZERO);
        }
        ledger.set_slot(HISTORY_STORAGE_ADDRESS, slot(number), self.origin.block_hash.into());

        let header = Header {
            number: first,
            timestamp_ms: self.timestamp_ms,
            epoch,
            view: 0,
            parent_hash: B256::ZERO,
            beacon: B256::ZERO,
            proposer: 0,
            missed: Vec::new(),
        };
        let mut here = surroundings(&genesis.spec(), &header, Params::default());
        let mut own = Own { surroundings: &here, ledger: &mut *ledger };
        let stored = obeyed(params::load(&mut own))?;
        // A parameter that is younger than the state: zero is none of its values.
        let usual = Params::default();
        let params = Params::from_values(|index| {
            let value = stored.value(index).unwrap_or_default();
            let unknown = value == 0 && PARAMETERS[index].least > 0;
            if unknown { usual.value(index).unwrap_or_default() } else { value }
        });
        params.check()?;
        here.params = params.clone();
        let mut own = Own { surroundings: &here, ledger };
        obeyed(params::store(&mut own, &params))?;
        obeyed(credit::store_supply(&mut own, self.origin.supply))?;
        let set = obeyed(staking::begin_anew(&mut own, epoch, validators))?;
        let earlier = obeyed(channels::earlier_chains(&mut own))?;
        if earlier.contains(&genesis.chain_id) {
            return Err(GenesisError::SameChain(genesis.chain_id).into());
        }
        obeyed(channels::remember_chain(&mut own, self.origin.chain_id))?;
        Ok((params, set))
    }
}

/// The state of block 0 of a chain that goes on, by increasing key. Refuses an export that the genesis is not of.
pub fn regenesis_writes(
    genesis: &Genesis,
    exported: &Exported,
) -> Result<Vec<(StateKey, StateValue)>, RegenesisError> {
    fn same<T: PartialEq + std::fmt::Debug>(
        what: &'static str,
        expected: &T,
        found: &T,
    ) -> Result<(), RegenesisError> {
        if expected == found {
            return Ok(());
        }
        let shown = |value: &T| format!("{value:?}");
        Err(RegenesisError::Differs { what, expected: shown(expected), found: shown(found) })
    }
    let Some(origin) = &genesis.origin else {
        return Err(RegenesisError::Differs {
            what: "the origin",
            expected: "none".into(),
            found: format!("block {} of chain {}", exported.origin.number, exported.origin.chain_id),
        });
    };
    let ours = &exported.origin;
    same("the export's digest", &origin.export, &ours.export)?;
    same("the origin's chain id", &origin.chain_id, &ours.chain_id)?;
    same("the origin's genesis", &origin.genesis, &ours.genesis)?;
    same("the origin's block", &(origin.number, origin.epoch), &(ours.number, ours.epoch))?;
    same("the origin's block hash", &origin.block_hash, &ours.block_hash)?;
    same("the origin's state root", &origin.state_root, &ours.state_root)?;
    same("the supply", &origin.supply, &ours.supply)?;
    same("epoch_blocks", &genesis.epoch_blocks, &exported.epoch_blocks)?;
    same("timestamp_ms", &genesis.timestamp_ms, &exported.timestamp_ms)?;
    let keys: Vec<PublicKey> = genesis.validators.iter().map(|validator| validator.key).collect();
    let (found, writes) = exported.begin(genesis.chain_id, Some(&keys))?;
    same("the parameters", &genesis.params, &found.params)?;
    same("the validators", &genesis.validators, &found.validators)?;
    same("the genesis", genesis, &found)?;
    Ok(writes)
}

#[cfg(test)]
mod tests;
