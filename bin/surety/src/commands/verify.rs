//! `surety verify ID|FILE`: checks a receipt, and on request computes the answer again.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use surety_engine::Model;
use surety_kernels::Executor;
use surety_types::{ModelId, PublicKey, evidence::MAX_EVIDENCE_BYTES};
use surety_worker::{load::ModelFile, store::Reference};

use super::{Outcome, model};
use crate::{
    api::Api,
    cli::Global,
    data_dir::DataDir,
    models::Models,
    output::{self, Style, excerpt, hinted, io_failure, out_style},
    verification::{Known, Report, Verified, asked, verify},
};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A request's id (req_…, chatcmpl-… or cmpl-…), whose evidence is asked of the gateway; or a file of evidence,
    /// or - for standard input.
    #[arg(value_name = "ID|FILE")]
    subject: String,
    /// Compute the answer again, in one pass of the same model, and compare every bit.
    #[arg(long)]
    recompute: bool,
    /// Reach no network: only a file can be checked.
    #[arg(long, conflicts_with = "base_url")]
    offline: bool,
    /// The model to recompute with [default: the one in the store whose id the receipt names].
    #[arg(long, value_name = "REF", requires = "recompute")]
    model: Option<Reference>,
    /// A file with the text you saw; it must be the text that was signed, to the byte.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// A file with the last message (or the prompt) you sent; it must be the one that was signed.
    #[arg(long, value_name = "FILE")]
    prompt: Option<PathBuf>,
    /// The id of the model you wanted.
    #[arg(long, value_name = "ID")]
    model_id: Option<ModelId>,
    /// The worker whose key it must be.
    #[arg(long, value_name = "KEY")]
    worker: Option<PublicKey>,
    /// The gateway whose key it must be.
    #[arg(long, value_name = "KEY")]
    gateway: Option<PublicKey>,
    /// The gateway to ask [default: the one `surety up` runs].
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
}

/// Checks, and prints what was checked and what was not.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    let from_gateway = is_request_id(&args.subject);
    if from_gateway && args.offline {
        return Err(hinted(
            format!("the evidence of {} is at a gateway, and --offline reaches none", args.subject),
            "save it first (curl BASE_URL/receipts/ID -o evidence.json), then verify the file",
        ));
    }
    let bytes = evidence_of(&args.subject, args.base_url.as_deref(), &data_dir).await?;
    let known = Known {
        request_id: from_gateway.then(|| args.subject.clone()),
        text: args.text.as_deref().map(read_text).transpose()?,
        prompt: args.prompt.as_deref().map(read_text).transpose()?,
        messages: None,
        model: args.model_id,
        worker: args.worker,
        gateway: args.gateway,
    };
    let (report, asked) = match verify(&bytes, &known) {
        Err(report) => (*report, None),
        Ok(verified) => {
            let asked = asked(&verified).cloned();
            let report = if args.recompute {
                recompute(&data_dir, args.model.as_ref(), verified)?
            } else {
                verified.report
            };
            (report, asked)
        }
    };
    if global.json {
        output::json(&report)?;
    } else {
        print(&report, asked.as_deref(), &args)?;
    }
    Ok(if report.verified { Outcome::Done } else { Outcome::Failed })
}

/// Whether a subject is a request's id rather than a file.
fn is_request_id(subject: &str) -> bool {
    let is_id = ["req_", "chatcmpl-", "cmpl-"].iter().any(|prefix| subject.starts_with(prefix));
    is_id && !Path::new(subject).exists()
}

/// The evidence of a request, from its gateway, or what a file or standard input holds.
pub async fn evidence_of(
    subject: &str,
    base_url: Option<&str>,
    data_dir: &DataDir,
) -> anyhow::Result<Vec<u8>> {
    match is_request_id(subject) {
        true => Api::new(base_url, data_dir)?.evidence(subject).await,
        false => read(subject),
    }
}

/// The model to recompute with, and its file: the one that is named, or the one in the store that has this id.
pub fn model_of(
    data_dir: &DataDir,
    reference: Option<&Reference>,
    wanted: ModelId,
    executor: &Executor,
) -> anyhow::Result<(Model, ModelFile)> {
    let models = Models::new(data_dir);
    let found = match reference {
        // Whatever it is: that it is another model is then the finding.
        Some(reference) => {
            let found = models.find(reference)?;
            let model = model::open_with(&found.file, data_dir, &found.name, executor)?;
            models.store().note_model(found.file.blake3, model.id());
            Some((model, found.file))
        }
        None => {
            let mut right = None;
            for candidate in models.candidates(wanted)? {
                // A file that is gone or damaged is no hindrance if another will do.
                let opened = model::open_with(&candidate.file, data_dir, &candidate.name, executor);
                let Ok(model) = opened else { continue };
                models.store().note_model(candidate.file.blake3, model.id());
                if model.id() == wanted {
                    right = Some((model, candidate.file));
                    break;
                }
            }
            right
        }
    };
    found.ok_or_else(|| {
        hinted(
            format!("recomputing needs {wanted}, and no model here has that id"),
            "add it with `surety model add`, or name its file with --model",
        )
    })
}

