//! Disputes: a receipt is contested, and what decides is arithmetic.
//!
//! In:     receipts with their orders, a challenger's bond, the moves of both sides; the time.
//! Out:    verdicts: who lied or fell silent, and whose money goes where.
//! Touches: its own storage and balance; stake, through `staking`; jail, through `operators`.
//! Holds:  its balance is the bonds of open disputes and the refunds that wait; an answer (an order and its worker) has one
//!         open dispute at a time and is convicted at most once; every move has a deadline, and who lets it pass loses; a
//!         dispute ends before stake that stood for the receipt can have left.
//! Absent: the game and the judge (`surety_proof::dispute`); finding lies; votes.
//!
//! A challenger that loses has not acquitted anybody: the next one may open, for twice the bond. So an accomplice that
//! disputes a lie first, to lose, gains no more than the hours it plays: time spent so is added to the window, and what its
//! bond is worth above the costs of a defence is forfeited, not returned to its friend.
//!
//! Rules: D-4, D-5.

mod case;
mod proofs;
mod verdict;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolCall as _;
use surety_proof::{
    dispute::{Division, Game, MoveError, Turn},
    state_commitment,
};
use surety_types::{
    Digest, Order, PublicKey, Receipt,
    abi::{IDisputes, address::DISPUTES},
    digest::domain,
};

use super::{Call, PAGE, decode, operators, papers, takes_no_value};
use crate::host::{GAS_HASH, GAS_HASH_WORD, Host, Outcome, Slot, checked, refuse, require};

use case::Case;
use verdict::{State, convict, dismiss, overtake};

mod tag {
    /// How many disputes there were.
    pub(super) const COUNT: u8 = 1;
    /// Of a dispute: a record, see `store`.
    pub(super) const DISPUTE: u8 = 2;
    /// Of a dispute: the game.
    pub(super) const GAME: u8 = 3;
    /// Of an order and a worker: last dispute, convicted, challengers that lost, seconds they took.
    pub(super) const ANSWER: u8 = 4;
    /// Of a receipt: the last dispute about it.
    pub(super) const RECEIPT: u8 = 5;
    /// Of an operator: the list of disputes.
    pub(super) const DISPUTES_OF: u8 = 6;
    /// Of a challenger: how many are open.
    pub(super) const OPEN_OF: u8 = 7;
    /// Of a commitment: its height.
    pub(super) const COMMITMENT: u8 = 8;
    /// Of an operator: the receipt it reported last; at which height, and when.
    pub(super) const REPORT: u8 = 9;
}

/// Bytes of ids that a worker is asked for, at most.
const IDS_BYTES_MAX: u64 = 32 << 10;
/// The turn of a worker that is asked for ids, as views show it.
const IDS_TURN: u8 = 5;
/// Bytes of a game, at most.
const GAME_BYTES_MAX: usize = 1_050;
/// A step of a tree hashes two values; BLAKE3 is taken to cost what Keccak-256 does.
const GAS_STEP: u64 = GAS_HASH + 2 * GAS_HASH_WORD;
/// Gas of computing one word, beside what opening its inputs costs.
const GAS_JUDGE: u64 = 60_000;
/// Of compiling a grammar: its bounds are those of G-5, whatever it says.
const GAS_GRAMMAR: u64 = 400_000;
/// Moves of a dispute that are the worker's, at most: ids, root, three divisions.
const DEFENCE_MOVES: u128 = 5;
/// Messages of a dispute, with one to spare (D-5.7).
const MOVES_MAX: u64 = 11;
/// A bond is so many times what a defence costs.
const BOND_OF_DEFENCE: u128 = 2;
/// Words that `dispute_words_price` is for.
const PRICED_WORDS: u64 = 1 << 30;

/// The state of a dispute in which nothing was judged: other evidence was faster.
pub(crate) const OVERTAKEN: u8 = State::Overtaken as u8;

fn slot(tag: u8, keys: &[&[u8]]) -> Slot {
    Slot::new(DISPUTES, tag, keys)
}

