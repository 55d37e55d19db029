//! The plan: what a model's computation reads, and where in its file. Disputes open it instead of the file's metadata.
//!
//! In:     a model's numbers and tensors, from whoever loads it; bytes from anyone.
//! Out:    the one string of words that says so (D-2), its digest; checked numbers and places.
//! Touches: nothing.
//! Holds:  what is parsed is within its bounds, gives back the same bytes, and no shape disagrees with the numbers; so nobody
//!         who computes with it can overflow or leave the file.
//! Absent: reading GGUF (`engine`), what is computed (`proof::dispute`).
//!
//! The rules `D-…` cited here are in `docs/spec/dispute.md`.

use std::ops::Range;

use crate::digest::{Digest, domain};
use crate::manifest::Manifest;
use crate::spelling::{PIECES_BYTES_MAX, Spelling};

/// The version of plans.
pub const PLAN_VERSION: u32 = 2;
/// Words before the tensors: one chunk of BLAKE3.
pub const HEADER_WORDS: usize = 256;
/// Words of a tensor.
pub const TENSOR_WORDS: usize = 8;
/// End tokens of a model, at most.
pub const MAX_END_TOKENS: usize = 64;
/// No tensor of a plan ends beyond: a tebibyte.
pub const MAX_FILE_BYTES: u64 = 1 << 40;

/// The word of each number.
mod word {
    pub(super) const VERSION: usize = 0;
    pub(super) const PAIRS: usize = 1;
    /// Layers to context, as `PlanHeader::numbers` has them.
    pub(super) const NUMBERS: usize = 2;
    pub(super) const EPS: usize = 10;
    pub(super) const FLAGS: usize = 11;
    pub(super) const ENDS: usize = 12;
    /// Whether prompts are judged.
    pub(super) const PROMPTS: usize = 80;
    /// First and last of a text, BOS and EOS of a template.
    pub(super) const BOUNDS: usize = 81;
    pub(super) const PIECES_BYTES: usize = 85;
    pub(super) const SPELLING: usize = 86;
    /// The first that is not used.
    pub(super) const END: usize = 94;
}

/// What words are no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Longer or shorter than its header says.
    #[error("a plan of {found} bytes where its header calls for {expected}")]
    Length {
        /// As the header says.
        expected: usize,
        /// As it came.
        found: usize,
    },
    /// Another version.
    #[error("a plan of version {0}; this software knows {PLAN_VERSION}")]
    Version(u32),
    /// A number that no model has.
    #[error("{field} is {value}; it must be {must}")]
    Number {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u32,
        /// What it may say.
        must: &'static str,
    },
    /// Too many end tokens, or not increasing, or beyond the vocabulary.
    #[error("end tokens are at most {MAX_END_TOKENS} increasing ids of the vocabulary")]
    EndTokens,
    /// A word that is not used is not zero.
    #[error("a word that must be zero is not")]
    Reserved,
    /// A tensor that does not belong where it is.
    #[error("{slot:?} {problem}")]
    Tensor {
        /// Where.
        slot: Slot,
        /// What is wrong with it, continuing the sentence.
        problem: &'static str,
    },
}

/// Says that there is no such id.
const NO_ID: u32 = u32::MAX;

/// A model's spelling, as its plan names it, and what of its prompts follows from that (D-2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpellingEntry {
    /// Of the spelling.
    pub digest: Digest,
    /// Bytes of all pieces.
    pub pieces_bytes: u32,
    /// The ids of a prompt spell it byte for byte: so it can be judged.
    pub prompts: bool,
    /// What stands before the ids of a text.
    pub first: Option<u32>,
    /// What stands after them.
    pub last: Option<u32>,
    /// What a chat template calls `bos_token`.
    pub bos: Option<u32>,
    /// What a chat template calls `eos_token`.
    pub eos: Option<u32>,
}

impl SpellingEntry {
    /// A spelling of which prompts are not judged.
    pub fn of(spelling: &Spelling) -> SpellingEntry {
        SpellingEntry {
            digest: spelling.digest(),
            pieces_bytes: spelling.pieces_bytes(),
            ..SpellingEntry::default()
        }
    }

    fn bounds(&self) -> [Option<u32>; 4] {
        [self.first, self.last, self.bos, self.eos]
    }
}

/// How rotary pairs are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// (2i, 2i + 1).
    Interleaved,
    /// (i, i + h).
    Halves,
}

