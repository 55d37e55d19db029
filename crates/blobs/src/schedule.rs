//! The schedule: which piece is asked of whom.
//!
//! In:     which pieces are here; holders that have room; pieces that came or failed; the time.
//! Out:    the next piece to ask a holder for.
//! Holds:  every piece is wanted, under way with someone, or here; when nothing is wanted any more, pieces that would
//!         come late are asked for a second time, so that one slow holder never holds up the end.
//! Absent: clocks, sockets, bytes.

use std::time::Duration;

/// So many holders are asked for one piece, unless it is late by far.
const CLAIMS_USUAL: usize = 3;
/// By so many times what the next holder would take.
const LATE_BY_FAR: u32 = 8;
/// How long a holder of which nothing is known yet may take before others are asked too.
const UNKNOWN_PACE: Duration = Duration::from_secs(2);

/// A holder's number.
pub type HolderIndex = usize;

/// Which pieces are wanted, under way and here.
#[derive(Debug)]
pub struct Schedule {
    pieces: Vec<State>,
    /// No piece before this one is wanted.
    first: usize,
    left: usize,
    /// How long a piece took each holder lately, from when it was asked for.
    paces: Vec<Option<Duration>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Here,
    /// With these; with nobody, it is wanted.
    Away(Vec<Claim>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    holder: HolderIndex,
    since: Duration,
}

impl Schedule {
    /// Of a file of which these pieces are here, and so many holders.
    pub fn new(here: &[bool], holders: usize) -> Self {
        let state = |here: &bool| if *here { State::Here } else { State::Away(Vec::new()) };
        let left = here.iter().filter(|here| !**here).count();
        let pieces = here.iter().map(state).collect();
        Schedule { pieces, first: 0, left, paces: vec![None; holders] }
    }

    /// How many pieces are not here.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Whether a piece is here.
    pub fn is_here(&self, piece: u32) -> bool {
        self.pieces[piece as usize] == State::Here
    }

    /// What to ask this holder for now, if anything. It is then under way with it.
    pub fn next(&mut self, holder: HolderIndex, now: Duration) -> Option<u32> {
        let wanted = |state: &State| matches!(state, State::Away(claims) if claims.is_empty());
        let found = self.pieces[self.first..].iter().position(wanted);
        self.first = found.map_or(self.pieces.len(), |found| self.first + found);
        let piece = if self.first < self.pieces.len() { self.first } else { self.latest(holder, now)? };
        let State::Away(claims) = &mut self.pieces[piece] else { unreachable!("it is not here") };
        claims.push(Claim { holder, since: now });
        Some(piece as u32)
    }

    /// A piece came and was right. Returns whether it was missing until now.
    pub fn came(&mut self, piece: u32, holder: HolderIndex, now: Duration) -> bool {
        let State::Away(claims) = &mut self.pieces[piece as usize] else { return false };
        if let Some(claim) = claims.iter().find(|claim| claim.holder == holder) {
            let took = now.saturating_sub(claim.since);
            let pace = &mut self.paces[holder];
            *pace = Some(pace.map_or(took, |before| (before * 3 + took) / 4));
        }
        self.pieces[piece as usize] = State::Here;
        self.left -= 1;
        true
    }

    /// A holder gives nothing more of what it was asked for.
    pub fn release(&mut self, holder: HolderIndex) {
        for (index, state) in self.pieces.iter_mut().enumerate() {
            if let State::Away(claims) = state
                && !claims.is_empty()
            {
                claims.retain(|claim| claim.holder != holder);
                if claims.is_empty() {
                    self.first = self.first.min(index);
                }
            }
        }
    }

