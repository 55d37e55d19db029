//! The ledger matrix: callers of every kind, and a gateway that is killed again and again; then the books are compared.
//!
//! In:     the binary, how many operations and kills, a seed.
//! Out:    what came of the operations; what keys, receipts, workers and the ledger say was charged, and where they differ.
//! Touches: starts `surety up` in a folder of its own.
//! Holds:  the same seed asks the same things and kills before the same operations; what a kill meets depends on the
//!         machine.
//! Absent: deaths of workers (`kill_matrix`) and lies (`liar_matrix`).

mod books;
mod client;
mod lasting;
mod operations;
mod payer;
mod paying;
mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::kill_matrix::money;
use crate::kill_matrix::network::{self, Up};
use crate::kill_matrix::wire;
use crate::rng::Rng;
use books::{Books, Lost, WorkerBook};
use client::{Call, Came};
use operations::{Callers, Charged, KEYS, Key, Kind, PAYERS, POOR_BUDGET, Seen};
use payer::Payer;

/// `up` counts a role that ends sooner than this as one that does not start, and lets it rest.
const SETTLED: Duration = Duration::from_secs(11);
/// A kill comes so long after its operation began, at most.
const KILL_DELAY_MS: usize = 400;
/// What workers and the gateway may need to see what the other did last.
const LAST_NEWS: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(50);
/// Credits that each payer is given.
const PAYER_CREDITS: &str = "1000";

/// How it is to be run.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The program to test.
    #[arg(long, default_value = "target/release/surety")]
    pub binary: PathBuf,
    /// Operations to do.
    #[arg(long, default_value_t = 10_000)]
    pub operations: usize,
    /// How often the gateway is killed meanwhile.
    #[arg(long, default_value_t = 20)]
    pub kills: usize,
    /// Names operations and kills.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Workers of `up`.
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// Validators of `up`.
    #[arg(long, default_value_t = 4)]
    pub validators: usize,
    /// Callers at once.
    #[arg(long, default_value_t = 8)]
    pub at_once: usize,
    /// The model, as `surety up` takes it [default: the bundled demonstration].
    #[arg(long)]
    pub model: Option<String>,
    /// Where to keep what the network said, with the kills in between.
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Keep the network's folder, and say where it is.
    #[arg(long)]
    pub keep: bool,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    operations: usize,
    outcomes: BTreeMap<(Kind, String), usize>,
    books: Books,
    failures: Vec<String>,
    took: Duration,
}

