//! Defending: a worker answers for its receipts by itself, for as long as it runs.
//!
//! In:     disputes and claims about its operator, as the ledger has them; what was kept of its answers.
//! Out:    the worker's moves; receipts shown to whoever claims there are none.
//! Touches: the ledger; the book; processor and memory, while a trace is computed.
//! Holds:  one trace at a time; what cannot be defended is said in the log, once.
//! Absent: contesting others (`accuse`).

use std::{
    collections::{BTreeMap, BTreeSet},
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
    Canonical as _, Digest, Manifest, ModelId, Order, PublicKey, Request, Signed,
    abi::{IClaims, IDisputes, Module},
};
use tokio::{sync::Mutex, task::JoinSet, time::sleep};

use super::{
    case::{Case, CaseError, Prepared},
    play::{PlayError, Side, play},
};
use crate::{
    load::{ModelFile, OpenError},
    machine,
    money::Till,
};

/// Between two looks at the ledger.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// What a page of a list on the ledger holds.
const PAGE: u64 = 100;
/// Memory for a trace, where the system does not say how much is free.
const TRACE_BYTES_UNKNOWN: u64 = 2 << 30;

/// A model as the worker serves it.
pub(crate) struct Defended {
    pub(crate) manifest: Manifest,
    pub(crate) model: Arc<Model>,
    pub(crate) file: ModelFile,
}

/// What defends.
pub(crate) struct Defence {
    pub(crate) account: Arc<dyn Account>,
    pub(crate) till: Arc<Till>,
    pub(crate) key: PublicKey,
    /// By the id under which they are served.
    pub(crate) models: BTreeMap<ModelId, Defended>,
    /// Held by who computes a trace.
    pub(crate) turn: Mutex<()>,
}

/// Why a receipt is not defended.
#[derive(Debug, thiserror::Error)]
enum DefenceError {
    #[error("the ledger does not take part")]
    Ledger(#[from] AccountError),
    #[error("nothing was kept of the answer")]
    Forgotten,
    #[error("the model is not served any more")]
    Model,
    #[error("the model's file cannot be read")]
    File(#[from] OpenError),
    #[error("the request cannot be read")]
    Request(#[source] surety_types::DecodeError),
    #[error("the model cannot be given the request")]
    Prompt(#[from] surety_engine::PromptError),
    #[error("the case cannot be made")]
    Case(#[from] CaseError),
    #[error("the dispute cannot be played on")]
    Play(#[from] PlayError),
}

impl Defence {
    /// Defends until it is dropped.
    pub(crate) async fn run(self) {
        let defence = Arc::new(self);
        let (mut disputes, mut claims) = (Docket::default(), Docket::default());
        // Dropped with this, they end.
        let mut played = JoinSet::new();
        loop {
            if let Err(error) = defence.look(&mut disputes, &mut claims, &mut played).await {
                tracing::debug!(%error, "the ledger does not say what is contested");
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
                let defence = self.clone();
                played.spawn(async move {
                    if let Err(error) = defence.defend(id, Digest(dispute.receipt.0)).await {
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
    async fn defend(&self, id: u64, receipt: Digest) -> Result<(), DefenceError> {
        let till = self.till.clone();
        let kept = tokio::task::spawn_blocking(move || till.store().case(&receipt)).await;
        let kept = kept.ok().and_then(Result::ok).flatten().ok_or(DefenceError::Forgotten)?;
        let order = Signed::<Order>::open(&kept.evidence.order).map_err(|_| DefenceError::Forgotten)?;
        let Defended { manifest, model, file } = self.models.get(&order.model).ok_or(DefenceError::Model)?;
        let request = Request::from_cbor(&kept.evidence.request).map_err(DefenceError::Request)?;
        let prompt = model.prompt_tokens(&request)?;
        let case = Case {
            order: kept.evidence.order,
            receipt: kept.evidence.receipt,
            request: kept.evidence.request,
            given_ids: [prompt, kept.evidence.resumed].concat(),
            output_ids: kept.evidence.output,
            salt: Some(kept.salt),
            channel: None,
        };
        let turn = self.turn.lock().await;
        let (manifest, model, bytes) = (manifest.clone(), model.clone(), file.open()?);
        let prepared = tokio::task::spawn_blocking(move || {
            let memory = machine::available_memory_bytes().map_or(TRACE_BYTES_UNKNOWN, |bytes| bytes / 2);
            Prepared::new(case, &manifest, &model, bytes, machine::cores(), memory, &mut |_, _| {})
        });
        let prepared = match prepared.await {
            Ok(prepared) => prepared?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        drop(turn);
        let side = Side::Worker { salt: kept.salt };
        let mut report = |made| tracing::info!(dispute = id, ?made, "a move was made");
        let verdict = play(&*self.account, id, side, &prepared, &mut report).await?;
        tracing::warn!(dispute = id, verdict = verdict.reason(), "a dispute is over");
        Ok(())
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
