//! A worker that follows a script: it speaks the real protocol over the real road, and does what the prompt says.
//!
//! The prompt's text (a chat's last message) is the script: words separated by spaces, each an act. What is no act is
//! said. `{choice}` in a said word becomes the order's choice. An act that ends in `@` and a number is done by the worker
//! of that seed alone. What an order resumes from is gone over in silence.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use surety_blobs::{HoldLimits, Shelf, View, hold};
use surety_net::{BindOptions, CloseCode, Endpoint, Incoming, ListenLimits, ServeStream, WorkerAddress};
use surety_proof::{output_digest, prompt_digest, state_commitment, text_digest};
use surety_types::{
    Acceptance, Alternative, Amount, Digest, FailureCode, FileDigest, FinishReason, FormatSummary,
    FromWorker, Inclusion, Manifest, Order, Outcome, Pooling, Price, Progress, Prompt, Receipt, Region,
    Request, SecretKey, ServedModel, Signed, Text, ToWorker, TokenLogprob, Vectors, Voucher, WorkerState,
    WorkerStatus,
    embedding::{vector_bytes, vector_digest},
    receipt::RECEIPT_VERSION,
};
use tokio::{sync::Notify, task::JoinSet};

pub const CONTEXT: u32 = 4096;
pub const VOCABULARY: u32 = 1000;
pub const WIDTH: u32 = 64;
const END: u32 = 0;

/// What happened to a worker, for tests to look at.
#[derive(Debug, Default)]
pub struct Diary {
    pub orders: Mutex<Vec<(Order, Request)>>,
    /// What was promised, in the order it came, and what receipts charged.
    pub vouchers: Mutex<Vec<Voucher>>,
    pub charges: Mutex<Vec<Amount>>,
    pub accepted: AtomicU32,
    pub cancelled: AtomicU32,
    pub finished: AtomicU32,
    pub changed: Notify,
    pub speaks: Notify,
}

