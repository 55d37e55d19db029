//! Governance: proposals as they stand, in words, and what can be voted on.
//!
//! In:     a ledger. Out: its proposals, the newest first, each with what it changes, how the votes stand and what comes next;
//!         the parameters, with the bounds that governance itself may not leave.
//! Touches: the network, through the ledger.
//! Holds:  everything but titles is proven; lists are bounded.
//! Absent: acting (`surety gov`, wallets); how it is shown (`bin`, `web`).

use alloy_primitives::{B256, U256};
use alloy_sol_types::SolEvent;
use serde::Serialize;
use serde_json::{Value, json};
use surety_chain::{PARAMETERS, Parameter, Params};
use surety_types::abi::{
    IGovernance::{self, Change, Proposal, Upgrade},
    IStaking,
    address::{GOVERNANCE, STAKING},
};

use super::{Ledger, LedgerError, Viewed, Views, powers::span, survey::each};

/// The latest proposals that are listed.
pub const LISTED_MAX: u64 = 50;
/// Proposals in one question.
const TOGETHER: usize = 8;
/// Changes or binaries of one proposal that are listed.
const CHANGES_MAX: usize = 64;
/// Bytes of a title that are shown; the rest is its proposer's alone.
const TITLE_BYTES_MAX: usize = 200;

/// What can be decided, and what is being decided. Amounts are wei, as decimal text.
#[derive(Clone, Debug, Serialize)]
pub struct Governance {
    /// The block of parameters and stake; each proposal names its own.
    pub number: u64,
    /// Its time, Unix milliseconds: that by which votes and timelocks end.
    pub timestamp_ms: u64,
    /// EIP-155.
    pub chain_id: u64,
    /// Where votes are sent.
    pub address: String,
    /// All stake: each wei of it is a vote.
    pub bonded_total: String,
    /// Stake that must vote for a vote to count.
    pub quorum_needed: String,
    /// Of the votes for and against, more than so many ten-thousandths must be for it.
    pub threshold_bps: u64,
    /// Stake that a proposer needs.
    pub proposal_stake_min: String,
    /// Seconds that a vote lasts.
    pub voting_s: u64,
    /// Seconds between a proposal's passing and its execution.
    pub timelock_s: u64,
    /// Proposals that were ever made, listed or not.
    pub proposal_count: u64,
    /// The latest, the newest first.
    pub proposals: Vec<ShownProposal>,
    /// Every parameter, as it stands.
    pub parameters: Vec<ShownParameter>,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownParameter {
    /// As proposals call it.
    pub name: &'static str,
    /// In its own unit, which the name ends with.
    pub value: String,
    /// Governance can set no less.
    pub least: String,
    /// Governance can set no more.
    pub most: String,
    /// Whether genesis has fixed it.
    pub fixed: bool,
}

/// A proposal, for people and scripts. Everything but the title is proven. Amounts are wei, as decimal text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownProposal {
    /// Its number, from one.
    pub id: u64,
    /// A node's word, at most some of it.
    pub title: Option<String>,
    /// Who proposed it.
    pub proposer: String,
    /// `parameter`, `upgrade` or `cancel-upgrade`.
    pub kind: &'static str,
    /// `voting`, `defeated`, `succeeded`, `queued`, `executable`, `executed` or `expired`.
    pub state: &'static str,
    /// What comes next, in words.
    pub next: String,
    /// Unix seconds.
    pub voting_ends_at: u64,
    /// Unix seconds; none: not queued.
    pub executable_at: Option<u64>,
    /// Stake for it.
    pub votes_for: String,
    /// Stake against it.
    pub votes_against: String,
    /// Stake that counts towards the quorum only.
    pub votes_abstaining: String,
    /// All stake.
    pub bonded_total: String,
    /// Stake that must vote.
    pub quorum_needed: String,
    /// Whether it has.
    pub quorum_reached: bool,
    /// What it would set.
    pub changes: Vec<ShownChange>,
    /// What it would have run.
    pub upgrade: Option<ShownUpgrade>,
    /// Of the block it is shown as of.
    pub number: u64,
}

/// A parameter that is to be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownChange {
    /// Which.
    pub name: String,
    /// As it stands; none: this software does not know it.
    pub now: Option<String>,
    /// As it would be, or was set.
    pub proposed: String,
}

/// A version that is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownUpgrade {
    /// Its first block.
    pub height: u64,
    /// As the software calls itself.
    pub version: String,
    /// Of its source.
    pub source_revision: String,
    /// SHA-256 of what may run it; none: any build of the source.
    pub binary_hashes: Vec<String>,
}

struct Base {
    params: Params,
    bonded: U256,
    count: u64,
}

struct Read {
    id: u64,
    proposal: Proposal,
    changes: Vec<Change>,
    upgrade: Option<Upgrade>,
}

