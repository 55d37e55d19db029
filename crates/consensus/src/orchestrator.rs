//! One voting engine per epoch, one after the other.
//!
//! In:     finalised blocks; votes of epochs this one has not reached.
//! Out:    at an epoch's last block: the next set learnt, its record kept, the old engine stopped, the next one running.
//! Touches: the partitions `<prefix>-votes-<epoch>` (simplex writes them; old ones are removed here) and
//!         `<prefix>-marks-<epoch>`, the vote record.
//! Holds:  at most one engine runs; a key signs only where `ballot` lets it; every epoch is entered through its first
//!         block's parent, finalised by the epoch before.
//! Absent: how an engine agrees (simplex), and what it agrees on (`application`).

use crate::{
    Block, Certificate, Digest, EpochRecord, Evidence, Header, Law, Role, Settings, ValidatorSet, Why,
    application::{Leaders, Marshal, Shared},
    ballot::{self, Journal},
    evidence::Accused,
    roster::{Discovery, Roster},
    runtime::Runtime,
};
use commonware_actor::Feedback;
use commonware_consensus::{
    CertifiableAutomaton, Heightable as _, Relay, Reporter,
    marshal::Update,
    simplex::{
        self, Floor, Plan,
        config::{ForwardPolicy, SkipPolicy},
        scheme::{Namespace, ed25519::Scheme},
        types::{Activity, Attributable as _, Context, Finalization},
    },
    types::{Epoch, Epocher as _, Height, ViewDelta},
};
use commonware_cryptography::{Digested, Digestible as _, Signer as _, certificate::Scheme as _, ed25519};
use commonware_macros::select;
use commonware_p2p::{
    Blocker, Receiver, Sender,
    utils::mux::{Builder as _, MuxHandle, Muxer},
};
use commonware_parallel::Sequential;
use commonware_runtime::{Blob as _, Handle as TaskHandle, buffer::paged::CacheRef};
use commonware_utils::{Acknowledgement as _, NZDuration, acknowledgement::Exact, vec::NonEmptyVec};
use ed25519::PublicKey;
use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

/// Views kept behind the latest final one, for late votes and their evidence.
pub(crate) const VIEWS_RETAINED: ViewDelta = ViewDelta::new(256);
/// How many epochs back journals are looked for, to remove them.
const STALE_EPOCHS: u64 = 16;

/// A finalised block on its way to the orchestrator.
pub(crate) struct Finalised(Digested<Block>, Exact);

/// The orchestrator's place among the marshal's reporters.
#[derive(Clone)]
pub(crate) struct Boundaries(mpsc::UnboundedSender<Finalised>);

impl Boundaries {
    /// A reporter and the queue it fills. The marshal bounds the queue: it awaits acknowledgements.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Finalised>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }
}

impl Reporter for Boundaries {
    type Activity = Update<Block>;

    fn report(&mut self, update: Update<Block>) -> Feedback {
        match update {
            Update::Tip(..) => Feedback::Ok,
            Update::Block(block, acknowledgement) => match self.0.send(Finalised(block, acknowledgement)) {
                Ok(()) => Feedback::Ok,
                Err(_) => Feedback::Closed,
            },
        }
    }
}

/// What a validator signs with, and where it remembers that it did.
#[derive(Clone)]
pub struct Voter {
    /// Its key.
    pub key: ed25519::PrivateKey,
    /// Its memory outside the data directory.
    pub record: Arc<dyn crate::VoteRecord>,
}

/// Everything an epoch's engine is made of.
pub(crate) struct Orchestrator<E: Runtime, L: Law, A, B> {
    pub(crate) runtime: E,
    pub(crate) prefix: String,
    pub(crate) shared: Arc<Shared<L>>,
    pub(crate) voter: Option<Voter>,
    pub(crate) marshal: Marshal,
    pub(crate) roster: Roster,
    pub(crate) application: A,
    pub(crate) blocker: B,
    pub(crate) page_cache: CacheRef,
    pub(crate) buffer: NonZeroUsize,
    pub(crate) floor: Option<Finalization<Scheme, Digest>>,
    pub(crate) role: watch::Sender<Option<(u64, Role)>>,
    pub(crate) boundaries: mpsc::UnboundedReceiver<Finalised>,
}

struct Active {
    epoch: u64,
    engine: TaskHandle<()>,
}

impl Drop for Active {
    fn drop(&mut self) {
        self.engine.abort();
    }
}

struct Roads<S: Sender> {
    votes: MuxHandle<S>,
    certificates: MuxHandle<S>,
    resolver: MuxHandle<S>,
}

