//! An account on the ledger, as the money of a gateway and the duties of a worker need it.
//!
//! In:     questions to proven state, calls to send, digests to sign.
//! Out:    answers; once a call has landed, that it has; signatures.
//! Touches: the ledger, through whoever implements [`Account`].
//! Holds:  what is read is proven; a call that reverted is an error, in the ledger's words.
//! Absent: how the ledger is reached (`ledger`), what is asked for (`worker`, `gateway`).

use std::{fmt, future::Future, pin::Pin};

use alloy_primitives::{Address, B256, Log, U256};
use alloy_sol_types::SolCall;
use surety_chain::Params;
use surety_types::{Digest, PublicKey, abi::Module};

use crate::ledger::records::ReceiptRecord;

/// What takes a while, and may fail.
pub type Wait<'a, T> = Pin<Box<dyn Future<Output = Result<T, AccountError>> + Send + 'a>>;

/// The newest block that is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Its number.
    pub number: u64,
    /// Its time, Unix milliseconds.
    pub timestamp_ms: u64,
    /// The epoch that the next block belongs to, or its own.
    pub epoch: u64,
}

/// A call to a module, from the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleCall {
    /// Which.
    pub module: Module,
    /// Wei sent along.
    pub value: U256,
    /// Calldata.
    pub input: Vec<u8>,
}

impl ModuleCall {
    /// A call that sends nothing.
    pub fn new(module: Module, call: &impl SolCall) -> Self {
        ModuleCall { module, value: U256::ZERO, input: call.abi_encode() }
    }

    /// A call that sends money.
    pub fn paying(module: Module, call: &impl SolCall, value: U256) -> Self {
        ModuleCall { value, ..Self::new(module, call) }
    }
}

/// What came of a call that landed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Noted {
    /// Of its transaction.
    pub hash: B256,
    /// What it noted.
    pub logs: Vec<Log>,
    /// What it cost, in wei.
    pub fee: U256,
}

/// Why the ledger was of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AccountError {
    /// What went wrong, causes included.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// Whether the ledger refused: the same again, unchanged, would be refused again.
    pub refused: bool,
}

/// An account on the ledger. One process at a time uses it: nonces are not shared.
pub trait Account: fmt::Debug + Send + Sync {
    /// The ledger's.
    fn chain_id(&self) -> u64;

    /// The account's.
    fn address(&self) -> Address;

    /// The account's signature of a digest: r ‖ s ‖ v, v 27 or 28.
    fn sign(&self, digest: &B256) -> [u8; 65];

    /// The newest block.
    fn moment(&self) -> Wait<'_, Moment>;

    /// Wei that the account has.
    fn balance(&self) -> Wait<'_, U256>;

    /// What governance has set.
    fn params(&self) -> Wait<'_, Params>;

    /// What a module's function returns on the newest state.
    fn view(&self, module: Module, input: Vec<u8>) -> Wait<'_, Vec<u8>>;

    /// What a module noted under these topics, the oldest first, as a node tells it: nothing of it is proven.
    fn logs(&self, module: Module, topics: Vec<B256>) -> Wait<'_, Vec<Log>>;

    /// Calldata of the transactions that had a module note something under these topics, the oldest first, as a node tells
    /// it: nothing of it is proven.
    fn inputs(&self, module: Module, topics: Vec<B256>) -> Wait<'_, Vec<Vec<u8>>>;

    /// What the ledger knows of what a worker did about an order, whether it gave a receipt or not.
    fn answer_record(
        &self,
        receipt: Option<Digest>,
        order: Digest,
        worker: PublicKey,
    ) -> Wait<'_, ReceiptRecord>;

    /// Sends calls, each a transaction of its own, in this order; returns what came of each when all have landed and none
    /// has failed.
    fn send_noted(&self, calls: Vec<ModuleCall>) -> Wait<'_, Vec<Noted>>;

    /// The same, where nothing but that matters.
    fn send(&self, calls: Vec<ModuleCall>) -> Wait<'_, ()> {
        Box::pin(async move { self.send_noted(calls).await.map(drop) })
    }
}

/// What a module's function returns on the newest state.
pub async fn view<C: SolCall>(
    account: &dyn Account,
    module: Module,
    call: &C,
) -> Result<C::Return, AccountError> {
    let output = account.view(module, call.abi_encode()).await?;
    C::abi_decode_returns(&output).map_err(|error| AccountError {
        message: format!("what {} returns cannot be read: {error}", C::SIGNATURE),
        hint: "this software and the ledger are of different versions".to_owned(),
        refused: true,
    })
}
