//! Metrics: what this gateway has done, in numbers, for Prometheus.
//!
//! In:     requests, answers and failures as they happen. Out: OpenMetrics text.
//! Touches: nothing.
//! Holds:  no text of a prompt or an answer, no id and no key is a label; a label has a bounded number of values.
//! Absent: one request's story; that is its receipt, and its span.
//!
//! Source: OpenTelemetry semantic conventions for generative AI, whose metrics have their names here, with `_` for `.`; the
//! OpenMetrics text format 1.0.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// A minute, in spans.
const BEAT_MS: u64 = 5_000;
const BEATS: usize = 12;
/// Names of models that have numbers of their own; workers choose these names, so they are bounded.
const MODELS_MAX: usize = 64;
/// What further models count under.
const OTHER: &str = "other";
/// Seconds; the buckets that the conventions advise for how long an answer takes.
const DURATIONS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Seconds; those advised for the time to the first token.
const FIRST_TOKENS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds; those advised for the time of an output token.
const TOKEN_TIMES: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// Tokens; those advised for how many a request takes.
const TOKENS: [f64; 12] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: String,
    path: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    code: &'static str,
    accountable: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_response_model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_response_model: String,
    /// A code of the error catalogue; empty for an answer that is whole.
    error_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_response_model: String,
    gen_ai_token_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// An answer that has ended, or a request whose worker had accepted and that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'a> {
    /// `chat`, `text_completion`, …
    pub(crate) operation: &'static str,
    pub(crate) model: &'a str,
    pub(crate) took: Duration,
    pub(crate) first_token: Option<Duration>,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) charge_micro_credits: u64,
    /// Answers that another worker went on with.
    pub(crate) handovers: u64,
    /// The code of what went wrong.
    pub(crate) failure: Option<&'static str>,
}

/// What was answered in the last minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pulse {
    /// The length of each of the spans below.
    pub span_ms: u64,
    /// Oldest first; the last goes on.
    pub spans: Vec<Beat>,
}

/// What was answered in one span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Beat {
    /// Answers that ended well.
    pub answers: u64,
    /// Requests that a worker had accepted and that failed.
    pub failures: u64,
    /// Output tokens of those answers.
    pub output_tokens: u64,
}

/// Beats by their number since the beginning; one that is older than a minute makes room.
#[derive(Debug, Clone, Copy, Default)]
struct Beats([(u64, Beat); BEATS]);

impl Beats {
    fn at(&mut self, number: u64) -> &mut Beat {
        let (kept, beat) = &mut self.0[number as usize % BEATS];
        if *kept != number {
            (*kept, *beat) = (number, Beat::default());
        }
        beat
    }

    fn latest(&mut self, number: u64) -> Vec<Beat> {
        let first = number.saturating_sub(BEATS as u64 - 1);
        let early = (number + 1 - first) as usize..BEATS;
        early.map(|_| Beat::default()).chain((first..=number).map(|number| *self.at(number))).collect()
    }
}

