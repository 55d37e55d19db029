//! Kept: what was asked once, for the gateway that begins again in this one's data directory.
//!
//! In:     requests that may be sent again, as they begin; their responses, when these are whole. Out: the same.
//! Touches: one file, `repeats.redb`, by way of `disk`.
//! Holds:  what is too old is not read back, and what was forgotten is not there.
//! Absent: whose turn it is (the room).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use surety_types::Digest;

use crate::{
    disk::{Pace, Tables},
    id::RequestId,
};

/// Order of arrival → tenant, digest of the request, its name if it has one, the response's request id, Unix milliseconds.
type BegunRow<'a> = (u64, &'a [u8], &'a str, u128, u64);
const BEGUN: TableDefinition<'_, u64, BegunRow<'_>> = TableDefinition::new("begun");
/// Order of arrival → status, Unix milliseconds, bytes of the body.
const WHOLE: TableDefinition<'_, u64, (u16, u64, u64)> = TableDefinition::new("whole");
/// Order of arrival → names and values of headers, body.
type BodyRow<'a> = (Vec<(&'a str, &'a [u8])>, &'a [u8]);
const BODIES: TableDefinition<'_, u64, BodyRow<'_>> = TableDefinition::new("bodies");

/// A request that may be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) tenant: u64,
    pub(super) request: Digest,
    pub(super) name: Option<String>,
    /// What its response is known by.
    pub(super) id: RequestId,
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What is known of a request without its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) order: u64,
    pub(super) begun: Begun,
    /// Unix milliseconds.
    pub(super) begun_ms: u64,
    /// When its response was whole, Unix milliseconds, and the bytes of that; none if it was not.
    pub(super) whole: Option<(u64, u64)>,
}

/// By order of arrival.
#[derive(Debug)]
pub(super) enum Change {
    Begun(u64, Begun),
    Whole(u64, Whole),
    Forget(u64),
}

/// The tables.
#[derive(Debug)]
pub(super) struct Kept;

impl Tables for Kept {
    type Change = Change;
    type Outcome = ();

    const NAME: &'static str = "repeats";
    const PACE: Pace = Pace {
        gather: Duration::from_millis(20),
        waiting_max: 4096,
        batch_max: 512,
        batch_bytes_max: 16 << 20,
        cache_bytes: 8 << 20,
    };

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(BEGUN)?;
        transaction.open_table(WHOLE)?;
        transaction.open_table(BODIES)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<Change>,
        now_ms: u64,
    ) -> Result<Vec<()>, redb::Error> {
        let mut begun = transaction.open_table(BEGUN)?;
        let mut whole = transaction.open_table(WHOLE)?;
        let mut bodies = transaction.open_table(BODIES)?;
        for change in &changes {
            match change {
                Change::Begun(order, request) => {
                    let name = request.name.as_deref().unwrap_or_default();
                    let row =
                        (request.tenant, &request.request.as_bytes()[..], name, request.id.bits(), now_ms);
                    begun.insert(order, row)?;
                }
                // What was forgotten meanwhile stays so.
                Change::Whole(order, _) if begun.get(order)?.is_none() => {}
                Change::Whole(order, Whole { status, headers, body }) => {
                    let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                    bodies.insert(order, (pairs.collect::<Vec<_>>(), &body[..]))?;
                    whole.insert(order, (status.as_u16(), now_ms, body.len() as u64))?;
                }
                Change::Forget(order) => {
                    begun.remove(order)?;
                    whole.remove(order)?;
                    bodies.remove(order)?;
                }
            }
        }
        Ok(vec![(); changes.len()])
    }

    fn bytes(change: &Change) -> usize {
        match change {
            Change::Whole(_, whole) => whole.body.len(),
            Change::Begun(..) | Change::Forget(_) => 0,
        }
    }
}

/// All that is known, the oldest first.
pub(super) fn known(transaction: &ReadTransaction) -> Result<Vec<Known>, redb::Error> {
    let whole = transaction.open_table(WHOLE)?;
    let mut known = Vec::new();
    for row in transaction.open_table(BEGUN)?.iter()? {
        let (order, row) = row?;
        let (tenant, request, name, id, begun_ms) = row.value();
        let request: [u8; 32] = request
            .try_into()
            .map_err(|_| redb::Error::Corrupted("the digest of a request cannot be read".to_owned()))?;
        let begun = Begun {
            tenant,
            request: Digest(request),
            name: (!name.is_empty()).then(|| name.to_owned()),
            id: RequestId::of_bits(id),
        };
        let order = order.value();
        let whole = whole.get(order)?.map(|row| (row.value().1, row.value().2));
        known.push(Known { order, begun, begun_ms, whole });
    }
    Ok(known)
}

/// A whole response; none if there is none, or none that can be read.
pub(super) fn response(transaction: &ReadTransaction, order: u64) -> Result<Option<Whole>, redb::Error> {
    let Some(row) = transaction.open_table(WHOLE)?.get(order)? else { return Ok(None) };
    let bodies = transaction.open_table(BODIES)?;
    let Some(kept) = bodies.get(order)? else { return Ok(None) };
    let (pairs, body) = kept.value();
    let pair = |(name, value): &(&str, &[u8])| {
        Some((HeaderName::try_from(*name).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let Ok(status) = StatusCode::from_u16(row.value().0) else { return Ok(None) };
    let headers: Option<Vec<_>> = pairs.iter().map(pair).collect();
    Ok(headers.map(|pairs| Whole {
        status,
        headers: pairs.into_iter().collect(),
        body: Bytes::copy_from_slice(body),
    }))
}
