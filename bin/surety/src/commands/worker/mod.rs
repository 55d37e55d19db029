//! `surety worker join|run|drain|pause|resume|status|earnings`

mod control;
mod join;
mod pause;
mod reach;
mod reached;
mod steer;

use std::{
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _},
    num::NonZeroUsize,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use surety_blobs::HoldLimits;
use surety_client::ledger::Ledger;
use surety_kernels::Backend;
use surety_net::{Location, RelayAddress, WorkerAddress};
use surety_types::{Digest, ModelId, Region};
use surety_worker::{
    WorkerLedger, machine,
    money::{Claims, Duties, HostingPolicy, HostingSettings, Room},
    serve::{self, Extra, Lie, Sharing, UpstreamKey, UpstreamSettings, WorkerSettings},
    store::{Reference, ReferenceError},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use self::{
    control::{ControlServer, Steered},
    pause::{PauseFile, now_ms},
    reach::{Reach, ReachArgs, Reached, Standing},
};
use super::{Outcome, doctor, model};
use crate::{
    child::{ChildArgs, stop_requested},
    cli::Global,
    credits::{Credits, TokenPrice},
    data_dir::DataDir,
    keystore::Keystore,
    ledger::LedgerArgs,
    models::{ModelArg, Models, Share},
    nearby,
    output::{self, hinted, size},
    passphrase::PassphraseArgs,
    progress::Shown,
};

/// How long a worker that stops lets its orders finish.
const GRACE: Duration = Duration::from_secs(10);
/// For the ledger to say which relays its workers use.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// The commands on workers.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Look at this machine, choose models, register on the ledger and serve: all that a bare machine needs.
    Join(Box<join::Args>),
    /// Serve models to gateways.
    Run(Box<Args>),
    /// Have the worker on this machine finish its orders and end.
    Drain(steer::DrainArgs),
    /// Have it take no new orders for a while; that outlives a restart.
    Pause(steer::PauseArgs),
    /// Have it take orders again.
    Resume(steer::Which),
    /// Show how it is.
    Status(steer::Which),
    /// Show what it earned, by day and model.
    Earnings(steer::EarningsArgs),
}

/// Runs one of them.
pub async fn dispatch(global: Global, command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Join(args) => join::run(global, *args).await,
        Command::Run(args) => run(global, *args).await,
        Command::Drain(args) => steer::drain(global, args).await,
        Command::Pause(args) => steer::pause(global, args).await,
        Command::Resume(which) => steer::resume(global, which).await,
        Command::Status(which) => steer::status(global, which).await,
        Command::Earnings(args) => steer::earnings(global, args).await,
    }
}

