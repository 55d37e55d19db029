//! Batches: many requests in a file, answered where workers are idle, within a day.
//!
//! In:     requests for batches. Out: how they stand.
//! Touches: the store; `run` does the work.
//! Holds:  a batch whose file is at fault fails at once, and says in which lines. Whoever has a key sees the batches that
//!         were made with it, and no others.
//! Absent: files (`files`), answers (`generate`).

mod id;
mod lane;
mod lines;
mod run;
mod store;

use std::{collections::BTreeMap, path::Path as FilePath, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Extension, Path, Query, State, rejection::PathRejection},
    http::{HeaderMap, Uri},
};
use serde::Serialize;
use tokio::sync::Notify;
use tracing::error;
use utoipa::ToSchema;

pub(crate) use self::{
    id::{BatchId, FileId},
    run::run,
    store::{
        Batch, Counts, FILE_BYTES_MAX, FileObject, Incoming, OpenBatchesError, Problems, Status, Store,
        StoreError,
    },
};
use self::{lane::Lane, lines::ENDPOINTS};
use super::{
    body::Text,
    fields::{self, Fields},
    look::path_text,
    openapi::BatchRequest,
    parameters::{Route, screen},
    unix_ms,
};
use crate::{
    error::{Accountable, ApiError, Code, ErrorBody},
    gateway::Shared,
    id::RequestId,
    keys::Tenant,
};

/// A batch's time.
const WINDOW_S: u64 = 24 * 3600;
/// Members of `metadata`, and bytes of a name and a value.
const METADATA: (usize, usize, usize) = (16, 64, 512);

/// Files and batches, and what works at them.
#[derive(Debug)]
pub(crate) struct Batches {
    store: Arc<Store>,
    lane: Arc<Lane>,
    /// Something changed that `run` should look at.
    news: Notify,
}

impl Batches {
    pub(crate) fn open(data_dir: &FilePath) -> Result<Batches, OpenBatchesError> {
        Ok(Batches { store: Arc::new(Store::open(data_dir)?), lane: Arc::default(), news: Notify::new() })
    }

    /// Does something with the store, which blocks.
    pub(crate) async fn store<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || act(&store)).await {
            Ok(done) => done,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// `list`.
    pub(crate) object: &'static str,
    /// The newest first, unless asked otherwise.
    pub(crate) data: Vec<T>,
    /// The id of the first of them.
    pub(crate) first_id: Option<String>,
    /// The id of the last of them.
    pub(crate) last_id: Option<String>,
    /// Whether there are more behind them.
    pub(crate) has_more: bool,
}

/// What of a list is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    limit: usize,
    after: Option<String>,
    ascending: bool,
    pub(super) purpose: Option<String>,
}

