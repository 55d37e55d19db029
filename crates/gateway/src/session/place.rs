//! Place: finds a worker that accepts an order.
//!
//! In:     what is wanted, how far it is already, who has failed at it.
//! Out:    a leg: a session that has been accepted. Or why nobody takes it.
//! Touches: the network, through `client`.
//! Holds:  a worker that does not answer soon does not hold the order up: the next is asked beside it, and the first to accept
//!         has it. Where somebody waits for more of an answer, two are asked from the beginning.
//! Absent: what becomes of it then (`session`).

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use surety_client::{OrderOptions, Refusal, Session, SessionError, SessionEvent};
use surety_net::CloseCode;
use surety_types::{
    Answer, FailureCode, ModelId, Order, Price, PublicKey, Request, Sampling, SecretKey, Seed, Signed, What,
    order::ORDER_VERSION,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::info;

use super::{course::Position, failure};
use crate::{
    api::unix_ms,
    error::{ApiError, Code},
    journal::trail::Trail,
    keys::hold::{HeldFor, Hold, LegHold, charge_max, worst_charge},
    payer::Payer,
    route::{Candidate, Demand, Held, Resolved, Timing, Worker, Workers, chain, preferences::Preferences},
    streams::{Entry, StreamLog},
};

/// It is noted if nobody takes an order for so long.
const SLOW: Duration = Duration::from_secs(1);
/// How long one worker may take to accept before another is asked beside it.
const ACCEPTANCE_PATIENCE: Duration = Duration::from_millis(300);
/// The same where somebody waits for more of an answer, and how many are asked at once then.
const HURRIED_PATIENCE: Duration = Duration::from_millis(150);
const HURRIED_AT_ONCE: usize = 2;
/// How long whoever has accepted may then take to its first token, at most, before another is asked beside it.
const HURRIED_TOKEN_PATIENCE: Duration = Duration::from_millis(500);
/// A worker may be silent for so many times longer before it accepts: it may have to tokenise a long prompt.
const ACCEPTANCE_STALLS: u32 = 10;
/// Between two rounds of asking for somebody who goes on with a broken answer.
const SEARCH_PAUSE: Duration = Duration::from_millis(100);
/// An order that nobody has begun waits so long at most for somebody with room …
const ROOM_SEARCH: Duration = Duration::from_secs(2);
/// … and they are asked again after this, and then after twice as long each time.
const ROOM_PAUSE: Duration = Duration::from_millis(500);
/// A worker on a busy machine may be silent for longer: each further break makes this side more patient, up to this.
const STALL_MAX: Duration = Duration::from_secs(10);

/// What all orders of one request have in common.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) workers: Arc<Workers>,
    /// Signs the orders.
    pub(crate) key: SecretKey,
    pub(crate) model: Resolved,
    pub(crate) preferences: Preferences,
    /// The same of whoever computes an answer again, to have it compared; none where that is not wanted.
    pub(crate) checking: Option<Preferences>,
    pub(crate) sampling: Sampling,
    pub(crate) seed: Seed,
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) ignore_end: bool,
    /// Unix milliseconds.
    pub(crate) deadline_ms: u64,
    /// For a worker to say something.
    pub(crate) stall: Duration,
    /// For somebody to be found who goes on with a broken answer.
    pub(crate) search: Duration,
    /// Of the request's beginning: who has it computed already has less to do.
    pub(crate) affinity: Option<u64>,
    /// What is set aside for the orders.
    pub(crate) hold: Arc<Hold>,
    /// Only the prompt is to be counted: nothing is paid, so nothing is computed for money.
    pub(crate) counts: bool,
    /// Where it is noted what becomes of the orders.
    pub(crate) trail: Trail,
}

/// One answer, or the rest of it, to be ordered.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) request: Arc<Request>,
    pub(super) choice: u32,
    pub(super) nonce: [u8; 32],
    /// It is to be compared with the answer, and not given to the caller.
    pub(super) check: bool,
    /// What of it is there already.
    pub(super) resumed: Vec<u32>,
    /// Output tokens after those, at most, if that is settled.
    pub(super) limit: Option<u32>,
}

