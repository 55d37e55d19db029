//! A vector is a function of model and prompt: the same bits by every backend, thread count, chunking, among neighbours and
//! with too little memory, in serving and in checking; and the second voice gives them too.

mod common;

use std::sync::Arc;

use common::{Loaded, bundled, executor, limits, load, request, tokens};
use surety_engine::replay::replay;
use surety_engine::{EmbeddingError, Event, Model, Scheduler, SchedulerLimits, SequenceRequest, SubmitError};
use surety_kernels::{Backend, Executor};
use surety_reference::pooling::{Pooling as Twin, embed, vector_digest};
use surety_types::{Digest, Embedding, FinishReason, Pooling};
use xtask::random_model::{self, Format, Settings, Shape};

/// The same file with a `pooling_type`; what is put in takes a whole number of alignments.
fn with_pooling(file: &[u8], family: &str, kind: u32) -> Vec<u8> {
    let entry = |key: &str, kind: u32, value: &[u8]| {
        let length = (key.len() as u64).to_le_bytes();
        [&length[..], key.as_bytes(), &kind.to_le_bytes(), value].concat()
    };
    let mut put_in = entry(&format!("{family}.pooling_type"), 4, &kind.to_le_bytes());
    let around = entry("general.note", 8, &[0; 8]).len();
    let padding = (put_in.len() + around).next_multiple_of(32) - put_in.len() - around;
    put_in.extend(entry(
        "general.note",
        8,
        &[&(padding as u64).to_le_bytes()[..], &vec![b' '; padding]].concat(),
    ));
    let entries = u64::from_le_bytes(file[16..24].try_into().unwrap()) + 2;
    [&file[..16], &entries.to_le_bytes(), &put_in, &file[24..]].concat()
}

fn pooled(shape: Shape, format: Format, family: &str, kind: u32) -> Loaded {
    let file = random_model::bytes(&Settings { shape, format, seed: 1 });
    load(&format!("{family} {kind}"), with_pooling(&file, family, kind))
}

fn wanted(prompt: Vec<u32>, dimensions: Option<u32>) -> SequenceRequest {
    SequenceRequest { embedding: Some(Embedding { dimensions }), ..request(prompt, 0) }
}

type Vector = (Vec<u32>, Digest);

fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|value| value.to_bits()).collect()
}

