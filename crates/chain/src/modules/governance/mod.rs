//! Governance: how parameters change and which version runs, by everyone who has bonded stake together.
//!
//! In:     proposals, votes, requests to queue and to execute what has passed.
//! Out:    changed parameters, a scheduled upgrade.
//! Touches: its own storage and that of `params`.
//! Holds:  nothing is executed that did not pass with quorum and threshold and wait the whole timelock of the moment it
//!         was queued; a timelock is shortened by nothing else, and never below its floor; leaving is always faster.
//! Absent: any other way to change a rule.
//!
//! A vote weighs what its voter has bonded when voting. Stake that leaves stays locked for at least as long as a vote
//! lasts (`voting_s` ≤ `unbonding_s`), so that none is counted twice.

#[cfg(test)]
mod tests;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall as _;
use surety_types::abi::{
    IGovernance::{self, Change, Upgrade},
    address::GOVERNANCE,
};

use super::{Call, decode, params, staking, takes_no_value};
use crate::{
    host::{Host, Outcome, Slot, checked, refuse, require},
    params::{PARAMETERS, Parameter},
    validators::UpgradePlan,
};

mod tag {
    /// Proposals so far.
    pub(super) const COUNT: u8 = 1;
    /// Of a proposal: proposer, times, votes; eight slots.
    pub(super) const PROPOSAL: u8 = 2;
    /// Of a proposal: the list of its changes, name and value alternating.
    pub(super) const CHANGES: u8 = 3;
    /// Of a proposal: its upgrade.
    pub(super) const UPGRADE: u8 = 4;
    /// Of a proposal and an account: its vote.
    pub(super) const VOTE: u8 = 5;
    /// The upgrade that is scheduled or came last, laid out as a proposal's.
    pub(super) const SCHEDULED: u8 = 6;
    /// Of an upgrade's place: version, hashes.
    pub(super) const UPGRADE_VERSION: u8 = 7;
    pub(super) const UPGRADE_HASHES: u8 = 8;
}

const CHANGES_MAX: usize = PARAMETERS.len();
const TITLE_BYTES_MAX: usize = 256;
const VERSION_BYTES_MAX: usize = 64;
const BINARIES_MAX: usize = 16;
/// Ten-thousandths of a whole.
const WHOLE_BPS: u64 = 10_000;

/// What a proposal would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parameters = 0,
    Upgrade = 1,
    Cancellation = 2,
}

/// Where a proposal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    None = 0,
    Voting = 1,
    Defeated = 2,
    Succeeded = 3,
    Queued = 4,
    Executable = 5,
    Executed = 6,
    Expired = 7,
}

/// What a vote is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Support {
    Against = 0,
    For = 1,
    Abstain = 2,
}

/// A proposal as it is stored.
#[derive(Debug, Clone, Copy)]
struct Proposal {
    proposer: Address,
    kind: Kind,
    opened_at: u64,
    voting_ends_at: u64,
    executable_at: u64,
    executed: bool,
    /// Against, for, abstaining.
    votes: [U256; 3],
}

fn slot(tag: u8, keys: &[&[u8]]) -> Slot {
    Slot::new(GOVERNANCE, tag, keys)
}

fn of(tag: u8, id: U256) -> Slot {
    slot(tag, &[&id.to_be_bytes::<32>()])
}

fn load(host: &mut dyn Host, id: U256) -> Outcome<Option<Proposal>> {
    let at = of(tag::PROPOSAL, id);
    let proposer = host.load_address(at)?;
    if proposer.is_zero() {
        return Ok(None);
    }
    let [flags, opened_at, voting_ends_at, executable_at] = host.load_quarters(at.after(1))?;
    let kind = match flags & 0xff {
        0 => Kind::Parameters,
        1 => Kind::Upgrade,
        _ => Kind::Cancellation,
    };
    let votes = [host.load(at.after(2))?, host.load(at.after(3))?, host.load(at.after(4))?];
    let executed = flags & 0x100 != 0;
    Ok(Some(Proposal { proposer, kind, opened_at, voting_ends_at, executable_at, executed, votes }))
}

