//! `surety explain ID|FILE|DIGEST|CODE`: what became of a request, who answers for what went wrong, and what can be done; or what an
//! error code means.
//!
//! In:     a request's id; a file of its evidence, or one that was exported; an order's or a receipt's digest; an error's code.
//! Out:    a verdict that names one party, nobody, or says that it is not known; what led to it. A file that gives the same
//!         verdict again, without any network.
//! Touches: the gateway, for what it keeps; the ledger, unless it is told not to; the file it exports to.
//! Holds:  what is shown was checked first; a ledger that cannot be asked leaves the verdict to what is shown, and that is said.
//! Absent: the verdict itself (`explanation`), the texts of codes (the gateway's catalogue).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use alloy_primitives::U256;
use serde::Serialize;
use surety_gateway::catalogue::{self, Explained};
use surety_types::{PublicKey, channel::WEI_PER_MICRO_CREDIT, digest::Digest, statement::MAX_DOSSIER_BYTES};

use super::{Outcome, verify};
use crate::{
    api::Api,
    cli::Global,
    conduct::rechecked,
    data_dir::DataDir,
    dossier::{self, Saved, Shown},
    explanation::{
        Accountable, Basis, Explanation, OnLedger, Part, explain, explain_digest, explain_false,
        explain_stated, unexplained,
    },
    look::{LookArgs, credits},
    output::{self, Style, err_style, hinted, io_failure, out_style, printable},
    rechecking::{Found, look_up_within},
    verification::{Known, Verified},
};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 1 if somebody is accountable, or it is not known who.\n\nExamples:\n  surety explain req_1\n  \
                  surety explain req_1 --export req_1.json\n  surety explain req_1.json --offline --json\n  surety explain no_worker"
)]
pub struct Args {
    /// A request's id (req_…, chatcmpl-… or cmpl-…), of which the gateway is asked; a file of evidence, or one that was
    /// exported, or - for standard input; an order's or a receipt's digest, of which the ledger alone is asked; or an error's code, to
    /// be told what it means.
    #[arg(value_name = "ID|FILE|DIGEST|CODE", required_unless_present = "codes")]
    subject: Option<String>,
    /// List every error code, and what it means.
    #[arg(long, conflicts_with_all = ["subject", "export", "offline"])]
    codes: bool,
    /// Write all of it to a file, from which the same can be told without any network.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Reach no network: only a file can be explained, with what was saved of the ledger in it.
    #[arg(long, conflicts_with_all = ["base_url", "genesis", "rpc_urls"])]
    offline: bool,
    /// The gateway to ask [default: the one `surety up` runs].
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Wait so long for nodes of the ledger that say nothing; the verdict then rests on the rest, and says so.
    #[arg(long, value_name = "MS", default_value_t = 800, value_parser = clap::value_parser!(u64).range(2..=600_000))]
    ledger_wait_ms: u64,
    #[command(flatten)]
    look: LookArgs,
}

/// Explains.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    if args.codes {
        return codes(&global);
    }
    let subject = args.subject.as_deref().unwrap_or_default();
    if let Some(code) = catalogue::explained(subject)
        && !Path::new(subject).exists()
    {
        return explain_code(&global, &code);
    }
    let data_dir = DataDir::of(&global)?;
    if let Some(digest) = digest(subject).filter(|_| !Path::new(subject).exists()) {
        return told(&global, &by_ledger(&args, &data_dir, digest).await?);
    }
    let explanation = match bytes(subject, &args, &data_dir).await? {
        Err(why) => unexplained(
            Some(subject.to_owned()),
            format!("this gateway keeps nothing of it: {why}"),
            "ask the gateway that answered, by --base-url; or explain a file that was exported in time",
            "what became of it",
        ),
        Ok(bytes) => {
            let request_id = verify::is_request_id(subject).then(|| subject.to_owned());
            match dossier::read(&bytes, &Known { request_id, ..Known::default() }) {
                Err(wrong) => explain_false(wrong.request_id, &wrong.why),
                Ok(shown) => {
                    let records = records(&args, &data_dir, &shown).await;
                    let explanation = of(&shown, &records);
                    if let Some(path) = &args.export {
                        let bytes = shown.export(&records)?;
                        std::fs::write(path, bytes).map_err(|source| io_failure("write", path, source))?;
                        output::note(format_args!("saved to {}", path.display()));
                    }
                    explanation
                }
            }
        }
    };
    told(&global, &explanation)
}

fn told(global: &Global, explanation: &Explanation) -> anyhow::Result<Outcome> {
    match global.json {
        true => output::json(explanation)?,
        false => print(explanation)?,
    }
    Ok(match explanation.accountable {
        Accountable::Nobody => Outcome::Done,
        _ => Outcome::Failed,
    })
}

/// The digest that is meant, of an order or a receipt.
fn digest(subject: &str) -> Option<Digest> {
    let digits = subject.strip_prefix("0x").unwrap_or(subject);
    let bytes = alloy_primitives::hex::decode(digits).ok()?;
    Some(Digest(bytes.try_into().ok()?))
}

