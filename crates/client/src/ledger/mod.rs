//! The ledger, as seen through RPC nodes that nobody trusts.
//!
//! In:     the genesis document, which is trusted; the URLs of nodes, which are not.
//! Out:    accounts, parameters and what calls return, each proven against a block that two thirds of the validators
//!         signed; transactions of a wallet, and what came of them.
//! Touches: the network; the clock.
//! Holds:  nothing is believed that is not proven, except where a docstring says so; what was seen once is never followed
//!         by something older; rounds, values, bytes and times are bounded; a node that lies is named in the log, and
//!         the next one is asked.
//! Absent: what to do on the ledger (the roles). Which of two chains that begin alike is the right one if the validators
//!         of an epoch long past sold their keys: compare a recent block's hash with somebody you know.
//!
//! A view call is executed here: [`surety_chain::simulate()`] says which values it needs, a node proves them, and it is run
//! again, until it needs no more. So no node can answer for the ledger, only withhold.

mod bundle;
pub mod conduct;
pub mod earnings;
pub mod economics;
mod error;
mod events;
pub mod explorer;
pub mod governance;
mod nodes;
pub mod powers;
pub mod rechecked;
pub mod records;
mod submit;
pub mod survey;
mod trust;
mod views;
mod wallet;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{Address, B256, Bytes};
use alloy_sol_types::SolCall;
use serde::Deserialize;
use serde_json::{Value, json};
use surety_chain::{
    AccountState, CallRequest, ChainSpec, Execution, ExecutionError, Genesis, Params, ReadCache,
    SimulationOutcome, StateKey, StateReader, execute::Header as Place, simulate,
};
use surety_consensus::Header;
use tokio::time::sleep;

pub use error::{Fault, LedgerError, Lie, NodeFault};
pub use events::Emitted;
pub use submit::{Landed, TransactionCall};
pub use views::Views;
pub use wallet::{NotAKey, Wallet, recover};

use nodes::{BATCH_MAX, Node, Nodes, garbage};
use trust::Trust;

/// What a ledger is known by, and who is asked.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// The document the chain began with; everything is checked from here on.
    pub genesis: Genesis,
    /// Nodes' RPC, `http` or `https`; the first that answers is asked.
    pub rpc_urls: Vec<String>,
}

/// Bounds of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerBounds {
    /// For one request to be answered whole.
    pub request_timeout: Duration,
    /// Bytes of an answer.
    pub answer_bytes_max: usize,
    /// For how long a node that failed is not asked while others are left.
    pub aside: Duration,
    /// For how long one that lied is not.
    pub aside_liar: Duration,
    /// The oldest a node's newest block may be; none: any age. A chain that stands still is as old as its last block.
    pub age_max: Option<Duration>,
    /// Values of the state that one question may need.
    pub keys_max: usize,
    /// Rounds in which they are found.
    pub rounds_max: usize,
    /// For transactions to land.
    pub landing_timeout: Duration,
}

impl Default for LedgerBounds {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            answer_bytes_max: 32 << 20,
            aside: Duration::from_secs(10),
            aside_liar: Duration::from_secs(600),
            age_max: Some(Duration::from_secs(120)),
            keys_max: 2_048,
            rounds_max: 64,
            landing_timeout: Duration::from_secs(60),
        }
    }
}

/// Values in one request for proofs: what nodes take.
const KEYS_PER_REQUEST: usize = 64;
/// How often values that need several requests are asked for until they are of one block.
const SAME_BLOCK_ATTEMPTS: usize = 16;
/// How often a node is asked again for what it may have in a moment.
const SOON_ATTEMPTS: usize = 20;
/// Between two such times.
const SOON: Duration = Duration::from_millis(100);
/// JSON-RPC's code for what is not there, EIP-1474.
const NOT_FOUND: i64 = -32001;
/// For what cannot be had now.
const UNAVAILABLE: i64 = -32002;

/// A final block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its height.
    pub number: u64,
    /// Its time, in milliseconds since 1970: its proposer's clock, within the bounds of consensus.
    pub timestamp_ms: u64,
    /// The epoch it is of.
    pub epoch: u64,
    /// The view it was proposed in.
    pub view: u64,
    /// Its hash.
    pub hash: B256,
    /// What values are proven against.
    pub state_root: B256,
}

/// Something of the ledger, and as of which block it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Viewed<T> {
    /// The block after which it is so.
    pub tip: Tip,
    /// What is so.
    pub value: T,
}

