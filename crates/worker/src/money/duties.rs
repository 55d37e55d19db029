//! Duties: makes the ledger agree with the settings, and keeps claiming and posting what is due.
//!
//! In:     settings, the book; the ledger's state. Out: transactions; how things stand.
//! Touches: the ledger.
//! Holds:  everything is looked up before it is sent, so that a restart repeats nothing; what is claimed is what receipts
//!         charged; an unreachable ledger is tried again, and said.
//! Absent: taking vouchers (`till`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall as _;
use surety_chain::{Params, root_of, worker_proof_message};
use surety_client::{
    channel::{Account, AccountError, ModuleCall, view},
    models::{Naming, naming, publication},
};
use surety_net::Location;
use surety_types::{
    Digest, Manifest, ModelId, Price, PublicKey, SecretKey,
    abi::{
        IAudits,
        IChannels::{self, VoucherClaim},
        IOperators, IReceipts, IStaking, Module,
    },
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    Duties, Hosted, Hosts, Problem, WorkerLedger,
    hosting::{Hosting, Start},
    inclusion::leaf_hashes,
    till::Till,
};

/// Between two looks at the ledger.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// After something failed; doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Vouchers claimed by one transaction.
const CLAIMS_MAX: usize = 32;
/// Channels without orders that one look includes.
const IDLE_PER_LOOK: usize = 32;
/// For the last claim, at shutdown.
const FAREWELL: Duration = Duration::from_secs(10);
/// For that and leaving the ledger.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(40);
/// What a page of a list on the ledger holds.
const PAGE: usize = 100;
/// Wei left for gas when all is bonded.
const GAS_RESERVE: u128 = 100_000_000_000_000_000;

/// What is to be registered.
pub(crate) struct Registration {
    pub(crate) key: SecretKey,
    pub(crate) endpoint: Location,
    pub(crate) models: Vec<(ModelId, Manifest, Vec<String>)>,
}

/// The duties, being done.
pub(crate) struct Duty {
    state: watch::Receiver<Duties>,
    hosted: watch::Receiver<Vec<Hosted>>,
    stop: Option<oneshot::Sender<Leave>>,
    task: JoinHandle<Option<Problem>>,
}

/// Told to the duties: the worker leaves for good.
struct Leave;

impl Duty {
    /// Begins; `ready` is called once, when the ledger names the worker. Without `hosts` nothing is pinned.
    pub(crate) fn start(
        ledger: WorkerLedger,
        till: Arc<Till>,
        registration: Registration,
        hosts: Option<Hosts>,
        ready: impl FnOnce() + Send + 'static,
    ) -> Duty {
        let (state, seen) = watch::channel(Duties::default());
        let (pins, hosted) = watch::channel(Vec::new());
        let (stop, stopped) = oneshot::channel();
        let worker = Worker {
            account: Arc::clone(&ledger.account),
            ledger,
            till,
            registration,
            state,
            turn: AtomicUsize::new(0),
        };
        let hosts = hosts.map(|hosts| (hosts, pins));
        let task = tokio::spawn(worker.run(ready, hosts, stopped));
        Duty { state: seen, hosted, stop: Some(stop), task }
    }

    pub(crate) fn state(&self) -> watch::Receiver<Duties> {
        self.state.clone()
    }

    /// How it stands with each model that is hosted or might be.
    pub(crate) fn hosted(&self) -> watch::Receiver<Vec<Hosted>> {
        self.hosted.clone()
    }

    /// Claims what is left to claim, takes the worker off the ledger, and ends; why it is still there, if it is.
    pub(crate) async fn leave(mut self) -> Option<Problem> {
        let told = self.stop.take().is_some_and(|stop| stop.send(Leave).is_ok());
        let ended = timeout(LEAVE_TIMEOUT, &mut self.task).await;
        let unsaid = |message: &str| {
            Some(Problem {
                message: message.to_owned(),
                hint: "try again, or retire its key by hand (retireWorker)".to_owned(),
            })
        };
        match ended {
            Ok(Ok(problem)) if told => problem,
            Ok(_) => unsaid("the worker is still on the ledger"),
            Err(_) => {
                self.task.abort();
                unsaid("the ledger did not take the worker's leave in time")
            }
        }
    }

