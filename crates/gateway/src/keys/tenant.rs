//! Tenant: who a request is from, for as long as anything is done for it.
//!
//! In:     a key's number, or a payment. Out: what it may have, and what is set aside, charged and given back in its name.
//! Touches: the keys' state and store.
//! Holds:  what a task does is done for one tenant; tokens that were taken of a limit and never came are put back.
//! Absent: letting anybody in (the room); what one request holds and is charged (`hold`).

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use surety_types::Digest;
use tracing::error;

use super::{Hold, KeyTerms, Keys, NOBODY, PAYER, Room, credits, store::Change};
use crate::{
    api::unix_ms,
    disk::Written,
    error::{ApiError, Code},
    id::RequestId,
    payments::Payment,
};

/// Who a request is from, as long as anything is done for it.
#[derive(Debug, Clone)]
pub(crate) struct Tenant(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Arc<Keys>,
    key: u64,
    name: Option<String>,
    /// Tokens that were taken of the limit before they were counted.
    estimate: AtomicU64,
    failed: AtomicBool,
    /// What pays for the request, where no key does.
    payment: Option<Arc<Payment>>,
    /// Whether the request may be sent again.
    sent: Mutex<Option<Sent>>,
}

/// A request that is answered once, however often it is sent.
#[derive(Debug)]
pub(crate) enum Sent {
    /// That it was sent is on the disk soon: this says when.
    First(Written<()>),
    /// A gateway that was stopped had begun to answer it.
    Again,
}

tokio::task_local! {
    static TENANT: Tenant;
}

impl Tenant {
    pub(super) fn new(keys: &Arc<Keys>, key: u64, name: Option<String>, estimate: u64) -> Tenant {
        Tenant(Arc::new(Inner {
            keys: Arc::clone(keys),
            key,
            name,
            estimate: AtomicU64::new(estimate),
            failed: AtomicBool::new(false),
            payment: None,
            sent: Mutex::default(),
        }))
    }

    /// Whoever pays for requests by themselves, and has a look.
    pub(crate) fn payer(keys: &Arc<Keys>) -> Tenant {
        Tenant::new(keys, PAYER, None, 0)
    }

    /// The gateway itself, at its own expense.
    pub(crate) fn of_gateway(keys: &Arc<Keys>) -> Tenant {
        Tenant::new(keys, NOBODY, None, 0)
    }

    /// Who pays for one request by this.
    pub(crate) fn paying(keys: &Arc<Keys>, payment: Arc<Payment>) -> Tenant {
        Tenant(Arc::new(Inner {
            keys: Arc::clone(keys),
            key: PAYER,
            name: None,
            estimate: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            payment: Some(payment),
            sent: Mutex::default(),
        }))
    }

    /// Whom this task works for. A gateway that is open works for nobody in particular; one that is not works for nobody
    /// who has not come in.
    pub(crate) fn current(keys: &Arc<Keys>) -> Result<Tenant, ApiError> {
        match TENANT.try_with(Tenant::clone) {
            Ok(tenant) => Ok(tenant),
            Err(_) => keys.admit(None, None).map_err(|refused| refused.error),
        }
    }

    /// Whom something was begun for, by the number of its key, as long as the key is good.
    pub(crate) fn again(keys: &Arc<Keys>, key: u64) -> Result<Tenant, ApiError> {
        Tenant::once_more(keys, key, None)
    }

    /// The same for a request of about so many tokens that counts against the key's limits.
    pub(crate) fn again_counted(keys: &Arc<Keys>, key: u64, tokens: u64) -> Result<Tenant, ApiError> {
        Tenant::once_more(keys, key, Some(tokens))
    }

    fn once_more(keys: &Arc<Keys>, key: u64, tokens: Option<u64>) -> Result<Tenant, ApiError> {
        if key == NOBODY {
            return keys.admit(None, None).map_err(|refused| refused.error);
        }
        let (mut state, now_ms) = (keys.lock(), unix_ms());
        let entry = state.keys.get_mut(&key);
        let entry = entry.filter(|entry| !["revoked", "expired"].contains(&entry.state(now_ms)));
        match entry {
            Some(entry) => {
                let estimate = tokens.map_or(Ok(0), |tokens| entry.take(now_ms, tokens));
                let estimate = estimate.map_err(|(error, _)| error)?;
                Ok(Tenant::new(keys, key, Some(entry.row.terms.name.clone()), estimate))
            }
            None => {
                let message = "The key that this was asked for with was revoked or has expired meanwhile. Ask anew with \
                               another.";
                Err(ApiError::new(Code::BadKey, message))
            }
        }
    }

