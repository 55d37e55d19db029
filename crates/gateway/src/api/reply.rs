//! Reply: what workers say, in OpenAI's words.
//!
//! In:     pieces of answers, by index, as they come.
//! Out:    server-sent events, or one JSON document; the same texts either way.
//! Touches: nothing.
//! Holds:  concatenating an answer's events gives the document's text, token for token, and its calls.
//! Absent: sending them. That is `sse` and `generate`. Finding calls in an answer's text: `calls`.

use std::{collections::BTreeMap, fmt::Write as _, mem};

use bytes::Bytes;
use serde::Serialize;
use surety_types::{Alternative, Prompt, TokenLogprob};

use super::{
    ask::{Ask, Form},
    calls::{Callable, Calls, Piece},
    shapes::{
        ChatChoice, ChatChunkChoice, ChatCompletion, ChatCompletionChunk, ChatDelta, ChatFunction,
        ChatFunctionDelta, ChatLogprobs, ChatMessage, ChatTokenLogprob, ChatToolCall, ChatToolCallDelta,
        ChatTopLogprob, Completion, CompletionChoice, CompletionLogprobs, SuretyNote, Usage,
    },
    wording::{self, Heading, Marks, Wording},
};
use crate::error::ApiError;

/// What OpenAI reports for a token too unlikely to have a finite logarithm, which JSON could not carry.
const LOGPROB_MIN: f32 = -9999.0;

/// What ends a stream that went well.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// One reply under construction.
#[derive(Debug)]
pub(crate) struct Reply {
    /// `chatcmpl-…` or `cmpl-…`.
    id: String,
    heading: Heading,
    form: Form,
    include_usage: bool,
    /// Whether calls are worded as those of `functions` were.
    older: bool,
    answers: Vec<Pending>,
    marks: Option<Marks>,
}

/// What has come of one answer and is not yet sent.
#[derive(Debug)]
struct Pending {
    opened: bool,
    text: String,
    /// Where tools may be called: what finds the calls, what was found and is not sent, and the calls that were sent.
    calls: Option<Calls>,
    pieces: Vec<Piece>,
    sent_calls: u32,
    /// Bytes of an echoed prompt that are no whole character yet.
    carry: Vec<u8>,
    chat: Vec<ChatTokenLogprob>,
    legacy: CompletionLogprobs,
    /// What the log-probabilities take in memory, about.
    scored_bytes: usize,
    offset: Offset,
}

/// Where in the returned text the next token begins.
#[derive(Debug, Default)]
struct Offset {
    /// The rest of an echoed text prompt, to which its tokens are matched.
    prompt: String,
    matched: usize,
    characters: u64,
}

impl Reply {
    /// With `marks`, each event names its place, as long as the stream is kept.
    pub(crate) fn new(heading: Heading, ask: &Ask, marks: Option<Marks>) -> Self {
        let id = match ask.form {
            Form::Chat { .. } => heading.request.chat(),
            _ => heading.request.completion(),
        };
        let callable = wording::callable(&heading, ask);
        let mut answers: Vec<Pending> =
            (0..ask.answers()).map(|index| Pending::new(ask, callable.as_ref(), index)).collect();
        // Whoever goes on has seen the beginning.
        let seen = marks.as_ref().is_some_and(|marks| marks.position > 0);
        answers.iter_mut().for_each(|pending| pending.opened |= seen);
        let older = ask.tools.as_ref().is_some_and(|tools| tools.older);
        Self { id, heading, form: ask.form, include_usage: ask.include_usage, older, answers, marks }
    }

    /// One event with all that is pending of answer `index`.
    fn piece(
        &mut self,
        events: &mut Vec<u8>,
        index: usize,
        finish_reason: Option<&'static str>,
        note: Option<SuretyNote>,
    ) {
        let pending = &mut self.answers[index];
        let text = mem::take(&mut pending.text);
        let chat = mem::take(&mut pending.chat);
        let legacy = mem::take(&mut pending.legacy);
        pending.scored_bytes = 0;
        if let Some(marks) = &mut self.marks {
            marks.position += text.len();
            if finish_reason.is_none() && marks.log.is_kept() {
                events.extend_from_slice(format!("id: {}:{}\n", marks.request, marks.position).as_bytes());
            }
        }
        let index = index as u32;
        match self.form {
            Form::Chat { .. } => {
                let content = (finish_reason.is_none() || !text.is_empty()).then_some(text.as_str());
                let logprobs = (!chat.is_empty()).then_some(ChatLogprobs { content: chat, refusal: None });
                let delta = ChatDelta { content, ..ChatDelta::default() };
                let choice = ChatChunkChoice { index, delta, logprobs, finish_reason };
                event(events, &self.chat_chunk(vec![choice], None, note));
            }
            _ => {
                let logprobs = (!legacy.tokens.is_empty()).then_some(legacy);
                let choice = CompletionChoice { index, text: &text, logprobs, finish_reason };
                event(events, &self.completion(vec![choice], None, note));
            }
        }
    }

