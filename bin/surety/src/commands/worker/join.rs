//! `surety worker join`: from a bare machine to a worker that earns.
//!
//! In:     the machine, the ledger, the models on disk, and those that others offer.
//! Out:    what was found, what is chosen and why, what it may earn under which assumptions; then a worker that serves.
//! Touches: the keystore, for keys that are missing; the store, for models that it pulls; what `worker run` touches.
//! Holds:  nothing is pulled, registered or bonded before it was shown, and agreed to or `--yes` said; everything is looked up
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
    Digest, ModelId, Price,
    abi::{IStaking, Module},
};
use surety_worker::{
    machine,
    store::{Reference, StoreError},
};
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
        model::{
            self,
            network::{self, Hosted},
            pull::{self, Wanted},
        },
    },
    data_dir::DataDir,
    keystore::{KeyKind, Keystore},
    ledger::LedgerArgs,
    look::{Look, credits, is_loopback},
    models::{ModelArg, Models, bundled_model},
    output::{self, Style, hinted, out_style, size},
};

/// The account of a worker whose operator named none.
const ACCOUNT: &str = "operator";
/// The benchmark's limit; loading comes on top, a second a gigabyte or two.
const BENCHMARK: Duration = Duration::from_secs(40);
/// Models served at once, unless they are named.
const MODELS_MAX: usize = 4;
/// Models that others offer and that are not here, looked at.
const THERE_MAX: usize = 8;
/// What is shown of the line.
const BANDWIDTH: &str = "bandwidth";
/// Less says nothing about it.
const BANDWIDTH_BYTES_MIN: u64 = 1 << 20;
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
#[derive(Serialize)]
struct Candidate {
    name: String,
    #[serde(skip)]
    arg: ModelArg,
    bytes: u64,
    /// Whether its file is on this machine.
    here: bool,
    /// Who has it, if it is to be pulled.
    #[serde(skip)]
    from: Option<Pull>,
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
    let local = ledger.rpc_urls().iter().all(|url| is_loopback(url));
    let page = Look { ledger: look.clone(), base_url: None, local };
    let survey = survey(&look).await?;
    let workers = survey.operators.iter().flat_map(|operator| &operator.workers);
    let relays = reach::known_relays(workers.map(|(_, endpoint)| endpoint.as_str()));
    let reached = reach::decide(&serve.reach, from, &relays)?;

    let mut findings = doctor::machine_findings(&data_dir);
    findings.push(network(from, &reached));
    findings.push(node(&look).await);
    let purse = Purse::look(&*account, &serve).await?;
    findings.push(purse.finding());
    let mut candidates = if serve.models.is_empty() {
        let here = here(&data_dir)?;
        let mut found = there(&page, &survey, &*account, &here).await;
        found.extend(here);
        let mut candidates = candidates(found, &survey, &*account, &data_dir);
        choose(&mut candidates);
        candidates
    } else {
        named(&page, &data_dir, &serve.models).await?
    };
    candidates.sort_by_key(|model| model.not.is_some());
    let chosen = candidates.iter().filter(|model| model.not.is_none()).count();
    let unusable = findings.iter().any(|finding| finding.grade == Grade::Bad);
    if !global.json {
        doctor::show(&findings)?;
        show_models(&candidates)?;
    }
    if unusable || chosen == 0 {
        return Err(hinted(
            "this machine cannot serve as it is",
            if unusable {
                "see the lines marked BAD above"
            } else {
                "no model fits: free memory, or add a smaller one with `surety model add`"
            },
        ));
    }
    let bandwidth = match dry_run {
        true => unmeasured("--dry-run pulls nothing"),
        false => {
            let bytes: u64 =
                candidates.iter().filter(|model| model.is_pulled()).map(|model| model.bytes).sum();
            if bytes > 0 && !yes && !agreed(&format!("Pull {} of models?", size(bytes)))? {
                output::note("nothing was pulled or registered; choose with --model");
                return Ok(Outcome::Done);
            }
            pull(&data_dir, &mut candidates).await?
        }
    };
    if !global.json {
        doctor::show(std::slice::from_ref(&bandwidth))?;
    }
    findings.push(bandwidth);
    serve.models =
        candidates.iter().filter(|model| model.not.is_none()).map(|model| model.arg.clone()).collect();
    let measured = candidates.iter().find(|model| model.not.is_none() && model.here);
    let arg = measured.map_or_else(ModelArg::default, |model| model.arg.clone());
    let quick = measure(&data_dir, &serve, &arg).await?;
    if !global.json && measured.is_none() {
        output::note(format_args!(
            "what is to be served is not here yet: {} is measured in its stead",
            bundled::NAME
        ));
    }
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
    let bond = credits(purse.bond.saturating_sub(purse.bonded));
    if !yes && !agreed(&format!("Bond {bond} credits, register and serve?"))? {
        output::note("nothing was registered");
        return Ok(Outcome::Done);
    }
    drop((account, look, page));
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

/// A model's file, on this machine or with others.
struct Found {
    name: String,
    arg: ModelArg,
    bytes: u64,
    id: Option<ModelId>,
    /// Who has it, if it is not here.
    from: Option<Pull>,
}

/// A file that is to be pulled.
struct Pull {
    wanted: Wanted,
    /// What it was asked for by.
    asked: Option<String>,
}

impl Candidate {
    /// Whether it is to be served and not here.
    fn is_pulled(&self) -> bool {
        self.not.is_none() && self.from.is_some()
    }
}

fn here(data_dir: &DataDir) -> anyhow::Result<Vec<Found>> {
    let entries = Models::new(data_dir).store().list()?;
    let mut here = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.path.exists()) {
        let arg = entry.name.parse::<ModelArg>()?;
        here.push(Found { name: entry.name, arg, bytes: entry.bytes, id: entry.model, from: None });
    }
    let demo = bundled_model();
    // It is small: loading it tells its id.
    let id = model::open(&demo.file, data_dir, &demo.name)?.id();
    let bytes = bundled::bytes();
    here.push(Found { name: demo.name, arg: ModelArg::default(), bytes, id: Some(id), from: None });
    Ok(here)
}

