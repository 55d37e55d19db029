//! Canonical CBOR: a reader that takes a value's one encoding and nothing else.

use crate::fault::Fault;

pub(crate) const UNSIGNED: u8 = 0;
pub(crate) const NEGATIVE: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const LIST: u8 = 4;
pub(crate) const MAP: u8 = 5;
pub(crate) const TAG: u8 = 6;

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The major type of what comes next.
    pub(crate) fn peek(&self) -> u8 {
        self.rest.first().map_or(u8::MAX, |byte| byte >> 5)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Fault::Unreadable)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The argument of a head of this major type, in its shortest form.
    pub(crate) fn head(&mut self, major: u8) -> Result<u64, Fault> {
        let first = self.take(1)?[0];
        if first >> 5 != major {
            return Err(Fault::Unreadable);
        }
        let info = first & 31;
        if info < 24 {
            return Ok(info.into());
        }
        if info > 27 {
            return Err(Fault::Unreadable);
        }
        let size = 1 << (info - 24);
        let value = self.take(size)?.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        // No shorter form would do: half as many bytes are too few, or the value is not in the head.
        let shorter_bits = 4 * size;
        let is_shortest = if size == 1 { value >= 24 } else { value >> shorter_bits != 0 };
        if is_shortest { Ok(value) } else { Err(Fault::Unreadable) }
    }

    /// A length of at most `most`, and no more than there is.
    fn length(&mut self, major: u8, most: usize) -> Result<usize, Fault> {
        let length = self.head(major)?;
        match usize::try_from(length) {
            Ok(length) if length <= most && length <= self.rest.len() => Ok(length),
            _ => Err(Fault::Unreadable),
        }
    }

    /// An unsigned integer of at most so many bits.
    pub(crate) fn unsigned(&mut self, bits: u32) -> Result<u64, Fault> {
        let value = self.head(UNSIGNED)?;
        if bits < 64 && value >> bits != 0 { Err(Fault::Unreadable) } else { Ok(value) }
    }

    /// A signed integer of 64 bits.
    pub(crate) fn signed(&mut self) -> Result<i64, Fault> {
        let is_negative = self.peek() == NEGATIVE;
        let value = self.head(if is_negative { NEGATIVE } else { UNSIGNED })?;
        let value = i64::try_from(value).map_err(|_| Fault::Unreadable)?;
        Ok(if is_negative { -1 - value } else { value })
    }

    ///
    pub(crate) fn amount(&mut self) -> Result<u128, Fault> {
        if self.peek() != TAG {
            return self.head(UNSIGNED).map(u128::from);
        }
        if self.head(TAG)? != 2 {
            return Err(Fault::Unreadable);
        }
        let digits = self.bytes(16)?;
        if digits.len() <= 8 || digits[0] == 0 {
            return Err(Fault::Unreadable);
        }
        Ok(digits.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }

    pub(crate) fn truth(&mut self) -> Result<bool, Fault> {
        match self.take(1)?[0] {
            0xf4 => Ok(false),
            0xf5 => Ok(true),
            _ => Err(Fault::Unreadable),
        }
    }

    pub(crate) fn bytes(&mut self, most: usize) -> Result<&'a [u8], Fault> {
        let length = self.length(BYTES, most)?;
        self.take(length)
    }

    pub(crate) fn bytes_32(&mut self) -> Result<&'a [u8; 32], Fault> {
        self.bytes(32)?.try_into().map_err(|_| Fault::Unreadable)
    }

    pub(crate) fn text(&mut self, most: usize) -> Result<&'a str, Fault> {
        let length = self.length(TEXT, most)?;
        core::str::from_utf8(self.take(length)?).map_err(|_| Fault::Unreadable)
    }

    /// The length of a list, which follows.
    pub(crate) fn list(&mut self, most: usize) -> Result<usize, Fault> {
        self.length(LIST, most)
    }

    /// The number of entries of a map, which follow.
    pub(crate) fn map(&mut self) -> Result<usize, Fault> {
        self.length(MAP, 64)
    }

    /// Whether the next key of a map is this one; then it is read.
    pub(crate) fn key(&mut self, key: u8) -> bool {
        let is_it = key < 24 && self.rest.first() == Some(&key);
        if is_it {
            self.rest = &self.rest[1..];
        }
        is_it
    }
}
