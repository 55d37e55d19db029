//! Calls: the calls of tools within an answer's text.
//!
//! In:     the text as it comes, in pieces of any size; how the model writes calls; which tools there are.
//! Out:    text, and calls, in their order; whichever protocol words them.
//! Touches: nothing.
//! Holds:  what is not a call stays text, byte for byte, whitespace that touches a call apart; a call is of a tool that was
//!         offered, and its arguments are one JSON object, as the model wrote it; the pieces do not depend on how the text was
//!         divided; what is held back is bounded, and the work is linear.
//! Absent: whether arguments are what the tool's schema wants.

use std::{mem, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;
use surety_types::{
    CallFormat,
    request::{MAX_ARGUMENTS_BYTES, MAX_TOOL_CALLS},
};

use crate::id::RequestId;

/// Bytes held back until it is clear whether they are a call, at most; more are text.
const HELD_MAX: usize = MAX_ARGUMENTS_BYTES;
/// Bytes of whitespace before a call that belong to it, at most.
const SPACE_MAX: usize = 64;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// What is said.
    Text(String),
    /// A call of a tool begins.
    Begins { id: String, name: String },
    /// More of the call's arguments: together one JSON object.
    Arguments(String),
    /// The call is whole.
    Ends,
}

impl Piece {
    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Piece::Text(text) | Piece::Arguments(text) => text.len(),
            Piece::Begins { id, name } => id.len() + name.len(),
            Piece::Ends => 0,
        }
    }
}

/// What may be called, and how the calls are written.
#[derive(Debug, Clone)]
pub(crate) struct Callable {
    pub(crate) format: CallFormat,
    pub(crate) names: Arc<[String]>,
    /// Calls in one answer.
    pub(crate) most: usize,
    /// Of which request, and which of its answers.
    pub(crate) request: RequestId,
    pub(crate) answer: usize,
}

/// How calls are set off from text.
struct Marks {
    /// What begins a call anywhere.
    begin: &'static str,
    /// What a call is, by its first byte.
    opener: u8,
    /// What ends it.
    end: Option<&'static str>,
    /// Whether a call needs no mark where the answer begins or another call has ended: the mark is a control token, which has no
    /// place in delivered text.
    bare: bool,
    /// What may stand between two calls.
    between: Option<u8>,
    /// Whether a call may come without arguments.
    bare_name: bool,
}

const fn marks(format: CallFormat) -> Marks {
    match format {
        CallFormat::Hermes => Marks {
            begin: "<tool_call>",
            opener: b'{',
            end: Some("</tool_call>"),
            bare: false,
            between: None,
            bare_name: true,
        },
        CallFormat::Llama => Marks {
            begin: "<|python_tag|>",
            opener: b'{',
            end: None,
            bare: true,
            between: Some(b';'),
            bare_name: false,
        },
        CallFormat::Mistral => Marks {
            begin: "[TOOL_CALLS]",
            opener: b'[',
            end: None,
            bare: true,
            between: None,
            bare_name: false,
        },
    }
}

/// Where the reading stands.
#[derive(Debug)]
enum State {
    /// Where a call needs no mark.
    Start,
    /// In text.
    Text,
    /// Behind a mark.
    Marked,
    /// In what may be a call.
    Inside(Extent),
    /// Behind it, before the mark that ends it.
    Closing,
    /// Behind a call.
    After,
    /// There are no more calls.
    Over,
}

/// Divides one answer's text.
#[derive(Debug)]
pub(crate) struct Calls {
    callable: Callable,
    state: State,
    /// What is not decided yet.
    held: String,
    /// Up to where it was looked at.
    at: usize,
    /// Where in it what may be a call begins and ends.
    extent: std::ops::Range<usize>,
    made: usize,
}

/// A call as models write it.
#[derive(Deserialize)]
struct Written<'a> {
    name: String,
    #[serde(borrow, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

