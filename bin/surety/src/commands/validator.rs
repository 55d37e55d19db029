//! `surety validator init|run|status`

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use surety_chain::Genesis;
use surety_net::{Location, WorkerAddress};
use surety_types::PublicKey;
use surety_validator::{
    FileVoteRecord, KnownPeer, Release, Reporter, StartError, Validator, ValidatorSettings,
    indexes::IndexSettings,
    mempool::PoolLimits,
    rpc::{RpcLimits, RpcSettings},
};

use super::Outcome;
use crate::{
    child::{ChildArgs, stop_requested},
    cli::Global,
    data_dir::DataDir,
    keystore::{KeyKind, Keystore},
    output::{self, hinted, io_failure, printable},
    passphrase::PassphraseArgs,
};

/// A genesis names every balance; this is room for a million of them.
const GENESIS_BYTES_MAX: u64 = 256 << 20;
/// How long `status` waits.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
const STATUS_BYTES_MAX: usize = 1 << 20;

/// The commands on validators.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Prepare this machine for a chain: keep its genesis, make a key.
    Init(InitArgs),
    /// Keep the ledger: vote if the key is a validator's, otherwise follow.
    Run(Box<RunArgs>),
    /// Show what a running validator is doing.
    Status(StatusArgs),
}

/// Arguments of `validator init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The chain's genesis (JSON): every balance and why, the first validators, the parameters.
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// The key that votes and connects; made if there is none.
    #[arg(long, value_name = "NAME", default_value = "validator")]
    key: String,
}

/// Arguments of `validator run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Where other validators reach this one (TCP).
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7800")]
    listen: SocketAddr,
    /// Where to serve JSON-RPC over HTTP and WebSocket; port 0 takes any free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8545")]
    rpc: SocketAddr,
    /// A name under which browsers may reach the RPC, besides `localhost`. May be given several times.
    #[arg(long = "rpc-host", value_name = "NAME")]
    rpc_hosts: Vec<String>,
    /// An origin whose pages may use the RPC, such as `https://example.org`. May be given several times.
    #[arg(long = "rpc-origin", value_name = "ORIGIN")]
    rpc_origins: Vec<String>,
    /// Another validator. May be given several times.
    #[arg(long = "peer", value_name = "KEY@IP:PORT")]
    peers: Vec<WorkerAddress>,
    /// One that only follows. May be given several times.
    #[arg(long = "follower", value_name = "KEY@IP:PORT")]
    followers: Vec<WorkerAddress>,
    /// Follow without ever voting, whatever the key is.
    #[arg(long)]
    follow: bool,
    /// Take the state over from peers instead of executing every block, if nothing is here yet.
    #[arg(long)]
    state_sync: bool,
    /// Blocks that can be looked up; older ones are forgotten [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    blocks_kept: Option<u64>,
    /// The key that votes and connects.
    #[arg(long, value_name = "NAME", default_value = "validator")]
    key: String,
    /// The account that reports validators which signed conflicting votes, and is paid for it.
    #[arg(long, value_name = "ACCOUNT")]
    reporter: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    pub child: ChildArgs,
}

/// Arguments of `validator status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// The validator's RPC.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8545")]
    rpc_url: String,
}

/// The line a validator prints when it runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// Its key.
    pub id: String,
    /// What to give a wallet or library.
    pub rpc_url: String,
    /// The chain.
    pub chain_id: u64,
    /// The digest of its genesis.
    pub genesis: String,
}

/// Keeps a genesis and makes a key.
pub fn init(global: &Global, args: &InitArgs) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(global)?;
    let genesis = read_genesis(&args.genesis)?;
    let digest = genesis.digest().with_context(|| format!("{} is not sound", args.genesis.display()))?;
    keep_genesis(&data_dir, &genesis)?;
    let key = make_key(&data_dir, &args.key)?;
    let votes = genesis.validators.iter().any(|validator| validator.key == key);
    if global.json {
        output::json(
            &json!({ "key": key, "genesis": digest, "chain_id": genesis.chain_id, "votes": votes }),
        )?;
    } else {
        output::line(format_args!("key      {key}"))?;
        output::line(format_args!("chain    {}, genesis {digest}", genesis.chain_id))?;
        let what = if votes {
            "is one of the first validators"
        } else {
            "is none of the first validators: it follows"
        };
        output::line(format_args!("this key {what}"))?;
    }
    Ok(Outcome::Done)
}

