//! Tools: what a request lets the model call, and the calls that its conversation holds.
//!
//! In:     `tools`, `tool_choice`, `parallel_tool_calls`, their older forms `functions` and `function_call`; messages' calls.
//! Out:    the tools as chat templates are given them, and what is to be made of the answer; or an error that names the place.
//! Touches: nothing.
//! Holds:  what is returned is JSON within the bounds of `types`; what asks for more than is kept is refused by name. Where a call
//!         must come, the answer is held to it by a grammar (`docs/spec/grammar.md`).
//! Absent: finding calls in an answer (`calls`).

use std::sync::Arc;

use serde_json::value::RawValue;
use surety_grammar::{Form as GrammarForm, REPEATS_MAX, forms};
use surety_types::{
    CallFormat, ToolCall, json,
    request::{MAX_ARGUMENTS_BYTES, MAX_NAME_BYTES, MAX_TOOL_BYTES, MAX_TOOL_CALLS, MAX_TOOLS},
};

use super::{
    fields::{self, Fields},
    parameters as table,
};
use crate::error::{ApiError, Code};

/// Bytes of a function's name, as OpenAI has it.
const NAME_BYTES_MAX: usize = 64;

/// What may be made of an answer besides text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tools {
    /// What may be called.
    pub(crate) names: Arc<[String]>,
    /// Calls in one answer.
    pub(crate) most: usize,
    /// Asked for, and to be answered, in the older form.
    pub(crate) older: bool,
    /// Where a call must come: the schemas of what may be called, in the order of `names`.
    pub(crate) forced: Option<Vec<String>>,
}

impl Tools {
    /// The grammar of an answer that is such calls and nothing else, where one must come.
    pub(crate) fn grammar(&self, format: CallFormat) -> Result<Option<String>, ApiError> {
        let Some(schemas) = &self.forced else { return Ok(None) };
        let (before, arguments, suffix, most) = match format {
            CallFormat::Hermes => (
                "<tool_call>\n{\"name\": \"",
                "\", \"arguments\": ",
                "}\n</tool_call>",
                self.most.min(REPEATS_MAX),
            ),
            CallFormat::Llama => ("{\"name\": \"", "\", \"parameters\": ", "}", 1),
            CallFormat::Mistral => ("[{\"name\": \"", "\", \"arguments\": ", "}]", 1),
        };
        let prefixes: Vec<String> =
            self.names.iter().map(|name| format!("{before}{name}{arguments}")).collect();
        let calls: Vec<GrammarForm<'_>> = prefixes
            .iter()
            .zip(schemas)
            .map(|(prefix, schema)| GrammarForm { prefix, schema, suffix })
            .collect();
        forms(&calls, most, "\n").map(Some).map_err(|error| {
            let param = if self.older { "functions" } else { "tools" };
            let message = format!(
                "`{param}` cannot be made to be called: of the `parameters`, {error}. Leave that out, or send `tool_choice: \"auto\"`, with \
                 which no schema is applied.",
            );
            ApiError::new(Code::UnsupportedParameter, message).with_param(param)
        })
    }
}

/// A function as it was sent.
struct Function {
    name: String,
    /// Its JSON Schema.
    schema: String,
    /// Where it is asked that the schema be kept to, if it is.
    strict: Option<String>,
}

/// What `tool_choice` says.
enum Choice {
    Auto,
    Required,
    Named(String),
}

/// Which parameters a form of the request has.
struct Form {
    tools: &'static str,
    choice: &'static str,
    older: bool,
}

const FORMS: [Form; 2] = [
    Form { tools: "tools", choice: "tool_choice", older: false },
    Form { tools: "functions", choice: "function_call", older: true },
];

/// Reads what may be called: as templates are given it, and what is to be made of the answer.
pub(crate) fn offered(fields: &mut Fields<'_>) -> Result<(Vec<String>, Option<Tools>), ApiError> {
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let mut offered = None;
    for form in FORMS {
        let Some((json, functions, choice)) = form.read(fields)? else { continue };
        if offered.is_some() {
            let message = "`functions` is the older form of `tools`. Send one of them.";
            return Err(ApiError::invalid("functions", message));
        }
        let (functions, most) = match &choice {
            Choice::Named(name) => {
                (functions.into_iter().filter(|function| function.name == *name).collect(), 1)
            }
            _ if !parallel || form.older => (functions, 1),
            _ => (functions, MAX_TOOL_CALLS),
        };
        let forced = !matches!(choice, Choice::Auto);
        let (names, schemas): (Vec<String>, Vec<String>) =
            functions.into_iter().map(|function| (function.name, function.schema)).unzip();
        let forced = forced.then_some(schemas);
        offered = Some((json, Tools { names: names.into(), most, older: form.older, forced }));
    }
    Ok(offered.map_or((Vec::new(), None), |(json, tools)| (json, Some(tools))))
}

