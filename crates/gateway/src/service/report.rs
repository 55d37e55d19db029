//! Report: the counts, as they are shown.
//!
//! In:     the tally; now; who answers for which worker; the names that workers serve. Out: counts for people and programs.
//! Touches: nothing: the same input gives the same report.
//! Holds:  a share is of what was to be answered: what the caller brought about or did not wait for is counted beside it.
//! Absent: what happened in one request.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use surety_types::PublicKey;
use utoipa::ToSchema;

use super::{
    DAY_MS, HOUR_MS, MONTH_MS, Outcome, PartEnd, Party, Record, Tally,
    incidents::{Incident, incidents},
};

/// Models and operators that have counts of their own.
const SHOWN_MAX: usize = 256;
/// Orders that are shown of an operator.
const JOBS_MAX: usize = 100;
const HOURS: u64 = 24;
const DAYS: u64 = 30;

/// What became of the requests that came to this gateway, by its own word.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ServiceReport {
    /// Unix milliseconds: when the first request ended that is counted; null if there is none. Older ones are not in the journal.
    pub since_ms: Option<u64>,
    /// The last hour, the last 24 hours, the last 30 days.
    pub spans: [Span; 3],
    /// By the hour, the last 24, in order of time; hours of UTC.
    pub hours: Vec<Bucket>,
    /// By the day, the last 30, in order of time; days of UTC.
    pub days: Vec<Bucket>,
    /// By the name that was asked for.
    pub models: Vec<ModelService>,
    /// By who answers for the workers.
    pub operators: Vec<OperatorService>,
    /// When requests were not answered, the latest first.
    pub incidents: Vec<Incident>,
}

/// How many requests were answered, of those that were to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Count {
    /// Whole, with receipts that the gateway checked, before the deadline.
    pub answered: u64,
    /// Not, through no fault of their callers.
    pub failed: u64,
}

/// By whose doing requests were not answered, by this gateway's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailedBy {
    /// A worker's.
    pub worker: u64,
    /// This gateway's.
    pub gateway: u64,
    /// The road's between them.
    pub network: u64,
    /// It could not be told.
    pub unknown: u64,
}

/// What became of the requests of a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Span {
    /// How long it is, to now.
    pub ms: u64,
    #[serde(flatten)]
    pub count: Count,
    pub failed_by: FailedBy,
    /// Errors that callers brought about: they count neither way.
    pub refused: u64,
    /// Callers that did not wait for the end: they count neither way.
    pub left: u64,
    /// Requests with which another worker went on.
    pub handed_over: u64,
}

/// What became of the requests of an hour or a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Bucket {
    /// Unix milliseconds.
    pub from_ms: u64,
    #[serde(flatten)]
    pub count: Count,
}

/// What became of the requests for a model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ModelService {
    /// The name that was asked for.
    pub model: String,
    /// Unix milliseconds: when the latest that was answered ended.
    pub answered_ms: Option<u64>,
    /// The last hour, the last 24 hours, the last 30 days.
    pub spans: [Count; 3],
    /// By the hour, the last 24, in order of time.
    pub hours: Vec<Bucket>,
}

/// What became of the orders that an operator's workers were given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct OperatorService {
    /// The account that answers for them; null for a worker that no ledger lists.
    pub operator: Option<String>,
    /// Their keys.
    pub workers: Vec<String>,
    /// The last hour, the last 24 hours, the last 30 days.
    pub spans: [Orders; 3],
}

/// What became of orders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Orders {
    /// Brought to their end.
    pub finished: u64,
    /// Accepted and not brought to their end, through no fault of the caller.
    pub failed: u64,
    /// Not taken.
    pub declined: u64,
}

/// An order that an operator's worker was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Job {
    /// Unix milliseconds: the minute in which its request ended.
    pub minute_ms: u64,
    /// The worker's key.
    pub worker: String,
    /// The name that was asked for; null if it is none that is known here.
    pub model: Option<String>,
    pub end: PartEnd,
}

/// Who answers for which worker, and the names that are served.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) operators: BTreeMap<PublicKey, String>,
    pub(crate) models: BTreeSet<String>,
}

/// Who answers for an order: an operator, or a worker that has none.
type Answerable<'a> = (Option<&'a str>, Option<PublicKey>);

