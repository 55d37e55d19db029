//! Upstream: an engine that is a server of somebody else's, spoken to as OpenAI's clients do.
//!
//! In:     orders; a server's address, the operator's key to it.
//! Out:    its text as a sequence's events, with the counts it reports; each way in which it fails, as a failure with a code.
//! Touches: the network, towards that one server. It follows no redirect.
//! Holds:  what is sent is what the order says, or the order is refused by the parameter's name; whatever comes is bounded and
//!         in time; the key is in no message and no log; nothing is claimed that the server did not say, and its word is all
//!         there is.
//! Absent: retrying: that is for the gateway, which may ask another worker.

mod answer;
mod body;
mod failure;
mod reader;
mod tally;

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use reqwest::{
    Client, RequestBuilder, Url,
    header::{AUTHORIZATION, HeaderValue},
    redirect::Policy,
};
use serde::Deserialize;
use surety_client::https;
use surety_types::{
    CallFormat, FailureCode, Manifest, ModelId, Order, Request, Vectors, manifest::MAX_NAME_BYTES,
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::{
    admission::{Admitted, Refusal},
    engine::{Engine, Gauges, Place, Places, Sequence, Steer},
};
use failure::{Redacting, read_some};

/// For a connection to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the list of models to be whole, and its bytes at most.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
const LIST_BYTES_MAX: usize = 4 << 20;
/// Models named in a message.
const LISTED_MAX: usize = 8;
/// Events that wait for the session to take them; when it does not, the upstream is not read either.
const EVENTS: usize = 64;

/// What is fronted, and how.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// What it is called on the network.
    pub name: String,
    /// The address under which the server has `/chat/completions`, as in `http://127.0.0.1:8000/v1`.
    pub url: String,
    /// What the server calls the model.
    pub model: String,
    /// As which the server may answer besides: where its name for the model stands for another.
    pub answers_as: Option<String>,
    /// The model of the network that it is said to run, if its answers are to be compared with that one's.
    pub claims: Option<ModelId>,
    /// What the server wants to see before it answers.
    pub key: Option<UpstreamKey>,
    /// Positions, of prompt and answer together; what the server says of itself if not given.
    pub context_tokens: Option<u32>,
    /// Parameters beyond OpenAI's that it takes.
    pub takes: Vec<Extra>,
    /// Orders at once, at most.
    pub orders_max: u32,
    /// For it to begin, and then to say something.
    pub patience: Duration,
}

/// The operator's key to an upstream. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamKey(String);

impl UpstreamKey {
    /// A key of visible ASCII characters, as headers hold them.
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(key.to_owned()))
    }

    fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).expect("visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for UpstreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamKey(…)")
    }
}

/// A sampling parameter that not every server of OpenAI's shape takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// `top_k`
    TopK,
    /// `min_p`
    MinP,
    /// `repetition_penalty`
    RepetitionPenalty,
}

impl Extra {
    /// All of them.
    pub const ALL: [Extra; 3] = [Extra::TopK, Extra::MinP, Extra::RepetitionPenalty];

    /// As it is sent.
    pub fn name(self) -> &'static str {
        match self {
            Extra::TopK => "top_k",
            Extra::MinP => "min_p",
            Extra::RepetitionPenalty => "repetition_penalty",
        }
    }
}

/// Not one of [`Extra::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected top_k, min_p or repetition_penalty")]
pub struct UnknownExtra;

impl FromStr for Extra {
    type Err = UnknownExtra;

    fn from_str(name: &str) -> Result<Self, UnknownExtra> {
        Self::ALL.into_iter().find(|extra| extra.name() == name).ok_or(UnknownExtra)
    }
}

