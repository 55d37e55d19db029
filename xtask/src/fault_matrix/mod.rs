//! The fault matrix: faults are injected blind into live networks, and `surety explain` is asked who answers for them.
//!
//! In:     the binary, how often each fault, a seed.
//! Out:    for each fault whom the verdicts named against whom they should, whether an honest party was named, what was charged,
//!         how long it took, and whether a saved file gives the same verdict without a network.
//! Touches: starts networks in folders of their own; with root, network namespaces.
//! Holds:  whoever judges does not know the fault: it sees what anybody sees who has the id of the request. What could not be
//!         injected on this machine is said, and fails the run.
//! Absent: how each fault is injected (`bare`, `paid`), what disputes cost (`liar_matrix`).

mod bare;
mod fault;
mod paid;
mod site;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::kill_matrix::network::{NAMESPACES_MAX, no_namespaces};
use crate::rng::Rng;
use bare::{Bare, WORKERS};
pub use fault::{Fault, ROWS, Site};
use paid::Paid;
use verdict::Judged;

/// An explanation may take so long.
const EXPLAIN_MAX: Duration = Duration::from_secs(1);
/// Of a hundred verdicts so many are to be right.
const RIGHT_PERCENT_MIN: usize = 95;
/// A network that failed so often in a row is given up.
const FAILURES_MAX: usize = 3;

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
    /// Only these faults, by name; --list shows them.
    #[arg(long)]
    pub only: Vec<String>,
    /// Networks at once; each takes about two cores and two gigabytes.
    #[arg(long, default_value_t = 1)]
    pub at_once: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    seed: u64,
    judged: Vec<Judged>,
    /// Faults that could not be injected on this machine, and why.
    left_out: Vec<(Fault, String)>,
    /// Faults whose injection failed, and how.
    failed: Vec<(Fault, String)>,
    took: Duration,
}

/// Every fault: its name, its row, and why it cannot be injected on this machine, if so.
pub fn list(binary: &Path) -> Result<Vec<(Fault, Option<String>)>> {
    let without = Without::of(binary)?;
    Ok(Fault::ALL.iter().map(|fault| (*fault, without.why(*fault))).collect())
}

/// What this machine does not permit, and why.
struct Without {
    links: Option<String>,
    clocks: Option<String>,
}

impl Without {
    fn of(binary: &Path) -> Result<Without> {
        let links = no_namespaces().map(|why| format!("network namespaces are not permitted: {why}"));
        let clocks = site::no_clocks(binary)?.map(|why| format!("clocks cannot be moved: {why}"));
        Ok(Without { links, clocks })
    }

    fn why(&self, fault: Fault) -> Option<String> {
        match fault.site() {
            Site::Linked => self.links.clone(),
            Site::Clocked => self.clocks.clone(),
            Site::Bare | Site::Paid => None,
        }
    }
}

