//! `surety up`: validators, workers and a gateway on this machine, over the same sockets, keys and code paths as anywhere.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::json;
use surety_kernels::Backend;
use surety_net::Location;
use surety_worker::machine;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Outcome, gateway, relay, validator, worker};
use crate::{
    api::Api,
    child::{ChildArgs, Running, describe, start, stop_requested},
    cli::{Global, LogFormat},
    data_dir::DataDir,
    devnet::{self, Devnet},
    models::{ModelArg, Models},
    output::{self, Style, err_style, hinted, io_failure},
};

/// A role that died is started again after this long; if it had not settled, each further time takes twice as long.
const RESTART_AFTER: Duration = Duration::from_secs(2);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(30);
/// A role that ran this long had not failed at its start.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a role may take to stop; a little more than it gives its requests.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// How long the gateway may take to see its workers, and those to find their place on the ledger.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Where wallets look for a ledger on the same machine.
const USUAL_RPC: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8545);

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model to serve: file.gguf, hf:owner/repo[/file], a name, or NAME=… to serve it under another name. May be
    /// given several times [default: the bundled demonstration].
    #[arg(long = "model", value_name = "[NAME=]REF")]
    models: Vec<ModelArg>,
    /// The port to serve HTTP on; 0 takes any free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// How many workers to start. They differ in speed and price, so that there is something to choose: the first has
    /// every core to itself while nobody else computes, so one answer is as fast as with a single worker; the second has
    /// half of the cores, the others a quarter, one at least, and slower kernels. Answers are the same to the bit. With a
    /// ledger the first asks most.
    #[arg(long, value_name = "N", default_value = "3")]
    workers: NonZeroUsize,
    /// How many validators keep the ledger; 0 for none: then nothing is bonded, paid or posted [default: 4].
    #[arg(long, value_name = "N")]
    validators: Option<usize>,
    /// Run a relay too, and have the last worker be reached through it, as one behind a NAT is.
    #[arg(long)]
    relay: bool,
    /// Keep nothing: use a data directory that is deleted at the end.
    #[arg(long)]
    ephemeral: bool,
    /// Serve every address of this machine, to anyone who reaches it.
    #[arg(long)]
    open: bool,
    /// Have whoever shows no key pay for each request by itself (x402); `surety faucet` gives credits to pay with.
    #[arg(long)]
    x402: bool,
    /// Threads that compute, for every worker alike [default: as --workers says].
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Tokens of prompt and answer together, at most [default: the model's own limit, or what memory allows].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    context: Option<u32>,
}

/// Everything that runs. Dropped, it is cut off.
pub(super) struct Network {
    relay: Option<(Role, relay::Ready)>,
    pub(super) validators: Vec<(Role, validator::Ready)>,
    pub(super) workers: Vec<(Role, worker::Ready)>,
    pub(super) gateway: (Role, gateway::Ready),
    /// The ledger's genesis, if there is a ledger.
    pub(super) genesis: Option<PathBuf>,
}

/// A worker that is started otherwise than the others.
pub(super) struct Swap {
    /// Its number, from one.
    pub(super) number: usize,
    /// What it serves; what the others do if not given.
    pub(super) model: Option<ModelArg>,
    /// What it is told besides.
    pub(super) args: Vec<OsString>,
}

/// A role that is kept running.
pub(super) struct Role {
    /// What it is called in notes.
    name: String,
    /// How it is started again: with the address it has now.
    args: Vec<OsString>,
    running: Running,
}

/// Starts everything, keeps it running, and stops it when told to.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let (data_dir, ephemeral) = data_dir(&global, &args)?;
    let served = serve(&global, &args, &data_dir).await;
    if let Some(folder) = ephemeral {
        let path = folder.path().to_owned();
        if let Err(error) = folder.close() {
            tracing::warn!(path = %path.display(), %error, "the temporary data directory was not deleted");
        }
    }
    served.map(|()| Outcome::Done)
}

