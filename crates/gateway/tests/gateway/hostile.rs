//! What no client of ours sends: every route is given nonsense, and connections do what they should not. Each time there is a clear
//! answer or an end, and whoever asks beside it is answered.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    fake::FakeWorker,
    http::{Answer, Site, request},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Every route that reads JSON.
const POSTS: [&str; 16] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/batches",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/quote",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
    "/api/show",
    "/mcp",
    "/v1/responses/resp_1/cancel",
    "/v1/batches/batch_1/cancel",
];

/// Sends bytes and reads until the other side ends, or has nothing more to say.
async fn raw(site: &Site, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(site.address).await.expect("a connection");
    // It may have been refused before it was sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time");
    // Whoever sends more than is read may see the connection reset.
    let _ = read;
    answer
}

async fn is_well(site: &Site) {
    assert_eq!(site.get("/health").await.status, 200);
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "still here"}]});
    let answer = site.chat(body).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "still here", "{}", answer.text());
}

/// The stable code of an error in any dialect.
fn code(answer: &Answer) -> String {
    let body = answer.json();
    let found = [&body["error"]["code"], &body["code"], &body["error"]["details"]["error_code"]];
    match found.into_iter().find_map(Value::as_str) {
        Some(code) => code.to_owned(),
        None => panic!("no code: {body}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_tells_what_is_wrong_with_nonsense() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let deep = |open: &str| open.repeat(100_000);
    let bodies = [
        "{".to_owned(),
        "{\"model\": tiny}".to_owned(),
        "{\"model\": \"tiny\"} trailing".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "17".to_owned(),
        "\"text\"".to_owned(),
        "{\"model\": \"\\ud800\"}".to_owned(),
        deep("["),
        deep("{\"a\":"),
        format!("{{\"model\": \"tiny\", \"messages\": {}{}}}", deep("["), deep("]")),
    ];
    for path in POSTS {
        for body in &bodies {
            let answer = site.post(path, body).await;
            let shown = &body[..body.len().min(40)];
            // JSON-RPC has a message's faults in answers that are well.
            if path == "/mcp" {
                assert!(answer.status < 500 && answer.json()["error"]["code"].is_i64(), "{shown}");
                continue;
            }
            assert!((400..500).contains(&answer.status), "{path} {shown}: {}", answer.status);
            assert!(!code(&answer).is_empty());
        }
        // Some read no body, or refuse whatever it says.
        if ["/cancel", "/mcp"].iter().any(|end| path.ends_with(end)) {
            continue;
        }
        // Ollama's clients declare nothing; pages, which may not ask, show whose they are.
        let origin = if path.starts_with("/api/") { "origin: http://elsewhere.example\r\n" } else { "" };
        let plain = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{origin}content-type: text/plain\r\n\
             content-length: 2\r\n\r\n{{}}"
        );
        let answer = request(site.address, &plain).await;
        assert_eq!((answer.status, code(&answer).as_str()), (415, "unsupported_media_type"), "{path}");
    }
    is_well(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_ends_with_a_status_and_harms_nobody() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let many: String = (0..5000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let large = format!("x-large: {}\r\n", "a".repeat(1 << 20));
    let get = |rest: &str| format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{rest}\r\n").into_bytes();
    let chat = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    for (what, bytes, statuses) in [
        ("many headers", get(&many), &[431, 400][..]),
        ("a large header", get(&large), &[431, 400]),
        (
            "a long path",
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 17)).into_bytes(),
            &[414, 431, 400],
        ),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(4), &[400]),
        ("HTTP/2 by force", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[400, 505]),
        ("a header without a name", get(": nothing\r\n"), &[400]),
        ("a header with a zero", get("x-zero: a\0b\r\n"), &[400]),
        ("a length that is none", format!("{chat}content-length: many\r\n\r\n").into_bytes(), &[400]),
        (
            "two lengths",
            format!("{chat}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}").into_bytes(),
            &[400],
        ),
        (
            "a coding that nobody knows",
            format!("{chat}transfer-encoding: gzip\r\n\r\n{{}}").into_bytes(),
            &[400, 501],
        ),
        (
            "chunks that are none",
            format!("{chat}transfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n{{}}\r\n")
                .into_bytes(),
            &[400],
        ),
        (
            "a chunk of more than there can be",
            format!("{chat}transfer-encoding: chunked\r\nconnection: close\r\n\r\n{}\r\n", "f".repeat(40))
                .into_bytes(),
            &[400],
        ),
    ] {
        let answer = raw(&site, &bytes).await;
        let line = String::from_utf8_lossy(&answer);
        let status = line.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5)?.parse::<u16>().ok());
        // A connection that is reset because more was sent than is read has no status; nor has one of another version, which is closed.
        assert!(
            status.is_none_or(|status| statuses.contains(&status)),
            "{what}: {}",
            line.lines().next().unwrap_or("")
        );
        assert!(
            status.is_some() || bytes.len() > 32 << 10 || bytes.starts_with(b"PRI "),
            "{what} is answered"
        );
    }
    is_well(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_connects_costs_a_place_for_a_while_and_nobody_else() {
    let worker = FakeWorker::start(1).await;
    let site = Site::with(&[&worker], |settings| {
        settings.limits.header_timeout = Duration::from_millis(500);
        settings.limits.body_timeout = Duration::from_millis(500);
    })
    .await;
    site.until_ready(1).await;
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(site.address).await.expect("a connection");
        let begun: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /health HTTP/1.1\r\nhost: local",
            _ => {
                b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                  content-length: 1000000\r\n\r\n{"
            }
        };
        stream.write_all(begun).await.expect("sent");
        silent.push((number, stream));
    }
    is_well(&site).await;
    // Every one of them is ended, and told why where there is a request to answer.
    for (number, mut stream) in silent {
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time");
        if number % 3 == 2 {
            assert!(answer.starts_with(b"HTTP/1.1 408"), "{read:?} {}", String::from_utf8_lossy(&answer));
        }
    }
    is_well(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_answered_without_chunks() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = raw(&site, b"GET /health HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with(b"{\"status\":\"ok\"}"), "{}", String::from_utf8_lossy(&answer));
    let body = json!({"model": "tiny", "stream": true, "messages": [{"role": "user", "content": "one two"}]});
    let text = body.to_string();
    let post = format!(
        "POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let answer = String::from_utf8(raw(&site, post.as_bytes()).await).expect("text");
    assert!(!answer.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
    assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_one_piece_are_answered_in_order() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let text = json!({"model": "tiny", "prompt": "in the middle"}).to_string();
    let post = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
    let all =
        [get("/health", ""), post, get("/nowhere", ""), get("/v1/models", "connection: close\r\n")].concat();
    let answers = String::from_utf8(raw(&site, all.as_bytes()).await).expect("text");
    let mut rest = answers.as_str();
    for part in [
        "HTTP/1.1 200",
        "\"ok\"",
        "HTTP/1.1 200",
        "in the middle",
        "HTTP/1.1 404",
        "HTTP/1.1 200",
        "\"list\"",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part} is not in {rest}"));
        rest = &rest[at + part.len()..];
    }
    assert!(!rest.contains("HTTP/1.1"), "four answers");
}
