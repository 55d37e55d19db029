//! Explanation: what became of a request, who answers for what went wrong, and what can be done.
//!
//! In:     what is shown of a request, and holds; what the ledger knows of its orders, where it was asked.
//! Out:    one verdict that names one party, nobody, or says that it is not known, and on what it rests; routing, events, parts,
//!         money, the next step.
//! Touches: nothing.
//! Holds:  a worker is named only for what it signed or the ledger decided; where two could be at fault, nobody is named. What only
//!         the gateway says is said to be its word, and it accuses nobody but the caller and the gateway itself.
//! Absent: where evidence comes from, terminals (`commands/explain`).

use serde::{Deserialize, Serialize};
use surety_gateway::catalogue;
use surety_proof::check::{Checked, CheckedEvidence};
use surety_types::{
    Amount, Decision, Digest, FailureCode, FinishReason, ModelId, PublicKey, Signed, StatedEnd, StatedEvent,
    Statement, What,
};

use crate::{conduct::Rechecked, dossier::Papers};

/// After the gateway itself stood still, silence of others for so long is its own doing, in milliseconds.
const STANDSTILL_AFTER_MS: u64 = 10_000;

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

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// What the ledger decided, or has under way.
    Ledger,
    /// What the parties signed about the orders.
    Signatures,
    /// The gateway's own signed word, and nothing else: no proof.
    GatewaysWord,
    /// Nothing that holds.
    Nothing,
}

/// What the ledger knows of an order. [`Rechecked`] as it can be saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnLedger {
    /// Who answers for the worker.
    pub operator: Option<String>,
    /// How far an audit is.
    pub audit: Option<String>,
    /// The last dispute about the receipt, and its state in words.
    pub dispute: Option<u64>,
    pub dispute_state: Option<String>,
    pub contested: bool,
    pub convicted: bool,
    /// The claim that the order was not answered.
    pub claim: Option<u64>,
    /// The worker showed a receipt for an answer to that.
    #[serde(default)]
    pub shown: bool,
    pub compensated: bool,
    /// The same in words, for people.
    pub said: Vec<String>,
}

