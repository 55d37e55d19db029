//! The whole validator below its mempool and RPC, wired once for every runtime.
//!
//! In:     a chain, a law, a voter or none; a runtime, a network's channels, its peers.
//! Out:    a running engine and a handle to it.
//! Touches: the runtime's storage under its prefix; the network.
//! Holds:  the real and the simulated validator are this same code.
//! Absent: sockets and threads (`node`).

use crate::{
    Block, Chain, ChainError, Digest, Handle, Law, Ledger, MEMBERS_MAX, Pool, PublicKey, Settings,
    SettingsError, Voter,
    application::{Application, Marshal},
    epochs::Epochs,
    handle::{DESK, Desk, Request},
    orchestrator::{Boundaries, Orchestrator, VIEWS_RETAINED},
    pace::Paced,
    roster::{self, Roster},
    runtime::Runtime,
    settings::STATE_RETAINED_BLOCKS,
    state::{self, Family, StateDb, StateOperation, StateSet},
};
use bytes::Bytes;
use commonware_broadcast::buffered;
use commonware_codec::FixedSize as _;
use commonware_consensus::{
    Reporters,
    marshal::{
        self,
        core::Actor as MarshalActor,
        resolver::p2p as marshal_resolver,
        standard::{Deferred, Standard},
    },
    simplex::{self, scheme::ed25519::Scheme},
};
use commonware_cryptography::{Digested, Digestible as _, Signer as _};
use commonware_glue::stateful::{
    Config as StatefulConfig, PruneConfig, Stateful, SyncPlan,
    db::{DatabaseSet, SyncEngineConfig, p2p as state_resolver},
};
use commonware_macros::select;
use commonware_p2p::{
    Blocker, Provider, Receiver, Recipients, Sender, max_message_size, utils::mux::prefixed,
};
use commonware_parallel::Sequential;
use commonware_runtime::{Handle as TaskHandle, buffer::paged::CacheRef};
use commonware_storage::{archive::prunable, translator::EightCap};
use commonware_utils::{NZDuration, NZU16, NZU64, NZUsize};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tracing::info;

/// Messages an actor holds before it pushes back.
pub(crate) const MAILBOX: NonZeroUsize = NZUsize!(1_024);
/// The longest gossip message.
pub const GOSSIP_BYTES_MAX: usize = 256 << 10;
/// Gossip messages waiting to be sent.
const GOSSIP_QUEUE: usize = 1_024;
/// State operations one sync message carries.
const SYNC_OPERATIONS: NonZeroU64 = NZU64!(2_048);
/// How many channels a validator's network has.
pub const CHANNELS: usize = 8;

/// A validator's channels, each its own traffic.
pub struct Channels<S, R> {
    /// Votes, per epoch.
    pub votes: (S, R),
    /// Certificates, per epoch.
    pub certificates: (S, R),
    /// Missing certificates, per epoch.
    pub resolver: (S, R),
    /// Missing blocks.
    pub backfill: (S, R),
    /// New blocks.
    pub blocks: (S, R),
    /// State sync.
    pub state: (S, R),
    /// Epoch records and the latest certificate.
    pub roster: (S, R),
    /// Whatever the validator gossips.
    pub gossip: (S, R),
}

impl<S, R> Channels<S, R> {
    /// Channels in their order: the one a network registers them in.
    pub fn from_pairs(pairs: [(S, R); CHANNELS]) -> Self {
        let [votes, certificates, resolver, backfill, blocks, state, roster, gossip] = pairs;
        Self { votes, certificates, resolver, backfill, blocks, state, roster, gossip }
    }
}

/// What a validator or follower is to do.
pub struct Duty<L: Law> {
    /// The chain.
    pub chain: Chain,
    /// How to run.
    pub settings: Settings,
    /// What transactions do.
    pub law: L,
    /// What to propose, and where gossip and evidence go.
    pub pool: Arc<dyn Pool<L::Transaction>>,
    /// Who is told of finalised blocks.
    pub ledger: Arc<dyn Ledger<L::Outcome>>,
    /// The key to vote with; none for a follower.
    pub voter: Option<Voter>,
    /// This one's identity in the network: the voter's key, or a follower's.
    pub me: PublicKey,
    /// Fetch the state instead of executing from genesis, if nothing is there yet.
    pub state_sync: bool,
    /// What its partitions are called by.
    pub prefix: String,
}

