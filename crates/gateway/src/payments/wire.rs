//! What x402 (version 2) puts into headers: what is to be paid, what a payer signed, what became of it.
//!
//! In:     a `PAYMENT-SIGNATURE` header from a stranger. Out: what it pays with, or what is wrong with it; the texts of
//!         `PAYMENT-REQUIRED` and `PAYMENT-RESPONSE`.
//! Touches: nothing.
//! Holds:  a header is read within bounds, and whatever is in it ends in an authorization, a voucher or a refusal.
//! Absent: whether it is worth anything (`payments`); what a voucher's payload looks like (`escrow`).
//!
//! Source: x402 specification v2, schemes `exact` and `batch-settlement` on EVM networks.

use alloy_primitives::{Address, B256, U256};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use surety_types::{
    WEI_PER_MICRO_CREDIT,
    abi::address::CREDIT,
    credit::{CREDIT_NAME, CREDIT_VERSION, signed::TransferWithAuthorization, transfer_digest},
};

use super::escrow;

/// Characters of a header.
const HEADER_CHARACTERS_MAX: usize = 16 << 10;
const VERSION: u64 = 2;
const EXACT: &str = "exact";
const BATCH: &str = "batch-settlement";

/// Why a payment is not taken: by x402's name, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// As x402's facilitators spell it, where they have a word.
    pub(crate) reason: &'static str,
    /// What happened and what to do.
    pub(crate) message: String,
    /// How the channel stands, where the payer's book is to be set right by that.
    pub(crate) state: Option<Value>,
}

impl Refusal {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { reason, message: message.into(), state: None }
    }

    pub(super) fn with_state(self, state: Value) -> Refusal {
        Refusal { state: Some(state), ..self }
    }

    pub(super) fn malformed(what: impl std::fmt::Display) -> Refusal {
        let message = format!(
            "`PAYMENT-SIGNATURE` cannot be read: {what}. It is the base64 of x402's PaymentPayload (version 2) as JSON.",
        );
        Refusal::new("invalid_payload", message)
    }
}

/// What is to be paid for, which says how it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// An answer: by itself, or on a channel.
    Answer,
    /// Credits of a key: by itself.
    Credits,
}

/// What a payer pays with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// `exact`.
    Authorization(Authorization),
    /// `batch-settlement`.
    Voucher(Box<escrow::Shown>),
}

/// To whom, on which ledger, payments are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payee {
    pub(crate) chain_id: u64,
    pub(crate) account: Address,
    /// Seconds that a payment is to be good for.
    pub(crate) valid_s: u64,
}

/// What a payer signed: somebody may move so much, once, in this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Authorization {
    pub(crate) from: Address,
    pub(crate) to: Address,
    /// Wei.
    pub(crate) value: U256,
    /// Unix seconds, both exclusive.
    pub(crate) valid_after: U256,
    pub(crate) valid_before: U256,
    pub(crate) nonce: B256,
    /// r ‖ s ‖ v.
    pub(crate) signature: Vec<u8>,
}

impl Authorization {
    /// What was signed.
    pub(crate) fn digest(&self, chain_id: u64) -> B256 {
        let transfer = TransferWithAuthorization {
            from: self.from,
            to: self.to,
            value: self.value,
            validAfter: self.valid_after,
            validBefore: self.valid_before,
            nonce: self.nonce,
        };
        transfer_digest(chain_id, &transfer)
    }

    /// Whole micro-credits of it.
    pub(crate) fn micro(&self) -> u128 {
        u128::try_from(self.value / U256::from(WEI_PER_MICRO_CREDIT)).unwrap_or(u128::MAX)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    x402_version: u64,
    accepted: Accepted,
    payload: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Accepted {
    scheme: String,
    network: String,
    asset: String,
    pub(super) amount: String,
    pub(super) pay_to: String,
}

#[derive(Deserialize)]
struct Exact {
    signature: String,
    authorization: Fields,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    from: String,
    to: String,
    value: String,
    valid_after: String,
    valid_before: String,
    nonce: String,
}

/// A decimal number of 256 bits.
pub(super) fn number(name: &str, text: &str) -> Result<U256, Refusal> {
    let decimal = !text.is_empty() && text.len() <= 78 && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = decimal.then(|| text.parse().ok()).flatten();
    value.ok_or_else(|| Refusal::malformed(format_args!("`{name}` is no decimal number of 256 bits")))
}

pub(super) fn address(name: &str, text: &str) -> Result<Address, Refusal> {
    text.parse().map_err(|_| Refusal::malformed(format_args!("`{name}` is no address")))
}

pub(super) fn word(name: &str, text: &str) -> Result<B256, Refusal> {
    text.parse().map_err(|_| Refusal::malformed(format_args!("`{name}` is not 32 bytes in hexadecimal")))
}

pub(super) fn signature(text: &str) -> Result<Vec<u8>, Refusal> {
    let hex = text.strip_prefix("0x").unwrap_or(text);
    alloy_primitives::hex::decode(hex).map_err(|_| Refusal::malformed("`signature` is not hexadecimal"))
}

/// What is to be paid for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// Seconds that a payer's way out of a channel takes; none: it is not paid for on channels.
    pub(crate) delay_s: Option<u64>,
    pub(crate) url: &'a str,
    pub(crate) what: &'a str,
    /// Micro-credits.
    pub(crate) micro: u128,
}

impl Payee {
    pub(super) fn network(&self) -> String {
        format!("eip155:{}", self.chain_id)
    }

