//! Audits: draws receipts from posted logs, and an auditor for each; holds what both sides say until both have said it.
//!
//! In:     posted logs and beacons; disclosures of audited operators; commitments and results of auditors.
//! Out:    which receipts are computed again, by whom; a standing for each operator, and from it the next log's rate;
//!         payments to auditors; what of its claims an operator is paid before they are audited; pay that is withheld, and
//!         what of it missed draws take.
//! Touches: its own storage and balance; what channels are about to pay; reads of operators, receipts, staking, channels.
//! Holds:  its balance is the sum of the pools; what is drawn, and who audits it, follows from a beacon that nobody knew
//!         when the log was posted, and from a list and stakes that were settled before it; an auditor is paid only where its
//!         result is the audited worker's; a receipt is disclosed for one draw only; nothing here takes stake, and no
//!         auditor's word costs the audited side money; what is not paid yet stays claimed.
//! Absent: who is right where results differ (a dispute says), the evidence (it goes from worker to worker).
//!
//! The rules, with their reasons, are in `docs/spec/audit.md`.

mod draw;
mod standing;

#[cfg(test)]
mod tests;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall as _;
use surety_proof::commit::{audit_commitment, state_commitment};
use surety_types::{
    Digest, Order, PublicKey, Receipt, Signed,
    abi::{
        IAudits,
        address::{AUDITS, CHANNELS},
    },
    receipt::MAX_SIGNED_RECEIPT_BYTES,
};

use self::{
    draw::{Id, WHOLE_PPM, pick},
    standing::{Log, load_log},
};
use super::{
    Call, PAGE, beacon, channels, decode, operators, papers,
    receipts::{self, leaf_hash, verify_inclusion},
    staking, takes_no_value,
};
use crate::host::{GAS_ED25519, GAS_HASH, GAS_HASH_WORD, Host, Outcome, Slot, checked, refuse, require};

mod tag {
    /// Of an operator and an epoch: rate, epoch of posting counted from one, size, epochs of a step; then counts of
    /// disclosed, empty, revealed, answered; then what had been claimed, and draws at most.
    pub(super) const LOG: u8 = 1;
    /// Of an operator: the list of the epochs of its logs, as they were posted.
    pub(super) const LOGS: u8 = 2;
    /// Of an operator: four slots.
    pub(super) const STANDING: u8 = 3;
    /// Of an operator: what there is for its auditors.
    pub(super) const POOL: u8 = 4;
    /// Of an audit: receipt, worker, model, state commitment, evidence, charge; then status, place, epoch of disclosure,
    /// epoch of the result.
    pub(super) const AUDIT: u8 = 5;
    /// Of an audit: commitment, auditor, its key, result; then attempt counted from one, height of the commitment.
    pub(super) const TURN: u8 = 6;
    /// Of a worker key and an order: the audit in which the receipt was disclosed.
    pub(super) const ORDER: u8 = 7;
    /// The list of audits that were disclosed.
    pub(super) const DISCLOSED: u8 = 8;
    /// Of an operator: how many answers it has disclosed, and what they charged.
    pub(super) const CHARGED: u8 = 9;
}

/// Gas of a draw.
const GAS_DRAW: u64 = GAS_HASH + 3 * GAS_HASH_WORD;
/// Auditors that are drawn one after another, if one is silent.
const ATTEMPTS: u64 = 3;
/// Places of the list that are tried to find an auditor.
const TRIES: u64 = 64;
/// Ten-thousandths of a whole.
const WHOLE_BPS: u64 = 10_000;

/// How far an audit has come.
mod status {
    pub(super) const NONE: u64 = 0;
    pub(super) const DISCLOSED: u64 = 1;
    pub(super) const EMPTY: u64 = 2;
    pub(super) const COMMITTED: u64 = 3;
    pub(super) const REVEALED: u64 = 4;
    pub(super) const PASSED: u64 = 5;
    pub(super) const DIFFERING: u64 = 6;
    /// Its payer lets no auditor see it.
    pub(super) const CONFIDENTIAL: u64 = 7;
}

fn slot(tag: u8, keys: &[&[u8]]) -> Slot {
    Slot::new(AUDITS, tag, keys)
}

