//! JSON as a grammar needs it: members in order, numbers as they are written.
//!
//! In:     text from anyone.
//! Out:    a value, or where it stops being JSON.
//! Holds:  nesting is bounded; of one name an object has one member; what is written again is the same value in one form.
//! Absent: numbers as numbers: nothing is computed with them.

use std::fmt::Write as _;

/// Arrays and objects within each other, at most.
const DEPTH_MAX: usize = 64;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    String(String),
    Array(Vec<Json>),
    /// In order.
    Object(Vec<(String, Json)>),
}

/// Where text stops being JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {problem}")]
pub struct JsonError {
    /// The byte.
    pub at: usize,
    /// What is wrong there.
    pub problem: &'static str,
}

impl Json {
    /// The value that a text is.
    pub(crate) fn parse(text: &str) -> Result<Json, JsonError> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        parser.space();
        if parser.at < text.len() { Err(parser.fault("more after the value")) } else { Ok(value) }
    }

    /// The one compact form of a value.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Json::Number(number) => out.push_str(number),
            Json::String(string) => write_string(string, out),
            Json::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    write_string(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// The compact form as a string.
    pub(crate) fn written(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// A member of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(own, _)| own == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A whole number that is not negative and small.
    pub(crate) fn count(&self) -> Option<usize> {
        match self {
            Json::Number(number) if number.len() <= 6 => number.parse().ok(),
            _ => None,
        }
    }
}

/// A string with the shortest escapes: of `"`, `\` and what is under U+0020.
pub(crate) fn write_string(string: &str, out: &mut String) {
    out.push('"');
    for character in string.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                write!(out, "\\u{:04x}", control as u32).expect("strings take everything")
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn fault(&self, problem: &'static str) -> JsonError {
        JsonError { at: self.at, problem }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), JsonError> {
        if self.take(byte) { Ok(()) } else { Err(self.fault(problem)) }
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > DEPTH_MAX {
            return Err(self.fault("nested too deep"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => {
                self.at += 1;
                let mut items = Vec::new();
                self.space();
                if self.take(b']') {
                    return Ok(Json::Array(items));
                }
                loop {
                    items.push(self.value(depth + 1)?);
                    self.space();
                    if self.take(b']') {
                        return Ok(Json::Array(items));
                    }
                    self.expect(b',', "`,` or `]` expected")?;
                }
            }
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))];
                for (word, value) in words {
                    if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.fault("a value expected"))
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        self.space();
        if self.take(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.fault("a member's name expected"));
            }
            let name = self.string()?;
            if !names.insert(name.clone()) {
                return Err(self.fault("a second member of the same name"));
            }
            self.space();
            self.expect(b':', "`:` expected")?;
            members.push((name, self.value(depth + 1)?));
            self.space();
            if self.take(b'}') {
                return Ok(Json::Object(members));
            }
            self.expect(b',', "`,` or `}` expected")?;
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let first = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == first { Err(self.fault("a digit expected")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let first = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Json::Number(self.text[first..self.at].to_owned()))
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let Some(character) = self.text[self.at..].chars().next() else {
                return Err(self.fault("a string without an end"));
            };
            match character {
                '"' => {
                    self.at += 1;
                    return Ok(string);
                }
                '\\' => {
                    self.at += 1;
                    string.push(self.escape()?);
                }
                control if control < ' ' => return Err(self.fault("a control character in a string")),
                other => {
                    self.at += other.len_utf8();
                    string.push(other);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let escape = self.peek();
        self.at += usize::from(escape.is_some());
        Ok(match escape {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let high = self.unit()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high).ok_or(self.fault("half of a character"));
                }
                if !(self.take(b'\\') && self.take(b'u')) {
                    return Err(self.fault("half of a character"));
                }
                let low = self.unit()?;
                let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400);
                let low = low.ok_or(self.fault("half of a character"))?;
                let whole = 0x10000 + ((high - 0xd800) << 10) + low;
                char::from_u32(whole).ok_or(self.fault("half of a character"))?
            }
            _ => return Err(self.fault("no escape")),
        })
    }

    fn unit(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = 16 * unit + digit.ok_or(self.fault("four hexadecimal digits expected"))?;
            self.at += 1;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<&str, usize>) {
        let found = Json::parse(text).map(|value| value.written()).map_err(|error| error.at);
        assert_eq!(found, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn values_are_written_in_one_form() {
        check(
            " {\"b\" : [ 1.50e+3 , -0 ], \"a\":\"\\u00e9\\n\\/\" } ",
            Ok(r#"{"b":[1.50e+3,-0],"a":"é\n/"}"#),
        );
        check("\"\\ud83e\\udd99\"", Ok("\"🦙\""));
        check("[true,false,null,{},[]]", Ok("[true,false,null,{},[]]"));
        check("{\"a\":1,\"a\":2}", Err(10));
        check("\"\\ud83e\"", Err(7));
        check("01", Err(1));
        check("[1,]", Err(3));
        check("\"a", Err(2));
        check("", Err(0));
        check(&"[".repeat(1000), Err(65));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_parser_that_everyone_uses(text in r#"[\[\]{}:,"\\untrfalse0-9.eE+ \-a-fé]{0,40}"#) {
            if let Ok(ours) = Json::parse(&text) {
                let theirs: serde_json::Value = serde_json::from_str(&text).expect("theirs takes it too");
                let again: serde_json::Value = serde_json::from_str(&ours.written()).expect("what is written is JSON");
                prop_assert_eq!(theirs, again);
                prop_assert_eq!(Json::parse(&ours.written()).expect("it is JSON"), ours);
            }
        }
    }
}
