//! Wording of messages: what a worker says, in Anthropic's words.
//!
//! In:     pieces of one answer, as they come. Out: the events of a stream, or one document.
//! Touches: nothing.
//! Holds:  the texts of the events, put together, are the document's; a stream begins with `message_start` and ends with
//!         `message_stop`, or with an `error` event.
//! Absent: sending them (`generate`).

use bytes::Bytes;
use serde_json::value::RawValue;
use surety_types::TokenLogprob;

use super::{
    shapes::{
        BlockDelta, ContentBlock, InputDelta, Message, MessageEvent, MessageUsage, StopDelta, TextBlock,
        TextDelta, ToolUseBlock,
    },
    stops::Tail,
};
use crate::{
    api::{
        ask::Ask,
        calls::{Calls, Piece},
        dialect,
        shapes::{SuretyNote, Usage},
        wording::{self, Heading, Marks, Wording},
    },
    error::ApiError,
};

/// One answer under construction.
#[derive(Debug)]
pub(crate) struct MessageWording {
    heading: Heading,
    id: String,
    opened: bool,
    /// What has come and is in no event yet.
    text: String,
    /// Where tools may be called: what finds the calls, and what was found and is in no event yet.
    calls: Option<Calls>,
    pieces: Vec<Piece>,
    /// Blocks that were begun, and whether the last is a text that has not ended.
    blocks: u32,
    in_text: bool,
    marks: Option<Marks>,
    /// What was asked for at most.
    max_output_tokens: Option<u32>,
    /// The end of what was said, if a stop sequence may end it.
    tail: Option<Tail>,
}

impl MessageWording {
    pub(crate) fn new(heading: Heading, ask: &Ask, marks: Option<Marks>) -> Self {
        let stops = ask.requests.first().map_or(&[][..], |request| &request.stop);
        Self {
            id: heading.request.message(),
            // Whoever goes on has seen the beginning.
            opened: marks.as_ref().is_some_and(|marks| marks.position > 0),
            text: String::new(),
            calls: wording::callable(&heading, ask).map(Calls::new),
            pieces: Vec::new(),
            blocks: 0,
            in_text: false,
            marks,
            max_output_tokens: ask.max_output_tokens,
            tail: (!stops.is_empty()).then(|| Tail::new(stops.to_vec())),
            heading,
        }
    }

    fn message<'a>(&'a self, content: Vec<ContentBlock<'a>>, usage: MessageUsage) -> Message<'a> {
        Message {
            id: &self.id,
            kind: "message",
            role: "assistant",
            model: &self.heading.model,
            content,
            stop_reason: None,
            stop_sequence: None,
            usage,
            surety: None,
        }
    }

    /// How it ended: why, and by which stop sequence.
    fn stop(&self, reason: &str, usage: Option<&Usage>) -> (&'static str, Option<&str>) {
        match (reason, self.tail.as_ref().and_then(Tail::ended_by)) {
            ("length", _) => {
                let wanted = self.max_output_tokens.map(u64::from);
                let short = usage.zip(wanted).is_some_and(|(usage, wanted)| usage.completion_tokens < wanted);
                (if short { "model_context_window_exceeded" } else { "max_tokens" }, None)
            }
            (_, Some(stop)) => ("stop_sequence", Some(stop)),
            _ if self.calls.as_ref().is_some_and(|calls| calls.made() > 0) => ("tool_use", None),
            (_, None) => ("end_turn", None),
        }
    }

    /// The beginning, unless it was sent.
    fn open(&mut self, events: &mut Vec<u8>) {
        if self.opened {
            return;
        }
        self.opened = true;
        let message = self.message(Vec::new(), MessageUsage::of_prompt(self.heading.prompt_tokens));
        write(events, &MessageEvent::MessageStart { message });
        // Where tools may be called, it is not known yet what the first block is.
        if self.calls.is_none() {
            write(events, &MessageEvent::ContentBlockStart { index: 0, content_block: text_block("") });
        }
        write(events, &MessageEvent::Ping);
    }

