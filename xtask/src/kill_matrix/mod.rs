//! The kill matrix: workers of a running network are killed, stopped and cut off in the middle of answers.
//!
//! In:     the binary, how many faults, a seed.
//! Out:    what came of every answer: its bytes against an undisturbed run, its silence, its price; then the books.
//! Touches: starts `surety up` in a folder of its own; with root, network namespaces.
//! Holds:  the same seed asks the same questions and draws the same faults; where they strike depends on the machine.
//! Absent: failures of validators and gateways, which the binary's own tests have.

pub mod money;
pub mod network;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rng::Rng;
use money::{Account, Charges};
use network::{Member, Up};
use wire::{Ended, Heard, Progress, Wait};

/// Questions that are asked again and again.
const QUESTIONS: usize = 24;
/// Of so many of the slowest answers it is told where the time went.
const SLOWEST: usize = 12;
/// The longest added silence that 95 of 100 disturbed answers may have.
const STALL_P95_MAX: Duration = Duration::from_secs(2);
/// Of a hundred answers so many are to be whole.
const WHOLE_PERCENT_MIN: usize = 99;
/// How long a stopped worker stands still, and a link is down.
const FAULT_SECONDS: [u64; 4] = [2, 3, 4, 6];
/// What the gateway may need to see what workers did last.
const LAST_NEWS: Duration = Duration::from_secs(2);

/// How it is to be run.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The program to test.
    #[arg(long, default_value = "target/release/surety")]
    pub binary: PathBuf,
    /// Faults to strike.
    #[arg(long, default_value_t = 300)]
    pub faults: usize,
    /// Names questions and faults.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Workers of `up`.
    #[arg(long, default_value_t = 3)]
    pub workers: usize,
    /// Further workers in network namespaces of their own, whose links are cut; left out where there is no root.
    #[arg(long, default_value_t = 2)]
    pub apart: usize,
    /// Validators of `up`; without any nothing is paid, and no worker is apart.
    #[arg(long, default_value_t = 4)]
    pub validators: usize,
    /// Answers under way whenever a fault strikes.
    #[arg(long, default_value_t = 3)]
    pub at_once: usize,
    /// The model, as `surety up` takes it [default: the bundled demonstration].
    #[arg(long)]
    pub model: Option<String>,
    /// Leave out the drain of every worker under load.
    #[arg(long)]
    pub no_drain: bool,
    /// Where to keep what the network said, with the faults in between.
    #[arg(long)]
    pub log: Option<PathBuf>,
}

/// What strikes a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and later SIGCONT.
    Stall,
    /// Its link down, and later up.
    Cut,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Stall => "stall",
            Fault::Cut => "cut",
        }
    }
}

/// Something that can be asked, and what it answers undisturbed.
#[derive(Clone, Debug)]
pub struct Question {
    path: &'static str,
    body: Value,
    stream: bool,
    sampled: bool,
    expected: Option<Expected>,
}

#[derive(Clone, Debug)]
struct Expected {
    choices: BTreeMap<u64, (String, Option<String>)>,
    text_bytes: usize,
    silence: Duration,
    took: Duration,
}

/// One answer, judged.
#[derive(Clone, Debug)]
struct Judged {
    fault: Fault,
    stream: bool,
    sampled: bool,
    /// Whether the worker that was struck had a part in it.
    struck: bool,
    /// Whether more than one worker has a part in it.
    continued: bool,
    whole: bool,
    equal: bool,
    /// Why it is not whole.
    told: Option<String>,
    cut: Option<String>,
    added: Duration,
    /// Of which fault.
    number: usize,
    /// Where the time went, the longest takeover's.
    longest: Wait,
    takeovers: usize,
}

impl Judged {
    fn form(&self) -> String {
        format!("{}, {}", self.fault.name(), if self.stream { "stream" } else { "document" })
    }

    fn json(&self) -> Value {
        let ms = |time: Duration| time.as_millis() as u64;
        let Wait { noticed, placed, began } = self.longest;
        json!({
            "answers": self.form(), "fault": self.number, "added_ms": ms(self.added), "takeovers": self.takeovers,
            "noticed_ms": ms(noticed), "placed_ms": ms(placed), "began_ms": ms(began),
        })
    }

