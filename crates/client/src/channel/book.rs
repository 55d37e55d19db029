//! The payer's book of one channel: what was paid in, what is owed, what running orders may still come to cost.
//!
//! In:     deposits; covers of orders; their receipts' charges. Out: how much the next voucher must promise.
//! Touches: nothing. No I/O, no clock.
//! Holds: : what is promised is the settled and the covers of the orders under way, never more than was paid in, and
//!         never less than what the worker can be owed; every wei paid in is unspent, settled, written off or in flight.
//! Absent: signing, keeping (`gateway`).

use std::collections::BTreeMap;

/// An order on a channel, by a number of its own.
pub type Ticket = u64;

/// The channel has not enough left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel has {unspent} wei left, and {wanted} more are needed")]
pub struct Exhausted {
    /// What is neither spent nor covers an order.
    pub unspent: u128,
    /// What the order needs in addition.
    pub wanted: u128,
}

/// The payer's book of one channel. All amounts are wei.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PayerBook {
    deposited: u128,
    settled: u128,
    written_off: u128,
    /// The most that a voucher promised: no later one promises less.
    signed: u128,
    covers: BTreeMap<Ticket, u128>,
    next_ticket: Ticket,
}

impl PayerBook {
    /// A channel as it was left: what was paid in, what receipts charged, what was promised for orders that gave none, and
    /// what the highest voucher promised.
    pub fn new(deposited: u128, settled: u128, written_off: u128, signed: u128) -> Self {
        PayerBook { deposited, settled, written_off, signed, ..Self::default() }
    }

    /// What is paid in altogether; it never falls.
    pub fn set_deposited(&mut self, deposited: u128) {
        self.deposited = self.deposited.max(deposited);
    }

    /// Paid in.
    pub fn deposited(&self) -> u128 {
        self.deposited
    }

    /// Charged by receipts.
    pub fn settled(&self) -> u128 {
        self.settled
    }

    /// Promised for orders that ended without a receipt: it may be claimed, or it may not.
    pub fn written_off(&self) -> u128 {
        self.written_off
    }

    /// Promised for orders under way.
    pub fn in_flight(&self) -> u128 {
        self.covers.values().sum()
    }

    /// Free for orders.
    pub fn unspent(&self) -> u128 {
        self.deposited.saturating_sub(self.promised())
    }

    /// What the highest voucher so far promised.
    pub fn signed(&self) -> u128 {
        self.signed
    }

    /// What is owed or may come to be: everything settled, written off and in flight.
    pub fn promised(&self) -> u128 {
        self.settled + self.written_off + self.in_flight()
    }

    /// Orders under way.
    pub fn orders(&self) -> usize {
        self.covers.len()
    }

    /// An order begins, with nothing covered.
    pub fn open(&mut self) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.covers.insert(ticket, 0);
        ticket
    }

    /// Covers an order up to `wei`, if that is more than before; returns what a voucher promises: what may be owed, and
    /// never less than one before it.
    ///
    /// # Errors
    /// `Exhausted`, and nothing is changed, if the channel has not enough.
    pub fn cover(&mut self, ticket: Ticket, wei: u128) -> Result<u128, Exhausted> {
        let unspent = self.unspent();
        let Some(cover) = self.covers.get_mut(&ticket) else { return Ok(self.signed) };
        let wanted = wei.saturating_sub(*cover);
        if wanted > unspent {
            return Err(Exhausted { unspent, wanted });
        }
        *cover += wanted;
        self.signed = self.signed.max(self.promised());
        Ok(self.signed)
    }

    /// An order ended with a receipt. More than was covered is not owed.
    pub fn settle(&mut self, ticket: Ticket, charge: u128) {
        if let Some(cover) = self.covers.remove(&ticket) {
            self.settled += charge.min(cover);
        }
    }

    /// An order ended with a signed failure, which charges nothing.
    pub fn release(&mut self, ticket: Ticket) {
        self.covers.remove(&ticket);
    }

    /// An order ended without a word: what covered it may be claimed, so it is counted as if it were.
    pub fn write_off(&mut self, ticket: Ticket) {
        if let Some(cover) = self.covers.remove(&ticket) {
            self.written_off += cover;
        }
    }
}
