//! Tools: what a request lets the model call, and the calls that its conversation holds.
//!
//! In:     `tools`, `tool_choice`, `parallel_tool_calls`, their older forms `functions` and `function_call`; messages' calls; each
//!         as OpenAI's chats and responses, Anthropic and Ollama shape them.
//! Out:    the tools as chat templates are given them, and what is to be made of the answer; or an error that names the place.
//! Touches: nothing.
//! Holds:  what is returned is JSON within the bounds of `types`; what asks for more than is kept is refused by name. Where a call
//!         must come, the answer is held to it by a grammar (`docs/spec/grammar.md`).
//! Absent: finding calls in an answer (`calls`).

use std::sync::Arc;

use serde_json::{Value, value::RawValue};
use surety_grammar::{Form as GrammarForm, GrammarError, REPEATS_MAX, forms, json_schema};
use surety_types::{
    CallFormat, ToolCall, json,
    request::{MAX_ARGUMENTS_BYTES, MAX_NAME_BYTES, MAX_TOOL_BYTES, MAX_TOOL_CALLS, MAX_TOOLS},
};

use super::{
    fields::{self, Fields},
    parameters as table,
};
use crate::error::{ApiError, Code};

/// Keywords of one schema that are left unapplied, at most; one that has more is only an object's.
const RELAXED_MAX: usize = 64;
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
    /// Only these of them, of which one must be called, or may.
    Allowed {
        names: Vec<String>,
        required: bool,
    },
}

impl Choice {
    /// Whether a call must come.
    fn forces(&self) -> bool {
        matches!(self, Choice::Required | Choice::Named(_) | Choice::Allowed { required: true, .. })
    }
}

/// How a protocol shapes tools, and the choice among them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// OpenAI's chats, and Ollama's: the function is a member of the tool.
    Nested,
    /// OpenAI's responses': the tool has the function's members.
    Flat,
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
const FLAT: Form = Form { tools: "tools", choice: "tool_choice", shape: Shape::Flat };
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

