//! Accounts: what an address is, and what it has.
//!
//! In:     an address. Out: whether a module, an operator, a validator or a contract is there; balances, bonds.
//! Touches: the network, through the ledger.
//! Holds:  everything is proven, as of one block.
//! Absent: its transactions: a node finds one by its hash, and none by account.

use alloy_primitives::Address;
use serde::Serialize;
use surety_chain::AccountState;
use surety_types::abi::{
    IOperators, IStaking, Module,
    address::{OPERATORS, STAKING},
};

use super::super::{Ledger, LedgerError, Viewed};

/// What is at an address. Amounts are wei, as decimal text.
#[derive(Clone, Debug, Serialize)]
pub struct AccountView {
    /// The block it is as of.
    pub number: u64,
    /// With its checksum (EIP-55).
    pub address: String,
    /// The module that is there.
    pub module: Option<&'static str>,
    /// Of the code that is there; null of an account without code.
    pub code_hash: Option<String>,
    /// Transactions it has sent.
    pub nonce: u64,
    /// What it has.
    pub balance: String,
    /// What it has bonded, to itself or others: its weight in votes.
    pub bonded: String,
    /// What genesis gave it.
    pub given: Option<String>,
    /// Why.
    pub given_why: Option<String>,
    /// If it runs workers.
    pub operator: Option<OperatorView>,
    /// If it stands, or stood, as a validator.
    pub validator: Option<ValidatorView>,
}

/// Who runs workers.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorView {
    /// As it calls itself.
    pub name: String,
    /// Its page, as it says.
    pub url: String,
    /// The block in which it registered.
    pub registered: u64,
    /// Keys it has added.
    pub workers: u64,
    /// Models it offers.
    pub offers: u64,
    /// Bonded to it by everyone: what it answers with.
    pub bonded_to: String,
}

/// Who votes on blocks, or did.
#[derive(Clone, Debug, Serialize)]
pub struct ValidatorView {
    /// The key it votes with; null if it does not stand now.
    pub key: Option<String>,
    /// Bonded to it by everyone.
    pub bonded: String,
    /// Unix seconds; zero: not in jail.
    pub jailed_until: u64,
    /// Whether it signed conflicting votes: it can never be one again.
    pub slashed: bool,
}

impl Ledger {
    /// What is at an address.
    ///
    /// # Errors
    /// If no node proves it.
    pub async fn account_view(&self, address: Address) -> Result<AccountView, LedgerError> {
        let Viewed { tip, value } = self
            .views(|views| {
                let state = views.read(|state, _| surety_chain::account(state, address));
                let operator = views.call(OPERATORS, &IOperators::operatorOfCall { account: address });
                let validator = views.call(STAKING, &IStaking::validatorOfCall { operator: address });
                let bonded = views.call(STAKING, &IStaking::votesOfCall { account: address });
                Some((state?.unwrap_or_default(), operator?, validator?, bonded?))
            })
            .await?;
        let (state, operator, validator, bonded) = value;
        let given = self.genesis().balances.iter().find(|balance| balance.address == address);
        let has_code = state.code_hash != AccountState::default().code_hash;
        let stands = !validator.key.is_zero() || !validator.bonded.is_zero() || validator.slashed;
        Ok(AccountView {
            number: tip.number,
            address: address.to_string(),
            module: Module::at(&address).map(Module::name),
            code_hash: has_code.then(|| state.code_hash.to_string()),
            nonce: state.nonce,
            balance: state.balance.to_string(),
            bonded: bonded.to_string(),
            given: given.map(|given| given.amount.to_string()),
            given_why: given.map(|given| given.why.clone()),
            operator: (operator.height > 0).then(|| OperatorView {
                name: operator.name,
                url: operator.url,
                registered: operator.height,
                workers: operator.workers,
                offers: operator.offers,
                bonded_to: validator.bonded.to_string(),
            }),
            validator: stands.then(|| ValidatorView {
                key: Some(validator.key).filter(|key| !key.is_zero()).map(|key| key.to_string()),
                bonded: validator.bonded.to_string(),
                jailed_until: validator.jailedUntil,
                slashed: validator.slashed,
            }),
        })
    }
}