fn data_dir(global: &Global, args: &Args) -> anyhow::Result<(DataDir, Option<tempfile::TempDir>)> {
    if args.ephemeral {
        let folder = tempfile::Builder::new()
            .prefix("surety-")
            .tempdir()
            .map_err(|source| io_failure("make a temporary folder in", &std::env::temp_dir(), source))?;
        return Ok((DataDir::at(folder.path()), Some(folder)));
    }
    let data_dir = DataDir::of(global)?;
    std::fs::create_dir_all(data_dir.path())
        .map_err(|source| io_failure("create the data directory", data_dir.path(), source))?;
    Ok((data_dir, None))
}

async fn serve(global: &Global, args: &Args, data_dir: &DataDir) -> anyhow::Result<()> {
    let stop_requested = stop_requested(ChildArgs { stop_with_parent: false });
    let mut stop_requested = std::pin::pin!(stop_requested);
    // Dropping what has been started so far ends it.
    let network = tokio::select! {
        started = start_all(global, args, data_dir, None) => started?,
        stop = &mut stop_requested => return stop,
    };
    let running = data_dir.running();
    if let Err(error) = write_running(&running, &network) {
        tracing::warn!("`surety chat` will not find this by itself: {error:#}");
    }
    // Whoever reads that it is ready may look for that file at once.
    if let Err(error) = announce(global, args, &network) {
        let _ = std::fs::remove_file(&running);
        return Err(error);
    }

    let (stop, stopping) = watch::channel(false);
    let gateway = tokio::spawn(keep(network.gateway.0, stopping.clone()));
    let keep_all = |roles: Vec<Role>| -> JoinSet<Option<Running>> {
        roles.into_iter().map(|role| keep(role, stopping.clone())).collect()
    };
    let workers = keep_all(network.workers.into_iter().map(|(role, _)| role).collect());
    let validators = keep_all(network.validators.into_iter().map(|(role, _)| role).collect());
    let relays = keep_all(network.relay.into_iter().map(|(role, _)| role).collect());
    let requested = stop_requested.await;
    stop.send_replace(true);
    if !global.json {
        output::note("stopping");
    }
    tokio::spawn(async {
        // Whoever asks twice does not want to wait. The children notice that their parent is gone.
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(1);
        }
    });
    let _ = std::fs::remove_file(&running);
    // The gateway first, so that no request loses its worker; the ledger last, so that no worker loses its pay.
    if let Ok(Some(gateway)) = gateway.await {
        gateway.stop(STOP_GRACE).await;
    }
    stop_all(workers).await;
    stop_all(validators).await;
    stop_all(relays).await;
    requested
}

/// Stops what still runs of these, all at once.
async fn stop_all(mut kept: JoinSet<Option<Running>>) {
    let mut stops = JoinSet::new();
    while let Some(role) = kept.join_next().await {
        if let Ok(Some(role)) = role {
            stops.spawn(role.stop(STOP_GRACE));
        }
    }
    while stops.join_next().await.is_some() {}
}

