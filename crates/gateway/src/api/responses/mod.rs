//! Responses: OpenAI's newer way to ask, whose answers are kept.
//!
//! In:     POST, GET and DELETE requests. Out: responses, as documents or as streams of events.
//! Touches: workers, through `live`; the store of responses.
//! Holds:  a response is found by whoever has its id, which nobody guesses, and the key it was asked with, where there
//!         are keys. A stream can be gone on with from any event by them, while the response is made and as long as it is kept. What is not to be stored is
//!         nowhere once it is answered.
//! Absent: understanding bodies (`ask`, `items`), events and documents (`record`, `said`), making them (`live`), the disk (`store`).

mod ask;
mod history;
mod items;
mod live;
mod record;
mod said;
mod shapes;
pub(crate) mod store;

use std::{str::FromStr, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Extension, Path, Query, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use surety_types::CivilDate;

pub(crate) use self::live::{Responses, unfinished};
use self::{
    ask::Asked,
    history::{Found, Library},
    live::{Kept, Leave, Live, Order, Source, begun, make},
    record::{End, Head, Transcript},
    shapes::{DeletedResponse, InputItem, InputItems, ResponseEvent, ResponseObject, ResponseTokens},
    store::Keeping,
};
use super::{
    body::Text,
    fields::quote,
    generate::{self, Call, Labels, fits, receipt_path},
    last_event::Broken,
    look::path_text,
    nearest::nearest,
    openapi::{CountResponse, CreateResponse},
    parameters::Route,
    unix_ms,
};
use crate::{
    error::{Accountable, ApiError, Code, ErrorBody},
    gateway::Shared,
    id::RequestId,
    keys::Tenant,
    telemetry::TraceParent,
};

/// Items of one page of a list.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;
/// Pairs of a query.
const QUERY_MAX: usize = 64;

/// Ask for a response.
#[utoipa::path(post, path = "/v1/responses", tag = "responses", request_body = CreateResponse, responses(
    (status = 200, description = "The response; with `stream: true`, its events as they come, ended by `response.completed`, `response.incomplete` or `response.failed`, or by `error` where the stream broke off; with `background: true`, the response as it begins.",
        content((ResponseObject<'static> = "application/json"), (ResponseEvent<'static> = "text/event-stream"))),
    (status = "4XX", description = "The request cannot be answered as it is.", body = ErrorBody),
    (status = "5XX", description = "It was not answered; `metadata` says who answers for that and whether a retry helps.", body = ErrorBody),
))]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let received_ms = unix_ms();
    let trace = TraceParent::of(&headers);
    let Text { text, share } = shared.intake.read(&headers, body).await?;
    let tenant = Tenant::current(&shared.keys)?;
    let library = Library::of(&shared, tenant.key());
    let read = tokio::task::spawn_blocking(move || {
        let asked = Asked::parse(&text)?;
        let conversation = history::conversation(&library, &asked, id)?;
        Ok((text, asked, conversation))
    });
    let (text, asked, conversation) =
        read.await.map_err(|_| ApiError::bug("reading the body panicked"))??;
    shared.open()?;
    if tenant.is_sent_again()
        && let Ok(live) = find(&shared, id).await
    {
        return attached(&shared, &live).await;
    }
    let model = shared.workers.resolve(&asked.model)?;
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| ApiError::bug("the random source failed"))?;
    let (name, model_id) = (model.name.clone(), model.id.to_string());
    let body = if asked.store { text } else { String::new() };
    let head = Arc::new(Head {
        id,
        tenant: tenant.key(),
        body,
        asked,
        model: name,
        model_id,
        calls: model.calls,
        nonce,
        received_ms,
    });
    let asked = &head.asked;
    let begun = begun(&head, model.id);
    let ask = asked.ask(conversation, begun.date)?;
    fits(&ask, &model)?;
    let live = Live::new(Transcript::new(Arc::clone(&head)));
    let call = Call { id, received_ms, today: begun.date, trace, share };
    let broken = Broken::anew(id, begun);
    let (stream, background) = (asked.stream, asked.background);
    let reader = live.read();

    let (labels, source, kept) = if background {
        tenant.sent_on_disk().await;
        keep_beginning(&shared, &live).await?;
        let kept = Kept::Begun(tokio::spawn(std::future::ready(Ok(()))));
        let labels = Labels {
            receipt: Some(receipt_path(id)),
            model: model.id.to_string(),
            workers: None,
            verification: Labels::verification(asked.checked()),
            cost: None,
        };
        (labels, Source::Order(Box::new(Order { call, ask, broken, tenant })), kept)
    } else {
        let broken = asked.is_kept_from_the_start().then_some(broken);
        let job = generate::start(Arc::clone(&shared), call, ask, broken).await?;
        live.begin();
        let kept = if asked.is_kept_from_the_start() {
            // As it begins: what it says by and by is kept elsewhere.
            let record = live.look(|transcript| transcript.to_bytes(None));
            let shared = Arc::clone(&shared);
            Kept::Begun(tokio::spawn(async move {
                tenant.sent_on_disk().await;
                shared.responses.store.keep(id, Keeping::Begun, record).await
            }))
        } else if asked.store {
            Kept::Whole
        } else {
            Kept::Nothing
        };
        (job.labels(), Source::Job(Box::new(job)), kept)
    };
    if asked.is_kept_from_the_start() {
        shared.responses.list(&live);
    }
    tokio::spawn(make(Arc::clone(&shared), Arc::clone(&live), source, kept));

    let (mut response, labels) = if stream {
        (events(reader.stream(0, shared.keep_alive)), labels)
    } else if background {
        (document(live.document()), labels)
    } else {
        let (json, note) = reader.whole().await?;
        (document(json), note.map_or(labels, Labels::of))
    };
    labels.stick(&mut response);
    Ok(response)
}