    /// The piece that will come last, if this holder is likely to be sooner with it.
    fn latest(&self, holder: HolderIndex, now: Duration) -> Option<usize> {
        let mine = self.paces[holder].unwrap_or(UNKNOWN_PACE);
        let late = self.pieces.iter().enumerate().filter_map(|(index, state)| {
            let State::Away(claims) = state else { return None };
            if claims.iter().any(|claim| claim.holder == holder) {
                return None;
            }
            // Who is overdue is expected to take as long again.
            let remaining = claims.iter().map(|claim| {
                let age = now.saturating_sub(claim.since);
                match self.paces[claim.holder] {
                    Some(pace) if pace > age => pace - age,
                    _ => age,
                }
            });
            let remaining = remaining.min()?;
            let enough = if claims.len() < CLAIMS_USUAL { mine } else { mine * LATE_BY_FAR };
            (remaining > enough).then_some((remaining, index))
        });
        late.max().map(|(_, index)| index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn pieces_go_out_in_order_and_come_back_when_released() {
        let mut schedule = Schedule::new(&[false, true, false, false], 2);
        assert_eq!(schedule.left(), 3);
        assert_eq!(schedule.next(0, ms(0)), Some(0));
        assert_eq!(schedule.next(1, ms(0)), Some(2));
        schedule.release(0);
        assert_eq!(schedule.next(1, ms(0)), Some(0));
        assert!(schedule.came(2, 1, ms(5)));
        assert!(!schedule.came(2, 1, ms(6)), "once");
        assert_eq!(schedule.next(0, ms(7)), Some(3));
        assert_eq!(schedule.next(0, ms(7)), None, "the rest is under way and young");
        assert_eq!(schedule.left(), 2);
    }

    #[test]
    fn what_a_slow_holder_has_is_asked_of_a_quick_one_at_the_end() {
        let mut schedule = Schedule::new(&[false; 4], 3);
        assert_eq!(schedule.next(0, ms(0)), Some(0));
        assert_eq!(schedule.next(1, ms(0)), Some(1));
        assert!(schedule.came(1, 1, ms(100)));
        assert_eq!(schedule.next(1, ms(100)), Some(2));
        assert_eq!(schedule.next(1, ms(100)), Some(3));
        assert!(schedule.came(2, 1, ms(200)));
        // Holder 0 has had piece 0 for 200 ms and never brought one; holder 1 needs 100 ms.
        assert_eq!(schedule.next(1, ms(200)), Some(0));
        assert_eq!(schedule.next(1, ms(200)), None, "not twice of the same");
        // Holder 2 is unknown: it is asked when somebody is late by its standard.
        assert_eq!(schedule.next(2, ms(300)), None);
        assert_eq!(schedule.next(2, ms(2500)), Some(3));
        assert!(schedule.came(0, 1, ms(2600)));
        assert!(schedule.came(3, 2, ms(2600)));
        assert_eq!(schedule.left(), 0);
        assert_eq!(schedule.next(0, ms(9999)), None);
    }

    proptest! {
        /// Whatever holders do, as long as one of them brings what it is asked for, every piece comes.
        #[test]
        fn everything_comes_in_the_end(
            mut here in prop::collection::vec(any::<bool>(), 1..40),
            deeds in prop::collection::vec((0usize..3, 0u8..4), 0..400),
        ) {
            here.push(false);
            let mut schedule = Schedule::new(&here, 4);
            let missing = here.iter().filter(|here| !**here).count();
            let mut asked: Vec<(u32, usize)> = Vec::new();
            let (mut came, mut now) = (0, ms(0));
            for (holder, deed) in deeds {
                now += ms(700);
                match deed {
                    0 | 1 => asked.extend(schedule.next(holder, now).map(|piece| (piece, holder))),
                    2 => if let Some(at) = asked.iter().position(|(_, by)| *by == holder) {
                        let (piece, _) = asked.remove(at);
                        came += usize::from(schedule.came(piece, holder, now));
                        prop_assert!(schedule.is_here(piece));
                    },
                    _ => {
                        schedule.release(holder);
                        asked.retain(|(_, by)| *by != holder);
                    }
                }
                prop_assert_eq!(schedule.left() + came, missing);
            }
            for _ in 0..200 {
                now += ms(3000);
                if let Some(piece) = schedule.next(3, now) {
                    came += usize::from(schedule.came(piece, 3, now + ms(100)));
                }
            }
            prop_assert_eq!((schedule.left(), came), (0, missing));
        }
    }
}
