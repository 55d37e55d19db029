//! Evidence: two votes of one key that no honest validator signs both of.
//!
//! A vote is signed over a namespace and a message, as Commonware's simplex encodes them: the length of the namespace
//! (LEB128) ‖ the chain's vote namespace ‖ `_NOTARIZE`, `_NULLIFY` or `_FINALIZE` ‖ the message. A message is epoch and
//! view, and unless it nullifies the parent's view and the block's digest; numbers are LEB128.

use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::SolCall as _;
use surety_types::{
    PublicKey,
    abi::{IStaking, address::STAKING},
};

use super::{candidates, pools};
use crate::{
    crypto::verifies_cofactored,
    host::{GAS_ED25519, Host, Outcome, checked, refuse, require},
};

/// What a vote is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteKind {
    /// A block, in the first round.
    Notarize = 0,
    /// No block in a view.
    Nullify = 1,
    /// A block, in the second round.
    Finalize = 2,
}

impl VoteKind {
    fn from_code(code: u8) -> Option<VoteKind> {
        [VoteKind::Notarize, VoteKind::Nullify, VoteKind::Finalize]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }

    fn suffix(self) -> &'static [u8] {
        match self {
            VoteKind::Notarize => b"_NOTARIZE",
            VoteKind::Nullify => b"_NULLIFY",
            VoteKind::Finalize => b"_FINALIZE",
        }
    }

    /// What is signed for a message, under a chain's vote namespace.
    pub fn signed_bytes(self, vote_namespace: &[u8], message: &[u8]) -> Vec<u8> {
        let suffix = self.suffix();
        let mut bytes = Vec::new();
        write_number((vote_namespace.len() + suffix.len()) as u64, &mut bytes);
        bytes.extend(vote_namespace);
        bytes.extend(suffix);
        bytes.extend(message);
        bytes
    }
}

/// A vote with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedVote {
    /// What it is for.
    pub kind: VoteKind,
    /// What is signed, without the namespace.
    pub message: Vec<u8>,
    /// ed25519.
    pub signature: [u8; 64],
}

impl SignedVote {
    /// The call of the staking module that reports two votes of one key.
    pub fn report(key: &PublicKey, first: &SignedVote, second: &SignedVote) -> Bytes {
        let call = IStaking::reportEquivocationCall {
            key: key.0.into(),
            firstKind: first.kind as u8,
            firstMessage: first.message.clone().into(),
            firstSignature: first.signature.to_vec().into(),
            secondKind: second.kind as u8,
            secondMessage: second.message.clone().into(),
            secondSignature: second.signature.to_vec().into(),
        };
        call.abi_encode().into()
    }
}

/// What a vote says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Vote {
    epoch: u64,
    view: u64,
    /// The parent's view and the block's digest.
    block: Option<(u64, [u8; 32])>,
}

impl Vote {
    /// Reads a message; only the one that is signed for a vote is accepted.
    fn decode(kind: VoteKind, message: &[u8]) -> Option<Vote> {
        let mut rest = message;
        let epoch = read_number(&mut rest)?;
        let view = read_number(&mut rest)?;
        let block = match kind {
            VoteKind::Nullify => None,
            VoteKind::Notarize | VoteKind::Finalize => {
                let parent = read_number(&mut rest)?;
                let (digest, after) = rest.split_first_chunk::<32>()?;
                rest = after;
                Some((parent, *digest))
            }
        };
        rest.is_empty().then_some(Vote { epoch, view, block })
    }
}

