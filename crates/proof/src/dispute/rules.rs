//! What every word of a trace is (D-3, D-6): one rule per kind, from the words before it.
//!
//! In:     a coordinate; the strings it is computed from, read through [`Inputs`].
//! Out:    the coordinate's words.
//! Touches: nothing.
//! Holds:  a rule reads what D-6 names and nothing else, of the trace only words left of its own; it gives the same words
//!         wherever it reads them from. It never panics, whatever it reads.
//! Absent: arithmetic (`surety_kernels::step`), places (`layout`), whether what is read is true (`judge`).

use std::sync::Arc;

use surety_grammar::{Grammar, STATE_WORDS, State};
use surety_kernels::step;
use surety_types::detokenizer::{Detokenizer, HELD_BYTES_MAX};
use surety_types::{Sampling, spelling::Piece};

use super::layout::{
    By, CHUNK_WORDS, Coordinate, DIGITS, Head, IDS, LANES, Layout, LayoutError, Norm, PART, Product, ROUNDS,
    SPAN, TILE, parts, spans,
};
use super::opening::{Node, Tree};
use super::plan::{LayerSlot, Pairs, PlanHeader, Product as Matrix, Slot, TensorEntry, kernel_format};

/// The most words that one coordinate has.
pub const WORDS_MAX: usize = LANES as usize;
/// Bits of a digit of a rank.
const DIGIT_BITS: u64 = DIGITS.ilog2() as u64;
const _: () = assert!(DIGIT_BITS * ROUNDS == u64::BITS as u64, "the digits are the whole rank");
/// The word of a value that is none (D-3.10).
const NAN: u32 = 0x7fc0_0000;

/// A string of a dispute (D-1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Source {
    /// The trace.
    #[n(0)]
    Trace,
    /// The model's plan.
    #[n(1)]
    Plan,
    /// The model's file.
    #[n(2)]
    File,
    /// The rotary table.
    #[n(3)]
    Rotary,
    /// The prompt ids.
    #[n(4)]
    Given,
    /// The output ids.
    #[n(5)]
    Output,
    /// What ids spell.
    #[n(6)]
    Spelling,
    /// The text of the answer.
    #[n(7)]
    Text,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::Trace => "trace",
            Source::Plan => "plan",
            Source::File => "file",
            Source::Rotary => "rotary table",
            Source::Given => "prompt ids",
            Source::Output => "output ids",
            Source::Spelling => "spelling",
            Source::Text => "text",
        })
    }
}

/// Why a rule gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It reads what is not at hand.
    #[error("byte {at} of the {of} is not there")]
    Absent {
        /// Of which string.
        of: Source,
        /// Where.
        at: u64,
    },
    /// The plan's entry is none of a model of this shape.
    #[error("the plan's entry of {slot:?} is not what the model needs")]
    Tensor {
        /// Which (D-2.3).
        slot: Slot,
    },
    /// The spelling says nothing that a model's would.
    #[error("the spelling of id {id} is not one")]
    Spelling {
        /// Of which id.
        id: u32,
    },
    /// The answer's grammar is not at hand.
    #[error("the answer's grammar is not there")]
    NoGrammar,
}

/// The strings that rules read.
pub trait Inputs {
    /// Fills `out` with the bytes of a string from byte `at` on.
    ///
    /// # Errors
    /// `RuleError::Absent` if one of them is not at hand.
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError>;

    /// The answer's grammar, if it keeps to one.
    ///
    /// # Errors
    /// `RuleError::NoGrammar` if it is not at hand.
    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        Err(RuleError::NoGrammar)
    }
}

impl<I: Inputs + ?Sized> Inputs for &mut I {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        (**self).read(source, at, out)
    }

    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        (**self).grammar()
    }
}

/// The rules of one answer's trace.
#[derive(Clone, Debug)]
pub struct Rules {
    header: PlanHeader,
    layout: Layout,
    sampling: Sampling,
    seed: [u8; 32],
    /// Whether an answer goes on past the model's end tokens.
    ignore_end: bool,
    /// The tree of the state vectors' bytes.
    states: Tree,
}

impl Rules {
    /// The rules of an answer to `given` ids, the last `resumed` of which were resumed from.
    ///
    /// Panics if a number of the header is out of its bounds, which none is that was parsed.
    ///
    /// # Errors
    /// `LayoutError` if such an answer has no trace.
    pub fn new(
        header: PlanHeader,
        sampling: Sampling,
        seed: [u8; 32],
        ignore_end: bool,
        given: u32,
        resumed: u32,
        outputs: u32,
    ) -> Result<Rules, LayoutError> {
        assert_eq!(header.check(), Ok(()), "a header within its bounds");
        let layout = Layout::new(&header, &sampling, given, resumed, outputs)?;
        let states = Tree::plain(4 * layout.outputs * layout.width).ok_or(LayoutError::TooLong)?;
        Ok(Rules { header, layout, sampling, seed, ignore_end, states })
    }

    /// The places of the trace.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How it is sampled.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The plan's header.
    pub fn header(&self) -> &PlanHeader {
        &self.header
    }

