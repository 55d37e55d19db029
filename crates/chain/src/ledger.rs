//! The state while a block is executed: what was read, and what has changed since.
//!
//! In:     reads of the parent's state; what each transaction changed.
//! Out:    the block's writes, sorted; the keys that were missing; how much money left circulation, to be given back.
//! Holds:  money is neither made nor lost: what a transaction took from all balances together is counted.
//! Absent: executing (`machine`), the store (`consensus`).

use std::{collections::BTreeSet, convert::Infallible};

use alloy_primitives::{
    Address, B256, U256,
    map::{AddressMap, B256Map, HashMap, hash_map::Entry},
};
use revm::{
    Database, DatabaseCommit,
    primitives::KECCAK_EMPTY,
    state::{Account, AccountInfo, Bytecode},
};

use crate::{
    execute::ExecutionError,
    machine::Changes,
    state::{AccountState, CorruptValue, Read, StateKey, StateReader, StateValue, decode_slot, encode_slot},
};

/// EIP-2935: the hashes of recent blocks live in this account's storage.
pub(crate) use alloy_eips::eip2935::HISTORY_STORAGE_ADDRESS;
/// Blocks whose hashes are kept.
pub(crate) const HISTORY_BLOCKS: u64 = alloy_eips::eip2935::HISTORY_SERVE_WINDOW as u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tracked<T> {
    before: T,
    now: T,
}

/// The state while a block is executed.
pub(crate) struct Ledger<'a> {
    reader: &'a dyn StateReader,
    accounts: AddressMap<Tracked<Option<AccountState>>>,
    slots: HashMap<(Address, U256), Tracked<U256>>,
    code: B256Map<Bytecode>,
    deployed: BTreeSet<B256>,
    missing: BTreeSet<StateKey>,
    corrupt: Option<(StateKey, CorruptValue)>,
    /// Taken from all balances together since [`Ledger::take_lost`], modulo 2²⁵⁶.
    lost: U256,
}

impl std::fmt::Debug for Ledger<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("accounts", &self.accounts.len()).finish_non_exhaustive()
    }
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(reader: &'a dyn StateReader) -> Self {
        Ledger {
            reader,
            accounts: AddressMap::default(),
            slots: HashMap::default(),
            code: B256Map::default(),
            deployed: BTreeSet::new(),
            missing: BTreeSet::new(),
            corrupt: None,
            lost: U256::ZERO,
        }
    }

    /// A value of the parent's state; notes what is missing or damaged and goes on with the default.
    fn fetch<T>(
        &mut self,
        key: StateKey,
        decode: impl FnOnce(&[u8]) -> Result<T, CorruptValue>,
    ) -> Option<T> {
        let bytes = match self.reader.read(&key) {
            Read::Known(value) => value?,
            Read::Unknown => {
                self.missing.insert(key);
                return None;
            }
        };
        match decode(&bytes) {
            Ok(value) => Some(value),
            Err(error) => {
                self.corrupt.get_or_insert((key, error));
                None
            }
        }
    }

    pub(crate) fn account(&mut self, address: Address) -> Option<AccountState> {
        if let Some(tracked) = self.accounts.get(&address) {
            return tracked.now;
        }
        let value = self.fetch(StateKey::account(&address), AccountState::decode);
        self.accounts.insert(address, Tracked { before: value, now: value });
        value
    }

    pub(crate) fn set_account(&mut self, address: Address, account: Option<AccountState>) {
        let before = self.account(address);
        let balance = |account: Option<AccountState>| account.map_or(U256::ZERO, |account| account.balance);
        self.lost = self.lost.wrapping_add(balance(before)).wrapping_sub(balance(account));
        if let Some(tracked) = self.accounts.get_mut(&address) {
            tracked.now = account;
        }
    }

    pub(crate) fn slot(&mut self, address: Address, slot: U256) -> U256 {
        if let Some(tracked) = self.slots.get(&(address, slot)) {
            return tracked.now;
        }
        let value = self.fetch(StateKey::slot(&address, &slot), decode_slot).unwrap_or_default();
        self.slots.insert((address, slot), Tracked { before: value, now: value });
        value
    }

    pub(crate) fn set_slot(&mut self, address: Address, slot: U256, value: U256) {
        self.slot(address, slot);
        if let Some(tracked) = self.slots.get_mut(&(address, slot)) {
            tracked.now = value;
        }
    }

    /// Gives an account code that may be new.
    pub(crate) fn deploy(&mut self, code: Bytecode) -> B256 {
        let hash = code.hash_slow();
        if hash != KECCAK_EMPTY {
            self.deployed.insert(hash);
            self.code.insert(hash, code);
        }
        hash
    }

    /// What was taken from all balances together since the last call.
    ///
    /// Panics if money was made: no rule of ours does that, and a chain that went on would be worthless.
    pub(crate) fn take_lost(&mut self) -> U256 {
        let lost = std::mem::take(&mut self.lost);
        assert!(lost.leading_zeros() > 0, "balances grew by {}", U256::ZERO.wrapping_sub(lost));
        lost
    }

    /// Adds to a balance what was lost by others.
    pub(crate) fn give_back(&mut self, to: Address, amount: U256) {
        if amount.is_zero() {
            return;
        }
        let mut account = self.account(to).unwrap_or_default();
        account.balance = account.balance.saturating_add(amount);
        self.set_account(to, Some(account));
        self.lost = U256::ZERO;
    }

    /// The keys that were missing; empty if everything was known. Fails if the state is damaged.
    pub(crate) fn missing(&self) -> Result<Vec<StateKey>, ExecutionError> {
        match self.corrupt {
            Some((key, source)) => Err(ExecutionError::Corrupt { key, source }),
            None => Ok(self.missing.iter().copied().collect()),
        }
    }

    /// Everything that has changed, by address.
    pub(crate) fn changes(&self) -> Changes {
        let accounts = self.accounts.iter().filter(|(_, tracked)| tracked.before != tracked.now);
        let slots = self.slots.iter().filter(|(_, tracked)| tracked.before != tracked.now);
        Changes {
            accounts: accounts.map(|(address, tracked)| (*address, tracked.now)).collect(),
            slots: slots.map(|(place, tracked)| (*place, tracked.now)).collect(),
        }
    }

    /// Everything that has changed, by increasing key.
    pub(crate) fn writes(&self) -> Vec<(StateKey, Option<StateValue>)> {
        let mut writes: Vec<(StateKey, Option<StateValue>)> = Vec::new();
        let mut codes = BTreeSet::new();
        for (address, tracked) in &self.accounts {
            if tracked.before != tracked.now {
                writes.push((StateKey::account(address), tracked.now.map(|account| account.encode())));
                if let Some(account) = tracked.now
                    && self.deployed.contains(&account.code_hash)
                {
                    codes.insert(account.code_hash);
                }
            }
        }
        for ((address, slot), tracked) in &self.slots {
            if tracked.before != tracked.now {
                writes.push((StateKey::slot(address, slot), encode_slot(tracked.now)));
            }
        }
        for hash in codes {
            if let Some(code) = self.code.get(&hash) {
                writes.push((StateKey::code(&hash), Some(code.original_byte_slice().to_vec())));
            }
        }
        writes.sort_unstable_by_key(|(key, _)| *key);
        writes
    }
}

