//! The rules of block time.
//!
//! In:     the parent's time, a block's, and the local clock, in milliseconds.
//! Out:    the time of a proposal; whether a block's time is right, wrong for good, or not yet due.
//! Touches: nothing.
//! Holds:  time grows with every block, by at most `STEP_MAX_MS` after the first; a quorum's clocks bound it from above.
//!         After a long halt it catches up over a few blocks.
//! Absent: the clock.

/// The most a block's time may lie after its parent's. The first block may follow the genesis by any time.
pub const STEP_MAX_MS: u64 = 3_600_000;
/// How far ahead of the local clock a block's time may be and still be taken for clock noise.
pub const AHEAD_MAX_MS: u64 = 1_500;

/// What a verifier makes of a block's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In order.
    Good,
    /// Never valid.
    Wrong,
    /// Valid once this many milliseconds have passed here.
    Early(u64),
}

/// The longest step to a block of this height.
fn step_max(number: u64) -> u64 {
    if number <= 1 { u64::MAX } else { STEP_MAX_MS }
}

/// The time of a proposal of height `number` made at `now_ms`.
pub(crate) fn propose(number: u64, parent_ms: u64, now_ms: u64) -> u64 {
    now_ms.clamp(parent_ms.saturating_add(1), parent_ms.saturating_add(step_max(number)))
}

/// Judges the time of a block of height `number` at `now_ms`.
pub(crate) fn judge(number: u64, parent_ms: u64, block_ms: u64, now_ms: u64) -> Verdict {
    if block_ms <= parent_ms || block_ms - parent_ms > step_max(number) {
        return Verdict::Wrong;
    }
    match block_ms.saturating_sub(now_ms.saturating_add(AHEAD_MAX_MS)) {
        0 => Verdict::Good,
        wait => Verdict::Early(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_an_hour_off_is_noticed_not_believed() {
        const HOUR: u64 = 3_600_000;
        let (parent, now) = (1_000_000_000, 1_000_000_250);
        assert_eq!(judge(7, parent, propose(7, parent, now), now), Verdict::Good);
        let ahead = propose(7, parent, now + HOUR);
        assert_eq!(judge(7, parent, ahead, now), Verdict::Early(STEP_MAX_MS - 250 - AHEAD_MAX_MS));
        let behind = propose(7, parent, now - HOUR);
        assert_eq!(judge(7, parent, behind, now), Verdict::Good, "time still grows");
        assert_eq!(judge(7, parent, parent, now), Verdict::Wrong);
        assert_eq!(judge(7, parent, parent + STEP_MAX_MS + 1, now + HOUR), Verdict::Wrong);
        assert_eq!(
            judge(1, 0, now, now),
            Verdict::Good,
            "a chain may begin long after its genesis was written"
        );
    }

    proptest! {
        #[test]
        fn honest_proposals_are_good(number in 1u64..9, parent in 0u64..u64::MAX / 2, elapsed in 0u64..u64::MAX / 4) {
            let now = parent + elapsed;
            prop_assert_eq!(judge(number, parent, propose(number, parent, now), now), Verdict::Good);
        }

        #[test]
        fn nothing_overflows(number: u64, parent: u64, block: u64, now: u64) {
            let _ = judge(number, parent, block, now);
            let _ = propose(number, parent, now);
        }
    }
}