impl Diary {
    fn write(&self, entry: &AtomicU32) {
        entry.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// How often something was ordered.
    fn times(&self, request: &Request) -> usize {
        self.orders.lock().expect("no panic").iter().filter(|(_, other)| other == request).count()
    }

    /// Waits until an entry reaches a count.
    pub async fn until(&self, entry: &AtomicU32, count: u32) {
        let reached = async {
            loop {
                let changed = self.changed.notified();
                if entry.load(Ordering::SeqCst) >= count {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.expect("it should happen");
    }
}

pub struct FakeWorker {
    pub address: WorkerAddress,
    pub diary: Arc<Diary>,
    endpoint: Endpoint,
    state: Arc<Mutex<WorkerStatus>>,
    inclusion: Arc<Mutex<Inclusion>>,
    _tasks: JoinSet<()>,
}

pub fn manifest(name: &str, template: bool) -> Manifest {
    Manifest {
        name: name.to_owned(),
        files: vec![FileDigest { name: format!("{name}.gguf"), bytes: 1000, blake3: Digest::ZERO }],
        architecture: "llama".to_owned(),
        layers: 1,
        width: WIDTH,
        heads: 1,
        kv_heads: 1,
        head_dim: 64,
        feed_forward: 64,
        vocabulary: VOCABULARY,
        context: CONTEXT,
        formats: vec![FormatSummary { name: "Q8_0".to_owned(), tensors: 1, bytes: 1000 }],
        tokenizer_digest: Digest::ZERO,
        template_digest: template.then_some(Digest::ZERO),
        arithmetic: 0,
        rotary_digest: Digest::ZERO,
        plan: Some(Digest::ZERO),
        claims: None,
    }
}

pub fn model(name: &str, manifest: Manifest) -> ServedModel {
    ServedModel {
        id: manifest.id(),
        names: vec![name.to_owned()],
        manifest,
        context_tokens: CONTEXT,
        prefill_tokens_per_second: 1000,
        decode_tokens_per_second: 100,
        price: Price::ZERO,
        calls: None,
        vectors: Some(Vectors { pooling: Pooling::Last, may_be_cut: true }),
        batch_price: None,
    }
}

/// Every file in a folder, under the digest that is its name.
struct Folder(PathBuf);

impl Shelf for Folder {
    fn paths(&self, digest: Digest) -> Vec<PathBuf> {
        let path = self.0.join(digest.to_string());
        if path.exists() { vec![path] } else { vec![] }
    }
}

impl FakeWorker {
    /// A worker that serves one model, `tiny`.
    pub async fn start(seed: u8) -> FakeWorker {
        Self::serving(seed, vec![model("tiny", manifest("tiny", true))]).await
    }

    pub async fn serving(seed: u8, models: Vec<ServedModel>) -> FakeWorker {
        Self::asking(seed, models, Price::ZERO).await
    }

    /// A worker that asks a price, and delivers nothing before the first voucher.
    pub async fn asking(seed: u8, models: Vec<ServedModel>, price: Price) -> FakeWorker {
        Self::holding(seed, models, price, None).await
    }

    /// A worker that gives out the files in a folder, each under the digest that is its name.
    pub async fn sharing(seed: u8, models: Vec<ServedModel>, folder: &Path) -> FakeWorker {
        let view = View::new(Folder(folder.to_owned()), folder.join("trees"));
        Self::holding(seed, models, Price::ZERO, Some(view)).await
    }

    async fn holding(seed: u8, models: Vec<ServedModel>, price: Price, files: Option<View>) -> FakeWorker {
        let key = SecretKey::from_bytes(&[seed; 32]);
        let listen = "127.0.0.1:0".parse().expect("an address");
        let endpoint = Endpoint::bind(BindOptions { key: key.clone(), listen }).await.expect("a socket");
        let mut tasks = JoinSet::new();
        let mut listener = match files {
            None => endpoint.listen(ListenLimits::default()),
            Some(files) => {
                let (orders, blobs) =
                    endpoint.listen_with_blobs(ListenLimits::default(), ListenLimits::default());
                tasks.spawn(hold(blobs, key.public(), Arc::new(files), HoldLimits::default()));
                orders
            }
        };
        let diary = Arc::new(Diary::default());
        let state = Arc::new(Mutex::new(WorkerStatus {
            worker: key.public(),
            software: Text::clipped("fake/1"),
            state: WorkerState::Ready,
            active_requests: 0,
            waiting_requests: 0,
            models,
            region: None,
        }));
        let inclusion = Arc::new(Mutex::new(Inclusion::Unknown));
        let (status, seen, leaving) = (Arc::clone(&state), Arc::clone(&diary), endpoint.clone());
        let shown = Arc::clone(&inclusion);
        tasks.spawn(async move {
            let mut orders = JoinSet::new();
            while let Some(incoming) = listener.accept().await {
                match incoming {
                    Incoming::Status(stream) => {
                        let status = status.lock().expect("no panic").clone();
                        orders.spawn(async move { drop(stream.reply(&status).await) });
                    }
                    Incoming::Audit(_) => {}
                    Incoming::Log(mut stream) => {
                        let shown = shown.lock().expect("no panic").clone();
                        orders.spawn(async move {
                            let _ = stream.receive().await;
                            let _ = stream.send(&shown).await;
                            let _ = stream.finish().await;
                        });
                    }
                    Incoming::Order(stream) => {
                        let (key, diary, endpoint) = (key.clone(), Arc::clone(&seen), leaving.clone());
                        let region = status.lock().expect("no panic").region.clone();
                        orders.spawn(async move {
                            // A stream that broke is part of many scripts.
                            let _ = serve(stream, key, diary, endpoint, price, region).await;
                        });
                    }
                }
            }
        });
        FakeWorker { address: endpoint.address(), diary, endpoint, state, inclusion, _tasks: tasks }
    }

    pub fn key(&self) -> String {
        self.address.key.to_string()
    }

    /// Changes what it says of itself.
    pub fn set(&self, change: impl FnOnce(&mut WorkerStatus)) {
        change(&mut self.state.lock().expect("no panic"));
    }

    /// Changes what it says of any receipt's place in its log.
    pub fn show(&self, inclusion: Inclusion) {
        *self.inclusion.lock().expect("no panic") = inclusion;
    }

    pub async fn leave(&self) {
        self.endpoint.close().await;
    }
}

/// One answer under way.
struct Answer {
    key: SecretKey,
    price: Price,
    /// Output tokens that are paid for.
    covered: u32,
    order: Order,
    request: Request,
    prompt: Vec<u32>,
    limit: u32,
    accepted_ms: u64,
    first_token_ms: Option<u64>,
    output: Vec<u32>,
    text: String,
    /// What another has said already.
    resumed: Vec<u32>,
    /// How much of that has been gone over.
    silent: usize,
    /// Where it says that it is.
    region: Option<Region>,
    /// What it commits to.
    state: Digest,
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    mut stream: ServeStream,
    key: SecretKey,
    diary: Arc<Diary>,
    endpoint: Endpoint,
    price: Price,
    region: Option<Region>,
) -> Result<(), Broken> {
    let Some(ToWorker::Order { order, request, output: resumed }) = stream.receive().await? else {
        return Ok(());
    };
    let order = Signed::<Order>::open(&order)?.into_parts().0;
    // Who bids less is asked that.
    let price = if price.within(&order.price_ceiling) { price } else { order.price_ceiling };
    let request = <Request as surety_types::Canonical>::from_cbor(&request)?;
    diary.orders.lock().expect("no panic").push((order.clone(), request.clone()));
    let script = script(&request);
    let seed = key.to_bytes()[0].to_string();
    let mut acts: VecDeque<&str> = script.split(' ').collect();
    acts.retain(|act| act.split_once('@').is_none_or(|(_, only)| only == seed));
    acts.iter_mut().for_each(|act| *act = act.split_once('@').map_or(*act, |(act, _)| act));
    let prompt = [tokens(&request), resumed.clone()].concat();
    let mut answer = Answer {
        key,
        price,
        covered: 0,
        prompt,
        limit: 0,
        accepted_ms: unix_ms(),
        first_token_ms: None,
        output: Vec::new(),
        text: String::new(),
        resumed,
        state: Digest::ZERO,
        silent: 0,
        // One that lies about where it is says one thing when it is asked and signs another.
        region: if acts.front() == Some(&"ELSEWHERE") { Region::new("elsewhere").ok() } else { region },
        order,
        request,
    };
    acts.retain(|act| *act != "ELSEWHERE");
    answer.limit = answer.order.max_output_tokens.min(CONTEXT.saturating_sub(answer.prompt.len() as u32));

    let refusal = match acts.front().copied() {
        Some("REFUSE-OVERLOADED") => Some((FailureCode::Overloaded, "the queue holds 64 orders")),
        Some("REFUSE-SIX-TIMES") if diary.times(&answer.request) <= 6 => {
            Some((FailureCode::Overloaded, "others are under way"))
        }
        Some("REFUSE-BAD") => Some((FailureCode::BadRequest, "the template does not know the role `tool`")),
        Some("REFUSE-MEMORY") => Some((FailureCode::OutOfMemory, "no memory for 12 pages")),
        Some("REFUSE-MODEL") => Some((FailureCode::ModelUnknown, "it was removed")),
        Some("REFUSE-LEAVING") => Some((FailureCode::Leaving, "the worker is shutting down")),
        Some("REFUSE-INTERNAL") => Some((FailureCode::Internal, "a thread panicked")),
        _ if answer.prompt.len() as u32 >= CONTEXT => {
            Some((FailureCode::ContextLengthExceeded, "The prompt takes too many tokens of 4096."))
        }
        _ => None,
    };
    if let Some((code, message)) = refusal {
        // Nothing was accepted at any price.
        answer.price = Price::ZERO;
        let receipt = answer.receipt(Some((code, message)), FinishReason::Failed);
        return end(&mut stream, receipt).await;
    }
    match acts.front().copied() {
        Some("BUSY") => {
            stream.reset(CloseCode::Busy);
            return Ok(());
        }
        Some("SILENCE") => {
            // The payer gives up first.
            let _ = stream.receive().await;
            diary.write(&diary.cancelled);
            return Ok(());
        }
        Some("BAD-ACCEPTANCE") => answer.limit += 1,
        _ => {}
    }
    stream.send(&FromWorker::Acceptance(answer.acceptance())).await?;
    diary.write(&diary.accepted);
    if !answer.hear_voucher(&mut stream, &diary).await? {
        return answer.cancelled(&mut stream, &diary).await;
    }
    if answer.request.prompt_logprobs.is_some() {
        let own = answer.prompt.len() - answer.resumed.len();
        for (piece, ids) in answer.prompt[..own].chunks(2).enumerate() {
            let logprobs =
                ids.iter().map(|id| scored(*id, &spelling(*id), answer.request.prompt_logprobs)).collect();
            let piece = FromWorker::Prompt { index: piece as u32 * 2, ids: ids.to_vec(), logprobs };
            stream.send(&piece).await?;
        }
    }
    if let Some(wanted) = answer.request.embedding {
        let dimensions = wanted.dimensions.unwrap_or(WIDTH) as usize;
        let mut vector: Vec<f32> = (0..dimensions).map(|n| (answer.prompt.len() + n) as f32 / 7.0).collect();
        answer.state = vector_digest(&vector_bytes(&vector));
        if acts.contains(&"LIE-VECTOR") {
            vector[0] = f32::from_bits(vector[0].to_bits() + 1);
        }
        if !acts.contains(&"NO-VECTOR") {
            stream.send(&FromWorker::Embedding(vector_bytes(&vector))).await?;
        }
        acts.clear();
    }
    let mut stopped = false;
    while let Some(act) = acts.pop_front() {
        match act {
            // A token that completes a stop sequence: it spells it, and adds nothing to the text.
            "STOPPED" => {
                stopped = answer.say_as(&mut stream, "", act).await?;
                break;
            }
            "LEAVE" => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                endpoint.close().await;
                return Ok(());
            }
            "BREAK" => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.reset(CloseCode::Failed);
                return Ok(());
            }
            "BREAK-ONCE" if answer.resumed.is_empty() => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.reset(CloseCode::Failed);
                return Ok(());
            }
            "BREAK-ONCE" => {}
            "SILENT-ONCE" if answer.resumed.is_empty() => {
                stream.send(&FromWorker::Progress(answer.progress())).await?;
                let _ = stream.receive().await;
                return Ok(());
            }
            "SILENT-ONCE" => {}
            "END-EARLY" => {
                stream.finish().await?;
                return Ok(());
            }
            "WAIT" => {
                // Until the payer leaves, with signs of life.
                loop {
                    match stream.receive_within(Duration::from_millis(50)).await {
                        Err(surety_net::ReceiveError::Silence(_)) => {
                            stream.send(&FromWorker::Progress(answer.progress())).await?;
                        }
                        Ok(Some(ToWorker::Voucher(voucher))) => {
                            diary.vouchers.lock().expect("no panic").push(*voucher);
                        }
                        Ok(Some(ToWorker::Cancel)) if price != Price::ZERO => {
                            return answer.cancelled(&mut stream, &diary).await;
                        }
                        _ => {
                            diary.write(&diary.cancelled);
                            return Ok(());
                        }
                    }
                }
            }
            "STALL" => {
                let _ = stream.receive().await;
                diary.write(&diary.cancelled);
                return Ok(());
            }
            "GAP" => answer.output.push(7),
            "LIE-TEXT" => answer.text.push('!'),
            "LIE-PROGRESS" => {
                answer.text.push('!');
                stream.send(&FromWorker::Progress(answer.progress())).await?;
            }
            "PAUSE" => tokio::time::sleep(Duration::from_millis(300)).await,
            "FAIL" => {
                let failure = Some((FailureCode::NonFinite, "layer 3 gave a value that is not finite"));
                let receipt = answer.receipt(failure, FinishReason::Failed);
                return end(&mut stream, receipt).await;
            }
            "GIVE-UP" => {
                let failure = Some((FailureCode::Internal, "a thread panicked"));
                let receipt = answer.receipt(failure, FinishReason::Failed);
                return end(&mut stream, receipt).await;
            }
            "DRAIN" => {
                let failure = Some((FailureCode::Leaving, "the worker is shutting down"));
                let receipt = answer.receipt(failure, FinishReason::Failed);
                return end(&mut stream, receipt).await;
            }
            // Silent until it is told to speak.
            "HUSH" => diary.speaks.notified().await,
            "LATE" => {
                let failure = Some((FailureCode::DeadlineExceeded, "12 of 100 tokens were done"));
                let receipt = answer.receipt(failure, FinishReason::Failed);
                return end(&mut stream, receipt).await;
            }
            "FLOOD" => {
                while (answer.output.len() as u32) < answer.limit {
                    answer.say(&mut stream, "0123456789abcdef").await?;
                }
            }
            "HOLD-BACK" => {
                // A token whose text comes later.
                if !answer.say(&mut stream, "").await? {
                    break;
                }
            }
            word => {
                let word = word.replace("{choice}", &answer.order.choice.to_string());
                let separator = if acts.is_empty() { "" } else { " " };
                if !answer.say(&mut stream, &format!("{word}{separator}")).await? {
                    break;
                }
            }
        }
        if answer.output.len() % 3 == 2 {
            stream.send(&FromWorker::Progress(answer.progress())).await?;
            if !answer.hear_voucher(&mut stream, &diary).await? {
                return answer.cancelled(&mut stream, &diary).await;
            }
        }
    }
    let finish = if (answer.output.len() as u32) < answer.limit {
        if !stopped {
            answer.end_token(&mut stream).await?;
        }
        FinishReason::Stop
    } else {
        FinishReason::Length
    };
    let receipt = answer.receipt(None, finish);
    diary.charges.lock().expect("no panic").push(answer.charge());
    end(&mut stream, receipt).await?;
    diary.write(&diary.finished);
    Ok(())
}

async fn end(stream: &mut ServeStream, receipt: (Vec<u8>, [u8; 32])) -> Result<(), Broken> {
    let (receipt, salt) = receipt;
    stream.send(&FromWorker::Receipt { receipt, salt }).await?;
    stream.finish().await?;
    Ok(())
}

impl Answer {
    /// The payer has left: what was delivered is receipted.
    async fn cancelled(&self, stream: &mut ServeStream, diary: &Diary) -> Result<(), Broken> {
        diary.charges.lock().expect("no panic").push(self.charge());
        end(stream, self.receipt(None, FinishReason::Cancelled)).await?;
        diary.write(&diary.cancelled);
        Ok(())
    }