/// Runs all of it.
pub fn run(settings: &Settings) -> Result<Report> {
    ensure!(settings.workers >= 1 && settings.at_once >= 1, "there is nobody to ask, or nobody who asks");
    ensure!(settings.validators >= 1, "without a ledger there are no books to compare");
    let started = Instant::now();
    let binary = settings.binary.canonicalize().with_context(|| format!("{}", settings.binary.display()))?;
    let mut folder = tempfile::tempdir()?;
    folder.disable_cleanup(settings.keep);
    let data_dir = folder.path();
    if settings.keep {
        eprintln!("the network is in {}", data_dir.display());
    }
    let mut args = vec!["--workers".to_owned(), settings.workers.to_string(), "--threads".into(), "1".into()];
    args.extend(["--validators".into(), settings.validators.to_string(), "--x402".into()]);
    args.extend(settings.model.iter().flat_map(|model| ["--model".to_owned(), model.clone()]));
    eprintln!("seed {}; starting the network", settings.seed);
    let up = Up::start(&binary, data_dir, &args)?;
    let host = up.host();
    network::until_held_ready(&host, settings.workers)?;
    let models = wire::get(&host, "/v1/models")?;
    let model = &models["data"][0];
    let make = |name: &str, budget| {
        operations::make_key(&binary, data_dir, name, budget)
            .with_context(|| format!("the key {name} was not made"))
    };
    let keys = (0..KEYS).map(|number| make(&format!("key-{number}"), None)).collect::<Result<Vec<Key>>>()?;
    let poor = make("poor", Some(POOR_BUDGET))?;
    let prepaid = make("prepaid", Some("0"))?;
    let payers = (0..PAYERS).map(|number| Payer::new(settings.seed, number)).collect::<Result<Vec<_>>>()?;
    let rpc = up.rpc().context("the ledger is not told")?;
    let mut books = Books::default();
    for payer in &payers {
        let address = payer.address().to_string();
        network::told(&binary, data_dir, &["faucet", &address, "--amount", PAYER_CREDITS])?;
        books.balances.insert(payer.address(), (read::balance(&rpc, payer.address())?, 0));
    }
    let names = keys.iter().chain([&poor, &prepaid]).map(|key| key.name.clone()).collect();
    let callers = Callers {
        binary: binary.clone(),
        data_dir: data_dir.to_owned(),
        host: host.clone(),
        model: model["id"].as_str().context("no model")?.to_owned(),
        embeds: !model["surety"]["embeddings"].is_null(),
        seed: settings.seed,
        keys,
        poor,
        prepaid,
        payers,
        seen: Mutex::new(Seen { keys: names, ..Seen::default() }),
    };
    books.kills = work(settings, &up, &callers)?;
    callers.finish();
    quiet(&host, &callers.keys[0].secret)?;
    thread::sleep(LAST_NEWS);
    let (promised, channels) = (money::promised(&host)?, channels(&host)?);
    let members: Vec<(usize, String)> =
        up.members().into_iter().map(|member| (member.number, member.id)).collect();
    if let Some(log) = &settings.log {
        std::fs::write(log, up.said()).with_context(|| format!("writing {}", log.display()))?;
    }
    up.stop()?;

    let mut seen = std::mem::take(&mut *callers.seen());
    // Of keys whose making was cut short nobody knows whether they are there.
    let listed = network::told(&binary, data_dir, &["apikey", "list"])?;
    let listed = listed["keys"].as_array().context("no list of keys")?.iter();
    let names: Vec<String> = listed.filter_map(|key| Some(key["name"].as_str()?.to_owned())).collect();
    books.of_gateway(&binary, data_dir, &names)?;
    for (number, _) in &members {
        books.of_log(data_dir, *number)?;
    }
    // Everybody has claimed and left; a ledger is needed to say so.
    let up = Up::start(&binary, data_dir, &["--workers".into(), "1".into(), "--x402".into()])?;
    let rpc = up.rpc().context("the ledger is gone")?;
    for (number, id) in members {
        let (claimed, settled) = money::claimed(&binary, data_dir, &rpc, number)?;
        let (charged, orders) = read::earned(&binary, data_dir, &rpc, number)?;
        let promised = promised.get(&id).copied().unwrap_or(0);
        let drawn = channels.get(&id).map_or(Ok(0), |channel| read::drawn(&rpc, channel))?;
        books.workers.insert(id, WorkerBook { number, charged, orders, promised, claimed, drawn, settled });
    }
    for (payer, (_, last)) in &mut books.balances {
        *last = read::balance(&rpc, *payer)?;
    }
    let (named, held) = money::supply(&binary, data_dir)?;
    books.supply = (named.to_string(), held.to_string());
    up.stop()?;

    let mut failures = std::mem::take(&mut seen.failures);
    failures.extend(books.disagreements());
    failures.extend(seen.marks.iter().filter_map(|(mark, charged)| {
        let count = books.evidence_of(mark);
        let holds = match charged {
            Charged::Once => count == 1,
            Charged::OnceAtMost => count <= 1,
            Charged::Never => count == 0,
        };
        (!holds).then(|| format!("{mark} was to be charged {charged:?}, and has evidence {count} times"))
    }));
    Ok(Report {
        seed: settings.seed,
        operations: settings.operations,
        outcomes: seen.outcomes,
        books,
        failures,
        took: started.elapsed(),
    })
}