fn store(host: &mut dyn Host, id: U256, proposal: &Proposal) -> Outcome<()> {
    let at = of(tag::PROPOSAL, id);
    host.store_address(at, proposal.proposer)?;
    let flags = proposal.kind as u64 | if proposal.executed { 0x100 } else { 0 };
    host.store_quarters(
        at.after(1),
        [flags, proposal.opened_at, proposal.voting_ends_at, proposal.executable_at],
    )?;
    for (offset, votes) in (2..).zip(proposal.votes) {
        host.store(at.after(offset), votes)?;
    }
    Ok(())
}

fn existing(host: &mut dyn Host, id: U256) -> Outcome<Proposal> {
    load(host, id)?.map_or_else(|| refuse("no such proposal"), Ok)
}

impl Proposal {
    /// When the voting ends: as announced, or earlier if voting has been shortened since. Otherwise stake that leaves
    /// by a delay shortened with it could vote twice.
    fn ends_at(&self, host: &dyn Host) -> u64 {
        self.voting_ends_at.min(self.opened_at.saturating_add(host.params().voting_s))
    }

    fn state(&self, host: &mut dyn Host) -> Outcome<State> {
        let now = host.surroundings().timestamp_s;
        if self.executed {
            return Ok(State::Executed);
        }
        if self.executable_at != 0 {
            let expires_at = self.executable_at.saturating_add(host.params().execution_s);
            return Ok(match now {
                now if now < self.executable_at => State::Queued,
                now if now <= expires_at => State::Executable,
                _ => State::Expired,
            });
        }
        if now < self.ends_at(host) {
            return Ok(State::Voting);
        }
        if !self.passed(host)? {
            return Ok(State::Defeated);
        }
        let queue_until = self.ends_at(host).saturating_add(host.params().execution_s);
        Ok(if now <= queue_until { State::Succeeded } else { State::Expired })
    }

