//! `surety model fund`: gives credits to those who keep a model and show it.

use alloy_primitives::B256;
use serde_json::json;
use surety_client::{
    account_on,
    channel::{ModuleCall, view},
};
use surety_types::{
    Canonical as _,
    abi::{IHosting, Module},
};
use surety_worker::store::Reference;

use super::{
    network,
    publish::{Cost, send, told},
};
use crate::{
    cli::Global,
    credits::Credits,
    data_dir::DataDir,
    look::{ActorArgs, Look, credits},
    output,
};

/// Arguments of `model fund`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME or NAME@ID as it is on the ledger, or blake3:… of a model or of its file.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// How much. It is paid to who proves to keep the model, a part in every epoch, and not refunded.
    #[arg(value_name = "CREDITS")]
    amount: Credits,
    #[command(flatten)]
    actor: ActorArgs,
}

/// Lists the model's files if nobody did, and adds to its pool.
pub async fn run(global: &Global, data_dir: &DataDir, args: Args) -> anyhow::Result<()> {
    let Credits(amount) = args.amount;
    let (ledger, wallet) = args.actor.open(data_dir)?;
    let look = Look { ledger: ledger.clone(), base_url: None, local: false };
    let found = network::find(&look, &args.reference).await?;
    let account = account_on(ledger.clone(), wallet.clone());
    let model = B256::from(found.id.0.0);
    let hosted =
        async || view(&*account, Module::Hosting, &IHosting::hostedCall { model }).await.map_err(told);
    let mut cost = Cost::default();
    if hosted().await?.files == 0 {
        let list = IHosting::listCall { manifest: found.manifest.to_cbor().into() };
        send(&ledger, &wallet, ModuleCall::new(Module::Hosting, &list), &mut cost).await?;
    }
    let fund = ModuleCall::paying(Module::Hosting, &IHosting::fundCall { model }, amount);
    send(&ledger, &wallet, fund, &mut cost).await?;
    let hosted = hosted().await?;
    let wanted = account.params().await.map_err(told)?.hosting_replicas;
    if global.json {
        return output::json(&json!({
            "id": found.id, "given_wei": amount.to_string(), "pool_wei": hosted.pool.to_string(),
            "share_wei": hosted.share.to_string(), "pins": hosted.pins, "wanted": wanted,
            "transactions": cost.transactions, "gas": cost.gas, "fee": cost.fee.to_string(),
        }));
    }
    output::line(format_args!("model  {}", found.id))?;
    output::line(format_args!(
        "pool   {} credits, {} of them given now",
        credits(hosted.pool),
        credits(amount)
    ))?;
    output::line(format_args!("pins   {}; {wanted} are wanted, and paid", hosted.pins))?;
    output::line(format_args!("pays   {} credits for the next proof", credits(hosted.share)))?;
    output::line(format_args!("cost   {} credits, {} gas", credits(cost.fee), cost.gas))?;
    Ok(())
}
