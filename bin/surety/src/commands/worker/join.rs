//! `surety worker join`: from a bare machine to a worker that earns.
//!
//! In:     the machine, the ledger, the models on disk.
//! Out:    what was found, what is chosen and why, what it may earn under which assumptions; then a worker that serves.
//! Touches: the keystore, for keys that are missing; what `worker run` touches.
//! Holds:  nothing is registered or bonded before it was shown, and agreed to or `--yes` said; everything is looked up
//!         before it is done, so that a second join, or one after a crash, repeats nothing.
//! Absent: a promise. Earnings are reckoned from figures that are printed beside them.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use alloy_primitives::U256;
use serde::Serialize;
use serde_json::json;
use surety_client::{
    Account,
    channel::view,
    ledger::{Ledger, survey::Survey},
};
use surety_types::{
    ModelId, Price,
    abi::{IStaking, Module},
};
use surety_worker::machine;
use tokio::time::timeout;

use super::{
    LOOK_TIMEOUT, Outcome, ServeArgs,
    reach::{self, Reached, Standing, standing},
    serve_until_stopped, speaks_from,
};
use crate::{
    bundled,
    cli::Global,
    commands::{
        bench::{self, Quick},
        doctor::{self, Finding, Grade},
        model,
    },
    data_dir::DataDir,
    keystore::{KeyKind, Keystore},
    ledger::LedgerArgs,
    look::credits,
    models::{Found, ModelArg, Models, bundled_model},
    output::{self, Style, hinted, out_style, size},
};

/// The account of a worker whose operator named none.
const ACCOUNT: &str = "operator";
/// The benchmark's limit; loading comes on top, a second a gigabyte or two.
const BENCHMARK: Duration = Duration::from_secs(40);
/// Models served at once, unless they are named.
const MODELS_MAX: usize = 4;
/// Models that are wanted and not here, shown.
const MISSING_SHOWN: usize = 5;
/// Wei for gas beside the bond.
const GAS: u64 = 100_000_000_000_000_000;

/// An order as it is assumed when earnings are reckoned.
const PROMPT_TOKENS: f64 = 500.0;
const OUTPUT_TOKENS: f64 = 200.0;
/// The share of the day in which orders come, as it is assumed.
const BUSY: f64 = 0.1;

/// Arguments of `worker join`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub serve: ServeArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Ask nothing.
    #[arg(long)]
    yes: bool,
    /// Look, measure, choose and reckon; register nothing.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

/// A model that could be served.
#[derive(Debug, Serialize)]
struct Candidate {
    name: String,
    #[serde(skip)]
    arg: ModelArg,
    bytes: u64,
    id: Option<String>,
    /// Operators that offer it, besides this one.
    holders: usize,
    /// Why it is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    not: Option<&'static str>,
}

/// What a day may bring, in credits, and what was assumed.
#[derive(Debug, Serialize)]
struct Expected {
    credits_per_day: f64,
    credits_per_day_if_always_busy: f64,
    assumptions: String,
}

