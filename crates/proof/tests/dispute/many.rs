//! Many disputes between sides drawn at random: the honest one never loses.
//!
//! `SURETY_DISPUTES` says how many, `SURETY_SEED` names them. Ordinary runs play a few hundred. For 10⁵ in some minutes:
//!
//! `SURETY_DISPUTES=100000 cargo test --release -p surety-proof --test dispute many -- --nocapture`

use std::collections::BTreeMap;

use surety_proof::dispute::judge::{SHOWN_BYTES_MAX, Verdict, judge};
use surety_proof::dispute::trace::Trace;

use crate::rng::Rng;
use crate::{Case, ids, play, random_model, samplings, words_by_kind};

/// Disputes about one answer.
const OF_ONE_ANSWER: u64 = 256;

/// What somebody's trace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    /// What the rules give.
    Honest,
    /// One word is another, everything after it is as it was.
    OneWord,
    /// One word is another, and so is everything after it.
    AllAfter,
}

/// Who plays: worker and challenger. One of them lies at least.
const PAIRS: [(Side, Side); 6] = [
    (Side::OneWord, Side::Honest),
    (Side::AllAfter, Side::Honest),
    (Side::Honest, Side::OneWord),
    (Side::Honest, Side::AllAfter),
    (Side::OneWord, Side::AllAfter),
    (Side::AllAfter, Side::OneWord),
];

fn setting(name: &str, ordinary: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(ordinary)
}

/// The trace of a side that lies from `word` on, if it does.
fn trace_of(side: Side, case: &Case, word: u64, rng: &mut Rng) -> Trace {
    if side == Side::Honest {
        return case.trace.clone();
    }
    let mut bytes = case.bytes();
    let at = 4 * word as usize;
    let change = [1 << rng.below(32), 1 << 31, rng.next() as u32 | 1][rng.below(3) as usize];
    let other = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a word")) ^ change;
    bytes[at..at + 4].copy_from_slice(&other.to_le_bytes());
    if side == Side::AllAfter {
        bytes[at + 4..].chunks_mut(8).for_each(|after| {
            after.iter_mut().zip(rng.next().to_le_bytes()).for_each(|(byte, other)| *byte ^= other);
        });
    }
    Trace::of_bytes(bytes).expect("short")
}

/// What came of the disputes about words of one kind.
#[derive(Default)]
struct Kind {
    disputes: u64,
    convicted: u64,
    bytes: usize,
}

#[test]
fn many_disputes_end_rightly() {
    let disputes = setting("SURETY_DISPUTES", 240);
    let of_one = OF_ONE_ANSWER.min(disputes.div_ceil(3));
    let seed = setting("SURETY_SEED", 1);
    let mut kinds: BTreeMap<&'static str, Kind> = BTreeMap::new();
    let mut pairs: BTreeMap<(Side, Side), u64> = BTreeMap::new();
    let (mut played, mut most, mut round, mut same) = (0, 0, 0, 0);
    while played < disputes {
        let rng = &mut Rng(seed << 32 | round);
        let (shape, model) = random_model(rng);
        let count = 1 + rng.below(12) as usize;
        let given = ids(rng, count, shape.vocabulary);
        let all = samplings();
        let (name, sampling) = all[round as usize % all.len()].clone();
        let (resumed, outputs) = (rng.below(count as u64 + 1) as usize, 1 + rng.below(4) as usize);
        let case = Case::new(&format!("{name}, {shape:?}"), &model, &given, resumed, outputs, sampling);
        // Every kind as often as every other, however few words it has.
        let words: Vec<(&'static str, Vec<u64>)> = words_by_kind(&case, rng).into_iter().collect();
        for _ in 0..of_one.min(disputes - played) {
            let (worker_is, challenger_is) = PAIRS[rng.below(PAIRS.len() as u64) as usize];
            let mut word = || {
                let (_, words) = &words[rng.below(words.len() as u64) as usize];
                words[rng.below(words.len() as u64) as usize]
            };
            let (theirs, own) = (word(), word());
            let worker = trace_of(worker_is, &case, theirs, rng);
            let challenger = trace_of(challenger_is, &case, own, rng);
            played += 1;
            *pairs.entry((worker_is, challenger_is)).or_default() += 1;
            let told =
                format!("seed {seed}, round {round}: {worker_is:?} at {theirs}, {challenger_is:?} at {own}");
            // Two liars may tell the same lie.
            let Some((game, bytes, word, messages)) = play(&worker, &challenger) else {
                assert!(worker_is != Side::Honest && challenger_is != Side::Honest, "{told}");
                same += 1;
                continue;
            };
            let leaf =
                challenger.leaf(&case.rules, &case.strings, &game, &bytes, word).expect("all is there");
            let verdict = judge(&case.statement, &game, &leaf).expect("a whole leaf");
            let convicted = matches!(verdict, Verdict::WorkerLied { .. });
            // Who lies is only ever right by accident: where both do, the word decides that was false first.
            match (worker_is, challenger_is) {
                (Side::Honest, _) => assert!(!convicted, "an honest worker, {told}"),
                (_, Side::Honest) => assert!(convicted, "an honest challenger, {told}"),
                _ if theirs < own => assert!(convicted, "{told}"),
                _ if own < theirs => assert!(!convicted, "{told}"),
                _ => {}
            }
            assert!(messages <= 9, "{told}: {messages} messages");
            assert!(leaf.shown_bytes() <= SHOWN_BYTES_MAX, "{told}: {} bytes", leaf.shown_bytes());
            most = most.max(messages);
            let (coordinate, _) = case.coordinate(word);
            let kind = kinds.entry(coordinate.kind()).or_default();
            kind.disputes += 1;
            kind.convicted += u64::from(convicted);
            kind.bytes = kind.bytes.max(leaf.shown_bytes());
        }
        round += 1;
        if round.is_multiple_of(40) {
            eprintln!("{played} of {disputes} disputes");
        }
    }
    println!("{played} disputes about {round} answers, {same} without a difference; {most} messages at most");
    for (pair, count) in pairs {
        println!("{pair:?}: {count}");
    }
    println!("{:30} {:>8} {:>9} {:>6}", "kind", "disputes", "convicted", "bytes");
    for (kind, Kind { disputes, convicted, bytes }) in &kinds {
        println!("{kind:30} {disputes:>8} {convicted:>9} {bytes:>6}");
    }
    assert!(disputes < 10_000 || kinds.len() == 40, "every kind of D-6: {} of them", kinds.len());
}
