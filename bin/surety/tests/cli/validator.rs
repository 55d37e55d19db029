//! `surety validator`: four real processes agree on a ledger, and one that is killed comes back.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::process::{assert_status, assert_stderr, json, run, surety, wait};
use serde_json::{Value, json};

const COUNT: usize = 4;

/// A validator's folder, key and address.
struct Seat {
    dir: PathBuf,
    key: String,
    address: String,
}

struct Running {
    child: Child,
    rpc: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let taken: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    taken.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn seats(root: &Path) -> Vec<Seat> {
    let mut seats = Vec::new();
    for (index, port) in free_ports(COUNT).into_iter().enumerate() {
        let dir = root.join(index.to_string());
        let made = run(&dir, &["key", "new", "validator", "--no-passphrase", "--json"]);
        assert_status(&made, 0);
        let key = json(&made)["public"].as_str().unwrap().to_owned();
        seats.push(Seat { dir, key, address: format!("127.0.0.1:{port}") });
    }
    let validators: Vec<Value> = seats
        .iter()
        .enumerate()
        .map(|(index, seat)| {
            let operator = format!("0x{:040x}", 0x9900 + index);
            json!({ "key": seat.key, "operator": operator, "stake": "10000000000000000000000" })
        })
        .collect();
    // Block time follows the clock in steps: a genesis far in the past would be followed by a long sprint.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let genesis = json!({
        "chain_id": 88_888, "timestamp_ms": u64::try_from(now.as_millis()).unwrap(), "epoch_blocks": 100,
        "balances": [
            // The account of the private key 1, which everyone knows.
            { "address": "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf", "amount": "1000000000000000000000000", "why": "for tests" },
        ],
        "validators": validators,
    });
    let path = root.join("genesis.json");
    fs::write(&path, genesis.to_string()).unwrap();
    for seat in &seats {
        let told = run(&seat.dir, &["validator", "init", "--genesis", path.to_str().unwrap(), "--json"]);
        assert_status(&told, 0);
        let told = json(&told);
        assert_eq!((&told["key"], &told["votes"]), (&json!(seat.key), &json!(true)));
    }
    seats
}

fn start(seats: &[Seat], index: usize) -> Running {
    let seat = &seats[index];
    let mut command = surety(&seat.dir);
    command.args(["validator", "run", "--json", "--rpc", "127.0.0.1:0", "--listen", &seat.address]);
    for peer in seats {
        command.args(["--peer", &format!("{}@{}", peer.key, peer.address)]);
    }
    command.stdout(Stdio::piped()).stderr(fs::File::create(seat.dir.join("log")).unwrap());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let log = || fs::read_to_string(seat.dir.join("log")).unwrap();
    let ready: Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}, {}", log()));
    thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    assert_eq!(ready["id"], json!(seat.key));
    Running { child, rpc: ready["rpc_url"].as_str().unwrap().to_owned() }
}

fn ask(running: &Running, method: &str, params: Value) -> Value {
    let host = running.rpc.strip_prefix("http://").unwrap();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn height(running: &Running) -> u64 {
    let told = ask(running, "eth_blockNumber", json!([]));
    u64::from_str_radix(&told["result"].as_str().unwrap()[2..], 16).unwrap()
}

#[test]
fn four_processes_agree_and_one_that_is_killed_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let seats = seats(root.path());
    let mut running: Vec<Running> = (0..COUNT).map(|index| start(&seats, index)).collect();
    wait(|| running.iter().all(|one| height(one) >= 4), "four validators make blocks");

    let status = run(&seats[0].dir, &["validator", "status", "--json", "--rpc-url", &running[0].rpc]);
    assert_status(&status, 0);
    assert_eq!(json(&status)["duty"], json!("voting"));
    let hashes: Vec<Value> = running
        .iter()
        .map(|one| ask(one, "eth_getBlockByNumber", json!(["0x3", false]))["result"]["hash"].clone())
        .collect();
    assert!(hashes[0].is_string() && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");

    running.pop();
    let before = height(&running[0]);
    wait(|| height(&running[0]) >= before + 8, "three of four go on");
    running.push(start(&seats, COUNT - 1));
    let goal = height(&running[0]);
    wait(|| height(&running[COUNT - 1]) > goal, "the fourth catches up");
}

#[test]
fn what_is_not_prepared_does_not_run() {
    let root = tempfile::tempdir().unwrap();
    let unprepared = run(root.path(), &["validator", "run"]);
    assert_status(&unprepared, 1);
    assert_stderr(&unprepared, "hint: `surety validator init --genesis FILE` prepares it");
    let genesis = root.path().join("genesis.json");
    fs::write(&genesis, "{}").unwrap();
    let unsound = run(root.path(), &["validator", "init", "--genesis", genesis.to_str().unwrap()]);
    assert_status(&unsound, 1);
    assert_stderr(&unsound, "is no genesis");
    let nobody = run(root.path(), &["validator", "status", "--rpc-url", "http://127.0.0.1:1"]);
    assert_status(&nobody, 1);
    assert_stderr(&nobody, "no validator answers");
}