/// Whether the challenger knows the prompt's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// It does, or the worker has shown them.
    Known = 0,
    /// The worker is to show them.
    Asked = 1,
}

/// A dispute as it is stored.
#[derive(Debug, Clone)]
struct Record {
    order: B256,
    receipt: B256,
    worker: B256,
    operator: Address,
    challenger: Address,
    payee: Address,
    /// Of the order; zero without one.
    channel: B256,
    commitment: B256,
    /// What the worker's root says.
    state_digest: B256,
    state: State,
    moves: u64,
    opened_at: u64,
    move_until: u64,
    words: u64,
    /// The challenger had committed to it.
    committed: bool,
    /// The operator had named the receipt itself.
    reported: bool,
    ids: Ids,
    bond: u128,
    defence: u128,
    paid: u128,
    owed: u128,
}

fn load(host: &mut dyn Host, id: u64) -> Outcome<Record> {
    let at = slot(tag::DISPUTE, &[&id.to_be_bytes()]);
    let [state, moves, opened_at, move_until] = host.load_quarters(at.after(9))?;
    let [words, committed, reported, ids] = host.load_quarters(at.after(10))?;
    let (bond, defence) = host.load_halves(at.after(11))?;
    let (paid, owed) = host.load_halves(at.after(12))?;
    Ok(Record {
        order: host.load_word(at)?,
        receipt: host.load_word(at.after(1))?,
        worker: host.load_word(at.after(2))?,
        operator: host.load_address(at.after(3))?,
        challenger: host.load_address(at.after(4))?,
        payee: host.load_address(at.after(5))?,
        channel: host.load_word(at.after(6))?,
        commitment: host.load_word(at.after(7))?,
        state_digest: host.load_word(at.after(8))?,
        state: State::from_code(state),
        moves,
        opened_at,
        move_until,
        words,
        committed: committed != 0,
        reported: reported != 0,
        ids: if ids == 0 { Ids::Known } else { Ids::Asked },
        bond,
        defence,
        paid,
        owed,
    })
}

fn store(host: &mut dyn Host, id: u64, record: &Record) -> Outcome<()> {
    let at = slot(tag::DISPUTE, &[&id.to_be_bytes()]);
    host.store_word(at, record.order)?;
    host.store_word(at.after(1), record.receipt)?;
    host.store_word(at.after(2), record.worker)?;
    host.store_address(at.after(3), record.operator)?;
    host.store_address(at.after(4), record.challenger)?;
    host.store_address(at.after(5), record.payee)?;
    host.store_word(at.after(6), record.channel)?;
    host.store_word(at.after(7), record.commitment)?;
    host.store_word(at.after(8), record.state_digest)?;
    let times = [record.state as u64, record.moves, record.opened_at, record.move_until];
    host.store_quarters(at.after(9), times)?;
    let facts = [record.words, record.committed.into(), record.reported.into(), record.ids as u64];
    host.store_quarters(at.after(10), facts)?;
    host.store_halves(at.after(11), record.bond, record.defence)?;
    host.store_halves(at.after(12), record.paid, record.owed)
}

fn load_game(host: &mut dyn Host, id: u64) -> Outcome<Game> {
    let bytes = host.load_bytes(slot(tag::GAME, &[&id.to_be_bytes()]), GAME_BYTES_MAX)?;
    Game::from_bytes(&bytes).map_or_else(|| refuse("there is no game"), Ok)
}

fn store_game(host: &mut dyn Host, id: u64, game: &Game) -> Outcome<()> {
    host.store_bytes(slot(tag::GAME, &[&id.to_be_bytes()]), &game.to_bytes())
}

/// What is known of an answer: an order and who receipted it.
#[derive(Debug, Clone, Copy)]
struct Answer {
    last: u64,
    convicted: bool,
    /// Challengers that lost.
    lost: u64,
    /// Seconds for which they kept it.
    kept_s: u64,
}

