//! MCP: for programs that use tools, what can be asked for, whether an answer's evidence holds, and what became of a
//! request.
//!
//! In:     JSON-RPC messages, one to a POST (Model Context Protocol, streamable HTTP without streams or sessions).
//! Out:    JSON-RPC answers; 202 for what wants none.
//! Touches: receipts and journal on disk, to read; the ledger, through the payer's account.
//! Holds:  nothing here orders, pays or changes anything; a key sees what the routes beside it let it see; every message is
//!         bounded, and whatever it says, the answer is a JSON-RPC object and no failure of the server's.
//! Absent: what is checked (`proof`); who is accountable (`surety explain`); errors of HTTP, which `dialect` words.
//!
//! Source: Model Context Protocol, revisions 2024-11-05 to 2025-06-18; JSON-RPC 2.0.

use std::{error::Error, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use surety_client::{Checked, CheckedEvidence, Expected, check_evidence};
use surety_types::{Acceptance, Order, Paper, Progress, Receipt, Signed, StatedEnd, Statement};
use tokio::sync::Semaphore;

use super::{
    body::Text,
    explanation::gathered,
    fields::quote,
    ledger::receipt_ledger,
    look::{kept, readable},
    nearest::nearest,
    shapes::Model,
};
use crate::{
    SOFTWARE,
    error::{ApiError, Code},
    gateway::Shared,
};

/// What is spoken, the newest first.
const REVISIONS: [&str; 3] = ["2025-06-18", "2025-03-26", "2024-11-05"];
/// After its beginning a client names the revision in it.
const VERSION: &str = "mcp-protocol-version";
/// A message, at most.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The text that a client calls a message by, at most.
const ID_BYTES_MAX: usize = 256;

/// Not JSON.
pub(super) const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// Evidence being checked, at most; the rest waits.
static CHECKS: Semaphore = Semaphore::const_new(2);

const INSTRUCTIONS: &str = "Surety runs models whose answers anyone can compute again. `models` lists what can be asked for. Every \
     answer has a request id (`x-request-id`, or the answer's `id`): `verify` checks the signatures kept for it and says what that \
     does not show; `explain` tells what became of it. To check without trusting this gateway, run `surety verify ID`.";

/// What a client sent.
#[derive(Debug, PartialEq)]
enum Message {
    /// It waits for an answer that carries this id.
    Call(Value, Call),
    /// A notification, or an answer to what nobody asked.
    Silent,
}

#[derive(Debug, PartialEq)]
enum Call {
    Initialize { revision: &'static str },
    Ping,
    ListTools,
    Models,
    Verify { request: String },
    Explain { request: String },
}

/// Why a message is not done.
#[derive(Debug)]
struct Refusal {
    /// The message's, where it can be told.
    id: Value,
    code: i32,
    message: String,
}

impl Refusal {
    fn new(id: &Value, code: i32, message: impl Into<String>) -> Refusal {
        Refusal { id: id.clone(), code, message: message.into() }
    }

    /// What is no message at all is refused by HTTP too.
    fn status(&self) -> StatusCode {
        match self.code {
            PARSE_ERROR | INVALID_REQUEST => StatusCode::BAD_REQUEST,
            _ => StatusCode::OK,
        }
    }
}

/// What a tool has found.
struct Finding {
    /// In sentences.
    said: Vec<String>,
    content: Value,
}

/// The Model Context Protocol: tools `models`, `verify` and `explain`.
///
/// Streamable HTTP without streams or sessions: one JSON-RPC message to a POST, its answer as JSON.
#[utoipa::path(post, path = "/mcp", tag = "receipts",
    params(("mcp-protocol-version" = Option<String>, Header, description = "The revision that `initialize` agreed on.")),
    request_body(content = serde_json::Value, description = "A JSON-RPC message."),
    responses(
    (status = 200, description = "The JSON-RPC answer, or a JSON-RPC error.", body = serde_json::Value),
    (status = 202, description = "A notification, or an answer: taken."),
    (status = 400, description = "No message: a JSON-RPC error.", body = serde_json::Value),
    (status = "4XX", description = "It was not taken: a JSON-RPC error with our own as its `data`.", body = serde_json::Value),
))]
pub(super) async fn serve(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    check_origin(&headers)?;
    let Text { text, share: _share } = shared.intake.read(&headers, body).await?;
    if text.len() > MESSAGE_BYTES_MAX {
        let message =
            format!("The message takes {} bytes. At most {MESSAGE_BYTES_MAX} are read.", text.len());
        return Err(ApiError::new(Code::PayloadTooLarge, message));
    }
    let version = headers.get(VERSION).map(|version| version.to_str().unwrap_or("(no text)"));
    let answer = match read(&text, version) {
        Ok(Message::Silent) => return Ok(StatusCode::ACCEPTED.into_response()),
        Ok(Message::Call(id, call)) => {
            Json(json!({"jsonrpc": "2.0", "id": id, "result": result(&shared, call).await}))
        }
        Err(refusal) => {
            let status = refusal.status();
            let Refusal { id, code, message } = refusal;
            let error = json!({"code": code, "message": message});
            return Ok((status, Json(json!({"jsonrpc": "2.0", "id": id, "error": error}))).into_response());
        }
    };
    Ok(answer.into_response())
}

