//! Models between machines: real processes that serve, pull, are killed, lie, and run out of disk.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    thread,
};

use serde_json::Value;
use surety_blobs::{
    message::{FRAME_BYTES, FRAME_VALUES, FromHolder, Refusal, ToHolder},
    tree::{PIECE_BYTES, Shape, Tree},
};
use surety_net::{BindOptions, BlobStream, Endpoint, ListenLimits, Stream};
use surety_types::SecretKey;

use crate::process::{assert_status, assert_stderr, json, run, surety, told, wait};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf");
/// What one holder sends in a second: enough of them together, slow enough alone to be killed on the way.
const RATE: &str = "5000000";

/// A model file of some size that loads: the bundled one, and bytes behind it that no tensor names.
pub struct Model {
    pub bytes: Vec<u8>,
    pub digest: blake3::Hash,
}

impl Model {
    pub fn new(bytes: usize) -> Self {
        let mut model = fs::read(MODEL).unwrap();
        let mut rest = vec![0; bytes - model.len()];
        blake3::Hasher::new().finalize_xof().fill(&mut rest);
        model.extend(rest);
        let digest = blake3::hash(&model);
        Model { bytes: model, digest }
    }

    /// The name of its file.
    pub fn id(&self) -> String {
        format!("blake3:{}", self.digest)
    }

    fn tree(&self) -> Tree {
        let shape = Shape::new(self.bytes.len() as u64).unwrap();
        let pieces = self.bytes.chunks(PIECE_BYTES as usize).enumerate();
        Tree::new(shape, pieces.map(|(index, piece)| shape.piece_value(index as u32, piece)).collect())
    }

    /// How many pieces the journal of a pull says are here.
    fn pieces_in(&self, data_dir: &Path) -> u64 {
        let journal = data_dir.join("models/downloads").join(format!("{}.pull", self.digest));
        let pieces = (self.bytes.len() as u64).div_ceil(PIECE_BYTES);
        fs::metadata(journal).map_or(0, |journal| journal.len().saturating_sub(32 + 32 * pieces) / 4)
    }
}

/// A running `surety model serve`.
pub struct Serving {
    child: Child,
    ready: Value,
    _data_dir: tempfile::TempDir,
}

impl Serving {
    /// With this model in its store, or none.
    pub fn start(model: Option<&Model>) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        if let Some(model) = model {
            let path = data_dir.path().join("model.gguf");
            fs::write(&path, &model.bytes).unwrap();
            assert_status(&run(data_dir.path(), &["model", "add", path.to_str().unwrap()]), 0);
        }
        let mut command = surety(data_dir.path());
        command.args(["model", "serve", "--json", "--bytes-per-second", RATE]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert_eq!(ready["ready"], true);
        assert_eq!(ready["models"].as_array().unwrap().len(), usize::from(model.is_some()));
        Serving { child, ready, _data_dir: data_dir }
    }

    pub fn address(&self) -> &str {
        self.ready["address"].as_str().unwrap()
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a holder does that is none.
#[derive(Clone, Copy, PartialEq)]
enum Deed {
    /// Flips a bit in every piece.
    Corrupts,
    /// Gives the last piece, and says of the others that it does not have them.
    HasTheLastPiece,
}

/// A holder that does this until the test ends; its address.
fn liar(model: &Model, deed: Deed) -> String {
    let (tree, bytes) = (model.tree(), model.bytes.clone());
    let (sender, address) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let key = SecretKey::from_bytes(&[9; 32]);
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let endpoint = Endpoint::bind(BindOptions { key, listen }).await.unwrap();
            let mut listener = endpoint.listen_for_blobs(ListenLimits::default());
            sender.send(endpoint.address().to_string()).unwrap();
            while let Some(stream) = listener.accept().await {
                // Whom it fails to deceive it does not mind.
                let _ = deceive(stream, &tree, &bytes, deed).await;
            }
        });
    });
    address.recv().unwrap()
}

async fn deceive(
    stream: BlobStream,
    tree: &Tree,
    bytes: &[u8],
    deed: Deed,
) -> Result<(), surety_net::SendError> {
    let last = tree.shape().pieces() - 1;
    let mut stream: Stream<FromHolder, ToHolder> = stream.carrying();
    match stream.receive().await {
        Ok(Some(ToHolder::Describe(_))) => stream.send(&FromHolder::Held(bytes.len() as u64)).await?,
        Ok(Some(ToHolder::Values(_))) => {
            for values in tree.values().chunks(FRAME_VALUES) {
                stream.send(&FromHolder::Values(values.as_flattened().to_vec())).await?;
            }
        }
        Ok(Some(ToHolder::Piece { index, .. })) if deed == Deed::HasTheLastPiece && index != last => {
            stream.send(&FromHolder::Refused(Refusal::Absent)).await?;
        }
        Ok(Some(ToHolder::Piece { index, .. })) => {
            let mut piece = bytes.chunks(PIECE_BYTES as usize).nth(index as usize).unwrap().to_vec();
            piece[100] ^= u8::from(deed == Deed::Corrupts);
            for data in piece.chunks(FRAME_BYTES) {
                stream.send(&FromHolder::Data(data.to_vec())).await?;
            }
        }
        _ => {}
    }
    stream.finish().await
}

