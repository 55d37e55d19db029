//! Inclusion: where a receipt stands in the log that its operator posts.
//!
//! In, out: values; `net` moves their bytes. Holds, every list bounded before it is read.
//! Absent: hashing the path (`chain`), the root that it must lead to (the ledger).

use minicbor::{Decode, Encode};

use crate::{
    codec::{Canonical, Invalid, at_most},
    digest::Digest,
};

/// Hashes in a path, at most: a log has no more than 2^48 leaves.
pub const MAX_INCLUSION_HASHES: usize = 48;

/// Asks a worker where a receipt stands in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct InclusionRequest {
    /// The receipt's digest, which is its entry.
    #[n(0)]
    pub receipt: Digest,
}

/// Where a receipt stands, as its worker says. Shown to be so by a root that is on the ledger alone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum Inclusion {
    /// The worker has no such receipt, or no longer knows where it stands.
    #[n(0)]
    Unknown,
    /// In the log of an epoch whose root is not on the ledger yet.
    #[n(1)]
    Unposted {
        /// Which.
        #[n(0)]
        epoch: u64,
    },
    /// In the log of an epoch whose root is.
    #[n(2)]
    Posted {
        /// Which.
        #[n(0)]
        epoch: u64,
        /// The leaf's index, from 0.
        #[n(1)]
        index: u64,
        /// From the leaf to the root. RFC 9162 §2.1.3.
        #[cbor(n(2), decode_with = "crate::codec::list::<{ MAX_INCLUSION_HASHES as u64 }, _, _>")]
        path: Vec<Digest>,
    },
}

impl Canonical for InclusionRequest {
    const NAME: &'static str = "inclusion request";
    const MAX_BYTES: usize = 64;

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

impl Canonical for Inclusion {
    const NAME: &'static str = "inclusion";
    const MAX_BYTES: usize = 4 << 10;

    fn check(&self) -> Result<(), Invalid> {
        match self {
            Inclusion::Posted { path, .. } => at_most("path", "hashes", path.len(), MAX_INCLUSION_HASHES),
            Inclusion::Unknown | Inclusion::Unposted { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_inclusion_is_read_as_written_and_bounded(
            (epoch, index) in (any::<u64>(), any::<u64>()),
            hashes in 0..=MAX_INCLUSION_HASHES + 1,
        ) {
            let path = vec![Digest([7; 32]); hashes];
            let inclusion = Inclusion::Posted { epoch, index, path };
            match inclusion.try_to_cbor() {
                Ok(bytes) => prop_assert_eq!(Inclusion::from_cbor(&bytes).unwrap(), inclusion),
                Err(_) => prop_assert!(hashes > MAX_INCLUSION_HASHES),
            }
            for inclusion in [Inclusion::Unknown, Inclusion::Unposted { epoch }] {
                prop_assert_eq!(Inclusion::from_cbor(&inclusion.to_cbor()).unwrap(), inclusion);
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Inclusion::from_cbor(&bytes);
            let _ = InclusionRequest::from_cbor(&bytes);
        }
    }
}