/// Explains an order or a receipt by the ledger alone.
async fn by_ledger(args: &Args, data_dir: &DataDir, digest: Digest) -> anyhow::Result<Explanation> {
    if args.offline || args.export.is_some() {
        return Err(hinted(
            "of a digest alone only the ledger knows something",
            "leave --offline and --export away, or explain a file of the request",
        ));
    }
    let ledger = args.look.open(data_dir)?.ledger;
    let mut known = Vec::new();
    for trace in ledger.traces(&digest).await? {
        let record = ledger.answer_record(trace.receipt.as_ref(), &trace.order, &trace.worker).await?;
        known.push((trace.worker, OnLedger::from(&rechecked(&record))));
    }
    Ok(explain_digest(&digest, &known))
}

/// What is shown of the subject; or why the gateway has nothing.
async fn bytes(subject: &str, args: &Args, data_dir: &DataDir) -> anyhow::Result<Result<Vec<u8>, String>> {
    if !verify::is_request_id(subject) {
        let is_file = subject == "-" || Path::new(subject).exists();
        let is_word =
            !subject.is_empty() && subject.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !is_file && is_word {
            return Err(hinted(
                format!("`{subject}` is no request's id, no file and no error code"),
                "see the codes with: surety explain --codes",
            ));
        }
        return Ok(Ok(verify::read(subject, MAX_DOSSIER_BYTES)?));
    }
    if args.offline {
        return Err(hinted(
            format!("what is known of {subject} is at a gateway, and --offline reaches none"),
            "export it first (surety explain ID --export FILE), then explain the file",
        ));
    }
    Api::new(args.base_url.as_deref(), data_dir)?.explanation(subject).await
}

/// What the ledger knows of every order that is shown: asked now, or else as it was saved.
async fn records(args: &Args, data_dir: &DataDir, shown: &Shown) -> Vec<Saved> {
    let subjects = shown.subjects();
    let found = match args.offline || subjects.is_empty() {
        true => Found::default(),
        false => {
            let patience = Duration::from_millis(args.ledger_wait_ms);
            look_up_within(&args.look, data_dir, &subjects, patience).await
        }
    };
    if let Some(why) = &found.failure {
        output::note(format_args!("not all of the ledger is known: {why}"));
    }
    let saved = |order: &Digest, worker: &PublicKey| {
        shown.saved.iter().find(|saved| saved.order == *order && saved.worker == *worker).cloned()
    };
    let record = |subject: &crate::rechecking::Subject| {
        let (order, worker) = (subject.order, subject.worker);
        let known = found.of(&order, &worker).map(|record| Saved { order, worker, record: record.into() });
        known.or_else(|| saved(&order, &worker))
    };
    subjects.iter().filter_map(record).collect()
}

/// Explains what is shown with what is known of the ledger.
fn of(shown: &Shown, records: &[Saved]) -> Explanation {
    let record = |order: &Digest, worker: &PublicKey| -> Option<OnLedger> {
        let of_it = |saved: &&Saved| saved.order == *order && saved.worker == *worker;
        records.iter().find(of_it).map(|saved| saved.record.clone())
    };
    match (&shown.evidence, &shown.statement) {
        (Some(verified), statement) => {
            explain(&shown.request_id, verified.checked(), statement.as_ref(), |answer| {
                record(&answer.order.digest(), &answer.worker)
            })
        }
        (None, Some(statement)) => {
            explain_stated(statement, &shown.papers, |papers| record(&papers.order.digest(), &papers.worker))
        }
        (None, None) => {
            explain_false(Some(shown.request_id.clone()), "it holds neither a statement nor evidence")
        }
    }
}

/// Explains evidence with what the ledger knows of its orders.
pub fn explained(verified: &Verified, found: &Found) -> Explanation {
    let id = verified.report.request_id.as_deref().unwrap_or_default();
    explain(id, verified.checked(), None, |answer| {
        found.of(&answer.order.digest(), &answer.worker).map(OnLedger::from)
    })
}

/// What is printed of a code as JSON.
#[derive(Serialize)]
struct PrintedCode {
    code: &'static str,
    status: u16,
    accountable: &'static str,
    retry: String,
    means: &'static str,
    who: &'static str,
    what_to_do: &'static str,
}

impl From<&Explained> for PrintedCode {
    fn from(code: &Explained) -> PrintedCode {
        PrintedCode {
            code: code.code,
            status: code.status,
            accountable: code.accountable,
            retry: code.retry.words(),
            means: code.means,
            who: code.who,
            what_to_do: code.act,
        }
    }
}

