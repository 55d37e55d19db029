//! Four validators on loopback: real sockets, disks and clocks.

#[path = "simulation/coins.rs"]
mod coins;

use alloy_primitives::{B256, U256};
use bytes::Bytes;
use coins::{ACCOUNTS, COINS_EACH, Coins, Outcome, Transfer, account_key, genesis_writes, read_holding};
use commonware_cryptography::{Hasher as _, Sha256, Signer as _, ed25519::PrivateKey};
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use surety_consensus::{
    Block, Certificate, Chain, Evidence, Handle, Ledger, Member, Node, NodeSettings, Peer, Pool, Provenance,
    PublicKey, Role, Settings, StartError, ValidatorSet, Why, import,
};

const EPOCH_BLOCKS: u64 = 16;

fn members(epoch: u64) -> ValidatorSet {
    let mut members: Vec<Member> = (0..4)
        .map(|seed| Member {
            key: PrivateKey::from_seed(seed).public_key(),
            operator: [1; 20],
            stake: [1; 32],
        })
        .collect();
    members.sort_by(|a, b| a.key.cmp(&b.key));
    ValidatorSet::new(epoch, members).unwrap()
}

fn chain() -> Chain {
    Chain {
        first: 0,
        document: Sha256::hash(&[b"loopback"]),
        namespace: b"surety-loopback".to_vec(),
        timestamp_ms: 0,
        epoch_blocks: EPOCH_BLOCKS,
        validators: members(0),
        writes: Arc::new(genesis_writes()),
    }
}

/// A pool of one account's transfers, and a ledger that measures.
#[derive(Default)]
struct Desk {
    nonce: AtomicU64,
    heard: AtomicU64,
    latency_ms: Mutex<Vec<u64>>,
}

impl Pool<Transfer> for Desk {
    fn propose(&self, _bytes_max: usize, ahead: &[Arc<[Transfer]>]) -> Vec<Transfer> {
        let ahead = ahead.iter().flat_map(|block| block.iter()).map(|transfer| transfer.nonce + 1).max();
        let nonce = self.nonce.load(Relaxed).max(ahead.unwrap_or(0));
        vec![Transfer { from: 0, to: 1 + (nonce % 5) as u8, coins: 1, nonce }]
    }

    fn known(&self, _encoded: &[u8]) -> Option<Transfer> {
        None
    }

    fn received(&self, _from: &PublicKey, message: Bytes) {
        assert_eq!(message, Bytes::from_static(b"hello"));
        self.heard.fetch_add(1, Relaxed);
    }

    fn evidence(&self, evidence: Evidence) {
        panic!("nobody equivocates here: {evidence:?}");
    }
}

impl Ledger<Outcome> for Desk {
    fn finalised(&self, block: &Arc<Block>, outcome: &Arc<Outcome>, _certificate: Option<&Certificate>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        self.latency_ms.lock().unwrap().push(now.saturating_sub(block.header().timestamp_ms));
        assert!(outcome.missed.len() < 4, "somebody proposed this block");
        for transfer in &outcome.transfers {
            self.nonce.store(transfer.nonce + 1, Relaxed);
        }
    }
}

struct Cluster {
    folder: tempfile::TempDir,
    addresses: Vec<SocketAddr>,
}

impl Cluster {
    fn new() -> Self {
        let sockets: Vec<_> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        Self { folder: tempfile::tempdir().unwrap(), addresses }
    }

    fn settings(&self, index: u64) -> NodeSettings {
        let peers = (0..5)
            .map(|seed| Peer {
                key: PrivateKey::from_seed(seed).public_key(),
                address: self.addresses[seed as usize],
                follower: seed == 4,
            })
            .collect();
        NodeSettings {
            data_dir: self.data(index),
            listen: self.addresses[index as usize],
            key: PrivateKey::from_seed(index),
            vote_record: (index < 4).then(|| self.folder.path().join(format!("votes{index}"))),
            peers,
            state_sync: false,
            threads: 1,
            engine: Settings {
                buffer_bytes: 1 << 16,
                cached_pages: 512,
                prune_every: 8,
                retained_blocks: 64,
                ..Settings::default()
            },
        }
    }

    fn data(&self, index: u64) -> std::path::PathBuf {
        self.folder.path().join(format!("data{index}"))
    }

    fn start(&self, settings: NodeSettings) -> (Node, Handle, Arc<Desk>) {
        let desk = Arc::new(Desk::default());
        let law = Coins { epoch_blocks: EPOCH_BLOCKS, rota: members };
        let (node, handle) = Node::start(settings, chain(), law, desk.clone(), desk.clone()).unwrap();
        (node, handle, desk)
    }
}

fn number(handle: &Handle) -> u64 {
    handle.tip().map_or(0, |tip| tip.number)
}

