//! State as keys and values.
//!
//! In:     what a store holds. Out: accounts, slots and code, and the same as bytes.
//! Holds:  one value has one encoding; bytes that are no encoding are an error, never a guess.
//! Absent: the store and its roots (`consensus`).

use std::{borrow::Cow, collections::BTreeMap};

use alloy_primitives::{Address, B256, U256, keccak256};
use revm::primitives::KECCAK_EMPTY;

/// Where a value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey(pub [u8; 32]);

/// An encoded account, slot or code; at most [`crate::STATE_VALUE_BYTES_MAX`] bytes.
pub type StateValue = Vec<u8>;

impl StateKey {
    /// Of an account: keccak256(address).
    pub fn account(address: &Address) -> StateKey {
        StateKey(keccak256(address).0)
    }

    /// Of one slot of an account's storage: keccak256(address ‖ slot).
    pub fn slot(address: &Address, slot: &U256) -> StateKey {
        let mut bytes = [0; 52];
        bytes[..20].copy_from_slice(address.as_slice());
        bytes[20..].copy_from_slice(&slot.to_be_bytes::<32>());
        StateKey(keccak256(bytes).0)
    }

    /// Of a contract's code: keccak256("code" ‖ code hash).
    pub fn code(hash: &B256) -> StateKey {
        let mut bytes = [0; 36];
        bytes[..4].copy_from_slice(b"code");
        bytes[4..].copy_from_slice(hash.as_slice());
        StateKey(keccak256(bytes).0)
    }
}

/// What a reader knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<'a> {
    /// The value, or that there is none.
    Known(Option<Cow<'a, [u8]>>),
    /// It must be loaded first.
    Unknown,
}

/// The state a transition reads from, as of the parent block.
///
/// What it says must not change while a block is executed. A reader that fetches when asked never says
/// [`Read::Unknown`]; then a block is executed once.
pub trait StateReader {
    /// The value of a key.
    fn read(&self, key: &StateKey) -> Read<'_>;
}

/// A reader of what was loaded before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadCache(pub BTreeMap<StateKey, Option<StateValue>>);

impl StateReader for ReadCache {
    fn read(&self, key: &StateKey) -> Read<'_> {
        match self.0.get(key) {
            Some(value) => Read::Known(value.as_deref().map(Cow::Borrowed)),
            None => Read::Unknown,
        }
    }
}

/// A whole state in memory: what it does not hold does not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryState(pub BTreeMap<StateKey, StateValue>);

impl MemoryState {
    /// Applies the writes of a block.
    pub fn apply(&mut self, writes: impl IntoIterator<Item = (StateKey, Option<StateValue>)>) {
        for (key, value) in writes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

impl StateReader for MemoryState {
    fn read(&self, key: &StateKey) -> Read<'_> {
        Read::Known(self.0.get(key).map(|value| Cow::Borrowed(value.as_slice())))
    }
}

/// Bytes in the state that encode nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state holds {bytes} bytes that are no {expected}")]
pub struct CorruptValue {
    /// What should be there.
    pub expected: &'static str,
    /// How long it is.
    pub bytes: usize,
}

/// An account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountState {
    /// Transactions sent.
    pub nonce: u64,
    /// In wei.
    pub balance: U256,
    /// Of its code; that of nothing for an ordinary account.
    pub code_hash: B256,
}

impl Default for AccountState {
    fn default() -> Self {
        AccountState { nonce: 0, balance: U256::ZERO, code_hash: KECCAK_EMPTY }
    }
}

impl AccountState {
    /// nonce (8 bytes) ‖ balance (32) ‖ code hash (32, absent without code); integers big-endian.
    pub fn encode(&self) -> StateValue {
        let mut bytes = Vec::with_capacity(72);
        bytes.extend(self.nonce.to_be_bytes());
        bytes.extend(self.balance.to_be_bytes::<32>());
        if self.code_hash != KECCAK_EMPTY {
            bytes.extend(self.code_hash.0);
        }
        bytes
    }

    /// What [`AccountState::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<AccountState, CorruptValue> {
        let corrupt = || CorruptValue { expected: "account", bytes: bytes.len() };
        let (nonce, rest) = bytes.split_first_chunk::<8>().ok_or_else(corrupt)?;
        let (balance, rest) = rest.split_first_chunk::<32>().ok_or_else(corrupt)?;
        let code_hash = match rest.len() {
            0 => KECCAK_EMPTY,
            32 => B256::from_slice(rest),
            _ => return Err(corrupt()),
        };
        Ok(AccountState {
            nonce: u64::from_be_bytes(*nonce),
            balance: U256::from_be_bytes(*balance),
            code_hash,
        })
    }
}

/// A slot's value without leading zeros; a zero is not stored.
pub(crate) fn encode_slot(value: U256) -> Option<StateValue> {
    (!value.is_zero()).then(|| value.to_be_bytes_trimmed_vec())
}

/// A slot from its stored value: big-endian, without leading zeros, never empty.
pub fn decode_slot(bytes: &[u8]) -> Result<U256, CorruptValue> {
    if bytes.is_empty() || bytes.len() > 32 || bytes[0] == 0 {
        return Err(CorruptValue { expected: "slot", bytes: bytes.len() });
    }
    Ok(U256::from_be_slice(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn accounts_come_back(nonce: u64, balance: [u8; 32], code: Option<[u8; 32]>) {
            let code_hash = code.map_or(KECCAK_EMPTY, B256::from);
            let account = AccountState { nonce, balance: U256::from_be_bytes(balance), code_hash };
            prop_assert_eq!(AccountState::decode(&account.encode()), Ok(account));
        }

        #[test]
        fn slots_come_back(value: [u8; 32]) {
            let value = U256::from_be_bytes(value);
            match encode_slot(value) {
                Some(bytes) => prop_assert_eq!(decode_slot(&bytes), Ok(value)),
                None => prop_assert!(value.is_zero()),
            }
        }

        #[test]
        fn foreign_bytes_are_an_error_or_canonical(bytes: Vec<u8>) {
            if let Ok(account) = AccountState::decode(&bytes) {
                prop_assert!(account.code_hash == KECCAK_EMPTY || account.encode() == bytes);
            }
            if let Ok(value) = decode_slot(&bytes) {
                prop_assert_eq!(encode_slot(value), Some(bytes));
            }
        }
    }

    #[test]
    fn keys_of_different_things_differ() {
        let address = Address::repeat_byte(7);
        let keys = [
            StateKey::account(&address),
            StateKey::slot(&address, &U256::ZERO),
            StateKey::code(&B256::left_padding_from(address.as_slice())),
        ];
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    }
}
