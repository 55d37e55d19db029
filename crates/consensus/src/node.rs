//! The engine on this machine: a thread, a data directory, sockets.
//!
//! In:     settings, a genesis, the validator's pool and ledger.
//! Out:    a running node and the handle to its engine.
//! Touches: the data directory, one listening socket, connections to known peers; the clock.
//! Holds:  one process per data directory; a data directory belongs to one chain; only known keys connect.
//! Absent: who the peers are (configuration), keys at rest, and everything above consensus.

use crate::{
    CHANNELS, Chain, Channels, Digest, Duty, DutyError, FileVoteRecord, Handle, Law, Ledger, Pool, PublicKey,
    Settings, Voter, message_bytes_max,
};
use commonware_cryptography::{ChaCha20Poly1305, Hasher as _, Sha256, Signer as _, ed25519::PrivateKey};
use commonware_macros::select;
use commonware_p2p::{
    Address, AddressableManager as _, AddressableTrackedPeers,
    authenticated::lookup::{self, Network},
};
use commonware_runtime::{Metrics as _, Quota, Runner as _, Supervisor as _, tokio as runtime};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZU32, NZUsize, ordered::Map};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

/// The most peers a node knows at once, itself included: validators and some followers.
pub const PEERS_MAX: usize = crate::MEMBERS_MAX + 32;
/// Peers that may come later without a restart. Queues are allocated for every peer there may be: some hundred kilobytes
/// for each.
const PEERS_ROOM: usize = 4;
/// Clocks of two peers may differ by this much before they refuse each other.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5);
/// Messages a peer may send in a second on each channel, in the order of [`Channels`]. Queues are sized by these.
const MESSAGES_PER_SECOND: [Quota; CHANNELS] = [
    Quota::per_second(NZU32!(128)),
    Quota::per_second(NZU32!(128)),
    Quota::per_second(NZU32!(128)),
    Quota::per_second(NZU32!(256)),
    Quota::per_second(NZU32!(64)),
    Quota::per_second(NZU32!(256)),
    Quota::per_second(NZU32!(16)),
    Quota::per_second(NZU32!(512)),
];

/// A peer: its key and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub key: PublicKey,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it only follows.
    pub follower: bool,
}

