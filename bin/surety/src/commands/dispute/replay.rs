//! `surety dispute replay`: a dispute judged again from its bundle.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use surety_chain::{Replayed, ReplayedMove, Shown, replay};
use surety_types::{Bundle, Canonical as _};
use surety_worker::dispute::Verdict;

use crate::{
    commands::{Outcome, verify::read},
    data_dir::DataDir,
    look::LookArgs,
    output::{self, Style, hinted, out_style},
};

/// What came of it.
#[derive(Serialize)]
struct Report {
    /// Whether the moves give what the ledger is said to have recorded.
    holds: bool,
    chain_id: u64,
    id: u64,
    /// The bundle's, to compare with what others have.
    digest: String,
    moves: Vec<Step>,
    /// By the moves.
    state: Option<u8>,
    verdict: Option<&'static str>,
    convicted: Option<bool>,
    operator: Option<String>,
    receipt: Option<String>,
    /// Why it does not hold.
    failure: Option<String>,
    hint: Option<&'static str>,
}

#[derive(Serialize)]
struct Step {
    block: u64,
    timestamp_ms: u64,
    block_hash: String,
    sender: String,
    function: &'static str,
    shown: String,
}

pub(super) async fn run(
    global: &crate::cli::Global,
    data_dir: &DataDir,
    subject: &str,
    look: &LookArgs,
) -> anyhow::Result<Outcome> {
    let bundle = match subject.parse::<u64>() {
        Ok(id) if !Path::new(subject).exists() => look.open(data_dir)?.ledger.dispute_bundle(id).await?,
        _ => {
            let bytes = read(subject, Bundle::MAX_BYTES)?;
            Bundle::from_cbor(&bytes)
                .with_context(|| format!("{subject} is no bundle of a dispute"))
                .map_err(|error| {
                    hinted(format!("{error:#}"), "`surety dispute show ID --export FILE` writes one")
                })?
        }
    };
    let report = report(&bundle);
    if global.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if report.holds { Outcome::Done } else { Outcome::Failed })
}

fn report(bundle: &Bundle) -> Report {
    let mut report = Report {
        holds: false,
        chain_id: bundle.chain_id,
        id: bundle.id,
        digest: bundle.digest.to_string(),
        moves: Vec::new(),
        state: None,
        verdict: None,
        convicted: None,
        operator: None,
        receipt: None,
        failure: None,
        hint: None,
    };
    match replay(bundle) {
        Ok(Replayed { steps, dispute }) => {
            let verdict = Verdict { state: dispute.state };
            report.moves = steps
                .iter()
                .zip(&bundle.moves)
                .map(|(step, made)| shown(step, made.block.to_string()))
                .collect();
            report.holds = true;
            report.state = Some(dispute.state);
            report.verdict = Some(verdict.reason());
            report.convicted = Some(verdict.is_conviction());
            report.operator = Some(dispute.operator.to_string());
            report.receipt = Some(surety_types::Digest(dispute.receipt.0).to_string());
        }
        Err(error) => {
            report.hint = Some(error.hint());
            report.failure = Some(format!("{:#}", anyhow::Error::new(error)));
        }
    }
    report
}

fn shown(step: &ReplayedMove, block_hash: String) -> Step {
    let text = match &step.shown {
        Shown::Papers { words } => format!(
            "accuses: order, receipt, manifest and plan are signed and of each other; the answer's trace has {words} words"
        ),
        Shown::Division { nodes: 0, bytes } => {
            format!("the worker shows {bytes} bytes of its trace; they are of the part in dispute")
        }
        Shown::Division { nodes, .. } => {
            format!("the worker shows its trace in {nodes} parts; they make what it showed before")
        }
        Shown::Pick { chunks } => {
            format!("the challenger picks the first part that differs: {chunks} kilobytes are left")
        }
        Shown::Word { word, kind, lie: Some((claimed, computed)) } => format!(
            "word {word}, a {kind}: the worker's trace has {claimed:#010x}; from what it is computed from, which opens, follows \
             {computed:#010x}"
        ),
        Shown::Word { word, kind, lie: None } => {
            format!("word {word}, a {kind}: the worker's trace has what follows")
        }
        Shown::Time => "the other side had let its time pass".to_owned(),
        Shown::Proof => "shows it at once, by that rule of the ledger".to_owned(),
    };
    let ReplayedMove { number, timestamp_ms, sender, function, .. } = step;
    Step {
        block: *number,
        timestamp_ms: *timestamp_ms,
        block_hash,
        sender: sender.to_string(),
        function,
        shown: text,
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    for (index, step) in (1..).zip(&report.moves) {
        let Step { block, sender, function, shown, .. } = step;
        let head = out_style(Style::Bold, format_args!("{index}. {function}"));
        output::line(format_args!("{head}  block {block}, signed by {sender}"))?;
        output::line(format_args!("   {shown}"))?;
    }
    match (&report.verdict, &report.failure) {
        (Some(verdict), _) => {
            let head = format!("THE SAME: {verdict}");
            output::line(out_style(Style::Good, head))?;
            output::line(format_args!(
                "  dispute {} of chain {}, judged again from the bundle alone; it is what the bundle says that ledger recorded",
                report.id, report.chain_id
            ))?;
            output::line(format_args!("  bundle {}", report.digest))?;
            output::line("NOT shown by a bundle, only by the ledger:")?;
            output::line(
                "  - that the worker's key is that operator's, when the blocks were, which parameters held",
            )?;
        }
        (None, failure) => {
            output::line(out_style(Style::Bad, "NOT THE SAME"))?;
            output::line(format_args!("  {}", output::printable(failure.as_deref().unwrap_or_default())))?;
            if let Some(hint) = report.hint {
                output::note(format_args!("hint: {hint}"));
            }
        }
    }
    Ok(())
}
