//! `surety gov`, `powers`, `economics` and `status` on a real validator: what governance changes, the pages show.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::U256;
use serde_json::{Value, json};

use crate::http::get;
use crate::join::Role;
use crate::process::{assert_status, assert_stderr, json as json_of, run, surety};

const CREDIT: u128 = 1_000_000_000_000_000_000;
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A validator, alone on its chain.
pub struct Alone {
    child: Child,
    pub rpc: String,
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A data directory with a validator, its operator's account, a purse and more of them, prepared for a chain that decides in
/// seconds.
pub fn prepare(dir: &Path, more: &[&str]) {
    let made = |args: &[&str]| {
        let made = run(dir, args);
        assert_status(&made, 0);
        json_of(&made)
    };
    let key = made(&["key", "new", "validator", "--no-passphrase", "--json"])["public"].clone();
    let account =
        |name: &str| made(&["key", "new", name, "--account", "--no-passphrase", "--json"])["address"].clone();
    let (operator, purse) = (account("operator"), account("purse"));
    let more: Vec<Value> = more.iter().map(|name| account(name)).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let balance = |address: &Value, why: &str| json!({ "address": address, "amount": (1_000 * CREDIT).to_string(), "why": why });
    let mut balances = vec![balance(&operator, "the operator's fees"), balance(&purse, "to try things")];
    balances.extend(more.iter().map(|address| balance(address, "to try more")));
    let genesis = json!({
        "chain_id": 4_712, "timestamp_ms": u64::try_from(now.as_millis()).unwrap(), "epoch_blocks": 20,
        "balances": balances,
        "validators": [{ "key": key, "operator": operator, "stake": (10_000 * CREDIT).to_string() }],
        "params": {
            "voting_s": 2, "unbonding_s": 3, "timelock_s": 4, "timelock_floor_s": 2,
            "channel_delay_min_s": 1, "channel_delay_max_s": 3,
        },
    });
    let path = dir.join("genesis-given.json");
    fs::write(&path, genesis.to_string()).unwrap();
    assert_status(&run(dir, &["validator", "init", "--genesis", path.to_str().unwrap()]), 0);
}

pub fn start(dir: &Path) -> Alone {
    let mut command = surety(dir);
    command.args(["validator", "run", "--json", "--rpc", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
        panic!("{error}: {line:?}, {}", fs::read_to_string(dir.join("log")).unwrap())
    });
    thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    Alone { child, rpc: ready["rpc_url"].as_str().unwrap().to_owned() }
}

fn wei(value: &Value) -> U256 {
    value.as_str().unwrap_or_else(|| panic!("{value} is no amount")).parse().unwrap()
}

fn row<'a>(page: &'a Value, what: &str) -> &'a Value {
    page["powers"].as_array().unwrap().iter().find(|row| row["what"] == what).unwrap()
}

