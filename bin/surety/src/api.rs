//! The gateway, as a client sees it: over HTTP, like anyone's program.
//!
//! In:     questions.
//! Out:    answers as they come; evidence.
//! Touches: one gateway.
//! Holds:  a stream that ends without saying that it is whole is an error; nothing read is unbounded.
//! Absent: believing it. Evidence is checked by `verification`.

use std::{fs, time::Duration};

use anyhow::Context;
use reqwest::{
    Response, Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::{Value, json};
use surety_types::{evidence::MAX_EVIDENCE_BYTES, statement::MAX_DOSSIER_BYTES};
use tokio::time::sleep;

use crate::{
    data_dir::DataDir,
    output::{hinted, printable},
    sse::Events,
};

/// Where `surety up` serves unless told otherwise.
const USUAL: &str = "http://127.0.0.1:8080/v1";
/// Where the gateway asks for an API key, it is taken from there.
const KEY_VARIABLE: &str = "SURETY_API_KEY";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A gateway sends at least a comment this often.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A gateway that can be asked.
pub struct Api {
    client: reqwest::Client,
    /// Ends in `/v1`.
    base_url: String,
}

/// One message of a chat, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What was said.
    pub content: String,
}

/// How a chat answer is to be made.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ChatOptions {
    /// Instructions that precede the conversation.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Tokens of an answer, at most.
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// 0 always takes the likeliest token; up to 2.
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// The same seed gives the same answer.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub seed: Option<i64>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The text.
    pub text: String,
    /// Why it ended: `stop` or `length`.
    pub finish: String,
    /// What finds its receipt.
    pub request_id: String,
}

impl Api {
    /// The gateway of `--base-url`, or the one that `surety up` runs on this data directory, or at the usual place.
    pub fn new(base_url: Option<&str>, data_dir: &DataDir) -> anyhow::Result<Self> {
        match base_url {
            Some(base_url) => Self::at(base_url),
            None => Self::at(running(data_dir).as_deref().unwrap_or(USUAL)),
        }
    }

