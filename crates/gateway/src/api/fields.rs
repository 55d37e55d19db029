//! Fields: a JSON object taken apart one parameter at a time.
//!
//! In:     text from outside, at most the body limit long.
//! Out:    typed values, or an error that names the parameter and says what was found.
//! Touches: nothing.
//! Holds:  memory stays within a small multiple of the text: values are kept as slices of it, and
//!         objects and lists are counted while they are read. Arbitrary text never panics.
//! Absent: what the parameters mean.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::error::{ApiError, Code};

/// Keys one object may have.
const KEYS_MAX: usize = 4096;
/// Characters of a caller's text quoted back in a message.
const QUOTE_CHARACTERS: usize = 64;

/// The members of one JSON object, by name; each is taken at most once.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// Where the object sits, e.g. `messages[2]`; empty for the body itself.
    path: String,
    members: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// Reads a whole request body.
    pub(crate) fn body(text: &'a str) -> Result<Self, ApiError> {
        let parsed: Result<Members<'a>, _> = serde_json::from_str(text);
        match parsed {
            Ok(members) => Ok(Self { path: String::new(), members: members.0 }),
            Err(error) => {
                let what = if error.is_eof() { "ends too early" } else { "cannot be read" };
                let message = format!(
                    "The body is not a JSON object: it {what} at line {}, column {} ({}). \
                     Send one JSON object.",
                    error.line(),
                    error.column(),
                    reason(&error),
                );
                Err(ApiError::new(Code::InvalidJson, message))
            }
        }
    }

    /// Reads an object found at `path`.
    pub(crate) fn object(path: String, raw: &'a RawValue) -> Result<Self, ApiError> {
        let parsed: Members<'a> = parse(&path, raw, "an object")?;
        Ok(Self { path, members: parsed.0 })
    }

    /// The names of the members not yet taken, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// The full name of a member, as messages give it.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The raw text of a member that is present and not null.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.members.remove(name).filter(|raw| raw.get() != "null")
    }

    /// The raw text of a member that is present and not null, which can be taken still.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).copied().filter(|raw| raw.get() != "null")
    }

    /// A string.
    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let path = self.path(name);
        self.take(name).map(|raw| string(&path, raw)).transpose()
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        let path = self.path(name);
        self.take(name).map(|raw| parse(&path, raw, "true or false")).transpose()
    }

    /// A number in `range`.
    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<f32>) -> Result<Option<f32>, ApiError> {
        let path = self.path(name);
        self.take(name).map(|raw| number(&path, raw, range)).transpose()
    }

    /// An integer in `range`.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let path = self.path(name);
        self.take(name).map(|raw| integer(&path, raw, range)).transpose()
    }

    /// An object.
    pub(crate) fn fields(&mut self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        let path = self.path(name);
        self.take(name).map(|raw| Fields::object(path, raw)).transpose()
    }
}

/// A string found at `path`.
pub(crate) fn string(path: &str, raw: &RawValue) -> Result<String, ApiError> {
    parse(path, raw, "a string")
}

/// A number found at `path`, in `range`; negative zero becomes zero.
pub(crate) fn number(path: &str, raw: &RawValue, range: RangeInclusive<f32>) -> Result<f32, ApiError> {
    let text = raw.get();
    let (low, high) = (*range.start(), *range.end());
    // JSON's numbers are a subset of what Rust reads; a first byte that is no digit or sign is another type.
    let value = match text.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => text.parse::<f64>().ok(),
        _ => None,
    };
    let Some(value) = value else {
        return Err(wrong_type(path, raw, &format!("a number from {low} to {high}")));
    };
    if value < f64::from(low) || value > f64::from(high) {
        let message = format!("`{path}` is {}. It must lie between {low} and {high}.", quote(text));
        return Err(ApiError::invalid(path, message));
    }
    Ok(value as f32 + 0.0)
}

/// An integer found at `path`, in `range`.
pub(crate) fn integer(path: &str, raw: &RawValue, range: RangeInclusive<i64>) -> Result<i64, ApiError> {
    let text = raw.get();
    let (low, high) = (*range.start(), *range.end());
    if !matches!(text.as_bytes().first(), Some(b'-' | b'0'..=b'9')) {
        return Err(wrong_type(path, raw, &format!("an integer from {low} to {high}")));
    }
    if text.contains(['.', 'e', 'E']) {
        let message = format!("`{path}` is {}. It must be an integer, without a fraction.", quote(text));
        return Err(ApiError::invalid(path, message));
    }
    match text.parse::<i64>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => {
            let message = format!("`{path}` is {}. It must lie between {low} and {high}.", quote(text));
            Err(ApiError::invalid(path, message))
        }
    }
}

