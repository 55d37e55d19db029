//! Control: how a command on the same machine reaches the keys, whether or not a gateway runs on them; and what a gateway that runs
//! noted of requests, whoever asked them.
//!
//! In:     one request, a line of JSON; from the same user alone. Out: one answer, a line of JSON.
//! Touches: the socket `control` in the data directory, closed to others; without a gateway, `keys.redb` itself.
//! Holds:  lines, time and callers at once are bounded; a socket that a dead gateway left is taken over. A secret crosses
//!         no network.
//! Absent: any way in from another machine.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use surety_types::{Answer, Dossier, Evidence, Paper, statement::MAX_PAPERS};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Generation, KeyReport, KeyTerms, Keys, KeysError, Totals};
use crate::{
    disk::{OpenStoreError, Writer},
    id::RequestId,
    journal::Journal,
    receipts::Receipts,
};

const FILE: &str = "control";
/// A request is complete within this, and so is its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_BYTES_MAX: u64 = 256 << 10;
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Callers at once.
const CALLERS_MAX: usize = 8;
/// Rows of usage in one answer.
const ROWS_MAX: usize = 1000;
/// A socket's path has so many bytes at most, on every system.
const PATH_BYTES_MAX: usize = 100;

/// A part of a key's usage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsagePage {
    /// In the order they ended.
    pub generations: Vec<Generation>,
    /// Sums of those that are kept no more.
    pub dropped: Totals,
    /// Sums of all there ever were: what the key was charged.
    pub total: Totals,
    /// Where the next page begins, if there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A part of what a gateway noted of requests.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestsPage {
    /// In the order they were noted.
    pub requests: Vec<LoggedRequest>,
    /// Where the next page begins, if there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// What a gateway noted of one request.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoggedRequest {
    /// Unix milliseconds: when it was noted last.
    pub ended_ms: u64,
    /// The name of the key it came with, if it came with one.
    pub key: Option<String>,
    /// Whether the gateway keeps evidence of an answer.
    pub answered: bool,
    /// Its statement, and what was signed about its orders; no texts.
    pub dossier: Dossier,
}

