//! The two ends that `consensus` holds: where it takes transactions from, and whom it tells of finalised blocks.
//!
//! In:     finalised blocks; messages from peers; evidence of conflicting votes.
//! Out:    proposals; indexed blocks; work for the role's tasks.
//! Holds:  a finalised block is on the disk of the indexes before `consensus` goes on, so that none is ever missing
//!         there; messages from peers wait in a bounded queue or are dropped.
//! Absent: what becomes of messages and evidence (`validator`).

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use alloy_primitives::{Address, B256, Bytes, keccak256};
use surety_chain::{Executed, Params, Recovered};
use surety_consensus::{
    Block, Certificate, Evidence, Header, Ledger, Pool as ProposalPool, PublicKey, Role, ValidatorSet,
    public_key_bytes,
};
use tokio::{runtime::Handle as Runtime, sync::mpsc};
use tracing::{error, info, warn};

use crate::{
    follow::{Facts, indexed, touched},
    indexes::{AppendError, IndexedBlock, Indexes},
    ledger::Tip,
    mempool::{Room, Terms},
    metrics::Metrics,
    pool::{Pool, Spread},
};

/// Messages from peers that wait.
pub(crate) const GOSSIP_WAITING_MAX: usize = 1_024;
/// Evidence that waits to be sent.
pub(crate) const EVIDENCE_WAITING_MAX: usize = 64;
/// Validator sets that are remembered.
const SETS_MAX: usize = 8;

/// What the role learns from the state and both ends need.
#[derive(Debug)]
pub(crate) struct Known {
    params: RwLock<Params>,
    /// Epoch → key → operator.
    operators: RwLock<BTreeMap<u64, BTreeMap<B256, Address>>>,
}

impl Known {
    pub(crate) fn new(params: Params) -> Self {
        Self { params: RwLock::new(params), operators: RwLock::default() }
    }

    pub(crate) fn params(&self) -> Params {
        self.params.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_params(&self, params: Params) {
        *self.params.write().unwrap_or_else(PoisonError::into_inner) = params;
    }

    pub(crate) fn knows(&self, epoch: u64) -> bool {
        self.operators.read().unwrap_or_else(PoisonError::into_inner).contains_key(&epoch)
    }

    pub(crate) fn learn(&self, set: &ValidatorSet) {
        let members = set.members().iter();
        let members = members.map(|member| (key_of(&member.key), Address::from(member.operator))).collect();
        let mut operators = self.operators.write().unwrap_or_else(PoisonError::into_inner);
        operators.insert(set.epoch(), members);
        while operators.len() > SETS_MAX {
            operators.pop_first();
        }
    }

    /// Whether a key is a validator's in one of the epochs that are remembered.
    fn validates(&self, key: &B256) -> bool {
        let operators = self.operators.read().unwrap_or_else(PoisonError::into_inner);
        operators.values().any(|members| members.contains_key(key))
    }

    /// The account that answers for a validator key; zero while this node does not know the epoch's set.
    fn operator(&self, epoch: u64, key: &B256) -> Address {
        let operators = self.operators.read().unwrap_or_else(PoisonError::into_inner);
        operators.get(&epoch).and_then(|members| members.get(key)).copied().unwrap_or_default()
    }
}

/// A validator key's bytes.
pub(crate) fn key_of(key: &PublicKey) -> B256 {
    B256::from(public_key_bytes(key))
}

/// Where a header stands.
pub(crate) fn tip_of(header: &Header) -> Tip {
    Tip {
        number: header.number,
        hash: B256::from(header.hash().0),
        timestamp_ms: header.timestamp_ms,
        view: header.view(),
    }
}

/// What proposers draw from, and where messages go.
pub(crate) struct Proposals {
    pub(crate) pool: Arc<Pool>,
    pub(crate) known: Arc<Known>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gossip: mpsc::Sender<(Bytes, Spread)>,
    pub(crate) evidence: mpsc::Sender<Evidence>,
}

impl ProposalPool<Recovered> for Proposals {
    fn propose(&self, bytes_max: usize, ahead: &[Arc<[Recovered]>]) -> Vec<Recovered> {
        let room = Room { bytes_max, gas_max: self.known.params().block_gas_max };
        // Within a block and from block to block nonces grow: the last one stands.
        let sent = ahead.iter().flat_map(|block| block.iter());
        let next = sent.map(|sent| (sent.sender(), sent.nonce() + 1)).collect();
        let chosen = self.pool.propose(room, &next);
        chosen.iter().map(|candidate| candidate.recovered().clone()).collect()
    }

