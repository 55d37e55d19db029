//! Ethereum's general state tests, through our executor.
//!
//! `SURETY_STATE_TESTS` names a folder with the JSON files of `GeneralStateTests` (ethereum/tests) or `state_tests`
//! (execution-spec-tests); without it the test is skipped and says so. Entries of our fork are preferred; where a file
//! has none, its latest older fork is run by that fork's rules. A mismatch that is expected is in `EXCEPTIONS`.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256, Bytes, Log, TxKind, U256, keccak256};
use alloy_rlp::Encodable as _;
use alloy_trie::{TrieAccount, root};
use revm::{
    context::{TransactTo, TxEnv},
    context_interface::{
        either::Either,
        transaction::{
            AccessList, AccessListItem, Authorization, RecoveredAuthority, RecoveredAuthorization,
            SignedAuthorization,
        },
    },
    primitives::hardfork::SpecId,
};
use serde_json::Value;
use surety_chain::{
    AccountState, MemoryState, Read, StateKey, StateReader, StateValue,
    machine::{Environment, FORK, execute_as_ethereum},
};

/// Files whose result may differ, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("RevertInCreateInInitCreate2Paris", STORAGE_WITHOUT_CODE),
    ("RevertInCreateInInit_Paris", STORAGE_WITHOUT_CODE),
    ("create2collisionStorageParis", STORAGE_WITHOUT_CODE),
    ("dynamicAccountOverwriteEmpty_Paris", STORAGE_WITHOUT_CODE),
    ("InitCollisionParis", STORAGE_WITHOUT_CODE),
];

/// EIP-7610. These begin with accounts that have storage and neither code nor nonce. No transaction of a chain that began
/// after EIP-161 leads there, and our genesis writes no such account; revm does not check for it either.
const STORAGE_WITHOUT_CODE: &str = "accounts with storage and neither code nor nonce";

/// The forks we can run, ours first.
const FORKS: &[(&str, SpecId)] = &[
    ("Prague", FORK),
    ("Cancun", SpecId::CANCUN),
    ("Shanghai", SpecId::SHANGHAI),
    ("Paris", SpecId::MERGE),
    ("Merge", SpecId::MERGE),
];

#[test]
fn general_state_tests_pass() {
    let Ok(folder) = std::env::var("SURETY_STATE_TESTS") else {
        eprintln!("SKIPPED: SURETY_STATE_TESTS names no folder of Ethereum's general state tests");
        return;
    };
    let mut files = Vec::new();
    collect(Path::new(&folder), &mut files);
    assert!(!files.is_empty(), "no JSON files under {folder}");
    files.sort();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let tally = std::sync::Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let found = run_file(file);
                    tally.lock().expect("no panic while locked").add(found);
                }
            });
        }
    });
    let tally = tally.into_inner().expect("no panic while locked");
    for (fork, (passed, failed)) in &tally.by_fork {
        eprintln!("{fork}: {passed} passed, {failed} failed");
    }
    for (file, reason) in EXCEPTIONS {
        eprintln!("exception {file}: {reason}");
    }
    eprintln!(
        "{} files, {} without a fork of ours, {} exceptions",
        files.len(),
        tally.skipped,
        tally.exceptions
    );
    for failure in tally.failures.iter().take(40) {
        eprintln!("FAILED {failure}");
    }
    assert!(tally.failures.is_empty(), "{} failures", tally.failures.len());
}

#[derive(Default)]
struct Tally {
    by_fork: BTreeMap<&'static str, (usize, usize)>,
    skipped: usize,
    exceptions: usize,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        for (fork, (passed, failed)) in other.by_fork {
            let sums = self.by_fork.entry(fork).or_default();
            sums.0 += passed;
            sums.1 += failed;
        }
        self.skipped += other.skipped;
        self.exceptions += other.exceptions;
        self.failures.extend(other.failures);
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
}

fn run_file(file: &Path) -> Tally {
    let mut tally = Tally::default();
    let text = std::fs::read_to_string(file).expect("a readable file");
    let tests: BTreeMap<String, Value> = match serde_json::from_str(&text) {
        Ok(tests) => tests,
        Err(error) => panic!("{}: {error}", file.display()),
    };
    let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    for (test, content) in &tests {
        let fork = FORKS.iter().find(|(fork, _)| content["post"].get(*fork).is_some());
        let Some((fork, spec)) = fork else {
            tally.skipped += 1;
            continue;
        };
        let entries = content["post"][*fork].as_array().expect("a list");
        for (index, entry) in entries.iter().enumerate() {
            let counts = tally.by_fork.entry(fork).or_default();
            match run_entry(content, entry, *spec) {
                Ok(()) => counts.0 += 1,
                Err(_) if EXCEPTIONS.iter().any(|(exception, _)| *exception == name) => tally.exceptions += 1,
                Err(reason) => {
                    counts.1 += 1;
                    tally.failures.push(format!("{} {test} {fork}[{index}]: {reason}", file.display()));
                }
            }
        }
    }
    tally
}

