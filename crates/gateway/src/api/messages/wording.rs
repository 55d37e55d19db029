//! Wording of messages: what a worker says, in Anthropic's words.
//!
//! In:     pieces of one answer, as they come. Out: the events of a stream, or one document.
//! Touches: nothing.
//! Holds:  the texts of the events, put together, are the document's; a stream begins with `message_start` and ends with
//!         `message_stop`, or with an `error` event.
//! Absent: sending them (`generate`).

use bytes::Bytes;
use surety_types::TokenLogprob;

use super::{
    shapes::{Message, MessageEvent, MessageUsage, StopDelta, TextBlock, TextDelta},
    stops::Tail,
};
use crate::{
    api::{
        ask::Ask,
        dialect,
        shapes::{SuretyNote, Usage},
        wording::{Heading, Marks, Wording},
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
            marks,
            max_output_tokens: ask.max_output_tokens,
            tail: (!stops.is_empty()).then(|| Tail::new(stops.to_vec())),
            heading,
        }
    }

    fn message<'a>(&'a self, content: Vec<TextBlock<'a>>, usage: MessageUsage) -> Message<'a> {
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
        write(events, &MessageEvent::ContentBlockStart { index: 0, content_block: block("") });
        write(events, &MessageEvent::Ping);
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
        let delta = TextDelta { kind: "text_delta", text: &text };
        write(events, &MessageEvent::ContentBlockDelta { index: 0, delta });
    }
}

impl Wording for MessageWording {
    fn prompt(&mut self, _index: usize, _logprobs: &[TokenLogprob], _first: usize) {}

    fn output(&mut self, _index: usize, text: &str, logprobs: &[TokenLogprob]) {
        self.text.push_str(text);
        if let Some(tail) = &mut self.tail {
            tail.push(text, logprobs);
        }
    }

    fn news(&self) -> Option<usize> {
        (!self.text.is_empty()).then_some(0)
    }

    fn pending_bytes(&self) -> usize {
        self.text.len()
    }

    fn events(&mut self, _index: usize) -> Option<Bytes> {
        let mut events = Vec::new();
        self.open(&mut events);
        self.piece(&mut events);
        (!events.is_empty()).then(|| Bytes::from(events))
    }

    fn finish(&mut self, _index: usize, reason: &'static str, end: Option<(Usage, SuretyNote)>) -> Bytes {
        let mut events = Vec::new();
        self.open(&mut events);
        self.piece(&mut events);
        write(&mut events, &MessageEvent::ContentBlockStop { index: 0 });
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

    fn document(self: Box<Self>, reasons: &[&'static str], usage: Usage, note: SuretyNote) -> Bytes {
        let (stop_reason, stop_sequence) = self.stop(reasons.first().unwrap_or(&"stop"), Some(&usage));
        let message = Message {
            stop_reason: Some(stop_reason),
            stop_sequence,
            surety: Some(note),
            ..self.message(vec![block(&self.text)], MessageUsage::of(&usage))
        };
        Bytes::from(serde_json::to_vec(&message).expect("a message is JSON"))
    }
}

fn block(text: &str) -> TextBlock<'_> {
    TextBlock { kind: "text", text, citations: None }
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
    use surety_types::CivilDate;

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
            Heading { request, created: 1, model, fingerprint, calls: None, prompt_tokens: 5 },
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