/// Runs all of it.
pub fn run(settings: &Settings) -> Result<Report> {
    ensure!(settings.times > 0 && settings.at_once > 0, "there is nothing to inject");
    ensure!(
        settings.at_once * WORKERS <= NAMESPACES_MAX,
        "at most {} networks at once",
        NAMESPACES_MAX / WORKERS
    );
    let started = Instant::now();
    let binary = settings.binary.canonicalize().with_context(|| format!("{}", settings.binary.display()))?;
    for name in &settings.only {
        ensure!(
            Fault::ALL.iter().any(|fault| fault.name() == name),
            "there is no fault {name}; --list shows all"
        );
    }
    let wanted =
        |fault: &&Fault| settings.only.is_empty() || settings.only.iter().any(|only| only == fault.name());
    let without = Without::of(&binary)?;
    let mut report = Report { seed: settings.seed, ..Report::default() };
    let mut faults = Vec::new();
    for fault in Fault::ALL.iter().copied().filter(|fault| wanted(&fault)) {
        match without.why(fault) {
            Some(why) => {
                eprintln!("NOT INJECTED: {}: {why}", fault.name());
                report.left_out.push((fault, why));
            }
            None => faults.push(fault),
        }
    }
    let linked = without.links.is_none();
    let (paid, bare): (Vec<Fault>, Vec<Fault>) = faults.iter().partition(|fault| fault.site() == Site::Paid);
    let results = Mutex::new(report);
    thread::scope(|scope| -> Result<()> {
        let networks: Vec<_> = (0..settings.at_once)
            .map(|number| {
                let (binary, results, paid, bare) = (&binary, &results, &paid, &bare);
                scope.spawn(move || -> Result<()> {
                    // Each fault comes to every network in turn.
                    let all = |faults: &[Fault]| -> Vec<Fault> {
                        let mine = |time: usize, index: usize| {
                            (time + index + number).is_multiple_of(settings.at_once)
                        };
                        let times = (0..settings.times).flat_map(|time| {
                            faults.iter().enumerate().filter(move |(index, _)| mine(time, *index))
                        });
                        times.map(|(_, fault)| *fault).collect()
                    };
                    let network = Running { number, binary, settings, results };
                    network.bare(all(bare), linked)?;
                    network.paid(all(paid))
                })
            })
            .collect();
        networks.into_iter().try_for_each(|network| network.join().expect("no panic"))
    })?;
    let mut report = results.into_inner().expect("no panic");
    report.took = started.elapsed();
    Ok(report)
}

/// One of the networks at once.
struct Running<'a> {
    number: usize,
    binary: &'a Path,
    settings: &'a Settings,
    results: &'a Mutex<Report>,
}

impl Running<'_> {
    fn bare(&self, mut faults: Vec<Fault>, linked: bool) -> Result<()> {
        let mut rng = Rng::keyed(&[self.settings.seed, 7, self.number as u64]);
        for index in (1..faults.len()).rev() {
            faults.swap(index, rng.below(index + 1));
        }
        let folder = tempfile::tempdir()?;
        let (mut network, mut started, mut failures): (Option<Bare>, usize, usize) = (None, 0, 0);
        for fault in faults {
            let victim = rng.below(WORKERS);
            let running = match network.take() {
                Some(running) => Ok(running),
                None => {
                    started += 1;
                    let folder = folder.path().join(started.to_string());
                    Bare::start(self.binary, &folder, self.number, linked)
                }
            };
            let mut running = running.context("starting a network")?;
            let judged = running.case(fault, victim);
            failures = if judged.is_ok() { 0 } else { failures + 1 };
            // One that failed may be broken: the next fault finds another.
            network = judged.is_ok().then_some(running);
            self.note(fault, judged);
            ensure!(failures < FAILURES_MAX, "{failures} faults in a row could not be injected");
        }
        Ok(())
    }

    fn paid(&self, faults: Vec<Fault>) -> Result<()> {
        if faults.is_empty() {
            return Ok(());
        }
        let folder = tempfile::tempdir()?;
        let seed = self.settings.seed.wrapping_mul(1_000).wrapping_add(self.number as u64);
        let mut network = Paid::start(self.binary, folder.path(), seed, &faults)?;
        let (disputed, others): (Vec<Fault>, Vec<Fault>) =
            faults.into_iter().partition(|fault| paid::is_disputed(*fault));
        let mut contested = Vec::new();
        for fault in disputed {
            match network.lie(fault) {
                Ok(answer) => contested.push(answer),
                Err(error) => self.note(fault, Err(error)),
            }
        }
        paid::shuffle(&mut contested, seed);
        for contested in contested {
            self.note(contested.fault, network.contest(&contested));
        }
        for fault in others {
            let judged = network.case(fault);
            self.note(fault, judged);
        }
        network.stop()
    }

    fn note(&self, fault: Fault, judged: Result<Judged>) {
        let mut results = self.results.lock().expect("no panic");
        match judged {
            Ok(judged) => {
                if !judged.right || judged.charged || !judged.same_offline {
                    eprintln!("{}: {}: {}", fault.name(), judged.accountable, judged.verdict);
                }
                results.judged.push(judged);
            }
            Err(error) => {
                eprintln!("{}: NOT INJECTED: {error:#}", fault.name());
                results.failed.push((fault, format!("{error:#}")));
            }
        }
        let count = results.judged.len() + results.failed.len();
        if count.is_multiple_of(25) {
            eprintln!("{count} faults");
        }
    }
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
            ("injections that failed", self.failed.len()),
            ("faults that this machine does not permit", self.left_out.len()),
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

    fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: BTreeMap<Fault, Vec<&Judged>> = BTreeMap::new();
        self.judged.iter().for_each(|judged| rows.entry(judged.fault).or_default().push(judged));
        rows.into_iter().map(|(fault, judged)| Row { fault, judged }).collect()
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("seed {}: {} faults in {:.0} s", self.seed, self.judged.len(), self.took.as_secs_f64()),
            format!(
                "{:35} {:22} {:>5} {:>5} {:>7} {:>7} {:>7} {:>6}  named",
                "row", "fault", "times", "right", "accused", "charged", "offline", "max ms"
            ),
        ];
        for row in self.rows() {
            let named: Vec<String> =
                row.named().iter().map(|(who, times)| format!("{who} {times}")).collect();
            lines.push(format!(
                "{:35} {:22} {:>5} {:>5} {:>7} {:>7} {:>7} {:>6}  {}",
                row.fault.row(),
                row.fault.name(),
                row.judged.len(),
                row.count(|judged| judged.right),
                row.count(|judged| judged.accused),
                row.count(|judged| judged.charged),
                row.count(|judged| judged.same_offline),
                row.max_ms(),
                named.join(", ")
            ));
        }
        for (fault, why) in self.left_out.iter().chain(&self.failed) {
            lines.push(format!("NOT INJECTED: {}: {why}", fault.name()));
        }
        lines
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let row = |row: &Row<'_>| {
            json!({
                "row": row.fault.row(), "fault": row.fault.name(), "times": row.judged.len(),
                "right": row.count(|judged| judged.right), "accused": row.count(|judged| judged.accused),
                "charged": row.count(|judged| judged.charged),
                "same_offline": row.count(|judged| judged.same_offline),
                "explain_ms_max": row.max_ms() as u64, "named": row.named(),
            })
        };
        let named = |faults: &[(Fault, String)]| -> Vec<Value> {
            faults.iter().map(|(fault, why)| json!({ "fault": fault.name(), "why": why })).collect()
        };
        json!({
            "seed": self.seed, "faults": self.judged.len(), "seconds": self.took.as_secs_f64(),
            "rows": self.rows().iter().map(row).collect::<Vec<_>>(),
            "not_permitted": named(&self.left_out), "failed": named(&self.failed), "failures": self.failures(),
        })
    }
}

