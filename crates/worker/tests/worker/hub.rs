//! Downloads, against a local server that behaves as a hub does: lists, redirects, ranges, and its bad days.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::StreamExt;
use sha2::{Digest as _, Sha256};
use surety_worker::store::{
    HubReference, Reference, Store, StoreError,
    hub::{Hub, HubError, HubSettings},
};

/// How the hub treats the n-th request for the file (from 0); the last entry holds for all further ones.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// The connection drops after this many bytes of the body.
    Drops(usize),
    /// The body ends, in good order, after this many bytes.
    EndsEarly(usize),
    /// Sends a few bytes, then nothing for ever.
    Stalls(usize),
    IgnoresRange,
    /// A 206 for another range than the one asked for.
    WrongRange,
    TooLong,
    Spoils,
    Fails(u16),
}

struct Hubbub {
    moods: Vec<Mood>,
    requests: AtomicUsize,
    ranges: std::sync::Mutex<Vec<Option<String>>>,
    body: Vec<u8>,
    token: Option<&'static str>,
    listing: Option<String>,
    paged: bool,
    names_digests: bool,
}

struct Bench {
    hub: Hub,
    state: Arc<Hubbub>,
    store: Store,
    folder: tempfile::TempDir,
}

fn body() -> Vec<u8> {
    let mut body = b"GGUF".to_vec();
    body.extend((0..900_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(700_000));
    body
}

fn hubbub(moods: &[Mood]) -> Hubbub {
    Hubbub {
        moods: moods.to_vec(),
        requests: AtomicUsize::new(0),
        ranges: Default::default(),
        body: body(),
        token: None,
        listing: None,
        paged: false,
        names_digests: true,
    }
}

async fn bench(state: Hubbub) -> Bench {
    let state = Arc::new(state);
    let app = Router::new()
        .route("/api/models/{owner}/{repo}/tree/main", get(list))
        .route("/{owner}/{repo}/resolve/main/{*file}", get(resolve))
        .route("/blobs/{digest}", get(blob))
        .with_state(state.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let token = state.token.map(|_| "hf_secret".to_owned());
    let hub = Hub::new(HubSettings { endpoint, token, backoff: Duration::from_millis(2) }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    Bench { hub, state, store: Store::new(folder.path()), folder }
}

async fn list(
    State(hub): State<Arc<Hubbub>>,
    Path((owner, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    if let Some(token) = hub.token {
        let sent = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
        if sent != Some(&format!("Bearer {token}")) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
    }
    match owner.as_str() {
        "nobody" => return (StatusCode::NOT_FOUND, "Repository not found").into_response(),
        "gated" => return StatusCode::FORBIDDEN.into_response(),
        "broken" => return (StatusCode::INTERNAL_SERVER_ERROR, "<h1>Oops\u{7}</h1>\nmore").into_response(),
        "liar" => return "not json".into_response(),
        "away" => return StatusCode::IM_A_TEAPOT.into_response(),
        _ => {}
    }
    if let Some(listing) = &hub.listing {
        return listing.clone().into_response();
    }
    let readme = r#"{"type":"file","path":"README.md","size":12,"oid":"00"},{"type":"directory","path":"sub","size":0,"oid":"00"}"#;
    if hub.paged && !request.uri().query().unwrap_or_default().contains("cursor") {
        let next = format!("<{}&cursor=2>; rel=\"next\"", request.uri());
        return ([(header::LINK, next)], format!("[{readme}]")).into_response();
    }
    let model = format!(
        r#"{{"type":"file","path":"sub/tiny.Q8_0.gguf","size":{0},"oid":"00","lfs":{{"oid":"{1}","size":{0},"pointerSize":130}}}}"#,
        hub.body.len(),
        sha256(&hub.body)
    );
    format!("[{readme},{model}]").into_response()
}

/// As hubs do: the file itself lies elsewhere.
async fn resolve(State(hub): State<Arc<Hubbub>>) -> Response {
    let digest = sha256(&hub.body);
    let etag = if hub.names_digests { format!("\"{digest}\"") } else { "\"5\"".into() };
    (StatusCode::FOUND, [(header::LOCATION.as_str(), format!("/blobs/{digest}")), ("x-linked-etag", etag)])
        .into_response()
}

async fn blob(State(hub): State<Arc<Hubbub>>, headers: HeaderMap) -> Response {
    let request = hub.requests.fetch_add(1, Ordering::SeqCst);
    let mood = *hub.moods.get(request).or(hub.moods.last()).unwrap_or(&Mood::Well);
    let range = headers.get(header::RANGE).map(|value| value.to_str().unwrap().to_owned());
    hub.ranges.lock().unwrap().push(range.clone());
    let from = range
        .filter(|_| mood != Mood::IgnoresRange)
        .map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
    let mut body = hub.body[from.unwrap_or(0)..].to_vec();
    match mood {
        Mood::Fails(status) => return (StatusCode::from_u16(status).unwrap(), "try later").into_response(),
        Mood::Spoils => *body.last_mut().unwrap() ^= 1,
        Mood::TooLong => body.push(0),
        Mood::EndsEarly(bytes) => body.truncate(bytes),
        _ => {}
    }
    let length = body.len();
    let body = match mood {
        Mood::Drops(bytes) => {
            let pieces = [Ok(Bytes::copy_from_slice(&body[..bytes])), Err(std::io::Error::other("gone"))];
            // The piece has to leave before the connection goes.
            Body::from_stream(futures::stream::iter(pieces).then(|piece| async {
                if piece.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                piece
            }))
        }
        Mood::Stalls(bytes) => {
            let first =
                futures::stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(&body[..bytes]))]);
            Body::from_stream(first.chain(futures::stream::pending()))
        }
        _ => Body::from(body),
    };
    let mut response = Response::new(body);
    if !matches!(mood, Mood::EndsEarly(_) | Mood::TooLong) {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    if let Some(from) = from {
        let from = if mood == Mood::WrongRange { from + 1 } else { from };
        let range = format!("bytes {from}-{}/{}", hub.body.len() - 1, hub.body.len());
        response.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Bench {
    async fn add(&self, reference: &str) -> Result<surety_worker::store::Entry, StoreError> {
        let reference: HubReference = reference.parse().unwrap();
        self.store.add_hub(&self.hub, &reference, None, &mut |_| {}).await
    }

    async fn fails(&self, reference: &str) -> HubError {
        match self.add(reference).await {
            Err(StoreError::Hub(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    /// The whole file came, is entered, and no part is left.
    async fn succeeds(&self) {
        let entry = self.add("a/b").await.unwrap();
        assert_eq!(fs::read(&entry.path).unwrap(), self.state.body);
        assert_eq!(entry.blake3.0, *blake3::hash(&self.state.body).as_bytes());
        assert!(entry.owned);
        assert_eq!(entry.source.as_deref(), Some("hf:a/b/sub/tiny.Q8_0.gguf"));
        assert_eq!(self.store.list().unwrap(), [entry]);
        assert!(self.parts().is_empty());
    }

    fn parts(&self) -> Vec<PathBuf> {
        match fs::read_dir(self.folder.path().join("models/downloads")) {
            Ok(folder) => folder.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.state.ranges.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_file_is_found_redirected_to_downloaded_and_checked() {
    let bench = bench(hubbub(&[Mood::Well])).await;
    bench.succeeds().await;
    // Again: nothing is asked for but the list.
    bench.succeeds().await;
    assert_eq!(bench.ranges(), [None]);
    for text in ["tiny.q8_0", "hf:a/b", "hf:a/b/sub/tiny.Q8_0.gguf"] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(bench.store.resolve(&reference, &mut |_| {}).unwrap().name, "tiny.q8_0");
    }
    let (entry, deleted) = bench.store.remove(&"tiny.q8_0".parse().unwrap()).unwrap();
    assert!(deleted && !entry.path.exists());
    assert!(!bench.folder.path().join("models/hub").exists());
}

#[tokio::test]
async fn a_dropped_connection_is_taken_up_where_it_broke() {
    let bench = bench(hubbub(&[Mood::Drops(300_000), Mood::Drops(100_000), Mood::Well])).await;
    bench.succeeds().await;
    let ranges = bench.ranges();
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1].as_deref(), Some("bytes=300000-"));
    assert_eq!(ranges[2].as_deref(), Some("bytes=400000-"));
}

#[tokio::test]
async fn a_truncated_body_is_not_taken_for_the_whole() {
    let bench = bench(hubbub(&[Mood::EndsEarly(1_000), Mood::Well])).await;
    bench.succeeds().await;
    assert_eq!(bench.ranges()[1].as_deref(), Some("bytes=1000-"));
}

#[tokio::test]
async fn an_interrupted_process_leaves_a_part_that_the_next_one_completes() {
    let bench = bench(hubbub(&[Mood::Stalls(200_000), Mood::Well])).await;
    let interrupted = tokio::time::timeout(Duration::from_millis(500), bench.add("a/b")).await;
    assert!(interrupted.is_err());
    assert!(bench.store.list().unwrap().is_empty());
    let parts = bench.parts();
    assert_eq!(fs::metadata(&parts[0]).unwrap().len(), 200_000);
    bench.succeeds().await;
    assert_eq!(bench.ranges()[1].as_deref(), Some("bytes=200000-"));
}

#[tokio::test]
async fn a_part_spoiled_on_disk_is_noticed_and_fetched_anew() {
    let bench = bench(hubbub(&[Mood::Stalls(200_000), Mood::Well])).await;
    let _ = tokio::time::timeout(Duration::from_millis(500), bench.add("a/b")).await;
    let part = &bench.parts()[0];
    let mut bytes = fs::read(part).unwrap();
    bytes[77] ^= 0x10;
    fs::write(part, bytes).unwrap();
    bench.succeeds().await;
    assert_eq!(bench.ranges()[2], None);
}

#[tokio::test]
async fn a_part_longer_than_the_file_is_thrown_away() {
    let bench = bench(hubbub(&[Mood::Stalls(10), Mood::Well])).await;
    let _ = tokio::time::timeout(Duration::from_millis(500), bench.add("a/b")).await;
    fs::write(&bench.parts()[0], vec![0; 800_000]).unwrap();
    bench.succeeds().await;
    assert_eq!(bench.ranges()[1], None);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let bench = bench(hubbub(&[Mood::Drops(300_000), Mood::IgnoresRange])).await;
    bench.succeeds().await;
}

#[tokio::test]
async fn a_part_of_another_range_is_never_appended() {
    let bench = bench(hubbub(&[Mood::Drops(300_000), Mood::WrongRange, Mood::Well])).await;
    bench.succeeds().await;
}

#[tokio::test]
async fn other_bytes_than_listed_are_refused_and_removed() {
    let bench = bench(hubbub(&[Mood::Spoils])).await;
    let error = bench.fails("a/b").await;
    assert!(matches!(error, HubError::Digest { .. }), "{error}");
    assert!(error.to_string().contains("thrown away"));
    assert!(bench.parts().is_empty());
    assert!(bench.store.list().unwrap().is_empty());
}

#[tokio::test]
async fn a_file_longer_than_listed_is_given_up() {
    let bench = bench(hubbub(&[Mood::TooLong])).await;
    let error = bench.fails("a/b").await;
    assert!(
        matches!(error, HubError::Digest { .. } | HubError::GaveUp { .. } | HubError::Broken { .. }),
        "{error}"
    );
    assert!(bench.store.list().unwrap().is_empty());
}

#[tokio::test]
async fn a_short_illness_is_waited_out_and_a_long_one_is_named() {
    let well_again = bench(hubbub(&[Mood::Fails(503), Mood::Fails(429), Mood::Fails(500), Mood::Well])).await;
    well_again.succeeds().await;

    let ill = bench(hubbub(&[Mood::Drops(1_000), Mood::Fails(503)])).await;
    let error = ill.fails("a/b").await;
    assert!(matches!(error, HubError::GaveUp { done: 1_000, .. }), "{error}");
    assert!(error.hint().unwrap().contains("goes on where it stopped"));
    assert_eq!(ill.parts().len(), 1);
}

#[tokio::test]
async fn refusals_say_who_and_what_to_do() {
    let hub = bench(hubbub(&[Mood::Well])).await;
    let error = hub.fails("nobody/b").await;
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    let error = hub.fails("gated/b").await;
    assert!(matches!(error, HubError::Forbidden { status: 403, had_token: false, .. }), "{error}");
    assert!(error.hint().unwrap().contains("HF_TOKEN"));
    let error = hub.fails("broken/b").await;
    assert!(error.to_string().ends_with("<h1>Oops</h1>"), "{error}");
    assert!(matches!(error, HubError::Status { status: 500, .. }));
    assert!(matches!(hub.fails("liar/b").await, HubError::Listing { .. }));
    assert!(matches!(hub.fails("away/b").await, HubError::Status { status: 418, .. }));
    let error = hub.fails("a/b/tiny.Q4_0.gguf").await;
    assert_eq!(error.hint().as_deref(), Some("did you mean sub/tiny.Q8_0.gguf?"));

    let gone = bench(hubbub(&[Mood::Fails(404)])).await;
    assert!(matches!(gone.fails("a/b").await, HubError::NotFound { .. }));
}

#[tokio::test]
async fn nobody_there_is_an_error_with_a_hint() {
    let hub = bench(hubbub(&[Mood::Well])).await;
    let settings =
        HubSettings { endpoint: "http://127.0.0.1:1".into(), token: None, backoff: Duration::from_millis(1) };
    let nobody = Hub::new(settings).unwrap();
    let reference: HubReference = "a/b".parse().unwrap();
    let error = hub.store.add_hub(&nobody, &reference, None, &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, StoreError::Hub(HubError::Unreachable { .. })), "{error}");
    assert!(error.hint().unwrap().contains("HF_ENDPOINT"));
    for endpoint in ["", "hub", "ftp://hub"] {
        let settings = HubSettings { endpoint: endpoint.into(), token: None, backoff: Duration::ZERO };
        assert!(matches!(Hub::new(settings), Err(HubError::Endpoint { .. })));
    }
}

#[tokio::test]
async fn the_token_opens_a_private_repository() {
    let private = |token| Hubbub { token: Some(token), ..hubbub(&[Mood::Well]) };
    bench(private("hf_secret")).await.succeeds().await;
    let error = bench(private("hf_other")).await.fails("a/b").await;
    assert!(matches!(error, HubError::Forbidden { status: 401, had_token: true, .. }), "{error}");
}

#[tokio::test]
async fn several_models_are_shown_and_none_is_guessed() {
    let digest = "0".repeat(64);
    let file = |name: &str| {
        format!(r#"{{"type":"file","path":"{name}","size":9,"lfs":{{"oid":"{digest}","size":4000000}}}}"#)
    };
    let check = async |files: &[&str]| {
        let listing = format!("[{}]", files.iter().map(|name| file(name)).collect::<Vec<_>>().join(","));
        bench(Hubbub { listing: Some(listing), ..hubbub(&[Mood::Well]) }).await.fails("a/b").await
    };
    let error = check(&["m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m.gguf"]).await;
    assert!(matches!(&error, HubError::SeveralModels { files, .. } if files.len() == 2), "{error}");
    assert!(error.to_string().contains("hf:a/b/m-Q4_K_M.gguf  (4 MB)"));
    assert!(matches!(check(&["README.md"]).await, HubError::NoModel { .. }));
    assert!(matches!(check(&["m-00001-of-00002.gguf"]).await, HubError::Split { .. }));
    assert!(matches!(check(&["../../m.gguf"]).await, HubError::Listing { .. }));
}

#[tokio::test]
async fn a_listing_in_pages_and_a_digest_in_a_header_do_too() {
    bench(Hubbub { paged: true, ..hubbub(&[Mood::Well]) }).await.succeeds().await;
    let listing = format!(r#"[{{"type":"file","path":"sub/tiny.Q8_0.gguf","size":{}}}]"#, body().len());
    bench(Hubbub { listing: Some(listing.clone()), ..hubbub(&[Mood::Well]) }).await.succeeds().await;
    let silent = Hubbub { listing: Some(listing), names_digests: false, ..hubbub(&[Mood::Well]) };
    let error = bench(silent).await.fails("a/b").await;
    assert!(matches!(error, HubError::NoDigest { .. }), "{error}");
}

#[tokio::test]
async fn two_processes_do_not_write_one_part() {
    let bench = bench(hubbub(&[Mood::Stalls(100_000)])).await;
    let (first, second) =
        tokio::join!(tokio::time::timeout(Duration::from_millis(900), bench.add("a/b")), async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            bench.fails("a/b").await
        });
    assert!(first.is_err());
    assert!(matches!(second, HubError::Busy { .. }), "{second}");
}

#[tokio::test]
async fn a_disk_that_refuses_is_named() {
    let bench = bench(hubbub(&[Mood::Well])).await;
    fs::create_dir_all(bench.folder.path().join("models")).unwrap();
    fs::write(bench.folder.path().join("models/downloads"), "in the way").unwrap();
    let error = bench.fails("a/b").await;
    assert!(matches!(error, HubError::Disk { .. }), "{error}");
    assert!(error.to_string().contains("models/downloads"));
}