    /// The words of a coordinate of this trace: the first [`Coordinate::words`] of those returned.
    ///
    /// Panics if this trace has none like it, which none is that its layout gives.
    ///
    /// # Errors
    /// `RuleError` if `inputs` lack something, or the plan is of no such model.
    pub fn compute(
        &self,
        coordinate: &Coordinate,
        inputs: &mut dyn Inputs,
    ) -> Result<[u32; WORDS_MAX], RuleError> {
        let layout = &self.layout;
        let read = &mut Reader { layout, inputs };
        let mut words = [0; WORDS_MAX];
        words[0] = match *coordinate {
            Coordinate::Spelled { index } => {
                let before = read.count_before(index, |index| Coordinate::Spelled { index })?;
                let id = read.ids(Source::Given, index, 1)?[0];
                before.wrapping_add(self.piece(read, id)?.bytes)
            }
            Coordinate::Text { token } => {
                let (length, mut held) = self.text_before(read, token)?;
                let text = held.push(&self.text_piece(read, token)?);
                words[1] = held_word(&held);
                length.wrapping_add(text.len() as u32)
            }
            Coordinate::Standing { token, word } => self.standing(read, token)?[word as usize],
            Coordinate::Embedding { position, element } => self.embedding(read, position, element)?,
            Coordinate::NormLanes { norm, part } => {
                return Ok(self.lanes(read, norm, part)?.map(step::word));
            }
            Coordinate::NormInverse { norm } => self.norm_inverse(read, norm)?,
            Coordinate::NormValue { norm, element } => self.norm_value(read, norm, element)?,
            Coordinate::Segment { product, output, part } => self.segment(read, product, output, part)?,
            Coordinate::Total { product, output } => self.total(read, product, output)?,
            Coordinate::Query { layer, position, head, element } => {
                let normed = layout.query_norms.then_some(Norm::Query { layer, position, head });
                let product = Product::Query { layer, position };
                step::word(step::checked(self.turned(read, normed, product, head, element, position)?))
            }
            Coordinate::Key { layer, position, head, element } => {
                let normed = layout.key_norms.then_some(Norm::Key { layer, position, head });
                let product = Product::Key { layer, position };
                step::word(step::stored(self.turned(read, normed, product, head, element, position)?))
            }
            Coordinate::Value { layer, head, element, position } => {
                let output = head * layout.head_dim + element;
                let product = Product::Value { layer, position };
                step::word(step::stored(read.float(Coordinate::Total { product, output })?))
            }
            Coordinate::Score { head, seen } => self.score(read, head, seen)?,
            Coordinate::GreatestScore { head, span } => {
                let before = read.before(span, |span| Coordinate::GreatestScore { head, span })?;
                let (first, count) = in_span(head, span);
                let scores = read.floats(Coordinate::Score { head, seen: first }, count)?;
                step::word(step::greatest(before, &scores))
            }
            Coordinate::ScoreBound { head } => {
                let last = Coordinate::GreatestScore { head, span: head.spans() - 1 };
                step::word(step::ceiling(read.float(last)?))
            }
            Coordinate::Weight { head, seen } => {
                let score = read.float(Coordinate::Score { head, seen })?;
                step::word(step::attention_weight(score, read.float(Coordinate::ScoreBound { head })?))
            }
            Coordinate::Normaliser { head, span } => {
                let before = read.before(span, |span| Coordinate::Normaliser { head, span })?;
                let (first, count) = in_span(head, span);
                let weights = read.floats(Coordinate::Weight { head, seen: first }, count)?;
                step::word(step::normaliser(before.unwrap_or(0.0), &weights))
            }
            Coordinate::Reciprocal { head } => {
                let last = Coordinate::Normaliser { head, span: head.spans() - 1 };
                step::word(step::reciprocal(read.float(last)?))
            }
            Coordinate::ValueSum { head, element, span } => {
                let before = read.before(span, |span| Coordinate::ValueSum { head, element, span })?;
                let (first, count) = in_span(head, span);
                let weights = read.floats(Coordinate::Weight { head, seen: first }, count)?;
                let value = Coordinate::Value {
                    layer: head.layer,
                    head: self.kv_head(head),
                    element,
                    position: first,
                };
                step::word(step::value_sum(before, &weights, &read.floats(value, count)?))
            }
            Coordinate::HeadOutput { head, element } => {
                let last = Coordinate::ValueSum { head, element, span: head.spans() - 1 };
                let total = read.float(last)?;
                step::word(step::attended(total, read.float(Coordinate::Reciprocal { head })?))
            }
            Coordinate::AttentionResidual { layer, position, element } => {
                let x = read.float_at(self.x_at(layer, position) + element)?;
                let product = Product::AttentionOutput { layer, position };
                let y = read.float(Coordinate::Total { product, output: element })?;
                step::word(step::residual(x, y))
            }
            Coordinate::Gated { layer, position, element } => {
                let of = |product| Coordinate::Total { product, output: element };
                let gate = read.float(of(Product::Gate { layer, position }))?;
                step::word(step::gated(gate, read.float(of(Product::Up { layer, position }))?))
            }
            Coordinate::LayerResidual { layer, position, element } => {
                let x = read.float(Coordinate::AttentionResidual { layer, position, element })?;
                let product = Product::Down { layer, position };
                let y = read.float(Coordinate::Total { product, output: element })?;
                step::word(step::residual(x, y))
            }
            Coordinate::StateNode { level, index } => {
                put_bytes(&mut words, &self.state_node(read, level, index)?);
                return Ok(words);
            }
            Coordinate::Presence { row, token } => {
                let before = read.count_before(row, |row| Coordinate::Presence { row, token })?;
                let first = row * IDS;
                let ids = read.ids(Source::Given, first, IDS.min(layout.given - first))?;
                u32::from(before == 1 || ids.iter().any(|id| u64::from(*id) == token))
            }
            Coordinate::Repeats { row, token } => {
                let before = read.count_before(row, |row| Coordinate::Repeats { row, token })?;
                let (first, all) = (row * IDS, layout.resumed);
                let ids = read.ids(Source::Given, layout.given - all + first, IDS.min(all - first))?;
                before.wrapping_add(ids.iter().filter(|id| u64::from(**id) == token).count() as u32)
            }
            Coordinate::Count { output, token } => self.count(read, output, token)?,
            Coordinate::Excluded { output, token } => self.excluded(read, output, token)?,
            Coordinate::Adjusted { output, token } => self.adjusted(read, output, token)?,
            Coordinate::Best { output, tile } => {
                let before = match tile.checked_sub(1) {
                    None => None,
                    Some(tile) => {
                        let [logit, id] = read.pair(Coordinate::Best { output, tile })?;
                        Some((f32::from_bits(logit), id))
                    }
                };
                let logits = self.tile_logits(read, output, tile)?;
                let (logit, id) = step::best(before, (tile * TILE) as u32, &logits);
                words[1] = id;
                step::word(logit)
            }
            Coordinate::GreatestLogit { output, tile } => {
                let before = read.before(tile, |tile| Coordinate::GreatestLogit { output, tile })?;
                step::word(step::greatest(before, &self.tile_logits(read, output, tile)?))
            }
            Coordinate::SamplingWeight { output, token } => {
                let logit = read.float(self.logit(output, token))?;
                let last = Coordinate::GreatestLogit { output, tile: layout.tiles - 1 };
                let scale = step::sampling_scale(self.sampling.temperature);
                let weight = step::sampling_weight(logit, read.float(last)?, scale);
                put_long(&mut words, 0, weight);
                return Ok(words);
            }
            Coordinate::SelectionSum { output, by, round, tile, digit } => {
                let sum = self.selection_sum(read, output, by, round, tile, digit)?;
                put_sum(&mut words, 0, by, sum);
                return Ok(words);
            }
            Coordinate::Choice { output, by, round } => {
                let (rank, left) = self.choice(read, output, by, round)?;
                put_long(&mut words, 0, rank);
                put_sum(&mut words, 2, by, left);
                return Ok(words);
            }
            Coordinate::Candidate { output, token } => {
                put_long(&mut words, 0, self.candidate(read, output, token)?);
                return Ok(words);
            }
            Coordinate::CandidateSum { output, tile } => {
                let before = read.sum_before(tile, |tile| Coordinate::CandidateSum { output, tile })?;
                let tile = self.tile_longs(read, tile, |token| Coordinate::Candidate { output, token })?;
                put_long(&mut words, 0, tile.iter().fold(before, |sum, weight| sum.wrapping_add(*weight)));
                return Ok(words);
            }
            Coordinate::Kept { output, token } => {
                let candidate = read.long(Coordinate::Candidate { output, token })?;
                let kept = self.is_selected(read, output, By::Weight, token)?;
                put_long(&mut words, 0, if kept { candidate } else { 0 });
                return Ok(words);
            }
            Coordinate::KeptSum { output, tile } => {
                let before = read.sum_before(tile, |tile| Coordinate::KeptSum { output, tile })?;
                let tile = self.tile_longs(read, tile, |token| Coordinate::Kept { output, token })?;
                put_long(&mut words, 0, tile.iter().fold(before, |sum, weight| sum.wrapping_add(*weight)));
                return Ok(words);
            }
            Coordinate::Sampled { output } => self.sampled(read, output)?,
        };
        Ok(words)
    }

