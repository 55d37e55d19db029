//! How much a judge reads, for models of real shapes; and that it reads without a panic whatever there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use surety_grammar::{Grammar, json_object};
use surety_proof::dispute::judge::{SHOWN_BYTES_MAX, Verdict};
use surety_proof::dispute::plan::TensorFormat;
use surety_proof::dispute::rules::{Inputs, RuleError, Source};
use surety_proof::dispute::size::{Numbers, leaf_bytes_max};
use surety_proof::dispute::trace::leaf_bytes;
use surety_types::Canonical;
use surety_types::spelling::PIECE_BYTES_MAX;

use crate::real::{Answer, FILE_BYTES, Model, anywhere, header, models, plan};
use crate::rng::Rng;
use crate::sparse::{Filler, play};

/// A plan, and anything for the rest.
struct Anything<'a> {
    plan: &'a [u8],
    /// Ids that spell something.
    vocabulary: u64,
    /// A byte that everything else is, or whatever comes.
    byte: Option<u8>,
    rng: Rng,
}

impl Inputs for Anything<'_> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        match source {
            // Every id spells as much as can be.
            Source::Spelling if at < 4 * self.vocabulary => {
                let words = out.as_chunks_mut().0.iter_mut().zip(at as u32 / 4..);
                words.for_each(|(word, id)| *word = ((id + 1) * PIECE_BYTES_MAX as u32).to_le_bytes());
            }
            Source::Plan => out.copy_from_slice(&self.plan[at as usize..][..out.len()]),
            Source::Given | Source::Output if self.byte.is_some() => out.fill(0),
            _ => out.iter_mut().for_each(|byte| *byte = self.byte.unwrap_or_else(|| self.rng.next() as u8)),
        }
        Ok(())
    }

    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        Ok(Arc::new(Grammar::compile_or_nothing(&json_object())))
    }
}

/// Models that nobody has, for what is largest of their leaves.
fn extremes() -> Vec<Model> {
    vec![
        // Many tokens and outputs: of a long trace the most is sampling, and what it reads lies far apart.
        ("the most tokens", header([1, 32, 1, 1, 32, 32, 1 << 19, 1 << 20], false), [3, 0, 30_000]),
        (
            "tokens beside tiles",
            header([2, 96, 1, 1, 32, 64, (1 << 19) - 127, 9_000], true),
            [700, 300, 4_000],
        ),
        ("the most layers", header([448, 1056, 3, 1, 96, 1312, 65_537, 4_000], true), [1_000, 7, 400]),
    ]
}

/// D-5.8: the judge reads no more, of whatever word of whatever model, in use or as great as can be, in the least compact
/// format; and of no word more than the model's numbers say.
#[test]
fn leaves_of_real_models_are_within_what_a_judge_reads() {
    let rng = &mut Rng(3);
    for (name, header, ids) in models().into_iter().chain(extremes()) {
        let plan = plan(header.clone(), TensorFormat::F32).to_bytes();
        let bound = leaf_bytes_max(&Numbers {
            layers: header.layers,
            width: header.width,
            heads: header.heads,
            head_dim: header.head_dim,
            feed_forward: header.feed_forward,
            vocabulary: header.vocabulary,
            context: header.context,
            file_bytes: FILE_BYTES,
            formats: vec![TensorFormat::F32],
        });
        let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
        for greedy in [false, true] {
            let temperature = if greedy { 0.0 } else { 0.7 };
            let answer = Answer::new(&header, temperature, ids);
            let statement = answer.statement();
            for _ in 0..crate::cases(60) {
                for coordinate in anywhere(rng, statement.layout(), &header, ids, greedy) {
                    let word = statement.layout().word(&coordinate) + rng.below(coordinate.words());
                    let mut inputs = Anything {
                        plan: &plan,
                        vocabulary: header.vocabulary.into(),
                        byte: Some(1),
                        rng: Rng(0),
                    };
                    let bytes = leaf_bytes(&statement, &mut inputs, word).expect("all is there");
                    assert!(bytes <= bound, "{name}, {coordinate:?}: {bytes}, not {bound}");
                    let own = largest.entry(coordinate.kind()).or_default();
                    *own = bytes.max(*own);
                }
            }
            println!("{name}: {:.1} G words", statement.layout().words() as f64 / 1e9);
        }
        assert!(largest.len() >= 40, "{largest:?}");
        let mut worst: Vec<_> = largest.into_iter().collect();
        worst.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        println!("{name}, at most {bound}: {worst:?}");
        assert!(bound <= SHOWN_BYTES_MAX as u64, "{name}: {bound}");
    }
}

/// Words of traces that are too long to be made are judged like any others, after at most nine messages (D-5.7).
#[test]
fn leaves_of_real_models_are_judged_rightly() {
    let rng = &mut Rng(5 + crate::cases(0));
    let mut most = 0;
    for (name, header, ids) in models() {
        for (greedy, format, filler) in
            [(false, TensorFormat::F32, Filler::Floats), (true, TensorFormat::Q4_K, Filler::Subnormals)]
        {
            let plan = plan(header.clone(), format).to_bytes();
            let temperature = if greedy { 0.0 } else { 0.7 };
            let answer = Answer::new(&header, temperature, ids);
            let statement = answer.statement();
            for coordinate in anywhere(rng, statement.layout(), &header, ids, greedy) {
                let part = rng.below(coordinate.words());
                for change in [0, 1 << rng.below(32)] {
                    let last = play(&answer, &plan, &coordinate, part, change, filler, rng.next());
                    assert!(last.leaf.shown_bytes() <= SHOWN_BYTES_MAX, "{name}, {coordinate:?}");
                    match last.judged(&last.leaf.to_cbor(), &last.game.to_bytes()).expect("all is shown") {
                        Verdict::WorkerRight => assert_eq!(change, 0, "{name}, {coordinate:?}"),
                        Verdict::WorkerLied { claimed, computed, .. } => {
                            assert_eq!(claimed ^ computed, change, "{name}, {coordinate:?}");
                            assert_ne!(change, 0, "{name}, {coordinate:?}");
                        }
                    }
                    most = most.max(last.messages);
                }
            }
        }
    }
    assert_eq!(most, 9, "the longest traces take all of them");
}

/// Whatever is agreed, and wherever: rules give words, and no panic.
#[test]
fn rules_take_whatever_they_read() {
    let rng = &mut Rng(17 + crate::cases(0));
    for round in 0..crate::cases(40) {
        let header = header([2, 1056, 4, 2, 64, 1312, 700, 2_000], round % 2 == 0);
        let ids = [600 + rng.below(900), 300, 1 + rng.below(400)];
        let format = TensorFormat::ALL[rng.below(4) as usize];
        let greedy = round % 3 == 0;
        let temperature = if greedy { 0.0 } else { f32::from_bits(1) };
        let plan = plan(header.clone(), format).to_bytes();
        let statement = Answer::new(&header, temperature, ids).statement();
        for coordinate in anywhere(rng, statement.layout(), &header, ids, greedy) {
            for byte in [None, Some(0), Some(0xff), Some(0x7f)] {
                let vocabulary = header.vocabulary.into();
                let mut inputs = Anything { plan: &plan, vocabulary, byte, rng: Rng(rng.next()) };
                let words = statement.rules().compute(&coordinate, &mut inputs).expect("all is there");
                let again = statement.rules().compute(&coordinate, &mut inputs);
                assert!(byte.is_none() || again == Ok(words), "{coordinate:?}");
            }
        }
    }
}