/// What is wanted, and of whom.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) wanted: Wanted,
    /// Positions that the worker must hold.
    pub(super) context_tokens_min: Option<u32>,
    pub(super) from: Position,
    /// Who is asked only where nobody else is left …
    pub(super) without: Vec<PublicKey>,
    /// … and who is not asked at all.
    pub(super) never: Vec<PublicKey>,
    /// Nor is anyone of the same operator as these.
    pub(super) apart: Vec<PublicKey>,
    /// Workers that broke it off, and those of them that fell silent.
    pub(super) breaks: u32,
    pub(super) stalls: u32,
    /// Somebody is at it still.
    pub(super) beside: bool,
}

/// An order that a worker has accepted.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) id: u64,
    pub(super) session: Session,
    pub(super) worker: Arc<Worker>,
    _held: Held,
    /// What is set aside for it.
    pub(super) hold: LegHold,
    /// Where it began, and where it is.
    pub(super) from: Position,
    pub(super) at: Position,
    pub(super) prompt_tokens: u32,
    pub(super) max_output_tokens: u32,
    pub(super) paid: bool,
    /// Who pays, if somebody does.
    pub(super) payer: Option<Arc<Payer>>,
    pub(super) timing: Timing,
    /// When another worker is asked beside it, unless its first token is here; and how long that was to wait.
    pub(super) hedge_at: Option<Instant>,
    token_patience: Duration,
    /// How long it may be silent before another is asked beside it.
    pub(super) silence: Duration,
    /// It fell silent in mid-answer, and another was asked: a sign of life counts.
    pub(super) raced: bool,
    /// Where what it signs for is kept, and how much of it is there.
    pub(super) log: Option<LegLog>,
    /// When it was begun to seek a worker, and when this one had accepted.
    pub(super) sought: Instant,
    pub(super) accepted: Instant,
}

/// What of a leg is kept.
#[derive(Debug)]
pub(super) struct LegLog {
    pub(super) log: StreamLog,
    pub(super) kept: Position,
}

impl Leg {
    /// Keeps what it has signed for since the last time.
    pub(super) fn keep_signed(&mut self) {
        let Some(LegLog { log, kept }) = &mut self.log else { return };
        let Some((progress, ids, text)) = self.session.signed() else { return };
        let now = Position { tokens: ids.len(), text: text.len() };
        if now != *kept {
            log.keep(Entry::Signed {
                message: progress.to_vec(),
                is_receipt: false,
                first: kept.tokens as u32,
                ids: ids[kept.tokens..].to_vec(),
                text: text[kept.text..].to_owned(),
            });
            *kept = now;
        }
    }

    pub(super) fn worker(&self) -> PublicKey {
        self.worker.key()
    }

    /// It ended without a receipt, and not by this side: what was accepted and paid for is claimed in time.
    pub(super) fn unreceipted(&self) {
        if let (Some(payer), Some(answer)) = (&self.payer, self.session.so_far()) {
            payer.breached(&answer);
        }
    }

    /// When another worker is asked beside it, if it says nothing, or no token, until then.
    pub(super) fn patience_ends(&self) -> Instant {
        let silent = self.session.heard_at().max(self.accepted) + self.silence;
        self.hedge_at.map_or(silent, |hedge_at| hedge_at.min(silent))
    }

    /// Its first token is late: it is waited for twice as long from now.
    pub(super) fn wait_longer(&mut self, now: Instant) {
        if self.hedge_at.is_some_and(|hedge_at| hedge_at <= now) {
            self.token_patience *= 2;
            self.hedge_at = Some(now + self.token_patience);
        }
    }

    /// Whether it says nothing at all.
    pub(super) fn is_silent(&self) -> bool {
        self.session.heard_at().max(self.accepted).elapsed() >= self.silence
    }