impl Calls {
    pub(crate) fn new(callable: Callable) -> Self {
        let state = if marks(callable.format).bare { State::Start } else { State::Text };
        Self { callable, state, held: String::new(), at: 0, extent: 0..0, made: 0 }
    }

    /// Takes in more text.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces, false) {}
        pieces
    }

    /// The text is whole.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while self.step(&mut pieces, true) {}
        pieces
    }

    /// How many calls there were.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// Bytes held back.
    #[cfg(test)]
    fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Goes one step on; false where more text is needed.
    fn step(&mut self, pieces: &mut Vec<Piece>, whole: bool) -> bool {
        let marks = marks(self.callable.format);
        match &mut self.state {
            State::Over => {
                self.text(pieces, self.held.len());
                false
            }
            State::Text => self.seek(pieces, &marks, whole),
            State::Start => {
                if let Some(more) = self.skip_space(pieces, whole) {
                    return more;
                }
                let rest = &self.held[self.at..];
                if rest.starts_with(marks.begin) {
                    self.at += marks.begin.len();
                    self.state = State::Marked;
                } else if marks.begin.starts_with(rest) && !whole {
                    return false;
                } else if rest.as_bytes()[0] == marks.opener {
                    self.extent.start = self.at;
                    self.state = State::Inside(Extent::default());
                } else {
                    self.text(pieces, self.at);
                    self.state = State::Text;
                }
                true
            }
            State::Marked => {
                if let Some(more) = self.skip_space(pieces, whole) {
                    return more;
                }
                if self.held.as_bytes()[self.at] == marks.opener {
                    self.extent.start = self.at;
                    self.state = State::Inside(Extent::default());
                } else {
                    self.text(pieces, self.at);
                    self.state = State::Text;
                }
                true
            }
            State::Inside(extent) => {
                while let Some(byte) = self.held.as_bytes().get(self.at) {
                    let seen = if self.at < HELD_MAX { extent.next(*byte) } else { Seen::Unfit };
                    match seen {
                        Seen::More => self.at += 1,
                        Seen::End => {
                            self.at += 1;
                            self.extent.end = self.at;
                            self.state = State::Closing;
                            return true;
                        }
                        Seen::Unfit => {
                            self.text(pieces, self.at);
                            self.state = State::Text;
                            return true;
                        }
                    }
                }
                self.wait(pieces, whole)
            }
            State::Closing => {
                let Some(end) = marks.end else {
                    self.conclude(pieces, &marks);
                    return true;
                };
                while matches!(self.held.as_bytes().get(self.at), Some(byte) if is_space(*byte))
                    && self.at < HELD_MAX
                {
                    self.at += 1;
                }
                let rest = &self.held[self.at..];
                if rest.starts_with(end) {
                    self.at += end.len();
                    self.conclude(pieces, &marks);
                } else if !end.starts_with(rest) {
                    self.text(pieces, self.at);
                    self.state = State::Text;
                } else if whole {
                    // An answer may end before the mark is whole: the call is.
                    self.at = self.held.len();
                    self.conclude(pieces, &marks);
                } else {
                    return false;
                }
                true
            }
            State::After => {
                let space = self.held.bytes().take_while(|byte| is_space(*byte)).count();
                self.held.drain(..space);
                if self.held.is_empty() {
                    return false;
                }
                let bytes = self.held.as_bytes();
                self.at = usize::from(marks.between.is_some_and(|between| bytes[0] == between));
                self.state = if marks.bare { State::Start } else { State::Text };
                true
            }
        }
    }

    /// Lets go of all text that cannot be the beginning of a call.
    fn seek(&mut self, pieces: &mut Vec<Piece>, marks: &Marks, whole: bool) -> bool {
        let bytes = self.held.as_bytes();
        let found = self.held.find(marks.begin);
        let begin = match found {
            Some(begin) => begin,
            None if whole => bytes.len(),
            None => {
                let longest = (1..marks.begin.len()).rev();
                let cut = longest.filter(|length| self.held.ends_with(&marks.begin[..*length])).max();
                bytes.len() - cut.unwrap_or(0)
            }
        };
        let space = bytes[..begin].iter().rev().take(SPACE_MAX).take_while(|byte| is_space(**byte)).count();
        match found {
            Some(_) => {
                self.text(pieces, begin - space);
                self.at = space + marks.begin.len();
                self.state = State::Marked;
                true
            }
            None => {
                self.text(pieces, if whole { begin } else { begin - space });
                false
            }
        }
    }

    /// Skips whitespace where a call may begin; if nothing is behind it, whether to go on.
    fn skip_space(&mut self, pieces: &mut Vec<Piece>, whole: bool) -> Option<bool> {
        while let Some(byte) = self.held.as_bytes().get(self.at) {
            if !is_space(*byte) {
                return None;
            }
            if self.at == HELD_MAX {
                self.text(pieces, self.at);
                self.state = State::Text;
                return Some(true);
            }
            self.at += 1;
        }
        Some(self.wait(pieces, whole))
    }

    /// More is needed, and if there is none, what is held is text.
    fn wait(&mut self, pieces: &mut Vec<Piece>, whole: bool) -> bool {
        if whole {
            self.text(pieces, self.held.len());
            self.state = State::Over;
        }
        false
    }

    /// The first so many bytes of what is held are text.
    fn text(&mut self, pieces: &mut Vec<Piece>, bytes: usize) {
        let mut bytes = bytes.min(self.held.len());
        while !self.held.is_char_boundary(bytes) {
            bytes -= 1;
        }
        if bytes > 0 {
            let rest = self.held.split_off(bytes);
            pieces.push(Piece::Text(mem::replace(&mut self.held, rest)));
        }
        self.at = 0;
    }

    /// What was held is a call, or several, or none.
    fn conclude(&mut self, pieces: &mut Vec<Piece>, marks: &Marks) {
        let json = &self.held[self.extent.clone()];
        let calls: Option<Vec<Written<'_>>> = match marks.opener {
            b'[' => serde_json::from_str(json).ok(),
            _ => serde_json::from_str(json).ok().map(|call| vec![call]),
        };
        let calls = calls.filter(|calls| !calls.is_empty() && self.made + calls.len() <= self.callable.most);
        let calls: Option<Vec<(String, String)>> =
            calls.and_then(|calls| calls.into_iter().map(|call| self.known(call, marks)).collect());
        let Some(calls) = calls else {
            self.text(pieces, self.at);
            self.state = State::Text;
            return;
        };
        for (name, arguments) in calls {
            let id = call_id(&self.callable, self.made);
            pieces.extend([Piece::Begins { id, name }, Piece::Arguments(arguments), Piece::Ends]);
            self.made += 1;
        }
        self.held.drain(..self.at);
        self.at = 0;
        let more = self.made < self.callable.most.min(MAX_TOOL_CALLS);
        self.state = if more { State::After } else { State::Over };
    }

    /// The name and arguments of a call of a tool there is.
    fn known(&self, call: Written<'_>, marks: &Marks) -> Option<(String, String)> {
        let arguments = match call.arguments.map(RawValue::get) {
            Some(json) if json.starts_with('{') => json.to_owned(),
            None | Some("null") if marks.bare_name => "{}".to_owned(),
            _ => return None,
        };
        self.callable.names.contains(&call.name).then_some((call.name, arguments))
    }
}

