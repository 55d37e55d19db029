//! Sets: who validates an epoch, who took their turns, and who validates the next.

use alloy_primitives::{Address, B256, U256};
use surety_types::PublicKey;

use super::{bonded_to, candidates, pools, slot, tag};
use crate::{
    execute::Header,
    host::{Host, Outcome, Slot, checked, require},
    spec::VALIDATORS_MAX,
    validators::{Validator, ValidatorSet},
};

/// An epoch's parity: two sets are kept at a time.
fn parity(epoch: u64) -> [u8; 1] {
    [u8::from(epoch % 2 == 1)]
}

/// Where a set's epoch and length are stored.
pub(crate) fn set_length_slot(epoch: u64) -> Slot {
    slot(tag::SET, &[&parity(epoch)])
}

/// Where a member's key, operator and stake are stored.
pub(crate) fn member_slots(epoch: u64, index: usize) -> [Slot; 3] {
    let first = slot(tag::SET_MEMBER, &[&parity(epoch), &(index as u64).to_be_bytes()]);
    [first, first.after(1), first.after(2)]
}

fn performance_slot(epoch: u64, index: u64) -> Slot {
    slot(tag::PERFORMANCE, &[&parity(epoch), &index.to_be_bytes()])
}

/// Where the turns that a block shows are counted.
pub(crate) fn performance_slots(header: &Header) -> Vec<Slot> {
    let indexes = header.missed.iter().chain([&header.proposer]);
    indexes.map(|index| performance_slot(header.epoch, *index as u64)).collect()
}

/// The set that is stored where this epoch's would be; it may be another epoch's, or empty.
pub(crate) fn load_set(host: &mut dyn Host, epoch: u64) -> Outcome<ValidatorSet> {
    let [_, _, stored_epoch, length] = host.load_quarters(set_length_slot(epoch))?;
    let mut members = Vec::new();
    for index in 0..usize::try_from(length).unwrap_or(usize::MAX).min(VALIDATORS_MAX) {
        let [key, operator, stake] = member_slots(epoch, index);
        members.push(Validator {
            key: PublicKey(host.load_word(key)?.0),
            operator: host.load_address(operator)?,
            stake: host.load(stake)?,
        });
    }
    Ok(ValidatorSet { epoch: stored_epoch, members })
}

pub(crate) fn store_set(host: &mut dyn Host, set: &ValidatorSet) -> Outcome<()> {
    let [_, _, _, length_before] = host.load_quarters(set_length_slot(set.epoch))?;
    host.store_quarters(set_length_slot(set.epoch), [0, 0, set.epoch, set.members.len() as u64])?;
    for (index, member) in set.members.iter().enumerate() {
        let [key, operator, stake] = member_slots(set.epoch, index);
        host.store_word(key, B256::from(member.key.0))?;
        host.store_address(operator, member.operator)?;
        host.store(stake, member.stake)?;
    }
    let stale = usize::try_from(length_before).unwrap_or(usize::MAX).min(VALIDATORS_MAX);
    for index in set.members.len()..stale {
        for slot in member_slots(set.epoch, index) {
            host.store(slot, U256::ZERO)?;
        }
    }
    host.store_word(slot(tag::SET_DIGEST, &[&set.epoch.to_be_bytes()]), set.digest())
}

pub(super) fn performance(host: &mut dyn Host, epoch: u64, index: U256) -> Outcome<(u64, u64)> {
    let now = host.surroundings().epoch;
    require(epoch == now || epoch.checked_add(1) == Some(now), "the turns of that epoch are not kept")?;
    let [_, _, proposed, missed] = host.load_quarters(performance_slot(epoch, index.saturating_to()))?;
    Ok((proposed, missed))
}

/// Counts the turns a block shows; at an epoch's end jails who missed too many and decides the next set.
///
/// `proposer` and `missed` are indexes into the epoch's set.
pub(crate) fn end_block(
    host: &mut dyn Host,
    proposer: usize,
    missed: &[usize],
    epoch_ends: bool,
) -> Outcome<Option<ValidatorSet>> {
    let epoch = host.surroundings().epoch;
    let mut count = |index: usize, turns: [u64; 2]| -> Outcome<()> {
        let at = performance_slot(epoch, index as u64);
        let [_, _, proposed, missed] = host.load_quarters(at)?;
        let sums = [proposed.saturating_add(turns[0]), missed.saturating_add(turns[1])];
        host.store_quarters(at, [0, 0, sums[0], sums[1]])
    };
    count(proposer, [1, 0])?;
    for index in missed {
        count(*index, [0, 1])?;
    }
    if !epoch_ends {
        return Ok(None);
    }
    let set = load_set(host, epoch)?;
    jail(host, &set)?;
    let next_epoch = checked(epoch.checked_add(1))?;
    forget_turns(host, next_epoch)?;
    let mut next = elect(host, next_epoch)?;
    if next.members.is_empty() {
        // Nobody is eligible: the chain goes on with whom it has.
        next.members = set.members;
    }
    redistribute(host, &mut next)?;
    store_set(host, &next)?;
    Ok(Some(next))
}

