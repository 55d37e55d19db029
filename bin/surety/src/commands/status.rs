//! `surety status`: how the network is doing.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use surety_client::ledger::{Ledger, powers::span, survey::Survey};

use super::Outcome;
use crate::{
    cli::Global,
    data_dir::DataDir,
    look::{LookArgs, age_ms, aligned, credits},
    output::{self, Style, out_style, printable},
};

/// Older than this, a newest block says that the chain stands still.
const STILL_AFTER_MS: u64 = 30_000;
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(5);
const GATEWAY_BYTES_MAX: usize = 4 << 20;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    look: LookArgs,
    /// The gateway to ask as well [default: that of the running `surety up`].
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
}

#[derive(Serialize)]
struct Status {
    proven: Proven,
    /// A node's word: what waits, whom it knows, its version.
    node: Option<Value>,
    /// The gateway's word.
    gateway: Option<Value>,
}

#[derive(Serialize)]
struct Proven {
    chain_id: u64,
    number: u64,
    hash: String,
    epoch: u64,
    epoch_blocks: u64,
    age_ms: u64,
    validators: Vec<ProvenValidator>,
    workers: Vec<ProvenWorkers>,
    models: Vec<String>,
    minimum_gas_price: u64,
}

#[derive(Serialize)]
struct ProvenValidator {
    key: String,
    operator: String,
    stake: String,
    proposed: u64,
    missed: u64,
    jailed: bool,
}

#[derive(Serialize)]
struct ProvenWorkers {
    operator: String,
    name: String,
    bonded: String,
    workers: Vec<String>,
    offers: Vec<ProvenOffer>,
}

/// Prices are micro-credits a million tokens.
#[derive(Serialize)]
struct ProvenOffer {
    model: String,
    prompt: String,
    cached: String,
    output: String,
}

/// Shows it.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let look = args.look.open(&DataDir::of(&global)?)?;
    let survey = look.ledger.survey().await?;
    let node = look.ledger.unverified("surety_status", json!([])).await.ok();
    let gateway = match args.base_url.or(look.base_url) {
        Some(base_url) => Some(gateway(&base_url).await.unwrap_or(Value::Null)),
        None => None,
    };
    let status = Status { proven: proven(&look.ledger, &survey), node, gateway };
    if global.json {
        output::json(&status)?;
    } else {
        for line in text(&status, &survey) {
            output::line(line)?;
        }
    }
    Ok(Outcome::Done)
}

async fn gateway(base_url: &str) -> anyhow::Result<Value> {
    let client = surety_client::https::client_builder().timeout(GATEWAY_TIMEOUT).build()?;
    let url = format!("{}/network/status", base_url.trim_end_matches('/'));
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        anyhow::ensure!(body.len() + chunk.len() <= GATEWAY_BYTES_MAX, "the gateway's answer is too long");
        body.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice(&body)?)
}

fn proven(ledger: &Ledger, survey: &Survey) -> Proven {
    let now_s = survey.tip.timestamp_ms / 1_000;
    let validators = survey.validators.iter().map(|validator| ProvenValidator {
        key: alloy_primitives::hex::encode(validator.key),
        operator: validator.operator.to_string(),
        stake: validator.stake.to_string(),
        proposed: validator.proposed,
        missed: validator.missed,
        jailed: validator.jailed_until > now_s,
    });
    let workers = survey.operators.iter().map(|operator| ProvenWorkers {
        operator: operator.account.to_string(),
        name: operator.name.clone(),
        bonded: operator.bonded.to_string(),
        workers: operator.workers.iter().map(|(_, endpoint)| endpoint.clone()).collect(),
        offers: operator
            .offers
            .iter()
            .map(|offer| ProvenOffer {
                model: offer.model.to_string(),
                prompt: offer.promptPrice.to_string(),
                cached: offer.cachedPrice.to_string(),
                output: offer.outputPrice.to_string(),
            })
            .collect(),
    });
    Proven {
        chain_id: ledger.chain_id(),
        number: survey.tip.number,
        hash: survey.tip.hash.to_string(),
        epoch: survey.tip.epoch,
        epoch_blocks: ledger.spec().epoch_blocks,
        age_ms: age_ms(&survey.tip),
        validators: validators.collect(),
        workers: workers.collect(),
        models: survey.models.iter().map(ToString::to_string).collect(),
        minimum_gas_price: survey.params.minimum_gas_price,
    }
}

fn short(text: &str) -> String {
    let text = text.trim_start_matches("0x");
    text.chars().take(8).collect()
}

fn text(status: &Status, survey: &Survey) -> Vec<String> {
    let proven = &status.proven;
    let heading = |text: &str| out_style(Style::Bold, text);
    let mut lines = vec![heading(&format!("Chain {}", proven.chain_id))];
    let into = proven.number % proven.epoch_blocks.max(1);
    lines.push(format!("  block     {}  {}", proven.number, proven.hash));
    lines.push(format!("  epoch     {}, block {into} of {}", proven.epoch, proven.epoch_blocks));
    let age = if proven.age_ms < 10_000 {
        format!("{:.1} seconds", proven.age_ms as f64 / 1_000.0)
    } else {
        span(proven.age_ms / 1_000)
    };
    let finality = format!("  finality  {age} ago");
    lines.push(match proven.age_ms > STILL_AFTER_MS {
        true => out_style(Style::Bad, format!("{finality}: the chain stands still, or the node is behind")),
        false => finality,
    });
    if let Some(node) = &status.node {
        let pool = &node["pool"];
        lines.push(format!(
            "  waiting   {} transactions ready, {} queued (the node's word)",
            pool["executable"], pool["queued"]
        ));
    }

    lines.extend([String::new(), heading("Validators in this epoch")]);
    let rows: Vec<Vec<String>> = proven
        .validators
        .iter()
        .zip(&survey.validators)
        .map(|(validator, surveyed)| {
            let duty = match (validator.jailed, validator.proposed, validator.missed) {
                (true, _, _) => "in jail",
                (_, 0, missed) if missed > 0 => "SILENT",
                (_, 0, _) => "no turn yet",
                _ => "voting",
            };
            vec![
                format!("  {}", short(&validator.key)),
                duty.to_owned(),
                format!("{} proposed, {} missed", validator.proposed, validator.missed),
                format!("{} credits", credits(surveyed.stake)),
            ]
        })
        .collect();
    lines.extend(aligned(&rows));

    lines.extend([String::new(), heading("Workers")]);
    if proven.workers.is_empty() {
        lines.push("  none is registered".into());
    }
    for (operator, surveyed) in proven.workers.iter().zip(&survey.operators) {
        lines.push(format!(
            "  {}  {} worker(s), {} credits bonded  {}",
            short(&operator.operator),
            operator.workers.len(),
            credits(surveyed.bonded),
            printable(&operator.name)
        ));
        let rows: Vec<Vec<String>> = operator
            .offers
            .iter()
            .map(|offer| {
                vec![
                    format!("    model {}", short(&offer.model)),
                    format!(
                        "{} / {} / {} micro-credits a million prompt / cached / output tokens",
                        offer.prompt, offer.cached, offer.output
                    ),
                ]
            })
            .collect();
        lines.extend(aligned(&rows));
    }

    if let Some(gateway) = &status.gateway {
        lines.extend([String::new(), heading("Gateway")]);
        match gateway["workers"].as_array() {
            None => lines.push(out_style(Style::Bad, "  it does not answer")),
            Some(workers) => {
                lines.push(format!(
                    "  {} request(s) now, {} worker(s) known (its word)",
                    gateway["active_requests"],
                    workers.len()
                ));
            }
        }
    }
    lines
}