fn answer_slot(order: &B256, worker: &B256) -> Slot {
    slot(tag::ANSWER, &[order.as_slice(), worker.as_slice()])
}

fn load_answer(host: &mut dyn Host, order: &B256, worker: &B256) -> Outcome<Answer> {
    let [last, convicted, lost, kept_s] = host.load_quarters(answer_slot(order, worker))?;
    Ok(Answer { last, convicted: convicted != 0, lost, kept_s })
}

fn store_answer(host: &mut dyn Host, order: &B256, worker: &B256, answer: Answer) -> Outcome<()> {
    let Answer { last, convicted, lost, kept_s } = answer;
    host.store_quarters(answer_slot(order, worker), [last, convicted.into(), lost, kept_s])
}

/// What a challenger must send, and what of it the operator is paid for a defence.
fn bond_for(host: &mut dyn Host, words: u64, lost: u64) -> Outcome<(u128, u128)> {
    let params = host.params();
    let gas = DEFENCE_MOVES * u128::from(params.dispute_move_gas) * u128::from(params.minimum_gas_price);
    let words = u128::from(words.div_ceil(PRICED_WORDS)).checked_mul(params.dispute_words_price);
    let defence = checked(words.and_then(|words| words.checked_add(gas)))?;
    let least = checked(defence.checked_mul(BOND_OF_DEFENCE))?.max(params.dispute_bond_min);
    let doubled = u32::try_from(lost).ok().filter(|lost| *lost < 64).map(|lost| 1u128 << lost);
    Ok((checked(doubled.and_then(|times| least.checked_mul(times)))?, defence))
}

/// The height at which a challenger committed to its accusation, if it did in an earlier block.
fn committed_at(
    host: &mut dyn Host,
    challenger: Address,
    order: &B256,
    worker: &B256,
    salt: &B256,
) -> Outcome<Option<u64>> {
    let mut bytes = challenger.to_vec();
    bytes.extend(order);
    bytes.extend(worker);
    bytes.extend(salt);
    host.charge(GAS_HASH + 4 * GAS_HASH_WORD)?;
    let height = host.load_u64(slot(tag::COMMITMENT, &[keccak256(&bytes).as_slice()]))?;
    Ok((height != 0 && height < host.surroundings().number).then_some(height))
}

/// Whether an operator had named this receipt before `height`.
fn is_reported(host: &mut dyn Host, operator: Address, receipt: &B256, height: u64) -> Outcome<bool> {
    let at = slot(tag::REPORT, &[operator.as_slice()]);
    let reported = host.load_word(at)?;
    let [_, _, reported_at, _] = host.load_quarters(at.after(1))?;
    Ok(!reported.is_zero() && reported == *receipt && reported_at < height)
}

