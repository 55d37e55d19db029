//! What the role knows of the ledger's state, and questions put to it.
//!
//! In:     keys and values at the finalised tip, from whatever keeps them (`consensus`; a map in tests).
//! Out:    accounts, code, slots, parameters, validator sets; what a call would do.
//! Holds:  every answer is of one height: where the tip moved while an answer was put together, it is put together anew.
//! Absent: what happened (`indexes`), rules (`chain`).

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alloy_primitives::{Address, B256, Bytes, U256};
use futures::future::BoxFuture;
use surety_chain::{
    AccountState, CallRequest, ChainSpec, CorruptValue, Estimate, Execution, ExecutionError, Header, Params,
    Read, SimulationOutcome, StateKey, StateReader, StateValue, UpgradePlan, ValidatorSet,
};
use surety_consensus::KEYS_MAX;
use tokio::{runtime::Handle, sync::Semaphore};

/// How often an answer is put together anew before the question is given up.
const ATTEMPTS_MAX: usize = 16;

/// A finalised block, as much of it as answers depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Its height.
    pub number: u64,
    /// Its digest.
    pub hash: B256,
    /// Its time in milliseconds.
    pub timestamp_ms: u64,
    /// The view it was proposed in.
    pub view: u64,
}

/// Values at the finalised tip.
#[derive(Debug, Clone)]
pub struct Values {
    /// The block after which they are so.
    pub tip: Tip,
    /// A value for each key, in the order of the keys; none where there is none.
    pub values: Vec<Option<StateValue>>,
}

/// Values with their proofs against a header's state root.
#[derive(Debug, Clone)]
pub struct Proved {
    /// The header, as it is hashed.
    pub header: Bytes,
    /// The header's height.
    pub number: u64,
    /// A proof for each key, in the order of the keys, as `consensus` writes it.
    pub proofs: Vec<Bytes>,
}

/// Why it is known who signs in an epoch. Of the first epoch the genesis says so, and there is none.
#[derive(Debug, Clone)]
pub struct EpochRecord {
    /// The last header of the epoch before, which names the validators.
    pub header: Bytes,
    /// The certificate over that header, by the epoch before.
    pub certificate: Bytes,
}

/// What this validator is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// It votes.
    Voting,
    /// It follows without voting.
    Observing {
        /// Why it does not vote.
        why: String,
    },
    /// It is taking over the state from others.
    Syncing {
        /// The height it aims at, if that is known.
        target: Option<u64>,
    },
}

/// How the consensus is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerStatus {
    /// The finalised height.
    pub number: u64,
    /// The epoch.
    pub epoch: u64,
    /// The view.
    pub view: u64,
    /// What this validator is doing.
    pub duty: Duty,
    /// Peers that it is set to know.
    pub peers: u64,
}

/// The state cannot be had now: the validator is starting, taking over the state, or stopping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state cannot be read now: {0}")]
pub struct Unavailable(pub String);

