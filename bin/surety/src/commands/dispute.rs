//! `surety dispute open|list|show|replay`: contesting receipts, and looking at what came of it.
//!
//! In:     evidence, or the number of a dispute.
//! Out:    moves on the ledger; what it says; a bundle from which anyone replays the verdict.
//! Touches: the ledger; the model, where a trace is computed; files.
//! Holds:  what a dispute's state is comes as proven state; a replay asks nobody.
//! Absent: the moves themselves (`surety_worker::dispute`), the judge (`surety_proof::dispute`).

mod replay;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy_primitives::{B256, U256};
use anyhow::Context as _;
use serde::Serialize;
use surety_client::{
    AccountError, account_on,
    channel::{Account, view},
    ledger::Ledger,
};
use surety_engine::Model;
use surety_proof::dispute::Statement;
use surety_types::{
    Answer, Canonical as _, Channel, Digest, Evidence, Order, PublicKey, Receipt, Request, Signed,
    abi::{IDisputes, Module, address::DISPUTES},
};
use surety_worker::{
    dispute::{
        Accusation, Accused, Case, CaseError, Move, Prepared, Side, TraceRoom, Verdict, accusation, accuse,
        accuse_asking, play, shown_ids, verdict,
    },
    load::ModelFile,
    machine,
    store::Reference,
};

use super::{
    Outcome, model,
    verify::{evidence_of, model_of},
};
use crate::{
    cli::Global,
    data_dir::DataDir,
    look::{ActorArgs, LookArgs, credits},
    output::{self, Style, hinted, io_failure, out_style},
    passphrase::PassphraseArgs,
    verification::{Known, verify},
};

/// Moves of a challenger, with one to spare.
const MOVES: u64 = 6;
/// Disputes that are listed.
const LISTED_MAX: u64 = 50;

/// What `dispute` can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Contest a receipt: compute the answer's trace, post a bond, and play to the verdict.
    Open(OpenArgs),
    /// List disputes, the newest first.
    List(LookArgs),
    /// Show a dispute: about what, between whom, whose move it is, what came of it.
    Show(ShowArgs),
    /// Judge a dispute again, move by move, from its bundle alone: nobody is asked, and nobody need be believed.
    #[command(
        after_help = "Examples:\n  surety dispute show 3 --export dispute-3.cbor\n  surety dispute replay \
                            dispute-3.cbor\n  surety dispute replay 3 --genesis g.json --rpc-url http://192.0.2.1:8545"
    )]
    Replay(ReplayArgs),
}

/// Which receipt, and who contests it.
#[derive(Debug, clap::Args)]
pub struct OpenArgs {
    /// A request's id, whose evidence is asked of the gateway; or a file of evidence, or - for standard input.
    #[arg(value_name = "ID|FILE")]
    subject: String,
    /// The model to compute with [default: the one in the store whose id the receipt names].
    #[arg(long, value_name = "REF")]
    model: Option<Reference>,
    /// The gateway to ask [default: the one `surety up` runs].
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Contest it by a trace with one false bit, which this number names, for tests: the bond is lost by it.
    #[arg(long, value_name = "SEED", hide = true)]
    accuse_falsely: Option<u64>,
    #[command(flatten)]
    actor: ActorArgs,
}

/// One dispute.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Its number.
    id: u64,
    /// Write its bundle to this file: the signed moves of both sides with all papers, from which `surety dispute replay`
    /// judges it again without any ledger.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    #[command(flatten)]
    look: LookArgs,
}

/// A dispute to judge again.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// A file with a bundle, or - for standard input; or the number of a dispute, whose bundle is collected from the ledger.
    #[arg(value_name = "FILE|ID")]
    subject: String,
    #[command(flatten)]
    look: LookArgs,
}

/// A dispute as the ledger has it. Amounts are wei, as decimal text.
#[derive(Serialize)]
struct Shown {
    id: u64,
    state: &'static str,
    turn: &'static str,
    operator: String,
    worker: String,
    challenger: String,
    payee: Option<String>,
    order: String,
    receipt: String,
    trace_words: u64,
    moves: u64,
    opened_at: u64,
    move_until: u64,
    bond: String,
    paid: String,
    owed: String,
}