/// Reads what may be called, of OpenAI's responses.
pub(crate) fn offered_flat(fields: &mut Fields<'_>, parallel: bool) -> Result<Offered, ApiError> {
    Ok(none_or(FLAT.read(fields, parallel)?))
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
                Shape::Flat => flat_tool(path, raw)?,
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
        let (forced, named) = (choice.forces(), matches!(choice, Choice::Named(_)));
        match choice {
            Choice::Named(name) => functions.retain(|function| function.name == name),
            Choice::Allowed { names, .. } => functions.retain(|function| names.contains(&function.name)),
            Choice::Auto | Choice::None | Choice::Required => {}
        }
        let older = self.shape == Shape::Older;
        let most = if named || single || older || !parallel { 1 } else { MAX_TOOL_CALLS };
        let schema = |function: &Function| match (forced, &function.strict) {
            (true, None) => relaxed(&function.schema),
            _ => function.schema.clone(),
        };
        let schemas = functions.iter().map(schema).collect();
        let names: Vec<String> = functions.into_iter().map(|function| function.name).collect();
        let forced = forced.then_some(schemas);
        Ok(Some((json, Tools { names: names.into(), most, older, forced })))
    }

    /// Whether the choice can be made of these functions.
    fn check(&self, choice: &Choice, functions: &[Function]) -> Result<(), ApiError> {
        let named: &[String] = match choice {
            Choice::Named(name) => std::slice::from_ref(name),
            Choice::Allowed { names, .. } => names,
            Choice::Auto | Choice::None | Choice::Required => &[],
        };
        if let Some(name) =
            named.iter().find(|name| !functions.iter().any(|function| function.name == **name))
        {
            let message = format!(
                "`{}` names \"{}\", which is none of `{}`.",
                self.choice,
                fields::quote(name),
                self.tools
            );
            return Err(ApiError::invalid(self.choice, message));
        }
        match choice {
            Choice::Required if functions.is_empty() => {
                let message = format!(
                    "`{}` has a tool be called, and there are no `{}` to call.",
                    self.choice, self.tools
                );
                Err(ApiError::invalid(self.choice, message))
            }
            choice if !choice.forces() => {
                match functions.iter().find_map(|function| function.strict.as_ref()) {
                    None => Ok(()),
                    Some(path) => {
                        let call = match self.shape {
                            Shape::Blocks => "{\"type\": \"any\"}",
                            Shape::Nested | Shape::Flat | Shape::Older => "\"required\"",
                        };
                        let message = format!(
                            "`{path}` is supported here only where a call must come. Leave it out and check the arguments, or send \
                         `tool_choice: {call}`.",
                        );
                        Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path.clone()))
                    }
                }
            }
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
            let kind = chosen.string("type")?;
            if kind.as_deref() == Some("allowed_tools") {
                return Ok((self.allowed(chosen)?, false));
            }
            self.chosen(chosen, kind)?
        };
        Ok((Choice::Named(name), false))
    }

    /// The name of the function that an object of this kind chooses.
    fn chosen(&self, mut chosen: Fields<'_>, kind: Option<String>) -> Result<String, ApiError> {
        check_kind(&chosen.path("type"), kind)?;
        let path = chosen.path("function");
        let mut function = match self.shape {
            Shape::Nested => chosen.fields("function")?.ok_or_else(|| missing(&path))?,
            _ => return name_alone(&mut chosen),
        };
        table::nothing_left(&chosen, &["type", "function"])?;
        name_alone(&mut function)
    }

    /// Some of the functions, of which one must be called, or may.
    fn allowed(&self, mut chosen: Fields<'_>) -> Result<Choice, ApiError> {
        const KIND: &str = "allowed_tools";
        if self.shape == Shape::Nested {
            let path = chosen.path(KIND);
            let nested = chosen.fields(KIND)?.ok_or_else(|| missing(&path))?;
            table::nothing_left(&chosen, &["type", KIND])?;
            chosen = nested;
        }
        let [mode_path, path] = ["mode", "tools"].map(|name| chosen.path(name));
        let required = match chosen.string("mode")?.as_deref() {
            Some("auto") => false,
            Some("required") => true,
            _ => {
                let message = format!("`{mode_path}` must be \"auto\" or \"required\".");
                return Err(ApiError::invalid(mode_path, message));
            }
        };
        let raw = chosen.take("tools").ok_or_else(|| missing(&path))?;
        table::nothing_left(&chosen, &["type", "mode", "tools"])?;
        let mut names = Vec::new();
        for (index, raw) in fields::list(&path, raw, MAX_TOOLS)?.into_iter().enumerate() {
            let mut tool = Fields::object(format!("{path}[{index}]"), raw)?;
            let kind = tool.string("type")?;
            names.push(self.chosen(tool, kind)?);
        }
        if names.is_empty() {
            let message =
                format!("`{path}` is empty. Name the functions, or send `{}: \"none\"`.", self.choice);
            return Err(ApiError::invalid(path, message));
        }
        Ok(Choice::Allowed { names, required })
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

/// A schema that a caller did not ask to be kept to, without the keywords that no grammar applies: the model is shown them all the
/// same. What is left holds of whatever met the whole.
fn relaxed(schema: &str) -> String {
    const ANY: &str = "{\"type\":\"object\"}";
    let Ok(mut value) = serde_json::from_str::<Value>(schema) else { return schema.to_owned() };
    let mut text = schema.to_owned();
    for _ in 0..RELAXED_MAX {
        let Err(GrammarError::Unsupported { path, keyword }) = json_schema(&text) else { return text };
        let place = value.pointer_mut(path.trim_start_matches('#')).and_then(Value::as_object_mut);
        if place.and_then(|members| members.remove(&keyword)).is_none() {
            break;
        }
        text = if value == serde_json::json!({}) { ANY.to_owned() } else { value.to_string() };
    }
    ANY.to_owned()
}

/// The name in an object that has nothing else.
fn name_alone(fields: &mut Fields<'_>) -> Result<String, ApiError> {
    let name = fields.string("name")?;
    table::nothing_left(fields, &["name"])?;
    name.ok_or_else(|| missing(&fields.path("name")))
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
    loaded_and_called(&mut fields)?;
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

/// A tool of OpenAI's responses, in the shape of its chats, which templates are written for.
fn flat_tool(path: String, raw: &RawValue) -> Result<(String, Function), ApiError> {
    let mut fields = Fields::object(path.clone(), raw)?;
    check_kind(&fields.path("type"), fields.string("type")?)?;
    loaded_and_called(&mut fields)?;
    if fields.take("async").is_some_and(|raw| raw.get() != "false") {
        return refused(
            fields.path("async"),
            "Leave it out: send what the function said with the next request.",
        );
    }
    // What a function says is the caller's to check.
    fields.take("output_schema");
    let members = ["description", "parameters"].map(|name| (name, fields.raw(name)));
    let function = function(&mut fields, "parameters")?;
    let mut tool = format!("{{\"type\":\"function\",\"function\":{{\"name\":\"{}\"", function.name);
    for (name, raw) in members {
        let Some(raw) = raw else { continue };
        tool.push_str(&format!(",\"{name}\":{}", raw.get()));
    }
    tool.push_str("}}");
    Ok((carried(&path, &tool, MAX_TOOL_BYTES)?, function))
}

fn refused<T>(param: String, instead: &str) -> Result<T, ApiError> {
    let message = format!("`{param}` is not supported here. {instead}");
    Err(ApiError::new(Code::UnsupportedParameter, message).with_param(param))
}

/// Tools are shown with the request, and called by the model alone.
fn loaded_and_called(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    if fields.boolean("defer_loading")?.unwrap_or(false) {
        return refused(fields.path("defer_loading"), "Send the tools that the model is to see.");
    }
    if fields.take("allowed_callers").is_some_and(|raw| json::compact(raw.get()) != "[\"direct\"]") {
        return refused(fields.path("allowed_callers"), "Leave it out: tools are called by the model alone.");
    }
    Ok(())
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

/// A call of OpenAI's responses, which is one item of the input.
pub(crate) fn call_of_item(item: &mut Fields<'_>) -> Result<ToolCall, ApiError> {
    let id_path = item.path("call_id");
    let id = short(&id_path, item.string("call_id")?.ok_or_else(|| missing(&id_path))?)?;
    let (name, arguments) = called(item)?;
    Ok(ToolCall { id, name, arguments })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_is_not_strict_is_applied_as_far_as_it_can_be() {
        let check = |schema: &str, expected: &str| assert_eq!(relaxed(schema), expected, "{schema}");
        let applied = r#"{"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"string"}}}"#;
        check(applied, applied);
        check(
            r#"{"type":"object","properties":{"a":{"type":"integer","exclusiveMinimum":-1000,"exclusiveMaximum":1000}}}"#,
            r#"{"properties":{"a":{"type":"integer"}},"type":"object"}"#,
        );
        check(r#"{"not":{"type":"null"}}"#, r#"{"type":"object"}"#);
        // What says nothing that can be met is not made better.
        let wrong = r#"{"type":"object","properties":{"a":{"type":"text"}}}"#;
        check(wrong, wrong);
        let many: Vec<String> =
            (0..100).map(|index| format!(r#""{index}":{{"type":"integer","minimum":1}}"#)).collect();
        check(&format!(r#"{{"type":"object","properties":{{{}}}}}"#, many.join(",")), r#"{"type":"object"}"#);
    }
}
