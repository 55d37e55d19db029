//! Body: the bytes of a request, taken in within bounds of size, memory and time.
//!
//! In:     headers and a stream of bytes from outside.
//! Out:    text, and a share of the memory set aside for texts, or what was wrong.
//! Touches: the connection.
//! Holds:  no more than the limit is kept; all bodies together stay within their budget; whoever sends too slowly is
//!         told so.
//! Absent: what the text says. That is `ask`.

use std::{error::Error, io, sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header},
};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Accountable, ApiError, Code};

/// The unit in which memory is shared out.
const SHARE_BYTES: usize = 1 << 10;
/// Past the limit so much is read and thrown away, so that a client that is still sending gets to read the answer.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

/// How bodies are taken in.
#[derive(Debug)]
pub(crate) struct Intake {
    bytes_max: usize,
    timeout: Duration,
    budget: Arc<Semaphore>,
}

/// A body, and the memory it takes until this is dropped.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) share: Option<OwnedSemaphorePermit>,
}

impl Intake {
    /// Takes in bodies of `bytes_max`, together at most `budget_bytes`, each within `timeout`.
    pub(crate) fn new(bytes_max: usize, budget_bytes: usize, timeout: Duration) -> Self {
        let shares = budget_bytes.div_ceil(SHARE_BYTES).min(Semaphore::MAX_PERMITS);
        Self { bytes_max, timeout, budget: Arc::new(Semaphore::new(shares)) }
    }

    /// Reads a body that must be JSON text, and be declared as such.
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Text, ApiError> {
        self.read_as(headers, body, false).await
    }

    /// Reads a body that must be JSON text. Programs need not declare it: Ollama's own server never asked its clients to.
    pub(crate) async fn read_undeclared(&self, headers: &HeaderMap, body: Body) -> Result<Text, ApiError> {
        // A browser says whose page a request with a body is of, whatever the page wants.
        let is_of_page = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
        self.read_as(headers, body, !is_of_page).await
    }

    async fn read_as(&self, headers: &HeaderMap, body: Body, undeclared: bool) -> Result<Text, ApiError> {
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let taken = tokio::time::timeout(self.timeout, self.take(declared, body.into_data_stream())).await;
        let (bytes, share) = taken.map_err(|_| {
            let message = format!(
                "The body did not arrive within {} s. Send the request again over a faster connection.",
                self.timeout.as_secs_f32(),
            );
            ApiError::new(Code::RequestTimeout, message)
        })??;
        check_encoding(headers)?;
        if !undeclared {
            check_type(headers)?;
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let position = error.utf8_error().valid_up_to();
            let message = format!("The body is not UTF-8: byte {position} begins no character. Send UTF-8.");
            ApiError::new(Code::InvalidUtf8, message)
        })?;
        Ok(Text { text, share })
    }

    async fn take(
        &self,
        declared: Option<usize>,
        mut stream: BodyDataStream,
    ) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ApiError> {
        if declared.is_some_and(|bytes| bytes > self.bytes_max) {
            self.discard(declared.unwrap_or(0), 0, stream).await;
            return Err(self.too_large(declared));
        }
        let mut bytes = Vec::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| broken(&error))?;
            let length = bytes.len() + piece.len();
            if length > self.bytes_max {
                self.discard(declared.unwrap_or(0), length, stream).await;
                return Err(self.too_large(declared));
            }
            let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let missing = (length.div_ceil(SHARE_BYTES) - held) as u32;
            let more = Arc::clone(&self.budget).try_acquire_many_owned(missing).map_err(|_| {
                let message = "The gateway holds as much text as it can at the moment. Try again shortly.";
                ApiError::new(Code::Overloaded, message).with_accountable(Accountable::Gateway)
            })?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes, share))
    }

    async fn discard(&self, declared: usize, mut read: usize, mut stream: BodyDataStream) {
        while declared <= DISCARDED_BYTES_MAX && read <= DISCARDED_BYTES_MAX {
            let Some(Ok(piece)) = stream.next().await else { return };
            read += piece.len();
        }
    }

    fn too_large(&self, declared: Option<usize>) -> ApiError {
        let takes = declared.map_or_else(|| "more".to_owned(), |bytes| format!("{bytes}"));
        let message =
            format!("The body takes {takes} bytes. At most {} are read. Send less.", self.bytes_max);
        ApiError::new(Code::PayloadTooLarge, message)
    }
}

