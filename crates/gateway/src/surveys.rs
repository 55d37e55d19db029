//! Surveys: what the ledger shows of itself to people, computed once for everybody who looks.
//!
//! In:     a ledger. Out: pages as JSON: who controls what, where the money is, what is being decided.
//! Touches: the ledger, while somebody looks.
//! Holds:  a page is computed by one at a time, and anew only when the chain has a newer block; whoever asked while it was
//!         computed is given the same.
//! Absent: what a page says (`client::ledger`), how it is shown (`web`).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alloy_primitives::Address;
use axum::{http::HeaderMap, response::Response};
use serde::Serialize;
use surety_client::ledger::{
    Ledger, LedgerError,
    conduct::conducts,
    economics::{Flows, economics, flows},
    governance::Governance,
    powers::powers,
    survey::Survey,
};
use tokio::{sync, time::timeout};
use tracing::warn;

use crate::{
    api::{fresh::Shown, ledger::too_late},
    error::{ApiError, Code},
};

/// A page that is no older needs no look at the chain.
const FRESH: Duration = Duration::from_millis(200);
/// For the ledger to answer all that a page asks.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The pages.
#[derive(Debug)]
pub(crate) struct Surveys {
    ledger: Ledger,
    /// Where a wallet of this machine finds the chain; none: whoever has a wallet names a node.
    rpc_url: Option<String>,
    survey: Kept<Arc<Survey>>,
    powers: Kept<Page>,
    economics: Kept<Page>,
    governance: Kept<Page>,
    flows: Arc<Mutex<LastFlows>>,
}

/// What happened in the last whole epoch, which takes long to add up and does not change.
#[derive(Debug, Default)]
struct LastFlows {
    /// The epoch in which it was, or is, added up.
    at: Option<u64>,
    found: Option<Flows>,
}

/// A page at a block.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    number: u64,
    shown: Arc<Shown>,
}

/// A value that is computed for everybody.
#[derive(Debug)]
struct Kept<T>(sync::Mutex<Option<Made<T>>>);

#[derive(Debug)]
struct Made<T> {
    at: Instant,
    value: Result<T, ApiError>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(sync::Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    /// What was made since this was called, or is fresh; else what `make` makes of the value before.
    async fn get<M: Future<Output = Result<T, ApiError>>>(
        &self,
        make: impl FnOnce(Option<T>) -> M,
    ) -> Result<T, ApiError> {
        let asked = Instant::now();
        let mut kept = self.0.lock().await;
        if let Some(made) = &*kept
            && (made.at >= asked || made.at.elapsed() < FRESH)
        {
            return made.value.clone();
        }
        let before = kept.as_ref().and_then(|made| made.value.as_ref().ok().cloned());
        let value = make(before).await;
        *kept = Some(Made { at: Instant::now(), value: value.clone() });
        value
    }
}

/// Governance, with what a wallet needs.
#[derive(Serialize)]
struct GovernancePage {
    #[serde(flatten)]
    governance: Governance,
    rpc_url: Option<String>,
}

impl Surveys {
    /// Pages of a ledger. Where the chain is reached is told only to those on this machine.
    pub(crate) fn new(ledger: Ledger, loopback_only: bool) -> Self {
        let rpc_url = ledger.node_names().next().filter(|_| loopback_only).map(str::to_owned);
        Self {
            ledger,
            rpc_url,
            survey: Kept::default(),
            powers: Kept::default(),
            economics: Kept::default(),
            governance: Kept::default(),
            flows: Arc::default(),
        }
    }

    /// The ledger that they are of.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Who controls what.
    pub(crate) async fn powers(&self) -> Result<Page, ApiError> {
        let make = |before: Option<Page>| async move {
            let survey = self.survey().await?;
            match before.filter(|page| page.number == survey.tip.number) {
                Some(page) => Ok(page),
                None => Page::new(survey.tip.number, &powers(&survey)),
            }
        };
        in_time(self.powers.get(make)).await
    }

    /// What there is, where it is, who paid whom, what answers for it.
    pub(crate) async fn economics(&self) -> Result<Page, ApiError> {
        let make = |before: Option<Page>| async move {
            let survey = self.survey().await?;
            if let Some(page) = before.filter(|page| page.number == survey.tip.number) {
                return Ok(page);
            }
            let flows = self.last_flows(survey.tip.epoch);
            let operators: Vec<Address> = survey.operators.iter().map(|operator| operator.account).collect();
            let done = conducts(&self.ledger, &operators).await;
            let page = economics(&self.ledger, &survey, flows, done).await.map_err(unavailable)?;
            // By the survey's block: that is what is compared.
            Page::new(survey.tip.number, &page)
        };
        in_time(self.economics.get(make)).await
    }

