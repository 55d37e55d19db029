//! Verdicts: whose money goes where.
//!
//! Convicted. The operator loses a share of what it answers with (bonded, or leaving and not gone), or a multiple of what
//! was paid for the answer if that is more, up to a limit. Out of it, in this order: the payer's refund, the challenger's
//! costs by a fixed tariff, its bounty if it had committed to the accusation; the rest goes where forfeited stake goes, to
//! the bonds of the next validators. What a refund exceeds the limit by comes out of the operator's claims that are not paid
//! yet. The challenger has its bond back.
//!
//! Dismissed. The operator is paid the cost of a defence out of the challenger's bond; the rest of it is forfeited too.

use alloy_primitives::{Address, U256};
use surety_types::abi::{IDisputes, address::DISPUTES};

use super::{Accused, Answer, Record, enlist, load, load_answer, slot, store, store_answer, tag};
use crate::{
    host::{Host, Outcome, checked, refuse, require},
    modules::{
        channels, operators, papers,
        staking::{self, WHOLE_BPS},
    },
};

/// What has become of a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    None = 0,
    Open = 1,
    /// Convicted by its leaf.
    Lied = 2,
    /// Convicted: its trace is not the receipt's.
    Differs = 3,
    /// Convicted: it was silent.
    Silent = 4,
    /// Convicted: it gave two answers to one order.
    TwoAnswers = 5,
    /// Convicted: it went on past an end token.
    PastEnd = 6,
    /// Convicted: it stopped at no end token.
    FalseStop = 7,
    /// Dismissed: the leaf is right.
    Right = 8,
    /// Dismissed: the challenger was silent.
    Gone = 9,
    /// Neither: other evidence was faster.
    Overtaken = 10,
}

impl State {
    pub(super) fn from_code(code: u64) -> State {
        use State::*;
        let all = [None, Open, Lied, Differs, Silent, TwoAnswers, PastEnd, FalseStop, Right, Gone, Overtaken];
        all.into_iter().find(|state| *state as u64 == code).unwrap_or(None)
    }
}

/// Where the money of a conviction goes, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Penalty {
    slashed: U256,
    refund: U256,
    costs: U256,
    bounty: U256,
}

fn share(amount: U256, bps: u64) -> Outcome<U256> {
    Ok(checked(amount.checked_mul(U256::from(bps)))? / U256::from(WHOLE_BPS))
}

fn penalty(host: &mut dyn Host, record: &Record, reduced: bool) -> Outcome<Penalty> {
    let stake = staking::answerable(host, record.operator)?;
    let params = host.params();
    let most = share(stake, params.dispute_slash_max_bps)?;
    let paid = U256::from(record.paid);
    let charges = checked(paid.checked_mul(U256::from(params.dispute_slash_charges)))?;
    let mut slashed = share(stake, params.dispute_slash_bps)?.max(charges).min(most);
    let refund = share(paid, params.dispute_refund_bps)?.min(most);
    if reduced {
        slashed = share(slashed, params.dispute_memory_bps)?;
    }
    let slashed = slashed.max(refund);
    let left = slashed - refund;
    let tariff = u128::from(params.dispute_move_gas).checked_mul(params.minimum_gas_price.into());
    let costs = checked(tariff.and_then(|tariff| tariff.checked_mul(record.moves.into())))?;
    let costs = U256::from(costs).min(left);
    let bounty = match record.committed {
        true => share(left - costs, params.dispute_bounty_bps)?,
        false => U256::ZERO,
    };
    Ok(Penalty { slashed, refund, costs, bounty })
}