/// Looks, chooses, asks, and serves.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let Args { mut serve, mut ledger, yes, dry_run } = args;
    let data_dir = DataDir::of(&global)?;
    if !ledger.is_some() {
        return Err(hinted(
            "it is not known which network to join",
            "name its genesis with --genesis FILE and a validator with --rpc-url URL; whoever runs the network has both",
        ));
    }
    let made = make_keys(&data_dir, &serve, ledger.account_or(ACCOUNT))?;
    let place = ledger.open_with_ledger(&data_dir)?.expect("a genesis and an account are named");
    let (account, look) = (place.account, place.ledger);
    let from = speaks_from(&ledger);
    let survey = survey(&look).await?;
    let workers = survey.operators.iter().flat_map(|operator| &operator.workers);
    let relays = reach::known_relays(workers.map(|(_, endpoint)| endpoint.as_str()));
    let reached = reach::decide(&serve.reach, from, &relays)?;

    let mut findings = doctor::machine_findings(&data_dir);
    findings.push(network(from, &reached));
    findings.push(node(&look).await);
    let purse = Purse::look(&*account, &serve).await?;
    findings.push(purse.finding());
    let here = here(&data_dir)?;
    let mut candidates = candidates(here, &survey, &*account, &data_dir);
    if serve.models.is_empty() {
        choose(&mut candidates);
        serve.models =
            candidates.iter().filter(|model| model.not.is_none()).map(|model| model.arg.clone()).collect();
    } else {
        candidates.clear();
    }
    let unusable = findings.iter().any(|finding| finding.grade == Grade::Bad);
    if !global.json {
        doctor::show(&findings)?;
        show_models(&candidates, &missing(&survey, &candidates))?;
    }
    if unusable || serve.models.is_empty() {
        return Err(hinted(
            "this machine cannot serve as it is",
            if unusable {
                "see the lines marked BAD above"
            } else {
                "no model fits: free memory, or add a smaller one with `surety model add`"
            },
        ));
    }
    let quick = measure(&data_dir, &serve).await?;
    let expected = expected(&quick, &serve.price.0);
    if !global.json {
        show_speed(&quick, &expected)?;
        for line in &made {
            output::line(format_args!("made     {line}"))?;
        }
        output::line(format_args!("account  {} ({})", account.address(), purse.text()))?;
        output::line(format_args!(
            "reached  {} ({})",
            reached
                .relays
                .first()
                .map_or_else(|| format!("directly, at {}", reached.listen.ip()), |relay| relay.to_string()),
            reached.why
        ))?;
    }
    if dry_run {
        if global.json {
            output::json(&json!({
                "findings": findings,
                "models": candidates,
                "benchmark": quick,
                "expected": expected,
                "account": account.address().to_string(),
                "missing_wei": purse.missing().to_string(),
                "relay": reached.relays.first().map(|relay| relay.to_string()),
            }))?;
        } else {
            output::note("nothing was registered; leave --dry-run away to join");
        }
        return Ok(Outcome::Done);
    }
    if !purse.missing().is_zero() {
        output::note(format_args!(
            "send {} credits to {}: the worker bonds and registers by itself when they are there",
            credits(purse.missing()),
            account.address()
        ));
    }
    if !yes && !agreed(&purse)? {
        output::note("nothing was registered");
        return Ok(Outcome::Done);
    }
    drop((account, look));
    serve_until_stopped(global, &data_dir, serve, ledger, reached).await
}

/// Makes the keys that are missing; says which.
fn make_keys(data_dir: &DataDir, serve: &ServeArgs, account: &str) -> anyhow::Result<Vec<String>> {
    let keystore = Keystore::new(data_dir.keys());
    let mut made = Vec::new();
    for (name, kind, what) in [
        (account, KeyKind::Account, "an account on the ledger"),
        (serve.key.as_str(), KeyKind::Signing, "a key for the worker"),
    ] {
        if keystore.create_if_none(name, kind)? {
            let folder = data_dir.keys();
            made.push(format!(
                "{name}, {what}; its file's mode alone protects it: back up {}",
                folder.display()
            ));
        }
    }
    Ok(made)
}

async fn survey(ledger: &Ledger) -> anyhow::Result<Survey> {
    match timeout(LOOK_TIMEOUT, ledger.survey()).await {
        Ok(survey) => Ok(survey?),
        Err(_) => Err(hinted(
            "the ledger's nodes do not answer",
            "check --rpc-url, and that this machine can call it",
        )),
    }
}

fn network(from: Option<std::net::IpAddr>, reached: &Reached) -> Finding {
    const WHAT: &str = "network";
    let link = machine::link_mbit().map(|mbit| format!(", link of {mbit} Mbit/s")).unwrap_or_default();
    let Some(ip) = from else {
        return doctor::bad(WHAT, "no way to the ledger's nodes", "check --rpc-url and the network's cable");
    };
    let kind = match standing(ip) {
        Standing::Loopback => "this machine only",
        Standing::Private => "private: a NAT or a firewall is probable",
        Standing::Public => "public",
    };
    let found = format!("speaks from {ip} ({kind}){link}");
    match (standing(ip), reached.relays.is_empty()) {
        (Standing::Private, true) => doctor::slow(
            WHAT,
            found,
            "only the same network reaches it; for others name a relay: --relay IP:PORT, or open a port: --reach direct=IP:PORT --listen 0.0.0.0:PORT",
        ),
        _ => doctor::good(WHAT, found),
    }
}

