//! Place: finds a worker that accepts an order.
//!
//! In:     what is wanted, how far it is already, who has failed at it.
//! Out:    a leg: a session that has been accepted. Or why nobody takes it.
//! Touches: the network, through `client`.
//! Holds:  a worker that does not answer soon does not hold the order up: the next is asked beside it, and the first to accept
//!         has it.
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
use surety_client::{OrderOptions, Session, SessionError, SessionEvent};
use surety_net::CloseCode;
use surety_types::{
    ModelId, Order, Price, PublicKey, Request, Sampling, SecretKey, Seed, Signed, order::ORDER_VERSION,
};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::info;

use super::{course::Position, failure};
use crate::{
    api::unix_ms,
    error::{ApiError, Code},
    route::{Candidate, Demand, Held, Resolved, Timing, Worker, Workers, chain, preferences::Preferences},
};

/// How long one worker may take to accept before another is asked beside it.
const ACCEPTANCE_PATIENCE: Duration = Duration::from_millis(300);
/// A worker may be silent for so many times longer before it accepts: it may have to tokenise a long prompt.
const ACCEPTANCE_STALLS: u32 = 10;
/// Between two rounds of asking for somebody who goes on with a broken answer.
const SEARCH_PAUSE: Duration = Duration::from_millis(100);
/// Where all refuse for want of room, they are asked again after this …
const ROOM_PAUSE: Duration = Duration::from_millis(600);
/// … for so long.
const ROOM_SEARCH: Duration = Duration::from_secs(4);
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
}

/// One answer, or the rest of it, to be ordered.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) request: Arc<Request>,
    pub(super) choice: u32,
    pub(super) nonce: [u8; 32],
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
    /// Workers that broke it off.
    pub(super) breaks: u32,
}

/// An order that a worker has accepted.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) id: u64,
    pub(super) session: Session,
    pub(super) worker: Arc<Worker>,
    _held: Held,
    /// Where it began, and where it is.
    pub(super) from: Position,
    pub(super) at: Position,
    pub(super) prompt_tokens: u32,
    pub(super) max_output_tokens: u32,
    pub(super) paid: bool,
    pub(super) timing: Timing,
    /// When another worker is asked beside it, unless its first token is here.
    pub(super) hedge_at: Option<Instant>,
}

impl Leg {
    pub(super) fn worker(&self) -> PublicKey {
        self.worker.key()
    }
}

/// Why one worker did not take an order.
enum Declined {
    /// Another may.
    ByThisWorker(ApiError),
    /// It was not there, or fell silent: it or another may be there soon.
    Gone(ApiError),
    /// All would.
    ByAll(ApiError),
}

/// Finds a worker; returns when it has accepted.
pub(super) async fn place(desk: Arc<Desk>, placement: Placement) -> Result<Leg, ApiError> {
    let Placement { wanted, context_tokens_min, from, mut without, never, breaks } = placement;
    without.extend(&never);
    let preferences = match without.first() {
        Some(began) => desk.preferences.begun_by(began),
        None => Cow::Borrowed(&desk.preferences),
    };
    let began = Instant::now();
    let give_up = began + desk.search;
    // Whom those refuse who are there is told so at once; an answer under way is not given up so soon.
    let mut search = breaks > 0;
    // A first break says nothing of the next worker.
    let slow = breaks.saturating_sub(1).min(16) as i32;
    let stall = desk.stall.mul_f32(1.5_f32.powi(slow)).min(STALL_MAX.max(desk.stall));
    let mut last = None;
    loop {
        let demand = Demand {
            model: &desk.model,
            preferences: &preferences,
            max_output_tokens: wanted.limit.or(desk.max_output_tokens),
            context_tokens_min,
            without: &without,
            affinity: desk.affinity,
            orders: 1,
        };
        match desk.workers.candidates(&demand) {
            Ok(candidates) => match ask(&desk, &wanted, from, stall, candidates.into()).await {
                Ok(leg) => return Ok(leg),
                Err(Declined::ByAll(error)) => return Err(error),
                Err(Declined::ByThisWorker(error)) => last = Some(error),
                Err(Declined::Gone(error)) => {
                    search = true;
                    last = Some(error);
                }
            },
            Err(error) => {
                last.get_or_insert(error);
            }
        }
        // Who has no room now, or is leaving, may be followed by another before long.
        let no_room = last.as_ref().is_some_and(|error| error.code() == Code::Overloaded);
        let room_by = give_up.min(began + ROOM_SEARCH);
        if !search && no_room && Instant::now() + ROOM_PAUSE < room_by {
            sleep(ROOM_PAUSE).await;
            continue;
        }
        if !search || Instant::now() >= give_up {
            return Err(last.unwrap_or_else(|| ApiError::bug("nobody was asked, and nobody missed")));
        }
        // Who failed may be back.
        without.clone_from(&never);
        sleep(SEARCH_PAUSE).await;
    }
}

