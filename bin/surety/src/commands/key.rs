//! `surety key new|list|show`

use serde_json::json;

use super::{Outcome, validator::begin_vote_record};
use crate::{
    cli::Global,
    data_dir::DataDir,
    keystore::{Identity, KeyEntry, KeyKind, Keystore},
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
        /// An account of the ledger (secp256k1, with an Ethereum address) instead of a key that signs receipts or votes.
        #[arg(long)]
        account: bool,
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// Keep the key unencrypted, protected by its file's mode alone.
        #[arg(long, conflicts_with = "passphrase_file")]
        no_passphrase: bool,
    },
    /// List the keys.
    List,
    /// Show a key's public half, or an account's address.
    Show {
        /// Which.
        name: String,
    },
}

/// Runs one of them.
pub fn run(global: &Global, command: Command) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(global)?;
    let keystore = Keystore::new(data_dir.keys());
    match command {
        Command::New { name, account, passphrase, no_passphrase } => {
            let kind = if account { KeyKind::Account } else { KeyKind::Signing };
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
            keystore.create(&name, kind, secret.as_ref().map(|secret| secret.as_str()))?;
            let made = keystore.entry(&name)?;
            if let Identity::Signing(key) = made.identity {
                begin_vote_record(&data_dir, &key)?;
            }
            show(global, &made)?;
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
                    output::line(format_args!(
                        "{:<64}  {:<20} {}",
                        key.identity.to_string(),
                        key.name,
                        protection(key)
                    ))?;
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
    output::line(key.identity)?;
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
