//! `surety model add|list|inspect|pull|serve|publish|fund|audit|pin|unpin|gc|remove`

mod audit;
mod collect;
mod fund;
mod inspect;
pub mod network;
mod publish;
pub mod pull;
mod serve;

use std::{
    num::NonZeroUsize,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use surety_engine::Model;
use surety_kernels::{Backend, Executor};
use surety_worker::{
    load::{self, Loader, ModelFile, OpenError},
    machine,
    store::{
        Entry, Reference, StoreError,
        hub::{Hub, HubSettings},
    },
};

use super::Outcome;
use crate::{
    bundled,
    cli::Global,
    data_dir::DataDir,
    models::{Found, Models, bundled_model},
    output::{self, Style, hinted, out_style, size},
    progress::Shown,
};

/// The commands on models.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a model: a file stays where it is, a hub's is downloaded. It is then loaded once, to see that it runs.
    Add {
        /// file.gguf or hf:owner/repo[/file]
        #[arg(value_name = "REF")]
        reference: Reference,
        /// What to call it [default: its file's name].
        #[arg(long)]
        name: Option<String>,
    },
    /// List the models.
    List,
    /// Show what a model is made of, the id that names it on the network, and who hosts it there.
    Inspect(inspect::Args),
    /// Fetch a model's file from the workers that offer it, or others that hold it, from all of them at once.
    Pull(pull::Args),
    /// Give this store's files to whoever asks for them by their BLAKE3.
    Serve(serve::Args),
    /// Put a model's manifest, and names for it, on the ledger.
    Publish(publish::Args),
    /// Give credits for the hosting of a model: who keeps it and shows it is paid from them.
    Fund(fund::Args),
    /// See whether the workers that offer a model really hold its file; what they miss is recorded.
    Audit(audit::Args),
    /// Keep a model's file whatever `model gc` deletes.
    Pin(collect::PinArgs),
    /// Let `model gc` delete a model's file again.
    Unpin(collect::PinArgs),
    /// Make room: delete what broken-off transfers left and, to a limit, the downloads used longest ago.
    Gc(collect::Args),
    /// Forget a model. A downloaded file is deleted; a file of yours is not.
    Remove {
        /// A name, file.gguf, hf:owner/repo/file or blake3:…
        #[arg(value_name = "REF")]
        reference: Reference,
    },
}

/// Runs one of them.
pub async fn run(global: Global, command: Command) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    let models = Models::new(&data_dir);
    match command {
        Command::Add { reference, name } => {
            add(&global, &data_dir, &models, &reference, name.as_deref()).await?
        }
        Command::List => list(&global, &models)?,
        Command::Inspect(args) => inspect::run(&global, &data_dir, &models, args).await?,
        Command::Pull(args) => pull::run(&global, &data_dir, &models, args).await?,
        Command::Serve(args) => return serve::run(&global, &data_dir, &models, args).await,
        Command::Publish(args) => publish::run(&global, &data_dir, &models, args).await?,
        Command::Fund(args) => fund::run(&global, &data_dir, args).await?,
        Command::Audit(args) => return audit::run(&global, &data_dir, args).await,
        Command::Pin(args) => collect::pin(&global, &models, &args, true)?,
        Command::Unpin(args) => collect::pin(&global, &models, &args, false)?,
        Command::Gc(args) => collect::run(&global, &data_dir, &models, &args)?,
        Command::Remove { reference } => remove(&global, &data_dir, &models, &reference)?,
    }
    Ok(Outcome::Done)
}

async fn add(
    global: &Global,
    data_dir: &DataDir,
    models: &Models,
    reference: &Reference,
    name: Option<&str>,
) -> anyhow::Result<()> {
    let known = models.store().list()?;
    let mut shown = Shown::new(reference.to_string());
    let report = &mut |progress| shown.report(progress);
    let entry = match reference {
        Reference::Path(path) => models.store().add_file(path, name, report)?,
        Reference::Hub(hub) => {
            let reached = Hub::new(HubSettings::from_environment()).map_err(StoreError::from)?;
            models.store().add_hub(&reached, hub, name, report).await?
        }
        Reference::Name { .. } | Reference::Id(_) => {
            let message = format!("`{reference}` is neither a file nor a hub's repository");
            return Err(hinted(message, "give file.gguf, ./file, or hf:owner/repo[/file]"));
        }
    };
    let file = ModelFile { place: load::ModelPlace::File(entry.path.clone()), blake3: entry.blake3 };
    let model = match open(&file, data_dir, &entry.name) {
        Ok(model) => model,
        Err(error) => {
            // What cannot run is not kept under a name; a download is, so that it need not be repeated.
            if !entry.owned && !known.iter().any(|other| other.name == entry.name) {
                models.store().remove(&Reference::Name { name: entry.name.clone(), pin: None })?;
            }
            return Err(error);
        }
    };
    models.store().note_model(entry.blake3, model.id());
    if global.json {
        return output::json(
            &json!({ "name": entry.name, "id": model.id(), "path": entry.path, "bytes": entry.bytes }),
        );
    }
    output::line(format_args!("{}  {}", out_style(Style::Bold, &entry.name), model.id()))?;
    output::note(format_args!("serve it with: surety up --model {}", entry.name));
    Ok(())
}

