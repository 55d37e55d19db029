//! Health: what one worker has shown by the tokens it served, and what follows for the next order.
//!
//! In:     outcomes of orders, each with its moment; orders of ours under way.
//! Out:    averages and percentiles, whether the circuit breaker lets an order through, how many orders it takes at once.
//! Touches: nothing; the clock is an argument.
//! Holds:  a breaker that is open lets one order through at a time, when its time has come or after a second where nobody
//!         else is there, until one shows a token; orders that fail of one cause are one failure; memory is fixed.
//! Absent: what a worker says of itself; who is preferred (`choice`).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use surety_client::SessionError;
use surety_net::{CloseCode, Lost};
use surety_types::{FailureCode, ModelId, wire::MAX_SERVED_MODELS};

/// The latest measurements that percentiles are taken from.
const RECENT: usize = 64;
/// The newest measurement's part of an average, once there are some.
const NEWEST_PART: f32 = 1.0 / 8.0;
/// The newest outcome's part of the share that ended well.
const OUTCOME_PART: f32 = 1.0 / 16.0;
/// The share that is assumed to end well of a worker that has served nothing.
const RELIABILITY_ASSUMED: f32 = 0.9;
/// Answers with a model that a worker has to finish before it is no newcomer.
const PROVEN_ANSWERS: u64 = 4;
/// And how old the last may be: who was not asked for so long is a newcomer again.
const PROVEN_FOR: Duration = Duration::from_secs(600);
/// Shorter answers say nothing about a rate.
const RATE_TOKENS_MIN: u32 = 8;

/// Failures in a row that open the breaker.
const FAILURES_MAX: u32 = 3;
/// For how long it opens first; each further time in a row for twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);
/// A trial order that said nothing for so long makes room for the next.
const TRIAL_FOR: Duration = Duration::from_secs(10);

/// What an overloaded worker's limit becomes: this part of the orders that were under way.
const OVERLOAD_PART: f32 = 0.75;
/// And what a worker's that slows down.
const SLOWED_PART: f32 = 0.9;
/// No limit grows beyond.
const LIMIT_MAX: f32 = 4096.0;
/// It slows down if first tokens take so many times as long as they used to.
const SLOWED_TIMES: f32 = 3.0;
/// And so much longer at least.
const SLOWED_MS: f32 = 100.0;
/// Measurements before that is judged, and between two such judgements.
const SLOWED_SAMPLES: u32 = 16;
/// Orders under way below which nobody is called overloaded by us.
const SLOWED_ORDERS_MIN: u32 = 4;
/// Parts of the newest in the quick and the slow average of first tokens.
const QUICK_PART: f32 = 1.0 / 4.0;
const SLOW_PART: f32 = 1.0 / 64.0;
/// So many prompt tokens are expected to cost as much again as an empty prompt.
const PROMPT_TOKENS_PER_UNIT: f32 = 128.0;

/// First tokens measured before patience is learned from them.
const PATIENCE_SAMPLES: usize = 8;
const PATIENCE_MIN: Duration = Duration::from_millis(200);
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// What came of an order, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Outcome {
    /// It was accepted, so long after it was sent.
    Accepted {
        after: Duration,
    },
    /// Its first token came, so long after it was sent.
    FirstToken {
        model: ModelId,
        after: Duration,
        prompt_tokens: u32,
    },
    /// It was no longer waited for: its first token would have come after so long at least.
    Late {
        model: ModelId,
        after: Duration,
        prompt_tokens: u32,
    },
    /// It ended well: so many output tokens after the first, in so long after the first.
    Finished {
        model: ModelId,
        tokens: u32,
        over: Duration,
    },
    /// It was refused, or given up, in order.
    Refused {
        overloaded: bool,
    },
    /// The worker broke its word: lost, stalled, bad output.
    Failed {
        sent: Instant,
    },
    Unreachable {
        sent: Instant,
    },
}

