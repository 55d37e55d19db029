//! What the source of this crate may not contain.

use std::fs;
use std::path::Path;

/// (file name, its text before the tests) for every source file.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("the source folder") {
        let path = entry.expect("an entry of the source folder").path();
        if path.is_file() {
            let text = fs::read_to_string(&path).expect("a source file");
            let before_tests = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            sources.push((path.display().to_string(), before_tests));
        }
    }
    assert!(sources.len() >= 8, "the source files are elsewhere");
    sources
}

fn forbid(words: &[&str], reason: &str) {
    for (name, text) in sources() {
        for word in words {
            assert!(!text.contains(word), "{name} contains `{word}`: {reason}");
        }
    }
}

#[test]
fn no_mathematical_library_function() {
    let functions = [
        "exp", "exp2", "exp_m1", "ln", "ln_1p", "log", "log2", "log10", "sin", "cos", "tan", "sin_cos",
        "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "powf", "powi", "cbrt", "hypot", "recip",
        "gamma",
    ];
    for function in functions {
        forbid(
            &[&format!(".{function}("), &format!("f32::{function}("), &format!("f64::{function}(")],
            "A-1.2 leaves only correctly rounded operations",
        );
    }
    forbid(&["consts::"], "constants are written here as the page writes them");
}

#[test]
fn nothing_is_shared_with_the_first_voice() {
    forbid(
        &["surety_", "unsafe {", "unsafe fn"],
        "the second voice is written from the page alone, in safe code",
    );
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("a manifest");
    let dependencies = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split('[').next());
    assert_eq!(dependencies.map(str::trim), Some("blake3.workspace = true"));
}