impl Ledger {
    /// What can be decided, and what is being decided.
    ///
    /// # Errors
    /// If the ledger cannot be asked.
    pub async fn governance(&self) -> Result<Governance, LedgerError> {
        let Viewed { tip, value: base } = self.views(base).await?;
        let ids: Vec<u64> = (1..=base.count).rev().take(LISTED_MAX as usize).collect();
        let mut proposals = Vec::new();
        for ids in ids.chunks(TOGETHER) {
            let Viewed { tip, value: read } =
                self.views(|views| each(ids, |id| proposal(views, *id))).await?;
            let (now_s, number) = (tip.timestamp_ms / 1_000, tip.number);
            proposals.extend(read.iter().map(|read| shown(read, &base, now_s, number)));
        }
        if !proposals.is_empty() {
            let titles = titles(self, None).await;
            for shown in &mut proposals {
                shown.title = titles.iter().find(|(id, _)| *id == shown.id).map(|(_, title)| title.clone());
            }
        }
        let Base { params, bonded, count } = base;
        Ok(Governance {
            number: tip.number,
            timestamp_ms: tip.timestamp_ms,
            chain_id: self.chain_id(),
            address: GOVERNANCE.to_string(),
            bonded_total: bonded.to_string(),
            quorum_needed: quorum(&params, bonded).to_string(),
            threshold_bps: params.threshold_bps,
            proposal_stake_min: params.proposal_stake_min.to_string(),
            voting_s: params.voting_s,
            timelock_s: params.timelock_s,
            proposal_count: count,
            proposals,
            parameters: parameters(&params),
        })
    }

    /// One proposal; none if there is no such.
    ///
    /// # Errors
    /// If the ledger cannot be asked.
    pub async fn proposal(&self, id: u64) -> Result<Option<ShownProposal>, LedgerError> {
        let read = self.views(|views| {
            let base = base(views)?;
            if id == 0 || id > base.count {
                return Some(None);
            }
            let read = proposal(views, id)?;
            Some(Some((base, read)))
        });
        let Viewed { tip, value } = read.await?;
        let Some((base, read)) = value else { return Ok(None) };
        let mut shown = shown(&read, &base, tip.timestamp_ms / 1_000, tip.number);
        shown.title = titles(self, Some(id)).await.pop().map(|(_, title)| title);
        Ok(Some(shown))
    }
}

fn base(views: &mut Views<'_>) -> Option<Base> {
    let params = views.read(|state, _| surety_chain::params(state));
    let bonded = views.call(STAKING, &IStaking::bondedTotalCall {});
    let count = views.call(GOVERNANCE, &IGovernance::proposalCountCall {})?;
    Some(Base { params: params?, bonded: bonded?, count: u64::try_from(count).unwrap_or(u64::MAX) })
}

fn proposal(views: &mut Views<'_>, id: u64) -> Option<Read> {
    let number = U256::from(id);
    let proposal = views.call(GOVERNANCE, &IGovernance::proposalCall { id: number })?;
    let (mut changes, mut upgrade) = (Vec::new(), None);
    match proposal.kind {
        0 => changes = views.call(GOVERNANCE, &IGovernance::changesOfCall { id: number })?,
        1 => upgrade = Some(views.call(GOVERNANCE, &IGovernance::upgradeOfCall { id: number })?),
        _ => {}
    }
    Some(Read { id, proposal, changes, upgrade })
}

fn quorum(params: &Params, bonded: U256) -> U256 {
    bonded.saturating_mul(U256::from(params.quorum_bps)).div_ceil(U256::from(10_000))
}

fn parameters(params: &Params) -> Vec<ShownParameter> {
    let shown = PARAMETERS.iter().enumerate().map(|(index, parameter)| ShownParameter {
        name: parameter.name,
        value: params.value(index).unwrap_or_default().to_string(),
        least: parameter.least.to_string(),
        most: parameter.most.to_string(),
        fixed: parameter.fixed,
    });
    shown.collect()
}

/// Titles are in no state, only in the log of the transaction that proposed: a node's word, and only if it still has it.
async fn titles(ledger: &Ledger, id: Option<u64>) -> Vec<(u64, String)> {
    let mut topics = vec![json!(IGovernance::Proposed::SIGNATURE_HASH)];
    topics.extend(id.map(|id| json!(B256::from(U256::from(id)))));
    let filter =
        json!([{ "address": GOVERNANCE, "topics": topics, "fromBlock": "earliest", "toBlock": "latest" }]);
    let Ok(Value::Array(logs)) = ledger.unverified("eth_getLogs", filter).await else { return Vec::new() };
    logs.iter().filter_map(title).collect()
}

fn title(log: &Value) -> Option<(u64, String)> {
    use alloy_sol_types::{
        SolType,
        sol_data::{String as Text, Uint},
    };
    let id: U256 = log["topics"][1].as_str()?.parse().ok()?;
    let data = alloy_primitives::hex::decode(log["data"].as_str()?).ok()?;
    let (_, _, mut title) = <(Uint<8>, Uint<64>, Text)>::abi_decode_params(&data).ok()?;
    title.truncate(title.floor_char_boundary(TITLE_BYTES_MAX));
    Some((u64::try_from(id).ok()?, title))
}

