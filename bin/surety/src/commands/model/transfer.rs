//! `surety model pull` and `surety model serve`: files between machines, by their BLAKE3.

use std::{
    io::{IsTerminal, stderr},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use surety_blobs::{
    Event, HoldLimits, Progress, PullError, PullLimits, PullRequest, Pulled, Shelf, View, hold,
};
use surety_engine::Model;
use surety_net::{BindOptions, Endpoint, ListenLimits, Location, WorkerAddress};
use surety_types::{Digest, SecretKey};
use surety_worker::{
    Progress as StoreProgress, Step,
    load::{ModelFile, ModelPlace},
    store::{Entry, Reference, Store, is_name},
};

use super::open;
use crate::{
    child::{ChildArgs, stop_requested},
    cli::Global,
    commands::Outcome,
    data_dir::DataDir,
    keystore::Keystore,
    models::Models,
    output::{self, Style, hinted, out_style, size},
    passphrase::PassphraseArgs,
    progress::Shown,
};

/// Addresses of holders in one pull.
const HOLDERS_MAX: usize = 64;
/// How often a line is printed where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Arguments of `model pull`.
#[derive(Debug, clap::Args)]
pub struct PullArgs {
    /// The BLAKE3 of the file, as `surety model inspect` and a manifest show it.
    #[arg(value_name = "blake3:HEX")]
    file: FileId,
    /// Who holds it: workers, or whoever runs `surety model serve`. Several are asked at once; any may lie or leave.
    #[arg(long, value_name = "KEY@IP:PORT", required = true, num_args = 1..)]
    from: Vec<WorkerAddress>,
    /// What to call it [default: what the model calls itself].
    #[arg(long)]
    name: Option<String>,
    /// The file's size, if it is known: holders that tell another are not asked.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes: Option<u64>,
}

/// Arguments of `model serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
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

/// `blake3:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
struct FileId(Digest);

impl FromStr for FileId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("blake3:").unwrap_or(text);
        digits.parse().map(FileId).map_err(
            |_| "expected blake3: and 64 hexadecimal digits, as `surety model list --json` shows them",
        )
    }
}

/// Fetches a file from its holders, then enters and loads it as `model add` does.
pub async fn pull(
    global: &Global,
    data_dir: &DataDir,
    models: &Models,
    args: PullArgs,
) -> anyhow::Result<()> {
    let PullArgs { file: FileId(digest), from, name, bytes } = args;
    let store = models.store();
    check(store, digest, &from, name.as_deref())?;
    if let Some(found) = already_here(store, digest)? {
        output::note(format_args!("the file is here already, at {}", found.path.display()));
        let file = ModelFile { place: ModelPlace::File(found.path.clone()), blake3: digest };
        let model = open(&file, data_dir, &found.name)?;
        store.note_model(digest, model.id());
        return print(global, &found, &model, None);
    }
    let place = store.pulled(digest);
    let pulled = match lies_at(&place, digest)? {
        true => None,
        false => {
            let endpoint = endpoint_towards(&from).await?;
            let request = PullRequest {
                digest,
                bytes,
                holders: from,
                downloads: store.downloads(),
                place: place.clone(),
            };
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

    let file = ModelFile { place: ModelPlace::File(place), blake3: digest };
    let called = format!("blake3-{}", &digest.to_string()[..12]);
    let loaded = open(&file, data_dir, name.as_deref().unwrap_or(&called));
    let called = loaded.as_ref().map_or(called, |model| model.manifest().name.clone());
    // What does not load has a name all the same, so that it can be removed and need not come again.
    let entry = store.enter_pulled(digest, name.as_deref(), &called)?;
    let model = loaded?;
    store.note_model(digest, model.id());
    print(global, &entry, &model, pulled.as_ref())
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

/// What can be known to go wrong before gigabytes have come.
fn check(store: &Store, digest: Digest, from: &[WorkerAddress], name: Option<&str>) -> anyhow::Result<()> {
    if from.len() > HOLDERS_MAX {
        return Err(hinted(
            format!("{} holders are too many", from.len()),
            format!("name {HOLDERS_MAX} or fewer"),
        ));
    }
    let Some(name) = name else { return Ok(()) };
    if !is_name(name) {
        return Err(hinted(
            format!("`{name}` cannot be a model's name"),
            "names are made of letters, digits, `.`, `_` and `-`, and begin with a letter or digit",
        ));
    }
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
fn lies_at(place: &std::path::Path, digest: Digest) -> anyhow::Result<bool> {
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

/// An endpoint that reaches these, under a key of this pull alone.
async fn endpoint_towards(holders: &[WorkerAddress]) -> anyhow::Result<Endpoint> {
    let loopback = holders.iter().all(|holder| holder.location.socket().ip().is_loopback());
    let ip = match (
        loopback,
        holders.iter().any(|holder| matches!(holder.location, Location::Direct(SocketAddr::V6(_)))),
    ) {
        (true, false) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (true, true) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (false, false) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (false, true) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
    let key = SecretKey::from_bytes(&secret);
    Ok(Endpoint::bind(BindOptions { key, listen: SocketAddr::new(ip, 0) }).await?)
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

/// The store's files, as they are listed now.
struct StoreShelf(Store);

impl Shelf for StoreShelf {
    fn paths(&self, digest: Digest) -> Vec<PathBuf> {
        match self.0.list() {
            Ok(entries) => {
                entries.into_iter().filter(|entry| entry.blake3 == digest).map(|entry| entry.path).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "the model store cannot be read");
                Vec::new()
            }
        }
    }
}

/// Gives out the store's files until told to stop.
pub async fn serve(
    global: &Global,
    data_dir: &DataDir,
    models: &Models,
    args: ServeArgs,
) -> anyhow::Result<Outcome> {
    let view = Arc::new(View::new(StoreShelf(models.store().clone()), data_dir.cache().join("trees")));
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
        let report = &mut |done, total| shown.report(StoreProgress { step: Step::Hashing, done, total });
        match view.tree(entry.blake3, report) {
            Ok(_) => good.push(entry),
            Err(error) => output::note(format_args!("{} is not served: {error}", entry.name)),
        }
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_whole_digests() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(digits.parse::<FileId>().unwrap().0.to_string(), digits);
        assert!(format!("blake3:{digits}").parse::<FileId>().is_ok());
        for text in ["", "blake3:", "blake3:0123", "hf:a/b", &format!("{digits}0")] {
            assert!(text.parse::<FileId>().is_err(), "{text}");
        }
        let reference: Reference = format!("blake3:{digits}").parse().unwrap();
        assert_eq!(reference, Reference::Id(digits));
    }
}
