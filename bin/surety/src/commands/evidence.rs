//! `surety evidence`: what happened in a span of time, for whoever reviews a gateway and its network.
//!
//! In:     the span. Out: a pack, in words, as JSON, or as a folder with the files that it rests on.
//! Touches: the gateway that runs on this machine, by its socket, which only its user may open; the ledger; the folder.
//! Absent: what is made of it (`pack`).

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use surety_gateway::{KeysOf, LoggedRequest};

use super::Outcome;
use crate::{
    cli::Global,
    data_dir::DataDir,
    look::LookArgs,
    output::{self, Style, hinted, io_failure, out_style, printable},
    pack::{
        Level, Objective, Pack,
        access::{Access, File},
        events::{self, Chain},
        moment::Moment,
        pack,
    },
};

/// Rows of a list that a terminal shows.
const SHOWN_MAX: usize = 20;
/// What has ended is noted so long after that at most.
const NOTED_AFTER_MS: u64 = 1_000;
/// Requests of one pack.
const REQUESTS_MAX: usize = 200_000;

/// Arguments of `evidence`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Moments are 2026-11-01, 2026-11-01T10:00:00Z, now, or a span before now (24h, 7d); times are UTC.\n\nExamples:\n  \
                  surety evidence --from 7d\n  surety evidence --from 2026-10-01 --to 2026-11-01 --out october\n  \
                  surety explain october/requests/req_1.json --offline\n  surety evidence --from 24h --json"
)]
pub struct Args {
    /// From when on.
    #[arg(long, value_name = "MOMENT", default_value = "24h")]
    from: String,
    /// Until when.
    #[arg(long, value_name = "MOMENT", default_value = "now")]
    to: String,
    /// Write it to a new folder: evidence.json, and for each request a file that `surety explain` reads.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// An answer is in time within so many milliseconds, from the request to its last byte.
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    latency_ms_max: u64,
    #[command(flatten)]
    look: LookArgs,
}

/// Makes it.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let moment = |name: &str, text: &str| {
        Moment::read(text, Moment(now))
            .map_err(|why| hinted(format!("--{name}: {why}"), "see: surety evidence --help"))
    };
    let (from, to) = (moment("from", &args.from)?, moment("to", &args.to)?);
    if from > to {
        return Err(hinted(format!("{from} is after {to}"), "give --from the earlier of the two"));
    }
    if let Some(out) = args.out.as_ref().filter(|out| out.exists()) {
        return Err(hinted(
            format!("{} is there already", out.display()),
            "name a new folder: nothing is written over",
        ));
    }
    let data_dir = DataDir::of(&global)?;
    let (access, files) = match requests(&data_dir, from, to).await {
        Ok(logged) => {
            let (access, files) = Access::read(logged, to)?;
            (Ok(access), files)
        }
        Err(error) => (Err(words(&error)), Vec::new()),
    };
    let chain = chain(&args.look, &data_dir, from, to).await.map_err(|error| words(&error));
    if access.is_err() && chain.is_err() {
        let why = [access.err(), chain.err()].into_iter().flatten().collect::<Vec<_>>().join("; ");
        return Err(hinted(
            format!("there is nothing to make it of: {why}"),
            "run it beside a gateway (--data-dir), or name a ledger with --genesis and --rpc-url",
        ));
    }
    let pack = pack(from, to, access, chain, Objective { latency_ms_max: args.latency_ms_max });
    if let Some(out) = &args.out {
        write(out, &pack, &files)?;
        output::note(format_args!("written to {}: {} requests", out.display(), files.len()));
    }
    match global.json {
        true => output::json(&pack)?,
        false => print(&pack)?,
    }
    Ok(Outcome::Done)
}

fn words(error: &anyhow::Error) -> String {
    format!("{error:#}")
}

/// What the gateway on this machine noted.
async fn requests(data_dir: &DataDir, from: Moment, to: Moment) -> anyhow::Result<Vec<LoggedRequest>> {
    let folder = data_dir.gateway();
    anyhow::ensure!(folder.exists(), "there is no gateway's folder in {}", data_dir.path().display());
    let gateway = KeysOf::open(&folder)?;
    let (mut found, mut first) = (Vec::new(), 0);
    loop {
        let page = gateway.requests(first, from.0, to.0.saturating_add(NOTED_AFTER_MS)).await?;
        found.extend(page.requests);
        anyhow::ensure!(
            found.len() <= REQUESTS_MAX,
            "there are more than {REQUESTS_MAX} requests: choose a shorter span"
        );
        match page.next {
            Some(next) => first = next,
            None => return Ok(found),
        }
    }
}

