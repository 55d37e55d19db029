use std::collections::BTreeMap;

use proptest::prelude::*;
use surety_types::{Amount, PublicKey, StatedEvent, Text};

use super::{
    report::{Count, FailedBy, Known, Orders},
    *,
};

const NOW_MS: u64 = 1_800_000_000_000;

fn event(what: What, worker: u8) -> StatedEvent {
    let worker = Some(PublicKey([worker; 32]));
    StatedEvent { at_ms: NOW_MS, what, worker, order: None, tokens: 0, why: Text::clipped("") }
}

fn failed(code: &str, accountable: &str) -> StatedEnd {
    let message = Text::clipped("No.");
    StatedEnd::Failed {
        code: Text::clipped(code),
        message,
        accountable: Text::clipped(accountable),
        worker: None,
    }
}

fn statement(id: u128, model: &str, ago_ms: u64, end: StatedEnd, events: Vec<StatedEvent>) -> Statement {
    Statement {
        request_id: format!("req_{id:032x}"),
        gateway: PublicKey([1; 32]),
        path: Text::clipped("/v1/chat/completions"),
        model_name: model.to_owned(),
        received_ms: NOW_MS - ago_ms - 100,
        ended_ms: NOW_MS - ago_ms,
        end,
        charge: Amount(0),
        decisions: Vec::new(),
        events,
        left_out: 0,
    }
}

fn tally(statements: &[Statement]) -> Tally {
    let mut tally = Tally::default();
    statements.iter().for_each(|statement| tally.take(statement));
    tally
}

#[test]
fn what_was_said_last_of_a_request_counts_and_what_callers_do_does_not() {
    let ordered = || vec![event(What::Ordered, 2), event(What::Finished, 2)];
    let minute = 60_000;
    let mut tally = tally(&[
        statement(1, "tiny:verified", 40 * DAY_MS, StatedEnd::Answered, ordered()),
        statement(2, "tiny", 2 * HOUR_MS, StatedEnd::Stopped, vec![event(What::Ordered, 2)]),
        statement(3, "tiny@12345678", 3 * minute, StatedEnd::Answered, ordered()),
        statement(4, "my own secret", 3 * minute, failed("model_unknown", "caller"), vec![]),
        statement(5, "tiny", 2 * minute, failed("no_worker", "unknown"), vec![event(What::Declined, 2)]),
        statement(6, "tiny", minute, StatedEnd::Left, vec![event(What::Ordered, 2)]),
        statement(7, "", minute, StatedEnd::Counted, vec![]),
        statement(
            2,
            "tiny",
            minute,
            StatedEnd::Answered,
            [ordered(), vec![event(What::HandedOver, 3)]].concat(),
        ),
        statement(8, "tiny", 0, StatedEnd::Stopped, vec![event(What::Ordered, 2)]),
        statement(9, "my other secret", 0, failed("gateway_bug", "gateway"), vec![]),
    ]);
    tally.forget(NOW_MS - MONTH_MS);
    tally.settle(|id| id == 8);
    let operators = BTreeMap::from([(PublicKey([2; 32]), "0xabc".to_owned())]);
    let report = tally.report(NOW_MS, &Known { operators, models: ["idle".to_owned()].into() });
    let [hour, day, month] = report.spans;
    assert_eq!(hour.count, Count { answered: 2, failed: 2 });
    assert_eq!((day.count, month.count), (hour.count, hour.count));
    assert_eq!(hour.failed_by, FailedBy { gateway: 1, unknown: 1, ..FailedBy::default() });
    assert_eq!((hour.refused, hour.left, hour.handed_over), (1, 1, 1));
    let models: Vec<_> = report.models.iter().map(|model| (model.model.as_str(), model.spans[0])).collect();
    assert_eq!(models, [("tiny", Count { answered: 2, failed: 1 })]);
    let [operator] = &report.operators[..] else { panic!("one operator, not {:?}", report.operators) };
    assert_eq!(
        (operator.operator.as_deref(), operator.spans[0]),
        (Some("0xabc"), Orders { finished: 2, failed: 0, declined: 1 })
    );
    let incidents: Vec<_> = report
        .incidents
        .iter()
        .map(|found| (found.code.as_str(), found.model.as_deref(), found.count.failed))
        .collect();
    assert_eq!(incidents, [("gateway_bug", None, 1), ("no_worker", Some("tiny"), 1)]);
    let told = serde_json::to_string(&report).expect("JSON");
    assert!(!told.contains("secret") && !told.contains("req_"), "{told}");

    // What was under way when its gateway was killed has no other end.
    tally.settle(|_| false);
    let report = tally.report(NOW_MS, &Known::default());
    assert_eq!(report.spans[0].failed_by.gateway, 2);
    assert_eq!(report.incidents[0].code, "gateway_bug");
    assert!(report.incidents.iter().any(|found| found.code == STOPPED && !found.means.is_empty()));
}