    /// The first word of x as it enters a layer; of the layer past the last, as it leaves the model.
    pub(super) fn x_at(&self, layer: u64, position: u64) -> u64 {
        self.layout.word(&match layer.checked_sub(1) {
            None => Coordinate::Embedding { position, element: 0 },
            Some(layer) => Coordinate::LayerResidual { layer, position, element: 0 },
        })
    }

    /// Where an id's piece lies: of one that is no token nothing.
    pub(super) fn piece(&self, read: &mut Reader<'_>, id: u32) -> Result<Piece, RuleError> {
        if id >= self.header.vocabulary {
            return Ok(Piece { start: 0, bytes: 0, silent: true });
        }
        let own = read.word_at(Source::Spelling, id.into())?;
        let before = match id.checked_sub(1) {
            None => 0,
            Some(before) => read.word_at(Source::Spelling, before.into())?,
        };
        Piece::from_words(before, own, self.header.spelling.pieces_bytes).ok_or(RuleError::Spelling { id })
    }

    /// What an id spells.
    pub(super) fn piece_bytes(&self, read: &mut Reader<'_>, piece: Piece) -> Result<Vec<u8>, RuleError> {
        let mut bytes = vec![0; piece.bytes as usize];
        let at = 4 * u64::from(self.header.vocabulary) + u64::from(piece.start);
        read.inputs.read(Source::Spelling, at, &mut bytes)?;
        Ok(bytes)
    }

    /// What a token adds to the bytes of the text: its piece, unless it is silent or ends the answer.
    pub(super) fn text_piece(&self, read: &mut Reader<'_>, token: u64) -> Result<Vec<u8>, RuleError> {
        let id = match token.checked_sub(self.layout.resumed) {
            None => read.ids(Source::Given, self.layout.prompt() + token, 1)?[0],
            Some(output) => read.ids(Source::Output, output, 1)?[0],
        };
        if !self.ignore_end && self.header.ends(id) {
            return Ok(Vec::new());
        }
        let piece = self.piece(read, id)?;
        if piece.silent { Ok(Vec::new()) } else { self.piece_bytes(read, piece) }
    }

    /// Where the answer stands in its grammar after a token (D-3.13, G-8).
    pub(super) fn standing(
        &self,
        read: &mut Reader<'_>,
        token: u64,
    ) -> Result<[u32; STATE_WORDS], RuleError> {
        let grammar = read.inputs.grammar()?;
        let before = self.standing_before(read, &grammar, token)?;
        let id = match token.checked_sub(self.layout.resumed) {
            None => read.ids(Source::Given, self.layout.prompt() + token, 1)?[0],
            Some(output) => read.ids(Source::Output, output, 1)?[0],
        };
        let spelled = self.constrained_piece(read, id)?.unwrap_or_default();
        Ok(grammar.advance_all(&before, &spelled).to_words())
    }