/// Starts the validators, then the workers, then the gateway, and waits until it sees them.
pub(super) async fn start_all(
    global: &Global,
    args: &Args,
    data_dir: &DataDir,
    swap: Option<&Swap>,
) -> anyhow::Result<Network> {
    let ip = if args.open { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let listen = SocketAddr::new(IpAddr::V4(ip), args.port);
    check_port(listen)?;
    let wanted = if args.models.is_empty() { vec![ModelArg::default()] } else { args.models.clone() };
    let models = Models::new(data_dir);
    // What is missing or misspelt is better said here, once, than by every worker.
    for arg in &wanted {
        models.find_or_download(&arg.reference).await?;
    }
    let devnet = devnet::prepare(data_dir, args.validators)?;
    if devnet.is_some() && args.workers.get() > devnet::WORKERS_MAX {
        return Err(hinted(
            format!("the local ledger has accounts for {} workers", devnet::WORKERS_MAX),
            "start fewer workers, or none of the ledger: --validators 0",
        ));
    }
    if args.x402 && devnet.is_none() {
        return Err(hinted(
            "without a ledger nobody can pay (--x402)",
            "leave --validators 0 away, or --x402",
        ));
    }
    let validators = match &devnet {
        Some(devnet) => start_validators(global, args, devnet).await?,
        None => Vec::new(),
    };
    let ledger = |account: &str| -> Vec<OsString> {
        let Some(devnet) = &devnet else { return Vec::new() };
        let mut ledger: Vec<OsString> = vec!["--genesis".into(), (&devnet.genesis).into()];
        for (_, ready) in &validators {
            ledger.extend(["--rpc-url".into(), (&ready.rpc_url).into()]);
        }
        ledger.extend(["--account".into(), account.into()]);
        ledger
    };
    let relay = match args.relay {
        true => Some(start_relay(global, data_dir).await?),
        false => None,
    };
    let workers: Vec<_> = (1..=args.workers.get())
        .map(|number| {
            let swap = swap.filter(|swap| swap.number == number);
            let served = swap.and_then(|swap| swap.model.as_ref()).map_or(&wanted[..], std::slice::from_ref);
            let mut worker = worker_args(global, args, data_dir, served, number);
            worker.extend(swap.iter().flat_map(|swap| swap.args.iter().cloned()));
            if devnet.is_some() {
                worker.extend(ledger(&devnet::worker_account(number)));
                worker.extend(["--price".into(), Pace::of(number, machine::cores()).price.into()]);
            }
            if let Some((_, ready)) = relay.as_ref().filter(|_| number == args.workers.get()) {
                worker.extend(through(ready));
            }
            (format!("worker {number}"), worker)
        })
        .collect();
    let mut workers: Vec<(Role, worker::Ready)> = start_roles(workers).await?;
    for (role, ready) in &mut workers {
        // Started again, it must be where the gateway knows it.
        if let Location::Direct(socket) = ready.address()?.location {
            role.args.extend(["--listen".into(), socket.to_string().into()]);
        }
    }

    let mut gateway_args = common_args(global, data_dir, ["gateway", "run"]);
    for (_, ready) in &workers {
        gateway_args.extend(["--worker".into(), (&ready.address).into()]);
    }
    gateway_args.extend(ledger(devnet::GATEWAY_ACCOUNT));
    if args.open {
        gateway_args.push("--open".into());
    }
    if args.x402 {
        gateway_args.push("--x402".into());
    }
    let mut first = gateway_args.clone();
    first.extend(["--listen".into(), listen.to_string().into()]);
    let (mut gateway, ready) = start_role::<gateway::Ready>("the gateway".into(), first).await?;
    gateway_args
        .extend(["--listen".into(), SocketAddr::new(listen.ip(), ready.address.port()).to_string().into()]);
    gateway.args = gateway_args;
    let api = Api::at(&ready.base_url)?;
    timeout(READY_TIMEOUT, api.ready()).await.context("the gateway does not reach its workers")?;
    let genesis = devnet.map(|devnet| devnet.genesis);
    Ok(Network { relay, validators, workers, gateway: (gateway, ready), genesis })
}

/// Starts a relay that only this machine reaches.
async fn start_relay(global: &Global, data_dir: &DataDir) -> anyhow::Result<(Role, relay::Ready)> {
    let args = common_args(global, data_dir, ["relay", "run"]);
    let mut first = args.clone();
    first.extend(["--listen".into(), "127.0.0.1:0".into()]);
    let (mut role, ready) = start_role::<relay::Ready>("the relay".into(), first).await?;
    // Started again, it must be where the worker looks for it.
    let address = ready.relay.strip_prefix("relay+http://").unwrap_or(&ready.relay).to_owned();
    role.args = args;
    role.args.extend(["--listen".into(), address.into()]);
    Ok((role, ready))
}

/// What has a worker be reached through a relay alone: it listens where the others here do not call it, if there is such a place.
fn through(relay: &relay::Ready) -> Vec<OsString> {
    let address = relay.relay.strip_prefix("relay+http://").unwrap_or(&relay.relay);
    let mut args: Vec<OsString> = vec!["--reach".into(), format!("relay={address}").into()];
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        args.extend(["--listen".into(), "[::1]:0".into()]);
    }
    args
}

