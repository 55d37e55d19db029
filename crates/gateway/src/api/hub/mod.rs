//! Hub: the models that the network serves, listed and given out as a model hub does, so that its clients work with
//! `HF_ENDPOINT` set to this gateway.
//!
//! In:     GET and HEAD requests. Out: models, their revisions and files; the files' bytes.
//! Touches: the workers that hold a file, through `downloads`.
//! Holds:  a revision is a model's id, so it never means other bytes; a file is found by its name in the model's manifest
//!         and by nothing else; every byte given out was checked against the BLAKE3 that the manifest has.
//! Absent: uploads; what nobody counts here (downloads, likes); SHA-256, which no manifest has.

mod path;
mod range;
mod shapes;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use surety_blobs::{Fault, Unavailable, tree::Shape};
use surety_types::{FileDigest, Manifest, ModelId};

use self::path::{Asked, AskedFile};
pub(crate) use self::{
    path::{is_hubs, known_path},
    shapes::*,
};
use super::{dialect::OllamaErrorBody, fields::quote, guard, nearest::nearest, shapes::Model};
use crate::{
    downloads::{DownloadError, Wanted},
    error::{Accountable, ApiError, Code},
    gateway::Shared,
    keys::Tenant,
};

/// The revision that a name stands for.
const MAIN: &str = "main";
/// The owner of the models whose names have none.
const OWNER: &str = "surety";
/// Digits of a revision: as many as a commit has.
const REVISION_DIGITS: usize = 40;
/// First digits of a model's id that are enough to mean it.
const PIN_DIGITS: std::ops::RangeInclusive<usize> = 8..=64;
/// Characters of a part of a model's name, for hubs' clients.
const NAME_CHARACTERS_MAX: usize = 96;
/// The one thing that models here do.
const PIPELINE: &str = "text-generation";

const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
/// Where clients look for what a failure is.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");
/// What of a failed answer's headers is kept when the failure is rendered.
pub(super) const KEPT: [HeaderName; 2] = [header::CONTENT_RANGE, REPO_COMMIT];

/// What a listing is filtered by.
const FILTERS: [&str; 6] = ["search", "author", "filter", "pipeline_tag", "gated", "limit"];
/// What asks for more of each model; everything there is to say is said anyway.
const DETAILS: [&str; 5] = ["full", "config", "cardData", "expand", "blobs"];
/// What hubs know and this gateway cannot do.
const IMPOSSIBLE: [&str; 7] =
    ["sort", "direction", "cursor", "apps", "inference", "inference_provider", "num_parameters"];

/// A model that was found.
pub(super) struct Found {
    /// As it was asked for.
    repo: String,
    id: ModelId,
    manifest: Manifest,
}

/// The models that can be asked for, each under every name it has.
#[utoipa::path(get, path = "/api/models", tag = "hub", params(
    ("search" = Option<String>, Query, description = "Words that the name has."),
    ("author" = Option<String>, Query, description = "The owner."),
    ("filter" = Option<String>, Query, description = "A tag, as `gguf` or an architecture; several with commas between them."),
    ("pipeline_tag" = Option<String>, Query, description = "`text-generation`."),
    ("gated" = Option<bool>, Query, description = "True finds none."),
    ("limit" = Option<u64>, Query, minimum = 1, description = "How many at most."),
), responses(
    (status = 200, description = "By name.", body = Vec<HubModel>),
    (status = "4XX", description = "Nothing can be listed by that.", body = OllamaErrorBody),
))]
pub(super) async fn models(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Json<Vec<HubModel>>, ApiError> {
    let pairs = query(&uri, true)?;
    let (mut limit, mut wanted) = (usize::MAX, Vec::new());
    for (name, value) in pairs {
        match name.as_str() {
            "limit" => {
                limit = value.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| {
                    let message = format!("`limit` is \"{}\". It must be an integer from 1.", quote(&value));
                    ApiError::invalid("limit", message)
                })?;
            }
            _ => wanted.push((name, value.to_lowercase())),
        }
    }
    let passes = |model: &HubModel| {
        wanted.iter().all(|(name, value)| match name.as_str() {
            "search" => value.split_whitespace().all(|word| model.id.to_lowercase().contains(word)),
            "author" => model.author.to_lowercase() == *value,
            "filter" => value.split(',').all(|tag| model.tags.iter().any(|own| own.to_lowercase() == tag)),
            "pipeline_tag" => value == PIPELINE,
            "gated" => value == "false",
            _ => true,
        })
    };
    Ok(Json(listed(&shared).into_values().filter(passes).take(limit).collect()))
}