/// Keeps the genesis of the chain that a data directory is for.
pub fn keep_genesis(data_dir: &DataDir, genesis: &Genesis) -> anyhow::Result<()> {
    let kept = kept_genesis(data_dir);
    if kept.exists() {
        if read_genesis(&kept)? == *genesis {
            return Ok(());
        }
        return Err(hinted(
            format!("{} is prepared for another chain", data_dir.path().display()),
            "name another data directory: what is there belongs to the other chain",
        ));
    }
    let folder = validator_dir(data_dir);
    fs::create_dir_all(&folder).map_err(|source| io_failure("create", &folder, source))?;
    let file = tempfile::NamedTempFile::new_in(&folder)?;
    serde_json::to_writer_pretty(&file, &genesis)?;
    file.as_file().sync_all()?;
    file.persist(&kept)?;
    Ok(())
}

/// The validator's key of a data directory, made now if there is none.
pub fn make_key(data_dir: &DataDir, name: &str) -> anyhow::Result<PublicKey> {
    let keystore = Keystore::new(data_dir.keys());
    let made = keystore.create_if_none(name, KeyKind::Signing)?;
    let key = keystore.entry(name)?.public()?;
    if made {
        begin_vote_record(data_dir, &key)?;
    }
    Ok(key)
}

/// Notes that a key was made just now: it has voted nowhere, so it may vote whenever it joins.
pub fn begin_vote_record(data_dir: &DataDir, key: &PublicKey) -> anyhow::Result<()> {
    let record = vote_record(data_dir, key)?;
    FileVoteRecord::begin(&record).map_err(|source| io_failure("write", &record, source))?;
    Ok(())
}

/// What a key has voted in is remembered here, apart from the validator's data.
fn vote_record(data_dir: &DataDir, key: &PublicKey) -> anyhow::Result<PathBuf> {
    let folder = data_dir.path().join("votes");
    fs::create_dir_all(&folder).map_err(|source| io_failure("create", &folder, source))?;
    Ok(folder.join(key.to_string()))
}

/// Runs until told to stop.
pub async fn run(global: Global, args: RunArgs) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    let path = kept_genesis(&data_dir);
    if !path.exists() {
        return Err(hinted(
            format!("{} is not prepared for any chain", data_dir.path().display()),
            "`surety validator init --genesis FILE` prepares it",
        ));
    }
    let genesis = read_genesis(&path)?;
    let chain_id = genesis.chain_id;
    let key = Keystore::new(data_dir.keys()).load(&args.key, || args.passphrase.existing(&args.key))?;
    let id = key.public().to_string();
    let vote_record = vote_record(&data_dir, &key.public())?;
    let reporter = match &args.reporter {
        None => None,
        Some(name) => {
            let keystore = Keystore::new(data_dir.keys());
            let account = keystore.load_account(name, || args.passphrase.existing(name))?;
            let address = account.address();
            Some(Reporter { address, sign: Arc::new(move |digest| account.sign_digest(digest)) })
        }
    };
    let known = |address: WorkerAddress, follower| match address.location {
        Location::Direct(socket) => Ok(KnownPeer { key: address.key, address: socket, follower }),
        Location::Relayed(_) => Err(hinted(
            format!("a validator is not reached through a relay: {address}"),
            "name its own socket: KEY@IP:PORT",
        )),
    };
    let peers = args.peers.into_iter().map(|address| known(address, false));
    let peers = peers.chain(args.followers.into_iter().map(|address| known(address, true)));
    let peers = peers.collect::<anyhow::Result<Vec<_>>>()?;
    let settings = ValidatorSettings {
        data_dir: validator_dir(&data_dir),
        vote_record: (!args.follow).then_some(vote_record),
        genesis,
        key,
        listen: args.listen,
        peers,
        state_sync: args.state_sync,
        threads: 2,
        rpc: RpcSettings {
            listen: args.rpc,
            hosts: args.rpc_hosts,
            origins: args.rpc_origins,
            limits: RpcLimits::default(),
        },
        pool: PoolLimits::default(),
        indexes: IndexSettings { blocks_kept: args.blocks_kept, ..IndexSettings::default() },
        calls_max: 16,
        reporter,
        release: Release::running(),
    };
    let mut validator = Validator::start(settings).await.context("the validator did not start")?;
    let ready = Ready {
        ready: true,
        id,
        rpc_url: format!("http://{}", reachable(validator.rpc_address())),
        chain_id,
        genesis: validator.genesis().to_string(),
    };
    if global.json {
        output::json(&ready)?;
    } else {
        output::line(format_args!("validator {}", ready.id))?;
        output::line(format_args!("serves    {} (chain {chain_id})", ready.rpc_url))?;
    }
    let outcome = tokio::select! {
        stop = stop_requested(args.child) => stop.map(|()| Outcome::Done),
        why = validator.failed() => Err(anyhow::Error::msg(why)),
    };
    validator.stop().await;
    outcome
}

