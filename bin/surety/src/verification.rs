//! Verification: what a receipt proves to the person holding it, and what it does not.
//!
//! In:     evidence; what the person knows besides: the text they saw, what they asked, whom they expect.
//! Out:    what holds, what was not checked, or the first thing that does not hold.
//! Touches: nothing; the model only through whoever passes it in.
//! Holds:  what nobody looked at is never reported as checked.
//! Absent: files, terminals, networks.

use serde::Serialize;
use surety_engine::Model;
use surety_kernels::Executor;
use surety_proof::check::{Checked, CheckedEvidence, Expected, Unchecked, check_evidence};
use surety_types::{Evidence, FinishReason, ModelId, Prompt, PublicKey, Request, Signed};
use surety_worker::audit;

use crate::rechecking::Subject;

/// What the person knows, and wants compared.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The request's id.
    pub request_id: Option<String>,
    /// The text they saw.
    pub text: Option<String>,
    /// The last message, or the prompt, they sent.
    pub prompt: Option<String>,
    /// Every message they sent.
    pub messages: Option<Vec<(String, String)>>,
    /// The model they wanted.
    pub model: Option<ModelId>,
    /// The worker they expect.
    pub worker: Option<PublicKey>,
    /// The gateway they expect.
    pub gateway: Option<PublicKey>,
}

/// What came of checking evidence.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether everything that was asked to hold does.
    pub verified: bool,
    /// Whether the answers were computed again.
    pub recomputed: bool,
    /// The request.
    pub request_id: Option<String>,
    /// What each worker gave, in order of choice and then of tokens.
    pub answers: Vec<AnswerReport>,
    /// The key that signed the envelope.
    pub gateway: Option<PublicKey>,
    /// What holds.
    pub checked: Vec<String>,
    /// What was not checked.
    pub not_checked: Vec<String>,
    /// The first thing that does not hold.
    pub failure: Option<String>,
}

/// What one worker gave of an answer: all of it, unless another went on.
#[derive(Clone, Debug, Serialize)]
pub struct AnswerReport {
    /// The model that answered.
    pub model: ModelId,
    /// The key of the worker that answered.
    pub worker: PublicKey,
    /// Tokens that it was given: the prompt, and what it went on from.
    pub prompt_tokens: u32,
    /// Index of its first token in the answer.
    pub first_output_token: u32,
    /// Tokens that it signed for.
    pub output_tokens: u32,
    /// What it reaches by what was signed: `exact`, or `signed` where an upstream gave it; none if it broke off.
    pub tier: Option<&'static str>,
    /// Why it ended; none if it broke off.
    pub finish: Option<FinishReason>,
    /// Why there is none, if there is none.
    pub failed: Option<String>,
    /// The text.
    pub text: String,
    /// Whether it is an answer once more, by another worker, to be compared with it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
}

/// Evidence whose signatures and bindings hold.
pub struct Verified {
    evidence: Evidence,
    checked: CheckedEvidence,
    /// What can be reported so far.
    pub report: Report,
}

/// Checks evidence without running anything. `Err` is a report that says what does not hold.
pub fn verify(bytes: &[u8], known: &Known) -> Result<Verified, Box<Report>> {
    let evidence = Evidence::parse(bytes).map_err(|error| failed(None, &error))?;
    let id = Some(evidence.request_id.clone());
    let expected = Expected { worker: known.worker, ..Expected::default() };
    let checked = check_evidence(&evidence, known.gateway.as_ref(), &expected)
        .map_err(|error| failed(id.clone(), &error))?;
    let mut report = Report {
        verified: true,
        recomputed: false,
        request_id: id,
        answers: Vec::new(),
        gateway: Some(checked.envelope.gateway),
        checked: Vec::new(),
        not_checked: Vec::new(),
        failure: None,
    };
    let parts = evidence.answers.iter().zip(&checked.answers).zip(&checked.envelope.parts);
    for ((answer, checked), part) in parts {
        report.answers.push(AnswerReport {
            model: checked.order.model,
            worker: checked.worker,
            prompt_tokens: checked.prompt_tokens(),
            first_output_token: checked.order.resumed_tokens(),
            output_tokens: checked.output_tokens(),
            tier: checked.is_end().then(|| if checked.is_by_word() { "signed" } else { "exact" }),
            finish: checked.receipt.as_ref().map(|receipt| receipt.finish),
            failed: failure(checked),
            text: answer.text.clone(),
            check: part.is_check(),
        });
        add(&mut report.checked, checked.checked.iter());
        add(&mut report.not_checked, checked.unchecked.iter());
    }
    add(&mut report.checked, checked.checked.iter());
    add(&mut report.not_checked, checked.unchecked.iter());
    compare(&mut report, &evidence, &checked, known);
    if report.verified { Ok(Verified { evidence, checked, report }) } else { Err(Box::new(report)) }
}

