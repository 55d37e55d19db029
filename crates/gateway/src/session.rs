//! Session: one caller's request as orders to one worker, until every answer is there and checked.
//!
//! In:     what is asked; the workers that could answer.
//! Out:    pieces of answers as they come; at the end each answer with its checked receipt.
//! Touches: the network, through `client`.
//! Holds:  a worker that cannot take the request is passed over as long as none has begun; once one has accepted,
//!         its loss is an error that names it. Dropping a session cancels what is still running.
//! Absent: OpenAI's words (`api`), the checks themselves (`client`, `proof`).

use std::{collections::VecDeque, mem, pin::Pin, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use surety_client::{
    Completed, OrderOptions, Party, PurseError, Refusal, Session, SessionError, SessionEvent,
};
use surety_net::CloseCode;
use surety_types::{
    FailureCode, FinishReason, Order, Price, PublicKey, Request, SecretKey, Signed, TokenLogprob,
    order::ORDER_VERSION,
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    api::{ask::Ask, unix_ms},
    error::{Accountable, ApiError, Code},
    payer::{PayChannel, Payer},
    route::{Candidate, Demand, Held, Resolved, Timing, Worker, Workers, chain},
};

/// For the receipts of orders that were cancelled.
const LAST_RECEIPTS: Duration = Duration::from_secs(10);
/// Orders of one request that a worker has at once.
const ORDERS_AT_ONCE: usize = 16;

/// How orders are made out.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) key: &'a SecretKey,
    /// For the whole answer, unless the caller says otherwise.
    pub(crate) answer_timeout: Duration,
    /// For a worker to say something.
    pub(crate) stall_timeout: Duration,
}

/// Something that came of one of the answers.
#[derive(Debug)]
pub(crate) enum Event {
    /// A piece of its scored prompt, from this index.
    Prompt { first: usize, logprobs: Vec<TokenLogprob> },
    /// More of its text.
    Output { text: String, logprobs: Vec<TokenLogprob> },
    /// It is whole, and its receipt is checked.
    Finished(Finished),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `stop` or `length`.
    pub(crate) reason: &'static str,
    pub(crate) completed: Box<Completed>,
}

/// Orders that a worker has accepted.
pub(crate) struct Answering {
    worker: Arc<Worker>,
    options: OrderOptions,
    /// Who pays, and on which channel, if something is to be paid.
    paying: Option<(Arc<Payer>, Arc<PayChannel>)>,
    running: FuturesUnordered<Step>,
    waiting: VecDeque<(usize, Placed)>,
    /// Set when nobody wants the answers any more.
    leave: watch::Sender<bool>,
    held: Option<Held>,
}

/// An order and the request it is for.
struct Placed {
    order: Signed<Order>,
    request: Request,
}

type Step = Pin<Box<dyn Future<Output = Stepped> + Send>>;

struct Stepped {
    index: usize,
    session: Session,
    timing: Timing,
    event: Result<SessionEvent, SessionError>,
}

/// Why one worker did not take a request.
enum Declined {
    /// Another may.
    ByThisWorker(ApiError),
    /// All would.
    ByAll(ApiError),
}

