//! The fault matrix: faults are injected blind into a live network, and `surety explain` is asked who answers for them.
//!
//! In:     the binary, how often each fault, a seed.
//! Out:    for each fault whom the verdicts named against whom they should, whether an honest party was named, what was charged,
//!         how long it took, and whether a saved file gives the same verdict without a network.
//! Touches: starts workers and a gateway in a folder of its own.
//! Holds:  whoever judges does not know the fault: it sees what anybody sees who has the id of the request.
//! Absent: lies in signed answers, which the ledger judges: the liar matrix has it decide.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::kill_matrix::network::{ready_line, surety, until_held_ready};
use crate::kill_matrix::wire::{self, Ended, Progress};
use crate::rng::Rng;

/// Workers of the network.
const WORKERS: usize = 2;
/// An explanation may take so long.
const EXPLAIN_MAX: Duration = Duration::from_secs(1);
/// Of a hundred verdicts so many are to be right.
const RIGHT_PERCENT_MIN: usize = 95;
/// Between two requests to a worker that rests.
const PAUSE: Duration = Duration::from_millis(250);
/// Times that a fault is tried again whose answer was whole before it struck.
const TRIES: usize = 8;
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Rows of the requirements' matrix that are not injected here, and why.
pub const NOT_INJECTED: [(&str, &str); 14] = [
    (
        "link cut one way or both, link slow",
        "endpoints find a way around what is put between them, so it takes network namespaces, as in the kill matrix; to a gateway a \
         silent link is what a silent worker is: the rows of hanging and dripping workers",
    ),
    ("wrong key", "this gateway asks nobody for a key"),
    ("budget hit in mid-stream", "this gateway keeps no budgets"),
    ("gateway overloaded", "its bound is 2,048 requests at once; the gateway's own tests set it to one"),
    (
        "wrong weights, sampler, text, prompt or end",
        "only computing again shows them: `surety demo liar` ends with the explanation",
    ),
    (
        "worker replays an old answer",
        "no worker does: every order has a nonce, and the checks of evidence refuse another's",
    ),
    ("verifier lies", "the liar matrix accuses honest workers falsely, and nobody is convicted"),
    ("verifier offline", "nothing on a request's path waits for one"),
    ("chain halted", "nothing on a request's path waits for it; that the ledger was not asked is said"),
    (
        "storage shard missing or corrupt",
        "a worker without its model does not start; a damaged file is refused by its digest",
    ),
    ("publisher withdrew the model", "to a caller it is a model that nobody serves: the row of that"),
    ("clock skew", "this machine has one clock"),
    ("upgrade mismatch", "there is one version"),
    ("DNS or TLS failure", "no request arrives, so there is none to explain"),
];

/// How it is to be run.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The program to test.
    #[arg(long, default_value = "target/release/surety")]
    pub binary: PathBuf,
    /// Times that each fault is injected.
    #[arg(long, default_value_t = 20)]
    pub times: usize,
    /// Names the order of the faults.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only these faults, by name.
    #[arg(long)]
    pub only: Vec<String>,
}

/// What is done to the network, or by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// No fault: nobody is to be named.
    None,
    /// A parameter has a value that it cannot have.
    WrongValue,
    /// A parameter is misspelt.
    UnknownParameter,
    /// The body is no object.
    NoObject,
    /// Nobody serves the model.
    UnknownModel,
    /// The prompt is longer than any window.
    TooLong,
    /// The request's own constraints leave nobody.
    RuledOut,
    /// The caller goes away in mid-answer.
    CallerLeaves,
    /// The only worker that may answer is killed.
    WorkerCrash,
    /// A worker is killed, and another goes on.
    WorkerCrashContinued,
    /// The only worker that may answer is stopped.
    WorkerHang,
    /// It runs a few milliseconds of every second.
    WorkerDrips,
    /// All workers are gone.
    NobodyThere,
    /// The gateway is killed.
    GatewayKilled,
    /// The gateway is stopped for some seconds.
    GatewayStandsStill,
}

impl Fault {
    const ALL: [Fault; 15] = [
        Fault::None,
        Fault::WrongValue,
        Fault::UnknownParameter,
        Fault::NoObject,
        Fault::UnknownModel,
        Fault::TooLong,
        Fault::RuledOut,
        Fault::CallerLeaves,
        Fault::WorkerCrash,
        Fault::WorkerCrashContinued,
        Fault::WorkerHang,
        Fault::WorkerDrips,
        Fault::NobodyThere,
        Fault::GatewayKilled,
        Fault::GatewayStandsStill,
    ];

