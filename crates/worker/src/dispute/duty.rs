//! The duty: a worker answers for its receipts by itself, and contests what it finds false as an auditor.
//!
//! In:     disputes and claims about its operator, as the ledger has them; what was kept of its answers; evidence of an
//!         answer that its own audit contradicts.
//! Out:    the moves of either side; receipts shown to whoever claims there are none.
//! Touches: the ledger; the book; processor, memory and a folder's disk, while a trace is computed.
//! Holds:  one trace at a time; what cannot be defended or contested is said in the log, once.
//! Absent: auditing (`audit`), the moves themselves (`play`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use alloy_primitives::B256;
use surety_client::{
    Account, AccountError,
    channel::{ModuleCall, view},
};
use surety_engine::Model;
use surety_types::{
    AuditEvidence, Canonical as _, Digest, Manifest, ModelId, OpenError, Order, PublicKey, Receipt, Request,
    Signed,
    abi::{IClaims, IDisputes, Module},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::sleep,
};

use super::{
    accuse::{Accusation, AskError, accusation, accuse, accuse_asking},
    case::{Case, CaseError, Prepared, TraceRoom},
    play::{PlayError, Side, play, shown_ids},
};
use crate::{
    audit::Differing,
    load::{self, ModelFile},
    machine,
    money::Till,
    serve::Lie,
};

/// Between two looks at the ledger.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// What a page of a list on the ledger holds.
const PAGE: u64 = 100;

/// A model as the worker serves it.
pub(crate) struct Defended {
    pub(crate) manifest: Manifest,
    pub(crate) model: Arc<Model>,
    pub(crate) file: ModelFile,
}

/// What it is done with.
pub(crate) struct DisputeDuty {
    pub(crate) account: Arc<dyn Account>,
    pub(crate) till: Arc<Till>,
    pub(crate) key: PublicKey,
    /// By the id under which they are served.
    pub(crate) models: BTreeMap<ModelId, Defended>,
    /// What this worker tells, if it lies: it defends what it computed.
    pub(crate) lie: Option<Lie>,
    /// Where traces are that take more memory than there is.
    pub(crate) folder: PathBuf,
    /// Held by who computes a trace.
    pub(crate) turn: Mutex<()>,
    /// Answers that an audit of this worker's contradicts.
    pub(crate) contested: Mutex<mpsc::UnboundedReceiver<Differing>>,
}

