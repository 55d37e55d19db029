//! Pools: what is bonded to each operator, and what is on its way out.
//!
//! A pool's stake belongs to its shares. A bond buys shares, unbonding sells them; slashing and what others forfeited
//! change the stake and leave the shares. Divisions round against whoever acts, so that a pool never owes more than
//! it has. What is on its way out is a second pool of the operator's: an entry in it is shares too, so that a penalty
//! takes from everyone who has not left, at once.

use alloy_primitives::{Address, U256};
use surety_types::abi::{IStaking, address::STAKING};

use super::{candidates, slot, tag};
use crate::host::{Host, Outcome, Slot, checked, refuse, require};

/// Operators one account bonds to.
const DELEGATIONS_MAX: u64 = 16;
/// Entries one account has on the way out of one pool.
const UNBONDING_MAX: u64 = 16;
/// Flags of an entry: that its pool had been slashed already; that it is shares of a leaving pool, whose generation is in
/// the bits above.
const AFTER_SLASH: u64 = 1;
const POOLED: u64 = 2;
const GENERATION_SHIFT: u32 = 2;
/// A leaving pool whose shares are worth less than 2⁻⁶⁴ each is given up.
const LEAVING_SHIFT: usize = 64;
/// Ten-thousandths of a whole.
pub(crate) const WHOLE_BPS: u64 = 10_000;

/// What is bonded to an operator, or what leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) stake: U256,
    pub(super) shares: U256,
}

impl Pool {
    /// What some of its shares are worth.
    fn worth(&self, shares: U256) -> Outcome<U256> {
        if self.shares.is_zero() {
            return Ok(U256::ZERO);
        }
        Ok(checked(self.stake.checked_mul(shares))? / self.shares)
    }
}

pub(super) fn pool(host: &mut dyn Host, operator: Address) -> Outcome<Pool> {
    let stake = host.load(slot(tag::POOL_STAKE, &[operator.as_slice()]))?;
    let shares = host.load(slot(tag::POOL_SHARES, &[operator.as_slice()]))?;
    Ok(Pool { stake, shares })
}

pub(super) fn store_pool(host: &mut dyn Host, operator: Address, pool: Pool) -> Outcome<()> {
    let at = slot(tag::POOL_STAKE, &[operator.as_slice()]);
    if host.load(at)? != pool.stake {
        note_stake(host, operator, pool.stake)?;
    }
    host.store(at, pool.stake)?;
    host.store(slot(tag::POOL_SHARES, &[operator.as_slice()]), pool.shares)
}

fn stakes_slot(operator: Address) -> Slot {
    slot(tag::STAKES, &[operator.as_slice()])
}

/// Notes what a pool's stake is from now on: one entry for each epoch in which it changed.
fn note_stake(host: &mut dyn Host, operator: Address, stake: U256) -> Outcome<()> {
    let (list, epoch) = (stakes_slot(operator), u128::from(host.surroundings().epoch));
    let stake = checked(u128::try_from(stake).ok())?;
    let length = host.load_u64(list)?;
    if length > 0 && host.load_halves(list.after(length))?.0 == epoch {
        return host.store_halves(list.after(length), epoch, stake);
    }
    host.push(list, (U256::from(epoch) << 128usize) | U256::from(stake)).map(drop)
}

/// What was bonded to an operator when an epoch began.
pub(crate) fn bonded_before(host: &mut dyn Host, operator: Address, epoch: u64) -> Outcome<U256> {
    let list = stakes_slot(operator);
    let (mut before, mut after) = (0, host.load_u64(list)?);
    // Mostly the last entry is the one.
    let mut middle = after.saturating_sub(1);
    while before < after {
        if host.load_halves(list.after(middle.saturating_add(1)))?.0 < u128::from(epoch) {
            before = middle + 1;
        } else {
            after = middle;
        }
        middle = before + (after - before) / 2;
    }
    match before {
        0 => Ok(U256::ZERO),
        place => Ok(U256::from(host.load_halves(list.after(place))?.1)),
    }
}

