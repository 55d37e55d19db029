//! What a payer of the scheme `batch-settlement` sends, and how a channel stands, as x402 spells both.
//!
//! In:     the payload of a `PAYMENT-SIGNATURE`. Out: a voucher for a channel to this gateway, or what is wrong with it.
//! Touches: nothing.
//! Holds:  what is read is of a channel that pays this gateway in the native credit, under its own identity.
//! Absent: signatures, and what the channel holds (`escrow`).

use alloy_primitives::{Address, B256, U256, aliases::U40};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use surety_types::{
    ChannelDigests,
    abi::{
        IChannels::ChannelConfig,
        address::{CREDIT, DEPOSIT_COLLECTOR},
    },
    channel::deposit_nonce,
    credit::signed::ReceiveWithAuthorization,
};

use super::{Row, reason};
use crate::payments::wire::{Accepted, Payee, Refusal, address, number, signature, word};

/// Seconds that a payer's way out of a channel takes, as channels are asked for, where the ledger allows as much.
pub(in crate::payments) const WITHDRAW_DELAY_S: u64 = 24 * 60 * 60;
/// The least that is taken, where the ledger allows as much.
pub(super) const WITHDRAW_DELAY_S_MIN: u64 = 15 * 60;
/// The most that x402's escrow knows.
const WITHDRAW_DELAY_S_MAX: u64 = 30 * 24 * 60 * 60;

/// What a channel is; the receiver and its authorizer are the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::payments) struct Config {
    pub(in crate::payments) payer: Address,
    /// Signs vouchers.
    pub(in crate::payments) payer_authorizer: Address,
    pub(in crate::payments) receiver: Address,
    pub(in crate::payments) withdraw_delay_s: u64,
    pub(in crate::payments) salt: B256,
}

impl Config {
    /// As the ledger takes it.
    pub(in crate::payments) fn on_ledger(&self) -> ChannelConfig {
        ChannelConfig {
            payer: self.payer,
            payerAuthorizer: self.payer_authorizer,
            receiver: self.receiver,
            receiverAuthorizer: self.receiver,
            token: CREDIT,
            withdrawDelay: U40::from(self.withdraw_delay_s),
            salt: self.salt,
        }
    }
}

/// What a payer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::payments) struct Shown {
    pub(in crate::payments) config: Config,
    /// The channel's identity.
    pub(super) id: B256,
    /// Wei that may be claimed on the channel, all its life.
    pub(super) ceiling: u128,
    /// r ‖ s ‖ v, over that.
    pub(super) signature: Vec<u8>,
    /// Wei that the request may cost, as was accepted.
    pub(super) amount: u128,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// It pays out of what the channel holds.
    Voucher,
    /// It pays into the channel first.
    Deposit(Deposit),
    /// It asks for so much of what is left; none: for all of it.
    Refund(Option<u128>),
}

/// What a payer signed to be paid into a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deposit {
    /// Wei.
    pub(super) amount: u128,
    /// Unix seconds, both exclusive.
    pub(super) valid_after: U256,
    pub(super) valid_before: U256,
    pub(super) salt: U256,
    /// r ‖ s ‖ v.
    pub(super) signature: Vec<u8>,
}

