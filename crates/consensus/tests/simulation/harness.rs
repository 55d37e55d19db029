//! Validators of the simulated network, and what is checked of them.

use crate::coins::{
    ACCOUNTS, COINS_EACH, Coins, Outcome, Rota, Transfer, account_key, code_key, genesis_writes, read_holding,
};
use bytes::Bytes;
use commonware_consensus::{
    Heightable as _,
    types::{Epoch, Round, View},
};
use commonware_cryptography::{Hasher as _, Sha256, Signer as _, ed25519};
use commonware_glue::simulate::{
    engine::{EngineDefinition, InitContext},
    processed::ProcessedHeight,
    property::Property,
    tracker::{FinalizationUpdate, ProgressTracker},
};
use commonware_runtime::{Handle as TaskHandle, Quota, Storage as _};
use commonware_utils::{NZU32, channel::mpsc};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use surety_consensus::{
    Attendance, Block, CHANNELS, Certificate, Chain, Channels, Digest, Duty, Evidence, Handle, Ledger,
    Member, MemoryVoteRecord, Pool, PublicKey, Role, Settings, StateKey, ValidatorSet, VoteRecord, Voter,
};

pub const NAMESPACE: &[u8] = b"surety-simulation";
pub const PACE: Duration = Duration::from_millis(250);

pub fn key(seed: u64) -> ed25519::PrivateKey {
    ed25519::PrivateKey::from_seed(seed)
}

/// The set of an epoch, from seeds of keys.
pub fn set_of(epoch: u64, seeds: impl IntoIterator<Item = u64>) -> ValidatorSet {
    let mut members: Vec<Member> = seeds
        .into_iter()
        .map(|seed| Member { key: key(seed).public_key(), operator: [seed as u8; 20], stake: [1; 32] })
        .collect();
    members.sort_by(|a, b| a.key.cmp(&b.key));
    ValidatorSet::new(epoch, members).unwrap()
}

/// Four validators, always the same.
pub fn steady(epoch: u64) -> ValidatorSet {
    set_of(epoch, 0..4)
}

/// Six validators, of whom two rest in each epoch.
pub fn rotating(epoch: u64) -> ValidatorSet {
    set_of(epoch, (0..6).filter(|seed| *seed != epoch % 6 && *seed != (epoch + 3) % 6))
}

/// Everything that outlives a crash of one validator, and what the world saw of it.
#[derive(Default)]
pub struct World {
    /// Hash of every height any validator called final.
    pub history: Mutex<BTreeMap<u64, Digest>>,
    pub records: Mutex<BTreeMap<usize, Arc<MemoryVoteRecord>>>,
    pub roles: Mutex<BTreeMap<(usize, u64), Vec<Role>>>,
    pub accused: Mutex<BTreeSet<PublicKey>>,
    pub missed: Mutex<BTreeSet<usize>>,
    pub starts: Mutex<BTreeMap<usize, u32>>,
    pub gossip: Mutex<BTreeMap<usize, u64>>,
    pub transfers: Mutex<u64>,
    /// Proposals on top of blocks that were not final yet.
    pub stacked: Mutex<u64>,
    /// Blocks without transfers.
    pub empty: Mutex<u64>,
}

