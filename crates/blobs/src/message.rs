//! Messages between someone who wants a file and someone who holds it, one per frame.
//!
//! In, out: values; `net` moves their bytes. One request per stream.
//! Holds:  every list is bounded before it is read.
//! Absent: what an answer proves (`tree`, `audit`).

use minicbor::{Decode, Encode};
use surety_types::{Canonical, Digest, Invalid};

use crate::{
    audit::CHALLENGES_MAX,
    tree::{CHUNK_BYTES, DEPTH_MAX},
};

/// Bytes of a file, or of values, in one frame.
pub const FRAME_BYTES: usize = 64 << 10;
/// Values in one frame.
pub const FRAME_VALUES: usize = FRAME_BYTES / 32;

/// A request; the first and only message to a holder on its stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum ToHolder {
    /// How large is this file? Answered with `Held`.
    #[n(0)]
    Describe(#[n(0)] Digest),
    /// The values of all its pieces. Answered with `Values` until there is one for each.
    #[n(1)]
    Values(#[n(0)] Digest),
    /// One piece. Answered with `Data` until it is whole.
    #[n(2)]
    Piece {
        /// Of which file.
        #[n(0)]
        digest: Digest,
        /// Which.
        #[n(1)]
        index: u32,
    },
    /// The chunks that a challenge draws. Answered with a `Slice` or `Missing` for each, in increasing order.
    #[n(3)]
    Audit {
        /// Of which file.
        #[n(0)]
        digest: Digest,
        /// What nobody knew before.
        #[n(1)]
        beacon: Digest,
        /// How many.
        #[n(2)]
        count: u32,
    },
}

/// An answer, or part of one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum FromHolder {
    /// The file is here and has this size.
    #[n(0)]
    Held(#[n(0)] u64),
    /// Values of pieces, 32 bytes each, in order.
    #[n(1)]
    Values(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Bytes of the piece, in order.
    #[n(2)]
    Data(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A chunk and its path.
    #[n(3)]
    Slice {
        /// Which.
        #[n(0)]
        chunk: u64,
        /// Its bytes.
        #[cbor(n(1), with = "minicbor::bytes")]
        data: Vec<u8>,
        /// The values beside its path, 32 bytes each, from the root down.
        #[cbor(n(2), with = "minicbor::bytes")]
        siblings: Vec<u8>,
    },
    /// The holder cannot produce this chunk.
    #[n(4)]
    Missing(#[n(0)] u64),
    /// No.
    #[n(5)]
    Refused(#[n(0)] Refusal),
}

/// Why a holder does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// It does not have the file, or no longer.
    #[n(0)]
    Absent,
    /// The file's bytes are no longer those of the digest.
    #[n(1)]
    Changed,
    /// Too much at once; later perhaps.
    #[n(2)]
    Busy,
    /// Its disk failed.
    #[n(3)]
    Failed,
    /// There is no such piece, or too many chunks are asked for.
    #[n(4)]
    Impossible,
}

impl Canonical for ToHolder {
    const NAME: &'static str = "request to a holder";
    const MAX_BYTES: usize = 128;

    fn check(&self) -> Result<(), Invalid> {
        match self {
            ToHolder::Audit { count, .. } if !(1..=CHALLENGES_MAX).contains(count) => {
                Err(Invalid::new("count", format!("is {count}; 1 to {CHALLENGES_MAX} are allowed")))
            }
            _ => Ok(()),
        }
    }
}

impl Canonical for FromHolder {
    const NAME: &'static str = "answer of a holder";
    const MAX_BYTES: usize = FRAME_BYTES + 64;

    fn check(&self) -> Result<(), Invalid> {
        let within = |field, bytes: &[u8], unit, max| {
            if bytes.is_empty() || bytes.len() > max || !bytes.len().is_multiple_of(unit) {
                return Err(Invalid::new(field, format!("has {} bytes", bytes.len())));
            }
            Ok(())
        };
        match self {
            FromHolder::Values(values) => within("values", values, 32, FRAME_BYTES),
            FromHolder::Data(data) => within("data", data, 1, FRAME_BYTES),
            FromHolder::Slice { data, siblings, .. } => {
                within("data", data, 1, CHUNK_BYTES as usize)?;
                if siblings.is_empty() { Ok(()) } else { within("siblings", siblings, 32, 32 * DEPTH_MAX) }
            }
            FromHolder::Held(_) | FromHolder::Missing(_) | FromHolder::Refused(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<T: Canonical + PartialEq + std::fmt::Debug>(value: &T) {
        let bytes = value.to_cbor();
        assert_eq!(&T::from_cbor(&bytes).unwrap(), value);
        for cut in 0..bytes.len() {
            assert!(T::from_cbor(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let digest = Digest([1; 32]);
        check(&ToHolder::Describe(digest));
        check(&ToHolder::Values(digest));
        check(&ToHolder::Piece { digest, index: u32::MAX });
        check(&ToHolder::Audit { digest, beacon: Digest([2; 32]), count: CHALLENGES_MAX });
        check(&FromHolder::Held(u64::MAX));
        check(&FromHolder::Missing(3));
        check(&FromHolder::Slice { chunk: 1, data: vec![1; 1024], siblings: vec![2; 32 * DEPTH_MAX] });
        check(&FromHolder::Slice { chunk: 0, data: vec![1], siblings: vec![] });
        for refusal in
            [Refusal::Absent, Refusal::Changed, Refusal::Busy, Refusal::Failed, Refusal::Impossible]
        {
            check(&FromHolder::Refused(refusal));
        }
        let full = FromHolder::Data(vec![3; FRAME_BYTES]);
        assert_eq!(FromHolder::from_cbor(&full.to_cbor()).unwrap(), full);
        let full = FromHolder::Values(vec![3; FRAME_BYTES]);
        assert_eq!(FromHolder::from_cbor(&full.to_cbor()).unwrap(), full);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let digest = Digest([1; 32]);
        let audit = |count| ToHolder::Audit { digest, beacon: digest, count };
        for message in [audit(0), audit(CHALLENGES_MAX + 1)] {
            assert!(message.try_to_cbor().is_err());
        }
        for message in [
            FromHolder::Data(vec![]),
            FromHolder::Data(vec![0; FRAME_BYTES + 1]),
            FromHolder::Values(vec![0; 31]),
            FromHolder::Slice { chunk: 0, data: vec![0; 1025], siblings: vec![] },
            FromHolder::Slice { chunk: 0, data: vec![0], siblings: vec![0; 33] },
            FromHolder::Slice { chunk: 0, data: vec![0], siblings: vec![0; 32 * DEPTH_MAX + 32] },
        ] {
            assert!(message.try_to_cbor().is_err(), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ToHolder::from_cbor(&bytes);
            let _ = FromHolder::from_cbor(&bytes);
        }

        /// Bytes that begin as messages do.
        #[test]
        fn foreign_frames_never_panic(
            kind in 0u8..7,
            rest in prop::collection::vec(any::<u8>(), 0..100),
            flip in any::<prop::sample::Index>(),
        ) {
            let mut bytes = vec![0x82, kind, 0xa1, 0x00];
            bytes.extend(rest);
            let _ = ToHolder::from_cbor(&bytes);
            let _ = FromHolder::from_cbor(&bytes);
            let mut real = FromHolder::Slice { chunk: 9, data: vec![1; 40], siblings: vec![2; 64] }.to_cbor();
            let at = flip.index(real.len());
            real[at] ^= 1 + kind;
            let _ = FromHolder::from_cbor(&real);
        }
    }
}