impl Wanted {
    /// Reads a query, in which these names may be, for so many or at most so many.
    pub(super) fn of(
        uri: &Uri,
        known: &[&str],
        (limit, limit_max): (usize, usize),
    ) -> Result<Wanted, ApiError> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiError::invalid("query", "The query is not `name=value&…`. Encode it as such."))?;
        let mut wanted = Wanted { limit, ..Wanted::default() };
        for (name, value) in pairs.0 {
            let invalid = |must: &str| {
                ApiError::invalid(
                    &*name,
                    format!("`{name}` is \"{}\". It must be {must}.", fields::quote(&value)),
                )
            };
            match name.as_str() {
                known_name if !known.contains(&known_name) => {
                    let message = format!(
                        "There is no query parameter `{}`. There are: {}.",
                        fields::quote(&name),
                        known.join(", ")
                    );
                    return Err(
                        ApiError::new(Code::UnknownParameter, message).with_param(fields::quote(&name))
                    );
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=limit_max).contains(limit));
                    wanted.limit = limit.ok_or_else(|| invalid(&format!("from 1 to {limit_max}")))?;
                }
                "after" => wanted.after = Some(value),
                "order" if value == "asc" => wanted.ascending = true,
                "order" if value == "desc" => wanted.ascending = false,
                "order" => return Err(invalid("asc or desc")),
                _ => wanted.purpose = Some(value),
            }
        }
        Ok(wanted)
    }

    /// The page, of things with an age and an id.
    pub(super) fn page<T>(
        self,
        mut all: Vec<T>,
        key: impl Fn(&T) -> (u64, &str),
    ) -> Result<Page<T>, ApiError> {
        all.sort_by(|a, b| key(b).cmp(&key(a)));
        if self.ascending {
            all.reverse();
        }
        let start = match &self.after {
            None => 0,
            Some(after) => {
                let at = all.iter().position(|one| key(one).1 == after);
                1 + at.ok_or_else(|| {
                    let message =
                        format!("`after` is \"{}\", which is not in the list.", fields::quote(after));
                    ApiError::invalid("after", message)
                })?
            }
        };
        let has_more = all.len() - start > self.limit;
        let data: Vec<T> = all.into_iter().skip(start).take(self.limit).collect();
        let id = |one: Option<&T>| one.map(|one| key(one).1.to_owned());
        Ok(Page { object: "list", first_id: id(data.first()), last_id: id(data.last()), data, has_more })
    }
}

/// A failure of the store as callers are told of it.
pub(super) fn told(failure: StoreError, what: &str) -> ApiError {
    match failure {
        StoreError::Missing => {
            ApiError::new(Code::NotFound, format!("There is no such {what} here. Look at the list."))
                .with_param("id")
        }
        StoreError::Full(message) => ApiError::new(Code::PayloadTooLarge, message),
        StoreError::InUse(batch) => {
            let message = format!("{batch} reads this file. Wait until it has ended, or cancel it.");
            ApiError::invalid("id", message)
        }
        failure @ (StoreError::Database(_) | StoreError::Io(_) | StoreError::Entry(_)) => {
            error!(%failure, cause = std::error::Error::source(&failure), "the store of batches failed");
            let message = "The gateway could not keep or read this: its disk failed. Try again shortly.";
            ApiError::new(Code::Overloaded, message).with_accountable(Accountable::Gateway)
        }
    }
}

/// The id in a path.
pub(super) fn path_id<T>(
    asked: Result<Path<String>, PathRejection>,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, ApiError> {
    parse(&path_text(asked)?).ok_or_else(|| told(StoreError::Missing, what))
}

fn required(fields: &mut Fields<'_>, name: &str) -> Result<String, ApiError> {
    fields.string(name)?.ok_or_else(|| ApiError::invalid(name, format!("`{name}` is missing. Send it.")))
}

/// Have many requests answered, where workers are idle.
#[utoipa::path(post, path = "/v1/batches", tag = "batches",
    request_body = BatchRequest,
    responses(
    (status = 200, description = "The batch; `failed` at once if its file is at fault.", body = Batch),
    (status = "4XX", description = "It cannot be made so.", body = ErrorBody),
    (status = "5XX", description = "It cannot be made now.", body = ErrorBody),
))]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Batch>, ApiError> {
    let Text { text, share: _share } = shared.intake.read(&headers, body).await?;
    shared.open()?;
    let batch = asked(&text)?;
    let input = FileId::parse(&batch.input_file_id);
    let tenant = Tenant::current(&shared.keys)?;
    tenant.sent_on_disk().await;
    let (tenant, is_sent_again) = (tenant.key(), tenant.is_sent_again());
    let kept = shared.batches.store(move |store| {
        let id = BatchId::of(request);
        if is_sent_again && let Ok(there) = store.batch(tenant, id) {
            return Ok(there);
        }
        let mut batch = Batch { id: id.to_string(), ..batch };
        let input = input.ok_or(StoreError::Missing)?;
        let file = store.file(tenant, input)?;
        let problems = match file.purpose.as_str() {
            "batch" => lines::check(&store.content(tenant, input)?, &batch.endpoint),
            _ => return Err(StoreError::Missing),
        };
        match problems {
            Ok(total) => batch.request_counts.total = total,
            Err(problems) => {
                batch.errors = Some(Problems { object: "list".to_owned(), data: problems });
                (batch.status, batch.failed_at) = (Status::Failed, Some(batch.created_at));
                batch.in_progress_at = None;
            }
        }
        store.add(tenant, id, &batch)?;
        Ok(batch)
    });
    let batch = kept.await.map_err(|failure| match failure {
        StoreError::Missing => {
            let message =
                "`input_file_id` names no file that was sent here for `batch`. POST it to /v1/files first.";
            ApiError::invalid("input_file_id", message)
        }
        failure => told(failure, "file"),
    })?;
    shared.batches.news.notify_one();
    Ok(Json(batch))
}