impl<E, L, A, B> Orchestrator<E, L, A, B>
where
    E: Runtime,
    L: Law,
    A: CertifiableAutomaton<Context = Context<Digest, PublicKey>, Digest = Digest>
        + Relay<Digest = Digest, PublicKey = PublicKey, Plan = Plan<PublicKey>>
        + Reporter<Activity = Activity<Scheme, Digest>>,
    B: Blocker<PublicKey = PublicKey>,
{
    /// Runs until the runtime stops or a part this one stands on ends.
    pub(crate) async fn run<S, R>(mut self, votes: (S, R), certificates: (S, R), resolver: (S, R))
    where
        S: Sender<PublicKey = PublicKey>,
        R: Receiver<PublicKey = PublicKey>,
    {
        let (mux, vote_road, mut late_votes) =
            Muxer::builder(self.runtime.child("votes"), votes.0, votes.1).with_backup().build();
        mux.start();
        let (mux, certificate_road, mut late_certificates) =
            Muxer::builder(self.runtime.child("certificates"), certificates.0, certificates.1)
                .with_backup()
                .build();
        mux.start();
        let (mux, resolver_road) = Muxer::new(self.runtime.child("resolver"), resolver.0, resolver.1);
        mux.start();
        let mut roads = Roads { votes: vote_road, certificates: certificate_road, resolver: resolver_road };

        let (epoch, floor, begun) = self.resume().await;
        let quiet = epoch == self.shared.chain.first_epoch() && !begun && self.is_quiet().await;
        let Some(mut active) = self.enter(epoch, floor, quiet, &mut roads).await else { return };
        loop {
            select! {
                finalised = self.boundaries.recv() => {
                    let Some(Finalised(block, acknowledgement)) = finalised else { return };
                    let number = block.inner().header().number;
                    if self.shared.chain.is_last(number) && self.shared.chain.epoch_of(number) == active.epoch {
                        match self.hand_over(&block, &mut roads).await {
                            Some(next) => active = next,
                            None => return,
                        }
                    }
                    acknowledgement.acknowledge();
                },
                late = late_votes.recv() => {
                    let Some((epoch, (from, _))) = late else { return };
                    self.behind(active.epoch, epoch, from);
                },
                late = late_certificates.recv() => {
                    let Some((epoch, (from, _))) = late else { return };
                    self.behind(active.epoch, epoch, from);
                },
                ended = &mut active.engine => {
                    warn!(epoch = active.epoch, ?ended, "the voting engine ended");
                    return;
                },
            }
        }
    }

    /// Where this validator goes on: an epoch, the engine's root in it, and whether anything is final here.
    async fn resume(&mut self) -> (u64, Floor<Scheme, Digest>, bool) {
        let chain = &self.shared.chain;
        let processed = self.marshal.get_processed().await.map(|processed| processed.height());
        let epoch =
            processed.map_or(chain.first_epoch(), |height| chain.epoch_of(chain.number_of(height) + 1));
        let begun = processed.is_some_and(|height| height.get() > 0);
        if let Some(floor) = self.floor.take()
            && floor.proposal.round.epoch().get() >= epoch
        {
            return (floor.proposal.round.epoch().get(), Floor::Finalized(floor), true);
        }
        (epoch, Floor::Genesis(self.root_of(epoch).await), begun)
    }

    /// The hash of the block an epoch begins on: the last of the epoch before.
    async fn root_of(&self, epoch: u64) -> Digest {
        let Some(last) = epoch.checked_sub(1).and_then(|before| self.last_of(before)) else {
            return self.shared.genesis.digest();
        };
        loop {
            if let Some(record) = self.roster.get(epoch).await {
                return record.header.hash();
            }
            if let Some(block) = self.marshal.get_block(last).await {
                if let Some(next) = &block.inner().header().next_validators {
                    self.shared.epochs.learn(next.clone());
                }
                return block.digest();
            }
            debug!(epoch, "waiting for the record of this epoch");
            self.runtime.sleep(Duration::from_millis(200)).await;
        }
    }

    /// The height of an epoch's last block; none for an epoch before the chain's first.
    fn last_of(&self, epoch: u64) -> Option<Height> {
        self.shared.chain.epocher().last(Epoch::new(epoch))
    }

    /// Whether a quorum says that nothing is final yet. Asked only by who has no record and could vote.
    async fn is_quiet(&self) -> bool {
        let Some(voter) = &self.voter else { return false };
        let member = self.shared.chain.validators.index(&voter.key.public_key()).is_some();
        if !member || !matches!(voter.record.load(), Ok(None)) {
            return false;
        }
        info!("asking the validators whether the chain has begun");
        matches!(self.roster.discover().await, Some(Discovery { quiet: true, .. }))
    }

    /// A message of a later epoch: its sender can show that this one is over.
    fn behind(&self, ours: u64, theirs: u64, from: PublicKey) {
        if theirs > ours
            && let Some(last) = self.last_of(ours)
        {
            self.marshal.hint_finalized(last, NonEmptyVec::new(from));
        }
    }

    /// An epoch's last block is final: keep its record and enter the next epoch.
    async fn hand_over<S>(&mut self, last: &Digested<Block>, roads: &mut Roads<S>) -> Option<Active>
    where
        S: Sender<PublicKey = PublicKey>,
    {
        let header: &Header = last.inner().header();
        let next = header.next_validators.clone().expect("an epoch's last block names the next validators");
        let epoch = next.epoch();
        self.shared.epochs.learn(next);
        match self.marshal.get_finalization(last.height()).await {
            Some(finalization) if finalization.proposal.payload == last.digest() => {
                self.roster
                    .keep(EpochRecord { header: header.clone(), certificate: Certificate(finalization) })
                    .await;
            }
            // It came here as an ancestor; the roster asks peers for the record.
            _ => debug!(epoch, "no certificate of the epoch's last block yet"),
        }
        self.enter(epoch, Floor::Genesis(last.digest()), false, roads).await
    }

    async fn enter<S>(
        &mut self,
        epoch: u64,
        floor: Floor<Scheme, Digest>,
        quiet: bool,
        roads: &mut Roads<S>,
    ) -> Option<Active>
    where
        S: Sender<PublicKey = PublicKey>,
    {
        let set = self.shared.epochs.set(epoch).expect("an epoch is entered once its validators are known");
        let partition = self.partition(epoch);
        let journal = self.journal(epoch, &partition).await;
        // The data directory remembers the entry before the record outside does: else a crash between them looks like loss.
        self.mark(epoch, ENTERED).await;
        let role = self.role(&set, journal, quiet);
        match &role {
            Role::Voting => info!(epoch, "voting"),
            Role::Observing(why @ (Why::NotAMember | Why::NoKey)) => info!(epoch, %why, "observing"),
            Role::Observing(why) => warn!(epoch, %why, "not voting in this epoch"),
        }
        self.shared.ledger.role(epoch, &role);
        self.role.send_replace(Some((epoch, role.clone())));
        self.remove_stale(epoch).await;

        let namespace = &self.shared.chain.namespace;
        let scheme = match (&self.voter, &role) {
            (Some(voter), Role::Voting) => set.signer(namespace, voter.key.clone()),
            (Some(voter), Role::Observing(_)) => {
                Scheme::member(namespace, set.keys(), &voter.key.public_key())
            }
            (None, _) => None,
        };
        let scheme = scheme.unwrap_or_else(|| set.verifier(namespace));
        let settings: &Settings = &self.shared.settings;
        let engine = simplex::Engine::new(
            self.runtime.child("engine").with_attribute("epoch", epoch),
            simplex::Config {
                reporter: Witness {
                    inner: self.application.clone(),
                    scheme: scheme.clone(),
                    namespace: Arc::new(Namespace::new(namespace)),
                    accused: Arc::default(),
                    shared: self.shared.clone(),
                    voted: Arc::new(FirstVote {
                        seen: AtomicBool::new(false),
                        runtime: self.runtime.child("marks"),
                        partition: self.marks(epoch),
                    }),
                },
                scheme,
                elector: Leaders::default(),
                blocker: self.blocker.clone(),
                automaton: self.application.clone(),
                relay: self.application.clone(),
                strategy: Sequential,
                partition,
                mailbox_size: crate::engine::MAILBOX,
                epoch: Epoch::new(epoch),
                floor,
                replay_buffer: self.buffer,
                write_buffer: self.buffer,
                page_cache: self.page_cache.clone(),
                leader_timeout: settings.leader_timeout,
                certification_timeout: settings.certification_timeout,
                timeout_retry: settings.retry,
                view_retention: VIEWS_RETAINED,
                skip: SkipPolicy::Enabled {
                    timeout: settings.skip_after,
                    budget: simplex::SkipBudget::Participants,
                },
                fetch_timeout: NZDuration!(settings.fetch_timeout),
                fetch_retry_delay: settings.retry,
                forward: ForwardPolicy::Disabled,
                track_historical_votes: true,
            },
        );
        let votes = roads.votes.register(epoch).await.ok()?;
        let certificates = roads.certificates.register(epoch).await.ok()?;
        let resolver = roads.resolver.register(epoch).await.ok()?;
        Some(Active { epoch, engine: engine.start(votes, certificates, resolver) })
    }

    fn role(&self, set: &ValidatorSet, journal: Journal, quiet: bool) -> Role {
        let Some(voter) = &self.voter else { return Role::Observing(Why::NoKey) };
        if set.index(&voter.key.public_key()).is_some() {
            return ballot::enter(voter.record.as_ref(), set.epoch(), journal, quiet);
        }
        match ballot::attend(voter.record.as_ref(), set.epoch()) {
            Ok(()) => Role::Observing(Why::NotAMember),
            Err(error) => Role::Observing(Why::Record(error.to_string())),
        }
    }

    fn partition(&self, epoch: u64) -> String {
        format!("{}-votes-{epoch}", self.prefix)
    }

    fn marks(&self, epoch: u64) -> String {
        format!("{}-marks-{epoch}", self.prefix)
    }

    async fn mark(&self, epoch: u64, name: &[u8]) {
        mark(&self.runtime, &self.marks(epoch), name).await;
    }

    /// What is left of an epoch's journal here.
    async fn journal(&self, epoch: u64, partition: &str) -> Journal {
        if self.runtime.scan(partition).await.is_ok_and(|blobs| !blobs.is_empty()) {
            return Journal::Kept;
        }
        let marks = self.runtime.scan(&self.marks(epoch)).await.unwrap_or_default();
        let has = |name: &[u8]| marks.iter().any(|mark| mark == name);
        if has(ENTERED) && !has(VOTED) { Journal::Unused } else { Journal::Missing }
    }

    /// Removes journals of epochs that are over. The one before is kept, in case the state rolls back over the boundary.
    async fn remove_stale(&self, epoch: u64) {
        for stale in epoch.saturating_sub(STALE_EPOCHS)..epoch.saturating_sub(1) {
            // Most are gone already.
            let _ = self.runtime.remove(&self.partition(stale), None).await;
            let _ = self.runtime.remove(&self.marks(stale), None).await;
        }
    }
}

