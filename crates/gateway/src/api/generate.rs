//! Generate: the two routes that ask a model something.
//!
//! In:     POST requests. Out: one document, or a stream of events.
//! Touches: workers, through `session`; the receipts, to keep evidence.
//! Holds:  a stream begins only after a worker has accepted, and ends either with `[DONE]`, after every receipt was
//!         checked and the evidence kept, or with one error frame; a client that leaves stops the work.
//! Absent: understanding the request (`ask`), wording the reply (`reply`).

use std::{
    mem,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{self, Body},
    extract::{Extension, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use surety_client::Check;
use surety_types::{
    Amount, CivilDate, Envelope, Evidence, Prompt, PublicKey, Receipt, Request, Signed,
    receipt::NO_ARITHMETIC,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};
use tracing::{error, info};

use super::{
    ask::{Ask, Form},
    body::Text,
    compared,
    embeddings::{self, EmbeddingList},
    guard,
    last_event::{Broken, LastEvent},
    openapi::{ChatCompletionRequest, CompletionRequest, EmbeddingRequest},
    parameters::Route,
    shapes::{
        self, ChatCompletion, ChatCompletionChunk, Completion, CompletionTokensDetails, HandoverWait,
        PromptTokensDetails, SuretyNote, Usage,
    },
    sse::{self, Events},
    unix_ms,
    wording::{self, Heading, Marks, Wording},
};
use crate::{
    comparisons,
    error::{ApiError, Code, ErrorBody},
    gateway::{Active, Shared},
    id::RequestId,
    journal::trail::{Following, Trail},
    keys::{Hold, Tenant},
    route::{Resolved, preferences::Tier},
    session::{self, Answering, Desk, Event, Finished, Share, Waited},
    streams::{Begun, StreamLog},
    telemetry::{Telemetry, TraceParent},
};

/// Bodies up to here are understood at once; longer ones on a thread that may take its time.
const QUICK_BYTES: usize = 128 << 10;
/// Once so much waits for a slow reader, no more is taken from the worker.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// Between two looks for a model whose workers may not have been heard yet.
const RESOLVE_PAUSE: Duration = Duration::from_millis(50);
/// What is said where nobody was asked to compute the answer again.
const NOT_REQUESTED: &str = "not-requested";
/// Digits of a model's id in `system_fingerprint`.
const FINGERPRINT_DIGITS: usize = 16;

/// Answer a conversation.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "answers", request_body = ChatCompletionRequest, params(
    ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event of a stream that broke off: the rest of it is sent. The body is the same as before."),
    ("Idempotency-Key" = Option<String>, Header, description = "A name of the request's own, such as a UUID: sent again with it within a day, the same request is answered with the same response, and charged once."),
), responses(
    (status = 200, description = "The answer; with `stream: true`, chunks as server-sent events, ended by `[DONE]` or by an error frame.",
        content((ChatCompletion<'static> = "application/json"), (ChatCompletionChunk<'static> = "text/event-stream"))),
    (status = "4XX", description = "The request cannot be answered as it is.", body = ErrorBody),
    (status = "5XX", description = "It was not answered; `metadata` says who answers for that and whether a retry helps.", body = ErrorBody),
))]
pub(super) async fn chat_completions(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(shared, id, Route::Chat, headers, body).await
}

/// Continue a text or a list of token ids.
#[utoipa::path(post, path = "/v1/completions", tag = "answers", request_body = CompletionRequest, params(
    ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event of a stream that broke off: the rest of it is sent. The body is the same as before."),
    ("Idempotency-Key" = Option<String>, Header, description = "A name of the request's own, such as a UUID: sent again with it within a day, the same request is answered with the same response, and charged once."),
), responses(
    (status = 200, description = "The continuation; with `stream: true`, pieces as server-sent events, ended by `[DONE]` or by an error frame.",
        content((Completion<'static> = "application/json"), (Completion<'static> = "text/event-stream"))),
    (status = "4XX", description = "The request cannot be answered as it is.", body = ErrorBody),
    (status = "5XX", description = "It was not answered; `metadata` says who answers for that and whether a retry helps.", body = ErrorBody),
))]
pub(super) async fn completions(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(shared, id, Route::Completions, headers, body).await
}