    /// An event for each piece of answer `index` that calls were looked for in; log-probabilities come with the first.
    fn pieces(&mut self, events: &mut Vec<u8>, index: usize) {
        let pending = &mut self.answers[index];
        let mut pieces = mem::take(&mut pending.pieces);
        if pieces.is_empty() && !pending.chat.is_empty() {
            pieces.push(Piece::Text(String::new()));
        }
        for piece in pieces {
            let pending = &mut self.answers[index];
            let (mut id, mut name, mut arguments) = (None, None, "");
            let mut delta = ChatDelta::default();
            match &piece {
                Piece::Text(text) => delta.content = Some(text),
                Piece::Begins { id: new, name: called } => {
                    (id, name) = (Some(new.as_str()), Some(called.as_str()))
                }
                Piece::Arguments(more) => arguments = more,
                Piece::Ends => {
                    pending.sent_calls += 1;
                    continue;
                }
            }
            if delta.content.is_none() {
                let function = ChatFunctionDelta { name, arguments };
                if self.older {
                    delta.function_call = Some(function);
                } else {
                    let (index, kind) = (pending.sent_calls, id.map(|_| "function"));
                    delta.tool_calls = Some([ChatToolCallDelta { index, id, kind, function }]);
                }
            }
            let chat = mem::take(&mut pending.chat);
            pending.scored_bytes = 0;
            let logprobs = (!chat.is_empty()).then_some(ChatLogprobs { content: chat, refusal: None });
            let choice = ChatChunkChoice { index: index as u32, delta, logprobs, finish_reason: None };
            event(events, &self.chat_chunk(vec![choice], None, None));
        }
    }

    /// Why an answer ended, which may be that tools are to be called.
    fn reason(&self, index: usize, reason: &'static str) -> &'static str {
        let called = self.answers[index].calls.as_ref().is_some_and(|calls| calls.made() > 0);
        match (reason, called) {
            ("stop", true) if self.older => "function_call",
            ("stop", true) => "tool_calls",
            _ => reason,
        }
    }

    fn chat_chunk<'a>(
        &'a self,
        choices: Vec<ChatChunkChoice<'a>>,
        usage: Option<Usage>,
        surety: Option<SuretyNote>,
    ) -> ChatCompletionChunk<'a> {
        ChatCompletionChunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.heading.created,
            model: &self.heading.model,
            system_fingerprint: &self.heading.fingerprint,
            choices,
            usage: self.include_usage.then_some(usage),
            surety,
        }
    }

    fn completion<'a>(
        &'a self,
        choices: Vec<CompletionChoice<'a>>,
        usage: Option<Usage>,
        surety: Option<SuretyNote>,
    ) -> Completion<'a> {
        Completion {
            id: &self.id,
            object: "text_completion",
            created: self.heading.created,
            model: &self.heading.model,
            system_fingerprint: &self.heading.fingerprint,
            choices,
            usage: self.include_usage.then_some(usage),
            surety,
        }
    }
}

impl Wording for Reply {
    fn prompt(&mut self, index: usize, logprobs: &[TokenLogprob], first: usize) {
        let pending = &mut self.answers[index];
        // The text of a text prompt is known; that of token ids comes with their bytes.
        if pending.offset.prompt.is_empty() {
            for logprob in logprobs {
                pending.carry.extend_from_slice(&logprob.bytes);
            }
            release(&mut pending.carry, &mut pending.text);
        }
        if self.form.logprobs().is_some() {
            pending.scored_bytes += logprobs.iter().map(scored_bytes).sum::<usize>();
            for (position, logprob) in (first..).zip(logprobs) {
                pending.legacy(logprob, position == 0);
            }
        }
    }

