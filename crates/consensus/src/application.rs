//! The application consensus runs: proposing, checking and finalising blocks.
//!
//! In:     rounds to propose in, blocks to judge, blocks that became final.
//! Out:    blocks with their state; verdicts; finalised blocks for the ledger.
//! Touches: the state, through the batches it is handed; the clock, for block times.
//! Holds:  a block is voted for only if executing it here gives exactly what its header commits to; what is permanent is
//!         judged by block and ancestry alone, and the clock can only delay.
//! Absent: what transactions do (`law`), when batches become final (the stateful actor), who may vote (`ballot`).

use crate::{
    Block, BlockContext, Built, Certificate, Chain, Digest, Header, Law, LawError, Ledger, Place, Pool, Read,
    Settings, StateKey, StateReader, StateValue, Step, ValidatorSet, block, clock,
    epochs::Epochs,
    law::ReadCache,
    runtime::Runtime,
    state::{self, Batch, Sealed, StateSet, StateTarget},
};
use bytes::Bytes;
use commonware_consensus::{
    Heightable as _,
    marshal::{ancestry::Ancestry, core::Mailbox as MarshalMailbox, standard::Standard},
    simplex::{
        elector::{Elector as _, RoundRobin},
        scheme::ed25519::Scheme,
    },
    types::{Epoch, Round, View},
};
use commonware_cryptography::{Digestible as _, Hasher as _, Sha256};
use commonware_glue::stateful::{
    self, Finality, Input, Proposed,
    db::{DatabaseSet, Merkleized as _, Unmerkleized as _},
};
use commonware_utils::non_empty_range;
use futures::{FutureExt as _, StreamExt as _};
use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;
use tracing::{debug, error, warn};

/// The marshal as this crate uses it.
pub(crate) type Marshal = MarshalMailbox<Scheme, Standard<Block>>;
/// Who leads which view.
pub(crate) type Leaders = RoundRobin<Sha256>;

/// Headers remembered to say which block a state root belongs to.
const RECENT: usize = 256;
/// How long a block whose time is not due is waited for. Longer would outlast the view.
const EARLY_WAIT_MAX: Duration = Duration::from_secs(3);

/// The application; clones share everything.
pub(crate) struct Application<L: Law>(Arc<Shared<L>>);

impl<L: Law> Clone for Application<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What the clones share.
pub(crate) struct Shared<L: Law> {
    pub(crate) chain: Chain,
    pub(crate) settings: Settings,
    pub(crate) law: L,
    pub(crate) pool: Arc<dyn Pool<L::Transaction>>,
    pub(crate) ledger: Arc<dyn Ledger<L::Outcome>>,
    pub(crate) epochs: Epochs,
    pub(crate) genesis: Arc<Block>,
    /// Set once the marshal exists; certificates come from there.
    pub(crate) marshal: OnceLock<Marshal>,
    /// The latest header whose state is applied.
    pub(crate) tip: watch::Sender<Option<Arc<Header>>>,
    memory: Mutex<Memory<L>>,
}

/// What executing blocks that are not final yet yielded, and recent headers.
struct Memory<L: Law> {
    executed: BTreeMap<(u64, Digest), Executed<L>>,
    recent: VecDeque<Arc<Header>>,
}

/// A block that was executed and is not final yet.
struct Executed<L: Law> {
    parent: Digest,
    transactions: Arc<[L::Transaction]>,
    outcome: Arc<L::Outcome>,
}

impl<L: Law> Application<L> {
    pub(crate) fn new(
        chain: Chain,
        settings: Settings,
        law: L,
        pool: Arc<dyn Pool<L::Transaction>>,
        ledger: Arc<dyn Ledger<L::Outcome>>,
        epochs: Epochs,
        genesis: Arc<Block>,
    ) -> Self {
        let memory = Memory {
            executed: BTreeMap::new(),
            recent: VecDeque::from([Arc::new(genesis.header().clone())]),
        };
        Self(Arc::new(Shared {
            chain,
            settings,
            law,
            pool,
            ledger,
            epochs,
            genesis,
            marshal: OnceLock::new(),
            tip: watch::Sender::new(None),
            memory: Mutex::new(memory),
        }))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<L>> {
        &self.0
    }
}

impl<L: Law> Shared<L> {
    fn memory(&self) -> MutexGuard<'_, Memory<L>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header of a recent block with this state.
    pub(crate) fn header_of_state(&self, state_root: &Digest) -> Option<Arc<Header>> {
        self.memory().recent.iter().rev().find(|header| header.state_root == *state_root).cloned()
    }

