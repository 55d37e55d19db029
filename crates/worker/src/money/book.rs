//! The book of channels: what each promises, what was charged on it, and what orders under way may come to charge.
//!
//! In:     vouchers that were verified, the ledger's word on channels, charges. Out: what is covered, what may be claimed.
//! Touches: nothing. No I/O, no clock, no signatures.
//! Holds: : what is charged and the covers of the orders under way are never more than the highest voucher; an order
//!         charges at most its cover; what is charged is never forgotten before the ledger has counted it.
//! Absent: verifying (`till`), keeping (`store`), claiming (`duties`).

use std::collections::BTreeMap;

use surety_types::{Channel, Digest};

/// Channels kept, at most.
pub(crate) const CHANNELS_MAX: usize = 4096;

/// An order under way on a channel.
pub(crate) type Ticket = u64;

/// A channel, as the ledger has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OnChain {
    /// Wei paid in and not taken out.
    pub(crate) balance: u128,
    /// Wei claimed.
    pub(crate) claimed: u128,
    /// Whether its payer is leaving.
    pub(crate) withdrawing: bool,
}

/// What outlives the process, of one channel. Amounts are wei.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) channel: Channel,
    /// The highest voucher …
    pub(crate) highest: u128,
    /// … and its signature.
    pub(crate) signature: [u8; 65],
    /// What receipts charged.
    pub(crate) settled: u128,
}

/// A channel.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) row: Row,
    pub(crate) chain: OnChain,
    covers: BTreeMap<Ticket, u128>,
}

impl Entry {
    /// What can be claimed and has not been.
    pub(crate) fn unclaimed(&self) -> u128 {
        self.claimable().saturating_sub(self.chain.claimed)
    }

    /// What a claim may say is claimed altogether: what receipts charged, and no voucher exceeded.
    pub(crate) fn claimable(&self) -> u128 {
        self.row.settled.min(self.row.highest)
    }

    /// Orders under way.
    pub(crate) fn orders(&self) -> usize {
        self.covers.len()
    }

    fn needed(&self) -> u128 {
        self.row.settled + self.covers.values().sum::<u128>()
    }

    /// Nothing would be lost with it: all that was charged is claimed, and no order is under way.
    fn is_done(&self) -> bool {
        self.covers.is_empty() && self.row.settled <= self.chain.claimed
    }
}

/// A cover that the vouchers do not pay for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel's vouchers promise {highest} wei; {needed} are needed to cover its orders")]
pub(crate) struct Insufficient {
    pub(crate) needed: u128,
    pub(crate) highest: u128,
}

/// There are too many channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{CHANNELS_MAX} channels are in use here already")]
pub(crate) struct Full;

/// The book.
#[derive(Debug, Default)]
pub(crate) struct Book {
    channels: BTreeMap<Digest, Entry>,
    next_ticket: Ticket,
}

impl Book {
    /// The book as it was kept. What the ledger says is asked before a channel is used.
    pub(crate) fn restore(rows: impl IntoIterator<Item = (Digest, Row)>) -> Self {
        let entry = |row| Entry { row, chain: OnChain::default(), covers: BTreeMap::new() };
        Book { channels: rows.into_iter().map(|(id, row)| (id, entry(row))).collect(), next_ticket: 0 }
    }

    pub(crate) fn get(&self, id: &Digest) -> Option<&Entry> {
        self.channels.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Digest, &Entry)> {
        self.channels.iter()
    }

    /// A channel that was seen on the ledger. What was claimed of it before counts as charged. Returns what was given up for
    /// its room.
    pub(crate) fn add(
        &mut self,
        id: Digest,
        channel: Channel,
        chain: OnChain,
    ) -> Result<Option<Digest>, Full> {
        if self.channels.contains_key(&id) {
            self.refresh(&id, chain);
            return Ok(None);
        }
        let mut given_up = None;
        if self.channels.len() >= CHANNELS_MAX {
            let done = self.channels.iter().find(|(_, entry)| entry.is_done()).map(|(id, _)| *id);
            given_up = Some(done.ok_or(Full)?);
            self.channels.retain(|id, _| Some(*id) != given_up);
        }
        let row = Row { channel, highest: 0, signature: [0; 65], settled: chain.claimed };
        self.channels.insert(id, Entry { row, chain, covers: BTreeMap::new() });
        Ok(given_up)
    }

