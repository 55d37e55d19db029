//! x402: answers for whoever pays for each by itself or on a channel, and credits that are bought.
//!
//! In:     requests without a key, with or without a payment; requests to buy. Out: what is to be paid; the same as with a key,
//!         and what was taken.
//! Touches: payments; workers' prices, to say what an answer may cost.
//! Holds:  what cannot be answered is refused before it is paid for; nothing is ordered before its payment is on the disk. A
//!         document is handed over when its payment was taken, or is on the disk as charged to a channel, or the ledger could not
//!         be reached: one whose payer had not enough any more is withheld. A stream is told as it comes, and its payment taken at
//!         its end.
//! Absent: what a payment is worth and how it is taken (`payments`).

use std::{sync::Arc, time::Duration};

use alloy_primitives::B256;
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use surety_types::CivilDate;

use super::{
    ask::Ask,
    body::Text,
    fields::{Fields, quote},
    generate, guard,
    money::{self, CreditsReport},
    parameters::Route,
    unix_ms,
};
use crate::{
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
    id::RequestId,
    keys::Tenant,
    payments::{Ended, PayError, Payments, Terms},
};

const SIGNATURE: &str = "payment-signature";
const REQUIRED: HeaderName = HeaderName::from_static("payment-required");
const RESPONSE: HeaderName = HeaderName::from_static("payment-response");
/// For a document's payment to be taken, before the document is handed over all the same.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
/// For credits to be bought; they come all the same.
const BUY_PATIENCE: Duration = Duration::from_secs(30);
/// Micro-credits of one purchase, at most: a million credits.
const PURCHASE_MAX: u128 = 1_000_000_000_000;

/// A header for whoever pays.
#[derive(Debug, Clone)]
pub(super) struct Told(pub(super) HeaderName, pub(super) HeaderValue);

impl Told {
    fn new(name: HeaderName, base64: String) -> Told {
        Told(name, HeaderValue::try_from(base64).expect("base64 is printable"))
    }
}

/// How a request that can be paid for by itself is read; none: it cannot.
pub(super) fn paid(method: &Method, path: &str) -> Option<Route> {
    match path {
        _ if method != Method::POST => None,
        "/v1/chat/completions" => Some(Route::Chat),
        "/v1/completions" => Some(Route::Completions),
        "/v1/embeddings" => Some(Route::Embeddings),
        "/v1/messages" => Some(Route::Messages),
        _ => None,
    }
}

/// Whether a payer asks here what is left in its channel: where an answer would be paid for, without asking for one.
pub(super) fn is_refund(method: &Method, path: &str) -> bool {
    method == Method::GET && paid(&Method::POST, path).is_some()
}

/// What payers see without paying: which models there are, what an answer would cost, and what became of one whose id they know.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    const OPEN: [&str; 4] = ["/v1/models/", "/v1/receipts/", "/v1/generations/", "/v1/requests/"];
    let read =
        method == Method::GET && (path == "/v1/models" || OPEN.iter().any(|open| path.starts_with(open)));
    read || (method == Method::POST && path == "/v1/quote")
}

/// What an answer may cost.
struct Bill {
    /// Micro-credits that the cheapest worker may charge at most, and the dearest.
    least: u128,
    most: u128,
    stream: bool,
}

/// Answers a request that is paid for by itself.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    payments: &Arc<Payments>,
    route: Route,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key("last-event-id") {
        let message = "A stream that was paid for by itself cannot be gone on with: what was told of it is taken of its payment. \
                       Ask anew, or show a key.";
        return ApiError::invalid("Last-Event-ID", message).into_response();
    }
    let read = shared.intake.read(&parts.headers, body).await;
    let Text { text, share } = match read {
        Ok(text) => text,
        Err(error) => return error.into_response(),
    };
    let bill = match bill(shared, route, &text).await {
        Ok(bill) => bill,
        Err(error) => return error.into_response(),
    };
    let what = "An answer, with a signed receipt";
    let delay_s = payments.delay_s().await;
    let resource = Resource { payments, delay_s, url: url(&parts), what, micro: bill.most };
    let Some(header) = parts.headers.get(SIGNATURE) else {
        return resource.required(
            "This gateway answers whoever shows a key or pays for the request itself (x402). Send it again with the \
             `PAYMENT-SIGNATURE` that `PAYMENT-REQUIRED` asks for, or with `Authorization: Bearer sk-surety-…`.",
        );
    };
    let id = parts.extensions.get::<RequestId>().copied();
    let Some(id) = id else { return ApiError::bug("a request has no id").into_response() };
    let held = payments.pay(header.to_str().unwrap_or(""), bill.least, id, bill.stream);
    let payment = match held.await {
        Ok(payment) => payment,
        Err(error) => return resource.refused(error),
    };
    // Whoever handles it takes its share anew.
    drop(share);
    let tenant = Tenant::paying(&shared.keys, Arc::clone(&payment));
    shared.journal.trail(id).asked_by(tenant.key());
    let request = Request::from_parts(parts, Body::from(text));
    let answered = guard::answer_once(shared, tenant, request, next).await;
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    if !response.status().is_success() {
        payment.give_up();
        // It fell short of what the order came to.
        if let Some(failure) = response.extensions().get::<ApiError>()
            && failure.code() == Code::PaymentRefused
        {
            return resource.told(payment.shortfall(), failure.clone(), None);
        }
        if let Some(told) = payment.response_to_failure() {
            response.extensions_mut().insert(Told::new(RESPONSE, told));
        }
        return response;
    }
    let taken = match is_stream(&response) {
        true => None,
        false => {
            let mut ended = payment.settled(SETTLE_PATIENCE).await;
            if ended == Ended::Pending {
                ended = payment.tell().await;
            }
            match ended {
                Ended::Settled(micro, transaction) => Some((micro, transaction)),
                Ended::Free => Some((0, B256::ZERO)),
                Ended::Pending => None,
                Ended::Lost(reason) => return resource.withheld(&reason),
            }
        }
    };
    response.extensions_mut().insert(Told::new(RESPONSE, payment.response(taken)));
    response
}

