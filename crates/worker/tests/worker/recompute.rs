//! Exact re-execution against honest workers and against liars who sign everything properly.

use std::time::Duration;

use crate::liar::{Liar, bundled_file, chat, compute, executor, load, order, serving};
use surety_client::{Completed, Connection, OrderOptions, SessionEvent};
use surety_grammar::json_schema;
use surety_proof::check::{Expected, Fault, check_answer};
use surety_types::{Answer, Canonical, Digest, FinishReason, Order, Request, SecretKey, Seed, Signed};
use surety_worker::audit::{Discrepancy, recompute};

/// Answers a real worker gives and that are recomputed.
const HONEST_ANSWERS: u64 = 1_000;
/// Orders under way at once.
const CONCURRENT: usize = 32;

/// Follows an order to its end, or until so many tokens are signed for: then what is left of it.
async fn follow(
    connection: &Connection,
    order: Signed<Order>,
    request: Request,
    resumed: &[u32],
    leave_at: usize,
) -> Result<Completed, Answer> {
    let mut session =
        connection.order(order, request, resumed.to_vec(), OrderOptions::default()).await.unwrap();
    let mut tokens = 0;
    loop {
        match session.next().await.unwrap() {
            SessionEvent::Finished(completed) => return Ok(*completed),
            SessionEvent::Refused(refusal) => panic!("{:?}", refusal.receipt.failure()),
            SessionEvent::Tokens { tokens: more, .. } => tokens += more.len(),
            SessionEvent::Accepted(_) | SessionEvent::Prompt { .. } => {}
        }
        if tokens >= leave_at {
            return Err(session.so_far().unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_goes_on_at_any_token_and_every_part_recomputes() {
    let file = bundled_file();
    let (worker, connection) = serving(file, 21).await;
    let (model, executor) = (load(file), executor());
    let payer = SecretKey::from_bytes(&[13; 32]);
    let mut request = chat("A street in Rome.", "What news, citizen?");
    request.stop = vec!["\n\n".into()];
    let sent = |order: &Order| Signed::sign(order.clone(), &payer);
    let mut seeds = 0..100;
    let (whole, expected) = loop {
        let seed = seeds.next().expect("one answer in a hundred is long, and ends by itself");
        let whole = order(model.id(), &request, &payer, seed, 200);
        let completed = follow(&connection, sent(&whole), request.clone(), &[], usize::MAX).await.unwrap();
        if completed.answer.output_ids.len() > 100 && completed.receipt.finish == FinishReason::Stop {
            break (whole, completed.answer);
        }
    };
    let judge = |answer: &Answer| {
        let checked = check_answer(answer, &Expected::default()).unwrap();
        recompute(&model, &executor, &checked, answer, &mut |_, _| {}).unwrap()
    };
    judge(&expected);

    let ids = &expected.output_ids;
    for position in (1..=ids.len()).step_by(7).chain([ids.len()]) {
        let (said, rest) = ids.split_at(position);
        let resumed = Order {
            max_output_tokens: 200 - position as u32,
            resumed: surety_client::resumed_from(said),
            ..whole.clone()
        };
        let completed = follow(&connection, sent(&resumed), request.clone(), said, usize::MAX).await.unwrap();
        assert_eq!(completed.answer.output_ids, rest, "resumed at {position}");
        assert!(expected.text.ends_with(&completed.answer.text), "resumed at {position}");
        let prompt = completed.receipt.prompt_tokens as usize - position;
        assert_eq!(prompt, model.prompt_tokens(&request).unwrap().len());
        assert_eq!(judge(&completed.answer).output_tokens, rest.len());

        let mut lie = completed.answer.clone();
        lie.resumed_ids[0] ^= 1;
        assert!(check_answer(&lie, &Expected::default()).is_err());
    }

    // Left in the middle, and again in the middle of the rest: what was signed for recomputes by itself.
    let first = follow(&connection, sent(&whole), request.clone(), &[], 70).await.unwrap_err();
    assert!(first.receipt.is_none() && first.output_ids.len() >= 64);
    assert_eq!(judge(&first).output_tokens, first.output_ids.len());
    assert_eq!(first.output_ids, ids[..first.output_ids.len()]);
    assert!(expected.text.starts_with(&first.text));
    let mut lie = first.clone();
    lie.text.push('!');
    assert!(check_answer(&lie, &Expected::default()).is_err());
    worker.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_honest_receipts_are_accepted() {
    let file = bundled_file();
    let (worker, connection) = serving(file, 11).await;
    let model_id = worker.models()[0].id;

    let payer = SecretKey::from_bytes(&[13; 32]);
    let mut answers = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..HONEST_ANSWERS {
        if tasks.len() == CONCURRENT {
            answers.push(tasks.join_next().await.unwrap().unwrap());
        }
        let request = chat("A street in Rome.", &format!("What news, citizen {number}?"));
        let max_output_tokens = 1 + (number % 24) as u32;
        let order = Signed::sign(order(model_id, &request, &payer, number as i64, max_output_tokens), &payer);
        let connection = connection.clone();
        tasks.spawn(async move { follow(&connection, order, request, &[], usize::MAX).await.unwrap() });
    }
    while let Some(answer) = tasks.join_next().await {
        answers.push(answer.unwrap());
    }
    worker.shutdown(Duration::from_secs(1)).await;
    assert_eq!(answers.len() as u64, HONEST_ANSWERS);

    let (model, executor) = (load(file), executor());
    for completed in &answers {
        let recomputed =
            recompute(&model, &executor, &completed.checked, &completed.answer, &mut |_, _| {}).unwrap();
        assert_eq!(recomputed.output_tokens, completed.answer.output_ids.len());
    }
    let texts: std::collections::BTreeSet<&str> =
        answers.iter().map(|completed| completed.answer.text.as_str()).collect();
    assert!(texts.len() as u64 > HONEST_ANSWERS / 2, "the answers differ: {}", texts.len());
}

#[test]
fn an_honest_answer_is_accepted() {
    let liar = Liar::new();
    let (order, computed) = liar.honest();
    liar.judge(&liar.answer(&order, &liar.request(), &computed)).unwrap();
}

#[test]
fn every_flipped_byte_is_refused() {
    let liar = Liar::new();
    let (order, computed) = liar.honest();
    let honest = liar.answer(&order, &liar.request(), &computed);
    let refused = |answer: &Answer, what: &str, index: usize| {
        let Ok(checked) = check_answer(answer, &Expected::default()) else { return };
        let judged = recompute(&liar.model, &liar.executor, &checked, answer, &mut |_, _| {});
        assert!(judged.is_err(), "byte {index} of the {what} was flipped and nobody noticed");
    };
    type Part = fn(&mut Answer) -> &mut [u8];
    let parts: [(&str, Part); 5] = [
        ("order", |answer| &mut answer.order),
        ("request", |answer| &mut answer.request),
        ("acceptance", |answer| answer.acceptance.as_mut().unwrap()),
        ("receipt", |answer| answer.receipt.as_mut().unwrap()),
        ("salt", |answer| &mut answer.salt),
    ];
    for (name, part) in parts {
        for index in 0..part(&mut honest.clone()).len() {
            let mut flipped = honest.clone();
            part(&mut flipped)[index] ^= 1 << (index % 8);
            refused(&flipped, name, index);
        }
    }
    for index in 0..honest.text.len() {
        let mut bytes = honest.text.clone().into_bytes();
        bytes[index] ^= 1;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        refused(&Answer { text, ..honest.clone() }, "text", index);
    }
    for index in 0..honest.output_ids.len() {
        let mut flipped = honest.clone();
        flipped.output_ids[index] ^= 1;
        refused(&flipped, "output ids", index);
    }
}

#[test]
fn another_model_is_refused() {
    let liar = Liar::new();
    let other = load(&xtask::random_model::bytes(&xtask::random_model::Settings {
        shape: xtask::random_model::Shape::TinyLlama,
        format: xtask::random_model::Format::Q8_0,
        seed: 4,
    }));
    let order = liar.order(1);
    let mut claim = compute(&other, &liar.request(), &order);
    claim.prompt = liar.model.prompt_tokens(&liar.request()).unwrap();
    let judged = liar.judge(&liar.answer(&order, &liar.request(), &claim));
    assert!(matches!(judged, Err(Discrepancy::Token { index: 0..=3, .. })), "{judged:?}");
}

#[test]
fn one_requantised_tensor_is_refused() {
    let liar = Liar::new();
    let mut file = bundled_file().to_vec();
    let range = {
        let gguf = surety_engine::gguf::Gguf::parse(&file).unwrap();
        gguf.tensor("blk.3.ffn_down.weight").unwrap().range.clone()
    };
    // Eight bits to about four: each int8 code is rounded to a multiple of sixteen.
    for block in file[range].chunks_exact_mut(34) {
        for code in &mut block[2..] {
            let rounded = ((f32::from(*code as i8) / 16.0).round() * 16.0).clamp(-112.0, 112.0);
            *code = rounded as i8 as u8;
        }
    }
    let requantised = load(&file);
    let (order, _) = liar.honest();
    let claim = compute(&requantised, &liar.request(), &order);
    let judged = liar.judge(&liar.answer(&order, &liar.request(), &claim));
    assert!(matches!(judged, Err(Discrepancy::Token { .. } | Discrepancy::State(_))), "{judged:?}");
}

#[test]
fn the_right_tokens_from_the_wrong_weights_are_refused() {
    let liar = Liar::new();
    let (order, mut claim) = liar.honest();
    claim.state_digest = Digest([3; 32]);
    let judged = liar.judge(&liar.answer(&order, &liar.request(), &claim));
    assert!(matches!(judged, Err(Discrepancy::State(_))), "{judged:?}");
}

#[test]
fn another_seed_or_temperature_is_refused() {
    let liar = Liar::new();
    let (order, _) = liar.honest();
    let other_seed = Order { seed: Seed::Caller(9_999), ..order.clone() };
    let mut warmer = order.clone();
    warmer.sampling.temperature += 0.1;
    for applied in [other_seed, warmer] {
        let claim = compute(&liar.model, &liar.request(), &applied);
        let judged = liar.judge(&liar.answer(&order, &liar.request(), &claim));
        assert!(matches!(judged, Err(Discrepancy::Token { .. })), "{judged:?}");
    }
}

#[test]
fn an_edited_token_is_refused_where_it_stands() {
    let liar = Liar::new();
    let (order, honest) = liar.honest();
    for index in 0..honest.tokens.len() - 1 {
        let mut claim = compute(&liar.model, &liar.request(), &order);
        claim.tokens[index] = (claim.tokens[index] + 1) % 256 + 300;
        let judged = liar.judge(&liar.answer(&order, &liar.request(), &claim));
        assert!(matches!(judged, Err(Discrepancy::Token { index: at, .. }) if at == index), "{judged:?}");
    }
}

#[test]
fn a_token_after_the_end_is_refused() {
    let liar = Liar::new();
    let (order, mut claim) = liar.honest();
    claim.tokens.push(300);
    let end = claim.tokens.len() - 1;
    let judged = liar.judge(&liar.answer(&order, &liar.request(), &claim));
    assert!(matches!(judged, Err(Discrepancy::PastTheEnd { index }) if index == end), "{judged:?}");
}

#[test]
fn an_early_stop_is_refused() {
    let liar = Liar::new();
    let (order, honest) = liar.honest();
    let shorter = Order { max_output_tokens: honest.tokens.len() as u32 - 2, ..order.clone() };
    let mut claim = compute(&liar.model, &liar.request(), &shorter);
    claim.finish = FinishReason::Stop;
    let judged = liar.judge(&liar.answer(&order, &liar.request(), &claim));
    assert!(matches!(judged, Err(Discrepancy::Finish { computed: None, .. })), "{judged:?}");
}

#[test]
fn a_changed_system_prompt_is_refused() {
    let liar = Liar::new();
    let (order, _) = liar.honest();
    let tampered = chat("A street in Rome. Praise the sponsor.", "What news from the wars?");
    let claim = compute(&liar.model, &tampered, &order);
    let judged = liar.judge(&liar.answer(&order, &liar.request(), &claim));
    let refused = matches!(judged, Err(Discrepancy::PromptCount { .. } | Discrepancy::PromptTokens));
    assert!(refused, "{judged:?}");
}

#[test]
fn a_receipt_for_another_request_is_refused() {
    let liar = Liar::new();
    let (order, computed) = liar.honest();
    let honest = liar.answer(&order, &liar.request(), &computed);
    let other_request = chat("A street in Rome.", "What news from the sea?");
    let swapped = Answer { request: other_request.to_cbor(), ..honest.clone() };
    assert!(matches!(check_answer(&swapped, &Expected::default()), Err(Fault::OtherRequest)));
    let other_order = Order { request_digest: other_request.digest(), ..order };
    let swapped = Answer {
        order: Signed::sign(other_order, &liar.payer).bytes().to_vec(),
        request: other_request.to_cbor(),
        ..honest
    };
    assert!(matches!(check_answer(&swapped, &Expected::default()), Err(Fault::AcceptanceOfOtherOrder)));
}

const VERDICT: &str = r#"{"type":"object","properties":{"guilty":{"type":"boolean"},"crime":{"enum":["treason","theft"]},
    "years":{"type":["integer","null"]}},"required":["guilty","crime","years"],"additionalProperties":false}"#;

/// A request for a verdict, and its order.
fn verdict(order: &Order, request: &Request) -> (Order, Request) {
    let grammar = json_schema(VERDICT).unwrap();
    let mut order = Order { max_output_tokens: 100, ..order.clone() };
    order.sampling.grammar = Some(Request::grammar_digest(&grammar));
    let request = Request { grammar: Some(grammar), ..request.clone() };
    (Order { request_digest: request.digest(), ..order }, request)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_keeps_to_its_grammar_also_where_it_goes_on_elsewhere() {
    let file = bundled_file();
    let (worker, connection) = serving(file, 31).await;
    let (model, executor) = (load(file), executor());
    let payer = SecretKey::from_bytes(&[13; 32]);
    let plain = chat("A court in Rome.", "What is the verdict?");
    let sent = |order: &Order| Signed::sign(order.clone(), &payer);
    let judge = |answer: &Answer| {
        let checked = check_answer(answer, &Expected::default()).unwrap();
        recompute(&model, &executor, &checked, answer, &mut |_, _| {}).unwrap()
    };
    for seed in 0..3 {
        let (whole, request) = verdict(&order(model.id(), &plain, &payer, seed, 100), &plain);
        let expected = follow(&connection, sent(&whole), request.clone(), &[], usize::MAX).await.unwrap();
        assert_eq!(expected.receipt.finish, FinishReason::Stop);
        let said: serde_json::Value = serde_json::from_str(&expected.answer.text).unwrap();
        assert!(said["guilty"].is_boolean() && (said["years"].is_i64() || said["years"].is_null()), "{said}");
        assert!(["treason", "theft"].contains(&said["crime"].as_str().unwrap()), "{said}");
        assert_eq!(said.as_object().unwrap().len(), 3);
        judge(&expected.answer);

        let ids = &expected.answer.output_ids;
        for position in [1, ids.len() / 2, ids.len() - 1] {
            let (before, rest) = ids.split_at(position);
            let resumed = Order {
                max_output_tokens: 100 - position as u32,
                resumed: surety_client::resumed_from(before),
                ..whole.clone()
            };
            let completed =
                follow(&connection, sent(&resumed), request.clone(), before, usize::MAX).await.unwrap();
            assert_eq!(completed.answer.output_ids, rest, "resumed at {position}");
            judge(&completed.answer);
        }
    }
    worker.shutdown(Duration::from_secs(1)).await;
}

#[test]
fn an_answer_that_leaves_its_grammar_is_refused() {
    let liar = Liar::new();
    let plain = liar.request();
    let (held, request) = verdict(&liar.order(3), &plain);
    let honest = compute(&liar.model, &request, &held);
    assert!(liar.judge(&liar.answer(&held, &request, &honest)).is_ok());
    // As if nothing had been asked of it.
    let claim = compute(&liar.model, &plain, &held);
    let judged = liar.judge(&liar.answer(&held, &request, &claim));
    assert!(matches!(judged, Err(Discrepancy::Token { index: 0, .. })), "{judged:?}");
    // As if something had.
    let free = liar.order(3);
    let claim = compute(&liar.model, &request, &Order { max_output_tokens: 40, ..free.clone() });
    let judged = liar.judge(&liar.answer(&free, &plain, &claim));
    assert!(matches!(judged, Err(Discrepancy::Token { .. })), "{judged:?}");
    // Request and order are of each other: neither can be shown with another grammar.
    let mut unnamed = held.clone();
    unnamed.sampling.grammar = None;
    let answer = liar.answer(&unnamed, &request, &honest);
    assert!(matches!(check_answer(&answer, &Expected::default()), Err(Fault::OtherGrammar)));
    let answer = liar.answer(&Order { request_digest: plain.digest(), ..held }, &plain, &claim);
    assert!(matches!(check_answer(&answer, &Expected::default()), Err(Fault::OtherGrammar)));
}
