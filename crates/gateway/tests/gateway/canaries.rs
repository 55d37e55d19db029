//! Canaries (U-9.1): from what a worker is shown of an order nobody learns whether its answer is going to be checked.
//!
//! Two kinds of people ask the same gateway: those who take an answer as it comes, and those who ask to test a worker, and
//! check and compute the answer again later. A classifier is given everything that the worker is shown, and who asked for
//! half of the orders; about the other half it must guess. It must be no better than a coin, and find what is planted.

use serde_json::{Value, json};
use surety_proof::{Expected, check_evidence};
use surety_types::{Evidence, Order, Prompt, Request, Seed};

use crate::{fake::FakeWorker, http::Site};

/// Orders of a run; half of them teach.
const ORDERS: usize = 500;
/// How far from a half a coin's share of right guesses is, at most: with this many deviations it is farther once in a
/// hundred thousand runs.
const DEVIATIONS: f64 = 4.5;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What somebody asks, as clients do: most leave most to the defaults. The path, and the body.
fn question(rng: &mut Rng) -> (&'static str, Value) {
    const WORDS: [&str; 10] = ["who", "goes", "there", "tell", "me", "of", "the", "night", "and", "mercy"];
    let text = |rng: &mut Rng| -> String {
        let words = 1 + rng.below(12);
        (0..words).map(|_| WORDS[rng.below(10) as usize]).collect::<Vec<_>>().join(" ")
    };
    let mut body = json!({ "model": "tiny" });
    let path = if rng.one_in(4) {
        body["prompt"] = json!(text(rng));
        "/v1/completions"
    } else {
        let mut messages = Vec::new();
        if rng.one_in(2) {
            messages.push(json!({ "role": "system", "content": text(rng) }));
        }
        for _ in 0..rng.below(3) {
            messages.push(json!({ "role": "user", "content": text(rng) }));
            messages.push(json!({ "role": "assistant", "content": text(rng) }));
        }
        messages.push(json!({ "role": "user", "content": text(rng) }));
        body["messages"] = json!(messages);
        "/v1/chat/completions"
    };
    if !rng.one_in(3) {
        body["max_tokens"] = json!(16 + rng.below(200));
    }
    if rng.one_in(2) {
        body["temperature"] = json!([0.0, 0.2, 0.7, 1.0][rng.below(4) as usize]);
    }
    if rng.one_in(4) {
        body["top_p"] = json!([0.9, 0.95][rng.below(2) as usize]);
    }
    if rng.one_in(5) {
        body["seed"] = json!(rng.below(1_000));
    }
    if rng.one_in(6) {
        body["frequency_penalty"] = json!(0.5);
    }
    if rng.one_in(6) {
        body["stop"] = json!(["\n\n"]);
    }
    if rng.one_in(3) {
        body["stream"] = json!(true);
    }
    (path, body)
}

/// Everything that a worker is shown, as numbers.
fn shown(orders: &[(Order, Request)]) -> Vec<Vec<f64>> {
    let bits = |bytes: &[u8]| -> Vec<f64> {
        bytes.iter().flat_map(|byte| (0..8).map(move |bit| f64::from(byte >> bit & 1))).collect()
    };
    let mut before = orders.first().map_or(0, |(order, _)| order.issued_ms);
    let mut rows = Vec::new();
    for (index, (order, request)) in orders.iter().enumerate() {
        let sampling = &order.sampling;
        let (kind, messages, text) = match &request.prompt {
            Prompt::Chat { messages, .. } => {
                (0.0, messages.len(), messages.iter().map(|message| message.content.len()).sum())
            }
            Prompt::Text(text) => (1.0, 0, text.len()),
            Prompt::Tokens(ids) => (2.0, 0, ids.len()),
        };
        let (seeded, seed) = match order.seed {
            Seed::Nonce => (0.0, 0),
            Seed::Caller(seed) => (1.0, seed),
        };
        let known = orders[..index].iter().filter(|(other, _)| other.payer == order.payer).count();
        let mut row = vec![
            f64::from(sampling.temperature),
            f64::from(sampling.top_p),
            f64::from(sampling.top_k),
            f64::from(sampling.min_p),
            f64::from(sampling.repetition_penalty),
            f64::from(sampling.presence_penalty),
            f64::from(sampling.frequency_penalty),
            sampling.logit_bias.len() as f64,
            f64::from(order.max_output_tokens),
            f64::from(u8::from(order.ignore_end)),
            f64::from(order.choice),
            f64::from(order.version),
            order.deadline_ms.saturating_sub(order.issued_ms) as f64,
            order.issued_ms.saturating_sub(before) as f64,
            (order.issued_ms % 1_000) as f64,
            f64::from(u8::from(order.channel.is_some())),
            f64::from(u8::from(order.resumed.is_some())),
            seeded,
            seed as f64,
            kind,
            messages as f64,
            text as f64,
            request.stop.len() as f64,
            f64::from(u8::from(request.logprobs.is_some())),
            f64::from(u8::from(request.prompt_logprobs.is_some())),
            f64::from(u8::from(request.date.is_some())),
            index as f64 - known as f64,
        ];
        row.extend(bits(&order.nonce));
        row.extend(bits(&order.request_digest.0[..8]));
        row.extend(bits(&order.payer.0[..8]));
        before = order.issued_ms;
        rows.push(row);
    }
    rows
}