fn change(change: &Change, params: &Params) -> ShownChange {
    let index = Parameter::index_of(&change.name);
    let name = index
        .and_then(|index| PARAMETERS.get(index))
        .map_or_else(|| change.name.to_string(), |parameter| parameter.name.to_owned());
    let now = index.and_then(|index| params.value(index)).map(|value| value.to_string());
    ShownChange { name, now, proposed: change.value.to_string() }
}

/// A proposal in words.
fn shown(read: &Read, base: &Base, now_s: u64, number: u64) -> ShownProposal {
    let Read { id, proposal, changes, upgrade } = read;
    let Base { params, bonded, .. } = base;
    let cast = [proposal.votesFor, proposal.votesAgainst, proposal.votesAbstaining];
    let cast = cast.into_iter().fold(U256::ZERO, U256::saturating_add);
    let quorum = quorum(params, *bonded);
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
    ShownProposal {
        id: *id,
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
        changes: changes.iter().take(CHANGES_MAX).map(|one| change(one, params)).collect(),
        upgrade: upgrade.as_ref().map(|upgrade| ShownUpgrade {
            height: upgrade.height,
            version: upgrade.version.clone(),
            source_revision: upgrade.sourceRevision.to_string(),
            binary_hashes: upgrade.binaryHashes.iter().take(CHANGES_MAX).map(ToString::to_string).collect(),
        }),
        number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::Address;
    use proptest::prelude::*;

    fn read(state: u8) -> Read {
        let proposal = Proposal {
            proposer: Address::repeat_byte(1),
            kind: 0,
            state,
            votingEndsAt: 1_000,
            executableAt: if state >= 4 { 2_000 } else { 0 },
            votesFor: U256::from(30),
            votesAgainst: U256::from(3),
            votesAbstaining: U256::ZERO,
        };
        Read { id: 1, proposal, changes: Vec::new(), upgrade: None }
    }

    fn base(params: Params) -> Base {
        Base { params, bonded: U256::from(100), count: 1 }
    }

    #[test]
    fn each_state_says_what_comes_next() {
        let base = base(Params { execution_s: 600, timelock_s: 7_200, ..Params::default() });
        let check = |state, now, expected_state: &str, expected: &str| {
            let shown = shown(&read(state), &base, now, 9);
            assert_eq!((shown.state, shown.next.as_str()), (expected_state, expected));
        };
        check(1, 880, "voting", "voting ends in 2 minutes");
        check(2, 1_001, "defeated", "nothing: it did not pass");
        check(3, 1_300, "succeeded", "queue it within 5 minutes; then it waits 2 hours");
        check(4, 1_999, "queued", "the timelock ends in 1 second; then execute it");
        check(5, 2_000, "executable", "execute it within 10 minutes");
        check(6, 2_000, "executed", "nothing: it is done");
        check(7, 9_000, "expired", "nothing: nobody went on with it in time");
        check(8, 9_000, "unknown", "unknown: another version of the software knows");
    }

    #[test]
    fn the_quorum_counts_every_vote() {
        let base = base(Params { quorum_bps: 3_334, ..Params::default() });
        let mut read = read(1);
        let reached = |read: &Read| {
            let shown = shown(read, &base, 0, 9);
            assert_eq!(shown.quorum_needed, "34");
            shown.quorum_reached
        };
        assert!(!reached(&read));
        read.proposal.votesAbstaining = U256::from(1);
        assert!(reached(&read));
    }

    #[test]
    fn changes_name_what_is_so_now() {
        let base = base(Params { pace_ms: 250, ..Params::default() });
        let mut read = read(1);
        let pace = PARAMETERS.iter().find(|parameter| parameter.name == "pace_ms").unwrap();
        read.changes = vec![
            Change { name: pace.name_word(), value: U256::from(500) },
            Change { name: B256::repeat_byte(0xff), value: U256::from(1) },
        ];
        let changes = shown(&read, &base, 0, 9).changes;
        assert_eq!((changes[0].name.as_str(), changes[0].now.as_deref()), ("pace_ms", Some("250")));
        assert_eq!(changes[0].proposed, "500");
        assert!(changes[1].name.starts_with("0xffff") && changes[1].now.is_none());
        let listed = parameters(&base.params);
        assert_eq!(listed.len(), PARAMETERS.len());
        assert!(listed.iter().any(|one| one.name == "timelock_floor_s" && one.fixed));
    }

    proptest! {
        /// Whatever a node says, a title is short text, or none.
        #[test]
        fn titles_are_bounded(id in any::<u64>(), words in "\\PC{0,300}", cut in 0..2_000_usize) {
            let event = IGovernance::Proposed {
                id: U256::from(id), proposer: Address::ZERO, kind: 0, votingEndsAt: 1, title: words.clone(),
            };
            let data = alloy_primitives::hex::encode(event.encode_data());
            let log = |data: &str| json!({ "topics": [null, B256::from(U256::from(id))], "data": data });
            let (found, said) = title(&log(&data)).expect("a title");
            prop_assert!(found == id && words.starts_with(&said) && said.len() <= TITLE_BYTES_MAX);
            if let Some((_, said)) = title(&log(data.get(..cut).unwrap_or(""))) {
                prop_assert!(said.len() <= TITLE_BYTES_MAX);
            }
        }
    }
}
