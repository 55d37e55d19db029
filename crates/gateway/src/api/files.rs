//! Files: what batches read and write.
//!
//! In:     forms with a file. Out: files, and what is known of them.
//! Touches: the store of `batches`.
//! Holds:  whoever has a key sees the files that were sent or made with it, and no others; a file is kept
//!         whole or not at all, within bounds of size and time; a page of another site can send none.
//! Absent: what files say (`batches`).

use std::{mem, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{
        Multipart, Path, State,
        multipart::{Field, MultipartError, MultipartRejection},
        rejection::PathRejection,
    },
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    batches::{FILE_BYTES_MAX, FileId, FileObject, Incoming, Page, StoreError, Wanted, path_id, told},
    fields::quote,
    openapi::FileForm,
    unix_ms,
};
use crate::{
    error::{ApiError, Code, ErrorBody},
    gateway::Shared,
    keys::Tenant,
};

/// Bytes of a form: the file, and what is around it.
pub(super) const FORM_BYTES_MAX: usize = FILE_BYTES_MAX + (64 << 10);
/// Parts of a form.
const PARTS_MAX: usize = 8;
/// Bytes of a part that is no file, and of a file's name.
const TEXT_BYTES_MAX: usize = 256;
/// What is gathered before it is written.
const PIECE_BYTES: usize = 1 << 20;
/// For a file to come whole.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// Files in one page, as OpenAI has it: more than there can be.
const PAGE_MAX: usize = 10_000;

/// That a file is gone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deleted {
    /// The file's.
    id: String,
    /// `file`.
    object: &'static str,
    /// True.
    deleted: bool,
}

/// Send a file of requests.
#[utoipa::path(post, path = "/v1/files", tag = "batches",
    request_body(content = FileForm, content_type = "multipart/form-data"),
    responses(
    (status = 200, description = "The file.", body = FileObject),
    (status = "4XX", description = "It cannot be kept.", body = ErrorBody),
    (status = "5XX", description = "It cannot be kept now.", body = ErrorBody),
))]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<FileObject>, ApiError> {
    // A form is one of the few things that a page may make a browser send elsewhere unasked.
    if headers.get(header::ORIGIN).is_some() {
        let message =
            "The request comes from a page of another site (`origin`), which may send no files here.";
        return Err(ApiError::new(Code::HostNotAllowed, message));
    }
    shared.open()?;
    let form = form.map_err(|_| {
        let message = "The body is no form. Send `purpose` and `file` as multipart/form-data.";
        ApiError::new(Code::UnsupportedMediaType, message)
    })?;
    let taken = tokio::time::timeout(UPLOAD_TIMEOUT, take(&shared, form)).await;
    taken
        .map_err(|_| {
            let message =
                "The file did not arrive in time. Send it again over a faster connection, or a smaller one.";
            ApiError::new(Code::RequestTimeout, message)
        })?
        .map(Json)
}

async fn take(shared: &Shared, mut form: Multipart) -> Result<FileObject, ApiError> {
    let tenant = Tenant::current(&shared.keys)?.key();
    let (mut purpose, mut file, mut parts) = (None, None, 0);
    let id = FileId::random().map_err(|_| ApiError::bug("the random source failed"))?;
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        parts += 1;
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            _ if parts > PARTS_MAX => {
                return Err(ApiError::invalid("file", format!("The form has more than {PARTS_MAX} parts.")));
            }
            "purpose" if purpose.is_none() => purpose = Some(text(&mut field).await?),
            "file" if file.is_none() => {
                let filename: String =
                    field.file_name().unwrap_or("file").chars().take(TEXT_BYTES_MAX).collect();
                file = Some((filename, receive(shared, id, &mut field).await?));
            }
            "purpose" | "file" => {
                return Err(ApiError::invalid(&*name, format!("`{name}` is there twice. Send it once.")));
            }
            // Forms have the members of an object under names like `expires_after[seconds]`.
            _ if name.split('[').next() == Some("expires_after") => {
                let message = "`expires_after` is not supported here. Files are kept until they are deleted: \
                               DELETE /v1/files/{id}.";
                return Err(ApiError::new(Code::UnsupportedParameter, message).with_param("expires_after"));
            }
            _ => {
                let name = quote(&name);
                let message = format!("There is no parameter `{name}`. There are: purpose, file.");
                return Err(ApiError::new(Code::UnknownParameter, message).with_param(name));
            }
        }
    }
    let missing = |name: &'static str| ApiError::invalid(name, format!("`{name}` is missing. Send it."));
    let purpose = purpose.ok_or_else(|| missing("purpose"))?;
    if purpose != "batch" {
        let message = format!("`purpose` is \"{}\". Only \"batch\" is supported here.", quote(&purpose));
        return Err(ApiError::new(Code::UnsupportedParameter, message).with_param("purpose"));
    }
    let (filename, incoming) = file.ok_or_else(|| missing("file"))?;
    let object = FileObject {
        id: id.to_string(),
        object: "file".to_owned(),
        bytes: incoming.bytes(),
        created_at: unix_ms() / 1000,
        filename,
        purpose,
        status: "processed".to_owned(),
    };
    let kept = shared.batches.store(move |store| {
        store.keep(tenant, id, incoming, &object, true)?;
        Ok(object)
    });
    kept.await.map_err(|failure| told(failure, "file"))
}