    /// What the ledger says now.
    pub(crate) fn refresh(&mut self, id: &Digest, chain: OnChain) {
        if let Some(entry) = self.channels.get_mut(id) {
            entry.chain = OnChain { claimed: chain.claimed.max(entry.chain.claimed), ..chain };
            // Claimed by whoever has the same keys: it was charged then.
            entry.row.settled = entry.row.settled.max(entry.chain.claimed);
        }
    }

    /// Forgets the channels that are empty on the ledger and owe nothing; returns which.
    pub(crate) fn forget_closed(&mut self) -> Vec<Digest> {
        let closed = |entry: &Entry| entry.is_done() && entry.chain.balance == entry.chain.claimed;
        let gone: Vec<Digest> =
            self.channels.iter().filter(|(_, entry)| closed(entry)).map(|(id, _)| *id).collect();
        self.channels.retain(|id, _| !gone.contains(id));
        gone
    }

    /// Notes a voucher whose signature was verified; whether it is the highest so far.
    pub(crate) fn promise(&mut self, id: &Digest, max_claimable: u128, signature: [u8; 65]) -> bool {
        let Some(entry) = self.channels.get_mut(id) else { return false };
        let higher = max_claimable > entry.row.highest;
        if higher {
            entry.row.highest = max_claimable;
            entry.row.signature = signature;
        }
        higher
    }

    /// A ticket for an order.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Covers an order up to `wei`, if the vouchers pay for that beside all else. A cover never shrinks.
    pub(crate) fn cover(&mut self, id: &Digest, ticket: Ticket, wei: u128) -> Result<(), Insufficient> {
        let Some(entry) = self.channels.get_mut(id) else {
            return Err(Insufficient { needed: wei, highest: 0 });
        };
        let before = entry.covers.get(&ticket).copied().unwrap_or(0);
        let (cover, highest) = (before.max(wei), entry.row.highest);
        let needed = entry.needed().saturating_sub(before).saturating_add(cover);
        if needed > highest {
            return Err(Insufficient { needed, highest });
        }
        entry.covers.insert(ticket, cover);
        Ok(())
    }

    /// An order ended with a charge, which is at most its cover; returns what is to be kept.
    pub(crate) fn charge(&mut self, id: &Digest, ticket: Ticket, wei: u128) -> Option<Row> {
        let entry = self.channels.get_mut(id)?;
        let cover = entry.covers.remove(&ticket).unwrap_or(0);
        entry.row.settled += wei.min(cover);
        Some(entry.row.clone())
    }

    /// A charge that could not be kept is not made.
    pub(crate) fn uncharge(&mut self, id: &Digest, wei: u128) {
        if let Some(entry) = self.channels.get_mut(id) {
            entry.row.settled -= wei.min(entry.row.settled);
        }
    }

