//! `surety model serve`: the store's files, given to whoever asks for them by their BLAKE3.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use serde_json::json;
use surety_blobs::{HoldLimits, View, hold};
use surety_net::{BindOptions, Endpoint, ListenLimits};
use surety_worker::{Progress, Step, store::Entry};

use crate::{
    child::{ChildArgs, stop_requested},
    cli::Global,
    commands::Outcome,
    data_dir::DataDir,
    keystore::Keystore,
    models::{Models, Share},
    output::{self, size},
    passphrase::PassphraseArgs,
    progress::Shown,
};

/// Arguments of `model serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen (UDP); port 0 takes any free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The key that names this machine; made if there is none.
    #[arg(long, value_name = "NAME", default_value = "worker")]
    key: String,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Send no more than this, to all together.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_second: Option<u64>,
    #[command(flatten)]
    child: ChildArgs,
}

/// Gives out the store's files until told to stop.
pub async fn run(
    global: &Global,
    data_dir: &DataDir,
    models: &Models,
    args: Args,
) -> anyhow::Result<Outcome> {
    let view = models.view(data_dir, Share::Store, &[]).map(Arc::new).context("the store is not shared")?;
    let key =
        Keystore::new(data_dir.keys()).load_or_create(&args.key, || args.passphrase.existing(&args.key))?;
    // Each file is read once, now, rather than when the first stranger asks.
    let entries = models.store().list()?;
    let reading = {
        let (view, entries) = (view.clone(), entries);
        tokio::task::spawn_blocking(move || read(&view, entries))
    };
    let ready = tokio::select! {
        ready = reading => ready?,
        stop = stop_requested(args.child) => return stop.map(|()| Outcome::Done),
    };
    if ready.is_empty() {
        output::note(
            "the store holds no model yet; what is added later with `surety model add` is served at once",
        );
    }
    // What is served is not collected.
    let _held: Vec<_> = ready.iter().filter_map(|entry| models.hold(&entry.path, entry.blake3)).collect();
    let endpoint = Endpoint::bind(BindOptions { key, listen: args.listen }).await?;
    let listener = endpoint.listen_for_blobs(ListenLimits::default());
    let limits = HoldLimits { bytes_per_second: args.bytes_per_second, ..HoldLimits::default() };
    let address = endpoint.address();
    if global.json {
        let models: Vec<_> = ready
            .iter()
            .map(|entry| json!({ "name": entry.name, "blake3": entry.blake3, "bytes": entry.bytes }))
            .collect();
        output::json(&json!({ "ready": true, "address": address.to_string(), "models": models }))?;
    } else {
        output::line(format_args!("holder {address}"))?;
        for entry in &ready {
            output::line(format_args!(
                "holds {}  blake3:{}  {}",
                entry.name,
                entry.blake3,
                size(entry.bytes)
            ))?;
        }
    }
    let outcome = tokio::select! {
        () = hold(listener, address.key, view, limits) => Err(anyhow::anyhow!("the socket closed")),
        stop = stop_requested(args.child) => stop.map(|()| Outcome::Done),
    };
    endpoint.close().await;
    outcome
}

/// The entries whose files are what the store says.
fn read(view: &View, entries: Vec<Entry>) -> Vec<Entry> {
    let mut good = Vec::new();
    for entry in entries {
        let mut shown = Shown::new(entry.name.clone());
        let report = &mut |done, total| shown.report(Progress { step: Step::Hashing, done, total });
        match view.tree(entry.blake3, report) {
            Ok(_) => good.push(entry),
            Err(error) => output::note(format_args!("{} is not served: {error}", entry.name)),
        }
    }
    good
}
