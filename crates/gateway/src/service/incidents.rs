//! Incidents: when requests were not answered, and by whose doing.
//!
//! In:     what requests came to. Out: what failed alike and close together, as one, the latest first.
//! Touches: nothing.
//! Holds:  it is this gateway's word on who is accountable, as in the statements that `surety explain` reads; nobody is named by it.
//! Absent: verdicts. Those are `surety explain`'s, from what the parties signed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Outcome, Record, STOOD_STILL, STOPPED,
    report::{Count, FailedBy},
};
use crate::catalogue;

/// What fails alike after no longer a pause belongs to the same incident.
const PAUSE_MS: u64 = 10 * 60 * 1000;
/// How many are shown.
const SHOWN_MAX: usize = 50;
/// Those that are looked at for it, the latest.
const LOOKS_MAX: usize = 4096;

/// Requests that failed alike, close together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Incident {
    /// Unix milliseconds: the first and the last of them ended.
    pub began_ms: u64,
    pub ended_ms: u64,
    /// Whether none has failed so for ten minutes.
    pub is_over: bool,
    /// The stable code that callers were told; or `gateway_stood_still`, `gateway_ended`.
    pub code: String,
    /// What that means.
    pub means: String,
    /// The name that was asked for; null if none, or none that is known here.
    pub model: Option<String>,
    /// Between the first and the last: those that failed so, and those for the same model that were answered.
    #[serde(flatten)]
    pub count: Count,
    /// By whose doing, by this gateway's word.
    pub failed_by: FailedBy,
}

/// One that further failures may belong to.
struct Open {
    incident: Incident,
    /// Answers for the model when it began.
    answered_before: u64,
}

/// What failed alike, the latest first. Names that are not in `named` are not told.
pub(super) fn incidents<'a>(
    records: impl Iterator<Item = &'a Record>,
    named: &BTreeSet<&str>,
    now_ms: u64,
) -> Vec<Incident> {
    let mut answered: BTreeMap<&str, u64> = BTreeMap::new();
    let mut open: BTreeMap<(&str, &str), Open> = BTreeMap::new();
    let mut over: Vec<Incident> = Vec::new();
    for record in records {
        let model = if named.contains(&*record.model) { &*record.model } else { "" };
        let (code, by) = match &record.outcome {
            Outcome::Answered => {
                *answered.entry(model).or_default() += 1;
                continue;
            }
            Outcome::Failed { code, by } => (&**code, *by),
            Outcome::Refused | Outcome::Left | Outcome::Stopped | Outcome::Nothing => continue,
        };
        let answers = answered.get(model).copied().unwrap_or(0);
        let key = (code, model);
        let belongs = |open: &Open| record.ended_ms <= open.incident.ended_ms.saturating_add(PAUSE_MS);
        if !open.get(&key).is_some_and(belongs) {
            let begun = Open { incident: begun(code, model, record.ended_ms), answered_before: answers };
            over.extend(open.insert(key, begun).map(|before| before.incident));
        }
        if let Some(Open { incident, answered_before }) = open.get_mut(&key) {
            incident.ended_ms = incident.ended_ms.max(record.ended_ms);
            incident.count.failed += 1;
            incident.count.answered = answers - *answered_before;
            incident.failed_by.add(by);
        }
        if over.len() > LOOKS_MAX {
            over.drain(..LOOKS_MAX / 2);
        }
    }
    over.extend(open.into_values().map(|open| open.incident));
    over.sort_by_key(|incident| std::cmp::Reverse((incident.ended_ms, incident.began_ms)));
    over.truncate(SHOWN_MAX);
    for incident in &mut over {
        incident.is_over = incident.ended_ms.saturating_add(PAUSE_MS) < now_ms;
    }
    over
}

fn begun(code: &str, model: &str, at_ms: u64) -> Incident {
    let means = match catalogue::explained(code) {
        Some(explained) => explained.means,
        None if code == STOOD_STILL => "The gateway itself stood still, and lost what it was answering.",
        None if code == STOPPED => "The gateway ended in the middle of it.",
        None => "",
    };
    Incident {
        began_ms: at_ms,
        ended_ms: at_ms,
        is_over: false,
        code: code.to_owned(),
        means: means.to_owned(),
        model: (!model.is_empty()).then(|| model.to_owned()),
        count: Count::default(),
        failed_by: FailedBy::default(),
    }
}
