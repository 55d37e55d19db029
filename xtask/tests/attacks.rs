//! Holds `docs/attacks.md` to what there is: every attack has its line, every line the tests it names, and what is not yet
//! defended against is listed and becomes less.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// All that were thought of.
const ATTACKS: usize = 52;

/// Those without a defence. A number may leave this list, when its line says what it is caught by; none may come.
const NOT_YET: &[usize] = &[];

/// What a line may begin with.
const OUTCOMES: [&str; 4] = ["caught", "in part", "out of reach", "not yet"];

/// One attack, as the page has it.
struct Line {
    number: usize,
    attack: String,
    outcome: String,
    tests: Vec<String>,
}

#[test]
fn every_attack_has_its_line() {
    let lines = lines();
    let numbers: Vec<usize> = lines.iter().map(|line| line.number).collect();
    assert_eq!(numbers, (1..=ATTACKS).collect::<Vec<_>>());
    for Line { number, outcome, .. } in &lines {
        assert!(
            OUTCOMES.contains(&outcome.as_str()),
            "{number} begins with {outcome:?}, none of {OUTCOMES:?}"
        );
    }
}

#[test]
fn every_defence_names_its_tests() {
    for Line { number, outcome, tests, .. } in lines() {
        assert!(outcome == "not yet" || !tests.is_empty(), "{number} is {outcome}, and names no test");
    }
}

#[test]
fn every_named_test_exists() {
    let mut missing = Vec::new();
    for Line { number, tests, .. } in lines() {
        missing
            .extend(tests.into_iter().filter(|test| !exists(test)).map(|test| format!("{number}: {test}")));
    }
    assert!(missing.is_empty(), "there are no such tests:\n{}", missing.join("\n"));
}

#[test]
fn what_is_not_yet_defended_against_is_listed_and_becomes_less() {
    let open: Vec<Line> = lines().into_iter().filter(|line| line.outcome == "not yet").collect();
    println!("not yet defended against: {} of {ATTACKS}", open.len());
    for Line { number, attack, .. } in &open {
        println!("  {number:2}  {attack}");
    }
    let open: BTreeSet<usize> = open.iter().map(|line| line.number).collect();
    let allowed: BTreeSet<usize> = NOT_YET.iter().copied().collect();
    let come: Vec<_> = open.difference(&allowed).collect();
    assert!(come.is_empty(), "these had a defence: {come:?}");
    let gone: Vec<_> = allowed.difference(&open).collect();
    assert!(gone.is_empty(), "these have a defence now; take them off NOT_YET: {gone:?}");
}

/// The suite of the workers' misdeeds is on the page, whole.
#[test]
fn no_attack_of_the_suite_is_missing_from_the_page() {
    let named: BTreeSet<String> = lines().into_iter().flat_map(|line| line.tests).collect();
    let folder = root().join("crates/worker/tests/attacks");
    let mut unnamed = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let misdeed = path.file_stem().unwrap().to_str().unwrap();
        if misdeed == "main" || misdeed == "engine" {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let tests = source.split("#[test]\n").skip(1).map(|after| {
            let name = after.trim_start().strip_prefix("fn ").expect("a test is a function");
            format!("worker::attacks::{misdeed}::{}", name.split('(').next().unwrap())
        });
        unnamed.extend(tests.filter(|test| !named.contains(test)));
    }
    assert!(unnamed.is_empty(), "docs/attacks.md does not name:\n{}", unnamed.join("\n"));
}

#[test]
fn a_name_that_is_no_test_is_noticed() {
    for name in [
        "worker::attacks::kv_row::nothing_of_this_name",
        "worker::attacks::nowhere::an_edited_row_of_a_shared_prefix_is_refused",
        "proof::commit::tests::prompt_digest",
        "proof::commit::prompt_digest",
        "proof::check::prompt_ids",
        "worker::attacks::refused_by_its_state",
        "kernels::golden::tests::rewrite_the_vectors",
        "nowhere::a::b",
        "proof",
    ] {
        assert!(!exists(name), "{name}");
    }
}

/// The lines of the page's tables.
fn lines() -> Vec<Line> {
    let page = fs::read_to_string(root().join("docs/attacks.md")).unwrap();
    let mut lines = Vec::new();
    for row in page.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(number) = cells.get(1).and_then(|cell| cell.parse().ok()) else { continue };
        let &[_, _, attack, outcome, tests, _] = &cells[..] else { panic!("{number} has other columns") };
        let outcome = outcome.strip_prefix("**").and_then(|rest| rest.split("**").next()).unwrap_or_default();
        let tests = tests.split_whitespace().map(|test| {
            let name = test.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
            name.unwrap_or_else(|| panic!("{number}: {test} is no name of a test")).to_owned()
        });
        lines.push(Line { number, attack: attack.into(), outcome: outcome.into(), tests: tests.collect() });
    }
    lines
}

/// Whether there is a test of this name: crate, modules, function, as `cargo test` has them.
fn exists(name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let [room, modules @ .., function] = &parts[..] else { return false };
    files(room, modules).iter().filter_map(|file| fs::read_to_string(file).ok()).any(|source| {
        // A table of tests, whose macro writes a function around each name.
        let table = source.split_once("macro_rules!").map_or("", |(_, after)| after);
        let in_a_table = table.contains(&format!("\n    {function}: "));
        let is_a_test = |attribute: &str| {
            source.split(attribute).skip(1).any(|after| {
                let head = after.split('{').next().unwrap_or_default();
                !head.contains("#[ignore") && head.contains(&format!("fn {function}("))
            })
        };
        in_a_table || is_a_test("#[test]") || is_a_test("#[tokio::test")
    })
}

/// Where the source of a module may lie: among a crate's tests, or in its source, where tests may be in the module itself.
fn files(room: &str, modules: &[&str]) -> Vec<PathBuf> {
    let room = root().join("crates").join(room);
    let inline = modules.strip_suffix(&["tests"]).filter(|modules| !modules.is_empty());
    let places = [("tests", Some(modules)), ("src", Some(modules)), ("src", inline)];
    let mut files = Vec::new();
    for (folder, modules) in places {
        let Some(modules) = modules else { continue };
        let path = room.join(folder).join(modules.join("/"));
        files.extend([path.with_extension("rs"), path.join("mod.rs"), path.join("main.rs")]);
    }
    files
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