/// What is counted of other routes in `messages` is in `input` here.
fn of_input(error: ApiError) -> ApiError {
    match error.param() {
        Some("messages") => error.with_param("input"),
        _ => error,
    }
}

/// Count the tokens of what a response would be asked for.
///
/// A worker that serves the model renders and counts it, signs for the number, and is told to stop.
#[utoipa::path(post, path = "/v1/responses/input_tokens", tag = "responses", request_body = CountResponse, responses(
    (status = 200, description = "How many there are, with the template's own.", body = ResponseTokens),
    (status = "4XX", description = "They cannot be counted.", body = ErrorBody),
    (status = "5XX", description = "They were not counted; `metadata` says who answers for that and whether a retry helps.", body = ErrorBody),
))]
pub(super) async fn input_tokens(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ResponseTokens>, ApiError> {
    let received_ms = unix_ms();
    let trace = TraceParent::of(&headers);
    let Text { text, share } = shared.intake.read(&headers, body).await?;
    let library = Library::of(&shared, Tenant::current(&shared.keys)?.key());
    let today = CivilDate::from_unix_ms(received_ms);
    let read = tokio::task::spawn_blocking(move || {
        let asked = Asked::parse_of(&text, Route::ResponseTokens)?;
        asked.count(history::conversation(&library, &asked, id)?, today)
    });
    let ask = read.await.map_err(|_| ApiError::bug("reading the body panicked"))??;
    let call = Call { id, received_ms, today, trace, share };
    let input_tokens = generate::count(shared, call, ask).await.map_err(of_input)?;
    Ok(Json(ResponseTokens { object: "response.input_tokens", input_tokens }))
}

/// Compaction is not offered.
#[utoipa::path(post, path = "/v1/responses/compact", tag = "responses", responses(
    (status = 400, description = "Always: what was said before is not shortened unseen.", body = ErrorBody),
))]
pub(super) async fn compact() -> ApiError {
    let message = "/v1/responses/compact is not supported here: nothing that was said is left out unseen. Ask the model for a \
                   summary, and begin a new conversation with it.";
    ApiError::new(Code::UnsupportedParameter, message)
}