/// Arguments of `worker run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub serve: ServeArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// What is served, how, and for what.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// A model to serve: file.gguf, hf:owner/repo[/file], a name, or NAME=… to serve it under another name. May be
    /// given several times [default: the bundled demonstration; `join` chooses].
    #[arg(long = "model", value_name = "[NAME=]REF")]
    models: Vec<ModelArg>,
    #[command(flatten)]
    reach: ReachArgs,
    /// Announce key and address to this private network, where gateways look for them (`surety gateway run --mdns`); IP:
    /// this machine's address there, at which it then listens [default: the system's choice].
    #[arg(long, value_name = "IP", num_args = 0..=1, require_equals = true, conflicts_with = "genesis")]
    mdns: Option<Option<Ipv4Addr>>,
    /// The key that names this worker and signs its receipts; made if there is none.
    #[arg(long, value_name = "NAME", default_value = "worker")]
    key: String,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    upstream: UpstreamArgs,
    /// Bytes for the KV caches of all answers under way [default: half of the free memory].
    #[arg(long, value_name = "BYTES")]
    kv_bytes: Option<u64>,
    /// Where the worker is, from wide to narrow, as in eu-de: what requests may ask for by `provider.region`. Nobody checks it; it
    /// is in every acceptance that the worker signs.
    #[arg(long, value_name = "REGION")]
    region: Option<Region>,
    /// Credits to have bonded.
    #[arg(long, value_name = "CREDITS", default_value = "100", requires = "genesis")]
    bond: Credits,
    /// What a million tokens cost, in credits.
    #[arg(long, value_name = "PROMPT/CACHED/OUTPUT", default_value = "0.1/0.01/0.4", requires = "genesis")]
    price: TokenPrice,
    /// What orders of batches cost, which may wait until the worker has no others, in hundredths of --price; 100: as much as others.
    #[arg(long, value_name = "PERCENT", default_value = "50", requires = "genesis",
        value_parser = clap::value_parser!(u8).range(1..=100))]
    batch_price: u8,
    /// What the operator is called on the ledger [default: the account's name].
    #[arg(long, value_name = "NAME", requires = "genesis")]
    operator_name: Option<String>,
    /// Which files to give to those who ask for them by their BLAKE3.
    #[arg(long, value_enum, default_value_t)]
    share: Share,
    /// Which models to pin on the ledger, and prove in every epoch: `paid`, those whose pools pay more than the proofs cost;
    /// `wanted`, also unpaid ones that fewer keep than are wanted; `off`, none.
    #[arg(long, value_enum, default_value_t, requires = "genesis")]
    hosting: HostingArg,
    /// Also fetch and keep models that are paid for and too few keep, in so many bytes of the disk [default: none].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..), requires = "genesis")]
    host_max_bytes: Option<u64>,
    /// Send no more than this of the models' files to those who ask for them, all together.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    share_bytes_per_second: Option<u64>,
    #[command(flatten)]
    lies: LieArgs,
    #[command(flatten)]
    pub child: ChildArgs,
}

/// A server of somebody else's that a worker fronts, instead of computing by itself. Its answers are of the tier `signed`: the
/// worker's word, which nobody can compute again, and nobody pays for on the ledger; or `statistical`, where it says which model of
/// the network that server runs, and gateways compare. The upstream sees the text.
#[derive(Debug, clap::Args)]
pub struct UpstreamArgs {
    /// Front an OpenAI-compatible server (vLLM, llama.cpp's, a vendor's): the address before /chat/completions, as in
    /// http://127.0.0.1:8000/v1. Then --model is only the name to serve it by [default: the upstream's], --context the tokens that it
    /// takes [default: what its /models says], and answers are of the tier `signed`, or with --upstream-of `statistical`. It sees
    /// every prompt.
    #[arg(
        long = "upstream",
        value_name = "URL",
        requires = "upstream_model",
        conflicts_with_all = ["genesis", "kv_bytes", "threads", "backend", "lie", "pose_as", "host_max_bytes"]
    )]
    upstream: Option<String>,
    /// What the upstream calls the model.
    #[arg(long, value_name = "NAME", requires = "upstream")]
    upstream_model: Option<String>,
    /// Which model of the network the upstream runs: its id, as /v1/models and `surety model inspect` say it, or a model on this
    /// machine. Gateways where a worker computes that model compare some of the answers with its, and are told the tier
    /// `statistical`; where nobody does, answers stay `signed`.
    #[arg(long, value_name = "ID|REF", requires = "upstream")]
    upstream_of: Option<ClaimArg>,
    /// The environment variable that holds the key which the upstream wants.
    #[arg(long, value_name = "VAR", requires = "upstream")]
    upstream_key_env: Option<String>,
    /// As which the upstream may answer besides, where its name for the model stands for another.
    #[arg(long, value_name = "NAME", requires = "upstream")]
    upstream_answers_as: Option<String>,
    /// Parameters beyond OpenAI's that the upstream takes: top_k, min_p, repetition_penalty (vLLM takes all three). Requests with
    /// others are refused.
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "upstream")]
    upstream_takes: Vec<Extra>,
    /// Orders that the upstream gets at once, at most.
    #[arg(long, value_name = "N", default_value = "32", requires = "upstream",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    upstream_orders: u32,
    /// Seconds for the upstream to begin an answer, and then to say something.
    #[arg(long, value_name = "SECONDS", default_value = "60", requires = "upstream",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    upstream_patience: u64,
}

