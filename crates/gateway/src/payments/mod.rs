//! Payments: requests that are paid for by themselves, and credits that are bought (x402).
//!
//! In:     what payers signed, by itself (`exact`) or on a channel (`escrow`); what receipts charge.
//! Out:    payments that stand for a request, each for one; transactions.
//! Touches: the ledger, through the gateway's account; `payments.redb`.
//! Holds:  no payment stands for two requests, whatever comes at once or again: it is on the disk before anything is done for
//!         it. Of a payer's balance no more is promised to this gateway than there was. What is taken is what receipts
//!         charge, once, never more than was signed for; what failed takes nothing. What is due is tried until it is taken
//!         or can never be, also after a restart.
//! Absent: HTTP (`api/x402`); what an answer may cost (`route`, `keys`).

mod escrow;
mod payment;
mod settle;
mod store;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy_primitives::{Address, B256, U256};
use surety_client::{Account, AccountError, channel::view, ledger::recover};
use surety_types::{
    WEI_PER_MICRO_CREDIT,
    abi::{ICredit, Module},
};
use tokio::sync::{Notify, watch};
use tracing::{error, info};

use escrow::Channels;
pub(crate) use escrow::Refund;
pub(crate) use payment::{Ended, Payment};
pub(crate) use store::PaymentId;
use store::{Purpose, Row, Stage, Store};
use wire::{Asked, Authorization, Shown};
pub(crate) use wire::{Payee, Refusal, Terms};

use crate::{
    disk::{OpenStoreError, Writer},
    error::{ApiError, Code},
    id::RequestId,
    keys::{self, Keys, Micro},
};

/// Payments that are kept at once; those that have ended count until the ledger refuses them by itself.
const PAYMENTS_MAX: usize = 100_000;
/// A payment must be good for so long yet; an answer ends so long before its payment does, so that there is time to take it.
const MARGIN_S: u64 = 60;
/// No payment is kept for longer.
const VALID_S_MAX: u64 = 24 * 60 * 60;

/// Why a payment does not stand for a request.
#[derive(Debug)]
pub(crate) enum PayError {
    /// It is no good.
    Refused(Refusal),
    /// That cannot be told now.
    Failed(ApiError),
}

impl From<Refusal> for PayError {
    fn from(refusal: Refusal) -> Self {
        PayError::Refused(refusal)
    }
}

/// The payments to a gateway.
#[derive(Debug)]
pub(crate) struct Payments {
    account: Arc<dyn Account>,
    keys: Arc<Keys>,
    payee: Payee,
    store: Store,
    /// What is paid on channels.
    channels: Arc<Channels>,
    state: Mutex<State>,
    /// Something is due.
    due: Notify,
    /// Counts changes of stages.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<PaymentId, Row>,
    sums: Sums,
}

/// What became of payments since the gateway began, in micro-credits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Taken.
    pub(crate) settled: u128,
    /// To be taken.
    pub(crate) due: u128,
    /// Signed for by requests under way.
    pub(crate) held: u128,
    /// Could not be taken.
    pub(crate) lost: u128,
}

impl Sums {
    /// By name.
    pub(crate) fn named(&self) -> Vec<(&'static str, u128)> {
        vec![("held", self.held), ("due", self.due), ("settled", self.settled), ("lost", self.lost)]
    }
}

/// A payment that was found good, and stands for nothing yet.
#[derive(Debug)]
pub(crate) struct Verified {
    authorization: Authorization,
    /// What the payer has, in wei.
    balance: U256,
    /// Milliseconds until an answer must have ended.
    patience_ms: u64,
}

