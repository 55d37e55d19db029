//! Claims: what the gateway does by itself about workers that accepted, were paid to begin, and gave no receipt; and refunds
//! that wait for whose channel it was.
//!
//! In:     acceptances whose answers broke off; the ledger's time, claims and disputes.
//! Out:    claims on the ledger when the deadline has passed, compensation when nobody has answered them; the receipts of
//!         those who did; refunds.
//! Touches: the ledger, through the payer's account; `payer.redb`.
//! Holds:  what is to be claimed is on the disk when it is known, and goes on after a restart where the ledger stands: nothing is
//!         claimed twice. A claim is made only if more can come back than its gas is worth; so many are open at once, and
//!         none against an operator that has shown a receipt on the last day: its worker answers, and the line is bad.
//! Absent: what a claim is worth (`chain::claims`); disputes of what a receipt says, which take the model.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall as _, SolEvent as _};
use surety_chain::{
    CLAIM_DAY_S, Params, claim_compensation,
    tariff::{CLAIM_GAS, COLLECT_GAS},
};
use surety_client::{
    AccountError,
    channel::{ModuleCall, view},
};
use surety_types::{
    Acceptance, Answer, Canonical as _, Digest, Order, Price, Receipt, Signed,
    abi::{IClaims, IDisputes, IStaking, Module},
    channel::cover_wei,
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{PayChannel, Payer, lock, unwritten};

/// Between two looks at what is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Looks at claims for one at refunds.
const LOOKS_PER_REFUNDS: u32 = 15;
/// Seconds after the deadline, by the ledger's time: a receipt may be on its way.
const MARGIN_S: u64 = 60;
/// Claims open at once: each has a bond.
const OPEN_MAX: usize = 16;
/// Breaches and claims that are kept; those that are over go first.
const KEPT_MAX: usize = 1024;
/// For so long after an operator has shown a receipt nothing is claimed of it: who answers claims is there, and a bond was lost.
const PAUSE_S: u64 = 24 * 60 * 60;
/// What may come back must be worth so many times the gas.
const WORTH: u32 = 2;
/// What a page of a list on the ledger holds.
const PAGE: usize = 100;
/// Disputes of an operator that are watched.
const DISPUTES_MAX: usize = 1024;

/// Order and worker.
pub(super) type ClaimKey = [u8; 64];

/// How far a breach is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The deadline has not passed, or it is not its turn.
    Waiting = 0,
    /// It is claimed.
    Open = 1,
    /// Compensated.
    Compensated = 2,
    /// The worker has shown a receipt for an answer.
    Answered = 3,
    /// The worker has shown a receipt for a failure.
    Failed = 4,
    /// Not claimed: it is too late, or not worth its gas, or the ledger refuses it.
    Dropped = 5,
}

impl Stage {
    pub(super) fn from_code(code: u8) -> Option<Stage> {
        use Stage::*;
        [Waiting, Open, Compensated, Answered, Failed, Dropped].into_iter().find(|stage| *stage as u8 == code)
    }

    fn is_over(self) -> bool {
        !matches!(self, Stage::Waiting | Stage::Open)
    }
}

/// An acceptance without a receipt, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClaimRow {
    /// COSE bytes.
    pub(super) order: Vec<u8>,
    pub(super) acceptance: Vec<u8>,
    pub(super) operator: Address,
    /// Unix milliseconds.
    pub(super) deadline_ms: u64,
    pub(super) stage: Stage,
    /// The ledger's number of the claim; zero before there is one.
    pub(super) id: u64,
    /// The ledger's time when it was over, in seconds.
    pub(super) over_s: u64,
    /// What was paid, in wei; while it is open, what is expected.
    pub(super) compensation: u128,
    /// The receipt that was shown, COSE bytes; none before.
    pub(super) receipt: Vec<u8>,
}

/// How breaches stand, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClaimsState {
    pub(crate) waiting: u64,
    pub(crate) open: u64,
    pub(crate) compensated: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) dropped: u64,
    /// In wei, by the claims that are kept.
    pub(crate) compensation: u128,
    /// Refunds of convictions that this process collected, in wei.
    pub(crate) collected: u128,
}

/// Disputes about an operator, as far as they were looked at.
#[derive(Debug, Default)]
struct Docket {
    seen: u64,
    open: Vec<u64>,
}