/// Turn texts, or lists of token ids, into vectors of length one.
#[utoipa::path(post, path = "/v1/embeddings", tag = "answers", request_body = EmbeddingRequest, responses(
    (status = 200, description = "A vector for each input.", body = EmbeddingList),
    (status = "4XX", description = "The request cannot be answered as it is.", body = ErrorBody),
    (status = "5XX", description = "It was not answered; `metadata` says who answers for that and whether a retry helps.", body = ErrorBody),
))]
pub(super) async fn embeddings(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(shared, id, Route::Embeddings, headers, body).await
}

/// A request that a worker has accepted, and everything its answer needs.
pub(super) struct Job {
    shared: Arc<Shared>,
    id: RequestId,
    ask: Ask,
    model: Resolved,
    answering: Answering,
    received_ms: u64,
    first_byte_ms: Option<u64>,
    finished: Vec<Option<Finished>>,
    /// Where what its stream needs to go on is kept.
    log: Option<StreamLog>,
    told: Told,
    telemetry: Telemetry,
    /// What is set aside for it.
    hold: Arc<Hold>,
    trail: Trail,
    /// Its caller has left when this is dropped, unless it had ended.
    _following: Option<Following>,
    /// The request counts as active, and its text as held, until this is dropped.
    _active: Active,
    _share: Option<OwnedSemaphorePermit>,
}

/// What the reader of a stream that goes on has already.
#[derive(Debug, Default)]
struct Told {
    /// Bytes of text.
    position: usize,
    /// What is known to follow.
    known: String,
    /// Bytes of what comes next that it has.
    skip: usize,
}

impl Told {
    /// With so much of the text known, and so much of it told: a whole number of characters.
    fn of(text: &str, position: usize) -> Told {
        Told {
            position,
            known: text.get(position..).unwrap_or_default().to_owned(),
            skip: position.saturating_sub(text.len()),
        }
    }

    /// What of the next piece is new to the reader.
    fn new_of<'a>(&mut self, text: &'a str) -> Result<&'a str, ApiError> {
        let skipped = self.skip.min(text.len());
        self.skip -= skipped;
        text.get(skipped..).ok_or_else(|| {
            let message = "`Last-Event-ID` names a place within a character.";
            ApiError::invalid("Last-Event-ID", message)
        })
    }

    /// Whether the reader claims more than there is, at the end.
    fn check_end(&self) -> Result<(), ApiError> {
        if self.skip == 0 {
            return Ok(());
        }
        let message = "`Last-Event-ID` names a place behind the end of the answer.";
        Err(ApiError::invalid("Last-Event-ID", message))
    }
}

/// A gateway that has just begun learns what its workers serve before long.
pub(super) async fn resolve_soon(shared: &Shared, name: &str) -> Result<Resolved, ApiError> {
    let give_up = Instant::now() + shared.search_timeout;
    loop {
        match shared.workers.resolve(name) {
            Err(_) if Instant::now() < give_up => sleep(RESOLVE_PAUSE).await,
            resolved => return resolved,
        }
    }
}

/// A call whose body was read.
pub(super) struct Call {
    pub(super) id: RequestId,
    pub(super) received_ms: u64,
    /// The day that chat templates are told.
    pub(super) today: CivilDate,
    /// Of which trace it is a part.
    pub(super) trace: Option<TraceParent>,
    /// Its text counts as held until this is dropped.
    pub(super) share: Option<OwnedSemaphorePermit>,
}

/// Answers in a protocol whose streams can be gone on with.
pub(super) async fn answer(
    shared: Arc<Shared>,
    id: RequestId,
    route: Route,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let received_ms = unix_ms();
    let trace = TraceParent::of(&headers);
    let last = LastEvent::of(&headers)?;
    let Text { text, share } = shared.intake.read(&headers, body).await?;
    let broken = match last {
        Some(last) => Some(Broken::find(&shared, last).await?),
        // What is not kept of it is made anew.
        None if Tenant::current(&shared.keys)?.is_sent_again() => Broken::left_behind(&shared, id).await,
        None => None,
    };
    let (broken, call) = match broken {
        None => (None, Call { id, received_ms, today: CivilDate::from_unix_ms(received_ms), trace, share }),
        // What goes on has the id and the day that it began with.
        Some(broken) => {
            let Begun { received_ms, date, .. } = broken.begun;
            let call = Call { id: broken.last.request, received_ms, today: date, trace, share };
            (Some(broken), call)
        }
    };
    let today = call.today;
    let ask = understand(text, move |text| Ask::parse(text, route, today)).await?;
    start(shared, call, ask, broken).await?.respond().await
}