/// Finds a worker for what is asked; returns when it has accepted.
pub(crate) async fn begin(
    workers: &Workers,
    terms: &Terms<'_>,
    ask: &Ask,
    model: &Resolved,
) -> Result<Answering, ApiError> {
    let demand = Demand {
        model,
        preferences: &ask.preferences,
        max_output_tokens: ask.max_output_tokens,
        context_tokens_min: None,
        without: &[],
        affinity: Some(ask.affinity()),
        orders: ask.answers() as u32,
    };
    let mut last = None;
    for candidate in workers.candidates(&demand)? {
        let worker = &candidate.worker;
        match offer(&candidate, workers.payer(), terms, ask, model).await {
            Ok(answering) => return Ok(answering),
            Err(Declined::ByAll(error)) => return Err(error),
            Err(Declined::ByThisWorker(error)) => {
                info!(worker = worker.key().short(), code = error.code().as_str(), "worker passed over");
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| ApiError::bug("nobody is a candidate")))
}

async fn offer(
    candidate: &Candidate,
    payer: Option<&Arc<Payer>>,
    terms: &Terms<'_>,
    ask: &Ask,
    model: &Resolved,
) -> Result<Answering, Declined> {
    let (worker, context_tokens) = (&candidate.worker, candidate.context_tokens);
    let options = OrderOptions { stall: terms.stall_timeout, context_tokens: Some(context_tokens) };
    let channel = candidate.terms.as_ref().map(|terms| Arc::clone(&terms.channel));
    let mut answering = Answering {
        worker: Arc::clone(worker),
        options,
        paying: payer.cloned().zip(channel),
        running: FuturesUnordered::new(),
        waiting: placed(terms, ask, model, candidate).map_err(Declined::ByAll)?,
        leave: watch::Sender::new(false),
        held: Some(worker.hold(ask.answers() as u32)),
    };
    let first = answering.waiting.len().min(ORDERS_AT_ONCE);
    for _ in 0..first {
        answering.place_next().await.map_err(|error| answering.declined(error))?;
    }
    let mut accepted = Vec::with_capacity(first);
    while let Some(Stepped { index, session, timing, event }) = answering.running.next().await {
        match event {
            Ok(SessionEvent::Accepted(_)) => accepted.push((index, session, timing)),
            Ok(SessionEvent::Refused(refusal)) => {
                let retryable = refusal.receipt.failure().is_some_and(|(code, _)| code.is_retryable());
                let error = refused(worker.key(), &refusal);
                return Err(if retryable { Declined::ByThisWorker(error) } else { Declined::ByAll(error) });
            }
            Ok(_) => {
                let message = "The worker sent output before it accepted the order.";
                return Err(Declined::ByThisWorker(told(worker.key(), Code::WorkerBadOutput, message)));
            }
            Err(error) => return Err(answering.declined(error)),
        }
    }
    accepted.into_iter().for_each(|(index, session, timing)| answering.go_on(index, session, timing));
    Ok(answering)
}

/// The orders for all answers, in order.
fn placed(
    terms: &Terms<'_>,
    ask: &Ask,
    model: &Resolved,
    candidate: &Candidate,
) -> Result<VecDeque<(usize, Placed)>, ApiError> {
    let (context_tokens, paid) = (candidate.context_tokens, candidate.terms.as_ref());
    let issued_ms = unix_ms();
    let patience_ms = ask.deadline_ms.unwrap_or(terms.answer_timeout.as_millis() as u64);
    let mut orders = VecDeque::with_capacity(ask.answers());
    for request in &ask.requests {
        let request_digest = request.digest();
        for choice in 0..ask.choices {
            let mut nonce = [0; 32];
            getrandom::fill(&mut nonce).map_err(|_| ApiError::bug("the random source failed"))?;
            let order = Order {
                version: ORDER_VERSION,
                model: model.id,
                request_digest,
                nonce,
                seed: ask.seed,
                choice,
                sampling: ask.sampling.clone(),
                max_output_tokens: ask.max_output_tokens.unwrap_or(context_tokens),
                ignore_end: ask.ignore_end,
                deadline_ms: issued_ms + patience_ms,
                price_ceiling: paid.map_or(Price::ZERO, |paid| paid.price),
                channel: paid.map(|paid| paid.channel.id()),
                payer: terms.key.public(),
                issued_ms,
            };
            let order = Signed::try_sign(order, terms.key)
                .map_err(|invalid| ApiError::invalid(invalid.field, format!("{invalid}.")))?;
            orders.push_back((orders.len(), Placed { order, request: request.clone() }));
        }
    }
    Ok(orders)
}

impl Answering {
    /// Who answers.
    pub(crate) fn worker(&self) -> PublicKey {
        self.worker.key()
    }

    /// Whether nothing is paid for the answers.
    pub(crate) fn is_free(&self) -> bool {
        self.paying.is_none()
    }

    /// What comes next, and of which answer; `None` when all are whole. May be cancelled.
    pub(crate) async fn next(&mut self) -> Option<Result<(usize, Event), ApiError>> {
        loop {
            let Stepped { index, session, timing, event } = self.running.next().await?;
            let event = match event {
                Ok(SessionEvent::Accepted(_)) => {
                    self.go_on(index, session, timing);
                    continue;
                }
                Ok(SessionEvent::Prompt { index: first, logprobs, .. }) => {
                    self.go_on(index, session, timing);
                    Event::Prompt { first: first as usize, logprobs }
                }
                Ok(SessionEvent::Tokens { text, logprobs, .. }) => {
                    self.go_on(index, session, timing);
                    Event::Output { text, logprobs }
                }
                Ok(SessionEvent::Finished(completed)) => {
                    if let Err(error) = self.place_next().await {
                        return Some(Err(self.failed(&error)));
                    }
                    match reason(completed.receipt.finish) {
                        Some(reason) => Event::Finished(Finished { reason, completed }),
                        None if session.payment_problem().is_some()
                            || completed.receipt.finish == FinishReason::Unpaid =>
                        {
                            return Some(Err(self.unpaid(session.payment_problem())));
                        }
                        None => {
                            let message = format!(
                                "The worker ended the answer as \"{:?}\", which nobody asked for. Send the request again.",
                                completed.receipt.finish,
                            );
                            return Some(Err(told(self.worker(), Code::WorkerBadOutput, message)));
                        }
                    }
                }
                Ok(SessionEvent::Refused(refusal)) => return Some(Err(refused(self.worker(), &refusal))),
                Err(error) => return Some(Err(self.failed(&error))),
            };
            return Some(Ok((index, event)));
        }
    }

    /// Gives the worker the next order that waits, if one does.
    async fn place_next(&mut self) -> Result<(), SessionError> {
        let Some((index, Placed { order, request })) = self.waiting.pop_front() else { return Ok(()) };
        let connection = &self.worker.connection;
        let timing = Timing::start(&self.worker);
        let session = match &self.paying {
            Some((payer, channel)) => {
                let purse = payer.purse(channel, order.digest());
                connection.order_paid(order, request, self.options, purse).await
            }
            None => connection.order(order, request, self.options).await,
        };
        let session = session.inspect_err(|error| timing.failed(error))?;
        self.go_on(index, session, timing);
        Ok(())
    }

    fn go_on(&self, index: usize, session: Session, timing: Timing) {
        self.running.push(Box::pin(step(index, session, timing, self.leave.subscribe())));
    }

    /// The answer could not be paid to its end.
    fn unpaid(&self, problem: Option<&PurseError>) -> ApiError {
        let worker = self.worker();
        let why = problem.map_or_else(|| "its vouchers did not come in time".to_owned(), ToString::to_string);
        warn!(worker = worker.short(), why, "an answer was not paid to its end");
        let message = format!(
            "The gateway could not go on paying worker {} ({why}). What came so far is not the whole answer. Send the \
             request again shortly.",
            worker.short(),
        );
        told(worker, Code::Overloaded, message).with_accountable(Accountable::Gateway)
    }

    /// A failure before the worker had accepted.
    fn declined(&self, error: SessionError) -> Declined {
        let told = self.failed(&error);
        if error.is_retryable() {
            if let SessionError::Unreachable { .. } | SessionError::WorkerLost { .. } = error {
                self.worker.lost(chain(&error));
            }
            Declined::ByThisWorker(told)
        } else {
            Declined::ByAll(told)
        }
    }

    fn failed(&self, error: &SessionError) -> ApiError {
        let worker = self.worker();
        warn!(worker = worker.short(), error = chain(error), "an answer failed");
        let short = worker.short();
        let (code, message) = match error {
            SessionError::Unreachable { .. } => (
                Code::WorkerLost,
                format!("Worker {short} cannot be reached ({}). Send the request again.", chain(error)),
            ),
            SessionError::BrokenOff { code: CloseCode::Busy, accepted: false, .. } => {
                (Code::Overloaded, format!("Worker {short} takes no more orders. Try again shortly."))
            }
            SessionError::WorkerLost { .. } | SessionError::BrokenOff { .. } => (
                Code::WorkerLost,
                format!(
                    "Worker {short} was lost before the answer was whole ({}). What came so far is not the whole \
                     answer. Send the request again.",
                    chain(error),
                ),
            ),
            SessionError::Stalled { .. } => (
                Code::WorkerStalled,
                format!("Worker {short} stopped answering ({}). Send the request again.", chain(error)),
            ),
            SessionError::DeadlineExceeded { .. } => (
                Code::Deadline,
                format!(
                    "The answer was not whole by its deadline ({}). Ask for fewer tokens, or give it longer by \
                     `surety.deadline_ms`.",
                    chain(error),
                ),
            ),
            SessionError::BadAcceptance { .. }
            | SessionError::BadProgress { .. }
            | SessionError::BadReceipt { .. } => (
                Code::VerificationFailed,
                format!(
                    "What worker {short} signed is not what it sent ({}). Do not rely on what came so far. \
                     Send the request again.",
                    chain(error),
                ),
            ),
            SessionError::BadMessage { .. }
            | SessionError::OutOfTurn { .. }
            | SessionError::Gap { .. }
            | SessionError::BadFrame { .. } => (
                Code::WorkerBadOutput,
                format!(
                    "Worker {short} did not keep to the protocol ({}). Send the request again.",
                    chain(error)
                ),
            ),
            SessionError::Invalid(invalid) => {
                return ApiError::invalid(invalid.field, format!("{invalid}.")).with_worker(worker);
            }
            SessionError::Ended => return ApiError::bug("a session was read past its end"),
        };
        let accountable = match error.accountable() {
            Party::Worker => Accountable::Worker,
            Party::Network => Accountable::Network,
            Party::Payer => Accountable::Gateway,
        };
        told(worker, code, message).with_accountable(accountable)
    }
}

/// The next event of a session; if everybody leaves meanwhile, the worker is told to stop.
async fn step(
    index: usize,
    mut session: Session,
    mut timing: Timing,
    mut leave: watch::Receiver<bool>,
) -> Stepped {
    loop {
        tokio::select! {
            event = session.next() => {
                timing.saw(&event);
                return Stepped { index, session, timing, event };
            }
            Ok(()) = leave.changed() => session.cancel().await,
        }
    }
}

impl Drop for Answering {
    /// Orders that nobody wants any more are cancelled. Those that are paid for are heard to their receipts, which say what
    /// they cost.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.paying.is_none() || self.running.is_empty() {
            return;
        }
        self.leave.send_replace(true);
        let (mut running, leave, held) = (mem::take(&mut self.running), self.leave.clone(), self.held.take());
        runtime.spawn(tokio::time::timeout(LAST_RECEIPTS, async move {
            while let Some(Stepped { index, session, timing, event }) = running.next().await {
                let ended =
                    matches!(event, Err(_) | Ok(SessionEvent::Finished(_) | SessionEvent::Refused(_)));
                if !ended {
                    running.push(Box::pin(step(index, session, timing, leave.subscribe())) as Step);
                }
            }
            drop(held);
        }));
    }
}