/// The ledger. Clones share what they know.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    genesis: Genesis,
    spec: ChainSpec,
    bounds: LedgerBounds,
    nodes: Nodes,
    trust: Trust,
    /// The newest tip that was seen.
    seen: Mutex<Option<Tip>>,
    /// One submission at a time for each wallet: nonces follow each other.
    sending: Mutex<BTreeMap<Address, Arc<tokio::sync::Mutex<()>>>>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<&str> = self.0.nodes.all().iter().map(|node| node.name.as_str()).collect();
        f.debug_struct("Ledger").field("chain_id", &self.chain_id()).field("nodes", &nodes).finish()
    }
}

impl Ledger {
    /// Prepares to ask; asks nothing yet.
    pub fn new(settings: LedgerSettings) -> Result<Self, LedgerError> {
        Self::with_bounds(settings, LedgerBounds::default())
    }

    /// The same, with other bounds.
    pub fn with_bounds(settings: LedgerSettings, bounds: LedgerBounds) -> Result<Self, LedgerError> {
        // What one batch carries.
        let keys_max = bounds.keys_max.min(KEYS_PER_REQUEST * BATCH_MAX);
        let bounds = LedgerBounds { keys_max, ..bounds };
        let nodes = Nodes::new(&settings.rpc_urls, bounds)?;
        let trust = Trust::of_genesis(&settings.genesis)?;
        let (spec, genesis) = (settings.genesis.spec(), settings.genesis);
        let (seen, sending) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { genesis, spec, bounds, nodes, trust, seen, sending })))
    }

    /// The document the chain began with.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.0.genesis
    }

    /// EIP-155.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.0.spec.chain_id
    }

    /// What is fixed for the life of the chain.
    #[must_use]
    pub fn spec(&self) -> &ChainSpec {
        &self.0.spec
    }

    /// Who is asked: scheme, host and port of each node.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.0.nodes.all().iter().map(|node| node.name.as_str())
    }

    /// Counts what nodes answer: while it grows, somebody is there.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.0.nodes.heard()
    }

    /// The newest final block a node shows.
    pub async fn tip(&self) -> Result<Tip, LedgerError> {
        let nothing = |_: &dyn StateReader, _: &Place| Ok(Execution::Done(Box::new(())));
        Ok(self.read(nothing).await?.tip)
    }

    /// What a call would return now. Whoever calls is nobody and pays nothing.
    pub async fn view<C: SolCall>(&self, to: Address, call: &C) -> Result<Viewed<C::Return>, LedgerError> {
        let request = CallRequest { to: Some(to), input: call.abi_encode().into(), ..CallRequest::default() };
        let Viewed { tip, value } = self.simulate(&request).await?;
        let value = returned::<C>(value)?;
        Ok(Viewed { tip, value })
    }

    /// What a call would do now.
    pub async fn simulate(&self, request: &CallRequest) -> Result<Viewed<SimulationOutcome>, LedgerError> {
        self.read(|state, place| simulate(&self.0.spec, state, place, request)).await
    }

    /// An account; one that does not exist is empty.
    pub async fn account(&self, address: Address) -> Result<Viewed<AccountState>, LedgerError> {
        let Viewed { tip, value } = self.read(|state, _| surety_chain::account(state, address)).await?;
        Ok(Viewed { tip, value: value.unwrap_or_default() })
    }

    /// The parameters that hold for the next block.
    pub async fn params(&self) -> Result<Viewed<Params>, LedgerError> {
        self.read(|state, _| surety_chain::params(state)).await
    }

    /// Reads whatever `read` reads, all as of one block: `read` is run until every value it needs is proven.
    ///
    /// It is given the place of the block after that one. It must be a function of what it is given: it runs several
    /// times, at first knowing nothing.
    pub async fn read<T>(
        &self,
        read: impl Fn(&dyn StateReader, &Place) -> Result<Execution<T>, ExecutionError>,
    ) -> Result<Viewed<T>, LedgerError> {
        // What it asks for first depends little on where the chain stands.
        let mut wanted = BTreeSet::new();
        if let Ok(Execution::Needs(keys)) = read(&ReadCache::default(), &self.0.expected_place()) {
            wanted.extend(keys);
        }
        let bounds = &self.0.bounds;
        for _ in 0..bounds.rounds_max {
            if wanted.is_empty() {
                // Any value's proof shows the tip.
                wanted.insert(StateKey::account(&surety_types::abi::address::PARAMS));
            }
            if wanted.len() > bounds.keys_max {
                break;
            }
            let (tip, state) = self.0.proven(&wanted).await?;
            match read(&state, &next_place(&self.0.spec, &tip))? {
                Execution::Done(value) => return Ok(Viewed { tip, value: *value }),
                Execution::Needs(keys) => {
                    let known = wanted.len();
                    wanted.extend(keys);
                    if wanted.len() == known {
                        // It asks for what it was given: nothing would ever change.
                        break;
                    }
                }
            }
        }
        Err(LedgerError::TooMuch { keys_max: bounds.keys_max, rounds_max: bounds.rounds_max })
    }

    /// What a node says. Nothing of it is checked.
    pub async fn unverified(&self, method: &str, params: Value) -> Result<Value, LedgerError> {
        let mut round = self.0.nodes.round();
        while let Some(node) = round.next() {
            match self.0.nodes.call(node, method, params.clone()).await {
                Ok(answer) => {
                    round.answered();
                    return Ok(answer);
                }
                Err(fault) => round.failed(fault),
            }
        }
        Err(round.exhausted())
    }
}

