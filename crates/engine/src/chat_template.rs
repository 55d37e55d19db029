//! Chat templates: from messages to the text a model was trained to continue.
//!
//! In:     a Jinja template from a model file; messages; the day, if the caller names one.
//! Out:    text, or why the template refused.
//! Touches: nothing: rendering is a pure function, so whoever checks an answer renders the same prompt.
//! Holds:  the environment is the one templates are written for (that of `transformers`): blocks trimmed,
//!         Python's methods and JSON; the engine's steps and the output are bounded.
//! Absent: a clock. `strftime_now` exists only when the request names a day, and its time is midnight.
//!         A bound on the memory of a single expression: a template that doubles a text in a loop takes it all.
//!         A template is as trusted as the model file it comes with.

use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, State, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use surety_types::{CivilDate, Message};

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::Tokenizer;

/// Bytes of a template, at most.
const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Steps of the template engine, at most.
const FUEL: u64 = 10_000_000;
/// Bytes of a rendered prompt, at most.
const OUTPUT_BYTES_MAX: usize = 32 << 20;

/// For models that speak ChatML and do not say so.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content \
                      + '<|im_end|>\\n' }}{% endfor %}\
                      {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Why a template cannot be used, or refused its messages.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The metadata holds something else under the template's key.
    #[error("the chat template cannot be read")]
    Metadata(#[from] GgufError),
    /// The template is too long.
    #[error("the chat template has {bytes} bytes; at most {SOURCE_BYTES_MAX} are allowed")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// The template's syntax is wrong.
    #[error("the chat template is not valid Jinja: {0}")]
    Syntax(String),
    /// The template raised an error, or met one, on these messages.
    #[error("{0}")]
    Refused(String),
}

/// One message, as templates see it.
#[derive(Clone, Debug, Serialize)]
pub struct TemplateMessage<'a> {
    /// `system`, `user`, `assistant`, ….
    pub role: &'a str,
    /// What was said.
    pub content: &'a str,
    /// By whom, where a template distinguishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
}

impl<'a> From<&'a Message> for TemplateMessage<'a> {
    fn from(message: &'a Message) -> Self {
        Self { role: &message.role, content: &message.content, name: message.name.as_deref() }
    }
}

/// How to render.
#[derive(Clone, Copy, Debug)]
pub struct RenderOptions {
    /// End with the opening of the assistant's message.
    pub add_generation_prompt: bool,
    /// Today, for templates that mention it.
    pub date: Option<CivilDate>,
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// The template of a model file; ChatML if it names none but has ChatML's tokens; else none.
    ///
    /// # Errors
    /// `TemplateError` if the file's template cannot be used.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>, TemplateError> {
        let source = match gguf.optional_string("tokenizer.chat_template")? {
            Some(source) => source,
            None if ["<|im_start|>", "<|im_end|>"]
                .iter()
                .all(|token| tokenizer.token_id(token).is_some()) =>
            {
                CHATML
            }
            None => return Ok(None),
        };
        let text = |id: Option<u32>| {
            id.map_or(String::new(), |id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned())
        };
        Self::new(source, text(tokenizer.bos()), text(tokenizer.eos())).map(Some)
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// `TemplateError::TooLong` or `TemplateError::Syntax`.
    pub fn new(source: &str, bos_token: String, eos_token: String) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: source.len() });
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(call_method);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_python_json);
        environment
            .add_template_owned("chat", source.to_owned())
            .map_err(|error| TemplateError::Syntax(reason(&error)))?;
        Ok(Self { environment, source: source.to_owned(), bos_token, eos_token })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders messages.
    ///
    /// # Errors
    /// `TemplateError::Refused` with the template's own words where it raised an exception.
    pub fn render(
        &self,
        messages: &[TemplateMessage<'_>],
        options: &RenderOptions,
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template("chat").expect("added when compiled");
        let variables = context! {
            messages => messages,
            tools => (),
            documents => (),
            add_generation_prompt => options.add_generation_prompt,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
        };
        let variables = match options.date {
            Some(date) => {
                let strftime_now = Value::from_function(move |format: &str| strftime(format, date));
                context! { strftime_now => strftime_now, ..variables }
            }
            None => variables,
        };
        // A few expressions, `[][::-1]|list` for one, panic inside the template engine. It keeps nothing from one
        // rendering to the next that a panic could leave half done.
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            let mut output = Bounded(Vec::new());
            template.render_captured_to(variables, &mut output).map(|_| output.0)
        }));
        let output = match rendered {
            Ok(output) => output.map_err(|error| TemplateError::Refused(reason(&error)))?,
            Err(_) => return Err(TemplateError::Refused("the template engine failed on it".into())),
        };
        String::from_utf8(output)
            .map_err(|_| TemplateError::Refused("the rendered prompt is not UTF-8".into()))
    }
}

/// What went wrong, without the debugging dump.
fn reason(error: &Error) -> String {
    match (error.detail(), error.line()) {
        (Some(detail), Some(line)) => format!("{detail} (line {line} of the template)"),
        (Some(detail), None) => detail.to_owned(),
        (None, Some(line)) => format!("{} (line {line} of the template)", error.kind()),
        (None, None) => error.kind().to_string(),
    }
}

