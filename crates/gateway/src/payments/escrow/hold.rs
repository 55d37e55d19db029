//! A voucher that stands for one request, and the channel that is busy with it.
//!
//! In:     what receipts charge. Out: what was charged, once that is on the disk; what x402 is told of it.
//! Touches: the row of its channel.
//! Holds:  once ended, it charges nothing more; the channel is free from then on.
//! Absent: whether it pays (`escrow`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_primitives::{Address, B256};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use surety_types::WEI_PER_MICRO_CREDIT;
use tracing::error;

use super::{Channels, Shown, wei, wire};
use crate::{disk::Written, payments::Ended};

/// A channel that something is done with. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Busy {
    channels: Arc<Channels>,
    id: B256,
}

impl Busy {
    pub(super) fn new(channels: &Arc<Channels>, id: B256) -> Busy {
        Busy { channels: Arc::clone(channels), id }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.channels.lock().busy.remove(&self.id);
    }
}

/// A voucher that stands for one request.
#[derive(Debug)]
pub(in crate::payments) struct Hold {
    channels: Arc<Channels>,
    id: B256,
    payer: Address,
    /// Wei that the request may cost.
    amount: u128,
    /// Wei that were paid in for it, and the transaction.
    deposit: Option<(u128, B256)>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// None: it has ended.
    busy: Option<Busy>,
    /// What it was charged, in wei, and when that is on the disk.
    charged: u128,
    written: Option<Written<()>>,
    /// How the channel stood when it ended.
    state: Value,
}

impl Hold {
    pub(super) fn new(busy: Busy, shown: &Shown, deposit: Option<(u128, B256)>) -> Hold {
        let progress = Progress { charged: 0, written: None, state: Value::Null, busy: None };
        let hold = Hold {
            channels: Arc::clone(&busy.channels),
            id: busy.id,
            payer: shown.config.payer,
            amount: shown.amount,
            deposit,
            progress: Mutex::new(progress),
        };
        hold.progress().busy = Some(busy);
        hold
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::payments) fn payer(&self) -> Address {
        self.payer
    }

    /// Micro-credits that the request may cost.
    pub(in crate::payments) fn micro(&self) -> u128 {
        self.amount / WEI_PER_MICRO_CREDIT
    }

    /// Receipts charge so many micro-credits, all together.
    pub(in crate::payments) fn charge(&self, micro: u128) {
        let progress = self.progress();
        if progress.busy.is_none() {
            error!(channel = %self.id, micro, "a request is charged after its end");
            return;
        }
        let mut state = self.channels.lock();
        if let Some(row) = state.rows.get_mut(&self.id) {
            row.charge(wei(micro));
            drop(self.channels.store.keep_channel(self.id, Some(row.clone())));
        }
    }

    /// The request has ended: the channel is free.
    pub(in crate::payments) fn end(&self) {
        let mut progress = self.progress();
        let Some(busy) = progress.busy.take() else { return };
        {
            let mut state = self.channels.lock();
            if let Some(row) = state.rows.get_mut(&self.id) {
                progress.charged = row.end();
                progress.state = wire::channel_state(&self.id, row);
                progress.written = Some(self.channels.store.keep_channel(self.id, Some(row.clone())));
            }
        }
        drop(busy);
    }

    /// Ends it, and waits until what it was charged is on the disk.
    pub(in crate::payments) async fn settled(&self) -> Ended {
        self.end();
        let (charged, written) = {
            let mut progress = self.progress();
            (progress.charged, progress.written.take())
        };
        if let Some(written) = written
            && let Err(failure) = written.outcome().await
        {
            error!(%failure, "what was charged on a channel cannot be kept");
            return Ended::Lost("it cannot be kept on the gateway's disk".to_owned());
        }
        match charged {
            0 => Ended::Free,
            wei => Ended::Settled(wei / WEI_PER_MICRO_CREDIT, B256::ZERO),
        }
    }

    /// `PAYMENT-RESPONSE` to a request that came to nothing, if something was paid in for it, or charged all the same.
    pub(in crate::payments) fn response_to_failure(&self) -> Option<String> {
        self.end();
        let charged = self.progress().charged;
        (self.deposit.is_some() || charged > 0).then(|| self.response(Some(charged / WEI_PER_MICRO_CREDIT)))
    }

    /// `PAYMENT-RESPONSE`: what was charged; none: that is not known yet.
    pub(in crate::payments) fn response(&self, charged_micro: Option<u128>) -> String {
        let mut state = self.progress().state.clone();
        if state.is_null() {
            let channels = self.channels.lock();
            state = channels.rows.get(&self.id).map_or(Value::Null, |row| wire::channel_state(&self.id, row));
        }
        let (amount, transaction) = match self.deposit {
            Some((wei, hash)) => (wei.to_string(), hash.to_string()),
            None => (String::new(), String::new()),
        };
        let mut document = json!({
            "success": true,
            "network": self.channels.payee.network(),
            "payer": self.payer.to_string(),
            "transaction": transaction,
            "amount": amount,
            "extra": { "authorizedAmount": self.amount.to_string(), "channelState": state },
        });
        if let Some(micro) = charged_micro {
            document["extra"]["chargedAmount"] = Value::from(wei(micro).to_string());
        }
        BASE64_STANDARD.encode(document.to_string())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end();
    }
}