impl Outcome {
    /// What a session's error says of the worker; nothing if it is not the worker's doing.
    pub(crate) fn of_error(error: &SessionError, sent: Instant) -> Option<Outcome> {
        match error {
            SessionError::BrokenOff { code: CloseCode::Busy, accepted: false, .. } => {
                Some(Outcome::Refused { overloaded: true })
            }
            // Who says that it goes, and has promised nothing, has not failed.
            SessionError::BrokenOff { code: CloseCode::ShuttingDown, accepted: false, .. }
            | SessionError::WorkerLost {
                lost: Lost::ClosedByPeer(CloseCode::ShuttingDown),
                accepted: false,
                ..
            }
            | SessionError::Unreachable { lost: Some(Lost::ClosedByPeer(CloseCode::ShuttingDown)), .. } => {
                Some(Outcome::Refused { overloaded: false })
            }
            SessionError::Unreachable { .. } | SessionError::WorkerLost { accepted: false, .. } => {
                Some(Outcome::Unreachable { sent })
            }
            // What another worker might have done better.
            error => error.is_retryable().then_some(Outcome::Failed { sent }),
        }
    }

    /// What a signed failure says of the worker. What the request itself brings about is nobody's failure.
    pub(crate) fn of_failure(code: FailureCode, sent: Instant) -> Outcome {
        match code {
            FailureCode::Overloaded | FailureCode::OutOfMemory => Outcome::Refused { overloaded: true },
            FailureCode::Internal => Outcome::Failed { sent },
            FailureCode::BadRequest
            | FailureCode::ContextLengthExceeded
            | FailureCode::ModelUnknown
            | FailureCode::NonFinite
            | FailureCode::Cancelled
            | FailureCode::PaymentRequired
            | FailureCode::Leaving
            | FailureCode::DeadlineExceeded => Outcome::Refused { overloaded: false },
        }
    }
}

/// What one worker has shown.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    accepted_ms: Average,
    reliability: f32,
    finished: u64,
    failed: u64,
    breaker: Breaker,
    limit: Option<f32>,
    speeds: BTreeMap<ModelId, Speed>,
}

/// How quick a worker is with one model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Speed {
    first_token_ms: Average,
    first_tokens: Recent<FirstToken>,
    tokens_per_second: Average,
    rates: Recent<f32>,
    finished: u64,
    finished_at: Option<Instant>,
    pace: Pace,
}

/// When a first token came, and after how long a prompt.
#[derive(Debug, Clone, Copy, Default)]
struct FirstToken {
    after_ms: f32,
    prompt_tokens: u32,
}

/// What the breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Everything.
    Closed,
    /// One order, as a trial.
    HalfOpen,
    /// Nothing yet; but where nobody else is there, one order, as a trial.
    Paused,
    /// Nothing: it has failed just now, or a trial is under way.
    Open,
}

/// Percentiles: 50, 75, 90, 99.
pub(crate) type Percentiles = [f32; 4];
const PERCENTILES: [u32; 4] = [50, 75, 90, 99];

impl Default for Health {
    fn default() -> Self {
        Self {
            accepted_ms: Average::default(),
            reliability: RELIABILITY_ASSUMED,
            finished: 0,
            failed: 0,
            breaker: Breaker::CLOSED,
            limit: None,
            speeds: BTreeMap::new(),
        }
    }
}

impl Health {
    /// Takes an outcome; `ours` counts our orders at the worker, this one among them.
    pub(crate) fn take(&mut self, outcome: Outcome, ours: u32, now: Instant) {
        match outcome {
            Outcome::Accepted { after } => self.accepted_ms.add(milliseconds(after)),
            Outcome::FirstToken { model, after, prompt_tokens } => {
                self.began(model, after, prompt_tokens, ours);
                self.breaker.spoke(now.checked_sub(after));
            }
            Outcome::Late { model, after, prompt_tokens } => self.began(model, after, prompt_tokens, ours),
            Outcome::Finished { model, tokens, over } => {
                self.with(model).ended(tokens, over, now);
                self.finished += 1;
                self.reliability += (1.0 - self.reliability) * OUTCOME_PART;
                self.breaker = Breaker::CLOSED;
                self.limit = self.limit.map(|limit| (limit + 1.0 / limit).min(LIMIT_MAX));
            }
            Outcome::Refused { overloaded: true } => {
                self.cut(ours.saturating_sub(1) as f32 * OVERLOAD_PART);
                self.breaker.let_go();
            }
            Outcome::Refused { overloaded: false } => self.breaker.let_go(),
            Outcome::Failed { sent } | Outcome::Unreachable { sent } => {
                self.failed += 1;
                self.reliability -= self.reliability * OUTCOME_PART;
                self.breaker.fail(sent, now);
            }
        }
    }

