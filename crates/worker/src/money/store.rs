//! What of the book outlives the process: channels, the receipts' log, and what hosting came to, in one file.
//!
//! In:     rows and leaves, each to be on the disk before its receipt leaves; proofs that landed. Out: what was kept.
//! Touches: `book.redb` in the worker's folder, and one thread that writes it.
//! Holds:  what [`Store::keep`] returned from is on the disk; many at once share one commit; a leaf's place in its epoch's
//!         log never changes.
//! Absent: what any of it means (`book`, `duties`).

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use surety_types::{AuditEvidence, Canonical, Channel, Digest, ModelId, Order, Signed};
use tokio::sync::oneshot;

use super::book::Row;

const FILE: &str = "book.redb";
/// Channel, highest voucher, its signature, settled.
type KeptRow<'a> = (&'a [u8], u128, &'a [u8], u128);
/// By channel id.
const CHANNELS: TableDefinition<'_, &[u8], KeptRow<'_>> = TableDefinition::new("channels");
/// Epoch and place → receipt digest.
const LEAVES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("leaves");
/// Receipt digest → its epoch and place.
const PLACES: TableDefinition<'_, &[u8], (u64, u64)> = TableDefinition::new("places");
/// Salt, state digest, evidence.
type CaseRow<'a> = (&'a [u8], &'a [u8], &'a [u8]);
/// Receipt digest → what an audit of it needs.
const CASES: TableDefinition<'_, &[u8], CaseRow<'_>> = TableDefinition::new("cases");
/// Epoch and receipt digest → bytes of that.
const CASES_BY_AGE: TableDefinition<'_, (u64, &[u8]), u64> = TableDefinition::new("cases by age");
/// Bytes of all of that; the oldest go first.
const CASES_BYTES_MAX: u64 = 1 << 30;
/// Day (of Unix time) and model.
type EarnedKey<'a> = (u64, &'a [u8]);
/// Orders, prompt tokens, output tokens, wei.
type EarnedRow = (u64, u64, u64, u128);
/// What was charged.
const EARNED: TableDefinition<'_, EarnedKey<'_>, EarnedRow> = TableDefinition::new("earned");
/// Proofs, wei paid for them, wei of gas.
type ProvenRow = (u64, u128, u128);
/// What proofs of hosting were paid, by day and model.
const PROVEN: TableDefinition<'_, EarnedKey<'_>, ProvenRow> = TableDefinition::new("proven");
/// Models that were fetched in order to host them → their file's digest and its size.
const FETCHED: TableDefinition<'_, &[u8], (&[u8], u64)> = TableDefinition::new("fetched");
/// Days of which this is kept.
const EARNED_DAYS: u64 = 400;
/// Epochs whose root stands on the ledger.
const POSTED: TableDefinition<'_, u64, u64> = TableDefinition::new("posted");
/// What one commit takes at most.
const BATCH_MAX: usize = 256;
/// Memory for redb's pages.
const CACHE_BYTES: usize = 16 << 20;

/// Why the book cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// Another process has it open.
    #[error("{} is in use by another worker", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The folder or the file cannot be made, read or written.
    #[error("cannot open {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<redb::Error>,
    },
    /// No thread could be started.
    #[error("cannot start the thread that writes the book")]
    Thread(#[source] std::io::Error),
}

impl BookError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            BookError::InUse { .. } => {
                "stop the other worker, or give this one a data folder and an account of its own"
            }
            BookError::File { .. } => {
                "check that the data folder is writable and has room; if the file is damaged, move it away: what was \
                 promised and not claimed is lost with it"
            }
            BookError::Thread(_) => "raise the limit on threads",
        }
    }
}

/// Something was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the worker's book cannot be written: {0}")]
pub(crate) struct NotKept(String);

/// What receipts of one model charged on one day (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earned {
    /// Days since 1970.
    pub day: u64,
    /// The model.
    pub model: ModelId,
    /// Receipts that charged something.
    pub orders: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Tokens of their outputs.
    pub output_tokens: u64,
    /// What they charged.
    pub wei: u128,
}

