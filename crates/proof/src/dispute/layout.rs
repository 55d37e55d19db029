//! Where every word of a trace is (D-3), in closed form.
//!
//! In:     a plan's header, the order's sampling parameters, how many ids were given, resumed from and put out.
//! Out:    how many words the trace has; which word holds what, and what a word holds.
//! Touches: nothing.
//! Holds:  [`Layout::coordinate`] and [`Layout::word`] are each other's inverse; both take the same few dozen steps for
//!         traces of any length, and keep no table per position. No header within its bounds overflows anything.
//! Absent: what the words are (`rules`).

use super::game::TRACE_WORDS_MAX;
use super::plan::PlanHeader;
use surety_types::Sampling;

/// Elements of a segment of a product, and of a part of a norm (D-3.2).
pub const PART: u64 = 1024;
/// Positions of a segment of attention (D-3.2).
pub const SPAN: u64 = 512;
/// Tokens of a tile (D-3.9).
pub const TILE: u64 = 512;
/// Ids that one row of presence or repeats adds (D-3.8).
pub const IDS: u64 = 256;
/// Tokens of a model that is disputed, at most (D-3.11).
pub const VOCABULARY_MAX: u32 = 1 << 19;
/// Lanes of a norm.
pub const LANES: u64 = 16;
/// Rounds of a selection (D-3.9).
pub const ROUNDS: u64 = 16;
/// What a digit of a rank can be (D-3.9).
pub const DIGITS: u64 = 16;
/// Words of a chunk of the states (D-3.7).
pub const CHUNK_WORDS: u64 = 256;
/// Words of where a text stands.
const TEXT_WORDS: u64 = 2;
/// Words of where an answer stands in its grammar.
pub(super) const STANDING_WORDS: u64 = surety_grammar::STATE_WORDS as u64;
/// Words of a node's value.
const NODE_WORDS: u64 = 8;

/// Which norm (D-3.4, D-3.6, D-3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "fields are places, counted from 0")]
pub enum Norm {
    /// Before a layer's attention.
    Attention { layer: u64, position: u64 },
    /// Of a head's query.
    Query { layer: u64, position: u64, head: u64 },
    /// Of a head's key.
    Key { layer: u64, position: u64, head: u64 },
    /// Before a layer's gated unit.
    FeedForward { layer: u64, position: u64 },
    /// Before the output matrix, of the position that gives this output.
    Output { output: u64 },
}

/// Which matrix product (D-3.4, D-3.6, D-3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "fields are places, counted from 0")]
pub enum Product {
    /// With the q matrix.
    Query { layer: u64, position: u64 },
    /// With the k matrix.
    Key { layer: u64, position: u64 },
    /// With the v matrix.
    Value { layer: u64, position: u64 },
    /// With the attn_output matrix.
    AttentionOutput { layer: u64, position: u64 },
    /// With the gate matrix.
    Gate { layer: u64, position: u64 },
    /// With the up matrix.
    Up { layer: u64, position: u64 },
    /// With the down matrix.
    Down { layer: u64, position: u64 },
    /// With the output matrix: the logits.
    Logits { output: u64 },
}

/// A query head at a position of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// From 0.
    pub layer: u64,
    /// From 0.
    pub position: u64,
    /// From 0.
    pub head: u64,
}

/// What a selection goes by (D-3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// How many tokens: `top_k`.
    Count,
    /// What they weigh: `top_p`.
    Weight,
}

impl By {
    /// Words of a sum.
    pub const fn words(self) -> u64 {
        match self {
            By::Count => 1,
            By::Weight => 2,
        }
    }
}

/// What some words of a trace hold; one variant per kind of D-6. Most hold one word, and [`Coordinate::words`] says how
/// many where one computation gives several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "fields are places, counted from 0")]
pub enum Coordinate {
    /// How many bytes the prompt's ids spell, up to and with this one.
    Spelled { index: u64 },
    /// Where the text stands after a token, of those resumed from and put out: how long it is, and what is held back.
    Text { token: u64 },
    /// A word of where the answer stands in its grammar after a token, of those resumed from and put out.
    Standing { token: u64, word: u64 },
    /// x of a position as it enters the first layer.
    Embedding { position: u64, element: u64 },
    /// The 16 lanes of a norm after a part of its elements.
    NormLanes { norm: Norm, part: u64 },
    /// `inv` of a norm.
    NormInverse { norm: Norm },
    /// y of a norm.
    NormValue { norm: Norm, element: u64 },
    /// A segment of an output of a product.
    Segment { product: Product, output: u64, part: u64 },
    /// An output of a product.
    Total { product: Product, output: u64 },
    /// A query, ready for scores.
    Query { layer: u64, position: u64, head: u64, element: u64 },
    /// A key, ready for scores.
    Key { layer: u64, position: u64, head: u64, element: u64 },
    /// A value, ready for sums.
    Value { layer: u64, head: u64, element: u64, position: u64 },
    /// What a head gives the position `seen`.
    Score { head: Head, seen: u64 },
    /// The greatest score up to the end of a span.
    GreatestScore { head: Head, span: u64 },
    /// m of.
    ScoreBound { head: Head },
    /// The weight of the position `seen`.
    Weight { head: Head, seen: u64 },
    /// The sum of weights up to the end of a span.
    Normaliser { head: Head, span: u64 },
    /// 1 ÷ l.
    Reciprocal { head: Head },
    /// The sum of weighted values up to the end of a span.
    ValueSum { head: Head, element: u64, span: u64 },
    /// What a head puts out.
    HeadOutput { head: Head, element: u64 },
    /// x after attention.
    AttentionResidual { layer: u64, position: u64, element: u64 },
    /// The gated unit.
    Gated { layer: u64, position: u64, element: u64 },
    /// x after the layer.
    LayerResidual { layer: u64, position: u64, element: u64 },
    /// A node of the states' tree: level 0 are its chunks.
    StateNode { level: u64, index: u64 },
    /// Whether a token is among the ids given, up to the end of a row.
    Presence { row: u64, token: u64 },
    /// How often a token is among the ids resumed from, up to the end of a row.
    Repeats { row: u64, token: u64 },
    /// How often a token is in the output before this one.
    Count { output: u64, token: u64 },
    /// Whether the grammar excludes a token.
    Excluded { output: u64, token: u64 },
    /// The adjusted logit.
    Adjusted { output: u64, token: u64 },
    /// The best logit and its id, up to the end of a tile.
    Best { output: u64, tile: u64 },
    /// The greatest logit, up to the end of a tile.
    GreatestLogit { output: u64, tile: u64 },
    /// The sampling weight of a token.
    SamplingWeight { output: u64, token: u64 },
    /// What tokens with this digit sum to, up to the end of a tile.
    SelectionSum { output: u64, by: By, round: u64, tile: u64, digit: u64 },
    /// What a selection has chosen after a round.
    Choice { output: u64, by: By, round: u64 },
    /// The weight that top_k and min_p leave a token.
    Candidate { output: u64, token: u64 },
    /// What candidates sum to, up to the end of a tile.
    CandidateSum { output: u64, tile: u64 },
    /// The weight that top_p leaves a token.
    Kept { output: u64, token: u64 },
    /// What those kept sum to, up to the end of a tile.
    KeptSum { output: u64, tile: u64 },
    /// The sampled id.
    Sampled { output: u64 },
}

