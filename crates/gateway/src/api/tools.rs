//! Tools: what a request lets the model call, and the calls that its conversation holds.
//!
//! In:     `tools`, `tool_choice`, `parallel_tool_calls`, their older forms `functions` and `function_call`; messages' calls; each
//!         as OpenAI, Anthropic and Ollama shape them.
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
                "`{param}` cannot be made to be called: of the schema, {error}. Leave that out, or have `tool_choice` be auto, with \
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
#[derive(PartialEq, Eq)]
enum Choice {
    Auto,
    None,
    Required,
    Named(String),
}

/// How a protocol shapes tools, and the choice among them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// OpenAI's chats, and Ollama's: the function is a member of the tool.
    Nested,
    /// OpenAI's older form: the function is the tool.
    Older,
    /// Anthropic's: a name and an `input_schema`.
    Blocks,
}

/// Which parameters a form of the request has.
struct Form {
    tools: &'static str,
    choice: &'static str,
    shape: Shape,
}

const NESTED: Form = Form { tools: "tools", choice: "tool_choice", shape: Shape::Nested };
const OLDER: Form = Form { tools: "functions", choice: "function_call", shape: Shape::Older };
const BLOCKS: Form = Form { tools: "tools", choice: "tool_choice", shape: Shape::Blocks };

/// The tools as templates are given them, and what is to be made of the answer.
pub(crate) type Offered = (Vec<String>, Option<Tools>);

/// Reads what may be called, of OpenAI's chats and Ollama's.
pub(crate) fn offered(fields: &mut Fields<'_>) -> Result<Offered, ApiError> {
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let newer = NESTED.read(fields, parallel)?;
    let older = OLDER.read(fields, parallel)?;
    match (newer, older) {
        (Some(_), Some(_)) => {
            let message = "`functions` is the older form of `tools`. Send one of them.";
            Err(ApiError::invalid("functions", message))
        }
        (newer, older) => Ok(none_or(newer.or(older))),
    }
}

/// Reads what may be called, of Anthropic's messages.
pub(crate) fn offered_in_blocks(fields: &mut Fields<'_>) -> Result<Offered, ApiError> {
    Ok(none_or(BLOCKS.read(fields, true)?))
}

fn none_or(offered: Option<(Vec<String>, Tools)>) -> Offered {
    offered.map_or((Vec::new(), None), |(json, tools)| (json, Some(tools)))
}