/// A disclosed audit.
#[derive(Debug, Clone, Copy)]
struct Audit {
    receipt: B256,
    worker: B256,
    model: B256,
    commitment: B256,
    evidence: B256,
    charge: u128,
    status: u64,
    index: u64,
    disclosed_in: u64,
    revealed_in: u64,
}

fn load_audit(host: &mut dyn Host, id: &B256) -> Outcome<Audit> {
    let at = slot(tag::AUDIT, &[id.as_slice()]);
    let [status, index, disclosed_in, revealed_in] = host.load_quarters(at.after(6))?;
    Ok(Audit {
        receipt: host.load_word(at)?,
        worker: host.load_word(at.after(1))?,
        model: host.load_word(at.after(2))?,
        commitment: host.load_word(at.after(3))?,
        evidence: host.load_word(at.after(4))?,
        charge: host.load_halves(at.after(5))?.1,
        status,
        index,
        disclosed_in,
        revealed_in,
    })
}

fn store_progress(host: &mut dyn Host, id: &B256, audit: &Audit) -> Outcome<()> {
    let at = slot(tag::AUDIT, &[id.as_slice()]).after(6);
    host.store_quarters(at, [audit.status, audit.index, audit.disclosed_in, audit.revealed_in])
}

/// What an auditor has said.
#[derive(Debug, Clone, Copy)]
struct Turn {
    commitment: B256,
    auditor: Address,
    key: B256,
    found: B256,
    /// Counted from one; zero if nobody has committed.
    attempt: u64,
    height: u64,
}

fn load_turn(host: &mut dyn Host, id: &B256) -> Outcome<Turn> {
    let at = slot(tag::TURN, &[id.as_slice()]);
    let [attempt, height, _, _] = host.load_quarters(at.after(4))?;
    Ok(Turn {
        commitment: host.load_word(at)?,
        auditor: host.load_address(at.after(1))?,
        key: host.load_word(at.after(2))?,
        found: host.load_word(at.after(3))?,
        attempt,
        height,
    })
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IAudits::IAuditsCalls as Calls;
    takes_no_value(call)?;
    let done = |()| Vec::new();
    match decode::<Calls>(call)? {
        Calls::disclose(IAudits::discloseCall { id, receipt, path, evidence }) => {
            let shown = Shown { id, receipt: &receipt, path: &path };
            show(host, call.caller, &shown, Evidence::Digest(evidence)).map(done)
        }
        Calls::discloseConfidential(IAudits::discloseConfidentialCall { id, receipt, path, order }) => {
            let shown = Shown { id, receipt: &receipt, path: &path };
            show(host, call.caller, &shown, Evidence::Confidential { order: &order }).map(done)
        }
        Calls::commit(commit) => promise(host, call.caller, &commit.id, commit.commitment).map(done),
        Calls::reveal(reveal) => tell(host, call.caller, &reveal).map(done),
        Calls::answer(answer) => compare(host, &answer).map(done),
        Calls::account(account) => standing::account(host, account.operator).map(|_| Vec::new()),
        Calls::drawOf(get) => {
            let log = load_log(host, get.operator, get.epoch)?;
            let known = log.drawn_in() <= host.surroundings().epoch;
            let count = if known { log.drawing(host, get.operator, get.epoch)?.count() } else { 0 };
            Ok(IAudits::drawOfCall::abi_encode_returns(&IAudits::Draw {
                drawnIn: log.drawn_in(),
                size: log.size,
                ratePpm: log.rate_ppm,
                count,
                discloseBy: log.disclose_by(),
                closesAfter: log.closes_after(),
            }))
        }
        Calls::drawn(get) => {
            let log = load_log(host, get.operator, get.epoch)?;
            let drawing = log.drawing(host, get.operator, get.epoch)?;
            let count = drawing.count();
            let page = get.offset..count.min(get.offset.saturating_add(PAGE));
            host.charge((GAS_HASH + 3 * GAS_HASH_WORD) * (1 + PAGE))?;
            let indexes = page.map(|number| drawing.index(number, count)).collect();
            Ok(IAudits::drawnCall::abi_encode_returns(&indexes))
        }
        Calls::auditOf(get) => {
            let audit = shown(host, &get.id)?;
            Ok(IAudits::auditOfCall::abi_encode_returns(&audit))
        }
        Calls::logsOf(get) => {
            let epochs = standing::logs(host, get.operator, get.offset, PAGE)?;
            Ok(IAudits::logsOfCall::abi_encode_returns(&epochs))
        }
        Calls::disclosedCount(_) => {
            let count = host.load_u64(slot(tag::DISCLOSED, &[]))?;
            Ok(IAudits::disclosedCountCall::abi_encode_returns(&count))
        }
        Calls::disclosed(get) => {
            let page = host.page(slot(tag::DISCLOSED, &[]), get.offset, PAGE)?;
            let ids = page.into_iter().map(B256::from).collect();
            Ok(IAudits::disclosedCall::abi_encode_returns(&ids))
        }
        Calls::standingOf(get) => {
            let found = standing::brought_up(host, get.operator)?;
            let withheld = found.withheld_until > host.surroundings().epoch;
            Ok(IAudits::standingOfCall::abi_encode_returns(&IAudits::Standing {
                ratePpm: found.rate_ppm(host),
                score: found.score,
                passed: found.passed,
                missed: found.missed,
                unconfirmed: found.unconfirmed,
                differing: found.differing,
                withheldUntil: if withheld { found.withheld_until } else { 0 },
                pool: host.load(slot(tag::POOL, &[get.operator.as_slice()]))?,
                logs: standing::log_count(host, get.operator)?,
                accounted: found.accounted,
            }))
        }
        Calls::exposureOf(get) => {
            let (exposure, cap) = standing::exposure(host, get.operator)?;
            let returned = IAudits::exposureOfReturn { exposure, cap };
            Ok(IAudits::exposureOfCall::abi_encode_returns(&returned))
        }
        Calls::payOf(get) => {
            let found = standing::brought_up(host, get.operator)?;
            let (claimed, settled) = channels::paid_to(host, get.operator)?;
            let due = standing::due(host, get.operator, &found, claimed, settled)?;
            let each = standing::taken_for_each(host, get.operator, &found, claimed)?;
            let withheld = found.withheld_until > host.surroundings().epoch;
            let returned = IAudits::payOfReturn {
                unpaid: U256::from(claimed.saturating_sub(settled)),
                due: U256::from(if withheld { 0 } else { due }),
                forfeited: found.forfeit(each, U256::MAX).0,
            };
            Ok(IAudits::payOfCall::abi_encode_returns(&returned))
        }
    }
}

