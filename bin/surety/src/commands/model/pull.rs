//! `surety model pull`: a model's file from many holders at once, found on the ledger or named.

use std::{
    io::{IsTerminal, stderr},
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use surety_blobs::{Event, Progress, PullError, PullLimits, PullRequest, Pulled};
use surety_engine::Model;
use surety_net::WorkerAddress;
use surety_types::{Digest, ModelId};
use surety_worker::{
    Progress as StoreProgress, Step,
    load::{ModelFile, ModelPlace},
    store::{Entry, Reference, Store, is_name},
};

use super::{
    network::{self, HOLDERS_MAX, endpoint_towards},
    open,
};
use crate::{
    cli::Global,
    data_dir::DataDir,
    look::LookArgs,
    models::Models,
    nearby,
    output::{self, Style, hinted, out_style, size},
    progress::Shown,
};

/// How often a line is printed where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Arguments of `model pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME or NAME@ID as it is on the ledger, or blake3:… of a model or of its file.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Who holds it as well: workers, or whoever runs `surety model serve`. Several are asked at once; any may lie or
    /// leave. A file named by its whole BLAKE3 then needs no ledger.
    #[arg(long, value_name = "KEY@IP:PORT", num_args = 1..)]
    from: Vec<WorkerAddress>,
    /// Also ask the workers that announce themselves in this private network; IP: this machine's address there [default: the
    /// system's choice].
    #[arg(long, value_name = "IP", num_args = 0..=1, require_equals = true)]
    mdns: Option<Option<Ipv4Addr>>,
    /// What to call it [default: the name that was asked for, else what the model calls itself].
    #[arg(long)]
    name: Option<String>,
    /// The file's size, if it is known: holders that tell another are not asked.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes: Option<u64>,
    #[command(flatten)]
    look: LookArgs,
}

/// What is to be fetched, and from whom.
pub struct Wanted {
    pub digest: Digest,
    pub bytes: Option<u64>,
    /// What it is to turn out to be, if the ledger named it.
    pub model: Option<ModelId>,
    pub holders: Vec<WorkerAddress>,
}

/// A file that is here, loaded once, and how it came if it was not here before.
pub struct Brought {
    pub entry: Entry,
    pub model: Model,
    pub pulled: Option<Pulled>,
}

/// The whole digits of a reference, if it is nothing else.
fn whole(reference: &Reference) -> Option<Digest> {
    match reference {
        Reference::Id(digits) | Reference::Name { name: digits, pin: None } => digits.parse().ok(),
        Reference::Name { .. } | Reference::Path(_) | Reference::Hub(_) => None,
    }
}

/// Asks the ledger what is meant and who offers it, unless the file and its holders are named.
async fn wanted(data_dir: &DataDir, args: &Args) -> anyhow::Result<Wanted> {
    let Args { reference, from, bytes, look, .. } = args;
    if let Some(digest) = whole(reference).filter(|_| !from.is_empty() && !look.is_given()) {
        return Ok(Wanted { digest, bytes: *bytes, model: None, holders: from.clone() });
    }
    if matches!(reference, Reference::Path(_) | Reference::Hub(_)) {
        return Err(hinted(
            format!("`{reference}` is nothing to be pulled from workers"),
            "`surety model add` takes files and a hub's repositories",
        ));
    }
    let hosted = network::find(&look.open(data_dir)?, reference).await?;
    let file = hosted.file()?;
    let mut holders = from.clone();
    holders.extend(hosted.addresses().into_iter().filter(|address| !from.contains(address)));
    holders.truncate(HOLDERS_MAX);
    for offered in &hosted.offering {
        if let Err(why) = offered.address {
            output::note(format_args!("worker {} is not asked: {why}", offered.by.key.short()));
        }
    }
    if holders.is_empty() {
        return Err(hinted(
            format!("no worker that can be reached offers {reference} ({})", hosted.id),
            "name someone who holds it with --from KEY@IP:PORT",
        ));
    }
    let operators: std::collections::BTreeSet<_> =
        hosted.offering.iter().map(|offered| offered.by.operator).collect();
    output::note(format_args!(
        "{} is {}: {} worker(s) of {} operator(s) offer it",
        output::excerpt(&hosted.manifest.name, 96),
        hosted.id,
        hosted.offering.len(),
        operators.len()
    ));
    Ok(Wanted { digest: file.blake3, bytes: Some(file.bytes), model: Some(hosted.id), holders })
}

/// Fetches a file from its holders, then enters and loads it as `model add` does.
pub async fn run(global: &Global, data_dir: &DataDir, models: &Models, mut args: Args) -> anyhow::Result<()> {
    let store = models.store();
    if let Some(interface) = args.mdns {
        let found = nearby::found_now(nearby::network(interface)).await?;
        output::note(format_args!("{} worker(s) are found in this network", found.len()));
        let left = HOLDERS_MAX.saturating_sub(args.from.len());
        args.from.extend(found.into_iter().take(left));
    }
    if args.from.len() > HOLDERS_MAX {
        return Err(hinted(
            format!("{} holders are too many", args.from.len()),
            format!("name {HOLDERS_MAX} or fewer"),
        ));
    }
    check_name(args.name.as_deref())?;
    let wanted = wanted(data_dir, &args).await?;
    let Args { reference, name, .. } = args;
    check_free(store, wanted.digest, name.as_deref())?;
    let asked = match reference {
        Reference::Name { name, .. } if name.parse::<Digest>().is_err() => Some(name),
        _ => None,
    };
    let brought = bring(data_dir, models, wanted, name.as_deref(), asked).await?;
    print(global, &brought.entry, &brought.model, brought.pulled.as_ref())
}