fn told(worker: PublicKey, code: Code, message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(code, message).with_worker(worker)
}

/// A worker's signed refusal, or its signed failure in mid-answer.
fn refused(worker: PublicKey, refusal: &Refusal) -> ApiError {
    let short = worker.short();
    let Some((failure, message)) = refusal.receipt.failure() else {
        return ApiError::bug("a refusal without a failure").with_worker(worker);
    };
    let (code, message) = match failure {
        FailureCode::BadRequest => {
            (Code::InvalidParam, format!("Worker {short} refused the request: {message}"))
        }
        FailureCode::ContextLengthExceeded => {
            (Code::ContextLengthExceeded, format!("{} Shorten the prompt.", sentence(message)))
        }
        FailureCode::Overloaded | FailureCode::OutOfMemory => (
            Code::Overloaded,
            format!("Worker {short} has no room: {} Try again shortly.", sentence(message)),
        ),
        FailureCode::ModelUnknown => (
            Code::NoWorker,
            format!("Worker {short} no longer serves the model: {} Try again shortly.", sentence(message)),
        ),
        FailureCode::NonFinite => (
            Code::WorkerBadOutput,
            format!(
                "The model computed a value that is not finite, so there is no answer: {} Change the prompt.",
                sentence(message),
            ),
        ),
        FailureCode::Internal => (
            Code::WorkerBadOutput,
            format!("Worker {short} failed: {} Send the request again.", sentence(message)),
        ),
        FailureCode::Cancelled => (
            Code::WorkerLost,
            format!("Worker {short} gave the request up: {} Send the request again.", sentence(message)),
        ),
        FailureCode::PaymentRequired => (
            Code::NoWorker,
            format!("Worker {short} asks to be paid: {} Try again shortly.", sentence(message)),
        ),
        FailureCode::DeadlineExceeded => (
            Code::Deadline,
            format!(
                "The answer was not whole by its deadline: {} Ask for fewer tokens, or give it longer by \
                 `surety.deadline_ms`.",
                sentence(message),
            ),
        ),
    };
    told(worker, code, message).with_receipt(refusal.receipt.bytes().to_vec())
}

/// A worker's words, ending as a sentence does.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

fn reason(finish: FinishReason) -> Option<&'static str> {
    match finish {
        FinishReason::Stop => Some("stop"),
        FinishReason::Length => Some("length"),
        FinishReason::Cancelled | FinishReason::Unpaid | FinishReason::Failed => None,
    }
}