    /// What was found where tools may be called: a block for each call, and for what is said between them.
    fn pieces(&mut self, events: &mut Vec<u8>) {
        for piece in std::mem::take(&mut self.pieces) {
            let delta = match &piece {
                Piece::Text(text) => {
                    if !self.in_text {
                        self.begin(events, text_block(""));
                        self.in_text = true;
                    }
                    BlockDelta::Text(TextDelta { kind: "text_delta", text })
                }
                Piece::Begins { id, name } => {
                    self.end_text(events);
                    self.begin(events, call_block(id, name, nothing()));
                    continue;
                }
                Piece::Arguments(more) => {
                    BlockDelta::Input(InputDelta { kind: "input_json_delta", partial_json: more })
                }
                Piece::Ends => {
                    write(events, &MessageEvent::ContentBlockStop { index: self.blocks - 1 });
                    continue;
                }
            };
            write(events, &MessageEvent::ContentBlockDelta { index: self.blocks - 1, delta });
        }
    }

    fn begin(&mut self, events: &mut Vec<u8>, content_block: ContentBlock<'_>) {
        write(events, &MessageEvent::ContentBlockStart { index: self.blocks, content_block });
        self.blocks += 1;
    }

    fn end_text(&mut self, events: &mut Vec<u8>) {
        if std::mem::take(&mut self.in_text) {
            write(events, &MessageEvent::ContentBlockStop { index: self.blocks - 1 });
        }
    }

    /// The text is whole.
    fn end(&mut self) {
        if let Some(calls) = &mut self.calls {
            self.pieces.extend(calls.finish());
        }
    }

    /// What has come and was not sent.
    fn piece(&mut self, events: &mut Vec<u8>) {
        if self.text.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.text);
        if let Some(marks) = &mut self.marks {
            marks.position += text.len();
            if marks.log.is_kept() {
                events.extend_from_slice(format!("id: {}:{}\n", marks.request, marks.position).as_bytes());
            }
        }
        let delta = BlockDelta::Text(TextDelta { kind: "text_delta", text: &text });
        write(events, &MessageEvent::ContentBlockDelta { index: 0, delta });
    }
}

impl Wording for MessageWording {
    fn prompt(&mut self, _index: usize, _logprobs: &[TokenLogprob], _first: usize) {}

    fn output(&mut self, _index: usize, text: &str, logprobs: &[TokenLogprob]) {
        match &mut self.calls {
            Some(calls) => self.pieces.extend(calls.push(text)),
            None => self.text.push_str(text),
        }
        if let Some(tail) = &mut self.tail {
            tail.push(text, logprobs);
        }
    }

    fn news(&self) -> Option<usize> {
        (!self.text.is_empty() || !self.pieces.is_empty()).then_some(0)
    }

    fn pending_bytes(&self) -> usize {
        self.text.len() + self.pieces.iter().map(Piece::bytes).sum::<usize>()
    }

    fn events(&mut self, _index: usize) -> Option<Bytes> {
        let mut events = Vec::new();
        self.open(&mut events);
        self.piece(&mut events);
        self.pieces(&mut events);
        (!events.is_empty()).then(|| Bytes::from(events))
    }

    fn finish(&mut self, _index: usize, reason: &'static str, end: Option<(Usage, SuretyNote)>) -> Bytes {
        let mut events = Vec::new();
        self.open(&mut events);
        self.end();
        match self.calls {
            None => {
                self.piece(&mut events);
                write(&mut events, &MessageEvent::ContentBlockStop { index: 0 });
            }
            Some(_) => {
                self.pieces(&mut events);
                if self.blocks == 0 {
                    self.begin(&mut events, text_block(""));
                    self.in_text = true;
                }
                self.end_text(&mut events);
            }
        }
        let (usage, surety) = end.unzip();
        let (stop_reason, stop_sequence) = self.stop(reason, usage.as_ref());
        let delta = StopDelta { stop_reason, stop_sequence };
        let usage =
            usage.as_ref().map_or(MessageUsage::of_prompt(self.heading.prompt_tokens), MessageUsage::of);
        write(&mut events, &MessageEvent::MessageDelta { delta, usage, surety });
        write(&mut events, &MessageEvent::MessageStop);
        Bytes::from(events)
    }

