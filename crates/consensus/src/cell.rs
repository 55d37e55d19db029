//! State values in cells of one size, as the authenticated database stores them.
//!
//! In:     a key and a value of at most `VALUE_BYTES_MAX` bytes.
//! Out:    the head cell under the key itself and, for a long value, chunk cells under derived keys; and back.
//! Touches: nothing.
//! Holds:  a value has exactly one representation; a long value's head commits to its length and SHA-256, so a proof of
//!         the head proves the value.
//! Absent: reading and writing them (`state`).
//!
//! Why one size: peers serve and verify state sync for fixed-size operations only. Accounts and storage slots fit one
//! cell; contract code is the only long value, and it is written once.

use crate::Digest;
use bytes::BufMut;
use commonware_codec::{Buf, Error as CodecError, FixedSize, Read, Write};
use commonware_cryptography::{Hasher as _, Sha256};

/// The longest value the state holds.
pub const VALUE_BYTES_MAX: usize = 32 << 10;

/// Bytes a cell can carry besides its tag.
const PAYLOAD: usize = 72;
/// The tag of a long value's head; smaller tags are the length of a short value.
const LONG: u8 = 0xFF;

const _: () = assert!(PAYLOAD < LONG as usize && 4 + 32 <= PAYLOAD);

/// One stored cell: a tag, then payload, zero-padded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cell([u8; PAYLOAD + 1]);

/// What a head cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// The value itself.
    Short(&'a [u8]),
    /// A value that continues in chunks.
    Long {
        /// Its length in bytes.
        length: usize,
        /// Its SHA-256.
        digest: Digest,
    },
}

impl Cell {
    fn of(tag: u8, parts: &[&[u8]]) -> Self {
        let mut cell = [0; PAYLOAD + 1];
        cell[0] = tag;
        let mut at = 1;
        for part in parts {
            cell[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self(cell)
    }

    /// The cell that stands under a value's own key.
    ///
    /// Panics if the value is longer than `VALUE_BYTES_MAX`: the chain bounds what it writes.
    pub fn head(value: &[u8]) -> Self {
        assert!(value.len() <= VALUE_BYTES_MAX, "state values are bounded");
        if value.len() <= PAYLOAD {
            Self::of(value.len() as u8, &[value])
        } else {
            Self::of(LONG, &[&(value.len() as u32).to_be_bytes(), Sha256::hash(&[value]).as_ref()])
        }
    }

    /// Reads a head cell; `None` if these bytes are no head cell.
    pub fn as_head(&self) -> Option<Head<'_>> {
        match self.0[0] {
            LONG => {
                let length = u32::from_be_bytes(self.0[1..5].try_into().ok()?) as usize;
                let digest: [u8; 32] = self.0[5..37].try_into().ok()?;
                let canonical =
                    (PAYLOAD + 1..=VALUE_BYTES_MAX).contains(&length) && self.0[37..].iter().all(|b| *b == 0);
                canonical.then_some(Head::Long { length, digest: digest.into() })
            }
            length => {
                let (value, padding) = self.0[1..].split_at_checked(length.into())?;
                padding.iter().all(|b| *b == 0).then_some(Head::Short(value))
            }
        }
    }
}

/// The chunk cells of a long value; none for a short one.
pub fn chunks(key: &Digest, value: &[u8]) -> Vec<(Digest, Cell)> {
    if value.len() <= PAYLOAD {
        return Vec::new();
    }
    value
        .chunks(PAYLOAD)
        .enumerate()
        .map(|(index, chunk)| (chunk_key(key, index), Cell::of(chunk.len() as u8, &[chunk])))
        .collect()
}

/// The keys under which a value of `length` bytes continues.
pub fn chunk_keys(key: &Digest, length: usize) -> Vec<Digest> {
    let count = if length <= PAYLOAD { 0 } else { length.div_ceil(PAYLOAD) };
    (0..count).map(|index| chunk_key(key, index)).collect()
}

/// Derived by hashing, so that it meets no other key: keys of the chain are hashes themselves, under other prefixes.
fn chunk_key(key: &Digest, index: usize) -> Digest {
    Sha256::hash(&[b"surety/state/chunk", key.as_ref(), &(index as u32).to_be_bytes()])
}

/// Joins chunks into the value its head promised; `None` if they are not that value.
pub fn join<'a>(
    length: usize,
    digest: &Digest,
    chunks: impl IntoIterator<Item = &'a Cell>,
) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(length);
    for chunk in chunks {
        let Some(Head::Short(bytes)) = chunk.as_head() else { return None };
        value.extend_from_slice(bytes);
    }
    (value.len() == length && Sha256::hash(&[&value]) == *digest).then_some(value)
}

impl Write for Cell {
    fn write(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }
}

impl FixedSize for Cell {
    const SIZE: usize = PAYLOAD + 1;
}

impl Read for Cell {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        Ok(Self(<[u8; PAYLOAD + 1]>::read_cfg(buf, &())?))
    }
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cell({:?})", self.as_head())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(value: &[u8]) {
        let key = Sha256::hash(&[b"key"]);
        let cells = chunks(&key, value);
        match Cell::head(value).as_head().unwrap() {
            Head::Short(bytes) => {
                assert_eq!(bytes, value);
                assert!(cells.is_empty() && chunk_keys(&key, value.len()).is_empty());
            }
            Head::Long { length, digest } => {
                assert_eq!(chunk_keys(&key, length), cells.iter().map(|(key, _)| *key).collect::<Vec<_>>());
                assert_eq!(join(length, &digest, cells.iter().map(|(_, cell)| cell)).unwrap(), value);
                assert_eq!(join(length, &digest, cells.iter().skip(1).map(|(_, cell)| cell)), None);
            }
        }
    }

    #[test]
    fn every_length_near_an_edge_round_trips() {
        for length in
            [0, 1, PAYLOAD - 1, PAYLOAD, PAYLOAD + 1, 2 * PAYLOAD, 2 * PAYLOAD + 1, 24_576, VALUE_BYTES_MAX]
        {
            round_trip(&vec![7; length]);
        }
    }

    proptest! {
        #[test]
        fn values_round_trip(value in proptest::collection::vec(any::<u8>(), 0..400)) {
            round_trip(&value);
        }

        #[test]
        fn foreign_cells_are_read_or_refused_and_only_canonical_ones_read(bytes in proptest::collection::vec(any::<u8>(), PAYLOAD + 1)) {
            let cell = Cell(bytes.try_into().unwrap());
            if let Some(Head::Short(value)) = cell.as_head() {
                prop_assert_eq!(Cell::head(value), cell);
            }
        }
    }
}