/// A log was posted.
pub(super) fn note_log(host: &mut dyn Host, operator: Address, epoch: u64, size: u64) -> Outcome<()> {
    standing::note_log(host, operator, epoch, size)
}

/// What is let go of an operator's claims when channels settle: all together, and what of it is the operator's own. The rest
/// has gone where it goes. U-6.3: refuses while the operator's pay is withheld.
pub(super) fn release(
    host: &mut dyn Host,
    operator: Address,
    claimed: u128,
    settled: u128,
) -> Outcome<(u128, u128)> {
    let unpaid = checked(claimed.checked_sub(settled))?;
    if !operators::is_registered(host, operator)? {
        return Ok((unpaid, unpaid));
    }
    let standing = standing::account(host, operator)?;
    let withheld = standing.withheld_until > host.surroundings().epoch;
    require(!withheld, "pay is withheld: too many of the operator's audits went unanswered")?;
    let due = standing::due(host, operator, &standing, claimed, settled)?;
    if due < unpaid {
        host.emit(AUDITS, &IAudits::Held { operator, unpaid: U256::from(unpaid - due) })?;
    }
    // U-6.4
    let each = standing::taken_for_each(host, operator, &standing, claimed)?;
    let (forfeited, after) = standing.forfeit(each, U256::from(due));
    let forfeited = checked(u128::try_from(forfeited).ok())?;
    if forfeited > 0 {
        standing::store(host, operator, &after)?;
        staking::forfeit_paid(host, CHANNELS, U256::from(forfeited))?;
        host.emit(AUDITS, &IAudits::Forfeited { operator, amount: U256::from(forfeited) })?;
    }
    let rest = checked(due.checked_sub(forfeited))?;
    let shared = if rest > 0 { share(host, operator, rest)? } else { 0 };
    Ok((due, checked(rest.checked_sub(shared))?))
}