    /// A recent header by its hash.
    pub(crate) fn header_of(&self, hash: &Digest) -> Option<Arc<Header>> {
        self.memory().recent.iter().rev().find(|header| header.hash() == *hash).cloned()
    }

    /// Remembers a header so that its state can be recognised.
    pub(crate) fn remember(&self, header: Arc<Header>) {
        let recent = &mut self.memory().recent;
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(header);
    }

    /// Keeps what executing a block yielded until it is final or overtaken.
    fn keep(&self, header: &Header, hash: Digest, transactions: Vec<L::Transaction>, outcome: L::Outcome) {
        self.remember(Arc::new(header.clone()));
        let executed = Executed {
            parent: header.parent_hash(),
            transactions: transactions.into(),
            outcome: Arc::new(outcome),
        };
        self.memory().executed.insert((header.number, hash), executed);
    }

    /// What executing a block yielded.
    fn outcome(&self, number: u64, hash: Digest) -> Option<Arc<L::Outcome>> {
        self.memory().executed.get(&(number, hash)).map(|executed| executed.outcome.clone())
    }

    /// Forgets what was executed up to a final height: it is the ledger's now, or overtaken.
    fn forget(&self, number: u64) {
        let mut memory = self.memory();
        memory.executed = memory.executed.split_off(&(number + 1, Digest::from([0; 32])));
    }

    /// The transactions of a block and of its ancestors that are not final yet, the oldest block first.
    fn ahead(&self, mut number: u64, mut hash: Digest) -> Vec<Arc<[L::Transaction]>> {
        let memory = self.memory();
        let mut ahead = Vec::new();
        while let Some(executed) = memory.executed.get(&(number, hash)) {
            ahead.push(executed.transactions.clone());
            (number, hash) = (number.saturating_sub(1), executed.parent);
        }
        ahead.reverse();
        ahead
    }

    /// Where a block of this context and height stands; `None` if its leader has no vote in its epoch.
    fn place(&self, context: &BlockContext, number: u64, timestamp_ms: u64) -> Option<Place> {
        let epoch = context.round.epoch().get();
        let set = self.epochs.set(epoch)?;
        Some(Place {
            number,
            timestamp_ms,
            epoch,
            view: context.round.view().get(),
            parent: context.parent.1,
            beacon: Sha256::hash(&[b"surety/beacon", context.parent.1.as_ref()]),
            proposer: set.index(&context.leader)?,
            missed: missed(&set, epoch, context.parent.0.get(), context.round.view().get()),
        })
    }
}

/// Leaders of the views between `parent` and `view`, each once, ascending.
fn missed(set: &ValidatorSet, epoch: u64, parent: u64, view: u64) -> Vec<usize> {
    let elector = elector(set);
    // Leaders take turns, so as many views as there are members name all of them.
    let from = (parent + 1).max(view.saturating_sub(set.members().len() as u64));
    let mut missed: Vec<usize> = (from..view)
        .map(|view| elector.elect(Round::new(Epoch::new(epoch), View::new(view)), ()).get() as usize)
        .collect();
    missed.sort_unstable();
    missed.dedup();
    missed
}

fn elector(
    set: &ValidatorSet,
) -> <Leaders as commonware_consensus::simplex::elector::Config<Scheme>>::Elector {
    <Leaders as commonware_consensus::simplex::elector::Config<Scheme>>::build(
        Leaders::default(),
        &set.keys(),
    )
}

/// Milliseconds since the Unix epoch; zero before it.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

/// Reads through a batch: what is loaded, then what the caches can give without waiting.
struct BatchReader<'a, E: Runtime> {
    batch: &'a Batch<E>,
    loaded: &'a ReadCache,
    fresh: RefCell<ReadCache>,
    failure: RefCell<Option<String>>,
}

impl<E: Runtime> StateReader for BatchReader<'_, E> {
    fn read(&self, key: &StateKey) -> Read<'_> {
        if let known @ Read::Known(_) = self.loaded.read(key) {
            return known;
        }
        let mut fresh = self.fresh.borrow_mut();
        if !fresh.0.contains_key(key) {
            match state::load(self.batch, &[*key], &mut fresh).now_or_never() {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    *self.failure.borrow_mut() = Some(error.to_string());
                    return Read::Unknown;
                }
                None => return Read::Unknown,
            }
        }
        Read::Known(fresh.0.get(key).and_then(Clone::clone).map(Cow::Owned))
    }
}

/// The state before the first block: the genesis writes and nothing else.
struct GenesisReader<'a>(&'a [(StateKey, StateValue)]);

