//! `surety key new|list|show`

use serde_json::json;

use super::Outcome;
use crate::{
    cli::Global,
    data_dir::DataDir,
    keystore::{KeyEntry, Keystore},
    output::{self, hinted},
    passphrase::PassphraseArgs,
};

/// The commands on keys.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key. Its secret half never leaves the data directory.
    New {
        /// What to call it.
        name: String,
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// Keep the key unencrypted, protected by its file's mode alone.
        #[arg(long, conflicts_with = "passphrase_file")]
        no_passphrase: bool,
    },
    /// List the keys.
    List,
    /// Show a key's public half.
    Show {
        /// Which.
        name: String,
    },
}

/// Runs one of them.
pub fn run(global: &Global, command: Command) -> anyhow::Result<Outcome> {
    let keystore = Keystore::new(DataDir::of(global)?.keys());
    match command {
        Command::New { name, passphrase, no_passphrase } => {
            let secret = if no_passphrase {
                None
            } else {
                Some(passphrase.new_one()?.ok_or_else(|| {
                    hinted(
                        "there is no terminal to type a passphrase at",
                        "give --passphrase-file FILE, or --no-passphrase for a key that only its file's mode protects",
                    )
                })?)
            };
            keystore.create(&name, secret.as_ref().map(|secret| secret.as_str()))?;
            show(global, &keystore.entry(&name)?)?;
        }
        Command::Show { name } => show(global, &keystore.entry(&name)?)?,
        Command::List => {
            let keys = keystore.list()?;
            if global.json {
                output::json(&json!({ "keys": keys }))?;
            } else if keys.is_empty() {
                output::note("there are no keys yet; `surety key new NAME` makes one");
            } else {
                for key in &keys {
                    output::line(format_args!("{}  {:<20} {}", key.public, key.name, protection(key)))?;
                }
            }
        }
    }
    Ok(Outcome::Done)
}

fn show(global: &Global, key: &KeyEntry) -> anyhow::Result<()> {
    if global.json {
        return output::json(key);
    }
    output::line(key.public)?;
    output::note(format_args!("{}: {}", key.name, protection(key)));
    Ok(())
}

fn protection(key: &KeyEntry) -> &'static str {
    if key.encrypted {
        "encrypted with a passphrase"
    } else {
        "not encrypted; protected by its file's mode alone"
    }
}
