//! Looking at a ledger: which one, and how its amounts and times read.
//!
//! In:     `--genesis`, `--rpc-url`; else what a running `surety up` or `surety validator init` left.
//! Out:    a ledger whose answers are checked; aligned text.
//! Touches: `up.json`, the genesis file.
//! Absent: what is looked at (the commands).

use std::{fs, net::IpAddr, path::PathBuf};

use alloy_primitives::U256;
use anyhow::Context;
use serde::Deserialize;
use surety_client::ledger::{Ledger, LedgerBounds, LedgerSettings, Tip, Wallet};

use crate::{
    commands::validator::{kept_genesis, read_genesis},
    data_dir::DataDir,
    keystore::Keystore,
    output::hinted,
    passphrase::PassphraseArgs,
};

/// Where a validator serves RPC unless told otherwise.
const USUAL: &str = "http://127.0.0.1:8545";

/// Which ledger to look at.
#[derive(Clone, Debug, clap::Args)]
pub struct LookArgs {
    /// The ledger's genesis (JSON), on which everything is checked [default: that of the running `surety up`, else of
    /// `surety validator init`].
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// A validator's RPC, believed only with proof; may be given several times [default: those of the running
    /// `surety up`, else http://127.0.0.1:8545].
    #[arg(long = "rpc-url", value_name = "URL")]
    rpc_urls: Vec<String>,
}

/// What a running `up` left word of.
#[derive(Clone, Debug, Default, Deserialize)]
struct Running {
    base_url: Option<String>,
    #[serde(default)]
    rpc_urls: Vec<String>,
    genesis: Option<PathBuf>,
}

/// A ledger, and the gateway beside it if one is known.
pub struct Look {
    pub ledger: Ledger,
    pub base_url: Option<String>,
    /// Whether it is all on this machine.
    pub local: bool,
}

/// Who acts, and on which ledger.
#[derive(Clone, Debug, clap::Args)]
pub struct ActorArgs {
    /// The account that acts (`surety key list` shows them).
    #[arg(long, value_name = "NAME")]
    account: String,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    look: LookArgs,
}

impl ActorArgs {
    /// As if they were given so.
    pub fn of(account: &str, passphrase: &PassphraseArgs, look: &LookArgs) -> ActorArgs {
        ActorArgs { account: account.to_owned(), passphrase: passphrase.clone(), look: look.clone() }
    }

    /// The ledger, and the account's wallet.
    pub fn open(&self, data_dir: &DataDir) -> anyhow::Result<(Ledger, Wallet)> {
        let ledger = self.look.open(data_dir)?.ledger;
        let keystore = Keystore::new(data_dir.keys());
        let wallet = keystore.load_account(&self.account, || self.passphrase.existing(&self.account))?;
        Ok((ledger, wallet))
    }
}

impl LookArgs {
    /// Whether a ledger was named.
    pub fn is_given(&self) -> bool {
        self.genesis.is_some() || !self.rpc_urls.is_empty()
    }

    /// The ledger these mean.
    pub fn open(&self, data_dir: &DataDir) -> anyhow::Result<Look> {
        // A chain that stands still is to be seen too; its age is shown.
        self.open_within(data_dir, LedgerBounds { age_max: None, ..LedgerBounds::default() })
    }

    /// The same within bounds of one's own.
    pub fn open_within(&self, data_dir: &DataDir, bounds: LedgerBounds) -> anyhow::Result<Look> {
        let running: Running = fs::read(data_dir.running())
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let kept = kept_genesis(data_dir);
        let path = match (&self.genesis, &running.genesis) {
            (Some(path), _) | (None, Some(path)) => path.clone(),
            (None, None) if kept.exists() => kept,
            (None, None) => {
                return Err(hinted(
                    "it is not known which ledger to look at",
                    "start one with `surety up`, or name its genesis with --genesis FILE and a validator with \
                     --rpc-url URL",
                ));
            }
        };
        // What runs here serves the ledger it was started with, not another one that is named.
        let here = self.genesis.is_none();
        let rpc_urls = if !self.rpc_urls.is_empty() {
            self.rpc_urls.clone()
        } else if here && !running.rpc_urls.is_empty() {
            running.rpc_urls
        } else {
            vec![USUAL.to_owned()]
        };
        let local = rpc_urls.iter().all(|url| is_loopback(url));
        let settings = LedgerSettings { genesis: read_genesis(&path)?, rpc_urls };
        let ledger = Ledger::with_bounds(settings, bounds).context("the ledger cannot be looked at")?;
        Ok(Look { ledger, base_url: running.base_url.filter(|_| here), local })
    }
}

/// Whether a URL is of this machine.
pub fn is_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Wei as credits, with as many decimals as say something.
pub fn credits(wei: U256) -> String {
    let unit = U256::from(1_000_000_000_000_000_000_u64);
    let (whole, rest) = (wei / unit, wei % unit);
    let digits = whole.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let fraction = format!("{rest:0>18}");
    let fraction = fraction.trim_end_matches('0');
    match (fraction.is_empty(), fraction.get(..6)) {
        (true, _) => text,
        (false, Some(first)) if first.bytes().all(|digit| digit == b'0') => {
            if whole.is_zero() {
                "<0.000001".into()
            } else {
                text
            }
        }
        (false, Some(first)) => format!("{text}.{}", first.trim_end_matches('0')),
        (false, None) => format!("{text}.{fraction}"),
    }
}

/// How long ago a block was, by this machine's clock, in milliseconds.
pub fn age_ms(tip: &Tip) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(tip.timestamp_ms)
}

/// Columns, aligned; the last is as wide as it is.
pub fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        let wei = |text: &str| text.parse::<crate::credits::Credits>().unwrap().0;
        for (amount, expected) in [
            ("0", "0"),
            ("1", "1"),
            ("1234567", "1,234,567"),
            ("1000.5", "1,000.5"),
            ("0.000000000000000001", "<0.000001"),
            ("3.000000000000000001", "3"),
            ("0.1234567", "0.123456"),
        ] {
            assert_eq!(credits(wei(amount)), expected);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        assert_eq!(aligned(&[row(&["a", "bb"]), row(&["ccc", "d"])]), ["a    bb", "ccc  d"]);
        assert!(aligned(&[]).is_empty());
    }

    #[test]
    fn what_is_on_this_machine_is_told() {
        for url in ["http://127.0.0.1:8545", "http://[::1]:1", "https://localhost/rpc"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://192.0.2.1:8545", "http://127.example.org", "http://localhost.example.org", "x"] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn without_any_word_of_a_ledger_there_is_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        let args = LookArgs { genesis: None, rpc_urls: vec![] };
        let error = args.open(&DataDir::at(folder.path())).err().unwrap();
        assert!(error.to_string().contains("not known which ledger"), "{error}");
    }
}