/// Why a receipt is neither defended nor contested.
#[derive(Debug, thiserror::Error)]
enum DutyError {
    #[error("the ledger does not take part")]
    Ledger(#[from] AccountError),
    #[error("nothing was kept of the answer")]
    Forgotten,
    #[error("what differs is not judged on the ledger")]
    NotJudged,
    #[error("order or receipt cannot be read")]
    Order(#[source] OpenError),
    #[error("the model is not served any more")]
    Model,
    #[error("the model's file cannot be read")]
    File(#[from] load::OpenError),
    #[error("the request cannot be read")]
    Request(#[source] surety_types::DecodeError),
    #[error("the model cannot be given the request")]
    Prompt(#[from] surety_engine::PromptError),
    #[error("the case cannot be made")]
    Case(#[from] CaseError),
    #[error("the worker cannot be asked for its prompt")]
    Ask(#[from] AskError),
    #[error("the dispute cannot be played on")]
    Play(#[from] PlayError),
}

impl DisputeDuty {
    /// Does it until it is dropped.
    pub(crate) async fn run(self) {
        let duty = Arc::new(self);
        let (mut disputes, mut claims) = (Docket::default(), Docket::default());
        // Dropped with this, they end.
        let mut played = JoinSet::new();
        loop {
            if let Err(error) = duty.look(&mut disputes, &mut claims, &mut played).await {
                tracing::debug!(%error, "the ledger does not say what is contested");
            }
            while let Ok(differing) = duty.contested.lock().await.try_recv() {
                let duty = duty.clone();
                played.spawn(async move {
                    if let Err(error) = duty.contest(differing).await {
                        tracing::warn!(
                            error = told(&error),
                            "a receipt that an audit contradicts is not contested"
                        );
                    }
                });
            }
            while played.try_join_next().is_some() {}
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(
        self: &Arc<Self>,
        disputes: &mut Docket,
        claims: &mut Docket,
        played: &mut JoinSet<()>,
    ) -> Result<(), AccountError> {
        let (account, operator) = (&*self.account, self.account.address());
        loop {
            let call = IDisputes::disputesOfCall { operator, offset: disputes.seen };
            let page = view(account, Module::Disputes, &call).await?;
            disputes.add(&page);
            if (page.len() as u64) < PAGE {
                break;
            }
        }
        for id in disputes.open.clone() {
            let dispute = view(account, Module::Disputes, &IDisputes::disputesCall { id }).await?;
            if dispute.state != 1 {
                disputes.open.remove(&id);
            } else if dispute.worker.0 == self.key.0 && disputes.attempted.insert(id) {
                tracing::warn!(dispute = id, receipt = %dispute.receipt, "a receipt is contested; it is defended");
                let duty = self.clone();
                played.spawn(async move {
                    if let Err(error) = duty.defend(id, Digest(dispute.receipt.0)).await {
                        let error = told(&error);
                        tracing::error!(
                            dispute = id,
                            error,
                            "a receipt is not defended: that loses the dispute"
                        );
                    }
                });
            }
        }
        loop {
            let call = IClaims::claimsOfCall { operator, offset: claims.seen };
            let page = view(account, Module::Claims, &call).await?;
            claims.add(&page);
            if (page.len() as u64) < PAGE {
                break;
            }
        }
        for id in claims.open.clone() {
            let claim = view(account, Module::Claims, &IClaims::claimsCall { id }).await?;
            if claim.state != 1 {
                claims.open.remove(&id);
            } else if claim.worker.0 == self.key.0 && claims.attempted.insert(id) {
                self.answer(id, claim.order).await?;
            }
        }
        Ok(())
    }

    /// Plays a dispute to its end.
    async fn defend(&self, id: u64, receipt: Digest) -> Result<(), DutyError> {
        let till = self.till.clone();
        let kept = tokio::task::spawn_blocking(move || till.store().case(&receipt)).await;
        let kept = kept.ok().and_then(Result::ok).flatten().ok_or(DutyError::Forgotten)?;
        let (case, served) = self.case(kept.evidence, Some(kept.salt), self.lie.as_ref())?;
        let prepared = self.prepare(case, served).await?;
        let side = Side::Worker { salt: kept.salt };
        let mut report = |made| tracing::info!(dispute = id, ?made, "a move was made");
        let verdict = play(&*self.account, id, side, &prepared, &mut report).await?;
        tracing::warn!(dispute = id, verdict = verdict.reason(), "a dispute is over");
        Ok(())
    }

    /// Contests an answer, and plays the dispute to its end.
    async fn contest(&self, differing: Differing) -> Result<(), DutyError> {
        let Differing { evidence, only_state } = differing;
        let (case, served) = self.case(evidence, None, None)?;
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).expect("the system has randomness");
        if case.is_of_other_ids()? {
            return self.ask(case, served, salt).await;
        }
        let prepared = self.prepare(case, served).await?;
        let accusation = match accusation(&prepared) {
            // The worker's state digest opens its commitment, and is not this side's.
            None if only_state => Accusation::Trace,
            None => return Err(DutyError::NotJudged),
            Some(accusation) => accusation,
        };
        let accused = accuse(&*self.account, &prepared, accusation, salt).await?;
        let id = accused.id;
        tracing::warn!(dispute = id, receipt = %prepared.receipt_digest(), "a receipt that was audited is contested");
        self.challenge(id, &prepared).await
    }

    /// Contests an answer to another prompt than this side's: the worker shows which, or is silent.
    async fn ask(&self, case: Case, served: &Defended, salt: [u8; 32]) -> Result<(), DutyError> {
        let receipt = Signed::<Receipt>::open(&case.receipt).map_err(DutyError::Order)?;
        let accused = accuse_asking(&*self.account, &case, &served.manifest, &served.model, salt).await?;
        let id = accused.id;
        tracing::warn!(dispute = id, "a receipt that was audited is contested: it is of another prompt");
        match shown_ids(&*self.account, id, &receipt.prompt_digest).await? {
            None => Ok(()),
            Some(given_ids) => {
                let prepared = self.prepare(Case { given_ids, ..case }, served).await?;
                self.challenge(id, &prepared).await
            }
        }
    }

    /// Plays the challenger to the end.
    async fn challenge(&self, id: u64, prepared: &Prepared) -> Result<(), DutyError> {
        let mut report = |made| tracing::info!(dispute = id, ?made, "a move was made");
        let verdict = play(&*self.account, id, Side::Challenger, prepared, &mut report).await?;
        tracing::warn!(dispute = id, verdict = verdict.reason(), "a dispute is over");
        Ok(())
    }

    /// An answer as this worker's model has it, or would have it under a lie.
    fn case(
        &self,
        evidence: AuditEvidence,
        salt: Option<[u8; 32]>,
        lie: Option<&Lie>,
    ) -> Result<(Case, &Defended), DutyError> {
        let order = Signed::<Order>::open(&evidence.order).map_err(DutyError::Order)?;
        let served = self.models.get(&order.model).ok_or(DutyError::Model)?;
        let request = Request::from_cbor(&evidence.request).map_err(DutyError::Request)?;
        let request = match lie {
            Some(lie) => lie.request(request),
            None => request,
        };
        let prompt = served.model.prompt_tokens(&request)?;
        let case = Case {
            order: evidence.order,
            receipt: evidence.receipt,
            request: evidence.request,
            given_ids: [prompt, evidence.resumed].concat(),
            output_ids: evidence.output,
            text: evidence.text,
            salt,
            channel: None,
        };
        Ok((case, served))
    }

    /// Computes the trace of an answer, when it is its turn.
    async fn prepare(&self, case: Case, served: &Defended) -> Result<Prepared, DutyError> {
        let Defended { manifest, model, file } = served;
        let _turn = self.turn.lock().await;
        let (manifest, model, bytes) = (manifest.clone(), model.clone(), file.open()?);
        let folder = self.folder.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let (threads, room) = (machine::cores(), TraceRoom::here(folder));
            Prepared::new(case, &manifest, &model, bytes, threads, &room, &mut |_, _| {})
        });
        match prepared.await {
            Ok(prepared) => Ok(prepared?),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Shows the receipt for an order of which somebody claims that it was not answered.
    async fn answer(&self, id: u64, order: B256) -> Result<(), AccountError> {
        let till = self.till.clone();
        let kept = tokio::task::spawn_blocking(move || till.store().case_of_order(&Digest(order.0))).await;
        let Some(kept) = kept.ok().and_then(Result::ok).flatten() else {
            tracing::error!(claim = id, %order, "an order was accepted and not answered: its payer is compensated");
            return Ok(());
        };
        let call = IClaims::answerCall {
            id,
            order: kept.evidence.order.into(),
            receipt: kept.evidence.receipt.into(),
        };
        self.account.send(vec![ModuleCall::new(Module::Claims, &call)]).await
    }
}

/// What a list on the ledger holds that grows at its end.
#[derive(Default)]
struct Docket {
    /// Entries read.
    seen: u64,
    /// Those that were not over when they were last looked at.
    open: BTreeSet<u64>,
    /// Those that were answered, or could not be.
    attempted: BTreeSet<u64>,
}

impl Docket {
    fn add(&mut self, page: &[u64]) {
        self.seen += page.len() as u64;
        self.open.extend(page);
    }
}

/// An error in its words and those of its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