    /// An order ended and charges nothing.
    pub(crate) fn release(&mut self, id: &Digest, ticket: Ticket) {
        if let Some(entry) = self.channels.get_mut(id) {
            entry.covers.remove(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Address;
    use proptest::prelude::*;

    use super::*;

    fn channel(salt: u8) -> Channel {
        let account = Address::repeat_byte(1);
        Channel {
            payer: account,
            payer_authorizer: account,
            receiver: account,
            receiver_authorizer: account,
            token: Address::ZERO,
            withdraw_delay_s: 900,
            salt: Digest([salt; 32]),
        }
    }

    const ID: Digest = Digest([7; 32]);

    fn book(balance: u128) -> Book {
        let mut book = Book::default();
        book.add(ID, channel(1), OnChain { balance, ..OnChain::default() }).unwrap();
        book
    }

    #[test]
    fn two_orders_share_what_is_promised() {
        let mut book = book(1_000);
        assert!(book.promise(&ID, 100, [1; 65]));
        let (one, two) = (book.ticket(), book.ticket());
        book.cover(&ID, one, 60).unwrap();
        assert_eq!(book.cover(&ID, two, 60), Err(Insufficient { needed: 120, highest: 100 }));
        assert!(book.promise(&ID, 120, [2; 65]));
        book.cover(&ID, two, 60).unwrap();
        assert!(!book.promise(&ID, 110, [3; 65]), "lower");
        assert_eq!(book.get(&ID).unwrap().row.signature, [2; 65]);
        assert_eq!(book.charge(&ID, one, 50).unwrap().settled, 50);
        book.release(&ID, two);
        assert_eq!((book.get(&ID).unwrap().claimable(), book.get(&ID).unwrap().unclaimed()), (50, 50));
    }

    #[test]
    fn a_channel_that_is_done_makes_room_and_comes_back_whole() {
        let mut book = Book::default();
        for number in 0..CHANNELS_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            book.add(Digest(id), channel(0), OnChain { balance: 9, claimed: 0, withdrawing: false }).unwrap();
            let ticket = book.ticket();
            book.promise(&Digest(id), 5, [1; 65]);
            book.cover(&Digest(id), ticket, 5).unwrap();
            book.charge(&Digest(id), ticket, 5);
        }
        assert_eq!(book.add(ID, channel(1), OnChain::default()), Err(Full));
        let first = Digest([0; 32]);
        book.refresh(&first, OnChain { balance: 9, claimed: 5, withdrawing: false });
        assert_eq!(book.add(ID, channel(1), OnChain::default()), Ok(Some(first)));
        book.forget_closed();
        assert_eq!(
            book.add(first, channel(0), OnChain { balance: 9, claimed: 5, withdrawing: false }),
            Ok(None)
        );
        assert_eq!((book.get(&first).unwrap().row.settled, book.get(&first).unwrap().unclaimed()), (5, 0));
    }

    #[derive(Debug, Clone)]
    enum Act {
        Promise(u64),
        Open,
        Cover(prop::sample::Index, u64),
        Charge(prop::sample::Index, u64),
        Release(prop::sample::Index),
        Claim,
        Crash,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let index = any::<prop::sample::Index>;
        let act = prop_oneof![
            (0u64..2_000).prop_map(Act::Promise),
            Just(Act::Open),
            (index(), 0u64..600).prop_map(|(at, wei)| Act::Cover(at, wei)),
            (index(), 0u64..600).prop_map(|(at, wei)| Act::Charge(at, wei)),
            index().prop_map(Act::Release),
            Just(Act::Claim),
            Just(Act::Crash),
        ];
        prop::collection::vec(act, 0..100)
    }

    proptest! {
        #[test]
        fn nothing_is_charged_above_its_cover_and_nothing_charged_is_lost(acts in acts()) {
            let mut book = book(u128::MAX);
            let mut open: Vec<(Ticket, u128)> = Vec::new();
            let mut charged = 0u128;
            let mut claimed = 0u128;
            let mut kept = book.get(&ID).unwrap().row.clone();
            for act in acts {
                match act {
                    Act::Promise(wei) => {
                        let before = book.get(&ID).unwrap().row.highest;
                        let higher = book.promise(&ID, wei.into(), [2; 65]);
                        prop_assert_eq!(higher, u128::from(wei) > before);
                    }
                    Act::Open => open.push((book.ticket(), 0)),
                    Act::Cover(at, wei) if !open.is_empty() => {
                        let at = at.index(open.len());
                        if book.cover(&ID, open[at].0, wei.into()).is_ok() {
                            open[at].1 = open[at].1.max(wei.into());
                        }
                    }
                    Act::Charge(at, wei) if !open.is_empty() => {
                        let (ticket, cover) = open.swap_remove(at.index(open.len()));
                        kept = book.charge(&ID, ticket, wei.into()).unwrap();
                        charged += u128::from(wei).min(cover);
                    }
                    Act::Release(at) if !open.is_empty() => {
                        book.release(&ID, open.swap_remove(at.index(open.len())).0);
                    }
                    Act::Claim => {
                        claimed = book.get(&ID).unwrap().claimable();
                        // The ledger takes it only with the voucher that was kept.
                        prop_assert!(claimed <= book.get(&ID).unwrap().row.highest);
                        book.refresh(&ID, OnChain { balance: u128::MAX, claimed, withdrawing: false });
                    }
                    Act::Crash => {
                        open.clear();
                        book = Book::restore([(ID, kept.clone())]);
                        book.refresh(&ID, OnChain { balance: u128::MAX, claimed, withdrawing: false });
                    }
                    _ => {}
                }
                let entry = book.get(&ID).unwrap();
                prop_assert_eq!(entry.row.settled, charged);
                prop_assert!(entry.needed() <= entry.row.highest);
                prop_assert_eq!(entry.claimable(), charged, "all of it can be claimed");
                prop_assert!(entry.orders() <= open.len());
            }
        }
    }
}
