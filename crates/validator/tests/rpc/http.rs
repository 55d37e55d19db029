//! HTTP by hand, so that what the wire carries is what is seen.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The status and the body of an answer.
pub async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += &format!("host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    // One that is refused early closes before it has read everything.
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    (status.unwrap_or_else(|| panic!("no status in {answer:?}")), body)
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            break;
        }
        whole += &rest[..size];
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

async fn call(address: SocketAddr, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string();
    let (status, answer) =
        exchange(address, "POST", "/", &[("content-type", "application/json")], &body).await;
    assert_eq!(status, 200, "{method}: {answer}");
    let answer: Value =
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{method}: {error}: {answer}"));
    assert_eq!(answer["id"], json!(7));
    answer
}

/// What a method answers.
pub async fn ask(address: SocketAddr, method: &str, params: Value) -> Value {
    let mut answer = call(address, method, params.clone()).await;
    assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
    answer["result"].take()
}

/// The error with which a method refuses.
pub async fn refused(address: SocketAddr, method: &str, params: Value) -> Value {
    let mut answer = call(address, method, params.clone()).await;
    assert!(answer.get("error").is_some(), "{method} {params}: {answer}");
    answer["error"].take()
}
