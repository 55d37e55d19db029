//! What the payer must not forget: its channels, how much it may have promised on each, and what it has to claim.
//!
//! In:     channels and their marks; breaches. Out: the same, after a restart.
//! Touches: `payer.redb` in the data directory, by way of `disk`.
//! Holds:  what [`Store::keep`] and [`Store::keep_claim`] returned from is on the disk.
//! Absent: what a mark means (`payer`), and what a breach (`claims`).

use std::{collections::BTreeMap, path::Path};

use alloy_primitives::Address;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use surety_types::{Canonical, Channel, Digest};

use super::claims::{ClaimKey, ClaimRow, Stage};
use crate::disk::{Disk, OpenStoreError, Pace, Tables, WriteError, Writer};

/// Channel, mark, settled, written off, whether it was left in order.
type KeptRow<'a> = (&'a [u8], u128, u128, u128, bool);
/// By channel id.
const CHANNELS: TableDefinition<'_, &[u8], KeptRow<'_>> = TableDefinition::new("channels");
/// Order, acceptance, operator, deadline, stage, id, when it was over, compensation, receipt.
type KeptClaim<'a> = (&'a [u8], &'a [u8], &'a [u8], u64, u8, u64, u64, u128, &'a [u8]);
/// By order digest and worker.
const CLAIMS: TableDefinition<'_, &[u8], KeptClaim<'_>> = TableDefinition::new("claims");

/// What is kept of a channel. Amounts are wei.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) channel: Channel,
    /// No voucher that was ever signed promises more.
    pub(super) mark: u128,
    pub(super) settled: u128,
    pub(super) written_off: u128,
    /// Nothing was under way when this was written: the mark is exact.
    pub(super) in_order: bool,
}

/// What is kept of channels.
type Rows = Vec<(Digest, Row)>;
/// What is kept of breaches.
pub(super) type Claims = BTreeMap<ClaimKey, ClaimRow>;

pub(super) enum Change {
    Channel(Digest, Row),
    /// None: it is forgotten.
    Claim(ClaimKey, Option<ClaimRow>),
}

/// The kept channels.
#[derive(Debug, Clone)]
pub(super) struct Store(Disk<Book>);

impl Store {
    /// Opens what is in `data_dir`, or makes it; and what it holds.
    pub(super) fn open(data_dir: &Path) -> Result<(Store, Writer, Rows, Claims), OpenStoreError> {
        let (disk, writer) = Disk::open(data_dir, Book)?;
        let read = disk.read(|transaction| Ok((rows(transaction)?, claims(transaction)?)));
        let (rows, claims) = read.map_err(|error| error.at_start::<Book>(data_dir))?;
        Ok((Store(disk), writer, rows, claims))
    }

    /// Returns once the row is on the disk.
    pub(super) async fn keep(&self, id: Digest, row: Row) -> Result<(), WriteError> {
        self.0.keep(Change::Channel(id, row)).await
    }

    /// Returns once the row is on the disk.
    pub(super) async fn keep_claim(&self, key: ClaimKey, row: ClaimRow) -> Result<(), WriteError> {
        self.0.keep(Change::Claim(key, Some(row))).await
    }

    /// Has a row written, or forgotten, soon.
    pub(super) fn post_claim(&self, key: ClaimKey, row: Option<ClaimRow>) {
        drop(self.0.post(Change::Claim(key, row)));
    }
}

fn claims(transaction: &ReadTransaction) -> Result<Claims, redb::Error> {
    let table = transaction.open_table(CLAIMS)?;
    let mut claims = Claims::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let (order, acceptance, operator, deadline_ms, stage, id, over_s, compensation, receipt) =
            value.value();
        let broken = |what: &str| redb::Error::Corrupted(format!("a claim's {what} cannot be read"));
        let row = ClaimRow {
            order: order.to_vec(),
            acceptance: acceptance.to_vec(),
            operator: Address::try_from(operator).map_err(|_| broken("operator"))?,
            deadline_ms,
            stage: Stage::from_code(stage).ok_or_else(|| broken("stage"))?,
            id,
            over_s,
            compensation,
            receipt: receipt.to_vec(),
        };
        claims.insert(key.value().try_into().map_err(|_| broken("key"))?, row);
    }
    Ok(claims)
}

fn rows(transaction: &ReadTransaction) -> Result<Rows, redb::Error> {
    let channels = transaction.open_table(CHANNELS)?;
    let mut rows = Vec::new();
    for entry in channels.iter()? {
        let (id, value) = entry?;
        let (channel, mark, settled, written_off, in_order) = value.value();
        let broken = |what: &str| redb::Error::Corrupted(format!("a channel's {what} cannot be read"));
        let channel = Channel::from_cbor(channel).map_err(|_| broken("configuration"))?;
        let id = Digest(id.value().try_into().map_err(|_| broken("id"))?);
        rows.push((id, Row { channel, mark, settled, written_off, in_order }));
    }
    Ok(rows)
}

pub(super) struct Book;

impl Tables for Book {
    type Change = Change;
    type Outcome = ();

    const NAME: &'static str = "payer";
    const PACE: Pace = Pace::AWAITED;

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(CHANNELS)?;
        transaction.open_table(CLAIMS)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<Change>,
        _now_ms: u64,
    ) -> Result<Vec<()>, redb::Error> {
        let mut channels = transaction.open_table(CHANNELS)?;
        let mut claims = transaction.open_table(CLAIMS)?;
        for change in &changes {
            match change {
                Change::Channel(id, row) => {
                    let channel = row.channel.to_cbor();
                    let value = (&channel[..], row.mark, row.settled, row.written_off, row.in_order);
                    channels.insert(&id.0[..], value)?;
                }
                Change::Claim(key, None) => drop(claims.remove(&key[..])?),
                Change::Claim(key, Some(row)) => {
                    let ClaimRow { order, acceptance, operator, receipt, .. } = row;
                    let (stage, operator) = (row.stage as u8, operator.as_slice());
                    let value: KeptClaim<'_> = (
                        order,
                        acceptance,
                        operator,
                        row.deadline_ms,
                        stage,
                        row.id,
                        row.over_s,
                        row.compensation,
                        receipt,
                    );
                    claims.insert(&key[..], value)?;
                }
            }
        }
        Ok(vec![(); changes.len()])
    }
}
