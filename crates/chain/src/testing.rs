//! A chain in memory, for tests: accounts with known keys, blocks one after another, every conserved quantity checked.

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, Log, TxKind, U256, keccak256};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::{Revert, SolCall, SolError as _};
use surety_types::{
    Acceptance, Amount, Channel, ChannelDigests, Digest, FailureCode, FinishReason, ModelId, Order, Outcome,
    Price, PublicKey, Receipt, Sampling, SecretKey, Seed, Signable, Signed, Text,
    abi::{IChannels, IClaims, IDisputes, IOperators, IStaking, Module},
};

use crate::{
    AccountState, Balance, BlockInput, CallRequest, ChainSpec, Executed, Execution, ExecutionError, Exported,
    Genesis, GenesisValidator, Header, MemoryState, Origin, Params, ReadCache, Recovered, SimulationOutcome,
    StateKey, StateReader as _, TxReceipt, ValidatorSet, execute, genesis_writes, regenesis_writes, simulate,
    state::Read, validator_set,
};

pub(crate) const CHAIN_ID: u64 = 88_888;
pub(crate) const EPOCH_BLOCKS: u64 = 10;
pub(crate) const GAS_PRICE: u128 = 1_000_000_000;
pub(crate) const CREDIT: u128 = 1_000_000_000_000_000_000;

/// A credit's worth of wei, so many times.
pub(crate) fn credits(count: u64) -> U256 {
    U256::from(CREDIT) * U256::from(count)
}

/// An account by number.
pub(crate) fn signer(number: u64) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256(number.to_be_bytes())).expect("a key")
}

pub(crate) fn address(number: u64) -> Address {
    signer(number).address()
}

/// An account's signature of a digest, as contracts take it.
pub(crate) fn signed_by(number: u64, digest: &B256) -> Bytes {
    signer(number).sign_hash_sync(digest).expect("signs").as_bytes().to_vec().into()
}

/// An ed25519 key by number.
pub(crate) fn secret(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}

/// Validators are operated by accounts 0 to 3 under secrets 1 to 4; accounts 0 to 9 own 100,000 credits.
pub(crate) fn genesis() -> Genesis {
    Genesis {
        chain_id: CHAIN_ID,
        timestamp_ms: 1_700_000_000_000,
        epoch_blocks: EPOCH_BLOCKS,
        balances: (0..10)
            .map(|number| Balance { address: address(number), amount: credits(100_000), why: "tests".into() })
            .collect(),
        validators: (0..4)
            .map(|number| GenesisValidator {
                key: secret(number as u8 + 1).public(),
                operator: address(number),
                stake: credits(10_000),
            })
            .collect(),
        origin: None,
        params: Params::default(),
    }
}

pub(crate) struct Chain {
    pub(crate) spec: ChainSpec,
    pub(crate) genesis: Genesis,
    pub(crate) state: MemoryState,
    pub(crate) header: Header,
    /// Everyone whose balance is summed.
    pub(crate) accounts: Vec<Address>,
    /// Missed by the next block.
    pub(crate) missed: Vec<usize>,
    pub(crate) last: Option<Executed>,
    /// What was made in blocks of [`Chain::block`], the oldest first.
    pub(crate) made: Vec<Made>,
}

/// A transaction, where it stands, and what it noted.
pub(crate) struct Made {
    pub(crate) number: u64,
    pub(crate) timestamp_ms: u64,
    pub(crate) transaction: Recovered,
    pub(crate) logs: Vec<Log>,
}

impl Chain {
    pub(crate) fn new() -> Chain {
        Chain::from(genesis())
    }

    pub(crate) fn with(change: impl FnOnce(&mut Genesis)) -> Chain {
        let mut genesis = genesis();
        change(&mut genesis);
        Chain::from(genesis)
    }