fn explain_code(global: &Global, code: &Explained) -> anyhow::Result<Outcome> {
    if global.json {
        output::json(&PrintedCode::from(code))?;
        return Ok(Outcome::Done);
    }
    output::line(format_args!("{} (HTTP {})", out_style(Style::Bad, code.code), code.status))?;
    output::line(code.means)?;
    let row = |label: &str, value: &str| {
        output::line(format_args!("  {} {value}", out_style(Style::Dim, format_args!("{label:<11}"))))
    };
    row("answers", code.who)?;
    row("what to do", code.act)?;
    row("retry", &code.retry.words())?;
    output::note("what happened to one request: surety explain ID, with the id in its message");
    Ok(Outcome::Done)
}

fn codes(global: &Global) -> anyhow::Result<Outcome> {
    let all = catalogue::all();
    if global.json {
        output::json(&all.iter().map(PrintedCode::from).collect::<Vec<_>>())?;
        return Ok(Outcome::Done);
    }
    for code in &all {
        // Its first sentence says what it is.
        let first = code.means.split_inclusive(". ").next().unwrap_or(code.means).trim_end();
        output::line(format_args!("{:<24} {}  {first}", code.code, code.status))?;
    }
    output::note("more of one: surety explain CODE");
    Ok(Outcome::Done)
}

/// For people.
fn print(explanation: &Explanation) -> anyhow::Result<()> {
    let (style, name) = match explanation.accountable {
        Accountable::Nobody => (Style::Good, "NOBODY"),
        Accountable::Caller => (Style::Bad, "THE CALLER"),
        Accountable::Gateway => (Style::Bad, "THE GATEWAY"),
        Accountable::Worker => (Style::Bad, "THE WORKER"),
        Accountable::Unknown => (Style::Bad, "NOT KNOWN"),
    };
    output::line(format_args!(
        "{} {}",
        out_style(style, format_args!("{name}:")),
        printable(&explanation.verdict)
    ))?;
    let row = |label: &str, value: String| {
        output::line(format_args!("  {} {value}", out_style(Style::Dim, format_args!("{label:<9}"))))
    };
    if let Some(id) = &explanation.request_id {
        row("request", printable(id))?;
    }
    if let Some(worker) = explanation.worker {
        let operator = explanation.operator.as_ref().map(|operator| format!(", of operator {operator}"));
        row("by", format!("worker {worker}{}", operator.unwrap_or_default()))?;
    }
    if let Some(gateway) = explanation.gateway {
        row("gateway", gateway.to_string())?;
    }
    if let Some(code) = &explanation.code {
        row("error", format!("{} (what it means: surety explain {0})", printable(code)))?;
    }
    let basis = match explanation.basis {
        Basis::Ledger => "what the ledger says",
        Basis::Signatures => "what the parties signed",
        Basis::GatewaysWord => "the gateway's own signed word, which is no proof",
        Basis::Nothing => "nothing that holds",
    };
    row("rests on", basis.to_owned())?;
    if !explanation.events.is_empty() {
        let charge = U256::from(explanation.charge.0) * U256::from(WEI_PER_MICRO_CREDIT);
        row("charged", format!("{} credits", credits(charge)))?;
    }
    for (index, decision) in explanation.routing.iter().enumerate() {
        if index == 0 {
            output::line("who was considered:")?;
        }
        let removed = decision.removed.iter().map(|kept| format!("{} {}", kept.workers, kept.constraint));
        let removed: Vec<String> = removed.collect();
        let out = match removed.is_empty() {
            true => "nobody was ruled out".to_owned(),
            false => format!("ruled out: {}", removed.join(", ")),
        };
        let best: Vec<String> = decision.best.iter().map(PublicKey::short).collect();
        let best = match best.is_empty() {
            true => String::new(),
            false => format!(", best first {}", best.join(" ")),
        };
        output::line(format_args!("  - {} qualified{best}; {}", decision.qualified, printable(&out)))?;
    }
    if !explanation.events.is_empty() {
        output::line("what happened, in milliseconds by the clock of who says so:")?;
    }
    for event in &explanation.events {
        let who =
            event.worker.map_or("the gateway".to_owned(), |worker| format!("worker {}", worker.short()));
        output::line(format_args!("  {:>8}  {who:<15}  {}", event.after_ms, printable(&event.what)))?;
    }
    let on_ledger = |part: &Part| {
        let lines = part.ledger.iter().flat_map(|ledger| ledger.said.clone());
        lines.map(|line| format!("worker {}: {line}", part.worker.short())).collect::<Vec<_>>()
    };
    let lines: [(&str, Vec<String>); 3] = [
        ("on the ledger:", explanation.parts.iter().flat_map(on_ledger).collect()),
        ("not known:", explanation.not_known.clone()),
        ("what can be done:", explanation.next.clone()),
    ];
    for (title, lines) in lines.iter().filter(|(_, lines)| !lines.is_empty()) {
        output::line(title)?;
        lines.iter().try_for_each(|line| output::line(format_args!("  - {}", printable(line))))?;
    }
    if explanation.accountable == Accountable::Nobody {
        output::note(err_style(
            Style::Dim,
            "that the answer is true, useful or harmless, nobody can tell from this",
        ));
    }
    Ok(())
}