/// The turns of the epoch two before make room for this one's.
fn forget_turns(host: &mut dyn Host, epoch: u64) -> Outcome<()> {
    (0..VALIDATORS_MAX as u64).try_for_each(|index| host.store(performance_slot(epoch, index), U256::ZERO))
}

/// Begins an epoch with validators of choice, as a chain that goes on does; without `keys`, with whom an election yields.
///
/// Each must stand or stand again by the usual rules, but for jail: time in jail counts for the epochs after. Whoever is
/// not chosen stands no longer.
pub(crate) fn begin_anew(
    host: &mut dyn Host,
    epoch: u64,
    keys: Option<&[PublicKey]>,
) -> Outcome<ValidatorSet> {
    let mut chosen: Vec<(PublicKey, Address)> = match keys {
        None => elect(host, epoch)?.members.into_iter().map(|member| (member.key, member.operator)).collect(),
        Some(keys) => {
            let mut chosen = Vec::new();
            for key in keys {
                let operator = candidates::operator_of(host, &B256::from(key.0))?;
                require(!operator.is_zero(), "a key is no validator's")?;
                require(candidates::key_of(host, operator)?.0 == key.0, "a key is its operator's no longer")?;
                chosen.push((*key, operator));
            }
            chosen
        }
    };
    require(!chosen.is_empty(), "nobody is eligible to validate")?;
    chosen.sort();
    for operator in candidates::all(host)? {
        if !chosen.iter().any(|(_, other)| *other == operator) {
            candidates::leave(host, operator)?;
        }
    }
    let mut set = ValidatorSet { epoch, members: Vec::new() };
    for (key, operator) in chosen {
        candidates::register_at_genesis(host, operator, B256::from(key.0))?;
        set.members.push(Validator { key, operator, stake: bonded_to(host, operator)? });
    }
    forget_turns(host, epoch)?;
    store_set(host, &set)?;
    Ok(set)
}

/// Jails who missed too many turns, the worst first, and never so many that the rest could not decide.
fn jail(host: &mut dyn Host, set: &ValidatorSet) -> Outcome<()> {
    let (least, percent) = (host.params().jail_missed_min, host.params().jail_missed_percent);
    let until_s = host.surroundings().timestamp_s.saturating_add(host.params().jail_s).max(1);
    let mut absent = Vec::new();
    for (index, member) in set.members.iter().enumerate() {
        let [_, _, proposed, missed] = host.load_quarters(performance_slot(set.epoch, index as u64))?;
        let turns = u128::from(proposed) + u128::from(missed);
        if missed >= least && u128::from(missed) * 100 >= turns * u128::from(percent) {
            absent.push((std::cmp::Reverse(missed), member.key, member.operator));
        }
    }
    absent.sort();
    let most = set.members.len().saturating_sub(1) / 3;
    for (_, _, operator) in absent.into_iter().take(most) {
        candidates::store_jailed_until(host, operator, until_s)?;
    }
    Ok(())
}

/// The largest candidates that may validate.
fn elect(host: &mut dyn Host, epoch: u64) -> Outcome<ValidatorSet> {
    let least = U256::from(host.params().validator_stake_min);
    let most = usize::try_from(host.params().validators_max).unwrap_or(usize::MAX).min(VALIDATORS_MAX);
    let mut eligible = Vec::new();
    for operator in candidates::all(host)? {
        let stake = bonded_to(host, operator)?;
        if stake >= least && candidates::jailed_until(host, operator)? == 0 {
            let key = PublicKey(candidates::key_of(host, operator)?.0);
            eligible.push(Validator { key, operator, stake });
        }
    }
    eligible.sort_by(|a, b| b.stake.cmp(&a.stake).then(a.key.cmp(&b.key)));
    eligible.truncate(most);
    eligible.sort_by_key(|member| member.key);
    Ok(ValidatorSet { epoch, members: eligible })
}

/// Gives what was forfeited to the bonds of a set, by stake; what does not divide stays.
fn redistribute(host: &mut dyn Host, set: &mut ValidatorSet) -> Outcome<()> {
    let forfeited_slot = slot(tag::FORFEITED, &[]);
    let forfeited = host.load(forfeited_slot)?;
    if forfeited.is_zero() {
        return Ok(());
    }
    let mut together = U256::ZERO;
    for member in &set.members {
        together = checked(together.checked_add(member.stake))?;
    }
    if together.is_zero() {
        return Ok(());
    }
    let mut given = U256::ZERO;
    for member in &mut set.members {
        let operator: Address = member.operator;
        let mut pool = pools::pool(host, operator)?;
        if pool.shares.is_zero() {
            continue;
        }
        let part = checked(forfeited.checked_mul(member.stake))? / together;
        pool.stake = checked(pool.stake.checked_add(part))?;
        pools::store_pool(host, operator, pool)?;
        given = checked(given.checked_add(part))?;
        member.stake = pool.stake;
    }
    host.store(forfeited_slot, checked(forfeited.checked_sub(given))?)?;
    let total = pools::bonded_total(host)?;
    pools::store_bonded_total(host, checked(total.checked_add(given))?)
}