/// Fetches a file unless it is here, enters and loads it. `name`: what it is to be called; `asked`: what it was asked for by,
/// which it is called if that is free.
pub async fn bring(
    data_dir: &DataDir,
    models: &Models,
    wanted: Wanted,
    name: Option<&str>,
    asked: Option<String>,
) -> anyhow::Result<Brought> {
    let store = models.store();
    let Wanted { digest, bytes, model: id, holders } = wanted;
    if let Some(found) = already_here(store, digest)? {
        output::note(format_args!("the file is here already, at {}", found.path.display()));
        let file = ModelFile { place: ModelPlace::File(found.path.clone()), blake3: digest };
        let model = open(&file, data_dir, &found.name)?;
        store.note_model(digest, model.id());
        check_model(&model, id, &found.name)?;
        return Ok(Brought { entry: found, model, pulled: None });
    }
    let place = store.pulled(digest);
    // A collection that is about to delete what an earlier pull left is waited for.
    let _held = place.exists().then(|| store.hold(&place).ok());
    let pulled = match lies_at(&place, digest)? {
        true => None,
        false => {
            let endpoint = endpoint_towards(&holders).await?;
            let request =
                PullRequest { digest, bytes, holders, downloads: store.downloads(), place: place.clone() };
            let mut shown = PullShown::new(digest);
            let report = &mut |event| shown.report(event);
            let pulled = surety_blobs::pull(&endpoint, request, PullLimits::default(), report);
            let result = tokio::select! {
                result = pulled => result,
                interrupt = tokio::signal::ctrl_c() => {
                    interrupt?;
                    drop(shown);
                    return Err(hinted("interrupted", "ask again: what has come is kept and need not come twice"));
                }
            };
            drop(shown);
            endpoint.close().await;
            Some(result.map_err(told)?)
        }
    };

    let _held = models.hold(&place, digest);
    let file = ModelFile { place: ModelPlace::File(place), blake3: digest };
    let called = format!("blake3-{}", &digest.to_string()[..12]);
    let loaded = open(&file, data_dir, name.unwrap_or(&called));
    let called =
        asked.unwrap_or_else(|| loaded.as_ref().map_or(called, |model| model.manifest().name.clone()));
    // What does not load has a name all the same, so that it can be removed and need not come again.
    let entry = store.enter_pulled(digest, name, &called)?;
    let model = loaded?;
    store.note_model(digest, model.id());
    check_model(&model, id, &entry.name)?;
    Ok(Brought { entry, model, pulled })
}

/// A manifest that was published need not be true of the file it names.
fn check_model(model: &Model, id: Option<ModelId>, name: &str) -> anyhow::Result<()> {
    match id {
        Some(id) if model.id() != id => Err(hinted(
            format!("the file that the manifest of {id} names loads as another model, {}", model.id()),
            format!(
                "whoever published that manifest described another model; the file is here as {name}, and \
                 `surety model remove {name}` deletes it"
            ),
        )),
        _ => Ok(()),
    }
}

fn print(global: &Global, entry: &Entry, model: &Model, pulled: Option<&Pulled>) -> anyhow::Result<()> {
    if global.json {
        let mut result = json!({
            "name": entry.name, "id": model.id(), "path": entry.path, "bytes": entry.bytes,
            "blake3": entry.blake3,
        });
        result["transfer"] = pulled.map_or(json!(null), transfer_json);
        return output::json(&result);
    }
    if let Some(pulled) = pulled {
        let fetched = pulled.bytes - pulled.resumed;
        let rate = fetched as f64 / pulled.elapsed.as_secs_f64().max(0.001);
        let givers = pulled.holders.iter().filter(|holder| holder.bytes > 0).count();
        output::note(format_args!(
            "{} came from {givers} of {} in {:.1} s ({}/s); every byte was checked",
            size(fetched),
            pulled.holders.len(),
            pulled.elapsed.as_secs_f64(),
            size(rate as u64)
        ));
    }
    output::line(format_args!("{}  {}", out_style(Style::Bold, &entry.name), model.id()))?;
    output::note(format_args!("serve it with: surety up --model {}", entry.name));
    Ok(())
}

/// An entry whose file is this one now. Weights lie on a disk once, whoever's they are.
fn already_here(store: &Store, digest: Digest) -> anyhow::Result<Option<Entry>> {
    let known = store.list()?.into_iter().find(|entry| entry.blake3 == digest && entry.path.exists());
    let Some(known) = known else { return Ok(None) };
    let mut shown = Shown::new(known.name.clone());
    let reference = Reference::Name { name: known.name, pin: None };
    let found = store.resolve(&reference, &mut |progress| shown.report(progress))?;
    Ok((found.blake3 == digest).then_some(found))
}