/// Asks a running validator how it is doing.
pub async fn status(global: Global, args: StatusArgs) -> anyhow::Result<Outcome> {
    let status = ask(&args.rpc_url, "surety_status").await?;
    if global.json {
        output::json(&status)?;
        return Ok(Outcome::Done);
    }
    let shown = |name: &str| match &status[name] {
        Value::String(text) => printable(text),
        value => value.to_string(),
    };
    output::line(format_args!("chain   {}, genesis {}", shown("chain_id"), shown("genesis")))?;
    output::line(format_args!(
        "height  {} (epoch {}, view {})",
        shown("number"),
        shown("epoch"),
        shown("view")
    ))?;
    let why = if status["why"].is_null() { String::new() } else { format!(": {}", shown("why")) };
    output::line(format_args!("duty    {}{why}", shown("duty")))?;
    let pool = &status["pool"];
    output::line(format_args!(
        "pool    {} ready, {} waiting for another",
        pool["executable"], pool["queued"]
    ))?;
    output::line(format_args!("version {}", shown("version")))?;
    Ok(Outcome::Done)
}

async fn ask(url: &str, method: &str) -> anyhow::Result<Value> {
    let client = surety_client::https::client_builder().timeout(STATUS_TIMEOUT).build()?;
    let request =
        client.post(url).json(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": [] }));
    let mut response = request.send().await.map_err(|error| {
        hinted(
            format!("no validator answers at {url}: {error}"),
            "start it with `surety validator run`, or name another with --rpc-url",
        )
    })?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        anyhow::ensure!(
            body.len() <= STATUS_BYTES_MAX,
            "{url} answers with more than {STATUS_BYTES_MAX} bytes"
        );
    }
    let mut answer: Value = serde_json::from_slice(&body).map_err(|_| {
        hinted(format!("{url} does not speak JSON-RPC"), "name a validator's RPC with --rpc-url")
    })?;
    if let Some(message) = answer["error"]["message"].as_str() {
        anyhow::bail!("{url} refuses: {}", printable(message));
    }
    Ok(answer["result"].take())
}

/// What can be done about an error of a validator.
pub fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    error.downcast_ref::<StartError>().and_then(|error| error.hint()).map(str::to_owned)
}

fn validator_dir(data_dir: &DataDir) -> PathBuf {
    data_dir.path().join("validator")
}

pub fn kept_genesis(data_dir: &DataDir) -> PathBuf {
    validator_dir(data_dir).join("genesis.json")
}

pub fn read_genesis(path: &Path) -> anyhow::Result<Genesis> {
    let failed = |source| io_failure("read", path, source);
    let bytes = fs::metadata(path).map_err(failed)?.len();
    anyhow::ensure!(
        bytes <= GENESIS_BYTES_MAX,
        "{} is longer than {GENESIS_BYTES_MAX} bytes",
        path.display()
    );
    let text = fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no genesis", path.display()))
}

/// An address that a client on this machine can use.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match &mut address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => v4.set_ip(std::net::Ipv4Addr::LOCALHOST),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => v6.set_ip(std::net::Ipv6Addr::LOCALHOST),
        _ => {}
    }
    address
}
