//! Faults of a network without a ledger: two workers, a gateway, whoever asks.
//!
//! In:     a fault, and the worker that it is to strike.
//! Out:    the verdict on the request that it struck.
//! Touches: processes, files and links of its own network.
//! Holds:  before a fault everything answers; after it, everything is as it was.
//! Absent: lies, and what the ledger knows (`paid`).

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::fault::Fault;
use super::site::{How, Process, Worker, damage, launch, next_version};
use super::verdict::{Door, Judged};
use crate::kill_matrix::network::{Namespace, Way, told, until_held_ready};
use crate::kill_matrix::wire::{self, Ended, Heard, Progress};
use crate::liar_matrix::{MODEL_FILE, other_weights};

/// Workers of the network.
pub(super) const WORKERS: usize = 2;
/// Between two requests to a worker that rests.
const PAUSE: Duration = Duration::from_millis(250);
/// Times that a fault is tried again whose answer was whole before it struck.
const TRIES: usize = 8;
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a gateway needs to see that a worker came back as another.
const NEWS: Duration = Duration::from_secs(3);
const MODEL: &str = "shakespeare-demo";
/// A model that one worker alone serves: which.
const WITHDRAWN: (&str, usize) = ("soon-withdrawn", 1);
/// By so much a clock is wrong.
const HOUR_S: i64 = 3600;
/// What passes a slow link in a second.
const SLOW_BITS: u32 = 12_000;
/// The longest body that a gateway takes, and how many of them it holds at once.
const BODY_BYTES_MAX: usize = 16 << 20;
const BODIES_MAX: usize = 16;

pub(super) struct Bare {
    binary: PathBuf,
    folder: PathBuf,
    workers: Vec<Worker>,
    gateway: Process,
    /// Its gateway, and another that asks for keys.
    door: Door,
    keyed: Option<(Process, Door)>,
    altered: bool,
}

impl Bare {
    /// Starts one. `number` is this network's own; workers get a link each if that is wanted.
    pub(super) fn start(binary: &Path, folder: &Path, number: usize, linked: bool) -> Result<Bare> {
        let mut workers = Vec::new();
        for index in 0..WORKERS {
            let data_dir = folder.join(format!("worker-{index}"));
            fs::create_dir_all(&data_dir)?;
            let own = data_dir.join("model.gguf");
            fs::write(&own, MODEL_FILE)?;
            let mut models = vec![format!("{MODEL}={}", own.display())];
            if index == WITHDRAWN.1 {
                let path = data_dir.join("withdrawn.gguf");
                fs::write(&path, other_weights()?)?;
                models.push(format!("{}={}", WITHDRAWN.0, path.display()));
            }
            let namespace = linked.then(|| Namespace::make(number * WORKERS + index)).transpose()?;
            workers.push(Worker::start(binary, data_dir, namespace, models)?);
        }
        let data_dir = folder.join("gateway");
        fs::create_dir_all(&data_dir)?;
        let (gateway, host) = enter(binary, &data_dir, &workers, "127.0.0.1:0", &[], 0)?;
        until_held_ready(&host, WORKERS)?;
        let door = Door { binary: binary.to_owned(), data_dir, host, key: None, ledger: Vec::new() };
        let (binary, folder) = (binary.to_owned(), folder.to_owned());
        Ok(Bare { binary, folder, workers, gateway, door, keyed: None, altered: false })
    }

