//! Vectors: in both spellings the same bits, which are those the receipt commits to.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use surety_proof::{Check, Expected, check_evidence};
use surety_types::{Evidence, Prompt, embedding::vector_bytes};

use crate::{
    fake::{FakeWorker, WIDTH, manifest, model},
    http::Site,
};

const PATH: &str = "/v1/embeddings";

/// What the scripted worker gives for a prompt of so many tokens.
fn expected(tokens: usize, dimensions: usize) -> Vec<f32> {
    (0..dimensions).map(|n| (tokens + n) as f32 / 7.0).collect()
}

fn numbers(item: &Value) -> Vec<f32> {
    let numbers = item["embedding"].as_array().expect("numbers");
    numbers.iter().map(|number| number.to_string().parse().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_input_has_its_vector_in_either_spelling() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let long: Vec<u32> = (0..40).collect();
    for (input, tokens) in [
        (json!("abc"), vec![3]),
        (json!(["abc", "", "abcdef"]), vec![3, 0, 6]),
        (json!([5, 6]), vec![2]),
        (json!([[5], long]), vec![1, 40]),
    ] {
        let body = json!({"model": "tiny", "input": input, "user": "u"});
        let plain = site.post(PATH, &body.to_string()).await;
        assert_eq!(plain.status, 200, "{}", plain.text());
        let mut body = body;
        body["encoding_format"] = json!("base64");
        let packed = site.post(PATH, &body.to_string()).await;
        let (plain, packed) = (plain.json(), packed.json());
        assert_eq!(plain["object"], "list");
        assert_eq!(plain["model"], "tiny");
        let sum: usize = tokens.iter().sum();
        assert_eq!(plain["usage"], json!({"prompt_tokens": sum, "total_tokens": sum}));
        assert_eq!(plain["data"].as_array().expect("a list").len(), tokens.len());
        for (index, tokens) in tokens.into_iter().enumerate() {
            let vector = expected(tokens, WIDTH as usize);
            let (one, other) = (&plain["data"][index], &packed["data"][index]);
            assert_eq!((&one["object"], &one["index"]), (&json!("embedding"), &json!(index)));
            let bits = |vector: &[f32]| vector.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&numbers(one)), bits(&vector));
            assert_eq!(other["embedding"], json!(BASE64_STANDARD.encode(vector_bytes(&vector))));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_evidence_holds_the_vector_and_says_that_it_was_checked() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let answer =
        site.post(PATH, &json!({"model": "tiny", "input": ["ab", "c"], "dimensions": 8}).to_string()).await;
    let body = answer.json();
    assert!(body["surety"]["checked"].to_string().contains("the vector is the one"), "{body}");
    let evidence = site.get(body["surety"]["receipt"].as_str().expect("a path")).await;
    let mut evidence = Evidence::parse(evidence.text().as_bytes()).expect("evidence");
    let checked = check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    assert_eq!(checked.answers.len(), 2);
    for (answer, prompt) in checked.answers.iter().zip(["ab", "c"]) {
        assert!(answer.checked.contains(&Check::Vector));
        assert_eq!(answer.request.prompt, Prompt::Text(prompt.to_owned()));
        assert_eq!(answer.order.max_output_tokens, 0);
    }
    assert_eq!(evidence.answers[0].embedding, Some(vector_bytes(&expected(2, 8))));
    evidence.answers[0].embedding.as_mut().expect("a vector")[0] ^= 1;
    check_evidence(&evidence, None, &Expected::default()).expect_err("another vector");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_inputs_as_openai_takes_are_answered_all_or_none() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let mut inputs: Vec<String> = (0..2048).map(|index| "x".repeat(1 + index % 7)).collect();
    let ask = |inputs: &[String]| {
        json!({"model": "tiny", "input": inputs, "encoding_format": "base64"}).to_string()
    };
    let answer = site.post(PATH, &ask(&inputs)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let data = body["data"].as_array().expect("a list");
    assert_eq!(data.len(), inputs.len());
    for (index, (item, input)) in data.iter().zip(&inputs).enumerate() {
        let vector = vector_bytes(&expected(input.len(), WIDTH as usize));
        assert_eq!(
            (&item["index"], &item["embedding"]),
            (&json!(index), &json!(BASE64_STANDARD.encode(vector)))
        );
    }
    // Each has its receipt, in one file that holds.
    let evidence = site.get(body["surety"]["receipt"].as_str().expect("a path")).await;
    let evidence = Evidence::parse(evidence.text().as_bytes()).expect("evidence");
    let checked = check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    assert_eq!(checked.answers.len(), inputs.len());

    // One that is refused takes all with it.
    inputs[1500] = "REFUSE-BAD".to_owned();
    let refused = site.post(PATH, &ask(&inputs)).await;
    assert!(refused.status >= 400 && refused.json()["error"]["code"].is_string(), "{}", refused.text());
    inputs.push("one more".to_owned());
    let error = &site.post(PATH, &ask(&inputs)).await.json()["error"];
    assert_eq!((&error["code"], &error["param"]), (&json!("invalid_param"), &json!("input")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_given_is_refused_by_name() {
    let mut mute = model("mute", manifest("mute", true));
    mute.vectors = None;
    let mut talker = model("talker", manifest("talker", true));
    talker.vectors.as_mut().expect("vectors").may_be_cut = false;
    let worker = FakeWorker::serving(1, vec![mute, talker, model("tiny", manifest("tiny", true))]).await;
    let site = Site::start(&[&worker]).await;
    for (body, code, param) in [
        (json!({"model": "tiny"}), "invalid_param", "input"),
        (json!({"model": "tiny", "input": []}), "invalid_param", "input"),
        (json!({"model": "tiny", "input": {}}), "invalid_param", "input"),
        (json!({"model": "tiny", "input": [[]]}), "invalid_param", "input[0]"),
        (json!({"model": "tiny", "input": [5, 1000]}), "invalid_param", "input"),
        (
            json!({"model": "tiny", "input": "a", "encoding_format": "int8"}),
            "invalid_param",
            "encoding_format",
        ),
        (json!({"model": "tiny", "input": "a", "dimensions": 0}), "invalid_param", "dimensions"),
        (json!({"model": "tiny", "input": "a", "dimensions": 65}), "invalid_param", "dimensions"),
        (json!({"model": "talker", "input": "a", "dimensions": 8}), "unsupported_parameter", "dimensions"),
        (json!({"model": "mute", "input": "a"}), "invalid_param", "model"),
        (json!({"model": "tiny", "input": "a", "input_type": "query"}), "unknown_parameter", "input_type"),
        (json!({"model": "tiny", "input": "a", "temperature": 1}), "unknown_parameter", "temperature"),
    ] {
        let answer = site.post(PATH, &body.to_string()).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["code"], &error["param"]),
            (400, &json!(code), &json!(param)),
            "{body}"
        );
    }
    let whole =
        site.post(PATH, &json!({"model": "talker", "input": "a", "dimensions": WIDTH}).to_string()).await;
    assert_eq!(whole.status, 200, "{}", whole.text());
    let models = site.get("/v1/models").await.json();
    let described: Vec<&Value> = models["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|model| &model["surety"]["embeddings"])
        .collect();
    assert_eq!(
        described,
        [
            &Value::Null,
            &json!({"dimensions": 64, "pooling": "last", "may_be_cut": false}),
            &json!({"dimensions": 64, "pooling": "last", "may_be_cut": true}),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vector_that_is_not_the_receipts_is_never_delivered() {
    let liar = FakeWorker::start(1).await;
    let site = Site::start(&[&liar]).await;
    for lie in ["LIE-VECTOR", "NO-VECTOR"] {
        let answer = site.post(PATH, &json!({"model": "tiny", "input": lie}).to_string()).await;
        assert!(answer.status >= 500, "{lie}: {}", answer.text());
        assert_eq!(answer.json()["error"]["metadata"]["accountable"], "worker", "{lie}");
    }
    let honest = FakeWorker::start(2).await;
    let site = Site::start(&[&liar, &honest]).await;
    for lie in ["LIE-VECTOR@1", "NO-VECTOR@1"] {
        let answer = site.post(PATH, &json!({"model": "tiny", "input": lie}).to_string()).await;
        assert_eq!(answer.status, 200, "{lie}: {}", answer.text());
        assert_eq!(numbers(&answer.json()["data"][0]), expected(lie.len(), WIDTH as usize));
    }
}
