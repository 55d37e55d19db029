//! An answer that its worker does not bring to its end is continued by another, token for token; whoever looks at the
//! evidence sees who signed what.

use std::time::Duration;

use serde_json::{Value, json};
use surety_proof::{Check, Expected, check_evidence};
use surety_types::{Canonical, Evidence, WorkerState};

use crate::{
    fake::FakeWorker,
    http::{Answer, Site},
};

const WORDS: &str = "the quick brown fox jumps over the lazy dog and sleeps";

fn words() -> Vec<&'static str> {
    WORDS.split(' ').collect()
}

/// The sentence, with an act of the first worker's at a place in it.
fn script(act: &str, at: usize) -> String {
    let mut words = words();
    words.insert(at, act);
    words.join(" ")
}

/// Two workers, of whom [`ask`] has the first asked before the second.
async fn site_of_two() -> (FakeWorker, FakeWorker, Site) {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    let site = Site::with(&[&first, &second], |settings| {
        settings.limits.stall_timeout = Duration::from_millis(400);
        settings.limits.search_timeout = Duration::from_secs(10);
    })
    .await;
    site.until_ready(2).await;
    (first, second, site)
}

fn first_of(first: &FakeWorker, mut body: Value) -> Value {
    body["provider"] = json!({"order": [first.key()]});
    body
}

async fn ask(first: &FakeWorker, site: &Site, body: Value) -> Answer {
    site.chat(first_of(first, body)).await
}