/// Does the operations, and kills the gateway before some of them; returns when, in Unix milliseconds.
fn work(settings: &Settings, up: &Up, callers: &Callers) -> Result<Vec<u64>> {
    let mut rng = Rng::keyed(&[settings.seed, 4]);
    // The first and the last are left alone: there is to be something to lose, and to lose it from.
    let mut at: Vec<usize> =
        (0..settings.kills).map(|_| 1 + rng.below(settings.operations.max(2) - 1)).collect();
    at.sort_unstable();
    let next = AtomicUsize::new(0);
    // Kills that may come, and that have come: those who call wait for them, so that each meets somebody.
    let (armed, struck) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let callers: Vec<_> = (0..settings.at_once)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= settings.operations {
                            return;
                        }
                        let waits = |kill: usize| {
                            let early = armed.load(Ordering::Relaxed) <= kill;
                            let first = |at: usize| if early { at } else { at + settings.at_once };
                            at.get(kill).is_some_and(|at| number >= first(*at))
                        };
                        while waits(struck.load(Ordering::Relaxed)) {
                            thread::sleep(PAUSE);
                        }
                        callers.perform(number);
                        if (number + 1).is_multiple_of(250) {
                            eprintln!("{} operations", number + 1);
                        }
                    }
                })
            })
            .collect();
        let killer = scope.spawn(|| {
            let killed = kill(up, &at, &mut rng, &next, (&armed, &struck));
            // Nobody waits for kills that do not come.
            struck.store(usize::MAX, Ordering::Relaxed);
            killed
        });
        callers.into_iter().for_each(|caller| caller.join().expect("a caller panicked"));
        killer.join().expect("whoever kills panicked")
    })
}

/// Kills the gateway when these operations begin, as soon as it has settled.
fn kill(
    up: &Up,
    at: &[usize],
    rng: &mut Rng,
    next: &AtomicUsize,
    told: (&AtomicUsize, &AtomicUsize),
) -> Result<Vec<u64>> {
    let host = up.host();
    let first = up.ready["gateway"]["pid"].as_u64().context("`up` names no gateway")?;
    let mut pid = i32::try_from(first)?;
    let mut settled = Instant::now() + SETTLED;
    let mut struck = Vec::new();
    for (kills, operation) in at.iter().enumerate() {
        let delay = Duration::from_millis(rng.below(KILL_DELAY_MS) as u64);
        while Instant::now() < settled {
            thread::sleep(PAUSE);
        }
        told.0.store(kills + 1, Ordering::Relaxed);
        while next.load(Ordering::Relaxed) <= *operation {
            thread::sleep(PAUSE);
        }
        thread::sleep(delay);
        up.note(&format!("kill {kills}: the gateway, process {pid}"));
        kill_process(Pid::from_raw(pid).context("no process has the id 0")?, Signal::KILL)?;
        told.1.store(kills + 1, Ordering::Relaxed);
        struck.push(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64);
        let until = Instant::now() + PATIENCE;
        pid = loop {
            if let Some(again) = up.again("the gateway")?.get(kills) {
                break i32::try_from(*again)?;
            }
            ensure!(Instant::now() < until, "the gateway was not started again");
            thread::sleep(PAUSE);
        };
        settled = Instant::now() + SETTLED;
        // Somebody is to be asked before it is killed again.
        network::until_held_ready(&host, 1)?;
    }
    Ok(struck)
}

/// The channel to each worker, on the ledger.
fn channels(host: &str) -> Result<BTreeMap<String, String>> {
    let status = wire::get(host, "/v1/network/status")?;
    let workers = status["workers"].as_array().context("no workers")?.iter();
    let channel = |worker: &Value| {
        Some((worker["id"].as_str()?.to_owned(), worker["channel"]["id"].as_str()?.to_owned()))
    };
    Ok(workers.filter_map(channel).collect())
}

/// Micro-credits of payments that are not taken yet.
fn due(host: &str, secret: &str) -> Option<u128> {
    let Came::Answer(reply) = Call::get("/metrics", secret).make(host) else { return None };
    let lines = reply.body.lines().filter(|line| line.starts_with("surety_payment_micro_credits{"));
    let open = lines.filter(|line| line.contains("\"held\"") || line.contains("\"due\""));
    open.map(|line| line.rsplit(' ').next()?.parse::<u128>().ok()).sum()
}

