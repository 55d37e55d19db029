//! Audit: re-runs an answer, exactly, and says where it first differs.
//!
//! In:     an answer whose signatures and bindings hold; the model it names.
//! Out:    that every bit is the same, or the first thing that is not.
//! Touches: nothing.
//! Holds:  the comparison is of tokens, text, ending and state, never of likelihoods; one teacher-forced prefill.
//! Absent: what follows from a difference.
//!
//! Around it: what this worker owes the ledger's audits, of its own answers and of others' (`desk`), the evidence it gives to
//! its auditors (`give`), and the trickle of its own answers that it computes again for itself (`trickle`).

mod desk;
mod give;
mod trickle;

#[cfg(test)]
mod tests;

pub(crate) use desk::{Desk, Differing, Means};
pub(crate) use give::give;
pub(crate) use trickle::{Trickle, compute_again};

use surety_engine::{
    ConstraintError, Model, PromptError, SequenceRequest, constraint,
    replay::{self, Difference, ReplayError},
};
use surety_kernels::Executor;
use surety_proof::{
    check::{Checked, Fault, check_state},
    commit::prompt_digest,
};
use surety_types::{Answer, AuditEvidence, Digest, FinishReason, ModelId, Order, Signed};
use thiserror::Error;

/// Whether an order's payer lets no auditor see it. What cannot be read is shown to nobody either.
fn is_confidential(order: &[u8]) -> bool {
    Signed::<Order>::peek_value(order).map_or(true, |(order, _)| order.is_confidential())
}

/// What was recomputed, and is the same to the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recomputed {
    /// Positions computed.
    pub positions: usize,
    /// Output tokens sampled again.
    pub output_tokens: usize,
}