impl Coordinate {
    /// How many words are computed at once.
    pub const fn words(&self) -> u64 {
        match self {
            Coordinate::NormLanes { .. } => LANES,
            Coordinate::StateNode { .. } => NODE_WORDS,
            Coordinate::Text { .. }
            | Coordinate::Best { .. }
            | Coordinate::SamplingWeight { .. }
            | Coordinate::Candidate { .. }
            | Coordinate::CandidateSum { .. }
            | Coordinate::Kept { .. }
            | Coordinate::KeptSum { .. } => 2,
            Coordinate::SelectionSum { by, .. } => by.words(),
            Coordinate::Choice { by, .. } => 2 + by.words(),
            _ => 1,
        }
    }

    /// The kind's name, for figures and errors.
    pub const fn kind(&self) -> &'static str {
        match self {
            Coordinate::Spelled { .. } => "length of the prompt so far",
            Coordinate::Text { .. } => "length of the text so far",
            Coordinate::Standing { .. } => "where the answer stands in its grammar",
            Coordinate::Embedding { .. } => "embedding",
            Coordinate::NormLanes { .. } => "lanes",
            Coordinate::NormInverse { .. } => "inv",
            Coordinate::NormValue { .. } => "y of a norm",
            Coordinate::Segment { .. } => "segment",
            Coordinate::Total { .. } => "total",
            Coordinate::Query { .. } => "query",
            Coordinate::Key { .. } => "key",
            Coordinate::Value { .. } => "value",
            Coordinate::Score { .. } => "score",
            Coordinate::GreatestScore { .. } => "greatest score",
            Coordinate::ScoreBound { .. } => "m",
            Coordinate::Weight { .. } => "weight",
            Coordinate::Normaliser { .. } => "normaliser",
            Coordinate::Reciprocal { .. } => "1 ÷ l",
            Coordinate::ValueSum { .. } => "value sum",
            Coordinate::HeadOutput { .. } => "output of a head",
            Coordinate::AttentionResidual { .. } => "x after attention",
            Coordinate::Gated { .. } => "gated unit",
            Coordinate::LayerResidual { .. } => "x after a layer",
            Coordinate::StateNode { level: 0, .. } => "chunk of the states' tree",
            Coordinate::StateNode { .. } => "node of the states' tree",
            Coordinate::Presence { .. } => "presence",
            Coordinate::Repeats { .. } => "repeats",
            Coordinate::Count { .. } => "counts",
            Coordinate::Excluded { .. } => "exclusion by the grammar",
            Coordinate::Adjusted { .. } => "adjusted logit",
            Coordinate::Best { .. } => "best so far",
            Coordinate::GreatestLogit { .. } => "greatest logit",
            Coordinate::SamplingWeight { .. } => "sampling weight",
            Coordinate::SelectionSum { by: By::Count, .. } => "sum of a selection by count",
            Coordinate::SelectionSum { by: By::Weight, .. } => "sum of a selection by weight",
            Coordinate::Choice { by: By::Count, .. } => "choice by count",
            Coordinate::Choice { by: By::Weight, .. } => "choice by weight",
            Coordinate::Candidate { .. } => "candidate",
            Coordinate::CandidateSum { .. } => "sum of candidates",
            Coordinate::Kept { .. } => "kept",
            Coordinate::KeptSum { .. } => "sum of those kept",
            Coordinate::Sampled { .. } => "sampled id",
        }
    }
}

