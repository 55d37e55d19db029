//! A hub: finding and downloading model files, in the shape huggingface.co gave it.
//!
//! In:     a repository, perhaps a file; a hub's address and a token from the environment.
//! Out:    the file, complete, with its SHA-256 checked against the one the hub lists.
//! Touches: the network; the downloads folder and the file's final place.
//! Holds:  a file appears at its final place only whole, checked and on disk; what an interrupted download
//!         left is taken up again, and its bytes are checked like the rest; one process downloads a file at
//!         a time; the token goes to the hub's own address only.
//! Absent: choosing between several files. The person is shown them instead, since another quantisation is
//!         another model.

use std::{
    fmt,
    fs::{self, File},
    io::{ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{
    Response, StatusCode, Url,
    header::{CONTENT_RANGE, HeaderMap, LINK, RANGE, RETRY_AFTER},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use surety_client::https;
use surety_types::Digest;
use thiserror::Error;

use super::{HubReference, index::sync_folder, io_hint};
use crate::progress::{Progress, Report, Step};

/// Where models come from unless `HF_ENDPOINT` says otherwise.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that is silent for this long is given up.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Failures in a row, without a byte gained, after which a download is given up.
const FAILURES_MAX: u32 = 6;
const BACKOFF_MAX: Duration = Duration::from_secs(20);
const LISTING_BYTES_MAX: usize = 32 << 20;
const LISTING_PAGES_MAX: usize = 64;
const BUFFER_BYTES: usize = 1 << 20;
const REPORT_BYTES: u64 = 1 << 20;

/// How to reach a hub.
#[derive(Clone)]
pub struct HubSettings {
    /// The hub's address.
    pub endpoint: String,
    /// Shown to the hub only, for private and gated repositories.
    pub token: Option<String>,
    /// The pause after a first failure; it doubles with each further one.
    pub backoff: Duration,
}

impl HubSettings {
    /// As `HF_ENDPOINT` and `HF_TOKEN` say.
    pub fn from_environment() -> Self {
        let read = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self {
            endpoint: read("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            token: read("HF_TOKEN"),
            backoff: Duration::from_millis(500),
        }
    }
}

/// A hub that can be asked.
pub struct Hub {
    client: reqwest::Client,
    /// Follows no redirect: what the hub says of a file is said before the redirect to its bytes.
    probe: reqwest::Client,
    endpoint: Url,
    token: Option<String>,
    backoff: Duration,
}

/// One file of a repository, with what the hub says of it.
#[derive(Clone, Debug)]
pub struct HubFile {
    repository: String,
    path: String,
    bytes: u64,
    sha256: Sha256Digest,
}

/// A SHA-256 as hubs list it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Digest([u8; 32]);

/// What went wrong between us and the hub.
#[derive(Debug, Error)]
pub enum HubError {
    /// `HF_ENDPOINT` is no address.
    #[error("`{endpoint}` is not the address of a hub")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// The TLS client could not be made.
    #[error("cannot prepare a connection")]
    Client(#[source] reqwest::Error),
    /// The hub could not be reached, or stopped in the middle.
    #[error("cannot reach {address}")]
    Unreachable {
        /// What was asked for.
        address: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The hub wants to know who asks, or that one may not have it.
    #[error("the hub does not give {address} to {} (HTTP {status})", if *had_token { "this token" } else { "strangers" })]
    Forbidden {
        /// What was asked for.
        address: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// There is no such thing.
    #[error("the hub has no {address}")]
    NotFound {
        /// What was asked for.
        address: String,
    },
    /// The hub answered with an error.
    #[error("the hub answered HTTP {status} for {address}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Status {
        /// What was asked for.
        address: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        detail: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The listing of files makes no sense.
    #[error("the hub's list of files at {address} cannot be read")]
    Listing {
        /// What was asked for.
        address: String,
        /// Why not, where JSON is at fault.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// Nothing in there that could be served.
    #[error("{repository} holds no GGUF file")]
    NoModel {
        /// The repository.
        repository: String,
    },
    /// More than one file could be meant.
    #[error("{repository} holds several models:\n{}", list(repository, files))]
    SeveralModels {
        /// The repository.
        repository: String,
        /// Their paths and sizes in bytes.
        files: Vec<(String, u64)>,
    },
    /// The repository has no such file.
    #[error("{repository} holds no file {file}")]
    NoFile {
        /// The repository.
        repository: String,
        /// What was asked for.
        file: String,
        /// The most similar one there is.
        nearest: Option<String>,
    },
    /// One of a model's several files.
    #[error("{file} is one part of a model that is split into several files")]
    Split {
        /// What was asked for.
        file: String,
    },
    /// The hub lists no SHA-256 for the file.
    #[error("the hub does not say which SHA-256 {file} must have")]
    NoDigest {
        /// What was asked for.
        file: String,
    },
    /// The stream ended too early, or ran past its end, or answered for another range.
    #[error("the download of {file} {what}")]
    Broken {
        /// The file.
        file: String,
        /// What happened.
        what: String,
    },
    /// It failed again and again.
    #[error(
        "gave up downloading {file} after {failures} failures in a row; {done} of {total} bytes are kept"
    )]
    GaveUp {
        /// The file.
        file: String,
        /// How many.
        failures: u32,
        /// Bytes kept for the next try.
        done: u64,
        /// Bytes in all.
        total: u64,
        /// The last failure.
        #[source]
        source: Box<HubError>,
    },
    /// The bytes are not those the hub lists.
    #[error("{file} has SHA-256 {found}, but the hub lists {expected}; the download was thrown away")]
    Digest {
        /// The file.
        file: String,
        /// What the hub lists.
        expected: Sha256Digest,
        /// What came.
        found: Sha256Digest,
    },
    /// The disk refused.
    #[error("cannot {attempt} {}", path.display())]
    Disk {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another process is at it.
    #[error("another process is downloading {file} at this moment")]
    Busy {
        /// The file.
        file: String,
    },
}

impl HubError {
    /// What the person can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Endpoint { .. } => "set HF_ENDPOINT to something like https://huggingface.co, or unset it".into(),
            Self::Unreachable { .. } => {
                "check the network, HTTPS_PROXY and HF_ENDPOINT; a download goes on where it stopped when asked for again"
                    .into()
            }
            Self::Forbidden { had_token: false, .. } => {
                "check the spelling; a private or gated repository needs HF_TOKEN, and its terms accepted on the hub's page".into()
            }
            Self::Forbidden { had_token: true, .. } => {
                "check the spelling and that HF_TOKEN may read it; a gated repository's terms must be accepted on the hub's page".into()
            }
            Self::NotFound { .. } => "check the spelling of owner/repo and file".into(),
            Self::Status { .. } | Self::Broken { .. } | Self::GaveUp { .. } => {
                "ask again later; a download goes on where it stopped".into()
            }
            Self::NoModel { .. } => {
                "look for a repository of GGUF files (their names often end in -GGUF)".into()
            }
            Self::SeveralModels { .. } => {
                "name one; each quantisation is a different model (Q8_0 is closest to the original, Q4_K_M about half its size)".into()
            }
            Self::NoFile { nearest: Some(nearest), .. } => format!("did you mean {nearest}?"),
            Self::NoFile { .. } => "leave the file out to see which ones there are".into(),
            Self::Split { .. } => {
                "choose a quantisation that is one file, or join the parts with llama.cpp's gguf-split --merge and add the result".into()
            }
            Self::NoDigest { .. } => {
                "a download that cannot be checked is refused; fetch it by other means and add the file".into()
            }
            Self::Digest { .. } => "ask again; if it happens twice, the hub or the way to it alters files".into(),
            Self::Disk { source, path, .. } => return io_hint(source, path),
            Self::Busy { .. } => "wait for it, then ask again".into(),
            Self::Client(_) | Self::Listing { .. } => return None,
        })
    }

    /// Whether trying again may help.
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<ListedLfs>,
}

#[derive(Deserialize)]
struct ListedLfs {
    oid: String,
    size: u64,
}

impl Hub {
    /// A hub at the address of the settings.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let endpoint = Url::parse(settings.endpoint.trim_end_matches('/'))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| HubError::Endpoint { endpoint: settings.endpoint.clone() })?;
        let builder = || {
            https::client_builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(SILENCE_TIMEOUT)
                .https_only(endpoint.scheme() == "https")
                .user_agent(concat!("surety/", env!("CARGO_PKG_VERSION")))
        };
        let client = builder().build().map_err(HubError::Client)?;
        let probe =
            builder().redirect(reqwest::redirect::Policy::none()).build().map_err(HubError::Client)?;
        Ok(Self { client, probe, endpoint, token: settings.token, backoff: settings.backoff })
    }

    /// The one file a reference means, with its size and SHA-256.
    pub async fn choose(&self, reference: &HubReference) -> Result<HubFile, HubError> {
        let repository = reference.repository();
        let mut failures = 0;
        let listed = loop {
            match self.listing(repository).await {
                Err(error) if error.may_pass() && failures < 2 => {
                    failures += 1;
                    self.pause(&error, failures).await;
                }
                result => break result?,
            }
        };
        let models = || listed.iter().filter(|file| is_model(&file.path));
        let file = match reference.file() {
            Some(name) => listed.iter().find(|file| file.path == name).ok_or_else(|| HubError::NoFile {
                repository: repository.to_owned(),
                file: name.to_owned(),
                nearest: super::nearest(name, models().map(|file| file.path.as_str())),
            })?,
            None => match models().collect::<Vec<_>>()[..] {
                [] => return Err(HubError::NoModel { repository: repository.to_owned() }),
                [only] => only,
                ref several => {
                    let files = several.iter().map(|file| (file.path.clone(), file.bytes())).collect();
                    return Err(HubError::SeveralModels { repository: repository.to_owned(), files });
                }
            },
        };
        if is_split(&file.path) {
            return Err(HubError::Split { file: file.path.clone() });
        }
        // The path came from the hub: it becomes a path of ours only if it is an ordinary one.
        if reference.with_file(&file.path).is_err() {
            return Err(HubError::Listing { address: repository.to_owned(), source: None });
        }
        let sha256 = match file.lfs.as_ref().and_then(|lfs| Sha256Digest::parse(&lfs.oid)) {
            Some(sha256) => sha256,
            None => self.linked_digest(repository, &file.path).await?,
        };
        Ok(HubFile {
            repository: repository.to_owned(),
            path: file.path.clone(),
            bytes: file.bytes(),
            sha256,
        })
    }

    /// Downloads a file to `place`, by way of a part file in `downloads`. Returns its BLAKE3.
    pub async fn download(
        &self,
        file: &HubFile,
        downloads: &Path,
        place: &Path,
        report: &mut Report<'_>,
    ) -> Result<Digest, HubError> {
        if place.exists() {
            // A download finished whose entry was removed from the index by hand, or never written.
            let mut left = PartFile::open(place.to_owned(), file)?;
            left.reread(report)?;
            if left.bytes == file.bytes && left.sha256() == file.sha256 {
                return Ok(left.blake3());
            }
        }
        fs::create_dir_all(downloads).map_err(disk("create", downloads))?;
        let mut part = PartFile::open(downloads.join(format!("{}.part", file.sha256)), file)?;
        part.reread(report)?;
        let mut found = part.bytes;
        loop {
            self.fetch(file, &mut part, report).await?;
            if part.sha256() == file.sha256 {
                break;
            }
            let digest = part.sha256();
            if found == 0 {
                fs::remove_file(&part.path).map_err(disk("delete", &part.path))?;
                return Err(HubError::Digest {
                    file: file.to_string(),
                    expected: file.sha256,
                    found: digest,
                });
            }
            // What an earlier process left may have been spoiled since: once more, from the start.
            tracing::warn!(%file, "the part that was kept is spoiled; downloading all of it again");
            part.restart()?;
            found = 0;
        }
        part.publish(place)
    }

    /// Fetches what the part file lacks, trying again as long as it helps.
    async fn fetch(
        &self,
        file: &HubFile,
        part: &mut PartFile,
        report: &mut Report<'_>,
    ) -> Result<(), HubError> {
        let mut failures = 0;
        while part.bytes < file.bytes {
            let before = part.bytes;
            let Err(error) = self.fetch_once(file, part, report).await else { continue };
            if !error.may_pass() {
                return Err(error);
            }
            failures = if part.bytes > before { 1 } else { failures + 1 };
            if failures >= FAILURES_MAX {
                return Err(HubError::GaveUp {
                    file: file.to_string(),
                    failures,
                    done: part.bytes,
                    total: file.bytes,
                    source: Box::new(error),
                });
            }
            tracing::warn!(%file, done = part.bytes, total = file.bytes, %error, "the download broke off; trying again");
            self.pause(&error, failures).await;
        }
        Ok(())
    }

    async fn fetch_once(
        &self,
        file: &HubFile,
        part: &mut PartFile,
        report: &mut Report<'_>,
    ) -> Result<(), HubError> {
        let url = self.address(&["resolve", "main"], &file.repository, Some(&file.path));
        let mut request = self.authorized(self.client.get(url.clone()));
        if part.bytes > 0 {
            request = request.header(RANGE, format!("bytes={}-", part.bytes));
        }
        let mut response = self.send(request, &url).await?;
        let broken = |what: String| HubError::Broken { file: file.to_string(), what };
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let (from, total) = content_range(response.headers())
                .ok_or_else(|| broken("came in a part that does not say which".into()))?;
            if from != part.bytes || total.is_some_and(|total| total != file.bytes) {
                return Err(broken(format!("came from byte {from} when byte {} was asked for", part.bytes)));
            }
        } else if part.bytes > 0 {
            // The server ignored the range and sends everything.
            part.restart()?;
        }
        let mut reported = part.bytes;
        report(Progress { step: Step::Downloading, done: part.bytes, total: file.bytes });
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|source| HubError::Unreachable { address: url.to_string(), source })?
        {
            if part.bytes + chunk.len() as u64 > file.bytes {
                return Err(broken(format!("is longer than the {} bytes the hub lists", file.bytes)));
            }
            part.write(&chunk)?;
            if part.bytes - reported >= REPORT_BYTES {
                reported = part.bytes;
                report(Progress { step: Step::Downloading, done: part.bytes, total: file.bytes });
            }
        }
        report(Progress { step: Step::Downloading, done: part.bytes, total: file.bytes });
        if part.bytes < file.bytes {
            return Err(broken(format!("ended after {} of {} bytes", part.bytes, file.bytes)));
        }
        Ok(())
    }

    /// Every file of a repository.
    async fn listing(&self, repository: &str) -> Result<Vec<Listed>, HubError> {
        let mut files = Vec::new();
        let mut url = self.address(&["tree", "main"], repository, None);
        for _ in 0..LISTING_PAGES_MAX {
            let mut response = self.send(self.authorized(self.client.get(url.clone())), &url).await?;
            let next =
                next_page(response.headers(), &url).filter(|next| next.origin() == self.endpoint.origin());
            let mut body = Vec::new();
            while let Some(chunk) = response
                .chunk()
                .await
                .map_err(|source| HubError::Unreachable { address: url.to_string(), source })?
            {
                body.extend_from_slice(&chunk);
                if body.len() > LISTING_BYTES_MAX {
                    return Err(HubError::Listing { address: url.to_string(), source: None });
                }
            }
            let page: Vec<Listed> = serde_json::from_slice(&body)
                .map_err(|source| HubError::Listing { address: url.to_string(), source: Some(source) })?;
            files.extend(page.into_iter().filter(|entry| entry.kind == "file"));
            match next {
                Some(next) => url = next,
                None => return Ok(files),
            }
        }
        Err(HubError::Listing { address: url.to_string(), source: None })
    }

    /// The SHA-256 the hub names in a header, for a file whose listing has none.
    async fn linked_digest(&self, repository: &str, path: &str) -> Result<Sha256Digest, HubError> {
        let url = self.address(&["resolve", "main"], repository, Some(path));
        let response = self.send(self.authorized(self.probe.head(url.clone())), &url).await?;
        let read = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Sha256Digest::parse(value.trim_start_matches("W/").trim_matches('"'))
        };
        read("x-linked-etag")
            .or_else(|| read("etag"))
            .ok_or_else(|| HubError::NoDigest { file: path.to_owned() })
    }

    /// `{endpoint}/api/models/{repository}/tree/main` or `{endpoint}/{repository}/resolve/main/{file}`.
    fn address(&self, route: &[&str; 2], repository: &str, file: Option<&str>) -> Url {
        let mut url = self.endpoint.clone();
        {
            let mut path = url.path_segments_mut().expect("http addresses have paths");
            path.pop_if_empty();
            if file.is_none() {
                path.extend(["api", "models"]);
            }
            path.extend(repository.split('/')).extend(route);
            if let Some(file) = file {
                path.extend(file.split('/'));
            }
        }
        if file.is_none() {
            url.set_query(Some("recursive=1"));
        }
        url
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            // Redirects to other hosts are followed without it.
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder, url: &Url) -> Result<Response, HubError> {
        let address = url.to_string();
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(source) => return Err(HubError::Unreachable { address, source }),
        };
        let status = response.status().as_u16();
        match status {
            200 | 206 => Ok(response),
            // Only the probe, which follows no redirect, sees one.
            300..=399 => Ok(response),
            401 | 403 => Err(HubError::Forbidden { address, status, had_token: self.token.is_some() }),
            404 => Err(HubError::NotFound { address }),
            _ => {
                let retry_after = retry_after(response.headers());
                let detail = match response.chunk().await {
                    Ok(Some(chunk)) => excerpt(&chunk),
                    _ => String::new(),
                };
                Err(HubError::Status { address, status, detail, retry_after })
            }
        }
    }

    async fn pause(&self, error: &HubError, failures: u32) {
        let doubled = self.backoff.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let wanted = match error {
            HubError::Status { retry_after: Some(after), .. } => doubled.max(*after),
            _ => doubled,
        };
        tokio::time::sleep(wanted.min(BACKOFF_MAX)).await;
    }
}

