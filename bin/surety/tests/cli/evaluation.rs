//! Log-likelihoods and vectors through a gateway and a worker are the bare engine's, bit for bit.

use std::{io::Read, num::NonZeroUsize, sync::Arc};

use serde_json::{Value, json};
use surety_engine::{Event, Model, Scheduler, SchedulerLimits, SequenceRequest, model::pack_in_memory};
use surety_kernels::{Backend, Executor};
use surety_types::{Digest, Embedding, Prompt, Request, Sampling};

use crate::{
    http::{post, request_id},
    process::{Up, assert_status, run},
};

const MODEL: &str = "shakespeare-demo";
/// Alternatives asked for.
const TOP: u8 = 3;

/// The model of the repository, without a network.
struct Bare {
    model: Arc<Model>,
    executor: Arc<Executor>,
}

/// Texts that look random and are the same everywhere: words, nonsense, other scripts.
fn texts(count: usize) -> Vec<String> {
    const PIECES: [&str; 12] =
        ["Enter ", "Hamlet", "\n", "the ", "zq", " ", "é", "sea", "☃", "0", ", and ", "MACBETH:\n"];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    (0..count).map(|_| (0..1 + next(60)).map(|_| PIECES[next(PIECES.len())]).collect()).collect()
}

impl Bare {
    fn load() -> Bare {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf");
        let file = Arc::new(std::fs::read(path).unwrap());
        let digest = Digest(*blake3::hash(&file).as_bytes());
        let executor = Arc::new(Executor::new(Backend::detect(), NonZeroUsize::MIN).unwrap());
        let image = pack_in_memory(&file, digest, &executor).unwrap();
        Bare { model: Arc::new(Model::load(file, digest, image, None).unwrap()), executor }
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        let request = Request {
            prompt: Prompt::Text(text.to_owned()),
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            date: None,
            embedding: None,
        };
        self.model.prompt_tokens(&request).unwrap()
    }

    /// What becomes of one prompt, alone.
    fn run(&self, prompt: &[u32], embedding: Option<Embedding>) -> Vec<Event> {
        let limits = SchedulerLimits {
            kv_pages: 64,
            context_tokens: 1024,
            tokens_per_step: 128,
            running_max: 1,
            waiting_max: 1,
        };
        let mut scheduler = Scheduler::new(self.model.clone(), self.executor.clone(), limits).unwrap();
        let request = SequenceRequest {
            prompt: prompt.to_vec(),
            output: Vec::new(),
            sampling: Sampling::default(),
            seed: [0; 32],
            max_output_tokens: 0,
            stop: Vec::new(),
            ignore_end: false,
            logprobs: None,
            prompt_logprobs: embedding.is_none().then_some(TOP),
            embedding,
        };
        scheduler.submit(request).unwrap();
        let mut events = Vec::new();
        while !scheduler.is_idle() {
            events.extend(scheduler.step());
        }
        events
    }
}

fn answer(up: &Up, path: &str, body: &Value) -> (String, Value) {
    let mut text = String::new();
    post(&up.base_url(), path, body).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{text}");
    (head.to_ascii_lowercase(), serde_json::from_str(body).unwrap())
}

/// The 32 bits that a JSON number's digits stand for.
fn bits(number: &Value) -> u32 {
    number.to_string().parse::<f32>().unwrap().to_bits()
}

#[test]
fn log_likelihoods_and_vectors_are_the_bare_engines() {
    let bare = Bare::load();
    let texts = texts(48);
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| bare.ids(text)).collect();
    let expected: Vec<_> = ids
        .iter()
        .map(|ids| match bare.run(ids, None).swap_remove(0) {
            Event::Prompt { logprobs, .. } => logprobs,
            other => panic!("{other:?}"),
        })
        .collect();

    let data_dir = tempfile::tempdir().unwrap();
    let up = Up::start(data_dir.path(), &["--workers", "2", "--validators", "0"]);
    let mut compared = 0;
    for start in (0..texts.len()).step_by(16) {
        let range = start..start + 16;
        // As texts and as ids; nothing sampled, and one token more, as lm-eval asks.
        for (prompt, max_tokens) in
            [(json!(texts[range.clone()]), 0), (json!(ids[range.clone()]), 0), (json!(ids[range.clone()]), 1)]
        {
            let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "echo": true,
                "logprobs": TOP, "temperature": 0, "seed": 1234});
            let (_, answer) = answer(&up, "/completions", &body);
            let choices = answer["choices"].as_array().unwrap();
            assert_eq!(choices.len(), 16);
            for (choice, index) in choices.iter().zip(range.clone()) {
                let given = choice["logprobs"]["token_logprobs"].as_array().unwrap();
                let expected = &expected[index];
                assert!(
                    (expected.len()..=expected.len() + max_tokens).contains(&given.len()),
                    "{}",
                    texts[index]
                );
                assert_eq!(given[0], Value::Null, "nothing comes before the first");
                for (position, (given, expected)) in given.iter().zip(expected).enumerate().skip(1) {
                    assert_eq!(bits(given), expected.logprob.to_bits(), "{:?} at {position}", texts[index]);
                    let top = choice["logprobs"]["top_logprobs"][position].as_object().unwrap();
                    let best = top.values().map(|value| value.as_f64().unwrap()).fold(f64::MIN, f64::max);
                    assert_eq!(best as f32, expected.top[0].logprob.max(expected.logprob));
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 3_000, "{compared} numbers were compared");

    let (head, vectors) = answer(&up, "/embeddings", &json!({"model": MODEL, "input": texts[..16]}));
    for (index, ids) in ids[..16].iter().enumerate() {
        let Event::Embedding { vector, .. } =
            bare.run(ids, Some(Embedding { dimensions: None })).swap_remove(0)
        else {
            panic!("a vector")
        };
        let given: Vec<u32> =
            vectors["data"][index]["embedding"].as_array().unwrap().iter().map(bits).collect();
        assert_eq!(given, vector.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), "{}", texts[index]);
    }
    let verified = run(data_dir.path(), &["verify", &request_id(&head), "--recompute"]);
    assert_status(&verified, 0);
    let shown = String::from_utf8_lossy(&verified.stdout);
    assert!(shown.contains("HOLDS: recomputed"), "{shown}");
}
