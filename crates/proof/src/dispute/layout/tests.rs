use proptest::prelude::*;

use super::*;
use crate::dispute::plan::SpellingEntry;

/// What a layout follows from.
#[derive(Clone, Debug)]
struct Shape {
    header: PlanHeader,
    sampling: Sampling,
    given: u32,
    resumed: u32,
    outputs: u32,
}

impl Shape {
    fn layout(&self) -> Result<Layout, LayoutError> {
        Layout::new(&self.header, &self.sampling, self.given, self.resumed, self.outputs)
    }
}

fn shape(sizes: [u32; 7], flags: [bool; 2], sampling: Sampling, ids: [u32; 3]) -> Shape {
    let [layers, width, heads, kv_heads, head_dim, feed_forward, vocabulary] = sizes;
    let header = PlanHeader {
        pairs: crate::dispute::plan::Pairs::Halves,
        layers,
        width,
        heads: heads * kv_heads,
        kv_heads,
        head_dim,
        feed_forward,
        vocabulary,
        context: u32::MAX,
        eps: 1e-5,
        q_norm: flags[0],
        k_norm: flags[1],
        end_tokens: Vec::new(),
        spelling: SpellingEntry::default(),
    };
    let [given, resumed, outputs] = ids;
    Shape { header, sampling, given, resumed: resumed.min(given), outputs }
}

fn any_sampling() -> impl Strategy<Value = Sampling> {
    let on = any::<bool>;
    (on(), (0u32..3000), on(), on(), on(), on(), on(), on()).prop_map(
        |(greedy, top_k, top_p, repetition, presence, frequency, bias, grammar)| Sampling {
            temperature: if greedy { 0.0 } else { 0.7 },
            top_k,
            top_p: if top_p { 0.9 } else { 1.0 },
            min_p: 0.1,
            repetition_penalty: if repetition { 1.1 } else { 1.0 },
            presence_penalty: if presence { 0.5 } else { 0.0 },
            frequency_penalty: if frequency { 0.5 } else { 0.0 },
            logit_bias: if bias { vec![(1, 1.0)] } else { Vec::new() },
            grammar: grammar.then_some(surety_types::Digest::ZERO),
        },
    )
}

/// Shapes as a test can go through word by word.
fn small() -> impl Strategy<Value = Shape> {
    let sizes = (1u32..3, 1u32..3, 1u32..3, 1u32..3, 1u32..4, 1u32..3, 1u32..700)
        .prop_map(|(l, w, h, g, d, f, v)| [l, 32 * w, h, g, 16 * d, 32 * f, v]);
    let wide = (1u32..3).prop_map(|w| [1, 1024 * w + 32, 1, 1, 32, 1056, 5]);
    let sizes = prop_oneof![4 => sizes, 1 => wide];
    (sizes, any::<[bool; 2]>(), any_sampling(), (1u32..9, 0u32..9, 1u32..4))
        .prop_map(|(sizes, flags, sampling, (n, r, s))| shape(sizes, flags, sampling, [n, r, s]))
}

/// Anything that a header can say.
fn any_shape() -> impl Strategy<Value = Shape> {
    let size = |most: u32| prop_oneof![1..=most.min(4), 1..=most.min(5000), 1..=most];
    // The bounds of the plan, and some way beyond.
    let sizes =
        (size(512), size(1 << 17), size(1 << 11), 1u32..3, size(1 << 10), size(1 << 20), size(1 << 23))
            .prop_map(<[u32; 7]>::from);
    let ids = (size(1 << 21), size(1 << 21), size(1 << 21));
    (sizes, any::<[bool; 2]>(), any_sampling(), ids)
        .prop_map(|(sizes, flags, sampling, (n, r, s))| shape(sizes, flags, sampling, [n, r, s]))
}

