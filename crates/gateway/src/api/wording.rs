//! Wording: how an answer is said in a protocol's own words.
//!
//! In:     pieces of answers, by index, as they come. Out: the events of a stream, or one document.
//! Touches: nothing.
//! Holds:  the events of a stream say what the document would have said; a stream ends with what `finish` or
//!         `failed` gave last.
//! Absent: the words themselves; each protocol has a file of its own.

use std::sync::Arc;

use bytes::Bytes;
use surety_types::{CallFormat, TokenLogprob};

use super::{
    ask::{Ask, Form},
    calls::Callable,
    embeddings::Vectors,
    messages::wording::MessageWording,
    ollama::wording::{Manner, OllamaWording},
    reply::Reply,
    shapes::{SuretyNote, Usage},
    sse,
};
use crate::{error::ApiError, id::RequestId, streams::StreamLog};

/// What every event or document of one answer may repeat.
#[derive(Debug)]
pub(crate) struct Heading {
    pub(crate) request: RequestId,
    /// Unix seconds.
    pub(crate) created: u64,
    /// The name of the model.
    pub(crate) model: String,
    /// Short form of its immutable id.
    pub(crate) fingerprint: String,
    /// How it writes calls of tools, if its template shows it any.
    pub(crate) calls: Option<CallFormat>,
    /// Tokens of the first prompt, as a worker accepted it; 0 of an answer that is gone on with.
    pub(crate) prompt_tokens: u32,
}

/// What may be called in the first answer, and how its model writes that, if anything may.
pub(crate) fn callable(heading: &Heading, ask: &Ask) -> Option<Callable> {
    ask.tools.as_ref().zip(heading.calls).map(|(tools, format)| Callable {
        format,
        names: Arc::clone(&tools.names),
        most: tools.most,
        request: heading.request,
        answer: 0,
    })
}

/// What names the place of each event in a stream of one answer, so that a reader can go on from there.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) request: RequestId,
    /// Bytes of text that the reader has.
    pub(crate) position: usize,
    pub(crate) log: StreamLog,
}

/// An answer, or several to one request, being worded.
pub(crate) trait Wording: Send {
    /// Takes in a piece of the scored prompt of answer `index`; `first` is the position of its first token.
    fn prompt(&mut self, index: usize, logprobs: &[TokenLogprob], first: usize);

    /// Takes in output of answer `index`.
    fn output(&mut self, index: usize, text: &str, logprobs: &[TokenLogprob]);

    /// Takes in the vector that answer `index` is: its bytes, as the receipt commits to them.
    fn vector(&mut self, _index: usize, _bytes: &[u8]) {}

    /// The first answer of which something has come that is not in an event yet.
    fn news(&self) -> Option<usize>;

    /// Bytes that have come and are not in an event yet, about.
    fn pending_bytes(&self) -> usize;

    /// The events for what has come of answer `index` since the last; none if nothing has.
    fn events(&mut self, index: usize) -> Option<Bytes>;

    /// The events that end answer `index`. The last answer of a stream is given `end`, and its events end the stream.
    fn finish(&mut self, index: usize, reason: &'static str, end: Option<(Usage, SuretyNote)>) -> Bytes;

    /// What ends a stream that failed.
    fn failed(&self, failure: &ApiError) -> Bytes;

    /// All answers as one document, of which nothing was sent before.
    fn document(self: Box<Self>, reasons: &[&'static str], usage: Usage, note: SuretyNote) -> Bytes;

    /// What a stream's `content-type` says.
    fn content_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    /// What is sent in silence, so that the line is seen to be open; readers skip it. Empty: nothing is.
    fn keep_alive(&self) -> Bytes {
        sse::COMMENT
    }
}

/// The wording that a request's protocol wants.
pub(crate) fn of(heading: Heading, ask: &Ask, marks: Option<Marks>) -> Box<dyn Wording> {
    match ask.form {
        Form::Chat { .. } | Form::Completion { .. } => Box::new(Reply::new(heading, ask, marks)),
        Form::Response => panic!("a response words itself"),
        Form::Embedding { manner, .. } => Box::new(Vectors::new(heading, ask, manner)),
        Form::Message { .. } | Form::Count => Box::new(MessageWording::new(heading, ask, marks)),
        Form::Ollama { chat, logprobs, began } => {
            let manner = Manner { chat, logprobs: logprobs.is_some(), began };
            Box::new(OllamaWording::new(&heading, ask, manner))
        }
    }
}