    pub(crate) fn from(genesis: Genesis) -> Chain {
        let writes = genesis_writes(&genesis).expect("a sound genesis");
        let mut accounts: Vec<Address> = genesis.balances.iter().map(|balance| balance.address).collect();
        accounts.extend(genesis.validators.iter().map(|validator| validator.operator));
        accounts.extend(Module::ALL.map(Module::address));
        accounts.sort_unstable();
        accounts.dedup();
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
        Chain {
            spec: genesis.spec(),
            genesis,
            state: MemoryState(writes.into_iter().collect()),
            header,
            accounts,
            missed: Vec::new(),
            last: None,
            made: Vec::new(),
        }
    }

    /// The state after the last block, as an export tells it.
    pub(crate) fn exported(&self) -> Exported {
        let together = self.together();
        let origin = Origin {
            chain_id: self.spec.chain_id,
            genesis: self.genesis.digest().expect("a sound genesis"),
            number: self.header.number,
            epoch: self.spec.epoch(self.header.number),
            block_hash: keccak256(self.header.number.to_be_bytes()),
            state_root: B256::repeat_byte(3),
            export: B256::repeat_byte(4),
            supply: together,
        };
        let writes = self.state.0.iter().map(|(key, value)| (*key, value.clone())).collect();
        Exported {
            origin,
            epoch_blocks: self.spec.epoch_blocks,
            timestamp_ms: self.header.timestamp_ms,
            writes,
        }
    }

    /// The chain that goes on from an export.
    pub(crate) fn going_on(&self, exported: &Exported, genesis: Genesis) -> Chain {
        let writes = regenesis_writes(&genesis, exported).expect("the genesis is of the export");
        let header =
            Header { number: genesis.first_block(), epoch: genesis.first_epoch(), ..self.header.clone() };
        Chain {
            spec: genesis.spec(),
            genesis,
            state: MemoryState(writes.into_iter().collect()),
            header,
            accounts: self.accounts.clone(),
            missed: Vec::new(),
            last: None,
            made: Vec::new(),
        }
    }

    pub(crate) fn next_header(&self) -> Header {
        let number = self.header.number + 1;
        let epoch = self.spec.epoch(number);
        let members = self.validators(epoch).members.len();
        Header {
            number,
            timestamp_ms: self.header.timestamp_ms + 250,
            epoch,
            view: number,
            parent_hash: keccak256(self.header.number.to_be_bytes()),
            beacon: keccak256(number.to_be_bytes()),
            proposer: number as usize % members,
            missed: self.missed.iter().copied().filter(|index| *index < members).collect(),
        }
    }

    /// The validators of this epoch, or at an epoch's end of the next.
    pub(crate) fn validators(&self, epoch: u64) -> ValidatorSet {
        match validator_set(&self.state, epoch).expect("a sound state") {
            Execution::Done(set) => set.expect("the set is kept"),
            Execution::Needs(keys) => panic!("a whole state lacks {keys:?}"),
        }
    }

    /// Who is paid for the next block.
    pub(crate) fn next_proposer(&self) -> Address {
        let header = self.next_header();
        self.validators(header.epoch).members[header.proposer].operator
    }

    /// Executes a block of transactions; all of them must be valid.
    pub(crate) fn block(&mut self, transactions: &[Recovered]) -> Executed {
        let header = self.next_header();
        let executed = self.try_block(&header, transactions).expect("a valid block");
        let made = transactions.iter().zip(&executed.receipts).map(|(transaction, receipt)| Made {
            number: header.number,
            timestamp_ms: header.timestamp_ms,
            transaction: transaction.clone(),
            logs: receipt.envelope.logs().to_vec(),
        });
        self.made.extend(made);
        self.accept(header, executed.clone());
        executed
    }

    pub(crate) fn try_block(
        &self,
        header: &Header,
        transactions: &[Recovered],
    ) -> Result<Executed, ExecutionError> {
        match execute(&self.spec, &self.state, &BlockInput { header, transactions })? {
            Execution::Done(executed) => Ok(*executed),
            Execution::Needs(keys) => panic!("a whole state lacks {keys:?}"),
        }
    }

    pub(crate) fn accept(&mut self, header: Header, executed: Executed) {
        let before = self.together();
        self.state.apply(executed.writes.clone());
        assert_eq!(self.together(), before, "balances together changed in block {}", header.number);
        self.header = header;
        self.missed.clear();
        self.last = Some(executed);
    }