/// Has a worker accept what is asked, or what is left of a stream that broke off.
pub(super) async fn start(
    shared: Arc<Shared>,
    call: Call,
    ask: Ask,
    broken: Option<Broken>,
) -> Result<Job, ApiError> {
    let trail = shared.journal.trail(call.id);
    trail.asked_unless_known(shared.key.public(), call.received_ms);
    trail.named(&ask.model);
    // What is known of a stream that broke off is not replaced before it goes on.
    let following = broken.as_ref().is_none_or(|broken| !broken.is_kept).then(|| trail.following());
    let began = begin(shared, call, ask, broken, &trail).await;
    if let (Err(failure), Some(_)) = (&began, &following) {
        trail.failed(failure);
    }
    let job = began?;
    trail.begun();
    Ok(Job { _following: Some(following.unwrap_or_else(|| trail.following())), ..job })
}

async fn begin(
    shared: Arc<Shared>,
    call: Call,
    mut ask: Ask,
    broken: Option<Broken>,
    trail: &Trail,
) -> Result<Job, ApiError> {
    let Call { id, received_ms, today, trace, share } = call;
    let began = Instant::now();
    shared.open()?;
    let tenant = Tenant::current(&shared.keys)?;
    trail.asked_by(tenant.key());
    let model = match broken.is_some() || tenant.is_sent_again() {
        true => resolve_soon(&shared, &ask.model).await?,
        false => shared.workers.resolve(&ask.model)?,
    };
    fits(&ask, &model)?;
    let is_kept = broken.as_ref().is_some_and(|broken| broken.is_kept);
    ask.hold_to_calls(model.calls)?;
    guard::screen(&tenant, &mut ask, &model)?;
    let restored = match broken {
        Some(broken) => broken.restore(&ask, &model)?,
        None => None,
    };
    let goes_on = is_kept && restored.is_some();
    let active = shared.admit(id)?;
    let hold = tenant.hold(id, &model.name, ask.answers() as u32, received_ms);
    // Where only tokens are counted there is nothing to compare; what an upstream gives nobody can compute again.
    let by_word = model.arithmetic == NO_ARITHMETIC;
    let checking =
        (ask.preferences.checked && ask.form != Form::Count && !by_word).then(|| ask.preferences.of_check());
    if ask.preferences.checked && by_word {
        compared::can_be(&shared, &ask, &model)?;
        // Whoever was found to give another model's answers gives none here.
        if ask.preferences.verification.is_none_or(|wanted| wanted == Tier::Signed) {
            ask.preferences.verification = Some(Tier::Statistical);
        }
    }
    let patience_ms = ask.deadline_ms.unwrap_or(shared.answer_timeout.as_millis() as u64);
    let desk = Desk {
        workers: Arc::clone(&shared.workers),
        key: shared.key.clone(),
        model: model.clone(),
        preferences: ask.preferences.clone(),
        checking,
        sampling: ask.sampling.clone(),
        seed: ask.seed,
        max_output_tokens: ask.max_output_tokens,
        ignore_end: ask.ignore_end,
        deadline_ms: unix_ms() + patience_ms,
        stall: shared.stall_timeout,
        search: shared.search_timeout,
        affinity: Some(tenant.affinity(ask.affinity())),
        hold: Arc::clone(&hold),
        counts: ask.form == Form::Count,
        trail: trail.clone(),
    };
    let (mut told, mut first_byte_ms) = (Told::default(), None);
    let begin = async {
        match restored {
            Some((position, restored)) => {
                told = Told::of(&restored.text, position);
                first_byte_ms = restored.first_byte_ms;
                session::go_on(desk, &ask, restored).await
            }
            None => session::begin(desk, &ask).await,
        }
    };
    let mut answering = tokio::select! {
        begun = begin => begun.map_err(|failure| of_subject(failure, ask.form))?,
        () = shared.halted() => return Err(stopping()),
    };
    // What is made anew although something of it is kept is not kept beside that.
    let is_logged = goes_on == is_kept && (ask.goes_on() || (tenant.is_sent_once() && ask.could_go_on()));
    let log = is_logged.then(|| match goes_on {
        true => shared.streams.go_on(id),
        false => {
            let nonce = answering.nonce();
            shared
                .streams
                .begin(id, Begun { model: model.id, nonce, date: today, received_ms, tenant: tenant.key() })
        }
    });
    if let Some(log) = &log {
        answering.keep_in(log.clone());
    }
    let what = (ask.form.operation(), model.name.as_str());
    let telemetry = Telemetry::accepted(Arc::clone(&shared.metrics), what, (id, began.into_std()), trace);
    let finished = (0..ask.answers()).map(|_| None).collect();
    Ok(Job {
        trail: trail.clone(),
        _following: None,
        shared,
        id,
        ask,
        model,
        answering,
        received_ms,
        first_byte_ms,
        finished,
        log,
        told,
        telemetry,
        hold,
        _active: active,
        _share: share,
    })
}