/// How far away the ledger is.
async fn node(ledger: &Ledger) -> Finding {
    const WHAT: &str = "ledger";
    let asked = Instant::now();
    match timeout(LOOK_TIMEOUT, ledger.tip()).await {
        Ok(Ok(tip)) => doctor::good(
            WHAT,
            format!(
                "chain {}, block {}, checked in {} ms",
                ledger.chain_id(),
                tip.number,
                asked.elapsed().as_millis()
            ),
        ),
        Ok(Err(error)) => doctor::bad(WHAT, error.to_string(), "check --genesis and --rpc-url"),
        Err(_) => doctor::bad(WHAT, "no answer", "check --rpc-url"),
    }
}

/// What the account has and needs.
struct Purse {
    balance: U256,
    bonded: U256,
    bond: U256,
}

impl Purse {
    async fn look(account: &dyn Account, serve: &ServeArgs) -> anyhow::Result<Purse> {
        let own = account.address();
        let bonded = IStaking::bondedOfCall { operator: own, delegator: own };
        let looked = async {
            Ok::<_, surety_client::AccountError>((
                account.balance().await?,
                view(account, Module::Staking, &bonded).await?,
            ))
        };
        match timeout(LOOK_TIMEOUT, looked).await {
            Ok(Ok((balance, bonded))) => Ok(Purse { balance, bonded, bond: serve.bond.0 }),
            Ok(Err(error)) => Err(hinted(error.message, error.hint)),
            Err(_) => Err(hinted("the ledger's nodes do not answer", "check --rpc-url")),
        }
    }

    /// Wei to be sent to the account before it can register.
    fn missing(&self) -> U256 {
        let to_bond = self.bond.saturating_sub(self.bonded);
        let needed = if to_bond.is_zero() { U256::ZERO } else { to_bond + U256::from(GAS) };
        needed.saturating_sub(self.balance)
    }

    fn text(&self) -> String {
        format!("{} credits, {} bonded", credits(self.balance), credits(self.bonded))
    }

    fn finding(&self) -> Finding {
        const WHAT: &str = "account";
        let missing = self.missing();
        if missing.is_zero() {
            doctor::good(WHAT, self.text())
        } else {
            let fix = format!("send it {} credits, or set a smaller --bond", credits(missing));
            doctor::slow(WHAT, self.text(), fix)
        }
    }
}

/// A model's file on this machine.
struct Here {
    name: String,
    arg: ModelArg,
    bytes: u64,
    id: Option<ModelId>,
}

fn here(data_dir: &DataDir) -> anyhow::Result<Vec<Here>> {
    let entries = Models::new(data_dir).store().list()?;
    let mut here = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.path.exists()) {
        let arg = entry.name.parse::<ModelArg>()?;
        here.push(Here { name: entry.name, arg, bytes: entry.bytes, id: entry.model });
    }
    let demo = bundled_model();
    // It is small: loading it tells its id.
    let id = model::open(&demo.file, data_dir, &demo.name)?.id();
    here.push(Here { name: demo.name, arg: ModelArg::default(), bytes: bundled::bytes(), id: Some(id) });
    Ok(here)
}

/// What could be served, the most wanted first: few hold it, others offer it already, it is large.
fn candidates(here: Vec<Here>, survey: &Survey, account: &dyn Account, data_dir: &DataDir) -> Vec<Candidate> {
    let holders = holders(survey, account);
    let disk = rustix::fs::statvfs(doctor::existing(data_dir.path()))
        .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let memory = machine::available_memory_bytes().unwrap_or(u64::MAX);
    let mut candidates: Vec<Candidate> = here
        .into_iter()
        .map(|Here { name, arg, bytes, id }| {
            let not = if bytes > memory / 4 * 3 {
                Some("it does not fit into the free memory")
            } else if bytes > disk {
                Some("its packed weights do not fit on the disk")
            } else {
                None
            };
            let count = id.and_then(|id| holders.get(&id.0.0).copied()).unwrap_or(0);
            Candidate { name, arg, bytes, id: id.map(|id| id.to_string()), holders: count, not }
        })
        .collect();
    rank(&mut candidates);
    candidates
}