impl HubFile {
    /// Where it lies below the store's folder: another content of the same name lies elsewhere.
    pub fn place(&self) -> PathBuf {
        let digest = self.sha256.to_string();
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        Path::new("hub").join(&self.repository).join(&digest[..16]).join(name)
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}/{}", self.repository, self.path)
    }
}

impl Listed {
    fn bytes(&self) -> u64 {
        self.lfs.as_ref().map_or(self.size, |lfs| lfs.size)
    }
}

impl Sha256Digest {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| char::from(d).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file that is being downloaded: locked, hashed as it grows.
struct PartFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    total: u64,
    sha256: Sha256,
    blake3: blake3::Hasher,
}

impl PartFile {
    fn open(path: PathBuf, wanted: &HubFile) -> Result<Self, HubError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(disk("write", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(HubError::Busy { file: wanted.to_string() }),
            Err(fs::TryLockError::Error(source)) => return Err(disk("lock", &path)(source)),
        }
        let (sha256, blake3) = (Sha256::new(), blake3::Hasher::new());
        Ok(Self { path, file, bytes: 0, total: wanted.bytes, sha256, blake3 })
    }

    /// Hashes what is there already; more than there should be is thrown away.
    fn reread(&mut self, report: &mut Report<'_>) -> Result<(), HubError> {
        let there = self.file.metadata().map_err(disk("look at", &self.path))?.len();
        if there > self.total {
            return self.restart();
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(disk("read", &self.path)(error)),
            };
            self.hash(&buffer[..count]);
            report(Progress { step: Step::Hashing, done: self.bytes, total: there });
        }
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(disk("empty", &self.path))?;
        self.bytes = 0;
        self.sha256 = Sha256::new();
        self.blake3 = blake3::Hasher::new();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(disk("write", &self.path))?;
        self.hash(bytes);
        Ok(())
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.blake3.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn sha256(&self) -> Sha256Digest {
        Sha256Digest(self.sha256.clone().finalize().into())
    }