/// A page of another site may not use a browser to reach a gateway that trusts its own machine.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let site = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (site, host) {
        (Some(site), Some(host)) if site.eq_ignore_ascii_case(host) => Ok(()),
        _ => {
            let message = "The request comes from a page of another site (`origin`), which may not use this gateway. \
                 Ask from a program or from your own server.";
            Err(ApiError::new(Code::HostNotAllowed, message))
        }
    }
}

/// What a text asks for; `version` is what the header names.
fn read(text: &str, version: Option<&str>) -> Result<Message, Refusal> {
    let nobody = Value::Null;
    let message: Value = serde_json::from_str(text)
        .map_err(|error| Refusal::new(&nobody, PARSE_ERROR, format!("The body is no JSON: {error}.")))?;
    let message = match message {
        Value::Object(message) => message,
        Value::Array(_) => {
            let message = "The body is an array. Send each message by itself.";
            return Err(Refusal::new(&nobody, INVALID_REQUEST, message));
        }
        _ => return Err(Refusal::new(&nobody, INVALID_REQUEST, "The body is no JSON-RPC object.")),
    };
    let id = match message.get("id") {
        None => None,
        Some(Value::String(id)) if id.len() <= ID_BYTES_MAX => Some(Value::from(id.as_str())),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Some(Value::from(id.clone())),
        Some(_) => {
            let message = format!("`id` must be an integer, or a text of at most {ID_BYTES_MAX} bytes.");
            return Err(Refusal::new(&nobody, INVALID_REQUEST, message));
        }
    };
    let known = id.as_ref().unwrap_or(&nobody);
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(Refusal::new(known, INVALID_REQUEST, "`jsonrpc` must be \"2.0\"."));
    }
    let method = message.get("method");
    let agreed = version.is_none_or(|version| REVISIONS.contains(&version));
    if !agreed && method.and_then(Value::as_str) != Some("initialize") {
        let message = format!(
            "`mcp-protocol-version` is \"{}\". It must be one of {}.",
            quote(version.unwrap_or_default()),
            REVISIONS.join(", "),
        );
        return Err(Refusal::new(known, INVALID_REQUEST, message));
    }
    let method = match method {
        Some(Value::String(method)) => method,
        None if message.contains_key("result") || message.contains_key("error") => {
            return Ok(Message::Silent);
        }
        _ => return Err(Refusal::new(known, INVALID_REQUEST, "`method` must be a text.")),
    };
    let Some(id) = id else { return Ok(Message::Silent) };
    let nothing = Map::new();
    let params = match message.get("params") {
        None => &nothing,
        Some(Value::Object(params)) => params,
        Some(_) => return Err(Refusal::new(&id, INVALID_PARAMS, "`params` must be an object.")),
    };
    let call = match method.as_str() {
        "initialize" => initialize(params),
        "ping" => Ok(Call::Ping),
        "tools/list" if params.contains_key("cursor") => {
            Err((INVALID_PARAMS, "There is no such `cursor`: all tools are in one list.".to_owned()))
        }
        "tools/list" => Ok(Call::ListTools),
        "tools/call" => tool(params),
        other => {
            let message = format!(
                "There is no method `{}` here, but initialize, ping, tools/list, tools/call.",
                quote(other)
            );
            Err((METHOD_NOT_FOUND, message))
        }
    };
    match call {
        Ok(call) => Ok(Message::Call(id, call)),
        Err((code, message)) => Err(Refusal::new(&id, code, message)),
    }
}