impl Database for Ledger<'_> {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.account(address).map(|account| AccountInfo {
            nonce: account.nonce,
            balance: account.balance,
            code_hash: account.code_hash,
            code: (account.code_hash == KECCAK_EMPTY).then(Bytecode::default),
            ..AccountInfo::default()
        }))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Infallible> {
        if hash == KECCAK_EMPTY {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.code.get(&hash) {
            return Ok(code.clone());
        }
        let code = self.fetch(StateKey::code(&hash), |bytes| {
            Bytecode::new_raw_checked(bytes.to_vec().into())
                .map_err(|_| CorruptValue { expected: "code", bytes: bytes.len() })
        });
        Ok(match self.code.entry(hash) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => entry.insert(code.unwrap_or_default()).clone(),
        })
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.slot(address, slot))
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        let slot = U256::from(number % HISTORY_BLOCKS);
        Ok(B256::from(self.slot(HISTORY_STORAGE_ADDRESS, slot)))
    }
}

impl DatabaseCommit for Ledger<'_> {
    /// Takes over what a transaction changed. The order of `changes` is of no consequence.
    fn commit(&mut self, changes: AddressMap<Account>) {
        for (address, account) in changes {
            if !account.is_touched() {
                continue;
            }
            // EIP-6780: only what was created in the same transaction is destroyed, so no older storage is left.
            // EIP-161: a touched account that is empty does not exist.
            if account.is_selfdestructed() || account.is_empty() {
                self.set_account(address, None);
                continue;
            }
            if let Some(code) = account.info.code
                && self.account(address).unwrap_or_default().code_hash != account.info.code_hash
            {
                self.deploy(code);
            }
            let state = AccountState {
                nonce: account.info.nonce,
                balance: account.info.balance,
                code_hash: account.info.code_hash,
            };
            self.set_account(address, Some(state));
            for (slot, value) in account.storage {
                if value.is_changed() {
                    self.set_slot(address, slot, value.present_value);
                }
            }
        }
    }
}