/// What is on its way out of an operator's pool, and which of such pools it is: when penalties have left next to nothing of
/// one, its shares are worth nothing for good, and another begins.
fn leaving_pool(host: &mut dyn Host, operator: Address) -> Outcome<(Pool, u64)> {
    let at = slot(tag::LEAVING, &[operator.as_slice()]);
    let pool = Pool { stake: host.load(at)?, shares: host.load(at.after(1))? };
    Ok((pool, host.load_u64(at.after(2))?))
}

fn store_leaving(host: &mut dyn Host, operator: Address, pool: Pool, generation: u64) -> Outcome<()> {
    let at = slot(tag::LEAVING, &[operator.as_slice()]);
    host.store(at, pool.stake)?;
    host.store(at.after(1), pool.shares)?;
    host.store_u64(at.after(2), generation)
}

/// On its way out of an operator's pool.
pub(super) fn leaving(host: &mut dyn Host, operator: Address) -> Outcome<U256> {
    Ok(leaving_pool(host, operator)?.0.stake)
}

/// What an operator answers with for its workers: what is bonded to it, and what has not left it yet.
pub(crate) fn answerable(host: &mut dyn Host, operator: Address) -> Outcome<U256> {
    let leaving = leaving(host, operator)?;
    checked(bonded_to(host, operator)?.checked_add(leaving))
}

/// Takes `amount` of what an operator answers with, bonded and leaving alike, pays `payments` out of it and keeps the rest
/// for the bonds of the next validators. Both are at most what there is; the caller has seen to it.
pub(crate) fn penalize(
    host: &mut dyn Host,
    operator: Address,
    amount: U256,
    payments: &[(Address, U256)],
) -> Outcome<()> {
    let mut bonded = pool(host, operator)?;
    let (mut leaving, generation) = leaving_pool(host, operator)?;
    let together = checked(bonded.stake.checked_add(leaving.stake))?;
    require(amount <= together, "the operator answers with less")?;
    if amount.is_zero() {
        return Ok(());
    }
    let of_bonded = checked(amount.checked_mul(bonded.stake))? / together;
    bonded.stake = checked(bonded.stake.checked_sub(of_bonded))?;
    leaving.stake = checked(leaving.stake.checked_sub(checked(amount.checked_sub(of_bonded))?))?;
    store_pool(host, operator, bonded)?;
    store_leaving(host, operator, leaving, generation)?;
    let total = bonded_total(host)?;
    store_bonded_total(host, checked(total.checked_sub(of_bonded))?)?;
    let mut paid = U256::ZERO;
    for (to, part) in payments.iter().filter(|(_, part)| !part.is_zero()) {
        host.pay(STAKING, *to, *part)?;
        paid = checked(paid.checked_add(*part))?;
    }
    forfeit(host, checked(amount.checked_sub(paid))?)?;
    host.emit(STAKING, &IStaking::Penalized { operator, amount, paid })
}

/// Keeps for the bonds of the next validators what another module has paid to this one.
pub(crate) fn forfeit_paid(host: &mut dyn Host, from: Address, amount: U256) -> Outcome<()> {
    if amount.is_zero() {
        return Ok(());
    }
    host.pay(from, STAKING, amount)?;
    forfeit(host, amount)
}

pub(crate) fn bonded_to(host: &mut dyn Host, operator: Address) -> Outcome<U256> {
    host.load(slot(tag::POOL_STAKE, &[operator.as_slice()]))
}

pub(crate) fn bonded_total(host: &mut dyn Host) -> Outcome<U256> {
    host.load(slot(tag::BONDED_TOTAL, &[]))
}

pub(super) fn store_bonded_total(host: &mut dyn Host, total: U256) -> Outcome<()> {
    host.store(slot(tag::BONDED_TOTAL, &[]), total)
}

fn shares_slot(operator: Address, delegator: Address) -> Slot {
    slot(tag::SHARES, &[operator.as_slice(), delegator.as_slice()])
}

pub(super) fn bonded_of(host: &mut dyn Host, operator: Address, delegator: Address) -> Outcome<U256> {
    let shares = host.load(shares_slot(operator, delegator))?;
    pool(host, operator)?.worth(shares)
}

