//! One function, many routes: whatever the backend, thread count, chunking, neighbours or cache pressure, an answer
//! has the same tokens and the same state digest, and the second voice computes them too.

mod common;

use common::{Answer, Loaded, bundled, executor, limits, request, run, tiny, tokens};
use surety_engine::replay::replay;
use surety_engine::{Event, PastTheEnd, Scheduler, SchedulerLimits, SequenceRequest, SubmitError};
use surety_kernels::Backend;
use surety_reference::sample::{self, Parameters};
use xtask::random_model::{Format, Shape};

const PROMPT_TOKENS: usize = 37;
const OUTPUT_TOKENS: u32 = 20;

fn models() -> Vec<Loaded> {
    let mut models = vec![bundled()];
    // Every shape and every format, and each shape with the format that mixes most.
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4KM, Format::F16, Format::BF16, Format::F32] {
        models.push(tiny(Shape::TinyLlama, format));
    }
    models.push(tiny(Shape::TinyQwen2, Format::Q4KM));
    models.push(tiny(Shape::TinyQwen3, Format::Q4KM));
    models.push(tiny(Shape::TinyQwen3, Format::F16));
    models
}

/// By one thread of the scalar definition, alone, in the plainest way.
fn plain(loaded: &Loaded) -> Answer {
    let scalar = executor(Backend::Scalar, 1);
    let prompt = tokens(&loaded.model, 3, PROMPT_TOKENS);
    run(&loaded.model, &scalar, limits(), &[request(prompt, OUTPUT_TOKENS)]).remove(0)
}

#[test]
fn every_route_gives_the_same_answer() {
    for loaded in models() {
        let model = &loaded.model;
        let expected = plain(&loaded);
        assert!(
            expected.tokens.windows(2).any(|pair| pair[0] != pair[1]),
            "{}: a trivial answer",
            loaded.name
        );
        let ours = request(tokens(model, 3, PROMPT_TOKENS), OUTPUT_TOKENS);
        for backend in Backend::available().into_iter().filter(|backend| *backend != Backend::Scalar) {
            for threads in [1, 2] {
                let executor = executor(backend, threads);
                for tokens_per_step in [1, 7, 64] {
                    let limits = SchedulerLimits { tokens_per_step, ..limits() };
                    let answer = run(model, &executor, limits, std::slice::from_ref(&ours)).remove(0);
                    assert_eq!(answer, expected, "{} {backend:?} {threads} {tokens_per_step}", loaded.name);
                }
            }
        }
        // Among sixteen strangers of other lengths, in the middle of them.
        let strangers = (0..16).map(|stranger| {
            request(tokens(model, 100 + stranger, 1 + 13 * stranger as usize % 90), 8 + stranger as u32)
        });
        let mut requests: Vec<_> = strangers.collect();
        requests.insert(9, ours.clone());
        let executor = executor(Backend::detect(), 2);
        assert_eq!(
            run(model, &executor, limits(), &requests)[9],
            expected,
            "{} among strangers",
            loaded.name
        );
        // With so little cache that sequences are set aside and recomputed.
        let scarce = SchedulerLimits { kv_pages: 12, tokens_per_step: 16, ..limits() };
        let crowded: Vec<_> = requests[5..12].to_vec();
        assert_eq!(run(model, &executor, scarce, &crowded)[4], expected, "{} with little cache", loaded.name);
    }
}

#[test]
fn continuing_a_broken_answer_gives_the_same_tokens_and_text() {
    let loaded = bundled();
    let executor = executor(Backend::detect(), 2);
    let by_length = request(tokens(&loaded.model, 3, PROMPT_TOKENS), OUTPUT_TOKENS);
    let whole = run(&loaded.model, &executor, limits(), std::slice::from_ref(&by_length)).remove(0);
    // A stop string in the middle, so that text is held back again and again.
    let middle: Vec<char> = whole.text.chars().collect();
    let mut by_stop = by_length.clone();
    by_stop.stop = vec![middle[middle.len() / 2..middle.len() / 2 + 3].iter().collect()];
    let mut penalised = by_length.clone();
    penalised.sampling.repetition_penalty = 1.3;
    penalised.sampling.frequency_penalty = 0.4;
    for ours in [by_length, by_stop, penalised] {
        let expected = run(&loaded.model, &executor, limits(), std::slice::from_ref(&ours)).remove(0);
        for position in 0..=expected.tokens.len() {
            let (said, rest) = expected.tokens.split_at(position);
            let released = replay(&loaded.model, &executor, &ours, said, &mut |_, _| {}).unwrap().text;
            let continued = SequenceRequest { output: said.to_vec(), ..ours.clone() };
            let answer = run(&loaded.model, &executor, limits(), std::slice::from_ref(&continued)).remove(0);
            assert_eq!(answer.tokens, rest, "continued at {position}");
            assert_eq!(released + &answer.text, expected.text, "continued at {position}");
            assert_eq!(answer.finish, expected.finish, "continued at {position}");
            let replayed = replay(&loaded.model, &executor, &continued, rest, &mut |_, _| {}).unwrap();
            assert_eq!(replayed.difference, None);
            assert_eq!(replayed.state_digest, answer.state_digest, "continued at {position}");
            assert_eq!((replayed.text + &replayed.rest, replayed.finish), (answer.text, Some(answer.finish)));
        }
        let mut over = SequenceRequest { output: expected.tokens.clone(), ..ours };
        over.output.push(1);
        let mut scheduler = Scheduler::new(loaded.model.clone(), executor.clone(), limits()).unwrap();
        let refused = scheduler.submit(over).unwrap_err();
        assert!(
            matches!(refused, SubmitError::PastTheEnd(PastTheEnd { index }) if index == expected.tokens.len())
        );
    }
}

