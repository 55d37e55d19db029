//! Timing: one order at one worker, watched for what it says of the worker.
//!
//! In:     what a session yields, as it comes. Out: outcomes, reported to the worker.
//! Touches: the clock.
//! Holds:  a first token is reported once, and the rate is that of the tokens after it.
//! Absent: the session itself.

use std::{sync::Arc, time::Instant};

use surety_client::{SessionError, SessionEvent};

use super::{Outcome, Worker};

/// An order under way.
#[derive(Debug)]
pub(crate) struct Timing {
    worker: Arc<Worker>,
    sent: Instant,
    prompt_tokens: u32,
    first_token: Option<Instant>,
}

impl Timing {
    /// The order is sent now.
    pub(crate) fn start(worker: &Arc<Worker>) -> Self {
        Self { worker: Arc::clone(worker), sent: Instant::now(), prompt_tokens: 0, first_token: None }
    }

    /// Takes what came next.
    pub(crate) fn saw(&mut self, event: &Result<SessionEvent, SessionError>) {
        let outcome = match event {
            Ok(SessionEvent::Accepted(acceptance)) => {
                self.prompt_tokens = acceptance.prompt_tokens;
                Some(Outcome::Accepted { after: self.sent.elapsed() })
            }
            Ok(SessionEvent::Tokens { tokens, .. }) if !tokens.is_empty() && self.first_token.is_none() => {
                self.first_token = Some(Instant::now());
                Some(Outcome::FirstToken { after: self.sent.elapsed(), prompt_tokens: self.prompt_tokens })
            }
            Ok(SessionEvent::Tokens { .. } | SessionEvent::Prompt { .. }) => None,
            Ok(SessionEvent::Finished(completed)) => {
                let tokens = completed.receipt.output_tokens.saturating_sub(1);
                let over = self.first_token.map(|at| at.elapsed()).unwrap_or_default();
                Some(Outcome::Finished { tokens, over })
            }
            Ok(SessionEvent::Refused(refusal)) => {
                refusal.receipt.failure().map(|(code, _)| Outcome::of_failure(code))
            }
            Err(error) => return self.failed(error),
        };
        if let Some(outcome) = outcome {
            self.worker.report(outcome);
        }
    }

    /// The session ended in an error, or did not begin.
    pub(crate) fn failed(&self, error: &SessionError) {
        if let Some(outcome) = Outcome::of_error(error) {
            self.worker.report(outcome);
        }
    }
}