/// Why an engine does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DutyError {
    /// The chain cannot begin so.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The settings cannot work.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Votes are signed with the key one connects with.
    #[error("a voter's identity is its voting key")]
    Identity,
}

/// The longest payload a validator sends on any channel: what its network must admit.
pub fn message_bytes_max() -> u32 {
    let members = MEMBERS_MAX as u32;
    max_message_size(&[
        prefixed(simplex::max_payload_size::<Scheme, Digest>(members)),
        marshal::max_payload_size::<Standard<Block>, Scheme>(members, &0),
        state_resolver::max_payload_size::<Family, Digest>(SYNC_OPERATIONS, StateOperation::SIZE),
        roster::message_bytes_max(),
        GOSSIP_BYTES_MAX,
    ])
}

/// Starts an engine. Its task ends when a part of it does; aborting the task ends every part.
pub fn start<E, P, B, S, R, L>(
    runtime: E,
    channels: Channels<S, R>,
    peers: P,
    blocker: B,
    duty: Duty<L>,
) -> Result<(TaskHandle<()>, Handle), DutyError>
where
    E: Runtime,
    P: Provider<PublicKey = PublicKey> + Sync,
    B: Blocker<PublicKey = PublicKey> + Sync,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    L: Law,
{
    duty.chain.check()?;
    duty.settings.check()?;
    if duty.voter.as_ref().is_some_and(|voter| voter.key.public_key() != duty.me) {
        return Err(DutyError::Identity);
    }
    let target = StateSet::<E>::initial_sync_targets();
    let genesis = Arc::new(Block::genesis(
        (duty.chain.first, duty.chain.first_epoch()),
        duty.chain.document,
        duty.chain.timestamp_ms,
        duty.chain.validators.members()[0].key.clone(),
        target.root,
        target.range,
    ));
    let epochs = Epochs::new(&duty.chain.namespace, duty.chain.validators.clone());
    let application = Application::new(
        duty.chain.clone(),
        duty.settings.clone(),
        duty.law.clone(),
        duty.pool.clone(),
        duty.ledger.clone(),
        epochs.clone(),
        genesis.clone(),
    );
    let (desk, requests) = mpsc::channel(DESK);
    let (gossip, outbound) = mpsc::channel(GOSSIP_QUEUE);
    let (role, role_receiver) = watch::channel(None);
    let handle = Handle { desk, gossip, tip: application.shared().tip.subscribe(), role: role_receiver };
    let parts = Parts { application, epochs, genesis, requests, outbound, role, handle: handle.clone() };
    let task = runtime.spawn(move |runtime| run(runtime, channels, peers, blocker, duty, parts));
    Ok((task, handle))
}

/// What `start` made and `run` wires.
struct Parts<L: Law> {
    application: Application<L>,
    epochs: Epochs,
    genesis: Arc<Block>,
    requests: mpsc::Receiver<Request>,
    outbound: mpsc::Receiver<Bytes>,
    role: watch::Sender<Option<(u64, crate::Role)>>,
    /// Held so that the queues stay open when every other handle is gone.
    handle: Handle,
}

