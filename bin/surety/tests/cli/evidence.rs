//! `surety evidence`: what a gateway noted, gathered, and read again from files.

use std::fs;

use serde_json::{Value, json};

use crate::{
    http::{ask, post, question, request_id},
    process::{Up, assert_status, assert_stderr, json as json_of, run},
};

#[test]
fn what_was_asked_is_gathered_without_its_texts_and_explained_from_files() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(dir, &["--workers", "1", "--validators", "0"]);
    let (head, _) = ask(&up.base_url(), &question(4));
    let answered = request_id(&head);
    let mut wrong = question(4);
    wrong["temperature"] = json!(9);
    let mut refused = String::new();
    std::io::Read::read_to_string(&mut post(&up.base_url(), "/chat/completions", &wrong), &mut refused)
        .unwrap();

    let out = dir.join("pack");
    let gathered = run(dir, &["evidence", "--from", "1h", "--out", out.to_str().unwrap(), "--json"]);
    assert_status(&gathered, 0);
    let pack = json_of(&gathered);
    assert_eq!(pack["surety_evidence"], 1);
    let access = pack["access"].as_array().unwrap();
    let entry = |id: &str| access.iter().find(|entry| entry["request_id"] == id).unwrap();
    let whole = entry(&answered);
    assert_eq!(
        (&whole["end"], &whole["accountable"], &whole["verified"]),
        (&json!("answered"), &json!("nobody"), &json!(true))
    );
    let failed = access.iter().find(|entry| entry["code"] == "invalid_param").unwrap();
    assert_eq!(failed["accountable"], "caller");
    let all = &pack["attainment"]["all"];
    assert_eq!((&all["counted"], &all["good"], &all["callers"]), (&json!(1), &json!(1), &json!(1)), "{pack}");
    // There is no ledger, so what it would know is not known.
    assert!(pack["changes"].is_null() && pack["verification"].is_null(), "{pack}");
    let host = &pack["operators"][0]["workers"][0];
    assert_eq!((&host["region"], &host["served"]), (&json!("unknown"), &json!(true)), "{pack}");

    // Each entry rests on a file from which the same is told, and none holds what was asked or answered.
    for entry in [whole, failed] {
        let file = out.join(entry["evidence"].as_str().unwrap());
        let explained = json_of(&run(dir, &["explain", file.to_str().unwrap(), "--offline", "--json"]));
        assert_eq!(
            (&explained["accountable"], &explained["verdict"]),
            (&entry["accountable"], &entry["verdict"])
        );
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("Who goes there") && !text.contains("output_ids"), "{text}");
    }
    let written: Value = serde_json::from_slice(&fs::read(out.join("evidence.json")).unwrap()).unwrap();
    assert_eq!(written, pack);

    // Nothing is written over, and a span of nothing holds nothing.
    let again = run(dir, &["evidence", "--out", out.to_str().unwrap()]);
    assert_status(&again, 1);
    assert_stderr(&again, "is there already");
    let before = json_of(&run(dir, &["evidence", "--from", "2001-01-01", "--to", "2001-01-02", "--json"]));
    assert_eq!(before["access"], json!([]), "{before}");
    let turned = run(dir, &["evidence", "--from", "now", "--to", "2001-01-01"]);
    assert_stderr(&turned, "is after");
    assert_stderr(&run(dir, &["evidence", "--from", "yesterday"]), "no moment");
    drop(up);
    let alone = run(dir, &["evidence"]);
    assert_status(&alone, 1);
    // The gateway may just be ending.
    assert_stderr(&alone, "there is nothing to make it of: ");
}
