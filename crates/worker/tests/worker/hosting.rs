//! Workers that keep models for pay: real files and sockets, the real rules of the ledger, in memory.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::memory::{CREDIT, MemoryLedger, wallet};
use alloy_primitives::{Address, B256, U256};
use surety_blobs::{HoldLimits, Shelf, View};
use surety_client::channel::ModuleCall;
use surety_types::{
    Canonical as _, Digest, ModelId, Price, SecretKey,
    abi::{IHosting, Module},
};
use surety_worker::{
    WorkerLedger,
    load::{ModelFile, ModelPlace},
    money::{Claims, Hosted, HostingPolicy, HostingSettings, Room},
    serve::{self, ModelSettings, RunningWorker, Sharing, WorkerSettings},
    store::Store,
};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf");
const TIME: Duration = Duration::from_secs(60);
const ONE: u64 = 1;
const TWO: u64 = 2;
const FUNDER: u64 = 5;

/// A worker's files: those it was given, and its store's.
struct Files {
    given: Vec<PathBuf>,
    store: Store,
}

impl Shelf for Files {
    fn paths(&self, digest: Digest) -> Vec<PathBuf> {
        let stored = self.store.list().unwrap_or_default().into_iter();
        let stored = stored.filter(|entry| entry.blake3 == digest).map(|entry| entry.path);
        let of = |path: &&PathBuf| std::fs::read(path).is_ok_and(|bytes| digest_of(&bytes) == digest);
        self.given.iter().filter(of).cloned().chain(stored).collect()
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// What a test tells a worker.
struct Settings<'a> {
    folder: &'a Path,
    operator: u64,
    models: &'a [(&'a str, PathBuf)],
    policy: HostingPolicy,
    room: u64,
}

