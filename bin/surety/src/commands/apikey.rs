//! `surety apikey create|list|show|revoke|usage`: who may use this machine's gateway, and for how much.

use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::U256;
use anyhow::Context;
use serde_json::json;
use surety_gateway::{ControlError, KeyReport, KeyTerms, KeysOf, Micro, UsagePage, usage_csv};
use surety_types::WEI_PER_MICRO_CREDIT;

use super::Outcome;
use crate::{
    cli::Global,
    credits::{Credits, TokenPrice},
    data_dir::DataDir,
    output::{self, hinted},
    span::Span,
};

/// The commands on API keys.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key. It is shown this once; from then on the gateway asks everyone for a key.
    Create(CreateArgs),
    /// List the keys, and what each has used.
    List,
    /// Show a key.
    Show {
        /// Which.
        name: String,
    },
    /// Refuse a key from now on.
    Revoke {
        /// Which.
        name: String,
    },
    /// Show what a key was charged for.
    Usage {
        /// Which.
        name: String,
        /// As a table that sums to what was charged.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
}

/// What a new key may do.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// What to call it [default: the time].
    name: Option<String>,
    /// Credits that it may spend in all, beside those that are bought for it [default: any].
    #[arg(long, value_name = "CREDITS")]
    budget: Option<Credits>,
    /// Requests per minute, at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rpm: Option<u32>,
    /// Tokens per minute, at most, of prompts and answers.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tpm: Option<u32>,
    /// The models it may ask for [default: any].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    models: Vec<String>,
    /// Refuse it after this long: 90s, 10m, 2h, 30d.
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// The most it pays for a million tokens, in credits.
    #[arg(long, value_name = "PROMPT/CACHED/OUTPUT")]
    max_price: Option<TokenPrice>,
}

/// Runs one of them.
pub async fn run(global: Global, command: Command) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    let keys = KeysOf::open(&data_dir.gateway())?;
    match command {
        Command::Create(args) => {
            let (secret, report) = keys.create(terms(args)?).await?;
            if global.json {
                output::json(&json!({ "secret": secret, "key": report }))?;
            } else {
                output::line(&secret)?;
                output::note(format_args!(
                    "this is the key `{}`; it is shown this once. Give it to clients as their API key: {}",
                    report.terms.name,
                    bounds(&report),
                ));
            }
        }
        Command::List => {
            let list = keys.list().await?;
            if global.json {
                output::json(&json!({ "keys": list }))?;
            } else if list.is_empty() {
                output::note(
                    "there are no keys: the gateway asks nobody for one; `surety apikey create` makes one",
                );
            } else {
                for report in &list {
                    print(report)?;
                }
            }
        }
        Command::Show { name } => show(&global, &keys.show(&name).await?)?,
        Command::Revoke { name } => show(&global, &keys.revoke(&name).await?)?,
        Command::Usage { name, csv } => usage(&global, &keys, &name, csv).await?,
    }
    Ok(Outcome::Done)
}

fn terms(args: CreateArgs) -> anyhow::Result<KeyTerms> {
    let CreateArgs { name, budget, rpm, tpm, models, expires, max_price } = args;
    let now_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_millis() as u64;
    let budget = budget.map(|Credits(wei)| micro(wei)).transpose()?;
    Ok(KeyTerms {
        name: name.unwrap_or_else(|| format!("key-{now_ms}")),
        budget,
        rpm,
        tpm,
        models,
        expires_ms: expires.map(|Span(span)| now_ms.saturating_add(span.as_millis() as u64)),
        max_price: max_price.map(|TokenPrice(price)| price.into()),
    })
}

/// Wei as micro-credits, in which answers are charged.
fn micro(wei: U256) -> anyhow::Result<Micro> {
    let (micro, rest) = wei.div_rem(U256::from(WEI_PER_MICRO_CREDIT));
    match u128::try_from(micro) {
        Ok(micro) if rest.is_zero() => Ok(Micro(micro)),
        _ => Err(hinted("a budget is counted in micro-credits", "give at most six decimals")),
    }
}

