//! A client by hand, so that what the wire carries, and when, is what is judged.
//!
//! In:     a question, and a place to tell how far the answer is.
//! Out:    the texts, how the answer ended, and the longest silence on the way.
//! Touches: one TCP connection for each question.
//! Holds:  an answer is whole, or its failure was told, or it was cut off silently: one of the three, always.
//! Absent: what should have come (`kill_matrix`).

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// An answer that is not whole by then is lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// No header, chunk or body here is longer.
const BYTES_MAX: u64 = 16 << 20;

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it should: `[DONE]`, or a whole document.
    Whole,
    /// With an error in words, in the stream or instead of the answer.
    Told(String),
    /// It just ended. This must never happen.
    Cut(String),
}

/// What came of a question.
#[derive(Clone, Debug)]
pub struct Heard {
    /// How it ended.
    pub ended: Ended,
    /// By choice: the text and why it ended.
    pub choices: BTreeMap<u64, (String, Option<String>)>,
    /// From `x-request-id`.
    pub request_id: Option<String>,
    /// From `x-surety-workers`.
    pub workers: Vec<String>,
    /// What it cost, in micro-credits.
    pub cost: Option<u128>,
    /// Where the gateway says the time went when one worker took over from another.
    pub waits: Vec<Wait>,
    /// The longest time without text: from the question to the first, between two, from the last to the end.
    pub silence: Duration,
    /// From the question to the end.
    pub took: Duration,
}

/// Where the time went when one worker took over from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Until the gateway looked for another.
    pub noticed: Duration,
    /// From then until one had accepted.
    pub placed: Duration,
    /// From then until something new came.
    pub began: Duration,
}

impl Wait {
    fn of(json: &Value) -> Self {
        let ms = |name: &str| Duration::from_millis(json[name].as_u64().unwrap_or(0));
        Wait { noticed: ms("noticed_ms"), placed: ms("placed_ms"), began: ms("began_ms") }
    }

    /// All of it.
    pub fn sum(&self) -> Duration {
        self.noticed + self.placed + self.began
    }
}

/// How far an answer is, for whoever watches.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Far>>);

/// See [`Progress`].
#[derive(Clone, Debug, Default)]
pub struct Far {
    /// Bytes of text so far, of all choices.
    pub text_bytes: usize,
    /// Who answers, once the headers said so.
    pub worker: Option<String>,
    /// Nothing more comes.
    pub ended: bool,
}

impl Progress {
    /// How far it is now.
    pub fn now(&self) -> Far {
        self.0.lock().expect("nobody panics while holding it").clone()
    }

    fn tell(&self, change: impl FnOnce(&mut Far)) {
        change(&mut self.0.lock().expect("nobody panics while holding it"));
    }
}

/// Asks and hears the answer to its end, however that is.
pub fn ask(host: &str, path: &str, body: &Value, progress: &Progress) -> Heard {
    ask_with(host, None, path, body, progress)
}

/// The same with an API key, where one is given.
pub fn ask_with(host: &str, key: Option<&str>, path: &str, body: &Value, progress: &Progress) -> Heard {
    let started = Instant::now();
    let mut heard = Heard {
        ended: Ended::Cut("nothing came".into()),
        choices: BTreeMap::new(),
        request_id: None,
        workers: Vec::new(),
        cost: None,
        waits: Vec::new(),
        silence: Duration::ZERO,
        took: Duration::ZERO,
    };
    let mut last = started;
    heard.ended = match hear(send(host, key, "POST", path, Some(body)), progress, &mut heard, &mut last) {
        Ok(ended) => ended,
        Err(error) => Ended::Cut(format!("{error:#}")),
    };
    heard.silence = heard.silence.max(last.elapsed());
    heard.took = started.elapsed();
    progress.tell(|far| far.ended = true);
    heard
}

