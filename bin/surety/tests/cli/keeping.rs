//! Workers that keep models on a real validator's ledger: paid for pins, joined with what they pulled.

use std::path::Path;

use serde_json::Value;

use crate::{
    join::Role,
    look::{prepare, start},
    process::{assert_status, json, run, wait},
};

/// What a command prints as JSON.
fn asked(dir: &Path, args: &[&str]) -> Value {
    let output = run(dir, &[args, &["--json"]].concat());
    assert_status(&output, 0);
    json(&output)
}

fn wei(value: &Value) -> u128 {
    value.as_str().unwrap_or_else(|| panic!("{value} is no amount")).parse().unwrap()
}

#[test]
fn a_funded_model_is_pinned_proven_and_paid_and_its_record_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    prepare(dir, &["host"]);
    let validator = start(dir);
    let genesis = dir.join("genesis-given.json");
    let on = ["--genesis", genesis.to_str().unwrap(), "--rpc-url", &validator.rpc];
    let worker = ["worker", "run", "--threads", "1", "--account", "host", "--bond", "20"];
    let mut worker = Role::start(dir, &[&worker[..], &on].concat());
    let model = worker.ready["models"][0]["id"].as_str().unwrap().to_owned();
    let status = || asked(dir, &["worker", "status"]);
    let hosted = || status()["hosting"][0].clone();
    wait(|| status()["state"] == "ready", "the worker registers");
    wait(|| hosted()["doing"] == "nobody has given anything for its hosting", "it looks at what it holds");

    let fund = ["model", "fund", &model, "300", "--account", "operator"];
    let funded = asked(dir, &[&fund[..], &on].concat());
    assert_eq!((wei(&funded["pool_wei"]), funded["wanted"].as_u64()), (300 * 10u128.pow(18), Some(3)));
    // A three-hundredth of a hundredth, to each of three.
    assert_eq!(wei(&funded["share_wei"]), 10u128.pow(16));
    wait(|| hosted()["pinned"] == true, "it pins what is paid for");
    wait(|| hosted()["proven"].as_u64() >= Some(2), "it proves the pin in every epoch");
    let hosted = hosted();
    assert!(wei(&hosted["pool_wei"]) < 300 * 10u128.pow(18) && hosted["problem"].is_null(), "{hosted}");

    let earnings = asked(dir, &["worker", "earnings"]);
    let paid: Vec<&Value> = earnings["hosting"]["days"].as_array().unwrap().iter().collect();
    let proofs: u64 = paid.iter().map(|row| row["proofs"].as_u64().unwrap()).sum();
    let sum: u128 = paid.iter().map(|row| wei(&row["paid_wei"])).sum();
    assert!(proofs >= 2 && sum > 19 * 10u128.pow(15), "{earnings}");
    let pin = &earnings["hosting"]["pins"][0];
    assert_eq!((&pin["model"], &pin["pinned"]), (&Value::from(model.as_str()), &Value::from(true)));
    assert_eq!(asked(dir, &["worker", "drain", "--retire"])["drained"], true);
    assert_eq!(worker.child.wait().unwrap().code(), Some(0));
    // Its book, without it: the pin is taken back.
    let later = asked(dir, &[&["worker", "earnings", "--account", "host"][..], &on].concat());
    assert_eq!(later["hosting"]["pins"][0]["pinned"], false, "{later}");
    assert!(later["hosting"]["days"][0]["proofs"].as_u64() >= Some(2), "{later}");
}
