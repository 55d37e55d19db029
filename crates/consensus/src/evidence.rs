//! Evidence that a validator signed two votes of which an honest one signs at most one.
//!
//! In:     what consensus reports of votes it received.
//! Out:    the two signed messages, ready for the staking module, which verifies them again.
//! Touches: nothing.
//! Holds:  only evidence that verifies leaves this room; each guilty validator is reported once per
//!         epoch and process.
//! Absent: the transaction that carries it (the validator signs one), and the punishment (`surety_chain`).
//!
//! A vote is an ed25519 signature over `uvarint(len) ‖ namespace ‖ message`. The namespace is the chain's, followed by
//! `_NOTARIZE`, `_NULLIFY` or `_FINALIZE`. The message is `uvarint(epoch) ‖ uvarint(view)`, and for notarize and finalize
//! then `uvarint(parent view) ‖ payload[32]`.

use crate::{Digest, ValidatorSet};
use commonware_codec::{Encode as _, ReadExt as _};
use commonware_consensus::{
    Epochable as _, Viewable as _,
    simplex::{
        scheme::{Namespace, ed25519::Scheme},
        types::{Activity, Attributable as _, Finalize, Notarize, Nullify},
    },
    types::{Epoch, Round, View},
};
use commonware_cryptography::{
    Verifier as _,
    certificate::Scheme as _,
    ed25519::{PublicKey, Signature},
};
use commonware_utils::ordered::Quorum as _;
use std::collections::BTreeSet;

/// What a vote says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VoteKind {
    /// For a proposal.
    Notarize,
    /// For skipping a view.
    Nullify,
    /// For a proposal's finality.
    Finalize,
}

/// One signed vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedVote {
    /// What it says.
    pub kind: VoteKind,
    /// What is signed, without namespace.
    pub message: Vec<u8>,
    /// By the guilty key.
    pub signature: [u8; 64],
}

/// Two votes that convict their signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Who signed both.
    pub key: PublicKey,
    /// In which epoch.
    pub epoch: u64,
    /// In which view.
    pub view: u64,
    /// One vote.
    pub first: SignedVote,
    /// The other.
    pub second: SignedVote,
}

impl Evidence {
    /// The evidence in a report, if it is any and its signatures hold.
    pub(crate) fn of(
        activity: &Activity<Scheme, Digest>,
        scheme: &Scheme,
        namespace: &Namespace,
    ) -> Option<Self> {
        // The reports keep their votes private; their encoding is the two votes, one after the other.
        let (signer, first, second) = match activity {
            Activity::ConflictingNotarize(both) => {
                let mut bytes = both.encode();
                let first = notarize(&Notarize::read(&mut bytes).ok()?)?;
                (both.signer(), first, notarize(&Notarize::read(&mut bytes).ok()?)?)
            }
            Activity::ConflictingFinalize(both) => {
                let mut bytes = both.encode();
                let first = finalize(&Finalize::read(&mut bytes).ok()?)?;
                (both.signer(), first, finalize(&Finalize::read(&mut bytes).ok()?)?)
            }
            Activity::NullifyFinalize(both) => {
                let mut bytes = both.encode();
                let first = nullify(&Nullify::read(&mut bytes).ok()?)?;
                (both.signer(), first, finalize(&Finalize::read(&mut bytes).ok()?)?)
            }
            _ => return None,
        };
        let key = scheme.participants().key(signer)?.clone();
        let evidence =
            Self { key, epoch: activity.epoch().get(), view: activity.view().get(), first, second };
        evidence.verify(namespace).then_some(evidence)
    }

    /// Whether both votes are signed and an honest validator would not have signed both.
    pub(crate) fn verify(&self, namespace: &Namespace) -> bool {
        use VoteKind::{Finalize, Notarize, Nullify};
        let conflict = match (self.first.kind, self.second.kind) {
            (Notarize, Notarize) | (Finalize, Finalize) => self.first.message != self.second.message,
            (Nullify, Finalize) | (Finalize, Nullify) => true,
            _ => false,
        };
        let round = round_bytes(self.epoch, self.view);
        conflict
            && [&self.first, &self.second].into_iter().all(|vote| {
                let namespace = match vote.kind {
                    Notarize => &namespace.notarize,
                    Nullify => &namespace.nullify,
                    Finalize => &namespace.finalize,
                };
                let signature = Signature::read(&mut bytes::Bytes::copy_from_slice(&vote.signature));
                vote.message.starts_with(&round)
                    && signature.is_ok_and(|signature| self.key.verify(namespace, &vote.message, &signature))
            })
    }

