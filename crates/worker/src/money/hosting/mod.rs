//! Hosting: keeps models at the number of holders that the ledger wants, and shows it in every epoch.
//!
//! In:     the models that the worker holds; the ledger's pools, pins and challenges.
//! Out:    pins, proofs, pins taken back; how it stands with each model; what proofs were paid.
//! Touches: the ledger, through the worker's account; files, through the view that gives them to others; the book.
//! Holds:  nothing is pinned whose file is not here, whole; what is drawn is opened as soon as it is seen, and again until the
//!         ledger has it or the epoch is over; a loss of gas is bounded in every epoch.
//! Absent: what a proof shows, and counting what was missed: the ledger does both.

mod deal;
mod fetch;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{B256, U256};
use alloy_sol_types::SolEvent as _;
use surety_blobs::{ReadError, View};
use surety_chain::Params;
use surety_client::channel::{Account, AccountError, ModuleCall, Noted, view};
use surety_net::Endpoint;
use surety_types::{
    Canonical as _, Digest, Manifest, ModelId, PublicKey,
    abi::{
        IHosting::{self, File, Opening, Pin},
        Module,
        address::HOSTING,
    },
};
use tokio::{
    sync::{oneshot, watch},
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

pub use self::{deal::HostingPolicy, fetch::Room};

use self::deal::Deal;
use super::{
    Problem,
    store::{Fetched, Proven, Store},
    till::DAY_MS,
};
use crate::clock::now_ms;

/// Between two looks at the epoch.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// After something failed; doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Doublings after which the pause is the longest.
const PAUSES_MAX: u32 = 5;
/// Refusals about one model after which it is left alone for the epoch: each may have cost its gas.
const REFUSALS_MAX: u32 = 4;
/// Places in the ledger's list of a model's pins that are looked at.
const PLACES_MAX: u64 = 1_000;
/// What a page of a list on the ledger holds.
const PAGE: u64 = 100;

/// What a worker does to have models kept.
#[derive(Debug, Clone, Default)]
pub struct HostingSettings {
    /// For what it pins the models it serves.
    pub policy: HostingPolicy,
    /// Room for further models, that others pay to have kept and too few keep; none are fetched without.
    pub room: Option<Room>,
}

/// How it stands with a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosted {
    /// Which.
    pub model: ModelId,
    /// Whether the operator pins it.
    pub pinned: bool,
    /// Whether it was fetched for that.
    pub fetched: bool,
    /// Epochs in which the operator proved it, as the ledger counts …
    pub proven: u64,
    /// … and in which it was challenged and did not.
    pub missed: u64,
    /// The last epoch in which it did.
    pub last_proven: Option<u64>,
    /// Wei that were given for the model and are not paid yet.
    pub pool_wei: U256,
    /// Wei that each of the first pins proven in an epoch is paid …
    pub part_wei: U256,
    /// … and what a proof costs, at most.
    pub cost_wei: U256,
    /// Operators that pin it.
    pub pins: u64,
    /// As many are wanted and paid.
    pub wanted: u64,
    /// What was last done about it, for people.
    pub doing: String,
    /// Why that is not done which should be.
    pub problem: Option<Problem>,
}

/// What hosting needs of a worker.
pub(crate) struct Hosts {
    pub(crate) view: Arc<View>,
    pub(crate) endpoint: Endpoint,
}

/// What the duties hand over.
pub(super) struct Start {
    pub(super) account: Arc<dyn Account>,
    pub(super) worker: PublicKey,
    pub(super) settings: HostingSettings,
    pub(super) hosts: Hosts,
    pub(super) store: Store,
    pub(super) serves: Vec<(ModelId, Manifest)>,
    pub(super) state: watch::Sender<Vec<Hosted>>,
}

/// Hosting, being done.
pub(super) struct Hosting {
    leave: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), AccountError>>,
}

impl Hosting {
    pub(super) fn start(start: Start) -> Hosting {
        let (leave, left) = oneshot::channel();
        Hosting { leave: Some(leave), task: tokio::spawn(Worker::new(start).run(left)) }
    }

    /// Takes every pin back, and ends.
    pub(super) async fn leave(mut self) -> Result<(), AccountError> {
        let told = self.leave.take().is_some_and(|leave| leave.send(()).is_ok());
        match (&mut self.task).await {
            Ok(result) if told => result,
            Ok(_) | Err(_) => Err(problem("hosting has ended by itself", "see the log")),
        }
    }
}

