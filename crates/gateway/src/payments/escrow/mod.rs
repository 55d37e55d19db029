//! Escrow: requests that are paid for by vouchers on channels to this gateway (x402's `batch-settlement`).
//!
//! In:     what payers signed; what receipts charge. Out: holds, each for one request; claims.
//! Touches: the escrow on the ledger, through the gateway's account; the channels in `payments.redb`.
//! Holds:  of one channel one request is served at a time, by a voucher for exactly what was charged before and what this may
//!         cost; the voucher is on the disk before anything is done for it, and so is what was charged before it is told. What
//!         is charged only grows, never exceeds what was signed nor what the ledger holds, and a ceiling pays once. What was
//!         told to somebody and has a receipt is charged, also after a restart.
//! Absent: payments by themselves (`payments`); the rules of the escrow (`chain`).
//!
//! Source: x402 specification v2, scheme `batch-settlement` on EVM networks.

mod claim;
mod deposit;
mod hold;
mod refund;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use alloy_primitives::{B256, U256};
use serde::{Deserialize, Serialize};
use surety_client::{
    Account, AccountError,
    channel::{ModuleCall, view},
    ledger::recover,
};
use surety_types::{
    ChannelDigests, WEI_PER_MICRO_CREDIT,
    abi::{IChannels, Module},
};
use tracing::{error, info};

use hold::Busy;
pub(super) use hold::Hold;
pub(crate) use refund::Refund;
use wire::{Config, Deposit, Kind, WITHDRAW_DELAY_S, WITHDRAW_DELAY_S_MIN};
pub(super) use wire::{Shown, read};

use super::{
    PayError, Sums,
    store::Store,
    unchecked,
    wire::{Payee, Refusal},
};
use crate::{
    error::{ApiError, Code},
    id::RequestId,
    keys,
};

/// Why a voucher does not pay, by x402's names where it has one.
pub(super) mod reason {
    pub(in crate::payments) const NETWORK: &str = "invalid_batch_settlement_evm_network_mismatch";
    pub(in crate::payments) const TOKEN: &str = "invalid_batch_settlement_evm_token_mismatch";
    pub(super) const PAYLOAD_TYPE: &str = "invalid_batch_settlement_evm_payload_type";
    pub(super) const RECEIVER: &str = "invalid_batch_settlement_evm_receiver_mismatch";
    pub(super) const RECEIVER_AUTHORIZER: &str = "invalid_batch_settlement_evm_receiver_authorizer_mismatch";
    pub(super) const WITHDRAW_DELAY: &str = "invalid_batch_settlement_evm_withdraw_delay_out_of_range";
    pub(super) const CHANNEL_ID: &str = "invalid_batch_settlement_evm_channel_id_mismatch";
    pub(in crate::payments) const AMOUNT: &str = "invalid_payment_requirements";
    pub(super) const VOUCHER_SIGNATURE: &str = "invalid_batch_settlement_evm_voucher_signature";
    pub(super) const BUSY: &str = "invalid_batch_settlement_evm_channel_busy";
    pub(super) const STALE: &str = "invalid_batch_settlement_evm_cumulative_amount_mismatch";
    /// x402 has no name for it.
    pub(super) const USED: &str = "invalid_batch_settlement_evm_voucher_already_used";
    pub(super) const UNFUNDED: &str = "invalid_batch_settlement_evm_channel_not_found";
    pub(super) const EXCEEDS: &str = "invalid_batch_settlement_evm_cumulative_exceeds_balance";
    pub(super) const DEPOSIT_AUTHORIZATION: &str =
        "invalid_batch_settlement_evm_erc3009_authorization_required";
    pub(super) const DEPOSIT_SIGNATURE: &str = "invalid_batch_settlement_evm_receive_authorization_signature";
    pub(super) const DEPOSIT_BEFORE: &str = "invalid_batch_settlement_evm_payload_authorization_valid_before";
    pub(super) const DEPOSIT_AFTER: &str = "invalid_batch_settlement_evm_payload_authorization_valid_after";
    pub(super) const DEPOSIT_USED: &str = "invalid_batch_settlement_evm_deposit_payload";
    pub(super) const DEPOSIT_FAILED: &str = "invalid_batch_settlement_evm_deposit_transaction_failed";
    pub(super) const BALANCE: &str = "invalid_batch_settlement_evm_insufficient_balance";
    pub(super) const REFUND_AMOUNT: &str = "invalid_batch_settlement_evm_refund_amount_invalid";
    pub(super) const REFUND_NOTHING: &str = "invalid_batch_settlement_evm_refund_no_balance";
    pub(super) const REFUND_FAILED: &str = "invalid_batch_settlement_evm_refund_transaction_failed";
}

