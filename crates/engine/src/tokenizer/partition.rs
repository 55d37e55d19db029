//! Special tokens: finding their texts before anything else is made of the text.
//!
//! In:     a text.
//! Out:    the special tokens in it, and the stretches of ordinary text between them.
//! Touches: nothing.
//! Holds:  longer tokens win over shorter ones wherever they overlap, then the lower id, then the earlier place:
//!         the order in which llama.cpp searches. Time is linear in the text for each length that occurs.
//! Absent: adding BOS and EOS (`mod`).

use super::trie::Trie;
use super::vocabulary::{Attributes, Vocabulary};

/// A stretch of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    /// Ordinary text, never empty.
    Text(&'a str),
    /// A special token.
    Token(u32),
}

/// The special tokens of a vocabulary.
pub(super) struct Partition {
    trie: Trie,
}

/// Where a special token stands, the white space it swallows included.
struct Found {
    start: usize,
    end: usize,
    id: u32,
}

impl Partition {
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let special = Attributes::CONTROL | Attributes::USER_DEFINED | Attributes::UNKNOWN;
        let mut trie = Trie::default();
        for id in 0..vocabulary.len() as u32 {
            if vocabulary.attributes(id).has_any(special) {
                trie.insert(vocabulary.text(id).as_bytes(), id);
            }
        }
        Self { trie }
    }

    /// Splits `text`. User-defined tokens are always found, control and unknown tokens if `parse`.
    pub(super) fn split<'a>(&self, vocabulary: &Vocabulary, text: &'a str, parse: bool) -> Vec<Fragment<'a>> {
        let silent = Attributes::CONTROL | Attributes::UNKNOWN;
        let wanted = |id| parse || !vocabulary.attributes(id).has_any(silent);
        let matches_at =
            |start: usize| self.trie.prefixes(&text.as_bytes()[start..]).filter(move |&(_, id)| wanted(id));
        let mut lengths = Lengths::default();
        for start in 0..text.len() {
            matches_at(start).for_each(|(length, id)| lengths.note(length, id));
        }
        if lengths.is_empty() {
            return if text.is_empty() { Vec::new() } else { vec![Fragment::Text(text)] };
        }

        let mut found: Vec<Found> = Vec::new();
        // Bytes that belong to a token found already, or to the white space it swallows.
        let mut taken = vec![false; text.len()];
        for (length, only) in lengths.longest_first() {
            let mut accept = |id: u32, start: usize| {
                let mut end = start + length;
                // Nothing taken so far is shorter than `length`, so an overlap shows at one end.
                if taken[start] || taken[end - 1] {
                    return;
                }
                if vocabulary.attributes(id).has_any(Attributes::STRIP_AFTER) {
                    let spaces = text.as_bytes()[end..].iter().zip(&taken[end..]);
                    end += spaces.take_while(|&(&byte, &taken)| is_space(byte) && !taken).count();
                }
                taken[start..end].fill(true);
                found.push(Found { start, end, id });
            };
            let places = (0..text.len()).filter_map(|start| {
                let (_, id) = matches_at(start).find(|&(matched, _)| matched == length)?;
                Some((id, start))
            });
            if only.is_some() {
                places.for_each(|(id, start)| accept(id, start));
            } else {
                let mut places: Vec<(u32, usize)> = places.collect();
                places.sort_unstable();
                places.into_iter().for_each(|(id, start)| accept(id, start));
            }
        }

        found.sort_unstable_by_key(|found| found.start);
        let mut fragments = Vec::with_capacity(found.len() * 2 + 1);
        let mut done = 0;
        for Found { start, end, id } in found {
            fragments.extend((done < start).then(|| Fragment::Text(&text[done..start])));
            fragments.push(Fragment::Token(id));
            done = end;
        }
        fragments.extend((done < text.len()).then(|| Fragment::Text(&text[done..])));
        fragments
    }
}

/// The lengths of the tokens that occur in a text, ascending; with each the token, if only one has it.
#[derive(Default)]
struct Lengths(Vec<(usize, Option<u32>)>);

impl Lengths {
    fn note(&mut self, length: usize, id: u32) {
        match self.0.binary_search_by_key(&length, |&(length, _)| length) {
            Ok(index) => {
                let only = &mut self.0[index].1;
                *only = only.filter(|&only| only == id);
            }
            Err(index) => self.0.insert(index, (length, Some(id))),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn longest_first(&self) -> impl Iterator<Item = (usize, Option<u32>)> {
        self.0.iter().rev().copied()
    }
}

/// `isspace` of the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}