/// What can be known to go wrong before anything is asked.
fn check_name(name: Option<&str>) -> anyhow::Result<()> {
    match name {
        Some(name) if !is_name(name) => Err(hinted(
            format!("`{name}` cannot be a model's name"),
            "names are made of letters, digits, `.`, `_` and `-`, and begin with a letter or digit",
        )),
        _ => Ok(()),
    }
}

/// And before gigabytes have come.
fn check_free(store: &Store, digest: Digest, name: Option<&str>) -> anyhow::Result<()> {
    let Some(name) = name else { return Ok(()) };
    let place = store.pulled(digest);
    match store.list()?.into_iter().find(|entry| entry.name == name && entry.path != place) {
        None => Ok(()),
        Some(taken) => Err(hinted(
            format!("{name} already names another model, {}", taken.path.display()),
            format!("choose another with --name, or remove the old one with `surety model remove {name}`"),
        )),
    }
}

/// Whether this very file is at its place already, as an earlier pull that was cut off at the end leaves it.
fn lies_at(place: &Path, digest: Digest) -> anyhow::Result<bool> {
    let mut file = match std::fs::File::open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(output::io_failure("open", place, source)),
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut file).map_err(|source| output::io_failure("read", place, source))?;
    Ok(hasher.finalize().as_bytes() == &digest.0)
}

fn told(error: PullError) -> anyhow::Error {
    let hint = error.hint();
    let error = anyhow::Error::from(error);
    let chain = error.chain().map(ToString::to_string).reduce(|text, cause| match text.ends_with(&cause) {
        true => text,
        false => format!("{text}: {cause}"),
    });
    match (chain, hint) {
        (Some(message), Some(hint)) => hinted(message, hint),
        _ => error,
    }
}

fn transfer_json(pulled: &Pulled) -> serde_json::Value {
    let seconds = pulled.elapsed.as_secs_f64();
    let fetched = pulled.bytes - pulled.resumed;
    let holders: Vec<_> = pulled
        .holders
        .iter()
        .map(|part| {
            json!({
                "address": part.holder.to_string(), "bytes": part.bytes,
                "fault": part.fault.as_ref().map(ToString::to_string),
                "lied": part.fault.as_ref().is_some_and(surety_blobs::Fault::is_a_lie),
            })
        })
        .collect();
    json!({
        "fetched_bytes": fetched, "resumed_bytes": pulled.resumed, "seconds": seconds,
        "bytes_per_second": (fetched as f64 / seconds.max(0.001)) as u64, "holders": holders,
    })
}

/// A pull, shown: a bar at a terminal, a line now and then elsewhere; dropped holders by name.
struct PullShown {
    subject: String,
    checking: Shown,
    bar: Option<ProgressBar>,
    printed: Instant,
}

impl PullShown {
    fn new(digest: Digest) -> Self {
        let subject = format!("blake3:{}", &digest.to_string()[..12]);
        let checking = Shown::new(subject.clone());
        Self { subject, checking, bar: None, printed: Instant::now() }
    }

    fn report(&mut self, event: Event) {
        match event {
            Event::Checking { done, total } => {
                self.checking.report(StoreProgress { step: Step::Hashing, done, total });
            }
            Event::Progress(progress) => self.progress(progress),
            Event::Dropped { holder, fault } => {
                let text = format!("{holder} is not asked any more: {fault}");
                match &self.bar {
                    Some(bar) => bar.suspend(|| output::note(&text)),
                    None => output::note(&text),
                }
            }
        }
    }

    fn progress(&mut self, progress: Progress) {
        let Progress { done, total, rate, peers } = progress;
        let left = Duration::from_secs((total - done).checked_div(rate).unwrap_or(0));
        let pace = format!("{}/s from {peers}", size(rate));
        if stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
                let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {msg}";
                bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
                bar.set_prefix(format!("pulling {}", self.subject));
                bar
            });
            bar.set_position(done);
            bar.set_message(if rate == 0 { pace } else { format!("{pace}, {} s left", left.as_secs()) });
        } else if self.printed.elapsed() >= LINE_INTERVAL && done < total {
            self.printed = Instant::now();
            let percent = done.saturating_mul(100) / total.max(1);
            output::note(format_args!(
                "pulling {}: {percent} % ({} of {}, {pace}, {} s left)",
                self.subject,
                size(done),
                size(total),
                left.as_secs()
            ));
        }
    }
}

impl Drop for PullShown {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_digests_are_told_from_names_and_beginnings() {
        let digits = "0123456789abcdef".repeat(4);
        for text in [digits.clone(), format!("blake3:{digits}")] {
            assert_eq!(whole(&text.parse().unwrap()).unwrap().to_string(), digits);
        }
        for text in ["blake3:0123", "qwen3", "qwen3@0123", "hf:a/b", "./x.gguf", &format!("a@{digits}")] {
            assert_eq!(whole(&text.parse().unwrap()), None, "{text}");
        }
    }
}
