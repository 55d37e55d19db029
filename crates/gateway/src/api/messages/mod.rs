//! Messages: Anthropic's protocol.
//!
//! In:     POST requests, and GET requests for models that carry `anthropic-version`.
//! Out:    messages, as one document or a stream of events; counts of tokens; pages of models.
//! Touches: workers, through `generate`.
//! Holds:  as for every protocol: a stream ends with `message_stop`, after every receipt was checked, or with one `error`
//!         event. A count is what a worker signs for, and costs nothing.
//! Absent: errors' shape (`dialect`).

pub(super) mod models;
pub(super) mod parameters;
pub(super) mod read;
pub(super) mod shapes;
mod stops;
pub(super) mod wording;

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Extension, State},
    http::HeaderMap,
    response::Response,
};
use surety_types::CivilDate;

use self::shapes::{Message, MessageEvent, MessageTokens};
use super::{
    body::Text,
    dialect::MessageErrorBody,
    generate::{self, Call},
    openapi::{CountTokensRequest, MessageRequest},
    parameters::Route,
    unix_ms,
};
use crate::{error::ApiError, gateway::Shared, id::RequestId, telemetry::TraceParent};

/// Answer a conversation, as Anthropic shapes it.
#[utoipa::path(post, path = "/v1/messages", tag = "answers", request_body = MessageRequest, params(
    ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event of a stream that broke off: the rest of it is sent. The body is the same as before."),
), responses(
    (status = 200, description = "The answer; with `stream: true`, server-sent events, ended by `message_stop` or by an `error` event.",
        content((Message<'static> = "application/json"), (MessageEvent<'static> = "text/event-stream"))),
    (status = "4XX", description = "The request cannot be answered as it is.", body = MessageErrorBody),
    (status = "5XX", description = "It was not answered; `error.details.metadata` says who answers for that and whether a retry helps.", body = MessageErrorBody),
))]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    generate::answer(shared, id, Route::Messages, headers, body).await
}

/// Count the tokens of a conversation.
///
/// A worker that serves the model renders and counts it, signs for the number, and is told to stop.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "answers", request_body = CountTokensRequest, responses(
    (status = 200, description = "How many there are, with the template's own.", body = MessageTokens),
    (status = "4XX", description = "They cannot be counted.", body = MessageErrorBody),
    (status = "5XX", description = "They were not counted; `error.details.metadata` says who answers for that and whether a retry helps.", body = MessageErrorBody),
))]
pub(super) async fn count_tokens(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<MessageTokens>, ApiError> {
    let received_ms = unix_ms();
    let trace = TraceParent::of(&headers);
    let Text { text, share } = shared.intake.read(&headers, body).await?;
    let call = Call { id, received_ms, today: CivilDate::from_unix_ms(received_ms), trace, share };
    let today = call.today;
    let ask = generate::understand(text, move |text| read::read(text, Route::CountTokens, today)).await?;
    let input_tokens = generate::count(shared, call, ask).await?;
    Ok(Json(MessageTokens { input_tokens }))
}
