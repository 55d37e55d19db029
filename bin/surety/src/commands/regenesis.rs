//! `surety validator export|regenesis`: a chain's state as a file, and the genesis of a chain that goes on from it.

use std::{
    fs::File,
    io::{BufReader, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::json;
use surety_chain::Exported;
use surety_types::{PublicKey, SecretKey};
use surety_validator::{
    Release, Validator, ValidatorSettings,
    indexes::IndexSettings,
    mempool::PoolLimits,
    rpc::{RpcLimits, RpcSettings},
};

use super::{
    Outcome,
    validator::{kept_genesis, kept_state, read_genesis, validator_dir},
};
use crate::{
    cli::Global,
    data_dir::DataDir,
    output::{self, hinted, io_failure, note, size},
};

/// How often progress is said.
const PROGRESS_PAUSE: Duration = Duration::from_secs(2);

/// Arguments of `validator export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Where to write the state; nothing is overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `validator regenesis`.
#[derive(Debug, clap::Args)]
pub struct RegenesisArgs {
    /// What `surety validator export` wrote.
    #[arg(long, value_name = "FILE")]
    export: PathBuf,
    /// The export's digest as others printed it; anything else is refused.
    #[arg(long, value_name = "HEX")]
    digest: Option<alloy_primitives::B256>,
    /// The new chain's id (EIP-155): one that this state was never kept under.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    chain_id: u64,
    /// A key that validates the first epoch, registered in the state. May be given several times [default: whom an
    /// election yields].
    #[arg(long = "validator", value_name = "KEY")]
    validators: Vec<PublicKey>,
    /// Where to write the genesis; nothing is overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the state of a validator that is stopped.
pub async fn export(global: Global, args: ExportArgs) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    let kept = kept_genesis(&data_dir);
    if !kept.exists() {
        return Err(hinted(
            format!("{} is not prepared for any chain", data_dir.path().display()),
            "name the data directory of a validator or follower with --data-dir",
        ));
    }
    let genesis = read_genesis(&kept)?;
    let chain_id = genesis.chain_id;
    let mut file = begin(&args.out)?;
    let here = ([127, 0, 0, 1], 0).into();
    let mut identity = [0; 32];
    getrandom::fill(&mut identity).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    // A follower whom nobody knows: it executes what is final here, and hears of nothing else.
    let settings = ValidatorSettings {
        data_dir: validator_dir(&data_dir),
        genesis,
        state: Some(kept_state(&data_dir)),
        key: SecretKey::from_bytes(&identity),
        vote_record: None,
        listen: here,
        peers: Vec::new(),
        state_sync: false,
        threads: 2,
        rpc: RpcSettings {
            listen: here,
            hosts: Vec::new(),
            origins: Vec::new(),
            limits: RpcLimits::default(),
        },
        pool: PoolLimits::default(),
        indexes: IndexSettings::default(),
        calls_max: 1,
        reporter: None,
        release: Release::running(),
    };
    let validator = Validator::start(settings).await.context("the data directory cannot be opened")?;
    let mut said = Instant::now();
    let progress = |cells: usize| {
        if said.elapsed() >= PROGRESS_PAUSE {
            note(format_args!("{cells} cells of the state read"));
            said = Instant::now();
        }
    };
    let mut writer = std::io::BufWriter::new(file.as_file_mut());
    let exported = validator.export(&mut writer, progress).await;
    validator.stop().await;
    let (digest, header) = exported.context("the state was not exported")?;
    drop(writer);
    let bytes = end(file, &args.out)?;
    if global.json {
        output::json(&json!({
            "digest": digest, "chain_id": chain_id, "number": header.number, "epoch": header.epoch(),
            "block_hash": alloy_primitives::B256::from(header.hash().0),
            "state_root": alloy_primitives::B256::from(header.state_root.0),
            "bytes": bytes, "file": args.out,
        }))?;
    } else {
        output::line(format_args!("chain   {chain_id}, block {}, epoch {}", header.number, header.epoch()))?;
        output::line(format_args!("block   {}", alloy_primitives::B256::from(header.hash().0)))?;
        output::line(format_args!("digest  {digest}"))?;
        output::line(format_args!("wrote   {} ({})", args.out.display(), size(bytes)))?;
    }
    Ok(Outcome::Done)
}

/// Writes the genesis of a chain that goes on from an export.
pub fn regenesis(global: &Global, args: &RegenesisArgs) -> anyhow::Result<Outcome> {
    let exported = read_export(&args.export)?;
    let origin = &exported.origin;
    if let Some(expected) = args.digest.filter(|expected| *expected != origin.export) {
        return Err(hinted(
            format!("the digest of {} is {}, not {expected}", args.export.display(), origin.export),
            "take the file whose digest the others printed, or find out whose state differs",
        ));
    }
    let validators = (!args.validators.is_empty()).then_some(args.validators.as_slice());
    let genesis = exported
        .genesis(args.chain_id, validators)
        .with_context(|| format!("no chain goes on so from {}", args.export.display()))?;
    let digest = genesis.digest()?;
    let mut file = begin(&args.out)?;
    let mut text = serde_json::to_vec_pretty(&genesis)?;
    text.push(b'\n');
    file.write_all(&text).map_err(|source| io_failure("write", &args.out, source))?;
    end(file, &args.out)?;
    if global.json {
        output::json(&json!({
            "genesis": digest, "export": origin.export, "chain_id": args.chain_id,
            "first_block": genesis.first_block(), "first_epoch": genesis.first_epoch(),
            "origin": { "chain_id": origin.chain_id, "number": origin.number, "block_hash": origin.block_hash },
            "supply": origin.supply.to_string(),
            "validators": genesis.validators.iter().map(|validator| validator.key).collect::<Vec<_>>(),
            "file": args.out,
        }))?;
    } else {
        output::line(format_args!(
            "goes on from block {} of chain {}, {}",
            origin.number, origin.chain_id, origin.block_hash
        ))?;
        output::line(format_args!("export     {}", origin.export))?;
        output::line(format_args!("supply     {} wei, as it was", origin.supply))?;
        for validator in &genesis.validators {
            output::line(format_args!("validator  {}", validator.key))?;
        }
        output::line(format_args!("chain      {}, from block {} on", args.chain_id, genesis.first_block()))?;
        output::line(format_args!("genesis    {digest}"))?;
        output::line(format_args!("wrote      {}", args.out.display()))?;
    }
    Ok(Outcome::Done)
}

/// Reads an export, and says what is wrong with it.
pub fn read_export(path: &Path) -> anyhow::Result<Exported> {
    let file = File::open(path).map_err(|source| io_failure("read", path, source))?;
    surety_consensus::import(&mut BufReader::new(file))
        .with_context(|| format!("{} is no export", path.display()))
}

/// A file that will be at `path` once it is whole.
fn begin(path: &Path) -> anyhow::Result<tempfile::NamedTempFile> {
    if path.exists() {
        return Err(hinted(format!("{} exists already", path.display()), "name another file with --out"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::NamedTempFile::new_in(folder).map_err(|source| io_failure("write in", folder, source))
}

/// Puts a whole file where it belongs; returns its size.
fn end(file: tempfile::NamedTempFile, path: &Path) -> anyhow::Result<u64> {
    let failed = |source| io_failure("write", path, source);
    file.as_file().sync_all().map_err(failed)?;
    let bytes = file.as_file().metadata().map_err(failed)?.len();
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    Ok(bytes)
}
