//! Explanation: what became of a request, who answers for what went wrong, and what can be done.
//!
//! In:     evidence that holds; what the ledger knows of its receipts, where it was asked.
//! Out:    one verdict that names one party, nobody, or says that it is not known; events, parts, money, the next step.
//! Touches: nothing.
//! Holds:  a worker is named only for what it signed or the ledger decided; where two could be at fault, nobody is named.
//! Absent: where evidence comes from, terminals (`commands/explain`); requests of which no evidence was kept.

use serde::Serialize;
use surety_proof::check::{Checked, CheckedEvidence};
use surety_types::{Amount, FailureCode, FinishReason, ModelId, PublicKey};

use crate::conduct::Rechecked;

/// Who answers for what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Accountable {
    /// Nothing went wrong, as far as is known.
    Nobody,
    /// Who asked.
    Caller,
    /// Who passed it on, and pays.
    Gateway,
    /// A worker, and its operator.
    Worker,
    /// It cannot be told, or not yet.
    Unknown,
}

/// What became of a request.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub request_id: Option<String>,
    /// In one line.
    pub verdict: String,
    pub accountable: Accountable,
    /// The worker that is accountable, and who answers for it on the ledger, if one does.
    pub worker: Option<PublicKey>,
    pub operator: Option<String>,
    /// Whether the caller has every answer whole.
    pub whole: bool,
    /// In order of time, by the clock of whoever says so.
    pub events: Vec<Event>,
    /// What each worker did, in order of choice and then of tokens.
    pub parts: Vec<Part>,
    /// What the caller was charged, in micro-credits.
    pub charge: Amount,
    /// What can be done.
    pub next: Vec<String>,
    /// What nobody looked at, or could.
    pub not_known: Vec<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Milliseconds since the request came; negative if a worker's clock is behind the gateway's.
    pub after_ms: i64,
    /// The worker whose clock that is; the gateway's if none.
    pub worker: Option<PublicKey>,
    pub what: String,
}

/// What one worker did.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    pub worker: PublicKey,
    pub model: ModelId,
    /// Which of the answers of the request, from zero.
    pub choice: u32,
    /// Index of its first token in the answer, and tokens that it signed for.
    pub first_output_token: u32,
    pub output_tokens: u32,
    pub end: End,
    /// In micro-credits.
    pub charge: Amount,
    /// What the ledger knows of its receipt; none if it was not asked, or there is no receipt.
    pub ledger: Option<Rechecked>,
}

/// How a worker's part ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With a receipt for an answer.
    Answered { finish: FinishReason },
    /// With a receipt for a failure.
    Failed { code: FailureCode, message: String },
    /// Without a receipt; whether it had signed that it would answer.
    BrokeOff { accepted: bool },
}

/// The verdict, before it is put beside the rest.
struct Verdict {
    said: String,
    accountable: Accountable,
    /// Index of the part that is accountable.
    part: Option<usize>,
    next: Vec<String>,
}

/// Explains evidence that holds. `ledger` has what is known of each answer's receipt, in their order.
pub fn explain(
    request_id: &str,
    checked: &CheckedEvidence,
    mut ledger: impl FnMut(&Checked) -> Option<Rechecked>,
) -> Explanation {
    let envelope = &checked.envelope;
    let parts: Vec<Part> = checked.answers.iter().map(|answer| part(answer, ledger(answer))).collect();
    let Verdict { said, accountable, part, next } = verdict(request_id, &parts);
    let accused = part.map(|index| &parts[index]);
    let after_ms = |unix_ms: u64| unix_ms as i64 - envelope.received_ms as i64;
    let mut events = vec![
        Event { after_ms: 0, worker: None, what: format!("the request came, for {:?}", envelope.model_name) },
        Event {
            after_ms: after_ms(envelope.first_byte_ms),
            worker: None,
            what: "the first byte went out".into(),
        },
        Event { after_ms: after_ms(envelope.done_ms), worker: None, what: "the last byte went out".into() },
    ];
    for (answer, part) in checked.answers.iter().zip(&parts) {
        let told = |unix_ms: u64, what: String| Event {
            after_ms: after_ms(unix_ms),
            worker: Some(part.worker),
            what,
        };
        if let Some(acceptance) = &answer.acceptance {
            let from = match part.first_output_token {
                0 => String::new(),
                from => format!(", to go on after {from} tokens of another"),
            };
            events.push(told(
                acceptance.accepted_ms,
                format!("accepted {} prompt tokens{from}", part_prompt(answer)),
            ));
        }
        if let Some(receipt) = &answer.receipt {
            if let Some(first_ms) = receipt.first_token_ms {
                events.push(told(first_ms, "sent its first token".into()));
            }
            events.push(told(
                receipt.done_ms,
                format!("signed its receipt: {}", part.end.words(part.output_tokens)),
            ));
        } else if let Some(progress) = &answer.progress {
            let what = format!("signed for {} tokens, and nothing after", progress.output_tokens);
            events.push(told(progress.at_ms, what));
        }
    }
    events.sort_by_key(|event| event.after_ms);
    let whole = choices(&parts).all(|(_, last)| matches!(last.end, End::Answered { .. }));
    Explanation {
        request_id: Some(request_id.to_owned()),
        verdict: said,
        accountable,
        worker: accused.map(|part| part.worker),
        operator: accused.and_then(|part| part.ledger.as_ref()?.operator.clone()),
        whole,
        charge: envelope.charge,
        not_known: not_known(&parts),
        events,
        next,
        parts,
    }
}