/// Asks one after the other, and does not wait long before the next.
async fn ask(
    desk: &Arc<Desk>,
    wanted: &Wanted,
    from: Position,
    stall: Duration,
    mut candidates: VecDeque<Candidate>,
) -> Result<Leg, Declined> {
    let mut offers = FuturesUnordered::new();
    let mut last = None;
    loop {
        if offers.is_empty() {
            let Some(next) = candidates.pop_front() else { break };
            offers.push(offer(desk, wanted, from, stall, next));
        }
        let next_at = Instant::now() + ACCEPTANCE_PATIENCE;
        tokio::select! {
            Some(answer) = offers.next() => match answer {
                Ok(leg) => return Ok(leg),
                Err(declined @ (Declined::ByThisWorker(_) | Declined::Gone(_))) => last = Some(declined),
                Err(all) => return Err(all),
            },
            () = sleep_until(next_at), if !candidates.is_empty() => {
                if let Some(next) = candidates.pop_front() {
                    offers.push(offer(desk, wanted, from, stall, next));
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
    stall: Duration,
    candidate: Candidate,
) -> Result<Leg, Declined> {
    let Candidate { worker, context_tokens, terms } = candidate;
    let order =
        order(desk, wanted, context_tokens, terms.as_ref().map(|terms| (&terms.price, terms.channel.id())))
            .map_err(Declined::ByAll)?;
    let held = worker.hold(1);
    let options = OrderOptions {
        stall,
        acceptance: desk.stall * ACCEPTANCE_STALLS,
        context_tokens: Some(context_tokens),
    };
    let (request, resumed) = ((*wanted.request).clone(), wanted.resumed.clone());
    let mut timing = Timing::start(&worker);
    let paying = terms.zip(desk.workers.payer().cloned());
    let paid = paying.is_some();
    let session = match paying {
        Some((terms, payer)) => {
            let purse = payer.purse(&terms.channel, order.digest());
            worker.connection.order_paid(order, request, resumed, options, purse).await
        }
        None => worker.connection.order(order, request, resumed, options).await,
    };
    let mut session = session.map_err(|error| {
        timing.failed(&error);
        declined(&worker, &error)
    })?;
    let event = session.next().await;
    timing.saw(&event);
    match event {
        Ok(SessionEvent::Accepted(acceptance)) => Ok(Leg {
            id: NEXT_LEG.fetch_add(1, Ordering::Relaxed),
            hedge_at: Some(Instant::now() + timing.first_token_patience()),
            session,
            worker,
            _held: held,
            from,
            at: from,
            prompt_tokens: acceptance.prompt_tokens,
            max_output_tokens: acceptance.max_output_tokens,
            paid,
            timing,
        }),
        Ok(SessionEvent::Refused(refusal)) => {
            let code = refusal.receipt.failure().map(|(code, _)| code);
            let error = failure::refused(worker.key(), &refusal);
            info!(worker = worker.key().short(), code = error.code().as_str(), "worker passed over");
            Err(match code.is_some_and(|code| code.is_retryable()) {
                true => Declined::ByThisWorker(error),
                false => Declined::ByAll(error),
            })
        }
        Ok(_) => {
            let message = "The worker sent output before it accepted the order.";
            Err(Declined::ByThisWorker(failure::told(worker.key(), Code::WorkerBadOutput, message)))
        }
        Err(error) => Err(declined(&worker, &error)),
    }
}

/// Tells legs apart.
static NEXT_LEG: AtomicU64 = AtomicU64::new(0);

/// A failure before the worker had accepted.
fn declined(worker: &Worker, error: &SessionError) -> Declined {
    let told = failure::failed(worker.key(), error);
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
        _ => Declined::ByThisWorker(told),
    }
}

/// Until a worker that cannot be reached is heard again, nobody else need try.
pub(super) fn gone(worker: &Worker, error: &SessionError) {
    if let SessionError::Unreachable { .. } | SessionError::WorkerLost { .. } = error {
        worker.lost(chain(error));
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
    };
    Signed::try_sign(order, &desk.key)
        .map_err(|invalid| ApiError::invalid(invalid.field, format!("{invalid}.")))
}
