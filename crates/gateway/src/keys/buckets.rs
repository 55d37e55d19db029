//! Buckets: what a key used, by spans of time and by model.
//!
//! In:     rows of usage, each once; the sums of all there ever were. Out: sums by span, and of all before.
//! Touches: nothing: time is an argument.
//! Holds:  the spans and what was earlier sum to what the key was charged, exactly; spans and models are bounded.
//! Absent: the disk (`store`), who may look (`api`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{store::Totals, terms::Micro};

/// Models that are told of by name; what others used is one sum.
const MODELS_MAX: usize = 8;
const MINUTE_MS: u64 = 60_000;

/// How long a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Width {
    Minute,
    Hour,
    Day,
}

impl Width {
    /// As callers write it.
    pub(crate) const NAMES: [(&'static str, Width); 3] =
        [("1m", Width::Minute), ("1h", Width::Hour), ("1d", Width::Day)];

    pub(crate) fn ms(self) -> u64 {
        match self {
            Width::Minute => MINUTE_MS,
            Width::Hour => 60 * MINUTE_MS,
            Width::Day => 24 * 60 * MINUTE_MS,
        }
    }

    /// Spans that are told of, the one that has not ended among them.
    pub(crate) fn count(self) -> usize {
        match self {
            Width::Minute => 60,
            Width::Hour => 48,
            Width::Day => 30,
        }
    }
}

/// What is read of a row.
#[derive(Debug, Deserialize)]
pub(super) struct Counted {
    model: String,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    cost: Micro,
    done_ms: u64,
}

/// What was used in a span of time. Amounts are micro-credits, as decimal texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UsageBucket {
    /// Unix milliseconds: whole minutes, hours or days of UTC.
    pub(crate) start_ms: u64,
    /// Unix milliseconds, excluded.
    pub(crate) end_ms: u64,
    /// Of what was answered in it.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) totals: Totals,
    /// The same by model.
    pub(crate) models: Vec<OfModel>,
}

/// What one model was used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct OfModel {
    /// Its name; none for those that are not told of by name.
    pub(crate) model: Option<String>,
    /// Its part.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) totals: Totals,
}

/// What a key used, span by span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buckets {
    /// The oldest first, without gaps; the last has not ended.
    pub(crate) buckets: Vec<UsageBucket>,
    /// Before the first of them.
    pub(crate) earlier: Totals,
    /// Of all there ever was.
    pub(crate) total: Totals,
}

/// Sums while rows are read.
#[derive(Debug)]
pub(super) struct Sums {
    width: Width,
    first_ms: u64,
    spans: Vec<BTreeMap<String, Totals>>,
}

impl Sums {
    pub(super) fn new(width: Width, now_ms: u64) -> Sums {
        let count = width.count();
        let first_ms = (now_ms / width.ms()).saturating_sub(count as u64 - 1) * width.ms();
        Sums { width, first_ms, spans: vec![BTreeMap::new(); count] }
    }

    /// Counts a row. What a clock that was set back dates later than now is counted last.
    pub(super) fn take(&mut self, row: Counted) {
        let Some(since) = row.done_ms.checked_sub(self.first_ms) else { return };
        let last = self.spans.len() - 1;
        let span = usize::try_from(since / self.width.ms()).unwrap_or(last).min(last);
        let one = Totals {
            requests: 1,
            prompt_tokens: row.prompt_tokens,
            cached_tokens: row.cached_tokens,
            output_tokens: row.output_tokens,
            cost: row.cost,
        };
        self.spans[span].entry(row.model).or_default().plus(&one);
    }

