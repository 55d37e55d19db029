//! Seeded randomness for weights, dropout and shuffles.
//!
//! In:     a list of numbers naming what the stream is for (seed, tensor, row, …).
//! Out:    SplitMix64 words, uniforms and bell-shaped values.
//! Holds:  a stream depends on its key alone, never on threads or on what was drawn elsewhere.
//! Absent: anything fit for keys or nonces.

/// One stream of pseudo-random numbers (SplitMix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Rng {
    /// The stream named by `key`; different keys give unrelated streams.
    pub fn keyed(key: &[u64]) -> Rng {
        let state = key.iter().fold(GOLDEN, |state, part| mix(state ^ mix(part.wrapping_add(GOLDEN))));
        Rng { state }
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// An index in `0..count`. Panics on an empty range.
    pub fn below(&mut self, count: usize) -> usize {
        assert!(count > 0, "an index needs something to point at");
        ((u128::from(self.next_u64()) * count as u128) >> 64) as usize
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        ((self.next_u64() >> 40) as f32) < probability * (1u32 << 24) as f32
    }

    /// A bell-shaped value of mean 0 and variance 1: the sum of four 16-bit uniforms, so it never
    /// leaves ±3.47. Close enough to a normal for weights, and four times cheaper.
    #[inline]
    pub fn bell(&mut self) -> f32 {
        const MEAN: i64 = 2 * 65_535;
        const DEVIATION: f32 = 37_837.227; // sqrt(4 · (2³² − 1) / 12)
        let word = self.next_u64();
        let sum = (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
        (sum as i64 - MEAN) as f32 / DEVIATION
    }

    /// Fisher–Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bell_has_unit_variance() {
        let mut rng = Rng::keyed(&[7]);
        let values: Vec<f64> = (0..200_000).map(|_| f64::from(rng.bell())).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.01, "variance {variance}");
    }

    #[test]
    fn streams_follow_their_key() {
        let draw = |key: &[u64]| Rng::keyed(key).next_u64();
        assert_eq!(draw(&[1, 2]), draw(&[1, 2]));
        assert_ne!(draw(&[1, 2]), draw(&[2, 1]));
        assert_ne!(draw(&[1]), draw(&[1, 0]));
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..100).collect();
        Rng::keyed(&[3]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