/// D-3 written down once more, as loops.
fn in_order(shape: &Shape) -> Vec<Coordinate> {
    let mut all = Vec::new();
    let PlanHeader { layers, width, heads, kv_heads, head_dim, feed_forward, vocabulary, .. } = shape.header;
    let [layers, width, heads, kv_heads, head_dim, feed_forward, vocabulary] =
        [layers, width, heads, kv_heads, head_dim, feed_forward, vocabulary].map(u64::from);
    let [given, resumed, outputs] = [shape.given, shape.resumed, shape.outputs].map(u64::from);
    let positions = given + outputs - 1;
    let lanes = |all: &mut Vec<Coordinate>, norm, length: u64| {
        all.extend((0..length.div_ceil(1024)).map(|part| Coordinate::NormLanes { norm, part }));
        all.push(Coordinate::NormInverse { norm });
    };
    let norm = |all: &mut Vec<Coordinate>, norm, length: u64| {
        lanes(all, norm, length);
        all.extend((0..length).map(|element| Coordinate::NormValue { norm, element }));
    };
    let product = |all: &mut Vec<Coordinate>, product, outputs: u64, inputs: u64| {
        for output in 0..outputs {
            let parts = 0..inputs.div_ceil(1024);
            all.extend(parts.map(|part| Coordinate::Segment { product, output, part }));
        }
        all.extend((0..outputs).map(|output| Coordinate::Total { product, output }));
    };
    all.extend((0..given - resumed).map(|index| Coordinate::Spelled { index }));
    all.extend((0..resumed + outputs).map(|token| Coordinate::Text { token }));
    for token in 0..if shape.sampling.grammar.is_some() { resumed + outputs } else { 0 } {
        all.extend((0..STANDING_WORDS).map(|word| Coordinate::Standing { token, word }));
    }
    for position in 0..positions {
        all.extend((0..width).map(|element| Coordinate::Embedding { position, element }));
    }
    for layer in 0..layers {
        for position in 0..positions {
            norm(&mut all, Norm::Attention { layer, position }, width);
            product(&mut all, Product::Query { layer, position }, heads * head_dim, width);
            product(&mut all, Product::Key { layer, position }, kv_heads * head_dim, width);
            product(&mut all, Product::Value { layer, position }, kv_heads * head_dim, width);
            for head in 0..if shape.header.q_norm { heads } else { 0 } {
                norm(&mut all, Norm::Query { layer, position, head }, head_dim);
            }
            for head in 0..if shape.header.k_norm { kv_heads } else { 0 } {
                norm(&mut all, Norm::Key { layer, position, head }, head_dim);
            }
            for head in 0..heads {
                let elements = 0..head_dim;
                all.extend(elements.map(|element| Coordinate::Query { layer, position, head, element }));
            }
            for head in 0..kv_heads {
                let elements = 0..head_dim;
                all.extend(elements.map(|element| Coordinate::Key { layer, position, head, element }));
            }
        }
        for (head, element) in
            (0..kv_heads).flat_map(|head| (0..head_dim).map(move |element| (head, element)))
        {
            all.extend((0..positions).map(|position| Coordinate::Value { layer, head, element, position }));
        }
        for position in 0..positions {
            let (seen, spans) = (position + 1, (position + 1).div_ceil(512));
            for head in (0..heads).map(|head| Head { layer, position, head }) {
                all.extend((0..seen).map(|seen| Coordinate::Score { head, seen }));
                all.extend((0..spans).map(|span| Coordinate::GreatestScore { head, span }));
                all.push(Coordinate::ScoreBound { head });
                all.extend((0..seen).map(|seen| Coordinate::Weight { head, seen }));
                all.extend((0..spans).map(|span| Coordinate::Normaliser { head, span }));
                all.push(Coordinate::Reciprocal { head });
                for element in 0..head_dim {
                    all.extend((0..spans).map(|span| Coordinate::ValueSum { head, element, span }));
                }
            }
            for head in (0..heads).map(|head| Head { layer, position, head }) {
                all.extend((0..head_dim).map(|element| Coordinate::HeadOutput { head, element }));
            }
            product(&mut all, Product::AttentionOutput { layer, position }, width, heads * head_dim);
            let elements = 0..width;
            all.extend(elements.map(|element| Coordinate::AttentionResidual { layer, position, element }));
            norm(&mut all, Norm::FeedForward { layer, position }, width);
            product(&mut all, Product::Gate { layer, position }, feed_forward, width);
            product(&mut all, Product::Up { layer, position }, feed_forward, width);
            all.extend((0..feed_forward).map(|element| Coordinate::Gated { layer, position, element }));
            product(&mut all, Product::Down { layer, position }, width, feed_forward);
            all.extend((0..width).map(|element| Coordinate::LayerResidual { layer, position, element }));
        }
    }
    for output in 0..outputs {
        lanes(&mut all, Norm::Output { output }, width);
    }
    for norm in (0..outputs).map(|output| Norm::Output { output }) {
        all.extend((0..width).map(|element| Coordinate::NormValue { norm, element }));
    }
    let (mut level, mut nodes) = (0, (4 * outputs * width).div_ceil(1024));
    loop {
        all.extend((0..nodes).map(|index| Coordinate::StateNode { level, index }));
        if nodes == 1 {
            break;
        }
        (level, nodes) = (level + 1, nodes.div_ceil(2));
    }
    let sampling = &shape.sampling;
    let penalty = sampling.repetition_penalty != 1.0
        || sampling.presence_penalty != 0.0
        || sampling.frequency_penalty != 0.0;
    for row in 0..if sampling.repetition_penalty != 1.0 { given.div_ceil(256) } else { 0 } {
        all.extend((0..vocabulary).map(|token| Coordinate::Presence { row, token }));
    }
    for row in 0..if penalty { resumed.div_ceil(256) } else { 0 } {
        all.extend((0..vocabulary).map(|token| Coordinate::Repeats { row, token }));
    }
    let tiles = vocabulary.div_ceil(512);
    for output in 0..outputs {
        product(&mut all, Product::Logits { output }, vocabulary, width);
        if penalty {
            all.extend((0..vocabulary).map(|token| Coordinate::Count { output, token }));
        }
        if sampling.grammar.is_some() {
            all.extend((0..vocabulary).map(|token| Coordinate::Excluded { output, token }));
        }
        if penalty || sampling.grammar.is_some() || !sampling.logit_bias.is_empty() {
            all.extend((0..vocabulary).map(|token| Coordinate::Adjusted { output, token }));
        }
        let select = |all: &mut Vec<Coordinate>, by| {
            for round in 0..16 {
                for tile in 0..tiles {
                    let digits = 0..16;
                    all.extend(digits.map(|digit| Coordinate::SelectionSum {
                        output,
                        by,
                        round,
                        tile,
                        digit,
                    }));
                }
                all.push(Coordinate::Choice { output, by, round });
            }
        };
        if sampling.temperature == 0.0 {
            all.extend((0..tiles).map(|tile| Coordinate::Best { output, tile }));
        } else {
            all.extend((0..tiles).map(|tile| Coordinate::GreatestLogit { output, tile }));
            all.extend((0..vocabulary).map(|token| Coordinate::SamplingWeight { output, token }));
            if (1..vocabulary).contains(&u64::from(sampling.top_k)) {
                select(&mut all, By::Count);
            }
            all.extend((0..vocabulary).map(|token| Coordinate::Candidate { output, token }));
            all.extend((0..tiles).map(|tile| Coordinate::CandidateSum { output, tile }));
            if sampling.top_p < 1.0 {
                select(&mut all, By::Weight);
                all.extend((0..vocabulary).map(|token| Coordinate::Kept { output, token }));
                all.extend((0..tiles).map(|tile| Coordinate::KeptSum { output, tile }));
            }
        }
        all.push(Coordinate::Sampled { output });
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_words_are_those_of_the_page_in_its_order(shape in small()) {
        let layout = shape.layout().expect("short enough");
        let mut word = 0;
        for coordinate in in_order(&shape) {
            prop_assert_eq!(layout.word(&coordinate), word, "{:?}", coordinate);
            for part in 0..coordinate.words() {
                prop_assert_eq!(layout.coordinate(word + part), Some((coordinate, part)));
            }
            word += coordinate.words();
        }
        prop_assert_eq!(layout.words(), word);
        prop_assert_eq!(layout.coordinate(word), None);
        prop_assert_eq!(layout.coordinate(layout.sampled_at(u64::from(shape.outputs) - 1) + 1), None);
        let digest = layout.coordinate(layout.state_digest_at());
        let is_last = matches!(digest, Some((Coordinate::StateNode { index: 0, .. }, 0)));
        prop_assert!(is_last, "{:?}", digest);
    }
}

proptest! {
    #[test]
    fn places_and_coordinates_are_inverse_in_traces_of_any_length(
        shape in any_shape(),
        words in proptest::collection::vec(any::<u64>(), 20),
    ) {
        let Ok(layout) = shape.layout() else { return Ok(()) };
        prop_assert!(layout.words() <= TRACE_WORDS_MAX);
        for word in words.into_iter().map(|word| word % layout.words()) {
            let (coordinate, part) = layout.coordinate(word).expect("within the trace");
            prop_assert!(part < coordinate.words());
            prop_assert_eq!(layout.word(&coordinate) + part, word, "{:?}", coordinate);
        }
    }
}

/// Real models and long answers, at both ends of every section.
#[test]
fn long_traces_have_their_places() {
    let sampling = Sampling { top_k: 40, top_p: 0.9, repetition_penalty: 1.1, ..Sampling::default() };
    let large = [80, 8192, 8, 8, 128, 28_672, 128_256];
    for (ids, sizes) in
        [([2_000, 10, 100], large), ([40_000, 40_000, 900], [28, 1024, 2, 8, 128, 3072, 151_936])]
    {
        let shape = shape(sizes, [true, true], sampling.clone(), ids);
        let layout = shape.layout().expect("less than 2^41 words");
        assert!(layout.words() > 1 << 33, "{}", layout.words());
        let mut word = 0;
        let mut kinds = std::collections::BTreeSet::new();
        while word < layout.words() {
            let (coordinate, part) = layout.coordinate(word).expect("within the trace");
            assert_eq!(layout.word(&coordinate) + part, word);
            kinds.insert(coordinate.kind());
            word += layout.words() / 30_011;
        }
        assert!(kinds.len() > 20, "{kinds:?}");
    }
}

#[test]
fn answers_without_a_trace_are_refused() {
    let good = shape([1, 32, 1, 1, 32, 32, 40], [false; 2], Sampling::default(), [3, 2, 1]);
    assert!(good.layout().is_ok());
    for (given, resumed, outputs) in [(0, 0, 1), (3, 0, 0), (3, 4, 1)] {
        let layout = Layout::new(&good.header, &good.sampling, given, resumed, outputs);
        assert_eq!(layout.err(), Some(LayoutError::Counts { given, resumed, outputs }));
    }
    let header = PlanHeader { context: 4, ..good.header.clone() };
    let layout = |outputs| Layout::new(&header, &good.sampling, 3, 0, outputs);
    assert!(layout(2).is_ok());
    assert_eq!(layout(3).err(), Some(LayoutError::Context { positions: 5, context: 4 }));
    let header = PlanHeader { vocabulary: VOCABULARY_MAX + 1, ..good.header.clone() };
    let many = Layout::new(&header, &good.sampling, 3, 0, 1);
    assert_eq!(many.err(), Some(LayoutError::Vocabulary(VOCABULARY_MAX + 1)));
    let sizes = [u32::MAX, u32::MAX, 1 << 16, 1 << 15, u32::MAX, u32::MAX, VOCABULARY_MAX];
    let huge = shape(sizes, [true; 2], good.sampling, [3, 0, 1]);
    let header = PlanHeader { context: u32::MAX, ..huge.header };
    let huge = Layout::new(&header, &huge.sampling, 1 << 31, 0, 1 << 30);
    assert_eq!(huge.err(), Some(LayoutError::TooLong));
}
