use surety_types::{Amount, Digest, PublicKey, StatedEnd, What};

use super::*;
use crate::{
    api::unix_ms,
    disk::tests::applied,
    error::{ApiError, Code},
};

const ROOMY: JournalBounds =
    JournalBounds { count_max: 1000, bytes_max: 1 << 30, age_max: Duration::from_secs(3600) };

fn id(number: u128) -> RequestId {
    RequestId::parse(&format!("req_{number:032x}")).expect("an id")
}

fn key() -> SecretKey {
    SecretKey::from_bytes(&[7; 32])
}

fn open_at(directory: &Path, bounds: JournalBounds) -> (Journal, Writer) {
    Journal::open(directory, key(), bounds).expect("a journal")
}

async fn stated(journal: &Journal, id: RequestId) -> Option<Statement> {
    let (_, dossier) = journal.find(id).await.expect("it can be read")?.apart();
    let signed = Signed::<Statement>::open(&dossier.statement.expect("a statement")).expect("signed");
    Some((*signed).clone())
}

fn trail(journal: &Journal, number: u128) -> Trail {
    let trail = journal.trail(id(number));
    trail.asked(key().public(), "/v1/chat/completions", unix_ms());
    trail
}

#[tokio::test]
async fn the_end_that_comes_last_counts_and_a_caller_that_leaves_is_noted() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, writer) = open_at(directory.path(), ROOMY);
    let first = trail(&journal, 1);
    let following = first.following();
    assert!(journal.is_under_way(id(1)));
    first.noted(What::Ordered, PublicKey([1; 32]), Some(Digest::ZERO), 0, "");
    first.begun();
    assert_eq!(stated(&journal, id(1)).await.expect("kept").end, StatedEnd::Stopped);
    first.failed(&ApiError::new(Code::WorkerLost, "It was lost."));
    drop((following, first));
    let kept = stated(&journal, id(1)).await.expect("kept");
    assert!(matches!(kept.end, StatedEnd::Failed { code, .. } if code.as_str() == "worker_lost"));
    assert_eq!(kept.events.len(), 1);
    assert!(!journal.is_under_way(id(1)));

    let second = trail(&journal, 2);
    drop((second.following(), second));
    assert_eq!(stated(&journal, id(2)).await.expect("kept").end, StatedEnd::Left);
    let third = trail(&journal, 3);
    let following = third.following();
    third.answered(Amount(5));
    drop((following, third));
    let kept = stated(&journal, id(3)).await.expect("kept");
    assert_eq!((kept.end, kept.charge), (StatedEnd::Answered, Amount(5)));
    // Of what was only looked at nothing is kept.
    drop(trail(&journal, 4));
    assert_eq!(stated(&journal, id(4)).await, None);

    let theirs = trail(&journal, 5);
    theirs.asked_by(8);
    theirs.answered(Amount(5));

    // It outlives the process.
    drop((theirs, journal));
    writer.join();
    let (journal, _writer) = open_at(directory.path(), ROOMY);
    assert_eq!(stated(&journal, id(2)).await.expect("kept").end, StatedEnd::Left);
    for (number, tenant) in [(2, NOBODY), (5, 8)] {
        assert_eq!(journal.find(id(number)).await.expect("read").map(|found| found.apart().0), Some(tenant));
    }
}

#[tokio::test]
async fn the_oldest_go_first_and_the_old_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, writer) = open_at(directory.path(), JournalBounds { count_max: 3, ..ROOMY });
    for number in 1..=5 {
        trail(&journal, number).failed(&ApiError::invalid("n", "no"));
        // One that is said again does not count twice.
        trail(&journal, 1).failed(&ApiError::invalid("n", "again"));
    }
    let mut kept = Vec::new();
    for number in 1..=5 {
        if stated(&journal, id(number)).await.is_some() {
            kept.push(number);
        }
    }
    assert_eq!(kept, [1, 4, 5]);
    let statement = stated(&journal, id(5)).await.expect("kept");
    drop(journal);
    writer.join();
    let kept = || Kept { key: key(), bounds: ROOMY };
    let (disk, _writer) = Disk::open(directory.path(), kept()).expect("opened");
    let later = unix_ms() + 2 * 3_600_000;
    applied(&disk, &kept(), vec![Box::new(Entry { id: id(9), tenant: 3, statement, papers: vec![] })], later);
    let tenant = |number| disk.read(|transaction| Ok(find(transaction, id(number))?.map(|row| row.tenant)));
    assert_eq!((tenant(5).expect("read"), tenant(9).expect("read")), (None, Some(3)));
}

#[tokio::test]
async fn requests_are_told_that_the_gateway_stood_still() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _writer) = open_at(directory.path(), ROOMY);
    let trail = trail(&journal, 1);
    let last_ran = |ago: Duration| *journal.0.beat.lock().expect("no panic") = Instant::now() - ago;
    last_ran(Duration::from_millis(900));
    journal.beat();
    last_ran(Duration::from_secs(4));
    trail.failed(&ApiError::new(Code::WorkerStalled, "It stalled."));
    let kept = stated(&journal, id(1)).await.expect("kept");
    let [event] = &kept.events[..] else { panic!("one event, not {:?}", kept.events) };
    assert_eq!(event.what, What::StoodStill);
    let ms: u64 = event.why.split(' ').nth(1).and_then(|ms| ms.parse().ok()).expect("a number");
    assert!((3750..60_000).contains(&ms), "{ms}");
}

#[tokio::test]
async fn what_is_noted_is_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _writer) = open_at(directory.path(), ROOMY);
    let trail = trail(&journal, 1);
    trail.named(&"é".repeat(1000));
    for number in 0..1000u32 {
        trail.noted(What::Declined, PublicKey([1; 32]), None, 0, "x".repeat(1000));
        trail.decided(&[PublicKey([1; 32]); 100], [("model", number)].into_iter());
        trail.decided(&[PublicKey([1; 32]); 100], [("model", number)].into_iter());
    }
    trail.failed(&ApiError::new(Code::WorkerLost, "x".repeat(100_000)));
    let kept = stated(&journal, id(1)).await.expect("kept");
    assert_eq!((kept.events.len(), kept.decisions.len()), (128, 16));
    // Those of a full list are compared with the last that is kept.
    assert_eq!(kept.left_out, 1000 - 128 + 2 * (1000 - 16));
}

#[tokio::test]
async fn the_latest_of_a_key_are_its_own_and_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _writer) = open_at(directory.path(), ROOMY);
    for number in 0..12 {
        let trail = trail(&journal, number);
        trail.asked_by((number % 3) as u64);
        trail.failed(&ApiError::invalid("n", "no"));
    }
    let ids = async |tenant, count_max| {
        let latest = journal.latest(tenant, count_max, |_| true).await.expect("it can be read");
        assert_eq!(latest.looked_back_to_ms, None);
        latest.statements.into_iter().map(|one| one.request_id).collect::<Vec<_>>()
    };
    let expected =
        |numbers: &[u128]| numbers.iter().map(|number| id(*number).to_string()).collect::<Vec<_>>();
    assert_eq!(ids(1, 100).await, expected(&[10, 7, 4, 1]));
    assert_eq!(ids(NOBODY, 2).await, expected(&[9, 6]));
    assert!(ids(9, 100).await.is_empty());
    let none = journal.latest(1, 100, |statement| statement.path.as_str() == "/v1/models").await;
    assert!(none.expect("it can be read").statements.is_empty());
}
