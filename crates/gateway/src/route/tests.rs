//! Choices: that nothing hard is ever violated, and that what is soft orders as it is documented.

use alloy_primitives::Address;
use proptest::{prelude::*, sample::select};
use surety_types::{Amount, Price, PublicKey, Region};

use super::{
    choice::{Choice, Constraint, EXPLORE_EVERY, Fitness, Serves, Standing, Wanted, choose},
    health::Gate,
    preferences::{Cutoffs, MaxPrice, Name, Preferences, Sort, Tier},
    scores::scores,
};

/// A ready worker that nothing sets apart.
fn worker(digit: u8) -> Standing {
    Standing {
        key: PublicKey([digit; 32]),
        operator: Some(Address::repeat_byte(digit)),
        fitness: Fitness::Ready,
        served: Some(Serves { context_tokens: 4096, tier: Tier::Exact }),
        price: Ok(Price::ZERO),
        gate: Gate::Closed,
        doubted: false,
        load: 0,
        ours: 0,
        limit: None,
        proven: true,
        first_token_ms: Some(200.0),
        tokens_per_second: Some(20.0),
        latency_s: None,
        rates: None,
        reliability: 1.0,
        against: 1.0,
        region: None,
        bonded: 0,
        free_stake: 0,
    }
}

fn price(each: u128) -> Price {
    Price { prompt: Amount(each), cached: Amount(each), output: Amount(each) }
}

fn name(digit: u8) -> Name {
    Name::parse(&PublicKey([digit; 32]).to_string()).expect("a name")
}

fn wanted(preferences: &Preferences) -> Wanted<'_> {
    Wanted { preferences, context_tokens_min: None, without: &[], apart: &[], affinity: None, orders: 1 }
}

/// The order in which workers are listed, in a turn that explores nothing.
fn listed(workers: &[Standing], preferences: &Preferences) -> Vec<usize> {
    choose(workers, &wanted(preferences), 0).listed
}

fn plain() -> Preferences {
    Preferences::default()
}

#[test]
fn each_factor_of_the_cost_orders_by_itself() {
    let check = |what: &str, worse: &dyn Fn(&mut Standing)| {
        let mut workers = [worker(1), worker(2)];
        worse(&mut workers[0]);
        assert_eq!(listed(&workers, &plain()), [1, 0], "{what}");
        workers.swap(0, 1);
        assert_eq!(listed(&workers, &plain()), [0, 1], "{what}");
    };
    check("load", &|worker| worker.load = 1);
    check("first token", &|worker| worker.first_token_ms = Some(300.0));
    check("rate", &|worker| worker.tokens_per_second = Some(15.0));
    check("price", &|worker| worker.price = Ok(price(1)));
    check("reliability", &|worker| worker.reliability = 0.9);
    check("what speaks against it", &|worker| worker.against = 1.5);
    check("doubt", &|worker| worker.doubted = true);
    check("limit", &|worker| (worker.ours, worker.load, worker.limit) = (1, 0, Some(1)));
    let mut workers = [worker(1), worker(2)];
    (workers[0].bonded, workers[0].free_stake) = (7, 4);
    (workers[1].bonded, workers[1].free_stake) = (5, 5);
    assert_eq!(listed(&workers, &plain()), [1, 0], "stake less what is unsettled");
}

#[test]
fn weights_are_what_the_table_says() {
    // Four times as slow a first token is made up for by half the load.
    let check = |load: u32, worse: &dyn Fn(&mut Standing), first: usize| {
        let mut workers = [worker(1), worker(2)];
        (workers[0].load, workers[1].load) = (0, load);
        worse(&mut workers[0]);
        assert_eq!(listed(&workers, &plain())[0], first, "{load}");
    };
    for worse in [
        &|worker: &mut Standing| worker.first_token_ms = Some(800.0),
        &|worker: &mut Standing| worker.tokens_per_second = Some(5.0),
        &|worker: &mut Standing| worker.reliability = 0.7072,
        &|worker: &mut Standing| worker.against = 4.0,
    ] as [&dyn Fn(&mut Standing); 4]
    {
        check(0, worse, 1);
        check(2, worse, 0);
    }
    // Quicker than 50 ms is quick enough.
    let mut workers = [worker(1), worker(2)];
    (workers[0].first_token_ms, workers[1].first_token_ms) = (Some(49.0), Some(1.0));
    assert_eq!(listed(&workers, &plain()), [0, 1]);
    // A free worker is not asked for ever while a paid one is idle, but nearly: sixteenfold is the most that counts.
    (workers[0].price, workers[1].price) = (Ok(Price::ZERO), Ok(price(1_000_000)));
    workers[0].load = 2;
    assert_eq!(listed(&workers, &plain()), [0, 1]);
    workers[0].load = 4;
    assert_eq!(listed(&workers, &plain()), [1, 0]);
}

