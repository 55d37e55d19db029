//! A payment that stands for one request: what is set aside of it, what receipts charge, how it ended.
//!
//! In:     what an order may cost, what its receipt charges. Out: how much of the payment that is, and whether it was taken.
//! Touches: the payments or the channels that it is one of.
//! Holds:  no more is charged than was signed for; given up before anything is charged, nothing is taken.
//! Absent: whether it is good (`payments`, `escrow`).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy_primitives::{Address, B256, U256};
use surety_types::Digest;
use tokio::time::timeout;

use super::{
    PaymentId, Payments, Purpose, Stage,
    escrow::{Hold, reason},
    wire::Authorization,
};
use crate::{
    error::{ApiError, Code},
    keys::{self, Micro},
};

/// How a payment ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// So many micro-credits were taken, by this transaction; zero: by none of its own.
    Settled(u128, B256),
    /// Nothing is to be taken.
    Free,
    /// It will be taken.
    Pending,
    /// It cannot be.
    Lost(String),
}

/// What a payment is.
#[derive(Debug)]
pub(super) enum Source {
    /// An authorization by itself.
    Authorization { payments: Arc<Payments>, id: PaymentId, value: U256 },
    /// A voucher on a channel.
    Voucher(Hold),
}

/// A payment that stands for one request. Dropped before anything is due, it is given up: nothing is taken.
#[derive(Debug)]
pub(crate) struct Payment {
    source: Source,
    payer: Address,
    /// Micro-credits that were signed for.
    covers: u128,
    patience_ms: Option<u64>,
    spending: Mutex<Spending>,
}

/// In micro-credits.
#[derive(Debug, Default)]
struct Spending {
    reserved: u128,
    charged: u128,
}

impl Payment {
    pub(super) fn by_authorization(
        payments: &Arc<Payments>,
        id: PaymentId,
        authorization: &Authorization,
        patience_ms: u64,
    ) -> Payment {
        let source = Source::Authorization { payments: Arc::clone(payments), id, value: authorization.value };
        Payment {
            source,
            payer: authorization.from,
            covers: authorization.micro(),
            patience_ms: Some(patience_ms),
            spending: Mutex::default(),
        }
    }

    pub(super) fn on_channel(hold: Hold) -> Payment {
        Payment {
            payer: hold.payer(),
            covers: hold.micro(),
            source: Source::Voucher(hold),
            patience_ms: None,
            spending: Mutex::default(),
        }
    }

