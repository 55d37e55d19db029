//! Channels: what a payment channel is, the digests that are signed about it, and what its money counts in.
//!
//! In:     configurations, vouchers, claims; a chain's id. Out: their EIP-712 digests; a configuration's one encoding.
//! Touches: nothing. No curve: signing and recovering are the caller's.
//! Holds:  the chain, the worker and the payer hash by this code alone; the digests are those of the x402
//!         `batch-settlement` scheme; a micro-credit is [`WEI_PER_MICRO_CREDIT`] wei, and this is where it is said.
//! Absent: balances (`chain`), who owes what (`client`, `worker`).

use alloy_primitives::{Address, B256, Bytes, U256, aliases::U40, keccak256};
use alloy_sol_types::{Eip712Domain, SolStruct, SolValue as _, eip712_domain};
use minicbor::{Decode, Encode};

use crate::{
    abi::{
        IChannels::{ChannelConfig, VoucherClaim},
        address::{CHANNELS, ESCROW},
    },
    amount::{Amount, Price},
    codec::{Canonical, Invalid},
    digest::Digest,
    progress::PROGRESS_TOKENS,
};

/// Receipts count micro-credits, the ledger counts wei: a credit is 10¹⁸ of these and 10⁶ of those.
pub const WEI_PER_MICRO_CREDIT: u128 = 1_000_000_000_000;

/// What is signed, as EIP-712 spells it.
pub mod signed {
    #![allow(missing_docs)]

    alloy_sol_types::sol! {
        struct ChannelConfig {
            address payer;
            address payerAuthorizer;
            address receiver;
            address receiverAuthorizer;
            address token;
            uint40 withdrawDelay;
            bytes32 salt;
        }
        struct Voucher {
            bytes32 channelId;
            uint128 maxClaimableAmount;
        }
        struct Refund {
            bytes32 channelId;
            uint256 nonce;
            uint128 amount;
        }
        struct ClaimEntry {
            bytes32 channelId;
            uint128 maxClaimableAmount;
            uint128 totalClaimed;
        }
        struct ClaimBatch {
            ClaimEntry[] claims;
        }
    }
}

/// The EIP-712 domain of a chain's channels.
pub fn domain(chain_id: u64) -> Eip712Domain {
    domain_at(CHANNELS, chain_id)
}

/// The EIP-712 domain of a chain's escrow, which is that of x402's clients.
pub fn escrow_domain(chain_id: u64) -> Eip712Domain {
    domain_at(ESCROW, chain_id)
}

fn domain_at(address: Address, chain_id: u64) -> Eip712Domain {
    eip712_domain! {
        name: "x402 Batch Settlement",
        version: "1",
        chain_id: chain_id,
        verifying_contract: address,
    }
}

/// What the escrow's collector is given of an EIP-3009 authorization: good after, good before, salt, signature.
pub type DepositAuthorization = (U256, U256, U256, Bytes);

/// The nonce of a deposit's authorization: keccak256(abi.encode(channelId, salt)).
pub fn deposit_nonce(channel_id: &B256, salt: U256) -> B256 {
    keccak256((*channel_id, salt).abi_encode())
}

/// The digests of one chain's channels; the domain's own hash is made once.
#[derive(Debug, Clone, Copy)]
pub struct ChannelDigests {
    separator: B256,
}

impl ChannelDigests {
    /// Those of a chain's orders.
    pub fn new(chain_id: u64) -> Self {
        ChannelDigests { separator: domain(chain_id).separator() }
    }

    /// Those of a chain's escrow.
    pub fn of_escrow(chain_id: u64) -> Self {
        ChannelDigests { separator: escrow_domain(chain_id).separator() }
    }

    /// EIP-712: what is signed for a value.
    pub fn digest(&self, value: &impl SolStruct) -> B256 {
        let mut bytes = [0; 66];
        bytes[..2].copy_from_slice(&[0x19, 0x01]);
        bytes[2..34].copy_from_slice(self.separator.as_slice());
        bytes[34..].copy_from_slice(value.eip712_hash_struct().as_slice());
        keccak256(bytes)
    }

