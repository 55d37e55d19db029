//! What the gateway must not forget of its keys: their terms, what they were charged for, and who holds what.
//!
//! In:     changes, in their order. Out: the same, after a restart; rows of usage.
//! Touches: `keys.redb` in the data directory, by way of `disk`.
//! Holds:  totals are the sums of the rows that are kept and of those that were dropped for room, per key, always.
//! Absent: what may be spent (`account`).

use std::{collections::BTreeMap, path::Path, time::Duration};

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{
    buckets::{Buckets, Sums, Width},
    owned::Owned,
    terms::{KeyPrice, KeyTerms, Micro},
};
use crate::disk::{Disk, FindError, OpenStoreError, Pace, Tables, Writer, Written};

/// Key → [`KeyRow`].
const KEYS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("keys");
/// Key → [`Totals`] of all its generations.
const TOTALS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("totals");
/// Key → [`Totals`] of those that were dropped for room.
const DROPPED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dropped");
/// Request id → the key that holds something for it.
const HOLDS: TableDefinition<'_, u128, u64> = TableDefinition::new("holds");
/// Key, order of arrival → [`Generation`].
const GENERATIONS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("generations");
/// Request id → key, order of arrival.
const PLACES: TableDefinition<'_, u128, (u64, u64)> = TableDefinition::new("places");
/// Order of arrival → key, request id.
const ORDER: TableDefinition<'_, u64, (u64, u128)> = TableDefinition::new("order");

/// Payer ‖ nonce of a payment → its place among [`DEPOSITS`].
const DEPOSIT_PLACES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("deposit places");
/// Order of arrival → payer ‖ nonce, [`Deposit`].
const DEPOSITS: TableDefinition<'_, u64, (&[u8], &[u8])> = TableDefinition::new("deposits");
/// Key → micro-credits of all its deposits, also of those that are kept no more.
const BOUGHT: TableDefinition<'_, u64, u128> = TableDefinition::new("bought");

/// Deposits kept; the oldest go first.
const DEPOSITS_MAX: u64 = 200_000;
/// Generations kept; the oldest go first.
const GENERATIONS_MAX: u64 = 200_000;

/// What stands for whoever uses an open gateway without a key.
pub(crate) const NOBODY: u64 = 0;
/// What stands for all who pay for each request by itself.
pub(crate) const PAYER: u64 = u64::MAX;

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyRow {
    /// Digest of the secret, in hexadecimal digits.
    pub(super) digest: String,
    pub(super) terms: KeyTerms,
    pub(super) created_ms: u64,
    pub(super) revoked_ms: Option<u64>,
}

/// Sums over generations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many.
    pub requests: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Those of them that were cached.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// Micro-credits.
    pub cost: Micro,
}

/// One worker's part in a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationPart {
    /// Its key.
    pub worker: String,
    /// Whether it computed the answer again, to be compared: its tokens are not the answer's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
    /// Micro-credits per million tokens, as it accepted; none where it signed no receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<KeyPrice>,
    /// Tokens that its receipt counts.
    pub prompt_tokens: u32,
    /// Those of them that were cached.
    pub cached_tokens: u32,
    /// Tokens that it gave.
    pub output_tokens: u32,
    /// Micro-credits that its receipt charges.
    pub charge: Micro,
}

/// What became of one request, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The request's.
    pub id: String,
    /// The name of the key that asked; none where none was needed.
    #[serde(default)]
    pub key: Option<String>,
    /// The model's name.
    pub model: String,
    /// `complete`; `cancelled` if the caller left; `recovered` if the gateway was stopped after it was whole.
    pub status: String,
    /// Answers.
    pub choices: u32,
    /// Tokens of prompts, each counted once.
    pub prompt_tokens: u64,
    /// Those of them that were cached.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// Micro-credits: the sum of the parts' charges.
    pub cost: Micro,
    /// By worker, in their order.
    pub parts: Vec<GenerationPart>,
    /// Unix milliseconds.
    pub received_ms: u64,
    /// Unix milliseconds.
    pub first_byte_ms: Option<u64>,
    /// Unix milliseconds.
    pub done_ms: u64,
}

