//! Models as they are in use, by their numbers: layouts, plans and statements without a file.

use surety_grammar::json_object;
use surety_proof::dispute::judge::{Digests, Statement};
use surety_proof::dispute::layout::{By, Coordinate, Head, Layout, Norm, Product};
use surety_proof::dispute::plan::{Pairs, Plan, PlanHeader, SpellingEntry, TensorEntry, TensorFormat};
use surety_proof::dispute::rules::Rules;
use surety_types::{Digest, Request, Sampling, spelling::PIECE_BYTES_MAX};

use crate::rng::Rng;

/// As long as a file can be.
pub const FILE_BYTES: u64 = 1 << 40;

/// A model, by its numbers; and of an answer of it how many ids are given, resumed from, and put out.
pub type Model = (&'static str, PlanHeader, [u64; 3]);

/// Models in use, and the greatest there can be: of each format their rows are whole blocks.
pub fn models() -> Vec<Model> {
    vec![
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
    ]
}

pub fn header(sizes: [u32; 8], norms: bool) -> PlanHeader {
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
        spelling: SpellingEntry {
            pieces_bytes: vocabulary * PIECE_BYTES_MAX as u32,
            ..SpellingEntry::default()
        },
    }
}

/// A plan whose tensors lie anywhere, all as long as can be.
pub fn plan(header: PlanHeader, format: TensorFormat) -> Plan {
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

pub fn sampling() -> Sampling {
    Sampling {
        temperature: 0.7,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.05,
        repetition_penalty: 1.1,
        presence_penalty: 0.5,
        frequency_penalty: 0.5,
        logit_bias: vec![(1, 1.0)],
        grammar: Some(Request::grammar_digest(&json_object())),
    }
}

/// One coordinate of each kind that a layout of these numbers has, anywhere.
pub fn anywhere(
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
        Coordinate::Spelled { index: below(given - resumed) },
        Coordinate::Text { token: below(resumed + outputs) },
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
        Coordinate::Standing { token: below(resumed + outputs), word: below(128) },
        Coordinate::Excluded { output, token },
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

/// An answer of a model: how it is sampled; how many ids are given, resumed from, and put out.
pub struct Answer {
    pub header: PlanHeader,
    pub sampling: Sampling,
    pub ids: [u64; 3],
}

impl Answer {
    pub fn new(header: &PlanHeader, temperature: f32, ids: [u64; 3]) -> Answer {
        Answer { header: header.clone(), sampling: Sampling { temperature, ..sampling() }, ids }
    }

    pub fn rules(&self) -> Rules {
        let [given, resumed, outputs] = self.ids.map(|count| count as u32);
        let sampling = self.sampling.clone();
        Rules::new(self.header.clone(), sampling, [7; 32], false, given, resumed, outputs).expect("a trace")
    }

    /// With strings of which nothing is there.
    pub fn statement(&self) -> Statement {
        let none = Digest::ZERO;
        let digests = Digests {
            plan: none,
            file: none,
            file_bytes: FILE_BYTES,
            rotary: none,
            given: none,
            output: none,
            text: none,
        };
        Statement::of(self.rules(), digests).expect("short")
    }
}