    /// What it has signed for: where it broke off, if it breaks off now.
    pub(super) fn signed(&self) -> (Position, Option<Answer>) {
        let answer = self.session.so_far();
        let (tokens, text) =
            answer.as_ref().map_or((0, 0), |answer| (answer.output_ids.len(), answer.text.len()));
        (Position { tokens: self.from.tokens + tokens, text: self.from.text + text }, answer)
    }
}

/// Why one worker did not take an order.
enum Declined {
    /// Another may.
    ByThisWorker(ApiError),
    /// It was not there, or fell silent: it or another may be there soon.
    Gone(ApiError),
    /// It has no room, or is leaving: there may be room soon.
    NoRoom(ApiError),
    /// All would.
    ByAll(ApiError),
}

impl Declined {
    /// The greater, the more there is to gain by asking again.
    fn hope(&self) -> u8 {
        match self {
            Declined::ByAll(_) => 0,
            Declined::ByThisWorker(_) => 1,
            Declined::NoRoom(_) => 2,
            Declined::Gone(_) => 3,
        }
    }
}

/// Whether anybody could answer, and anybody of another operator compute the same. Nobody is asked.
pub(super) fn has_others(desk: &Desk) -> Result<(), ApiError> {
    let Some(checking) = &desk.checking else { return Ok(()) };
    let demand = Demand {
        model: &desk.model,
        preferences: &desk.preferences,
        max_output_tokens: desk.max_output_tokens,
        context_tokens_min: None,
        without: &[],
        apart: &[],
        affinity: desk.affinity,
        orders: 1,
        trail: Some(&desk.trail),
    };
    desk.workers.has_others(&demand, checking).map(drop)
}

/// Finds a worker; returns when it has accepted.
pub(super) async fn place(desk: Arc<Desk>, placement: Placement) -> Result<Leg, ApiError> {
    let Placement { wanted, context_tokens_min, from, mut without, never, apart, breaks, stalls, beside } =
        placement;
    without.extend(&never);
    let wished = desk.checking.as_ref().filter(|_| wanted.check).unwrap_or(&desk.preferences);
    let preferences = match without.first() {
        Some(began) => wished.begun_by(began),
        None => Cow::Borrowed(wished),
    };
    let began = Instant::now();
    let give_up = began + desk.search;
    // Whom those refuse who are there is told so soon; an answer under way is not given up so easily.
    let mut search = breaks > 0 && !beside;
    let mut room_pause = ROOM_PAUSE;
    // A first silence says nothing of the next worker.
    let patience = 1.5_f32.powi(stalls.saturating_sub(1).min(16) as i32);
    let stall = desk.stall.mul_f32(patience).min(STALL_MAX.max(desk.stall));
    let manner = Manner { hurried: breaks > 0 || beside, stall, patience, sought: began };
    let (mut last, mut no_room): (Option<ApiError>, bool) = (None, false);
    loop {
        let apart = desk.workers.kin(&apart);
        let demand = Demand {
            model: &desk.model,
            preferences: &preferences,
            max_output_tokens: wanted.limit.or(desk.max_output_tokens),
            context_tokens_min,
            without: &without,
            apart: &apart,
            affinity: desk.affinity,
            orders: 1,
            trail: Some(&desk.trail),
        };
        match desk.workers.candidates(&demand) {
            Ok(candidates) => {
                match ask(&desk, &wanted, from, manner, &demand, &never, candidates.into()).await {
                    Ok(leg) => {
                        if let Some(before) = last.filter(|_| began.elapsed() >= SLOW) {
                            let ms = began.elapsed().as_millis() as u64;
                            info!(
                                worker = leg.worker().short(),
                                ms,
                                before = before.message(),
                                "nobody took an order for a while"
                            );
                        }
                        return Ok(leg);
                    }
                    Err(Declined::ByAll(error)) => return Err(error),
                    Err(Declined::ByThisWorker(error)) => last = Some(error),
                    Err(Declined::NoRoom(error)) => {
                        no_room = true;
                        last = Some(error);
                    }
                    Err(Declined::Gone(error)) => {
                        search = !beside;
                        last = Some(error);
                    }
                }
            }
            // Better somebody who failed before than nobody.
            Err(_) if without.len() > never.len() => {
                without.clone_from(&never);
                continue;
            }
            Err(error) => {
                last.get_or_insert(error);
            }
        }
        // What may wait for an idle worker waits where it holds nobody up.
        let (pause, until) = match (search, no_room && !beside && !desk.preferences.batch) {
            (true, _) => (SEARCH_PAUSE, give_up),
            (false, true) => (room_pause, give_up.min(began + ROOM_SEARCH)),
            (false, false) => (Duration::ZERO, began),
        };
        if Instant::now() + pause >= until {
            return Err(last.unwrap_or_else(|| ApiError::bug("nobody was asked, and nobody missed")));
        }
        if search {
            // Who failed may be back.
            without.clone_from(&never);
        } else {
            // A crowd that asks again and again takes up what room there is.
            room_pause *= 2;
        }
        sleep(pause).await;
    }
}