/// Credits that were paid in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deposit {
    pub(super) key: u64,
    /// Micro-credits.
    pub(super) amount: Micro,
    /// Unix milliseconds.
    pub(super) at_ms: u64,
}

/// Generations, each with its order of arrival.
type Rows = Vec<(u64, Generation)>;

/// Something to be kept.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Key(u64, Box<KeyRow>),
    /// A payment, by payer ‖ nonce, was taken for credits of a key; each counts once.
    Deposit {
        payment: [u8; 52],
        deposit: Deposit,
    },
    /// A key holds something for a request.
    Hold {
        request: u128,
        key: u64,
    },
    /// It holds nothing any more, and was charged nothing.
    Release {
        request: u128,
    },
    /// It holds nothing any more, and was charged for this.
    Settle {
        request: u128,
        key: u64,
        generation: Box<Generation>,
    },
}

/// What was on the disk.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) keys: BTreeMap<u64, KeyRow>,
    pub(super) totals: BTreeMap<u64, Totals>,
    pub(super) holds: Vec<(u128, u64)>,
    /// Micro-credits paid in.
    pub(super) bought: BTreeMap<u64, u128>,
}

/// The kept keys.
#[derive(Debug, Clone)]
pub(super) struct Store(Disk<Tabled>);

impl Store {
    /// Opens what is in `data_dir`, or makes it.
    pub(super) fn open(data_dir: &Path) -> Result<(Store, Writer, Kept), OpenStoreError> {
        let (disk, writer) = Disk::open(data_dir, Tabled { generations_max: GENERATIONS_MAX })?;
        let kept = disk.read(read).map_err(|error| error.at_start::<Tabled>(data_dir))?;
        Ok((Store(disk), writer, kept))
    }

    /// Has a change written soon.
    pub(super) fn post(&self, change: Change) {
        drop(self.0.post(change));
    }

    /// Has a change written at once; what is returned says when it is on the disk.
    pub(super) fn keep(&self, change: Change) -> Written<()> {
        let written = self.0.post(change);
        self.0.hurry();
        written
    }

    /// Returns once what was handed over by now is on the disk, or is known not to be.
    pub(super) async fn flush(&self) {
        self.0.flush().await;
    }

    /// Whether a payment's credits were counted. Reads the disk.
    pub(super) fn has_deposit(&self, payment: &[u8; 52]) -> Result<bool, FindError> {
        self.0.read(|transaction| Ok(transaction.open_table(DEPOSIT_PLACES)?.get(&payment[..])?.is_some()))
    }

    /// What became of a request, and which key asked. Reads the disk.
    pub(super) fn generation(&self, request: u128) -> Result<Option<Owned<Generation>>, FindError> {
        self.0.read(|transaction| {
            let Some(place) = transaction.open_table(PLACES)?.get(request)? else { return Ok(None) };
            let (key, arrival) = place.value();
            let generations = transaction.open_table(GENERATIONS)?;
            let Some(row) = generations.get((key, arrival))? else { return Ok(None) };
            Ok(Some(Owned::by(key, parse(row.value())?)))
        })
    }

    /// A key's generations in the order they ended, those of the `first` rows skipped, at most so many; and the sums of
    /// those that are kept no more, and of all. Reads the disk.
    pub(super) fn usage(
        &self,
        key: u64,
        first: u64,
        count_max: usize,
    ) -> Result<(Rows, Totals, Totals), FindError> {
        self.0.read(|transaction| {
            let generations = transaction.open_table(GENERATIONS)?;
            let mut rows = Vec::new();
            for row in generations.range((key, first)..=(key, u64::MAX))?.take(count_max) {
                let (place, row) = row?;
                rows.push((place.value().1, parse(row.value())?));
            }
            let dropped = totals_of(&transaction.open_table(DROPPED)?, key)?;
            let all = totals_of(&transaction.open_table(TOTALS)?, key)?;
            Ok((rows, dropped, all))
        })
    }