/// The response that a gateway that was stopped had begun, to whoever sends its request again.
async fn attached(shared: &Arc<Shared>, live: &Arc<Live>) -> Result<Response, ApiError> {
    let head = &live.head;
    let mut labels = Labels {
        receipt: Some(receipt_path(head.id)),
        model: head.model_id.clone(),
        workers: None,
        verification: "pending",
        cost: None,
    };
    let mut response = if head.asked.stream {
        events(live.read().stream(0, shared.keep_alive))
    } else if head.asked.background {
        document(live.document())
    } else {
        let (json, note) = live.read().whole().await?;
        labels = note.map_or(labels, Labels::of);
        document(json)
    };
    labels.stick(&mut response);
    response.extensions_mut().insert(head.id);
    Ok(response)
}

/// A response in the background is on the disk before its caller hears of it.
async fn keep_beginning(shared: &Shared, live: &Live) -> Result<(), ApiError> {
    let record = live.look(|transcript| transcript.to_bytes(None));
    shared.responses.store.keep(live.head.id, Keeping::Begun, record).await.map_err(|failure| {
        let message =
            format!("The response would be lost: {failure}. Leave `background` out, or try again later.");
        ApiError::new(Code::Overloaded, message).with_accountable(Accountable::Gateway)
    })
}

fn document(json: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

fn events(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    // Proxies that collect a stream before passing it on defeat its purpose.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A response, or the rest of its stream.
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "responses", params(
    ("id" = String, Path, description = "`resp_…`."),
    ("stream" = Option<bool>, Query, description = "Its events, as they come if it is still being made. Default false."),
    ("starting_after" = Option<u64>, Query, description = "With `stream`: only those behind this `sequence_number`."),
    ("include" = Option<Vec<String>>, Query, description = "Nothing that it may name is ever left out; no log-probabilities."),
    ("include_obfuscation" = Option<bool>, Query, description = "Changes nothing."),
), responses(
    (status = 200, description = "The response as it stands, or its events.",
        content((ResponseObject<'static> = "application/json"), (ResponseEvent<'static> = "text/event-stream"))),
    (status = 400, description = "The query is not understood.", body = ErrorBody),
    (status = 404, description = "Nothing is kept under that id.", body = ErrorBody),
))]
pub(super) async fn retrieve(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let id = response_id(asked)?;
    let Retrieve { stream, starting_after } = Retrieve::parse(&uri)?;
    let live = find(&shared, id).await?;
    if !stream {
        return Ok(document(live.document()));
    }
    let from = starting_after.map_or(0, |number| number + 1);
    Ok(events(live.read().stream(from, shared.keep_alive)))
}

/// End a response that is made in the background.
#[utoipa::path(post, path = "/v1/responses/{id}/cancel", tag = "responses", params(("id" = String, Path, description = "`resp_…`.")), responses(
    (status = 200, description = "The response, which has ended.", body = ResponseObject<'static>),
    (status = 400, description = "It is not made in the background: close its connection.", body = ErrorBody),
    (status = 404, description = "Nothing is kept under that id.", body = ErrorBody),
))]
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = response_id(asked)?;
    let live = find(&shared, id).await?;
    if !live.head.asked.background {
        let message = "The response is not made in the background. Close its connection to end it.";
        return Err(ApiError::invalid("id", message));
    }
    live.leave(Leave::Cancel).await;
    Ok(document(live.document()))
}

/// Delete a response.
///
/// One that is still being made ends. The receipt of the request stays.
#[utoipa::path(delete, path = "/v1/responses/{id}", tag = "responses", params(("id" = String, Path, description = "`resp_…`.")), responses(
    (status = 200, description = "It is gone.", body = DeletedResponse),
    (status = 404, description = "Nothing is kept under that id.", body = ErrorBody),
    (status = 503, description = "It could not be deleted from the disk.", body = ErrorBody),
))]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let id = response_id(asked)?;
    let library = Library::of(&shared, Tenant::current(&shared.keys)?.key());
    let mine = tokio::task::spawn_blocking(move || library.find(id)).await;
    if matches!(mine.map_err(|_| ApiError::bug("reading responses panicked"))??, Found::Nothing) {
        return Err(nothing_kept(id));
    }
    let live = shared.responses.live(id);
    if let Some(live) = &live {
        live.leave(Leave::Delete).await;
    }
    let was_kept = shared.responses.store.forget(id).await.map_err(|failure| {
        let message = format!("It may still be kept: {failure}. Try again later.");
        ApiError::new(Code::Overloaded, message).with_accountable(Accountable::Gateway)
    })?;
    if !was_kept && live.is_none() {
        return Err(nothing_kept(id));
    }
    Ok(Json(DeletedResponse { id: id.response(), object: "response", deleted: true }))
}

