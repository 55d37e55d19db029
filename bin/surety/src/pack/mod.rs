//! The evidence pack: what happened in a span of time, for whoever reviews a gateway and its network.
//!
//! In:     what the gateway noted of requests (`access`), what happened on the ledger (`events`), who runs workers there.
//! Out:    access log, changes, incidents, service levels, audits, operators; each entry with what it rests on.
//! Touches: nothing.
//! Holds:  no text of a prompt or an answer; what is not known is listed, and null, never nothing or zero.
//! Absent: where it comes from and where it is written (`commands/evidence`).

pub mod access;
pub mod events;
pub mod moment;

use std::collections::BTreeMap;

use serde::Serialize;
use surety_types::PublicKey;

use access::{Access, Ended, Entry};
use events::{Chain, Happening, Subject};
use moment::Moment;

/// The version of the file.
pub const VERSION: u32 = 1;
/// Failures alike that follow one another within this are one incident, in milliseconds.
const INCIDENT_GAP_MS: u64 = 10 * 60 * 1000;
/// What one incident names of what it rests on.
const REFERENCES_MAX: usize = 20;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Pack {
    /// [`VERSION`]. Named so that no other file of ours is taken for one.
    pub surety_evidence: u32,
    pub from: Moment,
    pub to: Moment,
    /// The gateway whose word the access log is.
    pub gateway: Option<PublicKey>,
    /// What was asked and what became of it; null if it is not known.
    pub access: Option<Vec<Entry>>,
    /// Upgrades, parameters, votes, keys, models; null if the ledger is not known.
    pub changes: Option<Vec<Happening>>,
    pub incidents: Vec<Incident>,
    pub objective: Objective,
    /// By model and by worker; null if the access log is not known.
    pub attainment: Option<Attainment>,
    /// Receipts drawn, computed again, disputed, and what came of it; null if the ledger is not known.
    pub verification: Option<Vec<Happening>>,
    pub operators: Vec<Operator>,
    /// What nobody looked at, or could.
    pub not_known: Vec<String>,
}

/// Something that went wrong, and was nobody's own request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    pub from: Moment,
    pub to: Moment,
    pub what: String,
    /// As explanations name it, or `operator` for what the ledger decided.
    pub accountable: String,
    pub worker: Option<PublicKey>,
    pub operator: Option<String>,
    pub count: u64,
    /// Files of the pack, or transactions; the first of them.
    pub evidence: Vec<String>,
}

/// What an answer is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Objective {
    /// From the request to its last byte, by the gateway's clock.
    pub latency_ms_max: u64,
}

/// How far the objective was met. An answer counts if it is whole, its receipts hold, and it came in time; a request that failed by
/// its caller's doing counts for nothing.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attainment {
    pub all: Level,
    pub models: BTreeMap<String, Level>,
    /// By worker: what it had accepted or signed for, and whether it brought that to its end.
    pub workers: BTreeMap<PublicKey, Level>,
    /// By operator, as far as the ledger names one; the rest as `unknown`.
    pub operators: BTreeMap<String, Level>,
}

/// A share of so many.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Level {
    pub counted: u64,
    pub good: u64,
    /// Of those that are not good: came whole and verified, and too late.
    pub late: u64,
    /// Left out: ended by the caller's own doing.
    pub callers: u64,
}

impl Level {
    fn add(&mut self, entry: &Entry, objective: Objective) {
        if entry.accountable == "caller" {
            self.callers += 1;
            return;
        }
        self.counted += 1;
        let whole = entry.end == Ended::Answered && entry.verified;
        match (whole, entry.took_ms <= objective.latency_ms_max) {
            (true, true) => self.good += 1,
            (true, false) => self.late += 1,
            (false, _) => {}
        }
    }

    /// Of ten thousand counted so many are good; none if nothing was counted.
    pub fn per_ten_thousand(&self) -> Option<u64> {
        (self.good * 10_000).checked_div(self.counted)
    }
}

/// Who runs workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// Its account; null for workers that the ledger does not name.
    pub account: Option<String>,
    pub name: Option<String>,
    pub workers: Vec<Host>,
}

/// A worker of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    pub worker: PublicKey,
    /// Where it says that it is, in what it signed last; nobody checks that, and `unknown` if it said nothing.
    pub region: String,
    /// Whether it answered anything in this span, by this gateway's log.
    pub served: bool,
}

