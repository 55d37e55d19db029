//! `surety relay run`

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use surety_net::{Relay, RelayLimits};
use tokio::time::{MissedTickBehavior, interval};

use super::Outcome;
use crate::{
    child::{ChildArgs, stop_requested},
    cli::Global,
    output::{self, size},
};

/// How often it is said how it is doing.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The commands on relays.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Pass packets on for workers that only can call out. It reads none of them, and has no accounts and no administrator.
    Run(Args),
}

/// Arguments of `relay run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen (TCP).
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7842")]
    listen: SocketAddr,
    /// Connections, of all clients.
    #[arg(long, value_name = "N", default_value_t = RelayLimits::default().connections)]
    connections: usize,
    /// Connections from one IP address.
    #[arg(long, value_name = "N", default_value_t = RelayLimits::default().connections_per_ip)]
    connections_per_ip: usize,
    /// Bytes a second that one client may send.
    #[arg(long, value_name = "BYTES", default_value_t = RelayLimits::default().bytes_per_second)]
    bytes_per_second: NonZeroU32,
    #[command(flatten)]
    pub child: ChildArgs,
}

/// The line a relay prints when it passes packets on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// `relay+http://IP:PORT`
    pub relay: String,
}

/// Passes packets on until told to stop.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let Args { listen, connections, connections_per_ip, bytes_per_second, child } = args;
    let limits = RelayLimits { connections, connections_per_ip, bytes_per_second };
    let relay =
        Relay::start(listen, limits).await.with_context(|| format!("cannot listen on {listen} (TCP)"))?;
    let address = relay.address();
    if global.json {
        output::json(&Ready { ready: true, relay: address.to_string() })?;
    } else {
        output::line(format_args!("relay {address}"))?;
        if address.0.ip().is_unspecified() {
            output::note("give workers the address at which others reach this machine: --relay IP:PORT");
        }
        output::note(format_args!(
            "{connections} connections, {connections_per_ip} of one address, {}/s each; at most {} of memory for packets that wait",
            size(bytes_per_second.get().into()),
            size(limits.memory_bytes_max()),
        ));
    }
    let report = async {
        let mut ticks = interval(REPORT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let counts = relay.counts();
            let (clients, passed) = (counts.clients, counts.passed);
            tracing::info!(clients, passed, dropped = counts.dropped, refused = counts.refused, "relay");
        }
    };
    tokio::select! {
        stop = stop_requested(child) => stop.map(|()| Outcome::Done),
        never = report => never,
    }
}