/// The numbers of a model (D-2.2).
#[derive(Clone, Debug, PartialEq)]
pub struct PlanHeader {
    /// How rotary pairs are taken.
    pub pairs: Pairs,
    /// L.
    pub layers: u32,
    /// W, elements of a residual row.
    pub width: u32,
    /// H.
    pub heads: u32,
    /// G.
    pub kv_heads: u32,
    /// D.
    pub head_dim: u32,
    /// F.
    pub feed_forward: u32,
    /// V.
    pub vocabulary: u32,
    /// Positions.
    pub context: u32,
    /// Epsilon of the norms.
    pub eps: f32,
    /// Whether the heads of queries are normed.
    pub q_norm: bool,
    /// Whether the heads of keys are.
    pub k_norm: bool,
    /// Ids after which a model has ended, increasing.
    pub end_tokens: Vec<u32>,
    /// What its ids spell.
    pub spelling: SpellingEntry,
}

impl PlanHeader {
    /// Checks every number (D-2.2).
    ///
    /// # Errors
    /// `PlanError` names the first that no model has.
    pub fn check(&self) -> Result<(), PlanError> {
        let number = |field, value: u32, holds: bool, must| {
            if holds { Ok(()) } else { Err(PlanError::Number { field, value, must }) }
        };
        let [layers, width, heads, kv_heads, head_dim, feed_forward, vocabulary, context] = self.numbers();
        number("layers", layers, (1..=448).contains(&layers), "1 to 448")?;
        let whole = |value: u32, most: u32| (32..=most).contains(&value) && value.is_multiple_of(32);
        number("width", width, whole(width, 65_536), "a multiple of 32 up to 65536")?;
        number("heads", heads, (1..=1_024).contains(&heads), "1 to 1024")?;
        let divides = kv_heads > 0 && heads.is_multiple_of(kv_heads);
        number("kv_heads", kv_heads, divides, "a divisor of heads")?;
        number("head_dim", head_dim, whole(head_dim, 256), "a multiple of 32 up to 256")?;
        number("feed_forward", feed_forward, whole(feed_forward, 524_288), "a multiple of 32 up to 524288")?;
        number("vocabulary", vocabulary, (1..=1 << 22).contains(&vocabulary), "1 to 4194304")?;
        number("context", context, (1..=1 << 20).contains(&context), "1 to 1048576")?;
        let positive = self.eps.is_finite() && self.eps > 0.0;
        number("eps", self.eps.to_bits(), positive, "the bits of a positive number")?;
        let increasing = self.end_tokens.windows(2).all(|pair| pair[0] < pair[1]);
        let known = self.end_tokens.last().is_none_or(|last| *last < vocabulary);
        if self.end_tokens.len() > MAX_END_TOKENS || !increasing || !known {
            return Err(PlanError::EndTokens);
        }
        let pieces = self.spelling.pieces_bytes;
        number("pieces", pieces, pieces <= PIECES_BYTES_MAX, "less than 2^31 bytes")?;
        for id in self.spelling.bounds().into_iter().flatten() {
            number("a bound of prompts", id, id < vocabulary, "an id of the vocabulary")?;
        }
        Ok(())
    }

    /// Layers to context, in the order of their words.
    fn numbers(&self) -> [u32; 8] {
        [
            self.layers,
            self.width,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.feed_forward,
            self.vocabulary,
            self.context,
        ]
    }

    /// Whether a model's manifest has the same numbers.
    pub fn is_of(&self, manifest: &Manifest) -> bool {
        let theirs = [
            manifest.layers,
            manifest.width,
            manifest.heads,
            manifest.kv_heads,
            manifest.head_dim,
            manifest.feed_forward,
            manifest.vocabulary,
            manifest.context,
        ];
        self.numbers() == theirs
    }

    /// Whether a model that produces `id` has ended.
    pub fn ends(&self, id: u32) -> bool {
        self.end_tokens.binary_search(&id).is_ok()
    }

    /// Tensors of the plan, absent ones included.
    pub fn slots(&self) -> usize {
        FIRST_LAYER_SLOT + self.layers as usize * LAYER_SLOTS
    }

    /// Bytes of the whole plan.
    pub fn plan_bytes(&self) -> usize {
        4 * (HEADER_WORDS + self.slots() * TENSOR_WORDS)
    }

