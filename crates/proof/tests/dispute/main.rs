//! Whole disputes over tiny models: traces against the second voice, lies of every kind, lying challengers, garbage.
//!
//! Ordinary runs take a few cases; `SURETY_CASES` asks for more of the random ones.

mod many;
mod model;
mod prompt;
mod real;
mod rng;
mod sizes;
mod sparse;
mod text;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use model::{Rng, Shape, TinyModel};
use proptest::prelude::{any, prop, proptest};
use surety_grammar::{Form, Grammar, forms};
use surety_proof::dispute::game::{Answer, answer, division};
use surety_proof::dispute::judge::{Digests, Leaf, LeafError, Statement, Verdict, judge};
use surety_proof::dispute::layout::Coordinate;
use surety_proof::dispute::plan::TensorFormat::{self, BF16, F16, F32, Q4_0, Q4_K, Q6_K, Q8_0};
use surety_proof::dispute::plan::{LayerSlot, Product as Matrix, Slot};
use surety_proof::dispute::rules::{Inputs, RuleError, Rules, Source};
use surety_proof::dispute::trace::{Strings, Trace, TraceError, Whole};
use surety_proof::dispute::{Division, Game, Turn};
use surety_types::digest::domain;
use surety_types::{Canonical, Digest, Request, Sampling};

/// As many as asked for.
fn cases(ordinary: u64) -> u64 {
    std::env::var("SURETY_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(ordinary)
}

/// An answer, with its trace.
struct Case {
    name: String,
    rules: Rules,
    strings: Strings<Vec<u8>>,
    statement: Statement,
    trace: Trace,
    output: Vec<u32>,
    state_digest: [u8; 32],
}

const THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("two");

/// Those of an answer's strings, and of the text that was sent.
fn digests(strings: &Strings<Vec<u8>>, text: &str) -> Digests {
    strings.digests(Digest::of(domain::OUTPUT_TEXT, text.as_bytes()))
}

impl Case {
    fn new(
        name: &str,
        model: &TinyModel,
        given: &[u32],
        resumed: usize,
        outputs: usize,
        sampling: Sampling,
    ) -> Case {
        let seed: [u8; 32] = std::array::from_fn(|i| (i * 7 + given.len()) as u8);
        let grammar = sampling.grammar.map(|_| grammar());
        let mask =
            grammar.as_deref().map(|text| (Grammar::compile(text).expect("a grammar"), &model.spelling));
        let (output, state_digest) =
            model::answer(&model.file, given, resumed, outputs, &sampling, &seed, mask.as_ref());
        let header = model.plan.header().clone();
        let counts = [given.len(), resumed, outputs].map(|count| count as u32);
        let rules = Rules::new(header, sampling, seed, false, counts[0], counts[1], counts[2])
            .expect("a short trace");
        let (plan, spelling, rotary) =
            (model.plan.to_bytes(), model.spelling.to_bytes(), model.rotary.clone());
        let strings =
            Strings::new(plan, spelling, model.file.clone(), rotary, given, &output).expect("short");
        let strings = strings.with_grammar(grammar.as_deref());
        let statement = Statement::of(rules.clone(), digests(&strings, "")).expect("short");
        let trace =
            Trace::build(&rules, &strings, THREADS, u64::MAX, &mut |_, _| ()).expect("its own strings");
        Case { name: name.into(), rules, strings, statement, trace, output, state_digest }
    }

    fn bytes(&self) -> Vec<u8> {
        let hashed = self.trace.hashed();
        hashed.bytes_below(hashed.tree().root()).to_vec()
    }

    fn coordinate(&self, word: u64) -> (Coordinate, u64) {
        self.rules.layout().coordinate(word).expect("within the trace")
    }

    /// The worker's trace with one word changed; in that of `after`, with everything after it computed from it.
    fn corrupted(&self, word: u64, change: u32, after: bool) -> Trace {
        let mut bytes = self.bytes();
        let at = 4 * word as usize;
        let other = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a word")) ^ change;
        bytes[at..at + 4].copy_from_slice(&other.to_le_bytes());
        if after {
            let (coordinate, part) = self.coordinate(word);
            let mut next = word - part + coordinate.words();
            while next < self.rules.layout().words() {
                let (coordinate, _) = self.coordinate(next);
                let mut inputs =
                    Loose { bytes: &bytes, strings: Whole { trace: &self.trace, strings: &self.strings } };
                let words = self.rules.compute(&coordinate, &mut inputs).expect("all is there");
                for word in &words[..coordinate.words() as usize] {
                    bytes[4 * next as usize..][..4].copy_from_slice(&word.to_le_bytes());
                    next += 1;
                }
            }
        }
        Trace::of_bytes(bytes).expect("short")
    }
}

/// A trace that is being changed.
struct Loose<'a> {
    bytes: &'a [u8],
    strings: Whole<'a, Vec<u8>>,
}

