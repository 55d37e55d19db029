//! The ledger matrix, in its short form: the gateway dies while callers of every kind are answered, and all books agree.
//!
//! `SURETY_OPERATIONS` sets how much is done, `SURETY_OPERATIONS_SEED` what; the long form is
//! `cargo run --release -p xtask -- ledger-matrix`.

use std::path::PathBuf;

use xtask::ledger_matrix::{Settings, run};

fn told_number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_gateway_that_dies_charges_everything_once_and_every_book_says_the_same() {
    let settings = Settings {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_surety")),
        operations: told_number("SURETY_OPERATIONS").unwrap_or(60) as usize,
        kills: 2,
        seed: told_number("SURETY_OPERATIONS_SEED").unwrap_or(1),
        workers: 2,
        validators: 4,
        at_once: 4,
        model: None,
        log: None,
        keep: false,
    };
    let report = run(&settings).unwrap();
    report.lines().iter().for_each(|line| println!("{line}"));
    assert_eq!(report.failures(), Vec::<String>::new());
}
