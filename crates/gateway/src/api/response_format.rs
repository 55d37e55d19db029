//! `response_format`, `text.format`, `output_config.format`: what an answer must keep to, as a grammar that its worker applies to every token.
//!
//! In:     the parameter, as OpenAI's chats and responses have it, Anthropic's messages, or Ollama's `format`.
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

/// Which form is asked for.
enum Kind {
    Text,
    JsonObject,
    JsonSchema,
}

impl Kind {
    fn read(format: &mut Fields<'_>) -> Result<Kind, ApiError> {
        let path = format.path("type");
        match format.string("type")?.as_deref() {
            Some("text") => Ok(Kind::Text),
            Some("json_object") => Ok(Kind::JsonObject),
            Some("json_schema") => Ok(Kind::JsonSchema),
            _ => {
                let message = format!("`{path}` is one of `text`, `json_object` and `json_schema`.");
                Err(ApiError::invalid(path, message))
            }
        }
    }
}

/// The grammar that a chat asks for, if it asks for one.
pub(super) fn response_format(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(mut format) = fields.fields("response_format")? else { return Ok(None) };
    let grammar = match Kind::read(&mut format)? {
        Kind::Text => None,
        Kind::JsonObject => Some(json_object()),
        Kind::JsonSchema => {
            let path = format.path("json_schema");
            let Some(mut named) = format.fields("json_schema")? else {
                let message = format!("`{path}` is missing. It has `name` and `schema`.");
                return Err(ApiError::invalid(path, message));
            };
            Some(schema(&mut named)?)
        }
    };
    table::nothing_left(&format, &["type", "json_schema"])?;
    Ok(grammar)
}

/// The grammar that `text` of a response asks for, if it asks for one: its `format` has the members of the schema.
pub(super) fn text_format(text: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(mut format) = text.fields("format")? else { return Ok(None) };
    let grammar = match Kind::read(&mut format)? {
        Kind::Text => None,
        Kind::JsonObject => Some(json_object()),
        Kind::JsonSchema => Some(schema(&mut format)?),
    };
    table::nothing_left(&format, &["type", "name", "description", "strict", "schema"])?;
    Ok(grammar)
}

fn schema(named: &mut Fields<'_>) -> Result<String, ApiError> {
    let [name_path, path] = ["name", "schema"].map(|name| named.path(name));
    let name = named.string("name")?.unwrap_or_default();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(known) {
        let message = format!("`{name_path}` is 1 to {NAME_BYTES_MAX} letters, digits, `_` and `-`.");
        return Err(ApiError::invalid(name_path, message));
    }
    named.string("description")?;
    named.boolean("strict")?;
    let Some(raw) = named.take("schema") else {
        let message = format!("`{path}` is missing: a JSON Schema.");
        return Err(ApiError::invalid(path, message));
    };
    table::nothing_left(named, &["name", "description", "strict", "schema"])?;
    json_schema(raw.get()).map_err(|error| refused(&path, &error))
}

/// The grammar that `output_config` of a message asks for, if it asks for one: its `format` is a schema without a name.
pub(super) fn output_format(config: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(mut format) = config.fields("format")? else { return Ok(None) };
    let [kind_path, path] = ["type", "schema"].map(|name| format.path(name));
    if format.string("type")?.as_deref() != Some("json_schema") {
        return Err(ApiError::invalid(&*kind_path, format!("`{kind_path}` must be \"json_schema\".")));
    }
    let Some(raw) = format.take("schema") else {
        return Err(ApiError::invalid(&*path, format!("`{path}` is missing: a JSON Schema.")));
    };
    table::nothing_left(&format, &["type", "schema"])?;
    json_schema(raw.get()).map(Some).map_err(|error| refused(&path, &error))
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

    /// Where a chat's schema stands.
    const SCHEMA: &str = "response_format.json_schema.schema";

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
    fn a_response_has_the_schema_s_members_beside_its_type() {
        let read = |format: &str| {
            let body = format!(r#"{{"text":{{"format":{format}}}}}"#);
            let mut body = Fields::body(&body).expect("an object");
            let mut text = body.fields("text").expect("an object").expect("there");
            text_format(&mut text).map_err(|error| error.param().unwrap_or_default().to_owned())
        };
        assert_eq!(read(r#"{"type":"text"}"#), Ok(None));
        assert_eq!(read(r#"{"type":"json_object"}"#), Ok(Some(json_object())));
        let null = Ok(Some(json_schema(r#"{"type":"null"}"#).expect("a schema")));
        assert_eq!(read(r#"{"type":"json_schema","name":"a","strict":true,"schema":{"type":"null"}}"#), null);
        for (format, param) in [
            (r#"{"type":"grammar"}"#, "text.format.type"),
            (r#"{"type":"json_schema","schema":{}}"#, "text.format.name"),
            (r#"{"type":"json_schema","name":"a"}"#, "text.format.schema"),
            (r#"{"type":"json_schema","name":"a","schema":{"type":"text"}}"#, "text.format.schema"),
            (r#"{"type":"json_object","json_schema":{}}"#, "text.format.json_schema"),
        ] {
            assert_eq!(read(format), Err(param.to_owned()), "{format}");
        }
    }

    #[test]
    fn a_message_has_a_schema_without_a_name() {
        let read = |format: &str| {
            let body = format!(r#"{{"output_config":{{"format":{format}}}}}"#);
            let mut body = Fields::body(&body).expect("an object");
            let mut config = body.fields("output_config").expect("an object").expect("there");
            output_format(&mut config)
                .map_err(|error| (error.code(), error.param().unwrap_or_default().to_owned()))
        };
        let null = Ok(Some(json_schema(r#"{"type":"null"}"#).expect("a schema")));
        assert_eq!(read(r#"{"type":"json_schema","schema":{"type":"null"}}"#), null);
        assert_eq!(read("null"), Ok(None));
        use Code::{InvalidParam, UnknownParameter, UnsupportedParameter};
        for (format, code, param) in [
            (r#"{"type":"json_object"}"#, InvalidParam, "type"),
            (r#"{"schema":{}}"#, InvalidParam, "type"),
            (r#"{"type":"json_schema"}"#, InvalidParam, "schema"),
            (r#"{"type":"json_schema","schema":{"type":"text"}}"#, InvalidParam, "schema"),
            (
                r#"{"type":"json_schema","schema":{"type":"string","pattern":"x"}}"#,
                UnsupportedParameter,
                "schema",
            ),
            (r#"{"type":"json_schema","schema":{},"name":"a"}"#, UnknownParameter, "name"),
        ] {
            assert_eq!(read(format), Err((code, format!("output_config.format.{param}"))), "{format}");
        }
        assert_eq!(read("7"), Err((InvalidParam, "output_config.format".to_owned())));
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
