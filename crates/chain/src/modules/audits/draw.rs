//! What a beacon draws: entries of a log, one in each of as many equal parts; and places in a list of operators.
//!
//! In:     a beacon, whose log, how long it is, at which rate. Out: how many entries, which. Touches: nothing.
//! Holds:  every entry is drawn with the same probability, within one part in the length of a part; which entries of
//!         different parts are drawn is independent; so m false entries are missed by a rate p with probability at most
//!         (1 − p)ᵐ, and m of them in one part with 1 − p·m.

use alloy_primitives::{Address, B256, U256, keccak256};

/// The whole, in the unit of rates.
pub(super) const WHOLE_PPM: u64 = 1_000_000;

/// An audit: whose log, of which epoch, which draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) operator: Address,
    pub(super) epoch: u64,
    pub(super) number: u32,
}

impl Id {
    /// U-2.5: operator ‖ epoch ‖ number.
    pub(super) fn word(&self) -> B256 {
        let mut word = [0; 32];
        word[..20].copy_from_slice(self.operator.as_slice());
        word[20..28].copy_from_slice(&self.epoch.to_be_bytes());
        word[28..].copy_from_slice(&self.number.to_be_bytes());
        word.into()
    }

    pub(super) fn from_word(word: &B256) -> Id {
        let (mut epoch, mut number) = ([0; 8], [0; 4]);
        epoch.copy_from_slice(&word[20..28]);
        number.copy_from_slice(&word[28..]);
        Id {
            operator: Address::from_slice(&word[..20]),
            epoch: u64::from_be_bytes(epoch),
            number: u32::from_be_bytes(number),
        }
    }
}

/// keccak256(beacon ‖ subject ‖ number), as an integer modulo `below`.
pub(super) fn pick(beacon: &B256, subject: &B256, number: u64, below: u64) -> u64 {
    let mut bytes = [0; 72];
    bytes[..32].copy_from_slice(beacon.as_slice());
    bytes[32..64].copy_from_slice(subject.as_slice());
    bytes[64..].copy_from_slice(&number.to_be_bytes());
    (U256::from_be_bytes(keccak256(bytes).0) % U256::from(below.max(1))).saturating_to()
}

/// What is drawn of one log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawing {
    pub(super) beacon: B256,
    /// The id of the log's draw 0.
    pub(super) log: B256,
    pub(super) size: u64,
    pub(super) rate_ppm: u64,
    /// Draws, at most.
    pub(super) most: u64,
}

impl Drawing {
    /// How many entries: size × rate, the rest of the division as the probability of one more.
    pub(super) fn count(&self) -> u64 {
        let dither = u128::from(pick(&self.beacon, &self.log, u64::MAX, WHOLE_PPM));
        let scaled = u128::from(self.size) * u128::from(self.rate_ppm.min(WHOLE_PPM)) + dither;
        let count = u64::try_from(scaled / u128::from(WHOLE_PPM)).unwrap_or(u64::MAX);
        count.min(self.size).min(self.most)
    }

    /// The entry that is draw `number` of `count`.
    pub(super) fn index(&self, number: u64, count: u64) -> u64 {
        let bound = |number: u64| {
            let at = u128::from(self.size) * u128::from(number) / u128::from(count.max(1));
            u64::try_from(at).unwrap_or(u64::MAX)
        };
        let (from, to) = (bound(number), bound(number.saturating_add(1)));
        from + pick(&self.beacon, &self.log, number, to - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drawing(seed: u64, size: u64, rate_ppm: u64) -> Drawing {
        let log = Id { operator: Address::repeat_byte(7), epoch: 3, number: 0 }.word();
        Drawing { beacon: keccak256(seed.to_be_bytes()), log, size, rate_ppm, most: u64::MAX }
    }

    #[test]
    fn every_entry_is_drawn_equally_often() {
        let (size, rounds) = (200u64, 10_000u64);
        let mut hits = vec![0u64; size as usize];
        let mut total = 0;
        for seed in 0..rounds {
            let drawing = drawing(seed, size, 20_000);
            let count = drawing.count();
            assert_eq!(count, 4, "200 at 2 % is no matter of chance");
            total += count;
            for number in 0..count {
                hits[drawing.index(number, count) as usize] += 1;
            }
        }
        assert_eq!(total, rounds * 4);
        // 200 ± 14 each; six deviations bound the worst of 200.
        let deviation = 6 * 14;
        for (index, hits) in hits.iter().enumerate() {
            assert!(hits.abs_diff(200) < deviation, "entry {index} was drawn {hits} times");
        }
    }

    #[test]
    fn what_a_small_log_lacks_of_a_draw_is_a_probability() {
        let drawn: u64 = (0..10_000).map(|seed| drawing(seed, 5, 20_000).count()).sum();
        assert!((900..1_100).contains(&drawn), "{drawn} of 10,000 logs, a tenth was due");
        assert!((0..100).all(|seed| drawing(seed, 5, WHOLE_PPM).count() == 5));
        assert!((0..100).all(|seed| drawing(seed, 0, WHOLE_PPM).count() == 0));
    }

    #[test]
    fn a_hundred_false_entries_at_two_percent_are_caught_as_often_as_promised() {
        // Spread out, one to a part of the log, which is the worst case: 1 − 0.98¹⁰⁰ = 86.7 %.
        let caught = (0..2_000).filter(|seed| {
            let drawing = drawing(*seed, 5_000, 20_000);
            let count = drawing.count();
            (0..count).any(|number| drawing.index(number, count).is_multiple_of(50))
        });
        let caught = caught.count();
        assert!((1_680..1_790).contains(&caught), "{caught} of 2,000");
        // Side by side they cannot be missed.
        assert!((0..200).all(|seed| {
            let drawing = drawing(seed, 5_000, 20_000);
            let count = drawing.count();
            (0..count).any(|number| (1_000..1_100).contains(&drawing.index(number, count)))
        }));
    }

    proptest! {
        #[test]
        fn draws_are_distinct_entries_in_order(seed: u64, size in 0u64..1 << 48, rate in 0u64..=WHOLE_PPM, most in 1u64..500) {
            let drawing = Drawing { most, ..drawing(seed, size, rate) };
            let count = drawing.count();
            prop_assert!(count <= most && count <= size);
            let indexes: Vec<u64> = (0..count).map(|number| drawing.index(number, count)).collect();
            prop_assert!(indexes.iter().all(|index| *index < size));
            prop_assert!(indexes.is_sorted_by(|a, b| a < b));
        }

        #[test]
        fn ids_are_read_as_written(word: [u8; 32]) {
            prop_assert_eq!(Id::from_word(&word.into()).word(), B256::from(word));
        }
    }
}