    /// What can be decided, and what is being decided.
    pub(crate) async fn governance(&self) -> Result<Page, ApiError> {
        let make = |before: Option<Page>| async move {
            let tip = self.ledger.tip().await.map_err(unavailable)?;
            if let Some(page) = before.filter(|page| page.number == tip.number) {
                return Ok(page);
            }
            let governance = self.ledger.governance().await.map_err(unavailable)?;
            let page = GovernancePage { governance, rpc_url: self.rpc_url.clone() };
            Page::new(page.governance.number, &page)
        };
        in_time(self.governance.get(make)).await
    }

    async fn survey(&self) -> Result<Arc<Survey>, ApiError> {
        let make = |before: Option<Arc<Survey>>| async move {
            let tip = self.ledger.tip().await.map_err(unavailable)?;
            match before.filter(|survey| survey.tip.number == tip.number) {
                Some(survey) => Ok(survey),
                None => self.ledger.survey().await.map(Arc::new).map_err(unavailable),
            }
        };
        self.survey.get(make).await
    }

    /// What happened in the last whole epoch; until that is added up, in the one before.
    fn last_flows(&self, epoch: u64) -> Option<Flows> {
        let mut known = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        if known.at != Some(epoch) {
            known.at = Some(epoch);
            let (ledger, known) = (self.ledger.clone(), Arc::clone(&self.flows));
            tokio::spawn(async move {
                let found = flows(&ledger, epoch).await;
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                match found {
                    Ok(found) => known.found = found,
                    Err(error) => {
                        warn!(%error, epoch, "what happened in the last epoch cannot be added up");
                        // The next who looks has it tried again.
                        known.at = None;
                    }
                }
            });
        }
        known.found.clone()
    }
}

impl Page {
    fn new(number: u64, page: &impl Serialize) -> Result<Page, ApiError> {
        Ok(Page { number, shown: Arc::new(Shown::new(page)?) })
    }

    /// The page, or that it is the one that the caller has.
    pub(crate) fn response(&self, asked: &HeaderMap) -> Response {
        self.shown.response(asked)
    }
}

async fn in_time(page: impl Future<Output = Result<Page, ApiError>>) -> Result<Page, ApiError> {
    timeout(TIMEOUT, page).await.map_err(|_| too_late())?
}

pub(crate) fn unavailable(error: LedgerError) -> ApiError {
    let hint = error.hint().unwrap_or("Try again later");
    ApiError::new(Code::LedgerUnavailable, format!("The ledger cannot be asked: {error}. {hint}."))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::http::{HeaderValue, header};

    use super::*;

    #[tokio::test]
    async fn a_hundred_who_look_have_it_computed_once() {
        let (kept, made, gate) = (Kept::<u32>::default(), AtomicU32::new(0), sync::Semaphore::new(0));
        let (made, gate) = (&made, &gate);
        let look = |_| {
            kept.get(move |before: Option<u32>| async move {
                gate.acquire().await.unwrap().forget();
                made.fetch_add(1, Ordering::Relaxed);
                Ok(before.unwrap_or(0) + 1)
            })
        };
        let looking = futures::future::join_all((0..100).map(look));
        // It ends only when everybody has asked.
        let open = async { gate.add_permits(100) };
        let (looked, ()) = futures::future::join(looking, open).await;
        assert!(looked.into_iter().all(|value| value.unwrap() == 1));
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_those_who_waited_and_tried_again_by_the_next() {
        let kept = Kept::<u32>::default();
        let failed = || async { Err(ApiError::new(Code::LedgerUnavailable, "Not now.")) };
        assert!(kept.get(|_| failed()).await.is_err());
        tokio::time::sleep(FRESH).await;
        let made = kept.get(|before| async move {
            assert_eq!(before, None, "a failure is no value");
            Ok(7)
        });
        assert_eq!(made.await.unwrap(), 7);
    }

    #[test]
    fn a_page_is_told_once() {
        let page = Page::new(1, &serde_json::json!({ "number": 1 })).unwrap();
        let first = page.clone().response(&HeaderMap::new());
        assert_eq!(
            (first.status().as_u16(), &first.headers()[header::CACHE_CONTROL]),
            (200, &HeaderValue::from_static("no-cache"))
        );
        let tag = first.headers()[header::ETAG].clone();
        let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]);
        assert_eq!(page.clone().response(&asked).status(), 304);
        let other = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("\"other\""))]);
        assert_eq!(page.response(&other).status(), 200);
    }
}
