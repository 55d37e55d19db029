//! `surety economics`: what there is, where it is, who paid whom, and what answers for it; with `--simulate`, whether
//! honesty pays.

mod simulation;

use alloy_primitives::Address;
use surety_client::ledger::economics::{BLOCKS_MAX, Economics, Flows, Parties, economics, flows};

use super::Outcome;
use crate::{
    cli::Global,
    conduct::{self, conducts},
    data_dir::DataDir,
    look::{LookArgs, aligned, credits},
    output::{self, Style, out_style, printable},
};

/// Parties that are listed.
const PARTIES_MAX: usize = 20;

/// Arguments of `economics`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    look: LookArgs,
    /// Look at no ledger: simulate what each way of cheating brings under the default parameters.
    #[arg(long, conflicts_with_all = ["genesis", "rpc_urls"])]
    simulate: bool,
    /// Jobs of each run of the simulation.
    #[arg(long, requires = "simulate", default_value_t = 100_000, value_name = "N")]
    jobs: u64,
    /// Seed of the simulation.
    #[arg(long, requires = "simulate", default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// Shows it.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    if args.simulate {
        return simulation::run(global.json, args.jobs, args.seed);
    }
    let look = args.look.open(&DataDir::of(&global)?)?;
    let survey = look.ledger.survey().await?;
    let flows = flows(&look.ledger, survey.tip.epoch).await.ok().flatten();
    let operators: Vec<Address> = survey.operators.iter().map(|operator| operator.account).collect();
    let done = conducts(&look.ledger, &operators).await;
    let page = economics(&look.ledger, &survey, flows, done).await?;
    if global.json {
        output::json(&page)?;
    } else {
        for line in text(&page) {
            output::line(line)?;
        }
    }
    Ok(Outcome::Done)
}

/// What flowed, by kind and party, the first ones of each.
fn flow_rows(flows: &Flows) -> Vec<String> {
    let nothing = Parties::default();
    let kinds = [
        ("deposited by", &flows.deposits),
        ("claimed by", &flows.claims),
        ("paid out to", &flows.settlements),
        ("refunded by", &flows.refunds),
        ("withdrawn by", &flows.withdrawals),
        ("given to hosting by", &flows.hosting_funded),
        ("paid for hosting to", &flows.hosting_paid),
        ("slashed from", &flows.slashes),
        ("compensated to", &flows.compensated),
        ("kept for auditors of", &flows.kept_for_auditors),
        ("paid for audits to", &flows.audits_paid),
        ("gas paid to", flows.fees.as_ref().unwrap_or(&nothing)),
    ];
    let mut rows = Vec::new();
    for (kind, parties) in kinds {
        for (party, sum) in parties.iter().take(PARTIES_MAX) {
            rows.push(vec![format!("  {kind}"), party.to_string(), credits(*sum)]);
        }
    }
    if rows.is_empty() {
        return vec!["  none".to_owned()];
    }
    aligned(&rows)
}

fn percent(ppm: u64) -> String {
    format!("{} %", ppm as f64 / 10_000.0)
}

