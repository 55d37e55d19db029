//! `surety up` and what works with it: asking, streaming, receipts, and processes that die.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::Stdio,
};

use crate::{
    http::{ask, go_on, post, question, request_id, said},
    process::{Up, assert_status, assert_stderr, is_alive, json, pid, run, run_with_input, told, wait},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Asks once and saves the evidence.
fn evidence(up: &Up, data_dir: &Path, file: &Path) -> (String, String) {
    let (head, answer) = ask(&up.base_url(), &question(12));
    let id = request_id(&head);
    let saved = run(data_dir, &["verify", &id, "--json"]);
    assert_status(&saved, 0);
    assert_eq!(up.ready["page_url"].as_str().unwrap(), up.base_url().replace("/v1", "/"));
    let host = up.base_url().replace("http://", "").replace("/v1", "");
    let mut stream = TcpStream::connect(&host).unwrap();
    write!(stream, "GET /v1/receipts/{id} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    fs::write(file, text.split_once("\r\n\r\n").unwrap().1).unwrap();
    (id, answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned())
}

#[test]
fn an_answer_is_given_receipted_and_recomputed_and_no_other_passes_for_it() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(dir, &["--workers", "1", "--validators", "0"]);
    let file = dir.join("evidence.json");
    let path = file.to_str().unwrap();
    let (id, text) = evidence(&up, dir, &file);

    let by_id = run(dir, &["verify", &id, "--recompute"]);
    assert_status(&by_id, 0);
    let shown = String::from_utf8_lossy(&by_id.stdout);
    assert!(shown.starts_with("HOLDS: recomputed"), "{shown}");
    let plain = run(dir, &["verify", path, "--offline"]);
    assert_status(&plain, 0);
    let shown = String::from_utf8_lossy(&plain.stdout);
    for line in ["NOT checked:", "needs a recomputation", "that the answer is true"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let report = json(&run(dir, &["verify", path, "--offline", "--recompute", "--json"]));
    assert_eq!((&report["verified"], &report["recomputed"]), (&json!(true), &json!(true)));
    assert_eq!(report["answers"][0]["text"], json!(text));

    let explained = run(dir, &["explain", &id]);
    assert_status(&explained, 0);
    let shown = String::from_utf8_lossy(&explained.stdout);
    for line in
        ["NOBODY: the answer is whole", "accepted 15 prompt tokens", "12 tokens, its limit", "not known:"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let explained = json(&run(dir, &["explain", path, "--offline", "--json"]));
    assert_eq!((&explained["accountable"], &explained["whole"]), (&json!("nobody"), &json!(true)));
    assert_eq!((&explained["request_id"], &explained["parts"][0]["output_tokens"]), (&json!(id), &json!(12)));

    let seen = dir.join("seen.txt");
    fs::write(&seen, &text).unwrap();
    assert_status(&run(dir, &["verify", path, "--text", seen.to_str().unwrap()]), 0);
    fs::write(&seen, format!("{text}\u{200b}")).unwrap();
    let other = run(dir, &["verify", path, "--text", seen.to_str().unwrap()]);
    assert_status(&other, 1);
    assert!(told(&other).contains("not the one that was signed"), "{}", told(&other));
    fs::write(&seen, "Who goes there?").unwrap();
    assert_status(&run(dir, &["verify", path, "--prompt", seen.to_str().unwrap()]), 0);
    fs::write(&seen, "Who goes where?").unwrap();
    assert_status(&run(dir, &["verify", path, "--prompt", seen.to_str().unwrap()]), 1);
    assert_status(&run(dir, &["verify", path, "--worker", &"0".repeat(64)]), 1);

    let good: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 6] = [
        ("the text", |e| e["answers"][0]["text"] = json!("Nobody.")),
        ("a token", |e| e["answers"][0]["output_ids"][3] = json!(5)),
        ("the view", |e| e["view"]["answers"][0]["receipt"]["output_tokens"] = json!(1)),
        ("the request id", |e| e["request_id"] = json!("req_00000000000000000000000000000000")),
        ("an unknown field", |e| e["more"] = json!(1)),
        ("no answer", |e| e["answers"] = json!([])),
    ];
    let edited = dir.join("edited.json");
    for (what, edit) in edits {
        let mut evidence = good.clone();
        edit(&mut evidence);
        fs::write(&edited, evidence.to_string()).unwrap();
        let refused = run(dir, &["verify", edited.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(1), "{what}: {}", told(&refused));
        assert!(told(&refused).contains("DOES NOT HOLD"), "{what}: {}", told(&refused));
        let explained = run(dir, &["explain", edited.to_str().unwrap(), "--offline"]);
        assert_status(&explained, 1);
        assert!(told(&explained).contains("NOT KNOWN: what is shown does not hold"), "{}", told(&explained));
    }
    // The salt is under no signature, but opens the commitment to the model's inner state.
    let mut evidence = good.clone();
    evidence["answers"][0]["salt"] = json!("11".repeat(32));
    fs::write(&edited, evidence.to_string()).unwrap();
    let refused = run(dir, &["verify", edited.to_str().unwrap(), "--recompute"]);
    assert_status(&refused, 1);
    assert!(told(&refused).contains("not computed by this model"), "{}", told(&refused));

    assert_status(&run(dir, &["verify", &id, "--offline"]), 1);
    let unknown = run(dir, &["verify", "req_00000000000000000000000000000000"]);
    assert_status(&unknown, 1);
    assert_stderr(&unknown, "Nothing is kept");
}

#[test]
fn a_worker_behind_the_relay_of_up_answers_and_outlives_the_relay() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(dir, &["--workers", "1", "--validators", "0", "--relay"]);
    let (head, answer) = ask(&up.base_url(), &question(8));
    assert_eq!(answer["usage"]["completion_tokens"], 8, "{head}");
    let status = json(&run(dir, &["worker", "status", "--json"]));
    let relay = up.ready["relay"]["address"].as_str().unwrap();
    assert!(status["address"].as_str().unwrap().ends_with(&format!("@{relay}")), "{status}");
    assert_eq!(status["relay_connected"], true);
    // It is started again at the same place, and the worker is found there again.
    kill_process(crate::process::pid(up.ready["relay"]["pid"].as_i64().unwrap()), Signal::KILL).unwrap();
    up.wait_for("the relay runs again");
    wait(|| crate::http::try_ask(&up.base_url(), &question(4)).is_some(), "an answer through the new relay");
}

#[test]
fn chat_in_a_terminal_or_a_pipe_checks_each_receipt() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(
        dir,
        &[
            "--workers",
            "1",
            "--validators",
            "0",
            "--model",
            "shakespeare-demo",
            "--model",
            "gpt-4o=shakespeare-demo",
        ],
    );
    let once = run(dir, &["chat", "--max-tokens", "8", "--seed", "1", "Who goes there?"]);
    assert_status(&once, 0);
    assert_stderr(&once, "receipt holds");
    let piped = run_with_input(dir, &["chat", "--max-tokens", "8", "--seed", "1"], "Who goes there?");
    assert_status(&piped, 0);
    assert_eq!(once.stdout, piped.stdout);
    let named = run(
        dir,
        &["chat", "--model", "gpt-4o", "--max-tokens", "8", "--seed", "1", "--json", "Who goes there?"],
    );
    assert_status(&named, 0);
    let answer = json(&named);
    assert_eq!(answer["receipt_holds"], json!(true));
    assert_eq!(format!("{}\n", answer["text"].as_str().unwrap()).as_bytes(), once.stdout);
    let misspelt = run(dir, &["chat", "--model", "shakespear-demo", "Hello"]);
    assert_status(&misspelt, 1);
    assert_stderr(&misspelt, "shakespeare-demo");
    drop(up);
    fs::remove_file(dir.join("up.json")).unwrap();
    let nobody = run(dir, &["chat", "--base-url", "http://127.0.0.1:1", "Hello"]);
    assert_status(&nobody, 1);
    assert_stderr(&nobody, "hint: start it with `surety up`");
}

#[test]
fn a_worker_killed_in_mid_answer_is_told_of_and_replaced() {
    let data_dir = tempfile::tempdir().unwrap();
    let up = Up::start(data_dir.path(), &["--workers", "1", "--validators", "0"]);
    let mut long = question(100_000);
    long["stream"] = json!(true);
    let mut stream = post(&up.base_url(), "/chat/completions", &long);
    let mut line = String::new();
    while !line.contains("\"content\"") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0);
    }
    kill_process(up.pids()[1], Signal::KILL).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    if !rest.contains("[DONE]") {
        // However fast the answer was: a stream never just ends.
        assert!(rest.contains("\"error\""), "{rest}");
        assert!(rest.contains("worker_lost") || rest.contains("worker_stalled"), "{rest}");
    }
    up.wait_for("worker 1 ended (killed by signal 9); starting it again");
    up.wait_for("worker 1 runs again");
    wait(
        || {
            let mut text = String::new();
            post(&up.base_url(), "/chat/completions", &question(4)).read_to_string(&mut text).unwrap();
            text.starts_with("HTTP/1.1 200")
        },
        "an answer from the worker that was started again",
    );
}

