//! Storage audits: a beacon draws chunks, the holder opens them against the digest, whatever it cannot open is a miss.
//!
//! In:     a file's digest and size, a beacon nobody knew before, the holder audited.
//! Out:    which chunks were proven, which were missed and why, what it cost.
//! Holds:  the draw is a function of beacon, file and holder: neither side chooses; a chunk counts as held only if its
//!         bytes and path lead to the digest.
//! Absent: where beacons come from and what a miss costs (the ledger). An audit shows that a holder could produce the
//!         bytes in time, not that it keeps a copy of its own: hence the limit of time.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;
use surety_net::{CloseCode, Endpoint, Link, Protocol, Stream, WorkerAddress};
use surety_types::{Digest, PublicKey};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    message::{FromHolder, Refusal, ToHolder},
    tree::{Shape, Slice, SliceError, Value},
};

/// Chunks in one audit, at most.
pub const CHALLENGES_MAX: u32 = 1024;
/// After which a busy holder is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The domain of the draw.
const DOMAIN: &str = "surety 2026 storage audit";

/// What a holder is to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Of which file.
    pub digest: Digest,
    /// The file's size, as its manifest has it.
    pub shape: Shape,
    /// What nobody knew before.
    pub beacon: Digest,
    /// Who is to open: two holders of one file are drawn different chunks.
    pub holder: PublicKey,
    /// How many chunks; all of a file that has no more. At most [`CHALLENGES_MAX`].
    pub count: u32,
}

impl Challenge {
    /// The chunks drawn, increasing, none twice.
    ///
    /// Each is 16 bytes of BLAKE3's output for the domain over beacon, digest, size and holder, taken little-endian
    /// modulo the number of chunks (a bias below 2⁻⁹⁸); what was drawn before is drawn again.
    pub fn chunks(&self) -> Vec<u64> {
        let chunks = self.shape.chunks();
        let count = u64::from(self.count.min(CHALLENGES_MAX));
        if count >= chunks {
            return (0..chunks).collect();
        }
        let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
        hasher.update(&self.beacon.0).update(&self.digest.0);
        hasher.update(&self.shape.bytes().to_le_bytes()).update(&self.holder.0);
        let mut output = hasher.finalize_xof();
        let mut drawn = BTreeSet::new();
        while (drawn.len() as u64) < count {
            let mut number = [0; 16];
            output.fill(&mut number);
            drawn.insert((u128::from_le_bytes(number) % u128::from(chunks)) as u64);
        }
        drawn.into_iter().collect()
    }
}

/// How many challenges catch a holder that dropped this fraction of the chunks, with this probability.
///
/// The least k with 1 − (1 − fraction)ᵏ ≥ probability: k = ⌈ln(1 − probability) / ln(1 − fraction)⌉. Drawing without
/// repetition only does better. It holds for the best a cheat can do, which is to keep the whole tree and to drop
/// data only: 1 % dropped is caught by 299 challenges with 95 %, by 459 with 99 %, by 1,375 (two audits) with 99.9999 %.
/// Panics unless both are between 0 and 1.
pub fn challenges_needed(dropped_fraction: f64, probability: f64) -> u64 {
    assert!(dropped_fraction > 0.0 && dropped_fraction < 1.0, "a fraction");
    assert!(probability > 0.0 && probability < 1.0, "a probability");
    ((-probability).ln_1p() / (-dropped_fraction).ln_1p()).ceil() as u64
}

/// What an audit came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditReport {
    /// Who was audited.
    pub holder: PublicKey,
    /// Of which file.
    pub digest: Digest,
    /// The beacon.
    pub beacon: Digest,
    /// Chunks drawn.
    pub drawn: u32,
    /// Chunks proven.
    pub proven: u32,
    /// The others.
    pub misses: Vec<Miss>,
    /// Bytes of chunks and paths that came.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// A chunk that was not proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Miss {
    /// Which.
    pub chunk: u64,
    /// Why.
    pub why: MissReason,
}