fn rank(candidates: &mut [Candidate]) {
    // Whatever others offer is asked for; the fewer they are the more it needs another.
    candidates.sort_by_key(|model| {
        let wanted = if model.holders == 0 { usize::MAX } else { model.holders };
        (model.not.is_some(), wanted, std::cmp::Reverse(model.bytes))
    });
}

fn holders(survey: &Survey, account: &dyn Account) -> BTreeMap<[u8; 32], usize> {
    let mut holders: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let others = survey.operators.iter().filter(|operator| operator.account != account.address());
    for offer in others.filter(|operator| !operator.workers.is_empty()).flat_map(|operator| &operator.offers)
    {
        *holders.entry(offer.model.0).or_default() += 1;
    }
    holders
}

/// Leaves as many as are reasonable together.
fn choose(candidates: &mut [Candidate]) {
    let memory = machine::available_memory_bytes().unwrap_or(u64::MAX);
    let (mut count, mut bytes) = (0, 0u64);
    for model in candidates.iter_mut().filter(|model| model.not.is_none()) {
        let sum = bytes.saturating_add(model.bytes);
        if count >= MODELS_MAX {
            model.not = Some("enough others are served");
        } else if count > 0 && sum > memory / 2 {
            model.not = Some("memory is for the others");
        } else {
            (count, bytes) = (count + 1, sum);
        }
    }
}

/// Models that others offer and that are not here: their ids, and how many offer them; the fewest first.
fn missing(survey: &Survey, candidates: &[Candidate]) -> Vec<(String, usize)> {
    let mut offered: BTreeMap<ModelId, usize> = BTreeMap::new();
    for offer in survey.operators.iter().flat_map(|operator| &operator.offers) {
        *offered.entry(ModelId(surety_types::Digest(offer.model.0))).or_default() += 1;
    }
    let mut missing: Vec<(String, usize)> = offered
        .into_iter()
        .map(|(id, count)| (id.to_string(), count))
        .filter(|(id, _)| candidates.iter().all(|model| model.id.as_ref() != Some(id)))
        .collect();
    missing.sort_by_key(|(_, count)| *count);
    missing
}

fn show_models(candidates: &[Candidate], missing: &[(String, usize)]) -> anyhow::Result<()> {
    for model in candidates {
        let (mark, why) = match model.not {
            None => (out_style(Style::Good, "serve"), String::new()),
            Some(why) => (out_style(Style::Dim, "not  "), format!(": {why}")),
        };
        let held = match model.holders {
            0 if model.id.is_none() => "never loaded here, so it is not known who else offers it".to_owned(),
            0 => "nobody else is known to offer it".to_owned(),
            1 => "one other offers it".to_owned(),
            count => format!("{count} others offer it"),
        };
        output::line(format_args!("{mark} {:<14} {}, {held}{why}", model.name, size(model.bytes)))?;
    }
    for (id, count) in missing.iter().take(MISSING_SHOWN) {
        output::line(format_args!(
            "want  {id}: {count} offer it, it is not here; add it with `surety model add`, then join again"
        ))?;
    }
    Ok(())
}

/// Measures the first model that is to be served.
async fn measure(data_dir: &DataDir, serve: &ServeArgs) -> anyhow::Result<Quick> {
    let models = Models::new(data_dir);
    let first = &serve.models[0];
    let Found { name, file } = models.find_or_download(&first.reference).await?;
    let (engine, data_dir) = (serve.engine.clone(), data_dir.clone());
    let digest = file.blake3;
    let measured = tokio::task::spawn_blocking(move || {
        bench::quick(Found { name, file }, &data_dir, &engine, BENCHMARK)
    });
    let (id, quick) = measured.await??;
    models.store().note_model(digest, id);
    Ok(quick)
}

/// What a day may bring.
fn expected(quick: &Quick, price: &Price) -> Expected {
    // Micro-credits per million tokens.
    let credits = |micro: u128, tokens: f64| micro as f64 / 1e6 * tokens / 1e6;
    let seconds = PROMPT_TOKENS / quick.prefill_tokens_per_second
        + OUTPUT_TOKENS / quick.decode_together_tokens_per_second;
    let order = credits(price.prompt.0, PROMPT_TOKENS) + credits(price.output.0, OUTPUT_TOKENS);
    let always = 86_400.0 / seconds * order;
    Expected {
        credits_per_day: always * BUSY,
        credits_per_day_if_always_busy: always,
        assumptions: format!(
            "orders come {:.0} % of the day, {} side by side, each with {PROMPT_TOKENS:.0} prompt and {OUTPUT_TOKENS:.0} output tokens, at {}/{} credits per million prompt/output tokens; gas and power not subtracted",
            BUSY * 100.0,
            quick.streams,
            micro(price.prompt.0),
            micro(price.output.0),
        ),
    }
}

