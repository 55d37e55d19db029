//! `response_format`: what an answer must keep to, as a grammar that its worker applies to every token.
//!
//! In:     the parameter, as OpenAI has it, or Ollama's `format`.
//! Out:    the grammar that request and order carry (`docs/spec/grammar.md`), or an error that names the keyword and its place.
//! Touches: nothing.
//! Holds:  a schema is applied whole or refused by name; `strict` changes nothing, since what is applied is always strict.
//! Absent: the automaton (`surety_grammar`); applying it (the worker).

use surety_grammar::{GRAMMAR_BYTES_MAX, GrammarError, json_object, json_schema};

use super::fields::{self, Fields};
use super::parameters as table;
use crate::error::{ApiError, Code};

/// Bytes of a format's name, at most.
const NAME_BYTES_MAX: usize = 64;
/// Where a schema stands in a body.
const SCHEMA: &str = "response_format.json_schema.schema";

/// The grammar that a body asks for, if it asks for one.
pub(super) fn response_format(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(mut format) = fields.fields("response_format")? else { return Ok(None) };
    let grammar = match format.string("type")?.as_deref() {
        Some("text") => None,
        Some("json_object") => Some(json_object()),
        Some("json_schema") => {
            let Some(mut named) = format.fields("json_schema")? else {
                let message = "`response_format.json_schema` is missing. It has `name` and `schema`.";
                return Err(ApiError::invalid("response_format.json_schema", message));
            };
            Some(schema(&mut named)?)
        }
        _ => {
            let message = "`response_format.type` is one of `text`, `json_object` and `json_schema`.";
            return Err(ApiError::invalid("response_format.type", message));
        }
    };
    table::nothing_left(&format, &["type", "json_schema"])?;
    Ok(grammar)
}

fn schema(named: &mut Fields<'_>) -> Result<String, ApiError> {
    const NAME: &str = "response_format.json_schema.name";
    let name = named.string("name")?.unwrap_or_default();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(known) {
        let message = format!("`{NAME}` is 1 to {NAME_BYTES_MAX} letters, digits, `_` and `-`.");
        return Err(ApiError::invalid(NAME, message));
    }
    named.string("description")?;
    named.boolean("strict")?;
    let Some(raw) = named.take("schema") else {
        return Err(ApiError::invalid(SCHEMA, format!("`{SCHEMA}` is missing: a JSON Schema.")));
    };
    table::nothing_left(named, &["name", "description", "strict", "schema"])?;
    json_schema(raw.get()).map_err(|error| refused(SCHEMA, &error))
}

/// The grammar that Ollama's `format` asks for: "json", or a schema.
pub(super) fn format(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    const FORMAT: &str = "format";
    match fields.take(FORMAT) {
        // What clients send for what their callers left out.
        Some(raw) if matches!(raw.get(), "\"\"" | "{}") => Ok(None),
        None => Ok(None),
        Some(raw) if fields::first_byte(raw) == b'{' => {
            json_schema(raw.get()).map(Some).map_err(|error| refused(FORMAT, &error))
        }
        Some(raw) if raw.get() == "\"json\"" => Ok(Some(json_object())),
        Some(raw) => Err(fields::wrong_type(FORMAT, raw, "\"json\" or a JSON Schema, which is an object")),
    }
}

/// A refusal that says what to do instead.
fn refused(place: &str, error: &GrammarError) -> ApiError {
    let message = match error {
        GrammarError::Unsupported { .. } => {
            format!(
                "`{place}`: {error}. Leave it out: every answer meets what is left, and the rest can be checked after."
            )
        }
        GrammarError::TooLong { .. } | GrammarError::TooLarge { .. } => {
            format!(
                "`{place}`: {error}. Use fewer or smaller bounds; a schema takes {GRAMMAR_BYTES_MAX} bytes at most."
            )
        }
        GrammarError::Json(json) => format!("`{place}` cannot be read, {json}."),
        _ => format!("`{place}`: {error}."),
    };
    let code = match error {
        GrammarError::Unsupported { .. } => Code::UnsupportedParameter,
        _ => Code::InvalidParam,
    };
    ApiError::new(code, message).with_param(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str) -> Result<Option<String>, (Code, String, String)> {
        let body = format!(r#"{{"response_format":{format}}}"#);
        let mut fields = Fields::body(&body).expect("an object");
        response_format(&mut fields).map_err(|error| {
            (error.code(), error.param().unwrap_or_default().to_owned(), error.message().to_owned())
        })
    }

    #[test]
    fn formats_become_grammars() {
        assert_eq!(read(r#"{"type":"text"}"#), Ok(None));
        assert_eq!(read("null"), Ok(None));
        assert_eq!(read(r#"{"type":"json_object"}"#), Ok(Some(json_object())));
        for strict in ["", r#","strict":true"#, r#","strict":false,"description":"x""#, r#","strict":null"#] {
            let format = format!(
                r#"{{"type":"json_schema","json_schema":{{"name":"a-b_1","schema":{{"type": "null"}}{strict}}}}}"#
            );
            assert_eq!(read(&format), Ok(Some(json_schema(r#"{"type":"null"}"#).expect("a schema"))));
        }
    }

    #[test]
    fn what_is_not_applied_is_refused_by_name() {
        let check = |format: &str, code: Code, param: &str, words: &str| {
            let (found, at, message) = read(format).expect_err(format);
            assert_eq!((found, at.as_str()), (code, param), "{message}");
            assert!(message.contains(words), "{message} lacks {words}");
        };
        let of = |schema: &str| {
            format!(r#"{{"type":"json_schema","json_schema":{{"name":"a","schema":{schema}}}}}"#)
        };
        let pattern = of(r#"{"type":"object","properties":{"a":{"type":"string","pattern":"x"}}}"#);
        check(&pattern, Code::UnsupportedParameter, SCHEMA, "`pattern` at `#/properties/a`");
        check(&of(r#"{"type":"text"}"#), Code::InvalidParam, SCHEMA, "`type`");
        check(&of("7"), Code::InvalidParam, SCHEMA, "no schema");
        check(r#"{"type":"grammar"}"#, Code::InvalidParam, "response_format.type", "json_schema");
        check(r#"{"type":"json_schema"}"#, Code::InvalidParam, "response_format.json_schema", "missing");
        let unnamed = r#"{"type":"json_schema","json_schema":{"schema":{}}}"#;
        check(unnamed, Code::InvalidParam, "response_format.json_schema.name", "letters");
        let bare = r#"{"type":"json_schema","json_schema":{"name":"a"}}"#;
        check(bare, Code::InvalidParam, SCHEMA, "missing");
    }
}