    /// Where something is paid, and more can be covered: the next voucher. False if the payer leaves instead.
    async fn hear_voucher(&mut self, stream: &mut ServeStream, diary: &Diary) -> Result<bool, Broken> {
        if self.price == Price::ZERO || (self.covered >= self.limit && self.limit > 0) {
            return Ok(true);
        }
        match stream.receive_within(Duration::from_secs(5)).await? {
            Some(ToWorker::Voucher(voucher)) => {
                assert_eq!(voucher.order, self.order.digest());
                self.covered = voucher.covered_output_tokens;
                diary.vouchers.lock().expect("no panic").push(*voucher);
                Ok(true)
            }
            Some(ToWorker::Cancel) => Ok(false),
            other => Err(format!("no voucher but {other:?}").into()),
        }
    }

    fn charge(&self) -> Amount {
        let prompt = self.prompt.len() as u32;
        self.price.charge(prompt, 1.min(prompt), self.output.len() as u32).expect("an amount")
    }

    /// Sends one token; false when there is no room for more.
    async fn say(&mut self, stream: &mut ServeStream, text: &str) -> Result<bool, Broken> {
        self.say_as(stream, text, text).await
    }

    /// Sends one token that spells something else than it adds to the text.
    async fn say_as(&mut self, stream: &mut ServeStream, text: &str, spelled: &str) -> Result<bool, Broken> {
        if self.output.len() as u32 == self.limit {
            return Ok(false);
        }
        // What is resumed from is part of the script, and not said again.
        if self.silent < self.resumed.len() {
            assert_eq!(self.resumed[self.silent], spoken(self.silent, text));
            self.silent += 1;
            return Ok(true);
        }
        let token = spoken(self.resumed.len() + self.output.len(), text);
        let logprobs: Vec<TokenLogprob> = self
            .request
            .logprobs
            .map(|_| scored(token, spelled.as_bytes(), self.request.logprobs))
            .into_iter()
            .collect();
        let frame = FromWorker::Frame {
            index: self.output.len() as u32,
            tokens: vec![token],
            text: text.to_owned(),
            logprobs,
        };
        stream.send(&frame).await?;
        self.first_token_ms.get_or_insert_with(unix_ms);
        self.output.push(token);
        self.text.push_str(text);
        Ok(true)
    }

