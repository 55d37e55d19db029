//! Payer: the gateway's money. Which workers the ledger lists and what they ask, channels to them, and the vouchers.
//!
//! In:     an account on the ledger; orders to be paid. Out: workers with their prices; purses; how things stand.
//! Touches: the ledger, through its account; `payer.redb`.
//! Holds:  no voucher promises more than was paid in, nor less than one before it, whatever happened in between: a mark above
//!         every promise is on the disk before it is signed, and after a crash the mark counts as spent. Every wei paid in
//!         is unspent, settled, written off or in flight.
//!         Where a worker accepted and gave no receipt, `claims` has it compensated.
//! Absent: when vouchers are due (`client`), what users are charged (`api`).

mod claims;
mod empty;
mod registry;
mod store;

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256};
use surety_client::{
    Account, AccountError, Purse, PurseError,
    channel::{ModuleCall, PayerBook, Ticket, view},
    ledger::Ledger,
};
use surety_types::{
    Amount, Channel, ChannelDigests, Digest, Price, Voucher, WEI_PER_MICRO_CREDIT,
    abi::{IChannels, Module},
    channel::cover_wei,
};
use tokio::{sync::Semaphore, time::sleep};
use tracing::{info, warn};

use crate::disk::{OpenStoreError, WriteError, Writer};
pub(crate) use claims::{ClaimsState, see_to};
pub(crate) use registry::{Listed, follow};
use store::{Row, Store};

/// A mark is this part of a deposit above what is promised, so that it seldom has to be written.
const MARKS_PER_DEPOSIT: u128 = 64;
/// Seconds that a withdrawal from a channel takes, where the ledger's bounds allow it.
const WITHDRAW_DELAY_S: u64 = 3600;
/// Channels, at most.
const CHANNELS_MAX: usize = 1024;
/// Deposits in one submission.
const DEPOSITS_MAX: usize = 32;
/// Questions of callers to the ledger at once.
const LOOKS_MAX: usize = 4;
/// For the last receipts of orders that were cancelled, when the gateway stops.
const LAST_RECEIPTS: Duration = Duration::from_secs(3);

/// How a gateway finds workers, and pays them.
#[derive(Debug, Clone)]
pub struct GatewayLedger {
    /// The account that pays, and signs vouchers. One process at a time uses it.
    pub account: Arc<dyn Account>,
    /// What pages about the ledger are computed from; none: there are no such pages.
    pub ledger: Option<Ledger>,
    /// Wei put into each channel, and topped up to when half is gone.
    pub deposit: U256,
    /// Micro-credits per million tokens: dearer offers are not taken.
    pub price_ceiling: Price,
}

/// The payer.
pub(crate) struct Payer {
    account: Arc<dyn Account>,
    digests: ChannelDigests,
    deposit: u128,
    ceiling: Price,
    store: Store,
    /// By operator.
    channels: Mutex<BTreeMap<Address, Arc<PayChannel>>>,
    standing: Mutex<Standing>,
    /// Acceptances without a receipt.
    claims: Mutex<store::Claims>,
    /// Refunds of convictions that were collected, in wei.
    collected: Mutex<u128>,
    /// Callers that ask the ledger something hold one.
    pub(crate) looks: Semaphore,
}

/// How the payer stands with the ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// The newest block it has seen.
    pub(crate) block: Option<u64>,
    /// When it was first seen.
    pub(crate) block_at: Option<Instant>,
    /// What does not go as it should, and what to do about it.
    pub(crate) problem: Option<(String, String)>,
    /// Workers that the ledger lists and this gateway cannot use, and why.
    pub(crate) ignored: Vec<(String, String)>,
}

/// A channel to an operator.
pub(crate) struct PayChannel {
    id: Digest,
    channel: Channel,
    book: Mutex<PayerBook>,
    mark: tokio::sync::Mutex<Mark>,
    /// Whether the ledger has said what it holds since this process began.
    seen: AtomicBool,
}

/// What is on the disk of a channel.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// No voucher signed so far promises more.
    wei: u128,
    /// Whether it was left in order, and nothing was signed since.
    in_order: bool,
}

/// What a channel holds, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelState {
    pub(crate) id: Digest,
    pub(crate) deposited: u128,
    pub(crate) settled: u128,
    pub(crate) written_off: u128,
    pub(crate) in_flight: u128,
    pub(crate) unspent: u128,
}

impl fmt::Debug for Payer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Payer").field("account", &self.account.address()).finish_non_exhaustive()
    }
}

