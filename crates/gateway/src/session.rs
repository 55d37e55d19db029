//! Session: one caller's request as orders to workers, until every answer is there and checked.
//!
//! In:     what is asked; the workers that could answer.
//! Out:    pieces of answers as they come; at the end each answer with the evidence of every worker's part in it.
//! Touches: the network, through `client`.
//! Holds: : an answer whose worker is lost, stalls, errs or breaks the protocol is continued by another, with the same
//!         tokens, as long as there is one; what the caller was given is never taken back or given twice. A worker slow to
//!         begin, or silent where a sign of life was due, has another asked beside it, and that one a third if it is slow
//!         too. Dropping a session cancels what is still running.
//!         What is wanted checked is ordered of two operators, and told as far as both have said the same.
//! Absent: OpenAI's words (`api`), the checks themselves (`client`, `proof`), who is asked (`route`).

mod course;
mod failure;
mod pairs;
mod place;
mod restore;

use std::{collections::VecDeque, mem, pin::Pin, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use surety_client::{SessionError, SessionEvent};
use surety_types::{FinishReason, PublicKey, Request, TokenLogprob, What, receipt::NO_ARITHMETIC};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{info, warn};

use course::Course;
pub(crate) use course::{Share, Waited, Whole};
use pairs::Pair;
pub(crate) use place::Desk;
use place::Leg;
pub(crate) use restore::{Again, Restored};

use crate::{api::ask::Ask, error::ApiError, route::chain, streams::StreamLog};

/// For the receipts of orders that were cancelled.
const LAST_RECEIPTS: Duration = Duration::from_secs(10);
/// Answers of one request under way at once.
const ORDERS_AT_ONCE: usize = 16;

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
    pub(crate) whole: Box<Whole>,
    /// The same once more, by others, if that was wanted: it was compared.
    pub(crate) check: Option<Box<Whole>>,
}

impl Finished {
    /// The vector that was asked for; it was checked against the receipt.
    pub(crate) fn vector(&self) -> Option<&[u8]> {
        self.whole.shares.last()?.answer.embedding.as_deref()
    }
}

/// The answers to one request.
pub(crate) struct Answering {
    desk: Arc<Desk>,
    /// The answers; behind them, in the same order, the checks, if there are any.
    courses: Vec<Course>,
    /// For each answer that is checked.
    pairs: Vec<Pair>,
    /// What may be told.
    told: VecDeque<(usize, Event)>,
    /// Two answers that should be the same are not: what their workers sign is waited for, until then.
    differing: Option<(ApiError, Instant)>,
    running: FuturesUnordered<Step>,
    waiting: VecDeque<usize>,
    /// Who accepted first, for each answer that was begun with.
    workers: Vec<PublicKey>,
    paid: bool,
    /// Set when nobody wants the answers any more.
    leave: watch::Sender<bool>,
}

type Step = Pin<Box<dyn Future<Output = Stepped> + Send>>;

/// What a step of one answer came to.
enum Stepped {
    /// A worker said something, or failed to.
    Said(usize, Box<Leg>, Result<SessionEvent, SessionError>),
    /// A worker is slow to begin, or silent.
    Slow(usize, Box<Leg>),
    /// A worker that was silent gave a sign of life.
    Alive(usize, Box<Leg>),
    /// A worker has accepted; or nobody did, perhaps only because somebody else was at it.
    Placed(usize, bool, Result<Box<Leg>, ApiError>),
    /// A worker was let go, because another was first; none, if it was still being found.
    LetGo(usize, Option<u64>),
}

/// Finds workers for what is asked; returns when they have accepted.
pub(crate) async fn begin(desk: Desk, ask: &Ask) -> Result<Answering, ApiError> {
    let courses = courses(&ask.requests, ask.choices)?;
    begin_with(desk, courses).await
}

/// The same for requests that no caller made.
pub(crate) async fn order(desk: Desk, requests: &[Request]) -> Result<Answering, ApiError> {
    let courses = courses(requests, 1)?;
    begin_with(desk, courses).await
}

/// Finds a worker for the rest of what was asked for before; returns when it has accepted. There is one answer.
pub(crate) async fn go_on(desk: Desk, ask: &Ask, restored: Restored) -> Result<Answering, ApiError> {
    let [request] = &ask.requests[..] else { return Err(ApiError::bug("several answers go on as one")) };
    begin_with(desk, vec![Course::restored(Arc::new(request.clone()), restored)]).await
}

