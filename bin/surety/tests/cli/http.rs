//! HTTP as a client by hand.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
};

use serde_json::{Value, json};

/// A request to the API.
pub fn post(base_url: &str, path: &str, body: &Value) -> BufReader<TcpStream> {
    post_to(base_url.strip_suffix("/v1").unwrap(), &format!("/v1{path}"), body)
}

/// An HTTP/1.1 exchange by hand, so that what the wire carries is what is seen.
pub fn post_to(origin: &str, path: &str, body: &Value) -> BufReader<TcpStream> {
    exchange(origin, path, body, "").unwrap()
}

/// Asks for the rest of a stream, if somebody listens.
pub fn go_on(base_url: &str, body: &Value, last: &str) -> Option<BufReader<TcpStream>> {
    let origin = base_url.strip_suffix("/v1").unwrap();
    exchange(origin, "/v1/chat/completions", body, &format!("last-event-id: {last}\r\n")).ok()
}

/// A request with further headers, if somebody listens.
pub fn exchange(
    origin: &str,
    path: &str,
    body: &Value,
    headers: &str,
) -> std::io::Result<BufReader<TcpStream>> {
    let host = origin.strip_prefix("http://").unwrap();
    let body = body.to_string();
    let mut stream = TcpStream::connect(host)?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(BufReader::new(stream))
}

/// The headers and the body of what is there.
pub fn get(base_url: &str, path: &str) -> (String, Value) {
    let host = base_url.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /v1{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    BufReader::new(stream).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), serde_json::from_str(body).unwrap())
}

/// What the events of a stream say, whole or not.
pub fn said(stream: &str) -> String {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    let chunks = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

/// The headers and the body of a whole answer.
pub fn ask(base_url: &str, body: &Value) -> (String, Value) {
    let mut text = String::new();
    post(base_url, "/chat/completions", body).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{text}");
    (head.to_ascii_lowercase(), serde_json::from_str(body).unwrap())
}

/// The headers of an answer, if there is one: nobody may be listening, or nobody may be ready.
pub fn try_ask(base_url: &str, body: &Value) -> Option<String> {
    let host = base_url.strip_prefix("http://")?.strip_suffix("/v1")?;
    // Whoever is killed in between leaves a connection that breaks; that is no answer either.
    TcpStream::connect(host).ok()?;
    let mut text = String::new();
    post(base_url, "/chat/completions", body).read_to_string(&mut text).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| head.to_ascii_lowercase())
}

/// A question to the bundled model, with the same answer every time.
pub fn question(max_tokens: u32) -> Value {
    json!({
        "model": "shakespeare-demo", "max_tokens": max_tokens, "seed": 1,
        "messages": [{ "role": "user", "content": "Who goes there?" }],
    })
}

/// The request id in an answer's headers.
pub fn request_id(head: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    line.trim().to_owned()
}