fn list(global: &Global, models: &Models) -> anyhow::Result<()> {
    let entries = models.store().list()?;
    if global.json {
        let mut list: Vec<_> = entries.iter().map(entry_json).collect();
        let bundled = json!({ "name": bundled::NAME, "bundled": true, "bytes": bundled::bytes(), "blake3": bundled::file().blake3 });
        list.push(bundled);
        return output::json(&json!({ "models": list }));
    }
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0).max(bundled::NAME.len());
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for entry in &entries {
        let id =
            entry.model.map_or("not loaded yet".to_owned(), |id| id.to_string().chars().take(23).collect());
        let missing = if entry.path.exists() { "" } else { "  (the file is gone)" };
        output::line(format_args!(
            "{:<width$}  {:>7}  {:<6}  {:<14}  {:<23}  {}{missing}",
            entry.name,
            size(entry.bytes),
            if entry.pinned { "pinned" } else { "" },
            entry.used_s.map_or_else(|| "never used".to_owned(), |used_s| used(used_s, now_s)),
            id,
            entry.source.clone().unwrap_or_else(|| entry.path.display().to_string()),
        ))?;
    }
    let bytes = size(bundled::bytes());
    output::line(format_args!(
        "{:<width$}  {bytes:>7}  {:<6}  {:<14}  {:<23}  a demonstration, part of the program",
        bundled::NAME,
        "",
        "",
        ""
    ))?;
    Ok(())
}

/// When something was used, to the hour.
fn used(used_s: u64, now_s: u64) -> String {
    match now_s.saturating_sub(used_s) / 3600 {
        0 => "used just now".to_owned(),
        hours @ 1..48 => format!("used {hours} h ago"),
        hours => format!("used {} d ago", hours / 24),
    }
}

fn entry_json(entry: &Entry) -> serde_json::Value {
    json!({
        "name": entry.name, "bundled": false, "id": entry.model, "path": entry.path, "bytes": entry.bytes,
        "blake3": entry.blake3, "source": entry.source, "downloaded": entry.owned, "pinned": entry.pinned, "used_s": entry.used_s,
    })
}

fn remove(global: &Global, data_dir: &DataDir, models: &Models, reference: &Reference) -> anyhow::Result<()> {
    let (entry, deleted) = models.store().remove(reference)?;
    let still_used = models.store().list()?.iter().any(|other| other.blake3 == entry.blake3);
    if !still_used {
        load::forget(&data_dir.cache(), entry.blake3).map_err(|source| {
            output::io_failure("delete the packed weights in", &data_dir.cache(), source)
        })?;
    }
    if global.json {
        return output::json(&json!({ "name": entry.name, "path": entry.path, "file_deleted": deleted }));
    }
    let path = entry.path.display();
    match deleted {
        true => output::line(format_args!("{} is forgotten, and {path} deleted", entry.name))?,
        false => output::line(format_args!("{} is forgotten; {path} is yours and stays", entry.name))?,
    }
    Ok(())
}

/// Loads a model as a worker would.
pub fn open(file: &ModelFile, data_dir: &DataDir, name: &str) -> anyhow::Result<Model> {
    let executor = executor(None, None)?;
    Ok(open_with(file, data_dir, name, &executor)?)
}

/// Loads a model with these kernels.
pub fn open_with(
    file: &ModelFile,
    data_dir: &DataDir,
    name: &str,
    executor: &Executor,
) -> Result<Model, OpenError> {
    let mut shown = Shown::new(name);
    let loader = Loader { cache: Some(&data_dir.cache()), context_tokens: None, executor };
    loader.load(file, &mut |progress| shown.report(progress))
}

/// The kernels of this machine.
pub fn executor(backend: Option<Backend>, threads: Option<NonZeroUsize>) -> anyhow::Result<Executor> {
    let (backend, threads) =
        (backend.unwrap_or_else(Backend::detect), threads.unwrap_or_else(machine::cores));
    Ok(Executor::new(backend, threads)?)
}

/// The bundled model, for commands whose `--model` was left out.
pub fn or_bundled(models: &Models, reference: Option<&Reference>) -> anyhow::Result<Found> {
    match reference {
        Some(reference) => models.find(reference),
        None => Ok(bundled_model()),
    }
}