/// Runs all side by side; the vectors of those that ask for one.
fn run(
    model: &Arc<Model>,
    executor: &Arc<Executor>,
    limits: SchedulerLimits,
    requests: &[SequenceRequest],
) -> Vec<Option<Vector>> {
    let mut scheduler = Scheduler::new(model.clone(), executor.clone(), limits).unwrap();
    let ids: Vec<_> = requests.iter().map(|request| scheduler.submit(request.clone()).unwrap()).collect();
    let mut vectors: Vec<Option<Vector>> = vec![None; ids.len()];
    while !scheduler.is_idle() {
        for event in scheduler.step() {
            let index = |id| ids.iter().position(|known| *known == id).unwrap();
            match event {
                Event::Embedding { sequence, vector } => {
                    let known = vectors[index(sequence)].replace((bits(&vector), Digest::ZERO));
                    assert_eq!(known, None, "one vector");
                }
                Event::Finished { sequence, finish, text, state_digest } => {
                    if let Some((_, digest)) = &mut vectors[index(sequence)] {
                        *digest = state_digest;
                        assert_eq!((finish, text.as_str()), (FinishReason::Length, ""));
                    }
                }
                Event::Prompt { .. } | Event::Token { .. } => {}
                Event::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    assert_eq!(scheduler.free_pages(), limits.kv_pages as usize, "an ended sequence holds no memory");
    vectors
}

#[test]
fn every_route_and_the_second_voice_give_the_same_vector() {
    let cases = [
        (bundled(), Pooling::Last, Twin::Last, None),
        (pooled(Shape::TinyQwen3, Format::Q4KM, "qwen3", 3), Pooling::Last, Twin::Last, Some(32)),
        (pooled(Shape::TinyLlama, Format::Q8_0, "llama", 1), Pooling::Mean, Twin::Mean, None),
        (pooled(Shape::TinyQwen2, Format::F16, "qwen2", 1), Pooling::Mean, Twin::Mean, Some(17)),
        (pooled(Shape::TinyLlama, Format::Q4_0, "llama", 2), Pooling::First, Twin::First, None),
    ];
    for (loaded, pooling, twin, dimensions) in cases {
        let (model, name) = (&loaded.model, &loaded.name);
        assert_eq!(model.vectors().map(|vectors| vectors.pooling), Some(pooling), "{name}");
        let prompt = tokens(model, 3, 37);
        let width = dimensions.unwrap_or(model.architecture().width) as usize;

        let second = surety_reference::model::Model::open(&loaded.file).unwrap();
        let vector = embed(&second.run(&prompt).unwrap(), twin, width).unwrap();
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{name}: of length one");
        assert!(bits(&vector).windows(2).any(|pair| pair[0] != pair[1]), "{name}: a trivial vector");
        let expected = Some((bits(&vector), Digest(vector_digest(&vector))));

        let ours = wanted(prompt.clone(), dimensions);
        for backend in Backend::available() {
            let chunks: &[_] = if backend == Backend::Scalar { &[(2, 64)] } else { &[(1, 1), (2, 7)] };
            for &(threads, tokens_per_step) in chunks {
                let limits = SchedulerLimits { tokens_per_step, ..limits() };
                let found =
                    run(model, &executor(backend, threads), limits, std::slice::from_ref(&ours)).remove(0);
                assert_eq!(found, expected, "{name} {backend:?} {threads} {tokens_per_step}");
            }
            let checked = replay(model, &executor(backend, 2), &ours, &[], &mut |_, _| {}).unwrap();
            assert_eq!(
                Some((bits(&checked.vector.unwrap()), checked.state_digest)),
                expected,
                "{name} again"
            );
            assert_eq!((checked.finish, checked.difference), (Some(FinishReason::Length), None));
        }
        // Among strangers, of whom some are answered; and with so little cache that sequences are set aside.
        let mut requests: Vec<_> =
            (0..7).map(|n| request(tokens(model, 50 + n, 1 + 9 * n as usize), 5)).collect();
        requests.insert(4, ours.clone());
        requests.push(wanted(tokens(model, 9, 1), None));
        let scarce = SchedulerLimits { kv_pages: 12, tokens_per_step: 16, ..limits() };
        for limits in [limits(), scarce] {
            let found = run(model, &executor(Backend::detect(), 2), limits, &requests);
            assert_eq!(found[4], expected, "{name} among strangers");
            assert!(found[8].as_ref().is_some_and(|other| Some(other) != expected.as_ref()));
        }
        let other = run(
            model,
            &executor(Backend::detect(), 2),
            limits(),
            &[wanted(prompt[1..].to_vec(), dimensions)],
        );
        assert_ne!(other[0], expected, "{name}: of another prompt");
    }
}

#[test]
fn vectors_that_mean_nothing_are_refused_by_name() {
    let refused = |loaded: &Loaded, dimensions| {
        let mut scheduler =
            Scheduler::new(loaded.model.clone(), executor(Backend::detect(), 1), limits()).unwrap();
        match scheduler.submit(wanted(vec![1, 2], dimensions)) {
            Err(SubmitError::Embedding(error)) => Some(error),
            other => other.map(|_| None).unwrap(),
        }
    };
    let generative = bundled();
    let width = generative.model.architecture().width;
    assert_eq!(refused(&generative, Some(width)), None);
    let asked = width - 1;
    assert_eq!(refused(&generative, Some(asked)), Some(EmbeddingError::NotMadeForIt { asked, width }));
    let asked = width + 1;
    assert_eq!(refused(&generative, Some(asked)), Some(EmbeddingError::TooMany { asked, width }));
    for kind in [0, 4, 77] {
        let loaded = pooled(Shape::TinyLlama, Format::Q8_0, "llama", kind);
        assert_eq!(loaded.model.vectors(), None);
        assert_eq!(refused(&loaded, None), Some(EmbeddingError::NoVector));
    }
}
