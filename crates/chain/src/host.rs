//! What a module may do: read and write its storage, move money out of its account, emit an event; each at a price.
//!
//! In:     a call of the EVM, or the chain's own beginning and end of a block.
//! Out:    changes to the storage of module accounts, or the reason why a call was refused.
//! Holds:  gas is charged before the work it pays for; a static call changes nothing; every load may yield zero for
//!         want of data, and no module relies on it being otherwise.
//! Absent: what the modules decide (`modules`).

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap, sync::Arc};

use alloy_evm::EvmInternals;
use alloy_primitives::{Address, B256, Log, LogData, U256, keccak256};
use alloy_sol_types::SolEvent;

use crate::{
    ledger::Ledger,
    params::Params,
    transaction::{Signed, recover},
};

/// Gas of a read.
pub(crate) const GAS_LOAD: u64 = 2_100;
/// Gas of a write where there was nothing.
pub(crate) const GAS_STORE_NEW: u64 = 20_000;
/// Gas of any other write.
pub(crate) const GAS_STORE: u64 = 5_000;
/// Gas of an event, and of each of its topics and bytes.
pub(crate) const GAS_LOG: u64 = 375;
pub(crate) const GAS_LOG_BYTE: u64 = 8;
/// Gas of a payment, as of a call with value.
pub(crate) const GAS_PAY: u64 = 9_000;
/// Gas of hashing 32 bytes, and of beginning to.
pub(crate) const GAS_HASH_WORD: u64 = 12;
pub(crate) const GAS_HASH: u64 = 60;
/// Gas of recovering a secp256k1 signer.
pub(crate) const GAS_RECOVER: u64 = 3_000;
/// Gas of verifying an ed25519 signature.
pub(crate) const GAS_ED25519: u64 = 3_500;
/// Gas of any call, and of each byte of its input.
pub(crate) const GAS_CALL: u64 = 200;
pub(crate) const GAS_INPUT_BYTE: u64 = 3;

/// Why a call of a module ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The caller's gas is used up.
    OutOfGas,
    /// Refused; the caller sees why.
    Refused(Cow<'static, str>),
}

pub(crate) type Outcome<T> = Result<T, Stop>;

/// Refuses a call.
pub(crate) fn refuse<T>(reason: impl Into<Cow<'static, str>>) -> Outcome<T> {
    Err(Stop::Refused(reason.into()))
}

/// Refuses a call unless `holds`.
pub(crate) fn require(holds: bool, reason: &'static str) -> Outcome<()> {
    if holds { Ok(()) } else { refuse(reason) }
}

/// Refuses what overflows. Balances and shares fit 128 bits by far, so that no honest call meets this.
pub(crate) fn checked<T>(value: Option<T>) -> Outcome<T> {
    value.map_or_else(|| refuse("arithmetic overflow"), Ok)
}

/// Where a block stands; the same for all its transactions.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) chain_id: u64,
    pub(crate) number: u64,
    pub(crate) timestamp_s: u64,
    pub(crate) epoch: u64,
    /// As they were when the block began.
    pub(crate) params: Params,
    /// Who proposed the block; zero where nobody did.
    pub(crate) proposer: Address,
    pub(crate) vote_namespace: Vec<u8>,
    /// Signers known from admission; recovering again would give the same.
    pub(crate) signers: RefCell<Arc<BTreeMap<Signed, Option<Address>>>>,
}

impl Surroundings {
    /// Who signed a digest.
    pub(crate) fn signer(&self, digest: &B256, signature: &[u8; 65]) -> Option<Address> {
        match self.signers.borrow().get(&(*digest, *signature)) {
            Some(known) => *known,
            None => recover(digest, signature),
        }
    }
}

/// A place in a module's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) module: Address,
    pub(crate) key: U256,
}

impl Slot {
    /// keccak256(tag ‖ keys). A tag's keys always have the same lengths, so that no two places coincide.
    pub(crate) fn new(module: Address, tag: u8, keys: &[&[u8]]) -> Slot {
        let mut bytes = [0; 128];
        bytes[0] = tag;
        let mut length = 1;
        for key in keys {
            bytes[length..length + key.len()].copy_from_slice(key);
            length += key.len();
        }
        Slot { module, key: U256::from_be_bytes(keccak256(&bytes[..length]).0) }
    }

    /// The place `offset` after this one.
    pub(crate) fn after(self, offset: u64) -> Slot {
        Slot { key: self.key.wrapping_add(U256::from(offset)), ..self }
    }
}

