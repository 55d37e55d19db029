use std::{thread, time::Duration};

use super::*;
use crate::progress::Progress;

struct Bench {
    folder: tempfile::TempDir,
    store: Store,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(&folder.path().join("data"));
    Bench { folder, store }
}

impl Bench {
    fn file(&self, name: &str, body: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("GGUF{body}")).unwrap();
        path
    }
}

fn quiet() -> impl FnMut(Progress) {
    |_| {}
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn model(byte: u8) -> ModelId {
    ModelId(Digest([byte; 32]))
}

#[test]
fn an_added_file_is_found_by_every_kind_of_reference() {
    let bench = bench();
    let path = bench.file("My Model.Q8_0.gguf", "one");
    let added = bench.store.add_file(&path, None, &mut quiet()).unwrap();
    assert_eq!(added.name, "my-model.q8_0");
    assert_eq!(added.blake3.0, *blake3::hash(b"GGUFone").as_bytes());
    assert!(!added.owned);
    assert_eq!(bench.store.list().unwrap(), std::slice::from_ref(&added));

    bench.store.note_model(added.blake3, model(0xab));
    let known = Entry { model: Some(model(0xab)), ..added };
    for text in ["my-model.q8_0", "my-model.q8_0@abab", "blake3:ababab", path.to_str().unwrap()] {
        assert_eq!(bench.store.resolve(&reference(text), &mut quiet()).unwrap(), known, "{text}");
    }
    let error = bench.store.resolve(&reference("my-model.q8_0@cdcd"), &mut quiet()).unwrap_err();
    assert!(matches!(error, StoreError::Pinned { .. }), "{error}");
}

#[test]
fn names_do_not_collide() {
    let bench = bench();
    let one = bench.file("a.gguf", "one");
    fs::create_dir(bench.folder.path().join("other")).unwrap();
    let two = bench.file("other/a.gguf", "two");
    assert_eq!(bench.store.add_file(&one, None, &mut quiet()).unwrap().name, "a");
    assert_eq!(bench.store.add_file(&two, None, &mut quiet()).unwrap().name, "a-2");
    let error = bench.store.add_file(&two, Some("a"), &mut quiet()).unwrap_err();
    assert!(matches!(error, StoreError::NameTaken { .. }), "{error}");
    assert!(bench.store.add_file(&two, Some("../a"), &mut quiet()).is_err());
    assert_eq!(bench.store.add_file(&two, Some("b"), &mut quiet()).unwrap().name, "b");
    assert_eq!(bench.store.list().unwrap().len(), 3);
}

#[test]
fn adding_again_reads_nothing_and_changes_nothing() {
    let bench = bench();
    let path = bench.file("a.gguf", "one");
    let first = bench.store.add_file(&path, None, &mut quiet()).unwrap();
    let mut reports = 0;
    let second = bench.store.add_file(&path, None, &mut |_| reports += 1).unwrap();
    assert_eq!((first, reports), (second, 0));
}

#[test]
fn a_changed_file_is_hashed_again_and_loses_its_model_id() {
    let bench = bench();
    let path = bench.file("a.gguf", "one");
    let first = bench.store.add_file(&path, None, &mut quiet()).unwrap();
    bench.store.note_model(first.blake3, model(1));
    bench.file("a.gguf", "other bytes");
    let now = bench.store.resolve(&reference("a"), &mut quiet()).unwrap();
    assert_ne!(now.blake3, first.blake3);
    assert_eq!(now.model, None);
    assert_eq!(bench.store.list().unwrap(), [now]);
}

#[test]
fn a_missing_file_is_named() {
    let bench = bench();
    let path = bench.file("a.gguf", "one");
    bench.store.add_file(&path, None, &mut quiet()).unwrap();
    fs::remove_file(path).unwrap();
    let error = bench.store.resolve(&reference("a"), &mut quiet()).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(error.hint().unwrap().contains("surety model remove a"));
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let bench = bench();
    let error = bench.store.resolve(&reference("qwen"), &mut quiet()).unwrap_err();
    assert!(error.hint().unwrap().contains("the store is empty"));
    bench.store.add_file(&bench.file("qwen3-0.6b-q8_0.gguf", "one"), None, &mut quiet()).unwrap();
    let hint = |text: &str| bench.store.resolve(&reference(text), &mut quiet()).unwrap_err().hint().unwrap();
    assert_eq!(hint("qwen3-0.6B"), "did you mean qwen3-0.6b-q8_0?");
    assert_eq!(hint("qwne3-0.6b-q8_0"), "did you mean qwen3-0.6b-q8_0?");
    assert!(hint("mistral").contains("surety model list"));
}

#[test]
fn removing_forgets_the_name_and_keeps_a_persons_file() {
    let bench = bench();
    let path = bench.file("a.gguf", "one");
    bench.store.add_file(&path, None, &mut quiet()).unwrap();
    let (entry, deleted) = bench.store.remove(&reference("a")).unwrap();
    assert_eq!((entry.name.as_str(), deleted), ("a", false));
    assert!(path.exists());
    assert!(bench.store.list().unwrap().is_empty());
    assert!(matches!(bench.store.remove(&reference("a")), Err(StoreError::Unknown { .. })));
}

#[test]
fn what_is_no_model_is_refused() {
    let bench = bench();
    let text = bench.folder.path().join("notes.gguf");
    fs::write(&text, "hello").unwrap();
    assert!(matches!(bench.store.add_file(&text, None, &mut quiet()), Err(StoreError::NotGguf { .. })));
    fs::write(&text, "").unwrap();
    assert!(matches!(bench.store.add_file(&text, None, &mut quiet()), Err(StoreError::NotGguf { .. })));
    let error = bench.store.add_file(bench.folder.path(), None, &mut quiet()).unwrap_err();
    assert!(matches!(error, StoreError::NotAFile { .. }), "{error}");
    let error = bench.store.add_file(Path::new("/nowhere/x.gguf"), None, &mut quiet()).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn a_damaged_index_is_an_error_and_is_left_alone() {
    let bench = bench();
    let path = bench.file("a.gguf", "one");
    bench.store.add_file(&path, None, &mut quiet()).unwrap();
    let index = bench.folder.path().join("data/models/index.json");
    for damage in ["", "{", r#"{"version":1,"models":[{}]}"#, r#"{"version":1,"models":[],"more":1}"#] {
        fs::write(&index, damage).unwrap();
        assert!(matches!(bench.store.list(), Err(StoreError::Index { .. })), "{damage}");
        assert!(bench.store.add_file(&path, None, &mut quiet()).is_err());
        assert_eq!(fs::read_to_string(&index).unwrap(), damage);
    }
    fs::write(&index, r#"{"version":2,"models":[]}"#).unwrap();
    assert!(matches!(bench.store.list(), Err(StoreError::IndexVersion { .. })));
}

#[test]
fn a_store_that_cannot_be_written_still_serves_a_file() {
    let bench = bench();
    let path = bench.file("a.gguf", "one");
    // A file where the folder should be: refused for everyone, root included.
    fs::write(bench.folder.path().join("data"), "in the way").unwrap();
    assert!(matches!(bench.store.add_file(&path, None, &mut quiet()), Err(StoreError::Io { .. })));
    assert_eq!(bench.store.resolve(&Reference::Path(path), &mut quiet()).unwrap().name, "a");
}

#[test]
fn many_writers_lose_nothing() {
    let bench = bench();
    let paths: Vec<_> = (0..8).map(|n| bench.file(&format!("m{n}.gguf"), &n.to_string())).collect();
    thread::scope(|scope| {
        for path in &paths {
            let store = &bench.store;
            scope.spawn(move || {
                store.add_file(path, None, &mut quiet()).unwrap();
                thread::sleep(Duration::from_millis(1));
                store
                    .add_file(
                        path,
                        Some(&format!("again-{}", path.file_stem().unwrap().to_str().unwrap())),
                        &mut quiet(),
                    )
                    .unwrap();
            });
        }
    });
    assert_eq!(bench.store.list().unwrap().len(), 16);
}

#[test]
fn digits_that_fit_two_models_are_ambiguous() {
    let bench = bench();
    for (name, byte) in [("a.gguf", 1), ("b.gguf", 2)] {
        let entry = bench.store.add_file(&bench.file(name, name), None, &mut quiet()).unwrap();
        bench
            .store
            .note_model(entry.blake3, ModelId(Digest(std::array::from_fn(|i| if i < 4 { 7 } else { byte }))));
    }
    let error = bench.store.resolve(&reference("blake3:0707"), &mut quiet()).unwrap_err();
    assert!(matches!(error, StoreError::Ambiguous { .. }), "{error}");
    assert_eq!(bench.store.resolve(&reference("blake3:0707070701"), &mut quiet()).unwrap().name, "a");
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Bench {
    /// A model of the store's own, so many bytes long, last used so many days before the sweeps of these tests.
    fn pulled(&self, name: &str, bytes: usize, idle_days: u64) -> Entry {
        let body = format!("GGUF{name:-<width$}", width = bytes - 4);
        let digest = Digest(*blake3::hash(body.as_bytes()).as_bytes());
        let path = self.store.pulled(digest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, body).unwrap();
        let entry = self.store.enter_pulled(digest, Some(name), name).unwrap();
        self.store.note_use(digest, self.now() - DAY * u32::try_from(idle_days).unwrap());
        entry
    }

    /// When these tests sweep: everything that they made is old.
    fn now(&self) -> SystemTime {
        fs::metadata(self.folder.path()).unwrap().modified().unwrap() + 40 * DAY
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("data/cache")
    }

    fn sweep(&self, keep_bytes: Option<u64>, dry_run: bool) -> Vec<Swept> {
        let cache = self.cache();
        let sweep =
            Sweep { keep_bytes, dry_run, now: self.now(), cache: &cache, bundled: &[Digest([7; 32])] };
        self.store.collect(&sweep).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.store.list().unwrap().into_iter().map(|entry| entry.name).collect()
    }
}

/// Of each file its name, whether it went, and why.
fn told(swept: &[Swept]) -> Vec<(String, bool, Why)> {
    let name = |file: &Swept| match &*file.names {
        [] => file.path.file_name().unwrap().to_str().unwrap().to_owned(),
        names => names.join(","),
    };
    swept.iter().map(|file| (name(file), file.goes, file.why)).collect()
}

#[test]
fn what_was_used_longest_ago_goes_first_and_what_is_pinned_or_held_never() {
    let bench = bench();
    let own = bench.file("own.gguf", "a person's");
    bench.store.add_file(&own, None, &mut quiet()).unwrap();
    let pinned = bench.pulled("pinned", 100, 30);
    let held = bench.pulled("held", 100, 25);
    let old = bench.pulled("old", 100, 20);
    bench.pulled("new", 100, 1);
    assert!(bench.store.set_pinned(&reference("pinned"), true).unwrap().pinned);
    let holding = bench.store.hold(&held.path).unwrap();

    // Without a limit every model stays.
    let stays = |name: &str, why| (name.to_owned(), false, why);
    let all = told(&bench.sweep(None, false));
    assert!(all.iter().all(|(_, goes, _)| !goes), "{all:?}");
    assert!(all.contains(&stays("old", Why::Room)) && all.contains(&stays("held", Why::Held)), "{all:?}");
    // A dry run decides the same and deletes nothing.
    let dry = told(&bench.sweep(Some(300), true));
    assert_eq!(bench.names(), ["held", "new", "old", "own", "pinned"]);
    let swept = bench.sweep(Some(300), false);
    assert_eq!(told(&swept), dry);
    assert_eq!(bench.names(), ["held", "new", "own", "pinned"]);
    assert!(!old.path.parent().unwrap().exists() && own.exists());
    assert_eq!(swept[0].names, ["old"]);
    assert!(matches!(swept[0].why, Why::Oldest(idle) if idle.as_secs() / DAY.as_secs() == 20));

    // Nothing is small enough for what may not go.
    assert_eq!(told(&bench.sweep(Some(0), false))[0].0, "new");
    assert_eq!(bench.names(), ["held", "own", "pinned"]);
    assert!(bench.sweep(Some(0), false).iter().all(|file| !file.goes));
    let refused = bench.store.remove(&reference("pinned")).unwrap_err();
    assert!(matches!(refused, StoreError::IsPinned { .. }), "{refused}");
    drop(holding);
    bench.store.set_pinned(&reference("pinned"), false).unwrap();
    let swept = bench.sweep(Some(0), false);
    assert_eq!(swept.iter().filter(|file| file.goes).count(), 2);
    assert!(!pinned.path.exists() && !held.path.exists() && own.exists());
    assert_eq!(bench.names(), ["own"]);
}

#[test]
fn what_transfers_and_crashes_left_goes_once_nobody_wants_it() {
    let bench = bench();
    let model = bench.pulled("model", 100, 0);
    let downloads = bench.store.downloads();
    fs::create_dir_all(&downloads).unwrap();
    for name in ["aa.part", "aa.pull", "bb.part", "cc.check", "notes.txt"] {
        fs::write(downloads.join(name), "some").unwrap();
    }
    // Whose journal is locked is under way.
    let journal = fs::File::open(downloads.join("aa.pull")).unwrap();
    journal.lock().unwrap();
    // A crash between a whole file and its entry, or between forgetting and deleting.
    let orphan = bench.store.pulled(Digest([5; 32]));
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, "GGUF").unwrap();
    // What was made from models: of this one, of the program's, of one that is gone, and what is not ours to judge.
    fs::create_dir_all(bench.cache().join("trees")).unwrap();
    let (here, bundled, gone) = (model.blake3, Digest([7; 32]), Digest([9; 32]));
    for name in [
        format!("{here}-3.tiles"),
        format!("trees/{here}.tree"),
        format!("{bundled}-3.tiles"),
        format!("{gone}-3.tiles"),
        format!("trees/{gone}.tree"),
        format!("{gone}.txt"),
        ".lock".to_owned(),
    ] {
        fs::write(bench.cache().join(name), "x").unwrap();
    }

    // Before a day has passed only what can be made again goes.
    let (cache, now) = (bench.cache(), bench.now() - 40 * DAY);
    let sweep = Sweep { keep_bytes: None, dry_run: false, now, cache: &cache, bundled: &[bundled] };
    let early = bench.store.collect(&sweep).unwrap();
    let gone_early: Vec<_> = early.iter().filter(|file| file.goes).collect();
    assert!(gone_early.iter().all(|file| file.why == Why::Derived), "{gone_early:?}");
    assert_eq!(gone_early.len(), 2);

    let dry = told(&bench.sweep(None, true));
    let swept = bench.sweep(None, false);
    assert_eq!(told(&swept), dry);
    let went: Vec<&str> = swept
        .iter()
        .filter(|file| file.goes)
        .map(|file| file.path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(went, ["bb.part", "cc.check", "model.gguf"]);
    let left: Vec<bool> =
        ["aa.part", "aa.pull", "notes.txt"].map(|name| downloads.join(name).exists()).into();
    assert_eq!(left, [true; 3]);
    assert!(!orphan.parent().unwrap().exists() && model.path.exists());
    assert!(bench.cache().join(format!("{here}-3.tiles")).exists());
    drop(journal);
    assert_eq!(bench.sweep(None, false).iter().filter(|file| file.goes).count(), 2);
}

#[test]
fn a_pin_is_of_the_file_and_outlives_a_new_name() {
    let bench = bench();
    let model = bench.pulled("one", 50, 3);
    bench.store.set_pinned(&reference("one"), true).unwrap();
    let again = bench.store.enter_pulled(model.blake3, Some("two"), "two").unwrap();
    assert!(again.pinned);
    let error = bench.store.set_pinned(&reference("three"), true).unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    let swept = bench.sweep(Some(0), false);
    assert_eq!(told(&swept), [("one,two".to_owned(), false, Why::Pinned)]);
    bench.store.set_pinned(&reference("two"), false).unwrap();
    assert!(bench.store.list().unwrap().iter().all(|entry| !entry.pinned));
    // A file that is deleted while it is held is another's trouble; holding it afterwards is refused.
    fs::remove_file(&model.path).unwrap();
    assert!(matches!(bench.store.hold(&model.path), Err(StoreError::Io { .. })));
}