/// Sees to claims and refunds, until aborted.
pub(crate) async fn see_to(payer: Arc<Payer>) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looks, mut told) = (0u32, None);
    let mut dockets = BTreeMap::new();
    loop {
        ticks.tick().await;
        let mut done = payer.see_to_claims().await;
        if looks.is_multiple_of(LOOKS_PER_REFUNDS) && done.is_ok() {
            done = payer.collect_refunds(&mut dockets).await;
        }
        looks = looks.wrapping_add(1);
        let problem = done.err().map(|AccountError { message, .. }| message);
        if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
            warn!(problem, "claims wait");
        }
        told = problem;
    }
}

impl Payer {
    /// A worker accepted an order, and broke off without a receipt.
    pub(crate) fn breached(&self, answer: &Answer) {
        let Some(accepted) = answer.acceptance.as_ref().filter(|_| answer.receipt.is_none()) else { return };
        let Ok((order, _)) = Signed::<Order>::peek_value(&answer.order) else { return };
        let Ok((acceptance, _)) = Signed::<Acceptance>::peek_value(accepted) else { return };
        let Some(channel) = order.channel.and_then(|id| self.channel_of(&id)) else { return };
        if acceptance.price == Price::ZERO {
            return;
        }
        let row = ClaimRow {
            order: answer.order.clone(),
            acceptance: accepted.clone(),
            operator: channel.channel.receiver,
            deadline_ms: order.deadline_ms,
            stage: Stage::Waiting,
            id: 0,
            over_s: 0,
            compensation: 0,
            receipt: Vec::new(),
        };
        let key = key_of(&order.digest(), &acceptance);
        let forgotten = {
            let mut rows = lock(&self.claims);
            if rows.contains_key(&key) {
                return;
            }
            let mut forgotten = None;
            if rows.len() >= KEPT_MAX {
                let over = rows.iter().filter(|(_, row)| row.stage.is_over());
                let Some(oldest) = over.min_by_key(|(_, row)| row.deadline_ms).map(|(key, _)| *key) else {
                    warn!(
                        worker = acceptance.worker.short(),
                        "too much waits to be claimed; one breach is forgotten"
                    );
                    return;
                };
                rows.remove(&oldest);
                forgotten = Some(oldest);
            }
            rows.insert(key, row.clone());
            forgotten
        };
        info!(
            worker = acceptance.worker.short(),
            "an order was accepted and not answered; it is claimed after its deadline"
        );
        if let Some(key) = forgotten {
            self.store.post_claim(key, None);
        }
        self.store.post_claim(key, Some(row));
    }

    /// How breaches stand.
    pub(crate) fn claims_state(&self) -> ClaimsState {
        let mut state = ClaimsState { collected: *lock(&self.collected), ..ClaimsState::default() };
        for row in lock(&self.claims).values() {
            let count = match row.stage {
                Stage::Waiting => &mut state.waiting,
                Stage::Open => &mut state.open,
                Stage::Compensated => &mut state.compensated,
                Stage::Answered => &mut state.answered,
                Stage::Failed => &mut state.failed,
                Stage::Dropped => &mut state.dropped,
            };
            *count += 1;
            if row.stage == Stage::Compensated {
                state.compensation = state.compensation.saturating_add(row.compensation);
            }
        }
        state
    }

    fn channel_of(&self, id: &Digest) -> Option<Arc<PayChannel>> {
        lock(&self.channels).values().find(|channel| channel.id == *id).cloned()
    }

    async fn see_to_claims(&self) -> Result<(), AccountError> {
        let of_stage = |wanted: Stage| -> Vec<(ClaimKey, ClaimRow)> {
            let rows = lock(&self.claims);
            let found = rows.iter().filter(|(_, row)| row.stage == wanted);
            found.map(|(key, row)| (*key, row.clone())).collect()
        };
        let (mut waiting, open) = (of_stage(Stage::Waiting), of_stage(Stage::Open));
        if waiting.is_empty() && open.is_empty() {
            return Ok(());
        }
        let now_s = self.account.moment().await?.timestamp_ms / 1_000;
        let mut open_now = open.len();
        for (key, row) in open {
            if self.follow_claim(&key, row, now_s).await? {
                open_now -= 1;
            }
        }
        waiting.retain(|(_, row)| now_s > row.deadline_ms.div_ceil(1_000).saturating_add(MARGIN_S));
        waiting.sort_by_key(|(_, row)| row.deadline_ms);
        if waiting.is_empty() {
            return Ok(());
        }
        let params = self.account.params().await?;
        for (key, row) in waiting {
            if open_now >= OPEN_MAX {
                break;
            }
            if self.is_paused(&row.operator, now_s) {
                // It may be too late when the pause is over: then it is dropped.
                if now_s.saturating_sub(row.deadline_ms / 1_000) > params.claim_window() {
                    self.drop_claim(key, row, now_s, "its operator has answered others lately").await?;
                }
                continue;
            }
            open_now += usize::from(self.claim(key, row, now_s, &params).await?);
        }
        Ok(())
    }

