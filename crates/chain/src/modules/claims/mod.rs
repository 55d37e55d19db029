//! Claims: an order that was accepted and not answered is paid for by who accepted it.
//!
//! In:     acceptances with their orders, and a bond; receipts; the time.
//! Out:    compensation from the operator's stake, or the bond to the operator.
//! Touches: its own storage and balance; stake, through `staking`.
//! Holds:  its balance is the sum of the bonds of open claims; an acceptance is claimed once, within a window after its
//!         deadline, and compensated at most once; a claim ends while stake that was there at the deadline is still
//!         answerable; all claims of a day take at most a share of an operator's stake.
//! Absent: whether what is shown is true (`disputes`), and whether it was delivered.
//!
//! What it does not show. Nobody can prove that a message did not arrive. A receipt that is shown ends the claim, though its
//! worker may have kept it back: then the payer has it now, has lost a bond that is small, and can dispute what it says. A
//! signed failure that is shown may have been signed just now: so it costs the claimant no more than the operator's gas,
//! and the operator an entry in its record. What a claim does compensate is silence: of a worker that is gone, or that
//! will sign nothing.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall as _;
use surety_types::{
    Acceptance, Digest, Order, PublicKey, Receipt, Signed,
    abi::{IClaims, address::CLAIMS},
    channel::cover_wei,
};

use super::{Call, PAGE, decode, operators, papers, staking, takes_no_value};
use crate::host::{GAS_ED25519, Host, Outcome, Slot, checked, refuse, require};
use crate::{Params, tariff::answer_gas};

mod tag {
    /// How many claims there were.
    pub(super) const COUNT: u8 = 1;
    /// Of a claim: order, worker, operator, claimant, payee; state, until, deadline; bond and cost; compensation.
    pub(super) const CLAIM: u8 = 2;
    /// Of an order and a worker: its claim.
    pub(super) const CLAIM_OF: u8 = 3;
    /// Of an operator: the list of claims.
    pub(super) const CLAIMS_OF: u8 = 4;
    /// Of an operator: answered, answered by a failure, compensated.
    pub(super) const RECORD: u8 = 5;
    /// Of an operator: a day, and what claims took on it.
    pub(super) const DAY: u8 = 6;
}

const OPEN: u64 = 1;
const ANSWERED: u64 = 2;
const FAILED: u64 = 3;
const COMPENSATED: u64 = 4;

/// Of an operator's stake claims take so much in a day of the ledger's time, and no more.
pub const DAY_S: u64 = 24 * 60 * 60;

fn slot(tag: u8, keys: &[&[u8]]) -> Slot {
    Slot::new(CLAIMS, tag, keys)
}

/// What the order's payer signs to have an account compensated.
pub fn payee_proof_message(chain_id: u64, order: &Digest, account: Address) -> Vec<u8> {
    let mut message = b"surety claim v1".to_vec();
    message.extend(chain_id.to_be_bytes());
    message.extend(order.as_bytes());
    message.extend(account);
    message
}

/// A claim as it is stored.
#[derive(Debug, Clone)]
struct Claim {
    order: B256,
    worker: B256,
    operator: Address,
    claimant: Address,
    payee: Address,
    state: u64,
    answer_until: u64,
    bond: u128,
    cost: u128,
    compensation: U256,
}

fn load(host: &mut dyn Host, id: u64) -> Outcome<Claim> {
    let at = slot(tag::CLAIM, &[&id.to_be_bytes()]);
    let [state, answer_until, _, _] = host.load_quarters(at.after(5))?;
    let (bond, cost) = host.load_halves(at.after(6))?;
    Ok(Claim {
        order: host.load_word(at)?,
        worker: host.load_word(at.after(1))?,
        operator: host.load_address(at.after(2))?,
        claimant: host.load_address(at.after(3))?,
        payee: host.load_address(at.after(4))?,
        state,
        answer_until,
        bond,
        cost,
        compensation: host.load(at.after(7))?,
    })
}

