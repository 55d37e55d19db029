//! `surety model publish`: a model's manifest, and names for it, on the ledger.

use alloy_primitives::U256;
use serde_json::json;
use surety_client::{
    account_on,
    channel::{AccountError, ModuleCall},
    ledger::{Landed, Ledger, LedgerError, TransactionCall, Wallet},
    models::{Naming, dispute_leaf_bytes, naming, publication},
};
use surety_worker::store::Reference;

use super::open;
use crate::{
    cli::Global,
    data_dir::DataDir,
    look::{ActorArgs, credits},
    models::Models,
    output::{self, hinted, size},
};

/// Names given at once.
const ALIASES_MAX: usize = 16;

/// Arguments of `model publish`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name of the store, file.gguf, or hf:owner/repo[/file]
    #[arg(value_name = "REF")]
    reference: Reference,
    /// A name to point at it on the ledger. A free one becomes the account's. May be given several times.
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    #[command(flatten)]
    actor: ActorArgs,
}

/// What it cost.
#[derive(Default)]
pub struct Cost {
    pub transactions: Vec<String>,
    pub fee: U256,
    pub gas: u64,
}

/// Publishes what is not published, and points names that do not point there.
pub async fn run(global: &Global, data_dir: &DataDir, models: &Models, args: Args) -> anyhow::Result<()> {
    if args.aliases.len() > ALIASES_MAX {
        return Err(hinted(
            format!("{} names are too many at once", args.aliases.len()),
            format!("give {ALIASES_MAX} or fewer"),
        ));
    }
    let found = models.find(&args.reference)?;
    let (ledger, wallet) = args.actor.open(data_dir)?;
    let model = open(&found.file, data_dir, &found.name)?;
    models.store().note_model(found.file.blake3, model.id());
    let (id, manifest) = (model.id(), model.manifest());
    let account = account_on(ledger.clone(), wallet.clone());
    let most = account.params().await.map_err(told)?.dispute_leaf_bytes_max;
    let leaf = dispute_leaf_bytes(&*account, manifest).await.map_err(told)?;
    let mut cost = Cost::default();
    let missing = publication(&*account, manifest).await.map_err(told)?;
    let new = missing.is_some();
    // What names are taken is better known before anything is paid for.
    for alias in &args.aliases {
        if let Naming::Taken(holder) = naming(&*account, alias, id).await.map_err(told)? {
            return Err(hinted(
                format!("{alias} is {holder}'s on the ledger, and points elsewhere"),
                "choose another --alias, or ask its holder",
            ));
        }
    }
    if let Some(call) = missing {
        send(&ledger, &wallet, call, &mut cost).await?;
    }
    for alias in &args.aliases {
        match naming(&*account, alias, id).await.map_err(told)? {
            Naming::Points => {}
            Naming::Free(call) | Naming::Elsewhere(_, call) => {
                send(&ledger, &wallet, call, &mut cost).await?
            }
            Naming::Taken(holder) => {
                return Err(hinted(
                    format!("{alias} was taken by {holder} meanwhile"),
                    "choose another --alias",
                ));
            }
        }
    }
    let admitted = ledger.model(id).await?;
    let height = admitted.as_ref().map_or(0, |admitted| admitted.height);
    let (blake3, bytes) = (found.file.blake3, manifest.files.iter().map(|file| file.bytes).sum());
    if global.json {
        return output::json(&json!({
            "name": found.name, "id": id, "new": new, "height": height, "blake3": blake3, "bytes": bytes,
            "aliases": args.aliases, "dispute_leaf_bytes": leaf, "dispute_leaf_bytes_max": most,
            "transactions": cost.transactions, "gas": cost.gas, "fee": cost.fee.to_string(),
        }));
    }
    output::line(format_args!("model      {id}"))?;
    output::line(format_args!("file       blake3:{blake3}, {}", size(bytes)))?;
    let word = if new { "admitted" } else { "admitted earlier" };
    output::line(format_args!("manifest   {word}, in block {height}"))?;
    output::line(format_args!(
        "admission  a dispute needs a leaf of at most {leaf} bytes; {most} are judged"
    ))?;
    for alias in &args.aliases {
        output::line(format_args!("name       {alias}"))?;
    }
    output::line(format_args!(
        "cost       {} credits, {} gas in {} transaction(s)",
        credits(cost.fee),
        cost.gas,
        cost.transactions.len()
    ))?;
    output::note("a worker that serves it gives its file to others: surety worker run --model … --account …");
    Ok(())
}

/// Sends one call, and adds what it cost.
pub async fn send(ledger: &Ledger, wallet: &Wallet, call: ModuleCall, cost: &mut Cost) -> anyhow::Result<()> {
    let call = TransactionCall {
        to: call.module.address(),
        value: call.value,
        input: call.input.into(),
        ..TransactionCall::default()
    };
    let landed = match ledger.submit(wallet, vec![call]).await {
        Err(LedgerError::Reverted { reason: Some(reason), .. }) => return Err(refused(&reason)),
        landed => landed?,
    };
    for Landed { hash, success, revert_reason, gas_used, fee, .. } in landed {
        cost.transactions.push(hash.to_string());
        cost.gas += gas_used;
        cost.fee = cost.fee.saturating_add(fee);
        if !success {
            return Err(refused(revert_reason.as_deref().unwrap_or("it gave no reason")));
        }
    }
    Ok(())
}

fn refused(reason: &str) -> anyhow::Error {
    hinted(format!("the ledger refuses: {reason}"), "the ledger's words say what it asks for")
}

/// As a person is told it.
pub fn told(error: AccountError) -> anyhow::Error {
    hinted(error.message, error.hint)
}