    fn known(&self, encoded: &[u8]) -> Option<Recovered> {
        self.pool.get(&keccak256(encoded)).map(|candidate| candidate.recovered().clone())
    }

    fn received(&self, from: &PublicKey, message: bytes::Bytes) {
        self.metrics.gossip_received.inc();
        let spread = if self.known.validates(&key_of(from)) { Spread::Nobody } else { Spread::Peers };
        if self.gossip.try_send((message.into(), spread)).is_err() {
            self.metrics.gossip_dropped.inc();
        }
    }

    fn evidence(&self, evidence: Evidence) {
        warn!(key = %key_of(&evidence.key), epoch = evidence.epoch, view = evidence.view, "a validator signed conflicting votes");
        if self.evidence.try_send(evidence).is_err() {
            warn!("evidence was dropped: too much of it waits");
        }
    }
}

/// Whom `consensus` tells of finalised blocks.
pub(crate) struct Follower {
    pub(crate) indexes: Indexes,
    pub(crate) pool: Arc<Pool>,
    pub(crate) known: Arc<Known>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) runtime: Runtime,
    pub(crate) chain_id: u64,
    pub(crate) genesis_number: u64,
    pub(crate) genesis_timestamp_ms: u64,
    /// Why the role must stop.
    pub(crate) failure: mpsc::Sender<String>,
}

impl Ledger<Executed> for Follower {
    fn finalised(&self, block: &Arc<Block>, outcome: &Arc<Executed>, certificate: Option<&Certificate>) {
        let started = Instant::now();
        let header = block.header();
        let params = self.known.params();
        let facts = self.facts(block, certificate);
        let (number, timestamp_ms) = (facts.number, facts.timestamp_ms);
        let transactions: Vec<Bytes> =
            block.transactions().iter().map(|bytes| Bytes::from(bytes.clone())).collect();
        let kept = indexed(facts, &transactions, outcome, &params);
        if let Some(set) = &header.next_validators {
            self.known.learn(set);
        }
        if let Err(error) = self.append(kept) {
            self.fail(format!("block {number} cannot be indexed: {error}"));
            return;
        }
        match touched(outcome, self.pool.senders()) {
            Ok(accounts) => {
                self.pool.follow(number, Terms::new(self.chain_id, &params), accounts);
            }
            Err(error) => self.fail(format!("block {number} leaves a damaged account: {error}")),
        }
        self.metrics.indexed_height.set(i64::try_from(number).unwrap_or(i64::MAX));
        self.metrics.indexed_transactions.inc_by(transactions.len() as u64);
        self.metrics.block_gas_used.set(i64::try_from(outcome.gas_used).unwrap_or(i64::MAX));
        self.metrics.block_time_seconds.set(timestamp_ms as f64 / 1_000.0);
        self.metrics.index_seconds.observe(started.elapsed().as_secs_f64());
    }

    fn role(&self, epoch: u64, role: &Role) {
        match role {
            Role::Voting => info!(epoch, "voting"),
            Role::Observing(why) => warn!(epoch, %why, "not voting"),
        }
    }

    fn halted(&self, header: &Header, why: &str) {
        self.fail(format!("stopped after block {}: {why}", header.number));
    }
}