/// A model of the network.
#[derive(Clone, Debug)]
enum ClaimArg {
    /// By its whole id, wherever it is.
    Id(ModelId),
    /// One on this machine.
    Here(Reference),
}

impl FromStr for ClaimArg {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        text.parse().map(Self::Id).or_else(|_| text.parse().map(Self::Here))
    }
}

impl ClaimArg {
    fn id(&self, models: &Models, data_dir: &DataDir) -> anyhow::Result<ModelId> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::Here(reference) => {
                let found = models.find(reference).map_err(|error| {
                    hinted(
                        format!("{error:#}"),
                        "give --upstream-of the model's whole id, as a gateway's /v1/models says it, or a model that \
                         `surety model list` shows",
                    )
                })?;
                Ok(model::open(&found.file, data_dir, &found.name)?.manifest().id())
            }
        }
    }
}

impl UpstreamArgs {
    /// The upstream, if there is one, under the one name it is to have.
    fn settings(
        &self,
        names: &[ModelArg],
        context_tokens: Option<u32>,
        models: &Models,
        data_dir: &DataDir,
    ) -> anyhow::Result<Option<UpstreamSettings>> {
        let (Some(url), Some(model)) = (&self.upstream, &self.upstream_model) else { return Ok(None) };
        let claims = self.upstream_of.as_ref().map(|claim| claim.id(models, data_dir)).transpose()?;
        let name = match names {
            [] => model.clone(),
            [ModelArg { alias: None, reference }] => reference.to_string(),
            _ => {
                return Err(hinted(
                    "a worker fronts one model of an upstream, under one name",
                    "give one --model NAME, without `=`, and run a worker for each further one",
                ));
            }
        };
        let key = match &self.upstream_key_env {
            None => None,
            Some(variable) => {
                let value = std::env::var(variable).unwrap_or_default();
                let key = UpstreamKey::new(&value).ok_or_else(|| {
                    hinted(
                        format!("the environment variable {variable} holds no key"),
                        format!("set {variable} to the key that the upstream gave you"),
                    )
                })?;
                Some(key)
            }
        };
        Ok(Some(UpstreamSettings {
            name,
            url: url.clone(),
            model: model.clone(),
            answers_as: self.upstream_answers_as.clone(),
            claims,
            key,
            context_tokens,
            takes: self.upstream_takes.clone(),
            orders_max: self.upstream_orders,
            patience: Duration::from_secs(self.upstream_patience),
        }))
    }
}

/// How a worker deceives, for `surety demo liar` and for tests: it loses its bond by it.
#[derive(Debug, clap::Args)]
pub struct LieArgs {
    /// Lie in every answer: temperature, early-stop, injected, edited or replayed.
    #[arg(long, value_name = "KIND", hide = true)]
    lie: Option<Lie>,
    /// Serve the model as if it were this one.
    #[arg(long, value_name = "REF", hide = true, conflicts_with = "lie")]
    pose_as: Option<Reference>,
}

/// For what models are pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum HostingArg {
    /// For pay alone.
    #[default]
    Paid,
    /// Also for nothing, where fewer keep a model than are wanted.
    Wanted,
    /// Never.
    Off,
}

impl From<HostingArg> for HostingPolicy {
    fn from(arg: HostingArg) -> Self {
        match arg {
            HostingArg::Paid => HostingPolicy::Paid,
            HostingArg::Wanted => HostingPolicy::Wanted,
            HostingArg::Off => HostingPolicy::Off,
        }
    }
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
async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let Args { serve, ledger } = args;
    let data_dir = DataDir::of(&global)?;
    let opened = ledger.open_with_ledger(&data_dir)?;
    let known = match &opened {
        Some(place) if wants_relay(&serve.reach, &ledger) => relays_on(&place.ledger).await,
        _ => Vec::new(),
    };
    let mut reached = reach::decide(&serve.reach, speaks_from(&ledger), &known)?;
    if let (Some(interface), None) = (serve.mdns, serve.reach.listen) {
        reached.listen = SocketAddr::from((nearby::network(interface).interface, 0));
    }
    serve_until_stopped(global, &data_dir, serve, ledger, reached).await
}

