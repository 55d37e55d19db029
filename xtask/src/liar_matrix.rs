//! The liar matrix: disputes between real processes, with liars, honest workers and those who accuse them falsely.
//!
//! In:     the binary, how many disputes, a seed.
//! Out:    what came of each: the verdict, messages, bytes of the leaf, time; then the books.
//! Touches: starts `surety up` and workers that lie in a folder of its own; loopback sockets.
//! Holds:  every answer is served and signed for before the first is contested, since who is convicted serves no more; each
//!         challenger is a process and an account of its own; all figures are the ledger's.
//! Absent: the many disputes of one process (`surety_proof`'s tests).

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, U256, hex};
use alloy_sol_types::{SolCall, SolEvent};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use surety_engine::{gguf::Gguf, tokenizer::Tokenizer};
use surety_types::{
    Evidence,
    abi::{IDisputes, IStaking, address},
};

use crate::kill_matrix::money;
use crate::kill_matrix::network::{self, Up, WORKERS_MAX, surety};
use crate::kill_matrix::wire::{self, Ended, Progress};
use crate::rng::Rng;

/// Messages of a dispute, at most (D-5.7).
const MESSAGES_MAX: u64 = 9;
/// Bytes that a leaf shows, at most.
const LEAF_BYTES_MAX: u64 = 16 << 10;
/// For a worker to be named by the ledger, and to be asked.
const SETTLING: Duration = Duration::from_secs(90);
const MODEL: &str = "shakespeare-demo";
/// An account that no worker has, besides those that `up` makes for workers that do not run.
const PURSE: &str = "purse";
/// `surety` leaves with this when what it was asked for did not come about: here, without a conviction.
const NOT_CONVICTED: i32 = 1;
/// It stops after this fraction of what was asked for, as `worker --lie early-stop` does, rounded up.
const EARLY_FRACTION: usize = 4;
/// What is said of an answer that is what was ordered.
const NO_LIE: &str = "there is nothing to contest";
/// What the ledger says while somebody else contests it.
const UNDER_WAY: &str = "a dispute about this answer is under way";
/// What the ledger says where somebody was first.
const CONVICTED: [&str; 2] = ["the answer is convicted", "the answer was convicted by other evidence"];

/// How it is to be run.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The program to test.
    #[arg(long, default_value = "target/release/surety")]
    pub binary: PathBuf,
    /// Answers to contest.
    #[arg(long, default_value_t = 200)]
    pub disputes: usize,
    /// Disputes at once, at most.
    #[arg(long, default_value_t = 4)]
    pub at_once: usize,
    /// Of a hundred disputes so many are about honest answers.
    #[arg(long, default_value_t = 30)]
    pub honest_percent: usize,
    /// Names questions and false accusations.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What it signs for.
    Honest,
    /// It serves other weights under the model's name.
    OtherWeights,
    /// It samples at another temperature.
    Temperature,
    /// It stops early and says that the model did.
    EarlyStop,
    /// It puts a sentence of its own before the conversation.
    Injected,
    /// It changes the text after the model gave it.
    Edited,
    /// It gives an old answer again. No liar of this matrix: it must be asked the same twice.
    Replayed,
}

const LIARS: [Kind; 5] =
    [Kind::OtherWeights, Kind::Temperature, Kind::EarlyStop, Kind::Injected, Kind::Edited];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Honest => "honest",
            Kind::OtherWeights => "other weights",
            Kind::Temperature => "temperature",
            Kind::EarlyStop => "early stop",
            Kind::Injected => "injected",
            Kind::Edited => "edited",
            Kind::Replayed => "replayed",
        }
    }

    /// The worker's number, and of its account.
    fn number(self) -> usize {
        1 + self as usize
    }

    fn args(self, folder: &Path) -> Result<Vec<String>> {
        Ok(match self {
            Kind::Honest => Vec::new(),
            Kind::OtherWeights => {
                let path = folder.join("other.gguf");
                std::fs::write(&path, other_weights()?)?;
                vec![
                    "--model".into(),
                    format!("{MODEL}={}", path.display()),
                    "--pose-as".into(),
                    MODEL.into(),
                ]
            }
            Kind::Temperature => vec!["--lie".into(), "temperature".into()],
            Kind::EarlyStop => vec!["--lie".into(), "early-stop".into()],
            Kind::Injected => vec!["--lie".into(), "injected".into()],
            Kind::Edited => vec!["--lie".into(), "edited".into()],
            Kind::Replayed => vec!["--lie".into(), "replayed".into()],
        })
    }
}