#[test]
fn what_was_never_measured_counts_as_the_slowest_that_was() {
    let mut workers = [worker(1), worker(2), worker(3)];
    workers[0].first_token_ms = None;
    workers[1].first_token_ms = Some(900.0);
    workers[1].load = 1;
    assert_eq!(listed(&workers, &plain()), [2, 0, 1]);
    workers[2].load = 3;
    assert_eq!(listed(&workers, &plain()), [0, 2, 1], "a newcomer gets what the others leave");
}

#[test]
fn equals_take_turns() {
    let workers = [worker(1), worker(2), worker(3)];
    let firsts: Vec<usize> = (0..6).map(|turn| choose(&workers, &wanted(&plain()), turn).listed[0]).collect();
    assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn requests_that_begin_alike_have_a_home_and_only_its_own_move_when_it_goes() {
    let workers: Vec<Standing> = (1..=5).map(worker).collect();
    let home = |workers: &[Standing], affinity: u64| {
        let plain = plain();
        let wanted = Wanted { affinity: Some(affinity), ..wanted(&plain) };
        workers[choose(workers, &wanted, affinity as usize % 16).listed[0]].key
    };
    let mut homes = std::collections::BTreeMap::<[u8; 32], u32>::new();
    for affinity in 0..500 {
        let at_first = home(&workers, affinity);
        *homes.entry(at_first.0).or_default() += 1;
        let without: Vec<Standing> = workers[1..].to_vec();
        if at_first != workers[0].key {
            assert_eq!(home(&without, affinity), at_first, "{affinity}");
        }
    }
    assert!(homes.len() == 5 && homes.values().all(|count| *count > 50), "{homes:?}");
    // It is mild: an idle worker is better than a busy home.
    let mut busy = workers;
    let at = home(&busy, 7);
    busy.iter_mut().filter(|worker| worker.key == at).for_each(|worker| worker.load = 1);
    assert_ne!(home(&busy, 7), at);
}

#[test]
fn one_turn_in_sixteen_is_a_newcomer_s() {
    let mut workers: Vec<Standing> = (1..=4).map(worker).collect();
    for newcomer in [2, 3] {
        workers[newcomer].proven = false;
        workers[newcomer].load = 50;
    }
    let first = |workers: &[Standing], preferences: &Preferences, turn| {
        choose(workers, &wanted(preferences), turn).listed[0]
    };
    let firsts: Vec<usize> = (0..160).map(|turn| first(&workers, &plain(), turn)).collect();
    let share = |index| firsts.iter().filter(|first| **first == index).count();
    assert_eq!((share(2), share(3)), (5, 5));
    // Not where the caller says who is first, nor for the rest of a broken answer, nor beyond what it takes.
    let explores = EXPLORE_EVERY - 1;
    assert_eq!(first(&workers, &plain(), explores), 2);
    let without = [PublicKey([9; 32])];
    let plain = plain();
    let again = Wanted { without: &without, ..wanted(&plain) };
    assert!(choose(&workers, &again, explores).listed[0] < 2);
    for preferences in [
        Preferences { sort: Some(Sort::Latency), ..Preferences::default() },
        Preferences { order: vec![name(1)], ..Preferences::default() },
        Preferences { allow_fallbacks: false, ..Preferences::default() },
        Preferences { max_latency: Cutoffs([Some(1.0), None, None, None]), ..Preferences::default() },
    ] {
        assert!(first(&workers, &preferences, explores) < 2, "{preferences:?}");
    }
    (workers[2].ours, workers[2].limit, workers[3].proven) = (1, Some(1), true);
    assert!(first(&workers, &plain, explores) < 2);
}

#[test]
fn a_half_open_breaker_gets_one_order_when_it_is_its_turn_or_nobody_else_is_there() {
    let mut workers = [worker(1), worker(2)];
    workers[1].gate = Gate::HalfOpen;
    let choice = choose(&workers, &wanted(&plain()), 0);
    assert_eq!((choice.listed, choice.trial), (vec![0], None));
    assert_eq!(choice.removed, [(1, Constraint::Breaker)]);
    let choice = choose(&workers, &wanted(&plain()), EXPLORE_EVERY - 1);
    assert_eq!((choice.listed, choice.trial, choice.removed), (vec![1, 0], Some(1), vec![]));
    workers[0].gate = Gate::HalfOpen;
    let choice = choose(&workers, &wanted(&plain()), 0);
    assert_eq!((choice.listed, choice.trial), (vec![0], Some(0)));
    assert_eq!(choice.removed, [(1, Constraint::Breaker)]);
    workers[0].gate = Gate::Paused;
    let choice = choose(&workers, &wanted(&plain()), 0);
    assert_eq!(
        (choice.listed, choice.trial),
        (vec![1], Some(1)),
        "its time has come, that of the other has not"
    );
    workers[1].gate = Gate::Open;
    let choice = choose(&workers, &wanted(&plain()), 0);
    assert_eq!((choice.listed, choice.trial), (vec![0], Some(0)), "nobody else is there");
    workers.iter_mut().for_each(|worker| worker.gate = Gate::Open);
    let choice = choose(&workers, &wanted(&plain()), 0);
    assert_eq!((choice.listed.len(), choice.trial, choice.removed.len()), (0, None, 2));
}

#[test]
fn what_the_caller_says_goes_before_the_cost() {
    let mut workers: Vec<Standing> = (1..=3).map(worker).collect();
    workers[0].load = 9;
    let order = Preferences { order: vec![name(3), name(1)], ..plain() };
    assert_eq!(listed(&workers, &order), [2, 0, 1]);
    let strict = Preferences { allow_fallbacks: false, ..order };
    let choice = choose(&workers, &wanted(&strict), 0);
    assert_eq!((choice.listed, choice.removed), (vec![2, 0], vec![(1, Constraint::Fallbacks)]));
    let best = Preferences { allow_fallbacks: false, ..plain() };
    let choice = choose(&workers, &wanted(&best), 0);
    assert_eq!(choice.listed, [1]);
    let tried = [workers[1].key];
    let choice = choose(&workers, &Wanted { without: &tried, ..wanted(&best) }, 0);
    assert!(choice.listed.is_empty(), "it was the best, and no other may");

    workers[0].price = Ok(price(1));
    workers[1].price = Ok(price(2));
    let sorted = |sort| Preferences { sort: Some(sort), ..plain() };
    assert_eq!(listed(&workers, &sorted(Sort::Price)), [2, 0, 1]);
    (workers[0].tokens_per_second, workers[1].tokens_per_second) = (Some(90.0), None);
    assert_eq!(listed(&workers, &sorted(Sort::Throughput)), [0, 2, 1]);
    (workers[0].first_token_ms, workers[1].first_token_ms) = (None, Some(1.0));
    assert_eq!(listed(&workers, &sorted(Sort::Latency)), [1, 2, 0]);

    workers[1].latency_s = Some([0.5, 1.0, 2.0, 9.0]);
    workers[2].latency_s = Some([0.5, 1.0, 3.0, 4.0]);
    let quick = |cutoffs| Preferences { max_latency: Cutoffs(cutoffs), sort: Some(Sort::Price), ..plain() };
    assert_eq!(listed(&workers, &quick([None, None, Some(2.0), None])), [1, 2, 0], "never left out");
    assert_eq!(listed(&workers, &quick([None, None, None, Some(4.0)])), [2, 0, 1]);
}

fn any_price() -> impl Strategy<Value = Price> {
    let amount = || select(vec![0u128, 1, 5, 10, 1_000_000, u128::MAX]).prop_map(Amount);
    (amount(), amount(), amount()).prop_map(|(prompt, cached, output)| Price { prompt, cached, output })
}

fn any_percentiles() -> impl Strategy<Value = Option<[f32; 4]>> {
    prop::option::of(prop::array::uniform4(0.0f32..10.0))
}

fn any_region() -> impl Strategy<Value = Region> {
    select(vec!["eu", "eu-de", "eu-de-1", "europe", "us", "us-east"])
        .prop_map(|text| Region::new(text).expect(text))
}

fn any_stake() -> impl Strategy<Value = u128> {
    select(vec![0u128, 1, 1 << 90, u128::MAX])
}

prop_compose! {
    fn any_worker()(
        key in 0u8..12,
        operator in prop::option::of(0u8..4),
        fitness in select(vec![Fitness::Ready, Fitness::Ready, Fitness::Ready, Fitness::Starting, Fitness::Draining, Fitness::Unreachable]),
        served in prop::option::weighted(0.9, (
            select(vec![1024u32, 4096, 32_768]),
            select(Tier::ALL.to_vec()).prop_map(|(_, tier)| tier),
        )),
        price in prop_oneof![4 => any_price().prop_map(Ok), 1 => Just(Err("nobody pays"))],
        gate in select(vec![Gate::Closed, Gate::Closed, Gate::Closed, Gate::HalfOpen, Gate::Paused, Gate::Open]),
        (doubted, load, ours, limit) in (any::<bool>(), 0u32..100, 0u32..100, prop::option::of(1u32..100)),
        proven in any::<bool>(),
        (first_token_ms, tokens_per_second) in (prop::option::of(0.0f32..1e6), prop::option::of(0.0f32..1e6)),
        (latency_s, rates) in (any_percentiles(), any_percentiles()),
        (reliability, against) in (0.0f32..=1.0, 1.0f32..1e5),
        region in prop::option::weighted(0.8, any_region()),
        (bonded, free_stake) in (any_stake(), any_stake()),
    ) -> Standing {
        Standing {
            key: PublicKey([key.wrapping_mul(17); 32]),
            operator: operator.map(Address::repeat_byte),
            fitness,
            served: served.map(|(context_tokens, tier)| Serves { context_tokens, tier }),
            price, gate, doubted, load, ours, limit, proven, first_token_ms, tokens_per_second, latency_s, rates, reliability, against, region, bonded, free_stake,
        }
    }
}

fn any_name() -> impl Strategy<Value = Name> {
    prop_oneof![
        (0u8..12).prop_map(|key| name(key.wrapping_mul(17))),
        (0u8..12)
            .prop_map(|key| Name::parse(&format!("{:02x}", key.wrapping_mul(17)).repeat(4)).expect("a name")),
        (0u8..4)
            .prop_map(|operator| Name::parse(&Address::repeat_byte(operator).to_string()).expect("a name")),
    ]
}

prop_compose! {
    fn any_preferences()(
        worker in prop::option::weighted(0.1, any_name()),
        order in prop::collection::vec(any_name(), 0..4),
        only in prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(any_name(), 1..6)],
        ignore in prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(any_name(), 1..4)],
        allow_fallbacks in prop::bool::weighted(0.7),
        sort in prop::option::of(select(Sort::ALL.to_vec()).prop_map(|(_, sort)| sort)),
        (prompt, completion) in (
            prop::option::of(select(vec![0u128, 4, 10, 1_000_000]).prop_map(Amount)),
            prop::option::of(select(vec![0u128, 4, 10, 1_000_000]).prop_map(Amount)),
        ),
        (throughput, latency) in (prop::option::of(0.0f32..10.0), prop::option::of(0.0f32..10.0)),
        verification in prop::option::weighted(0.4, select(Tier::ALL.to_vec()).prop_map(|(_, tier)| tier)),
        regions in prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(any_region(), 1..4)],
        min_stake in prop_oneof![2 => Just(0), 1 => any_stake()],
    ) -> Preferences {
        Preferences {
            worker, order, only, ignore, allow_fallbacks, regions, min_stake, sort, verification,
            quantizations: Vec::new(),
            max_price: MaxPrice { prompt, completion },
            min_throughput: Cutoffs([throughput, None, None, None]),
            max_latency: Cutoffs([None, latency, None, None]),
            disclosure: None,
            checked: false,
            batch: false,
        }
    }
}