/// Gives back what is left in a payer's channel, or says how it is asked for.
pub(super) async fn refund(payments: &Payments, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let what = "A refund of what is left in a channel";
    let delay_s = payments.delay_s().await;
    let resource = Resource { payments, delay_s, url: url(&parts), what, micro: 1 };
    let Some(header) = parts.headers.get(SIGNATURE) else {
        return resource.required(
            "Nothing is answered here by GET. What is left in a channel that paid here is given back for a `PAYMENT-SIGNATURE` of \
             the type `refund`; an answer is asked for by POST.",
        );
    };
    match payments.refund(header.to_str().unwrap_or("")).await {
        Ok(refund) => {
            let mut response = Json(Refunded { refunded: refund.amount().to_string() }).into_response();
            response.extensions_mut().insert(Told::new(RESPONSE, refund.response()));
            response
        }
        Err(error) => resource.refused(error),
    }
}

/// What was given back.
#[derive(Debug, Serialize)]
struct Refunded {
    /// Wei.
    refunded: String,
}

fn is_stream(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|content_type| content_type.starts_with("text/event-stream"))
}

/// What is asked, as far as it can be refused before anybody pays for it, and what it may cost.
async fn bill(shared: &Shared, route: Route, text: &str) -> Result<Bill, ApiError> {
    shared.open()?;
    let today = CivilDate::from_unix_ms(unix_ms());
    let mut ask = generate::understand(text.to_owned(), move |text| Ask::parse(text, route, today)).await?;
    let model = shared.workers.resolve(&ask.model)?;
    generate::fits(&ask, &model)?;
    ask.hold_to_calls(model.calls)?;
    let worsts = money::weigh(shared, &ask, &model, ask.affinity())?.worsts();
    let worst = || worsts.iter().copied();
    // Nobody signs for nothing.
    let bill = |micro: Option<u128>| micro.unwrap_or(0).max(1);
    Ok(Bill { least: bill(worst().min()), most: bill(worst().max()), stream: ask.stream })
}

/// Where a request went to.
fn url(parts: &Parts) -> String {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let scheme = parts.headers.get("x-forwarded-proto").map_or("http", |proto| match proto.as_bytes() {
        b"https" => "https",
        _ => "http",
    });
    format!("{scheme}://{host}{}", parts.uri.path())
}

/// What is to be paid for.
struct Resource<'a> {
    payments: &'a Payments,
    /// As in [`Terms`].
    delay_s: Option<u64>,
    url: String,
    what: &'static str,
    micro: u128,
}

impl Resource<'_> {
    fn told(&self, error: &str, failure: ApiError, state: Option<&Value>) -> Response {
        let mut response = failure.into_response();
        let terms = Terms { delay_s: self.delay_s, url: &self.url, what: self.what, micro: self.micro };
        let required = self.payments.payee().required(&terms, error, state);
        response.extensions_mut().insert(Told::new(REQUIRED, required));
        response
    }

    fn required(&self, message: &'static str) -> Response {
        let failure = ApiError::new(Code::PaymentRequired, message);
        self.told("PAYMENT-SIGNATURE header is required", failure, None)
    }

    fn refused(&self, error: PayError) -> Response {
        match error {
            PayError::Refused(refusal) => {
                let failure = ApiError::new(Code::PaymentRefused, refusal.message);
                self.told(refusal.reason, failure, refusal.state.as_ref())
            }
            PayError::Failed(failure) => failure.into_response(),
        }
    }

    fn withheld(&self, reason: &str) -> Response {
        let message = format!(
            "The payment was good when it was shown, and could not be taken at the end: {reason}. What was bought is withheld, \
             and nothing will be taken. Pay with an account that has enough, and leaves it there.",
        );
        self.told("transaction_failed", ApiError::new(Code::PaymentRefused, message), None)
    }
}

/// Credits to buy.
#[derive(Debug, utoipa::ToSchema)]
#[allow(dead_code, reason = "it describes a body")]
pub(super) struct Purchase {
    /// Micro-credits, as a decimal text.
    amount: String,
}

