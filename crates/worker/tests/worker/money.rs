//! A worker that is paid: the bundled model, real sockets, a scripted payer, and a ledger in memory.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use crate::memory::{CREDIT, MemoryLedger, wallet};
use alloy_primitives::{Address, B256, U256};
use surety_client::{
    Account,
    channel::{ModuleCall, view},
};
use surety_net::{BindOptions, Endpoint, Link, OrderStream, Protocol};
use surety_types::{
    Acceptance, Amount, AuditEvidence, Canonical, Channel, ChannelDigests, Digest, EvidenceRequest,
    FailureCode, FinishReason, FromWorker, Inclusion, Message, ModelId, Order, Price, Progress, Prompt,
    Receipt, Request, Sampling, SecretKey, Seed, Signed, ToWorker, Voucher, WEI_PER_MICRO_CREDIT,
    abi::{IAudits, IChannels, IDisputes, IModels, IOperators, IReceipts, IStaking, Module},
    channel::cover_wei,
    order::ORDER_VERSION,
};
use surety_worker::{
    WorkerLedger,
    load::{ModelFile, ModelPlace},
    money::{Claims, HostingSettings},
    serve::{self, Lie, ModelSettings, RunningWorker, WorkerSettings},
};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf");
const TIME: Duration = Duration::from_secs(60);
const OPERATOR: u64 = 1;
const PAYER: u64 = 2;
const AUDITOR: u64 = 3;
/// A micro-credit for each token.
const PRICE: Price =
    Price { prompt: Amount(1_000_000), cached: Amount(1_000_000), output: Amount(1_000_000) };
/// A third of it for output, and half for prompts.
const BATCH_PRICE: Price =
    Price { prompt: Amount(500_000), cached: Amount(500_000), output: Amount(333_334) };

struct Bench {
    ledger: MemoryLedger,
    worker: Option<RunningWorker>,
    link: Link,
    _endpoint: Endpoint,
    model: ModelId,
    channel: Channel,
    folder: Arc<tempfile::TempDir>,
}

