//! Streaming the bytes of tokens into text.
//!
//! In:     bytes, as tokens spell them.
//! Out:    the text that is certain; the bytes that are not yet.
//! Touches: nothing.
//! Holds:  whoever serves an answer and whoever judges one run this same code, so they cannot disagree on its text.
//! Absent: stop strings (`engine`), which bytes a token spells (`spelling`).

/// Bytes of a character that may still become one, at most.
pub const HELD_BYTES_MAX: usize = 3;

/// Turns the bytes of tokens into text, holding back the beginning of a character until the rest of it comes.
///
/// Everything released, put together, is `String::from_utf8_lossy` of all bytes put together, however they were
/// cut: bytes that can no longer become a character are replaced by U+FFFD as soon as that is certain.
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    /// The beginning of a character: at most three bytes.
    held: Vec<u8>,
}

impl Detokenizer {
    /// Nothing held back.
    pub fn new() -> Self {
        Self::default()
    }

    /// With bytes held back: of more than [`HELD_BYTES_MAX`] the first.
    pub fn holding(bytes: &[u8]) -> Self {
        Self { held: bytes[..bytes.len().min(HELD_BYTES_MAX)].to_vec() }
    }

    /// What is held back: at most [`HELD_BYTES_MAX`] bytes.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// Adds bytes; gives the text that is now certain.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut kept = 0;
        let mut chunks = self.held.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && may_continue(invalid) {
                kept = invalid.len();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.held.drain(..self.held.len() - kept);
        text
    }

    /// Ends the text: what is held back will not become a character any more.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

/// Whether bytes that are no UTF-8 are the beginning of a character.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pieces: &[&[u8]], expected: &[&str]) {
        let mut detokenizer = Detokenizer::new();
        let mut released: Vec<String> = pieces.iter().map(|piece| detokenizer.push(piece)).collect();
        released.push(detokenizer.finish());
        assert_eq!(released, expected);
    }

    #[test]
    fn characters_come_whole_and_invalid_bytes_at_once() {
        check(&[b"a\xe2\x82", b"\xac!"], &["a", "€!", ""]);
        check(&[b"\xf0\x9f", b"\xa6", b"\x99"], &["", "", "🦙", ""]);
        check(&[b"\xe2\x82", b"a"], &["", "\u{fffd}a", ""]);
        check(&[b"\xff", b"\xe2\x82"], &["\u{fffd}", "", "\u{fffd}"]);
        check(&[b"", b"x"], &["", "x", ""]);
        check(&[b"\xc0\x80", b"\xed\xa0\x80"], &["\u{fffd}\u{fffd}", "\u{fffd}\u{fffd}\u{fffd}", ""]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_the_bytes_are_cut(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80u8..0xc0, 0xe0u8..0xf8], 0..40),
            text in ".{0,10}",
            size in 1usize..6,
        ) {
            let bytes = [text.as_bytes(), &bytes].concat();
            let mut detokenizer = Detokenizer::new();
            let mut released: String = bytes.chunks(size).map(|chunk| detokenizer.push(chunk)).collect();
            released += &detokenizer.finish();
            prop_assert_eq!(released, String::from_utf8_lossy(&bytes));
        }
    }
}
