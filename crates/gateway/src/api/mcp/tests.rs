//! What is read of messages, and what is refused.

use axum::http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn call(text: &str) -> Call {
    match read(text, None) {
        Ok(Message::Call(id, call)) => {
            assert_eq!(id, json!(1), "{text}");
            call
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn calls_are_read() {
    for (text, expected) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Call::Ping),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{}}}"#, Call::ListTools),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"models"}}"#, Call::Models),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":{"request_id":"x"}}}"#,
            Call::Verify { request: "x".to_owned() },
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"explain","arguments":{"request_id":"x"}}}"#,
            Call::Explain { request: "x".to_owned() },
        ),
    ] {
        assert_eq!(call(text), expected);
    }
    for (wanted, revision) in
        [("2025-03-26", "2025-03-26"), ("2024-11-05", "2024-11-05"), ("2099-01-01", "2025-06-18")]
    {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{wanted}"}}}}"#
        );
        assert_eq!(call(&text), Call::Initialize { revision });
    }
}

#[test]
fn what_wants_no_answer_gets_none() {
    for text in [
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","method":"unheard/of","params":[]}"#,
        r#"{"jsonrpc":"2.0","id":"a","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":4,"error":{"code":1,"message":"x"}}"#,
    ] {
        assert_eq!(read(text, None).expect("taken"), Message::Silent, "{text}");
    }
}

#[test]
fn what_is_refused_says_why_by_its_code() {
    for (text, code, id) in [
        ("{", PARSE_ERROR, Value::Null),
        ("[]", INVALID_REQUEST, Value::Null),
        ("7", INVALID_REQUEST, Value::Null),
        (r#"{"id":1,"method":"ping"}"#, INVALID_REQUEST, json!(1)),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, INVALID_REQUEST, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, INVALID_REQUEST, Value::Null),
        (r#"{"jsonrpc":"2.0","id":"a","method":7}"#, INVALID_REQUEST, json!("a")),
        (r#"{"jsonrpc":"2.0","id":"a"}"#, INVALID_REQUEST, json!("a")),
        (r#"{"jsonrpc":"2.0","id":2,"method":"resources/list"}"#, METHOD_NOT_FOUND, json!(2)),
        (r#"{"jsonrpc":"2.0","id":2,"method":"ping","params":[]}"#, INVALID_PARAMS, json!(2)),
        (r#"{"jsonrpc":"2.0","id":2,"method":"initialize"}"#, INVALID_PARAMS, json!(2)),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"cursor":"x"}}"#,
            INVALID_PARAMS,
            json!(2),
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"verfy"}}"#,
            INVALID_PARAMS,
            json!(2),
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"verify"}}"#,
            INVALID_PARAMS,
            json!(2),
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"models","arguments":{"all":true}}}"#,
            INVALID_PARAMS,
            json!(2),
        ),
    ] {
        let refusal = read(text, None).expect_err(text);
        assert_eq!((refusal.code, &refusal.id), (code, &id), "{text}");
    }
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert!(read(ping, Some("2025-06-18")).is_ok());
    let refusal = read(ping, Some("1999-01-01")).expect_err("unknown");
    assert_eq!((refusal.code, refusal.status()), (INVALID_REQUEST, StatusCode::BAD_REQUEST));
}

#[test]
fn pages_of_other_sites_are_kept_out() {
    for (origin, host, may) in [
        (None, "localhost:1", true),
        (Some("http://localhost:1"), "localhost:1", true),
        (Some("https://Gate.example"), "gate.example", true),
        (Some("http://localhost:2"), "localhost:1", false),
        (Some("https://evil.example"), "localhost:1", false),
        (Some("null"), "localhost:1", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        assert_eq!(check_origin(&headers).is_ok(), may, "{origin:?}");
    }
}

/// JSON of a few shapes, with what a message has among its names.
fn values() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "jsonrpc",
        "2.0",
        "id",
        "method",
        "params",
        "name",
        "arguments",
        "request_id",
        "verify",
        "explain",
        "models",
        "tools/call",
        "initialize",
        "protocolVersion",
        "cursor",
        "result",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        names.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone(), inner, 0..8).prop_map(|entries| {
                Value::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

/// Whatever was sent: it is taken, or refused with a code of JSON-RPC's and the id it came with.
fn check_any(text: &str) {
    if let Err(refusal) = read(text, None) {
        let known = [PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS];
        assert!(known.contains(&refusal.code), "{refusal:?}");
        assert!(refusal.status().as_u16() <= 400);
        assert!(refusal.id.is_null() || refusal.id.is_string() || refusal.id.is_number());
        assert!(refusal.message.len() < 600, "{refusal:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        check_any(&text);
    }

    #[test]
    fn any_json_is_read_or_refused(value in values()) {
        check_any(&value.to_string());
    }

    #[test]
    fn any_message_is_read_or_refused(params in values(), method in 0usize..4) {
        let method = ["initialize", "ping", "tools/list", "tools/call"][method];
        check_any(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string());
    }
}