impl fmt::Debug for PayChannel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PayChannel").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Payer {
    /// Opens the book in `data_dir`.
    pub(crate) fn open(
        ledger: GatewayLedger,
        data_dir: &Path,
    ) -> Result<(Arc<Payer>, Writer), OpenStoreError> {
        let (store, writer, rows, claims) = Store::open(data_dir)?;
        let channels = rows.into_iter().map(|(id, row)| {
            // After a crash all that may have been promised counts as spent.
            let written_off =
                if row.in_order { row.written_off } else { row.mark.saturating_sub(row.settled) };
            let channel = PayChannel {
                id,
                book: Mutex::new(PayerBook::new(0, row.settled, written_off, row.mark)),
                mark: tokio::sync::Mutex::new(Mark { wei: row.mark, in_order: row.in_order }),
                seen: AtomicBool::new(false),
                channel: row.channel,
            };
            (channel.channel.receiver, Arc::new(channel))
        });
        let payer = Payer {
            digests: ChannelDigests::new(ledger.account.chain_id()),
            account: ledger.account,
            deposit: u128::try_from(ledger.deposit).unwrap_or(u128::MAX),
            ceiling: ledger.price_ceiling,
            store,
            channels: Mutex::new(channels.collect()),
            standing: Mutex::default(),
            claims: Mutex::new(claims),
            collected: Mutex::default(),
            looks: Semaphore::new(LOOKS_MAX),
        };
        Ok((Arc::new(payer), writer))
    }

    pub(crate) fn account(&self) -> &dyn Account {
        &*self.account
    }

    /// Whether a price is one this gateway pays.
    pub(crate) fn accepts(&self, price: &Price) -> bool {
        price.within(&self.ceiling)
    }

    /// The channel to an operator, if it is open and has enough for an order of at most so many tokens to begin.
    pub(crate) fn channel(
        &self,
        operator: &Address,
        price: &Price,
        prompt_tokens: u32,
        output_tokens: u32,
    ) -> Option<Arc<PayChannel>> {
        let channel = Arc::clone(lock(&self.channels).get(operator)?);
        let worst = cover_wei(price, prompt_tokens, output_tokens)?;
        let unspent = lock(&channel.book).unspent();
        // What is worth a quarter of a deposit is begun all the same: seldom does an order cost its worst.
        (unspent > 0 && unspent >= worst.min(self.deposit / 4)).then_some(channel)
    }

    /// How the channel to an operator stands.
    pub(crate) fn state(&self, operator: &Address) -> Option<ChannelState> {
        lock(&self.channels).get(operator).map(|channel| channel.state())
    }

    pub(crate) fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// What pays for an order.
    pub(crate) fn purse(self: &Arc<Self>, channel: &Arc<PayChannel>, order: Digest) -> Box<dyn Purse> {
        let ticket = lock(&channel.book).open();
        Box::new(ChannelPurse {
            payer: Arc::clone(self),
            channel: Arc::clone(channel),
            order,
            ticket,
            ended: false,
        })
    }

    /// Opens channels to these operators, and tops up those that run low.
    async fn keep_up(&self, operators: &[Address]) -> Result<(), AccountError> {
        let unseen: Vec<Arc<PayChannel>> = {
            let channels = lock(&self.channels);
            let unseen = channels.values().filter(|channel| !channel.seen.load(Ordering::Relaxed));
            unseen.cloned().collect()
        };
        for channel in unseen {
            self.look(&channel).await?;
        }
        let mut deposits = Vec::new();
        for operator in operators {
            let known = lock(&self.channels).get(operator).cloned();
            let channel = match known {
                Some(channel) => channel,
                None if lock(&self.channels).len() >= CHANNELS_MAX => continue,
                None => self.make(*operator).await?,
            };
            let unspent = lock(&channel.book).unspent();
            if unspent < self.deposit.div_ceil(2) {
                deposits.push((channel, self.deposit - unspent));
            }
        }
        for batch in deposits.chunks(DEPOSITS_MAX) {
            let needed: u128 = batch.iter().map(|(_, wei)| *wei).sum();
            let balance = self.account.balance().await?;
            if balance <= U256::from(needed) {
                let account = self.account.address();
                return Err(AccountError {
                    message: format!(
                        "{account} has {balance} wei; {needed} are to go into channels, and gas is to be paid"
                    ),
                    hint: format!("send credits to {account}, or set a smaller deposit"),
                    refused: true,
                });
            }
            let call = |(channel, wei): &(Arc<PayChannel>, u128)| {
                let call = IChannels::depositCall {
                    config: channel.channel.config(),
                    amount: *wei,
                    collector: Address::ZERO,
                    collectorData: Vec::new().into(),
                };
                ModuleCall::paying(Module::Channels, &call, U256::from(*wei))
            };
            info!(channels = batch.len(), wei = needed, "a deposit is made");
            let sent = self.account.send(batch.iter().map(call).collect()).await;
            // Also where some of them failed, others may have landed.
            for (channel, _) in batch {
                self.look(channel).await?;
            }
            sent?;
        }
        Ok(())
    }

    /// A new channel to an operator, on the disk before money goes there.
    async fn make(&self, operator: Address) -> Result<Arc<PayChannel>, AccountError> {
        let params = self.account.params().await?;
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|_| AccountError {
            message: "the random source failed".to_owned(),
            hint: "see the system's log".to_owned(),
            refused: false,
        })?;
        let payer = self.account.address();
        let delay = WITHDRAW_DELAY_S.clamp(params.channel_delay_min_s, params.channel_delay_max_s);
        let channel = Channel {
            payer,
            payer_authorizer: payer,
            receiver: operator,
            receiver_authorizer: operator,
            token: Address::ZERO,
            withdraw_delay_s: delay,
            salt: Digest(salt),
        };
        let id = channel.id(&self.digests);
        let row = Row { channel: channel.clone(), mark: 0, settled: 0, written_off: 0, in_order: true };
        self.store.keep(id, row).await.map_err(unwritten)?;
        let channel = Arc::new(PayChannel {
            id,
            channel,
            book: Mutex::default(),
            mark: tokio::sync::Mutex::new(Mark { wei: 0, in_order: true }),
            seen: AtomicBool::new(true),
        });
        lock(&self.channels).insert(operator, Arc::clone(&channel));
        Ok(channel)
    }

    /// Learns from the ledger what a channel holds.
    async fn look(&self, channel: &PayChannel) -> Result<(), AccountError> {
        let call = IChannels::channelsCall { channelId: B256::from(channel.id.0) };
        let found = view(&*self.account, Module::Channels, &call).await?;
        lock(&channel.book).set_deposited(found.balance);
        channel.seen.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for the last receipts, and leaves the books in order: nothing that was not spent is lost.
    pub(crate) async fn stop(&self) {
        let channels: Vec<Arc<PayChannel>> = lock(&self.channels).values().cloned().collect();
        let quiet = async {
            while channels.iter().any(|channel| lock(&channel.book).orders() > 0) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_RECEIPTS, quiet).await;
        for channel in channels {
            let mut mark = channel.mark.lock().await;
            let row = {
                let book = lock(&channel.book);
                if book.orders() > 0 {
                    warn!(channel = %channel.id, "orders on a channel have not ended; their cover counts as spent");
                }
                let written_off = book.written_off() + book.in_flight();
                let (settled, mark) = (book.settled(), book.signed());
                Row { channel: channel.channel.clone(), mark, settled, written_off, in_order: true }
            };
            *mark = Mark { wei: row.mark, in_order: true };
            if let Err(error) = self.store.keep(channel.id, row).await {
                warn!(%error, "the payer's book was not left in order: the last mark counts as spent");
            }
        }
    }

    /// Sees that a mark above this promise is on the disk.
    async fn reserve(&self, channel: &PayChannel, promised: u128) -> Result<(), PurseError> {
        let mut mark = channel.mark.lock().await;
        if promised <= mark.wei && !mark.in_order {
            return Ok(());
        }
        let row = {
            let book = lock(&channel.book);
            // Whole micro-credits, as all that receipts charge.
            let step = (self.deposit / MARKS_PER_DEPOSIT).next_multiple_of(WEI_PER_MICRO_CREDIT);
            let mark = promised.saturating_add(step).min(book.deposited()).max(promised).max(mark.wei);
            let (settled, written_off) = (book.settled(), book.written_off());
            Row { channel: channel.channel.clone(), mark, settled, written_off, in_order: false }
        };
        let raised = row.mark;
        self.store.keep(channel.id, row).await.map_err(|failure| PurseError::Book(failure.to_string()))?;
        *mark = Mark { wei: raised, in_order: false };
        Ok(())
    }

    fn stand(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut lock(&self.standing));
    }
}