/// The bundled model.
pub(crate) static MODEL_FILE: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/shakespeare-demo.gguf"));

/// The bundled model with one matrix cut down to four bits.
pub(crate) fn other_weights() -> Result<Vec<u8>> {
    let mut file = MODEL_FILE.to_vec();
    let tensor =
        Gguf::parse(&file)?.tensor("blk.0.ffn_up.weight").context("the model has no such matrix")?.clone();
    for block in file[tensor.range].chunks_exact_mut(tensor.kind.block_bytes() as usize) {
        for code in &mut block[2..] {
            *code = ((*code as i8).saturating_add(8) & !15) as u8;
        }
    }
    Ok(file)
}

/// A worker that `up` did not start.
pub(crate) struct Worker(Child);

impl Worker {
    pub(crate) fn process(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An answer to be contested.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) kind: Kind,
    pub(crate) request_id: String,
    /// Names the word at which an honest answer is accused.
    pub(crate) seed: u64,
    /// Whether the answer is another than the model's: who stops early tells no lie where the model stopped before.
    pub(crate) lie: bool,
}

/// What contesting it came to.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Disputed(Contested),
    /// An auditor was first.
    ByAuditor,
    /// A liar's answer that is the model's, and was found to be.
    NoLie,
}

/// What came of one.
#[derive(Clone, Debug)]
pub struct Contested {
    kind: Kind,
    lie: bool,
    convicted: bool,
    state: String,
    messages: u64,
    leaf: Option<(String, u64)>,
    paid: U256,
    id: u64,
    took: Duration,
    /// Whom `surety explain` names afterwards, and how long it took to.
    named: String,
    explained_in: Duration,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    ended: Vec<Contested>,
    /// Lies that auditors had convicted when they were to be contested.
    by_auditors: usize,
    /// Answers of liars that are the model's own.
    no_lies: usize,
    failures: Vec<String>,
    serving: Duration,
    disputing: Duration,
    took: Duration,
}