    /// Empty blocks until the next epoch has begun.
    pub(crate) fn next_epoch(&mut self) {
        let epoch = self.spec.epoch(self.header.number);
        while self.spec.epoch(self.header.number) == epoch {
            self.block(&[]);
        }
    }

    /// Lets time pass before the next block.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.header.timestamp_ms += seconds * 1_000;
    }

    pub(crate) fn account(&self, address: Address) -> AccountState {
        match self.state.read(&StateKey::account(&address)) {
            Read::Known(Some(value)) => AccountState::decode(&value).expect("an account"),
            _ => AccountState::default(),
        }
    }

    pub(crate) fn balance(&self, address: Address) -> U256 {
        self.account(address).balance
    }

    /// All balances of known accounts.
    pub(crate) fn together(&self) -> U256 {
        self.accounts
            .iter()
            .map(|address| self.balance(*address))
            .fold(U256::ZERO, |sum, amount| sum + amount)
    }

    pub(crate) fn transaction(
        &self,
        from: u64,
        nonce: u64,
        to: TxKind,
        value: U256,
        input: impl Into<Bytes>,
    ) -> Recovered {
        let transaction = TxEip1559 {
            chain_id: self.spec.chain_id,
            nonce,
            gas_limit: 10_000_000,
            max_fee_per_gas: GAS_PRICE,
            max_priority_fee_per_gas: 0,
            to,
            value,
            access_list: Default::default(),
            input: input.into(),
        };
        sign(from, transaction)
    }

    /// One transaction in a block of its own.
    pub(crate) fn send(&mut self, from: u64, to: Address, value: U256, input: impl Into<Bytes>) -> TxReceipt {
        let nonce = self.account(address(from)).nonce;
        let transaction = self.transaction(from, nonce, TxKind::Call(to), value, input);
        self.block(&[transaction]).receipts.remove(0)
    }

    /// Creates a contract; its account is summed from now on.
    pub(crate) fn deploy(&mut self, from: u64, code: impl Into<Bytes>) -> Address {
        let nonce = self.account(address(from)).nonce;
        let contract = address(from).create(nonce);
        self.accounts.push(contract);
        let transaction = self.transaction(from, nonce, TxKind::Create, U256::ZERO, code);
        let receipt = self.block(&[transaction]).receipts.remove(0);
        assert_eq!(receipt.contract, Some(contract));
        contract
    }

    /// A call of a module that must succeed.
    pub(crate) fn call<C: SolCall>(&mut self, from: u64, module: Module, value: U256, call: C) -> C::Return {
        match self.try_call(from, module, value, call) {
            Ok(returned) => returned,
            Err(reason) => panic!("refused: {reason}"),
        }
    }

    /// A call of a module, and the reason if it is refused.
    pub(crate) fn try_call<C: SolCall>(
        &mut self,
        from: u64,
        module: Module,
        value: U256,
        call: C,
    ) -> Result<C::Return, String> {
        let receipt = self.send(from, module.address(), value, call.abi_encode());
        if receipt.envelope.status() {
            return Ok(C::abi_decode_returns(&receipt.output).expect("what the interface says"));
        }
        match Revert::abi_decode(&receipt.output) {
            Ok(revert) => Err(revert.reason),
            Err(_) => Err(format!("{receipt:?}")),
        }
    }

    /// A call that nobody signs and nothing keeps.
    pub(crate) fn view<C: SolCall>(&self, module: Module, call: C) -> C::Return {
        let outcome = self.simulate(Address::ZERO, module.address(), U256::ZERO, call.abi_encode());
        assert!(outcome.success, "{outcome:?} {:?}", outcome.revert_reason());
        C::abi_decode_returns(&outcome.output).expect("what the interface says")
    }

    pub(crate) fn simulate(
        &self,
        from: Address,
        to: Address,
        value: U256,
        input: impl Into<Bytes>,
    ) -> SimulationOutcome {
        let call = CallRequest { from, to: Some(to), value, input: input.into(), ..CallRequest::default() };
        match simulate(&self.spec, &self.state, &self.next_header(), &call).expect("a sound state") {
            Execution::Done(outcome) => *outcome,
            Execution::Needs(keys) => panic!("a whole state lacks {keys:?}"),
        }
    }
}

