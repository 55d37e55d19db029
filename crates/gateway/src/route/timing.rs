//! Timing: one order at one worker, watched for what it says of the worker.
//!
//! In:     what a session yields, as it comes. Out: outcomes, reported to the worker; how long to wait for its first token.
//! Touches: the clock.
//! Holds:  a first token is reported once, and the rate is that of the tokens after it; one that was given up as late counts
//!         as having taken so long at least, so that patience is not learned from the quick ones alone.
//! Absent: the session itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use surety_client::{SessionError, SessionEvent};
use surety_types::ModelId;

use super::{Outcome, Worker, health::PATIENCE_UNKNOWN};

/// An order under way.
#[derive(Debug)]
pub(crate) struct Timing {
    worker: Arc<Worker>,
    sent: Instant,
    /// The model, and how long the prompt is, once it is accepted.
    accepted: Option<(ModelId, u32)>,
    first_token: Option<Instant>,
    /// Those that came in this session.
    tokens: u32,
    ended: bool,
}

impl Timing {
    /// The order is sent now.
    pub(crate) fn start(worker: &Arc<Worker>) -> Self {
        let worker = Arc::clone(worker);
        Self { worker, sent: Instant::now(), accepted: None, first_token: None, tokens: 0, ended: false }
    }

    /// Takes what came next.
    pub(crate) fn saw(&mut self, event: &Result<SessionEvent, SessionError>) {
        match event {
            Ok(SessionEvent::Accepted(acceptance)) => {
                self.accepted = Some((acceptance.model, acceptance.prompt_tokens));
                self.worker.report(Outcome::Accepted { after: self.sent.elapsed() });
            }
            Ok(SessionEvent::Prompt { .. }) => {}
            Ok(SessionEvent::Tokens { tokens, .. }) => {
                self.tokens = self.tokens.saturating_add(tokens.len() as u32);
                if let (Some((model, prompt_tokens)), None, false) =
                    (self.accepted, self.first_token, tokens.is_empty())
                {
                    self.first_token = Some(Instant::now());
                    let after = self.sent.elapsed();
                    self.worker.report(Outcome::FirstToken { model, after, prompt_tokens });
                }
            }
            Ok(SessionEvent::Finished(completed)) => {
                self.ended = true;
                let tokens = self.tokens.saturating_sub(1);
                let over = self.first_token.map(|at| at.elapsed()).unwrap_or_default();
                self.worker.report(Outcome::Finished { model: completed.receipt.model, tokens, over });
            }
            Ok(SessionEvent::Refused(refusal)) => {
                self.ended = true;
                if let Some((code, _)) = refusal.receipt.failure() {
                    self.worker.report(Outcome::of_failure(code, self.sent));
                }
            }
            Err(error) => {
                self.ended = true;
                self.failed(error);
            }
        }
    }

    /// The session ended in an error, or did not begin.
    pub(crate) fn failed(&self, error: &SessionError) {
        if let Some(outcome) = Outcome::of_error(error, self.sent) {
            self.worker.report(outcome);
        }
    }

    /// When the order was sent.
    pub(crate) fn sent(&self) -> Instant {
        self.sent
    }

    /// How long the first token may take before another worker had better be asked too.
    pub(crate) fn first_token_patience(&self) -> Duration {
        self.accepted.map_or(PATIENCE_UNKNOWN, |(model, prompt_tokens)| {
            self.worker.first_token_patience(&model, prompt_tokens)
        })
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        let Some((model, prompt_tokens)) = self.accepted else { return };
        let after = self.sent.elapsed();
        if !self.ended && self.first_token.is_none() && after >= self.first_token_patience() {
            self.worker.report(Outcome::Late { model, after, prompt_tokens });
        }
    }
}