pub(super) fn delegations_of(host: &mut dyn Host, account: Address) -> Outcome<Vec<Address>> {
    let list = host.page(slot(tag::DELEGATIONS, &[account.as_slice()]), 0, DELEGATIONS_MAX)?;
    Ok(list.into_iter().map(|word| Address::from_word(word.into())).collect())
}

/// What an account has bonded to everyone: its weight in votes.
pub(crate) fn votes_of(host: &mut dyn Host, account: Address) -> Outcome<U256> {
    let mut votes = U256::ZERO;
    for operator in delegations_of(host, account)? {
        votes = checked(votes.checked_add(bonded_of(host, operator, account)?))?;
    }
    Ok(votes)
}

/// Adds value that has arrived to a pool.
pub(super) fn bond(host: &mut dyn Host, operator: Address, delegator: Address, amount: U256) -> Outcome<()> {
    require(!amount.is_zero(), "nothing was sent")?;
    require(!candidates::is_slashed(host, operator)?, "the operator was slashed")?;
    let mut pool = pool(host, operator)?;
    let shares = if pool.shares.is_zero() {
        amount
    } else {
        require(!pool.stake.is_zero(), "the pool is worth nothing")?;
        checked(amount.checked_mul(pool.shares))? / pool.stake
    };
    require(!shares.is_zero(), "the amount buys no share")?;
    pool.stake = checked(pool.stake.checked_add(amount))?;
    pool.shares = checked(pool.shares.checked_add(shares))?;
    store_pool(host, operator, pool)?;
    let held_slot = shares_slot(operator, delegator);
    let held = host.load(held_slot)?;
    if held.is_zero() {
        remember(host, operator, delegator)?;
    }
    host.store(held_slot, checked(held.checked_add(shares))?)?;
    let total = bonded_total(host)?;
    store_bonded_total(host, checked(total.checked_add(amount))?)?;
    host.emit(STAKING, &IStaking::Bonded { operator, delegator, amount, bonded: pool.stake })
}

/// The bond of a validator at genesis; its value is in the module's balance.
pub(crate) fn bond_at_genesis(host: &mut dyn Host, operator: Address, amount: U256) -> Outcome<()> {
    bond(host, operator, operator, amount)
}

/// Notes that an account bonds to an operator.
fn remember(host: &mut dyn Host, operator: Address, delegator: Address) -> Outcome<()> {
    let list = slot(tag::DELEGATIONS, &[delegator.as_slice()]);
    let place = host.push(list, operator.into_word().into())?;
    require(place < DELEGATIONS_MAX, "the account bonds to too many operators")?;
    host.store_u64(slot(tag::DELEGATION_PLACE, &[delegator.as_slice(), operator.as_slice()]), place + 1)
}

/// Notes that an account bonds to an operator no longer.
fn forget(host: &mut dyn Host, operator: Address, delegator: Address) -> Outcome<()> {
    let place_of =
        |operator: Address| slot(tag::DELEGATION_PLACE, &[delegator.as_slice(), operator.as_slice()]);
    let place = host.load_u64(place_of(operator))?;
    let Some(index) = place.checked_sub(1) else { return Ok(()) };
    let list = slot(tag::DELEGATIONS, &[delegator.as_slice()]);
    if let Some(moved) = host.swap_remove(list, index)? {
        host.store_u64(place_of(Address::from_word(moved.into())), place)?;
    }
    host.store_u64(place_of(operator), 0)
}

/// An entry on its way out of a pool.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    /// Of the operator's leaving pool of this generation; of an entry older than such pools, the amount itself.
    shares: U256,
    generation: Option<u64>,
    started_at: u64,
    epoch: u64,
    delay_s: u64,
    /// It left a pool that had been slashed already.
    after_slash: bool,
}

impl Leaving {
    /// What it is worth while the leaving pool stands so.
    fn worth(&self, (pool, generation): &(Pool, u64)) -> Outcome<U256> {
        match self.generation {
            None => Ok(self.shares),
            Some(own) if own == *generation => pool.worth(self.shares),
            Some(_) => Ok(U256::ZERO),
        }
    }