/// An operator names a false receipt of its own. Once for all its keys, which are cheap, in so long that whatever it is
/// accused of meanwhile is no second fault.
fn report(host: &mut dyn Host, caller: Address, named: &IDisputes::reportCall) -> Outcome<()> {
    let holder = operators::holder(host, &named.worker)?;
    require(holder == caller && !holder.is_zero(), "the key is not the caller's")?;
    require(!named.receipt.is_zero(), "no receipt is named")?;
    let at = slot(tag::REPORT, &[caller.as_slice()]);
    let [_, _, _, before_s] = host.load_quarters(at.after(1))?;
    let (number, now) = (host.surroundings().number, host.surroundings().timestamp_s);
    let again = before_s.saturating_add(host.params().dispute_report());
    require(before_s == 0 || now >= again, "a fault of this operator was reported not long ago")?;
    host.store_word(at, named.receipt)?;
    host.store_quarters(at.after(1), [0, 0, number, now])?;
    let event = IDisputes::Reported { operator: caller, worker: named.worker, receipt: named.receipt };
    host.emit(DISPUTES, &event)
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IDisputes::IDisputesCalls as Calls;
    let decoded = decode::<Calls>(call)?;
    if !matches!(decoded, Calls::open(_) | Calls::openAsking(_)) {
        takes_no_value(call)?;
    }
    let done = |()| Vec::new();
    match decoded {
        Calls::commit(commit) => {
            let at = slot(tag::COMMITMENT, &[commit.commitment.as_slice()]);
            require(host.load(at)?.is_zero(), "the commitment was made before")?;
            host.store_u64(at, host.surroundings().number)?;
            let event = IDisputes::Committed { commitment: commit.commitment, from: call.caller };
            host.emit(DISPUTES, &event).map(done)
        }
        Calls::open(asked) => {
            let id = open(host, call, &asked, Ids::Known)?;
            Ok(IDisputes::openCall::abi_encode_returns(&id))
        }
        Calls::openAsking(asked) => {
            let IDisputes::openAskingCall { papers, channel, salt } = asked;
            let id = open(host, call, &IDisputes::openCall { papers, channel, salt }, Ids::Asked)?;
            Ok(IDisputes::openAskingCall::abi_encode_returns(&id))
        }
        Calls::showIds(shown) => show_ids(host, call.caller, &shown).map(done),
        Calls::root(root) => make_root(host, call.caller, root).map(done),
        Calls::pick(pick) => make_pick(host, call.caller, &pick).map(done),
        Calls::divide(divide) => {
            let (mut record, mut game) = turn_of(host, call.caller, divide.id, Side::Worker)?;
            require(game.turn() == Turn::Divide, "it is the turn of the worker's root")?;
            divide_node(host, divide.id, &mut game, divide.nodes, divide.data.to_vec())?;
            moved(host, divide.id, &mut record, &game).map(done)
        }
        Calls::leaf(leaf) => {
            let convicted = judge_leaf(host, call.caller, &leaf)?;
            Ok(IDisputes::leafCall::abi_encode_returns(&convicted))
        }
        Calls::claimOutput(claim) => proofs::claim_output(host, call.caller, &claim).map(done),
        Calls::claimState(claim) => proofs::claim_state(host, call.caller, &claim).map(done),
        Calls::claimText(claim) => proofs::claim_text(host, call.caller, &claim).map(done),
        Calls::claimPrompt(claim) => proofs::claim_prompt(host, call.caller, &claim).map(done),
        Calls::timeOut(out) => time_out(host, out.id).map(done),
        Calls::twoAnswers(two) => {
            let id = proofs::two_answers(host, call.caller, &two)?;
            Ok(IDisputes::twoAnswersCall::abi_encode_returns(&id))
        }
        Calls::pastEnd(past) => {
            let id = proofs::past_end(host, call.caller, &past)?;
            Ok(IDisputes::pastEndCall::abi_encode_returns(&id))
        }
        Calls::falseStop(stop) => {
            let id = proofs::false_stop(host, call.caller, &stop)?;
            Ok(IDisputes::falseStopCall::abi_encode_returns(&id))
        }
        Calls::report(named) => report(host, call.caller, &named).map(done),
        Calls::collect(collect) => verdict::collect(host, collect.id, &collect.channel).map(done),
        Calls::disputes(get) => {
            let shown = shown(host, get.id)?;
            Ok(IDisputes::disputesCall::abi_encode_returns(&shown))
        }
        Calls::disputeCount(_) => {
            let count = host.load_u64(slot(tag::COUNT, &[]))?;
            Ok(IDisputes::disputeCountCall::abi_encode_returns(&count))
        }
        Calls::answerOf(get) => {
            let answer = load_answer(host, &get.order, &get.worker)?;
            let answer =
                IDisputes::answerOfReturn { id: answer.last, convicted: answer.convicted, lost: answer.lost };
            Ok(IDisputes::answerOfCall::abi_encode_returns(&answer))
        }
        Calls::disputeOf(get) => {
            let id = host.load_u64(slot(tag::RECEIPT, &[get.receipt.as_slice()]))?;
            Ok(IDisputes::disputeOfCall::abi_encode_returns(&id))
        }
        Calls::disputesOf(get) => {
            let page = host.page(slot(tag::DISPUTES_OF, &[get.operator.as_slice()]), get.offset, PAGE)?;
            let ids = page.into_iter().map(|id| id.saturating_to()).collect();
            Ok(IDisputes::disputesOfCall::abi_encode_returns(&ids))
        }
        Calls::bondFor(get) => {
            let lost = load_answer(host, &get.order, &get.worker)?.lost;
            let (bond, defence) = bond_for(host, get.words, lost)?;
            let bond = IDisputes::bondForReturn { bond: U256::from(bond), defence: U256::from(defence) };
            Ok(IDisputes::bondForCall::abi_encode_returns(&bond))
        }
        Calls::gameOf(get) => {
            let game = host.load_bytes(slot(tag::GAME, &[&get.id.to_be_bytes()]), GAME_BYTES_MAX)?;
            let game =
                IDisputes::gameOfReturn { game: game.into(), stateDigest: load(host, get.id)?.state_digest };
            Ok(IDisputes::gameOfCall::abi_encode_returns(&game))
        }
        Calls::reportOf(get) => {
            let at = slot(tag::REPORT, &[get.operator.as_slice()]);
            let [_, _, height, reported_s] = host.load_quarters(at.after(1))?;
            let again = reported_s.saturating_add(host.params().dispute_report());
            let report = IDisputes::reportOfReturn {
                receipt: host.load_word(at)?,
                height,
                again: if reported_s == 0 { 0 } else { again },
            };
            Ok(IDisputes::reportOfCall::abi_encode_returns(&report))
        }
    }
}

