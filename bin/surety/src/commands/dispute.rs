//! `surety dispute open|list|show|replay`: contesting receipts, and looking at what came of it.
//!
//! In:     evidence, or the number of a dispute.
//! Out:    moves on the ledger; what it says; a bundle from which anyone replays the verdict.
//! Touches: the ledger; the model, where a trace is computed; files.
//! Holds:  what a dispute's state is comes as proven state; a replay asks nobody.
//! Absent: the moves themselves (`surety_worker::dispute`), the judge (`surety_proof::dispute`).

use std::{fmt, path::Path};

use anyhow::Context as _;
use serde::Serialize;
use surety_client::{account_on, channel::Account, ledger::Ledger};
use surety_engine::Model;
use surety_types::{
    Answer, Canonical as _, Channel, Digest, Evidence, PublicKey, Receipt, Request, Signed,
    abi::{IDisputes, address::DISPUTES},
};
use surety_worker::{
    dispute::{
        Accusation, Accused, Case, Move, Prepared, Side, TraceRoom, Verdict, accusation, accuse, play,
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
    output::{self, Style, hinted, out_style},
    verification::{Known, verify},
};

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
    #[command(flatten)]
    actor: ActorArgs,
}

/// One dispute.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Its number.
    id: u64,
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
            if global.json {
                output::json(&shown)?;
            } else {
                print(&shown)?;
            }
            Ok(Outcome::Done)
        }
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
    let contested =
        contest(&*account, &evidence, &model, &file, &data_dir.cache(), &mut |step| output::note(step))
            .await?;
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
            Step::Accused(Accused { id, bond, .. }) => {
                write!(f, "dispute {id} is open; bond {}", credits(*bond))
            }
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

/// Contests the answers of some evidence by this model's computation, to the verdict about the first that is wrong. A trace that
/// takes more memory than there is goes to `folder`.
pub async fn contest(
    account: &dyn Account,
    evidence: &[u8],
    model: &Model,
    file: &ModelFile,
    folder: &Path,
    report: &mut (dyn FnMut(Step) + Send),
) -> anyhow::Result<Contested> {
    let evidence = Evidence::parse(evidence)?;
    for answer in &evidence.answers {
        let Some(case) = case(answer, model)? else { continue };
        let (bytes, began) = (file.open()?, std::time::Instant::now());
        let (threads, room) = (machine::cores(), TraceRoom::here(folder.to_owned()));
        let prepared = tokio::task::block_in_place(|| {
            Prepared::new(case, model.manifest(), model, bytes, threads, &room, &mut |_, _| {})
        })?;
        let Some(accusation) = accusation(&prepared) else { continue };
        report(Step::Trace { words: prepared.words(), milliseconds: began.elapsed().as_millis() });
        let mut salt = [0; 32];
        getrandom::fill(&mut salt)
            .map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
        let accused = accuse(account, &prepared, accusation, salt).await?;
        report(Step::Accused(accused));
        let verdict =
            play(account, accused.id, Side::Challenger, &prepared, &mut |made| report(Step::Move(made)))
                .await?;
        return Ok(Contested { accused, verdict });
    }
    Err(hinted(
        "this machine computes what the receipts say: there is nothing to contest",
        "`surety verify --recompute` says what was compared; how a prompt is tokenised, and what text tokens spell, is not \
         judged on the ledger",
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
        salt: Some(answer.salt),
        channel,
    }))
}