#[test]
fn failures_alike_and_close_together_are_one_incident() {
    let minute = 60_000;
    let lost = |id, minutes, by: &str| {
        statement(id, "tiny", minutes * minute, failed("worker_lost", by), vec![event(What::Ordered, 2)])
    };
    let answered = |id, minutes| statement(id, "tiny", minutes * minute, StatedEnd::Answered, vec![]);
    let stood_still = vec![event(What::StoodStill, 2)];
    let tally = tally(&[
        lost(1, 100, "worker"),
        answered(2, 99),
        lost(3, 95, "unknown"),
        answered(4, 94),
        lost(5, 80, "worker"),
        statement(6, "", 5 * minute, failed("worker_stalled", "worker"), stood_still),
    ]);
    let found = tally.report(NOW_MS, &Known::default()).incidents;
    let shown: Vec<_> = found.iter().map(|one| (one.code.as_str(), one.count, one.is_over)).collect();
    assert_eq!(
        shown,
        [
            (STOOD_STILL, Count { answered: 0, failed: 1 }, false),
            ("worker_lost", Count { answered: 0, failed: 1 }, true),
            ("worker_lost", Count { answered: 1, failed: 2 }, true),
        ]
    );
    assert_eq!(found[0].failed_by, FailedBy { gateway: 1, ..FailedBy::default() });
    assert_eq!(found[2].failed_by, FailedBy { worker: 1, unknown: 1, ..FailedBy::default() });
    assert_eq!(found[2].ended_ms - found[2].began_ms, 5 * minute);
    assert!(found.iter().all(|one| !one.means.is_empty()));
}

fn any_end() -> impl Strategy<Value = StatedEnd> {
    prop_oneof![
        Just(StatedEnd::Answered),
        Just(StatedEnd::Left),
        Just(StatedEnd::Stopped),
        Just(StatedEnd::Counted),
        ("[a-c]", prop_oneof![Just("caller"), Just("worker"), Just("gateway"), Just("network"), Just("?")])
            .prop_map(|(code, by)| failed(&code, by)),
    ]
}

proptest! {
    /// Whatever is said in whatever order, each request counts once, and no count has more than there are.
    #[test]
    fn every_request_counts_once(
        said in prop::collection::vec((0u128..12, "[a-b]{0,2}(:floor|@x)?", 0u64..(40 * DAY_MS), any_end(), any::<bool>()), 0..60),
    ) {
        let statements: Vec<Statement> = said.iter().map(|(id, model, ago_ms, end, was_ordered)| {
            let events = if *was_ordered { vec![event(What::Ordered, 1), event(What::Finished, 1)] } else { vec![] };
            statement(*id, model, *ago_ms, end.clone(), events)
        }).collect();
        let mut tally = tally(&statements);
        tally.settle(|_| false);
        let ids: std::collections::BTreeSet<u128> = said.iter().map(|said| said.0).collect();
        let report = tally.report(NOW_MS, &Known::default());
        let [hour, day, month] = report.spans;
        let all = |count: Count| count.answered + count.failed;
        prop_assert!(all(hour.count) <= all(day.count) && all(day.count) <= all(month.count));
        prop_assert!(all(month.count) + month.refused + month.left <= ids.len() as u64);
        let by = month.failed_by;
        prop_assert_eq!(by.worker + by.gateway + by.network + by.unknown, month.count.failed);
        prop_assert!(report.models.iter().map(|model| all(model.spans[2])).sum::<u64>() <= all(month.count));
        prop_assert!(report.days.iter().map(|day| all(day.count)).sum::<u64>() <= all(month.count));
        prop_assert_eq!((report.hours.len(), report.days.len()), (24, 30));
        let records = tally.records().count();
        tally.forget(NOW_MS - MONTH_MS);
        prop_assert!(tally.records().count() <= records && tally.places.len() <= ids.len());
    }
}

mod parts {
    use crate::{
        api::shapes::{Measured, Model, ModelNote, WorkerModel, WorkerReport},
        service::{
            Tally,
            components::{Component, Facts, LedgerFacts, State, components, overall},
            report::Known,
        },
    };

    use surety_types::What;

    use super::{DAY_MS, HOUR_MS, NOW_MS, StatedEnd, event, failed, statement};

