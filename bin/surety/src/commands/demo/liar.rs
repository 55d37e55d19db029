//! `surety demo liar`: one of three workers lies; the payer recomputes its answer, contests it on the ledger, and is refunded.
//!
//! In:     the kind of lie.
//! Out:    a narrative; with `--json` one line of results at the end.
//! Touches: a network of its own in a temporary folder: processes, loopback sockets.
//! Holds:  everything shown is read from the network: evidence from its gateway, verdict and money from its ledger, as proven
//!         state. The liar is the same program as the honest workers, told to lie, and defends itself like any worker.
//! Absent: how a dispute is played (`surety_worker::dispute`).

use std::{
    ffi::OsString,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolEvent as _;
use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;
use surety_client::{
    account_on,
    channel::{Account, view},
    ledger::{Ledger, LedgerSettings},
};
use surety_types::{
    PublicKey,
    abi::{IDisputes, IOperators, IStaking, Module},
};
use surety_worker::dispute::Move;
use tokio::time::sleep;

use super::forge::{Forgery, forge};
use crate::{
    api::{Answered, Api},
    bundled,
    cli::Global,
    commands::{
        Outcome,
        dispute::{self, Contested},
        explain,
        up::{self, Network, Swap},
        validator::read_genesis,
    },
    data_dir::DataDir,
    devnet,
    explanation::Explanation,
    keystore::Keystore,
    look::credits,
    output::{self, Style, err_style},
    rechecking,
    verification::{Known, verify},
};

/// The liar, among three workers.
const LIAR: usize = 2;
const QUESTION: &str = "Tell me of the night, and who keeps the watch?";
/// For the ledger to name all workers, and the gateway to have channels to them.
const SETTLING: Duration = Duration::from_secs(60);

/// Arguments of `demo liar`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How the worker lies.
    #[arg(long, value_enum, default_value = "requantised")]
    kind: Kind,
    /// Tokens of the answer.
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(8..=256))]
    tokens: u32,
}

/// A lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A smaller model under the name of the one that was asked for.
    Smaller,
    /// One matrix with half of its bits.
    Requantised,
    /// One layer left out.
    SkippedLayer,
    /// One weight of an older version of the model.
    Stale,
    /// Another temperature than was asked for.
    Temperature,
    /// The answer cut off early, and said to be whole.
    EarlyStop,
    /// A sentence put before the conversation.
    Injected,
    /// The text changed after the model gave it.
    Edited,
}

impl Kind {
    fn says(self) -> &'static str {
        match self {
            Kind::Smaller => "serves a model with half of the layers under the name of the whole one",
            Kind::Requantised => "serves the model with one matrix cut down to four bits",
            Kind::SkippedLayer => "serves the model with one layer left out",
            Kind::Stale => "serves an older version: one weight in 2.6 million differs by one",
            Kind::Temperature => "samples at another temperature than it was asked for",
            Kind::Injected => "puts a sentence of its own before the conversation",
            Kind::Edited => "changes the text after the model gave it: its spaces are ones that do not break",
            Kind::EarlyStop => "stops after a quarter of the answer, and says that the model did",
        }
    }

    fn forgery(self) -> Option<Forgery> {
        Some(match self {
            Kind::Smaller => Forgery::Smaller,
            Kind::Requantised => Forgery::Requantised,
            Kind::SkippedLayer => Forgery::SkippedLayer,
            Kind::Stale => Forgery::Stale,
            Kind::Temperature | Kind::EarlyStop | Kind::Injected | Kind::Edited => return None,
        })
    }

    /// What the lying worker is told.
    fn swap(self, folder: &Path) -> anyhow::Result<Swap> {
        let (model, args): (_, Vec<OsString>) = match self.forgery() {
            Some(forgery) => {
                let path = folder.join("forged.gguf");
                fs::write(&path, forge(bundled::contents(), forgery)?)?;
                let model = format!("{}={}", bundled::NAME, path.display()).parse()?;
                (Some(model), vec!["--pose-as".into(), bundled::NAME.into()])
            }
            None => {
                let lie = self.to_possible_value().context("a lie has a name")?.get_name().to_owned();
                (None, vec!["--lie".into(), lie.into()])
            }
        };
        Ok(Swap { number: LIAR, model, args })
    }
}

