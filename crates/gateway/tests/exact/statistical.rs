//! Workers that name the model which their upstreams run: gateways compare, and find another model over many answers.
//!
//! Every upstream is a network of its own: a worker with some model, and a gateway that serves it as OpenAI's clients expect.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use surety_engine::gguf::Gguf;
use surety_gateway::{Gateway, GatewaySettings, RunningGateway};
use surety_types::{Digest, Dossier, ModelId, Signed, StatedEvent, Statement, What};
use surety_worker::{
    load::{ModelFile, ModelPlace},
    serve::{self, Lie, ModelSettings, RunningWorker, UpstreamSettings, WorkerSettings},
};

use super::{FILE, MODEL, exchange, worker};

const FRONTED: &str = "vendor";

/// What an upstream runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Runs {
    /// The model that its operator names.
    It,
    /// It, at a temperature of 0.5 more.
    Hotter,
    /// It, without its second half.
    Smaller,
    /// It, with so many bits of each weight.
    Bits(u32),
}

impl Runs {
    /// A file that holds it.
    fn file(self, folder: &Path) -> Option<PathBuf> {
        let mut file = std::fs::read(FILE).unwrap();
        match self {
            Runs::It | Runs::Hotter => return None,
            Runs::Smaller => {
                for layer in 3..6 {
                    for part in ["attn_output", "ffn_down"] {
                        let name = format!("blk.{layer}.{part}.weight");
                        let range = Gguf::parse(&file).unwrap().tensor(&name).unwrap().range.clone();
                        file[range].fill(0);
                    }
                }
            }
            Runs::Bits(bits) => {
                let parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
                for (layer, part) in (0..6).flat_map(|layer| parts.map(|part| (layer, part))) {
                    let name = format!("blk.{layer}.{part}.weight");
                    let range = Gguf::parse(&file).unwrap().tensor(&name).unwrap().range.clone();
                    // Q8_0: two bytes of scale, thirty-two weights.
                    for weight in file[range].chunks_exact_mut(34).flat_map(|block| &mut block[2..]) {
                        let step = 1 << (8 - bits);
                        let rounded = (i32::from(weight.cast_signed()) + step / 2).div_euclid(step) * step;
                        *weight = (rounded.clamp(-128, 127) as i8).cast_unsigned();
                    }
                }
            }
        }
        let path = folder.join("other.gguf");
        std::fs::write(&path, file).unwrap();
        Some(path)
    }
}

/// A gateway of ours before a worker with the model, and one that fronts somebody else's network.
struct Site {
    folder: tempfile::TempDir,
    theirs: RunningWorker,
    upstream: RunningGateway,
    external: RunningWorker,
    exact: Option<RunningWorker>,
    ours: RunningGateway,
    one_in: u32,
}

