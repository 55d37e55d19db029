//! What the scheduler promises besides exactness: bounds, cancellation, ends, failures that stay at home.

mod common;

use common::{bundled, executor, limits, request, run, tokens};
use surety_engine::replay::{Difference, replay};
use surety_engine::tokenizer::Special;
use surety_engine::{Event, Scheduler, SchedulerLimits, SubmitError};
use surety_kernels::Backend;
use surety_types::{FinishReason, Sampling};

#[test]
fn a_cancelled_sequence_frees_its_memory_at_once() {
    let loaded = bundled();
    let mut scheduler =
        Scheduler::new(loaded.model.clone(), executor(Backend::detect(), 1), limits()).unwrap();
    let all = scheduler.free_pages();
    let running = scheduler.submit(request(tokens(&loaded.model, 1, 100), 500)).unwrap();
    scheduler.step();
    assert!(scheduler.free_pages() < all);
    let waiting = scheduler.submit(request(tokens(&loaded.model, 2, 100), 500)).unwrap();
    scheduler.cancel(waiting);
    scheduler.cancel(running);
    assert_eq!(scheduler.free_pages(), all);
    assert!(scheduler.is_idle());
    scheduler.cancel(running);
    assert!(scheduler.step().is_empty());
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    let loaded = bundled();
    let limits = SchedulerLimits { kv_pages: 8, context_tokens: 200, waiting_max: 1, ..limits() };
    let mut scheduler = Scheduler::new(loaded.model.clone(), executor(Backend::detect(), 1), limits).unwrap();
    let mut submit =
        |prompt: usize, output| scheduler.submit(request(tokens(&loaded.model, 1, prompt), output));
    assert_eq!(
        submit(200, 1).unwrap_err(),
        SubmitError::ContextLength { prompt_tokens: 200, context_tokens: 200 }
    );
    assert_eq!(
        submit(100, 100).unwrap_err(),
        SubmitError::TooLargeForMemory { needed_pages: 13, total_pages: 8 }
    );
    assert_eq!(submit(0, 1).unwrap_err(), SubmitError::EmptyPrompt);
    submit(100, 10).unwrap();
    assert_eq!(submit(100, 10).unwrap_err(), SubmitError::Overloaded { waiting: 1 });
    let vocabulary = loaded.model.architecture().vocabulary;
    let outside = scheduler.submit(request(vec![vocabulary], 1)).unwrap_err();
    assert_eq!(outside, SubmitError::BadToken { token: vocabulary, vocabulary });
}

#[test]
fn the_window_and_the_limit_end_an_answer() {
    let loaded = bundled();
    let executor = executor(Backend::detect(), 1);
    let prompt = tokens(&loaded.model, 1, 10);
    let limited = run(&loaded.model, &executor, limits(), &[request(prompt.clone(), 5)]).remove(0);
    assert_eq!((limited.tokens.len(), limited.finish), (5, FinishReason::Length));
    let one = run(&loaded.model, &executor, limits(), &[request(prompt, 1)]).remove(0);
    assert_eq!((one.tokens.len(), one.finish), (1, FinishReason::Length));
}