impl Tally {
    /// Counts what ended up to now.
    pub(crate) fn report(&self, now_ms: u64, known: &Known) -> ServiceReport {
        let spans_ms = [HOUR_MS, DAY_MS, MONTH_MS];
        let mut spans = spans_ms.map(|ms| Span { ms, ..Span::default() });
        let (mut hours, mut days) =
            (Buckets::new(now_ms, HOUR_MS, HOURS), Buckets::new(now_ms, DAY_MS, DAYS));
        let mut models: BTreeMap<&str, (Option<u64>, [Count; 3], Buckets)> = BTreeMap::new();
        let mut operators: BTreeMap<Answerable<'_>, (BTreeSet<PublicKey>, [Orders; 3])> = BTreeMap::new();
        let named = self.nameable(known);
        for record in self.records() {
            let age_ms = now_ms.saturating_sub(record.ended_ms);
            let within = spans_ms.map(|ms| age_ms < ms);
            let add = |count: &mut Count| record.add(count);
            spans
                .iter_mut()
                .zip(within)
                .filter(|(_, within)| *within)
                .for_each(|(span, _)| record.count(span));
            [&mut hours, &mut days].into_iter().filter_map(|all| all.of(record.ended_ms)).for_each(add);
            if named.contains(&*record.model)
                && (models.len() < SHOWN_MAX || models.contains_key(&*record.model))
            {
                let fresh = || (None, [Count::default(); 3], Buckets::new(now_ms, HOUR_MS, HOURS));
                let (answered_ms, counts, hours) = models.entry(&record.model).or_insert_with(fresh);
                let ended_ms = (record.outcome == Outcome::Answered).then_some(record.ended_ms);
                *answered_ms = ended_ms.max(*answered_ms);
                counts.iter_mut().zip(within).filter(|(_, within)| *within).for_each(|(count, _)| add(count));
                hours.of(record.ended_ms).into_iter().for_each(add);
            }
            for (worker, end) in &record.parts {
                let operator = known.operators.get(worker).map(String::as_str);
                let key = (operator, operator.is_none().then_some(*worker));
                if operators.len() >= SHOWN_MAX && !operators.contains_key(&key) {
                    continue;
                }
                let (workers, orders) = operators.entry(key).or_default();
                workers.insert(*worker);
                let within = orders.iter_mut().zip(within).filter(|(_, within)| *within);
                within.for_each(|(orders, _)| orders.add(*end));
            }
        }
        let models = models.into_iter().map(|(model, (answered_ms, spans, hours))| ModelService {
            model: model.to_owned(),
            answered_ms,
            spans,
            hours: hours.buckets,
        });
        let operators = operators.into_iter().map(|((operator, _), (workers, spans))| OperatorService {
            operator: operator.map(str::to_owned),
            workers: workers.iter().map(ToString::to_string).collect(),
            spans,
        });
        ServiceReport {
            since_ms: self.records().map(|record| record.ended_ms).min(),
            spans,
            hours: hours.buckets,
            days: days.buckets,
            models: models.collect(),
            operators: operators.collect(),
            incidents: incidents(self.records(), &named, now_ms),
        }
    }

    /// The latest orders that these workers were given, the last first.
    pub(crate) fn jobs(&self, workers: &[PublicKey], known: &Known) -> Vec<Job> {
        let named = self.nameable(known);
        let job = |record: &Record, (worker, end): &(PublicKey, PartEnd)| Job {
            minute_ms: record.ended_ms - record.ended_ms % 60_000,
            worker: worker.to_string(),
            model: named.contains(&*record.model).then(|| record.model.to_string()),
            end: *end,
        };
        let latest = self.latest();
        let parts = latest.flat_map(|record| record.parts.iter().rev().map(move |part| (record, part)));
        let theirs = parts.filter(|(_, (worker, _))| workers.contains(worker));
        theirs.take(JOBS_MAX).map(|(record, part)| job(record, part)).collect()
    }

    /// The names that may be shown: what callers write is theirs, unless it names what is served, or was.
    fn nameable<'a>(&'a self, known: &'a Known) -> BTreeSet<&'a str> {
        let ordered = self.records().filter(|record| record.was_ordered).map(|record| &*record.model);
        let served = known.models.iter().map(String::as_str);
        ordered.chain(served).filter(|name| !name.is_empty()).collect()
    }
}

impl Record {
    fn add(&self, count: &mut Count) {
        match &self.outcome {
            Outcome::Answered => count.answered += 1,
            Outcome::Failed { .. } => count.failed += 1,
            Outcome::Refused | Outcome::Left | Outcome::Stopped | Outcome::Nothing => {}
        }
    }

    fn count(&self, span: &mut Span) {
        self.add(&mut span.count);
        match &self.outcome {
            Outcome::Failed { by, .. } => span.failed_by.add(*by),
            Outcome::Refused => span.refused += 1,
            Outcome::Left => span.left += 1,
            Outcome::Answered | Outcome::Stopped | Outcome::Nothing => {}
        }
        span.handed_over += u64::from(self.handovers > 0);
    }
}

impl Count {
    /// Which part was answered; none of nothing.
    pub(crate) fn share(self) -> Option<f64> {
        let all = self.answered + self.failed;
        (all > 0).then(|| self.answered as f64 / all as f64)
    }
}

impl FailedBy {
    pub(super) fn add(&mut self, party: Party) {
        *match party {
            Party::Worker => &mut self.worker,
            Party::Gateway => &mut self.gateway,
            Party::Network => &mut self.network,
            Party::Unknown => &mut self.unknown,
        } += 1;
    }
}

impl Orders {
    fn add(&mut self, end: PartEnd) {
        *match end {
            PartEnd::Finished => &mut self.finished,
            PartEnd::Failed => &mut self.failed,
            PartEnd::Declined => &mut self.declined,
        } += 1;
    }
}

/// Spans of one length, the last of which holds now.
struct Buckets {
    ms: u64,
    buckets: Vec<Bucket>,
}

impl Buckets {
    fn new(now_ms: u64, ms: u64, count: u64) -> Buckets {
        let last = now_ms / ms;
        let bucket = |number| Bucket { from_ms: number * ms, count: Count::default() };
        Buckets { ms, buckets: (last.saturating_sub(count - 1)..=last).map(bucket).collect() }
    }

    fn of(&mut self, ms: u64) -> Option<&mut Count> {
        let first_ms = self.buckets.first()?.from_ms;
        let index = ms.checked_sub(first_ms)? / self.ms;
        self.buckets.get_mut(index as usize).map(|bucket| &mut bucket.count)
    }
}