/// What can be asked about one model.
pub(super) async fn model(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, ApiError> {
    query(&uri, false)?;
    match Asked::parse(uri.path()) {
        Some(Asked::Model { repo, revision: None }) => Ok(Json(about(&shared, &repo)?).into_response()),
        Some(Asked::Model { repo, revision: Some(revision) }) => {
            Ok(Json(about_at(&shared, &repo, &revision)?).into_response())
        }
        Some(Asked::Refs { repo }) => Ok(Json(refs(&find(&shared, &repo, MAIN)?)).into_response()),
        Some(Asked::Tree { repo, revision, folder }) => {
            Ok(Json(tree(&find(&shared, &repo, &revision)?, &folder)?).into_response())
        }
        None => {
            let message = "There is nothing at this path. About a model there are /api/models/OWNER/NAME, …/revision/REVISION, \
                           …/tree/REVISION and …/refs.";
            Err(ApiError::new(Code::NotFound, message))
        }
    }
}

/// One model, by `owner/name`: its revision and files.
#[utoipa::path(get, path = "/api/models/{id}", tag = "hub", params(
    ("id" = String, Path, description = "`owner/name`, or a name alone."),
), responses(
    (status = 200, description = "The model.", body = HubModel),
    (status = "4XX", description = "There is no such model.", body = OllamaErrorBody),
    (status = 503, description = "No worker was heard yet.", body = OllamaErrorBody),
))]
pub(super) fn about(shared: &Shared, repo: &str) -> Result<HubModel, ApiError> {
    about_at(shared, repo, MAIN)
}

/// One model at a revision.
#[utoipa::path(get, path = "/api/models/{id}/revision/{revision}", tag = "hub", params(
    ("id" = String, Path, description = "`owner/name`, or a name alone."),
    ("revision" = String, Path, description = "`main`, or the first 8 to 64 digits of the model's id."),
), responses(
    (status = 200, description = "The model.", body = HubModel),
    (status = "4XX", description = "There is no such model or revision.", body = OllamaErrorBody),
    (status = 503, description = "No worker was heard yet.", body = OllamaErrorBody),
))]
pub(super) fn about_at(shared: &Shared, repo: &str, revision: &str) -> Result<HubModel, ApiError> {
    let found = find(shared, repo, revision)?;
    let known = shared.workers.models(shared.started).into_iter();
    let id = found.id.to_string();
    let model = known.into_iter().find(|model| model.surety.id == id);
    model.map(|model| describe(found.repo, &found.manifest, model)).ok_or_else(gone)
}

/// The revisions of a model: the one that its name stands for.
#[utoipa::path(get, path = "/api/models/{id}/refs", tag = "hub", params(
    ("id" = String, Path, description = "`owner/name`, or a name alone."),
), responses(
    (status = 200, description = "The revisions.", body = HubRefs),
    (status = "4XX", description = "There is no such model.", body = OllamaErrorBody),
    (status = 503, description = "No worker was heard yet.", body = OllamaErrorBody),
))]
pub(super) fn refs(found: &Found) -> HubRefs {
    let main = HubBranch { name: MAIN, reference: "refs/heads/main", target_commit: revision_of(found.id) };
    HubRefs { branches: vec![main], converts: Vec::new(), tags: Vec::new() }
}

