//! How long the judge takes for a leaf of each kind, on models as they are in use: what the ledger does for one last move.
//!
//! `cargo bench -p surety-proof --bench judge` times the leaf's parsing, the statement, all openings and the word's rule, of
//! words drawn anywhere in traces too long to be made (`tests/dispute/sparse.rs`), in every format of weights, with ordinary
//! numbers and with ones so small that processors are slow with them. One line for each kind on standard output; it fails if
//! the median of any leaf is above a millisecond (issue 5), or a verdict is wrong.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use surety_proof::dispute::judge::Verdict;
use surety_proof::dispute::plan::TensorFormat;
use surety_types::Canonical;

use real::{Answer, anywhere, models, plan};
use rng::Rng;
use sparse::{Filler, Last, play};

#[path = "../tests/dispute/real.rs"]
mod real;
#[path = "../tests/dispute/rng.rs"]
mod rng;
#[path = "../tests/dispute/sparse.rs"]
mod sparse;

/// No leaf takes the judge longer.
const MAX: Duration = Duration::from_millis(1);
/// Each leaf is judged so often.
const RUNS: usize = 15;

/// What was found of a kind.
#[derive(Default)]
struct Kind {
    /// The median of each leaf.
    medians: Vec<Duration>,
    /// The longest of all runs, with whatever else the machine did.
    longest: Duration,
    bytes: usize,
    openings: usize,
}

fn main() -> ExitCode {
    let rng = &mut Rng(1);
    let mut kinds: BTreeMap<&'static str, Kind> = BTreeMap::new();
    let mut messages = 0;
    for (name, header, ids) in models() {
        for format in TensorFormat::ALL {
            // Of a format's rows whole blocks: every model here has them.
            let plan = plan(header.clone(), format).to_bytes();
            for (greedy, filler) in [
                (false, Filler::Floats),
                (true, Filler::Floats),
                (false, Filler::Subnormals),
                (true, Filler::Subnormals),
            ] {
                let temperature = if greedy { 0.0 } else { 0.7 };
                let answer = Answer::new(&header, temperature, ids);
                let statement = answer.statement();
                for coordinate in anywhere(rng, statement.layout(), &header, ids, greedy) {
                    let part = rng.below(coordinate.words());
                    let change = (rng.below(2) as u32) << rng.below(32);
                    let last = play(&answer, &plan, &coordinate, part, change, filler, rng.next());
                    messages = messages.max(last.messages);
                    let kind = kinds.entry(coordinate.kind()).or_default();
                    if !time(&last, change, kind) {
                        eprintln!("{name}, {format:?}, {coordinate:?}: another verdict");
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
        eprintln!("{name} is done");
    }
    println!(
        "judge: microseconds of {RUNS} runs a leaf; leaves of {} kinds, {messages} messages at most",
        kinds.len()
    );
    println!(
        "{:30} {:>7} {:>8} {:>8} {:>8} {:>8} {:>6} {:>8}",
        "kind", "leaves", "median", "best", "worst", "longest", "bytes", "openings"
    );
    let mut too_slow = false;
    for (kind, Kind { medians, longest, bytes, openings }) in &mut kinds {
        medians.sort();
        let (best, median, worst) = (medians[0], medians[medians.len() / 2], medians[medians.len() - 1]);
        let us = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
        println!(
            "{kind:30} {:>7} {:>8} {:>8} {:>8} {:>8} {bytes:>6} {openings:>8}",
            medians.len(),
            us(median),
            us(best),
            us(worst),
            us(*longest)
        );
        too_slow |= worst > MAX;
    }
    if too_slow {
        eprintln!("a leaf takes the judge longer than {MAX:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Judges a leaf again and again; whether the verdict is what it must be.
fn time(last: &Last, change: u32, kind: &mut Kind) -> bool {
    let (leaf, game) = (last.leaf.to_cbor(), last.game.to_bytes());
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        let verdict = std::hint::black_box(last.judged(&leaf, &game));
        times.push(start.elapsed());
        let right = match verdict {
            Ok(Verdict::WorkerRight) => change == 0,
            Ok(Verdict::WorkerLied { claimed, computed, .. }) => change != 0 && claimed ^ computed == change,
            Err(_) => false,
        };
        if !right {
            return false;
        }
    }
    times.sort();
    kind.medians.push(times[RUNS / 2]);
    kind.longest = kind.longest.max(times[RUNS - 1]);
    kind.bytes = kind.bytes.max(last.leaf.shown_bytes());
    kind.openings = kind.openings.max(last.leaf.shown.len());
    true
}