/// Puts it together.
pub fn pack(
    from: Moment,
    to: Moment,
    access: Result<Access, String>,
    chain: Result<Chain, String>,
    objective: Objective,
) -> Pack {
    let mut not_known = vec![
        "prompts and answers: no text is in here; each answer's own evidence is at the gateway (/v1/receipts/ID)".to_owned(),
        "requests that came while the gateway did not run, or that its journal keeps no more".to_owned(),
        "whether an answer is what the model gives, unless an audit of it is listed as passed".to_owned(),
        "whether workers are where they say: regions are their own word".to_owned(),
    ];
    let access =
        access.map_err(|why| not_known.push(format!("what was asked, and service levels: {why}"))).ok();
    let chain = chain.map_err(|why| not_known.push(format!("changes, audits and operators: {why}"))).ok();
    if chain.is_some() {
        not_known.push(
            "whether nodes left events out: each names its transaction, and their absence is the nodes' word"
                .to_owned(),
        );
    }
    let operator_of: BTreeMap<PublicKey, String> = chain
        .iter()
        .flat_map(|chain| &chain.operators)
        .flat_map(|operator| operator.workers.iter().map(|worker| (*worker, operator.account.clone())))
        .collect();
    let entries = access.as_ref().map(|access| access.entries.clone());
    let attainment = entries.as_ref().map(|entries| attainment(entries, &operator_of, objective));
    let mut incidents = entries.as_deref().map(|entries| failures(entries, &operator_of)).unwrap_or_default();
    let happened = chain.as_ref().map(|chain| chain.happenings.as_slice()).unwrap_or_default();
    incidents.extend(happened.iter().filter(|happening| happening.incident).map(|happening| Incident {
        from: happening.at,
        to: happening.at,
        what: happening.what.clone(),
        accountable: "operator".to_owned(),
        worker: None,
        operator: happening.operator.clone(),
        count: 1,
        evidence: vec![happening.reference.clone()],
    }));
    incidents.sort_by_key(|incident| incident.from);
    let of = |subject: Subject| {
        let wanted = happened.iter().filter(|happening| happening.subject == subject).cloned();
        chain.is_some().then(|| wanted.collect::<Vec<_>>())
    };
    let (changes, mut verification) = (of(Subject::Change), of(Subject::Verification));
    if let (Some(verification), Some(access)) = (&mut verification, &access) {
        // What is known of a receipt here is said beside what the ledger says of it.
        for happening in verification.iter_mut() {
            let request = happening.receipt.as_ref().and_then(|receipt| access.receipts.get(receipt));
            happening.request_id = request.cloned();
        }
    }
    let operators = operators(access.as_ref(), chain.as_ref());
    Pack {
        surety_evidence: VERSION,
        from,
        to,
        gateway: access.as_ref().and_then(|access| access.gateway),
        access: entries,
        changes,
        incidents,
        objective,
        attainment,
        verification,
        operators,
        not_known,
    }
}

fn attainment(
    entries: &[Entry],
    operator_of: &BTreeMap<PublicKey, String>,
    objective: Objective,
) -> Attainment {
    let mut found = Attainment::default();
    for entry in entries {
        found.all.add(entry, objective);
        if !entry.model.is_empty() {
            found.models.entry(entry.model.clone()).or_default().add(entry, objective);
        }
        for part in &entry.parts {
            let operator = operator_of.get(&part.worker).map_or("unknown", String::as_str).to_owned();
            for level in
                [found.workers.entry(part.worker).or_default(), found.operators.entry(operator).or_default()]
            {
                level.counted += 1;
                level.good += u64::from(part.answered);
            }
        }
    }
    found
}

/// Failures that were not their callers' doing, those alike and close together as one.
fn failures(entries: &[Entry], operator_of: &BTreeMap<PublicKey, String>) -> Vec<Incident> {
    let mut found: Vec<Incident> = Vec::new();
    for entry in entries.iter().filter(|entry| !matches!(entry.accountable.as_str(), "caller" | "nobody")) {
        let what = entry.code.clone().unwrap_or_else(|| entry.end.name().to_owned());
        let alike = found.iter_mut().rev().find(|incident| {
            (incident.what == what
                && incident.accountable == entry.accountable
                && incident.worker == entry.worker)
                && entry.ended.0.saturating_sub(incident.to.0) <= INCIDENT_GAP_MS
        });
        match alike {
            Some(incident) => {
                incident.to = incident.to.max(entry.ended);
                incident.count += 1;
                if incident.evidence.len() < REFERENCES_MAX {
                    incident.evidence.push(entry.evidence.clone());
                }
            }
            None => found.push(Incident {
                from: entry.received,
                to: entry.ended,
                what,
                accountable: entry.accountable.clone(),
                worker: entry.worker,
                operator: entry.worker.and_then(|worker| operator_of.get(&worker).cloned()),
                count: 1,
                evidence: vec![entry.evidence.clone()],
            }),
        }
    }
    found
}