/// Logistic regression over standardised numbers; how many of the orders that it was not taught it guesses right.
fn guessed(rows: &[Vec<f64>], canary: &[bool]) -> usize {
    let (teach, count) = (rows.len() / 2, rows[0].len());
    let column = |at: usize| rows[..teach].iter().map(move |row| row[at]);
    let scales: Vec<(f64, f64)> = (0..count)
        .map(|at| {
            let mean = column(at).sum::<f64>() / teach as f64;
            let deviation = (column(at).map(|x| (x - mean) * (x - mean)).sum::<f64>() / teach as f64).sqrt();
            (mean, if deviation > 0.0 { deviation } else { 1.0 })
        })
        .collect();
    let row = |row: &[f64]| -> Vec<f64> {
        row.iter().zip(&scales).map(|(x, (mean, deviation))| (x - mean) / deviation).collect()
    };
    let rows: Vec<Vec<f64>> = rows.iter().map(|own| row(own)).collect();
    let score = |weights: &[f64], bias: f64, row: &[f64]| -> f64 {
        bias + weights.iter().zip(row).map(|(weight, x)| weight * x).sum::<f64>()
    };
    let (mut weights, mut bias) = (vec![0.0; count], 0.0);
    for _ in 0..300 {
        let (mut slopes, mut bias_slope) = (vec![0.0; count], 0.0);
        for (row, canary) in rows[..teach].iter().zip(canary) {
            let wrong = 1.0 / (1.0 + (-score(&weights, bias, row)).exp()) - f64::from(u8::from(*canary));
            slopes.iter_mut().zip(row).for_each(|(slope, x)| *slope += wrong * x);
            bias_slope += wrong;
        }
        let step = 0.3 / teach as f64;
        // A little decay, or it learns the nonces by heart.
        weights.iter_mut().zip(&slopes).for_each(|(weight, slope)| *weight -= step * slope + 0.02 * *weight);
        bias -= step * bias_slope;
    }
    let right = |(row, canary): &(&Vec<f64>, &bool)| (score(&weights, bias, row) > 0.0) == **canary;
    rows[teach..].iter().zip(&canary[teach..]).filter(right).count()
}

/// What a coin guesses right of so many, at least and at most.
fn coin(count: usize) -> (f64, f64) {
    let (half, far) = (count as f64 / 2.0, DEVIATIONS * (count as f64).sqrt() / 2.0);
    (half - far, half + far)
}

/// A run: what the worker was shown, and which orders were canaries. `plant` changes what those ask.
async fn run(seed: u64, plant: impl Fn(&mut Value)) -> (Vec<(Order, Request)>, Vec<bool>) {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let rng = &mut Rng(seed);
    let mut canary = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..ORDERS {
        let (path, mut body) = question(rng);
        let is_canary = rng.one_in(2);
        if is_canary {
            plant(&mut body);
        }
        let answer = site.post(path, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        canary.push(is_canary);
        if is_canary {
            kept.push(answer.header("x-request-id").expect("an id").to_owned());
        }
    }
    // Whoever tests asks for the evidence when it likes: the worker has no part in that.
    let orders = worker.diary.orders.lock().expect("no panic").clone();
    for id in kept {
        let evidence = site.get(&format!("/v1/receipts/{id}")).await;
        let evidence = Evidence::parse(&evidence.body).expect("evidence");
        check_evidence(&evidence, None, &Expected::default()).expect("it holds");
    }
    let after = worker.diary.orders.lock().expect("no panic").len();
    assert_eq!((orders.len(), after), (ORDERS, ORDERS), "one order for each, and none for the checks");
    (orders, canary)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cannot_tell_a_canary_from_any_other_order() {
    let (orders, canary) = run(11, |_| {}).await;
    let rows = shown(&orders);
    let asked = ORDERS - ORDERS / 2;
    let (least, most) = coin(asked);
    let right = guessed(&rows, &canary) as f64;
    println!("{right} of {asked} guessed right; a coin has {least:.0} to {most:.0}");
    assert!((least..=most).contains(&right), "{right} of {asked} guessed right");

    // One bit of the nonce would be found.
    let mut marked = rows;
    let bit = marked[0].len() - 64 - 64 - 256 + 17;
    marked.iter_mut().zip(&canary).for_each(|(row, canary)| row[bit] = f64::from(u8::from(*canary)));
    let right = guessed(&marked, &canary) as f64;
    assert!(right > most + 0.1 * asked as f64, "{right} of {asked} guessed right by a bit of the nonce");
}

/// Who asks otherwise than others is found by it, and by nothing else that this test could miss.
#[tokio::test(flavor = "multi_thread")]
async fn who_tests_with_a_seed_of_its_own_is_told_by_it() {
    let (orders, canary) = run(12, |body| body["seed"] = json!(7)).await;
    let asked = ORDERS - ORDERS / 2;
    let right = guessed(&shown(&orders), &canary);
    println!("{right} of {asked} guessed right");
    assert!(right as f64 > coin(asked).1, "{right} of {asked} guessed right");
}
