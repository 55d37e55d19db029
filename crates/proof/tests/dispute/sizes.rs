//! How much a judge reads, for models of real shapes; and that it reads without a panic whatever there is.

use std::collections::BTreeMap;

use surety_proof::dispute::judge::{Digests, SHOWN_BYTES_MAX, Statement};
use surety_proof::dispute::layout::{By, Coordinate, Head, Layout, Norm, Product};
use surety_proof::dispute::plan::{Pairs, Plan, PlanHeader, TensorEntry, TensorFormat};
use surety_proof::dispute::rules::{Inputs, RuleError, Rules, Source};
use surety_proof::dispute::size::{Numbers, leaf_bytes_max};
use surety_proof::dispute::trace::leaf_bytes;
use surety_types::{Digest, Sampling};

use crate::model::Rng;

/// As long as a file can be.
const FILE_BYTES: u64 = 1 << 40;

/// A plan, and anything for the rest.
struct Anything<'a> {
    plan: &'a [u8],
    /// A byte that everything else is, or whatever comes.
    byte: Option<u8>,
    rng: Rng,
}

impl Inputs for Anything<'_> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        match source {
            Source::Plan => out.copy_from_slice(&self.plan[at as usize..][..out.len()]),
            Source::Given | Source::Output if self.byte.is_some() => out.fill(0),
            _ => out.iter_mut().for_each(|byte| *byte = self.byte.unwrap_or_else(|| self.rng.next() as u8)),
        }
        Ok(())
    }
}

fn header(sizes: [u32; 8], norms: bool) -> PlanHeader {
    let [layers, width, heads, kv_heads, head_dim, feed_forward, vocabulary, context] = sizes;
    PlanHeader {
        pairs: Pairs::Halves,
        layers,
        width,
        heads,
        kv_heads,
        head_dim,
        feed_forward,
        vocabulary,
        context,
        eps: 1e-6,
        q_norm: norms,
        k_norm: norms,
        end_tokens: vec![2],
    }
}

/// A plan whose tensors lie anywhere, all as long as can be.
fn plan(header: PlanHeader, format: TensorFormat) -> Plan {
    let shapes = header.clone();
    Plan::new(header, |slot| {
        let (rows, columns) = slot.shape(&shapes);
        let format = if slot.is_matrix() { format } else { TensorFormat::F32 };
        let entry = TensorEntry { format, columns, rows, offset: 80_000_032 * slot.index() as u64 };
        let norm = format!("{slot:?}").contains("QueryNorm") || format!("{slot:?}").contains("KeyNorm");
        (!norm || shapes.q_norm).then_some(entry)
    })
    .expect("within the bounds")
}

fn sampling() -> Sampling {
    Sampling {
        temperature: 0.7,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.05,
        repetition_penalty: 1.1,
        presence_penalty: 0.5,
        frequency_penalty: 0.5,
        logit_bias: vec![(1, 1.0)],
    }
}

/// One coordinate of each kind that a layout of these numbers has, anywhere.
fn anywhere(
    rng: &mut Rng,
    layout: &Layout,
    header: &PlanHeader,
    ids: [u64; 3],
    greedy: bool,
) -> Vec<Coordinate> {
    let below = &mut |n: u64| rng.below(n.max(1));
    let [given, resumed, outputs] = ids;
    let (layer, position) = (below(header.layers.into()), below(given + outputs - 1));
    let head = Head { layer, position, head: below(header.heads.into()) };
    let kv_head = below(header.kv_heads.into());
    let (element, seen) = (below(header.head_dim.into()), below(position + 1));
    let (span, wide) = (seen / 512, below(header.width.into()));
    let (output, token) = (below(outputs), below(header.vocabulary.into()));
    let (tile, digit, round) = (token / 512, below(16), below(16));
    let unit = below(header.feed_forward.into());
    let attended = u64::from(header.heads * header.head_dim);
    let mut all = vec![
        Coordinate::Embedding { position, element: wide },
        Coordinate::NormLanes { norm: Norm::Attention { layer, position }, part: wide / 1024 },
        Coordinate::NormLanes { norm: Norm::FeedForward { layer, position }, part: wide / 1024 },
        Coordinate::NormLanes { norm: Norm::Output { output }, part: wide / 1024 },
        Coordinate::NormInverse { norm: Norm::Attention { layer, position } },
        Coordinate::NormValue { norm: Norm::FeedForward { layer, position }, element: wide },
        Coordinate::NormValue { norm: Norm::Output { output }, element: wide },
        Coordinate::Segment { product: Product::Down { layer, position }, output: wide, part: unit / 1024 },
        Coordinate::Segment { product: Product::Gate { layer, position }, output: unit, part: wide / 1024 },
        Coordinate::Segment { product: Product::Logits { output }, output: token, part: wide / 1024 },
        Coordinate::Segment {
            product: Product::AttentionOutput { layer, position },
            output: wide,
            part: below(attended) / 1024,
        },
        Coordinate::Total { product: Product::Down { layer, position }, output: wide },
        Coordinate::Total { product: Product::Logits { output }, output: token },
        Coordinate::Query { layer, position, head: head.head, element },
        Coordinate::Key { layer, position, head: kv_head, element },
        Coordinate::Value { layer, head: kv_head, element, position },
        Coordinate::Score { head, seen },
        Coordinate::GreatestScore { head, span },
        Coordinate::ScoreBound { head },
        Coordinate::Weight { head, seen },
        Coordinate::Normaliser { head, span },
        Coordinate::Reciprocal { head },
        Coordinate::ValueSum { head, element, span },
        Coordinate::HeadOutput { head, element },
        Coordinate::AttentionResidual { layer, position, element: wide },
        Coordinate::Gated { layer, position, element: unit },
        Coordinate::LayerResidual { layer, position, element: wide },
        Coordinate::StateNode { level: 0, index: below((outputs * u64::from(header.width)).div_ceil(256)) },
    ];
    if let Some((node @ Coordinate::StateNode { .. }, _)) = layout.coordinate(layout.state_digest_at()) {
        all.push(node);
    }
    if header.q_norm {
        let norm = Norm::Query { layer, position, head: head.head };
        all.extend([Coordinate::NormLanes { norm, part: 0 }, Coordinate::NormValue { norm, element }]);
    }
    all.extend([
        Coordinate::Presence { row: below(given) / 256, token },
        Coordinate::Count { output, token },
        Coordinate::Adjusted { output, token },
        Coordinate::Sampled { output },
    ]);
    if resumed > 0 {
        all.push(Coordinate::Repeats { row: below(resumed) / 256, token });
    }
    if greedy {
        all.push(Coordinate::Best { output, tile });
        return all;
    }
    all.extend([
        Coordinate::GreatestLogit { output, tile },
        Coordinate::SamplingWeight { output, token },
        Coordinate::Candidate { output, token },
        Coordinate::CandidateSum { output, tile },
        Coordinate::Kept { output, token },
        Coordinate::KeptSum { output, tile },
    ]);
    for by in [By::Count, By::Weight] {
        all.push(Coordinate::SelectionSum { output, by, round, tile, digit });
        all.push(Coordinate::Choice { output, by, round });
    }
    all
}

