//! WordPiece vocabularies.
//!
//! In:     stretches of ordinary text.
//! Out:    token ids.
//! Touches: nothing.
//! Holds:  each word becomes the longest tokens that make it up from the left, or the unknown token if they do
//!         not; time is linear in the text.
//! Absent: CLS and SEP (`mod` adds them).
//!
//! Source: the BERT tokenizer, Devlin et al. 2019, in the form llama.cpp gives it: words begin with `▁`, and an
//! accented character loses its accent by becoming the first character of its decomposition.

use unicode_normalization::char::decompose_canonical;

use super::trie::Trie;
use super::unicode::{CONTROL, MARK, PUNCTUATION, SPACE, SYMBOL, class};
use super::vocabulary::Vocabulary;
use super::{Description, TokenizerError};
use crate::gguf::Gguf;

/// The words of a vocabulary and how text is brought to their form.
pub(super) struct WordPiece {
    trie: Trie,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    pub(super) fn new(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let lowercase = gguf.optional_bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
        let strip_accents =
            gguf.optional_bool("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
        let mut trie = Trie::default();
        (0..vocabulary.len() as u32).for_each(|id| trie.insert(vocabulary.text(id).as_bytes(), id));
        Ok(Self { trie, lowercase, strip_accents })
    }

    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) {
        let mut word = String::new();
        let mut finish = |word: &mut String| {
            if !word.is_empty() {
                self.encode_word(vocabulary, word, ids);
                word.clear();
            }
        };
        for character in text.chars() {
            let character = if self.strip_accents { base(character) } else { character };
            let class = class(character);
            if class & SPACE != 0 {
                finish(&mut word);
                continue;
            }
            let dropped = matches!(character, '\0' | char::REPLACEMENT_CHARACTER) || class & CONTROL != 0;
            if dropped || (self.strip_accents && class & MARK != 0) {
                continue;
            }
            let alone = class & PUNCTUATION != 0
                || (character.is_ascii() && class & SYMBOL != 0)
                || is_ideograph(character);
            let character = if self.lowercase { lower(character) } else { character };
            if alone {
                finish(&mut word);
                word.push(character);
                finish(&mut word);
            } else {
                word.push(character);
            }
        }
        finish(&mut word);
    }

    fn encode_word(&self, vocabulary: &Vocabulary, word: &mut String, ids: &mut Vec<u32>) {
        word.insert(0, '▁');
        let start = ids.len();
        let mut rest = word.as_bytes();
        while !rest.is_empty() {
            let Some((length, id)) = self.trie.prefixes(rest).last() else {
                ids.truncate(start);
                ids.extend(vocabulary.special.unknown);
                return;
            };
            ids.push(id);
            rest = &rest[length..];
        }
    }

    pub(super) fn describe(&self, description: &mut Description<'_>) {
        description.flag(self.lowercase);
        description.flag(self.strip_accents);
    }
}

/// The first character of the canonical decomposition.
fn base(character: char) -> char {
    let mut first = None;
    decompose_canonical(character, |part| {
        first.get_or_insert(part);
    });
    first.unwrap_or(character)
}

/// The simple lower-case form.
fn lower(character: char) -> char {
    character.to_lowercase().next().unwrap_or(character)
}

/// Ideographs, each a word of its own. The fifth range begins where the original tokenizer's does.
fn is_ideograph(character: char) -> bool {
    matches!(
        u32::from(character),
        0x4e00..=0x9fff
            | 0x3400..=0x4dbf
            | 0x2_0000..=0x2_a6df
            | 0x2_a700..=0x2_b73f
            | 0x2_b740..=0x2_b81f
            | 0x2_b920..=0x2_ceaf
            | 0xf900..=0xfaff
            | 0x2_f800..=0x2_fa1f
    )
}