/// Whether a worker is named, written out apart from the code that is tested.
fn is_named(worker: &Standing, names: &[Name]) -> bool {
    let own = worker.key.to_string();
    let operator = worker.operator.map(|operator| operator.to_string().to_lowercase());
    names.iter().map(Name::to_string).any(|name| {
        own.starts_with(&name) || operator.as_ref().is_some_and(|operator| operator.starts_with(&name))
    })
}

/// What a worker violates, if it is listed; the preferences read anew, one by one.
fn violations(worker: &Standing, wanted: &Wanted<'_>) -> Vec<&'static str> {
    let Preferences {
        worker: one,
        order,
        only,
        ignore,
        allow_fallbacks,
        regions,
        min_stake,
        max_price,
        verification,
        ..
    } = wanted.preferences;
    let mut found = Vec::new();
    let mut check = |holds: bool, what| {
        if !holds {
            found.push(what);
        }
    };
    check(worker.fitness == Fitness::Ready, "ready");
    check(one.is_none_or(|name| is_named(worker, &[name])), "surety.worker");
    check(only.is_empty() || is_named(worker, only), "only");
    check(!is_named(worker, ignore), "ignore");
    check(*allow_fallbacks || order.is_empty() || is_named(worker, order), "order without fallbacks");
    let claimed = worker.region.iter().map(|region| format!("{region}-"));
    let mut within =
        claimed.flat_map(|claimed| regions.iter().map(move |one| claimed.starts_with(&format!("{one}-"))));
    check(regions.is_empty() || within.any(|within| within), "region");
    check(worker.bonded >= *min_stake, "stake");
    check(!wanted.without.contains(&worker.key), "tried");
    check(!wanted.apart.contains(&worker.key), "apart");
    check(worker.gate != Gate::Open, "breaker");
    match worker.served {
        None => check(false, "model"),
        Some(serves) => {
            check(wanted.context_tokens_min.is_none_or(|least| serves.context_tokens >= least), "context");
            let enough = match verification {
                None | Some(Tier::Signed) => true,
                Some(Tier::Statistical) => {
                    matches!(serves.tier, Tier::Statistical | Tier::Exact | Tier::Proved)
                }
                Some(Tier::Exact) => matches!(serves.tier, Tier::Exact | Tier::Proved),
                Some(tier) => serves.tier == *tier,
            };
            check(enough, "verification");
        }
    }
    match worker.price {
        Err(_) => check(false, "payment"),
        Ok(price) => {
            let most = |most: Option<Amount>, asked: Amount| most.is_none_or(|most| asked.0 <= most.0);
            check(
                most(max_price.prompt, price.prompt) && most(max_price.prompt, price.cached),
                "prompt price",
            );
            check(most(max_price.completion, price.output), "completion price");
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_hard_constraint_is_ever_violated_and_the_counts_add_up(
        workers in prop::collection::vec(any_worker(), 0..10),
        preferences in any_preferences(),
        context_tokens_min in prop::option::weighted(0.3, select(vec![1000u32, 4096, 20_000])),
        without in prop::collection::vec((0u8..12).prop_map(|key| PublicKey([key.wrapping_mul(17); 32])), 0..3),
        apart in prop::collection::vec((0u8..12).prop_map(|key| PublicKey([key.wrapping_mul(17); 32])), 0..3),
        affinity in prop::option::of(any::<u64>()),
        orders in 1u32..20,
        turn in any::<usize>(),
    ) {
        let wanted = Wanted { preferences: &preferences, context_tokens_min, without: &without, apart: &apart, affinity, orders };
        let choice = choose(&workers, &wanted, turn);
        let Choice { listed, trial, removed } = &choice;

        for index in listed {
            prop_assert_eq!(violations(&workers[*index], &wanted), Vec::<&str>::new());
        }
        // Everybody is listed or removed, once.
        let mut all: Vec<usize> = listed.iter().copied().chain(removed.iter().map(|(index, _)| *index)).collect();
        all.sort_unstable();
        prop_assert_eq!(all, (0..workers.len()).collect::<Vec<_>>());
        // Nobody is removed without reason.
        for (index, constraint) in removed {
            let reasons = violations(&workers[*index], &wanted);
            let by_rest = match constraint {
                Constraint::Fallbacks => !preferences.allow_fallbacks,
                Constraint::Breaker => matches!(workers[*index].gate, Gate::HalfOpen | Gate::Paused),
                _ => false,
            };
            prop_assert!(!reasons.is_empty() || by_rest, "{:?}", constraint);
        }
        // What can be answered is.
        let able = |worker: &&Standing| violations(worker, &wanted).is_empty();
        let primary_gone = !preferences.allow_fallbacks && preferences.order.is_empty() && !without.is_empty();
        if workers.iter().any(|worker| able(&worker)) && !primary_gone {
            prop_assert!(!listed.is_empty());
        }
        // The best is one, where no other may answer.
        if !preferences.allow_fallbacks && preferences.order.is_empty() {
            prop_assert!(listed.len() <= 1);
        }
        // At most one trial, and it is first.
        let tried: Vec<usize> =
            listed.iter().copied().filter(|index| workers[*index].gate != Gate::Closed).collect();
        prop_assert_eq!(tried, trial.iter().copied().collect::<Vec<_>>());
        prop_assert!(trial.is_none_or(|trial| listed[0] == trial));
        // The caller's order is kept.
        let position = |index: &usize| {
            preferences.order.iter().position(|name| is_named(&workers[*index], &[*name])).unwrap_or(usize::MAX)
        };
        prop_assert!(listed.is_sorted_by_key(position));
        // The same state and the same turn: the same choice.
        prop_assert_eq!(&choose(&workers, &wanted, turn), &choice);
    }
}

proptest! {
    /// Who is told to be first is who is asked first, and the factors are what that comes from.
    #[test]
    fn scores_say_why_workers_come_in_their_order(all in prop::collection::vec((0u32..9, 1.0f32..5000.0, 1.0f32..900.0, 0.1f32..1.0, 0u128..5), 1..6)) {
        let workers: Vec<Standing> = all.iter().enumerate().map(|(index, (load, first_ms, rate, reliability, price_each))| Standing {
            load: *load,
            first_token_ms: Some(*first_ms),
            tokens_per_second: Some(*rate),
            reliability: *reliability,
            price: Ok(price(*price_each)),
            ..worker(index as u8)
        }).collect();
        let preferences = plain();
        let keys: Vec<PublicKey> = workers.iter().map(|worker| worker.key).collect();
        let scores = scores("m", &workers, &wanted(&preferences), &keys);
        prop_assert_eq!(scores.len(), workers.len());
        let first = listed(&workers, &preferences)[0];
        prop_assert_eq!(scores[first].rank, Some(1));
        for score in &scores {
            let sum: f32 = score.factors.iter().map(|factor| factor.cost).sum();
            prop_assert_eq!(Some(sum), score.cost);
            prop_assert!(score.factors.iter().all(|factor| factor.cost >= factor.least));
            prop_assert!(score.rank.is_some_and(|rank| rank <= score.of) && score.kept_out.is_none());
        }
    }
}

#[test]
fn who_is_kept_out_has_no_rank_and_is_told_why() {
    let workers = [
        worker(1),
        Standing { fitness: Fitness::Starting, ..worker(2) },
        Standing { gate: Gate::HalfOpen, ..worker(3) },
    ];
    let preferences = plain();
    let keys = [PublicKey([2; 32]), PublicKey([3; 32])];
    let found = scores("m", &workers, &wanted(&preferences), &keys);
    let told: Vec<_> = found.iter().map(|score| (score.rank, score.of, score.kept_out.as_deref())).collect();
    assert_eq!(told, [(None, 1, Some("starting")), (None, 1, Some("resting after failures"))]);
}
