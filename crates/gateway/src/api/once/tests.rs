use axum::http::StatusCode;
use bytes::Bytes;

use super::*;

fn opened() -> (tempfile::TempDir, Arc<Once>, Writer) {
    let directory = tempfile::tempdir().expect("a directory");
    let (once, writer) = Once::open(directory.path()).expect("opened");
    (directory, once, writer)
}

fn counted(once: &Once, number: u64) -> Option<Arc<Record>> {
    let request = digest("/", &number.to_string());
    match once.lock().first(0, request, None, RequestId::of_bits(u128::from(number))) {
        Some(Found::First(record)) => Some(record),
        _ => None,
    }
}

async fn named(once: &Once, tenant: u64, name: &str, body: &str) -> Result<Turn, ApiError> {
    let said = Said::Named(name.to_owned());
    once.turn(tenant, said, digest("/", body), RequestId::of_bits(7)).await
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_names_stay_longest() {
    let (_directory, once, _writer) = opened();
    let Ok(Turn::First(kept, _)) = named(&once, 7, "a", "a").await else { panic!("it is the first") };
    kept.change(|made| made.ended = Some(Instant::now()));
    for number in 0..3 * RECORDS_MAX as u64 {
        let record = counted(&once, number).expect("there is room");
        record.change(|made| {
            made.ended = Some(Instant::now());
            made.bytes = 100;
            record.total.fetch_add(100, Ordering::AcqRel);
        });
    }
    let count = once.lock().records.len();
    let bytes = once.lock().bytes.load(Ordering::Acquire);
    assert!(count <= RECORDS_MAX && bytes <= 100 * count, "{count} records, {bytes} bytes");
    assert!(matches!(named(&once, 7, "a", "a").await, Ok(Turn::Again(_))), "what has a name is there still");
    let other = named(&once, 7, "a", "b").await;
    assert_eq!(other.err().map(|error| error.code()), Some(Code::IdempotencyMismatch));
    assert!(matches!(named(&once, 8, "a", "b").await, Ok(Turn::First(..))));
    // Those that are still being made make no room.
    let running: Vec<_> = (0..RECORDS_MAX as u64 + 10).map(|number| counted(&once, number)).collect();
    assert!(running.iter().any(Option::is_none));
    assert!(once.lock().records.len() <= RECORDS_MAX);
}

#[test]
fn only_what_nobody_can_have_is_given_to_a_retry() {
    let (_directory, once, _writer) = opened();
    let request = digest("/", "body");
    let lost_by = |tenant| match once.lock().lost(tenant, &request) {
        Some(Found::Known(record)) => Some(record.id),
        _ => None,
    };
    let lost = || lost_by(0);
    let begin = || match once.lock().first(0, request, None, RequestId::of_bits(1)) {
        Some(Found::First(record)) => record,
        _ => panic!("it is the first"),
    };
    let read = |record: &Arc<Record>, connection: Option<&Connection>| {
        record.change(|made| {
            made.readers -= 1;
            made.left = Some(Instant::now());
            made.given = connection.cloned();
            made.ended = connection.map(|_| Instant::now());
        });
    };
    let (first, second) = (begin(), begin());
    assert_eq!(lost(), None, "both are read");
    read(&first, None);
    assert_eq!(lost(), Some(first.id));
    assert_eq!(lost(), None, "it is taken");
    let open = Connection::default();
    read(&first, Some(&open));
    assert_eq!(lost(), None, "it was given to a connection that is there");
    open.close();
    assert_eq!(lost(), None, "another is read, whose loss may not be seen yet");
    once.forget(&second);
    assert_eq!(lost(), Some(first.id), "the one that may have been lost on its way");
    read(&first, Some(&open));
    let third = begin();
    read(&third, Some(&Connection::default()));
    assert_eq!(lost(), None, "which of the two was lost, nobody knows");
    assert_eq!(lost_by(1), None, "another tenant's");
}

fn copied(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    std::fs::copy(directory.join("repeats.redb"), copy.path().join("repeats.redb")).expect("a copy");
    copy
}

fn made(record: &Record, body: &'static str) {
    record.change(|made| {
        made.head = Some(Head { status: StatusCode::OK, headers: HeaderMap::new(), id: None });
        made.pieces = vec![Bytes::from_static(body.as_bytes())];
    });
}

#[tokio::test]
async fn what_a_killed_gateway_left_is_told_again_or_gone_on_with() {
    let (directory, once, _writer) = opened();
    let again = |once: &Arc<Once>, count| {
        let (once, id) = (Arc::clone(once), RequestId::of_bits(9));
        async move { once.turn(3, Said::Counted(count), digest("/", "lost"), id).await.expect("a turn") }
    };
    let Ok(Turn::First(whole, _)) = named(&once, 1, "whole", "a").await else { panic!("it is the first") };
    let Ok(Turn::First(begun, _)) = named(&once, 1, "begun", "b").await else { panic!("it is the first") };
    let Turn::First(lost, _) = again(&once, 0).await else { panic!("it is the first") };
    let Ok(Turn::First(failed, _)) = named(&once, 1, "failed", "c").await else { panic!("it is the first") };
    made(&whole, "all of it");
    drop(once.disk.post(Change::Whole(whole.id, whole.whole().expect("whole"))));
    once.forget(&failed);
    once.disk.flush().await;
    // Killed: what is on the disk now is all there is.
    let after = copied(directory.path());
    let (once, _writer) = Once::open(after.path()).expect("opened");
    let other = named(&once, 1, "whole", "other").await;
    assert_eq!(other.err().map(|error| error.code()), Some(Code::IdempotencyMismatch));
    for _ in 0..2 {
        let Ok(Turn::Again(record)) = named(&once, 1, "whole", "a").await else { panic!("it is known") };
        let response = record.response(Connection::default()).await;
        assert_eq!(response.extensions().get::<RequestId>(), Some(&whole.request_id()));
        let body = axum::body::to_bytes(response.into_body(), 100).await.expect("a body");
        assert_eq!(body, "all of it");
    }
    let Ok(Turn::Resumed(record)) = named(&once, 1, "begun", "b").await else { panic!("it is known") };
    assert_eq!(record.request_id(), begun.request_id());
    assert!(matches!(named(&once, 1, "begun", "b").await, Ok(Turn::Again(_))), "one goes on with it");
    let Turn::Resumed(record) = again(&once, 1).await else { panic!("its connection was lost") };
    assert_eq!(record.request_id(), lost.request_id());
    assert!(matches!(named(&once, 1, "failed", "c").await, Ok(Turn::First(..))));
}

#[tokio::test]
async fn what_makes_room_in_memory_makes_room_on_the_disk() {
    let (_directory, once, _writer) = opened();
    let Ok(Turn::First(large, _)) = named(&once, 1, "large", "a").await else { panic!("it is the first") };
    made(&large, "all of it");
    drop(once.disk.post(Change::Whole(large.id, large.whole().expect("whole"))));
    large.change(|made| {
        (made.ended, made.readers, made.bytes) = (Some(Instant::now()), 0, BYTES_MAX);
        large.total.fetch_add(BYTES_MAX, Ordering::AcqRel);
    });
    let gone = large.id;
    drop(large);
    let Ok(Turn::First(next, _)) = named(&once, 1, "next", "b").await else { panic!("it is the first") };
    once.disk.flush().await;
    let left = once.disk.read(kept::known).expect("read");
    assert_eq!(left.iter().map(|known| known.order).collect::<Vec<_>>(), [next.id]);
    assert_eq!(once.disk.read(|rows| kept::response(rows, gone)).expect("read"), None);
}

#[tokio::test]
async fn what_is_made_anew_is_known_by_another_id() {
    let (directory, once, _writer) = opened();
    let Ok(Turn::First(begun, _)) = named(&once, 1, "begun", "a").await else { panic!("it is the first") };
    once.disk.flush().await;
    let after = copied(directory.path());
    let (once, _writer) = Once::open(after.path()).expect("opened");
    let Ok(Turn::Resumed(record)) = named(&once, 1, "begun", "a").await else { panic!("it is known") };
    assert_eq!(record.request_id(), begun.request_id());
    once.begin_anew(&record, RequestId::of_bits(8)).outcome().await.expect("written");
    let again = copied(after.path());
    let (once, _writer) = Once::open(again.path()).expect("opened");
    let Ok(Turn::Resumed(record)) = named(&once, 1, "begun", "a").await else { panic!("it is known") };
    assert_eq!(record.request_id(), RequestId::of_bits(8));
}

#[tokio::test]
async fn what_is_too_old_is_not_read_back() {
    let (directory, once, writer) = opened();
    let begun = |name: Option<&str>, id| Begun {
        tenant: 1,
        request: digest("/", "x"),
        name: name.map(str::to_owned),
        id: RequestId::of_bits(id),
    };
    let whole =
        || Whole { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::from_static(b"x") };
    let at = |ago: Duration, changes| {
        crate::disk::tests::applied(&once.disk, &Kept, changes, unix_ms() - ago.as_millis() as u64);
    };
    at(NAMED_FOR, vec![Change::Begun(0, begun(Some("old"), 1))]);
    at(UNNAMED_FOR, vec![Change::Begun(1, begun(None, 2)), Change::Whole(1, whole())]);
    at(UNNAMED_FOR, vec![Change::Begun(2, begun(Some("young"), 3)), Change::Whole(2, whole())]);
    at(UNNAMED_FOR, vec![Change::Begun(3, begun(None, 4))]);
    drop(once);
    writer.join();
    let (once, _writer) = Once::open(directory.path()).expect("opened");
    let there: Vec<u128> = once.lock().records.values().map(|record| record.request_id().bits()).collect();
    assert_eq!(there, [3, 4]);
    once.disk.flush().await;
    let left = once.disk.read(kept::known).expect("read");
    assert_eq!(left.iter().map(|known| known.order).collect::<Vec<_>>(), [2, 3]);
}