/// What is wrong with a body that cannot be read: its chunks, or that it ended too early.
fn broken(error: &axum::Error) -> ApiError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        let kind = this.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) {
            let message = "The body's chunks (`transfer-encoding: chunked`) cannot be read. Send it in chunks that begin with \
                           their size, or with `content-length`.";
            return ApiError::new(Code::InvalidJson, message);
        }
        cause = this.source();
    }
    let message = "The body broke off before its end. Send the request again.";
    ApiError::new(Code::RequestTimeout, message)
}

fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let message =
            "The body is compressed (`content-encoding`), which is not supported. Send it as it is.";
        return Err(ApiError::new(Code::UnsupportedMediaType, message));
    }
    Ok(())
}

/// Only JSON, declared as such. A page of a foreign site can make a browser send other types unasked, but not this one.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = declared.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let found = if essence.is_empty() {
        "missing".to_owned()
    } else {
        format!("\"{}\"", super::fields::quote(essence))
    };
    let message = format!("`content-type` is {found}. Send JSON with `content-type: application/json`.");
    Err(ApiError::new(Code::UnsupportedMediaType, message))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::HeaderValue;
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    fn json_headers() -> HeaderMap {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        HeaderMap::from_iter([(header::CONTENT_TYPE, json)])
    }

    fn pieces(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<Result<Bytes, Infallible>> =
            pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
        Body::from_stream(stream::iter(pieces))
    }

    fn intake(bytes_max: usize, budget: usize) -> Intake {
        Intake::new(bytes_max, budget, Duration::from_millis(50))
    }

    async fn refused(intake: &Intake, headers: &HeaderMap, body: Body) -> Code {
        intake.read(headers, body).await.expect_err("refused").code()
    }

    #[tokio::test]
    async fn pieces_become_one_text() {
        let text = intake(4, 4096).read(&json_headers(), pieces(&[b"\xc3", b"\xa9{}"])).await.expect("text");
        assert_eq!(text.text, "é{}");
    }

    #[tokio::test]
    async fn bounds_of_size_memory_and_time_hold() {
        let headers = json_headers();
        assert_eq!(refused(&intake(3, 4096), &headers, pieces(&[b"ab", b"cd"])).await, Code::PayloadTooLarge);
        let mut declared = headers.clone();
        declared.insert(header::CONTENT_LENGTH, HeaderValue::from_static("99"));
        assert_eq!(refused(&intake(3, 4096), &declared, pieces(&[b"ab"])).await, Code::PayloadTooLarge);

        let small = intake(1 << 20, SHARE_BYTES);
        let held = small.read(&headers, pieces(&[b"{}"])).await.expect("the first fits");
        assert_eq!(refused(&small, &headers, pieces(&[b"{}"])).await, Code::Overloaded);
        drop(held);
        small.read(&headers, pieces(&[b"{}"])).await.expect("its memory is free again");

        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(refused(&intake(9, 4096), &headers, never).await, Code::RequestTimeout);
    }

    #[tokio::test]
    async fn only_plain_utf8_json_is_read() {
        let intake = intake(99, 4096);
        assert_eq!(refused(&intake, &json_headers(), pieces(&[b"{\"\xff\"}"])).await, Code::InvalidUtf8);
        for kind in
            ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; x=application/json"]
        {
            let kind = HeaderValue::from_static(kind);
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
            assert_eq!(refused(&intake, &headers, pieces(&[b"{}"])).await, Code::UnsupportedMediaType);
        }
        assert_eq!(refused(&intake, &HeaderMap::new(), pieces(&[b"{}"])).await, Code::UnsupportedMediaType);
        let mut zipped = json_headers();
        zipped.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(refused(&intake, &zipped, pieces(&[b"{}"])).await, Code::UnsupportedMediaType);
    }
}