    /// Injects a fault and has it explained.
    pub(super) fn case(&mut self, fault: Fault, victim: usize) -> Result<Judged> {
        let victim = if fault == Fault::ModelWithdrawn { WITHDRAWN.1 } else { victim };
        let mut tries = 0;
        let (heard, whole) = loop {
            self.mend()?;
            self.rested(victim)?;
            let (id, whole) = self.strike(fault, victim)?;
            tries += 1;
            if !(whole && fault.must_strike()) || tries == TRIES {
                break (id, whole);
            }
        };
        let struck = self.workers[victim].key.clone();
        // Who explains reaches the gateway, and finds it again if it ended.
        if matches!(fault, Fault::GatewayKilled) {
            self.mend()?;
        }
        let door = match (&self.keyed, fault) {
            (Some((_, door)), Fault::WrongKey) => door,
            _ => &self.door,
        };
        let explained = door.explain(&heard)?;
        let mut right = fault.right(whole).to_vec();
        // Continued, it may be whole before the signal was there.
        if fault == Fault::WorkerCrashContinued && explained.parts < 2 {
            right.push("nobody");
        }
        Ok(explained.judged(fault, &right, Some(&struck), whole))
    }

    /// Brings back what a fault took away.
    fn mend(&mut self) -> Result<()> {
        let mut changed = false;
        for worker in &mut self.workers {
            worker.process.signal(Signal::CONT)?;
            if let Some(namespace) = &worker.namespace {
                namespace.mend()?;
            }
            let model = worker.model();
            if fs::read(&model).ok().as_deref() != Some(MODEL_FILE) {
                fs::write(&model, MODEL_FILE)?;
                worker.altered = true;
            }
            if worker.altered || worker.process.is_gone()? {
                worker.again(&self.binary, 0)?;
                (worker.altered, changed) = (false, true);
            }
        }
        self.gateway.signal(Signal::CONT)?;
        if self.altered || self.gateway.is_gone()? {
            self.gateway.end();
            self.enter(0)?;
            self.altered = false;
        }
        if changed {
            thread::sleep(PAUSE);
        }
        until_held_ready(&self.door.host, WORKERS)
    }

    /// Starts the gateway where it was, or by another clock.
    fn enter(&mut self, clock_s: i64) -> Result<()> {
        let host = self.door.host.clone();
        (self.gateway, self.door.host) =
            enter(&self.binary, &self.door.data_dir, &self.workers, &host, &[], clock_s)?;
        Ok(())
    }

    /// Waits until a worker answers again that rests after what it was put through before.
    fn rested(&self, victim: usize) -> Result<()> {
        let body = json!({
            "model": MODEL, "stream": true, "max_tokens": 1,
            "messages": [{ "role": "user", "content": "Who goes there?" }],
            "surety": { "worker": self.workers[victim].key },
        });
        let until = Instant::now() + PATIENCE;
        loop {
            let heard = self.door.ask(&body, &Progress::default());
            if heard.ended == Ended::Whole {
                return Ok(());
            }
            ensure!(Instant::now() < until, "the worker rests for ever: {:?}", heard.ended);
            thread::sleep(PAUSE);
        }
    }