/// The worker is wrong.
pub(super) fn convict(host: &mut dyn Host, id: u64, record: &mut Record, state: State) -> Outcome<()> {
    let answer = load_answer(host, &record.order, &record.worker)?;
    require(!answer.convicted, "the answer is convicted")?;
    store_answer(host, &record.order, &record.worker, Answer { convicted: true, ..answer })?;
    // Bad memory makes one wrong word. It keeps nobody silent and signs nothing.
    let reduced = record.reported && state == State::Lied;
    let Penalty { slashed, refund, costs, bounty } = penalty(host, record, reduced)?;
    let refunded = if record.payee.is_zero() { DISPUTES } else { record.payee };
    let to_challenger = checked(costs.checked_add(bounty))?;
    let payments = [(refunded, refund), (record.challenger, to_challenger)];
    staking::penalize(host, record.operator, slashed, &payments)?;
    // What the stake does not reach comes out of what the operator is not paid yet.
    let wanted = share(U256::from(record.paid), host.params().dispute_refund_bps)?;
    let short = wanted.saturating_sub(refund);
    let more = channels::pay_of_unpaid(host, record.operator, refunded, short)?;
    let refund = checked(refund.checked_add(more))?;
    if record.payee.is_zero() {
        record.owed = checked(u128::try_from(refund).ok())?;
    }
    let jail_s = host.params().dispute_jail_s;
    operators::jail(host, record.operator, jail_s)?;
    record.state = state;
    return_bond(host, record)?;
    store(host, id, record)?;
    if !record.payee.is_zero() && !refund.is_zero() {
        host.emit(DISPUTES, &IDisputes::Refunded { id, payee: record.payee, amount: refund })?;
    }
    let event = IDisputes::Convicted {
        id,
        operator: record.operator,
        challenger: record.challenger,
        state: state as u8,
        slashed,
        refund,
        costs,
        bounty,
    };
    host.emit(DISPUTES, &event)
}

/// Convicts without a game, by what the papers show themselves (D-4.2).
pub(super) fn convict_at_once(host: &mut dyn Host, accused: Accused, state: State) -> Outcome<u64> {
    let Accused { mut record, answer } = accused;
    let id = enlist(host, &record, answer)?;
    convict(host, id, &mut record, state)?;
    Ok(id)
}

/// The challenger is wrong.
pub(super) fn dismiss(host: &mut dyn Host, id: u64, record: &mut Record, state: State) -> Outcome<()> {
    let answer = load_answer(host, &record.order, &record.worker)?;
    let took = host.surroundings().timestamp_s.saturating_sub(record.opened_at);
    let lost = checked(answer.lost.checked_add(1))?;
    let kept_s = answer.kept_s.saturating_add(took);
    store_answer(host, &record.order, &record.worker, Answer { lost, kept_s, ..answer })?;
    let to_operator = record.defence.min(record.bond);
    let forfeited = U256::from(record.bond - to_operator);
    let to_operator = U256::from(to_operator);
    record.state = state;
    close(host, record)?;
    store(host, id, record)?;
    if !to_operator.is_zero() {
        host.pay(DISPUTES, record.operator, to_operator)?;
    }
    staking::forfeit_paid(host, DISPUTES, forfeited)?;
    let event = IDisputes::Dismissed {
        id,
        operator: record.operator,
        challenger: record.challenger,
        state: state as u8,
        toOperator: to_operator,
        forfeited,
    };
    host.emit(DISPUTES, &event)
}

/// Neither is: the answer was convicted by other evidence while they played.
pub(super) fn overtake(host: &mut dyn Host, id: u64, record: &mut Record) -> Outcome<()> {
    record.state = State::Overtaken;
    return_bond(host, record)?;
    store(host, id, record)?;
    host.emit(DISPUTES, &IDisputes::Overtaken { id, challenger: record.challenger })
}

/// One dispute less is open of the challenger's. Where there was no bond there was no game.
fn close(host: &mut dyn Host, record: &mut Record) -> Outcome<()> {
    record.move_until = 0;
    if record.bond == 0 {
        return Ok(());
    }
    let at = slot(tag::OPEN_OF, &[record.challenger.as_slice()]);
    let open = host.load_u64(at)?;
    host.store_u64(at, checked(open.checked_sub(1))?)
}

fn return_bond(host: &mut dyn Host, record: &mut Record) -> Outcome<()> {
    close(host, record)?;
    match record.bond {
        0 => Ok(()),
        bond => host.pay(DISPUTES, record.challenger, U256::from(bond)),
    }
}

/// Pays a refund that waits for the channel to be shown.
pub(super) fn collect(host: &mut dyn Host, id: u64, channel: &[u8]) -> Outcome<()> {
    let mut record = load(host, id)?;
    require(record.owed != 0, "nothing is owed")?;
    let payer: Option<Address> = papers::payer_of(host, &record.channel, channel)?;
    let Some(payee) = payer else { return refuse("the order's channel is not shown") };
    let amount = U256::from(record.owed);
    (record.owed, record.payee) = (0, payee);
    store(host, id, &record)?;
    host.pay(DISPUTES, payee, amount)?;
    host.emit(DISPUTES, &IDisputes::Refunded { id, payee, amount })
}