impl Drop for Hosting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn word(model: ModelId) -> B256 {
    B256::from(model.0.0)
}

fn problem(message: impl Into<String>, hint: impl Into<String>) -> AccountError {
    AccountError { message: message.into(), hint: hint.into(), refused: true }
}

/// A model that is hosted, or might be.
struct Model {
    /// If it is served; it can be listed then.
    manifest: Option<Manifest>,
    fetched: bool,
    /// The epoch in which nothing more is to be done about it.
    settled: Option<u64>,
    /// The epoch in which refusals are counted, and how many there were.
    refused: (u64, u32),
    /// Failures since something went well, and when to try again.
    failed: u32,
    again: Option<Instant>,
    shown: Hosted,
}

impl Model {
    fn new(id: ModelId, manifest: Option<Manifest>, fetched: bool) -> Model {
        let shown = Hosted {
            model: id,
            pinned: false,
            fetched,
            proven: 0,
            missed: 0,
            last_proven: None,
            pool_wei: U256::ZERO,
            part_wei: U256::ZERO,
            cost_wei: U256::ZERO,
            pins: 0,
            wanted: 0,
            doing: "looking at the ledger".to_owned(),
            problem: None,
        };
        Model { manifest, fetched, settled: None, refused: (0, 0), failed: 0, again: None, shown }
    }

    fn is_due(&self, epoch: u64) -> bool {
        self.settled != Some(epoch) && self.again.is_none_or(|again| again <= Instant::now())
    }

    fn pass(&mut self, epoch: u64, done: Result<Done, AccountError>) {
        self.again = None;
        match done {
            Ok(Done { doing, settled }) => {
                (self.shown.doing, self.shown.problem) = (doing, None);
                self.settled = settled.then_some(epoch);
                self.failed = 0;
            }
            Err(AccountError { message, hint, refused }) => {
                if self.refused.0 != epoch {
                    self.refused = (epoch, 0);
                }
                // What was refused may have cost its gas; a ledger that is not reached costs nothing.
                self.refused.1 += u32::from(refused);
                if self.refused.1 >= REFUSALS_MAX {
                    self.settled = Some(epoch);
                }
                self.failed = self.failed.saturating_add(1);
                let pause = PAUSE_MIN * 2_u32.saturating_pow(self.failed.min(PAUSES_MAX));
                self.again = Some(Instant::now() + pause.min(PAUSE_MAX));
                let problem = Some(Problem { message, hint });
                if self.shown.problem != problem {
                    let Some(Problem { message, hint }) = &problem else { return };
                    tracing::warn!(model = %self.shown.model, message, hint, "a model's hosting is not done yet");
                }
                self.shown.problem = problem;
            }
        }
    }
}

/// What was done about a model.
struct Done {
    doing: String,
    /// Whether that is all, for this epoch.
    settled: bool,
}

fn settled(doing: impl Into<String>) -> Result<Done, AccountError> {
    Ok(Done { doing: doing.into(), settled: true })
}

fn going_on(doing: impl Into<String>) -> Result<Done, AccountError> {
    Ok(Done { doing: doing.into(), settled: false })
}

/// Whether a model's files are here.
enum Files {
    Whole,
    BeingRead,
    Not(String),
}

struct Worker {
    account: Arc<dyn Account>,
    worker: B256,
    settings: HostingSettings,
    view: Arc<View>,
    endpoint: Endpoint,
    store: Store,
    state: watch::Sender<Vec<Hosted>>,
    models: BTreeMap<ModelId, Model>,
    /// What is being fetched, and the epoch in which that was last thought about.
    fetching: Option<(Fetched, JoinHandle<Result<(), String>>)>,
    thought: Option<u64>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.fetching {
            task.abort();
        }
    }
}

impl Worker {
    fn new(start: Start) -> Worker {
        let Start { account, worker, settings, hosts: Hosts { view, endpoint }, store, serves, state } =
            start;
        let serves = serves.into_iter().map(|(id, manifest)| (id, Model::new(id, Some(manifest), false)));
        Worker {
            account,
            worker: B256::from(worker.0),
            settings,
            view,
            endpoint,
            store,
            state,
            models: serves.collect(),
            fetching: None,
            thought: None,
        }
    }

