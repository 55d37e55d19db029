//! Admission: whether an order can be answered, before anything is promised.
//!
//! In:     a signed order, its request, the model it asks for, the time.
//! Out:    the prompt's tokens and the limit that holds, or a refusal that says why, with numbers.
//! Touches: nothing.
//! Holds:  a prompt is never shortened; what is refused here would be refused by every worker with this model and
//!         context.
//! Absent: room in the queue (`serve`).

use surety_engine::{Model, PromptError};
use surety_types::{Canonical, FailureCode, Order, Request};

/// An order that can be answered.
#[derive(Debug)]
pub struct Admitted {
    /// The request it is about.
    pub request: Request,
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// Output tokens at most.
    pub max_output_tokens: u32,
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

/// Tokenises the prompt and sees whether it fits.
pub fn admit(
    order: &Order,
    request: Request,
    model: &Model,
    context_tokens: u32,
) -> Result<Admitted, Refusal> {
    let prompt = model.prompt_tokens(&request).map_err(|error| refuse_prompt(&error))?;
    let vocabulary = model.architecture().vocabulary;
    let outside = |token: &&u32| **token >= vocabulary;
    if let Some(token) = prompt.iter().find(outside) {
        let message = format!("token id {token} of the prompt is outside the vocabulary of {vocabulary}");
        return Err(Refusal::new(FailureCode::BadRequest, message));
    }
    if let Some(token) = order.sampling.logit_bias.iter().map(|(token, _)| token).find(outside) {
        let message = format!("token id {token} of logit_bias is outside the vocabulary of {vocabulary}");
        return Err(Refusal::new(FailureCode::BadRequest, message));
    }
    let prompt_tokens = prompt.len();
    if prompt_tokens == 0 {
        return Err(Refusal::new(FailureCode::BadRequest, "the prompt has no tokens"));
    }
    if prompt_tokens >= context_tokens as usize {
        let message = format!(
            "the prompt has {prompt_tokens} tokens; the context window is {context_tokens}, and an answer needs at least one of it"
        );
        return Err(Refusal { code: FailureCode::ContextLengthExceeded, message, prompt });
    }
    let max_output_tokens = order.max_output_tokens.min(context_tokens - prompt_tokens as u32);
    Ok(Admitted { request, prompt, max_output_tokens })
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
