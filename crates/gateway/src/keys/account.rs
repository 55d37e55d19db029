//! Account: what a key may still spend.
//!
//! In:     amounts to set aside, to give back, to charge. Out: whether there is enough.
//! Touches: nothing.
//! Holds:  used and reserved are together never above the budget and what was bought, whatever comes in which order, as long as nothing is
//!         charged that was not reserved; every amount set aside is charged or given back once.
//! Absent: who holds what (`hold`), the disk (`store`).

/// An account, in micro-credits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) budget: Option<u128>,
    /// Paid in, beside the budget; of no consequence where nothing bounds it.
    pub(crate) bought: u128,
    pub(crate) used: u128,
    pub(crate) reserved: u128,
}

/// There is not enough left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short {
    pub(crate) needed: u128,
    pub(crate) left: u128,
}

impl Account {
    /// All that may ever be spent; none if nothing bounds it.
    pub(crate) fn all(&self) -> Option<u128> {
        self.budget.map(|budget| budget.saturating_add(self.bought))
    }

    /// Neither used nor reserved; none if nothing bounds it.
    pub(crate) fn left(&self) -> Option<u128> {
        self.all().map(|all| all.saturating_sub(self.used).saturating_sub(self.reserved))
    }

    /// Adds what was paid in.
    pub(crate) fn buy(&mut self, amount: u128) {
        self.bought = self.bought.saturating_add(amount);
    }

    /// Sets an amount aside.
    pub(crate) fn reserve(&mut self, amount: u128) -> Result<(), Short> {
        match self.left() {
            Some(left) if left < amount => return Err(Short { needed: amount, left }),
            _ => {}
        }
        let reserved = self.reserved.checked_add(amount);
        self.reserved = reserved.ok_or(Short { needed: amount, left: u128::MAX - self.reserved })?;
        Ok(())
    }

    /// Gives back what was set aside.
    pub(crate) fn release(&mut self, amount: u128) {
        assert!(amount <= self.reserved, "more is given back than was set aside");
        self.reserved -= amount;
    }

    /// Charges; what was set aside for it is given back first.
    pub(crate) fn charge(&mut self, amount: u128) {
        self.used = self.used.saturating_add(amount);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_is_overspent_lost_or_doubled(
            budget in prop::option::of(0u128..1000),
            steps in prop::collection::vec((0u8..5, 0u128..200, 0usize..8), 0..200),
        ) {
            let mut account = Account { budget, ..Account::default() };
            let (mut held, mut charged): (Vec<u128>, u128) = (Vec::new(), 0);
            let mut bought = 0;
            for (kind, amount, which) in steps {
                if kind == 0 {
                    account.buy(amount);
                    bought += amount;
                } else if kind < 3 {
                    let before = account;
                    match account.reserve(amount) {
                        Ok(()) => held.push(amount),
                        Err(short) => {
                            prop_assert_eq!(account, before);
                            prop_assert!(short.needed == amount && short.left < amount);
                        }
                    }
                } else if which < held.len() {
                    let reserved = held.swap_remove(which);
                    let charge = amount.min(reserved);
                    account.release(reserved);
                    account.charge(charge);
                    charged += charge;
                }
                prop_assert_eq!(account.used, charged);
                prop_assert_eq!(account.reserved, held.iter().sum::<u128>());
                // Granted and bought is charged, set aside or left: nothing else.
                if let Some(budget) = budget {
                    let left = account.left().expect("it is bounded");
                    prop_assert_eq!(budget + bought, charged + account.reserved + left);
                }
            }
        }
    }
}
