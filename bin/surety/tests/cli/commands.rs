//! The commands that need nothing running.

use std::{fs, path::Path};

use crate::process::{assert_status, assert_stderr, json, run, told};
use serde_json::json;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf");

#[test]
fn what_is_not_understood_ends_with_2() {
    let data_dir = tempfile::tempdir().unwrap();
    for args in [
        &["frobnicate"][..],
        &["up", "--frobnicate"],
        &["up", "--port", "70000"],
        &["up", "--workers", "0"],
        &["up", "--model", "a b"],
        &["up", "--context", "1"],
        &["verify"],
        &["verify", "x", "--model", "y"],
        &["model", "inspect", "blake3:xyz"],
        &["worker", "run", "--listen", "here"],
        &["gateway", "run"],
        &["gateway", "run", "--worker", "nobody"],
        &["completions", "basic"],
    ] {
        let output = run(data_dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", told(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert_status(&run(data_dir.path(), &["--version"]), 0);
    assert_status(&run(data_dir.path(), &["up", "--help"]), 0);
}

#[test]
fn every_shell_gets_its_completions() {
    let data_dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(data_dir.path(), &["completions", shell]);
        assert_status(&output, 0);
        assert!(String::from_utf8_lossy(&output.stdout).contains("surety"), "{shell}");
    }
}

#[test]
fn models_are_added_shown_and_forgotten() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let copy = dir.join("Demo Copy.gguf");
    fs::copy(MODEL, &copy).unwrap();
    let added = run(dir, &["model", "add", copy.to_str().unwrap(), "--json"]);
    assert_status(&added, 0);
    let added = json(&added);
    assert_eq!(added["name"], "demo-copy");
    let id = added["id"].as_str().unwrap();

    let list = json(&run(dir, &["model", "list", "--json"]));
    assert_eq!(list["models"][0]["id"], json!(id));
    assert_eq!(list["models"][1]["name"], "shakespeare-demo");
    for reference in
        ["demo-copy", id, &id[..16], &format!("demo-copy@{}", &id[7..15]), copy.to_str().unwrap()]
    {
        let inspected = json(&run(dir, &["model", "inspect", reference, "--json"]));
        assert_eq!(inspected["id"], json!(id), "{reference}");
    }
    // The bundled model is the same file.
    assert_eq!(json(&run(dir, &["model", "inspect", "shakespeare-demo", "--json"]))["id"], json!(id));
    let shown = run(dir, &["model", "inspect", "demo-copy"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(id), "{}", told(&shown));

    let misspelt = run(dir, &["model", "inspect", "demo-cpy"]);
    assert_status(&misspelt, 1);
    assert_stderr(&misspelt, "hint: did you mean demo-copy?");
    let tiles = || {
        fs::read_dir(dir.join("cache"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "tiles"))
            .count()
    };
    assert_eq!(tiles(), 1);
    assert_status(&run(dir, &["model", "remove", "demo-copy"]), 0);
    assert!(copy.exists());
    assert_eq!(tiles(), 0);
    assert_status(&run(dir, &["model", "remove", "demo-copy"]), 1);
}

#[test]
fn a_broken_model_is_not_kept() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let whole = fs::read(MODEL).unwrap();
    let broken = dir.join("broken.gguf");
    fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    let added = run(dir, &["model", "add", broken.to_str().unwrap()]);
    assert_status(&added, 1);
    assert_stderr(&added, "hint:");
    let list = json(&run(dir, &["model", "list", "--json"]));
    assert_eq!(list["models"].as_array().unwrap().len(), 1);
}

#[test]
fn keys_are_made_shown_and_never_printed() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let refused = run(dir, &["key", "new", "mine"]);
    assert_status(&refused, 1);
    assert_stderr(&refused, "--no-passphrase");
    let passphrase = dir.join("passphrase");
    fs::write(&passphrase, "correct horse\n").unwrap();
    let safe =
        json(&run(dir, &["key", "new", "safe", "--passphrase-file", passphrase.to_str().unwrap(), "--json"]));
    assert_eq!(safe["encrypted"], json!(true));
    let plain = json(&run(dir, &["key", "new", "plain", "--no-passphrase", "--json"]));
    let shown = run(dir, &["key", "show", "plain"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), plain["public"].as_str().unwrap());
    let list = run(dir, &["key", "list"]);
    assert_status(&list, 0);
    let file: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("keys/plain.json")).unwrap()).unwrap();
    let secret = file["secret"].as_str().unwrap();
    assert!(!told(&list).contains(secret) && !told(&shown).contains(secret));
    assert_status(&run(dir, &["key", "new", "plain", "--no-passphrase"]), 1);
    assert_status(&run(dir, &["key", "show", "other"]), 1);
}

#[test]
fn the_doctor_looks_at_everything() {
    let data_dir = tempfile::tempdir().unwrap();
    let well = run(data_dir.path(), &["doctor", "--json"]);
    assert_status(&well, 0);
    let diagnosis = json(&well);
    let looked_at: Vec<_> = diagnosis["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["what"].as_str().unwrap())
        .collect();
    let expected = [
        "processor",
        "arithmetic",
        "cores",
        "memory",
        "huge pages",
        "data directory",
        "disk",
        "models",
        "port",
    ];
    assert_eq!(looked_at, expected);
    let file = data_dir.path().join("file");
    fs::write(&file, "").unwrap();
    let ill = run(&file, &["doctor"]);
    assert_status(&ill, 1);
    assert!(String::from_utf8_lossy(&ill.stdout).contains("BAD   data directory"), "{}", told(&ill));
}

#[test]
fn benchmarks_give_figures() {
    let data_dir = tempfile::tempdir().unwrap();
    let engine = json(&run(data_dir.path(), &["bench", "engine", "--json"]));
    assert!(engine["prefill_tokens_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(engine["decode"].as_array().unwrap().len(), 3);
    let receipt = json(&run(data_dir.path(), &["bench", "receipt", "--json"]));
    assert!(receipt["receipt_bytes"].as_u64().unwrap() <= 2048);
    assert!(receipt["receipt_share"].as_f64().unwrap() > 0.0);
}

#[test]
fn evidence_that_is_none_is_refused() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let check = |bytes: &[u8]| {
        let file = dir.join("evidence.json");
        fs::write(&file, bytes).unwrap();
        let output = run(dir, &["verify", file.to_str().unwrap(), "--json"]);
        assert_status(&output, 1);
        let report = json(&output);
        assert_eq!(report["verified"], json!(false));
        assert!(report["failure"].is_string());
    };
    check(b"");
    check(b"{}");
    check(b"[[[[[[[[");
    check(&[0xff; 100]);
    let missing = run(dir, &["verify", "./nothing.json"]);
    assert_status(&missing, 1);
    assert_stderr(&missing, "hint: check the path");
    assert!(Path::new(dir).exists());
}
