//! Fresh: what many look at, made once for all of them.
//!
//! In:     how to make it. Out: JSON with a tag, as old as it may be; that it is what the caller has already.
//! Touches: nothing.
//! Holds:  it is made by one at a time, no sooner than it may be, however many look; what is computed here takes a twentieth of a core at
//!         most.
//! Absent: what is made.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use surety_types::Digest;
use tokio::sync::Mutex;

use super::pages;
use crate::error::ApiError;

const ETAG_DOMAIN: &str = "surety 2026 gateway: tag of a public resource";
/// What took so long to make is not made again before so many times that has passed.
const REST: u32 = 19;

/// A resource, and when it was made.
#[derive(Debug, Default)]
pub(crate) struct Fresh(Mutex<Option<Made>>);

#[derive(Debug)]
struct Made {
    at: Instant,
    took: Duration,
    shown: Arc<Shown>,
}

/// A resource as it is sent.
#[derive(Debug)]
pub(crate) struct Shown {
    etag: HeaderValue,
    json: Bytes,
}

impl Fresh {
    /// What was made, no longer ago than `age_max` unless that is too often; else it is made now, by whoever comes first.
    pub(crate) async fn get<T: Serialize>(
        &self,
        age_max: Duration,
        make: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<Arc<Shown>, ApiError> {
        self.rested(age_max, REST, make).await
    }

    /// The same where the time goes into waiting for somebody else: a slow ledger is no reason to show what is old.
    pub(crate) async fn get_from_afar<T: Serialize>(
        &self,
        age_max: Duration,
        make: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<Arc<Shown>, ApiError> {
        self.rested(age_max, 0, make).await
    }

    async fn rested<T: Serialize>(
        &self,
        age_max: Duration,
        rest: u32,
        make: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<Arc<Shown>, ApiError> {
        let mut made = self.0.lock().await;
        let fresh = made.as_ref().filter(|made| made.at.elapsed() <= age_max.max(made.took * rest));
        if let Some(made) = fresh {
            return Ok(Arc::clone(&made.shown));
        }
        let began = Instant::now();
        let shown = Arc::new(Shown::new(&make.await?)?);
        *made = Some(Made { at: Instant::now(), took: began.elapsed(), shown: Arc::clone(&shown) });
        Ok(shown)
    }
}

impl Shown {
    pub(crate) fn new(resource: &impl Serialize) -> Result<Shown, ApiError> {
        let json = serde_json::to_vec(resource).map_err(|_| ApiError::bug("what it shows is not JSON"))?;
        let digest = Digest::of(ETAG_DOMAIN, &json).to_string();
        let etag = HeaderValue::try_from(format!("\"{}\"", &digest[..32])).expect("hexadecimal digits");
        Ok(Shown { etag, json: json.into() })
    }

    /// The resource, or that it is the same as before.
    pub(crate) fn response(&self, asked: &HeaderMap) -> Response {
        let is_known = self.etag.to_str().is_ok_and(|etag| pages::is_known(asked, etag));
        let mut response = match is_known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(header::CONTENT_TYPE, "application/json")], self.json.clone()).into_response(),
        };
        response.headers_mut().insert(header::ETAG, self.etag.clone());
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_who_look_at_once_have_it_made_once_and_know_it_again() {
        let (fresh, made) = (Fresh::default(), AtomicU32::new(0));
        let make = async || {
            tokio::task::yield_now().await;
            Ok(made.fetch_add(1, Ordering::Relaxed))
        };
        let long = Duration::from_secs(3600);
        let all =
            futures::future::try_join_all((0..100).map(|_| fresh.get(long, make()))).await.expect("made");
        assert_eq!(made.load(Ordering::Relaxed), 1);
        let first = all[0].response(&HeaderMap::new());
        assert_eq!(first.status(), 200);
        let etag = first.headers()[header::ETAG].clone();
        let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, etag.clone())]);
        assert_eq!(all[99].response(&asked).status(), 304);
        // What is different has another tag; and what failed is made again.
        let other = Fresh::default();
        let failed = other.get(long, async { Err::<u32, _>(ApiError::bug("no")) }).await;
        assert!(failed.is_err());
        let second = other.get(long, async { Ok(7) }).await.expect("made");
        assert_eq!(second.response(&asked).status(), 200);
    }
}