    async fn run(mut self, mut left: oneshot::Receiver<()>) -> Result<(), AccountError> {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut all_known, mut asked) = (false, None);
        loop {
            tokio::select! {
                told = &mut left => {
                    return if told.is_ok() { self.leave().await } else { Ok(()) };
                }
                _ = ticks.tick() => {}
            }
            if !all_known {
                all_known = self.remember().await.is_ok();
            }
            let Ok(moment) = self.account.moment().await else { continue };
            let epoch = moment.epoch;
            // What governance sets changes rarely; once in an epoch is looked.
            let params = match asked.take() {
                Some((of, params)) if of == epoch => params,
                _ => match self.account.params().await {
                    Ok(params) => params,
                    Err(_) => continue,
                },
            };
            for id in self.models.keys().copied().collect::<Vec<_>>() {
                if self.models[&id].is_due(epoch) {
                    self.tend(id, epoch, &params).await;
                    self.show();
                }
            }
            self.fetch(epoch, &params).await;
            asked = Some((epoch, params));
        }
    }

    /// Models that were pinned or fetched by an earlier process and are not served now.
    async fn remember(&mut self) -> Result<(), AccountError> {
        let fetched = self.store.all_fetched().map_err(|error| problem(error.to_string(), "see the disk"))?;
        for Fetched { model, .. } in fetched {
            let known = self.models.entry(model).or_insert_with(|| Model::new(model, None, true));
            (known.fetched, known.shown.fetched) = (true, true);
        }
        for model in fetch::pinned(&*self.account, self.account.address()).await? {
            self.models.entry(model).or_insert_with(|| Model::new(model, None, false));
        }
        Ok(())
    }

    fn show(&self) {
        self.state.send_replace(self.models.values().map(|model| model.shown.clone()).collect());
    }

    async fn send(&self, doing: &str, call: ModuleCall) -> Result<Noted, AccountError> {
        tracing::info!(doing, "a transaction is sent");
        Ok(self.account.send_noted(vec![call]).await?.pop().unwrap_or_default())
    }

    async fn tend(&mut self, id: ModelId, epoch: u64, params: &Params) {
        let Some(mut model) = self.models.remove(&id) else { return };
        let done = self.agree(&mut model, epoch, params).await;
        model.pass(epoch, done);
        // Of what is neither pinned, served nor fetched nothing is left to say.
        if model.shown.pinned || model.manifest.is_some() || model.fetched || model.shown.problem.is_some() {
            self.models.insert(id, model);
        }
    }

    /// Pins, proves or takes back, whichever is due.
    async fn agree(&self, model: &mut Model, epoch: u64, params: &Params) -> Result<Done, AccountError> {
        let (account, operator) = (&*self.account, self.account.address());
        let id = word(model.shown.model);
        let hosted = view(account, Module::Hosting, &IHosting::hostedCall { model: id }).await?;
        if hosted.files == 0 {
            let listing = model.manifest.as_ref().filter(|_| self.settings.policy == HostingPolicy::Wanted);
            let Some(manifest) = listing else {
                return settled("nobody has given anything for its hosting");
            };
            let call = IHosting::listCall { manifest: manifest.to_cbor().into() };
            self.send("listing a model's files", ModuleCall::new(Module::Hosting, &call)).await?;
            return going_on("its files are listed");
        }
        let files = view(account, Module::Hosting, &IHosting::filesOfCall { model: id }).await?;
        let deal = Deal::new(self.settings.policy, hosted.pool, &files, params);
        let pin = view(account, Module::Hosting, &IHosting::pinOfCall { model: id, operator }).await?;
        model.shown = Hosted {
            pinned: !pin.worker.is_zero(),
            proven: pin.proven,
            missed: pin.missed,
            last_proven: (pin.lastProven != 0).then_some(pin.lastProven),
            pool_wei: hosted.pool,
            part_wei: deal.part,
            cost_wei: deal.cost,
            pins: hosted.pins,
            wanted: deal.wanted,
            ..model.shown.clone()
        };
        let here = self.here(&files).await;
        if model.shown.pinned {
            return self.keep(model, &pin, &deal, epoch, &files, here).await;
        }
        match here {
            Files::Not(why) => return settled(why),
            Files::BeingRead => return going_on("its file is being read"),
            Files::Whole => {}
        }
        if !deal.worth_pinning(hosted.pins) {
            self.let_go(model, &files);
            return settled(match (self.settings.policy, deal.part < deal.cost) {
                (HostingPolicy::Off, _) => "not pinned: hosting is off",
                (_, true) => "not pinned: a proof costs more than it is paid",
                (_, false) => "not pinned: enough others keep it for what it pays",
            });
        }
        let call = IHosting::pinCall { model: id, worker: self.worker };
        self.send("pinning a model", ModuleCall::new(Module::Hosting, &call)).await?;
        model.shown.pinned = true;
        model.shown.pins += 1;
        settled(format!("pinned; proven from epoch {} on", epoch + 1))
    }

    /// Of a pin that is there: takes it back if it is of no use, else proves it.
    async fn keep(
        &self,
        model: &mut Model,
        pin: &Pin,
        deal: &Deal,
        epoch: u64,
        files: &[File],
        here: Files,
    ) -> Result<Done, AccountError> {
        let why = match here {
            _ if pin.worker != self.worker => Some("it was pinned with another worker's key".to_owned()),
            Files::Not(why) => Some(why),
            Files::BeingRead => return going_on("its file is being read"),
            Files::Whole if !deal.worth_keeping(model.shown.pins, self.place(model, deal).await?) => {
                Some("it does not pay any more".to_owned())
            }
            Files::Whole => None,
        };
        if let Some(why) = why {
            self.unpin(model).await?;
            // With another key it is looked at anew at once.
            return Ok(Done {
                doing: format!("the pin is taken back: {why}"),
                settled: pin.worker == self.worker,
            });
        }
        if pin.since >= epoch {
            return settled(format!("pinned; proven from epoch {} on", pin.since + 1));
        }
        if pin.lastProven >= epoch {
            return settled(format!("proven in epoch {epoch}"));
        }
        let (id, operator) = (word(model.shown.model), self.account.address());
        let challenge = IHosting::challengeCall { model: id, operator };
        let challenge = match view(&*self.account, Module::Hosting, &challenge).await {
            Ok(challenge) if challenge.epoch == epoch && !challenge.chunks.is_empty() => challenge,
            // Between an epoch's last block and the first of the next there is no beacon.
            Ok(_) => return going_on("the epoch's challenge is not known yet"),
            Err(error) if error.refused => return going_on("the epoch's challenge is not known yet"),
            Err(error) => return Err(error),
        };
        let openings = self.open(files, &challenge.chunks).await?;
        let call = IHosting::proveCall { model: id, operator, epoch, openings };
        let noted = self.send("proving a pin", ModuleCall::new(Module::Hosting, &call)).await?;
        let paid = paid_in(&noted, id);
        let wei = paid.saturating_to();
        let gas_wei = noted.fee.saturating_to();
        let day = now_ms() / DAY_MS;
        let kept =
            self.store.proven(Proven { day, model: model.shown.model, proofs: 1, wei, gas_wei }).done().await;
        model.shown.proven += 1;
        model.shown.last_proven = Some(epoch);
        model.shown.pool_wei = model.shown.pool_wei.saturating_sub(paid);
        // The ledger has it: it is not proven again, and what it was paid is missing from the book.
        kept.map_err(|error| problem(error.to_string(), "see the disk; the ledger has the proof"))?;
        settled(format!("proven in epoch {epoch}"))
    }

    /// The pin's place in the ledger's list, from zero; asked for only where it matters.
    async fn place(&self, model: &Model, deal: &Deal) -> Result<u64, AccountError> {
        if model.shown.pins <= deal.wanted {
            return Ok(0);
        }
        let operator = self.account.address();
        for offset in (0..PLACES_MAX).step_by(PAGE as usize) {
            let page = IHosting::pinsOfCall { model: word(model.shown.model), offset };
            let page = view(&*self.account, Module::Hosting, &page).await?;
            if let Some(at) = page.iter().position(|pin| pin.operator == operator) {
                return Ok(offset + at as u64);
            }
            if (page.len() as u64) < PAGE {
                break;
            }
        }
        Ok(PLACES_MAX)
    }

    async fn unpin(&self, model: &mut Model) -> Result<(), AccountError> {
        let call = IHosting::unpinCall { model: word(model.shown.model) };
        self.send("taking a pin back", ModuleCall::new(Module::Hosting, &call)).await?;
        model.shown.pinned = false;
        model.shown.pins = model.shown.pins.saturating_sub(1);
        Ok(())
    }

    /// Takes every pin back that there is.
    async fn leave(&mut self) -> Result<(), AccountError> {
        self.remember().await?;
        for mut model in std::mem::take(&mut self.models).into_values() {
            let operator = self.account.address();
            let pin = IHosting::pinOfCall { model: word(model.shown.model), operator };
            if !view(&*self.account, Module::Hosting, &pin).await?.worker.is_zero() {
                self.unpin(&mut model).await?;
            }
        }
        self.state.send_replace(Vec::new());
        Ok(())
    }

    /// Whether these files can be opened. Reads each once, the first time.
    async fn here(&self, files: &[File]) -> Files {
        let (view, digests) = (Arc::clone(&self.view), digests(files));
        let read = spawn_blocking(move || {
            digests.iter().try_for_each(|digest| view.tree(*digest, &mut |_, _| {}).map(drop))
        });
        match read.await {
            Ok(Ok(())) => Files::Whole,
            Ok(Err(ReadError::Reading { .. })) => Files::BeingRead,
            Ok(Err(error)) => Files::Not(error.to_string()),
            Err(error) => Files::Not(error.to_string()),
        }
    }

    async fn open(&self, files: &[File], chunks: &[IHosting::Chunk]) -> Result<Vec<Opening>, AccountError> {
        let lost = |why: String| problem(why, "put the file back as it was, or let the pin go");
        let (view, digests, chunks) = (Arc::clone(&self.view), digests(files), chunks.to_vec());
        let opened = spawn_blocking(move || {
            let open = |chunk: &IHosting::Chunk| {
                let digest = usize::try_from(chunk.file).ok().and_then(|number| digests.get(number));
                let digest = *digest.ok_or_else(|| "the ledger drew a chunk of no file".to_owned())?;
                let slice = view.slice(digest, chunk.index).map_err(|error| error.to_string())?;
                let siblings = slice.siblings.into_iter().map(B256::from).collect();
                Ok(Opening { data: slice.data.into(), siblings })
            };
            chunks.iter().map(open).collect::<Result<Vec<_>, String>>()
        });
        opened.await.map_err(|error| lost(error.to_string()))?.map_err(lost)
    }

    /// Fetches what is paid for and too few keep, one model at a time.
    async fn fetch(&mut self, epoch: u64, params: &Params) {
        let Some(room) = self.settings.room.clone() else { return };
        if let Some((wanted, task)) = self.fetching.take() {
            if !task.is_finished() {
                self.fetching = Some((wanted, task));
                return;
            }
            match task.await {
                Ok(Ok(())) => {
                    self.store.fetched(wanted);
                    self.models.insert(wanted.model, Model::new(wanted.model, None, true));
                }
                Ok(Err(error)) => {
                    tracing::warn!(model = %wanted.model, error, "a model to be hosted was not fetched")
                }
                Err(error) => tracing::error!(%error, "fetching a model failed"),
            }
            return;
        }
        if self.settings.policy == HostingPolicy::Off || self.thought == Some(epoch) {
            return;
        }
        self.thought = Some(epoch);
        let taken = self.store.all_fetched().unwrap_or_default().iter().map(|one| one.bytes).sum();
        let left = fetch::left(&room, taken);
        let chosen = fetch::choose(&*self.account, params, left, |id| self.models.contains_key(&id)).await;
        let Ok(Some(wanted)) = chosen else { return };
        let Ok(holders) = fetch::holders(&*self.account, wanted.model, &self.endpoint).await else { return };
        tracing::info!(model = %wanted.model, bytes = wanted.bytes, holders = holders.len(), "a model is fetched to be hosted");
        let task = tokio::spawn(fetch::fetch(self.endpoint.clone(), room.store, wanted, holders));
        self.fetching = Some((wanted, task));
    }

    /// What was fetched and does not pay any more takes no room.
    fn let_go(&self, model: &mut Model, files: &[File]) {
        if !model.fetched {
            return;
        }
        (model.fetched, model.shown.fetched) = (false, false);
        self.store.let_go(model.shown.model);
        if let (Some(room), None) = (&self.settings.room, &model.manifest) {
            digests(files).into_iter().for_each(|digest| fetch::let_go(&room.store, digest));
        }
    }
}

fn digests(files: &[File]) -> Vec<Digest> {
    files.iter().map(|file| Digest(file.digest.0)).collect()
}

/// What the ledger notes to have paid for a proof.
fn paid_in(noted: &Noted, model: B256) -> U256 {
    let ours = noted.logs.iter().filter(|log| log.address == HOSTING);
    let mut proven = ours.filter_map(|log| IHosting::Proven::decode_log(log).ok());
    proven.find(|event| event.model == model).map_or(U256::ZERO, |event| event.paid)
}