    fn failed(&self, failure: &ApiError) -> Bytes {
        dialect::message_frame(failure, &self.heading.request)
    }

    fn document(mut self: Box<Self>, reasons: &[&'static str], usage: Usage, note: SuretyNote) -> Bytes {
        self.end();
        let pieces = joined(std::mem::take(&mut self.pieces));
        let content = match self.calls {
            None => vec![text_block(&self.text)],
            Some(_) => content(&pieces),
        };
        let (stop_reason, stop_sequence) = self.stop(reasons.first().unwrap_or(&"stop"), Some(&usage));
        let message = Message {
            stop_reason: Some(stop_reason),
            stop_sequence,
            surety: Some(note),
            ..self.message(content, MessageUsage::of(&usage))
        };
        Bytes::from(serde_json::to_vec(&message).expect("a message is JSON"))
    }
}

/// The same pieces, with no two texts behind each other.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(more)) => before.push_str(&more),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

/// The blocks of an answer in which calls were looked for; an empty text where nothing was said.
fn content(pieces: &[Piece]) -> Vec<ContentBlock<'_>> {
    let mut blocks = Vec::new();
    let mut called = ("", "");
    for piece in pieces {
        match piece {
            Piece::Text(text) => blocks.push(text_block(text)),
            Piece::Begins { id, name } => called = (id, name),
            Piece::Arguments(json) => {
                let input = serde_json::from_str(json).unwrap_or(nothing());
                blocks.push(call_block(called.0, called.1, input));
            }
            Piece::Ends => {}
        }
    }
    if blocks.is_empty() {
        blocks.push(text_block(""));
    }
    blocks
}

fn text_block(text: &str) -> ContentBlock<'_> {
    ContentBlock::Text(TextBlock { kind: "text", text, citations: None })
}

fn call_block<'a>(id: &'a str, name: &'a str, input: &'a RawValue) -> ContentBlock<'a> {
    ContentBlock::ToolUse(ToolUseBlock { kind: "tool_use", id, name, input })
}

/// An input that is not known yet.
fn nothing() -> &'static RawValue {
    serde_json::from_str("{}").expect("an object")
}

