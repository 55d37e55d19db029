//! Standing: what an operator's audits came to, and how many of its receipts are audited therefore.
//!
//! In:     logs posted, results. Out: the rate of the next log; whether pay is withheld; what is not audited yet.
//! Touches: the module's storage.
//! Holds:  nothing runs at an epoch's end: a log is accounted for when its operator next posts, is paid, or anyone asks;
//!         a log's rate and steps are settled when it is posted; no standing costs stake; what was paid is never more beyond
//!         what is audited than the cap, but by a cap that fell.

use alloy_primitives::{Address, U256};
use surety_types::abi::{IAudits, address::AUDITS};

use super::{ATTEMPTS, draw::Drawing, draw::Id, draw::WHOLE_PPM, slot, tag};
use crate::{
    host::{Host, Outcome, checked, refuse},
    modules::{beacon, channels, operators, staking},
};

/// Logs that one call accounts for.
const ACCOUNT_MAX: u64 = 16;

/// A posted log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    pub(super) rate_ppm: u64,
    /// The epoch in which it was posted.
    pub(super) posted: u64,
    pub(super) size: u64,
    /// Epochs of a step.
    pub(super) step: u64,
    /// Draws, at most.
    pub(super) most: u64,
}

impl Log {
    /// U-2.1: the epoch whose beacon draws.
    pub(super) fn drawn_in(&self) -> u64 {
        self.posted.saturating_add(1)
    }

    /// U-3.1
    pub(super) fn disclose_by(&self) -> u64 {
        self.posted.saturating_add(self.step)
    }

    /// U-6.1: disclosure, the auditors' turns, the answer.
    pub(super) fn closes_after(&self) -> u64 {
        self.posted.saturating_add(self.step.saturating_mul(ATTEMPTS + 2))
    }

    /// How many of its receipts stand behind one that is drawn. As many are drawn as the rate says, or as the log's most:
    /// whichever is fewer.
    pub(super) fn stands_for(&self, drawn: u64) -> u64 {
        let by_rate = WHOLE_PPM / self.rate_ppm.max(1);
        if drawn == self.most { (self.size / drawn.max(1)).max(by_rate) } else { by_rate }
    }

    /// What its beacon draws.
    pub(super) fn drawing(&self, host: &mut dyn Host, operator: Address, epoch: u64) -> Outcome<Drawing> {
        let beacon = beacon::of(host, self.drawn_in())?;
        let log = Id { operator, epoch, number: 0 }.word();
        Ok(Drawing { beacon, log, size: self.size, rate_ppm: self.rate_ppm, most: self.most })
    }
}

/// How a log's draws stand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) disclosed: u64,
    /// Of those: receipts with nothing to compute.
    pub(super) empty: u64,
    /// Of those: auditors have revealed a result.
    pub(super) revealed: u64,
    /// Of those: the operator has answered.
    pub(super) answered: u64,
}

fn log_slot(operator: Address, epoch: u64) -> crate::host::Slot {
    slot(tag::LOG, &[operator.as_slice(), &epoch.to_be_bytes()])
}

pub(super) fn load_log(host: &mut dyn Host, operator: Address, epoch: u64) -> Outcome<Log> {
    let at = log_slot(operator, epoch);
    let [rate_ppm, posted, size, step] = host.load_quarters(at)?;
    let (_, most) = host.load_halves(at.after(2))?;
    let Some(posted) = posted.checked_sub(1) else { return refuse("no root of that epoch was posted") };
    Ok(Log { rate_ppm, posted, size, step, most: u64::try_from(most).unwrap_or(u64::MAX) })
}

pub(super) fn load_counts(host: &mut dyn Host, operator: Address, epoch: u64) -> Outcome<Counts> {
    let [disclosed, empty, revealed, answered] = host.load_quarters(log_slot(operator, epoch).after(1))?;
    Ok(Counts { disclosed, empty, revealed, answered })
}

pub(super) fn change_counts(
    host: &mut dyn Host,
    operator: Address,
    epoch: u64,
    change: impl FnOnce(&mut Counts),
) -> Outcome<()> {
    let mut counts = load_counts(host, operator, epoch)?;
    change(&mut counts);
    let Counts { disclosed, empty, revealed, answered } = counts;
    host.store_quarters(log_slot(operator, epoch).after(1), [disclosed, empty, revealed, answered])
}

/// What an operator's audits came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) score: u64,
    pub(super) passed: u64,
    pub(super) missed: u64,
    pub(super) unconfirmed: u64,
    pub(super) differing: u64,
    /// Missed since an audit was last passed.
    pub(super) missed_since: u64,
    /// An epoch; zero if pay is not withheld.
    pub(super) withheld_until: u64,
    /// Logs accounted for, of those in the list.
    pub(super) accounted: u64,
    /// What had been claimed when the last of those was posted.
    pub(super) cleared: u128,
    /// Receipts for which missed draws stood, and for which nothing was taken yet.
    pub(super) owed: u128,
    /// What was taken for a part of one of them.
    pub(super) owed_paid: u128,
    /// Entries of all its logs.
    pub(super) logged: u128,
}

