//! A ledger in memory: the real state transition, a block for every transaction, and accounts that use it. For tests of
//! roles; they include this file.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use alloy_consensus::{Transaction as _, TxEip1559};
use alloy_primitives::{Address, B256, Log, TxKind, U256, keccak256};
use alloy_sol_types::{SolCall, SolEvent as _};
use surety_chain::{
    AccountState, Balance, BlockInput, CallRequest, ChainSpec, Execution, Genesis, GenesisValidator, Header,
    MemoryState, Params, Read, Recovered, SimulationOutcome, StateKey, StateReader as _, execute,
    genesis_writes, simulate, validator_set,
};
use surety_client::{
    Account, AccountError,
    channel::{ModuleCall, Moment, Noted, Wait},
    ledger::{Wallet, records::ReceiptRecord},
};
use surety_types::{
    Digest, PublicKey, SecretKey,
    abi::{IAudits, IClaims, IDisputes, IOperators, IReceipts, Module},
};

pub const CREDIT: u128 = 1_000_000_000_000_000_000;
const CHAIN_ID: u64 = 88_888;
const EPOCH_BLOCKS: u64 = 50;
const GAS_PRICE: u128 = 1_000_000_000;

/// The key of an account by number; accounts 1 to 9 own 1,000 credits each, and 0 operates the only validator.
pub fn wallet(number: u64) -> Wallet {
    Wallet::from_bytes(&keccak256(number.to_be_bytes()).0).expect("a key")
}

struct Chain {
    spec: ChainSpec,
    state: MemoryState,
    header: Header,
    /// What was noted, the oldest first.
    logs: Vec<Log>,
    /// The calldata under which each was.
    inputs: Vec<Vec<u8>>,
    /// While it cannot be reached.
    away: bool,
}

/// The ledger. Clones are the same one.
#[derive(Clone)]
pub struct MemoryLedger(Arc<Mutex<Chain>>);

impl MemoryLedger {
    pub fn new() -> Self {
        let genesis = Genesis {
            chain_id: CHAIN_ID,
            timestamp_ms: 1_700_000_000_000,
            epoch_blocks: EPOCH_BLOCKS,
            balances: (1..10)
                .map(|number| Balance {
                    address: wallet(number).address(),
                    amount: U256::from(1_000 * CREDIT),
                    why: "tests".into(),
                })
                .collect(),
            validators: vec![GenesisValidator {
                key: SecretKey::from_bytes(&[99; 32]).public(),
                operator: wallet(0).address(),
                stake: U256::from(10_000 * CREDIT),
            }],
            origin: None,
            params: Params::default(),
        };
        let writes = genesis_writes(&genesis).expect("a sound genesis");
        let header = Header {
            number: 0,
            timestamp_ms: genesis.timestamp_ms,
            epoch: 0,
            view: 0,
            parent_hash: B256::ZERO,
            beacon: B256::ZERO,
            proposer: 0,
            missed: Vec::new(),
        };
        let state = MemoryState(writes.into_iter().collect());
        MemoryLedger(Arc::new(Mutex::new(Chain {
            spec: genesis.spec(),
            state,
            header,
            logs: Vec::new(),
            inputs: Vec::new(),
            away: false,
        })))
    }

    /// An account on it.
    pub fn account(&self, number: u64) -> Arc<dyn Account> {
        Arc::new(MemoryAccount { ledger: self.clone(), wallet: wallet(number) })
    }

    /// Empty blocks until the next epoch has begun.
    pub fn next_epoch(&self) {
        let mut chain = self.0.lock().unwrap();
        let epoch = chain.spec.epoch(chain.header.number);
        while chain.spec.epoch(chain.header.number) == epoch {
            chain.block(&[]);
        }
    }

    /// Lets time pass.
    pub fn wait(&self, seconds: u64) {
        self.0.lock().unwrap().header.timestamp_ms += seconds * 1_000;
    }

