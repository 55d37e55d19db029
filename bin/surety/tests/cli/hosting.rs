//! Models on the network: published, found on the ledger, pulled from workers, audited, collected.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::{
    http::{ask, question},
    process::{Up, assert_status, assert_stderr, json, run, told, wait},
    transfer::{Model, Serving},
};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf");

/// A command with the ledger of `up`, whose own data directory is another.
fn with_ledger(up: &Up, up_dir: &Path, dir: &Path, args: &[&str]) -> std::process::Output {
    let running: Value = serde_json::from_slice(&fs::read(up_dir.join("up.json")).unwrap()).unwrap();
    let genesis = running["genesis"].as_str().unwrap();
    let rpc = up.ready["rpc_url"].as_str().unwrap();
    run(dir, &[args, &["--json", "--genesis", genesis, "--rpc-url", rpc]].concat())
}

fn verdicts(page: &Value) -> Vec<&str> {
    page["hosts"].as_array().unwrap().iter().map(|host| host["verdict"].as_str().unwrap()).collect()
}

#[test]
fn a_model_is_found_on_the_ledger_pulled_from_its_workers_and_who_lost_it_is_named() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    // Three operators serve one file.
    let model = Model::new(6 << 20);
    let path = dir.join("served.gguf");
    fs::write(&path, &model.bytes).unwrap();
    let named = format!("served={}", path.display());
    let up = Up::start(dir, &["--workers", "3", "--model", &named, "--model", "shakespeare-demo"]);

    let elsewhere = tempfile::tempdir().unwrap();
    let there = elsewhere.path();
    let pulled = with_ledger(&up, dir, there, &["model", "pull", "served"]);
    assert_status(&pulled, 0);
    assert_stderr(&pulled, "3 worker(s) of 3 operator(s) offer it");
    let pulled = json(&pulled);
    assert_eq!(pulled["name"], "served");
    assert_eq!(pulled["transfer"]["holders"].as_array().unwrap().len(), 3);
    assert!(fs::read(pulled["path"].as_str().unwrap()).unwrap() == model.bytes, "the file's bytes");
    // The bundled model is a file like any other.
    let bundled = with_ledger(&up, dir, there, &["model", "pull", "shakespeare-demo"]);
    assert_status(&bundled, 0);
    let bundled = json(&bundled);
    assert!(fs::read(bundled["path"].as_str().unwrap()).unwrap() == fs::read(MODEL).unwrap());
    // Every way to say which.
    let id = pulled["id"].as_str().unwrap();
    let digits = id.strip_prefix("blake3:").unwrap();
    for text in [id, &id[..20], &model.id(), &format!("served@{}", &digits[..8])] {
        let again = with_ledger(&up, dir, there, &["model", "pull", text]);
        assert_status(&again, 0);
        assert_eq!(json(&again)["id"], id, "{text}");
    }
    for (text, why) in [
        ("nothing-so-called", "the ledger knows no model nothing-so-called"),
        ("served@00000000", "not blake3:00000000"),
        ("blake3:00000000", "the ledger knows no model"),
        ("hf:a/b", "nothing to be pulled from workers"),
    ] {
        let refused = with_ledger(&up, dir, there, &["model", "pull", text]);
        assert_status(&refused, 1);
        assert_stderr(&refused, why);
        assert_stderr(&refused, "hint: ");
    }

    // Who hosts it is asked for proof; `up`'s own data directory knows the ledger by itself.
    let inspected = json(&run(dir, &["model", "inspect", "served", "--hosts", "--json"]));
    let network = &inspected["network"];
    assert_eq!(verdicts(network), ["has it"; 3]);
    assert_eq!((&network["replicas"], &network["operators_until_gone"]), (&3.into(), &3.into()));
    // One is advertised and does not answer.
    let absent = up.pids()[3];
    kill_process(absent, Signal::STOP).unwrap();
    let inspected = json(&with_ledger(&up, dir, there, &["model", "inspect", "served"]));
    kill_process(absent, Signal::CONT).unwrap();
    let network = &inspected["network"];
    let silent = verdicts(network).into_iter().filter(|verdict| *verdict == "ABSENT: it does not answer");
    assert_eq!((silent.count(), &network["operators_until_gone"]), (1, &2.into()), "{network}");

    // An audit passes while the file is whole.
    let audited = with_ledger(&up, dir, there, &["model", "audit", "served", "--challenges", "299"]);
    assert_status(&audited, 0);
    let page = json(&audited);
    assert_eq!(verdicts(&page), ["has it"; 3]);
    // One chunk in a hundred is dropped, without a trace in size or time: all three serve this file.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    for chunk in
        (3000..).step_by(100).take_while(|chunk: &u64| (chunk + 1) * 1024 <= model.bytes.len() as u64)
    {
        file.seek(SeekFrom::Start(chunk * 1024)).unwrap();
        file.write_all(&[0; 1024]).unwrap();
    }
    file.set_modified(modified).unwrap();
    let audited = with_ledger(&up, dir, there, &["model", "audit", "served", "--challenges", "459"]);
    assert_status(&audited, 1);
    let page = json(&audited);
    assert!(verdicts(&page).iter().all(|verdict| verdict.starts_with("LOST PART")), "{page}");
    let record = fs::read_to_string(page["recorded"].as_str().unwrap()).unwrap();
    let record: Vec<Value> = record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(record.len(), 6);
    let misses = |line: &Value| line["audit"]["misses"].as_array().unwrap().len();
    assert!(
        record[..3].iter().all(|line| misses(line) == 0) && record[3..].iter().all(|line| misses(line) > 0)
    );
    assert_ne!(record[0]["audit"]["beacon"], record[3]["audit"]["beacon"], "each block draws others");

    // A model removed while it is served: its file is refused by name, and answers go on.
    fs::remove_file(&path).unwrap();
    let audited = with_ledger(&up, dir, there, &["model", "audit", "served", "--challenges", "9"]);
    assert_status(&audited, 1);
    assert_eq!(verdicts(&json(&audited)), ["ABSENT: it says that it does not have it"; 3]);
    let fresh = tempfile::tempdir().unwrap();
    let refused = with_ledger(&up, dir, fresh.path(), &["model", "pull", "served"]);
    assert_status(&refused, 1);
    assert_stderr(&refused, "it does not have the file");
    let mut question = question(8);
    question["model"] = "served".into();
    ask(&up.base_url(), &question);
}