#[test]
fn a_worker_killed_in_mid_answer_is_named_when_another_went_on() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(dir, &["--workers", "2", "--threads", "1", "--validators", "1"]);
    let mut long = question(800);
    (long["ignore_eos"], long["stream"]) = (json!(true), json!(true));
    // It may be over before the signal is there, and who is asked must be payable: again, until it struck.
    let explained = (0..20).find_map(|_| {
        let mut stream = post(&up.base_url(), "/chat/completions", &long);
        let mut came = String::new();
        while !came.contains("data: ") && stream.read_line(&mut came).unwrap() > 0 {}
        let workers = up.ready["workers"].as_array().unwrap();
        let struck = workers.iter().zip(1..).find(|(worker, _)| {
            came.contains(&format!("x-surety-workers: {}", worker["id"].as_str().unwrap()))
        });
        let (worker, number) = struck?;
        kill_process(worker_pid(&up, number, worker), Signal::KILL).unwrap();
        stream.read_to_string(&mut came).unwrap();
        up.until_again(&format!("worker {number}"), 1);
        let id = request_id(&came.split_once("\r\n\r\n")?.0.to_ascii_lowercase());
        let explained = json(&run(dir, &["explain", &id, "--json"]));
        (explained["parts"].as_array()?.len() == 2).then(|| (worker["id"].clone(), explained))
    });
    let (worker, explained) = explained.expect("an answer that the kill struck");
    assert_eq!((&explained["accountable"], &explained["worker"]), (&json!("worker"), &worker), "{explained}");
    assert!(explained["operator"].as_str().is_some_and(|operator| operator.starts_with("0x")), "{explained}");
    assert_eq!(explained["whole"], true, "{explained}");
}