impl Form {
    /// The tools and their names; none if there are none, or none is to be called.
    fn read(
        &self,
        fields: &mut Fields<'_>,
    ) -> Result<Option<(Vec<String>, Vec<Function>, Choice)>, ApiError> {
        let choice = fields.take(self.choice);
        let raw = fields.take(self.tools);
        let word = choice.filter(|raw| fields::first_byte(raw) == b'"');
        let word = word.map(|raw| fields::string(self.choice, raw)).transpose()?;
        if word.as_deref() == Some("none") {
            return Ok(None);
        }
        let raw = raw.map_or(Ok(Vec::new()), |raw| fields::list(self.tools, raw, MAX_TOOLS))?;
        let (mut tools, mut functions): (Vec<String>, Vec<Function>) = (Vec::new(), Vec::new());
        for (index, raw) in raw.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.tools);
            let (tool, function) = if self.older { older_tool(path, raw)? } else { tool(path, raw)? };
            if functions.iter().any(|other| other.name == function.name) {
                let message = format!(
                    "`{}[{index}]` is a second function \"{}\". Name each once.",
                    self.tools, function.name,
                );
                return Err(ApiError::invalid(format!("{}[{index}]", self.tools), message));
            }
            tools.push(tool);
            functions.push(function);
        }
        let choice = self.choice(choice, word.as_deref(), &functions)?;
        if let (Choice::Auto, Some(path)) =
            (&choice, functions.iter().find_map(|function| function.strict.as_ref()))
        {
            let message = format!(
                "`{path}` is kept to only where a call must come. Leave it out and check the arguments, or send \
                 `tool_choice: \"required\"`.",
            );
            return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path.clone()));
        }
        Ok((!tools.is_empty()).then_some((tools, functions, choice)))
    }

    fn choice(
        &self,
        choice: Option<&RawValue>,
        word: Option<&str>,
        functions: &[Function],
    ) -> Result<Choice, ApiError> {
        let Some(choice) = choice else { return Ok(Choice::Auto) };
        match word {
            Some("auto") => Ok(Choice::Auto),
            Some("required") if !self.older => {
                if functions.is_empty() {
                    let message = format!(
                        "`{}` is \"required\", and there are no `{}` to call.",
                        self.choice, self.tools
                    );
                    return Err(ApiError::invalid(self.choice, message));
                }
                Ok(Choice::Required)
            }
            Some(_) => {
                let wanted =
                    if self.older { "none, auto or an object" } else { "none, auto, required or an object" };
                Err(fields::wrong_type(self.choice, choice, wanted))
            }
            None => {
                let mut chosen = Fields::object(self.choice.to_owned(), choice)?;
                let name = if self.older {
                    let name = chosen.string("name")?;
                    table::nothing_left(&chosen, &["name"])?;
                    name.ok_or_else(|| missing(&chosen.path("name")))?
                } else {
                    let (kind_path, path) = (chosen.path("type"), chosen.path("function"));
                    check_kind(&kind_path, chosen.string("type")?)?;
                    let mut function = chosen.fields("function")?.ok_or_else(|| missing(&path))?;
                    table::nothing_left(&chosen, &["type", "function"])?;
                    let name = function.string("name")?;
                    table::nothing_left(&function, &["name"])?;
                    name.ok_or_else(|| missing(&function.path("name")))?
                };
                if !functions.iter().any(|function| function.name == name) {
                    let message = format!(
                        "`{}` names \"{}\", which is none of `{}`.",
                        self.choice,
                        fields::quote(&name),
                        self.tools
                    );
                    return Err(ApiError::invalid(self.choice, message));
                }
                Ok(Choice::Named(name))
            }
        }
    }
}

fn missing(path: &str) -> ApiError {
    ApiError::invalid(path, format!("`{path}` is missing. Send it."))
}

fn check_kind(path: &str, kind: Option<String>) -> Result<(), ApiError> {
    match kind.as_deref() {
        Some("function") => Ok(()),
        None => Err(missing(path)),
        Some(kind) => {
            let message =
                format!("`{path}` is \"{}\". Only \"function\" is supported here.", fields::quote(kind));
            Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path))
        }
    }
}

/// A tool, and its function.
fn tool(path: String, raw: &RawValue) -> Result<(String, Function), ApiError> {
    let mut fields = Fields::object(path.clone(), raw)?;
    check_kind(&fields.path("type"), fields.string("type")?)?;
    let function_path = fields.path("function");
    let function = fields.take("function").ok_or_else(|| missing(&function_path))?;
    table::nothing_left(&fields, &["type", "function"])?;
    let function = read_function(function_path, function)?;
    Ok((carried(&path, raw.get(), MAX_TOOL_BYTES)?, function))
}

