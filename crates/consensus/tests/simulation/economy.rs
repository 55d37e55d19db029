//! The real law in the simulated network: a genesis, accounts that pay each other, calls to modules at set heights.
//!
//! In:     a genesis, a script of calls, which software each participant runs, who misbehaves.
//! Out:    what the participants saw, in one world.
//! Holds:  at every participant, after every block, all balances together are what the genesis names; equal heights have
//!         equal blocks and equal balances.
//! Absent: pools and RPC (`surety_validator`).

use crate::harness::{Seen, key, tell};
use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall as _;
use commonware_codec::Encode as _;
use commonware_cryptography::Signer as _;
use commonware_glue::simulate::{
    engine::{EngineDefinition, InitContext},
    property::Property,
    tracker::{FinalizationUpdate, ProgressTracker},
};
use commonware_runtime::{Handle as TaskHandle, Quota};
use commonware_utils::{NZU32, channel::mpsc};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};
use surety_chain::{
    AccountState, Balance, Executed, Genesis, GenesisValidator, Params, Recovered, StateKey, genesis_writes,
};
use surety_consensus::{
    Attendance, Block, CHANNELS, Certificate, Chain, Channels, Digest, Duty, Evidence, EvmLaw, Header,
    Ledger, MemoryVoteRecord, Pool, PublicKey, Role, Settings, VoteRecord, Voter,
};
use surety_types::abi::{IStaking, Module, address::STAKING};

/// Accounts that pay each other in every block.
const PAYERS: u64 = 5;
pub const CREDIT: u128 = 1_000_000_000_000_000_000;

pub fn credits(count: u64) -> U256 {
    U256::from(CREDIT) * U256::from(count)
}

fn signer(number: u64) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256(number.to_be_bytes())).unwrap()
}

/// The account of a participant: it operates the validator.
pub fn operator(index: u64) -> u64 {
    100 + index
}

/// The account by which a participant reports misdeeds.
fn reporter(index: u64) -> u64 {
    200 + index
}

pub fn address(account: u64) -> Address {
    signer(account).address()
}

/// A validator's key as the chain writes it.
pub fn chain_key(index: u64) -> surety_types::PublicKey {
    surety_types::PublicKey(key(index).public_key().encode().as_ref().try_into().unwrap())
}

/// A transaction and its sender, signed once for all simulations of this process.
fn transaction(account: u64, nonce: u64, to: Address, value: U256, input: &[u8]) -> Recovered {
    type Known = HashMap<(u64, u64, Address, U256, Vec<u8>), Recovered>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let name = (account, nonce, to, value, input.to_vec());
    if let Some(known) = KNOWN.lock().unwrap().get(&name) {
        return known.clone();
    }
    let transaction = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: if input.is_empty() { 21_000 } else { 3_000_000 },
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(to),
        value,
        access_list: Default::default(),
        input: Bytes::copy_from_slice(input),
    };
    let signature = signer(account).sign_hash_sync(&transaction.signature_hash()).unwrap();
    let bytes = TxEnvelope::from(transaction.into_signed(signature)).encoded_2718();
    let recovered = Recovered::decode(&bytes).unwrap();
    DECODED.lock().unwrap().insert(bytes, recovered.clone());
    KNOWN.lock().unwrap().insert(name, recovered.clone());
    recovered
}

static DECODED: LazyLock<Mutex<HashMap<Vec<u8>, Recovered>>> = LazyLock::new(Mutex::default);

const CHAIN_ID: u64 = 88_888;

/// A call that an account sends once a height is reached; those of one account in their order.
#[derive(Clone, Debug)]
pub struct Call {
    pub after: u64,
    pub account: u64,
    pub to: Address,
    pub value: U256,
    pub input: Vec<u8>,
}

impl Call {
    pub fn new(after: u64, account: u64, to: Address, input: Vec<u8>) -> Self {
        Self { after, account, to, value: U256::ZERO, input }
    }

    pub fn with(self, value: U256) -> Self {
        Self { value, ..self }
    }
}

type Balances = BTreeMap<StateKey, U256>;

/// What the world saw.
#[derive(Default)]
pub struct World {
    history: Mutex<BTreeMap<u64, (Digest, Arc<Balances>)>>,
    records: Mutex<BTreeMap<usize, Arc<MemoryVoteRecord>>>,
    pub roles: Mutex<BTreeMap<(usize, u64), Vec<Role>>>,
    starts: Mutex<BTreeMap<usize, u32>>,
    nonces: Mutex<BTreeMap<Address, u64>>,
    /// Topics of the modules' events, with the height of each one's first.
    pub events: Mutex<BTreeMap<B256, u64>>,
    /// What calls that failed said, by sender.
    pub reverts: Mutex<Vec<(Address, String)>>,
    transfers: Mutex<u64>,
    /// Of blocks, in order.
    pub times: Mutex<Vec<u64>>,
    /// Who stopped before which block's successor, and why.
    pub halted: Mutex<BTreeMap<usize, (u64, String)>>,
    /// Everything that became final, wherever and whenever: (participant, height, hash) in order.
    pub trace: Mutex<Vec<(usize, u64, Digest)>>,
}

