//! The voucher: a payer's cumulative promise to pay on a channel, and what of an order it covers.

use minicbor::{Decode, Encode};

use crate::{
    channel::Channel,
    codec::{Canonical, Invalid},
    digest::Digest,
};

/// A voucher. Signed by the channel's payer authorizer over EIP-712's `Voucher(channelId, maxClaimableAmount)`,
/// as the ledger claims it; of several the highest counts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Voucher {
    /// The channel; its identity is the one that the order names.
    #[n(0)]
    pub channel: Channel,
    /// Wei that may be claimed on the channel, all its life.
    #[cbor(n(1), with = "crate::codec::integer")]
    pub max_claimable: u128,
    /// r ‖ s ‖ v, v 27 or 28.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: [u8; 65],
    /// [`crate::Order::digest`] of the order that it was sent for.
    #[n(3)]
    pub order: Digest,
    /// Output tokens of that order that it pays for, beside the whole of the prompt.
    #[n(4)]
    pub covered_output_tokens: u32,
}

impl Canonical for Voucher {
    const NAME: &'static str = "voucher";
    const MAX_BYTES: usize = 512;

    fn check(&self) -> Result<(), Invalid> {
        self.channel.check()
    }
}