/// The files of a model. It has no folders.
#[utoipa::path(get, path = "/api/models/{id}/tree/{revision}", tag = "hub", params(
    ("id" = String, Path, description = "`owner/name`, or a name alone."),
    ("revision" = String, Path, description = "`main`, or the first 8 to 64 digits of the model's id."),
    ("recursive" = Option<bool>, Query, description = "Makes no difference."),
    ("expand" = Option<bool>, Query, description = "Makes no difference."),
    ("limit" = Option<u64>, Query, description = "Makes no difference: all are listed."),
), responses(
    (status = 200, description = "The files.", body = Vec<HubFile>),
    (status = "4XX", description = "There is no such model, revision or folder.", body = OllamaErrorBody),
    (status = 503, description = "No worker was heard yet.", body = OllamaErrorBody),
))]
pub(super) fn tree(found: &Found, folder: &str) -> Result<Vec<HubFile>, ApiError> {
    if !folder.is_empty() {
        let message = format!("The model has no folder \"{}\", nor any other.", quote(folder));
        return Err(ApiError::new(Code::NotFound, message).with_param("file"));
    }
    let file = |file: &FileDigest| HubFile {
        kind: "file",
        oid: file.blake3.to_string(),
        size: file.bytes,
        path: file.name.clone(),
    };
    Ok(files(&found.manifest).map(file).collect())
}

/// A file of a model, or a range of it. Its bytes come from the workers that hold it, each mebibyte checked against the
/// file's BLAKE3 before any of it is sent.
#[utoipa::path(method(get, head), path = "/{id}/resolve/{revision}/{file}", tag = "hub", params(
    ("id" = String, Path, description = "`owner/name`, or a name alone."),
    ("revision" = String, Path, description = "`main`, or the first 8 to 64 digits of the model's id."),
    ("file" = String, Path, description = "The file's name."),
    ("range" = Option<String>, Header, description = "Which bytes: one range."),
    ("if-range" = Option<String>, Header, description = "The range is meant only of the file with this `etag`."),
    ("if-none-match" = Option<String>, Header, description = "Nothing is sent of a file with this `etag`."),
), responses(
    (status = 200, description = "The file.", body = [u8], content_type = "application/octet-stream"),
    (status = 206, description = "The range.", body = [u8], content_type = "application/octet-stream"),
    (status = 304, description = "It is the file that `if-none-match` has."),
    (status = "4XX", description = "There is no such model, revision, file or range.", body = OllamaErrorBody),
    (status = 503, description = "No worker gives the file now.", body = OllamaErrorBody),
))]
pub(super) async fn file(
    State(shared): State<Arc<Shared>>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked = AskedFile::parse(uri.path()).ok_or_else(|| {
        let message = "There is no file at this path. A model's are at /OWNER/NAME/resolve/REVISION/FILE.";
        ApiError::new(Code::NotFound, message)
    })?;
    let found = find(&shared, &asked.repo, &asked.revision)?;
    let told = |failure: ApiError| {
        let mut response = failure.into_response();
        response.headers_mut().insert(REPO_COMMIT, text(&revision_of(found.id)));
        response
    };
    let Some(file) = files(&found.manifest).find(|file| file.name == asked.file) else {
        let names = files(&found.manifest).map(|file| file.name.as_str());
        let advice = match nearest(&asked.file, names.clone()) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None => format!("It has: {}.", names.take(8).collect::<Vec<_>>().join(", ")),
        };
        let message = format!("The model has no file \"{}\". {advice}", quote(&asked.file));
        return Ok(told(ApiError::new(Code::NotFound, message).with_param("file")));
    };
    let etag = format!("\"blake3-{}\"", file.blake3);
    let mut response = Response::new(Body::empty());
    let answered = response.headers_mut();
    answered.insert(header::ETAG, text(&etag));
    answered.insert(LINKED_ETAG, text(&etag));
    answered.insert(LINKED_SIZE, HeaderValue::from(file.bytes));
    answered.insert(REPO_COMMIT, text(&revision_of(found.id)));
    answered.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if header_text(&headers, header::IF_NONE_MATCH).is_some_and(|known| matches(known, &etag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    answered.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let meant = header_text(&headers, header::IF_RANGE).is_none_or(|known| known.trim() == etag);
    let range = match headers.get(header::RANGE).filter(|_| meant && method == Method::GET) {
        None => None,
        Some(header) => match range::parse(header.to_str().unwrap_or_default(), file.bytes) {
            Ok(range) => range,
            Err(why) => {
                let message = format!("`range` {why}. The file has {} bytes.", file.bytes);
                let failure = ApiError::new(Code::RangeNotSatisfiable, message).with_param("range");
                let mut response = told(failure);
                let all = text(&format!("bytes */{}", file.bytes));
                response.headers_mut().insert(header::CONTENT_RANGE, all);
                return Ok(response);
            }
        },
    };
    if let Some(range) = &range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let part = text(&format!("bytes {}-{}/{}", range.start, range.end - 1, file.bytes));
        response.headers_mut().insert(header::CONTENT_RANGE, part);
    }
    let range = range.unwrap_or(0..file.bytes);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if method == Method::GET {
        shared.open()?;
        let holders = shared.workers.holders(found.id);
        let wanted = Wanted { digest: file.blake3, file_bytes: file.bytes, range, holders };
        let halted = Arc::clone(&shared);
        let opened = shared.downloads.open(wanted, async move { halted.halted().await }).await;
        match opened {
            Ok(body) => *response.body_mut() = body,
            Err(error) => return Ok(told(unavailable(&file.name, error))),
        }
    }
    Ok(response)
}

