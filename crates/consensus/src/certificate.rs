//! Certificates: that a quorum of an epoch's validators finalised a block.
//!
//! In:     certificates from peers, disk or an RPC nobody trusts; the validator set they claim to come from.
//! Out:    that the named block is final, or why it is not shown.
//! Touches: nothing.
//! Holds:  bytes are bounded before they are believed; a certificate that verifies holds 2f+1 valid votes of distinct
//!         members, f being a third of them rounded down.
//! Absent: finding out who the validators are: see [`EpochRecord`].

use crate::{Digest, Header, MEMBERS_MAX, ValidatorSet};
use bytes::{BufMut, Bytes};
use commonware_codec::{Buf, Decode as _, Encode as _, EncodeSize, Error as CodecError, Read, Write};
use commonware_consensus::simplex::{
    scheme::{Namespace, ed25519::Scheme},
    types::Finalization,
};
use commonware_cryptography::Verifier as _;
use commonware_utils::{Faults as _, N3f1};

pub(crate) type SimplexFinalization = Finalization<Scheme, Digest>;

/// A quorum's finalising votes for one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate(pub(crate) SimplexFinalization);

/// Why a certificate shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It belongs to another epoch than the set.
    #[error("the certificate is of another epoch than the validator set")]
    Epoch,
    /// It counts other members than the set has.
    #[error("the certificate is over another number of validators")]
    Members,
    /// Too few votes.
    #[error("{votes} votes are no quorum; {quorum} are needed")]
    Quorum {
        /// Votes present.
        votes: usize,
        /// Votes needed.
        quorum: usize,
    },
    /// A vote's signature is not its member's.
    #[error("validator {0} did not sign this")]
    Signature(usize),
}

impl Certificate {
    /// The finalised block's hash.
    pub fn block_hash(&self) -> Digest {
        self.0.proposal.payload
    }

    /// The epoch of the votes.
    pub fn epoch(&self) -> u64 {
        self.0.proposal.round.epoch().get()
    }

    /// The view of the votes. A block at an epoch's end may be finalised in a later view than it was proposed in.
    pub fn view(&self) -> u64 {
        self.0.proposal.round.view().get()
    }

    /// Indices of those who voted, ascending.
    pub fn signers(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.certificate.signers.iter().map(|member| member.get() as usize)
    }

    /// Checks the votes under a chain's voting namespace.
    pub fn verify(&self, namespace: &[u8], validators: &ValidatorSet) -> Result<(), CertificateError> {
        if self.epoch() != validators.epoch() {
            return Err(CertificateError::Epoch);
        }
        let certificate = &self.0.certificate;
        let members = validators.members();
        if certificate.signers.len() != members.len() {
            return Err(CertificateError::Members);
        }
        let (votes, quorum) = (certificate.signers.count(), N3f1::quorum(members.len() as u32) as usize);
        if votes < quorum || certificate.signatures.len() != votes {
            return Err(CertificateError::Quorum { votes, quorum });
        }
        let namespace = Namespace::new(namespace).finalize;
        let message = self.0.proposal.encode();
        for (index, signature) in self.signers().zip(&certificate.signatures) {
            let valid = signature
                .get()
                .is_some_and(|signature| members[index].key.verify(&namespace, &message, signature));
            if !valid {
                return Err(CertificateError::Signature(index));
            }
        }
        Ok(())
    }

    /// Its one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode().to_vec()
    }

    /// Reads a certificate that fills `bytes`.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, CodecError> {
        Self::decode_cfg(bytes.into(), &())
    }
}

impl Write for Certificate {
    fn write(&self, buf: &mut impl BufMut) {
        self.0.write(buf);
    }
}

impl EncodeSize for Certificate {
    fn encode_size(&self) -> usize {
        self.0.encode_size()
    }
}

impl Read for Certificate {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        Ok(Self(Finalization::read_cfg(buf, &MEMBERS_MAX)?))
    }
}

/// Who votes in an epoch, and the proof of it: the last block of the epoch before, finalised by that epoch's validators.
///
/// A chain of records from genesis is all a light client needs to know whose certificates to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRecord {
    /// The last header of the epoch before; it names the validators of this one.
    pub header: Header,
    /// Its certificate.
    pub certificate: Certificate,
}

/// Why a record does not follow from the set before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochRecordError {
    /// The certificate is for another block.
    #[error("the certificate is for another header")]
    Header,
    /// The header names no next validators, or not those of the next epoch.
    #[error("the header does not name the validators of the next epoch")]
    Validators,
    /// The certificate does not hold.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl EpochRecord {
    /// The set this record establishes, given the set of the epoch before.
    pub fn verify(&self, namespace: &[u8], before: &ValidatorSet) -> Result<&ValidatorSet, EpochRecordError> {
        if self.certificate.block_hash() != self.header.hash() {
            return Err(EpochRecordError::Header);
        }
        self.certificate.verify(namespace, before)?;
        let next = self.header.next_validators.as_ref().ok_or(EpochRecordError::Validators)?;
        if Some(next.epoch()) != before.epoch().checked_add(1) {
            return Err(EpochRecordError::Validators);
        }
        Ok(next)
    }
}

