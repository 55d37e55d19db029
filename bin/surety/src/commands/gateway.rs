//! `surety gateway run`

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use surety_gateway::{Gateway, GatewayLedger, GatewaySettings, Limits, StartError};
use surety_net::WorkerAddress;

use super::Outcome;
use crate::{
    child::{ChildArgs, allow_open_files, stop_requested},
    cli::Global,
    credits::{Credits, TokenPrice},
    data_dir::DataDir,
    ledger::LedgerArgs,
    nearby::{self, found_in},
    output,
};

/// The commands on gateways.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Serve the OpenAI-compatible API, with workers behind it.
    Run(Args),
}

/// Arguments of `gateway run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to serve HTTP; port 0 takes any free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A worker, as `surety worker run` prints it. May be given several times; those on the ledger are found by themselves.
    #[arg(long = "worker", value_name = "KEY@IP:PORT", required_unless_present_any = ["genesis", "mdns"])]
    workers: Vec<WorkerAddress>,
    /// Also use the workers that announce themselves in this private network (`surety worker run --mdns`); IP: this
    /// machine's address there [default: the system's choice].
    #[arg(long, value_name = "IP", num_args = 0..=1, require_equals = true, conflicts_with = "genesis")]
    mdns: Option<Option<Ipv4Addr>>,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Credits to lock in a channel to each operator; topped up when half of them are spent.
    #[arg(long, value_name = "CREDITS", default_value = "10", requires = "genesis")]
    deposit: Credits,
    /// The most to pay for a million tokens, in credits.
    #[arg(long, value_name = "PROMPT/CACHED/OUTPUT", default_value = "1/1/4", requires = "genesis")]
    price_ceiling: TokenPrice,
    /// Let anyone who reaches the address use it, as long as there is no key (`surety apikey create`).
    #[arg(long)]
    open: bool,
    /// Refuse everyone without a key, even before there is one.
    #[arg(long)]
    require_key: bool,
    /// Let whoever shows no key pay for each request by itself, and keys buy credits (x402), on the ledger, to --account; refuse
    /// everyone else without a key.
    #[arg(long, requires = "genesis")]
    x402: bool,
    /// Compare one in so many answers of a worker that fronts an upstream and names the model which that runs, after its first 32,
    /// with that model's own (tier `statistical`); 0: none. What an exact worker asks for that, the gateway pays.
    #[arg(long, value_name = "N", default_value_t = Limits::default().compare_one_in)]
    compare_one_in: u32,
    #[command(flatten)]
    pub child: ChildArgs,
}

/// The line a gateway prints when it serves.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// Where it listens.
    pub address: SocketAddr,
    /// What to give an OpenAI client.
    pub base_url: String,
    /// The key that signs its envelopes.
    pub gateway: String,
}

/// Serves until told to stop.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    allow_open_files();
    let data_dir = DataDir::of(&global)?;
    let mut settings = GatewaySettings::new(args.listen, data_dir.gateway());
    settings.open = args.open;
    settings.require_key = args.require_key;
    settings.x402 = args.x402;
    settings.limits.compare_one_in = args.compare_one_in;
    settings.workers = args.workers;
    settings.nearby = args.mdns.map(|interface| found_in(nearby::network(interface))).transpose()?;
    settings.ledger = args.ledger.open_with_ledger(&data_dir)?.map(|place| GatewayLedger {
        account: place.account,
        ledger: Some(place.ledger),
        deposit: args.deposit.0,
        price_ceiling: args.price_ceiling.0,
    });
    let gateway = Gateway::start(settings).await.context("the gateway did not start")?;
    let address = gateway.address();
    let ready =
        Ready { ready: true, address, base_url: base_url(address), gateway: gateway.key().to_string() };
    if global.json {
        output::json(&ready)?;
    } else {
        output::line(format_args!("gateway {}", ready.gateway))?;
        output::line(format_args!("serves {}", ready.base_url))?;
    }
    let stop = stop_requested(args.child).await;
    gateway.stop().await;
    stop.map(|()| Outcome::Done)
}

/// What to give an OpenAI client on this machine.
pub fn base_url(address: SocketAddr) -> String {
    let mut address = address;
    match &mut address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => v4.set_ip(std::net::Ipv4Addr::LOCALHOST),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => v6.set_ip(std::net::Ipv6Addr::LOCALHOST),
        _ => {}
    }
    format!("http://{address}/v1")
}

/// What can be done about an error of a gateway.
pub fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    error.downcast_ref::<StartError>().map(|error| error.hint().to_owned())
}
