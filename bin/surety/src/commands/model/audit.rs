//! `surety model audit`: whether those who offer a model really hold it, and a record of who did not.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use surety_blobs::audit::CHALLENGES_MAX;
use surety_worker::store::Reference;

use super::network::{self, Audited, Hosted, operators_holding};
use crate::{
    cli::Global,
    commands::Outcome,
    data_dir::DataDir,
    look::{LookArgs, aligned},
    output::{self, Style, excerpt, hinted, io_failure, out_style},
};

/// Chunks that catch with 95 % whoever dropped a hundredth.
const USUAL: u32 = 299;
/// Chunks that catch with 99 % whoever dropped a tenth: a look in passing.
const QUICK: u32 = 44;
/// For a look in passing.
const QUICK_LIMIT: Duration = Duration::from_secs(5);
/// Replicas that a model should have.
pub const REPLICAS: usize = 3;
/// A record that has grown to this is put aside, in place of the one before it.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// Arguments of `model audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME or NAME@ID as it is on the ledger, or blake3:… of a model or of its file.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Chunks that each holder is to show: 299 catch with 95 % whoever dropped a hundredth of them, 459 with 99 %.
    #[arg(long, value_name = "N", default_value_t = USUAL, value_parser = clap::value_parser!(u32).range(1..=i64::from(CHALLENGES_MAX)))]
    challenges: u32,
    /// Within which a holder is to answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    within: u64,
    #[command(flatten)]
    look: LookArgs,
}

/// Audits all who offer a model; fails if one of them does not hold it.
pub async fn run(global: &Global, data_dir: &DataDir, args: Args) -> anyhow::Result<Outcome> {
    let look = args.look.open(data_dir)?;
    let hosted = network::find(&look, &args.reference).await?;
    if hosted.offering.is_empty() {
        return Err(hinted(format!("no worker offers {}", hosted.id), "there is nobody to audit"));
    }
    let (id, tip, file) = (hosted.id, hosted.tip, hosted.file()?.clone());
    let record = data_dir.path().join("audits.jsonl");
    let mut lines = Vec::new();
    let audited = hosted
        .audited(args.challenges, Duration::from_secs(args.within), |one| {
            lines.push(json!({
                "time_ms": now_ms(), "model": id, "blake3": file.blake3, "bytes": file.bytes, "block": tip.number,
                "operator": one.offered.by.operator.to_string(), "endpoint": one.offered.by.endpoint,
                "verdict": one.verdict(), "audit": one.report,
            }));
        })
        .await?;
    write(&record, &lines)?;
    let missed = audited.iter().any(|one| !one.holds());
    if global.json {
        output::json(&json!({
            "model": id, "blake3": file.blake3, "block": tip.number, "beacon": tip.hash.to_string(),
            "challenges": args.challenges, "hosts": audited.iter().map(host_json).collect::<Vec<_>>(),
            "recorded": record,
        }))?;
    } else {
        output::line(format_args!(
            "{} chunks of {}, drawn by block {} ({})",
            args.challenges,
            excerpt(&file.name, 96),
            tip.number,
            tip.hash
        ))?;
        for line in table(&audited) {
            output::line(line)?;
        }
        output::note(format_args!("recorded in {}", record.display()));
    }
    Ok(if missed { Outcome::Failed } else { Outcome::Done })
}

/// Who hosts a model, each looked at in passing; and how many must fail before it is gone.
pub async fn hosts(hosted: Hosted) -> anyhow::Result<Vec<Audited>> {
    hosted.audited(QUICK, QUICK_LIMIT, |_| {}).await
}

/// That, for people.
pub fn hosts_text(audited: &[Audited]) -> Vec<String> {
    let mut lines = table(audited);
    let (holding, operators) = (audited.iter().filter(|one| one.holds()).count(), operators_holding(audited));
    lines.push(match operators {
        0 => out_style(
            Style::Bad,
            "nobody who offers it could show it: it is gone unless somebody else keeps it",
        ),
        1 => out_style(Style::Bad, "1 operator must fail before it is gone"),
        _ => format!("{operators} operators must fail before it is gone"),
    });
    if holding < REPLICAS {
        lines.push(format!("{holding} replica(s); {REPLICAS} are wanted"));
    }
    lines
}

/// That, for scripts.
pub fn hosts_json(audited: &[Audited]) -> Value {
    json!({
        "hosts": audited.iter().map(host_json).collect::<Vec<_>>(),
        "replicas": audited.iter().filter(|one| one.holds()).count(),
        "replicas_wanted": REPLICAS,
        "operators_until_gone": operators_holding(audited),
    })
}

fn host_json(one: &Audited) -> Value {
    let by = &one.offered.by;
    json!({
        "operator": by.operator.to_string(), "operator_name": by.operator_name, "worker": by.key,
        "endpoint": by.endpoint, "holds": one.holds(), "verdict": one.verdict(), "audit": one.report,
    })
}

fn table(audited: &[Audited]) -> Vec<String> {
    let row = |one: &Audited| {
        let by = &one.offered.by;
        let cost = one.report.as_ref().map_or_else(String::new, |report| {
            format!(
                "{}/{} chunks, {} bytes, {} ms",
                report.proven, report.drawn, report.bytes, report.elapsed_ms
            )
        });
        let operator = format!("  {}", by.operator);
        let (name, endpoint) = (excerpt(&by.operator_name, 32), excerpt(&by.endpoint, 48));
        vec![operator, name, endpoint, one.verdict(), cost]
    };
    let lines = aligned(&audited.iter().map(row).collect::<Vec<_>>());
    let coloured = |(line, one): (String, &Audited)| match one.holds() {
        true => line,
        false => out_style(Style::Bad, line),
    };
    lines.into_iter().zip(audited).map(coloured).collect()
}

/// Adds lines to a record that does not grow beyond its bound.
fn write(path: &Path, lines: &[Value]) -> anyhow::Result<()> {
    let failed = |source| io_failure("write", path, source);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() >= RECORD_BYTES_MAX => {
            fs::rename(path, path.with_extension("old.jsonl")).map_err(failed)?;
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.to_string());
        text.push('\n');
    }
    // At once, so that lines of two processes do not mix.
    let mut file = File::options().create(true).append(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_challenges_are_what_they_are_said_to_be() {
        assert_eq!(u64::from(USUAL), surety_blobs::challenges_needed(0.01, 0.95));
        assert_eq!(u64::from(QUICK), surety_blobs::challenges_needed(0.1, 0.99));
    }

    #[test]
    fn a_record_grows_line_by_line_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/audits.jsonl");
        write(&path, &[json!({ "a": 1 }), json!({ "b": 2 })]).unwrap();
        write(&path, &[json!({ "c": 3 })]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n");
        File::options().write(true).open(&path).unwrap().set_len(RECORD_BYTES_MAX).unwrap();
        write(&path, &[json!({ "d": 4 })]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"d\":4}\n");
        assert_eq!(fs::metadata(path.with_extension("old.jsonl")).unwrap().len(), RECORD_BYTES_MAX);
    }
}
