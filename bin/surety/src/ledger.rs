//! Which ledger a role uses, and with which account.
//!
//! In:     `--genesis`, `--rpc-url`, `--account`.
//! Out:    an account on a ledger whose answers are checked.
//! Touches: the genesis file, the keystore.
//! Absent: what is done there (the roles).

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use surety_client::{
    account_on,
    channel::Account,
    ledger::{Ledger, LedgerSettings},
};

use crate::{
    commands::validator::read_genesis, data_dir::DataDir, keystore::Keystore, output::hinted,
    passphrase::PassphraseArgs,
};

/// A role's place on a ledger.
#[derive(Clone, Debug, clap::Args)]
pub struct LedgerArgs {
    /// The ledger's genesis (JSON), from which everything else is checked; without it nothing is bonded, paid or posted.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// A validator's RPC; none is believed without proof. May be given several times.
    #[arg(long = "rpc-url", value_name = "URL", default_value = "http://127.0.0.1:8545")]
    rpc_urls: Vec<String>,
    /// The account that bonds and is paid, or that pays (`surety key new NAME --account` makes one). One process each.
    #[arg(long, value_name = "NAME", requires = "genesis")]
    account: Option<String>,
    /// Read the account's passphrase from this file (its first line).
    #[arg(long, value_name = "FILE")]
    account_passphrase_file: Option<PathBuf>,
}

/// A ledger, and an account on it.
pub struct Place {
    /// What the account is called here.
    pub name: String,
    pub account: Arc<dyn Account>,
    pub ledger: Ledger,
}

impl LedgerArgs {
    /// Whether a ledger is named.
    pub fn is_some(&self) -> bool {
        self.genesis.is_some()
    }

    /// The account that is named; this one if none is.
    pub fn account_or(&mut self, name: &str) -> &str {
        self.account.get_or_insert_with(|| name.to_owned())
    }

    /// Where the ledger's nodes are.
    pub fn rpc_urls(&self) -> &[String] {
        &self.rpc_urls
    }

    /// The name of the account and the account itself, if the role uses a ledger.
    pub fn open(&self, data_dir: &DataDir) -> anyhow::Result<Option<(String, Arc<dyn Account>)>> {
        Ok(self.open_with_ledger(data_dir)?.map(|place| (place.name, place.account)))
    }

    /// As [`LedgerArgs::open`], with the ledger beneath.
    pub fn open_with_ledger(&self, data_dir: &DataDir) -> anyhow::Result<Option<Place>> {
        let Some(path) = &self.genesis else { return Ok(None) };
        let Some(name) = &self.account else {
            return Err(hinted(
                "a ledger is named and no account on it",
                "name one with --account NAME; `surety key new NAME --account` makes one",
            ));
        };
        let genesis = read_genesis(path)?;
        let passphrase = PassphraseArgs { passphrase_file: self.account_passphrase_file.clone() };
        let wallet = Keystore::new(data_dir.keys()).load_account(name, || passphrase.existing(name))?;
        let settings = LedgerSettings { genesis, rpc_urls: self.rpc_urls.clone() };
        let ledger = Ledger::new(settings).context("the ledger cannot be used")?;
        let account = account_on(ledger.clone(), wallet);
        Ok(Some(Place { name: name.clone(), account, ledger }))
    }
}