impl Verified {
    /// The models that answered.
    pub fn models(&self) -> impl Iterator<Item = ModelId> {
        self.checked.answers.iter().map(|answer| answer.order.model)
    }

    /// Whether an answer is by its worker's word, so that nobody can compute it again.
    pub fn is_by_word(&self) -> bool {
        self.checked.answers.iter().any(Checked::is_by_word)
    }

    /// What the evidence holds.
    pub fn checked(&self) -> &CheckedEvidence {
        &self.checked
    }

    /// Every order, its worker, and its receipt if there is one.
    pub fn subjects(&self) -> Vec<Subject> {
        let subject = |answer: &Checked| Subject {
            order: answer.order.digest(),
            worker: answer.worker,
            receipt: answer.receipt.as_ref().map(Signed::digest),
        };
        self.checked.answers.iter().map(subject).collect()
    }

    /// Computes every answer by this model again. `progress` is told the positions done and those in all.
    pub fn recompute(
        mut self,
        model: &Model,
        executor: &Executor,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Report {
        for (answer, checked) in self.evidence.answers.iter().zip(&self.checked.answers) {
            // Who gave nothing, and was succeeded, claims nothing.
            if !checked.is_end() && answer.output_ids.is_empty() && self.checked.answers.len() > 1 {
                continue;
            }
            if let Err(discrepancy) = audit::recompute(model, executor, checked, answer, progress) {
                self.report.recomputed = true;
                fail(&mut self.report, chain(&discrepancy));
                return self.report;
            }
        }
        let settled =
            [Unchecked::PromptTokens, Unchecked::TextOfTokens, Unchecked::EndToken, Unchecked::Computation];
        let settled = settled.map(|unchecked| unchecked.to_string());
        self.report.recomputed = true;
        self.report.not_checked.retain(|line| !settled.contains(line));
        self.report.checked.push(
            "computed again from the request with the same model: prompt, every token, text, ending and inner state are the same, bit for bit".into(),
        );
        self.report
    }
}

/// Compares evidence with what the person knows for themselves.
fn compare(report: &mut Report, evidence: &Evidence, checked: &CheckedEvidence, known: &Known) {
    let answers = || evidence.answers.iter().zip(&checked.answers);
    if let Some(id) = &known.request_id {
        // One request has three spellings of its id, which share their digits.
        let digits = |id: &str| id.rsplit(['_', '-']).next().unwrap_or_default().to_owned();
        let same = digits(id) == digits(&evidence.request_id);
        settle(report, same, "it is the evidence of the request that was asked for", || {
            format!("this is the evidence of {}, not of {id}", evidence.request_id)
        });
    }
    if let Some(model) = known.model {
        let other = answers().map(|(_, answer)| answer.order.model).find(|other| *other != model);
        settle(report, other.is_none(), "it is the model that was expected", || {
            format!(
                "the answer is by {}, not by {model}",
                other.map_or_else(String::new, |other| other.to_string())
            )
        });
    }
    if let Some(text) = &known.text {
        let texts = whole_texts(evidence, checked);
        let same = texts.contains(text);
        settle(report, same, "the text is the one that was given to compare", || {
            let (at, there) = nearest_difference(texts.iter().map(String::as_str), text);
            format!(
                "the text that was given is not the one that was signed: they differ from byte {at} on, where the signed one has {there:?}"
            )
        });
    } else {
        report
            .not_checked
            .push("that the text you saw is this text (give it with --text, or read it here)".into());
    }
    if let Some(prompt) = &known.prompt {
        let same = answers().any(|(_, answer)| last_words(&answer.request) == Some(prompt));
        settle(report, same, "the last message is the one that was given to compare", || {
            "the request that was signed has another last message than the one that was given".into()
        });
    }
    if let Some(messages) = &known.messages {
        let same = answers().all(|(_, answer)| same_messages(&answer.request, messages));
        settle(report, same, "the conversation is the one that was sent", || {
            "the request that was signed is not the conversation that was sent".into()
        });
    }
    if known.prompt.is_none() && known.messages.is_none() {
        report.not_checked.push(
            "that the request is the one you sent (give its last message with --prompt, or read it here)"
                .into(),
        );
    }
}

/// The answers, each put together from what its workers gave.
fn whole_texts(evidence: &Evidence, checked: &CheckedEvidence) -> Vec<String> {
    let mut texts = vec![String::new()];
    for (answer, checked) in evidence.answers.iter().zip(&checked.answers) {
        let Some(text) = texts.last_mut() else { break };
        if answer.resumed_ids.is_empty() {
            // Whoever begins anew relies on nobody before.
            text.clear();
        }
        text.push_str(&answer.text);
        if checked.is_end() {
            texts.push(String::new());
        }
    }
    // The last was only begun, unless the answer never ended.
    if texts.len() > 1 {
        texts.pop();
    }
    texts
}

/// Why a worker gave no whole answer, if it did not.
fn failure(checked: &Checked) -> Option<String> {
    match &checked.receipt {
        Some(receipt) => receipt.failure().map(|(code, message)| format!("{code}: {message}")),
        None => Some("broke off without a receipt".to_owned()),
    }
}

/// The prompt, or the last message of a chat.
pub fn last_words(request: &Request) -> Option<&String> {
    match &request.prompt {
        Prompt::Chat { messages, .. } => messages.last().map(|message| &message.content),
        Prompt::Text(text) => Some(text),
        Prompt::Tokens(_) => None,
    }
}

/// What was asked, for a person to recognise.
pub fn asked(verified: &Verified) -> Option<&String> {
    verified.checked.answers.first().and_then(|answer| last_words(&answer.request))
}

fn same_messages(request: &Request, sent: &[(String, String)]) -> bool {
    let Prompt::Chat { messages, .. } = &request.prompt else { return false };
    let signed = messages.iter().map(|message| (message.role.as_str(), message.content.as_str()));
    signed.eq(sent.iter().map(|(role, content)| (role.as_str(), content.as_str())))
}

/// Where a text leaves the one among these that it follows longest, and how that one goes on.
fn nearest_difference<'a>(signed: impl Iterator<Item = &'a str>, given: &str) -> (usize, String) {
    let at = |text: &str| text.bytes().zip(given.bytes()).take_while(|(a, b)| a == b).count();
    let best = signed.max_by_key(|text| at(text)).unwrap_or_default();
    let at = at(best);
    (at, best[best.floor_char_boundary(at)..].chars().take(30).collect())
}

fn settle(report: &mut Report, holds: bool, claim: &str, fault: impl FnOnce() -> String) {
    if holds {
        report.checked.push(claim.to_owned());
    } else if report.failure.is_none() {
        fail(report, fault());
    }
}

fn fail(report: &mut Report, failure: String) {
    report.verified = false;
    report.failure = Some(failure);
}

/// Adds lines that are not there yet.
fn add<T: ToString>(lines: &mut Vec<String>, more: impl Iterator<Item = T>) {
    for line in more.map(|line| line.to_string()) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
}

fn failed(request_id: Option<String>, error: &dyn std::error::Error) -> Box<Report> {
    Box::new(Report {
        verified: false,
        recomputed: false,
        request_id,
        answers: Vec::new(),
        gateway: None,
        checked: Vec::new(),
        not_checked: Vec::new(),
        failure: Some(chain(error)),
    })
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
