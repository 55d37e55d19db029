//! Real processes of the real binary.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// A command of the binary, with nothing of the caller's environment that would change it.
pub fn surety(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_surety"));
    for name in [
        "SURETY_LOG",
        "SURETY_LOG_FORMAT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    command.env("SURETY_HOME", data_dir).env("NO_PROXY", "*").stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(data_dir: &Path, args: &[&str]) -> Output {
    surety(data_dir).args(args).output().unwrap()
}

/// Runs a command that reads this from a pipe.
pub fn run_with_input(data_dir: &Path, args: &[&str], input: &str) -> Output {
    let mut command = surety(data_dir);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The exit status and both outputs of a command, for a failure's message.
pub fn told(output: &Output) -> String {
    format!(
        "{:?}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Panics unless the command ended with this status.
#[track_caller]
pub fn assert_status(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}", told(output));
}

/// Panics unless stderr holds this.
#[track_caller]
pub fn assert_stderr(output: &Output, text: &str) {
    assert!(String::from_utf8_lossy(&output.stderr).contains(text), "no {text:?} in {}", told(output));
}

/// The one line of JSON on stdout.
#[track_caller]
pub fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim_end().lines().count(), 1, "{}", told(output));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", told(output)))
}

/// A running `surety up`.
pub struct Up {
    child: Child,
    /// What it printed when it was ready.
    pub ready: Value,
    /// What it has written to stderr so far.
    pub stderr: Arc<Mutex<String>>,
}

impl Up {
    /// Starts one on this data directory and waits until it is ready.
    pub fn start(data_dir: &Path, args: &[&str]) -> Self {
        Self::of(surety(data_dir), args)
    }

    /// Starts one with what else the command was given.
    pub fn of(mut command: Command, args: &[&str]) -> Self {
        command.args(["up", "--json", "--port", "0"]).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (collected, mut source) = (stderr.clone(), BufReader::new(child.stderr.take().unwrap()));
        thread::spawn(move || {
            let mut line = String::new();
            while matches!(source.read_line(&mut line), Ok(1..)) {
                collected.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error}: {line:?}, {}", stderr.lock().unwrap()));
        thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        Self { child, ready, stderr }
    }

    /// What to give an OpenAI client.
    pub fn base_url(&self) -> String {
        self.ready["base_url"].as_str().unwrap().to_owned()
    }

    /// The gateway's process, the workers' and the validators'.
    pub fn pids(&self) -> Vec<Pid> {
        let workers = self.ready["workers"].as_array().unwrap();
        let validators = self.ready["validators"].as_array().unwrap();
        let all = [&self.ready["gateway"]].into_iter().chain(workers).chain(validators);
        all.map(|role| pid(role["pid"].as_i64().unwrap())).collect()
    }

    /// Sends a signal to `up` itself.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id().into()), signal).unwrap();
    }

    /// Waits for its end; returns its exit status.
    pub fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + Duration::from_secs(40);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end: {}", self.stderr.lock().unwrap());
    }

    /// The processes that a role (`the gateway`, `worker 1`) was started again as, in order.
    pub fn again(&self, role: &str) -> Vec<Pid> {
        let (stderr, marker) = (self.stderr.lock().unwrap(), format!("{role} runs again (process "));
        let runs = stderr.split(&marker).skip(1);
        // Its number may not be all there yet.
        runs.filter_map(|rest| Some(pid(rest.split_once(')')?.0.parse().unwrap()))).collect()
    }

    /// Waits until a role was started again so many times; returns its last process.
    pub fn until_again(&self, role: &str, count: usize) -> Pid {
        wait(|| self.again(role).len() >= count, &format!("{role} runs again"));
        self.again(role)[count - 1]
    }

    /// Waits until stderr holds this.
    pub fn wait_for(&self, text: &str) {
        wait(|| self.stderr.lock().unwrap().contains(text), text);
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Its children notice by themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process id.
pub fn pid(number: i64) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// Whether there is such a process.
pub fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

/// Waits until something is so.
#[track_caller]
pub fn wait(mut so: impl FnMut() -> bool, what: &str) {
    let until = Instant::now() + Duration::from_secs(40);
    while !so() {
        assert!(Instant::now() < until, "this does not happen: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
