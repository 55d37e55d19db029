//! Vocabularies and texts with the ids llama.cpp gives them.
//!
//! The vectors are read from `../shared/data/tokenizer-vectors` beside the repository, and skipped out loud where
//! they are not: `NAME.gguf` with `NAME.gguf.inp`, texts each ended by a line, and `NAME.gguf.out`, a line of ids each.

use std::path::{Path, PathBuf};

use surety_engine::gguf::Gguf;
use surety_engine::tokenizer::{Special, Tokenizer};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/tokenizer-vectors")
}

fn check(vocabulary: &Path) {
    let name = vocabulary.file_name().unwrap().to_string_lossy();
    let beside = |extension: &str| {
        let path = vocabulary.with_file_name(format!("{name}.{extension}"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let gguf = Gguf::parse(&std::fs::read(vocabulary).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    let (texts, ids) = (beside("inp"), beside("out"));
    let texts: Vec<&str> = texts.split_terminator("\n__ggml_vocab_test__\n").collect();
    let ids: Vec<Vec<u32>> =
        ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    assert_eq!(texts.len(), ids.len(), "{name}");
    assert!(ids.iter().any(|ids| ids.len() > 100), "{name}: the vectors are not trivial");
    for (text, ids) in texts.iter().zip(&ids) {
        assert_eq!(&tokenizer.encode(text, Special::PLAIN), ids, "{name}: {text:?}");
    }
}

#[test]
fn every_vector_passes() {
    let Ok(folder) = std::fs::read_dir(vectors()) else {
        eprintln!("SKIPPED: no tokenizer vectors at {}", vectors().display());
        return;
    };
    let mut vocabularies: Vec<PathBuf> = folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .collect();
    vocabularies.sort();
    assert!(!vocabularies.is_empty());
    vocabularies.iter().for_each(|vocabulary| check(vocabulary));
}
