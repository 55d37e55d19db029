//! `surety gov`: proposals, votes, and what comes of them.

use alloy_primitives::{B256, U256};
use alloy_sol_types::{SolCall, SolEvent};
use anyhow::Context;
use serde::Serialize;
use surety_chain::{PARAMETERS, Parameter};
use surety_client::ledger::{Landed, Ledger, LedgerError, TransactionCall, governance::ShownProposal};
use surety_types::abi::{
    IGovernance::{self, Change, Upgrade},
    address::GOVERNANCE,
};

use super::Outcome;
use crate::{
    cli::Global,
    data_dir::DataDir,
    look::{ActorArgs, LookArgs, aligned, credits},
    output::{self, Style, hinted, out_style, printable},
};

const HINT: &str = "`surety gov show ID` says what can be done now, `surety economics` who has bonded what";

/// What `gov` can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List proposals, the newest first.
    List(LookArgs),
    /// Show a proposal: what it would do, how the votes stand, what comes next.
    Show(OneArgs),
    /// Propose a change; it needs the proposal's minimum stake.
    #[command(subcommand)]
    Propose(Propose),
    /// Vote with everything the account has bonded; a later vote replaces an earlier one.
    Vote(VoteArgs),
    /// Start the timelock of a proposal that passed. Anyone may.
    Queue(ActArgs),
    /// Do what a proposal says, once its timelock is over. Anyone may.
    Execute(ActArgs),
}

/// One proposal.
#[derive(Debug, clap::Args)]
pub struct OneArgs {
    /// Its number.
    id: u64,
    #[command(flatten)]
    look: LookArgs,
}

/// An act on one proposal.
#[derive(Debug, clap::Args)]
pub struct ActArgs {
    /// Its number.
    id: u64,
    #[command(flatten)]
    actor: ActorArgs,
}

/// A vote.
#[derive(Debug, clap::Args)]
pub struct VoteArgs {
    /// The proposal's number.
    id: u64,
    /// How to vote.
    support: Support,
    #[command(flatten)]
    actor: ActorArgs,
}

/// How to vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Support {
    /// It shall be done.
    For,
    /// It shall not.
    Against,
    /// Counts towards the quorum only.
    Abstain,
}

/// What to propose.
#[derive(Debug, clap::Subcommand)]
pub enum Propose {
    /// Change parameters.
    Parameter(ProposeParameterArgs),
    /// Run another version from a height on.
    Upgrade(ProposeUpgradeArgs),
    /// Drop the upgrade that is scheduled.
    CancelUpgrade(ProposeCancellationArgs),
}

/// Parameters to change.
#[derive(Debug, clap::Args)]
pub struct ProposeParameterArgs {
    /// Each with its new value: a whole number, in the parameter's own unit.
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = change)]
    changes: Vec<Change>,
    /// What it is called.
    #[arg(long, value_name = "TEXT")]
    title: String,
    #[command(flatten)]
    actor: ActorArgs,
}

/// A version to run.
#[derive(Debug, clap::Args)]
pub struct ProposeUpgradeArgs {
    /// Its first block.
    #[arg(long, value_name = "BLOCK")]
    height: u64,
    /// As the software calls itself.
    #[arg(id = "to", long, value_name = "VERSION")]
    version: String,
    /// The revision of its source, 20 or 32 bytes in hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = revision)]
    source_revision: B256,
    /// SHA-256 of a binary that may run it; may be given several times; none: any build of the source.
    #[arg(long = "binary-hash", value_name = "HEX")]
    binary_hashes: Vec<B256>,
    /// What it is called.
    #[arg(long, value_name = "TEXT")]
    title: String,
    #[command(flatten)]
    actor: ActorArgs,
}

/// That the scheduled upgrade be dropped.
#[derive(Debug, clap::Args)]
pub struct ProposeCancellationArgs {
    /// What it is called.
    #[arg(long, value_name = "TEXT")]
    title: String,
    #[command(flatten)]
    actor: ActorArgs,
}