/// On a stage (`replay`): the next dispute has this number, and about its answer so many challengers have lost. How long they
/// took is not known: as long as stake stood.
pub(crate) fn stage(
    host: &mut dyn Host,
    id: u64,
    dispute: &IDisputes::Dispute,
    lost_before: u64,
) -> Outcome<()> {
    host.store_u64(slot(tag::COUNT, &[]), checked(id.checked_sub(1))?)?;
    let kept_s = if lost_before == 0 { 0 } else { host.params().unbonding_s };
    let answer = Answer { last: 0, convicted: false, lost: lost_before, kept_s };
    store_answer(host, &dispute.order, &dispute.worker, answer)
}

/// The game of a dispute as it stands.
pub(crate) fn game(host: &mut dyn Host, id: u64) -> Outcome<Game> {
    load_game(host, id)
}

pub(crate) fn shown(host: &mut dyn Host, id: u64) -> Outcome<IDisputes::Dispute> {
    let record = load(host, id)?;
    let turn = match record.state {
        State::Open if record.ids == Ids::Asked => IDS_TURN,
        State::Open => turn_code(load_game(host, id)?.turn()),
        _ => 0,
    };
    Ok(IDisputes::Dispute {
        order: record.order,
        receipt: record.receipt,
        worker: record.worker,
        operator: record.operator,
        challenger: record.challenger,
        payee: record.payee,
        state: record.state as u8,
        turn,
        words: record.words,
        openedAt: record.opened_at,
        moveUntil: record.move_until,
        moves: record.moves,
        bond: U256::from(record.bond),
        defence: U256::from(record.defence),
        paid: U256::from(record.paid),
        owed: U256::from(record.owed),
    })
}

fn turn_code(turn: Turn) -> u8 {
    match turn {
        Turn::Root => 1,
        Turn::Pick => 2,
        Turn::Divide => 3,
        Turn::Leaf => 4,
    }
}

/// An accusation whose papers hold, before anything is decided.
struct Accused {
    record: Record,
    answer: Answer,
}