/// Starts all validators at once: one that came after the first blocks would have to ask what it missed.
async fn start_validators(
    global: &Global,
    args: &Args,
    devnet: &Devnet,
) -> anyhow::Result<Vec<(Role, validator::Ready)>> {
    let addresses = free_addresses(devnet.validators.len())?;
    let keys = devnet.validators.iter().map(|data_dir| validator::make_key(data_dir, "validator"));
    let keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
    // A network of its own port, as in tests, takes no place that another one may have.
    let usual = args.port != 0 && TcpListener::bind(USUAL_RPC).is_ok();
    let mut roles = Vec::new();
    for (index, data_dir) in devnet.validators.iter().enumerate() {
        let mut validator = common_args(global, data_dir, ["validator", "run"]);
        validator.extend(["--listen".into(), addresses[index].to_string().into()]);
        for (key, address) in keys.iter().zip(&addresses) {
            if *key != keys[index] {
                validator.extend(["--peer".into(), format!("{key}@{address}").into()]);
            }
        }
        let rpc = if index == 0 && usual { USUAL_RPC } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
        validator.extend(["--rpc".into(), rpc.to_string().into()]);
        roles.push((format!("validator {}", index + 1), validator));
    }
    let mut started: Vec<(Role, validator::Ready)> = start_roles(roles).await?;
    for (role, ready) in &mut started {
        // Started again, it must be where the others look for it.
        let rpc = ready.rpc_url.strip_prefix("http://").unwrap_or(&ready.rpc_url);
        if let Some(at) = role.args.iter().position(|arg| arg == "--rpc") {
            role.args[at + 1] = rpc.into();
        }
    }
    Ok(started)
}

/// Addresses of this machine that nobody listens on.
fn free_addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let taken = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<Vec<_>>>()
        .context("this machine has no free port")?;
    taken.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}

/// Starts several roles at once; returns them in the order in which they were named.
async fn start_roles<T: DeserializeOwned + Send + 'static>(
    roles: Vec<(String, Vec<OsString>)>,
) -> anyhow::Result<Vec<(Role, T)>> {
    let mut starting = JoinSet::new();
    for (index, (name, args)) in roles.into_iter().enumerate() {
        starting.spawn(async move { (index, start_role::<T>(name, args).await) });
    }
    let mut started = Vec::new();
    while let Some(result) = starting.join_next().await {
        let (index, role) = result.context("a task failed")?;
        started.push((index, role?));
    }
    started.sort_by_key(|(index, _)| *index);
    Ok(started.into_iter().map(|(_, role)| role).collect())
}

/// Says early, and with a better hint, that a port is taken.
fn check_port(listen: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) => Err(hinted(
            format!("cannot listen on {listen}: {error}"),
            match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "another program listens there, perhaps another `surety up`: choose another --port, or 0 for any"
                }
                std::io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need privileges: choose a higher --port"
                }
                _ => "choose another --port",
            },
        )),
    }
}

fn common_args<const N: usize>(global: &Global, data_dir: &DataDir, command: [&str; N]) -> Vec<OsString> {
    let mut args: Vec<OsString> = command.map(OsString::from).into();
    args.extend(["--data-dir".into(), data_dir.path().into()]);
    if let Some(log) = &global.log {
        args.extend(["--log".into(), log.into()]);
    }
    if global.log_format == LogFormat::Json {
        args.extend(["--log-format".into(), "json".into()]);
    }
    args
}

fn worker_args(
    global: &Global,
    args: &Args,
    data_dir: &DataDir,
    models: &[ModelArg],
    number: usize,
) -> Vec<OsString> {
    let mut worker = common_args(global, data_dir, ["worker", "run"]);
    worker.extend(["--key".into(), format!("worker-{number}").into()]);
    for model in models {
        worker.extend(["--model".into(), model.to_string().into()]);
    }
    let pace = Pace::of(number, machine::cores());
    worker.extend(["--threads".into(), args.threads.unwrap_or(pace.threads).to_string().into()]);
    if args.threads.is_none()
        && let Some(backend) = pace.backend
    {
        worker.extend(["--backend".into(), backend.to_string().into()]);
    }
    // Each would take half of the free memory for itself.
    if let (2.., Some(free)) = (args.workers.get(), machine::available_memory_bytes()) {
        let share = free / 2 / args.workers.get() as u64;
        worker.extend(["--kv-bytes".into(), share.to_string().into()]);
    }
    if let Some(context) = args.context {
        worker.extend(["--context".into(), context.to_string().into()]);
    }
    worker
}