    /// A channel's identity.
    pub fn channel_id(&self, config: &ChannelConfig) -> B256 {
        self.digest(&signed::ChannelConfig {
            payer: config.payer,
            payerAuthorizer: config.payerAuthorizer,
            receiver: config.receiver,
            receiverAuthorizer: config.receiverAuthorizer,
            token: config.token,
            withdrawDelay: config.withdrawDelay,
            salt: config.salt,
        })
    }

    /// What a payer authorizer signs: at most so many wei may be claimed on the channel, all its life.
    pub fn voucher(&self, channel_id: B256, most: u128) -> B256 {
        self.digest(&signed::Voucher { channelId: channel_id, maxClaimableAmount: most })
    }

    /// What a receiver authorizer signs to give money back.
    pub fn refund(&self, channel_id: B256, nonce: U256, amount: u128) -> B256 {
        self.digest(&signed::Refund { channelId: channel_id, nonce, amount })
    }

    /// What a receiver authorizer signs to have others claim.
    pub fn claim_batch(&self, claims: &[VoucherClaim]) -> B256 {
        let entries = claims.iter().map(|claim| signed::ClaimEntry {
            channelId: self.channel_id(&claim.voucher.channel),
            maxClaimableAmount: claim.voucher.maxClaimableAmount,
            totalClaimed: claim.totalClaimed,
        });
        self.digest(&signed::ClaimBatch { claims: entries.collect() })
    }
}

/// What a channel is, as it stands in a voucher.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Channel {
    /// Whose money it holds.
    #[cbor(n(0), with = "account")]
    pub payer: Address,
    /// Signs vouchers.
    #[cbor(n(1), with = "account")]
    pub payer_authorizer: Address,
    /// Whom it pays.
    #[cbor(n(2), with = "account")]
    pub receiver: Address,
    /// Claims for the receiver.
    #[cbor(n(3), with = "account")]
    pub receiver_authorizer: Address,
    /// Zero: the native credit.
    #[cbor(n(4), with = "account")]
    pub token: Address,
    /// Seconds that the payer's way out takes; below 2⁴⁰.
    #[n(5)]
    pub withdraw_delay_s: u64,
    /// Tells channels between the same parties apart.
    #[n(6)]
    pub salt: Digest,
}

impl Channel {
    /// As the ledger takes it.
    pub fn config(&self) -> ChannelConfig {
        ChannelConfig {
            payer: self.payer,
            payerAuthorizer: self.payer_authorizer,
            receiver: self.receiver,
            receiverAuthorizer: self.receiver_authorizer,
            token: self.token,
            withdrawDelay: U40::from(self.withdraw_delay_s),
            salt: B256::from(self.salt.0),
        }
    }

    /// Its identity on a chain.
    pub fn id(&self, digests: &ChannelDigests) -> Digest {
        Digest(digests.channel_id(&self.config()).0)
    }
}

/// How many output tokens a voucher pays for ahead of what is signed for: two steps of progress.
pub const COVER_TOKENS: u32 = 2 * PROGRESS_TOKENS;

/// The output tokens that are covered once `delivered` are signed for, of at most `max_output_tokens`.
pub fn covered_tokens(delivered: u32, max_output_tokens: u32) -> u32 {
    delivered.saturating_add(COVER_TOKENS).min(max_output_tokens)
}

/// What covers an order up to so many output tokens, in wei: the whole prompt at the dearer of its two prices, and
/// the output, rounded up once. None if it overflows.
pub fn cover_wei(price: &Price, prompt_tokens: u32, output_tokens: u32) -> Option<u128> {
    let dearest = Price { prompt: price.prompt.max(price.cached), ..*price };
    dearest.charge(prompt_tokens, 0, output_tokens).ok()?.to_wei()
}

impl Canonical for Channel {
    const NAME: &'static str = "channel";
    const MAX_BYTES: usize = 256;