    /// Whether an operator has shown a receipt lately.
    fn is_paused(&self, operator: &Address, now_s: u64) -> bool {
        let rows = lock(&self.claims);
        let mut answered =
            rows.values().filter(|row| row.operator == *operator && row.stage == Stage::Answered);
        answered.any(|row| now_s < row.over_s.saturating_add(PAUSE_S))
    }

    /// What this gateway's claims of an operator take of what all of a day may, in wei.
    fn taken(&self, operator: &Address, now_s: u64) -> U256 {
        let rows = lock(&self.claims);
        let of = rows.values().filter(|row| row.operator == *operator);
        let today = of.filter(|row| match row.stage {
            Stage::Open => true,
            Stage::Compensated => row.over_s / CLAIM_DAY_S == now_s / CLAIM_DAY_S,
            _ => false,
        });
        today.fold(U256::ZERO, |sum, row| sum.saturating_add(U256::from(row.compensation)))
    }

    async fn keep_claim(&self, key: ClaimKey, row: ClaimRow) -> Result<(), AccountError> {
        self.store.keep_claim(key, row.clone()).await.map_err(unwritten)?;
        lock(&self.claims).insert(key, row);
        Ok(())
    }

    async fn drop_claim(
        &self,
        key: ClaimKey,
        row: ClaimRow,
        now_s: u64,
        reason: &str,
    ) -> Result<(), AccountError> {
        info!(reason, operator = %row.operator, "an order that was not answered is not claimed for");
        self.keep_claim(key, ClaimRow { stage: Stage::Dropped, over_s: now_s, ..row }).await
    }

