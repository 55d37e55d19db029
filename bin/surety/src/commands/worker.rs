//! `surety worker run`

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use serde::{Deserialize, Serialize};
use surety_kernels::Backend;
use surety_net::WorkerAddress;
use surety_worker::{
    WorkerLedger, machine,
    money::{Claims, Duties},
    serve::{self, WorkerSettings},
};
use tokio::sync::watch;

use super::Outcome;
use crate::{
    child::{ChildArgs, stop_requested},
    cli::Global,
    credits::{Credits, TokenPrice},
    data_dir::DataDir,
    keystore::Keystore,
    ledger::LedgerArgs,
    models::{ModelArg, Models},
    output::{self, hinted, size},
    passphrase::PassphraseArgs,
    progress::Shown,
};

/// How long a worker that stops lets its orders finish.
const GRACE: Duration = Duration::from_secs(10);

/// The commands on workers.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Serve models to gateways.
    Run(Args),
}

/// Arguments of `worker run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model to serve: file.gguf, hf:owner/repo[/file], a name, or NAME=… to serve it under another name. May be
    /// given several times [default: the bundled demonstration].
    #[arg(long = "model", value_name = "[NAME=]REF")]
    models: Vec<ModelArg>,
    /// Where to listen (UDP); port 0 takes any free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The key that names this worker and signs its receipts; made if there is none.
    #[arg(long, value_name = "NAME", default_value = "worker")]
    key: String,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Bytes for the KV caches of all answers under way [default: half of the free memory].
    #[arg(long, value_name = "BYTES")]
    kv_bytes: Option<u64>,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Credits to have bonded.
    #[arg(long, value_name = "CREDITS", default_value = "100", requires = "genesis")]
    bond: Credits,
    /// What a million tokens cost, in credits.
    #[arg(long, value_name = "PROMPT/CACHED/OUTPUT", default_value = "0.1/0.01/0.4", requires = "genesis")]
    price: TokenPrice,
    /// What the operator is called on the ledger [default: the account's name].
    #[arg(long, value_name = "NAME", requires = "genesis")]
    operator_name: Option<String>,
    /// The address to publish, if others reach this worker elsewhere than where it listens.
    #[arg(long, value_name = "IP:PORT", requires = "genesis")]
    announce: Option<SocketAddr>,
    #[command(flatten)]
    pub child: ChildArgs,
}

/// How a model is computed.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// Threads that compute [default: one per core].
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Tokens of prompt and answer together, at most [default: the model's own limit, or what memory allows].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub context: Option<u32>,
    /// The kernels to use: scalar, avx2, avx-vnni, avx512, avx512-vnni or neon [default: the fastest this machine has].
    #[arg(long, value_name = "NAME")]
    pub backend: Option<Backend>,
}

/// The line a worker prints when it takes orders.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// `KEY@IP:PORT`
    pub address: String,
    /// What it serves.
    pub models: Vec<ReadyModel>,
}

/// A model in that line.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReadyModel {
    /// Its identity.
    pub id: String,
    /// What it is called.
    pub names: Vec<String>,
    /// Tokens of prompt and answer together, at most.
    pub context_tokens: u32,
}

impl Ready {
    /// The address, parsed.
    pub fn address(&self) -> anyhow::Result<WorkerAddress> {
        Ok(self.address.parse()?)
    }
}

/// Serves until told to stop.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    let models = Models::new(&data_dir);
    let mut wanted = Vec::new();
    for arg in if args.models.is_empty() { vec![ModelArg::default()] } else { args.models } {
        models.find_or_download(&arg.reference).await?;
        wanted.push(models.settings(&arg)?);
    }
    let key =
        Keystore::new(data_dir.keys()).load_or_create(&args.key, || args.passphrase.existing(&args.key))?;
    let ledger = args.ledger.open(&data_dir)?.map(|(name, account)| WorkerLedger {
        account,
        bond: args.bond.0,
        price: args.price.0,
        folder: data_dir.path().join("worker").join(&name),
        name: args.operator_name.unwrap_or(name),
        endpoint: args.announce,
        claims: Claims::default(),
    });
    let settings = WorkerSettings {
        key,
        listen: args.listen,
        models: wanted,
        cache: Some(data_dir.cache()),
        backend: args.engine.backend,
        threads: args.engine.threads,
        context_tokens: args.engine.context,
        kv_bytes: args.kv_bytes,
        ledger,
    };
    let mut shown = Shown::new("the model's weights");
    let starting = serve::start(settings, move |progress| shown.report(progress));
    let mut worker = tokio::select! {
        worker = starting => worker?,
        stop = stop_requested(args.child) => return stop.map(|()| Outcome::Done),
    };
    if let Some(duties) = worker.duties() {
        tokio::spawn(report(duties));
    }
    let served = worker.models();
    for model in &served {
        models.store().note_model(model.file.blake3, model.id);
    }
    let ready = Ready {
        ready: true,
        address: worker.address().to_string(),
        models: served
            .into_iter()
            .map(|model| ReadyModel {
                id: model.id.to_string(),
                names: model.names,
                context_tokens: model.context_tokens,
            })
            .collect(),
    };
    if global.json {
        output::json(&ready)?;
    } else {
        output::line(format_args!("worker {}", ready.address))?;
        for model in &ready.models {
            output::line(format_args!(
                "serves {} ({}), {} tokens of context",
                model.names.join(", "),
                model.id,
                model.context_tokens
            ))?;
        }
        if let Some(memory) = machine::available_memory_bytes() {
            tracing::info!("{} of memory are free", size(memory));
        }
    }
    let outcome = tokio::select! {
        stop = stop_requested(args.child) => stop.map(|()| Outcome::Done),
        name = worker.failed() => Err(hinted(
            format!("the computation of {name} failed; this is a defect of Surety"),
            "the lines above say where; please report them",
        )),
    };
    worker.shutdown(GRACE).await;
    outcome
}

/// Says what keeps the worker from its place on the ledger, and when it has it.
async fn report(mut duties: watch::Receiver<Duties>) {
    let mut registered = false;
    let mut told = None;
    loop {
        let Duties { registered: now, doing, problem } = duties.borrow_and_update().clone();
        if now && !registered {
            registered = true;
            tracing::info!("registered on the ledger");
        }
        tracing::debug!(doing, "on the ledger");
        let problem = problem.map(|problem| format!("{}; {}", problem.message, problem.hint));
        if let Some(problem) = problem.as_ref().filter(|problem| Some(*problem) != told.as_ref()) {
            output::note(format_args!("ledger: {problem}"));
        }
        told = problem;
        if duties.changed().await.is_err() {
            return;
        }
    }
}
