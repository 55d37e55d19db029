//! Workers that keep models on a real validator's ledger: paid for pins, joined with what they pulled; and found without one.

use std::path::Path;

use serde_json::Value;

use crate::{
    http::{ask, question, try_ask},
    join::Role,
    look::{prepare, start},
    process::{assert_status, assert_stderr, json, run, told, wait},
    transfer::Model,
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

#[test]
fn a_machine_that_joins_pulls_what_it_chose_and_says_whether_it_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let dir = &folder.path().join("network");
    std::fs::create_dir(dir).unwrap();
    prepare(dir, &["host", "joiner"]);
    let validator = start(dir);
    let genesis = dir.join("genesis-given.json");
    let on = ["--genesis", genesis.to_str().unwrap(), "--rpc-url", &validator.rpc];
    let model = Model::new(4 << 20);
    let path = dir.join("wanted.gguf");
    std::fs::write(&path, &model.bytes).unwrap();
    let served = format!("wanted={}", path.display());
    let worker = ["worker", "run", "--threads", "1", "--account", "host", "--bond", "20", "--model", &served];
    let holder = Role::start(dir, &[&worker[..], &on].concat());
    let id = holder.ready["models"][0]["id"].as_str().unwrap().to_owned();
    wait(|| asked(dir, &["worker", "status"])["state"] == "ready", "the holder registers");

    // A bare machine, but for an account that has credits.
    let bare = &folder.path().join("bare");
    std::fs::create_dir_all(bare.join("keys")).unwrap();
    for key in std::fs::read_dir(dir.join("keys")).unwrap().map(|key| key.unwrap()) {
        let name = key.file_name().into_string().unwrap();
        if name.starts_with("joiner") {
            std::fs::copy(key.path(), bare.join("keys").join(name)).unwrap();
        }
    }
    let join = ["worker", "join", "--threads", "1", "--account", "joiner", "--bond", "20"];
    let join = [&join[..], &on].concat();
    let looked = asked(bare, &[&join[..], &["--dry-run"]].concat());
    let row = looked["models"].as_array().unwrap().iter().find(|row| row["id"] == id.as_str()).unwrap();
    assert_eq!((&row["here"], row["bytes"].as_u64()), (&Value::from(false), Some(4 << 20)), "{looked}");
    let bandwidth = looked["findings"].as_array().unwrap().iter().find(|found| found["what"] == "bandwidth");
    assert!(bandwidth.unwrap()["found"].as_str().unwrap().starts_with("not measured"), "{looked}");
    assert!(asked(bare, &["model", "list"])["models"].as_array().unwrap().len() == 1, "nothing was pulled");

    let relay = Role::start(&folder.path().join("relay"), &["relay", "run", "--listen", "127.0.0.1:0"]);
    let reach = relay.ready["relay"].as_str().unwrap().replace("relay+http://", "relay=");
    let joined = Role::start(bare, &[&join[..], &["--yes", "--reach", &reach]].concat());
    let serves: Vec<&str> = joined.ready["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert!(serves.contains(&id.as_str()), "{serves:?} and not {id}");
    let stored = asked(bare, &["model", "list"]);
    let stored =
        stored["models"].as_array().unwrap().iter().find(|entry| entry["id"] == id.as_str()).unwrap().clone();
    assert!(std::fs::read(stored["path"].as_str().unwrap()).unwrap() == model.bytes, "the file's bytes");
    let reached = || asked(bare, &["worker", "status"])["reached"].clone();
    wait(|| reached()["usable"].is_boolean(), "it looks whether it is reached");
    let found = reached();
    assert!(
        found["usable"] == true && found["found"].as_str().unwrap().contains("through its relay"),
        "{found}"
    );
    assert!(found["fix"].is_null(), "{found}");
    drop(joined);

    // Announced where nobody listens: said, with what to do.
    let lost = ["worker", "run", "--threads", "1", "--account", "joiner", "--bond", "20"];
    let _lost = Role::start(bare, &[&lost[..], &["--reach", "direct=127.0.0.1:9"], &on].concat());
    wait(|| reached()["usable"].is_boolean(), "it looks whether it is reached");
    let found = reached();
    assert!(
        found["usable"] == false && found["found"].as_str().unwrap().starts_with("not at 127.0.0.1:9"),
        "{found}"
    );
    assert!(found["fix"].as_str().unwrap().contains("UDP port 9"), "{found}");
}

#[test]
fn a_gateway_finds_the_worker_that_announces_itself_in_its_network() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let refused = run(&place("x"), &["gateway", "run", "--mdns", "--genesis", "g.json"]);
    assert_status(&refused, 2);
    let worker = Role::try_start(&place("worker"), &["worker", "run", "--threads", "1", "--mdns=127.0.0.1"]);
    let gateway = ["gateway", "run", "--listen", "127.0.0.1:0", "--mdns=127.0.0.1"];
    let (Some(worker), Some(gateway)) = (worker, Role::try_start(&place("gateway"), &gateway)) else {
        eprintln!("SKIPPED: this machine does not multicast on its loopback interface");
        return;
    };
    let address = worker.ready["address"].as_str().unwrap().to_owned();
    let found =
        run(&place("finder"), &["model", "pull", &format!("blake3:{}", "0".repeat(64)), "--mdns=127.0.0.1"]);
    if told(&found).contains("0 worker(s) are found") {
        eprintln!("SKIPPED: no multicast comes back on the loopback interface");
        return;
    }
    assert_stderr(&found, "1 worker(s) are found in this network");
    assert_stderr(&found, "it does not have the file");
    let base_url = gateway.ready["base_url"].as_str().unwrap().to_owned();
    wait(|| try_ask(&base_url, &question(4)).is_some(), "an answer of who was found");
    let (head, _) = ask(&base_url, &question(8));
    assert!(head.contains(address.split_once('@').unwrap().0), "{head}");
}