    /// A first token took so long, or longer.
    fn began(&mut self, model: ModelId, after: Duration, prompt_tokens: u32, ours: u32) {
        let first = FirstToken { after_ms: milliseconds(after), prompt_tokens };
        if self.with(model).began(first) && ours >= SLOWED_ORDERS_MIN {
            self.cut(ours as f32 * SLOWED_PART);
        }
    }

    /// What is known of a model there. A worker that changes its models is not remembered for all of them.
    fn with(&mut self, model: ModelId) -> &mut Speed {
        if self.speeds.len() >= MAX_SERVED_MODELS && !self.speeds.contains_key(&model) {
            self.speeds.pop_first();
        }
        self.speeds.entry(model).or_default()
    }

    /// How quick it is with a model, if anything is known.
    pub(crate) fn speed(&self, model: &ModelId) -> Option<&Speed> {
        self.speeds.get(model)
    }

    /// How quick it is, by model.
    pub(crate) fn speeds(&self) -> impl Iterator<Item = (&ModelId, &Speed)> {
        self.speeds.iter()
    }

    fn cut(&mut self, orders: f32) {
        self.limit = Some(self.limit.unwrap_or(LIMIT_MAX).min(orders).max(1.0));
    }

    pub(crate) fn gate(&self, now: Instant) -> Gate {
        self.breaker.gate(now)
    }

    /// Gives the one trial order of a half-open breaker away.
    pub(crate) fn begin_trial(&mut self, now: Instant) {
        if let Breaker::Open { trial, .. } = &mut self.breaker {
            *trial = Some(now);
        }
    }

    /// How long until the breaker lets a trial through; none if it is closed.
    pub(crate) fn pause_left(&self, now: Instant) -> Option<Duration> {
        match self.breaker {
            Breaker::Closed { .. } | Breaker::Trusted { .. } => None,
            Breaker::Open { until, .. } => Some(until.saturating_duration_since(now)),
        }
    }

    /// Orders of ours that it takes at once without being overloaded; none while nothing is known.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.limit.map(|limit| limit as u32)
    }

    /// Milliseconds from order to acceptance, on average.
    pub(crate) fn accepted_ms(&self) -> Option<f32> {
        self.accepted_ms.value()
    }

    /// The decaying share of orders that ended well.
    pub(crate) fn reliability(&self) -> f32 {
        self.reliability
    }

    pub(crate) fn finished(&self) -> u64 {
        self.finished
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }
}

impl Speed {
    /// A first token came; whether they take longer than they used to.
    fn began(&mut self, first: FirstToken) -> bool {
        self.first_token_ms.add(first.after_ms);
        self.first_tokens.add(first);
        self.pace.slowed(first)
    }

    fn ended(&mut self, tokens: u32, over: Duration, now: Instant) {
        if tokens >= RATE_TOKENS_MIN && !over.is_zero() {
            let rate = tokens as f32 / over.as_secs_f32();
            self.tokens_per_second.add(rate);
            self.rates.add(rate);
        }
        self.finished += 1;
        self.finished_at = Some(now);
    }

    /// Whether enough was served, and lately, to judge by.
    pub(crate) fn is_proven(&self, now: Instant) -> bool {
        self.finished >= PROVEN_ANSWERS
            && self.finished_at.is_some_and(|at| now.saturating_duration_since(at) <= PROVEN_FOR)
    }

    /// Milliseconds from order to first token, on average.
    pub(crate) fn first_token_ms(&self) -> Option<f32> {
        self.first_token_ms.value()
    }

    /// Output tokens a second of one answer, on average.
    pub(crate) fn tokens_per_second(&self) -> Option<f32> {
        self.tokens_per_second.value()
    }

