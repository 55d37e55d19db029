//! Faults of a network with a ledger: what only computing again shows, what the ledger itself suffers, what is paid.
//!
//! In:     how often each fault.
//! Out:    the verdicts on the requests that they struck; of lies, before and after the ledger decided.
//! Touches: `surety up`, workers that lie, further gateways, in folders of their own; loopback sockets.
//! Holds:  every answer that is to be contested is asked for before the first is: who is convicted serves no more.
//! Absent: how disputes are played (the liar matrix counts their messages).

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use surety_engine::{gguf::Gguf, tokenizer::Tokenizer};

use super::fault::Fault;
use super::site::{How, Process, launch, send};
use super::verdict::{Door, Judged};
use crate::kill_matrix::network::{self, Up, told};
use crate::kill_matrix::wire::{self, Ended, Progress};
use crate::liar_matrix::{self, Answer, Kind, MODEL_FILE, Outcome};
use crate::rng::Rng;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const MODEL: &str = "shakespeare-demo";
/// Whoever accuses, and pays for a second gateway.
const PURSE: &str = "purse";
const PAYER: &str = "worker-8-operator";
/// A key and its certificate, for 127.0.0.1, that nobody vouches for and nobody keeps secret.
static CERTIFICATE: &[u8] = include_bytes!("untrusted-certificate.der");
static KEY: &[u8] = include_bytes!("untrusted-key.der");

/// Which worker tells the lie of a fault.
fn kind(fault: Fault) -> Option<Kind> {
    Some(match fault {
        Fault::OtherWeights => Kind::OtherWeights,
        Fault::OtherSampler => Kind::Temperature,
        Fault::EarlyStop => Kind::EarlyStop,
        Fault::Injected => Kind::Injected,
        Fault::Edited => Kind::Edited,
        Fault::Replayed => Kind::Replayed,
        Fault::VerifierLies => Kind::Honest,
        _ => return None,
    })
}

/// Whether a fault is shown by a dispute.
pub(super) fn is_disputed(fault: Fault) -> bool {
    kind(fault).is_some()
}

pub(super) struct Paid {
    binary: PathBuf,
    data_dir: PathBuf,
    seed: u64,
    up: Up,
    rpc: String,
    workers: BTreeMap<Kind, String>,
    liars: Vec<liar_matrix::Worker>,
    door: Door,
    /// Another gateway, with keys.
    keyed: Option<(Process, Door)>,
    model: Tokenizer,
    asked: usize,
    /// There is an answer that can be given again.
    replayable: bool,
}

/// An answer that is to be contested, and what was said of it before.
pub(super) struct Contested {
    pub(super) fault: Fault,
    answer: Answer,
    before: Judged,
}

impl Paid {
    /// Starts one, with the liars that these faults take.
    pub(super) fn start(binary: &Path, folder: &Path, seed: u64, faults: &[Fault]) -> Result<Paid> {
        let up = Up::start(binary, folder, &["--workers", "1", "--threads", "1"].map(str::to_owned))?;
        let (host, rpc) = (up.host(), up.rpc().context("there is no ledger")?);
        let mut workers = BTreeMap::from([(Kind::Honest, up.members()[0].id.clone())]);
        let mut liars = Vec::new();
        // Somebody must be there who could audit.
        let audits = faults.contains(&Fault::VerifierOffline).then_some(Kind::Temperature);
        for kind in faults.iter().filter_map(|fault| kind(*fault)).chain(audits) {
            if let std::collections::btree_map::Entry::Vacant(vacant) = workers.entry(kind) {
                let (worker, id) = liar_matrix::start(binary, folder, &rpc, kind)?;
                liars.push(worker);
                vacant.insert(id);
            }
        }
        network::until_held_ready(&host, workers.len())?;
        let ledger = look(folder, &format!("http://{rpc}"));
        let (binary, data_dir) = (binary.to_owned(), folder.to_owned());
        let door = Door { binary: binary.clone(), data_dir: data_dir.clone(), host, key: None, ledger };
        let model = Tokenizer::from_gguf(&Gguf::parse(MODEL_FILE)?)?;
        Ok(Paid {
            binary,
            data_dir,
            seed,
            up,
            rpc,
            workers,
            liars,
            door,
            keyed: None,
            model,
            asked: 0,
            replayable: false,
        })
    }

    /// Asks for an answer that is to be contested later, and has it explained: nobody can know anything yet.
    pub(super) fn lie(&mut self, fault: Fault) -> Result<Contested> {
        let kind = kind(fault).context("that is no lie")?;
        // The first answer is one that can be replayed.
        if kind == Kind::Replayed && !self.replayable {
            self.answer(kind)?;
            self.replayable = true;
        }
        let answer = self.answer(kind)?;
        let explained = self.door.explain(&answer.request_id)?;
        // An auditor may have been quick.
        let right: &[&str] = if answer.lie { &["nobody", "unknown", "worker"] } else { &["nobody"] };
        let before = explained.judged(fault, right, Some(&self.workers[&kind]), true);
        Ok(Contested { fault, answer, before })
    }