#[test]
fn scoring_a_prompt_produces_no_token() {
    let loaded = bundled();
    let mut scheduler =
        Scheduler::new(loaded.model.clone(), executor(Backend::detect(), 2), limits()).unwrap();
    let mut scoring = request(tokens(&loaded.model, 1, 150), 0);
    scoring.prompt_logprobs = Some(3);
    scheduler.submit(scoring.clone()).unwrap();
    let mut events = Vec::new();
    while !scheduler.is_idle() {
        events.extend(scheduler.step());
    }
    let [Event::Prompt { logprobs, .. }, Event::Finished { finish: FinishReason::Length, text, .. }] =
        &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(text, "");
    let ids: Vec<u32> = logprobs.iter().map(|entry| entry.token).collect();
    assert_eq!(ids, scoring.prompt);
    assert!(logprobs[1..].iter().all(|entry| entry.logprob < 0.0 && entry.top.len() == 3));
    for entry in &logprobs[1..] {
        assert!(entry.top.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
        assert!(entry.logprob <= entry.top[0].logprob);
    }
}

#[test]
fn a_stop_string_and_an_end_token_end_an_answer() {
    let loaded = bundled();
    let executor = executor(Backend::detect(), 2);
    let mut spoken = request(tokens(&loaded.model, 5, 30), 200);
    let whole = run(&loaded.model, &executor, limits(), &[spoken.clone()]).remove(0);
    let text: Vec<char> = whole.text.chars().collect();
    let stop: String = text[20..24].iter().collect();
    spoken.stop = vec![stop.clone()];
    let stopped = run(&loaded.model, &executor, limits(), &[spoken]).remove(0);
    assert_eq!(stopped.finish, FinishReason::Stop);
    assert_eq!(stopped.text, whole.text[..whole.text.find(&stop).unwrap()]);
    assert_eq!(stopped.tokens[..], whole.tokens[..stopped.tokens.len()]);

    let mut ending = request(loaded.model.tokenizer().encode("ROMEO:\nAy me", Special::PLAIN), 400);
    ending.ignore_end = false;
    let ended = run(&loaded.model, &executor, limits(), &[ending]).remove(0);
    assert_eq!(ended.finish, FinishReason::Stop, "a speech of the demonstration model ends: {}", ended.text);
    let last = *ended.tokens.last().unwrap();
    assert!(loaded.model.tokenizer().is_end_of_generation(last));
}

#[test]
fn greedy_penalised_and_biased_answers_replay() {
    let loaded = bundled();
    let executor = executor(Backend::detect(), 2);
    let plain = Sampling::default();
    let variants = [
        Sampling { temperature: 0.0, ..plain.clone() },
        Sampling { temperature: 0.7, top_k: 40, ..plain.clone() },
        Sampling { min_p: 0.05, ..plain.clone() },
        Sampling { top_p: 0.5, top_k: 7, min_p: 0.01, ..plain.clone() },
        Sampling { repetition_penalty: 1.3, presence_penalty: 0.5, frequency_penalty: -0.5, ..plain.clone() },
        Sampling { logit_bias: vec![(10, 5.0), (20, -100.0)], ..plain.clone() },
    ];
    let mut answers = Vec::new();
    for sampling in variants {
        let mut ours = request(tokens(&loaded.model, 8, 20), 40);
        ours.sampling = sampling;
        let answer = run(&loaded.model, &executor, limits(), &[ours.clone()]).remove(0);
        let replayed = replay(&loaded.model, &executor, &ours, &answer.tokens, &mut |_, _| {}).unwrap();
        assert_eq!(replayed.difference, None, "{:?}", ours.sampling);
        answers.push(answer.tokens);
    }
    answers.dedup();
    assert_eq!(answers.len(), 6, "parameters matter");
}

#[test]
fn replay_names_the_first_difference() {
    let loaded = bundled();
    let executor = executor(Backend::detect(), 2);
    let ours = request(tokens(&loaded.model, 5, 30), 50);
    let answer = run(&loaded.model, &executor, limits(), std::slice::from_ref(&ours)).remove(0);
    let difference = |request: &_, output: &[u32]| {
        replay(&loaded.model, &executor, request, output, &mut |_, _| {}).unwrap().difference
    };
    for index in [0, 17, 49] {
        let mut changed = answer.tokens.clone();
        let claimed = (changed[index] + 1) % loaded.model.architecture().vocabulary;
        changed[index] = claimed;
        let computed = answer.tokens[index];
        assert_eq!(difference(&ours, &changed), Some(Difference::Token { index, computed, claimed }));
    }
    let mut longer = answer.tokens.clone();
    longer.push(1);
    assert_eq!(difference(&ours, &longer), Some(Difference::PastTheEnd { index: 50 }));
    let early = replay(&loaded.model, &executor, &ours, &answer.tokens[..49], &mut |_, _| {}).unwrap();
    assert_eq!((early.difference, early.finish), (None, None), "an early stop is no end");
    let other_seed = surety_engine::SequenceRequest { seed: [8; 32], ..ours.clone() };
    assert!(difference(&other_seed, &answer.tokens).is_some());
    let mut other_temperature = ours.clone();
    other_temperature.sampling.temperature += 0.1;
    assert!(difference(&other_temperature, &answer.tokens).is_some());
}

#[test]
fn a_sequence_that_rests_goes_on_with_the_same_tokens_and_holds_nobody_up() {
    let loaded = bundled();
    let tokens_of = |events: &[Event], id| -> Vec<u32> {
        let token = |event: &Event| match event {
            Event::Token { sequence, token, .. } if *sequence == id => Some(*token),
            _ => None,
        };
        events.iter().filter_map(token).collect()
    };
    let run = |pause_at: Option<usize>| {
        let mut scheduler =
            Scheduler::new(loaded.model.clone(), executor(Backend::detect(), 1), limits()).unwrap();
        let first = scheduler.submit(request(tokens(&loaded.model, 1, 20), 30)).unwrap();
        let second = scheduler.submit(request(tokens(&loaded.model, 2, 20), 30)).unwrap();
        let (mut all, mut paused) = (Vec::new(), false);
        loop {
            while !scheduler.is_idle() {
                all.extend(scheduler.step());
                if !paused && pause_at == Some(tokens_of(&all, first).len()) {
                    paused = true;
                    scheduler.set_paused(first, true);
                }
            }
            if tokens_of(&all, first).len() == 30 {
                break;
            }
            // Only what rests is left.
            assert_eq!(tokens_of(&all, first).len(), pause_at.unwrap());
            assert_eq!(tokens_of(&all, second).len(), 30);
            assert!(scheduler.step().is_empty());
            scheduler.set_paused(first, false);
        }
        (tokens_of(&all, first), tokens_of(&all, second))
    };
    let plain = run(None);
    for pause_at in [1, 7, 29] {
        assert_eq!(run(Some(pause_at)), plain, "{pause_at}");
    }
}
