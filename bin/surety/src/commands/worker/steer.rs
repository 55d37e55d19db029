//! `surety worker drain|pause|resume|status|earnings`: speaks to the worker that runs on this machine.

use std::time::Duration;

use alloy_primitives::U256;
use serde_json::Value;
use surety_types::Price;
use surety_worker::{
    WorkerLedger,
    money::{self, Claims, EarningsError, HostingSettings},
};

use super::{
    Outcome,
    control::{Line, Request, folder, told_earnings},
};
use crate::{
    cli::Global,
    data_dir::DataDir,
    ledger::LedgerArgs,
    look::{aligned, credits},
    output::{self, hinted},
    span::Span,
};

/// Which worker.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// The name of the worker's key [default: that of the only worker that runs on this data directory].
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
}

/// Arguments of `worker drain`.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    #[command(flatten)]
    which: Which,
    /// How long the orders it has may take to finish; the rest is signed off, and gateways continue it elsewhere.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    grace: Span,
    /// Leave the ledger for good: the offers are withdrawn and the worker's key never serves again.
    #[arg(long)]
    retire: bool,
}

/// Arguments of `worker pause`.
#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    #[command(flatten)]
    which: Which,
    /// Take orders again after this long (90s, 10m, 2h, 1d) [default: when told to].
    #[arg(long, value_name = "SPAN")]
    resume_after: Option<Span>,
}

/// Arguments of `worker earnings`.
#[derive(Debug, clap::Args)]
pub struct EarningsArgs {
    #[command(flatten)]
    which: Which,
    /// The account and ledger, where no worker runs that could be asked.
    #[command(flatten)]
    ledger: LedgerArgs,
}

async fn line(data_dir: &DataDir, which: &Which) -> anyhow::Result<Line> {
    Line::open(data_dir, which.key.as_deref()).await?.ok_or_else(|| {
        hinted(
            format!("no worker runs on {}", data_dir.path().display()),
            "start one with `surety worker run` or `surety worker join`, or name its data directory with --data-dir",
        )
    })
}

/// Drains it.
pub async fn drain(global: Global, args: DrainArgs) -> anyhow::Result<Outcome> {
    let mut line = line(&DataDir::of(&global)?, &args.which).await?;
    let grace = args.grace.0;
    line.ask(&Request::Drain { grace_s: grace.as_secs(), retire: args.retire }).await?;
    if !global.json {
        output::note(format_args!("it takes no more orders; those it has may take {} s", grace.as_secs()));
    }
    let told = line.drained(grace).await?;
    if global.json {
        output::json(&told)?;
    } else {
        output::line("drained; the worker has ended")?;
    }
    Ok(Outcome::Done)
}

/// Pauses it.
pub async fn pause(global: Global, args: PauseArgs) -> anyhow::Result<Outcome> {
    let mut line = line(&DataDir::of(&global)?, &args.which).await?;
    let resume_after_s = args.resume_after.map(|span| span.0.as_secs());
    let told = line.ask(&Request::Pause { resume_after_s }).await?;
    show_status(&global, &told)
}

/// Has it take orders again.
pub async fn resume(global: Global, which: Which) -> anyhow::Result<Outcome> {
    let mut line = line(&DataDir::of(&global)?, &which).await?;
    let told = line.ask(&Request::Resume).await?;
    show_status(&global, &told)
}

/// Shows how it is.
pub async fn status(global: Global, which: Which) -> anyhow::Result<Outcome> {
    let mut line = line(&DataDir::of(&global)?, &which).await?;
    let told = line.ask(&Request::Status).await?;
    show_status(&global, &told)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("unknown")
}

