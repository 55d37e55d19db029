//! A server between the client and a real node, which alters what it is told to alter.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy_primitives::{hex, keccak256};
use axum::{Router, body::Bytes, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use serde_json::{Value, json};

/// Changes an answer to a method with these parameters.
pub type Alter = Arc<dyn Fn(&str, &Value, &mut Value) + Send + Sync>;

/// What was answered, by method and parameters.
pub type Record = BTreeMap<String, Value>;

/// How it answers.
#[derive(Clone)]
pub enum Manner {
    /// Altered; or as it is, if the function does nothing.
    Altered(Alter),
    /// Only what was asked before, as it was answered then, altered.
    Replayed(Arc<Record>, Alter),
    /// As it is, but transactions go no further.
    Silent,
    /// Half of every answer.
    Half,
    /// So many bytes more.
    Longer(usize),
    /// After so long.
    After(Duration),
    /// These words.
    Words(&'static str),
    /// With this status.
    Status(StatusCode),
}

pub fn honest() -> Manner {
    altered(|_, _, _| {})
}

pub fn altered(alter: impl Fn(&str, &Value, &mut Value) + Send + Sync + 'static) -> Manner {
    Manner::Altered(Arc::new(alter))
}

pub fn replayed(
    record: &Arc<Record>,
    alter: impl Fn(&str, &Value, &mut Value) + Send + Sync + 'static,
) -> Manner {
    Manner::Replayed(Arc::clone(record), Arc::new(alter))
}

pub struct Liar {
    pub url: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    manner: Mutex<Manner>,
    record: Mutex<Record>,
    asked: Mutex<Vec<String>>,
}

impl Liar {
    /// Stands before `upstream`, honest at first.
    pub async fn before(upstream: &str) -> Self {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client: surety_client::https::client_builder().build().unwrap(),
            manner: Mutex::new(honest()),
            record: Mutex::default(),
            asked: Mutex::default(),
        });
        let app = Router::new().route("/", post(answer)).with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared, server }
    }

    pub fn set(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// Every method it was asked for since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }

    /// What it answered so far.
    pub fn record(&self) -> Arc<Record> {
        Arc::new(self.shared.record.lock().unwrap().clone())
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> axum::response::Response {
    let manner = shared.manner.lock().unwrap().clone();
    let request: Value = serde_json::from_slice(&body).unwrap();
    let answer = match request {
        Value::Array(batch) => {
            let mut answers = Vec::new();
            for request in batch {
                answers.push(shared.one(request, &manner).await);
            }
            // The order of a batch's answers is free.
            answers.reverse();
            Value::Array(answers)
        }
        request => shared.one(request, &manner).await,
    };
    let text = answer.to_string();
    match manner {
        Manner::Altered(_) | Manner::Replayed(..) | Manner::Silent => text.into_response(),
        Manner::Half => text[..text.len() / 2].to_owned().into_response(),
        Manner::Longer(bytes) => (text + &" ".repeat(bytes)).into_response(),
        Manner::After(pause) => {
            tokio::time::sleep(pause).await;
            text.into_response()
        }
        Manner::Words(words) => words.into_response(),
        Manner::Status(status) => (status, text).into_response(),
    }
}

impl Shared {
    async fn one(&self, request: Value, manner: &Manner) -> Value {
        let method = request["method"].as_str().unwrap().to_owned();
        let place = format!("{method} {}", request["params"]);
        self.asked.lock().unwrap().push(method.clone());
        let mut answer = match manner {
            Manner::Replayed(record, _) => match record.get(&place) {
                Some(result) => json!({ "jsonrpc": "2.0", "result": result }),
                None => json!({ "jsonrpc": "2.0", "error": { "code": -32601, "message": "not recorded" } }),
            },
            Manner::Silent if method == "eth_sendRawTransaction" => {
                let bytes = hex::decode(request["params"][0].as_str().unwrap()).unwrap();
                json!({ "jsonrpc": "2.0", "result": keccak256(bytes) })
            }
            _ => {
                let sent = self.client.post(&self.upstream).json(&request).send().await.unwrap();
                let answer: Value = sent.json().await.unwrap();
                if let Some(result) = answer.get("result") {
                    self.record.lock().unwrap().insert(place, result.clone());
                }
                answer
            }
        };
        if let Manner::Altered(alter) | Manner::Replayed(_, alter) = manner
            && let Some(result) = answer.get_mut("result")
        {
            alter(&method, &request["params"], result);
        }
        answer["id"] = request["id"].clone();
        answer
    }
}
