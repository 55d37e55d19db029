//! Real workers with the bundled model: log-likelihoods and vectors through a gateway and a worker are the bare engine's,
//! bit for bit; what two of them compute is compared.

mod checked;
mod statistical;
mod upstream;

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use surety_engine::{Event, Model, Scheduler, SchedulerLimits, SequenceRequest, model::pack_in_memory};
use surety_gateway::{Gateway, GatewaySettings};
use surety_kernels::{Backend, Executor};
use surety_proof::{Expected, check_evidence};
use surety_types::{Digest, Embedding, Evidence, Prompt, Request, Sampling, SecretKey};
use surety_worker::{
    audit::recompute,
    load::{ModelFile, ModelPlace},
    serve::{self, ModelSettings, WorkerSettings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MODEL: &str = "demo";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf");
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
        let file = Arc::new(std::fs::read(FILE).unwrap());
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
            grammar: None,
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
            grammar: None,
        };
        scheduler.submit(request).unwrap();
        let mut events = Vec::new();
        while !scheduler.is_idle() {
            events.extend(scheduler.step());
        }
        events
    }
}

fn worker(folder: &Path, seed: u8) -> WorkerSettings {
    let blake3 = Digest(*blake3::hash(&std::fs::read(FILE).unwrap()).as_bytes());
    WorkerSettings {
        key: SecretKey::from_bytes(&[seed; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
        relays: Vec::new(),
        paused: false,
        models: vec![ModelSettings {
            name: MODEL.into(),
            file: ModelFile { place: ModelPlace::File(FILE.into()), blake3 },
        }],
        upstreams: Vec::new(),
        cache: Some(folder.to_owned()),
        backend: None,
        threads: NonZeroUsize::new(1),
        context_tokens: None,
        kv_bytes: Some(64 << 20),
        region: None,
        ledger: None,
        sharing: None,
        lie: None,
    }
}

/// One exchange: the status, and the body.
async fn exchange(address: std::net::SocketAddr, method: &str, path: &str, body: &str) -> (bool, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.starts_with("HTTP/1.1 200"), body.to_owned())
}

async fn answer(address: std::net::SocketAddr, path: &str, body: &Value) -> Value {
    let (good, text) = exchange(address, "POST", path, &body.to_string()).await;
    assert!(good, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The 32 bits that a JSON number's digits stand for.
fn bits(number: &Value) -> u32 {
    number.to_string().parse::<f32>().unwrap().to_bits()
}

#[tokio::test(flavor = "multi_thread")]
async fn log_likelihoods_and_vectors_are_the_bare_engines() {
    let bare = Bare::load();
    let texts = texts(32);
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| bare.ids(text)).collect();
    let expected: Vec<_> = ids
        .iter()
        .map(|ids| match bare.run(ids, None).swap_remove(0) {
            Event::Prompt { logprobs, .. } => logprobs,
            other => panic!("{other:?}"),
        })
        .collect();

    let folder = tempfile::tempdir().unwrap();
    let first = serve::start(worker(folder.path(), 1), |_| {}).await.unwrap();
    let second = serve::start(worker(folder.path(), 2), |_| {}).await.unwrap();
    let mut settings = GatewaySettings::new("127.0.0.1:0".parse().unwrap(), folder.path().join("gateway"));
    settings.workers = vec![first.address(), second.address()];
    // A slow machine is no silent worker.
    settings.limits.stall_timeout = Duration::from_secs(60);
    let gateway = Gateway::start(settings).await.unwrap();
    let address = gateway.address();
    while !exchange(address, "GET", "/ready", "").await.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let mut compared = 0;
    for start in (0..texts.len()).step_by(16) {
        let range = start..start + 16;
        // As texts and as ids; nothing sampled, and one token more, as lm-eval asks.
        let (as_texts, as_ids) = (json!(texts[range.clone()]), json!(ids[range.clone()]));
        for (prompt, max_tokens) in [(as_texts, 0), (as_ids.clone(), 0), (as_ids, 1)] {
            let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "echo": true,
                "logprobs": TOP, "temperature": 0, "seed": 1234});
            let answer = answer(address, "/v1/completions", &body).await;
            let choices = answer["choices"].as_array().unwrap();
            assert_eq!(choices.len(), 16);
            for (choice, index) in choices.iter().zip(range.clone()) {
                let given = choice["logprobs"]["token_logprobs"].as_array().unwrap();
                let expected = &expected[index];
                assert!((expected.len()..=expected.len() + max_tokens).contains(&given.len()));
                assert_eq!(given[0], Value::Null, "nothing comes before the first");
                for (position, (given, expected)) in given.iter().zip(expected).enumerate().skip(1) {
                    assert_eq!(bits(given), expected.logprob.to_bits(), "{:?} at {position}", texts[index]);
                    let top = choice["logprobs"]["top_logprobs"][position].as_object().unwrap();
                    let best = top.values().map(|value| f32::from_bits(bits(value))).fold(f32::MIN, f32::max);
                    assert_eq!(best.to_bits(), expected.top[0].logprob.max(expected.logprob).to_bits());
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 1_000, "{compared} numbers were compared");

    let vectors = answer(address, "/v1/embeddings", &json!({"model": MODEL, "input": texts[..8]})).await;
    for (index, ids) in ids[..8].iter().enumerate() {
        let whole = Some(Embedding { dimensions: None });
        let Event::Embedding { vector, .. } = bare.run(ids, whole).swap_remove(0) else { panic!("a vector") };
        let numbers = vectors["data"][index]["embedding"].as_array().unwrap();
        let expected: Vec<u32> = vector.iter().map(|value| value.to_bits()).collect();
        assert_eq!(numbers.iter().map(bits).collect::<Vec<_>>(), expected, "{:?}", texts[index]);
    }
    // The evidence holds, and recomputing gives the vector that the receipt commits to.
    let (good, kept) = exchange(address, "GET", vectors["surety"]["receipt"].as_str().unwrap(), "").await;
    assert!(good, "{kept}");
    let evidence = Evidence::parse(kept.as_bytes()).unwrap();
    let checked = check_evidence(&evidence, None, &Expected::default()).unwrap();
    for (checked, answer) in checked.answers.iter().zip(&evidence.answers) {
        recompute(&bare.model, &bare.executor, checked, answer, &mut |_, _| {}).unwrap();
    }
    gateway.stop().await;
    first.shutdown(Duration::ZERO).await;
    second.shutdown(Duration::ZERO).await;
}