    /// Asks, has the fault strike where there is text, and returns the id and whether the answer came whole.
    fn strike(&mut self, fault: Fault, victim: usize) -> Result<(String, bool)> {
        let pinned = self.workers[victim].key.clone();
        let mut body = json!({
            "model": MODEL, "stream": true, "ignore_eos": true, "max_tokens": 4000,
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
            Fault::LinkSlow => body["max_tokens"] = json!(400),
            Fault::WorkerCrashContinued | Fault::AllLinksCut => {
                body["surety"] = json!({});
                body["provider"] = json!({ "order": [pinned] });
            }
            _ => {}
        }
        match fault {
            Fault::CallerLeaves => return Ok((leave(&self.door.host, &body)?, false)),
            Fault::WrongKey => return self.wrong_key(&body),
            Fault::GatewayOverloaded => {
                body["max_tokens"] = json!(8);
                return self.overloaded(&body);
            }
            Fault::NobodyThere => {
                body["surety"] = json!({});
                self.workers.iter_mut().for_each(|worker| worker.process.end());
                self.until_ready(0)?;
            }
            Fault::ModelWithdrawn => {
                body["surety"] = json!({});
                body["model"] = json!(WITHDRAWN.0);
                body["max_tokens"] = json!(8);
                let heard = self.door.ask(&body, &Progress::default());
                ensure!(heard.ended == Ended::Whole, "before it was withdrawn: {:?}", heard.ended);
                self.workers[victim].process.signal(Signal::TERM)?;
                self.workers[victim].altered = true;
                self.until_ready(WORKERS - 1)?;
            }
            Fault::StorageDamaged
            | Fault::StorageMissing
            | Fault::PackedDamaged
            | Fault::WorkerAhead
            | Fault::WorkerBehind
            | Fault::UpgradeMismatch => return self.altered_worker(fault, victim, body),
            Fault::GatewayAhead | Fault::GatewayBehind => {
                self.gateway.end();
                self.altered = true;
                self.enter(if fault == Fault::GatewayAhead { HOUR_S } else { -HOUR_S })?;
                self.until_ready(WORKERS)?;
                body["max_tokens"] = json!(8);
            }
            _ => {}
        }
        let progress = Progress::default();
        let (door, shown) = (self.door.clone(), progress.clone());
        let asking = thread::spawn(move || door.ask(&body, &shown));
        let until = Instant::now() + PATIENCE;
        while progress.now().text_bytes == 0 && !progress.now().ended {
            ensure!(Instant::now() < until, "no text comes");
            thread::sleep(Duration::from_millis(1));
        }
        self.hit(fault, victim, &progress)?;
        let heard = asking.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
        ended(heard)
    }

    /// What befalls the network when there is text.
    fn hit(&mut self, fault: Fault, victim: usize, progress: &Progress) -> Result<()> {
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
            Fault::LinkCut => link(worker)?.set_link(false)?,
            Fault::LinkLosesThere => link(worker)?.lose(Way::There)?,
            Fault::LinkLosesBack => link(worker)?.lose(Way::Back)?,
            Fault::LinkSlow => link(worker)?.slow(SLOW_BITS)?,
            Fault::AllLinksCut => {
                self.workers.iter().try_for_each(|worker| link(worker)?.set_link(false))?;
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
        Ok(())
    }

    /// Starts a worker again with something changed, and asks it.
    fn altered_worker(&mut self, fault: Fault, victim: usize, mut body: Value) -> Result<(String, bool)> {
        body["max_tokens"] = json!(24);
        body["seed"] = json!(7);
        let undisturbed = self.door.ask(&body, &Progress::default());
        ensure!(undisturbed.ended == Ended::Whole, "undisturbed: {:?}", undisturbed.ended);
        let worker = &mut self.workers[victim];
        worker.process.end();
        worker.altered = true;
        let (mut binary, mut clock_s) = (self.binary.clone(), 0);
        match fault {
            Fault::StorageDamaged => damage(&worker.model())?,
            Fault::StorageMissing => fs::remove_file(worker.model())?,
            Fault::PackedDamaged => {
                let packed = fs::read_dir(worker.data_dir.join("cache"))?.flatten().map(|entry| entry.path());
                let packed: Vec<PathBuf> =
                    packed.filter(|path| path.extension().is_some_and(|kind| kind == "tiles")).collect();
                ensure!(!packed.is_empty(), "no weights are packed");
                packed.iter().try_for_each(|path| damage(path))?;
            }
            Fault::WorkerAhead => clock_s = HOUR_S,
            Fault::WorkerBehind => clock_s = -HOUR_S,
            _ => binary = next_version(&self.binary, &self.folder)?,
        }
        // One that does not start is a worker that is not there.
        let started = worker.again(&binary, clock_s);
        if matches!(fault, Fault::WorkerAhead | Fault::WorkerBehind | Fault::UpgradeMismatch) {
            started?;
        }
        thread::sleep(NEWS);
        let heard = self.door.ask(&body, &Progress::default());
        if fault == Fault::UpgradeMismatch {
            ensure!(heard.ended != Ended::Whole, "a worker of another version answers");
        }
        if heard.ended == Ended::Whole {
            ensure!(heard.choices == undisturbed.choices, "damaged, it gives another answer");
        }
        ended(heard)
    }

    /// Asks a gateway that wants keys by one that it does not know.
    fn wrong_key(&mut self, body: &Value) -> Result<(String, bool)> {
        if self.keyed.is_none() {
            let data_dir = self.folder.join("gateway-with-keys");
            fs::create_dir_all(&data_dir)?;
            let (process, host) =
                enter(&self.binary, &data_dir, &self.workers, "127.0.0.1:0", &["--require-key"], 0)?;
            let made = told(&self.binary, &data_dir, &["apikey", "create", "right"])?;
            let key = Some(made["secret"].as_str().context("no key was made")?.to_owned());
            self.keyed = Some((process, Door { data_dir, host, key, ..self.door.clone() }));
        }
        let (_, door) = self.keyed.as_ref().context("there is one")?;
        let wrong = format!("sk-surety-{}", "0".repeat(43));
        ended(Door { key: Some(wrong), ..door.clone() }.ask(body, &Progress::default()))
    }

    /// Asks while as many bodies are on their way as the gateway holds.
    fn overloaded(&self, body: &Value) -> Result<(String, bool)> {
        let all_but_one = vec![b' '; BODY_BYTES_MAX - 1];
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let senders: Vec<_> = (0..BODIES_MAX)
                .map(|_| scope.spawn(|| hold_a_body(&self.door.host, &all_but_one, &is_over)))
                .collect();
            let heard = self.refused_for_text(body);
            is_over.store(true, Ordering::Relaxed);
            senders.into_iter().try_for_each(|sender| sender.join().expect("no panic"))?;
            ended(heard?)
        })
    }

