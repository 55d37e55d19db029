//! Pulling from several holders, honest or not.

use std::{fs, path::Path};

use surety_blobs::{Event, Fault, HoldLimits, PullError, Pulled, pull};
use tokio::sync::Notify;

use crate::holders::{Blob, Deed, Holder, endpoint, limits, request};

const MIB: usize = 1 << 20;

/// The file is at its place, whole, and nothing else is left.
fn assert_whole(folder: &Path, blob: &Blob) {
    assert!(fs::read(folder.join("files/model")).unwrap() == *blob.data, "the file's bytes");
    assert_eq!(fs::read_dir(folder.join("downloads")).unwrap().count(), 0);
}

fn fault(pulled: &Pulled, holder: &Holder) -> Option<Fault> {
    let part = pulled.holders.iter().find(|part| part.holder == holder.address());
    part.expect("a holder that was asked").fault.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_every_shape_arrive() {
    let puller = endpoint(1).await;
    for bytes in [1, 1024, 1025, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB + 4321] {
        let blob = Blob::new(bytes, 1);
        let holder = Holder::honest(2, &[&blob], HoldLimits::default()).await;
        let folder = tempfile::tempdir().unwrap();
        let mut last = None;
        let mut report = |event| {
            if let Event::Progress(progress) = event {
                last = Some((progress.done, progress.total));
            }
        };
        let asked = request(folder.path(), &blob, &[&holder]);
        let pulled = pull(&puller, asked, limits(), &mut report).await.unwrap();
        assert_eq!((pulled.bytes, pulled.resumed, pulled.holders[0].bytes), (blob.bytes(), 0, blob.bytes()));
        assert_eq!(last, Some((blob.bytes(), blob.bytes())));
        assert_whole(folder.path(), &blob);
    }
}

/// Alone, each of them gives nothing, is named, and leaves nothing that an honest holder would have to repair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_is_named_and_no_wrong_byte_is_kept() {
    let puller = endpoint(1).await;
    let blob = Blob::new(4 * MIB, 2);
    let last = blob.pieces() - 1;
    let nonsense = |fault: &Fault| matches!(fault, Fault::Nonsense(_));
    type Expected<'a> = &'a dyn Fn(&Fault) -> bool;
    let cases: [(Deed, Expected<'_>); 11] = [
        (Deed::Corrupts(last), &|fault| *fault == Fault::WrongBytes(last)),
        (Deed::HasNothing, &|fault| *fault == Fault::Absent),
        (Deed::SaysNothing, &|fault| *fault == Fault::Absent),
        (Deed::TellsAnotherSize, &|fault| *fault == Fault::WrongBytes(last)),
        (Deed::TellsTooMuch, &nonsense),
        (Deed::SendsAnotherTree, &|fault| *fault == Fault::WrongTree),
        (Deed::SendsInnerValues, &|fault| *fault == Fault::WrongBytes(1)),
        (Deed::BreaksOff, &|fault| *fault == Fault::Truncated),
        (Deed::Drips, &|fault| *fault == Fault::WrongBytes(last)),
        (Deed::AnswersBesides, &nonsense),
        (Deed::SendsGarbage, &nonsense),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (number, (deed, expected)) in cases.into_iter().enumerate() {
        let liar = Holder::liar(10 + number as u8, &blob, deed).await;
        let asked = request(folder.path(), &blob, &[&liar]);
        let error = pull(&puller, asked, limits(), &mut |_| {}).await.unwrap_err();
        let PullError::NoHolders { done: 0, faults, .. } = error else { panic!("{deed:?}: {error}") };
        assert_eq!(faults[0].0, liar.address());
        assert!(expected(&faults[0].1), "{deed:?}: {}", faults[0].1);
        assert!(!folder.path().join("files/model").exists());
    }
    let honest = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let pulled =
        pull(&puller, request(folder.path(), &blob, &[&honest]), limits(), &mut |_| {}).await.unwrap();
    assert_eq!(pulled.resumed, 0);
    assert_whole(folder.path(), &blob);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_corrupts_is_dropped_and_what_it_gave_rightly_stays() {
    let puller = endpoint(1).await;
    let blob = Blob::new(6 * MIB + 9, 3);
    let folder = tempfile::tempdir().unwrap();
    let liar = Holder::liar(3, &blob, Deed::Corrupts(4)).await;
    let error =
        pull(&puller, request(folder.path(), &blob, &[&liar]), limits(), &mut |_| {}).await.unwrap_err();
    let PullError::NoHolders { done, faults, .. } = error else { panic!("{error}") };
    assert_eq!(faults[0].1, Fault::WrongBytes(4));
    assert!(done > 0 && done < blob.bytes(), "{done}");
    // The next pull takes up what was right, told by the journal and checked again.
    let honest = Holder::honest(4, &[&blob], HoldLimits::default()).await;
    let mut checked = 0;
    let mut report = |event| {
        if let Event::Checking { done, .. } = event {
            checked = done;
        }
    };
    let asked = request(folder.path(), &blob, &[&honest]);
    let pulled = pull(&puller, asked, limits(), &mut report).await.unwrap();
    // A piece that was being written when the holder was dropped may have come on top.
    assert!(pulled.resumed >= done && checked == pulled.resumed, "{done} {checked} {pulled:?}");
    assert_eq!(pulled.holders[0].bytes, blob.bytes() - pulled.resumed);
    assert_whole(folder.path(), &blob);
}

/// Liars of every kind around one honest, slow holder: the file is whole, the lies are named, nothing waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_honest_holder_is_enough() {
    let puller = endpoint(1).await;
    let blob = Blob::new(12 * MIB + 77, 4);
    let folder = tempfile::tempdir().unwrap();
    let honest = Holder::slow(2, &blob, 6 << 20).await;
    let corrupting = Holder::liar(3, &blob, Deed::Corrupts(1)).await;
    let stalling = Holder::liar(4, &blob, Deed::Stalls).await;
    let empty = Holder::liar(5, &blob, Deed::HasNothing).await;
    let ignorant = Holder::liar(6, &blob, Deed::SaysNothing).await;
    let asked = request(folder.path(), &blob, &[&honest, &stalling, &corrupting, &empty, &ignorant]);
    let pulled = pull(&puller, asked, limits(), &mut |_| {}).await.unwrap();
    assert_whole(folder.path(), &blob);
    assert_eq!(fault(&pulled, &honest), None);
    assert_eq!(fault(&pulled, &empty), Some(Fault::Absent));
    assert_eq!(fault(&pulled, &ignorant), Some(Fault::Absent));
    // It may have been asked for other pieces only.
    assert!(matches!(fault(&pulled, &corrupting), None | Some(Fault::WrongBytes(1))));
    let given: u64 = pulled.holders.iter().map(|part| part.bytes).sum();
    assert_eq!(given, blob.bytes(), "each byte is somebody's, once");
}

/// Known sizes are held against what holders tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_size_is_insisted_on() {
    let puller = endpoint(1).await;
    let blob = Blob::new(2 * MIB, 5);
    let holder = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let mut asked = request(folder.path(), &blob, &[&holder]);
    asked.bytes = Some(blob.bytes() + 1);
    let error = pull(&puller, asked, limits(), &mut |_| {}).await.unwrap_err();
    let PullError::NoHolders { faults, .. } = error else { panic!("{error}") };
    assert_eq!(faults[0].1, Fault::WrongSize { told: blob.bytes(), proven: blob.bytes() + 1 });
    assert!(faults[0].1.is_a_lie());
}

/// Pulls until so many bytes are there, then gives up as a killed process would.
async fn pull_some(folder: &Path, blob: &Blob, holders: &[&Holder], bytes: u64) -> u64 {
    let puller = endpoint(1).await;
    let enough = Notify::new();
    let mut done = 0;
    let mut report = |event| {
        if let Event::Progress(progress) = event {
            done = progress.done;
            if done >= bytes {
                enough.notify_one();
            }
        }
    };
    tokio::select! {
        pulled = pull(&puller, request(folder, blob, holders), limits(), &mut report) => {
            panic!("it ended before that: {pulled:?}");
        }
        () = enough.notified() => {}
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_removed_or_changed_while_it_is_pulled_is_refused_and_what_came_is_kept() {
    let blob = Blob::new(12 * MIB, 6);
    let holder = Holder::slow(2, &blob, 8 << 20).await;
    let folder = tempfile::tempdir().unwrap();
    let done = pull_some(folder.path(), &blob, &[&holder], 2 << 20).await;
    assert!(done >= 2 << 20 && done < blob.bytes());

    let puller = endpoint(1).await;
    let path = holder.folder.path().join(blob.digest.to_string());
    fs::remove_file(&path).unwrap();
    let mut ignored = |_: Event| {};
    let asked = request(folder.path(), &blob, &[&holder]);
    let error = pull(&puller, asked, limits(), &mut ignored).await.unwrap_err();
    let PullError::NoHolders { faults, done: kept, .. } = error else { panic!("{error}") };
    assert_eq!(faults[0].1, Fault::Absent);
    assert!(kept >= done, "nothing is lost");

    fs::write(&path, Blob::new(12 * MIB, 7).data.as_slice()).unwrap();
    let asked = request(folder.path(), &blob, &[&holder]);
    let error = pull(&puller, asked, limits(), &mut ignored).await.unwrap_err();
    let PullError::NoHolders { faults, .. } = error else { panic!("{error}") };
    assert_eq!(faults[0].1, Fault::Changed);

    fs::remove_file(&path).unwrap();
    blob.put(holder.folder.path());
    let asked = request(folder.path(), &blob, &[&holder]);
    let pulled = pull(&puller, asked, limits(), &mut ignored).await.unwrap();
    assert!(pulled.resumed >= kept && pulled.resumed < blob.bytes());
    assert_whole(folder.path(), &blob);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_that_leave_are_done_without() {
    let blob = Blob::new(16 * MIB + 1, 8);
    let leaving = Holder::slow(2, &blob, 4 << 20).await;
    let staying = Holder::slow(3, &blob, 6 << 20).await;
    let folder = tempfile::tempdir().unwrap();
    let puller = endpoint(1).await;
    let (asked, leaver) = (request(folder.path(), &blob, &[&leaving, &staying]), leaving.address());
    let begun = Notify::new();
    let mut report = |event| {
        if matches!(event, Event::Progress(progress) if progress.done >= 3 << 20) {
            begun.notify_one();
        }
    };
    let (pulled, ()) = tokio::join!(pull(&puller, asked, limits(), &mut report), async {
        begun.notified().await;
        leaving.vanish().await;
    });
    let pulled = pulled.unwrap();
    assert_whole(folder.path(), &blob);
    let part = |address| pulled.holders.iter().find(|part| part.holder == address).unwrap();
    assert!(part(staying.address()).bytes > 0);
    assert_eq!(part(staying.address()).fault, None);
    assert!(part(leaver).bytes < blob.bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_holder_there_is_an_error_that_says_who_was_asked() {
    let puller = endpoint(1).await;
    let blob = Blob::new(100, 9);
    let folder = tempfile::tempdir().unwrap();
    let gone = Holder::honest(2, &[&blob], HoldLimits::default()).await;
    let asked = request(folder.path(), &blob, &[&gone]);
    let address = gone.address();
    gone.vanish().await;
    let quick = surety_blobs::PullLimits { failures: 1, ..limits() };
    let error = pull(&puller, asked, quick, &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.hint().is_some());
    let nobody = request(folder.path(), &blob, &[]);
    let error = pull(&puller, nobody, limits(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, PullError::NoHolders { .. }));
}