/// A parameter's name and value.
fn change(text: &str) -> Result<Change, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let parameter = PARAMETERS.iter().find(|parameter| parameter.name == name).ok_or_else(|| {
        let names: Vec<&str> =
            PARAMETERS.iter().filter(|known| !known.fixed).map(|known| known.name).collect();
        format!("there is no parameter {name}; there are {}", names.join(", "))
    })?;
    let Parameter { least, most, fixed, .. } = *parameter;
    if fixed {
        return Err(format!("{name} is fixed at genesis"));
    }
    let value: u128 = value.parse().map_err(|_| format!("{value} is no whole number"))?;
    if !(least..=most).contains(&value) {
        return Err(format!("{name} must be from {least} to {most}"));
    }
    Ok(Change { name: parameter.name_word(), value: U256::from(value) })
}

/// A revision, which git writes with 20 bytes and the ledger keeps in 32.
fn revision(text: &str) -> Result<B256, String> {
    let bytes = alloy_primitives::hex::decode(text).map_err(|error| error.to_string())?;
    match bytes.len() {
        20 | 32 => Ok(B256::right_padding_from(&bytes)),
        length => Err(format!("{length} bytes are no revision; 20 or 32 are")),
    }
}

/// What came of a command that changes something.
#[derive(Serialize)]
struct Acted {
    hash: String,
    number: u64,
    fee: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
}

/// Runs `gov`.
pub async fn run(global: Global, command: Command) -> anyhow::Result<Outcome> {
    let data_dir = DataDir::of(&global)?;
    match command {
        Command::List(look) => list(&global, &look.open(&data_dir)?.ledger).await,
        Command::Show(args) => show(&global, &args.look.open(&data_dir)?.ledger, args.id).await,
        Command::Propose(Propose::Parameter(args)) => {
            let call = IGovernance::proposeParametersCall { changes: args.changes, title: args.title };
            act(&global, &data_dir, &args.actor, &call).await
        }
        Command::Propose(Propose::Upgrade(args)) => {
            let upgrade_ = Upgrade {
                height: args.height,
                version: args.version,
                sourceRevision: args.source_revision,
                binaryHashes: args.binary_hashes,
            };
            let call = IGovernance::proposeUpgradeCall { upgrade_, title: args.title };
            act(&global, &data_dir, &args.actor, &call).await
        }
        Command::Propose(Propose::CancelUpgrade(args)) => {
            let call = IGovernance::proposeUpgradeCancellationCall { title: args.title };
            act(&global, &data_dir, &args.actor, &call).await
        }
        Command::Vote(args) => {
            let support = match args.support {
                Support::Against => 0,
                Support::For => 1,
                Support::Abstain => 2,
            };
            let call = IGovernance::voteCall { id: U256::from(args.id), support };
            act(&global, &data_dir, &args.actor, &call).await
        }
        Command::Queue(args) => {
            let call = IGovernance::queueCall { id: U256::from(args.id) };
            act(&global, &data_dir, &args.actor, &call).await
        }
        Command::Execute(args) => {
            let call = IGovernance::executeCall { id: U256::from(args.id) };
            act(&global, &data_dir, &args.actor, &call).await
        }
    }
}

async fn act<C: SolCall>(
    global: &Global,
    data_dir: &DataDir,
    actor: &ActorArgs,
    call: &C,
) -> anyhow::Result<Outcome> {
    let (ledger, wallet) = actor.open(data_dir)?;
    let call =
        TransactionCall { to: GOVERNANCE, input: call.abi_encode().into(), ..TransactionCall::default() };
    let mut landed = match ledger.submit(&wallet, vec![call]).await {
        Err(LedgerError::Reverted { reason: Some(reason), .. }) => {
            return Err(hinted(format!("the ledger refuses: {reason}"), HINT));
        }
        landed => landed?,
    };
    let landed = landed.pop().context("one call gives one result")?;
    if !landed.success {
        let why = landed.revert_reason.unwrap_or_else(|| "it gave no reason".into());
        return Err(hinted(format!("the ledger refused it in block {}: {why}", landed.number), HINT));
    }
    let id = proposed(&landed);
    if global.json {
        let (hash, fee) = (landed.hash.to_string(), landed.fee.to_string());
        output::json(&Acted { hash, number: landed.number, fee, id })?;
    } else {
        if let Some(id) = id {
            output::line(format_args!("proposal {id}"))?;
        }
        output::line(format_args!("block    {}", landed.number))?;
        output::line(format_args!("fee      {} credits", credits(landed.fee)))?;
    }
    Ok(Outcome::Done)
}