/// Output that refuses to grow without end.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(std::io::Error::other("the rendered prompt is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Python's methods. `minijinja-contrib` counts an empty text without end, so that case is answered here, as Python does.
fn call_method(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let ("count", Some(text), [counted]) = (method, value.as_str(), args)
        && counted.as_str() == Some("")
    {
        return Ok(Value::from(text.chars().count() + 1));
    }
    unknown_method_callback(state, value, method, args)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `tojson` as `transformers` defines it: Python's separators, characters unescaped, `indent` if asked for.
fn to_python_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut json = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = vec![b' '; indent.min(16)];
            let formatter = serde_json::ser::PrettyFormatter::with_indent(&indent);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, PythonFormatter)),
    };
    written
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "cannot write JSON").with_source(error))?;
    let json = String::from_utf8(json).expect("JSON is UTF-8");
    Ok(Value::from_safe_string(json))
}

/// `", "` and `": "`, as Python's `json.dumps` writes.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The part of C's `strftime` that templates use, at midnight of a day.
fn strftime(format: &str, date: CivilDate) -> Result<String, Error> {
    let month = MONTHS[usize::from(date.month) - 1];
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => text += &format!("{:04}", date.year),
            Some('y') => text += &format!("{:02}", date.year % 100),
            Some('m') => text += &format!("{:02}", date.month),
            Some('d') => text += &format!("{:02}", date.day),
            Some('B') => text += month,
            Some('b') => text += &month[..3],
            Some('H' | 'M' | 'S') => text += "00",
            Some('%') => text.push('%'),
            other => {
                let other = other.map_or(String::new(), String::from);
                let message = format!("strftime_now does not know %{other}");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: [(&str, &str); 4] =
        [("system", "Be brief."), ("user", " Hi "), ("assistant", "Hello."), ("user", "Why?")];

    fn render(source: &str, conversation: &[(&str, &str)]) -> Result<String, TemplateError> {
        let template = ChatTemplate::new(source, "<s>".into(), "</s>".into())?;
        let messages: Vec<TemplateMessage<'_>> = conversation
            .iter()
            .map(|&(role, content)| TemplateMessage { role, content, name: None })
            .collect();
        let date = Some(CivilDate { year: 2026, month: 7, day: 4 });
        template.render(&messages, &RenderOptions { add_generation_prompt: true, date })
    }

    #[test]
    fn chatml() {
        let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n\
                        <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n\
                        <|im_start|>assistant\n";
        assert_eq!(render(CHATML, &CONVERSATION).unwrap(), expected);
    }

    /// The skeleton of Llama 3's template: slices, `loop.index0`, `trim`, `bos_token`.
    #[test]
    fn llama_3() {
        let source = "{% set loop_messages = messages %}{% for message in loop_messages %}\
            {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim \
            + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}\
            {% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
        let expected = "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
                        <|start_header_id|>assistant<|end_header_id|>\n\n";
        assert_eq!(render(source, &CONVERSATION[1..2]).unwrap(), expected);
    }

    /// What Qwen's, Mistral's and Gemma's templates lean on: namespaces, reversed slices, Python's methods, exceptions.
    #[test]
    fn python_ways() {
        let source = "{%- set ns = namespace(last=messages|length - 1) %}\n\
            {%- for message in messages[::-1] %}\n\
            {%- set index = (messages|length - 1) - loop.index0 %}\n\
            {%- if message.role == 'user' and not(message.content.startswith('<tool') and message.content.endswith('>')) %}\n\
            {%- set ns.last = index %}{%- endif %}{%- endfor %}\n\
            {{- ns.last }} {{ messages[0]['content'].split(' ')[-1].strip().upper() }} {{ messages[1:]|length }} \
            {{- messages[1].content.strip().rstrip('i').lstrip() }}{{ {'a': [1, 'é']}|tojson }} {{ strftime_now('%d %b %Y') }}";
        assert_eq!(render(source, &CONVERSATION).unwrap(), "1 BRIEF. 3H{\"a\": [1, \"é\"]} 04 Jul 2026");
        let raises = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}";
        let refused = render(raises, &CONVERSATION).unwrap_err();
        assert_eq!(refused.to_string(), "System role not supported (line 1 of the template)");
    }

    #[test]
    fn blocks_are_trimmed() {
        let source = "{% for message in messages %}\n    {% if true %}\n{{ message.role }}\n    {% endif %}\n{% endfor %}\n";
        assert_eq!(render(source, &CONVERSATION[..2]).unwrap(), "system\nuser\n");
    }

    #[test]
    fn endless_templates_and_output_are_refused() {
        let endless = [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
            "{{ 'x' * 10000000000 }}",
            "{% for a in range(99999) %}{{ 'xxxxxxxxxxxxxxxx' * 1000 }}{% endfor %}",
        ];
        for source in endless {
            assert!(matches!(render(source, &CONVERSATION), Err(TemplateError::Refused(_))), "{source}");
        }
        assert!(matches!(render("{% if %}", &CONVERSATION), Err(TemplateError::Syntax(_))));
        assert!(matches!(render(&"x".repeat(2 << 20), &CONVERSATION), Err(TemplateError::TooLong { .. })));
    }

    #[test]
    fn what_the_template_engine_cannot_do_is_an_error() {
        assert_eq!(render("{{ 'a\u{e9}'.count('') }}{{ 'aab'.count('a') }}", &[]).unwrap(), "32");
        assert!(matches!(render("{{ [][::-1]|list }}", &[]), Err(TemplateError::Refused(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_template_or_an_error(source in ".{0,200}") {
            let _ = render(&source, &CONVERSATION);
        }
    }
}