/// Buy credits for the key, by x402.
#[utoipa::path(post, path = "/v1/credits", tag = "money", request_body = Purchase, params(
    ("PAYMENT-SIGNATURE" = Option<String>, Header, description = "x402's PaymentPayload (version 2), base64."),
), responses(
    (status = 200, description = "They are there. `PAYMENT-RESPONSE` names the transaction.", body = CreditsReport),
    (status = 402, description = "`PAYMENT-REQUIRED` says what is to be paid.", body = ErrorBody),
    (status = "4XX", description = "They cannot be bought like that.", body = ErrorBody),
    (status = "5XX", description = "They cannot be bought now.", body = ErrorBody),
))]
pub(super) async fn buy(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    let Some(payments) = &shared.payments else {
        let message = "This gateway sells no credits. Ask whoever runs it for a key with a budget.";
        return Err(ApiError::new(Code::Policy, message));
    };
    let (parts, body) = request.into_parts();
    let Text { text, .. } = shared.intake.read(&parts.headers, body).await?;
    let micro = amount(&text)?;
    let account = shared.keys.account(tenant.key()).map(|(_, account)| account);
    if account.is_none_or(|account| account.budget.is_none()) {
        let message = "Nothing bounds what this key may spend, so there is nothing to buy for it. A key that spends what was bought \
                       is made by `surety apikey create NAME --budget 0`.";
        return Err(ApiError::new(Code::Policy, message));
    }
    let what = "Credits for a key";
    let resource = Resource { payments, delay_s: None, url: url(&parts), what, micro };
    let Some(header) = parts.headers.get(SIGNATURE) else {
        return Ok(resource.required(
            "Credits are bought by x402. Send the same request again with the `PAYMENT-SIGNATURE` that `PAYMENT-REQUIRED` asks for.",
        ));
    };
    let bought = payments.buy(header.to_str().unwrap_or(""), micro, tenant.key());
    let payment = match bought.await {
        Ok(payment) => payment,
        Err(error) => return Ok(resource.refused(error)),
    };
    let taken = match payment.settled(BUY_PATIENCE).await {
        Ended::Settled(micro, transaction) => (micro, transaction),
        Ended::Lost(reason) => return Ok(resource.withheld(&reason)),
        Ended::Pending | Ended::Free => {
            let message = "The payment is kept, and the ledger has not taken it yet. Do not pay again: the credits come as soon as it \
                           is taken, and not at all if it never is. `GET /v1/credits` shows them.";
            return Err(ApiError::new(Code::LedgerUnavailable, message));
        }
    };
    let mut response = Json(money::credits_of(&shared).await?).into_response();
    response.extensions_mut().insert(Told::new(RESPONSE, payment.response(Some(taken))));
    Ok(response)
}

/// How much is to be bought, in micro-credits.
fn amount(text: &str) -> Result<u128, ApiError> {
    let mut fields = Fields::body(text)?;
    let amount = fields.string("amount")?;
    if let Some(name) = fields.names().next() {
        let message = format!("There is no parameter `{}` here. There is `amount`.", quote(name));
        return Err(ApiError::new(Code::UnknownParameter, message).with_param(quote(name)));
    }
    let sound = |text: &String| text.len() <= 13 && text.bytes().all(|byte| byte.is_ascii_digit());
    let micro = amount.filter(sound).and_then(|text| text.parse().ok());
    micro.filter(|micro| (1..=PURCHASE_MAX).contains(micro)).ok_or_else(|| {
        let message =
            format!("`amount` must be a decimal text of micro-credits, from \"1\" to \"{PURCHASE_MAX}\".");
        ApiError::invalid("amount", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_bounded() {
        assert_eq!(amount(r#"{"amount":"2500000"}"#).expect("sound"), 2_500_000);
        for text in [
            "{}",
            r#"{"amount":5}"#,
            r#"{"amount":"0"}"#,
            r#"{"amount":"-1"}"#,
            r#"{"amount":"+1"}"#,
            r#"{"amount":"1.5"}"#,
            r#"{"amount":"1000000000001"}"#,
            r#"{"amount":"1","key":"x"}"#,
            "[]",
        ] {
            assert!(amount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_paid_for_is_stateless_and_what_is_open_is_read_only() {
        assert!(paid(&Method::POST, "/v1/chat/completions").is_some());
        for path in ["/v1/responses", "/v1/batches", "/v1/files", "/mcp", "/v1/credits"] {
            assert!(paid(&Method::POST, path).is_none() && !is_open(&Method::POST, path), "{path}");
        }
        for path in ["/v1/usage", "/v1/credits", "/v1/responses/x", "/metrics"] {
            assert!(!is_open(&Method::GET, path), "{path}");
        }
        assert!(is_refund(&Method::GET, "/v1/messages") && !is_refund(&Method::GET, "/v1/credits"));
        assert!(!is_refund(&Method::POST, "/v1/messages"));
        assert!(is_open(&Method::GET, "/v1/models") && !is_open(&Method::DELETE, "/v1/models/x"));
    }
}
