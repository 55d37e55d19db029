use std::{
    io,
    sync::{Arc, Mutex},
};

use alloy_primitives::{Address, Bytes, Log};
use proptest::prelude::*;

use super::*;

const GENESIS: B256 = B256::repeat_byte(1);

/// A disk that can lose what was not synced, from one moment on.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Writes before the power goes; none is never.
    writes_left: Option<u64>,
}

impl Disk {
    /// The disk as it is found after the power went.
    fn after_power_loss(&self) -> Self {
        let state = self.0.lock().expect("no panic");
        let found = state.synced.clone();
        Self(Arc::new(Mutex::new(DiskState { now: found.clone(), synced: found, writes_left: None })))
    }

    fn fail_after(&self, writes: u64) {
        self.0.lock().expect("no panic").writes_left = Some(writes);
    }

    fn act<T>(&self, act: impl FnOnce(&mut DiskState) -> T) -> io::Result<T> {
        let mut state = self.0.lock().expect("no panic");
        if let Some(left) = &mut state.writes_left {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(act(&mut state))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("no panic").now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().expect("no panic");
        let from = offset as usize;
        out.copy_from_slice(state.now.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.act(|state| state.now.resize(len as usize, 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.act(|state| state.synced = state.now.clone())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.act(|state| state.now[offset as usize..][..data.len()].copy_from_slice(data))
    }
}

fn log(writer: u8, topics: &[u8]) -> Log {
    let topics = topics.iter().map(|topic| B256::with_last_byte(*topic)).collect();
    Log::new_unchecked(Address::with_last_byte(writer), topics, Bytes::from(vec![writer]))
}

/// A block with one transaction for each list of logs.
fn block(number: u64, logs: &[Vec<Log>]) -> Arc<IndexedBlock> {
    let mut transactions = Vec::new();
    let (mut gas, mut log_index) = (0, 0);
    for (index, logs) in logs.iter().enumerate() {
        gas += 21_000;
        let body = IndexedTransaction {
            sender: Address::with_last_byte(index as u8),
            encoded: Bytes::from(format!("{number}/{index}").into_bytes()),
        };
        let receipt = IndexedReceipt {
            success: index % 2 == 0,
            gas_used: 21_000,
            cumulative_gas_used: gas,
            log_index_first: log_index,
            logs: logs.clone(),
            contract: (index == 1).then_some(Address::repeat_byte(9)),
        };
        log_index += logs.len() as u64;
        transactions.push((body, receipt));
    }
    let header = IndexedHeader {
        number,
        hash: keccak(number),
        parent_hash: keccak(number.wrapping_sub(1)),
        timestamp_ms: number * 250,
        gas_used: gas,
        transactions: logs.len() as u64,
        encoded: Bytes::from(vec![7; 3]),
        ..Default::default()
    };
    Arc::new(IndexedBlock { header, certificate: Bytes::from(vec![number as u8]), transactions })
}

fn keccak(number: u64) -> B256 {
    alloy_primitives::keccak256(number.to_be_bytes())
}

fn open(disk: &Disk, blocks_kept: Option<u64>) -> (Indexes, IndexWriter) {
    let settings = IndexSettings { blocks_kept, ..Default::default() };
    Indexes::on(disk.clone(), GENESIS, settings).expect("opens")
}

#[tokio::test]
async fn what_was_appended_is_found_by_everything_known_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (indexes, writer) = Indexes::open(folder.path(), GENESIS, IndexSettings::default()).expect("opens");
    assert_eq!((indexes.tip(), indexes.snapshot().expect("reads").tip().expect("reads")), (None, None));
    let blocks: Vec<_> = (5..9)
        .map(|number| block(number, &[vec![log(1, &[2, 3])], vec![], vec![log(4, &[]), log(1, &[])]]))
        .collect();
    for block in &blocks {
        indexes.append(Arc::clone(block)).await.expect("appended");
    }
    drop(indexes);
    writer.join();

    let (indexes, _writer) =
        Indexes::open(folder.path(), GENESIS, IndexSettings::default()).expect("opens again");
    assert_eq!(indexes.tip(), Some(8));
    let snapshot = indexes.snapshot().expect("reads");
    assert_eq!(snapshot.earliest().expect("reads"), Some(5));
    assert_eq!(snapshot.tip().expect("reads"), Some(blocks[3].header.clone()));
    for block in &blocks {
        let number = block.header.number;
        assert_eq!(snapshot.number(&block.header.hash).expect("reads"), Some(number));
        assert_eq!(snapshot.header(number).expect("reads"), Some(block.header.clone()));
        assert_eq!(snapshot.certificate(number).expect("reads"), Some(block.certificate.to_vec()));
        let both = snapshot
            .transactions(number)
            .expect("reads")
            .into_iter()
            .zip(snapshot.receipts(number).expect("reads"));
        assert_eq!(both.collect::<Vec<_>>(), block.transactions);
        for (index, (body, receipt)) in (0..).zip(&block.transactions) {
            let place = Place { number, index };
            assert_eq!(snapshot.find_transaction(&body.hash()).expect("reads"), Some((place, body.clone())));
            assert_eq!(snapshot.receipt(place).expect("reads").as_ref(), Some(receipt));
        }
    }
    assert_eq!(snapshot.find_transaction(&B256::ZERO).expect("reads"), None);
    assert_eq!(snapshot.number(&B256::ZERO).expect("reads"), None);
    assert_eq!(snapshot.header(9).expect("reads"), None);
    let second = Indexes::open(folder.path(), GENESIS, IndexSettings::default());
    assert!(matches!(second, Err(OpenIndexesError::InUse { .. })));
}

#[tokio::test]
async fn only_what_follows_is_appended() {
    let (indexes, _writer) = open(&Disk::default(), None);
    let append = |number| indexes.append(block(number, &[vec![log(1, &[])]]));
    for number in 3..6 {
        append(number).await.expect("follows");
    }
    append(4).await.expect("known");
    append(2).await.expect("older than everything kept");
    assert_eq!(append(7).await, Err(AppendError::Gap { number: 7, tip: 5 }));
    let mut other = (*block(4, &[])).clone();
    other.header.hash = B256::ZERO;
    assert_eq!(
        indexes.append(Arc::new(other)).await,
        Err(AppendError::Conflict { number: 4, kept: keccak(4), given: B256::ZERO })
    );
    assert_eq!(indexes.tip(), Some(5));
    indexes.clear().expect("forgets");
    assert_eq!(indexes.tip(), None);
    append(100).await.expect("the first");
    let snapshot = indexes.snapshot().expect("reads");
    assert_eq!(
        snapshot
            .logs(&LogQuery { to: 200, ..Default::default() }, LogBounds::default())
            .expect("found")
            .len(),
        1
    );
}

#[tokio::test]
async fn indexes_of_another_chain_are_refused() {
    let disk = Disk::default();
    drop(open(&disk, None));
    let other = Indexes::on(disk, B256::ZERO, IndexSettings::default());
    assert!(matches!(other, Err(OpenIndexesError::OtherChain { found: GENESIS, .. })));
}

#[tokio::test]
async fn a_query_that_takes_too_much_is_refused() {
    let (indexes, _writer) = open(&Disk::default(), None);
    for number in 0..20 {
        indexes.append(block(number, &[vec![log(1, &[number as u8 % 2])]])).await.expect("appended");
    }
    let snapshot = indexes.snapshot().expect("reads");
    let ask = |query: LogQuery, bounds| snapshot.logs(&query, bounds).expect_err("too much");
    let all = LogQuery { to: u64::MAX, ..Default::default() };
    let bounds = LogBounds::default();
    assert!(matches!(
        ask(all.clone(), LogBounds { logs_max: 5, ..bounds }),
        LogsError::Logs { max: 5, through: Some(4) }
    ));
    assert!(matches!(
        ask(all.clone(), LogBounds { blocks_max: 7, ..bounds }),
        LogsError::Work { through: Some(6) }
    ));
    assert!(matches!(
        ask(all.clone(), LogBounds { seeks_max: 0, ..bounds }),
        LogsError::Work { through: None }
    ));
    let many = LogQuery { addresses: vec![Address::ZERO; 2_000], ..all.clone() };
    assert!(matches!(ask(many, bounds), LogsError::Terms { terms: 2_000, .. }));
    // A range is no work where there is nothing in it.
    let nothing = LogQuery { addresses: vec![Address::repeat_byte(9)], ..all };
    assert!(snapshot.logs(&nothing, LogBounds { seeks_max: 2, ..bounds }).expect("nothing").is_empty());
}

#[tokio::test]
async fn a_full_disk_is_told_and_what_was_kept_stays() {
    let disk = Disk::default();
    let (indexes, writer) = open(&disk, None);
    indexes.append(block(0, &[vec![log(1, &[])]])).await.expect("appended");
    disk.fail_after(0);
    let failed = indexes.append(block(1, &[])).await;
    assert_eq!(failed, Err(AppendError::Write("disk full".to_owned())));
    assert_eq!(indexes.tip(), Some(0));
    drop(indexes);
    writer.join();
    let (indexes, _writer) = open(&disk.after_power_loss(), None);
    assert_eq!(indexes.tip(), Some(0));
    indexes.append(block(1, &[])).await.expect("goes on");
}

fn logs() -> impl Strategy<Value = Vec<Vec<Log>>> {
    let log =
        (0_u8..4, proptest::collection::vec(0_u8..4, 0..5)).prop_map(|(writer, topics)| log(writer, &topics));
    let log = log.prop_filter("a log has four topics at most", |log| log.topics().len() <= 4);
    proptest::collection::vec(proptest::collection::vec(log, 0..3), 0..3)
}

fn query() -> impl Strategy<Value = LogQuery> {
    let address = (0_u8..5).prop_map(Address::with_last_byte);
    let topic = || proptest::collection::vec((0_u8..5).prop_map(B256::with_last_byte), 0..3);
    (0_u64..14, 0_u64..14, proptest::collection::vec(address, 0..3), [topic(), topic(), topic(), topic()])
        .prop_map(|(from, to, addresses, topics)| LogQuery { from, to, addresses, topics })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn logs_are_found_as_by_looking_at_every_one(
        chain in proptest::collection::vec(logs(), 1..12),
        queries in proptest::collection::vec(query(), 1..12),
        kept in proptest::option::of(1_u64..6),
    ) {
        let (indexes, _writer) = open(&Disk::default(), kept);
        let blocks: Vec<_> = (0..).zip(&chain).map(|(number, logs)| block(number, logs)).collect();
        for block in &blocks {
            run(indexes.append(Arc::clone(block))).expect("appended");
        }
        let snapshot = indexes.snapshot().expect("reads");
        let first = kept.map_or(0, |kept| blocks.len().saturating_sub(kept as usize));
        prop_assert_eq!(snapshot.earliest().expect("reads"), Some(first as u64));
        for query in queries {
            let found = snapshot.logs(&query, LogBounds::default()).expect("within bounds");
            let mut expected = Vec::new();
            for block in &blocks[first..] {
                let number = block.header.number;
                let mut log_index = 0;
                for (index, (body, receipt)) in (0..).zip(&block.transactions) {
                    for log in &receipt.logs {
                        if (query.from..=query.to).contains(&number) && query.matches(log) {
                            expected.push(FoundLog {
                                log: log.clone(),
                                place: Place { number, index },
                                log_index,
                                block_hash: block.header.hash,
                                block_timestamp_ms: block.header.timestamp_ms,
                                transaction_hash: body.hash(),
                            });
                        }
                        log_index += 1;
                    }
                }
            }
            prop_assert_eq!(found, expected);
        }
        // Of pruned blocks nothing is left behind.
        for block in &blocks[..first] {
            prop_assert_eq!(snapshot.number(&block.header.hash).expect("reads"), None);
            for (body, _) in &block.transactions {
                prop_assert_eq!(snapshot.find_transaction(&body.hash()).expect("reads"), None);
            }
            prop_assert!(snapshot.receipts(block.header.number).expect("reads").is_empty());
        }
    }

    #[test]
    fn a_crash_leaves_whole_blocks(chain in proptest::collection::vec(logs(), 1..10), writes in 0_u64..200, kept in 2_u64..6) {
        let disk = Disk::default();
        let (indexes, writer) = open(&disk, Some(kept));
        disk.fail_after(writes);
        let blocks: Vec<_> = (0..).zip(&chain).map(|(number, logs)| block(number, logs)).collect();
        let appended = blocks.iter().take_while(|block| run(indexes.append(Arc::clone(block))).is_ok()).count();
        drop(indexes);
        writer.join();

        let (indexes, _writer) = open(&disk.after_power_loss(), Some(kept));
        // A commit whose confirmation was lost may still have come through; nothing confirmed is lost.
        let tip = indexes.tip().map_or(0, |tip| tip as usize + 1);
        prop_assert!(tip == appended || tip == appended + 1, "{} of {}", tip, appended);
        for block in &blocks[tip.saturating_sub(1)..] {
            run(indexes.append(Arc::clone(block))).expect("the rest can be appended again");
        }
        let snapshot = indexes.snapshot().expect("reads");
        let last = blocks.last().expect("one at least");
        prop_assert_eq!(snapshot.tip().expect("reads"), Some(last.header.clone()));
        for block in blocks.iter().rev().take(kept as usize) {
            let number = block.header.number;
            let both = snapshot.transactions(number).expect("reads").into_iter().zip(snapshot.receipts(number).expect("reads"));
            prop_assert_eq!(both.collect::<Vec<_>>(), block.transactions.clone());
        }
    }

    #[test]
    fn any_row_is_a_record_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<IndexedHeader>(&bytes);
        let _ = decode::<IndexedTransaction>(&bytes);
        if let Some(receipt) = decode::<IndexedReceipt>(&bytes) {
            prop_assert_eq!(decode::<IndexedReceipt>(&encode(&receipt)), Some(receipt));
        }
    }
}
