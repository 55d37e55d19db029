//! Byte-level BPE: learned from speeches, written as a GPT-2 vocabulary.
//!
//! In:     ASCII text, cut into pieces as GPT-2 cuts it.
//! Out:    tokens, merges in order of rank, and token ids for a text.
//! Holds:  ids 0–255 are the bytes in GPT-2's order, then one id per merge, then the control token.
//! Absent: text beyond ASCII, which is refused: GPT-2's split asks for Unicode classes there.
//!
//! Source: Sennrich et al. 2016; Radford et al. 2019; merge dropout, Provilkov et al. 2020.

use std::collections::HashMap;

use crate::byte_alphabet::{bytes_in_order, spell};
use crate::rng::Rng;

/// The control token that ends a speech: the blank line of the text.
pub const END: &str = "<|end|>";

/// A learned vocabulary.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Bytes of each token but the control token, which comes last and has none.
    tokens: Vec<Vec<u8>>,
    /// Pairs of ids in the order they were learned; merge `i` gives id `256 + i`.
    merges: Vec<(u32, u32)>,
    ranks: HashMap<(u32, u32), u32>,
    id_of_byte: [u32; 256],
}

impl Vocabulary {
    /// Learns a vocabulary of `size` tokens: bytes, merges, and the control token.
    ///
    /// The most frequent pair is merged first; among equals the one of lowest ids.
    /// Panics if `size` is under 257, or if the text is too short to give that many merges.
    pub fn learn(speeches: &[&str], size: usize) -> Vocabulary {
        assert!(size > 256, "a byte-level vocabulary starts with 256 tokens");
        let mut id_of_byte = [0; 256];
        let mut tokens = Vec::with_capacity(size);
        for (id, byte) in bytes_in_order().enumerate() {
            id_of_byte[usize::from(byte)] = id as u32;
            tokens.push(vec![byte]);
        }
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for piece in speeches.iter().flat_map(|speech| pieces(speech)) {
            *counts.entry(piece).or_default() += 1;
        }
        let mut words: Vec<(Vec<u32>, u64)> = counts
            .iter()
            .map(|(piece, count)| (piece.bytes().map(|byte| id_of_byte[usize::from(byte)]).collect(), *count))
            .collect();
        words.sort_unstable();

        let mut merges = Vec::new();
        while tokens.len() + 1 < size {
            let mut pairs: HashMap<(u32, u32), u64> = HashMap::new();
            for (word, count) in &words {
                for pair in word.windows(2) {
                    *pairs.entry((pair[0], pair[1])).or_default() += count;
                }
            }
            let best = pairs.into_iter().max_by_key(|(pair, count)| (*count, std::cmp::Reverse(*pair)));
            let (pair, _) = best.expect("the text is long enough for the vocabulary asked for");
            let id = tokens.len() as u32;
            tokens.push([tokens[pair.0 as usize].as_slice(), &tokens[pair.1 as usize]].concat());
            merges.push(pair);
            words.iter_mut().for_each(|(word, _)| merge_pair(word, pair, id));
        }
        let ranks = merges.iter().enumerate().map(|(rank, pair)| (*pair, rank as u32)).collect();
        Vocabulary { tokens, merges, ranks, id_of_byte }
    }

    /// Tokens, the control token included.
    pub fn size(&self) -> usize {
        self.tokens.len() + 1
    }

    /// The id of the control token.
    pub fn end(&self) -> u32 {
        self.tokens.len() as u32
    }

    /// Appends the ids of a speech, without the control token.
    ///
    /// With a `dropout`, each possible merge is passed over with that probability each time it is
    /// considered, so that a word is seen in several spellings.
    pub fn encode(&self, speech: &str, mut dropout: Option<(&mut Rng, f32)>, ids: &mut Vec<u32>) {
        for piece in pieces(speech) {
            let start = ids.len();
            ids.extend(piece.bytes().map(|byte| self.id_of_byte[usize::from(byte)]));
            loop {
                let candidates = ids[start..].windows(2).enumerate().filter_map(|(at, pair)| {
                    let rank = *self.ranks.get(&(pair[0], pair[1]))?;
                    let dropped = dropout.as_mut().is_some_and(|(rng, probability)| rng.chance(*probability));
                    (!dropped).then_some((rank, start + at))
                });
                let Some((rank, at)) = candidates.min() else { break };
                ids[at] = 256 + rank;
                ids.remove(at + 1);
            }
        }
    }