fn courses(requests: &[Request], choices: u32) -> Result<Vec<Course>, ApiError> {
    let mut courses = Vec::with_capacity(requests.len() * choices as usize);
    for request in requests {
        let request = Arc::new(request.clone());
        for choice in 0..choices {
            let mut nonce = [0; 32];
            getrandom::fill(&mut nonce).map_err(|_| ApiError::bug("the random source failed"))?;
            courses.push(Course::new(Arc::clone(&request), choice, nonce));
        }
    }
    Ok(courses)
}

async fn begin_with(desk: Desk, mut courses: Vec<Course>) -> Result<Answering, ApiError> {
    let by_word = desk.model.arithmetic == NO_ARITHMETIC;
    courses.iter_mut().for_each(|course| course.by_word = by_word);
    let waiting: VecDeque<usize> = (0..courses.len()).collect();
    let mut pairs = Vec::new();
    if desk.checking.is_some() {
        place::has_others(&desk)?;
        courses.extend(courses.iter().map(Course::repeated).collect::<Vec<_>>());
        pairs.resize_with(waiting.len(), Pair::default);
    }
    let mut answering = Answering {
        desk: Arc::new(desk),
        waiting,
        courses,
        pairs,
        told: VecDeque::new(),
        differing: None,
        running: FuturesUnordered::new(),
        workers: Vec::new(),
        paid: false,
        leave: watch::Sender::new(false),
    };
    let first = answering.waiting.len().min(ORDERS_AT_ONCE);
    (0..first).for_each(|_| answering.begin_next());
    let legs = if answering.pairs.is_empty() { first } else { 2 * first };
    let mut accepted = Vec::with_capacity(legs);
    while accepted.len() < legs {
        match answering.running.next().await {
            Some(Stepped::Placed(index, _, Ok(leg))) => {
                answering.courses[index].sought();
                answering.courses[index].joined(&leg);
                answering.paid |= leg.paid;
                let agreed = answering.courses[index].accepted(&leg);
                accepted.push((index, leg));
                if let Err(error) = agreed {
                    answering.abandon(accepted);
                    return Err(error);
                }
                answering.begin_check(index);
            }
            Some(Stepped::Placed(index, _, Err(error))) => {
                answering.abandon(accepted);
                return Err(answering.not_placed(index, error));
            }
            _ => return Err(ApiError::bug("an answer went on before it began")),
        }
    }
    accepted.sort_by_key(|(index, _)| *index);
    for (index, leg) in accepted {
        if !answering.courses[index].check && !answering.workers.contains(&leg.worker()) {
            answering.workers.push(leg.worker());
        }
        answering.go_on(index, leg);
    }
    Ok(answering)
}

impl Answering {
    /// Who accepted at the beginning.
    pub(crate) fn workers(&self) -> &[PublicKey] {
        &self.workers
    }

    /// Tokens of the first answer's prompt, as whoever accepted it counted them; 0 if nobody did here.
    pub(crate) fn prompt_tokens(&self) -> u32 {
        self.courses.first().map_or(0, Course::prompt_tokens)
    }

    /// What the first answer's seed is drawn from.
    pub(crate) fn nonce(&self) -> [u8; 32] {
        self.courses.first().map_or([0; 32], |course| course.nonce)
    }

    /// Keeps what is signed for of the one answer from now on.
    pub(crate) fn keep_in(&mut self, log: StreamLog) {
        if let [course] = &mut self.courses[..] {
            course.log = Some(log);
        }
    }

    /// Whether nothing is paid for the answers so far.
    pub(crate) fn is_free(&self) -> bool {
        !self.paid
    }