impl StateReader for GenesisReader<'_> {
    fn read(&self, key: &StateKey) -> Read<'_> {
        let found = self.0.binary_search_by(|(other, _)| other.cmp(key)).ok();
        Read::Known(found.map(|index| Cow::Borrowed(self.0[index].1.as_slice())))
    }
}

/// Runs `pass` until everything it needs is loaded.
async fn passes<E: Runtime, T>(
    batch: &Batch<E>,
    loaded: &mut ReadCache,
    hints: &[StateKey],
    mut pass: impl FnMut(&dyn StateReader) -> Result<Step<T>, LawError>,
) -> Result<T, LawError> {
    let corrupt = |error: crate::state::StateError| LawError::Corrupt(error.to_string());
    state::load(batch, hints, loaded).await.map_err(corrupt)?;
    loop {
        let (step, fresh) = {
            let reader = BatchReader {
                batch,
                loaded: &*loaded,
                fresh: RefCell::default(),
                failure: RefCell::default(),
            };
            let step = pass(&reader);
            if let Some(failure) = reader.failure.into_inner() {
                return Err(LawError::Corrupt(failure));
            }
            (step?, reader.fresh.into_inner())
        };
        loaded.0.extend(fresh.0);
        match step {
            Step::Done(result) => return Ok(result),
            Step::Needs(keys) => {
                if keys.iter().all(|key| loaded.0.contains_key(key)) {
                    return Err(LawError::Corrupt("the law asks for what it has".into()));
                }
                state::load(batch, &keys, loaded).await.map_err(corrupt)?;
            }
        }
    }
}

/// A block's state: its root and what else the header commits to.
fn seal_fields<E: Runtime>(sealed: &Sealed<E>) -> (Digest, StateTarget) {
    let range = non_empty_range!(sealed.sync_boundary(), sealed.bounds().tip.size);
    (sealed.root(), StateTarget::new(sealed.ops_root(), range))
}

impl<L: Law> Shared<L> {
    /// Executes a block on its parent's state.
    async fn execute<E: Runtime>(
        &self,
        batch: Batch<E>,
        place: &Place,
        transactions: &[L::Transaction],
    ) -> Result<(L::Outcome, Sealed<E>), LawError> {
        if self.is_first(place.number) {
            return self.begin(batch, place).await;
        }
        let mut loaded = ReadCache::default();
        let hints = self.law.hints(place, transactions);
        let outcome =
            passes(&batch, &mut loaded, &hints, |reader| self.law.execute(reader, place, transactions))
                .await?;
        let sealed = self.seal(batch, &loaded, self.law.effects(&outcome).writes).await?;
        Ok((outcome, sealed))
    }

    /// Whether a block is the first after the genesis.
    fn is_first(&self, number: u64) -> bool {
        number == self.chain.first + 1
    }

    /// Lays the genesis down: the first block carries no transactions and begins the state.
    async fn begin<E: Runtime>(
        &self,
        batch: Batch<E>,
        place: &Place,
    ) -> Result<(L::Outcome, Sealed<E>), LawError> {
        let Step::Done(outcome) = self.law.execute(&GenesisReader(&self.chain.writes), place, &[])? else {
            return Err(LawError::Corrupt("the law asks for more than the genesis holds".into()));
        };
        let mut writes: BTreeMap<StateKey, Option<StateValue>> =
            self.chain.writes.iter().map(|(key, value)| (*key, Some(value.clone()))).collect();
        writes.extend(self.law.effects(&outcome).writes.iter().cloned());
        let writes: Vec<_> = writes.into_iter().filter(|(_, value)| value.is_some()).collect();
        let sealed = self.seal(batch, &ReadCache::default(), &writes).await?;
        Ok((outcome, sealed))
    }

    async fn seal<E: Runtime>(
        &self,
        batch: Batch<E>,
        loaded: &ReadCache,
        writes: &[(StateKey, Option<StateValue>)],
    ) -> Result<Sealed<E>, LawError> {
        let batch = state::write(batch, loaded, writes);
        batch.merkleize().await.map_err(|error| LawError::Corrupt(error.to_string()))
    }

    /// The header of a block with these effects.
    fn header<E: Runtime>(
        &self,
        context: BlockContext,
        place: &Place,
        transactions: &[Bytes],
        outcome: &L::Outcome,
        sealed: &Sealed<E>,
    ) -> Header {
        let effects = self.law.effects(outcome);
        let (state_root, target) = seal_fields(sealed);
        Header {
            context,
            number: place.number,
            timestamp_ms: place.timestamp_ms,
            body_digest: block::body_digest(transactions),
            transactions_root: effects.transactions_root,
            receipts_root: effects.receipts_root,
            gas_used: effects.gas_used,
            state_root,
            operations_root: target.root,
            operations: target.range,
            next_validators: effects.next_validators,
        }
    }

