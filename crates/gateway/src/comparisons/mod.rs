//! Comparisons: whether workers that front somebody else's servers give the answers of the model that they name.
//!
//! In:     answers of theirs that are whole.
//! Out:    for each worker and the model that it names, how much speaks against it, and whether it is taken for another.
//! Touches: exact workers, by orders; `comparisons.redb`.
//! Holds:  which answers are compared is drawn after they were given, so nobody can behave only then; what is found is kept over
//!         a restart; an answer's text is shown to nobody whom its caller's preferences exclude. A worker is never accused by one
//!         answer, and nothing is taken from it: it is asked less, and not where the tier is wanted.
//! Absent: who is asked (`route`), what callers are told (`api`).

mod scoring;
mod statistic;
mod store;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use surety_types::{Amount, Digest, Disclosure, ModelId, PublicKey, What};
use tokio::sync::Semaphore;
use tracing::{info, warn};

pub(crate) use scoring::Subject;
use scoring::score;
use statistic::{DIFFERS_AT, difference};
use store::{Claim, Row, Store};

use crate::{
    api::{shapes::ComparisonReport, unix_ms},
    disk::{OpenStoreError, Writer},
    error::{Accountable, ApiError, Code},
    gateway::Shared,
    journal::trail::Trail,
    route::preferences::{MaxPrice, Name, Preferences, Tier},
};

/// All of a worker's first answers are compared.
const FIRST: u64 = 32;
/// Comparisons under way at once, and those that wait for them.
const AT_ONCE: usize = 2;
const WAITING_MAX: usize = 16;
/// Workers and models that something is kept of.
const CLAIMS_MAX: usize = 65_536;

/// What is known of all workers by comparing their answers.
#[derive(Debug)]
pub(crate) struct Comparisons {
    rows: Mutex<BTreeMap<Claim, Row>>,
    store: Store,
    /// One answer in so many is compared, after the first; none if 0.
    one_in: u32,
    /// For those that wait or are under way.
    waiting: Arc<Semaphore>,
    under_way: Semaphore,
}

/// How a worker stands after a comparison.
struct Taken {
    against: f64,
    differs: bool,
    /// By this one.
    is_found: bool,
}

/// What one comparison came to.
#[derive(Debug, Clone)]
pub(crate) struct Compared {
    /// Who computed what the answer was compared with.
    pub(crate) by: PublicKey,
    /// Tokens that were scored.
    pub(crate) tokens: usize,
    /// In words.
    pub(crate) said: String,
    /// Whether the worker is taken for another model's, now.
    pub(crate) differs: bool,
}

impl Comparisons {
    /// Opens what is in `data_dir`, or makes it.
    pub(crate) fn open(data_dir: &Path, one_in: u32) -> Result<(Arc<Comparisons>, Writer), OpenStoreError> {
        let (store, writer, rows) = Store::open(data_dir)?;
        let comparisons = Comparisons {
            rows: Mutex::new(rows.into_iter().collect()),
            store,
            one_in,
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            under_way: Semaphore::new(AT_ONCE),
        };
        Ok((Arc::new(comparisons), writer))
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Claim, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker's answers are taken for those of another model than it names.
    pub(crate) fn differs(&self, worker: PublicKey, claims: ModelId) -> bool {
        self.rows().get(&(worker, claims)).is_some_and(|row| row.differs_since_ms.is_some())
    }

    /// How much speaks against a worker, from 1 on.
    pub(crate) fn against(&self, worker: PublicKey, claims: ModelId) -> f64 {
        self.rows().get(&(worker, claims)).map_or(1.0, |row| row.tally.against().max(1.0))
    }

    /// What is shown of a worker.
    pub(crate) fn report(&self, worker: PublicKey) -> Vec<ComparisonReport> {
        let model = |byte| (worker, ModelId(Digest([byte; 32])));
        let rows = self.rows();
        let report = |((_, claims), row): (&Claim, &Row)| ComparisonReport {
            model: claims.to_string(),
            compared: row.tally.compared,
            not_compared: row.not_compared,
            against: row.tally.against(),
            differs_at: DIFFERS_AT,
            differs_since_ms: row.differs_since_ms,
        };
        rows.range(model(0)..=model(u8::MAX)).map(report).collect()
    }

    /// How many answers that are said to be of a model were compared, and how many workers were taken for another's.
    pub(crate) fn of_model(&self, claims: ModelId) -> (u64, u32) {
        let rows = self.rows();
        let of_model = || rows.iter().filter(move |((_, model), _)| *model == claims).map(|(_, row)| row);
        let differ = of_model().filter(|row| row.differs_since_ms.is_some()).count() as u32;
        (of_model().map(|row| row.tally.compared).sum(), differ)
    }

    /// Draws whether an answer is compared.
    fn is_due(&self, claim: Claim) -> bool {
        if self.one_in == 0 {
            return false;
        }
        let compared = {
            let rows = self.rows();
            match rows.get(&claim) {
                // Nothing more can come of it.
                Some(row) if row.differs_since_ms.is_some() => return false,
                Some(row) => row.tally.compared,
                None if rows.len() >= CLAIMS_MAX => return false,
                None => 0,
            }
        };
        compared < FIRST || drawn(self.one_in) == Some(0)
    }

    /// Takes in what came of a comparison.
    fn take(&self, (worker, claims): Claim, difference: f64) -> Taken {
        let mut rows = self.rows();
        let row = rows.entry((worker, claims)).or_default();
        // What was found is not found again, nor taken back.
        if row.differs_since_ms.is_some() {
            return Taken { against: row.tally.against(), differs: true, is_found: false };
        }
        row.tally.take(difference);
        let (against, compared) = (row.tally.against(), row.tally.compared);
        let is_found = row.tally.differs();
        if is_found {
            row.differs_since_ms = Some(unix_ms());
            let (worker, model) = (worker.short(), claims.to_string());
            warn!(
                worker,
                model, compared, against, "a worker's answers are taken for another model's than it names"
            );
        }
        self.store.keep((worker, claims), row.clone());
        Taken { against, differs: is_found, is_found }
    }

    fn was_not_compared(&self, claim: Claim) {
        let mut rows = self.rows();
        let row = rows.entry(claim).or_default();
        row.not_compared += 1;
        self.store.keep(claim, row.clone());
    }
}

/// A number below `bound` that nobody can know before; none if there is no randomness.
fn drawn(bound: u32) -> Option<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes) % u64::from(bound.max(1)))
}

