//! Engine: what gives the answers by one model: this machine's arithmetic, or an upstream.
//!
//! In:     orders that may be answered. Out: each answer's events, on a channel of its own.
//! Holds:  a place is taken before an order is accepted, and is free again when its sequence has ended; dropping a sequence
//!         cancels it.
//! Absent: how (`sequences`, `upstream`); orders' lives, receipts (`session`).

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use surety_engine::{NonFinite, SubmitError};
use surety_types::{CallFormat, Digest, FailureCode, FinishReason, Order, Request, TokenLogprob, Vectors};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::admission::{Admitted, Refusal};

/// What answers the orders for one model.
pub(crate) trait Engine: Send + Sync {
    /// Whether an order can be answered, before anything is promised. May take long; blocks.
    fn admit(&self, order: &Order, request: Request, resumed: Vec<u32>) -> Result<Admitted, Refusal>;

    /// Orders that it has room for.
    fn places(&self) -> &Places;

    /// Begins an answer, of up to `allowed` output tokens until more are allowed.
    fn submit(&self, order: &Order, admitted: Admitted, place: Place, allowed: u32) -> Sequence;

    /// What the status tells of it.
    fn gauges(&self) -> &Gauges;

    /// How the model writes calls of tools.
    fn calls(&self) -> Option<CallFormat>;

    /// How it makes vectors, if it does.
    fn vectors(&self) -> Option<Vectors>;
}

/// What happens to a sequence, as its receiver sees it.
#[derive(Debug)]
pub(crate) enum SequenceEvent {
    /// Log-probabilities of the prompt; once, before the first token, if asked for.
    Prompt(Vec<TokenLogprob>),
    /// The vector of the prompt, if asked for; no token follows.
    Embedding(Vec<f32>),
    /// A token, with the text it releases.
    Token {
        /// The token.
        token: u32,
        /// What it adds to the text.
        text: String,
        /// Its log-probability, if asked for.
        logprob: Option<TokenLogprob>,
    },
    /// Text of an upstream's, and for how many tokens it counts; nobody knows their ids.
    Text {
        /// At most as many as a frame holds.
        tokens: u32,
        /// What they add to the text.
        text: String,
    },
    /// Last: it ended.
    Ended {
        /// Why.
        finish: FinishReason,
        /// The rest of the text.
        text: String,
        ///
        state_digest: Digest,
    },
    /// Last: an upstream's answer ended.
    Told {
        /// Why, as the upstream says.
        finish: FinishReason,
        /// Tokens of the prompt, as it counted them; 0 if it does not say.
        prompt_tokens: u32,
    },
    /// Last: it failed.
    Failed(NonFinite),
    /// Last: the scheduler would not take it, although there was a place for it.
    Refused(SubmitError),
    /// Last: the upstream failed.
    Broken {
        /// What kind of failure that is to the payer.
        code: FailureCode,
        /// What happened.
        message: String,
    },
}

/// Room for so many orders.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    all: u32,
}

/// A place for an order; the next may have it when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

impl Places {
    pub(crate) fn new(all: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// One of them, if one is free.
    pub(crate) fn take(&self) -> Option<Place> {
        self.free.clone().try_acquire_owned().ok().map(Place)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> u32 {
        self.all - self.free.available_permits() as u32
    }
}

/// What the status tells of a model, updated by who computes it.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) running: AtomicU32,
    pub(crate) waiting: AtomicU32,
    pub(crate) prefill: AtomicU32,
    pub(crate) decode: AtomicU32,
}

impl Gauges {
    /// Sequences being computed.
    pub(crate) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Sequences waiting for room.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Prompt tokens a second, of one sequence alone; 0 if not measured yet.
    pub(crate) fn prefill_tokens_per_second(&self) -> u32 {
        self.prefill.load(Ordering::Relaxed)
    }

    /// Output tokens a second, of one sequence alone; 0 if not measured yet.
    pub(crate) fn decode_tokens_per_second(&self) -> u32 {
        self.decode.load(Ordering::Relaxed)
    }
}

/// What steers a sequence that was begun.
pub(crate) trait Steer: Send + Sync {
    /// Lets it be computed up to so many output tokens, if that is more than before.
    fn allow(&self, tokens: u32);

    /// Ends it soon, with what it has produced. Without effect if it has ended already.
    fn cancel(&self);
}

/// One sequence, as whoever asked for it holds it. Dropping it cancels it.
pub(crate) struct Sequence {
    events: mpsc::Receiver<SequenceEvent>,
    steer: Arc<dyn Steer>,
}

impl Sequence {
    pub(crate) fn new(events: mpsc::Receiver<SequenceEvent>, steer: Arc<dyn Steer>) -> Self {
        Self { events, steer }
    }

    /// The next event; `None` after the last, or if whoever computes it is gone.
    pub(crate) async fn next(&mut self) -> Option<SequenceEvent> {
        self.events.recv().await
    }

    /// The next event, if it is here already.
    pub(crate) fn try_next(&mut self) -> Option<SequenceEvent> {
        self.events.try_recv().ok()
    }

    /// What cancels it, or lets it go on.
    pub(crate) fn steer(&self) -> Arc<dyn Steer> {
        self.steer.clone()
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.steer.cancel();
    }
}