fn micro(amount: u128) -> String {
    credits(U256::from(amount).saturating_mul(U256::from(1_000_000_000_000_u64)))
}

fn show_speed(quick: &Quick, expected: &Expected) -> anyhow::Result<()> {
    output::line(format_args!(
        "speed    prompts {:.0} tokens/s, one answer {:.1} tokens/s, {} answers together {:.1} tokens/s (measured in {:.1} s)",
        quick.prefill_tokens_per_second,
        quick.decode_tokens_per_second,
        quick.streams,
        quick.decode_together_tokens_per_second,
        quick.seconds
    ))?;
    output::line(format_args!(
        "expect   about {:.4} credits a day, {:.4} at most, assuming: {}",
        expected.credits_per_day, expected.credits_per_day_if_always_busy, expected.assumptions
    ))?;
    Ok(())
}

/// Asks whether to go on.
fn agreed(purse: &Purse) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(hinted("there is no terminal to ask at", "say --yes to join, or --dry-run to look only"));
    }
    let bond = credits(purse.bond.saturating_sub(purse.bonded));
    let mut err = io::stderr().lock();
    write!(err, "Bond {bond} credits, register and serve? [y/N] ")?;
    err.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use surety_types::Amount;

    use super::*;

    fn candidate(name: &str, bytes: u64, holders: usize, not: Option<&'static str>) -> Candidate {
        Candidate { name: name.into(), arg: ModelArg::default(), bytes, id: None, holders, not }
    }

    #[test]
    fn what_few_others_offer_comes_first_and_what_does_not_fit_never() {
        let mut candidates = [
            candidate("mine", 5, 0, None),
            candidate("popular", 5, 9, None),
            candidate("huge", 500, 1, Some("it does not fit")),
            candidate("rare", 5, 1, None),
            candidate("rare-large", 6, 1, None),
            candidate("also", 1, 0, None),
        ];
        rank(&mut candidates);
        let names: Vec<&str> = candidates.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["rare-large", "rare", "popular", "mine", "also", "huge"]);
        choose(&mut candidates);
        let served = candidates.iter().filter(|model| model.not.is_none()).count();
        assert_eq!(served, MODELS_MAX);
        assert_eq!(candidates[5].not, Some("it does not fit"));
    }

    #[test]
    fn earnings_follow_from_the_figures_beside_them() {
        let quick = Quick {
            prefill_tokens_per_second: 500.0,
            decode_tokens_per_second: 50.0,
            decode_together_tokens_per_second: 200.0,
            streams: 8,
            seconds: 1.0,
        };
        let price = Price { prompt: Amount(1_000_000), cached: Amount(0), output: Amount(5_000_000) };
        let expected = expected(&quick, &price);
        // Two seconds an order, 500 + 1000 millionths of a credit each.
        assert!((expected.credits_per_day_if_always_busy - 43_200.0 * 0.0015).abs() < 1e-9);
        assert!((expected.credits_per_day - 4_320.0 * 0.0015).abs() < 1e-9);
        assert!(expected.assumptions.contains("1/5 credits"), "{}", expected.assumptions);
    }

    #[test]
    fn what_is_missing_is_said_to_the_wei() {
        let purse = |balance: u64, bonded: u64, bond: u64| Purse {
            balance: U256::from(balance),
            bonded: U256::from(bonded),
            bond: U256::from(bond),
        };
        assert_eq!(purse(0, 0, 10).missing(), U256::from(10 + GAS));
        assert_eq!(purse(4, 3, 10).missing(), U256::from(3 + GAS));
        assert_eq!(purse(GAS + 10, 0, 10).missing(), U256::ZERO);
        assert_eq!(purse(0, 10, 10).missing(), U256::ZERO, "a second join needs nothing");
    }
}