/// Who asks, by the name of the key.
#[utoipa::path(get, path = "/api/whoami-v2", tag = "hub", responses(
    (status = 200, description = "Who asks.", body = HubUser),
    (status = "4XX", description = "The key is not known.", body = OllamaErrorBody),
))]
pub(super) async fn whoami(State(shared): State<Arc<Shared>>) -> Result<Json<HubUser>, ApiError> {
    let tenant = Tenant::current(&shared.keys)?;
    let name = tenant.name().unwrap_or("anonymous").to_owned();
    let access_token = HubToken { display_name: name.clone(), role: "read" };
    let auth = HubAuth { kind: "access_token", access_token };
    Ok(Json(HubUser { kind: "user", fullname: name.clone(), name, orgs: Vec::new(), auth }))
}

/// Says what a failure is where a hub's clients look for it.
pub(super) fn mark(failure: &ApiError, headers: &mut HeaderMap) {
    let code = match (failure.code(), failure.param()) {
        (Code::ModelUnknown, _) => Some("RepoNotFound"),
        (Code::NotFound, Some("revision")) => Some("RevisionNotFound"),
        (Code::NotFound, Some("file")) => Some("EntryNotFound"),
        _ => None,
    };
    if let Some(code) = code {
        headers.insert(ERROR_CODE, HeaderValue::from_static(code));
    }
    let message = match failure.code() {
        // By these words they tell a bad key from a model that there is not.
        Code::BadKey => Ok(HeaderValue::from_static("Invalid credentials in Authorization header")),
        _ => HeaderValue::from_str(failure.message()),
    };
    // A message that no header can have is in the body all the same.
    if let Ok(message) = message {
        headers.insert(ERROR_MESSAGE, message);
    }
}

/// The pairs of a query, all of them known.
fn query(uri: &Uri, lists: bool) -> Result<Vec<(String, String)>, ApiError> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| {
        ApiError::new(Code::InvalidParam, "The query is not UTF-8 in percent-encoding. Encode it as such.")
    })?;
    for (name, _) in &pairs {
        let name = name.trim_end_matches("[]");
        if IMPOSSIBLE.contains(&name) && lists {
            let message = format!(
                "`{name}` cannot be honoured: nobody counts downloads or likes here, and models are listed by name, all of them. \
                 Leave it out."
            );
            return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(name));
        }
        let known = match lists {
            true => FILTERS.contains(&name) || DETAILS.contains(&name),
            false => DETAILS.contains(&name) || ["recursive", "limit", "securityStatus"].contains(&name),
        };
        if !known {
            let message = format!("There is no parameter `{}` here.", quote(name));
            return Err(ApiError::new(Code::UnknownParameter, message).with_param(quote(name)));
        }
    }
    Ok(pairs)
}