/// Runs all of it.
pub fn run(settings: &Settings) -> Result<Report> {
    ensure!(settings.disputes > 0 && settings.at_once > 0, "there is nothing to contest");
    let started = Instant::now();
    let folder = tempfile::tempdir()?;
    let binary = settings.binary.canonicalize().with_context(|| format!("{}", settings.binary.display()))?;
    let data_dir = folder.path();
    eprintln!("seed {}; starting the network", settings.seed);
    let up = Up::start(&binary, data_dir, &["--workers", "1", "--threads", "1"].map(str::to_owned))?;
    let (host, rpc) = (up.host(), up.rpc().context("there is no ledger")?);
    let mut ids = BTreeMap::from([(Kind::Honest, up.members()[0].id.clone())]);
    let mut workers = Vec::new();
    for kind in LIARS {
        let (worker, id) = start(&binary, data_dir, &rpc, kind)?;
        workers.push(worker);
        ids.insert(kind, id);
    }
    network::until_held_ready(&host, ids.len())?;
    let operator = |kind: Kind| account(&binary, data_dir, &format!("worker-{}-operator", kind.number()));
    let kinds: Vec<Kind> = ids.keys().copied().collect();
    let operators =
        kinds.iter().map(|kind| Ok((*kind, operator(*kind)?))).collect::<Result<BTreeMap<_, _>>>()?;
    let stakes = |operators: &BTreeMap<Kind, Address>| -> Result<BTreeMap<Kind, U256>> {
        operators.iter().map(|(kind, operator)| Ok((*kind, bonded(&rpc, *operator)?))).collect()
    };
    let before = stakes(&operators)?;
    let model = Tokenizer::from_gguf(&Gguf::parse(MODEL_FILE)?)?;

    // Everything is asked before anything is contested: who is convicted is out of service.
    let asking = Instant::now();
    let honest = (settings.disputes * settings.honest_percent).div_ceil(100).min(settings.disputes);
    let mut answers = VecDeque::new();
    for number in 0..settings.disputes {
        let kind = match number < honest {
            true => Kind::Honest,
            false => LIARS[number % LIARS.len()],
        };
        answers.push_back(ask(&host, settings.seed, number, kind, &ids[&kind], &model)?);
        if (number + 1) % 20 == 0 {
            eprintln!("{} of {} answers", number + 1, settings.disputes);
        }
    }
    shuffle(&mut answers, settings.seed);
    let serving = asking.elapsed();

    let accounts: Vec<String> = (ids.len() + 1..=WORKERS_MAX)
        .map(|number| format!("worker-{number}-operator"))
        .chain([PURSE.to_owned()])
        .take(settings.at_once)
        .collect();
    let disputing = Instant::now();
    let (queue, ended) = (Mutex::new(answers), Mutex::new(Vec::new()));
    let failures = Mutex::new(Vec::new());
    let (by_auditors, no_lies) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for account in &accounts {
            let (queue, ended, failures, binary) = (&queue, &ended, &failures, &binary);
            let (by_auditors, no_lies) = (&by_auditors, &no_lies);
            scope.spawn(move || {
                loop {
                    let Some(answer) = queue.lock().expect("no panic").pop_front() else { break };
                    match contest(binary, data_dir, account, &answer) {
                        Ok(Outcome::ByAuditor) => _ = by_auditors.fetch_add(1, Ordering::Relaxed),
                        Ok(Outcome::NoLie) => _ = no_lies.fetch_add(1, Ordering::Relaxed),
                        Ok(Outcome::Disputed(contested)) => {
                            let mut ended = ended.lock().expect("no panic");
                            ended.push(contested);
                            if ended.len().is_multiple_of(10) {
                                eprintln!("{} disputes are over", ended.len());
                            }
                        }
                        Err(error) => failures.lock().expect("no panic").push(format!(
                            "{}, {}: {error:#}",
                            answer.kind.name(),
                            answer.request_id
                        )),
                    }
                }
            });
        }
    });
    let disputing = disputing.elapsed();
    let (ended, mut failures) =
        (ended.into_inner().expect("no panic"), failures.into_inner().expect("no panic"));
    let (by_auditors, no_lies) = (by_auditors.into_inner(), no_lies.into_inner());
    check(&ended, &mut failures);
    check_books(&rpc, &ended, by_auditors, &operators, &before, &stakes(&operators)?, &mut failures)?;
    check_stories(&host, &ended, &mut failures)?;
    let (named, held) = money::supply(&binary, data_dir)?;
    if named != held {
        failures.push(format!("genesis named {named} wei, there are {held}"));
    }
    drop(workers);
    up.stop()?;
    Ok(Report {
        seed: settings.seed,
        ended,
        by_auditors,
        no_lies,
        failures,
        serving,
        disputing,
        took: started.elapsed(),
    })
}

/// Starts a worker that lies; its key.
pub(crate) fn start(binary: &Path, data_dir: &Path, rpc: &str, kind: Kind) -> Result<(Worker, String)> {
    let number = kind.number();
    let mut command = surety(binary, data_dir);
    command.args(["worker", "run", "--json", "--stop-with-parent", "--threads", "1"]);
    command.args(["--kv-bytes", "134217728", "--key", &format!("worker-{number}")]);
    command.arg("--genesis").arg(data_dir.join("ledger/genesis.json"));
    command.args(["--rpc-url", &format!("http://{rpc}"), "--account", &format!("worker-{number}-operator")]);
    command.args(kind.args(data_dir)?);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut worker = Worker(child.context("starting a worker")?);
    let ready =
        network::ready_line(&mut worker.0).with_context(|| format!("a worker with {}", kind.name()))?;
    let address = ready["address"].as_str().context("the worker names no address")?;
    let id = address.split('@').next().unwrap_or_default().to_owned();
    Ok((worker, id))
}

