//! RPC nodes: several, none trusted, asked one after the other.
//!
//! In:     methods and parameters.
//! Out:    an answer's JSON, or what the node got wrong.
//! Touches: the network; the clock.
//! Holds:  an answer is bounded in bytes and time; a node that fails or lies is set aside for a while, and asked again
//!         only then, or when no other is left.
//! Absent: believing an answer (`trust`).

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Client, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{
    LedgerBounds,
    error::{Fault, LedgerError, NodeFault},
};
use crate::https;

/// Characters of a node's words that are passed on.
const WORDS_MAX: usize = 300;
/// Requests in one batch: what a node takes.
pub(crate) const BATCH_MAX: usize = 100;

/// The nodes.
pub(crate) struct Nodes {
    client: Client,
    nodes: Vec<Node>,
    /// Where to begin: the node that answered last.
    first: AtomicUsize,
    /// Pieces of answers that came, of all nodes.
    heard: AtomicU64,
    bounds: LedgerBounds,
}

/// One of them.
pub(crate) struct Node {
    url: Url,
    /// Scheme, host and port. The rest of a URL may be a secret.
    pub(crate) name: String,
    aside_until: Mutex<Option<Instant>>,
}

impl Node {
    fn new(text: &str) -> Result<Self, LedgerError> {
        let refused = || LedgerError::Url(text.chars().take(WORDS_MAX).collect());
        let url = Url::parse(text).map_err(|_| refused())?;
        let host = url.host_str().ok_or_else(refused)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused());
        }
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let name = format!("{}://{host}{port}", url.scheme());
        Ok(Self { url, name, aside_until: Mutex::default() })
    }

    fn is_aside(&self) -> bool {
        let until = *self.aside_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn set_aside(&self, pause: Option<Duration>) {
        let until = pause.and_then(|pause| Instant::now().checked_add(pause));
        *self.aside_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Nodes {
    /// Those at `urls`.
    pub(crate) fn new(urls: &[String], bounds: LedgerBounds) -> Result<Self, LedgerError> {
        if urls.is_empty() {
            return Err(LedgerError::NoNodes);
        }
        let nodes = urls.iter().map(|url| Node::new(url)).collect::<Result<_, _>>()?;
        let client = https::client_builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(bounds.request_timeout)
            .timeout(bounds.request_timeout)
            .build()
            .map_err(LedgerError::Http)?;
        Ok(Self { client, nodes, first: AtomicUsize::new(0), heard: AtomicU64::new(0), bounds })
    }

    /// Every node once, those set aside last, until one answers.
    pub(crate) fn round(&self) -> Round<'_> {
        let first = self.first.load(Ordering::Relaxed);
        let order = (0..self.nodes.len()).map(|step| (first + step) % self.nodes.len());
        let (aside, ready): (Vec<usize>, Vec<usize>) = order.partition(|index| self.nodes[*index].is_aside());
        let order = ready.into_iter().chain(aside).collect::<Vec<_>>().into_iter();
        Round { nodes: self, order, asked: None, faults: Vec::new() }
    }

    /// Every node.
    pub(crate) fn all(&self) -> &[Node] {
        &self.nodes
    }

    /// Pieces of answers that came so far.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// One answer.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        node: &Node,
        method: &str,
        params: Value,
    ) -> Result<T, Fault> {
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params });
        let bytes = self.post(node, &body).await?;
        let garbage = |why: serde_json::Error| garbage(method, why);
        let answer: Answer = serde_json::from_slice(&bytes).map_err(garbage)?;
        serde_json::from_value(answer.result(method)?).map_err(garbage)
    }

    /// Several answers, in the order of the questions; at most [`BATCH_MAX`].
    pub(crate) async fn several<T: DeserializeOwned>(
        &self,
        node: &Node,
        method: &str,
        mut params: Vec<Value>,
    ) -> Result<Vec<T>, Fault> {
        assert!(params.len() <= BATCH_MAX, "batches are bounded");
        if params.len() == 1
            && let Some(params) = params.pop()
        {
            return Ok(vec![self.call(node, method, params).await?]);
        }
        let count = params.len();
        let request =
            |(id, params)| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let body: Vec<Value> = params.into_iter().enumerate().map(request).collect();
        let bytes = self.post(node, &Value::from(body)).await?;
        let answers: Vec<Answer> = serde_json::from_slice(&bytes).map_err(|why| garbage(method, why))?;
        let mut found: Vec<Option<T>> = (0..count).map(|_| None).collect();
        for answer in answers {
            let place = answer.id.and_then(|id| found.get_mut(id));
            let place = place.ok_or_else(|| garbage(method, "an answer to no question"))?;
            *place =
                Some(serde_json::from_value(answer.result(method)?).map_err(|why| garbage(method, why))?);
        }
        let whole: Option<Vec<T>> = found.into_iter().collect();
        whole.ok_or_else(|| garbage(method, "an answer is missing"))
    }

    async fn post(&self, node: &Node, body: &Value) -> Result<Vec<u8>, Fault> {
        let failed = |error: reqwest::Error| match error.is_timeout() {
            true => Fault::Slow(self.bounds.request_timeout),
            false => Fault::Unreachable(error.without_url()),
        };
        let mut response = self.client.post(node.url.clone()).json(body).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(Fault::Status(response.status()));
        }
        let most = self.bounds.answer_bytes_max;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > most {
                return Err(Fault::TooLong(most));
            }
            bytes.extend_from_slice(&chunk);
            self.heard.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes)
    }
}

