//! Staking: who has bonded what to whom, who validates, and who forfeits.
//!
//! In:     bonds with their value, requests to leave, validator keys, evidence; the end of each block and epoch.
//! Out:    payments of what has matured, bounties, the next epoch's validators; what other modules take of an operator's
//!         stake for those it has harmed.
//! Touches: its own storage and balance.
//! Holds:  its balance covers every pool, everything unbonding and what is forfeited; leaving stake stays answerable
//!         until it has left; a key once registered stays its operator's for ever; who signed conflicting votes never
//!         validates again.
//! Absent: rewards (a block's fees go to its proposer), votes on proposals (`governance`).

mod candidates;
mod evidence;
mod pools;
mod sets;

#[cfg(test)]
pub(crate) mod tests;

use alloy_primitives::{B256, U256};
use alloy_sol_types::SolCall as _;
use surety_types::abi::{IStaking, address::STAKING};

pub(crate) use candidates::{register_at_genesis, require_proof};
pub use candidates::{validator_proof_message, worker_proof_message};
pub use evidence::{SignedVote, VoteKind};
pub(crate) use pools::{
    WHOLE_BPS, answerable, bond_at_genesis, bonded_before, bonded_to, bonded_total, forfeit_paid, penalize,
    votes_of,
};
pub(crate) use sets::{
    begin_anew, end_block, load_set, member_slots, performance_slots, set_length_slot, store_set,
};

use super::{Call, decode, takes_no_value};
use crate::host::{Host, Outcome, Slot, require};

/// What each tag of the storage holds.
mod tag {
    /// Of an operator: its pool's stake.
    pub(super) const POOL_STAKE: u8 = 1;
    /// Of an operator: its pool's shares.
    pub(super) const POOL_SHARES: u8 = 2;
    /// Of an operator and a delegator: shares.
    pub(super) const SHARES: u8 = 3;
    /// Of an account: the list of operators it bonds to.
    pub(super) const DELEGATIONS: u8 = 4;
    /// Of an account and an operator: place in that list, from one.
    pub(super) const DELEGATION_PLACE: u8 = 5;
    /// Of an operator and a delegator: how many entries have been opened and closed.
    pub(super) const UNBONDING: u8 = 6;
    /// Of an operator, a delegator and a number: an entry, two slots.
    pub(super) const UNBONDING_ENTRY: u8 = 7;
    /// Bonded in all.
    pub(super) const BONDED_TOTAL: u8 = 8;
    /// Forfeited and not yet given to others.
    pub(super) const FORFEITED: u8 = 9;
    /// Of an operator: its validator key.
    pub(super) const KEY: u8 = 10;
    /// Of a validator key: its operator.
    pub(super) const KEY_OPERATOR: u8 = 11;
    /// Of an operator: until when it is in jail.
    pub(super) const JAILED_UNTIL: u8 = 12;
    /// Of an operator: that it was slashed, from which epoch on, by how much.
    pub(super) const SLASHED: u8 = 13;
    /// The list of operators that stand as validators.
    pub(super) const CANDIDATES: u8 = 14;
    /// Of an operator: place in that list, from one.
    pub(super) const CANDIDATE_PLACE: u8 = 15;
    /// Of an epoch's parity: its set's epoch and length.
    pub(super) const SET: u8 = 16;
    /// Of an epoch's parity and an index: a member, three slots.
    pub(super) const SET_MEMBER: u8 = 17;
    /// Of an epoch: its set's digest.
    pub(super) const SET_DIGEST: u8 = 18;
    /// Of an epoch's parity and an index: turns taken and missed.
    pub(super) const PERFORMANCE: u8 = 19;
    /// Of an operator: stake on its way out, its shares, how many such pools there were before.
    pub(super) const LEAVING: u8 = 20;
    /// Of an operator: the list of epochs in which its pool's stake changed, each with what it was at the epoch's end.
    pub(super) const STAKES: u8 = 21;
}