    /// Asks until the gateway holds too much text to take more.
    fn refused_for_text(&self, body: &Value) -> Result<Heard> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let heard = self.door.ask(body, &Progress::default());
            if matches!(&heard.ended, Ended::Told(why) if why.contains("as much text as it can")) {
                return Ok(heard);
            }
            thread::sleep(PAUSE);
        }
        anyhow::bail!("the gateway holds more than it should")
    }

    /// Waits until the gateway holds just so many workers ready.
    fn until_ready(&self, count: usize) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while ready_count(&self.door.host)? != count {
            ensure!(Instant::now() < until, "the gateway does not hold {count} workers ready");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Has a body on its way but for its last byte until it is over; sends another where the gateway gave one up: it came while
/// another had the last of the room, or took too long.
fn hold_a_body(host: &str, all_but_one: &[u8], is_over: &AtomicBool) -> Result<()> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {BODY_BYTES_MAX}\r\n\r\n"
    );
    while !is_over.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(PAUSE))?;
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(all_but_one)).is_err() {
            continue;
        }
        let is_silent = |heard: io::Result<usize>| {
            heard.is_err_and(|why| matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
        };
        while !is_over.load(Ordering::Relaxed) && is_silent(stream.read(&mut [0])) {}
    }
    Ok(())
}

fn ended(heard: Heard) -> Result<(String, bool)> {
    let id = heard.request_id.with_context(|| format!("the answer has no id: {:?}", heard.ended))?;
    Ok((id, heard.ended == Ended::Whole))
}

fn link(worker: &Worker) -> Result<&Namespace> {
    worker.namespace.as_ref().context("this worker has no link of its own")
}

fn enter(
    binary: &Path,
    data_dir: &Path,
    workers: &[Worker],
    listen: &str,
    more: &[&str],
    clock_s: i64,
) -> Result<(Process, String)> {
    let named: Vec<String> =
        workers.iter().map(|worker| format!("{}@{}", worker.key, worker.address)).collect();
    let mut args = vec!["gateway", "run", "--listen", listen];
    named.iter().for_each(|worker| args.extend(["--worker", worker]));
    args.extend(more);
    let (gateway, ready) = launch(binary, data_dir, &args, How { clock_s, ..How::default() })?;
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