/// The accounts a test begins with.
struct Pre {
    state: MemoryState,
    accounts: BTreeMap<Address, AccountState>,
    slots: BTreeMap<(Address, U256), U256>,
}

/// Ethereum's tests know the hash of every earlier block: that of its number's decimal digits.
struct WithBlockHashes<'a> {
    state: &'a MemoryState,
    hashes: BTreeMap<StateKey, StateValue>,
}

impl StateReader for WithBlockHashes<'_> {
    fn read(&self, key: &StateKey) -> Read<'_> {
        match self.hashes.get(key) {
            Some(value) => Read::Known(Some(Cow::Borrowed(value.as_slice()))),
            None => self.state.read(key),
        }
    }
}

fn run_entry(test: &Value, entry: &Value, fork: SpecId) -> Result<(), String> {
    let env = &test["env"];
    let environment = Environment {
        fork,
        chain_id: test["config"].get("chainid").map_or(1, |id| number(id).saturating_to()),
        number: number(&env["currentNumber"]).saturating_to(),
        timestamp_s: number(&env["currentTimestamp"]).saturating_to(),
        beneficiary: address(&env["currentCoinbase"]),
        gas_limit: number(&env["currentGasLimit"]).saturating_to(),
        transaction_gas_max: u64::MAX,
        base_fee: env.get("currentBaseFee").map_or(10, |fee| number(fee).saturating_to()),
        excess_blob_gas: env.get("currentExcessBlobGas").map_or(0, |gas| number(gas).saturating_to()),
        beacon: env.get("currentRandom").map_or(B256::ZERO, |random| B256::from(number(random))),
        simulated: false,
    };
    let pre = pre(&test["pre"]);
    let mut hashes = BTreeMap::new();
    let last = environment.number;
    for earlier in last.saturating_sub(256)..last {
        let slot = U256::from(earlier % alloy_eips::eip2935::HISTORY_SERVE_WINDOW as u64);
        let key = StateKey::slot(&alloy_eips::eip2935::HISTORY_STORAGE_ADDRESS, &slot);
        hashes.insert(key, U256::from_be_bytes(keccak256(earlier.to_string()).0).to_be_bytes_trimmed_vec());
    }
    let reader = WithBlockHashes { state: &pre.state, hashes };
    let expects_refusal = entry.get("expectException").is_some_and(|exception| !exception.is_null());
    let outcome = match transaction(&test["transaction"], &entry["indexes"], environment.chain_id) {
        Some(transaction) => {
            execute_as_ethereum(&reader, &environment, transaction).map_err(|error| error.to_string())
        }
        None => Err("no transaction".to_owned()),
    };
    let (logs, changes) = match outcome {
        Ok(_) if expects_refusal => return Err("was not refused".to_owned()),
        Err(error) if !expects_refusal => return Err(format!("was refused: {error}")),
        Ok((result, changes)) => (result.into_logs(), changes),
        Err(_) => (Vec::new(), Default::default()),
    };
    let (mut accounts, mut slots) = (pre.accounts, pre.slots);
    for (address, account) in changes.accounts {
        match account {
            Some(account) => accounts.insert(address, account),
            None => accounts.remove(&address),
        };
    }
    slots.extend(changes.slots);
    let found = state_root(&accounts, &slots);
    let expected = B256::from(number(&entry["hash"]));
    if found != expected {
        return Err(format!("the state's root is {found}, not {expected}"));
    }
    let found = logs_hash(&logs);
    let expected = B256::from(number(&entry["logs"]));
    if found != expected {
        return Err(format!("the logs' hash is {found}, not {expected}"));
    }
    Ok(())
}

fn state_root(accounts: &BTreeMap<Address, AccountState>, slots: &BTreeMap<(Address, U256), U256>) -> B256 {
    let mut by_account: BTreeMap<Address, Vec<(B256, U256)>> = BTreeMap::new();
    for ((address, slot), value) in slots.iter().filter(|(_, value)| !value.is_zero()) {
        by_account.entry(*address).or_default().push((B256::from(*slot), *value));
    }
    root::state_root_unhashed(accounts.iter().map(|(address, account)| {
        let storage = by_account.remove(address).unwrap_or_default();
        let account = TrieAccount {
            nonce: account.nonce,
            balance: account.balance,
            storage_root: root::storage_root_unhashed(storage),
            code_hash: account.code_hash,
        };
        (*address, account)
    }))
}

fn logs_hash(logs: &[Log]) -> B256 {
    let mut bytes = Vec::new();
    logs.to_vec().encode(&mut bytes);
    keccak256(bytes)
}

fn number(value: &Value) -> U256 {
    let text = value.as_str().unwrap_or("0x0");
    let text = text.strip_prefix("0x:bigint ").unwrap_or(text);
    let digits = text.trim_start_matches("0x");
    if digits.is_empty() {
        return U256::ZERO;
    }
    U256::from_str_radix(digits, if text.starts_with("0x") { 16 } else { 10 }).unwrap_or(U256::MAX)
}