fn slot(tag: u8, keys: &[&[u8]]) -> Slot {
    Slot::new(STAKING, tag, keys)
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IStaking::IStakingCalls as Calls;
    let decoded = decode::<Calls>(call)?;
    if !matches!(decoded, Calls::bond(_) | Calls::delegate(_)) {
        takes_no_value(call)?;
    }
    match decoded {
        Calls::bond(_) => pools::bond(host, call.caller, call.caller, call.value).map(|()| Vec::new()),
        Calls::delegate(delegate) => {
            let known = !pools::pool(host, delegate.operator)?.shares.is_zero();
            require(known, "the operator has bonded nothing")?;
            pools::bond(host, delegate.operator, call.caller, call.value).map(|()| Vec::new())
        }
        Calls::unbond(unbond) => {
            pools::unbond(host, unbond.operator, call.caller, unbond.amount).map(|()| Vec::new())
        }
        Calls::withdraw(withdraw) => {
            let amount = pools::withdraw(host, withdraw.operator, call.caller)?;
            Ok(IStaking::withdrawCall::abi_encode_returns(&amount))
        }
        Calls::registerValidator(register) => {
            candidates::register(host, call.caller, register.key, &register.proof).map(|()| Vec::new())
        }
        Calls::retireValidator(_) => candidates::retire(host, call.caller).map(|()| Vec::new()),
        Calls::unjail(_) => candidates::unjail(host, call.caller).map(|()| Vec::new()),
        Calls::reportEquivocation(report) => {
            evidence::report(host, call.caller, &report).map(|()| Vec::new())
        }
        Calls::bondedOf(get) => {
            let bonded = pools::bonded_of(host, get.operator, get.delegator)?;
            Ok(IStaking::bondedOfCall::abi_encode_returns(&bonded))
        }
        Calls::bondedTo(get) => {
            Ok(IStaking::bondedToCall::abi_encode_returns(&bonded_to(host, get.operator)?))
        }
        Calls::votesOf(get) => Ok(IStaking::votesOfCall::abi_encode_returns(&votes_of(host, get.account)?)),
        Calls::bondedTotal(_) => Ok(IStaking::bondedTotalCall::abi_encode_returns(&bonded_total(host)?)),
        Calls::forfeited(_) => {
            let forfeited: U256 = host.load(slot(tag::FORFEITED, &[]))?;
            Ok(IStaking::forfeitedCall::abi_encode_returns(&forfeited))
        }
        Calls::leaving(get) => {
            Ok(IStaking::leavingCall::abi_encode_returns(&pools::leaving(host, get.operator)?))
        }
        Calls::delegationsOf(get) => {
            Ok(IStaking::delegationsOfCall::abi_encode_returns(&pools::delegations_of(host, get.account)?))
        }
        Calls::unbondingOf(get) => {
            let entries = pools::unbonding_of(host, get.operator, get.delegator)?;
            Ok(IStaking::unbondingOfCall::abi_encode_returns(&entries))
        }
        Calls::validatorOf(get) => {
            let validator = candidates::validator_of(host, get.operator)?;
            Ok(IStaking::validatorOfCall::abi_encode_returns(&validator))
        }
        Calls::operatorOf(get) => {
            let operator = candidates::operator_of(host, &get.key)?;
            Ok(IStaking::operatorOfCall::abi_encode_returns(&operator))
        }
        Calls::candidates(_) => Ok(IStaking::candidatesCall::abi_encode_returns(&candidates::all(host)?)),
        Calls::validatorSet(get) => {
            let set = load_set(host, get.epoch)?;
            require(set.epoch == get.epoch, "the set of that epoch is not kept")?;
            let members = set.members.into_iter().map(|member| IStaking::Member {
                key: B256::from(member.key.0),
                operator: member.operator,
                stake: member.stake,
            });
            Ok(IStaking::validatorSetCall::abi_encode_returns(&members.collect()))
        }
        Calls::setDigest(get) => {
            let digest = host.load_word(slot(tag::SET_DIGEST, &[&get.epoch.to_be_bytes()]))?;
            Ok(IStaking::setDigestCall::abi_encode_returns(&digest))
        }
        Calls::performance(get) => {
            let (proposed, missed) = sets::performance(host, get.epoch, get.index)?;
            let performance = IStaking::performanceReturn { proposed, missed };
            Ok(IStaking::performanceCall::abi_encode_returns(&performance))
        }
    }
}