/// What came of one fault, all its times.
struct Row<'a> {
    fault: Fault,
    judged: Vec<&'a Judged>,
}

impl Row<'_> {
    fn count(&self, of: fn(&Judged) -> bool) -> usize {
        self.judged.iter().filter(|judged| of(judged)).count()
    }

    fn named(&self) -> BTreeMap<&str, usize> {
        let mut named = BTreeMap::new();
        self.judged.iter().for_each(|judged| *named.entry(judged.accountable.as_str()).or_default() += 1);
        named
    }

    fn max_ms(&self) -> u128 {
        self.judged.iter().map(|judged| judged.took.as_millis()).max().unwrap_or(0)
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
        let report = |judged| Report { seed: 1, judged, ..Report::default() };
        assert_eq!(report(vec![judged(true, false); 20]).failures(), Vec::<String>::new());
        let mut one = vec![judged(true, false); 19];
        one.push(judged(false, true));
        assert_eq!(report(one).failures(), ["1 honest parties accused"]);
        assert_eq!(report(vec![judged(false, false)]).failures(), ["0 of 1 verdicts are right"]);
    }

    #[test]
    fn what_could_not_be_injected_is_a_failure() {
        let report =
            Report { left_out: vec![(Fault::LinkCut, "this is not root".into())], ..Report::default() };
        assert_eq!(report.failures(), ["1 faults that this machine does not permit"]);
        assert!(report.lines().iter().any(|line| line.contains("NOT INJECTED: link-cut: this is not root")));
    }
}
