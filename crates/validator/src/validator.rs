//! The role, put together: consensus, pool, indexes, RPC, gossip and metrics.
//!
//! In:     settings.
//! Out:    a running validator or follower.
//! Touches: everything below it; the clock, for pauses only.
//! Holds:  what cannot go on stops whole and says why; what is stopped ends in order: RPC, consensus, indexes.

use std::{
    fs::File,
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use alloy_primitives::{B256, Bytes};
use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use surety_chain::{Genesis, StateKey};
use surety_consensus::{
    Chain, EvmLaw, ExportError, GOSSIP_BYTES_MAX, GenesisChainError, Handle, Header, KEYS_MAX, Node,
    NodeSettings, Peer, Provenance, Settings, private_key, public_key,
};
use surety_types::{PublicKey, SecretKey};
use tokio::{
    runtime::Handle as Runtime,
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, warn};

use crate::{
    SOFTWARE,
    desk::{EVIDENCE_WAITING_MAX, Follower, GOSSIP_WAITING_MAX, Known, Proposals, tip_of},
    evidence::{self, Reporter},
    indexes::{IndexSettings, IndexWriter, Indexes, OpenIndexesError},
    ledger::{Duty, EpochRecord, Ledger, LedgerStatus, Proved, Unavailable, Values, View},
    mempool::{PoolLimits, Terms},
    metrics::Metrics,
    pool::{Pool, Spread},
    rpc::{RpcServer, RpcSettings, Services},
};

/// Transactions to peers that wait to be sent.
const OUTGOING_MAX: usize = 16_384;
/// Between two batches to peers.
const GOSSIP_PAUSE: Duration = Duration::from_millis(5);
/// Transactions in one message.
const GOSSIP_BATCH_MAX: usize = 2_048;
/// Messages from peers that are looked at at once.
const GOSSIP_TASKS_MAX: usize = 8;
/// How long everything may take to end.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Between two looks at whether everything final is executed.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at the metrics of `consensus`.
const METRICS_PAUSE: Duration = Duration::from_secs(2);

/// How a validator runs.
#[derive(Clone)]
pub struct ValidatorSettings {
    /// Where it keeps everything but the vote record.
    pub data_dir: PathBuf,
    /// The chain.
    pub genesis: Genesis,
    /// The exported state it goes on from, if the genesis names one.
    pub state: Option<PathBuf>,
    /// Its key: it connects, and if it votes votes, with it.
    pub key: SecretKey,
    /// Where it remembers what it voted in, outside `data_dir`; none for a follower.
    pub vote_record: Option<PathBuf>,
    /// Where peers reach it.
    pub listen: SocketAddr,
    /// Whom it knows.
    pub peers: Vec<KnownPeer>,
    /// Whether to take the state over from peers if nothing is here yet.
    pub state_sync: bool,
    /// Threads of `consensus`.
    pub threads: usize,
    /// How RPC is served.
    pub rpc: RpcSettings,
    /// Bounds of the pool.
    pub pool: PoolLimits,
    /// What is kept of old blocks.
    pub indexes: IndexSettings,
    /// Calls that are executed at once for RPC.
    pub calls_max: usize,
    /// The account that reports conflicting votes, and is paid the bounty for it.
    pub reporter: Option<Reporter>,
    /// What runs here, as an upgrade of the chain names it.
    pub release: Release,
}

/// What runs here: at an upgrade's height the chain goes on only with what the upgrade names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The version.
    pub version: String,
    /// SHA-256 of the program; none if it cannot be read, and then an upgrade that names programs is not passed.
    pub program: Option<B256>,
}

impl Release {
    /// Of the program that is running.
    pub fn running() -> Self {
        let program = std::env::current_exe().and_then(|path| sha256_of(&path));
        let program = program.inspect_err(|error| {
            warn!(%error, "this program's own file cannot be read: an upgrade that names programs would stop it");
        });
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), program: program.ok() }
    }
}

