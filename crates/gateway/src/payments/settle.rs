//! Settle: takes what is due.
//!
//! In:     payments of which something is due. Out: transactions; which were taken, and which never can be.
//! Touches: the ledger, through the gateway's account; the keys, for credits that are bought.
//! Holds:  whether a payment was taken is asked of the ledger wherever that is not sure: none is taken twice, and none is
//!         given up that can still be taken, unless nobody was told anything for it. Credits are on a key's disk before their
//!         payment counts as settled.
//! Absent: what is due (`payments`).

use std::{sync::Arc, time::Duration};

use alloy_primitives::{B256, U256};
use surety_client::{
    AccountError,
    channel::{ModuleCall, view},
};
use surety_types::{
    WEI_PER_MICRO_CREDIT,
    abi::{ICredit, Module},
};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{PaymentId, Payments, Purpose, Row, Stage};
use crate::keys::Micro;

/// Payments taken in one submission.
const BATCH_MAX: usize = 32;
/// Before the ledger is asked again where it could not be, or refused.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks for payments that are over.
const LOOK: Duration = Duration::from_secs(30);

/// A payment of which something is due.
#[derive(Clone)]
struct Due {
    id: PaymentId,
    row: Row,
    micro: u128,
}

impl Due {
    fn wei(&self) -> U256 {
        U256::from(self.micro) * U256::from(WEI_PER_MICRO_CREDIT)
    }

    fn call(&self) -> ModuleCall {
        let authorization = self.row.authorization.clone();
        let draw = ICredit::drawWithAuthorizationCall {
            from: authorization.from,
            to: authorization.to,
            value: authorization.value,
            validAfter: authorization.valid_after,
            validBefore: authorization.valid_before,
            nonce: authorization.nonce,
            signature: authorization.signature.into(),
            amount: self.wei(),
        };
        ModuleCall::new(Module::Credit, &draw)
    }

    /// Whether somebody has had what is paid for.
    fn was_told(&self) -> bool {
        matches!(self.row.purpose, Purpose::Answer { told: true, .. })
    }
}

/// What is to be done with a payment.
enum Next {
    Send,
    /// It was taken, so much of it.
    Taken(u128),
    /// Not now.
    Wait(String),
    Never(String),
}