/// Explains evidence that does not hold: whoever changed it has left no signature.
pub fn explain_false(request_id: Option<String>, why: &str) -> Explanation {
    Explanation {
        request_id,
        verdict: format!("what is shown does not hold: {why}"),
        accountable: Accountable::Unknown,
        worker: None,
        operator: None,
        whole: false,
        events: Vec::new(),
        parts: Vec::new(),
        charge: Amount::ZERO,
        next: vec![
            "ask the gateway that answered for it anew: a file may have been changed since it was saved"
                .into(),
        ],
        not_known: vec!["who changed it, or signed what is not so".into()],
    }
}

fn part_prompt(answer: &Checked) -> u32 {
    answer.prompt_tokens().saturating_sub(answer.order.resumed_tokens())
}

fn part(answer: &Checked, ledger: Option<Rechecked>) -> Part {
    let end = match &answer.receipt {
        None => End::BrokeOff { accepted: answer.acceptance.is_some() },
        Some(receipt) => match receipt.failure() {
            None => End::Answered { finish: receipt.finish },
            Some((code, message)) => End::Failed { code, message: message.to_owned() },
        },
    };
    Part {
        worker: answer.worker,
        model: answer.order.model,
        choice: answer.order.choice,
        first_output_token: answer.order.resumed_tokens(),
        output_tokens: answer.output_tokens(),
        end,
        charge: answer.charge(),
        ledger,
    }
}

/// The last part of each answer: what it ended with.
fn choices(parts: &[Part]) -> impl Iterator<Item = (usize, &Part)> {
    let is_last = |index: usize| parts.get(index + 1).is_none_or(|next| next.choice != parts[index].choice);
    parts.iter().enumerate().filter(move |(index, _)| is_last(*index))
}

fn not_known(parts: &[Part]) -> Vec<String> {
    let mut lines = Vec::new();
    if parts.iter().any(|part| part.ledger.is_none()) {
        lines.push("what the ledger knows of every receipt: it was not asked, or has no answer".to_owned());
    }
    let passed = |part: &Part| part.ledger.as_ref().is_some_and(|ledger| ledger.audit == Some("passed"));
    if !parts.iter().all(passed) {
        lines.push(
            "whether the answer is what the model gives: only computing it again shows that".to_owned(),
        );
    }
    if parts.iter().any(|part| part.end == End::BrokeOff { accepted: true }) {
        lines.push(
            "whether a worker that broke off failed, or the way to it: by its acceptance it answers for both"
                .into(),
        );
    }
    lines
}

impl End {
    /// In words, after so many tokens.
    fn words(&self, tokens: u32) -> String {
        match self {
            End::Answered { finish } => {
                let by = match finish {
                    FinishReason::Stop => "the model ended it",
                    FinishReason::Length => "its limit was reached",
                    FinishReason::Cancelled => "it was cancelled",
                    FinishReason::Unpaid => "vouchers stopped coming",
                    FinishReason::Failed => "it failed",
                };
                format!("{tokens} tokens, {by}")
            }
            End::Failed { code, message } => format!("{code}: {message}"),
            End::BrokeOff { .. } => format!("none, after {tokens} tokens"),
        }
    }
}