/// Why an upstream cannot be fronted.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// The address is none.
    #[error("`{0}` is not the address of an upstream")]
    Address(String),
    /// The name is none.
    #[error("an upstream's model has a name of 1 to {} bytes", MAX_NAME_BYTES)]
    Name,
    /// The TLS client could not be made.
    #[error("cannot prepare a connection")]
    Client(#[source] reqwest::Error),
    /// It is not there.
    #[error("the upstream at {origin} cannot be reached")]
    Unreachable {
        /// Where.
        origin: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// It wants another key, or one.
    #[error("the upstream at {0} does not accept the key")]
    Key(String),
    /// It says something else than which models it has.
    #[error("the upstream at {origin} does not say which models it has: {what}")]
    List {
        /// Where.
        origin: String,
        /// What it says instead.
        what: String,
    },
    /// It has others.
    #[error("the upstream at {origin} has no model `{model}`{}", listed(.there))]
    Model {
        /// Where.
        origin: String,
        /// What was asked for.
        model: String,
        /// What there is.
        there: Vec<String>,
    },
    /// Nobody says how long a prompt may be.
    #[error("the upstream does not say how many tokens `{0}` takes")]
    Context(String),
}

fn listed(there: &[String]) -> String {
    if there.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = there.iter().take(LISTED_MAX).map(String::as_str).collect();
    let more = if there.len() > names.len() { ", …" } else { "" };
    format!("; it has {}{more}", names.join(", "))
}

impl UpstreamError {
    /// What the operator can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Address(_) => {
                "give what stands before /chat/completions, as in http://127.0.0.1:8000/v1, without a \
                                 password or a query"
                    .into()
            }
            Self::Name => "name it with --upstream-model".into(),
            Self::Client(_) => return None,
            Self::Unreachable { .. } => "check that it runs and --upstream names it".into(),
            Self::Key(_) => "name the environment variable that holds the key with --upstream-key-env".into(),
            Self::List { .. } => {
                "--upstream is what stands before /chat/completions; a server without /models needs --context"
                    .into()
            }
            Self::Model { .. } => "name one of its models with --upstream-model".into(),
            Self::Context(_) => "say it with --context".into(),
        })
    }
}

/// A model of an upstream's.
pub(super) struct Upstream {
    shared: Arc<Shared>,
    places: Places,
    gauges: Arc<Gauges>,
}

/// What all its answers need.
struct Shared {
    client: Client,
    base: String,
    model: String,
    answers_as: Option<String>,
    claims: Option<ModelId>,
    key: Option<UpstreamKey>,
    context_tokens: u32,
    takes: Vec<Extra>,
    patience: Duration,
}

impl Shared {
    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.header()),
            None => request,
        }
    }

    /// Makes what a stranger said fit to be shown.
    fn redacting(&self) -> Redacting<'_> {
        Redacting(self.key.as_ref().map(|key| key.0.as_str()))
    }
}

/// Asks the upstream whether it has the model.
pub(super) async fn front(settings: UpstreamSettings) -> Result<(String, Upstream), UpstreamError> {
    let UpstreamSettings {
        name,
        url,
        model,
        answers_as,
        claims,
        key,
        context_tokens,
        takes,
        orders_max,
        patience,
    } = settings;
    if [&name, &model].iter().any(|name| name.is_empty() || name.len() > MAX_NAME_BYTES) {
        return Err(UpstreamError::Name);
    }
    let base = Url::parse(url.trim_end_matches('/')).ok().filter(|url| {
        let plain = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && plain
            && url.query().is_none()
            && url.fragment().is_none()
    });
    // An address may hold a password, which is not repeated.
    let without_secrets =
        || url.split('@').next_back().unwrap_or_default().split('?').next().unwrap_or_default();
    let base = base.ok_or_else(|| UpstreamError::Address(without_secrets().to_owned()))?;
    let origin = base.origin().ascii_serialization();
    let client = https::client_builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        .https_only(base.scheme() == "https")
        .user_agent(crate::receipt::SOFTWARE)
        .build()
        .map_err(UpstreamError::Client)?;
    let mut shared = Shared {
        client,
        base: base.as_str().trim_end_matches('/').to_owned(),
        model,
        answers_as,
        claims,
        key,
        context_tokens: context_tokens.unwrap_or_default(),
        takes,
        patience,
    };
    if let Some(listed) = list(&shared, &origin, context_tokens.is_some()).await? {
        let Some(found) = listed.iter().find(|listed| listed.id == shared.model) else {
            let there = listed.into_iter().map(|listed| shared.redacting().line(&listed.id)).collect();
            return Err(UpstreamError::Model { origin, model: shared.model, there });
        };
        shared.context_tokens = context_tokens.or(found.context_tokens()).unwrap_or_default();
    }
    if shared.context_tokens == 0 {
        return Err(UpstreamError::Context(shared.model));
    }
    let places = Places::new(orders_max);
    Ok((name, Upstream { shared: Arc::new(shared), places, gauges: Arc::default() }))
}