    /// In seconds: its own delay or today's, whichever is shorter.
    fn mature_at(&self, host: &dyn Host) -> u64 {
        self.started_at.saturating_add(self.delay_s.min(host.params().unbonding_s))
    }
}

fn entry_slot(operator: Address, delegator: Address, number: u64) -> Slot {
    slot(tag::UNBONDING_ENTRY, &[operator.as_slice(), delegator.as_slice(), &number.to_be_bytes()])
}

fn load_entry(host: &mut dyn Host, at: Slot) -> Outcome<Leaving> {
    let shares = host.load(at)?;
    let [started_at, epoch, delay_s, flags] = host.load_quarters(at.after(1))?;
    let generation = (flags & POOLED != 0).then_some(flags >> GENERATION_SHIFT);
    Ok(Leaving { shares, generation, started_at, epoch, delay_s, after_slash: flags & AFTER_SLASH != 0 })
}

/// Opened and closed entries; those between are on their way.
fn counts(host: &mut dyn Host, operator: Address, delegator: Address) -> Outcome<(u64, u64)> {
    let [_, _, closed, opened] =
        host.load_quarters(slot(tag::UNBONDING, &[operator.as_slice(), delegator.as_slice()]))?;
    Ok((closed, opened.min(closed.saturating_add(UNBONDING_MAX))))
}

fn store_counts(
    host: &mut dyn Host,
    operator: Address,
    delegator: Address,
    closed: u64,
    opened: u64,
) -> Outcome<()> {
    host.store_quarters(
        slot(tag::UNBONDING, &[operator.as_slice(), delegator.as_slice()]),
        [0, 0, closed, opened],
    )
}

pub(super) fn unbonding_of(
    host: &mut dyn Host,
    operator: Address,
    delegator: Address,
) -> Outcome<Vec<IStaking::Entry>> {
    let (closed, opened) = counts(host, operator, delegator)?;
    let leaving = leaving_pool(host, operator)?;
    let mut entries = Vec::new();
    for number in closed..opened {
        let entry = load_entry(host, entry_slot(operator, delegator, number))?;
        entries.push(IStaking::Entry {
            amount: entry.worth(&leaving)?,
            startedAt: entry.started_at,
            matureAt: entry.mature_at(host),
            epoch: entry.epoch,
        });
    }
    Ok(entries)
}

/// Takes stake out of a pool and puts it on its way.
pub(super) fn unbond(
    host: &mut dyn Host,
    operator: Address,
    delegator: Address,
    amount: U256,
) -> Outcome<()> {
    require(!amount.is_zero(), "nothing is asked for")?;
    let mut pool = pool(host, operator)?;
    let held_slot = shares_slot(operator, delegator);
    let held = host.load(held_slot)?;
    let worth = pool.worth(held)?;
    let everything = amount == U256::MAX;
    require(!held.is_zero() && (everything || amount <= worth), "less than that is bonded")?;
    let (amount, shares) = if everything || amount == worth {
        (worth, held)
    } else {
        require(!pool.stake.is_zero(), "the pool is worth nothing")?;
        let shares = checked(amount.checked_mul(pool.shares))?.div_ceil(pool.stake);
        (amount, shares.min(held))
    };
    pool.stake = checked(pool.stake.checked_sub(amount))?;
    pool.shares = checked(pool.shares.checked_sub(shares))?;
    store_pool(host, operator, pool)?;
    let left = checked(held.checked_sub(shares))?;
    host.store(held_slot, left)?;
    if left.is_zero() {
        forget(host, operator, delegator)?;
    }
    let total = bonded_total(host)?;
    store_bonded_total(host, checked(total.checked_sub(amount))?)?;
    if amount.is_zero() {
        return Ok(());
    }
    let (closed, opened) = counts(host, operator, delegator)?;
    require(opened - closed < UNBONDING_MAX, "too much is on its way already; withdraw first")?;
    let (shares, generation) = enter_leaving(host, operator, amount)?;
    let entry = Leaving {
        shares,
        generation: Some(generation),
        started_at: host.surroundings().timestamp_s,
        epoch: host.surroundings().epoch,
        delay_s: host.params().unbonding_s,
        after_slash: candidates::is_slashed(host, operator)?,
    };
    let at = entry_slot(operator, delegator, opened);
    host.store(at, shares)?;
    let flags = POOLED
        | if entry.after_slash { AFTER_SLASH } else { 0 }
        | checked(generation.checked_mul(1 << GENERATION_SHIFT))?;
    host.store_quarters(at.after(1), [entry.started_at, entry.epoch, entry.delay_s, flags])?;
    store_counts(host, operator, delegator, closed, opened + 1)?;
    host.emit(STAKING, &IStaking::Unbonding { operator, delegator, amount, matureAt: entry.mature_at(host) })
}