    /// Enough of the bonded stake voted, and enough of it for the proposal.
    fn passed(&self, host: &mut dyn Host) -> Outcome<bool> {
        let [against, in_favour, abstaining] = self.votes;
        let decided = checked(against.checked_add(in_favour))?;
        let cast = checked(decided.checked_add(abstaining))?;
        let whole = U256::from(WHOLE_BPS);
        let bonded = staking::bonded_total(host)?;
        let quorum = checked(bonded.checked_mul(U256::from(host.params().quorum_bps)))?;
        let threshold = checked(decided.checked_mul(U256::from(host.params().threshold_bps)))?;
        Ok(!in_favour.is_zero()
            && checked(cast.checked_mul(whole))? >= quorum
            && checked(in_favour.checked_mul(whole))? > threshold)
    }
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IGovernance::IGovernanceCalls as Calls;
    takes_no_value(call)?;
    let caller = call.caller;
    match decode::<Calls>(call)? {
        Calls::proposeParameters(propose) => {
            let id = open(host, caller, Kind::Parameters, &propose.title)?;
            check_changes(host, &propose.changes)?;
            let list = of(tag::CHANGES, id);
            for change in &propose.changes {
                host.push(list, change.name.into())?;
                host.push(list, change.value)?;
            }
            Ok(IGovernance::proposeParametersCall::abi_encode_returns(&id))
        }
        Calls::proposeUpgrade(propose) => {
            let id = open(host, caller, Kind::Upgrade, &propose.title)?;
            check_upgrade(host, &propose.upgrade_)?;
            store_upgrade(host, of(tag::UPGRADE, id), &propose.upgrade_)?;
            Ok(IGovernance::proposeUpgradeCall::abi_encode_returns(&id))
        }
        Calls::proposeUpgradeCancellation(propose) => {
            let id = open(host, caller, Kind::Cancellation, &propose.title)?;
            Ok(IGovernance::proposeUpgradeCancellationCall::abi_encode_returns(&id))
        }
        Calls::vote(vote) => cast(host, caller, vote.id, vote.support).map(|()| Vec::new()),
        Calls::queue(queue) => {
            let mut proposal = existing(host, queue.id)?;
            let state = proposal.state(host)?;
            require(state == State::Succeeded, "only a proposal that passed is queued, once and in time")?;
            let now = host.surroundings().timestamp_s;
            proposal.executable_at = now.saturating_add(host.params().timelock_s);
            store(host, queue.id, &proposal)?;
            let event = IGovernance::Queued { id: queue.id, executableAt: proposal.executable_at };
            host.emit(GOVERNANCE, &event)?;
            Ok(Vec::new())
        }
        Calls::execute(execute) => carry_out(host, execute.id).map(|()| Vec::new()),
        Calls::proposalCount(_) => {
            let count = host.load(slot(tag::COUNT, &[]))?;
            Ok(IGovernance::proposalCountCall::abi_encode_returns(&count))
        }
        Calls::proposal(get) => {
            let shown = match load(host, get.id)? {
                None => IGovernance::Proposal {
                    proposer: Address::ZERO,
                    kind: 0,
                    state: State::None as u8,
                    votingEndsAt: 0,
                    executableAt: 0,
                    votesFor: U256::ZERO,
                    votesAgainst: U256::ZERO,
                    votesAbstaining: U256::ZERO,
                },
                Some(proposal) => IGovernance::Proposal {
                    proposer: proposal.proposer,
                    kind: proposal.kind as u8,
                    state: proposal.state(host)? as u8,
                    votingEndsAt: proposal.ends_at(host),
                    executableAt: proposal.executable_at,
                    votesFor: proposal.votes[Support::For as usize],
                    votesAgainst: proposal.votes[Support::Against as usize],
                    votesAbstaining: proposal.votes[Support::Abstain as usize],
                },
            };
            Ok(IGovernance::proposalCall::abi_encode_returns(&shown))
        }
        Calls::changesOf(get) => {
            let changes = load_changes(host, get.id)?;
            Ok(IGovernance::changesOfCall::abi_encode_returns(&changes))
        }
        Calls::upgradeOf(get) => {
            let upgrade = load_upgrade(host, of(tag::UPGRADE, get.id))?;
            Ok(IGovernance::upgradeOfCall::abi_encode_returns(&upgrade))
        }
        Calls::voteOf(get) => {
            let at = vote_slot(get.id, get.account);
            let weight = host.load(at)?;
            let support = u8::try_from(host.load_u64(at.after(1))?).unwrap_or(u8::MAX);
            let vote = IGovernance::voteOfReturn { support, weight };
            Ok(IGovernance::voteOfCall::abi_encode_returns(&vote))
        }
        Calls::upgrade(_) => {
            let upgrade = load_upgrade(host, slot(tag::SCHEDULED, &[]))?;
            Ok(IGovernance::upgradeCall::abi_encode_returns(&upgrade))
        }
    }
}

/// Opens the voting on a new proposal.
fn open(host: &mut dyn Host, proposer: Address, kind: Kind, title: &str) -> Outcome<U256> {
    let votes = staking::votes_of(host, proposer)?;
    let least = U256::from(host.params().proposal_stake_min);
    require(votes >= least, "less than the proposal's minimum is bonded")?;
    require(!title.trim().is_empty(), "a proposal has a title")?;
    let plain = title.len() <= TITLE_BYTES_MAX && !title.chars().any(char::is_control);
    require(plain, "the title is too long or not plain text")?;
    let count_slot = slot(tag::COUNT, &[]);
    let id = checked(host.load(count_slot)?.checked_add(U256::ONE))?;
    host.store(count_slot, id)?;
    let opened_at = host.surroundings().timestamp_s;
    let voting_ends_at = opened_at.saturating_add(host.params().voting_s);
    let proposal = Proposal {
        proposer,
        kind,
        opened_at,
        voting_ends_at,
        executable_at: 0,
        executed: false,
        votes: [U256::ZERO; 3],
    };
    store(host, id, &proposal)?;
    let event = IGovernance::Proposed {
        id,
        proposer,
        kind: kind as u8,
        votingEndsAt: voting_ends_at,
        title: title.to_owned(),
    };
    host.emit(GOVERNANCE, &event)?;
    Ok(id)
}

