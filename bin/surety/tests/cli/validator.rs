//! `surety validator`: four real processes agree on a ledger, whichever of them is killed, and money stays what it was.
//!
//! `SURETY_KILLS` sets how many are killed at random (two hundred for the long form); `SURETY_KILLS_SEED` replays whom.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::process::{assert_status, assert_stderr, json, run, surety};
use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, TxKind, U256, hex, keccak256};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use serde_json::{Value, json};
use surety_chain::{AccountState, StateKey};
use surety_types::abi::{IStaking, Module};

/// Validators; one more only follows.
const COUNT: usize = 4;
const CHAIN_ID: u64 = 88_888;
/// Ten seconds at the usual pace.
const EPOCH_BLOCKS: u64 = 40;
/// Accounts that pay each other.
const PAYERS: u64 = 8;
const WEALTH: u128 = 1_000_000_000_000_000_000_000_000;
const STAKE: u128 = 10_000_000_000_000_000_000_000;
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A participant's folder, key and address.
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
        // SIGKILL: nothing is put in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so; returns how long it took.
#[track_caller]
fn wait(mut so: impl FnMut() -> bool, what: &str) -> Duration {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "this does not happen: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let taken: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    taken.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn payer(number: u64) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256(number.to_be_bytes())).unwrap()
}

fn operator(index: usize) -> Address {
    Address::from_word(U256::from(0x9900 + index).into())
}

/// Everyone who can own something here.
fn accounts() -> Vec<Address> {
    let payers = (0..PAYERS).map(|number| payer(number).address());
    payers.chain((0..COUNT).map(operator)).chain(Module::ALL.map(Module::address)).collect()
}

fn seats(root: &Path) -> Vec<Seat> {
    // Who is down here is down for a purpose, and shall vote again before ten minutes of jail are over.
    seats_with(root, json!({ "jail_missed_min": 1_000_000 }))
}

fn seats_with(root: &Path, params: Value) -> Vec<Seat> {
    let mut seats = Vec::new();
    for (index, port) in free_ports(COUNT + 1).into_iter().enumerate() {
        let dir = root.join(index.to_string());
        let made = run(&dir, &["key", "new", "validator", "--no-passphrase", "--json"]);
        assert_status(&made, 0);
        let key = json(&made)["public"].as_str().unwrap().to_owned();
        seats.push(Seat { dir, key, address: format!("127.0.0.1:{port}") });
    }
    let validators: Vec<Value> = seats[..COUNT]
        .iter()
        .enumerate()
        .map(|(index, seat)| json!({ "key": seat.key, "operator": operator(index), "stake": STAKE.to_string() }))
        .collect();
    let balances: Vec<Value> = (0..PAYERS)
        .map(|number| {
            json!({ "address": payer(number).address(), "amount": WEALTH.to_string(), "why": "for tests" })
        })
        .collect();
    // Block time follows the clock in steps: a genesis far in the past would be followed by a long sprint.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let genesis = json!({
        "chain_id": CHAIN_ID, "timestamp_ms": u64::try_from(now.as_millis()).unwrap(),
        "epoch_blocks": EPOCH_BLOCKS, "balances": balances, "validators": validators,
        "params": params,
    });
    let path = root.join("genesis.json");
    fs::write(&path, genesis.to_string()).unwrap();
    for (index, seat) in seats.iter().enumerate() {
        let told = run(&seat.dir, &["validator", "init", "--genesis", path.to_str().unwrap(), "--json"]);
        assert_status(&told, 0);
        let told = json(&told);
        assert_eq!((&told["key"], &told["votes"]), (&json!(seat.key), &json!(index < COUNT)));
    }
    seats
}