fn recompute(
    data_dir: &DataDir,
    reference: Option<&Reference>,
    verified: Verified,
) -> anyhow::Result<Report> {
    let wanted = verified.models().next().context("the evidence holds no answer")?;
    let executor = model::executor(None, None)?;
    let (model, _) = model_of(data_dir, reference, wanted, &executor)?;
    let bar = ProgressBar::new(0);
    bar.set_style(
        ProgressStyle::with_template("recomputing {wide_bar} {pos}/{len} tokens {eta}")
            .expect("the template is valid"),
    );
    let report = verified.recompute(&model, &executor, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    Ok(report)
}

fn print(report: &Report, asked: Option<&str>, args: &Args) -> anyhow::Result<()> {
    match &report.failure {
        None if report.recomputed => {
            output::line(out_style(Style::Good, "HOLDS: recomputed, and the same to the bit"))?;
        }
        None => output::line(out_style(Style::Good, "HOLDS, as far as it was checked"))?,
        Some(failure) => {
            output::line(out_style(Style::Bad, "DOES NOT HOLD"))?;
            output::line(format_args!("  {}", output::printable(failure)))?;
        }
    }
    let row = |label: &str, value: String| {
        output::line(format_args!("  {} {value}", out_style(Style::Dim, format_args!("{label:<9}"))))
    };
    if let Some(id) = &report.request_id {
        row("request", output::printable(id))?;
    }
    if let Some(asked) = asked {
        row("asked", format!("\u{201c}{}\u{201d}", excerpt(asked, 70)))?;
    }
    for answer in &report.answers {
        let finish = serde_json::to_value(answer.finish)?;
        match &answer.failed {
            Some(failed) if answer.output_tokens == 0 => {
                row("answer", format!("none: {}", output::printable(failed)))?;
            }
            _ => row("answer", format!("\u{201c}{}\u{201d}", excerpt(&answer.text, 70)))?,
        }
        let prompt_tokens = answer.prompt_tokens.saturating_sub(answer.first_output_token);
        let before = match answer.first_output_token {
            0 => format!("{prompt_tokens} of prompt"),
            first => format!("{prompt_tokens} of prompt and {first} that another worker had signed"),
        };
        let ended = match &answer.failed {
            Some(failed) => format!("then it failed: {}", output::printable(failed)),
            None => format!("ended by {}", finish.as_str().unwrap_or_default()),
        };
        row("", format!("{} tokens after {before}, {ended}", answer.output_tokens))?;
        row("model", answer.model.to_string())?;
        row("worker", answer.worker.to_string())?;
    }
    if let Some(gateway) = &report.gateway {
        row("gateway", gateway.to_string())?;
    }
    if !report.checked.is_empty() {
        output::line("checked:")?;
    }
    for line in &report.checked {
        output::line(format_args!("  {} {line}", out_style(Style::Good, "✓")))?;
    }
    if !report.not_checked.is_empty() {
        output::line("NOT checked:")?;
    }
    for line in &report.not_checked {
        output::line(format_args!("  - {line}"))?;
    }
    if report.verified {
        output::line("  - that the answer is true, useful or harmless: no receipt can show that")?;
        if !report.recomputed {
            output::note(format_args!("compute it again with: surety verify {} --recompute", args.subject));
        }
    }
    Ok(())
}

fn read(subject: &str) -> anyhow::Result<Vec<u8>> {
    let path = Path::new(subject);
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to be told so.
    let bytes_max = MAX_EVIDENCE_BYTES as u64 + 1;
    if subject == "-" {
        std::io::stdin()
            .lock()
            .take(bytes_max)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
    } else {
        let file = File::open(path).map_err(|source| io_failure("open", path, source))?;
        file.take(bytes_max).read_to_end(&mut bytes).map_err(|source| io_failure("read", path, source))?;
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let bytes = read(&path.to_string_lossy())?;
    String::from_utf8(bytes)
        .map_err(|_| hinted(format!("{} is not UTF-8 text", path.display()), "save it as UTF-8"))
}