/// Why there is no trace of such an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// D-3.1
    #[error(
        "{given} ids given, {resumed} of them resumed from, and {outputs} put out leave nothing to compute"
    )]
    Counts {
        /// Ids given.
        given: u32,
        /// Of them resumed from.
        resumed: u32,
        /// Ids put out.
        outputs: u32,
    },
    /// The answer is longer than the model's context.
    #[error("{positions} positions where the model has {context}")]
    Context {
        /// Those to compute.
        positions: u64,
        /// Those there are.
        context: u32,
    },
    /// D-3.11: the sums of all tiles would be more than a judge reads.
    #[error("a model of {0} tokens; those of at most {VOCABULARY_MAX} are disputed")]
    Vocabulary(u32),
    /// D-3.11
    #[error("a trace of more than 2^41 words is not disputed")]
    TooLong,
}

/// What a run of words of a block holds. The order of the variants means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Lanes(Stage),
    Inverse(Stage),
    Values(Stage),
    Segments(Matrix),
    Totals(Matrix),
    QueryNorms,
    KeyNorms,
    Queries,
    Keys,
    HeadOutputs,
    AttentionResiduals,
    Gated,
    LayerResiduals,
    Counts,
    Excluded,
    Adjusted,
    Bests,
    Greatest,
    Weights,
    Sums(By, u64),
    Choice(By, u64),
    Candidates,
    CandidateSums,
    Kept,
    KeptSums,
    Sampled,
}

/// The norms that stand in a block by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Attention,
    FeedForward,
}

/// [`Product`] without its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matrix {
    Query,
    Key,
    Value,
    AttentionOutput,
    Gate,
    Up,
    Down,
    Logits,
}

/// Runs of words, one after another.
#[derive(Clone, Debug, Default)]
struct Block {
    /// What, and how many words are before it.
    runs: Vec<(Field, u64)>,
    words: u64,
}

impl Block {
    fn push(&mut self, field: Field, words: u64) {
        self.runs.push((field, self.words));
        self.words = self.words.saturating_add(words);
    }

    fn push_norm(&mut self, stage: Stage, length: u64) {
        self.push(Field::Lanes(stage), times(parts(length), LANES));
        self.push(Field::Inverse(stage), 1);
        self.push(Field::Values(stage), length);
    }

    fn push_product(&mut self, matrix: Matrix, outputs: u64, inputs: u64) {
        self.push(Field::Segments(matrix), times(outputs, parts(inputs)));
        self.push(Field::Totals(matrix), outputs);
    }

    /// Which run a word is in, and its place there.
    fn find(&self, word: u64) -> (Field, u64) {
        let after = self.runs.partition_point(|(_, start)| *start <= word);
        let (field, start) = self.runs[after - 1];
        (field, word - start)
    }

    /// Where a run begins. Panics if the block has none: then the caller's coordinate is of no trace like this.
    fn start(&self, field: Field) -> u64 {
        let found = self.runs.iter().find(|(own, _)| *own == field);
        found.unwrap_or_else(|| panic!("this trace holds no {field:?}")).1
    }
}

/// ⌈n ÷ 1024⌉
pub const fn parts(n: u64) -> u64 {
    n.div_ceil(PART)
}

/// ⌈n ÷ 512⌉
pub const fn spans(n: u64) -> u64 {
    n.div_ceil(SPAN)
}

/// A product that is at most u64::MAX, which is more than any trace has.
const fn times(a: u64, b: u64) -> u64 {
    a.saturating_mul(b)
}

/// The sum of several counts, at most u64::MAX.
fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// The places of a trace (D-3.11).
#[derive(Clone, Debug)]
pub struct Layout {
    // The model.
    pub(super) layers: u64,
    pub(super) width: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_dim: u64,
    pub(super) feed_forward: u64,
    pub(super) vocabulary: u64,
    pub(super) query_norms: bool,
    pub(super) key_norms: bool,
    // The answer.
    pub(super) given: u64,
    pub(super) resumed: u64,
    pub(super) outputs: u64,
    pub(super) positions: u64,
    pub(super) tiles: u64,
    // How it is sampled.
    pub(super) presence_rows: u64,
    pub(super) repeat_rows: u64,
    pub(super) counts: bool,
    /// It keeps to a grammar.
    pub(super) constrained: bool,
    pub(super) adjusts: bool,
    pub(super) greedy: bool,
    pub(super) by_count: bool,
    pub(super) by_weight: bool,
    // Blocks.
    stage_one: Block,
    /// Stage three after the heads.
    tail: Block,
    output: Block,
    // Where sections begin.
    texts_at: u64,
    standings_at: u64,
    pub(super) embedding_at: u64,
    layers_at: u64,
    layer_words: u64,
    states_at: u64,
    state_words: u64,
    state_values_at: u64,
    state_tree_at: u64,
    presence_at: u64,
    repeats_at: u64,
    outputs_at: u64,
    words: u64,
}

