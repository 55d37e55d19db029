//! Bundles: everything that a third party needs to judge a dispute again, with nobody to ask.
//!
//! In, out: values; files hold their bytes. Holds: D-8: a bundle is one canonical CBOR map under its own digest, so that a
//! damaged one is refused; every list is bounded before it is read. The moves are the signed transactions themselves:
//! nobody can put a move into another's mouth.
//! Absent: judging (`chain::replay`), collecting (`client::ledger`).

use minicbor::{Decode, Encode};

use crate::{
    codec::{Canonical, Invalid, at_most},
    digest::{Digest, domain},
};

/// The version of these rules.
pub const BUNDLE_VERSION: u32 = 1;
/// Moves of a bundle, at most: a dispute has nine messages (D-5.7), and may end by a time-out.
pub const MOVES_MAX: usize = 16;
/// Bytes of a move's transaction, at most: what the ledger takes.
pub const MOVE_BYTES_MAX: usize = 128 << 10;
/// Parameters, at most, and bytes of a name.
const PARAMETERS_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 64;
/// Bytes of what the ledger recorded, at most.
const RECORDED_BYTES_MAX: usize = 4 << 10;

/// A dispute (D-8.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Bundle {
    /// [`BUNDLE_VERSION`].
    #[n(0)]
    pub version: u32,
    /// The ledger's.
    #[n(1)]
    pub chain_id: u64,
    /// The ledger's number of the dispute.
    #[n(2)]
    pub id: u64,
    /// Challengers that had lost about the same answer before: each doubles the bond.
    #[n(3)]
    pub lost_before: u64,
    /// The parameters in force, by name.
    #[cbor(n(4), decode_with = "crate::codec::list::<{ PARAMETERS_MAX as u64 }, _, _>")]
    pub parameters: Vec<BundleParameter>,
    /// The moves of both sides as they went to the ledger, in its order; papers, openings and leaf are in them.
    #[cbor(n(5), decode_with = "crate::codec::list::<{ MOVES_MAX as u64 }, _, _>")]
    pub moves: Vec<BundleMove>,
    /// What the ledger recorded: the return of `IDisputes.disputes(id)`, in Solidity's encoding.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub recorded: Vec<u8>,
    /// Of all of the above, and zeros here.
    #[n(7)]
    pub digest: Digest,
}

/// A parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BundleParameter {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its value.
    #[cbor(n(1), with = "crate::codec::integer")]
    pub value: u128,
}

/// A move.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BundleMove {
    /// Height of the block it is in.
    #[n(0)]
    pub number: u64,
    /// The block's time, Unix milliseconds.
    #[n(1)]
    pub timestamp_ms: u64,
    /// The block's hash, by which any node shows it.
    #[n(2)]
    pub block: Digest,
    /// The transaction, as its sender signed it (EIP-2718).
    #[cbor(n(3), with = "minicbor::bytes")]
    pub transaction: Vec<u8>,
}

impl Bundle {
    /// The same, under the digest of what it says.
    #[must_use]
    pub fn sealed(self) -> Bundle {
        let digest = self.own_digest();
        Bundle { digest, ..self }
    }

    fn own_digest(&self) -> Digest {
        let unsealed = Bundle { digest: Digest::ZERO, ..self.clone() };
        match minicbor::to_vec(&unsealed) {
            Ok(bytes) => Digest::of(domain::BUNDLE, &bytes),
            Err(error) => unreachable!("encoding into memory failed: {error}"),
        }
    }
}

impl Canonical for Bundle {
    const NAME: &'static str = "bundle";
    const MAX_BYTES: usize = MOVES_MAX * (MOVE_BYTES_MAX + 128)
        + PARAMETERS_MAX * (NAME_BYTES_MAX + 32)
        + RECORDED_BYTES_MAX
        + 256;