/// Channels that are known at once.
const CHANNELS_MAX: usize = 100_000;
/// Ceilings of a channel that have paid and are not reached by what was charged; of more, those are forgotten that have the
/// least left.
const SPENT_MAX: usize = 1_024;

/// What is kept of a channel. Amounts in wei.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::payments) struct Row {
    config: Config,
    /// What receipts charged, all its life.
    charged: u128,
    /// The highest ceiling of a voucher that has paid, and its signature; zero and nothing: none.
    signed: u128,
    signature: Vec<u8>,
    /// As the ledger was last seen: paid in and not taken back, and what of it is claimed.
    balance: u128,
    claimed: u128,
    /// Unix seconds since when the payer is on its way out; zero: it is not.
    leaving_since: u64,
    /// Ceilings that have paid and are above what is charged.
    spent: BTreeSet<u128>,
    /// The request under way.
    held: Option<Held>,
}

/// What is kept of a request on a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    request: String,
    /// It is told as it comes.
    told: bool,
    ceiling: u128,
    signature: Vec<u8>,
    /// Wei that its receipts charged so far.
    charged: u128,
}

impl Row {
    fn new(config: Config, seen: &Seen) -> Row {
        Row {
            config,
            charged: seen.claimed,
            signed: 0,
            signature: Vec::new(),
            balance: seen.balance,
            claimed: seen.claimed,
            leaving_since: seen.leaving_since,
            spent: BTreeSet::new(),
            held: None,
        }
    }

    fn see(&mut self, seen: &Seen) {
        self.balance = seen.balance;
        self.claimed = seen.claimed;
        self.leaving_since = seen.leaving_since;
        // Nobody but this account claims; what it claimed was charged.
        self.charged = self.charged.max(seen.claimed);
    }

    /// Receipts of the request under way charge so much, all together, and never more than it was signed for.
    fn charge(&mut self, wei: u128) {
        let Some(held) = &mut self.held else { return };
        let more = wei.saturating_sub(held.charged).min(held.ceiling.saturating_sub(self.charged));
        held.charged += more;
        self.charged += more;
        if held.charged > 0 && held.ceiling > self.signed {
            self.signed = held.ceiling;
            self.signature.clone_from(&held.signature);
        }
    }

    /// The request under way has ended; what it was charged.
    fn end(&mut self) -> u128 {
        let Some(held) = self.held.take() else { return 0 };
        if held.charged > 0 {
            self.spent.insert(held.ceiling);
        }
        self.spent = self.spent.split_off(&self.charged.saturating_add(1));
        while self.spent.len() > SPENT_MAX {
            self.spent.pop_first();
        }
        held.charged
    }

    /// Nothing is in it, and nothing is owed.
    fn is_over(&self) -> bool {
        self.held.is_none() && self.charged <= self.claimed && self.balance <= self.claimed
    }
}

/// How the ledger says a channel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    now_s: u64,
    balance: u128,
    claimed: u128,
    /// Wei that its payer has asked back.
    leaving: u128,
    leaving_since: u64,
}

