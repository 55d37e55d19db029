//! History: what was said before a response, from the responses it goes on from.
//!
//! In:     what is asked; responses that are kept.
//! Out:    every message that is answered, the oldest first.
//! Touches: the store of responses, to read.
//! Holds:  nobody finds another's. A conversation is whole or refused: nothing is left out of it unseen. What is read for one is bounded.
//! Absent: what of it is sent to a worker (`ask`).

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use surety_types::{
    Message, ToolCall,
    request::{MAX_MESSAGES, MAX_REQUEST_BYTES},
};
use tracing::error;

use super::{
    ask::Asked,
    items::{Input, Place, Said},
    live::Live,
    record::Transcript,
    said::Item,
    shapes::{CallItem, CallOutput, InputItem, InputMessage, InputPart},
};
use crate::{
    error::{ApiError, Code},
    gateway::Shared,
    id::RequestId,
    route::chain,
};

/// Bytes of records read for one conversation.
const READ_BYTES_MAX: usize = 64 << 20;

/// Where a tenant's kept responses are found.
#[derive(Clone)]
pub(super) struct Library {
    shared: Arc<Shared>,
    tenant: u64,
}

/// How far it is with one that is asked for.
pub(super) enum Found {
    /// It ended, or nobody makes it any more. With it, the bytes it takes.
    Ended(Box<Transcript>, usize),
    /// It is being made.
    Live,
    Nothing,
}

impl Library {
    pub(super) fn of(shared: &Arc<Shared>, tenant: u64) -> Library {
        Library { shared: Arc::clone(shared), tenant }
    }

    /// A response that is being made.
    pub(super) fn live(&self, id: RequestId) -> Option<Arc<Live>> {
        self.shared.responses.live(id).filter(|live| live.head.tenant == self.tenant)
    }

    /// Looks for a response. Reads the disk.
    pub(super) fn find(&self, id: RequestId) -> Result<Found, ApiError> {
        if self.live(id).is_some() {
            return Ok(Found::Live);
        }
        let found = self.shared.responses.store.find(id).map_err(|error| {
            error!(error = chain(&error), "responses cannot be read");
            ApiError::bug("the responses on its disk cannot be read")
        })?;
        let Some(record) = found else { return Ok(Found::Nothing) };
        let transcript = Transcript::parse(id, &record).map_err(|error| {
            error!(request = %id, error = chain(&error), "a kept response cannot be read");
            ApiError::bug("a kept response cannot be read")
        })?;
        if transcript.head.tenant != self.tenant {
            return Ok(Found::Nothing);
        }
        Ok(Found::Ended(Box::new(transcript), record.len()))
    }
}

/// A conversation being put together.
struct Reading<'a> {
    library: &'a Library,
    seen: BTreeMap<u128, Arc<Transcript>>,
    read_bytes: usize,
    heard: Vec<Heard>,
    text_bytes: usize,
}

/// An item of a conversation.
struct Heard {
    id: String,
    status: &'static str,
    said: Said,
}

impl Heard {
    fn shown(self) -> InputItem {
        let Heard { id, status, said } = self;
        match said {
            Said::Message { role, parts } => {
                let is_output = role == "assistant";
                let content = parts.into_iter().map(|text| InputPart { is_output, text }).collect();
                InputItem::Message(InputMessage { id, kind: "message", status, role, content })
            }
            Said::Call(ToolCall { id: call_id, name, arguments }) => {
                let [call_id, name, arguments] = [call_id, name, arguments].map(Cow::Owned);
                InputItem::Call(CallItem { id, kind: "function_call", status, call_id, name, arguments })
            }
            Said::Result { call_id, parts } => {
                let kind = "function_call_output";
                InputItem::Result(CallOutput { id, kind, status, call_id, output: parts.concat() })
            }
        }
    }
}

/// All that is answered, as templates see it. Reads the disk.
pub(super) fn conversation(
    library: &Library,
    asked: &Asked,
    id: RequestId,
) -> Result<Vec<Message>, ApiError> {
    let mut messages = Vec::new();
    heard(library, asked, id)?.into_iter().for_each(|item| item.said.join(&mut messages));
    Ok(messages)
}

/// All that is answered, the oldest first. Reads the disk.
pub(super) fn items(library: &Library, asked: &Asked, id: RequestId) -> Result<Vec<InputItem>, ApiError> {
    Ok(heard(library, asked, id)?.into_iter().map(Heard::shown).collect())
}

fn heard(library: &Library, asked: &Asked, id: RequestId) -> Result<Vec<Heard>, ApiError> {
    let mut reading =
        Reading { library, seen: BTreeMap::new(), read_bytes: 0, heard: Vec::new(), text_bytes: 0 };
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
    Ok(reading.heard)
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
                Input::Said(said) => self.said(said, id, Place::Input(index as u16))?,
                Input::Reference { response, place } => {
                    let param = format!("input[{index}].id");
                    let transcript = self.response(*response, &param)?;
                    self.referred(&transcript, *place, &param)?;
                }
            }
        }
        Ok(())
    }

    /// The item of a response that stands there. A response that said nothing has none, and may be referred to all the same.
    fn referred(&mut self, transcript: &Transcript, place: Place, param: &str) -> Result<(), ApiError> {
        let id = transcript.head.id;
        match place {
            Place::Input(index) => {
                if let Some(Input::Said(said)) = transcript.head.asked.input.get(usize::from(index)) {
                    return self.said(said, id, place);
                }
            }
            Place::Output(index) => {
                if let Some((index, item)) = transcript.items().find(|(at, _)| *at == index) {
                    return self.output_item(transcript, index, item);
                }
                if index == 0 {
                    return Ok(());
                }
            }
        }
        let message = format!("`{param}` names no item of {}.", id.response());
        Err(ApiError::invalid(param, message))
    }

    fn said(&mut self, said: &Said, response: RequestId, place: Place) -> Result<(), ApiError> {
        self.push(Heard { id: said.id(response, place), status: "completed", said: said.clone() })
    }

    /// What a response said and called, if it did anything.
    fn output(&mut self, transcript: &Transcript) -> Result<(), ApiError> {
        transcript.items().try_for_each(|(index, item)| self.output_item(transcript, index, item))
    }

    fn output_item(&mut self, transcript: &Transcript, index: u16, item: &Item) -> Result<(), ApiError> {
        let Some(said) = item.said() else { return Ok(()) };
        let (id, status) = (transcript.id_of(index, item), transcript.status_of(item));
        self.push(Heard { id, status, said })
    }

    fn push(&mut self, heard: Heard) -> Result<(), ApiError> {
        self.text_bytes += heard.said.bytes();
        self.heard.push(heard);
        if self.text_bytes > MAX_REQUEST_BYTES || self.heard.len() > MAX_MESSAGES {
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