/// A tool of the older form, in the newer.
fn older_tool(path: String, raw: &RawValue) -> Result<(String, Function), ApiError> {
    let function = read_function(path.clone(), raw)?;
    let tool = format!("{{\"type\":\"function\",\"function\":{}}}", raw.get());
    Ok((carried(&path, &tool, MAX_TOOL_BYTES)?, function))
}

fn read_function(path: String, raw: &RawValue) -> Result<Function, ApiError> {
    let mut function = Fields::object(path, raw)?;
    let name_path = function.path("name");
    let name = function.string("name")?.ok_or_else(|| missing(&name_path))?;
    function.string("description")?;
    let parameters_path = function.path("parameters");
    let schema = match function.take("parameters") {
        Some(raw) if fields::first_byte(raw) != b'{' => {
            return Err(fields::wrong_type(&parameters_path, raw, "a JSON Schema, which is an object"));
        }
        Some(raw) => json::compact(raw.get()),
        // Nothing is given.
        None => "{\"type\":\"object\",\"properties\":{}}".to_owned(),
    };
    // Arguments are an object, whatever a schema allows.
    let schema = if schema == "{}" { "{\"type\":\"object\"}".to_owned() } else { schema };
    let strict = function.boolean("strict")?.unwrap_or(false).then(|| function.path("strict"));
    table::nothing_left(&function, &["name", "description", "parameters", "strict"])?;
    check_name(&name_path, &name)?;
    Ok(Function { name, schema, strict })
}

fn check_name(path: &str, name: &str) -> Result<(), ApiError> {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fit) {
        return Ok(());
    }
    let message = format!(
        "`{path}` is \"{}\". A function's name is 1 to {NAME_BYTES_MAX} letters, digits, `_` and `-`.",
        fields::quote(name),
    );
    Err(ApiError::invalid(path, message))
}

/// JSON as a request carries it.
fn carried(path: &str, text: &str, bytes_max: usize) -> Result<String, ApiError> {
    let compact = json::compact(text);
    if compact.len() > bytes_max {
        let message = format!("`{path}` takes {} bytes. At most {bytes_max} are carried.", compact.len());
        return Err(ApiError::invalid(path, message));
    }
    match json::check(&compact) {
        Ok(()) => Ok(compact),
        Err(error) => {
            let message = format!(
                "`{path}` cannot be shown to a model: {}. It must be an object, at most {} levels deep, of numbers that fit 64 bits.",
                error.problem,
                json::MAX_JSON_DEPTH,
            );
            Err(ApiError::invalid(path, message))
        }
    }
}

/// The calls of message `index`, an assistant's.
pub(crate) fn calls(index: usize, fields: &mut Fields<'_>) -> Result<Vec<ToolCall>, ApiError> {
    let path = fields.path("tool_calls");
    let mut calls = Vec::new();
    if let Some(raw) = fields.take("tool_calls") {
        for (place, raw) in fields::list(&path, raw, MAX_TOOL_CALLS)?.into_iter().enumerate() {
            let mut call = Fields::object(format!("{path}[{place}]"), raw)?;
            let [id_path, function_path] = ["id", "function"].map(|name| call.path(name));
            if let Some(kind) = call.string("type")? {
                check_kind(&call.path("type"), Some(kind))?;
            }
            let id = call.string("id")?.ok_or_else(|| missing(&id_path))?;
            let id = short(&id_path, id)?;
            let mut function = call.fields("function")?.ok_or_else(|| missing(&function_path))?;
            // Where it stands in a stream, as some clients send it back.
            call.take("index");
            table::nothing_left(&call, &["id", "type", "function", "index"])?;
            let (name, arguments) = called(&mut function)?;
            calls.push(ToolCall { id, name, arguments });
        }
    }
    if let Some(mut function) = fields.fields("function_call")? {
        let (name, arguments) = called(&mut function)?;
        // Nine characters, as some templates want ids to be.
        calls.push(ToolCall { id: format!("call{index:05}"), name, arguments });
    }
    Ok(calls)
}

fn called(function: &mut Fields<'_>) -> Result<(String, String), ApiError> {
    let [name_path, path] = ["name", "arguments"].map(|name| function.path(name));
    let name = function.string("name")?.ok_or_else(|| missing(&name_path))?;
    let arguments = function.string("arguments")?.ok_or_else(|| missing(&path))?;
    table::nothing_left(function, &["name", "arguments"])?;
    // Some clients say in this way that there are none.
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments.as_str() };
    Ok((short(&name_path, name)?, carried(&path, arguments, MAX_ARGUMENTS_BYTES)?))
}

/// A name or an id.
pub(crate) fn short(path: &str, text: String) -> Result<String, ApiError> {
    if text.len() <= MAX_NAME_BYTES {
        return Ok(text);
    }
    let message = format!("`{path}` takes {} bytes. At most {MAX_NAME_BYTES} are carried.", text.len());
    Err(ApiError::invalid(path, message))
}