fn hear(
    sent: Result<BufReader<TcpStream>>,
    progress: &Progress,
    heard: &mut Heard,
    last: &mut Instant,
) -> Result<Ended> {
    let mut reader = sent?;
    let head = Head::read(&mut reader)?;
    heard.request_id = head.get("x-request-id").map(str::to_owned);
    heard.workers = head
        .get("x-surety-workers")
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(|id| id.trim().into())
        .collect();
    heard.cost = head.get("x-surety-cost").and_then(|cost| cost.parse().ok());
    progress.tell(|far| far.worker = heard.workers.first().cloned());
    if head.get("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        return events(&mut reader, progress, heard, last);
    }
    let bytes = head.body(&mut reader)?;
    let document: Value = serde_json::from_slice(&bytes).context("the body is no JSON")?;
    if let Some(message) = document["error"]["message"].as_str() {
        return Ok(Ended::Told(message.to_owned()));
    }
    if head.status != 200 {
        bail!("status {} without an error", head.status);
    }
    take(&document, heard);
    Ok(Ended::Whole)
}

/// A stream of events, in chunks, up to its end.
fn events(
    reader: &mut BufReader<TcpStream>,
    progress: &Progress,
    heard: &mut Heard,
    last: &mut Instant,
) -> Result<Ended> {
    let mut pending: Vec<u8> = Vec::new();
    let (mut done, mut told) = (false, None);
    while let Some(chunk) = chunk(reader)? {
        pending.extend_from_slice(&chunk);
        while let Some(at) = pending.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = pending.drain(..at + 2).collect();
            let event = std::str::from_utf8(&event).context("an event is not UTF-8")?;
            // Other lines are comments.
            let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
            if data.trim() == "[DONE]" {
                done = true;
                continue;
            }
            let data: Value = serde_json::from_str(data).context("an event is no JSON")?;
            if let Some(message) = data["error"]["message"].as_str() {
                told = Some(message.to_owned());
                continue;
            }
            let text_bytes = take(&data, heard);
            if text_bytes > 0 {
                heard.silence = heard.silence.max(last.elapsed());
                *last = Instant::now();
                progress.tell(|far| far.text_bytes += text_bytes);
            }
        }
    }
    match (done, told) {
        (_, Some(message)) => Ok(Ended::Told(message)),
        (true, None) => Ok(Ended::Whole),
        (false, None) => bail!("the stream ended without [DONE] and without an error"),
    }
}

/// Takes the texts of a document or of one event; returns the bytes of new text.
fn take(json: &Value, heard: &mut Heard) -> usize {
    let mut text_bytes = 0;
    for choice in json["choices"].as_array().into_iter().flatten() {
        let (text, finish) = heard.choices.entry(choice["index"].as_u64().unwrap_or(0)).or_default();
        let pieces = [&choice["delta"]["content"], &choice["message"]["content"], &choice["text"]];
        for piece in pieces.into_iter().filter_map(Value::as_str) {
            text_bytes += piece.len();
            text.push_str(piece);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            *finish = Some(reason.to_owned());
        }
    }
    if let Some(cost) = json["surety"]["cost"].as_str() {
        heard.cost = cost.parse().ok();
    }
    heard.waits.extend(json["surety"]["waits"].as_array().into_iter().flatten().map(Wait::of));
    text_bytes
}

/// The JSON that a GET answers.
pub fn get(host: &str, path: &str) -> Result<Value> {
    get_with(host, None, path)
}

/// The same with an API key, where one is given.
pub fn get_with(host: &str, key: Option<&str>, path: &str) -> Result<Value> {
    document(send(host, key, "GET", path, None)?, path)
}

/// The JSON that a POST answers.
pub fn post(host: &str, key: Option<&str>, path: &str, body: &Value) -> Result<Value> {
    document(send(host, key, "POST", path, Some(body))?, path)
}