    /// The words 0 … 255. Panics if a number is out of its bounds.
    pub fn to_bytes(&self) -> [u8; 4 * HEADER_WORDS] {
        assert_eq!(self.check(), Ok(()), "a header within its bounds");
        let mut words = [0; HEADER_WORDS];
        words[word::VERSION] = PLAN_VERSION;
        words[word::PAIRS] = u32::from(self.pairs == Pairs::Halves);
        words[word::NUMBERS..][..8].copy_from_slice(&self.numbers());
        words[word::EPS] = self.eps.to_bits();
        words[word::FLAGS] = u32::from(self.q_norm) | u32::from(self.k_norm) << 1;
        words[word::ENDS] = self.end_tokens.len() as u32;
        words[word::ENDS + 1..][..self.end_tokens.len()].copy_from_slice(&self.end_tokens);
        let SpellingEntry { digest, pieces_bytes, prompts, .. } = self.spelling;
        words[word::PROMPTS] = prompts.into();
        words[word::BOUNDS..][..4].copy_from_slice(&self.spelling.bounds().map(|id| id.unwrap_or(NO_ID)));
        words[word::PIECES_BYTES] = pieces_bytes;
        let digest = digest.0.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
        words[word::SPELLING..].iter_mut().zip(digest).for_each(|(word, value)| *word = value);
        let mut bytes = [0; 4 * HEADER_WORDS];
        bytes.as_chunks_mut().0.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        bytes
    }

    /// Reads the words 0 … 255: the first chunk of a plan.
    ///
    /// # Errors
    /// `PlanError` if they are no header of this version.
    pub fn parse(bytes: &[u8; 4 * HEADER_WORDS]) -> Result<PlanHeader, PlanError> {
        let words: [u32; HEADER_WORDS] = std::array::from_fn(|i| u32::from_le_bytes(bytes.as_chunks().0[i]));
        if words[word::VERSION] != PLAN_VERSION {
            return Err(PlanError::Version(words[word::VERSION]));
        }
        let number = |field, at: usize, must| PlanError::Number { field, value: words[at], must };
        let pairs = match words[word::PAIRS] {
            0 => Pairs::Interleaved,
            1 => Pairs::Halves,
            _ => return Err(number("pairs", word::PAIRS, "0 or 1")),
        };
        if words[word::FLAGS] > 3 {
            return Err(number("flags", word::FLAGS, "at most 3"));
        }
        let ends = words[word::ENDS] as usize;
        if ends > MAX_END_TOKENS {
            return Err(PlanError::EndTokens);
        }
        let (end_tokens, rest) = words[word::ENDS + 1..word::PROMPTS].split_at(ends);
        if rest.iter().chain(&words[word::END..]).any(|word| *word != 0) {
            return Err(PlanError::Reserved);
        }
        if words[word::PROMPTS] > 1 {
            return Err(number("prompts", word::PROMPTS, "0 or 1"));
        }
        let [first, last, bos, eos] =
            std::array::from_fn(|i| Some(words[word::BOUNDS + i]).filter(|id| *id != NO_ID));
        let mut digest = Digest::ZERO;
        let places = digest.0.as_chunks_mut().0.iter_mut();
        places.zip(&words[word::SPELLING..]).for_each(|(place, word)| *place = word.to_le_bytes());
        let spelling = SpellingEntry {
            digest,
            pieces_bytes: words[word::PIECES_BYTES],
            prompts: words[word::PROMPTS] == 1,
            first,
            last,
            bos,
            eos,
        };
        let [layers, width, heads, kv_heads, head_dim, feed_forward, vocabulary, context] =
            std::array::from_fn(|i| words[word::NUMBERS + i]);
        let header = PlanHeader {
            pairs,
            layers,
            width,
            heads,
            kv_heads,
            head_dim,
            feed_forward,
            vocabulary,
            context,
            eps: f32::from_bits(words[word::EPS]),
            q_norm: words[word::FLAGS] & 1 != 0,
            k_norm: words[word::FLAGS] & 2 != 0,
            end_tokens: end_tokens.to_vec(),
            spelling,
        };
        header.check()?;
        Ok(header)
    }
}

/// A weight format of A-2, by its number in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "the field's own names")]
pub enum TensorFormat {
    /// binary32.
    F32 = 1,
    /// binary16.
    F16,
    /// bfloat16.
    BF16,
    /// 32 int8 and one binary16 scale.
    Q8_0,
    /// 32 nibbles and one binary16 scale.
    Q4_0,
    /// 256 nibbles in 8 sub-blocks.
    Q4_K,
    /// 256 six-bit codes in 16 sub-blocks.
    Q6_K,
}

impl TensorFormat {
    /// Every format, by number.
    pub const ALL: [TensorFormat; 7] = [
        TensorFormat::F32,
        TensorFormat::F16,
        TensorFormat::BF16,
        TensorFormat::Q8_0,
        TensorFormat::Q4_0,
        TensorFormat::Q4_K,
        TensorFormat::Q6_K,
    ];