    /// Decodes a block's transactions, from the pool where it knows them.
    fn transactions(&self, block: &Block) -> Result<Vec<L::Transaction>, LawError> {
        block
            .transactions()
            .iter()
            .map(|bytes| self.pool.known(bytes).map_or_else(|| self.law.decode(bytes), Ok))
            .collect()
    }

    /// Judges a block by itself and its parent. `Ok(false)` is permanent.
    async fn judge<E: Runtime>(
        &self,
        runtime: &E,
        block: &Block,
        mut ancestry: impl Ancestry<Block>,
    ) -> Result<bool, &'static str> {
        let header = block.header();
        if self.chain.epoch_of(header.number) != header.epoch() {
            return Err("its height belongs to another epoch");
        }
        if self.chain.is_last(header.number) != header.next_validators.is_some() {
            return Err("it names next validators where it must not, or names none where it must");
        }
        if self.is_first(header.number) && !block.transactions().is_empty() {
            return Err("the first block lays the genesis down and carries no transactions");
        }
        let _ = ancestry.next().await;
        let Some(parent) = ancestry.next().await else { return Ok(false) };
        let parent_ms = parent.inner().header().timestamp_ms;
        let height = block.height().get();
        match clock::judge(height, parent_ms, header.timestamp_ms, milliseconds(runtime.current())) {
            clock::Verdict::Good => Ok(true),
            clock::Verdict::Wrong => Err("its time does not follow its parent's"),
            clock::Verdict::Early(wait_ms) => {
                let wait = Duration::from_millis(wait_ms);
                warn!(
                    number = header.number,
                    wait_ms, "a block's time lies ahead of this clock: one of the two is wrong"
                );
                runtime.sleep(wait.min(EARLY_WAIT_MAX)).await;
                if wait > EARLY_WAIT_MAX {
                    Err("its time lies too far ahead of this clock")
                } else {
                    Ok(true)
                }
            }
        }
    }

    /// Never resolves: this binary may not go on from here. Says so once per block.
    async fn halt<T>(&self, header: &Header, why: &str) -> T {
        error!(number = header.number, why, "stopped after this block");
        self.ledger.halted(header, why);
        futures::future::pending().await
    }
}

impl<E: Runtime, L: Law> stateful::Application<E> for Application<L> {
    type SigningScheme = Scheme;
    type Context = BlockContext;
    type Block = Block;
    type Databases = StateSet<E>;
    type Captured = ();
    type Provider = ();
    type Input = ();

    fn sync_targets(block: &Block) -> StateTarget {
        StateTarget::new(block.header().operations_root, block.header().operations.clone())
    }

    async fn genesis(&mut self) -> Block {
        self.0.genesis.as_ref().clone()
    }

    async fn propose(
        &mut self,
        (runtime, context): (E, BlockContext),
        ancestry: impl Ancestry<Block>,
        batch: <StateSet<E> as DatabaseSet<E>>::Unmerkleized,
        _input: Input<(), ()>,
    ) -> Option<Proposed<Self, E>> {
        let shared = &self.0;
        let mut ancestry = ancestry;
        let parent = ancestry.next().await?;
        let parent_ms = parent.inner().header().timestamp_ms;
        let parent_number = parent.inner().header().number;
        let number = parent_number + 1;
        let timestamp_ms =
            clock::propose(parent.height().get() + 1, parent_ms, milliseconds(runtime.current()));
        let place = shared.place(&context, number, timestamp_ms)?;
        let result = if shared.is_first(number) {
            shared.begin(batch, &place).await.map(|(outcome, sealed)| (Vec::new(), outcome, sealed))
        } else {
            let ahead = shared.ahead(parent_number, parent.digest());
            shared.build::<E>(batch, &place, &ahead).await
        };
        let (chosen, outcome, sealed) = match result {
            Ok(built) => built,
            Err(LawError::Corrupt(error)) => {
                panic!("the state is damaged, stopping rather than voting: {error}")
            }
            Err(LawError::Upgrade(why)) => return shared.halt(parent.inner().header(), &why).await,
            Err(LawError::Invalid(reason)) => {
                error!(number, reason, "could not build a block");
                return None;
            }
        };
        let transactions: Vec<Bytes> = chosen.iter().map(|chosen| shared.law.encoded(chosen)).collect();
        let header = shared.header(context, &place, &transactions, &outcome, &sealed);
        let block = Block::new(shared.chain.first, header, transactions);
        shared.keep(block.header(), block.digest(), chosen, outcome);
        Some(Proposed { block, merkleized: sealed })
    }

