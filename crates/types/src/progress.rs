//! Progress: a worker's signature over what it has sent so far, every 64 tokens or 250 ms.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{
    codec::{Canonical, Invalid},
    cose::{Kind, Signable},
    digest::Digest,
    key::PublicKey,
};

/// A progress signature is due after so many tokens …
pub const PROGRESS_TOKENS: u32 = 64;
/// … or so many milliseconds since the last, whichever comes first, once there is a token to sign for.
pub const PROGRESS_MS: u64 = 250;
/// While nothing else is sent, a progress comes at least this often, also before the first token: so a payer can tell
/// a slow worker from a dead one.
pub const PROGRESS_IDLE_MS: u64 = 500;

/// What has been sent so far. Signed by `worker`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Progress {
    /// [`crate::Order::digest`].
    #[n(0)]
    pub order: Digest,
    /// Output tokens sent.
    #[n(1)]
    pub output_tokens: u32,
    /// Digest of their ids.
    #[n(2)]
    pub output_digest: Digest,
    /// Digest of the text sent.
    #[n(3)]
    pub text_digest: Digest,
    /// Unix milliseconds.
    #[n(4)]
    pub at_ms: u64,
    /// Who signs.
    #[n(5)]
    pub worker: PublicKey,
}

impl Canonical for Progress {
    const NAME: &'static str = "progress";
    const MAX_BYTES: usize = 256;

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

impl Signable for Progress {
    const KIND: Kind = Kind::Progress;
    fn signer(&self) -> &PublicKey {
        &self.worker
    }
}