fn operators(access: Option<&Access>, chain: Option<&Chain>) -> Vec<Operator> {
    let region = |worker: &PublicKey| {
        let said = access.and_then(|access| access.regions.get(worker)).cloned().flatten();
        said.unwrap_or_else(|| "unknown".to_owned())
    };
    let served = |worker: &PublicKey| access.is_some_and(|access| access.regions.contains_key(worker));
    let host = |worker: &PublicKey| Host { worker: *worker, region: region(worker), served: served(worker) };
    let named = chain.iter().flat_map(|chain| &chain.operators);
    let mut found: Vec<Operator> = named
        .map(|operator| Operator {
            account: Some(operator.account.clone()),
            name: Some(operator.name.clone()),
            workers: operator.workers.iter().map(host).collect(),
        })
        .collect();
    let known = |worker: &&PublicKey| {
        !found.iter().any(|operator| operator.workers.iter().any(|host| host.worker == **worker))
    };
    let others: Vec<Host> =
        access.iter().flat_map(|access| access.regions.keys()).filter(known).map(host).collect();
    if !others.is_empty() {
        found.push(Operator { account: None, name: None, workers: others });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::access::Share;
    use super::events::NamedOperator;
    use super::*;

    fn worker(number: u8) -> PublicKey {
        PublicKey([number; 32])
    }

    fn entry(at_ms: u64, accountable: &str, end: Ended, took_ms: u64) -> Entry {
        Entry {
            request_id: format!("req_{at_ms}"),
            received: Moment(at_ms),
            ended: Moment(at_ms + took_ms),
            took_ms,
            key: None,
            path: "/v1/chat/completions".into(),
            model: "m".into(),
            end,
            code: (end == Ended::Failed).then(|| "worker_lost".to_owned()),
            verdict: String::new(),
            accountable: accountable.into(),
            basis: "signatures".into(),
            worker: (accountable == "worker").then(|| worker(1)),
            verified: end == Ended::Answered,
            parts: vec![Share { worker: worker(1), output_tokens: 3, answered: end == Ended::Answered }],
            charge: "0".into(),
            evidence: format!("requests/req_{at_ms}.json"),
        }
    }

    fn access(entries: Vec<Entry>) -> Access {
        let regions = BTreeMap::from([(worker(1), Some("eu-de".to_owned())), (worker(2), None)]);
        Access { gateway: None, entries, receipts: BTreeMap::new(), regions }
    }

    fn chain() -> Chain {
        let operators =
            vec![NamedOperator { account: "0x01".into(), name: "one".into(), workers: vec![worker(1)] }];
        Chain { happenings: Vec::new(), operators }
    }

    const OBJECTIVE: Objective = Objective { latency_ms_max: 1_000 };

    fn packed(entries: Vec<Entry>) -> Pack {
        pack(Moment(0), Moment(1 << 40), Ok(access(entries)), Ok(chain()), OBJECTIVE)
    }

    #[test]
    fn an_answer_counts_if_it_is_whole_and_verified_and_in_time() {
        let found = packed(vec![
            entry(0, "nobody", Ended::Answered, 500),
            entry(1, "nobody", Ended::Answered, 1_001),
            entry(2, "worker", Ended::Failed, 10),
            // Whole, and a worker broke off on the way.
            entry(3, "worker", Ended::Answered, 900),
            entry(4, "caller", Ended::Failed, 1),
            Entry { verified: false, ..entry(5, "unknown", Ended::Answered, 5) },
        ]);
        let levels = found.attainment.expect("known");
        assert_eq!(levels.all, Level { counted: 5, good: 2, late: 1, callers: 1 });
        assert_eq!((levels.all.per_ten_thousand(), levels.models["m"]), (Some(4_000), levels.all));
        assert_eq!(levels.workers[&worker(1)], Level { counted: 6, good: 4, ..Level::default() });
        assert_eq!(levels.operators["0x01"], levels.workers[&worker(1)]);
        assert_eq!(Level::default().per_ten_thousand(), None);
    }

    #[test]
    fn failures_alike_and_close_together_are_one_incident() {
        let failed = |at_ms| entry(at_ms, "worker", Ended::Failed, 10);
        let found = packed(vec![
            failed(0),
            entry(5, "caller", Ended::Failed, 1),
            failed(1_000),
            failed(1_000 + 2 * INCIDENT_GAP_MS),
            entry(7, "nobody", Ended::Answered, 1),
        ]);
        let counts: Vec<u64> = found.incidents.iter().map(|incident| incident.count).collect();
        assert_eq!(counts, [2, 1]);
        let first = &found.incidents[0];
        assert_eq!((first.what.as_str(), first.operator.as_deref()), ("worker_lost", Some("0x01")));
        assert_eq!(first.evidence, ["requests/req_0.json", "requests/req_1000.json"]);
    }

    #[test]
    fn what_is_not_known_is_said_and_null() {
        let found = pack(Moment(0), Moment(1), Err("no gateway".into()), Err("no ledger".into()), OBJECTIVE);
        assert!(found.access.is_none() && found.attainment.is_none() && found.changes.is_none());
        for why in ["no gateway", "no ledger"] {
            assert!(found.not_known.iter().any(|line| line.contains(why)), "{:?}", found.not_known);
        }
    }

    #[test]
    fn operators_are_listed_with_the_regions_their_workers_signed() {
        let found = packed(vec![entry(0, "nobody", Ended::Answered, 1)]).operators;
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].account.as_deref(), found[0].workers[0].region.as_str()),
            (Some("0x01"), "eu-de")
        );
        assert_eq!((&found[1].account, found[1].workers[0].region.as_str()), (&None, "unknown"));
    }
}
