//! Whether a validator may vote in an epoch.
//!
//! In:     what it remembers outside its data directory, and whether the epoch's journal is there.
//! Out:    vote, or observe and why.
//! Touches: the record it is given.
//! Holds:  a key that may have voted in an epoch never votes there without the journal of those votes: two votes for one
//!         view are equivocation, whoever lost what. The record is durable before the first vote.
//! Absent: the journal itself (simplex writes it), and votes.
//!
//! A validator that missed the start of an epoch with nothing to show for it (wiped disk, lost record) sits that epoch out:
//! it follows, and votes from the next one. A new key's record says that it is new. Without any record, only at genesis is
//! there nothing to have missed, as long as a quorum says so.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// What a validator remembers of its votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attendance {
    /// Its key is new: it has signed nothing on any machine. Written once, where the key is made.
    Never,
    /// The last epoch it took part in.
    Last {
        /// The epoch.
        epoch: u64,
        /// Whether it may have voted in it.
        voting: bool,
    },
}

/// Where attendance is remembered: on another path than the data directory, so that losing one leaves the other.
pub trait VoteRecord: Send + Sync + 'static {
    /// What was stored last; `None` if nothing ever was.
    fn load(&self) -> io::Result<Option<Attendance>>;

    /// Stores, durably once this returns.
    fn store(&self, attendance: Attendance) -> io::Result<()>;
}

/// Whether a validator votes in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It votes.
    Voting,
    /// It follows without a vote.
    Observing(Why),
}

/// Why a validator does not vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its key is not in the epoch's set.
    NotAMember,
    /// It has no key: a follower.
    NoKey,
    /// It may have voted in this epoch and the journal of its votes is gone.
    JournalLost,
    /// It joined this epoch late, with nothing to show whether its key voted before.
    JoinedLate,
    /// Its record knows a later epoch than its data: the data is an old copy.
    OldData {
        /// The epoch the record knows.
        recorded: u64,
    },
    /// The record could not be read or written.
    Record(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAMember => write!(f, "its key is not in this epoch's validator set"),
            Self::NoKey => write!(f, "it follows without a validator key"),
            Self::JournalLost => write!(
                f,
                "it may have voted in this epoch and the journal of its votes is lost; voting again could equivocate, so it \
                 waits for the next epoch"
            ),
            Self::JoinedLate => write!(
                f,
                "it joined this epoch after its start without a record of what its key has signed; it waits for the next epoch"
            ),
            Self::OldData { recorded } => write!(
                f,
                "its vote record knows epoch {recorded}, its data does not: the data is an old copy; it votes after that epoch"
            ),
            Self::Record(error) => write!(f, "its vote record cannot be used: {error}"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Voting => write!(f, "voting"),
            Self::Observing(why) => write!(f, "observing: {why}"),
        }
    }
}

/// What is left of an epoch's journal in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journal {
    /// It is there.
    Kept,
    /// It was never begun: the epoch was entered here, and nothing was signed in it. Simplex begins it with the first vote.
    Unused,
    /// It is not there, and nothing shows that it never was.
    Missing,
}

/// Decides for a member that enters `epoch`. `quiet_genesis` is whether this is epoch 0 and a quorum, this one
/// included, has finalised nothing yet.
pub(crate) fn decide(
    recorded: Option<Attendance>,
    epoch: u64,
    journal: Journal,
    quiet_genesis: bool,
) -> Role {
    match recorded {
        None if quiet_genesis => Role::Voting,
        None => Role::Observing(Why::JoinedLate),
        Some(Attendance::Never) => Role::Voting,
        Some(Attendance::Last { epoch: recorded, .. }) if recorded > epoch => {
            Role::Observing(Why::OldData { recorded })
        }
        Some(Attendance::Last { epoch: recorded, .. }) if recorded < epoch => Role::Voting,
        Some(Attendance::Last { voting: false, .. }) => Role::Observing(Why::JoinedLate),
        Some(_) if journal == Journal::Missing => Role::Observing(Why::JournalLost),
        Some(_) => Role::Voting,
    }
}

/// Decides and remembers: the record says so before anything is signed.
pub(crate) fn enter(record: &dyn VoteRecord, epoch: u64, journal: Journal, quiet_genesis: bool) -> Role {
    let recorded = match record.load() {
        Ok(recorded) => recorded,
        Err(error) => return Role::Observing(Why::Record(error.to_string())),
    };
    let role = decide(recorded, epoch, journal, quiet_genesis);
    let voting = role == Role::Voting;
    let news = match recorded {
        None | Some(Attendance::Never) => true,
        // A lost journal is remembered too: the next start would find one, of observing.
        Some(Attendance::Last { epoch: last, voting: voted }) => {
            last < epoch || (last == epoch && voted && !voting)
        }
    };
    if news && let Err(error) = record.store(Attendance::Last { epoch, voting }) {
        return Role::Observing(Why::Record(error.to_string()));
    }
    role
}

/// Remembers an epoch this one follows without being a member.
pub(crate) fn attend(record: &dyn VoteRecord, epoch: u64) -> io::Result<()> {
    match record.load()? {
        // A key that is still new stays so while it only follows.
        Some(Attendance::Never) => Ok(()),
        Some(Attendance::Last { epoch: last, .. }) if last >= epoch => Ok(()),
        _ => record.store(Attendance::Last { epoch, voting: false }),
    }
}

/// A record in one small file, replaced atomically.
#[derive(Debug)]
pub struct FileVoteRecord(PathBuf);