/// What a response answered.
///
/// All of it: what was said in the responses it goes on from, too.
#[utoipa::path(get, path = "/v1/responses/{id}/input_items", tag = "responses", params(
    ("id" = String, Path, description = "`resp_…`."),
    ("limit" = Option<usize>, Query, description = "Items at most, 1 to 100. Default 20."),
    ("order" = Option<String>, Query, description = "`desc`, the latest first, which is the default; or `asc`."),
    ("after" = Option<String>, Query, description = "Only those behind this item, in that order."),
    ("include" = Option<Vec<String>>, Query, description = "Nothing that it may name is ever left out; no log-probabilities."),
), responses(
    (status = 200, description = "The items.", body = InputItems),
    (status = 400, description = "The query is not understood, or what the response goes on from is not kept any more.", body = ErrorBody),
    (status = 404, description = "Nothing is kept under that id.", body = ErrorBody),
))]
pub(super) async fn input_items(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<InputItems>, ApiError> {
    let id = response_id(asked)?;
    let page = Page::parse(&uri)?;
    let head = Arc::clone(&find(&shared, id).await?.head);
    let library = Library::of(&shared, head.tenant);
    let read = tokio::task::spawn_blocking(move || history::items(&library, &head.asked, id));
    let items = read.await.map_err(|_| ApiError::bug("reading a response panicked"))??;
    page.of(items).map(Json)
}

/// The response that a path names.
fn response_id(path: Result<Path<String>, PathRejection>) -> Result<RequestId, ApiError> {
    let text = path_text(path)?;
    RequestId::parse(&text).filter(|id| id.response() == text).ok_or_else(|| {
        let message = format!(
            "\"{}\" is not a response's id. They look like resp_ and 32 digits, as in the response's `id`.",
            quote(&text),
        );
        ApiError::new(Code::NotFound, message).with_param("id")
    })
}

fn nothing_kept(id: RequestId) -> ApiError {
    let message = format!(
        "Nothing is kept for {}: it was deleted, is too old, was not stored, or is another gateway's.",
        id.response(),
    );
    ApiError::new(Code::NotFound, message).with_param("id")
}

/// Whether a response is there, and its caller's.
pub(super) async fn is_there(shared: &Arc<Shared>, id: RequestId) -> bool {
    find(shared, id).await.is_ok()
}

/// A response, being made or not.
async fn find(shared: &Arc<Shared>, id: RequestId) -> Result<Arc<Live>, ApiError> {
    let library = Library::of(shared, Tenant::current(&shared.keys)?.key());
    loop {
        if let Some(live) = library.live(id) {
            return Ok(live);
        }
        let library = library.clone();
        let found = tokio::task::spawn_blocking(move || library.find(id)).await;
        let mut transcript = match found.map_err(|_| ApiError::bug("reading responses panicked"))?? {
            Found::Ended(transcript, _) => *transcript,
            // It began between the two looks.
            Found::Live => continue,
            Found::Nothing => return Err(nothing_kept(id)),
        };
        if transcript.end().is_none() {
            let message = "How the response ended could not be written to the gateway's disk. Ask again.";
            let failure = ApiError::new(Code::GatewayBug, message);
            transcript.end_with(End::failed(&failure, id, unix_ms()));
        }
        return Ok(Live::ended(transcript));
    }
}

/// The pairs of a query, each of whose names is known.
fn query(uri: &Uri, known: &[&'static str]) -> Result<Vec<(String, String)>, ApiError> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| {
        ApiError::new(Code::InvalidParam, "The query is not UTF-8 in percent-encoding. Encode it as such.")
    })?;
    let Query(pairs) = pairs;
    if pairs.len() > QUERY_MAX {
        let message = format!("The query has {} parameters. Send at most {QUERY_MAX}.", pairs.len());
        return Err(ApiError::new(Code::InvalidParam, message));
    }
    for (name, value) in &pairs {
        if ["include", "include[]"].contains(&name.as_str()) {
            ask::check_included("include", value)?;
        } else if !known.contains(&name.as_str()) {
            let message = match nearest(name, known.iter().copied()) {
                Some(near) => format!("There is no parameter `{}` here. Did you mean `{near}`?", quote(name)),
                None => {
                    format!("There is no parameter `{}` here. There are {}.", quote(name), known.join(", "))
                }
            };
            return Err(ApiError::new(Code::UnknownParameter, message).with_param(quote(name)));
        }
    }
    Ok(pairs)
}