/// The elements of a list found at `path`, at most `max` of them.
pub(crate) fn list<'a>(path: &str, raw: &'a RawValue, max: usize) -> Result<Vec<&'a RawValue>, ApiError> {
    bounded(path, raw, max, Elements { max, keep: &mut |raw: &'a RawValue| Some(raw) })
}

/// The token ids in a list found at `path`, at most `max` of them.
pub(crate) fn token_ids(path: &str, raw: &RawValue, max: usize) -> Result<Vec<u32>, ApiError> {
    let mut keep = |raw: &RawValue| raw.get().parse::<u32>().ok();
    bounded(path, raw, max, Elements { max, keep: &mut keep })
}

/// The first significant byte, which in JSON tells the type.
pub(crate) fn first_byte(raw: &RawValue) -> u8 {
    raw.get().as_bytes().first().copied().unwrap_or(b' ')
}

/// The first element's first byte, if `raw` is a list that has one.
pub(crate) fn first_element_byte(raw: &RawValue) -> Option<u8> {
    let inside = raw.get().strip_prefix('[')?.trim_start_matches([' ', '\t', '\n', '\r']);
    inside.bytes().next().filter(|byte| *byte != b']')
}

/// `raw` is not what was wanted at `path`.
pub(crate) fn wrong_type(path: &str, raw: &RawValue, wanted: &str) -> ApiError {
    let found = match first_byte(raw) {
        b'{' => "an object".to_owned(),
        b'[' => "a list".to_owned(),
        b'"' => format!("the string {}", quote(raw.get())),
        _ => quote(raw.get()),
    };
    ApiError::invalid(path, format!("`{path}` is {found}. It must be {wanted}."))
}

/// Quotes a caller's text in a message: short, on one line.
pub(crate) fn quote(text: &str) -> String {
    let mut characters = text.chars();
    let head = characters.by_ref().take(QUOTE_CHARACTERS);
    let mut quoted: String = head.map(|c| if c.is_control() { ' ' } else { c }).collect();
    if characters.next().is_some() {
        quoted.push('…');
    }
    quoted
}

fn parse<'a, T: Deserialize<'a>>(path: &str, raw: &'a RawValue, wanted: &str) -> Result<T, ApiError> {
    serde_json::from_str(raw.get()).map_err(|error| match error.classify() {
        serde_json::error::Category::Data if !reason(&error).starts_with(OWN) => {
            wrong_type(path, raw, wanted)
        }
        _ => ApiError::invalid(path, format!("`{path}` cannot be read: {}.", reason(&error))),
    })
}

fn bounded<'a, T>(
    path: &str,
    raw: &'a RawValue,
    max: usize,
    elements: Elements<'_, 'a, T>,
) -> Result<Vec<T>, ApiError> {
    if first_byte(raw) != b'[' {
        return Err(wrong_type(path, raw, "a list"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let read = elements.deserialize(&mut deserializer);
    let read = read
        .map_err(|error| ApiError::invalid(path, format!("`{path}` cannot be read: {}.", reason(&error))))?;
    match read {
        Read::Whole(list) => Ok(list),
        Read::TooMany => {
            let message = format!("`{path}` has more than {max} elements. Send at most {max}.");
            Err(ApiError::invalid(path, message))
        }
        Read::Unfit(index) => {
            let path = format!("{path}[{index}]");
            let message =
                format!("`{path}` is not a token id. Token ids are integers from 0 to {}.", u32::MAX);
            Err(ApiError::invalid(path, message))
        }
    }
}

/// How our own complaints begin, to tell them from serde's about types.
const OWN: &str = "the ";

/// serde_json's message without the position it appends.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    quote(&text[..end])
}

/// The members of an object, each key once.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = map.next_value::<&RawValue>()?;
                    if members.len() == KEYS_MAX {
                        return Err(de::Error::custom(format!("{OWN}object has more than {KEYS_MAX} keys")));
                    }
                    if members.contains_key(&name) {
                        let name = quote(&name);
                        return Err(de::Error::custom(format!("{OWN}key \"{name}\" appears twice")));
                    }
                    members.insert(name, value);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object).map(Members)
    }
}

/// A list being read: what to keep of each element, and how many there may be.
struct Elements<'k, 'a, T> {
    max: usize,
    keep: &'k mut dyn FnMut(&'a RawValue) -> Option<T>,
}

/// What reading a list came to.
enum Read<T> {
    Whole(Vec<T>),
    TooMany,
    Unfit(usize),
}