impl Inputs for Loose<'_> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        if source != Source::Trace {
            return self.strings.read(source, at, out);
        }
        out.copy_from_slice(&self.bytes[at as usize..][..out.len()]);
        Ok(())
    }

    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        self.strings.grammar()
    }
}

/// Plays to the last move: the game, the worker's last division, the first word that differs, and how many messages it
/// takes with the one that opens it and the leaf. `None` if nothing differs.
fn play(worker: &Trace, challenger: &Trace) -> Option<(Game, Vec<u8>, u64, u32)> {
    let words = worker.hashed().tree().bytes() / 4;
    let mut game = Game::new(words).expect("a trace");
    for divisions in 1..=5 {
        let node = game.node();
        let divided = division(worker.hashed(), node);
        game.divide(&divided).expect("the worker's turn");
        let stored = game.to_bytes();
        game = Game::from_bytes(&stored).expect("what was stored");
        match answer(challenger.hashed(), node, &divided) {
            Answer::Same => return None,
            Answer::Pick { index, value, siblings } => {
                game.pick(index, &value, &siblings).expect("the challenger's turn");
            }
            Answer::Word(word) => {
                let Division::Bytes(bytes) = divided else { panic!("words are in bytes") };
                return Some((game, bytes, word, 2 * divisions + 1));
            }
        }
    }
    panic!("a game of more than five divisions");
}

/// Plays to the verdict.
fn dispute(case: &Case, worker: &Trace, challenger: &Trace) -> Option<(Verdict, Leaf)> {
    let (game, bytes, word, _) = play(worker, challenger)?;
    assert_eq!(game.turn(), Turn::Leaf);
    let leaf = challenger.leaf(&case.rules, &case.strings, &game, &bytes, word).expect("all is there");
    let cbor = leaf.try_to_cbor().unwrap_or_else(|error| panic!("{}, word {word}: {error}", case.name));
    assert_eq!(Leaf::from_cbor(&cbor).expect("canonical"), leaf);
    let verdict = judge(&case.statement, &game, &leaf).unwrap_or_else(|error| {
        panic!("{}, {:?}: {error}", case.name, case.coordinate(word));
    });
    Some((verdict, leaf))
}

const LLAMA: Shape = Shape {
    architecture: "llama",
    layers: 2,
    width: 256,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    feed_forward: 256,
    vocabulary: 600,
    context: 64,
    biases: false,
    head_norms: false,
    tied: false,
    formats: &[Q4_K, Q6_K, Q8_0, Q4_0, F16, BF16, F32],
};

const QWEN3: Shape = Shape {
    architecture: "qwen3",
    layers: 1,
    width: 32,
    heads: 2,
    kv_heads: 1,
    head_dim: 32,
    feed_forward: 64,
    vocabulary: 40,
    context: 300,
    biases: false,
    head_norms: true,
    tied: true,
    formats: &[F16, Q8_0, BF16],
};

/// More than one segment of a product.
const QWEN2: Shape = Shape {
    architecture: "qwen2",
    layers: 1,
    width: 64,
    heads: 2,
    kv_heads: 2,
    head_dim: 32,
    feed_forward: 1312,
    vocabulary: 530,
    context: 40,
    biases: true,
    head_norms: false,
    tied: false,
    formats: &[Q8_0, F32, Q4_0, BF16],
};