    fn output(&mut self, index: usize, text: &str, logprobs: &[TokenLogprob]) {
        let pending = &mut self.answers[index];
        pending.end_prompt();
        match &mut pending.calls {
            Some(calls) => pending.pieces.extend(calls.push(text)),
            None => pending.text.push_str(text),
        }
        if self.form.logprobs().is_some() {
            pending.scored_bytes += logprobs.iter().map(scored_bytes).sum::<usize>();
        }
        match self.form {
            Form::Chat { logprobs: Some(_) } => pending.chat.extend(logprobs.iter().map(chat_logprob)),
            Form::Completion { logprobs: Some(_), .. } => {
                logprobs.iter().for_each(|logprob| pending.legacy(logprob, false));
            }
            _ => {}
        }
    }

    fn news(&self) -> Option<usize> {
        self.answers.iter().position(Pending::has_news)
    }

    fn pending_bytes(&self) -> usize {
        self.answers.iter().map(Pending::bytes).sum()
    }

    fn events(&mut self, index: usize) -> Option<Bytes> {
        let mut events = Vec::new();
        if !self.answers[index].opened {
            self.answers[index].opened = true;
            if matches!(self.form, Form::Chat { .. }) {
                // Whoever adds up what comes has no text where there are only calls.
                let content = self.answers[index].calls.is_none().then_some("");
                let delta = ChatDelta { role: Some("assistant"), content, ..ChatDelta::default() };
                let choice =
                    ChatChunkChoice { index: index as u32, delta, logprobs: None, finish_reason: None };
                event(&mut events, &self.chat_chunk(vec![choice], None, None));
            }
        }
        if self.answers[index].has_news() {
            match &self.answers[index].calls {
                Some(_) => self.pieces(&mut events, index),
                None => self.piece(&mut events, index, None, None),
            }
        }
        (!events.is_empty()).then(|| Bytes::from(events))
    }

    fn finish(&mut self, index: usize, reason: &'static str, end: Option<(Usage, SuretyNote)>) -> Bytes {
        self.answers[index].end();
        let reason = self.reason(index, reason);
        let mut events = self.events(index).map_or_else(Vec::new, Vec::from);
        let is_last = end.is_some();
        match end {
            None => self.piece(&mut events, index, Some(reason), None),
            Some((_, note)) if !self.include_usage => {
                self.piece(&mut events, index, Some(reason), Some(note))
            }
            Some((usage, note)) => {
                self.piece(&mut events, index, Some(reason), None);
                match self.form {
                    Form::Chat { .. } => {
                        event(&mut events, &self.chat_chunk(Vec::new(), Some(usage), Some(note)))
                    }
                    _ => {
                        event(&mut events, &self.completion(Vec::new(), Some(usage), Some(note)));
                    }
                }
            }
        }
        if is_last {
            events.extend_from_slice(DONE);
        }
        Bytes::from(events)
    }

    fn failed(&self, failure: &ApiError) -> Bytes {
        let mut events = Vec::new();
        event(&mut events, &failure.body(&self.heading.request));
        Bytes::from(events)
    }