    /// Nobody reaches it, or everybody again.
    pub fn set_away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }

    /// Its time, Unix seconds.
    pub fn now_s(&self) -> u64 {
        self.0.lock().unwrap().header.timestamp_ms / 1_000
    }

    pub fn epoch(&self) -> u64 {
        let chain = self.0.lock().unwrap();
        chain.spec.epoch(chain.header.number)
    }

    pub fn balance(&self, address: Address) -> U256 {
        self.0.lock().unwrap().account(address).balance
    }

    /// All that these and the channels' module have, and the proposer.
    pub fn together(&self) -> U256 {
        let accounts = (0..10).map(|number| wallet(number).address());
        accounts.chain(Module::ALL.map(Module::address)).map(|address| self.balance(address)).sum()
    }

    pub fn view<C: SolCall>(&self, module: Module, call: &C) -> C::Return {
        self.0.lock().unwrap().view(module, call)
    }
}

impl Chain {
    fn next_header(&self) -> Header {
        let number = self.header.number + 1;
        Header {
            number,
            timestamp_ms: self.header.timestamp_ms + 250,
            epoch: self.spec.epoch(number),
            view: number,
            parent_hash: keccak256(self.header.number.to_be_bytes()),
            beacon: keccak256(number.to_be_bytes()),
            proposer: 0,
            missed: Vec::new(),
        }
    }

    fn account(&self, address: Address) -> AccountState {
        match self.state.read(&StateKey::account(&address)) {
            Read::Known(Some(value)) => AccountState::decode(&value).expect("an account"),
            _ => AccountState::default(),
        }
    }

    fn block(&mut self, transactions: &[Recovered]) -> Vec<surety_chain::TxReceipt> {
        let header = self.next_header();
        let set = match validator_set(&self.state, header.epoch).expect("a sound state") {
            Execution::Done(set) => set.expect("a set"),
            Execution::Needs(keys) => panic!("a whole state lacks {keys:?}"),
        };
        assert_eq!(set.members.len(), 1);
        let input = BlockInput { header: &header, transactions };
        match execute(&self.spec, &self.state, &input).expect("a valid block") {
            Execution::Done(executed) => {
                self.state.apply(executed.writes.clone());
                self.header = header;
                for (receipt, transaction) in executed.receipts.iter().zip(transactions) {
                    let input = transaction.envelope().input().to_vec();
                    self.inputs.extend(receipt.envelope.logs().iter().map(|_| input.clone()));
                    self.logs.extend(receipt.envelope.logs().iter().cloned());
                }
                executed.receipts.clone()
            }
            Execution::Needs(keys) => panic!("a whole state lacks {keys:?}"),
        }
    }

    fn view<C: SolCall>(&self, module: Module, call: &C) -> C::Return {
        let outcome = self.simulate(module, call.abi_encode());
        assert!(outcome.success, "{:?}", outcome.revert_reason());
        C::abi_decode_returns(&outcome.output).expect("what the interface says")
    }

    fn simulate(&self, module: Module, input: Vec<u8>) -> SimulationOutcome {
        let call = CallRequest { to: Some(module.address()), input: input.into(), ..CallRequest::default() };
        match simulate(&self.spec, &self.state, &self.next_header(), &call).expect("a sound state") {
            Execution::Done(outcome) => *outcome,
            Execution::Needs(keys) => panic!("a whole state lacks {keys:?}"),
        }
    }
}

struct MemoryAccount {
    ledger: MemoryLedger,
    wallet: Wallet,
}

impl fmt::Debug for MemoryAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wallet.fmt(f)
    }
}

fn refused(message: String) -> AccountError {
    AccountError { message, hint: "see the ledger".to_owned(), refused: true }
}

impl MemoryAccount {
    fn with<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut Chain) -> Result<T, AccountError> + Send + 'a,
    ) -> Wait<'a, T> {
        Box::pin(async move {
            let mut chain = self.ledger.0.lock().unwrap();
            if chain.away {
                let message = "nobody answers".to_owned();
                return Err(AccountError { message, hint: "wait".to_owned(), refused: false });
            }
            work(&mut chain)
        })
    }
}

impl Account for MemoryAccount {
    fn chain_id(&self) -> u64 {
        CHAIN_ID
    }

    fn address(&self) -> Address {
        self.wallet.address()
    }

    fn sign(&self, digest: &B256) -> [u8; 65] {
        self.wallet.sign_digest(digest)
    }

