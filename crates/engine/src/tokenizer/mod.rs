//! Tokenizer: text to token ids and back.
//!
//! In:     GGUF metadata; text; token ids.
//! Out:    token ids; the bytes of tokens; which tokens end a generation.
//! Touches: nothing.
//! Holds:  the same metadata and text give the same ids everywhere: no clock, randomness, locale or library's
//!         Unicode tables decide (only WordPiece lowercases and decomposes through libraries, whose versions the
//!         lockfile pins). Time is linear in the text but for the logarithm of a heap, whatever the text.
//! Absent: chat templates (`template`); regular expressions, whose work `split` does without backtracking.
//!
//! Three kinds are read, as llama.cpp reads them from GGUF: byte-level BPE (`gpt2`), SentencePiece (`llama`) and
//! WordPiece (`bert`). Where llama.cpp would drop text or stop the process because a vocabulary is incomplete,
//! this tokenizer falls back to the unknown token, or refuses the vocabulary when it is loaded.

mod bpe;
mod chain;
mod partition;
mod sentencepiece;
mod split;
mod texts;
mod trie;
mod unicode;
mod unicode_table;
mod vocabulary;
mod wordpiece;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::OnceLock;

pub use surety_types::Detokenizer;
use surety_types::{Spelling, spelling::SpellingError};

use crate::gguf::{Gguf, GgufError};
use bpe::Bpe;
use partition::{Fragment, Partition};
use sentencepiece::SentencePiece;
use split::PreTokenizer;
use vocabulary::{Attributes, Vocabulary};
use wordpiece::WordPiece;

/// Most tokens of a vocabulary.
pub const TOKENS_MAX: usize = 1 << 22;
/// Longest text of a token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4_096;

/// A hash map whose hashes do not differ between processes. It is only looked up, never walked.
type Lookup<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// What encoding does about special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Recognise the texts of control tokens. Without it they are ordinary text, as untrusted text should be.
    /// User-defined tokens are recognised either way.
    pub parse: bool,
    /// Add the tokens the metadata asks for: BOS before, EOS (or SEP) after.
    pub add: bool,
}

impl Special {
    /// Plain text, nothing added.
    pub const PLAIN: Special = Special { parse: false, add: false };
    /// Plain text, between the bounds the metadata asks for: a completion's prompt.
    pub const PLAIN_WITH_BOUNDS: Special = Special { parse: false, add: true };
    /// A rendered chat template, which writes its own special tokens.
    pub const TEMPLATE: Special = Special { parse: true, add: false };
}

/// Why a tokenizer cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A metadata value is missing or has the wrong type.
    #[error("the tokenizer's metadata is incomplete")]
    Metadata(#[from] GgufError),
    /// A kind of tokenizer this engine does not read.
    #[error(
        "tokenizer \"{model}\" is not supported; supported: gpt2 (byte-level BPE), llama (SentencePiece), bert (WordPiece)"
    )]
    Model {
        /// The value of `tokenizer.ggml.model`.
        model: String,
    },
    /// A pre-tokenizer this engine does not know.
    #[error("pre-tokenizer \"{name}\" is not supported; supported: {}", PreTokenizer::names().collect::<Vec<_>>().join(", "))]
    PreTokenizer {
        /// The value of `tokenizer.ggml.pre`.
        name: String,
    },
    /// No tokens, or too many.
    #[error("the vocabulary has {count} tokens; 1 to {TOKENS_MAX} are allowed")]
    Size {
        /// The number of tokens.
        count: usize,
    },
    /// A token's text is too long.
    #[error("token {id} is {bytes} bytes long; at most {TOKEN_BYTES_MAX} are allowed")]
    TooLong {
        /// The token.
        id: u32,
        /// Its length.
        bytes: usize,
    },
    /// Two tokens with the same text.
    #[error("tokens {first} and {second} are both \"{text}\"")]
    Duplicate {
        /// The first of them.
        first: u32,
        /// The second.
        second: u32,
        /// Their text.
        text: String,
    },
    /// A table that does not have an entry for each token.
    #[error("{key} has {found} entries for {tokens} tokens")]
    Length {
        /// The metadata key.
        key: &'static str,
        /// Entries it has.
        found: usize,
        /// Tokens of the vocabulary.
        tokens: usize,
    },
    /// A score that is not a number.
    #[error("the score of token {id} is not a number")]
    Score {
        /// The token.
        id: u32,
    },
    /// A byte token whose text is not of the form `<0x0A>`.
    #[error("token {id} is marked as a byte, but its text is \"{text}\", not of the form <0x0A>")]
    Byte {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// A merge that does not name two parts.
    #[error("merge {index}, \"{text}\", is not two parts separated by a space")]
    Merge {
        /// Its place in the list.
        index: usize,
        /// Its text.
        text: String,
    },
    /// A special token outside the vocabulary.
    #[error("{key} is {id}, but the vocabulary has {tokens} tokens")]
    SpecialRange {
        /// The metadata key.
        key: &'static str,
        /// The id it names.
        id: u32,
        /// Tokens of the vocabulary.
        tokens: usize,
    },
    /// A special token that is to be added and does not exist.
    #[error("the metadata asks to add a {name} token, but names none")]
    MissingSpecial {
        /// BOS or EOS.
        name: &'static str,
    },
}