    fn name(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::WrongValue => "wrong-value",
            Fault::UnknownParameter => "unknown-parameter",
            Fault::NoObject => "no-object",
            Fault::UnknownModel => "unknown-model",
            Fault::TooLong => "too-long",
            Fault::RuledOut => "ruled-out",
            Fault::CallerLeaves => "caller-leaves",
            Fault::WorkerCrash => "worker-crash",
            Fault::WorkerCrashContinued => "worker-crash-continued",
            Fault::WorkerHang => "worker-hang",
            Fault::WorkerDrips => "worker-drips",
            Fault::NobodyThere => "nobody-there",
            Fault::GatewayKilled => "gateway-killed",
            Fault::GatewayStandsStill => "gateway-stands-still",
        }
    }

    /// Who may be named; `worker` is the one that was struck. An answer that came whole and late leaves nobody to be named, and of a
    /// deadline that passed it cannot be told whether it was too short.
    fn right(self, whole: bool) -> &'static [&'static str] {
        match self {
            Fault::None => &["nobody"],
            Fault::WrongValue
            | Fault::UnknownParameter
            | Fault::NoObject
            | Fault::UnknownModel
            | Fault::TooLong
            | Fault::RuledOut
            | Fault::CallerLeaves => &["caller"],
            Fault::WorkerCrash | Fault::WorkerHang | Fault::WorkerCrashContinued => &["worker"],
            Fault::NobodyThere => &["unknown"],
            Fault::WorkerDrips => {
                if whole {
                    &["nobody", "worker"]
                } else {
                    &["worker", "unknown"]
                }
            }
            Fault::GatewayKilled => &["gateway"],
            Fault::GatewayStandsStill => {
                if whole {
                    &["nobody", "gateway"]
                } else {
                    &["gateway"]
                }
            }
        }
    }

    /// Whether an answer that is whole was not struck.
    fn must_strike(self) -> bool {
        matches!(
            self,
            Fault::CallerLeaves
                | Fault::WorkerCrash
                | Fault::WorkerHang
                | Fault::WorkerDrips
                | Fault::GatewayKilled
        )
    }
}

/// What became of one fault.
#[derive(Clone, Debug)]
struct Judged {
    fault: Fault,
    accountable: String,
    verdict: String,
    right: bool,
    /// A party was named that neither was struck nor answers for what was.
    accused: bool,
    /// Something was charged for an answer that did not come.
    charged: bool,
    /// A saved file says the same without a network.
    same_offline: bool,
    took: Duration,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    judged: Vec<Judged>,
    took: Duration,
}

/// A process, killed when nobody holds it.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.0.id() as i32).context("no process has the id 0")?;
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker {
    process: Process,
    key: String,
    /// `IP:PORT`
    address: String,
    data_dir: PathBuf,
}

struct Network {
    binary: PathBuf,
    data_dir: PathBuf,
    workers: Vec<Worker>,
    gateway: Process,
    host: String,
    model: String,
}

/// Starts one, and waits for the line that says that it is ready.
fn launch(binary: &Path, data_dir: &Path, args: &[&str]) -> Result<(Process, Value)> {
    let log = fs::OpenOptions::new().create(true).append(true).open(data_dir.join("log"))?;
    let mut command: Command = surety(binary, data_dir);
    command.args(args).args([
        "--json",
        "--stop-with-parent",
        "--log",
        "surety_gateway=info,surety_worker=info",
    ]);
    let child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().context("starting")?;
    let mut process = Process(child);
    let ready =
        ready_line(&mut process.0).with_context(|| format!("{args:?}: see {}", data_dir.display()))?;
    Ok((process, ready))
}

impl Network {
    fn start(binary: &Path, folder: &Path) -> Result<Network> {
        let mut workers = Vec::new();
        for number in 1..=WORKERS {
            let data_dir = folder.join(format!("worker-{number}"));
            fs::create_dir_all(&data_dir)?;
            let (process, ready) = serve(binary, &data_dir, "127.0.0.1:0")?;
            let (key, address) =
                ready["address"].as_str().and_then(|text| text.split_once('@')).context("no address")?;
            workers.push(Worker { process, key: key.to_owned(), address: address.to_owned(), data_dir });
        }
        let data_dir = folder.join("gateway");
        fs::create_dir_all(&data_dir)?;
        let (gateway, host) = enter(binary, &data_dir, &workers, "127.0.0.1:0")?;
        until_held_ready(&host, WORKERS)?;
        let model = wire::get(&host, "/v1/models")?["data"][0]["id"].as_str().context("no model")?.to_owned();
        Ok(Network { binary: binary.to_owned(), data_dir, workers, gateway, host, model })
    }

