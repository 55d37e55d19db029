//! Genesis: every balance there will ever be, with its reason.
//!
//! In:     a file's contents.
//! Out:    the state of block 0, the first validators.
//! Holds:  every balance names why it exists; supply fits 128 bits, so that no sum or product of the rules overflows;
//!         accounts, keys and operators occur once; parameters agree.
//! Absent: emission. What genesis names is all there is. A chain that goes on from another's state: `regenesis`.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use revm::state::Bytecode;
use serde::{Deserialize, Serialize};
use surety_types::{
    PublicKey,
    abi::{Module, address::STAKING},
};

use crate::{
    crypto::is_sound_key,
    execute::{Header, believed, surroundings},
    host::Own,
    ledger::{HISTORY_STORAGE_ADDRESS, Ledger},
    modules::{self, credit, staking},
    params::{PARAMETERS, Params, ParamsError},
    regenesis::Origin,
    spec::ChainSpec,
    state::{AccountState, MemoryState, StateKey, StateValue},
    validators::{Validator, ValidatorSet},
};

/// Balances of a genesis.
const BALANCES_MAX: usize = 1 << 20;

/// The beginning of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// EIP-155.
    pub chain_id: u64,
    /// Milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Blocks of an epoch.
    pub epoch_blocks: u64,
    /// Everyone who owns something.
    pub balances: Vec<Balance>,
    /// Who validates the first epoch; their stake is besides `balances`.
    pub validators: Vec<GenesisValidator>,
    /// What governance may change later.
    #[serde(default)]
    pub params: Params,
    /// The state it goes on from, if it does; then `balances` is empty: everything is in that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A balance at genesis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// Whose.
    pub address: Address,
    /// In wei.
    pub amount: U256,
    /// Why it exists; for everyone to read.
    pub why: String,
}

/// A validator at genesis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisValidator {
    /// It votes with this.
    pub key: PublicKey,
    /// Who answers for it and is paid.
    pub operator: Address,
    /// Bonded by the operator, in wei.
    pub stake: U256,
}

impl From<Validator> for GenesisValidator {
    fn from(member: Validator) -> GenesisValidator {
        GenesisValidator { key: member.key, operator: member.operator, stake: member.stake }
    }
}

/// Why a genesis is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Zero.
    #[error("{0} must not be zero")]
    Zero(&'static str),
    /// Too many of something.
    #[error("{what}: {found} are too many; at most {most} are allowed")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: u64,
    },
    /// Nobody to validate.
    #[error("a chain needs a validator")]
    NoValidators,
    /// No reason.
    #[error("the balance of {0} does not say why it exists")]
    NoReason(Address),
    /// Twice the same.
    #[error("{0} occurs twice")]
    Twice(String),
    /// A module's or otherwise the chain's own account.
    #[error("{0} belongs to the chain itself")]
    Reserved(Address),
    /// Not a key.
    #[error("{0} is no sound ed25519 key")]
    Key(PublicKey),
    /// Too little stake.
    #[error("the stake of {0} is below validator_stake_min")]
    Stake(Address),
    /// Supply over 128 bits.
    #[error("all balances and stakes together exceed 2^128 wei")]
    Supply,
    /// The state is elsewhere.
    #[error("the chain goes on from an exported state, which is to be had with the genesis")]
    NeedsState,
    /// Balances beside those of the state.
    #[error("a chain that goes on from an exported state names no balances: they are in that state")]
    Balances,
    /// The same chain again.
    #[error(
        "the chain that goes on takes another chain id than {0}, or its old votes and transactions would count"
    )]
    SameChain(u64),
    /// Heights beyond all numbers.
    #[error("the heights of the chain it goes on from leave no room")]
    Heights,
    /// Parameters.
    #[error("the parameters are invalid")]
    Params(#[from] ParamsError),
}