/// U-7.1: takes the shares of auditors and validators out of what an operator is about to be paid; what they are together.
fn share(host: &mut dyn Host, operator: Address, amount: u128) -> Outcome<u128> {
    let part = |bps: u64| amount.checked_mul(bps.into()).map(|scaled| scaled / u128::from(WHOLE_BPS));
    let auditors = checked(part(host.params().auditors_bps))?;
    let proposer = checked(part(host.params().validators_bps))?;
    if auditors > 0 {
        host.pay(CHANNELS, AUDITS, U256::from(auditors))?;
        let at = slot(tag::POOL, &[operator.as_slice()]);
        let pool = host.load(at)?;
        host.store(at, checked(pool.checked_add(U256::from(auditors)))?)?;
    }
    let to = host.surroundings().proposer;
    if proposer > 0 {
        host.pay(CHANNELS, to, U256::from(proposer))?;
    }
    let event = IAudits::Shared { operator, auditors: U256::from(auditors), proposer: U256::from(proposer) };
    host.emit(AUDITS, &event)?;
    checked(auditors.checked_add(proposer))
}

/// What a disclosure shows: the receipt, and its place in the log.
struct Shown<'a> {
    id: B256,
    receipt: &'a [u8],
    path: &'a [B256],
}

/// What an auditor is given.
enum Evidence<'a> {
    /// What has this digest.
    Digest(B256),
    /// Nothing: the order's payer forbids it.
    Confidential { order: &'a [u8] },
}

/// U-3: the audited operator shows what was drawn.
fn show(host: &mut dyn Host, caller: Address, disclose: &Shown<'_>, evidence: Evidence<'_>) -> Outcome<()> {
    let word = disclose.id;
    let Id { operator, epoch, number } = Id::from_word(&word);
    require(caller == operator, "the log is not the caller's")?;
    let log = load_log(host, operator, epoch)?;
    let drawing = log.drawing(host, operator, epoch)?;
    let now = host.surroundings().epoch;
    require(now <= log.disclose_by(), "it is too late to disclose it")?;
    let count = drawing.count();
    require(u64::from(number) < count, "no such draw")?;
    let at = slot(tag::AUDIT, &[word.as_slice()]);
    let [known, ..] = host.load_quarters(at.after(6))?;
    require(known == status::NONE, "it is disclosed already")?;
    let index = drawing.index(number.into(), count);

    require(disclose.receipt.len() <= MAX_SIGNED_RECEIPT_BYTES, "the receipt is too long")?;
    let words = disclose.receipt.len().div_ceil(32) as u64;
    host.charge(GAS_ED25519 + 2 * (GAS_HASH + GAS_HASH_WORD * words))?;
    let receipt = match Signed::<Receipt>::open(disclose.receipt) {
        Ok(receipt) => receipt,
        Err(error) => return refuse(format!("the receipt cannot be opened: {error}")),
    };
    let worker = B256::from(receipt.worker.0);
    require(operators::holder(host, &worker)? == operator, "the receipt is not by a worker of the operator")?;
    host.charge((GAS_HASH + 3 * GAS_HASH_WORD) * (1 + disclose.path.len() as u64))?;
    let digest = receipt.digest();
    let path: Vec<[u8; 32]> = disclose.path.iter().map(|hash| hash.0).collect();
    let root = receipts::log_of(host, operator, epoch)?.root.0;
    let included = verify_inclusion(&root, log.size, index, &leaf_hash(&digest.0), &path);
    require(included, "the receipt is not the entry that was drawn")?;
    // U-3.3: one order is answered once, and audited once.
    let order = slot(tag::ORDER, &[worker.as_slice(), &receipt.order.0]);
    require(host.load(order)?.is_zero(), "a receipt for the order was disclosed before")?;
    host.store_word(order, word)?;

    let (status, evidence) = match evidence {
        Evidence::Digest(evidence) => (status::DISCLOSED, evidence),
        // U-3.6
        Evidence::Confidential { order } => {
            let order: Signed<Order> = papers::open(host, order)?;
            require(order.value().digest() == receipt.order, "the receipt is for another order")?;
            require(order.is_confidential(), "the order's payer does not forbid an audit")?;
            (status::CONFIDENTIAL, B256::ZERO)
        }
    };
    let status = if receipt.failure().is_some() { status::EMPTY } else { status };
    let empty = status != status::DISCLOSED;
    let model = B256::from(receipt.model.0.0);
    let audit = Audit {
        receipt: B256::from(digest.0),
        worker,
        model,
        commitment: B256::from(receipt.state_commitment.0),
        evidence,
        charge: receipt.charge.to_wei().unwrap_or(u128::MAX),
        status,
        index,
        disclosed_in: now,
        revealed_in: 0,
    };
    host.store_word(at, audit.receipt)?;
    host.store_word(at.after(1), audit.worker)?;
    host.store_word(at.after(2), audit.model)?;
    host.store_word(at.after(3), audit.commitment)?;
    host.store_word(at.after(4), audit.evidence)?;
    host.store_halves(at.after(5), 0, audit.charge)?;
    store_progress(host, &word, &audit)?;
    standing::change_counts(host, operator, epoch, |counts| {
        counts.disclosed = counts.disclosed.saturating_add(1);
        counts.empty = counts.empty.saturating_add(u64::from(empty));
    })?;
    if !empty {
        standing::note_charge(host, operator, audit.charge)?;
    }
    host.push(slot(tag::DISCLOSED, &[]), word.into())?;
    let (receipt, evidence) = (audit.receipt, audit.evidence);
    host.emit(AUDITS, &IAudits::Disclosed { id: word, operator, model, receipt, evidence })
}