/// What a worker finds wrong with a request is wrong with what is asked: all else was looked at before.
fn of_subject(failure: ApiError, form: Form) -> ApiError {
    let is_callers = matches!(failure.code(), Code::InvalidParam | Code::ContextLengthExceeded);
    if is_callers && failure.param().is_none() { failure.with_param(form.subject()) } else { failure }
}

/// How many tokens a prompt has, as a worker signs for it that is told to stop before it computes anything for money.
pub(super) async fn count(shared: Arc<Shared>, call: Call, ask: Ask) -> Result<u32, ApiError> {
    match start(shared, call, ask, None).await {
        Ok(mut job) => {
            job.trail.counted();
            job.telemetry.counted();
            Ok(job.answering.prompt_tokens())
        }
        // A prompt that does not fit was counted all the same.
        Err(failure) if failure.code() == Code::ContextLengthExceeded => {
            let receipt = failure.receipt().and_then(|receipt| Signed::<Receipt>::peek_value(receipt).ok());
            let tokens = receipt.map(|(receipt, _)| receipt.prompt_tokens).filter(|tokens| *tokens > 0);
            tokens.ok_or(failure)
        }
        Err(failure) => Err(failure),
    }
}

/// Has a body read, on a thread that may take its time if it is long.
pub(super) async fn understand<T: Send + 'static>(
    text: String,
    read: impl FnOnce(&str) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if text.len() <= QUICK_BYTES {
        return read(&text);
    }
    let parsed = tokio::task::spawn_blocking(move || read(&text)).await;
    parsed.map_err(|_| ApiError::bug("reading the body panicked"))?
}

/// What can be refused once the model is known.
pub(super) fn fits(ask: &Ask, model: &Resolved) -> Result<(), ApiError> {
    let is_chat = |request: &Request| matches!(request.prompt, Prompt::Chat { .. });
    if !model.chat && ask.requests.iter().any(is_chat) {
        let instead = match ask.form {
            Form::Ollama { .. } => "Send a text to /api/generate with `raw: true`.",
            _ => "Send a text to /v1/completions.",
        };
        let message =
            format!("\"{}\" has no chat template, so it cannot hold a conversation. {instead}", model.name);
        return Err(ApiError::invalid("model", message));
    }
    if model.calls.is_none()
        && let Some(param) = ask.shows_tools()
    {
        let message = format!(
            "Tools are not supported by the chat template of \"{}\". Leave tools and calls of them out, or ask a model of which /v1/models says `tools: true`.",
            model.name,
        );
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(param));
    }
    embeddings::fits(ask, model)?;
    by_word(ask, model)?;
    let subject = ask.form.subject();
    let unknown = |token: u32| token >= model.vocabulary;
    if let Some((token, _)) = ask.sampling.logit_bias.iter().find(|(token, _)| unknown(*token)) {
        let message = format!(
            "`logit_bias` names token {token}; \"{}\" knows tokens 0 to {}.",
            model.name,
            model.vocabulary.saturating_sub(1),
        );
        return Err(ApiError::invalid(format!("logit_bias.{token}"), message));
    }
    for request in &ask.requests {
        let Prompt::Tokens(ids) = &request.prompt else { continue };
        if let Some(position) = ids.iter().position(|id| unknown(*id)) {
            let message = format!(
                "`{subject}` holds token {} at index {position}; \"{}\" knows tokens 0 to {}.",
                ids[position],
                model.name,
                model.vocabulary.saturating_sub(1),
            );
            return Err(ApiError::invalid(subject, message));
        }
    }
    Ok(())
}