/// Asks one worker, until it can be asked.
pub(crate) fn ask(
    host: &str,
    seed: u64,
    number: usize,
    kind: Kind,
    worker: &str,
    model: &Tokenizer,
) -> Result<Answer> {
    let mut rng = Rng::keyed(&[seed, 1, number as u64]);
    let lines = ["Who goes there?", "What news from the court?", "Speak of the night, and of mercy."];
    let tokens = 12 + rng.below(20);
    let content = match kind {
        // An old answer is one to the same question.
        Kind::Replayed => lines[0].to_owned(),
        _ => format!("{} ({number})", lines[rng.below(3)]),
    };
    let body = json!({
        "model": MODEL, "max_tokens": tokens, "seed": rng.below(1 << 30), "stream": false, "temperature": 0.8,
        "ignore_eos": kind != Kind::EarlyStop, "surety": { "worker": worker },
        "messages": [{ "role": "user", "content": content }],
    });
    let until = Instant::now() + SETTLING;
    loop {
        let heard = wire::ask(host, "/v1/chat/completions", &body, &Progress::default());
        if let (Ended::Whole, Some(request_id)) = (&heard.ended, heard.request_id) {
            let lie = kind != Kind::Honest && {
                let evidence = wire::get(host, &format!("/v1/receipts/{request_id}"))?;
                let evidence = Evidence::parse(&serde_json::to_vec(&evidence)?)?;
                let answer = evidence.answers.last().context("the evidence holds no answer")?;
                is_lie(kind, &answer.output_ids, tokens, |token| model.is_end_of_generation(token))
            };
            return Ok(Answer { kind, request_id, seed: rng.below(1 << 30) as u64, lie });
        }
        ensure!(Instant::now() < until, "{} gives no answer: {:?}", kind.name(), heard.ended);
        thread::sleep(Duration::from_millis(250));
    }
}

/// Whether a liar's answer is another than the model's.
fn is_lie(kind: Kind, output: &[u32], tokens: usize, ends: impl Fn(u32) -> bool) -> bool {
    let cut = output.len() >= tokens.div_ceil(EARLY_FRACTION);
    kind != Kind::EarlyStop || (cut && !output.last().is_some_and(|token| ends(*token)))
}

fn shuffle(answers: &mut VecDeque<Answer>, seed: u64) {
    let mut rng = Rng::keyed(&[seed, 2]);
    for at in (1..answers.len()).rev() {
        answers.swap(at, rng.below(at + 1));
    }
}

fn account(binary: &Path, data_dir: &Path, name: &str) -> Result<Address> {
    let shown = network::told(binary, data_dir, &["key", "show", name])?;
    Ok(shown["address"].as_str().context("the account has no address")?.parse()?)
}

