//! The control socket: how a command reaches the worker that runs on the same machine.
//!
//! In:     one request, a line of JSON; from the same user alone.
//! Out:    an answer, a line of JSON; for a drain another when it is over.
//! Touches: a Unix socket and the pause file, in `worker/` of the data directory.
//! Holds:  lines, time and callers at once are bounded; a socket that a dead worker left is taken over, a living one is
//!         not; what was paused stays paused over a restart.
//! Absent: any way in from another machine.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::B256;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use surety_client::{Account, channel::view};
use surety_types::{
    ModelId, WorkerState,
    abi::{IHosting, IStaking, Module},
};
use surety_worker::{
    money::{Duties, Earnings, Hosted},
    serve::Control,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    pause::{Pause, PauseFile, now_ms},
    reached::Seen,
};
use crate::{
    data_dir::DataDir,
    output::{hinted, io_failure},
};

/// A request is complete within this, and so is its answer, but for a drain's second.
const TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_BYTES_MAX: u64 = 4 << 10;
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Callers at once.
const CALLERS_MAX: usize = 8;
/// What a drain may take beyond its grace: the last claims, and leaving the ledger.
const DRAIN_REST: Duration = Duration::from_secs(90);
/// Models whose pins are asked for when earnings are told.
const HOSTED_MAX: usize = 64;
/// A socket's path has so many bytes at most, on every system.
const PATH_BYTES_MAX: usize = 100;
const SUFFIX: &str = ".control";

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Tell how it is.
    Status,
    /// Take no new orders.
    Pause {
        /// For so long; until it is told otherwise if not given.
        resume_after_s: Option<u64>,
    },
    /// Take orders again.
    Resume,
    /// Finish what there is, and end.
    Drain {
        /// So long, then sign the rest off.
        grace_s: u64,
        /// Whether its key is to be retired on the ledger.
        retire: bool,
    },
    /// Tell what it earned.
    Earnings,
}

/// A drain that was asked for.
pub struct Drain {
    pub grace: Duration,
    pub retire: bool,
    /// Told when it is over: why the ledger still names the worker, if it does.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// What answers are made of.
pub struct Steered {
    pub control: Control,
    pub duties: Option<watch::Receiver<Duties>>,
    pub hosted: Option<watch::Receiver<Vec<Hosted>>>,
    pub reached: watch::Receiver<Option<Seen>>,
    pub account: Option<Arc<dyn Account>>,
    pub pause: PauseFile,
}

/// A control socket that is served.
pub struct ControlServer {
    path: PathBuf,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    /// Drains as they are asked for.
    pub drains: mpsc::Receiver<Drain>,
}

/// Where control sockets are.
pub fn folder(data_dir: &DataDir) -> PathBuf {
    data_dir.path().join("worker")
}

/// Takes a worker's control socket; fails if another process serves under this key.
pub async fn bind(folder: &Path, key: &str) -> anyhow::Result<(UnixListener, PathBuf)> {
    let path = folder.join(format!("{key}{SUFFIX}"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| io_failure("create", folder, source))?;
    let short = Short::of(&path).map_err(|source| io_failure("open", folder, source))?;
    if UnixStream::connect(&short.path).await.is_ok() {
        return Err(hinted(
            format!("a worker with the key {key} runs on this data directory already"),
            "stop it first (`surety worker drain`), or give this one another --key",
        ));
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_failure("replace", &path, error));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(&short.path).map_err(|source| io_failure("listen at", &path, source))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .map_err(|source| io_failure("protect", &path, source))?;
    Ok((listener, path))
}

/// A path short enough for a socket's address: by way of the open folder, where the system has one.
struct Short {
    path: PathBuf,
    _folder: Option<fs::File>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Short> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Short { path: path.to_owned(), _folder: None });
        }
        let folder = fs::File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Short { path, _folder: Some(folder) })
    }
}

impl ControlServer {
    /// Serves requests, and ends a pause when its time has come.
    pub fn start(listener: UnixListener, path: PathBuf, steered: Steered) -> ControlServer {
        let (stop, stopped) = oneshot::channel();
        let (drain, drains) = mpsc::channel(1);
        let task = tokio::spawn(serve(listener, Arc::new(steered), drain, stopped));
        ControlServer { path, stop, task, drains }
    }