/// The digest of a file, however long.
fn sha256_of(path: &Path) -> std::io::Result<B256> {
    let (mut file, mut hasher, mut block) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(B256::from(<[u8; 32]>::from(hasher.finalize()))),
            length => hasher.update(&block[..length]),
        }
    }
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its key.
    pub key: PublicKey,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it only follows.
    pub follower: bool,
}

/// Why a validator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its data directory cannot be made.
    #[error("cannot make {}", path.display())]
    Folder {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The genesis begins no chain.
    #[error("the genesis is not sound")]
    Genesis(#[from] GenesisChainError),
    /// The state it goes on from.
    #[error("the exported state {} cannot be used", path.display())]
    State {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ExportError,
    },
    /// A key is no key.
    #[error("{0} is no ed25519 public key")]
    Key(PublicKey),
    /// The indexes.
    #[error("the indexes cannot be opened")]
    Indexes(#[from] OpenIndexesError),
    /// Consensus.
    #[error("consensus did not start")]
    Consensus(#[from] surety_consensus::StartError),
    /// RPC.
    #[error("cannot serve RPC on {listen}")]
    Rpc {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Folder { .. } => "check that the data directory's folder exists and is writable",
            Self::Genesis(GenesisChainError::Export(error)) => return error.hint(),
            Self::State { source, .. } => return source.hint(),
            Self::Genesis(_) => "the causes name what is wrong with the genesis file",
            Self::Key(_) => "compare the key with what `surety validator init` printed on that machine",
            Self::Indexes(error) => error.hint(),
            Self::Rpc { .. } => {
                "another program listens there, perhaps another validator: choose another RPC address"
            }
            Self::Consensus(_) => return None,
        })
    }
}

/// A running validator.
pub struct Validator {
    node: Arc<Node>,
    handle: Handle,
    provenance: Provenance,
    rpc: RpcServer,
    tasks: JoinSet<()>,
    writer: IndexWriter,
    failures: mpsc::Receiver<String>,
    genesis: B256,
}

impl Validator {
    /// Starts one.
    pub async fn start(settings: ValidatorSettings) -> Result<Self, StartError> {
        let data_dir = &settings.data_dir;
        std::fs::create_dir_all(data_dir)
            .map_err(|source| StartError::Folder { path: data_dir.clone(), source })?;
        let chain = chain_of(&settings)?;
        let genesis = B256::from(chain.document.0);
        let provenance = Provenance::of_genesis(&settings.genesis, genesis);
        let spec = settings.genesis.spec();
        let params = settings.genesis.params.clone();
        let metrics = Arc::new(Metrics::default());
        let pool = Arc::new(Pool::new(settings.pool, Terms::new(spec.chain_id, &params)));
        let known = Arc::new(Known::new(params));
        known.learn(&chain.validators);
        let (indexes, writer) = Indexes::open(data_dir, genesis, settings.indexes)?;

        let (gossip, gossip_in) = mpsc::channel(GOSSIP_WAITING_MAX);
        let (evidence, evidence_in) = mpsc::channel(EVIDENCE_WAITING_MAX);
        let (failure, failures) = mpsc::channel(1);
        let proposals = Proposals {
            pool: Arc::clone(&pool),
            known: Arc::clone(&known),
            metrics: Arc::clone(&metrics),
            gossip,
            evidence,
        };
        let follower = Follower {
            indexes: indexes.clone(),
            pool: Arc::clone(&pool),
            known: Arc::clone(&known),
            metrics: Arc::clone(&metrics),
            runtime: Runtime::current(),
            chain_id: spec.chain_id,
            genesis_number: settings.genesis.first_block(),
            genesis_timestamp_ms: settings.genesis.timestamp_ms,
            failure: failure.clone(),
        };
        let law = EvmLaw::new(spec, settings.release.version.clone(), settings.release.program);
        let node_settings = node_settings(&settings)?;
        let started = tokio::task::spawn_blocking(move || {
            Node::start(node_settings, chain, law, Arc::new(proposals), Arc::new(follower))
        });
        let (node, handle) = started.await.map_err(|_| surety_consensus::StartError::Thread)??;
        let node = Arc::new(node);

        let mut tasks = JoinSet::new();
        let (outgoing, outgoing_in) = mpsc::channel(OUTGOING_MAX);
        tasks.spawn(send_gossip(handle.clone(), outgoing_in));
        let ledger =
            Arc::new(Consensus { handle: handle.clone(), outgoing, peers: settings.peers.len() as u64 });
        let view = View::new(spec, ledger, settings.calls_max);
        tasks.spawn(receive_gossip(gossip_in, Arc::clone(&pool), view.clone(), Arc::clone(&metrics)));
        tasks.spawn(learn(handle.clone(), view.clone(), Arc::clone(&known), Arc::clone(&pool)));
        tasks.spawn(evidence::report(
            evidence_in,
            settings.reporter.clone(),
            Arc::clone(&pool),
            view.clone(),
        ));
        tasks.spawn(watch(Arc::clone(&node), failure));
        let more = Arc::new(RwLock::new("# EOF\n".to_owned()));
        tasks.spawn(collect_metrics(Arc::clone(&node), Arc::clone(&more)));
        let more_metrics = move || more.read().unwrap_or_else(PoisonError::into_inner).clone();

        let listen = settings.rpc.listen;
        let services =
            Services::new(indexes, pool, view, genesis, metrics, more_metrics, settings.rpc.limits);
        let rpc = RpcServer::start(settings.rpc, services)
            .await
            .map_err(|source| StartError::Rpc { listen, source })?;
        Ok(Self { node, handle, provenance, rpc, tasks, writer, failures, genesis })
    }

    /// Where RPC is served.
    pub fn rpc_address(&self) -> SocketAddr {
        self.rpc.address()
    }

    /// The digest of the genesis document.
    pub fn genesis(&self) -> B256 {
        self.genesis
    }

    /// Writes the state after the last final block that is here, for a chain that is to go on from it. Returns the file's
    /// digest and the block.
    pub async fn export(
        &self,
        file: &mut (impl std::io::Write + Send),
        progress: impl FnMut(usize) + Send,
    ) -> Result<(B256, Arc<Header>), ExportError> {
        while !self.handle.is_settled().await {
            if !self.node.is_running() {
                return Err(surety_consensus::Unavailable::Stopped.into());
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        let (digest, header) = self.handle.export(file, &self.provenance, progress).await?;
        Ok((B256::from(digest.0), header))
    }

    /// Resolves, with the reason, when it cannot go on.
    pub async fn failed(&mut self) -> String {
        match self.failures.recv().await {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Stops it: requests that run may end, what is finalised is on the disk.
    pub async fn stop(mut self) {
        self.rpc.stop().await;
        self.tasks.shutdown().await;
        let (node, writer) = (self.node, self.writer);
        let stopped = tokio::task::spawn_blocking(move || {
            // The last owner: the tasks that shared it have ended.
            drop(node);
            writer.join();
        });
        // What is finalised is on the disk already; a reader that will not let go holds nobody up.
        if tokio::time::timeout(STOP_GRACE, stopped).await.is_err() {
            warn!("the validator did not stop in order");
        }
    }
}

/// The chain, with the state it begins with.
fn chain_of(settings: &ValidatorSettings) -> Result<Chain, StartError> {
    let Some(path) = settings.state.as_ref().filter(|_| settings.genesis.origin.is_some()) else {
        return Ok(Chain::of_genesis(&settings.genesis)?);
    };
    let read = || {
        let file = File::open(path)?;
        surety_consensus::import(&mut std::io::BufReader::new(file))
    };
    let exported = read().map_err(|source| StartError::State { path: path.clone(), source })?;
    Ok(Chain::of_export(&settings.genesis, &exported)?)
}

fn node_settings(settings: &ValidatorSettings) -> Result<NodeSettings, StartError> {
    let key = private_key(&settings.key.to_bytes()).ok_or_else(|| StartError::Key(settings.key.public()))?;
    let peers = settings.peers.iter().map(|peer| {
        let key = public_key(&peer.key.0).ok_or(StartError::Key(peer.key))?;
        Ok(Peer { key, address: peer.address, follower: peer.follower })
    });
    let pacing = Duration::from_millis(settings.genesis.params.pace_ms);
    let usual = Settings::default();
    // The timeouts keep their distance where the chain is paced more slowly.
    let extra = pacing.saturating_sub(usual.pacing);
    let engine = Settings {
        pacing,
        leader_timeout: usual.leader_timeout + extra,
        certification_timeout: usual.certification_timeout + 2 * extra,
        skip_after: usual.skip_after + 3 * extra,
        ..usual
    };
    Ok(NodeSettings {
        data_dir: settings.data_dir.join("consensus"),
        listen: settings.listen,
        key,
        vote_record: settings.vote_record.clone(),
        peers: peers.collect::<Result<_, StartError>>()?,
        state_sync: settings.state_sync,
        threads: settings.threads,
        engine,
    })
}

/// The state as `consensus` keeps it.
struct Consensus {
    handle: Handle,
    outgoing: mpsc::Sender<Bytes>,
    peers: u64,
}

fn unavailable(error: impl std::fmt::Display) -> Unavailable {
    Unavailable(error.to_string())
}

impl Ledger for Consensus {
    fn read(&self, keys: Vec<StateKey>) -> BoxFuture<'_, Result<Values, Unavailable>> {
        assert!(keys.len() <= KEYS_MAX, "questions name few keys");
        Box::pin(async move {
            let (header, values) = self.handle.read(keys).await.map_err(unavailable)?;
            Ok(Values { tip: tip_of(&header), values })
        })
    }

    fn prove(&self, keys: Vec<StateKey>) -> BoxFuture<'_, Result<Proved, Unavailable>> {
        Box::pin(async move {
            let (header, proofs) = self.handle.prove(keys).await.map_err(unavailable)?;
            let proofs = proofs.iter().map(|proof| Bytes::from(proof.to_bytes())).collect();
            Ok(Proved { header: header.to_bytes().into(), number: header.number, proofs })
        })
    }

    fn epoch(&self, epoch: u64) -> BoxFuture<'_, Result<Option<EpochRecord>, Unavailable>> {
        Box::pin(async move {
            let record = self.handle.epoch(epoch).await;
            Ok(record.map(|record| EpochRecord {
                header: record.header.to_bytes().into(),
                certificate: record.certificate.to_bytes().into(),
            }))
        })
    }

    fn status(&self) -> LedgerStatus {
        let status = self.handle.status();
        let tip = status.tip.as_deref();
        let duty = match &status.role {
            None => Duty::Syncing { target: None },
            Some((_, surety_consensus::Role::Voting)) => Duty::Voting,
            Some((_, surety_consensus::Role::Observing(why))) => Duty::Observing { why: why.to_string() },
        };
        LedgerStatus {
            number: tip.map_or(0, |tip| tip.number),
            epoch: status.role.as_ref().map(|(epoch, _)| *epoch).or(tip.map(|tip| tip.epoch())).unwrap_or(0),
            view: tip.map_or(0, |tip| tip.view()),
            duty,
            peers: self.peers,
        }
    }

    fn gossip(&self, encoded: Bytes) {
        // Peers that miss it will see it in a block, or get it from whoever sends it again.
        if self.outgoing.try_send(encoded).is_err() {
            debug!("a transaction was not passed on: too many wait");
        }
    }
}

/// Sends admitted transactions to the peers, many in one message.
async fn send_gossip(handle: Handle, mut outgoing: mpsc::Receiver<Bytes>) {
    let mut batch = Vec::new();
    while outgoing.recv_many(&mut batch, GOSSIP_BATCH_MAX).await > 0 {
        for message in messages(std::mem::take(&mut batch)) {
            if !handle.gossip(message.into()) {
                debug!("a message to the peers was dropped");
            }
        }
        sleep(GOSSIP_PAUSE).await;
    }
}

/// Transactions as messages: RLP lists, none longer than a message may be.
fn messages(transactions: Vec<Bytes>) -> Vec<Vec<u8>> {
    // Lengths and the list's head.
    const HEAD: usize = 8;
    let (mut messages, mut list, mut bytes) = (Vec::new(), Vec::new(), HEAD);
    for transaction in transactions {
        let takes = transaction.len() + HEAD;
        if bytes + takes > GOSSIP_BYTES_MAX && !list.is_empty() {
            messages.push(alloy_rlp::encode(std::mem::take(&mut list)));
            bytes = HEAD;
        }
        bytes += takes;
        list.push(transaction);
    }
    if !list.is_empty() {
        messages.push(alloy_rlp::encode(list));
    }
    messages
}

/// The transactions in a message; none if it is not one.
fn transactions(message: &[u8]) -> Option<Vec<Bytes>> {
    if message.len() > GOSSIP_BYTES_MAX {
        return None;
    }
    let list: Vec<Bytes> = alloy_rlp::decode_exact(message).ok()?;
    (list.len() <= GOSSIP_BATCH_MAX).then_some(list)
}

/// Looks at what peers sent.
async fn receive_gossip(
    mut messages: mpsc::Receiver<(Bytes, Spread)>,
    pool: Arc<Pool>,
    view: View,
    metrics: Arc<Metrics>,
) {
    let places = Arc::new(Semaphore::new(GOSSIP_TASKS_MAX));
    while let Some((message, spread)) = messages.recv().await {
        let Some(list) = transactions(&message) else {
            metrics.gossip_dropped.inc();
            continue;
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (pool, view, metrics) = (Arc::clone(&pool), view.clone(), Arc::clone(&metrics));
        tokio::spawn(async move {
            let _place = place;
            let count = list.len();
            let dropped = match pool.submit_all(list, &view, spread).await {
                Ok(answers) => answers.iter().filter(|answer| answer.is_err()).count(),
                Err(_) => count,
            };
            metrics.gossip_dropped.inc_by(dropped as u64);
        });
    }
}

/// Keeps what depends on the state up to date: parameters, and who the validators are.
async fn learn(mut handle: Handle, view: View, known: Arc<Known>, pool: Arc<Pool>) {
    let mut before = None;
    while let Ok(header) = handle.tip_changed().await {
        let epoch = header.epoch();
        if !known.knows(epoch)
            && let Some(record) = handle.epoch(epoch).await
            && let Some(set) = &record.header.next_validators
        {
            known.learn(set);
        }
        if let Ok((tip, params)) = view.params().await
            && before.as_ref() != Some(&params)
        {
            known.set_params(params.clone());
            pool.follow(tip.number, Terms::new(view.spec().chain_id, &params), Vec::new());
            before = Some(params);
        }
    }
}

/// Says so when `consensus` ended by itself.
async fn watch(node: Arc<Node>, failure: mpsc::Sender<String>) {
    while node.is_running() {
        sleep(Duration::from_millis(200)).await;
    }
    let _ = failure.try_send("consensus ended; the lines above say why".to_owned());
}

async fn collect_metrics(node: Arc<Node>, text: Arc<RwLock<String>>) {
    loop {
        if let Some(now) = node.metrics().await {
            *text.write().unwrap_or_else(PoisonError::into_inner) = now;
        }
        sleep(METRICS_PAUSE).await;
    }
}

impl std::fmt::Debug for Validator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Validator").field("software", &SOFTWARE).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_release_is_told_by_its_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let whole = B256::from(<[u8; 32]>::from(Sha256::digest(vec![7; 100_000])));
        assert_eq!(sha256_of(&path).unwrap(), whole);
        assert!(Release::running().program.is_some());
    }

    proptest! {
        #[test]
        fn any_message_is_transactions_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = transactions(&bytes);
        }

        #[test]
        fn transactions_come_back_whole(lengths in proptest::collection::vec(0_usize..100_000, 0..20)) {
            let sent: Vec<Bytes> = lengths.iter().map(|length| Bytes::from(vec![7; *length])).collect();
            let messages = messages(sent.clone());
            prop_assert!(messages.iter().all(|message| message.len() <= GOSSIP_BYTES_MAX));
            let received: Vec<Bytes> = messages.iter().flat_map(|message| transactions(message).expect("ours")).collect();
            prop_assert_eq!(received, sent);
        }
    }
}