/// Contests an answer by a process of its own; whether rightly or not.
pub(crate) fn contest(binary: &Path, data_dir: &Path, account: &str, answer: &Answer) -> Result<Outcome> {
    let began = Instant::now();
    let mut command = surety(binary, data_dir);
    command.args(["dispute", "open", &answer.request_id, "--account", account, "--json"]);
    if answer.kind == Kind::Honest {
        command.args(["--accuse-falsely", &answer.seed.to_string()]);
    }
    // An auditor may be at it already.
    let until = Instant::now() + SETTLING;
    let (output, told) = loop {
        let output = command.output().context("contesting")?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if !told.contains(UNDER_WAY) || Instant::now() > until {
            break (output, told);
        }
        thread::sleep(Duration::from_millis(250));
    };
    let convicted_before =
        |text: &str| answer.kind != Kind::Honest && CONVICTED.iter().any(|by| text.contains(by));
    let Ok(shown) = serde_json::from_slice::<Value>(&output.stdout) else {
        if answer.kind != Kind::Honest && !answer.lie && told.contains(NO_LIE) {
            return Ok(Outcome::NoLie);
        }
        ensure!(convicted_before(&told), "{}: {told}", output.status);
        return Ok(Outcome::ByAuditor);
    };
    let convicted = match output.status.code() {
        Some(0) => true,
        Some(NOT_CONVICTED) => false,
        _ => bail!("{}: {told}", output.status),
    };
    let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    if !convicted && convicted_before(&text("state")) {
        return Ok(Outcome::ByAuditor);
    }
    // Who answers for it is told to whoever has nothing but the request's id.
    let began_to_explain = Instant::now();
    let output = surety(binary, data_dir).args(["explain", &answer.request_id, "--json"]).output()?;
    let explained_in = began_to_explain.elapsed();
    let explained: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("explaining: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(Outcome::Disputed(Contested {
        named: explained["accountable"].as_str().unwrap_or_default().to_owned(),
        explained_in,
        kind: answer.kind,
        lie: answer.lie,
        convicted,
        state: text("state"),
        messages: shown["moves"].as_u64().context("no number of moves")?,
        leaf: told.lines().find_map(leaf),
        paid: text("paid").parse().context("no amount was paid")?,
        id: shown["id"].as_u64().context("the dispute has no number")?,
        took: began.elapsed(),
    }))
}

/// Kind and size of the leaf, from the line that tells of it.
fn leaf(line: &str) -> Option<(String, u64)> {
    let (_, rest) = line.split_once(" differs, a ")?;
    let (kind, rest) = rest.split_once(": shown with all it is computed from, ")?;
    Some((kind.to_owned(), rest.split(' ').next()?.parse().ok()?))
}

fn check(ended: &[Contested], failures: &mut Vec<String>) {
    for contested in ended {
        let Contested { kind, lie, convicted, state, messages, leaf, .. } = contested;
        let mut fail =
            |what: String| failures.push(format!("dispute {}, {}: {what}", contested.id, kind.name()));
        if *convicted != *lie {
            fail(format!("it ended as {state:?}"));
        }
        // A liar is named by its conviction; nobody is by an accusation that failed.
        let right = if *lie { "worker" } else { "nobody" };
        if convicted == lie && contested.named != right {
            fail(format!("its explanation names {:?}", contested.named));
        }
        if *messages > MESSAGES_MAX {
            fail(format!("{messages} messages"));
        }
        if leaf.as_ref().is_some_and(|(_, bytes)| *bytes > LEAF_BYTES_MAX) {
            fail(format!("a leaf of {leaf:?} bytes"));
        }
        // A trace was bent in one word: it is shown, and found to be right.
        if *kind == Kind::Honest && leaf.is_none() {
            fail("no leaf was shown".into());
        }
    }
}

/// What the gateway tells of each dispute: every move played again, less in question after each, the word that was judged.
fn check_stories(host: &str, ended: &[Contested], failures: &mut Vec<String>) -> Result<()> {
    for contested in ended {
        let story = wire::get(host, &format!("/v1/network/disputes/{}", contested.id))?;
        let mut wrong = Vec::new();
        let mut holds = |what: &'static str, is_so: bool| {
            if !is_so {
                wrong.push(what);
            }
        };
        let steps = story["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
        let left: Vec<u64> = steps.iter().filter_map(|step| step["words_left"].as_u64()).collect();
        holds("the moves are played again", story["replayed"] == true);
        holds("the blocks are proven", story["blocks_proven"] == true);
        holds("the verdict is the ledger's", story["dispute"]["is_convicted"] == contested.convicted);
        holds("every move of the challenger's is a step", steps.len() as u64 >= contested.messages.min(2));
        holds("each move leaves less in question", left.is_sorted_by(|one, next| one >= next));
        holds("the answer is named", story["answer"]["output_tokens"].as_u64() > Some(0));
        holds("somebody gets something", story["money"].as_array().is_some_and(|money| !money.is_empty()));
        if let Some((kind, _)) = &contested.leaf {
            let leaf = &story["leaf"];
            holds("the word's kind", leaf["kind"] == kind.as_str());
            holds("the word's place", leaf["place"].as_str().is_some_and(|place| !place.is_empty()));
            holds("claimed and computed differ if it lied", leaf["lied"] == contested.convicted);
            let differ = leaf["claimed"]["bits"] != leaf["computed"]["bits"];
            holds("claimed and computed are told", differ == contested.convicted);
            let operands = leaf["operands"].as_array().map(Vec::as_slice).unwrap_or_default();
            holds("operands", !operands.is_empty());
            holds("values", operands.iter().all(|operand| operand["count"].as_u64() > Some(0)));
        } else {
            holds("no word", story["leaf"].is_null());
        }
        if !wrong.is_empty() {
            failures.push(format!("the story of dispute {}: {wrong:?} does not hold: {story}", contested.id));
        }
    }
    Ok(())
}