#[test]
fn a_scored_prompt_is_scored_alike_before_a_continuation() {
    let loaded = bundled();
    let executor = executor(Backend::detect(), 2);
    let mut ours = request(tokens(&loaded.model, 3, PROMPT_TOKENS), 8);
    ours.prompt_logprobs = Some(2);
    let output = run(&loaded.model, &executor, limits(), std::slice::from_ref(&ours)).remove(0).tokens;
    let scores = |request: &SequenceRequest| {
        let mut scheduler = Scheduler::new(loaded.model.clone(), executor.clone(), limits()).unwrap();
        scheduler.submit(request.clone()).unwrap();
        let (mut scores, mut tokens) = (Vec::new(), Vec::new());
        while !scheduler.is_idle() {
            for event in scheduler.step() {
                match event {
                    Event::Prompt { logprobs, .. } => scores.push(logprobs),
                    Event::Token { token, .. } => tokens.push(token),
                    Event::Finished { .. } => {}
                    Event::Embedding { .. } => panic!("a vector that nobody asked for"),
                    Event::Failed { error, .. } => panic!("{error}"),
                }
            }
        }
        (scores, tokens)
    };
    let (expected, _) = scores(&ours);
    for position in [1, 5, 8] {
        let continued = SequenceRequest { output: output[..position].to_vec(), ..ours.clone() };
        let (found, tokens) = scores(&continued);
        assert_eq!(found, expected, "after {position}");
        assert_eq!(tokens, output[position..], "after {position}");
    }
}

#[test]
fn replay_finds_what_serving_said() {
    for loaded in models() {
        let expected = plain(&loaded);
        let ours = request(tokens(&loaded.model, 3, PROMPT_TOKENS), OUTPUT_TOKENS);
        for backend in Backend::available() {
            let executor = executor(backend, 2);
            let replayed = replay(&loaded.model, &executor, &ours, &expected.tokens, &mut |_, _| {}).unwrap();
            assert_eq!(replayed.difference, None, "{} {backend:?}", loaded.name);
            assert_eq!(replayed.state_digest, expected.state_digest, "{} {backend:?}", loaded.name);
            assert_eq!(replayed.finish, Some(expected.finish));
            assert_eq!(replayed.text + &replayed.rest, expected.text);
        }
    }
}

#[test]
fn the_second_voice_agrees() {
    for loaded in models() {
        let expected = plain(&loaded);
        let reference = surety_reference::model::Model::open(&loaded.file).unwrap();
        let mut session = reference.session();
        let prompt = tokens(&loaded.model, 3, PROMPT_TOKENS);
        let ours = request(prompt.clone(), OUTPUT_TOKENS);
        let parameters = Parameters {
            temperature: ours.sampling.temperature,
            top_p: ours.sampling.top_p,
            ..Parameters::NEUTRAL
        };
        let mut states = Vec::new();
        let mut output: Vec<u32> = Vec::new();
        let mut state = Vec::new();
        for &token in &prompt {
            state = session.push(token).unwrap();
        }
        while output.len() < OUTPUT_TOKENS as usize {
            let logits = reference.logits(&state).unwrap();
            states.push(state.clone());
            let position = (prompt.len() + output.len()) as u64;
            let adjusted = sample::adjust(&logits, &prompt, &output, &parameters).unwrap();
            let token = sample::sample(&adjusted, None, &parameters, &ours.seed, position).unwrap();
            output.push(token);
            state = session.push(token).unwrap();
        }
        assert_eq!(output, expected.tokens, "{}", loaded.name);
        assert_eq!(
            surety_reference::model::state_digest(&states),
            expected.state_digest.0,
            "{}",
            loaded.name
        );
    }
}