/// Refuses changes that could not be executed if nothing else changed before.
fn check_changes(host: &mut dyn Host, changes: &[Change]) -> Outcome<()> {
    require(!changes.is_empty(), "nothing would change")?;
    require(changes.len() <= CHANGES_MAX, "too many changes")?;
    let indexed = indexed(changes)?;
    let mut seen: Vec<usize> = indexed.iter().map(|(index, _)| *index).collect();
    seen.sort_unstable();
    require(seen.windows(2).all(|pair| pair[0] != pair[1]), "a parameter is changed twice")?;
    match params::load(host)?.changed(&indexed) {
        Ok(_) => Ok(()),
        Err(error) => refuse(error.to_string()),
    }
}

fn indexed(changes: &[Change]) -> Outcome<Vec<(usize, U256)>> {
    let indexed = changes.iter().map(|change| {
        Parameter::index_of(&change.name)
            .map_or_else(|| refuse("no such parameter"), |index| Ok((index, change.value)))
    });
    indexed.collect()
}

fn load_changes(host: &mut dyn Host, id: U256) -> Outcome<Vec<Change>> {
    let words = host.page(of(tag::CHANGES, id), 0, 2 * CHANGES_MAX as u64)?;
    let changes = words.chunks_exact(2).map(|pair| Change { name: B256::from(pair[0]), value: pair[1] });
    Ok(changes.collect())
}

fn check_upgrade(host: &mut dyn Host, upgrade: &Upgrade) -> Outcome<()> {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let version = &upgrade.version;
    require(
        !version.is_empty() && version.len() <= VERSION_BYTES_MAX && plain(version),
        "the version is empty, too long or not plain text",
    )?;
    require(upgrade.binaryHashes.len() <= BINARIES_MAX, "too many binaries")?;
    check_height(host, upgrade)
}

/// Refuses a height that leaves validators no time.
fn check_height(host: &mut dyn Host, upgrade: &Upgrade) -> Outcome<()> {
    let earliest = host.surroundings().number.saturating_add(host.params().upgrade_lead_blocks);
    require(upgrade.height >= earliest, "the height comes too soon")
}

fn store_upgrade(host: &mut dyn Host, at: Slot, upgrade: &Upgrade) -> Outcome<()> {
    host.store_u64(at, upgrade.height)?;
    host.store_word(at.after(1), upgrade.sourceRevision)?;
    let place = at.key.to_be_bytes::<32>();
    host.store_bytes(slot(tag::UPGRADE_VERSION, &[&place]), upgrade.version.as_bytes())?;
    let hashes = slot(tag::UPGRADE_HASHES, &[&place]);
    host.store_u64(hashes, upgrade.binaryHashes.len() as u64)?;
    for (offset, hash) in (1..).zip(&upgrade.binaryHashes) {
        host.store_word(hashes.after(offset), *hash)?;
    }
    Ok(())
}

fn load_upgrade(host: &mut dyn Host, at: Slot) -> Outcome<Upgrade> {
    let height = host.load_u64(at)?;
    if height == 0 {
        return Ok(Upgrade {
            height,
            version: String::new(),
            sourceRevision: B256::ZERO,
            binaryHashes: Vec::new(),
        });
    }
    let place = at.key.to_be_bytes::<32>();
    Ok(Upgrade {
        height,
        version: host.load_text(slot(tag::UPGRADE_VERSION, &[&place]), VERSION_BYTES_MAX)?,
        sourceRevision: host.load_word(at.after(1))?,
        binaryHashes: host
            .page(slot(tag::UPGRADE_HASHES, &[&place]), 0, BINARIES_MAX as u64)?
            .into_iter()
            .map(B256::from)
            .collect(),
    })
}

/// The upgrade that is scheduled, or that came last.
pub(crate) fn upgrade(host: &mut dyn Host) -> Outcome<Option<UpgradePlan>> {
    let upgrade = load_upgrade(host, slot(tag::SCHEDULED, &[]))?;
    Ok((upgrade.height != 0).then_some(UpgradePlan {
        height: upgrade.height,
        version: upgrade.version,
        source_revision: upgrade.sourceRevision,
        binary_hashes: upgrade.binaryHashes,
    }))
}