/// Refuses what no upstream is trusted to keep to.
fn by_word(ask: &Ask, model: &Resolved) -> Result<(), ApiError> {
    if model.arithmetic != NO_ARITHMETIC {
        return Ok(());
    }
    if ask.form == Form::Count {
        let message = format!(
            "The tokens of a prompt for \"{}\" cannot be counted before it is answered: an upstream of its operator's counts them. \
             Send the request itself, or ask a model of which /v1/models says `tier: exact`.",
            model.name,
        );
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param("model"));
    }
    if ask.preferences.checked && model.tier != Tier::Statistical {
        let why = match model.claims {
            None => "its operators name no model that they run".to_owned(),
            Some(claims) => {
                format!("no worker serves {claims} exactly here, which its operators say that they run")
            }
        };
        let message = format!(
            "\"{}\" cannot be asked for as verified: upstreams of its operators answer, and {why}, so there is nothing to compare \
             with. Leave `:verified` out, or ask a model of which /v1/models says `tier: exact`.",
            model.name,
        );
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param("model"));
    }
    let any = |holds: fn(&Request) -> bool| ask.requests.iter().any(holds);
    let unsupported = [
        (any(|request| request.grammar.is_some()), ask.form.form_parameter()),
        (any(|request| request.logprobs.is_some() || request.prompt_logprobs.is_some()), "logprobs"),
        (!ask.sampling.logit_bias.is_empty(), "logit_bias"),
        (any(|request| matches!(request.prompt, Prompt::Tokens(_))), ask.form.subject()),
        (ask.ignore_end, "ignore_eos"),
    ];
    let Some((_, param)) = unsupported.into_iter().find(|(used, _)| *used) else { return Ok(()) };
    let message = format!(
        "`{param}` is not supported by \"{}\", and not silently ignored: an upstream of its operator's answers, and nothing \
         shows that it would keep to it. Leave it out, or ask a model of which /v1/models says `tier: exact`.",
        model.name,
    );
    Err(ApiError::new(Code::UnsupportedParameter, message).with_param(param))
}

/// What the headers of an answer say about it.
pub(super) struct Labels {
    pub(super) receipt: Option<String>,
    pub(super) model: String,
    pub(super) workers: Option<String>,
    pub(super) verification: &'static str,
    pub(super) cost: Option<String>,
}

impl Labels {
    /// Those of an answer that is whole.
    pub(super) fn of(note: SuretyNote) -> Labels {
        Labels {
            receipt: note.receipt,
            model: note.model,
            workers: Some(note.workers.join(", ")),
            verification: note.verification,
            cost: Some(note.cost),
        }
    }

