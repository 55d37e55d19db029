//! Answers as a worker signs them, honest or not: what a model gives for an order, and a party that signs whatever it
//! likes, in proper form.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use surety_client::Connection;
use surety_engine::model::pack_in_memory;
use surety_engine::{Event, Model, Scheduler, SchedulerLimits, SequenceRequest, constraint};
use surety_kernels::{Backend, Executor};
use surety_net::{BindOptions, Endpoint};
use surety_proof::check::{Expected, check_answer};
use surety_proof::commit::{output_digest, prompt_digest, state_commitment, text_digest};
use surety_types::order::ORDER_VERSION;
use surety_types::receipt::{ARITHMETIC_VERSION, RECEIPT_VERSION};
use surety_types::{
    Acceptance, Amount, Answer, Canonical, Digest, FinishReason, Message, ModelId, Order, Outcome, Price,
    Prompt, Receipt, Request, Sampling, SecretKey, Seed, Signed, Text,
};
use surety_worker::audit::{Discrepancy, recompute};
use surety_worker::load::{ModelFile, ModelPlace};
use surety_worker::serve::{self, ModelSettings, WorkerSettings};

pub fn executor() -> Arc<Executor> {
    Arc::new(Executor::new(Backend::detect(), surety_worker::machine::cores()).unwrap())
}

pub fn bundled_file() -> &'static [u8] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shakespeare-demo.gguf");
    std::fs::read(path).unwrap().leak()
}