/// Where every block looks for an upgrade.
pub(crate) fn upgrade_slots() -> Vec<Slot> {
    vec![slot(tag::SCHEDULED, &[])]
}

fn vote_slot(id: U256, account: Address) -> Slot {
    slot(tag::VOTE, &[&id.to_be_bytes::<32>(), account.as_slice()])
}

/// Counts a vote; an earlier one of the same account counts no longer.
fn cast(host: &mut dyn Host, voter: Address, id: U256, support: u8) -> Outcome<()> {
    let mut proposal = existing(host, id)?;
    let open = host.surroundings().timestamp_s < proposal.ends_at(host);
    require(open, "the voting is over")?;
    let supports = [Support::Against, Support::For, Support::Abstain];
    require(supports.iter().any(|known| *known as u8 == support), "a vote is 0 against, 1 for or 2 abstain")?;
    let weight = staking::votes_of(host, voter)?;
    require(!weight.is_zero(), "the caller has bonded nothing")?;
    let at = vote_slot(id, voter);
    let weight_before = host.load(at)?;
    if !weight_before.is_zero() {
        let support_before = host.load_u64(at.after(1))?;
        if let Some(votes) =
            usize::try_from(support_before).ok().and_then(|index| proposal.votes.get_mut(index))
        {
            *votes = checked(votes.checked_sub(weight_before))?;
        }
    }
    let votes = &mut proposal.votes[usize::from(support)];
    *votes = checked(votes.checked_add(weight))?;
    host.store(at, weight)?;
    host.store_u64(at.after(1), support.into())?;
    store(host, id, &proposal)?;
    host.emit(GOVERNANCE, &IGovernance::Voted { id, voter, support, weight })
}

/// Does what a proposal says.
fn carry_out(host: &mut dyn Host, id: U256) -> Outcome<()> {
    let mut proposal = existing(host, id)?;
    match proposal.state(host)? {
        State::Executable => {}
        State::Queued => return refuse("the timelock is not over"),
        State::Expired => return refuse("the proposal has expired"),
        _ => return refuse("the proposal is not queued"),
    }
    proposal.executed = true;
    store(host, id, &proposal)?;
    match proposal.kind {
        Kind::Parameters => {
            let changes = load_changes(host, id)?;
            let before = params::load(host)?;
            let after = match before.changed(&indexed(&changes)?) {
                Ok(after) => after,
                Err(error) => return refuse(error.to_string()),
            };
            params::store(host, &after)?;
            for (index, parameter) in PARAMETERS.iter().enumerate() {
                let (was, is) = (before.value(index), after.value(index));
                if was != is {
                    let event = IGovernance::ParameterChanged {
                        name: parameter.name_word(),
                        before: U256::from(was.unwrap_or_default()),
                        after_: U256::from(is.unwrap_or_default()),
                    };
                    host.emit(GOVERNANCE, &event)?;
                }
            }
        }
        Kind::Upgrade => {
            let upgrade = load_upgrade(host, of(tag::UPGRADE, id))?;
            check_height(host, &upgrade)?;
            store_upgrade(host, slot(tag::SCHEDULED, &[]), &upgrade)?;
            let event = IGovernance::UpgradeScheduled {
                height: upgrade.height,
                version: upgrade.version,
                sourceRevision: upgrade.sourceRevision,
                binaryHashes: upgrade.binaryHashes,
            };
            host.emit(GOVERNANCE, &event)?;
        }
        Kind::Cancellation => {
            let scheduled = load_upgrade(host, slot(tag::SCHEDULED, &[]))?;
            require(scheduled.height > host.surroundings().number, "no upgrade is scheduled")?;
            host.store(slot(tag::SCHEDULED, &[]), U256::ZERO)?;
            host.emit(GOVERNANCE, &IGovernance::UpgradeCancelled { height: scheduled.height })?;
        }
    }
    host.emit(GOVERNANCE, &IGovernance::Executed { id })
}