#[test]
fn a_model_is_published_with_a_name_once() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let up = Up::start(dir, &[]);
    let model = Model::new(4 << 20);
    let serving = Serving::start(Some(&model));
    let path = dir.join("mine.gguf");
    fs::write(&path, &model.bytes).unwrap();
    let path = path.to_str().unwrap();
    let publish =
        |alias: &str| run(dir, &["model", "publish", path, "--alias", alias, "--account", "purse", "--json"]);
    let taken = publish("shakespeare-demo");
    assert_status(&taken, 1);
    assert_stderr(&taken, "hint: choose another --alias");
    let unsound = publish("No Name");
    assert_status(&unsound, 1);
    assert_stderr(&unsound, "a name is 1 to 64 of");

    let first = publish("mine");
    assert_status(&first, 0);
    let first = json(&first);
    assert_eq!((&first["new"], first["transactions"].as_array().unwrap().len()), (&true.into(), 2));
    assert!(first["fee"].as_str().unwrap().parse::<u128>().unwrap() > 0);
    assert!(first["dispute_leaf_bytes"].as_u64() < first["dispute_leaf_bytes_max"].as_u64());
    assert_eq!(first["blake3"], model.digest.to_string());
    let again = json(&publish("mine"));
    assert_eq!(
        (&again["new"], &again["fee"], &again["height"]),
        (&false.into(), &"0".into(), &first["height"])
    );

    // Nobody offers it yet; whoever is named gives it all the same, and the ledger says what it is.
    let elsewhere = tempfile::tempdir().unwrap();
    let nobody = with_ledger(&up, dir, elsewhere.path(), &["model", "pull", "mine"]);
    assert_status(&nobody, 1);
    assert_stderr(&nobody, "no worker that can be reached offers mine");
    let pulled =
        with_ledger(&up, dir, elsewhere.path(), &["model", "pull", "mine", "--from", serving.address()]);
    assert_status(&pulled, 0);
    assert_eq!((&json(&pulled)["id"], &json(&pulled)["name"]), (&first["id"], &"mine".into()));
    let inspected = json(&with_ledger(&up, dir, elsewhere.path(), &["model", "inspect", "mine"]));
    assert_eq!(inspected["network"]["operators_until_gone"], 0);
    let unknown = with_ledger(&up, dir, elsewhere.path(), &["model", "inspect", "nowhere"]);
    assert_status(&unknown, 1);
    assert_stderr(&unknown, "the ledger knows no model nowhere");
}