fn write(events: &mut Vec<u8>, event: &MessageEvent<'_>) {
    events.extend_from_slice(b"event: ");
    events.extend_from_slice(event.name().as_bytes());
    events.extend_from_slice(b"\ndata: ");
    serde_json::to_writer(&mut *events, event).expect("an event is JSON");
    events.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use surety_types::{CallFormat, CivilDate};

    use super::*;
    use crate::{
        api::{messages::read::read, parameters::Route, shapes::PromptTokensDetails},
        id::RequestId,
    };

    fn wording(more: &str) -> MessageWording {
        let body =
            format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"x"}}]{more}}}"#);
        let today = CivilDate { year: 2026, month: 1, day: 1 };
        let ask = read(&body, Route::Messages, today).expect("a good body");
        let request = RequestId::parse(&format!("req_{:032x}", 7)).expect("an id");
        let (model, fingerprint) = ("m".to_owned(), "fp_1".to_owned());
        MessageWording::new(
            Heading {
                request,
                created: 1,
                model,
                fingerprint,
                calls: Some(CallFormat::Hermes),
                prompt_tokens: 5,
            },
            &ask,
            None,
        )
    }

    fn usage(output: u64) -> Usage {
        let prompt_tokens_details = PromptTokensDetails { cached_tokens: 2, audio_tokens: 0 };
        Usage { prompt_tokens: 5, completion_tokens: output, prompt_tokens_details, ..Usage::default() }
    }

    fn scored(bytes: &[u8]) -> TokenLogprob {
        TokenLogprob { token: 1, bytes: bytes.to_vec(), logprob: -1.0, top: Vec::new() }
    }

    fn parse(events: &[u8]) -> Vec<Value> {
        let text = str::from_utf8(events).expect("UTF-8");
        let event = |event: &str| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        };
        text.split_terminator("\n\n").map(event).collect()
    }

    #[test]
    fn a_stream_begins_and_ends_as_clients_expect() {
        let mut wording = wording("");
        assert_eq!(wording.news(), None);
        wording.output(0, "hel", &[]);
        let events = parse(&wording.events(0).expect("news"));
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
        assert_eq!(kinds, ["message_start", "content_block_start", "ping", "content_block_delta"]);
        assert_eq!(
            events[0]["message"],
            json!({"id": "msg_00000000000000000000000000000007", "type": "message", "role": "assistant", "model": "m",
                   "content": [], "stop_reason": null, "stop_sequence": null,
                   "usage": {"input_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}})
        );
        assert_eq!(events[1]["content_block"], json!({"type": "text", "text": "", "citations": null}));
        assert_eq!(events[3]["delta"], json!({"type": "text_delta", "text": "hel"}));
        wording.output(0, "lo", &[]);
        let events = parse(&wording.finish(0, "stop", Some((usage(3), SuretyNote::default()))));
        assert_eq!(events[0]["delta"]["text"], "lo");
        assert_eq!(events[1], json!({"type": "content_block_stop", "index": 0}));
        assert_eq!(events[2]["delta"], json!({"stop_reason": "end_turn", "stop_sequence": null}));
        assert_eq!(
            events[2]["usage"],
            json!({"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2, "output_tokens": 3})
        );
        assert_eq!(events[3], json!({"type": "message_stop"}));
    }

    #[test]
    fn an_answer_without_text_is_still_opened() {
        let events = parse(&wording("").finish(0, "length", Some((usage(9), SuretyNote::default()))));
        assert_eq!(events[0]["type"], "message_start");
        assert_eq!(events[4]["delta"]["stop_reason"], "max_tokens");
    }

    #[test]
    fn what_ended_an_answer_is_told() {
        let check = |text: &str, tokens: &[&[u8]], reason, output, expected: Value| {
            let mut wording = Box::new(wording(r#","stop_sequences":["END","N!"]"#));
            let logprobs: Vec<TokenLogprob> = tokens.iter().map(|bytes| scored(bytes)).collect();
            wording.output(0, text, &logprobs);
            let document = wording.document(&[reason], usage(output), SuretyNote::default());
            let document: Value = serde_json::from_slice(&document).expect("JSON");
            assert_eq!(document["content"][0]["text"], text);
            assert_eq!(json!([document["stop_reason"], document["stop_sequence"]]), expected, "{text}");
        };
        check("hi ", &[b"hi", b" E", b"ND"], "stop", 3, json!(["stop_sequence", "END"]));
        check("hi ", &[b"hi ", b"N!"], "stop", 3, json!(["stop_sequence", "N!"]));
        check("hi", &[b"hi", b"</s>"], "stop", 2, json!(["end_turn", null]));
        check("hi", &[b"hi"], "length", 9, json!(["max_tokens", null]));
        check("hi", &[b"hi"], "length", 3, json!(["model_context_window_exceeded", null]));
    }

    const TOOLS: &str = r#","tools":[{"name":"weather","input_schema":{"type":"object"}}]"#;

    /// What a stream's events say, as the blocks of a document.
    fn rebuilt(events: &[Value]) -> Vec<Value> {
        let mut blocks: Vec<Value> = Vec::new();
        let (mut open, mut json) = (None, String::new());
        for event in events {
            let index = event["index"].as_u64().map(|index| index as usize);
            match event["type"].as_str().expect("a type") {
                "content_block_start" => {
                    assert_eq!((open, index), (None, Some(blocks.len())), "blocks follow each other");
                    blocks.push(event["content_block"].clone());
                    open = index;
                    json.clear();
                }
                "content_block_delta" => {
                    assert_eq!(open, index);
                    let block = blocks.last_mut().expect("a block");
                    match event["delta"]["type"].as_str().expect("a type") {
                        "text_delta" => {
                            let text = event["delta"]["text"].as_str().expect("a text");
                            let before = block["text"].as_str().expect("a text block").to_owned();
                            block["text"] = json!(before + text);
                        }
                        "input_json_delta" => {
                            json.push_str(event["delta"]["partial_json"].as_str().expect("a text"));
                        }
                        other => panic!("{other}"),
                    }
                }
                "content_block_stop" => {
                    assert_eq!(open.take(), index);
                    let block = blocks.last_mut().expect("a block");
                    if block["type"] == "tool_use" {
                        assert_eq!(block["input"], json!({}));
                        block["input"] = serde_json::from_str(&json).expect("an object");
                    }
                }
                _ => {}
            }
        }
        assert_eq!(open, None);
        blocks
    }

    #[test]
    fn a_stream_and_a_document_have_the_same_blocks() {
        const CALL: &str = r#"<tool_call>{"name":"weather","arguments":{"a":"b\n"}}</tool_call>"#;
        let check = |text: &str, reason: &'static str, expected: Value, ended: &str| {
            let document = {
                let mut wording = Box::new(wording(TOOLS));
                wording.output(0, text, &[]);
                wording.document(&[reason], usage(9), SuretyNote::default())
            };
            let document: Value = serde_json::from_slice(&document).expect("JSON");
            let kinds: Vec<&Value> =
                document["content"].as_array().expect("blocks").iter().map(|block| &block["type"]).collect();
            assert_eq!((json!(kinds), &document["stop_reason"]), (expected, &json!(ended)), "{text}");
            for size in [1, 7, 1000] {
                let mut wording = wording(TOOLS);
                let mut events = Vec::new();
                let characters: Vec<char> = text.chars().collect();
                for part in characters.chunks(size) {
                    wording.output(0, &part.iter().collect::<String>(), &[]);
                    if wording.news().is_some() {
                        events.extend(parse(&wording.events(0).expect("news")));
                    }
                }
                events.extend(parse(&wording.finish(0, reason, Some((usage(9), SuretyNote::default())))));
                assert_eq!(json!(rebuilt(&events)), document["content"], "{text}");
                let end = &events[events.len() - 2];
                assert_eq!(end["delta"]["stop_reason"], ended);
            }
        };
        check(
            &format!("I look. {CALL}\n{CALL}"),
            "stop",
            json!(["text", "tool_use", "tool_use"]),
            "tool_use",
        );
        check(
            &format!("{CALL} and {CALL} then"),
            "stop",
            json!(["tool_use", "text", "tool_use", "text"]),
            "tool_use",
        );
        check("no <tool> at all", "stop", json!(["text"]), "end_turn");
        check("", "stop", json!(["text"]), "end_turn");
        check("<tool_call>{\"name\":", "length", json!(["text"]), "max_tokens");
    }

    #[test]
    fn a_failure_is_an_event() {
        let failure = ApiError::new(crate::error::Code::Overloaded, "No room.");
        let event = wording("").failed(&failure);
        let text = str::from_utf8(&event).expect("UTF-8");
        let data: Value =
            serde_json::from_str(text.strip_prefix("event: error\ndata: ").expect("an error")).expect("JSON");
        assert_eq!((&data["type"], &data["error"]["type"]), (&json!("error"), &json!("overloaded_error")));
        assert_eq!(data["error"]["details"]["error_code"], "overloaded");
        assert!(text.ends_with("\n\n"));
    }
}