    async fn process(
        &mut self,
        (runtime, _): (E, BlockContext),
        ancestry: impl Ancestry<Block>,
        batch: <StateSet<E> as DatabaseSet<E>>::Unmerkleized,
        finality: Finality,
    ) -> Option<<StateSet<E> as DatabaseSet<E>>::Merkleized> {
        let shared = &self.0;
        let block = ancestry.peek()?.clone();
        let (hash, block) = (block.digest(), block.inner_shared());
        let header = block.header();
        let refuse = |reason: &str| {
            warn!(number = header.number, %hash, leader = %header.context.leader, reason, "refused a block");
            None
        };
        if finality == Finality::Candidate {
            match shared.judge(&runtime, &block, ancestry).await {
                Ok(true) => {}
                Ok(false) => return refuse("its parent is not to be had"),
                Err(reason) => return refuse(reason),
            }
        }
        let Some(place) = shared.place(&header.context, header.number, header.timestamp_ms) else {
            return refuse("its leader has no vote in its epoch");
        };
        let result = match shared.transactions(&block) {
            Ok(transactions) => shared
                .execute::<E>(batch, &place, &transactions)
                .await
                .map(|(outcome, sealed)| (transactions, outcome, sealed)),
            Err(error) => Err(error),
        };
        let (transactions, outcome, sealed) = match result {
            Ok(done) => done,
            Err(LawError::Corrupt(error)) => {
                panic!("the state is damaged, stopping rather than voting: {error}")
            }
            Err(LawError::Upgrade(why)) => {
                let parent = shared.header_of(&header.parent_hash());
                return shared.halt(parent.as_deref().unwrap_or(header), &why).await;
            }
            Err(LawError::Invalid(reason)) => return refuse(&reason),
        };
        let expected = shared.header(header.context.clone(), &place, block.transactions(), &outcome, &sealed);
        if expected != *header {
            debug!(?expected, ?header, "what executing yields, what the header says");
            return refuse("executing it does not give what its header commits to");
        }
        shared.keep(header, hash, transactions, outcome);
        Some(sealed)
    }

    async fn capture(
        &mut self,
        _context: (E, BlockContext),
        _block: &Block,
        _sealed: &<StateSet<E> as DatabaseSet<E>>::Merkleized,
        _readers: <StateSet<E> as DatabaseSet<E>>::Readers,
    ) {
    }

    async fn finalized(
        &mut self,
        _context: (E, BlockContext),
        block: &Block,
        _captured: (),
        _readers: <StateSet<E> as DatabaseSet<E>>::Readers,
    ) {
        let shared = &self.0;
        let (number, hash) = (block.header().number, block.digest());
        let certificate = match shared.marshal.get() {
            Some(marshal) => marshal.get_finalization(block.height()).await.map(Certificate),
            None => None,
        };
        if let Some(outcome) = shared.outcome(number, hash) {
            shared.ledger.finalised(&Arc::new(block.clone()), &outcome, certificate.as_ref());
        }
        // Only now: a proposal meanwhile must learn of the block's transactions from one of the two.
        shared.forget(number);
        shared.tip.send_replace(Some(Arc::new(block.header().clone())));
    }
}

impl<L: Law> Shared<L> {
    /// Builds a block on the parent's state from what the pool offers.
    async fn build<E: Runtime>(
        &self,
        batch: Batch<E>,
        place: &Place,
        ahead: &[Arc<[L::Transaction]>],
    ) -> Result<(Vec<L::Transaction>, L::Outcome, Sealed<E>), LawError> {
        let bytes_max = self.settings.proposal_bytes_max;
        let mut candidates = self.pool.propose(bytes_max, ahead);
        candidates.truncate(block::TRANSACTIONS_MAX);
        let mut loaded = ReadCache::default();
        let hints = self.law.hints(place, &candidates);
        let Built { chosen, outcome } = passes(&batch, &mut loaded, &hints, |reader| {
            self.law.build(reader, place, &candidates, bytes_max)
        })
        .await?;
        let chosen = chosen.iter().map(|index| candidates[*index].clone()).collect();
        let sealed = self.seal(batch, &loaded, self.law.effects(&outcome).writes).await?;
        Ok((chosen, outcome, sealed))
    }
}