    fn line(&self) -> String {
        let Wait { noticed, placed, began } = self.longest;
        format!(
            "{:18} {:>8} {:>9} {:>9} {:>10} {:>9} {:>9}",
            self.form(),
            self.number,
            self.added.as_millis(),
            self.takeovers,
            noticed.as_millis(),
            placed.as_millis(),
            began.as_millis()
        )
    }
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    struck: BTreeMap<Fault, usize>,
    judged: Vec<Judged>,
    charges: Charges,
    drained: Option<Drained>,
    accounts: Vec<Account>,
    /// What genesis named and what there is, in wei.
    supply: Option<(String, String)>,
    /// Why no link was cut, if none was.
    no_cuts: Option<String>,
    took: Duration,
}

#[derive(Debug)]
struct Drained {
    workers: usize,
    requests: usize,
    failures: Vec<String>,
}

/// The questions of a seed: chats and texts, streams and documents, greedy and sampled, one answer and several.
fn questions(seed: u64, model: &str) -> Vec<Question> {
    let lines =
        ["Who goes there?", "What news from the court?", "Speak, I charge thee!", "To be, or not to be"];
    let question = |number: usize| {
        let mut rng = Rng::keyed(&[seed, 1, number as u64]);
        // Every combination comes about; the rest is drawn.
        let (stream, sampled, chat) =
            (number.is_multiple_of(2), (number / 2).is_multiple_of(2), rng.chance(0.7));
        let max_tokens = 150 + rng.below(650);
        let mut body = json!({
            "model": model, "max_tokens": max_tokens, "seed": rng.below(1 << 30), "stream": stream,
            "temperature": if sampled { 0.9 } else { 0.0 }, "ignore_eos": true,
        });
        if rng.chance(0.3) {
            body["n"] = json!(2 + rng.below(2));
        }
        let line = format!("{} ({})", lines[rng.below(lines.len())], rng.below(1 << 20));
        if chat {
            body["messages"] = json!([{ "role": "user", "content": line }]);
        } else {
            body["prompt"] = json!(line);
        }
        let path = if chat { "/v1/chat/completions" } else { "/v1/completions" };
        Question { path, body, stream, sampled, expected: None }
    };
    (0..QUESTIONS).map(question).collect()
}

/// Runs all of it.
pub fn run(settings: &Settings) -> Result<Report> {
    ensure!(settings.workers >= 1 && settings.at_once >= 1, "there is nobody to ask, or nothing to ask for");
    let started = Instant::now();
    let folder = tempfile::tempdir()?;
    let binary = settings.binary.canonicalize().with_context(|| format!("{}", settings.binary.display()))?;
    let data_dir = folder.path();
    let mut args = vec!["--workers".to_owned(), settings.workers.to_string(), "--threads".into(), "1".into()];
    args.extend(["--validators".into(), settings.validators.to_string()]);
    let models: Vec<String> = settings.model.iter().cloned().collect();
    models.iter().for_each(|model| args.extend(["--model".into(), model.clone()]));
    eprintln!("seed {}; starting the network", settings.seed);
    let up = Up::start(&binary, data_dir, &args)?;
    let host = up.host();
    let mut members = up.members();
    let no_cuts = match (settings.apart, up.rpc()) {
        (0, _) => Some("none was asked for".to_owned()),
        (_, None) => Some("without a ledger the gateway finds no further workers".to_owned()),
        (apart, Some(rpc)) => match network::no_namespaces() {
            Some(why) => Some(why),
            None => {
                for number in (settings.workers + 1)..=(settings.workers + apart) {
                    members.push(Member::apart(&binary, data_dir, number, &rpc, &models)?);
                }
                None
            }
        },
    };
    if let Some(why) = &no_cuts {
        eprintln!("SKIPPED: no links are cut: {why}");
    }
    let count = members.len();
    network::until_ready(&host, &up, &mut members, count)?;
    let model = wire::get(&host, "/v1/models")?["data"][0]["id"].as_str().context("no model")?.to_owned();

    let mut matrix = Matrix {
        settings,
        host,
        up,
        members,
        questions: questions(settings.seed, &model),
        charges: Charges::default(),
        judged: Vec::new(),
        struck: BTreeMap::new(),
    };
    let drawn: Vec<Drawn> = (0..settings.faults).map(|number| Drawn::of(settings, number)).collect();
    let asked: BTreeSet<usize> = if settings.no_drain {
        drawn.iter().flat_map(|drawn| drawn.asked.iter().copied()).collect()
    } else {
        (0..QUESTIONS).collect()
    };
    asked.into_iter().try_for_each(|question| matrix.learn(question))?;
    for (number, drawn) in drawn.iter().enumerate() {
        matrix.case(number, drawn).with_context(|| format!("fault {number} of seed {}", settings.seed))?;
    }
    if let Some(log) = &settings.log {
        std::fs::write(log, matrix.up.said()).with_context(|| format!("writing {}", log.display()))?;
    }
    let drained = if settings.no_drain { None } else { Some(matrix.drain()?) };

    // The books: first what was promised, then everybody claims and leaves.
    let Matrix { host, up, mut members, charges, judged, struck, .. } = matrix;
    thread::sleep(LAST_NEWS);
    let (mut accounts, mut supply) = (Vec::new(), None);
    if up.rpc().is_some() {
        let promised = money::promised(&host)?;
        let numbers: Vec<(usize, String)> =
            members.iter().map(|member| (member.number, member.id.clone())).collect();
        for member in members.iter_mut().filter(|member| member.is_apart()) {
            member.stop()?;
        }
        drop(members);
        up.stop()?;
        let up = Up::start(&binary, data_dir, &["--workers".into(), "1".into()])?;
        let rpc = up.rpc().context("the ledger is gone")?;
        for (number, id) in numbers {
            let (claimed, settled) = money::claimed(&binary, data_dir, &rpc, number)?;
            let of = |sums: &BTreeMap<String, u128>| sums.get(&id).copied().unwrap_or(0);
            let (charged, promised) = (of(&charges.by_worker), of(&promised));
            accounts.push(Account { number, charged, promised, claimed, settled });
        }
        let (named, held) = money::supply(&binary, data_dir)?;
        supply = Some((named.to_string(), held.to_string()));
        up.stop()?;
    }
    Ok(Report {
        seed: settings.seed,
        struck,
        judged,
        charges,
        drained,
        accounts,
        supply,
        no_cuts,
        took: started.elapsed(),
    })
}