/// More than one part of a norm.
const WIDE: Shape = Shape {
    architecture: "llama",
    layers: 1,
    width: 1280,
    heads: 1,
    kv_heads: 1,
    head_dim: 32,
    feed_forward: 32,
    vocabulary: 33,
    context: 8,
    biases: false,
    head_norms: false,
    tied: true,
    formats: &[Q6_K, F32, Q4_K],
};

fn full() -> Sampling {
    Sampling {
        temperature: 0.8,
        top_k: 30,
        top_p: 0.9,
        min_p: 0.01,
        repetition_penalty: 1.3,
        presence_penalty: 0.2,
        frequency_penalty: 0.1,
        logit_bias: vec![(2, 1.5), (5, -3.0), (4_000_000_000, 1.0)],
        grammar: None,
    }
}

fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..Sampling::default() }
}

/// Every way in which samplings differ.
fn samplings() -> Vec<(&'static str, Sampling)> {
    let plain = Sampling::default;
    vec![
        ("plain", plain()),
        ("greedy", greedy()),
        ("greedy, penalties", Sampling { temperature: 0.0, ..full() }),
        ("greedy, bias", Sampling { logit_bias: vec![(3, 4.0)], ..greedy() }),
        ("top_k", Sampling { top_k: 5, ..plain() }),
        ("top_k of all", Sampling { top_k: 4_000, ..plain() }),
        ("top_k 1", Sampling { top_k: 1, ..plain() }),
        ("top_p", Sampling { top_p: 0.5, ..plain() }),
        ("top_p 0", Sampling { top_p: 0.0, ..plain() }),
        ("min_p", Sampling { min_p: 0.1, temperature: 1.7, ..plain() }),
        ("top_k, top_p, min_p", Sampling { top_k: 9, top_p: 0.7, min_p: 0.05, ..plain() }),
        ("repetition", Sampling { repetition_penalty: 2.0, ..plain() }),
        ("presence", Sampling { presence_penalty: 1.0, ..plain() }),
        ("frequency", Sampling { frequency_penalty: -0.7, ..plain() }),
        ("full", full()),
        ("grammar", held(plain())),
        ("grammar, greedy", held(greedy())),
        ("grammar, full", held(full())),
    ]
}

/// Sampled in the grammar of these tests.
fn held(sampling: Sampling) -> Sampling {
    Sampling { grammar: Some(Request::grammar_digest(&grammar())), ..sampling }
}

/// Long strings of what the tiny models' pieces are parts of, so that there is always a token that may come.
fn grammar() -> String {
    let rng = &mut Rng(5);
    let parts = ["a", " b", "\n", "é", "€", "🦙"];
    let texts: Vec<String> =
        (0..90).map(|_| (0..40).map(|_| parts[rng.below(6) as usize]).collect()).collect();
    let all: Vec<Form> = texts.iter().map(|text| Form { prefix: text, schema: "{}", suffix: "" }).collect();
    forms(&all, 1, "").expect("a grammar")
}

fn ids(rng: &mut Rng, count: usize, vocabulary: u32) -> Vec<u32> {
    (0..count).map(|_| rng.below(vocabulary.into()) as u32).collect()
}

/// The answers that the tests are about: every shape, every way of sampling.
fn answers() -> Vec<Case> {
    let rng = &mut Rng(11);
    let mut cases = Vec::new();
    for (shape, seed) in [(LLAMA, 0), (QWEN2, 1), (WIDE, 2)] {
        let model = shape.model(seed);
        let given = ids(rng, 5, shape.vocabulary);
        cases.push(Case::new(shape.architecture, &model, &given, 2, 2, full()));
        cases.push(Case::new(shape.architecture, &model, &given[..3], 0, 1, greedy()));
    }
    let model = QWEN3.model(3);
    for (name, sampling) in samplings() {
        let given = ids(rng, 4, QWEN3.vocabulary);
        cases.push(Case::new(name, &model, &given, (rng.below(3)) as usize, 5, sampling));
    }
    // In a grammar from its beginning, and after ids that do not keep to it.
    for (sampling, resumed) in [(held(Sampling::default()), 0), (held(full()), 0), (held(greedy()), 2)] {
        let given = ids(rng, 4, QWEN3.vocabulary);
        cases.push(Case::new("held", &model, &given, resumed, 5, sampling));
    }
    // More than one row of presence and repeats.
    let given = ids(rng, 270, QWEN3.vocabulary);
    cases.push(Case::new("long", &model, &given, 260, 9, full()));
    cases
}

