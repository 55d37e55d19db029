//! History: what was said before a response, from the responses it goes on from.
//!
//! In:     what is asked; responses that are kept.
//! Out:    every message that is answered, the oldest first.
//! Touches: the store of responses, to read.
//! Holds:  a conversation is whole or refused: nothing is left out of it unseen. What is read for one is bounded.
//! Absent: what of it is sent to a worker (`ask`).

use std::{collections::BTreeMap, sync::Arc};

use surety_types::{
    Message,
    request::{MAX_MESSAGES, MAX_REQUEST_BYTES},
};
use tracing::error;

use super::{
    ask::{Asked, Input, Said, item_id},
    record::Transcript,
    shapes::{InputItem, InputPart},
};
use crate::{
    error::{ApiError, Code},
    gateway::Shared,
    id::RequestId,
    route::chain,
};

/// Bytes of records read for one conversation.
const READ_BYTES_MAX: usize = 64 << 20;

/// Where kept responses are found.
#[derive(Clone)]
pub(super) struct Library(Arc<Shared>);

/// How far it is with one that is asked for.
pub(super) enum Found {
    /// It ended, or nobody makes it any more. With it, the bytes it takes.
    Ended(Box<Transcript>, usize),
    /// It is being made.
    Live,
    Nothing,
}

impl Library {
    pub(super) fn of(shared: &Arc<Shared>) -> Library {
        Library(Arc::clone(shared))
    }

    /// Looks for a response. Reads the disk.
    pub(super) fn find(&self, id: RequestId) -> Result<Found, ApiError> {
        if self.0.responses.live(id).is_some() {
            return Ok(Found::Live);
        }
        let found = self.0.responses.store.find(id).map_err(|error| {
            error!(error = chain(&error), "responses cannot be read");
            ApiError::bug("the responses on its disk cannot be read")
        })?;
        let Some(record) = found else { return Ok(Found::Nothing) };
        let transcript = Transcript::parse(id, &record).map_err(|error| {
            error!(request = %id, error = chain(&error), "a kept response cannot be read");
            ApiError::bug("a kept response cannot be read")
        })?;
        Ok(Found::Ended(Box::new(transcript), record.len()))
    }
}

/// A conversation being put together.
struct Reading<'a> {
    library: &'a Library,
    seen: BTreeMap<u128, Arc<Transcript>>,
    read_bytes: usize,
    items: Vec<InputItem>,
    text_bytes: usize,
}

/// All that is answered, as templates see it. Reads the disk.
pub(super) fn conversation(
    library: &Library,
    asked: &Asked,
    id: RequestId,
) -> Result<Vec<Message>, ApiError> {
    Ok(items(library, asked, id)?.into_iter().map(message).collect())
}

fn message(item: InputItem) -> Message {
    let parts = item.content.into_iter().map(|part| part.text).collect();
    Said { role: item.role, parts }.message()
}

/// All that is answered, the oldest first. Reads the disk.
pub(super) fn items(library: &Library, asked: &Asked, id: RequestId) -> Result<Vec<InputItem>, ApiError> {
    let mut reading =
        Reading { library, seen: BTreeMap::new(), read_bytes: 0, items: Vec::new(), text_bytes: 0 };
    let mut before = Vec::new();
    let mut next = asked.previous;
    while let Some(previous) = next {
        let transcript = reading.response(previous, "previous_response_id")?;
        next = transcript.head.asked.previous;
        before.push(transcript);
        if before.len() > MAX_MESSAGES {
            return Err(too_long());
        }
    }
    for transcript in before.iter().rev() {
        reading.input(&transcript.head.asked, transcript.head.id)?;
        reading.output(transcript)?;
    }
    reading.input(asked, id)?;
    Ok(reading.items)
}

impl Reading<'_> {
    /// A response that has ended.
    fn response(&mut self, id: RequestId, param: &str) -> Result<Arc<Transcript>, ApiError> {
        if let Some(transcript) = self.seen.get(&id.bits()) {
            return Ok(Arc::clone(transcript));
        }
        let refused = |what: &str| {
            let message = format!("`{param}` leads to {}, {what}", id.response());
            Err(ApiError::invalid(param, message))
        };
        let (transcript, bytes) = match self.library.find(id)? {
            Found::Ended(transcript, bytes) => (transcript, bytes),
            Found::Live => return refused("which is still being made. Wait until it has ended."),
            Found::Nothing => {
                return refused(
                    "which is not kept here: it was deleted, is too old, was not stored, or is another gateway's. Send what \
                     was said as `input`.",
                );
            }
        };
        match transcript.end() {
            Some(end) if end.error.is_none() => {}
            _ => return refused("which failed. Go on from the one before it, or ask again."),
        }
        self.read_bytes += bytes;
        if self.read_bytes > READ_BYTES_MAX {
            return Err(too_long());
        }
        let transcript: Arc<Transcript> = Arc::from(transcript);
        self.seen.insert(id.bits(), Arc::clone(&transcript));
        Ok(transcript)
    }

    fn input(&mut self, asked: &Asked, id: RequestId) -> Result<(), ApiError> {
        for (index, input) in asked.input.iter().enumerate() {
            match input {
                // A list of input is shorter than an index is wide.
                Input::Said(said) => self.said(said, item_id(id, Some(index as u16)))?,
                Input::Reference { response, index: place } => {
                    let param = format!("input[{index}].id");
                    let transcript = self.response(*response, &param)?;
                    let Some(place) = place else {
                        self.output(&transcript)?;
                        continue;
                    };
                    let Some(Input::Said(said)) = transcript.head.asked.input.get(usize::from(*place)) else {
                        let message = format!("`{param}` names no item of {}.", response.response());
                        return Err(ApiError::invalid(param, message));
                    };
                    self.said(said, item_id(*response, Some(*place)))?;
                }
            }
        }
        Ok(())
    }

    fn said(&mut self, said: &Said, id: String) -> Result<(), ApiError> {
        let is_output = said.role == "assistant";
        let content = said.parts.iter().map(|text| InputPart { is_output, text: text.clone() }).collect();
        self.push(InputItem { id, kind: "message", status: "completed", role: said.role, content })
    }

    /// What a response said, if it said anything.
    fn output(&mut self, transcript: &Transcript) -> Result<(), ApiError> {
        if transcript.text().is_empty() {
            return Ok(());
        }
        let content = vec![InputPart { is_output: true, text: transcript.text().to_owned() }];
        let (id, status) = (item_id(transcript.head.id, None), transcript.message_status());
        self.push(InputItem { id, kind: "message", status, role: "assistant", content })
    }

    fn push(&mut self, item: InputItem) -> Result<(), ApiError> {
        self.text_bytes += item.content.iter().map(|part| part.text.len()).sum::<usize>();
        self.items.push(item);
        if self.text_bytes > MAX_REQUEST_BYTES || self.items.len() > MAX_MESSAGES {
            return Err(too_long());
        }
        Ok(())
    }
}

fn too_long() -> ApiError {
    let message = format!(
        "The conversation that `previous_response_id` and references lead to has more than {MAX_MESSAGES} messages or takes \
         more than {MAX_REQUEST_BYTES} bytes. Begin a new one with a summary of it.",
    );
    ApiError::new(Code::PayloadTooLarge, message).with_param("previous_response_id")
}