/// A worker without a ledger, serving one model.
struct Worker(std::process::Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_pinned_or_served_is_never_collected_and_each_file_says_why() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = data_dir.path();
    let models: Vec<Model> = [3, 4, 5].into_iter().map(|mebibytes| Model::new(mebibytes << 20)).collect();
    let mut paths = Vec::new();
    for (model, name) in models.iter().zip(["pinned", "served", "idle"]) {
        let serving = Serving::start(Some(model));
        let pulled =
            run(dir, &["model", "pull", &model.id(), "--name", name, "--json", "--from", serving.address()]);
        assert_status(&pulled, 0);
        paths.push(PathBuf::from(json(&pulled)["path"].as_str().unwrap()));
    }
    assert_status(&run(dir, &["model", "pin", "pinned"]), 0);
    let refused = run(dir, &["model", "remove", "pinned"]);
    assert_status(&refused, 1);
    assert_stderr(&refused, "hint: unpin it first");
    let mut command = crate::process::surety(dir);
    command
        .args(["worker", "run", "--model", "served", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut worker = Worker(command.spawn().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(worker.0.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert!(line.contains("ready"), "{line}");

    let list = json(&run(dir, &["model", "list", "--json"]));
    let entry = |name: &str| {
        list["models"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone()
    };
    assert_eq!((&entry("pinned")["pinned"], &entry("served")["pinned"]), (&true.into(), &false.into()));
    assert!(entry("served")["used_s"].is_u64());
    let nothing = json(&run(dir, &["model", "gc", "--json"]));
    assert_eq!(nothing["freed_bytes"], 0, "{nothing}");
    let dry = json(&run(dir, &["model", "gc", "--keep", "8M", "--dry-run", "--json"]));
    assert!(dry["freed_bytes"].as_u64().unwrap() >= 5 << 20, "{dry}");
    assert!(paths.iter().all(|path| path.exists()));

    // Less than what may not go takes is said to be so; the rest goes.
    let swept = run(dir, &["model", "gc", "--keep", "0", "--json"]);
    assert_status(&swept, 1);
    assert_stderr(&swept, "hint: the lines above say why each stays");
    let why = |name: &str| {
        let swept = json(&swept);
        let files = swept["files"].as_array().unwrap();
        let file = files.iter().find(|file| file["names"][0] == name).unwrap();
        (file["deleted"].as_bool().unwrap(), file["why"].as_str().unwrap().to_owned())
    };
    assert_eq!(why("pinned"), (false, "pinned".to_owned()));
    assert_eq!(why("served"), (false, "a running process serves, fetches or reads it".to_owned()));
    assert!(why("idle").0, "{}", told(&swept));
    assert_eq!(paths.iter().map(|path| path.exists()).collect::<Vec<_>>(), [true, true, false]);

    // A killed worker holds nothing.
    drop(worker);
    assert_status(&run(dir, &["model", "unpin", "pinned"]), 0);
    wait(|| run(dir, &["model", "gc", "--keep", "0"]).status.success(), "the rest goes");
    assert!(paths.iter().all(|path| !path.exists()));
    let list = json(&run(dir, &["model", "list", "--json"]));
    assert_eq!(list["models"].as_array().unwrap().len(), 1, "only the bundled one");
}