/// D-3.7, D-3.9: what the trace says is what the second voice says.
fn assert_is_reference(case: &Case) {
    let layout = case.rules.layout();
    let sampled = (0..).map(|s| layout.sampled_at(s)).map(|at| case.trace.word(at).expect("within"));
    let sampled: Vec<u32> = sampled.take(case.output.len()).collect();
    assert_eq!(sampled, case.output, "{}", case.name);
    let digest: Vec<u8> = (0..8)
        .flat_map(|i| case.trace.word(layout.state_digest_at() + i).expect("within").to_le_bytes())
        .collect();
    assert_eq!(digest, case.state_digest, "{}", case.name);
}

/// Everything a whole trace holds is what its rule gives.
fn assert_is_by_rules(case: &Case, step: u64) {
    let mut word = 0;
    let mut turn = 0;
    while word < case.rules.layout().words() {
        let (coordinate, _) = case.coordinate(word);
        turn += 1;
        if turn % step == 0 {
            let mut whole = Whole { trace: &case.trace, strings: &case.strings };
            let words = case.rules.compute(&coordinate, &mut whole).expect("all is there");
            for (part, expected) in (0..coordinate.words()).zip(words) {
                assert_eq!(case.trace.word(word + part), Some(expected), "{}, {coordinate:?}", case.name);
            }
        }
        word += coordinate.words();
    }
}

#[test]
fn traces_say_what_the_second_voice_says_word_by_word_as_the_rules() {
    for case in answers() {
        assert_is_reference(&case);
        assert_is_by_rules(&case, if case.rules.layout().words() > 100_000 { 13 } else { 3 });
    }
}

/// Attention over more than one span.
#[test]
fn long_answers_have_spans() {
    let shape = Shape { context: 1100, heads: 1, vocabulary: 33, ..QWEN3 };
    let model = shape.model(5);
    let given = ids(&mut Rng(4), 1030, shape.vocabulary);
    let case = Case::new("spans", &model, &given, 0, 2, greedy());
    assert_is_reference(&case);
    assert_is_by_rules(&case, 997);
    let mut found = 0;
    let words = case.rules.layout().words();
    for word in (0..words).step_by(101).filter(|word| spanned(&case.coordinate(*word).0)) {
        let worker = case.corrupted(word, 1, false);
        let (verdict, _) = dispute(&case, &worker, &case.trace).expect("they differ");
        assert!(matches!(verdict, Verdict::WorkerLied { word: own, .. } if own == word), "{verdict:?}");
        found += 1;
        if found == 25 {
            break;
        }
    }
    assert_eq!(found, 25);
}

fn spanned(coordinate: &Coordinate) -> bool {
    matches!(
        coordinate,
        Coordinate::GreatestScore { span: 1.., .. }
            | Coordinate::Normaliser { span: 1.., .. }
            | Coordinate::ValueSum { span: 1.., .. }
    )
}