/// The number of a proposal that was just made.
fn proposed(landed: &Landed) -> Option<u64> {
    let mut events = landed.logs.iter().filter(|log| log.address == GOVERNANCE);
    events.find_map(|log| {
        let event = IGovernance::Proposed::decode_log(log).ok()?;
        u64::try_from(event.id).ok()
    })
}

async fn list(global: &Global, ledger: &Ledger) -> anyhow::Result<Outcome> {
    let shown = ledger.governance().await?.proposals;
    if global.json {
        output::json(&shown)?;
        return Ok(Outcome::Done);
    }
    if shown.is_empty() {
        output::line("no proposal was ever made")?;
    }
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|shown| {
            let title = shown.title.as_deref().map(printable).unwrap_or_default();
            vec![shown.id.to_string(), shown.kind.into(), shown.state.into(), title, shown.next.clone()]
        })
        .collect();
    for line in aligned(&rows) {
        output::line(line)?;
    }
    Ok(Outcome::Done)
}

async fn show(global: &Global, ledger: &Ledger, id: u64) -> anyhow::Result<Outcome> {
    let Some(shown) = ledger.proposal(id).await? else {
        let count = ledger.view(GOVERNANCE, &IGovernance::proposalCountCall {}).await?.value;
        let message = format!("there is no proposal {id}; there are {count}");
        return Err(hinted(message, "`surety gov list` shows them"));
    };
    if global.json {
        output::json(&shown)?;
    } else {
        for line in text(&shown) {
            output::line(line)?;
        }
    }
    Ok(Outcome::Done)
}

fn percent(part: U256, whole: U256) -> String {
    if whole.is_zero() {
        return "0%".into();
    }
    let tenths = part.saturating_mul(U256::from(1_000)) / whole;
    format!("{}.{}%", tenths / U256::from(10), tenths % U256::from(10))
}

fn text(shown: &ShownProposal) -> Vec<String> {
    let title = shown.title.as_deref().map_or_else(|| "(its title is not known)".to_owned(), printable);
    let mut lines = vec![out_style(Style::Bold, format!("Proposal {}: {title}", shown.id))];
    lines.push(format!("  {} by {}", shown.kind, shown.proposer));
    for change in &shown.changes {
        let now = change.now.as_deref().unwrap_or("unknown");
        lines.push(format!("  {}: {now} now, {} proposed", change.name, change.proposed));
    }
    if let Some(upgrade) = &shown.upgrade {
        lines.push(format!("  version {} from block {}", printable(&upgrade.version), upgrade.height));
        lines.push(format!("  source  {}", upgrade.source_revision));
        lines.extend(upgrade.binary_hashes.iter().map(|hash| format!("  binary  {hash}")));
    }
    let amount = |wei: &str| wei.parse::<U256>().unwrap_or_default();
    let bonded = amount(&shown.bonded_total);
    let row = |name: &str, votes: &str| {
        let votes = amount(votes);
        vec![format!("  {name}"), credits(votes), format!("{} of the bonded stake", percent(votes, bonded))]
    };
    let rows = [
        row("for", &shown.votes_for),
        row("against", &shown.votes_against),
        row("abstaining", &shown.votes_abstaining),
        vec![
            "  quorum".to_owned(),
            credits(amount(&shown.quorum_needed)),
            if shown.quorum_reached { "reached".to_owned() } else { "not reached".to_owned() },
        ],
    ];
    lines.extend(aligned(&rows));
    lines.push(format!("  {}: {}", out_style(Style::Bold, shown.state), shown.next));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_checked_before_they_are_sent() {
        let good = change("pace_ms=500").unwrap();
        assert_eq!((Parameter::index_of(&good.name).is_some(), good.value), (true, U256::from(500)));
        for wrong in ["pace_ms", "pace=5", "pace_ms=five", "pace_ms=1", "timelock_floor_s=100"] {
            assert!(change(wrong).is_err(), "{wrong}");
        }
        assert!(change("speed=1").unwrap_err().contains("pace_ms"), "it names those there are");
    }

    #[test]
    fn revisions_are_those_of_git() {
        let short = revision("0123456789012345678901234567890123456789").unwrap();
        assert_eq!(short.0[..2], [0x01, 0x23]);
        assert!(revision(&"ab".repeat(32)).is_ok() && revision("abcd").is_err() && revision("xyz").is_err());
    }
}
