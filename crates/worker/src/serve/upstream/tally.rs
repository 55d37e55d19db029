//! Tally: how many tokens an upstream's text counts for.
//!
//! In:     pieces of text, as they came; in the end what the upstream says. Out: tokens for the text so far.
//! Touches: nothing.
//! Holds: : on the way never more than pieces, nor than one for four bytes, so that what the upstream says in the end is
//!         hardly ever less; never more than the limit; enough for the text to be spelled by them.

/// A token has about so many bytes of text, or more.
const BYTES_PER_TOKEN: usize = 4;
/// A token never spells more.
const BYTES_PER_TOKEN_MAX: usize = 4096;

/// Counts for one answer.
#[derive(Debug)]
pub(super) struct Tally {
    limit: u32,
    pieces: usize,
    bytes: usize,
    counted: u32,
}

/// More text than the limit's tokens can spell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

impl Tally {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, pieces: 0, bytes: 0, counted: 0 }
    }

    /// A piece of text that came; how many tokens more that makes.
    pub(super) fn take(&mut self, text: &str) -> Result<u32, TooMuch> {
        self.pieces += 1;
        self.bytes += text.len();
        let likely = self.pieces.min(self.bytes.div_ceil(BYTES_PER_TOKEN));
        let least = self.bytes.div_ceil(BYTES_PER_TOKEN_MAX);
        if least > self.limit as usize {
            return Err(TooMuch);
        }
        Ok(self.raise(u32::try_from(likely.max(least)).unwrap_or(u32::MAX)))
    }

    /// What the upstream says that there were; how many more that makes.
    pub(super) fn told(&mut self, tokens: u32) -> u32 {
        self.raise(tokens)
    }

    fn raise(&mut self, to: u32) -> u32 {
        let before = self.counted;
        self.counted = before.max(to.min(self.limit));
        self.counted - before
    }

    /// Tokens counted.
    #[cfg(test)]
    pub(super) fn counted(&self) -> u32 {
        self.counted
    }
}