#[test]
fn every_thread_count_gives_one_trace_and_memory_is_bounded() {
    let model = QWEN2.model(1);
    let case = Case::new("threads", &model, &[1, 2, 3], 1, 2, full());
    for threads in [1, 3, 8] {
        let threads = NonZeroUsize::new(threads).expect("some");
        let mut told = Vec::new();
        let trace = Trace::build(&case.rules, &case.strings, threads, u64::MAX, &mut |done, all| {
            told.push((done, all));
        })
        .expect("its own strings");
        assert_eq!(trace.hashed().digest(), case.trace.hashed().digest());
        assert!(told.is_sorted() && told.len() > 3);
        let words = case.rules.layout().words();
        assert_eq!(told.last(), Some(&(words, words)));
    }
    let mut buffer = vec![7; case.bytes().len()];
    let buffer = buffer.as_mut_slice();
    let elsewhere =
        Trace::build_in(buffer, &case.rules, &case.strings, THREADS, &mut |_, _| ()).expect("its own length");
    assert_eq!(elsewhere.hashed().digest(), case.trace.hashed().digest());
    let short = Trace::build_in(vec![0; 8], &case.rules, &case.strings, THREADS, &mut |_, _| ());
    assert!(matches!(short.err(), Some(TraceError::Buffer { found: 8, .. })));
    let bytes = Trace::memory(case.rules.layout());
    let found = Trace::build(&case.rules, &case.strings, THREADS, bytes - 1, &mut |_, _| ());
    assert_eq!(found.err(), Some(TraceError::Memory { bytes, max: bytes - 1 }));
}

/// Version 1 of traces and leaves, as known answers: of each case its trace, and the leaves of some words, one after another.
/// Another digest is another version, and a decision.
#[test]
fn traces_and_leaves_of_version_1_are_these() {
    let recorded = [
        ("llama", "855a281b8f49559c5c4977f40affbeaa895114ade9083050c99c2f4aaf393340"),
        ("qwen2", "0d9cb83f408f089c0f19badf3bf19c615ca3347ca47a6acbc9509e8ebb89b501"),
        ("full", "90319e18173a56a135dae5897b731a0fa8204f5ea12179e10561ea7936e76b40"),
    ];
    let cases = answers();
    let found = recorded.map(|(name, _)| {
        let case = cases.iter().find(|case| case.name == name).expect("an answer of this name");
        let mut hasher = blake3::Hasher::new();
        hasher.update(&case.trace.hashed().digest());
        let words = case.rules.layout().words();
        for word in (0..words).step_by(words as usize / 50) {
            let other = case.corrupted(word, 1, false);
            let (_, leaf) = dispute(case, &other, &case.trace).expect("they differ");
            hasher.update(&leaf.to_cbor());
        }
        (name, hasher.finalize().to_hex().to_string())
    });
    assert_eq!(found.each_ref().map(|(name, digest)| (*name, digest.as_str())), recorded);
}

/// A word of each coordinate of a trace, in order.
fn words_by_kind(case: &Case, rng: &mut Rng) -> BTreeMap<&'static str, Vec<u64>> {
    let mut kinds: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    let mut word = 0;
    while word < case.rules.layout().words() {
        let (coordinate, _) = case.coordinate(word);
        kinds.entry(coordinate.kind()).or_default().push(word + rng.below(coordinate.words()));
        word += coordinate.words();
    }
    kinds
}

/// Of each kind in a trace some words: the first, the last, and some between.
fn words_of_each_kind(case: &Case, rng: &mut Rng, each: usize) -> BTreeMap<&'static str, Vec<u64>> {
    let mut kinds = words_by_kind(case, rng);
    for words in kinds.values_mut() {
        let (first, last) = (words[0], words[words.len() - 1]);
        let mut chosen: Vec<u64> = (2..each).map(|_| words[rng.below(words.len() as u64) as usize]).collect();
        chosen.extend([first, last]);
        chosen.truncate(each.max(1));
        *words = chosen;
    }
    kinds
}

#[test]
fn every_lie_is_convicted_and_no_truth() {
    let rng = &mut Rng(cases(1));
    let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
    for case in answers() {
        for (kind, words) in words_of_each_kind(&case, rng, cases(3) as usize) {
            for word in words {
                let change = [1, 1 << 31, rng.next() as u32 | 2][rng.below(3) as usize];
                let other = case.corrupted(word, change, false);
                let (verdict, leaf) = dispute(&case, &other, &case.trace).expect("they differ");
                let claimed = other.word(word).expect("within");
                let computed = case.trace.word(word).expect("within");
                let expected = Verdict::WorkerLied { word, claimed, computed };
                assert_eq!(verdict, expected, "{}, {kind}, {:?}", case.name, case.coordinate(word));
                let largest = seen.entry(kind).or_default();
                *largest = (*largest).max(leaf.shown_bytes());
                // The other way round: the challenger's trace is the false one.
                let (verdict, _) = dispute(&case, &case.trace, &other).expect("they differ");
                assert_eq!(verdict, Verdict::WorkerRight, "{}, {kind}", case.name);
            }
        }
    }
    assert_eq!(seen.len(), 42, "every kind of D-6: {seen:?}");
    for (kind, bytes) in seen {
        println!("{kind}: {bytes} bytes shown");
    }
}