/// Marks beside an epoch's journal: that the epoch was entered here, and that something was signed in it.
const ENTERED: &[u8] = b"entered";
const VOTED: &[u8] = b"voted";

/// Leaves an empty blob, durably once this returns.
async fn mark<E: Runtime>(runtime: &E, partition: &str, name: &[u8]) {
    let (blob, _) = runtime.open(partition, name).await.expect("the data directory takes a mark");
    blob.sync().await.expect("the data directory keeps a mark");
}

/// Whether this validator has signed in an epoch; leaves a mark the first time.
struct FirstVote<E> {
    seen: AtomicBool,
    runtime: E,
    partition: String,
}

impl<E: Runtime> FirstVote<E> {
    /// Votes are reported once the journal holds them.
    fn notice(&self, activity: &Activity<Scheme, Digest>, scheme: &Scheme) {
        let signer = match activity {
            Activity::Notarize(vote) => vote.signer(),
            Activity::Nullify(vote) => vote.signer(),
            Activity::Finalize(vote) => vote.signer(),
            _ => return,
        };
        let mine = scheme.me().is_some_and(|me| me.signer() == Some(signer));
        if mine && !self.seen.swap(true, Ordering::Relaxed) {
            let partition = self.partition.clone();
            self.runtime
                .child("voted")
                .spawn(move |runtime| async move { mark(&runtime, &partition, VOTED).await });
        }
    }
}