/// The model that a name means, at a revision.
fn find(shared: &Shared, repo: &str, revision: &str) -> Result<Found, ApiError> {
    let found = resolve(shared, repo, revision);
    // A name without an owner is this network's.
    let found = match (found, repo.strip_prefix(OWNER).and_then(|rest| rest.strip_prefix('/'))) {
        (Err(error), Some(name)) if error.code() == Code::ModelUnknown => resolve(shared, name, revision),
        (found, _) => found,
    }?;
    let manifest = shared.workers.manifest(found.id).ok_or_else(gone)?;
    guard::may_ask(&Tenant::current(&shared.keys)?, repo, &found)?;
    Ok(Found { repo: repo.to_owned(), id: found.id, manifest })
}

fn resolve(shared: &Shared, name: &str, revision: &str) -> Result<crate::route::Resolved, ApiError> {
    let main = || {
        shared.workers.resolve(name).map_err(|error| match error.code() {
            Code::InvalidParam => {
                let message = format!("{} Here a pin is a revision.", error.message());
                ApiError::new(Code::InvalidParam, message).with_param("revision")
            }
            _ => error,
        })
    };
    if revision == MAIN {
        return main();
    }
    let digits =
        PIN_DIGITS.contains(&revision.len()) && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && let Ok(found) = shared.workers.resolve(&format!("{name}@{}", revision.to_ascii_lowercase()))
    {
        return Ok(found);
    }
    // Without the name there is no revision of it.
    let now = match main() {
        Err(error) if error.code() != Code::InvalidParam => return Err(error),
        Ok(found) => format!(" Its name stands for {}.", revision_of(found.id)),
        Err(_) => String::new(),
    };
    let message = format!(
        "Nobody serves \"{}\" at revision \"{}\" now.{now} A revision is {MAIN}, or the first {} to {} digits of the model's id.",
        quote(name),
        quote(revision),
        PIN_DIGITS.start(),
        PIN_DIGITS.end(),
    );
    Err(ApiError::new(Code::NotFound, message).with_param("revision"))
}

/// The models, by the names that a hub's clients can ask for.
fn listed(shared: &Shared) -> BTreeMap<(String, String), HubModel> {
    let manifests = shared.workers.manifests();
    let models = shared.workers.models(shared.started).into_iter();
    let describe = |model: Model| {
        let manifest = manifests.get(&model.surety.id)?;
        let repo = repo_name(&model.id, &model.surety.id);
        Some(((repo.clone(), model.surety.id.clone()), describe(repo, manifest, model)))
    };
    models.filter_map(describe).collect()
}

/// What a hub's clients call a model: its name if they can, else its id; with an owner.
fn repo_name(name: &str, id: &str) -> String {
    let part = |part: &str| {
        let within = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let ends = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (1..=NAME_CHARACTERS_MAX).contains(&part.len())
            && part.chars().all(within)
            && part.starts_with(ends)
            && part.ends_with(ends)
            && !part.contains("--")
            && !part.contains("..")
    };
    match name.split_once('/') {
        Some((owner, rest)) if part(owner) && part(rest) => name.to_owned(),
        None if part(name) => format!("{OWNER}/{name}"),
        _ => format!("{OWNER}/{}", digits(id)),
    }
}

fn describe(repo: String, manifest: &Manifest, model: Model) -> HubModel {
    let sibling = |file: &FileDigest| HubSibling {
        rfilename: file.name.clone(),
        size: file.bytes,
        blob_id: file.blake3.to_string(),
    };
    let formats = manifest.formats.iter().map(|format| format.name.clone());
    let gguf = HubGguf { architecture: manifest.architecture.clone(), context_length: model.context_length };
    HubModel {
        model_id: repo.clone(),
        author: repo.split_once('/').map_or(OWNER, |(owner, _)| owner).to_owned(),
        id: repo,
        sha: digits(&model.surety.id)[..REVISION_DIGITS].to_owned(),
        private: false,
        gated: false,
        disabled: false,
        tags: ["gguf".to_owned(), manifest.architecture.clone()].into_iter().chain(formats).collect(),
        pipeline_tag: PIPELINE,
        siblings: files(manifest).map(sibling).collect(),
        gguf,
        used_storage: files(manifest).map(|file| file.bytes).fold(0, u64::saturating_add),
        surety: model.surety,
    }
}

