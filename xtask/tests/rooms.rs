//! Holds the walls of `ARCHITECTURE.md`: who may depend on whom, and what each room must not contain.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each crate may depend on, among ours. Development dependencies are free: tests may compare anything.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("kernels", &[]),
    ("reference", &[]),
    ("grammar", &[]),
    ("template", &["types"]),
    ("engine", &["grammar", "kernels", "template", "types"]),
    ("proof", &["grammar", "kernels", "template", "types"]),
    ("chain", &["proof", "template", "types"]),
    ("consensus", &["chain", "types"]),
    ("net", &["types"]),
    ("blobs", &["net", "types"]),
    ("client", &["chain", "consensus", "net", "proof", "types"]),
    ("gateway", &["blobs", "chain", "client", "grammar", "net", "types"]),
    ("worker", &["blobs", "chain", "client", "engine", "kernels", "net", "proof", "types"]),
    ("validator", &["chain", "consensus", "net", "types"]),
    ("sim", &[]),
    ("verifier", &[]),
];

/// Values in, values out: no I/O, clock, async or ambient randomness.
const PURE: &[&str] =
    &["types", "kernels", "reference", "grammar", "template", "engine", "proof", "chain", "sim", "verifier"];

/// Where a result depends on every bit, no library function may stand in for a specified one.
const EXACT: &[&str] = &["kernels", "reference", "grammar", "template", "engine", "proof"];

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_DEPEND_ON.iter().map(|(name, on)| (*name, on.iter().copied().collect())).collect();
    for room in rooms() {
        let name = room.file_name().unwrap().to_str().unwrap();
        let allowed =
            allowed.get(name).unwrap_or_else(|| panic!("crates/{name} is in no one's plan: add it"));
        let manifest = fs::read_to_string(room.join("Cargo.toml")).unwrap();
        let dependencies = section(&manifest, "[dependencies]");
        for ours in dependencies.lines().filter_map(|line| line.strip_prefix("surety-")) {
            let ours = ours.split(['.', ' ', '=']).next().unwrap();
            assert!(allowed.contains(ours), "crates/{name} must not depend on {ours}");
        }
    }
}

#[test]
fn every_room_has_its_crate_name() {
    for room in rooms() {
        let name = room.file_name().unwrap().to_str().unwrap();
        let manifest = fs::read_to_string(room.join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"surety-{name}\"")), "crates/{name} is misnamed");
    }
}

#[test]
fn pure_rooms_do_nothing_but_compute() {
    let forbidden =
        ["std::fs", "std::net", "std::process", "std::env", "SystemTime", "Instant", "tokio", "async fn"];
    // The thread pool spins, yields and parks; it reads no clock.
    check(PURE, &forbidden, &[]);
}

#[test]
fn exact_rooms_call_no_mathematical_library() {
    let forbidden = [
        ".exp()",
        ".exp2()",
        ".exp_m1()",
        ".ln()",
        ".ln_1p()",
        ".log2()",
        ".log10()",
        ".log(",
        ".powf(",
        ".powi(",
        ".sin()",
        ".cos()",
        ".tan()",
        ".sin_cos()",
        ".tanh()",
        ".sinh()",
        ".cosh()",
        ".cbrt()",
        ".hypot(",
        ".rsqrt",
        "_rcp14_",
        "_rcp_ps",
        "_rsqrt",
    ];
    check(EXACT, &forbidden, &[]);
}

#[test]
fn unsafe_lives_in_kernels_one_memory_map_and_one_page() {
    let rooms: Vec<String> =
        rooms().iter().map(|room| room.file_name().unwrap().to_str().unwrap().into()).collect();
    let rooms: Vec<&str> = rooms.iter().map(String::as_str).filter(|room| *room != "kernels").collect();
    check(&rooms, &["unsafe {", "unsafe fn", "unsafe impl"], &["worker/src/map.rs", "verifier/src/page.rs"]);
}

/// Fails if a source line outside tests and comments holds one of `forbidden`.
fn check(rooms: &[&str], forbidden: &[&str], exempt: &[&str]) {
    for room in rooms {
        let mut files = Vec::new();
        sources(&root().join("crates").join(room).join("src"), &mut files);
        assert!(!files.is_empty(), "crates/{room} has no sources");
        for file in files {
            let name = file.strip_prefix(root().join("crates")).unwrap().to_str().unwrap().to_owned();
            if exempt.contains(&name.as_str()) || name.ends_with("tests.rs") || name.contains("/tests/") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for (number, line) in code.lines().enumerate() {
                let line = line.split("//").next().unwrap();
                for word in forbidden {
                    assert!(
                        !line.contains(word),
                        "crates/{name}:{}: `{word}` does not belong here",
                        number + 1
                    );
                }
            }
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rooms() -> Vec<PathBuf> {
    let mut rooms: Vec<PathBuf> =
        fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    rooms.sort();
    assert!(rooms.len() >= MAY_DEPEND_ON.len());
    rooms
}

fn section<'a>(manifest: &'a str, header: &str) -> &'a str {
    let after = manifest.split_once(header).map_or("", |(_, after)| after);
    after.split("\n[").next().unwrap()
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