    /// Its name in GGUF files and manifests.
    pub const fn name(self) -> &'static str {
        match self {
            TensorFormat::F32 => "F32",
            TensorFormat::F16 => "F16",
            TensorFormat::BF16 => "BF16",
            TensorFormat::Q8_0 => "Q8_0",
            TensorFormat::Q4_0 => "Q4_0",
            TensorFormat::Q4_K => "Q4_K",
            TensorFormat::Q6_K => "Q6_K",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<TensorFormat> {
        TensorFormat::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Elements of one block.
    pub const fn block_elements(self) -> u32 {
        match self {
            TensorFormat::F32 | TensorFormat::F16 | TensorFormat::BF16 => 1,
            TensorFormat::Q8_0 | TensorFormat::Q4_0 => 32,
            TensorFormat::Q4_K | TensorFormat::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> u32 {
        match self {
            TensorFormat::F32 => 4,
            TensorFormat::F16 | TensorFormat::BF16 => 2,
            TensorFormat::Q8_0 => 34,
            TensorFormat::Q4_0 => 18,
            TensorFormat::Q4_K => 144,
            TensorFormat::Q6_K => 210,
        }
    }
}

/// One of a layer's products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// q.
    Query,
    /// k.
    Key,
    /// v.
    Value,
    /// Of the heads' outputs.
    AttentionOutput,
    /// The gate.
    Gate,
    /// Up.
    Up,
    /// Down.
    Down,
}

impl Product {
    /// In the order of a plan.
    pub const ALL: [Product; 7] = [
        Product::Query,
        Product::Key,
        Product::Value,
        Product::AttentionOutput,
        Product::Gate,
        Product::Up,
        Product::Down,
    ];

    /// Outputs and inputs.
    fn shape(self, header: &PlanHeader) -> (u32, u32) {
        let (width, feed_forward) = (header.width, header.feed_forward);
        let (query, kv) = (header.heads * header.head_dim, header.kv_heads * header.head_dim);
        match self {
            Product::Query => (query, width),
            Product::Key | Product::Value => (kv, width),
            Product::AttentionOutput => (width, query),
            Product::Gate | Product::Up => (feed_forward, width),
            Product::Down => (width, feed_forward),
        }
    }
}

/// One of a layer's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerSlot {
    /// Of the norm before attention.
    AttentionNorm,
    /// Of each query head.
    QueryNorm,
    /// Of each key head.
    KeyNorm,
    /// Of the norm before the gated unit.
    FeedForwardNorm,
    /// The matrix of a product.
    Weight(Product),
    /// The bias of a product.
    Bias(Product),
}

/// The place of a tensor in a plan (D-2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The embedding.
    Embedding,
    /// The weight of the last norm.
    OutputNorm,
    /// The output matrix; the embedding again if the file has none.
    Output,
    /// Its bias.
    OutputBias,
    /// One of a layer's.
    Layer(u32, LayerSlot),
}

/// Slots before the first layer's, and of a layer.
const FIRST_LAYER_SLOT: usize = 4;
const LAYER_SLOTS: usize = 4 + 2 * Product::ALL.len();

/// Whether a tensor is in a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Always,
    Never,
    Either,
}

impl Slot {
    /// Its index among the tensors of a plan.
    pub fn index(self) -> usize {
        match self {
            Slot::Embedding => 0,
            Slot::OutputNorm => 1,
            Slot::Output => 2,
            Slot::OutputBias => 3,
            Slot::Layer(layer, slot) => {
                let within = match slot {
                    LayerSlot::AttentionNorm => 0,
                    LayerSlot::QueryNorm => 1,
                    LayerSlot::KeyNorm => 2,
                    LayerSlot::FeedForwardNorm => 3,
                    LayerSlot::Weight(product) => 4 + 2 * product as usize,
                    LayerSlot::Bias(product) => 5 + 2 * product as usize,
                };
                FIRST_LAYER_SLOT + layer as usize * LAYER_SLOTS + within
            }
        }
    }

    /// The slot of an index; `None` beyond what 32 bits can number.
    pub fn from_index(index: usize) -> Option<Slot> {
        let Some(index) = index.checked_sub(FIRST_LAYER_SLOT) else {
            return Some([Slot::Embedding, Slot::OutputNorm, Slot::Output, Slot::OutputBias][index]);
        };
        let layer = u32::try_from(index / LAYER_SLOTS).ok()?;
        let slot = match index % LAYER_SLOTS {
            0 => LayerSlot::AttentionNorm,
            1 => LayerSlot::QueryNorm,
            2 => LayerSlot::KeyNorm,
            3 => LayerSlot::FeedForwardNorm,
            within => {
                let product = Product::ALL[(within - 4) / 2];
                if within % 2 == 0 { LayerSlot::Weight(product) } else { LayerSlot::Bias(product) }
            }
        };
        Some(Slot::Layer(layer, slot))
    }