async fn run<E, P, B, S, R, L>(
    runtime: E,
    channels: Channels<S, R>,
    peers: P,
    blocker: B,
    duty: Duty<L>,
    parts: Parts<L>,
) where
    E: Runtime,
    P: Provider<PublicKey = PublicKey> + Sync,
    B: Blocker<PublicKey = PublicKey> + Sync,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    L: Law,
{
    let Duty { chain, settings, pool, voter, me, state_sync, prefix, .. } = duty;
    let Parts { application, epochs, genesis, requests, outbound, role, handle: _handle } = parts;
    let shared = application.shared().clone();
    let buffer = NonZeroUsize::new(settings.buffer_bytes).expect("checked");
    let pages = NonZeroUsize::new(settings.cached_pages).expect("checked");
    let page_cache = CacheRef::new(NZU16!(8_192), pages);
    let (epocher, first) = (chain.epocher(), chain.first);
    let fetch_timeout = NZDuration!(settings.fetch_timeout);
    let fetch_retry_delay = Duration::from_millis(100);

    // Who votes when: needed before anything can be verified.
    let roster = Roster::start(
        runtime.child("roster"),
        &prefix,
        epochs.clone(),
        voter.as_ref().map(|voter| voter.key.public_key()),
        page_cache.clone(),
        buffer,
        channels.roster,
    )
    .await;

    // Where to begin: what is here, or a recent block of the network.
    let mut plan = SyncPlan::init(runtime.child("plan"), format!("{prefix}-")).await;
    if plan.should_sync(state_sync) && plan.floor().is_none() {
        let Some(discovery) = roster.discover().await else { return };
        if let Some(latest) = discovery.latest {
            info!(
                epoch = latest.epoch(),
                view = latest.view(),
                "fetching the state of the network's latest block"
            );
            plan = plan.set_floor(latest.0).await;
        }
    }
    let floor = plan.floor().cloned();

    // Blocks: dissemination, order, history.
    let resolver = marshal_resolver::init(
        runtime.child("backfill"),
        marshal_resolver::Config {
            public_key: me.clone(),
            peer_provider: peers.clone(),
            blocker: blocker.clone(),
            mailbox_size: MAILBOX,
            fetch_timeout,
            fetch_retry_delay,
            priority_requests: false,
            priority_responses: false,
        },
        channels.backfill,
    );
    let (dissemination, blocks) = buffered::Engine::new(
        runtime.child("dissemination"),
        buffered::Config {
            public_key: me.clone(),
            mailbox_size: MAILBOX,
            deque_size: 10,
            priority: false,
            codec_config: first,
            peer_provider: peers.clone(),
            strategy: Sequential,
        },
    );
    dissemination.start(channels.blocks);
    let archive = |name| archive_config(&prefix, name, page_cache.clone(), buffer);
    let certificates =
        prunable::Archive::init(runtime.child("certificates"), archive("certificates").with(MEMBERS_MAX))
            .await
            .expect("the archive of certificates opens");
    let history = prunable::Archive::init(runtime.child("blocks"), archive("blocks").with(first))
        .await
        .expect("the archive of blocks opens");
    let digest = genesis.digest();
    let (marshal_actor, marshal, durable) = MarshalActor::<_, Standard<Block>, _, _, _, _, _>::init(
        runtime.child("marshal"),
        certificates,
        history,
        marshal::Config {
            provider: epochs.clone(),
            epocher: epocher.clone(),
            start: plan.marshal_start(Digested::precomputed(genesis.clone(), digest)),
            partition_prefix: format!("{prefix}-marshal"),
            mailbox_size: MAILBOX,
            view_retention: VIEWS_RETAINED,
            prunable_items_per_section: NZU64!(1_024),
            page_cache: page_cache.clone(),
            replay_buffer: buffer,
            key_write_buffer: buffer,
            value_write_buffer: buffer,
            block_codec_config: first,
            max_repair: NZUsize!(200),
            max_pending_acks: NZUsize!(16),
            strategy: Sequential,
        },
    )
    .await;
    let marshal: Marshal = marshal;
    let _ = shared.marshal.set(marshal.clone());

    // State: fetched from peers or executed, served to peers.
    let (state_actor, state_source) = state_resolver::Actor::<_, PublicKey, _, _, Family, StateDb<E>>::new(
        runtime.child("state_resolver"),
        state_resolver::Config {
            peer_provider: peers,
            blocker: blocker.clone(),
            database: None,
            mailbox_size: MAILBOX,
            me: Some(me.clone()),
            fetch_timeout,
            fetch_retry_delay,
            max_serve_ops: SYNC_OPERATIONS,
            priority_requests: false,
            priority_responses: false,
        },
    );
    state_actor.start(channels.state);
    let (stateful, state_mailbox) = Stateful::new(
        runtime.child("stateful"),
        StatefulConfig {
            application,
            db_config: state::config(&prefix, page_cache.clone(), buffer),
            provider: (),
            marshal: (marshal.clone(), durable),
            mailbox_size: MAILBOX,
            plan,
            resolvers: state_source,
            sync_config: SyncEngineConfig {
                fetch_batch_size: SYNC_OPERATIONS,
                apply_batch_size: NZU64!(4_096),
                max_outstanding_requests: NZUsize!(8),
            },
            prune_config: Some(PruneConfig {
                maintenance_interval: NonZeroUsize::new(settings.prune_every).expect("checked"),
                retained_marshal_blocks: settings.retained_blocks,
                retained_qmdb_blocks: STATE_RETAINED_BLOCKS,
            }),
            strategy: Sequential,
        },
    );
    let deferred = Deferred::new(runtime.child("deferred"), state_mailbox.clone(), marshal.clone(), epocher);
    let paced = Paced::new(runtime.child("paced"), deferred, shared.clone());
    let (boundaries, boundary_queue) = Boundaries::new();
    let marshal_task =
        marshal_actor.start(Reporters::from((state_mailbox.clone(), boundaries)), blocks, resolver);
    roster.attach(marshal.clone()).await;
    let stateful_task = stateful.start();

    // Votes, epoch after epoch.
    let orchestrator = Orchestrator {
        runtime: runtime.child("orchestrator"),
        prefix,
        shared: shared.clone(),
        voter,
        marshal: marshal.clone(),
        roster: roster.clone(),
        application: paced,
        blocker,
        page_cache,
        buffer,
        floor,
        role,
        boundaries: boundary_queue,
    };
    let orchestrator_task = runtime
        .child("orchestrator_task")
        .spawn(move |_| orchestrator.run(channels.votes, channels.certificates, channels.resolver));
    let gossip_task = runtime.child("gossip").spawn(move |_| gossip(channels.gossip, outbound, pool));
    let desk_task = runtime.child("desk").spawn(move |_| async move {
        let databases = state_mailbox.subscribe_databases().await;
        if shared.tip.borrow().is_none()
            && let Some((_, block)) = marshal.get_anchor().await
        {
            let header = Arc::new(block.inner().header().clone());
            shared.remember(header.clone());
            shared.tip.send_if_modified(|tip| {
                let first = tip.is_none();
                if first {
                    *tip = Some(header);
                }
                first
            });
        }
        Desk { shared, databases, marshal, roster }.run(requests).await;
    });

    // When one part ends, all do: dropping this task ends its children.
    select! {
        _ = marshal_task => {},
        _ = stateful_task => {},
        _ = orchestrator_task => {},
        _ = gossip_task => {},
        _ = desk_task => {},
    }
}

