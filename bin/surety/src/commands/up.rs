//! `surety up`: a gateway and workers on this machine, over the same sockets, keys and code paths as anywhere.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::json;
use surety_worker::machine;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Outcome, gateway, worker};
use crate::{
    api::Api,
    child::{ChildArgs, Running, describe, start, stop_requested},
    cli::Global,
    data_dir::DataDir,
    models::{ModelArg, Models},
    output::{self, Style, err_style, hinted, io_failure},
};

/// A role that died is started again after this long; each further time within a minute takes twice as long.
const RESTART_AFTER: Duration = Duration::from_secs(2);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(30);
/// A role that ran this long had not failed at its start.
const SETTLED: Duration = Duration::from_secs(60);
/// How long a role may take to stop; a little more than it gives its requests.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// How long the gateway may take to see its workers.
const READY_TIMEOUT: Duration = Duration::from_secs(15);

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
    /// How many workers to start; they share the processor's cores.
    #[arg(long, value_name = "N", default_value = "1")]
    workers: NonZeroUsize,
    /// Keep nothing: use a data directory that is deleted at the end.
    #[arg(long)]
    ephemeral: bool,
    /// Serve every address of this machine, to anyone who reaches it.
    #[arg(long)]
    open: bool,
    /// Threads that compute, for each worker [default: its share of the cores].
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Tokens of prompt and answer together, at most [default: the model's own limit, or what memory allows].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    context: Option<u32>,
}

/// A role that is kept running.
struct Role {
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
    let (gateway, workers, ready) = tokio::select! {
        started = start_all(global, args, data_dir) => started?,
        stop = &mut stop_requested => return stop,
    };
    let running = data_dir.running();
    if let Err(error) = write_running(&running, &ready.base_url) {
        tracing::warn!("`surety chat` will not find this by itself: {error:#}");
    }
    // Whoever reads that it is ready may look for that file at once.
    if let Err(error) = announce(global, args, &ready, &gateway, &workers) {
        let _ = std::fs::remove_file(&running);
        return Err(error);
    }

    let (stop, stopping) = watch::channel(false);
    let gateway = tokio::spawn(keep(gateway, stopping.clone()));
    let mut kept: JoinSet<Option<Running>> =
        workers.into_iter().map(|(worker, _)| keep(worker, stopping.clone())).collect();
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
    // The gateway first, so that no request loses its worker.
    if let Ok(Some(gateway)) = gateway.await {
        gateway.stop(STOP_GRACE).await;
    }
    let mut stops = JoinSet::new();
    while let Some(worker) = kept.join_next().await {
        if let Ok(Some(worker)) = worker {
            stops.spawn(worker.stop(STOP_GRACE));
        }
    }
    while stops.join_next().await.is_some() {}
    requested
}

/// Starts the workers, then the gateway, and waits until it sees them.
async fn start_all(
    global: &Global,
    args: &Args,
    data_dir: &DataDir,
) -> anyhow::Result<(Role, Vec<(Role, worker::Ready)>, gateway::Ready)> {
    let ip = if args.open { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let listen = SocketAddr::new(IpAddr::V4(ip), args.port);
    check_port(listen)?;
    let wanted = if args.models.is_empty() { vec![ModelArg::default()] } else { args.models.clone() };
    let models = Models::new(data_dir);
    // What is missing or misspelt is better said here, once, than by every worker.
    for arg in &wanted {
        models.find_or_download(&arg.reference).await?;
    }
    let workers: Vec<_> =
        (1..=args.workers.get()).map(|number| worker_args(global, args, data_dir, &wanted, number)).collect();
    let mut starting = JoinSet::new();
    for (index, args) in workers.into_iter().enumerate() {
        let name = format!("worker {}", index + 1);
        starting.spawn(async move { (index, start_role::<worker::Ready>(name, args).await) });
    }
    let mut started = Vec::new();
    while let Some(result) = starting.join_next().await {
        let (index, role) = result.context("a task failed")?;
        started.push((index, role?));
    }
    started.sort_by_key(|(index, _)| *index);
    let mut workers = Vec::new();
    for (_, (mut role, ready)) in started {
        // Started again, it must be where the gateway knows it.
        let address = ready.address()?;
        role.args.extend(["--listen".into(), address.socket.to_string().into()]);
        workers.push((role, ready));
    }

    let mut gateway_args = common_args(global, data_dir, ["gateway", "run"]);
    for (_, ready) in &workers {
        gateway_args.extend(["--worker".into(), (&ready.address).into()]);
    }
    if args.open {
        gateway_args.push("--open".into());
    }
    let mut first = gateway_args.clone();
    first.extend(["--listen".into(), listen.to_string().into()]);
    let (mut gateway, ready) = start_role::<gateway::Ready>("the gateway".into(), first).await?;
    gateway_args
        .extend(["--listen".into(), SocketAddr::new(listen.ip(), ready.address.port()).to_string().into()]);
    gateway.args = gateway_args;
    let api = Api::at(&ready.base_url)?;
    timeout(READY_TIMEOUT, api.ready()).await.context("the gateway does not reach its workers")?;
    Ok((gateway, workers, ready))
}

/// Says early, and with a better hint, that a port is taken.
fn check_port(listen: SocketAddr) -> anyhow::Result<()> {
    match std::net::TcpListener::bind(listen) {
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
    let share = (machine::cores().get() / args.workers.get()).max(1);
    let threads = args.threads.map_or(share, NonZeroUsize::get);
    worker.extend(["--threads".into(), threads.to_string().into()]);
    if let Some(context) = args.context {
        worker.extend(["--context".into(), context.to_string().into()]);
    }
    worker
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

fn announce(
    global: &Global,
    args: &Args,
    ready: &gateway::Ready,
    gateway: &Role,
    workers: &[(Role, worker::Ready)],
) -> anyhow::Result<()> {
    if global.json {
        let mut list = Vec::new();
        for (role, ready) in workers {
            list.push(json!({ "id": ready.address()?.key, "pid": role.running.pid }));
        }
        return output::json(&json!({
            "ready": true, "base_url": ready.base_url, "gateway": { "id": ready.gateway, "pid": gateway.running.pid }, "workers": list,
        }));
    }
    let models = &workers[0].1.models;
    let names: Vec<&str> = models.iter().flat_map(|model| &model.names).map(String::as_str).collect();
    output::line(format_args!("ready: {}", ready.base_url))?;
    output::line(format_args!(
        r#"try:   curl {}/chat/completions -H 'content-type: application/json' -d '{{"model": "{}", "messages": [{{"role": "user", "content": "Who goes there?"}}]}}'"#,
        ready.base_url, names[0]
    ))?;
    output::note(format_args!(
        "serving {} with {} worker(s); stop with Ctrl-C",
        names.join(", "),
        workers.len()
    ));
    if args.open {
        let warning = "open: everyone who reaches this machine's port can use it, without a key";
        output::note(err_style(Style::Bold, warning));
    }
    Ok(())
}

/// Leaves word for `surety chat` and `surety verify`.
fn write_running(path: &Path, base_url: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&file, &json!({ "base_url": base_url, "pid": std::process::id() }))?;
    file.persist(path)?;
    Ok(())
}
