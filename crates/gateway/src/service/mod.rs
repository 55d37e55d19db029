//! Service: what became of the requests that came here, counted for whoever looks.
//!
//! In:     the journal, from where it was last read on; who answers for which worker.
//! Out:    counts by model, by operator and by hour; incidents; the states of this gateway's parts (`components`).
//! Touches: the journal, to read.
//! Holds:  a request counts once, by what was said last of it; what its caller brought about counts against nobody; no id of a request,
//!         no key's and no text of anybody's is in what goes out, nor a model's name that no worker was ever ordered to answer for.
//! Absent: who is accountable for one request (`surety explain`): what is counted here is this gateway's word.

pub(crate) mod components;
mod incidents;
pub(crate) mod report;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use surety_types::{PublicKey, StatedEnd, Statement, What};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::{api::suffix, disk::FindError, id::RequestId, journal::Journal};

/// No request counts for longer.
pub(crate) const MONTH_MS: u64 = 30 * DAY_MS;
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;
pub(crate) const HOUR_MS: u64 = Duration::from_secs(3600).as_millis() as u64;
const CALLER: &str = "caller";
/// What is said where no error was told that would say it.
const STOOD_STILL: &str = "gateway_stood_still";
const STOPPED: &str = "gateway_ended";

/// Who answers for a request that was not answered, by this gateway's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    Worker,
    Gateway,
    Network,
    Unknown,
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Whole, with receipts that were checked, before its deadline: else it is not sent to its end.
    Answered,
    /// With an error, by its code.
    Failed { code: Arc<str>, by: Party },
    /// With an error that the caller brought about.
    Refused,
    /// Its caller did not wait.
    Left,
    /// The gateway ended in the middle of it, or has not come to its end.
    Stopped,
    /// Nothing that was to be answered; or something else was said of it since.
    Nothing,
}

/// What became of an order, as its worker had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartEnd {
    /// Brought to its end.
    Finished,
    /// Broken off, or given up where the request is not to blame.
    Failed,
    /// Not taken.
    Declined,
}

/// One request, as it is counted.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    id: u128,
    pub(crate) ended_ms: u64,
    /// As its caller wrote it, without suffixes and pin; empty if it asked for none.
    pub(crate) model: Arc<str>,
    /// Whether anybody was ordered to answer it.
    pub(crate) was_ordered: bool,
    pub(crate) outcome: Outcome,
    pub(crate) handovers: u32,
    pub(crate) parts: Vec<(PublicKey, PartEnd)>,
}

/// What was counted so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The arrival from which the journal is to be read on.
    next: u64,
    records: VecDeque<Record>,
    /// How many have gone from the front.
    gone: u64,
    /// Request → its record, counted from the first there ever was.
    places: HashMap<u128, u64>,
    texts: HashSet<Arc<str>>,
}

/// The tally of a gateway, read from the journal when somebody looks.
#[derive(Debug, Default)]
pub(crate) struct Service(Mutex<Tally>);

impl Service {
    /// What `look` makes of all that is counted up to now.
    pub(crate) async fn look<T>(
        &self,
        journal: &Journal,
        now_ms: u64,
        look: impl FnOnce(&Tally) -> T,
    ) -> Result<T, FindError> {
        let mut tally = self.0.lock().await;
        loop {
            let since = journal.since(tally.next).await?;
            tally.next = since.next;
            since.statements.into_iter().for_each(|statement| tally.take(&statement));
            if since.is_all {
                break;
            }
        }
        tally.forget(now_ms.saturating_sub(MONTH_MS));
        tally.settle(|id| journal.is_under_way(RequestId::of_bits(id)));
        Ok(look(&tally))
    }
}

impl Tally {
    /// Counts what is said of a request, instead of what was said before.
    pub(crate) fn take(&mut self, statement: &Statement) {
        let Some(id) = RequestId::parse(&statement.request_id).map(RequestId::bits) else { return };
        let place = self.gone + self.records.len() as u64;
        if let Some(before) = self.places.insert(id, place)
            && let Some(before) = self.at(before)
        {
            before.outcome = Outcome::Nothing;
            before.parts.clear();
        }
        let record = self.record(id, statement);
        self.records.push_back(record);
    }

    fn at(&mut self, place: u64) -> Option<&mut Record> {
        self.records.get_mut(place.checked_sub(self.gone)? as usize)
    }

    fn record(&mut self, id: u128, statement: &Statement) -> Record {
        let has = |what| statement.events.iter().any(|event| event.what == what);
        let bare = suffix::split(&statement.model_name).0;
        let model = self.text(bare.split('@').next().unwrap_or(""));
        let outcome = match &statement.end {
            StatedEnd::Answered => Outcome::Answered,
            StatedEnd::Left => Outcome::Left,
            StatedEnd::Stopped => Outcome::Stopped,
            StatedEnd::Counted => Outcome::Nothing,
            StatedEnd::Failed { accountable, .. } if accountable.as_str() == CALLER => Outcome::Refused,
            // Who stands still takes others for silent.
            StatedEnd::Failed { .. } if has(What::StoodStill) => {
                Outcome::Failed { code: self.text(STOOD_STILL), by: Party::Gateway }
            }
            StatedEnd::Failed { code, accountable, .. } => {
                Outcome::Failed { code: self.text(code), by: Party::of(accountable) }
            }
        };
        let part = |what| match what {
            What::Finished => Some(PartEnd::Finished),
            What::BrokeOff => Some(PartEnd::Failed),
            What::GaveUp if outcome != Outcome::Refused => Some(PartEnd::Failed),
            What::Declined => Some(PartEnd::Declined),
            _ => None,
        };
        let parts = statement.events.iter().filter_map(|event| Some((event.worker?, part(event.what)?)));
        Record {
            id,
            ended_ms: statement.ended_ms,
            model,
            was_ordered: has(What::Ordered),
            handovers: statement.events.iter().filter(|event| event.what == What::HandedOver).count() as u32,
            parts: parts.collect(),
            outcome,
        }
    }

    /// The same text, kept once.
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(kept) = self.texts.get(text) {
            return Arc::clone(kept);
        }
        let kept: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&kept));
        kept
    }

    /// Lets go of what ended before.
    fn forget(&mut self, oldest_ms: u64) {
        while self.records.front().is_some_and(|record| record.ended_ms < oldest_ms) {
            let Some(gone) = self.records.pop_front() else { break };
            if self.places.get(&gone.id) == Some(&self.gone) {
                self.places.remove(&gone.id);
            }
            self.gone += 1;
        }
        // Nobody else has a text that no record has.
        if self.texts.len() > 2 * self.records.len() + 64 {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
        }
    }

    /// What is not under way any more and has no other end was ended with the gateway.
    fn settle(&mut self, is_under_way: impl Fn(u128) -> bool) {
        let failed = Outcome::Failed { code: self.text(STOPPED), by: Party::Gateway };
        for record in self.records.iter_mut().filter(|record| record.outcome == Outcome::Stopped) {
            if !is_under_way(record.id) {
                record.outcome = failed.clone();
            }
        }
    }

    fn latest(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> + Clone {
        self.records.iter().filter(|record| record.outcome != Outcome::Nothing)
    }
}

impl Party {
    fn of(name: &str) -> Party {
        match name {
            "worker" => Party::Worker,
            "gateway" => Party::Gateway,
            "network" => Party::Network,
            _ => Party::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
