//! `surety status`: how the network is doing, once or live.
//!
//! In:     the ledger and the gateway that a running `surety up` left word of, or those that are named.
//! Out:    the chain, validators, workers and prices, each with whose word it is.
//! Touches: stdout; with `--watch` at a terminal, its screen, which is put right again at the end.
//! Holds:  what the ledger says is proven; what a node or a gateway says is marked as its word.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use alloy_primitives::Address;
use serde::Serialize;
use serde_json::{Value, json};
use surety_client::ledger::{Ledger, powers::span, survey::Survey};
use tokio::time::{MissedTickBehavior, interval};

use super::Outcome;
use crate::{
    child::{ChildArgs, stop_requested},
    cli::Global,
    conduct::{self, Conducts, conducts},
    data_dir::DataDir,
    look::{LookArgs, age_ms, aligned, credits},
    output::{self, Style, out_style, printable},
};

/// Older than this, a newest block says that the chain stands still.
const STILL_AFTER_MS: u64 = 30_000;
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(5);
const GATEWAY_BYTES_MAX: usize = 4 << 20;
/// Between two looks at the gateway.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at the ledger, which moves slower and costs more to read.
const LEDGER_INTERVAL: Duration = Duration::from_secs(4);
/// Draws over what is there, without scrolling or wrapping; and the end of that.
const SCREEN_BEGIN: &str = "\u{1b}[?25l\u{1b}[?7l\u{1b}[2J";
const SCREEN_END: &str = "\u{1b}[?7h\u{1b}[?25h\n";

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    look: LookArgs,
    /// The gateway to ask as well [default: that of the running `surety up`].
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Go on showing it, once a second, until Ctrl-C. At a terminal it is drawn in place; elsewhere each look is printed
    /// after the last.
    #[arg(long)]
    watch: bool,
}

#[derive(Serialize)]
struct Status {
    /// None where there is a gateway without a ledger.
    proven: Option<Proven>,
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
    /// What was audited, missed, claimed and disputed, by operator.
    conduct: Conducts,
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
    let data_dir = DataDir::of(&global)?;
    let mut source = Source::open(&args, &data_dir)?;
    if !args.watch {
        let status = source.look().await?;
        show(&global, &status)?;
        return Ok(Outcome::Done);
    }
    let drawn = !global.json && io::stdout().is_terminal();
    let _screen = drawn.then(Screen::begin).transpose()?;
    let mut ticks = interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = stop_requested(ChildArgs { stop_with_parent: false });
    let mut stop = std::pin::pin!(stop);
    let mut first = true;
    loop {
        let looking = async {
            ticks.tick().await;
            source.look().await
        };
        let status = tokio::select! {
            status = looking => status,
            stop = &mut stop => return stop.map(|()| Outcome::Done),
        };
        // A network that is not there at first is a mistake; one that goes away is what is watched for.
        match status {
            Err(error) if first => return Err(error),
            Err(error) if drawn => draw(&[out_style(Style::Bad, format!("{error:#}"))])?,
            Err(error) => output::note(format_args!("{error:#}")),
            Ok(status) if drawn => draw(&text(&status))?,
            Ok(status) => {
                if !first && !global.json {
                    output::line("")?;
                }
                show(&global, &status)?;
            }
        }
        first = false;
    }
}

fn show(global: &Global, (status, survey): &(Status, Option<Survey>)) -> anyhow::Result<()> {
    if global.json {
        return output::json(status);
    }
    for line in text_of(status, survey.as_ref()) {
        output::line(line)?;
    }
    Ok(())
}

fn text((status, survey): &(Status, Option<Survey>)) -> Vec<String> {
    text_of(status, survey.as_ref())
}

/// A terminal's screen that is drawn on, until dropped.
struct Screen;

impl Screen {
    fn begin() -> io::Result<Self> {
        output::piece(SCREEN_BEGIN)?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = output::piece(SCREEN_END);
    }
}

/// Draws lines in place of those that are there: as many as there is room for.
fn draw(lines: &[String]) -> io::Result<()> {
    let rows =
        rustix::termios::tcgetwinsize(io::stdout()).map_or(usize::MAX, |size| usize::from(size.ws_row));
    let mut out = io::stdout().lock();
    write!(out, "\u{1b}[H")?;
    for (index, line) in lines.iter().take(rows.max(1)).enumerate() {
        let end = if index > 0 { "\n" } else { "" };
        write!(out, "{end}{line}\u{1b}[K")?;
    }
    write!(out, "\u{1b}[J")?;
    out.flush()
}

/// Where the status comes from.
struct Source {
    ledger: Option<Ledger>,
    base_url: Option<String>,
    /// The last survey, what operators did, and a node's word beside it.
    surveyed: Option<(Instant, Survey, Conducts, Option<Value>)>,
}

