//! API: the HTTP face, in the shapes of OpenAI, Anthropic, Ollama and a model hub.
//!
//! In:     HTTP requests. Out: HTTP responses.
//! Touches: what `gateway` holds: workers, receipts.
//! Holds:  every response carries `x-request-id`; every error is an error object of the protocol that was spoken, whatever
//!         went wrong, a panic included; no text of a prompt or an answer is logged.
//! Absent: connections and their limits (`server`), orders (`session`).

pub(crate) mod account;
pub(crate) mod ask;
pub(crate) mod batches;
pub(crate) mod body;
mod calls;
mod compared;
pub(crate) mod dialect;
mod earnings;
pub(crate) mod embeddings;
mod explanation;
mod explorer;
pub(crate) mod fields;
mod files;
pub(crate) mod fresh;
mod generate;
mod guard;
mod hub;
mod last_event;
pub(crate) mod ledger;
mod look;
mod mcp;
mod messages;
pub(crate) mod money;
mod names;
pub(crate) mod nearest;
pub(crate) mod network;
mod ollama;
pub(crate) mod once;
mod openapi;
mod pages;
pub(crate) mod parameters;
mod provider;
pub(crate) mod reply;
mod response_format;
pub(crate) mod responses;
pub(crate) mod shapes;
pub(crate) mod sse;
mod standing;
pub(crate) mod suffix;
mod surveys;
mod time;
mod tools;
mod wording;
mod x402;

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::FutureExt;
use surety_types::CivilDate;
use tracing::{error, info};

use self::dialect::Dialect;
use crate::{
    error::{ApiError, Code},
    gateway::Shared,
    id::RequestId,
    keys::Room,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Every path there is, for suggestions and tests.
pub(crate) const PATHS: &[&str] = &[
    "/",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/generate",
    "/api/models",
    "/api/models/{id}",
    "/api/models/{id}/refs",
    "/api/models/{id}/revision/{revision}",
    "/api/models/{id}/tree/{revision}",
    "/api/ps",
    "/api/show",
    "/api/tags",
    "/api/version",
    "/api/whoami-v2",
    pages::PATH,
    "/health",
    "/mcp",
    "/metrics",
    "/ready",
    "/openapi.json",
    "/v1/batches",
    "/v1/batches/{id}",
    "/v1/batches/{id}/cancel",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/files",
    "/v1/files/{id}",
    "/v1/files/{id}/content",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1/models/{id}",
    "/v1/network/accounts/{address}",
    "/v1/network/blocks",
    "/v1/network/blocks/{id}",
    "/v1/network/disputes",
    "/v1/network/disputes/{id}",
    "/v1/network/find",
    "/v1/network/transactions/{hash}",
    "/v1/network/economics",
    "/v1/network/governance",
    "/v1/network/powers",
    "/v1/network/live",
    "/v1/network/models/{id}/names",
    "/v1/network/operators/{id}",
    "/v1/network/operators/{id}/earnings",
    "/v1/network/operators/{id}/ledger",
    "/v1/network/service",
    "/v1/network/status",
    "/v1/receipts/{id}",
    "/v1/receipts/{id}/ledger",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/responses/{id}",
    "/v1/responses/{id}/cancel",
    "/v1/responses/{id}/input_items",
    "/v1/credits",
    "/v1/generations/{id}",
    "/v1/key",
    "/v1/quote",
    "/v1/requests",
    "/v1/usage",
    "/v1/usage/buckets",
    "/v1/requests/{id}/explanation",
    "/{id}/resolve/{revision}/{file}",
];

/// The routes.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    pages::routes(Router::new())
        .route("/health", get(look::health))
        .route("/mcp", post(mcp::serve))
        .route("/metrics", get(look::metrics))
        .route("/ready", get(look::ready))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/chat/completions", post(generate::chat_completions))
        .route("/v1/completions", post(generate::completions))
        .route("/v1/embeddings", post(generate::embeddings))
        .route(
            "/v1/files",
            get(files::list).post(files::create).layer(DefaultBodyLimit::max(files::FORM_BYTES_MAX)),
        )
        .route("/v1/files/{id}", get(files::get).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/v1/batches", get(batches::list).post(batches::create))
        .route("/v1/batches/{id}", get(batches::get))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/embed", post(ollama::embed::embed))
        .route("/api/embeddings", post(ollama::embed::embeddings))
        .route("/api/show", post(ollama::look::show))
        .route("/api/tags", get(ollama::look::tags))
        .route("/api/ps", get(ollama::look::running))
        .route("/api/version", get(ollama::look::version))
        .route("/api/models", get(hub::models))
        .route("/api/models/{*asked}", get(hub::model))
        .route("/api/whoami-v2", get(hub::whoami))
        .route("/{owner}/resolve/{revision}/{*file}", get(hub::file))
        .route("/{owner}/{name}/resolve/{revision}/{*file}", get(hub::file))
        .route("/v1/models", get(look::models))
        .route("/v1/models/{*id}", get(look::model))
        .route("/v1/network/accounts/{address}", get(explorer::account))
        .route("/v1/network/blocks", get(explorer::blocks))
        .route("/v1/network/blocks/{id}", get(explorer::block))
        .route("/v1/network/disputes", get(explorer::disputes))
        .route("/v1/network/disputes/{id}", get(explorer::dispute))
        .route("/v1/network/find", get(explorer::find))
        .route("/v1/network/transactions/{hash}", get(explorer::transaction))
        .route("/v1/network/economics", get(surveys::economics))
        .route("/v1/network/governance", get(surveys::governance))
        .route("/v1/network/powers", get(surveys::powers))
        .route("/v1/network/live", get(network::live))
        .route("/v1/network/models/{id}/names", get(names::names))
        .route("/v1/network/operators/{id}", get(network::operator))
        .route("/v1/network/operators/{id}/earnings", get(earnings::earnings))
        .route("/v1/network/operators/{id}/ledger", get(standing::standing))
        .route("/v1/network/service", get(network::service))
        .route("/v1/network/status", get(look::network_status))
        .route("/v1/receipts/{id}", get(look::receipt))
        .route("/v1/receipts/{id}/ledger", get(ledger::receipt_ledger))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/compact", post(responses::compact))
        .route("/v1/responses/input_tokens", post(responses::input_tokens))
        .route("/v1/responses/{id}", get(responses::retrieve).delete(responses::delete))
        .route("/v1/responses/{id}/cancel", post(responses::cancel))
        .route("/v1/responses/{id}/input_items", get(responses::input_items))
        .route("/v1/credits", get(money::credits).post(x402::buy))
        .route("/v1/generations/{id}", get(money::generation))
        .route("/v1/quote", post(money::quote_answer))
        .route("/v1/usage", get(money::usage))
        .route("/v1/usage/buckets", get(account::buckets))
        .route("/v1/key", get(account::key))
        .route("/v1/requests", get(account::requests))
        .route("/v1/requests/{id}/explanation", get(explanation::explanation))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), outermost))
        .with_state(shared)
}

