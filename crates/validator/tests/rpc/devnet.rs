//! A chain of one, without consensus: the law itself executes, in memory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_signer_local::PrivateKeySigner;
use futures::future::BoxFuture;
use surety_chain::{
    Balance, Execution, Genesis, GenesisValidator, Header, MemoryState, Params, Recovered, StateKey, build,
    genesis_writes,
};
use surety_types::SecretKey;
use surety_validator::{
    follow::{Facts, indexed, touched},
    indexes::{IndexSettings, IndexWriter, IndexedBlock, Indexes},
    ledger::{Duty, EpochRecord, Ledger, LedgerStatus, Proved, Tip, Unavailable, Values, View},
    mempool::{PoolLimits, Room, Terms},
    metrics::Metrics,
    pool::Pool,
    rpc::{RpcLimits, RpcServer, RpcSettings, Services},
};

pub const CHAIN_ID: u64 = 88_888;

/// An account with money.
pub fn key(number: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::with_last_byte(number + 1)).expect("a key")
}

fn credits(count: u64) -> U256 {
    U256::from(count) * U256::from(10).pow(U256::from(18))
}

fn genesis() -> Genesis {
    let balances = (0..4).map(|number| Balance {
        address: key(number).address(),
        amount: credits(1_000_000),
        why: "for tests".to_owned(),
    });
    Genesis {
        chain_id: CHAIN_ID,
        timestamp_ms: 1_000,
        epoch_blocks: 100,
        balances: balances.collect(),
        validators: vec![GenesisValidator {
            key: SecretKey::from_bytes(&[9; 32]).public(),
            operator: Address::repeat_byte(0x99),
            stake: credits(10_000),
        }],
        origin: None,
        params: Params::default(),
    }
}

/// The chain.
pub struct Devnet {
    genesis: Genesis,
    state: Mutex<(Tip, MemoryState)>,
    pub indexes: Indexes,
    pub pool: Arc<Pool>,
    pub gossiped: Mutex<Vec<Bytes>>,
    writer: Mutex<Option<IndexWriter>>,
    _folder: tempfile::TempDir,
}

/// What is kept of the chain's state.
struct Kept(Arc<Devnet>);

impl Devnet {
    /// The chain with its genesis only.
    pub async fn new() -> Arc<Self> {
        let genesis = genesis();
        let mut state = MemoryState::default();
        let writes = genesis_writes(&genesis).expect("a sound genesis");
        state.apply(writes.into_iter().map(|(key, value)| (key, Some(value))));
        let folder = tempfile::tempdir().expect("a folder");
        let digest = genesis.digest().expect("a sound genesis");
        let (indexes, writer) =
            Indexes::open(folder.path(), digest, IndexSettings::default()).expect("opens");
        let tip = Tip { number: 0, hash: digest, timestamp_ms: genesis.timestamp_ms, view: 0 };
        let params = &genesis.params;
        let mut first = IndexedBlock::default();
        (first.header.hash, first.header.timestamp_ms) = (digest, genesis.timestamp_ms);
        (first.header.gas_limit, first.header.base_fee) = (params.block_gas_max, params.minimum_gas_price);
        indexes.append(Arc::new(first)).await.expect("appended");
        let pool = Arc::new(Pool::new(PoolLimits::default(), Terms::new(CHAIN_ID, params)));
        Arc::new(Self {
            genesis,
            state: Mutex::new((tip, state)),
            indexes,
            pool,
            gossiped: Mutex::default(),
            writer: Mutex::new(Some(writer)),
            _folder: folder,
        })
    }