fn value<T: FromStr>(name: &str, text: &str, wanted: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| {
        ApiError::invalid(name, format!("`{name}` is \"{}\". It must be {wanted}.", quote(text)))
    })
}

/// How a response is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Retrieve {
    stream: bool,
    starting_after: Option<u64>,
}

impl Retrieve {
    fn parse(uri: &Uri) -> Result<Retrieve, ApiError> {
        let mut retrieve = Retrieve::default();
        for (name, text) in query(uri, &["stream", "starting_after", "include", "include_obfuscation"])? {
            match name.as_str() {
                "stream" => retrieve.stream = value(&name, &text, "true or false")?,
                "starting_after" => {
                    let wanted = "a `sequence_number`, an integer from 0";
                    retrieve.starting_after = Some(value::<u32>(&name, &text, wanted)?.into());
                }
                _ => {}
            }
        }
        if retrieve.starting_after.is_some() && !retrieve.stream {
            let message = "`starting_after` needs `stream=true`. Send both, or neither.";
            return Err(ApiError::invalid("starting_after", message));
        }
        Ok(retrieve)
    }
}

/// Which items of a list are wanted.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: usize,
    ascending: bool,
    after: Option<String>,
}

impl Page {
    fn parse(uri: &Uri) -> Result<Page, ApiError> {
        let mut page = Page { limit: LIMIT_DEFAULT, ascending: false, after: None };
        for (name, text) in query(uri, &["limit", "order", "after", "include"])? {
            match name.as_str() {
                "limit" => {
                    let wanted = format!("an integer from 1 to {LIMIT_MAX}");
                    let limit: usize = value(&name, &text, &wanted)?;
                    if !(1..=LIMIT_MAX).contains(&limit) {
                        return Err(ApiError::invalid(
                            "limit",
                            format!("`limit` is {limit}. It must be {wanted}."),
                        ));
                    }
                    page.limit = limit;
                }
                "order" => {
                    page.ascending = match text.as_str() {
                        "asc" => true,
                        "desc" => false,
                        _ => {
                            let message = format!("`order` is \"{}\". It must be asc or desc.", quote(&text));
                            return Err(ApiError::invalid("order", message));
                        }
                    };
                }
                "after" => page.after = Some(text),
                _ => {}
            }
        }
        Ok(page)
    }

    /// Those of all items, which come the oldest first.
    fn of(self, mut items: Vec<InputItem>) -> Result<InputItems, ApiError> {
        if !self.ascending {
            items.reverse();
        }
        let from = match &self.after {
            None => 0,
            Some(after) => match items.iter().position(|item| item.id() == after) {
                Some(index) => index + 1,
                None => {
                    let message = format!("`after` is \"{}\", which is no item of the list.", quote(after));
                    return Err(ApiError::invalid("after", message));
                }
            },
        };
        let mut data = items.split_off(from);
        let has_more = data.len() > self.limit;
        data.truncate(self.limit);
        let id = |item: Option<&InputItem>| item.map_or_else(String::new, |item| item.id().to_owned());
        Ok(InputItems {
            object: "list",
            first_id: id(data.first()),
            last_id: id(data.last()),
            data,
            has_more,
        })
    }
}

#[cfg(test)]
mod tests;
