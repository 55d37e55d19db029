//! Claim: takes what was charged on channels, many at once, and long before a payer can be gone.
//!
//! In:     channels on which more was charged than claimed. Out: transactions.
//! Touches: the escrow on the ledger; the rows of the channels.
//! Holds:  nothing is claimed but what receipts charged; what the ledger holds of it is asked before each try, so that one that
//!         was claimed without this process knowing is not tried again.
//! Absent: what is charged (`escrow`).

use std::time::Duration;

use alloy_primitives::B256;
use surety_client::channel::{ModuleCall, view};
use surety_types::{
    WEI_PER_MICRO_CREDIT,
    abi::{
        IChannels::{self, Voucher, VoucherClaim},
        Module,
        address::CREDIT,
    },
};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Channels, Config, Row, wire::WITHDRAW_DELAY_S_MIN};

/// Between two looks at what is to be claimed.
const CLAIM_EVERY: Duration = Duration::from_secs(5 * 60);
/// The same where the ledger could not be asked, or refused.
const RETRY: Duration = Duration::from_secs(10);
/// Wei from which on they are worth a transaction, as long as their payer stays: a thousandth of a credit.
const WORTH: u128 = 1_000 * WEI_PER_MICRO_CREDIT;
/// Channels of one transaction.
const BATCH_MAX: usize = 16;

const _: () = assert!(CLAIM_EVERY.as_secs() * 2 < WITHDRAW_DELAY_S_MIN, "claims come before a payer is gone");

/// What the ledger takes for so much charged in all.
pub(super) fn claim_of(config: &Config, ceiling: u128, signature: &[u8], total: u128) -> VoucherClaim {
    VoucherClaim {
        voucher: Voucher { channel: config.on_ledger(), maxClaimableAmount: ceiling },
        signature: signature.to_vec().into(),
        totalClaimed: total,
    }
}

/// What is to be claimed on a channel.
struct Owed {
    id: B256,
    claim: VoucherClaim,
}

impl Channels {
    /// Claims what is charged, from time to time, until aborted.
    pub(in crate::payments) async fn run(&self) {
        let mut told: Option<String> = None;
        // What a gateway before this one left is claimed whatever it is worth.
        let mut least = 1;
        loop {
            let problem = self.claim_due(least).await.err();
            if problem.is_none() {
                least = WORTH;
            }
            if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
                warn!(problem, "what was charged on channels waits to be claimed");
            }
            told = problem;
            // Before a payer can be gone, however short the ledger has its way out.
            let soon =
                self.ask_delay_s().await.map(|delay_s| Duration::from_secs(delay_s / 3).min(CLAIM_EVERY));
            sleep(soon.ok().filter(|_| told.is_none()).unwrap_or(RETRY)).await;
        }
    }

    fn all_due(&self) -> Vec<(B256, Row)> {
        let state = self.lock();
        let due = state.rows.iter().filter(|(_, row)| row.charged.min(row.balance) > row.claimed);
        due.map(|(id, row)| (*id, row.clone())).collect()
    }

    /// Claims what is charged now, where that is `least` wei or its payer is on its way out. Err: something waits, and why.
    pub(super) async fn claim_due(&self, least: u128) -> Result<(), String> {
        let due = self.all_due();
        let mut waiting = None;
        for batch in due.chunks(BATCH_MAX) {
            let mut owed = Vec::new();
            for (id, row) in batch {
                let seen = self.look(id).await.map_err(|failure| failure.message)?;
                let total = row.charged.min(seen.balance);
                self.saw(id, seen.balance, seen.claimed, 0);
                let wei = total.saturating_sub(seen.claimed);
                if wei >= least || (wei > 0 && seen.leaving > 0) {
                    let claim = claim_of(&row.config, row.signed, &row.signature, total);
                    owed.push(Owed { id: *id, claim });
                }
            }
            self.claim(owed, &mut waiting).await?;
        }
        self.collect().await?;
        waiting.map_or(Ok(()), Err)
    }

    async fn claim(&self, owed: Vec<Owed>, waiting: &mut Option<String>) -> Result<(), String> {
        if owed.is_empty() {
            return Ok(());
        }
        let call = |owed: &[Owed]| {
            let claims = owed.iter().map(|owed| owed.claim.clone());
            let call = IChannels::claimCall { voucherClaims: claims.collect() };
            vec![ModuleCall::new(Module::Escrow, &call)]
        };
        match self.send(call(&owed)).await {
            Ok(transaction) => {
                self.claimed(&owed, transaction);
                Ok(())
            }
            Err(failure) if failure.refused => {
                // One of them is to blame; each is tried by itself.
                for one in owed.chunks(1) {
                    match self.send(call(one)).await {
                        Ok(transaction) => self.claimed(one, transaction),
                        Err(failure) if failure.refused => {
                            waiting.get_or_insert(format!("{}: {}", one[0].id, failure.message));
                        }
                        Err(failure) => return Err(failure.message),
                    }
                }
                Ok(())
            }
            Err(failure) => Err(failure.message),
        }
    }

    fn claimed(&self, owed: &[Owed], transaction: B256) {
        for Owed { id, claim } in owed {
            let before = self.lock().rows.get(id).map(|row| (row.balance, row.claimed));
            let Some((balance, claimed)) = before else { continue };
            let wei = claim.totalClaimed.saturating_sub(claimed);
            info!(channel = %id, micro = wei / WEI_PER_MICRO_CREDIT, %transaction, "what was charged on a channel was claimed");
            self.saw(id, balance, claim.totalClaimed, wei);
        }
    }

    /// Notes how a channel stands, and what of it was claimed just now.
    fn saw(&self, id: &B256, balance: u128, claimed: u128, newly: u128) {
        let mut state = self.lock();
        state.settled = state.settled.saturating_add(newly);
        let Some(row) = state.rows.get_mut(id) else { return };
        if (row.balance, row.claimed) != (balance, claimed) {
            (row.balance, row.claimed) = (balance, claimed);
            drop(self.store.keep_channel(*id, Some(row.clone())));
        }
    }

    /// Has the ledger pay what was claimed.
    async fn collect(&self) -> Result<(), String> {
        let (receiver, token) = (self.payee.account, CREDIT);
        let totals = IChannels::receiversCall { receiver, token };
        let totals =
            view(&*self.account, Module::Escrow, &totals).await.map_err(|failure| failure.message)?;
        if totals.totalClaimed > totals.totalSettled {
            let settle = IChannels::settleCall { receiver, token };
            let settled = self.send(vec![ModuleCall::new(Module::Escrow, &settle)]).await;
            settled.map_err(|failure| failure.message)?;
        }
        Ok(())
    }
}
