//! Telemetry: one answer, as those who watch the gateway see it: numbers, and a span for those who trace.
//!
//! In:     what happens to an answer, as it happens; the caller's `traceparent`.
//! Out:    metrics; a span of `tracing`, which an OpenTelemetry layer sends on where one is installed.
//! Touches: nothing.
//! Holds:  an answer is counted exactly once, also where its caller left; no text of a prompt or an answer is in a span.
//! Absent: sending spans anywhere; that is the program's.
//!
//! Source: W3C Trace Context, level 1; OpenTelemetry semantic conventions for generative AI.

use std::{sync::Arc, time::Instant};

use axum::http::HeaderMap;
use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TraceState},
};
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    api::shapes::{SuretyNote, Usage},
    error::ApiError,
    id::RequestId,
    metrics::{Ended, Metrics},
};

/// What a caller who went away before the end counts as.
const CALLER_LEFT: &str = "caller_left";

/// Of which trace a request is a part, by its `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

impl TraceParent {
    /// What the headers say; a `traceparent` that is not one counts as none, as W3C demands.
    pub(crate) fn of(headers: &HeaderMap) -> Option<TraceParent> {
        let mut all = headers.get_all("traceparent").iter();
        let (Some(one), None) = (all.next(), all.next()) else { return None };
        Self::parse(one.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<TraceParent> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        // Later versions may add parts; this one has none.
        let is_whole = version != "00" || parts.next().is_none();
        let is_valid = hex(version, 2)
            && version != "ff"
            && hex(trace, 32)
            && hex(span, 16)
            && hex(flags, 2)
            && is_whole;
        if !is_valid {
            return None;
        }
        let parent = TraceParent {
            trace: TraceId::from_hex(trace).ok()?,
            span: SpanId::from_hex(span).ok()?,
            flags: TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        };
        (parent.trace != TraceId::INVALID && parent.span != SpanId::INVALID).then_some(parent)
    }
}

/// One answer, or several to one request, from its acceptance to its end.
#[derive(Debug)]
pub(crate) struct Telemetry {
    metrics: Arc<Metrics>,
    span: Span,
    operation: &'static str,
    model: String,
    began: Instant,
    first: Option<Instant>,
    ended: bool,
}

impl Telemetry {
    /// Of a request that a worker has accepted, for a model by the name it is served under. `operation` is the conventions' word.
    pub(crate) fn accepted(
        metrics: Arc<Metrics>,
        (operation, model): (&'static str, &str),
        (request, began): (RequestId, Instant),
        parent: Option<TraceParent>,
    ) -> Telemetry {
        let span = tracing::info_span!(
            "answer",
            otel.name = format!("{operation} {model}"),
            otel.kind = "server",
            otel.status_code = field::Empty,
            error.r#type = field::Empty,
            gen_ai.operation.name = operation,
            gen_ai.provider.name = "surety",
            gen_ai.request.model = model,
            gen_ai.response.model = field::Empty,
            gen_ai.response.id = %request,
            gen_ai.response.finish_reasons = field::Empty,
            gen_ai.usage.input_tokens = field::Empty,
            gen_ai.usage.output_tokens = field::Empty,
            surety.workers = field::Empty,
            surety.receipt = field::Empty,
            surety.cost = field::Empty,
            surety.accountable = field::Empty,
        );
        if let Some(TraceParent { trace, span: parent, flags }) = parent {
            let remote = SpanContext::new(trace, parent, flags, true, TraceState::NONE);
            // Without a layer that sends spans there is nothing to be a child of.
            let _ = span.set_parent(Context::new().with_remote_span_context(remote));
        }
        Telemetry { metrics, span, operation, model: model.to_owned(), began, first: None, ended: false }
    }

    /// A token has come; the first counts.
    pub(crate) fn token(&mut self) {
        self.first.get_or_insert_with(Instant::now);
    }

    /// It is whole.
    pub(crate) fn done(&mut self, reasons: &[&str], usage: &Usage, note: &SuretyNote, charge: u64) {
        self.span.record("gen_ai.response.model", note.model.as_str());
        self.span.record("gen_ai.response.finish_reasons", reasons.join(","));
        self.span.record("gen_ai.usage.input_tokens", usage.prompt_tokens);
        self.span.record("gen_ai.usage.output_tokens", usage.completion_tokens);
        self.span.record("surety.workers", note.workers.join(","));
        self.span.record("surety.cost", note.cost.as_str());
        if let Some(receipt) = &note.receipt {
            self.span.record("surety.receipt", receipt.as_str());
        }
        let end = Ended {
            prompt_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
            charge_micro_credits: charge,
            handovers: u64::from(note.handovers),
            ..self.end(None)
        };
        self.metrics.ended(end);
        self.ended = true;
    }

    /// No answer was wanted, only that a worker counts the prompt: there is nothing to tell of.
    pub(crate) fn counted(&mut self) {
        self.ended = true;
    }

    /// It failed.
    pub(crate) fn failed(&mut self, failure: &ApiError) {
        self.span.record("surety.accountable", failure.accountable().as_str());
        self.fail(failure.code().as_str());
    }

    fn fail(&mut self, code: &'static str) {
        self.span.record("otel.status_code", "ERROR");
        self.span.record("error.type", code);
        self.metrics.ended(self.end(Some(code)));
        self.ended = true;
    }

    fn end(&self, failure: Option<&'static str>) -> Ended<'_> {
        Ended {
            operation: self.operation,
            model: &self.model,
            took: self.began.elapsed(),
            first_token: self.first.map(|first| first.saturating_duration_since(self.began)),
            prompt_tokens: 0,
            output_tokens: 0,
            charge_micro_credits: 0,
            handovers: 0,
            failure,
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if !self.ended {
            self.fail(CALLER_LEFT);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_parent_is_read_as_w3c_has_it() {
        let parent = TraceParent::parse(GOOD).expect("a parent");
        assert_eq!(parent.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span.to_string(), "b7ad6b7169203331");
        assert!(parent.flags.is_sampled());
        assert_eq!(TraceParent::parse(&GOOD.replacen("00-", "01-", 1)), Some(parent));
        assert!(TraceParent::parse(&format!("{}-more", GOOD.replacen("00-", "cc-", 1))).is_some());
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replace("b7ad6b7169203331", "0000000000000000"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_trace_parents_are_none() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", HeaderValue::from_static(GOOD));
        assert!(TraceParent::of(&headers).is_some());
        headers.append("traceparent", HeaderValue::from_static(GOOD));
        assert_eq!(TraceParent::of(&headers), None);
    }

    #[test]
    fn whoever_leaves_is_counted_once() {
        let metrics = Arc::new(Metrics::default());
        let id = RequestId::random().expect("randomness");
        let begin = || Telemetry::accepted(Arc::clone(&metrics), ("chat", "m"), (id, Instant::now()), None);
        drop(begin());
        let mut failed = begin();
        failed.failed(&ApiError::bug("on purpose"));
        drop(failed);
        let page = metrics.text(0, &[], &[], &[]).expect("text");
        let count = |code: &str| {
            let labels =
                format!("gen_ai_operation_name=\"chat\",gen_ai_response_model=\"m\",error_type=\"{code}\"");
            page.contains(&format!("gen_ai_server_request_duration_seconds_count{{{labels}}} 1\n"))
        };
        assert!(count(CALLER_LEFT) && count("gateway_bug"), "{page}");
    }

    proptest! {
        #[test]
        fn any_header_is_a_parent_or_none(text in ".{0,80}") {
            let _ = TraceParent::parse(&text);
        }
    }
}
