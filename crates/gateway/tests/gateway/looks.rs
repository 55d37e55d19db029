//! What can be seen without asking a model.

use alloy_primitives::U256;
use serde_json::json;
use surety_chain::{Genesis, GenesisValidator, Params};
use surety_client::ledger::{Ledger, LedgerSettings};
use surety_gateway::GatewayLedger;
use surety_types::SecretKey;

use crate::{
    fake::{CONTEXT, FakeWorker, manifest, model},
    http::Site,
    memory::{MemoryLedger, wallet},
    pays::paying,
};

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_by_name() {
    let (tiny, other) = (manifest("tiny", true), manifest("other", false));
    let worker = FakeWorker::serving(1, vec![model("tiny", tiny.clone()), model("owner/other", other)]).await;
    let site = Site::with(&[&worker], |settings| {
        settings.aliases = [("gpt-4o".to_owned(), "tiny".to_owned())].into();
    })
    .await;
    site.until_ready(1).await;
    let list = site.get("/v1/models").await.json();
    assert_eq!(list["object"], "list");
    let names: Vec<&str> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|model| model["id"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["gpt-4o", "owner/other", "tiny"]);
    let found = site.get("/v1/models/tiny").await.json();
    assert_eq!(found, list["data"][2]);
    assert_eq!((&found["object"], &found["owned_by"]), (&json!("model"), &json!("surety")));
    assert!(found["created"].is_u64());
    assert_eq!(found["context_length"], CONTEXT);
    assert_eq!(found["surety"]["id"], tiny.id().to_string());
    assert_eq!(found["surety"]["workers_ready"], 1);
    assert_eq!(site.get("/v1/models/owner/other").await.json()["surety"]["chat"], false);
    assert_eq!(site.get("/v1/models/owner%2Fother").await.json()["id"], "owner/other");
    assert_eq!(
        site.get(&format!("/v1/models/{}", tiny.id())).await.json()["surety"]["id"],
        tiny.id().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_shown_as_they_are() {
    let worker = FakeWorker::start(1).await;
    let gone = FakeWorker::start(2).await;
    let site = Site::start(&[&worker, &gone]).await;
    gone.leave().await;
    worker.set(|status| status.active_requests = 3);
    site.until(|status| {
        status["workers"][1]["state"] == "unreachable" && status["workers"][0]["active_requests"] == 3
    })
    .await;
    let status = site.get("/v1/network/status").await.json();
    let first = &status["workers"][0];
    assert_eq!((&first["id"], &first["state"]), (&json!(worker.key()), &json!("ready")));
    assert_eq!(first["address"], worker.address.location.to_string());
    assert_eq!(first["models"][0]["names"], json!(["tiny"]));
    assert_eq!(first["models"][0]["decode_tokens_per_second"], 100);
    assert!(status["workers"][1]["reason"].is_string());
    assert_eq!(status["gateway"], site.gateway.key().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_found_nearby_is_used_while_it_is_found_and_who_is_named_stays() {
    let (named, near, moved) =
        (FakeWorker::start(1).await, FakeWorker::start(2).await, FakeWorker::start(2).await);
    let mut far = FakeWorker::start(3).await.address;
    // Nobody is made to call an address of no machine.
    far.location = "0.0.0.0:7".parse().expect("an address");
    let (found, nearby) = tokio::sync::watch::channel(vec![named.address, near.address, far]);
    let site = Site::with(&[&named], |settings| settings.nearby = Some(nearby)).await;
    let shows = async |workers: &[&FakeWorker]| {
        let addresses: Vec<_> = workers.iter().map(|worker| worker.address.location.to_string()).collect();
        site.until(|status| {
            let shown = status["workers"].as_array().expect("workers");
            let ready = shown.iter().filter(|worker| worker["state"] == "ready");
            let ready: Vec<&str> =
                ready.map(|worker| worker["address"].as_str().expect("an address")).collect();
            shown.len() == addresses.len() && ready == addresses
        })
        .await;
    };
    shows(&[&named, &near]).await;
    // The same key at another place, then nowhere.
    found.send_replace(vec![moved.address]);
    shows(&[&named, &moved]).await;
    found.send_replace(Vec::new());
    shows(&[&named]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_description_and_welcome() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    assert_eq!(site.get("/health").await.json(), json!({"status": "ok"}));
    assert_eq!(site.get("/ready").await.json(), json!({"status": "ready"}));
    let description = site.get("/openapi.json").await.json();
    assert!(description["paths"]["/v1/chat/completions"]["post"].is_object());
    let welcome = site.get("/").await;
    assert!(welcome.text().contains(&format!("http://{}/v1", site.address)), "{}", welcome.text());
    assert_eq!(welcome.header("x-content-type-options"), Some("nosniff"));
}

/// Paths that two protocols share answer in either's shape, and the description says both.
#[tokio::test(flavor = "multi_thread")]
async fn shared_paths_are_described_with_every_shape_they_answer_in() {
    let worker = FakeWorker::start(1).await;
    let site = Site::start(&[&worker]).await;
    let described = site.get("/openapi.json").await.json();
    let shapes = |path: &str, status: &str| -> Vec<String> {
        let content = &described["paths"][path]["get"]["responses"][status]["content"]["application/json"];
        let name = content["schema"]["$ref"].as_str().expect("a shape").rsplit('/').next().expect("a name");
        let either = described["components"]["schemas"][name]["oneOf"].as_array().expect("several");
        either.iter().map(|one| one["$ref"].as_str().expect("a shape").to_owned()).collect()
    };
    for (path, good) in
        [("/v1/models", ["ModelList", "ModelPage"]), ("/v1/models/{id}", ["Model", "ModelInfo"])]
    {
        for (status, expected) in [("200", good), ("4XX", ["ErrorBody", "MessageErrorBody"])] {
            assert_eq!(
                shapes(path, status),
                expected.map(|name| format!("#/components/schemas/{name}")),
                "{path}"
            );
        }
    }
    let bad = site.get("/v1/receipts/req_00000000000000000000000000000001?choice=-1").await;
    assert_eq!(bad.status / 100, 4);
    assert!(described["paths"]["/v1/receipts/{id}"]["get"]["responses"]["4XX"].is_object());
}

/// Pages about the ledger, where there is none, and where it cannot be reached: each says which.
#[tokio::test(flavor = "multi_thread")]
async fn pages_about_a_ledger_that_is_not_there_say_so() {
    let pages = ["powers", "economics", "governance"].map(|page| format!("/v1/network/{page}"));
    let without = Site::with(&[], |_| {}).await;
    let (memory, genesis) = (MemoryLedger::new(), a_genesis());
    let settings = LedgerSettings { genesis, rpc_urls: vec!["http://127.0.0.1:1".to_owned()] };
    let unreachable =
        GatewayLedger { ledger: Some(Ledger::new(settings).expect("a ledger")), ..paying(&memory, 1) };
    let unreachable = Site::with(&[], |settings| settings.ledger = Some(unreachable)).await;
    for page in &pages {
        for (site, status, code, words) in [
            (&without, 404, "no_ledger", "uses no ledger"),
            (&unreachable, 503, "ledger_unavailable", "127.0.0.1:1: it cannot be reached"),
        ] {
            let refused = site.get(page).await;
            let error = refused.error();
            assert_eq!((refused.status, error["code"].as_str()), (status, Some(code)), "{page}");
            assert!(error["message"].as_str().expect("words").contains(words), "{error}");
        }
    }
}

fn a_genesis() -> Genesis {
    Genesis {
        chain_id: 7,
        timestamp_ms: 1_700_000_000_000,
        epoch_blocks: 20,
        balances: Vec::new(),
        validators: vec![GenesisValidator {
            key: SecretKey::from_bytes(&[99; 32]).public(),
            operator: wallet(1).address(),
            stake: U256::from(10_000_000_000_000_000_000_000_u128),
        }],
        origin: None,
        params: Params::default(),
    }
}
