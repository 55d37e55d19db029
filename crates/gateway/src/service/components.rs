//! Components: how each part of the service is, computed from what is the case.
//!
//! In:     the workers and models as they are, what became of requests, how the ledger answers. Out: a state for each part, and why.
//! Touches: nothing: the same facts give the same states.
//! Holds:  nobody sets a state by hand; what is not part of this network is said to be none, and what is not known to be unknown.
//! Absent: incidents (`incidents`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;
use surety_types::ModelId;
use utoipa::ToSchema;

use super::report::{Count, ServiceReport};
use crate::api::shapes::{Model, WorkerReport};

/// The ledger's newest block may be known for so long …
const LEDGER_QUIET_MAX: Duration = Duration::from_secs(15);
/// … and for so long, before it is said to stand still.
const LEDGER_SILENT_MAX: Duration = Duration::from_secs(60);
/// Of an hour's requests, the shares that must be answered.
const DEGRADED_BELOW: f64 = 0.99;
const PARTIAL_BELOW: f64 = 0.90;
/// Fewer requests than that say nothing of a share.
const REQUESTS_MIN: u64 = 5;

/// How a part is; the worst last, of those that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// This network has no such part.
    None,
    /// It cannot be told.
    Unknown,
    /// It does what it is for.
    Operational,
    /// It goes, and is being taken out in order.
    Maintenance,
    /// It does, with less to fall back on, or more slowly, or not always.
    Degraded,
    /// Some of it does not.
    PartialOutage,
    /// It does not.
    MajorOutage,
}

/// How a part of the service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Component {
    /// `api`, `routing`, `model`, `verification`, `settlement` or `governance`.
    pub kind: &'static str,
    /// What it is called: a model's name, for one.
    pub name: String,
    pub state: State,
    /// What that is concluded from, in sentences.
    pub because: Vec<String>,
    /// Unix milliseconds: of a model that nobody serves any more, the last that this gateway knows of it, which is when it was answered
    /// or, if somebody looked meanwhile, seen served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
}

/// How the ledger answers this gateway.
#[derive(Debug, Clone)]
pub(crate) struct LedgerFacts {
    pub(crate) block: Option<u64>,
    /// Since the newest block was first seen.
    pub(crate) quiet: Option<Duration>,
    pub(crate) problem: Option<String>,
}

/// What is the case.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// Whether new requests are taken.
    pub(crate) is_open: bool,
    pub(crate) workers: &'a [WorkerReport],
    pub(crate) models: &'a [Model],
    /// Unix milliseconds: when names were seen served, as long as somebody looked.
    pub(crate) seen: &'a BTreeMap<String, u64>,
    pub(crate) ledger: Option<LedgerFacts>,
    pub(crate) report: &'a ServiceReport,
}

/// How every part is, models by name.
pub(crate) fn components(facts: &Facts<'_>) -> Vec<Component> {
    let mut all = vec![api(facts), routing(facts)];
    all.extend(models(facts));
    all.extend(models_gone(facts));
    all.extend([verification(facts), settlement(facts), governance(facts)]);
    all
}

/// The worst of what is known.
pub(crate) fn overall(components: &[Component]) -> State {
    components.iter().map(|component| component.state).max().unwrap_or(State::Unknown)
}

fn component(kind: &'static str, name: &str, state: State, because: Vec<String>) -> Component {
    Component { kind, name: name.to_owned(), state, because, since_ms: None }
}

fn api(facts: &Facts<'_>) -> Component {
    const NAME: &str = "API";
    if !facts.is_open {
        return component(
            "api",
            NAME,
            State::Maintenance,
            vec!["The gateway is stopping and takes no new requests.".into()],
        );
    }
    let [hour, ..] = facts.report.spans;
    let own = hour.failed_by.gateway;
    let state = by_share(Count { answered: hour.count.answered, failed: own });
    let because = match own {
        0 => "The gateway answers; nothing failed by its doing in the last hour.".to_owned(),
        own => format!("The gateway answers; {} in the last hour failed by its own doing.", requests(own)),
    };
    component("api", NAME, state, vec![because])
}

/// How well a share is; well, if it is one of too few.
fn by_share(count: Count) -> State {
    match count.share() {
        Some(share) if count.answered + count.failed >= REQUESTS_MIN && share < PARTIAL_BELOW => {
            State::PartialOutage
        }
        Some(share) if count.answered + count.failed >= REQUESTS_MIN && share < DEGRADED_BELOW => {
            State::Degraded
        }
        _ => State::Operational,
    }
}

fn requests(count: u64) -> String {
    format!("{count} {}", if count == 1 { "request" } else { "requests" })
}

fn workers(count: usize) -> String {
    format!("{count} {}", if count == 1 { "worker" } else { "workers" })
}

/// Workers by how they are: ready and taken, ready and resting after failures, starting, draining, unreachable.
fn census<'a>(workers: impl Iterator<Item = &'a WorkerReport>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for worker in workers {
        let how = match worker.state {
            "ready" if worker.measured.breaker != "closed" => "resting",
            state => state,
        };
        *counts.entry(how).or_default() += 1;
    }
    counts
}

/// How what such workers do is, and why.
fn by_census(census: &BTreeMap<&'static str, usize>) -> (State, Vec<String>) {
    let of = |how| census.get(how).copied().unwrap_or(0);
    let (all, ready): (usize, usize) = (census.values().sum(), of("ready"));
    let mut because = vec![format!("{ready} of {} ready.", workers(all))];
    for (how, words) in [
        ("resting", "resting after failures"),
        ("starting", "starting"),
        ("draining", "leaving in order"),
        ("unreachable", "not to be reached"),
    ] {
        if of(how) > 0 {
            because.push(format!("{} {words}.", workers(of(how))));
        }
    }
    let state = match ready {
        0 if all > 0 && of("draining") == all => State::Maintenance,
        0 if of("resting") > 0 => State::PartialOutage,
        0 => State::MajorOutage,
        _ if of("unreachable") + of("resting") > 0 => State::Degraded,
        _ => State::Operational,
    };
    (state, because)
}