    fn document(mut self: Box<Self>, reasons: &[&'static str], usage: Usage, surety: SuretyNote) -> Bytes {
        self.answers.iter_mut().for_each(Pending::end);
        let reasons: Vec<&'static str> =
            reasons.iter().enumerate().map(|(index, reason)| self.reason(index, reason)).collect();
        let (answers, older) = (mem::take(&mut self.answers), self.older);
        assert_eq!(answers.len(), reasons.len(), "every answer has ended");
        let ended =
            (0..).zip(answers).zip(reasons).map(|((index, pending), reason)| (index, pending, reason));
        let json = match self.form {
            Form::Chat { logprobs } => {
                let choices = ended
                    .map(|(index, mut pending, finish_reason)| ChatChoice {
                        index,
                        logprobs: logprobs
                            .map(|_| ChatLogprobs { content: mem::take(&mut pending.chat), refusal: None }),
                        message: pending.message(older),
                        finish_reason,
                    })
                    .collect();
                let (id, Heading { created, model, fingerprint, .. }) = (&self.id, &self.heading);
                serde_json::to_vec(&ChatCompletion {
                    id,
                    object: "chat.completion",
                    created: *created,
                    model,
                    system_fingerprint: fingerprint,
                    choices,
                    usage,
                    surety,
                })
            }
            form => {
                let logprobs = form.logprobs();
                let ended: Vec<(u32, Pending, &'static str)> = ended.collect();
                let mut choices = Vec::with_capacity(ended.len());
                let mut texts = Vec::with_capacity(ended.len());
                for (index, pending, reason) in ended {
                    texts.push(pending.text);
                    choices.push((index, logprobs.map(|_| pending.legacy), reason));
                }
                let choices = choices
                    .into_iter()
                    .zip(&texts)
                    .map(|((index, logprobs, reason), text)| CompletionChoice {
                        index,
                        text,
                        logprobs,
                        finish_reason: Some(reason),
                    })
                    .collect();
                self.include_usage = true;
                serde_json::to_vec(&self.completion(choices, Some(usage), Some(surety)))
            }
        };
        Bytes::from(json.expect("a reply is JSON"))
    }
}

impl Pending {
    fn new(ask: &Ask, callable: Option<&Callable>, index: usize) -> Self {
        let prompt = &ask.requests[index / ask.choices as usize].prompt;
        let (text, offset) = match (ask.form, prompt) {
            (Form::Completion { echo: true, .. }, Prompt::Text(text)) => {
                (text.clone(), Offset { prompt: text.clone(), ..Offset::default() })
            }
            _ => (String::new(), Offset::default()),
        };
        Self {
            opened: false,
            text,
            calls: callable.map(|callable| Calls::new(Callable { answer: index, ..callable.clone() })),
            pieces: Vec::new(),
            sent_calls: 0,
            carry: Vec::new(),
            chat: Vec::new(),
            legacy: CompletionLogprobs::default(),
            scored_bytes: 0,
            offset,
        }
    }

    fn has_news(&self) -> bool {
        let said = !self.text.is_empty() || !self.pieces.is_empty();
        said || !self.chat.is_empty() || !self.legacy.tokens.is_empty()
    }

    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        // What is held back is bounded by itself; it waits for more, and so must not keep more from coming.
        self.text.len() + self.pieces.iter().map(Piece::bytes).sum::<usize>() + self.scored_bytes
    }

    /// The answer is whole.
    fn end(&mut self) {
        self.end_prompt();
        if let Some(calls) = &mut self.calls {
            self.pieces.extend(calls.finish());
        }
    }

    /// The whole answer, of which nothing was sent before.
    fn message(self, older: bool) -> ChatMessage {
        let (mut text, mut functions) = (self.text, Vec::new());
        for piece in self.pieces {
            match piece {
                Piece::Text(more) => text.push_str(&more),
                Piece::Begins { id, name } => {
                    functions.push((id, ChatFunction { name, arguments: String::new() }))
                }
                Piece::Arguments(more) => {
                    let (_, function) = functions.last_mut().expect("a call has begun");
                    function.arguments.push_str(&more);
                }
                Piece::Ends => {}
            }
        }
        let content = (!text.is_empty() || functions.is_empty()).then_some(text);
        let mut message = ChatMessage {
            role: "assistant",
            content,
            refusal: None,
            tool_calls: Vec::new(),
            function_call: None,
        };
        if older {
            message.function_call = functions.into_iter().next().map(|(_, function)| function);
        } else {
            let call = |(id, function)| ChatToolCall { id, kind: "function", function };
            message.tool_calls = functions.into_iter().map(call).collect();
        }
        message
    }

    /// The prompt is whole: what is left of it counts as it stands.
    fn end_prompt(&mut self) {
        if !self.carry.is_empty() {
            self.text.push_str(&String::from_utf8_lossy(&self.carry));
            self.carry.clear();
        }
        let rest = &self.offset.prompt.as_bytes()[self.offset.matched..];
        self.offset.characters += characters(rest);
        self.offset.prompt.clear();
        self.offset.matched = 0;
    }

    fn legacy(&mut self, logprob: &TokenLogprob, is_first_of_prompt: bool) {
        let token = legacy_token(&logprob.bytes);
        let list = &mut self.legacy;
        if is_first_of_prompt {
            list.token_logprobs.push(None);
            list.top_logprobs.push(None);
        } else {
            let top = logprob.top.iter().map(|other| (legacy_token(&other.bytes), finite(other.logprob)));
            let mut top: BTreeMap<String, f32> = top.collect();
            top.insert(token.clone(), finite(logprob.logprob));
            list.token_logprobs.push(Some(finite(logprob.logprob)));
            list.top_logprobs.push(Some(top));
        }
        list.tokens.push(token);
        list.text_offset.push(self.offset.next(&logprob.bytes));
    }
}

impl Offset {
    /// Where a token of these bytes begins; the next begins behind it.
    fn next(&mut self, bytes: &[u8]) -> u64 {
        // A token that starts inside a character begins where the character does.
        let inside = bytes.first().is_some_and(|byte| is_continuation(*byte)) && self.characters > 0;
        let begins = self.characters - u64::from(inside);
        // Tokens of a text prompt that are not part of the text, such as a begin-of-text token, take no room.
        let rest = &self.prompt.as_bytes()[self.matched..];
        if self.prompt.is_empty() || rest.starts_with(bytes) {
            self.characters += characters(bytes);
            self.matched = if self.prompt.is_empty() { 0 } else { self.matched + bytes.len() };
        }
        begins
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// Characters that begin in `bytes`.
fn characters(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| !is_continuation(**byte)).count() as u64
}

/// Moves the whole characters at the front of `carry` to `text`.
fn release(carry: &mut Vec<u8>, text: &mut String) {
    loop {
        match str::from_utf8(carry) {
            Ok(whole) => {
                text.push_str(whole);
                carry.clear();
                return;
            }
            Err(error) => {
                let valid = error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&carry[..valid]));
                // No length: the end of the bytes may be the beginning of a character.
                let Some(length) = error.error_len() else {
                    carry.drain(..valid);
                    return;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                carry.drain(..valid + length);
            }
        }
    }
}

/// What a log-probability takes once it is in a reply, about.
pub(crate) fn scored_bytes(logprob: &TokenLogprob) -> usize {
    (1 + logprob.top.len()) * size_of::<ChatTopLogprob>()
}

/// OpenAI's spelling of a token in the older shape.
fn legacy_token(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold(String::from("bytes:"), |mut token, byte| {
            write!(token, "\\x{byte:02x}").expect("writing to memory");
            token
        }),
    }
}