/// The address from which this machine speaks to the ledger's nodes; none without a ledger.
fn speaks_from(ledger: &LedgerArgs) -> Option<std::net::IpAddr> {
    if !ledger.is_some() {
        return None;
    }
    let towards = ledger.rpc_urls().iter().find_map(|url| {
        let url = reqwest::Url::parse(url).ok()?;
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        (host, url.port_or_known_default()?).to_socket_addrs().ok()?.next()
    });
    machine::speaks_from(towards?)
}

/// Whether a relay is looked for on the ledger.
fn wants_relay(args: &ReachArgs, ledger: &LedgerArgs) -> bool {
    let private = || speaks_from(ledger).map(reach::standing) == Some(Standing::Private);
    args.relays.is_empty()
        && match args.reach {
            Reach::Auto => args.listen.is_none() && private(),
            Reach::Relay(named) => named.is_none(),
            Reach::Direct(_) => false,
        }
}

/// The relays that the ledger's workers use; none if it does not say.
async fn relays_on(ledger: &Ledger) -> Vec<RelayAddress> {
    match timeout(LOOK_TIMEOUT, ledger.survey()).await {
        Ok(Ok(survey)) => {
            let workers = survey.operators.iter().flat_map(|operator| &operator.workers);
            reach::known_relays(workers.map(|(_, endpoint)| endpoint.as_str()))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the ledger does not say which relays there are");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!("the ledger does not say which relays there are");
            Vec::new()
        }
    }
}

