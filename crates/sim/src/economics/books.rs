//! Books: who has how much.
//!
//! In:     amounts with which accounts are opened; movements.
//! Out:    balances.
//! Touches: itself.
//! Holds:  an account never has less than nothing; all together they have what they were opened with ([`Books::conserved`]
//!         counts them).

use super::Gwei;

/// One account of the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account(u32);

/// Every account.
#[derive(Debug, Clone, Default)]
pub struct Books {
    balances: Vec<Gwei>,
    opened_with: Gwei,
}

impl Books {
    /// A new account that has so much from the beginning.
    pub fn open(&mut self, amount: Gwei) -> Account {
        self.balances.push(amount);
        self.opened_with += amount;
        Account(self.balances.len() as u32 - 1)
    }

    /// What an account has.
    #[must_use]
    pub fn balance(&self, account: Account) -> Gwei {
        self.balances[account.0 as usize]
    }

    /// Moves an amount, or all there is if that is less; returns what was moved.
    pub fn pay(&mut self, from: Account, to: Account, amount: Gwei) -> Gwei {
        let moved = amount.min(self.balance(from));
        self.balances[from.0 as usize] -= moved;
        self.balances[to.0 as usize] += moved;
        moved
    }

    /// What was opened with, and what is there; equal unless money appeared or vanished.
    #[must_use]
    pub fn conserved(&self) -> (Gwei, Gwei) {
        (self.opened_with, self.balances.iter().sum())
    }

    /// Money from nowhere, for the test of the checker.
    #[cfg(test)]
    pub(super) fn forge(&mut self, account: Account, amount: Gwei) {
        self.balances[account.0 as usize] += amount;
    }
}