    /// Brings back what a fault took away.
    fn mend(&mut self) -> Result<()> {
        for worker in &mut self.workers {
            worker.process.signal(Signal::CONT)?;
            if worker.process.0.try_wait()?.is_some() {
                worker.process = serve(&self.binary, &worker.data_dir, &worker.address)?.0;
            }
        }
        self.gateway.signal(Signal::CONT)?;
        if self.gateway.0.try_wait()?.is_some() {
            let host = self.host.clone();
            (self.gateway, self.host) = enter(&self.binary, &self.data_dir, &self.workers, &host)?;
        }
        until_held_ready(&self.host, WORKERS)
    }

    /// Asks, has the fault strike where there is text, and returns the id and whether the answer came whole.
    fn strike(&mut self, fault: Fault, victim: usize) -> Result<(String, bool)> {
        let pinned = self.workers[victim].key.clone();
        let mut body = json!({
            "model": self.model, "stream": true, "ignore_eos": true, "max_tokens": 4000,
            "messages": [{ "role": "user", "content": "Who goes there?" }],
            "surety": { "worker": pinned },
        });
        match fault {
            Fault::None => body["max_tokens"] = json!(8),
            Fault::WrongValue => body["temperature"] = json!(9),
            Fault::UnknownParameter => body["temprature"] = json!(1),
            Fault::NoObject => body = json!("Who goes there?"),
            Fault::UnknownModel => body["model"] = json!("nobody-serves-this"),
            Fault::TooLong => body["messages"][0]["content"] = json!("so long ".repeat(40_000)),
            Fault::RuledOut => body["provider"] = json!({ "ignore": [pinned] }),
            Fault::WorkerDrips => body["surety"]["deadline_ms"] = json!(3000),
            Fault::WorkerCrashContinued => {
                body["surety"] = json!({});
                body["provider"] = json!({ "order": [pinned] });
            }
            Fault::NobodyThere => {
                body["surety"] = json!({});
                self.workers.iter_mut().for_each(|worker| worker.process.end());
                let until = Instant::now() + PATIENCE;
                while ready_count(&self.host)? > 0 {
                    ensure!(Instant::now() < until, "workers that are gone are held ready");
                    thread::sleep(Duration::from_millis(50));
                }
            }
            _ => {}
        }
        if fault == Fault::CallerLeaves {
            return Ok((leave(&self.host, &body)?, false));
        }
        let progress = Progress::default();
        let host = self.host.clone();
        let (asked, shown) = (body, progress.clone());
        let asking = thread::spawn(move || wire::ask(&host, "/v1/chat/completions", &asked, &shown));
        let until = Instant::now() + PATIENCE;
        while progress.now().text_bytes == 0 && !progress.now().ended {
            ensure!(Instant::now() < until, "no text comes");
            thread::sleep(Duration::from_millis(1));
        }
        let worker = &mut self.workers[victim];
        match fault {
            Fault::WorkerCrash | Fault::WorkerCrashContinued => worker.process.end(),
            Fault::WorkerHang => worker.process.signal(Signal::STOP)?,
            Fault::WorkerDrips => {
                while !progress.now().ended {
                    worker.process.signal(Signal::STOP)?;
                    thread::sleep(Duration::from_millis(400));
                    worker.process.signal(Signal::CONT)?;
                    thread::sleep(Duration::from_millis(1));
                }
            }
            Fault::GatewayKilled => {
                // What it writes is on the disk some milliseconds later.
                thread::sleep(Duration::from_millis(150));
                self.gateway.end();
            }
            Fault::GatewayStandsStill => {
                self.gateway.signal(Signal::STOP)?;
                thread::sleep(Duration::from_secs(4));
                self.gateway.signal(Signal::CONT)?;
            }
            _ => {}
        }
        let heard = asking.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
        let id = heard.request_id.context("the answer has no id")?;
        Ok((id, heard.ended == Ended::Whole))
    }