    /// Reads what a payer sent, and checks all that its bytes alone can show but signatures.
    pub(super) fn read(&self, header: &str, asked: Asked) -> Result<Shown, Refusal> {
        if header.len() > HEADER_CHARACTERS_MAX {
            let most = format_args!("it has more than {HEADER_CHARACTERS_MAX} characters");
            return Err(Refusal::malformed(most));
        }
        let bytes = BASE64_STANDARD.decode(header.trim()).map_err(Refusal::malformed)?;
        let Payload { x402_version, accepted, payload } =
            serde_json::from_slice(&bytes).map_err(Refusal::malformed)?;
        if x402_version != VERSION {
            let message =
                format!("The payment is of x402's version {x402_version}; this gateway takes {VERSION}.");
            return Err(Refusal::new("invalid_x402_version", message));
        }
        let batch = match (accepted.scheme.as_str(), asked) {
            (EXACT, _) => false,
            (BATCH, Asked::Answer) => true,
            (_, Asked::Answer) => {
                let message = format!(
                    "The payment's scheme is neither `{EXACT}` nor `{BATCH}`, the only ones that this gateway takes."
                );
                return Err(Refusal::new("unsupported_scheme", message));
            }
            (_, Asked::Credits) => {
                let message = format!(
                    "The payment's scheme is not `{EXACT}`, the only one that credits are bought by."
                );
                return Err(Refusal::new("unsupported_scheme", message));
            }
        };
        if accepted.network != self.network() {
            let message =
                format!("The payment is for another network; this gateway is paid on {}.", self.network());
            let reason = if batch { escrow::reason::NETWORK } else { "network_mismatch" };
            return Err(Refusal::new(reason, message));
        }
        if accepted.asset.parse::<Address>().ok() != Some(CREDIT) {
            let message =
                format!("The payment is in another asset; this gateway is paid in {CREDIT} ({CREDIT_NAME}).");
            let reason = if batch { escrow::reason::TOKEN } else { "asset_mismatch" };
            return Err(Refusal::new(reason, message));
        }
        if batch {
            return escrow::read(self, &accepted, payload).map(|shown| Shown::Voucher(Box::new(shown)));
        }
        let payload: Exact = serde_json::from_value(payload).map_err(Refusal::malformed)?;
        let Fields { from, to, value, valid_after, valid_before, nonce } = &payload.authorization;
        let authorization = Authorization {
            from: address("from", from)?,
            to: address("to", to)?,
            value: number("value", value)?,
            valid_after: number("validAfter", valid_after)?,
            valid_before: number("validBefore", valid_before)?,
            nonce: word("nonce", nonce)?,
            signature: signature(&payload.signature)?,
        };
        if address("payTo", &accepted.pay_to)? != self.account || authorization.to != self.account {
            let message =
                format!("The payment goes to another account; this gateway is paid at {}.", self.account);
            return Err(Refusal::new("invalid_exact_evm_payload_recipient_mismatch", message));
        }
        if number("amount", &accepted.amount)? != authorization.value {
            let message = "The amount that was signed is not the amount that was accepted. Sign what `accepts` asks for.";
            return Err(Refusal::new("invalid_exact_evm_payload_authorization_value_mismatch", message));
        }
        Ok(Shown::Authorization(authorization))
    }

    /// `PAYMENT-REQUIRED`: what is to be paid for a resource, and why what was sent did not do. `state`: how the channel stands
    /// that was paid on.
    pub(crate) fn required(&self, terms: &Terms<'_>, error: &str, state: Option<&Value>) -> String {
        let Terms { delay_s, url, what, micro } = *terms;
        let way = |scheme: &str, extra: Value| {
            json!({
                "scheme": scheme,
                "network": self.network(),
                "amount": wei(micro),
                "asset": CREDIT.to_string(),
                "payTo": self.account.to_string(),
                "maxTimeoutSeconds": self.valid_s,
                "extra": extra,
            })
        };
        let token =
            json!({ "name": CREDIT_NAME, "version": CREDIT_VERSION, "assetTransferMethod": "eip3009" });
        let mut accepts = vec![way(EXACT, token.clone())];
        if let Some(delay_s) = delay_s {
            let mut extra = token;
            extra["receiverAuthorizer"] = Value::from(self.account.to_string());
            extra["withdrawDelay"] = Value::from(delay_s);
            for (name, value) in state.and_then(Value::as_object).into_iter().flatten() {
                extra[name] = value.clone();
            }
            accepts.push(way(BATCH, extra));
        }
        let document = json!({
            "x402Version": VERSION,
            "error": error,
            "resource": { "url": url, "description": what, "mimeType": "application/json" },
            "accepts": accepts,
            "extensions": {},
        });
        BASE64_STANDARD.encode(document.to_string())
    }