/// Signs a transaction as an account.
pub(crate) fn sign(from: u64, transaction: TxEip1559) -> Recovered {
    let signature = signer(from).sign_hash_sync(&transaction.signature_hash()).expect("signs");
    let envelope = TxEnvelope::from(transaction.into_signed(signature));
    Recovered::decode(&envelope.encoded_2718()).expect("a transaction")
}

/// The proof that registers a validator's key.
pub(crate) fn validator_proof(operator: Address, secret: &SecretKey) -> (B256, Bytes) {
    let key: PublicKey = secret.public();
    let proof = secret.sign(&crate::validator_proof_message(CHAIN_ID, operator, &key));
    (key.0.into(), Bytes::copy_from_slice(&proof))
}

/// The proof that registers a worker's key.
pub(crate) fn worker_proof(operator: Address, secret: &SecretKey) -> (B256, Bytes) {
    let key: PublicKey = secret.public();
    let proof = secret.sign(&crate::worker_proof_message(CHAIN_ID, operator, &key));
    (key.0.into(), Bytes::copy_from_slice(&proof))
}

/// Executes a block with a cache that is filled as asked, in an order that `shuffle` decides.
pub(crate) fn execute_by_cache(
    chain: &Chain,
    header: &Header,
    transactions: &[Recovered],
    mut shuffle: impl FnMut(&mut Vec<StateKey>),
) -> (Result<Executed, ExecutionError>, usize) {
    let mut cache = ReadCache::default();
    for pass in 1.. {
        assert!(pass < 200, "the cache is never filled");
        match execute(&chain.spec, &cache, &BlockInput { header, transactions }) {
            Ok(Execution::Done(executed)) => return (Ok(*executed), pass),
            Err(error) => return (Err(error), pass),
            Ok(Execution::Needs(mut keys)) => {
                assert!(!keys.is_empty());
                shuffle(&mut keys);
                for key in keys {
                    let value = match chain.state.read(&key) {
                        Read::Known(value) => value.map(|value| value.into_owned()),
                        Read::Unknown => None,
                    };
                    cache.0.insert(key, value);
                }
            }
        }
    }
    unreachable!("passes are counted")
}

/// The operator of [`served`], its worker, and the payer's session key.
pub(crate) const OPERATOR: u64 = 5;
pub(crate) const PAYER: u64 = 6;

pub(crate) fn worker() -> SecretKey {
    secret(50)
}

pub(crate) fn session() -> SecretKey {
    secret(60)
}

/// A chain with an operator of 100 credits and a worker, and a channel to it of 10 credits.
pub(crate) fn served() -> Chain {
    let mut chain = Chain::new();
    serve(&mut chain);
    chain
}

/// Bonds, registers and opens a channel as in [`served`].
pub(crate) fn serve(chain: &mut Chain) {
    chain.call(OPERATOR, Module::Staking, credits(100), IStaking::bondCall {});
    let register = IOperators::registerCall { name: "Acme".into(), url: String::new() };
    chain.call(OPERATOR, Module::Operators, U256::ZERO, register);
    let (key, proof) = worker_proof(address(OPERATOR), &worker());
    let add = IOperators::addWorkerCall { key, endpoint: "quic://a".into(), proof };
    chain.call(OPERATOR, Module::Operators, U256::ZERO, add);
    let deposit = IChannels::depositCall {
        config: channel().config(),
        amount: 10 * CREDIT,
        collector: Address::ZERO,
        collectorData: Bytes::new(),
    };
    chain.call(PAYER, Module::Channels, credits(10), deposit);
}

pub(crate) fn channel() -> Channel {
    Channel {
        payer: address(PAYER),
        payer_authorizer: address(PAYER),
        receiver: address(OPERATOR),
        receiver_authorizer: address(OPERATOR),
        token: Address::ZERO,
        withdraw_delay_s: 3_600,
        salt: Digest([1; 32]),
    }
}