/// The same for the same request, answer and call. Mistral's templates want nine letters or digits.
fn call_id(callable: &Callable, call: usize) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let Callable { request, answer, format, .. } = callable;
    match format {
        CallFormat::Mistral => {
            let place = (answer * MAX_TOOL_CALLS + call) as u128;
            // Three digits for the place, six for the request.
            let mut number = request.bits() % 62_u128.pow(6) * 62_u128.pow(3) + place % 62_u128.pow(3);
            let mut id = [b'0'; 9];
            for digit in id.iter_mut().rev() {
                *digit = DIGITS[(number % 62) as usize];
                number /= 62;
            }
            String::from_utf8_lossy(&id).into_owned()
        }
        CallFormat::Hermes | CallFormat::Llama => {
            format!("call_{:020x}{answer:02x}{call:02x}", request.bits() >> 48)
        }
    }
}

/// JSON's whitespace.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Where an object or list of JSON ends, found byte by byte. Whether it is JSON is seen when it is whole; what can be no part of
/// any ends the search at once.
#[derive(Debug, Default)]
struct Extent {
    depth: usize,
    within: bool,
    escaped: bool,
}

enum Seen {
    More,
    End,
    Unfit,
}

impl Extent {
    fn next(&mut self, byte: u8) -> Seen {
        if self.within {
            match byte {
                0..0x20 => return Seen::Unfit,
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.within = false,
                _ => {}
            }
            return Seen::More;
        }
        match byte {
            b'"' => self.within = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            b',' | b':' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E' => {}
            byte if is_space(byte) => {}
            _ => return Seen::Unfit,
        }
        if self.depth == 0 { Seen::End } else { Seen::More }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [CallFormat; 3] = [CallFormat::Hermes, CallFormat::Llama, CallFormat::Mistral];

    fn callable(format: CallFormat) -> Callable {
        let names = ["weather", "clock"].map(str::to_owned);
        let request = RequestId::parse(&format!("req_{:032x}", 7_u128 << 64 | 9)).expect("an id");
        Callable { format, names: Arc::new(names), most: MAX_TOOL_CALLS, request, answer: 1 }
    }

    /// The pieces of a text that comes in these parts; neighbouring texts are one.
    fn divided<'a>(callable: Callable, parts: impl IntoIterator<Item = &'a str>) -> Vec<Piece> {
        let mut calls = Calls::new(callable);
        let mut pieces: Vec<Piece> = parts.into_iter().flat_map(|part| calls.push(part)).collect();
        pieces.extend(calls.finish());
        assert_eq!(calls.held_bytes(), 0);
        assert_eq!(calls.made(), pieces.iter().filter(|piece| **piece == Piece::Ends).count());
        let mut joined: Vec<Piece> = Vec::new();
        for piece in pieces {
            match (joined.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(more)) => before.push_str(&more),
                (_, piece) => joined.push(piece),
            }
        }
        joined
    }

    /// A text's pieces: texts as they are, calls as `name(arguments)`.
    fn check(format: CallFormat, text: &str, expected: &[&str]) {
        let pieces = divided(callable(format), [text]);
        let mut found: Vec<String> = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Text(text) => found.push(text.clone()),
                Piece::Begins { name, .. } => found.push(format!("{name}(")),
                Piece::Arguments(more) => found.last_mut().expect("a call").push_str(more),
                Piece::Ends => found.last_mut().expect("a call").push(')'),
            }
        }
        assert_eq!(found, expected, "{text}");
        let bytes = text.char_indices().map(|(at, character)| &text[at..at + character.len_utf8()]);
        assert_eq!(divided(callable(format), bytes), pieces, "{text}");
    }

    #[test]
    fn calls_of_hermes_stand_between_marks() {
        let check = |text: &str, expected: &[&str]| check(CallFormat::Hermes, text, expected);
        let call = |arguments: &str| {
            format!("<tool_call>\n{{\"name\": \"weather\", \"arguments\": {arguments}}}\n</tool_call>")
        };
        check("", &[]);
        check("Hello <b>", &["Hello <b>"]);
        check(&call("{\"at\": \"Rome\"}"), &["weather({\"at\": \"Rome\"})"]);
        check(&format!("I look. \n\n{}\n", call("{}")), &["I look.", "weather({})"]);
        check(&format!("{}\n{}", call("{}"), call("{\"a\":[1]}")), &["weather({})", "weather({\"a\":[1]})"]);
        check(&format!("{} and {}", call("{}"), call("{}")), &["weather({})", "and", "weather({})"]);
        // The mark within a text of JSON is no mark.
        let sly = r#"{"a":"</tool_call><tool_call>\" }{"}"#;
        check(&call(sly), &[&format!("weather({sly})")]);
        // Arguments may be left out, and the last mark.
        check("<tool_call>{\"name\":\"clock\"}</tool_call>", &["clock({})"]);
        check("<tool_call>{\"name\":\"clock\",\"parameters\":{}} ", &["clock({})"]);
        check("<tool_call>{\"name\":\"clock\",\"arguments\":{}}</tool", &["clock({})"]);
    }

    #[test]
    fn what_is_no_call_stays_as_it_is() {
        for text in [
            "<tool_call>",
            "  <tool_call> x ",
            "<tool_call>{\"name\":\"nobody\",\"arguments\":{}}</tool_call>",
            "<tool_call>{\"name\":\"weather\",\"arguments\":\"{}\"}</tool_call>",
            "<tool_call>{\"name\":\"weather\",\"arguments\":[]}</tool_call>",
            "<tool_call>{\"name\":\"weather\",\"name\":\"weather\",\"arguments\":{}}</tool_call>",
            "<tool_call>{\"name\":\"weather\",\"arguments\":{}</tool_call>",
            "<tool_call>{\"name\":\"weather\",\"arguments\":{}}</tool_calls>",
            "<tool_call>{\"name\":\"weather\",\"arguments\":{\"a\":1",
            "<tool_call>[{\"name\":\"weather\",\"arguments\":{}}]</tool_call>",
            "<tool_call>{]}</tool_call> \n",
            "{\"name\":\"weather\",\"arguments\":{}}",
        ] {
            check(CallFormat::Hermes, text, &[text]);
        }
        for text in
            ["Hi {\"name\":\"weather\",\"parameters\":{}}", "{\"name\":\"weather\"}", "{\"a\":1}", " ", "; x"]
        {
            check(CallFormat::Llama, text, &[text]);
        }
        for text in [
            "[1, 2]",
            "[]",
            "[TOOL_CALLS] none",
            "[{\"name\":\"weather\",\"arguments\":{}},{\"name\":\"nobody\",\"arguments\":{}}]",
            "See [{\"name\":\"weather\",\"arguments\":{}}]",
        ] {
            check(CallFormat::Mistral, text, &[text]);
        }
        // A broken call does not hide a good one.
        check(
            CallFormat::Hermes,
            "<tool_call>{\"name\": <tool_call>{\"name\":\"clock\"}</tool_call>",
            &["<tool_call>{\"name\": ", "clock({})"],
        );
    }

    #[test]
    fn calls_of_llama_and_mistral_need_no_mark_at_the_beginning() {
        let (llama, mistral) = (CallFormat::Llama, CallFormat::Mistral);
        let call = r#"{"name": "weather", "parameters": {"a": "b"}}"#;
        check(llama, call, &[r#"weather({"a": "b"})"#]);
        check(llama, &format!("\n<|python_tag|>{call}"), &[r#"weather({"a": "b"})"#]);
        check(llama, &format!("{call}; {call}\n"), &[r#"weather({"a": "b"})"#; 2]);
        check(llama, &format!("{call}; then"), &[r#"weather({"a": "b"})"#, "; then"]);
        check(llama, &format!("I call <|python_tag|>{call}"), &["I call", r#"weather({"a": "b"})"#]);
        let list =
            r#"[{"name": "weather", "arguments": {"a": 1}}, {"name": "clock", "arguments": {}, "id": "x"}]"#;
        let both = [r#"weather({"a": 1})"#, "clock({})"];
        check(mistral, list, &both);
        check(mistral, &format!("[TOOL_CALLS] {list}"), &both);
        check(mistral, &format!("Well. [TOOL_CALLS]{list}"), &["Well.", both[0], both[1]]);
    }

    #[test]
    fn no_more_calls_are_made_than_may_be() {
        let call = "<tool_call>{\"name\":\"clock\"}</tool_call>";
        let one = Callable { most: 1, ..callable(CallFormat::Hermes) };
        let pieces = divided(one, [format!("{call}\n{call}").as_str()]);
        assert_eq!(pieces.len(), 4);
        assert_eq!(pieces[3], Piece::Text(format!("\n{call}")));
    }

    #[test]
    fn ids_are_those_of_request_answer_and_place() {
        let id = |format, answer, call| call_id(&Callable { answer, ..callable(format) }, call);
        assert_eq!(id(CallFormat::Hermes, 1, 2), "call_000000000000000700000102");
        assert_eq!(id(CallFormat::Hermes, 1, 2).len(), 29);
        let mistral = id(CallFormat::Mistral, 1, 2);
        assert!(mistral.len() == 9 && mistral.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{mistral}");
        let ids: std::collections::BTreeSet<String> = (0..120)
            .flat_map(|answer| (0..128).map(move |call| id(CallFormat::Mistral, answer, call)))
            .collect();
        assert_eq!(ids.len(), 120 * 128);
    }

    #[test]
    fn what_is_held_is_bounded() {
        for format in FORMATS {
            let marks = marks(format);
            let opening = format!("{}{}\"", marks.begin, char::from(marks.opener));
            let mut calls = Calls::new(callable(format));
            let mut out = calls.push(&opening);
            let long = "é".repeat(4096);
            for _ in 0..300 {
                out.extend(calls.push(&long));
                assert!(calls.held_bytes() <= HELD_MAX + long.len());
            }
            out.extend(calls.finish());
            let text: usize = out
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.len(),
                    _ => panic!("{piece:?}"),
                })
                .sum();
            assert_eq!(text, opening.len() + 300 * long.len());
        }
    }

    proptest! {
        #[test]
        fn any_division_gives_the_same_pieces_and_nothing_is_lost(
            words in prop::collection::vec(prop::sample::select(vec![
                "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "<tool", "[TOOL", "{\"name\":", "\"weather\"",
                ",\"arguments\":", ",\"parameters\":", "{}", "}", "[", "]", "{", ",", ";", " ", "\n", "\"", "\\", "é", "😀", "x",
                "{\"name\":\"weather\",\"arguments\":{\"a\":\"b\"}}", "{\"name\": \"clock\", \"parameters\": {}}",
                "<tool_call>\n{\"name\":\"clock\",\"arguments\":{}}\n</tool_call>",
            ]), 0..24),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            format in prop::sample::select(FORMATS.to_vec()),
        ) {
            let text = words.concat();
            let whole = divided(callable(format), [text.as_str()]);
            let mut at: Vec<usize> =
                cuts.iter().map(|cut| cut.index(text.len() + 1)).filter(|at| text.is_char_boundary(*at)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let parts = at.windows(2).map(|pair| &text[pair[0]..pair[1]]);
            prop_assert_eq!(&divided(callable(format), parts), &whole);

            // Texts are found in the answer in their order, arguments too, and without calls it is all text.
            let mut rest = text.as_str();
            for piece in &whole {
                let (Piece::Text(part) | Piece::Arguments(part)) = piece else { continue };
                let left_out = rest.find(part.as_str()).filter(|_| part != "{}").map(|found| found + part.len());
                prop_assert!(left_out.is_some() || part == "{}", "{part} is not in {text}");
                rest = &rest[left_out.unwrap_or(0)..];
            }
            if whole.iter().all(|piece| matches!(piece, Piece::Text(_))) {
                let said: String =
                    whole.iter().map(|piece| if let Piece::Text(text) = piece { text.as_str() } else { "" }).collect();
                prop_assert_eq!(said, text);
            }
            for piece in &whole {
                if let Piece::Arguments(json) = piece {
                    prop_assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json).is_ok());
                }
            }
        }
    }
}