    /// Tells those who wait what they wait for, and removes the socket.
    pub async fn finish(self) {
        drop(self.drains);
        drop(self.stop);
        let _ = timeout(TIMEOUT, self.task).await;
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve(
    listener: UnixListener,
    steered: Arc<Steered>,
    drain: mpsc::Sender<Drain>,
    mut stopped: oneshot::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(CALLERS_MAX));
    let changed = Arc::new(tokio::sync::Notify::new());
    let mut callers = JoinSet::new();
    let mut ended = None;
    loop {
        // One that is over by now is ended at once; and once, even if that cannot be kept.
        let pause = steered.pause.kept().filter(|pause| Some(*pause) != ended);
        let left = pause.and_then(|pause| pause.left(now_ms()));
        tokio::select! {
            accepted = listener.accept() => {
                while callers.try_join_next().is_some() {}
                let Ok((stream, _)) = accepted else {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                };
                // One too many, or somebody else's: closed.
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                if !is_ours(&stream) {
                    continue;
                }
                let (steered, drain, changed) = (steered.clone(), drain.clone(), changed.clone());
                callers.spawn(async move {
                    let _place = place;
                    if let Err(error) = answer(stream, &steered, &drain).await {
                        tracing::debug!(%error, "a control request was not answered");
                    }
                    changed.notify_one();
                });
            }
            () = changed.notified() => {}
            () = sleep(left.unwrap_or_default()), if left.is_some() => {
                steered.control.resume();
                ended = pause;
                if let Err(error) = steered.pause.write(None) {
                    tracing::warn!(%error, "the end of the pause could not be kept");
                }
                tracing::info!("the pause is over");
            }
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    while callers.join_next().await.is_some() {}
}

/// Whether the other end is the same user's, or the superuser's.
fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn answer(stream: UnixStream, steered: &Steered, drains: &mpsc::Sender<Drain>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(REQUEST_BYTES_MAX));
    timeout(TIMEOUT, read.read_line(&mut line)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let request = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request,
        Err(error) => return tell(&mut write, &json!({ "error": format!("not understood: {error}") })).await,
    };
    let told = match request {
        Request::Drain { grace_s, retire } => {
            let (done, over) = oneshot::channel();
            let drain = Drain { grace: Duration::from_secs(grace_s), retire, done };
            if drains.try_send(drain).is_err() {
                return tell(&mut write, &json!({ "error": "it is ending already" })).await;
            }
            tell(&mut write, &json!({ "draining": true })).await?;
            match over.await {
                Ok(Ok(())) => json!({ "drained": true }),
                Ok(Err(error)) => json!({ "error": error }),
                Err(_) => json!({ "error": "it ended before it was drained" }),
            }
        }
        Request::Status => status(steered),
        Request::Earnings => match timeout(TIMEOUT, earnings(steered)).await {
            Ok(told) => told,
            Err(_) => json!({ "error": "the ledger does not answer" }),
        },
        Request::Pause { resume_after_s } => {
            let until = resume_after_s.map(|seconds| now_ms().saturating_add(seconds.saturating_mul(1000)));
            steered.control.pause();
            match steered.pause.write(Some(Pause { until_ms: until })) {
                Ok(()) => status(steered),
                Err(error) => json!({ "error": format!("paused, but a restart would end it: {error}") }),
            }
        }
        Request::Resume => {
            steered.control.resume();
            match steered.pause.write(None) {
                Ok(()) => status(steered),
                Err(error) => json!({ "error": format!("at work, but a restart would pause it: {error}") }),
            }
        }
    };
    tell(&mut write, &told).await
}

async fn tell(write: &mut (impl tokio::io::AsyncWrite + Unpin), told: &Value) -> io::Result<()> {
    let line = format!("{told}\n");
    timeout(TIMEOUT, write.write_all(line.as_bytes())).await.map_err(|_| io::ErrorKind::TimedOut)?
}

fn status(steered: &Steered) -> Value {
    let status = steered.control.status();
    let now = now_ms();
    let pause = steered.pause.read(now);
    let state = match (status.state, pause) {
        (WorkerState::Starting, _) => "starting",
        (WorkerState::Draining, Some(_)) => "paused",
        (WorkerState::Draining, None) => "draining",
        (WorkerState::Ready, _) => "ready",
    };
    let models: Vec<Value> = status
        .models
        .iter()
        .map(|model| {
            json!({
                "id": model.id.to_string(),
                "names": model.names,
                "context_tokens": model.context_tokens,
                "prefill_tokens_per_second": model.prefill_tokens_per_second,
                "decode_tokens_per_second": model.decode_tokens_per_second,
            })
        })
        .collect();
    let duties = steered.duties.as_ref().map(|duties| duties.borrow().clone());
    let ledger = duties.map(|duties| {
        json!({
            "registered": duties.registered,
            "doing": duties.doing,
            "problem": duties.problem.map(|problem| format!("{}; {}", problem.message, problem.hint)),
        })
    });
    json!({
        "worker": status.worker.to_string(),
        "address": steered.control.address().to_string(),
        "relay_connected": steered.control.relay_connected(),
        "state": state,
        "paused_until_ms": pause.and_then(|pause| pause.until_ms),
        "active_requests": status.active_requests,
        "waiting_requests": status.waiting_requests,
        "models": models,
        "ledger": ledger,
        "reached": steered.reached.borrow().as_ref().map(Seen::told),
        "hosting": steered.hosted.as_ref().map(|hosted| hosted.borrow().iter().map(told_hosted).collect::<Vec<_>>()),
    })
}

/// How it stands with a model's hosting, as JSON.
fn told_hosted(hosted: &Hosted) -> Value {
    json!({
        "model": hosted.model.to_string(),
        "pinned": hosted.pinned,
        "fetched": hosted.fetched,
        "proven": hosted.proven,
        "missed": hosted.missed,
        "last_proven_epoch": hosted.last_proven,
        "pool_wei": hosted.pool_wei.to_string(),
        "part_wei": hosted.part_wei.to_string(),
        "cost_wei": hosted.cost_wei.to_string(),
        "pins": hosted.pins,
        "wanted": hosted.wanted,
        "doing": hosted.doing,
        "problem": hosted.problem.as_ref().map(|problem| format!("{}; {}", problem.message, problem.hint)),
    })
}

async fn earnings(steered: &Steered) -> Value {
    let Some(found) = steered.control.earnings() else {
        return json!({ "error": "this worker serves for nothing: it was started without a ledger" });
    };
    let (found, account) = match (found, &steered.account) {
        (Ok(found), Some(account)) => (found, account),
        (Ok(_), None) => return json!({ "error": "this worker has no account" }),
        (Err(error), _) => return json!({ "error": error }),
    };
    told_earnings(&found, &**account).await
}

/// What was earned, as JSON: amounts in wei, as decimal text.
pub async fn told_earnings(found: &Earnings, account: &dyn Account) -> Value {
    let operator = account.address();
    let bonded = IStaking::bondedOfCall { operator, delegator: operator };
    let bonded = view(account, Module::Staking, &bonded).await.ok();
    let balance = account.balance().await.ok();
    let charged: u128 = found.charged.iter().map(|row| row.wei).sum();
    let proofs = found.proven.iter().map(|row| {
        json!({
            "day": day(row.day),
            "model": row.model.to_string(),
            "proofs": row.proofs,
            "paid_wei": row.wei.to_string(),
            "gas_wei": row.gas_wei.to_string(),
        })
    });
    let proofs: Vec<Value> = proofs.collect();
    let hosted: BTreeSet<ModelId> = found.proven.iter().map(|row| row.model).collect();
    let mut pins = Vec::new();
    for model in hosted.into_iter().take(HOSTED_MAX) {
        let pin = IHosting::pinOfCall { model: B256::from(model.0.0), operator };
        // Without an answer nothing is said of it.
        let Ok(pin) = view(account, Module::Hosting, &pin).await else { continue };
        pins.push(json!({
            "model": model.to_string(),
            "pinned": !pin.worker.is_zero(),
            "proven": pin.proven,
            "missed": pin.missed,
        }));
    }
    let rows: Vec<Value> = found
        .charged
        .iter()
        .map(|row| {
            json!({
                "day": day(row.day),
                "model": row.model.to_string(),
                "orders": row.orders,
                "prompt_tokens": row.prompt_tokens,
                "output_tokens": row.output_tokens,
                "charged_wei": row.wei.to_string(),
            })
        })
        .collect();
    json!({
        "account": operator.to_string(),
        "charged_wei": charged.to_string(),
        "unclaimed_wei": found.unclaimed_wei.to_string(),
        "claimed_wei": charged.saturating_sub(found.unclaimed_wei).to_string(),
        "channels": found.channels,
        "balance_wei": balance.map(|wei| wei.to_string()),
        "bonded_wei": bonded.map(|wei| wei.to_string()),
        "days": rows,
        "hosting": { "days": proofs, "pins": pins },
    })
}

/// A day since 1970 as `YYYY-MM-DD` (Howard Hinnant, civil_from_days).
fn day(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A caller's way to a worker.
pub struct Line {
    read: BufReader<tokio::io::Take<tokio::net::unix::OwnedReadHalf>>,
    write: tokio::net::unix::OwnedWriteHalf,
}

impl Line {
    /// To the worker of this key; to the only one that runs if none is named; `None` if none runs.
    pub async fn open(data_dir: &DataDir, key: Option<&str>) -> anyhow::Result<Option<Line>> {
        let folder = folder(data_dir);
        let mut names = match key {
            Some(key) => vec![key.to_owned()],
            None => match fs::read_dir(&folder) {
                Ok(entries) => entries
                    .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                    .filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned))
                    .collect(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(io_failure("list", &folder, error)),
            },
        };
        names.sort();
        let mut open = Vec::new();
        for name in names {
            let short = Short::of(&folder.join(format!("{name}{SUFFIX}")));
            if let Ok(short) = short
                && let Ok(stream) = UnixStream::connect(&short.path).await
            {
                open.push((name, stream));
            }
        }
        if open.len() > 1 {
            let names: Vec<&str> = open.iter().map(|(name, _)| name.as_str()).collect();
            return Err(hinted(
                format!("{} workers run here: {}", names.len(), names.join(", ")),
                "say which: --key NAME",
            ));
        }
        let Some((_, stream)) = open.pop() else { return Ok(None) };
        anyhow::ensure!(is_ours(&stream), "the worker's control socket is another user's");
        let (read, write) = stream.into_split();
        Ok(Some(Line { read: BufReader::new(read.take(ANSWER_BYTES_MAX)), write }))
    }

    /// Asks, and has the answer.
    pub async fn ask(&mut self, request: &Request) -> anyhow::Result<Value> {
        let line = format!("{}\n", serde_json::to_string(request)?);
        timeout(TIMEOUT, self.write.write_all(line.as_bytes()))
            .await
            .context("the worker takes nothing")?
            .context("the worker is gone")?;
        self.next(TIMEOUT * 2).await
    }

    /// The second answer to a drain, when it is over.
    pub async fn drained(&mut self, grace: Duration) -> anyhow::Result<Value> {
        self.next(grace + DRAIN_REST).await
    }

    async fn next(&mut self, limit: Duration) -> anyhow::Result<Value> {
        let mut line = String::new();
        let read =
            timeout(limit, self.read.read_line(&mut line)).await.context("the worker does not answer")?;
        read.context("the worker is gone")?;
        anyhow::ensure!(!line.is_empty(), "the worker ended without an answer");
        let told: Value = serde_json::from_str(&line).context("the worker's answer is not understood")?;
        match told.get("error").and_then(Value::as_str) {
            Some(error) => anyhow::bail!("the worker says: {error}"),
            None => Ok(told),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, date) in
            [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_088, "2024-12-31")]
        {
            assert_eq!(day(days), date);
        }
    }

    #[test]
    fn requests_are_read_as_they_are_written_and_nothing_else_is() {
        let requests = [
            Request::Status,
            Request::Pause { resume_after_s: Some(600) },
            Request::Pause { resume_after_s: None },
            Request::Resume,
            Request::Drain { grace_s: 30, retire: true },
            Request::Earnings,
        ];
        for request in requests {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request, "{text}");
        }
        for wrong in ["", "{}", "\"status\"", r#"{"command":"mint"}"#, r#"{"command":"drain"}"#] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_dead_socket_is_taken_over_and_a_living_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        // Longer than a socket's address may be.
        let folder = root.path().join("d".repeat(120));
        let (listener, path) = bind(&folder, "w").await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = bind(&folder, "w").await.unwrap_err();
        assert!(refused.to_string().contains("runs on this data directory already"), "{refused}");
        drop(listener);
        assert!(path.exists(), "as a killed worker leaves it");
        bind(&folder, "w").await.unwrap();
    }
}
