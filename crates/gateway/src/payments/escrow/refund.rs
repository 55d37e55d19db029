//! Refund: gives back at once what is left in a channel, because its payer asks.
//!
//! In:     a voucher for exactly what was charged. Out: what was given back, and by which transaction.
//! Touches: the escrow on the ledger; the row of the channel.
//! Holds:  what was charged is claimed first; no more is given back than is left.
//! Absent: the payer's way out without the gateway, which is the ledger's (`initiateWithdraw`).

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use surety_client::channel::ModuleCall;
use surety_types::abi::{IChannels, Module};
use tracing::info;

use super::{Channels, Kind, Shown, claim::claim_of, fits, reason, wire};
use crate::payments::{PayError, unchecked, wire::Refusal};

/// What was given back.
#[derive(Debug)]
pub(crate) struct Refund {
    network: String,
    payer: Address,
    /// Wei.
    amount: u128,
    transaction: B256,
    state: Value,
}

impl Refund {
    /// Wei that were given back.
    pub(crate) fn amount(&self) -> u128 {
        self.amount
    }

    /// `PAYMENT-RESPONSE`.
    pub(crate) fn response(&self) -> String {
        let document = json!({
            "success": true,
            "network": self.network,
            "payer": self.payer.to_string(),
            "transaction": self.transaction.to_string(),
            "amount": self.amount.to_string(),
            "extra": { "channelState": self.state },
        });
        BASE64_STANDARD.encode(document.to_string())
    }
}

impl Channels {
    /// Gives back what is left in a channel, or as much of it as is asked for.
    pub(in crate::payments) async fn refund(self: &Arc<Self>, shown: Shown) -> Result<Refund, PayError> {
        let Kind::Refund(asked) = shown.kind else {
            let message = "Nothing is answered here that could be paid for. A payload of the type `refund` is given back what is left \
                           in its channel; an answer is asked for by POST.";
            return Err(Refusal::new(reason::PAYLOAD_TYPE, message).into());
        };
        self.require_signed(&shown)?;
        let busy = self.enter(shown.id)?;
        let seen = self.look(&shown.id).await.map_err(|failure| unchecked(&failure))?;
        let mut row = self.known(&shown, &seen)?;
        row.see(&seen);
        // It charges nothing.
        let shown = Shown { amount: 0, ..shown };
        fits(&shown, &row)?;
        let left = seen.balance.saturating_sub(row.charged);
        let amount = asked.unwrap_or(left);
        if left == 0 || amount > left {
            let message = format!("{left} wei are left in the channel; no more can be given back.");
            return Err(Refusal::new(reason::REFUND_NOTHING, message).into());
        }
        if amount == 0 {
            let message = "A refund of nothing is none. Name how many wei are to be given back, or leave `amount` out for all of them.";
            return Err(Refusal::new(reason::REFUND_AMOUNT, message).into());
        }
        let mut calls = Vec::new();
        if row.charged > seen.claimed {
            let owed = claim_of(&shown.config, shown.ceiling, &shown.signature, row.charged);
            let call = IChannels::claimCall { voucherClaims: vec![owed] };
            calls.push(ModuleCall::new(Module::Escrow, &call));
        }
        let refund = IChannels::refundCall { config: shown.config.on_ledger(), amount };
        calls.push(ModuleCall::new(Module::Escrow, &refund));
        let transaction = self.send(calls).await.map_err(|failure| match failure.refused {
            true => {
                let message = format!("The ledger refused the refund: {}.", failure.message);
                PayError::from(Refusal::new(reason::REFUND_FAILED, message))
            }
            false => unchecked(&failure),
        })?;
        info!(payer = %shown.config.payer, channel = %shown.id, wei = amount, %transaction, "what was left in a channel was given back");
        let newly = row.charged.saturating_sub(row.claimed);
        (row.balance, row.claimed) = (row.balance.saturating_sub(amount), row.charged);
        let state = wire::channel_state(&shown.id, &row);
        {
            let mut channels = self.lock();
            channels.settled = channels.settled.saturating_add(newly);
            if let Some(kept) = channels.rows.get_mut(&shown.id) {
                (kept.balance, kept.claimed) = (row.balance, row.claimed);
                drop(self.store.keep_channel(shown.id, Some(kept.clone())));
            }
        }
        drop(busy);
        let network = self.payee.network();
        Ok(Refund { network, payer: shown.config.payer, amount, transaction, state })
    }
}