/// What a call returned, in the types of its interface.
fn returned<C: SolCall>(outcome: SimulationOutcome) -> Result<C::Return, LedgerError> {
    if !outcome.success {
        return Err(failure(outcome));
    }
    C::abi_decode_returns(&outcome.output).map_err(|_| LedgerError::Returns(C::SIGNATURE))
}

/// Why a call did not succeed.
fn failure(outcome: SimulationOutcome) -> LedgerError {
    match (&outcome.invalid, &outcome.halt) {
        (Some(invalid), _) => LedgerError::Invalid(invalid.to_string()),
        (None, Some(halt)) => LedgerError::Invalid(halt.clone()),
        (None, None) => LedgerError::Reverted { reason: outcome.revert_reason(), output: outcome.output },
    }
}

/// Makes one call within [`Ledger::read`]: what it returns, or why it reverts.
pub fn call_at<C: SolCall>(
    spec: &ChainSpec,
    state: &dyn StateReader,
    place: &Place,
    to: Address,
    call: &C,
) -> Result<Execution<Result<C::Return, LedgerError>>, ExecutionError> {
    let request = CallRequest { to: Some(to), input: call.abi_encode().into(), ..CallRequest::default() };
    Ok(match simulate(spec, state, place, &request)? {
        Execution::Needs(keys) => Execution::Needs(keys),
        Execution::Done(outcome) => Execution::Done(Box::new(returned::<C>(*outcome))),
    })
}

/// The place of the block after `tip`, as far as a call can see.
fn next_place(spec: &ChainSpec, tip: &Tip) -> Place {
    let number = tip.number.saturating_add(1);
    Place {
        number,
        timestamp_ms: tip.timestamp_ms.saturating_add(1),
        epoch: spec.epoch(number),
        view: tip.view.saturating_add(1),
        parent_hash: tip.hash,
        beacon: B256::ZERO,
        proposer: 0,
        missed: Vec::new(),
    }
}

#[derive(Deserialize)]
struct Proved {
    number: u64,
    header: Bytes,
    proofs: Vec<ProvedKey>,
}

#[derive(Deserialize)]
struct ProvedKey {
    proof: Bytes,
}

#[derive(Deserialize)]
struct Certified {
    headers: Vec<Bytes>,
    certificate: Bytes,
}

#[derive(Deserialize)]
struct Record {
    header: Bytes,
    certificate: Bytes,
}

impl Inner {
    fn seen(&self) -> Option<Tip> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the next question will probably be answered.
    fn expected_place(&self) -> Place {
        let genesis = Tip {
            number: self.genesis.first_block(),
            timestamp_ms: self.genesis.timestamp_ms,
            epoch: self.genesis.first_epoch(),
            view: 0,
            hash: self.trust.genesis(),
            state_root: B256::ZERO,
        };
        next_place(&self.spec, &self.seen().unwrap_or(genesis))
    }

    /// Values as of a final block, from the first node that proves them.
    async fn proven(&self, wanted: &BTreeSet<StateKey>) -> Result<(Tip, ReadCache), LedgerError> {
        let wanted: Vec<StateKey> = wanted.iter().copied().collect();
        let mut round = self.nodes.round();
        while let Some(node) = round.next() {
            match self.proven_by(node, &wanted).await {
                Ok(proven) => {
                    round.answered();
                    return Ok(proven);
                }
                Err(fault) => round.failed(self.other_chain(node, fault).await),
            }
        }
        Err(round.exhausted())
    }

