//! The hub over real sockets: models listed, files given out in ranges from workers that hold them, and what is refused.

use std::{fs, path::Path};

use serde_json::{Value, json};
use surety_gateway::KeyTerms;
use surety_types::{Digest, FileDigest, Manifest, ServedModel};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    fake::{FakeWorker, manifest, model},
    http::{Answer, Site, request},
    keys::key,
};

const MIB: usize = 1 << 20;

/// Bytes that differ everywhere.
fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A model of one file, which is put into a folder.
fn filed(name: &str, data: &[u8], folder: &Path) -> (Manifest, ServedModel) {
    let digest = Digest(*blake3::hash(data).as_bytes());
    fs::write(folder.join(digest.to_string()), data).expect("a file");
    let mut manifest = manifest(name, true);
    manifest.files =
        vec![FileDigest { name: format!("{name}.gguf"), bytes: data.len() as u64, blake3: digest }];
    let served = model(name, manifest.clone());
    (manifest, served)
}

struct Library {
    data: Vec<u8>,
    manifest: Manifest,
    worker: FakeWorker,
    folder: TempDir,
    site: Site,
}

impl Library {
    /// One worker with one model of three pieces and a bit, and its file.
    async fn open() -> Library {
        let folder = tempfile::tempdir().expect("a folder");
        let data = bytes(3 * MIB + 4321);
        let (manifest, served) = filed("tiny", &data, folder.path());
        let worker = FakeWorker::sharing(1, vec![served], folder.path()).await;
        let site = Site::start(&[&worker]).await;
        Library { data, manifest, worker, folder, site }
    }

    fn revision(&self) -> String {
        self.manifest.id().0.to_string()[..40].to_owned()
    }

    async fn get(&self, path: &str, headers: &str) -> Answer {
        self.site.get_with(path, headers).await
    }

    async fn head(&self, path: &str) -> Answer {
        let text = format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        request(self.site.address, &text).await
    }
}

const FILE: &str = "/surety/tiny/resolve/main/tiny.gguf";

