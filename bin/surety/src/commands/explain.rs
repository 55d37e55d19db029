//! `surety explain ID|FILE`: what became of a request, who answers for what went wrong, and what can be done.
//!
//! In:     a request's id, or a file of its evidence.
//! Out:    a verdict that names one party, nobody, or says that it is not known; what led to it.
//! Touches: the gateway, for its evidence; the ledger, unless it is told not to.
//! Holds:  what is shown was checked first; a ledger that cannot be asked leaves the verdict to the evidence, and that is said.
//! Absent: the verdict itself (`explanation`).

use alloy_primitives::U256;
use surety_types::channel::WEI_PER_MICRO_CREDIT;

use super::{Outcome, verify};
use crate::{
    cli::Global,
    data_dir::DataDir,
    explanation::{Accountable, Explanation, Part, explain, explain_false},
    look::{LookArgs, credits},
    output::{self, Style, err_style, out_style, printable},
    rechecking::{Found, look_up},
    verification::{self, Known, Verified},
};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 1 if somebody is accountable, or it is not known who.\n\nExamples:\n  surety explain req_1\n  \
                  surety explain answer.json --offline --json"
)]
pub struct Args {
    /// A request's id (req_…, chatcmpl-… or cmpl-…), whose evidence is asked of the gateway; or a file of evidence, or - for
    /// standard input.
    #[arg(value_name = "ID|FILE")]
    subject: String,
    /// Do not ask the ledger.
    #[arg(long, conflicts_with_all = ["genesis", "rpc_urls"])]
    offline: bool,
    /// The gateway to ask [default: the one `surety up` runs].
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    #[command(flatten)]
    look: LookArgs,
}

/// Explains.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    let bytes = verify::evidence_of(&args.subject, args.base_url.as_deref(), &data_dir).await?;
    let known = Known {
        request_id: verify::is_request_id(&args.subject).then(|| args.subject.clone()),
        ..Known::default()
    };
    let explanation = match verification::verify(&bytes, &known) {
        Err(report) => explain_false(report.request_id.clone(), &report.failure.unwrap_or_default()),
        Ok(verified) => {
            let found = match args.offline {
                true => Found::default(),
                false => look_up(&args.look, &data_dir, &verified.subjects()).await,
            };
            if let Some(why) = &found.failure {
                output::note(format_args!("not all of the ledger is known: {why}"));
            }
            explained(&verified, &found)
        }
    };
    match global.json {
        true => output::json(&explanation)?,
        false => print(&explanation)?,
    }
    Ok(match explanation.accountable {
        Accountable::Nobody => Outcome::Done,
        _ => Outcome::Failed,
    })
}

/// Explains evidence with what the ledger knows of its orders.
pub fn explained(verified: &Verified, found: &Found) -> Explanation {
    let id = verified.report.request_id.as_deref().unwrap_or_default();
    explain(id, verified.checked(), |answer| found.of(&answer.order.digest(), &answer.worker).cloned())
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
    if !explanation.parts.is_empty() {
        let charge = U256::from(explanation.charge.0) * U256::from(WEI_PER_MICRO_CREDIT);
        row("charged", format!("{} credits", credits(charge)))?;
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