    /// Seconds to the first token: of the latest, so many percent were no slower.
    pub(crate) fn latency_percentiles(&self) -> Option<Percentiles> {
        let ascending = ascending(self.first_tokens.iter().map(|first| first.after_ms))?;
        Some(PERCENTILES.map(|percent| rank(&ascending, percent) / 1000.0))
    }

    /// Tokens a second: of the latest answers, so many percent were no slower.
    pub(crate) fn rate_percentiles(&self) -> Option<Percentiles> {
        let mut descending = ascending(self.rates.iter())?;
        descending.reverse();
        Some(PERCENTILES.map(|percent| rank(&descending, percent)))
    }

    /// 95 in 100 of the latest first tokens came within this many milliseconds.
    pub(crate) fn first_token_p95_ms(&self) -> Option<f32> {
        ascending(self.first_tokens.iter().map(|first| first.after_ms)).map(|sorted| rank(&sorted, 95))
    }

    /// How long the first token after such a prompt may take before another worker had better be asked too. A longer
    /// prompt than those measured may take as much longer, a shorter one is given as long.
    pub(crate) fn first_token_patience(&self, prompt_tokens: u32) -> Duration {
        if self.first_tokens.count < PATIENCE_SAMPLES {
            return PATIENCE_UNKNOWN;
        }
        let scaled = self
            .first_tokens
            .iter()
            .map(|first| first.after_ms * (units(prompt_tokens) / units(first.prompt_tokens)).max(1.0));
        let p95 = ascending(scaled).map_or(0.0, |sorted| rank(&sorted, 95));
        // Half as long again, and a moment: the latest few are not all there will be.
        let ms = (p95 * 1.5 + 50.0).min(milliseconds(PATIENCE_MAX));
        Duration::from_secs_f32(ms / 1000.0).clamp(PATIENCE_MIN, PATIENCE_MAX)
    }
}

/// How long a first token may take of a worker of which nothing is known.
pub(crate) const PATIENCE_UNKNOWN: Duration = Duration::from_secs(2);

/// Stops orders to a worker that fails, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    Closed {
        failures: u32,
        /// When the last of them was noticed.
        last: Option<Instant>,
    },
    /// The trial has shown a token: orders go through, and the first that fails opens it again, for longer.
    Trusted { trial: Instant, pause: Duration },
    Open {
        until: Instant,
        /// The pause that ends then.
        pause: Duration,
        /// When the trial order was given, if one is under way.
        trial: Option<Instant>,
    },
}

impl Breaker {
    const CLOSED: Breaker = Breaker::Closed { failures: 0, last: None };

    fn gate(&self, now: Instant) -> Gate {
        let Breaker::Open { until, pause, trial } = *self else { return Gate::Closed };
        let on_trial = trial.is_some_and(|at| now.saturating_duration_since(at) < TRIAL_FOR);
        let paused = pause.saturating_sub(until.saturating_duration_since(now));
        match (on_trial, now >= until) {
            (true, _) => Gate::Open,
            (false, true) => Gate::HalfOpen,
            (false, false) if paused >= PAUSE_FIRST => Gate::Paused,
            (false, false) => Gate::Open,
        }
    }

    /// An order that was sent then has failed.
    fn fail(&mut self, sent: Instant, now: Instant) {
        let longer = |pause: Duration| (pause * 2).min(PAUSE_MAX);
        let pause = match *self {
            // Many orders fail of one cause: those from before it was noticed say nothing new.
            Breaker::Closed { last: Some(before), .. }
            | Breaker::Trusted { trial: before, .. }
            | Breaker::Open { trial: Some(before), .. }
                if sent < before =>
            {
                return;
            }
            Breaker::Open { trial: None, .. } => return,
            Breaker::Closed { failures, .. } if failures + 1 < FAILURES_MAX => {
                *self = Breaker::Closed { failures: failures + 1, last: Some(now) };
                return;
            }
            Breaker::Closed { .. } => PAUSE_FIRST,
            Breaker::Trusted { pause, .. } => longer(pause),
            Breaker::Open { until, pause, .. } if now >= until => longer(pause),
            Breaker::Open { pause, .. } => pause,
        };
        *self = Breaker::Open { until: now + pause, pause, trial: None };
    }