/// A running `surety model pull`.
struct Pulling(Child);

impl Pulling {
    fn start(data_dir: &Path, model: &Model, from: &[&str]) -> Self {
        let mut command = surety(data_dir);
        command.args(["model", "pull", &model.id(), "--name", "pulled", "--json", "--from"]).args(from);
        Pulling(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn end(self) -> Output {
        self.0.wait_with_output().unwrap()
    }
}

/// The model is in the store as `model add` leaves it, and its bytes are the file's.
#[track_caller]
fn assert_pulled(data_dir: &Path, model: &Model, output: &Output) -> Value {
    assert_status(output, 0);
    let pulled = json(output);
    let list = json(&run(data_dir, &["model", "list", "--json"]));
    assert_eq!(list["models"][0]["name"], "pulled");
    assert_eq!(list["models"][0]["id"], pulled["id"]);
    assert_eq!(list["models"][0]["blake3"], model.digest.to_string());
    let path = PathBuf::from(pulled["path"].as_str().unwrap());
    assert!(fs::read(&path).unwrap() == model.bytes, "the file's bytes");
    assert_eq!(fs::read_dir(data_dir.join("models/downloads")).unwrap().count(), 0, "nothing is left over");
    pulled
}

#[test]
fn a_model_comes_whole_though_one_holder_is_killed_one_lies_and_one_has_nothing() {
    let model = Model::new(24 << 20);
    let (mut dying, staying) = (Serving::start(Some(&model)), Serving::start(Some(&model)));
    let (empty, liar) = (Serving::start(None), liar(&model, Deed::Corrupts));
    let data_dir = tempfile::tempdir().unwrap();
    let from = [dying.address(), staying.address(), empty.address(), &liar];
    let pulling = Pulling::start(data_dir.path(), &model, &from);
    wait(|| model.pieces_in(data_dir.path()) >= 3, "the first pieces come");
    let killed = dying.address().to_owned();
    dying.kill();
    let output = pulling.end();
    let pulled = assert_pulled(data_dir.path(), &model, &output);
    let holders = pulled["transfer"]["holders"].as_array().unwrap();
    let part = |address: &str| holders.iter().find(|part| part["address"] == address).unwrap();
    assert_eq!(part(&liar)["lied"], true, "{}", told(&output));
    assert_eq!(part(&liar)["bytes"], 0);
    assert_stderr(&output, "it sent wrong bytes");
    assert_eq!(part(empty.address())["fault"], "it does not have the file");
    assert!(part(staying.address())["bytes"].as_u64().unwrap() > 0);
    assert_eq!(part(staying.address())["fault"], Value::Null);
    assert!(part(&killed)["bytes"].as_u64().unwrap() < model.bytes.len() as u64);

    // Its file is the store's own, and goes with it; asked for again meanwhile, it is here.
    let again = run(data_dir.path(), &["model", "pull", &model.id(), "--from", &killed, "--json"]);
    assert_eq!(assert_pulled(data_dir.path(), &model, &again)["transfer"], Value::Null);
    let removed = json(&run(data_dir.path(), &["model", "remove", "pulled", "--json"]));
    assert_eq!(removed["file_deleted"], true);
    assert!(!data_dir.path().join("models/pulled").exists());
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let model = Model::new(20 << 20);
    let serving = Serving::start(Some(&model));
    let data_dir = tempfile::tempdir().unwrap();
    let mut pulling = Pulling::start(data_dir.path(), &model, &[serving.address()]);
    wait(|| model.pieces_in(data_dir.path()) >= 4, "the first pieces come");
    pulling.0.kill().unwrap();
    pulling.0.wait().unwrap();
    let kept = model.pieces_in(data_dir.path());
    assert!(kept < 20, "it was killed before the end");
    let output = Pulling::start(data_dir.path(), &model, &[serving.address()]).end();
    let pulled = assert_pulled(data_dir.path(), &model, &output);
    assert_eq!(
        pulled["transfer"]["resumed_bytes"],
        kept * PIECE_BYTES,
        "every piece that was in the journal"
    );
    assert_eq!(pulled["transfer"]["fetched_bytes"], model.bytes.len() as u64 - kept * PIECE_BYTES);
}

#[test]
fn a_full_disk_is_told_and_what_came_is_kept() {
    let model = Model::new(24 << 20);
    let serving = Serving::start(Some(&model));
    let data_dir = tempfile::tempdir().unwrap();
    // The limit is one of the size of files: the last piece, which lies beyond it, comes before it is set.
    let first = liar(&model, Deed::HasTheLastPiece);
    assert_status(&Pulling::start(data_dir.path(), &model, &[&first]).end(), 1);
    let before = model.pieces_in(data_dir.path());
    assert!((1..=3).contains(&before), "{before}");
    // 8 MiB, or 16 where a shell counts in kibibytes.
    let mut limited = std::process::Command::new("sh");
    limited.env("SURETY_HOME", data_dir.path()).stdin(Stdio::null());
    limited.args(["-c", "trap '' XFSZ; ulimit -f 16384; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_surety")]);
    limited.args(["model", "pull", &model.id(), "--name", "pulled", "--from", serving.address()]);
    let output = limited.output().unwrap();
    assert_status(&output, 1);
    assert_stderr(&output, "cannot write");
    assert_stderr(&output, "hint: the disk takes no more");
    let list = json(&run(data_dir.path(), &["model", "list", "--json"]));
    assert_eq!(list["models"].as_array().unwrap().len(), 1, "only the bundled one");
    let kept = model.pieces_in(data_dir.path());
    assert!(kept > before && kept < 24, "{before} {kept}");
    let output = Pulling::start(data_dir.path(), &model, &[serving.address()]).end();
    let pulled = assert_pulled(data_dir.path(), &model, &output);
    assert_eq!(pulled["transfer"]["resumed_bytes"], kept * PIECE_BYTES);
}

/// A disk that is really full, and grows: a file system of some mebibytes in a mount namespace of the test's own.
#[test]
fn a_disk_without_room_is_told_and_the_pull_goes_on_when_there_is_some() {
    let data_dir = tempfile::tempdir().unwrap();
    let script = |then: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg(format!("mount -t tmpfs -o size=9m none \"$SURETY_HOME\" && {then}"));
        command.args(["sh", env!("CARGO_BIN_EXE_surety")]);
        command.env("SURETY_HOME", data_dir.path()).stdin(Stdio::null());
        command
    };
    if !script("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this machine lets nobody mount a file system of their own");
        return;
    }
    let model = Model::new(24 << 20);
    let serving = Serving::start(Some(&model));
    let pull = "\"$@\" --name one; echo \"first $?\"; mount -o remount,size=200m none \"$SURETY_HOME\"; \
                \"$@\" --name one --json";
    let mut command = script(pull);
    command.args(["model", "pull", &model.id(), "--from", serving.address()]);
    let output = command.output().unwrap();
    assert_status(&output, 0);
    assert_stderr(&output, "No space left on device");
    assert_stderr(&output, "hint: the disk takes no more");
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let (first, pulled) = stdout.split_once('\n').unwrap();
    assert_eq!(first, "first 1");
    let pulled: Value = serde_json::from_str(pulled).unwrap();
    let resumed = pulled["transfer"]["resumed_bytes"].as_u64().unwrap();
    assert!((1 << 20..9 << 20).contains(&resumed), "{resumed}");
    assert_eq!(pulled["transfer"]["fetched_bytes"], model.bytes.len() as u64 - resumed);
    assert_eq!(pulled["blake3"], model.digest.to_string());
}