/// Runs one of them.
pub async fn run(global: Global, command: Command) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    match command {
        Command::Open(args) => open(&global, &data_dir, args).await,
        Command::List(look) => {
            let ledger = look.open(&data_dir)?.ledger;
            let last = ledger.view(DISPUTES, &IDisputes::disputeCountCall {}).await?.value;
            let first = last.saturating_sub(LISTED_MAX) + 1;
            let mut shown = Vec::new();
            for id in (first..=last).rev() {
                shown.push(look_up(&ledger, id).await?);
            }
            if global.json {
                output::json(&shown)?;
                return Ok(Outcome::Done);
            }
            if shown.is_empty() {
                output::note("nothing was ever contested on this ledger");
            }
            for Shown { id, state, turn, operator, .. } in shown {
                output::line(format_args!("{id:>5}  {operator}  {state}; {turn}"))?;
            }
            Ok(Outcome::Done)
        }
        Command::Show(args) => {
            let ledger = args.look.open(&data_dir)?.ledger;
            let shown = look_up(&ledger, args.id).await?;
            if let Some(path) = &args.export {
                let bundle = ledger.dispute_bundle(args.id).await?;
                fs::write(path, bundle.to_cbor()).map_err(|source| io_failure("write", path, source))?;
                output::note(format_args!(
                    "judge it again, anywhere, with: surety dispute replay {}",
                    path.display()
                ));
            }
            if global.json {
                output::json(&shown)?;
            } else {
                print(&shown)?;
            }
            Ok(Outcome::Done)
        }
        Command::Replay(args) => replay::run(&global, &data_dir, &args.subject, &args.look).await,
    }
}

async fn open(global: &Global, data_dir: &DataDir, args: OpenArgs) -> anyhow::Result<Outcome> {
    let evidence = evidence_of(&args.subject, args.base_url.as_deref(), data_dir).await?;
    let verified = verify(&evidence, &Known::default()).map_err(|report| {
        hinted(
            format!("the evidence itself does not hold: {}", report.failure.unwrap_or_default()),
            "only what a worker has signed can be contested",
        )
    })?;
    let wanted = verified.models().next().context("the evidence holds no answer")?;
    let executor = model::executor(None, None)?;
    let (model, file) = model_of(data_dir, args.model.as_ref(), wanted, &executor)?;
    let (ledger, wallet) = args.actor.open(data_dir)?;
    let account = account_on(ledger.clone(), wallet);
    afford(&*account, &evidence, &model).await?;
    let (folder, bent) = (data_dir.cache(), args.accuse_falsely);
    let contested =
        contest(&*account, &evidence, &model, &file, &folder, bent, &mut |step| output::note(step)).await?;
    let shown = look_up(&ledger, contested.accused.id).await?;
    if global.json {
        output::json(&shown)?;
    } else {
        print(&shown)?;
    }
    Ok(if contested.verdict.is_conviction() { Outcome::Done } else { Outcome::Failed })
}

async fn look_up(ledger: &Ledger, id: u64) -> anyhow::Result<Shown> {
    let dispute = ledger.view(DISPUTES, &IDisputes::disputesCall { id }).await?.value;
    if dispute.state == 0 {
        return Err(hinted(
            format!("the ledger knows no dispute {id}"),
            "`surety dispute list` shows those there are",
        ));
    }
    Ok(Shown {
        id,
        state: Verdict { state: dispute.state }.reason(),
        turn: match dispute.turn {
            1 => "the worker is to show its trace",
            2 => "the challenger is to pick",
            3 => "the worker is to divide",
            4 => "the challenger is to show the word",
            5 => "the worker is to show the prompt's tokens",
            _ => "it is over",
        },
        operator: dispute.operator.to_string(),
        worker: PublicKey(dispute.worker.0).to_string(),
        challenger: dispute.challenger.to_string(),
        payee: (!dispute.payee.is_zero()).then(|| dispute.payee.to_string()),
        order: Digest(dispute.order.0).to_string(),
        receipt: Digest(dispute.receipt.0).to_string(),
        trace_words: dispute.words,
        moves: dispute.moves,
        opened_at: dispute.openedAt,
        move_until: dispute.moveUntil,
        bond: dispute.bond.to_string(),
        paid: dispute.paid.to_string(),
        owed: dispute.owed.to_string(),
    })
}

fn print(shown: &Shown) -> anyhow::Result<()> {
    let wei = |text: &str| credits(text.parse().unwrap_or_default());
    let rows = [
        ("dispute", format!("{}: {}", shown.id, shown.state)),
        ("now", shown.turn.to_owned()),
        ("operator", shown.operator.clone()),
        ("worker", shown.worker.clone()),
        ("challenger", shown.challenger.clone()),
        ("receipt", shown.receipt.clone()),
        ("trace", format!("{} words; {} moves by the challenger", shown.trace_words, shown.moves)),
        ("bond", wei(&shown.bond)),
        ("paid", format!("{} for the answer", wei(&shown.paid))),
        ("owed", wei(&shown.owed)),
    ];
    for (label, value) in rows {
        output::line(format_args!("{} {value}", out_style(Style::Dim, format_args!("{label:<10}"))))?;
    }
    Ok(())
}