/// Whatever keeps the state.
pub trait Ledger: Send + Sync + 'static {
    /// Values at the finalised tip.
    fn read(&self, keys: Vec<StateKey>) -> BoxFuture<'_, Result<Values, Unavailable>>;
    /// The same, proved.
    fn prove(&self, keys: Vec<StateKey>) -> BoxFuture<'_, Result<Proved, Unavailable>>;
    /// Why it is known who signs in an epoch; none for the first and for one that is not known.
    fn epoch(&self, epoch: u64) -> BoxFuture<'_, Result<Option<EpochRecord>, Unavailable>>;
    /// How it is doing.
    fn status(&self) -> LedgerStatus;
    /// Sends an admitted transaction to the peers.
    fn gossip(&self, encoded: Bytes);
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Not now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The tip moved too often.
    #[error("the chain moved on while the answer was put together; ask again")]
    Moved,
    /// As many such questions as are answered at once are being answered.
    #[error("too many calls are being executed")]
    Busy,
    /// The question itself is at fault.
    #[error("{0}")]
    Refused(String),
    /// The state is damaged.
    #[error("the state is damaged")]
    Corrupt(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<CorruptValue> for ViewError {
    fn from(error: CorruptValue) -> Self {
        Self::Corrupt(Box::new(error))
    }
}

impl From<ExecutionError> for ViewError {
    fn from(error: ExecutionError) -> Self {
        match error {
            ExecutionError::Invalid(refused) => Self::Refused(refused.to_string()),
            corrupt => Self::Corrupt(Box::new(corrupt)),
        }
    }
}

/// Questions to the state.
#[derive(Clone)]
pub struct View {
    spec: ChainSpec,
    ledger: Arc<dyn Ledger>,
    /// Calls being executed.
    calls: Arc<Semaphore>,
}

impl View {
    /// Of this ledger, executing at most `calls_max` calls at once.
    pub fn new(spec: ChainSpec, ledger: Arc<dyn Ledger>, calls_max: usize) -> Self {
        Self { spec, ledger, calls: Arc::new(Semaphore::new(calls_max)) }
    }

    /// The chain's constants.
    pub fn spec(&self) -> &ChainSpec {
        &self.spec
    }

    /// What keeps the state.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// An account; one that does not exist is empty.
    pub async fn account(&self, address: Address) -> Result<(Tip, AccountState), ViewError> {
        let mut read = self.ledger.read(vec![StateKey::account(&address)]).await?;
        let account = match read.values.pop().flatten() {
            Some(value) => AccountState::decode(&value)?,
            None => AccountState::default(),
        };
        Ok((read.tip, account))
    }

    /// Accounts, however many; those that do not exist are left out.
    pub async fn accounts(
        &self,
        addresses: BTreeSet<Address>,
    ) -> Result<BTreeMap<Address, AccountState>, ViewError> {
        let addresses: Vec<Address> = addresses.into_iter().collect();
        let mut accounts = BTreeMap::new();
        for some in addresses.chunks(KEYS_MAX) {
            let read = self.ledger.read(some.iter().map(StateKey::account).collect()).await?;
            for (address, value) in some.iter().zip(read.values) {
                if let Some(value) = value {
                    accounts.insert(*address, AccountState::decode(&value)?);
                }
            }
        }
        Ok(accounts)
    }

    /// The code of an account.
    pub async fn code(&self, address: Address) -> Result<(Tip, Bytes), ViewError> {
        // Code never changes under its hash, so the two readings need not be of one height.
        let (tip, account) = self.account(address).await?;
        if account.code_hash == AccountState::default().code_hash {
            return Ok((tip, Bytes::new()));
        }
        let mut read = self.ledger.read(vec![StateKey::code(&account.code_hash)]).await?;
        Ok((tip, read.values.pop().flatten().unwrap_or_default().into()))
    }

    /// A slot of an account's storage.
    pub async fn slot(&self, address: Address, slot: U256) -> Result<(Tip, U256), ViewError> {
        let mut read = self.ledger.read(vec![StateKey::slot(&address, &slot)]).await?;
        let value = match read.values.pop().flatten() {
            Some(value) => surety_chain::decode_slot(&value)?,
            None => U256::ZERO,
        };
        Ok((read.tip, value))
    }

    /// The parameters that hold for the next block.
    pub async fn params(&self) -> Result<(Tip, Params), ViewError> {
        self.ask(|_, reader, _| surety_chain::params(reader)).await
    }

    /// The validators of an epoch that the state knows.
    pub async fn validator_set(&self, epoch: u64) -> Result<(Tip, Option<ValidatorSet>), ViewError> {
        self.ask(move |_, reader, _| surety_chain::validator_set(reader, epoch)).await
    }

    /// The upgrade that is due next.
    pub async fn upgrade_plan(&self) -> Result<(Tip, Option<UpgradePlan>), ViewError> {
        self.ask(|_, reader, _| surety_chain::upgrade_plan(reader)).await
    }

    /// What a call would do in the next block.
    pub async fn simulate(&self, call: CallRequest) -> Result<(Tip, SimulationOutcome), ViewError> {
        self.ask(move |spec, reader, header| surety_chain::simulate(spec, reader, header, &call)).await
    }

    /// How much gas a call would need in the next block.
    pub async fn estimate(&self, call: CallRequest) -> Result<(Tip, Estimate), ViewError> {
        self.ask(move |spec, reader, header| surety_chain::estimate_gas(spec, reader, header, &call)).await
    }

    /// Answers a question from values of one height, on a thread that may wait for them.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&ChainSpec, &dyn StateReader, &Header) -> Result<Execution<T>, ExecutionError>
        + Send
        + 'static,
    ) -> Result<(Tip, T), ViewError> {
        let place = Arc::clone(&self.calls).try_acquire_owned().map_err(|_| ViewError::Busy)?;
        let (ledger, spec, runtime) = (Arc::clone(&self.ledger), self.spec, Handle::current());
        let answered = tokio::task::spawn_blocking(move || {
            let _place = place;
            for _ in 0..ATTEMPTS_MAX {
                let reader = Reader::new(Arc::clone(&ledger), runtime.clone())?;
                let header = next_header(&spec, reader.tip);
                let outcome = question(&spec, &reader, &header);
                match reader.interrupted.into_inner() {
                    Some(Interruption::Moved) => continue,
                    Some(Interruption::Unavailable(error)) => return Err(error.into()),
                    None => {}
                }
                return match outcome? {
                    Execution::Done(answer) => Ok((reader.tip, *answer)),
                    Execution::Needs(_) => unreachable!("a reader that fetches knows every key"),
                };
            }
            Err(ViewError::Moved)
        });
        answered.await.map_err(|error| ViewError::Corrupt(Box::new(error)))?
    }
}