impl Seen {
    /// What vouchers may come to: what is not on its way out.
    fn covers(&self) -> u128 {
        self.balance.saturating_sub(self.leaving)
    }
}

/// The channels to a gateway.
#[derive(Debug)]
pub(super) struct Channels {
    account: Arc<dyn Account>,
    payee: Payee,
    digests: ChannelDigests,
    store: Store,
    state: Mutex<State>,
    /// Seconds that a payer's way out takes in channels that are asked for; zero: the ledger was not asked yet.
    delay_s: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<B256, Row>,
    /// Channels that something is done with.
    busy: BTreeSet<B256>,
    /// Wei that were claimed since the gateway began.
    settled: u128,
}

impl Channels {
    /// `answered` tells what a request was charged by the receipts that are kept, in micro-credits.
    pub(super) fn open(
        account: Arc<dyn Account>,
        payee: Payee,
        store: Store,
        kept: Vec<(B256, Row)>,
        answered: &dyn Fn(RequestId) -> Option<u128>,
    ) -> Channels {
        let mut rows = BTreeMap::new();
        for (id, mut row) in kept {
            if let Some(held) = row.held.as_ref() {
                let told = held.told && held.charged == 0;
                let charged = told.then(|| RequestId::parse(&held.request).and_then(answered)).flatten();
                if let Some(micro) = charged.filter(|micro| *micro > 0) {
                    info!(channel = %id, micro, "an answer from before the gateway was stopped is charged to its channel");
                    row.charge(wei(micro));
                }
                row.end();
                drop(store.keep_channel(id, Some(row.clone())));
            }
            rows.insert(id, row);
        }
        let digests = ChannelDigests::of_escrow(payee.chain_id);
        let state = State { rows, ..State::default() };
        Channels { account, payee, digests, store, state: Mutex::new(state), delay_s: AtomicU64::new(0) }
    }

    /// Seconds that a payer's way out takes in channels that are asked for.
    pub(super) async fn delay_s(&self) -> Result<u64, AccountError> {
        match self.delay_s.load(Ordering::Relaxed) {
            0 => self.ask_delay_s().await,
            known => Ok(known),
        }
    }