/// Why a chunk was not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissReason {
    /// The holder says that it cannot.
    Missing,
    /// What it sent leads to another digest.
    Wrong,
    /// The holder refused the audit: it has no such file, or one that changed.
    Refused,
    /// The holder asked to be asked later. Not held against it if it answers in time when asked again.
    Busy,
    /// No answer in time.
    Silence,
}

impl AuditReport {
    fn begun(challenge: &Challenge, drawn: usize) -> Self {
        let Challenge { holder, digest, beacon, .. } = *challenge;
        let (drawn, misses) = (drawn as u32, Vec::new());
        AuditReport { holder, digest, beacon, drawn, proven: 0, misses, bytes: 0, elapsed_ms: 0 }
    }

    /// Of a holder that is not there.
    fn silent(challenge: &Challenge) -> Self {
        let chunks = challenge.chunks();
        let misses = chunks.iter().map(|chunk| Miss { chunk: *chunk, why: MissReason::Silence });
        AuditReport { misses: misses.collect(), ..Self::begun(challenge, chunks.len()) }
    }

    /// Whether the holder opened everything.
    pub fn passed(&self) -> bool {
        self.misses.is_empty()
    }
}

/// Judges one answer to the challenge of `chunk`.
pub fn judge(challenge: &Challenge, chunk: u64, answer: &FromHolder) -> Result<(), MissReason> {
    match answer {
        FromHolder::Slice { chunk: named, data, siblings } if *named == chunk => {
            let siblings: Vec<Value> = siblings.as_chunks::<32>().0.to_vec();
            let slice = Slice { chunk, data: data.clone(), siblings };
            slice.check(challenge.digest, challenge.shape).map_err(|_: SliceError| MissReason::Wrong)
        }
        FromHolder::Missing(named) if *named == chunk => Err(MissReason::Missing),
        FromHolder::Refused(Refusal::Busy) => Err(MissReason::Busy),
        FromHolder::Refused(_) => Err(MissReason::Refused),
        _ => Err(MissReason::Wrong),
    }
}