    /// What comes next, and of which answer; `None` when all are whole. May be cancelled.
    pub(crate) async fn next(&mut self) -> Option<Result<(usize, Event), ApiError>> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some(Ok(told));
            }
            if let Some((_, until)) = self.differing {
                match timeout_at(until, self.running.next()).await {
                    Ok(Some(stepped)) => self.parts(stepped),
                    Ok(None) | Err(_) => return self.differing.take().map(|(error, _)| Err(error)),
                }
                continue;
            }
            let event = match self.running.next().await? {
                Stepped::Said(index, leg, event) => self.said(index, leg, event).map(|event| (index, event)),
                Stepped::Slow(index, leg) => {
                    self.hedge(index, leg);
                    continue;
                }
                Stepped::Alive(index, leg) => {
                    self.alive(index, leg);
                    continue;
                }
                Stepped::Placed(index, _, Ok(leg)) => match self.placed(index, leg) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                Stepped::Placed(index, beside, Err(error)) => {
                    self.courses[index].sought();
                    // Nobody beside a slow worker is no loss.
                    if self.courses[index].legs() > 0 {
                        continue;
                    }
                    if beside {
                        self.place(index);
                        continue;
                    }
                    // That somebody broke the answer off matters more than that nobody went on with it.
                    let error = self.courses[index].broke.take().unwrap_or(error);
                    Err(self.not_placed(index, error))
                }
                Stepped::LetGo(index, leg) => {
                    self.let_go(index, leg);
                    continue;
                }
            };
            match event {
                Ok((index, event)) if !self.pairs.is_empty() => self.paired(index, event),
                Ok((index, Some(event))) => return Some(Ok((index, event))),
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Tells whoever has accepted that nobody wants it. What they signed of the prompt is kept.
    fn abandon(&self, accepted: Vec<(usize, Box<Leg>)>) {
        for (_, leg) in accepted {
            if let Some(answer) = leg.session.so_far() {
                self.desk.trail.signed(leg.session.order().digest(), &answer, None);
            }
            let_go(leg, false);
        }
    }

    /// Why nobody is found for an answer, or for its check.
    fn not_placed(&self, index: usize, error: ApiError) -> ApiError {
        if self.courses[index].check { failure::unchecked(error) } else { error }
    }

    /// Takes in what a worker said.
    fn said(
        &mut self,
        index: usize,
        mut leg: Box<Leg>,
        event: Result<SessionEvent, SessionError>,
    ) -> Result<Option<Event>, ApiError> {
        leg.timing.saw(&event);
        if let Err(error) = &event {
            place::gone(&leg.worker, error);
            if is_silence(error) {
                leg.unreceipted();
            }
        }
        let course = &mut self.courses[index];
        let speaks = matches!(event, Ok(SessionEvent::Tokens { .. } | SessionEvent::Finished(_)));
        let others = course.leader.borrow().is_some_and(|leader| leader != leg.id);
        if others || (speaks && !course.lead(&mut leg)) {
            // Another was first.
            self.let_go(index, Some(leg.id));
            if event.is_ok() {
                let_go(leg, false);
            }
            return Ok(None);
        }
        match event {
            Ok(SessionEvent::Accepted(_)) => Err(ApiError::bug("an order was accepted twice")),
            Ok(SessionEvent::Prompt { index: first, logprobs, .. }) => {
                let event = course.prompt(first, logprobs);
                self.go_on(index, leg);
                Ok(event)
            }
            Ok(SessionEvent::Tokens { tokens, text, logprobs }) => {
                leg.hedge_at = None;
                let event = course.output(&mut leg, &tokens, &text, logprobs)?;
                self.go_on(index, leg);
                Ok(event)
            }
            Ok(SessionEvent::Finished(completed)) => {
                course.left(leg.id);
                noted(&self.desk, &leg, What::Finished, "");
                let finish = completed.receipt.finish;
                let Some(reason) = reason(finish) else {
                    return Err(failure::cut_short(leg.worker(), finish, leg.session.payment_problem()));
                };
                leg.hold.charge(&completed.receipt);
                let whole = Box::new(course.end(&leg, *completed)?);
                if !course.check {
                    self.begin_next();
                }
                Ok(Some(Event::Finished(Finished { reason, whole, check: None })))
            }
            Ok(SessionEvent::Refused(refusal)) => {
                let error = failure::refused(leg.worker(), &refusal);
                let retryable = refusal.receipt.failure().is_some_and(|(code, _)| code.is_retryable());
                place::leaves(&leg.worker, &refusal);
                let why = refusal.receipt.failure().map(|(code, message)| format!("{code}: {message}"));
                noted(&self.desk, &leg, What::GaveUp, why.unwrap_or_default());
                let order = leg.session.order().digest();
                self.desk.trail.signed(order, &refusal.answer, Some(refusal.receipt.bytes()));
                course.given_up(&leg, *refusal);
                self.replace(index, &leg, retryable, error)
            }
            Err(error) => {
                noted(&self.desk, &leg, What::BrokeOff, chain(&error));
                if let Some(answer) = leg.session.so_far() {
                    self.desk.trail.signed(leg.session.order().digest(), &answer, None);
                }
                course.broken(&mut leg, &error);
                let told = failure::failed(leg.worker(), &error);
                self.replace(index, &leg, error.is_retryable(), told)
            }
        }
    }

    /// Has another worker go on with an answer, if that can help.
    fn replace(
        &mut self,
        index: usize,
        leg: &Leg,
        retryable: bool,
        error: ApiError,
    ) -> Result<Option<Event>, ApiError> {
        let course = &mut self.courses[index];
        course.left(leg.id);
        if !retryable || !course.may_go_on() {
            return Err(error);
        }
        let (worker, code, tokens) = (leg.worker().short(), error.code().as_str(), leg.at.tokens);
        warn!(worker, code, tokens, "another worker is to go on with an answer");
        course.broke = Some(error);
        // Somebody else may be at it already.
        course.leader.send_replace(None);
        course.seek_anew();
        if course.legs() == 0 || course.is_left_to_silent() {
            self.place(index);
        }
        Ok(None)
    }

    /// Begins the next answer that waits, if one does.
    fn begin_next(&mut self) {
        if let Some(index) = self.waiting.pop_front() {
            self.place(index);
        }
    }

    /// Seeks a worker for an answer, or the rest of it; perhaps beside those that are at it.
    fn place(&mut self, index: usize) {
        let apart = self.partner(index).map(|partner| self.courses[partner].workers()).unwrap_or_default();
        let course = &mut self.courses[index];
        let (placement, ended) = course.seek(apart);
        let beside = placement.beside;
        let (desk, mut leader) = (Arc::clone(&self.desk), course.leader.subscribe());
        self.running.push(Box::pin(async move {
            tokio::select! {
                placed = place::place(desk, placement) => {
                    Stepped::Placed(index, beside, placed.map(Box::new))
                }
                _ = ended => Stepped::LetGo(index, None),
                // An error means that nobody wants the answer.
                _ = leader.wait_for(Option::is_some) => Stepped::LetGo(index, None),
            }
        }));
    }

    /// A worker has accepted an answer, or the rest of it.
    fn placed(&mut self, index: usize, leg: Box<Leg>) -> Result<(), ApiError> {
        let is_kin = self.partner(index).is_some_and(|partner| {
            self.desk.workers.kin(&self.courses[partner].workers()).contains(&leg.worker())
        });
        let course = &mut self.courses[index];
        self.paid |= leg.paid;
        // Who was sought for an answer and for its check at once may be the same.
        if course.leader.borrow().is_some() || is_kin {
            let_go(leg, false);
            self.let_go(index, None);
            return Ok(());
        }
        course.sought();
        course.joined(&leg);
        course.accepted(&leg)?;
        info!(worker = leg.worker().short(), from = leg.from.tokens, "worker accepted");
        noted(&self.desk, &leg, What::HandedOver, "");
        self.go_on(index, leg);
        self.begin_check(index);
        Ok(())
    }

    /// One worker fewer is at an answer. The one that led may have broken off meanwhile.
    fn let_go(&mut self, index: usize, leg: Option<u64>) {
        let course = &mut self.courses[index];
        match leg {
            Some(leg) => course.left(leg),
            None => course.sought(),
        }
        if course.legs() == 0 && !course.ended {
            course.leader.send_replace(None);
            self.place(index);
        }
    }

    /// A worker is slow to begin, or silent: another is asked beside it, unless enough are at it; and again if that was of no
    /// use, after twice as long.
    fn hedge(&mut self, index: usize, mut leg: Box<Leg>) {
        let silent = leg.is_silent();
        if silent {
            leg.worker.doubt();
            leg.silence += leg.silence;
        }
        leg.wait_longer(Instant::now());
        let course = &mut self.courses[index];
        if course.has_room() {
            let (worker, tokens, at_it) = (leg.worker().short(), leg.at.tokens, course.legs());
            info!(worker, tokens, silent, at_it, "worker is slow; another is asked beside it");
            noted(
                &self.desk,
                &leg,
                What::Slow,
                if silent { "it is silent" } else { "its first token is late" },
            );
            if silent {
                course.race(&mut leg);
            }
            self.place(index);
        }
        self.go_on(index, leg);
    }

    /// A worker that was silent is there all the same: whoever was asked beside it was too slow.
    fn alive(&mut self, index: usize, mut leg: Box<Leg>) {
        if self.courses[index].lead(&mut leg) {
            leg.worker.spoke_again();
            leg.silence = leg.silence.max(leg.worker.silence());
            leg.keep_signed();
            self.go_on(index, leg);
        } else {
            self.let_go(index, Some(leg.id));
            let_go(leg, false);
        }
    }

    fn go_on(&self, index: usize, leg: Box<Leg>) {
        let leader = self.courses[index].leader.subscribe();
        self.running.push(Box::pin(step(index, leg, leader, self.leave.subscribe())));
    }
}