/// Adds to what leaves an operator's pool: shares of it, and its generation.
fn enter_leaving(host: &mut dyn Host, operator: Address, amount: U256) -> Outcome<(U256, u64)> {
    let (mut leaving, mut generation) = leaving_pool(host, operator)?;
    if leaving.stake < leaving.shares >> LEAVING_SHIFT {
        forfeit(host, leaving.stake)?;
        leaving = Pool { stake: U256::ZERO, shares: U256::ZERO };
        generation = checked(generation.checked_add(1))?;
    }
    // Without penalties a share is a wei.
    let shares = if leaving.shares.is_zero() {
        amount
    } else {
        checked(checked(amount.checked_mul(leaving.shares))?.checked_div(leaving.stake))?
    };
    leaving.stake = checked(leaving.stake.checked_add(amount))?;
    leaving.shares = checked(leaving.shares.checked_add(shares))?;
    store_leaving(host, operator, leaving, generation)?;
    Ok((shares, generation))
}

/// Pays out what has matured, less what was forfeited while it was on its way.
pub(super) fn withdraw(host: &mut dyn Host, operator: Address, delegator: Address) -> Outcome<U256> {
    let slash = candidates::slash_of(host, operator)?;
    let (closed, opened) = counts(host, operator, delegator)?;
    let (mut paid, mut slashed, mut next) = (U256::ZERO, U256::ZERO, closed);
    let mut leaving = leaving_pool(host, operator)?;
    // An older entry matures no later than a newer one, unless the delay was shortened between: then it waits its turn.
    while next < opened {
        let at = entry_slot(operator, delegator, next);
        let entry = load_entry(host, at)?;
        if host.surroundings().timestamp_s < entry.mature_at(host) {
            break;
        }
        let amount = entry.worth(&leaving)?;
        if entry.generation == Some(leaving.1) {
            leaving.0.stake = checked(leaving.0.stake.checked_sub(amount))?;
            leaving.0.shares = checked(leaving.0.shares.checked_sub(entry.shares))?;
        }
        let forfeited = match slash {
            Some(slash) if !entry.after_slash && entry.epoch >= slash.epoch => {
                checked(amount.checked_mul(U256::from(slash.bps)))? / U256::from(WHOLE_BPS)
            }
            _ => U256::ZERO,
        };
        slashed = checked(slashed.checked_add(forfeited))?;
        paid = checked(paid.checked_add(checked(amount.checked_sub(forfeited))?))?;
        host.store(at, U256::ZERO)?;
        host.store(at.after(1), U256::ZERO)?;
        next += 1;
    }
    if next == closed {
        return refuse("nothing has matured");
    }
    store_counts(host, operator, delegator, next, opened)?;
    let (mut pool, generation) = leaving;
    // What the last of them leaves is what divisions have left over.
    let over = if pool.shares.is_zero() { std::mem::take(&mut pool.stake) } else { U256::ZERO };
    store_leaving(host, operator, pool, generation)?;
    let kept = checked(slashed.checked_add(over))?;
    if !kept.is_zero() {
        forfeit(host, kept)?;
    }
    host.pay(STAKING, delegator, paid)?;
    host.emit(STAKING, &IStaking::Withdrawn { operator, delegator, amount: paid, slashed })?;
    Ok(paid)
}

/// Keeps money for the bonds of the next validators.
pub(super) fn forfeit(host: &mut dyn Host, amount: U256) -> Outcome<()> {
    let at = slot(tag::FORFEITED, &[]);
    let before = host.load(at)?;
    host.store(at, checked(before.checked_add(amount))?)
}