    fn state(&self) -> MutexGuard<'_, (Tip, MemoryState)> {
        self.state.lock().expect("no panic")
    }

    /// Questions to the state.
    pub fn view(self: &Arc<Self>) -> View {
        View::new(self.genesis.spec(), Arc::new(Kept(Arc::clone(self))), 64)
    }

    /// Serves RPC.
    pub async fn serve(self: &Arc<Self>, limits: RpcLimits) -> RpcServer {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = RpcSettings {
            listen,
            hosts: vec!["node.example".to_owned()],
            origins: vec!["https://wallet.example".to_owned()],
            limits,
        };
        let services = Services::new(
            self.indexes.clone(),
            Arc::clone(&self.pool),
            self.view(),
            self.genesis.digest().expect("a sound genesis"),
            Arc::new(Metrics::default()),
            || "# EOF\n".to_owned(),
            limits,
        );
        RpcServer::start(settings, services).await.expect("serves")
    }

    /// The next block, with the best of what waits.
    pub async fn produce(&self) -> u64 {
        let room = Room { bytes_max: 1 << 20, gas_max: self.genesis.params.block_gas_max };
        let candidates: Vec<Recovered> = self
            .pool
            .propose(room, &BTreeMap::new())
            .iter()
            .map(|candidate| candidate.recovered().clone())
            .collect();
        let spec = self.genesis.spec();
        let (block, accounts) = {
            let mut state = self.state();
            let number = state.0.number + 1;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            let header = Header {
                number,
                timestamp_ms: u64::try_from(now.as_millis()).expect("this age").max(state.0.timestamp_ms + 1),
                epoch: spec.epoch(number),
                view: number,
                parent_hash: state.0.hash,
                beacon: keccak256(number.to_be_bytes()),
                proposer: 0,
                missed: Vec::new(),
            };
            let built = build(&spec, &state.1, &header, &candidates, room.bytes_max).expect("a sound state");
            let Execution::Done(built) = built else { panic!("memory knows every key") };
            assert!(built.skipped.is_empty(), "the pool proposes what runs: {:?}", built.skipped);
            let transactions: Vec<Bytes> =
                built.chosen.iter().map(|index| Bytes::copy_from_slice(candidates[*index].bytes())).collect();
            let encoded = Bytes::from(format!("header {number} on {}", header.parent_hash).into_bytes());
            let facts = Facts {
                number,
                hash: keccak256(&encoded),
                parent_hash: header.parent_hash,
                timestamp_ms: header.timestamp_ms,
                epoch: header.epoch,
                view: header.view,
                proposer: self.genesis.validators[0].operator,
                proposer_key: B256::from(self.genesis.validators[0].key.0),
                beacon: header.beacon,
                state_root: B256::ZERO,
                bytes: transactions.iter().map(|bytes| bytes.len() as u64).sum(),
                // Every other block is final through the one after it.
                certificate: if number.is_multiple_of(2) {
                    Bytes::from_static(b"signed")
                } else {
                    Bytes::new()
                },
                encoded,
            };
            let accounts = touched(&built.executed, self.pool.senders()).expect("a sound state");
            state.0 = Tip { number, hash: facts.hash, timestamp_ms: facts.timestamp_ms, view: number };
            let block = indexed(facts, &transactions, &built.executed, &self.genesis.params);
            state.1.apply(built.executed.writes);
            (block, accounts)
        };
        let number = block.header.number;
        self.indexes.append(Arc::new(block)).await.expect("appended");
        self.pool.follow(number, Terms::new(CHAIN_ID, &self.genesis.params), accounts);
        number
    }

    /// A block every so often, as long as somebody holds the chain.
    pub fn keep_producing(self: &Arc<Self>, pause: Duration) {
        let chain = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(chain) = chain.upgrade() {
                chain.produce().await;
                drop(chain);
                tokio::time::sleep(pause).await;
            }
        });
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        // The thread ends with the last clone of the indexes.
        drop(self.writer.lock().expect("no panic").take());
    }
}

impl Ledger for Kept {
    fn read(&self, keys: Vec<StateKey>) -> BoxFuture<'_, Result<Values, Unavailable>> {
        Box::pin(async move {
            let state = self.0.state();
            let values = keys.iter().map(|key| state.1.0.get(key).cloned()).collect();
            Ok(Values { tip: state.0, values })
        })
    }

    fn prove(&self, keys: Vec<StateKey>) -> BoxFuture<'_, Result<Proved, Unavailable>> {
        Box::pin(async move {
            let number = self.0.state().0.number;
            let proofs = keys.iter().map(|key| Bytes::copy_from_slice(&key.0)).collect();
            Ok(Proved { header: Bytes::from_static(b"header"), number, proofs })
        })
    }

    fn epoch(&self, epoch: u64) -> BoxFuture<'_, Result<Option<EpochRecord>, Unavailable>> {
        let record =
            EpochRecord { header: Bytes::from_static(b"header"), certificate: Bytes::from_static(b"signed") };
        Box::pin(async move { Ok((epoch == 1).then_some(record)) })
    }

    fn status(&self) -> LedgerStatus {
        let Tip { number, view, .. } = self.0.state().0;
        LedgerStatus {
            number,
            epoch: self.0.genesis.spec().epoch(number),
            view,
            duty: Duty::Voting,
            peers: 3,
        }
    }

    fn gossip(&self, encoded: Bytes) {
        self.0.gossiped.lock().expect("no panic").push(encoded);
    }
}