impl Payments {
    /// Opens what is in `data_dir`. `answered` tells what a request was charged by the receipts that are kept.
    pub(crate) fn open(
        account: Arc<dyn Account>,
        keys: Arc<Keys>,
        valid_for: Duration,
        data_dir: &Path,
        answered: &dyn Fn(RequestId) -> Option<u128>,
    ) -> Result<(Arc<Payments>, Writer), OpenStoreError> {
        let (store, writer, kept) = Store::open(data_dir)?;
        let mut rows = BTreeMap::new();
        for (id, mut row) in kept.payments {
            if row.stage == Stage::Held {
                let charged = match &row.purpose {
                    Purpose::Answer { request, told: true } => RequestId::parse(request).and_then(answered),
                    _ => None,
                };
                let Some(micro) = charged.filter(|micro| *micro > 0) else {
                    drop(store.keep(id, None));
                    continue;
                };
                info!(payer = %id.0, micro, "an answer from before the gateway was stopped is taken of its payment");
                row.stage = Stage::Due(Micro(micro));
                drop(store.keep(id, Some(row.clone())));
            }
            rows.insert(id, row);
        }
        let payee = Payee {
            chain_id: account.chain_id(),
            account: account.address(),
            valid_s: valid_for.as_secs().saturating_add(2 * MARGIN_S).min(VALID_S_MAX),
        };
        let channels = Channels::open(Arc::clone(&account), payee, store.clone(), kept.channels, answered);
        let payments = Payments {
            account,
            keys,
            payee,
            store,
            channels: Arc::new(channels),
            state: Mutex::new(State { rows, sums: Sums::default() }),
            due: Notify::new(),
            changed: watch::Sender::new(0),
        };
        Ok((Arc::new(payments), writer))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn payee(&self) -> &Payee {
        &self.payee
    }

    /// How payments stand.
    pub(crate) fn sums(&self) -> Sums {
        let state = self.lock();
        let mut sums = state.sums;
        for row in state.rows.values() {
            match &row.stage {
                Stage::Held => sums.held = sums.held.saturating_add(row.authorization.micro()),
                Stage::Due(micro) => sums.due = sums.due.saturating_add(micro.0),
                Stage::Settled(..) | Stage::Lost(..) => {}
            }
        }
        self.channels.add_to(&mut sums);
        sums
    }

    /// Has what a payer sent stand for an answer that costs at least so many micro-credits. `told`: it is told as it comes,
    /// before it is paid for.
    pub(crate) async fn pay(
        self: &Arc<Self>,
        header: &str,
        least_micro: u128,
        request: RequestId,
        told: bool,
    ) -> Result<Arc<Payment>, PayError> {
        match self.payee.read(header, Asked::Answer)? {
            Shown::Authorization(authorization) => {
                let verified = self.verify(authorization, least_micro).await?;
                let purpose = Purpose::Answer { request: request.to_string(), told };
                self.claim(verified, purpose, Stage::Held).await
            }
            Shown::Voucher(shown) => {
                let promised = self.lock().promised(&shown.config.payer);
                let held = self.channels.hold(*shown, least_micro, promised, request, told).await?;
                Ok(Arc::new(Payment::on_channel(held)))
            }
        }
    }

    /// Seconds that a payer's way out takes in channels that answers are paid for on; none: the ledger cannot be asked now.
    pub(crate) async fn delay_s(&self) -> Option<u64> {
        self.channels.delay_s().await.ok()
    }

    /// Gives back what is left in a channel, because its payer asks for it.
    pub(crate) async fn refund(&self, header: &str) -> Result<Refund, PayError> {
        let Shown::Voucher(shown) = self.payee.read(header, Asked::Answer)? else {
            let message = "A payment of the scheme `exact` has nothing to give back: what was not taken never left its payer.";
            return Err(Refusal::new("unsupported_scheme", message).into());
        };
        self.channels.refund(*shown).await
    }

    /// Whether an authorization is good for at least so many micro-credits, as far as it and the ledger show.
    async fn verify(&self, authorization: Authorization, least_micro: u128) -> Result<Verified, PayError> {
        if authorization.micro() < least_micro {
            let message = format!(
                "The payment is of {} credits, and the request may cost {} at least. Pay what `accepts` asks for: only what \
                 the receipt charges is taken of it.",
                keys::credits(authorization.micro()),
                keys::credits(least_micro),
            );
            return Err(Refusal::new("invalid_exact_evm_payload_authorization_value", message).into());
        }
        let digest = authorization.digest(self.payee.chain_id);
        let signature = <&[u8; 65]>::try_from(&authorization.signature[..]).ok();
        if signature.and_then(|signature| recover(&digest, signature)) != Some(authorization.from) {
            let message = format!(
                "The payment is not signed by {}, for the asset, chain, name and version that `accepts` names. A wallet \
                 without a key of its own (a contract) cannot pay here.",
                authorization.from,
            );
            return Err(Refusal::new("invalid_exact_evm_payload_signature", message).into());
        }
        if self.lock().rows.contains_key(&(authorization.from, authorization.nonce)) {
            return Err(replayed());
        }
        let asked = self.ask(&authorization);
        let (now_s, used, balance) = asked.await.map_err(|failure| unchecked(&failure))?;
        let now = U256::from(now_s);
        if authorization.valid_after >= now {
            let message = format!(
                "The payment is good only after {}, and the ledger's time is {now}. Sign one that is good now.",
                authorization.valid_after,
            );
            return Err(Refusal::new("invalid_exact_evm_payload_authorization_valid_after", message).into());
        }
        let left_s = authorization.valid_before.saturating_sub(now).saturating_to::<u64>();
        if left_s <= MARGIN_S || left_s > VALID_S_MAX {
            let message = format!(
                "The payment is good until {}, and the ledger's time is {now}: it must be good for more than {MARGIN_S} s yet, \
                 and for a day at most. Sign one that is good for {} s.",
                authorization.valid_before, self.payee.valid_s,
            );
            return Err(Refusal::new("invalid_exact_evm_payload_authorization_valid_before", message).into());
        }
        if used {
            return Err(replayed());
        }
        Ok(Verified { authorization, balance, patience_ms: (left_s - MARGIN_S) * 1000 })
    }

    /// The ledger's time in seconds, whether the nonce was used, and what the payer has.
    async fn ask(&self, authorization: &Authorization) -> Result<(u64, bool, U256), AccountError> {
        let (authorizer, nonce) = (authorization.from, authorization.nonce);
        let now_s = self.account.moment().await?.timestamp_ms / 1_000;
        let state = ICredit::authorizationStateCall { authorizer, nonce };
        let used = view(&*self.account, Module::Credit, &state).await?;
        let balance = ICredit::balanceOfCall { account: authorizer };
        Ok((now_s, used, view(&*self.account, Module::Credit, &balance).await?))
    }

    /// Has all of a payment of so many micro-credits at least taken, for credits of a key.
    pub(crate) async fn buy(
        self: &Arc<Self>,
        header: &str,
        least_micro: u128,
        key: u64,
    ) -> Result<Arc<Payment>, PayError> {
        let Shown::Authorization(authorization) = self.payee.read(header, Asked::Credits)? else {
            return Err(PayError::Failed(ApiError::bug("credits are not bought on channels")));
        };
        let verified = self.verify(authorization, least_micro).await?;
        let stage = Stage::Due(Micro(verified.authorization.micro()));
        let payment = self.claim(verified, Purpose::Credits { key }, stage).await?;
        self.due.notify_one();
        Ok(payment)
    }

    async fn claim(
        self: &Arc<Self>,
        verified: Verified,
        purpose: Purpose,
        stage: Stage,
    ) -> Result<Arc<Payment>, PayError> {
        let Verified { authorization, balance, patience_ms } = verified;
        let id = (authorization.from, authorization.nonce);
        let row = Row { authorization: authorization.clone(), purpose, stage };
        let kept = {
            let mut state = self.lock();
            if state.rows.contains_key(&id) {
                return Err(replayed());
            }
            if state.rows.len() >= PAYMENTS_MAX {
                let message =
                    "The gateway has as many payments open as it can. Try again shortly; nothing was taken.";
                return Err(PayError::Failed(ApiError::new(Code::Overloaded, message)));
            }
            let promised = state.promised(&authorization.from);
            if balance.saturating_sub(promised) < authorization.value {
                let message = format!(
                    "{} has {balance} wei, of which {promised} are promised to this gateway for other requests; the payment \
                     is of {}. Send credits there, or wait until those requests have ended.",
                    authorization.from, authorization.value,
                );
                return Err(Refusal::new("invalid_exact_evm_insufficient_balance", message).into());
            }
            state.rows.insert(id, row.clone());
            self.store.keep(id, Some(row))
        };
        let payment = Payment::by_authorization(self, id, &authorization, patience_ms);
        if let Err(failure) = kept.outcome().await {
            error!(%failure, "a payment cannot be kept");
            self.lock().rows.remove(&id);
            return Err(PayError::Failed(ApiError::bug("the payment cannot be kept on its disk")));
        }
        Ok(Arc::new(payment))
    }

    /// Changes how far a payment is, on the disk soon.
    fn advance(&self, id: &PaymentId, stage: Stage) {
        let mut state = self.lock();
        let Some(row) = state.rows.get_mut(id) else { return };
        row.stage = stage.clone();
        drop(self.store.keep(*id, Some(row.clone())));
        match stage {
            Stage::Settled(micro, _) => state.sums.settled = state.sums.settled.saturating_add(micro.0),
            Stage::Lost(micro, _) => state.sums.lost = state.sums.lost.saturating_add(micro.0),
            Stage::Held | Stage::Due(_) => {}
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }
}

impl State {
    /// Wei that a payer has signed for and that is not taken yet.
    fn promised(&self, payer: &Address) -> U256 {
        let of = self.rows.range((*payer, B256::ZERO)..=(*payer, B256::repeat_byte(0xff)));
        of.fold(U256::ZERO, |sum, (_, row)| match &row.stage {
            Stage::Held => sum.saturating_add(row.authorization.value),
            Stage::Due(micro) => {
                sum.saturating_add(U256::from(micro.0).saturating_mul(U256::from(WEI_PER_MICRO_CREDIT)))
            }
            Stage::Settled(..) | Stage::Lost(..) => sum,
        })
    }
}

fn replayed() -> PayError {
    let message = "The payment was used before, or stands for a request that is under way. Each pays for one request: sign \
                   another, with a nonce of its own.";
    Refusal::new("invalid_exact_evm_nonce_already_used", message).into()
}

fn unchecked(failure: &AccountError) -> PayError {
    let message = format!(
        "The payment cannot be checked, because the ledger cannot be asked now: {}. Nothing was taken. Try again shortly with \
         the same payment.",
        failure.message,
    );
    PayError::Failed(ApiError::new(Code::LedgerUnavailable, message))
}