    /// Where the answer stands before a token.
    fn standing_before(
        &self,
        read: &mut Reader<'_>,
        grammar: &Grammar,
        token: u64,
    ) -> Result<State, RuleError> {
        let Some(token) = token.checked_sub(1) else { return Ok(grammar.start()) };
        let words = read.words(Coordinate::Standing { token, word: 0 }, STATE_WORDS as u64)?;
        Ok(grammar.state_of(&words))
    }

    /// What an id adds to an answer in its grammar; `None` of one that ends it.
    fn constrained_piece(&self, read: &mut Reader<'_>, id: u32) -> Result<Option<Vec<u8>>, RuleError> {
        if self.header.ends(id) {
            return Ok(None);
        }
        let piece = self.piece(read, id)?;
        if piece.silent { Ok(Some(Vec::new())) } else { self.piece_bytes(read, piece).map(Some) }
    }

    /// Whether the grammar excludes a token (G-7): 0 or 1.
    fn excluded(&self, read: &mut Reader<'_>, output: u64, token: u64) -> Result<u32, RuleError> {
        let grammar = read.inputs.grammar()?;
        let state = self.standing_before(read, &grammar, self.layout.resumed + output)?;
        let permitted = match self.constrained_piece(read, token as u32)? {
            None => state.is_dead() || grammar.is_complete(&state),
            Some(spelled) => !spelled.is_empty() && !grammar.advance_all(&state, &spelled).is_dead(),
        };
        Ok(u32::from(!permitted))
    }

    /// Where the text stands before a token: how long it is, and what is held back.
    pub(super) fn text_before(
        &self,
        read: &mut Reader<'_>,
        token: u64,
    ) -> Result<(u32, Detokenizer), RuleError> {
        let Some(token) = token.checked_sub(1) else { return Ok((0, Detokenizer::new())) };
        let [length, held] = read.pair(Coordinate::Text { token })?;
        let bytes = held.to_le_bytes();
        let count = usize::from(bytes[HELD_BYTES_MAX]).min(HELD_BYTES_MAX);
        Ok((length, Detokenizer::holding(&bytes[..count])))
    }

    /// The position whose logits give an output.
    fn position_of(&self, output: u64) -> u64 {
        self.layout.given - 1 + output
    }

    /// The first word of what a norm is of.
    fn norm_input_at(&self, norm: Norm) -> u64 {
        let total = |product, head| {
            self.layout.word(&Coordinate::Total { product, output: head * self.layout.head_dim })
        };
        match norm {
            Norm::Attention { layer, position } => self.x_at(layer, position),
            Norm::Query { layer, position, head } => total(Product::Query { layer, position }, head),
            Norm::Key { layer, position, head } => total(Product::Key { layer, position }, head),
            Norm::FeedForward { layer, position } => {
                self.layout.word(&Coordinate::AttentionResidual { layer, position, element: 0 })
            }
            Norm::Output { output } => self.x_at(self.layout.layers, self.position_of(output)),
        }
    }

    /// The first word of a product's inputs.
    pub(super) fn product_input_at(&self, product: Product) -> u64 {
        let y = |norm| Coordinate::NormValue { norm, element: 0 };
        self.layout.word(&match product {
            Product::Query { layer, position }
            | Product::Key { layer, position }
            | Product::Value { layer, position } => y(Norm::Attention { layer, position }),
            Product::AttentionOutput { layer, position } => {
                Coordinate::HeadOutput { head: Head { layer, position, head: 0 }, element: 0 }
            }
            Product::Gate { layer, position } | Product::Up { layer, position } => {
                y(Norm::FeedForward { layer, position })
            }
            Product::Down { layer, position } => Coordinate::Gated { layer, position, element: 0 },
            Product::Logits { output } => y(Norm::Output { output }),
        })
    }

    /// Where the weights and the bias of a product are in the plan.
    fn product_slots(product: Product) -> (Slot, Slot) {
        let of = |layer, matrix| {
            (layer_slot(layer, LayerSlot::Weight(matrix)), layer_slot(layer, LayerSlot::Bias(matrix)))
        };
        match product {
            Product::Query { layer, .. } => of(layer, Matrix::Query),
            Product::Key { layer, .. } => of(layer, Matrix::Key),
            Product::Value { layer, .. } => of(layer, Matrix::Value),
            Product::AttentionOutput { layer, .. } => of(layer, Matrix::AttentionOutput),
            Product::Gate { layer, .. } => of(layer, Matrix::Gate),
            Product::Up { layer, .. } => of(layer, Matrix::Up),
            Product::Down { layer, .. } => of(layer, Matrix::Down),
            Product::Logits { .. } => (Slot::Output, Slot::OutputBias),
        }
    }

    /// How many outputs a product has.
    pub(super) fn product_outputs(&self, product: Product) -> u64 {
        let layout = &self.layout;
        match product {
            Product::Query { .. } => layout.heads * layout.head_dim,
            Product::Key { .. } | Product::Value { .. } => layout.kv_heads * layout.head_dim,
            Product::AttentionOutput { .. } | Product::Down { .. } => layout.width,
            Product::Gate { .. } | Product::Up { .. } => layout.feed_forward,
            Product::Logits { .. } => layout.vocabulary,
        }
    }

    /// The matrix of a product.
    pub(super) fn matrix(&self, read: &mut Reader<'_>, product: Product) -> Result<TensorEntry, RuleError> {
        let (slot, _) = Rules::product_slots(product);
        self.tensor(read, slot)?.ok_or(RuleError::Tensor { slot })
    }

    /// A tensor of the plan, if the model has it; its shape is the model's.
    fn tensor(&self, read: &mut Reader<'_>, slot: Slot) -> Result<Option<TensorEntry>, RuleError> {
        let mut bytes = [0; 32];
        read.inputs.read(Source::Plan, slot.bytes().start as u64, &mut bytes)?;
        TensorEntry::parse(&bytes, slot, &self.header).map_err(|_| RuleError::Tensor { slot })
    }

