//! `surety model add|list|inspect|remove|pull|serve`

mod transfer;

use std::num::NonZeroUsize;

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
    /// Show what a model is made of, and the id that names it on the network.
    Inspect {
        /// A name, file.gguf, hf:owner/repo[/file] or blake3:…
        #[arg(value_name = "REF")]
        reference: Reference,
    },
    /// Fetch a model's file from workers or others that hold it, by its BLAKE3, from all of them at once.
    Pull(transfer::PullArgs),
    /// Give this store's files to whoever asks for them by their BLAKE3.
    Serve(transfer::ServeArgs),
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
        Command::Inspect { reference } => {
            let found = models.find(&reference)?;
            let model = open(&found.file, &data_dir, &found.name)?;
            models.store().note_model(found.file.blake3, model.id());
            inspect(&global, &found, &model)?;
        }
        Command::Pull(args) => transfer::pull(&global, &data_dir, &models, args).await?,
        Command::Serve(args) => return transfer::serve(&global, &data_dir, &models, args).await,
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
    for entry in &entries {
        let id =
            entry.model.map_or("not loaded yet".to_owned(), |id| id.to_string().chars().take(23).collect());
        let missing = if entry.path.exists() { "" } else { "  (the file is gone)" };
        output::line(format_args!(
            "{:<width$}  {:>7}  {:<23}  {}{missing}",
            entry.name,
            size(entry.bytes),
            id,
            entry.source.clone().unwrap_or_else(|| entry.path.display().to_string()),
        ))?;
    }
    let bytes = size(bundled::bytes());
    output::line(format_args!(
        "{:<width$}  {bytes:>7}  {:<23}  a demonstration, part of the program",
        bundled::NAME,
        ""
    ))?;
    Ok(())
}

fn entry_json(entry: &Entry) -> serde_json::Value {
    json!({
        "name": entry.name, "bundled": false, "id": entry.model, "path": entry.path, "bytes": entry.bytes,
        "blake3": entry.blake3, "source": entry.source, "downloaded": entry.owned,
    })
}

fn inspect(global: &Global, found: &Found, model: &Model) -> anyhow::Result<()> {
    let manifest = model.manifest();
    if global.json {
        return output::json(
            &json!({ "name": found.name, "id": model.id(), "manifest": manifest, "kv_bytes_per_token": kv_bytes(model) }),
        );
    }
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let formats: Vec<_> =
        manifest.formats.iter().map(|format| format!("{} × {}", format.tensors, format.name)).collect();
    let template =
        manifest.template_digest.map_or("none; chat is not possible".to_owned(), |digest| digest.to_string());
    let rows = [
        ("name", found.name.clone()),
        ("id", model.id().to_string()),
        ("calls itself", output::printable(&manifest.name)),
        ("file", format!("{}, blake3 {}", size(bytes), found.file.blake3)),
        ("architecture", manifest.architecture.clone()),
        ("layers", format!("{} of width {}", manifest.layers, manifest.width)),
        (
            "heads",
            format!(
                "{} of {} elements, {} for keys and values",
                manifest.heads, manifest.head_dim, manifest.kv_heads
            ),
        ),
        ("feed forward", manifest.feed_forward.to_string()),
        ("vocabulary", format!("{} tokens", manifest.vocabulary)),
        ("context", format!("{} tokens, {} of memory each", manifest.context, size(kv_bytes(model)))),
        ("tensors", formats.join(", ")),
        ("tokenizer", manifest.tokenizer_digest.to_string()),
        ("chat template", template),
        ("arithmetic", format!("version {}", manifest.arithmetic)),
    ];
    for (label, value) in rows {
        output::line(format_args!("{}  {value}", out_style(Style::Dim, format_args!("{label:<13}"))))?;
    }
    Ok(())
}

fn kv_bytes(model: &Model) -> u64 {
    (model.kv_page_bytes() / surety_kernels::PAGE_POSITIONS) as u64
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