#[test]
fn what_cannot_be_pulled_is_said_before_anything_comes() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let id = Model::new(3 << 20).id();
    let empty = Serving::start(None);
    for args in [
        &["model", "pull"][..],
        &["model", "pull", &id, "--from", "127.0.0.1:1"],
        &["model", "serve", "--listen", "somewhere"],
    ] {
        assert_status(&run(dir, args), 2);
    }
    // Without holders, or with less than a whole digest, a ledger is needed.
    for args in [&["model", "pull", &id][..], &["model", "pull", "blake3:0123", "--from", empty.address()]] {
        let nowhere = run(dir, args);
        assert_status(&nowhere, 1);
        assert_stderr(&nowhere, "hint: start one with `surety up`, or name its genesis");
    }
    let absent = run(dir, &["model", "pull", &id, "--from", empty.address()]);
    assert_status(&absent, 1);
    assert_stderr(&absent, "it does not have the file");
    assert_stderr(&absent, "hint: check the digest and the addresses");
    assert_status(&run(dir, &["model", "add", MODEL, "--name", "mine"]), 0);
    let taken = run(dir, &["model", "pull", &id, "--name", "mine", "--from", empty.address()]);
    assert_status(&taken, 1);
    assert_stderr(&taken, "mine already names another model");

    // A serving process that is asked to stop does.
    let mut serving = empty;
    let pid = crate::process::pid(serving.child.id().into());
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut rest = String::new();
    if let Some(stdout) = &mut serving.child.stdout {
        stdout.read_to_string(&mut rest).unwrap();
    }
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}