    async fn end_token(&mut self, stream: &mut ServeStream) -> Result<(), Broken> {
        if self.silent < self.resumed.len() {
            assert_eq!(self.resumed[self.silent..], [END]);
            return Ok(());
        }
        let logprobs: Vec<TokenLogprob> =
            self.request.logprobs.map(|_| scored(END, b"", self.request.logprobs)).into_iter().collect();
        let frame = FromWorker::Frame {
            index: self.output.len() as u32,
            tokens: vec![END],
            text: String::new(),
            logprobs,
        };
        stream.send(&frame).await?;
        self.first_token_ms.get_or_insert_with(unix_ms);
        self.output.push(END);
        Ok(())
    }

    fn acceptance(&self) -> Vec<u8> {
        let acceptance = Acceptance {
            order: self.order.digest(),
            model: self.order.model,
            worker: self.key.public(),
            deadline_ms: self.order.deadline_ms,
            price: self.price,
            prompt_tokens: self.prompt.len() as u32,
            accepted_ms: self.accepted_ms,
            max_output_tokens: self.limit,
            region: self.region.clone(),
        };
        Signed::sign(acceptance, &self.key).into_parts().1
    }

    fn progress(&self) -> Vec<u8> {
        let progress = Progress {
            order: self.order.digest(),
            output_tokens: self.output.len() as u32,
            output_digest: output_digest(&self.output),
            text_digest: text_digest(&self.text),
            at_ms: unix_ms(),
            worker: self.key.public(),
        };
        Signed::sign(progress, &self.key).into_parts().1
    }