/// The account that is to contest, once it is known to have the least bond.
pub async fn challenger(
    name: &str,
    passphrase: &PassphraseArgs,
    look: &LookArgs,
    data_dir: &DataDir,
) -> anyhow::Result<Arc<dyn Account>> {
    let (ledger, wallet) = ActorArgs::of(name, passphrase, look).open(data_dir)?;
    let params = ledger.params().await.context("nothing can be contested without a ledger")?.value;
    let account = account_on(ledger, wallet);
    has(&*account, U256::from(params.dispute_bond_min)).await?;
    Ok(account)
}

/// Refuses an account that cannot pay the bond of a dispute about these answers, before anything long is computed.
pub async fn afford(account: &dyn Account, evidence: &[u8], model: &Model) -> anyhow::Result<()> {
    for answer in &Evidence::parse(evidence)?.answers {
        let Some(case) = case(answer, model)? else { continue };
        let order = Signed::<Order>::open(&case.order)?;
        let receipt = Signed::<Receipt>::open(&case.receipt)?;
        let Some(plan) = model.plan() else { return Err(CaseError::NoPlan.into()) };
        let statement = Statement::new(model.manifest(), plan.header(), &order, &receipt)?;
        let call = IDisputes::bondForCall {
            words: statement.layout().words(),
            order: B256::from(order.digest().0),
            worker: B256::from(receipt.worker.0),
        };
        let bond = view(account, Module::Disputes, &call).await.map_err(told)?.bond;
        has(account, bond).await?;
    }
    Ok(())
}

/// Refuses an account that has not the bond of a dispute, and the gas of its moves.
async fn has(account: &dyn Account, bond: U256) -> anyhow::Result<()> {
    let params = account.params().await.map_err(told)?;
    let gas = U256::from(params.dispute_move_gas) * U256::from(params.minimum_gas_price) * U256::from(MOVES);
    let (balance, needed) = (account.balance().await.map_err(told)?, bond.saturating_add(gas));
    if balance >= needed {
        return Ok(());
    }
    let address = account.address();
    Err(hinted(
        format!(
            "{address} has {} credits; a bond of {} and the gas of the moves take {}",
            credits(balance),
            credits(bond),
            credits(needed)
        ),
        format!("send credits to {address}, or contest with another --account"),
    ))
}

fn told(error: AccountError) -> anyhow::Error {
    hinted(error.message, error.hint)
}

/// What happens while a receipt is contested; for people.
pub enum Step {
    /// The trace is computed.
    Trace {
        /// Its words.
        words: u64,
        /// How long that took, in milliseconds.
        milliseconds: u128,
    },
    /// The accusation stands on the ledger.
    Accused(Accused),
    /// The worker has shown what it gave to the model.
    Shown {
        /// So many ids.
        ids: usize,
        /// This side has so many.
        expected: usize,
    },
    /// A move of this side.
    Move(Move),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Trace { words, milliseconds } => {
                write!(
                    f,
                    "the answer's trace: {words} words, everything the model computes for it ({milliseconds} ms)"
                )
            }
            Step::Accused(Accused { accusation: Accusation::PastEnd { index }, .. }) => {
                write!(f, "false by itself: output {index} ends the answer, and more follow")
            }
            Step::Accused(Accused { accusation: Accusation::FalseStop, .. }) => {
                write!(f, "false by itself: the answer is said to have stopped, at a token that is no end")
            }
            Step::Accused(Accused { accusation: Accusation::Prompt, id, bond, .. }) => write!(
                f,
                "dispute {id} is open; bond {}. The receipt is of another prompt than the request gives: the worker is asked \
                 for its tokens",
                credits(*bond)
            ),
            Step::Shown { ids, expected } => {
                write!(f, "the worker showed {ids} tokens of prompt, where the request gives {expected}")
            }
            Step::Accused(Accused { id, bond, .. }) => {
                write!(f, "dispute {id} is open; bond {}", credits(*bond))
            }
            Step::Move(Move::Ids { bytes }) => write!(f, "showed the prompt's tokens: {bytes} bytes"),
            Step::Move(Move::Root { bytes } | Move::Divide { bytes }) => write!(f, "divided: {bytes} bytes"),
            Step::Move(Move::Pick { chunks }) => {
                write!(
                    f,
                    "the worker showed its trace in parts; picked the first that differs: {chunks} kilobytes are left"
                )
            }
            Step::Move(Move::Leaf { word, kind, bytes }) => {
                write!(f, "word {word} differs, a {kind}: shown with all it is computed from, {bytes} bytes")
            }
            Step::Move(Move::Claim) => {
                write!(f, "the worker's own trace is not what its receipt says: shown")
            }
            Step::Move(Move::TimeOut) => write!(f, "the other side let its time pass"),
        }
    }
}