/// Models that others offer and that are not here, as far as their files can be had; the fewest holders first.
async fn there(look: &Look, survey: &Survey, account: &dyn Account, here: &[Found]) -> Vec<Found> {
    let is_here = |id: &[u8; 32]| here.iter().any(|found| found.id.is_some_and(|here| here.0.0 == *id));
    let mut offered: Vec<([u8; 32], usize)> =
        holders(survey, account).into_iter().filter(|(id, _)| !is_here(id)).collect();
    offered.sort_by_key(|(_, holders)| *holders);
    let mut there = Vec::new();
    for (id, _) in offered.into_iter().take(THERE_MAX) {
        let id = ModelId(Digest(id));
        let found = match timeout(LOOK_TIMEOUT, network::on_ledger(look, id)).await {
            Ok(hosted) => hosted.and_then(|hosted| on_network(hosted, None)),
            Err(_) => Err(anyhow::anyhow!("the ledger's nodes do not answer")),
        };
        match found {
            // A file that is here and was never loaded has no id yet.
            Ok(found) if here.iter().all(|other| other.bytes != found.bytes || other.id.is_some()) => {
                there.push(found)
            }
            Ok(_) => {}
            Err(error) => output::note(format_args!("{id} is offered and cannot be pulled: {error:#}")),
        }
    }
    there
}

/// A model of the network as one that could be served.
fn on_network(hosted: Hosted, arg: Option<&ModelArg>) -> anyhow::Result<Found> {
    let file = hosted.file()?;
    let (digest, bytes) = (file.blake3, file.bytes);
    let holders = hosted.addresses();
    anyhow::ensure!(!holders.is_empty(), "nobody who can be called has it");
    let asked = match arg {
        Some(ModelArg { alias: None, reference: Reference::Name { name, .. } }) => Some(name.clone()),
        _ => None,
    };
    let wanted = Wanted { digest, bytes: Some(bytes), model: Some(hosted.id), holders };
    let from = Some(Pull { wanted, asked });
    let name = output::excerpt(&hosted.manifest.name, 96).to_string();
    Ok(Found { name, arg: arg.cloned().unwrap_or_default(), bytes, id: Some(hosted.id), from })
}

/// Models that were named: here, or else on the ledger.
async fn named(look: &Look, data_dir: &DataDir, args: &[ModelArg]) -> anyhow::Result<Vec<Candidate>> {
    let models = Models::new(data_dir);
    let mut named = Vec::new();
    for arg in args {
        let unknown = match (&arg.reference, models.find(&arg.reference)) {
            (Reference::Name { .. } | Reference::Id(_), Err(error)) => {
                matches!(error.downcast_ref(), Some(StoreError::Unknown { .. }))
            }
            _ => false,
        };
        let found = match unknown {
            true => on_network(network::find(look, &arg.reference).await?, Some(arg))?,
            false => {
                let name = arg.to_string();
                Found { name, arg: arg.clone(), bytes: 0, id: None, from: None }
            }
        };
        named.push(candidate(found, 0, None));
    }
    Ok(named)
}