fn store(host: &mut dyn Host, id: u64, claim: &Claim) -> Outcome<()> {
    let at = slot(tag::CLAIM, &[&id.to_be_bytes()]);
    host.store_word(at, claim.order)?;
    host.store_word(at.after(1), claim.worker)?;
    host.store_address(at.after(2), claim.operator)?;
    host.store_address(at.after(3), claim.claimant)?;
    host.store_address(at.after(4), claim.payee)?;
    host.store_quarters(at.after(5), [claim.state, claim.answer_until, 0, 0])?;
    host.store_halves(at.after(6), claim.bond, claim.cost)?;
    host.store(at.after(7), claim.compensation)
}

fn claim_of_slot(order: &B256, worker: &B256) -> Slot {
    slot(tag::CLAIM_OF, &[order.as_slice(), worker.as_slice()])
}

fn record_slot(operator: Address) -> Slot {
    slot(tag::RECORD, &[operator.as_slice()])
}

/// Adds one to what an operator's record says of its claims: answered, failed, compensated.
fn note(host: &mut dyn Host, operator: Address, added: [u64; 3]) -> Outcome<()> {
    let at = record_slot(operator);
    let [_, answered, failed, compensated] = host.load_quarters(at)?;
    let sums = [answered.saturating_add(added[0]), failed.saturating_add(added[1])];
    host.store_quarters(at, [0, sums[0], sums[1], compensated.saturating_add(added[2])])
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IClaims::IClaimsCalls as Calls;
    let decoded = decode::<Calls>(call)?;
    if !matches!(decoded, Calls::claim(_)) {
        takes_no_value(call)?;
    }
    match decoded {
        Calls::claim(asked) => {
            let id = make(host, call, &asked)?;
            Ok(IClaims::claimCall::abi_encode_returns(&id))
        }
        Calls::answer(shown) => answer(host, &shown).map(|()| Vec::new()),
        Calls::settle(settle) => {
            let compensation = compensate(host, settle.id)?;
            Ok(IClaims::settleCall::abi_encode_returns(&compensation))
        }
        Calls::claims(get) => {
            let claim = load(host, get.id)?;
            Ok(IClaims::claimsCall::abi_encode_returns(&IClaims::Claim {
                order: claim.order,
                worker: claim.worker,
                operator: claim.operator,
                claimant: claim.claimant,
                payee: claim.payee,
                state: u8::try_from(claim.state).unwrap_or(u8::MAX),
                answerUntil: claim.answer_until,
                bond: U256::from(claim.bond),
                cost: U256::from(claim.cost),
                compensation: claim.compensation,
            }))
        }
        Calls::claimCount(_) => {
            let count = host.load_u64(slot(tag::COUNT, &[]))?;
            Ok(IClaims::claimCountCall::abi_encode_returns(&count))
        }
        Calls::claimOf(get) => {
            let id = host.load_u64(claim_of_slot(&get.order, &get.worker))?;
            Ok(IClaims::claimOfCall::abi_encode_returns(&id))
        }
        Calls::claimsOf(get) => {
            let page = host.page(slot(tag::CLAIMS_OF, &[get.operator.as_slice()]), get.offset, PAGE)?;
            let ids = page.into_iter().map(|id| id.saturating_to()).collect();
            Ok(IClaims::claimsOfCall::abi_encode_returns(&ids))
        }
        Calls::recordOf(get) => {
            let [_, answered, failed, compensated] = host.load_quarters(record_slot(get.operator))?;
            let record = IClaims::recordOfReturn { answered, failed, compensated };
            Ok(IClaims::recordOfCall::abi_encode_returns(&record))
        }
    }
}