/// What is counted.
pub(crate) struct Metrics {
    registry: Registry,
    began: Instant,
    beats: Mutex<Beats>,
    http: Family<HttpLabels, Counter>,
    failures: Family<FailureLabels, Counter>,
    durations: Family<EndLabels, Histogram>,
    first_tokens: Family<ModelLabels, Histogram>,
    token_times: Family<ModelLabels, Histogram>,
    tokens: Family<TokenLabels, Histogram>,
    handovers: Counter,
    comparisons: Family<KindLabels, Counter>,
    charged: Counter,
    active: Gauge<u64, AtomicU64>,
    workers: Family<StateLabels, Gauge<u64, AtomicU64>>,
    keys: Family<KindLabels, Gauge<u64, AtomicU64>>,
    payments: Family<KindLabels, Gauge<u64, AtomicU64>>,
    models: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let http = Family::default();
        registry.register("surety_http_requests", "Requests answered, by path and status", http.clone());
        let failures = Family::default();
        registry.register(
            "surety_failures",
            "Requests that failed, by code and who answers for it",
            failures.clone(),
        );
        let durations = Family::new_with_constructor((|| Histogram::new(DURATIONS)) as fn() -> Histogram);
        let (name, help) = ("gen_ai_server_request_duration", "From the request to the end of its answer");
        registry.register_with_unit(name, help, Unit::Seconds, durations.clone());
        let first_tokens =
            Family::new_with_constructor((|| Histogram::new(FIRST_TOKENS)) as fn() -> Histogram);
        let (name, help) =
            ("gen_ai_server_time_to_first_token", "From the request to the first token sent on");
        registry.register_with_unit(name, help, Unit::Seconds, first_tokens.clone());
        let token_times = Family::new_with_constructor((|| Histogram::new(TOKEN_TIMES)) as fn() -> Histogram);
        let (name, help) =
            ("gen_ai_server_time_per_output_token", "Between output tokens after the first, on average");
        registry.register_with_unit(name, help, Unit::Seconds, token_times.clone());
        let tokens = Family::new_with_constructor((|| Histogram::new(TOKENS)) as fn() -> Histogram);
        registry.register(
            "gen_ai_client_token_usage",
            "Tokens of a request, as its receipts count them",
            tokens.clone(),
        );
        let handovers = Counter::default();
        registry.register("surety_handovers", "Answers that another worker went on with", handovers.clone());
        let comparisons = Family::default();
        registry.register(
            "surety_comparisons",
            "Answers of upstreams that were to be compared with the model that they are said to be of, by what came of it",
            comparisons.clone(),
        );
        let charged = Counter::default();
        registry.register("surety_charged_micro_credits", "What workers were paid", charged.clone());
        let active = Gauge::default();
        registry.register("surety_requests_active", "Requests being answered", active.clone());
        let workers = Family::default();
        registry.register("surety_workers", "Workers known, by how they are", workers.clone());
        let keys = Family::default();
        registry.register(
            "surety_key_micro_credits",
            "Of all keys with a budget: granted and bought is together used, reserved and left",
            keys.clone(),
        );
        let payments = Family::default();
        registry.register(
            "surety_payment_micro_credits",
            "What callers signed for (held), owe (due), and since the start paid (settled) or could not pay (lost)",
            payments.clone(),
        );
        Self {
            registry,
            http,
            failures,
            durations,
            first_tokens,
            token_times,
            tokens,
            handovers,
            comparisons,
            charged,
            active,
            workers,
            keys,
            payments,
            models: Mutex::default(),
            began: Instant::now(),
            beats: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Counts an answered request. The path is one of ours, not one a caller made up.
    pub(crate) fn answered(&self, method: &str, path: &str, status: u16) {
        let method = match method {
            "GET" | "POST" | "DELETE" | "HEAD" | "OPTIONS" | "PUT" | "PATCH" => method,
            _ => OTHER,
        };
        let labels = HttpLabels { method: method.to_owned(), path: path.to_owned(), status };
        self.http.get_or_create(&labels).inc();
    }

    /// Counts a failure that a caller was told of.
    pub(crate) fn failed(&self, failure: &ApiError) {
        let labels =
            FailureLabels { code: failure.code().as_str(), accountable: failure.accountable().as_str() };
        self.failures.get_or_create(&labels).inc();
    }

    /// Counts an answer that was to be compared: `compared`, `not_compared`, or `differs` for the one by which its worker is found to.
    pub(crate) fn compared(&self, kind: &'static str) {
        self.comparisons.get_or_create(&KindLabels { kind }).inc();
    }

    /// Counts an answer, or what was to become one.
    pub(crate) fn ended(&self, ended: Ended<'_>) {
        let labels = ModelLabels {
            gen_ai_operation_name: ended.operation,
            gen_ai_response_model: self.known(ended.model),
        };
        let ModelLabels { gen_ai_operation_name, gen_ai_response_model } = labels.clone();
        let end = EndLabels {
            gen_ai_operation_name,
            gen_ai_response_model,
            error_type: ended.failure.unwrap_or(""),
        };
        self.durations.get_or_create(&end).observe(ended.took.as_secs_f64());
        if let Some(first) = ended.first_token {
            self.first_tokens.get_or_create(&labels).observe(first.as_secs_f64());
            if ended.failure.is_none() && ended.output_tokens > 1 {
                let rest = ended.took.saturating_sub(first).as_secs_f64();
                self.token_times.get_or_create(&labels).observe(rest / (ended.output_tokens - 1) as f64);
            }
        }
        if ended.failure.is_none() {
            for (gen_ai_token_type, count) in
                [("input", ended.prompt_tokens), ("output", ended.output_tokens)]
            {
                let ModelLabels { gen_ai_operation_name, gen_ai_response_model } = labels.clone();
                let labels = TokenLabels { gen_ai_operation_name, gen_ai_response_model, gen_ai_token_type };
                self.tokens.get_or_create(&labels).observe(count as f64);
            }
        }
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let beat = beats.at(self.beat());
        match ended.failure {
            None => {
                (beat.answers, beat.output_tokens) =
                    (beat.answers + 1, beat.output_tokens + ended.output_tokens)
            }
            Some(_) => beat.failures += 1,
        }
        drop(beats);
        self.handovers.inc_by(ended.handovers);
        self.charged.inc_by(ended.charge_micro_credits);
    }

    /// The number of the span that goes on.
    fn beat(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 / BEAT_MS
    }

    /// What was answered in the last minute.
    pub(crate) fn pulse(&self) -> Pulse {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        Pulse { span_ms: BEAT_MS, spans: beats.latest(self.beat()) }
    }

    /// Everything, as OpenMetrics text; what is true only now is given along.
    pub(crate) fn text(
        &self,
        active: u64,
        workers: &[(&'static str, u64)],
        keys: &[(&'static str, u128)],
        payments: &[(&'static str, u128)],
    ) -> Result<String, std::fmt::Error> {
        self.active.set(active);
        for (state, count) in workers {
            self.workers.get_or_create(&StateLabels { state }).set(*count);
        }
        for (family, sums) in [(&self.keys, keys), (&self.payments, payments)] {
            for (kind, sum) in sums {
                family.get_or_create(&KindLabels { kind }).set(u64::try_from(*sum).unwrap_or(u64::MAX));
            }
        }
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }

    /// The name that a model is counted under.
    fn known(&self, model: &str) -> String {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if models.contains(model) || models.len() < MODELS_MAX {
            models.insert(model.to_owned());
            return model.to_owned();
        }
        OTHER.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minute_is_what_is_not_older() {
        let mut beats = Beats::default();
        assert_eq!(beats.latest(0), [Beat::default(); BEATS]);
        beats.at(0).answers = 1;
        beats.at(3).output_tokens = 7;
        let latest = beats.latest(3);
        assert_eq!((latest[BEATS - 4].answers, latest[BEATS - 1].output_tokens, latest.len()), (1, 7, BEATS));
        let latest = beats.latest(BEATS as u64);
        assert!(latest.iter().all(|beat| beat.answers == 0), "the first is over");
        assert_eq!(latest[2].output_tokens, 7);
        assert_eq!(beats.latest(1000), [Beat::default(); BEATS]);
    }

    fn ended(model: &str) -> Ended<'_> {
        Ended {
            operation: "chat",
            model,
            took: Duration::from_millis(1_100),
            first_token: Some(Duration::from_millis(100)),
            prompt_tokens: 7,
            output_tokens: 11,
            charge_micro_credits: 5,
            handovers: 1,
            failure: None,
        }
    }

    #[test]
    fn what_happened_is_counted() {
        let metrics = Metrics::default();
        metrics.answered("GET", "/health", 200);
        metrics.answered("BREW", "/health", 405);
        metrics.failed(&ApiError::bug("on purpose"));
        metrics.compared("not_compared");
        metrics.ended(ended("tiny"));
        metrics.ended(Ended {
            failure: Some("worker_lost"),
            handovers: 0,
            charge_micro_credits: 0,
            ..ended("tiny")
        });
        let page = metrics.text(3, &[("ready", 2), ("draining", 0)], &[], &[]).expect("text");
        let model = "gen_ai_operation_name=\"chat\",gen_ai_response_model=\"tiny\"";
        for line in [
            "surety_http_requests_total{method=\"GET\",path=\"/health\",status=\"200\"} 1".to_owned(),
            "surety_http_requests_total{method=\"other\",path=\"/health\",status=\"405\"} 1".to_owned(),
            "surety_failures_total{code=\"gateway_bug\",accountable=\"gateway\"} 1".to_owned(),
            format!("gen_ai_server_request_duration_seconds_sum{{{model},error_type=\"\"}} 1.1"),
            format!("gen_ai_server_request_duration_seconds_count{{{model},error_type=\"worker_lost\"}} 1"),
            format!("gen_ai_server_time_to_first_token_seconds_count{{{model}}} 2"),
            format!("gen_ai_server_time_per_output_token_seconds_sum{{{model}}} 0.1"),
            format!("gen_ai_client_token_usage_sum{{{model},gen_ai_token_type=\"output\"}} 11.0"),
            "surety_handovers_total 1".to_owned(),
            "surety_comparisons_total{kind=\"not_compared\"} 1".to_owned(),
            "surety_charged_micro_credits_total 5".to_owned(),
            "surety_requests_active 3".to_owned(),
            "surety_workers{state=\"ready\"} 2".to_owned(),
            "surety_workers{state=\"draining\"} 0".to_owned(),
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in:\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn labels_are_bounded() {
        let metrics = Metrics::default();
        for index in 0..3 * MODELS_MAX {
            metrics.ended(ended(&format!("model{index}")));
        }
        let page = metrics.text(0, &[], &[], &[]).expect("text");
        let count = |line: &&str| line.starts_with("gen_ai_server_request_duration_seconds_count");
        assert_eq!(page.lines().filter(count).count(), MODELS_MAX + 1);
    }
}
