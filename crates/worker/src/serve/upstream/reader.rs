//! Reader: server-sent events of OpenAI's shape.
//!
//! In:     a stranger's bytes, however they are cut. Out: what they say, or the first thing that is wrong with them.
//! Touches: nothing.
//! Holds:  an event has at most [`EVENT_BYTES_MAX`]; no bytes make it panic; the same bytes say the same however they are
//!         cut; what says that it is an end is one only if it says why.
//! Source: WHATWG HTML, 9.2 *Server-sent events*; OpenAI, *Chat completion chunk*.

use std::mem;

use serde::Deserialize;
use serde_json::Value;
use surety_types::FinishReason;

use super::failure::{Failure, Redacting, said_in};

/// Bytes of one event.
pub(super) const EVENT_BYTES_MAX: usize = 1 << 20;

/// Something that an upstream said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// More text.
    Text(String),
    /// It ends, and why.
    Finish(FinishReason),
    /// What it counted.
    Usage { prompt_tokens: u32, output_tokens: u32 },
    /// `[DONE]`
    Done,
}

/// As whom an upstream may answer.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) model: &'a str,
    pub(super) answers_as: Option<&'a str>,
    pub(super) redacting: Redacting<'a>,
}

impl Names<'_> {
    /// A name, or a more precise one that begins with it: `name-2026-01-01`, `name@sha256:…`, `name:latest`.
    fn admit(&self, found: &str) -> bool {
        let is = |name: &str| {
            found.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '@', ':']))
        };
        found.is_empty() || is(self.model) || self.answers_as.is_some_and(is)
    }
}

/// Reads one answer.
pub(super) struct Reader<'a> {
    names: Names<'a>,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    pub(super) finished: bool,
    pub(super) done: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(names: Names<'a>) -> Self {
        Self { names, line: Vec::new(), data: Vec::new(), has_data: false, finished: false, done: false }
    }

    /// Takes more bytes; says whether a line ended in them.
    pub(super) fn push(&mut self, bytes: &[u8], said: &mut Vec<Said>) -> Result<bool, Failure> {
        let mut ended = false;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + self.data.len() + piece.len() > EVENT_BYTES_MAX {
                let message =
                    format!("the operator's upstream sent an event of more than {EVENT_BYTES_MAX} bytes");
                return Err(Failure::ours(message));
            }
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") {
                ended = true;
                self.end_line(said)?;
            }
        }
        Ok(ended)
    }

    /// There are no more bytes.
    pub(super) fn end(&mut self, said: &mut Vec<Said>) -> Result<(), Failure> {
        if !self.line.is_empty() {
            self.end_line(said)?;
        }
        self.dispatch(said)
    }

    fn end_line(&mut self, said: &mut Vec<Said>) -> Result<(), Failure> {
        let line = mem::take(&mut self.line);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return self.dispatch(said);
        }
        // Comments and other fields say nothing here.
        if let Some(data) = line.strip_prefix(b"data:") {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data);
            self.has_data = true;
            return Ok(());
        }
        let is_field =
            [b":".as_slice(), b"event:", b"id:", b"retry:"].iter().any(|field| line.starts_with(field));
        if is_field { Ok(()) } else { Err(garbage("a line that is no server-sent event")) }
    }

    fn dispatch(&mut self, said: &mut Vec<Said>) -> Result<(), Failure> {
        let data = mem::take(&mut self.data);
        if !mem::take(&mut self.has_data) || self.done {
            return Ok(());
        }
        if data == b"[DONE]" {
            self.done = true;
            said.push(Said::Done);
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(&data).map_err(|_| garbage("an event that is no chunk"))?;
        self.take(chunk, said)
    }

    fn take(&mut self, chunk: Chunk, said: &mut Vec<Said>) -> Result<(), Failure> {
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            let quoted = match said_in(&error) {
                Some((message, _)) => format!(": \"{}\"", self.names.redacting.line(&message)),
                None => String::new(),
            };
            return Err(Failure::ours(format!("the operator's upstream failed in mid-answer{quoted}")));
        }
        if let Some(model) = chunk.model.filter(|model| !self.names.admit(model)) {
            let (asked, found) = (self.names.model, self.names.redacting.line(&model));
            let message = format!("the operator's upstream answers as \"{found}\", not as \"{asked}\"");
            return Err(Failure::ours(message));
        }
        for choice in chunk.choices.unwrap_or_default() {
            self.take_choice(choice, said)?;
        }
        if let Some(usage) = chunk.usage {
            let (prompt_tokens, output_tokens) = (usage.prompt_tokens, usage.completion_tokens);
            said.push(Said::Usage { prompt_tokens, output_tokens });
        }
        Ok(())
    }

    fn take_choice(&mut self, choice: Choice, said: &mut Vec<Said>) -> Result<(), Failure> {
        if choice.index != 0 {
            return Err(garbage("an answer beside the one that was asked for"));
        }
        let delta = choice.delta.unwrap_or_default();
        if delta.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            return Err(garbage("calls of tools that it was not shown"));
        }
        for text in [delta.content, delta.refusal, choice.text].into_iter().flatten() {
            if text.is_empty() {
                continue;
            }
            if self.finished {
                return Err(garbage("text after the end"));
            }
            said.push(Said::Text(text));
        }
        let Some(reason) = choice.finish_reason else { return Ok(()) };
        if mem::replace(&mut self.finished, true) {
            return Err(garbage("a second end"));
        }
        said.push(Said::Finish(match reason.as_str() {
            "stop" => FinishReason::Stop,
            "length" => FinishReason::Length,
            "content_filter" => {
                return Err(Failure::ours(
                    "the operator's upstream withheld the rest of the answer (content_filter)",
                ));
            }
            other => {
                let other = self.names.redacting.line(other);
                let message = format!(
                    "the operator's upstream ended the answer for a reason unknown here, \"{other}\""
                );
                return Err(Failure::ours(message));
            }
        }));
        Ok(())
    }
}

fn garbage(what: &str) -> Failure {
    Failure::ours(format!("the operator's upstream sent {what}"))
}

#[derive(Deserialize)]
struct Chunk {
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    delta: Option<Delta>,
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
}