impl<'de, T> DeserializeSeed<'de> for Elements<'_, 'de, T> {
    type Value = Read<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T> Visitor<'de> for Elements<'_, 'de, T> {
    type Value = Read<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Read<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(raw) = sequence.next_element::<&RawValue>()? {
            let fit = if list.len() == self.max { None } else { (self.keep)(raw) };
            let Some(element) = fit else {
                let verdict = if list.len() == self.max { Read::TooMany } else { Read::Unfit(list.len()) };
                while sequence.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(verdict);
            };
            list.push(element);
        }
        Ok(Read::Whole(list))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused<T: fmt::Debug>(result: Result<T, ApiError>) -> (Code, String) {
        let error = result.expect_err("should be refused");
        (error.code(), error.message().to_owned())
    }

    #[test]
    fn a_position_is_given_for_what_is_not_json() {
        let (code, message) = refused(Fields::body("{\"model\": \"m\",\n  \"n\": oops}"));
        assert_eq!(code, Code::InvalidJson);
        assert!(message.contains("line 2, column 8"), "{message}");
        for text in ["", "[]", "3", "{", "{\"a\":1,}", "{\"a\":1,\"a\":2}", "{} {}", "{\"a\":NaN}"] {
            assert_eq!(refused(Fields::body(text)).0, Code::InvalidJson, "{text}");
        }
        assert!(refused(Fields::body("{\"a\":1,\"a\":2}")).1.contains("\"a\" appears twice"));
    }

    #[test]
    fn numbers_are_read_exactly_or_refused_precisely() {
        let mut fields = Fields::body(
            r#"{"a":1.5,"b":3,"c":"3","d":3.0,"e":1e400,"f":-0.0,"g":99999999999999999999,"h":null,"i":true}"#,
        )
        .expect("JSON");
        assert_eq!(fields.number("a", 0.0..=2.0).expect("in range"), Some(1.5));
        assert_eq!(fields.integer("b", 0..=3).expect("in range"), Some(3));
        let (_, message) = refused(fields.integer("c", 0..=3));
        assert_eq!(message, "`c` is the string \"3\". It must be an integer from 0 to 3.");
        assert!(refused(fields.integer("d", 0..=3)).1.contains("without a fraction"));
        assert!(refused(fields.number("e", 0.0..=2.0)).1.contains("between 0 and 2"));
        let zero = fields.number("f", 0.0..=2.0).expect("in range").expect("present");
        assert!(zero == 0.0 && zero.is_sign_positive());
        assert!(refused(fields.integer("g", i64::MIN..=i64::MAX)).1.contains("between"));
        assert_eq!(fields.number("h", 0.0..=2.0).expect("null is absent"), None);
        assert!(refused(fields.number("i", 0.0..=2.0)).1.contains("`i` is true"));
        assert_eq!(fields.names().count(), 0);
    }

    #[test]
    fn lists_are_counted_while_they_are_read() {
        let mut fields = Fields::body(r#"{"a":[1,2,3],"b":[1,-2],"c":[ ],"d":["x"]}"#).expect("JSON");
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| fields.take(name).expect("present"));
        assert_eq!(token_ids("a", a, 3).expect("three"), [1, 2, 3]);
        assert!(refused(token_ids("a", a, 2)).1.contains("more than 2"));
        assert!(refused(token_ids("b", b, 9)).1.contains("`b[1]`"));
        assert_eq!(first_element_byte(c), None);
        assert_eq!(first_element_byte(d), Some(b'"'));
        assert_eq!(list("d", d, 1).expect("one").len(), 1);
    }

    #[test]
    fn depth_is_not_recursion() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(2_000_000), "]".repeat(2_000_000));
        let mut fields = Fields::body(&deep).expect("JSON, however deep");
        let raw = fields.take("a").expect("present");
        assert!(string("a", raw).is_err());
        assert_eq!(list("a", raw, 4).expect("one element").len(), 1);
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_refused_or_read(text in ".{0,200}") {
            let _ = Fields::body(&text);
        }

        #[test]
        fn arbitrary_values_never_panic(text in r#"[\[\]{}",:0-9eE.\-a-z\\u ]{0,60}"#) {
            let body = format!("{{\"v\":{text}}}");
            let Ok(mut fields) = Fields::body(&body) else { return Ok(()) };
            let Some(raw) = fields.take("v") else { return Ok(()) };
            let _ = string("v", raw);
            let _ = number("v", raw, -2.0..=2.0);
            let _ = integer("v", raw, i64::MIN..=i64::MAX);
            let _ = list("v", raw, 8);
            let _ = token_ids("v", raw, 8);
            let _ = Fields::object("v".to_owned(), raw);
        }
    }
}
