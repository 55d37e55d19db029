//! Paying: what a session needs to pay for its order by vouchers, and what both sides count alike.
//!
//! In:     the terms of an acceptance, the progress that a worker signs, the end of an order.
//! Out:    vouchers, each before it is needed.
//! Touches: the stream towards the worker; the purse.
//! Holds:  R-11: a voucher before the first token and after every signed progress; an order that ends without a receipt
//!         keeps its cover.
//! Absent: which channel (`gateway`), what the worker makes of vouchers (`worker`).

mod account;
mod book;
mod on_ledger;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
};

use surety_net::{CloseCode, SendError, Sender};
use surety_types::{Amount, Channel, Price, ToWorker, Voucher, channel::cover_wei};
use tokio::sync::watch;

pub use account::{Account, AccountError, ModuleCall, Moment, Noted, Wait, view};
pub use book::{Exhausted, PayerBook, Ticket};
pub use on_ledger::account_on;

/// Why nothing more can be promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurseError {
    /// The channel has not enough left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The price times the tokens is no amount.
    #[error("the price cannot be reckoned with")]
    Overflow,
    /// What is promised could not be kept, so it was not promised.
    #[error("the payer's book cannot be written: {0}")]
    Book(String),
    /// Nothing is to be paid: the order was only to be accepted.
    #[error("the order was only to be accepted")]
    Unwilling,
}

/// A future of a [`Purse`].
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<Voucher, PurseError>> + Send + 'a>>;

/// What pays for one order. Dropped without an end, its cover counts as spent: the worker may claim it.
pub trait Purse: fmt::Debug + Send {
    /// What pays.
    fn channel(&self) -> &Channel;

    /// A voucher that covers the order up to `wei`, of which it says that it is for `output_tokens` of output.
    fn cover(&mut self, wei: u128, output_tokens: u32) -> Signing<'_>;

    /// The order ended with a receipt.
    fn settle(self: Box<Self>, charge: Amount);

    /// The order ended with a signed failure, or was never sent: it costs nothing.
    fn release(self: Box<Self>);
}

/// What an order costs by its acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) price: Price,
    pub(crate) prompt_tokens: u32,
    pub(crate) max_output_tokens: u32,
}

/// How an order ended, to its payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paid {
    /// By a receipt.
    Charged(Amount),
    /// By a signed failure.
    Nothing,
    /// Without either.
    Unknown,
}

/// What the paying task is to do; each field only ever advances.
#[derive(Debug, Default)]
struct Due {
    terms: Option<Terms>,
    delivered: Option<u32>,
    cancelled: bool,
    end: Option<(Paid, CloseCode)>,
}

/// The stream towards a worker, with a purse beside it. Dropped, it breaks the stream off.
#[derive(Debug)]
pub(crate) struct Till {
    due: watch::Sender<Due>,
    problem: Arc<OnceLock<PurseError>>,
}

impl Till {
    /// Takes over a stream on which the order has been sent.
    pub(crate) fn open(sender: Sender<ToWorker>, purse: Box<dyn Purse>) -> Till {
        let (due, dues) = watch::channel(Due::default());
        let problem = Arc::new(OnceLock::new());
        tokio::spawn(pay(sender, purse, dues, Arc::clone(&problem)));
        Till { due, problem }
    }

    /// The worker has accepted: covers the prompt and the first tokens.
    pub(crate) fn accepted(&self, terms: Terms) {
        self.due.send_modify(|due| {
            due.terms = Some(terms);
            due.delivered = Some(0);
        });
    }

    /// The worker has signed for so many output tokens: covers the next.
    pub(crate) fn delivered(&self, output_tokens: u32) {
        self.due.send_modify(|due| due.delivered = due.delivered.max(Some(output_tokens)));
    }

    pub(crate) fn cancel(&self) {
        self.due.send_modify(|due| due.cancelled = true);
    }

    pub(crate) fn end(&self, paid: Paid, code: CloseCode) {
        self.due.send_modify(|due| {
            due.end.get_or_insert((paid, code));
        });
    }

    /// Why nothing more could be promised, if so.
    pub(crate) fn problem(&self) -> Option<&PurseError> {
        self.problem.get()
    }
}

/// Does what is due, until the order has ended or nobody cares any more.
async fn pay(
    mut sender: Sender<ToWorker>,
    mut purse: Box<dyn Purse>,
    mut dues: watch::Receiver<Due>,
    problem: Arc<OnceLock<PurseError>>,
) {
    let mut covered: Option<u32> = None;
    let mut cancel_sent = false;
    loop {
        let (terms, delivered, cancelled, end) = {
            let due = dues.borrow_and_update();
            (due.terms, due.delivered, due.cancelled, due.end)
        };
        if let Some((paid, code)) = end {
            match paid {
                Paid::Charged(charge) => purse.settle(charge),
                Paid::Nothing => purse.release(),
                // Dropped: what covers it is written off.
                Paid::Unknown => drop(purse),
            }
            return sender.reset(code);
        }
        let wanted = terms.zip(delivered).filter(|_| !cancelled && problem.get().is_none());
        if let Some((terms, delivered)) = wanted
            && terms.price != Price::ZERO
            && let Some(tokens) = due_cover(terms.max_output_tokens, delivered, covered)
        {
            match cover(&mut *purse, terms, tokens).await {
                Ok(voucher) => {
                    covered = Some(tokens);
                    if !sent(sender.send(&ToWorker::Voucher(Box::new(voucher))).await) {
                        return;
                    }
                }
                Err(error) => {
                    let _ = problem.set(error);
                }
            }
        }
        if (cancelled || problem.get().is_some()) && !cancel_sent {
            cancel_sent = true;
            if !sent(sender.send(&ToWorker::Cancel).await) {
                return;
            }
        }
        // Nobody holds the session any more: the stream is broken off.
        if dues.changed().await.is_err() && dues.borrow().end.is_none() {
            return sender.reset(CloseCode::Cancelled);
        }
    }
}

/// The output tokens that the next voucher covers, if it is due.
fn due_cover(max_output_tokens: u32, delivered: u32, covered: Option<u32>) -> Option<u32> {
    let tokens = surety_types::channel::covered_tokens(delivered, max_output_tokens);
    covered.is_none_or(|covered| tokens > covered).then_some(tokens)
}

async fn cover(purse: &mut dyn Purse, terms: Terms, tokens: u32) -> Result<Voucher, PurseError> {
    let wei = cover_wei(&terms.price, terms.prompt_tokens, tokens).ok_or(PurseError::Overflow)?;
    purse.cover(wei, tokens).await
}

/// Whether the stream still takes messages. If not, the session hears of it on its own direction.
fn sent(result: Result<(), SendError>) -> bool {
    match result {
        Ok(()) | Err(SendError::Stopped(_)) => true,
        Err(SendError::Lost(_) | SendError::Timeout | SendError::Ended) => false,
    }
}