/// How fast a worker is to be, and what it asks for that.
#[derive(Debug, PartialEq, Eq)]
struct Pace {
    threads: NonZeroUsize,
    /// None: the fastest of this machine.
    backend: Option<Backend>,
    /// As `worker run --price` reads it. Half as fast is less than twice as cheap: whoever is asked for one answer and
    /// weighs both alike takes the fastest.
    price: &'static str,
}

impl Args {
    /// A network that is thrown away.
    pub(super) fn throw_away() -> Args {
        Args {
            models: Vec::new(),
            port: 0,
            workers: NonZeroUsize::MIN.saturating_add(2),
            validators: None,
            ephemeral: true,
            open: false,
            x402: false,
            threads: None,
            context: None,
            relay: false,
        }
    }
}

impl Network {
    /// Stops everything in order: the gateway first, so that no request loses its worker; the ledger last, so that no
    /// worker loses its pay.
    pub(super) async fn stop(self) {
        self.gateway.0.running.stop(STOP_GRACE).await;
        for roles in [
            self.workers.into_iter().map(|(role, _)| role.running).collect::<Vec<_>>(),
            self.validators.into_iter().map(|(role, _)| role.running).collect(),
        ] {
            let mut stops: JoinSet<()> = roles.into_iter().map(|running| running.stop(STOP_GRACE)).collect();
            while stops.join_next().await.is_some() {}
        }
    }
}

impl Pace {
    fn of(number: usize, cores: NonZeroUsize) -> Self {
        let of_cores =
            |part: usize| NonZeroUsize::new(cores.get().div_ceil(part)).unwrap_or(NonZeroUsize::MIN);
        match number {
            1 => Self { threads: cores, backend: None, price: "0.1/0.01/0.4" },
            2 => Self { threads: of_cores(2), backend: None, price: "0.08/0.008/0.32" },
            _ => Self { threads: of_cores(4), backend: second_best(), price: "0.06/0.006/0.24" },
        }
    }
}

/// The kernels after the fastest; none if only the scalar ones are left, which are there to be read.
fn second_best() -> Option<Backend> {
    let mut available = Backend::available();
    available.pop();
    available.pop().filter(|backend| *backend != Backend::Scalar)
}

async fn start_role<T: DeserializeOwned>(name: String, args: Vec<OsString>) -> anyhow::Result<(Role, T)> {
    let (running, ready) = start(&args).await.with_context(|| format!("{name} did not start"))?;
    Ok((Role { name, args, running }, ready))
}

/// Starts a role again whenever it ends, until everything is to stop. Returns it if it runs then.
async fn keep(mut role: Role, mut stopping: watch::Receiver<bool>) -> Option<Running> {
    let mut pause = RESTART_AFTER;
    let mut started = Instant::now();
    loop {
        let status = tokio::select! {
            status = role.running.ended() => status,
            _ = stopping.wait_for(|stop| *stop) => return Some(role.running),
        };
        if started.elapsed() >= SETTLED {
            pause = RESTART_AFTER;
        }
        let mut what = format!("ended ({})", status.map_or("unknown".into(), describe));
        loop {
            let Role { name, .. } = &role;
            output::note(format_args!("{name} {what}; starting it again in {} s", pause.as_secs()));
            tokio::select! {
                () = sleep(pause) => {}
                _ = stopping.wait_for(|stop| *stop) => return None,
            }
            pause = (pause * 2).min(RESTART_AFTER_MAX);
            let again = tokio::select! {
                again = start::<serde_json::Value>(&role.args) => again,
                _ = stopping.wait_for(|stop| *stop) => return None,
            };
            match again {
                Ok((running, _)) => {
                    output::note(format_args!("{name} runs again (process {})", running.pid));
                    role.running = running;
                    started = Instant::now();
                    break;
                }
                Err(error) => what = format!("did not start: {error:#}"),
            }
        }
    }
}

