//! Looking things up: blocks by height and hash, transactions by hash, logs by who wrote them and what about.
//!
//! Holds:  the work of a query is bounded; one that would take more is refused, saying how far it came.

use alloy_primitives::{Address, B256, Log};
use redb::{ReadTransaction, ReadableTable};

use super::{
    BLOCK_NUMBERS, CERTIFICATES, HEADERS, IndexedHeader, IndexedReceipt, IndexedTransaction, POSTINGS,
    RECEIPTS, ReadError, TRANSACTION_PLACES, TRANSACTIONS, prefix, record::decode, terms,
};

/// Everything at one moment.
pub struct Snapshot {
    transaction: ReadTransaction,
}

/// A transaction's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The block's height.
    pub number: u64,
    /// The place in the block.
    pub index: u32,
}

/// Which logs are wanted. An empty list is no condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// The first block.
    pub from: u64,
    /// The last block.
    pub to: u64,
    /// One of these wrote it.
    pub addresses: Vec<Address>,
    /// One of these is its topic at that position.
    pub topics: [Vec<B256>; 4],
}

/// What a query for logs may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Logs in the answer.
    pub logs_max: usize,
    /// Addresses and topics in the question.
    pub terms_max: usize,
    /// Look-ups in the index.
    pub seeks_max: usize,
    /// Blocks whose logs are looked at.
    pub blocks_max: usize,
}

impl Default for LogBounds {
    fn default() -> Self {
        Self { logs_max: 10_000, terms_max: 1_024, seeks_max: 200_000, blocks_max: 10_000 }
    }
}

/// A log, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLog {
    /// The log.
    pub log: Log,
    /// Where its transaction is.
    pub place: Place,
    /// Its place among the block's logs.
    pub log_index: u64,
    /// The block's digest.
    pub block_hash: B256,
    /// The block's time in milliseconds.
    pub block_timestamp_ms: u64,
    /// The transaction's hash.
    pub transaction_hash: B256,
}

/// Why a query for logs was not answered.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// It names too much.
    #[error("query names {terms} addresses and topics, limit {max}")]
    Terms {
        /// How many.
        terms: usize,
        /// The bound.
        max: usize,
    },
    /// It finds too much.
    #[error("query returned more than {max} results")]
    Logs {
        /// The bound.
        max: usize,
        /// The last block that could have been answered for.
        through: Option<u64>,
    },
    /// It looks at too much.
    #[error("query takes more work than a node does for one request")]
    Work {
        /// The last block that could have been answered for.
        through: Option<u64>,
    },
    /// The indexes cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl LogQuery {
    /// Whether a log is wanted.
    pub fn matches(&self, log: &Log) -> bool {
        let any = |wanted: &[B256], topic: Option<&B256>| {
            wanted.is_empty() || topic.is_some_and(|topic| wanted.contains(topic))
        };
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && self
                .topics
                .iter()
                .enumerate()
                .all(|(position, wanted)| any(wanted, log.topics().get(position)))
    }

    /// What a block must have: of every group, at least one term.
    fn groups(&self) -> Vec<Vec<u64>> {
        let addresses = self.addresses.iter().map(terms::address).collect();
        let topics = self
            .topics
            .iter()
            .enumerate()
            .map(|(position, wanted)| wanted.iter().map(|topic| terms::topic(position, topic)).collect());
        let groups = std::iter::once(addresses).chain(topics);
        let mut groups: Vec<Vec<u64>> = groups.filter(|group: &Vec<u64>| !group.is_empty()).collect();
        if groups.is_empty() {
            groups.push(vec![terms::ANY_LOG]);
        }
        groups
    }
}

impl Snapshot {
    pub(super) fn new(transaction: ReadTransaction) -> Self {
        Self { transaction }
    }

    /// The newest block.
    pub fn tip(&self) -> Result<Option<IndexedHeader>, ReadError> {
        let headers = self.transaction.open_table(HEADERS)?;
        let last = headers.last()?;
        last.map(|(number, row)| whole(row.value(), "header", number.value())).transpose()
    }

    /// The height of the oldest block that is kept.
    pub fn earliest(&self) -> Result<Option<u64>, ReadError> {
        Ok(self.transaction.open_table(HEADERS)?.first()?.map(|(number, _)| number.value()))
    }

    /// The header at a height.
    pub fn header(&self, number: u64) -> Result<Option<IndexedHeader>, ReadError> {
        let row = self.transaction.open_table(HEADERS)?.get(number)?;
        row.map(|row| whole(row.value(), "header", number)).transpose()
    }

    /// The height of a block.
    pub fn number(&self, hash: &B256) -> Result<Option<u64>, ReadError> {
        Ok(self.transaction.open_table(BLOCK_NUMBERS)?.get(&hash.0)?.map(|number| number.value()))
    }