    /// One element of a vector of the plan, if the model has it.
    fn vector_element(
        &self,
        read: &mut Reader<'_>,
        slot: Slot,
        element: u64,
    ) -> Result<Option<f32>, RuleError> {
        match self.tensor(read, slot)? {
            None => Ok(None),
            Some(tensor) => self.element(read, &tensor, 0, element as u32).map(Some),
        }
    }

    /// One element of a tensor.
    fn element(
        &self,
        read: &mut Reader<'_>,
        tensor: &TensorEntry,
        row: u32,
        element: u32,
    ) -> Result<f32, RuleError> {
        let at = tensor.bytes(row, element..element + 1);
        let mut block = vec![0; (at.end - at.start) as usize];
        read.inputs.read(Source::File, at.start, &mut block)?;
        let index = element % tensor.format.block_elements();
        Ok(step::element(kernel_format(tensor.format), &block, index as usize))
    }

    ///
    fn embedding(&self, read: &mut Reader<'_>, position: u64, element: u64) -> Result<u32, RuleError> {
        let layout = &self.layout;
        let id = match position.checked_sub(layout.given) {
            None => read.ids(Source::Given, position, 1)?[0],
            Some(output) => read.ids(Source::Output, output, 1)?[0],
        };
        if u64::from(id) >= layout.vocabulary {
            return Ok(NAN);
        }
        let slot = Slot::Embedding;
        let table = self.tensor(read, slot)?.ok_or(RuleError::Tensor { slot })?;
        Ok(step::word(self.element(read, &table, id, element as u32)?))
    }

    /// the chains of squares.
    fn lanes(&self, read: &mut Reader<'_>, norm: Norm, part: u64) -> Result<[f32; WORDS_MAX], RuleError> {
        let before = match part.checked_sub(1) {
            None => [0.0; WORDS_MAX],
            Some(part) => self.lanes_of(read, norm, part)?,
        };
        let length = self.layout.norm_length(norm);
        let x = read.floats_at(self.norm_input_at(norm) + part * PART, PART.min(length - part * PART))?;
        Ok(step::squares(before, &x))
    }

    /// Lanes that are in the trace.
    fn lanes_of(&self, read: &mut Reader<'_>, norm: Norm, part: u64) -> Result<[f32; WORDS_MAX], RuleError> {
        let mut lanes = [0.0; WORDS_MAX];
        lanes.copy_from_slice(&read.floats(Coordinate::NormLanes { norm, part }, LANES)?);
        Ok(lanes)
    }

    fn norm_inverse(&self, read: &mut Reader<'_>, norm: Norm) -> Result<u32, RuleError> {
        let length = self.layout.norm_length(norm);
        let lanes = self.lanes_of(read, norm, parts(length) - 1)?;
        Ok(step::word(step::norm_inverse(lanes, length as usize, self.header.eps)))
    }

    fn norm_value(&self, read: &mut Reader<'_>, norm: Norm, element: u64) -> Result<u32, RuleError> {
        let slot = match norm {
            Norm::Attention { layer, .. } => layer_slot(layer, LayerSlot::AttentionNorm),
            Norm::Query { layer, .. } => layer_slot(layer, LayerSlot::QueryNorm),
            Norm::Key { layer, .. } => layer_slot(layer, LayerSlot::KeyNorm),
            Norm::FeedForward { layer, .. } => layer_slot(layer, LayerSlot::FeedForwardNorm),
            Norm::Output { .. } => Slot::OutputNorm,
        };
        let x = read.float_at(self.norm_input_at(norm) + element)?;
        let inverse = read.float(Coordinate::NormInverse { norm })?;
        let weight = self.vector_element(read, slot, element)?;
        Ok(step::word(step::normed(x, inverse, weight.ok_or(RuleError::Tensor { slot })?)))
    }

    ///
    fn segment(
        &self,
        read: &mut Reader<'_>,
        product: Product,
        output: u64,
        part: u64,
    ) -> Result<u32, RuleError> {
        let matrix = self.matrix(read, product)?;
        let elements = PART.min(self.layout.inputs(product) - part * PART);
        let x = read.floats_at(self.product_input_at(product) + part * PART, elements)?;
        let weights = self.segment_weights(read, &matrix, product, output, part)?;
        Ok(step::word(step::segment(kernel_format(matrix.format), &weights, &x)))
    }

    /// The blocks of a segment of a weight row.
    pub(super) fn segment_weights(
        &self,
        read: &mut Reader<'_>,
        matrix: &TensorEntry,
        product: Product,
        output: u64,
        part: u64,
    ) -> Result<Vec<u8>, RuleError> {
        let (first, end) = (part * PART, self.layout.inputs(product).min((part + 1) * PART));
        let at = matrix.bytes(output as u32, first as u32..end as u32);
        let mut weights = vec![0; (at.end - at.start) as usize];
        read.inputs.read(Source::File, at.start, &mut weights)?;
        Ok(weights)
    }

    ///
    fn total(&self, read: &mut Reader<'_>, product: Product, output: u64) -> Result<u32, RuleError> {
        let parts = parts(self.layout.inputs(product));
        let segments = read.floats(Coordinate::Segment { product, output, part: 0 }, parts)?;
        let (_, slot) = Rules::product_slots(product);
        let bias = self.vector_element(read, slot, output)?;
        let total = step::total(&segments, bias);
        Ok(step::word(match product {
            Product::Logits { .. } => step::checked(total),
            _ => total,
        }))
    }