/// Passes consensus activity on, and equivocation to the pool.
struct Witness<E, A, L: Law> {
    inner: A,
    scheme: Scheme,
    namespace: Arc<Namespace>,
    accused: Arc<Mutex<Accused>>,
    shared: Arc<Shared<L>>,
    voted: Arc<FirstVote<E>>,
}

impl<E, A: Clone, L: Law> Clone for Witness<E, A, L> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            scheme: self.scheme.clone(),
            namespace: self.namespace.clone(),
            accused: self.accused.clone(),
            shared: self.shared.clone(),
            voted: self.voted.clone(),
        }
    }
}

impl<E, A, L> Reporter for Witness<E, A, L>
where
    E: Runtime,
    A: Reporter<Activity = Activity<Scheme, Digest>>,
    L: Law,
{
    type Activity = Activity<Scheme, Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        self.voted.notice(&activity, &self.scheme);
        if let Some(evidence) = Evidence::of(&activity, &self.scheme, &self.namespace)
            && self.accused.lock().unwrap_or_else(PoisonError::into_inner).accuse(&evidence)
        {
            warn!(key = %evidence.key, epoch = evidence.epoch, view = evidence.view, "a validator equivocated");
            self.shared.pool.evidence(evidence);
        }
        self.inner.report(activity)
    }
}