fn address(value: &Value) -> Address {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn bytes(value: &Value) -> Bytes {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn pre(value: &Value) -> Pre {
    let mut pre = Pre { state: MemoryState::default(), accounts: BTreeMap::new(), slots: BTreeMap::new() };
    let content = value.as_object().expect("accounts");
    for (name, account) in content {
        let owner = address(&Value::String(name.clone()));
        let code = bytes(&account["code"]);
        let state = AccountState {
            nonce: number(&account["nonce"]).saturating_to(),
            balance: number(&account["balance"]),
            code_hash: keccak256(&code),
        };
        pre.accounts.insert(owner, state);
        pre.state.0.insert(StateKey::account(&owner), state.encode());
        if !code.is_empty() {
            pre.state.0.insert(StateKey::code(&state.code_hash), code.to_vec());
        }
        for (slot, value) in account["storage"].as_object().expect("storage") {
            let (slot, value) = (number(&Value::String(slot.clone())), number(value));
            if !value.is_zero() {
                pre.slots.insert((owner, slot), value);
                pre.state.0.insert(StateKey::slot(&owner, &slot), value.to_be_bytes_trimmed_vec());
            }
        }
    }
    pre
}

/// The transaction that an entry picks; nothing if it cannot even be written down.
fn transaction(value: &Value, indexes: &Value, chain_id: u64) -> Option<TxEnv> {
    let index = |name: &str| indexes[name].as_u64().unwrap_or_default() as usize;
    let fits = |value: &Value| u64::try_from(number(value)).ok();
    let fits_128 = |value: &Value| u128::try_from(number(value)).ok();
    let caller = address(&value["sender"]);
    let to = value["to"].as_str().unwrap_or_default();
    let kind: TransactTo = if to.is_empty() { TxKind::Create } else { TxKind::Call(to.parse().ok()?) };
    let access_list =
        value.get("accessLists").and_then(|lists| lists.get(index("data"))).filter(|list| !list.is_null());
    let blobs = value.get("blobVersionedHashes").and_then(Value::as_array);
    let authorizations = value.get("authorizationList").and_then(Value::as_array);
    let max_fee = value.get("maxFeePerGas").filter(|fee| !fee.is_null());
    let tx_type = match () {
        () if authorizations.is_some() => 4,
        () if blobs.is_some() || value.get("maxFeePerBlobGas").is_some() => 3,
        () if max_fee.is_some() => 2,
        () if access_list.is_some() => 1,
        () => 0,
    };
    if tx_type == 3 && kind.is_create() {
        // EIP-4844: its encoding has no place for a missing recipient.
        return None;
    }
    let amount = number(&value["value"][index("value")]);
    let written = value["value"][index("value")].as_str().unwrap_or_default();
    if written.trim_start_matches("0x").trim_start_matches('0').len() > 64 || written.contains("bigint") {
        return None;
    }
    Some(TxEnv {
        tx_type,
        caller,
        gas_limit: fits(&value["gasLimit"][index("gas")])?,
        gas_price: fits_128(max_fee.unwrap_or(&value["gasPrice"]))?,
        kind,
        value: amount,
        data: bytes(&value["data"][index("data")]),
        nonce: fits(&value["nonce"])?,
        chain_id: Some(chain_id),
        access_list: access_list.map(list).unwrap_or_default(),
        gas_priority_fee: match max_fee {
            Some(_) => Some(fits_128(&value["maxPriorityFeePerGas"])?),
            None => None,
        },
        blob_hashes: blobs
            .map(|hashes| hashes.iter().map(|hash| B256::from(number(hash))).collect())
            .unwrap_or_default(),
        max_fee_per_blob_gas: value.get("maxFeePerBlobGas").map_or(Some(0), fits_128)?,
        authorization_list: authorizations
            .map(|list| list.iter().map(|one| Either::Right(authorization(one))).collect())
            .unwrap_or_default(),
    })
}

fn list(value: &Value) -> AccessList {
    let items = value.as_array().into_iter().flatten().map(|item| AccessListItem {
        address: address(&item["address"]),
        storage_keys: item["storageKeys"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|key| B256::from(number(key)))
            .collect(),
    });
    AccessList(items.collect())
}

fn authorization(value: &Value) -> RecoveredAuthorization {
    let inner = Authorization {
        chain_id: number(&value["chainId"]),
        address: address(&value["address"]),
        nonce: number(&value["nonce"]).saturating_to(),
    };
    let parity = value.get("yParity").or_else(|| value.get("v")).map_or(U256::ZERO, number);
    let signed = SignedAuthorization::new_unchecked(
        inner.clone(),
        parity.saturating_to(),
        number(&value["r"]),
        number(&value["s"]),
    );
    let authority = match signed.recover_authority() {
        Ok(authority) => RecoveredAuthority::Valid(authority),
        Err(_) => RecoveredAuthority::Invalid,
    };
    RecoveredAuthorization::new_unchecked(inner, authority)
}
