//! The till: takes vouchers for orders, and sees that every charge and receipt is kept before it is told.
//!
//! In:     orders, vouchers, receipts. Out: what is covered; refusals, each by name.
//! Touches: the book and its store; the ledger, for channels it does not know or that look too poor.
//! Holds: : a voucher counts only if its channel pays this operator, is signed by its payer's authorizer, and is
//!         backed by what lies on the ledger; what does not count harms nobody.
//! Absent: prices in words for people, and what an unpaid order comes to (`serve`); claims (`duties`).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolCall as _;
use surety_client::{
    channel::{Account, AccountError, view},
    ledger::recover,
};
use surety_types::{
    Channel, ChannelDigests, Digest, FailureCode, Order, Price, Receipt, Signed, Voucher,
    abi::{IChannels, Module},
    channel::cover_wei,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    WorkerLedger,
    book::{Book, Full, Insufficient, OnChain, Ticket},
    store::{Case, Earned, Keeping, NotKept, Store},
};

/// A day.
pub(crate) const DAY_MS: u64 = 86_400_000;
/// For the ledger to say what a channel holds.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// A channel that looks too poor is looked at again at most so often.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Channels in one look.
const LOOK_CHANNELS: usize = 32;
/// Vouchers of one order that may be refused before it is broken off.
pub(crate) const REFUSED_MAX: u32 = 64;