    /// What a key used by spans of time, all as of one moment. Reads the disk: every row of the key.
    pub(super) fn buckets(&self, key: u64, width: Width, now_ms: u64) -> Result<Buckets, FindError> {
        self.0.read(|transaction| {
            let generations = transaction.open_table(GENERATIONS)?;
            let mut sums = Sums::new(width, now_ms);
            for row in generations.range((key, 0)..=(key, u64::MAX))? {
                sums.take(parse(row?.1.value())?);
            }
            Ok(sums.told(totals_of(&transaction.open_table(TOTALS)?, key)?))
        })
    }
}

impl Totals {
    /// Adds other sums.
    pub(crate) fn plus(&mut self, other: &Totals) {
        self.requests += other.requests;
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.output_tokens += other.output_tokens;
        self.cost.0 = self.cost.0.saturating_add(other.cost.0);
    }

    /// Takes other sums away, which are a part of these.
    pub(super) fn minus(&mut self, other: &Totals) {
        self.requests = self.requests.saturating_sub(other.requests);
        self.prompt_tokens = self.prompt_tokens.saturating_sub(other.prompt_tokens);
        self.cached_tokens = self.cached_tokens.saturating_sub(other.cached_tokens);
        self.output_tokens = self.output_tokens.saturating_sub(other.output_tokens);
        self.cost.0 = self.cost.0.saturating_sub(other.cost.0);
    }

    /// Adds a generation.
    fn add(&mut self, generation: &Generation) {
        self.plus(&generation.totals());
    }

    fn subtract(&mut self, generation: &Generation) {
        self.minus(&generation.totals());
    }
}

impl Generation {
    fn totals(&self) -> Totals {
        Totals {
            requests: 1,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            output_tokens: self.output_tokens,
            cost: self.cost,
        }
    }

    /// The same request once more: a stream that its caller left and then went on with.
    fn join(mut self, later: Generation) -> Generation {
        self.status = later.status;
        self.output_tokens += later.output_tokens;
        self.prompt_tokens += later.prompt_tokens;
        self.cached_tokens += later.cached_tokens;
        self.cost.0 = self.cost.0.saturating_add(later.cost.0);
        self.parts.extend(later.parts);
        self.first_byte_ms = self.first_byte_ms.or(later.first_byte_ms);
        self.done_ms = later.done_ms;
        self
    }
}

fn read(transaction: &ReadTransaction) -> Result<Kept, redb::Error> {
    let mut kept = Kept::default();
    for row in transaction.open_table(KEYS)?.iter()? {
        let (key, row) = row?;
        kept.keys.insert(key.value(), parse(row.value())?);
    }
    for row in transaction.open_table(TOTALS)?.iter()? {
        let (key, row) = row?;
        kept.totals.insert(key.value(), parse(row.value())?);
    }
    for row in transaction.open_table(HOLDS)?.iter()? {
        let (request, key) = row?;
        kept.holds.push((request.value(), key.value()));
    }
    for row in transaction.open_table(BOUGHT)?.iter()? {
        let (key, amount) = row?;
        kept.bought.insert(key.value(), amount.value());
    }
    Ok(kept)
}

fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| redb::Error::Corrupted(format!("a row of the keys cannot be read: {error}")))
}

fn text(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value)
        .map_err(|error| redb::Error::Corrupted(format!("a row of the keys cannot be written: {error}")))
}

fn totals_of(table: &impl ReadableTable<u64, &'static [u8]>, key: u64) -> Result<Totals, redb::Error> {
    table.get(key)?.map_or_else(|| Ok(Totals::default()), |row| parse(row.value()))
}

struct Tabled {
    generations_max: u64,
}

impl Tables for Tabled {
    type Change = Change;
    type Outcome = ();