    /// A token came of an order that was sent then: if that is the trial, the worker is there, and others need not wait for
    /// the trial's end.
    fn spoke(&mut self, sent: Option<Instant>) {
        if let Breaker::Open { pause, trial: Some(trial), .. } = *self
            && sent.is_some_and(|sent| sent >= trial)
        {
            *self = Breaker::Trusted { trial, pause };
        }
    }

    /// A trial that was refused in order proves nothing: the next may be tried.
    fn let_go(&mut self) {
        if let Breaker::Open { trial, .. } = self {
            *trial = None;
        }
    }
}

/// A decaying average; the first few measurements count alike.
#[derive(Debug, Clone, Copy, Default)]
struct Average {
    value: f32,
    count: u32,
}

impl Average {
    fn add(&mut self, sample: f32) {
        self.count = self.count.saturating_add(1);
        let part = (1.0 / self.count as f32).max(NEWEST_PART);
        self.value += (sample - self.value) * part;
    }

    fn value(&self) -> Option<f32> {
        (self.count > 0).then_some(self.value)
    }
}

/// The latest measurements.
#[derive(Debug, Clone)]
struct Recent<T> {
    samples: [T; RECENT],
    count: usize,
    next: usize,
}

impl<T: Copy + Default> Default for Recent<T> {
    fn default() -> Self {
        Self { samples: [T::default(); RECENT], count: 0, next: 0 }
    }
}

impl<T: Copy> Recent<T> {
    fn add(&mut self, sample: T) {
        self.samples[self.next] = sample;
        self.next = (self.next + 1) % RECENT;
        self.count = (self.count + 1).min(RECENT);
    }

    fn iter(&self) -> impl Iterator<Item = T> {
        self.samples[..self.count].iter().copied()
    }
}

/// Sorted; none of none.
fn ascending(samples: impl Iterator<Item = f32>) -> Option<Vec<f32>> {
    let mut samples: Vec<f32> = samples.collect();
    samples.sort_unstable_by(f32::total_cmp);
    (!samples.is_empty()).then_some(samples)
}

/// The nearest rank: of `sorted`, so many percent are at or before it.
fn rank(sorted: &[f32], percent: u32) -> f32 {
    let rank = (sorted.len() * percent as usize).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// Whether first tokens take longer than they used to, prompts of different length made comparable.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    quick: f32,
    slow: f32,
    samples: u32,
    since_cut: u32,
}

impl Pace {
    fn slowed(&mut self, first: FirstToken) -> bool {
        let unit_ms = first.after_ms / units(first.prompt_tokens);
        self.samples = self.samples.saturating_add(1);
        self.since_cut = self.since_cut.saturating_add(1);
        let first = 1.0 / self.samples as f32;
        self.quick += (unit_ms - self.quick) * first.max(QUICK_PART);
        self.slow += (unit_ms - self.slow) * first.max(SLOW_PART);
        let slowed = self.since_cut >= SLOWED_SAMPLES && self.quick > self.slow * SLOWED_TIMES + SLOWED_MS;
        if slowed {
            self.since_cut = 0;
        }
        slowed
    }
}

/// What a prompt is expected to cost, an empty one being 1.
fn units(prompt_tokens: u32) -> f32 {
    1.0 + prompt_tokens as f32 / PROMPT_TOKENS_PER_UNIT
}