/// What proofs of hosting of one model were paid on one day (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Days since 1970.
    pub day: u64,
    /// The model.
    pub model: ModelId,
    /// Epochs in which it was proven.
    pub proofs: u64,
    /// What was paid for that; nothing to those who come after enough others.
    pub wei: u128,
    /// What their gas cost.
    pub gas_wei: u128,
}

/// A model that was fetched in order to host it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) model: ModelId,
    pub(crate) file: Digest,
    pub(crate) bytes: u64,
}

/// What an audit or a dispute of one receipt needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) evidence: AuditEvidence,
    /// Opens the receipt's state commitment with the state digest; both zero for a failure.
    pub(crate) salt: [u8; 32],
    pub(crate) state_digest: Digest,
}

enum Job {
    Proven {
        new: Proven,
        done: oneshot::Sender<Result<(), NotKept>>,
    },
    Fetched(Fetched),
    LetGo(ModelId),

    Case {
        epoch: u64,
        receipt: Digest,
        case: Box<Case>,
    },
    Keep {
        row: Option<Box<(Digest, Row)>>,
        leaf: Option<(u64, Digest)>,
        earned: Option<Box<Earned>>,
        done: oneshot::Sender<Result<(), NotKept>>,
    },
    Forget(Vec<Digest>),
    Posted(u64),
    Prune {
        before: u64,
    },
}

/// What was handed over; awaiting it returns when it is on the disk.
pub(crate) struct Keeping(oneshot::Receiver<Result<(), NotKept>>);

impl Keeping {
    pub(crate) async fn done(self) -> Result<(), NotKept> {
        self.0.await.unwrap_or_else(|_| Err(NotKept("its thread has ended".to_owned())))
    }
}

