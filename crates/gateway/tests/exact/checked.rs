//! `:verified` with real workers: honest ones agree to the bit, and each lie that a worker tells is found before it is told.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};
use surety_gateway::{Gateway, GatewaySettings, RunningGateway};
use surety_proof::{Check, Expected, check_evidence};
use surety_types::{Evidence, PublicKey};
use surety_worker::serve::{self, LIES, Lie, WorkerSettings};

use crate::{MODEL, answer, exchange, worker};

/// Two workers of which one may lie, and a gateway before them.
struct Network {
    gateway: RunningGateway,
    workers: Vec<serve::RunningWorker>,
}

impl Network {
    async fn start(folder: &Path, lies: &[Option<Lie>]) -> Network {
        let mut workers = Vec::new();
        for (seed, lie) in (1..).zip(lies) {
            let settings = WorkerSettings { lie: lie.clone(), ..worker(folder, seed) };
            workers.push(serve::start(settings, |_| {}).await.unwrap());
        }
        let mut settings = GatewaySettings::new("127.0.0.1:0".parse().unwrap(), folder.join("gateway"));
        settings.workers = workers.iter().map(|worker| worker.address()).collect();
        // A slow machine is no silent worker.
        settings.limits.stall_timeout = Duration::from_secs(60);
        let gateway = Gateway::start(settings).await.unwrap();
        let network = Network { gateway, workers };
        loop {
            let (_, status) = exchange(network.address(), "GET", "/v1/network/status", "").await;
            let status: Value = serde_json::from_str(&status).unwrap();
            let ready = |worker: &&Value| worker["state"] == "ready";
            if status["workers"].as_array().unwrap().iter().filter(ready).count() == lies.len() {
                return network;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    fn key(&self, index: usize) -> PublicKey {
        self.workers[index].address().key
    }

    async fn stop(self) {
        self.gateway.stop().await;
        for worker in self.workers {
            worker.shutdown(Duration::ZERO).await;
        }
    }
}

/// With this seed, and with 5, the answer ends at its limit: one that ends early has been ended.
fn chat(first: PublicKey, max_tokens: u32) -> Value {
    json!({"model": format!("{MODEL}:verified"), "max_tokens": max_tokens, "temperature": 0.8, "seed": 3,
        "messages": [{"role": "user", "content": "Who goes there, and why at night?"}],
        "provider": {"order": [first.to_string()]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_workers_agree_and_the_evidence_says_who_checked() {
    let folder = tempfile::tempdir().unwrap();
    let network = Network::start(folder.path(), &[None, None]).await;
    for max_tokens in [1, 40] {
        let given =
            answer(network.address(), "/v1/chat/completions", &chat(network.key(0), max_tokens)).await;
        let note = &given["surety"];
        assert_eq!(note["verification"], "passed");
        assert_eq!(note["checked_by"], json!([network.key(1).to_string()]));
        let (good, kept) = exchange(network.address(), "GET", note["receipt"].as_str().unwrap(), "").await;
        assert!(good, "{kept}");
        let evidence = Evidence::parse(kept.as_bytes()).unwrap();
        let checked = check_evidence(&evidence, None, &Expected::default()).unwrap();
        assert!(checked.checked.contains(&Check::Repeated));
        // Each committed under its own key and salt: nobody has repeated what another computed.
        let [one, other] = &checked.answers[..] else { panic!("an answer and its check") };
        let commitment = |answer: &surety_proof::Checked| answer.receipt.as_ref().unwrap().state_commitment;
        assert_ne!(commitment(one), commitment(other));
    }
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_found_before_its_end_whoever_tells_it() {
    for name in LIES {
        for liar in [0, 1] {
            let folder = tempfile::tempdir().unwrap();
            let mut lies = [None, None];
            lies[liar] = Some(name.parse::<Lie>().unwrap());
            let network = Network::start(folder.path(), &lies).await;
            let mut body = chat(network.key(0), 40);
            if name == "replayed" {
                // What it gives again has to be there.
                answer(network.address(), "/v1/chat/completions", &body).await;
                body["seed"] = json!(5);
            }
            let body = body.to_string();
            let (good, text) = exchange(network.address(), "POST", "/v1/chat/completions", &body).await;
            assert!(!good, "{name} by {liar} was believed: {text}");
            let error: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(error["error"]["code"], "verification_failed", "{name} by {liar}: {text}");
            assert_eq!(error["error"]["metadata"]["accountable"], "unknown", "{name} by {liar}");
            network.stop().await;
        }
    }
}
