//! Proofs without a game: what is false by itself (D-4.2), and a trace that is not the receipt's (D-5.6, D-7).

use alloy_primitives::Address;
use surety_proof::dispute::{
    Source,
    self_evident::{NotShown, contradict, goes_on_past_an_end, stops_at_no_end},
};
use surety_types::{
    FinishReason, Order, Receipt, Signed,
    abi::IDisputes::{
        claimOutputCall, claimPromptCall, claimStateCall, claimTextCall, falseStopCall, pastEndCall,
        twoAnswersCall,
    },
};

use super::{
    Side, accuse,
    case::{Case, bytes_at, causes, charge_opening, opening_of},
    turn_of,
    verdict::{State, convict, convict_at_once},
};
use crate::{
    host::{Host, Outcome, checked, refuse, require},
    modules::papers,
};

/// What is shown, with the reason if nothing is.
fn shown(result: Result<(), NotShown>) -> Outcome<()> {
    result.or_else(|error| refuse(causes(&error)))
}

/// D-4.2 (a)
pub(super) fn two_answers(host: &mut dyn Host, caller: Address, two: &twoAnswersCall) -> Outcome<u64> {
    let order: Signed<Order> = papers::open(host, &two.order)?;
    let first: Signed<Receipt> = papers::open(host, &two.first)?;
    let second: Signed<Receipt> = papers::open(host, &two.second)?;
    for receipt in [&first, &second] {
        papers::require_answers(&order, receipt)?;
    }
    shown(contradict(&first, &second))?;
    let dearer = if second.charge > first.charge { &second } else { &first };
    let accused = accuse(host, caller, (&order, dearer), &dearer.digest(), &two.channel, &two.salt)?;
    convict_at_once(host, accused, State::TwoAnswers)
}

/// D-4.2 (b)
pub(super) fn past_end(host: &mut dyn Host, caller: Address, past: &pastEndCall) -> Outcome<u64> {
    let case = Case::open(host, &past.papers)?;
    let opening = opening_of(&past.ids);
    charge_opening(host, &opening)?;
    shown(goes_on_past_an_end(&case.header, &case.order, &case.receipt, past.index, &opening))?;
    let sides = (&case.order, &case.receipt);
    let accused = accuse(host, caller, sides, &case.receipt_digest, &past.channel, &past.salt)?;
    convict_at_once(host, accused, State::PastEnd)
}

/// D-4.2 (c)
pub(super) fn false_stop(host: &mut dyn Host, caller: Address, stop: &falseStopCall) -> Outcome<u64> {
    let case = Case::open(host, &stop.papers)?;
    let receipt = &case.receipt;
    require(receipt.finish == FinishReason::Stop, "the receipt does not say that it stopped")?;
    let request = case.request(host, &stop.request)?;
    let opening = opening_of(&stop.ids);
    charge_opening(host, &opening)?;
    shown(stops_at_no_end(&case.header, &request, receipt, &opening))?;
    let sides = (&case.order, receipt);
    let accused = accuse(host, caller, sides, &case.receipt_digest, &stop.channel, &stop.salt)?;
    convict_at_once(host, accused, State::FalseStop)
}

/// D-5.6: an id that the trace samples, and the receipt commits to another.
pub(super) fn claim_output(host: &mut dyn Host, caller: Address, claim: &claimOutputCall) -> Outcome<()> {
    let (mut record, game) = turn_of(host, caller, claim.id, Side::Challenger)?;
    let case = Case::again(host, &claim.papers, &record)?;
    let statement = case.statement()?;
    require(claim.index < case.receipt.output_tokens, "there are fewer outputs")?;
    let ids = opening_of(&claim.ids);
    charge_opening(host, &ids)?;
    if let Err(error) = statement.check(Source::Output, &ids) {
        return refuse(format!("the ids are not the receipt's: {error}"));
    }
    let committed = bytes_at(&ids, 4 * u64::from(claim.index)).map(u32::from_le_bytes)?;
    let opening = opening_of(&claim.trace);
    charge_opening(host, &opening)?;
    if let Err(error) = game.check_whole(&opening) {
        return refuse(format!("the chunks are not the trace's: {error}"));
    }
    let at = checked(statement.layout().sampled_at(claim.index.into()).checked_mul(4))?;
    let sampled = bytes_at(&opening, at).map(u32::from_le_bytes)?;
    require(sampled != committed, "the receipt commits to what the trace samples")?;
    record.moves = checked(record.moves.checked_add(1))?;
    convict(host, claim.id, &mut record, State::Differs)
}

/// D-5.6: the trace's state digest is not the one that opens the receipt's commitment.
pub(super) fn claim_state(host: &mut dyn Host, caller: Address, claim: &claimStateCall) -> Outcome<()> {
    let (mut record, game) = turn_of(host, caller, claim.id, Side::Challenger)?;
    let case = Case::again(host, &claim.papers, &record)?;
    let statement = case.statement()?;
    let opening = opening_of(&claim.trace);
    charge_opening(host, &opening)?;
    if let Err(error) = game.check_whole(&opening) {
        return refuse(format!("the chunks are not the trace's: {error}"));
    }
    let at = checked(statement.layout().state_digest_at().checked_mul(4))?;
    let found: [u8; 32] = bytes_at(&opening, at)?;
    require(found != record.state_digest.0, "the trace has the state digest that the worker gave")?;
    record.moves = checked(record.moves.checked_add(1))?;
    convict(host, claim.id, &mut record, State::Differs)
}

/// D-7.1: the text is another than the trace's.
pub(super) fn claim_text(host: &mut dyn Host, caller: Address, claim: &claimTextCall) -> Outcome<()> {
    let (mut record, game) = turn_of(host, caller, claim.id, Side::Challenger)?;
    let case = Case::again(host, &claim.papers, &record)?;
    case.judge_text(host, &game, &claim.request, &claim.claim)?;
    record.moves = checked(record.moves.checked_add(1))?;
    convict(host, claim.id, &mut record, State::Differs)
}

/// D-7.5: the prompt is another than the request renders to.
pub(super) fn claim_prompt(host: &mut dyn Host, caller: Address, claim: &claimPromptCall) -> Outcome<()> {
    let (mut record, game) = turn_of(host, caller, claim.id, Side::Challenger)?;
    let case = Case::again(host, &claim.papers, &record)?;
    case.judge_prompt(host, &game, (&claim.request, &claim.template), &claim.claim)?;
    record.moves = checked(record.moves.checked_add(1))?;
    convict(host, claim.id, &mut record, State::Differs)
}