impl Deposit {
    pub(super) fn authorization(&self, channel: &B256, payer: Address) -> ReceiveWithAuthorization {
        ReceiveWithAuthorization {
            from: payer,
            to: DEPOSIT_COLLECTOR,
            value: U256::from(self.amount),
            validAfter: self.valid_after,
            validBefore: self.valid_before,
            nonce: deposit_nonce(channel, self.salt),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    #[serde(rename = "type")]
    kind: String,
    channel_config: ConfigFields,
    voucher: VoucherFields,
    deposit: Option<DepositFields>,
    amount: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFields {
    payer: String,
    payer_authorizer: String,
    receiver: String,
    receiver_authorizer: String,
    token: String,
    withdraw_delay: u64,
    salt: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VoucherFields {
    channel_id: String,
    max_claimable_amount: String,
    signature: String,
}

#[derive(Deserialize)]
struct DepositFields {
    amount: String,
    authorization: Authorizations,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorizations {
    erc3009_authorization: Option<AuthorizationFields>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationFields {
    valid_after: String,
    valid_before: String,
    salt: String,
    signature: String,
}

fn wei(name: &str, text: &str) -> Result<u128, Refusal> {
    let value = number(name, text)?;
    u128::try_from(value).map_err(|_| Refusal::malformed(format_args!("`{name}` is no number of 128 bits")))
}

/// Reads a payload, and checks all that its bytes alone can show but signatures.
pub(in crate::payments) fn read(
    payee: &Payee,
    accepted: &Accepted,
    payload: Value,
) -> Result<Shown, Refusal> {
    let kind = payload.get("type").and_then(Value::as_str);
    if !matches!(kind, Some("voucher" | "deposit" | "refund")) {
        let message = "The payload's `type` is neither `voucher`, `deposit` nor `refund`.";
        return Err(Refusal::new(reason::PAYLOAD_TYPE, message));
    }
    let Payload { kind, channel_config: fields, voucher, deposit, amount } =
        serde_json::from_value(payload).map_err(Refusal::malformed)?;
    if address("payTo", &accepted.pay_to)? != payee.account
        || address("receiver", &fields.receiver)? != payee.account
    {
        let message = format!("The channel pays another account; this gateway is paid at {}.", payee.account);
        return Err(Refusal::new(reason::RECEIVER, message));
    }
    if address("receiverAuthorizer", &fields.receiver_authorizer)? != payee.account {
        let message = format!(
            "The channel's receiver authorizer is another account; it must be {}, as `accepts` says.",
            payee.account
        );
        return Err(Refusal::new(reason::RECEIVER_AUTHORIZER, message));
    }
    if address("token", &fields.token)? != CREDIT {
        let message = format!("The channel is in another token; this gateway is paid in {CREDIT}.");
        return Err(Refusal::new(reason::TOKEN, message));
    }
    if fields.withdraw_delay > WITHDRAW_DELAY_S_MAX {
        let message = format!(
            "The channel's withdrawal delay of {} s is more than {WITHDRAW_DELAY_S_MAX} s. Open one with the delay that `accepts` \
             names.",
            fields.withdraw_delay,
        );
        return Err(Refusal::new(reason::WITHDRAW_DELAY, message));
    }
    let config = Config {
        payer: address("payer", &fields.payer)?,
        payer_authorizer: address("payerAuthorizer", &fields.payer_authorizer)?,
        receiver: payee.account,
        withdraw_delay_s: fields.withdraw_delay,
        salt: word("salt", &fields.salt)?,
    };
    let id = ChannelDigests::of_escrow(payee.chain_id).channel_id(&config.on_ledger());
    if word("channelId", &voucher.channel_id)? != id {
        let message = format!(
            "The voucher is for another channel: by what `channelConfig` says, on chain {}, it is {id}.",
            payee.chain_id
        );
        return Err(Refusal::new(reason::CHANNEL_ID, message));
    }
    let kind = match (kind.as_str(), deposit) {
        ("deposit", Some(deposit)) => Kind::Deposit(deposit_of(&deposit)?),
        ("deposit", None) => return Err(Refusal::malformed("there is no `deposit`")),
        ("refund", _) => Kind::Refund(amount.map(|amount| wei("amount", &amount)).transpose()?),
        _ => Kind::Voucher,
    };
    Ok(Shown {
        config,
        id,
        ceiling: wei("maxClaimableAmount", &voucher.max_claimable_amount)?,
        signature: signature(&voucher.signature)?,
        amount: wei("amount", &accepted.amount)?,
        kind,
    })
}

fn deposit_of(fields: &DepositFields) -> Result<Deposit, Refusal> {
    let Some(authorization) = &fields.authorization.erc3009_authorization else {
        let message =
            "A deposit is taken by `erc3009Authorization` alone, as `accepts` says (`assetTransferMethod`).";
        return Err(Refusal::new(reason::DEPOSIT_AUTHORIZATION, message));
    };
    Ok(Deposit {
        amount: wei("deposit.amount", &fields.amount)?,
        valid_after: number("validAfter", &authorization.valid_after)?,
        valid_before: number("validBefore", &authorization.valid_before)?,
        salt: U256::from_be_bytes(word("salt", &authorization.salt)?.0),
        signature: signature(&authorization.signature)?,
    })
}

/// How a channel stands, as x402 tells it.
pub(super) fn channel_state(id: &B256, row: &Row) -> Value {
    json!({
        "channelId": id.to_string(),
        "balance": row.balance.to_string(),
        "totalClaimed": row.claimed.to_string(),
        "withdrawRequestedAt": row.leaving_since,
        // Refunds are made by the receiver itself: none was ever signed.
        "refundNonce": "0",
        "chargedCumulativeAmount": row.charged.to_string(),
    })
}

/// By what a payer's client sets its book right: how the channel stands, and its own best voucher.
pub(super) fn corrective(id: &B256, row: &Row) -> Value {
    let mut state = json!({ "channelState": channel_state(id, row) });
    if !row.signature.is_empty() {
        state["voucherState"] = json!({
            "signedMaxClaimable": row.signed.to_string(),
            "signature": alloy_primitives::hex::encode_prefixed(&row.signature),
        });
    }
    state
}