    fn answer(&mut self, kind: Kind) -> Result<Answer> {
        let number = self.asked;
        self.asked += 1;
        liar_matrix::ask(&self.door.host, self.seed, number, kind, &self.workers[&kind], &self.model)
    }

    /// Contests an answer, and has it explained again.
    pub(super) fn contest(&self, contested: &Contested) -> Result<Judged> {
        let Contested { fault, answer, before } = contested;
        let outcome = liar_matrix::contest(&self.binary, &self.data_dir, PURSE, answer)?;
        let explained = self.door.clone().patient().explain(&answer.request_id)?;
        let right: &[&str] = match (&outcome, answer.lie) {
            // What is the model's own answer, whoever gave it, is contested in vain.
            (Outcome::NoLie, _) | (_, false) => &["nobody"],
            _ => fault.right(true),
        };
        let judged = explained.judged(*fault, right, Some(&self.workers[&answer.kind]), true);
        // Who has the receipt's digest and nothing else is told the same of a conviction.
        if judged.right && judged.accountable == "worker" {
            let alone = self.door.by_ledger_alone(&answer.request_id)?;
            ensure!(alone["accountable"] == "worker", "by the ledger alone it is {alone}");
        }
        Ok(judged.after(before))
    }

    /// Injects a fault that needs no dispute, and has it explained.
    pub(super) fn case(&mut self, fault: Fault) -> Result<Judged> {
        match fault {
            Fault::BudgetSpent => self.budget_spent(),
            Fault::NameUnknown => self.without_ledger(fault, "https://ledger.invalid:8545"),
            Fault::CertificateUnknown => {
                let url = unknown_server()?;
                self.without_ledger(fault, &url)
            }
            Fault::VerifierOffline => {
                let liars: Vec<u32> = self.liars.iter().map(liar_matrix::Worker::process).collect();
                self.stopped(fault, &liars)
            }
            Fault::ChainHalted => {
                let validators = self.up.ready["validators"].as_array().into_iter().flatten();
                let validators: Vec<u32> =
                    validators.filter_map(|validator| Some(validator["pid"].as_u64()? as u32)).collect();
                ensure!(!validators.is_empty(), "there are no validators");
                self.stopped(fault, &validators)
            }
            _ => anyhow::bail!("{} is no fault of this network", fault.name()),
        }
    }

    fn question(&mut self, tokens: u32) -> Value {
        self.asked += 1;
        json!({
            "model": MODEL, "stream": true, "ignore_eos": true, "max_tokens": tokens,
            "messages": [{ "role": "user", "content": format!("Who goes there? ({})", self.asked) }],
            "surety": { "worker": self.workers[&Kind::Honest] },
        })
    }

    /// Asks while some processes stand still.
    fn stopped(&mut self, fault: Fault, processes: &[u32]) -> Result<Judged> {
        let body = self.question(8);
        let all = |signal| processes.iter().try_for_each(|process| send(*process, signal));
        all(Signal::STOP)?;
        let heard = self.door.ask(&body, &Progress::default());
        let whole = heard.ended == Ended::Whole;
        let explained = heard
            .request_id
            .with_context(|| format!("the answer has no id: {:?}", heard.ended))
            .and_then(|id| self.door.explain(&id));
        all(Signal::CONT)?;
        Ok(explained?.judged(fault, fault.right(whole), None, whole))
    }