    /// Claims what is left to claim, and ends.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        if timeout(FAREWELL, &mut self.task).await.is_err() {
            tracing::warn!(
                "the ledger did not take the last claims in time: they are made at the next start"
            );
            self.task.abort();
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.task.abort();
        }
    }
}

struct Worker {
    account: Arc<dyn Account>,
    ledger: WorkerLedger,
    till: Arc<Till>,
    registration: Registration,
    state: watch::Sender<Duties>,
    /// Whose turn it is among the channels that rest.
    turn: AtomicUsize,
}

/// Why a duty is not done.
fn problem(message: impl Into<String>, hint: impl Into<String>) -> AccountError {
    AccountError { message: message.into(), hint: hint.into(), refused: true }
}

impl Worker {
    async fn run(
        self,
        ready: impl FnOnce(),
        hosts: Option<(Hosts, watch::Sender<Vec<Hosted>>)>,
        mut stopped: oneshot::Receiver<Leave>,
    ) -> Option<Problem> {
        let params = tokio::select! {
            params = self.register() => params,
            told = &mut stopped => return if told.is_ok() { self.leave().await } else { None },
        };
        ready();
        self.state.send_modify(|state| {
            *state = Duties { registered: true, doing: "serving".to_owned(), problem: None };
        });
        let hosting = hosts.map(|(hosts, state)| {
            let models = self.registration.models.iter();
            Hosting::start(Start {
                account: Arc::clone(&self.account),
                worker: self.registration.key.public(),
                settings: self.ledger.hosting.clone(),
                hosts,
                store: self.till.store().clone(),
                serves: models.map(|(id, manifest, _)| (*id, manifest.clone())).collect(),
                state,
            })
        });
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut charges = self.till.charges();
        let mut claimed_at = Instant::now();
        loop {
            let stop = tokio::select! {
                told = &mut stopped => Some(told.is_ok()),
                _ = ticks.tick() => None,
                // Much may be earned between two ticks.
                Ok(()) = charges.changed(), if self.unclaimed() < self.ledger.claims.threshold_wei => {
                    if self.unclaimed() < self.ledger.claims.threshold_wei { continue } else { None }
                }
            };
            let interval_over = claimed_at.elapsed() >= self.ledger.claims.interval;
            let done = self.tend(&params, stop.is_some() || interval_over).await;
            match &done {
                Ok(claimed) => {
                    if *claimed || interval_over {
                        claimed_at = Instant::now();
                    }
                    self.say("serving");
                }
                Err(error) => self.tell(error),
            }
            match stop {
                Some(true) => {
                    // Pins first: a worker that is not in service proves nothing.
                    let unpinned = match hosting {
                        Some(hosting) => hosting.leave().await,
                        None => Ok(()),
                    };
                    let kept =
                        unpinned.err().map(|AccountError { message, hint, .. }| Problem { message, hint });
                    return self.leave().await.or(kept);
                }
                Some(false) => return None,
                None => {}
            }
        }
    }

    /// Withdraws what the worker offers and retires its key; why that failed, if it did.
    async fn leave(&self) -> Option<Problem> {
        let done = async {
            let operator = self.account.address();
            for offer in self.offers(operator).await? {
                let call = IOperators::withdrawOfferCall { model: offer.model };
                self.send("withdrawing an offer", ModuleCall::new(Module::Operators, &call)).await?;
            }
            let key = B256::from(self.registration.key.public().0);
            let known = view(&*self.account, Module::Operators, &IOperators::workerCall { key }).await?;
            if known.operator == operator && known.retiredHeight == 0 {
                let call = IOperators::retireWorkerCall { key };
                self.send("retiring the worker", ModuleCall::new(Module::Operators, &call)).await?;
            }
            Ok::<(), AccountError>(())
        };
        let AccountError { message, hint, .. } = done.await.err()?;
        Some(Problem { message, hint })
    }

