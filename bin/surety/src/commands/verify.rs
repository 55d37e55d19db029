//! `surety verify ID|FILE`: checks a receipt, and on request computes the answer again.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use surety_engine::Model;
use surety_kernels::Executor;
use surety_types::{ModelId, PublicKey, evidence::MAX_EVIDENCE_BYTES};
use surety_worker::{load::ModelFile, store::Reference};

use super::{Outcome, dispute, model};
use crate::{
    api::Api,
    cli::Global,
    conduct::Rechecked,
    data_dir::DataDir,
    look::LookArgs,
    models::Models,
    output::{self, Style, excerpt, hinted, io_failure, out_style},
    passphrase::PassphraseArgs,
    rechecking,
    verification::{Known, Report, Verified, asked, verify},
};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  surety verify req_1\n  surety verify receipt.json --offline --recompute --model x.gguf\n  \
                        surety verify req_1 --recompute --challenge --account purse"
)]
pub struct Args {
    /// A request's id (req_…, chatcmpl-… or cmpl-…), whose evidence is asked of the gateway; or a file of evidence,
    /// or - for standard input.
    #[arg(value_name = "ID|FILE")]
    subject: String,
    /// Compute the answer again, in one pass of the same model, and compare every bit.
    #[arg(long)]
    recompute: bool,
    /// If the answer does not hold when it is computed again: contest it on the ledger, with a bond, to the verdict.
    #[arg(long, requires_all = ["recompute", "account"], conflicts_with = "offline")]
    challenge: bool,
    /// The account that contests (`surety key list` shows them); it needs the bond, and some gas.
    #[arg(long, value_name = "NAME", requires = "challenge")]
    account: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Reach no network: only a file can be checked.
    #[arg(long, conflicts_with_all = ["base_url", "genesis", "rpc_urls"])]
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
    #[command(flatten)]
    look: LookArgs,
}

/// Evidence that does not hold, contested.
#[derive(Clone, Debug, Serialize)]
pub struct Challenged {
    /// The ledger's number of the dispute.
    dispute: u64,
    /// Whether the worker was convicted.
    convicted: bool,
    /// The verdict, in words.
    verdict: &'static str,
}

/// What `verify` prints as JSON.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// What the ledger knows of each answer's receipt; empty without a ledger.
    ledger: Vec<Rechecked>,
    challenge: Option<Challenged>,
    /// Why it was not contested, though it does not hold.
    not_challenged: Option<String>,
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
    let challenger = match &args.account {
        Some(account) => Some(dispute::challenger(account, &args.passphrase, &args.look, &data_dir).await?),
        None => None,
    };
    let (mut rechecked, mut challenge, mut not_challenged) = (Vec::new(), None, None);
    let (report, asked) = match verify(&bytes, &known) {
        Err(report) => {
            if challenger.is_some() {
                not_challenged = Some("only what a worker has validly signed can be contested".to_owned());
            }
            (*report, None)
        }
        Ok(mut verified) => {
            let asked = asked(&verified).cloned();
            if !args.offline {
                rechecked = look_up(&args.look, &data_dir, &mut verified).await;
            }
            let report = match args.recompute {
                false => verified.report,
                true if verified.is_by_word() => {
                    return Err(hinted(
                        "the answer cannot be computed again: a server of the operator's choice gave it, and the receipt claims no arithmetic",
                        "leave --recompute out; what is signed for is checked without it",
                    ));
                }
                true => {
                    let wanted = verified.models().next().context("the evidence holds no answer")?;
                    let executor = model::executor(None, None)?;
                    let (model, file) = model_of(&data_dir, args.model.as_ref(), wanted, &executor)?;
                    if let Some(account) = &challenger {
                        dispute::afford(&**account, &bytes, &model).await?;
                    }
                    let report = recompute(&model, &executor, verified);
                    if let (Some(account), false) = (&challenger, report.verified) {
                        output::note("it does not hold; it is contested on the ledger");
                        let mut told = |step: dispute::Step| output::note(step);
                        let folder = data_dir.cache();
                        let contested =
                            dispute::contest(&**account, &bytes, &model, &file, &folder, None, &mut told)
                                .await;
                        match contested {
                            Ok(contested) => challenge = Some(Challenged::of(&contested)),
                            Err(error) => not_challenged = Some(format!("{error:#}")),
                        }
                    }
                    report
                }
            };
            (report, asked)
        }
    };
    if global.json {
        output::json(&Printed { report: &report, ledger: rechecked, challenge, not_challenged })?;
    } else {
        print(&report, asked.as_deref(), &args)?;
        print_ledger(&rechecked, challenge.as_ref(), not_challenged.as_deref())?;
    }
    Ok(if report.verified { Outcome::Done } else { Outcome::Failed })
}