impl Layout {
    /// The trace of an answer to so many ids `given`, the last `resumed` of which were resumed from.
    pub fn new(
        header: &PlanHeader,
        sampling: &Sampling,
        given: u32,
        resumed: u32,
        outputs: u32,
    ) -> Result<Layout, LayoutError> {
        if given == 0 || outputs == 0 || resumed > given {
            return Err(LayoutError::Counts { given, resumed, outputs });
        }
        let positions = u64::from(given) + u64::from(outputs) - 1;
        if positions > u64::from(header.context) {
            return Err(LayoutError::Context { positions, context: header.context });
        }
        if header.vocabulary > VOCABULARY_MAX {
            return Err(LayoutError::Vocabulary(header.vocabulary));
        }
        let vocabulary = u64::from(header.vocabulary);
        let repetition = sampling.repetition_penalty != 1.0;
        let counts = repetition || sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
        let greedy = sampling.temperature == 0.0;
        let mut layout = Layout {
            layers: header.layers.into(),
            width: header.width.into(),
            heads: header.heads.into(),
            kv_heads: header.kv_heads.into(),
            head_dim: header.head_dim.into(),
            feed_forward: header.feed_forward.into(),
            vocabulary,
            query_norms: header.q_norm,
            key_norms: header.k_norm,
            given: given.into(),
            resumed: resumed.into(),
            outputs: outputs.into(),
            positions,
            tiles: vocabulary.div_ceil(TILE),
            presence_rows: if repetition { u64::from(given).div_ceil(IDS) } else { 0 },
            repeat_rows: if counts { u64::from(resumed).div_ceil(IDS) } else { 0 },
            counts,
            constrained: sampling.grammar.is_some(),
            adjusts: counts || sampling.grammar.is_some() || !sampling.logit_bias.is_empty(),
            greedy,
            by_count: !greedy && sampling.top_k > 0 && u64::from(sampling.top_k) < vocabulary,
            by_weight: !greedy && sampling.top_p < 1.0,
            stage_one: Block::default(),
            tail: Block::default(),
            output: Block::default(),
            texts_at: 0,
            standings_at: 0,
            embedding_at: 0,
            layers_at: 0,
            layer_words: 0,
            states_at: 0,
            state_words: 0,
            state_values_at: 0,
            state_tree_at: 0,
            presence_at: 0,
            repeats_at: 0,
            outputs_at: 0,
            words: 0,
        };
        layout.stage_one = layout.make_stage_one();
        layout.tail = layout.make_tail();
        layout.output = layout.make_output();
        layout.place();
        if layout.words > TRACE_WORDS_MAX { Err(LayoutError::TooLong) } else { Ok(layout) }
    }

    /// How many words the trace has.
    pub fn words(&self) -> u64 {
        self.words
    }

    /// Ids of the prompt: those given that are not resumed from.
    pub fn prompt(&self) -> u64 {
        self.given - self.resumed
    }

    /// Where the id is that output `output` sampled. Panics if there is no such output.
    pub fn sampled_at(&self, output: u64) -> u64 {
        assert!(output < self.outputs, "output {output} of {}", self.outputs);
        self.word(&Coordinate::Sampled { output })
    }

    /// Where the eight words of the state digest are.
    pub fn state_digest_at(&self) -> u64 {
        self.presence_at - NODE_WORDS
    }

    /// D-3.4
    fn make_stage_one(&self) -> Block {
        let (queries, keys) = (times(self.heads, self.head_dim), times(self.kv_heads, self.head_dim));
        let mut block = Block::default();
        block.push_norm(Stage::Attention, self.width);
        block.push_product(Matrix::Query, queries, self.width);
        block.push_product(Matrix::Key, keys, self.width);
        block.push_product(Matrix::Value, keys, self.width);
        if self.query_norms {
            block.push(Field::QueryNorms, times(self.heads, self.head_norm()));
        }
        if self.key_norms {
            block.push(Field::KeyNorms, times(self.kv_heads, self.head_norm()));
        }
        block.push(Field::Queries, queries);
        block.push(Field::Keys, keys);
        block
    }

    /// D-3.6, what follows the heads.
    fn make_tail(&self) -> Block {
        let attended = times(self.heads, self.head_dim);
        let mut block = Block::default();
        block.push(Field::HeadOutputs, attended);
        block.push_product(Matrix::AttentionOutput, self.width, attended);
        block.push(Field::AttentionResiduals, self.width);
        block.push_norm(Stage::FeedForward, self.width);
        block.push_product(Matrix::Gate, self.feed_forward, self.width);
        block.push_product(Matrix::Up, self.feed_forward, self.width);
        block.push(Field::Gated, self.feed_forward);
        block.push_product(Matrix::Down, self.width, self.feed_forward);
        block.push(Field::LayerResiduals, self.width);
        block
    }

    /// D-3.9
    fn make_output(&self) -> Block {
        let (all, tiles) = (self.vocabulary, self.tiles);
        let mut block = Block::default();
        block.push_product(Matrix::Logits, all, self.width);
        if self.counts {
            block.push(Field::Counts, all);
        }
        if self.constrained {
            block.push(Field::Excluded, all);
        }
        if self.adjusts {
            block.push(Field::Adjusted, all);
        }
        let select = |block: &mut Block, by: By| {
            for round in 0..ROUNDS {
                block.push(Field::Sums(by, round), times(tiles, DIGITS * by.words()));
                block.push(Field::Choice(by, round), 2 + by.words());
            }
        };
        if self.greedy {
            block.push(Field::Bests, times(tiles, 2));
        } else {
            block.push(Field::Greatest, tiles);
            block.push(Field::Weights, times(all, 2));
            if self.by_count {
                select(&mut block, By::Count);
            }
            block.push(Field::Candidates, times(all, 2));
            block.push(Field::CandidateSums, times(tiles, 2));
            if self.by_weight {
                select(&mut block, By::Weight);
                block.push(Field::Kept, times(all, 2));
                block.push(Field::KeptSums, times(tiles, 2));
            }
        }
        block.push(Field::Sampled, 1);
        block
    }