    /// Where its words lie in the plan, in bytes.
    pub fn bytes(self) -> Range<usize> {
        let start = 4 * (HEADER_WORDS + self.index() * TENSOR_WORDS);
        start..start + 4 * TENSOR_WORDS
    }

    /// Rows and columns that a tensor here must have.
    pub fn shape(self, header: &PlanHeader) -> (u32, u32) {
        match self {
            Slot::Embedding | Slot::Output => (header.vocabulary, header.width),
            Slot::OutputNorm => (1, header.width),
            Slot::OutputBias => (1, header.vocabulary),
            Slot::Layer(_, slot) => match slot {
                LayerSlot::AttentionNorm | LayerSlot::FeedForwardNorm => (1, header.width),
                LayerSlot::QueryNorm | LayerSlot::KeyNorm => (1, header.head_dim),
                LayerSlot::Weight(product) => product.shape(header),
                LayerSlot::Bias(product) => (1, product.shape(header).0),
            },
        }
    }

    fn presence(self, header: &PlanHeader) -> Presence {
        let if_any = |any: bool| if any { Presence::Always } else { Presence::Never };
        match self {
            Slot::OutputBias | Slot::Layer(_, LayerSlot::Bias(_)) => Presence::Either,
            Slot::Layer(_, LayerSlot::QueryNorm) => if_any(header.q_norm),
            Slot::Layer(_, LayerSlot::KeyNorm) => if_any(header.k_norm),
            _ => Presence::Always,
        }
    }

    /// Whether a tensor here is a matrix; the others are vectors, one row of `F32`.
    pub fn is_matrix(self) -> bool {
        matches!(self, Slot::Embedding | Slot::Output | Slot::Layer(_, LayerSlot::Weight(_)))
    }
}

/// Where a tensor lies in the model's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// How its elements are stored.
    pub format: TensorFormat,
    /// Elements of a row.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
    /// Its first byte in the file.
    pub offset: u64,
}

impl TensorEntry {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.columns / self.format.block_elements()) * u64::from(self.format.block_bytes())
    }

    /// Where the blocks that hold elements `columns` of row `row` lie in the file, in bytes.
    ///
    /// Panics if the tensor has no such elements; `columns` need not be whole blocks.
    pub fn bytes(&self, row: u32, columns: Range<u32>) -> Range<u64> {
        assert!(
            row < self.rows && columns.end <= self.columns && columns.start < columns.end,
            "its own elements"
        );
        let (elements, bytes) = (self.format.block_elements(), u64::from(self.format.block_bytes()));
        let start = self.offset + u64::from(row) * self.row_bytes();
        start + u64::from(columns.start / elements) * bytes
            ..start + u64::from(columns.end.div_ceil(elements)) * bytes
    }

    /// The end of its last byte in the file; `None` beyond 64 bits.
    fn end(&self) -> Option<u64> {
        u64::from(self.rows).checked_mul(self.row_bytes())?.checked_add(self.offset)
    }

    /// Checks a tensor, or its absence, against the model's numbers (D-2.3).
    fn check(tensor: Option<&TensorEntry>, slot: Slot, header: &PlanHeader) -> Result<(), PlanError> {
        let refuse = |problem| Err(PlanError::Tensor { slot, problem });
        let Some(tensor) = tensor else {
            return if slot.presence(header) == Presence::Always { refuse("is missing") } else { Ok(()) };
        };
        if slot.presence(header) == Presence::Never {
            return refuse("is there, and the flags say it is not");
        }
        if (tensor.rows, tensor.columns) != slot.shape(header) {
            return refuse("has a shape that disagrees with the model's numbers");
        }
        if !slot.is_matrix() && tensor.format != TensorFormat::F32 {
            return refuse("is a vector, and not F32");
        }
        if !tensor.columns.is_multiple_of(tensor.format.block_elements()) {
            return refuse("has rows that are not whole blocks");
        }
        if tensor.end().is_none_or(|end| end > MAX_FILE_BYTES) {
            return refuse("ends beyond any file");
        }
        Ok(())
    }

    fn to_words(self) -> [u32; TENSOR_WORDS] {
        let (low, high) = (self.offset as u32, (self.offset >> 32) as u32);
        [self.format as u32, self.columns, self.rows, low, high, 0, 0, 0]
    }

    /// Reads the words of a slot: a tensor, or none.
    ///
    /// # Errors
    /// `PlanError` if that does not belong there in a model of these numbers.
    pub fn parse(
        bytes: &[u8; 4 * TENSOR_WORDS],
        slot: Slot,
        header: &PlanHeader,
    ) -> Result<Option<TensorEntry>, PlanError> {
        let words: [u32; TENSOR_WORDS] = std::array::from_fn(|i| u32::from_le_bytes(bytes.as_chunks().0[i]));
        let [format, columns, rows, low, high, rest @ ..] = words;
        if rest != [0; 3] || format == 0 && words != [0; TENSOR_WORDS] {
            return Err(PlanError::Reserved);
        }
        let tensor = match format {
            0 => None,
            number => {
                let format = TensorFormat::ALL.get(number as usize - 1);
                let format = *format.ok_or(PlanError::Tensor { slot, problem: "has an unknown format" })?;
                Some(TensorEntry { format, columns, rows, offset: u64::from(high) << 32 | u64::from(low) })
            }
        };
        TensorEntry::check(tensor.as_ref(), slot, header)?;
        Ok(tensor)
    }
}