#[test]
fn governance_is_seen_through_and_the_pages_follow() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let nothing = run(dir, &["powers"]);
    assert_status(&nothing, 1);
    assert_stderr(&nothing, "hint: start one with `surety up`");
    prepare(dir, &[]);
    let nobody = run(dir, &["powers", "--rpc-url", "http://127.0.0.1:1"]);
    assert_status(&nobody, 1);
    assert_stderr(&nobody, "http://127.0.0.1:1: it cannot be reached");

    let alone = start(dir);
    let look = |args: &[&str]| {
        let told = run(dir, &[args, &["--json", "--rpc-url", &alone.rpc]].concat());
        assert_status(&told, 0);
        json_of(&told)
    };
    let act = |args: &[&str]| look(&[args, &["--account", "operator"]].concat());

    // Everything is in one hand, and nothing makes it look better than it is.
    let before = look(&["powers"]);
    assert_eq!((&before["stage"], &before["minimum"]), (&json!(0), &json!(1)));
    assert!(before["alarms"].to_string().contains("one key is the whole chain"), "{before}");
    let as_it_is = |slice: &Value| match slice["name"].as_str() {
        // Whoever looks can have a lie judged, whoever holds the keys.
        Some("verification") => slice["risk"] == "medium",
        _ => slice["risk"] == "high",
    };
    assert!(before["slices"].as_array().unwrap().iter().all(as_it_is), "{before}");
    assert_eq!(row(&before, "change a parameter")["delay"], "6 seconds");
    let shown = run(dir, &["powers", "--rpc-url", &alone.rpc]);
    assert_status(&shown, 0);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.starts_with("Stage 0") && shown.contains("unknown"), "{shown}");

    // What genesis named is somewhere, all of it.
    let economics = look(&["economics"]);
    assert_eq!(wei(&economics["supply"]), U256::from(12_000 * CREDIT));
    let held: U256 = economics["held"].as_array().unwrap().iter().map(|held| wei(&held["amount"])).sum();
    assert_eq!(held, wei(&economics["supply"]));
    assert_eq!(economics["genesis"][0]["why"], "the operator's fees");
    let status = look(&["status"]);
    assert_eq!(status["proven"]["validators"].as_array().unwrap().len(), 1);
    assert!(status["proven"]["age_ms"].as_u64().unwrap() < 120_000, "{status}");

    // A proposal from its beginning to its end.
    let made = act(&["gov", "propose", "parameter", "timelock_s=60", "--title", "later"]);
    assert_eq!(made["id"], 1);
    let stranger = ["gov", "vote", "1", "for", "--account", "purse", "--rpc-url", &alone.rpc];
    let stranger = run(dir, &stranger);
    assert_status(&stranger, 1);
    assert_stderr(&stranger, "has bonded nothing");
    act(&["gov", "vote", "1", "for"]);
    let shown = look(&["gov", "show", "1"]);
    assert_eq!((&shown["title"], &shown["quorum_reached"]), (&json!("later"), &json!(true)));
    assert_eq!(shown["changes"], json!([{ "name": "timelock_s", "now": "4", "proposed": "60" }]));
    assert_eq!(wei(&shown["votes_for"]), U256::from(10_000 * CREDIT));
    let until = |state: &str| {
        let begun = Instant::now();
        while look(&["gov", "list"])[0]["state"] != state {
            assert!(begun.elapsed() < PATIENCE, "it is not {state}: {}", look(&["gov", "show", "1"]));
            thread::sleep(Duration::from_millis(200));
        }
    };
    until("succeeded");
    act(&["gov", "queue", "1"]);
    until("executable");
    act(&["gov", "execute", "1"]);
    assert_eq!(look(&["gov", "show", "1"])["state"], "executed");

    let after = look(&["powers"]);
    assert_eq!(row(&after, "change a parameter")["delay"], "1 minute 2 seconds");
    assert_eq!(row(&after, "change a parameter")["last_used"], "proposal 1");
    let none = run(dir, &["gov", "show", "2", "--rpc-url", &alone.rpc]);
    assert_status(&none, 1);
    assert_stderr(&none, "there is no proposal 2; there are 1");

    // A gateway tells everybody the same.
    let genesis = dir.join("genesis-given.json");
    let gateway = ["gateway", "run", "--listen", "127.0.0.1:0", "--genesis", genesis.to_str().unwrap()];
    let gateway =
        Role::start(dir, &[&gateway[..], &["--rpc-url", &alone.rpc, "--account", "purse"]].concat());
    let told = |page: &str| {
        let (head, page) = get(gateway.ready["base_url"].as_str().unwrap(), &format!("/network/{page}"));
        assert!(head.starts_with("http/1.1 200") && head.contains("\r\netag: \""), "{head}");
        page
    };
    let at_any_block = |mut page: Value| {
        for name in ["number", "timestamp_ms"] {
            assert!(page.as_object_mut().unwrap().remove(name).is_some(), "{page}");
        }
        page
    };
    assert_eq!(at_any_block(told("powers")), at_any_block(after));
    let (economics, said) = (told("economics"), look(&["economics"]));
    assert_eq!(economics["accounted"]["excess"], "0");
    for part in ["supply", "accounted", "held", "genesis", "parameters", "burned", "insurance"] {
        assert_eq!(economics[part], said[part], "{part}");
    }
    let governance = told("governance");
    assert_eq!(governance["chain_id"], 4_712);
    assert!(alone.rpc.starts_with(governance["rpc_url"].as_str().unwrap()), "{governance}");
    let without_number = |page: &Value| {
        let mut page = page.clone();
        page.as_object_mut().unwrap().remove("number");
        page
    };
    assert_eq!(without_number(&governance["proposals"][0]), without_number(&look(&["gov", "list"])[0]));
    let timelock =
        governance["parameters"].as_array().unwrap().iter().find(|one| one["name"] == "timelock_s");
    assert_eq!(timelock.unwrap()["value"], "60");
}