    /// Puts the sections one after another.
    fn place(&mut self) {
        self.texts_at = self.prompt();
        let tokens = sum(&[self.resumed, self.outputs]);
        self.standings_at = sum(&[self.texts_at, times(TEXT_WORDS, tokens)]);
        let standings = if self.constrained { times(STANDING_WORDS, tokens) } else { 0 };
        self.embedding_at = sum(&[self.standings_at, standings]);
        self.layers_at = sum(&[self.embedding_at, times(self.positions, self.width)]);
        self.layer_words = sum(&[
            times(self.positions, self.stage_one.words),
            self.values_words(),
            self.stage_three_before(self.positions),
        ]);
        self.states_at = sum(&[self.layers_at, times(self.layers, self.layer_words)]);
        self.state_words = times(parts(self.width), LANES) + 1;
        self.state_values_at = sum(&[self.states_at, times(self.outputs, self.state_words)]);
        self.state_tree_at = sum(&[self.state_values_at, times(self.outputs, self.width)]);
        let mut nodes = 0u64;
        for level in 0..self.state_levels() {
            nodes = nodes.saturating_add(self.state_level_nodes(level));
        }
        self.presence_at = sum(&[self.state_tree_at, times(nodes, NODE_WORDS)]);
        self.repeats_at = sum(&[self.presence_at, times(self.presence_rows, self.vocabulary)]);
        self.outputs_at = sum(&[self.repeats_at, times(self.repeat_rows, self.vocabulary)]);
        self.words = sum(&[self.outputs_at, times(self.outputs, self.output.words)]);
    }

    /// Words of a norm of one head.
    fn head_norm(&self) -> u64 {
        sum(&[times(parts(self.head_dim), LANES), 1, self.head_dim])
    }

    /// D-3.5
    fn values_words(&self) -> u64 {
        times(times(self.kv_heads, self.head_dim), self.positions)
    }

    /// Words of one query head that sees `seen` positions (D-3.6).
    fn head_words(&self, seen: u64) -> u64 {
        let spans = times(spans(seen), 2 + self.head_dim);
        sum(&[times(2, seen), 2, spans])
    }

    /// Words of stage three of all positions before this one.
    fn stage_three_before(&self, position: u64) -> u64 {
        // Σ of n = 1 … p: of 2n + 2 it is p·(p + 3); of ⌈n ÷ 512⌉ it is 512·k·(k + 1) ÷ 2 + (p mod 512)·(k + 1), k = ⌊p ÷ 512⌋.
        let (whole, rest) = (position / SPAN, position % SPAN);
        let all_spans = sum(&[times(SPAN, times(whole, whole + 1) / 2), times(rest, whole + 1)]);
        let head = sum(&[times(position, position + 3), times(all_spans, 2 + self.head_dim)]);
        sum(&[times(self.heads, head), times(position, self.tail.words)])
    }

    /// Levels of the states' tree, its chunks being the first.
    fn state_levels(&self) -> u64 {
        1 + u64::from(self.state_level_nodes(0).next_power_of_two().trailing_zeros())
    }

    /// Nodes of a level of the states' tree.
    pub(super) fn state_level_nodes(&self, level: u64) -> u64 {
        let chunks = times(self.outputs, self.width).div_ceil(CHUNK_WORDS);
        chunks.div_ceil(1 << level.min(63))
    }

    /// Where a layer begins.
    fn layer_at(&self, layer: u64) -> u64 {
        self.layers_at + layer * self.layer_words
    }

    /// Where stage one of a position begins.
    pub(super) fn stage_one_at(&self, layer: u64, position: u64) -> u64 {
        self.layer_at(layer) + position * self.stage_one.words
    }

    /// Where a layer's values begin.
    pub(super) fn values_at(&self, layer: u64) -> u64 {
        self.stage_one_at(layer, self.positions)
    }

    /// Where stage three of a position begins; of the position past the last, where it ends.
    pub(super) fn stage_three_at(&self, layer: u64, position: u64) -> u64 {
        self.values_at(layer) + self.values_words() + self.stage_three_before(position)
    }

    /// Where the norm of an output's position begins; of the output past the last, where they end.
    pub(super) fn state_norm_at(&self, output: u64) -> u64 {
        self.states_at + output * self.state_words
    }

    /// Where an output's state vector begins; of the output past the last, where they end.
    pub(super) fn state_value_at(&self, output: u64) -> u64 {
        self.state_values_at + output * self.width
    }

    /// Where the outputs' blocks begin; of the output past the last, where the trace ends.
    pub(super) fn output_at(&self, output: u64) -> u64 {
        self.outputs_at + output * self.output.words
    }

    /// What the word `word` holds, and which of the coordinate's words it is. None past the end.
    pub fn coordinate(&self, word: u64) -> Option<(Coordinate, u64)> {
        if word >= self.words {
            return None;
        }
        let whole = |coordinate| (coordinate, 0);
        Some(if word < self.texts_at {
            whole(Coordinate::Spelled { index: word })
        } else if word < self.standings_at {
            let at = word - self.texts_at;
            (Coordinate::Text { token: at / TEXT_WORDS }, at % TEXT_WORDS)
        } else if word < self.embedding_at {
            let at = word - self.standings_at;
            whole(Coordinate::Standing { token: at / STANDING_WORDS, word: at % STANDING_WORDS })
        } else if word < self.layers_at {
            let at = word - self.embedding_at;
            whole(Coordinate::Embedding { position: at / self.width, element: at % self.width })
        } else if word < self.states_at {
            let layer = (word - self.layers_at) / self.layer_words;
            self.in_layer(layer, word)
        } else if word < self.state_values_at {
            let at = word - self.states_at;
            let norm = Norm::Output { output: at / self.state_words };
            in_norm(norm, at % self.state_words, self.width)
        } else if word < self.state_tree_at {
            let at = word - self.state_values_at;
            let norm = Norm::Output { output: at / self.width };
            whole(Coordinate::NormValue { norm, element: at % self.width })
        } else if word < self.presence_at {
            let at = word - self.state_tree_at;
            let (mut index, mut level) = (at / NODE_WORDS, 0);
            while index >= self.state_level_nodes(level) {
                index -= self.state_level_nodes(level);
                level += 1;
            }
            (Coordinate::StateNode { level, index }, at % NODE_WORDS)
        } else if word < self.repeats_at {
            let at = word - self.presence_at;
            whole(Coordinate::Presence { row: at / self.vocabulary, token: at % self.vocabulary })
        } else if word < self.outputs_at {
            let at = word - self.repeats_at;
            whole(Coordinate::Repeats { row: at / self.vocabulary, token: at % self.vocabulary })
        } else {
            let at = word - self.outputs_at;
            self.in_output(at / self.output.words, at % self.output.words)
        })
    }

