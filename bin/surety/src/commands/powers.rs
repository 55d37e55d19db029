//! `surety powers`: who controls what, from live, proven state.

use surety_client::ledger::powers::{Powers, Risk, powers, span};

use super::Outcome;
use crate::{
    cli::Global,
    data_dir::DataDir,
    look::{LookArgs, aligned},
    output::{self, Style, out_style, printable},
};

/// Arguments of `powers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    look: LookArgs,
}

/// Shows the page.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let look = args.look.open(&DataDir::of(&global)?)?;
    let page = powers(&look.ledger.survey().await?);
    if global.json {
        output::json(&page)?;
    } else {
        for line in text(&page) {
            output::line(line)?;
        }
    }
    Ok(Outcome::Done)
}

fn text(page: &Powers) -> Vec<String> {
    let mut lines = Vec::new();
    let heading = |text: &str| out_style(Style::Bold, text);
    let stage = format!("Stage {}", page.stage);
    let style = if page.stage == 0 { Style::Bad } else { Style::Bold };
    lines.push(format!(
        "{} at block {}; it says how few control it, not how well it is made",
        out_style(style, stage),
        page.number
    ));
    lines.extend(page.alarms.iter().map(|alarm| out_style(Style::Bad, format!("  ! {}", printable(alarm)))));
    if !page.missing.is_empty() {
        lines.push(format!("  for stage {}:", page.stage + 1));
        lines.extend(page.missing.iter().map(|need| format!("  - {need}")));
    }

    lines.extend([String::new(), heading("Risks")]);
    let rows: Vec<Vec<String>> = page
        .slices
        .iter()
        .map(|slice| {
            let risk = match slice.risk {
                Risk::Low => "low",
                Risk::Medium => "medium",
                Risk::High => "HIGH",
            };
            vec![format!("  {}", slice.name), risk.to_owned(), slice.why.clone()]
        })
        .collect();
    for (line, slice) in aligned(&rows).into_iter().zip(&page.slices) {
        lines.push(match slice.risk {
            Risk::High => out_style(Style::Bad, line),
            Risk::Low => out_style(Style::Good, line),
            Risk::Medium => line,
        });
    }

    lines.extend([String::new(), heading("How few it takes")]);
    let rows: Vec<Vec<String>> = page
        .coefficients
        .iter()
        .map(|coefficient| {
            let count = match (coefficient.value, coefficient.of) {
                (Some(value), Some(of)) => format!("{value} of {of}"),
                (Some(value), None) => value.to_string(),
                (None, _) => "unknown".to_owned(),
            };
            let how = coefficient.how.strip_prefix("unknown: ").unwrap_or(&coefficient.how);
            vec![format!("  {}", coefficient.name), count, printable(how)]
        })
        .collect();
    for (line, coefficient) in aligned(&rows).into_iter().zip(&page.coefficients) {
        let least = coefficient.value.is_some() && coefficient.value == page.minimum;
        lines.push(if least { out_style(Style::Bold, line) } else { line });
    }
    if let Some(minimum) = page.minimum {
        lines.push(heading(&format!("  the least of what is known: {minimum}")));
    }

    lines.extend([String::new(), heading("Who can")]);
    for row in &page.powers {
        lines.push(format!("  {}", out_style(Style::Bold, row.what)));
        lines.push(format!("    who    {}", row.who));
        if !row.nobody {
            lines.push(format!("    delay  {}", row.delay));
            lines.push(format!("    veto   {}", row.veto));
        }
        lines.push(format!("    last   {}", printable(&row.last_used)));
    }

    lines.push(String::new());
    match &page.upgrade {
        None => lines.push(format!("{}  none", heading("Upgrade in flight"))),
        Some(upgrade) => {
            lines.push(heading("Upgrade in flight"));
            let version = printable(&upgrade.version);
            let (height, left) = (upgrade.height, upgrade.blocks_left);
            let about = span(upgrade.about_s);
            lines.push(format!("  version   {version} from block {height}, in {left} blocks, about {about}"));
            lines.push(format!("  source    {}", upgrade.source_revision));
            let hashes = upgrade.binary_hashes.iter().map(|hash| format!("  binary    {hash}"));
            lines.extend(hashes);
            lines.push(format!("  readiness {}", upgrade.readiness));
        }
    }
    lines.push(format!("{}  {}", heading("Emergency"), page.emergency.who));
    lines.push(String::new());
    lines.push(format!(
        "{} functions of the modules are not for everyone; `--json` names each and whose it is.",
        page.functions.len()
    ));
    lines
}