/// A model's tokenizer.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    partition: Partition,
    kind: Kind,
    /// Added before a text, when asked to add.
    first: Option<u32>,
    /// Added after a text, when asked to add.
    last: Option<u32>,
    /// The tokens as a tree, once an answer has a grammar.
    constrainable: OnceLock<surety_grammar::Vocabulary>,
}

enum Kind {
    Bpe(Bpe),
    SentencePiece(SentencePiece),
    WordPiece(WordPiece),
}

impl Tokenizer {
    /// Builds the tokenizer that a model file describes.
    ///
    /// # Errors
    /// `TokenizerError` says what is unsupported, missing or contradictory.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        match gguf.string("tokenizer.ggml.model")? {
            "gpt2" => Self::byte_level_bpe(gguf),
            "llama" => Self::sentence_piece(gguf),
            "bert" => Self::word_piece(gguf),
            model => Err(TokenizerError::Model { model: model.to_owned() }),
        }
    }

    fn byte_level_bpe(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let name = gguf.optional_string("tokenizer.ggml.pre")?.unwrap_or("default");
        let splitter = PreTokenizer::named(name)
            .ok_or_else(|| TokenizerError::PreTokenizer { name: name.to_owned() })?;
        let vocabulary = Vocabulary::from_gguf(gguf, vocabulary::Spelling::ByteLevel)?;
        let merges = gguf.strings("tokenizer.ggml.merges")?;
        let kind = Kind::Bpe(Bpe::new(splitter, &vocabulary, merges)?);
        Self::new(gguf, vocabulary, kind, splitter.add_bos)
    }

    fn sentence_piece(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::from_gguf(gguf, vocabulary::Spelling::SentencePiece)?;
        let add_space_prefix = gguf.optional_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let kind = Kind::SentencePiece(SentencePiece::new(gguf, &vocabulary, add_space_prefix)?);
        Self::new(gguf, vocabulary, kind, true)
    }

    fn word_piece(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::from_gguf(gguf, vocabulary::Spelling::WordPiece)?;
        let kind = Kind::WordPiece(WordPiece::new(gguf, &vocabulary)?);
        let (first, last) = (vocabulary.special.bos, vocabulary.special.separator);
        Ok(Self {
            partition: Partition::new(&vocabulary),
            vocabulary,
            kind,
            first,
            last,
            constrainable: OnceLock::new(),
        })
    }

    fn new(gguf: &Gguf, vocabulary: Vocabulary, kind: Kind, add_bos: bool) -> Result<Self, TokenizerError> {
        let added = |key, default, name, id: Option<u32>| {
            let wanted = gguf.optional_bool(key)?.unwrap_or(default);
            match (wanted, id) {
                (true, None) => Err(TokenizerError::MissingSpecial { name }),
                (true, id) => Ok(id),
                (false, _) => Ok(None),
            }
        };
        let first = added("tokenizer.ggml.add_bos_token", add_bos, "BOS", vocabulary.special.bos)?;
        let last = added("tokenizer.ggml.add_eos_token", false, "EOS", vocabulary.special.eos)?;
        Ok(Self {
            partition: Partition::new(&vocabulary),
            vocabulary,
            kind,
            first,
            last,
            constrainable: OnceLock::new(),
        })
    }

    /// The ids of `text`.
    ///
    /// Panics if the text is 4 GiB long or longer.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        assert!(u32::try_from(text.len()).is_ok(), "positions in a text are u32");
        let mut ids = Vec::new();
        ids.extend(self.first.filter(|_| special.add));
        let fragments = self.partition.split(&self.vocabulary, text, special.parse);
        match &self.kind {
            Kind::Bpe(bpe) => {
                let mut encoder = bpe.encoder(&self.vocabulary);
                Self::each(&fragments, &mut ids, |text, _, ids| encoder.encode(text, ids));
            }
            Kind::SentencePiece(sentence_piece) => {
                let mut encoder = sentence_piece.encoder(&self.vocabulary);
                Self::each(&fragments, &mut ids, |text, first, ids| encoder.encode(text, first, ids));
            }
            Kind::WordPiece(word_piece) => {
                Self::each(&fragments, &mut ids, |text, _, ids| {
                    word_piece.encode(&self.vocabulary, text, ids)
                });
            }
        }
        ids.extend(self.last.filter(|_| special.add));
        ids
    }

    /// Encodes each fragment in order. `encode` also learns whether the text begins or follows a special token.
    fn each(
        fragments: &[Fragment<'_>],
        ids: &mut Vec<u32>,
        mut encode: impl FnMut(&str, bool, &mut Vec<u32>),
    ) {
        let mut after_special = true;
        for fragment in fragments {
            match *fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(text) => encode(text, after_special, ids),
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
    }

    /// The text of `ids` as a reader sees it, in bytes: control tokens are silent.
    ///
    /// Not necessarily UTF-8: a model may produce any bytes, and a character may be cut at either end.
    pub fn decode_bytes(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter().flat_map(|&id| self.text_bytes(id)).copied().collect()
    }

    /// The bytes `id` adds to the text: those of `token_bytes`, or none if it is a control token.
    pub fn text_bytes(&self, id: u32) -> &[u8] {
        if self.is_control(id) { &[] } else { self.token_bytes(id) }
    }

    /// The bytes of `id`, control tokens spelled out; none if the vocabulary has no such id.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.piece(id)
    }

    /// Whether `id` is a control token (or the unknown token), which has no place in delivered text.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.attributes(id).has_any(Attributes::CONTROL | Attributes::UNKNOWN)
    }

    /// The id of the token spelled `text` in the vocabulary.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocabulary.id(text)
    }

    /// Number of tokens.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.vocabulary.special.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.vocabulary.special.eos
    }

    /// What stands before and after the ids of a text that bounds are added to.
    pub fn bounds(&self) -> (Option<u32>, Option<u32>) {
        (self.first, self.last)
    }

    /// What every id spells, for disputes (D-2.4).
    ///
    /// # Errors
    /// `SpellingError` if one of them spells more than is judged.
    pub fn spelling(&self) -> Result<Spelling, SpellingError> {
        let ids = 0..self.vocabulary.len() as u32;
        Spelling::new(ids.map(|id| (self.token_bytes(id), self.is_control(id))))
    }

    /// The tokens as masks go by them (G-7).
    pub(crate) fn constrainable(&self) -> &surety_grammar::Vocabulary {
        self.constrainable.get_or_init(|| {
            let ids = 0..self.vocabulary.len() as u32;
            let ends = |id| self.is_end_of_generation(id);
            surety_grammar::Vocabulary::new(ids.map(|id| (!ends(id)).then(|| self.text_bytes(id))))
        })
    }

    /// Whether the ids of every text, with the texts of special tokens recognised or not, spell it byte for byte.
    ///
    /// SentencePiece and WordPiece change spaces; some vocabularies lack bytes, spell a token otherwise than they read it,
    /// or have tokens that swallow white space.
    pub fn spells_prompts(&self) -> bool {
        match &self.kind {
            Kind::Bpe(bpe) => self.vocabulary.spells_what_it_reads(&bpe.reached(&self.vocabulary)),
            Kind::SentencePiece(_) | Kind::WordPiece(_) => false,
        }
    }

    /// Whether a model that produces `id` has finished.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.vocabulary.ends.binary_search(&id).is_ok()
    }

    /// The ids for which `is_end_of_generation` holds, in ascending order.
    pub fn ends_of_generation(&self) -> &[u32] {
        &self.vocabulary.ends
    }

    /// Feeds everything that determines this tokenizer's behaviour to `update`, in one canonical order.
    pub fn describe(&self, update: &mut dyn FnMut(&[u8])) {
        let mut description = Description { update };
        description.text("surety tokenizer 1");
        self.vocabulary.describe(&mut description);
        match &self.kind {
            Kind::Bpe(bpe) => bpe.describe(&mut description),
            Kind::SentencePiece(sentence_piece) => sentence_piece.describe(&mut description),
            Kind::WordPiece(word_piece) => word_piece.describe(&mut description),
        }
        description.id(self.first);
        description.id(self.last);
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("tokens", &self.vocabulary.len()).finish_non_exhaustive()
    }
}

/// Writes a description: numbers little-endian, everything of variable length after its length.
struct Description<'a> {
    update: &'a mut dyn FnMut(&[u8]),
}

impl Description<'_> {
    fn number(&mut self, value: u64) {
        (self.update)(&value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        (self.update)(text.as_bytes());
    }

    fn flag(&mut self, value: bool) {
        (self.update)(&[value.into()]);
    }

    fn id(&mut self, id: Option<u32>) {
        self.number(id.map_or(u64::MAX, u64::from));
    }
}

#[cfg(test)]
mod tests;