fn candidate(found: Found, holders: usize, not: Option<&'static str>) -> Candidate {
    let Found { name, arg, bytes, id, from } = found;
    Candidate { name, arg, bytes, here: from.is_none(), from, id: id.map(|id| id.to_string()), holders, not }
}

/// Pulls what is to be served and is not here; tells how fast it came.
async fn pull(data_dir: &DataDir, candidates: &mut [Candidate]) -> anyhow::Result<Finding> {
    let models = Models::new(data_dir);
    let (mut fetched, mut seconds, mut givers) = (0, 0.0, 0);
    for model in candidates.iter_mut().filter(|model| model.not.is_none()) {
        let Some(Pull { wanted, asked }) = model.from.take() else { continue };
        let brought = pull::bring(data_dir, &models, wanted, None, asked).await?;
        if let Some(pulled) = brought.pulled {
            fetched += pulled.bytes - pulled.resumed;
            seconds += pulled.elapsed.as_secs_f64();
            givers = givers.max(pulled.holders.iter().filter(|holder| holder.bytes > 0).count());
        }
        let reference = brought.entry.name.parse::<ModelArg>()?.reference;
        (model.arg.reference, model.here) = (reference, true);
    }
    Ok(bandwidth(fetched, seconds, givers))
}

/// What a pull of so much says about the line.
fn bandwidth(fetched: u64, seconds: f64, givers: usize) -> Finding {
    if fetched < BANDWIDTH_BYTES_MIN {
        return unmeasured("too little was pulled");
    }
    let rate = size((fetched as f64 / seconds.max(0.001)) as u64);
    doctor::good(
        BANDWIDTH,
        format!("{rate}/s towards this machine at least: {} came from {givers} at once", size(fetched)),
    )
}

fn unmeasured(why: &str) -> Finding {
    doctor::good(BANDWIDTH, format!("not measured: {why}"))
}

/// What could be served, the most wanted first: few hold it, others offer it already, it is large.
fn candidates(
    found: Vec<Found>,
    survey: &Survey,
    account: &dyn Account,
    data_dir: &DataDir,
) -> Vec<Candidate> {
    let holders = holders(survey, account);
    let disk = rustix::fs::statvfs(doctor::existing(data_dir.path()))
        .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let memory = machine::available_memory_bytes().unwrap_or(u64::MAX);
    let mut candidates: Vec<Candidate> = found
        .into_iter()
        .map(|found| {
            let bytes = found.bytes;
            // Its packed weights, and the file itself.
            let room = if found.from.is_some() { bytes.saturating_mul(2) } else { bytes };
            let not = if bytes > memory / 4 * 3 {
                Some("it does not fit into the free memory")
            } else if room > disk {
                Some("it does not fit on the disk with its packed weights")
            } else {
                None
            };
            let count = found.id.and_then(|id| holders.get(&id.0.0).copied()).unwrap_or(0);
            candidate(found, count, not)
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

fn show_models(candidates: &[Candidate]) -> anyhow::Result<()> {
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
        let place = if model.here { "" } else { ", to be pulled" };
        // What was named by its file is as large as that is.
        let bytes = if model.bytes > 0 { format!(" {}", size(model.bytes)) } else { String::new() };
        output::line(format_args!("{mark} {:<14}{bytes}{place}, {held}{why}", model.name))?;
    }
    Ok(())
}

/// Measures a model.
async fn measure(data_dir: &DataDir, serve: &ServeArgs, first: &ModelArg) -> anyhow::Result<Quick> {
    let models = Models::new(data_dir);
    let crate::models::Found { name, file } = models.find_or_download(&first.reference).await?;
    let (engine, data_dir) = (serve.engine.clone(), data_dir.clone());
    let digest = file.blake3;
    let measured = tokio::task::spawn_blocking(move || {
        bench::quick(crate::models::Found { name, file }, &data_dir, &engine, BENCHMARK)
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
fn agreed(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(hinted("there is no terminal to ask at", "say --yes to join, or --dry-run to look only"));
    }
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
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
        let found = Found { name: name.into(), arg: ModelArg::default(), bytes, id: None, from: None };
        super::candidate(found, holders, not)
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
    fn the_line_is_told_only_if_it_was_measured() {
        assert!(bandwidth(1_000, 0.001, 1).found.starts_with("not measured"));
        let found = bandwidth(40_000_000, 4.0, 3).found;
        assert!(found.starts_with("10 MB/s") && found.contains("40 MB came from 3"), "{found}");
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
