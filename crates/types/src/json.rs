//! JSON within a request: tools and the arguments of calls, as chat templates are given them.
//!
//! In:     a text from a stranger.
//! Out:    its parts in order, or why it is not such JSON.
//! Touches: nothing.
//! Holds:  R-4.7: one object of RFC 8259 without whitespace between its parts; depth, integers and floats within what templates
//!         compute with; reading takes no more memory than the text. Arbitrary text never panics.
//! Absent: what the parts mean; writing JSON.

/// How deep objects and lists nest, at most.
pub const MAX_JSON_DEPTH: usize = 64;

/// A part of a JSON text.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// `{`
    ObjectBegins,
    /// A member's name; its value follows.
    Name(String),
    /// `}`
    ObjectEnds,
    /// `[`
    ListBegins,
    /// `]`
    ListEnds,
    /// A string.
    Text(String),
    /// A number without fraction and exponent.
    Integer(i64),
    /// Any other number: finite, the nearest binary64.
    Float(f64),
    /// `true` or `false`.
    Truth(bool),
    /// `null`
    Null,
}

/// Why a text is not JSON as requests hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not JSON as requests hold it: {problem} at byte {at}")]
pub struct JsonError {
    /// What is wrong.
    pub problem: &'static str,
    /// Where.
    pub at: usize,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The one value of the text.
    Whole,
    /// The first member's name, or the end of the object.
    FirstName,
    /// The value of a member.
    Value,
    /// A comma and a name, or the end of the object.
    MoreNames,
    /// The first item, or the end of the list.
    FirstItem,
    /// A comma and an item, or the end of the list.
    MoreItems,
}

/// Reads a JSON text part by part.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// What is due within each object and list that is open, the innermost last.
    open: Vec<Due>,
    begun: bool,
}

/// Whether a text is one JSON object as requests hold it (R-4.7).
///
/// # Errors
/// `JsonError` if it is not.
pub fn check(text: &str) -> Result<(), JsonError> {
    if !text.starts_with('{') {
        return Err(JsonError { problem: "no object", at: 0 });
    }
    let mut reader = Reader::new(text);
    while reader.next_part()?.is_some() {}
    Ok(())
}

impl<'a> Reader<'a> {
    /// Reads `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, open: Vec::new(), begun: false }
    }

    /// The next part; none at the end of the text.
    ///
    /// # Errors
    /// `JsonError` where the text is not JSON.
    pub fn next_part(&mut self) -> Result<Option<Part>, JsonError> {
        let due = match self.open.last() {
            Some(due) => *due,
            None if !self.begun => Due::Whole,
            None if self.at == self.text.len() => return Ok(None),
            None => return self.wrong("more behind the end"),
        };
        self.begun = true;
        match (due, self.peek()) {
            (Due::FirstName | Due::MoreNames, Some(b'}')) => self.close(Part::ObjectEnds),
            (Due::FirstItem | Due::MoreItems, Some(b']')) => self.close(Part::ListEnds),
            (Due::FirstName, _) => self.name(),
            (Due::MoreNames, Some(b',')) => {
                self.at += 1;
                self.name()
            }
            (Due::MoreItems, Some(b',')) => {
                self.at += 1;
                self.value(Due::MoreItems)
            }
            (Due::FirstItem, _) => self.value(Due::MoreItems),
            (Due::Value, _) => self.value(Due::MoreNames),
            (Due::Whole, _) => self.value(Due::Whole),
            (Due::MoreNames | Due::MoreItems, _) => self.wrong("neither a comma nor an end"),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong<T>(&self, problem: &'static str) -> Result<T, JsonError> {
        Err(JsonError { problem, at: self.at })
    }

    fn then(&mut self, due: Due) {
        if let Some(last) = self.open.last_mut() {
            *last = due;
        }
    }

    fn close(&mut self, part: Part) -> Result<Option<Part>, JsonError> {
        self.at += 1;
        self.open.pop();
        Ok(Some(part))
    }

    fn name(&mut self) -> Result<Option<Part>, JsonError> {
        let name = self.string()?;
        if self.peek() != Some(b':') {
            return self.wrong("no colon behind a name");
        }
        self.at += 1;
        self.then(Due::Value);
        Ok(Some(Part::Name(name)))
    }

    /// A value, behind which `due` is due.
    fn value(&mut self, due: Due) -> Result<Option<Part>, JsonError> {
        self.then(due);
        let opening = match self.peek() {
            Some(b'{') => Some((Due::FirstName, Part::ObjectBegins)),
            Some(b'[') => Some((Due::FirstItem, Part::ListBegins)),
            _ => None,
        };
        if let Some((due, part)) = opening {
            if self.open.len() == MAX_JSON_DEPTH {
                return self.wrong("too many levels");
            }
            self.at += 1;
            self.open.push(due);
            return Ok(Some(part));
        }
        let part = match self.peek() {
            Some(b'"') => Part::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => {
                let words =
                    [("true", Part::Truth(true)), ("false", Part::Truth(false)), ("null", Part::Null)];
                let rest = &self.text[self.at..];
                let Some((word, part)) = words.into_iter().find(|(word, _)| rest.starts_with(word)) else {
                    return self.wrong("no value");
                };
                self.at += word.len();
                part
            }
        };
        Ok(Some(part))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == from { self.wrong("no digit") } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Part, JsonError> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let whole = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = &self.text[from..self.at];
        if self.at == whole {
            match text.parse::<i64>() {
                Ok(value) if value != i64::MIN => Ok(Part::Integer(value)),
                _ => self.wrong("an integer beyond 64 bits"),
            }
        } else {
            match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Part::Float(value)),
                _ => self.wrong("a number that is not finite"),
            }
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        if self.peek() != Some(b'"') {
            return self.wrong("no string");
        }
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = &self.text[self.at..];
            let special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
            let Some(plain) = rest.bytes().position(special) else {
                return self.wrong("a string without an end");
            };
            string.push_str(&rest[..plain]);
            self.at += plain;
            match rest.as_bytes()[plain] {
                b'"' => {
                    self.at += 1;
                    return Ok(string);
                }
                b'\\' => {
                    self.at += 1;
                    string.push(self.escaped()?);
                }
                _ => return self.wrong("a control character in a string"),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, JsonError> {
        let plain = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let first = self.unit()?;
                let mut units = vec![first];
                if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    units.push(self.unit()?);
                }
                return match char::decode_utf16(units).collect::<Result<String, _>>() {
                    Ok(text) => Ok(text.chars().next().unwrap_or_default()),
                    Err(_) => self.wrong("half a character"),
                };
            }
            _ => return self.wrong("an unknown escape"),
        };
        self.at += 1;
        Ok(plain)
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Result<u16, JsonError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let unit = digits
            .iter()
            .try_fold(0, |unit: u32, byte| char::from(*byte).to_digit(16).map(|digit| unit << 4 | digit));
        match unit {
            Some(unit) if digits.len() == 4 => {
                self.at += 4;
                Ok(unit as u16)
            }
            _ => self.wrong("an unknown escape"),
        }
    }
}

