//! Trail: what is noted of one request while it runs.
//!
//! In:     routing decisions, and what happened with each order, as it happens.
//! Out:    an entry of the journal when the request begins to be answered, and another when it ends.
//! Touches: memory; the journal's queue.
//! Holds:  lists are bounded, and what is left out is counted; a request that nobody brought to an end is one whose caller left.
//! Absent: signing and writing (the room).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use surety_types::{
    Amount, Answer, Decision, Digest, KeptOut, Paper, PublicKey, StatedEnd, StatedEvent, Statement, Text,
    What,
    envelope::MAX_ID_BYTES,
    statement::{MAX_CANDIDATES, MAX_DECISIONS, MAX_EVENTS, MAX_PAPERS, MAX_REMOVED},
};

use super::{Entry, Journal};
use crate::{api::unix_ms, error::ApiError, id::RequestId};

/// What is noted of one request. Clones note the same.
#[derive(Clone)]
pub(crate) struct Trail(Arc<Notes>);

impl fmt::Debug for Trail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Trail").field(&self.0.id).finish()
    }
}

/// Of whom an answer is under way; dropped, its caller has left, unless it had ended.
#[derive(Debug)]
pub(crate) struct Following(Trail);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.left();
    }
}

pub(crate) struct Notes {
    journal: Journal,
    id: RequestId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gateway: Option<PublicKey>,
    /// The number of the key it came with; nobody's without one.
    tenant: u64,
    path: &'static str,
    model_name: String,
    received_ms: u64,
    decisions: Vec<Decision>,
    events: Vec<StatedEvent>,
    left_out: u32,
    /// By order.
    papers: BTreeMap<[u8; 32], Paper>,
    end: Option<StatedEnd>,
    charge: Amount,
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.journal.forget(self.id);
    }
}

