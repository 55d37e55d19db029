//! A network whose worker fronts another network: its gateway, its worker, and their gateway as the upstream.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use surety_gateway::{Gateway, GatewaySettings, RunningGateway};
use surety_proof::{Expected, Unchecked, check_evidence};
use surety_types::{Evidence, receipt::NO_ARITHMETIC};
use surety_worker::serve::{self, RunningWorker, UpstreamSettings, WorkerSettings};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{MODEL, answer, exchange, worker};

async fn gateway(folder: &std::path::Path, workers: &[&RunningWorker]) -> RunningGateway {
    let mut settings = GatewaySettings::new("127.0.0.1:0".parse().unwrap(), folder.to_owned());
    settings.workers = workers.iter().map(|worker| worker.address()).collect();
    settings.limits.stall_timeout = Duration::from_secs(60);
    let gateway = Gateway::start(settings).await.unwrap();
    while !exchange(gateway.address(), "GET", "/ready", "").await.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gateway
}

fn fronting(folder: &std::path::Path, seed: u8, name: &str, upstream: &RunningGateway) -> WorkerSettings {
    let upstream = UpstreamSettings {
        name: name.into(),
        url: format!("http://{}/v1", upstream.address()),
        model: MODEL.into(),
        answers_as: None,
        claims: None,
        key: None,
        context_tokens: None,
        takes: Vec::new(),
        orders_max: 8,
        patience: Duration::from_secs(60),
    };
    WorkerSettings { models: Vec::new(), upstreams: vec![upstream], ..worker(folder, seed) }
}