    async fn proven_by(&self, node: &Node, wanted: &[StateKey]) -> Result<(Tip, ReadCache), Fault> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let before = self.seen();
            let result = self.proven_once(node, wanted).await;
            let tip = match &result {
                Ok((tip, _)) => *tip,
                // It may be starting.
                Err(fault) if fault.refused_with(UNAVAILABLE) && attempts < SOON_ATTEMPTS => {
                    sleep(SOON).await;
                    continue;
                }
                Err(_) => return result,
            };
            if let Some(before) = before.filter(|before| tip.number <= before.number) {
                if tip.number == before.number && tip.hash != before.hash {
                    return Err(Lie::Fork(tip.number).into());
                }
                if tip.number < before.number {
                    // Nodes are a block or two apart. One that stays behind is not asked on.
                    if attempts < SOON_ATTEMPTS {
                        sleep(SOON).await;
                        continue;
                    }
                    return Err(Fault::Behind { number: tip.number, seen: before.number });
                }
            }
            self.check_age(&tip)?;
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.is_none_or(|seen| seen.number < tip.number) {
                *seen = Some(tip);
            }
            drop(seen);
            return result;
        }
    }

    fn check_age(&self, tip: &Tip) -> Result<(), Fault> {
        let Some(age_max) = self.bounds.age_max else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_millis(tip.timestamp_ms));
        if age > age_max {
            return Err(Fault::Stale { age_s: age.as_secs() });
        }
        Ok(())
    }

    async fn proven_once(&self, node: &Node, wanted: &[StateKey]) -> Result<(Tip, ReadCache), Fault> {
        const METHOD: &str = "surety_proof";
        let pages: Vec<&[StateKey]> = wanted.chunks(KEYS_PER_REQUEST).collect();
        let mut attempts = 0;
        let answers: Vec<Proved> = loop {
            attempts += 1;
            let params = pages.iter().map(|keys| {
                let keys: Vec<B256> = keys.iter().map(|key| B256::from(key.0)).collect();
                json!([{ "keys": keys }])
            });
            let answers: Vec<Proved> = self.nodes.several(node, METHOD, params.collect()).await?;
            if answers.windows(2).all(|pair| pair[0].header == pair[1].header) {
                break answers;
            }
            if attempts == SAME_BLOCK_ATTEMPTS {
                return Err(Fault::Moving);
            }
        };
        let first = answers.first().ok_or_else(|| garbage(METHOD, "no answer"))?;
        let header = self.final_header(node, first.number, Some(&first.header)).await?;
        let mut state = ReadCache::default();
        for (keys, answer) in pages.iter().zip(&answers) {
            let proofs: Vec<Bytes> = answer.proofs.iter().map(|proved| proved.proof.clone()).collect();
            trust::values(&header, keys, &proofs, &mut state)?;
        }
        Ok((trust::tip_of(&header), state))
    }

    /// A node's certificate of a height: nothing of it is proven yet.
    async fn certified(&self, node: &Node, number: u64) -> Result<Certified, Fault> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.nodes.call(node, "surety_certificate", json!([format!("{number:#x}")])).await {
                // The tip's certificate follows the tip.
                Err(fault) if fault.refused_with(NOT_FOUND) && attempts < SOON_ATTEMPTS => sleep(SOON).await,
                result => return result,
            }
        }
    }

    /// The header of a height, shown to be final. It must be `expected`, if that is given.
    async fn final_header(
        &self,
        node: &Node,
        number: u64,
        expected: Option<&Bytes>,
    ) -> Result<Header, Fault> {
        let certified = self.certified(node, number).await?;
        let headers = self.trust.headers(number, &certified.headers)?;
        if expected.is_some_and(|expected| *expected != certified.headers[0]) {
            return Err(Lie::OtherBlock(number).into());
        }
        if let Some(last) = headers.last() {
            self.follow(node, last.epoch()).await?;
        }
        self.trust.finality(&headers, &certified.certificate)?;
        headers.into_iter().next().ok_or_else(|| garbage("surety_certificate", "no header"))
    }

    /// Learns the validators of every epoch up to `epoch`, each from the one before.
    async fn follow(&self, node: &Node, epoch: u64) -> Result<(), Fault> {
        const METHOD: &str = "surety_epoch";
        loop {
            let next = self.trust.latest_epoch() + 1;
            if next > epoch {
                return Ok(());
            }
            let epochs: Vec<u64> = (next..=epoch).take(BATCH_MAX).collect();
            let params = epochs.iter().map(|epoch| json!([format!("{epoch:#x}")]));
            let records: Vec<Record> = self.nodes.several(node, METHOD, params.collect()).await?;
            for (epoch, record) in epochs.into_iter().zip(&records) {
                // Another question may have learnt it meanwhile.
                if epoch > self.trust.latest_epoch() {
                    self.trust.learn(epoch, &record.header, &record.certificate)?;
                }
            }
        }
    }

    /// Whether a lie is rather a chain of another genesis: a misunderstanding, which the node itself can tell.
    async fn other_chain(&self, node: &Node, fault: Fault) -> Fault {
        #[derive(Deserialize)]
        struct Status {
            genesis: B256,
        }
        if !matches!(fault, Fault::Lie(_)) {
            return fault;
        }
        let expected = self.trust.genesis();
        match self.nodes.call::<Status>(node, "surety_status", json!([])).await {
            Ok(Status { genesis: found }) if found != expected => Fault::OtherChain { expected, found },
            _ => fault,
        }
    }
}