fn document(mut reader: BufReader<TcpStream>, path: &str) -> Result<Value> {
    let head = Head::read(&mut reader)?;
    let bytes = head.body(&mut reader)?;
    if head.status != 200 {
        bail!("{path} answers {}: {}", head.status, String::from_utf8_lossy(&bytes));
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// The result of a call to a validator.
pub fn rpc(host: &str, method: &str, params: Value) -> Result<Value> {
    let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let mut reader = send(host, None, "POST", "/", Some(&body))?;
    let head = Head::read(&mut reader)?;
    let mut answer: Value = serde_json::from_slice(&head.body(&mut reader)?)?;
    if let Some(error) = answer.get("error") {
        bail!("{method}: {error}");
    }
    Ok(answer["result"].take())
}

fn send(
    host: &str,
    key: Option<&str>,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\n\
         {key}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    Ok(BufReader::new(stream))
}

/// The status and headers of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: BTreeMap<String, String>,
}

impl Head {
    pub(crate) fn read(reader: &mut impl BufRead) -> Result<Self> {
        let status = line(reader)?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.context("the answer has no status")?;
        let mut headers = BTreeMap::new();
        loop {
            let line = line(reader)?;
            if line.is_empty() {
                return Ok(Head { status, headers });
            }
            let (name, value) = line.split_once(':').context("a header has no colon")?;
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The whole body, or an error if less came than was announced.
    pub(crate) fn body(&self, reader: &mut impl BufRead) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        match self.get("content-length") {
            Some(length) => {
                let length: u64 = length.parse()?;
                reader.by_ref().take(length.min(BYTES_MAX)).read_to_end(&mut body)?;
                if (body.len() as u64) < length {
                    bail!("the body broke off after {} of {length} bytes", body.len());
                }
            }
            None => {
                while let Some(chunk) = chunk(reader)? {
                    body.extend_from_slice(&chunk);
                }
            }
        }
        Ok(body)
    }
}

fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    reader.by_ref().take(BYTES_MAX).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(whole) => Ok(whole.to_owned()),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// The next chunk of a body in chunks; none after the last.
fn chunk(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let size = line(reader)?;
    let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16)?;
    anyhow::ensure!(size as u64 <= BYTES_MAX, "a chunk of {size} bytes");
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What is made of bytes that a server sends before it closes the connection.
    fn check(sent: &'static str, expected: impl Fn(&Heard)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1 << 10];
            while !request.ends_with(b"}") {
                let count = stream.read(&mut request).unwrap();
                if request[..count].ends_with(b"}") {
                    break;
                }
            }
            stream.write_all(sent.as_bytes()).unwrap();
        });
        let heard = ask(&host, "/", &serde_json::json!({}), &Progress::default());
        server.join().unwrap();
        expected(&heard);
    }

    const STREAM: &str =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

    #[test]
    fn an_end_is_whole_told_or_cut() {
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let piece = chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ab\"}}]}\n\n");
        let end = "0\r\n\r\n";
        check(leak(format!("{STREAM}{piece}{}{end}", chunk("data: [DONE]\n\n"))), |heard| {
            assert_eq!((&heard.ended, heard.choices[&0].0.as_str()), (&Ended::Whole, "ab"));
        });
        let told = chunk("data: {\"error\":{\"message\":\"lost\"}}\n\n");
        check(leak(format!("{STREAM}{piece}{told}{end}")), |heard| {
            assert_eq!(heard.ended, Ended::Told("lost".into()));
        });
        for cut in
            [String::new(), STREAM.to_owned(), format!("{STREAM}{piece}"), format!("{STREAM}{piece}{end}")]
        {
            check(leak(cut.clone()), |heard| {
                assert!(matches!(heard.ended, Ended::Cut(_)), "{cut:?}: {heard:?}")
            });
        }
        let note = r#"data: {"surety":{"waits":[{"noticed_ms":3,"placed_ms":2,"began_ms":1}]}}"#;
        let waited = chunk(&format!("{note}\n\ndata: [DONE]\n\n"));
        check(leak(format!("{STREAM}{waited}{end}")), |heard| {
            assert_eq!(heard.waits.iter().map(Wait::sum).collect::<Vec<_>>(), [Duration::from_millis(6)]);
        });
        let document = "HTTP/1.1 200 OK\r\ncontent-length: 29\r\n\r\n";
        let whole = "{\"choices\":[{\"text\":\"abcd\"}]}";
        assert_eq!(whole.len(), 29);
        check(leak(format!("{document}{whole}")), |heard| {
            assert_eq!((&heard.ended, heard.choices[&0].0.as_str()), (&Ended::Whole, "abcd"));
        });
        check(leak(format!("{document}{}", &whole[..20])), |heard| {
            assert!(matches!(heard.ended, Ended::Cut(_)), "{heard:?}");
        });
    }
}