impl Notes {
    pub(super) fn new(journal: Journal, id: RequestId) -> Notes {
        let state = State { received_ms: unix_ms(), ..State::default() };
        Notes { journal, id, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_under_way(&self) -> bool {
        let state = self.state();
        state.gateway.is_some() && state.end.is_none()
    }

    pub(super) fn stood_still(&self, late: Duration) {
        let mut state = self.state();
        if state.end.is_none() {
            state.push(StatedEvent {
                at_ms: unix_ms(),
                what: What::StoodStill,
                worker: None,
                order: None,
                tokens: 0,
                why: Text::clipped(format!("for {} ms", late.as_millis())),
            });
        }
    }

    /// Hands over what there is, as an entry with this end.
    fn keep(&self, state: &State, end: StatedEnd) {
        let Some(gateway) = state.gateway else { return };
        // Of an answer there is evidence, in which all of it is.
        let papers = match end {
            StatedEnd::Answered => Vec::new(),
            _ => state.papers.values().cloned().collect(),
        };
        let statement = Statement {
            request_id: self.id.to_string(),
            gateway,
            path: Text::clipped(state.path),
            model_name: state.model_name.clone(),
            received_ms: state.received_ms,
            ended_ms: unix_ms().max(state.received_ms),
            end,
            charge: state.charge,
            decisions: state.decisions.clone(),
            events: state.events.clone(),
            left_out: state.left_out,
        };
        self.journal.keep(Entry { id: self.id, tenant: state.tenant, statement, papers });
    }
}

impl State {
    fn push(&mut self, event: StatedEvent) {
        match self.events.len() < MAX_EVENTS {
            true => self.events.push(event),
            false => self.left_out = self.left_out.saturating_add(1),
        }
    }
}

impl Trail {
    pub(super) fn of(notes: Arc<Notes>) -> Trail {
        Trail(notes)
    }

    /// What was asked, at which path, of which gateway.
    pub(crate) fn asked(&self, gateway: PublicKey, path: &'static str, received_ms: u64) {
        let mut state = self.0.state();
        (state.gateway, state.path, state.received_ms) = (Some(gateway), path, received_ms);
    }

    /// Who asks: the number of a key.
    pub(crate) fn asked_by(&self, tenant: u64) {
        self.0.state().tenant = tenant;
    }

    /// The model that was asked for.
    pub(crate) fn named(&self, model: &str) {
        let end = model.floor_char_boundary(MAX_ID_BYTES);
        self.0.state().model_name = model[..end].to_owned();
    }

    /// The same of a request that goes on, unless it is noted already.
    pub(crate) fn asked_unless_known(&self, gateway: PublicKey, received_ms: u64) {
        let mut state = self.0.state();
        if state.gateway.is_none() {
            (state.gateway, state.received_ms) = (Some(gateway), received_ms);
        }
    }

    /// Somebody waits for an answer from now on.
    pub(crate) fn following(&self) -> Following {
        Following(self.clone())
    }

    /// A worker has accepted: what is kept from now on says that the gateway ended, until it says otherwise.
    pub(crate) fn begun(&self) {
        let state = self.0.state();
        self.0.keep(&state, StatedEnd::Stopped);
    }

    /// Who was listed, best first, how many there are in all, and what kept how many out. The same again is noted once.
    pub(crate) fn decided(&self, best: &[PublicKey], removed: impl Iterator<Item = (&'static str, u32)>) {
        let decision = Decision {
            at_ms: unix_ms(),
            qualified: best.len() as u32,
            best: best.iter().take(MAX_CANDIDATES).copied().collect(),
            removed: removed
                .take(MAX_REMOVED)
                .map(|(constraint, workers)| KeptOut { constraint: Text::clipped(constraint), workers })
                .collect(),
        };
        let mut state = self.0.state();
        let same = state.decisions.last().is_some_and(|last| {
            let mut best = [last.best.clone(), decision.best.clone()];
            best.iter_mut().for_each(|best| best.sort_by_key(|key| key.0));
            best[0] == best[1] && last.removed == decision.removed
        });
        if same {
            return;
        }
        match state.decisions.len() < MAX_DECISIONS {
            true => state.decisions.push(decision),
            false => state.left_out = state.left_out.saturating_add(1),
        }
    }

    /// Something happened with an order.
    pub(crate) fn noted(
        &self,
        what: What,
        worker: PublicKey,
        order: Option<Digest>,
        tokens: usize,
        why: impl Into<String>,
    ) {
        self.0.state().push(StatedEvent {
            at_ms: unix_ms(),
            what,
            worker: Some(worker),
            order,
            tokens: tokens as u32,
            why: Text::clipped(why),
        });
    }

    /// What was signed about an order that did not end well.
    pub(crate) fn signed(&self, order: Digest, answer: &Answer, receipt: Option<&[u8]>) {
        let mut state = self.0.state();
        if state.papers.len() < MAX_PAPERS {
            let paper = Paper {
                order: answer.order.clone(),
                acceptance: answer.acceptance.clone(),
                progress: answer.progress.clone().filter(|_| receipt.is_none()),
                receipt: receipt.map(<[u8]>::to_vec).or_else(|| answer.receipt.clone()),
            };
            state.papers.insert(order.0, paper);
        }
    }

    /// It was answered, and there is evidence of it.
    pub(crate) fn answered(&self, charge: Amount) {
        let mut state = self.0.state();
        state.charge = charge;
        state.end = Some(StatedEnd::Answered);
        self.0.keep(&state, StatedEnd::Answered);
    }

    /// Its prompt was counted: there is no answer, and nothing else is wanted.
    pub(crate) fn counted(&self) {
        let mut state = self.0.state();
        state.end = Some(StatedEnd::Counted);
        self.0.keep(&state, StatedEnd::Counted);
    }

    /// It ended with an error that the caller is told. What was said before of its end was said too early, unless it is the same.
    pub(crate) fn failed(&self, error: &ApiError) {
        // A gateway that stood still may not have noticed yet.
        self.0.journal.beat();
        let mut state = self.0.state();
        if matches!(state.end, Some(StatedEnd::Failed { .. } | StatedEnd::Answered | StatedEnd::Counted)) {
            return;
        }
        let end = StatedEnd::Failed {
            code: Text::clipped(error.code().as_str()),
            message: Text::clipped(error.message()),
            accountable: Text::clipped(error.accountable().as_str()),
            worker: error.worker(),
        };
        state.end = Some(end.clone());
        self.0.keep(&state, end);
    }

    /// Nobody wants the answer any more, unless it has ended.
    fn left(&self) {
        let mut state = self.0.state();
        if state.end.is_none() {
            state.end = Some(StatedEnd::Left);
            self.0.keep(&state, StatedEnd::Left);
        }
    }
}