/// Waits until the gateway answers nobody, owes nothing for orders under way, and has taken all that is due.
fn quiet(host: &str, secret: &str) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = wire::get(host, "/v1/network/status")?;
        let workers = status["workers"].as_array().context("no workers")?;
        let busy = |worker: &&Value| {
            worker["channel"]["in_flight"].as_str().is_some_and(|in_flight| in_flight != "0")
        };
        let due = due(host, secret);
        if workers.iter().filter(busy).count() == 0 && status["active_requests"] == 0 && due == Some(0) {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "something is still under way, and {due:?} of payments due: {status}"
        );
        thread::sleep(PAUSE);
    }
}

impl Report {
    /// What does not hold; nothing if all does.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.failures.clone();
        if self.books.charged() == 0 {
            failures.push("nothing was charged".into());
        }
        failures
    }

    /// What is in one book and not in another.
    fn lost(&self) -> Vec<Lost> {
        [self.books.unheard().0, self.books.untaken().0].concat()
    }

    /// All of it as JSON.
    pub fn json(&self) -> Value {
        let outcomes: BTreeMap<String, usize> = self
            .outcomes
            .iter()
            .map(|((kind, outcome), count)| (format!("{kind:?}: {outcome}"), *count))
            .collect();
        let workers = self.books.workers.iter().map(|(id, worker)| {
            let (rows, receipts) = self.books.of_rows(id);
            json!({
                "worker": worker.number, "rows": rows.to_string(), "receipts_in_rows": receipts, "drawn": worker.drawn.to_string(),
                "charged": worker.charged.to_string(), "receipts": worker.orders,
                "promised": worker.promised.to_string(), "claimed": worker.claimed.to_string(),
                "settled": worker.settled.to_string(),
            })
        });
        let failures = self.failures();
        json!({
            "seed": self.seed, "operations": self.operations, "kills": self.books.kills.len(),
            "holds": failures.is_empty(), "failures": failures, "outcomes": outcomes,
            "keys": self.books.keys.len(), "rows": self.books.rows.len(), "evidence": self.books.kept.len(),
            "charged": self.books.charged().to_string(), "workers": workers.collect::<Vec<_>>(),
            "lost": self.lost().iter().map(|lost| json!({
                "request": lost.request, "charge": lost.charge.to_string(), "worker": lost.worker, "what": lost.what,
                "why": lost.why.map(|why| format!("{why:?}").to_lowercase()),
            })).collect::<Vec<_>>(),
            "payments": self.books.payments.len(),
            "supply": { "genesis": self.books.supply.0, "held": self.books.supply.1 },
            "seconds": self.took.as_secs(),
        })
    }

    /// All of it as lines for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "seed {}: {} operations, the gateway killed {} times, in {} s",
            self.seed,
            self.operations,
            self.books.kills.len(),
            self.took.as_secs()
        )];
        for ((kind, outcome), count) in &self.outcomes {
            lines.push(format!("{count:>7} {kind:?}: {outcome}"));
        }
        let books = &self.books;
        lines.push(format!(
            "{} keys charged {} micro-credits in {} rows, for {} answers with evidence; {} holds are left",
            books.keys.len(),
            books.charged(),
            books.rows.len(),
            books.kept.len(),
            books.holds
        ));
        for (id, worker) in &books.workers {
            let (sum, count) = books.of_rows(id);
            let WorkerBook { number, charged, orders, promised, claimed, drawn, settled } = worker;
            lines.push(format!(
                "worker {number}: rows {sum} ({count} receipts), its book {charged} ({orders}), claimed {claimed}, drawn of the \
                 gateway's channel {drawn}, paid out {settled}, promised {promised}"
            ));
        }
        for (payer, (first, last)) in &books.balances {
            lines.push(format!("payer {payer}: had {first}, has {last}"));
        }
        let lost = self.lost();
        let sum: u128 = lost.iter().map(|lost| lost.charge).sum();
        lines.push(format!(
            "owed by no caller, and borne by whoever runs the gateway: {sum} in {} pieces",
            lost.len()
        ));
        for Lost { request, charge, worker, why, what, .. } in &lost {
            let why = why.map_or_else(|| "unexplained".to_owned(), |why| format!("{why:?}").to_lowercase());
            lines.push(format!("{charge:>7} {why}: {request}: {what} {worker}"));
        }
        lines.push(format!("ledger: genesis named {} wei, there are {}", books.supply.0, books.supply.1));
        lines
    }
}
