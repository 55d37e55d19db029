//! Both voices: this crate, and minijinja set up as `transformers` sets up jinja2.
#![allow(dead_code, reason = "each test uses a part")]

pub mod corpus;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use surety_template::{Limits, Rendered, Template, TemplateError, Variables};
use surety_types::{CivilDate, Message};

/// For tests: as the network's, but soon reached.
pub const LIMITS: Limits = Limits { steps: 300_000, bytes: 4 << 20, ..Limits::STANDARD };

pub const DATE: CivilDate = CivilDate { year: 2026, month: 7, day: 4 };

pub fn conversation(messages: &[(&str, &str)]) -> Vec<Message> {
    messages.iter().map(|(role, content)| message(role, content)).collect()
}

pub fn message(role: &str, content: &str) -> Message {
    Message::text(role, content)
}

pub fn variables(messages: &[Message]) -> Variables<'_> {
    Variables {
        messages,
        tools: &[],
        add_generation_prompt: true,
        bos_token: "<s>",
        eos_token: "</s>",
        date: Some(DATE),
    }
}

pub fn render(source: &str, variables: &Variables<'_>, limits: &Limits) -> Result<Rendered, TemplateError> {
    Template::parse(source, limits)?.render(variables, limits)
}

/// The second voice.
pub fn minijinja(source: &str, variables: &Variables<'_>) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(100_000));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter("tojson", json);
    environment.add_template("chat", source)?;
    let named = |message: &Message| {
        let mut fields = vec![("role", message.role.as_str()), ("content", message.content.as_str())];
        fields.extend(message.name.as_deref().map(|name| ("name", name)));
        fields.into_iter().map(|(key, value)| (key, Value::from(value))).collect::<Value>()
    };
    let messages: Vec<Value> = variables.messages.iter().map(named).collect();
    environment.get_template("chat")?.render(context! {
        messages,
        tools => (),
        documents => (),
        add_generation_prompt => variables.add_generation_prompt,
        bos_token => variables.bos_token,
        eos_token => variables.eos_token,
        strftime_now => Value::from_function(|format: &str| {
            format.replace("%d", "04").replace("%b", "Jul").replace("%B", "July").replace("%m", "07").replace("%Y", "2026")
        }),
    })
}

/// `tojson` without HTML's escapes, on one line; the corpus asks for no other.
fn json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    options.assert_all_used()?;
    let mut json = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut json, Python))
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "cannot write JSON").with_source(error))?;
    Ok(Value::from_safe_string(String::from_utf8(json).expect("JSON is UTF-8")))
}

/// `", "` and `": "`, as Python's `json.dumps` writes.
struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
