//! Request ids: what a person quotes when something went wrong.
//!
//! In:     the system's random source.
//! Out:    `req_…` and the ids that protocols' shapes carry, made of the same 128 bits.
//! Touches: nothing.
//! Holds:  one id finds its request under any of its spellings.
//! Absent: ids chosen by callers, which could collide or mislead.

use std::fmt;

/// Names one HTTP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u128);

impl RequestId {
    /// A fresh id.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }

    /// The id OpenAI's chat shape carries.
    pub fn chat(self) -> String {
        format!("chatcmpl-{:032x}", self.0)
    }

    /// The id OpenAI's completion shape carries.
    pub fn completion(self) -> String {
        format!("cmpl-{:032x}", self.0)
    }

    /// The id OpenAI's responses carry.
    pub fn response(self) -> String {
        format!("resp_{:032x}", self.0)
    }

    /// The id Anthropic's shape carries.
    pub fn message(self) -> String {
        format!("msg_{:032x}", self.0)
    }

    /// Reads any of the spellings.
    pub fn parse(text: &str) -> Option<Self> {
        const SPELLINGS: [&str; 5] = ["req_", "chatcmpl-", "cmpl-", "resp_", "msg_"];
        let digits = SPELLINGS.iter().find_map(|prefix| text.strip_prefix(prefix))?;
        let lowercase_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 32 || !digits.bytes().all(lowercase_hex) {
            return None;
        }
        u128::from_str_radix(digits, 16).ok().map(Self)
    }

    /// The id whose bits these are.
    pub(crate) fn of_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits, as a storage key.
    pub(crate) fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "req_{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_finds_the_request() {
        let id = RequestId(0x0123_4567_89ab_cdef);
        for text in [id.to_string(), id.chat(), id.completion(), id.response(), id.message()] {
            assert_eq!(RequestId::parse(&text), Some(id), "{text}");
        }
    }

    #[test]
    fn nothing_else_does() {
        for text in ["", "req_", "req_12", "REQ_00000000000000000123456789abcdef", "chatcmpl"] {
            assert_eq!(RequestId::parse(text), None, "{text}");
        }
        assert_eq!(RequestId::parse(&format!("req_{:032X}", 0xabcdef)), None);
        assert_eq!(RequestId::parse(&format!("req_+{:031x}", 1)), None);
    }
}
