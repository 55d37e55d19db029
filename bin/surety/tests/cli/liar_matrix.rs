//! The liar matrix, in its short form: liars are convicted and the honest are not, whoever accuses them.
//!
//! `SURETY_DISPUTES` sets how many answers are contested; the long form is `cargo run --release -p xtask -- liar-matrix`.

use std::path::PathBuf;

use xtask::liar_matrix::{Settings, run};

#[test]
fn liars_are_convicted_and_the_falsely_accused_are_not() {
    let disputes = std::env::var("SURETY_DISPUTES").ok().and_then(|count| count.parse().ok());
    let settings = Settings {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_surety")),
        disputes: disputes.unwrap_or(5),
        at_once: 3,
        honest_percent: 30,
        seed: 1,
    };
    let report = run(&settings).unwrap();
    report.lines().iter().for_each(|line| println!("{line}"));
    assert_eq!(report.failures(), Vec::<String>::new());
}