fn routing(facts: &Facts<'_>) -> Component {
    let (state, mut because) = by_census(&census(facts.workers.iter()));
    let [hour, ..] = facts.report.spans;
    if hour.handed_over > 0 {
        let handed_over = requests(hour.handed_over);
        because
            .push(format!("In the last hour another worker went on with {handed_over}, to the end or not."));
    }
    component("routing", "Routing", state, because)
}

fn models(facts: &Facts<'_>) -> Vec<Component> {
    let serves = |worker: &&WorkerReport, id: &str| worker.models.iter().any(|model| model.id == id);
    let one = |model: &Model| {
        let id = model.surety.id.as_str();
        let serving = || facts.workers.iter().filter(|worker| serves(worker, id));
        let (mut state, mut because) = by_census(&census(serving()));
        let operators: BTreeSet<&str> =
            serving().map(|worker| worker.operator.as_deref().unwrap_or(&worker.id)).collect();
        if operators.len() == 1 && state == State::Operational {
            because.push("One operator serves it: nobody else could go on.".to_owned());
        }
        let service = facts.report.models.iter().find(|service| service.model == model.id);
        if let Some(hour) = service.map(|service| service.spans[0]).filter(|hour| hour.share().is_some()) {
            because.push(format!(
                "{} of {} in the last hour answered whole, checked and in time.",
                hour.answered,
                requests(hour.answered + hour.failed),
            ));
            // Of what cannot be answered now nothing is better for what was answered before.
            state = state.max(by_share(hour));
        }
        component("model", &model.id, state, because)
    };
    facts.models.iter().map(one).collect()
}

/// What was answered here within a day and is served by nobody. That it was ordered shows that a worker once had it by that name.
fn models_gone(facts: &Facts<'_>) -> impl Iterator<Item = Component> {
    let is_served = |name: &str| {
        let id = name.parse::<ModelId>().map(|id| id.to_string()).ok();
        facts.models.iter().any(|model| model.id == name || Some(&model.surety.id) == id.as_ref())
    };
    let gone = facts.report.models.iter().filter(move |service| !is_served(&service.model));
    gone.filter_map(|service| {
        let [_, day, _] = service.spans;
        let answered_ms = service.answered_ms.filter(|_| day.answered > 0)?;
        let seen_ms = facts.seen.get(&service.model).copied();
        let because = "No worker that is known serves it any more.".to_owned();
        let gone = component("model", &service.model, State::MajorOutage, vec![because]);
        Some(Component { since_ms: seen_ms.max(Some(answered_ms)), ..gone })
    })
}

/// How the ledger is, and why; nothing if there is none.
fn ledger(facts: &Facts<'_>) -> Option<(State, String)> {
    let ledger = facts.ledger.as_ref()?;
    let known = match ledger.block {
        Some(block) => format!("block {block} is the newest that is known"),
        None => "no block is known yet".to_owned(),
    };
    Some(match (ledger.quiet, &ledger.problem) {
        (Some(quiet), _) if quiet > LEDGER_SILENT_MAX => (
            State::MajorOutage,
            format!("The ledger stands still or cannot be asked, for more than a minute: {known}."),
        ),
        (_, Some(problem)) => {
            (State::MajorOutage, format!("The ledger cannot be used: {problem} ({known})."))
        }
        (Some(quiet), None) if quiet > LEDGER_QUIET_MAX => {
            (State::PartialOutage, format!("The ledger has shown no new block for a while: {known}."))
        }
        (Some(_), None) => {
            (State::Operational, "The ledger goes on, as two thirds of its validators signed.".to_owned())
        }
        (None, None) => (State::Unknown, "The ledger was not heard yet.".to_owned()),
    })
}

fn verification(facts: &Facts<'_>) -> Component {
    const NAME: &str = "Verification";
    let checked = "Every receipt's signatures are checked before an answer is sent to its end.".to_owned();
    match ledger(facts) {
        None => {
            let alone = "Without a ledger nobody audits or judges receipts: `surety verify --recompute` computes an answer again.";
            component("verification", NAME, State::Operational, vec![checked, alone.to_owned()])
        }
        Some((State::Operational, _)) => {
            let audits = "Audits and disputes go on by the ledger's rules.".to_owned();
            component("verification", NAME, State::Operational, vec![checked, audits])
        }
        Some((state, why)) => {
            let waits = format!("Audits and disputes wait for the ledger. {why}");
            component("verification", NAME, state.min(State::Degraded), vec![checked, waits])
        }
    }
}

fn settlement(facts: &Facts<'_>) -> Component {
    const NAME: &str = "Settlement";
    match ledger(facts) {
        None => component(
            "settlement",
            NAME,
            State::None,
            vec!["This gateway uses no ledger: nobody is paid.".into()],
        ),
        Some((state, why)) => component("settlement", NAME, state, vec![why]),
    }
}

fn governance(facts: &Facts<'_>) -> Component {
    const NAME: &str = "Governance";
    match ledger(facts) {
        None => component(
            "governance",
            NAME,
            State::None,
            vec!["This gateway uses no ledger: nothing is voted on.".into()],
        ),
        Some((State::Operational, _)) => {
            let because = "Votes and proposals are taken as long as blocks are made.".to_owned();
            component("governance", NAME, State::Operational, vec![because])
        }
        Some((state, why)) => component("governance", NAME, state, vec![why]),
    }
}
