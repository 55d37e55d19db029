//! Who votes in an epoch.
//!
//! In:     the set the chain computes at an epoch's last block; bytes of a header that carries one.
//! Out:    members in their one order, and the voting scheme they form.
//! Touches: nothing.
//! Holds:  members are sorted by key, unique, at least one and at most `MEMBERS_MAX`; one member is one vote.
//! Absent: how a set comes about from stake (`surety_chain`).

use bytes::BufMut;
use commonware_codec::{
    Buf, EncodeSize, Error as CodecError, FixedSize, Read, ReadExt as _, Write, varint::UInt,
};
use commonware_consensus::simplex::scheme::ed25519::Scheme;
use commonware_cryptography::ed25519;
use commonware_utils::ordered::Set;

pub use commonware_cryptography::ed25519::PublicKey;

/// The most validators an epoch may have: bounds certificates, headers and frames.
pub const MEMBERS_MAX: usize = 128;

const MEMBER_BYTES: usize = PublicKey::SIZE + 20 + 32;

/// One validator of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The ed25519 key it votes and connects with.
    pub key: PublicKey,
    /// The operator's account, which is paid and slashed.
    pub operator: [u8; 20],
    /// Bonded stake, big-endian. It elects the set; it does not weigh votes.
    pub stake: [u8; 32],
}

/// The validators of one epoch, sorted by key; a validator's index is its place here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet {
    epoch: u64,
    members: Vec<Member>,
}

/// Why some members do not form a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    /// Nobody could ever vote.
    #[error("a validator set needs at least one member")]
    Empty,
    /// More than certificates and frames are sized for.
    #[error("a validator set has at most {MEMBERS_MAX} members")]
    TooMany,
    /// The order is what indices refer to.
    #[error("members must be sorted by key, each key once")]
    Order,
}

impl ValidatorSet {
    /// Checks size and order.
    pub fn new(epoch: u64, members: Vec<Member>) -> Result<Self, ValidatorSetError> {
        if members.is_empty() {
            return Err(ValidatorSetError::Empty);
        }
        if members.len() > MEMBERS_MAX {
            return Err(ValidatorSetError::TooMany);
        }
        if !members.windows(2).all(|pair| pair[0].key < pair[1].key) {
            return Err(ValidatorSetError::Order);
        }
        Ok(Self { epoch, members })
    }

    /// The epoch in which these vote.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The members in order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The place of `key`, if it is a member.
    pub fn index(&self, key: &PublicKey) -> Option<usize> {
        self.members.binary_search_by(|member| member.key.cmp(key)).ok()
    }

    /// The keys alone, as the voting scheme wants them.
    pub fn keys(&self) -> Set<PublicKey> {
        Set::from_iter_dedup(self.members.iter().map(|member| member.key.clone()))
    }

    /// A scheme that verifies this epoch's votes and signs none.
    pub fn verifier(&self, namespace: &[u8]) -> Scheme {
        Scheme::verifier(namespace, self.keys())
    }

    /// A scheme that signs this epoch's votes with `key`, if it is a member's.
    pub fn signer(&self, namespace: &[u8], key: ed25519::PrivateKey) -> Option<Scheme> {
        Scheme::signer(namespace, self.keys(), key)
    }

    /// The most bytes any set encodes to.
    pub const BYTES_MAX: usize = 10 + 2 + MEMBERS_MAX * MEMBER_BYTES;
}

impl Write for Member {
    fn write(&self, buf: &mut impl BufMut) {
        self.key.write(buf);
        buf.put_slice(&self.operator);
        buf.put_slice(&self.stake);
    }
}

impl FixedSize for Member {
    const SIZE: usize = MEMBER_BYTES;
}

impl Read for Member {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        let key = PublicKey::read(buf)?;
        let operator = <[u8; 20]>::read(buf)?;
        let stake = <[u8; 32]>::read(buf)?;
        Ok(Self { key, operator, stake })
    }
}

impl Write for ValidatorSet {
    fn write(&self, buf: &mut impl BufMut) {
        UInt(self.epoch).write(buf);
        UInt(self.members.len() as u64).write(buf);
        for member in &self.members {
            member.write(buf);
        }
    }
}

impl EncodeSize for ValidatorSet {
    fn encode_size(&self) -> usize {
        UInt(self.epoch).encode_size()
            + UInt(self.members.len() as u64).encode_size()
            + self.members.len() * MEMBER_BYTES
    }
}

impl Read for ValidatorSet {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        let epoch: u64 = UInt::read(buf)?.into();
        let count: u64 = UInt::read(buf)?.into();
        if count == 0 || count > MEMBERS_MAX as u64 {
            return Err(CodecError::Invalid("ValidatorSet", "member count"));
        }
        let members = (0..count).map(|_| Member::read(buf)).collect::<Result<Vec<_>, _>>()?;
        Self::new(epoch, members).map_err(|_| CodecError::Invalid("ValidatorSet", "member order"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use commonware_codec::{Decode as _, Encode as _};
    use commonware_cryptography::Signer as _;
    use proptest::prelude::*;

    /// A set of `count` members whose keys come from small seeds.
    pub(crate) fn set(epoch: u64, count: usize) -> ValidatorSet {
        let mut members: Vec<Member> = (0..count as u64)
            .map(|seed| Member {
                key: ed25519::PrivateKey::from_seed(seed).public_key(),
                operator: [seed as u8; 20],
                stake: [seed as u8; 32],
            })
            .collect();
        members.sort_by(|a, b| a.key.cmp(&b.key));
        ValidatorSet::new(epoch, members).unwrap()
    }

    #[test]
    fn sets_round_trip_and_wrong_ones_are_refused() {
        for count in [1, 2, 4, MEMBERS_MAX] {
            let set = set(7, count);
            assert_eq!(ValidatorSet::decode_cfg(set.encode(), &()).unwrap(), set);
            assert!(set.encode_size() <= ValidatorSet::BYTES_MAX);
        }
        let four = set(7, 4);
        let mut swapped = four.members.clone();
        swapped.swap(0, 1);
        assert_eq!(ValidatorSet::new(7, swapped), Err(ValidatorSetError::Order));
        let mut twice = four.members.clone();
        twice.insert(0, twice[0].clone());
        assert_eq!(ValidatorSet::new(7, twice), Err(ValidatorSetError::Order));
        assert_eq!(ValidatorSet::new(7, vec![]), Err(ValidatorSetError::Empty));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = ValidatorSet::decode_cfg(bytes, &());
        }
    }
}
