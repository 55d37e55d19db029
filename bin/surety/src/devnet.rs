//! The local network's ledger: keys, accounts and a genesis, made once in a data directory.
//!
//! In:     how many validators there shall be.
//! Out:    what starts them: a data directory each, and the genesis they share.
//! Touches: `ledger/` in the data directory, and its keys.
//! Holds:  a genesis once made stays; it names every balance and why, as that of any other network does; the accounts'
//!         keys are in the keystore, so whoever runs the network can use them.
//! Absent: running it (`commands/up`).

use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{Address, U256};
use surety_chain::{Balance, Genesis, GenesisValidator, Params};

use crate::{
    commands::validator::{keep_genesis, make_key, read_genesis},
    data_dir::DataDir,
    keystore::{Identity, KeyKind, Keystore, KeystoreError},
    output::{hinted, io_failure},
};

/// What wallets call the network by. Other local networks have the same number; their keys differ.
const CHAIN_ID: u64 = 73_000;
/// Half a minute at the usual pace.
const EPOCH_BLOCKS: u64 = 120;
/// A credit, in wei.
const CREDIT: u64 = 1_000_000_000_000_000_000;
/// Credits that each validator has bonded.
const VALIDATOR_STAKE: u64 = 10_000;
/// Validators unless told otherwise: the fewest that survive the loss of one.
const VALIDATORS: usize = 4;
const VALIDATORS_MAX: usize = 16;
/// Workers that have an account.
pub const WORKERS_MAX: usize = 8;
/// The account of the gateway.
pub const GATEWAY_ACCOUNT: &str = "gateway-payer";
/// The account of whoever tries things out.
pub const OWN_ACCOUNT: &str = "purse";

/// A local ledger, ready to be run.
#[derive(Debug)]
pub struct Devnet {
    /// The file that its validators, workers and clients share.
    pub genesis: PathBuf,
    /// A data directory each.
    pub validators: Vec<DataDir>,
}

/// The account of a worker, by its number from one.
pub fn worker_account(number: usize) -> String {
    format!("worker-{number}-operator")
}

/// The ledger of this data directory, made now if there is none; `None` where there shall be none.
pub fn prepare(data_dir: &DataDir, validators: Option<usize>) -> anyhow::Result<Option<Devnet>> {
    if validators == Some(0) {
        return Ok(None);
    }
    let folder = data_dir.path().join("ledger");
    let genesis = folder.join("genesis.json");
    let count = if genesis.exists() {
        let count = read_genesis(&genesis)?.validators.len();
        if validators.is_some_and(|wanted| wanted != count) {
            return Err(hinted(
                format!("the ledger in {} was begun with {count} validators", folder.display()),
                format!("leave --validators away, or delete {} to begin another", folder.display()),
            ));
        }
        count
    } else {
        let count = validators.unwrap_or(VALIDATORS);
        if count > VALIDATORS_MAX {
            return Err(hinted(
                format!("{count} validators are more than one machine should run"),
                format!("choose at most {VALIDATORS_MAX}"),
            ));
        }
        count
    };
    let validators: Vec<DataDir> =
        (1..=count).map(|number| DataDir::at(&folder.join(format!("validator-{number}")))).collect();
    if !genesis.exists() {
        fs::create_dir_all(&folder).map_err(|source| io_failure("create", &folder, source))?;
        let made = begin(data_dir, &validators)?;
        let file = tempfile::NamedTempFile::new_in(&folder)?;
        serde_json::to_writer_pretty(&file, &made)?;
        file.as_file().sync_all()?;
        file.persist(&genesis)?;
    }
    let made = read_genesis(&genesis)?;
    for validator in &validators {
        keep_genesis(validator, &made)?;
    }
    Ok(Some(Devnet { genesis, validators }))
}