    /// The spans, beside all there ever was.
    pub(super) fn told(self, total: Totals) -> Buckets {
        let mut models: BTreeMap<&str, Totals> = BTreeMap::new();
        for (model, sum) in self.spans.iter().flatten() {
            models.entry(model).or_default().plus(sum);
        }
        let mut models: Vec<(&str, Totals)> = models.into_iter().collect();
        models.sort_by_key(|(model, sum)| (std::cmp::Reverse(sum.prompt_tokens + sum.output_tokens), *model));
        let named: Vec<String> =
            models.into_iter().take(MODELS_MAX).map(|(model, _)| model.to_owned()).collect();
        let mut earlier = total.clone();
        let mut buckets = Vec::with_capacity(self.spans.len());
        for (index, span) in self.spans.iter().enumerate() {
            let start_ms = self.first_ms + index as u64 * self.width.ms();
            let (mut totals, mut others) = (Totals::default(), Totals::default());
            let mut of_models = Vec::new();
            for (model, sum) in span {
                totals.plus(sum);
                match named.contains(model) {
                    true => of_models.push(OfModel { model: Some(model.clone()), totals: sum.clone() }),
                    false => others.plus(sum),
                }
            }
            if others.requests > 0 {
                of_models.push(OfModel { model: None, totals: others });
            }
            earlier.minus(&totals);
            buckets.push(UsageBucket {
                start_ms,
                end_ms: start_ms + self.width.ms(),
                totals,
                models: of_models,
            });
        }
        Buckets { buckets, earlier, total }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_767_225_599_001;

    fn row(model: usize, done_ms: u64, cost: u128) -> Counted {
        let (prompt_tokens, cached_tokens, output_tokens) = (done_ms % 7, done_ms % 3, done_ms % 11);
        Counted {
            model: format!("m{model}"),
            prompt_tokens,
            cached_tokens,
            output_tokens,
            cost: Micro(cost),
            done_ms,
        }
    }

    proptest! {
        #[test]
        fn spans_and_what_was_earlier_are_all_there_was(
            rows in prop::collection::vec((0usize..20, 0u64..40 * 86_400_000, 0u128..1_000), 0..80),
            dropped in 0u128..1_000,
            width in prop::sample::select(vec![Width::Minute, Width::Hour, Width::Day]),
        ) {
            let mut sums = Sums::new(width, NOW_MS);
            let mut total = Totals { requests: 3, cost: Micro(dropped), ..Totals::default() };
            let mut within = 0;
            for (model, ago_ms, cost) in rows {
                let row = row(model, NOW_MS - ago_ms, cost);
                total.plus(&Totals {
                    requests: 1,
                    prompt_tokens: row.prompt_tokens,
                    cached_tokens: row.cached_tokens,
                    output_tokens: row.output_tokens,
                    cost: row.cost,
                });
                let began = (NOW_MS / width.ms() - width.count() as u64 + 1) * width.ms();
                within += u128::from(row.done_ms >= began) * cost;
                sums.take(row);
            }
            let told = sums.told(total.clone());
            prop_assert_eq!(told.buckets.len(), width.count());
            let mut again = told.earlier.clone();
            for (index, bucket) in told.buckets.iter().enumerate() {
                again.plus(&bucket.totals);
                prop_assert_eq!(bucket.end_ms - bucket.start_ms, width.ms());
                prop_assert!(index == 0 || told.buckets[index - 1].end_ms == bucket.start_ms);
                let mut of_models = Totals::default();
                bucket.models.iter().for_each(|one| of_models.plus(&one.totals));
                prop_assert_eq!(&of_models, &bucket.totals);
                prop_assert!(bucket.models.len() <= MODELS_MAX + 1);
            }
            prop_assert_eq!(&again, &total);
            prop_assert_eq!(told.buckets.iter().map(|bucket| bucket.totals.cost.0).sum::<u128>(), within);
            let last = told.buckets.last().expect("a span");
            prop_assert!((last.start_ms..last.end_ms).contains(&NOW_MS));
        }
    }

    #[test]
    fn a_clock_that_was_set_back_loses_nothing() {
        let mut sums = Sums::new(Width::Minute, NOW_MS);
        sums.take(row(1, NOW_MS + 86_400_000, 5));
        sums.take(row(1, u64::MAX, 6));
        let told = sums.told(Totals { requests: 2, cost: Micro(11), ..Totals::default() });
        assert_eq!(told.buckets.last().expect("a span").totals.cost, Micro(11));
        // At the beginning of time there is nothing before.
        assert_eq!(Sums::new(Width::Day, 5).told(Totals::default()).buckets[0].start_ms, 0);
    }
}