/// How a receipt was contested.
pub struct Contested {
    /// What was shown.
    pub accused: Accused,
    /// What the ledger said.
    pub verdict: Verdict,
}

/// Contests the answers of some evidence by this model's computation, to the verdict about the first that is wrong; or, if
/// `bent` names a false bit, about the first. A trace that takes more memory than there is goes to `folder`.
pub async fn contest(
    account: &dyn Account,
    evidence: &[u8],
    model: &Model,
    file: &ModelFile,
    folder: &Path,
    bent: Option<u64>,
    report: &mut (dyn FnMut(Step) + Send),
) -> anyhow::Result<Contested> {
    let evidence = Evidence::parse(evidence)?;
    for answer in &evidence.answers {
        let Some(mut case) = case(answer, model)? else { continue };
        let mut salt = [0; 32];
        getrandom::fill(&mut salt)
            .map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
        let mut asked = None;
        if case.is_of_other_ids()? {
            let accused = accuse_asking(account, &case, model.manifest(), model, salt).await?;
            report(Step::Accused(accused));
            let digest = Signed::<Receipt>::open(&case.receipt)?.prompt_digest;
            let Some(ids) = shown_ids(account, accused.id, &digest).await? else {
                return Ok(Contested { accused, verdict: verdict(account, accused.id).await? });
            };
            report(Step::Shown { ids: ids.len(), expected: case.given_ids.len() });
            (asked, case.given_ids) = (Some(accused), ids);
        }
        let (bytes, began) = (file.open()?, std::time::Instant::now());
        let (threads, room) = (machine::cores(), TraceRoom::here(folder.to_owned()));
        let mut prepared = tokio::task::block_in_place(|| {
            Prepared::new(case, model.manifest(), model, bytes, threads, &room, &mut |_, _| {})
        })?;
        if let Some(seed) = bent {
            tracing::warn!("one bit of this side's trace is bent: the accusation is false");
            prepared.bend(seed);
        }
        let found = if bent.is_some() { Some(Accusation::Trace) } else { accusation(&prepared) };
        let accusation = match (found, asked) {
            (Some(accusation), _) => accusation,
            (None, None) => continue,
            // It is another division of the same text: the bond is lost.
            (None, Some(_)) => Accusation::Prompt,
        };
        report(Step::Trace { words: prepared.words(), milliseconds: began.elapsed().as_millis() });
        let accused = match asked {
            Some(accused) => accused,
            None => {
                let accused = accuse(account, &prepared, accusation, salt).await?;
                report(Step::Accused(accused));
                accused
            }
        };
        let verdict =
            play(account, accused.id, Side::Challenger, &prepared, &mut |made| report(Step::Move(made)))
                .await?;
        return Ok(Contested { accused, verdict });
    }
    Err(hinted(
        "this machine computes what the receipts say: there is nothing to contest",
        "`surety verify --recompute` says what was compared; docs/operating/disputes.md says what is not judged on the ledger",
    ))
}

/// The case of one answer; none if it has no completed receipt with an output.
fn case(answer: &Answer, model: &Model) -> anyhow::Result<Option<Case>> {
    let Some(receipt) = &answer.receipt else { return Ok(None) };
    if answer.output_ids.is_empty() || Signed::<Receipt>::open(receipt)?.failure().is_some() {
        return Ok(None);
    }
    let request = Request::from_cbor(&answer.request)?;
    let prompt = match &answer.prompt_ids {
        Some(ids) => ids.clone(),
        None => model.prompt_tokens(&request)?,
    };
    let channel = answer.channel.as_deref().map(Channel::from_cbor).transpose()?;
    Ok(Some(Case {
        order: answer.order.clone(),
        receipt: receipt.clone(),
        request: answer.request.clone(),
        given_ids: [prompt, answer.resumed_ids.clone()].concat(),
        output_ids: answer.output_ids.clone(),
        text: answer.text.clone(),
        salt: Some(answer.salt),
        channel,
    }))
}