fn show_status(global: &Global, told: &Value) -> anyhow::Result<Outcome> {
    if global.json {
        output::json(told)?;
        return Ok(Outcome::Done);
    }
    output::line(format_args!("worker   {}", text(told, "address")))?;
    let until = told["paused_until_ms"].as_u64().map(|until| {
        let left = Duration::from_millis(until.saturating_sub(super::pause::now_ms()));
        format!(", for {} s more", left.as_secs())
    });
    output::line(format_args!("state    {}{}", text(told, "state"), until.unwrap_or_default()))?;
    output::line(format_args!(
        "orders   {} under way, {} waiting",
        told["active_requests"], told["waiting_requests"]
    ))?;
    if let Some(connected) = told["relay_connected"].as_bool() {
        let how =
            if connected { "connected" } else { "NOT connected: nobody reaches this worker at the moment" };
        output::line(format_args!("relay    {how}"))?;
    }
    if let Some(found) = told["reached"]["found"].as_str() {
        let mark = if told["reached"]["usable"] == true { "" } else { "NOT " };
        output::line(format_args!("reached  {mark}{}", output::printable(found)))?;
    }
    if let Some(fix) = told["reached"]["fix"].as_str() {
        output::line(format_args!("         {}", output::printable(fix)))?;
    }
    if let Some(problem) = told["ledger"]["problem"].as_str() {
        output::line(format_args!("ledger   {}", output::printable(problem)))?;
    } else if let Some(doing) = told["ledger"]["doing"].as_str() {
        output::line(format_args!("ledger   {}", output::printable(doing)))?;
    }
    for model in told["models"].as_array().into_iter().flatten() {
        let names: Vec<&str> =
            model["names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        output::line(format_args!(
            "serves   {}, {} tokens of context, about {} tokens/s for one answer",
            output::printable(&names.join(", ")),
            model["context_tokens"],
            model["decode_tokens_per_second"]
        ))?;
    }
    for hosted in told["hosting"].as_array().into_iter().flatten() {
        output::line(output::printable(&hosted_line(hosted)))?;
    }
    Ok(Outcome::Done)
}

fn short(model: &str) -> String {
    model.strip_prefix("blake3:").unwrap_or(model).chars().take(12).collect()
}

/// How it stands with a model's hosting, as a line.
fn hosted_line(hosted: &Value) -> String {
    let keeps = if hosted["pinned"] == true { "hosts   " } else { "hosting " };
    let record = match (hosted["proven"].as_u64(), hosted["missed"].as_u64()) {
        (Some(0) | None, Some(0) | None) => String::new(),
        (proven, missed) => {
            format!(", {} epochs proven, {} missed", proven.unwrap_or(0), missed.unwrap_or(0))
        }
    };
    let deal = match hosted["wanted"].as_u64() {
        Some(0) | None => String::new(),
        Some(wanted) => format!(
            "; {} of {wanted} wanted pins, a proof is paid {} credits and costs {}",
            hosted["pins"],
            wei(&hosted["part_wei"]),
            wei(&hosted["cost_wei"])
        ),
    };
    let problem = hosted["problem"].as_str().map(|problem| format!("; PROBLEM: {problem}"));
    format!(
        "{keeps} {}: {}{record}{deal}{}",
        short(text(hosted, "model")),
        text(hosted, "doing"),
        problem.unwrap_or_default()
    )
}

/// Shows what it earned.
pub async fn earnings(global: Global, args: EarningsArgs) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    let told = match Line::open(&data_dir, args.which.key.as_deref()).await? {
        Some(mut line) => line.ask(&Request::Earnings).await?,
        None => {
            let Some((name, account)) = args.ledger.open(&data_dir)? else {
                return Err(hinted(
                    "no worker runs here that could be asked",
                    "start it, or name --genesis FILE, --rpc-url URL and --account NAME to look without it",
                ));
            };
            let ledger = WorkerLedger {
                account,
                bond: U256::ZERO,
                price: Price::ZERO,
                batch_price: Price::ZERO,
                folder: folder(&data_dir).join(&name),
                name,
                endpoint: None,
                claims: Claims::default(),
                hosting: HostingSettings::default(),
            };
            let found = money::earnings(&ledger).await.map_err(|error: EarningsError| {
                let hint = error.hint();
                hinted(format!("{:#}", anyhow::Error::new(error)), hint)
            })?;
            told_earnings(&found, &*ledger.account).await
        }
    };
    if global.json {
        output::json(&told)?;
    } else {
        for line in table(&told) {
            output::line(output::printable(&line))?;
        }
    }
    Ok(Outcome::Done)
}

fn wei(value: &Value) -> String {
    match value.as_str().and_then(|text| text.parse::<U256>().ok()) {
        Some(wei) => credits(wei),
        None => "unknown".into(),
    }
}