/// Which attempt an epoch belongs to, from zero; none before the first and after the last (U-4.1).
fn attempt_at(log: &Log, audit: &Audit, epoch: u64) -> Option<u64> {
    let since = epoch.checked_sub(audit.disclosed_in.saturating_add(1))?;
    Some(since / log.step.max(1)).filter(|attempt| *attempt < ATTEMPTS)
}

/// Who audits in an attempt, and under which key: of the places that are tried the first whose holder its stake lets
/// through, or else the first who can at all; nobody if none of them holds one who can (U-4.1).
fn auditor(
    host: &mut dyn Host,
    id: &B256,
    log: &Log,
    audit: &Audit,
    attempt: u64,
) -> Outcome<Option<(Address, B256)>> {
    let drawn_in = audit.disclosed_in.saturating_add(1).saturating_add(attempt.saturating_mul(log.step));
    let beacon = beacon::of(host, drawn_in)?;
    let audited = Id::from_word(id).operator;
    let listed = operators::offerers_before(host, &audit.model, drawn_in)?;
    if listed == 0 {
        return Ok(None);
    }
    let whole = U256::from(host.params().audit_stake_max);
    // Places that came up already: who holds them, and its stake.
    let mut known: Vec<(u64, Address, U256)> = Vec::new();
    for number in 0..TRIES {
        host.charge(2 * GAS_DRAW)?;
        let place = pick(&beacon, id, number, listed);
        let (candidate, stake) = match known.iter().find(|(other, ..)| *other == place) {
            Some((_, candidate, stake)) => (*candidate, *stake),
            None => {
                let (_, candidate) = operators::offerer(host, &audit.model, place)?;
                let stake = match candidate == audited {
                    true => U256::ZERO,
                    false => staking::bonded_before(host, candidate, drawn_in)?.min(whole),
                };
                known.push((place, candidate, stake));
                (candidate, stake)
            }
        };
        let chance = U256::from(pick(&beacon, id, TRIES + number, WHOLE_PPM));
        if checked(stake.checked_mul(U256::from(WHOLE_PPM)))? <= checked(chance.checked_mul(whole))? {
            continue;
        }
        if let Some(key) = operators::serves_since_before(host, candidate, &audit.model, drawn_in)? {
            return Ok(Some((candidate, key)));
        }
    }
    for (_, candidate, _) in known.into_iter().filter(|(_, candidate, _)| *candidate != audited) {
        if let Some(key) = operators::serves_since_before(host, candidate, &audit.model, drawn_in)? {
            return Ok(Some((candidate, key)));
        }
    }
    Ok(None)
}

