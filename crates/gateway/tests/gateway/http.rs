//! A small HTTP client that shows what is on the wire, and a gateway to point it at.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use surety_gateway::{Gateway, GatewaySettings, RunningGateway};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::fake::FakeWorker;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway in a directory of its own.
pub struct Site {
    pub gateway: RunningGateway,
    pub address: SocketAddr,
    pub directory: TempDir,
}

impl Site {
    /// A gateway in front of workers, all of which it has heard.
    pub async fn start(workers: &[&FakeWorker]) -> Site {
        let site = Self::with(workers, |_| {}).await;
        site.until_ready(workers.len()).await;
        site
    }

    /// A gateway with other settings, which may not be ready.
    pub async fn with(workers: &[&FakeWorker], change: impl FnOnce(&mut GatewaySettings)) -> Site {
        let directory = tempfile::tempdir().expect("a directory");
        let mut settings = settings(&directory);
        settings.workers = workers.iter().map(|worker| worker.address).collect();
        change(&mut settings);
        let gateway = Gateway::start(settings).await.expect("a gateway");
        Site { address: gateway.address(), gateway, directory }
    }

    /// Waits until so many workers are ready.
    pub async fn until_ready(&self, count: usize) {
        self.until(|status| ready(status) == count).await;
    }

    /// Waits until the network's status is as wanted.
    pub async fn until(&self, wanted: impl Fn(&Value) -> bool) {
        let reached = async {
            loop {
                if wanted(&self.get("/v1/network/status").await.json()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("the workers should get there");
    }

    pub async fn get(&self, path: &str) -> Answer {
        request(self.address, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
            .await
    }

    pub async fn chat(&self, body: Value) -> Answer {
        self.post("/v1/chat/completions", &body.to_string()).await
    }

    pub async fn complete(&self, body: Value) -> Answer {
        self.post("/v1/completions", &body.to_string()).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        request(self.address, &post(path, body)).await
    }

    /// Posts with further headers, each ended by a line's end.
    pub async fn post_with(&self, path: &str, headers: &str, body: &str) -> Answer {
        request(self.address, &with(&post(path, body), headers)).await
    }

    /// Gets with further headers.
    pub async fn get_with(&self, path: &str, headers: &str) -> Answer {
        let text = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        request(self.address, &with(&text, headers)).await
    }

    /// Posts with further headers, and closes the connection when so many bytes of the answer have come.
    pub async fn drop_after(&self, path: &str, headers: &str, body: &str, bytes: usize) {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(with(&post(path, body), headers).as_bytes()).await.expect("sent");
        let mut seen = 0;
        let mut piece = [0; 64];
        while seen < bytes {
            let most = piece.len().min(bytes - seen);
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut piece[..most])).await;
            match read.expect("more in time").expect("more") {
                0 => return,
                read => seen += read,
            }
        }
    }

    /// Asks for the rest of a stream.
    pub async fn go_on(&self, path: &str, body: &str, last: &str) -> Answer {
        let request_text = post(path, body).replacen("\r\n", &format!("\r\nLast-Event-ID: {last}\r\n"), 1);
        request(self.address, &request_text).await
    }

    /// Sends a request and leaves its answer to be read.
    pub async fn open(&self, path: &str, body: &str) -> Wire {
        self.open_with(path, "", body).await
    }

    /// The same with further headers.
    pub async fn open_with(&self, path: &str, headers: &str, body: &str) -> Wire {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(with(&post(path, body), headers).as_bytes()).await.expect("sent");
        Wire { stream, seen: Vec::new() }
    }
}

pub fn settings(directory: &TempDir) -> GatewaySettings {
    let mut settings = GatewaySettings::new("127.0.0.1:0".parse().expect("an address"), directory.path());
    settings.limits.status_interval = Duration::from_millis(50);
    settings.limits.stall_timeout = Duration::from_secs(1);
    settings.limits.search_timeout = Duration::from_millis(500);
    settings.limits.stop_grace = Duration::from_millis(1500);
    settings
}

fn ready(status: &Value) -> usize {
    let workers = status["workers"].as_array().expect("workers");
    workers.iter().filter(|worker| worker["state"] == "ready").count()
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len(),
    )
}

/// A request's text with further headers.
fn with(text: &str, headers: &str) -> String {
    text.replacen("\r\n", &format!("\r\n{headers}"), 1)
}

/// Sends bytes and reads the answer to its end.
pub async fn request(address: SocketAddr, text: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // A server may answer before it has read everything.
        let _ = stream.write_all(text.as_bytes()).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("an answer");
        bytes
    };
    Answer::parse(&tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time"))
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let split = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = str::from_utf8(&bytes[..split]).expect("a head of text");
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .expect("a status")
            .parse()
            .expect("a number");
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").expect("a header"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let body = &bytes[split + 4..];
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if chunked { unchunk(body) } else { body.to_vec() };
        Answer { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The data of its server-sent events.
    pub fn events(&self) -> Vec<String> {
        self.text()
            .split("\n\n")
            .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
            .map(str::to_owned)
            .collect()
    }

    /// The ids of its server-sent events.
    pub fn event_ids(&self) -> Vec<String> {
        self.text().lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned).collect()
    }

    /// Its events as JSON, which must end with `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{}", self.text());
        events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
    }

