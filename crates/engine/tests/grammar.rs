//! Answers that keep to a grammar: whole JSON whatever the model, the same by every route, and the second voice computes them too.

mod common;

use common::{Loaded, bundled, executor, limits, request, run, tiny, tokens};
use surety_engine::replay::{Difference, replay};
use surety_engine::{ConstraintError, PastTheEnd, SequenceRequest, constraint};
use surety_grammar::{Grammar, Vocabulary, json_schema};
use surety_kernels::Backend;
use surety_reference::sample::{self, Parameters};
use surety_types::{FinishReason, Sampling};
use xtask::random_model::{Format, Shape};

const SCHEMA: &str = r#"{"type":"object","properties":{
    "mood":{"enum":["merry","grim","größer"]},"lines":{"type":"integer"},"sung":{"type":"boolean"},
    "cast":{"type":"array","items":{"type":["boolean","null"]},"minItems":1,"maxItems":3}},
    "required":["mood","lines","sung","cast"],"additionalProperties":false}"#;

fn asked(loaded: &Loaded, sampling: Sampling, seed: u8) -> SequenceRequest {
    let grammar = constraint::constraint(&json_schema(SCHEMA).unwrap(), loaded.model.tokenizer()).unwrap();
    SequenceRequest {
        sampling,
        seed: [seed; 32],
        ignore_end: false,
        grammar: Some(grammar),
        ..request(tokens(&loaded.model, 3, 20), 200)
    }
}

fn samplings() -> Vec<Sampling> {
    vec![
        Sampling { temperature: 0.0, ..Sampling::default() },
        Sampling::default(),
        Sampling { temperature: 1.3, top_k: 30, top_p: 0.9, repetition_penalty: 1.2, ..Sampling::default() },
        Sampling { min_p: 0.3, presence_penalty: 1.5, logit_bias: vec![(5, 60.0)], ..Sampling::default() },
    ]
}

/// The bytes of each token, `None` of those that end an answer.
fn pieces(loaded: &Loaded) -> Vec<Option<Vec<u8>>> {
    let tokenizer = loaded.model.tokenizer();
    (0..tokenizer.vocabulary_size() as u32)
        .map(|id| (!tokenizer.is_end_of_generation(id)).then(|| tokenizer.text_bytes(id).to_vec()))
        .collect()
}

#[test]
fn answers_are_whole_and_the_second_voice_agrees() {
    let loaded = bundled();
    let reference = surety_reference::model::Model::open(&loaded.file).unwrap();
    let pieces = pieces(&loaded);
    let grammar = Grammar::compile(&json_schema(SCHEMA).unwrap()).unwrap();
    let executor = executor(Backend::detect(), 2);
    for (index, sampling) in samplings().into_iter().enumerate() {
        let ours = asked(&loaded, sampling.clone(), index as u8);
        let answer = run(&loaded.model, &executor, limits(), std::slice::from_ref(&ours)).remove(0);
        assert_eq!(answer.finish, FinishReason::Stop, "{}", answer.text);
        let value: serde_json::Value = serde_json::from_str(&answer.text).expect(&answer.text);
        assert!(["merry", "grim", "größer"].contains(&value["mood"].as_str().unwrap()), "{value}");
        assert!(value["lines"].is_i64() && value["sung"].is_boolean(), "{value}");
        assert!((1..=3).contains(&value["cast"].as_array().unwrap().len()), "{value}");

        // The mask by the plainest reading: a token may come if all its bytes may, one after another.
        let parameters = Parameters {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            logit_bias: sampling.logit_bias.clone(),
        };
        let mut session = reference.session();
        let mut state = Vec::new();
        for &token in &ours.prompt {
            state = session.push(token).unwrap();
        }
        let (mut at, mut output) = (grammar.start(), Vec::new());
        loop {
            let mask: Vec<bool> = pieces
                .iter()
                .map(|piece| match piece {
                    None => grammar.is_complete(&at),
                    Some(piece) => !piece.is_empty() && !grammar.advance_all(&at, piece).is_dead(),
                })
                .collect();
            let logits = reference.logits(&state).unwrap();
            let adjusted = sample::adjust(&logits, &ours.prompt, &output, &parameters).unwrap();
            let position = (ours.prompt.len() + output.len()) as u64;
            let token = sample::sample(&adjusted, Some(&mask), &parameters, &ours.seed, position).unwrap();
            output.push(token);
            let Some(piece) = &pieces[token as usize] else { break };
            at = grammar.advance_all(&at, piece);
            state = session.push(token).unwrap();
        }
        assert_eq!(output, answer.tokens, "{sampling:?}");
    }
}