/// A batch as it is asked for, without an id.
fn asked(text: &str) -> Result<Batch, ApiError> {
    let mut fields = Fields::body(text)?;
    screen(&mut fields, Route::Batches)?;
    let input_file_id = required(&mut fields, "input_file_id")?;
    let endpoint = required(&mut fields, "endpoint")?;
    let completion_window = required(&mut fields, "completion_window")?;
    let metadata = match fields.fields("metadata")? {
        None => None,
        Some(mut members) => {
            let (count, name_bytes, value_bytes) = METADATA;
            let names: Vec<String> = members.names().map(str::to_owned).collect();
            let too_much = || {
                let message = format!(
                    "`metadata` takes at most {count} texts of {value_bytes} bytes, under names of {name_bytes}."
                );
                ApiError::invalid("metadata", message)
            };
            if names.len() > count {
                return Err(too_much());
            }
            let mut metadata = BTreeMap::new();
            for name in names {
                let value = members.string(&name)?.unwrap_or_default();
                if name.len() > name_bytes || value.len() > value_bytes {
                    return Err(too_much());
                }
                metadata.insert(name, value);
            }
            Some(metadata)
        }
    };
    assert_eq!(fields.names().next(), None, "a parameter of the table is not read");
    if !ENDPOINTS.iter().any(|(path, _)| *path == endpoint) {
        let paths = ENDPOINTS.map(|(path, _)| path).join(", ");
        let message = format!("`endpoint` is \"{}\". It must be one of {paths}.", fields::quote(&endpoint));
        return Err(ApiError::invalid("endpoint", message));
    }
    if completion_window != "24h" {
        let message = "`completion_window` must be \"24h\".";
        return Err(ApiError::invalid("completion_window", message));
    }
    let now = unix_ms() / 1000;
    Ok(Batch {
        id: String::new(),
        object: "batch".to_owned(),
        endpoint,
        errors: None,
        input_file_id,
        completion_window,
        status: Status::InProgress,
        output_file_id: None,
        error_file_id: None,
        created_at: now,
        in_progress_at: Some(now),
        expires_at: now + WINDOW_S,
        finalizing_at: None,
        completed_at: None,
        failed_at: None,
        expired_at: None,
        cancelling_at: None,
        cancelled_at: None,
        request_counts: Counts::default(),
        metadata,
    })
}

/// The batches, the newest first.
#[utoipa::path(get, path = "/v1/batches", tag = "batches", params(
    ("limit" = Option<u32>, Query, description = "At most so many: 1 to 100. Default 20."),
    ("after" = Option<String>, Query, description = "Those behind this id."),
), responses(
    (status = 200, description = "A page of them.", body = Page<Batch>),
    (status = 400, description = "The query is not understood.", body = ErrorBody),
))]
pub(super) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Json<Page<Batch>>, ApiError> {
    let wanted = Wanted::of(&uri, &["limit", "after"], (20, 100))?;
    let tenant = Tenant::current(&shared.keys)?.key();
    let all = shared.batches.store(move |store| store.batches(tenant)).await;
    wanted
        .page(all.map_err(|failure| told(failure, "batch"))?, |batch| (batch.created_at, &batch.id))
        .map(Json)
}