/// A revision that both sides speak; where there is none, ours, which the client may leave at.
fn initialize(params: &Map<String, Value>) -> Result<Call, (i32, String)> {
    let Some(wanted) = params.get("protocolVersion").and_then(Value::as_str) else {
        return Err((INVALID_PARAMS, "`protocolVersion` must be a text, such as \"2025-06-18\".".to_owned()));
    };
    let revision = REVISIONS.into_iter().find(|revision| *revision == wanted).unwrap_or(REVISIONS[0]);
    Ok(Call::Initialize { revision })
}

fn tool(params: &Map<String, Value>) -> Result<Call, (i32, String)> {
    const TOOLS: [&str; 3] = ["models", "verify", "explain"];
    let invalid = |message: String| (INVALID_PARAMS, message);
    let Some(name) = params.get("name").and_then(Value::as_str) else {
        return Err(invalid("`name` must be a tool's.".to_owned()));
    };
    if !TOOLS.contains(&name) {
        let message = match nearest(name, TOOLS.into_iter()) {
            Some(near) => format!("There is no tool `{}`. Did you mean `{near}`?", quote(name)),
            None => format!("There is no tool `{}`, but {}.", quote(name), TOOLS.join(", ")),
        };
        return Err(invalid(message));
    }
    let nothing = Map::new();
    let arguments = match params.get("arguments") {
        None | Some(Value::Null) => &nothing,
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err(invalid("`arguments` must be an object.".to_owned())),
    };
    let takes: &[&str] = if name == "models" { &[] } else { &["request_id"] };
    if let Some(other) = arguments.keys().find(|argument| !takes.contains(&argument.as_str())) {
        let takes = takes.first().map_or("none".to_owned(), |takes| format!("`{takes}`"));
        return Err(invalid(format!("`{name}` takes no argument `{}`; it takes {takes}.", quote(other))));
    }
    if name == "models" {
        return Ok(Call::Models);
    }
    let Some(request) = arguments.get("request_id").and_then(Value::as_str) else {
        return Err(invalid(format!("`{name}` needs `request_id`, a text.")));
    };
    let request = request.to_owned();
    Ok(if name == "verify" { Call::Verify { request } } else { Call::Explain { request } })
}

async fn result(shared: &Arc<Shared>, call: Call) -> Value {
    let found = match call {
        Call::Initialize { revision } => {
            return json!({
                "protocolVersion": revision,
                "capabilities": {"tools": {"listChanged": false}},
                "serverInfo": {"name": "surety", "title": "Surety", "version": SOFTWARE},
                "instructions": INSTRUCTIONS,
            });
        }
        Call::Ping => return json!({}),
        Call::ListTools => return json!({"tools": tools()}),
        Call::Models => Ok(models(&shared.workers.models(shared.started))),
        Call::Verify { request } => verify(shared, request).await,
        Call::Explain { request } => explain(shared, request).await,
    };
    match found {
        // Whoever reads no structures gets them as text.
        Ok(Finding { said, content }) => json!({
            "content": [text(said.join("\n")), text(content.to_string())],
            "structuredContent": content,
            "isError": false,
        }),
        Err(error) => json!({
            "content": [text(format!("{}: {}", error.code().as_str(), error.message()))],
            "isError": true,
        }),
    }
}

fn text(text: String) -> Value {
    json!({"type": "text", "text": text})
}