/// A misdeed: what one participant runs instead of an honest validator.
pub type Misdeed = fn(&Network, InitContext<'_, PublicKey>) -> TaskHandle<()>;

/// One simulated network.
#[derive(Clone)]
pub struct Network {
    pub participants: u64,
    pub epoch_blocks: u64,
    /// The number of the genesis block: zero, or that of a chain that goes on.
    pub first: u64,
    pub pace: Duration,
    pub rota: Rota,
    pub world: Arc<World>,
    /// Delayed participants fetch the state rather than execute from genesis.
    pub state_sync: bool,
    /// On its second start, this participant finds its journals gone.
    pub loses_journal: Option<usize>,
    /// On its second start, this participant finds its whole disk gone, and fetches the state.
    pub loses_disk: Option<usize>,
    pub misdeed: Option<(usize, Misdeed)>,
    /// Whether vote records were begun with the keys; else there are none, and the validators ask each other.
    pub initialised: bool,
}

impl Network {
    pub fn new(participants: u64, rota: Rota) -> Self {
        Self {
            participants,
            epoch_blocks: 1_000,
            first: 0,
            pace: PACE,
            rota,
            world: Arc::default(),
            state_sync: false,
            loses_journal: None,
            loses_disk: None,
            misdeed: None,
            initialised: true,
        }
    }

    pub fn chain(&self) -> Chain {
        Chain {
            document: Sha256::hash(&[b"the simulated genesis"]),
            namespace: NAMESPACE.to_vec(),
            timestamp_ms: 0,
            epoch_blocks: self.epoch_blocks,
            first: self.first,
            validators: (self.rota)(self.first / self.epoch_blocks),
            writes: Arc::new(genesis_writes()),
        }
    }

    /// What participant `index` is to do, under a partition prefix of its own.
    pub fn duty(
        &self,
        index: usize,
        prefix: String,
        state_sync: bool,
        record: Arc<dyn VoteRecord>,
        monitor: Option<mpsc::UnboundedSender<FinalizationUpdate<PublicKey>>>,
    ) -> (Duty<Coins>, Arc<Desk>) {
        let me = key(index as u64);
        let desk = Arc::new(Desk {
            index,
            me: me.public_key(),
            world: self.world.clone(),
            monitor,
            tip: Mutex::new(None),
            nonces: Mutex::new([0; ACCOUNTS as usize]),
        });
        let settings = Settings {
            pacing: self.pace,
            retained_blocks: 200,
            prune_every: 16,
            buffer_bytes: 1 << 14,
            cached_pages: 128,
            ..Settings::default()
        };
        let duty = Duty {
            chain: self.chain(),
            settings,
            law: Coins { epoch_blocks: self.epoch_blocks, rota: self.rota },
            pool: desk.clone(),
            ledger: desk.clone(),
            me: me.public_key(),
            voter: Some(Voter { key: me, record }),
            state_sync,
            prefix,
        };
        (duty, desk)
    }

    pub fn record(&self, index: usize) -> Arc<MemoryVoteRecord> {
        let begin = || {
            let record = Arc::new(MemoryVoteRecord::default());
            if self.initialised {
                record.store(Attendance::Never).unwrap();
            }
            record
        };
        self.world.records.lock().unwrap().entry(index).or_insert_with(begin).clone()
    }
}

/// A participant's pool and ledger.
pub struct Desk {
    index: usize,
    me: PublicKey,
    world: Arc<World>,
    monitor: Option<mpsc::UnboundedSender<FinalizationUpdate<PublicKey>>>,
    tip: Mutex<Option<u64>>,
    nonces: Mutex<[u64; ACCOUNTS as usize]>,
}

impl Pool<Transfer> for Desk {
    /// Several transfers of every account, some of which cannot apply.
    fn propose(&self, _bytes_max: usize, ahead: &[Arc<[Transfer]>]) -> Vec<Transfer> {
        let mut nonces = *self.nonces.lock().unwrap();
        let mut sent = BTreeMap::new();
        for transfer in ahead.iter().flat_map(|block| block.iter()) {
            let before = sent.insert(transfer.from, transfer.nonce);
            assert!(before.is_none_or(|before| before + 1 == transfer.nonce), "one is missing: {ahead:?}");
            // A block that has just become final may be counted already.
            let next = &mut nonces[transfer.from as usize];
            *next = (*next).max(transfer.nonce + 1);
        }
        *self.world.stacked.lock().unwrap() += u64::from(!ahead.is_empty());
        let mut transfers = Vec::new();
        for ahead in 0..3u64 {
            for from in 0..ACCOUNTS {
                let nonce = nonces[from as usize] + ahead;
                let mix = (nonce * 31 + u64::from(from) * 7 + self.index as u64) % 251;
                let coins = if mix.is_multiple_of(11) { u64::MAX } else { mix };
                transfers.push(Transfer { from, to: (mix % u64::from(ACCOUNTS)) as u8, coins, nonce });
            }
        }
        transfers
    }

    fn known(&self, _encoded: &[u8]) -> Option<Transfer> {
        None
    }

    fn received(&self, _from: &PublicKey, _message: Bytes) {
        *self.world.gossip.lock().unwrap().entry(self.index).or_default() += 1;
    }

    fn evidence(&self, evidence: Evidence) {
        self.world.accused.lock().unwrap().insert(evidence.key);
    }
}

impl Ledger<Outcome> for Desk {
    fn finalised(&self, block: &Arc<Block>, outcome: &Arc<Outcome>, certificate: Option<&Certificate>) {
        let (number, hash) = (block.header().number, block.header().hash());
        if let Some(certificate) = certificate {
            assert_eq!(certificate.block_hash(), hash);
        }
        let mut tip = self.tip.lock().unwrap();
        // In order; the first after a start is wherever that start left off.
        assert!(tip.is_none_or(|tip| number == tip + 1 || number == tip), "{tip:?} then {number}");
        *tip = Some(number);
        let known = *self.world.history.lock().unwrap().entry(number).or_insert(hash);
        assert_eq!(known, hash, "a fork at height {number}");
        let mut nonces = self.nonces.lock().unwrap();
        for transfer in &outcome.transfers {
            nonces[transfer.from as usize] = transfer.nonce + 1;
        }
        *self.world.transfers.lock().unwrap() += outcome.transfers.len() as u64;
        *self.world.empty.lock().unwrap() += u64::from(outcome.transfers.is_empty() && number > 1);
        self.world.missed.lock().unwrap().extend(outcome.missed.iter().copied());
        if let Some(monitor) = &self.monitor {
            tell(monitor, &self.me, block);
        }
    }

    fn role(&self, epoch: u64, role: &Role) {
        self.world.roles.lock().unwrap().entry((self.index, epoch)).or_default().push(role.clone());
    }
}

/// Tells the simulation how far a validator has come.
pub fn tell(monitor: &mpsc::UnboundedSender<FinalizationUpdate<PublicKey>>, me: &PublicKey, block: &Block) {
    let header = block.header();
    // A simulation that has ended listens no longer.
    let _ = monitor.send(FinalizationUpdate {
        pk: me.clone(),
        round: Round::new(Epoch::new(header.epoch()), View::new(header.view())),
        height: block.height(),
        block_digest: header.hash().0.to_vec(),
    });
}

/// What the checkers look at.
#[derive(Clone)]
pub struct Seen {
    pub index: usize,
    /// The number of the genesis block.
    pub first: u64,
    pub handle: Option<Handle>,
}

impl ProcessedHeight for Seen {
    async fn processed_height(&self) -> u64 {
        // A participant that misbehaves is not waited for.
        self.handle.as_ref().map_or(u64::MAX, |handle| handle.tip().map_or(0, |tip| tip.number - self.first))
    }
}

impl EngineDefinition for Network {
    type PublicKey = PublicKey;
    type Engine = TaskHandle<()>;
    type State = Seen;

    fn participants(&self) -> Vec<PublicKey> {
        (0..self.participants).map(|seed| key(seed).public_key()).collect()
    }

    fn channels(&self) -> Vec<(u64, Quota)> {
        (0..CHANNELS as u64).map(|channel| (channel, Quota::per_second(NZU32!(4_096)))).collect()
    }

    fn max_message_size(&self) -> u32 {
        surety_consensus::message_bytes_max()
    }

    async fn init(&self, init: InitContext<'_, PublicKey>) -> (TaskHandle<()>, Seen) {
        let index = init.index;
        if let Some((guilty, misdeed)) = self.misdeed
            && guilty == index
        {
            return (misdeed(self, init), Seen { index, first: self.first, handle: None });
        }
        let starts = {
            let mut starts = self.world.starts.lock().unwrap();
            let count = starts.entry(index).or_default();
            *count += 1;
            *count
        };
        let again = starts == 2;
        if again && self.loses_journal == Some(index) {
            for epoch in 0..20 {
                let _ = init.context.remove(&format!("v{index}-votes-{epoch}"), None).await;
            }
        }
        // A wiped disk is a prefix nobody has written under.
        let wiped = self.loses_disk == Some(index) && starts >= 2;
        let prefix = if wiped { format!("w{index}") } else { format!("v{index}") };
        let state_sync = wiped || (self.state_sync && init.delayed);
        let (duty, _) = self.duty(index, prefix, state_sync, self.record(index), Some(init.monitor));
        let channels: [_; CHANNELS] =
            init.channels.try_into().unwrap_or_else(|_| panic!("as many as declared"));
        let (task, handle) = surety_consensus::start(
            init.context,
            Channels::from_pairs(channels),
            init.oracle.manager(),
            init.oracle.control(init.public_key.clone()),
            duty,
        )
        .unwrap();
        (task, Seen { index, first: self.first, handle: Some(handle) })
    }

    fn start(engine: TaskHandle<()>) -> TaskHandle<()> {
        engine
    }
}

type Checking<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// No coin is made or lost, at every validator; and every value it serves is proved against a header all agree on.
#[derive(Clone)]
pub struct Conserved(pub Arc<World>);

impl Property<PublicKey, Seen> for Conserved {
    fn name(&self) -> &str {
        "conserved"
    }

    fn check<'a>(&'a self, _: &'a ProgressTracker<PublicKey>, seen: &'a [&'a Seen]) -> Checking<'a> {
        Box::pin(async move {
            for seen in seen {
                let Some(handle) = &seen.handle else { continue };
                let mut keys: Vec<_> = (0..ACCOUNTS).map(account_key).collect();
                keys.push(code_key());
                keys.push(StateKey([7; 32]));
                let (header, proofs) = handle.prove(keys.clone()).await.map_err(|error| error.to_string())?;
                let agreed = self.0.history.lock().unwrap().get(&header.number).copied();
                if agreed != Some(header.hash()) {
                    return Err(format!("{} proves against a block nobody else has", seen.index));
                }
                let mut sum = 0;
                for (index, (key, proof)) in keys.iter().zip(&proofs).enumerate() {
                    let bytes = commonware_codec::Encode::encode(proof);
                    let proof =
                        surety_consensus::StateProof::from_bytes(bytes).map_err(|error| error.to_string())?;
                    let value = proof.verify(&header.state_root, key).map_err(|error| error.to_string())?;
                    match index {
                        16 if value != Some(&crate::coins::CODE[..]) => {
                            return Err("the long value is damaged".into());
                        }
                        17 if value.is_some() => {
                            return Err("something stands under a key nobody wrote".into());
                        }
                        16 | 17 => {}
                        _ => sum += read_holding(value).0,
                    }
                    if proof.verify(&header.operations_root, key).is_ok()
                        || proof.verify(&header.state_root, &StateKey([9; 32])) == Ok(value)
                            && value.is_some()
                    {
                        return Err("a proof verifies where it must not".into());
                    }
                }
                if sum != u64::from(ACCOUNTS) * COINS_EACH {
                    return Err(format!("{} holds {sum} coins", seen.index));
                }
                let (_, values) = handle.read(keys).await.map_err(|error| error.to_string())?;
                if values[16].as_deref() != Some(&crate::coins::CODE[..]) {
                    return Err("the long value reads otherwise than it is proved".into());
                }
            }
            Ok(())
        })
    }
}

/// Whether anything happened that proves nothing if it did not.
pub fn assert_not_trivial(world: &World, height: u64) {
    assert!(world.history.lock().unwrap().len() as u64 >= height - 1);
    assert!(*world.transfers.lock().unwrap() > height, "blocks carried transfers");
}

/// Roles a participant took in an epoch, in order.
pub fn roles(world: &World, index: usize, epoch: u64) -> Vec<Role> {
    world.roles.lock().unwrap().get(&(index, epoch)).cloned().unwrap_or_default()
}
