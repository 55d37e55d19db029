//! A chain of one validator, real in everything: consensus, proofs, certificates, RPC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, U256};
use surety_chain::{Balance, Genesis, GenesisValidator, Params};
use surety_client::ledger::{Ledger, LedgerBounds, LedgerSettings, Wallet};
use surety_types::SecretKey;
use surety_validator::{
    FileVoteRecord, Validator, ValidatorSettings,
    indexes::IndexSettings,
    mempool::PoolLimits,
    rpc::{RpcLimits, RpcSettings},
};

pub const EPOCH_BLOCKS: u64 = 8;

/// An account with money.
pub fn wallet(number: u8) -> Wallet {
    Wallet::from_bytes(&[number + 1; 32]).unwrap()
}

pub fn credits(count: u64) -> U256 {
    U256::from(count) * U256::from(10).pow(U256::from(18))
}

fn validator_key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

/// A genesis whose one validator has the key of `seed`.
pub fn genesis(seed: u8) -> Genesis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let balances = (0..4).map(|number| Balance {
        address: wallet(number).address(),
        amount: credits(1_000_000),
        why: "for tests".to_owned(),
    });
    Genesis {
        chain_id: 4_711,
        timestamp_ms: u64::try_from(now.as_millis()).unwrap(),
        epoch_blocks: EPOCH_BLOCKS,
        balances: balances.collect(),
        validators: vec![GenesisValidator {
            key: validator_key(seed).public(),
            operator: Address::repeat_byte(0x99),
            stake: credits(10_000),
        }],
        origin: None,
        params: Params {
            pace_ms: 50,
            voting_s: 2,
            unbonding_s: 3,
            channel_delay_min_s: 1,
            channel_delay_max_s: 3,
            timelock_s: 4,
            timelock_floor_s: 2,
            ..Params::default()
        },
    }
}

/// The chain, running.
pub struct Node {
    pub genesis: Genesis,
    pub url: String,
    validator: Option<Validator>,
    _folder: tempfile::TempDir,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(genesis(9), 9).await
    }

    pub async fn start_with(genesis: Genesis, seed: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("votes");
        FileVoteRecord::begin(&record).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let settings = ValidatorSettings {
            data_dir: folder.path().join("data"),
            genesis: genesis.clone(),
            state: None,
            key: validator_key(seed),
            vote_record: Some(record),
            listen: any,
            peers: Vec::new(),
            state_sync: false,
            threads: 1,
            rpc: RpcSettings { listen: any, hosts: vec![], origins: vec![], limits: RpcLimits::default() },
            pool: PoolLimits::default(),
            indexes: IndexSettings::default(),
            calls_max: 4,
            reporter: None,
            release: surety_validator::Release::running(),
        };
        let validator = Validator::start(settings).await.unwrap();
        let url = format!("http://{}", validator.rpc_address());
        Self { genesis, url, validator: Some(validator), _folder: folder }
    }

    /// A ledger that asks these, and waits long: tests run beside builds.
    pub fn ledger(&self, urls: &[&str]) -> Ledger {
        self.bounded(urls, bounds())
    }

    pub fn bounded(&self, urls: &[&str], bounds: LedgerBounds) -> Ledger {
        let rpc_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Ledger::with_bounds(LedgerSettings { genesis: self.genesis.clone(), rpc_urls }, bounds).unwrap()
    }

    /// Waits until a block of this height is final.
    pub async fn reach(&self, number: u64) {
        let ledger = self.ledger(&[&self.url]);
        for _ in 0..1_200 {
            if ledger.tip().await.is_ok_and(|tip| tip.number >= number) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the chain did not reach block {number}");
    }

    pub async fn stop(mut self) {
        if let Some(validator) = self.validator.take() {
            validator.stop().await;
        }
    }
}

pub fn bounds() -> LedgerBounds {
    LedgerBounds {
        request_timeout: Duration::from_secs(30),
        age_max: None,
        landing_timeout: Duration::from_secs(120),
        ..LedgerBounds::default()
    }
}
