//! Admission: whether an order can be answered, before anything is promised.
//!
//! In:     a signed order, its request, what it resumes from, the model it asks for, the time.
//! Out:    the prompt's tokens and the limit that holds, or a refusal that says why, with numbers.
//! Touches: nothing.
//! Holds:  a prompt is never shortened; what is refused here would be refused by every worker with this model and
//!         context.
//! Absent: room in the queue (`serve`).

use std::sync::Arc;

use surety_engine::{Grammar, Model, PromptError, constraint};
use surety_proof::check::check_resumed_ids;
use surety_types::{Canonical, FailureCode, Order, Request};

/// An order that can be answered.
#[derive(Debug)]
pub struct Admitted {
    /// The request it is about.
    pub request: Request,
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// Output tokens to resume from.
    pub resumed: Vec<u32>,
    /// Output tokens at most, after those.
    pub max_output_tokens: u32,
    /// What the answer keeps to.
    pub grammar: Option<Arc<Grammar>>,
}

/// Why an order is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of failure.
    pub code: FailureCode,
    /// For people.
    pub message: String,
    /// The prompt's tokens, if it came that far.
    pub prompt: Vec<u32>,
}

impl Admitted {
    /// What the model is given before it says anything new.
    pub fn given(&self) -> Vec<u32> {
        [self.prompt.as_slice(), &self.resumed].concat()
    }
}

impl Refusal {
    /// A refusal before the prompt was looked at.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), prompt: Vec::new() }
    }
}

/// Reads an order's request and checks it against the order.
pub fn read_request(order: &Order, request: &[u8], now_ms: u64) -> Result<Request, Refusal> {
    if Request::digest_of(request) != order.request_digest {
        return Err(Refusal::new(FailureCode::BadRequest, "the request is not the one the order names"));
    }
    let request = Request::from_cbor(request).map_err(|error| refuse(FailureCode::BadRequest, &error))?;
    if order.deadline_ms <= now_ms {
        let late = now_ms - order.deadline_ms;
        return Err(Refusal::new(
            FailureCode::DeadlineExceeded,
            format!("the deadline passed {late} ms ago"),
        ));
    }
    Ok(request)
}

/// Tokenises the prompt and sees whether it fits, with what it resumes from.
pub fn admit(
    order: &Order,
    request: Request,
    resumed: Vec<u32>,
    model: &Model,
    context_tokens: u32,
) -> Result<Admitted, Refusal> {
    if let Err(fault) = check_resumed_ids(order, &resumed) {
        return Err(refuse(FailureCode::BadRequest, &fault));
    }
    let prompt = model.prompt_tokens(&request).map_err(|error| refuse_prompt(&error))?;
    if let Some(wanted) = request.embedding {
        model.check_embedding(wanted).map_err(|error| refuse(FailureCode::BadRequest, &error))?;
        //
        if order.max_output_tokens > 0 || order.resumed.is_some() {
            let message = "the order asks for a vector, and for tokens of an answer";
            return Err(Refusal::new(FailureCode::BadRequest, message));
        }
    }
    let vocabulary = model.architecture().vocabulary;
    let outside = |token: &&u32| **token >= vocabulary;
    for (tokens, what) in [(&prompt, "the prompt"), (&resumed, "the answer to resume")] {
        if let Some(token) = tokens.iter().find(outside) {
            let message = format!("token id {token} of {what} is outside the vocabulary of {vocabulary}");
            return Err(Refusal::new(FailureCode::BadRequest, message));
        }
    }
    if let Some(token) = order.sampling.logit_bias.iter().map(|(token, _)| token).find(outside) {
        let message = format!("token id {token} of logit_bias is outside the vocabulary of {vocabulary}");
        return Err(Refusal::new(FailureCode::BadRequest, message));
    }
    if prompt.is_empty() {
        return Err(Refusal::new(FailureCode::BadRequest, "the prompt has no tokens"));
    }
    let given = prompt.len() + resumed.len();
    // An answer that is resumed may be whole but for its receipt.
    let needed = if resumed.is_empty() { given + 1 } else { given };
    if needed > context_tokens as usize {
        let message = format!(
            "the prompt has {given} tokens; the context window is {context_tokens}, and an answer needs at least one of it"
        );
        return Err(Refusal { code: FailureCode::ContextLengthExceeded, message, prompt });
    }
    let max_output_tokens = order.max_output_tokens.min(context_tokens - given as u32);
    let grammar = grammar(order, &request, &resumed, model)?;
    Ok(Admitted { request, prompt, resumed, max_output_tokens, grammar })
}

/// What the answer keeps to, if the order names a grammar (G-1, G-9).
fn grammar(
    order: &Order,
    request: &Request,
    resumed: &[u32],
    model: &Model,
) -> Result<Option<Arc<Grammar>>, Refusal> {
    if !request.has_grammar_of(order) {
        return Err(Refusal::new(
            FailureCode::BadRequest,
            "the request's grammar is not the one the order names",
        ));
    }
    let Some(text) = &request.grammar else { return Ok(None) };
    if order.ignore_end {
        let message = "an answer that keeps to a grammar cannot go on past its end";
        return Err(Refusal::new(FailureCode::BadRequest, message));
    }
    let tokenizer = model.tokenizer();
    let grammar =
        constraint::constraint(text, tokenizer).map_err(|error| refuse(FailureCode::BadRequest, &error))?;
    if constraint::state_after(&grammar, tokenizer, resumed).is_dead() {
        let message = "the answer to resume does not keep to the order's grammar";
        return Err(Refusal::new(FailureCode::BadRequest, message));
    }
    Ok(Some(grammar))
}

fn refuse_prompt(error: &PromptError) -> Refusal {
    refuse(FailureCode::BadRequest, error)
}

/// A refusal in the words of an error and its causes.
fn refuse(code: FailureCode, error: &dyn std::error::Error) -> Refusal {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Refusal::new(code, message)
}