/// How workers are asked.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// Somebody waits for more of an answer.
    hurried: bool,
    /// How long whoever accepts may be silent, before it is given up …
    stall: Duration,
    /// … and how many times longer than usual, before another is asked beside it.
    patience: f32,
    /// Since when one is sought.
    sought: Instant,
}

/// Asks one after the other, and does not wait long before the next, who may have come only now.
async fn ask(
    desk: &Arc<Desk>,
    wanted: &Wanted,
    from: Position,
    manner: Manner,
    demand: &Demand<'_>,
    never: &[PublicKey],
    mut candidates: VecDeque<Candidate>,
) -> Result<Leg, Declined> {
    let mut offers = FuturesUnordered::new();
    let mut asked: Vec<PublicKey> = Vec::new();
    let ask = |next: Candidate, asked: &mut Vec<PublicKey>| {
        let key = next.worker.key();
        asked.push(key);
        async move { (key, offer(desk, wanted, from, manner, next).await) }
    };
    let mut last = None;
    let (patience, at_once) = match manner.hurried {
        true => (HURRIED_PATIENCE, HURRIED_AT_ONCE),
        false => (ACCEPTANCE_PATIENCE, 1),
    };
    loop {
        while offers.len() < at_once
            && let Some(next) = candidates.pop_front()
        {
            offers.push(ask(next, &mut asked));
        }
        if offers.is_empty() {
            break;
        }
        let next_at = Instant::now() + patience;
        tokio::select! {
            Some((key, answer)) = offers.next() => {
                asked.retain(|other| *other != key);
                match answer {
                    Ok(leg) => return Ok(leg),
                    Err(all @ Declined::ByAll(_)) => return Err(all),
                    // Whoever leaves most to hope for is told of.
                    Err(declined) if last.as_ref().is_none_or(|last: &Declined| last.hope() <= declined.hope()) => {
                        last = Some(declined);
                    }
                    Err(_) => {}
                }
            }
            () = sleep_until(next_at) => {
                if candidates.is_empty() {
                    // Who failed before may be back, and those who are asked may never answer.
                    let others = [demand.without, never].into_iter().find_map(|without| {
                        let without = [without, &asked].concat();
                        desk.workers.candidates(&Demand { without: &without, ..*demand }).ok()
                    });
                    candidates = others.unwrap_or_default().into();
                }
                if let Some(next) = candidates.pop_front() {
                    offers.push(ask(next, &mut asked));
                }
            }
        }
    }
    let nobody = || ApiError::new(Code::NoWorker, "No worker is ready to answer. Try again shortly.");
    Err(last.unwrap_or_else(|| Declined::ByThisWorker(nobody())))
}

