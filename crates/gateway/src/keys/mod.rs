//! Keys: who may use the gateway, how fast, and for how much; and what each has used.
//!
//! In:     secrets that callers show; what requests set aside and are charged; credits that are paid in. Out: tenants, or why
//!         not; usage.
//! Touches: `keys.redb` in the data directory; a control socket beside it, for `surety apikey`.
//! Holds:  a gateway without keys is open, unless it is to require one; once there is a key, nobody gets in without one that
//!         is known, not expired and not revoked, or pays for the request itself (`payments`). Of each budget and what was paid
//!         in beside it, used and reserved are never more than all of it; a payment is credited once. What a
//!         crash left reserved is charged if there is a receipt for it, and else given back.
//! Absent: HTTP (`api`), prices and orders (`route`, `session`).

mod account;
mod buckets;
mod control;
pub(crate) mod hold;
mod limits;
mod owned;
mod store;
mod tenant;
mod terms;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use surety_types::{Digest, Envelope, Evidence, Receipt, Signed};
use tracing::{info, warn};

pub(crate) use account::Account;
pub(crate) use buckets::{Buckets, UsageBucket, Width};
pub use control::{ControlError, KeysOf, LoggedRequest, RequestsPage, UsagePage};
pub(crate) use control::{Kept, Served};
pub(crate) use hold::Hold;
pub(crate) use limits::{Bucket, Level};
pub(crate) use owned::Owned;
use store::{Change, Deposit, KeyRow, Store};
pub use store::{Generation, GenerationPart, Totals};
pub(crate) use store::{NOBODY, PAYER};
pub(crate) use tenant::{Sent, Tenant};
pub(crate) use terms::SECRET_PREFIX;
pub use terms::{KeyPrice, KeyReport, KeyTerms, Micro, TermsError};

use crate::{
    api::unix_ms,
    disk::{OpenStoreError, Writer},
    error::{ApiError, Code},
    id::RequestId,
    payments::PaymentId,
};

/// Keys, at most.
const KEYS_MAX: usize = 10_000;
/// Names listed where one is not found.
const NAMES_LISTED: usize = 8;

/// Why a key cannot be made, or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Its terms are not sound.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// Another has the name.
    #[error("there is a key called `{0}` already, perhaps a revoked one")]
    NameTaken(String),
    /// None has it.
    #[error("there is no key called `{name}`; there are: {}", if known.is_empty() { "none" } else { known })]
    Unknown {
        /// What was asked for.
        name: String,
        /// Some that there are.
        known: String,
    },
    /// There are as many as there can be.
    #[error("there are {KEYS_MAX} keys, which is all there can be")]
    Full,
    /// It is not on the disk.
    #[error("the key was not kept: {0}")]
    Disk(String),
    /// The system gave no random bytes.
    #[error("the system's random source failed")]
    Random,
}

impl KeysError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            KeysError::Terms(_) => "see `surety apikey create --help`",
            KeysError::NameTaken(_) => {
                "choose another name: usage is told by name, also of keys that are revoked"
            }
            KeysError::Unknown { .. } => "see `surety apikey list`",
            KeysError::Full => "use another data directory",
            KeysError::Disk(_) => "check that the data directory is writable and has room",
            KeysError::Random => "restart; if it happens again the operating system is at fault",
        }
    }
}

/// The keys of a gateway.
#[derive(Debug)]
pub(crate) struct Keys {
    state: Mutex<State>,
    store: Store,
    /// Nobody gets in without one, even where there is none yet.
    required: bool,
    /// Holds that the disk knows of, by request: a stream that was left and is gone on with has two for a while.
    holds: Mutex<HashMap<u128, usize>>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<u64, Entry>,
    secrets: HashMap<Digest, u64>,
}

#[derive(Debug)]
struct Entry {
    row: KeyRow,
    account: Account,
    requests: u64,
    rpm: Option<Bucket>,
    tpm: Option<Bucket>,
}

/// Somebody was not let in.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: ApiError,
    pub(crate) room: Room,
    /// The number of the key, if it is good and only has no room now.
    pub(crate) key: Option<u64>,
}

