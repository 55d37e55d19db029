//! `surety demo liar`: guided shows on throw-away networks.

mod forge;
mod liar;

use crate::{cli::Global, commands::Outcome};

/// The shows.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Watch a worker lie, be found out, be convicted by arithmetic, and pay for it.
    Liar(liar::Args),
}

/// Runs one of them.
pub async fn run(global: Global, command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Liar(args) => liar::run(global, args).await,
    }
}
