//! Record: one response, as it is told and as it is kept.
//!
//! In:     what was asked, the text as it comes, how it ended.
//! Out:    the response as a document, its events by number, and the bytes that keep it.
//! Touches: nothing.
//! Holds:  the number of an event follows from the text alone, not from the pieces it came in: whoever reads, before or
//!         after a restart, gets the same event under the same number. Whatever bytes are read back, nothing panics.
//! Absent: making the text (`live`), keeping the bytes (`store`).

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use surety_types::CallFormat;

use super::{
    ask::Asked,
    items::{Place, item_id},
    said::{Item, Told},
    shapes::{
        IncompleteDetails, Reasoning, ResponseEvent, ResponseFailure, ResponseObject, ResponseUsage,
        StreamError, TextConfig,
    },
};
use crate::{
    api::{
        calls::Callable,
        fields,
        shapes::{SuretyNote, Usage},
    },
    error::{ApiError, Code},
    id::RequestId,
};

/// How a response began.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) id: RequestId,
    /// Whose it is: a key's number.
    pub(super) tenant: u64,
    /// The body as it was sent; empty where nothing is stored.
    pub(super) body: String,
    pub(super) asked: Asked,
    /// The name of the model, and its immutable id.
    pub(super) model: String,
    pub(super) model_id: String,
    /// How it writes calls of functions, if it may.
    pub(super) calls: Option<CallFormat>,
    /// What the seed is drawn from, if the caller named none.
    pub(super) nonce: [u8; 32],
    /// Unix milliseconds.
    pub(super) received_ms: u64,
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Completed,
    /// It reached `max_output_tokens`, or the end of the context window.
    Incomplete,
    Failed,
    Cancelled,
}

/// The end of a response.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) status: Status,
    /// Unix milliseconds.
    pub(super) at_ms: u64,
    pub(super) usage: Option<Box<RawValue>>,
    pub(super) surety: Option<Box<RawValue>>,
    pub(super) error: Option<Box<RawValue>>,
}

/// A response, as far as it is made.
#[derive(Debug)]
pub(super) struct Transcript {
    pub(super) head: Arc<Head>,
    /// Whether a worker has accepted it.
    begun: bool,
    told: Told,
    end: Option<End>,
}

/// What is kept of a response.
#[derive(Serialize, Deserialize)]
struct Record {
    tenant: u64,
    body: String,
    model: String,
    model_id: String,
    #[serde(default)]
    calls: Option<CallFormat>,
    nonce: String,
    received_ms: u64,
    text: String,
    end: Option<End>,
}

/// What is kept cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It is no record.
    #[error("a kept response is no record")]
    Record(#[source] serde_json::Error),
    /// The nonce has another length, or is not base64.
    #[error("a kept response has no nonce")]
    Nonce,
    /// The body of the request is not understood.
    #[error("a kept response answers a body that is not understood: {0}")]
    Body(String),
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Completed => "completed",
            Status::Incomplete => "incomplete",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// Whether the text is all there was to say, or all there was room for.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Status::Completed | Status::Incomplete)
    }

    /// The event that ends a stream. OpenAI has none for what was cancelled; what is there is incomplete.
    fn event(self) -> &'static str {
        match self {
            Status::Completed => "response.completed",
            Status::Incomplete | Status::Cancelled => "response.incomplete",
            Status::Failed => "response.failed",
        }
    }
}

impl End {
    /// All of it was said.
    pub(super) fn told(reason: &str, at_ms: u64, usage: Usage, note: &SuretyNote) -> End {
        let status = if reason == "length" { Status::Incomplete } else { Status::Completed };
        let usage = to_raw_value(&ResponseUsage::from(usage)).ok();
        End { status, at_ms, usage, surety: to_raw_value(note).ok(), error: None }
    }

    /// It will not be said.
    pub(super) fn failed(failure: &ApiError, id: RequestId, at_ms: u64) -> End {
        let error = failure.body(&id).error;
        let code = match failure.code() {
            Code::Overloaded => "rate_limit_exceeded",
            Code::ContextLengthExceeded | Code::InvalidParam => "invalid_prompt",
            _ => "server_error",
        };
        let failure = ResponseFailure {
            code,
            message: error.message,
            kind: error.kind,
            param: error.param,
            surety_code: error.code,
            metadata: error.metadata,
        };
        End { status: Status::Failed, at_ms, usage: None, surety: None, error: to_raw_value(&failure).ok() }
    }