pub fn load(file: &[u8]) -> Arc<Model> {
    let digest = Digest(*blake3::hash(file).as_bytes());
    let image = pack_in_memory(file, digest, &executor()).unwrap();
    Arc::new(Model::load(Arc::new(file.to_vec()), digest, image, None).unwrap())
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

pub fn chat(system: &str, user: &str) -> Request {
    let message = |role: &str, content: &str| Message::text(role, content);
    Request {
        prompt: Prompt::chat(vec![message("system", system), message("user", user)]),
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
        embedding: None,
        date: None,
        grammar: None,
    }
}

pub fn order(
    model: ModelId,
    request: &Request,
    payer: &SecretKey,
    seed: i64,
    max_output_tokens: u32,
) -> Order {
    Order {
        version: ORDER_VERSION,
        model,
        request_digest: request.digest(),
        nonce: *blake3::hash(&seed.to_le_bytes()).as_bytes(),
        seed: Seed::Caller(seed),
        choice: 0,
        sampling: Sampling { temperature: 0.8, ..Sampling::default() },
        max_output_tokens,
        ignore_end: false,
        deadline_ms: now_ms() + 600_000,
        price_ceiling: Price::ZERO,
        channel: None,
        payer: payer.public(),
        issued_ms: now_ms(),
        resumed: None,
        disclosure: None,
    }
}

/// A worker that serves the bundled model, and a connection to it.
pub async fn serving(file: &'static [u8], seed: u8) -> (serve::RunningWorker, Connection) {
    let settings = WorkerSettings {
        key: SecretKey::from_bytes(&[seed; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
        relays: Vec::new(),
        paused: false,
        models: vec![ModelSettings {
            name: "shakespeare-demo".into(),
            file: ModelFile {
                place: ModelPlace::Program(file),
                blake3: Digest(*blake3::hash(file).as_bytes()),
            },
        }],
        upstreams: Vec::new(),
        cache: None,
        backend: None,
        threads: None,
        context_tokens: None,
        kv_bytes: Some(256 << 20),
        region: None,
        ledger: None,
        sharing: None,
        lie: None,
    };
    let worker = serve::start(settings, |_| {}).await.unwrap();
    let endpoint = Endpoint::bind(BindOptions {
        key: SecretKey::from_bytes(&[seed + 1; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
    })
    .await
    .unwrap();
    let connection = Connection::open(&endpoint, worker.address());
    connection.ready(Duration::from_secs(10)).await.unwrap();
    (worker, connection)
}

/// What a model gives for an order, computed by the engine itself.
#[derive(Clone, Debug)]
pub struct Computed {
    pub prompt: Vec<u32>,
    pub tokens: Vec<u32>,
    pub text: String,
    pub finish: FinishReason,
    pub state_digest: Digest,
}

pub fn compute(model: &Arc<Model>, request: &Request, order: &Order) -> Computed {
    compute_from(model, model.prompt_tokens(request).unwrap(), request, order)
}

/// The same, after these tokens instead of the request's.
pub fn compute_from(model: &Arc<Model>, prompt: Vec<u32>, request: &Request, order: &Order) -> Computed {
    let limits = SchedulerLimits {
        kv_pages: 64,
        context_tokens: 1_024,
        tokens_per_step: 512,
        running_max: 1,
        waiting_max: 1,
    };
    let mut scheduler = Scheduler::new(model.clone(), executor(), limits).unwrap();
    let sequence = SequenceRequest {
        prompt: prompt.clone(),
        output: Vec::new(),
        sampling: order.sampling.clone(),
        seed: order.seed_bytes(),
        max_output_tokens: order.max_output_tokens,
        stop: request.stop.clone(),
        ignore_end: order.ignore_end,
        logprobs: None,
        prompt_logprobs: None,
        embedding: None,
        grammar: request
            .grammar
            .as_ref()
            .map(|text| constraint::constraint(text, model.tokenizer()).unwrap()),
    };
    scheduler.submit(sequence).unwrap();
    let (mut tokens, mut text) = (Vec::new(), String::new());
    loop {
        for event in scheduler.step() {
            match event {
                Event::Token { token, text: released, .. } => {
                    tokens.push(token);
                    text += &released;
                }
                Event::Finished { finish, text: rest, state_digest, .. } => {
                    return Computed { prompt, tokens, text: text + &rest, finish, state_digest };
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A party that signs whatever it likes, in proper form.
pub struct Liar {
    pub payer: SecretKey,
    pub worker: SecretKey,
    pub executor: Arc<Executor>,
    /// The model everybody ordered.
    pub model: Arc<Model>,
}

pub const SALT: [u8; 32] = [9; 32];

impl Liar {
    pub fn new() -> Self {
        Self::of(load(bundled_file()))
    }

    /// Where another model than the bundled one is ordered.
    pub fn of(model: Arc<Model>) -> Self {
        Liar {
            payer: SecretKey::from_bytes(&[1; 32]),
            worker: SecretKey::from_bytes(&[2; 32]),
            executor: executor(),
            model,
        }
    }

    pub fn request(&self) -> Request {
        chat("A street in Rome.", "What news from the wars?")
    }

    pub fn order(&self, seed: i64) -> Order {
        order(self.model.id(), &self.request(), &self.payer, seed, 40)
    }

    /// Signs that `claim` is the answer to the order.
    pub fn answer(&self, order: &Order, request: &Request, claim: &Computed) -> Answer {
        self.sign(order, request, claim, |_, _| {})
    }

    /// The same, with acceptance and receipt changed before they are signed.
    pub fn sign(
        &self,
        order: &Order,
        request: &Request,
        claim: &Computed,
        change: impl FnOnce(&mut Acceptance, &mut Receipt),
    ) -> Answer {
        let accepted_ms = order.issued_ms + 1;
        let mut acceptance = Acceptance {
            order: order.digest(),
            model: order.model,
            worker: self.worker.public(),
            deadline_ms: order.deadline_ms,
            price: Price::ZERO,
            prompt_tokens: claim.prompt.len() as u32,
            accepted_ms,
            max_output_tokens: order.max_output_tokens,
            region: None,
        };
        let mut receipt = Receipt {
            version: RECEIPT_VERSION,
            outcome: Outcome::Completed,
            order: order.digest(),
            model: order.model,
            arithmetic: ARITHMETIC_VERSION,
            prompt_tokens: claim.prompt.len() as u32,
            cached_tokens: 0,
            output_tokens: claim.tokens.len() as u32,
            prompt_digest: prompt_digest(&claim.prompt),
            output_digest: output_digest(&claim.tokens),
            text_digest: text_digest(&claim.text),
            finish: claim.finish,
            seed: order.seed_bytes(),
            state_commitment: state_commitment(&self.worker.public(), &SALT, &claim.state_digest),
            price: Price::ZERO,
            charge: Amount::ZERO,
            accepted_ms,
            first_token_ms: Some(accepted_ms),
            done_ms: accepted_ms + 1,
            software: Text::clipped("liar/1"),
            worker: self.worker.public(),
        };
        change(&mut acceptance, &mut receipt);
        Answer {
            order: Signed::sign(order.clone(), &self.payer).bytes().to_vec(),
            request: request.to_cbor(),
            acceptance: Some(Signed::sign(acceptance, &self.worker).bytes().to_vec()),
            receipt: Some(Signed::sign(receipt, &self.worker).bytes().to_vec()),
            progress: None,
            salt: SALT,
            output_ids: claim.tokens.clone(),
            resumed_ids: Vec::new(),
            channel: None,
            text: claim.text.clone(),
            prompt_ids: None,
            embedding: None,
        }
    }

    /// Recomputes an answer whose signatures hold.
    pub fn judge(&self, answer: &Answer) -> Result<(), Discrepancy> {
        let checked = check_answer(answer, &Expected::default()).expect("the liar signs in proper form");
        recompute(&self.model, &self.executor, &checked, answer, &mut |_, _| {}).map(|_| ())
    }

    /// An honest answer that ends by itself and is long enough to be tampered with.
    pub fn honest(&self) -> (Order, Computed) {
        (0..200)
            .map(|seed| self.order(seed))
            .map(|order| (compute(&self.model, &self.request(), &order), order))
            .find(|(computed, _)| computed.finish == FinishReason::Stop && computed.tokens.len() > 8)
            .map(|(computed, order)| (order, computed))
            .expect("one answer in two hundred ends by itself")
    }
}