/// The tools, as `tools/list` has them.
fn tools() -> Value {
    let one = |name: &str, title: &str, about: &str, input: Value, output: Value| {
        let hints = json!({"readOnlyHint": true, "idempotentHint": true, "openWorldHint": false});
        json!({"name": name, "title": title, "description": about, "inputSchema": input, "outputSchema": output,
            "annotations": hints})
    };
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let of_request = json!({
        "type": "object",
        "properties": {"request_id": {
            "type": "string",
            "description": "As in the `x-request-id` header, or the answer's `id`: req_, chatcmpl-, cmpl-, resp_ or msg_ and 32 digits.",
        }},
        "required": ["request_id"],
        "additionalProperties": false,
    });
    let list = |of: &str| json!({"type": "array", "items": {"type": of}});
    let maybe = |of: &str| json!({"type": [of, "null"]});
    json!([
        one(
            "models",
            "Models",
            "The models that can be asked for now, with their immutable ids, contexts and how many workers are ready.",
            nothing,
            json!({"type": "object", "properties": {"models": list("object")}, "required": ["models"]}),
        ),
        one(
            "verify",
            "Verify an answer",
            "Checks the evidence kept for an answered request: every signature, and that request, tokens, text and charge are \
             what was signed. Says what that does not show.",
            of_request.clone(),
            json!({
                "type": "object",
                "properties": {
                    "request_id": {"type": "string"},
                    "verified": {"type": "boolean"},
                    "gateway": maybe("string"),
                    "answers": list("object"),
                    "checked": list("string"),
                    "not_checked": list("string"),
                    "failure": maybe("string"),
                },
                "required": ["request_id", "verified", "gateway", "answers", "checked", "not_checked", "failure"],
            }),
        ),
        one(
            "explain",
            "Explain a request",
            "What became of a request, answered or not: what the gateway states of it, what workers signed, and what the ledger \
             knows of audits, disputes and refunds.",
            of_request,
            json!({
                "type": "object",
                "properties": {
                    "request_id": {"type": "string"},
                    "statement": maybe("object"),
                    "papers": list("object"),
                    "evidence": maybe("string"),
                    "ledger": maybe("object"),
                    "no_ledger": maybe("string"),
                },
                "required": ["request_id", "statement", "papers", "evidence", "ledger", "no_ledger"],
            }),
        ),
    ])
}

fn models(models: &[Model]) -> Finding {
    let mut said: Vec<String> = models
        .iter()
        .map(|model| {
            let (context, ready) = (model.context_length, model.surety.workers_ready);
            format!("{}: a context of {context} tokens, ready workers: {ready}", model.id)
        })
        .collect();
    if said.is_empty() {
        said.push("No model can be asked for now.".to_owned());
    }
    Finding { said, content: json!({"models": models}) }
}

/// Checks what is kept of an answered request.
async fn verify(shared: &Arc<Shared>, request: String) -> Result<Finding, ApiError> {
    let (id, json) = kept(shared, Ok(Path(request))).await?;
    let _turn = CHECKS.acquire().await.map_err(|_| ApiError::bug("checks of evidence have ended"))?;
    let checking = tokio::task::spawn_blocking(move || {
        let evidence = readable(id, &json)?;
        Ok(match check_evidence(&evidence, None, &Expected::default()) {
            Ok(checked) => holding(&id.to_string(), &checked),
            Err(fault) => failing(&id.to_string(), &fault),
        })
    });
    checking.await.map_err(|_| ApiError::bug("checking evidence panicked"))?
}

fn holding(id: &str, evidence: &CheckedEvidence) -> Finding {
    let (mut checked, mut not_checked) = (Vec::new(), Vec::new());
    for answer in &evidence.answers {
        add(&mut checked, &answer.checked);
        add(&mut not_checked, &answer.unchecked);
    }
    add(&mut checked, &evidence.checked);
    add(&mut not_checked, &evidence.unchecked);
    not_checked
        .push("that request and text are those you sent and saw (compare them in the evidence)".to_owned());
    not_checked.push(format!(
        "this gateway, which checked all this by itself (`surety verify {id}` checks it where you run it)"
    ));
    let mut said = vec![format!("The signatures and bindings of the evidence of {id} hold.")];
    said.extend(checked.iter().map(|line| format!("Checked: {line}.")));
    said.extend(not_checked.iter().map(|line| format!("Not checked: {line}.")));
    let content = json!({
        "request_id": id,
        "verified": true,
        "gateway": evidence.envelope.gateway.to_string(),
        "answers": evidence.answers.iter().map(part).collect::<Vec<Value>>(),
        "checked": checked,
        "not_checked": not_checked,
        "failure": null,
    });
    Finding { said, content }
}

/// What one worker gave of an answer.
fn part(part: &Checked) -> Value {
    let failed = match &part.receipt {
        Some(receipt) => receipt.failure().map(|(code, message)| format!("{code}: {message}")),
        None => Some("broke off without a receipt".to_owned()),
    };
    json!({
        "model": part.order.model.to_string(),
        "worker": part.worker.to_string(),
        "prompt_tokens": part.prompt_tokens(),
        "first_output_token": part.order.resumed_tokens(),
        "output_tokens": part.output_tokens(),
        "charge": part.charge().to_string(),
        "finish": part.receipt.as_ref().map(|receipt| receipt.finish),
        "failed": failed,
    })
}