#[test]
fn an_answer_goes_on_elsewhere_and_is_checked_with_the_same_masks() {
    let loaded = tiny(Shape::TinyQwen2, Format::Q4KM);
    let executor = executor(Backend::detect(), 2);
    let ours = asked(&loaded, Sampling::default(), 4);
    let expected = run(&loaded.model, &executor, limits(), std::slice::from_ref(&ours)).remove(0);
    assert_eq!(expected.finish, FinishReason::Stop, "{}", expected.text);
    for at in 1..expected.tokens.len() {
        let (said, rest) = expected.tokens.split_at(at);
        let continued = SequenceRequest { output: said.to_vec(), ..ours.clone() };
        let answer = run(&loaded.model, &executor, limits(), std::slice::from_ref(&continued)).remove(0);
        assert_eq!(answer.tokens, rest, "after {at}");
        assert!(expected.text.ends_with(&answer.text));
        let replayed = replay(&loaded.model, &executor, &continued, rest, &mut |_, _| {}).unwrap();
        assert_eq!(replayed.difference, None);
    }
    let over = SequenceRequest { output: [&expected.tokens[..], &[1]].concat(), ..ours.clone() };
    let over = replay(&loaded.model, &executor, &over, &[], &mut |_, _| {});
    assert!(
        matches!(over, Err(surety_engine::replay::ReplayError::PastTheEnd(PastTheEnd { .. }))),
        "{over:?}"
    );

    // Without the grammar the same tokens are not the answer, nor the other way round.
    let free = SequenceRequest { grammar: None, ..ours.clone() };
    let replayed = replay(&loaded.model, &executor, &free, &expected.tokens, &mut |_, _| {}).unwrap();
    assert!(matches!(replayed.difference, Some(Difference::Token { .. })), "{replayed:?}");
    let unheld = run(&loaded.model, &executor, limits(), &[free]).remove(0);
    let replayed = replay(&loaded.model, &executor, &ours, &unheld.tokens, &mut |_, _| {}).unwrap();
    assert!(matches!(replayed.difference, Some(Difference::Token { index: 0, .. })), "{replayed:?}");
}

#[test]
fn a_limit_cuts_an_answer_off_where_it_stands() {
    let loaded = bundled();
    let executor = executor(Backend::detect(), 2);
    let whole = asked(&loaded, Sampling::default(), 1);
    let cut = SequenceRequest { max_output_tokens: 5, ..whole.clone() };
    let answers = run(&loaded.model, &executor, limits(), &[whole, cut]);
    assert_eq!((answers[1].finish, answers[1].tokens.len()), (FinishReason::Length, 5));
    assert!(answers[0].text.starts_with(&answers[1].text));
}

#[test]
fn what_cannot_be_kept_to_is_refused() {
    let loaded = bundled();
    let tokenizer = loaded.model.tokenizer();
    let error = constraint::constraint(r#"{"type":"object"}"#, tokenizer).unwrap_err();
    assert!(matches!(error, ConstraintError::Grammar(_)), "{error:?}");
    let some = pieces(&loaded);
    let without = |byte: u8| {
        Vocabulary::new(some.iter().map(|piece| match piece {
            Some(piece) if piece[..] == [byte] => Some(&b""[..]),
            piece => piece.as_deref(),
        }))
    };
    let grammar = Grammar::compile(&json_schema(SCHEMA).unwrap()).unwrap();
    assert!(without(b'}').check(&grammar).is_err() && without(b'Z').check(&grammar).is_ok());
}