/// The evidence of an answer, checked.
async fn evidence(site: &Site, answer: &Answer) -> Evidence {
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let kept = site.get(&format!("/v1/receipts/{id}")).await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    let evidence = Evidence::parse(&kept.body).expect("evidence");
    let checked = check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    assert!(evidence.answers.len() < 2 || checked.answers.len() == evidence.answers.len());
    evidence
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_worker_another_goes_on_with_the_same_words() {
    for act in
        ["LEAVE@1", "BREAK@1", "END-EARLY@1", "STALL@1", "GAP@1", "LIE-PROGRESS@1", "GIVE-UP@1", "DRAIN@1"]
    {
        for at in [0, 1, 4, 6, words().len() - 1] {
            let (first, second, site) = site_of_two().await;
            let stream = at % 2 == 0;
            let messages = json!([{"role": "user", "content": script(act, at)}]);
            let body = json!({"model": "tiny", "stream": stream, "messages": messages});
            let answer = ask(&first, &site, body).await;
            assert_eq!(answer.status, 200, "{act} at {at}: {}", answer.text());
            let (text, note) = match stream {
                true => {
                    let chunks = answer.chunks();
                    let said =
                        |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
                    let text = chunks.iter().filter_map(said).collect::<String>();
                    (text, chunks.last().expect("an end")["surety"].clone())
                }
                false => {
                    let json = answer.json();
                    let text = json["choices"][0]["message"]["content"].as_str().expect("text").to_owned();
                    (text, json["surety"].clone())
                }
            };
            assert_eq!(text, WORDS, "{act} at {at}");
            assert_eq!(note["handovers"], 1, "{act} at {at}");
            assert_eq!(note["workers"], json!([first.key(), second.key()]), "{act} at {at}");

            let evidence = evidence(&site, &answer).await;
            assert_eq!(evidence.answers.len(), 2, "{act} at {at}");
            let [broken, rest] = &evidence.answers[..] else { panic!("two workers took part") };
            assert_eq!(broken.receipt.is_some(), matches!(act, "GIVE-UP@1" | "DRAIN@1"));
            // Nothing of a worker that broke the protocol is relied on.
            let distrusted = matches!(act, "GAP@1" | "LIE-PROGRESS@1");
            let signed = if distrusted { &[][..] } else { &broken.output_ids[..] };
            assert_eq!(rest.resumed_ids, signed, "{act} at {at}");
            let said = if distrusted { "" } else { broken.text.as_str() };
            assert_eq!(format!("{said}{}", rest.text), WORDS, "{act} at {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_and_scored_prompts_come_once() {
    for at in [0, 3, 8] {
        let (first, _second, site) = site_of_two().await;
        let body = json!({
            "model": "tiny", "prompt": script("BREAK@1", at), "max_tokens": 50, "echo": true, "logprobs": 1,
        });
        let answer = site.complete(first_of(&first, body)).await;
        let json = answer.json();
        assert_eq!(json["surety"]["handovers"], 1);
        let tokens = json["choices"][0]["logprobs"]["tokens"].as_array().expect("tokens");
        let prompt = script("BREAK@1", at).len();
        assert_eq!(tokens.len(), prompt + words().len() + 1, "the prompt's, the words' and the end's");
        assert_eq!(json["usage"]["prompt_tokens"], prompt);
        assert_eq!(json["usage"]["completion_tokens"], words().len() + 1);
        evidence(&site, &answer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_answers_goes_on_for_itself() {
    let (first, _second, site) = site_of_two().await;
    let messages = json!([{"role": "user", "content": "it is number {choice} BREAK@1 of a few"}]);
    let body = json!({"model": "tiny", "n": 3, "messages": messages});
    let answer = ask(&first, &site, body).await;
    let json = answer.json();
    for choice in 0..3 {
        let text = &json["choices"][choice]["message"]["content"];
        assert_eq!(*text, format!("it is number {choice} of a few"));
    }
    let evidence = evidence(&site, &answer).await;
    assert_eq!(evidence.answers.len(), 6);
    let checked = check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    assert!(checked.checked.contains(&Check::Continuation));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_disagree_are_both_named() {
    let (first, second, site) = site_of_two().await;
    // Two words are signed for when the third is said.
    let messages = json!([{"role": "user", "content": "one two three@1 BREAK@1 drei@2 four"}]);
    let body = json!({"model": "tiny", "messages": messages});
    let answer = ask(&first, &site, body).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let error = answer.error();
    assert_eq!(error["code"], "verification_failed");
    assert_eq!(error["metadata"]["accountable"], "unknown");
    let message = error["message"].as_str().expect("a message");
    for worker in [&first, &second] {
        assert!(message.contains(&worker.key()[..8]), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_back_goes_on_itself() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    // It breaks off twice, each time a few words further.
    let messages = json!([{"role": "user", "content": "one two three BREAK-ONCE four five six seven"}]);
    let answer = site.chat(json!({"model": "tiny", "messages": messages})).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "one two three four five six seven");
    assert_eq!(answer.json()["surety"]["handovers"], 1);
    assert_eq!(evidence(&site, &answer).await.answers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_worker_that_is_slow_to_begin_another_is_asked() {
    let (first, second, site) = site_of_two().await;
    let messages = json!([{"role": "user", "content": "WAIT@1 here it is"}]);
    let answer = ask(&first, &site, json!({"model": "tiny", "messages": messages})).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "here it is");
    assert_eq!(answer.json()["surety"]["workers"], json!([second.key()]));
    first.diary.until(&first.diary.cancelled, 1).await;
    assert_eq!(evidence(&site, &answer).await.answers.len(), 1);
}

/// Whoever is silent in mid-answer loses it to who speaks first; the evidence holds what it had signed until then.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_worker_that_falls_silent_another_is_asked() {
    for at in [1, 4, words().len() - 1] {
        let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
        // It would be given up only much later.
        let site = Site::with(&[&first, &second], |settings| {
            settings.limits.stall_timeout = Duration::from_secs(60);
        })
        .await;
        site.until_ready(2).await;
        let messages = json!([{"role": "user", "content": script("STALL@1", at)}]);
        let answer = ask(&first, &site, json!({"model": "tiny", "messages": messages})).await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], WORDS, "at {at}");
        let note = &answer.json()["surety"];
        assert_eq!(note["workers"], json!([first.key(), second.key()]), "at {at}");
        assert_eq!(note["waits"].as_array().map(Vec::len), Some(1), "at {at}");
        first.diary.until(&first.diary.cancelled, 1).await;
        let evidence = evidence(&site, &answer).await;
        let [silent, rest] = &evidence.answers[..] else { panic!("two workers took part") };
        assert_eq!(rest.resumed_ids, silent.output_ids, "at {at}");
        assert!(silent.receipt.is_none());
    }
}

/// Who was asked beside a silent worker, and is there, and says nothing new, does not hold the answer up: a third is asked.
#[tokio::test(flavor = "multi_thread")]
async fn beside_one_that_does_not_come_to_speak_a_third_is_asked() {
    let workers = [FakeWorker::start(1).await, FakeWorker::start(2).await, FakeWorker::start(3).await];
    let [first, second, third] = &workers;
    third.set(|status| status.state = WorkerState::Draining);
    // The first would be given up only much later.
    let site = Site::with(&workers.each_ref(), |settings| {
        settings.limits.stall_timeout = Duration::from_secs(60);
    })
    .await;
    site.until(|status| {
        let state = |index: usize| status["workers"][index]["state"].as_str();
        [0, 1, 2].map(state) == [Some("ready"), Some("ready"), Some("draining")]
    })
    .await;
    let messages = json!([{"role": "user", "content": format!("WAIT@2 {}", script("STALL@1", 4))}]);
    let (answer, ()) =
        tokio::join!(ask(first, &site, json!({"model": "tiny", "messages": messages})), async {
            // Nobody but the second can be asked first.
            second.diary.until(&second.diary.accepted, 1).await;
            third.set(|status| status.state = WorkerState::Ready);
        });
    assert_eq!(answer.json()["choices"][0]["message"]["content"], WORDS);
    assert_eq!(answer.json()["surety"]["workers"], json!([first.key(), third.key()]));
    for let_go in [first, second] {
        let_go.diary.until(&let_go.diary.cancelled, 1).await;
    }
    let evidence = evidence(&site, &answer).await;
    let [silent, rest] = &evidence.answers[..] else { panic!("two workers took part") };
    assert_eq!(rest.resumed_ids, silent.output_ids);
}

/// Who was asked beside a silent worker and breaks off has no part in the answer, and another is asked.
#[tokio::test(flavor = "multi_thread")]
async fn beside_one_that_breaks_off_too_a_third_is_asked() {
    for act in ["BREAK@2", "DRAIN@2", "GIVE-UP@2", "GAP@2"] {
        let workers = [FakeWorker::start(1).await, FakeWorker::start(2).await, FakeWorker::start(3).await];
        let [first, second, third] = &workers;
        third.set(|status| status.state = WorkerState::Draining);
        let site = Site::with(&workers.each_ref(), |settings| {
            settings.limits.stall_timeout = Duration::from_secs(60);
        })
        .await;
        site.until(|status| status["workers"][2]["state"] == "draining").await;
        site.until_ready(2).await;
        // It breaks off before it says anything: what it said would count.
        let messages = json!([{"role": "user", "content": format!("{act} {}", script("STALL@1", 4))}]);
        let body = json!({"model": "tiny", "messages": messages});
        let (answer, ()) = tokio::join!(ask(first, &site, body), async {
            second.diary.until(&second.diary.accepted, 1).await;
            third.set(|status| status.state = WorkerState::Ready);
        });
        assert_eq!(answer.json()["choices"][0]["message"]["content"], WORDS, "{act}");
        let workers = answer.json()["surety"]["workers"].clone();
        assert_eq!(workers, json!([first.key(), third.key()]), "{act}");
        evidence(&site, &answer).await;
    }
}

/// Where the only other worker never answers, the one that broke off is asked again as soon as it has.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_accepts_does_not_hold_up_one_that_is_back() {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    // Before it accepts a worker may be silent for ten times as long: longer than this test waits.
    let site = Site::with(&[&first, &second], |settings| {
        settings.limits.stall_timeout = Duration::from_millis(2_200);
        settings.limits.search_timeout = Duration::from_secs(30);
    })
    .await;
    site.until_ready(2).await;
    let messages = json!([{"role": "user", "content": format!("SILENCE@2 {}", script("SILENT-ONCE@1", 4))}]);
    let answer = ask(&first, &site, json!({"model": "tiny", "messages": messages})).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], WORDS);
    assert_eq!(answer.json()["surety"]["workers"], json!([first.key()]));
    assert_eq!(evidence(&site, &answer).await.answers.len(), 2);
}

/// Several answers that break off at once are one failure of their worker, which goes on getting orders.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_of_one_cause_opens_no_breaker() {
    let (first, second, site) = site_of_two().await;
    let messages = json!([{"role": "user", "content": "it is number {choice} BREAK@1 of a few"}]);
    let answer = ask(&first, &site, json!({"model": "tiny", "n": 5, "messages": messages})).await;
    for choice in 0..5 {
        let text = &answer.json()["choices"][choice]["message"]["content"];
        assert_eq!(*text, format!("it is number {choice} of a few"));
    }
    assert_eq!(answer.json()["surety"]["workers"], json!([first.key(), second.key()]));
    let measured = site.get("/v1/network/status").await.json()["workers"][0]["measured"].clone();
    // As many in a row, each of a cause of its own, would open it.
    assert!(measured["failures"].as_u64() >= Some(3), "{measured}");
    assert_eq!(measured["breaker"], "closed", "{measured}");
    let again =
        ask(&first, &site, json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}]})).await;
    assert_eq!(again.json()["surety"]["workers"], json!([first.key()]));
}