    /// Nobody wants it any more.
    pub(super) fn cancelled(at_ms: u64) -> End {
        End { status: Status::Cancelled, at_ms, usage: None, surety: None, error: None }
    }
}

impl Transcript {
    pub(super) fn new(head: Arc<Head>) -> Transcript {
        let callable = head.asked.tools.as_ref().zip(head.calls).map(|(tools, format)| Callable {
            format,
            names: Arc::clone(&tools.names),
            most: tools.most,
            request: head.id,
            answer: 0,
        });
        Transcript { head, begun: false, told: Told::new(callable), end: None }
    }

    /// A worker has accepted it.
    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    /// More of the text.
    pub(super) fn hear(&mut self, text: &str) {
        self.told.hear(text);
    }

    /// How it ended; nothing is heard after that.
    pub(super) fn end_with(&mut self, end: End) {
        self.told.end(end.status.is_whole());
        self.end = Some(end);
    }

    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// What was said and called, each with its place.
    pub(super) fn items(&self) -> impl Iterator<Item = (u16, &Item)> {
        (0..).zip(self.told.items())
    }

    /// The status of an item, as it stands.
    pub(super) fn status_of(&self, item: &Item) -> &'static str {
        match self.end.as_ref().map(|end| end.status) {
            _ if item.is_followed() => "completed",
            None => "in_progress",
            Some(Status::Completed) => "completed",
            Some(_) => "incomplete",
        }
    }

    /// The id of the item at this place.
    pub(super) fn id_of(&self, index: u16, item: &Item) -> String {
        item_id(item.prefix(), self.head.id, Place::Output(index))
    }

    /// The response as it stands.
    pub(super) fn document(&self) -> Vec<u8> {
        let status = match &self.end {
            Some(end) => end.status.as_str(),
            None if self.begun => "in_progress",
            None => "queued",
        };
        serde_json::to_vec(&self.response(status, true)).expect("a response is JSON")
    }

    fn response(&self, status: &'static str, with_output: bool) -> ResponseObject<'_> {
        let Head { id, asked, model, received_ms, .. } = &*self.head;
        let end = self.end.as_ref().filter(|end| end.status.as_str() == status);
        let said = self.items().filter(|(_, item)| with_output && item.is_said());
        let output = said.map(|(index, item)| item.whole(self.id_of(index, item), self.status_of(item)));
        ResponseObject {
            id: id.response(),
            object: "response",
            created_at: received_ms / 1000,
            status,
            completed_at: end.filter(|end| end.status == Status::Completed).map(|end| end.at_ms / 1000),
            background: asked.background,
            error: end.and_then(|end| end.error.as_deref()),
            incomplete_details: end
                .filter(|end| end.status == Status::Incomplete)
                .map(|_| IncompleteDetails { reason: "max_output_tokens" }),
            instructions: asked.instructions.as_deref(),
            max_output_tokens: asked.max_output_tokens,
            max_tool_calls: None,
            metadata: &asked.metadata,
            model,
            output: output.collect(),
            parallel_tool_calls: asked.repeated.parallel_tool_calls,
            previous_response_id: asked.previous.map(RequestId::response),
            prompt_cache_key: asked.prompt_cache_key.as_deref(),
            reasoning: Reasoning::default(),
            safety_identifier: asked.safety_identifier.as_deref(),
            service_tier: "default",
            store: asked.store,
            temperature: asked.sampling.temperature,
            text: TextConfig { format: asked.repeated.format.json(), verbosity: "medium" },
            tool_choice: asked.repeated.tool_choice.json(),
            tools: asked.repeated.tools.json(),
            top_logprobs: 0,
            top_p: asked.sampling.top_p,
            truncation: "disabled",
            usage: end.and_then(|end| end.usage.as_deref()),
            user: asked.user.as_deref(),
            surety: end.and_then(|end| end.surety.as_deref()),
        }
    }

    /// Events before the first that tells of an item.
    fn opening(&self) -> u64 {
        if self.head.asked.background { 3 } else { 2 }
    }

    /// How many events there are so far.
    pub(super) fn events(&self) -> u64 {
        let of_items: u64 = self.told.items().iter().map(Item::events).sum();
        match &self.end {
            Some(_) => self.opening() + of_items + 1,
            None if self.begun => self.opening() + of_items,
            None => self.opening() - 1,
        }
    }

    /// Whether the event of this number ends the stream.
    pub(super) fn is_last(&self, number: u64) -> bool {
        self.end.is_some() && number + 1 >= self.events()
    }

    /// Appends the event of this number, which there is, as a server-sent event.
    pub(super) fn event(&self, number: u64, out: &mut Vec<u8>) {
        let opening = self.opening();
        let queued = self.head.asked.background.then_some("queued");
        let whole = |kind, status, with_output| ResponseEvent {
            kind,
            response: Some(self.response(status, with_output)),
            ..ResponseEvent::default()
        };
        let event = if let Some(end) = self.end.as_ref().filter(|_| self.is_last(number)) {
            whole(end.status.event(), end.status.as_str(), true)
        } else if number < opening {
            match (number, queued) {
                (0, queued) => whole("response.created", queued.unwrap_or("in_progress"), false),
                (1, Some(queued)) => whole("response.queued", queued, false),
                _ => whole("response.in_progress", "in_progress", false),
            }
        } else {
            let mut place = number - opening;
            let at = self.items().find(|(_, item)| {
                let is_here = place < item.events();
                if !is_here {
                    place -= item.events();
                }
                is_here
            });
            let (index, item) = at.expect("an event that there is");
            let event = item.event(place, self.id_of(index, item), self.status_of(item));
            ResponseEvent { output_index: Some(index.into()), ..event }
        };
        write(out, event.kind, &ResponseEvent { sequence_number: number, ..event });
    }

    /// What keeps it, with its end, if it is to end.
    pub(super) fn to_bytes(&self, end: Option<&End>) -> Vec<u8> {
        let head = &*self.head;
        let record = Record {
            tenant: head.tenant,
            body: head.body.clone(),
            model: head.model.clone(),
            model_id: head.model_id.clone(),
            calls: head.calls,
            nonce: BASE64_STANDARD.encode(head.nonce),
            received_ms: head.received_ms,
            text: self.told.text().to_owned(),
            end: end.or(self.end.as_ref()).cloned(),
        };
        serde_json::to_vec(&record).expect("a record is JSON")
    }

    /// Reads what was kept.
    pub(super) fn parse(id: RequestId, bytes: &[u8]) -> Result<Transcript, ReadError> {
        let record: Record = serde_json::from_slice(bytes).map_err(ReadError::Record)?;
        let Record { tenant, body, model, model_id, calls, nonce, received_ms, text, end } = record;
        let nonce = BASE64_STANDARD.decode(nonce).ok().and_then(|nonce| nonce.try_into().ok());
        let nonce = nonce.ok_or(ReadError::Nonce)?;
        let asked = Asked::parse(&body).map_err(|error| ReadError::Body(fields::quote(error.message())))?;
        let head = Arc::new(Head { id, tenant, body, asked, model, model_id, calls, nonce, received_ms });
        let mut transcript = Transcript::new(head);
        transcript.hear(&text);
        transcript.begun = !text.is_empty();
        if let Some(end) = end {
            transcript.end_with(end);
        }
        Ok(transcript)
    }
}

/// The event that ends a stream whose response did not end.
pub(super) fn broken_off(failure: &ApiError, id: RequestId, number: u64, out: &mut Vec<u8>) {
    let error = failure.body(&id).error;
    let event = StreamError {
        kind: "error",
        code: error.code,
        message: &error.message,
        param: None,
        sequence_number: number,
        metadata: &error.metadata,
    };
    write(out, "error", &event);
}

fn write(out: &mut Vec<u8>, kind: &str, event: &impl Serialize) {
    out.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
    serde_json::to_writer(&mut *out, event).expect("an event is JSON");
    out.extend_from_slice(b"\n\n");
}