/// What a module may do.
pub(crate) trait Host {
    fn surroundings(&self) -> &Surroundings;
    fn charge(&mut self, gas: u64) -> Outcome<()>;
    fn load(&mut self, slot: Slot) -> Outcome<U256>;
    fn store(&mut self, slot: Slot, value: U256) -> Outcome<()>;
    /// Moves money from one account to another: out of a module's own, or by the word of whose it is; runs nobody's code.
    fn pay(&mut self, from: Address, to: Address, amount: U256) -> Outcome<()>;
    /// What an account has.
    fn balance(&mut self, account: Address) -> Outcome<U256>;
    fn log(&mut self, module: Address, data: LogData) -> Outcome<()>;
}

impl dyn Host + '_ {
    pub(crate) fn params(&self) -> &Params {
        &self.surroundings().params
    }

    pub(crate) fn emit(&mut self, module: Address, event: &impl SolEvent) -> Outcome<()> {
        self.log(module, event.encode_log_data())
    }

    pub(crate) fn load_u64(&mut self, slot: Slot) -> Outcome<u64> {
        Ok(self.load(slot)?.saturating_to())
    }

    pub(crate) fn load_word(&mut self, slot: Slot) -> Outcome<B256> {
        self.load(slot).map(B256::from)
    }

    pub(crate) fn load_address(&mut self, slot: Slot) -> Outcome<Address> {
        self.load_word(slot).map(Address::from_word)
    }

    pub(crate) fn store_u64(&mut self, slot: Slot, value: u64) -> Outcome<()> {
        self.store(slot, U256::from(value))
    }

    pub(crate) fn store_word(&mut self, slot: Slot, value: B256) -> Outcome<()> {
        self.store(slot, value.into())
    }

    pub(crate) fn store_address(&mut self, slot: Slot, value: Address) -> Outcome<()> {
        self.store_word(slot, value.into_word())
    }

    /// Two 128-bit numbers, the first in the upper half.
    pub(crate) fn load_halves(&mut self, slot: Slot) -> Outcome<(u128, u128)> {
        let word = self.load(slot)?;
        Ok(((word >> 128usize).to(), (word & U256::from(u128::MAX)).to()))
    }

    pub(crate) fn store_halves(&mut self, slot: Slot, upper: u128, lower: u128) -> Outcome<()> {
        self.store(slot, (U256::from(upper) << 128usize) | U256::from(lower))
    }

    /// Four 64-bit numbers, the first the most significant.
    pub(crate) fn load_quarters(&mut self, slot: Slot) -> Outcome<[u64; 4]> {
        let limbs = self.load(slot)?.into_limbs();
        Ok([limbs[3], limbs[2], limbs[1], limbs[0]])
    }

    pub(crate) fn store_quarters(&mut self, slot: Slot, values: [u64; 4]) -> Outcome<()> {
        self.store(slot, U256::from_limbs([values[3], values[2], values[1], values[0]]))
    }

    /// Bytes: their length in the slot itself, then 32 at a time. `most` bounds what is read.
    pub(crate) fn load_bytes(&mut self, slot: Slot, most: usize) -> Outcome<Vec<u8>> {
        let length = usize::try_from(self.load(slot)?).unwrap_or(usize::MAX).min(most);
        let mut bytes = Vec::with_capacity(length);
        for chunk in 0..length.div_ceil(32) {
            let word = self.load_word(slot.after(1 + chunk as u64))?;
            bytes.extend(&word[..32.min(length - bytes.len())]);
        }
        Ok(bytes)
    }

    pub(crate) fn store_bytes(&mut self, slot: Slot, bytes: &[u8]) -> Outcome<()> {
        self.store(slot, U256::from(bytes.len()))?;
        for (chunk, part) in bytes.chunks(32).enumerate() {
            self.store_word(slot.after(1 + chunk as u64), B256::right_padding_from(part))?;
        }
        Ok(())
    }

    /// Text that was stored as such.
    pub(crate) fn load_text(&mut self, slot: Slot, most: usize) -> Outcome<String> {
        Ok(String::from_utf8(self.load_bytes(slot, most)?).unwrap_or_default())
    }

    /// Adds to a list whose length is in the slot itself.
    pub(crate) fn push(&mut self, list: Slot, value: U256) -> Outcome<u64> {
        let length = self.load_u64(list)?;
        let next = checked(length.checked_add(1))?;
        self.store(list.after(next), value)?;
        self.store_u64(list, next)?;
        Ok(length)
    }

    /// At most `most` values of a list from `offset` on.
    pub(crate) fn page(&mut self, list: Slot, offset: u64, most: u64) -> Outcome<Vec<U256>> {
        let length = self.load_u64(list)?;
        (offset..length.min(offset.saturating_add(most)))
            .map(|index| self.load(list.after(index.saturating_add(1))))
            .collect()
    }

    /// Takes the value at `index` out of a list; the last one takes its place and is returned.
    pub(crate) fn swap_remove(&mut self, list: Slot, index: u64) -> Outcome<Option<U256>> {
        let length = self.load_u64(list)?;
        let last = checked(length.checked_sub(1))?;
        let moved = if index < last {
            let value = self.load(list.after(length))?;
            self.store(list.after(index.saturating_add(1)), value)?;
            Some(value)
        } else {
            None
        };
        self.store(list.after(length), U256::ZERO)?;
        self.store_u64(list, last)?;
        Ok(moved)
    }

    /// Keccak-256, paid for.
    pub(crate) fn keccak(&mut self, bytes: &[u8]) -> Outcome<B256> {
        self.charge(GAS_HASH + GAS_HASH_WORD * bytes.len().div_ceil(32) as u64)?;
        Ok(keccak256(bytes))
    }
}