    /// `PAYMENT-RESPONSE`: what was taken of a payment, and by which transaction; none: it will be.
    pub(super) fn response(&self, payer: Address, taken: Option<(u128, B256)>, authorized: U256) -> String {
        let mut document = json!({
            "success": true,
            "network": self.network(),
            "payer": payer.to_string(),
            "transaction": "",
            "extra": { "authorizedAmount": authorized.to_string() },
        });
        if let Some((micro, transaction)) = taken {
            document["amount"] = Value::from(wei(micro));
            if !transaction.is_zero() {
                document["transaction"] = Value::from(transaction.to_string());
            }
        }
        BASE64_STANDARD.encode(document.to_string())
    }
}

/// Micro-credits in wei, as a decimal text.
fn wei(micro: u128) -> String {
    (U256::from(micro) * U256::from(WEI_PER_MICRO_CREDIT)).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payee() -> Payee {
        Payee { chain_id: 7, account: Address::repeat_byte(0x11), valid_s: 900 }
    }

    fn sound() -> Value {
        json!({
            "x402Version": 2,
            "accepted": {
                "scheme": "exact", "network": "eip155:7", "asset": CREDIT.to_string().to_lowercase(),
                "amount": "5000000000000", "payTo": Address::repeat_byte(0x11).to_string(), "maxTimeoutSeconds": 900,
            },
            "payload": {
                "signature": format!("0x{}", "ab".repeat(65)),
                "authorization": {
                    "from": Address::repeat_byte(0x22).to_string(), "to": Address::repeat_byte(0x11).to_string(),
                    "value": "5000000000000", "validAfter": "0", "validBefore": "99", "nonce": B256::ZERO.to_string(),
                },
            },
            "resource": { "url": "http://x" },
        })
    }

    fn read(header: &str) -> Result<Authorization, Refusal> {
        match payee().read(header, Asked::Answer)? {
            Shown::Authorization(authorization) => Ok(authorization),
            Shown::Voucher(voucher) => panic!("a voucher: {voucher:?}"),
        }
    }

    fn header(document: &Value) -> String {
        BASE64_STANDARD.encode(document.to_string())
    }

    #[test]
    fn what_was_signed_is_read() {
        let found = read(&header(&sound())).expect("sound");
        assert_eq!((found.micro(), found.from), (5, Address::repeat_byte(0x22)));
        assert_eq!((found.valid_before, found.signature.len()), (U256::from(99), 65));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |pointer: &str, value: Value, reason: &str| {
            let mut document = sound();
            *document.pointer_mut(pointer).expect("a place") = value;
            let refusal = read(&header(&document)).expect_err(pointer);
            assert_eq!(refusal.reason, reason, "{pointer}");
            assert!(refusal.message.len() > 40, "{}", refusal.message);
        };
        check("/x402Version", json!(1), "invalid_x402_version");
        check("/accepted/scheme", json!("upto"), "unsupported_scheme");
        check("/accepted/network", json!("eip155:8"), "network_mismatch");
        check("/accepted/asset", json!(Address::ZERO.to_string()), "asset_mismatch");
        check("/accepted/asset", json!("gold"), "asset_mismatch");
        check(
            "/accepted/payTo",
            json!(Address::ZERO.to_string()),
            "invalid_exact_evm_payload_recipient_mismatch",
        );
        let other = json!(Address::repeat_byte(3).to_string());
        check("/payload/authorization/to", other, "invalid_exact_evm_payload_recipient_mismatch");
        let mismatch = "invalid_exact_evm_payload_authorization_value_mismatch";
        check("/accepted/amount", json!("5000000000001"), mismatch);
        for bad in ["", "-1", "0x5", "1.5", &"9".repeat(78), &"1".repeat(79)] {
            check("/payload/authorization/value", json!(bad), "invalid_payload");
        }
        check("/payload/authorization/nonce", json!("0x12"), "invalid_payload");
        check("/payload/authorization/from", json!("me"), "invalid_payload");
        check("/payload/signature", json!("zz"), "invalid_payload");
        check("/payload", json!([]), "invalid_payload");
        for text in ["", "@@@", &header(&json!(3)), &"a".repeat(20_000)] {
            assert_eq!(read(text).expect_err("nothing").reason, "invalid_payload");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_stop_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,80}") {
            prop_assert!(read(&BASE64_STANDARD.encode(&bytes)).is_err());
            prop_assert!(read(&text).is_err());
            let mut document = sound().to_string().into_bytes();
            for (at, byte) in bytes.iter().enumerate().take(4) {
                let length = document.len();
                document[(at * 97 + usize::from(*byte)) % length] = *byte;
            }
            // Whatever comes of it, it is told.
            let _ = payee().read(&BASE64_STANDARD.encode(&document), Asked::Answer);
        }
    }
}
