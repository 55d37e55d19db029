//! `surety gov`: proposals, votes, and what comes of them.

use alloy_primitives::{B256, U256};
use alloy_sol_types::{SolCall, SolEvent};
use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};
use surety_chain::{PARAMETERS, Parameter, Params};
use surety_client::ledger::{Landed, Ledger, LedgerError, TransactionCall, Viewed, powers::span};
use surety_types::abi::{
    IGovernance::{self, Change, Proposal, Upgrade},
    IStaking,
    address::{GOVERNANCE, STAKING},
};

use super::Outcome;
use crate::{
    cli::Global,
    data_dir::DataDir,
    look::{ActorArgs, LookArgs, aligned, credits},
    output::{self, Style, hinted, out_style, printable},
};

const HINT: &str = "`surety gov show ID` says what can be done now, `surety economics` who has bonded what";
/// The latest proposals that are listed.
const LISTED_MAX: u64 = 50;

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

/// A proposal, for people and scripts. Everything but the title is proven.
#[derive(Debug, Serialize)]
struct Shown {
    id: u64,
    /// A node's word.
    title: Option<String>,
    proposer: String,
    kind: &'static str,
    state: &'static str,
    next: String,
    voting_ends_at: u64,
    executable_at: Option<u64>,
    votes_for: String,
    votes_against: String,
    votes_abstaining: String,
    bonded_total: String,
    quorum_needed: String,
    quorum_reached: bool,
    changes: Vec<ShownChange>,
    upgrade: Option<ShownUpgrade>,
    /// Of the block it is shown as of.
    number: u64,
}

#[derive(Debug, Serialize)]
struct ShownChange {
    name: String,
    now: Option<String>,
    proposed: String,
}

#[derive(Debug, Serialize)]
struct ShownUpgrade {
    height: u64,
    version: String,
    source_revision: String,
    binary_hashes: Vec<String>,
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
    let read = ledger.views(|views| {
        let count = views.call(GOVERNANCE, &IGovernance::proposalCountCall {})?;
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let proposals: Vec<Option<(u64, Proposal)>> = (1..=count)
            .rev()
            .take(LISTED_MAX as usize)
            .map(|id| {
                let proposal = views.call(GOVERNANCE, &IGovernance::proposalCall { id: U256::from(id) })?;
                Some((id, proposal))
            })
            .collect();
        let params = views.read(|state, _| surety_chain::params(state));
        let bonded = views.call(STAKING, &IStaking::bondedTotalCall {});
        Some((proposals.into_iter().collect::<Option<Vec<_>>>()?, params?, bonded?))
    });
    let Viewed { tip, value: (proposals, params, bonded) } = read.await?;
    let titles = titles(ledger, None).await;
    let shown: Vec<Shown> = proposals
        .into_iter()
        .map(|(id, proposal)| {
            let mut shown = describe(id, &proposal, &params, bonded, tip.timestamp_ms / 1_000, tip.number);
            shown.title = titles.iter().find(|(known, _)| *known == id).map(|(_, title)| title.clone());
            shown
        })
        .collect();
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
    let number = U256::from(id);
    let read = ledger.views(|views| {
        let params = views.read(|state, _| surety_chain::params(state));
        let bonded = views.call(STAKING, &IStaking::bondedTotalCall {});
        let count = views.call(GOVERNANCE, &IGovernance::proposalCountCall {})?;
        if number.is_zero() || number > count {
            return Some(Err((count, params?, bonded?)));
        }
        let proposal = views.call(GOVERNANCE, &IGovernance::proposalCall { id: number })?;
        let (mut changes, mut upgrade) = (Vec::new(), None);
        match proposal.kind {
            0 => changes = views.call(GOVERNANCE, &IGovernance::changesOfCall { id: number })?,
            1 => upgrade = Some(views.call(GOVERNANCE, &IGovernance::upgradeOfCall { id: number })?),
            _ => {}
        }
        Some(Ok((proposal, changes, upgrade, params?, bonded?)))
    });
    let Viewed { tip, value } = read.await?;
    let (proposal, changes, upgrade, params, bonded) = value.map_err(|(count, ..)| {
        hinted(format!("there is no proposal {id}; there are {count}"), "`surety gov list` shows them")
    })?;
    let mut shown = describe(id, &proposal, &params, bonded, tip.timestamp_ms / 1_000, tip.number);
    shown.title = titles(ledger, Some(id)).await.pop().map(|(_, title)| title);
    shown.changes = changes.iter().map(|change| shown_change(change, &params)).collect();
    shown.upgrade = upgrade.map(|upgrade| ShownUpgrade {
        height: upgrade.height,
        version: upgrade.version,
        source_revision: upgrade.sourceRevision.to_string(),
        binary_hashes: upgrade.binaryHashes.iter().map(ToString::to_string).collect(),
    });
    if global.json {
        output::json(&shown)?;
    } else {
        for line in text(&shown, &proposal, bonded) {
            output::line(line)?;
        }
    }
    Ok(Outcome::Done)
}

fn shown_change(change: &Change, params: &Params) -> ShownChange {
    let index = Parameter::index_of(&change.name);
    let name = index
        .and_then(|index| PARAMETERS.get(index))
        .map_or_else(|| change.name.to_string(), |parameter| parameter.name.to_owned());
    let now = index.and_then(|index| params.value(index)).map(|value| value.to_string());
    ShownChange { name, now, proposed: change.value.to_string() }
}