/// The process of a worker that may have been started again.
fn worker_pid(up: &Up, number: usize, worker: &Value) -> Pid {
    let again = up.again(&format!("worker {number}"));
    again.last().copied().unwrap_or_else(|| pid(worker["pid"].as_i64().unwrap()))
}

#[test]
fn an_answer_in_a_form_meets_it_and_recomputes() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(dir, &["--workers", "1", "--validators", "0"]);
    let mut body = question(120);
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "guard", "strict": true, "schema": {
        "type": "object", "required": ["friend", "watch", "ranks"], "additionalProperties": false, "properties": {
            "friend": {"type": "boolean"},
            "watch": {"enum": ["first", "second"]},
            "ranks": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
        },
    }}});
    let (head, answer) = ask(&up.base_url(), &body);
    assert_eq!(answer["choices"][0]["finish_reason"], json!("stop"), "{answer}");
    let said = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let said: Value = serde_json::from_str(said).unwrap();
    assert!(said["friend"].is_boolean() && said["watch"].is_string() && said["ranks"].is_array(), "{said}");
    assert_eq!(said.as_object().unwrap().len(), 3, "{said}");
    let verified = run(dir, &["verify", &request_id(&head), "--recompute"]);
    assert_status(&verified, 0);

    body["response_format"]["json_schema"]["schema"]["properties"]["watch"] =
        json!({"type": "string", "format": "date"});
    let mut text = String::new();
    post(&up.base_url(), "/chat/completions", &body).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("`format` at `#/properties/watch`"), "{text}");
}

/// Reads a stream until an event has an id, kills the gateway, and reads what still came.
fn broken_stream(up: &Up, gateway: Pid, body: &Value) -> String {
    let mut stream = post(&up.base_url(), "/chat/completions", body);
    let (mut came, mut rest) = (String::new(), Vec::new());
    // A quick machine may have answered before anything of it was on a slow disk.
    while (!came.contains("\nid: ") || !came.ends_with("\n\n")) && stream.read_line(&mut came).unwrap() > 0 {}
    kill_process(gateway, Signal::KILL).unwrap();
    // A process that is killed breaks its connections off.
    let _ = stream.read_to_end(&mut rest);
    came += &String::from_utf8_lossy(&rest);
    // An event counts when all of it is there.
    came.truncate(came.rfind("\n\n").unwrap());
    came
}

/// Requests beside the one that is struck.
const CROWD: usize = 24;