/// Refuses an acceptance that is not one of this order.
fn require_accepts(order: &Order, acceptance: &Acceptance) -> Outcome<()> {
    require(acceptance.order == order.digest(), "the acceptance is for another order")?;
    require(acceptance.model == order.model, "the acceptance is for another model than the order")?;
    require(acceptance.deadline_ms == order.deadline_ms, "the acceptance moves the deadline")?;
    require(acceptance.accepted_ms <= acceptance.deadline_ms, "the order was accepted after its deadline")?;
    require(acceptance.price.within(&order.price_ceiling), "the price is above the order's ceiling")?;
    require(
        acceptance.max_output_tokens <= order.max_output_tokens,
        "more tokens were accepted than were ordered",
    )
}

/// Who is compensated: the payer of the order's channel; without one, whom the order's payer has named.
fn payee(host: &mut dyn Host, order: &Order, asked: &IClaims::claimCall) -> Outcome<Address> {
    if let Some(channel) = &order.channel {
        require(asked.proof.is_empty() && asked.account.is_zero(), "the order's channel says who is paid")?;
        let payer = papers::payer_of(host, &channel.0.into(), &asked.channel)?;
        return payer.map_or_else(|| refuse("the order's channel is not shown"), Ok);
    }
    require(asked.channel.is_empty(), "the order names no channel")?;
    require(!asked.account.is_zero(), "nobody is named to be paid")?;
    host.charge(GAS_ED25519)?;
    let Ok(signature) = <&[u8; 64]>::try_from(asked.proof.as_ref()) else {
        return refuse("the proof is not 64 bytes");
    };
    let message = payee_proof_message(host.surroundings().chain_id, &order.digest(), asked.account);
    require(
        order.payer.verifies(&message, signature),
        "the proof is not the signature of the order's payer",
    )?;
    Ok(asked.account)
}

fn make(host: &mut dyn Host, call: &Call<'_>, asked: &IClaims::claimCall) -> Outcome<u64> {
    let bond = host.params().claim_bond;
    require(call.value == U256::from(bond), "the value sent is not the bond of a claim")?;
    let order: Signed<Order> = papers::open(host, &asked.order)?;
    let acceptance: Signed<Acceptance> = papers::open(host, &asked.acceptance)?;
    require_accepts(&order, &acceptance)?;
    let now = host.surroundings().timestamp_s;
    let deadline_s = order.deadline_ms.div_ceil(1_000);
    require(now > deadline_s, "the deadline has not passed")?;
    require(now - deadline_s <= host.params().claim_window(), "the deadline has passed too long ago")?;
    let (digest, worker) = (B256::from(acceptance.order.0), B256::from(acceptance.worker.0));
    let operator = operators::holder(host, &worker)?;
    require(!operator.is_zero(), "the worker is no operator's")?;
    let place = claim_of_slot(&digest, &worker);
    require(host.load_u64(place)? == 0, "the acceptance was claimed before")?;
    let payee = payee(host, &order, asked)?;
    let most = cover_wei(&acceptance.price, acceptance.prompt_tokens, acceptance.max_output_tokens);
    let cost = papers::in_channel(host, &order, most)?;

    let id = checked(host.load_u64(slot(tag::COUNT, &[]))?.checked_add(1))?;
    host.store_u64(slot(tag::COUNT, &[]), id)?;
    host.store_u64(place, id)?;
    host.push(slot(tag::CLAIMS_OF, &[operator.as_slice()]), U256::from(id))?;
    let answer_until = now.saturating_add(host.params().claim_answer());
    let claim = Claim {
        order: digest,
        worker,
        operator,
        claimant: call.caller,
        payee,
        state: OPEN,
        answer_until,
        bond,
        cost,
        compensation: U256::ZERO,
    };
    store(host, id, &claim)?;
    let event = IClaims::Claimed {
        id,
        operator,
        order: digest,
        worker,
        claimant: call.caller,
        payee,
        answerUntil: answer_until,
    };
    host.emit(CLAIMS, &event)?;
    Ok(id)
}