impl Settings<'_> {
    fn store(&self) -> Store {
        Store::new(self.folder)
    }

    async fn start(&self, ledger: &MemoryLedger) -> RunningWorker {
        let given = self.models.iter().map(|(_, path)| path.clone()).collect();
        let models = self.models.iter().map(|(name, path)| {
            let blake3 = digest_of(&std::fs::read(path).unwrap());
            ModelSettings {
                name: (*name).to_owned(),
                file: ModelFile { place: ModelPlace::File(path.clone()), blake3 },
            }
        });
        let models: Vec<_> = models.collect();
        let view = || {
            let files = Files { given: Vec::clone(&given), store: self.store() };
            View::new(files, self.folder.join("trees"))
        };
        let settings = || WorkerSettings {
            key: SecretKey::from_bytes(&[self.operator as u8; 32]),
            listen: "127.0.0.1:0".parse().unwrap(),
            relays: Vec::new(),
            paused: false,
            models: models.clone(),
            upstreams: Vec::new(),
            cache: None,
            backend: None,
            threads: NonZeroUsize::new(1),
            context_tokens: None,
            kv_bytes: Some(64 << 20),
            region: None,
            ledger: Some(WorkerLedger {
                account: ledger.account(self.operator),
                bond: U256::from(20 * CREDIT),
                price: Price::ZERO,
                batch_price: Price::ZERO,
                name: "Acme".into(),
                folder: self.folder.join("money"),
                endpoint: None,
                claims: Claims::default(),
                hosting: HostingSettings {
                    policy: self.policy,
                    room: (self.room > 0).then(|| Room { bytes_max: self.room, store: self.store() }),
                },
            }),
            sharing: Some(Sharing { view: view(), limits: HoldLimits::default() }),
            lie: None,
        };
        // The one before may still be letting go of its book.
        for _ in 0..500 {
            match serve::start(settings(), |_| {}).await {
                Ok(worker) => {
                    let mut duties = worker.duties().unwrap();
                    let state = duties.wait_for(|state| state.registered);
                    tokio::time::timeout(TIME, state).await.expect("registered in time").unwrap();
                    return worker;
                }
                Err(serve::StartError::Book(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the book stays in use");
    }
}

fn operator(number: u64) -> Address {
    wallet(number).address()
}

fn word(model: ModelId) -> B256 {
    B256::from(model.0.0)
}

/// Lists a model that a worker serves, and gives for its hosting.
async fn fund(ledger: &MemoryLedger, worker: &RunningWorker, model: ModelId, credits: u128) {
    let served = worker.control().status().models;
    let manifest = served.into_iter().find(|served| served.id == model).unwrap().manifest;
    let list = IHosting::listCall { manifest: manifest.to_cbor().into() };
    let fund = IHosting::fundCall { model: word(model) };
    let fund = ModuleCall::paying(Module::Hosting, &fund, U256::from(credits * CREDIT));
    ledger.account(FUNDER).send(vec![ModuleCall::new(Module::Hosting, &list), fund]).await.unwrap();
}

fn pin(ledger: &MemoryLedger, model: ModelId, number: u64) -> IHosting::Pin {
    ledger.view(Module::Hosting, &IHosting::pinOfCall { model: word(model), operator: operator(number) })
}

/// Waits until a worker tells this of a model.
async fn told(worker: &RunningWorker, model: ModelId, what: &str, is: impl Fn(&Hosted) -> bool) -> Hosted {
    let mut hosted = worker.hosted().unwrap();
    let found = hosted.wait_for(|all| all.iter().any(|one| one.model == model && is(one)));
    let found = tokio::time::timeout(TIME, found).await.map(|found| found.unwrap().clone());
    let found = found.unwrap_or_else(|_| panic!("{what}: {:?}", worker.hosted().unwrap().borrow().clone()));
    found.into_iter().find(|one| one.model == model).unwrap()
}

fn random_model(folder: &Path) -> PathBuf {
    let path = folder.join("random.gguf");
    let bytes = xtask::random_model::bytes(&xtask::random_model::Settings {
        shape: xtask::random_model::Shape::TinyLlama,
        format: xtask::random_model::Format::Q8_0,
        seed: 7,
    });
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_paid_for_is_pinned_proven_in_every_epoch_and_what_was_missed_is_said() {
    let (ledger, folder) = (MemoryLedger::new(), tempfile::tempdir().unwrap());
    let models = [("demo", PathBuf::from(MODEL))];
    let settings = Settings {
        folder: folder.path(),
        operator: ONE,
        models: &models,
        policy: HostingPolicy::Paid,
        room: 0,
    };
    let worker = settings.start(&ledger).await;
    let model = worker.models()[0].id;
    let unpaid = told(&worker, model, "looked at", |one| one.doing.contains("nobody has given")).await;
    assert!(!unpaid.pinned);

    fund(&ledger, &worker, model, 900).await;
    ledger.next_epoch();
    let pinned = told(&worker, model, "pinned", |one| one.pinned).await;
    let since = ledger.epoch();
    assert_eq!((pinned.pins, pinned.wanted, pinned.proven), (1, 3, 0));
    assert_eq!(pin(&ledger, model, ONE).since, since);
    ledger.next_epoch();
    let proven = told(&worker, model, "proven", |one| one.proven == 1).await;
    assert_eq!((proven.last_proven, proven.missed), (Some(since + 1), 0));
    let part = U256::from(900 * CREDIT / 10_000 / 3);
    let earned = worker.control().earnings().unwrap().unwrap().proven;
    let [row] = earned[..] else { panic!("one model, one day: {earned:?}") };
    assert_eq!((row.model, row.proofs, U256::from(row.wei)), (model, 1, part));
    // What it reckons a proof to cost is a little more than it costs.
    let gas = U256::from(row.gas_wei);
    assert!(gas <= proven.cost_wei && gas > proven.cost_wei * U256::from(9) / U256::from(10), "{row:?}");

    // Through an epoch nobody reaches the ledger: missed, and said. The next is proven.
    ledger.set_away(true);
    ledger.next_epoch();
    ledger.next_epoch();
    ledger.set_away(false);
    let late = told(&worker, model, "proven again", |one| one.proven == 2 && one.missed == 1).await;
    assert_eq!(late.last_proven, Some(since + 3));
    assert_eq!((pin(&ledger, model, ONE).proven, pin(&ledger, model, ONE).missed), (2, 1));

    // Another process goes on where this one stopped.
    worker.shutdown(TIME).await;
    ledger.next_epoch();
    let worker = settings.start(&ledger).await;
    told(&worker, model, "proven by the next process", |one| one.proven == 3).await;
    assert_eq!(pin(&ledger, model, ONE).since, since);
    assert_eq!(worker.control().earnings().unwrap().unwrap().proven[0].proofs, 3);
    // Who leaves for good takes its pin along.
    assert_eq!(worker.retire(TIME).await, None);
    let left = pin(&ledger, model, ONE);
    assert_eq!((left.worker, left.proven, left.missed), (B256::ZERO, 3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_too_few_keep_is_fetched_within_the_room_and_let_go_when_its_file_is_lost() {
    let (ledger, folders) =
        (MemoryLedger::new(), [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
    let path = random_model(folders[0].path());
    let bytes = std::fs::metadata(&path).unwrap().len();
    let demo = ("demo", PathBuf::from(MODEL));
    let (both, one) = ([demo.clone(), ("random", path.clone())], [demo]);
    let (policy, room) = (HostingPolicy::Off, 0);
    let holder = Settings { folder: folders[0].path(), operator: ONE, models: &both, policy, room };
    let holder = holder.start(&ledger).await;
    let digest = digest_of(&std::fs::read(&path).unwrap());
    let models = holder.models();
    let model =
        models.iter().find(|model| model.file.as_ref().is_some_and(|file| file.blake3 == digest)).unwrap().id;
    fund(&ledger, &holder, model, 900).await;

    // A byte too little room, then enough.
    let keeper = |room| Settings {
        folder: folders[1].path(),
        operator: TWO,
        models: &one,
        policy: HostingPolicy::Paid,
        room,
    };
    let worker = keeper(bytes - 1).start(&ledger).await;
    told(&worker, models.iter().find(|other| other.id != model).unwrap().id, "looked at", |_| true).await;
    ledger.next_epoch();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(worker.hosted().unwrap().borrow().len(), 1);
    worker.shutdown(TIME).await;
    let worker = keeper(bytes).start(&ledger).await;
    let kept = told(&worker, model, "fetched and pinned", |one| one.pinned).await;
    assert!(kept.fetched && !worker.models().iter().any(|served| served.id == model));
    let entry = keeper(bytes).store().list().unwrap().remove(0);
    assert!(entry.pinned && std::fs::read(&entry.path).unwrap() == std::fs::read(&path).unwrap());
    ledger.next_epoch();
    told(&worker, model, "proven", |one| one.proven == 1).await;
    assert_eq!(pin(&ledger, model, ONE).worker, B256::ZERO, "who has hosting off pins nothing");

    // A file that was spoiled is not pinned any longer than that is seen.
    let mut spoiled = std::fs::read(&entry.path).unwrap();
    spoiled.truncate(1_000);
    std::fs::write(&entry.path, spoiled).unwrap();
    ledger.next_epoch();
    told(&worker, model, "taken back", |one| !one.pinned && one.doing.contains("taken back")).await;
    let left = pin(&ledger, model, TWO);
    assert_eq!((left.worker, left.proven, left.missed), (B256::ZERO, 1, 1));
}