/// What came of it.
#[derive(Serialize)]
struct Results {
    kind: String,
    worker: String,
    operator: String,
    request_id: String,
    /// What `surety explain` says of it.
    explanation: Explanation,
    /// What is wrong, in the auditor's words.
    discrepancy: String,
    dispute: u64,
    convicted: bool,
    reason: &'static str,
    /// On the ledger, the opening too.
    messages: u64,
    /// Words of the trace that was disputed.
    trace_words: u64,
    /// Bytes that the judge was shown; none if the receipt was false by itself.
    leaf_bytes: Option<usize>,
    /// Wei, as decimal text.
    paid: String,
    refund: String,
    stake_before: String,
    stake_after: String,
    seconds: f64,
}

/// Shows it.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let folder = tempfile::Builder::new().prefix("surety-").tempdir()?;
    let data_dir = DataDir::at(folder.path());
    let swap = args.kind.swap(folder.path())?;
    let up_args = up::Args::throw_away();
    say(1, "A network of its own: four validators, three workers, a gateway.");
    told(format_args!("Worker {LIAR} {}.", args.kind.says()));
    let network = up::start_all(&global, &up_args, &data_dir, Some(&swap)).await?;
    let shown = tokio::select! {
        shown = show(&args, &data_dir, &network) => shown,
        stop = tokio::signal::ctrl_c() => { stop?; Err(anyhow::anyhow!("stopped")) }
    };
    network.stop().await;
    let results = shown?;
    let convicted = results.convicted;
    if global.json {
        output::json(&results)?;
    }
    Ok(if convicted { Outcome::Done } else { Outcome::Failed })
}

async fn show(args: &Args, data_dir: &DataDir, network: &Network) -> anyhow::Result<Results> {
    let liar = network.workers[LIAR - 1].1.address()?.key;
    let honest = network.workers[0].1.address()?.key;
    let api = Api::at(&network.gateway.1.base_url)?;
    let ask = |worker: String| {
        json!({
            "model": bundled::NAME,
            "messages": [{ "role": "user", "content": QUESTION }],
            "max_tokens": args.tokens, "temperature": 0.8, "seed": 7, "ignore_eos": args.kind != Kind::EarlyStop,
            "surety": { "worker": worker },
        })
    };
    say(2, "The same question to two workers, with the same seed. Both sign for their answers.");
    let right = asked(&api, &ask(honest.to_string())).await?;
    let wrong = asked(&api, &ask(liar.to_string())).await?;
    told(format_args!("worker 1: \u{201c}{}\u{201d}", output::excerpt(&right.text, 90)));
    told(format_args!("worker {LIAR}: \u{201c}{}\u{201d}", output::excerpt(&wrong.text, 90)));

    say(
        3,
        "Signatures alone say nothing about that: both receipts hold. So the payer computes the answer again.",
    );
    let evidence = api.evidence(&wrong.request_id).await?;
    let verified = verify(&evidence, &Known::default())
        .map_err(|report| anyhow::anyhow!("the evidence does not hold: {:?}", report.failure))?;
    let models = crate::models::Models::new(data_dir);
    let found = models.find(&bundled::NAME.parse()?)?;
    let model = crate::commands::model::open(&found.file, data_dir, &found.name)?;
    let executor = crate::commands::model::executor(None, None)?;
    let began = Instant::now();
    let report = verified.recompute(&model, &executor, &mut |_, _| {});
    let discrepancy = report.failure.context("recomputing found nothing wrong: the lie was not told")?;
    told(format_args!("One pass of {} ms over the whole answer: {discrepancy}", began.elapsed().as_millis()));

    say(4, "A claim is not a proof: the payer contests the receipt on the ledger, with a bond of its own.");
    let account = account(data_dir, network)?;
    let operator_stake = stake(&*account, &liar).await?;
    let mut leaf_bytes = None;
    let began = Instant::now();
    let folder = data_dir.cache();
    let contested = dispute::contest(&*account, &evidence, &model, &found.file, &folder, None, &mut |step| {
        if let dispute::Step::Move(Move::Leaf { bytes, .. }) = &step {
            leaf_bytes = Some(*bytes);
        }
        told(step);
    })
    .await?;
    let seconds = began.elapsed().as_secs_f64();

    let Contested { accused, verdict } = contested;
    say(5, "The verdict. Nobody voted: every validator computed the same few kilobytes.");
    told(format_args!("{} (dispute {})", verdict.reason(), accused.id));
    let dispute = view(&*account, Module::Disputes, &IDisputes::disputesCall { id: accused.id }).await?;
    let refund = refund_of(&*account, accused.id).await?;
    let stake_after = stake(&*account, &liar).await?;
    told(format_args!(
        "paid for the answer: {}; refunded: {}; the operator's stake: {} before, {} after",
        credits(dispute.paid),
        credits(refund),
        credits(operator_stake.1),
        credits(stake_after.1),
    ));

    say(6, "Who is asked later what became of that request is told who answers for it.");
    let verified = verify(&evidence, &Known::default())
        .map_err(|report| anyhow::anyhow!("the evidence does not hold: {:?}", report.failure))?;
    let found = rechecking::on_ledger(&ledger(network)?, &verified.subjects()).await;
    let explanation = explain::explained(&verified, &found);
    told(format_args!("surety explain {}: {}", wrong.request_id, explanation.verdict));
    let operator = explanation.operator.clone().unwrap_or_else(|| "nobody".to_owned());
    told(format_args!("answerable: operator {operator}, by worker {liar}"));
    Ok(Results {
        kind: args.kind.to_possible_value().map(|kind| kind.get_name().to_owned()).unwrap_or_default(),
        worker: liar.to_string(),
        operator: operator_stake.0.to_string(),
        explanation,
        request_id: wrong.request_id,
        discrepancy,
        dispute: accused.id,
        convicted: verdict.is_conviction(),
        reason: verdict.reason(),
        messages: dispute.moves,
        trace_words: accused.words,
        leaf_bytes,
        paid: dispute.paid.to_string(),
        refund: refund.to_string(),
        stake_before: operator_stake.1.to_string(),
        stake_after: stake_after.1.to_string(),
        seconds,
    })
}