    const NAME: &'static str = "keys";
    const PACE: Pace = Pace {
        gather: Duration::from_millis(500),
        waiting_max: 65_536,
        batch_max: 512,
        batch_bytes_max: usize::MAX,
        cache_bytes: 8 << 20,
    };

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(KEYS)?;
        transaction.open_table(TOTALS)?;
        transaction.open_table(DROPPED)?;
        transaction.open_table(HOLDS)?;
        transaction.open_table(GENERATIONS)?;
        transaction.open_table(PLACES)?;
        transaction.open_table(ORDER)?;
        transaction.open_table(DEPOSIT_PLACES)?;
        transaction.open_table(DEPOSITS)?;
        transaction.open_table(BOUGHT)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<Change>,
        _now_ms: u64,
    ) -> Result<Vec<()>, redb::Error> {
        let mut keys = transaction.open_table(KEYS)?;
        let mut totals = transaction.open_table(TOTALS)?;
        let mut dropped = transaction.open_table(DROPPED)?;
        let mut holds = transaction.open_table(HOLDS)?;
        let mut generations = transaction.open_table(GENERATIONS)?;
        let mut places = transaction.open_table(PLACES)?;
        let mut order = transaction.open_table(ORDER)?;
        let mut deposit_places = transaction.open_table(DEPOSIT_PLACES)?;
        let mut deposits = transaction.open_table(DEPOSITS)?;
        let mut bought = transaction.open_table(BOUGHT)?;
        let mut sums: BTreeMap<u64, Totals> = BTreeMap::new();
        for change in &changes {
            match change {
                Change::Key(key, row) => {
                    keys.insert(key, &text(row)?[..])?;
                }
                Change::Deposit { payment, deposit } => {
                    if deposit_places.get(&payment[..])?.is_some() {
                        continue;
                    }
                    let next = deposits.last()?.map_or(0, |(arrival, _)| arrival.value() + 1);
                    deposit_places.insert(&payment[..], next)?;
                    deposits.insert(next, (&payment[..], &text(deposit)?[..]))?;
                    let before = bought.get(deposit.key)?.map_or(0, |amount| amount.value());
                    bought.insert(deposit.key, before.saturating_add(deposit.amount.0))?;
                }
                Change::Hold { request, key } => {
                    holds.insert(request, key)?;
                }
                Change::Release { request } => {
                    holds.remove(request)?;
                }
                Change::Settle { request, key, generation } => {
                    holds.remove(request)?;
                    if !sums.contains_key(key) {
                        sums.insert(*key, totals_of(&totals, *key)?);
                    }
                    let sum = sums.entry(*key).or_default();
                    let place = places.get(request)?.map(|place| place.value());
                    let before = match place.filter(|(owner, _)| owner == key) {
                        Some(place) => {
                            let row = generations.get(place)?;
                            row.map(|row| parse::<Generation>(row.value())).transpose()?
                        }
                        None => None,
                    };
                    let (place, generation) = match (place, before) {
                        (Some(place), Some(before)) => {
                            sum.subtract(&before);
                            (place, before.join((**generation).clone()))
                        }
                        _ => {
                            let next = order.last()?.map_or(0, |(arrival, _)| arrival.value() + 1);
                            ((*key, next), (**generation).clone())
                        }
                    };
                    sum.add(&generation);
                    generations.insert(place, &text(&generation)?[..])?;
                    places.insert(request, place)?;
                    order.insert(place.1, (*key, *request))?;
                }
            }
        }
        while order.len()? > self.generations_max {
            let Some((arrival, oldest)) = order.pop_first()? else { break };
            let (arrival, (key, request)) = (arrival.value(), oldest.value());
            places.remove(request)?;
            if let Some(row) = generations.remove((key, arrival))? {
                let mut sum = totals_of(&dropped, key)?;
                sum.add(&parse(row.value())?);
                dropped.insert(key, &text(&sum)?[..])?;
            }
        }
        while deposits.len()? > DEPOSITS_MAX {
            let Some((_, oldest)) = deposits.pop_first()? else { break };
            deposit_places.remove(oldest.value().0)?;
        }
        for (key, sum) in &sums {
            totals.insert(key, &text(sum)?[..])?;
        }
        Ok(vec![(); changes.len()])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::keys) fn generation(id: u128, cost: u128) -> Generation {
        Generation {
            id: format!("req_{id:032x}"),
            key: Some("mine".to_owned()),
            model: "tiny".to_owned(),
            status: "complete".to_owned(),
            choices: 1,
            prompt_tokens: 3,
            cached_tokens: 1,
            output_tokens: 5,
            cost: Micro(cost),
            parts: Vec::new(),
            received_ms: 1,
            first_byte_ms: Some(2),
            done_ms: 3,
        }
    }

    fn settle(request: u128, key: u64, cost: u128) -> Change {
        Change::Settle { request, key, generation: Box::new(generation(request, cost)) }
    }

    #[tokio::test]
    async fn rows_and_totals_agree_even_when_the_oldest_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let (disk, _writer) = Disk::open(directory.path(), Tabled { generations_max: 7 }).expect("a file");
        let store = Store(disk);
        (0..20).for_each(|n| store.post(settle(n, 1 + (n % 2) as u64, 10 + n)));
        // One of those that are there comes again; a release of nothing does nothing.
        store.post(settle(19, 2, 100));
        store.keep(Change::Release { request: 5 }).outcome().await.expect("kept");
        let mut count = 0;
        for (key, expected) in [(1, (0..20).step_by(2)), (2, (1..20).step_by(2))] {
            let (rows, dropped, all) = store.usage(key, 0, 100).expect("rows");
            let sum: u128 = rows.iter().map(|(_, row)| row.cost.0).sum();
            assert_eq!(sum + dropped.cost.0, all.cost.0);
            let again = if key == 2 { 100 } else { 0 };
            assert_eq!(all.cost.0, expected.map(|n| 10 + n).sum::<u128>() + again);
            assert_eq!((all.requests, dropped.requests), (10, 10 - rows.len() as u64));
            for (_, width) in Width::NAMES {
                let told = store.buckets(key, width, 3 + width.ms()).expect("sums");
                assert_eq!((&told.total, &told.earlier), (&all, &dropped), "all rows are in a span");
                let spans = told.buckets.iter().map(|bucket| bucket.totals.cost.0).sum::<u128>();
                assert_eq!(spans, sum);
            }
            count += rows.len();
        }
        assert_eq!(count, 7);
        let (key, row) = store.generation(19).expect("read").expect("kept").apart();
        assert_eq!((key, row.cost, row.output_tokens), (2, Micro(129), 10));
        assert_eq!(store.generation(0).expect("read"), None);
    }

    #[tokio::test]
    async fn a_payment_is_credited_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer, _) = Store::open(directory.path()).expect("a store");
        let deposit = |payment: u8, key, amount| Change::Deposit {
            payment: [payment; 52],
            deposit: Deposit { key, amount: Micro(amount), at_ms: 1 },
        };
        for change in
            [deposit(1, 7, 10), deposit(1, 7, 10), deposit(2, 7, 5), deposit(2, 8, 5), deposit(3, 8, 1)]
        {
            store.post(change);
        }
        store.flush().await;
        assert!(store.has_deposit(&[2; 52]).expect("read") && !store.has_deposit(&[4; 52]).expect("read"));
        drop(store);
        writer.join();
        let (_, _, kept) = Store::open(directory.path()).expect("a store");
        assert_eq!(kept.bought, BTreeMap::from([(7, 15), (8, 1)]));
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer, kept) = Store::open(directory.path()).expect("a store");
        assert!(kept.keys.is_empty() && kept.holds.is_empty());
        let row = KeyRow {
            digest: "00".repeat(32),
            terms: KeyTerms::named("mine"),
            created_ms: 5,
            revoked_ms: None,
        };
        store.post(Change::Key(1, Box::new(row.clone())));
        for request in 0..3 {
            store.post(Change::Hold { request, key: 1 });
        }
        store.post(settle(0, 1, 42));
        let on_disk = store.keep(Change::Release { request: 1 });
        assert_eq!(on_disk.outcome().await, Ok(()));
        assert!(matches!(Store::open(directory.path()), Err(OpenStoreError::InUse { .. })));
        drop(store);
        writer.join();
        let (_, _, kept) = Store::open(directory.path()).expect("a store");
        assert_eq!(kept.keys[&1], row);
        assert_eq!(kept.holds, [(2, 1)]);
        assert_eq!(kept.totals[&1].cost, Micro(42));
    }
}
