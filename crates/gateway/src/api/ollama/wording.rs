//! Wording of Ollama's answers: what a worker says, as lines of JSON.
//!
//! In:     pieces of one answer, as they come. Out: lines, or one object.
//! Touches: the clock, to say what took how long.
//! Holds:  the texts of the lines, put together, are the document's; a stream ends with a line whose `done` is true, or
//!         with one that has an `error`. Between the lines there is nothing: their readers would take it for one.
//! Absent: sending them (`generate`).

use std::{
    mem,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::value::RawValue;
use surety_types::{TokenLogprob, json};

use super::shapes::{
    OllamaCall, OllamaChat, OllamaFunction, OllamaGeneration, OllamaMessage, OllamaRest, OllamaTook,
};
use crate::{
    api::{
        ask::Ask,
        calls::{Calls, Piece},
        dialect,
        reply::{chat_logprob, scored_bytes},
        shapes::{ChatTokenLogprob, SuretyNote, Usage},
        time::rfc3339_nanoseconds,
        wording::{self, Heading, Wording},
    },
    error::ApiError,
    id::RequestId,
};

/// What a stream's `content-type` says.
pub(super) const LINES: &str = "application/x-ndjson";

/// One answer under construction.
#[derive(Debug)]
pub(crate) struct OllamaWording {
    request: RequestId,
    model: String,
    chat: bool,
    wants_logprobs: bool,
    text: String,
    /// Where tools may be called: what finds the calls, those that were not told yet, and how many were told.
    calls: Option<Calls>,
    called: Vec<OllamaCall>,
    told: u32,
    logprobs: Vec<ChatTokenLogprob>,
    scored_bytes: usize,
    /// When the request came, when a worker had accepted it, and when the first of the answer was there.
    began: Instant,
    accepted: Instant,
    spoke: Option<Instant>,
}

/// How an answer is to be worded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) chat: bool,
    pub(crate) logprobs: bool,
    pub(crate) began: Instant,
}

impl OllamaWording {
    /// Once a worker has accepted.
    pub(crate) fn new(heading: &Heading, ask: &Ask, manner: Manner) -> Self {
        Self {
            request: heading.request,
            model: ask.model.clone(),
            chat: manner.chat,
            wants_logprobs: manner.logprobs,
            text: String::new(),
            calls: wording::callable(heading, ask).map(Calls::new),
            called: Vec::new(),
            told: 0,
            logprobs: Vec::new(),
            scored_bytes: 0,
            began: manner.began,
            accepted: Instant::now(),
            spoke: None,
        }
    }

    fn took(&self, usage: &Usage) -> OllamaTook {
        let now = Instant::now();
        let spoke = self.spoke.unwrap_or(now);
        OllamaTook {
            total_duration: nanoseconds(now - self.began),
            load_duration: nanoseconds(self.accepted.saturating_duration_since(self.began)),
            prompt_eval_count: usage.prompt_tokens,
            prompt_eval_duration: nanoseconds(spoke.saturating_duration_since(self.accepted)),
            eval_count: usage.completion_tokens,
            eval_duration: nanoseconds(now - spoke),
        }
    }

    /// What has come and was not told, as an object.
    fn object(&mut self, rest: OllamaRest) -> Vec<u8> {
        let text = mem::take(&mut self.text);
        let rest = OllamaRest { logprobs: mem::take(&mut self.logprobs), ..rest };
        self.scored_bytes = 0;
        let called = mem::take(&mut self.called);
        self.told += called.len() as u32;
        object(&self.model, self.chat, &text, called, rest)
    }

    /// Takes in what is known of the answer.
    fn take(&mut self, pieces: Vec<Piece>) {
        let mut begun = None;
        for piece in pieces {
            match piece {
                Piece::Text(more) => self.text.push_str(&more),
                Piece::Begins { id, name } => begun = Some((id, name)),
                Piece::Arguments(arguments) => {
                    // A line has no line breaks in it.
                    let arguments = RawValue::from_string(json::compact(&arguments)).ok();
                    let Some(((id, name), arguments)) = begun.take().zip(arguments) else { continue };
                    let index = self.told + self.called.len() as u32;
                    self.called.push(OllamaCall { id, function: OllamaFunction { index, name, arguments } });
                }
                Piece::Ends => {}
            }
        }
    }

    /// The text is whole.
    fn end(&mut self) {
        if let Some(calls) = &mut self.calls {
            let pieces = calls.finish();
            self.take(pieces);
        }
    }

    fn line(&mut self, rest: OllamaRest) -> Vec<u8> {
        let mut line = self.object(rest);
        line.push(b'\n');
        line
    }
}