fn statement(header: &PlanHeader, sampling: Sampling, ids: [u64; 3]) -> Statement {
    let [given, resumed, outputs] = ids.map(|count| count as u32);
    let rules = Rules::new(header.clone(), sampling, [7; 32], given, resumed, outputs).expect("a trace");
    let none = Digest::ZERO;
    let digests =
        Digests { plan: none, file: none, file_bytes: FILE_BYTES, rotary: none, given: none, output: none };
    Statement::of(rules, digests).expect("short")
}

/// D-5.8: the judge reads no more, of whatever word of whatever model, in use or as great as can be, in the least compact
/// format; and of no word more than the model's numbers say.
#[test]
fn leaves_of_real_models_are_within_what_a_judge_reads() {
    let models = [
        ("qwen3-0.6b", header([28, 1024, 16, 8, 128, 3072, 151_936, 40_960], true), [4000, 300, 1000]),
        ("llama-3.2-1b", header([16, 2048, 32, 8, 64, 8192, 128_256, 131_072], false), [20_000, 0, 500]),
        ("llama-3-70b", header([80, 8192, 64, 8, 128, 28_672, 128_256, 131_072], false), [8_000, 10, 1_000]),
        (
            "gemma's vocabulary",
            header([48, 3840, 16, 8, 256, 15_360, 262_144, 131_072], true),
            [9_000, 0, 900],
        ),
        ("llama-3-405b", header([126, 16_384, 128, 8, 128, 53_248, 128_256, 131_072], false), [900, 0, 90]),
        // As great as a model that is disputed can be, but for the layers: with more of them the trace is too long.
        (
            "the greatest",
            header([192, 65_536, 1024, 1024, 256, 524_288, 1 << 19, 1 << 20], true),
            [40, 20, 9],
        ),
        // Many tokens and outputs: of a long trace the most is sampling, and what it reads lies far apart.
        ("the most tokens", header([1, 32, 1, 1, 32, 32, 1 << 19, 1 << 20], false), [3, 0, 30_000]),
        (
            "tokens beside tiles",
            header([2, 96, 1, 1, 32, 64, (1 << 19) - 127, 9_000], true),
            [700, 300, 4_000],
        ),
        ("the most layers", header([448, 1056, 3, 1, 96, 1312, 65_537, 4_000], true), [1_000, 7, 400]),
    ];
    let rng = &mut Rng(3);
    for (name, header, ids) in models {
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
            let statement = statement(&header, Sampling { temperature, ..sampling() }, ids);
            for _ in 0..crate::cases(60) {
                for coordinate in anywhere(rng, statement.layout(), &header, ids, greedy) {
                    let word = statement.layout().word(&coordinate) + rng.below(coordinate.words());
                    let mut inputs = Anything { plan: &plan, byte: Some(1), rng: Rng(0) };
                    let bytes = leaf_bytes(&statement, &mut inputs, word).expect("all is there");
                    assert!(bytes <= bound, "{name}, {coordinate:?}: {bytes}, not {bound}");
                    let own = largest.entry(coordinate.kind()).or_default();
                    *own = bytes.max(*own);
                }
            }
            println!("{name}: {:.1} G words", statement.layout().words() as f64 / 1e9);
        }
        assert!(largest.len() >= 36, "{largest:?}");
        let mut worst: Vec<_> = largest.into_iter().collect();
        worst.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        println!("{name}, at most {bound}: {worst:?}");
        assert!(bound <= SHOWN_BYTES_MAX as u64, "{name}: {bound}");
    }
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
        let sampling = Sampling { temperature: if greedy { 0.0 } else { f32::from_bits(1) }, ..sampling() };
        let plan = plan(header.clone(), format).to_bytes();
        let statement = statement(&header, sampling, ids);
        for coordinate in anywhere(rng, statement.layout(), &header, ids, greedy) {
            for byte in [None, Some(0), Some(0xff), Some(0x7f)] {
                let mut inputs = Anything { plan: &plan, byte, rng: Rng(rng.next()) };
                let words = statement.rules().compute(&coordinate, &mut inputs).expect("all is there");
                let again = statement.rules().compute(&coordinate, &mut inputs);
                assert!(byte.is_none() || again == Ok(words), "{coordinate:?}");
            }
        }
    }
}
