//! Workers that are steered while they run, and one at a relay.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::Value;

use crate::{
    http::{ask, question, try_ask},
    process::{assert_status, assert_stderr, json, run, surety, wait},
};

/// A role that runs, and the line it printed when it was ready.
pub struct Role {
    pub child: Child,
    pub ready: Value,
}

impl Role {
    /// None if it ends at once.
    pub fn try_start(data_dir: &Path, args: &[&str]) -> Option<Role> {
        let mut command = surety(data_dir);
        command.args(args);
        Role::spawn(command)
    }

    fn spawn(mut command: Command) -> Option<Role> {
        let mut child = command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str(&line) else {
            let _ = child.wait();
            return None;
        };
        thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        Some(Role { child, ready })
    }

    pub fn start(data_dir: &Path, args: &[&str]) -> Role {
        Role::try_start(data_dir, args).unwrap_or_else(|| panic!("{args:?} ended before it was ready"))
    }

    /// With what else the command was given.
    pub fn of(command: Command) -> Role {
        Role::spawn(command).expect("it ended before it was ready")
    }

    fn text(&self, name: &str) -> String {
        self.ready[name].as_str().unwrap().to_owned()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_worker_is_steered_and_remembers_its_pause() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path();
    let tell = |args: &[&str]| {
        let output = run(data_dir, &[&["worker"], args, &["--json"]].concat());
        assert_status(&output, 0);
        json(&output)
    };
    let nobody = run(data_dir, &["worker", "status"]);
    assert_status(&nobody, 1);
    assert_stderr(&nobody, "hint: start one");

    let args = ["worker", "run", "--threads", "1"];
    let mut worker = Role::start(data_dir, &args);
    let status = tell(&["status"]);
    assert_eq!(status["state"], "ready");
    assert_eq!(status["address"], worker.ready["address"]);
    assert_eq!(status["models"][0]["names"][0], "shakespeare-demo");
    let second = run(data_dir, &args);
    assert_status(&second, 1);
    assert_stderr(&second, "runs on this data directory already");
    let earnings = run(data_dir, &["worker", "earnings"]);
    assert_status(&earnings, 1);
    assert_stderr(&earnings, "serves for nothing");

    // Whatever else is said at the socket harms nobody.
    for (bytes, answered) in
        [(&b"garbage\n"[..], true), (b"{\"command\":\"mint\"}\n", true), (&[b'x'; 100_000], false)]
    {
        let mut stream = UnixStream::connect(data_dir.join("worker/worker.control")).unwrap();
        // It may be closed before all of it was said.
        let _ = stream.write_all(bytes);
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        assert!(!answered || (read.is_ok() && answer.contains("not understood")), "{answer}");
    }
    assert_eq!(tell(&["status"])["state"], "ready");

    // A pause outlives a death, and ends at its time or when it is told to.
    let paused = tell(&["pause", "--resume-after", "1h"]);
    assert_eq!(paused["state"], "paused");
    assert!(paused["paused_until_ms"].is_u64(), "{paused}");
    worker.child.kill().unwrap();
    worker.child.wait().unwrap();
    let key = worker.text("address").split_once('@').unwrap().0.to_owned();
    let mut worker = Role::start(data_dir, &args);
    assert_eq!(worker.text("address").split_once('@').unwrap().0, key, "the same key");
    assert_eq!(tell(&["status"])["state"], "paused");
    assert_eq!(tell(&["resume"])["state"], "ready");
    assert_eq!(tell(&["pause", "--resume-after", "1s"])["state"], "paused");
    wait(|| tell(&["status"])["state"] == "ready", "the pause ends by itself");

    assert_eq!(tell(&["drain"])["drained"], true);
    assert_eq!(worker.child.wait().unwrap().code(), Some(0));
    assert_status(&run(data_dir, &["worker", "status"]), 1);
}

#[test]
fn a_gateway_reaches_a_worker_at_a_relay() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let relay = Role::start(&place("relay"), &["relay", "run", "--listen", "127.0.0.1:0"]);
    let reach = relay.text("relay").replace("relay+http://", "relay=");
    // It listens where the gateway cannot call it.
    let worker = ["worker", "run", "--threads", "1", "--reach", &reach, "--listen", "[::1]:0"];
    let worker = Role::start(&place("worker"), &worker);
    let address = worker.text("address");
    assert!(address.ends_with(&format!("@{}", relay.text("relay"))), "{address}");
    let gateway = ["gateway", "run", "--listen", "127.0.0.1:0", "--worker", &address];
    let gateway = Role::start(&place("gateway"), &gateway);
    let base_url = gateway.text("base_url");
    wait(|| try_ask(&base_url, &question(4)).is_some(), "an answer through the relay");
    let (_, answer) = ask(&base_url, &question(16));
    assert_eq!(answer["usage"]["completion_tokens"], 16, "{answer}");
    let status = json(&run(&place("worker"), &["worker", "status", "--json"]));
    assert_eq!(status["relay_connected"], true);
}

#[test]
fn joining_needs_to_know_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["worker", "join", "--dry-run"]);
    assert_status(&output, 1);
    assert_stderr(&output, "hint: name its genesis");
    let lost = run(folder.path(), &["worker", "run", "--reach", "relay"]);
    assert_status(&lost, 1);
    assert_stderr(&lost, "no relay is known");
}
