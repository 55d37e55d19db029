//! Which worker answers: preferences, what they rule out, and what workers have shown.

use alloy_primitives::U256;
use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use surety_client::channel::ModuleCall;
use surety_types::{
    Amount, Price, Region, WorkerState,
    abi::{IStaking, Module},
};

use crate::{
    fake::{FakeWorker, manifest, model},
    http::{Answer, Site},
    memory::{CREDIT, MemoryLedger, wallet},
    pays::{paying, register},
};

/// Requests with random preferences; each takes a few milliseconds.
const ROUNDS: usize = 400;

fn chat(text: &str, provider: Value) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}], "provider": provider})
}

async fn ask(site: &Site, provider: Value) -> Answer {
    site.chat(chat("x", provider)).await
}

fn who(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-surety-workers").expect("a worker")
}

/// What kept how many out, and all of them together.
fn removed(error: &Value) -> (Vec<(String, u64)>, u64) {
    let list = error["metadata"]["removed"].as_array().unwrap_or_else(|| panic!("no list in {error}"));
    let counts: Vec<(String, u64)> = list
        .iter()
        .map(|entry| {
            let count = entry["workers"].as_u64().expect("a count");
            let words = format!("{count} {}", entry["reason"].as_str().expect("a reason"));
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains(&words), "{message} lacks {words}");
            (entry["constraint"].as_str().expect("a constraint").to_owned(), count)
        })
        .collect();
    let sum = counts.iter().map(|(_, count)| count).sum();
    (counts, sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn order_only_and_ignore_are_kept() {
    let workers = [FakeWorker::start(1).await, FakeWorker::start(2).await, FakeWorker::start(3).await];
    let site = Site::start(&workers.each_ref()).await;
    let [first, second, third] = workers.each_ref().map(FakeWorker::key);
    for _ in 0..5 {
        assert_eq!(who(&ask(&site, json!({"order": [third, first]})).await), third);
        assert_eq!(who(&ask(&site, json!({"only": [second[..8]]})).await), second);
        assert_eq!(who(&ask(&site, json!({"ignore": [first, second]})).await), third);
        assert_eq!(who(&ask(&site, json!({"only": [first, second], "ignore": [first]})).await), second);
        assert_eq!(who(&ask(&site, json!({"order": [first], "allow_fallbacks": false})).await), first);
    }
    // A second choice is one only where it may be.
    let refusing = |provider| chat("REFUSE-OVERLOADED", provider);
    let asked = |worker: &FakeWorker| worker.diary.orders.lock().expect("no panic").len();
    let before = workers.each_ref().map(asked);
    let answer = site.chat(refusing(json!({"order": [third, first]}))).await;
    assert_eq!(answer.error()["code"], "overloaded");
    let after = workers.each_ref().map(asked);
    assert_eq!([0, 1, 2].map(|index| after[index] - before[index]), [1, 1, 1]);
    let answer = site.chat(refusing(json!({"order": [third, first], "allow_fallbacks": false}))).await;
    assert_eq!(answer.error()["code"], "overloaded");
    let answer = site.chat(refusing(json!({"allow_fallbacks": false}))).await;
    assert_eq!(answer.error()["code"], "overloaded");
    let last = workers.each_ref().map(asked);
    assert_eq!(last[2] - after[2] + last[0] - after[0] + last[1] - after[1], 3, "two, and then one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kept_how_many_out_is_listed() {
    let other = vec![model("other", manifest("other", true))];
    let workers = [
        FakeWorker::start(1).await,
        FakeWorker::start(2).await,
        FakeWorker::start(3).await,
        FakeWorker::serving(4, other).await,
        FakeWorker::start(5).await,
    ];
    let site = Site::start(&workers.each_ref()).await;
    workers[4].set(|status| status.state = WorkerState::Draining);
    site.until(|status| status["workers"][4]["state"] == "draining").await;
    let [first, second, third, ..] = workers.each_ref().map(FakeWorker::key);

    let provider = json!({"only": [first, second], "ignore": [first], "verification": "proved"});
    let answer = ask(&site, provider).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    let error = answer.error();
    assert_eq!(error["code"], "no_worker");
    let expected = [
        ("draining", 1),
        ("model", 1),
        ("provider.only", 1),
        ("provider.ignore", 1),
        ("provider.verification", 1),
    ];
    let expected = expected.map(|(constraint, count)| (constraint.to_owned(), count));
    assert_eq!(removed(&error), (expected.to_vec(), 5));
    assert!(error["message"].as_str().expect("words").contains("ask for less"), "{error}");

    let mut body = chat("x", json!({"only": [third]}));
    body["surety"] = json!({"worker": first[..8]});
    let error = site.chat(body).await.error();
    let expected = [("draining", 1), ("model", 1), ("surety.worker", 2), ("provider.only", 1)];
    assert_eq!(removed(&error).0, expected.map(|(constraint, count)| (constraint.to_owned(), count)));
    // Streams are refused before they begin, in the same way.
    let mut body = chat("x", json!({"only": ["00000000"]}));
    body["stream"] = json!(true);
    let answer = site.chat(body).await;
    assert_eq!(removed(&answer.error()), (removed(&answer.error()).0, 5));
    assert_eq!(answer.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_met_is_the_caller_s_to_change() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    for (provider, code, param) in [
        (json!({"quantizations": ["fp16", "int4"]}), "invalid_param", "provider.quantizations"),
        (json!({"data_collection": "deny"}), "unsupported_parameter", "provider.data_collection"),
        (json!({"zdr": true}), "unsupported_parameter", "provider.zdr"),
        (json!({"order": ["Anthropic"]}), "invalid_param", "provider.order[0]"),
        (json!({"max_cost": 1}), "unknown_parameter", "provider.max_cost"),
    ] {
        let answer = ask(&site, provider).await;
        let error = answer.error();
        assert_eq!((answer.status, &error["code"], &error["param"]), (400, &json!(code), &json!(param)));
    }
    for provider in [
        json!({"quantizations": ["fp16", "int8"], "require_parameters": true}),
        json!({"verification": "exact", "data_collection": "allow"}),
        json!({"max_price": {"prompt": 0, "completion": "0", "request": 0}}),
        json!({"preferred_max_latency": 0.000001, "preferred_min_throughput": {"p99": 1e8}}),
    ] {
        assert_eq!(who(&ask(&site, provider).await), worker.key());
    }
    let chat = &site.get("/openapi.json").await.json()["components"]["schemas"]["ChatCompletionRequest"];
    assert!(chat["properties"]["provider"]["properties"]["max_price"].is_object(), "{chat}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_fails_rests_and_serves_again() {
    let workers = [FakeWorker::start(1).await, FakeWorker::start(2).await];
    let site = Site::start(&workers.each_ref()).await;
    let [first, second] = workers.each_ref().map(FakeWorker::key);
    // Each is tried twice, before it is given up.
    for _ in 0..2 {
        assert_eq!(site.chat(chat("one BREAK", json!({"only": [first]}))).await.status, 502);
    }
    let measured = || async { site.get("/v1/network/status").await.json()["workers"][0]["measured"].clone() };
    let report = measured().await;
    assert!(report["failures"].as_u64() >= Some(3) && report["answers"] == 0, "{report}");
    assert_ne!(report["breaker"], "closed");
    assert!(report["breaker_pause_ms"].is_u64());
    // Others are asked, whatever their turn.
    for _ in 0..6 {
        assert_eq!(who(&ask(&site, json!({})).await), second);
    }
    // Where nobody else may answer, it is tried again before long.
    let recovered = async {
        loop {
            let answer = ask(&site, json!({"only": [first]})).await;
            if answer.status == 200 {
                return;
            }
            let (counts, sum) = removed(&answer.error());
            let expected = [("provider.only".to_owned(), 1), ("breaker".to_owned(), 1)];
            assert_eq!((counts, sum), (expected.to_vec(), 2));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), recovered).await.expect("it should recover");
    let report = measured().await;
    assert_eq!((&report["breaker"], &report["answers"]), (&json!("closed"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_measured_is_shown() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let measured = || async { site.get("/v1/network/status").await.json()["workers"][0]["measured"].clone() };
    let report = measured().await;
    assert_eq!((&report["models"], &report["breaker"]), (&json!([]), &json!("closed")));
    assert!(report["accepted_ms"].is_null() && report["orders_max"].is_null());
    for _ in 0..5 {
        assert_eq!(site.chat(chat("a PAUSE b c d e f g h i j k", json!({}))).await.status, 200);
    }
    let report = measured().await;
    let speed = &report["models"][0];
    assert_eq!((&speed["newcomer"], &report["answers"]), (&json!(false), &json!(5)), "{report}");
    assert_eq!(speed["id"], manifest("tiny", true).id().to_string());
    assert!(report["accepted_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{report}");
    for name in ["first_token_ms", "first_token_p95_ms"] {
        assert!(speed[name].as_f64().is_some_and(|ms| ms > 0.0), "{name} in {report}");
    }
    // Eleven tokens after the first, and a pause of 300 ms among them.
    let rate = speed["tokens_per_second"].as_f64().expect("a rate");
    assert!(rate > 0.0 && rate < 11.0 / 0.3, "{rate}");
    assert_eq!(site.chat(chat("REFUSE-OVERLOADED", json!({}))).await.status, 503);
    assert_eq!(measured().await["orders_max"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_goes_on_with_an_answer_who_may_not() {
    let workers = [FakeWorker::start(1).await, FakeWorker::start(2).await, FakeWorker::start(3).await];
    let site = Site::start(&workers.each_ref()).await;
    let asked = || workers.each_ref().map(|worker| worker.diary.orders.lock().expect("no panic").len());
    let [first, _, third] = workers.each_ref().map(FakeWorker::key);
    let waiting = |index: usize, count: u32| workers[index].set(|status| status.waiting_requests = count);
    let heard = |index: usize, count: u32| {
        site.until(move |status| status["workers"][index]["waiting_requests"] == count)
    };
    (1..3).for_each(|index| waiting(index, 9));
    heard(1, 9).await;
    heard(2, 9).await;
    // Without an order nobody but the one that began: it alone may go on, though others have become better meanwhile.
    let script = "one two three PAUSE PAUSE PAUSE BREAK-ONCE four";
    let (answer, ()) = tokio::join!(site.chat(chat(script, json!({"allow_fallbacks": false}))), async {
        workers[0].diary.until(&workers[0].diary.accepted, 1).await;
        waiting(0, 200);
        heard(0, 200).await;
    });
    assert_eq!(who(&answer), first);
    assert_eq!(answer.json()["surety"]["handovers"], 1);
    assert_eq!(asked(), [2, 0, 0]);
    let answer = site.chat(chat("one two BREAK three", json!({"allow_fallbacks": false}))).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(
        asked().into_iter().zip([2, 0, 0]).filter(|(now, before)| now > before).count(),
        1,
        "{:?}",
        asked()
    );
    // Who is ignored does not go on either.
    let before = asked();
    let answer = site.chat(chat("one two BREAK three", json!({"ignore": [third]}))).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(asked()[2], before[2]);
}

/// A worker of an operator on the ledger, and what it asks for prompt and completion.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_what_a_worker_says_and_signs() {
    let workers = [FakeWorker::start(1).await, FakeWorker::start(2).await, FakeWorker::start(3).await];
    for (worker, region) in workers.iter().zip(["eu-de", "eu", ""]) {
        worker.set(|status| status.region = Region::new(region).ok());
    }
    let site = Site::start(&workers.each_ref()).await;
    let [first, second, _] = workers.each_ref().map(FakeWorker::key);
    let status = site.get("/v1/network/status").await.json();
    assert_eq!(status["workers"][0]["region_claimed"], "eu-de");
    assert!(status["workers"][2]["region_claimed"].is_null());
    for _ in 0..5 {
        assert_eq!(who(&ask(&site, json!({"region": "eu-de"})).await), first);
        assert_eq!(who(&ask(&site, json!({"region": ["us", "eu"], "ignore": [first]})).await), second);
    }
    // It is in what the worker signs for.
    let answer = ask(&site, json!({"region": ["eu-de"]})).await;
    let path = answer.json()["surety"]["receipt"].as_str().expect("a path").to_owned();
    let evidence = site.get(&path).await.json();
    assert_eq!(evidence["view"]["answers"][0]["acceptance"]["region"], "eu-de", "{evidence}");
    // Who signs otherwise than it says does not answer where it matters.
    let lying = |provider| site.chat(chat("ELSEWHERE@1 x", provider));
    assert_eq!(who(&lying(json!({"region": ["eu"], "order": [first]})).await), second);
    assert_eq!(who(&lying(json!({"order": [first]})).await), first);
    // Nobody.
    let answer = ask(&site, json!({"region": ["eu-fr"], "min_stake": 1})).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(removed(&answer.error()), (vec![("provider.region".to_owned(), 3)], 3));
    let answer = ask(&site, json!({"region": ["eu"], "min_stake": 0.5})).await;
    let counts = [("provider.region", 1), ("provider.min_stake", 2)];
    assert_eq!(removed(&answer.error()), (counts.map(|(name, count)| (name.to_owned(), count)).into(), 3));
    assert!(answer.text().contains("is 0 credits"), "{}", answer.text());
}

struct Dealer {
    worker: FakeWorker,
    operator: String,
    price: (u128, u128),
    region: &'static str,
    stakes_more: bool,
}

fn any_names(dealers: &[Dealer]) -> impl Strategy<Value = Vec<String>> + use<> {
    let workers = dealers.iter().map(|dealer| dealer.worker.key());
    let short = dealers.iter().map(|dealer| dealer.worker.key()[..10].to_owned());
    let operators = dealers.iter().map(|dealer| dealer.operator.clone());
    let names: Vec<String> = workers.chain(short).chain(operators).chain(["0123456789".to_owned()]).collect();
    prop::collection::vec(select(names), 1..4)
}

fn any_provider(dealers: &[Dealer]) -> impl Strategy<Value = Value> + use<> {
    let names = || prop::option::weighted(0.3, any_names(dealers));
    let most = || prop::option::weighted(0.3, select(vec![0u64, 300, 500, 1000, 5000]));
    let flag = || prop::option::of(any::<bool>());
    let sort = select(vec!["price", "throughput", "latency"]);
    let tier = select(vec!["exact", "exact", "statistical", "signed", "proved", "attested"]);
    let limits = (most(), most(), prop::option::of(0.0f64..100.0), prop::option::of(0.0f64..1.0));
    let region = || select(vec!["eu", "eu-de", "us", "us-east-1", "asia"]);
    let regions = prop::option::weighted(0.2, prop::collection::vec(region(), 1..3));
    // Ten are bonded to each operator, and one more to one of them.
    let stake = prop::option::weighted(0.2, select(vec!["0", "10", "10.5", "11", "11.0000001"]));
    let words = (prop::option::weighted(0.3, sort), prop::option::weighted(0.3, tier));
    (names(), names(), names(), flag(), words, limits, (regions, stake)).prop_map(
        |(order, only, ignore, fallbacks, (sort, tier), (prompt, completion, throughput, latency), (regions, stake))| {
            json!({
                "region": regions, "min_stake": stake, "order": order, "only": only, "ignore": ignore, "allow_fallbacks": fallbacks, "sort": sort,
                "verification": tier, "preferred_min_throughput": throughput, "preferred_max_latency": latency,
                "max_price": {"prompt": prompt, "completion": completion},
            })
        },
    )
}

/// Whether an answer by this dealer breaks a hard preference; none that is soft can be broken.
fn violates(dealer: &Dealer, provider: &Value) -> bool {
    let named = |member: &str| {
        provider[member].as_array().map(|names| {
            let names = names.iter().map(|name| name.as_str().expect("a name"));
            names.into_iter().any(|name| name == dealer.operator || dealer.worker.key().starts_with(name))
        })
    };
    let strict = provider["allow_fallbacks"] == false;
    let dear = |member: &str, asked: u128| {
        provider["max_price"][member].as_u64().is_some_and(|most| u128::from(most) < asked)
    };
    let elsewhere = provider["region"].as_array().is_some_and(|wanted| {
        let within = |wanted: &Value| {
            let wanted = wanted.as_str().expect("a region");
            dealer.region == wanted || dealer.region.starts_with(&format!("{wanted}-"))
        };
        !wanted.iter().any(within)
    });
    let staked = if dealer.stakes_more { 11.0 } else { 10.0 };
    let too_little =
        provider["min_stake"].as_str().is_some_and(|least| least.parse::<f64>().expect("a number") > staked);
    elsewhere
        || too_little
        || named("only") == Some(false)
        || named("ignore") == Some(true)
        || (strict && named("order") == Some(false))
        || dear("prompt", dealer.price.0)
        || dear("completion", dealer.price.1)
        || ["proved", "attested"].into_iter().any(|tier| provider["verification"] == tier)
}

#[tokio::test(flavor = "multi_thread")]
async fn random_preferences_are_never_violated() {
    let ledger = MemoryLedger::new();
    let mut dealers = Vec::new();
    for (seed, price, region, stakes_more) in [
        (1, (0, 0), "eu-de", false),
        (3, (300, 500), "eu", true),
        (4, (500, 300), "us-east-1", false),
        (5, (1000, 5000), "", false),
    ] {
        let asked = Price { prompt: Amount(price.0), cached: Amount(price.0), output: Amount(price.1) };
        let models = vec![model("tiny", manifest("tiny", true))];
        let worker = FakeWorker::asking(seed, models, asked).await;
        register(&ledger, seed.into(), seed, &worker.address.location.to_string(), asked).await;
        worker.set(|status| status.region = Region::new(region).ok());
        if stakes_more {
            let more = ModuleCall::paying(Module::Staking, &IStaking::bondCall {}, U256::from(CREDIT));
            ledger.account(seed.into()).send(vec![more]).await.expect("bonded");
        }
        let operator = wallet(seed.into()).address().to_string();
        dealers.push(Dealer { worker, operator, price, region, stakes_more });
    }
    let ledger = paying(&ledger, 2);
    let site = Site::with(&[], |settings| settings.ledger = Some(ledger)).await;
    site.until(|status| {
        let workers = status["workers"].as_array().expect("a list");
        let paid =
            |worker: &Value| worker["channel"]["unspent"].as_str().is_some_and(|unspent| unspent != "0");
        let ready = workers.iter().filter(|worker| worker["state"] == "ready").count();
        ready == 4 && workers.iter().filter(|worker| paid(worker)).count() == 3
    })
    .await;

    let strategy = any_provider(&dealers);
    let mut runner = TestRunner::deterministic();
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        let provider = strategy.new_tree(&mut runner).expect("preferences").current();
        let answer = ask(&site, provider.clone()).await;
        if answer.status == 200 {
            let dealer = dealers.iter().find(|dealer| dealer.worker.key() == who(&answer)).expect("a dealer");
            assert!(!violates(dealer, &provider), "{} for {provider}", dealer.operator);
            answered += 1;
        } else {
            assert_eq!(answer.status, 503, "{provider}: {}", answer.text());
            let error = answer.error();
            assert_eq!(removed(&error).1, 4, "{provider}: {error}");
            let able = |dealer: &&Dealer| !violates(dealer, &provider);
            assert_eq!(dealers.iter().filter(able).count(), 0, "{provider}: {error}");
            refused += 1;
        }
    }
    assert!(answered > ROUNDS / 10 && refused > ROUNDS / 10, "{answered} answered, {refused} refused");
}