/// Serves as decided, until told to stop.
async fn serve_until_stopped(
    global: Global,
    data_dir: &DataDir,
    args: ServeArgs,
    ledger: LedgerArgs,
    reached: Reached,
) -> anyhow::Result<Outcome> {
    let models = Models::new(data_dir);
    if args.host_max_bytes.is_some() && args.share != Share::Store {
        return Err(hinted(
            "what is fetched to be hosted would be given to nobody",
            "leave --share away (store), or --host-max-bytes",
        ));
    }
    let room = args.host_max_bytes.map(|bytes_max| Room { bytes_max, store: models.store().clone() });
    let hosting = HostingSettings { policy: args.hosting.into(), room };
    let upstreams =
        Vec::from_iter(args.upstream.settings(&args.models, args.engine.context, &models, data_dir)?);
    let fronts = upstreams.first().map(|upstream| upstream.claims);
    let mut wanted = Vec::new();
    let chosen = match (&upstreams[..], args.models) {
        ([_, ..], _) => Vec::new(),
        ([], models) if models.is_empty() => vec![ModelArg::default()],
        ([], models) => models,
    };
    for arg in chosen {
        models.find_or_download(&arg.reference).await?;
        wanted.push(models.settings(&arg)?);
    }
    let key =
        Keystore::new(data_dir.keys()).load_or_create(&args.key, || args.passphrase.existing(&args.key))?;
    let folder = control::folder(data_dir);
    let (listener, socket) = control::bind(&folder, &args.key).await?;
    let pause = PauseFile::new(&folder, &args.key);
    let paused = pause.read(now_ms()).is_some();
    let batch_price = args.price.0.percent(args.batch_price);
    let batch_price =
        batch_price.ok_or_else(|| hinted("--price is too high to be reckoned with", "ask less"))?;
    let ledger = ledger.open(data_dir)?.map(|(name, account)| WorkerLedger {
        account,
        bond: args.bond.0,
        price: args.price.0,
        batch_price,
        folder: folder.join(&name),
        name: args.operator_name.unwrap_or(name),
        endpoint: reached.announce.map(Location::Direct),
        claims: Claims::default(),
        hosting: hosting.clone(),
    });
    let lie = match &args.lies.pose_as {
        Some(reference) => {
            let posed_as = models.find_or_download(reference).await?;
            let model = model::open(&posed_as.file, data_dir, &posed_as.name)?;
            Some(Lie::Model(Box::new(model.manifest().clone())))
        }
        None => args.lies.lie,
    };
    let lies = lie.is_some();
    let served: Vec<Digest> = wanted.iter().map(|model| model.file.blake3).collect();
    // What is served is not collected.
    let _held: Vec<_> = wanted.iter().filter_map(|model| models.hold_file(&model.file)).collect();
    let limits = HoldLimits { bytes_per_second: args.share_bytes_per_second, ..HoldLimits::default() };
    let account = ledger.as_ref().map(|ledger| ledger.account.clone());
    let settings = WorkerSettings {
        key,
        listen: reached.listen,
        relays: reached.relays.clone(),
        paused,
        models: wanted,
        upstreams,
        cache: Some(data_dir.cache()),
        backend: args.engine.backend,
        threads: args.engine.threads,
        context_tokens: args.engine.context,
        kv_bytes: args.kv_bytes,
        region: args.region,
        ledger,
        sharing: models.view(data_dir, args.share, &served).map(|view| Sharing { view, limits }),
        lie,
    };
    tracing::info!(listen = %reached.listen, relays = ?reached.relays, why = reached.why, "reached");
    let mut shown = Shown::new("the model's weights");
    let starting = serve::start(settings, move |progress| shown.report(progress));
    let mut worker = tokio::select! {
        worker = starting => worker?,
        stop = stop_requested(args.child) => return stop.map(|()| Outcome::Done),
    };
    if let Some(duties) = worker.duties() {
        tokio::spawn(report(duties));
    }
    let (seen, reached) = watch::channel(None);
    // Ends with this function.
    let mut looking = JoinSet::new();
    if let (Some(duties), Some(account)) = (worker.duties(), account.clone()) {
        let quiet = global.json;
        let changed = move |finding: &_| {
            // Where a script reads, `worker status` tells it.
            if !quiet && let Err(error) = doctor::show(std::slice::from_ref(finding)) {
                tracing::debug!(%error, "it could not be said whether the worker is reached");
            }
        };
        looking.spawn(reached::watch(account, worker.address().key, duties, seen, changed));
    }
    let (duties, hosted) = (worker.duties(), worker.hosted());
    let steered = Steered { control: worker.control(), duties, hosted, reached, account, pause };
    let mut server = ControlServer::start(listener, socket, steered);
    // Until this function ends.
    let _announced = match args.mdns {
        Some(interface) => {
            let network = nearby::network(interface);
            Some(surety_net::announce(worker.address(), network).map_err(nearby::told)?)
        }
        None => None,
    };
    let served = worker.models();
    // Whoever lies about a model does not tell its own store.
    for model in served.iter().filter(|_| !lies) {
        if let Some(file) = &model.file {
            models.store().note_model(file.blake3, model.id);
        }
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
    match fronts {
        Some(None) => output::note(
            "its answers are of the tier `signed`: nobody can compute them again, and the upstream sees the text",
        ),
        Some(Some(claims)) => output::note(format_args!(
            "its answers are of the tier `statistical` at gateways where a worker computes {claims}, which compare some of them \
             with that model's, and `signed` at others; nobody can compute them again, and the upstream sees the text",
        )),
        None => {}
    }
    if paused {
        output::note("paused, as it was when it last ran; `surety worker resume` ends that");
    }
    let (outcome, drain) = tokio::select! {
        stop = stop_requested(args.child) => (stop.map(|()| Outcome::Done), None),
        name = worker.failed() => {
            let failed = hinted(
                format!("the computation of {name} failed; this is a defect of Surety"),
                "the lines above say where; please report them",
            );
            (Err(failed), None)
        }
        Some(drain) = server.drains.recv() => (Ok(Outcome::Done), Some(drain)),
    };
    match drain {
        None => worker.shutdown(GRACE).await,
        Some(drain) => {
            let left = if drain.retire {
                worker.retire(drain.grace).await
            } else {
                worker.shutdown(drain.grace).await;
                None
            };
            let told = match left {
                None => Ok(()),
                Some(problem) => Err(format!("{}; {}", problem.message, problem.hint)),
            };
            // Whoever asked may have left.
            let _ = drain.done.send(told);
        }
    }
    server.finish().await;
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