/// The same JSON without whitespace between its parts. What is no JSON is no better for it.
pub fn compact(text: &str) -> String {
    let mut compact = String::with_capacity(text.len());
    let (mut inside, mut escaped) = (false, false);
    for character in text.chars() {
        if inside {
            (inside, escaped) = (escaped || character != '"', !escaped && character == '\\');
        } else if matches!(character, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            inside = character == '"';
        }
        compact.push(character);
    }
    compact
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_come_in_order() {
        let mut reader = Reader::new(r#"{"a":[1,-0,2.5e1,"\u00e9\ud83d\ude00\n"],"b":{},"c":[true,null]}"#);
        let mut parts = Vec::new();
        while let Some(part) = reader.next_part().expect("JSON") {
            parts.push(part);
        }
        let name = |name: &str| Part::Name(name.to_owned());
        let expected = [
            Part::ObjectBegins,
            name("a"),
            Part::ListBegins,
            Part::Integer(1),
            Part::Integer(0),
            Part::Float(25.0),
            Part::Text("é😀\n".to_owned()),
            Part::ListEnds,
            name("b"),
            Part::ObjectBegins,
            Part::ObjectEnds,
            name("c"),
            Part::ListBegins,
            Part::Truth(true),
            Part::Null,
            Part::ListEnds,
            Part::ObjectEnds,
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn anything_else_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(MAX_JSON_DEPTH), "]".repeat(MAX_JSON_DEPTH));
        let just = format!("{{\"a\":{}{}}}", "[".repeat(MAX_JSON_DEPTH - 1), "]".repeat(MAX_JSON_DEPTH - 1));
        assert_eq!(check(&just), Ok(()));
        for text in [
            "",
            "1",
            "[]",
            "{",
            "{ }",
            "{}{}",
            "{} ",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e}"#,
            r#"{"a":+1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1e999}"#,
            r#"{"a":9223372036854775808}"#,
            r#"{"a":-9223372036854775808}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\ud800\u0041"}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u00g0"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":"x}"#,
            &deep,
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whitespace_is_taken_out_between_parts_only() {
        assert_eq!(compact("{ \"a b\" :\n[1, \" \\\" \" , \"\\\\\" ]\t}"), r#"{"a b":[1," \" ","\\"]}"#);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_serde_json_reads(text in r#"[\[\]{}",:0-9eE.\-a-z\\u é]{0,60}"#) {
            let ours = check(&compact(&text));
            let theirs: Result<serde_json::Value, _> = serde_json::from_str(&text);
            match (ours, theirs) {
                (Ok(()), theirs) => prop_assert!(theirs.is_ok_and(|value| value.is_object()), "{text}"),
                // Whatever else is refused is no object, or holds a number beyond what templates compute with.
                (Err(_), Ok(value)) => {
                    prop_assert!(!value.is_object() || text.bytes().any(|byte| byte.is_ascii_digit()), "{text}");
                }
                (Err(_), Err(_)) => {}
            }
        }

        #[test]
        fn arbitrary_text_is_refused_or_read(text in ".{0,200}") {
            let _ = check(&text);
        }
    }
}