/// Makes every key, and the genesis that names them.
fn begin(data_dir: &DataDir, validators: &[DataDir]) -> anyhow::Result<Genesis> {
    let keystore = Keystore::new(data_dir.keys());
    let mut balances = Vec::new();
    let mut fund = |name: &str, credits: u64, why: String| -> anyhow::Result<Address> {
        let address = account(&keystore, name)?;
        balances.push(Balance { address, amount: credits_of(credits), why });
        Ok(address)
    };
    let mut members = Vec::new();
    for (index, validator) in validators.iter().enumerate() {
        let number = index + 1;
        let key = make_key(validator, "validator")?;
        let name = format!("validator-{number}-operator");
        let operator = fund(&name, 100, format!("local network: fees of validator {number}'s operator"))?;
        members.push(GenesisValidator { key, operator, stake: credits_of(VALIDATOR_STAKE) });
    }
    for number in 1..=WORKERS_MAX {
        let why = format!("local network: bond and fees of worker {number}'s operator");
        fund(&worker_account(number), 1_000, why)?;
    }
    fund(GATEWAY_ACCOUNT, 100_000, "local network: what the gateway pays workers with".into())?;
    fund(OWN_ACCOUNT, 1_000_000, "local network: for whoever tries it".into())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Genesis {
        chain_id: CHAIN_ID,
        timestamp_ms: now.as_millis() as u64,
        epoch_blocks: EPOCH_BLOCKS,
        balances,
        validators: members,
        origin: None,
        params: params(),
    })
}

/// The usual parameters, with delays short enough to see a proposal through in a quarter of an hour, and long enough for
/// disputes, whose moves have a thirty-second of the unbonding each.
fn params() -> Params {
    Params {
        voting_s: 60,
        unbonding_s: 960,
        timelock_s: 1_000,
        timelock_floor_s: 60,
        channel_delay_min_s: 30,
        channel_delay_max_s: 90,
        upgrade_lead_blocks: 120,
        jail_s: 60,
        ..Params::default()
    }
}

/// Whether a genesis is that of a local network, whose money is worth nothing: its number, and why every balance is there.
pub fn is_local(genesis: &Genesis) -> bool {
    let local = |balance: &Balance| balance.why.starts_with("local network: ");
    genesis.chain_id == CHAIN_ID && genesis.origin.is_none() && genesis.balances.iter().all(local)
}

fn account(keystore: &Keystore, name: &str) -> anyhow::Result<Address> {
    keystore.create_if_none(name, KeyKind::Account)?;
    match keystore.entry(name)?.identity {
        Identity::Account(address) => Ok(address),
        Identity::Signing(_) => Err(KeystoreError::NotAccount(name.to_owned()).into()),
    }
}

fn credits_of(credits: u64) -> U256 {
    U256::from(credits) * U256::from(CREDIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_begun_once_and_names_every_balance() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::at(folder.path());
        assert!(prepare(&data_dir, Some(0)).unwrap().is_none());
        assert!(!folder.path().join("ledger").exists());
        let devnet = prepare(&data_dir, None).unwrap().unwrap();
        assert_eq!(devnet.validators.len(), VALIDATORS);
        let genesis = read_genesis(&devnet.genesis).unwrap();
        genesis.digest().unwrap();
        assert!(is_local(&genesis));
        assert!(!is_local(&Genesis { chain_id: 1, ..genesis.clone() }));
        let mut other = genesis.clone();
        other.balances[0].why = "sold to the public".to_owned();
        assert!(!is_local(&other));
        let again = prepare(&data_dir, Some(VALIDATORS)).unwrap().unwrap();
        assert_eq!(read_genesis(&again.genesis).unwrap(), genesis);
        let other = prepare(&data_dir, Some(7)).unwrap_err();
        assert!(other.to_string().contains("was begun with 4"), "{other}");
        let keystore = Keystore::new(data_dir.keys());
        for name in [&worker_account(1), GATEWAY_ACCOUNT, OWN_ACCOUNT] {
            let Identity::Account(address) = keystore.entry(name).unwrap().identity else { panic!("{name}") };
            assert!(genesis.balances.iter().any(|balance| balance.address == address), "{name}");
        }
    }
}