fn settings(ledger: &MemoryLedger, folder: &Path) -> WorkerSettings {
    let blake3 = Digest(*blake3::hash(&std::fs::read(MODEL).unwrap()).as_bytes());
    WorkerSettings {
        key: SecretKey::from_bytes(&[1; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
        relays: Vec::new(),
        paused: false,
        models: vec![ModelSettings {
            name: "demo".into(),
            file: ModelFile { place: ModelPlace::File(MODEL.into()), blake3 },
        }],
        upstreams: Vec::new(),
        cache: None,
        backend: None,
        threads: NonZeroUsize::new(1),
        context_tokens: None,
        kv_bytes: Some(64 << 20),
        region: None,
        ledger: Some(WorkerLedger {
            account: ledger.account(OPERATOR),
            bond: U256::from(20 * CREDIT),
            price: PRICE,
            batch_price: BATCH_PRICE,
            name: "Acme".into(),
            folder: folder.join("money"),
            endpoint: None,
            // Claims are made when the test says so, by stopping.
            claims: Claims { interval: Duration::from_secs(3600), threshold_wei: u128::MAX },
            hosting: HostingSettings::default(),
        }),
        sharing: None,
        lie: None,
    }
}

async fn registered(worker: &RunningWorker) {
    let mut duties = worker.duties().unwrap();
    let state = duties.wait_for(|state| state.registered);
    tokio::time::timeout(TIME, state).await.expect("registered in time").unwrap();
}

async fn link_to(worker: &RunningWorker) -> (Endpoint, Link) {
    let listen = "127.0.0.1:0".parse().unwrap();
    let key = SecretKey::from_bytes(&[2; 32]);
    let endpoint = Endpoint::bind(BindOptions { key, listen }).await.unwrap();
    let link = endpoint.connect(&worker.address(), Protocol::Serve).await.unwrap();
    (endpoint, link)
}

fn digests() -> ChannelDigests {
    ChannelDigests::new(88_888)
}

impl Bench {
    async fn start() -> Bench {
        Self::resume(MemoryLedger::new(), Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn resume(ledger: MemoryLedger, folder: Arc<tempfile::TempDir>) -> Bench {
        Self::resume_telling(None, ledger, folder).await
    }

    async fn resume_telling(lie: Option<Lie>, ledger: MemoryLedger, folder: Arc<tempfile::TempDir>) -> Bench {
        let mut worker = None;
        // The one before may still be letting go of its book.
        for _ in 0..500 {
            let settings = WorkerSettings { lie: lie.clone(), ..settings(&ledger, folder.path()) };
            match serve::start(settings, |_| {}).await {
                Ok(started) => {
                    worker = Some(started);
                    break;
                }
                Err(serve::StartError::Book(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
        let worker = worker.expect("the book is free in the end");
        registered(&worker).await;
        let (endpoint, link) = link_to(&worker).await;
        let account = |number| wallet(number).address();
        let channel = Channel {
            payer: account(PAYER),
            payer_authorizer: account(PAYER),
            receiver: account(OPERATOR),
            receiver_authorizer: account(OPERATOR),
            token: Address::ZERO,
            withdraw_delay_s: 3600,
            salt: Digest([1; 32]),
        };
        let model = worker.models()[0].id;
        Bench { ledger, worker: Some(worker), link, _endpoint: endpoint, model, channel, folder }
    }

    async fn deposit(&self, micro: u128) {
        let wei = micro * WEI_PER_MICRO_CREDIT;
        let call = IChannels::depositCall {
            config: self.channel.config(),
            amount: wei,
            collector: Address::ZERO,
            collectorData: Vec::new().into(),
        };
        let call = ModuleCall::paying(Module::Channels, &call, U256::from(wei));
        self.ledger.account(PAYER).send(vec![call]).await.unwrap();
    }

    async fn order(&self, content: &str, max_output_tokens: u32) -> Paid {
        self.bid(PRICE, content, max_output_tokens).await
    }

    async fn bid(&self, price: Price, content: &str, max_output_tokens: u32) -> Paid {
        let message = Message::text("user", content);
        let request = Request {
            prompt: Prompt::chat(vec![message]),
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            embedding: None,
            date: None,
            grammar: None,
        };
        let issued_ms =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        let payer = SecretKey::from_bytes(&[2; 32]);
        let order = Order {
            version: ORDER_VERSION,
            model: self.model,
            request_digest: request.digest(),
            nonce: [max_output_tokens as u8; 32],
            seed: Seed::Caller(5),
            choice: 0,
            sampling: Sampling::default(),
            max_output_tokens,
            ignore_end: true,
            deadline_ms: issued_ms + 60_000,
            price_ceiling: price,
            channel: Some(self.channel.id(&digests())),
            payer: payer.public(),
            issued_ms,
            resumed: None,
            disclosure: None,
        };
        let digest = order.digest();
        let order = Signed::sign(order, &payer).into_parts().1;
        let mut stream = self.link.open_order().await.unwrap();
        stream
            .send(&ToWorker::Order { order, request: request.to_cbor(), output: Vec::new() })
            .await
            .unwrap();
        let channel = self.channel.clone();
        Paid { stream, channel, order: digest, price, prompt_tokens: 0, tokens: 0, signed: 0 }
    }

    fn claimed(&self) -> (u128, u128) {
        let id = B256::from(self.channel.id(&digests()).0);
        let channel = self.ledger.view(Module::Channels, &IChannels::channelsCall { channelId: id });
        (channel.balance / WEI_PER_MICRO_CREDIT, channel.totalClaimed / WEI_PER_MICRO_CREDIT)
    }

    async fn stop(&mut self) {
        self.worker.take().unwrap().shutdown(TIME).await;
    }
}

/// One order of a payer that does only what the test says.
struct Paid {
    stream: OrderStream,
    channel: Channel,
    order: Digest,
    /// Bid, and accepted.
    price: Price,
    prompt_tokens: u32,
    tokens: u32,
    /// Output tokens that the worker has signed for.
    signed: u32,
}

/// What came.
#[derive(Debug)]
enum Came {
    Tokens,
    Progress,
    Receipt(Box<Receipt>),
}

impl Paid {
    async fn accepted(&mut self) -> Acceptance {
        let Some(FromWorker::Acceptance(bytes)) = self.stream.receive_within(TIME).await.unwrap() else {
            panic!("an acceptance comes first")
        };
        let acceptance = Signed::<Acceptance>::open(&bytes).unwrap().into_parts().0;
        assert_eq!(acceptance.price, self.price);
        self.prompt_tokens = acceptance.prompt_tokens;
        acceptance
    }

    fn cover(&self, tokens: u32) -> u128 {
        cover_wei(&self.price, self.prompt_tokens, tokens).unwrap()
    }

    async fn pay(&mut self, before: u128, tokens: u32) {
        let wei = before + self.cover(tokens);
        let id = B256::from(self.channel.id(&digests()).0);
        let voucher = Voucher {
            channel: self.channel.clone(),
            max_claimable: wei,
            signature: wallet(PAYER).sign_digest(&digests().voucher(id, wei)),
            order: self.order,
            covered_output_tokens: tokens,
        };
        self.stream.send(&ToWorker::Voucher(Box::new(voucher))).await.unwrap();
    }

    async fn next(&mut self) -> Came {
        match self.stream.receive_within(TIME).await.unwrap().expect("not the end yet") {
            FromWorker::Frame { index, tokens, .. } => {
                assert_eq!(index, self.tokens);
                self.tokens += tokens.len() as u32;
                Came::Tokens
            }
            FromWorker::Progress(bytes) => {
                self.signed = Signed::<Progress>::open(&bytes).unwrap().output_tokens;
                Came::Progress
            }
            FromWorker::Receipt { receipt, .. } => {
                Came::Receipt(Box::new(Signed::<Receipt>::open(&receipt).unwrap().into_parts().0))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn receipt(&mut self) -> Receipt {
        loop {
            if let Came::Receipt(receipt) = self.next().await {
                return *receipt;
            }
        }
    }

    /// Pays on as the rules say, to the end.
    async fn paid_to_the_end(&mut self, before: u128, limit: u32) -> Receipt {
        self.pay(before, limit.min(128)).await;
        loop {
            match self.next().await {
                Came::Tokens => {}
                Came::Progress => self.pay(before, (self.signed + 128).min(limit)).await,
                Came::Receipt(receipt) => return *receipt,
            }
        }
    }
}

fn micro(receipt: &Receipt) -> u128 {
    receipt.charge.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_registers_earns_claims_and_posts_its_log() {
    let mut bench = Bench::start().await;
    let (operator, ledger) = (wallet(OPERATOR).address(), bench.ledger.clone());
    let known = ledger.view(Module::Operators, &IOperators::operatorOfCall { account: operator });
    assert_eq!((known.name.as_str(), known.workers, known.offers), ("Acme", 1, 1));
    let bonded = ledger.view(Module::Staking, &IStaking::bondedToCall { operator });
    assert_eq!(bonded, U256::from(20 * CREDIT));
    let key = B256::from(SecretKey::from_bytes(&[1; 32]).public().0);
    let worker = ledger.view(Module::Operators, &IOperators::workerCall { key });
    assert_eq!(worker.endpoint, bench.worker.as_ref().unwrap().address().location.to_string());
    let offers = ledger.view(Module::Operators, &IOperators::offersOfCall { operator, offset: 0 });
    assert_eq!((offers[0].model.0, offers[0].outputPrice), (bench.model.0.0, 1_000_000));
    let name = ledger.view(Module::Models, &IModels::resolveCall { name: "demo".into() });
    assert_eq!((name.holder, name.id.0), (operator, bench.model.0.0));

    bench.deposit(10_000).await;
    let epoch = ledger.epoch();
    let mut before = 0;
    let mut receipts = Vec::new();
    for limit in [40, 300] {
        let mut order = bench.order("Who goes there?", limit).await;
        order.accepted().await;
        let receipt = order.paid_to_the_end(before, limit).await;
        assert_eq!((receipt.output_tokens, receipt.finish), (limit, FinishReason::Length));
        assert_eq!(micro(&receipt), u128::from(receipt.prompt_tokens + limit));
        before += receipt.charge.to_wei().unwrap();
        receipts.push(receipt);
    }
    let owed: u128 = receipts.iter().map(micro).sum();
    let rich = ledger.balance(operator);
    bench.stop().await;
    // Exactly what the receipts charge, not what the vouchers allowed.
    assert_eq!(bench.claimed(), (10_000, owed));
    let paid =
        ledger.view(Module::Channels, &IChannels::receiversCall { receiver: operator, token: Address::ZERO });
    assert_eq!(paid.totalSettled, owed * WEI_PER_MICRO_CREDIT);
    assert!(ledger.balance(operator) != rich);

    // A new start repeats nothing, and posts the epoch that is over by then.
    ledger.next_epoch();
    let nonce_like = ledger.balance(operator);
    let mut again = Bench::resume(ledger.clone(), bench.folder.clone()).await;
    let log = || ledger.view(Module::Receipts, &IReceipts::logOfCall { operator, epoch });
    for _ in 0..1000 {
        if log().height != 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(log().size, 2);
    let changed = ledger.view(Module::Operators, &IOperators::workerCall { key }).endpoint;
    assert_eq!(changed, again.worker.as_ref().unwrap().address().location.to_string());
    assert!(nonce_like > ledger.balance(operator), "gas alone");
    again.stop().await;
    assert_eq!(again.claimed(), (10_000, owed));
}

#[tokio::test(flavor = "multi_thread")]
async fn earnings_are_what_receipts_charged_and_outlive_the_worker_that_leaves() {
    let mut bench = Bench::start().await;
    bench.deposit(10_000).await;
    let (mut before, mut output_tokens) = (0, 0);
    for limit in [16, 24] {
        let mut order = bench.order("Who goes there?", limit).await;
        order.accepted().await;
        let receipt = order.paid_to_the_end(before, limit).await;
        before += receipt.charge.to_wei().unwrap();
        output_tokens += u64::from(receipt.output_tokens);
    }
    let worker = bench.worker.take().unwrap();
    let earned = worker.control().earnings().unwrap().unwrap();
    let [row] = earned.charged[..] else { panic!("one model, one day: {earned:?}") };
    assert_eq!((row.model, row.orders, row.output_tokens, row.wei), (bench.model, 2, output_tokens, before));
    assert_eq!((earned.unclaimed_wei, earned.channels), (before, 1));

    // It leaves: what is due is claimed, its offers are withdrawn, its key is retired and never comes back.
    assert_eq!(worker.retire(TIME).await, None);
    assert_eq!(bench.claimed().1 * WEI_PER_MICRO_CREDIT, before);
    let (operator, ledger) = (wallet(OPERATOR).address(), bench.ledger.clone());
    let key = B256::from(SecretKey::from_bytes(&[1; 32]).public().0);
    assert_ne!(ledger.view(Module::Operators, &IOperators::workerCall { key }).retiredHeight, 0);
    assert!(ledger.view(Module::Operators, &IOperators::offersOfCall { operator, offset: 0 }).is_empty());
    // The one before may still be letting go of its book, each time.
    let (mut found, mut again) = (None, None);
    for _ in 0..1000 {
        let settings = settings(&ledger, bench.folder.path());
        if found.is_none() {
            found = surety_worker::money::earnings(settings.ledger.as_ref().unwrap()).await.ok();
        } else if let Ok(started) = serve::start(settings, |_| {}).await {
            again = Some(started);
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (found, again) = (found.expect("the book is free"), again.expect("and again"));
    assert_eq!((found.charged, found.unclaimed_wei), (earned.charged, 0));
    let mut duties = again.duties().unwrap();
    let refused = duties.wait_for(|state| state.problem.is_some());
    let state = tokio::time::timeout(TIME, refused).await.expect("told in time").unwrap().clone();
    assert!(state.problem.unwrap().message.contains("was retired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_bids_the_batch_price_is_served_at_it_by_an_idle_worker_alone() {
    let mut bench = Bench::start().await;
    bench.deposit(10_000).await;
    let mut batch = bench.bid(BATCH_PRICE, "Who goes there?", 40).await;
    batch.accepted().await;
    let receipt = batch.paid_to_the_end(0, 40).await;
    assert_eq!((receipt.price, receipt.finish), (BATCH_PRICE, FinishReason::Length));
    let due = BATCH_PRICE.charge(receipt.prompt_tokens, receipt.cached_tokens, 40).unwrap();
    assert_eq!(receipt.charge, due);
    let settled = due.to_wei().unwrap();

    // One at the price is under way: it waits for its money.
    let mut full = bench.order("Who goes there?", 41).await;
    full.accepted().await;
    let refused = bench.bid(BATCH_PRICE, "Who goes there?", 42).await.receipt().await;
    let (code, message) = refused.failure().unwrap();
    assert_eq!(code, FailureCode::Overloaded);
    assert!(message.contains("1 and 0 are under way"), "{message}");
    let dear = full.paid_to_the_end(settled, 41).await;
    assert_eq!(dear.price, PRICE);

    // What bids less than that is told what is asked.
    let less = Price { output: Amount(333_333), ..BATCH_PRICE };
    let refused = bench.bid(less, "Who goes there?", 43).await.receipt().await;
    assert_eq!(refused.failure().unwrap().0, FailureCode::PaymentRequired);
    bench.stop().await;
    assert_eq!(bench.claimed().1, micro(&receipt) + micro(&dear));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_pay_gets_no_token_and_who_stops_paying_gets_two_steps() {
    let mut bench = Bench::start().await;
    bench.deposit(10_000).await;
    let mut order = bench.order("Speak!", 1_000).await;
    order.accepted().await;
    let receipt = order.receipt().await;
    let (code, message) = receipt.failure().unwrap();
    assert_eq!((code, order.tokens), (FailureCode::PaymentRequired, 0));
    assert!(message.contains("none came"), "{message}");
    assert_eq!(micro(&receipt), 0);

    let mut order = bench.order("Speak on!", 1_000).await;
    order.accepted().await;
    order.pay(0, 127).await;
    let receipt = order.receipt().await;
    assert_eq!(receipt.failure().unwrap().0, FailureCode::PaymentRequired, "less than the first cover");

    let mut order = bench.order("Speak on!", 1_001).await;
    order.accepted().await;
    order.pay(0, 128).await;
    let receipt = order.receipt().await;
    assert_eq!((receipt.finish, receipt.output_tokens), (FinishReason::Unpaid, 128));
    assert_eq!((order.tokens, order.signed), (128, 128), "all of it signed for");
    assert_eq!(micro(&receipt), u128::from(receipt.prompt_tokens + 128));
    bench.stop().await;
    assert_eq!(bench.claimed().1, micro(&receipt));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_the_same_whether_it_had_to_wait_for_money_or_not() {
    let mut bench = Bench::start().await;
    bench.deposit(100_000).await;
    let mut hesitant = bench.order("To be, or not to be?", 400).await;
    hesitant.accepted().await;
    hesitant.pay(0, 128).await;
    while hesitant.signed < 128 {
        hesitant.next().await;
    }
    // The worker rests here, with the sequence in memory.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(hesitant.tokens, 128);
    hesitant.pay(0, 400).await;
    let first = hesitant.receipt().await;
    assert_eq!((first.output_tokens, first.finish), (400, FinishReason::Length));
    let settled = first.charge.to_wei().unwrap();
    let mut generous = bench.order("To be, or not to be?", 400).await;
    generous.accepted().await;
    generous.pay(settled, 400).await;
    let second = generous.receipt().await;
    assert_eq!(first.output_digest, second.output_digest);
    assert_eq!(first.text_digest, second.text_digest);
    bench.stop().await;
    assert_eq!(bench.claimed().1, micro(&first) + micro(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_that_breaks_off_pays_for_what_was_covered_and_computed() {
    let mut bench = Bench::start().await;
    bench.deposit(10_000).await;
    let mut order = bench.order("Speak on!", 2_000).await;
    order.accepted().await;
    order.pay(0, 128).await;
    while order.tokens < 128 {
        order.next().await;
    }
    let owed = u128::from(order.prompt_tokens + 128);
    drop(order);
    bench.stop().await;
    assert_eq!(bench.claimed().1, owed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_loses_nothing_that_was_receipted() {
    let bench = Bench::start().await;
    bench.deposit(10_000).await;
    let mut order = bench.order("Who goes there?", 50).await;
    order.accepted().await;
    let receipt = order.paid_to_the_end(0, 50).await;
    let mut cut = bench.order("Speak for ever!", 2_000).await;
    cut.accepted().await;
    cut.pay(receipt.charge.to_wei().unwrap(), 128).await;
    while cut.tokens < 5 {
        cut.next().await;
    }
    // Without a shutdown: nothing is claimed, nobody told.
    let (ledger, folder) = (bench.ledger.clone(), bench.folder.clone());
    let at = |bench: &Bench| bench.claimed().1;
    assert_eq!(at(&bench), 0);
    drop((cut, order, bench));
    let mut again = Bench::resume(ledger, folder).await;
    let mut order = again.order("Still there?", 20).await;
    order.accepted().await;
    // What the payer signed for the order that was cut counts as spent with it.
    let before = receipt.charge.to_wei().unwrap() + order.cover(128) + 64 * WEI_PER_MICRO_CREDIT;
    let second = order.paid_to_the_end(before, 20).await;
    again.stop().await;
    let claimed = at(&again);
    let least = micro(&receipt) + micro(&second);
    // The order that was cut is charged if the worker outlived its payer by a moment, and never above its cover.
    assert!(claimed >= least && claimed <= least + 128 + 64, "{claimed} of {least}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_away_or_an_empty_purse_is_said_and_waited_for() {
    let (ledger, folder) = (MemoryLedger::new(), tempfile::tempdir().unwrap());
    ledger.set_away(true);
    let worker = serve::start(settings(&ledger, folder.path()), |_| {}).await.unwrap();
    let mut duties = worker.duties().unwrap();
    let problem = duties.wait_for(|state| state.problem.is_some());
    let state = tokio::time::timeout(TIME, problem).await.unwrap().unwrap().clone();
    assert!(!state.registered);
    assert_eq!(state.problem.unwrap().message, "nobody answers");
    let (_endpoint, link) = link_to(&worker).await;
    drop(link);
    ledger.set_away(false);
    registered(&worker).await;
    worker.shutdown(TIME).await;

    let poor = tempfile::tempdir().unwrap();
    let mut settings = settings(&ledger, poor.path());
    settings.key = SecretKey::from_bytes(&[3; 32]);
    if let Some(ledger_settings) = &mut settings.ledger {
        ledger_settings.account = ledger.account(77);
    }
    let worker = serve::start(settings, |_| {}).await.unwrap();
    let mut duties = worker.duties().unwrap();
    let problem = duties.wait_for(|state| state.problem.is_some());
    let state = tokio::time::timeout(TIME, problem).await.unwrap().unwrap().clone();
    assert!(state.problem.unwrap().hint.contains("send credits to"), "it says what to do");
    worker.shutdown(TIME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_of_an_account_is_told_so() {
    let mut bench = Bench::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&bench.ledger, folder.path());
    settings.key = SecretKey::from_bytes(&[3; 32]);
    let second = serve::start(settings, |_| {}).await.unwrap();
    let mut duties = second.duties().unwrap();
    let problem = duties.wait_for(|state| state.problem.is_some());
    let state = tokio::time::timeout(TIME, problem).await.unwrap().unwrap().clone();
    assert!(state.problem.unwrap().hint.contains("an account of its own"));
    second.shutdown(TIME).await;
    let operator = wallet(OPERATOR).address();
    let account: Arc<dyn Account> = bench.ledger.account(OPERATOR);
    let workers = IOperators::workersOfCall { operator, offset: 0 };
    assert_eq!(view(&*account, Module::Operators, &workers).await.unwrap().len(), 1);
    bench.stop().await;
}

/// Looks until it is so.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen in time");
}

/// Another operator's worker, which offers the same model.
async fn auditor(ledger: &MemoryLedger, folder: &Path) -> RunningWorker {
    let mut settings = settings(ledger, folder);
    settings.key = SecretKey::from_bytes(&[3; 32]);
    let its = settings.ledger.as_mut().unwrap();
    (its.account, its.name) = (ledger.account(AUDITOR), "Umbra".into());
    let auditor = serve::start(settings, |_| {}).await.unwrap();
    registered(&auditor).await;
    auditor
}

/// The worker shows whoever asks where a receipt is in the log that was posted, and nothing of what it never signed.
async fn shows_its_place(bench: &Bench, ledger: &MemoryLedger, receipt: &Receipt, posted: u64) {
    // A key signs the same in the same way.
    let receipt = Signed::sign(receipt.clone(), &SecretKey::from_bytes(&[1; 32])).digest();
    let address = bench.worker.as_ref().unwrap().address();
    let link = bench._endpoint.connect(&address, Protocol::Log).await.unwrap();
    let (index, path) = loop {
        match link.inclusion(receipt, TIME).await.unwrap() {
            Inclusion::Posted { epoch, index, path } if epoch == posted => break (index, path),
            // The book notes the root after the ledger does.
            Inclusion::Unposted { epoch } if epoch == posted => {}
            other => panic!("{other:?} of epoch {posted}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let included = IReceipts::includesCall {
        operator: wallet(OPERATOR).address(),
        epoch: posted,
        index,
        leafHash: surety_chain::leaf_hash(&receipt.0).into(),
        path: path.iter().map(|hash| B256::from(hash.0)).collect(),
    };
    assert!(ledger.view(Module::Receipts, &included));
    assert_eq!(link.inclusion(Digest([9; 32]), TIME).await.unwrap(), Inclusion::Unknown);
}

/// The audit of the first draw from an epoch's log (U-2.5).
fn first_draw(operator: Address, epoch: u64) -> B256 {
    let mut id = [0; 32];
    id[..20].copy_from_slice(operator.as_slice());
    id[20..28].copy_from_slice(&epoch.to_be_bytes());
    id.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_computed_again_by_another_worker_which_is_paid_for_it() {
    let ledger = MemoryLedger::new();
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let auditor = auditor(&ledger, other.path()).await;
    let mut bench = Bench::resume(ledger.clone(), Arc::new(folder)).await;
    bench.deposit(10_000).await;
    let (epoch, limit) = (ledger.epoch(), 40);
    let mut order = bench.order("Who goes there?", limit).await;
    order.accepted().await;
    let receipt = order.paid_to_the_end(0, limit).await;
    // It claims what it earned, and a part of that is for auditors.
    bench.stop().await;
    let mut bench = Bench::resume(ledger.clone(), bench.folder.clone()).await;
    let operator = wallet(OPERATOR).address();
    let standing = || ledger.view(Module::Audits, &IAudits::standingOfCall { operator });
    assert_eq!(standing().pool, U256::from(receipt.charge.to_wei().unwrap() / 25));

    ledger.next_epoch();
    until("the log", || (standing().logs == 1).then_some(())).await;
    shows_its_place(&bench, &ledger, &receipt, epoch).await;
    ledger.next_epoch();
    let id = first_draw(operator, epoch);
    let audit = || ledger.view(Module::Audits, &IAudits::auditOfCall { id });
    until("the disclosure", || (audit().status == 1).then_some(())).await;

    // Nobody but the auditor is given the evidence.
    let mut stream = {
        let address = bench.worker.as_ref().unwrap().address();
        let link = bench._endpoint.connect(&address, Protocol::Audit).await.unwrap();
        link.open_stream::<EvidenceRequest, AuditEvidence>().await.unwrap()
    };
    stream.send(&EvidenceRequest { id: Digest(id.0) }).await.unwrap();
    stream.receive_within(TIME).await.expect_err("a stranger gets nothing");

    ledger.next_epoch();
    until("the result", || (audit().status == 5).then_some(())).await;
    let audit = audit();
    assert_eq!(audit.auditor, wallet(AUDITOR).address());
    assert_eq!(audit.auditorKey.0, SecretKey::from_bytes(&[3; 32]).public().0);
    assert_ne!(audit.found, B256::ZERO, "it found what the worker found");
    // All was audited, so that the auditor got all that there was for it.
    let found = standing();
    assert_eq!((found.passed, found.missed, found.pool), (1, 0, U256::ZERO));
    bench.stop().await;
    auditor.shutdown(TIME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_that_is_drawn_is_contested_by_its_auditor_and_convicted() {
    let ledger = MemoryLedger::new();
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let auditor = auditor(&ledger, other.path()).await;
    let lie = Some(Lie::Temperature);
    let bench = Bench::resume_telling(lie, ledger.clone(), Arc::new(folder)).await;
    bench.deposit(10_000).await;
    let (operator, epoch, limit) = (wallet(OPERATOR).address(), ledger.epoch(), 40);
    let mut order = bench.order("Who goes there?", limit).await;
    order.accepted().await;
    order.paid_to_the_end(0, limit).await;
    let bonded = || ledger.view(Module::Staking, &IStaking::bondedToCall { operator });
    let before = bonded();
    ledger.next_epoch();
    let logs = || ledger.view(Module::Audits, &IAudits::standingOfCall { operator }).logs;
    until("the log", || (logs() == 1).then_some(())).await;
    ledger.next_epoch();
    let id = first_draw(operator, epoch);
    let audit = || ledger.view(Module::Audits, &IAudits::auditOfCall { id });
    until("the disclosure", || (audit().status == 1).then_some(())).await;
    ledger.next_epoch();
    let dispute = until("the verdict", || {
        let count = ledger.view(Module::Disputes, &IDisputes::disputeCountCall {});
        let dispute = || ledger.view(Module::Disputes, &IDisputes::disputesCall { id: 1 });
        (count == 1).then(dispute).filter(|dispute| dispute.state != 1)
    })
    .await;
    assert_eq!((dispute.state, dispute.operator), (3, operator), "its own trace is not its receipt's");
    assert_eq!(dispute.challenger, wallet(AUDITOR).address());
    assert!(bonded() < before, "and its bond is less");
    auditor.shutdown(TIME).await;
}
