//! Empty: the purse of an order that is to be accepted and not paid.
//!
//! In:     a channel. Out: no voucher.
//! Touches: nothing.
//! Holds:  a worker computes nothing before it is paid, so an order that comes with this purse costs nothing: it is
//!         accepted, which counts its prompt, and cancelled.

use surety_client::{
    PurseError,
    channel::{Purse, Signing},
};
use surety_types::{Amount, Channel};

use super::PayChannel;

/// It names a channel and promises nothing.
#[derive(Debug)]
struct EmptyPurse(Channel);

impl PayChannel {
    /// A purse for an order that is only to be accepted.
    pub(crate) fn empty_purse(&self) -> Box<dyn Purse> {
        Box::new(EmptyPurse(self.channel.clone()))
    }
}

impl Purse for EmptyPurse {
    fn channel(&self) -> &Channel {
        &self.0
    }

    fn cover(&mut self, _wei: u128, _output_tokens: u32) -> Signing<'_> {
        Box::pin(async { Err(PurseError::Unwilling) })
    }

    fn settle(self: Box<Self>, _charge: Amount) {}

    fn release(self: Box<Self>) {}
}