fn open_claim(host: &mut dyn Host, id: u64) -> Outcome<Claim> {
    let claim = load(host, id)?;
    require(claim.state != 0, "there is no such claim")?;
    require(claim.state == OPEN, "the claim is over")?;
    Ok(claim)
}

fn answer(host: &mut dyn Host, shown: &IClaims::answerCall) -> Outcome<()> {
    let mut claim = open_claim(host, shown.id)?;
    require(host.surroundings().timestamp_s <= claim.answer_until, "the time to answer is over")?;
    let order: Order = papers::read(host, &shown.order)?;
    require(order.digest().0 == claim.order.0, "the order is not the claim's")?;
    let receipt: Signed<Receipt> = papers::open(host, &shown.receipt)?;
    require(receipt.worker == PublicKey(claim.worker.0), "the receipt is another worker's")?;
    papers::require_answers(&order, &receipt)?;
    let completed = receipt.failure().is_none();
    // A failure may have been signed just now: what was delivered to whom is not known.
    let shown_bytes = shown.order.len().saturating_add(shown.receipt.len());
    let gas = u128::from(answer_gas(shown_bytes)) * u128::from(host.params().minimum_gas_price);
    let to_operator = if completed { claim.bond } else { gas.min(claim.bond) };
    let (to_operator, back) = (U256::from(to_operator), U256::from(claim.bond - to_operator));
    claim.state = if completed { ANSWERED } else { FAILED };
    store(host, shown.id, &claim)?;
    note(host, claim.operator, [1, u64::from(!completed), 0])?;
    host.pay(CLAIMS, claim.operator, to_operator)?;
    if !back.is_zero() {
        host.pay(CLAIMS, claim.claimant, back)?;
    }
    let event = IClaims::Answered {
        id: shown.id,
        operator: claim.operator,
        receipt: receipt.digest().0.into(),
        completed,
        toOperator: to_operator,
    };
    host.emit(CLAIMS, &event)
}

/// What a claim for an answer of this cost is worth against an operator with this stake, of which claims have taken so much on
/// that day, in wei. `None` if it overflows.
pub fn compensation(params: &Params, stake: U256, cost: u128, taken: U256) -> Option<U256> {
    let share =
        |amount: U256, bps: u64| Some(amount.checked_mul(U256::from(bps))? / U256::from(staking::WHOLE_BPS));
    let due = U256::from(params.claim_fixed).checked_add(share(U256::from(cost), params.claim_cost_bps)?)?;
    let most = share(stake, params.claim_day_bps)?;
    Some(due.min(most.saturating_sub(taken)).min(stake))
}

fn compensate(host: &mut dyn Host, id: u64) -> Outcome<U256> {
    let mut claim = open_claim(host, id)?;
    let now = host.surroundings().timestamp_s;
    require(now > claim.answer_until, "the claim can still be answered")?;
    // What claims have taken today, and may take.
    let stake = staking::answerable(host, claim.operator)?;
    let day_slot = slot(tag::DAY, &[claim.operator.as_slice()]);
    let today = u128::from(now / DAY_S);
    let (day, taken) = host.load_halves(day_slot)?;
    let taken = if day == today { taken } else { 0 };
    let amount = checked(compensation(host.params(), stake, claim.cost, U256::from(taken)))?;
    let taken = checked(u128::try_from(amount).ok().and_then(|amount| taken.checked_add(amount)))?;
    host.store_halves(day_slot, today, taken)?;

    claim.state = COMPENSATED;
    claim.compensation = amount;
    store(host, id, &claim)?;
    note(host, claim.operator, [0, 0, 1])?;
    staking::penalize(host, claim.operator, amount, &[(claim.payee, amount)])?;
    host.pay(CLAIMS, claim.claimant, U256::from(claim.bond))?;
    host.emit(CLAIMS, &IClaims::Compensated { id, operator: claim.operator, payee: claim.payee, amount })?;
    Ok(amount)
}

#[cfg(test)]
mod tests;