fn announce(global: &Global, args: &Args, network: &Network) -> anyhow::Result<()> {
    let Network { relay, validators, workers, gateway: (gateway, ready), .. } = network;
    if global.json {
        let mut list = Vec::new();
        for (role, ready) in workers {
            list.push(json!({ "id": ready.address()?.key, "pid": role.running.pid }));
        }
        let keepers: Vec<_> = validators
            .iter()
            .map(|(role, ready)| json!({ "id": ready.id, "pid": role.running.pid, "rpc_url": ready.rpc_url }))
            .collect();
        return output::json(&json!({
            "ready": true,
            "base_url": ready.base_url,
            "page_url": page_url(&ready.base_url),
            "rpc_url": validators.first().map(|(_, ready)| &ready.rpc_url),
            "gateway": { "id": ready.gateway, "pid": gateway.running.pid },
            "workers": list,
            "validators": keepers,
            "relay": relay.as_ref().map(|(role, ready)| json!({ "pid": role.running.pid, "address": ready.relay })),
        }));
    }
    let models = &workers[0].1.models;
    let names: Vec<&str> = models.iter().flat_map(|model| &model.names).map(String::as_str).collect();
    output::line(format_args!("ready: {}", ready.base_url))?;
    output::line(format_args!("chat:  {}", page_url(&ready.base_url)))?;
    output::line(format_args!(
        r#"try:   curl {}/chat/completions -H 'content-type: application/json' -d '{{"model": "{}", "messages": [{{"role": "user", "content": "Who goes there?"}}]}}'"#,
        ready.base_url, names[0]
    ))?;
    output::note(format_args!(
        "serving {} with {} worker(s); stop with Ctrl-C",
        names.join(", "),
        workers.len()
    ));
    if let Some((_, first)) = validators.first() {
        output::note(format_args!(
            "ledger of {} validators at {} (chain {}); `surety status` shows it",
            validators.len(),
            first.rpc_url,
            first.chain_id
        ));
    }
    if let Some((_, relay)) = relay {
        output::note(format_args!(
            "worker {} is reached through the relay at {}",
            workers.len(),
            relay.relay
        ));
    }
    if args.x402 {
        output::note(
            "whoever shows no key pays for each request (x402); `surety faucet ADDRESS` gives credits to pay with",
        );
    }
    if args.open {
        let warning = "open: everyone who reaches this machine's port can use it, without a key";
        output::note(err_style(Style::Bold, warning));
    }
    Ok(())
}

/// Where a gateway serves its pages.
fn page_url(base_url: &str) -> String {
    format!("{}/", base_url.trim_end_matches("/v1"))
}

/// Leaves word for the other commands on this data directory.
fn write_running(path: &Path, network: &Network) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    let rpc_urls: Vec<&str> = network.validators.iter().map(|(_, ready)| ready.rpc_url.as_str()).collect();
    let word = json!({
        "base_url": network.gateway.1.base_url,
        "pid": std::process::id(),
        "rpc_urls": rpc_urls,
        "genesis": network.genesis,
    });
    serde_json::to_writer(&file, &word)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_differ_in_speed_and_price() {
        let cores = |count| NonZeroUsize::new(count).unwrap();
        for count in [1, 2, 3, 4, 16] {
            let paces: Vec<Pace> = (1..=4).map(|number| Pace::of(number, cores(count))).collect();
            assert_eq!(
                (paces[0].threads.get(), paces[0].backend),
                (count, None),
                "one answer is not slower for it"
            );
            assert!(paces.windows(2).all(|pair| pair[0].threads >= pair[1].threads));
            assert_eq!(paces[2], paces[3]);
            let output = |pace: &Pace| pace.price.parse::<crate::credits::TokenPrice>().unwrap().0.output;
            assert!(output(&paces[0]) > output(&paces[1]) && output(&paces[1]) > output(&paces[2]));
        }
        assert_ne!(second_best(), Some(Backend::detect()));
    }
}