/// An error as a hub's clients read it.
fn check_error(answer: &Answer, status: u16, code: &str, hub_code: Option<&str>) -> String {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"]), (status, &json!(code)), "{body}");
    assert_eq!(answer.header("x-error-code"), hub_code, "{body}");
    let message = body["error"].as_str().expect("a message");
    let told = answer.header("x-error-message").expect("a message");
    assert!(code == "bad_key" || message.starts_with(told), "{message}");
    message.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_with_their_revisions_and_files() {
    let library = Library::open().await;
    let list = library.get("/api/models", "").await.json();
    let [listed] = &list.as_array().expect("a list")[..] else { panic!("{list}") };
    assert_eq!((&listed["id"], &listed["modelId"]), (&json!("surety/tiny"), &json!("surety/tiny")));
    assert_eq!((&listed["author"], &listed["sha"]), (&json!("surety"), &json!(library.revision())));
    assert_eq!(listed["tags"], json!(["gguf", "llama", "Q8_0"]));
    let blake3 = library.manifest.files[0].blake3.to_string();
    assert_eq!(
        listed["siblings"],
        json!([{"rfilename": "tiny.gguf", "size": library.data.len(), "blobId": blake3}])
    );
    for unknown in ["downloads", "likes", "lastModified"] {
        assert!(listed.get(unknown).is_none(), "nobody counts {unknown}");
    }

    let id = library.manifest.id().0.to_string();
    for path in [
        "surety/tiny".to_owned(),
        "tiny".to_owned(),
        format!("surety/{id}"),
        format!("surety/tiny/revision/{}", library.revision()),
        format!("tiny/revision/{}", &id[..8]),
        format!("surety%2Ftiny/revision/{id}"),
        "surety/tiny/revision/main?blobs=true".to_owned(),
    ] {
        let about = library.get(&format!("/api/models/{path}"), "").await;
        assert_eq!(about.status, 200, "{path}: {}", about.text());
        let mut about = about.json();
        for name in ["id", "modelId"] {
            about[name] = listed[name].clone();
        }
        assert_eq!(about, *listed, "{path}");
    }
    let refs = library.get("/api/models/surety/tiny/refs", "").await.json();
    assert_eq!(refs["branches"][0]["name"], "main");
    assert_eq!(refs["branches"][0]["targetCommit"], json!(library.revision()));
    let tree = library.get("/api/models/surety/tiny/tree/main?recursive=true&expand=false", "").await.json();
    let file = json!({"type": "file", "oid": blake3, "size": library.data.len(), "path": "tiny.gguf"});
    assert_eq!(tree, json!([file]));
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_filtered_and_what_cannot_be_honoured_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, tiny) = filed("tiny", b"tiny", folder.path());
    let (_, other) = filed("owner/other-7b", b"other", folder.path());
    let (strange, unnamed) = filed("strange: name", b"strange", folder.path());
    let worker = FakeWorker::sharing(1, vec![tiny, other, unnamed], folder.path()).await;
    let site = Site::start(&[&worker]).await;
    let listed = async |query: &str| -> Vec<String> {
        let list = site.get(&format!("/api/models{query}")).await.json();
        let models = list.as_array().unwrap_or_else(|| panic!("{list}"));
        models.iter().map(|model| model["id"].as_str().expect("an id").to_owned()).collect()
    };
    let by_id = format!("surety/{}", strange.id().0);
    let mut all = vec!["owner/other-7b".to_owned(), by_id.clone(), "surety/tiny".to_owned()];
    all.sort();
    assert_eq!(listed("").await, all);
    assert_eq!(listed("?search=OTHER&full=true").await, ["owner/other-7b"]);
    assert_eq!(listed("?search=other%20owner&limit=1000").await, ["owner/other-7b"]);
    assert_eq!(listed("?author=Owner&config=True&cardData=True").await, ["owner/other-7b"]);
    assert_eq!(listed("?filter=gguf&filter=llama&gated=false&limit=2").await, all[..2]);
    assert_eq!(listed("?pipeline_tag=text-generation&expand=sha&expand=tags").await.len(), 3);
    for nothing in ["?filter=safetensors", "?gated=true", "?search=none", "?pipeline_tag=fill-mask"] {
        assert!(listed(nothing).await.is_empty(), "{nothing}");
    }
    // What no hub's name can be is found by its id.
    assert_eq!(site.get(&format!("/api/models/{by_id}")).await.status, 200);
    for (query, code) in [
        ("?sort=downloads", "unsupported_parameter"),
        ("?inference=warm", "unsupported_parameter"),
        ("?limit=0", "invalid_param"),
        ("?limit=many", "invalid_param"),
        ("?serach=tiny", "unknown_parameter"),
    ] {
        check_error(&site.get(&format!("/api/models{query}")).await, 400, code, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_whole_and_in_ranges() {
    let library = Library::open().await;
    let (data, size) = (&library.data, library.data.len());
    let etag = format!("\"blake3-{}\"", library.manifest.files[0].blake3);
    let head = library.head(FILE).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let whole = library.get(FILE, "").await;
    assert!(whole.status == 200 && whole.body == *data);
    let pinned = format!("/tiny/resolve/{}/tiny.gguf", library.revision());
    assert!(library.get(&pinned, "").await.body == *data);
    for answer in [&head, &whole] {
        for (name, expected) in [
            ("content-length", size.to_string()),
            ("x-linked-size", size.to_string()),
            ("etag", etag.clone()),
            ("x-linked-etag", etag.clone()),
            ("x-repo-commit", library.revision()),
            ("accept-ranges", "bytes".to_owned()),
            ("content-type", "application/octet-stream".to_owned()),
        ] {
            assert_eq!(answer.header(name), Some(expected.as_str()), "{name}");
        }
        assert_eq!(answer.header("content-range"), None);
    }
    for (range, from, to) in [
        ("0-0", 0, 1),
        ("0-", 0, size),
        ("5-1048575", 5, MIB),
        ("1048575-1048576", MIB - 1, MIB + 1),
        ("1048576-", MIB, size),
        ("-77", size - 77, size),
        ("3145728-99999999999999999999", 3 * MIB, size),
    ] {
        let part = library.get(FILE, &format!("range: bytes={range}\r\n")).await;
        assert_eq!(part.status, 206, "{range}");
        assert!(part.body == data[from..to], "{range}");
        let expected = format!("bytes {from}-{}/{size}", to - 1);
        assert_eq!(part.header("content-range"), Some(expected.as_str()));
        assert_eq!(part.header("content-length"), Some((to - from).to_string().as_str()));
        assert_eq!(part.header("etag"), Some(etag.as_str()));
    }
    // Another unit is none; a range of another file is not of this one.
    for headers in ["range: pages=1-2\r\n", "range: bytes=5-6\r\nif-range: \"blake3-0\"\r\n"] {
        let answer = library.get(FILE, headers).await;
        assert!(answer.status == 200 && answer.body == *data, "{headers}");
    }
    let same = library.get(FILE, &format!("range: bytes=5-6\r\nif-range: {etag}\r\n")).await;
    assert_eq!((same.status, &same.body[..]), (206, &data[5..7]));
    let known = library.get(FILE, &format!("if-none-match: {etag}\r\n")).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(known.header("etag"), Some(etag.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_ranges_are_refused_with_the_size() {
    let library = Library::open().await;
    let size = library.data.len();
    for range in [
        format!("bytes={size}-"),
        "bytes=99999999999999999999-".to_owned(),
        "bytes=9-5".to_owned(),
        "bytes=-0".to_owned(),
        "bytes=0-1,7-9".to_owned(),
        "bytes=one-two".to_owned(),
        "bytes=-".to_owned(),
        "nonsense".to_owned(),
    ] {
        let answer = library.get(FILE, &format!("range: {range}\r\n")).await;
        let message = check_error(&answer, 416, "range_not_satisfiable", None);
        assert!(message.contains(&format!("{size} bytes")), "{message}");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{size}").as_str()), "{range}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_not_is_told_as_a_hubs_clients_read_it() {
    let library = Library::open().await;
    let message = |answer: &Answer, hub_code| check_error(answer, 404, "not_found", Some(hub_code));
    for path in
        ["/api/models/surety/tinny", "/api/models/nobody/tiny", "/surety/tinny/resolve/main/tiny.gguf"]
    {
        let answer = library.get(path, "").await;
        check_error(&answer, 404, "model_unknown", Some("RepoNotFound"));
        assert_eq!(library.head(path).await.status, 404);
    }
    for revision in ["v1", "00000000", "refs%2Fpr%2F1", &"0".repeat(40), &"f".repeat(65), "main2", "%00"] {
        for path in [
            format!("/api/models/surety/tiny/revision/{revision}"),
            format!("/api/models/tiny/tree/{revision}"),
            format!("/surety/tiny/resolve/{revision}/tiny.gguf"),
        ] {
            let told = message(&library.get(&path, "").await, "RevisionNotFound");
            assert!(told.contains(&library.revision()), "it says which there is: {told}");
        }
    }
    for file in [
        "config.json",
        "..%2Ftiny.gguf",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "../../../../etc/passwd",
        "..%5c..%5csecret",
        "%2Fetc%2Fpasswd",
        "tiny.gguf%00",
        "tiny.gguf/",
        "TINY.GGUF",
        "a/b/c",
    ] {
        let answer = library.get(&format!("/surety/tiny/resolve/main/{file}"), "").await;
        assert_eq!(answer.status, 404, "{file}: {}", answer.text());
        assert!(!answer.text().contains("root:"), "{file}");
        assert_eq!(answer.json()["code"], "not_found", "{file}");
    }
    let answer = library.get("/surety/tiny/resolve/main/tiny.gguff", "").await;
    assert!(message(&answer, "EntryNotFound").contains("Did you mean \"tiny.gguf\"?"));
    assert_eq!(answer.header("x-repo-commit"), Some(library.revision().as_str()));
    message(&library.get("/api/models/tiny/tree/main/folder", "").await, "EntryNotFound");
    check_error(&library.get("/api/models/a/b/c/d", "").await, 404, "not_found", None);
    let posted = library.site.post("/api/models", "{}").await;
    check_error(&posted, 405, "method_not_allowed", None);
}

/// Two models of one name: a revision says which.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_says_which_of_several_models_is_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, served_first) = filed("tiny", b"the first", folder.path());
    let (second, served_second) = filed("tiny", b"the second", folder.path());
    let one = FakeWorker::sharing(1, vec![served_first], folder.path()).await;
    let two = FakeWorker::sharing(2, vec![served_second], folder.path()).await;
    let site = Site::start(&[&one, &two]).await;
    check_error(&site.get("/surety/tiny/resolve/main/tiny.gguf").await, 400, "invalid_param", None);
    for (manifest, data) in [(first, "the first"), (second, "the second")] {
        let revision = &manifest.id().0.to_string()[..40];
        let answer = site.get(&format!("/surety/tiny/resolve/{revision}/tiny.gguf")).await;
        assert_eq!((answer.status, answer.text()), (200, data));
        assert_eq!(answer.header("x-repo-commit"), Some(revision));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_not_passed_on_and_who_has_none_is_named() {
    let library = Library::open().await;
    let digest = library.manifest.files[0].blake3.to_string();
    let path = library.folder.path().join(&digest);
    assert_eq!(library.get(FILE, "").await.status, 200);
    // The worker's file changes behind its back: it refuses what it cannot prove.
    let mut changed = library.data.clone();
    changed[2 * MIB + 7] ^= 1;
    fs::write(&path, &changed).expect("written");
    let answer = library.get(FILE, "range: bytes=2097152-\r\n").await;
    let message = check_error(&answer, 503, "no_holder", None);
    assert!(message.contains(&library.worker.address.key.short()), "{message}");
    assert_eq!(answer.header("retry-after"), Some("5"));
    fs::remove_file(&path).expect("removed");
    check_error(&library.get(FILE, "").await, 503, "no_holder", None);
    // Another that has it makes good for the first.
    let other = tempfile::tempdir().expect("a folder");
    let (_, served) = filed("tiny", &library.data, other.path());
    let second = FakeWorker::sharing(2, vec![served], other.path()).await;
    let both = Site::start(&[&library.worker, &second]).await;
    assert!(both.get(FILE).await.body == library.data);
    // One that shares nothing is no holder.
    let alone = FakeWorker::serving(3, vec![model("tiny", library.manifest.clone())]).await;
    let site = Site::start(&[&alone]).await;
    check_error(&site.get(FILE).await, 503, "no_holder", None);
    assert_eq!(site.get("/api/models/surety/tiny").await.status, 200, "what it is made of is known");
}

/// A reader that went away in the middle goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_broke_off_is_resumed() {
    let library = Library::open().await;
    let cut = MIB + 12345;
    let text = format!("GET {FILE} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut came = Vec::new();
    {
        let mut stream = TcpStream::connect(library.site.address).await.expect("a connection");
        stream.write_all(text.as_bytes()).await.expect("sent");
        let mut piece = vec![0; 1 << 16];
        while came.len() < cut + 2000 {
            let read = stream.read(&mut piece).await.expect("more");
            assert!(read > 0, "it ended early");
            came.extend_from_slice(&piece[..read]);
        }
    }
    let head = came.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let mut have = came[head..].to_vec();
    have.truncate(cut);
    let rest = library.get(FILE, &format!("range: bytes={cut}-\r\n")).await;
    assert_eq!(rest.status, 206);
    have.extend(rest.body);
    assert!(have == library.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_asks_for_the_same_keys_as_everything_else() {
    let library = Library::open().await;
    let who: Value = library.get("/api/whoami-v2", "").await.json();
    assert_eq!(who["name"], "anonymous");
    let mine = key(&library.site, KeyTerms::named("mine")).await;
    let mut terms = KeyTerms::named("elsewhere");
    terms.models = vec!["another".to_owned()];
    let elsewhere = key(&library.site, terms).await;
    for path in ["/api/models", "/api/models/surety/tiny", "/api/whoami-v2", FILE] {
        for headers in ["", "authorization: Bearer none\r\n"] {
            let answer = library.get(path, headers).await;
            check_error(&answer, 401, "bad_key", None);
            assert_eq!(
                answer.header("x-error-message"),
                Some("Invalid credentials in Authorization header"),
                "else clients take it for a model that there is not"
            );
        }
        assert_eq!(library.get(path, &mine).await.status, 200, "{path}");
    }
    assert_eq!(library.get("/api/whoami-v2", &mine).await.json()["auth"]["accessToken"]["role"], "read");
    for path in ["/api/models/surety/tiny", FILE] {
        check_error(&library.get(path, &elsewhere).await, 403, "policy", None);
    }
}