impl Source {
    fn open(args: &Args, data_dir: &DataDir) -> anyhow::Result<Self> {
        match args.look.open(data_dir) {
            Ok(look) => {
                let base_url = args.base_url.clone().or(look.base_url);
                Ok(Self { ledger: Some(look.ledger), base_url, surveyed: None })
            }
            // A network without a ledger has a gateway to look at.
            Err(error) => match args.base_url.clone().or_else(|| running_gateway(data_dir)) {
                Some(base_url) => Ok(Self { ledger: None, base_url: Some(base_url), surveyed: None }),
                None => Err(error),
            },
        }
    }

    async fn look(&mut self) -> anyhow::Result<(Status, Option<Survey>)> {
        let gateway = match &self.base_url {
            Some(base_url) => Some(gateway(base_url).await.unwrap_or(Value::Null)),
            None => None,
        };
        let Some(ledger) = &self.ledger else {
            return Ok((Status { proven: None, node: None, gateway }, None));
        };
        let surveyed = match self.surveyed.take().filter(|(at, ..)| at.elapsed() < LEDGER_INTERVAL) {
            Some(surveyed) => surveyed,
            None => {
                let survey = ledger.survey().await?;
                let operators: Vec<Address> =
                    survey.operators.iter().map(|operator| operator.account).collect();
                let conduct = conducts(ledger, &operators).await;
                (Instant::now(), survey, conduct, ledger.unverified("surety_status", json!([])).await.ok())
            }
        };
        let (_, survey, conduct, node) = self.surveyed.insert(surveyed);
        let proven = proven(ledger, survey, conduct.clone());
        let status = Status { proven: Some(proven), node: node.clone(), gateway };
        Ok((status, Some(survey.clone())))
    }
}

/// Where a running `up` said it serves.
fn running_gateway(data_dir: &DataDir) -> Option<String> {
    let word: Value = serde_json::from_slice(&std::fs::read(data_dir.running()).ok()?).ok()?;
    Some(word["base_url"].as_str()?.to_owned())
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

fn proven(ledger: &Ledger, survey: &Survey, conduct: Conducts) -> Proven {
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
        conduct,
    }
}

fn short(text: &str) -> String {
    let text = text.trim_start_matches("0x");
    text.chars().take(8).collect()
}

fn text_of(status: &Status, survey: Option<&Survey>) -> Vec<String> {
    let mut lines = match (&status.proven, survey) {
        (Some(proven), Some(survey)) => ledger_lines(proven, status.node.as_ref(), survey),
        _ => vec!["no ledger: nothing is bonded or paid here".to_owned()],
    };
    if let Some(gateway) = &status.gateway {
        lines.push(String::new());
        lines.extend(gateway_lines(gateway));
    }
    lines
}

fn heading(text: &str) -> String {
    out_style(Style::Bold, text)
}

