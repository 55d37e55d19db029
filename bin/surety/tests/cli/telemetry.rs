//! What those see who watch: metrics, spans, logs for programs.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    http::{question, request_id},
    process::{Up, surety, wait},
};

const TRACE: [u8; 16] =
    [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector that takes whatever it is sent: paths and bodies.
fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            thread::spawn(move || take(stream.unwrap(), &sender));
        }
    });
    (url, received)
}

fn take(mut stream: TcpStream, sender: &mpsc::Sender<(String, Vec<u8>)>) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            read(&mut stream, &mut bytes)?;
        };
        let head = String::from_utf8(bytes.drain(..end).collect()).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
        });
        let length = length.unwrap_or(0);
        while bytes.len() < length {
            read(&mut stream, &mut bytes)?;
        }
        let path = head.split(' ').nth(1).unwrap().to_owned();
        sender.send((path, bytes.drain(..length).collect())).ok()?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            bytes.extend_from_slice(&buffer[..count]);
            Some(())
        }
    }
}

/// Sends a request; the head and the body of the answer.
fn exchange(base_url: &str, request: &str) -> (String, String) {
    let host = base_url.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(request.replace("HOST", host).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn an_answer_is_a_span_of_its_callers_trace_a_few_numbers_and_a_line() {
    let data_dir = tempfile::tempdir().unwrap();
    let (url, spans) = collector();
    let mut command = surety(data_dir.path());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &url).env("OTEL_BSP_SCHEDULE_DELAY", "100");
    command.env("SURETY_LOG", "info").env("SURETY_LOG_FORMAT", "json");
    let up = Up::of(command, &["--workers", "1", "--validators", "0"]);
    let body = question(5).to_string();
    let (head, _) = exchange(
        &up.base_url(),
        &format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: HOST\r\ntraceparent: {PARENT}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    let id = request_id(&head.to_ascii_lowercase());

    let holds = |bytes: &[u8], wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    let (path, span) = spans.recv_timeout(Duration::from_secs(30)).expect("a span");
    assert_eq!(path, "/v1/traces");
    assert!(holds(&span, &TRACE), "the span is not of the caller's trace");
    for wanted in
        ["gen_ai.usage.output_tokens", "gen_ai.response.finish_reasons", "length", &id, "surety.receipt"]
    {
        assert!(holds(&span, wanted.as_bytes()), "{wanted}: {}", String::from_utf8_lossy(&span));
    }
    assert!(!holds(&span, b"Who goes there"), "the prompt is in the span");

    let get = "GET /metrics HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n\r\n";
    let (head, page) = exchange(&up.base_url(), get);
    assert!(head.to_ascii_lowercase().contains("content-type: application/openmetrics-text"), "{head}");
    for start in [
        "gen_ai_client_token_usage_sum{gen_ai_operation_name=\"chat\"",
        "gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name=\"chat\"",
        "surety_workers{state=\"ready\"} 1",
        "surety_http_requests_total{method=\"POST\",path=\"/v1/chat/completions\",status=\"200\"} 1",
    ] {
        assert!(page.lines().any(|line| line.starts_with(start)), "{start}:\n{page}");
    }

    let told = || {
        let stderr = up.stderr.lock().unwrap().clone();
        let lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["request"] == id.as_str()).collect::<Vec<_>>()
    };
    wait(
        || told().iter().any(|line| line["message"] == "answer complete"),
        "a line of JSON about the answer",
    );
    let stderr = up.stderr.lock().unwrap();
    assert!(!stderr.contains("Who goes there"), "the prompt is in the log");
}