impl Payments {
    /// Takes what is due, and claims what is charged on channels, until aborted.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::join!(self.take(), self.channels.run());
    }

    async fn take(&self) {
        // What was due before a restart may have been taken.
        let mut sure = false;
        let mut told: Option<String> = None;
        loop {
            let result = self.settle_due(sure).await;
            sure = result.is_ok();
            let problem = result.err();
            if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
                warn!(problem, "payments wait to be taken");
            }
            told = problem;
            if told.is_some() {
                sleep(RETRY).await;
                continue;
            }
            let _ = timeout(LOOK, self.due.notified()).await;
        }
    }

    fn all_due(&self) -> Vec<Due> {
        let state = self.lock();
        let due = state.rows.iter().filter_map(|(id, row)| match row.stage {
            Stage::Due(micro) => Some(Due { id: *id, row: row.clone(), micro: micro.0 }),
            _ => None,
        });
        let mut due: Vec<Due> = due.collect();
        due.sort_by_key(|due| due.row.authorization.valid_before);
        due
    }

    /// Takes all that is due now. `sure`: none of it was tried before. Err: something waits, and why.
    pub(super) async fn settle_due(&self, sure: bool) -> Result<(), String> {
        let due = self.all_due();
        let mut waiting = None;
        for batch in due.chunks(BATCH_MAX) {
            let mut sent = Vec::new();
            for due in batch {
                let next = if sure { Next::Send } else { self.look(due).await? };
                match next {
                    Next::Send => sent.push(due.clone()),
                    other => self.follow(due, other, &mut waiting).await,
                }
            }
            self.send(sent, &mut waiting).await?;
        }
        self.forget().await?;
        waiting.map_or(Ok(()), Err)
    }

    async fn send(&self, sent: Vec<Due>, waiting: &mut Option<String>) -> Result<(), String> {
        if sent.is_empty() {
            return Ok(());
        }
        let calls = sent.iter().map(Due::call).collect();
        match self.account.send_noted(calls).await {
            Ok(noted) => {
                for (due, noted) in sent.iter().zip(noted) {
                    self.taken(due, due.micro, noted.hash).await;
                }
                Ok(())
            }
            Err(failure) if failure.refused => {
                // One of them is to blame; each is looked at, and tried by itself.
                for due in &sent {
                    let next = match self.look(due).await? {
                        Next::Send => match self.account.send_noted(vec![due.call()]).await {
                            Ok(noted) => {
                                let hash = noted.first().map_or(B256::ZERO, |noted| noted.hash);
                                self.taken(due, due.micro, hash).await;
                                continue;
                            }
                            Err(failure) if failure.refused => Next::Wait(failure.message),
                            Err(failure) => return Err(failure.message),
                        },
                        other => other,
                    };
                    self.follow(due, next, waiting).await;
                }
                Ok(())
            }
            Err(failure) => Err(failure.message),
        }
    }

    /// What the ledger knows of a payment.
    async fn look(&self, due: &Due) -> Result<Next, String> {
        self.ask_of(due).await.map_err(|failure| failure.message)
    }

    async fn ask_of(&self, due: &Due) -> Result<Next, AccountError> {
        let authorization = &due.row.authorization;
        let (authorizer, nonce) = (authorization.from, authorization.nonce);
        let of_nonce = ICredit::authorizationUseCall { authorizer, nonce };
        let used = view(&*self.account, Module::Credit, &of_nonce).await?;
        if used.digest == authorization.digest(self.payee.chain_id) {
            let micro = used.moved / U256::from(WEI_PER_MICRO_CREDIT);
            return Ok(Next::Taken(micro.saturating_to()));
        }
        if !used.digest.is_zero() {
            return Ok(Next::Never(
                "the payer canceled it, or used its nonce for another transfer".to_owned(),
            ));
        }
        let now_s = self.account.moment().await?.timestamp_ms / 1_000;
        if U256::from(now_s) >= authorization.valid_before {
            return Ok(Next::Never("it has expired".to_owned()));
        }
        let balance = ICredit::balanceOfCall { account: authorizer };
        if view(&*self.account, Module::Credit, &balance).await? < due.wei() {
            return Ok(Next::Wait("the payer has not enough any more".to_owned()));
        }
        Ok(Next::Send)
    }

    async fn follow(&self, due: &Due, next: Next, waiting: &mut Option<String>) {
        match next {
            Next::Send => {}
            Next::Taken(micro) => self.taken(due, micro, B256::ZERO).await,
            Next::Wait(reason) if due.was_told() => {
                waiting.get_or_insert(format!("{}: {reason}", due.id.0));
            }
            // Nobody was told anything: it is given up, so that it is not taken later either.
            Next::Wait(reason) | Next::Never(reason) => {
                warn!(payer = %due.id.0, micro = due.micro, reason, "a payment cannot be taken");
                self.advance(&due.id, Stage::Lost(Micro(due.micro), reason));
            }
        }
    }

    async fn taken(&self, due: &Due, micro: u128, transaction: B256) {
        if let Purpose::Credits { key } = due.row.purpose
            && let Err(failure) = self.keys.deposit(key, due.id, micro).await
        {
            // The ledger will say once more that it was taken.
            warn!(failure, "credits that were bought cannot be kept");
            return;
        }
        info!(payer = %due.id.0, micro, %transaction, "a payment was taken");
        self.advance(&due.id, Stage::Settled(Micro(micro), transaction));
    }

    /// Forgets what has ended and the ledger refuses by itself.
    async fn forget(&self) -> Result<(), String> {
        if self.lock().rows.is_empty() {
            return Ok(());
        }
        let moment = self.account.moment().await.map_err(|failure| failure.message)?;
        let now = U256::from(moment.timestamp_ms / 1_000);
        let mut state = self.lock();
        let over = |row: &Row| {
            matches!(row.stage, Stage::Settled(..) | Stage::Lost(..)) && row.authorization.valid_before < now
        };
        let over: Vec<PaymentId> =
            state.rows.iter().filter(|(_, row)| over(row)).map(|(id, _)| *id).collect();
        for id in over {
            state.rows.remove(&id);
            drop(self.store.keep(id, None));
        }
        Ok(())
    }
}
