//! A client that leaves: calls of every kind, with keys and names, read to their end or to some byte.
//!
//! In:     a call. Out: what was answered; or that nothing was, or that it was left.
//! Touches: one TCP connection for each call.
//! Holds:  bounds of `wire`.
//! Absent: what to ask, and what of it should be answered (`operations`).

use std::fmt;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kill_matrix::wire::Head;

/// An answer that is not whole by then is lost.
const PATIENCE: Duration = Duration::from_secs(180);
/// Characters of a body that are shown.
const SHOWN: usize = 160;
const FORM_BOUNDARY: &str = "ledger-matrix";

/// What is asked.
#[derive(Clone, Debug)]
pub struct Call {
    /// `GET`, `POST` or `DELETE`.
    pub method: &'static str,
    /// With its query.
    pub path: String,
    /// The secret of a key; without one, the request pays for itself.
    pub secret: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its type, and what it is.
    pub body: (&'static str, String),
    /// Leave after so many bytes of the answer.
    pub leave_after: Option<usize>,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub enum Came {
    /// All of an answer.
    Answer(Reply),
    /// The caller left, as it wanted to, with what it had by then.
    Left(String),
    /// The connection was refused or broke.
    Lost,
}

/// An answer.
#[derive(Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// From `x-request-id`.
    pub request_id: Option<String>,
    /// From `payment-required`.
    pub payment_required: Option<String>,
    /// All of the body.
    pub body: String,
}

impl fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reply { status, request_id, body, .. } = self;
        let id = request_id.as_deref().unwrap_or("no id");
        let begins: String = body.chars().take(SHOWN).collect();
        write!(formatter, "{status} ({id}), {} bytes: {begins}", body.len())
    }
}

impl Call {
    /// A question of JSON.
    pub fn post(path: &str, secret: &str, body: &Value) -> Call {
        Call {
            method: "POST",
            path: path.to_owned(),
            secret: secret.to_owned(),
            headers: Vec::new(),
            body: ("application/json", body.to_string()),
            leave_after: None,
        }
    }

    /// A look.
    pub fn get(path: &str, secret: &str) -> Call {
        Call {
            method: "GET",
            body: ("application/json", String::new()),
            ..Call::post(path, secret, &Value::Null)
        }
    }

    /// A file for a batch.
    pub fn file(secret: &str, content: &str) -> Call {
        let part = |head: &str, content: &str| {
            format!("--{FORM_BOUNDARY}\r\ncontent-disposition: form-data; {head}\r\n\r\n{content}\r\n")
        };
        let form = [
            part("name=\"purpose\"", "batch"),
            part("name=\"file\"; filename=\"lines.jsonl\"", content),
            format!("--{FORM_BOUNDARY}--\r\n"),
        ]
        .concat();
        let body = ("multipart/form-data; boundary=ledger-matrix", form);
        Call { body, ..Call::post("/v1/files", secret, &Value::Null) }
    }

    /// With another header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.headers.push((name, value.into()));
        self
    }

    /// Calls.
    pub fn make(&self, host: &str) -> Came {
        self.try_make(host).unwrap_or(Came::Lost)
    }

    fn try_make(&self, host: &str) -> Result<Came> {
        let mut stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (kind, body) = &self.body;
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let key = match self.secret.as_str() {
            "" => String::new(),
            secret => format!("authorization: Bearer {secret}\r\n"),
        };
        let request = format!(
            "{} {} HTTP/1.1\r\nhost: {host}\r\n{key}content-type: {kind}\r\n{headers}connection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            self.method,
            self.path,
            body.len(),
        );
        stream.write_all(request.as_bytes())?;
        if let Some(bytes) = self.leave_after {
            let mut read = vec![0; bytes];
            // Less may come: then all of it was there.
            let (mut count, mut more) = (0, 1);
            while count < bytes && more > 0 {
                more = stream.read(&mut read[count..]).unwrap_or(0);
                count += more;
            }
            return Ok(Came::Left(String::from_utf8_lossy(&read[..count]).into_owned()));
        }
        let mut reader = BufReader::new(stream);
        let head = Head::read(&mut reader)?;
        let body = String::from_utf8(head.body(&mut reader)?).context("the body is not UTF-8")?;
        let header = |name| head.get(name).map(str::to_owned);
        let (request_id, payment_required) = (header("x-request-id"), header("payment-required"));
        Ok(Came::Answer(Reply { status: head.status, request_id, payment_required, body }))
    }
}

impl Reply {
    /// The body, if it is a document.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok()
    }

    /// The code of an error, in a document or in a stream.
    pub fn error_code(&self) -> Option<String> {
        let code = |json: Value| {
            let error = json.get("error").filter(|error| error.is_object())?;
            let code = error.get("code").or_else(|| error.pointer("/details/error_code"));
            Some(code.and_then(Value::as_str).unwrap_or("an error without a code").to_owned())
        };
        if let Some(json) = self.json() {
            return code(json);
        }
        let events = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        events.filter_map(|data| code(serde_json::from_str(data).ok()?)).next()
    }

    /// Whether it answers, and ends as answers end.
    pub fn is_whole(&self) -> bool {
        const ENDS: [&str; 4] = [
            "data: [DONE]",
            "event: message_stop",
            "event: response.completed",
            "event: response.incomplete",
        ];
        let is_stream = self.json().is_none();
        let ended = !is_stream || ENDS.iter().any(|end| self.body.contains(end));
        self.status == 200 && ended && self.error_code().is_none()
    }
}