/// Waits until `condition` or fails after `limit`; returns how long it took.
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn within(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn validators_crash_return_and_are_followed() {
    let cluster = Cluster::new();
    let mut nodes: Vec<_> = (0..4).map(|index| Some(cluster.start(cluster.settings(index)))).collect();
    let watched = nodes[0].as_ref().unwrap().1.clone();
    let blocks = |count: u64, what: &str| {
        let goal = number(&watched) + count;
        within(what, || number(&watched) >= goal)
    };
    blocks(8, "eight blocks");
    let pace = blocks(8, "eight more blocks");
    println!("eight blocks in {pace:?}");
    let mut latency = nodes[0].as_ref().unwrap().2.latency_ms.lock().unwrap().split_off(4);
    latency.sort_unstable();
    println!("finality: median {} ms of {} blocks", latency[latency.len() / 2], latency.len());

    // Gossip reaches the others.
    assert!(watched.gossip(Bytes::from_static(b"hello")));
    let heard = |nodes: &[Option<(Node, Handle, Arc<Desk>)>]| {
        nodes.iter().skip(1).flatten().filter(|(_, _, desk)| desk.heard.load(Relaxed) > 0).count()
    };
    within("gossip", || heard(&nodes) == 3);

    // One stops; the chain goes on; it returns with its data and votes.
    drop(nodes[3].take());
    let slow = blocks(12, "twelve blocks with one validator down");
    println!("twelve blocks with one of four down in {slow:?}");
    nodes[3] = Some(cluster.start(cluster.settings(3)));
    let returned = nodes[3].as_ref().unwrap().1.clone();
    let back = within("back at the tip", || number(&returned) + 2 >= number(&watched));
    println!("back with its data in {back:?}");
    assert!(matches!(returned.status().role, Some((_, Role::Voting))));

    // It loses its disk: it fetches the state, follows, and says why it does not vote.
    drop(nodes[3].take());
    std::fs::remove_dir_all(cluster.data(3)).unwrap();
    let begun = Instant::now();
    nodes[3] = Some(cluster.start(NodeSettings { state_sync: true, ..cluster.settings(3) }));
    let wiped = nodes[3].as_ref().unwrap().1.clone();
    within("state sync", || wiped.tip().is_some() && number(&wiped) + 2 >= number(&watched));
    println!("back without its data in {:?}", begun.elapsed());
    let roles = wiped.status().role.unwrap();
    assert!(
        matches!(roles.1, Role::Voting | Role::Observing(Why::JournalLost)),
        "voting only if an epoch began since: {roles:?}"
    );

    // A follower without a vote executes from genesis... and proves what it serves.
    let follower = cluster.start(cluster.settings(4));
    within("the follower", || number(&follower.1) + 2 >= number(&watched));
    let keys: Vec<_> = (0..ACCOUNTS).map(account_key).collect();
    let (header, proofs) = follower.1.prove(keys.clone()).await.unwrap();
    let sum: u64 = keys
        .iter()
        .zip(&proofs)
        .map(|(key, proof)| read_holding(proof.verify(&header.state_root, key).unwrap()).0)
        .sum();
    assert_eq!(sum, u64::from(ACCOUNTS) * COINS_EACH);
    // What a light client checks: sets from genesis on, then the certificate.
    let chain = chain();
    let mut set = chain.validators.clone();
    for epoch in 1..=header.epoch() {
        let record = follower.1.epoch(epoch).await.expect("records are kept");
        set = record.verify(&chain.namespace, &set).unwrap().clone();
    }
    let mut certified = None;
    for number in (header.number.saturating_sub(8)..=header.number).rev() {
        if let Some(certificate) = follower.1.certificate(number).await {
            certified = Some((number, certificate));
            break;
        }
    }
    let (number_certified, certificate) = certified.expect("some recent block has a certificate of its own");
    certificate.verify(&chain.namespace, &set).unwrap();
    assert_eq!(follower.1.block(number_certified).await.unwrap().header().hash(), certificate.block_hash());
    assert!(follower.0.metrics().await.unwrap().contains("engine"));

    // Everything but one stops, so the state stands still: it is exported and read back.
    for node in nodes.iter_mut().skip(1) {
        drop(node.take());
    }
    std::thread::sleep(Duration::from_millis(600));
    let mut file = Vec::new();
    let provenance = Provenance {
        chain_id: 7,
        epoch_blocks: EPOCH_BLOCKS,
        genesis: B256::repeat_byte(1),
        supply: U256::from(9),
    };
    let mut cells = 0;
    let (digest, header) = watched.export(&mut file, &provenance, |read| cells = read).await.unwrap();
    let imported = import(&mut file.as_slice()).unwrap();
    assert_eq!(imported.origin.export.0, digest.0);
    assert_eq!(imported.origin.block_hash.0, header.hash().0);
    assert_eq!((imported.origin.number, imported.origin.state_root.0), (header.number, header.state_root.0));
    assert!(cells >= imported.writes.len());
    assert!(watched.is_settled().await);
    let mut keys: Vec<_> = genesis_writes().into_iter().map(|(key, _)| key).collect();
    keys.sort();
    assert_eq!(imported.writes.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
}

#[test]
fn what_cannot_start_says_why() {
    let cluster = Cluster::new();
    let start = |settings: NodeSettings| {
        let desk = Arc::new(Desk::default());
        Node::start(
            settings,
            chain(),
            Coins { epoch_blocks: EPOCH_BLOCKS, rota: members },
            desk.clone(),
            desk,
        )
        .map(drop)
    };
    let inside = NodeSettings { vote_record: Some(cluster.data(0).join("votes")), ..cluster.settings(0) };
    assert!(matches!(start(inside), Err(StartError::RecordInside(_))));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = NodeSettings { listen: taken.local_addr().unwrap(), ..cluster.settings(0) };
    assert!(matches!(start(busy), Err(StartError::Listen { .. })));
    let mut twice = cluster.settings(0);
    twice.peers.push(twice.peers[0].clone());
    assert!(matches!(start(twice), Err(StartError::Peers)));
    let unusable = NodeSettings { data_dir: Path::new("/proc/nothing").into(), ..cluster.settings(0) };
    assert!(matches!(start(unusable), Err(StartError::Data { .. })));
    let mut slow = cluster.settings(0);
    slow.engine.leader_timeout = slow.engine.pacing;
    assert!(matches!(start(slow), Err(StartError::Duty(_))));
}
