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