/// What weighs most comes first: what the ledger decided, then what is undecided there, then how the answers ended.
fn verdict(request_id: &str, parts: &[Part]) -> Verdict {
    let on_ledger = |is: fn(&Rechecked) -> bool| {
        parts.iter().enumerate().find_map(|(index, part)| {
            let ledger = part.ledger.as_ref().filter(|ledger| is(ledger))?;
            Some((index, part.worker.short(), ledger))
        })
    };
    if let Some((index, worker, ledger)) = on_ledger(|ledger| ledger.convicted) {
        let (reason, id) = (ledger.dispute_state.unwrap_or_default(), ledger.dispute.unwrap_or_default());
        return Verdict {
            said: format!("worker {worker} gave a false answer, and was convicted: {reason}"),
            accountable: Accountable::Worker,
            part: Some(index),
            next: vec![
                format!("see what it cost whom: surety dispute show {id}"),
                format!("judge it yourself, without any network: surety dispute replay {id}"),
            ],
        };
    }
    if let Some((index, worker, ledger)) = on_ledger(|ledger| ledger.compensated) {
        return Verdict {
            said: format!(
                "worker {worker} accepted and did not answer; its operator's bond compensated the payer"
            ),
            accountable: Accountable::Worker,
            part: Some(index),
            next: vec![format!("claim {} on the ledger says how much", ledger.claim.unwrap_or_default())],
        };
    }
    if let Some((_, worker, ledger)) = on_ledger(|ledger| ledger.contested) {
        let id = ledger.dispute.unwrap_or_default();
        return Verdict {
            said: format!("worker {worker}'s answer is contested; the ledger has not decided yet"),
            accountable: Accountable::Unknown,
            part: None,
            next: vec![format!("follow it: surety dispute show {id}")],
        };
    }
    if let Some((_, worker, _)) = on_ledger(|ledger| ledger.audit == Some("differing")) {
        return Verdict {
            said: format!("an auditor computed something else than worker {worker}; nobody is convicted"),
            accountable: Accountable::Unknown,
            part: None,
            next: vec![format!(
                "compute it yourself, and contest it if it does not hold: surety verify {request_id} --recompute \
                 --challenge --account NAME"
            )],
        };
    }
    let unfinished = choices(parts).find(|(_, part)| !matches!(part.end, End::Answered { .. }));
    match unfinished {
        Some((index, part)) => failed(index, part),
        None => answered(request_id, parts),
    }
}

/// An answer that has no end.
fn failed(index: usize, part: &Part) -> Verdict {
    let (worker, tokens) = (part.worker.short(), part.output_tokens);
    let (accountable, said, next) = match &part.end {
        End::Failed { code, message } => match code {
            FailureCode::BadRequest | FailureCode::ContextLengthExceeded => (
                Accountable::Caller,
                format!("the request cannot be answered: {message}"),
                "change the request",
            ),
            FailureCode::Cancelled => {
                (Accountable::Caller, "it was cancelled before its first token".to_owned(), "ask again")
            }
            FailureCode::PaymentRequired => (
                Accountable::Gateway,
                format!("the gateway had no channel that pays worker {worker}"),
                "see the gateway's channels: surety status",
            ),
            FailureCode::DeadlineExceeded => (
                Accountable::Unknown,
                format!("the deadline passed first, after {tokens} tokens"),
                "ask for fewer tokens, or give it longer by `surety.deadline_ms`",
            ),
            FailureCode::NonFinite => (
                Accountable::Unknown,
                "the model left the finite numbers: every worker would fail alike".to_owned(),
                "ask another model",
            ),
            FailureCode::Overloaded
            | FailureCode::OutOfMemory
            | FailureCode::ModelUnknown
            | FailureCode::Leaving
            | FailureCode::Internal => {
                (Accountable::Worker, format!("worker {worker} failed: {code}: {message}"), "ask again")
            }
        },
        End::BrokeOff { accepted: true } => (
            Accountable::Worker,
            format!("worker {worker} accepted, and broke off after {tokens} tokens without a receipt"),
            "the gateway that paid claims compensation by itself after the deadline: surety status",
        ),
        End::BrokeOff { accepted: false } | End::Answered { .. } => {
            (Accountable::Unknown, format!("nothing came of it from worker {worker}"), "ask again")
        }
    };
    let part = (accountable == Accountable::Worker).then_some(index);
    Verdict { said, accountable, part, next: vec![next.to_owned()] }
}

/// Answers that all have an end.
fn answered(request_id: &str, parts: &[Part]) -> Verdict {
    let recompute = vec![format!("compute it again yourself: surety verify {request_id} --recompute")];
    let finished = |wanted: FinishReason| {
        choices(parts).find(|(_, part)| part.end == End::Answered { finish: wanted }).map(|(_, part)| part)
    };
    if let Some(part) = finished(FinishReason::Unpaid) {
        return Verdict {
            said: format!(
                "worker {} stopped after {} tokens, because the gateway's vouchers stopped coming",
                part.worker.short(),
                part.output_tokens
            ),
            accountable: Accountable::Gateway,
            part: None,
            next: vec!["see the gateway's channels: surety status".to_owned()],
        };
    }
    if let Some(part) = finished(FinishReason::Cancelled) {
        return Verdict {
            said: format!(
                "it was cancelled after {} tokens, by who asked or because nobody listened",
                part.output_tokens
            ),
            accountable: Accountable::Caller,
            part: None,
            next: recompute,
        };
    }
    let broke = parts.iter().position(|part| {
        matches!(part.end, End::BrokeOff { accepted: true } | End::Failed { code: FailureCode::Internal, .. })
    });
    match broke {
        Some(index) => Verdict {
            said: format!(
                "the answer is whole; worker {} broke off after {} tokens of it, and another went on with the same",
                parts[index].worker.short(),
                parts[index].output_tokens
            ),
            accountable: Accountable::Worker,
            part: Some(index),
            next: recompute,
        },
        None => Verdict {
            said: "the answer is whole, and nothing is known against anybody".to_owned(),
            accountable: Accountable::Nobody,
            part: None,
            next: recompute,
        },
    }
}

