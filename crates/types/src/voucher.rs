//! The voucher: a payer's cumulative promise to pay on a channel.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::{
    amount::Amount,
    codec::{Canonical, Invalid},
    cose::{Kind, Signable},
    digest::Digest,
    key::PublicKey,
};

/// A voucher. Signed by `payer`; a later one replaces an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Voucher {
    /// The channel, or zero where no money moves.
    #[n(0)]
    pub channel: Digest,
    /// Everything promised on the channel so far, this included.
    #[n(1)]
    pub cumulative: Amount,
    /// [`crate::Order::digest`] of the order it pays for.
    #[n(2)]
    pub order: Digest,
    /// Output tokens of that order it pays for.
    #[n(3)]
    pub output_tokens: u32,
    /// Who promises.
    #[n(4)]
    pub payer: PublicKey,
}

impl Canonical for Voucher {
    const NAME: &'static str = "voucher";
    const MAX_BYTES: usize = 256;

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

impl Signable for Voucher {
    const KIND: Kind = Kind::Voucher;
    fn signer(&self) -> &PublicKey {
        &self.payer
    }
}