/// Sees to what every accusation needs: a worker that is someone's, a receipt that is young enough, an answer that is not
/// convicted.
fn accuse(
    host: &mut dyn Host,
    challenger: Address,
    (order, receipt): (&Order, &Receipt),
    receipt_digest: &Digest,
    channel: &[u8],
    salt: &B256,
) -> Outcome<Accused> {
    let (digest, worker) = (B256::from(receipt.order.0), B256::from(receipt.worker.0));
    let receipt_digest = B256::from(receipt_digest.0);
    let operator = operators::holder(host, &worker)?;
    require(!operator.is_zero(), "the worker is no operator's")?;
    let answer = load_answer(host, &digest, &worker)?;
    require(!answer.convicted, "the answer is convicted")?;
    // The worker's clock says when it was done; it cannot have been before the payer asked.
    let done_s = receipt.done_ms.max(order.issued_ms) / 1_000;
    let now = host.surroundings().timestamp_s;
    let params = host.params();
    let until = done_s.saturating_add(params.dispute_window()).saturating_add(answer.kept_s);
    // The time that lost disputes took is added, as far as the stake is still there at the end of another.
    let latest = params.unbonding_s.saturating_sub(params.dispute_longest(MOVES_MAX));
    let latest = done_s.saturating_add(latest.max(params.dispute_window()));
    require(now <= until.min(latest), "the receipt is too old to be disputed")?;
    let paid = papers::in_channel(host, order, receipt.charge.to_wei())?;
    let (payee, channel) = match &order.channel {
        None => {
            require(channel.is_empty(), "the order names no channel")?;
            (Address::ZERO, B256::ZERO)
        }
        Some(id) => {
            let id = B256::from(id.0);
            (papers::payer_of(host, &id, channel)?.unwrap_or_default(), id)
        }
    };
    let height = committed_at(host, challenger, &digest, &worker, salt)?;
    let accused_at = height.unwrap_or(host.surroundings().number);
    let reported = is_reported(host, operator, &receipt_digest, accused_at)?;
    let record = Record {
        order: digest,
        receipt: receipt_digest,
        worker,
        operator,
        challenger,
        payee,
        channel,
        commitment: receipt.state_commitment.0.into(),
        state_digest: B256::ZERO,
        state: State::Open,
        moves: 1,
        opened_at: now,
        move_until: 0,
        words: 0,
        committed: height.is_some(),
        reported,
        ids: Ids::Known,
        bond: 0,
        defence: 0,
        paid,
        owed: 0,
    };
    Ok(Accused { record, answer })
}

/// Notes a new dispute where it is looked for.
fn enlist(host: &mut dyn Host, record: &Record, answer: Answer) -> Outcome<u64> {
    let id = checked(host.load_u64(slot(tag::COUNT, &[]))?.checked_add(1))?;
    host.store_u64(slot(tag::COUNT, &[]), id)?;
    store_answer(host, &record.order, &record.worker, Answer { last: id, ..answer })?;
    host.store_u64(slot(tag::RECEIPT, &[record.receipt.as_slice()]), id)?;
    host.push(slot(tag::DISPUTES_OF, &[record.operator.as_slice()]), U256::from(id))?;
    Ok(id)
}

/// D-5.1
fn open(host: &mut dyn Host, call: &Call<'_>, asked: &IDisputes::openCall, ids: Ids) -> Outcome<u64> {
    let case = Case::open(host, &asked.papers)?;
    let short = 4 * u64::from(case.receipt.prompt_tokens) <= IDS_BYTES_MAX;
    require(ids == Ids::Known || short, "the prompt has more ids than are shown on the ledger")?;
    let sides = (&case.order, &case.receipt);
    let Accused { mut record, answer } =
        accuse(host, call.caller, sides, &case.receipt_digest, &asked.channel, &asked.salt)?;
    if answer.last != 0 {
        let last = load(host, answer.last)?;
        require(last.state != State::Open, "a dispute about this answer is under way")?;
    }
    let words = case.statement()?.layout().words();
    let Some(trace_s) = host.params().dispute_trace(words) else {
        return refuse("nobody computes so long a trace in the time there is");
    };
    let (bond, defence) = bond_for(host, words, answer.lost)?;
    require(call.value == U256::from(bond), "the value sent is not the bond of this dispute")?;
    let open_slot = slot(tag::OPEN_OF, &[call.caller.as_slice()]);
    let open = host.load_u64(open_slot)?;
    require(open < host.params().dispute_open_max, "the challenger has too many disputes open")?;
    host.store_u64(open_slot, open + 1)?;

    let Some(game) = Game::new(words) else { return refuse("there is no trace of this answer") };
    (record.words, record.bond, record.defence) = (words, bond, defence);
    let until = record.opened_at.saturating_add(host.params().dispute_move());
    // A trace is computed when the ids are known.
    let until = until.saturating_add(if ids == Ids::Known { trace_s } else { 0 });
    (record.move_until, record.ids) = (until, ids);
    let id = enlist(host, &record, answer)?;
    store(host, id, &record)?;
    store_game(host, id, &game)?;
    let event = IDisputes::Opened {
        id,
        operator: record.operator,
        receipt: record.receipt,
        order: record.order,
        worker: record.worker,
        challenger: record.challenger,
        words,
        bond: U256::from(bond),
        moveUntil: until,
    };
    host.emit(DISPUTES, &event)?;
    Ok(id)
}