impl Form {
    /// The tools and what is made of the answer; none if there are none, or none is to be called.
    fn read(
        &self,
        fields: &mut Fields<'_>,
        parallel: bool,
    ) -> Result<Option<(Vec<String>, Tools)>, ApiError> {
        let choice = fields.take(self.choice);
        let raw = fields.take(self.tools);
        let (choice, single) = choice.map_or(Ok((Choice::Auto, false)), |raw| self.choice(raw))?;
        if choice == Choice::None {
            return Ok(None);
        }
        let raw = raw.map_or(Ok(Vec::new()), |raw| fields::list(self.tools, raw, MAX_TOOLS))?;
        let (mut json, mut functions): (Vec<String>, Vec<Function>) = (Vec::new(), Vec::new());
        for (index, raw) in raw.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.tools);
            let (tool, function) = match self.shape {
                Shape::Nested => tool(path, raw)?,
                Shape::Older => older_tool(path, raw)?,
                Shape::Blocks => block_tool(path, raw)?,
            };
            if functions.iter().any(|other| other.name == function.name) {
                let message = format!(
                    "`{}[{index}]` is a second function \"{}\". Name each once.",
                    self.tools, function.name,
                );
                return Err(ApiError::invalid(format!("{}[{index}]", self.tools), message));
            }
            json.push(tool);
            functions.push(function);
        }
        self.check(&choice, &functions)?;
        if functions.is_empty() {
            return Ok(None);
        }
        let forced = choice != Choice::Auto;
        let named = matches!(choice, Choice::Named(_));
        if let Choice::Named(name) = choice {
            functions.retain(|function| function.name == name);
        }
        let older = self.shape == Shape::Older;
        let most = if named || single || older || !parallel { 1 } else { MAX_TOOL_CALLS };
        let (names, schemas): (Vec<String>, Vec<String>) =
            functions.into_iter().map(|function| (function.name, function.schema)).unzip();
        let forced = forced.then_some(schemas);
        Ok(Some((json, Tools { names: names.into(), most, older, forced })))
    }

    /// Whether the choice can be made of these functions.
    fn check(&self, choice: &Choice, functions: &[Function]) -> Result<(), ApiError> {
        match choice {
            Choice::Required if functions.is_empty() => {
                let message = format!(
                    "`{}` has a tool be called, and there are no `{}` to call.",
                    self.choice, self.tools
                );
                Err(ApiError::invalid(self.choice, message))
            }
            Choice::Named(name) if !functions.iter().any(|function| function.name == *name) => {
                let message = format!(
                    "`{}` names \"{}\", which is none of `{}`.",
                    self.choice,
                    fields::quote(name),
                    self.tools
                );
                Err(ApiError::invalid(self.choice, message))
            }
            Choice::Auto => match functions.iter().find_map(|function| function.strict.as_ref()) {
                None => Ok(()),
                Some(path) => {
                    let call = match self.shape {
                        Shape::Blocks => "{\"type\": \"any\"}",
                        Shape::Nested | Shape::Older => "\"required\"",
                    };
                    let message = format!(
                        "`{path}` is supported here only where a call must come. Leave it out and check the arguments, or send \
                         `tool_choice: {call}`.",
                    );
                    Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path.clone()))
                }
            },
            _ => Ok(()),
        }
    }

    /// What is chosen, and whether at most one call is.
    fn choice(&self, raw: &RawValue) -> Result<(Choice, bool), ApiError> {
        if self.shape == Shape::Blocks {
            return self.choice_of_blocks(raw);
        }
        if fields::first_byte(raw) == b'"' {
            let choice = match fields::string(self.choice, raw)?.as_str() {
                "auto" => Choice::Auto,
                "none" => Choice::None,
                "required" if self.shape != Shape::Older => Choice::Required,
                _ => {
                    let wanted = match self.shape {
                        Shape::Older => "none, auto or an object",
                        _ => "none, auto, required or an object",
                    };
                    return Err(fields::wrong_type(self.choice, raw, wanted));
                }
            };
            return Ok((choice, false));
        }
        let mut chosen = Fields::object(self.choice.to_owned(), raw)?;
        let name = if self.shape == Shape::Older {
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
        Ok((Choice::Named(name), false))
    }

    fn choice_of_blocks(&self, raw: &RawValue) -> Result<(Choice, bool), ApiError> {
        let mut chosen = Fields::object(self.choice.to_owned(), raw)?;
        let [kind_path, name_path] = ["type", "name"].map(|name| chosen.path(name));
        let kind = chosen.string("type")?.ok_or_else(|| missing(&kind_path))?;
        let single = chosen.boolean("disable_parallel_tool_use")?.unwrap_or(false);
        let name = chosen.string("name")?;
        table::nothing_left(&chosen, &["type", "name", "disable_parallel_tool_use"])?;
        let choice = match (kind.as_str(), name) {
            ("tool", Some(name)) => Choice::Named(name),
            ("tool", None) => return Err(missing(&name_path)),
            ("auto", None) => Choice::Auto,
            ("any", None) => Choice::Required,
            ("none", None) => Choice::None,
            ("auto" | "any" | "none", Some(_)) => {
                let message =
                    format!("`{name_path}` is for `type` \"tool\". Send one or leave the other out.");
                return Err(ApiError::invalid(name_path, message));
            }
            (kind, _) => {
                let message = format!(
                    "`{kind_path}` is \"{}\". It must be \"auto\", \"any\", \"tool\" or \"none\".",
                    fields::quote(kind),
                );
                return Err(ApiError::invalid(kind_path, message));
            }
        };
        Ok((choice, single))
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

/// A tool of Anthropic's, in OpenAI's shape, which templates are written for.
fn block_tool(path: String, raw: &RawValue) -> Result<(String, Function), ApiError> {
    let mut fields = Fields::object(path.clone(), raw)?;
    let refused = |param: String, instead: &str| {
        let message = format!("`{param}` is not supported here. {instead}");
        Err(ApiError::new(Code::UnsupportedParameter, message).with_param(param))
    };
    if let Some(kind) = fields.string("type")?
        && kind != "custom"
    {
        let param = fields.path("type");
        let message = format!(
            "`{param}` is \"{}\": nothing is executed here. Only \"custom\" tools are supported, which you call yourself.",
            fields::quote(&kind),
        );
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(param));
    }
    if fields.boolean("defer_loading")?.unwrap_or(false) {
        return refused(fields.path("defer_loading"), "Send the tools that the model is to see.");
    }
    if fields.take("allowed_callers").is_some_and(|raw| json::compact(raw.get()) != "[\"direct\"]") {
        return refused(fields.path("allowed_callers"), "Leave it out: tools are called by the model alone.");
    }
    if fields.take("input_examples").is_some_and(|raw| json::compact(raw.get()) != "[]") {
        return refused(fields.path("input_examples"), "Write the examples into `description`.");
    }
    // The answer is the same without them.
    fields.take("cache_control");
    fields.take("eager_input_streaming");
    let (description, schema) = (fields.raw("description"), fields.raw("input_schema"));
    let schema_path = fields.path("input_schema");
    let schema = schema.ok_or_else(|| missing(&schema_path))?;
    let function = function(&mut fields, "input_schema")?;
    let description = description.map_or_else(String::new, |raw| format!(",\"description\":{}", raw.get()));
    let tool = format!(
        "{{\"type\":\"function\",\"function\":{{\"name\":\"{}\"{description},\"parameters\":{}}}}}",
        function.name,
        schema.get(),
    );
    Ok((carried(&path, &tool, MAX_TOOL_BYTES)?, function))
}

fn read_function(path: String, raw: &RawValue) -> Result<Function, ApiError> {
    function(&mut Fields::object(path, raw)?, "parameters")
}

/// A function whose schema is under `parameters`.
fn function(function: &mut Fields<'_>, parameters: &'static str) -> Result<Function, ApiError> {
    let name_path = function.path("name");
    let name = function.string("name")?.ok_or_else(|| missing(&name_path))?;
    function.string("description")?;
    let parameters_path = function.path(parameters);
    let schema = match function.take(parameters) {
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
    table::nothing_left(function, &["name", "description", parameters, "strict"])?;
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

/// The calls of message `index`, as Ollama has them: arguments are objects, and ids may be left out.
pub(crate) fn calls_of_objects(index: usize, fields: &mut Fields<'_>) -> Result<Vec<ToolCall>, ApiError> {
    let path = fields.path("tool_calls");
    let mut calls = Vec::new();
    let Some(raw) = fields.take("tool_calls") else { return Ok(calls) };
    for (place, raw) in fields::list(&path, raw, MAX_TOOL_CALLS)?.into_iter().enumerate() {
        let mut call = Fields::object(format!("{path}[{place}]"), raw)?;
        let [id_path, function_path] = ["id", "function"].map(|name| call.path(name));
        if let Some(kind) = call.string("type")? {
            check_kind(&call.path("type"), Some(kind))?;
        }
        let mut function = call.fields("function")?.ok_or_else(|| missing(&function_path))?;
        let id = call.string("id")?.filter(|id| !id.is_empty());
        table::nothing_left(&call, &["id", "type", "function"])?;
        // Nine characters, as some templates want ids to be.
        let id = id.map_or_else(|| Ok(format!("call{index:03x}{place:02x}")), |id| short(&id_path, id))?;
        let [name_path, path] = ["name", "arguments"].map(|name| function.path(name));
        let name = function.string("name")?.ok_or_else(|| missing(&name_path))?;
        let arguments = match function.take("arguments") {
            Some(raw) if fields::first_byte(raw) != b'{' => {
                return Err(fields::wrong_type(&path, raw, "an object"));
            }
            raw => carried(&path, raw.map_or("{}", RawValue::get), MAX_ARGUMENTS_BYTES)?,
        };
        // Where it stood in its answer.
        function.take("index");
        table::nothing_left(&function, &["name", "arguments", "index"])?;
        calls.push(ToolCall { id, name: short(&name_path, name)?, arguments });
    }
    Ok(calls)
}

/// A call of Anthropic's, which is one block of message content.
pub(crate) fn call_of_block(block: &mut Fields<'_>) -> Result<ToolCall, ApiError> {
    let [id_path, name_path, path] = ["id", "name", "input"].map(|name| block.path(name));
    let id = short(&id_path, block.string("id")?.ok_or_else(|| missing(&id_path))?)?;
    let name = short(&name_path, block.string("name")?.ok_or_else(|| missing(&name_path))?)?;
    let input = block.take("input").ok_or_else(|| missing(&path))?;
    if fields::first_byte(input) != b'{' {
        return Err(fields::wrong_type(&path, input, "an object"));
    }
    Ok(ToolCall { id, name, arguments: carried(&path, input.get(), MAX_ARGUMENTS_BYTES)? })
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