    /// Claims, if that is worth it; whether one more is open.
    async fn claim(
        &self,
        key: ClaimKey,
        row: ClaimRow,
        now_s: u64,
        params: &Params,
    ) -> Result<bool, AccountError> {
        let account = &*self.account;
        let (order, worker) = halves(&key);
        let known = view(account, Module::Claims, &IClaims::claimOfCall { order, worker }).await?;
        if known != 0 {
            // Made before a restart, or by somebody else.
            self.keep_claim(key, ClaimRow { stage: Stage::Open, id: known, ..row }).await?;
            return Ok(true);
        }
        if now_s.saturating_sub(row.deadline_ms.div_ceil(1_000)) > params.claim_window() {
            self.drop_claim(key, row, now_s, "it is too late").await?;
            return Ok(false);
        }
        let (Ok((ordered, _)), Ok((acceptance, _))) =
            (Signed::<Order>::peek_value(&row.order), Signed::<Acceptance>::peek_value(&row.acceptance))
        else {
            self.drop_claim(key, row, now_s, "what was kept of it cannot be read").await?;
            return Ok(false);
        };
        let Some(channel) = ordered.channel.and_then(|id| self.channel_of(&id)) else {
            self.drop_claim(key, row, now_s, "its channel is not known").await?;
            return Ok(false);
        };
        let staked = IStaking::bondedToCall { operator: row.operator };
        let stake = view(account, Module::Staking, &staked).await?;
        let most = cover_wei(&acceptance.price, acceptance.prompt_tokens, acceptance.max_output_tokens);
        let cost = most.unwrap_or(u128::MAX).min(lock(&channel.book).deposited());
        if !is_worth(params, back(params, stake, cost, U256::ZERO)) {
            self.drop_claim(key, row, now_s, "no more than its gas can come back").await?;
            return Ok(false);
        }
        // What its claims of a day may take is taken: tomorrow, perhaps.
        let expected = back(params, stake, cost, self.taken(&row.operator, now_s));
        if !is_worth(params, expected) {
            return Ok(false);
        }
        let bond = U256::from(params.claim_bond);
        let needed = bond.saturating_add(gas_wei(params, CLAIM_GAS));
        let balance = account.balance().await?;
        if balance < needed {
            let address = account.address();
            return Err(AccountError {
                message: format!(
                    "{address} has {balance} wei; the bond of a claim and its gas take {needed}"
                ),
                hint: format!("send credits to {address}"),
                refused: false,
            });
        }
        let call = IClaims::claimCall {
            order: row.order.clone().into(),
            acceptance: row.acceptance.clone().into(),
            channel: channel.channel.to_cbor().into(),
            account: Address::ZERO,
            proof: Vec::new().into(),
        };
        match account.send(vec![ModuleCall::paying(Module::Claims, &call, bond)]).await {
            Ok(()) => {}
            Err(error) if error.refused => {
                self.drop_claim(key, row, now_s, &error.message).await?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let id = view(account, Module::Claims, &IClaims::claimOfCall { order, worker }).await?;
        info!(claim = id, operator = %row.operator, "claimed for an order that was accepted and not answered");
        let compensation = u128::try_from(expected).unwrap_or(u128::MAX);
        self.keep_claim(key, ClaimRow { stage: Stage::Open, id, compensation, ..row }).await?;
        Ok(true)
    }

    /// Looks what has become of a claim, and ends it when its time is over; whether it has ended.
    async fn follow_claim(&self, key: &ClaimKey, row: ClaimRow, now_s: u64) -> Result<bool, AccountError> {
        let (account, id) = (&*self.account, row.id);
        let look = IClaims::claimsCall { id };
        let mut claim = view(account, Module::Claims, &look).await?;
        if claim.state == 1 && now_s > claim.answerUntil {
            match account.send(vec![ModuleCall::new(Module::Claims, &IClaims::settleCall { id })]).await {
                // Somebody else may have been faster.
                Err(error) if !error.refused => return Err(error),
                Ok(()) | Err(_) => {}
            }
            claim = view(account, Module::Claims, &look).await?;
        }
        let row = ClaimRow { over_s: now_s, ..row };
        let row = match claim.state {
            4 => {
                let compensation = u128::try_from(claim.compensation).unwrap_or(u128::MAX);
                info!(claim = id, wei = compensation, "compensated for an order that was not answered");
                ClaimRow { stage: Stage::Compensated, compensation, ..row }
            }
            2 | 3 => {
                let Some(receipt) = self.shown_receipt(id, key).await? else { return Ok(false) };
                let stage = if claim.state == 2 { Stage::Answered } else { Stage::Failed };
                info!(claim = id, "the worker has shown its receipt for an order that had broken off");
                ClaimRow { stage, receipt, compensation: 0, ..row }
            }
            _ => return Ok(false),
        };
        self.keep_claim(*key, row).await?;
        Ok(true)
    }

    /// The receipt that was shown for a claim: a node tells it, and its signature and order say whether it is the one. None if
    /// the node does not know it yet.
    async fn shown_receipt(&self, id: u64, key: &ClaimKey) -> Result<Option<Vec<u8>>, AccountError> {
        let topics = vec![IClaims::Answered::SIGNATURE_HASH, B256::from(U256::from(id))];
        let inputs = self.account.inputs(Module::Claims, topics).await?;
        let (order, worker) = halves(key);
        let receipts = inputs.iter().filter_map(|input| {
            let shown = IClaims::answerCall::abi_decode(input).ok()?;
            let receipt = Signed::<Receipt>::open(&shown.receipt).ok()?;
            let is_it = receipt.order.0 == order.0 && receipt.worker.0 == worker.0;
            is_it.then(|| shown.receipt.to_vec())
        });
        Ok(receipts.into_iter().next())
    }

    /// Collects refunds of convictions whose orders named a channel that nobody had shown.
    async fn collect_refunds(&self, dockets: &mut BTreeMap<Address, Docket>) -> Result<(), AccountError> {
        let channels: Vec<(Address, Arc<PayChannel>)> = {
            let channels = lock(&self.channels);
            channels.iter().map(|(operator, channel)| (*operator, Arc::clone(channel))).collect()
        };
        let account = &*self.account;
        for (operator, channel) in channels {
            let docket: &mut Docket = dockets.entry(operator).or_default();
            while docket.open.len() < DISPUTES_MAX {
                let next = IDisputes::disputesOfCall { operator, offset: docket.seen };
                let page = view(account, Module::Disputes, &next).await?;
                docket.seen += page.len() as u64;
                docket.open.extend(&page);
                if page.len() < PAGE {
                    break;
                }
            }
            let mut left = Vec::new();
            for id in std::mem::take(&mut docket.open) {
                let dispute = view(account, Module::Disputes, &IDisputes::disputesCall { id }).await?;
                if dispute.state == 1 {
                    left.push(id);
                } else if !dispute.owed.is_zero() {
                    self.collect(id, &channel, dispute.owed).await?;
                }
            }
            docket.open = left;
        }
        Ok(())
    }

    /// Collects a refund, if it is for this channel's payer and worth its gas.
    async fn collect(&self, id: u64, channel: &PayChannel, owed: U256) -> Result<(), AccountError> {
        let account = &*self.account;
        let params = account.params().await?;
        if owed <= gas_wei(&params, COLLECT_GAS) {
            return Ok(());
        }
        let call = IDisputes::collectCall { id, channel: channel.channel.to_cbor().into() };
        // Only the ledger knows which channel it was: it says so before anything is sent.
        match account.view(Module::Disputes, call.abi_encode()).await {
            Err(error) if error.refused => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        match account.send(vec![ModuleCall::new(Module::Disputes, &call)]).await {
            // Somebody else may have been faster: it is paid to this payer all the same.
            Err(error) if !error.refused => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let wei = u128::try_from(owed).unwrap_or(u128::MAX);
        let mut collected = lock(&self.collected);
        *collected = collected.saturating_add(wei);
        info!(dispute = id, wei, "a refund was collected");
        Ok(())
    }
}

fn key_of(order: &Digest, acceptance: &Acceptance) -> ClaimKey {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&order.0);
    key[32..].copy_from_slice(&acceptance.worker.0);
    key
}

fn halves(key: &ClaimKey) -> (B256, B256) {
    (B256::from_slice(&key[..32]), B256::from_slice(&key[32..]))
}

fn gas_wei(params: &Params, gas: u64) -> U256 {
    U256::from(gas) * U256::from(params.minimum_gas_price)
}

/// What comes back of a claim; nothing if that cannot be said.
fn back(params: &Params, stake: U256, cost: u128, taken: U256) -> U256 {
    claim_compensation(params, stake, cost, taken).unwrap_or_default()
}

/// Whether that is more than its gas is worth.
fn is_worth(params: &Params, back: U256) -> bool {
    back > gas_wei(params, CLAIM_GAS) * U256::from(WORTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDIT: u128 = 1_000_000_000_000_000_000;

    #[test]
    fn what_its_gas_eats_is_not_claimed() {
        let params = Params::default();
        let worth = |params: &Params, stake: u128, cost: u128| {
            is_worth(params, back(params, U256::from(stake), cost, U256::ZERO))
        };
        assert!(worth(&params, 100 * CREDIT, 0));
        assert!(!worth(&params, 0, CREDIT), "who has no stake pays nothing");
        let dear = Params { minimum_gas_price: 1_000_000_000_000, ..params.clone() };
        assert!(!worth(&dear, 100 * CREDIT, 0));
        assert!(worth(&dear, 1_000 * CREDIT, CREDIT));
        let nothing = Params { claim_fixed: 0, ..params.clone() };
        assert!(!worth(&nothing, 100 * CREDIT, 1_000) && worth(&nothing, 100 * CREDIT, CREDIT / 100));
        // A hundredth of the stake is all that a day's claims take.
        let stake = U256::from(10 * CREDIT);
        let whole = back(&params, stake, CREDIT, U256::ZERO);
        assert_eq!(whole, U256::from(CREDIT / 10));
        assert_eq!(back(&params, stake, CREDIT, whole), U256::ZERO);
    }

    #[test]
    fn stages_are_kept_by_their_numbers() {
        let stages: Vec<Stage> = (0..=u8::MAX).filter_map(Stage::from_code).collect();
        assert_eq!(stages.len(), 6);
        assert!((0..).zip(&stages).all(|(code, stage)| *stage as u8 == code));
        assert_eq!(stages.iter().filter(|stage| stage.is_over()).count(), 4);
    }
}