    /// The certificate of the block at a height.
    pub fn certificate(&self, number: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.transaction.open_table(CERTIFICATES)?.get(number)?.map(|row| row.value().to_vec()))
    }

    /// The transactions of the block at a height.
    pub fn transactions(&self, number: u64) -> Result<Vec<IndexedTransaction>, ReadError> {
        let table = self.transaction.open_table(TRANSACTIONS)?;
        table
            .range((number, 0)..=(number, u32::MAX))?
            .map(|row| whole(row?.1.value(), "transaction", number))
            .collect()
    }

    /// What the transactions of the block at a height did.
    pub fn receipts(&self, number: u64) -> Result<Vec<IndexedReceipt>, ReadError> {
        let table = self.transaction.open_table(RECEIPTS)?;
        table
            .range((number, 0)..=(number, u32::MAX))?
            .map(|row| whole(row?.1.value(), "receipt", number))
            .collect()
    }

    /// The transaction at a place.
    pub fn transaction(&self, place: Place) -> Result<Option<IndexedTransaction>, ReadError> {
        let row = self.transaction.open_table(TRANSACTIONS)?.get((place.number, place.index))?;
        row.map(|row| whole(row.value(), "transaction", place.number)).transpose()
    }

    /// What the transaction at a place did.
    pub fn receipt(&self, place: Place) -> Result<Option<IndexedReceipt>, ReadError> {
        let row = self.transaction.open_table(RECEIPTS)?.get((place.number, place.index))?;
        row.map(|row| whole(row.value(), "receipt", place.number)).transpose()
    }

    /// Where a transaction is.
    pub fn find_transaction(&self, hash: &B256) -> Result<Option<(Place, IndexedTransaction)>, ReadError> {
        let places = self.transaction.open_table(TRANSACTION_PLACES)?;
        let prefix = prefix(hash);
        for entry in places.range((prefix, 0, 0)..=(prefix, u64::MAX, u32::MAX))? {
            let (_, number, index) = entry?.0.value();
            let place = Place { number, index };
            if let Some(transaction) = self.transaction(place)?
                && transaction.hash() == *hash
            {
                return Ok(Some((place, transaction)));
            }
        }
        Ok(None)
    }

    /// The logs that are wanted, in order.
    pub fn logs(&self, query: &LogQuery, bounds: LogBounds) -> Result<Vec<FoundLog>, LogsError> {
        let groups = query.groups();
        let terms = groups.iter().map(Vec::len).sum();
        if terms > bounds.terms_max {
            return Err(LogsError::Terms { terms, max: bounds.terms_max });
        }
        let postings = self.transaction.open_table(POSTINGS).map_err(ReadError::from)?;
        let mut found = Vec::new();
        let (mut seeks, mut blocks) = (0_usize, 0_usize);
        let mut next = Some(query.from);
        while let Some(from) = next.filter(|from| *from <= query.to) {
            let through = from.checked_sub(1).filter(|through| *through >= query.from);
            let number = match common(&postings, &groups, from, query.to, bounds.seeks_max, &mut seeks)? {
                Common::At(number) => number,
                Common::None => break,
                Common::TooFar => return Err(LogsError::Work { through }),
            };
            let through = number.checked_sub(1).filter(|through| *through >= query.from);
            blocks += 1;
            if blocks > bounds.blocks_max {
                return Err(LogsError::Work { through });
            }
            self.logs_of(number, query, &mut found)?;
            if found.len() > bounds.logs_max {
                return Err(LogsError::Logs { max: bounds.logs_max, through });
            }
            next = number.checked_add(1);
        }
        Ok(found)
    }

    /// The wanted logs of one block, whatever blocks the query names.
    pub fn block_logs(&self, number: u64, query: &LogQuery) -> Result<Vec<FoundLog>, ReadError> {
        let mut found = Vec::new();
        self.logs_of(number, query, &mut found)?;
        Ok(found)
    }

    /// Adds the wanted logs of one block.
    fn logs_of(&self, number: u64, query: &LogQuery, found: &mut Vec<FoundLog>) -> Result<(), ReadError> {
        let mut header = None;
        for (index, receipt) in (0..).zip(self.receipts(number)?) {
            let wanted = (receipt.log_index_first..).zip(receipt.logs).filter(|(_, log)| query.matches(log));
            let place = Place { number, index };
            let mut transaction_hash = None;
            for (log_index, log) in wanted {
                let header = match &header {
                    Some(header) => header,
                    None => header.insert(self.header(number)?.ok_or(ReadError::row("header", number))?),
                };
                let transaction_hash = match transaction_hash {
                    Some(hash) => hash,
                    None => {
                        let transaction =
                            self.transaction(place)?.ok_or(ReadError::row("transaction", number))?;
                        *transaction_hash.insert(transaction.hash())
                    }
                };
                found.push(FoundLog {
                    log,
                    place,
                    log_index,
                    block_hash: header.hash,
                    block_timestamp_ms: header.timestamp_ms,
                    transaction_hash,
                });
            }
        }
        Ok(())
    }
}

/// Where the groups of terms meet next.
enum Common {
    At(u64),
    None,
    TooFar,
}

/// The first block between `from` and `to` that has a term of every group: each group in turn moves the candidate on,
/// until none does.
fn common(
    postings: &impl ReadableTable<(u64, u64), ()>,
    groups: &[Vec<u64>],
    from: u64,
    to: u64,
    seeks_max: usize,
    seeks: &mut usize,
) -> Result<Common, ReadError> {
    let mut candidate = from;
    loop {
        let before = candidate;
        for group in groups {
            let mut nearest = None;
            for term in group {
                *seeks += 1;
                if *seeks > seeks_max {
                    return Ok(Common::TooFar);
                }
                let first = postings.range((*term, candidate)..=(*term, to))?.next().transpose()?;
                if let Some((key, ())) = first.map(|(key, _)| (key, ())) {
                    let number = key.value().1;
                    nearest = Some(nearest.map_or(number, |nearest: u64| nearest.min(number)));
                }
            }
            match nearest {
                Some(number) => candidate = number,
                None => return Ok(Common::None),
            }
        }
        if candidate == before {
            return Ok(Common::At(candidate));
        }
    }
}

fn whole<T: alloy_rlp::Decodable>(row: &[u8], what: &'static str, number: u64) -> Result<T, ReadError> {
    decode(row).ok_or(ReadError::row(what, number))
}
