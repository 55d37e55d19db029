//! What holds of every file, whatever is in it; and a disk that can be full.

use std::io::ErrorKind;

use redb::{ReadableTable as _, StorageBackend, TableDefinition};

use super::*;

/// A file on a disk that can be full.
#[derive(Debug)]
pub(crate) struct FullDisk {
    file: redb::backends::FileBackend,
    full: Arc<AtomicBool>,
}

/// Whether a disk is full.
#[derive(Debug, Default)]
pub(crate) struct Full(Arc<AtomicBool>);

impl Full {
    pub(crate) fn set(&self, full: bool) {
        self.0.store(full, Ordering::SeqCst);
    }
}

impl FullDisk {
    /// Opens tables on one; and what makes it full.
    pub(crate) fn holding<T: Tables>(directory: &Path, tables: T) -> (Disk<T>, Writer, Full) {
        let full = Full::default();
        let (file, switch) = (path_of::<T>(directory), Arc::clone(&full.0));
        let opened = Disk::with(file.clone(), tables, move || FullDisk::open(&file, &switch));
        let (disk, writer) = opened.expect("opened");
        (disk, writer, full)
    }

    fn open(path: &Path, full: &Arc<AtomicBool>) -> Result<Database, redb::DatabaseError> {
        let file = redb::backends::FileBackend::new(open_private(path)?)?;
        Database::builder().create_with_backend(FullDisk { file, full: Arc::clone(full) })
    }

    fn check(&self) -> Result<(), io::Error> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::from(ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl StorageBackend for FullDisk {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.check()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }
}

/// Makes changes at a time of one's own, past the thread.
pub(crate) fn applied<T: Tables>(
    disk: &Disk<T>,
    tables: &T,
    changes: Vec<T::Change>,
    now_ms: u64,
) -> Vec<T::Outcome> {
    let guard = disk.0.database.read().expect("no panic");
    commit(guard.as_ref().expect("open"), tables, changes, now_ms).expect("written")
}

const NUMBERS: TableDefinition<'_, u64, u64> = TableDefinition::new("numbers");

/// Numbers, each with its place among all that ever came.
struct Numbers;

impl Tables for Numbers {
    type Change = u64;
    /// Its place.
    type Outcome = u64;

    const NAME: &'static str = "numbers";
    const PACE: Pace = Pace {
        gather: Duration::from_secs(3600),
        waiting_max: 4,
        batch_max: 3,
        batch_bytes_max: 20,
        cache_bytes: 1 << 20,
    };

    fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(NUMBERS)?;
        Ok(())
    }

    fn apply(
        &self,
        transaction: &WriteTransaction,
        changes: Vec<u64>,
        _now_ms: u64,
    ) -> Result<Vec<u64>, redb::Error> {
        assert!((1..=3).contains(&changes.len()), "{changes:?}");
        let mut numbers = transaction.open_table(NUMBERS)?;
        let next = numbers.last()?.map_or(0, |(place, _)| place.value() + 1);
        let places: Vec<u64> = (next..).take(changes.len()).collect();
        for (place, number) in places.iter().zip(changes) {
            numbers.insert(place, number)?;
        }
        Ok(places)
    }

    fn bytes(change: &u64) -> usize {
        *change as usize
    }
}

fn numbers(disk: &Disk<Numbers>) -> Vec<u64> {
    let all = |transaction: &ReadTransaction| {
        transaction.open_table(NUMBERS)?.iter()?.map(|row| Ok(row?.1.value())).collect()
    };
    disk.read(all).expect("read")
}

#[tokio::test]
async fn changes_are_written_in_their_order_and_whoever_waits_hurries_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let (disk, writer) = Disk::open(directory.path(), Numbers).expect("opened");
    // Nothing but haste ends an hour's gathering.
    drop(disk.post(1));
    assert!(disk.offer(2));
    let third = disk.post(3);
    assert_eq!(disk.keep(4).await, Ok(3));
    assert_eq!(third.outcome().await, Ok(2));
    drop(disk.post(5));
    disk.flush().await;
    assert_eq!(numbers(&disk), [1, 2, 3, 4, 5]);
    // More than there is room for waits, and is not lost.
    let (posting, last) = (disk.clone(), disk.clone());
    let many = tokio::task::spawn_blocking(move || {
        for number in 6..30 {
            drop(posting.post(number));
            posting.hurry();
        }
    });
    many.await.expect("posted");
    assert_eq!(last.keep(30).await, Ok(29));
    assert_eq!(numbers(&disk), (1..=30).collect::<Vec<_>>());
    // What nobody waited for is written before the thread ends.
    drop(disk.post(31));
    drop((disk, last));
    writer.join();
    let (disk, _writer) = Disk::open(directory.path(), Numbers).expect("opened");
    assert_eq!(numbers(&disk).last(), Some(&31));
}

#[tokio::test]
async fn a_full_disk_fails_what_it_meets_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let (disk, _writer, full) = FullDisk::holding(directory.path(), Numbers);
    assert_eq!(disk.keep(1).await, Ok(0));
    full.set(true);
    drop(disk.post(2));
    assert_eq!(disk.keep(3).await, Err(WriteError::Failed("disk full".to_owned())));
    // Closed by the failure, it can neither be opened nor read while the disk is full.
    assert!(disk.keep(4).await.is_err());
    full.set(false);
    let _ = disk.keep(5).await;
    assert!(disk.keep(6).await.is_ok());
    let left = numbers(&disk);
    assert_eq!((left.first(), left.last()), (Some(&1), Some(&6)));
    assert!([2, 3, 4].iter().all(|lost| !left.contains(lost)), "{left:?}");
}

#[tokio::test]
async fn a_file_that_is_gone_is_not_made_anew_under_a_running_gateway() {
    let directory = tempfile::tempdir().expect("a directory");
    let (disk, _writer, full) = FullDisk::holding(directory.path(), Numbers);
    assert_eq!(disk.keep(1).await, Ok(0));
    fs::remove_file(path_of::<Numbers>(directory.path())).expect("removed");
    full.set(true);
    assert!(disk.keep(2).await.is_err());
    full.set(false);
    assert!(disk.keep(3).await.is_err() && disk.keep(4).await.is_err());
    assert!(disk.read(|_| Ok(())).is_err());
}