    /// The error it tells of, by code; everything an error must have is there.
    pub fn error(&self) -> Value {
        let error = self.json()["error"].clone();
        check_error(&error);
        assert_eq!(error["metadata"]["request_id"].as_str(), self.header("x-request-id"));
        if error["metadata"]["retryable"] == false {
            assert_eq!(self.header("x-should-retry"), Some("false"), "{error}");
        }
        error
    }

    /// The error frame its events end with; there must be no `[DONE]`.
    pub fn error_frame(&self) -> Value {
        let events = self.events();
        assert!(!events.iter().any(|event| event == "[DONE]"), "{}", self.text());
        let last: Value = serde_json::from_str(events.last().expect("an event")).expect("JSON");
        check_error(&last["error"]);
        last["error"].clone()
    }
}

fn check_error(error: &Value) {
    let text = |name: &str| error[name].as_str().unwrap_or_else(|| panic!("no {name} in {error}"));
    assert!(!text("type").is_empty() && !text("code").is_empty());
    let id = error["metadata"]["request_id"].as_str().expect("an id");
    assert!(text("message").ends_with(&format!("id={id}")), "{error}");
    assert!(error.get("param").is_some());
    assert_eq!(error["metadata"]["charged"], "0");
    assert!(error["metadata"]["accountable"].is_string() && error["metadata"]["hop"].is_string());
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
            // Cut off: what came is what there is.
            return body;
        };
        let size = str::from_utf8(&bytes[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return body;
        }
        let rest = &bytes[end + 2..];
        if rest.len() < size + 2 {
            body.extend_from_slice(&rest[..rest.len().min(size)]);
            return body;
        }
        body.extend_from_slice(&rest[..size]);
        bytes = &rest[size + 2..];
    }
}

/// A connection whose answer is read piece by piece.
pub struct Wire {
    pub stream: TcpStream,
    seen: Vec<u8>,
}

impl Wire {
    /// Reads until a text has come.
    pub async fn until(&mut self, text: &str) {
        let found = async {
            while !self.seen.windows(text.len()).any(|window| window == text.as_bytes()) {
                let mut piece = [0; 4096];
                let length = self.stream.read(&mut piece).await.expect("more");
                assert_ne!(length, 0, "it ended without {text}: {}", String::from_utf8_lossy(&self.seen));
                self.seen.extend_from_slice(&piece[..length]);
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{text} should come"));
    }

    /// What has come so far, as an answer.
    pub fn so_far(&self) -> Answer {
        Answer::parse(&self.seen)
    }

    /// Reads the rest.
    pub async fn rest(mut self) -> Answer {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.seen)).await;
        read.expect("an end in time").expect("an end");
        Answer::parse(&self.seen)
    }
}