pub(crate) fn chat_logprob(logprob: &TokenLogprob) -> ChatTokenLogprob {
    let top = |other: &Alternative| ChatTopLogprob {
        token: String::from_utf8_lossy(&other.bytes).into_owned(),
        logprob: finite(other.logprob),
        bytes: other.bytes.clone(),
    };
    ChatTokenLogprob {
        token: String::from_utf8_lossy(&logprob.bytes).into_owned(),
        logprob: finite(logprob.logprob),
        bytes: logprob.bytes.clone(),
        top_logprobs: logprob.top.iter().map(top).collect(),
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { LOGPROB_MIN }
}

/// Writes one server-sent event.
pub(crate) fn event(events: &mut Vec<u8>, value: &impl Serialize) {
    events.extend_from_slice(b"data: ");
    serde_json::to_writer(&mut *events, value).expect("an event is JSON");
    events.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use surety_types::{CallFormat, CivilDate};

    use super::*;
    use crate::{api::parameters::Route, id::RequestId};

    fn ask(body: &str, route: Route) -> Ask {
        Ask::parse(body, route, CivilDate { year: 2026, month: 1, day: 1 }).expect("a good body")
    }

    fn reply(body: &str, route: Route) -> Box<Reply> {
        let ask = ask(body, route);
        let id = RequestId::parse(&format!("req_{:032x}", 7)).expect("an id");
        let (model, fingerprint) = ("m".to_owned(), "fp_1".to_owned());
        Box::new(Reply::new(
            Heading {
                request: id,
                created: 1,
                model,
                fingerprint,
                calls: Some(CallFormat::Hermes),
                prompt_tokens: 1,
            },
            &ask,
            None,
        ))
    }

    fn scored(text: &[u8], logprob: f32) -> TokenLogprob {
        let top = vec![Alternative { token: 9, bytes: b"z".to_vec(), logprob: -3.0 }];
        TokenLogprob { token: 1, bytes: text.to_vec(), logprob, top }
    }

    fn note() -> SuretyNote {
        SuretyNote {
            request_id: "req".to_owned(),
            receipt: None,
            model: "blake3:00".to_owned(),
            tier: "exact",
            workers: vec!["11".to_owned()],
            verification: "not-requested",
            checked_by: Vec::new(),
            handovers: 0,
            waits: Vec::new(),
            cost: "0".to_owned(),
            checked: Vec::new(),
            not_checked: Vec::new(),
            tool_calls: None,
            note: None,
        }
    }

    fn parse(events: &[u8]) -> Vec<Value> {
        let text = str::from_utf8(events.strip_suffix(DONE).unwrap_or(events)).expect("UTF-8");
        let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect("data"));
        events.map(|json| serde_json::from_str(json).expect("JSON")).collect()
    }

    const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true"#;

    #[test]
    fn a_chat_opens_with_a_role_and_ends_with_a_reason() {
        let mut reply = reply(&format!("{CHAT}}}"), Route::Chat);
        reply.output(0, "hel", &[]);
        let opening = parse(&reply.events(0).expect("news"));
        assert_eq!(opening[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        assert_eq!(opening[1]["choices"][0]["delta"], json!({"content": "hel"}));
        assert_eq!(opening[1]["choices"][0]["finish_reason"], Value::Null);
        assert!(opening[1].get("usage").is_none());
        assert_eq!(reply.events(0), None);
        reply.output(0, "lo", &[]);
        let end = parse(&reply.finish(0, "stop", Some((Usage::default(), note()))));
        assert_eq!(end[0]["choices"][0]["delta"], json!({"content": "lo"}));
        assert_eq!(
            end[1]["choices"][0],
            json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"})
        );
        assert_eq!(end[1]["surety"]["workers"][0], "11");
    }

    const TOOLS: &str = r#","tools":[{"type":"function","function":{"name":"find"}},{"type":"function","function":{"name":"ask"}}]}"#;
    const FUNCTIONS: &str = r#","functions":[{"name":"find"},{"name":"ask"}]}"#;
    const CALLED: &str = "I look.\n<tool_call>\n{\"name\": \"find\", \"arguments\": {\"a\": [1,  2]}}\n</tool_call>\n\
                          <tool_call>\n{\"name\": \"ask\", \"arguments\": {}}\n</tool_call>";
    const FIRST: &str = "call_000000000000000000000000";
    const SECOND: &str = "call_000000000000000000000001";

    /// As openai-python adds up the chunks of a stream.
    fn added_up(chunks: &[Value]) -> Value {
        let mut message = json!({"content": null, "tool_calls": []});
        for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().expect("choices")) {
            let delta = &choice["delta"];
            let add = |to: &mut Value, more: &Value| {
                if let Some(more) = more.as_str() {
                    *to = json!(to.as_str().unwrap_or_default().to_owned() + more);
                }
            };
            add(&mut message["role"], &delta["role"]);
            add(&mut message["content"], &delta["content"]);
            for piece in delta["tool_calls"].as_array().into_iter().flatten() {
                let calls = message["tool_calls"].as_array_mut().expect("calls");
                let at = piece["index"].as_u64().expect("an index") as usize;
                assert!(at <= calls.len());
                if at == calls.len() {
                    assert_eq!(piece["type"], "function");
                    calls.push(json!({"id": piece["id"], "name": "", "arguments": ""}));
                }
                add(&mut calls[at]["name"], &piece["function"]["name"]);
                add(&mut calls[at]["arguments"], &piece["function"]["arguments"]);
            }
            if delta["function_call"].is_object() {
                add(&mut message["function_call"]["name"], &delta["function_call"]["name"]);
                add(&mut message["function_call"]["arguments"], &delta["function_call"]["arguments"]);
            }
            add(&mut message["reason"], &choice["finish_reason"]);
        }
        message
    }

    fn streamed(body: &str, text: &str, reason: &'static str) -> Value {
        let mut reply = reply(body, Route::Chat);
        let mut chunks = Vec::new();
        for (at, character) in text.char_indices() {
            reply.output(0, &text[at..at + character.len_utf8()], &[]);
            chunks.extend(reply.events(0).map(|events| parse(&events)).unwrap_or_default());
        }
        chunks.extend(parse(&reply.finish(0, reason, None)));
        added_up(&chunks)
    }

    fn whole(body: &str, text: &str, reason: &'static str) -> Value {
        let mut reply = reply(body, Route::Chat);
        reply.output(0, text, &[]);
        let document = reply.document(&[reason], Usage::default(), note());
        let document: Value = serde_json::from_slice(&document).expect("JSON");
        document["choices"][0].clone()
    }

    #[test]
    fn calls_are_said_apart_from_text() {
        let body = format!("{CHAT}{TOOLS}");
        let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let choice = whole(&body, CALLED, "stop");
        let calls = json!([call(FIRST, "find", "{\"a\": [1,  2]}"), call(SECOND, "ask", "{}")]);
        let message =
            json!({"role": "assistant", "content": "I look.", "refusal": null, "tool_calls": calls});
        assert_eq!((&choice["message"], &choice["finish_reason"]), (&message, &json!("tool_calls")));
        let streamed = streamed(&body, CALLED, "stop");
        let calls = json!([
            {"id": FIRST, "name": "find", "arguments": "{\"a\": [1,  2]}"},
            {"id": SECOND, "name": "ask", "arguments": "{}"},
        ]);
        let expected =
            json!({"role": "assistant", "content": "I look.", "tool_calls": calls, "reason": "tool_calls"});
        assert_eq!(streamed, expected);
    }

    #[test]
    fn calls_alone_leave_no_text() {
        let body = format!("{CHAT}{TOOLS}");
        let alone = CALLED.strip_prefix("I look.").expect("a beginning");
        let choice = whole(&body, alone, "stop");
        assert_eq!(choice["message"]["content"], Value::Null);
        assert_eq!(choice["message"]["tool_calls"].as_array().expect("calls").len(), 2);
        assert_eq!(streamed(&body, alone, "stop")["content"], Value::Null);
        // One that the limit cut off is text, and an answer that the limit ended says so.
        let cut = &alone[..alone.len() - 30];
        let choice = whole(&body, cut, "length");
        assert_eq!(choice["finish_reason"], "length");
        assert_eq!(choice["message"]["tool_calls"].as_array().expect("calls").len(), 1);
        assert!(choice["message"]["content"].as_str().expect("a text").starts_with("<tool_call>\n{\"name\""));
    }

    #[test]
    fn the_older_form_is_answered_in_the_older_form() {
        let body = format!("{CHAT}{FUNCTIONS}");
        let choice = whole(&body, CALLED, "stop");
        assert_eq!(choice["finish_reason"], "function_call");
        let call = json!({"name": "find", "arguments": "{\"a\": [1,  2]}"});
        assert_eq!(choice["message"]["function_call"], call);
        assert!(choice["message"].get("tool_calls").is_none());
        // There is one such call in an answer; another stays text.
        let rest = &CALLED[CALLED.rfind("\n<tool_call>").expect("a second")..];
        assert_eq!(choice["message"]["content"], format!("I look.{rest}"));
        let streamed = streamed(&body, CALLED, "stop");
        assert_eq!(
            (&streamed["function_call"], &streamed["content"]),
            (&call, &choice["message"]["content"])
        );
    }

    #[test]
    fn without_tools_nothing_is_looked_for() {
        for none in ["}", ",\"tools\":[]}", ",\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"none\"}"]
        {
            let choice = whole(&format!("{CHAT}{none}"), CALLED, "stop");
            assert_eq!(choice["message"], json!({"role": "assistant", "content": CALLED, "refusal": null}));
            assert_eq!(choice["finish_reason"], "stop");
        }
    }

    #[test]
    fn the_tokens_of_a_call_are_scored_while_it_is_awaited() {
        let mut reply = reply(&format!("{CHAT},\"logprobs\":true{TOOLS}"), Route::Chat);
        reply.output(0, "<tool_call>{\"name\":", &[scored(b"<tool_call>{\"name\":", -1.0)]);
        let events = parse(&reply.events(0).expect("news"));
        assert_eq!(events[1]["choices"][0]["logprobs"]["content"].as_array().expect("one").len(), 1);
        reply.output(0, "\"ask\"}</tool_call>", &[scored(b"\"ask\"}</tool_call>", -1.0)]);
        let end = parse(&reply.finish(0, "stop", None));
        assert_eq!(end[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"], "ask");
        assert_eq!(end[0]["choices"][0]["logprobs"]["content"].as_array().expect("one").len(), 1);
    }

    #[test]
    fn usage_comes_in_a_chunk_of_its_own() {
        let mut reply =
            reply(&format!("{CHAT},\"stream_options\":{{\"include_usage\":true}}}}"), Route::Chat);
        let usage = Usage { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5, ..Usage::default() };
        let end = reply.finish(0, "length", Some((usage, note())));
        assert!(end.ends_with(DONE), "nothing ends the stream");
        let end = parse(&end);
        assert_eq!(end.len(), 3);
        assert_eq!(end[1]["usage"], Value::Null);
        assert_eq!(end[2]["choices"], json!([]));
        assert_eq!(end[2]["usage"]["total_tokens"], 5);
        assert_eq!(end[2]["surety"]["workers"][0], "11");
    }

    #[test]
    fn an_answer_without_tokens_is_still_opened() {
        let mut reply = reply(&format!("{CHAT}}}"), Route::Chat);
        let end = parse(&reply.finish(0, "length", None));
        assert_eq!(end[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(end[1]["choices"][0]["finish_reason"], "length");
    }

    #[test]
    fn chat_logprobs_have_bytes_and_alternatives() {
        let mut reply = reply(&format!("{CHAT},\"logprobs\":true,\"top_logprobs\":1}}"), Route::Chat);
        reply.output(0, "", &[scored(&[0xc3], f32::NEG_INFINITY)]);
        let events = parse(&reply.events(0).expect("news"));
        let expected = json!({"content": [{"token": "\u{fffd}", "logprob": -9999.0, "bytes": [0xc3],
            "top_logprobs": [{"token": "z", "logprob": -3.0, "bytes": [122]}]}], "refusal": null});
        assert_eq!(events[1]["choices"][0]["logprobs"], expected);
        assert_eq!(events[1]["choices"][0]["delta"], json!({"content": ""}));
    }

    #[test]
    fn an_echoed_text_is_scored_token_by_token() {
        let mut reply = reply(r#"{"model":"m","prompt":"aéb","echo":true,"logprobs":1}"#, Route::Completions);
        let pieces = [scored(b"<s>", 0.0), scored(b"a", -1.0), scored(&[0xc3], -1.5)];
        reply.prompt(0, &pieces, 0);
        reply.prompt(0, &[scored(&[0xa9], -1.25), scored(b"b", -2.0)], 3);
        reply.output(0, "c", &[scored(b"c", -0.5)]);
        let document: Value =
            serde_json::from_slice(&reply.document(&["stop"], Usage::default(), note())).expect("JSON");
        let choice = &document["choices"][0];
        assert_eq!(choice["text"], "aébc");
        let logprobs = &choice["logprobs"];
        assert_eq!(logprobs["tokens"], json!(["<s>", "a", "bytes:\\xc3", "bytes:\\xa9", "b", "c"]));
        assert_eq!(logprobs["token_logprobs"], json!([null, -1.0, -1.5, -1.25, -2.0, -0.5]));
        assert_eq!(logprobs["text_offset"], json!([0, 0, 1, 1, 2, 3]));
        assert_eq!(logprobs["top_logprobs"][0], Value::Null);
        assert_eq!(logprobs["top_logprobs"][1], json!({"a": -1.0, "z": -3.0}));
    }

    #[test]
    fn echoed_ids_become_the_text_of_their_bytes() {
        let mut reply = reply(r#"{"model":"m","prompt":[1,2,3],"echo":true}"#, Route::Completions);
        reply.prompt(0, &[scored(b"a", 0.0), scored(&[0xc3], -1.5)], 0);
        reply.prompt(0, &[scored(&[0xa9, 0xff], -1.5)], 2);
        reply.output(0, "!", &[]);
        let document: Value =
            serde_json::from_slice(&reply.document(&["stop"], Usage::default(), note())).expect("JSON");
        assert_eq!(document["choices"][0]["text"], "aé\u{fffd}!");
        assert_eq!(document["choices"][0]["logprobs"], Value::Null);
    }

    #[test]
    fn a_stream_of_echoes_opens_with_the_prompt() {
        let body = r#"{"model":"m","prompt":["p","q"],"n":2,"echo":true,"stream":true}"#;
        let mut reply = reply(body, Route::Completions);
        let events = parse(&reply.events(3).expect("news"));
        assert_eq!(
            (&events[0]["choices"][0]["index"], &events[0]["choices"][0]["text"]),
            (&json!(3), &json!("q"))
        );
    }

    proptest::proptest! {
        /// What JSON carries is the very number, whatever its size.
        #[test]
        fn a_log_probability_keeps_its_bits(bits in proptest::prelude::any::<u32>()) {
            let logprob = f32::from_bits(bits);
            let json = serde_json::to_string(&chat_logprob(&scored(b"a", logprob)).logprob).expect("JSON");
            let expected = if logprob.is_finite() { logprob } else { LOGPROB_MIN };
            proptest::prop_assert_eq!(json.parse::<f32>().expect("a number").to_bits(), expected.to_bits());
        }
    }
}