/// The first thing about an answer that is not what the model gives.
#[derive(Debug, Error)]
pub enum Discrepancy {
    /// This is another model.
    #[error("the answer is by {claimed}; this file is {found}")]
    Model {
        /// What the receipt names.
        claimed: ModelId,
        /// What was offered for the recomputation.
        found: ModelId,
    },
    /// There is no answer to recompute.
    #[error("the receipt is for a failure ({0}); there is no answer to recompute")]
    Failure(String),
    /// The request cannot be turned into this model's tokens.
    #[error("the model cannot be given this request")]
    Prompt(#[source] PromptError),
    /// No answer of this model keeps to the request's grammar: it was to be refused.
    #[error("the model cannot be held to this request's grammar")]
    Grammar(#[source] ConstraintError),
    /// The prompt's tokens are others.
    #[error("the request has {found} tokens in this model; the receipt counts {claimed}")]
    PromptCount {
        /// In the receipt.
        claimed: u32,
        /// As tokenised here.
        found: usize,
    },
    /// The prompt's tokens are others, as many as they are.
    #[error("the prompt was not given to the model as the request has it")]
    PromptTokens,
    /// The tokens are no sequence of this model, or it computes no finite number.
    #[error("the answer cannot be recomputed")]
    Replay(#[source] ReplayError),
    /// Another token.
    #[error(
        "output token {index} is {claimed} ({claimed_text:?}); the model gives {computed} ({computed_text:?})"
    )]
    Token {
        /// Index in the output, from 0.
        index: usize,
        /// What was claimed.
        claimed: u32,
        /// What it spells.
        claimed_text: String,
        /// What the model gives.
        computed: u32,
        /// What that spells.
        computed_text: String,
    },
    /// Tokens after the end.
    #[error("the model's answer ends before output token {index}; the rest was added")]
    PastTheEnd {
        /// Index in the output, from 0.
        index: usize,
    },
    /// Another text.
    #[error("the tokens spell another text, from byte {at} on: {computed:?}, not {claimed:?}")]
    Text {
        /// The first byte that differs.
        at: usize,
        /// What was delivered, from there.
        claimed: String,
        /// What the tokens spell, from there.
        computed: String,
    },
    /// Another ending.
    #[error("the answer was ended as {claimed:?}; the model {}", ending(.computed))]
    Finish {
        /// In the receipt.
        claimed: FinishReason,
        /// What the model does at its last token.
        computed: Option<FinishReason>,
    },
    /// Another state.
    #[error("the tokens agree, but they were not computed by this model")]
    State(#[source] Fault),
}

/// Re-runs an answer that `check_answer` found in order.
///
/// `progress` is told the positions done and the positions in all.
pub fn recompute(
    model: &Model,
    executor: &Executor,
    checked: &Checked,
    answer: &Answer,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Recomputed, Discrepancy> {
    let (recomputed, state_digest) = compute(model, executor, checked, answer, progress)?;
    if let (Some(receipt), Some(state_digest)) = (&checked.receipt, state_digest) {
        check_state(receipt, &answer.salt, &state_digest).map_err(Discrepancy::State)?;
    }
    Ok(recomputed)
}

/// An answer from what was kept of it, or given to its auditor, who does not know the salt.
pub(crate) fn answer_of(evidence: AuditEvidence, salt: [u8; 32]) -> Answer {
    let AuditEvidence { order, request, acceptance, receipt, resumed, output, text } = evidence;
    Answer {
        order,
        request,
        acceptance: Some(acceptance),
        receipt: Some(receipt),
        progress: None,
        salt,
        output_ids: output,
        resumed_ids: resumed,
        text,
        channel: None,
        prompt_ids: None,
        embedding: None,
    }
}

/// Re-runs an answer, and compares all but its state; that, if it is a whole answer.
fn compute(
    model: &Model,
    executor: &Executor,
    checked: &Checked,
    answer: &Answer,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Recomputed, Option<Digest>), Discrepancy> {
    let order = checked.order.value();
    if order.model != model.id() {
        return Err(Discrepancy::Model { claimed: order.model, found: model.id() });
    }
    let failure = checked.receipt.as_ref().and_then(|receipt| receipt.failure());
    let accepted = checked.acceptance.as_ref().map(|acceptance| acceptance.max_output_tokens);
    // What was given before a failure can be recomputed like anything else.
    let Some(max_output_tokens) = accepted.filter(|_| failure.is_none() || !answer.output_ids.is_empty())
    else {
        let failure = failure.map(|(code, message)| format!("{code}: {message}"));
        return Err(Discrepancy::Failure(failure.unwrap_or_else(|| "the order was not accepted".into())));
    };
    let prompt = model.prompt_tokens(&checked.request).map_err(Discrepancy::Prompt)?;
    let given = [prompt.as_slice(), &answer.resumed_ids].concat();
    // Who broke off has signed for no prompt but by counting it.
    let claimed = checked.prompt_tokens();
    if given.len() != claimed as usize {
        return Err(Discrepancy::PromptCount { claimed, found: given.len() });
    }
    if checked.receipt.as_ref().is_some_and(|receipt| prompt_digest(&given) != receipt.prompt_digest) {
        return Err(Discrepancy::PromptTokens);
    }
    let positions = given.len() + answer.output_ids.len().saturating_sub(1);
    let tokenizer = model.tokenizer();
    let grammar = match &checked.request.grammar {
        None => None,
        Some(grammar) => Some(constraint::constraint(grammar, tokenizer).map_err(Discrepancy::Grammar)?),
    };
    let request = SequenceRequest {
        prompt,
        output: answer.resumed_ids.clone(),
        sampling: order.sampling.clone(),
        seed: order.seed_bytes(),
        max_output_tokens: order.resumed_tokens() + max_output_tokens,
        stop: checked.request.stop.clone(),
        ignore_end: order.ignore_end,
        logprobs: None,
        prompt_logprobs: None,
        embedding: checked.request.embedding,
        grammar,
    };
    let replay = replay::replay(model, executor, &request, &answer.output_ids, progress)
        .map_err(Discrepancy::Replay)?;
    match replay.difference {
        Some(Difference::Token { index, computed, claimed }) => {
            let spelled = |token| String::from_utf8_lossy(model.tokenizer().token_bytes(token)).into_owned();
            let (claimed_text, computed_text) = (spelled(claimed), spelled(computed));
            return Err(Discrepancy::Token { index, claimed, claimed_text, computed, computed_text });
        }
        Some(Difference::PastTheEnd { index }) => return Err(Discrepancy::PastTheEnd { index }),
        None => {}
    }
    let recomputed = Recomputed { positions, output_tokens: answer.output_ids.len() };
    let Some(receipt) = checked.receipt.as_ref().filter(|_| failure.is_none()) else {
        // An answer that broke off has no end, and commits to no state.
        let rest = answer.text.strip_prefix(&replay.text);
        return match rest.is_some_and(|rest| rest.is_empty() || rest == replay.rest) {
            true => Ok((recomputed, None)),
            false => Err(different_text(&answer.text, &replay.text)),
        };
    };
    let text = replay.text + &replay.rest;
    if text != answer.text {
        return Err(different_text(&answer.text, &text));
    }
    // Its payer may cut an answer off anywhere; the model has no part in that.
    let cut = matches!(receipt.finish, FinishReason::Cancelled | FinishReason::Unpaid);
    let claimed = if cut { None } else { Some(receipt.finish) };
    if claimed != replay.finish {
        return Err(Discrepancy::Finish { claimed: receipt.finish, computed: replay.finish });
    }
    Ok((recomputed, Some(replay.state_digest)))
}

fn different_text(claimed: &str, computed: &str) -> Discrepancy {
    let same = claimed.bytes().zip(computed.bytes()).take_while(|(a, b)| a == b).count();
    let at = claimed.floor_char_boundary(same).min(computed.floor_char_boundary(same));
    let from = |text: &str| text[at..].chars().take(40).collect();
    Discrepancy::Text { at, claimed: from(claimed), computed: from(computed) }
}

fn ending(computed: &Option<FinishReason>) -> String {
    match computed {
        Some(finish) => format!("ends there as {finish:?}"),
        None => "goes on from there".into(),
    }
}
