//! The desk: what a worker owes the audits of its own answers, and what it is drawn to audit of others'.
//!
//! In:     what the ledger draws; evidence from audited workers.
//! Out:    disclosures and answers; commitments and results.
//! Touches: the ledger, through the worker's account; the book, to read; other workers, over `net`; one thread.
//! Holds:  a result is computed, or nothing is committed to; who differs is told so by a result that nobody can have (U-5.2);
//!         computing waits while orders are served; everything is looked up before it is sent.
//! Absent: pay and standing (the ledger), disputes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alloy_primitives::{Address, B256};
use surety_chain::{inclusion_path, leaf_hash};
use surety_client::{
    AccountError,
    channel::{ModuleCall, view},
};
use surety_engine::{Model, replay::ReplayError};
use surety_kernels::Executor;
use surety_net::{Endpoint, Location, Protocol, WorkerAddress};
use surety_proof::{
    check::{Expected, check_answer},
    commit::audit_commitment,
};
use surety_types::{
    AuditEvidence, Digest, EvidenceRequest, ModelId, PublicKey,
    abi::{IAudits, IOperators, Module},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::{Discrepancy, answer_of, compute, is_confidential};
use crate::money::{Case, Till};

/// How far an audit has come, as the ledger says it.
pub(crate) mod stage {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const DISCLOSED: u8 = 1;
    pub(crate) const COMMITTED: u8 = 3;
    pub(crate) const REVEALED: u8 = 4;
    pub(crate) const DIFFERING: u8 = 6;
}

/// Between two looks at the ledger.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// The same, while something is under way.
const WORK_INTERVAL: Duration = Duration::from_millis(500);
/// What a page of a list on the ledger holds.
const PAGE: usize = 100;
/// Audits of others that are watched at once; the oldest are forgotten.
const WATCHED_MAX: usize = 2_048;
/// For evidence to come.
const EVIDENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks whether orders are still being served.
const BUSY_INTERVAL: Duration = Duration::from_millis(20);

/// What the desk works with.
pub(crate) struct Means {
    pub(crate) till: Arc<Till>,
    pub(crate) endpoint: Endpoint,
    pub(crate) key: PublicKey,
    pub(crate) models: BTreeMap<ModelId, Arc<Model>>,
    pub(crate) executor: Arc<Executor>,
    /// Whether orders are being served.
    pub(crate) busy: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Takes answers that are to be contested.
    pub(crate) contests: mpsc::UnboundedSender<Differing>,
}

/// An answer that this worker's audit contradicts.
pub(crate) struct Differing {
    pub(crate) evidence: AuditEvidence,
    /// Whether everything but the state is the same.
    pub(crate) only_state: bool,
}

/// What is under way.
struct Work {
    id: B256,
    evidence: AuditEvidence,
    /// None: it could not be computed here.
    result: oneshot::Receiver<Option<Digest>>,
}

/// What was committed to.
struct Promise {
    salt: [u8; 32],
    found: Digest,
    evidence: AuditEvidence,
}

/// A worker's audits.
pub(crate) struct Desk {
    means: Means,
    /// As of the last look.
    epoch: Option<u64>,
    /// Logs of which everything drawn is disclosed.
    disclosed: BTreeSet<u64>,
    /// Own answers that are being audited.
    own: BTreeMap<B256, Digest>,
    /// How many disclosures have been looked at.
    seen: Option<u64>,
    /// Disclosures of others that are not closed.
    watched: VecDeque<B256>,
    /// Those that this worker was drawn for.
    tasks: VecDeque<B256>,
    work: Option<Work>,
    promised: BTreeMap<B256, Promise>,
    /// What was said, and not answered yet.
    revealed: BTreeMap<B256, Differing>,
    /// Set when the desk is gone: what computes need wait no longer.
    gone: Arc<AtomicBool>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

impl Desk {
    pub(crate) fn new(means: Means) -> Desk {
        Desk {
            means,
            epoch: None,
            disclosed: BTreeSet::new(),
            own: BTreeMap::new(),
            seen: None,
            watched: VecDeque::new(),
            tasks: VecDeque::new(),
            work: None,
            promised: BTreeMap::new(),
            revealed: BTreeMap::new(),
            gone: Arc::default(),
        }
    }

    /// Does what is due, until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let idle = self.work.is_none()
                && self.promised.is_empty()
                && self.revealed.is_empty()
                && self.own.is_empty()
                && self.tasks.is_empty();
            sleep(if idle { LOOK_INTERVAL } else { WORK_INTERVAL }).await;
            if let Err(error) = self.tend().await {
                tracing::debug!(%error, "the ledger could not be asked about audits; it is tried again");
            }
        }
    }

    async fn view<C: alloy_sol_types::SolCall>(&self, call: &C) -> Result<C::Return, AccountError> {
        view(&**self.means.till.account(), Module::Audits, call).await
    }

    async fn audit(&self, id: B256) -> Result<IAudits::Audit, AccountError> {
        self.view(&IAudits::auditOfCall { id }).await
    }

    /// Sends a call; false if the ledger refused it, which is said and not tried again.
    async fn send(&self, doing: &str, call: ModuleCall) -> Result<bool, AccountError> {
        match self.means.till.account().send(vec![call]).await {
            Ok(()) => Ok(true),
            Err(error) if error.refused => {
                tracing::warn!(%error, doing, "the ledger refused a step of an audit");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn operator(&self) -> Address {
        self.means.till.account().address()
    }

    async fn tend(&mut self) -> Result<(), AccountError> {
        let epoch = self.means.till.account().moment().await?.epoch;
        self.follow().await?;
        if self.epoch != Some(epoch) {
            self.disclose_all(epoch).await?;
            self.look_for_tasks().await?;
            self.epoch = Some(epoch);
        }
        self.answer_all().await?;
        self.reveal_all().await?;
        self.contest_all().await?;
        self.go_on().await
    }

    /// U-3: discloses what is drawn of own logs.
    async fn disclose_all(&mut self, now: u64) -> Result<(), AccountError> {
        let operator = self.operator();
        let standing = self.view(&IAudits::standingOfCall { operator }).await?;
        let logs = self.view(&IAudits::logsOfCall { operator, offset: standing.accounted }).await?;
        self.disclosed.retain(|epoch| logs.contains(epoch));
        for epoch in logs {
            if self.disclosed.contains(&epoch) {
                continue;
            }
            let draw = self.view(&IAudits::drawOfCall { operator, epoch }).await?;
            if now < draw.drawnIn {
                continue;
            }
            let leaves = self.means.till.store().leaves(epoch).unwrap_or_default();
            for offset in (0..draw.count).step_by(PAGE) {
                let page = self.view(&IAudits::drawnCall { operator, epoch, offset }).await?;
                for (number, index) in (offset..).zip(page) {
                    let id = id(operator, epoch, number as u32);
                    self.disclose(now, id, index, &draw, &leaves).await?;
                }
            }
            self.disclosed.insert(epoch);
        }
        Ok(())
    }

    async fn disclose(
        &mut self,
        now: u64,
        id: B256,
        index: u64,
        draw: &IAudits::Draw,
        leaves: &[Digest],
    ) -> Result<(), AccountError> {
        let status = self.audit(id).await?.status;
        let receipt = usize::try_from(index).ok().and_then(|index| leaves.get(index));
        let Some(receipt) = receipt.filter(|_| leaves.len() as u64 == draw.size) else {
            tracing::warn!(index, "a receipt that is audited is not in the book");
            return Ok(());
        };
        match status {
            stage::NONE if now <= draw.discloseBy => {
                let Ok(Some(Case { evidence, .. })) = self.means.till.store().case(receipt) else {
                    tracing::warn!(%receipt, "what an audit of a receipt needs is no longer there");
                    return Ok(());
                };
                let hashes: Vec<[u8; 32]> = leaves.iter().map(|leaf| leaf_hash(&leaf.0)).collect();
                let path = inclusion_path(&hashes, index as usize).unwrap_or_default();
                let path = path.into_iter().map(B256::from).collect();
                let confidential = is_confidential(&evidence.order);
                if self.send("disclosing", disclosure(id, path, &evidence)).await? && !confidential {
                    tracing::info!(%receipt, "a receipt is audited");
                    self.own.insert(id, *receipt);
                }
            }
            stage::DISCLOSED | stage::COMMITTED | stage::REVEALED => {
                self.own.insert(id, *receipt);
            }
            _ => {}
        }
        Ok(())
    }

    /// U-5.1: opens own commitments where the auditor has said what it found.
    async fn answer_all(&mut self) -> Result<(), AccountError> {
        for (id, receipt) in self.own.clone() {
            let audit = self.audit(id).await?;
            match audit.status {
                stage::REVEALED => {
                    let case = self.means.till.store().case(&receipt);
                    if let Ok(Some(Case { salt, state_digest, .. })) = case {
                        let (salt, state) = (salt.into(), state_digest.0.into());
                        let call = IAudits::answerCall { id, salt, stateDigest: state };
                        self.send("answering", ModuleCall::new(Module::Audits, &call)).await?;
                        if audit.found != state {
                            tracing::warn!(%receipt, auditor = %audit.auditor, "an auditor differs; a dispute says who is right");
                        }
                    }
                    self.own.remove(&id);
                }
                stage::DISCLOSED | stage::COMMITTED
                    if audit.due != 0 || audit.disclosedIn >= self.epoch.unwrap_or(0) => {}
                _ => drop(self.own.remove(&id)),
            }
        }
        Ok(())
    }

    /// Notes what others have disclosed since the last look.
    async fn follow(&mut self) -> Result<(), AccountError> {
        let count = self.view(&IAudits::disclosedCountCall {}).await?;
        let mut seen = self.seen.unwrap_or(count.saturating_sub(WATCHED_MAX as u64));
        let operator = self.operator();
        while seen < count {
            let page = self.view(&IAudits::disclosedCall { offset: seen }).await?;
            if page.is_empty() {
                break;
            }
            seen += page.len() as u64;
            self.watched.extend(page.into_iter().filter(|id| id[..20] != operator[..]));
        }
        self.seen = Some(seen);
        let over = self.watched.len().saturating_sub(WATCHED_MAX);
        self.watched.drain(..over);
        Ok(())
    }

    /// Looks at what is watched for whose turn it is. Auditors are drawn by an epoch's beacon.
    async fn look_for_tasks(&mut self) -> Result<(), AccountError> {
        let now = self.means.till.account().moment().await?.epoch;
        let operator = self.operator();
        for _ in 0..self.watched.len() {
            let Some(&id) = self.watched.front() else { break };
            let audit = match self.audit(id).await {
                Ok(audit) => audit,
                // Its beacon may come with the next block.
                Err(error) if error.refused => {
                    self.watched.rotate_left(1);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.watched.pop_front();
            let waits = matches!(audit.status, stage::DISCLOSED | stage::COMMITTED);
            if !waits || (audit.due == 0 && audit.disclosedIn < now) {
                continue;
            }
            self.watched.push_back(id);
            let known = self.tasks.contains(&id)
                || self.work.as_ref().is_some_and(|work| work.id == id)
                || self.promised.contains_key(&id);
            if audit.status == stage::DISCLOSED && audit.auditor == operator && !known {
                tracing::info!(%id, "drawn as auditor");
                self.tasks.push_back(id);
            }
        }
        Ok(())
    }

    /// U-4.3: says what was committed to.
    async fn reveal_all(&mut self) -> Result<(), AccountError> {
        let operator = self.operator();
        let ids: Vec<B256> = self.promised.keys().copied().collect();
        for id in ids {
            let audit = self.audit(id).await?;
            let ours = audit.status == stage::COMMITTED && audit.auditor == operator;
            if let Some(promise) = self.promised.remove(&id).filter(|_| ours) {
                let (salt, state) = (B256::from(promise.salt), promise.found.0.into());
                let call = IAudits::revealCall { id, salt, stateDigest: state };
                match self.send("revealing", ModuleCall::new(Module::Audits, &call)).await {
                    Ok(true) => {
                        let Promise { evidence, found, .. } = promise;
                        let only_state = found != Digest::ZERO;
                        self.revealed.insert(id, Differing { evidence, only_state });
                    }
                    Ok(false) => {}
                    Err(error) => {
                        self.promised.insert(id, promise);
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// U-5.2: where the worker's answer is another than what was computed here, a dispute says who is right.
    async fn contest_all(&mut self) -> Result<(), AccountError> {
        let now = self.epoch.unwrap_or(0);
        let ids: Vec<B256> = self.revealed.keys().copied().collect();
        for id in ids {
            let audit = self.audit(id).await?;
            if audit.status == stage::REVEALED && (audit.due == 0 || now <= audit.due) {
                continue;
            }
            let differing = self.revealed.remove(&id);
            if let Some(differing) = differing.filter(|_| audit.status == stage::DIFFERING) {
                // An error means that the worker ends.
                let _ = self.means.contests.send(differing);
            }
        }
        Ok(())
    }

    /// Commits to what was computed, and begins with the next.
    async fn go_on(&mut self) -> Result<(), AccountError> {
        if let Some(work) = &mut self.work {
            let result = match work.result.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return Ok(()),
                Err(oneshot::error::TryRecvError::Closed) => None,
                Ok(result) => result,
            };
            let Some(Work { id, evidence, .. }) = self.work.take() else { return Ok(()) };
            if let Some(found) = result {
                let mut salt = [0; 32];
                getrandom::fill(&mut salt).expect("the system has randomness");
                let commitment = audit_commitment(&self.means.key, &salt, &found);
                let call = IAudits::commitCall { id, commitment: commitment.0.into() };
                if self.send("committing", ModuleCall::new(Module::Audits, &call)).await? {
                    self.promised.insert(id, Promise { salt, found, evidence });
                }
            }
        }
        let Some(id) = self.tasks.pop_front() else { return Ok(()) };
        let audit = self.audit(id).await?;
        if audit.status != stage::DISCLOSED || audit.auditor != self.operator() {
            return Ok(());
        }
        let Some(model) = self.means.models.get(&ModelId(Digest(audit.model.0))).cloned() else {
            return Ok(());
        };
        match self.fetch(id, &audit).await {
            Ok(evidence) => self.work = Some(self.compute(id, model, audit, evidence)),
            Err(reason) => {
                tracing::debug!(reason, %id, "the evidence of an audit was not had; it is asked for again");
                self.tasks.push_back(id);
            }
        }
        Ok(())
    }

    /// U-4.4: asks the audited worker for the evidence.
    async fn fetch(&self, id: B256, audit: &IAudits::Audit) -> Result<AuditEvidence, String> {
        let account = &**self.means.till.account();
        let known = IOperators::workerCall { key: audit.worker };
        let known = view(account, Module::Operators, &known).await.map_err(|error| error.message)?;
        let loopback = self.means.endpoint.address().location.socket().ip().is_loopback();
        let location: Location = surety_client::Reach { loopback, ipv6: None }.check(&known.endpoint)?;
        let address = WorkerAddress { key: PublicKey(audit.worker.0), location };
        let text = |error: &dyn std::error::Error| error.to_string();
        let link = self.means.endpoint.connect(&address, Protocol::Audit).await;
        let link = link.map_err(|error| text(&error))?;
        let stream = link.open_stream::<EvidenceRequest, AuditEvidence>().await;
        let mut stream = stream.map_err(|error| text(&error))?;
        stream.send(&EvidenceRequest { id: Digest(id.0) }).await.map_err(|error| text(&error))?;
        let evidence = stream.receive_within(EVIDENCE_TIMEOUT).await.map_err(|error| text(&error))?;
        let evidence = evidence.ok_or("the worker gave none")?;
        if evidence.digest().0 != audit.evidence.0 {
            return Err("it is not what the worker disclosed".to_owned());
        }
        Ok(evidence)
    }

    /// Computes on a thread of its own, while no orders are served.
    fn compute(&self, id: B256, model: Arc<Model>, audit: IAudits::Audit, evidence: AuditEvidence) -> Work {
        let (sender, result) = oneshot::channel();
        let kept = evidence.clone();
        let (executor, busy) = (Arc::clone(&self.means.executor), Arc::clone(&self.means.busy));
        let gone = Arc::clone(&self.gone);
        let run = move || {
            let mut wait = || {
                while busy() && !gone.load(Ordering::Relaxed) {
                    std::thread::sleep(BUSY_INTERVAL);
                }
            };
            wait();
            // Nobody waits for it where the worker was stopped.
            let _ = sender.send(found(&model, &executor, &audit, evidence, &mut wait));
        };
        if let Err(error) = std::thread::Builder::new().name("audit".to_owned()).spawn(run) {
            tracing::warn!(%error, "no thread could be started for an audit");
        }
        Work { id, evidence: kept, result }
    }
}

/// What is disclosed of a drawn receipt: for its auditor, or that its payer lets none see it (U-3.6).
pub(super) fn disclosure(id: B256, path: Vec<B256>, evidence: &AuditEvidence) -> ModuleCall {
    let receipt = evidence.receipt.clone().into();
    if is_confidential(&evidence.order) {
        let order = evidence.order.clone().into();
        let call = IAudits::discloseConfidentialCall { id, receipt, path, order };
        return ModuleCall::new(Module::Audits, &call);
    }
    let evidence = evidence.digest().0.into();
    ModuleCall::new(Module::Audits, &IAudits::discloseCall { id, receipt, path, evidence })
}

/// U-2.5
fn id(operator: Address, epoch: u64, number: u32) -> B256 {
    let mut word = [0; 32];
    word[..20].copy_from_slice(operator.as_slice());
    word[20..28].copy_from_slice(&epoch.to_be_bytes());
    word[28..].copy_from_slice(&number.to_be_bytes());
    word.into()
}

/// What an auditor finds: the state digest, or all zeros where anything else differs (U-5.2); nothing if it could not compute.
pub(super) fn found(
    model: &Model,
    executor: &Executor,
    audit: &IAudits::Audit,
    evidence: AuditEvidence,
    wait: &mut dyn FnMut(),
) -> Option<Digest> {
    // That there is a salt is seen when the worker answers; any other than zero stands for it.
    let answer = answer_of(evidence, [1; 32]);
    let expected = Expected { worker: Some(PublicKey(audit.worker.0)), ..Expected::default() };
    let differs = |reason: String| {
        tracing::warn!(receipt = %audit.receipt, reason, "an audited answer is not what the model gives");
        Some(Digest::ZERO)
    };
    let checked = match check_answer(&answer, &expected) {
        Ok(checked) => checked,
        Err(fault) => return differs(fault.to_string()),
    };
    let audited = checked.receipt.as_ref().map(|receipt| receipt.digest().0);
    if audited != Some(audit.receipt.0) {
        return differs("the evidence is of another receipt".to_owned());
    }
    match compute(model, executor, &checked, &answer, &mut |_, _| wait()) {
        Ok((_, Some(state_digest))) => Some(state_digest),
        Ok((_, None)) => differs("it has no state".to_owned()),
        Err(Discrepancy::Model { .. } | Discrepancy::Replay(ReplayError::OutOfMemory(_))) => None,
        Err(discrepancy) => differs(discrepancy.to_string()),
    }
}