pub(super) fn load(host: &mut dyn Host, operator: Address) -> Outcome<Standing> {
    let at = slot(tag::STANDING, &[operator.as_slice()]);
    let [score, passed, missed, unconfirmed] = host.load_quarters(at)?;
    let [differing, missed_since, withheld_until, accounted] = host.load_quarters(at.after(1))?;
    let (cleared, owed) = host.load_halves(at.after(2))?;
    let (logged, owed_paid) = host.load_halves(at.after(3))?;
    Ok(Standing {
        score,
        passed,
        missed,
        unconfirmed,
        differing,
        missed_since,
        withheld_until,
        accounted,
        cleared,
        owed,
        owed_paid,
        logged,
    })
}

pub(super) fn store(host: &mut dyn Host, operator: Address, standing: &Standing) -> Outcome<()> {
    let at = slot(tag::STANDING, &[operator.as_slice()]);
    let &Standing { score, passed, missed, unconfirmed, differing, .. } = standing;
    host.store_quarters(at, [score, passed, missed, unconfirmed])?;
    let &Standing { missed_since, withheld_until, accounted, cleared, .. } = standing;
    host.store_quarters(at.after(1), [differing, missed_since, withheld_until, accounted])?;
    host.store_halves(at.after(2), cleared, standing.owed)?;
    host.store_halves(at.after(3), standing.logged, standing.owed_paid)
}

impl Standing {
    /// U-2.3: all while nothing was passed, then audit_ppm × audit_passes ÷ score, never less than the floor.
    pub(super) fn rate_ppm(&self, host: &dyn Host) -> u64 {
        let params = host.params();
        let scaled = u128::from(params.audit_ppm) * u128::from(params.audit_passes);
        let rate = scaled.checked_div(self.score.into()).unwrap_or(u128::MAX);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        rate.clamp(params.audit_floor_ppm, WHOLE_PPM)
    }

    /// U-6.2
    fn close(&mut self, host: &dyn Host, log: &Log, due: u64, counts: &Counts) {
        let undisclosed = due.saturating_sub(counts.disclosed);
        let missed = undisclosed.saturating_add(counts.revealed.saturating_sub(counts.answered));
        let unconfirmed = counts.disclosed.saturating_sub(counts.empty).saturating_sub(counts.revealed);
        self.missed = self.missed.saturating_add(missed);
        self.missed_since = self.missed_since.saturating_add(missed);
        self.unconfirmed = self.unconfirmed.saturating_add(unconfirmed);
        let stood_for = u128::from(missed).saturating_mul(log.stands_for(due).into());
        self.owed = self.owed.saturating_add(stood_for);
        let halvings = missed.saturating_mul(2).saturating_add(u64::from(unconfirmed > 0));
        self.score = self.score.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0);
        if missed > 0 && self.missed_since >= host.params().audit_misses_max {
            let until = log.closes_after().saturating_add(host.params().audit_withhold_epochs);
            self.withheld_until = self.withheld_until.max(until);
        }
    }
}

impl Standing {
    /// U-6.4: what missed draws take of a payment of so much, and how this stands afterwards, if `each` is taken for a receipt.
    pub(super) fn forfeit(&self, each: U256, payment: U256) -> (U256, Standing) {
        if each.is_zero() {
            return (U256::ZERO, *self);
        }
        let before = U256::from(self.owed_paid);
        let taken = each.saturating_mul(U256::from(self.owed)).saturating_sub(before).min(payment);
        let paid = before.saturating_add(taken);
        let owed = U256::from(self.owed).saturating_sub(paid / each).saturating_to();
        let owed_paid = if owed == 0 { 0 } else { (paid % each).saturating_to() };
        (taken, Standing { owed, owed_paid, ..*self })
    }

    /// The rate by which the cap is computed: its own, or the least there is while it has missed and passed nothing since.
    fn trusted_ppm(&self, host: &dyn Host) -> u64 {
        if self.missed_since > 0 { host.params().audit_floor_ppm } else { self.rate_ppm(host) }
    }
}

fn charged_slot(operator: Address) -> crate::host::Slot {
    slot(tag::CHARGED, &[operator.as_slice()])
}

/// Notes what a receipt charged that an operator has disclosed.
pub(super) fn note_charge(host: &mut dyn Host, operator: Address, charge: u128) -> Outcome<()> {
    let (count, sum) = host.load_halves(charged_slot(operator))?;
    host.store_halves(charged_slot(operator), count.saturating_add(1), sum.saturating_add(charge))
}

/// U-6.4: what is taken for a receipt for which a missed draw stood. It counts for what the operator's receipts charge on
/// average: all that was claimed by all that was logged, or those that it has disclosed if that is more; so that logs which
/// are filled up with nothing make it no less.
pub(super) fn taken_for_each(
    host: &mut dyn Host,
    operator: Address,
    standing: &Standing,
    claimed: u128,
) -> Outcome<U256> {
    let (count, sum) = host.load_halves(charged_slot(operator))?;
    let bps = U256::from(host.params().audit_miss_bps);
    // Below 2¹²⁸ · 10⁶, and ten-thousand times 2¹²⁸: no overflow.
    let part = |sum: u128, count: u128| {
        U256::from(sum) * bps / (U256::from(count.max(1)) * U256::from(staking::WHOLE_BPS))
    };
    Ok(part(claimed, standing.logged).max(part(sum, count)))
}