/// Who moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Worker,
    Challenger,
}

fn side(turn: Turn) -> Side {
    match turn {
        Turn::Root | Turn::Divide => Side::Worker,
        Turn::Pick | Turn::Leaf => Side::Challenger,
    }
}

fn open_dispute(host: &mut dyn Host, id: u64) -> Outcome<(Record, Game)> {
    let record = load(host, id)?;
    require(record.state != State::None, "there is no such dispute")?;
    require(record.state == State::Open, "the dispute is over")?;
    let game = load_game(host, id)?;
    Ok((record, game))
}

/// A dispute in which it is this side's turn, and the caller is it, in time.
fn turn_of(host: &mut dyn Host, caller: Address, id: u64, mover: Side) -> Outcome<(Record, Game)> {
    let (record, game) = open_dispute(host, id)?;
    let (entitled, reason) = match mover {
        Side::Worker => (record.operator, "the caller is not the worker's operator"),
        Side::Challenger => (record.challenger, "the caller is not the challenger"),
    };
    require(caller == entitled, reason)?;
    require(side(game.turn()) == mover, "it is the other side's turn")?;
    require(host.surroundings().timestamp_s <= record.move_until, "the time for this move is over")?;
    let answer = load_answer(host, &record.order, &record.worker)?;
    require(!answer.convicted, "the answer was convicted by other evidence")?;
    Ok((record, game))
}

/// Stores what a move has changed, and gives the other side its time.
fn moved(host: &mut dyn Host, id: u64, record: &mut Record, game: &Game) -> Outcome<()> {
    record.move_until = host.surroundings().timestamp_s.saturating_add(host.params().dispute_move());
    store(host, id, record)?;
    store_game(host, id, game)?;
    let turn = turn_code(game.turn());
    host.emit(DISPUTES, &IDisputes::Moved { id, turn, moveUntil: record.move_until })
}

fn made<T>(result: Result<T, MoveError>) -> Outcome<T> {
    result.or_else(|error| refuse(error.to_string()))
}

fn divide_node(
    host: &mut dyn Host,
    id: u64,
    game: &mut Game,
    nodes: Vec<B256>,
    data: Vec<u8>,
) -> Outcome<()> {
    host.charge(GAS_STEP * nodes.len() as u64)?;
    host.charge(GAS_HASH + GAS_HASH_WORD * data.len().div_ceil(32) as u64)?;
    require(nodes.is_empty() || data.is_empty(), "a division is of nodes or of bytes")?;
    let event = IDisputes::Divided { id, nodes: nodes.clone(), data: data.clone().into() };
    let division = match nodes.is_empty() {
        true => Division::Bytes(data),
        false => Division::Nodes(nodes.into_iter().map(|value| value.0).collect()),
    };
    made(game.divide(&division))?;
    host.emit(DISPUTES, &event)
}