/// The attempt that is under way, for who takes its turn in it.
fn turn_now(host: &mut dyn Host, word: &B256) -> Outcome<(Log, Audit, u64)> {
    let Id { operator, epoch, .. } = Id::from_word(word);
    let log = load_log(host, operator, epoch)?;
    let audit = load_audit(host, word)?;
    let now = host.surroundings().epoch;
    let open = matches!(audit.status, status::DISCLOSED | status::COMMITTED);
    require(open, "the audit is not waiting for an auditor")?;
    match attempt_at(&log, &audit, now) {
        Some(attempt) => Ok((log, audit, attempt)),
        None => refuse("it is no auditor's turn"),
    }
}

/// U-4.2: the auditor commits to its result.
fn promise(host: &mut dyn Host, caller: Address, word: &B256, commitment: B256) -> Outcome<()> {
    let (log, mut audit, attempt) = turn_now(host, word)?;
    let turn = load_turn(host, word)?;
    require(turn.attempt != attempt + 1, "the auditor has committed already")?;
    require(!commitment.is_zero(), "nothing is committed to")?;
    let drawn = auditor(host, word, &log, &audit, attempt)?;
    let Some((_, key)) = drawn.filter(|(auditor, _)| *auditor == caller) else {
        return refuse("the caller was not drawn as auditor");
    };
    let at = slot(tag::TURN, &[word.as_slice()]);
    host.store_word(at, commitment)?;
    host.store_address(at.after(1), caller)?;
    host.store_word(at.after(2), key)?;
    host.store_quarters(at.after(4), [attempt + 1, host.surroundings().number, 0, 0])?;
    audit.status = status::COMMITTED;
    store_progress(host, word, &audit)?;
    host.emit(AUDITS, &IAudits::Committed { id: *word, auditor: caller, commitment })
}

fn state_digest(word: &B256) -> Digest {
    Digest(word.0)
}

/// U-4.3: the auditor says what it committed to.
fn tell(host: &mut dyn Host, caller: Address, reveal: &IAudits::revealCall) -> Outcome<()> {
    let word = &reveal.id;
    let (_, mut audit, attempt) = turn_now(host, word)?;
    let turn = load_turn(host, word)?;
    require(turn.attempt == attempt + 1, "nobody has committed in this attempt")?;
    require(turn.auditor == caller, "the caller is not the auditor that committed")?;
    require(turn.height < host.surroundings().number, "a result is revealed in a later block")?;
    host.charge(GAS_HASH + 3 * GAS_HASH_WORD)?;
    let found = state_digest(&reveal.stateDigest);
    let expected = audit_commitment(&PublicKey(turn.key.0), &reveal.salt.0, &found);
    require(expected.0 == turn.commitment.0, "that is not what the auditor committed to")?;
    host.store_word(slot(tag::TURN, &[word.as_slice()]).after(3), reveal.stateDigest)?;
    audit.status = status::REVEALED;
    audit.revealed_in = host.surroundings().epoch;
    store_progress(host, word, &audit)?;
    let Id { operator, epoch, .. } = Id::from_word(word);
    standing::change_counts(host, operator, epoch, |counts| {
        counts.revealed = counts.revealed.saturating_add(1);
    })?;
    host.emit(AUDITS, &IAudits::Revealed { id: *word, auditor: caller, stateDigest: reveal.stateDigest })
}