impl Write for EpochRecord {
    fn write(&self, buf: &mut impl BufMut) {
        self.header.write(buf);
        self.certificate.write(buf);
    }
}

impl EncodeSize for EpochRecord {
    fn encode_size(&self) -> usize {
        self.header.encode_size() + self.certificate.encode_size()
    }
}

impl Read for EpochRecord {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        Ok(Self { header: Header::read_cfg(buf, &())?, certificate: Certificate::read_cfg(buf, &())? })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{block::tests::block, validators::tests::set};
    use commonware_consensus::{
        simplex::types::{Finalize, Proposal},
        types::{Epoch, Round, View},
    };
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
    use proptest::prelude::*;

    pub(crate) const NAMESPACE: &[u8] = b"surety-test";

    /// `votes` of `members` finalise `payload` in `epoch`.
    pub(crate) fn certificate(epoch: u64, payload: Digest, members: usize, votes: u64) -> Certificate {
        let set = set(epoch, members);
        let proposal = Proposal::new(Round::new(Epoch::new(epoch), View::new(9)), View::new(8), payload);
        let mut signed: Vec<_> = (0..votes)
            .map(|seed| {
                let scheme = set.signer(NAMESPACE, PrivateKey::from_seed(seed)).unwrap();
                Finalize::sign(&scheme, proposal.clone()).unwrap()
            })
            .collect();
        signed.sort_by_key(|vote| vote.attestation.signer);
        let signatures = signed.iter().map(|vote| vote.attestation.signature.clone()).collect();
        let signers = commonware_cryptography::certificate::Signers::new(
            members as u32,
            signed.iter().map(|vote| vote.attestation.signer),
        )
        .unwrap();
        Certificate(Finalization {
            proposal,
            certificate: commonware_cryptography::ed25519::certificate::Certificate { signers, signatures },
        })
    }

    #[test]
    fn a_quorum_is_believed_and_everything_less_is_refused_for_its_reason() {
        let payload = Digest::from([3; 32]);
        let set = set(5, 4);
        let good = certificate(5, payload, 4, 3);
        assert_eq!(good.verify(NAMESPACE, &set), Ok(()));
        assert_eq!(Certificate::from_bytes(good.encode()).unwrap(), good);
        assert_eq!(
            certificate(5, payload, 4, 2).verify(NAMESPACE, &set),
            Err(CertificateError::Quorum { votes: 2, quorum: 3 })
        );
        assert_eq!(certificate(6, payload, 4, 3).verify(NAMESPACE, &set), Err(CertificateError::Epoch));
        assert_eq!(certificate(5, payload, 7, 5).verify(NAMESPACE, &set), Err(CertificateError::Members));
        assert!(matches!(good.verify(b"another chain", &set), Err(CertificateError::Signature(_))));
        let mut other = good.clone();
        other.0.proposal.payload = Digest::from([4; 32]);
        assert!(matches!(other.verify(NAMESPACE, &set), Err(CertificateError::Signature(_))));
    }

    #[test]
    fn an_epoch_record_hands_over_to_the_next_set() {
        let last = block(5, vec![], 4); // epoch 5, names the set of epoch 6
        let record = EpochRecord {
            header: last.header().clone(),
            certificate: certificate(5, last.header().hash(), 7, 5),
        };
        assert_eq!(record.verify(NAMESPACE, &set(5, 7)).unwrap(), &set(6, 4));
        assert_eq!(
            record.verify(NAMESPACE, &set(5, 4)),
            Err(EpochRecordError::Certificate(CertificateError::Members))
        );
        let mut wrong = record.clone();
        wrong.header.next_validators = None;
        assert_eq!(wrong.verify(NAMESPACE, &set(5, 7)), Err(EpochRecordError::Header));
        let plain = block(5, vec![], 0);
        let wrong = EpochRecord {
            header: plain.header().clone(),
            certificate: certificate(5, plain.header().hash(), 7, 5),
        };
        assert_eq!(wrong.verify(NAMESPACE, &set(5, 7)), Err(EpochRecordError::Validators));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(certificate) = Certificate::from_bytes(bytes.clone()) {
                let _ = certificate.verify(NAMESPACE, &set(certificate.epoch(), 4));
            }
            let _ = EpochRecord::decode_cfg(bytes, &());
        }

        #[test]
        fn no_flipped_bit_survives(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let good = certificate(5, Digest::from([3; 32]), 4, 3);
            let mut bytes = good.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Certificate::from_bytes(bytes) {
                prop_assert!(other.verify(NAMESPACE, &set(5, 4)).is_err());
            }
        }
    }
}