/// What is wanted of who is shown an answer of `worker` to compute the model: what its caller wants of who checks, and that it is
/// nobody of the same operator.
pub(crate) fn preferences_of(wanted: &Preferences, kin: &[PublicKey]) -> Preferences {
    let mut preferences = Preferences {
        verification: Some(Tier::Exact),
        quantizations: Vec::new(),
        sort: None,
        checked: false,
        ..wanted.of_check()
    };
    preferences.ignore.extend(kin.iter().filter_map(Name::of_worker));
    preferences
}

/// The same where nobody pays for it: it is asked for with the answer, and the answer is free.
pub(crate) fn for_nothing(preferences: Preferences) -> Preferences {
    let max_price = MaxPrice { prompt: Some(Amount::ZERO), completion: Some(Amount::ZERO) };
    Preferences { max_price, ..preferences }
}

/// Whether an answer may be shown to another worker than its caller named, unasked.
fn may_be_shown(preferences: &Preferences) -> bool {
    preferences.disclosure != Some(Disclosure::Payer)
        && preferences.worker.is_none()
        && preferences.allow_fallbacks
}

/// Compares an answer, and counts it.
pub(crate) async fn compare(shared: &Shared, subject: &Subject) -> Result<Compared, ApiError> {
    let comparisons = &shared.comparisons;
    let claim = (subject.worker, subject.claims);
    let scored = match score(shared, subject).await {
        Ok(scored) => scored,
        Err(error) => {
            comparisons.was_not_compared(claim);
            shared.metrics.compared("not_compared");
            return Err(error);
        }
    };
    let difference = difference(scored.answer, scored.own, scored.manner);
    let Taken { against, differs, is_found } = comparisons.take(claim, difference);
    shared.metrics.compared(if is_found { "differs" } else { "compared" });
    let (answer, own) = (scored.answer.mean, scored.own.mean);
    let said = format!(
        "R-14: {answer:.3} a token, of a fresh answer of the model {own:.3}; against the worker {against:.3} of {DIFFERS_AT}; \
         one answer alone shows little",
    );
    Ok(Compared { by: scored.by, tokens: scored.answer.tokens, said, differs })
}

/// Compares one of these answers in the background, if it is drawn. What comes of it is noted where the request's story is.
pub(crate) fn perhaps_compare(
    shared: &Arc<Shared>,
    mut subjects: Vec<Subject>,
    preferences: &Preferences,
    noted: impl FnOnce(&Compared) + Send + 'static,
) {
    if subjects.is_empty() || !may_be_shown(preferences) {
        return;
    }
    let Some(index) = drawn(subjects.len() as u32) else { return };
    let subject = subjects.swap_remove(index as usize);
    if !shared.comparisons.is_due((subject.worker, subject.claims)) {
        return;
    }
    // Who cannot be compared soon is not compared.
    let Ok(waiting) = Arc::clone(&shared.comparisons.waiting).try_acquire_owned() else { return };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let _waiting = waiting;
        let comparing = async {
            // An error means that it was closed, which it never is.
            let _turn = shared.comparisons.under_way.acquire().await.ok()?;
            compare(&shared, &subject)
                .await
                .inspect_err(|error| info!(error = error.message(), "an answer was not compared"))
                .ok()
        };
        let compared = tokio::select! {
            compared = comparing => compared,
            () = shared.halted() => None,
        };
        if let Some(compared) = compared {
            noted(&compared);
        }
    });
}

/// Notes in a request's story what its answer was compared with.
pub(crate) fn note(trail: &Trail, compared: &Compared) {
    trail.noted(What::Compared, compared.by, None, compared.tokens, compared.said.clone());
}

/// The answer of a worker that was found, by the answers before it or by this one, to be another model's.
pub(crate) fn differs(worker: PublicKey, claims: ModelId) -> ApiError {
    let message = format!(
        "The answers of worker {} are taken for those of another model than {claims}, which its operator says that its upstream \
         runs, by how likely that model finds them (R-14): an honest worker ever comes to that once in {DIFFERS_AT}. Do not rely on \
         what came so far; nothing is charged. Send the request again: other workers are asked.",
        worker.short(),
    );
    ApiError::new(Code::VerificationFailed, message)
        .with_accountable(Accountable::Unknown)
        .with_worker(worker)
}