/// Notes what happened at a worker that had accepted.
fn noted(desk: &Desk, leg: &Leg, what: What, why: impl Into<String>) {
    desk.trail.noted(what, leg.worker(), Some(leg.session.order().digest()), leg.at.tokens, why);
}

/// The next event of a leg. If everybody leaves meanwhile, or another leads, the worker is told to stop.
async fn step(
    index: usize,
    mut leg: Box<Leg>,
    mut leader: watch::Receiver<Option<u64>>,
    mut leave: watch::Receiver<bool>,
) -> Stepped {
    loop {
        let (id, raced, patience_ends) = (leg.id, leg.raced, leg.patience_ends());
        if leader.borrow_and_update().is_some_and(|leader| leader != id) {
            let_go(leg, false);
            return Stepped::LetGo(index, Some(id));
        }
        tokio::select! {
            biased;
            Ok(()) = leave.changed() => leg.session.cancel().await,
            Ok(()) = leader.changed() => {}
            heard = leg.session.hear() => match heard.transpose() {
                Some(event) => return Stepped::Said(index, leg, event),
                None if raced => return Stepped::Alive(index, leg),
                None => leg.keep_signed(),
            },
            () = sleep_until(patience_ends) => return Stepped::Slow(index, leg),
        }
    }
}

/// Cancels a leg that is not needed. If it is paid for, it is heard to its receipt, which says what it costs, and the caller as
/// well if it is due from that side.
fn let_go(mut leg: Box<Leg>, due: bool) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if !leg.paid {
        return;
    }
    runtime.spawn(async move {
        let receipted = tokio::time::timeout(LAST_RECEIPTS, async {
            leg.session.cancel().await;
            loop {
                match leg.session.next().await {
                    Ok(SessionEvent::Finished(completed)) => {
                        if due {
                            leg.hold.charge(&completed.receipt);
                        }
                        return true;
                    }
                    Ok(SessionEvent::Refused(_)) => return true,
                    Ok(_) => {}
                    Err(error) => return !is_silence(&error),
                }
            }
        });
        // Nobody says when such a task is stopped with the gateway; what is not heard then is not claimed either.
        if !receipted.await.unwrap_or(false) {
            leg.unreceipted();
        }
    });
}

