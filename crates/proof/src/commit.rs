//! Commitments: the digests that a receipt carries in the place of tokens, text and state.
//!
//! In:     ids, text, a state digest; whole or as they come. Out: digests. Holds.

use surety_types::{
    Digest, PublicKey,
    digest::{Hasher, domain},
};

/// Digest of a prompt's token ids.
pub fn prompt_digest(ids: &[u32]) -> Digest {
    IdsHasher::prompt().push(ids).digest()
}

/// Digest of an output's token ids.
pub fn output_digest(ids: &[u32]) -> Digest {
    IdsHasher::output().push(ids).digest()
}

/// Digest of a delivered text.
pub fn text_digest(text: &str) -> Digest {
    TextHasher::new().push(text).digest()
}

/// What a receipt says in the place of a state digest: bound to the worker, and opened only with the salt, so
/// that nobody can repeat another's digest as if it were computed.
pub fn state_commitment(worker: &PublicKey, salt: &[u8; 32], state_digest: &Digest) -> Digest {
    Digest::hasher(domain::STATE_COMMITMENT)
        .update(worker.as_bytes())
        .update(salt)
        .update(state_digest.as_bytes())
        .digest()
}

/// What an auditor commits to before it says which state it computed: bound to its key, as [`state_commitment`] is to the
/// audited worker's, so that another's commitment is of no use (U-4.2).
pub fn audit_commitment(auditor: &PublicKey, salt: &[u8; 32], state_digest: &Digest) -> Digest {
    Digest::hasher(domain::AUDIT_COMMITMENT)
        .update(auditor.as_bytes())
        .update(salt)
        .update(state_digest.as_bytes())
        .digest()
}

/// The running digest of token ids.
#[derive(Clone, Debug)]
pub struct IdsHasher {
    hasher: Hasher,
    count: u32,
}

impl IdsHasher {
    /// Of a prompt.
    pub fn prompt() -> Self {
        IdsHasher { hasher: Digest::hasher(domain::PROMPT_IDS), count: 0 }
    }

    /// Of an output.
    pub fn output() -> Self {
        IdsHasher { hasher: Digest::hasher(domain::OUTPUT_IDS), count: 0 }
    }

    /// Adds ids.
    pub fn push(&mut self, ids: &[u32]) -> &mut Self {
        let mut bytes = [0; 256];
        for chunk in ids.chunks(bytes.len() / 4) {
            for (place, id) in bytes.chunks_exact_mut(4).zip(chunk) {
                place.copy_from_slice(&id.to_le_bytes());
            }
            self.hasher.update(&bytes[..chunk.len() * 4]);
        }
        self.count += ids.len() as u32;
        self
    }

    /// How many there were.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The digest of all so far; more may follow.
    pub fn digest(&self) -> Digest {
        self.hasher.digest()
    }
}

/// The running digest of a text.
#[derive(Clone, Debug)]
pub struct TextHasher(Hasher);

impl TextHasher {
    /// Of no text yet.
    pub fn new() -> Self {
        TextHasher(Digest::hasher(domain::OUTPUT_TEXT))
    }

    /// Adds text.
    pub fn push(&mut self, text: &str) -> &mut Self {
        self.0.update(text.as_bytes());
        self
    }

    /// The digest of all so far; more may follow.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }
}

impl Default for TextHasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_hashed_as_little_endian_words() {
        let expected = Digest::of(domain::OUTPUT_IDS, &[1, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde]);
        assert_eq!(output_digest(&[1, 0xdead_beef]), expected);
        assert_ne!(prompt_digest(&[1]), output_digest(&[1]));
    }

    #[test]
    fn a_commitment_is_the_workers_own() {
        let state = Digest::of(domain::OUTPUT_IDS, b"state");
        let commitment = state_commitment(&PublicKey([1; 32]), &[2; 32], &state);
        assert_ne!(commitment, state_commitment(&PublicKey([3; 32]), &[2; 32], &state));
        assert_ne!(commitment, state_commitment(&PublicKey([1; 32]), &[4; 32], &state));
        assert_ne!(commitment, state_commitment(&PublicKey([1; 32]), &[2; 32], &Digest::ZERO));
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole(ids in proptest::collection::vec(any::<u32>(), 0..300), cut in 0usize..300) {
            let (head, tail) = ids.split_at(cut.min(ids.len()));
            let mut hasher = IdsHasher::prompt();
            hasher.push(head).push(tail);
            prop_assert_eq!(hasher.digest(), prompt_digest(&ids));
            prop_assert_eq!(hasher.count() as usize, ids.len());
        }
    }
}
