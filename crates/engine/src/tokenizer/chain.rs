//! Merging neighbours, best pair first: what BPE and SentencePiece have in common.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Which neighbours may be merged, and into what.
pub(super) trait Merging {
    /// What a chain is made of.
    type Symbol: Copy;

    /// The rank of a pair; lower ranks are merged first. Below `u32::MAX`; none if the pair is not to be merged.
    fn rank(&self, left: Self::Symbol, right: Self::Symbol) -> Option<u32>;

    /// What a pair of this rank becomes.
    fn join(&self, rank: u32, left: Self::Symbol, right: Self::Symbol) -> Self::Symbol;
}

/// A chain of symbols. Its memory is kept from one use to the next.
pub(super) struct Chain<S> {
    links: Vec<Link<S>>,
    /// Pairs that may be merged, as they were when they were found: rank in the high half, place of the left
    /// symbol in the low half. One is stale once the link at that place has another rank.
    candidates: BinaryHeap<Reverse<u64>>,
}

#[derive(Clone, Copy)]
struct Link<S> {
    symbol: S,
    previous: u32,
    next: u32,
    /// The rank of this symbol and the next, `NONE` if they are not to be merged or this symbol is gone.
    rank: u32,
}

/// No neighbour, no rank.
const NONE: u32 = u32::MAX;

impl<S: Copy> Chain<S> {
    pub(super) fn new() -> Self {
        Self { links: Vec::new(), candidates: BinaryHeap::new() }
    }

    /// Merges until no pair is left to merge: always the pair of the lowest rank, the leftmost of equal ones.
    /// n symbols cost O(n log n).
    ///
    /// Panics if there are 2³² symbols or more.
    pub(super) fn merge(&mut self, rules: &impl Merging<Symbol = S>, symbols: impl Iterator<Item = S>) {
        self.links.clear();
        for symbol in symbols {
            let place = u32::try_from(self.links.len()).expect("a chain has fewer than 2^32 symbols");
            let previous = place.checked_sub(1).unwrap_or(NONE);
            self.links.push(Link { symbol, previous, next: place + 1, rank: NONE });
        }
        if let Some(last) = self.links.last_mut() {
            last.next = NONE;
        }
        self.candidates.clear();
        for place in 1..self.links.len() as u32 {
            self.propose(rules, place - 1);
        }
        while let Some(Reverse(candidate)) = self.candidates.pop() {
            let (rank, place) = ((candidate >> 32) as u32, candidate as u32);
            let left = self.links[place as usize];
            if left.rank != rank {
                continue;
            }
            let right = self.links[left.next as usize];
            self.links[left.next as usize].rank = NONE;
            let symbol = rules.join(rank, left.symbol, right.symbol);
            self.links[place as usize] = Link { symbol, next: right.next, ..left };
            if right.next != NONE {
                self.links[right.next as usize].previous = place;
            }
            self.propose(rules, place);
            if left.previous != NONE {
                self.propose(rules, left.previous);
            }
        }
    }

    /// Ranks the symbol at `place` with its right neighbour anew.
    fn propose(&mut self, rules: &impl Merging<Symbol = S>, place: u32) {
        let left = self.links[place as usize];
        let right = self.links.get(left.next as usize);
        let rank = right.and_then(|right| rules.rank(left.symbol, right.symbol));
        self.links[place as usize].rank = rank.unwrap_or(NONE);
        if let Some(rank) = rank {
            self.candidates.push(Reverse(u64::from(rank) << 32 | u64::from(place)));
        }
    }

    /// The symbols, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = S> {
        let mut next = 0;
        std::iter::from_fn(move || {
            // `NONE` lies beyond every chain.
            let link = self.links.get(next as usize)?;
            next = link.next;
            Some(link.symbol)
        })
    }
}