    /// of one element of a head, normed or as the product gives it.
    fn turned(
        &self,
        read: &mut Reader<'_>,
        normed: Option<Norm>,
        product: Product,
        head: u64,
        element: u64,
        position: u64,
    ) -> Result<f32, RuleError> {
        let (all, half) = (self.layout.head_dim, self.layout.head_dim / 2);
        let (pair, second) = match self.header.pairs {
            Pairs::Halves => (element % half, element >= half),
            Pairs::Interleaved => (element / 2, element % 2 == 1),
        };
        let places = match self.header.pairs {
            Pairs::Halves => [pair, pair + half],
            Pairs::Interleaved => [2 * pair, 2 * pair + 1],
        };
        let mut values = [0.0; 2];
        for (value, element) in values.iter_mut().zip(places) {
            *value = read.float(match normed {
                Some(norm) => Coordinate::NormValue { norm, element },
                None => Coordinate::Total { product, output: head * all + element },
            })?;
        }
        let row = position * all;
        let cosine = read.rotary(row + pair)?;
        let (a, b) = step::rotated(values[0], values[1], cosine, read.rotary(row + half + pair)?);
        Ok(if second { b } else { a })
    }

    /// The key/value head that a query head reads.
    fn kv_head(&self, head: Head) -> u64 {
        head.head / (self.layout.heads / self.layout.kv_heads)
    }

    ///
    fn score(&self, read: &mut Reader<'_>, head: Head, seen: u64) -> Result<u32, RuleError> {
        let Head { layer, position, head: index } = head;
        let length = self.layout.head_dim;
        let query = read.floats(Coordinate::Query { layer, position, head: index, element: 0 }, length)?;
        let kv_head = self.kv_head(head);
        let key = Coordinate::Key { layer, position: seen, head: kv_head, element: 0 };
        Ok(step::word(step::score(&query, &read.floats(key, length)?)))
    }