fn logs_slot(operator: Address) -> crate::host::Slot {
    slot(tag::LOGS, &[operator.as_slice()])
}

pub(super) fn log_count(host: &mut dyn Host, operator: Address) -> Outcome<u64> {
    host.load_u64(logs_slot(operator))
}

pub(super) fn logs(host: &mut dyn Host, operator: Address, offset: u64, most: u64) -> Outcome<Vec<u64>> {
    let page = host.page(logs_slot(operator), offset, most)?;
    Ok(page.into_iter().map(|epoch| epoch.saturating_to()).collect())
}

/// An operator's standing once logs that are closed are accounted for, at most so many; nothing is stored.
pub(super) fn brought_up(host: &mut dyn Host, operator: Address) -> Outcome<Standing> {
    let now = host.surroundings().epoch;
    let mut standing = load(host, operator)?;
    for epoch in logs(host, operator, standing.accounted, ACCOUNT_MAX)? {
        let log = load_log(host, operator, epoch)?;
        if log.closes_after() >= now {
            break;
        }
        let due = log.drawing(host, operator, epoch)?.count();
        let counts = load_counts(host, operator, epoch)?;
        standing.close(host, &log, due, &counts);
        standing.accounted = checked(standing.accounted.checked_add(1))?;
        let (claimed, _) = host.load_halves(log_slot(operator, epoch).after(2))?;
        standing.cleared = standing.cleared.max(claimed);
    }
    Ok(standing)
}

/// Accounts for an operator's logs that are closed, and says how it stands.
pub(super) fn account(host: &mut dyn Host, operator: Address) -> Outcome<Standing> {
    let before = load(host, operator)?;
    let after = brought_up(host, operator)?;
    if after != before {
        store(host, operator, &after)?;
        let (missed, unconfirmed) = (after.missed - before.missed, after.unconfirmed - before.unconfirmed);
        host.emit(AUDITS, &IAudits::Accounted { operator, missed, unconfirmed })?;
    }
    Ok(after)
}

/// A log was posted: its rate is settled, before anyone knows what draws.
pub(super) fn note_log(host: &mut dyn Host, operator: Address, epoch: u64, size: u64) -> Outcome<()> {
    let mut standing = account(host, operator)?;
    standing.logged = standing.logged.saturating_add(size.into());
    store(host, operator, &standing)?;
    let rate_ppm = standing.rate_ppm(host);
    let (claimed, _) = channels::paid_to(host, operator)?;
    let posted = checked(host.surroundings().epoch.checked_add(1))?;
    let (step, most) = (host.params().audit_epochs, host.params().audit_log_max);
    let at = log_slot(operator, epoch);
    host.store_quarters(at, [rate_ppm, posted, size, step])?;
    host.store_halves(at.after(2), claimed, most.into())?;
    host.push(logs_slot(operator), U256::from(epoch)).map(drop)
}

/// U-7.3: how much an operator may have been paid that is not audited yet. C·p ÷ (1 − p), at most C, for what a conviction
/// takes, C, and the rate p: so that p·C ≥ (1 − p)·g.
fn cap(host: &mut dyn Host, operator: Address, standing: &Standing) -> Outcome<U256> {
    let stake = staking::bonded_to(host, operator)?;
    let taken = U256::from(host.params().dispute_slash_bps);
    let taken = checked(stake.checked_mul(taken))? / U256::from(staking::WHOLE_BPS);
    let rate = standing.trusted_ppm(host);
    let (p, q) = (U256::from(rate), U256::from(WHOLE_PPM.saturating_sub(rate)));
    if q <= p { Ok(taken) } else { Ok(checked(taken.checked_mul(p))? / q) }
}

/// U-7.3: what was claimed for an operator since the last log that is closed was posted, and its cap.
pub(super) fn exposure(host: &mut dyn Host, operator: Address) -> Outcome<(U256, U256)> {
    let standing = brought_up(host, operator)?;
    let (claimed, _) = channels::paid_to(host, operator)?;
    let cap = cap(host, operator, &standing)?;
    Ok((U256::from(claimed.saturating_sub(standing.cleared)), cap))
}

/// U-7.5: what can be paid now of what was claimed for an operator: what is audited, and an advance up to its cap; nothing
/// while its workers are in jail.
pub(super) fn due(
    host: &mut dyn Host,
    operator: Address,
    standing: &Standing,
    claimed: u128,
    settled: u128,
) -> Outcome<u128> {
    if operators::is_jailed(host, operator)? {
        return Ok(0);
    }
    let advance = u128::try_from(cap(host, operator, standing)?).unwrap_or(u128::MAX);
    let most = standing.cleared.saturating_add(advance).min(claimed);
    Ok(most.saturating_sub(settled))
}