    /// The same, as the ledger's parameters are now.
    async fn ask_delay_s(&self) -> Result<u64, AccountError> {
        let params = self.account.params().await?;
        let delay_s = WITHDRAW_DELAY_S.clamp(params.channel_delay_min_s, params.channel_delay_max_s);
        self.delay_s.store(delay_s, Ordering::Relaxed);
        Ok(delay_s)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds how channels stand.
    pub(super) fn add_to(&self, sums: &mut Sums) {
        let state = self.lock();
        let add = |sum: &mut u128, wei: u128| *sum = sum.saturating_add(wei / WEI_PER_MICRO_CREDIT);
        add(&mut sums.settled, state.settled);
        for row in state.rows.values() {
            add(&mut sums.due, row.charged.saturating_sub(row.claimed));
            if let Some(held) = &row.held {
                add(&mut sums.held, held.ceiling.saturating_sub(row.charged));
            }
        }
    }

    /// How a channel stands on the ledger.
    async fn look(&self, id: &B256) -> Result<Seen, AccountError> {
        let now_s = self.account.moment().await?.timestamp_ms / 1_000;
        let channel = IChannels::channelsCall { channelId: *id };
        let channel = view(&*self.account, Module::Escrow, &channel).await?;
        let pending = IChannels::pendingWithdrawalsCall { channelId: *id };
        let pending = view(&*self.account, Module::Escrow, &pending).await?;
        Ok(Seen {
            now_s,
            balance: channel.balance,
            claimed: channel.totalClaimed,
            leaving: pending.amount,
            leaving_since: if pending.amount == 0 { 0 } else { pending.initiatedAt.to() },
        })
    }

    /// Begins something with a channel, which nobody else does at the time.
    fn enter(self: &Arc<Self>, id: B256) -> Result<Busy, Refusal> {
        match self.lock().busy.insert(id) {
            true => Ok(Busy::new(self, id)),
            false => {
                let message = "The channel is paying for another request. Each voucher stands upon what was charged before, so that \
                               a channel pays for one request at a time: wait for the other answer, or open one channel (`salt`) for \
                               each request that is to run at once.";
                Err(Refusal::new(reason::BUSY, message))
            }
        }
    }

    fn require_signed(&self, shown: &Shown) -> Result<(), Refusal> {
        let digest = self.digests.voucher(shown.id, shown.ceiling);
        let signature = <&[u8; 65]>::try_from(&shown.signature[..]).ok();
        let signer = shown.config.payer_authorizer;
        if !signer.is_zero() && signature.and_then(|signature| recover(&digest, signature)) == Some(signer) {
            return Ok(());
        }
        let message = format!(
            "The voucher is not signed by the channel's payer authorizer {signer} for this channel, chain and amount. A wallet \
             without a key of its own (a contract) cannot pay here.",
        );
        Err(Refusal::new(reason::VOUCHER_SIGNATURE, message))
    }

    /// Has a voucher stand for an answer that costs at least so many micro-credits; what it pays in is paid in first.
    /// `promised`: wei of the payer's balance that are promised otherwise. `told`: it is told as it comes.
    pub(super) async fn hold(
        self: &Arc<Self>,
        shown: Shown,
        least_micro: u128,
        promised: U256,
        request: RequestId,
        told: bool,
    ) -> Result<Hold, PayError> {
        if let Kind::Refund(_) = shown.kind {
            let message = "A refund pays for nothing. Ask for it by GET of the same address.";
            return Err(Refusal::new(reason::PAYLOAD_TYPE, message).into());
        }
        if shown.amount < wei(least_micro) {
            let message = format!(
                "The payment is of {} credits, and the request may cost {} at least. Pay what `accepts` asks for: only what \
                 the receipt charges is taken of it.",
                keys::credits(shown.amount / WEI_PER_MICRO_CREDIT),
                keys::credits(least_micro),
            );
            return Err(Refusal::new(reason::AMOUNT, message).into());
        }
        let delay_s = self.delay_s().await.map_err(|failure| unchecked(&failure))?;
        if shown.config.withdraw_delay_s < delay_s.min(WITHDRAW_DELAY_S_MIN) {
            let message = format!(
                "The channel's withdrawal delay of {} s is too short to claim within. Open one with {delay_s} s, as `accepts` says.",
                shown.config.withdraw_delay_s,
            );
            return Err(Refusal::new(reason::WITHDRAW_DELAY, message).into());
        }
        self.require_signed(&shown)?;
        // What is stale is told as such also while the channel is busy: the payer's client sets its book right by that.
        if let Some(row) = self.lock().rows.get(&shown.id) {
            fits(&shown, row)?;
        }
        let busy = self.enter(shown.id)?;
        let mut seen = self.look(&shown.id).await.map_err(|failure| unchecked(&failure))?;
        let mut known = self.known(&shown, &seen)?;
        known.see(&seen);
        let mut deposit = None;
        match &shown.kind {
            Kind::Deposit(signed) if !self.was_paid_in(&shown, signed).await? => {
                judge(&shown, &known, seen.covers().saturating_add(signed.amount))?;
                self.check_deposit(&shown, signed, &seen, promised).await?;
                let transaction = self.pay_in(&shown, signed).await?;
                deposit = Some((signed.amount, transaction));
                seen = self.look(&shown.id).await.map_err(|failure| unchecked(&failure))?;
            }
            Kind::Voucher | Kind::Deposit(_) | Kind::Refund(_) => {
                judge(&shown, &known, seen.covers())?;
            }
        }
        let kept = {
            let mut state = self.lock();
            let row = state.rows.entry(shown.id).or_insert(known);
            row.see(&seen);
            judge(&shown, row, seen.covers())?;
            row.held = Some(Held {
                request: request.to_string(),
                told,
                ceiling: shown.ceiling,
                signature: shown.signature.clone(),
                charged: 0,
            });
            self.store.keep_channel(shown.id, Some(row.clone()))
        };
        let hold = Hold::new(busy, &shown, deposit);
        if let Err(failure) = kept.outcome().await {
            error!(%failure, "a voucher cannot be kept");
            return Err(PayError::Failed(ApiError::bug("the voucher cannot be kept on its disk")));
        }
        Ok(hold)
    }

    /// What is kept of a channel, or what would be of one that is new.
    fn known(&self, shown: &Shown, seen: &Seen) -> Result<Row, PayError> {
        let mut state = self.lock();
        if let Some(row) = state.rows.get(&shown.id) {
            return Ok(row.clone());
        }
        if state.rows.len() >= CHANNELS_MAX {
            let State { rows, busy, .. } = &mut *state;
            rows.retain(|id, row| {
                let stays = busy.contains(id) || !row.is_over();
                if !stays {
                    drop(self.store.keep_channel(*id, None));
                }
                stays
            });
        }
        if state.rows.len() >= CHANNELS_MAX {
            let message = "The gateway has as many channels open as it can. Pay for each request by itself (`exact`); nothing was \
                           taken.";
            return Err(PayError::Failed(ApiError::new(Code::Overloaded, message)));
        }
        Ok(Row::new(shown.config.clone(), seen))
    }

    /// Sends calls, whether anybody waits for them or not; the last's transaction.
    async fn send(&self, calls: Vec<ModuleCall>) -> Result<B256, AccountError> {
        let account = Arc::clone(&self.account);
        let sent = tokio::spawn(async move { account.send_noted(calls).await });
        let noted = sent.await.map_err(|failure| AccountError {
            message: failure.to_string(),
            hint: "the gateway is stopping".to_owned(),
            refused: false,
        })??;
        Ok(noted.last().map_or(B256::ZERO, |noted| noted.hash))
    }
}

/// Whether a voucher stands upon what was charged before.
fn fits(shown: &Shown, row: &Row) -> Result<(), Refusal> {
    if row.charged.checked_add(shown.amount) == Some(shown.ceiling) {
        return Ok(());
    }
    let message = format!(
        "The voucher is for {} wei, and {} were charged on its channel before; with {} for this request that is another sum. After a \
         stream, or after something else has paid on the channel, a client's book is behind: `channelState` and `voucherState` in \
         `PAYMENT-REQUIRED` set it right.",
        shown.ceiling, row.charged, shown.amount,
    );
    Err(Refusal::new(reason::STALE, message).with_state(wire::corrective(&shown.id, row)))
}

/// Whether a voucher pays for a request, on a channel that stands like this and covers so much.
fn judge(shown: &Shown, row: &Row, covers: u128) -> Result<(), Refusal> {
    if covers <= row.claimed {
        let message =
            "The channel holds nothing, or its payer is on its way out. Deposit into it, or open another.";
        return Err(Refusal::new(reason::UNFUNDED, message));
    }
    fits(shown, row)?;
    if row.spent.contains(&shown.ceiling) {
        let message = "The voucher has paid for a request before. Each pays for one: ask for another number of tokens (`max_tokens`), \
                       so that another amount is signed.";
        return Err(Refusal::new(reason::USED, message));
    }
    if shown.ceiling > covers {
        let message = format!(
            "The voucher is for {} wei, and the channel holds {covers} that its payer has not asked back. Deposit more, or ask for \
             fewer tokens (`max_tokens`).",
            shown.ceiling,
        );
        return Err(Refusal::new(reason::EXCEEDS, message));
    }
    Ok(())
}

/// Micro-credits in wei.
fn wei(micro: u128) -> u128 {
    micro.saturating_mul(WEI_PER_MICRO_CREDIT)
}