/// Audits a holder where it is said to be. Whatever it does, there is a report within `limit`: who is not there is silent,
/// and who is busy is asked again until then.
pub async fn audit_at(
    endpoint: &Endpoint,
    address: &WorkerAddress,
    challenge: &Challenge,
    limit: Duration,
) -> AuditReport {
    let until = Instant::now() + limit;
    let began = Instant::now();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut report = match endpoint.connect_within(address, Protocol::Blobs, left).await {
            Ok(link) => audit(&link, challenge, until.saturating_duration_since(Instant::now())).await,
            Err(_) => AuditReport::silent(challenge),
        };
        report.elapsed_ms = began.elapsed().as_millis() as u64;
        let busy = report.misses.first().is_some_and(|miss| miss.why == MissReason::Busy);
        if !busy || Instant::now() + ASK_AGAIN >= until {
            return report;
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Audits a holder over a connection to it. Whatever it does, there is a report within `limit`.
pub async fn audit(link: &Link, challenge: &Challenge, limit: Duration) -> AuditReport {
    let began = Instant::now();
    let until = began + limit;
    let chunks = challenge.chunks();
    let mut report = AuditReport::begun(challenge, chunks.len());
    let mut rest = chunks.iter().copied();
    // Without a stream or after a break, everything that is left is a miss for that reason.
    let mut broken = MissReason::Silence;
    if let Ok(Some(mut stream)) = timeout_at(until, ask(link, challenge)).await {
        for chunk in rest.by_ref() {
            let answer = match timeout_at(until, stream.receive()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(_) | Err(_) => {
                    report.misses.push(Miss { chunk, why: broken });
                    break;
                }
            };
            if let FromHolder::Slice { data, siblings, .. } = &answer {
                report.bytes += (data.len() + siblings.len()) as u64;
            }
            match judge(challenge, chunk, &answer) {
                Ok(()) => report.proven += 1,
                Err(why) => {
                    report.misses.push(Miss { chunk, why });
                    if matches!(answer, FromHolder::Refused(_)) {
                        broken = why;
                        break;
                    }
                }
            }
        }
        stream.reset(CloseCode::Done);
    }
    report.misses.extend(rest.map(|chunk| Miss { chunk, why: broken }));
    report.elapsed_ms = began.elapsed().as_millis() as u64;
    report
}

async fn ask(link: &Link, challenge: &Challenge) -> Option<Stream<ToHolder, FromHolder>> {
    // What is recorded of a key was answered by that key.
    if link.address().key != challenge.holder {
        return None;
    }
    let mut stream = link.open_stream::<ToHolder, FromHolder>().await.ok()?;
    let Challenge { digest, beacon, count, .. } = *challenge;
    let count = count.clamp(1, CHALLENGES_MAX);
    stream.send(&ToHolder::Audit { digest, beacon, count }).await.ok()?;
    Some(stream)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn challenge(bytes: u64, seed: u64, count: u32) -> Challenge {
        let beacon = Digest(*blake3::hash(&seed.to_le_bytes()).as_bytes());
        let shape = Shape::new(bytes).unwrap();
        Challenge { digest: Digest([1; 32]), shape, beacon, holder: PublicKey([2; 32]), count }
    }

    #[test]
    fn the_number_of_challenges_is_the_formulas() {
        for (fraction, probability, expected) in [
            (0.01, 0.95, 299),
            (0.01, 0.99, 459),
            (0.01, 0.999_999, 1375),
            (0.1, 0.99, 44),
            (0.5, 0.5, 1),
            (0.001, 0.99, 4603),
        ] {
            assert_eq!(challenges_needed(fraction, probability), expected, "{fraction} {probability}");
        }
    }

    /// 4,000 holders of a 12 GB file that dropped 1 % of its chunks, each audited once.
    #[test]
    fn one_percent_dropped_is_caught_as_often_as_the_formula_says() {
        const AUDITS: u64 = 4_000;
        for probability in [0.5, 0.95, 0.99] {
            let count = challenges_needed(0.01, probability) as u32;
            let caught = (0..AUDITS).filter(|seed| {
                let dropped = |chunk: u64| {
                    let word = blake3::hash(&[chunk.to_le_bytes(), seed.to_le_bytes()].concat());
                    u64::from_le_bytes(*word.as_bytes().first_chunk().unwrap()) < u64::MAX / 100
                };
                challenge(12_000_000_000, *seed, count).chunks().into_iter().any(dropped)
            });
            let rate = caught.count() as f64 / AUDITS as f64;
            // Four standard deviations either side; the seeds are fixed, so that this never changes by chance.
            let error = 4.0 * (probability * (1.0 - probability) / AUDITS as f64).sqrt();
            assert!(rate >= probability - error, "{probability}: {rate}");
            assert!(rate <= probability + error + 0.01, "{probability}: {rate}");
        }
    }

    #[test]
    fn the_draw_is_pinned() {
        assert_eq!(challenge(1 << 40, 1, 3).chunks(), [6_243_325, 146_983_415, 925_389_661]);
    }

    #[test]
    fn small_files_are_opened_whole() {
        assert_eq!(challenge(1, 1, 5).chunks(), [0]);
        assert_eq!(challenge(5000, 1, 5).chunks(), [0, 1, 2, 3, 4]);
        assert_eq!(challenge(5000, 1, 900).chunks(), [0, 1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn draws_are_within_the_file_distinct_and_each_holders_own(
            bytes in 1u64..1 << 40, seed in any::<u64>(), count in 1u32..=CHALLENGES_MAX,
        ) {
            let one = challenge(bytes, seed, count);
            let chunks = one.chunks();
            prop_assert_eq!(chunks.len() as u64, u64::from(count).min(one.shape.chunks()));
            prop_assert!(chunks.is_sorted_by(|a, b| a < b));
            prop_assert!(chunks.iter().all(|chunk| *chunk < one.shape.chunks()));
            prop_assert_eq!(&chunks, &one.chunks());
            let other = Challenge { holder: PublicKey([3; 32]), ..one };
            if one.shape.chunks() > 1 << 20 && count > 4 {
                prop_assert_ne!(chunks, other.chunks());
            }
        }
    }
}