impl From<&Rechecked> for OnLedger {
    fn from(record: &Rechecked) -> OnLedger {
        OnLedger {
            operator: record.operator.clone(),
            audit: record.audit.map(str::to_owned),
            dispute: record.dispute,
            dispute_state: record.dispute_state.map(str::to_owned),
            contested: record.contested,
            convicted: record.convicted,
            claim: record.claim,
            shown: record.shown,
            compensated: record.compensated,
            said: record.said.clone(),
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub request_id: Option<String>,
    /// In one line.
    pub verdict: String,
    pub accountable: Accountable,
    /// What that rests on.
    pub basis: Basis,
    /// The error that the caller was told, by its code.
    pub code: Option<String>,
    /// The gateway that it came to.
    pub gateway: Option<PublicKey>,
    /// The worker that is accountable, and who answers for it on the ledger, if one does.
    pub worker: Option<PublicKey>,
    pub operator: Option<String>,
    /// Whether the caller has every answer whole.
    pub whole: bool,
    /// Which workers were considered and what kept the others out, by the gateway's word.
    pub routing: Vec<Decision>,
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
    /// Whether it computed the answer once more, to be compared with it.
    pub check: bool,
    /// Index of its first token in the answer, and tokens that it signed for.
    pub first_output_token: u32,
    pub output_tokens: u32,
    pub end: End,
    /// In micro-credits.
    pub charge: Amount,
    /// What the ledger knows of its receipt; none if it was not asked, or there is no receipt.
    pub ledger: Option<OnLedger>,
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
    basis: Basis,
    /// Index of the part that is accountable.
    part: Option<usize>,
    next: Vec<String>,
}

/// Explains evidence that holds, with what its gateway says besides. `ledger` has what is known of each answer's order.
pub fn explain(
    request_id: &str,
    checked: &CheckedEvidence,
    statement: Option<&Signed<Statement>>,
    mut ledger: impl FnMut(&Checked) -> Option<OnLedger>,
) -> Explanation {
    let envelope = &checked.envelope;
    let named = checked.answers.iter().zip(&envelope.parts);
    let parts: Vec<Part> =
        named.map(|(answer, named)| part(answer, named.is_check(), ledger(answer))).collect();
    let mut found = verdict(request_id, &parts);
    let broke = found.part.is_some_and(|index| matches!(parts[index].end, End::BrokeOff { .. }));
    if broke && found.basis == Basis::Signatures && statement.is_some_and(|statement| stood_still(statement))
    {
        found = own_standstill("the answer is whole; ", found.next);
    }
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
            let check = if part.check { ", to compute the answer once more" } else { "" };
            events.push(told(
                acceptance.accepted_ms,
                format!("accepted {} prompt tokens{check}{from}", part_prompt(answer)),
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
    if let Some(statement) = statement {
        // What workers signed about themselves is there already.
        let wanted = |event: &&StatedEvent| !matches!(event.what, What::Accepted | What::Finished);
        events
            .extend(statement.events.iter().filter(wanted).map(|event| stated(event, envelope.received_ms)));
    }
    events.sort_by_key(|event| event.after_ms);
    let whole = is_whole(&parts);
    let routing = statement.map(|statement| statement.decisions.clone()).unwrap_or_default();
    let mut explanation = explained(request_id, found, parts, events, envelope.charge);
    (explanation.whole, explanation.routing, explanation.gateway) = (whole, routing, Some(envelope.gateway));
    if checked.answers.iter().any(Checked::is_by_word) {
        explanation.next.retain(|next| !next.contains("--recompute"));
        explanation.not_known.retain(|line| line != COMPUTED);
        explanation.not_known.push(TOLD.to_owned());
        let was_compared = |event: &StatedEvent| event.what == What::Compared;
        if statement.is_some_and(|statement| statement.events.iter().any(was_compared)) {
            explanation.not_known.push(TOLD_AND_COMPARED.to_owned());
        }
    }
    explanation
}

/// Explains a request of which there is no evidence by what its gateway says, and what was signed about its orders.
pub fn explain_stated(
    statement: &Statement,
    papers: &[Papers],
    mut ledger: impl FnMut(&Papers) -> Option<OnLedger>,
) -> Explanation {
    let parts: Vec<Part> = papers.iter().map(|papers| part_of_papers(papers, ledger(papers))).collect();
    let found = stated_verdict(statement, &parts);
    let mut events: Vec<Event> =
        statement.events.iter().map(|event| stated(event, statement.received_ms)).collect();
    let mut at = |unix_ms: u64, what: String| {
        let after_ms = unix_ms as i64 - statement.received_ms as i64;
        events.push(Event { after_ms, worker: None, what });
    };
    let asked = match statement.model_name.as_str() {
        "" => String::new(),
        model => format!(", for {model:?}"),
    };
    at(statement.received_ms, format!("the request came{asked}"));
    at(
        statement.ended_ms,
        match &statement.end {
            StatedEnd::Answered => "it was answered".to_owned(),
            StatedEnd::Failed { code, .. } => format!("the caller was told: {code}"),
            StatedEnd::Left => "the caller left".to_owned(),
            StatedEnd::Stopped => "the last that was noted before the gateway ended".to_owned(),
            StatedEnd::Counted => "its prompt was counted, which was all that was asked".to_owned(),
        },
    );
    if statement.left_out > 0 {
        at(statement.ended_ms, format!("{} more things happened, which were not noted", statement.left_out));
    }
    events.sort_by_key(|event| event.after_ms);
    let mut explanation = explained(&statement.request_id, found, parts, events, statement.charge);
    if let StatedEnd::Failed { code, .. } = &statement.end {
        explanation.code = Some(code.to_string());
    }
    (explanation.routing, explanation.gateway) = (statement.decisions.clone(), Some(statement.gateway));
    if statement.end == StatedEnd::Answered && is_whole(&explanation.parts) {
        explanation.whole = true;
        explanation.not_known.push(
            "which text the caller got: it is not in what is shown; that each receipt is of the order it is shown with was checked"
                .to_owned(),
        );
        return explanation;
    }
    explanation.not_known.insert(
        0,
        "whether it was as the gateway says: what it says is signed, so that it cannot be denied, and shown by nothing else".to_owned(),
    );
    explanation
}

fn explained(
    request_id: &str,
    found: Verdict,
    parts: Vec<Part>,
    events: Vec<Event>,
    charge: Amount,
) -> Explanation {
    let Verdict { said, accountable, basis, part, next } = found;
    let accused = part.map(|index| &parts[index]);
    Explanation {
        request_id: Some(request_id.to_owned()),
        verdict: said,
        accountable,
        basis,
        code: None,
        gateway: None,
        worker: accused.map(|part| part.worker),
        operator: accused.and_then(|part| part.ledger.as_ref()?.operator.clone()),
        whole: false,
        routing: Vec::new(),
        events,
        charge,
        not_known: not_known(&parts),
        next,
        parts,
    }
}

/// Nothing that could be explained is shown, or what is shown does not hold.
pub fn unexplained(request_id: Option<String>, said: String, next: &str, not_known: &str) -> Explanation {
    Explanation {
        request_id,
        verdict: said,
        accountable: Accountable::Unknown,
        basis: Basis::Nothing,
        code: None,
        gateway: None,
        worker: None,
        operator: None,
        whole: false,
        routing: Vec::new(),
        events: Vec::new(),
        parts: Vec::new(),
        charge: Amount::ZERO,
        next: vec![next.to_owned()],
        not_known: vec![not_known.to_owned()],
    }
}

/// Explains an order or a receipt by what the ledger alone knows of it: for each answer its worker, and the record.
pub fn explain_digest(digest: &Digest, known: &[(PublicKey, OnLedger)]) -> Explanation {
    let places: Vec<(usize, PublicKey, &OnLedger)> =
        known.iter().enumerate().map(|(index, (worker, ledger))| (index, *worker, ledger)).collect();
    let id = digest.to_string();
    let found = decided(&id, &places, |_, ledger| ledger.shown).unwrap_or_else(|| match known.first() {
        None => Verdict {
            said: "the ledger has no claim, no dispute and no audit about it: nobody is accused, and nothing was computed again"
                .to_owned(),
            accountable: Accountable::Unknown,
            basis: Basis::Ledger,
            part: None,
            next: vec!["explain the request by its id, at the gateway that answered, or from a file of it".to_owned()],
        },
        Some((worker, _)) => Verdict {
            said: format!("nothing is decided against worker {}, by what the ledger knows of it", worker.short()),
            accountable: Accountable::Nobody,
            basis: Basis::Ledger,
            part: None,
            next: vec!["see what is signed about it: surety explain FILE, of its evidence".to_owned()],
        },
    });
    let accused = found.part.map(|index| &known[index]);
    let (worker, operator) = (accused.map(|one| one.0), accused.and_then(|one| one.1.operator.clone()));
    let said = known.iter().flat_map(|(worker, ledger)| {
        ledger.said.iter().map(move |line| Event { after_ms: 0, worker: Some(*worker), what: line.clone() })
    });
    Explanation {
        worker,
        operator,
        events: said.collect(),
        not_known: vec![
            "what was asked and answered, and whether it arrived: of that the ledger knows digests only"
                .to_owned(),
            "whether nodes left something out: that there is no claim or dispute is their word".to_owned(),
        ],
        request_id: None,
        ..explained(&id, Verdict { part: None, ..found }, Vec::new(), Vec::new(), Amount::ZERO)
    }
}

/// Explains evidence that does not hold: whoever changed it has left no signature.
pub fn explain_false(request_id: Option<String>, why: &str) -> Explanation {
    unexplained(
        request_id,
        format!("what is shown does not hold: {why}"),
        "ask the gateway that answered for it anew: a file may have been changed since it was saved",
        "who changed it, or signed what is not so",
    )
}

/// An event in words.
fn stated(event: &StatedEvent, received_ms: u64) -> Event {
    let who =
        event.worker.map_or_else(|| "a worker".to_owned(), |worker| format!("worker {}", worker.short()));
    let why = match event.why.as_str() {
        "" => String::new(),
        why => format!(": {why}"),
    };
    let tokens = event.tokens;
    let what = match event.what {
        What::Ordered if tokens > 0 => format!("ordered the rest, after {tokens} tokens, of {who}"),
        What::Ordered => format!("ordered it of {who}"),
        What::Accepted => format!("{who} accepted"),
        What::Declined => format!("{who} did not take it{why}"),
        What::BrokeOff => format!("{who} broke off after {tokens} tokens{why}"),
        What::GaveUp => format!("{who} gave up after {tokens} tokens{why}"),
        What::HandedOver => format!("{who} goes on after {tokens} tokens"),
        What::Slow => format!("{who} is slow{why}; another is asked beside it"),
        What::Finished => format!("{who} brought it to its end"),
        What::StoodStill => format!("the gateway itself stood still{why}"),
        What::Compared => {
            format!("what {who} computed was compared with the answer, after {tokens} tokens{why}")
        }
    };
    Event { after_ms: event.at_ms as i64 - received_ms as i64, worker: None, what }
}

/// Whether the gateway stood still shortly before it gave up somebody for silence.
fn stood_still(statement: &Statement) -> bool {
    let still = statement.events.iter().filter(|event| event.what == What::StoodStill);
    let ends = statement.events.iter().filter(|event| matches!(event.what, What::BrokeOff | What::Declined));
    let mut ends: Vec<u64> = ends.map(|event| event.at_ms).collect();
    if ends.is_empty() {
        ends.push(statement.ended_ms);
    }
    // It may have given up somebody before it noticed itself; both are of the same moment then.
    let near = |at_ms: u64| ends.iter().any(|end| end.abs_diff(at_ms) <= STANDSTILL_AFTER_MS);
    still.map(|event| event.at_ms).any(near)
}

/// Whether nobody qualified in the end because several workers were not to be reached.
fn all_fell_silent(statement: &Statement) -> bool {
    let Some(last) = statement.decisions.last().filter(|last| last.qualified == 0) else { return false };
    let count = |name: &str| {
        let kept = last.removed.iter().filter(|kept| kept.constraint.as_str() == name);
        kept.map(|kept| kept.workers).sum::<u32>()
    };
    let unreachable = count("unreachable");
    unreachable >= 1 && unreachable + count("tried") >= 2
}

fn own_standstill(before: &str, next: Vec<String>) -> Verdict {
    Verdict {
        said: format!("{before}the gateway itself stood still, and took others for silent"),
        accountable: Accountable::Gateway,
        basis: Basis::GatewaysWord,
        part: None,
        next,
    }
}

/// The verdict where there is no evidence: the ledger's, then by who signed what, then the gateway's word.
fn stated_verdict(statement: &Statement, parts: &[Part]) -> Verdict {
    if let Some(found) = by_ledger(&statement.request_id, parts) {
        return found;
    }
    let word = |accountable: Accountable, said: String, next: &str| Verdict {
        said,
        accountable,
        basis: Basis::GatewaysWord,
        part: None,
        next: vec![next.to_owned()],
    };
    let (code, message, said_accountable, worker) = match &statement.end {
        StatedEnd::Failed { code, message, accountable, worker } => (code, message, accountable, worker),
        StatedEnd::Left => {
            return word(
                Accountable::Caller,
                "whoever asked left before the answer was whole, or its connection broke".to_owned(),
                "ask again, and stay; a stream can be gone on with by `Last-Event-ID` where its events had ids",
            );
        }
        StatedEnd::Stopped => {
            return word(
                Accountable::Gateway,
                "the gateway ended in the middle of the answer: it was killed, or its machine failed"
                    .to_owned(),
                "ask again; a stream can be gone on with by `Last-Event-ID` where its events had ids",
            );
        }
        StatedEnd::Counted => {
            return word(
                Accountable::Nobody,
                "its prompt was counted, as was asked: there is no answer, and nothing was charged"
                    .to_owned(),
                "nothing is to be done",
            );
        }
        StatedEnd::Answered if is_whole(parts) => return answered(&statement.request_id, parts),
        StatedEnd::Answered => {
            return word(
                Accountable::Unknown,
                "the gateway says that it answered, and no evidence of the answer is shown".to_owned(),
                "evidence is kept for a while, and goes when there is too much of it: save it in time",
            );
        }
    };
    let next = catalogue::explained(code).map_or("ask again", |explained| explained.act);
    let told = message.trim();
    let silence = matches!(code.as_str(), "worker_lost" | "worker_stalled" | "no_worker" | "deadline");
    if silence && stood_still(statement) {
        return own_standstill("", vec![next.to_owned()]);
    }
    if silence && all_fell_silent(statement) {
        let said = format!(
            "all workers that could have answered fell silent together: their machines, or what connects this gateway with them, and \
             that cannot be told apart from here: {told}"
        );
        return word(Accountable::Unknown, said, next);
    }
    match said_accountable.as_str() {
        "caller" => {
            return word(Accountable::Caller, format!("the request cannot be answered: {told}"), next);
        }
        "gateway" => return word(Accountable::Gateway, format!("the gateway failed: {told}"), next),
        _ => {}
    }
    if code.as_str() == "no_worker" && worker.is_none() {
        return nobody_qualified(statement, told, next);
    }
    // The last that this worker signed something about.
    let of = |wanted: &PublicKey| parts.iter().rposition(|part| part.worker == *wanted);
    if let Some(index) = worker.as_ref().and_then(of)
        && (said_accountable.as_str() == "worker" || matches!(parts[index].end, End::Failed { .. }))
    {
        let mut found = failed(index, &parts[index]);
        found.next = vec![next.to_owned()];
        return found;
    }
    let who = worker.map_or_else(|| "a worker".to_owned(), |worker| format!("worker {}", worker.short()));
    let said = match said_accountable.as_str() {
        "worker" => {
            format!("the gateway says that {who} failed, and nothing that it signed shows it: {told}")
        }
        _ => format!("it cannot be told whose doing it was: {told}"),
    };
    word(Accountable::Unknown, said, next)
}

/// No worker qualified: who had a hand in that.
fn nobody_qualified(statement: &Statement, told: &str, next: &str) -> Verdict {
    let removed = statement.decisions.last().map(|last| last.removed.as_slice()).unwrap_or_default();
    // Whoever was kept out by something else may have been who was asked for: then it is nobody's doing that is seen here.
    let all = |of: fn(&str) -> bool| !removed.is_empty() && removed.iter().all(|kept| of(&kept.constraint));
    let (accountable, said) = if all(|name| name.starts_with("provider.") || name.starts_with("surety.")) {
        (
            Accountable::Caller,
            format!("workers were ready, and the request's own constraints ruled them out: {told}"),
        )
    } else if all(|name| name == "payment") {
        (Accountable::Gateway, format!("workers were ready, and the gateway could not pay them: {told}"))
    } else {
        (
            Accountable::Unknown,
            format!("no worker that the request allows was there, and none had promised anything: {told}"),
        )
    };
    Verdict { said, accountable, basis: Basis::GatewaysWord, part: None, next: vec![next.to_owned()] }
}

fn part_of_papers(papers: &Papers, ledger: Option<OnLedger>) -> Part {
    let failed = papers.receipt.as_ref().and_then(|receipt| receipt.failure());
    let end = match (&papers.receipt, failed) {
        (None, _) => End::BrokeOff { accepted: papers.acceptance.is_some() },
        (Some(_), Some((code, message))) => End::Failed { code, message: message.to_owned() },
        (Some(receipt), None) => End::Answered { finish: receipt.finish },
    };
    let signed = papers.progress.as_ref().map_or(0, |progress| progress.output_tokens);
    Part {
        worker: papers.worker,
        model: papers.order.model,
        choice: papers.order.choice,
        // Its gateway's envelope would say so, and there is none.
        check: false,
        first_output_token: papers.order.resumed_tokens(),
        output_tokens: papers.receipt.as_ref().map_or(signed, |receipt| receipt.output_tokens),
        end,
        charge: papers.receipt.as_ref().map_or(Amount::ZERO, |receipt| receipt.charge),
        ledger,
    }
}

fn part_prompt(answer: &Checked) -> u32 {
    answer.prompt_tokens().saturating_sub(answer.order.resumed_tokens())
}

fn part(answer: &Checked, check: bool, ledger: Option<OnLedger>) -> Part {
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
        check,
        first_output_token: answer.order.resumed_tokens(),
        output_tokens: answer.output_tokens(),
        end,
        charge: answer.charge(),
        ledger,
    }
}

/// The last part of each answer: what it ended with.
fn choices(parts: &[Part]) -> impl Iterator<Item = (usize, &Part)> {
    let of = |part: &Part| (part.choice, part.check);
    let is_last = move |index: usize| parts.get(index + 1).is_none_or(|next| of(next) != of(&parts[index]));
    parts.iter().enumerate().filter(move |(index, _)| is_last(*index))
}

/// Whether every answer that there is a part of has an end.
fn is_whole(parts: &[Part]) -> bool {
    !parts.is_empty() && choices(parts).all(|(_, last)| matches!(last.end, End::Answered { .. }))
}

const COMPUTED: &str = "whether the answer is what the model gives: only computing it again shows that";
const COMPUTED_YOURSELF: &str = "whether the answer is what the model gives, and not what two workers agreed on: computing it again yourself shows that";
/// Of an answer that an upstream gave.
const TOLD: &str = "which model gave the answer: the operator's upstream did, which saw the text, and nobody can compute it again";
/// The same, where it was compared with the model that it is said to be of.
const TOLD_AND_COMPARED: &str = "whether this answer is that model's, which it was compared with: how likely a model finds answers tells it from another over many of \
                                 them, and never shows that one is right, whole or of the very weights; that it was compared is the \
                                 gateway's word";

fn not_known(parts: &[Part]) -> Vec<String> {
    let mut lines = Vec::new();
    if parts.iter().any(|part| part.ledger.is_none()) {
        lines.push("what the ledger knows of every receipt: it was not asked, or has no answer".to_owned());
    }
    let passed =
        |part: &Part| part.ledger.as_ref().is_some_and(|ledger| ledger.audit.as_deref() == Some("passed"));
    if !parts.iter().all(passed) {
        let agreed = parts.iter().any(|part| part.check);
        lines.push(if agreed { COMPUTED_YOURSELF } else { COMPUTED }.to_owned());
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
    if let Some(found) = by_ledger(request_id, parts) {
        return found;
    }
    let unfinished = choices(parts).find(|(_, part)| !matches!(part.end, End::Answered { .. }));
    match unfinished {
        Some((index, part)) => failed(index, part),
        None => answered(request_id, parts),
    }
}

/// What the ledger decided, or has not decided yet, if it has anything of these.
fn by_ledger(request_id: &str, parts: &[Part]) -> Option<Verdict> {
    let known = parts.iter().enumerate();
    let known = known.filter_map(|(index, part)| Some((index, part.worker, part.ledger.as_ref()?)));
    let shown_late = |index: usize, ledger: &OnLedger| {
        ledger.shown && matches!(parts[index].end, End::BrokeOff { accepted: true })
    };
    decided(request_id, &known.collect::<Vec<_>>(), shown_late)
}

/// The same of answers of which there may be nothing else: their places, workers, and what the ledger knows. `shown_late` is asked
/// whether one did not arrive, as far as is known.
fn decided(
    request_id: &str,
    known: &[(usize, PublicKey, &OnLedger)],
    shown_late: impl Fn(usize, &OnLedger) -> bool,
) -> Option<Verdict> {
    let on_ledger = |is: fn(&OnLedger) -> bool| {
        let found = known.iter().find(|(_, _, ledger)| is(ledger));
        found.map(|(index, worker, ledger)| (*index, worker.short(), *ledger))
    };
    if let Some((index, worker, ledger)) = on_ledger(|ledger| ledger.convicted) {
        let reason = ledger.dispute_state.as_deref().unwrap_or_default();
        let id = ledger.dispute.unwrap_or_default();
        return Some(Verdict {
            basis: Basis::Ledger,
            said: format!("worker {worker} gave a false answer, and was convicted: {reason}"),
            accountable: Accountable::Worker,
            part: Some(index),
            next: vec![
                format!("see what it cost whom: surety dispute show {id}"),
                format!("judge it yourself, without any network: surety dispute replay {id}"),
            ],
        });
    }
    if let Some((index, worker, ledger)) = on_ledger(|ledger| ledger.compensated) {
        return Some(Verdict {
            basis: Basis::Ledger,
            said: format!(
                "worker {worker} accepted and did not answer; its operator's bond compensated the payer"
            ),
            accountable: Accountable::Worker,
            part: Some(index),
            next: vec![format!("claim {} on the ledger says how much", ledger.claim.unwrap_or_default())],
        });
    }
    if let Some((_, worker, ledger)) = on_ledger(|ledger| ledger.contested) {
        let id = ledger.dispute.unwrap_or_default();
        return Some(Verdict {
            basis: Basis::Ledger,
            said: format!("worker {worker}'s answer is contested; the ledger has not decided yet"),
            accountable: Accountable::Unknown,
            part: None,
            next: vec![format!("follow it: surety dispute show {id}")],
        });
    }
    if let Some((_, worker, _)) = on_ledger(|ledger| ledger.audit.as_deref() == Some("differing")) {
        return Some(Verdict {
            basis: Basis::Ledger,
            said: format!("an auditor computed something else than worker {worker}; nobody is convicted"),
            accountable: Accountable::Unknown,
            part: None,
            next: vec![format!(
                "compute it yourself, and contest it if it does not hold: surety verify {request_id} --recompute \
                 --challenge --account NAME"
            )],
        });
    }
    let late = known.iter().find(|(index, _, ledger)| shown_late(*index, ledger));
    late.map(|(_, worker, ledger)| Verdict {
        basis: Basis::Ledger,
        said: format!(
            "worker {}'s answer did not arrive, and it showed on the ledger that it had made it: the way between failed",
            worker.short()
        ),
        accountable: Accountable::Unknown,
        part: None,
        next: vec![format!("claim {} on the ledger says who was paid what", ledger.claim.unwrap_or_default())],
    })
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
            format!(
                "worker {worker} accepted, and broke off after {tokens} tokens without a receipt: it failed, or the way to it, \
                 and by its acceptance it answers for both"
            ),
            "the gateway that paid claims compensation by itself after the deadline: surety status",
        ),
        End::BrokeOff { accepted: false } | End::Answered { .. } => {
            (Accountable::Unknown, format!("nothing came of it from worker {worker}"), "ask again")
        }
    };
    let part = (accountable == Accountable::Worker).then_some(index);
    Verdict { said, accountable, basis: Basis::Signatures, part, next: vec![next.to_owned()] }
}

/// Answers that all have an end.
fn answered(request_id: &str, parts: &[Part]) -> Verdict {
    let recompute = vec![format!("compute it again yourself: surety verify {request_id} --recompute")];
    let finished = |wanted: FinishReason| {
        choices(parts).find(|(_, part)| part.end == End::Answered { finish: wanted }).map(|(_, part)| part)
    };
    if let Some(part) = finished(FinishReason::Unpaid) {
        return Verdict {
            basis: Basis::Signatures,
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
            basis: Basis::Signatures,
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
            basis: Basis::Signatures,
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
            basis: Basis::Signatures,
            said: if parts.iter().any(|part| part.check) {
                "the answer is whole, a second worker computed the same before its end was sent, and nothing is known against \
                 anybody"
            } else {
                "the answer is whole, and nothing is known against anybody"
            }
            .to_owned(),
            accountable: Accountable::Nobody,
            part: None,
            next: recompute,
        },
    }
}

#[cfg(test)]
mod tests {
    use surety_types::{KeptOut, Text};

    use super::*;

    fn part(choice: u32, end: End) -> Part {
        Part {
            worker: PublicKey([choice as u8 + 1; 32]),
            model: ModelId(Digest::ZERO),
            choice,
            check: false,
            first_output_token: 0,
            output_tokens: 7,
            end,
            charge: Amount::ZERO,
            ledger: Some(OnLedger { operator: Some("0x01".into()), ..OnLedger::default() }),
        }
    }

    fn whole(choice: u32) -> Part {
        part(choice, End::Answered { finish: FinishReason::Stop })
    }

    fn failure(code: FailureCode) -> Part {
        part(0, End::Failed { code, message: "why".into() })
    }

    fn known(part: Part, change: impl FnOnce(&mut OnLedger)) -> Part {
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
        let differing = known(whole(0), |ledger| ledger.audit = Some("differing".into()));
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

    fn statement(code: &str, accountable: &str, worker: Option<PublicKey>) -> Statement {
        let end = StatedEnd::Failed {
            code: Text::clipped(code),
            message: Text::clipped("told so."),
            accountable: Text::clipped(accountable),
            worker,
        };
        Statement {
            request_id: "req_1".into(),
            gateway: PublicKey([9; 32]),
            path: Text::clipped("/v1/completions"),
            model_name: "m".into(),
            received_ms: 1_000,
            ended_ms: 9_000,
            end,
            charge: Amount::ZERO,
            decisions: Vec::new(),
            events: Vec::new(),
            left_out: 0,
        }
    }

    #[test]
    fn on_a_gateways_word_alone_no_worker_is_named() {
        let worker = whole(0).worker;
        let ruled_out = |constraints: &[&str]| {
            let kept_out = |constraint: &&str| KeptOut { constraint: Text::clipped(*constraint), workers: 1 };
            let removed = constraints.iter().map(kept_out).collect();
            let decision = Decision { at_ms: 1_000, qualified: 0, best: Vec::new(), removed };
            Statement { decisions: vec![decision], ..statement("no_worker", "unknown", None) }
        };
        let lost_with = |constraints: &[&str]| {
            let decisions = ruled_out(constraints).decisions;
            Statement { decisions, ..statement("worker_lost", "worker", Some(worker)) }
        };
        let stood_still = |at_ms: u64| {
            let event = |what, at_ms| StatedEvent {
                at_ms,
                what,
                worker: None,
                order: None,
                tokens: 0,
                why: Text::default(),
            };
            let events = vec![event(What::StoodStill, at_ms), event(What::BrokeOff, 60_000)];
            Statement { events, ..statement("worker_stalled", "worker", Some(worker)) }
        };
        let ended = |end| Statement { end, ..statement("", "", None) };
        let broke = || vec![part(0, End::BrokeOff { accepted: true })];
        let compensated =
            known(broke().remove(0), |ledger| (ledger.compensated, ledger.claim) = (true, Some(2)));
        let shown = known(broke().remove(0), |ledger| (ledger.shown, ledger.claim) = (true, Some(2)));
        use Accountable::{Caller, Gateway, Nobody, Unknown, Worker};
        for (statement, parts, accountable, basis) in [
            (statement("invalid_param", "caller", None), vec![], Caller, Basis::GatewaysWord),
            (statement("overloaded", "gateway", None), vec![], Gateway, Basis::GatewaysWord),
            // It says so, and nothing shows it.
            (statement("verification_failed", "worker", Some(worker)), vec![], Unknown, Basis::GatewaysWord),
            (statement("worker_lost", "worker", Some(worker)), broke(), Worker, Basis::Signatures),
            (
                statement("worker_bad_output", "worker", Some(worker)),
                vec![failure(FailureCode::Internal)],
                Worker,
                Basis::Signatures,
            ),
            // Another worker's acceptance is nothing to this one.
            (
                statement("worker_lost", "worker", Some(PublicKey([7; 32]))),
                broke(),
                Unknown,
                Basis::GatewaysWord,
            ),
            // By acceptance it would answer; that two disagree is not known to be its doing.
            (
                statement("verification_failed", "unknown", Some(worker)),
                broke(),
                Unknown,
                Basis::GatewaysWord,
            ),
            (statement("worker_stalled", "network", Some(worker)), vec![], Unknown, Basis::GatewaysWord),
            (statement("worker_lost", "worker", Some(worker)), vec![compensated], Worker, Basis::Ledger),
            // The others were gone too: it may be the gateway's own way out.
            (lost_with(&["unreachable", "tried"]), broke(), Unknown, Basis::GatewaysWord),
            (lost_with(&["tried", "model"]), broke(), Worker, Basis::Signatures),
            (lost_with(&["unreachable"]), broke(), Worker, Basis::Signatures),
            (stood_still(59_000), broke(), Gateway, Basis::GatewaysWord),
            (stood_still(61_000), broke(), Gateway, Basis::GatewaysWord),
            (stood_still(9_000), broke(), Worker, Basis::Signatures),
            (ruled_out(&["provider.max_price", "surety.worker"]), vec![], Caller, Basis::GatewaysWord),
            (ruled_out(&["surety.worker", "resting"]), vec![], Unknown, Basis::GatewaysWord),
            (ruled_out(&["payment"]), vec![], Gateway, Basis::GatewaysWord),
            (ruled_out(&["payment", "unreachable"]), vec![], Unknown, Basis::GatewaysWord),
            (ruled_out(&["unreachable"]), vec![], Unknown, Basis::GatewaysWord),
            (ruled_out(&[]), vec![], Unknown, Basis::GatewaysWord),
            (ended(StatedEnd::Left), broke(), Caller, Basis::GatewaysWord),
            (ended(StatedEnd::Stopped), broke(), Gateway, Basis::GatewaysWord),
            (ended(StatedEnd::Counted), vec![], Nobody, Basis::GatewaysWord),
            (ended(StatedEnd::Answered), vec![], Unknown, Basis::GatewaysWord),
            // What workers signed shows it, without the texts.
            (ended(StatedEnd::Answered), vec![whole(0)], Nobody, Basis::Signatures),
            (ended(StatedEnd::Answered), vec![broke().remove(0), whole(0)], Worker, Basis::Signatures),
            (ended(StatedEnd::Answered), broke(), Unknown, Basis::GatewaysWord),
            (statement("worker_lost", "worker", Some(worker)), vec![shown], Unknown, Basis::Ledger),
        ] {
            let found = stated_verdict(&statement, &parts);
            let said = (&found.said, &statement.end);
            assert_eq!((found.accountable, found.basis), (accountable, basis), "{said:?}");
            assert_eq!(found.part.is_some(), accountable == Worker, "{said:?}");
            assert!(!found.next.is_empty() && !found.said.is_empty(), "{said:?}");
        }
    }

    #[test]
    fn a_digest_is_explained_by_the_ledger_alone() {
        let digest = Digest([7; 32]);
        let ledger = |change: fn(&mut OnLedger)| {
            let mut ledger = OnLedger { operator: Some("0x01".into()), ..OnLedger::default() };
            change(&mut ledger);
            (PublicKey([1; 32]), ledger)
        };
        let convicted = ledger(|ledger| (ledger.convicted, ledger.dispute) = (true, Some(4)));
        let shown = ledger(|ledger| (ledger.shown, ledger.claim) = (true, Some(2)));
        let passed = ledger(|ledger| ledger.audit = Some("passed".into()));
        for (known, accountable, says) in [
            (vec![], Accountable::Unknown, "no claim, no dispute and no audit"),
            (vec![passed.clone()], Accountable::Nobody, "nothing is decided"),
            (vec![shown], Accountable::Unknown, "showed on the ledger"),
            (vec![passed, convicted], Accountable::Worker, "was convicted"),
        ] {
            let found = explain_digest(&digest, &known);
            assert_eq!((found.accountable, found.basis), (accountable, Basis::Ledger), "{}", found.verdict);
            assert!(found.verdict.contains(says), "{}", found.verdict);
            assert_eq!(found.operator.is_some(), accountable == Accountable::Worker);
        }
    }

    #[test]
    fn what_was_not_looked_at_is_said() {
        let passed = known(whole(0), |ledger| ledger.audit = Some("passed".into()));
        assert!(not_known(&[passed]).is_empty());
        assert_eq!(not_known(&[whole(0)]).len(), 1);
        assert_eq!(not_known(&[Part { ledger: None, ..whole(0) }]).len(), 2);
        assert_eq!(not_known(&[part(0, End::BrokeOff { accepted: true })]).len(), 2);
        let shown = explain_false(None, "the text is another");
        assert_eq!((shown.accountable, shown.whole), (Accountable::Unknown, false));
    }
}