/// A whole plan (D-2).
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    header: PlanHeader,
    /// By slot.
    tensors: Vec<Option<TensorEntry>>,
}

impl Plan {
    /// The plan of a model of these numbers; `tensor` says where each tensor lies, or that there is none.
    ///
    /// # Errors
    /// `PlanError` if a number or tensor is out of its bounds.
    pub fn new(header: PlanHeader, tensor: impl Fn(Slot) -> Option<TensorEntry>) -> Result<Plan, PlanError> {
        header.check()?;
        let mut tensors = Vec::with_capacity(header.slots());
        for slot in (0..header.slots()).filter_map(Slot::from_index) {
            let tensor = tensor(slot);
            TensorEntry::check(tensor.as_ref(), slot, &header)?;
            tensors.push(tensor);
        }
        Ok(Plan { header, tensors })
    }

    /// The model's numbers.
    pub fn header(&self) -> &PlanHeader {
        &self.header
    }

    /// A tensor, if the model has it. Panics if the plan has no such layer.
    pub fn tensor(&self, slot: Slot) -> Option<&TensorEntry> {
        self.tensors[slot.index()].as_ref()
    }

    /// The whole string.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.to_bytes().to_vec();
        for tensor in &self.tensors {
            let words = tensor.map_or([0; TENSOR_WORDS], TensorEntry::to_words);
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        bytes
    }

    /// Its digest, under `surety 2026 plan`: what a manifest holds.
    pub fn digest(&self) -> Digest {
        Digest::of(domain::PLAN, &self.to_bytes())
    }