impl Follower {
    fn facts(&self, block: &Block, certificate: Option<&Certificate>) -> Facts {
        let header = block.header();
        let proposer_key = key_of(&header.context.leader);
        let encoded = Bytes::from(header.to_bytes());
        let bodies: usize = block.transactions().iter().map(|bytes| bytes.len()).sum();
        Facts {
            number: header.number,
            hash: B256::from(header.hash().0),
            parent_hash: B256::from(header.parent_hash().0),
            timestamp_ms: header.timestamp_ms,
            epoch: header.epoch(),
            view: header.view(),
            proposer: self.known.operator(header.epoch(), &proposer_key),
            proposer_key,
            beacon: B256::ZERO,
            state_root: B256::from(header.state_root.0),
            bytes: (encoded.len() + bodies) as u64,
            encoded,
            certificate: certificate
                .map(|certificate| Bytes::from(certificate.to_bytes()))
                .unwrap_or_default(),
        }
    }

    /// Puts a block on the disk; after a state sync, as the first.
    fn append(&self, block: IndexedBlock) -> Result<(), AppendError> {
        if block.header.number == self.genesis_number + 1 && self.indexes.tip().is_none() {
            let mut genesis = IndexedBlock::default();
            (genesis.header.number, genesis.header.epoch) = (self.genesis_number, block.header.epoch);
            genesis.header.hash = block.header.parent_hash;
            genesis.header.timestamp_ms = self.genesis_timestamp_ms;
            (genesis.header.gas_limit, genesis.header.base_fee) =
                (block.header.gas_limit, block.header.base_fee);
            self.write(Arc::new(genesis))?;
        }
        let block = Arc::new(block);
        match self.write(Arc::clone(&block)) {
            Err(AppendError::Gap { number, tip }) => {
                info!(
                    number,
                    tip, "the state was taken over from peers; older blocks cannot be looked up here"
                );
                self.indexes.clear().map_err(|error| AppendError::Write(error.to_string()))?;
                self.write(block)
            }
            result => result,
        }
    }

    /// Waits for the disk on a thread that may wait, wherever `consensus` calls from.
    fn write(&self, block: Arc<IndexedBlock>) -> Result<(), AppendError> {
        let (done, written) = std::sync::mpsc::sync_channel(1);
        let indexes = self.indexes.clone();
        self.runtime.spawn(async move {
            // The receiver waits until this is sent.
            let _ = done.send(indexes.append(block).await);
        });
        written.recv().unwrap_or(Err(AppendError::Closed))
    }

    fn fail(&self, why: String) {
        error!(why, "the validator stops");
        // The first reason is enough.
        let _ = self.failure.try_send(why);
    }
}

#[cfg(test)]
mod tests {
    use surety_chain::{Genesis, GenesisValidator};
    use surety_consensus::Chain;
    use surety_types::SecretKey;

    use super::*;

    #[test]
    fn validators_are_known_by_their_keys_as_long_as_their_epoch_is_remembered() {
        let key = SecretKey::from_bytes(&[7; 32]).public();
        let genesis = Genesis {
            chain_id: 1,
            timestamp_ms: 0,
            epoch_blocks: 10,
            balances: Vec::new(),
            validators: vec![GenesisValidator {
                key,
                operator: Address::repeat_byte(9),
                stake: alloy_primitives::U256::from(10_u128.pow(22)),
            }],
            origin: None,
            params: Params::default(),
        };
        let known = Known::new(Params::default());
        let of_key = B256::from(key.0);
        assert!(!known.validates(&of_key));
        let first = Chain::of_genesis(&genesis).unwrap().validators;
        known.learn(&first);
        assert!(known.validates(&of_key) && !known.validates(&B256::ZERO));
        assert_eq!(known.operator(0, &of_key), Address::repeat_byte(9));
        assert_eq!(known.operator(1, &of_key), Address::ZERO);
    }
}