impl Genesis {
    /// What is fixed for the life of the chain.
    pub fn spec(&self) -> ChainSpec {
        ChainSpec { chain_id: self.chain_id, epoch_blocks: self.epoch_blocks }
    }

    /// The number of its genesis block: zero, or where the epoch after the origin's begins.
    pub fn first_block(&self) -> u64 {
        self.first_epoch().saturating_mul(self.epoch_blocks)
    }

    /// The epoch it begins with: zero, or the one after the origin's.
    pub fn first_epoch(&self) -> u64 {
        self.origin.as_ref().map_or(0, |origin| origin.epoch.saturating_add(1))
    }

    /// All there is and will be, in wei.
    pub fn supply(&self) -> Option<U256> {
        if let Some(origin) = &self.origin {
            return Some(origin.supply);
        }
        let amounts = self.balances.iter().map(|balance| balance.amount);
        let stakes = self.validators.iter().map(|validator| validator.stake);
        amounts.chain(stakes).try_fold(U256::ZERO, |sum, amount| sum.checked_add(amount))
    }

    /// Who validates the first epoch.
    pub fn validator_set(&self) -> ValidatorSet {
        let mut members: Vec<Validator> = self
            .validators
            .iter()
            .map(|validator| Validator {
                key: validator.key,
                operator: validator.operator,
                stake: validator.stake,
            })
            .collect();
        members.sort_by_key(|member| member.key);
        ValidatorSet { epoch: self.first_epoch(), members }
    }

    /// Keccak-256 over the chain's fixed numbers, its time and every write of its state: two chains that begin alike
    /// have one digest. Of a chain that goes on: over the same numbers, its origin (which names the state by the digest
    /// of its export), its parameters and the digest of its first validators.
    pub fn digest(&self) -> Result<B256, GenesisError> {
        if let Some(origin) = &self.origin {
            self.check()?;
            let mut bytes = b"surety genesis v2".to_vec();
            for number in [self.chain_id, self.timestamp_ms, self.epoch_blocks] {
                bytes.extend(number.to_be_bytes());
            }
            origin.encode(&mut bytes);
            for index in 0..PARAMETERS.len() {
                bytes.extend(self.params.value(index).unwrap_or_default().to_be_bytes());
            }
            bytes.extend(self.validator_set().digest());
            return Ok(keccak256(bytes));
        }
        let mut bytes = b"surety genesis v1".to_vec();
        for number in [self.chain_id, self.timestamp_ms, self.epoch_blocks] {
            bytes.extend(number.to_be_bytes());
        }
        for (key, value) in genesis_writes(self)? {
            bytes.extend(key.0);
            bytes.extend((value.len() as u64).to_be_bytes());
            bytes.extend(value);
        }
        Ok(keccak256(bytes))
    }