    ///
    fn state_node(&self, read: &mut Reader<'_>, level: u64, index: u64) -> Result<[u8; 32], RuleError> {
        let all = self.layout.state_level_nodes(0);
        let node = |level: u64, index: u64| {
            let first = index << level;
            Node { first, chunks: (1 << level).min(all - first) }
        };
        let own = node(level, index);
        let Some(below) = level.checked_sub(1) else {
            let word = index * CHUNK_WORDS;
            let count = CHUNK_WORDS.min(self.layout.outputs * self.layout.width - word);
            let y = Coordinate::NormValue { norm: Norm::Output { output: 0 }, element: 0 };
            let mut bytes = vec![0; 4 * count as usize];
            read.inputs.read(Source::Trace, 4 * (self.layout.word(&y) + word), &mut bytes)?;
            return Ok(self.states.value(own, &bytes));
        };
        let child = |read: &mut Reader<'_>, index| {
            let mut value = [0; 32];
            let at = self.layout.word(&Coordinate::StateNode { level: below, index });
            read.inputs.read(Source::Trace, 4 * at, &mut value)?;
            Ok(value)
        };
        let left = child(read, 2 * index)?;
        if 2 * index + 1 == self.layout.state_level_nodes(below) {
            return Ok(left);
        }
        Ok(self.states.join(own, &left, &child(read, 2 * index + 1)?))
    }

    /// D-3.9, 2
    fn count(&self, read: &mut Reader<'_>, output: u64, token: u64) -> Result<u32, RuleError> {
        if let Some(before) = output.checked_sub(1) {
            let count = read.word(Coordinate::Count { output: before, token })?;
            let id = read.ids(Source::Output, before, 1)?[0];
            return Ok(count.wrapping_add(u32::from(u64::from(id) == token)));
        }
        match self.layout.repeat_rows.checked_sub(1) {
            None => Ok(0),
            Some(row) => read.word(Coordinate::Repeats { row, token }),
        }
    }

    ///
    fn adjusted(&self, read: &mut Reader<'_>, output: u64, token: u64) -> Result<u32, RuleError> {
        let sampling = &self.sampling;
        let logit = read.float(Coordinate::Total { product: Product::Logits { output }, output: token })?;
        let bias = sampling.logit_bias.binary_search_by_key(&token, |(id, _)| u64::from(*id));
        let count = match self.layout.counts {
            true => read.word(Coordinate::Count { output, token })?,
            false => 0,
        };
        let occurs = match self.layout.presence_rows.checked_sub(1) {
            None => false,
            Some(row) => read.word(Coordinate::Presence { row, token })? == 1 || count > 0,
        };
        let by = step::Adjustment {
            bias: bias.ok().map(|at| sampling.logit_bias[at].1),
            repetition: occurs.then_some(sampling.repetition_penalty),
            count,
            presence: sampling.presence_penalty,
            frequency: sampling.frequency_penalty,
        };
        let adjusted = step::adjusted(logit, &by);
        // What is not finite is found before anything is excluded.
        let excluded = self.layout.constrained
            && read.word(Coordinate::Excluded { output, token })? != 0
            && !adjusted.is_nan();
        Ok(step::word(if excluded { f32::NEG_INFINITY } else { adjusted }))
    }

    /// The logit that sampling goes by.
    fn logit(&self, output: u64, token: u64) -> Coordinate {
        match self.layout.adjusts {
            true => Coordinate::Adjusted { output, token },
            false => Coordinate::Total { product: Product::Logits { output }, output: token },
        }
    }

    /// Tokens of a tile: the first, and how many.
    fn in_tile(&self, tile: u64) -> (u64, u64) {
        (tile * TILE, TILE.min(self.layout.vocabulary - tile * TILE))
    }

    pub(super) fn tile_logits(
        &self,
        read: &mut Reader<'_>,
        output: u64,
        tile: u64,
    ) -> Result<Vec<f32>, RuleError> {
        let (first, count) = self.in_tile(tile);
        read.floats(self.logit(output, first), count)
    }

    /// 64-bit integers of a tile.
    pub(super) fn tile_longs(
        &self,
        read: &mut Reader<'_>,
        tile: u64,
        of: impl Fn(u64) -> Coordinate,
    ) -> Result<Vec<u64>, RuleError> {
        let (first, count) = self.in_tile(tile);
        read.longs(of(first), count)
    }

    /// What the round before chose: R so far, and how much of the goal is left.
    pub(super) fn chosen_before(
        &self,
        read: &mut Reader<'_>,
        output: u64,
        by: By,
        round: u64,
    ) -> Result<(u64, u64), RuleError> {
        if let Some(round) = round.checked_sub(1) {
            let words = read.words(Coordinate::Choice { output, by, round }, 2 + by.words())?;
            return Ok((long(&words[..2]), long(&words[2..])));
        }
        let goal = match by {
            By::Count => self.sampling.top_k.into(),
            By::Weight => {
                let sum = read.long(Coordinate::CandidateSum { output, tile: self.layout.tiles - 1 })?;
                step::nucleus(step::fraction(self.sampling.top_p), sum)
            }
        };
        Ok((0, goal))
    }

    /// What each token of a tile adds to the sums of a round, and to which digit's (D-3.9).
    pub(super) fn selection_tile(
        &self,
        read: &mut Reader<'_>,
        output: u64,
        by: By,
        round: u64,
        tile: u64,
    ) -> Result<Vec<(u8, u64)>, RuleError> {
        let known = match round.checked_sub(1) {
            None => 0,
            Some(before) => read.long(Coordinate::Choice { output, by, round: before })?,
        };
        let logits = self.tile_logits(read, output, tile)?;
        let weights = match by {
            By::Count => vec![1; logits.len()],
            By::Weight => self.tile_longs(read, tile, |token| Coordinate::Candidate { output, token })?,
        };
        let shift = DIGIT_BITS * (ROUNDS - 1 - round);
        let tokens = logits.iter().zip(weights).zip(tile * TILE..);
        let added = tokens.filter_map(|((logit, weight), token)| {
            let rank = step::rank(*logit, token as u32);
            // The digits above are those known; of the first round there are none.
            let agrees = round == 0 || (rank ^ known) >> (shift + DIGIT_BITS) == 0;
            agrees.then_some(((rank >> shift & (DIGITS - 1)) as u8, weight))
        });
        Ok(added.collect())
    }

    fn selection_sum(
        &self,
        read: &mut Reader<'_>,
        output: u64,
        by: By,
        round: u64,
        tile: u64,
        digit: u64,
    ) -> Result<u64, RuleError> {
        let before = match tile.checked_sub(1) {
            None => 0,
            Some(tile) => read.sums(Coordinate::SelectionSum { output, by, round, tile, digit }, by, 1)?[0],
        };
        let added = self.selection_tile(read, output, by, round, tile)?;
        let own = added.iter().filter(|(own, _)| u64::from(*own) == digit);
        Ok(own.fold(before, |sum, (_, weight)| sum.wrapping_add(*weight)))
    }

    fn choice(
        &self,
        read: &mut Reader<'_>,
        output: u64,
        by: By,
        round: u64,
    ) -> Result<(u64, u64), RuleError> {
        let (known, mut left) = self.chosen_before(read, output, by, round)?;
        let tile = self.layout.tiles - 1;
        let first = Coordinate::SelectionSum { output, by, round, tile, digit: 0 };
        let mut sums = read.sums(first, by, DIGITS)?.into_iter().zip(0u64..);
        // If the goal is never reached, the last digit it is.
        let digit = loop {
            match sums.next() {
                Some((sum, digit)) if sum >= left || digit == DIGITS - 1 => break digit,
                Some((sum, _)) => left -= sum,
                None => break DIGITS - 1,
            }
        };
        Ok((known | digit << (DIGIT_BITS * (ROUNDS - 1 - round)), left))
    }

    /// Whether a token is one of those that a selection leaves.
    fn is_selected(&self, read: &mut Reader<'_>, output: u64, by: By, token: u64) -> Result<bool, RuleError> {
        let logit = read.float(self.logit(output, token))?;
        let last = read.long(Coordinate::Choice { output, by, round: ROUNDS - 1 })?;
        Ok(step::rank(logit, token as u32) <= last)
    }

    /// what top_k and min_p leave.
    fn candidate(&self, read: &mut Reader<'_>, output: u64, token: u64) -> Result<u64, RuleError> {
        let weight = read.long(Coordinate::SamplingWeight { output, token })?;
        let selected = !self.layout.by_count || self.is_selected(read, output, By::Count, token)?;
        Ok(if selected && weight >= step::fraction(self.sampling.min_p) { weight } else { 0 })
    }

    ///
    fn sampled(&self, read: &mut Reader<'_>, output: u64) -> Result<u32, RuleError> {
        let tiles = self.layout.tiles;
        if self.layout.greedy {
            let [logit, id] = read.pair(Coordinate::Best { output, tile: tiles - 1 })?;
            // All of them are excluded.
            return Ok(if f32::from_bits(logit) == f32::NEG_INFINITY { step::NO_TOKEN } else { id });
        }
        let by_weight = self.layout.by_weight;
        let sums = read.longs(
            match by_weight {
                true => Coordinate::KeptSum { output, tile: 0 },
                false => Coordinate::CandidateSum { output, tile: 0 },
            },
            tiles,
        )?;
        let position = self.layout.given + output;
        let u = blake3::keyed_hash(&self.seed, &position.to_le_bytes());
        let u = u64::from_le_bytes(std::array::from_fn(|i| u.as_bytes()[i]));
        let r = step::draw(u, sums.last().copied().unwrap_or(0));
        let Some(tile) = sums.iter().position(|sum| *sum > r) else { return Ok(step::NO_TOKEN) };
        let mut running = if tile == 0 { 0 } else { sums[tile - 1] };
        let tile = tile as u64;
        let weights = self.tile_longs(read, tile, |token| match by_weight {
            true => Coordinate::Kept { output, token },
            false => Coordinate::Candidate { output, token },
        })?;
        for (token, weight) in (tile * TILE..).zip(weights) {
            running = running.wrapping_add(weight);
            if running > r {
                return Ok(token as u32);
            }
        }
        Ok(step::NO_TOKEN)
    }
}

