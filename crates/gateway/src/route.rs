//! Route.
use crate::error::ApiError;
pub(crate) use crate::workers::{Candidate, Held, Resolved, Worker, Workers, chain};
use std::time::Duration;
use surety_types::PublicKey;
#[derive(Debug, Default)]
pub(crate) struct Preferences {
    pub(crate) only: Option<String>,
}
pub(crate) struct Demand<'a> {
    pub(crate) model: &'a Resolved,
    pub(crate) preferences: &'a Preferences,
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) context_tokens_min: Option<u32>,
    pub(crate) without: &'a [PublicKey],
    pub(crate) affinity: Option<u64>,
    pub(crate) orders: u32,
}
#[derive(Debug)]
pub(crate) enum Outcome {
    Accepted { after: Duration },
    FirstToken { after: Duration, prompt_tokens: u32 },
    Finished { tokens: u32, over: Duration },
    Refused { overloaded: bool },
    Failed,
    Unreachable,
}
impl Workers {
    pub(crate) fn find(&self, demand: &Demand<'_>) -> Result<Vec<Candidate>, ApiError> {
        let only = demand.preferences.only.as_deref();
        let mut found = self.candidates(&demand.model.id, only, demand.max_output_tokens);
        found.retain(|c| {
            !demand.without.contains(&c.worker.key())
                && demand.context_tokens_min.is_none_or(|min| c.context_tokens >= min)
        });
        if found.is_empty() {
            return Err(self.nobody(demand.model, only));
        }
        Ok(found)
    }
}
impl Worker {
    pub(crate) fn report(&self, outcome: Outcome) {
        if let Outcome::Unreachable = outcome {
            self.lost("an order could not be brought to it".into());
        }
    }
    pub(crate) fn first_token_patience(&self) -> Duration {
        Duration::from_secs(2)
    }
}