    /// The gateway at this address, with or without `/v1`.
    pub fn at(base_url: &str) -> anyhow::Result<Self> {
        let trimmed = base_url.trim_end_matches('/');
        let root = trimmed.strip_suffix("/v1").unwrap_or(trimmed);
        let url =
            Url::parse(root).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            return Err(hinted(format!("`{base_url}` is no base URL"), format!("write it like {USUAL}")));
        };
        let mut builder = surety_client::https::client_builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .user_agent(surety_worker::SOFTWARE);
        if let Some(key) = std::env::var_os(KEY_VARIABLE).filter(|key| !key.is_empty()) {
            let bearer = key.to_str().and_then(|key| HeaderValue::try_from(format!("Bearer {key}")).ok());
            let mut bearer = bearer.with_context(|| format!("{KEY_VARIABLE} holds no API key"))?;
            bearer.set_sensitive(true);
            builder = builder.default_headers([(AUTHORIZATION, bearer)].into_iter().collect());
        }
        // A proxy is for the world outside.
        let loopback = url.host_str().is_some_and(|host| {
            host == "localhost"
                || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        });
        if loopback {
            builder = builder.no_proxy();
        }
        Ok(Self { client: builder.build()?, base_url: format!("{root}/v1") })
    }

    /// Waits until the gateway can answer.
    pub async fn ready(&self) {
        let url = format!("{}/ready", self.base_url.trim_end_matches("/v1"));
        loop {
            match self.client.get(&url).send().await {
                Ok(response) if response.status().is_success() => return,
                _ => sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// The names of the models that can be asked for.
    pub async fn models(&self) -> anyhow::Result<Vec<String>> {
        let response = self.send(self.client.get(format!("{}/models", self.base_url))).await?;
        let list: Value = serde_json::from_slice(&body(response, MAX_EVIDENCE_BYTES).await?)?;
        let names = list["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// The evidence of a request, as the gateway keeps it.
    pub async fn evidence(&self, request_id: &str) -> anyhow::Result<Vec<u8>> {
        let mut url = Url::parse(&self.base_url)?;
        url.path_segments_mut().expect("http addresses have paths").extend(["receipts", request_id]);
        let response = self.send(self.client.get(url)).await?;
        body(response, MAX_EVIDENCE_BYTES).await
    }

    /// What the gateway keeps of a request, answered or not; or why it has nothing, in its words.
    pub async fn explanation(&self, request_id: &str) -> anyhow::Result<Result<Vec<u8>, String>> {
        let mut url = Url::parse(&self.base_url)?;
        let path = ["requests", request_id, "explanation"];
        url.path_segments_mut().expect("http addresses have paths").extend(path);
        let response = self.exchange(self.client.get(url)).await?;
        if response.status() != reqwest::StatusCode::NOT_FOUND {
            return Ok(Ok(body(self.successful(response).await?, MAX_DOSSIER_BYTES).await?));
        }
        let told: Option<Value> = serde_json::from_slice(&body(response, 1 << 20).await?).ok();
        let message = told.as_ref().and_then(|told| told["error"]["message"].as_str());
        Ok(Err(printable(message.unwrap_or("it says that it has no such thing"))))
    }

    /// Asks with a request of one's own, and takes the answer whole.
    pub async fn ask(&self, request: &Value) -> anyhow::Result<Answered> {
        let url = format!("{}/chat/completions", self.base_url);
        let response = self.send(self.client.post(url).json(request)).await?;
        let request_id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        let request_id = request_id.context("the gateway gave no request id")?.to_owned();
        let answer: Value = serde_json::from_slice(&body(response, MAX_EVIDENCE_BYTES).await?)?;
        let choice = &answer["choices"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Answered {
            text: text(&choice["message"]["content"]),
            finish: text(&choice["finish_reason"]),
            request_id,
        })
    }

    /// Asks for the next message of a chat; `heard` is given each piece of it as it comes.
    pub async fn chat(
        &self,
        model: &str,
        messages: &[Said],
        options: &ChatOptions,
        mut heard: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Answered> {
        let messages: Vec<_> =
            messages.iter().map(|said| json!({ "role": said.role, "content": said.content })).collect();
        let mut request = json!({ "model": model, "messages": messages, "stream": true });
        let given = [
            ("max_tokens", options.max_tokens.map(Value::from)),
            ("temperature", options.temperature.map(|t| Value::from(f64::from(t)))),
            ("seed", options.seed.map(Value::from)),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                request[name] = value;
            }
        }
        let url = format!("{}/chat/completions", self.base_url);
        let mut response = self.send(self.client.post(url).json(&request)).await?;
        let request_id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        let request_id = request_id.context("the gateway gave no request id")?.to_owned();
        let mut answered = Answered { text: String::new(), finish: String::new(), request_id };
        let mut events = Events::default();
        while let Some(piece) = response.chunk().await.context("the connection to the gateway broke")? {
            for data in events.push(&piece)? {
                if data == "[DONE]" {
                    return Ok(answered);
                }
                let chunk: Value =
                    serde_json::from_str(&data).context("the gateway sent something else than JSON")?;
                if let Some(error) = chunk.get("error") {
                    return Err(told(error));
                }
                let choice = &chunk["choices"][0];
                if let Some(text) = choice["delta"]["content"].as_str() {
                    answered.text += text;
                    heard(text)?;
                }
                if let Some(finish) = choice["finish_reason"].as_str() {
                    answered.finish = finish.to_owned();
                }
            }
        }
        Err(hinted("the answer broke off: the gateway closed the stream before its end", "ask again"))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        let response = self.exchange(request).await?;
        self.successful(response).await
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        match request.send().await {
            Ok(response) => Ok(response),
            Err(error) if error.is_connect() => Err(hinted(
                format!("nothing answers at {}", self.base_url),
                "start it with `surety up`, or name another gateway with --base-url",
            )),
            Err(error) => Err(error.into()),
        }
    }

    async fn successful(&self, response: Response) -> anyhow::Result<Response> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = body(response, 1 << 20).await?;
        match serde_json::from_slice::<Value>(&text) {
            Ok(value) if value["error"]["message"].is_string() => Err(told(&value["error"])),
            _ => Err(hinted(
                format!("{} answered HTTP {status}", self.base_url),
                "is this a Surety gateway? name one with --base-url",
            )),
        }
    }
}

/// An error in the gateway's own words, which say what to do.
fn told(error: &Value) -> anyhow::Error {
    let message = error["message"].as_str().unwrap_or("the gateway reported an error without a message");
    anyhow::Error::msg(printable(message))
}

/// A whole body, if it is not absurdly long.
async fn body(mut response: Response, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        anyhow::ensure!(body.len() <= bytes_max, "the gateway sent more than {bytes_max} bytes");
    }
    Ok(body)
}

/// Where a running `up` said it serves.
fn running(data_dir: &DataDir) -> Option<String> {
    let word: Value = serde_json::from_slice(&fs::read(data_dir.running()).ok()?).ok()?;
    Some(word["base_url"].as_str()?.to_owned())
}