/// A lie that everything after it goes by.
#[test]
fn consistent_lies_are_found_where_they_begin() {
    let rng = &mut Rng(3 + cases(0));
    let model = QWEN3.model(3);
    let case = Case::new("consistent", &model, &[5, 6, 7], 1, 2, full());
    for (kind, words) in words_of_each_kind(&case, rng, 1 + cases(0) as usize) {
        for word in words {
            let worker = case.corrupted(word, 1 << 22, true);
            let (verdict, _) = dispute(&case, &worker, &case.trace).expect("they differ");
            assert!(
                matches!(verdict, Verdict::WorkerLied { word: own, .. } if own == word),
                "{kind}: {verdict:?}"
            );
            let (verdict, _) = dispute(&case, &case.trace, &worker).expect("they differ");
            assert_eq!(verdict, Verdict::WorkerRight, "{kind}");
        }
    }
}

/// Whatever is made of a leaf, it is refused, or means what it meant.
#[test]
fn no_garbage_changes_a_verdict() {
    let rng = &mut Rng(9 + cases(0));
    let model = QWEN2.model(1);
    let case = Case::new("garbage", &model, &[5, 6, 7, 8], 2, 2, full());
    for (_, words) in words_of_each_kind(&case, rng, 1 + cases(0) as usize) {
        for word in words {
            let other = case.corrupted(word, 1 << rng.below(32), false);
            for (worker, challenger) in [(&other, &case.trace), (&case.trace, &other)] {
                let (game, bytes, word, _) = play(worker, challenger).expect("they differ");
                let good =
                    challenger.leaf(&case.rules, &case.strings, &game, &bytes, word).expect("all is there");
                let verdict = judge(&case.statement, &game, &good).expect("a whole leaf");
                let mut twice = good.clone();
                twice.shown.insert(0, good.shown[0].clone());
                assert_eq!(judge(&case.statement, &game, &twice), Err(LeafError::Order));
                assert!(twice.try_to_cbor().is_err(), "a string is opened once");
                for _ in 0..12 {
                    let leaf = mutated(rng, &good);
                    let cbor = leaf.try_to_cbor().ok();
                    cbor.into_iter()
                        .for_each(|cbor| assert_eq!(Leaf::from_cbor(&cbor).ok().as_ref(), Some(&leaf)));
                    match judge(&case.statement, &game, &leaf) {
                        Ok(other) if leaf.word == good.word => assert_eq!(other, verdict, "{leaf:?}"),
                        // Of another word the verdict is another, and the true side's again.
                        Ok(Verdict::WorkerLied { .. }) => {
                            assert_ne!(verdict, Verdict::WorkerRight, "an honest worker");
                        }
                        Ok(Verdict::WorkerRight) | Err(_) => {}
                    }
                }
            }
        }
    }
}

