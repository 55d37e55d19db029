//! Byte-level byte-pair encoding.
//!
//! In:     stretches of ordinary text.
//! Out:    token ids.
//! Touches: nothing.
//! Holds:  within a piece, the pair with the lowest rank is merged first, the leftmost of equal ones; n
//!         characters cost O(n log n), whatever they are.
//! Absent: cutting text into pieces (`split`).
//!
//! Source: Sennrich et al. 2016; byte-level alphabet, Radford et al. 2019.

use super::chain::{Chain, Merging};
use super::split::PreTokenizer;
use super::vocabulary::{Vocabulary, byte_character};
use super::{Description, Lookup, TOKEN_BYTES_MAX, TokenizerError};
use crate::gguf::Strings;

/// The merges of a vocabulary.
///
/// Symbols are what pieces are made of while merging. A symbol that is a token has the token's id; the others
/// (bytes without a token, and results of merges that are no tokens) have ids above the vocabulary.
pub(super) struct Bpe {
    splitter: PreTokenizer,
    /// The symbol of each byte.
    bytes: Box<[u32; 256]>,
    /// By rank.
    merges: Vec<Merge>,
    /// Rank by the pair of symbols merged, packed by `pair`.
    ranks: Lookup<u64, u32>,
    /// For the symbols above the vocabulary: their texts, and the tokens that stand for them.
    others: Vec<Other>,
}

struct Merge {
    left: u32,
    right: u32,
    merged: u32,
}

struct Other {
    text: Box<str>,
    tokens: Vec<u32>,
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl Bpe {
    pub(super) fn new(
        splitter: PreTokenizer,
        vocabulary: &Vocabulary,
        merges: &Strings,
    ) -> Result<Self, TokenizerError> {
        let mut symbols = Symbols { vocabulary, others: Vec::new(), ids: Lookup::default() };
        let bytes = Box::new(std::array::from_fn(|byte| {
            let character = byte_character(byte as u8);
            symbols.intern(character.encode_utf8(&mut [0; 4]))
        }));
        let (ranks, others) = (Lookup::default(), Vec::new());
        let mut bpe = Self { splitter, bytes, merges: Vec::new(), ranks, others };
        bpe.ranks.reserve(merges.len());
        for (index, text) in merges.iter().enumerate() {
            let malformed = || TokenizerError::Merge { index, text: text.to_owned() };
            // The first part may itself begin with a space.
            let first = text.chars().next().map_or(0, char::len_utf8);
            let space = text[first..].find(' ').ok_or_else(malformed)? + first;
            let (left, right) = (&text[..space], &text[space + 1..]);
            if right.is_empty() {
                return Err(malformed());
            }
            let merge = Merge {
                left: symbols.intern(left),
                right: symbols.intern(right),
                merged: symbols.intern(&[left, right].concat()),
            };
            // A pair that is listed twice keeps its first rank.
            bpe.ranks.entry(pair(merge.left, merge.right)).or_insert(index as u32);
            bpe.merges.push(merge);
        }
        bpe.others = symbols.others;
        Ok(bpe)
    }

    pub(super) fn encoder<'a>(&'a self, vocabulary: &'a Vocabulary) -> Encoder<'a> {
        Encoder { bpe: self, vocabulary, chain: Chain::new(), spelled: String::new() }
    }

    /// Of each token, whether ordinary text can become it.
    pub(super) fn reached(&self, vocabulary: &Vocabulary) -> Vec<bool> {
        let mut reached = vec![self.splitter.ignore_merges; vocabulary.len()];
        let merged = self.merges.iter().map(|merge| merge.merged);
        let stand_ins = self.others.iter().flat_map(|other| other.tokens.iter().copied());
        for id in self.bytes.iter().copied().chain(merged).chain(stand_ins) {
            // Those above the vocabulary are no tokens.
            reached.get_mut(id as usize).into_iter().for_each(|reached| *reached = true);
        }
        reached
    }

    pub(super) fn describe(&self, description: &mut Description<'_>) {
        description.text(self.splitter.family);
        description.flag(self.splitter.ignore_merges);
        description.number(self.others.len() as u64);
        self.others.iter().for_each(|other| description.text(&other.text));
        description.number(self.merges.len() as u64);
        for merge in &self.merges {
            description.number(pair(merge.left, merge.right));
            description.number(merge.merged.into());
        }
    }
}

/// Gives every text that merging can meet a symbol.
struct Symbols<'a> {
    vocabulary: &'a Vocabulary,
    others: Vec<Other>,
    ids: Lookup<Box<str>, u32>,
}

impl Symbols<'_> {
    fn intern(&mut self, text: &str) -> u32 {
        if let Some(id) = self.vocabulary.id(text).or_else(|| self.ids.get(text).copied()) {
            return id;
        }
        let id = (self.vocabulary.len() + self.others.len()) as u32;
        self.ids.insert(text.into(), id);
        self.others.push(Other { text: text.into(), tokens: self.stand_in(text) });
        id
    }

    /// The tokens for a text that is none: those of its characters, or the unknown token for the rest.
    fn stand_in(&self, text: &str) -> Vec<u32> {
        let unknown = self.vocabulary.special.unknown;
        let token = |character: char| self.vocabulary.id(character.encode_utf8(&mut [0; 4])).or(unknown);
        text.chars().filter_map(token).collect()
    }
}

impl Merging for Bpe {
    type Symbol = u32;

    fn rank(&self, left: u32, right: u32) -> Option<u32> {
        self.ranks.get(&pair(left, right)).copied()
    }

    fn join(&self, rank: u32, _: u32, _: u32) -> u32 {
        self.merges[rank as usize].merged
    }
}

/// Encodes text, keeping its memory from text to text.
pub(super) struct Encoder<'a> {
    bpe: &'a Bpe,
    vocabulary: &'a Vocabulary,
    chain: Chain<u32>,
    spelled: String,
}

impl Encoder<'_> {
    pub(super) fn encode(&mut self, text: &str, ids: &mut Vec<u32>) {
        let mut start = 0;
        for end in self.bpe.splitter.split(text) {
            self.encode_piece(&text.as_bytes()[start..end], ids);
            start = end;
        }
    }

    fn encode_piece(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        if self.bpe.splitter.ignore_merges && piece.len() <= TOKEN_BYTES_MAX {
            self.spelled.clear();
            self.spelled.extend(piece.iter().map(|&byte| byte_character(byte)));
            if let Some(id) = self.vocabulary.id(&self.spelled) {
                ids.push(id);
                return;
            }
        }
        self.chain.merge(self.bpe, piece.iter().map(|&byte| self.bpe.bytes[usize::from(byte)]));
        let tokens = self.vocabulary.len() as u32;
        for symbol in self.chain.symbols() {
            match symbol.checked_sub(tokens) {
                None => ids.push(symbol),
                Some(other) => ids.extend_from_slice(&self.bpe.others[other as usize].tokens),
            }
        }
    }
}
