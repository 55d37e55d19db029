//! Stops: which stop sequence ended an answer, if one did.
//!
//! In:     the text as it is delivered; the bytes of the tokens, which spell also what was withheld.
//! Out:    the stop sequence, or none.
//! Touches: nothing.
//! Holds:  memory is bounded however long the answer is; it is only said of a text that breaks off where the sequence begins.
//! Absent: ending the answer. That is the worker's, whose receipt does not say what ended it.

use surety_types::{Detokenizer, TokenLogprob, request::MAX_STOP_BYTES};

/// Bytes of the tokens before the last that are kept: a stop sequence may have begun in any of them.
const SPELLED_BYTES: usize = 2 * MAX_STOP_BYTES;
/// Bytes of the text's end that are kept: as many must agree with what the tokens spell.
const TEXT_BYTES: usize = 16;

/// The end of what was said.
#[derive(Debug)]
pub(super) struct Tail {
    stops: Vec<String>,
    /// The end of the text that was delivered.
    text: String,
    /// What the tokens before the last spell, the end of it, and the last.
    spelled: Vec<u8>,
    last: Vec<u8>,
}

impl Tail {
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, text: String::new(), spelled: Vec::new(), last: Vec::new() }
    }

    /// Takes in text and tokens.
    pub(super) fn push(&mut self, text: &str, tokens: &[TokenLogprob]) {
        self.text.push_str(text);
        let start = self.text.ceil_char_boundary(self.text.len().saturating_sub(TEXT_BYTES));
        self.text.drain(..start);
        for token in tokens {
            self.spelled.append(&mut self.last);
            let start = self.spelled.len().saturating_sub(SPELLED_BYTES);
            self.spelled.drain(..start);
            self.last.clone_from(&token.bytes);
        }
    }

    /// The first stop sequence that the last token completes and before which the text breaks off.
    pub(super) fn ended_by(&self) -> Option<&str> {
        // Without the beginning of a character, which the last token may complete.
        let before = Detokenizer::new().push(&self.spelled).len();
        let all = [self.spelled.as_slice(), &self.last].concat();
        let all = String::from_utf8_lossy(&all);
        let agrees = |start: usize| {
            let spelled = all[..start].as_bytes();
            // A tokenizer's own first space is no text.
            if self.text.is_empty() {
                return spelled.is_empty() || spelled == b" ";
            }
            let length = spelled.len().min(self.text.len());
            spelled[spelled.len() - length..] == self.text.as_bytes()[self.text.len() - length..]
        };
        let found = self.stops.iter().filter_map(|stop| {
            let place = all.match_indices(stop.as_str()).map(|(start, _)| start);
            let place = place.filter(|start| start + stop.len() > before && agrees(*start)).min()?;
            Some((place, stop.len(), stop.as_str()))
        });
        found.min().map(|(_, _, stop)| stop)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(bytes: &[u8]) -> TokenLogprob {
        TokenLogprob { token: 1, bytes: bytes.to_vec(), logprob: 0.0, top: Vec::new() }
    }

    fn check(stops: &[&str], text: &str, tokens: &[&[u8]], expected: Option<&str>) {
        let mut tail = Tail::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let tokens: Vec<TokenLogprob> = tokens.iter().map(|bytes| token(bytes)).collect();
        tail.push(text, &tokens);
        assert_eq!(tail.ended_by(), expected, "{stops:?} {text}");
    }

    #[test]
    fn a_sequence_is_found_where_the_text_breaks_off() {
        check(&["STOP"], "a ", &[b"a", b" ST", b"OP and"], Some("STOP"));
        check(&["STOP"], "a ", &[b"a", b" STOP"], Some("STOP"));
        check(&["lo w", "world"], "hel", &[b"hello world"], Some("lo w"));
        check(&["ab", "abc"], "", &[b"abc"], Some("ab"));
        // A model's own end is none, though a sequence may be spelled in it.
        check(&["|"], "a", &[b"a", b"<|end|>"], None);
        check(&["STOP"], "a", &[b"a", b"<end>"], None);
        // One that a template strips from the beginning.
        check(&["STOP"], "a", &[b" a", b"STOP"], Some("STOP"));
        check(&["é"], "caf", &[b"caf", b"\xc3", b"\xa9"], Some("é"));
        check(&["STOP"], "", &[b" ", b"STOP"], Some("STOP"));
        check(&["STOP"], "", &[], None);
        check(&["|"], "", &[b"<|end|>"], None);
    }

    proptest! {
        #[test]
        fn it_is_told_however_tokens_cut_the_text(
            text in "[abc€]{0,900}", stop in "[abc]{1,4}", after in "[abc]{0,2}",
            sizes in prop::collection::vec(1usize..9, 1..400),
        ) {
            // As an engine does: it stops at the first token that completes the sequence.
            let whole = format!("{text}{stop}{after}");
            let (mut tail, mut rest, mut said, mut told) = (Tail::new(vec![stop.clone()]), whole.as_bytes(), Vec::new(), 0);
            for size in sizes.iter().cycle() {
                let (piece, more) = rest.split_at((*size).min(rest.len()));
                (rest, said) = (more, [said, piece.to_vec()].concat());
                let certain = str::from_utf8(&said).map_or_else(|error| error.valid_up_to(), str::len);
                let found = whole[..certain].find(&stop);
                // What may yet become the sequence is withheld.
                let release = found.unwrap_or_else(|| certain.saturating_sub(stop.len() - 1).max(told));
                let release = whole.floor_char_boundary(release).max(told);
                tail.push(&whole[told..release], &[token(piece)]);
                told = release;
                if found.is_some() {
                    break;
                }
                prop_assert!(!rest.is_empty(), "the sequence is there");
            }
            prop_assert_eq!(tail.ended_by(), Some(stop.as_str()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            stops in prop::collection::vec(".{1,6}", 0..4), text in ".{0,40}",
            tokens in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..6),
        ) {
            let mut tail = Tail::new(stops);
            for bytes in &tokens {
                tail.push(&text, &[token(bytes)]);
                let _ = tail.ended_by();
            }
            prop_assert!(tail.spelled.len() <= SPELLED_BYTES && tail.text.len() <= TEXT_BYTES);
        }
    }
}