/// What is held back: at most three bytes, low first, and how many.
fn held_word(held: &Detokenizer) -> u32 {
    let held = held.held();
    let mut bytes = [0; 4];
    bytes[..held.len()].copy_from_slice(held);
    bytes[HELD_BYTES_MAX] = held.len() as u8;
    u32::from_le_bytes(bytes)
}

/// A slot of a layer, which the layout has found to be one of the model's.
fn layer_slot(layer: u64, slot: LayerSlot) -> Slot {
    Slot::Layer(layer as u32, slot)
}

/// Positions of a span that a head sees: the first, and how many.
fn in_span(head: Head, span: u64) -> (u64, u64) {
    debug_assert!(span < spans(head.seen()));
    (span * SPAN, SPAN.min(head.seen() - span * SPAN))
}

/// One or two words, low first.
fn long(words: &[u32]) -> u64 {
    words.iter().rev().fold(0, |long, word| long << 32 | u64::from(*word))
}

fn put_long(words: &mut [u32; WORDS_MAX], at: usize, long: u64) {
    words[at] = long as u32;
    words[at + 1] = (long >> 32) as u32;
}

fn put_sum(words: &mut [u32; WORDS_MAX], at: usize, by: By, sum: u64) {
    match by {
        By::Count => words[at] = sum as u32,
        By::Weight => put_long(words, at, sum),
    }
}

fn put_bytes(words: &mut [u32; WORDS_MAX], bytes: &[u8; 32]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
}

/// Reads words by what they hold.
pub(super) struct Reader<'a> {
    pub(super) layout: &'a Layout,
    pub(super) inputs: &'a mut dyn Inputs,
}

impl Reader<'_> {
    fn words_at(&mut self, source: Source, first: u64, count: u64) -> Result<Vec<u32>, RuleError> {
        let mut bytes = vec![0; 4 * count as usize];
        self.inputs.read(source, 4 * first, &mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// Words of the trace from a coordinate's first on.
    pub(super) fn words(&mut self, first: Coordinate, count: u64) -> Result<Vec<u32>, RuleError> {
        self.words_at(Source::Trace, self.layout.word(&first), count)
    }

    fn word_at(&mut self, source: Source, at: u64) -> Result<u32, RuleError> {
        let mut bytes = [0; 4];
        self.inputs.read(source, 4 * at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn word(&mut self, at: Coordinate) -> Result<u32, RuleError> {
        self.word_at(Source::Trace, self.layout.word(&at))
    }

    fn pair(&mut self, at: Coordinate) -> Result<[u32; 2], RuleError> {
        let words = self.words(at, 2)?;
        Ok([words[0], words[1]])
    }

    fn long(&mut self, at: Coordinate) -> Result<u64, RuleError> {
        Ok(long(&self.pair(at)?))
    }

    /// Sums of a selection from a coordinate's on.
    pub(super) fn sums(&mut self, first: Coordinate, by: By, count: u64) -> Result<Vec<u64>, RuleError> {
        Ok(self.words(first, count * by.words())?.chunks_exact(by.words() as usize).map(long).collect())
    }

    fn longs(&mut self, first: Coordinate, count: u64) -> Result<Vec<u64>, RuleError> {
        Ok(self.words(first, 2 * count)?.chunks_exact(2).map(long).collect())
    }

    fn float_at(&mut self, at: u64) -> Result<f32, RuleError> {
        Ok(f32::from_bits(self.word_at(Source::Trace, at)?))
    }

    fn float(&mut self, at: Coordinate) -> Result<f32, RuleError> {
        self.float_at(self.layout.word(&at))
    }

    pub(super) fn floats_at(&mut self, first: u64, count: u64) -> Result<Vec<f32>, RuleError> {
        Ok(self.words_at(Source::Trace, first, count)?.into_iter().map(f32::from_bits).collect())
    }

    fn floats(&mut self, first: Coordinate, count: u64) -> Result<Vec<f32>, RuleError> {
        self.floats_at(self.layout.word(&first), count)
    }

    /// The value of the one before, if there is one.
    fn before(&mut self, index: u64, at: impl Fn(u64) -> Coordinate) -> Result<Option<f32>, RuleError> {
        index.checked_sub(1).map(|before| self.float(at(before))).transpose()
    }

    /// The integer of the one before; 0 of the first.
    pub(super) fn count_before(
        &mut self,
        index: u64,
        at: impl Fn(u64) -> Coordinate,
    ) -> Result<u32, RuleError> {
        index.checked_sub(1).map_or(Ok(0), |before| self.word(at(before)))
    }

    /// The 64-bit integer of the one before; 0 of the first.
    fn sum_before(&mut self, index: u64, at: impl Fn(u64) -> Coordinate) -> Result<u64, RuleError> {
        index.checked_sub(1).map_or(Ok(0), |before| self.long(at(before)))
    }

    pub(super) fn ids(&mut self, source: Source, first: u64, count: u64) -> Result<Vec<u32>, RuleError> {
        self.words_at(source, first, count)
    }

    fn rotary(&mut self, word: u64) -> Result<f32, RuleError> {
        Ok(f32::from_bits(self.word_at(Source::Rotary, word)?))
    }
}
