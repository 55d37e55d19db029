//! `surety doctor`: what this machine can do, what will be slow, and why.

use std::{net::TcpListener, path::Path};

use serde::Serialize;
use surety_kernels::{Backend, golden};
use surety_worker::{machine, store::Store};

use super::Outcome;
use crate::{
    bundled,
    cli::Global,
    data_dir::DataDir,
    output::{self, Style, out_style, size},
};

/// Less free disk than this leaves no room for a small model and its packed weights.
const DISK_BYTES_LOW: u64 = 4_000_000_000;
/// Less free memory than this leaves no room for a small model.
const MEMORY_BYTES_LOW: u64 = 2_000_000_000;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port that `surety up` is to use.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grade {
    /// As it should be.
    Good,
    /// It works, but slowly, or not for long.
    Slow,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) grade: Grade,
    pub(super) found: String,
    /// What it means and what to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

#[derive(Serialize)]
struct Diagnosis {
    ok: bool,
    backend: String,
    findings: Vec<Finding>,
}

/// Looks, and says what it sees. Fails if something does not work at all.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(global)?;
    let mut findings = machine_findings(&data_dir);
    findings.extend([models(&data_dir), port(args.port)]);
    let ok = findings.iter().all(|finding| finding.grade != Grade::Bad);
    if global.json {
        output::json(&Diagnosis { ok, backend: Backend::detect().to_string(), findings })?;
    } else {
        show(&findings)?;
    }
    Ok(if ok { Outcome::Done } else { Outcome::Failed })
}

/// What the machine has, whatever it is to do.
pub(super) fn machine_findings(data_dir: &DataDir) -> Vec<Finding> {
    vec![
        processor(),
        arithmetic(),
        cores(),
        memory(),
        huge_pages(),
        writable(data_dir.path()),
        disk(data_dir.path()),
    ]
}

/// Prints findings: whether each is usable, what was found, and what to do.
pub(super) fn show(findings: &[Finding]) -> anyhow::Result<()> {
    for Finding { what, grade, found, advice } in findings {
        let mark = match grade {
            Grade::Good => out_style(Style::Good, "ok  "),
            Grade::Slow => out_style(Style::Bold, "slow"),
            Grade::Bad => out_style(Style::Bad, "BAD "),
        };
        output::line(format_args!("{mark}  {what:<14} {found}"))?;
        if let Some(advice) = advice {
            output::line(format_args!("{:21}{}", "", out_style(Style::Dim, advice)))?;
        }
    }
    Ok(())
}

pub(super) fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, grade: Grade::Good, found: found.into(), advice: None }
}

pub(super) fn slow(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { what, grade: Grade::Slow, found: found.into(), advice: Some(advice.into()) }
}

pub(super) fn bad(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { what, grade: Grade::Bad, found: found.into(), advice: Some(advice.into()) }
}

fn processor() -> Finding {
    const WHAT: &str = "processor";
    let chosen = Backend::detect();
    let available: Vec<_> = Backend::available().iter().map(ToString::to_string).collect();
    let found = format!("{chosen} (of {})", available.join(", "));
    match chosen {
        Backend::Avx512Vnni | Backend::AvxVnni | Backend::Neon => good(WHAT, found),
        Backend::Avx512 | Backend::Avx2 => slow(
            WHAT,
            found,
            "without VNNI instructions, prompts are read at about half the speed; answers come nearly as fast",
        ),
        Backend::Scalar => slow(
            WHAT,
            found,
            "no vector instructions that Surety knows: expect a tenth of the usual speed (fine for the bundled model)",
        ),
    }
}

fn arithmetic() -> Finding {
    const WHAT: &str = "arithmetic";
    let backends = Backend::available();
    match backends.iter().find_map(|backend| golden::check(*backend).err()) {
        None => good(WHAT, format!("golden vectors agree on all {} backends", backends.len())),
        Some(mismatch) => bad(
            WHAT,
            mismatch.to_string(),
            "a worker refuses to serve here: test the memory, undo overclocking, or rebuild the program",
        ),
    }
}

fn cores() -> Finding {
    const WHAT: &str = "cores";
    match machine::cores().get() {
        1 => slow(WHAT, "1", "one core computes and serves: expect pauses"),
        cores => good(WHAT, cores.to_string()),
    }
}

fn memory() -> Finding {
    const WHAT: &str = "memory";
    let (Some(free), Some(total)) = (machine::available_memory_bytes(), machine::total_memory_bytes()) else {
        return good(WHAT, "this system does not tell");
    };
    let found = format!("{} free of {}", size(free), size(total));
    if free < MEMORY_BYTES_LOW {
        slow(WHAT, found, "only small models fit; one that does not will be read from disk again and again")
    } else {
        good(WHAT, format!("{found}: models up to about {}", size(free * 3 / 4)))
    }
}

fn huge_pages() -> Finding {
    const WHAT: &str = "huge pages";
    match machine::huge_pages().as_deref() {
        Some("never") => slow(
            WHAT,
            "never",
            "large models lose a few per cent; allow them with: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some(mode) => good(WHAT, mode),
        None => good(WHAT, "this system has no such setting"),
    }
}

fn writable(path: &Path) -> Finding {
    const WHAT: &str = "data directory";
    let found = path.display().to_string();
    match tempfile::tempfile_in(existing(path)) {
        Ok(_) => good(WHAT, found),
        Err(error) => bad(
            WHAT,
            format!("{found}: {error}"),
            "choose one that can be written with --data-dir or SURETY_HOME, or run `surety up --ephemeral`",
        ),
    }
}

fn disk(path: &Path) -> Finding {
    const WHAT: &str = "disk";
    match rustix::fs::statvfs(existing(path)) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let found = format!("{} free", size(free));
            if free < DISK_BYTES_LOW {
                slow(WHAT, found, "a model takes its own size twice: the file and its packed weights")
            } else {
                good(WHAT, found)
            }
        }
        Err(error) => slow(WHAT, format!("unknown: {error}"), "free space could not be read"),
    }
}

/// The directory, or the nearest one above it that exists: nothing is made just to be looked at.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

fn models(data_dir: &DataDir) -> Finding {
    const WHAT: &str = "models";
    match Store::new(data_dir.path()).list() {
        Ok(entries) => {
            let gone: Vec<_> =
                entries.iter().filter(|entry| !entry.path.exists()).map(|entry| entry.name.clone()).collect();
            let found = format!("{} and the bundled {}", entries.len(), bundled::NAME);
            if gone.is_empty() {
                good(WHAT, found)
            } else {
                let advice =
                    format!("the files of {} are gone; put them back or remove the names", gone.join(", "));
                slow(WHAT, found, advice)
            }
        }
        Err(error) => {
            let advice = error.hint().unwrap_or_else(|| "the bundled model still works".into());
            bad(WHAT, error.to_string(), advice)
        }
    }
}

fn port(port: u16) -> Finding {
    const WHAT: &str = "port";
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => good(WHAT, format!("{port} is free")),
        Err(error) => slow(
            WHAT,
            format!("{port}: {error}"),
            "fine if that is `surety up` already running; otherwise give `surety up` another --port",
        ),
    }
}