/// The data of a stream's events, the last being `[DONE]`.
fn events(body: &str) -> Vec<Value> {
    let data: Vec<&str> = body.lines().filter_map(|line| line.trim_end().strip_prefix("data: ")).collect();
    assert_eq!(data.last(), Some(&"[DONE]"), "{body}");
    data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

async fn evidence(gateway: &RunningGateway, note: &Value) -> Evidence {
    let (good, kept) = exchange(gateway.address(), "GET", note["receipt"].as_str().unwrap(), "").await;
    assert!(good, "{kept}");
    Evidence::parse(kept.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_fronts_another_network_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = serve::start(worker(folder.path(), 3), |_| {}).await.unwrap();
    let upstream = gateway(&folder.path().join("upstream"), &[&theirs]).await;
    let external = serve::start(fronting(folder.path(), 4, "vendor", &upstream), |_| {}).await.unwrap();
    let ours = gateway(&folder.path().join("ours"), &[&external]).await;
    let address = ours.address();

    // What is offered is called what it is, before it is asked.
    let (_, models) = exchange(address, "GET", "/v1/models", "").await;
    let models: Value = serde_json::from_str(&models).unwrap();
    let listed = &models["data"][0];
    assert_eq!((&listed["id"], &listed["surety"]["tier"]), (&json!("vendor"), &json!("signed")));
    assert!(listed["surety"]["note"].as_str().unwrap().contains("the operator's upstream sees the text"));
    let (_, models) = exchange(upstream.address(), "GET", "/v1/models", "").await;
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!(
        (&models["data"][0]["surety"]["tier"], &models["data"][0]["surety"]["note"]),
        (&json!("exact"), &Value::Null)
    );

    // The same text as asked of the upstream itself, by the same parameters.
    let body = |model: &str| json!({"model": model, "prompt": "Enter Hamlet", "max_tokens": 24, "temperature": 0.8, "seed": 7, "stop": ["zzz"]});
    let direct = answer(upstream.address(), "/v1/completions", &body(MODEL)).await;
    let fronted = answer(address, "/v1/completions", &body("vendor")).await;
    assert_eq!(fronted["choices"][0]["text"], direct["choices"][0]["text"]);
    assert_eq!(fronted["choices"][0]["finish_reason"], direct["choices"][0]["finish_reason"]);
    for count in ["prompt_tokens", "completion_tokens"] {
        assert_eq!(fronted["usage"][count], direct["usage"][count], "{count}");
    }
    let note = &fronted["surety"];
    assert_eq!((&note["tier"], &direct["surety"]["tier"]), (&json!("signed"), &json!("exact")));
    assert!(note["note"].as_str().unwrap().contains("the operator's upstream sees the text"), "{note}");
    let evidence_of = evidence(&ours, note).await;
    let checked = check_evidence(&evidence_of, None, &Expected::default()).unwrap();
    let receipt = checked.answers[0].receipt.as_ref().unwrap();
    assert_eq!((receipt.arithmetic, receipt.worker), (NO_ARITHMETIC, external.address().key));
    assert!(checked.answers[0].unchecked.contains(&Unchecked::Upstream));

    // A stream, with its usage and a stop string.
    let text = direct["choices"][0]["text"].as_str().unwrap();
    let stop = text.chars().skip(text.chars().count() / 2).take(3).collect::<String>();
    let mut body = body("vendor");
    (body["stream"], body["stop"], body["stream_options"]) =
        (json!(true), json!([stop]), json!({"include_usage": true}));
    let (good, streamed) = exchange(address, "POST", "/v1/completions", &body.to_string()).await;
    assert!(good, "{streamed}");
    let events = events(&streamed);
    let pieces = events.iter().filter_map(|event| event["choices"][0]["text"].as_str());
    assert_eq!(pieces.collect::<String>(), text.split(&stop).next().unwrap());
    assert!(events.iter().any(|event| event["choices"][0]["finish_reason"] == "stop"));
    assert!(events.last().unwrap()["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{streamed}");

    // A least tier is never undercut, and what an upstream would not keep to is refused by name.
    let refused_at = async |path: &str, mut body: Value, change: Value, code: &str, expected: &str| {
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (good, said) = exchange(address, "POST", path, &body.to_string()).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        assert!(!good && said["error"]["code"] == code, "{said}");
        assert!(said["error"].to_string().contains(expected), "{said}");
    };
    let chat =
        json!({"model": "vendor", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4});
    let refused = async |change: Value, code: &str, expected: &str| {
        refused_at("/v1/chat/completions", chat.clone(), change, code, expected).await;
    };
    for tier in ["exact", "statistical", "attested", "proved"] {
        refused(json!({"provider": {"verification": tier}}), "no_worker", "provider.verification").await;
    }
    refused(json!({"logprobs": true}), "unsupported_parameter", "logprobs").await;
    refused(json!({"response_format": {"type": "json_object"}}), "unsupported_parameter", "response_format")
        .await;
    refused(json!({"top_k": 5}), "invalid_param", "`top_k`").await;
    // What is refused is named as it was sent.
    let response = json!({"model": "vendor", "input": "Hello", "text": {"format": {"type": "json_object"}}});
    let named = "\"param\":\"text.format\"";
    refused_at("/v1/responses", response, json!({}), "unsupported_parameter", named).await;

    ours.stop().await;
    external.shutdown(Duration::ZERO).await;
    upstream.stop().await;
    theirs.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_means_what_can_be_computed_again_and_nobody_goes_on_with_an_upstreams_answer() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = serve::start(worker(folder.path(), 5), |_| {}).await.unwrap();
    let upstream = gateway(&folder.path().join("upstream"), &[&theirs]).await;
    // Under the name of the exact model.
    let external = serve::start(fronting(folder.path(), 6, MODEL, &upstream), |_| {}).await.unwrap();
    let exact = serve::start(worker(folder.path(), 7), |_| {}).await.unwrap();
    let ours = gateway(&folder.path().join("ours"), &[&external, &exact]).await;
    let address = ours.address();
    // Both are heard.
    loop {
        let (_, status) = exchange(address, "GET", "/v1/models", "").await;
        let models: Value = serde_json::from_str(&status).unwrap();
        if models["data"].as_array().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ask = |model: String| json!({"model": model, "prompt": "Enter Hamlet", "max_tokens": 4});
    for _ in 0..3 {
        let answered = answer(address, "/v1/completions", &ask(MODEL.into())).await;
        assert_eq!(answered["surety"]["tier"], "exact");
        assert_eq!(answered["surety"]["workers"][0], exact.address().key.to_string());
    }
    let (id, fronting) = (external.models()[0].id.0.to_string(), external.address().key.to_string());
    let pinned = answer(address, "/v1/completions", &ask(format!("{MODEL}@{}", &id[..12]))).await;
    assert_eq!(
        (&pinned["surety"]["tier"], &pinned["surety"]["workers"][0]),
        (&json!("signed"), &json!(fronting))
    );

    // The upstream goes: a signed failure, in the words of one who answers for it. No exact worker takes its place.
    upstream.stop().await;
    let body = ask(format!("{MODEL}@{}", &id[..12])).to_string();
    let (good, said) = exchange(address, "POST", "/v1/completions", &body).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(!good && said["error"]["code"] == "worker_bad_output", "{said}");
    assert!(
        said["error"]["message"].as_str().unwrap().contains("the operator's upstream cannot be reached"),
        "{said}"
    );
    assert_eq!(said["error"]["metadata"]["accountable"], "worker", "{said}");

    ours.stop().await;
    external.shutdown(Duration::ZERO).await;
    exact.shutdown(Duration::ZERO).await;
    theirs.shutdown(Duration::ZERO).await;
}

/// A server that answers each request for text with the next of these, and counts them.
async fn scripted(replies: Vec<String>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            // The body is one object, which ends with its brace.
            while !request.ends_with(b"\r\n\r\n") || !request.starts_with(b"GET") {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.unwrap_or(0);
                request.extend_from_slice(&piece[..read]);
                if read == 0 || request.ends_with(b"}") {
                    break;
                }
            }
            let reply = if request.starts_with(b"GET") {
                let list = r#"{"data":[{"id":"demo","context_length":512}]}"#;
                format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{list}",
                    list.len()
                )
            } else {
                replies[count.fetch_add(1, Ordering::SeqCst)].clone()
            };
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    (address, asked)
}

fn streaming(events: &[&str]) -> String {
    let events: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{events}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_is_replaced_before_the_first_word_and_never_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"choices":[{"text":"Some words. "}]}"#;
    let (upstream, asked) = scripted(vec![
        "HTTP/1.1 500 Oh\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
        streaming(&[text, r#"{"choices":[{"text":"","finish_reason":"stop"}]}"#, "[DONE]"]),
        streaming(&[text]),
    ])
    .await;
    let url = format!("http://{upstream}/v1");
    let mut workers = Vec::new();
    for seed in [8, 9] {
        let mut settings = worker(folder.path(), seed);
        settings.models = Vec::new();
        settings.upstreams = vec![UpstreamSettings {
            name: "vendor".into(),
            url: url.clone(),
            model: MODEL.into(),
            answers_as: None,
            claims: None,
            key: None,
            context_tokens: None,
            takes: Vec::new(),
            orders_max: 8,
            patience: Duration::from_secs(60),
        }];
        workers.push(serve::start(settings, |_| {}).await.unwrap());
    }
    let ours = gateway(&folder.path().join("ours"), &[&workers[0], &workers[1]]).await;
    let address = ours.address();
    let mut body = json!({"model": "vendor", "prompt": "Enter Hamlet", "max_tokens": 8});
    let whole = answer(address, "/v1/completions", &body).await;
    assert_eq!(
        (whole["choices"][0]["text"].as_str(), asked.load(Ordering::SeqCst)),
        (Some("Some words. "), 2)
    );
    assert_eq!(whole["surety"]["handovers"], 1, "{whole}");
    let kept = evidence(&ours, &whole["surety"]).await;
    let checked = check_evidence(&kept, None, &Expected::default()).unwrap();
    let failure = checked.answers[0].receipt.as_ref().unwrap().failure().unwrap();
    assert!(failure.1.contains("500"), "{failure:?}");
    assert!(checked.answers[1].is_by_word() && checked.answers[1].order.resumed.is_none());

    body["stream"] = json!(true);
    let (_, streamed) = exchange(address, "POST", "/v1/completions", &body.to_string()).await;
    assert!(streamed.contains("Some words. ") && !streamed.contains("[DONE]"), "{streamed}");
    let broke = streamed.lines().find(|line| line.contains("\"error\"")).expect("it says that it failed");
    assert!(broke.contains("worker_bad_output") && broke.contains("without saying why"), "{broke}");
    assert_eq!(asked.load(Ordering::SeqCst), 3, "nobody else was asked");
    ours.stop().await;
    for worker in workers {
        worker.shutdown(Duration::ZERO).await;
    }
}