/// How a node runs on its machine.
#[derive(Clone)]
pub struct NodeSettings {
    /// Where everything is kept but the vote record.
    pub data_dir: PathBuf,
    /// Where peers reach this node.
    pub listen: SocketAddr,
    /// Its key: a validator votes with it, a follower only connects.
    pub key: PrivateKey,
    /// Where a validator remembers what it voted in: outside `data_dir`. None for a follower.
    pub vote_record: Option<PathBuf>,
    /// Whom it may connect to, and who may connect to it.
    pub peers: Vec<Peer>,
    /// Fetch the state instead of executing from genesis, if nothing is there yet.
    pub state_sync: bool,
    /// Threads of the engine's runtime.
    pub threads: usize,
    /// How the engine runs.
    pub engine: Settings,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing can be kept.
    #[error("cannot use the data directory {path}")]
    Data {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process keeps its data there.
    #[error("another process uses the data directory {0}")]
    InUse(PathBuf),
    /// The directory belongs to another chain.
    #[error("the data directory {path} belongs to the chain with genesis {found}, not {expected}")]
    OtherChain {
        /// The directory.
        path: PathBuf,
        /// What it belongs to.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// The vote record would be lost with the data.
    #[error("the vote record {0} must lie outside the data directory, so that losing one leaves the other")]
    RecordInside(PathBuf),
    /// Peers cannot reach this node.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too many peers, or one twice.
    #[error("at most {PEERS_MAX} peers, each key once")]
    Peers,
    /// More peers than the running node's queues are sized for.
    #[error("at most {0} peers without a restart")]
    PeersGrown(usize),
    /// The engine refuses.
    #[error(transparent)]
    Duty(#[from] DutyError),
    /// The runtime did not come up.
    #[error("the engine's thread did not start")]
    Thread,
}

enum Command {
    SetPeers(AddressableTrackedPeers<PublicKey>),
    Metrics(oneshot::Sender<String>),
    Stop,
}

/// A running node. Dropping it stops the engine.
pub struct Node {
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<thread::JoinHandle<()>>,
    peers_max: NonZeroUsize,
}

impl Node {
    /// Starts an engine in a thread of its own.
    pub fn start<L: Law>(
        settings: NodeSettings,
        chain: Chain,
        law: L,
        pool: Arc<dyn Pool<L::Transaction>>,
        ledger: Arc<dyn Ledger<L::Outcome>>,
    ) -> Result<(Self, Handle), StartError> {
        let lock = open_data_dir(&settings.data_dir, &chain.document)?;
        if let Some(record) = &settings.vote_record
            && record.starts_with(&settings.data_dir)
        {
            return Err(StartError::RecordInside(record.clone()));
        }
        let peers = tracked(&settings.peers)?;
        let peers_max = peers_max(&settings.peers, &settings.key.public_key());
        // The network reports no failure to listen; this one can.
        let listening = TcpListener::bind(settings.listen);
        drop(listening.map_err(|source| StartError::Listen { address: settings.listen, source })?);

        let duty = Duty {
            me: settings.key.public_key(),
            voter: settings
                .vote_record
                .as_ref()
                .map(|path| Voter { key: settings.key.clone(), record: Arc::new(FileVoteRecord::new(path)) }),
            settings: settings.engine.clone(),
            chain,
            law,
            pool,
            ledger,
            state_sync: settings.state_sync,
            prefix: "node".into(),
        };
        let (commands, queue) = mpsc::unbounded_channel();
        let (started, start) = std::sync::mpsc::channel();
        let thread = thread::Builder::new().name("consensus".into()).spawn(move || {
            // Held as long as the engine runs.
            let _lock = lock;
            let config = runtime::Config::new()
                .with_storage_directory(settings.data_dir.join("engine"))
                .with_worker_threads(settings.threads.max(1));
            runtime::Runner::new(config).start(move |context| async move {
                run(context, settings, peers, peers_max, duty, queue, started).await
            });
        });
        let thread = thread.map_err(|_| StartError::Thread)?;
        let handle = start.recv().map_err(|_| StartError::Thread)??;
        Ok((Self { commands, thread: Some(thread), peers_max }, handle))
    }

    /// Replaces the known peers.
    pub fn set_peers(&self, peers: &[Peer]) -> Result<(), StartError> {
        if peers.len() >= self.peers_max.get() {
            return Err(StartError::PeersGrown(self.peers_max.get() - 1));
        }
        let _ = self.commands.send(Command::SetPeers(tracked(peers)?));
        Ok(())
    }

    /// The engine's metrics in Prometheus' text format.
    pub async fn metrics(&self) -> Option<String> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Metrics(reply)).ok()?;
        answer.await.ok()
    }

    /// Whether the engine still runs. If it does not and was not stopped, its log says why.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the engine and waits for it.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the engine had failed");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

async fn run<L: Law>(
    context: runtime::Context,
    settings: NodeSettings,
    peers: AddressableTrackedPeers<PublicKey>,
    peers_max: NonZeroUsize,
    duty: Duty<L>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    started: std::sync::mpsc::Sender<Result<Handle, DutyError>>,
) {
    let handshake = Cups::<_, ChaCha20Poly1305>::new(
        Sake {
            signer: settings.key.clone(),
            synchrony_bound: CLOCK_SKEW_MAX,
            max_handshake_age: 2 * CLOCK_SKEW_MAX,
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    // Another chain's nodes do not even shake hands.
    let namespace = Sha256::hash(&[b"surety/p2p", &duty.chain.namespace, duty.chain.document.as_ref()]);
    let mut config = lookup::Config::local(
        handshake,
        namespace.as_ref(),
        settings.listen,
        peers_max,
        message_bytes_max(),
        crate::engine::MAILBOX,
    );
    // Peers are known by key; the address they come from says nothing.
    config.bypass_ip_check = true;
    // The set before the latest stays connected while a change spreads; queues are sized for all sets.
    config.tracked_peer_sets = NZUsize!(2);
    let (mut network, mut oracle) = Network::new(context.child("network"), config);
    let mut peer_set = 0;
    oracle.track(peer_set, peers);
    let pairs: [_; CHANNELS] =
        std::array::from_fn(|channel| network.register(channel as u64, MESSAGES_PER_SECOND[channel]));
    let network = network.start();
    let channels = Channels::from_pairs(pairs);
    let engine = match crate::start(context.child("engine"), channels, oracle.clone(), oracle.clone(), duty) {
        Ok((engine, handle)) => {
            let _ = started.send(Ok(handle));
            engine
        }
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let (mut engine, mut network) = (engine, network);
    loop {
        select! {
            command = commands.recv() => match command {
                Some(Command::SetPeers(peers)) => {
                    peer_set += 1;
                    oracle.track(peer_set, peers);
                }
                Some(Command::Metrics(reply)) => drop(reply.send(context.encode())),
                Some(Command::Stop) | None => {
                    info!("consensus stops");
                    return;
                }
            },
            ended = &mut engine => {
                error!(?ended, "the engine ended");
                return;
            },
            ended = &mut network => {
                error!(?ended, "the network ended");
                return;
            },
        }
    }
}

/// How many identities the network is sized for: who is known, this node, and some more.
fn peers_max(peers: &[Peer], me: &PublicKey) -> NonZeroUsize {
    let others = peers.iter().filter(|peer| peer.key != *me).count();
    NZUsize!(1).saturating_add((others + PEERS_ROOM).min(PEERS_MAX - 1))
}

fn tracked(peers: &[Peer]) -> Result<AddressableTrackedPeers<PublicKey>, StartError> {
    if peers.len() > PEERS_MAX {
        return Err(StartError::Peers);
    }
    let of = |follower: bool| {
        let known = peers.iter().filter(|peer| peer.follower == follower);
        let pairs: Vec<(PublicKey, Address)> =
            known.map(|peer| (peer.key.clone(), peer.address.into())).collect();
        Map::try_from(pairs).map_err(|_| StartError::Peers)
    };
    Ok(AddressableTrackedPeers::new(of(false)?, of(true)?))
}

/// Takes a data directory for one chain and this process.
fn open_data_dir(path: &Path, document: &Digest) -> Result<File, StartError> {
    let data = |source| StartError::Data { path: path.into(), source };
    fs::create_dir_all(path).map_err(data)?;
    let lock =
        File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(data)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(StartError::InUse(path.into())),
        Err(fs::TryLockError::Error(source)) => return Err(data(source)),
    }
    let (mark, expected) = (path.join("genesis"), document.to_string());
    match fs::read_to_string(&mark) {
        Ok(found) if found.trim() == expected => Ok(lock),
        Ok(found) => Err(StartError::OtherChain { path: path.into(), found: found.trim().into(), expected }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut file = File::create(&mark).map_err(data)?;
            writeln!(file, "{expected}").and_then(|()| file.sync_all()).map_err(data)?;
            Ok(lock)
        }
        Err(source) => Err(data(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_chain_and_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (Sha256::hash(&[b"ours"]), Sha256::hash(&[b"other"]));
        let lock = open_data_dir(folder.path(), &ours).unwrap();
        assert!(matches!(open_data_dir(folder.path(), &ours), Err(StartError::InUse(_))));
        drop(lock);
        assert!(matches!(open_data_dir(folder.path(), &other), Err(StartError::OtherChain { .. })));
        open_data_dir(folder.path(), &ours).unwrap();
    }
}