    fn worker(id: &str, state: &'static str, breaker: &'static str) -> WorkerReport {
        let served = WorkerModel {
            id: "blake3:1".into(),
            names: vec!["tiny".into()],
            context_tokens: 1,
            prefill_tokens_per_second: 0,
            decode_tokens_per_second: 0,
            batch_price: None,
        };
        let measured = Measured {
            answers: 0,
            failures: 0,
            reliability: 0.9,
            accepted_ms: None,
            breaker,
            breaker_pause_ms: None,
            orders: 0,
            orders_max: None,
            models: vec![],
        };
        WorkerReport {
            id: id.into(),
            address: String::new(),
            state,
            reason: None,
            software: None,
            active_requests: 0,
            waiting_requests: 0,
            last_seen_ms: None,
            models: vec![served],
            measured,
            operator: None,
            bonded: None,
            unsettled: None,
            region_claimed: None,
            offers: vec![],
            channel: None,
            comparisons: vec![],
        }
    }

    fn model() -> Model {
        let surety = ModelNote {
            id: "blake3:1".into(),
            architecture: "llama".into(),
            tier: "exact",
            note: None,
            claims: None,
            file_bytes: 1,
            formats: vec![],
            vocabulary: 1,
            chat: true,
            tools: false,
            embeddings: None,
            workers_ready: 0,
        };
        Model {
            id: "tiny".into(),
            object: "model",
            created: 0,
            owned_by: "surety",
            context_length: 1,
            surety,
        }
    }

    fn shown(
        workers: &[WorkerReport],
        ledger: Option<LedgerFacts>,
        is_open: bool,
        ends: &[(StatedEnd, usize)],
    ) -> Vec<Component> {
        let mut tally = Tally::default();
        let all = ends.iter().flat_map(|(end, count)| std::iter::repeat_n(end, *count)).enumerate();
        for (id, end) in all {
            tally.take(&statement(id as u128, "tiny", 1, end.clone(), vec![]));
        }
        let known = Known { operators: Default::default(), models: ["tiny".to_owned()].into() };
        let report = tally.report(NOW_MS, &known);
        let seen = Default::default();
        components(&Facts { is_open, workers, models: &[model()], seen: &seen, ledger, report: &report })
    }

    fn check(workers: &[(&'static str, &'static str)], ends: &[(StatedEnd, usize)], expected: [State; 3]) {
        let workers: Vec<_> =
            workers.iter().enumerate().map(|(index, how)| worker(&index.to_string(), how.0, how.1)).collect();
        let found = shown(&workers, None, true, ends);
        let state = |kind| found.iter().find(|part| part.kind == kind).map(|part| part.state);
        assert_eq!(
            ["api", "routing", "model"].map(|kind| state(kind).expect("a part")),
            expected,
            "{found:?}"
        );
        assert!(found.iter().all(|part| !part.because.is_empty()), "{found:?}");
        assert_eq!(state("settlement"), Some(State::None));
    }

    #[test]
    fn the_states_follow_from_the_facts() {
        use State::{Degraded, Maintenance, MajorOutage, Operational, PartialOutage};
        let (well, gone) = (("ready", "closed"), ("unreachable", "closed"));
        let answered = |count| (StatedEnd::Answered, count);
        let lost = |count| (failed("worker_lost", "worker"), count);
        let bug = |count| (failed("gateway_bug", "gateway"), count);
        check(&[well, well], &[], [Operational, Operational, Operational]);
        check(&[well, gone], &[], [Operational, Degraded, Degraded]);
        check(&[("ready", "open"), ("starting", "closed")], &[], [Operational, PartialOutage, PartialOutage]);
        check(&[gone, gone], &[], [Operational, MajorOutage, MajorOutage]);
        check(&[("draining", "closed")], &[], [Operational, Maintenance, Maintenance]);
        check(&[], &[], [Operational, MajorOutage, MajorOutage]);
        check(&[well, well], &[answered(98), lost(2)], [Operational, Operational, Degraded]);
        check(&[well, well], &[answered(8), lost(2)], [Operational, Operational, PartialOutage]);
        // So few say nothing.
        check(&[well, well], &[lost(4)], [Operational, Operational, Operational]);
        check(&[well, well], &[answered(8), bug(2)], [PartialOutage, Operational, PartialOutage]);
        let workers = [worker("1", "ready", "closed")];
        let stopping = shown(&workers, None, false, &[]);
        assert_eq!((stopping[0].state, overall(&stopping)), (Maintenance, Maintenance));
    }