    /// What is said of the check of an answer that has just begun.
    pub(super) fn verification(checked: bool) -> &'static str {
        if checked { "pending" } else { NOT_REQUESTED }
    }

    pub(super) fn stick(self, response: &mut Response) {
        let headers = response.headers_mut();
        for (name, value) in [
            ("x-surety-receipt", self.receipt),
            ("x-surety-model", Some(self.model)),
            ("x-surety-workers", self.workers),
            ("x-surety-verification", Some(self.verification.to_owned())),
            ("x-surety-cost", self.cost),
        ] {
            let Some(value) = value else { continue };
            let value = HeaderValue::try_from(value).expect("hexadecimal digits and words");
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

pub(super) fn receipt_path(id: RequestId) -> String {
    format!("/v1/receipts/{id}")
}

pub(super) fn stopping() -> ApiError {
    let message = "The gateway was stopped before the answer was whole. Send the request again shortly.";
    ApiError::new(Code::GatewayStopping, message)
}

impl Job {
    /// The response: a stream, or one document, as was asked.
    pub(super) async fn respond(self) -> Result<Response, ApiError> {
        let (id, mut labels) = (self.id, self.labels());
        let mut response = if self.ask.stream {
            self.stream()
        } else {
            let (json, note) = self.document().await?;
            let mut response = Response::new(Body::from(json));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            labels = Labels::of(note);
            response
        };
        response.extensions_mut().insert(id);
        labels.stick(&mut response);
        Ok(response)
    }

    /// What is known of an answer that has just begun.
    pub(super) fn labels(&self) -> Labels {
        Labels {
            receipt: Some(receipt_path(self.id)),
            model: self.model.id.to_string(),
            workers: Some(keys(self.answering.workers().iter())),
            verification: Labels::verification(self.ask.preferences.checked),
            // A stream's cost is known at its end, and is in its last event.
            cost: self.answering.is_free().then(|| "0".to_owned()),
        }
    }

    /// Gives the text of the one answer to `hear` as it comes; returns how it ended. What its stream needs to go on is kept
    /// until somebody forgets it.
    pub(super) async fn tell(
        &mut self,
        mut hear: impl FnMut(&str) + Send,
    ) -> Result<(&'static str, Usage, SuretyNote), ApiError> {
        let told = self.told_to(&mut hear).await;
        told.inspect_err(|failure| self.failed(failure))
    }

    async fn told_to(
        &mut self,
        hear: &mut (impl FnMut(&str) + Send),
    ) -> Result<(&'static str, Usage, SuretyNote), ApiError> {
        self.log = None;
        let known = mem::take(&mut self.told.known);
        if !known.is_empty() {
            hear(&known);
        }
        let shared = Arc::clone(&self.shared);
        let mut halted = pin!(shared.halted());
        loop {
            match self.next(halted.as_mut()).await? {
                (_, Event::Prompt { .. }) => {}
                (_, Event::Output { text, .. }) => {
                    self.first_byte_ms.get_or_insert_with(unix_ms);
                    self.telemetry.token();
                    hear(self.told.new_of(&text)?);
                }
                (index, Event::Finished(finished)) => {
                    let reason = finished.reason;
                    self.finished[index] = Some(finished);
                    let (usage, note) = self.conclude().await?;
                    return Ok((reason, usage, note));
                }
            }
        }
    }

    /// How its answers are worded.
    pub(super) fn wording(&self) -> Box<dyn Wording> {
        let digits = self.model.id.0.to_string();
        let heading = Heading {
            request: self.id,
            created: self.received_ms / 1000,
            model: self.model.name.clone(),
            fingerprint: format!("fp_{}", &digits[..FINGERPRINT_DIGITS]),
            calls: self.model.calls,
            prompt_tokens: self.answering.prompt_tokens(),
        };
        let marks = self.log.clone().map(|log| Marks { request: self.id, position: self.told.position, log });
        let mut wording = wording::of(heading, &self.ask, marks);
        if !self.told.known.is_empty() {
            wording.output(0, &self.told.known, &[]);
        }
        wording
    }

    /// The next event, or that the gateway stops.
    async fn next(
        &mut self,
        mut halted: Pin<&mut (impl Future<Output = ()> + ?Sized)>,
    ) -> Result<(usize, Event), ApiError> {
        tokio::select! {
            step = self.answering.next() => match step {
                Some(step) => step,
                None => Err(ApiError::bug("the worker ended with answers missing")),
            },
            () = &mut halted => Err(stopping()),
        }
    }

    /// Takes in an event; true when it was the last of all.
    fn take(&mut self, wording: &mut dyn Wording, index: usize, event: Event) -> Result<bool, ApiError> {
        match event {
            Event::Prompt { first, logprobs } => wording.prompt(index, &logprobs, first),
            Event::Output { text, logprobs } => {
                self.telemetry.token();
                wording.output(index, self.told.new_of(&text)?, &logprobs);
            }
            Event::Finished(finished) => {
                self.told.check_end()?;
                if let Some(vector) = finished.vector() {
                    wording.vector(index, vector);
                }
                self.finished[index] = Some(finished);
            }
        }
        Ok(self.finished.iter().all(Option::is_some))
    }

    /// The whole answer as one document, and what is known about it.
    pub(super) async fn document(mut self) -> Result<(Bytes, SuretyNote), ApiError> {
        let made = self.whole().await;
        made.inspect_err(|failure| self.failed(failure))
    }

    /// Tells all who follow it.
    fn failed(&mut self, failure: &ApiError) {
        self.trail.failed(failure);
        self.telemetry.failed(failure);
        self.hold.fail();
    }

    async fn whole(&mut self) -> Result<(Bytes, SuretyNote), ApiError> {
        let mut wording = self.wording();
        let shared = Arc::clone(&self.shared);
        let mut halted = pin!(shared.halted());
        loop {
            let (index, event) = self.next(halted.as_mut()).await?;
            if self.take(&mut *wording, index, event)? {
                break;
            }
        }
        let reasons: Vec<&'static str> =
            self.finished.iter().flatten().map(|finished| finished.reason).collect();
        let (usage, note) = self.conclude().await?;
        Ok((wording.document(&reasons, usage, note.clone()), note))
    }

    /// The answer as it comes, made by a task of its own.
    fn stream(self) -> Response {
        let wording = self.wording();
        let vanished = ApiError::bug("the task that made the answer ended without a word");
        let content_type = wording.content_type();
        let (events, body) =
            sse::pipe(self.shared.keep_alive, wording.keep_alive(), wording.failed(&vanished));
        let maker = tokio::spawn(self.make(wording, events));
        let mut response = Response::new(body::Body::from_stream(body.made_by(maker.abort_handle())));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        // Proxies that collect a stream before passing it on defeat its purpose.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// Makes the whole stream.
    pub(super) async fn make(mut self, mut wording: Box<dyn Wording>, events: Events) {
        match self.follow(&mut *wording, &events).await {
            Ok(last) => events.end(last),
            Err(failure) => {
                self.failed(&failure);
                let (request, code) = (self.id, failure.code().as_str());
                info!(%request, code, "stream ended with an error");
                self.shared.metrics.failed(&failure);
                events.end(wording.failed(&failure));
            }
        }
    }

    /// Sends events as they come; returns the last of them.
    async fn follow(&mut self, wording: &mut dyn Wording, events: &Events) -> Result<Bytes, ApiError> {
        let shared = Arc::clone(&self.shared);
        let mut halted = pin!(shared.halted());
        loop {
            let news = wording.news();
            let full = wording.pending_bytes() > PENDING_BYTES_MAX;
            let step = tokio::select! {
                biased;
                () = events.room(), if news.is_some() => None,
                step = self.next(halted.as_mut()), if !full => Some(step?),
            };
            let Some((index, event)) = step else {
                if let Some(piece) = news.and_then(|index| wording.events(index)) {
                    self.first_byte_ms.get_or_insert_with(unix_ms);
                    events.send(piece);
                }
                continue;
            };
            let ended = matches!(event, Event::Finished(_)).then_some(index);
            let all = self.take(wording, index, event)?;
            let Some(index) = ended else { continue };
            let reason = self.finished[index].as_ref().map_or("stop", |finished| finished.reason);
            self.first_byte_ms.get_or_insert_with(unix_ms);
            if !all {
                events.send(wording.finish(index, reason, None));
                continue;
            }
            let end = self.conclude().await?;
            return Ok(wording.finish(index, reason, Some(end)));
        }
    }

    /// Every answer is whole and checked: counts the tokens, signs the envelope, keeps the evidence.
    async fn conclude(&mut self) -> Result<(Usage, SuretyNote), ApiError> {
        let finished: Vec<Finished> = self.finished.iter_mut().filter_map(Option::take).collect();
        if finished.len() != self.ask.answers() {
            return Err(ApiError::bug("answers are missing at the end"));
        }
        let usage = usage(&finished, self.ask.choices as usize);
        let subjects = compared::subjects(&self.shared, &self.ask, &self.model, &finished);
        let mut note = note(&finished, self.id, &self.model);
        if self.ask.preferences.checked && self.model.arithmetic == NO_ARITHMETIC {
            compared::compare(&self.shared, &subjects, &self.trail, &mut note).await?;
        }
        compared::tier(&self.shared, &self.ask, &self.model, &finished, &mut note)?;
        let reasons: Vec<&str> = finished.iter().map(|finished| finished.reason).collect();
        note.tool_calls = self.model.calls.filter(|_| self.ask.tools.is_some()).map(shapes::call_format);
        let charge = charge(&finished);
        let evidence = self.evidence(finished, charge)?;
        // Whoever finds the receipt after a crash is to know who is charged for it.
        self.hold.on_disk().await;
        let kept = self.shared.receipts.keep(self.id, evidence).await;
        let tokens =
            [usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.completion_tokens];
        let charged = self.hold.complete(tokens, self.first_byte_ms, kept.is_err());
        if let Err(failure) = kept {
            note.receipt = None;
            note.note = Some(failure.to_string());
            if let Some(charged) = charged {
                // If that fails too, it has been logged.
                let _ = charged.outcome().await;
            }
        }
        self.trail.answered(charge);
        if !self.ask.preferences.checked {
            let trail = self.trail.clone();
            comparisons::perhaps_compare(&self.shared, subjects, &self.ask.preferences, move |compared| {
                comparisons::note(&trail, compared);
                // The story that is kept says it, too.
                trail.answered(charge);
            });
        }
        if let Some(log) = &self.log {
            log.forget();
        }
        self.telemetry.done(&reasons, &usage, &note, u64::try_from(charge.0).unwrap_or(u64::MAX));
        info!(
            request = %self.id,
            model = self.model.name,
            workers = note.workers.len(),
            prompt_tokens = usage.prompt_tokens,
            completion_tokens = usage.completion_tokens,
            took_ms = unix_ms().saturating_sub(self.received_ms),
            stored = note.receipt.is_some(),
            "answer complete"
        );
        Ok((usage, note))
    }

    fn evidence(&self, finished: Vec<Finished>, charge: Amount) -> Result<Evidence, ApiError> {
        let (wholes, checks): (Vec<_>, Vec<_>) =
            finished.into_iter().map(|finished| (finished.whole, finished.check)).unzip();
        //
        let shares = wholes.into_iter().chain(checks.into_iter().flatten()).flat_map(|whole| whole.shares);
        let (parts, answers) = shares.map(|share| (share.part, share.answer)).unzip();
        let first_byte_ms = self.first_byte_ms.unwrap_or_else(unix_ms).max(self.received_ms);
        let envelope = Envelope {
            request_id: self.id.to_string(),
            gateway: self.shared.key.public(),
            model_name: self.ask.model.clone(),
            parts,
            received_ms: self.received_ms,
            first_byte_ms,
            done_ms: unix_ms().max(first_byte_ms),
            charge,
        };
        let envelope = Signed::try_sign(envelope, &self.shared.key).map_err(|invalid| {
            error!(request = %self.id, %invalid, "an envelope cannot be signed");
            ApiError::bug("the envelope of the answer cannot be signed")
        })?;
        Ok(Evidence { request_id: self.id.to_string(), envelope: envelope.bytes().to_vec(), answers })
    }
}

/// Counts tokens: each prompt once, every answer.
fn usage(finished: &[Finished], choices: usize) -> Usage {
    let wholes = || finished.iter().map(|finished| &finished.whole);
    let prompt_tokens = wholes().step_by(choices).map(|whole| u64::from(whole.prompt_tokens)).sum();
    let cached_tokens = wholes().step_by(choices).map(|whole| u64::from(whole.cached_tokens)).sum();
    let completion_tokens = wholes().map(|whole| u64::from(whole.output_tokens)).sum();
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: PromptTokensDetails { cached_tokens, audio_tokens: 0 },
        completion_tokens_details: CompletionTokensDetails::default(),
    }
}

/// What the answers cost, in micro-credits. No sum of amounts that were paid overflows.
fn charge(finished: &[Finished]) -> Amount {
    let charges = shares(finished).chain(checks(finished)).map(|share| share.charge);
    charges.fold(Amount::ZERO, |sum, charge| Amount(sum.0.saturating_add(charge.0)))
}

fn shares(finished: &[Finished]) -> impl Iterator<Item = &Share> {
    finished.iter().flat_map(|finished| &finished.whole.shares)
}

/// The parts of who computed the answers again, to have them compared.
fn checks(finished: &[Finished]) -> impl Iterator<Item = &Share> {
    finished.iter().filter_map(|finished| finished.check.as_ref()).flat_map(|whole| &whole.shares)
}

/// The workers of some parts, each once, in the order of their tokens.
fn workers<'a>(shares: impl Iterator<Item = &'a Share>) -> Vec<String> {
    let mut workers: Vec<String> = Vec::new();
    for worker in shares.map(|share| share.part.worker.to_string()) {
        if !workers.contains(&worker) {
            workers.push(worker);
        }
    }
    workers
}

/// What is known about the answers, of which each was checked alike.
fn note(finished: &[Finished], id: RequestId, model: &Resolved) -> SuretyNote {
    let looked = finished.first().map(|finished| &finished.whole.checked);
    let mut checked: Vec<String> =
        looked.iter().flat_map(|looked| &looked.checked).map(ToString::to_string).collect();
    let checked_by = workers(checks(finished));
    if !checked_by.is_empty() {
        checked.push(Check::Repeated.to_string());
    }
    SuretyNote {
        request_id: id.to_string(),
        receipt: Some(receipt_path(id)),
        model: model.id.to_string(),
        tier: model.tier.name(),
        workers: workers(shares(finished)),
        verification: if checked_by.is_empty() { NOT_REQUESTED } else { "passed" },
        checked_by,
        handovers: (shares(finished).count() - finished.len()) as u32,
        waits: finished.iter().flat_map(|finished| &finished.whole.waits).map(wait).collect(),
        cost: charge(finished).to_string(),
        checked,
        not_checked: looked.iter().flat_map(|looked| &looked.unchecked).map(ToString::to_string).collect(),
        tool_calls: None,
        note: None,
    }
}

fn wait(waited: &Waited) -> HandoverWait {
    let ms = |time: Duration| time.as_millis() as u64;
    let Waited { noticed, placed, began } = *waited;
    HandoverWait { noticed_ms: ms(noticed), placed_ms: ms(placed), began_ms: ms(began) }
}

/// Keys as a header holds them.
fn keys<'a>(keys: impl Iterator<Item = &'a PublicKey>) -> String {
    keys.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
