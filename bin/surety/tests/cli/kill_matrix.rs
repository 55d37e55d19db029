//! The kill matrix, in its short form: workers die and stall in the middle of answers, and nobody notices.
//!
//! `SURETY_FAULTS` sets how many faults there are, `SURETY_FAULTS_SEED` which; the long form, with links cut and everything
//! paid for, is `cargo run --release -p xtask -- kill-matrix`.

use std::path::PathBuf;

use xtask::kill_matrix::{Settings, run};

fn told_number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn workers_die_in_mid_answer_and_the_answers_are_the_same() {
    let settings = Settings {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_surety")),
        faults: told_number("SURETY_FAULTS").unwrap_or(4) as usize,
        seed: told_number("SURETY_FAULTS_SEED").unwrap_or(1),
        workers: 3,
        apart: 0,
        validators: 0,
        at_once: 2,
        model: None,
        log: None,
        no_drain: false,
    };
    let report = run(&settings).unwrap();
    report.lines().iter().for_each(|line| println!("{line}"));
    assert_eq!(report.failures(), Vec::<String>::new());
}
