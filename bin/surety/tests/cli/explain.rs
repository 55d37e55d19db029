//! `surety explain`: requests that failed, error codes, and the fault matrix in its short form.
//!
//! `SURETY_FAULT_TIMES` sets how often each fault is injected; the long form is `cargo run --release -p xtask -- fault-matrix`.

use std::{io::Read, path::PathBuf};

use serde_json::{Value, json};
use xtask::fault_matrix::{Settings, run as run_matrix};

use crate::{
    http::{post, question, request_id},
    process::{Up, assert_status, assert_stderr, json as json_of, run, told},
};

/// What an error that is no stream says, and its request's id.
fn refused(up: &Up, body: &Value) -> (String, Value) {
    let mut text = String::new();
    post(&up.base_url(), "/chat/completions", body).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (request_id(&head.to_ascii_lowercase()), serde_json::from_str(body).unwrap())
}

#[test]
fn a_request_that_failed_is_explained_also_from_a_file_and_after_a_restart() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let file = dir.join("req.json");
    let path = file.to_str().unwrap();
    let mut up = Up::start(dir, &["--workers", "1", "--validators", "0"]);
    let mut body = question(4);
    body["temperature"] = json!(9);
    let (wrong, error) = refused(&up, &body);
    assert_eq!(error["error"]["code"], "invalid_param", "{error}");
    let mut body = question(4);
    body["surety"] = json!({ "worker": "00000000" });
    let (ruled_out, _) = refused(&up, &body);

    let explained = run(dir, &["explain", &ruled_out, "--export", path]);
    assert_status(&explained, 1);
    let shown = String::from_utf8_lossy(&explained.stdout);
    for line in
        ["THE CALLER:", "ruled out: 1 surety.worker", "no proof", "surety explain no_worker", "0 credits"]
    {
        assert!(shown.contains(line), "{line}: {}", told(&explained));
    }
    let offline = run(dir, &["explain", path, "--offline"]);
    assert_eq!(offline.stdout, explained.stdout, "{}", told(&offline));
    // Somebody else's word for it does not count.
    let mut changed: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    changed["request_id"] = json!("req_00000000000000000000000000000000");
    std::fs::write(&file, changed.to_string()).unwrap();
    let changed = run(dir, &["explain", path, "--offline"]);
    assert_status(&changed, 1);
    assert!(told(&changed).contains("NOT KNOWN: what is shown does not hold"), "{}", told(&changed));

    up.signal(rustix::process::Signal::TERM);
    up.wait();
    let up = Up::start(dir, &["--workers", "1", "--validators", "0"]);
    let explained = json_of(&run(dir, &["explain", &wrong, "--json"]));
    assert_eq!(
        (&explained["accountable"], &explained["code"], &explained["basis"]),
        (&json!("caller"), &json!("invalid_param"), &json!("gateways_word")),
        "{explained}"
    );
    let nothing = run(dir, &["explain", "req_00000000000000000000000000000000"]);
    assert_status(&nothing, 1);
    assert!(told(&nothing).contains("NOT KNOWN: this gateway keeps nothing of it"), "{}", told(&nothing));
    drop(up);
}

#[test]
fn error_codes_are_explained() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let codes = run(dir, &["explain", "--codes", "--json"]);
    assert_status(&codes, 0);
    let codes = json_of(&codes);
    assert!(codes.as_array().unwrap().len() >= 23, "{codes}");
    for code in codes.as_array().unwrap() {
        let one = run(dir, &["explain", code["code"].as_str().unwrap()]);
        assert_status(&one, 0);
        let shown = String::from_utf8_lossy(&one.stdout);
        for line in ["means", "what_to_do", "retry"] {
            assert!(shown.contains(code[line].as_str().unwrap()), "{line}: {shown}");
        }
    }
    let unknown = run(dir, &["explain", "no_such_code"]);
    assert_status(&unknown, 1);
    assert_stderr(&unknown, "surety explain --codes");
}

#[test]
fn faults_are_blamed_on_who_answers_for_them() {
    let times = std::env::var("SURETY_FAULT_TIMES").ok().and_then(|times| times.parse().ok());
    let only = match times {
        Some(_) => Vec::new(),
        None => {
            let short = "none ruled-out wrong-key worker-crash worker-hang gateway-killed storage-damaged";
            short.split(' ').map(str::to_owned).collect()
        }
    };
    let settings = Settings {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_surety")),
        times: times.unwrap_or(1),
        seed: 1,
        only,
        at_once: 1,
    };
    let report = run_matrix(&settings).unwrap();
    report.lines().iter().for_each(|line| println!("{line}"));
    assert_eq!(report.failures(), Vec::<String>::new());
}