/// Asks one worker.
async fn offer(
    desk: &Arc<Desk>,
    wanted: &Wanted,
    from: Position,
    manner: Manner,
    candidate: Candidate,
) -> Result<Leg, Declined> {
    let Candidate { worker, context_tokens, region, terms } = candidate;
    let price = terms.as_ref().map_or(Price::ZERO, |terms| terms.price);
    let output_tokens = wanted.limit.or(desk.max_output_tokens);
    let worst = worst_charge(&wanted.request, wanted.resumed.len(), output_tokens, context_tokens, &price);
    // Somebody cheaper may be within the budget.
    let hold = desk
        .hold
        .leg(HeldFor { nonce: wanted.nonce, check: wanted.check }, worst)
        .map_err(Declined::ByThisWorker)?;
    let order =
        order(desk, wanted, context_tokens, terms.as_ref().map(|terms| (&terms.price, terms.channel.id())))
            .map_err(Declined::ByAll)?;
    let held = worker.hold(1);
    let digest = order.digest();
    let noted = |what, why: String| desk.trail.noted(what, worker.key(), Some(digest), from.tokens, why);
    noted(What::Ordered, if wanted.check { "to be compared with the answer" } else { "" }.to_owned());
    let options = OrderOptions {
        stall: manner.stall,
        acceptance: desk.stall * ACCEPTANCE_STALLS,
        context_tokens: Some(context_tokens),
        arithmetic: Some(desk.model.arithmetic),
        region,
    };
    let (request, resumed) = ((*wanted.request).clone(), wanted.resumed.clone());
    let mut timing = Timing::start(&worker);
    let paying = terms.zip(desk.workers.payer().cloned());
    let paid = paying.is_some() && !desk.counts;
    let payer = paying.as_ref().filter(|_| paid).map(|(_, payer)| Arc::clone(payer));
    let session = match paying {
        Some((terms, _)) if desk.counts => {
            let purse = terms.channel.empty_purse();
            worker.connection.order_paid(order, request, resumed, options, purse).await
        }
        Some((terms, payer)) => {
            let purse = payer.purse(&terms.channel, order.digest());
            worker.connection.order_paid(order, request, resumed, options, purse).await
        }
        None => worker.connection.order(order, request, resumed, options).await,
    };
    let mut session = session.map_err(|error| {
        timing.failed(&error);
        noted(What::Declined, chain(&error));
        declined(&worker, &error)
    })?;
    let event = match timeout(ACCEPTANCE_PATIENCE, session.next()).await {
        Ok(event) => event,
        Err(_) => {
            worker.doubt();
            session.next().await
        }
    };
    // That a worker is not idle says nothing of how much it can take.
    if !(desk.preferences.batch
        && matches!(&event, Ok(SessionEvent::Refused(refusal)) if has_no_room(refusal)))
    {
        timing.saw(&event);
    }
    match event {
        Ok(SessionEvent::Accepted(acceptance)) => {
            // Now the prompt is counted.
            hold.set(charge_max(&price, acceptance.prompt_tokens, acceptance.max_output_tokens))
                .map_err(Declined::ByThisWorker)?;
            noted(What::Accepted, String::new());
            let (accepted, patience) = (Instant::now(), timing.first_token_patience());
            let token_patience = if manner.hurried { patience.min(HURRIED_TOKEN_PATIENCE) } else { patience };
            Ok(Leg {
                id: NEXT_LEG.fetch_add(1, Ordering::Relaxed),
                hedge_at: Some(accepted + token_patience),
                token_patience,
                silence: worker.silence().mul_f32(manner.patience),
                raced: false,
                log: None,
                sought: manner.sought,
                accepted,
                session,
                worker,
                _held: held,
                hold,
                from,
                at: from,
                prompt_tokens: acceptance.prompt_tokens,
                max_output_tokens: acceptance.max_output_tokens,
                paid,
                payer,
                timing,
            })
        }
        Ok(SessionEvent::Refused(refusal)) => {
            let code = refusal.receipt.failure().map(|(code, _)| code);
            let error = failure::refused(worker.key(), &refusal);
            let why = refusal.receipt.failure().map(|(code, message)| format!("{code}: {message}"));
            noted(What::Declined, why.unwrap_or_default());
            desk.trail.signed(digest, &refusal.answer, Some(refusal.receipt.bytes()));
            info!(worker = worker.key().short(), code = error.code().as_str(), "worker passed over");
            leaves(&worker, &refusal);
            Err(match code {
                _ if has_no_room(&refusal) => Declined::NoRoom(error),
                Some(code) if code.is_retryable() => Declined::ByThisWorker(error),
                _ => Declined::ByAll(error),
            })
        }
        Ok(_) => {
            let message = "The worker sent output before it accepted the order.";
            noted(What::Declined, message.to_owned());
            Err(Declined::ByThisWorker(failure::told(worker.key(), Code::WorkerBadOutput, message)))
        }
        Err(error) => {
            noted(What::Declined, chain(&error));
            Err(declined(&worker, &error))
        }
    }
}