pub type Misdeed = fn(&Economy, InitContext<'_, PublicKey>) -> TaskHandle<()>;
/// Version and binary that a participant runs on its n-th start, counted from 1.
pub type Software = fn(usize, u32) -> (&'static str, B256);

pub fn first_release(_: usize, _: u32) -> (&'static str, B256) {
    ("1.0.0", B256::repeat_byte(1))
}

/// One simulated network with the real law.
#[derive(Clone)]
pub struct Economy {
    pub participants: u64,
    pub genesis: Arc<Genesis>,
    pub script: Arc<Vec<Call>>,
    pub software: Software,
    pub misdeed: Option<(usize, Misdeed)>,
    /// On its second start, this participant finds its disk gone, and fetches the state.
    pub loses_disk: Option<usize>,
    /// Whose clock is wrong, and what it shows at the beginning; the others' then show `NOON`.
    pub clock: Option<(usize, Duration)>,
    pub world: Arc<World>,
}

impl Economy {
    /// `voters` of the participants validate the first epoch.
    pub fn new(participants: u64, voters: u64, epoch_blocks: u64, script: Vec<Call>) -> Self {
        let accounts =
            (0..PAYERS).chain((0..participants).flat_map(|index| [operator(index), reporter(index)]));
        let genesis = Genesis {
            chain_id: CHAIN_ID,
            timestamp_ms: 0,
            epoch_blocks,
            balances: accounts
                .map(|account| Balance {
                    address: address(account),
                    amount: credits(100_000),
                    why: "simulated".into(),
                })
                .collect(),
            validators: (0..voters)
                .map(|index| GenesisValidator {
                    key: chain_key(index),
                    operator: address(operator(index)),
                    stake: credits(10_000),
                })
                .collect(),
            origin: None,
            params: Params {
                unbonding_s: 2,
                voting_s: 2,
                timelock_s: 3,
                timelock_floor_s: 3,
                upgrade_lead_blocks: 4,
                channel_delay_min_s: 1,
                channel_delay_max_s: 2,
                // Who is down here is down for a purpose.
                jail_missed_min: 1_000_000,
                ..Params::default()
            },
        };
        Self {
            participants,
            genesis: Arc::new(genesis),
            script: Arc::new(script),
            software: first_release,
            misdeed: None,
            loses_disk: None,
            clock: None,
            world: Arc::default(),
        }
    }

    pub fn chain(&self) -> Chain {
        Chain::of_genesis(&self.genesis).unwrap()
    }

    /// Everyone who can own something.
    fn accounts(&self) -> Vec<Address> {
        let mut accounts: Vec<Address> =
            self.genesis.balances.iter().map(|balance| balance.address).collect();
        accounts.extend(Module::ALL.map(Module::address));
        accounts
    }

    fn begin(&self) -> Arc<Balances> {
        let state: BTreeMap<_, _> = genesis_writes(&self.genesis).unwrap().into_iter().collect();
        let balances = self.accounts().into_iter().map(|address| {
            let key = StateKey::account(&address);
            (key, state.get(&key).map_or(U256::ZERO, |value| AccountState::decode(value).unwrap().balance))
        });
        Arc::new(balances.collect())
    }

    pub fn duty(
        &self,
        index: usize,
        start: u32,
        prefix: String,
        state_sync: bool,
        record: Arc<dyn VoteRecord>,
        monitor: Option<mpsc::UnboundedSender<FinalizationUpdate<PublicKey>>>,
    ) -> Duty<EvmLaw> {
        let me = key(index as u64);
        let desk = Arc::new(Desk {
            index,
            me: me.public_key(),
            economy: self.clone(),
            monitor,
            tip: Mutex::new(None),
            reports: Mutex::default(),
        });
        let settings = Settings {
            retained_blocks: 200,
            prune_every: 16,
            buffer_bytes: 1 << 14,
            cached_pages: 128,
            ..Settings::default()
        };
        let (version, binary) = (self.software)(index, start);
        Duty {
            chain: self.chain(),
            settings,
            law: EvmLaw::new(self.genesis.spec(), version, Some(binary)),
            pool: desk.clone(),
            ledger: desk,
            me: me.public_key(),
            voter: Some(Voter { key: me, record }),
            state_sync,
            prefix,
        }
    }

    fn record(&self, index: usize) -> Arc<MemoryVoteRecord> {
        let begin = || {
            let record = Arc::new(MemoryVoteRecord::default());
            record.store(Attendance::Never).unwrap();
            record
        };
        self.world.records.lock().unwrap().entry(index).or_insert_with(begin).clone()
    }
}

/// A participant's pool and ledger.
struct Desk {
    index: usize,
    me: PublicKey,
    economy: Economy,
    monitor: Option<mpsc::UnboundedSender<FinalizationUpdate<PublicKey>>>,
    tip: Mutex<Option<u64>>,
    reports: Mutex<Vec<Vec<u8>>>,
}

impl Pool<Recovered> for Desk {
    fn propose(&self, _bytes_max: usize, ahead: &[Arc<[Recovered]>]) -> Vec<Recovered> {
        let mut nonces = self.economy.world.nonces.lock().unwrap().clone();
        for sent in ahead.iter().flat_map(|block| block.iter()) {
            let next = nonces.entry(sent.sender()).or_default();
            *next = (*next).max(sent.nonce() + 1);
        }
        let next = |account: u64| nonces.get(&address(account)).copied().unwrap_or(0);
        let mut chosen = Vec::new();
        for payer in 0..PAYERS {
            let nonce = next(payer);
            let to = address((payer * 3 + nonce) % PAYERS);
            chosen.push(transaction(payer, nonce, to, U256::from(nonce * 7 + payer), &[]));
        }
        let height = self.tip.lock().unwrap().unwrap_or(0) + ahead.len() as u64;
        let accounts: BTreeSet<u64> = self.economy.script.iter().map(|call| call.account).collect();
        for account in accounts {
            let nonce = next(account);
            let mut own = self.economy.script.iter().filter(|call| call.account == account);
            if let Some(call) = own.nth(nonce as usize)
                && call.after <= height
            {
                chosen.push(transaction(account, nonce, call.to, call.value, &call.input));
            }
        }
        for (nonce, report) in (0..).zip(self.reports.lock().unwrap().iter()) {
            let account = reporter(self.index as u64);
            if nonce >= next(account) {
                chosen.push(transaction(account, nonce, STAKING, U256::ZERO, report));
            }
        }
        chosen
    }

    fn known(&self, encoded: &[u8]) -> Option<Recovered> {
        // One participant has seen nothing before it is in a block.
        if self.index == 1 { None } else { DECODED.lock().unwrap().get(encoded).cloned() }
    }

    fn received(&self, _: &PublicKey, _: bytes::Bytes) {}

    fn evidence(&self, evidence: Evidence) {
        let (key, first, second) = evidence.for_staking();
        let report = IStaking::reportEquivocationCall {
            key: key.into(),
            firstKind: first.kind as u8,
            firstMessage: first.message.into(),
            firstSignature: first.signature.into(),
            secondKind: second.kind as u8,
            secondMessage: second.message.into(),
            secondSignature: second.signature.into(),
        };
        self.reports.lock().unwrap().push(report.abi_encode());
    }
}

impl Ledger<Executed> for Desk {
    fn finalised(&self, block: &Arc<Block>, executed: &Arc<Executed>, certificate: Option<&Certificate>) {
        let world = &self.economy.world;
        let (number, hash) = (block.header().number, block.header().hash());
        if let Some(certificate) = certificate {
            assert_eq!(certificate.block_hash(), hash);
        }
        let mut tip = self.tip.lock().unwrap();
        assert!(tip.is_none_or(|tip| number == tip + 1 || number == tip), "{tip:?} then {number}");
        *tip = Some(number);
        world.trace.lock().unwrap().push((self.index, number, hash));
        let mut history = world.history.lock().unwrap();
        let before = match number {
            1 => self.economy.begin(),
            // Whoever comes first at a height came first at the one before, or somebody else did.
            _ => history.get(&(number - 1)).expect("heights follow each other").1.clone(),
        };
        let mut after = (*before).clone();
        for (key, value) in &executed.writes {
            if let Some(balance) = after.get_mut(key) {
                *balance =
                    value.as_ref().map_or(U256::ZERO, |value| AccountState::decode(value).unwrap().balance);
            }
        }
        let together = after.values().fold(U256::ZERO, |sum, balance| sum + balance);
        let supply = self.economy.genesis.supply().unwrap();
        assert_eq!(together, supply, "balances together after block {number} at {}", self.index);
        if let Some((known, balances)) = history.get(&number) {
            assert_eq!(*known, hash, "a fork at height {number}");
            assert_eq!(**balances, after, "balances differ at height {number}");
        } else {
            history.insert(number, (hash, Arc::new(after)));
            world.times.lock().unwrap().push(block.header().timestamp_ms);
            let mut nonces = world.nonces.lock().unwrap();
            for bytes in block.transactions() {
                let sent = Recovered::decode(bytes).unwrap();
                nonces.insert(sent.sender(), sent.nonce() + 1);
            }
            *world.transfers.lock().unwrap() += block.transactions().len() as u64;
            for receipt in &executed.receipts {
                if !receipt.envelope.status() {
                    let said =
                        <alloy_sol_types::Revert as alloy_sol_types::SolError>::abi_decode(&receipt.output);
                    let said =
                        said.map_or_else(|_| "nothing".to_owned(), |revert| revert.reason().to_owned());
                    world.reverts.lock().unwrap().push((receipt.sender, said));
                }
                for topic in receipt.envelope.logs().iter().filter_map(|log| log.data.topics().first()) {
                    world.events.lock().unwrap().entry(*topic).or_insert(number);
                }
            }
        }
        if let Some(monitor) = &self.monitor {
            tell(monitor, &self.me, block);
        }
    }

    fn role(&self, epoch: u64, role: &Role) {
        let mut roles = self.economy.world.roles.lock().unwrap();
        roles.entry((self.index, epoch)).or_default().push(role.clone());
    }

    fn halted(&self, header: &Header, why: &str) {
        self.economy.world.halted.lock().unwrap().insert(self.index, (header.number, why.to_owned()));
    }
}

impl EngineDefinition for Economy {
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
            return (misdeed(self, init), Seen { index, first: 0, handle: None });
        }
        let start = {
            let mut starts = self.world.starts.lock().unwrap();
            let count = starts.entry(index).or_default();
            *count += 1;
            *count
        };
        let wiped = self.loses_disk == Some(index) && start >= 2;
        let prefix = if wiped { format!("w{index}") } else { format!("v{index}") };
        let duty = self.duty(index, start, prefix, wiped, self.record(index), Some(init.monitor));
        let channels: [_; CHANNELS] =
            init.channels.try_into().unwrap_or_else(|_| panic!("as many as declared"));
        let channels = Channels::from_pairs(channels);
        let (peers, blocker) = (init.oracle.manager(), init.oracle.control(init.public_key.clone()));
        let (task, handle) = match self.clock {
            Some((wrong, shown)) => {
                let shown = if wrong == index { shown } else { NOON };
                let context = crate::shifted::Shifted::new(init.context, shown);
                surety_consensus::start(context, channels, peers, blocker, duty).unwrap()
            }
            None => surety_consensus::start(init.context, channels, peers, blocker, duty).unwrap(),
        };
        (task, Seen { index, first: 0, handle: Some(handle) })
    }

    fn start(engine: TaskHandle<()>) -> TaskHandle<()> {
        engine
    }
}