    fn blake3(&self) -> Digest {
        Digest(*self.blake3.finalize().as_bytes())
    }

    /// Puts the finished file, once it is on disk, where it belongs.
    fn publish(self, place: &Path) -> Result<Digest, HubError> {
        self.file.sync_all().map_err(disk("write", &self.path))?;
        let folder = place.parent().expect("a file's place has a folder");
        fs::create_dir_all(folder).map_err(disk("create", folder))?;
        fs::rename(&self.path, place).map_err(disk("create", place))?;
        sync_folder(folder);
        Ok(self.blake3())
    }
}

fn disk<'a>(attempt: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> HubError + 'a {
    move |source| HubError::Disk { attempt, path: path.to_owned(), source }
}

/// A file that is a language model by its name: GGUF, and not the image encoder that goes with one.
fn is_model(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    name.ends_with(".gguf") && !name.starts_with("mmproj")
}

/// `…-00001-of-00003.gguf`
fn is_split(path: &str) -> bool {
    let name = path.to_ascii_lowercase();
    let Some((head, count)) = name.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once("-of-")) else {
        return false;
    };
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    digits(count) && head.rsplit_once('-').is_some_and(|(_, number)| digits(number))
}

fn list(repository: &str, files: &[(String, u64)]) -> String {
    let line = |(path, bytes): &(String, u64)| {
        format!("  hf:{repository}/{path}  ({} MB)", bytes.div_ceil(1_000_000))
    };
    files.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The first byte of `Content-Range: bytes 5-9/10`, and the whole's size if it is told.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (span, total) = range.split_once('/')?;
    let from = span.split_once('-')?.0.parse().ok()?;
    Some((from, total.parse().ok()))
}