    fn in_layer(&self, layer: u64, word: u64) -> (Coordinate, u64) {
        let at = word - self.layer_at(layer);
        let stage_one = self.positions * self.stage_one.words;
        if at < stage_one {
            return self.in_stage_one(layer, at / self.stage_one.words, at % self.stage_one.words);
        }
        let at = at - stage_one;
        if at < self.values_words() {
            let (row, position) = (at / self.positions, at % self.positions);
            let (head, element) = (row / self.head_dim, row % self.head_dim);
            return (Coordinate::Value { layer, head, element, position }, 0);
        }
        let at = at - self.values_words();
        // D-3.6: the last position that begins at the word or before it.
        let (mut low, mut high) = (0, self.positions);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.stage_three_before(middle) <= at { low = middle } else { high = middle }
        }
        self.in_stage_three(layer, low, at - self.stage_three_before(low))
    }

    fn in_stage_one(&self, layer: u64, position: u64, at: u64) -> (Coordinate, u64) {
        let (field, at) = self.stage_one.find(at);
        let in_head = |at: u64| (at / self.head_dim, at % self.head_dim);
        match field {
            Field::QueryNorms => {
                let norm = Norm::Query { layer, position, head: at / self.head_norm() };
                in_norm(norm, at % self.head_norm(), self.head_dim)
            }
            Field::KeyNorms => {
                let norm = Norm::Key { layer, position, head: at / self.head_norm() };
                in_norm(norm, at % self.head_norm(), self.head_dim)
            }
            Field::Queries => {
                let (head, element) = in_head(at);
                (Coordinate::Query { layer, position, head, element }, 0)
            }
            Field::Keys => {
                let (head, element) = in_head(at);
                (Coordinate::Key { layer, position, head, element }, 0)
            }
            field => self.in_row(field, layer, position, at),
        }
    }

    fn in_stage_three(&self, layer: u64, position: u64, at: u64) -> (Coordinate, u64) {
        let seen = position + 1;
        let heads = self.heads * self.head_words(seen);
        if at >= heads {
            let (field, at) = self.tail.find(at - heads);
            return self.in_row(field, layer, position, at);
        }
        let head = Head { layer, position, head: at / self.head_words(seen) };
        let (mut at, spans) = (at % self.head_words(seen), spans(seen));
        let mut within = |words: u64| {
            let inside = at < words;
            if !inside {
                at -= words;
            }
            inside
        };
        let coordinate = if within(seen) {
            Coordinate::Score { head, seen: at }
        } else if within(spans) {
            Coordinate::GreatestScore { head, span: at }
        } else if within(1) {
            Coordinate::ScoreBound { head }
        } else if within(seen) {
            Coordinate::Weight { head, seen: at }
        } else if within(spans) {
            Coordinate::Normaliser { head, span: at }
        } else if within(1) {
            Coordinate::Reciprocal { head }
        } else {
            Coordinate::ValueSum { head, element: at / spans, span: at % spans }
        };
        (coordinate, 0)
    }

    /// The fields of a position's row that stages one and three have in common.
    fn in_row(&self, field: Field, layer: u64, position: u64, at: u64) -> (Coordinate, u64) {
        let norm = |stage| match stage {
            Stage::Attention => Norm::Attention { layer, position },
            Stage::FeedForward => Norm::FeedForward { layer, position },
        };
        match field {
            Field::Lanes(stage) => {
                (Coordinate::NormLanes { norm: norm(stage), part: at / LANES }, at % LANES)
            }
            Field::Inverse(stage) => (Coordinate::NormInverse { norm: norm(stage) }, 0),
            Field::Values(stage) => (Coordinate::NormValue { norm: norm(stage), element: at }, 0),
            Field::Segments(matrix) => {
                let product = matrix.at(layer, position);
                let parts = parts(self.inputs(product));
                (Coordinate::Segment { product, output: at / parts, part: at % parts }, 0)
            }
            Field::Totals(matrix) => {
                (Coordinate::Total { product: matrix.at(layer, position), output: at }, 0)
            }
            Field::HeadOutputs => {
                let head = Head { layer, position, head: at / self.head_dim };
                (Coordinate::HeadOutput { head, element: at % self.head_dim }, 0)
            }
            Field::AttentionResiduals => (Coordinate::AttentionResidual { layer, position, element: at }, 0),
            Field::Gated => (Coordinate::Gated { layer, position, element: at }, 0),
            Field::LayerResiduals => (Coordinate::LayerResidual { layer, position, element: at }, 0),
            other => unreachable!("{other:?} is in no row of a position"),
        }
    }

    fn in_output(&self, output: u64, at: u64) -> (Coordinate, u64) {
        let (field, at) = self.output.find(at);
        match field {
            Field::Segments(_) => {
                let parts = parts(self.width);
                let product = Product::Logits { output };
                (Coordinate::Segment { product, output: at / parts, part: at % parts }, 0)
            }
            Field::Totals(_) => (Coordinate::Total { product: Product::Logits { output }, output: at }, 0),
            Field::Counts => (Coordinate::Count { output, token: at }, 0),
            Field::Excluded => (Coordinate::Excluded { output, token: at }, 0),
            Field::Adjusted => (Coordinate::Adjusted { output, token: at }, 0),
            Field::Bests => (Coordinate::Best { output, tile: at / 2 }, at % 2),
            Field::Greatest => (Coordinate::GreatestLogit { output, tile: at }, 0),
            Field::Weights => (Coordinate::SamplingWeight { output, token: at / 2 }, at % 2),
            Field::Sums(by, round) => {
                let (sum, part) = (at / by.words(), at % by.words());
                let (tile, digit) = (sum / DIGITS, sum % DIGITS);
                (Coordinate::SelectionSum { output, by, round, tile, digit }, part)
            }
            Field::Choice(by, round) => (Coordinate::Choice { output, by, round }, at),
            Field::Candidates => (Coordinate::Candidate { output, token: at / 2 }, at % 2),
            Field::CandidateSums => (Coordinate::CandidateSum { output, tile: at / 2 }, at % 2),
            Field::Kept => (Coordinate::Kept { output, token: at / 2 }, at % 2),
            Field::KeptSums => (Coordinate::KeptSum { output, tile: at / 2 }, at % 2),
            Field::Sampled => (Coordinate::Sampled { output }, 0),
            other => unreachable!("{other:?} is in no output"),
        }
    }

    /// How many inputs a product has.
    pub(super) fn inputs(&self, product: Product) -> u64 {
        match product {
            Product::AttentionOutput { .. } => self.heads * self.head_dim,
            Product::Down { .. } => self.feed_forward,
            _ => self.width,
        }
    }

    /// The first word of what a coordinate names. Panics if this trace has none like it.
    pub fn word(&self, coordinate: &Coordinate) -> u64 {
        match *coordinate {
            Coordinate::Spelled { index } => index,
            Coordinate::Text { token } => self.texts_at + TEXT_WORDS * token,
            Coordinate::Standing { token, word } => self.standings_at + STANDING_WORDS * token + word,
            Coordinate::Embedding { position, element } => {
                self.embedding_at + position * self.width + element
            }
            Coordinate::NormLanes { norm, part } => self.norm_at(norm) + part * LANES,
            Coordinate::NormInverse { norm } => self.norm_at(norm) + parts(self.norm_length(norm)) * LANES,
            Coordinate::NormValue { norm: Norm::Output { output }, element } => {
                self.state_value_at(output) + element
            }
            Coordinate::NormValue { norm, element } => {
                self.norm_at(norm) + parts(self.norm_length(norm)) * LANES + 1 + element
            }
            Coordinate::Segment { product, output, part } => {
                self.run(product, Field::Segments) + output * parts(self.inputs(product)) + part
            }
            Coordinate::Total { product, output } => self.run(product, Field::Totals) + output,
            Coordinate::Query { layer, position, head, element } => {
                let run = self.stage_one_at(layer, position) + self.stage_one.start(Field::Queries);
                run + head * self.head_dim + element
            }
            Coordinate::Key { layer, position, head, element } => {
                let run = self.stage_one_at(layer, position) + self.stage_one.start(Field::Keys);
                run + head * self.head_dim + element
            }
            Coordinate::Value { layer, head, element, position } => {
                self.values_at(layer) + (head * self.head_dim + element) * self.positions + position
            }
            Coordinate::Score { head, seen } => self.head_at(head) + seen,
            Coordinate::GreatestScore { head, span } => self.head_at(head) + head.seen() + span,
            Coordinate::ScoreBound { head } => self.head_at(head) + head.seen() + head.spans(),
            Coordinate::Weight { head, seen } => self.head_at(head) + head.seen() + head.spans() + 1 + seen,
            Coordinate::Normaliser { head, span } => {
                self.head_at(head) + 2 * head.seen() + head.spans() + 1 + span
            }
            Coordinate::Reciprocal { head } => self.head_at(head) + 2 * head.seen() + 2 * head.spans() + 1,
            Coordinate::ValueSum { head, element, span } => {
                let sums = self.head_at(head) + 2 * head.seen() + 2 * head.spans() + 2;
                sums + element * head.spans() + span
            }
            Coordinate::HeadOutput { head, element } => {
                self.tail_at(head.layer, head.position, Field::HeadOutputs)
                    + head.head * self.head_dim
                    + element
            }
            Coordinate::AttentionResidual { layer, position, element } => {
                self.tail_at(layer, position, Field::AttentionResiduals) + element
            }
            Coordinate::Gated { layer, position, element } => {
                self.tail_at(layer, position, Field::Gated) + element
            }
            Coordinate::LayerResidual { layer, position, element } => {
                self.tail_at(layer, position, Field::LayerResiduals) + element
            }
            Coordinate::StateNode { level, index } => {
                let before: u64 = (0..level).map(|level| self.state_level_nodes(level)).sum();
                self.state_tree_at + (before + index) * NODE_WORDS
            }
            Coordinate::Presence { row, token } => self.presence_at + row * self.vocabulary + token,
            Coordinate::Repeats { row, token } => self.repeats_at + row * self.vocabulary + token,
            Coordinate::Count { output, token } => self.in_block(output, Field::Counts) + token,
            Coordinate::Excluded { output, token } => self.in_block(output, Field::Excluded) + token,
            Coordinate::Adjusted { output, token } => self.in_block(output, Field::Adjusted) + token,
            Coordinate::Best { output, tile } => self.in_block(output, Field::Bests) + 2 * tile,
            Coordinate::GreatestLogit { output, tile } => self.in_block(output, Field::Greatest) + tile,
            Coordinate::SamplingWeight { output, token } => self.in_block(output, Field::Weights) + 2 * token,
            Coordinate::SelectionSum { output, by, round, tile, digit } => {
                self.in_block(output, Field::Sums(by, round)) + (tile * DIGITS + digit) * by.words()
            }
            Coordinate::Choice { output, by, round } => self.in_block(output, Field::Choice(by, round)),
            Coordinate::Candidate { output, token } => self.in_block(output, Field::Candidates) + 2 * token,
            Coordinate::CandidateSum { output, tile } => {
                self.in_block(output, Field::CandidateSums) + 2 * tile
            }
            Coordinate::Kept { output, token } => self.in_block(output, Field::Kept) + 2 * token,
            Coordinate::KeptSum { output, tile } => self.in_block(output, Field::KeptSums) + 2 * tile,
            Coordinate::Sampled { output } => self.in_block(output, Field::Sampled),
        }
    }

    /// Where the lanes of a norm begin.
    fn norm_at(&self, norm: Norm) -> u64 {
        match norm {
            Norm::Attention { layer, position } => {
                self.stage_one_at(layer, position) + self.stage_one.start(Field::Lanes(Stage::Attention))
            }
            Norm::Query { layer, position, head } => {
                let run = self.stage_one_at(layer, position) + self.stage_one.start(Field::QueryNorms);
                run + head * self.head_norm()
            }
            Norm::Key { layer, position, head } => {
                let run = self.stage_one_at(layer, position) + self.stage_one.start(Field::KeyNorms);
                run + head * self.head_norm()
            }
            Norm::FeedForward { layer, position } => {
                self.tail_at(layer, position, Field::Lanes(Stage::FeedForward))
            }
            Norm::Output { output } => self.state_norm_at(output),
        }
    }

    /// How many elements a norm has.
    pub(super) fn norm_length(&self, norm: Norm) -> u64 {
        match norm {
            Norm::Query { .. } | Norm::Key { .. } => self.head_dim,
            _ => self.width,
        }
    }

    /// Where a run of a product begins.
    fn run(&self, product: Product, field: fn(Matrix) -> Field) -> u64 {
        match product {
            Product::Query { layer, position }
            | Product::Key { layer, position }
            | Product::Value { layer, position } => {
                self.stage_one_at(layer, position) + self.stage_one.start(field(Matrix::of(product)))
            }
            Product::AttentionOutput { layer, position }
            | Product::Gate { layer, position }
            | Product::Up { layer, position }
            | Product::Down { layer, position } => self.tail_at(layer, position, field(Matrix::of(product))),
            Product::Logits { output } => self.in_block(output, field(Matrix::Logits)),
        }
    }

    /// Where a query head's words begin.
    pub(super) fn head_at(&self, head: Head) -> u64 {
        self.stage_three_at(head.layer, head.position) + head.head * self.head_words(head.seen())
    }

    /// Where a field after the heads begins.
    fn tail_at(&self, layer: u64, position: u64, field: Field) -> u64 {
        let tail = self.stage_three_at(layer, position) + self.heads * self.head_words(position + 1);
        tail + self.tail.start(field)
    }

    /// Where a field of an output begins.
    fn in_block(&self, output: u64, field: Field) -> u64 {
        self.output_at(output) + self.output.start(field)
    }
}