/// What a fault is to be, as far as the seed says.
struct Drawn {
    /// Questions that are asked at once; it strikes where the first is.
    asked: Vec<usize>,
    /// How far the first answer is to be, from 0 to 1.
    place: f64,
    /// How long a worker stands still, or its link is down.
    lasting: Duration,
    /// Where a link can be cut, it is; else a worker is stopped or killed.
    cut: bool,
    stall: bool,
}

impl Drawn {
    fn of(settings: &Settings, number: usize) -> Self {
        let mut rng = Rng::keyed(&[settings.seed, 2, number as u64]);
        let asked = (0..settings.at_once).map(|_| rng.below(QUESTIONS)).collect();
        let place = rng.below(1000) as f64 / 1000.0;
        let lasting = Duration::from_secs(FAULT_SECONDS[rng.below(FAULT_SECONDS.len())]);
        Drawn { asked, place, lasting, cut: rng.chance(0.5), stall: rng.chance(0.25) }
    }
}

struct Matrix<'a> {
    settings: &'a Settings,
    host: String,
    up: Up,
    members: Vec<Member>,
    questions: Vec<Question>,
    charges: Charges,
    judged: Vec<Judged>,
    struck: BTreeMap<Fault, usize>,
}

impl Matrix<'_> {
    /// Asks a question undisturbed, as many times at once as are asked later: what the load costs is no fault's doing.
    fn learn(&mut self, number: usize) -> Result<()> {
        let Question { path, body, .. } = &self.questions[number];
        let host = self.host.as_str();
        let all: Vec<Heard> = thread::scope(|scope| {
            let asking: Vec<_> = (0..self.settings.at_once)
                .map(|_| scope.spawn(|| wire::ask(host, path, body, &Progress::default())))
                .collect();
            asking.into_iter().map(|asking| asking.join().expect("a client panicked")).collect()
        });
        let choices = all[0].choices.clone();
        let text_bytes = choices.values().map(|(text, _)| text.len()).sum();
        ensure!(text_bytes > 0, "question {number} has no answer");
        let (mut silence, mut took) = (Duration::ZERO, Duration::ZERO);
        for heard in all {
            ensure!(heard.ended == Ended::Whole, "question {number} undisturbed: {:?}", heard.ended);
            ensure!(heard.choices == choices, "question {number} has two answers, undisturbed");
            (silence, took) = (silence.max(heard.silence), took.max(heard.took));
            self.charges.take(&self.host, heard.request_id.as_deref(), heard.cost);
        }
        self.questions[number].expected = Some(Expected { choices, text_bytes, silence, took });
        Ok(())
    }

    /// Asks several questions, strikes a worker where the first of them is, and judges what came.
    fn case(&mut self, number: usize, drawn: &Drawn) -> Result<()> {
        // Some may still be on their way back; two are needed for one to take over.
        let enough = self.members.len().saturating_sub(2).max(2).min(self.members.len());
        network::until_ready(&self.host, &self.up, &mut self.members, enough)?;
        let asked: Vec<Question> =
            drawn.asked.iter().map(|question| self.questions[*question].clone()).collect();
        let progress: Vec<Progress> = asked.iter().map(|_| Progress::default()).collect();
        let host = self.host.as_str();
        let (heard, fault, victim) = thread::scope(|scope| -> Result<_> {
            let asking: Vec<_> = asked
                .iter()
                .zip(&progress)
                .map(|(question, progress)| {
                    scope.spawn(move || wire::ask(host, question.path, &question.body, progress))
                })
                .collect();
            let expected = asked[0].expected.as_ref().context("it was learnt")?;
            until_far(&asked[0], expected, &progress[0], drawn.place);
            let victim = self.victim(progress[0].now().worker.as_deref());
            let member = &self.members[victim];
            // Where links can be cut they are, every other time; else three in four are killed.
            let fault = match (member.is_apart(), drawn.cut, drawn.stall) {
                (true, true, _) => Fault::Cut,
                (_, _, true) => Fault::Stall,
                _ => Fault::Kill,
            };
            match fault {
                Fault::Kill => member.signal(Signal::KILL)?,
                Fault::Stall => member.signal(Signal::STOP)?,
                Fault::Cut => member.set_link(false)?,
            }
            let struck = Instant::now();
            self.up.note(&format!("fault {number}: {} of worker {}", fault.name(), member.id));
            if fault != Fault::Kill {
                thread::sleep(drawn.lasting.saturating_sub(struck.elapsed()));
                match fault {
                    Fault::Stall => member.signal(Signal::CONT)?,
                    _ => member.set_link(true)?,
                }
            }
            let heard: Vec<Heard> =
                asking.into_iter().map(|asking| asking.join().expect("a client panicked")).collect();
            Ok((heard, fault, victim))
        })?;
        *self.struck.entry(fault).or_default() += 1;
        let victim = self.members[victim].id.clone();
        for (question, heard) in asked.iter().zip(heard) {
            let judged = Judged { number, ..self.judge(question, heard, fault, &victim)? };
            if let Some(why) = judged.cut.as_ref().or(judged.told.as_ref()) {
                eprintln!("fault {number} ({}): not whole: {why}", fault.name());
            } else if !judged.equal {
                eprintln!("fault {number} ({}): DIFFERENT: {}", fault.name(), question.body);
            }
            self.judged.push(judged);
        }
        if (number + 1).is_multiple_of(25) {
            eprintln!("{} faults", number + 1);
        }
        Ok(())
    }

    /// The worker that has the first answer; if that is not known yet, the one that computes most.
    fn victim(&self, named: Option<&str>) -> usize {
        if let Some(index) = self.members.iter().position(|member| Some(member.id.as_str()) == named) {
            return index;
        }
        let before: Vec<u64> = self.members.iter().map(Member::computed_ns).collect();
        thread::sleep(Duration::from_millis(2));
        let computed = |index: &usize| self.members[*index].computed_ns().saturating_sub(before[*index]);
        (0..self.members.len()).max_by_key(computed).unwrap_or(0)
    }

    fn judge(&mut self, question: &Question, heard: Heard, fault: Fault, victim: &str) -> Result<Judged> {
        let expected = question.expected.as_ref().context("it was learnt")?;
        let whole = heard.ended == Ended::Whole;
        let mut workers: BTreeSet<String> = heard.workers.iter().cloned().collect();
        if whole {
            workers.extend(self.charges.take(&self.host, heard.request_id.as_deref(), heard.cost).workers);
        }
        let (mut told, mut cut) = (None, None);
        match &heard.ended {
            Ended::Whole => {}
            Ended::Told(why) => told = Some(why.clone()),
            Ended::Cut(why) => cut = Some(why.clone()),
        }
        let added = if question.stream {
            heard.silence.saturating_sub(expected.silence)
        } else {
            heard.took.saturating_sub(expected.took)
        };
        Ok(Judged {
            fault,
            stream: question.stream,
            sampled: question.sampled,
            // What failed was struck, whoever did it.
            struck: !whole || workers.contains(victim),
            continued: workers.len() > 1,
            whole,
            equal: whole && heard.choices == expected.choices,
            told,
            cut,
            added,
            number: 0,
            longest: heard.waits.iter().copied().max_by_key(Wait::sum).unwrap_or_default(),
            takeovers: heard.waits.len(),
        })
    }

    /// Ends each worker in order, one after the other, while questions go on being asked.
    fn drain(&mut self) -> Result<Drained> {
        eprintln!("draining every worker under load");
        let count = self.members.len();
        network::until_ready(&self.host, &self.up, &mut self.members, count)?;
        let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients: Vec<_> = (0..self.settings.at_once)
            .map(|client| {
                let (host, questions) = (self.host.clone(), self.questions.clone());
                let (over, asked, seed) = (over.clone(), asked.clone(), self.settings.seed);
                thread::spawn(move || {
                    let mut rng = Rng::keyed(&[seed, 3, client as u64]);
                    let mut ended = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let question = &questions[rng.below(questions.len())];
                        let heard = wire::ask(&host, question.path, &question.body, &Progress::default());
                        asked.fetch_add(1, Ordering::Relaxed);
                        ended.push((question.clone(), heard));
                    }
                    ended
                })
            })
            .collect();
        let left = self.each_leaves(&asked);
        over.store(true, Ordering::Relaxed);
        let (mut requests, mut failures) = (0, Vec::new());
        for client in clients {
            for (question, heard) in client.join().expect("a client panicked") {
                requests += 1;
                let judged = self.judge(&question, heard, Fault::Kill, "")?;
                match judged.cut.or(judged.told) {
                    Some(why) => failures.push(why),
                    None if !judged.equal => {
                        failures.push(format!("a different answer to {}", question.body))
                    }
                    None => {}
                }
            }
        }
        left?;
        Ok(Drained { workers: self.members.len(), requests, failures })
    }

    fn each_leaves(&mut self, asked: &AtomicUsize) -> Result<()> {
        let until = |asked: &AtomicUsize, count: usize| -> Result<()> {
            let patience = Instant::now() + Duration::from_secs(120);
            while asked.load(Ordering::Relaxed) < count {
                ensure!(Instant::now() < patience, "no answers come any more");
                thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        };
        for index in 0..self.members.len() {
            // Everybody is at work.
            until(asked, asked.load(Ordering::Relaxed) + self.settings.at_once)?;
            let member = &mut self.members[index];
            member.signal(Signal::TERM)?;
            let patience = Instant::now() + Duration::from_secs(60);
            while member.is_alive() {
                ensure!(Instant::now() < patience, "worker {} does not leave", member.number);
                thread::sleep(Duration::from_millis(10));
            }
            let id = member.id.clone();
            let patience = Instant::now() + Duration::from_secs(120);
            loop {
                member.revive(&self.up)?;
                if member.is_alive() && network::ready_ids(&self.host)?.contains(&id) {
                    break;
                }
                ensure!(Instant::now() < patience, "worker {} does not come back", member.number);
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}

/// Waits until an answer has come to a part of what is expected of it, or to its end.
fn until_far(question: &Question, expected: &Expected, progress: &Progress, place: f64) {
    let started = Instant::now();
    let (bytes, time) = ((expected.text_bytes as f64 * place) as usize, expected.took.mul_f64(place));
    loop {
        let far = progress.now();
        let there =
            if question.stream && place > 0.02 { far.text_bytes >= bytes } else { started.elapsed() >= time };
        if there || far.ended {
            return;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// The value that `percent` of all are not above; zero if there is none.
fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Figures of some of the answers.
struct Row {
    name: String,
    answers: usize,
    struck: usize,
    continued: usize,
    whole: usize,
    equal: usize,
    told: usize,
    cut: usize,
    p50: Duration,
    p95: Duration,
    max: Duration,
}

impl Row {
    fn of<'a>(name: &str, judged: impl Iterator<Item = &'a Judged>) -> Row {
        let judged: Vec<&Judged> = judged.collect();
        let count = |wanted: &dyn Fn(&Judged) -> bool| judged.iter().filter(|judged| wanted(judged)).count();
        let struck = judged.iter().filter(|judged| judged.struck && judged.whole);
        let added: Vec<Duration> = struck.map(|judged| judged.added).collect();
        Row {
            name: name.to_owned(),
            answers: judged.len(),
            struck: count(&|judged| judged.struck),
            continued: count(&|judged| judged.continued),
            whole: count(&|judged| judged.whole),
            equal: count(&|judged| judged.equal),
            told: count(&|judged| judged.told.is_some()),
            cut: count(&|judged| judged.cut.is_some()),
            p50: percentile(added.clone(), 50),
            p95: percentile(added.clone(), 95),
            max: percentile(added, 100),
        }
    }

    fn json(&self) -> Value {
        json!({
            "answers": self.name, "count": self.answers, "struck": self.struck, "continued": self.continued,
            "whole": self.whole, "equal": self.equal, "errors_told": self.told, "silent_truncations": self.cut,
            "added_stall_ms": {
                "p50": self.p50.as_millis() as u64, "p95": self.p95.as_millis() as u64,
                "max": self.max.as_millis() as u64,
            },
        })
    }
}

impl Report {
    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for fault in [Fault::Kill, Fault::Stall, Fault::Cut] {
            for (stream, form) in [(true, "stream"), (false, "document")] {
                let of = self.judged.iter().filter(|judged| judged.fault == fault && judged.stream == stream);
                rows.push(Row::of(&format!("{}, {form}", fault.name()), of));
            }
        }
        rows.push(Row::of("greedy", self.judged.iter().filter(|judged| !judged.sampled)));
        rows.push(Row::of("sampled", self.judged.iter().filter(|judged| judged.sampled)));
        rows.push(self.all());
        rows
    }

    /// The answers that were disturbed most, the slowest first.
    fn slowest(&self) -> Vec<&Judged> {
        let mut struck: Vec<&Judged> =
            self.judged.iter().filter(|judged| judged.struck && judged.whole).collect();
        struck.sort_by_key(|judged| std::cmp::Reverse(judged.added));
        struck.truncate(SLOWEST);
        struck
    }

    fn all(&self) -> Row {
        Row::of("all", self.judged.iter())
    }

    /// That callers waited too long, if they did. A matter of the machine too, so no test asserts it.
    pub fn too_slow(&self) -> Option<String> {
        let p95 = self.all().p95;
        let (found, most) = (p95.as_millis(), STALL_P95_MAX.as_millis());
        (p95 > STALL_P95_MAX).then(|| format!("the added stall is {found} ms at p95, over {most} ms"))
    }

    /// What does not hold; nothing if all does.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut hold = |holds: bool, otherwise: String| {
            if !holds {
                failures.push(otherwise);
            }
        };
        let all = self.all();
        hold(all.answers > 0, "nothing was asked".into());
        hold(all.struck > 0, "no fault struck an answer".into());
        hold(all.cut == 0, format!("{} answers were cut off silently", all.cut));
        hold(
            all.whole * 100 >= all.answers * WHOLE_PERCENT_MIN,
            format!("{} of {} answers are whole, under {WHOLE_PERCENT_MIN} %", all.whole, all.answers),
        );
        hold(
            all.equal == all.whole,
            format!("{} whole answers differ from the undisturbed run", all.whole - all.equal),
        );
        let mismatches = &self.charges.mismatches;
        hold(
            mismatches.is_empty(),
            format!(
                "{} charges are not what the receipts say, first {:?}",
                mismatches.len(),
                mismatches.first()
            ),
        );
        if let Some(Drained { workers, requests, failures }) = &self.drained {
            hold(*requests > 0, "nothing was asked while workers left".into());
            hold(
                failures.is_empty(),
                format!(
                    "{} of {requests} requests failed while {workers} workers left, first {:?}",
                    failures.len(),
                    failures.first()
                ),
            );
        }
        for Account { number, charged, promised, claimed, settled } in &self.accounts {
            hold(
                claimed <= promised,
                format!("worker {number} claimed {claimed} micro-credits, and {promised} were promised"),
            );
            // Who did not leave in order may have more to claim.
            hold(
                charged <= claimed || self.drained.is_none(),
                format!(
                    "worker {number} claimed {claimed} micro-credits of {charged} that answers were charged"
                ),
            );
            hold(
                settled == claimed,
                format!("worker {number} was paid {settled} of {claimed} micro-credits"),
            );
        }
        if let Some((named, held)) = &self.supply {
            hold(named == held, format!("genesis named {named} wei and there are {held}"));
        }
        failures
    }

    /// All of it as JSON.
    pub fn json(&self) -> Value {
        let accounts = self.accounts.iter().map(|account| {
            json!({
                "worker": account.number, "charged": account.charged.to_string(),
                "promised": account.promised.to_string(), "claimed": account.claimed.to_string(),
                "settled": account.settled.to_string(),
            })
        });
        let struck: BTreeMap<&str, usize> =
            self.struck.iter().map(|(fault, count)| (fault.name(), *count)).collect();
        let failures: Vec<String> = self.failures().into_iter().chain(self.too_slow()).collect();
        json!({
            "seed": self.seed, "holds": failures.is_empty(), "failures": failures,
            "faults": struck, "no_cuts": self.no_cuts,
            "answers": self.rows().iter().map(Row::json).collect::<Vec<_>>(),
            "slowest": self.slowest().into_iter().map(Judged::json).collect::<Vec<_>>(),
            "charged": self.charges.total.to_string(), "receipts": self.charges.receipts,
            "charges_not_receipts": self.charges.mismatches,
            "drain": self.drained.as_ref().map(|drained| json!({
                "workers": drained.workers, "requests": drained.requests, "failures": drained.failures,
            })),
            "accounts": accounts.collect::<Vec<_>>(),
            "supply": self.supply.as_ref().map(|(named, held)| json!({ "genesis": named, "held": held })),
            "seconds": self.took.as_secs(),
        })
    }

    /// All of it as lines for people.
    pub fn lines(&self) -> Vec<String> {
        let struck: Vec<String> =
            self.struck.iter().map(|(fault, count)| format!("{count} {}", fault.name())).collect();
        let mut lines =
            vec![format!("seed {}: {} in {} s", self.seed, struck.join(", "), self.took.as_secs())];
        if let Some(why) = &self.no_cuts {
            lines.push(format!("no links were cut: {why}"));
        }
        lines.push(format!(
            "{:18} {:>7} {:>7} {:>9} {:>6} {:>6} {:>5} {:>4} {:>23}",
            "answers",
            "asked",
            "struck",
            "continued",
            "whole",
            "equal",
            "told",
            "cut",
            "added ms p50/p95/max"
        ));
        for row in self.rows().iter().filter(|row| row.answers > 0) {
            lines.push(format!(
                "{:18} {:>7} {:>7} {:>9} {:>6} {:>6} {:>5} {:>4} {:>7} {:>7} {:>7}",
                row.name,
                row.answers,
                row.struck,
                row.continued,
                row.whole,
                row.equal,
                row.told,
                row.cut,
                row.p50.as_millis(),
                row.p95.as_millis(),
                row.max.as_millis()
            ));
        }
        let slowest = self.slowest();
        if !slowest.is_empty() {
            lines.push(format!(
                "{:18} {:>8} {:>9} {:>9} {:>10} {:>9} {:>9}",
                "slowest", "fault", "added ms", "takeovers", "noticed ms", "placed ms", "began ms"
            ));
        }
        lines.extend(slowest.into_iter().map(Judged::line));
        if let Some(drained) = &self.drained {
            lines.push(format!(
                "drain: {} workers left under load, {} requests, {} failed",
                drained.workers,
                drained.requests,
                drained.failures.len()
            ));
        }
        lines.push(format!(
            "charged {} micro-credits by {} receipts, {} answers where these differ",
            self.charges.total,
            self.charges.receipts,
            self.charges.mismatches.len()
        ));
        for Account { number, charged, promised, claimed, settled } in &self.accounts {
            lines.push(format!(
                "worker {number}: answers charged {charged}, vouchers promised {promised}, claimed {claimed}, paid {settled}"
            ));
        }
        if let Some((named, held)) = &self.supply {
            lines.push(format!("ledger: genesis named {named} wei, there are {held}"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(whole: bool, equal: bool, cut: bool, added_ms: u64) -> Judged {
        Judged {
            fault: Fault::Kill,
            stream: true,
            sampled: false,
            struck: true,
            continued: true,
            whole,
            equal,
            told: (!whole && !cut).then(|| "lost".into()),
            cut: cut.then(|| "cut".into()),
            added: Duration::from_millis(added_ms),
            number: 0,
            longest: Wait::default(),
            takeovers: 0,
        }
    }

    fn check(judged: Vec<Judged>, change: impl FnOnce(&mut Report), expected: &[&str]) {
        let mut report = Report {
            seed: 1,
            struck: BTreeMap::from([(Fault::Kill, judged.len())]),
            judged,
            charges: Charges::default(),
            drained: None,
            accounts: Vec::new(),
            supply: Some(("5".into(), "5".into())),
            no_cuts: None,
            took: Duration::ZERO,
        };
        change(&mut report);
        let failures: Vec<String> = report.failures().into_iter().chain(report.too_slow()).collect();
        assert_eq!(failures.len(), expected.len(), "{failures:?}");
        for (failure, expected) in failures.iter().zip(expected) {
            assert!(failure.contains(expected), "{failure}: {expected}");
        }
        assert_eq!(report.json()["holds"], json!(expected.is_empty()));
    }

    #[test]
    fn what_does_not_hold_is_named() {
        let good = || vec![judged(true, true, false, 100); 100];
        let with = |other: Judged| good().into_iter().chain([other]).collect::<Vec<_>>();
        let account =
            |charged, promised, claimed, settled| Account { number: 1, charged, promised, claimed, settled };
        check(good(), |_| {}, &[]);
        check(Vec::new(), |_| {}, &["nothing was asked", "no fault struck"]);
        check(with(judged(false, false, false, 0)), |_| {}, &[]);
        check(with(judged(false, false, true, 0)), |_| {}, &["1 answers were cut off silently"]);
        check(with(judged(true, false, false, 0)), |_| {}, &["1 whole answers differ"]);
        check(vec![judged(true, true, false, 2_001); 9], |_| {}, &["2001 ms at p95"]);
        check(vec![judged(false, false, false, 0); 9], |_| {}, &["0 of 9 answers are whole"]);
        check(good(), |report| report.charges.mismatches.push("req_1".into()), &["1 charges"]);
        check(good(), |report| report.supply = Some(("5".into(), "6".into())), &["genesis named 5"]);
        check(good(), |report| report.accounts.push(account(5, 9, 7, 7)), &[]);
        check(
            good(),
            |report| report.accounts.push(account(5, 9, 10, 10)),
            &["claimed 10 micro-credits, and 9"],
        );
        let left = |report: &mut Report| {
            report.drained = Some(Drained { workers: 1, requests: 1, failures: Vec::new() });
        };
        check(good(), |report| report.accounts.push(account(5, 9, 4, 4)), &[]);
        check(
            good(),
            |report| {
                left(report);
                report.accounts.push(account(5, 9, 4, 4));
            },
            &["claimed 4 micro-credits of 5"],
        );
        check(good(), |report| report.accounts.push(account(5, 9, 7, 6)), &["was paid 6 of 7"]);
        let drained = |failures| Some(Drained { workers: 2, requests: 9, failures });
        check(good(), |report| report.drained = drained(Vec::new()), &[]);
        check(good(), |report| report.drained = drained(vec!["lost".into()]), &["1 of 9 requests failed"]);
    }

    #[test]
    fn the_slowest_come_with_where_their_time_went() {
        let of = |added_ms, noticed_ms| Judged {
            longest: Wait { noticed: Duration::from_millis(noticed_ms), ..Wait::default() },
            ..judged(true, true, false, added_ms)
        };
        check(
            (0..100).map(|number| of(number, 2 * number)).collect(),
            |report| {
                assert_eq!(report.json()["slowest"].as_array().map(Vec::len), Some(SLOWEST));
                assert_eq!(report.json()["slowest"][0]["noticed_ms"], 198);
                assert_eq!(report.slowest()[SLOWEST - 1].added.as_millis(), 88);
            },
            &[],
        );
    }

    #[test]
    fn percentiles_are_of_what_is_there() {
        let of = |count: u64, percent| {
            percentile((1..=count).map(Duration::from_millis).collect(), percent).as_millis()
        };
        assert_eq!((of(0, 95), of(1, 95), of(100, 95), of(100, 50), of(3, 100)), (0, 1, 95, 50, 3));
    }

    #[test]
    fn every_combination_is_asked_for_and_the_seed_names_them() {
        let asked = questions(7, "m");
        let forms: BTreeSet<(bool, bool)> =
            asked.iter().map(|question| (question.stream, question.sampled)).collect();
        assert_eq!(forms.len(), 4);
        assert!(asked.iter().any(|question| question.body["n"].is_u64()));
        assert!(asked.iter().any(|question| question.path.ends_with("/chat/completions")));
        let bodies =
            |seed| questions(seed, "m").into_iter().map(|question| question.body).collect::<Vec<_>>();
        assert_eq!(bodies(7), bodies(7));
        assert_ne!(bodies(7), bodies(8));
    }
}