/// Refunds, stakes and convictions, as the ledger's own events tell them.
fn check_books(
    rpc: &str,
    ended: &[Contested],
    by_auditors: usize,
    operators: &BTreeMap<Kind, Address>,
    before: &BTreeMap<Kind, U256>,
    after: &BTreeMap<Kind, U256>,
    failures: &mut Vec<String>,
) -> Result<()> {
    let topic = format!("{:?}", IDisputes::Convicted::SIGNATURE_HASH);
    let filter =
        json!([{ "address": address::DISPUTES, "topics": [topic], "fromBlock": "0x0", "toBlock": "latest" }]);
    let logs = wire::rpc(rpc, "eth_getLogs", filter)?;
    let mut slashed: BTreeMap<Address, U256> = BTreeMap::new();
    let mut refunds = BTreeMap::new();
    for log in logs.as_array().context("no logs")? {
        let topics = log["topics"].as_array().into_iter().flatten();
        let topics: Vec<_> = topics
            .map(|topic| Ok(topic.as_str().unwrap_or_default().parse::<B256>()?))
            .collect::<Result<_>>()?;
        let data = hex::decode(log["data"].as_str().unwrap_or_default())?;
        let convicted = IDisputes::Convicted::decode_raw_log(topics, &data)?;
        *slashed.entry(convicted.operator).or_default() += convicted.slashed;
        refunds.insert(convicted.id, convicted.refund);
    }
    for contested in ended.iter().filter(|contested| contested.convicted) {
        let refund = refunds.remove(&contested.id).unwrap_or_default();
        if contested.paid.is_zero() || refund != contested.paid * U256::from(2) {
            failures.push(format!("dispute {}: {refund} wei for {} paid", contested.id, contested.paid));
        }
    }
    if refunds.len() != by_auditors {
        failures.push(format!("{by_auditors} lies were convicted by auditors, with refunds of {refunds:?}"));
    }
    for (kind, operator) in operators {
        let taken = slashed.get(operator).copied().unwrap_or_default();
        if before[kind].checked_sub(taken) != Some(after[kind]) {
            let (before, after) = (before[kind], after[kind]);
            failures.push(format!("{}: a stake of {before} less {taken} became {after}", kind.name()));
        }
        if (*kind == Kind::Honest) != taken.is_zero() && ended.iter().any(|contested| contested.kind == *kind)
        {
            failures.push(format!("{}: {taken} wei of its stake were taken", kind.name()));
        }
    }
    Ok(())
}

/// What is bonded to an operator.
fn bonded(rpc: &str, operator: Address) -> Result<U256> {
    let data = hex::encode_prefixed(IStaking::bondedToCall { operator }.abi_encode());
    let answer = wire::rpc(rpc, "eth_call", json!([{ "to": address::STAKING, "data": data }, "latest"]))?;
    let bytes = hex::decode(answer.as_str().context("eth_call answers no text")?)?;
    Ok(IStaking::bondedToCall::abi_decode_returns(&bytes)?)
}