/// Why a voucher does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VoucherRefused {
    #[error("it is for another order")]
    OtherOrder,
    #[error("it is on another channel than the order names")]
    OtherChannel,
    #[error("its channel pays {0}, not this operator")]
    OtherReceiver(Address),
    #[error("its channel is claimed by {0}, not by this operator")]
    OtherAuthorizer(Address),
    #[error("its channel is not in the native credit")]
    OtherToken,
    #[error("its channel's withdrawal takes {found} s; at least {least} are asked for")]
    DelayTooShort { found: u64, least: u64 },
    #[error("it is not signed by its channel's payer authorizer")]
    WrongSigner,
    #[error("it promises {promised} wei; the channel holds {balance} on the ledger")]
    Unbacked { promised: u128, balance: u128 },
    #[error("its channel is being withdrawn from")]
    Withdrawing,
    #[error("it promises no more than one before, and covers no more of the order")]
    Replayed,
    #[error(transparent)]
    Insufficient(#[from] Insufficient),
    #[error("the price cannot be reckoned with")]
    Overflow,
    #[error("{0}")]
    Full(#[from] Full),
    #[error("the ledger did not say what its channel holds ({0})")]
    Ledger(String),
}

/// What the sessions and the duties of a worker share about money.
pub(crate) struct Till {
    account: Arc<dyn Account>,
    digests: ChannelDigests,
    price: Price,
    batch_price: Price,
    delay_min_s: AtomicU64,
    shared: Mutex<Shared>,
    store: Store,
    /// One look at a time: at which channel the last was, and when.
    looking: tokio::sync::Mutex<Option<(Digest, Instant)>>,
    /// Rises when a charge was made.
    charged: watch::Sender<u64>,
}

struct Shared {
    book: Book,
    /// The ledger's, as of the last look.
    epoch: u64,
}

impl Till {
    pub(crate) fn new(ledger: &WorkerLedger, store: Store, book: Book) -> Self {
        Till {
            digests: ChannelDigests::new(ledger.account.chain_id()),
            account: Arc::clone(&ledger.account),
            price: ledger.price,
            batch_price: ledger.batch_price,
            delay_min_s: AtomicU64::new(0),
            shared: Mutex::new(Shared { book, epoch: 0 }),
            store,
            looking: tokio::sync::Mutex::default(),
            charged: watch::Sender::new(0),
        }
    }

    pub(crate) fn account(&self) -> &Arc<dyn Account> {
        &self.account
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn price(&self) -> Price {
        self.price
    }

    /// What is asked of orders that bid less, if less is asked of any.
    pub(crate) fn batch_price(&self) -> Option<Price> {
        let is_less = self.batch_price != self.price && self.batch_price.within(&self.price);
        (is_less && self.batch_price != Price::ZERO).then_some(self.batch_price)
    }

    /// What is asked of an order: the batch price, if it bids that and not the price.
    pub(crate) fn price_of(&self, order: &Order) -> Price {
        let bids_less = !self.price.within(&order.price_ceiling);
        let batch = self.batch_price().filter(|price| bids_less && price.within(&order.price_ceiling));
        batch.unwrap_or(self.price)
    }

    pub(crate) fn set_delay_min_s(&self, seconds: u64) {
        self.delay_min_s.store(seconds, Ordering::Relaxed);
    }

    /// Told of every charge.
    pub(crate) fn charges(&self) -> watch::Receiver<u64> {
        self.charged.subscribe()
    }

    /// From here on receipts belong to this epoch. Those handed over before are kept, in the earlier one, once this returns.
    pub(crate) async fn set_epoch(&self, epoch: u64) -> Result<(), NotKept> {
        let before = {
            let mut shared = self.shared();
            shared.epoch = shared.epoch.max(epoch);
            self.store.keep(None, None, None)
        };
        before.done().await
    }

    /// Looks into the book.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.shared().book)
    }

    /// Whether an order can be paid for; if something is to be paid, on which channel.
    pub(crate) fn channel_of(&self, order: &Order) -> Result<Option<Digest>, (FailureCode, String)> {
        if self.price == Price::ZERO {
            return Ok(None);
        }
        let required = |message: String| Err((FailureCode::PaymentRequired, message));
        let Price { prompt, cached, output } = self.price;
        let asked = format!(
            "this worker asks {prompt} micro-credits per million prompt tokens, {cached} cached, {output} output"
        );
        if !self.price_of(order).within(&order.price_ceiling) {
            return required(format!(
                "{asked}; the order's price ceiling is lower: raise it, or ask another worker"
            ));
        }
        let Some(channel) = order.channel else {
            let operator = self.account.address();
            return required(format!(
                "{asked}; the order names no channel: open one to {operator} on the ledger, name it in the order and send vouchers"
            ));
        };
        let withdrawing = self.read(|book| book.get(&channel).is_some_and(|entry| entry.chain.withdrawing));
        if withdrawing {
            return required(format!("{asked}; channel {channel} is being withdrawn from: open another"));
        }
        Ok(Some(channel))
    }

    /// An order that was accepted, and pays on a channel.
    pub(crate) fn open(
        self: &Arc<Self>,
        order: Digest,
        price: Price,
        channel: Digest,
        prompt_tokens: u32,
    ) -> Tab {
        let ticket = self.shared().book.ticket();
        Tab {
            till: Arc::clone(self),
            order,
            price,
            channel,
            prompt_tokens,
            ticket,
            covered: watch::Sender::new(None),
            last_refused: Mutex::new(None),
            open: Mutex::new(true),
        }
    }

    /// Keeps what an audit of a receipt needs. Whatever is kept next is on the disk no earlier.
    pub(crate) fn keep_case(&self, receipt: Digest, case: Case) {
        let epoch = self.shared().epoch;
        self.store.keep_case(epoch, receipt, case);
    }

    /// Keeps a receipt that charges nothing.
    pub(crate) async fn log(&self, receipt: &Signed<Receipt>) -> Result<(), NotKept> {
        let keeping = {
            let shared = self.shared();
            self.store.keep(None, Some((shared.epoch, receipt.digest())), None)
        };
        keeping.done().await
    }

    /// Asks the ledger about channels that are known, and notes what it says.
    pub(crate) async fn refresh(&self, ids: &[Digest]) -> Result<(), AccountError> {
        for page in ids.chunks(LOOK_CHANNELS) {
            let found = look(&*self.account, page).await?;
            let mut shared = self.shared();
            for (id, chain) in page.iter().zip(found) {
                shared.book.refresh(id, chain);
            }
        }
        Ok(())
    }

    /// Forgets channels that are closed and owe nothing.
    pub(crate) fn forget_closed(&self) {
        let gone = self.shared().book.forget_closed();
        self.store.forget(gone);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// what can be told of a channel without the ledger.
    fn check_channel(&self, channel: &Channel) -> Result<(), VoucherRefused> {
        let operator = self.account.address();
        if channel.receiver != operator {
            return Err(VoucherRefused::OtherReceiver(channel.receiver));
        }
        if channel.receiver_authorizer != operator {
            return Err(VoucherRefused::OtherAuthorizer(channel.receiver_authorizer));
        }
        if !channel.token.is_zero() {
            return Err(VoucherRefused::OtherToken);
        }
        let least = self.delay_min_s.load(Ordering::Relaxed);
        if channel.withdraw_delay_s < least {
            return Err(VoucherRefused::DelayTooShort { found: channel.withdraw_delay_s, least });
        }
        Ok(())
    }

    /// Sees that the ledger backs a promise: at once if it is known to, else by looking.
    async fn check_backing(
        &self,
        id: Digest,
        channel: &Channel,
        promised: u128,
    ) -> Result<(), VoucherRefused> {
        let backing = |till: &Till| {
            till.read(|book| match book.get(&id).map(|entry| entry.chain) {
                None => None,
                Some(chain) if chain.withdrawing => Some(Err(VoucherRefused::Withdrawing)),
                Some(OnChain { balance, .. }) if balance < promised => {
                    Some(Err(VoucherRefused::Unbacked { promised, balance }))
                }
                Some(_) => Some(Ok(())),
            })
        };
        let asked = Instant::now();
        if let Some(Ok(())) = backing(self) {
            return Ok(());
        }
        let mut looked = self.looking.lock().await;
        loop {
            match backing(self) {
                Some(Ok(())) => return Ok(()),
                // Another has looked meanwhile, and it was not enough.
                Some(refused) if looked.is_some_and(|(of, at)| of == id && at > asked) => return refused,
                _ => {}
            }
            let last = looked.filter(|(of, _)| *of == id);
            let Some(early) = last.and_then(|(_, at)| LOOK_INTERVAL.checked_sub(at.elapsed())) else { break };
            drop(looked);
            sleep(early).await;
            looked = self.looking.lock().await;
        }
        let found = match timeout(LOOK_TIMEOUT, look(&*self.account, &[id])).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(VoucherRefused::Ledger(error.message)),
            Err(_) => return Err(VoucherRefused::Ledger("no answer in time".to_owned())),
        };
        *looked = Some((id, Instant::now()));
        let Some(&chain) = found.first() else { return Err(VoucherRefused::Ledger("nothing".to_owned())) };
        let known = self.read(|book| book.get(&id).is_some());
        if !known && (chain.balance < promised || chain.withdrawing) {
            // A stranger's channel takes no room.
            return Err(if chain.withdrawing {
                VoucherRefused::Withdrawing
            } else {
                VoucherRefused::Unbacked { promised, balance: chain.balance }
            });
        }
        let given_up = self.shared().book.add(id, channel.clone(), chain)?;
        self.store.forget(given_up.into_iter().collect());
        backing(self).unwrap_or(Ok(()))
    }
}

/// What the ledger says about channels.
async fn look(account: &dyn Account, ids: &[Digest]) -> Result<Vec<OnChain>, AccountError> {
    let data = ids.iter().flat_map(|id| {
        let id = B256::from(id.0);
        [
            IChannels::channelsCall { channelId: id }.abi_encode().into(),
            IChannels::pendingWithdrawalsCall { channelId: id }.abi_encode().into(),
        ]
    });
    let results = view(account, Module::Channels, &IChannels::multicallCall { data: data.collect() }).await?;
    let unreadable = |_| AccountError {
        message: "what the ledger returns about a channel cannot be read".to_owned(),
        hint: "this software and the ledger are of different versions".to_owned(),
        refused: true,
    };
    let mut found = Vec::with_capacity(ids.len());
    for pair in results.chunks_exact(2) {
        let channel = IChannels::channelsCall::abi_decode_returns(&pair[0]).map_err(unreadable)?;
        let pending = IChannels::pendingWithdrawalsCall::abi_decode_returns(&pair[1]).map_err(unreadable)?;
        found.push(OnChain {
            balance: channel.balance,
            claimed: channel.totalClaimed,
            withdrawing: pending.amount > 0,
        });
    }
    Ok(found)
}

/// One order's place on a channel. Dropped without an end, it charges nothing.
pub(crate) struct Tab {
    till: Arc<Till>,
    order: Digest,
    price: Price,
    channel: Digest,
    prompt_tokens: u32,
    ticket: Ticket,
    /// Output tokens that are paid for; none while not even the prompt is.
    covered: watch::Sender<Option<u32>>,
    last_refused: Mutex<Option<VoucherRefused>>,
    open: Mutex<bool>,
}

impl Tab {
    /// Output tokens that are paid for, as they become more.
    pub(crate) fn covered(&self) -> watch::Receiver<Option<u32>> {
        self.covered.subscribe()
    }

    /// Why the last voucher that did not count did not.
    pub(crate) fn last_refused(&self) -> Option<VoucherRefused> {
        self.last_refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a voucher.
    pub(crate) async fn take(&self, voucher: &Voucher) -> Result<(), VoucherRefused> {
        let taken = self.try_take(voucher).await;
        if let Err(refused) = &taken {
            *self.last_refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused.clone());
        }
        taken
    }

    async fn try_take(&self, voucher: &Voucher) -> Result<(), VoucherRefused> {
        if voucher.order != self.order {
            return Err(VoucherRefused::OtherOrder);
        }
        let till = &*self.till;
        if voucher.channel.id(&till.digests) != self.channel {
            return Err(VoucherRefused::OtherChannel);
        }
        till.check_channel(&voucher.channel)?;
        let digest = till.digests.voucher(B256::from(self.channel.0), voucher.max_claimable);
        if recover(&digest, &voucher.signature) != Some(voucher.channel.payer_authorizer) {
            return Err(VoucherRefused::WrongSigner);
        }
        till.check_backing(self.channel, &voucher.channel, voucher.max_claimable).await?;
        let tokens = voucher.covered_output_tokens;
        let wei = cover_wei(&self.price, self.prompt_tokens, tokens).ok_or(VoucherRefused::Overflow)?;
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shared = till.shared();
        let higher = shared.book.promise(&self.channel, voucher.max_claimable, voucher.signature);
        let more = self.covered.borrow().is_none_or(|covered| tokens > covered);
        if !*open || !more {
            // The order may be over; what was promised still counts for others.
            return if higher { Ok(()) } else { Err(VoucherRefused::Replayed) };
        }
        shared.book.cover(&self.channel, self.ticket, wei)?;
        drop(shared);
        self.covered.send_replace(Some(tokens));
        Ok(())
    }

    /// The order has ended with this receipt: returns when its charge and its leaf are on the disk. If they cannot be, nothing
    /// is charged.
    pub(crate) async fn close(&self, receipt: &Signed<Receipt>) -> Result<(), NotKept> {
        let wei = receipt.charge.to_wei().unwrap_or(0);
        let keeping: Keeping = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let mut shared = self.till.shared();
            let row = if receipt.failure().is_some() {
                shared.book.release(&self.channel, self.ticket);
                None
            } else {
                shared.book.charge(&self.channel, self.ticket, wei)
            };
            *open = false;
            let leaf = (shared.epoch, receipt.digest());
            let earned = row.is_some().then(|| Earned {
                day: receipt.done_ms / DAY_MS,
                model: receipt.model,
                orders: 1,
                prompt_tokens: receipt.prompt_tokens.into(),
                output_tokens: receipt.output_tokens.into(),
                wei,
            });
            self.till.store.keep(row.map(|row| (self.channel, row)), Some(leaf), earned)
        };
        let kept = keeping.done().await;
        match &kept {
            Ok(()) => self.till.charged.send_modify(|count| *count += 1),
            Err(_) if receipt.failure().is_none() => self.till.shared().book.uncharge(&self.channel, wei),
            Err(_) => {}
        }
        kept
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        let open = *self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open {
            self.till.shared().book.release(&self.channel, self.ticket);
        }
    }
}