/// What a request may have of its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) requests: Option<Level>,
    pub(crate) tokens: Option<Level>,
}

impl Keys {
    /// Opens what is in `data_dir`, or makes it. `answered` tells what a request was charged by the receipts that are kept;
    /// without it, what a crash left reserved is left to whoever has it.
    pub(crate) fn open(
        data_dir: &Path,
        required: bool,
        answered: Option<&dyn Fn(RequestId) -> Option<Generation>>,
    ) -> Result<(Arc<Keys>, Writer), OpenStoreError> {
        let (store, writer, kept) = Store::open(data_dir)?;
        let mut totals = kept.totals;
        for (request, key) in kept.holds {
            let Some(answered) = answered else { break };
            let name = kept.keys.get(&key).map(|row| row.terms.name.clone());
            let change = match answered(RequestId::of_bits(request)) {
                // What was held still was of an attempt that its reader had left.
                Some(generation) if is_charged(&store, request, &generation) => Change::Release { request },
                Some(generation) => {
                    let generation = Generation { key: name, ..generation };
                    let sum = totals.entry(key).or_default();
                    sum.cost.0 = sum.cost.0.saturating_add(generation.cost.0);
                    sum.requests += 1;
                    info!(
                        request = generation.id,
                        "a receipt from before the gateway was stopped is charged"
                    );
                    Change::Settle { request, key, generation: Box::new(generation) }
                }
                None => Change::Release { request },
            };
            store.post(change);
        }
        let (now_ms, mut state) = (unix_ms(), State::default());
        for (key, row) in kept.keys {
            let Ok(digest) = row.digest.parse::<Digest>() else {
                warn!(key = row.terms.name, "the digest of a key cannot be read: it is refused");
                continue;
            };
            let sum = totals.remove(&key).unwrap_or_default();
            let mut entry = Entry::new(row, sum.cost.0, sum.requests, now_ms);
            entry.account.buy(kept.bought.get(&key).copied().unwrap_or(0));
            state.secrets.insert(digest, key);
            state.keys.insert(key, entry);
        }
        let keys = Keys { state: Mutex::new(state), store, required, holds: Mutex::default() };
        Ok((Arc::new(keys), writer))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody gets in without a key.
    pub(crate) fn is_closed(&self) -> bool {
        self.required || !self.lock().keys.is_empty()
    }

    /// Makes a key; its secret is told this once.
    pub(crate) async fn create(&self, terms: KeyTerms) -> Result<(String, KeyReport), KeysError> {
        terms.check()?;
        let (secret, digest) = terms::new_secret().map_err(|_| KeysError::Random)?;
        let row = KeyRow { digest: digest.to_string(), terms, created_ms: unix_ms(), revoked_ms: None };
        let (key, kept) = {
            let mut state = self.lock();
            if state.keys.values().any(|entry| entry.row.terms.name == row.terms.name) {
                return Err(KeysError::NameTaken(row.terms.name));
            }
            if state.keys.len() >= KEYS_MAX {
                return Err(KeysError::Full);
            }
            let key = state.keys.last_key_value().map_or(NOBODY, |(key, _)| *key) + 1;
            state.keys.insert(key, Entry::new(row.clone(), 0, 0, row.created_ms));
            (key, self.store.keep(Change::Key(key, Box::new(row))))
        };
        let kept = kept.outcome().await;
        let mut state = self.lock();
        if let Err(failure) = kept {
            state.keys.remove(&key);
            return Err(KeysError::Disk(failure.to_string()));
        }
        // Nobody knows the secret before it is on the disk.
        state.secrets.insert(digest, key);
        let report = state.keys.get(&key).map(Entry::report).ok_or(KeysError::Full)?;
        Ok((secret, report))
    }

    /// Has a key refused from now on.
    pub(crate) async fn revoke(&self, name: &str) -> Result<KeyReport, KeysError> {
        let (kept, report) = {
            let mut state = self.lock();
            let (key, entry) = state.named(name)?;
            entry.row.revoked_ms.get_or_insert_with(unix_ms);
            let change = Change::Key(key, Box::new(entry.row.clone()));
            (self.store.keep(change), entry.report())
        };
        kept.outcome().await.map(|()| report).map_err(|failure| KeysError::Disk(failure.to_string()))
    }

    /// All keys, also those that are refused.
    pub(crate) fn list(&self) -> Vec<KeyReport> {
        self.lock().keys.values().map(Entry::report).collect()
    }

    /// One key.
    pub(crate) fn show(&self, name: &str) -> Result<KeyReport, KeysError> {
        self.lock().named(name).map(|(_, entry)| entry.report())
    }

    /// The number of a key.
    pub(crate) fn number(&self, name: &str) -> Result<u64, KeysError> {
        self.lock().named(name).map(|(key, _)| key)
    }

    /// How a key's account stands; none of nobody's.
    pub(crate) fn account(&self, key: u64) -> Option<(KeyReport, Account)> {
        self.lock().keys.get(&key).map(|entry| (entry.report(), entry.account))
    }

    /// Credits a key with what a payment brought, once, however often it is told; returns when that is on the disk. Reads the
    /// disk. One payment at a time.
    pub(crate) async fn deposit(
        &self,
        key: u64,
        (payer, nonce): PaymentId,
        amount: u128,
    ) -> Result<(), String> {
        let mut payment = [0; 52];
        payment[..20].copy_from_slice(payer.as_slice());
        payment[20..].copy_from_slice(nonce.as_slice());
        let store = self.store.clone();
        let known = tokio::task::spawn_blocking(move || store.has_deposit(&payment)).await;
        let known = known.map_err(|_| "reading the deposits panicked".to_owned())?;
        if known.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let deposit = Deposit { key, amount: Micro(amount), at_ms: unix_ms() };
        let kept = self.store.keep(Change::Deposit { payment, deposit });
        kept.outcome().await.map_err(|error| error.to_string())?;
        if let Some(entry) = self.lock().keys.get_mut(&key) {
            entry.account.buy(amount);
        }
        Ok(())
    }

    /// Of all keys that are bounded: granted, bought, used, set aside and left, in micro-credits.
    pub(crate) fn sums(&self) -> [(&'static str, u128); 5] {
        let mut sums = [("granted", 0u128), ("bought", 0), ("used", 0), ("reserved", 0), ("left", 0)];
        for entry in self.lock().keys.values() {
            let Account { budget: Some(budget), bought, used, reserved } = entry.account else { continue };
            let parts = [budget, bought, used, reserved, entry.account.left().unwrap_or(0)];
            for ((_, sum), part) in sums.iter_mut().zip(parts) {
                *sum = sum.saturating_add(part);
            }
        }
        sums
    }

    /// Returns once all that was charged by now is on the disk.
    pub(crate) async fn written(&self) {
        // If it cannot be, what is read is what there is.
        self.store.flush().await;
    }

    /// A page of a key's usage. Reads the disk.
    pub(crate) fn usage(&self, key: u64, first: u64, count_max: usize) -> Result<UsagePage, String> {
        let (rows, dropped, total) =
            self.store.usage(key, first, count_max).map_err(|error| error.to_string())?;
        let next = (rows.len() == count_max).then(|| rows.last().map(|(at, _)| at + 1)).flatten();
        let generations = rows.into_iter().map(|(_, row)| row).collect();
        Ok(UsagePage { generations, dropped, total, next })
    }

    /// What a key used by spans of time. Reads the disk.
    pub(crate) fn buckets(&self, key: u64, width: Width) -> Result<Buckets, String> {
        self.store.buckets(key, width, unix_ms()).map_err(|error| error.to_string())
    }

    /// What became of a request, and whose it was. Reads the disk.
    pub(crate) fn generation(&self, request: RequestId) -> Result<Option<Owned<Generation>>, String> {
        self.store.generation(request.bits()).map_err(|error| error.to_string())
    }

    /// Who shows this secret, and may come in with about so many tokens.
    pub(crate) fn admit(
        self: &Arc<Self>,
        secret: Option<&str>,
        tokens: Option<u64>,
    ) -> Result<Tenant, Refused> {
        let refused = |error| Refused { error, room: Room::default(), key: None };
        let now_ms = unix_ms();
        let mut state = self.lock();
        if !self.required && state.keys.is_empty() {
            return Ok(Tenant::new(self, NOBODY, None, 0));
        }
        let Some(secret) = secret else {
            let message = "This gateway asks for a key, and the request shows none. Send it as \
                           `Authorization: Bearer sk-surety-…` or `x-api-key`; whoever runs the gateway makes one by \
                           `surety apikey create`.";
            return Err(refused(ApiError::new(Code::BadKey, message)));
        };
        let known = state.secrets.get(&terms::digest(secret)).copied();
        let Some((key, entry)) = known.and_then(|key| Some((key, state.keys.get_mut(&key)?))) else {
            let message = "The key is not known here. Check that all of it was copied, and that it is this gateway's; \
                           `surety apikey create` makes a new one.";
            return Err(refused(ApiError::new(Code::BadKey, message)));
        };
        let name = &entry.row.terms.name;
        match entry.state(now_ms) {
            "revoked" => {
                let message = format!(
                    "The key `{name}` was revoked. Ask whoever runs the gateway for another, or make one by \
                     `surety apikey create`.",
                );
                return Err(refused(ApiError::new(Code::BadKey, message)));
            }
            "expired" => {
                let at = crate::api::utc(entry.row.terms.expires_ms.unwrap_or(0));
                let message = format!(
                    "The key `{name}` expired at {at}. Ask whoever runs the gateway for another, or make one by \
                     `surety apikey create`.",
                );
                return Err(refused(ApiError::new(Code::BadKey, message)));
            }
            _ => {}
        }
        let name = Some(name.clone());
        let Some(tokens) = tokens else { return Ok(Tenant::new(self, key, name, 0)) };
        let estimate = entry.take(now_ms, tokens);
        let estimate = estimate.map_err(|(error, room)| Refused { error, room, key: Some(key) })?;
        Ok(Tenant::new(self, key, name, estimate))
    }

    /// What a key has left of its limits.
    fn room(&self, key: u64) -> Room {
        let mut state = self.lock();
        state.keys.get_mut(&key).map_or_else(Room::default, |entry| entry.room(unix_ms()))
    }
}

impl State {
    fn named(&mut self, name: &str) -> Result<(u64, &mut Entry), KeysError> {
        let found = self.keys.iter().find(|(_, entry)| entry.row.terms.name == name).map(|(key, _)| *key);
        let known = || {
            let names = self.keys.values().take(NAMES_LISTED).map(|entry| entry.row.terms.name.as_str());
            KeysError::Unknown { name: name.to_owned(), known: names.collect::<Vec<_>>().join(", ") }
        };
        let key = found.ok_or_else(known)?;
        let entry = self.keys.get_mut(&key).expect("it was found there");
        Ok((key, entry))
    }
}

impl Entry {
    fn new(row: KeyRow, used: u128, requests: u64, now_ms: u64) -> Entry {
        let bucket = |limit: Option<u32>| limit.map(|limit| Bucket::new(limit, now_ms));
        let terms = &row.terms;
        Entry {
            account: Account { budget: terms.budget.map(|budget| budget.0), bought: 0, used, reserved: 0 },
            requests,
            rpm: bucket(terms.rpm),
            tpm: bucket(terms.tpm),
            row,
        }
    }

    fn state(&self, now_ms: u64) -> &'static str {
        match (self.row.revoked_ms, self.row.terms.expires_ms) {
            (Some(_), _) => "revoked",
            (None, Some(expires_ms)) if expires_ms <= now_ms => "expired",
            (None, _) => "active",
        }
    }

    /// Takes a request of about so many tokens of the limits; how many of them are to be put back once they are counted.
    fn take(&mut self, now_ms: u64, tokens: u64) -> Result<u64, (ApiError, Room)> {
        let waits = [
            ("requests", self.rpm.as_mut().map(|bucket| bucket.wait_ms(now_ms))),
            ("tokens", self.tpm.as_mut().map(|bucket| bucket.wait_ms(now_ms))),
        ];
        if let Some((what, Some(wait))) = waits.into_iter().max_by_key(|(_, wait)| *wait)
            && wait > 0
        {
            let limit = if what == "requests" { self.row.terms.rpm } else { self.row.terms.tpm };
            let message = format!(
                "The key may have {} {what} a minute, and has had them. There is room for more in {:.1} s, at {}: wait \
                 until then, or ask whoever runs the gateway for a higher limit.",
                limit.unwrap_or(0),
                wait as f64 / 1000.0,
                crate::api::utc(now_ms.saturating_add(wait)),
            );
            let error =
                ApiError::new(Code::RateLimited, message).with_retry_after(Duration::from_millis(wait));
            return Err((error, self.room(now_ms)));
        }
        if let Some(bucket) = &mut self.rpm {
            bucket.take(now_ms, 1);
        }
        match &mut self.tpm {
            Some(bucket) => {
                bucket.take(now_ms, tokens);
                Ok(tokens)
            }
            None => Ok(0),
        }
    }

    fn room(&mut self, now_ms: u64) -> Room {
        Room {
            requests: self.rpm.as_mut().map(|bucket| bucket.level(now_ms)),
            tokens: self.tpm.as_mut().map(|bucket| bucket.level(now_ms)),
        }
    }

    fn report(&self) -> KeyReport {
        KeyReport {
            terms: self.row.terms.clone(),
            state: self.state(unix_ms()).to_owned(),
            created_ms: self.row.created_ms,
            revoked_ms: self.row.revoked_ms,
            bought: Micro(self.account.bought),
            used: Micro(self.account.used),
            reserved: Micro(self.account.reserved),
            left: self.account.left().map(Micro),
            requests: self.requests,
        }
    }
}

/// Whether a row of usage has all parts of a generation.
fn is_charged(store: &Store, request: u128, generation: &Generation) -> bool {
    let row = store.generation(request).ok().flatten();
    row.is_some_and(|row| {
        let mut parts = row.apart().1.parts;
        let mut has = |part: &GenerationPart| {
            parts.iter().position(|own| own == part).map(|at| parts.remove(at)).is_some()
        };
        generation.parts.iter().all(&mut has)
    })
}

/// What evidence says that its request was charged.
pub(crate) fn of_evidence(json: &[u8]) -> Option<Generation> {
    let evidence = Evidence::parse(json).ok()?;
    let (envelope, _) = Signed::<Envelope>::peek_value(&evidence.envelope).ok()?;
    let named = envelope.parts.iter().zip(&evidence.answers);
    let receipts = named.filter_map(|(part, answer)| Some((part.is_check(), answer.receipt.as_ref()?)));
    let mut parts = Vec::new();
    let (mut prompts, mut tokens) = (Vec::new(), [0u64; 3]);
    for (is_check, receipt) in receipts {
        let (receipt, _) = Signed::<Receipt>::peek_value(receipt).ok()?;
        if receipt.failure().is_none() && !is_check {
            // Each prompt counts once, however many answers there are to it.
            if !prompts.contains(&receipt.prompt_digest) {
                prompts.push(receipt.prompt_digest);
                tokens[0] += u64::from(receipt.prompt_tokens);
                tokens[1] += u64::from(receipt.cached_tokens);
            }
            tokens[2] += u64::from(receipt.output_tokens);
        }
        parts.push(hold::part_of(&receipt, is_check));
    }
    let [prompt_tokens, cached_tokens, output_tokens] = tokens;
    Some(Generation {
        id: envelope.request_id.clone(),
        key: None,
        model: envelope.model_name.clone(),
        status: "recovered".to_owned(),
        choices: parts.iter().filter(|part| !part.check).count() as u32,
        prompt_tokens,
        cached_tokens,
        output_tokens,
        cost: Micro(envelope.charge.0),
        parts,
        received_ms: envelope.received_ms,
        first_byte_ms: Some(envelope.first_byte_ms),
        done_ms: envelope.done_ms,
    })
}

/// Micro-credits as credits, with a decimal point where one is needed.
pub fn credits(micro: u128) -> String {
    let (whole, part) = (micro / 1_000_000, micro % 1_000_000);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{part:06}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests;
