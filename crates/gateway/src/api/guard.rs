//! Guard: before anything is done for a request, who it is from, and whether it was here before.
//!
//! In:     requests. Out: the same to whoever handles them, each in its tenant's name; or why not.
//! Touches: the keys; the responses that may be asked for again.
//! Holds:  where there are keys, nothing but what is public is told to anyone without one; a request that was sent twice
//!         is answered once.
//! Absent: budgets (`keys`), what is answered.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use surety_types::Amount;
use tracing::error;

use super::{
    ask::Ask,
    body::Text,
    fields::quote,
    once::{self, Connection, Record, Said, Turn},
    pages, responses, suffix, utc, x402,
};
use crate::{
    error::{Accountable, ApiError, Code},
    gateway::Shared,
    id::RequestId,
    keys::{Level, Refused, Room, SECRET_PREFIX, Sent, Tenant},
    route::{Resolved, preferences::MaxPrice},
};

/// What anyone may see, beside the pages.
const PUBLIC: [&str; 4] = ["/", "/health", "/ready", "/openapi.json"];
/// And what all of it shows of the network: no tenant's.
const PUBLIC_UNDER: &str = "/v1/network/";
/// What asks no model anything, and counts against no limit. A file is no text that could be told again, either.
const UNCOUNTED: [&str; 3] = ["/mcp", "/v1/files", "/v1/quote"];
/// Bytes of a body that make a token, about, before anyone has counted.
const BYTES_PER_TOKEN: u64 = 4;

/// Around every handler: lets in who may come in, and has what was asked twice answered once.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if PUBLIC.contains(&path) || path.starts_with(PUBLIC_UNDER) || pages::is_page(path) {
        return next.run(request).await;
    }
    let counted = request.method() == Method::POST && !UNCOUNTED.contains(&path);
    let tokens = counted.then(|| about_tokens(body_bytes(request.headers())));
    let shown = secret(request.headers());
    if let Some(payments) = &shared.payments
        && !shown.is_some_and(|secret| secret.starts_with(SECRET_PREFIX))
    {
        // Clients that must be given a key are given any by whoever pays for each request.
        if let Some(route) = x402::paid(request.method(), path) {
            return x402::serve(&shared, payments, route, request, next).await;
        }
        if x402::is_refund(request.method(), path) {
            return x402::refund(payments, request).await;
        }
        if x402::is_open(request.method(), path) {
            return Tenant::payer(&shared.keys).scope(next.run(request)).await;
        }
    }
    let tenant = match shared.keys.admit(shown, tokens) {
        Ok(tenant) => tenant,
        Err(Refused { error, room, key }) => {
            // Whoever only was too fast finds it among its own.
            if let (Some(key), Some(id)) = (key, request.extensions().get::<RequestId>()) {
                shared.journal.trail(*id).asked_by(key);
            }
            let mut response = error.into_response();
            response.extensions_mut().insert(room);
            return response;
        }
    };
    if let Some(id) = request.extensions().get::<RequestId>() {
        shared.journal.trail(*id).asked_by(tenant.key());
    }
    let room = tenant.room();
    let mut response = match counted {
        true => match answer_once(&shared, tenant, request, next).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        },
        false => tenant.scope(next.run(request)).await,
    };
    response.extensions_mut().insert(room);
    response
}

/// About how many tokens so many bytes of a body are.
pub(super) fn about_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN).max(1)
}

/// What is said of a body's size.
fn body_bytes(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or(0)
}

/// What the caller shows, as OpenAI's clients send it or as Anthropic's do.
fn secret(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, secret) = value.to_str().ok()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    let own = || headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::trim);
    bearer.or_else(own).filter(|secret| !secret.is_empty())
}

pub(super) async fn answer_once(
    shared: &Arc<Shared>,
    tenant: Tenant,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(said) = Said::of(request.headers())? else { return Ok(tenant.scope(next.run(request)).await) };
    let named = matches!(said, Said::Named(_));
    let (parts, body) = request.into_parts();
    let Text { text, share } = shared.intake.read(&parts.headers, body).await?;
    let digest = once::digest(parts.uri.path(), &text);
    let connection = parts.extensions.get::<Connection>().cloned().unwrap_or_default();
    let id = *parts.extensions.get::<RequestId>().ok_or_else(|| ApiError::bug("a request has no id"))?;
    // Whoever handles it takes its share anew.
    drop(share);
    let request = Request::from_parts(parts, Body::from(text));
    match shared.once.turn(tenant.number(), said, digest, id).await? {
        Turn::Again(record) => Ok(record.response(connection).await),
        Turn::First(record, written) => {
            tenant.sent_once(Sent::First(written));
            Ok(made_once(shared, tenant, record, connection, next.run(request)).await)
        }
        Turn::Resumed(record) => {
            let going_on = go_on(Arc::clone(shared), tenant.clone(), Arc::clone(&record), id, request, next);
            Ok(made_once(shared, tenant, record, connection, going_on).await)
        }
        Turn::Unkept if named => {
            let message = "The gateway keeps as many responses for repetition as it can at the moment. Try again shortly, \
                           or without `Idempotency-Key`.";
            Err(ApiError::new(Code::Overloaded, message).with_accountable(Accountable::Gateway))
        }
        Turn::Unkept => Ok(tenant.scope(next.run(request)).await),
    }
}

