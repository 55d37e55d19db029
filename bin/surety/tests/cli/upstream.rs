//! A worker in front of another network: what its answers are called by every command that is asked about them.

use std::{io::Read, process::Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    http::{ask, post, question, request_id, try_ask},
    join::Role,
    process::{Up, assert_status, assert_stderr, json as json_of, run, surety, wait},
};

const KEY: &str = "sk-not-to-be-shown";

fn has(lines: &Value, text: &str) -> bool {
    lines.as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains(text))
}

#[test]
fn a_worker_in_front_of_another_network_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let mut theirs = Up::start(&place("theirs"), &["--validators", "0", "--workers", "1", "--threads", "1"]);
    let upstream = theirs.base_url();
    let front = |more: &[&str]| {
        let mut command = surety(&place("worker"));
        command.args(["worker", "run", "--upstream", &upstream, "--model", "vendor/bard"]).args(more);
        command.env("VENDOR_KEY", KEY).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let named = ["--upstream-model", "shakespeare-demo", "--upstream-key-env", "VENDOR_KEY"];
    for (args, status, says) in [
        (&[][..], 2, "--upstream-model"),
        (&["--upstream-model", "shakespear"], 1, "it has shakespeare-demo"),
        (
            &["--upstream-model", "shakespeare-demo", "--upstream-key-env", "NO_SUCH_KEY"],
            1,
            "NO_SUCH_KEY holds no key",
        ),
        (&["--upstream-model", "shakespeare-demo", "--genesis", "g.json"], 2, "--genesis"),
        (&["--upstream-model", "shakespeare-demo", "--upstream-takes", "top_a"], 2, "min_p"),
        (&["--upstream-model", "shakespeare-demo", "--upstream-of", "shakespear"], 1, "the model's whole id"),
        (&["--upstream-model", "shakespeare-demo", "--upstream-of", "a b"], 2, "--upstream-of"),
    ] {
        let output = front(args).output().unwrap();
        assert_status(&output, status);
        assert_stderr(&output, says);
    }

    let worker = Role::of(front(&named));
    let address = worker.ready["address"].as_str().unwrap().to_owned();
    assert_eq!(worker.ready["models"][0]["names"], json!(["vendor/bard"]));
    let gateway =
        Role::start(&place("gateway"), &["gateway", "run", "--listen", "127.0.0.1:0", "--worker", &address]);
    let base_url = gateway.ready["base_url"].as_str().unwrap().to_owned();

    // One answer by the upstream's own network, one by the worker in front of it.
    let direct = ask(&upstream, &question(16)).1;
    let mut asked = question(16);
    asked["model"] = json!("vendor/bard");
    wait(|| try_ask(&base_url, &asked).is_some(), "the gateway hears the worker");
    let (head, answer) = ask(&base_url, &asked);
    assert_eq!(answer["choices"][0]["message"]["content"], direct["choices"][0]["message"]["content"]);
    assert_eq!(answer["usage"]["completion_tokens"], direct["usage"]["completion_tokens"]);
    assert_eq!(answer["surety"]["tier"], "signed");

    let id = request_id(&head);
    let told = |args: &[&str]| run(&place("gateway"), &[args, &["--base-url", &base_url]].concat());
    let verified = told(&["verify", &id, "--json"]);
    assert_status(&verified, 0);
    let verified = json_of(&verified);
    assert_eq!((&verified["verified"], &verified["answers"][0]["tier"]), (&json!(true), &json!("signed")));
    assert!(
        has(&verified["checked"], "the text is the receipt's") && has(&verified["checked"], "no arithmetic")
    );
    assert!(!has(&verified["checked"], "tokens are the receipt's"), "{verified}");
    assert!(has(&verified["not_checked"], "the operator's upstream sees the text"), "{verified}");
    assert!(has(&verified["not_checked"], "token counts"), "{verified}");
    let shown = told(&["verify", &id]);
    assert_status(&shown, 0);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("signed: by its operator's word"), "{text}");
    let again = told(&["verify", &id, "--recompute"]);
    assert_status(&again, 1);
    assert_stderr(&again, "cannot be computed again");
    let explained = json_of(&told(&["explain", &id, "--json"]));
    assert!(has(&explained["not_known"], "nobody can compute it again"), "{explained}");
    assert!(!explained["next"].to_string().contains("--recompute"), "{explained}");

    // Their network goes: who fronted it answers for that, and its key is nowhere.
    theirs.signal(Signal::INT);
    theirs.wait();
    let mut failed = String::new();
    post(&base_url, "/chat/completions", &asked).read_to_string(&mut failed).unwrap();
    assert!(failed.contains("the operator's upstream") && failed.contains("worker_bad_output"), "{failed}");
    let id = request_id(&failed.to_ascii_lowercase());
    let explained = json_of(&told(&["explain", &id, "--json"]));
    assert_eq!(explained["accountable"], "worker", "{explained}");
    for text in [failed, explained.to_string(), text] {
        assert!(!text.contains(KEY), "{text}");
    }
}

#[test]
fn what_an_upstream_is_said_to_run_is_compared_with_it_and_the_story_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let theirs = Up::start(&place("theirs"), &["--validators", "0", "--workers", "1", "--threads", "1"]);
    let mut front = surety(&place("worker"));
    front.args(["worker", "run", "--upstream", &theirs.base_url(), "--upstream-model", "shakespeare-demo"]);
    front.args(["--model", "vendor/bard", "--upstream-of", "shakespeare-demo"]);
    front.stdout(Stdio::piped()).stderr(Stdio::piped());
    let external = Role::of(front);
    let exact = Role::start(&place("exact"), &["worker", "run", "--threads", "1"]);
    let address = |role: &Role| role.ready["address"].as_str().unwrap().to_owned();
    let (first, second) = (address(&external), address(&exact));
    let gateway = Role::start(
        &place("gateway"),
        &["gateway", "run", "--listen", "127.0.0.1:0", "--worker", &first, "--worker", &second],
    );
    let base_url = gateway.ready["base_url"].as_str().unwrap().to_owned();
    let mut asked = question(16);
    asked["model"] = json!("vendor/bard:verified");
    wait(|| try_ask(&base_url, &asked).is_some(), "the gateway hears both workers");
    let (head, answer) = ask(&base_url, &asked);
    assert!(head.contains("x-surety-verification: passed"), "{head}");
    assert_eq!(
        (&answer["surety"]["tier"], &answer["surety"]["verification"]),
        (&json!("statistical"), &json!("passed"))
    );
    let id = request_id(&head);
    let told = |args: &[&str]| run(&place("gateway"), &[args, &["--base-url", &base_url]].concat());
    let explained = json_of(&told(&["explain", &id, "--json"]));
    assert!(has(&explained["not_known"], "which it was compared with"), "{explained}");
    let events = explained["events"].to_string();
    assert!(events.contains("R-14") && events.contains("one answer alone shows little"), "{explained}");
    // Evidence is no more than a party's word: that it was compared is the gateway's.
    let verified = json_of(&told(&["verify", &id, "--json"]));
    assert_eq!(verified["answers"][0]["tier"], "signed", "{verified}");
}
