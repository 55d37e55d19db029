//! Accusing: contests a receipt, in the shortest way there is.
//!
//! In:     a case with its trace; an account that has the bond.
//! Out:    a conviction at once, where the receipt is false by itself (D-4.2); else an open dispute.
//! Touches: the ledger.
//! Holds:  an accusation is committed to before it is made, so that nobody who sees it coming is faster; nothing is
//!         contested that this side's own trace does not contradict.
//! Absent: the moves that follow (`play`).

use alloy_primitives::{B256, Bytes, U256, keccak256};
use surety_client::{
    Account, AccountError,
    channel::{ModuleCall, view},
};
use surety_engine::Model;
use surety_proof::dispute::{
    opening::{CHUNK_BYTES, Node},
    rules::Source,
};
use surety_types::{
    Canonical as _, Channel, Digest, FinishReason, Manifest, Request,
    abi::{IDisputes, Module},
};

use super::{
    case::{Asking, Case, CaseError, Prepared},
    play::opening,
};

/// What is wrong with a receipt, as far as this side can show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accusation {
    /// D-4.2 (b): this output id is an end token, and more follow.
    PastEnd {
        /// Index in the output.
        index: u32,
    },
    /// D-4.2 (c): the answer was stopped where the model goes on.
    FalseStop,
    /// D-4.3: the computation, or text and prompt (D-7).
    Trace,
    /// D-7.5: the receipt commits to other prompt ids than the request gives here. The worker is asked for them.
    Prompt,
}

/// What became of an accusation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accused {
    /// What was shown.
    pub accusation: Accusation,
    /// The ledger's number of the dispute.
    pub id: u64,
    /// Words of the trace that is played about.
    pub words: u64,
    /// The bond; zero where the receipt was false by itself.
    pub bond: U256,
}

/// What is wrong with the receipt; `None` if this side's trace says the same.
pub fn accusation(case: &Prepared) -> Option<Accusation> {
    let order = case.order.value();
    let is_end = |id: &u32| case.header.ends(*id);
    let before_last = case.output_ids.iter().rev().skip(1).rev();
    if !order.ignore_end
        && let Some(index) = before_last.clone().position(is_end)
    {
        return Some(Accusation::PastEnd { index: index as u32 });
    }
    let stops = Request::from_cbor(&case.request).map_or(true, |request| !request.stop.is_empty());
    let last = case.output_ids.last().or(case.given_ids.last());
    if case.receipt.finish == FinishReason::Stop && !stops && !last.is_some_and(is_end) {
        return Some(Accusation::FalseStop);
    }
    let layout = case.rules.layout();
    let same = |(index, id): (u64, &u32)| case.trace.word(layout.sampled_at(index)) == Some(*id);
    let says_the_same = (0..).zip(&case.output_ids).all(same);
    let contradicted = !says_the_same
        || case.is_committed() == Some(false)
        || case.text_claim.is_some()
        || case.prompt_claim.is_some();
    contradicted.then_some(Accusation::Trace)
}

/// Contests an answer whose prompt ids are not known: opens a dispute in which the worker is to show them.
///
/// # Errors
/// `AskError` if there is nothing to dispute, or the ledger refuses it.
pub async fn accuse_asking(
    account: &dyn Account,
    case: &Case,
    manifest: &Manifest,
    model: &Model,
    salt: [u8; 32],
) -> Result<Accused, AskError> {
    let Asking { papers, order, receipt, receipt_digest, words } = Asking::new(case, manifest, model)?;
    let (order, worker) = (B256::from(order.0), B256::from(receipt.worker.0));
    commit(account, order, worker, salt).await?;
    let bond = bond_for(account, words, order, worker).await?;
    let call = IDisputes::openAskingCall { papers, channel: shown(case.channel.as_ref()), salt: salt.into() };
    account.send(vec![ModuleCall::paying(Module::Disputes, &call, bond)]).await?;
    let id = dispute_of(account, &receipt_digest).await?;
    Ok(Accused { accusation: Accusation::Prompt, id, words, bond })
}

/// Why the worker is not asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is nothing to dispute.
    #[error("the case cannot be made")]
    Case(#[from] CaseError),
    /// The ledger refuses it.
    #[error("the ledger does not take part")]
    Ledger(#[from] AccountError),
}

/// Commits to an accusation, so that nobody who sees it coming is faster.
async fn commit(
    account: &dyn Account,
    order: B256,
    worker: B256,
    salt: [u8; 32],
) -> Result<(), AccountError> {
    let said = [account.address().as_slice(), order.as_slice(), worker.as_slice(), &salt].concat();
    let commit = IDisputes::commitCall { commitment: keccak256(said) };
    account.send(vec![ModuleCall::new(Module::Disputes, &commit)]).await
}

/// The bond of a dispute about a trace of so many words.
async fn bond_for(
    account: &dyn Account,
    words: u64,
    order: B256,
    worker: B256,
) -> Result<U256, AccountError> {
    let call = IDisputes::bondForCall { words, order, worker };
    Ok(view(account, Module::Disputes, &call).await?.bond)
}

/// The number of the last dispute about a receipt.
async fn dispute_of(account: &dyn Account, receipt: &Digest) -> Result<u64, AccountError> {
    view(account, Module::Disputes, &IDisputes::disputeOfCall { receipt: B256::from(receipt.0) }).await
}

/// The order's channel, as it is shown; nothing where it is not known.
fn shown(channel: Option<&Channel>) -> Bytes {
    channel.map(|channel| channel.to_cbor()).unwrap_or_default().into()
}

/// Makes the accusation. `salt` is fresh randomness.
///
/// # Errors
/// `AccountError` if the ledger refuses it.
pub async fn accuse(
    account: &dyn Account,
    case: &Prepared,
    accusation: Accusation,
    salt: [u8; 32],
) -> Result<Accused, AccountError> {
    let (order, worker) = (B256::from(case.order.value().digest().0), B256::from(case.receipt.worker.0));
    commit(account, order, worker, salt).await?;
    let channel = shown(case.channel.as_ref());
    let papers = case.papers.clone();
    let words = case.rules.layout().words();
    let mut bond = U256::ZERO;
    let call = match accusation {
        Accusation::PastEnd { index } => {
            let call =
                IDisputes::pastEndCall { papers, index, ids: ids(case, index), channel, salt: salt.into() };
            ModuleCall::new(Module::Disputes, &call)
        }
        Accusation::FalseStop => {
            let last = case.output_ids.len().saturating_sub(1) as u32;
            let call = IDisputes::falseStopCall {
                papers,
                request: case.request.clone().into(),
                ids: ids(case, last),
                channel,
                salt: salt.into(),
            };
            ModuleCall::new(Module::Disputes, &call)
        }
        Accusation::Trace | Accusation::Prompt => {
            bond = bond_for(account, words, order, worker).await?;
            let call = IDisputes::openCall { papers, channel, salt: salt.into() };
            ModuleCall::paying(Module::Disputes, &call, bond)
        }
    };
    account.send(vec![call]).await?;
    let id = dispute_of(account, &case.receipt_digest()).await?;
    Ok(Accused { accusation, id, words, bond })
}

/// The chunk of the output ids that holds one of them.
fn ids(case: &Prepared, index: u32) -> IDisputes::Opening {
    let first = 4 * u64::from(index) / CHUNK_BYTES;
    let shown = case.strings.open(Source::Output, Node { first, chunks: 1 });
    opening(shown.expect("the output ids are at hand"))
}