    /// Reads a plan; whatever is read has these bytes and no others.
    ///
    /// # Errors
    /// `PlanError` if they are no plan. At most 300 KB are read, as many as the header calls for.
    pub fn from_bytes(bytes: &[u8]) -> Result<Plan, PlanError> {
        let wrong = |expected| PlanError::Length { expected, found: bytes.len() };
        let (first, rest) = bytes.split_first_chunk().ok_or(wrong(4 * HEADER_WORDS))?;
        let header = PlanHeader::parse(first)?;
        if bytes.len() != header.plan_bytes() {
            return Err(wrong(header.plan_bytes()));
        }
        let mut tensors = Vec::with_capacity(header.slots());
        for (words, slot) in rest.as_chunks().0.iter().zip((0..header.slots()).filter_map(Slot::from_index)) {
            tensors.push(TensorEntry::parse(words, slot, &header)?);
        }
        Ok(Plan { header, tensors })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples;

    #[test]
    fn slots_are_numbered_as_the_rule_lists_them() {
        for index in 0..FIRST_LAYER_SLOT + 3 * LAYER_SLOTS {
            assert_eq!(Slot::from_index(index).map(Slot::index), Some(index));
        }
        assert_eq!(LAYER_SLOTS, 18);
        assert_eq!(Slot::Layer(0, LayerSlot::Bias(Product::Query)).index(), 4 + 5);
        assert_eq!(Slot::Layer(2, LayerSlot::Weight(Product::Down)).index(), 4 + 2 * 18 + 16);
        assert_eq!(Slot::Embedding.bytes(), 1_024..1_056);
    }

    #[test]
    fn a_plan_is_the_words_of_the_rule() {
        let plan = samples::plan();
        let bytes = plan.to_bytes();
        assert_eq!(bytes.len(), 4 * (256 + 8 * (4 + 18 * 2)));
        let word = |at: usize| u32::from_le_bytes(bytes[4 * at..4 * at + 4].try_into().expect("four bytes"));
        let header: Vec<u32> = (0..16).map(word).collect();
        let eps = 1e-5f32.to_bits();
        assert_eq!(header, [2, 0, 2, 64, 4, 2, 32, 128, 512, 256, eps, 0, 2, 2, 9, 0]);
        // What ids spell.
        assert_eq!((15..81).map(word).collect::<Vec<_>>(), [vec![0; 65], vec![1]].concat());
        assert_eq!((81..86).map(word).collect::<Vec<_>>(), [1, u32::MAX, 1, 2, 1_536]);
        let digest: Vec<u8> = (86..94).flat_map(|at| word(at).to_le_bytes()).collect();
        assert_eq!(digest, samples::spelling().digest().0);
        assert!((94..256).all(|at| word(at) == 0));
        // The embedding, then layer 1's down.
        assert_eq!((256..264).map(word).collect::<Vec<_>>(), [4, 64, 512, 4_096, 1, 0, 0, 0]);
        let at = Slot::Layer(1, LayerSlot::Weight(Product::Down)).bytes().start / 4;
        assert_eq!((at..at + 3).map(word).collect::<Vec<_>>(), [4, 128, 64]);
        assert_eq!((at + 8..at + 16).map(word).sum::<u32>(), 0, "no bias of down");
        assert_eq!(Plan::from_bytes(&bytes), Ok(plan));
    }

    #[test]
    fn tensors_say_where_their_elements_lie() {
        let tensor = TensorEntry { format: TensorFormat::Q4_K, columns: 1_024, rows: 3, offset: 1_000 };
        assert_eq!(tensor.row_bytes(), 576);
        assert_eq!(tensor.bytes(2, 0..1_024), 1_000 + 1_152..1_000 + 1_728);
        assert_eq!(tensor.bytes(0, 300..301), 1_144..1_288);
        assert_eq!(tensor.bytes(1, 256..768), 1_000 + 576 + 144..1_000 + 576 + 432);
    }

    #[test]
    fn numbers_that_no_model_has_are_named() {
        fn check(field: &str, change: impl FnOnce(&mut PlanHeader)) {
            let mut header = samples::plan().header;
            change(&mut header);
            match header.check() {
                Err(PlanError::Number { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        check("layers", |h| h.layers = 0);
        check("layers", |h| h.layers = 513);
        check("width", |h| h.width = 48);
        check("heads", |h| h.heads = 1_025);
        check("kv_heads", |h| h.kv_heads = 3);
        check("kv_heads", |h| h.kv_heads = 0);
        check("head_dim", |h| h.head_dim = 288);
        check("feed_forward", |h| h.feed_forward = 0);
        check("vocabulary", |h| h.vocabulary = (1 << 22) + 1);
        check("context", |h| h.context = 0);
        check("eps", |h| h.eps = -1e-6);
        check("eps", |h| h.eps = f32::NAN);
        check("pieces", |h| h.spelling.pieces_bytes = 1 << 31);
        check("a bound of prompts", |h| h.spelling.eos = Some(512));
        for end_tokens in [vec![2, 2], vec![3, 2], vec![512], (0..65).collect()] {
            let header = PlanHeader { end_tokens, ..samples::plan().header };
            assert_eq!(header.check(), Err(PlanError::EndTokens));
        }
        assert!(samples::plan().header.ends(9) && !samples::plan().header.ends(3));
    }

    #[test]
    fn tensors_that_do_not_belong_are_named() {
        let plan = samples::plan();
        let check = |slot: Slot, change: &dyn Fn(&mut Option<TensorEntry>), expected: &str| {
            let changed = |at: Slot| {
                let mut tensor = plan.tensor(at).copied();
                if at == slot {
                    change(&mut tensor);
                }
                tensor
            };
            let error = Plan::new(plan.header.clone(), changed).expect_err("refused");
            assert!(error.to_string().contains(expected), "{error}");
            // And the same from bytes.
            let mut other = plan.clone();
            change(&mut other.tensors[slot.index()]);
            assert_eq!(Plan::from_bytes(&other.to_bytes()), Err(error));
        };
        let gate = Slot::Layer(1, LayerSlot::Weight(Product::Gate));
        check(gate, &|tensor| *tensor = None, "is missing");
        check(gate, &|tensor| tensor.as_mut().unwrap().rows += 1, "shape");
        check(gate, &|tensor| tensor.as_mut().unwrap().format = TensorFormat::Q6_K, "whole blocks");
        check(gate, &|tensor| tensor.as_mut().unwrap().offset = MAX_FILE_BYTES - 100, "beyond any file");
        check(gate, &|tensor| tensor.as_mut().unwrap().offset = u64::MAX, "beyond any file");
        let norm = Slot::OutputNorm;
        check(norm, &|tensor| tensor.as_mut().unwrap().format = TensorFormat::F16, "not F32");
        let q_norm = Slot::Layer(0, LayerSlot::QueryNorm);
        let one = TensorEntry { format: TensorFormat::F32, columns: 32, rows: 1, offset: 0 };
        check(q_norm, &|tensor| *tensor = Some(one), "the flags say it is not");
    }

    fn headers() -> impl Strategy<Value = PlanHeader> {
        (
            (any::<bool>(), 1u32..4, 1u32..9, 1u32..9, 1u32..5, 1u32..9),
            (1u32..20, 100u32..5_000, 1u32..100_000, any::<bool>(), any::<bool>()),
            (prop::collection::btree_set(0u32..100, 0..=64), 1e-12f32..1.0),
            (any::<[u8; 32]>(), 0u32..1 << 31, any::<bool>(), any::<[Option<u8>; 4]>()),
        )
            .prop_map(
                |(
                    (pairs, layers, width, kv, group, dim),
                    (ff, vocabulary, context, q, k),
                    (ends, eps),
                    (digest, pieces_bytes, prompts, bounds),
                )| {
                    let [first, last, bos, eos] = bounds.map(|id| id.map(|id| u32::from(id) % 100));
                    PlanHeader {
                        pairs: if pairs { Pairs::Halves } else { Pairs::Interleaved },
                        layers,
                        width: 32 * width,
                        heads: kv * group,
                        kv_heads: kv,
                        head_dim: 32 * dim,
                        feed_forward: 32 * ff,
                        vocabulary,
                        context,
                        eps,
                        q_norm: q,
                        k_norm: k,
                        end_tokens: ends.into_iter().collect(),
                        spelling: SpellingEntry {
                            digest: Digest(digest),
                            pieces_bytes,
                            prompts,
                            first,
                            last,
                            bos,
                            eos,
                        },
                    }
                },
            )
    }

    fn plans() -> impl Strategy<Value = Plan> {
        (headers(), prop::collection::vec((0usize..7, 0u64..1 << 38, any::<bool>()), 4 + 18 * 3)).prop_map(
            |(header, choices)| {
                let shapes = header.clone();
                Plan::new(header, |slot| {
                    let (format, offset, there) = choices[slot.index()];
                    let (rows, columns) = slot.shape(&shapes);
                    let format = TensorFormat::ALL[if slot.is_matrix() { format } else { 0 }];
                    let whole = columns.is_multiple_of(format.block_elements());
                    let format = if whole { format } else { TensorFormat::F32 };
                    let there = match slot.presence(&shapes) {
                        Presence::Always => true,
                        Presence::Never => false,
                        Presence::Either => there,
                    };
                    there.then_some(TensorEntry { format, columns, rows, offset })
                })
                .expect("a sound plan")
            },
        )
    }

    proptest! {
        #[test]
        fn plans_survive(plan in plans(), at: prop::sample::Index, byte: u8) {
            let bytes = plan.to_bytes();
            prop_assert_eq!(&Plan::from_bytes(&bytes), &Ok(plan.clone()));
            prop_assert_eq!(plan.digest(), Digest::of(domain::PLAN, &bytes));
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] = byte;
            if let Ok(other) = Plan::from_bytes(&changed) {
                prop_assert_eq!(other.to_bytes(), changed.clone());
                prop_assert_eq!(changed == bytes, other == plan);
            }
            changed.truncate(at.index(bytes.len()));
            prop_assert!(Plan::from_bytes(&changed).is_err());
        }

        #[test]
        fn arbitrary_words_never_panic(
            mut words in prop::collection::vec(prop_oneof![4 => Just(0u32), 2 => 0u32..600, 1 => any::<u32>()], 0..700),
            sound: bool,
        ) {
            if let Some(version) = words.first_mut().filter(|_| sound) {
                *version = PLAN_VERSION;
            }
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            if let Ok(plan) = Plan::from_bytes(&bytes) {
                prop_assert_eq!(plan.to_bytes(), bytes);
            }
        }
    }
}