/// Whether a worker that had accepted ended without a word of its own: no receipt, and nothing that breaks the protocol.
fn is_silence(error: &SessionError) -> bool {
    matches!(
        error,
        SessionError::WorkerLost { .. }
            | SessionError::BrokenOff { .. }
            | SessionError::Stalled { .. }
            | SessionError::DeadlineExceeded { .. }
    )
}

impl Drop for Answering {
    /// Orders that nobody wants any more are cancelled. Those that are paid for are heard to their receipts.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.paid || self.running.is_empty() {
            return;
        }
        let mut running = mem::take(&mut self.running);
        // One worker for each answer is due from the caller: who led, or was there first.
        let due: Vec<Option<u64>> = self.courses.iter().map(Course::due).collect();
        runtime.spawn(tokio::time::timeout(LAST_RECEIPTS, async move {
            // What runs is let go as soon as it is seen; the leader of an answer that nobody wants is nobody.
            while let Some(stepped) = running.next().await {
                match stepped {
                    Stepped::Said(index, leg, Ok(SessionEvent::Finished(completed))) => {
                        if due[index] == Some(leg.id) {
                            leg.hold.charge(&completed.receipt);
                        }
                    }
                    Stepped::Said(index, leg, Ok(_))
                    | Stepped::Slow(index, leg)
                    | Stepped::Alive(index, leg) => {
                        let is_due = due[index] == Some(leg.id);
                        let_go(leg, is_due);
                    }
                    Stepped::Placed(index, _, Ok(leg)) => let_go(leg, due[index].is_none()),
                    Stepped::Said(..) | Stepped::Placed(..) | Stepped::LetGo(..) => {}
                }
            }
        }));
        self.leave.send_replace(true);
    }
}

fn reason(finish: FinishReason) -> Option<&'static str> {
    match finish {
        FinishReason::Stop => Some("stop"),
        FinishReason::Length => Some("length"),
        FinishReason::Cancelled | FinishReason::Unpaid | FinishReason::Failed => None,
    }
}