/// U-5: the audited side opens its commitment, and the two results are compared.
fn compare(host: &mut dyn Host, answer: &IAudits::answerCall) -> Outcome<()> {
    let word = &answer.id;
    let Id { operator, epoch, .. } = Id::from_word(word);
    let mut audit = load_audit(host, word)?;
    require(audit.status == status::REVEALED, "no auditor's result waits for an answer")?;
    let log = load_log(host, operator, epoch)?;
    let now = host.surroundings().epoch;
    require(now <= audit.revealed_in.saturating_add(log.step), "it is too late to answer")?;
    host.charge(GAS_HASH + 3 * GAS_HASH_WORD)?;
    let claimed = state_digest(&answer.stateDigest);
    let opened = state_commitment(&PublicKey(audit.worker.0), &answer.salt.0, &claimed);
    require(opened.0 == audit.commitment.0, "that does not open the receipt's state commitment")?;
    standing::change_counts(host, operator, epoch, |counts| {
        counts.answered = counts.answered.saturating_add(1);
    })?;
    let turn = load_turn(host, word)?;
    let mut standing = standing::load(host, operator)?;
    let agreed = turn.found == answer.stateDigest;
    audit.status = if agreed { status::PASSED } else { status::DIFFERING };
    store_progress(host, word, &audit)?;
    if !agreed {
        // U-5.3: recorded, and nothing else: an auditor's word costs nobody anything.
        standing.differing = standing.differing.saturating_add(1);
        standing::store(host, operator, &standing)?;
        let (found, claimed) = (turn.found, answer.stateDigest);
        return host.emit(AUDITS, &IAudits::Differing { id: *word, auditor: turn.auditor, found, claimed });
    }
    standing.passed = standing.passed.saturating_add(1);
    standing.score = standing.score.saturating_add(1);
    standing.missed_since = 0;
    standing::store(host, operator, &standing)?;
    let paid = fee(host, operator, epoch, &log, audit.charge)?;
    if !paid.is_zero() {
        let at = slot(tag::POOL, &[operator.as_slice()]);
        let pool = host.load(at)?;
        host.store(at, checked(pool.checked_sub(paid))?)?;
        host.pay(AUDITS, turn.auditor, paid)?;
    }
    host.emit(AUDITS, &IAudits::Passed { id: *word, auditor: turn.auditor, paid })
}

/// U-7.2: what the receipt's charge brings its operator's pool, over the share of receipts that are audited; at most what
/// is in the pool.
fn fee(host: &mut dyn Host, operator: Address, epoch: u64, log: &Log, charge: u128) -> Outcome<U256> {
    let pool = host.load(slot(tag::POOL, &[operator.as_slice()]))?;
    let drawn = log.drawing(host, operator, epoch)?.count().max(1);
    let share = U256::from(charge).saturating_mul(U256::from(host.params().auditors_bps));
    let each = U256::from(log.stands_for(drawn));
    Ok((share.saturating_mul(each) / U256::from(WHOLE_BPS)).min(pool))
}

fn shown(host: &mut dyn Host, word: &B256) -> Outcome<IAudits::Audit> {
    let Id { operator, epoch, .. } = Id::from_word(word);
    let audit = load_audit(host, word)?;
    let turn = load_turn(host, word)?;
    let now = host.surroundings().epoch;
    let mut shown = IAudits::Audit {
        status: u8::try_from(audit.status).unwrap_or(u8::MAX),
        index: audit.index,
        receipt: audit.receipt,
        worker: audit.worker,
        model: audit.model,
        stateCommitment: audit.commitment,
        evidence: audit.evidence,
        charge: audit.charge,
        disclosedIn: audit.disclosed_in,
        due: 0,
        auditor: Address::ZERO,
        auditorKey: B256::ZERO,
        commitment: B256::ZERO,
        found: B256::ZERO,
    };
    if matches!(audit.status, status::NONE | status::EMPTY | status::CONFIDENTIAL) {
        return Ok(shown);
    }
    let log = load_log(host, operator, epoch)?;
    let mut committed = true;
    match audit.status {
        status::DISCLOSED | status::COMMITTED => {
            let Some(attempt) = attempt_at(&log, &audit, now) else { return Ok(shown) };
            let ends = attempt.saturating_add(1).saturating_mul(log.step);
            shown.due = audit.disclosed_in.saturating_add(ends);
            committed = turn.attempt == attempt + 1;
            if !committed {
                shown.status = status::DISCLOSED as u8;
                if let Some((drawn, key)) = auditor(host, word, &log, &audit, attempt)? {
                    (shown.auditor, shown.auditorKey) = (drawn, key);
                }
            }
        }
        status::REVEALED => shown.due = audit.revealed_in.saturating_add(log.step),
        _ => {}
    }
    if committed {
        (shown.auditor, shown.auditorKey) = (turn.auditor, turn.key);
        (shown.commitment, shown.found) = (turn.commitment, turn.found);
    }
    Ok(shown)
}