/// Why the keys of a data directory cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// They cannot be opened.
    #[error("the keys cannot be opened")]
    Store(#[from] OpenStoreError),
    /// A gateway has them, and cannot be asked.
    #[error("the gateway that has {} in use does not answer", path.display())]
    Gateway {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be done.
    #[error("{message}")]
    Refused {
        /// Why not.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The data directory is not there, and cannot be made.
    #[error("cannot make {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ControlError {
    /// What to do about it.
    pub fn hint(&self) -> &str {
        match self {
            ControlError::Store(error) => error.hint(),
            ControlError::Gateway { .. } => {
                "ask as the user who runs it; if it is an older one, restart it; or stop it first"
            }
            ControlError::Refused { hint, .. } => hint,
            ControlError::Directory { .. } => "check the path and its permissions",
        }
    }
}

impl From<KeysError> for ControlError {
    fn from(error: KeysError) -> Self {
        ControlError::Refused { message: error.to_string(), hint: error.hint().to_owned() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    Create { terms: KeyTerms },
    List,
    Show { name: String },
    Revoke { name: String },
    Usage { name: String, first: u64 },
    Requests { first: u64, from_ms: u64, to_ms: u64 },
}

/// The keys of a data directory: by way of the gateway that runs there, or without one.
#[derive(Debug)]
pub struct KeysOf(Way);

#[derive(Debug)]
enum Way {
    Gateway(PathBuf),
    Alone(Arc<Keys>, Option<Writer>),
}

impl KeysOf {
    /// Reaches the keys in a gateway's data directory.
    pub fn open(data_dir: &Path) -> Result<KeysOf, ControlError> {
        let directory = |source| ControlError::Directory { path: data_dir.to_owned(), source };
        crate::gateway::make_private(data_dir).map_err(directory)?;
        match super::Keys::open(data_dir, false, None) {
            Ok((keys, writer)) => Ok(KeysOf(Way::Alone(keys, Some(writer)))),
            Err(OpenStoreError::InUse { .. }) => Ok(KeysOf(Way::Gateway(data_dir.to_owned()))),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a key; returns its secret, which is told this once.
    pub async fn create(&self, terms: KeyTerms) -> Result<(String, KeyReport), ControlError> {
        self.ask(Request::Create { terms }).await
    }

    /// All keys.
    pub async fn list(&self) -> Result<Vec<KeyReport>, ControlError> {
        self.ask(Request::List).await
    }

    /// One key.
    pub async fn show(&self, name: &str) -> Result<KeyReport, ControlError> {
        self.ask(Request::Show { name: name.to_owned() }).await
    }

    /// Has a key refused from now on.
    pub async fn revoke(&self, name: &str) -> Result<KeyReport, ControlError> {
        self.ask(Request::Revoke { name: name.to_owned() }).await
    }

    /// A key's usage, from this place on.
    pub async fn usage(&self, name: &str, first: u64) -> Result<UsagePage, ControlError> {
        self.ask(Request::Usage { name: name.to_owned(), first }).await
    }

    /// What the gateway noted of the requests that ended in a span of time, from this place on. Unix milliseconds, both ends included.
    pub async fn requests(&self, first: u64, from_ms: u64, to_ms: u64) -> Result<RequestsPage, ControlError> {
        self.ask(Request::Requests { first, from_ms, to_ms }).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, ControlError> {
        let answer = match &self.0 {
            Way::Alone(keys, _) => perform(keys, None, request).await,
            Way::Gateway(data_dir) => {
                let failed = |source| ControlError::Gateway { path: data_dir.clone(), source };
                timeout(TIMEOUT, call(data_dir, &request))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .map_err(failed)?
            }
        };
        let refused = |message: &Value, hint: &Value| ControlError::Refused {
            message: message.as_str().unwrap_or("it was refused").to_owned(),
            hint: hint.as_str().unwrap_or_default().to_owned(),
        };
        if let Some(message) = answer.get("error") {
            return Err(refused(message, &answer["hint"]));
        }
        serde_json::from_value(answer["done"].clone()).map_err(|error| {
            refused(&json!(format!("the answer is not understood: {error}")), &json!("restart it"))
        })
    }
}

impl Drop for KeysOf {
    fn drop(&mut self) {
        if let Way::Alone(_, writer) = &mut self.0
            && let Some(writer) = writer.take()
        {
            // The last sender goes with the keys; then the thread ends when all is written.
            self.0 = Way::Gateway(PathBuf::new());
            writer.join();
        }
    }
}

async fn call(data_dir: &Path, request: &Request) -> io::Result<Value> {
    let short = Short::of(data_dir)?;
    let (read, mut write) = UnixStream::connect(&short.path).await?.into_split();
    let line = serde_json::to_string(request)?;
    write.write_all(format!("{line}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(read.take(ANSWER_BYTES_MAX)).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

async fn perform(keys: &Arc<Keys>, kept: Option<&Kept>, request: Request) -> Value {
    let told = |result: Result<Value, KeysError>| match result {
        Ok(done) => json!({ "done": done }),
        Err(error) => json!({ "error": error.to_string(), "hint": error.hint() }),
    };
    match request {
        Request::Create { terms } => told(keys.create(terms).await.map(|created| json!(created))),
        Request::List => told(Ok(json!(keys.list()))),
        Request::Show { name } => told(keys.show(&name).map(|report| json!(report))),
        Request::Revoke { name } => told(keys.revoke(&name).await.map(|report| json!(report))),
        Request::Usage { name, first } => {
            let key = match keys.number(&name) {
                Ok(key) => key,
                Err(error) => return told(Err(error)),
            };
            keys.written().await;
            let keys = Arc::clone(keys);
            let page = tokio::task::spawn_blocking(move || keys.usage(key, first, ROWS_MAX)).await;
            let page = page.unwrap_or_else(|_| Err("reading them panicked".to_owned()));
            told(page.map(|page| json!(page)).map_err(KeysError::Disk))
        }
        Request::Requests { first, from_ms, to_ms } => match kept {
            Some(kept) => {
                let page = kept.page(keys, first, from_ms, to_ms).await;
                told(page.map(|page| json!(page)).map_err(KeysError::Disk))
            }
            None => json!({
                "error": "no gateway runs on this data directory, so what it noted of requests cannot be read",
                "hint": "start it with `surety gateway run` or `surety up`, or name its directory with --data-dir",
            }),
        },
    }
}

/// What a gateway keeps of requests.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) journal: Journal,
    pub(crate) receipts: Receipts,
}

impl Kept {
    async fn page(
        &self,
        keys: &Arc<Keys>,
        first: u64,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<RequestsPage, String> {
        let (found, next) =
            self.journal.page(first, from_ms, to_ms).await.map_err(|error| error.to_string())?;
        let (kept, keys) = (self.clone(), Arc::clone(keys));
        let requests = tokio::task::spawn_blocking(move || {
            let logged = |(ended_ms, key, dossier): (u64, u64, Dossier)| {
                let id = RequestId::parse(&dossier.request_id)?;
                let evidence = kept.receipts.find(id).ok().flatten();
                let papers = evidence.as_deref().map(papers).unwrap_or_default();
                let dossier =
                    Dossier { papers: if papers.is_empty() { dossier.papers } else { papers }, ..dossier };
                let key = keys.account(key).map(|(report, _)| report.terms.name);
                Some(LoggedRequest { ended_ms, key, answered: evidence.is_some(), dossier })
            };
            found.into_iter().filter_map(logged).collect()
        });
        let requests = requests.await.map_err(|_| "reading them panicked".to_owned())?;
        Ok(RequestsPage { requests, next })
    }
}

/// What was signed about the orders of an answer, without its texts.
fn papers(evidence: &[u8]) -> Vec<Paper> {
    let Ok(evidence) = Evidence::parse(evidence) else { return Vec::new() };
    let paper = |answer: Answer| Paper {
        order: answer.order,
        acceptance: answer.acceptance,
        progress: answer.progress,
        receipt: answer.receipt,
    };
    // Who signed nothing is not told of.
    let signed =
        evidence.answers.into_iter().filter(|answer| answer.acceptance.is_some() || answer.receipt.is_some());
    signed.take(MAX_PAPERS).map(paper).collect()
}

/// A socket that is served, until this is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

impl Served {
    /// Serves the keys of a data directory that is this process's alone.
    pub(crate) fn start(data_dir: &Path, keys: Arc<Keys>, kept: Kept) -> io::Result<Served> {
        let path = data_dir.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let short = Short::of(data_dir)?;
        let listener = UnixListener::bind(&short.path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let owner = fs::metadata(&path)?.uid();
        Ok(Served { path, task: tokio::spawn(serve(listener, owner, keys, kept)) })
    }
}

async fn serve(listener: UnixListener, owner: u32, keys: Arc<Keys>, kept: Kept) {
    let places = Arc::new(Semaphore::new(CALLERS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a control request was not accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // One too many, or somebody else's: closed.
        let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == owner || peer.uid() == 0);
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        if !ours {
            continue;
        }
        let (keys, kept) = (Arc::clone(&keys), kept.clone());
        tokio::spawn(async move {
            let _place = place;
            match timeout(TIMEOUT, answer(stream, &keys, &kept)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a control request was not answered"),
                Err(_) => debug!("a control request took too long"),
            }
        });
    }
}

async fn answer(stream: UnixStream, keys: &Arc<Keys>, kept: &Kept) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    let told = match serde_json::from_str::<Request>(&line) {
        Ok(request) => perform(keys, Some(kept), request).await,
        Err(error) => json!({ "error": format!("not understood: {error}"), "hint": "use the same version" }),
    };
    write.write_all(format!("{told}\n").as_bytes()).await
}

/// A path short enough for a socket's address: by way of the open folder, where the system has one.
struct Short {
    path: PathBuf,
    _folder: Option<fs::File>,
}

impl Short {
    fn of(data_dir: &Path) -> io::Result<Short> {
        let path = data_dir.join(FILE);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Short { path, _folder: None });
        }
        use std::os::fd::AsRawFd as _;
        let folder = fs::File::open(data_dir)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(FILE);
        Ok(Short { path, _folder: Some(folder) })
    }
}