    fn check(&self) -> Result<(), Invalid> {
        if self.version != BUNDLE_VERSION {
            let problem = format!("is {}; this software reads {BUNDLE_VERSION}", self.version);
            return Err(Invalid::new("version", problem));
        }
        at_most("parameters", "parameters", self.parameters.len(), PARAMETERS_MAX)?;
        for parameter in &self.parameters {
            at_most("name", "bytes", parameter.name.len(), NAME_BYTES_MAX)?;
        }
        at_most("moves", "moves", self.moves.len(), MOVES_MAX)?;
        for made in &self.moves {
            at_most("transaction", "bytes", made.transaction.len(), MOVE_BYTES_MAX)?;
        }
        at_most("recorded", "bytes", self.recorded.len(), RECORDED_BYTES_MAX)?;
        if self.digest != self.own_digest() {
            return Err(Invalid::new("digest", "is not that of the bundle: it is damaged, or was changed"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::DecodeError;

    fn moves() -> impl Strategy<Value = BundleMove> {
        (any::<u64>(), any::<u64>(), any::<[u8; 32]>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(
            |(number, timestamp_ms, block, transaction)| BundleMove {
                number,
                timestamp_ms,
                block: Digest(block),
                transaction,
            },
        )
    }

    fn bundle() -> impl Strategy<Value = Bundle> {
        let parameters =
            ("[a-z_]{1,20}", any::<u128>()).prop_map(|(name, value)| BundleParameter { name, value });
        (
            (any::<u64>(), any::<u64>(), any::<u64>()),
            prop::collection::vec(parameters, 0..4),
            prop::collection::vec(moves(), 0..4),
            prop::collection::vec(any::<u8>(), 0..100),
        )
            .prop_map(|((chain_id, id, lost_before), parameters, moves, recorded)| {
                let digest = Digest::ZERO;
                let version = BUNDLE_VERSION;
                let bundle =
                    Bundle { version, chain_id, id, lost_before, parameters, moves, recorded, digest };
                bundle.sealed()
            })
    }

    proptest! {
        #[test]
        fn a_bundle_has_one_encoding_and_any_other_byte_is_noticed(
            bundle in bundle(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut bytes = bundle.to_cbor();
            prop_assert_eq!(&Bundle::from_cbor(&bytes).unwrap(), &bundle);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Bundle::from_cbor(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Bundle::from_cbor(&bytes).is_err());
        }
    }

    #[test]
    fn bounds_are_kept() {
        let sealed = |change: fn(&mut Bundle)| {
            let mut bundle = Bundle { version: BUNDLE_VERSION, ..Bundle::default() };
            change(&mut bundle);
            bundle.sealed().try_to_cbor()
        };
        assert!(sealed(|_| ()).is_ok());
        let full = |bundle: &mut Bundle| {
            let made = BundleMove { transaction: vec![1; MOVE_BYTES_MAX], ..BundleMove::default() };
            bundle.moves = vec![made; MOVES_MAX];
        };
        assert!(sealed(full).is_ok());
        for (field, change) in [
            ("version", (|bundle| bundle.version = 2) as fn(&mut Bundle)),
            ("moves", |bundle| bundle.moves = vec![BundleMove::default(); MOVES_MAX + 1]),
            ("parameters", |bundle| bundle.parameters = vec![BundleParameter::default(); PARAMETERS_MAX + 1]),
            ("recorded", |bundle| bundle.recorded = vec![0; RECORDED_BYTES_MAX + 1]),
            ("transaction", |bundle| {
                let transaction = vec![0; MOVE_BYTES_MAX + 1];
                bundle.moves = vec![BundleMove { transaction, ..BundleMove::default() }];
            }),
        ] {
            assert_eq!(sealed(change).unwrap_err().field, field);
        }
        let too_long = Bundle::from_cbor(&vec![0; Bundle::MAX_BYTES + 1]);
        assert!(matches!(too_long, Err(DecodeError::TooLong { .. })));
    }
}
