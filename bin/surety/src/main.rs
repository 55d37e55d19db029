//! Surety: one binary for every role.
//!
//! In:     arguments, the environment, the terminal.
//! Out:    results on stdout, everything else on stderr; exit status 0 (done), 1 (failed, or not verified),
//!         2 (not understood).
//! Touches: the data directory; child processes; what the roles touch.
//! Absent: what the roles do. One file per command turns arguments into settings and runs them.

mod api;
mod bundled;
mod child;
mod cli;
mod commands;
mod conduct;
mod credits;
mod data_dir;
mod devnet;
mod dossier;
mod explanation;
mod keystore;
mod ledger;
mod log;
mod look;
mod models;
mod nearby;
mod output;
mod pack;
mod passphrase;
mod progress;
mod rechecking;
mod span;
mod sse;
mod verification;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // A mistake in the arguments ends here, with status 2.
    let cli = cli::Cli::parse();
    let ran = log::start(&cli).and_then(|log| {
        let ran = commands::run(cli);
        drop(log);
        ran
    });
    match ran {
        Ok(commands::Outcome::Done) => ExitCode::SUCCESS,
        Ok(commands::Outcome::Failed) => ExitCode::FAILURE,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