/// A part that is a short text.
async fn text(field: &mut Field<'_>) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(ApiError::invalid(
                "purpose",
                format!("`purpose` takes more than {TEXT_BYTES_MAX} bytes."),
            ));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid("purpose", "`purpose` is not UTF-8."))
}

/// A part that is a file, onto the disk.
async fn receive(shared: &Shared, id: FileId, field: &mut Field<'_>) -> Result<Incoming, ApiError> {
    let failed = |failure| told(failure, "file");
    let mut incoming = shared.batches.store(move |store| Ok(store.incoming(id)?)).await.map_err(failed)?;
    let mut piece = Vec::new();
    loop {
        let chunk = field.chunk().await.map_err(broken)?;
        piece.extend_from_slice(chunk.as_deref().unwrap_or_default());
        if incoming.bytes() as usize + piece.len() > FILE_BYTES_MAX {
            return Err(too_large());
        }
        if piece.len() >= PIECE_BYTES || chunk.is_none() {
            let full = mem::take(&mut piece);
            incoming = shared
                .batches
                .store(move |_| {
                    incoming.write(&full)?;
                    Ok(incoming)
                })
                .await
                .map_err(failed)?;
        }
        if chunk.is_none() {
            return Ok(incoming);
        }
    }
}

fn too_large() -> ApiError {
    let message = format!("The file takes more than {FILE_BYTES_MAX} bytes, which is the most. Split it.");
    ApiError::new(Code::PayloadTooLarge, message).with_param("file")
}

fn broken(failure: MultipartError) -> ApiError {
    if failure.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large();
    }
    let message =
        "The form breaks off or is not well-formed. Send it again, with `content-type` and its boundary.";
    ApiError::invalid("file", message)
}

/// The files, the newest first.
#[utoipa::path(get, path = "/v1/files", tag = "batches", params(
    ("limit" = Option<u32>, Query, description = "At most so many: 1 to 10,000, which is the default."),
    ("after" = Option<String>, Query, description = "Those behind this id."),
    ("order" = Option<String>, Query, description = "`asc` or `desc`."),
    ("purpose" = Option<String>, Query, description = "Only those for this: `batch` or `batch_output`."),
), responses(
    (status = 200, description = "A page of them.", body = Page<FileObject>),
    (status = 400, description = "The query is not understood.", body = ErrorBody),
))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Json<Page<FileObject>>, ApiError> {
    let wanted = Wanted::of(&uri, &["limit", "after", "order", "purpose"], (PAGE_MAX, PAGE_MAX))?;
    let tenant = Tenant::current(&shared.keys)?.key();
    let all = shared.batches.store(move |store| store.files(tenant)).await;
    let mut all = all.map_err(|failure| told(failure, "file"))?;
    if let Some(purpose) = &wanted.purpose {
        all.retain(|file| file.purpose == *purpose);
    }
    wanted.page(all, |file| (file.created_at, &file.id)).map(Json)
}

/// What is known of a file.
#[utoipa::path(get, path = "/v1/files/{id}", tag = "batches", params(("id" = String, Path, description = "`file-…`")), responses(
    (status = 200, description = "The file.", body = FileObject),
    (status = 404, description = "There is none.", body = ErrorBody),
))]
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Json<FileObject>, ApiError> {
    let id = path_id(asked, "file", FileId::parse)?;
    let tenant = Tenant::current(&shared.keys)?.key();
    let file = shared.batches.store(move |store| store.file(tenant, id)).await;
    file.map(Json).map_err(|failure| told(failure, "file"))
}

/// What a file holds.
#[utoipa::path(get, path = "/v1/files/{id}/content", tag = "batches", params(("id" = String, Path, description = "`file-…`")), responses(
    (status = 200, description = "Its bytes.", body = Vec<u8>, content_type = "application/jsonl"),
    (status = 404, description = "There is none.", body = ErrorBody),
))]
pub(super) async fn content(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = path_id(asked, "file", FileId::parse)?;
    let tenant = Tenant::current(&shared.keys)?.key();
    let bytes = shared.batches.store(move |store| store.content(tenant, id)).await;
    let mut response = Response::new(Body::from(bytes.map_err(|failure| told(failure, "file"))?));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}

/// Forget a file.
#[utoipa::path(delete, path = "/v1/files/{id}", tag = "batches", params(("id" = String, Path, description = "`file-…`")), responses(
    (status = 200, description = "It is gone.", body = Deleted),
    (status = 400, description = "A batch that has not ended reads it.", body = ErrorBody),
    (status = 404, description = "There is none.", body = ErrorBody),
))]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    asked: Result<Path<String>, PathRejection>,
) -> Result<Json<Deleted>, ApiError> {
    let id = path_id(asked, "file", FileId::parse)?;
    let tenant = Tenant::current(&shared.keys)?.key();
    let gone: Result<(), StoreError> = shared.batches.store(move |store| store.delete(tenant, id)).await;
    gone.map_err(|failure| told(failure, "file"))?;
    Ok(Json(Deleted { id: id.to_string(), object: "file", deleted: true }))
}