    fn moment(&self) -> Wait<'_, Moment> {
        self.with(|chain| {
            let Header { number, timestamp_ms, .. } = chain.header;
            Ok(Moment { number, timestamp_ms, epoch: chain.spec.epoch(number) })
        })
    }

    fn balance(&self) -> Wait<'_, U256> {
        self.with(|chain| Ok(chain.account(self.address()).balance))
    }

    fn params(&self) -> Wait<'_, Params> {
        self.with(|chain| match surety_chain::params(&chain.state).expect("a sound state") {
            Execution::Done(params) => Ok(*params),
            Execution::Needs(keys) => panic!("a whole state lacks {keys:?}"),
        })
    }

    fn view(&self, module: Module, input: Vec<u8>) -> Wait<'_, Vec<u8>> {
        self.with(move |chain| {
            let outcome = chain.simulate(module, input);
            match outcome.success {
                true => Ok(outcome.output.to_vec()),
                false => Err(refused(format!("{:?}", outcome.revert_reason()))),
            }
        })
    }

    fn logs(&self, module: Module, topics: Vec<B256>) -> Wait<'_, Vec<Log>> {
        self.with(move |chain| {
            let wanted = |log: &&Log| log.address == module.address() && log.topics().starts_with(&topics);
            Ok(chain.logs.iter().filter(wanted).cloned().collect())
        })
    }

    fn inputs(&self, module: Module, topics: Vec<B256>) -> Wait<'_, Vec<Vec<u8>>> {
        self.with(move |chain| {
            let wanted = |log: &Log| log.address == module.address() && log.topics().starts_with(&topics);
            let found = chain.logs.iter().zip(&chain.inputs).filter(|(log, _)| wanted(log));
            Ok(found.map(|(_, input)| input.clone()).collect())
        })
    }

    fn answer_record(
        &self,
        receipt: Option<Digest>,
        order: Digest,
        worker: PublicKey,
    ) -> Wait<'_, ReceiptRecord> {
        self.with(move |chain| {
            let (order, key) = (B256::from(order.0), B256::from(worker.0));
            let receipt = receipt.map(|receipt| B256::from(receipt.0));
            let operator = chain.view(Module::Operators, &IOperators::workerCall { key }).operator;
            let posted = chain.view(Module::Receipts, &IReceipts::postedByCall { operator });
            let dispute = receipt.map(|receipt| {
                let id = chain.view(Module::Disputes, &IDisputes::disputeOfCall { receipt });
                (id, chain.view(Module::Disputes, &IDisputes::disputesCall { id }))
            });
            let claim = chain.view(Module::Claims, &IClaims::claimOfCall { order, worker: key });
            let mut disclosed = chain.logs.iter().filter_map(|log| IAudits::Disclosed::decode_log(log).ok());
            let audit = disclosed.find(|event| Some(event.receipt) == receipt).map(|event| event.id);
            Ok(ReceiptRecord {
                operator: Some(operator).filter(|operator| !operator.is_zero()),
                posted: (posted.count > 0).then_some((posted.lastEpoch, posted.count)),
                audit: audit.map(|id| (id, chain.view(Module::Audits, &IAudits::auditOfCall { id }))),
                dispute: dispute.filter(|(id, _)| *id != 0),
                claim: (claim != 0)
                    .then(|| (claim, chain.view(Module::Claims, &IClaims::claimsCall { id: claim }))),
            })
        })
    }

    fn send_noted(&self, calls: Vec<ModuleCall>) -> Wait<'_, Vec<Noted>> {
        self.with(move |chain| {
            let mut noted = Vec::new();
            for call in calls {
                let transaction = TxEip1559 {
                    chain_id: CHAIN_ID,
                    nonce: chain.account(self.address()).nonce,
                    gas_limit: 10_000_000,
                    max_fee_per_gas: GAS_PRICE,
                    max_priority_fee_per_gas: 0,
                    to: TxKind::Call(call.module.address()),
                    value: call.value,
                    access_list: Default::default(),
                    input: call.input.into(),
                };
                let (hash, bytes) = self.wallet.sign_transaction(transaction);
                let transaction = Recovered::decode(&bytes).expect("a transaction");
                let receipt = chain.block(&[transaction]).remove(0);
                if !receipt.envelope.status() {
                    return Err(refused(String::from_utf8_lossy(&receipt.output).into_owned()));
                }
                let fee = U256::from(receipt.gas_used) * U256::from(receipt.effective_gas_price);
                noted.push(Noted { hash, logs: receipt.envelope.logs().to_vec(), fee });
            }
            Ok(noted)
        })
    }
}