impl Report {
    /// What does not hold.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let seconds = |time: Duration| time.as_secs_f64();
        let mut lines = vec![format!(
            "seed {}: {} disputes, {} convictions by auditors, {} answers of liars that were no lies, in {:.1} s ({:.1} s of \
             serving, {:.1} s of disputing), {} failures",
            self.seed,
            self.ended.len(),
            self.by_auditors,
            self.no_lies,
            seconds(self.took),
            seconds(self.serving),
            seconds(self.disputing),
            self.failures.len()
        )];
        let mut kinds: BTreeMap<(Kind, &str), Vec<&Contested>> = BTreeMap::new();
        for contested in &self.ended {
            kinds.entry((contested.kind, &contested.state)).or_default().push(contested);
        }
        for ((kind, state), own) in kinds {
            let most = own.iter().map(|contested| contested.messages).max().unwrap_or(0);
            let leaf = own.iter().filter_map(|contested| Some(contested.leaf.as_ref()?.1)).max().unwrap_or(0);
            let mut took: Vec<f64> = own.iter().map(|contested| seconds(contested.took)).collect();
            took.sort_by(f64::total_cmp);
            lines.push(format!(
                "{:14} {:>4}  {state}; {most} messages and {leaf} bytes of leaf at most, {:.1} s each",
                kind.name(),
                own.len(),
                took[took.len() / 2]
            ));
        }
        let leaves = self.ended.iter().filter_map(|contested| contested.leaf.as_ref());
        let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
        leaves.for_each(|(kind, _)| *shown.entry(kind).or_default() += 1);
        lines.push(format!("words shown: {shown:?}"));
        let slowest = self.ended.iter().map(|contested| contested.explained_in).max().unwrap_or_default();
        let mut named: BTreeMap<(Kind, &str), usize> = BTreeMap::new();
        for contested in &self.ended {
            *named.entry((contested.kind, &contested.named)).or_default() += 1;
        }
        let named: Vec<String> =
            named.iter().map(|((kind, who), times)| format!("{}: {who} {times}", kind.name())).collect();
        lines.push(format!(
            "explained afterwards, in {:.1} s at most: {}",
            seconds(slowest),
            named.join(", ")
        ));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_read_from_the_line_that_tells_of_it() {
        let line = "word 81 differs, a y of a norm: shown with all it is computed from, 4672 bytes";
        assert_eq!(leaf(line), Some(("y of a norm".into(), 4_672)));
        assert_eq!(leaf("divided: 32768 bytes"), None);
    }

    #[test]
    fn who_stops_where_the_model_stops_tells_no_lie() {
        let ends = |token| token == 2;
        for (kind, output, lie) in [
            (Kind::EarlyStop, vec![7; 4], true),
            (Kind::EarlyStop, vec![7, 7, 7, 2], false),
            (Kind::EarlyStop, vec![7, 7, 2], false),
            (Kind::Edited, vec![7, 2], true),
        ] {
            assert_eq!(is_lie(kind, &output, 13, ends), lie, "{output:?}");
        }
    }

    #[test]
    fn an_answer_is_lied_about_if_anybody_lies() {
        let contested = |kind, convicted| Contested {
            kind,
            lie: kind != Kind::Honest,
            convicted,
            state: String::new(),
            messages: 9,
            leaf: Some(("segment".into(), LEAF_BYTES_MAX)),
            paid: U256::from(1),
            id: 1,
            took: Duration::ZERO,
            named: if convicted { "worker" } else { "nobody" }.into(),
            explained_in: Duration::ZERO,
        };
        for (ended, failing) in [
            (contested(Kind::Honest, false), 0),
            (contested(Kind::Honest, true), 1),
            (contested(Kind::Temperature, true), 0),
            (contested(Kind::Temperature, false), 1),
            (Contested { messages: 10, ..contested(Kind::EarlyStop, true) }, 1),
            (Contested { leaf: None, ..contested(Kind::Honest, false) }, 1),
            (Contested { lie: false, ..contested(Kind::EarlyStop, true) }, 1),
        ] {
            let mut failures = Vec::new();
            check(&[ended], &mut failures);
            assert_eq!(failures.len(), failing, "{failures:?}");
        }
    }
}