    /// The models that are shown where nobody serves any, with when they were known last.
    fn gone(tally: &Tally, seen: &[(&str, u64)]) -> Vec<(String, u64)> {
        let report = tally.report(NOW_MS, &Known::default());
        let seen = seen.iter().map(|(name, ms)| ((*name).to_owned(), *ms)).collect();
        let facts =
            Facts { is_open: true, workers: &[], models: &[], seen: &seen, ledger: None, report: &report };
        let parts = components(&facts);
        let models = parts.into_iter().filter(|part| part.kind == "model");
        let shown = |part: Component| {
            assert_eq!(part.state, State::MajorOutage);
            (part.name, part.since_ms.expect("a time"))
        };
        models.map(shown).collect()
    }

    #[test]
    fn a_model_that_was_answered_and_that_nobody_serves_any_more_is_out_since_it_was_known_last() {
        let ordered = || vec![event(What::Ordered, 2)];
        let answered = |id, name: &str, ago_ms| statement(id, name, ago_ms, StatedEnd::Answered, ordered());
        let mut tally = Tally::default();
        for said in [
            answered(1, "tiny@12345678:verified", 5 * HOUR_MS),
            answered(2, "tiny:floor", 3 * HOUR_MS),
            statement(3, "tiny", HOUR_MS, failed("worker_lost", "worker"), ordered()),
            answered(4, "of the day before", DAY_MS + 1),
            // Never answered; of these, only the first was ever announced.
            statement(5, "never whole", 1, failed("worker_lost", "worker"), ordered()),
            statement(6, "made up", 1, failed("model_unknown", "caller"), vec![]),
            statement(7, "made up, and stopped", 1, StatedEnd::Stopped, vec![]),
            // Nobody was ordered to answer it: its name shows nothing.
            statement(8, "what its caller wrote", 1, StatedEnd::Answered, vec![]),
        ] {
            tally.take(&said);
        }
        assert_eq!(gone(&tally, &[]), [("tiny".to_owned(), NOW_MS - 3 * HOUR_MS)]);
        // Somebody looked since, and saw it served; before, when it was not yet answered last.
        assert_eq!(gone(&tally, &[("tiny", NOW_MS - 7)]), [("tiny".to_owned(), NOW_MS - 7)]);
        assert_eq!(
            gone(&tally, &[("tiny", NOW_MS - 4 * HOUR_MS), ("idle", NOW_MS)]),
            [("tiny".to_owned(), NOW_MS - 3 * HOUR_MS)]
        );
    }

    #[test]
    fn a_model_that_is_served_is_not_said_to_be_gone_by_whatever_name_it_was_asked_for() {
        let id = surety_types::ModelId(surety_types::Digest([7; 32]));
        let served = Model { surety: ModelNote { id: id.to_string(), ..model().surety }, ..model() };
        let mut tally = Tally::default();
        let bare = id.0.to_string();
        let names = ["tiny", "tiny@07070707", "tiny:verified", &id.to_string(), &bare];
        for (number, name) in names.into_iter().enumerate() {
            tally.take(&statement(
                number as u128,
                name,
                1,
                StatedEnd::Answered,
                vec![event(What::Ordered, 2)],
            ));
        }
        let report = tally.report(NOW_MS, &Known::default());
        let (models, seen) = ([served], Default::default());
        let facts = Facts {
            is_open: true,
            workers: &[],
            models: &models,
            seen: &seen,
            ledger: None,
            report: &report,
        };
        let parts = components(&facts);
        let names: Vec<_> =
            parts.iter().filter(|part| part.kind == "model").map(|part| &*part.name).collect();
        assert_eq!(names, ["tiny"]);
    }

    #[test]
    fn a_ledger_that_stands_still_or_cannot_be_asked_is_said_to() {
        use State::{Degraded, MajorOutage, Operational, PartialOutage, Unknown};
        let workers = [worker("1", "ready", "closed")];
        for (block, quiet_s, problem, settlement, verification) in [
            (Some(9), Some(1), None, Operational, Operational),
            (Some(9), Some(20), None, PartialOutage, Degraded),
            (Some(9), Some(90), None, MajorOutage, Degraded),
            (Some(9), Some(1), Some("nobody answers"), MajorOutage, Degraded),
            (None, None, Some("nobody answers"), MajorOutage, Degraded),
            (None, None, None, Unknown, Unknown),
        ] {
            let quiet = quiet_s.map(std::time::Duration::from_secs);
            let ledger = LedgerFacts { block, quiet, problem: problem.map(str::to_owned) };
            let found = shown(&workers, Some(ledger), true, &[]);
            let state = |kind| found.iter().find(|part| part.kind == kind).expect("a part").state;
            assert_eq!(
                ["settlement", "governance", "verification"].map(state),
                [settlement, settlement, verification]
            );
        }
    }
}