/// The kept book.
#[derive(Clone)]
pub(crate) struct Store {
    database: Arc<Database>,
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Opens what is in `folder`, or makes it; and what it holds.
    pub(crate) fn open(folder: &Path) -> Result<(Store, Vec<(Digest, Row)>), BookError> {
        let path = folder.join(FILE);
        let opened = open(folder, &path).and_then(|database| Ok((rows(&database)?, database)));
        let (rows, database) = opened.map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => BookError::InUse { path: path.clone() },
            source => BookError::File { path: path.clone(), source: Box::new(source) },
        })?;
        let database = Arc::new(database);
        // As many jobs as orders can end at once: the sessions bound it.
        let (jobs, queue) = mpsc::channel();
        let written = Arc::clone(&database);
        thread::Builder::new()
            .name("book".to_owned())
            .spawn(move || write_all(&queue, &written))
            .map_err(BookError::Thread)?;
        Ok((Store { database, jobs }, rows))
    }

    /// Hands over a channel and a receipt's leaf in an epoch. The order of calls is the order of leaves.
    pub(crate) fn keep(
        &self,
        row: Option<(Digest, Row)>,
        leaf: Option<(u64, Digest)>,
        earned: Option<Earned>,
    ) -> Keeping {
        let (done, kept) = oneshot::channel();
        // If the thread has ended, so has the other half of `done`.
        let _ =
            self.jobs.send(Job::Keep { row: row.map(Box::new), leaf, earned: earned.map(Box::new), done });
        Keeping(kept)
    }

    /// Hands over what an audit of a receipt needs; what is kept afterwards is on the disk no earlier.
    pub(crate) fn keep_case(&self, epoch: u64, receipt: Digest, case: Case) {
        let _ = self.jobs.send(Job::Case { epoch, receipt, case: Box::new(case) });
    }

    /// What was kept of the answer to an order, if it is still there. Reads all that was kept: such a question is rare.
    pub(crate) fn case_of_order(&self, order: &Digest) -> Result<Option<Case>, NotKept> {
        let find = || -> Result<Option<Digest>, redb::Error> {
            let cases = self.database.begin_read()?.open_table(CASES)?;
            for entry in cases.iter()? {
                let (receipt, row) = entry?;
                let Ok(evidence) = AuditEvidence::from_cbor(row.value().2) else { continue };
                let is_it = Signed::<Order>::peek_value(&evidence.order)
                    .is_ok_and(|(kept, _)| kept.digest() == *order);
                if is_it {
                    return Ok(receipt.value().try_into().ok().map(Digest));
                }
            }
            Ok(None)
        };
        match find().map_err(|error| NotKept(error.to_string()))? {
            Some(receipt) => self.case(&receipt),
            None => Ok(None),
        }
    }

    /// What an audit of a receipt needs, if it is still there. Reads the disk.
    pub(crate) fn case(&self, receipt: &Digest) -> Result<Option<Case>, NotKept> {
        let read = || -> Result<Option<Case>, redb::Error> {
            let cases = self.database.begin_read()?.open_table(CASES)?;
            let Some(row) = cases.get(&receipt.0[..])? else { return Ok(None) };
            let (salt, state_digest, evidence) = row.value();
            let broken = |_| redb::Error::Corrupted("the evidence of a receipt cannot be read".to_owned());
            Ok(Some(Case {
                evidence: AuditEvidence::from_cbor(evidence).map_err(broken)?,
                salt: salt.try_into().unwrap_or_default(),
                state_digest: Digest(state_digest.try_into().unwrap_or_default()),
            }))
        };
        read().map_err(|error| NotKept(error.to_string()))
    }

    /// Forgets channels, at some time soon.
    pub(crate) fn forget(&self, channels: Vec<Digest>) {
        if !channels.is_empty() {
            let _ = self.jobs.send(Job::Forget(channels));
        }
    }

    /// Hands over that a proof of hosting landed.
    pub(crate) fn proven(&self, new: Proven) -> Keeping {
        let (done, kept) = oneshot::channel();
        let _ = self.jobs.send(Job::Proven { new, done });
        Keeping(kept)
    }

    /// A model's file was fetched in order to host it.
    pub(crate) fn fetched(&self, fetched: Fetched) {
        let _ = self.jobs.send(Job::Fetched(fetched));
    }

    /// A model that was fetched is hosted no more.
    pub(crate) fn let_go(&self, model: ModelId) {
        let _ = self.jobs.send(Job::LetGo(model));
    }

    /// What proofs of hosting were paid, by day and model, the oldest first. Reads the disk.
    pub(crate) fn all_proven(&self) -> Result<Vec<Proven>, NotKept> {
        let read = || -> Result<Vec<Proven>, redb::Error> {
            let proven = self.database.begin_read()?.open_table(PROVEN)?;
            let mut rows = Vec::new();
            for entry in proven.iter()? {
                let (key, value) = entry?;
                let ((day, model), (proofs, wei, gas_wei)) = (key.value(), value.value());
                let model = ModelId(Digest(model.try_into().unwrap_or_default()));
                rows.push(Proven { day, model, proofs, wei, gas_wei });
            }
            Ok(rows)
        };
        read().map_err(|error| NotKept(error.to_string()))
    }

    /// The models that were fetched and not let go. Reads the disk.
    pub(crate) fn all_fetched(&self) -> Result<Vec<Fetched>, NotKept> {
        let read = || -> Result<Vec<Fetched>, redb::Error> {
            let fetched = self.database.begin_read()?.open_table(FETCHED)?;
            let mut rows = Vec::new();
            for entry in fetched.iter()? {
                let (model, value) = entry?;
                let (file, bytes) = value.value();
                let digest = |bytes: &[u8]| Digest(bytes.try_into().unwrap_or_default());
                rows.push(Fetched { model: ModelId(digest(model.value())), file: digest(file), bytes });
            }
            Ok(rows)
        };
        read().map_err(|error| NotKept(error.to_string()))
    }

    /// An epoch's root stands on the ledger.
    pub(crate) fn posted(&self, epoch: u64) {
        let _ = self.jobs.send(Job::Posted(epoch));
    }

    /// Forgets the logs of epochs before one.
    pub(crate) fn prune(&self, before: u64) {
        let _ = self.jobs.send(Job::Prune { before });
    }

    /// Epochs before `now` that have leaves and no root on the ledger yet. Reads the disk.
    pub(crate) fn unposted(&self, now: u64) -> Result<Vec<u64>, NotKept> {
        let read = || -> Result<Vec<u64>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let (leaves, posted) = (transaction.open_table(LEAVES)?, transaction.open_table(POSTED)?);
            let (mut epochs, mut from) = (Vec::new(), 0);
            while let Some(entry) = leaves.range((from, 0)..(now, 0))?.next() {
                let (epoch, _) = entry?.0.value();
                if posted.get(epoch)?.is_none() {
                    epochs.push(epoch);
                }
                from = epoch + 1;
            }
            Ok(epochs)
        };
        read().map_err(|error| NotKept(error.to_string()))
    }

    /// What was charged, by day and model, the oldest first. Reads the disk.
    pub(crate) fn earned(&self) -> Result<Vec<Earned>, NotKept> {
        let read = || -> Result<Vec<Earned>, redb::Error> {
            let earned = self.database.begin_read()?.open_table(EARNED)?;
            let mut rows = Vec::new();
            for entry in earned.iter()? {
                let (key, value) = entry?;
                let ((day, model), (orders, prompt_tokens, output_tokens, wei)) =
                    (key.value(), value.value());
                let model = ModelId(Digest(model.try_into().unwrap_or_default()));
                rows.push(Earned { day, model, orders, prompt_tokens, output_tokens, wei });
            }
            Ok(rows)
        };
        read().map_err(|error| NotKept(error.to_string()))
    }

    /// The epoch in whose log a receipt stands, and where there. Reads the disk.
    pub(crate) fn place(&self, receipt: &Digest) -> Result<Option<(u64, u64)>, NotKept> {
        let read = || -> Result<_, redb::Error> {
            let places = self.database.begin_read()?.open_table(PLACES)?;
            Ok(places.get(&receipt.0[..])?.map(|place| place.value()))
        };
        read().map_err(|error| NotKept(error.to_string()))
    }

    /// Whether an epoch's root stands on the ledger. Reads the disk.
    pub(crate) fn is_posted(&self, epoch: u64) -> Result<bool, NotKept> {
        let read = || -> Result<_, redb::Error> {
            Ok(self.database.begin_read()?.open_table(POSTED)?.get(epoch)?.is_some())
        };
        read().map_err(|error| NotKept(error.to_string()))
    }

    /// The receipts of an epoch, in the order of its log. Reads the disk.
    pub(crate) fn leaves(&self, epoch: u64) -> Result<Vec<Digest>, NotKept> {
        let read = || -> Result<Vec<Digest>, redb::Error> {
            let leaves = self.database.begin_read()?.open_table(LEAVES)?;
            let mut digests = Vec::new();
            for entry in leaves.range((epoch, 0)..=(epoch, u64::MAX))? {
                digests.push(Digest(entry?.1.value().try_into().unwrap_or_default()));
            }
            Ok(digests)
        };
        read().map_err(|error| NotKept(error.to_string()))
    }
}