/// Asks until the worker can be asked: it may still be on its way to the ledger.
async fn asked(api: &Api, request: &serde_json::Value) -> anyhow::Result<Answered> {
    let began = Instant::now();
    loop {
        match api.ask(request).await {
            Ok(answered) => return Ok(answered),
            Err(error) if began.elapsed() > SETTLING => return Err(error),
            Err(_) => sleep(Duration::from_millis(250)).await,
        }
    }
}

/// The account of whoever tries the network out.
fn account(data_dir: &DataDir, network: &Network) -> anyhow::Result<std::sync::Arc<dyn Account>> {
    let wallet = Keystore::new(data_dir.keys()).load_account(devnet::OWN_ACCOUNT, || Ok(None))?;
    Ok(account_on(ledger(network)?, wallet))
}

fn ledger(network: &Network) -> anyhow::Result<Ledger> {
    let path = network.genesis.as_ref().context("there is a ledger")?;
    let rpc_urls = network.validators.iter().map(|(_, ready)| ready.rpc_url.clone()).collect();
    Ok(Ledger::new(LedgerSettings { genesis: read_genesis(path)?, rpc_urls })?)
}

/// A worker's operator, and what is bonded to it.
async fn stake(account: &dyn Account, worker: &PublicKey) -> anyhow::Result<(Address, U256)> {
    let call = IOperators::workerCall { key: B256::from(worker.0) };
    let operator = view(account, Module::Operators, &call).await?.operator;
    let bonded = view(account, Module::Staking, &IStaking::bondedToCall { operator }).await?;
    Ok((operator, bonded))
}

/// What was paid to the payer for a dispute's answer, as the ledger's events say.
async fn refund_of(account: &dyn Account, id: u64) -> anyhow::Result<U256> {
    let topics = vec![IDisputes::Convicted::SIGNATURE_HASH, B256::from(U256::from(id))];
    let logs = account.logs(Module::Disputes, topics).await?;
    let refunds = logs.iter().filter_map(|log| IDisputes::Convicted::decode_log_data(&log.data).ok());
    Ok(refunds.map(|convicted| convicted.refund).sum())
}

fn say(number: u32, text: &str) {
    output::note("");
    output::note(err_style(Style::Bold, format_args!("{number}. {text}")));
}

fn told(text: impl std::fmt::Display) {
    output::note(format_args!("   {text}"));
}