    /// Does something for this tenant.
    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        TENANT.scope(self, future).await
    }

    pub(crate) fn key(&self) -> u64 {
        self.0.key
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// The key's number, or the payer's: the same for all that one of them asks, and for nobody else.
    pub(crate) fn number(&self) -> u64 {
        self.0.payment.as_ref().map_or(self.0.key, |payment| payment.payer_number())
    }

    /// Whether a payment of its own stands for the request.
    pub(crate) fn pays_by_request(&self) -> bool {
        self.0.payment.is_some()
    }

    /// Milliseconds that an answer may take, where what pays for it is good for so long only.
    pub(crate) fn patience_ms(&self) -> Option<u64> {
        self.0.payment.as_ref().and_then(|payment| payment.patience_ms())
    }

    /// The terms, if there are any.
    pub(crate) fn terms(&self) -> Option<KeyTerms> {
        self.0.keys.lock().keys.get(&self.0.key).map(|entry| entry.row.terms.clone())
    }

    pub(crate) fn room(&self) -> Room {
        self.0.keys.room(self.0.key)
    }

    /// What is set aside for a request of this tenant's.
    pub(crate) fn hold(&self, request: RequestId, model: &str, choices: u32, received_ms: u64) -> Arc<Hold> {
        Hold::new(self.clone(), request, model.to_owned(), choices, received_ms)
    }

    /// The same number for the same beginning of one tenant's requests, and another for another's: what one tenant asks does
    /// not lead another to where it is cached.
    pub(crate) fn affinity(&self, beginning: u64) -> u64 {
        match self.number() {
            NOBODY => beginning,
            number => {
                let digest = Digest::of(
                    "surety 2026 affinity",
                    &[number.to_le_bytes(), beginning.to_le_bytes()].concat(),
                );
                u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("32 bytes"))
            }
        }
    }

    /// Whether something is set aside of the key's budget, for whatever is under way.
    pub(crate) fn has_reserved(&self) -> bool {
        self.0.keys.lock().keys.get(&self.0.key).is_some_and(|entry| entry.account.reserved > 0)
    }

    /// Whether what was asked for failed after its response had begun.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Acquire)
    }

    /// Its request may be sent again.
    pub(crate) fn sent_once(&self, sent: Sent) {
        *self.sent() = Some(sent);
    }

    /// Whether its request may be sent again, so that the next gateway should be able to go on with the answer.
    pub(crate) fn is_sent_once(&self) -> bool {
        self.sent().is_some()
    }

    /// Whether a gateway that was stopped had begun to answer its request.
    pub(crate) fn is_sent_again(&self) -> bool {
        matches!(*self.sent(), Some(Sent::Again))
    }

    fn sent(&self) -> MutexGuard<'_, Option<Sent>> {
        self.0.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once the disk knows that its request may be sent again.
    pub(crate) async fn sent_on_disk(&self) {
        let written = match &mut *self.sent() {
            Some(Sent::First(written)) => written.take(),
            Some(Sent::Again) | None => None,
        };
        if let Some(written) = written
            && let Err(failure) = written.at_once().await
        {
            error!(%failure, "a crash now would let a request be answered twice");
        }
    }

    pub(super) fn failed(&self) {
        if let Some(payment) = &self.0.payment {
            payment.give_up();
        }
        self.0.failed.store(true, Ordering::Release);
    }

    pub(super) fn reserve(&self, amount: u128) -> Result<(), ApiError> {
        if let Some(payment) = &self.0.payment {
            return payment.reserve(amount);
        }
        let mut state = self.0.keys.lock();
        let Some(entry) = state.keys.get_mut(&self.0.key) else { return Ok(()) };
        entry.account.reserve(amount).map_err(|short| {
            let account = entry.account;
            let message = format!(
                "The key `{}` has {} credits left of its budget of {}, and {} more are needed to be sure to cover this \
                 request: {} are used, {} set aside for answers under way. Nothing was charged. Ask for fewer tokens \
                 (`max_tokens`), wait until those answers have ended, or have the budget raised: it does not renew itself. Where \
                 the gateway sells credits, `POST /v1/credits` buys more.",
                entry.row.terms.name,
                credits(short.left),
                credits(account.all().unwrap_or(0)),
                credits(short.needed),
                credits(account.used),
                credits(account.reserved),
            );
            ApiError::new(Code::BudgetExhausted, message)
        })
    }

    pub(super) fn release(&self, amount: u128) {
        if let Some(payment) = &self.0.payment {
            return payment.release(amount);
        }
        if let Some(entry) = self.0.keys.lock().keys.get_mut(&self.0.key) {
            entry.account.release(amount);
        }
    }

    pub(super) fn settle(&self, reserved: u128, cost: u128, tokens: u64) {
        if let Some(payment) = &self.0.payment {
            return payment.charge(reserved, cost);
        }
        let estimate = self.0.estimate.swap(0, Ordering::AcqRel);
        if let Some(entry) = self.0.keys.lock().keys.get_mut(&self.0.key) {
            entry.account.release(reserved);
            entry.account.charge(cost);
            entry.requests += 1;
            if let Some(bucket) = &mut entry.tpm {
                let now_ms = unix_ms();
                bucket.put(now_ms, estimate);
                bucket.take(now_ms, tokens);
            }
        }
    }

    pub(super) fn post(&self, change: Change) {
        self.0.keys.store.post(change);
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<u128, usize>> {
        self.0.keys.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is held for a request; what is returned says when the disk knows.
    pub(super) fn hold_on_disk(&self, request: u128) -> Written<()> {
        *self.holds().entry(request).or_default() += 1;
        self.keep(Change::Hold { request, key: self.0.key })
    }

    /// What was held is charged or given back, and the disk was told: if it was not all that is held for the request, it is
    /// told that, too.
    pub(super) fn hold_over(&self, request: u128) {
        let mut holds = self.holds();
        let Some(left) = holds.get_mut(&request) else { return };
        *left -= 1;
        match *left {
            0 => drop(holds.remove(&request)),
            _ => self.post(Change::Hold { request, key: self.0.key }),
        }
    }

    pub(super) fn keep(&self, change: Change) -> Written<()> {
        self.0.keys.store.keep(change)
    }
}

impl Drop for Inner {
    /// What was taken for tokens that never came is put back.
    fn drop(&mut self) {
        let estimate = *self.estimate.get_mut();
        if estimate > 0
            && let Some(entry) = self.keys.lock().keys.get_mut(&self.key)
            && let Some(bucket) = &mut entry.tpm
        {
            bucket.put(unix_ms(), estimate);
        }
    }
}