    fn receipt(&self, failure: Option<(FailureCode, &str)>, finish: FinishReason) -> (Vec<u8>, [u8; 32]) {
        let salt = if failure.is_some() { [0; 32] } else { [5; 32] };
        let commitment = match failure {
            Some(_) => Digest::ZERO,
            None => state_commitment(&self.key.public(), &salt, &self.state),
        };
        let outcome = match failure {
            Some((code, message)) => Outcome::Failed { code, message: Text::clipped(message) },
            None => Outcome::Completed,
        };
        // Vectors are accepted without a limit of output.
        let accepted = self.limit > 0 || (self.request.embedding.is_some() && failure.is_none());
        let receipt = Receipt {
            version: RECEIPT_VERSION,
            outcome,
            order: self.order.digest(),
            model: self.order.model,
            arithmetic: 0,
            prompt_tokens: self.prompt.len() as u32,
            cached_tokens: 1.min(self.prompt.len() as u32),
            output_tokens: self.output.len() as u32,
            prompt_digest: prompt_digest(&self.prompt),
            output_digest: output_digest(&self.output),
            text_digest: text_digest(&self.text),
            finish,
            seed: self.order.seed_bytes(),
            state_commitment: commitment,
            price: if accepted { self.price } else { Price::ZERO },
            charge: if failure.is_some() { Amount::ZERO } else { self.charge() },
            accepted_ms: self.accepted_ms,
            first_token_ms: self.first_token_ms,
            done_ms: unix_ms(),
            software: Text::clipped("fake/1"),
            worker: self.key.public(),
        };
        (Signed::sign(receipt, &self.key).into_parts().1, salt)
    }
}

fn script(request: &Request) -> String {
    match &request.prompt {
        Prompt::Chat { messages, .. } => {
            messages.last().map(|message| message.content.clone()).unwrap_or_default()
        }
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(_) => "counted tokens".to_owned(),
    }
}

/// The token of the n-th word.
fn spoken(index: usize, text: &str) -> u32 {
    let letters: u32 = text.bytes().map(u32::from).sum();
    100 + (index as u32 * 7 + letters) % 800
}

/// One token per byte of text; ids as they are.
fn tokens(request: &Request) -> Vec<u32> {
    match &request.prompt {
        Prompt::Chat { .. } => vec![1; script(request).len() + 5],
        Prompt::Text(text) => text.bytes().map(u32::from).collect(),
        Prompt::Tokens(ids) => ids.clone(),
    }
}

/// What a token of a prompt spells.
fn spelling(id: u32) -> Vec<u8> {
    match u8::try_from(id) {
        Ok(byte) => vec![byte],
        Err(_) => format!("<{id}>").into_bytes(),
    }
}

fn scored(token: u32, bytes: &[u8], top: Option<u8>) -> TokenLogprob {
    let top = (0..top.unwrap_or(0)).map(|rank| Alternative {
        token: u32::from(rank),
        bytes: vec![b'a' + rank],
        logprob: -1.0 - f32::from(rank),
    });
    TokenLogprob { token, bytes: bytes.to_vec(), logprob: -0.5, top: top.collect() }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}