fn text(page: &Economics) -> Vec<String> {
    let heading = |text: &str| out_style(Style::Bold, text);
    let amount = |text: &str| credits(text.parse().unwrap_or_default());
    let mut lines = vec![heading(&format!("Supply: {} credits", amount(&page.supply)))];
    lines.push(format!("  genesis named all of it; nothing can add to it. Proven at block {}:", page.number));
    let rows: Vec<Vec<String>> =
        page.held.iter().map(|held| vec![format!("  {}", held.place), amount(&held.amount)]).collect();
    lines.extend(aligned(&rows));

    let accounted = &page.accounted;
    lines.push(match accounted.excess.as_str() {
        "0" => format!(
            "  together the supply: {} listed place by place, {} remain with accounts that nobody lists",
            amount(&accounted.listed),
            amount(&accounted.remainder)
        ),
        excess => out_style(
            Style::Bad,
            format!("  {} more than the supply: the ledger or this software errs", amount(excess)),
        ),
    });
    lines.push(format!("  burned     {}", page.burned));
    lines.push(format!("  insurance  {}", page.insurance));

    lines.extend([String::new(), heading("What genesis gave (proven)")]);
    let mut rows = vec![["  account", "given", "has", "bonded", "why"].map(str::to_owned).to_vec()];
    rows.extend(page.genesis.iter().take(PARTIES_MAX).map(|given| {
        vec![
            format!("  {}", &given.account[..10.min(given.account.len())]),
            amount(&given.given),
            amount(&given.now),
            amount(&given.bonded),
            printable(&given.why),
        ]
    }));
    lines.extend(aligned(&rows));
    let more = page.genesis_count.saturating_sub(PARTIES_MAX as u64);
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }

    lines.push(String::new());
    match &page.flows {
        None => lines
            .push(format!("{}  none known: no epoch has ended, or the node keeps no logs", heading("Flows"))),
        Some(flows) => {
            lines.push(heading(&format!(
                "Flows in epoch {} (blocks {}–{}; a node's word)",
                flows.epoch, flows.first_block, flows.last_block
            )));
            lines.extend(flow_rows(flows));
            if flows.fees.is_none() {
                lines.push(format!("  gas: unknown, the epoch has more than {BLOCKS_MAX} blocks"));
            }
        }
    }
    if let Some(flows) = &page.flows_so_far {
        lines.push(String::new());
        lines.push(heading(&format!(
            "In epoch {} so far (blocks {}–{}; a node's word; gas is added up when it is over)",
            flows.epoch, flows.first_block, flows.last_block
        )));
        lines.extend(flow_rows(flows));
    }

    lines.extend([String::new(), heading("Parameters of money (proven)")]);
    let rows: Vec<Vec<String>> =
        page.parameters.iter().map(|set| vec![format!("  {}", set.name), set.value.clone()]).collect();
    lines.extend(aligned(&rows));

    lines.extend([String::new(), heading("Audits")]);
    let audits = &page.audits;
    lines.push(match audits.rate_ppm {
        Some(ppm) => format!("  of an established operator's receipts  {}", percent(ppm)),
        None => "  of an operator's receipts  none".into(),
    });
    lines.push(match audits.share_bps {
        Some(bps) => format!("  of the price, for auditors  {}", percent(bps.saturating_mul(100))),
        None => "  of the price, for auditors  nothing".into(),
    });
    lines.push(match audits.paid_ppm_of_spend {
        Some(ppm) => format!("  paid to auditors, of what was paid out in that epoch  {}", percent(ppm)),
        None => {
            "  paid to auditors  nothing was paid out in the last epoch, or its events are not known".into()
        }
    });
    let done = &audits.done;
    match done.operators.is_empty() {
        true => lines.push("  done  nothing: no operator has a record".into()),
        false => {
            lines.push("  done, by operator (proven; disputes: of the latest)".into());
            lines.extend(aligned(&conduct::rows(done)));
        }
    }
    for operator in &done.unknown {
        lines.push(format!("  {operator}  its record cannot be read now: unknown, not none"));
    }
    lines.push(format!("  disputes  {} in all, {} looked at", done.disputes, done.disputes_looked_at));
    let risk = &page.at_risk;
    lines.extend([String::new(), heading("Bond per credit at risk (proven)")]);
    lines.push(format!("  bonds of operators with workers  {}", amount(&risk.bonded)));
    lines.push(format!("  in channels                      {}", amount(&risk.in_channels)));
    lines.push(match risk.bond_per_credit_percent {
        Some(percent) => format!("  bond for each credit             {}.{:02}", percent / 100, percent % 100),
        None => "  nothing is in channels".into(),
    });
    lines.push(
        "  what a conviction takes, C, answers for what an operator has claimed, g, if p·C ≥ (1−p)·g:".into(),
    );
    let rows: Vec<Vec<String>> = risk
        .operators
        .iter()
        .take(PARTIES_MAX)
        .map(|operator| {
            let (bonded, claimed) = (amount(&operator.bonded), amount(&operator.claimed_unpaid));
            vec![
                format!("  {}", operator.operator),
                format!("bonded {bonded}"),
                format!("claimed, not paid {claimed}"),
                match operator.audit_ppm_needed {
                    Some(ppm) => format!("p must be at least {}", percent(ppm)),
                    None => "nothing bonded: it answers for nothing".into(),
                },
            ]
        })
        .collect();
    lines.extend(aligned(&rows));
    lines.push(format!("  not claimed yet, by operator: {}", risk.unclaimed_by_operator));
    lines
}