/// LEB128, the shortest form only.
fn read_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits || (*byte == 0 && shift > 0) {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn write_number(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Whether no honest validator signs both: different blocks in one round of votes, or finalising what it nullified.
fn conflict(first: (VoteKind, Vote), second: (VoteKind, Vote)) -> bool {
    let same_turn = (first.1.epoch, first.1.view) == (second.1.epoch, second.1.view);
    same_turn
        && match (first.0, second.0) {
            (VoteKind::Notarize, VoteKind::Notarize) | (VoteKind::Finalize, VoteKind::Finalize) => {
                first.1.block != second.1.block
            }
            (VoteKind::Nullify, VoteKind::Finalize) | (VoteKind::Finalize, VoteKind::Nullify) => true,
            _ => false,
        }
}

/// Judges a report and forfeits the stake it convicts.
pub(super) fn report(
    host: &mut dyn Host,
    reporter: Address,
    report: &IStaking::reportEquivocationCall,
) -> Outcome<()> {
    let operator = candidates::operator_of(host, &report.key)?;
    require(!operator.is_zero(), "the key is no validator's")?;
    require(!candidates::is_slashed(host, operator)?, "the operator was slashed already")?;
    let sides = [
        (report.firstKind, &report.firstMessage, &report.firstSignature),
        (report.secondKind, &report.secondMessage, &report.secondSignature),
    ];
    let mut votes = Vec::with_capacity(2);
    for (kind, message, signature) in sides {
        let Some(kind) = VoteKind::from_code(kind) else { return refuse("no such kind of vote") };
        let Some(vote) = Vote::decode(kind, message) else { return refuse("a message is no vote") };
        let Ok(signature) = <&[u8; 64]>::try_from(signature.as_ref()) else {
            return refuse("a signature is not 64 bytes");
        };
        host.charge(GAS_ED25519)?;
        let signed = kind.signed_bytes(&host.surroundings().vote_namespace, message);
        require(verifies_cofactored(&report.key.0, &signed, signature), "a signature is not the key's")?;
        votes.push((kind, vote));
    }
    let (first, second) = (votes[0], votes[1]);
    require(conflict(first, second), "the votes do not conflict")?;
    let (epoch, view) = (first.1.epoch, first.1.view);
    let now = host.surroundings().epoch;
    require(epoch <= now, "the votes are of an epoch to come")?;
    require(now - epoch <= host.params().evidence_epochs_max, "the votes are too old")?;
    slash(host, operator, reporter, report, epoch, view)
}

fn slash(
    host: &mut dyn Host,
    operator: Address,
    reporter: Address,
    report: &IStaking::reportEquivocationCall,
    epoch: u64,
    view: u64,
) -> Outcome<()> {
    let whole = U256::from(pools::WHOLE_BPS);
    let bps = host.params().slash_equivocation_bps;
    let mut pool = pools::pool(host, operator)?;
    let amount = checked(pool.stake.checked_mul(U256::from(bps)))? / whole;
    let bounty = checked(amount.checked_mul(U256::from(host.params().report_bounty_bps)))? / whole;
    pool.stake = checked(pool.stake.checked_sub(amount))?;
    pools::store_pool(host, operator, pool)?;
    let total = pools::bonded_total(host)?;
    pools::store_bonded_total(host, checked(total.checked_sub(amount))?)?;
    pools::forfeit(host, checked(amount.checked_sub(bounty))?)?;
    // What is on its way out forfeits the same share when it is withdrawn.
    candidates::store_slash(host, operator, candidates::Slash { epoch, bps })?;
    candidates::leave(host, operator)?;
    if !bounty.is_zero() {
        host.pay(STAKING, reporter, bounty)?;
    }
    host.emit(
        STAKING,
        &IStaking::Slashed { operator, reporter, key: report.key, epoch, view_: view, amount, bounty },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(epoch: u64, view: u64, block: Option<(u64, [u8; 32])>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_number(epoch, &mut bytes);
        write_number(view, &mut bytes);
        if let Some((parent, digest)) = block {
            write_number(parent, &mut bytes);
            bytes.extend(digest);
        }
        bytes
    }

    proptest! {
        #[test]
        fn votes_come_back(epoch: u64, view: u64, parent: u64, digest: [u8; 32]) {
            let block = Some((parent, digest));
            let vote = Vote { epoch, view, block };
            prop_assert_eq!(Vote::decode(VoteKind::Notarize, &message(epoch, view, block)), Some(vote));
            let nullify = Vote { epoch, view, block: None };
            prop_assert_eq!(Vote::decode(VoteKind::Nullify, &message(epoch, view, None)), Some(nullify));
        }

        #[test]
        fn a_vote_has_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for kind in [VoteKind::Notarize, VoteKind::Nullify, VoteKind::Finalize] {
                if let Some(vote) = Vote::decode(kind, &bytes) {
                    prop_assert_eq!(message(vote.epoch, vote.view, vote.block), bytes.clone());
                }
            }
        }
    }

    #[test]
    fn only_what_no_honest_validator_signs_conflicts() {
        use VoteKind::{Finalize, Notarize, Nullify};
        let block = |view: u64, digest: u8| Vote { epoch: 1, view, block: Some((view - 1, [digest; 32])) };
        let none = |view: u64| Vote { epoch: 1, view, block: None };
        let check = |first, second, expected| {
            assert_eq!(conflict(first, second), expected, "{first:?} {second:?}");
            assert_eq!(conflict(second, first), expected, "{second:?} {first:?}");
        };
        check((Notarize, block(2, 1)), (Notarize, block(2, 2)), true);
        check((Finalize, block(2, 1)), (Finalize, block(2, 2)), true);
        check((Nullify, none(2)), (Finalize, block(2, 1)), true);
        check((Notarize, block(2, 1)), (Notarize, block(2, 1)), false);
        check((Notarize, block(2, 1)), (Notarize, block(3, 2)), false);
        check((Notarize, block(2, 1)), (Finalize, block(2, 2)), false);
        check((Nullify, none(2)), (Notarize, block(2, 1)), false);
        check((Nullify, none(2)), (Nullify, none(2)), false);
        let mut later = block(2, 2);
        later.epoch = 2;
        check((Notarize, block(2, 1)), (Notarize, later), false);
    }
}