/// A leaf with one thing changed.
fn mutated(rng: &mut Rng, leaf: &Leaf) -> Leaf {
    let mut leaf = leaf.clone();
    let own = rng.below(leaf.shown.len() as u64) as usize;
    let count = leaf.shown.len() as u64;
    let shown = &mut leaf.shown[own];
    let run = rng.below(shown.opening.runs.len() as u64) as usize;
    let run = &mut shown.opening.runs[run];
    match rng.below(12) {
        0 => {
            let at = rng.below(run.bytes.len() as u64) as usize;
            run.bytes[at] ^= 1 << rng.below(8);
        }
        1 if !shown.opening.siblings.is_empty() => {
            let at = rng.below(shown.opening.siblings.len() as u64) as usize;
            shown.opening.siblings[at] ^= 1 << rng.below(8);
        }
        2 => run.first ^= 1 << rng.below(64),
        3 => run.bytes.truncate(rng.below(run.bytes.len() as u64) as usize),
        4 => shown.opening.siblings.truncate(rng.below(1 + shown.opening.siblings.len() as u64) as usize),
        5 => {
            let all =
                [Source::Trace, Source::Plan, Source::File, Source::Rotary, Source::Given, Source::Output];
            shown.source = all[rng.below(6) as usize];
        }
        6 => drop(leaf.shown.remove(own)),
        7 => {
            let other = leaf.shown[rng.below(count) as usize].clone();
            leaf.shown.push(other);
        }
        8 => leaf.shown.reverse(),
        9 => drop(shown.opening.runs.pop()),
        10 => leaf.word = leaf.word.wrapping_add(rng.below(9)).wrapping_sub(4),
        _ => leaf.word ^= 1 << rng.below(64),
    }
    leaf
}

/// Weights so great that nothing is finite: such an answer is never honest, and its trace says so, to the end (D-3.10).
#[test]
fn what_is_not_finite_has_a_trace_too() {
    let rng = &mut Rng(21 + cases(0));
    for (seed, sampling) in [(1, full()), (2, Sampling { temperature: 0.0, ..full() })] {
        let shape = Shape { formats: &[F32], ..QWEN3 };
        let mut model = shape.model(seed);
        let entry = *model.plan.tensor(Slot::Layer(0, LayerSlot::Weight(Matrix::Query))).expect("a matrix");
        for at in (entry.offset as usize..).step_by(4).take((entry.rows * entry.columns) as usize) {
            let bytes = &mut model.file[at..at + 4];
            let weight = f32::from_le_bytes(bytes.try_into().expect("four"));
            bytes.copy_from_slice(&(weight * 1e38).to_le_bytes());
        }
        let (given, output) = (vec![3, 9, 1_000_000], vec![4, 8]);
        let rules =
            Rules::new(model.plan.header().clone(), sampling, [1; 32], true, 3, 2, 2).expect("a trace");
        let (plan, spelling) = (model.plan.to_bytes(), model.spelling.to_bytes());
        let strings = Strings::new(plan, spelling, model.file, model.rotary, &given, &output).expect("short");
        let statement = Statement::of(rules.clone(), digests(&strings, "")).expect("short");
        let trace = Trace::build(&rules, &strings, THREADS, u64::MAX, &mut |_, _| ()).expect("a trace");
        let case = Case {
            name: "not finite".into(),
            rules,
            strings,
            statement,
            trace,
            output,
            state_digest: [0; 32],
        };
        assert_is_by_rules(&case, 1);
        let word = |word| case.trace.word(word).expect("within");
        let layout = case.rules.layout();
        assert_eq!(word(layout.sampled_at(1)), u32::MAX, "no token");
        assert_eq!(word(layout.word(&Coordinate::Embedding { position: 2, element: 5 })), 0x7fc0_0000);
        let nans = (0..layout.words()).filter(|at| word(*at) == 0x7fc0_0000).count();
        assert!(nans > 1000, "{nans}");
        let infinite = (0..layout.words()).filter(|at| f32::from_bits(word(*at)).is_infinite()).count();
        assert!(infinite > 0, "totals are not checked until they are turned");
        for words in words_of_each_kind(&case, rng, 2).into_values() {
            for word in words {
                let other = case.corrupted(word, 1, false);
                let (verdict, _) = dispute(&case, &other, &case.trace).expect("they differ");
                assert!(matches!(verdict, Verdict::WorkerLied { .. }), "{verdict:?}");
                let (verdict, _) = dispute(&case, &case.trace, &other).expect("they differ");
                assert_eq!(verdict, Verdict::WorkerRight);
            }
        }
    }
}