async fn gateway(folder: &Path, workers: &[&RunningWorker], one_in: u32) -> RunningGateway {
    let mut settings = GatewaySettings::new("127.0.0.1:0".parse().unwrap(), folder.to_owned());
    settings.workers = workers.iter().map(|worker| worker.address()).collect();
    // A slow machine is no silent worker.
    settings.limits.stall_timeout = Duration::from_secs(60);
    settings.limits.compare_one_in = one_in;
    let gateway = Gateway::start(settings).await.unwrap();
    loop {
        let status = get(gateway.address(), "/v1/network/status").await;
        let ready = |worker: &&Value| worker["state"] == "ready";
        if status["workers"].as_array().unwrap().iter().filter(ready).count() == workers.len() {
            return gateway;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn get(address: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&exchange(address, "GET", path, "").await.1).unwrap()
}

/// The id of the model that the repository bundles.
async fn bundled_id(folder: &Path) -> ModelId {
    let exact = serve::start(worker(folder, 9), |_| {}).await.unwrap();
    let id = exact.models()[0].id;
    exact.shutdown(Duration::ZERO).await;
    id
}

impl Site {
    /// `claims`: none for the bundled model's id.
    async fn start(runs: Runs, claims: Option<ModelId>, is_served: bool, one_in: u32) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let lie = (runs == Runs::Hotter).then_some(Lie::Temperature);
        let mut settings = WorkerSettings { lie, ..worker(folder.path(), 1) };
        if let Some(path) = runs.file(folder.path()) {
            let blake3 = Digest(*blake3::hash(&std::fs::read(&path).unwrap()).as_bytes());
            let file = ModelFile { place: ModelPlace::File(path), blake3 };
            settings.models = vec![ModelSettings { name: MODEL.into(), file }];
        }
        let theirs = serve::start(settings, |_| {}).await.unwrap();
        let upstream = gateway(&folder.path().join("theirs"), &[&theirs], 0).await;
        let claims = match claims {
            Some(claims) => claims,
            None => bundled_id(folder.path()).await,
        };
        let fronted = UpstreamSettings {
            name: FRONTED.into(),
            url: format!("http://{}/v1", upstream.address()),
            model: MODEL.into(),
            answers_as: None,
            claims: Some(claims),
            key: None,
            context_tokens: None,
            takes: Vec::new(),
            orders_max: 8,
            patience: Duration::from_secs(60),
        };
        let settings =
            WorkerSettings { models: Vec::new(), upstreams: vec![fronted], ..worker(folder.path(), 2) };
        let external = serve::start(settings, |_| {}).await.unwrap();
        let exact = match is_served {
            true => Some(serve::start(worker(folder.path(), 3), |_| {}).await.unwrap()),
            false => None,
        };
        let workers: Vec<&RunningWorker> = [&external].into_iter().chain(&exact).collect();
        let ours = gateway(&folder.path().join("ours"), &workers, one_in).await;
        Site { folder, theirs, upstream, external, exact, ours, one_in }
    }

    fn address(&self) -> SocketAddr {
        self.ours.address()
    }

    /// Our gateway, ended and begun again.
    async fn restarted(self) -> Site {
        let Site { folder, theirs, upstream, external, exact, ours, one_in } = self;
        ours.stop().await;
        let workers: Vec<&RunningWorker> = [&external].into_iter().chain(&exact).collect();
        let ours = gateway(&folder.path().join("ours"), &workers, one_in).await;
        Site { folder, theirs, upstream, external, exact, ours, one_in }
    }

    async fn stop(self) {
        self.ours.stop().await;
        self.external.shutdown(Duration::ZERO).await;
        if let Some(exact) = self.exact {
            exact.shutdown(Duration::ZERO).await;
        }
        self.upstream.stop().await;
        self.theirs.shutdown(Duration::ZERO).await;
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Value> {
        let (good, said) = exchange(self.address(), "POST", path, &body.to_string()).await;
        let said = serde_json::from_str(&said).unwrap();
        if good { Ok(said) } else { Err(said) }
    }

    /// What our gateway knows of the worker by comparing.
    async fn comparison(&self) -> Value {
        let status = get(self.address(), "/v1/network/status").await;
        let key = self.external.address().key.to_string();
        let workers = status["workers"].as_array().unwrap();
        workers.iter().find(|worker| worker["id"] == key).unwrap()["comparisons"][0].clone()
    }

    /// Asks this many questions, one after the other, each compared before the next; what is known then. Ends early when the worker
    /// is found to differ.
    async fn ask(&self, from: usize, count: usize) -> Value {
        let mut known = self.comparison().await;
        for index in from..from + count {
            let before =
                known["compared"].as_u64().unwrap_or(0) + known["not_compared"].as_u64().unwrap_or(0);
            let (path, body) = question(index);
            self.post(path, &body).await.unwrap();
            loop {
                known = self.comparison().await;
                let after =
                    known["compared"].as_u64().unwrap_or(0) + known["not_compared"].as_u64().unwrap_or(0);
                if after > before {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if !known["differs_since_ms"].is_null() {
                break;
            }
        }
        known
    }

    async fn tier(&self) -> Value {
        let models = get(self.address(), "/v1/models").await;
        let models = models["data"].as_array().unwrap();
        models.iter().find(|model| model["id"] == FRONTED).unwrap()["surety"].clone()
    }
}

/// Questions as people ask them: texts and conversations, at several temperatures, one in four at 0.
fn question(index: usize) -> (&'static str, Value) {
    const WORDS: [&str; 8] =
        ["who", "goes", "there", "speak", "of the king", "at night", "my lord", "and mercy"];
    let words = (0..2 + index % 5).map(|word| WORDS[(index * 7 + word * 3 + index / 8) % WORDS.len()]);
    let text = words.collect::<Vec<_>>().join(" ");
    let temperature = [0.8, 1.0, 0.0, 0.6][index % 4];
    let mut body = json!({"model": FRONTED, "max_tokens": 24, "temperature": temperature});
    if index.is_multiple_of(3) {
        body["prompt"] = json!(text);
        return ("/v1/completions", body);
    }
    body["messages"] = json!([{"role": "user", "content": text}]);
    ("/v1/chat/completions", body)
}

/// What the request's story says of comparisons.
async fn compared(site: &Site, request: &str) -> Vec<StatedEvent> {
    let path = format!("/v1/requests/{request}/explanation");
    let (good, kept) = exchange(site.address(), "GET", &path, "").await;
    assert!(good, "{kept}");
    let dossier = Dossier::parse(kept.as_bytes()).unwrap();
    let statement = Signed::<Statement>::open(dossier.statement.as_deref().unwrap()).unwrap();
    statement.events.iter().filter(|event| event.what == What::Compared).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_upstream_is_statistical_and_stays_so() {
    let site = Site::start(Runs::It, None, true, 1).await;
    let exact = site.exact.as_ref().unwrap();
    let (id, key) = (exact.models()[0].id.to_string(), exact.address().key);
    let listed = site.tier().await;
    assert_eq!((&listed["tier"], &listed["claims"]["model"]), (&json!("statistical"), &json!(id)));
    assert_eq!((&listed["claims"]["is_served"], &listed["claims"]["compared"]), (&json!(true), &json!(0)));
    for words in ["the operator's upstream sees the text", "nothing is shown of one", &id] {
        assert!(listed["note"].as_str().unwrap().contains(words), "{listed}");
    }

    // One answer, and its story.
    let (path, mut body) = question(0);
    body["provider"] = json!({"verification": "statistical"});
    let first = site.post(path, &body).await.unwrap();
    let note = &first["surety"];
    assert_eq!((&note["tier"], &note["verification"]), (&json!("statistical"), &json!("not-requested")));
    assert!(note["note"].as_str().unwrap().contains("the operator's upstream sees the text"), "{note}");
    let request = note["request_id"].as_str().unwrap();
    let events = loop {
        let events = compared(&site, request).await;
        if !events.is_empty() {
            break events;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((events.len(), events[0].worker), (1, Some(key)));
    assert!(
        events[0].tokens > 0 && events[0].why.as_str().contains("one answer alone shows little"),
        "{events:?}"
    );

    let known = site.ask(1, 40).await;
    assert_eq!((&known["compared"], &known["not_compared"]), (&json!(41), &json!(0)), "{known}");
    assert!(known["against"].as_f64().unwrap() < 1_000.0 && known["differs_since_ms"].is_null(), "{known}");

    // Before its end: held until it was compared, and said so.
    for (path, mut body) in [question(1), question(2)] {
        body["model"] = json!(format!("{FRONTED}:verified"));
        let held = site.post(path, &body).await.unwrap();
        let note = &held["surety"];
        assert_eq!(
            (&note["verification"], &note["checked_by"]),
            (&json!("passed"), &json!([key.to_string()]))
        );
        assert!(note["checked"].to_string().contains("one alone shows little"), "{note}");
        assert_eq!(note["cost"], "0");
        assert_eq!(compared(&site, note["request_id"].as_str().unwrap()).await.len(), 1);
        body["stream"] = json!(true);
        let (good, streamed) = exchange(site.address(), "POST", path, &body.to_string()).await;
        assert!(
            good && streamed.contains("\"verification\":\"passed\"") && streamed.contains("[DONE]"),
            "{streamed}"
        );
    }
    // Whoever wants nobody else to see the text is not compared unasked.
    let before = site.comparison().await;
    for provider in [
        json!({"disclosure": "deny"}),
        json!({"allow_fallbacks": false}),
        json!({"only": [site.external.address().key.to_string()]}),
    ] {
        let (path, mut body) = question(4);
        body["provider"] = provider;
        site.post(path, &body).await.unwrap();
    }
    // More than statistical it is not.
    let (path, mut body) = question(0);
    body["provider"] = json!({"verification": "exact"});
    let refused = site.post(path, &body).await.unwrap_err();
    assert_eq!(refused["error"]["code"], "no_worker", "{refused}");
    let site = site.restarted().await;
    let after = site.comparison().await;
    assert_eq!(after["compared"], before["compared"], "{after}");
    assert!(after["not_compared"].as_u64().unwrap() <= 1, "{after}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_runs_another_model_is_found_and_no_longer_of_the_tier() {
    let site = Site::start(Runs::Smaller, None, true, 1).await;
    let known = site.ask(0, 120).await;
    assert!(!known["differs_since_ms"].is_null(), "{known}");
    let site = site.restarted().await;
    assert_eq!(site.comparison().await, known);
    let listed = site.tier().await;
    assert_eq!(
        (&listed["tier"], &listed["claims"]["workers_differing"]),
        (&json!("signed"), &json!(1)),
        "{listed}"
    );
    // It is asked all the same by who wants no tier, and labelled for what it is.
    let (path, body) = question(0);
    let given = site.post(path, &body).await.unwrap();
    assert_eq!(given["surety"]["tier"], "signed");
    assert!(given["surety"]["note"].as_str().unwrap().contains("found to be another's"), "{given}");
    // Who wants the tier, or a check, is given nothing of it.
    for change in [json!({"provider": {"verification": "statistical"}}), json!({"model": "vendor:verified"})]
    {
        let mut body = body.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = site.post(path, &body).await.unwrap_err();
        assert_eq!(refused["error"]["code"], "no_worker", "{refused}");
        assert!(refused["error"].to_string().contains("provider.verification"), "{refused}");
    }
    // Nothing more is compared.
    assert_eq!(site.comparison().await, known);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_nobody_can_check_is_no_tier() {
    let unknown = ModelId(Digest([7; 32]));
    let site = Site::start(Runs::It, Some(unknown), true, 1).await;
    let listed = site.tier().await;
    assert_eq!((&listed["tier"], &listed["claims"]["is_served"]), (&json!("signed"), &json!(false)));
    for words in [unknown.to_string().as_str(), "no worker serves that exactly here"] {
        assert!(listed["note"].as_str().unwrap().contains(words), "{listed}");
    }
    let (path, mut body) = question(0);
    let given = site.post(path, &body).await.unwrap();
    assert_eq!(
        (&given["surety"]["tier"], &given["surety"]["verification"]),
        (&json!("signed"), &json!("not-requested"))
    );
    body["provider"] = json!({"verification": "statistical"});
    let refused = site.post(path, &body).await.unwrap_err();
    assert_eq!(refused["error"]["code"], "no_worker", "{refused}");
    body["provider"] = json!({"verification_mode": "before"});
    let refused = site.post(path, &body).await.unwrap_err();
    assert_eq!(refused["error"]["code"], "unsupported_parameter", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains(&unknown.to_string()), "{refused}");
    assert_eq!(site.comparison().await, Value::Null);
    site.stop().await;

    // Nor one that could be, were anybody there.
    let site = Site::start(Runs::It, None, false, 1).await;
    assert_eq!(site.tier().await["tier"], "signed");
    site.stop().await;
}

/// The figures of `docs/operating/upstreams.md`. Takes minutes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure_false_alarms_and_how_soon_another_model_is_found() {
    for (runs, most) in [
        (Runs::It, 1_000),
        (Runs::Hotter, 1_000),
        (Runs::Smaller, 1_000),
        (Runs::Bits(2), 1_000),
        (Runs::Bits(3), 1_000),
        (Runs::Bits(4), 1_000),
    ] {
        let site = Site::start(runs, None, true, 1).await;
        let mut highest = 0.0f64;
        let mut asked = 0;
        let known = loop {
            let known = site.ask(asked, 1).await;
            asked += 1;
            highest = highest.max(known["against"].as_f64().unwrap_or(1.0));
            if asked == most || !known["differs_since_ms"].is_null() {
                break known;
            }
        };
        println!("{runs:?}: asked {asked}, highest {highest:.2}, {known}");
        assert!(runs != Runs::It || known["differs_since_ms"].is_null(), "an honest upstream is accused");
        site.stop().await;
    }
}