fn start_with(seats: &[Seat], index: usize, more: &[&str]) -> Running {
    let seat = &seats[index];
    let mut command = surety(&seat.dir);
    command.args(["validator", "run", "--json", "--rpc", "127.0.0.1:0", "--listen", &seat.address]);
    for (other, peer) in seats.iter().enumerate() {
        let how = if other < COUNT { "--peer" } else { "--follower" };
        command.args([how, &format!("{}@{}", peer.key, peer.address)]);
    }
    let log = fs::File::options().create(true).append(true).open(seat.dir.join("log")).unwrap();
    command.args(more).stdout(Stdio::piped()).stderr(log);
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

fn start(seats: &[Seat], index: usize) -> Running {
    start_with(seats, index, &[])
}

/// Four at once.
fn start_all(seats: &[Seat]) -> Vec<Option<Running>> {
    start_all_from(seats, 0)
}

/// Four at once, of a chain with this genesis block.
fn start_all_from(seats: &[Seat], first: u64) -> Vec<Option<Running>> {
    let running: Vec<Option<Running>> = (0..COUNT).map(|index| Some(start(seats, index))).collect();
    wait(|| running.iter().flatten().all(|one| height(one) >= first + 4), "four validators make blocks");
    running
}

/// What an RPC answers; none if it cannot be reached.
fn try_ask(rpc: &str, method: &str, params: &Value) -> Option<Value> {
    let host = rpc.strip_prefix("http://").unwrap();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(
        stream,
        "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

fn ask(running: &Running, method: &str, params: Value) -> Value {
    try_ask(&running.rpc, method, &params).unwrap_or_else(|| panic!("{} does not answer", running.rpc))
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(&value.as_str().unwrap_or_else(|| panic!("{value} is no number"))[2..], 16).unwrap()
}

fn height(running: &Running) -> u64 {
    number(&ask(running, "eth_blockNumber", json!([]))["result"])
}

fn duty(running: &Running) -> String {
    ask(running, "surety_status", json!([]))["result"]["duty"].as_str().unwrap().to_owned()
}

/// The greatest height among those that run.
fn tip(running: &[Option<Running>]) -> u64 {
    running.iter().flatten().map(height).max().unwrap()
}

/// Takes part again: as high as the others, and voting.
fn is_live(running: &[Option<Running>], index: usize) -> bool {
    let one = running[index].as_ref().unwrap();
    height(one) + 3 >= tip(running) && duty(one) == "voting"
}

/// Loses everything but the key, what it voted in, and which chain it is for.
fn wipe(seat: &Seat) {
    let folder = seat.dir.join("validator");
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("genesis.json") {
            continue;
        }
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

/// Checks at every participant that runs: all balances together are what the genesis named, proved against its tip; at
/// equal heights stand equal blocks.
fn check_books(running: &[Option<Running>], followers: &[&Running]) {
    let supply = U256::from(WEALTH) * U256::from(PAYERS) + U256::from(STAKE) * U256::from(COUNT);
    let all: Vec<&Running> = running.iter().flatten().chain(followers.iter().copied()).collect();
    for one in &all {
        let (header, states) = proven(one);
        let balances = states.into_iter().map(|state| state.balance);
        let together = balances.fold(U256::ZERO, |sum, balance| sum + balance);
        assert_eq!(together, supply, "all balances at {} after block {}", one.rpc, header.number);
    }
    let common = all.iter().map(|one| height(one)).min().unwrap();
    let hashes: BTreeSet<String> = all
        .iter()
        .map(|one| {
            let block = ask(one, "eth_getBlockByNumber", json!([format!("{common:#x}"), false]));
            block["result"]["hash"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(hashes.len(), 1, "the blocks at height {common}: {hashes:?}");
}

/// What is proven of everyone's accounts, and the header it is proven against.
fn proven(running: &Running) -> (surety_consensus::Header, Vec<AccountState>) {
    let proved = ask(running, "surety_proof", json!([{ "accounts": accounts() }]));
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let header = surety_consensus::Header::from_bytes(bytes(&proved["result"]["header"])).unwrap();
    let proofs = proved["result"]["proofs"].as_array().unwrap();
    let states = accounts().into_iter().zip(proofs).map(|(address, proof)| {
        let proof = surety_consensus::StateProof::from_bytes(bytes(&proof["proof"])).unwrap();
        let value = proof.verify(&header.state_root, &StateKey::account(&address)).unwrap();
        value.map_or_else(AccountState::default, |value| AccountState::decode(value).unwrap())
    });
    (header.clone(), states.collect())
}

/// A transaction of a payer, as bytes.
fn signed(running: &Running, chain_id: u64, from: u64, to: Address, value: U256, input: Vec<u8>) -> String {
    let signer = payer(from);
    let nonce = ask(running, "eth_getTransactionCount", json!([signer.address(), "pending"]));
    let transaction = TxEip1559 {
        chain_id,
        nonce: number(&nonce["result"]),
        gas_limit: 1_000_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(to),
        value,
        access_list: Default::default(),
        input: input.into(),
    };
    let signature = signer.sign_hash_sync(&transaction.signature_hash()).unwrap();
    hex::encode_prefixed(TxEnvelope::from(transaction.into_signed(signature)).encoded_2718())
}

/// Sends a transaction and waits until it is final; it must succeed.
#[track_caller]
fn send(running: &Running, raw: &str) -> Value {
    let sent = ask(running, "eth_sendRawTransaction", json!([raw]));
    let hash = sent["result"].as_str().unwrap_or_else(|| panic!("{sent}")).to_owned();
    let mut receipt = Value::Null;
    let done = || {
        receipt = ask(running, "eth_getTransactionReceipt", json!([hash]))["result"].clone();
        !receipt.is_null()
    };
    wait(done, "a transaction becomes final");
    assert_eq!(receipt["status"], json!("0x1"), "{receipt}");
    receipt
}

/// What a call of a module returns.
fn view<C: SolCall>(running: &Running, module: Module, call: &C) -> C::Return {
    let input = hex::encode_prefixed(call.abi_encode());
    let answer = ask(running, "eth_call", json!([{ "to": module.address(), "input": input }, "latest"]));
    let output = answer["result"].as_str().unwrap_or_else(|| panic!("{answer}"));
    C::abi_decode_returns(&hex::decode(output).unwrap()).unwrap()
}

/// Ends a validator in order.
fn stop(running: &mut Option<Running>) {
    let mut one = running.take().unwrap();
    let pid = rustix::process::Pid::from_raw(one.child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait(|| one.child.try_wait().unwrap().is_some(), "a validator stops when told to");
}

/// Pays back and forth through whoever answers, until dropped.
struct Payments {
    rpcs: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Payments {
    fn start(running: &[Option<Running>]) -> Self {
        let rpcs = Arc::new(Mutex::new(Vec::<String>::new()));
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (to, until, count) = (rpcs.clone(), stop.clone(), sent.clone());
        let thread = thread::spawn(move || {
            let mut round = 0_usize;
            while !until.load(Relaxed) {
                let known = to.lock().unwrap().clone();
                round += 1;
                if let Some(rpc) = known.get(round % known.len().max(1)) {
                    count.fetch_add(pay(rpc, round as u64), Relaxed);
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        let payments = Self { rpcs, stop, sent, thread: Some(thread) };
        payments.through(running);
        payments
    }

    fn through(&self, running: &[Option<Running>]) {
        *self.rpcs.lock().unwrap() = running.iter().flatten().map(|one| one.rpc.clone()).collect();
    }
}

impl Drop for Payments {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A transfer of every payer; returns how many were taken.
fn pay(rpc: &str, round: u64) -> u64 {
    let mut taken = 0;
    for from in 0..PAYERS {
        let signer = payer(from);
        let answer = try_ask(rpc, "eth_getTransactionCount", &json!([signer.address(), "pending"]));
        let Some(nonce) = answer.filter(|answer| answer["result"].is_string()) else { return taken };
        let transaction = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce: number(&nonce["result"]),
            gas_limit: 21_000,
            max_fee_per_gas: 2_000_000_000,
            max_priority_fee_per_gas: 1,
            to: TxKind::Call(payer((from + round) % PAYERS).address()),
            value: U256::from(round),
            access_list: Default::default(),
            input: Default::default(),
        };
        let signature = signer.sign_hash_sync(&transaction.signature_hash()).unwrap();
        let bytes = TxEnvelope::from(transaction.into_signed(signature)).encoded_2718();
        let raw = json!([hex::encode_prefixed(bytes)]);
        let sent = try_ask(rpc, "eth_sendRawTransaction", &raw);
        taken += u64::from(sent.is_some_and(|sent| sent["result"].is_string()));
    }
    taken
}

#[test]
fn four_processes_agree_and_those_that_are_killed_come_back() {
    let root = tempfile::tempdir().unwrap();
    let seats = seats(root.path());
    let mut running = start_all(&seats);
    let first = running[0].as_ref().unwrap();
    let status = run(&seats[0].dir, &["validator", "status", "--json", "--rpc-url", &first.rpc]);
    assert_status(&status, 0);
    assert_eq!(json(&status)["duty"], json!("voting"));
    let payments = Payments::start(&running);

    // One of four is killed: the others go on.
    running[3] = None;
    payments.through(&running);
    let before = tip(&running);
    let took = wait(|| tip(&running) >= before + 12, "three of four go on");
    println!("12 blocks after a kill: {took:?}");
    check_books(&running, &[]);

    // It comes back with its data, and votes.
    running[3] = Some(start(&seats, 3));
    let took = wait(|| is_live(&running, 3), "the one that was killed takes part again");
    println!("back with its data: {took:?}");
    check_books(&running, &[]);

    // It comes back without its data, takes the state over, and votes once an epoch has begun.
    running[3] = None;
    wipe(&seats[3]);
    running[3] = Some(start_with(&seats, 3, &["--state-sync"]));
    let took = wait(|| height(running[3].as_ref().unwrap()) + 3 >= tip(&running), "the one without data");
    println!("back without its data: {took:?}");
    let took = wait(|| is_live(&running, 3), "the one without data votes in the next epoch");
    println!("and voting after another {took:?}");
    check_books(&running, &[]);

    // Two of four are down: nothing becomes final. They come back: it does.
    (running[1], running[2]) = (None, None);
    payments.through(&running);
    let halted_at = tip(&running);
    thread::sleep(Duration::from_secs(3));
    assert!(tip(&running) <= halted_at + 2, "two of four are no quorum; what was voted for may still arrive");
    for index in [1, 2] {
        running[index] = Some(start(&seats, index));
    }
    payments.through(&running);
    let took = wait(|| tip(&running) >= halted_at + 8, "the chain goes on once a quorum is back");
    println!("two of four back to the eighth block: {took:?}");
    wait(|| (0..COUNT).all(|index| is_live(&running, index)), "everybody takes part again");

    // One that only follows executes everything there was.
    let goal = tip(&running);
    let follower = start_with(&seats, COUNT, &["--follow"]);
    let took = wait(|| height(&follower) >= goal, "a follower catches up");
    println!("a follower executed {goal} blocks in {took:?}");
    assert_eq!(duty(&follower), "observing");
    assert!(payments.sent.load(Relaxed) > 0, "payments were taken all along");
    drop(payments);
    check_books(&running, &[&follower]);
}

/// A sequence that a seed determines (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

fn told_number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_kills_cost_no_money_and_no_agreement() {
    let kills = told_number("SURETY_KILLS").unwrap_or(6);
    let seed = told_number("SURETY_KILLS_SEED").unwrap_or(1);
    println!("SURETY_KILLS_SEED={seed}");
    let mut dice = Dice(seed);
    let root = tempfile::tempdir().unwrap();
    let seats = seats(root.path());
    let mut running = start_all(&seats);
    let payments = Payments::start(&running);
    let (mut paces, mut kept, mut wiped) = (Vec::new(), Vec::new(), Vec::new());
    let mut killed = 0;
    while killed < kills {
        // Two without their data at once would leave no quorum that may vote in the epoch; that is no accident but a loss.
        let (victims, loses_data) = match dice.roll(3) {
            0 => (2, false),
            1 => (1, true),
            _ => (1, false),
        };
        thread::sleep(Duration::from_millis(dice.roll(1_500)));
        let first = dice.roll(COUNT as u64) as usize;
        let victims: Vec<usize> = (0..victims).map(|more| (first + more) % COUNT).collect();
        for victim in &victims {
            running[*victim] = None;
        }
        killed += victims.len() as u64;
        payments.through(&running);
        if victims.len() == 1 {
            let before = tip(&running);
            paces.push(wait(|| tip(&running) >= before + 4, "the others go on"));
        }
        check_books(&running, &[]);
        for victim in &victims {
            if loses_data {
                wipe(&seats[*victim]);
            }
            let more: &[&str] = if loses_data { &["--state-sync"] } else { &[] };
            running[*victim] = Some(start_with(&seats, *victim, more));
        }
        payments.through(&running);
        let caught_up = wait(
            || victims.iter().all(|victim| height(running[*victim].as_ref().unwrap()) + 3 >= tip(&running)),
            "who was killed catches up",
        );
        (if loses_data { &mut wiped } else { &mut kept }).push(caught_up);
        let before = tip(&running);
        wait(|| tip(&running) >= before + 2, "blocks go on");
        wait(|| (0..COUNT).all(|index| is_live(&running, index)), "everybody votes again");
        check_books(&running, &[]);
    }
    let shown = |what: &str, mut times: Vec<Duration>| {
        times.sort_unstable();
        if let (Some(median), Some(most)) = (times.get(times.len() / 2), times.last()) {
            println!("{what}: median {median:?}, at most {most:?}, of {}", times.len());
        }
    };
    println!(
        "{killed} were killed, {} payments taken, height {}",
        payments.sent.load(Relaxed),
        tip(&running)
    );
    shown("a kill to the fourth block after it", paces);
    shown("back with data", kept);
    shown("back without data", wiped);
}

#[test]
fn a_chain_goes_on_from_the_state_that_everyone_exports_alike() {
    const NEXT_ID: u64 = 77_777;
    let root = tempfile::tempdir().unwrap();
    let short = json!({ "jail_missed_min": 1_000_000, "unbonding_s": 40, "voting_s": 20 });
    let seats = seats_with(root.path(), short);
    let mut running = start_all(&seats);

    // Money moves, and stake is on its way out.
    let one = running[0].as_ref().unwrap();
    let to = payer(1).address();
    let old_transaction = signed(one, CHAIN_ID, 2, to, U256::from(5), Vec::new());
    send(one, &signed(one, CHAIN_ID, 0, to, U256::from(12_345), Vec::new()));
    let bond = IStaking::bondCall {}.abi_encode();
    send(one, &signed(one, CHAIN_ID, 0, Module::Staking.address(), U256::from(900), bond));
    let me = payer(0).address();
    let unbond = IStaking::unbondCall { operator: me, amount: U256::from(300) }.abi_encode();
    send(one, &signed(one, CHAIN_ID, 0, Module::Staking.address(), U256::ZERO, unbond));
    let leaving = IStaking::unbondingOfCall { operator: me, delegator: me };
    let entries = view(one, Module::Staking, &leaving);
    assert_eq!((entries.len(), entries[0].amount), (1, U256::from(300)));

    // Two stop: nothing becomes final any more, and the two that are left come to stand at one block.
    let busy = root.path().join("busy");
    let refused = run(&seats[0].dir, &["validator", "export", "--out", busy.to_str().unwrap()]);
    assert_status(&refused, 1);
    assert!(!busy.exists(), "a validator that runs is not exported");
    stop(&mut running[3]);
    stop(&mut running[2]);
    let export = |index: usize, attempt: usize| -> (PathBuf, Value) {
        let file = root.path().join(format!("export-{index}-{attempt}"));
        let told =
            run(&seats[index].dir, &["validator", "export", "--json", "--out", file.to_str().unwrap()]);
        assert_status(&told, 0);
        (file, json(&told))
    };
    let mut attempt = 0;
    let ((file, told), (file_of_other, told_by_other)) = loop {
        let same = || height(running[0].as_ref().unwrap()) == height(running[1].as_ref().unwrap());
        wait(same, "two that are connected come to the same height");
        stop(&mut running[0]);
        stop(&mut running[1]);
        let both = (export(0, attempt), export(1, attempt));
        if both.0.1["number"] == both.1.1["number"] {
            break both;
        }
        // One knew of a block that the other had not heard of yet.
        attempt += 1;
        (running[0], running[1]) = (Some(start(&seats, 0)), Some(start(&seats, 1)));
    };
    assert_eq!(told["digest"], told_by_other["digest"]);
    assert_eq!(told["chain_id"], json!(CHAIN_ID));
    let bytes = fs::read(&file).unwrap();
    assert_eq!(bytes, fs::read(&file_of_other).unwrap());

    // Everyone computes the same genesis, of that state only.
    let digest = told["digest"].as_str().unwrap();
    let regenesis = |export: &Path, out: &str, more: &[&str]| {
        let (export, out) = (export.to_str().unwrap(), root.path().join(out));
        let mut arguments =
            vec!["validator", "regenesis", "--json", "--export", export, "--out", out.to_str().unwrap()];
        arguments.extend(more);
        run(root.path(), &arguments)
    };
    let next_id = NEXT_ID.to_string();
    let made = regenesis(&file, "next.json", &["--chain-id", &next_id, "--digest", digest]);
    assert_status(&made, 0);
    let made = json(&made);
    assert_status(&regenesis(&file_of_other, "next-of-other.json", &["--chain-id", &next_id]), 0);
    let next = root.path().join("next.json");
    assert_eq!(fs::read(&next).unwrap(), fs::read(root.path().join("next-of-other.json")).unwrap());
    let first = made["first_block"].as_u64().unwrap();
    assert!(first > told["number"].as_u64().unwrap() && first.is_multiple_of(EPOCH_BLOCKS));
    let refusals: [(&[&str], &str); 4] = [
        (&["--chain-id", &CHAIN_ID.to_string()], "takes another chain id"),
        (
            &["--chain-id", &next_id, "--digest", &format!("0x{}", "7".repeat(64))],
            "hint: take the file whose digest",
        ),
        (&["--chain-id", &next_id, "--validator", &seats[4].key], "a key is no validator's"),
        (&["--chain-id", "0"], "0 is not in"),
    ];
    for (arguments, expected) in refusals {
        let refused = regenesis(&file, "never.json", arguments);
        assert_ne!(refused.status.code(), Some(0));
        assert_stderr(&refused, expected);
    }
    let damaged = root.path().join("damaged");
    let mut changed = bytes;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&damaged, changed).unwrap();
    let refused = regenesis(&damaged, "never.json", &["--chain-id", &next_id]);
    assert_status(&refused, 1);
    assert_stderr(&refused, "is no export");
    assert_stderr(&refused, "hint: copy the file again");
    assert!(!root.path().join("never.json").exists());

    // The same keys in new folders: the chain goes on.
    let ports = free_ports(COUNT);
    let mut heirs: Vec<Seat> = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let dir = root.path().join(format!("next-{index}"));
        fs::create_dir_all(dir.join("keys")).unwrap();
        for entry in fs::read_dir(seats[index].dir.join("keys")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.join("keys").join(entry.file_name())).unwrap();
        }
        let init = |more: &[&str]| {
            let mut arguments = vec!["validator", "init", "--json", "--genesis", next.to_str().unwrap()];
            arguments.extend(more);
            run(&dir, &arguments)
        };
        let refused = init(&[]);
        assert_status(&refused, 1);
        assert_stderr(&refused, "hint: name the export it was made of with --export FILE");
        let told = init(&["--export", file.to_str().unwrap()]);
        assert_status(&told, 0);
        let told = json(&told);
        assert_eq!(
            (&told["genesis"], &told["votes"], &told["chain_id"]),
            (&made["genesis"], &json!(true), &json!(NEXT_ID))
        );
        heirs.push(Seat { dir, key: seats[index].key.clone(), address: format!("127.0.0.1:{port}") });
    }
    // What everyone had when it stopped, from one of the old validators.
    let old = start(&seats, 0);
    wait(|| height(&old) == told["number"].as_u64().unwrap(), "the old state is there");
    let (old_header, old_accounts) = proven(&old);
    assert_eq!(json!(alloy_primitives::B256::from(old_header.state_root.0)), told["state_root"]);
    drop(old);

    let heirs_running = start_all_from(&heirs, first);
    let one = heirs_running[0].as_ref().unwrap();
    for heir in heirs_running.iter().flatten() {
        wait(|| duty(heir) == "voting", "who has caught up votes");
        let (header, accounts) = proven(heir);
        assert!(header.number > first && header.epoch() > old_header.epoch());
        assert_eq!(accounts, old_accounts, "what everyone has, proven before and after");
    }
    check_books(&heirs_running, &[]);
    assert_eq!(ask(one, "eth_chainId", json!([]))["result"], json!(format!("{NEXT_ID:#x}")));
    let replayed = ask(one, "eth_sendRawTransaction", json!([old_transaction]));
    assert!(replayed["error"]["message"].as_str().unwrap().contains("chain"), "{replayed}");
    // One who holds only the new genesis, and trusts no node, follows it.
    let looked =
        run(root.path(), &["status", "--json", "--genesis", next.to_str().unwrap(), "--rpc-url", &one.rpc]);
    assert_status(&looked, 0);
    let looked = json(&looked)["proven"].clone();
    assert_eq!(
        (&looked["chain_id"], looked["validators"].as_array().unwrap().len()),
        (&json!(NEXT_ID), COUNT)
    );

    // The stake that was leaving matures when it would have, and money moves on.
    let again = view(one, Module::Staking, &leaving);
    assert_eq!(again, entries);
    let time = || number(&ask(one, "eth_getBlockByNumber", json!(["latest", false]))["result"]["timestamp"]);
    wait(|| time() >= again[0].matureAt, "the unbonding matures");
    let withdraw = IStaking::withdrawCall { operator: me }.abi_encode();
    let receipt = send(one, &signed(one, NEXT_ID, 0, Module::Staking.address(), U256::ZERO, withdraw));
    let fee = U256::from(number(&receipt["gasUsed"])) * U256::from(number(&receipt["effectiveGasPrice"]));
    let (_, after) = proven(one);
    assert_eq!(after[0].balance, old_accounts[0].balance + U256::from(300) - fee);
    assert!(view(one, Module::Staking, &leaving).is_empty());
    let epoch = first / EPOCH_BLOCKS;
    wait(|| tip(&heirs_running) >= (epoch + 1) * EPOCH_BLOCKS + 2, "the next epoch begins");
    check_books(&heirs_running, &[]);
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