fn failing(id: &str, fault: &dyn Error) -> Finding {
    let mut failure = fault.to_string();
    let mut cause = fault.source();
    while let Some(deeper) = cause {
        failure = format!("{failure}: {deeper}");
        cause = deeper.source();
    }
    let content = json!({
        "request_id": id,
        "verified": false,
        "gateway": null,
        "answers": [],
        "checked": [],
        "not_checked": [],
        "failure": failure,
    });
    Finding { said: vec![format!("The evidence of {id} does not hold: {failure}.")], content }
}

/// Adds lines that are not there yet.
fn add<T: ToString>(lines: &mut Vec<String>, more: &[T]) {
    for line in more.iter().map(ToString::to_string) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
}

/// Tells what became of a request.
async fn explain(shared: &Arc<Shared>, request: String) -> Result<Finding, ApiError> {
    let dossier = gathered(shared, &request).await?;
    let id = dossier.request_id;
    let unsound = |_| ApiError::bug("a statement that it signed cannot be read");
    let statement =
        dossier.statement.as_deref().map(Signed::<Statement>::open).transpose().map_err(unsound)?;
    let mut said: Vec<String> = statement.iter().map(|statement| ending(statement)).collect();
    let (ledger, no_ledger) = match dossier.evidence.is_some() {
        true => match receipt_ledger(State(Arc::clone(shared)), Ok(Path(request))).await {
            Ok(Json(known)) => (Some(known), None),
            Err(error) => (None, Some(error.message().to_owned())),
        },
        false => (None, Some("There is no receipt of a whole answer to ask the ledger about.".to_owned())),
    };
    let known = ledger.iter().flat_map(|known| &known.parts);
    said.extend(known.flat_map(|part| &part.said).map(|line| format!("On the ledger: {line}.")));
    said.extend(no_ledger.iter().map(|why| format!("Of the ledger nothing: {why}")));
    said.push(format!(
        "A statement is its gateway's word. Who is accountable, `surety explain {id}` concludes from what was signed."
    ));
    let content = json!({
        "request_id": id,
        "statement": statement.as_deref(),
        "papers": dossier.papers.iter().map(paper).collect::<Vec<Value>>(),
        "evidence": dossier.evidence.is_some().then(|| format!("/v1/receipts/{id}")),
        "ledger": ledger,
        "no_ledger": no_ledger,
    });
    Ok(Finding { said, content })
}

/// How a request ended, in a sentence.
fn ending(statement: &Statement) -> String {
    let (id, charge) = (&statement.request_id, statement.charge);
    match &statement.end {
        StatedEnd::Answered => format!("{id} was answered; charged: {charge} micro-credits."),
        StatedEnd::Failed { code, message, accountable, .. } => format!(
            "{id} failed with {}; accountable, by the gateway's word: {}. {}",
            code.as_str(),
            accountable.as_str(),
            message.as_str(),
        ),
        StatedEnd::Left => format!("Whoever asked {id} left before it was answered."),
        StatedEnd::Stopped => format!("The gateway ended in the middle of {id}."),
        StatedEnd::Counted => format!("The prompt of {id} was counted; nothing else was asked."),
    }
}

/// What was signed about an order, in short.
fn paper(paper: &Paper) -> Value {
    let accepted = paper.acceptance.as_deref().and_then(|bytes| Signed::<Acceptance>::open(bytes).ok());
    let progress = paper.progress.as_deref().and_then(|bytes| Signed::<Progress>::open(bytes).ok());
    let receipt = paper.receipt.as_deref().and_then(|bytes| Signed::<Receipt>::open(bytes).ok());
    let order = Signed::<Order>::open(&paper.order).ok();
    let failed = receipt.as_ref().and_then(|receipt| receipt.failure());
    json!({
        "order": order.map(|order| order.digest().to_string()),
        "accepted_by": accepted.map(|accepted| accepted.worker.to_string()),
        "signed_output_tokens": progress.map(|progress| progress.output_tokens),
        "receipt": receipt.as_ref().map(|receipt| receipt.digest().to_string()),
        "failed": failed.map(|(code, message)| format!("{code}: {message}")),
    })
}

#[cfg(test)]
mod tests;
