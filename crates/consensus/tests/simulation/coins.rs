//! A law small enough for a thousand simulations: coins change hands, and the sum stays what it was.
//!
//! In:     transfers; a rota that says who votes in which epoch.
//! Out:    writes of balances and nonces.
//! Touches: nothing.
//! Holds:  transfers neither make nor destroy coins; a block with a transfer that does not apply is invalid.
//! Absent: signatures, gas, everything else `surety_chain` knows.

use bytes::Bytes;
use commonware_cryptography::{Hasher as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use surety_consensus::{
    Built, Effects, Law, LawError, Place, Read, StateKey, StateReader, StateValue, Step, ValidatorSet,
};

pub const ACCOUNTS: u8 = 16;
pub const COINS_EACH: u64 = 1_000;
/// A value longer than a cell, as contract code is: written once, in block 1.
pub const CODE: [u8; 5_000] = [0xC0; 5_000];

pub fn account_key(account: u8) -> StateKey {
    StateKey(Sha256::hash(&[b"account", &[account]]).0)
}

pub fn code_key() -> StateKey {
    StateKey(Sha256::hash(&[b"code"]).0)
}

/// What the simulated chain begins with.
pub fn genesis_writes() -> Vec<(StateKey, StateValue)> {
    let mut writes: Vec<_> =
        (0..ACCOUNTS).map(|account| (account_key(account), holding(COINS_EACH, 0))).collect();
    writes.push((code_key(), CODE.to_vec()));
    writes.sort();
    writes
}

fn holding(coins: u64, nonce: u64) -> StateValue {
    [coins.to_be_bytes(), nonce.to_be_bytes()].concat()
}

/// Coins and nonce in an account's value.
pub fn read_holding(value: Option<&[u8]>) -> (u64, u64) {
    let Some(value) = value else { return (0, 0) };
    let word = |at: usize| u64::from_be_bytes(value[at..at + 8].try_into().unwrap());
    (word(0), word(8))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub from: u8,
    pub to: u8,
    pub coins: u64,
    pub nonce: u64,
}

impl Transfer {
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![self.from, self.to];
        bytes.extend(self.coins.to_be_bytes());
        bytes.extend(self.nonce.to_be_bytes());
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[from, to], rest) = bytes.split_first_chunk::<2>()?;
        let (coins, nonce) = rest.split_first_chunk::<8>()?;
        (from < ACCOUNTS && to < ACCOUNTS).then_some(())?;
        Some(Self {
            from,
            to,
            coins: u64::from_be_bytes(*coins),
            nonce: u64::from_be_bytes(nonce.try_into().ok()?),
        })
    }
}

pub struct Outcome {
    pub writes: Vec<(StateKey, Option<StateValue>)>,
    pub transfers: Vec<Transfer>,
    pub missed: Vec<usize>,
    next: Option<ValidatorSet>,
}

/// Who votes in an epoch.
pub type Rota = fn(u64) -> ValidatorSet;

#[derive(Clone)]
pub struct Coins {
    pub epoch_blocks: u64,
    pub rota: Rota,
}

/// A ledger while a block runs: asks for what it lacks.
struct Books<'a> {
    reader: &'a dyn StateReader,
    holdings: BTreeMap<u8, (u64, u64)>,
    /// Accounts a transfer changed; those only looked at are not written.
    changed: BTreeSet<u8>,
}