/// Tells legs apart.
static NEXT_LEG: AtomicU64 = AtomicU64::new(0);

/// A failure before the worker had accepted.
fn declined(worker: &Worker, error: &SessionError) -> Declined {
    let told = failure::failed(worker.key(), error);
    info!(worker = worker.key().short(), why = chain(error), "worker passed over");
    if !error.is_retryable() {
        return Declined::ByAll(told);
    }
    gone(worker, error);
    match error {
        SessionError::Unreachable { .. }
        | SessionError::WorkerLost { .. }
        | SessionError::Stalled { .. }
        | SessionError::BrokenOff { code: CloseCode::ShuttingDown | CloseCode::Done, .. } => {
            Declined::Gone(told)
        }
        SessionError::BrokenOff { code: CloseCode::Busy, .. } => Declined::NoRoom(told),
        _ => Declined::ByThisWorker(told),
    }
}

/// Until a worker that cannot be reached is heard again, nobody else need try.
pub(super) fn gone(worker: &Worker, error: &SessionError) {
    match error {
        SessionError::Unreachable { .. } | SessionError::WorkerLost { .. } => worker.lost(chain(error)),
        // It may be there all the same.
        SessionError::Stalled { .. } | SessionError::BrokenOff { .. } => worker.doubt(),
        _ => {}
    }
}

fn has_no_room(refusal: &Refusal) -> bool {
    let code = refusal.receipt.failure().map(|(code, _)| code);
    matches!(code, Some(FailureCode::Overloaded | FailureCode::OutOfMemory | FailureCode::Leaving))
}

/// Who signs that it leaves is not asked again until it says that it serves.
pub(super) fn leaves(worker: &Worker, refusal: &Refusal) {
    if let Some((FailureCode::Leaving, _)) = refusal.receipt.failure() {
        worker.leaves();
    }
}

fn order(
    desk: &Desk,
    wanted: &Wanted,
    context_tokens: u32,
    paid: Option<(&Price, surety_types::Digest)>,
) -> Result<Signed<Order>, ApiError> {
    let issued_ms = unix_ms();
    if desk.deadline_ms <= issued_ms {
        let message = "The answer was not whole by its deadline. Ask for fewer tokens, or give it longer by \
                       `surety.deadline_ms`.";
        return Err(ApiError::new(Code::Deadline, message));
    }
    let model: ModelId = desk.model.id;
    let order = Order {
        version: ORDER_VERSION,
        model,
        request_digest: wanted.request.digest(),
        nonce: wanted.nonce,
        seed: desk.seed,
        choice: wanted.choice,
        sampling: desk.sampling.clone(),
        max_output_tokens: wanted.limit.or(desk.max_output_tokens).unwrap_or(context_tokens),
        ignore_end: desk.ignore_end,
        deadline_ms: desk.deadline_ms,
        price_ceiling: paid.map_or(Price::ZERO, |(price, _)| *price),
        channel: paid.map(|(_, channel)| channel),
        payer: desk.key.public(),
        issued_ms,
        resumed: surety_client::resumed_from(&wanted.resumed),
        disclosure: desk.preferences.disclosure,
    };
    Signed::try_sign(order, &desk.key)
        .map_err(|invalid| ApiError::invalid(invalid.field, format!("{invalid}.")))
}
