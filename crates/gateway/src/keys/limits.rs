//! Limits: how many requests and tokens a key may have in a minute.
//!
//! In:     the time, what is taken. Out: whether there is room; what is left, and when all of it is there again.
//! Touches: nothing: time is an argument.
//! Holds:  whoever waits as long as it is told gets in; in any minute no more is let in than twice the limit, and in the
//!         long run no more than the limit. Exact: no fraction is lost.
//! Absent: headers (`api`).

/// Milliseconds of the window.
const WINDOW_MS: i128 = 60_000;

/// A bucket that fills by its limit every minute, and holds that much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    limit: u32,
    /// In parts of one of what is counted, of which there are `WINDOW_MS`. Negative: a debt.
    level: i128,
    at_ms: u64,
}

/// How a bucket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Unix milliseconds when it is full.
    pub(crate) full_ms: u64,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(limit: u32, now_ms: u64) -> Bucket {
        Bucket { limit, level: i128::from(limit) * WINDOW_MS, at_ms: now_ms }
    }

    fn refill(&mut self, now_ms: u64) {
        let passed = i128::from(now_ms.saturating_sub(self.at_ms));
        self.at_ms = self.at_ms.max(now_ms);
        let capacity = i128::from(self.limit) * WINDOW_MS;
        self.level = (self.level + passed * i128::from(self.limit)).min(capacity);
    }

    /// Milliseconds until there is room for one; 0 if there is.
    pub(crate) fn wait_ms(&mut self, now_ms: u64) -> u64 {
        self.refill(now_ms);
        let missing = WINDOW_MS - self.level;
        if missing <= 0 { 0 } else { divide(missing, self.limit) }
    }

    /// Takes so many, into debt if need be.
    pub(crate) fn take(&mut self, now_ms: u64, count: u64) {
        self.refill(now_ms);
        self.level -= i128::from(count) * WINDOW_MS;
    }

    /// Puts so many back.
    pub(crate) fn put(&mut self, now_ms: u64, count: u64) {
        self.refill(now_ms);
        self.level = (self.level + i128::from(count) * WINDOW_MS).min(i128::from(self.limit) * WINDOW_MS);
    }

    pub(crate) fn level(&mut self, now_ms: u64) -> Level {
        self.refill(now_ms);
        let remaining = (self.level / WINDOW_MS).clamp(0, i128::from(self.limit)) as u32;
        let missing = i128::from(self.limit) * WINDOW_MS - self.level;
        Level { limit: self.limit, remaining, full_ms: now_ms.saturating_add(divide(missing, self.limit)) }
    }
}

/// Milliseconds, rounded up.
fn divide(missing: i128, limit: u32) -> u64 {
    let limit = i128::from(limit.max(1));
    u64::try_from((missing + limit - 1) / limit).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whoever_waits_as_told_gets_in(
            limit in 1u32..100_000,
            steps in prop::collection::vec((0u64..5_000, 0u64..1_000), 1..100),
        ) {
            let mut now = 1_000_000;
            let mut bucket = Bucket::new(limit, now);
            for (pause, count) in steps {
                now += pause;
                let wait = bucket.wait_ms(now);
                prop_assert_eq!(bucket.wait_ms(now + wait), 0);
                if wait > 0 {
                    prop_assert!(bucket.level(now).remaining == 0 || bucket.level(now + wait).remaining >= 1);
                }
                now += wait;
                prop_assert!(bucket.level(now).remaining >= 1);
                bucket.take(now, count);
                let full = bucket.level(now).full_ms;
                let mut later = bucket;
                prop_assert_eq!(later.level(full).remaining, limit);
            }
        }

        #[test]
        fn no_more_gets_in_than_the_limit_allows(limit in 1u32..500, pauses in prop::collection::vec(0u64..400, 1..400)) {
            let (began, mut now, mut taken) = (5_000, 5_000, 0u64);
            let mut bucket = Bucket::new(limit, now);
            for pause in pauses {
                now += pause;
                if bucket.wait_ms(now) == 0 {
                    bucket.take(now, 1);
                    taken += 1;
                }
                let allowed = u64::from(limit) + u64::from(limit) * (now - began) / 60_000;
                prop_assert!(taken <= allowed, "{} of {}", taken, allowed);
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = Bucket::new(60, 100_000);
        bucket.take(100_000, 60);
        assert_eq!(bucket.wait_ms(50_000), 1000);
        assert_eq!(bucket.wait_ms(101_000), 0);
    }
}