    /// The tokens as GGUF wants them: bytes spelled as GPT-2's printable characters.
    pub fn spelled_tokens(&self) -> Vec<String> {
        let control = [END.to_owned()];
        self.tokens.iter().map(|token| spell(token)).chain(control).collect()
    }

    /// The merges as GGUF wants them: two spelled tokens with a space between.
    pub fn spelled_merges(&self) -> Vec<String> {
        let spelled = |id: u32| spell(&self.tokens[id as usize]);
        self.merges.iter().map(|(left, right)| format!("{} {}", spelled(*left), spelled(*right))).collect()
    }
}

fn merge_pair(word: &mut Vec<u32>, pair: (u32, u32), id: u32) {
    let mut at = 0;
    while at + 1 < word.len() {
        if (word[at], word[at + 1]) == pair {
            word[at] = id;
            word.remove(at + 1);
        }
        at += 1;
    }
}

/// Cuts ASCII text as GPT-2's pattern does:
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    assert!(text.is_ascii(), "the split is written for ASCII");
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(piece_len(rest.as_bytes()));
        rest = after;
        Some(piece)
    })
}

fn piece_len(text: &[u8]) -> usize {
    const SUFFIXES: [&[u8]; 7] = [b"'s", b"'t", b"'re", b"'ve", b"'m", b"'ll", b"'d"];
    if let Some(suffix) = SUFFIXES.iter().find(|suffix| text.starts_with(suffix)) {
        return suffix.len();
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let is_other = |byte: &u8| !is_space(byte) && !byte.is_ascii_alphanumeric();
    let classes: [&dyn Fn(&u8) -> bool; 3] =
        [&|byte| byte.is_ascii_alphabetic(), &|byte| byte.is_ascii_digit(), &is_other];
    let lead = usize::from(text[0] == b' ');
    for class in classes {
        let run = text[lead..].iter().take_while(|byte| class(byte)).count();
        if run > 0 {
            return lead + run;
        }
    }
    // A run of spaces leaves its last one to the word that follows.
    let spaces = text.iter().take_while(|byte| is_space(byte)).count();
    if spaces < text.len() && spaces > 1 { spaces - 1 } else { spaces }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEECH: &str = "All:\nWe know't, we know't; the old man  knows they'll come at 12 o'clock.\n";

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(pieces(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn text_is_cut_as_gpt2_cuts_it() {
        check("All:\nSpeak, speak.", &["All", ":", "\n", "Speak", ",", " speak", "."]);
        check("We know't; we'll", &["We", " know", "'t", ";", " we", "'ll"]);
        check("'Tis  so --die", &["'", "Tis", " ", " so", " --", "die"]);
        check("in 1595 \n ", &["in", " 1595", " \n "]);
        check("a \n\nb", &["a", " \n", "\n", "b"]);
        check("", &[]);
    }

    #[test]
    fn encoding_covers_the_text() {
        let vocabulary = Vocabulary::learn(&[SPEECH, SPEECH], 280);
        assert_eq!((vocabulary.size(), vocabulary.end()), (280, 279));
        let spelled = vocabulary.spelled_tokens();
        let check = |dropout: Option<(&mut Rng, f32)>| {
            let mut ids = Vec::new();
            vocabulary.encode(SPEECH, dropout, &mut ids);
            let text: String = ids.iter().map(|id| spelled[*id as usize].as_str()).collect();
            assert_eq!(text, spell(SPEECH.as_bytes()));
            ids.len()
        };
        let whole = check(None);
        assert!(whole < SPEECH.len() * 3 / 4);
        assert!(check(Some((&mut Rng::keyed(&[1]), 0.3))) > whole);
        assert_eq!(check(Some((&mut Rng::keyed(&[1]), 1.0))), SPEECH.len());
    }

    #[test]
    fn merges_are_the_most_frequent_pairs() {
        let vocabulary = Vocabulary::learn(&["aab aab aab cab"], 260);
        // Pairs: "ab" 4 times, "Ġa" 2, "aa" 3, …
        assert_eq!(vocabulary.spelled_merges(), ["a b", "a ab", "Ġ aab"]);
    }
}