    /// Asks twice by a key whose budget is enough for one and a half.
    fn budget_spent(&mut self) -> Result<Judged> {
        let body = self.question(1_000);
        if self.keyed.is_none() {
            let data_dir = self.folder("gateway-with-keys")?;
            let (process, host) =
                self.enter(&data_dir, &format!("http://{}", self.rpc), &["--require-key"])?;
            let door = Door { data_dir, host, ..self.door.clone() };
            let door = Door { key: Some(self.key(&door, "quotes", None)?), ..door };
            let until = Instant::now() + PATIENCE;
            let id = &self.workers[&Kind::Honest];
            while !network::ready_ids(&door.host)?.contains(id) {
                ensure!(Instant::now() < until, "the second gateway cannot pay");
                thread::sleep(Duration::from_millis(100));
            }
            self.keyed = Some((process, door));
        }
        let (_, door) = self.keyed.as_ref().context("there is one")?;
        // A channel that is there may not be filled yet.
        let until = Instant::now() + PATIENCE;
        let quote = loop {
            match wire::post(&door.host, door.key.as_deref(), "/v1/quote", &body) {
                Ok(quote) => break quote,
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(250)),
            }
        };
        let cost: u64 = quote["cost_max"].as_str().context("no cost")?.parse()?;
        ensure!(cost > 0, "answers cost nothing here");
        let budget = format!("{:.6}", cost as f64 * 1.5 / 1e6);
        let key = self.key(door, &format!("spent-{}", self.asked), Some(&budget))?;
        let door = Door { key: Some(key), ..door.clone() };
        let progress = Progress::default();
        let (first, shown, asked) = (door.clone(), progress.clone(), body.clone());
        let asking = thread::spawn(move || first.ask(&asked, &shown));
        let until = Instant::now() + PATIENCE;
        while progress.now().text_bytes == 0 {
            ensure!(Instant::now() < until && !progress.now().ended, "no text comes");
            thread::sleep(Duration::from_millis(1));
        }
        let second = door.ask(&body, &Progress::default());
        let first = asking.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
        ensure!(first.ended == Ended::Whole, "what the budget covers: {:?}", first.ended);
        let paid = door.explain(&first.request_id.context("the first has no id")?)?;
        let paid = paid.judged(Fault::BudgetSpent, &["nobody"], None, true);
        let refused = door.explain(&second.request_id.context("the second has no id")?)?;
        let whole = second.ended == Ended::Whole;
        let used = wire::get_with(&door.host, door.key.as_deref(), "/v1/credits")?;
        let used: u64 = used["used"].as_str().context("no sum")?.parse()?;
        ensure!(used <= cost, "{used} were charged of one that costs {cost} at most");
        Ok(refused.judged(Fault::BudgetSpent, Fault::BudgetSpent.right(whole), None, whole).after(&paid))
    }

    /// Asks a gateway whose ledger cannot be reached, and whoever explains cannot reach it either.
    fn without_ledger(&mut self, fault: Fault, url: &str) -> Result<Judged> {
        let data_dir = self.folder(fault.name())?;
        let (_process, host) = self.enter(&data_dir, url, &[])?;
        let ledger = look(&self.data_dir, url);
        let door = Door { data_dir, host, key: None, ledger, ..self.door.clone() };
        let body = self.question(8);
        let heard = door.ask(&body, &Progress::default());
        let whole = heard.ended == Ended::Whole;
        let id = heard.request_id.with_context(|| format!("the answer has no id: {:?}", heard.ended))?;
        Ok(door.explain(&id)?.judged(fault, fault.right(whole), None, whole))
    }

    /// A data directory with the network's accounts.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.data_dir.join(name);
        fs::create_dir_all(folder.join("keys"))?;
        for key in fs::read_dir(self.data_dir.join("keys"))? {
            let key = key?;
            fs::copy(key.path(), folder.join("keys").join(key.file_name()))?;
        }
        Ok(folder)
    }

    /// Starts another gateway of the same network.
    fn enter(&self, data_dir: &Path, url: &str, more: &[&str]) -> Result<(Process, String)> {
        let genesis = self.data_dir.join("ledger/genesis.json").display().to_string();
        let mut args = vec!["gateway", "run", "--listen", "127.0.0.1:0", "--genesis", &genesis];
        args.extend(["--rpc-url", url, "--account", PAYER, "--deposit", "2"]);
        args.extend(more);
        let (gateway, ready) = launch(&self.binary, data_dir, &args, How::default())?;
        Ok((gateway, ready["address"].as_str().context("the gateway has no address")?.to_owned()))
    }

    fn key(&self, door: &Door, name: &str, budget: Option<&str>) -> Result<String> {
        let mut args = vec!["apikey", "create", name];
        args.extend(budget.iter().flat_map(|budget| ["--budget", budget]));
        let made = told(&self.binary, &door.data_dir, &args)?;
        Ok(made["secret"].as_str().context("no key was made")?.to_owned())
    }

    /// Ends all of it.
    pub(super) fn stop(self) -> Result<()> {
        drop((self.liars, self.keyed));
        self.up.stop()
    }
}

/// The order in which answers are contested.
pub(super) fn shuffle(contested: &mut [Contested], seed: u64) {
    let mut rng = Rng::keyed(&[seed, 8]);
    for at in (1..contested.len()).rev() {
        contested.swap(at, rng.below(at + 1));
    }
}

fn look(folder: &Path, url: &str) -> Vec<String> {
    let genesis = folder.join("ledger/genesis.json").display().to_string();
    ["--genesis".to_owned(), genesis, "--rpc-url".to_owned(), url.to_owned()].to_vec()
}

/// A server whose certificate nobody vouches for; its URL.
fn unknown_server() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("https://{}", listener.local_addr()?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let settings = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_slice(CERTIFICATE)],
            PrivatePkcs8KeyDer::from(KEY.to_vec()).into(),
        )?;
    let settings = Arc::new(settings);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok(mut session) = rustls::ServerConnection::new(settings.clone()) else { continue };
            thread::spawn(move || {
                let mut stream = rustls::Stream::new(&mut session, &mut stream);
                // Nobody gets so far: the certificate comes first.
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
            });
        }
    });
    Ok(url)
}