impl PayChannel {
    pub(crate) fn id(&self) -> Digest {
        self.id
    }

    pub(crate) fn state(&self) -> ChannelState {
        let book = lock(&self.book);
        ChannelState {
            id: self.id,
            deposited: book.deposited(),
            settled: book.settled(),
            written_off: book.written_off(),
            in_flight: book.in_flight(),
            unspent: book.unspent(),
        }
    }
}

/// One order's claim on a channel.
#[derive(Debug)]
struct ChannelPurse {
    payer: Arc<Payer>,
    channel: Arc<PayChannel>,
    order: Digest,
    ticket: Ticket,
    ended: bool,
}

impl Purse for ChannelPurse {
    fn channel(&self) -> &Channel {
        &self.channel.channel
    }

    fn cover(&mut self, wei: u128, output_tokens: u32) -> surety_client::channel::Signing<'_> {
        Box::pin(async move {
            let promised = lock(&self.channel.book).cover(self.ticket, wei)?;
            self.payer.reserve(&self.channel, promised).await?;
            let digest = self.payer.digests.voucher(B256::from(self.channel.id.0), promised);
            Ok(Voucher {
                channel: self.channel.channel.clone(),
                max_claimable: promised,
                signature: self.payer.account.sign(&digest),
                order: self.order,
                covered_output_tokens: output_tokens,
            })
        })
    }

    fn settle(mut self: Box<Self>, charge: Amount) {
        self.ended = true;
        lock(&self.channel.book).settle(self.ticket, charge.to_wei().unwrap_or(u128::MAX));
    }

    fn release(mut self: Box<Self>) {
        self.ended = true;
        lock(&self.channel.book).release(self.ticket);
    }
}

impl Drop for ChannelPurse {
    fn drop(&mut self) {
        if !self.ended {
            lock(&self.channel.book).write_off(self.ticket);
        }
    }
}

fn unwritten(failure: WriteError) -> AccountError {
    AccountError {
        message: format!("the payer's book cannot be written: {failure}"),
        hint: "see the disk and the system's log".to_owned(),
        refused: false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