    pub(crate) fn check(&self) -> Result<(), GenesisError> {
        self.params.check()?;
        for (number, what) in [(self.chain_id, "chain_id"), (self.epoch_blocks, "epoch_blocks")] {
            if number == 0 {
                return Err(GenesisError::Zero(what));
            }
        }
        if let Some(origin) = &self.origin {
            if !self.balances.is_empty() {
                return Err(GenesisError::Balances);
            }
            if origin.chain_id == self.chain_id {
                return Err(GenesisError::SameChain(origin.chain_id));
            }
            let first = origin.epoch.checked_add(1).and_then(|epoch| epoch.checked_mul(self.epoch_blocks));
            let before = origin.number / self.epoch_blocks == origin.epoch;
            // Room for more blocks than can ever be made.
            if !before || first.is_none_or(|first| first > u64::MAX / 2) {
                return Err(GenesisError::Heights);
            }
        }
        let too_many = |what, found, most| Err(GenesisError::TooMany { what, found, most });
        if self.balances.len() > BALANCES_MAX {
            return too_many("balances", self.balances.len(), BALANCES_MAX as u64);
        }
        if self.validators.len() as u64 > self.params.validators_max {
            return too_many("validators", self.validators.len(), self.params.validators_max);
        }
        if self.validators.is_empty() {
            return Err(GenesisError::NoValidators);
        }
        let reserved = |address: Address| {
            if address.is_zero() || Module::at(&address).is_some() || address == HISTORY_STORAGE_ADDRESS {
                return Err(GenesisError::Reserved(address));
            }
            Ok(())
        };
        let mut seen = BTreeSet::new();
        for balance in &self.balances {
            reserved(balance.address)?;
            if balance.why.trim().is_empty() {
                return Err(GenesisError::NoReason(balance.address));
            }
            if !seen.insert(balance.address) {
                return Err(GenesisError::Twice(balance.address.to_string()));
            }
        }
        let (mut keys, mut operators) = (BTreeSet::new(), BTreeSet::new());
        for validator in &self.validators {
            reserved(validator.operator)?;
            if !is_sound_key(&validator.key.0) {
                return Err(GenesisError::Key(validator.key));
            }
            if validator.stake < U256::from(self.params.validator_stake_min) {
                return Err(GenesisError::Stake(validator.operator));
            }
            if !keys.insert(validator.key) {
                return Err(GenesisError::Twice(validator.key.to_string()));
            }
            if !operators.insert(validator.operator) {
                return Err(GenesisError::Twice(validator.operator.to_string()));
            }
        }
        match self.supply() {
            Some(supply) if supply <= U256::from(u128::MAX) => Ok(()),
            _ => Err(GenesisError::Supply),
        }
    }
}

/// The state of block 0, by increasing key.
pub fn genesis_writes(genesis: &Genesis) -> Result<Vec<(StateKey, StateValue)>, GenesisError> {
    genesis.check()?;
    if genesis.origin.is_some() {
        return Err(GenesisError::NeedsState);
    }
    let nothing = MemoryState::default();
    let mut ledger = Ledger::new(&nothing);
    for balance in &genesis.balances {
        let account = AccountState { balance: balance.amount, ..AccountState::default() };
        ledger.set_account(balance.address, Some(account));
    }
    let code = ledger.deploy(Bytecode::new_legacy(Bytes::from_static(&modules::CODE)));
    let stakes =
        genesis.validators.iter().fold(U256::ZERO, |sum, validator| sum.saturating_add(validator.stake));
    for module in Module::ALL {
        let balance = if module.address() == STAKING { stakes } else { U256::ZERO };
        ledger.set_account(module.address(), Some(AccountState { nonce: 1, balance, code_hash: code }));
    }
    let history = ledger.deploy(Bytecode::new_legacy(alloy_eips::eip2935::HISTORY_STORAGE_CODE.clone()));
    let account = AccountState { nonce: 1, balance: U256::ZERO, code_hash: history };
    ledger.set_account(HISTORY_STORAGE_ADDRESS, Some(account));

    let header = Header {
        number: 0,
        timestamp_ms: genesis.timestamp_ms,
        epoch: 0,
        view: 0,
        parent_hash: B256::ZERO,
        beacon: B256::ZERO,
        proposer: 0,
        missed: Vec::new(),
    };
    let surroundings = surroundings(&genesis.spec(), &header, genesis.params.clone());
    let mut own = Own { surroundings: &surroundings, ledger: &mut ledger };
    believed(modules::params::store(&mut own, &genesis.params));
    believed(credit::store_supply(&mut own, genesis.supply().unwrap_or_default()));
    for validator in &genesis.validators {
        believed(staking::bond_at_genesis(&mut own, validator.operator, validator.stake));
        believed(staking::register_at_genesis(&mut own, validator.operator, B256::from(validator.key.0)));
    }
    believed(staking::store_set(&mut own, &genesis.validator_set()));
    let writes = ledger.writes().into_iter();
    Ok(writes.filter_map(|(key, value)| value.map(|value| (key, value))).collect())
}