/// The address in `Link: <…>; rel="next"`.
fn next_page(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let address = next.split_once('<')?.1.split_once('>')?.0;
    from.join(address).ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The first line of an error's body, made safe to print.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    let line = text.lines().next().unwrap_or_default().trim();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &'static str, value: &str) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().ok()?);
        Some(headers)
    }

    #[test]
    fn ranges_are_read() {
        let check = |value: &str, expected| {
            assert_eq!(content_range(&headers("content-range", value).unwrap()), expected, "{value}");
        };
        check("bytes 5-9/10", Some((5, Some(10))));
        check("bytes 5-9/*", Some((5, None)));
        check("bytes */10", None);
        check("lines 5-9/10", None);
        check("bytes 5", None);
        check("bytes -1-9/10", None);
    }

    #[test]
    fn parts_of_split_models_are_told_by_their_names() {
        for (path, split) in [
            ("m-00001-of-00003.gguf", true),
            ("sub/M-00002-OF-00003.GGUF", true),
            ("m-1-of-3.gguf", false),
            ("one-of-a-kind.gguf", false),
            ("00001-of-00003.gguf", false),
        ] {
            assert_eq!(is_split(path), split, "{path}");
        }
    }

    #[test]
    fn digests_are_64_digits() {
        let digits = "0123456789abcdefABCDEF".repeat(3)[..64].to_owned();
        let parsed = Sha256Digest::parse(&format!("sha256:{digits}")).unwrap();
        assert_eq!(parsed.to_string(), digits.to_lowercase());
        for text in ["", &digits[1..], &format!("{digits}0"), &digits.replace('a', "g")] {
            assert!(Sha256Digest::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_hub_says_is_read_or_ignored(text in "\\PC{0,90}", bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let from = Url::parse("http://hub/a").expect("an address");
            for name in ["content-range", "link", "retry-after"] {
                if let Some(headers) = headers(name, &text) {
                    content_range(&headers);
                    next_page(&headers, &from);
                    retry_after(&headers);
                }
            }
            Sha256Digest::parse(&text);
            is_split(&text);
            prop_assert!(!excerpt(&bytes).contains(char::is_control));
            let _ = serde_json::from_slice::<Vec<Listed>>(&bytes);
        }
    }
}