async fn chain(look: &LookArgs, data_dir: &DataDir, from: Moment, to: Moment) -> anyhow::Result<Chain> {
    let look = look.open(data_dir).context("no ledger is known here")?;
    events::look(&look.ledger, from, to).await
}

/// Writes the folder, for its owner's eyes: who asked when is nobody else's.
fn write(out: &Path, pack: &Pack, files: &[File]) -> anyhow::Result<()> {
    let requests = out.join("requests");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&requests)
        .map_err(|source| io_failure("create", &requests, source))?;
    let whole = ("evidence.json".to_owned(), serde_json::to_vec_pretty(pack)?);
    for (name, bytes) in files.iter().chain([&whole]) {
        let path = out.join(name);
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, bytes));
        written.map_err(|source| io_failure("write", &path, source))?;
    }
    Ok(())
}

/// For people.
fn print(pack: &Pack) -> anyhow::Result<()> {
    output::line(out_style(Style::Bold, format_args!("{} to {}", pack.from, pack.to)))?;
    if let Some(gateway) = pack.gateway {
        output::line(format_args!("access log of gateway {gateway}, by its own signed word"))?;
    }
    if let (Some(access), Some(levels)) = (&pack.access, &pack.attainment) {
        let within = pack.objective.latency_ms_max;
        output::line(format_args!("requests: {}", access.len()))?;
        output::line(format_args!("whole, verified and within {within} ms:"))?;
        output::line(format_args!("  all             {}", level(&levels.all)))?;
        for (model, of) in levels.models.iter().take(SHOWN_MAX) {
            output::line(format_args!("  model {:<9} {}", printable(model), level(of)))?;
        }
        output::line("brought to its end, of what was signed for:")?;
        for (operator, of) in levels.operators.iter().take(SHOWN_MAX) {
            output::line(format_args!("  operator {operator} {}", level(of)))?;
        }
    }
    let incidents = pack.incidents.iter().map(|incident| {
        let who = match (&incident.worker, &incident.operator) {
            (Some(worker), _) => format!(" {}", worker.short()),
            (None, Some(operator)) => format!(" {operator}"),
            (None, None) => String::new(),
        };
        let evidence = incident.evidence.first().map(String::as_str).unwrap_or_default();
        format!(
            "{}  {} × {}, {}{who}: {evidence}",
            incident.from, incident.count, incident.what, incident.accountable
        )
    });
    list("incidents", Some(incidents.collect()))?;
    let happenings = |of: &Option<Vec<crate::pack::events::Happening>>| {
        let row = |happening: &crate::pack::events::Happening| {
            let whom =
                happening.operator.as_ref().map(|operator| format!("{operator}: ")).unwrap_or_default();
            format!("{}  {whom}{}", happening.at, happening.what)
        };
        of.as_ref().map(|all| all.iter().map(row).collect::<Vec<_>>())
    };
    list("changes", happenings(&pack.changes))?;
    list("audits, disputes and claims", happenings(&pack.verification))?;
    let operators = pack.operators.iter().flat_map(|operator| {
        let name = operator.name.as_deref().unwrap_or("unknown");
        operator.workers.iter().map(move |host| {
            format!(
                "{} {name}, worker {}, region {}",
                operator.account.as_deref().unwrap_or("unknown"),
                host.worker.short(),
                host.region
            )
        })
    });
    list("operators", Some(operators.collect()))?;
    list("not known", Some(pack.not_known.clone()))
}

fn level(level: &Level) -> String {
    match level.per_ten_thousand() {
        None => "nothing was counted".to_owned(),
        Some(share) => format!(
            "{}.{:02} % ({} of {}; {} too late; {} by their callers' doing left out)",
            share / 100,
            share % 100,
            level.good,
            level.counted,
            level.late,
            level.callers
        ),
    }
}

fn list(title: &str, lines: Option<Vec<String>>) -> anyhow::Result<()> {
    let Some(lines) = lines else {
        output::line(format_args!("{title}: not known"))?;
        return Ok(());
    };
    output::line(format_args!(
        "{title}: {}",
        if lines.is_empty() { "none".to_owned() } else { lines.len().to_string() }
    ))?;
    for line in lines.iter().take(SHOWN_MAX) {
        output::line(format_args!("  - {}", printable(line)))?;
    }
    if lines.len() > SHOWN_MAX {
        output::note(format_args!("  {} more: --json, or --out FOLDER", lines.len() - SHOWN_MAX));
    }
    Ok(())
}