#[test]
fn a_stream_goes_on_after_its_gateway_was_killed() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(dir, &["--workers", "2", "--threads", "1", "--validators", "0"]);
    let mut long = question(800);
    long["ignore_eos"] = json!(true);
    let (_, undisturbed) = ask(&up.base_url(), &long);
    let whole = undisturbed["choices"][0]["message"]["content"].as_str().unwrap();
    let crowd = long.clone();
    long["stream"] = json!(true);
    let mut gateway = up.pids()[0];
    // Alone it would be over before anything of it is on the disk; and still a quick machine may have sent all of it.
    let came = (0..10).find_map(|_| {
        let others: Vec<_> = (0..CROWD)
            .map(|_| {
                let mut other = post(&up.base_url(), "/chat/completions", &crowd);
                std::thread::spawn(move || drop(other.read_to_end(&mut Vec::new())))
            })
            .collect();
        let before = up.again("the gateway").len();
        let came = broken_stream(&up, gateway, &long);
        others.into_iter().for_each(|other| other.join().unwrap());
        gateway = up.until_again("the gateway", before + 1);
        (!came.contains("[DONE]")).then_some(came)
    });
    let came = came.expect("a stream that the kill struck");
    let last = came.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap();
    let (id, position) = last.split_once(':').unwrap();
    let position: usize = position.parse().unwrap();
    assert!(position > 0 && position < whole.len(), "{last}");

    let mut rest = String::new();
    go_on(&up.base_url(), &long, last).unwrap().read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 200") && rest.contains("[DONE]"), "{rest}");
    assert_eq!(request_id(&rest.to_ascii_lowercase()), id);
    assert_eq!(format!("{}{}", &said(&came)[..position], said(&rest)), whole);
    let verified = run(dir, &["verify", id, "--recompute"]);
    assert_status(&verified, 0);
}

#[test]
fn everything_stops_when_it_is_told_to_or_its_parent_dies() {
    let data_dir = tempfile::tempdir().unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut up = Up::start(data_dir.path(), &[]);
        let pids = up.pids();
        assert_eq!(pids.len(), 8);
        assert!(pids.iter().all(|pid| is_alive(*pid)));
        assert!(data_dir.path().join("up.json").exists());
        up.signal(signal);
        let status = up.wait();
        if signal != Signal::KILL {
            assert_eq!(status, Some(0), "{}", up.stderr.lock().unwrap());
            assert!(!data_dir.path().join("up.json").exists());
        }
        wait(|| !pids.iter().any(|pid| is_alive(*pid)), "the children end");
    }
}

#[test]
fn three_workers_differ_in_price_and_the_status_shows_them_live() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(dir, &["--validators", "1"]);
    let mut prices = BTreeSet::new();
    wait(
        || {
            let status = json(&run(dir, &["status", "--json"]));
            let workers = status["gateway"]["workers"].as_array().cloned().unwrap_or_default();
            let outputs = workers.iter().filter_map(|worker| worker["offers"][0]["output"].as_str());
            prices = outputs.map(str::to_owned).collect();
            prices.len() == 3
        },
        "three workers with an offer each, none like another",
    );

    let mut command = crate::process::surety(dir);
    let mut child = command.args(["status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut looks, mut seen) = (0, String::new());
    while looks < 2 {
        let line = lines.next().unwrap().unwrap();
        looks += usize::from(line.starts_with("Gateway"));
        seen += &line;
    }
    assert!(!seen.contains('\u{1b}'), "nothing is drawn where there is no terminal: {seen}");
    kill_process(crate::process::pid(child.id().into()), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());

    // Without a ledger there is a gateway to look at.
    drop(up);
    let bare = tempfile::tempdir().unwrap();
    let _up = Up::start(bare.path(), &["--workers", "1", "--validators", "0"]);
    let shown = run(bare.path(), &["status"]);
    assert_status(&shown, 0);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("no ledger") && shown.contains("shakespeare-demo"), "{shown}");
}

#[test]
fn an_ephemeral_directory_is_gone_afterwards() {
    let data_dir = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut command = crate::process::surety(data_dir.path());
    command.env("TMPDIR", temporary.path()).args(["up", "--ephemeral", "--port", "0", "--validators", "0"]);
    command.stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready: http://127.0.0.1:"), "{line}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);
    kill_process(crate::process::pid(child.id().into()), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(data_dir.path()).unwrap().count(), 0);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let in_use = run(dir, &["up", "--port", &port]);
    assert_status(&in_use, 1);
    assert_stderr(&in_use, "hint: another program listens there");

    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    let unusable = run(&file, &["up", "--port", "0"]);
    assert_status(&unusable, 1);
    assert_stderr(&unusable, "cannot create the data directory");

    let misspelt = run(dir, &["up", "--port", "0", "--model", "shakespear-demo"]);
    assert_status(&misspelt, 1);
    assert_stderr(&misspelt, "hint: did you mean shakespeare-demo?");
    let missing = run(dir, &["up", "--port", "0", "--model", "./nothing.gguf"]);
    assert_status(&missing, 1);
    assert_stderr(&missing, "nothing.gguf");
    fs::write(dir.join("text.gguf"), "no model").unwrap();
    let text = run(dir, &["up", "--port", "0", "--model", dir.join("text.gguf").to_str().unwrap()]);
    assert_status(&text, 1);
    assert_stderr(&text, "is not a GGUF model file");
}