/// Lanes, `inv` and y of a norm.
fn in_norm(norm: Norm, at: u64, length: u64) -> (Coordinate, u64) {
    let lanes = parts(length) * LANES;
    if at < lanes {
        (Coordinate::NormLanes { norm, part: at / LANES }, at % LANES)
    } else if at == lanes {
        (Coordinate::NormInverse { norm }, 0)
    } else {
        (Coordinate::NormValue { norm, element: at - lanes - 1 }, 0)
    }
}

impl Head {
    /// How many positions it sees.
    pub(super) fn seen(self) -> u64 {
        self.position + 1
    }

    /// Their spans.
    pub(super) fn spans(self) -> u64 {
        spans(self.seen())
    }
}

impl Matrix {
    fn at(self, layer: u64, position: u64) -> Product {
        match self {
            Matrix::Query => Product::Query { layer, position },
            Matrix::Key => Product::Key { layer, position },
            Matrix::Value => Product::Value { layer, position },
            Matrix::AttentionOutput => Product::AttentionOutput { layer, position },
            Matrix::Gate => Product::Gate { layer, position },
            Matrix::Up => Product::Up { layer, position },
            Matrix::Down => Product::Down { layer, position },
            Matrix::Logits => unreachable!("logits are of an output, not of a layer"),
        }
    }

    fn of(product: Product) -> Matrix {
        match product {
            Product::Query { .. } => Matrix::Query,
            Product::Key { .. } => Matrix::Key,
            Product::Value { .. } => Matrix::Value,
            Product::AttentionOutput { .. } => Matrix::AttentionOutput,
            Product::Gate { .. } => Matrix::Gate,
            Product::Up { .. } => Matrix::Up,
            Product::Down { .. } => Matrix::Down,
            Product::Logits { .. } => Matrix::Logits,
        }
    }
}

#[cfg(test)]
mod tests;
