//! `surety completions SHELL`

use clap::CommandFactory;
use clap_complete::Shell;

use super::Outcome;
use crate::{cli::Cli, output};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "surety", &mut script);
    output::piece(&String::from_utf8(script)?)?;
    Ok(Outcome::Done)
}