    /// Makes the ledger agree with the settings, however long that takes.
    async fn register(&self) -> Params {
        let mut pause = PAUSE_MIN;
        loop {
            match self.agree().await {
                Ok(params) => {
                    let operator = self.account.address();
                    tracing::info!(%operator, "the ledger names this worker");
                    return params;
                }
                Err(error) => {
                    self.tell(&error);
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn say(&self, doing: impl Into<String>) {
        let doing = doing.into();
        self.state.send_if_modified(|state| {
            let changed = state.doing != doing || state.problem.is_some();
            (state.doing, state.problem) = (doing, None);
            changed
        });
    }

    fn tell(&self, error: &AccountError) {
        let AccountError { message, hint, .. } = error.clone();
        let new = self.state.send_if_modified(|state| {
            let problem = Some(Problem { message: message.clone(), hint: hint.clone() });
            let changed = state.problem != problem;
            state.problem = problem;
            changed
        });
        if new {
            tracing::warn!(message, hint, "a duty towards the ledger is not done yet");
        }
    }

    async fn send(&self, doing: &str, call: ModuleCall) -> Result<(), AccountError> {
        self.say(doing);
        tracing::info!(doing, "a transaction is sent");
        self.account.send(vec![call]).await
    }

    /// One pass over all that must be so; sends what is not so yet.
    async fn agree(&self) -> Result<Params, AccountError> {
        self.say("looking at the ledger");
        let account = &*self.account;
        let (operator, key) = (account.address(), self.registration.key.public());
        let params = account.params().await?;
        self.till.set_delay_min_s(params.channel_delay_min_s);
        let epoch = account.moment().await?.epoch;
        self.till.set_epoch(epoch).await.map_err(|error| problem(error.to_string(), "see the disk"))?;
        self.bond(operator, &params).await?;
        let registered =
            view(account, Module::Operators, &IOperators::operatorOfCall { account: operator }).await?;
        if registered.height == 0 || registered.name != self.ledger.name {
            let call = IOperators::registerCall { name: self.ledger.name.clone(), url: registered.url };
            self.send("registering the operator", ModuleCall::new(Module::Operators, &call)).await?;
        }
        self.add_worker(operator, key).await?;
        for (_, manifest, _) in &self.registration.models {
            if let Some(call) = publication(account, manifest).await? {
                let sent = self.send("publishing a model", call).await;
                // Another worker may have been faster.
                if publication(account, manifest).await?.is_some() {
                    sent?;
                }
            }
        }
        self.offer(operator).await?;
        self.take_names().await?;
        Ok(params)
    }

    async fn bond(&self, operator: Address, params: &Params) -> Result<(), AccountError> {
        let account = &*self.account;
        let own = IStaking::bondedOfCall { operator, delegator: operator };
        let own = view(account, Module::Staking, &own).await?;
        let missing = self.ledger.bond.saturating_sub(own);
        if !missing.is_zero() {
            let balance = account.balance().await?;
            if balance < missing.saturating_add(U256::from(GAS_RESERVE)) {
                return Err(problem(
                    format!(
                        "{operator} has {balance} wei; {missing} more are to be bonded, and gas is to be paid"
                    ),
                    format!("send credits to {operator}, or set a smaller bond"),
                ));
            }
            let call = ModuleCall::paying(Module::Staking, &IStaking::bondCall {}, missing);
            self.send("bonding", call).await?;
        }
        let bonded = view(account, Module::Staking, &IStaking::bondedToCall { operator }).await?;
        if bonded < U256::from(params.worker_stake_min) {
            return Err(problem(
                format!(
                    "{bonded} wei are bonded to {operator}; an operator needs {}",
                    params.worker_stake_min
                ),
                "set a larger bond",
            ));
        }
        Ok(())
    }

    async fn add_worker(&self, operator: Address, key: PublicKey) -> Result<(), AccountError> {
        let account = &*self.account;
        let endpoint = self.registration.endpoint.to_string();
        let word = B256::from(key.0);
        // Receipts of one epoch have one root: an account has one worker.
        let mut offset = 0;
        loop {
            let page = IOperators::workersOfCall { operator, offset };
            let page = view(account, Module::Operators, &page).await?;
            if let Some(other) = page.iter().find(|other| other.key != word && other.retiredHeight == 0) {
                return Err(problem(
                    format!("{operator} has another worker in service, with key {}", PublicKey(other.key.0)),
                    "each worker has an account of its own: use another, or retire that key (retireWorker) if it is gone",
                ));
            }
            offset += page.len() as u64;
            if page.len() < PAGE {
                break;
            }
        }
        let known = view(account, Module::Operators, &IOperators::workerCall { key: word }).await?;
        if known.operator.is_zero() {
            let message = worker_proof_message(account.chain_id(), operator, &key);
            let proof = self.registration.key.sign(&message).to_vec().into();
            let call = IOperators::addWorkerCall { key: word, endpoint, proof };
            return self.send("registering the worker", ModuleCall::new(Module::Operators, &call)).await;
        }
        if known.operator != operator {
            return Err(problem(
                format!("the worker's key belongs to {}", known.operator),
                "use that account, or make the worker a new key",
            ));
        }
        if known.retiredHeight != 0 {
            return Err(problem("the worker's key was retired", "make the worker a new key"));
        }
        if known.endpoint != endpoint {
            let call = IOperators::setEndpointCall { key: word, endpoint };
            self.send("announcing the worker's address", ModuleCall::new(Module::Operators, &call)).await?;
        }
        Ok(())
    }

    async fn offers(&self, operator: Address) -> Result<Vec<IOperators::Offer>, AccountError> {
        let mut offers = Vec::new();
        loop {
            let call = IOperators::offersOfCall { operator, offset: offers.len() as u64 };
            let page = view(&*self.account, Module::Operators, &call).await?;
            let last = page.len() < PAGE;
            offers.extend(page);
            if last {
                return Ok(offers);
            }
        }
    }

    async fn offer(&self, operator: Address) -> Result<(), AccountError> {
        let offers = self.offers(operator).await?;
        let Price { prompt, cached, output } = self.ledger.price;
        let asked = (prompt.0, cached.0, output.0);
        for (id, ..) in &self.registration.models {
            let model = B256::from(id.0.0);
            let offered = offers.iter().find(|offer| offer.model == model);
            if offered.map(|offer| (offer.promptPrice, offer.cachedPrice, offer.outputPrice)) != Some(asked) {
                let call = IOperators::offerCall {
                    model,
                    promptPrice: prompt.0,
                    cachedPrice: cached.0,
                    outputPrice: output.0,
                };
                self.send("offering a model", ModuleCall::new(Module::Operators, &call)).await?;
            }
        }
        for offer in offers {
            if self.registration.models.iter().all(|(id, ..)| offer.model.0 != id.0.0) {
                let call = IOperators::withdrawOfferCall { model: offer.model };
                self.send("withdrawing an offer", ModuleCall::new(Module::Operators, &call)).await?;
            }
        }
        Ok(())
    }

    /// Points names that are free at our models. That a name is taken, or none on the ledger, is nobody's problem.
    async fn take_names(&self) -> Result<(), AccountError> {
        for (id, _, names) in &self.registration.models {
            for name in names {
                let call = match naming(&*self.account, name, *id).await {
                    Ok(Naming::Free(call)) => call,
                    Ok(Naming::Points | Naming::Elsewhere(..) | Naming::Taken(_)) => continue,
                    Err(error) if error.refused => continue,
                    Err(error) => return Err(error),
                };
                match self.send("naming a model", call).await {
                    Err(error) if !error.refused => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn unclaimed(&self) -> u128 {
        self.till.read(|book| book.iter().map(|(_, entry)| entry.unclaimed()).sum())
    }

    /// Looks at the channels in use, claims if it is time, posts what is over; whether something was claimed.
    async fn tend(&self, params: &Params, claim: bool) -> Result<bool, AccountError> {
        let epoch = self.account.moment().await?.epoch;
        let kept = self.till.set_epoch(epoch).await;
        kept.map_err(|error| {
            problem(error.to_string(), "make room on the disk, and start the worker again")
        })?;
        let (mut used, idle): (Vec<Digest>, Vec<Digest>) = self.till.read(|book| {
            let is_used =
                |id: &Digest| book.get(id).is_some_and(|entry| entry.orders() > 0 || entry.unclaimed() > 0);
            book.iter().map(|(id, _)| *id).partition(is_used)
        });
        // Those that rest take turns: each is seen long before a withdrawal from it can end.
        let turn = self.turn.fetch_add(IDLE_PER_LOOK, Ordering::Relaxed);
        used.extend(idle.iter().cycle().skip(turn % idle.len().max(1)).take(IDLE_PER_LOOK.min(idle.len())));
        self.till.refresh(&used).await?;
        let leaving = self
            .till
            .read(|book| book.iter().any(|(_, entry)| entry.chain.withdrawing && entry.unclaimed() > 0));
        // What is claimed when a log is posted is paid when that log is closed (U-7.3): so what it charged is claimed before.
        let unreadable = |error: super::store::NotKept| problem(error.to_string(), "see the disk");
        let over = !self.till.store().unposted(epoch).map_err(unreadable)?.is_empty();
        let claimed = if claim || leaving || over || self.unclaimed() >= self.ledger.claims.threshold_wei {
            self.claim().await
        } else {
            Ok(false)
        };
        self.till.forget_closed();
        // A claim that is refused keeps no log from being posted.
        self.post(epoch, params).await?;
        claimed
    }

    /// Claims what receipts charged on all channels, and has it paid out; whether there was anything.
    async fn claim(&self) -> Result<bool, AccountError> {
        let claims: Vec<(Digest, VoucherClaim)> = self.till.read(|book| {
            let due = book.iter().filter(|(_, entry)| {
                // More than there is cannot be claimed: the rest waits for the payer.
                entry.unclaimed() > 0 && entry.chain.balance > entry.chain.claimed
            });
            let claim = |(id, entry): (&Digest, &super::book::Entry)| {
                let voucher = IChannels::Voucher {
                    channel: entry.row.channel.config(),
                    maxClaimableAmount: entry.row.highest,
                };
                let claim = VoucherClaim {
                    voucher,
                    signature: entry.row.signature.to_vec().into(),
                    totalClaimed: entry.claimable().min(entry.chain.balance),
                };
                (*id, claim)
            };
            due.map(claim).collect()
        });
        let receiver = self.account.address();
        if claims.is_empty() {
            // What was claimed before, and has been audited since.
            let pay = IAudits::payOfCall { operator: receiver };
            if !view(&*self.account, Module::Audits, &pay).await?.due.is_zero() {
                let settle = IChannels::settleCall { receiver, token: Address::ZERO };
                self.send("being paid what was audited", ModuleCall::new(Module::Channels, &settle)).await?;
            }
            return Ok(false);
        }
        // Pay that is withheld (U-6.3) can be claimed all the same: a claim is safe from the payer.
        let standing = IAudits::standingOfCall { operator: receiver };
        let withheld = view(&*self.account, Module::Audits, &standing).await?.withheldUntil;
        if withheld != 0 {
            tracing::warn!(until_epoch = withheld, "pay is withheld: too many audits went unanswered");
        }
        for batch in claims.chunks(CLAIMS_MAX) {
            let voucher_claims = batch.iter().map(|(_, claim)| claim.clone()).collect();
            let mut data = vec![IChannels::claimCall { voucherClaims: voucher_claims }.abi_encode().into()];
            if withheld == 0 {
                data.push(IChannels::settleCall { receiver, token: Address::ZERO }.abi_encode().into());
            }
            let call = IChannels::multicallCall { data };
            self.send("claiming what was earned", ModuleCall::new(Module::Channels, &call)).await?;
            let ids: Vec<Digest> = batch.iter().map(|(id, _)| *id).collect();
            self.till.refresh(&ids).await?;
        }
        Ok(true)
    }

    /// Posts the roots of epochs that are over.
    async fn post(&self, now: u64, params: &Params) -> Result<(), AccountError> {
        let (till, operator) = (Arc::clone(&self.till), self.account.address());
        let unreadable = |error: super::store::NotKept| problem(error.to_string(), "see the disk");
        let oldest = now.saturating_sub(params.receipts_epochs_max);
        let unposted = till.store().unposted(now).map_err(unreadable)?;
        for epoch in unposted.into_iter().filter(|epoch| *epoch >= oldest) {
            let known = IReceipts::logOfCall { operator, epoch };
            if view(&*self.account, Module::Receipts, &known).await?.height == 0 {
                let digests = till.store().leaves(epoch).map_err(unreadable)?;
                let root = root_of(&leaf_hashes(&digests));
                let call = IReceipts::postCall { epoch, size: digests.len() as u64, root: B256::from(root) };
                self.send("posting an epoch's receipts", ModuleCall::new(Module::Receipts, &call)).await?;
            }
            till.store().posted(epoch);
        }
        till.store().prune(oldest);
        Ok(())
    }
}