/// A model in an upstream's list.
#[derive(Deserialize)]
struct Listed {
    id: String,
    /// vLLM's name for the context.
    max_model_len: Option<u32>,
    /// OpenRouter's, and ours.
    context_length: Option<u32>,
    /// Mistral's.
    max_context_length: Option<u32>,
}

impl Listed {
    fn context_tokens(&self) -> Option<u32> {
        self.max_model_len.or(self.context_length).or(self.max_context_length).filter(|tokens| *tokens > 0)
    }
}

/// What the upstream says that it has; none if it has no such list and need not.
async fn list(shared: &Shared, origin: &str, optional: bool) -> Result<Option<Vec<Listed>>, UpstreamError> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Listed>,
    }
    let origin = || origin.to_owned();
    let unreachable = |source: reqwest::Error| UpstreamError::Unreachable {
        origin: origin(),
        source: source.without_url(),
    };
    let request = shared.client.get(format!("{}/models", shared.base)).timeout(LIST_TIMEOUT);
    let response = shared.authorized(request).send().await.map_err(unreachable)?;
    let other = |what: String| UpstreamError::List { origin: origin(), what };
    match response.status().as_u16() {
        200 => {}
        401 | 403 => return Err(UpstreamError::Key(origin())),
        404 | 405 if optional => return Ok(None),
        status => return Err(other(format!("it answers {status}"))),
    }
    let bytes = read_some(response, LIST_BYTES_MAX).await.map_err(unreachable)?;
    if bytes.len() >= LIST_BYTES_MAX {
        return Err(other(format!("its list has more than {LIST_BYTES_MAX} bytes")));
    }
    match serde_json::from_slice::<List>(&bytes) {
        Ok(list) => Ok(Some(list.data)),
        Err(error) => Err(other(format!("its list cannot be read ({error})"))),
    }
}

impl Upstream {
    /// What is known of the model: what it is called, how much it takes, and which it is said to be.
    pub(super) fn manifest(&self) -> Manifest {
        Manifest::upstream(&self.shared.model, self.shared.context_tokens, self.shared.claims)
    }

    pub(super) fn context_tokens(&self) -> u32 {
        self.shared.context_tokens
    }
}

impl Engine for Upstream {
    fn admit(&self, order: &Order, request: Request, resumed: Vec<u32>) -> Result<Admitted, Refusal> {
        if !resumed.is_empty() || order.resumed.is_some() {
            let message = "an upstream cannot go on with what somebody else began";
            return Err(Refusal::new(FailureCode::BadRequest, message));
        }
        body::refuse(order, &request, &self.shared.takes)?;
        // How long the prompt is nobody here can say.
        let max_output_tokens = order.max_output_tokens.min(self.shared.context_tokens);
        Ok(Admitted { request, prompt: Vec::new(), resumed, max_output_tokens, grammar: None })
    }

    fn places(&self) -> &Places {
        &self.places
    }

    fn submit(&self, order: &Order, admitted: Admitted, place: Place, _allowed: u32) -> Sequence {
        let (events, receiver) = mpsc::channel(EVENTS);
        let (cancel, cancelled) = watch::channel(false);
        let call = body::Call::of(&self.shared, order, admitted);
        let (shared, gauges) = (self.shared.clone(), self.gauges.clone());
        tokio::spawn(async move {
            let _place = place;
            gauges.running.fetch_add(1, Ordering::Relaxed);
            let last = answer::answer(&shared, call, &events, cancelled).await;
            gauges.running.fetch_sub(1, Ordering::Relaxed);
            // Whoever does not listen any more has been told enough.
            let _ = events.send(last).await;
        });
        Sequence::new(receiver, Arc::new(Reins(cancel)))
    }

    fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// None: what tools an upstream calls is not in its text.
    fn calls(&self) -> Option<CallFormat> {
        None
    }

    fn vectors(&self) -> Option<Vectors> {
        None
    }
}

/// Steers one answer.
struct Reins(watch::Sender<bool>);

impl Steer for Reins {
    /// Nothing is paid for it, so nothing has to be allowed.
    fn allow(&self, _tokens: u32) {}

    fn cancel(&self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests;