/// A call of the EVM.
pub(crate) struct Metered<'a, 'b> {
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) internals: &'a mut EvmInternals<'b>,
    pub(crate) is_static: bool,
    pub(crate) gas_limit: u64,
    pub(crate) gas_used: u64,
}

/// The journal over our ledger cannot fail; if it ever did, no block could be executed.
fn infallible<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the journal failed over a ledger that cannot: {error}"),
    }
}

impl Host for Metered<'_, '_> {
    fn surroundings(&self) -> &Surroundings {
        self.surroundings
    }

    fn charge(&mut self, gas: u64) -> Outcome<()> {
        self.gas_used = self.gas_used.saturating_add(gas);
        if self.gas_used > self.gas_limit { Err(Stop::OutOfGas) } else { Ok(()) }
    }

    fn load(&mut self, slot: Slot) -> Outcome<U256> {
        self.charge(GAS_LOAD)?;
        Ok(infallible(self.internals.sload(slot.module, slot.key)).data)
    }

    fn store(&mut self, slot: Slot, value: U256) -> Outcome<()> {
        require(!self.is_static, "a static call changes nothing")?;
        self.charge(GAS_STORE)?;
        let before = infallible(self.internals.sload(slot.module, slot.key)).data;
        if before == value {
            return Ok(());
        }
        if before.is_zero() {
            self.charge(GAS_STORE_NEW - GAS_STORE)?;
        }
        infallible(self.internals.sstore(slot.module, slot.key, value));
        Ok(())
    }

    fn pay(&mut self, from: Address, to: Address, amount: U256) -> Outcome<()> {
        require(!self.is_static, "a static call changes nothing")?;
        self.charge(GAS_PAY)?;
        match infallible(self.internals.transfer(from, to, amount)) {
            None => Ok(()),
            Some(error) => refuse(format!("payment failed: {error:?}")),
        }
    }

    fn balance(&mut self, account: Address) -> Outcome<U256> {
        self.charge(GAS_LOAD)?;
        Ok(infallible(self.internals.load_account(account)).data.info.balance)
    }

    fn log(&mut self, module: Address, data: LogData) -> Outcome<()> {
        require(!self.is_static, "a static call changes nothing")?;
        self.charge(GAS_LOG * (1 + data.topics().len() as u64) + GAS_LOG_BYTE * data.data.len() as u64)?;
        self.internals.log(Log { address: module, data });
        Ok(())
    }
}

/// The chain itself, at a block's beginning and end and at genesis: nobody pays, and nobody hears its events.
pub(crate) struct Own<'a, 'b> {
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) ledger: &'a mut Ledger<'b>,
}

impl Host for Own<'_, '_> {
    fn surroundings(&self) -> &Surroundings {
        self.surroundings
    }

    fn charge(&mut self, _: u64) -> Outcome<()> {
        Ok(())
    }

    fn load(&mut self, slot: Slot) -> Outcome<U256> {
        Ok(self.ledger.slot(slot.module, slot.key))
    }

    fn store(&mut self, slot: Slot, value: U256) -> Outcome<()> {
        self.ledger.set_slot(slot.module, slot.key, value);
        Ok(())
    }

    fn pay(&mut self, _: Address, _: Address, _: U256) -> Outcome<()> {
        refuse("the chain itself pays nobody")
    }

    fn balance(&mut self, account: Address) -> Outcome<U256> {
        Ok(self.ledger.account(account).unwrap_or_default().balance)
    }

    fn log(&mut self, _: Address, _: LogData) -> Outcome<()> {
        Ok(())
    }
}
