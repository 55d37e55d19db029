//! Answers that go well.

use serde_json::{Value, json};
use surety_proof::{Expected, check_evidence};
use surety_types::{CivilDate, Evidence, Prompt, Seed};

use crate::{fake::FakeWorker, http::Site};

fn chat(text: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": text}]})
}

fn with(mut body: Value, members: Value) -> Value {
    for (name, value) in members.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_answered_whole() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = site.chat(chat("Hello there world")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let id = answer.header("x-request-id").expect("an id").to_owned();
    assert_eq!(body["id"], format!("chatcmpl-{}", &id[4..]));
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "tiny");
    assert!(body["created"].as_u64().expect("seconds") > 1_700_000_000);
    assert!(body["system_fingerprint"].as_str().expect("a text").starts_with("fp_"));
    let choice = &body["choices"][0];
    assert_eq!(
        choice["message"],
        json!({"role": "assistant", "content": "Hello there world", "refusal": null})
    );
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("stop")));
    assert_eq!(choice["logprobs"], Value::Null);
    // 17 bytes and 5 around them; three words and the end.
    let usage = &body["usage"];
    assert_eq!(usage["prompt_tokens"], 22);
    assert_eq!(usage["completion_tokens"], 4);
    assert_eq!(usage["total_tokens"], 26);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 1);
    assert_eq!(body["surety"]["workers"], json!([worker.key()]));
    assert_eq!(body["surety"]["request_id"], id);
    assert!(body["surety"]["checked"].as_array().expect("a list").len() > 5);
    let unchecked = body["surety"]["not_checked"].to_string();
    assert!(unchecked.contains("recomputation"), "{unchecked}");
    assert_eq!(answer.header("x-surety-receipt"), Some(format!("/v1/receipts/{id}").as_str()));
    assert_eq!(answer.header("x-surety-model"), body["surety"]["model"].as_str());
    assert_eq!(answer.header("x-surety-workers"), Some(worker.key().as_str()));
    assert_eq!(answer.header("x-surety-verification"), Some("not-requested"));
    assert_eq!(answer.header("x-surety-cost"), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_the_same_and_ends_with_done() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = site.chat(with(chat("Hello HOLD-BACK there world"), json!({"stream": true}))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(answer.header("x-surety-verification"), Some("not-requested"));
    let chunks = answer.chunks();
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Hello there world");
    let last = chunks.last().expect("a last");
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["surety"]["receipt"].as_str(), answer.header("x-surety-receipt"));
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"])
    );
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
    let ends = chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"].is_string()).count();
    assert_eq!(ends, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_comes_last_if_asked_for() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = with(chat("one two"), json!({"stream": true, "stream_options": {"include_usage": true}}));
    let chunks = site.chat(body).await.chunks();
    let (last, before) = chunks.split_last().expect("chunks");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 3);
    assert!(last["surety"]["receipt"].is_string());
    assert!(before.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_answers_are_several_orders() {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    let site = Site::start(&[&first, &second]).await;
    let body = with(chat("choice {choice}"), json!({"n": 5, "seed": 42, "temperature": 0.5}));
    let answer = site.chat(body.clone()).await.json();
    let texts: Vec<&str> = (0..5)
        .map(|index| answer["choices"][index]["message"]["content"].as_str().expect("a text"))
        .collect();
    assert_eq!(texts, ["choice 0", "choice 1", "choice 2", "choice 3", "choice 4"]);
    assert_eq!(answer["usage"]["prompt_tokens"], 20);
    assert_eq!(answer["usage"]["completion_tokens"], 15);
    let orders = [
        first.diary.orders.lock().expect("no panic").clone(),
        second.diary.orders.lock().expect("no panic").clone(),
    ];
    let orders = orders.concat();
    assert_eq!(orders.len(), 5);
    assert!(
        orders.iter().all(|(order, _)| order.seed == Seed::Caller(42) && order.sampling.temperature == 0.5)
    );
    let mut seeds: Vec<[u8; 32]> = orders.iter().map(|(order, _)| order.seed_bytes()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 5);

    let chunks = site.chat(with(body, json!({"stream": true}))).await.chunks();
    for index in 0..5 {
        let of_choice = || {
            chunks
                .iter()
                .flat_map(|chunk| chunk["choices"].as_array().expect("a list"))
                .filter(|c| c["index"] == index)
        };
        let text: String = of_choice().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, format!("choice {index}"));
        assert_eq!(of_choice().filter(|choice| choice["finish_reason"] == "stop").count(), 1);
        assert_eq!(of_choice().filter(|choice| choice["delta"]["role"] == "assistant").count(), 1);
    }
    assert_eq!(chunks.iter().filter(|chunk| chunk.get("surety").is_some()).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn length_is_said_when_it_is_reached() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = site.chat(with(chat("one two three"), json!({"max_tokens": 2}))).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0]["message"]["content"], "one two ");
    // Without a limit the rest of the context is there to fill.
    let answer = site.chat(chat("FLOOD")).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["total_tokens"], crate::fake::CONTEXT);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_have_both_shapes() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = site.chat(with(chat("hi"), json!({"logprobs": true, "top_logprobs": 2}))).await.json();
    let content = &answer["choices"][0]["logprobs"]["content"];
    assert_eq!(content.as_array().expect("a list").len(), 2);
    assert_eq!(content[0]["token"], "hi");
    assert_eq!(content[0]["logprob"], -0.5);
    assert_eq!(content[0]["bytes"], json!([104, 105]));
    assert_eq!(content[0]["top_logprobs"][1], json!({"token": "b", "logprob": -2.0, "bytes": [98]}));
    assert_eq!(answer["choices"][0]["logprobs"]["refusal"], Value::Null);

    let body = json!({"model": "tiny", "prompt": "ab cd", "logprobs": 1});
    let answer = site.complete(body).await.json();
    let expected = json!({
        "tokens": ["ab ", "cd", ""],
        "token_logprobs": [-0.5, -0.5, -0.5],
        "top_logprobs": [{"ab ": -0.5, "a": -1.0}, {"cd": -0.5, "a": -1.0}, {"": -0.5, "a": -1.0}],
        "text_offset": [0, 3, 5],
    });
    assert_eq!(answer["choices"][0]["logprobs"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_echo_and_score() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer = site
        .complete(json!({"model": "tiny", "prompt": "é hi", "echo": true, "logprobs": 0, "max_tokens": 0}))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["object"], "text_completion");
    let choice = &answer["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("é hi"), &json!("length")));
    assert_eq!(choice["logprobs"]["token_logprobs"], json!([null, -0.5, -0.5, -0.5, -0.5]));
    assert_eq!(choice["logprobs"]["text_offset"], json!([0, 0, 1, 2, 3]));
    assert_eq!(answer["usage"]["completion_tokens"], 0);

    // Ids are spelled out by the worker; every prompt has its own answer, in order.
    let body = json!({"model": "tiny", "prompt": [[72, 105], [33, 999]], "echo": true, "n": 2});
    let answer = site.complete(body).await.json();
    let texts: Vec<&Value> = (0..4).map(|index| &answer["choices"][index]["text"]).collect();
    assert_eq!(
        texts,
        ["Hicounted tokens", "Hicounted tokens", "!<999>counted tokens", "!<999>counted tokens"]
    );
    assert_eq!(answer["usage"]["prompt_tokens"], 4);

    let body =
        json!({"model": "tiny", "prompt": ["a b", "c"], "echo": true, "stream": true, "max_tokens": 1});
    let chunks = site.complete(body).await.chunks();
    let text = |index: u64| -> String {
        let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().expect("a list"));
        choices
            .filter(|choice| choice["index"] == index)
            .filter_map(|choice| choice["text"].as_str())
            .collect()
    };
    assert_eq!((text(0), text(1)), ("a ba ".to_owned(), "cc".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_prompts_than_go_at_once_are_all_answered() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let prompts: Vec<String> = (0..60).map(|number| format!("number{number}")).collect();
    let answer = site.complete(json!({"model": "tiny", "prompt": prompts, "n": 2})).await.json();
    for (index, choice) in answer["choices"].as_array().expect("a list").iter().enumerate() {
        assert_eq!(choice["text"], prompts[index / 2].as_str());
        assert_eq!(choice["index"], index);
    }
    let id = answer["surety"]["request_id"].as_str().expect("an id");
    let evidence = Evidence::parse(&site.get(&format!("/v1/receipts/{id}")).await.body).expect("evidence");
    assert_eq!(evidence.answers.len(), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_says_what_was_asked() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let body = json!({
        "model": "tiny", "messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": "y z"}],
        "top_k": 7, "min_p": 0.25, "repetition_penalty": 1.5, "logit_bias": {"9": -1, "3": 2.5}, "stop": "Q",
        "ignore_eos": true, "max_completion_tokens": 2, "user": "u", "surety": {"date": "2024-02-29", "deadline_ms": 60000},
    });
    assert_eq!(site.chat(body).await.status, 200);
    let orders = worker.diary.orders.lock().expect("no panic");
    let (order, request) = &orders[0];
    assert_eq!(
        (order.sampling.top_k, order.sampling.min_p, order.sampling.repetition_penalty),
        (7, 0.25, 1.5)
    );
    assert_eq!(order.sampling.logit_bias, [(3, 2.5), (9, -1.0)]);
    assert_eq!((order.seed, order.ignore_end, order.max_output_tokens), (Seed::Nonce, true, 2));
    // The time counts from the request; an order may be issued later, where another worker was asked before.
    assert!((30_000..=60_000).contains(&(order.deadline_ms - order.issued_ms)));
    assert_eq!(order.payer, site.gateway.key());
    assert_eq!(request.stop, ["Q"]);
    assert_eq!(request.date, Some(CivilDate { year: 2024, month: 2, day: 29 }));
    let Prompt::Chat { messages, .. } = &request.prompt else { panic!("not a chat") };
    assert_eq!(messages[0].role, "system");
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_holds_and_is_there_before_done() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut wire = site
        .open("/v1/chat/completions", &with(chat("a b c"), json!({"stream": true, "n": 2})).to_string())
        .await;
    wire.until("[DONE]").await;
    let answer = wire.rest().await;
    let id = answer.header("x-request-id").expect("an id");
    let path = format!("/v1/receipts/{id}");
    let found = site.get(&path).await;
    assert_eq!((found.status, found.header("content-type")), (200, Some("application/json")));
    let evidence = Evidence::parse(&found.body).expect("evidence");
    assert_eq!(evidence.answers.len(), 2);
    assert_eq!(evidence.answers[1].text, "a b c");
    let gateway = site.gateway.key();
    let checked = check_evidence(&evidence, Some(&gateway), &Expected::default()).expect("it holds");
    assert_eq!(checked.envelope.request_id, id);
    assert_eq!(checked.envelope.model_name, "tiny");

    // The same under OpenAI's id, and as one signed receipt.
    let chunk: Value = serde_json::from_str(&answer.events()[0]).expect("JSON");
    let other = site.get(&format!("/v1/receipts/{}", chunk["id"].as_str().expect("an id"))).await;
    assert_eq!(other.body, found.body);
    for (query, index) in [("", 0), ("?choice=1", 1)] {
        let head = format!(
            "GET {path}{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept: application/cose\r\n\r\n"
        );
        let cose = crate::http::request(site.address, &head).await;
        assert_eq!(Some(&cose.body), evidence.answers[index].receipt.as_ref());
        assert!(cose.header("content-type").expect("a type").starts_with("application/cose"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_pins_ids_and_aliases_find_the_model() {
    let worker = FakeWorker::start(1).await;
    let site = Site::with(&[&worker], |settings| {
        settings.aliases = [("gpt-4o".to_owned(), "tiny".to_owned())].into();
    })
    .await;
    site.until_ready(1).await;
    let id = site.get("/v1/models/tiny").await.json()["surety"]["id"].as_str().expect("an id").to_owned();
    let digits = id.strip_prefix("blake3:").expect("a digest");
    for name in [
        "tiny".to_owned(),
        "gpt-4o".to_owned(),
        id.clone(),
        digits.to_owned(),
        format!("tiny@{}", &digits[..8]),
        format!("gpt-4o@{id}"),
    ] {
        let answer = site.chat(with(chat("x"), json!({"model": name}))).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(answer.json()["model"], "tiny");
        assert_eq!(answer.header("x-surety-model"), Some(id.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wanted_worker_answers() {
    let (first, second) = (FakeWorker::start(1).await, FakeWorker::start(2).await);
    let site = Site::start(&[&first, &second]).await;
    for worker in [&first, &second, &second] {
        let answer = site.chat(with(chat("x"), json!({"surety": {"worker": &worker.key()[..8]}}))).await;
        assert_eq!(answer.header("x-surety-workers"), Some(worker.key().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_receipt_cannot_be_stored_says_so() {
    let worker = FakeWorker::start(1).await;
    let site = Site::with(&[&worker], |settings| settings.limits.receipts_bytes_max = 1).await;
    site.until_ready(1).await;
    let answer = site.chat(chat("x")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-surety-receipt"), None);
    let note = answer.json()["surety"].clone();
    assert_eq!(note["receipt"], Value::Null);
    assert!(note["note"].as_str().expect("a note").starts_with("receipt not stored: "), "{note}");
    let chunks = site.chat(with(chat("x"), json!({"stream": true}))).await.chunks();
    assert!(chunks.last().expect("a last")["surety"]["note"].is_string());
}