/// The header that the next block would have, as far as a call can see.
///
/// Its randomness is not known before it is proposed, nor who proposes it.
fn next_header(spec: &ChainSpec, tip: Tip) -> Header {
    let number = tip.number + 1;
    Header {
        number,
        timestamp_ms: tip.timestamp_ms.saturating_add(1),
        epoch: spec.epoch(number),
        view: tip.view + 1,
        parent_hash: tip.hash,
        beacon: B256::ZERO,
        proposer: 0,
        missed: Vec::new(),
    }
}

/// Why a reader stopped knowing.
enum Interruption {
    Moved,
    Unavailable(Unavailable),
}

/// Fetches what it is asked for, all of one height.
struct Reader {
    ledger: Arc<dyn Ledger>,
    runtime: Handle,
    tip: Tip,
    known: RefCell<BTreeMap<StateKey, Option<StateValue>>>,
    interrupted: RefCell<Option<Interruption>>,
}

impl Reader {
    fn new(ledger: Arc<dyn Ledger>, runtime: Handle) -> Result<Self, Unavailable> {
        let tip = runtime.block_on(ledger.read(Vec::new()))?.tip;
        let (known, interrupted) = (RefCell::default(), RefCell::new(None));
        Ok(Self { ledger, runtime, tip, known, interrupted })
    }
}

impl StateReader for Reader {
    fn read(&self, key: &StateKey) -> Read<'_> {
        if self.interrupted.borrow().is_some() {
            return Read::Unknown;
        }
        if let Some(value) = self.known.borrow().get(key) {
            return Read::Known(value.clone().map(Cow::Owned));
        }
        let interruption = match self.runtime.block_on(self.ledger.read(vec![*key])) {
            Ok(mut read) if read.tip.number == self.tip.number => {
                let value = read.values.pop().flatten();
                self.known.borrow_mut().insert(*key, value.clone());
                return Read::Known(value.map(Cow::Owned));
            }
            Ok(_) => Interruption::Moved,
            Err(error) => Interruption::Unavailable(error),
        };
        *self.interrupted.borrow_mut() = Some(interruption);
        Read::Unknown
    }
}