/// Titles are in no state, only in the log of the transaction that proposed: a node's word, and only if it still has it.
async fn titles(ledger: &Ledger, id: Option<u64>) -> Vec<(u64, String)> {
    let mut topics = vec![json!(IGovernance::Proposed::SIGNATURE_HASH)];
    topics.extend(id.map(|id| json!(B256::from(U256::from(id)))));
    let filter =
        json!([{ "address": GOVERNANCE, "topics": topics, "fromBlock": "earliest", "toBlock": "latest" }]);
    let Ok(Value::Array(logs)) = ledger.unverified("eth_getLogs", filter).await else { return Vec::new() };
    let title = |log: &Value| {
        let id: U256 = log["topics"][1].as_str()?.parse().ok()?;
        let data = alloy_primitives::hex::decode(log["data"].as_str()?).ok()?;
        let (_, _, title) = <(
            alloy_sol_types::sol_data::Uint<8>,
            alloy_sol_types::sol_data::Uint<64>,
            alloy_sol_types::sol_data::String,
        ) as alloy_sol_types::SolType>::abi_decode_params(&data)
        .ok()?;
        Some((u64::try_from(id).ok()?, title))
    };
    logs.iter().filter_map(title).collect()
}

/// A proposal in words.
fn describe(id: u64, proposal: &Proposal, params: &Params, bonded: U256, now_s: u64, number: u64) -> Shown {
    let cast = [proposal.votesFor, proposal.votesAgainst, proposal.votesAbstaining];
    let cast = cast.into_iter().fold(U256::ZERO, U256::saturating_add);
    let quorum = bonded.saturating_mul(U256::from(params.quorum_bps)).div_ceil(U256::from(10_000));
    let until = |at: u64| span(at.saturating_sub(now_s));
    let (state, next) = match proposal.state {
        1 => ("voting", format!("voting ends in {}", until(proposal.votingEndsAt))),
        2 => ("defeated", "nothing: it did not pass".to_owned()),
        3 => (
            "succeeded",
            format!(
                "queue it within {}; then it waits {}",
                until(proposal.votingEndsAt.saturating_add(params.execution_s)),
                span(params.timelock_s)
            ),
        ),
        4 => ("queued", format!("the timelock ends in {}; then execute it", until(proposal.executableAt))),
        5 => (
            "executable",
            format!("execute it within {}", until(proposal.executableAt.saturating_add(params.execution_s))),
        ),
        6 => ("executed", "nothing: it is done".to_owned()),
        7 => ("expired", "nothing: nobody went on with it in time".to_owned()),
        _ => ("unknown", "unknown: another version of the software knows".to_owned()),
    };
    Shown {
        id,
        title: None,
        proposer: proposal.proposer.to_string(),
        kind: match proposal.kind {
            0 => "parameter",
            1 => "upgrade",
            2 => "cancel-upgrade",
            _ => "unknown",
        },
        state,
        next,
        voting_ends_at: proposal.votingEndsAt,
        executable_at: (proposal.executableAt != 0).then_some(proposal.executableAt),
        votes_for: proposal.votesFor.to_string(),
        votes_against: proposal.votesAgainst.to_string(),
        votes_abstaining: proposal.votesAbstaining.to_string(),
        bonded_total: bonded.to_string(),
        quorum_needed: quorum.to_string(),
        quorum_reached: cast >= quorum,
        changes: Vec::new(),
        upgrade: None,
        number,
    }
}

fn percent(part: U256, whole: U256) -> String {
    if whole.is_zero() {
        return "0%".into();
    }
    let tenths = part.saturating_mul(U256::from(1_000)) / whole;
    format!("{}.{}%", tenths / U256::from(10), tenths % U256::from(10))
}

fn text(shown: &Shown, proposal: &Proposal, bonded: U256) -> Vec<String> {
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
    let row = |name: &str, votes: U256| {
        vec![format!("  {name}"), credits(votes), format!("{} of the bonded stake", percent(votes, bonded))]
    };
    let rows = [
        row("for", proposal.votesFor),
        row("against", proposal.votesAgainst),
        row("abstaining", proposal.votesAbstaining),
        vec![
            "  quorum".to_owned(),
            credits(shown.quorum_needed.parse().unwrap_or_default()),
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
    use alloy_primitives::Address;

    fn proposal(state: u8) -> Proposal {
        Proposal {
            proposer: Address::repeat_byte(1),
            kind: 0,
            state,
            votingEndsAt: 1_000,
            executableAt: if state >= 4 { 2_000 } else { 0 },
            votesFor: U256::from(30),
            votesAgainst: U256::from(3),
            votesAbstaining: U256::ZERO,
        }
    }

    #[test]
    fn each_state_says_what_comes_next() {
        let params = Params { execution_s: 600, timelock_s: 7_200, ..Params::default() };
        let check = |state, now, expected_state: &str, expected: &str| {
            let shown = describe(1, &proposal(state), &params, U256::from(100), now, 9);
            assert_eq!((shown.state, shown.next.as_str()), (expected_state, expected));
        };
        check(1, 880, "voting", "voting ends in 2 minutes");
        check(2, 1_001, "defeated", "nothing: it did not pass");
        check(3, 1_300, "succeeded", "queue it within 5 minutes; then it waits 2 hours");
        check(4, 1_999, "queued", "the timelock ends in 1 second; then execute it");
        check(5, 2_000, "executable", "execute it within 10 minutes");
        check(6, 2_000, "executed", "nothing: it is done");
        check(7, 9_000, "expired", "nothing: nobody went on with it in time");
    }

    #[test]
    fn the_quorum_counts_every_vote() {
        let params = Params { quorum_bps: 3_334, ..Params::default() };
        let mut proposal = proposal(1);
        let reached = |proposal: &Proposal| {
            let shown = describe(1, proposal, &params, U256::from(100), 0, 9);
            assert_eq!(shown.quorum_needed, "34");
            shown.quorum_reached
        };
        assert!(!reached(&proposal));
        proposal.votesAbstaining = U256::from(1);
        assert!(reached(&proposal));
    }

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