/// An order issued now and due in a minute, paid from the channel of [`served`].
pub(crate) fn order(chain: &Chain) -> Order {
    let id = channel().id(&ChannelDigests::new(chain.spec.chain_id));
    Order {
        version: surety_types::order::ORDER_VERSION,
        model: ModelId(Digest([7; 32])),
        request_digest: Digest([8; 32]),
        nonce: [9; 32],
        seed: Seed::Nonce,
        choice: 0,
        sampling: Sampling::default(),
        max_output_tokens: 1_000,
        ignore_end: false,
        deadline_ms: chain.header.timestamp_ms + 60_000,
        price_ceiling: Price {
            prompt: Amount(u128::MAX),
            cached: Amount(u128::MAX),
            output: Amount(u128::MAX),
        },
        channel: Some(id),
        payer: session().public(),
        issued_ms: chain.header.timestamp_ms,
        resumed: None,
        disclosure: None,
    }
}

/// A credit for a thousand tokens.
pub(crate) fn price() -> Price {
    let dear = Amount(1_000_000_000);
    Price { prompt: dear, cached: dear, output: dear }
}

pub(crate) fn acceptance(order: &Order) -> Acceptance {
    Acceptance {
        order: order.digest(),
        model: order.model,
        worker: worker().public(),
        deadline_ms: order.deadline_ms,
        price: price(),
        prompt_tokens: 1_000,
        accepted_ms: order.issued_ms + 10,
        max_output_tokens: order.max_output_tokens,
        region: None,
    }
}

/// A receipt for 1,000 tokens of prompt and three of output.
pub(crate) fn receipt(order: &Order) -> Receipt {
    Receipt {
        version: surety_types::receipt::RECEIPT_VERSION,
        outcome: Outcome::Completed,
        order: order.digest(),
        model: order.model,
        arithmetic: surety_types::receipt::ARITHMETIC_VERSION,
        prompt_tokens: 1_000,
        cached_tokens: 0,
        output_tokens: 3,
        prompt_digest: Digest([2; 32]),
        output_digest: Digest([3; 32]),
        text_digest: Digest([4; 32]),
        finish: FinishReason::Stop,
        seed: order.seed_bytes(),
        state_commitment: Digest([5; 32]),
        price: price(),
        charge: price().charge(1_000, 0, 3).expect("small"),
        accepted_ms: order.issued_ms + 10,
        first_token_ms: Some(order.issued_ms + 20),
        done_ms: order.issued_ms + 30,
        software: Text::clipped("test"),
        worker: worker().public(),
    }
}

pub(crate) fn failure(order: &Order) -> Receipt {
    let outcome = Outcome::Failed { code: FailureCode::Internal, message: Text::clipped("broken") };
    Receipt {
        outcome,
        finish: FinishReason::Failed,
        output_tokens: 0,
        first_token_ms: None,
        state_commitment: Digest::ZERO,
        charge: Amount::ZERO,
        ..receipt(order)
    }
}

pub(crate) fn signed<T: Signable + Clone>(value: &T, key: &SecretKey) -> Bytes {
    Signed::sign(value.clone(), key).bytes().to_vec().into()
}

/// What staking, disputes and claims have is what they owe.
pub(crate) fn owed_by_disputes(chain: &Chain) -> U256 {
    let count = chain.view(Module::Disputes, IDisputes::disputeCountCall {});
    let mut owed = U256::ZERO;
    for id in 1..=count {
        let dispute = chain.view(Module::Disputes, IDisputes::disputesCall { id });
        owed += dispute.owed + if dispute.state == 1 { dispute.bond } else { U256::ZERO };
    }
    owed
}

pub(crate) fn owed_by_claims(chain: &Chain) -> U256 {
    let count = chain.view(Module::Claims, IClaims::claimCountCall {});
    let claims = (1..=count).map(|id| chain.view(Module::Claims, IClaims::claimsCall { id }));
    claims.filter(|claim| claim.state == 1).fold(U256::ZERO, |sum, claim| sum + claim.bond)
}