    /// A number that stands for the payer, and for no key.
    pub(crate) fn payer_number(&self) -> u64 {
        let digest = Digest::of("surety 2026 payer", self.payer.as_slice());
        u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("32 bytes")) | 1 << 63
    }

    /// Milliseconds from when it was verified until an answer must have ended, if it is not good for ever.
    pub(crate) fn patience_ms(&self) -> Option<u64> {
        self.patience_ms
    }

    fn spending(&self) -> MutexGuard<'_, Spending> {
        self.spending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets some of it aside for an order, in micro-credits.
    pub(crate) fn reserve(&self, micro: u128) -> Result<(), ApiError> {
        let mut spending = self.spending();
        let all = self.covers;
        let left = all.saturating_sub(spending.reserved).saturating_sub(spending.charged);
        if micro > left {
            let message = format!(
                "The payment is of {} credits, and {} more than are left of it are needed to be sure to cover this request. \
                 Nothing was taken. Ask without a payment to be told what it may cost, or for fewer tokens (`max_tokens`).",
                keys::credits(all),
                keys::credits(micro - left),
            );
            return Err(ApiError::new(Code::PaymentRefused, message));
        }
        spending.reserved += micro;
        Ok(())
    }

    /// Gives back what was set aside.
    pub(crate) fn release(&self, micro: u128) {
        let mut spending = self.spending();
        assert!(micro <= spending.reserved, "more is given back than was set aside");
        spending.reserved -= micro;
    }

    /// What receipts charge is due; what was set aside for them is given back.
    pub(crate) fn charge(&self, reserved: u128, micro: u128) {
        self.release(reserved);
        let charged = {
            let mut spending = self.spending();
            spending.charged = spending.charged.saturating_add(micro).min(self.covers);
            spending.charged
        };
        if charged == 0 {
            return;
        }
        match &self.source {
            Source::Authorization { payments, id, .. } => {
                payments.advance(id, Stage::Due(Micro(charged)));
                payments.due.notify_one();
            }
            Source::Voucher(hold) => hold.charge(charged),
        }
    }

    /// How an authorization stands.
    fn ended(payments: &Payments, id: &PaymentId) -> Ended {
        match payments.lock().rows.get(id).map(|row| &row.stage) {
            None | Some(Stage::Held) => Ended::Free,
            Some(Stage::Due(_)) => Ended::Pending,
            Some(Stage::Settled(micro, transaction)) => Ended::Settled(micro.0, *transaction),
            Some(Stage::Lost(_, reason)) => Ended::Lost(reason.clone()),
        }
    }

    /// Waits for what is due to be taken; on a channel, to be on the disk, and the channel is free for the next request.
    pub(crate) async fn settled(&self, patience: Duration) -> Ended {
        let (payments, id) = match &self.source {
            Source::Authorization { payments, id, .. } => (payments, id),
            Source::Voucher(hold) => return hold.settled().await,
        };
        let mut changes = payments.changed.subscribe();
        let waited = async {
            loop {
                let ended = Payment::ended(payments, id);
                if ended != Ended::Pending || changes.changed().await.is_err() {
                    return ended;
                }
            }
        };
        timeout(patience, waited).await.unwrap_or(Ended::Pending)
    }

    /// Notes that the answer is told before it is paid for: it is due whatever happens to this process. How it stands then.
    pub(crate) async fn tell(&self) -> Ended {
        let (payments, id) = match &self.source {
            Source::Authorization { payments, id, .. } => (payments, id),
            Source::Voucher(hold) => return hold.settled().await,
        };
        let kept = {
            let mut state = payments.lock();
            let Some(row) = state.rows.get_mut(id) else { return Ended::Free };
            if let Purpose::Answer { told, .. } = &mut row.purpose {
                *told = true;
            }
            payments.store.keep(*id, Some(row.clone()))
        };
        let _ = kept.outcome().await;
        Payment::ended(payments, id)
    }

    /// `PAYMENT-RESPONSE`: what was taken, and by which transaction; none: it will be.
    pub(crate) fn response(&self, taken: Option<(u128, B256)>) -> String {
        match &self.source {
            Source::Authorization { payments, value, .. } => {
                payments.payee().response(self.payer, taken, *value)
            }
            Source::Voucher(hold) => hold.response(taken.map(|(micro, _)| micro)),
        }
    }

    /// The same for a request that was given up: none, unless a channel was paid into or charged for it.
    pub(crate) fn response_to_failure(&self) -> Option<String> {
        match &self.source {
            Source::Authorization { .. } => None,
            Source::Voucher(hold) => hold.response_to_failure(),
        }
    }

    /// x402's name for it being less than an order comes to.
    pub(crate) fn shortfall(&self) -> &'static str {
        match &self.source {
            Source::Authorization { .. } => "invalid_exact_evm_payload_authorization_value",
            Source::Voucher(_) => reason::AMOUNT,
        }
    }

    /// Nothing is taken, unless something is due already; it may be shown again.
    pub(crate) fn give_up(&self) {
        match &self.source {
            Source::Authorization { payments, id, .. } => {
                let mut state = payments.lock();
                if state.rows.get(id).is_some_and(|row| row.stage == Stage::Held) {
                    state.rows.remove(id);
                    drop(payments.store.keep(*id, None));
                }
            }
            Source::Voucher(hold) => hold.end(),
        }
    }
}

impl Drop for Payment {
    fn drop(&mut self) {
        self.give_up();
    }
}