    /// Waits until a worker answers again that rests after what it was put through before.
    fn rested(&self, victim: usize) -> Result<()> {
        let body = json!({
            "model": self.model, "stream": true, "max_tokens": 1,
            "messages": [{ "role": "user", "content": "Who goes there?" }],
            "surety": { "worker": self.workers[victim].key },
        });
        let until = Instant::now() + PATIENCE;
        while wire::ask(&self.host, "/v1/chat/completions", &body, &Progress::default()).ended != Ended::Whole
        {
            ensure!(Instant::now() < until, "the worker rests for ever");
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Injects a fault and has it explained.
    fn case(&mut self, fault: Fault, victim: usize) -> Result<Judged> {
        let mut tries = 0;
        let (id, whole) = loop {
            self.mend()?;
            self.rested(victim)?;
            let (id, whole) = self.strike(fault, victim)?;
            tries += 1;
            if !(whole && fault.must_strike()) || tries == TRIES {
                break (id, whole);
            }
        };
        if matches!(fault, Fault::GatewayKilled) {
            self.mend()?;
        }
        let (explained, took) = self.explain(&[&id], "--base-url")?;
        let file = self.data_dir.join("exported.json");
        let path = file.display().to_string();
        self.explain(&[&id, "--export", &path], "--base-url")?;
        let (again, _) = self.explain(&[&path, "--offline"], "")?;
        fs::remove_file(&file)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let accountable = text(&explained["accountable"]);
        let named = explained["worker"].as_str();
        let struck = self.workers[victim].key.as_str();
        // Continued, it may be whole before the signal was there.
        let unstruck = fault == Fault::WorkerCrashContinued
            && explained["parts"].as_array().is_some_and(|parts| parts.len() < 2);
        let right =
            fault.right(whole).contains(&accountable.as_str()) || (unstruck && accountable == "nobody");
        let named_right = named.is_none_or(|named| named == struck);
        let silent = ["nobody", "unknown"].contains(&accountable.as_str());
        Ok(Judged {
            fault,
            right: right && named_right,
            accused: !(silent || right && named_right),
            charged: !whole && (explained["charge"] != again["charge"] || !is_nothing(&explained["charge"])),
            same_offline: explained["verdict"] == again["verdict"]
                && accountable == text(&again["accountable"]),
            verdict: text(&explained["verdict"]),
            accountable,
            took,
        })
    }

    fn explain(&self, args: &[&str], at: &str) -> Result<(Value, Duration)> {
        let mut command = surety(&self.binary, &self.data_dir);
        command.arg("explain").args(args).arg("--json");
        if !at.is_empty() {
            command.args([at, &format!("http://{}/v1", self.host)]);
        }
        let began = Instant::now();
        let output = command.output()?;
        let took = began.elapsed();
        let told = || format!("explain {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok((serde_json::from_slice(&output.stdout).with_context(told)?, took))
    }
}

fn is_nothing(charge: &Value) -> bool {
    matches!(charge.as_str(), Some("0")) || charge.as_u64() == Some(0)
}

fn serve(binary: &Path, data_dir: &Path, listen: &str) -> Result<(Process, Value)> {
    // Slow, so that there is a middle to strike at.
    let args = ["worker", "run", "--listen", listen, "--threads", "1", "--backend", "scalar"];
    launch(binary, data_dir, &args)
}

fn enter(binary: &Path, data_dir: &Path, workers: &[Worker], listen: &str) -> Result<(Process, String)> {
    let named: Vec<String> =
        workers.iter().map(|worker| format!("{}@{}", worker.key, worker.address)).collect();
    let mut args = vec!["gateway", "run", "--listen", listen];
    named.iter().for_each(|worker| args.extend(["--worker", worker]));
    let (gateway, ready) = launch(binary, data_dir, &args)?;
    let host = ready["address"].as_str().context("the gateway has no address")?.to_owned();
    Ok((gateway, host))
}

fn ready_count(host: &str) -> Result<usize> {
    let status = wire::get(host, "/v1/network/status")?;
    let workers = status["workers"].as_array().into_iter().flatten();
    Ok(workers.filter(|worker| worker["state"] == "ready").count())
}

/// Asks, and goes away in the middle; the request's id.
fn leave(host: &str, body: &Value) -> Result<String> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(host)?;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(stream);
    let (mut id, mut line) = (None, String::new());
    while !line.starts_with("data: ") {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the stream ended early");
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("x-request-id")
        {
            id = Some(value.trim().to_owned());
        }
    }
    drop(reader);
    // Until the gateway has noticed.
    let id = id.context("the answer has no id")?;
    let until = Instant::now() + PATIENCE;
    while wire::get(host, &format!("/v1/requests/{id}/explanation")).is_err() {
        ensure!(Instant::now() < until, "it is not noticed that the caller left");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(id)
}

/// Runs all of it.
pub fn run(settings: &Settings) -> Result<Report> {
    let started = Instant::now();
    let folder = tempfile::tempdir()?;
    let binary = settings.binary.canonicalize().with_context(|| format!("{}", settings.binary.display()))?;
    let wanted =
        |fault: &Fault| settings.only.is_empty() || settings.only.iter().any(|only| only == fault.name());
    let faults: Vec<Fault> = Fault::ALL.into_iter().filter(wanted).collect();
    ensure!(!faults.is_empty(), "there is no such fault");
    let mut order: Vec<Fault> = (0..settings.times).flat_map(|_| faults.iter().copied()).collect();
    let mut rng = Rng::keyed(&[settings.seed, 7]);
    for index in (1..order.len()).rev() {
        order.swap(index, rng.below(index + 1));
    }
    let mut network = Network::start(&binary, folder.path())?;
    let mut judged = Vec::new();
    for fault in order {
        let victim = rng.below(WORKERS);
        let one = network.case(fault, victim).with_context(|| format!("fault {}", fault.name()))?;
        if !one.right {
            eprintln!("{}: {} — {}", fault.name(), one.accountable, one.verdict);
        }
        judged.push(one);
    }
    Ok(Report { seed: settings.seed, judged, took: started.elapsed() })
}

impl Report {
    /// What does not hold.
    pub fn failures(&self) -> Vec<String> {
        let count = |of: fn(&Judged) -> bool| self.judged.iter().filter(|judged| of(judged)).count();
        let mut failures = Vec::new();
        let (right, all) = (count(|judged| judged.right), self.judged.len());
        if right * 100 < all * RIGHT_PERCENT_MIN {
            failures.push(format!("{right} of {all} verdicts are right"));
        }
        for (what, wrong) in [
            ("honest parties accused", count(|judged| judged.accused)),
            ("charges for what was not delivered", count(|judged| judged.charged)),
            ("files that say something else", count(|judged| !judged.same_offline)),
        ] {
            if wrong > 0 {
                failures.push(format!("{wrong} {what}"));
            }
        }
        failures
    }

    /// What took too long; on a busy machine that says nothing.
    pub fn too_slow(&self) -> Vec<String> {
        let slow = self.judged.iter().filter(|judged| judged.took > EXPLAIN_MAX).count();
        if slow > 0 {
            vec![format!("{slow} explanations took more than {} s", EXPLAIN_MAX.as_secs())]
        } else {
            Vec::new()
        }
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("seed {}: {} faults in {:.0} s", self.seed, self.judged.len(), self.took.as_secs_f64()),
            format!(
                "{:24} {:>5} {:>6} {:>8} {:>8} {:>8} {:>7}  named",
                "fault", "times", "right", "accused", "charged", "offline", "max ms"
            ),
        ];
        let mut rows: BTreeMap<Fault, Vec<&Judged>> = BTreeMap::new();
        self.judged.iter().for_each(|judged| rows.entry(judged.fault).or_default().push(judged));
        for (fault, own) in rows {
            let count = |of: fn(&Judged) -> bool| own.iter().filter(|judged| of(judged)).count();
            let mut named: BTreeMap<&str, usize> = BTreeMap::new();
            own.iter().for_each(|judged| *named.entry(judged.accountable.as_str()).or_default() += 1);
            let named: Vec<String> = named.iter().map(|(who, times)| format!("{who} {times}")).collect();
            lines.push(format!(
                "{:24} {:>5} {:>6} {:>8} {:>8} {:>8} {:>7}  {}",
                fault.name(),
                own.len(),
                count(|judged| judged.right),
                count(|judged| judged.accused),
                count(|judged| judged.charged),
                count(|judged| judged.same_offline),
                own.iter().map(|judged| judged.took.as_millis()).max().unwrap_or(0),
                named.join(", ")
            ));
        }
        lines.push("not injected:".to_owned());
        lines.extend(NOT_INJECTED.iter().map(|(what, why)| format!("  {what}: {why}")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_party_that_is_named_is_a_failure() {
        let judged = |right, accused| Judged {
            fault: Fault::WorkerHang,
            accountable: "worker".into(),
            verdict: String::new(),
            right,
            accused,
            charged: false,
            same_offline: true,
            took: Duration::ZERO,
        };
        let report = |judged| Report { seed: 1, judged, took: Duration::ZERO };
        assert_eq!(report(vec![judged(true, false); 20]).failures(), Vec::<String>::new());
        let mut one = vec![judged(true, false); 19];
        one.push(judged(false, true));
        assert_eq!(report(one).failures(), ["1 honest parties accused"]);
        assert_eq!(report(vec![judged(false, false)]).failures(), ["0 of 1 verdicts are right"]);
        assert!(Fault::ALL.iter().all(|fault| !fault.right(false).is_empty()));
    }
}