/// The files of a model that can be given out: a name that leads somewhere else is a lie of whoever wrote the manifest.
fn files(manifest: &Manifest) -> impl Iterator<Item = &FileDigest> + Clone {
    let plain = |name: &str| {
        !["", ".", ".."].contains(&name) && !name.contains(['/', '\\']) && !name.chars().any(char::is_control)
    };
    manifest.files.iter().filter(move |file| plain(&file.name) && Shape::new(file.bytes).is_ok())
}

/// The digits of an id that is written with the name of its hash.
fn digits(id: &str) -> &str {
    id.rsplit(':').next().unwrap_or(id)
}

fn revision_of(id: ModelId) -> String {
    id.0.to_string()[..REVISION_DIGITS].to_owned()
}

fn gone() -> ApiError {
    // Between the two looks the worker may have gone.
    ApiError::new(Code::ModelUnknown, "No worker serves it any more.").with_param("model")
}

fn unavailable(name: &str, error: DownloadError) -> ApiError {
    match error {
        DownloadError::Full => {
            let message = format!("{}. Try again shortly.", capitalised(&error.to_string()));
            ApiError::new(Code::Overloaded, message).with_accountable(Accountable::Gateway)
        }
        DownloadError::Unavailable(Unavailable { faults, .. }) => {
            let told = |(holder, fault): &(surety_net::WorkerAddress, Fault)| {
                format!("{}: {fault}", holder.key.short())
            };
            let list: Vec<String> = faults.iter().map(told).take(8).collect();
            let message = format!(
                "None of the workers that serve the model gives its file \"{}\" now ({}). Try again shortly; what you have \
                 of it stays good.",
                quote(name),
                if list.is_empty() { "none can be reached".to_owned() } else { list.join("; ") },
            );
            ApiError::new(Code::NoHolder, message)
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Whether a list of tags has this one, or all.
fn matches(known: &str, etag: &str) -> bool {
    known.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == etag)
}

fn header_text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A header that is digits, letters and signs.
fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("digits, letters and signs")
}

#[cfg(test)]
mod tests {
    use surety_types::Digest;

    use super::*;

    const ID: &str = "blake3:1f3a";

    #[test]
    fn models_have_names_that_a_hubs_clients_can_ask_for() {
        for (name, expected) in [
            ("tiny", "surety/tiny"),
            ("qwen3-0.6b", "surety/qwen3-0.6b"),
            ("owner/tiny", "owner/tiny"),
            ("owner/tiny/file.gguf", "surety/1f3a"),
            ("qwen3:0.6b", "surety/1f3a"),
            ("a--b", "surety/1f3a"),
            ("../..", "surety/1f3a"),
            ("", "surety/1f3a"),
            ("Größe", "surety/1f3a"),
            (&"x".repeat(97), "surety/1f3a"),
        ] {
            assert_eq!(repo_name(name, ID), expected, "{name}");
        }
    }

    #[test]
    fn tags_are_compared_as_the_rfc_has_them() {
        assert!(matches("\"a\", W/\"b\"", "\"b\"") && matches("*", "\"b\"") && matches("\"b\"", "\"b\""));
        assert!(!matches("\"a\"", "\"b\"") && !matches("b", "\"b\"") && !matches("", "\"b\""));
    }

    #[test]
    fn a_file_whose_name_leads_elsewhere_is_not_given_out() {
        let file = |name: &str, bytes| FileDigest { name: name.to_owned(), bytes, blake3: Digest::ZERO };
        let manifest = Manifest {
            name: String::new(),
            files: ["", ".", "..", "../a", "/etc/passwd", "a\\b", "a\nb", "a\0"]
                .map(|name| file(name, 5))
                .into_iter()
                .chain([file("empty", 0), file("huge", u64::MAX), file("a b.gguf", 5)])
                .collect(),
            architecture: String::new(),
            layers: 0,
            width: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            feed_forward: 0,
            vocabulary: 0,
            context: 0,
            formats: Vec::new(),
            tokenizer_digest: Digest::ZERO,
            template_digest: None,
            arithmetic: 0,
            rotary_digest: Digest::ZERO,
            plan: None,
            claims: None,
        };
        assert_eq!(files(&manifest).map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a b.gguf"]);
    }
}