/// A model of random numbers, and its shape.
fn random_model(rng: &mut Rng) -> (Shape, TinyModel) {
    let all: &'static [TensorFormat] = &[Q4_K, Q6_K, Q8_0, Q4_0, F16, BF16, F32];
    let kv_heads = 1 + rng.below(2) as u32;
    let shape = Shape {
        architecture: ["llama", "qwen2", "qwen3"][rng.below(3) as usize],
        layers: 1 + rng.below(3) as u32,
        width: 32 * (1 + rng.below(9) as u32),
        heads: kv_heads * (1 + rng.below(3) as u32),
        kv_heads,
        head_dim: 32 * (1 + rng.below(2) as u32),
        feed_forward: 32 * (1 + rng.below(40) as u32),
        vocabulary: 8 + rng.below(1100) as u32,
        context: 64,
        biases: rng.below(2) == 0,
        head_norms: rng.below(2) == 0,
        tied: rng.below(2) == 0,
        formats: all,
    };
    let model = shape.model(rng.next());
    (shape, model)
}

/// A random model and answer, played to the end.
#[test]
fn random_answers_are_disputed_rightly() {
    for seed in 0..cases(2) {
        let rng = &mut Rng(1000 + seed);
        let (shape, model) = random_model(rng);
        let count = 1 + rng.below(12) as usize;
        let given = ids(rng, count, shape.vocabulary);
        let all = samplings();
        let (name, sampling) = all[rng.below(all.len() as u64) as usize].clone();
        let resumed = rng.below(count as u64 + 1) as usize;
        let outputs = 1 + rng.below(4) as usize;
        let case = Case::new(&format!("{name}, {shape:?}"), &model, &given, resumed, outputs, sampling);
        assert_is_reference(&case);
        assert_is_by_rules(&case, 251);
        for _ in 0..20 {
            let word = rng.below(case.rules.layout().words());
            let other = case.corrupted(word, 1 << rng.below(32), false);
            let (verdict, _) = dispute(&case, &other, &case.trace).expect("they differ");
            assert!(matches!(verdict, Verdict::WorkerLied { .. }), "seed {seed}: {verdict:?}");
            let (verdict, _) = dispute(&case, &case.trace, &other).expect("they differ");
            assert_eq!(verdict, Verdict::WorkerRight, "seed {seed}");
        }
    }
}

proptest! {
    /// Bytes from anyone are a leaf with one encoding, or none; and a judge takes any leaf.
    #[test]
    fn no_bytes_panic_a_judge(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        word in any::<u64>(),
        sources in prop::collection::vec(0u8..10, 0..4),
        first in any::<u64>(),
    ) {
        let _ = Leaf::from_cbor(&bytes);
        // A leaf's own frame about whatever bytes.
        let mut framed = vec![0xa2, 0x00, 0x1b];
        framed.extend(word.to_be_bytes());
        framed.extend([0x01, 0x80 + sources.len() as u8]);
        bytes.truncate(23);
        for source in sources {
            framed.extend([0xa2, 0x00, source, 0x01, 0xa2, 0x00, 0x81, 0xa2, 0x00, 0x1b]);
            framed.extend(first.to_be_bytes());
            for _ in ["the run's bytes", "the values beside it"] {
                framed.extend([0x01, 0x40 + bytes.len() as u8]);
                framed.extend(&bytes);
            }
        }
        if let Ok(leaf) = Leaf::from_cbor(&framed) {
            assert_eq!(leaf.to_cbor(), framed);
            let header = QWEN3.header();
            let rules = Rules::new(header, full(), [1; 32], false, 3, 2, 2).expect("a trace");
            let words = rules.layout().words();
            let none = surety_types::Digest::ZERO;
            let digests = Digests {
                plan: none, file: none, file_bytes: 1 << 20, rotary: none, given: none, output: none,
                text: none,
            };
            let statement = Statement::of(rules, digests).expect("short");
            let trace = Trace::of_bytes(vec![1; 4 * words as usize]).expect("short");
            let other = Trace::of_bytes(vec![2; 4 * words as usize]).expect("short");
            let (game, _, _, _) = play(&trace, &other).expect("they differ");
            assert!(judge(&statement, &game, &leaf).is_err());
            assert!(judge(&statement, &Game::new(words).expect("a trace"), &leaf).is_err());
        }
    }
}