impl Challenged {
    fn of(contested: &dispute::Contested) -> Challenged {
        Challenged {
            dispute: contested.accused.id,
            convicted: contested.verdict.is_conviction(),
            verdict: contested.verdict.reason(),
        }
    }
}

/// What the ledger knows of the receipts; where there is none, that is said.
async fn look_up(look: &LookArgs, data_dir: &DataDir, verified: &mut Verified) -> Vec<Rechecked> {
    let found = rechecking::look_up(look, data_dir, &verified.subjects()).await;
    let unchecked = |why: String| format!("whether an audit or a dispute re-checked it: {why}");
    verified.report.not_checked.extend(found.failure.map(unchecked));
    found.records.into_iter().map(|(_, record)| record).collect()
}

fn print_ledger(
    rechecked: &[Rechecked],
    challenge: Option<&Challenged>,
    not_challenged: Option<&str>,
) -> anyhow::Result<()> {
    if !rechecked.is_empty() {
        output::line("on the ledger:")?;
    }
    for line in rechecked.iter().flat_map(|rechecked| &rechecked.said) {
        output::line(format_args!("  - {line}"))?;
    }
    if let Some(Challenged { dispute, convicted, verdict }) = challenge {
        let (style, said) = match convicted {
            true => (Style::Good, "CONVICTED"),
            false => (Style::Bad, "NOT CONVICTED"),
        };
        output::line(out_style(style, format_args!("{said}: {verdict} (dispute {dispute})")))?;
        output::note(format_args!("see what it cost whom with: surety dispute show {dispute}"));
    }
    if let Some(why) = not_challenged {
        output::line(out_style(Style::Bad, format_args!("not contested: {}", output::printable(why))))?;
    }
    Ok(())
}

/// Whether a subject is a request's id rather than a file.
pub fn is_request_id(subject: &str) -> bool {
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
        false => read(subject, MAX_EVIDENCE_BYTES),
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

fn recompute(model: &Model, executor: &Executor, verified: Verified) -> Report {
    let bar = ProgressBar::new(0);
    bar.set_style(
        ProgressStyle::with_template("recomputing {wide_bar} {pos}/{len} tokens {eta}")
            .expect("the template is valid"),
    );
    let report = verified.recompute(model, executor, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    report
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
            _ if answer.check => row("check", "the same answer, computed by another worker".to_owned())?,
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
        if answer.tier == Some("signed") {
            row("tier", "signed: by its operator's word; the operator's upstream sees the text".to_owned())?;
        }
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
        if !report.recomputed && report.answers.iter().all(|answer| answer.tier != Some("signed")) {
            output::note(format_args!("compute it again with: surety verify {} --recompute", args.subject));
        }
    }
    Ok(())
}

/// What a file or standard input holds, up to one byte more than is allowed.
pub fn read(subject: &str, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let path = Path::new(subject);
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to be told so.
    let bytes_max = bytes_max as u64 + 1;
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
    let bytes = read(&path.to_string_lossy(), MAX_EVIDENCE_BYTES)?;
    String::from_utf8(bytes)
        .map_err(|_| hinted(format!("{} is not UTF-8 text", path.display()), "save it as UTF-8"))
}