fn open(folder: &Path, path: &Path) -> Result<Database, redb::Error> {
    let mut builder = std::fs::DirBuilder::new();
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        builder.mode(0o700);
        options.mode(0o600);
    }
    builder.recursive(true).create(folder)?;
    let database = Database::builder().set_cache_size(CACHE_BYTES).create_file(options.open(path)?)?;
    let transaction = database.begin_write()?;
    transaction.open_table(CHANNELS)?;
    transaction.open_table(LEAVES)?;
    transaction.open_table(PLACES)?;
    transaction.open_table(POSTED)?;
    transaction.open_table(EARNED)?;
    transaction.open_table(PROVEN)?;
    transaction.open_table(FETCHED)?;
    transaction.open_table(CASES)?;
    transaction.open_table(CASES_BY_AGE)?;
    transaction.commit()?;
    Ok(database)
}

fn rows(database: &Database) -> Result<Vec<(Digest, Row)>, redb::Error> {
    let channels = database.begin_read()?.open_table(CHANNELS)?;
    let mut rows = Vec::new();
    for entry in channels.iter()? {
        let (id, value) = entry?;
        let (channel, highest, signature, settled) = value.value();
        let broken = |what: &str| redb::Error::Corrupted(format!("a channel's {what} cannot be read"));
        let row = Row {
            channel: Channel::from_cbor(channel).map_err(|_| broken("configuration"))?,
            highest,
            signature: signature.try_into().map_err(|_| broken("signature"))?,
            settled,
        };
        rows.push((Digest(id.value().try_into().map_err(|_| broken("id"))?), row));
    }
    Ok(rows)
}