/// Answers what a gateway that was stopped had begun to answer, under the id that it gave it, unless that is charged.
async fn go_on(
    shared: Arc<Shared>,
    tenant: Tenant,
    record: Arc<Record>,
    id: RequestId,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = record.request_id();
    let (receipts, keys) = (shared.receipts.clone(), Arc::clone(&shared.keys));
    let found = tokio::task::spawn_blocking(move || {
        let kept = receipts.find(begun).map_err(|error| error.to_string())?;
        Ok::<_, String>((kept.is_some(), keys.generation(begun)?.is_some()))
    });
    let (is_answered, is_charged) = match found.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            error!(request = %begun, error, "what became of a request that is sent again cannot be read");
            return ApiError::bug("the receipts cannot be read").into_response();
        }
        Err(_) => return ApiError::bug("looking for a receipt panicked").into_response(),
    };
    // A response is kept beside its receipt.
    if is_answered && !responses::is_there(&shared, begun).await {
        return once::answered_before(begun).into_response();
    }
    if !is_answered && (is_charged || tenant.pays_by_request()) {
        // Whoever was given the beginning has paid for that, or pays by another payment now.
        tenant.sent_once(Sent::First(shared.once.begin_anew(&record, id)));
    } else {
        tenant.sent_once(Sent::Again);
        request.extensions_mut().insert(begun);
    }
    next.run(request).await
}

/// The response that a record keeps, made now.
async fn made_once(
    shared: &Arc<Shared>,
    tenant: Tenant,
    record: Arc<Record>,
    connection: Connection,
    making: impl Future<Output = Response> + Send + 'static,
) -> Response {
    let response = Arc::clone(&record).response(connection);
    let scoped = tenant.clone().scope(making);
    tokio::spawn(record.make(Arc::clone(&shared.once), tenant, scoped));
    response.await
}

/// Applies a key's terms to what is asked: other models are refused, dearer workers left out; or a payment's time.
pub(super) fn screen(tenant: &Tenant, ask: &mut Ask, model: &Resolved) -> Result<(), ApiError> {
    may_ask(tenant, &suffix::split(&ask.model).0, model)?;
    if let Some(most) = tenant.patience_ms() {
        ask.deadline_ms = Some(ask.deadline_ms.map_or(most, |own| own.min(most)));
    }
    let Some(terms) = tenant.terms() else { return Ok(()) };
    if let Some(price) = &terms.max_price {
        let price = price.price();
        let least = |own: Option<Amount>, most: Amount| Some(own.map_or(most, |own| own.min(most)));
        let MaxPrice { prompt, completion } = ask.preferences.max_price;
        ask.preferences.max_price = MaxPrice {
            prompt: least(prompt, price.prompt.max(price.cached)),
            completion: least(completion, price.output),
        };
    }
    Ok(())
}

/// Refuses models that a key's terms leave out.
pub(super) fn may_ask(tenant: &Tenant, asked: &str, model: &Resolved) -> Result<(), ApiError> {
    let Some(terms) = tenant.terms() else { return Ok(()) };
    if terms.admits_model(&[asked, &model.name, &model.id.to_string()]) {
        return Ok(());
    }
    let message = format!(
        "The key `{}` may not ask for \"{}\". It may ask for {}. Ask for one of these, or whoever runs the gateway for \
         another key.",
        terms.name,
        quote(asked),
        terms.models.join(", "),
    );
    Err(ApiError::new(Code::Policy, message).with_param("model"))
}

/// Tells what is left of the limits.
pub(super) fn tell(headers: &mut HeaderMap, room: &Room) {
    let mut tell = |level: &Option<Level>, names: [&'static str; 3]| {
        let Some(level) = level else { return };
        let values = [level.limit.to_string(), level.remaining.to_string(), utc(level.full_ms)];
        for (name, value) in names.into_iter().zip(values) {
            let value = HeaderValue::try_from(value).expect("digits and signs");
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let names =
        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
    tell(&room.requests, names);
    let names = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
    tell(&room.tokens, names);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_either_header() {
        let check = |pairs: &[(&'static str, &str)], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_str(value).expect("a value"));
            }
            assert_eq!(secret(&headers), expected, "{pairs:?}");
        };
        check(&[], None);
        check(&[("authorization", "Bearer a")], Some("a"));
        check(&[("authorization", "bearer  a ")], Some("a"));
        check(&[("authorization", "Basic a")], None);
        check(&[("authorization", "Bearer ")], None);
        check(&[("x-api-key", "b")], Some("b"));
        check(&[("authorization", "Bearer a"), ("x-api-key", "b")], Some("a"));
        check(&[("authorization", "Basic a"), ("x-api-key", "b")], Some("b"));
    }
}