/// Sends what the validator gossips and hands over what others do.
async fn gossip<S, R, T>(network: (S, R), mut outbound: mpsc::Receiver<Bytes>, pool: Arc<dyn Pool<T>>)
where
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
    T: 'static,
{
    let (mut sender, mut receiver) = network;
    loop {
        select! {
            message = outbound.recv() => match message {
                Some(message) => drop(sender.send(Recipients::All, message, false)),
                None => return,
            },
            message = receiver.recv() => match message {
                Ok((from, message)) => pool.received(&from, message.into()),
                Err(_) => return,
            },
        }
    }
}

/// An archive's configuration but for its codec's.
struct ArchiveConfig {
    prefix: String,
    page_cache: CacheRef,
    buffer: NonZeroUsize,
}

fn archive_config(prefix: &str, name: &str, page_cache: CacheRef, buffer: NonZeroUsize) -> ArchiveConfig {
    ArchiveConfig { prefix: format!("{prefix}-{name}"), page_cache, buffer }
}

impl ArchiveConfig {
    fn with<C>(self, codec_config: C) -> prunable::Config<EightCap, C> {
        let Self { prefix, page_cache, buffer } = self;
        prunable::Config {
            translator: EightCap,
            metadata_partition: format!("{prefix}-metadata"),
            key_partition: format!("{prefix}-keys"),
            key_page_cache: page_cache,
            value_partition: format!("{prefix}-values"),
            compression: None,
            codec_config,
            items_per_section: NZU64!(1_024),
            key_write_buffer: buffer,
            value_write_buffer: buffer,
            replay_buffer: buffer,
        }
    }
}