/// D-5.9
fn show_ids(host: &mut dyn Host, caller: Address, shown: &IDisputes::showIdsCall) -> Outcome<()> {
    let (mut record, game) = turn_of(host, caller, shown.id, Side::Worker)?;
    require(record.ids == Ids::Asked, "no ids are asked for")?;
    let case = Case::again(host, &shown.papers, &record)?;
    host.charge(GAS_HASH + GAS_HASH_WORD * shown.ids.len().div_ceil(32) as u64)?;
    let right = shown.ids.len() as u64 == 4 * u64::from(case.receipt.prompt_tokens)
        && Digest::of(domain::PROMPT_IDS, &shown.ids) == case.receipt.prompt_digest;
    require(right, "the ids are not those that the receipt commits to")?;
    record.ids = Ids::Known;
    let trace_s = host.params().dispute_trace(record.words).unwrap_or_default();
    let now = host.surroundings().timestamp_s;
    record.move_until = now.saturating_add(host.params().dispute_move()).saturating_add(trace_s);
    store(host, shown.id, &record)?;
    host.emit(DISPUTES, &IDisputes::IdsShown { id: shown.id, ids: shown.ids.clone() })?;
    let turn = turn_code(game.turn());
    host.emit(DISPUTES, &IDisputes::Moved { id: shown.id, turn, moveUntil: record.move_until })
}

/// D-5.2
fn make_root(host: &mut dyn Host, caller: Address, root: IDisputes::rootCall) -> Outcome<()> {
    let (mut record, mut game) = turn_of(host, caller, root.id, Side::Worker)?;
    require(game.turn() == Turn::Root, "the root was given")?;
    require(record.ids == Ids::Known, "the prompt's ids are to be shown first")?;
    host.charge(GAS_HASH + 3 * GAS_HASH_WORD)?;
    let found = state_commitment(&PublicKey(record.worker.0), &root.salt.0, &Digest(root.stateDigest.0));
    require(found.0 == record.commitment.0, "salt and state digest do not open the receipt's commitment")?;
    divide_node(host, root.id, &mut game, root.nodes, root.data.to_vec())?;
    record.state_digest = root.stateDigest;
    moved(host, root.id, &mut record, &game)
}

/// D-5.3
fn make_pick(host: &mut dyn Host, caller: Address, pick: &IDisputes::pickCall) -> Outcome<()> {
    let (mut record, mut game) = turn_of(host, caller, pick.id, Side::Challenger)?;
    host.charge(GAS_STEP * pick.siblings.len() as u64)?;
    let siblings: Vec<[u8; 32]> = pick.siblings.iter().map(|value| value.0).collect();
    made(game.pick(pick.index, &pick.value.0, &siblings))?;
    record.moves = checked(record.moves.checked_add(1))?;
    moved(host, pick.id, &mut record, &game)
}

/// D-5.5
fn judge_leaf(host: &mut dyn Host, caller: Address, shown: &IDisputes::leafCall) -> Outcome<bool> {
    let (mut record, game) = turn_of(host, caller, shown.id, Side::Challenger)?;
    require(game.turn() == Turn::Leaf, "the node in dispute is not taken apart yet")?;
    let case = Case::again(host, &shown.papers, &record)?;
    let lied = case.judge(host, &game, &shown.leaf_)?;
    record.moves = checked(record.moves.checked_add(1))?;
    if lied {
        convict(host, shown.id, &mut record, State::Lied)?;
    } else {
        dismiss(host, shown.id, &mut record, State::Right)?;
    }
    Ok(lied)
}

/// D-5.7
fn time_out(host: &mut dyn Host, id: u64) -> Outcome<()> {
    let (mut record, game) = open_dispute(host, id)?;
    if load_answer(host, &record.order, &record.worker)?.convicted {
        return overtake(host, id, &mut record);
    }
    let over = host.surroundings().timestamp_s > record.move_until;
    require(over, "the time for the next move is not over")?;
    match side(game.turn()) {
        Side::Worker => convict(host, id, &mut record, State::Silent),
        Side::Challenger => dismiss(host, id, &mut record, State::Gone),
    }
}

#[cfg(test)]
mod tests;