    fn check(&self) -> Result<(), Invalid> {
        if self.withdraw_delay_s >> 40 != 0 {
            return Err(Invalid::new("withdraw_delay_s", "is not below 2^40"));
        }
        Ok(())
    }
}

impl Amount {
    /// In wei, unless it overflows.
    pub fn to_wei(self) -> Option<u128> {
        self.0.checked_mul(WEI_PER_MICRO_CREDIT)
    }

    /// As many whole micro-credits as there are in so many wei.
    pub fn from_wei(wei: u128) -> Amount {
        Amount(wei / WEI_PER_MICRO_CREDIT)
    }
}

/// An account as a byte string of 20 bytes.
mod account {
    use alloy_primitives::Address;
    use minicbor::{Decoder, Encoder, decode::Error as DecodeError, encode as writing};

    pub(super) fn encode<C, W: writing::Write>(
        value: &Address,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), writing::Error<W::Error>> {
        e.bytes(value.as_slice())?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Address, DecodeError> {
        let position = d.position();
        let wrong = |_| DecodeError::message("expected 20 bytes").at(position);
        <[u8; 20]>::try_from(d.bytes()?).map(Address::from).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn amounts_are_whole_micro_credits_of_wei() {
        assert_eq!(Amount(3).to_wei(), Some(3_000_000_000_000));
        assert_eq!(Amount(u128::MAX).to_wei(), None);
        assert_eq!(Amount::from_wei(2_999_999_999_999), Amount(2));
        assert_eq!(Amount(1_000_000).to_wei(), Some(1_000_000_000_000_000_000), "a credit");
    }

    #[test]
    fn a_cover_is_never_less_than_the_charge() {
        let price = Price { prompt: Amount(400_000), cached: Amount(700_000), output: Amount(1_000_001) };
        for (prompt, cached, output) in [(0, 0, 0), (1, 0, 0), (10, 10, 3), (1_000, 7, 127), (5, 5, 128)] {
            let charge = price.charge(prompt, cached, output).unwrap().to_wei().unwrap();
            assert!(cover_wei(&price, prompt, output).unwrap() >= charge);
        }
        assert_eq!(covered_tokens(0, 1_000), 128);
        assert_eq!(covered_tokens(100, 200), 200);
        assert_eq!(cover_wei(&Price { output: Amount(u128::MAX), ..Price::ZERO }, 0, 2), None);
    }

    #[test]
    fn every_part_of_a_channel_is_in_its_identity() {
        let (channel, digests) = (samples::channel(), ChannelDigests::new(7));
        let id = channel.id(&digests);
        assert_ne!(id, channel.id(&ChannelDigests::new(8)));
        let other = Address::repeat_byte(0xee);
        for changed in [
            Channel { payer: other, ..channel.clone() },
            Channel { payer_authorizer: other, ..channel.clone() },
            Channel { receiver: other, ..channel.clone() },
            Channel { receiver_authorizer: other, ..channel.clone() },
            Channel { token: other, ..channel.clone() },
            Channel { withdraw_delay_s: 901, ..channel.clone() },
            Channel { salt: Digest::ZERO, ..channel.clone() },
        ] {
            assert_ne!(changed.id(&digests), id, "{changed:?}");
        }
        assert!(Channel { withdraw_delay_s: 1 << 40, ..channel }.check().is_err());
    }

    #[test]
    fn a_voucher_digest_is_the_scheme_s() {
        // keccak256(0x1901 ‖ domain separator ‖ keccak256(typehash ‖ id ‖ amount)), laid out by hand.
        let digests = ChannelDigests::new(7);
        let id = B256::repeat_byte(9);
        let type_hash = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)");
        let amount = U256::from(77).to_be_bytes::<32>();
        let structure = keccak256([type_hash.as_slice(), id.as_slice(), &amount].concat());
        let separator = domain(7).separator();
        let expected = keccak256([&[0x19, 0x01], separator.as_slice(), structure.as_slice()].concat());
        assert_eq!(digests.voucher(id, 77), expected);
    }
}