    /// Whether the guilty one is still among these.
    pub fn concerns(&self, validators: &ValidatorSet) -> bool {
        validators.index(&self.key).is_some()
    }
}

/// Whom this process has accused already: one conviction per epoch and validator is enough.
#[derive(Default)]
pub(crate) struct Accused(BTreeSet<(u64, PublicKey)>);

impl Accused {
    /// Whether this accusation is new.
    pub(crate) fn accuse(&mut self, evidence: &Evidence) -> bool {
        self.0.insert((evidence.epoch, evidence.key.clone()))
    }
}

/// How a round stands at the front of every message.
fn round_bytes(epoch: u64, view: u64) -> Vec<u8> {
    Round::new(Epoch::new(epoch), View::new(view)).encode().to_vec()
}

fn notarize(vote: &Notarize<Scheme, Digest>) -> Option<SignedVote> {
    signed(VoteKind::Notarize, vote.proposal.encode().to_vec(), vote.attestation.signature.get()?)
}

fn finalize(vote: &Finalize<Scheme, Digest>) -> Option<SignedVote> {
    signed(VoteKind::Finalize, vote.proposal.encode().to_vec(), vote.attestation.signature.get()?)
}

fn nullify(vote: &Nullify<Scheme>) -> Option<SignedVote> {
    signed(VoteKind::Nullify, vote.round.encode().to_vec(), vote.attestation.signature.get()?)
}

fn signed(kind: VoteKind, message: Vec<u8>, signature: &Signature) -> Option<SignedVote> {
    Some(SignedVote { kind, message, signature: signature.encode().as_ref().try_into().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{certificate::tests::NAMESPACE, validators::tests::set};
    use commonware_consensus::simplex::types::{
        ConflictingFinalize, ConflictingNotarize, NullifyFinalize, Proposal,
    };
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};

    fn proposal(payload: u8) -> Proposal<Digest> {
        Proposal::new(Round::new(Epoch::new(3), View::new(300)), View::new(299), Digest::from([payload; 32]))
    }

    #[test]
    fn each_kind_of_equivocation_is_shown_and_forgeries_are_not() {
        let set = set(3, 4);
        let key = PrivateKey::from_seed(2);
        let scheme = set.signer(NAMESPACE, key.clone()).unwrap();
        let namespace = Namespace::new(NAMESPACE);
        let notarize = |payload| Notarize::sign(&scheme, proposal(payload)).unwrap();
        let finalize = |payload| Finalize::sign(&scheme, proposal(payload)).unwrap();
        let nullify = Nullify::sign::<Digest>(&scheme, proposal(1).round).unwrap();
        let activities: [Activity<Scheme, Digest>; 3] = [
            Activity::ConflictingNotarize(ConflictingNotarize::new(notarize(1), notarize(2))),
            Activity::ConflictingFinalize(ConflictingFinalize::new(finalize(1), finalize(2))),
            Activity::NullifyFinalize(NullifyFinalize::new(nullify, finalize(1))),
        ];
        for activity in &activities {
            let evidence = Evidence::of(activity, &scheme, &namespace).expect("convicts");
            assert_eq!(evidence.key, key.public_key());
            assert_eq!((evidence.epoch, evidence.view), (3, 300));
            assert!(evidence.concerns(&set));
            // What the staking module checks, spelled out.
            let suffix: &[u8] = match evidence.second.kind {
                VoteKind::Notarize => b"_NOTARIZE",
                VoteKind::Nullify => b"_NULLIFY",
                VoteKind::Finalize => b"_FINALIZE",
            };
            let base = [NAMESPACE, suffix].concat();
            let signature =
                Signature::read(&mut bytes::Bytes::copy_from_slice(&evidence.second.signature)).unwrap();
            assert!(evidence.key.verify(&base, &evidence.second.message, &signature));
            assert_eq!(evidence.second.message[..3], [3, 0xAC, 0x02], "uvarint(3) ‖ uvarint(300)");

            let mut forged = evidence.clone();
            forged.second.signature[7] ^= 1;
            assert!(!forged.verify(&namespace));
            let mut same = evidence.clone();
            same.second = same.first.clone();
            assert!(!same.verify(&namespace), "one vote is no conflict");
            let mut elsewhere = evidence.clone();
            elsewhere.view += 1;
            assert!(!elsewhere.verify(&namespace), "the round is inside what was signed");
            assert!(!evidence.verify(&Namespace::new(b"another chain")));
        }
        let honest = Activity::Notarize(notarize(1));
        assert_eq!(Evidence::of(&honest, &scheme, &namespace), None);
    }
}