fn ledger_lines(proven: &Proven, node: Option<&Value>, survey: &Survey) -> Vec<String> {
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
    if let Some(node) = node {
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

    if !proven.conduct.operators.is_empty() {
        lines.extend([String::new(), heading("Re-checked (proven)")]);
        let mut table = aligned(&conduct::rows(&proven.conduct)).into_iter();
        lines.extend(table.next().map(|titles| out_style(Style::Dim, titles)));
        lines.extend(table);
    }
    for operator in &proven.conduct.unknown {
        lines.push(format!("  {}  its record cannot be read now", short(operator)));
    }

    lines
}

/// What a gateway says of itself and of its workers, one line for each model of each.
fn gateway_lines(gateway: &Value) -> Vec<String> {
    let Some(workers) = gateway["workers"].as_array() else {
        return vec![heading("Gateway"), out_style(Style::Bad, "  it does not answer")];
    };
    let sum =
        |field: &str| workers.iter().filter_map(|worker| worker["measured"][field].as_u64()).sum::<u64>();
    let mut lines = vec![heading("Gateway (its word)")];
    lines.push(format!(
        "  {} request(s) now, {} answered, {} order(s) failed, {} worker(s)",
        gateway["active_requests"],
        sum("answers"),
        sum("failures"),
        workers.len()
    ));
    let claims = &gateway["ledger"]["claims"];
    if let Some(waiting) = claims["waiting"].as_u64() {
        let count = |name: &str| claims[name].as_u64().unwrap_or_default();
        let all = ["open", "compensated", "answered", "failed", "dropped"].map(count);
        if waiting + all.iter().sum::<u64>() > 0 {
            let [open, compensated, answered, failed, dropped] = all;
            lines.push(format!(
                "  accepted and not answered: {} wait or are claimed, {compensated} compensated, {} answered after all, {dropped} not \
                 claimed",
                waiting + open,
                answered + failed
            ));
        }
    }
    if let Some(problem) = gateway["ledger"]["problem"].as_str() {
        lines.push(out_style(Style::Bad, format!("  ledger: {}", printable(problem))));
    }
    let titles = [
        "  worker",
        "state",
        "now",
        "waiting",
        "answers",
        "failed",
        "tokens/s",
        "spent",
        "price",
        "in batches",
        "model",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for worker in workers {
        rows.extend(worker_rows(worker));
    }
    let mut table = aligned(&rows).into_iter();
    lines.extend(table.next().map(|titles| out_style(Style::Dim, titles)));
    for (row, line) in rows.iter().skip(1).zip(table) {
        lines.push(match row[1].as_str() {
            "ready" | "" => line,
            "unreachable" | "breaker open" => out_style(Style::Bad, line),
            _ => out_style(Style::Dim, line),
        });
    }
    lines.push("  tokens/s of one answer: as measured here, else ~ as the worker says; price: micro-credits a million".into());
    lines.push(
        "  prompt / cached / output tokens; in batches: what it asks of them while it is idle, by its word;"
            .into(),
    );
    lines.push("  spent: micro-credits of those in the channel".into());
    lines
}

/// The lines of one worker.
fn worker_rows(worker: &Value) -> Vec<Vec<String>> {
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let word = |value: &Value| value.as_str().map_or_else(|| "-".to_owned(), printable);
    let measured = &worker["measured"];
    let state = match measured["breaker"].as_str() {
        Some("open") if worker["state"] == "ready" => "breaker open".to_owned(),
        _ => word(&worker["state"]),
    };
    let channel = &worker["channel"];
    let spent = match channel.is_object() {
        true => format!("{} of {}", word(&channel["spent"]), word(&channel["balance"])),
        false => "-".to_owned(),
    };
    let none = Vec::new();
    let models = worker["models"].as_array().unwrap_or(&none);
    let mut rows = Vec::new();
    for (index, model) in models.iter().map(Some).chain(models.is_empty().then_some(None)).enumerate() {
        let first = |text: String| if index == 0 { text } else { String::new() };
        let model = model.unwrap_or(&Value::Null);
        let offers = worker["offers"].as_array().unwrap_or(&none);
        let told = |price: &Value| match price.is_object() {
            true => {
                format!(
                    "{} / {} / {}",
                    word(&price["prompt"]),
                    word(&price["cached"]),
                    word(&price["output"])
                )
            }
            false => "-".to_owned(),
        };
        let offer = offers.iter().find(|offer| offer["model"] == model["id"]).unwrap_or(&Value::Null);
        let shown =
            measured["models"].as_array().unwrap_or(&none).iter().find(|shown| shown["id"] == model["id"]);
        let speed = match (
            shown.and_then(|shown| shown["tokens_per_second"].as_f64()),
            model["decode_tokens_per_second"].as_u64(),
        ) {
            (Some(speed), _) => format!("{speed:.0}"),
            (None, Some(speed)) if speed > 0 => format!("~{speed}"),
            _ => "-".to_owned(),
        };
        rows.push(vec![
            format!("  {}", first(short(worker["id"].as_str().unwrap_or("-")))),
            first(state.clone()),
            first(number(&worker["active_requests"])),
            first(number(&worker["waiting_requests"])),
            first(number(&measured["answers"])),
            first(number(&measured["failures"])),
            speed,
            first(spent.clone()),
            told(offer),
            told(&model["batch_price"]),
            model["names"][0].as_str().map_or_else(|| "-".to_owned(), printable),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateways_word_is_shown_whole_or_in_part_and_obeys_no_stranger() {
        let gateway = json!({
            "active_requests": 2,
            "workers": [{
                "id": "0123456789abcdef", "state": "ready", "active_requests": 1, "waiting_requests": 3,
                "measured": {
                    "answers": 12, "failures": 1, "breaker": "closed",
                    "models": [{ "id": "blake3:aa", "tokens_per_second": 71.6 }],
                },
                "channel": { "spent": "162", "balance": "10000000" },
                "offers": [{ "model": "blake3:aa", "prompt": "100000", "cached": "10000", "output": "400000" }],
                "models": [
                    {
                        "id": "blake3:aa", "names": ["tiny\u{1b}[2J"], "decode_tokens_per_second": 80,
                        "batch_price": { "prompt": "50000", "cached": "5000", "output": "200000" },
                    },
                    { "id": "blake3:bb", "names": ["other"], "decode_tokens_per_second": 90 },
                ],
            }, {
                "id": "ffffffffffffffff", "state": "ready", "measured": { "breaker": "open" }, "models": [],
            }, {
                "id": "eeeeeeeeeeeeeeee", "state": "unreachable",
            }],
        });
        let lines = gateway_lines(&gateway);
        assert!(
            lines[1].contains("2 request(s) now, 12 answered, 1 order(s) failed, 3 worker(s)"),
            "{lines:?}"
        );
        let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(
            words(&lines[3]),
            "01234567 ready 1 3 12 1 72 162 of 10000000 100000 / 10000 / 400000 50000 / 5000 / 200000 tiny[2J"
        );
        assert_eq!(words(&lines[4]), "~90 - - other");
        assert!(lines[5].contains("ffffffff  breaker open"), "{}", lines[5]);
        assert!(lines[6].contains("eeeeeeee  unreachable"), "{}", lines[6]);
        assert!(gateway_lines(&Value::Null)[1].contains("does not answer"));
        assert!(gateway_lines(&json!({ "workers": [] }))[1].contains("0 worker(s)"));
        assert!(!gateway_lines(&json!({ "workers": [{}, 7, null] })).is_empty());
    }
}