/// A worker that was only slow, and speaks before the one that was asked beside it, has the answer as if nothing were.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_worker_that_speaks_first_goes_on() {
    for at in [1, 5] {
        let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
        let site = Site::with(&[&first, &second], |settings| {
            settings.limits.stall_timeout = Duration::from_secs(60);
        })
        .await;
        site.until_ready(2).await;
        let mut said = words();
        // The second waits, with signs of life, for the first to be heard.
        said.insert(at, "HUSH@1");
        said.insert(0, "WAIT@2");
        let messages = json!([{"role": "user", "content": said.join(" ")}]);
        let body = json!({"model": "tiny", "messages": messages});
        let (answer, ()) = tokio::join!(ask(&first, &site, body), async {
            second.diary.until(&second.diary.accepted, 1).await;
            first.diary.speaks.notify_one();
        });
        assert_eq!(answer.json()["choices"][0]["message"]["content"], WORDS, "at {at}");
        assert_eq!(answer.json()["surety"]["workers"], json!([first.key()]), "at {at}");
        second.diary.until(&second.diary.cancelled, 1).await;
        assert_eq!(evidence(&site, &answer).await.answers.len(), 1, "at {at}");
    }
}

/// Who signs that it leaves has not failed; it is not asked again before it says that it serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_in_order_has_not_failed() {
    for (act, at) in [("REFUSE-LEAVING@1", 0), ("DRAIN@1", 0), ("DRAIN@1", 4)] {
        let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
        // Its word is asked for at the start, and whenever there is a reason.
        let site = Site::with(&[&first, &second], |settings| {
            settings.limits.status_interval = Duration::from_secs(3600);
        })
        .await;
        site.until_ready(2).await;
        first.set(|status| status.state = WorkerState::Draining);
        let messages = json!([{"role": "user", "content": script(act, at)}]);
        let answer = ask(&first, &site, json!({"model": "tiny", "messages": messages})).await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], WORDS, "{act}");
        let status = site.get("/v1/network/status").await.json();
        let workers = status["workers"].as_array().expect("workers");
        let of =
            |worker: &FakeWorker| workers.iter().find(|known| known["id"] == worker.key()).expect("known");
        assert_eq!(of(&first)["state"], "draining", "{act}");
        assert_eq!(of(&first)["measured"]["failures"], 0, "{act}");
        assert_eq!(of(&first)["measured"]["breaker"], "closed", "{act}");
    }
}

/// Orders name what they continue, and only the payer's own words.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_order_says_what_it_continues() {
    let (first, second, site) = site_of_two().await;
    let messages = json!([{"role": "user", "content": script("BREAK@1", 6)}]);
    let answer = ask(&first, &site, json!({"model": "tiny", "max_tokens": 40, "messages": messages})).await;
    assert_eq!(answer.status, 200);
    let (before, _) = first.diary.orders.lock().expect("no panic")[0].clone();
    let (after, _) = second.diary.orders.lock().expect("no panic")[0].clone();
    let resumed = after.resumed.expect("it resumes");
    assert_eq!(before.resumed, None);
    assert_eq!((before.nonce, before.seed_bytes()), (after.nonce, after.seed_bytes()));
    assert_eq!(after.max_output_tokens, before.max_output_tokens - resumed.output_tokens);
    assert_eq!(after.deadline_ms, before.deadline_ms);
    assert!(after.try_to_cbor().is_ok());
}