/// How a batch stands.
#[utoipa::path(get, path = "/v1/batches/{id}", tag = "batches", params(("id" = String, Path, description = "`batch_…`")), responses(
    (status = 200, description = "The batch.", body = Batch),
    (status = 404, description = "There is none.", body = ErrorBody),
))]
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Json<Batch>, ApiError> {
    let id = path_id(asked, "batch", BatchId::parse)?;
    let tenant = Tenant::current(&shared.keys)?.key();
    let batch = shared.batches.store(move |store| store.batch(tenant, id)).await;
    batch.map(Json).map_err(|failure| told(failure, "batch"))
}

/// Begin no more of a batch's requests. Those under way are brought to their end.
#[utoipa::path(post, path = "/v1/batches/{id}/cancel", tag = "batches", params(("id" = String, Path, description = "`batch_…`")), responses(
    (status = 200, description = "The batch: `cancelling`, or as it ended.", body = Batch),
    (status = 404, description = "There is none.", body = ErrorBody),
))]
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Json<Batch>, ApiError> {
    let id = path_id(asked, "batch", BatchId::parse)?;
    let tenant = Tenant::current(&shared.keys)?.key();
    let now = unix_ms() / 1000;
    let changed = shared.batches.store(move |store| {
        store.change(tenant, id, |batch| {
            if batch.status == Status::InProgress {
                (batch.status, batch.cancelling_at) = (Status::Cancelling, Some(now));
            }
        })
    });
    changed.await.map(Json).map_err(|failure| told(failure, "batch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another() {
        let page = |query: &str| {
            let uri = format!("/v1/files?{query}").parse().expect("a path");
            let wanted = Wanted::of(&uri, &["limit", "after", "order"], (10, 10))?;
            let all = vec![(1, "a"), (3, "c"), (2, "b")];
            wanted.page(all, |one| *one).map(|page| (page.data, page.has_more))
        };
        assert_eq!(page("").expect("all"), (vec![(3, "c"), (2, "b"), (1, "a")], false));
        assert_eq!(page("limit=2&order=asc").expect("two"), (vec![(1, "a"), (2, "b")], true));
        assert_eq!(page("limit=2&after=b").expect("the rest"), (vec![(1, "a")], false));
        for (query, param) in
            [("limit=0", "limit"), ("after=x", "after"), ("order=up", "order"), ("colour=red", "colour")]
        {
            assert_eq!(page(query).expect_err("refused").param(), Some(param), "{query}");
        }
    }

    #[test]
    fn what_is_asked_is_read_or_refused_by_name() {
        let body = |change: &str| {
            let body = r#"{"input_file_id":"file-1","endpoint":"/v1/completions","completion_window":"24h","metadata":{"a":"b"}}"#;
            let (from, to) = change.split_once("=>").unwrap_or(("", ""));
            asked(&body.replacen(from, to, usize::from(!from.is_empty())))
        };
        let batch = body("").expect("a batch");
        assert_eq!(batch.expires_at, batch.created_at + WINDOW_S);
        assert_eq!(batch.metadata.expect("metadata")["a"], "b");
        for (change, param) in [
            ("24h=>1h", "completion_window"),
            ("/v1/completions=>/v1/models", "endpoint"),
            ("input_file_id=>input_file", "input_file"),
            ("\"metadata\":{\"a\":\"b\"}=>\"output_expires_after\":{}", "output_expires_after"),
            ("metadata=>priority", "priority"),
            ("{\"a\":\"b\"}=>{\"a\":3}", "metadata.a"),
        ] {
            assert_eq!(body(change).expect_err("refused").param(), Some(param), "{change}");
        }
    }
}