/// What was earned, as lines.
fn table(told: &Value) -> Vec<String> {
    let mut rows =
        vec![["day", "model", "orders", "prompt", "output", "credits"].map(str::to_owned).to_vec()];
    for row in told["days"].as_array().into_iter().flatten() {
        let model = short(text(row, "model"));
        rows.push(vec![
            text(row, "day").to_owned(),
            model,
            row["orders"].to_string(),
            row["prompt_tokens"].to_string(),
            row["output_tokens"].to_string(),
            wei(&row["charged_wei"]),
        ]);
    }
    let mut lines = if rows.len() == 1 { vec!["nothing was charged yet".to_owned()] } else { aligned(&rows) };
    let proofs: Vec<&Value> = told["hosting"]["days"].as_array().into_iter().flatten().collect();
    if !proofs.is_empty() {
        lines.push(String::new());
        let mut rows = vec![["day", "hosted", "proofs", "credits", "gas"].map(str::to_owned).to_vec()];
        rows.extend(proofs.iter().map(|row| {
            let day = text(row, "day").to_owned();
            let model = short(text(row, "model"));
            vec![day, model, row["proofs"].to_string(), wei(&row["paid_wei"]), wei(&row["gas_wei"])]
        }));
        lines.extend(aligned(&rows));
        for pin in told["hosting"]["pins"].as_array().into_iter().flatten() {
            let left = if pin["pinned"] == true { "" } else { "; not pinned any more" };
            lines.push(format!(
                "{}: {} epochs proven and {} missed on the ledger{left}",
                short(text(pin, "model")),
                pin["proven"],
                pin["missed"]
            ));
        }
    }
    lines.push(String::new());
    lines.extend(aligned(&[
        vec!["charged".into(), wei(&told["charged_wei"]), "credits, in receipts".into()],
        vec!["claimed".into(), wei(&told["claimed_wei"]), "of that, settled on the ledger".into()],
        vec!["unclaimed".into(), wei(&told["unclaimed_wei"]), format!("on {} channels", told["channels"])],
        vec!["balance".into(), wei(&told["balance_wei"]), format!("of {}", text(told, "account"))],
        vec!["bonded".into(), wei(&told["bonded_wei"])],
    ]));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn earnings_read_well() {
        let told = json!({
            "account": "0xabc", "charged_wei": "1500000000000000000", "claimed_wei": "1000000000000000000",
            "unclaimed_wei": "500000000000000000", "channels": 2, "balance_wei": null, "bonded_wei": "1",
            "days": [{
                "day": "2030-01-02", "model": format!("blake3:{}", "ab".repeat(32)), "orders": 3,
                "prompt_tokens": 10, "output_tokens": 20, "charged_wei": "1500000000000000000",
            }],
        });
        let lines = table(&told).join("\n");
        assert!(lines.contains("2030-01-02  abababababab  3       10      20      1.5"), "{lines}");
        assert!(lines.contains("claimed    1    "), "{lines}");
        assert!(lines.contains("balance    unknown"), "{lines}");
        let hosting = json!({
            "days": [{
                "day": "2030-01-02", "model": format!("blake3:{}", "cd".repeat(32)), "proofs": 7,
                "paid_wei": "30000000000000000", "gas_wei": "3500000000000000",
            }],
            "pins": [{ "model": format!("blake3:{}", "cd".repeat(32)), "pinned": true, "proven": 7, "missed": 2 }],
        });
        let lines = table(&json!({ "days": [], "hosting": hosting })).join("\n");
        assert!(lines.contains("2030-01-02  cdcdcdcdcdcd  7       0.03     0.0035"), "{lines}");
        assert!(lines.contains("cdcdcdcdcdcd: 7 epochs proven and 2 missed on the ledger\n"), "{lines}");
        let line = hosted_line(&json!({
            "model": "blake3:ef", "pinned": true, "proven": 7, "missed": 2, "doing": "proven in epoch 9", "pins": 1,
            "wanted": 3, "part_wei": "30000000000000000", "cost_wei": "500000000000000", "problem": null,
        }));
        let expected = "hosts    ef: proven in epoch 9, 7 epochs proven, 2 missed; 1 of 3 wanted pins, a proof is paid \
                        0.03 credits and costs 0.0005";
        assert_eq!(line, expected);
        let nothing = json!({ "days": [] });
        assert!(table(&nothing)[0].contains("nothing"));
    }
}