#[cfg(test)]
mod tests {
    use surety_types::Digest;

    use super::*;

    fn part(choice: u32, end: End) -> Part {
        Part {
            worker: PublicKey([choice as u8 + 1; 32]),
            model: ModelId(Digest::ZERO),
            choice,
            first_output_token: 0,
            output_tokens: 7,
            end,
            charge: Amount::ZERO,
            ledger: Some(Rechecked { operator: Some("0x01".into()), ..Rechecked::default() }),
        }
    }

    fn whole(choice: u32) -> Part {
        part(choice, End::Answered { finish: FinishReason::Stop })
    }

    fn failure(code: FailureCode) -> Part {
        part(0, End::Failed { code, message: "why".into() })
    }

    fn known(part: Part, change: impl FnOnce(&mut Rechecked)) -> Part {
        let mut ledger = part.ledger.clone().expect("known");
        change(&mut ledger);
        Part { ledger: Some(ledger), ..part }
    }

    #[test]
    fn one_party_is_named_or_nobody() {
        let broke = || part(0, End::BrokeOff { accepted: true });
        let convicted = known(whole(0), |ledger| (ledger.convicted, ledger.dispute) = (true, Some(4)));
        let contested = known(whole(0), |ledger| (ledger.contested, ledger.dispute) = (true, Some(4)));
        let compensated = known(broke(), |ledger| (ledger.compensated, ledger.claim) = (true, Some(2)));
        let differing = known(whole(0), |ledger| ledger.audit = Some("differing"));
        let ended = |finish| part(0, End::Answered { finish });
        for (parts, accountable, index, says) in [
            (vec![whole(0)], Accountable::Nobody, None, "nothing is known against anybody"),
            (vec![broke(), whole(0)], Accountable::Worker, Some(0), "another went on"),
            (vec![failure(FailureCode::Overloaded), whole(0)], Accountable::Nobody, None, "whole"),
            (vec![failure(FailureCode::Internal), whole(0)], Accountable::Worker, Some(0), "another went on"),
            (
                vec![whole(0), part(1, End::BrokeOff { accepted: true })],
                Accountable::Worker,
                Some(1),
                "broke off",
            ),
            (vec![part(0, End::BrokeOff { accepted: false })], Accountable::Unknown, None, "nothing came"),
            (vec![failure(FailureCode::BadRequest)], Accountable::Caller, None, "cannot be answered: why"),
            (vec![failure(FailureCode::PaymentRequired)], Accountable::Gateway, None, "no channel"),
            (vec![failure(FailureCode::NonFinite)], Accountable::Unknown, None, "every worker would"),
            (
                vec![failure(FailureCode::Internal)],
                Accountable::Worker,
                Some(0),
                "failed: internal failure: why",
            ),
            (vec![ended(FinishReason::Unpaid)], Accountable::Gateway, None, "vouchers"),
            (vec![ended(FinishReason::Cancelled)], Accountable::Caller, None, "cancelled after 7"),
            (vec![convicted.clone()], Accountable::Worker, Some(0), "was convicted"),
            // What the ledger decided weighs more than how an answer ended, and a verdict more than a contest.
            (vec![contested.clone(), convicted], Accountable::Worker, Some(1), "was convicted"),
            (vec![broke(), contested], Accountable::Unknown, None, "not decided yet"),
            (vec![compensated], Accountable::Worker, Some(0), "compensated"),
            (vec![differing], Accountable::Unknown, None, "nobody is convicted"),
        ] {
            let found = verdict("req_1", &parts);
            assert_eq!((found.accountable, found.part), (accountable, index), "{}", found.said);
            assert!(found.said.contains(says), "{:?} does not say {says:?}", found.said);
            assert!(!found.next.is_empty(), "{}", found.said);
        }
    }

    #[test]
    fn what_was_not_looked_at_is_said() {
        let passed = known(whole(0), |ledger| ledger.audit = Some("passed"));
        assert!(not_known(&[passed]).is_empty());
        assert_eq!(not_known(&[whole(0)]).len(), 1);
        assert_eq!(not_known(&[Part { ledger: None, ..whole(0) }]).len(), 2);
        assert_eq!(not_known(&[part(0, End::BrokeOff { accepted: true })]).len(), 2);
        let shown = explain_false(None, "the text is another");
        assert_eq!((shown.accountable, shown.whole), (Accountable::Unknown, false));
    }
}