impl FileVoteRecord {
    /// A record at `path`; its folder must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Begins the record of a key made just now; fails if there is a record already.
    pub fn begin(path: impl Into<PathBuf>) -> io::Result<Self> {
        let record = Self::new(path);
        File::create_new(&record.0)?;
        record.store(Attendance::Never)?;
        Ok(record)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl VoteRecord for FileVoteRecord {
    fn load(&self) -> io::Result<Option<Attendance>> {
        match fs::read_to_string(&self.0) {
            Ok(text) => parse(&text).map(Some).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", self.0.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn store(&self, attendance: Attendance) -> io::Result<()> {
        let folder =
            self.0.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let fresh = self.0.with_extension("new");
        let mut file = File::create(&fresh)?;
        match attendance {
            Attendance::Never => writeln!(file, "new")?,
            Attendance::Last { epoch, voting: true } => writeln!(file, "epoch {epoch} votes")?,
            Attendance::Last { epoch, voting: false } => writeln!(file, "epoch {epoch} observes")?,
        }
        file.sync_all()?;
        fs::rename(&fresh, &self.0)?;
        File::open(folder)?.sync_all()
    }
}

fn parse(text: &str) -> Option<Attendance> {
    if text == "new\n" {
        return Some(Attendance::Never);
    }
    let (epoch, role) = text.strip_prefix("epoch ")?.strip_suffix('\n')?.split_once(' ')?;
    let voting = match role {
        "votes" => true,
        "observes" => false,
        _ => return None,
    };
    Some(Attendance::Last { epoch: epoch.parse().ok()?, voting })
}

/// A record in memory: for simulations, where the process outlives its crashes.
#[derive(Debug, Default)]
pub struct MemoryVoteRecord(Mutex<Option<Attendance>>);

impl VoteRecord for MemoryVoteRecord {
    fn load(&self) -> io::Result<Option<Attendance>> {
        Ok(*self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn store(&self, attendance: Attendance) -> io::Result<()> {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(attendance);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Journal::*, *};

    const VOTED: bool = true;
    const OBSERVED: bool = false;

    #[test]
    fn who_votes_and_who_waits() {
        let at = |epoch, voting| Some(Attendance::Last { epoch, voting });
        let check = |recorded, epoch, journal, expected: Role| {
            assert_eq!(decide(recorded, epoch, journal, false), expected, "{recorded:?} {epoch} {journal:?}");
        };
        check(at(6, VOTED), 7, Missing, Role::Voting);
        check(at(6, OBSERVED), 7, Missing, Role::Voting);
        check(at(7, VOTED), 7, Kept, Role::Voting);
        check(at(7, VOTED), 7, Missing, Role::Observing(Why::JournalLost));
        check(at(7, VOTED), 7, Unused, Role::Voting);
        check(at(7, OBSERVED), 7, Unused, Role::Observing(Why::JoinedLate));
        check(at(7, OBSERVED), 7, Kept, Role::Observing(Why::JoinedLate));
        check(at(9, VOTED), 7, Kept, Role::Observing(Why::OldData { recorded: 9 }));
        check(Some(Attendance::Never), 7, Missing, Role::Voting);
        check(None, 7, Kept, Role::Observing(Why::JoinedLate));
        check(None, 0, Missing, Role::Observing(Why::JoinedLate));
        assert_eq!(decide(None, 0, Missing, true), Role::Voting, "the chain begins");
    }

    #[test]
    fn a_late_joiner_votes_from_the_next_epoch_and_not_before() {
        let record = MemoryVoteRecord::default();
        assert_eq!(enter(&record, 3, Missing, false), Role::Observing(Why::JoinedLate));
        // A restart in the same epoch finds the journal of its observing and still has no vote.
        assert_eq!(enter(&record, 3, Kept, false), Role::Observing(Why::JoinedLate));
        assert_eq!(enter(&record, 4, Missing, false), Role::Voting);
        assert_eq!(enter(&record, 4, Kept, false), Role::Voting);
        assert_eq!(enter(&record, 4, Missing, false), Role::Observing(Why::JournalLost));
        assert_eq!(
            enter(&record, 4, Kept, false),
            Role::Observing(Why::JoinedLate),
            "that journal is of observing"
        );
        assert_eq!(enter(&record, 5, Missing, false), Role::Voting);
    }

    #[test]
    fn the_file_survives_and_damage_is_no_licence() {
        let folder = tempfile::tempdir().unwrap();
        let record = FileVoteRecord::new(folder.path().join("votes"));
        assert_eq!(record.load().unwrap(), None);
        let last = |epoch, voting| Attendance::Last { epoch, voting };
        for attendance in [last(0, true), last(u64::MAX, false), Attendance::Never] {
            record.store(attendance).unwrap();
            assert_eq!(record.load().unwrap(), Some(attendance));
        }
        for damage in ["", "epoch", "epoch 7 votes", "epoch x votes\n", "epoch 7 dances\n"] {
            fs::write(record.path(), damage).unwrap();
            assert!(matches!(enter(&record, 7, Kept, true), Role::Observing(Why::Record(_))), "{damage:?}");
        }
        assert!(FileVoteRecord::begin(record.path()).is_err(), "a record is never begun anew");
        let begun = FileVoteRecord::begin(folder.path().join("fresh")).unwrap();
        assert_eq!(enter(&begun, 7, Missing, false), Role::Voting);
        assert_eq!(
            enter(&begun, 7, Missing, false),
            Role::Observing(Why::JournalLost),
            "it is new only once"
        );
        let nowhere = FileVoteRecord::new(folder.path().join("missing/votes"));
        assert!(
            matches!(enter(&nowhere, 7, Kept, true), Role::Observing(Why::Record(_))),
            "nothing is signed unrecorded"
        );
    }
}
