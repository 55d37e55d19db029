//! SentencePiece vocabularies: merging by score, with bytes to fall back on.
//!
//! In:     stretches of ordinary text.
//! Out:    token ids.
//! Touches: nothing.
//! Holds:  the neighbouring pair whose union is the token of the highest score is merged first, the leftmost of
//!         equal ones; n characters cost O(n log n), whatever they are.
//! Absent: normalisation other than writing spaces as `▁`.
//!
//! Source: Kudo and Richardson 2018, in the form llama.cpp gives it.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::chain::{Chain, Merging};
use super::vocabulary::Vocabulary;
use super::{Description, TokenizerError};
use crate::gguf::Gguf;

const SCORES: &str = "tokenizer.ggml.scores";

/// What a SentencePiece vocabulary needs besides its tokens.
pub(super) struct SentencePiece {
    /// By token: lower for a higher score.
    ranks: Vec<u32>,
    /// Every two characters that stand side by side in some token. Nothing is ever merged across others.
    neighbours: HashSet<(char, char), BuildHasherDefault<DefaultHasher>>,
    /// The tokens for each byte of a character that is no token.
    bytes: Vec<Option<u32>>,
    /// Texts begin with a space that is not there.
    add_space_prefix: bool,
    token_bytes_max: usize,
}

impl SentencePiece {
    pub(super) fn new(
        gguf: &Gguf,
        vocabulary: &Vocabulary,
        add_space_prefix: bool,
    ) -> Result<Self, TokenizerError> {
        let tokens = vocabulary.len();
        let scores = scores(gguf, tokens)?;
        let mut ranks = Vec::with_capacity(tokens);
        for (id, &score) in (0u32..).zip(&scores) {
            if score.is_nan() {
                return Err(TokenizerError::Score { id });
            }
            ranks.push(rank(score));
        }
        let byte = |byte: u8| {
            let character = char::from(byte);
            let plain = byte.is_ascii().then(|| vocabulary.id(character.encode_utf8(&mut [0; 4])));
            vocabulary.id(&format!("<0x{byte:02X}>")).or(plain.flatten())
        };
        let bytes = (0..=255).map(byte).collect();
        let token_bytes_max = (0..tokens as u32).map(|id| vocabulary.text(id).len()).max().unwrap_or(0);
        let texts = (0..tokens as u32).map(|id| vocabulary.text(id));
        let neighbours = texts.flat_map(|text| text.chars().zip(text.chars().skip(1))).collect();
        Ok(Self { ranks, neighbours, bytes, add_space_prefix, token_bytes_max })
    }

    pub(super) fn encoder<'a>(&'a self, vocabulary: &'a Vocabulary) -> Encoder<'a> {
        Encoder { model: self, vocabulary, text: String::new(), chain: Chain::new() }
    }

    pub(super) fn describe(&self, description: &mut Description<'_>) {
        description.flag(self.add_space_prefix);
        self.ranks.iter().for_each(|&rank| description.number(rank.into()));
    }
}

/// One score per token; integers are accepted, and a missing table means all are equal.
fn scores(gguf: &Gguf, tokens: usize) -> Result<Vec<f32>, TokenizerError> {
    let scores = match gguf.optional_floats(SCORES) {
        Ok(None) => return Ok(vec![0.0; tokens]),
        Ok(Some(scores)) => scores.to_vec(),
        Err(error) => match gguf.integers(SCORES) {
            Ok(scores) => scores.iter().map(|&score| score as f32).collect(),
            Err(_) => return Err(error.into()),
        },
    };
    if scores.len() < tokens {
        return Err(TokenizerError::Length { key: SCORES, found: scores.len(), tokens });
    }
    Ok(scores[..tokens].to_vec())
}

/// A number that orders against the score: lower for a higher score, equal for 0 and −0.
fn rank(score: f32) -> u32 {
    const SIGN: u32 = 1 << 31;
    let bits = (score + 0.0).to_bits();
    if bits & SIGN == 0 { !(bits | SIGN) } else { bits }
}

/// A stretch of the text being encoded.
#[derive(Clone, Copy)]
struct Stretch {
    start: u32,
    bytes: u32,
}

/// Encodes text, keeping its memory from text to text.
pub(super) struct Encoder<'a> {
    model: &'a SentencePiece,
    vocabulary: &'a Vocabulary,
    text: String,
    chain: Chain<Stretch>,
}

/// The pairs of one text.
struct Pairs<'a> {
    model: &'a SentencePiece,
    vocabulary: &'a Vocabulary,
    text: &'a str,
}

impl Pairs<'_> {
    fn text(&self, stretch: Stretch) -> &str {
        &self.text[stretch.start as usize..][..stretch.bytes as usize]
    }
}

impl Merging for Pairs<'_> {
    type Symbol = Stretch;

    fn rank(&self, left: Stretch, right: Stretch) -> Option<u32> {
        let union = self.join(0, left, right);
        if union.bytes as usize > self.model.token_bytes_max {
            return None;
        }
        self.vocabulary.id(self.text(union)).map(|id| self.model.ranks[id as usize])
    }

    fn join(&self, _: u32, left: Stretch, right: Stretch) -> Stretch {
        Stretch { start: left.start, bytes: left.bytes + right.bytes }
    }
}

impl Encoder<'_> {
    /// `first`: the text begins the prompt or follows a special token.
    pub(super) fn encode(&mut self, text: &str, first: bool, ids: &mut Vec<u32>) {
        self.text.clear();
        if first && self.model.add_space_prefix {
            self.text.push('▁');
        }
        self.text.extend(text.chars().map(|character| if character == ' ' { '▁' } else { character }));
        assert!(u32::try_from(self.text.len()).is_ok(), "positions in a text are u32");
        let pairs = Pairs { model: self.model, vocabulary: self.vocabulary, text: &self.text };
        // What lies on both sides of two characters that are neighbours in no token is independent. Encoding
        // such parts one by one changes nothing, but keeps most chains short.
        let mut ends =
            pairs.text.char_indices().zip(pairs.text.chars().skip(1)).filter_map(|((place, left), right)| {
                let apart = !self.model.neighbours.contains(&(left, right));
                apart.then(|| place + left.len_utf8())
            });
        let mut start = 0;
        while start < pairs.text.len() {
            let end = ends.next().unwrap_or(pairs.text.len());
            let symbols = pairs.text[start..end].char_indices().map(|(offset, character)| Stretch {
                start: (start + offset) as u32,
                bytes: character.len_utf8() as u32,
            });
            self.chain.merge(&pairs, symbols);
            for stretch in self.chain.symbols() {
                let symbol = pairs.text(stretch);
                match self.vocabulary.id(symbol) {
                    Some(id) => ids.push(id),
                    None => fall_back(self.model, self.vocabulary, symbol, ids),
                }
            }
            start = end;
        }
    }
}

/// A character that is no token: its bytes, or the unknown token if the vocabulary has no tokens for them.
fn fall_back(model: &SentencePiece, vocabulary: &Vocabulary, symbol: &str, ids: &mut Vec<u32>) {
    let start = ids.len();
    for byte in symbol.bytes() {
        match model.bytes[usize::from(byte)] {
            Some(id) => ids.push(id),
            None => {
                ids.truncate(start);
                ids.extend(vocabulary.special.unknown);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn ranks_order_against_scores() {
        let descending = [f32::INFINITY, 2.0, 1e-40, 0.0, -1e-40, -1.5, -1e9, f32::NEG_INFINITY];
        assert!(descending.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
        assert_eq!(rank(0.0), rank(-0.0));
        assert!(rank(f32::NEG_INFINITY) < u32::MAX);
    }
}