fn show(global: &Global, report: &KeyReport) -> anyhow::Result<()> {
    if global.json {
        return output::json(report);
    }
    print(report)
}

fn print(report: &KeyReport) -> anyhow::Result<()> {
    let name = &report.terms.name;
    output::line(format_args!(
        "{name:<24} {:<8} used {} in {} answers, {} set aside; {}",
        report.state,
        credits(report.used),
        report.requests,
        credits(report.reserved),
        bounds(report),
    ))?;
    Ok(())
}

/// What bounds a key, in words.
fn bounds(report: &KeyReport) -> String {
    let terms = &report.terms;
    let mut bounds = Vec::new();
    if let (Some(budget), Some(left)) = (terms.budget, report.left) {
        let bought = match report.bought {
            Micro(0) => String::new(),
            bought => format!(" and {} bought", credits(bought)),
        };
        bounds.push(format!("budget {}{bought}, left {}", credits(budget), credits(left)));
    }
    bounds.extend(terms.rpm.map(|rpm| format!("{rpm} requests a minute")));
    bounds.extend(terms.tpm.map(|tpm| format!("{tpm} tokens a minute")));
    if !terms.models.is_empty() {
        bounds.push(format!("models {}", terms.models.join(", ")));
    }
    bounds.extend(terms.max_price.map(|price| {
        format!(
            "at most {}/{}/{} a million tokens",
            credits(price.prompt),
            credits(price.cached),
            credits(price.output)
        )
    }));
    bounds.extend(terms.expires_ms.map(|at| format!("until {}", surety_gateway::utc(at))));
    if bounds.is_empty() { "nothing bounds it".to_owned() } else { bounds.join("; ") }
}

fn credits(Micro(micro): Micro) -> String {
    surety_gateway::credits(micro)
}

async fn usage(global: &Global, keys: &KeysOf, name: &str, csv: bool) -> anyhow::Result<()> {
    let mut first = 0;
    loop {
        let page = keys.usage(name, first).await?;
        if csv {
            let table = usage_csv(&page, first == 0);
            // One head is enough.
            let rows = table.split_once("\r\n").map_or("", |(_, rows)| rows);
            output::piece(if first == 0 { &table } else { rows })?;
        } else if global.json {
            output::json(&page)?;
        } else {
            table(&page, first == 0)?;
        }
        match page.next {
            Some(next) => first = next,
            None => return Ok(()),
        }
    }
}

fn table(page: &UsagePage, first: bool) -> anyhow::Result<()> {
    if first && page.dropped.requests > 0 {
        let dropped = &page.dropped;
        output::line(format_args!(
            "{:<36} {} answers {}",
            "(earlier)",
            dropped.requests,
            credits(dropped.cost)
        ))?;
    }
    for row in &page.generations {
        output::line(format_args!(
            "{:<36} {:<20} {:<10} {:>8} + {:<8} tokens  {}",
            row.id,
            output::excerpt(&row.model, 20),
            row.status,
            row.prompt_tokens,
            row.output_tokens,
            credits(row.cost),
        ))?;
    }
    if page.next.is_none() {
        let total = &page.total;
        output::line(format_args!("{:<36} {} answers {}", "in all", total.requests, credits(total.cost)))?;
    }
    Ok(())
}

/// What can be done about an error of the keys.
pub fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    error.downcast_ref::<ControlError>().map(|error| error.hint().to_owned()).filter(|hint| !hint.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_whole_micro_credits() {
        let read = |text: &str| micro(text.parse::<Credits>().expect("credits").0).ok();
        assert_eq!(read("1.5"), Some(Micro(1_500_000)));
        assert_eq!(read("0.000001"), Some(Micro(1)));
        assert_eq!(read("0.0000001"), None);
    }
}