fn milliseconds(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use surety_types::Digest;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const MODEL: ModelId = ModelId(Digest::ZERO);
    const WELL: Outcome = Outcome::Finished { model: MODEL, tokens: 11, over: Duration::from_secs(1) };

    fn first(after: u64, prompt_tokens: u32) -> Outcome {
        Outcome::FirstToken { model: MODEL, after: ms(after), prompt_tokens }
    }

    fn health(outcomes: &[Outcome], now: Instant) -> Health {
        let mut health = Health::default();
        outcomes.iter().for_each(|outcome| health.take(*outcome, 1, now));
        health
    }

    /// An order that was sent then has failed.
    fn failed(sent: Instant) -> Outcome {
        Outcome::Failed { sent }
    }

    #[test]
    fn averages_decay_and_percentiles_are_of_the_latest() {
        let now = Instant::now();
        let mut health = Health::default();
        assert!(health.speed(&MODEL).is_none());
        health.take(first(10, 0), 1, now);
        assert_eq!(health.speed(&MODEL).expect("known").first_token_patience(0), PATIENCE_UNKNOWN);
        for after in 2..=100 {
            health.take(first(after * 10, 128), 1, now);
        }
        let speed = health.speed(&MODEL).expect("known");
        // The latest 64 are 370 to 1000 milliseconds.
        let expected = [0.68, 0.84, 0.94, 1.0];
        for (found, expected) in speed.latency_percentiles().expect("measured").into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-3, "{found} {expected}");
        }
        let average = speed.first_token_ms().expect("measured");
        assert!((900.0..=950.0).contains(&average), "{average}");
        let patience = speed.first_token_patience(0);
        assert!(patience > ms(1400) && patience < ms(1600), "{patience:?}");
        assert_eq!(speed.first_token_patience(128), patience);
        let longer = speed.first_token_patience(128 * 9);
        assert!(longer > patience.mul_f32(4.5) && longer < patience * 5, "{longer:?}");
        assert_eq!(speed.first_token_patience(u32::MAX), PATIENCE_MAX);
        let other = ModelId(Digest([1; 32]));
        assert!(health.speed(&other).is_none(), "each model by itself");
        // 1 is too short to be a rate, 0 seconds are too.
        for (tokens, over) in [(1, ms(100)), (100, Duration::ZERO), (50, ms(1000)), (100, ms(1000))] {
            health.take(Outcome::Finished { model: MODEL, tokens, over }, 1, now);
        }
        let speed = health.speed(&MODEL).expect("known");
        assert_eq!(speed.tokens_per_second(), Some(75.0));
        assert_eq!(speed.rate_percentiles(), Some([100.0, 50.0, 50.0, 50.0]));
    }

    #[test]
    fn the_breaker_opens_backs_off_and_lets_one_through() {
        let start = Instant::now();
        let mut health = health(&[failed(start), failed(start), WELL, failed(start)], start);
        assert_eq!(health.gate(start), Gate::Closed, "never three in a row");
        health.take(Outcome::Unreachable { sent: start }, 1, start);
        assert_eq!(health.gate(start), Gate::Closed);
        health.take(failed(start), 1, start);
        let mut now = start;
        let mut pause = PAUSE_FIRST;
        for _ in 0..10 {
            assert_eq!(health.gate(now), Gate::Open);
            assert_eq!(health.pause_left(now), Some(pause));
            // A straggler from before changes nothing.
            health.take(failed(now), 1, now);
            let almost = if pause > PAUSE_FIRST { Gate::Paused } else { Gate::Open };
            assert_eq!(health.gate(now + pause - ms(1)), almost);
            now += pause;
            assert_eq!(health.gate(now), Gate::HalfOpen);
            health.begin_trial(now);
            assert_eq!(health.gate(now), Gate::Open, "one at a time");
            assert_eq!(health.gate(now + TRIAL_FOR), Gate::HalfOpen, "a trial that says nothing ends");
            health.take(Outcome::Refused { overloaded: false }, 1, now);
            assert_eq!(health.gate(now), Gate::HalfOpen, "refused in order: nothing is known");
            health.begin_trial(now);
            health.take(failed(now - ms(1)), 1, now);
            assert_eq!(health.pause_left(now), Some(Duration::ZERO), "an order from before the trial");
            health.take(failed(now), 1, now);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        assert_eq!(pause, PAUSE_MAX);
        // Where nobody else is there it is tried after a second, and a failure then begins the same pause again.
        now += PAUSE_FIRST;
        assert_eq!(health.gate(now), Gate::Paused);
        health.begin_trial(now);
        assert_eq!(health.gate(now), Gate::Open);
        health.take(failed(now), 1, now);
        assert_eq!((health.gate(now), health.pause_left(now)), (Gate::Open, Some(PAUSE_MAX)));
        now += pause;
        health.begin_trial(now);
        health.take(WELL, 1, now);
        assert_eq!((health.gate(now), health.pause_left(now)), (Gate::Closed, None));
        assert_eq!((health.finished(), health.failed()), (2, 36));
    }

    #[test]
    fn orders_that_fail_of_one_cause_are_one_failure() {
        let start = Instant::now();
        let mut health = Health::default();
        for later in 0..9 {
            health.take(failed(start), 9, start + ms(1 + later));
        }
        assert_eq!((health.gate(start + ms(9)), health.failed()), (Gate::Closed, 9));
        // What was sent after it was noticed, and fails too, is another.
        health.take(failed(start + ms(10)), 1, start + ms(11));
        assert_eq!(health.gate(start + ms(11)), Gate::Closed);
        health.take(failed(start + ms(12)), 1, start + ms(13));
        assert_eq!(health.gate(start + ms(13)), Gate::Open);
    }

    #[test]
    fn a_trial_that_shows_a_token_lets_others_through_until_one_fails() {
        let start = Instant::now();
        let mut health = health(&[failed(start); 3], start);
        let mut pause = PAUSE_FIRST;
        let mut now = start;
        for _ in 0..3 {
            now += pause;
            health.begin_trial(now);
            // A token of an order from before, or one that never came, says nothing.
            health.take(first(20, 0), 1, now + ms(10));
            health.take(Outcome::Late { model: MODEL, after: ms(5), prompt_tokens: 0 }, 1, now + ms(10));
            assert_eq!(health.gate(now + ms(10)), Gate::Open);
            health.take(first(10, 0), 1, now + ms(10));
            assert_eq!((health.gate(now + ms(10)), health.pause_left(now)), (Gate::Closed, None));
            health.take(failed(now - ms(1)), 1, now + ms(11));
            assert_eq!(health.gate(now + ms(11)), Gate::Closed, "it was sent before the trial");
            now += ms(12);
            health.take(failed(now), 1, now);
            pause *= 2;
            assert_eq!((health.gate(now), health.pause_left(now)), (Gate::Open, Some(pause)));
        }
        now += pause;
        health.begin_trial(now);
        health.take(first(1, 0), 1, now + ms(1));
        health.take(WELL, 1, now + ms(2));
        health.take(failed(now + ms(3)), 1, now + ms(3));
        assert_eq!(health.gate(now + ms(3)), Gate::Closed, "all is forgiven");
    }

    #[test]
    fn who_says_that_it_goes_and_has_promised_nothing_has_not_failed() {
        let (sent, worker) = (Instant::now(), surety_types::PublicKey([1; 32]));
        let goodbye = || Lost::ClosedByPeer(CloseCode::ShuttingDown);
        let lost = |accepted, lost| SessionError::WorkerLost { worker, output_tokens: 0, accepted, lost };
        let broken = |accepted, code| SessionError::BrokenOff { worker, output_tokens: 0, accepted, code };
        let check = |error: SessionError, expected| {
            assert_eq!(Outcome::of_error(&error, sent), Some(expected), "{error}");
        };
        let in_order = Outcome::Refused { overloaded: false };
        check(lost(false, goodbye()), in_order);
        check(broken(false, CloseCode::ShuttingDown), in_order);
        check(SessionError::Unreachable { worker, lost: Some(goodbye()) }, in_order);
        check(lost(true, goodbye()), failed(sent));
        check(broken(true, CloseCode::ShuttingDown), failed(sent));
        check(lost(false, Lost::Silence), Outcome::Unreachable { sent });
        check(SessionError::Unreachable { worker, lost: None }, Outcome::Unreachable { sent });
        check(broken(false, CloseCode::Failed), failed(sent));
    }

    #[test]
    fn limits_are_cut_by_overload_and_grow_by_answers() {
        let now = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.limit(), None);
        health.take(Outcome::Refused { overloaded: false }, 9, now);
        assert_eq!(health.limit(), None);
        health.take(Outcome::Refused { overloaded: true }, 41, now);
        assert_eq!(health.limit(), Some(30));
        // Further refusals while fewer are under way cut further, never below one.
        health.take(Outcome::Refused { overloaded: true }, 21, now);
        assert_eq!(health.limit(), Some(15));
        health.take(Outcome::Refused { overloaded: true }, 1, now);
        assert_eq!(health.limit(), Some(1));
        for _ in 0..200 {
            health.take(WELL, 1, now);
        }
        let grown = health.limit().expect("a limit");
        assert!((15..=25).contains(&grown), "about the square root of twice the answers: {grown}");
    }

    #[test]
    fn first_tokens_that_take_longer_and_longer_cut_the_limit() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..100 {
            health.take(first(50, 10), 20, now);
        }
        // A long prompt takes longer, and that is all right.
        for _ in 0..40 {
            health.take(first(800, 1920), 20, now);
        }
        assert_eq!(health.limit(), None);
        for _ in 0..8 {
            health.take(first(2000, 10), 2, now);
        }
        assert_eq!(health.limit(), None, "two orders are no overload of our making");
        for _ in 0..SLOWED_SAMPLES {
            health.take(first(2000, 10), 20, now);
        }
        assert_eq!(health.limit(), Some(18));
    }

    #[test]
    fn proof_is_served_tokens_and_grows_old() {
        let now = Instant::now();
        let mut health = health(&[Outcome::Accepted { after: ms(3) }; 9], now);
        assert!(health.speed(&MODEL).is_none(), "an acceptance is only a word");
        (1..PROVEN_ANSWERS).for_each(|_| health.take(WELL, 1, now));
        assert!(!health.speed(&MODEL).expect("known").is_proven(now));
        health.take(WELL, 1, now);
        let speed = health.speed(&MODEL).expect("known");
        assert!(speed.is_proven(now) && speed.is_proven(now + PROVEN_FOR));
        assert!(!speed.is_proven(now + PROVEN_FOR + ms(1)));
        let before = health.reliability();
        health.take(failed(now), 1, now);
        assert!(health.reliability() < before);
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        let span = (0u64..1 << 40).prop_map(Duration::from_micros);
        let model = any::<u8>().prop_map(|byte| ModelId(Digest([byte; 32])));
        prop_oneof![
            span.clone().prop_map(|after| Outcome::Accepted { after }),
            (model.clone(), span.clone(), any::<u32>(), any::<bool>()).prop_map(
                |(model, after, prompt_tokens, came)| match came {
                    true => Outcome::FirstToken { model, after, prompt_tokens },
                    false => Outcome::Late { model, after, prompt_tokens },
                }
            ),
            (model, any::<u32>(), span).prop_map(|(model, tokens, over)| Outcome::Finished {
                model,
                tokens,
                over
            }),
            any::<bool>().prop_map(|overloaded| Outcome::Refused { overloaded }),
            (0u64..100_000).prop_map(|after| Outcome::Failed { sent: long_ago() + ms(after) }),
            (0u64..100_000).prop_map(|after| Outcome::Unreachable { sent: long_ago() + ms(after) }),
        ]
    }

    /// The same moment, all through a test.
    fn long_ago() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now)
    }

    proptest! {
        #[test]
        fn nothing_measured_ever_leaves_its_bounds(
            outcomes in prop::collection::vec((any_outcome(), any::<u32>(), 0u64..100_000), 0..200),
            prompt_tokens in any::<u32>(),
        ) {
            let (mut health, mut now) = (Health::default(), long_ago());
            for (outcome, ours, later) in outcomes {
                now += ms(later);
                health.take(outcome, ours, now);
                prop_assert!(health.speeds().count() <= MAX_SERVED_MODELS);
                let sound = |value: Option<f32>| value.is_none_or(|value| value.is_finite() && value >= 0.0);
                prop_assert!(sound(health.accepted_ms()));
                for (_, speed) in health.speeds() {
                    prop_assert!(sound(speed.first_token_ms()) && sound(speed.tokens_per_second()));
                    let patience = speed.first_token_patience(prompt_tokens);
                    prop_assert!((PATIENCE_MIN..=PATIENCE_MAX).contains(&patience));
                }
                prop_assert!((0.0..=1.0).contains(&health.reliability()));
                prop_assert!(health.limit().is_none_or(|limit| (1..=LIMIT_MAX as u32).contains(&limit)));
                prop_assert!(health.pause_left(now).is_none_or(|left| left <= PAUSE_MAX));
                prop_assert_eq!(health.gate(now + PAUSE_MAX + TRIAL_FOR) == Gate::Open, false);
            }
        }
    }
}