/// The writing thread: takes what waits, commits it together, tells each.
fn write_all(queue: &mpsc::Receiver<Job>, database: &Database) {
    let mut room = Room { most: CASES_BYTES_MAX, taken: None };
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(BATCH_MAX - 1));
        let result = commit(database, &jobs, &mut room).map_err(|error| NotKept(error.to_string()));
        if let Err(error) = &result {
            tracing::error!(%error, jobs = jobs.len(), "the book was not written");
        }
        for job in jobs {
            if let Job::Keep { done, .. } | Job::Proven { done, .. } = job {
                let _ = done.send(result.clone());
            }
        }
    }
}

/// How much the cases take.
struct Room {
    most: u64,
    /// Not known before the first case, nor after a commit that failed.
    taken: Option<u64>,
}

fn commit(database: &Database, jobs: &[Job], room: &mut Room) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut taken = room.taken.take();
    {
        let mut cases = transaction.open_table(CASES)?;
        let mut by_age = transaction.open_table(CASES_BY_AGE)?;
        let mut channels = transaction.open_table(CHANNELS)?;
        let mut leaves = transaction.open_table(LEAVES)?;
        let mut places = transaction.open_table(PLACES)?;
        let mut posted = transaction.open_table(POSTED)?;
        let mut table = transaction.open_table(EARNED)?;
        let mut proven = transaction.open_table(PROVEN)?;
        let mut fetched = transaction.open_table(FETCHED)?;
        for job in jobs {
            match job {
                Job::Case { epoch, receipt, case } => {
                    let Ok(evidence) = case.evidence.try_to_cbor() else { continue };
                    let bytes = evidence.len() as u64;
                    let mut sum = match taken {
                        Some(taken) => taken,
                        None => {
                            let mut sum = 0;
                            for entry in by_age.iter()? {
                                sum += entry?.1.value();
                            }
                            sum
                        }
                    };
                    let row = (&case.salt[..], &case.state_digest.0[..], &evidence[..]);
                    cases.insert(&receipt.0[..], row)?;
                    by_age.insert((*epoch, &receipt.0[..]), bytes)?;
                    sum += bytes;
                    while sum > room.most {
                        let Some((key, bytes)) = by_age.pop_first()? else { break };
                        cases.remove(key.value().1)?;
                        sum = sum.saturating_sub(bytes.value());
                    }
                    taken = Some(sum);
                }
                Job::Keep { row, leaf, earned, .. } => {
                    if let Some(new) = earned.as_deref() {
                        let key = (new.day, &new.model.0.0[..]);
                        let before = table.get(key)?.map(|row| row.value()).unwrap_or_default();
                        let row = (
                            before.0.saturating_add(new.orders),
                            before.1.saturating_add(new.prompt_tokens),
                            before.2.saturating_add(new.output_tokens),
                            before.3.saturating_add(new.wei),
                        );
                        table.insert(key, row)?;
                        let oldest = new.day.saturating_sub(EARNED_DAYS);
                        table.retain_in((0, &[][..])..(oldest, &[][..]), |_, _| false)?;
                    }
                    if let Some((id, row)) = row.as_deref() {
                        let channel = row.channel.to_cbor();
                        let value = (&channel[..], row.highest, &row.signature[..], row.settled);
                        channels.insert(&id.0[..], value)?;
                    }
                    if let Some((epoch, digest)) = leaf {
                        let last = leaves.range((*epoch, 0)..=(*epoch, u64::MAX))?.next_back().transpose()?;
                        let place = last.map_or(0, |(key, _)| key.value().1 + 1);
                        leaves.insert((*epoch, place), &digest.0[..])?;
                        places.insert(&digest.0[..], (*epoch, place))?;
                    }
                }
                Job::Proven { new, .. } => {
                    let key = (new.day, &new.model.0.0[..]);
                    let before = proven.get(key)?.map(|row| row.value()).unwrap_or_default();
                    let row = (
                        before.0.saturating_add(new.proofs),
                        before.1.saturating_add(new.wei),
                        before.2.saturating_add(new.gas_wei),
                    );
                    proven.insert(key, row)?;
                    let oldest = new.day.saturating_sub(EARNED_DAYS);
                    proven.retain_in((0, &[][..])..(oldest, &[][..]), |_, _| false)?;
                }
                Job::Fetched(new) => {
                    fetched.insert(&new.model.0.0[..], (&new.file.0[..], new.bytes))?;
                }
                Job::LetGo(model) => drop(fetched.remove(&model.0.0[..])?),
                Job::Forget(ids) => {
                    for id in ids {
                        channels.remove(&id.0[..])?;
                    }
                }
                Job::Posted(epoch) => drop(posted.insert(*epoch, 0)?),
                Job::Prune { before } => {
                    for entry in leaves.extract_from_if((0, 0)..(*before, 0), |_, _| true)? {
                        places.remove(entry?.1.value())?;
                    }
                    posted.retain_in(0..*before, |_, _| false)?;
                    let mut gone = Vec::new();
                    for entry in by_age.range((0, &[][..])..(*before, &[][..]))? {
                        gone.push(entry?.0.value().1.to_vec());
                    }
                    if !gone.is_empty() {
                        by_age.retain_in((0, &[][..])..(*before, &[][..]), |_, _| false)?;
                        for receipt in gone {
                            cases.remove(&receipt[..])?;
                        }
                        taken = None;
                    }
                }
            }
        }
    }
    transaction.commit()?;
    room.taken = taken;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(bytes: usize) -> Case {
        let evidence = AuditEvidence { request: vec![7; bytes], ..AuditEvidence::default() };
        Case { evidence, salt: [1; 32], state_digest: Digest([2; 32]) }
    }

    fn kept(database: &Database) -> (usize, u64) {
        let read = database.begin_read().unwrap();
        let by_age = read.open_table(CASES_BY_AGE).unwrap();
        let cases = read.open_table(CASES).unwrap();
        let bytes = by_age.iter().unwrap().map(|entry| entry.unwrap().1.value()).sum();
        assert_eq!(by_age.iter().unwrap().count(), cases.iter().unwrap().count());
        (cases.iter().unwrap().count(), bytes)
    }

    #[test]
    fn cases_take_bounded_room_and_the_oldest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let database = open(folder.path(), &folder.path().join(FILE)).unwrap();
        let mut room = Room { most: 5_000, taken: None };
        for number in 0..10u8 {
            let (receipt, case) = (Digest([number; 32]), Box::new(case(1_000)));
            commit(&database, &[Job::Case { epoch: number.into(), receipt, case }], &mut room).unwrap();
        }
        let (count, bytes) = kept(&database);
        assert_eq!((count, room.taken), (4, Some(bytes)));
        commit(&database, &[Job::Prune { before: 8 }], &mut room).unwrap();
        assert_eq!((kept(&database).0, room.taken), (2, None));
        let (receipt, case) = (Digest([20; 32]), Box::new(case(1_000)));
        commit(&database, &[Job::Case { epoch: 20, receipt, case }], &mut room).unwrap();
        assert_eq!((kept(&database).0, room.taken), (3, Some(kept(&database).1)));
    }

    #[test]
    fn a_case_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let database = open(folder.path(), &folder.path().join(FILE)).unwrap();
        let mut room = Room { most: 5_000, taken: None };
        let (receipt, case) = (Digest([3; 32]), case(10));
        let job = Job::Case { epoch: 1, receipt, case: Box::new(case.clone()) };
        commit(&database, &[job], &mut room).unwrap();
        drop(database);
        let (store, _) = Store::open(folder.path()).unwrap();
        assert_eq!(store.case(&receipt).unwrap(), Some(case));
        assert_eq!(store.case(&Digest([4; 32])).unwrap(), None);
    }
}