impl Books<'_> {
    fn holding(&mut self, account: u8) -> Result<(u64, u64), StateKey> {
        if let Some(holding) = self.holdings.get(&account) {
            return Ok(*holding);
        }
        match self.reader.read(&account_key(account)) {
            Read::Unknown => Err(account_key(account)),
            Read::Known(value) => {
                let holding = read_holding(value.as_deref());
                self.holdings.insert(account, holding);
                Ok(holding)
            }
        }
    }

    /// `Ok(false)`: the transfer does not apply.
    fn apply(&mut self, transfer: &Transfer) -> Result<bool, StateKey> {
        let (coins, nonce) = self.holding(transfer.from)?;
        if nonce != transfer.nonce || coins < transfer.coins {
            return Ok(false);
        }
        self.holding(transfer.to)?;
        self.holdings.insert(transfer.from, (coins - transfer.coins, nonce + 1));
        let (coins, nonce) = self.holding(transfer.to)?;
        self.holdings.insert(transfer.to, (coins + transfer.coins, nonce));
        self.changed.extend([transfer.from, transfer.to]);
        Ok(true)
    }
}

impl Coins {
    fn finish(&self, place: &Place, books: Books<'_>, transfers: Vec<Transfer>) -> Outcome {
        let mut writes: Vec<_> = books
            .holdings
            .into_iter()
            .filter(|(account, _)| books.changed.contains(account))
            .map(|(account, (coins, nonce))| (account_key(account), Some(holding(coins, nonce))))
            .collect();
        writes.sort();
        let last = place.number % self.epoch_blocks == self.epoch_blocks - 1;
        Outcome {
            writes,
            transfers,
            missed: place.missed.clone(),
            next: last.then(|| (self.rota)(place.epoch + 1)),
        }
    }
}

impl Law for Coins {
    type Transaction = Transfer;
    type Outcome = Outcome;

    fn decode(&self, bytes: &[u8]) -> Result<Transfer, LawError> {
        Transfer::decode(bytes).ok_or_else(|| LawError::Invalid("not a transfer".into()))
    }

    fn encoded(&self, transfer: &Transfer) -> Bytes {
        transfer.encode()
    }

    fn hints(&self, _place: &Place, transfers: &[Transfer]) -> Vec<StateKey> {
        // Receivers are left out on purpose, so that a second pass is taken.
        transfers.iter().map(|transfer| account_key(transfer.from)).collect()
    }

    fn execute(
        &self,
        reader: &dyn StateReader,
        place: &Place,
        transfers: &[Transfer],
    ) -> Result<Step<Outcome>, LawError> {
        let mut books = Books { reader, holdings: BTreeMap::new(), changed: BTreeSet::new() };
        for transfer in transfers {
            match books.apply(transfer) {
                Err(key) => return Ok(Step::Needs(vec![key])),
                Ok(false) => return Err(LawError::Invalid(format!("{transfer:?} does not apply"))),
                Ok(true) => {}
            }
        }
        Ok(Step::Done(self.finish(place, books, transfers.to_vec())))
    }

    fn build(
        &self,
        reader: &dyn StateReader,
        place: &Place,
        candidates: &[Transfer],
        _bytes_max: usize,
    ) -> Result<Step<Built<Outcome>>, LawError> {
        let mut books = Books { reader, holdings: BTreeMap::new(), changed: BTreeSet::new() };
        let mut chosen = Vec::new();
        for (index, transfer) in candidates.iter().enumerate() {
            match books.apply(transfer) {
                Err(key) => return Ok(Step::Needs(vec![key])),
                Ok(true) => chosen.push(index),
                Ok(false) => {}
            }
        }
        let transfers = chosen.iter().map(|index| candidates[*index].clone()).collect();
        Ok(Step::Done(Built { chosen, outcome: self.finish(place, books, transfers) }))
    }

    fn effects<'a>(&self, outcome: &'a Outcome) -> Effects<'a> {
        let digest = |label: &[u8]| {
            let bytes: Vec<_> =
                outcome.transfers.iter().flat_map(|transfer| transfer.encode().to_vec()).collect();
            Sha256::hash(&[label, &bytes]).0
        };
        Effects {
            writes: &outcome.writes,
            transactions_root: digest(b"transfers"),
            receipts_root: digest(b"receipts"),
            gas_used: outcome.transfers.len() as u64,
            next_validators: outcome.next.clone(),
        }
    }
}