/// That an answer is not what was asked for.
pub(crate) fn garbage(method: &str, why: impl ToString) -> Fault {
    Fault::Garbage { method: method.to_owned(), why: words(&why.to_string()) }
}

/// A stranger's words: bounded, and nothing a terminal would obey.
fn words(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(WORDS_MAX).collect()
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    id: Option<usize>,
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

impl Answer {
    fn result(self, method: &str) -> Result<Value, Fault> {
        match (self.result, self.error) {
            (_, Some(error)) => Err(Fault::Refused { code: error.code, message: words(&error.message) }),
            // A result of `null` reads as none.
            (result, None) if self.id.is_some() => Ok(result.unwrap_or(Value::Null)),
            _ => Err(garbage(method, "neither a result nor an error")),
        }
    }
}

/// One question, on its way from node to node.
pub(crate) struct Round<'a> {
    nodes: &'a Nodes,
    order: std::vec::IntoIter<usize>,
    asked: Option<usize>,
    faults: Vec<NodeFault>,
}

impl<'a> Round<'a> {
    /// Whom to ask next.
    pub(crate) fn next(&mut self) -> Option<&'a Node> {
        self.asked = self.order.next();
        self.asked.map(|index| &self.nodes.nodes[index])
    }

    /// The node answered, and its answer holds.
    pub(crate) fn answered(self) {
        if let Some(index) = self.asked {
            self.nodes.first.store(index, Ordering::Relaxed);
            self.nodes.nodes[index].set_aside(None);
        }
    }

    /// The node did not, or its answer does not hold: it is set aside.
    pub(crate) fn failed(&mut self, fault: Fault) {
        let Some(index) = self.asked else { return };
        let node = &self.nodes.nodes[index];
        let bounds = &self.nodes.bounds;
        if let Fault::Lie(lie) = &fault {
            warn!(node = node.name, %lie, "an RPC node lies");
            node.set_aside(Some(bounds.aside_liar));
        } else {
            debug!(node = node.name, %fault, "an RPC node failed");
            node.set_aside(Some(bounds.aside));
        }
        self.faults.push(NodeFault { node: node.name.clone(), fault });
    }

    /// The node answered and said no, which may be right: it is only noted.
    pub(crate) fn refused(&mut self, fault: Fault) {
        if let Some(index) = self.asked {
            self.faults.push(NodeFault { node: self.nodes.nodes[index].name.clone(), fault });
        }
    }

    /// That nobody was left.
    pub(crate) fn exhausted(self) -> LedgerError {
        LedgerError::Nodes(self.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(urls: &[&str]) -> Result<Nodes, LedgerError> {
        Nodes::new(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>(), LedgerBounds::default())
    }

    #[test]
    fn urls_are_checked_and_their_secrets_not_shown() {
        assert!(matches!(nodes(&[]), Err(LedgerError::NoNodes)));
        for wrong in ["", "ftp://example.org", "127.0.0.1:8545", "unix:/run/x"] {
            assert!(matches!(nodes(&[wrong]), Err(LedgerError::Url(_))), "{wrong}");
        }
        let nodes = nodes(&["https://user:word@example.org:99/v2/key?token=1"]).unwrap();
        assert_eq!(nodes.all()[0].name, "https://example.org:99");
    }

    #[test]
    fn who_fails_is_asked_last_and_who_answered_first() {
        let nodes = nodes(&["http://a", "http://b", "http://c"]).unwrap();
        let order = |nodes: &Nodes| {
            let mut round = nodes.round();
            std::iter::from_fn(move || round.next().map(|node| node.name.clone())).collect::<Vec<_>>()
        };
        let mut round = nodes.round();
        round.next();
        round.failed(Fault::Moving);
        assert_eq!(order(&nodes), ["http://b", "http://c", "http://a"]);
        round.next();
        round.answered();
        assert_eq!(order(&nodes), ["http://b", "http://c", "http://a"]);
        let mut round = nodes.round();
        for _ in 0..3 {
            round.next();
            round.failed(Fault::Moving);
        }
        assert!(round.next().is_none());
        let LedgerError::Nodes(faults) = round.exhausted() else { panic!("nobody answered") };
        assert_eq!(faults.len(), 3);
    }

    #[test]
    fn a_strangers_words_are_bounded_and_tame() {
        let answer = Answer {
            id: Some(0),
            result: None,
            error: Some(Refusal { code: -1, message: format!("\u{1b}[31m{}", "x".repeat(1_000)) }),
        };
        let Err(Fault::Refused { message, .. }) = answer.result("m") else { panic!("refused") };
        assert!(message.starts_with("[31mx") && message.len() == WORDS_MAX);
    }
}
