//! `surety faucet`: credits of a local network, for whoever tries something out.

use alloy_primitives::Address;
use anyhow::ensure;
use serde_json::json;
use surety_client::ledger::TransactionCall;

use super::Outcome;
use crate::{
    cli::Global,
    credits::Credits,
    data_dir::DataDir,
    devnet::{self, OWN_ACCOUNT},
    keystore::Keystore,
    look::{LookArgs, credits},
    output::{self, hinted},
    passphrase::PassphraseArgs,
};

/// Arguments of `faucet`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who is to have them.
    #[arg(value_name = "ADDRESS")]
    to: Address,
    /// How many.
    #[arg(long, value_name = "CREDITS", default_value = "10")]
    amount: Credits,
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Gives credits away.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    let look = args.look.open(&data_dir)?;
    if !devnet::is_local(look.ledger.genesis()) {
        return Err(hinted(
            "this is no local network: its credits belong to somebody, and nobody gives them away here",
            "start one with `surety up`; elsewhere send credits with a wallet, or `surety key` and an Ethereum client",
        ));
    }
    let keystore = Keystore::new(data_dir.keys());
    let wallet = keystore.load_account(OWN_ACCOUNT, || args.passphrase.existing(OWN_ACCOUNT))?;
    let Credits(value) = args.amount;
    let call = TransactionCall { to: args.to, value, ..TransactionCall::default() };
    let landed = look.ledger.submit(&wallet, vec![call]).await?;
    let landed = landed.first().filter(|landed| landed.success);
    ensure!(landed.is_some(), "the ledger took the transaction, and it failed");
    let balance = look.ledger.account(args.to).await?.value.balance;
    if global.json {
        let transaction = landed.map(|landed| landed.hash);
        let (amount, balance) = (value.to_string(), balance.to_string());
        output::json(
            &json!({ "to": args.to, "amount": amount, "balance": balance, "transaction": transaction }),
        )?;
    } else {
        output::line(format_args!("{} has {} credits", args.to, credits(balance)))?;
    }
    Ok(Outcome::Done)
}