type Checking<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// At the end, what every participant can prove is what all agreed on, and the supply.
#[derive(Clone)]
pub struct Proved(pub Economy);

impl Property<PublicKey, Seen> for Proved {
    fn name(&self) -> &str {
        "proved"
    }

    fn check<'a>(&'a self, _: &'a ProgressTracker<PublicKey>, seen: &'a [&'a Seen]) -> Checking<'a> {
        Box::pin(async move {
            let keys: Vec<StateKey> = self.0.accounts().iter().map(StateKey::account).collect();
            for seen in seen {
                let Some(handle) = &seen.handle else { continue };
                let (header, proofs) = handle.prove(keys.clone()).await.map_err(|error| error.to_string())?;
                let agreed = self.0.world.history.lock().unwrap().get(&header.number).cloned();
                let Some((hash, balances)) = agreed.filter(|(hash, _)| *hash == header.hash()) else {
                    return Err(format!("{} proves against a block nobody else has", seen.index));
                };
                for (key, proof) in keys.iter().zip(&proofs) {
                    let value = proof.verify(&header.state_root, key).map_err(|error| error.to_string())?;
                    let balance =
                        value.map_or(U256::ZERO, |value| AccountState::decode(value).unwrap().balance);
                    if Some(&balance) != balances.get(key) {
                        return Err(format!("{} proves another balance after {hash}", seen.index));
                    }
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

pub const SECOND: Duration = Duration::from_secs(1);
/// What clocks show at the beginning where one of them is wrong.
pub const NOON: Duration = Duration::from_secs(12 * 3_600);