/// An answer, or a piece of one.
pub(super) fn object(
    model: &str,
    chat: bool,
    text: &str,
    tool_calls: Vec<OllamaCall>,
    rest: OllamaRest,
) -> Vec<u8> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_at = rfc3339_nanoseconds(since.as_nanos());
    let json = if chat {
        let message = OllamaMessage { role: "assistant", content: text, tool_calls };
        serde_json::to_vec(&OllamaChat { model, created_at, message, rest })
    } else {
        serde_json::to_vec(&OllamaGeneration { model, created_at, response: text, rest })
    };
    json.expect("an answer is JSON")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Wording for OllamaWording {
    fn prompt(&mut self, _index: usize, _logprobs: &[TokenLogprob], _first: usize) {}

    fn output(&mut self, _index: usize, text: &str, logprobs: &[TokenLogprob]) {
        self.spoke.get_or_insert_with(Instant::now);
        match &mut self.calls {
            Some(calls) => {
                let pieces = calls.push(text);
                self.take(pieces);
            }
            None => self.text.push_str(text),
        }
        if self.wants_logprobs {
            self.scored_bytes += logprobs.iter().map(scored_bytes).sum::<usize>();
            self.logprobs.extend(logprobs.iter().map(chat_logprob));
        }
    }

    fn news(&self) -> Option<usize> {
        (!self.text.is_empty() || !self.called.is_empty() || !self.logprobs.is_empty()).then_some(0)
    }

    fn pending_bytes(&self) -> usize {
        let call = |call: &OllamaCall| call.function.arguments.get().len() + call.function.name.len();
        self.text.len() + self.called.iter().map(call).sum::<usize>() + self.scored_bytes
    }

    fn events(&mut self, index: usize) -> Option<Bytes> {
        (self.news() == Some(index)).then(|| Bytes::from(self.line(OllamaRest::default())))
    }

    fn finish(&mut self, index: usize, reason: &'static str, end: Option<(Usage, SuretyNote)>) -> Bytes {
        self.end();
        let mut lines = self.events(index).map_or_else(Vec::new, Vec::from);
        let (usage, surety) = end.unzip();
        let took = usage.map(|usage| self.took(&usage));
        let last =
            OllamaRest { done: true, done_reason: Some(reason), took, surety, ..OllamaRest::default() };
        lines.extend(self.line(last));
        Bytes::from(lines)
    }

    fn failed(&self, failure: &ApiError) -> Bytes {
        dialect::ollama_line(failure, &self.request)
    }

    fn document(mut self: Box<Self>, reasons: &[&'static str], usage: Usage, note: SuretyNote) -> Bytes {
        self.end();
        let took = Some(self.took(&usage));
        let done_reason = reasons.first().copied();
        let rest = OllamaRest { done: true, done_reason, took, surety: Some(note), ..OllamaRest::default() };
        Bytes::from(self.object(rest))
    }

    fn content_type(&self) -> &'static str {
        LINES
    }

    fn keep_alive(&self) -> Bytes {
        Bytes::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use surety_types::{Alternative, CallFormat, CivilDate};

    use super::*;
    use crate::api::{
        ask::Form,
        ollama::read::{Asked, read},
        parameters::Route,
    };

    fn wording(more: &str, route: Route) -> Box<OllamaWording> {
        let subject = match route {
            Route::OllamaChat => r#""messages":[{"role":"user","content":"x"}]"#,
            _ => r#""prompt":"x""#,
        };
        let body = format!(r#"{{"model":"m",{subject}{more}}}"#);
        let began = Instant::now() - Duration::from_millis(5);
        let read =
            read(&body, route, CivilDate { year: 2026, month: 1, day: 1 }, began).expect("a good body");
        let Asked::Answer(ask) = read else { panic!("nothing is asked") };
        let request = RequestId::parse(&format!("req_{:032x}", 7)).expect("an id");
        let (model, fingerprint) = ("m".to_owned(), "fp_1".to_owned());
        let heading = Heading {
            request,
            created: 1,
            model,
            fingerprint,
            calls: Some(CallFormat::Hermes),
            prompt_tokens: 5,
        };
        let Form::Ollama { chat, logprobs, began } = ask.form else { panic!("another form") };
        Box::new(OllamaWording::new(&heading, &ask, Manner { chat, logprobs: logprobs.is_some(), began }))
    }

    fn lines(bytes: &[u8]) -> Vec<Value> {
        let text = str::from_utf8(bytes).expect("UTF-8");
        assert!(text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn usage() -> Usage {
        Usage { prompt_tokens: 5, completion_tokens: 3, ..Usage::default() }
    }

    #[test]
    fn a_stream_is_lines_and_the_last_says_what_it_took() {
        let mut wording = wording("", Route::OllamaChat);
        assert_eq!((wording.news(), wording.keep_alive().len()), (None, 0));
        wording.output(0, "hel", &[]);
        let first = lines(&wording.events(0).expect("news"));
        assert_eq!(first.len(), 1);
        assert_eq!(first[0]["message"], json!({"role": "assistant", "content": "hel"}));
        assert_eq!((&first[0]["done"], first[0].get("done_reason")), (&json!(false), None));
        assert_eq!(wording.events(0), None);
        wording.output(0, "lo", &[]);
        let last = lines(&wording.finish(0, "stop", Some((usage(), SuretyNote::default()))));
        assert_eq!(last[0]["message"]["content"], "lo");
        assert_eq!((&last[1]["message"]["content"], &last[1]["done"]), (&json!(""), &json!(true)));
        assert_eq!(
            (&last[1]["done_reason"], &last[1]["prompt_eval_count"], &last[1]["eval_count"]),
            (&json!("stop"), &json!(5), &json!(3))
        );
        let time = |name: &str| last[1][name].as_u64().expect("nanoseconds");
        assert!(time("load_duration") >= 5_000_000);
        let parts = time("load_duration") + time("prompt_eval_duration") + time("eval_duration");
        assert_eq!(time("total_duration"), parts);
    }

    #[test]
    fn a_generation_is_one_object() {
        let mut wording = wording(r#","logprobs":true,"top_logprobs":1"#, Route::OllamaGenerate);
        let top = vec![Alternative { token: 2, bytes: b"z".to_vec(), logprob: -3.0 }];
        wording.output(0, "hi", &[TokenLogprob { token: 1, bytes: b"hi".to_vec(), logprob: -0.5, top }]);
        let document = wording.document(&["length"], usage(), SuretyNote::default());
        let document: Value = serde_json::from_slice(&document).expect("JSON");
        assert_eq!((&document["response"], &document["done_reason"]), (&json!("hi"), &json!("length")));
        assert_eq!(document["logprobs"][0]["top_logprobs"][0]["token"], "z");
        assert!(document["created_at"].as_str().expect("a time").ends_with('Z'));
    }

    #[test]
    fn a_call_is_told_whole_and_on_one_line() {
        const TOOLS: &str = r#","tools":[{"type":"function","function":{"name":"f"}}]"#;
        let text = "Hm.\n<tool_call>{\"name\":\"f\",\"arguments\":{\n\"a\": \"b c\"}}</tool_call>\n<tool_call>{\"name\":\"f\"}</tool_call>";
        let mut told = Vec::new();
        let mut stream = wording(TOOLS, Route::OllamaChat);
        for at in 0..text.len() {
            stream.output(0, &text[at..=at], &[]);
            told.extend(stream.events(0).iter().flat_map(|line| lines(line)));
        }
        told.extend(lines(&stream.finish(0, "stop", Some((usage(), SuretyNote::default())))));
        let calls: Vec<Value> = told
            .iter()
            .flat_map(|line| line["message"]["tool_calls"].as_array().cloned().unwrap_or_default())
            .collect();
        let said: String =
            told.iter().map(|line| line["message"]["content"].as_str().expect("a text")).collect();
        assert_eq!(said, "Hm.");
        let functions: Vec<&Value> = calls.iter().map(|call| &call["function"]).collect();
        assert_eq!(
            json!(functions),
            json!([{"index": 0, "name": "f", "arguments": {"a": "b c"}}, {"index": 1, "name": "f", "arguments": {}}])
        );
        let mut whole = wording(TOOLS, Route::OllamaChat);
        whole.output(0, text, &[]);
        let whole = whole.document(&["stop"], usage(), SuretyNote::default());
        let whole: Value = serde_json::from_slice(&whole).expect("JSON");
        assert_eq!(
            (&whole["message"]["content"], &whole["message"]["tool_calls"]),
            (&json!("Hm."), &json!(calls))
        );
    }

    #[test]
    fn a_failure_is_a_line() {
        let failure = ApiError::new(crate::error::Code::WorkerLost, "It is gone.");
        let line = lines(&wording("", Route::OllamaChat).failed(&failure));
        assert!(line[0]["error"].as_str().expect("a text").starts_with("It is gone."));
        assert_eq!(line[0]["code"], "worker_lost");
    }
}