/// Around every handler: the id, the panics, the errors' form, one line of log.
async fn outermost(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let Ok(id) = RequestId::random() else {
        // Without randomness nothing here can work, the id included.
        error!("the system's random source failed");
        return Code::GatewayBug.status().into_response();
    };
    let began = Instant::now();
    let (method, path) = (request.method().clone(), known_path(request.extensions().get(), request.uri()));
    let dialect = Dialect::of(request.uri().path(), request.headers());
    request.extensions_mut().insert(id);
    let trail = shared.journal.trail(id);
    trail.asked(shared.key.public(), path, unix_ms());
    let mut response = match check_host(&shared, &request) {
        Err(error) => error.into_response(),
        Ok(()) => shielded(next.run(request)).await,
    };
    let room = response.extensions_mut().remove::<Room>();
    let paying = response.extensions_mut().remove::<x402::Told>();
    // Not to be ready is an answer, not a failure.
    if let Some(failure) = response.extensions().get::<ApiError>().filter(|_| path != "/ready") {
        trail.failed(failure);
    }
    // An answer that goes on keeps the id it began with.
    let id = response.extensions().get::<RequestId>().copied().unwrap_or(id);
    if let Some(failure) = response.extensions().get::<ApiError>() {
        shared.metrics.failed(failure);
    }
    let mut response = conclude(response, id, dialect, &method, path, began);
    shared.metrics.answered(method.as_str(), path, response.status().as_u16());
    let headers = response.headers_mut();
    let text = HeaderValue::try_from(id.to_string()).expect("hexadecimal digits");
    dialect.mark(headers, &text);
    headers.insert(REQUEST_ID, text);
    if let Some(room) = room {
        guard::tell(headers, &room);
    }
    if let Some(x402::Told(name, value)) = paying {
        headers.insert(name, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A panic is an error like others.
async fn shielded(handling: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(handling).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError::bug("a handler panicked").into_response(),
    }
}

/// Renders an error that a handler left, and logs what became of the request.
fn conclude(
    mut response: Response,
    id: RequestId,
    dialect: Dialect,
    method: &Method,
    path: &str,
    began: Instant,
) -> Response {
    let failure = response.extensions_mut().remove::<ApiError>();
    if let Some(failure) = &failure {
        let allow = response.headers().get(header::ALLOW).cloned();
        let kept = hub::KEPT.map(|name| response.headers_mut().remove(&name).map(|value| (name, value)));
        response = dialect.render(&failure.clone().with_allow(allow), &id);
        response.headers_mut().extend(kept.into_iter().flatten());
    }
    let (status, took_ms) = (response.status().as_u16(), began.elapsed().as_millis() as u64);
    match failure {
        // Not to be ready is an answer, not a failure.
        Some(failure) if status >= 500 && path != "/ready" => {
            // The message of a server's error quotes nothing of the caller's.
            let (code, message) = (failure.code().as_str(), failure.message());
            let accountable = failure.accountable().as_str();
            error!(request = %id, %method, path, status, took_ms, code, accountable, message, "answered");
        }
        Some(failure) => {
            let code = failure.code().as_str();
            info!(request = %id, %method, path, status, took_ms, code, "answered");
        }
        None => info!(request = %id, %method, path, status, took_ms, "answered"),
    }
    response
}

/// The path of the route that answers, for the log; a caller's own invention is not repeated there.
fn known_path(matched: Option<&MatchedPath>, uri: &Uri) -> &'static str {
    let Some(route) = matched.map(|matched| matched.as_str().replace("{*", "{")) else { return "(unknown)" };
    let known = PATHS.iter().copied().find(|known| *known == route);
    known.unwrap_or_else(|| match uri.path() {
        path if pages::is_page(path) => pages::PATH,
        path => hub::known_path(path),
    })
}

/// A gateway that answers its own machine only, without a key, must not be reached by a foreign site whose name was
/// pointed at this machine; such a request carries that name.
fn check_host(shared: &Shared, request: &Request) -> Result<(), ApiError> {
    if !shared.loopback_only {
        return Ok(());
    }
    let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    let Some(host) = host else { return Ok(()) };
    if str::from_utf8(host).is_ok_and(is_local_host) {
        return Ok(());
    }
    let message = "This gateway serves this machine only, and is not known by the name in `host`. \
                   Use 127.0.0.1 or localhost.";
    Err(ApiError::new(Code::HostNotAllowed, message))
}

/// Whether a `host` header names this machine by an address or as `localhost`.
fn is_local_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

async fn not_found(uri: Uri) -> ApiError {
    let path = uri.path();
    let advice = match nearest::nearest(path, PATHS.iter().copied()) {
        Some(near) => format!("Did you mean {near}?"),
        None => "The API is under /v1; GET /openapi.json describes it.".to_owned(),
    };
    ApiError::new(Code::NotFound, format!("There is nothing at {}. {advice}", fields::quote(path)))
}

async fn method_not_allowed(method: Method, matched: Option<MatchedPath>, uri: Uri) -> ApiError {
    let path = known_path(matched.as_ref(), &uri);
    let message = match method {
        Method::OPTIONS => format!(
            "{path} does not answer OPTIONS: this gateway lets no page of another site call it. \
             Call it from a program or from your own server."
        ),
        _ => format!(
            "{path} does not answer {}. The `allow` header says what it does answer.",
            fields::quote(method.as_str())
        ),
    };
    ApiError::new(Code::MethodNotAllowed, message)
}

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A moment in UTC, as RFC 3339 has it, to the second: the next where it lies between two.
pub fn utc(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    let CivilDate { year, month, day } = CivilDate::from_unix_ms(seconds.saturating_mul(1000));
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_767_225_599_001), "2026-01-01T00:00:00Z");
        assert_eq!(utc(1_767_225_598_000), "2025-12-31T23:59:58Z");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_like_others() {
        let response = shielded(async { panic!("on purpose") }).await;
        let id = RequestId::random().expect("randomness");
        let response = conclude(response, id, Dialect::OpenAi, &Method::GET, "/", Instant::now());
        assert_eq!(response.status(), 500);
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a body");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"]["code"], "gateway_bug");
        assert!(body["error"]["message"].as_str().expect("a text").ends_with(&format!("id={id}")));
    }

    #[test]
    fn only_addresses_and_localhost_are_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:8080",
            "a.localhost:1",
        ] {
            assert!(is_local_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[evil]",
            ":80",
        ] {
            assert!(!is_local_host(host), "{host}");
        }
    }
}
