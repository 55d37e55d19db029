//! Blocks: from a parent's state and a block's transactions to the state after it.
//!
//! In:     a reader of the parent's state, where the block stands, its transactions in order.
//! Out:    the writes, receipts and roots; or the keys that must be loaded first; or why the block is invalid.
//! Touches: nothing. The same input gives the same output on every machine, in whatever order keys were loaded.
//! Holds:  all balances together are the same after a block as before: fees and whatever transactions destroyed go to
//!         the block's proposer. One invalid transaction makes a block invalid.
//! Absent: the parent's hash, the time, the proposer's signature: `consensus` checks them.

use std::{cell::RefCell, rc::Rc};

use alloy_consensus::{
    Eip658Value, Receipt, ReceiptEnvelope, ReceiptWithBloom, Transaction as _, TxEnvelope, TxReceipt as _,
    proofs::{calculate_receipt_root, ordered_trie_root_with_encoder},
};
use alloy_primitives::{Address, B256, Bloom, Bytes, Log, TxKind, U256, keccak256};
use revm::context::result::{ExecutionResult, InvalidTransaction, Output};
use surety_types::abi::Module;

use crate::{
    host::{Host, Own, Surroundings},
    ledger::{HISTORY_BLOCKS, HISTORY_STORAGE_ADDRESS, Ledger},
    machine::{Environment, FORK, Machine},
    modules::{CODE, beacon, channels, governance, params, staking},
    params::{PARAMETERS, Params},
    spec::{BLOCK_TRANSACTIONS_BYTES_MAX, ChainSpec, MISSED_MAX},
    state::{CorruptValue, Read, StateKey, StateReader, StateValue},
    transaction::{AdmissionError, Recovered, check_admission},
    validators::{UpgradePlan, ValidatorSet},
};

/// Where a block stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// From one on; block 0 is the genesis.
    pub number: u64,
    /// Milliseconds since 1970. Consensus sees to it that it is later than the parent's.
    pub timestamp_ms: u64,
    /// [`ChainSpec::epoch`] of the number.
    pub epoch: u64,
    /// The view it was proposed in.
    pub view: u64,
    /// The parent's hash.
    pub parent_hash: B256,
    /// What contracts see as `PREVRANDAO`.
    pub beacon: B256,
    /// Who proposed it: an index into the epoch's validator set.
    pub proposer: usize,
    /// Leaders of the views skipped since the parent, each as often as it was skipped; at most [`MISSED_MAX`].
    pub missed: Vec<usize>,
}

/// A block to execute.
#[derive(Debug, Clone, Copy)]
pub struct BlockInput<'a> {
    /// Where it stands.
    pub header: &'a Header,
    /// In order.
    pub transactions: &'a [Recovered],
}

/// What came of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Execution<T> {
    /// These keys must be loaded first; then ask again. There may be more of them then.
    Needs(Vec<StateKey>),
    /// It is done.
    Done(Box<T>),
}

/// What a block does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// By increasing key, each key once. No value: the key is deleted.
    pub writes: Vec<(StateKey, Option<StateValue>)>,
    /// In the order of the transactions.
    pub receipts: Vec<TxReceipt>,
    /// By all transactions.
    pub gas_used: u64,
    /// Of all logs.
    pub logs_bloom: Bloom,
    /// As Ethereum's.
    pub transactions_root: B256,
    /// As Ethereum's.
    pub receipts_root: B256,
    /// Paid by all senders to the proposer, in wei.
    pub fees: U256,
    /// Who validates the next epoch, if this block ends one.
    pub next_validators: Option<ValidatorSet>,
    /// The upgrade that is scheduled for a later block, or the one that came last.
    pub upgrade: Option<UpgradePlan>,
}

/// The EVM's receipt of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxReceipt {
    /// Of the transaction.
    pub hash: B256,
    /// Who sent it.
    pub sender: Address,
    /// What the receipts root binds.
    pub envelope: ReceiptEnvelope<Log>,
    /// By this transaction.
    pub gas_used: u64,
    /// Paid for a unit of gas, in wei.
    pub effective_gas_price: u128,
    /// The contract it created.
    pub contract: Option<Address>,
    /// What it returned or reverted with; nothing binds it.
    pub output: Bytes,
}

/// Why a block is invalid. Its proposer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlock {
    /// Block 0 is the genesis.
    #[error("block 0 is the genesis")]
    Genesis,
    /// The number and the epoch disagree.
    #[error("block {number} belongs to epoch {expected}, not {found}")]
    Epoch {
        /// The block.
        number: u64,
        /// Where it belongs.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// The state knows no validators of the epoch, or the set is of another.
    #[error("the state holds no validators of epoch {0}")]
    NoValidators(u64),
    /// An index beyond the validator set.
    #[error("validator {index} is not in a set of {members}")]
    Validator {
        /// What the block names.
        index: usize,
        /// Members of the set.
        members: usize,
    },
    /// Too many missed turns.
    #[error("the block reports {0} missed turns; at most {MISSED_MAX} are allowed")]
    Missed(usize),
    /// Too many bytes.
    #[error("the block's transactions take {0} bytes; at most {BLOCK_TRANSACTIONS_BYTES_MAX} are allowed")]
    Bytes(usize),
    /// Too much gas.
    #[error("transaction {index} asks for more gas than is left in the block")]
    Gas {
        /// Of the transaction.
        index: usize,
    },
    /// Never valid.
    #[error("transaction {index} is inadmissible")]
    Inadmissible {
        /// Of the transaction.
        index: usize,
        /// Why.
        #[source]
        source: AdmissionError,
    },
    /// Not valid in this state.
    #[error("transaction {index} is invalid")]
    Transaction {
        /// Of the transaction.
        index: usize,
        /// Why.
        #[source]
        source: InvalidTransaction,
    },
}

/// Why a block could not be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecutionError {
    /// The proposer's fault.
    #[error("the block is invalid")]
    Invalid(#[from] InvalidBlock),
    /// Ours: the store is damaged, and nothing computed from it means anything. Stop.
    #[error("the stored state is damaged at key {}", alloy_primitives::hex::encode(key.0))]
    Corrupt {
        /// Where.
        key: StateKey,
        /// How.
        #[source]
        source: CorruptValue,
    },
}

/// Executes a block.
pub fn execute(
    spec: &ChainSpec,
    reader: &dyn StateReader,
    block: &BlockInput<'_>,
) -> Result<Execution<Executed>, ExecutionError> {
    let bytes = block.transactions.iter().map(|transaction| transaction.bytes().len()).sum();
    if bytes > BLOCK_TRANSACTIONS_BYTES_MAX {
        return Err(InvalidBlock::Bytes(bytes).into());
    }
    let mut open = match Open::new(spec, reader, block.header, block.transactions)? {
        Execution::Needs(keys) => return Ok(Execution::Needs(keys)),
        Execution::Done(open) => open,
    };
    for (index, transaction) in block.transactions.iter().enumerate() {
        if let Err(refused) = open.add(transaction) {
            // Among defaults that stand for missing values a refusal means nothing; go on and find out what else is needed.
            if open.machine.ledger().missing()?.is_empty() {
                return Err(match refused {
                    Skipped::Inadmissible(source) => InvalidBlock::Inadmissible { index, source },
                    Skipped::NoRoom => InvalidBlock::Gas { index },
                    Skipped::Invalid(source) => InvalidBlock::Transaction { index, source },
                }
                .into());
            }
        }
    }
    open.close(block.transactions.iter())
}

/// What a proposer's block holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Indexes of the candidates that are in the block, in order.
    pub chosen: Vec<usize>,
    /// Indexes of those that are not, and why.
    pub skipped: Vec<(usize, Skipped)>,
    /// What the block does: the same as [`execute`] says of the chosen.
    pub executed: Executed,
}

/// Why a candidate is not in a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// Never valid, or not before parameters change.
    #[error("inadmissible")]
    Inadmissible(#[source] AdmissionError),
    /// The block is full; a later one may have room.
    #[error("the block has no room for it")]
    NoRoom,
    /// Not valid in this state: a nonce that was used or is not next, too little money, ….
    #[error("invalid now")]
    Invalid(#[source] InvalidTransaction),
}

/// Builds a block out of candidates, in their order, leaving out what cannot be executed.
///
/// `bytes_max` bounds its transactions together, besides [`BLOCK_TRANSACTIONS_BYTES_MAX`].
pub fn build(
    spec: &ChainSpec,
    reader: &dyn StateReader,
    header: &Header,
    candidates: &[Recovered],
    bytes_max: usize,
) -> Result<Execution<Built>, ExecutionError> {
    let mut open = match Open::new(spec, reader, header, candidates)? {
        Execution::Needs(keys) => return Ok(Execution::Needs(keys)),
        Execution::Done(open) => open,
    };
    let mut bytes_left = bytes_max.min(BLOCK_TRANSACTIONS_BYTES_MAX);
    let (mut chosen, mut skipped) = (Vec::new(), Vec::new());
    for (index, transaction) in candidates.iter().enumerate() {
        let bytes = transaction.bytes().len();
        let added = if bytes > bytes_left { Err(Skipped::NoRoom) } else { open.add(transaction) };
        match added {
            Ok(()) => {
                bytes_left -= bytes;
                chosen.push(index);
            }
            Err(reason) => skipped.push((index, reason)),
        }
    }
    let transactions: Vec<&Recovered> = chosen.iter().map(|index| &candidates[*index]).collect();
    Ok(match open.close(transactions.into_iter())? {
        Execution::Needs(keys) => Execution::Needs(keys),
        Execution::Done(executed) => {
            Execution::Done(Box::new(Built { chosen, skipped, executed: *executed }))
        }
    })
}

/// A block while it is executed.
struct Open<'a> {
    spec: &'a ChainSpec,
    header: &'a Header,
    surroundings: Rc<Surroundings>,
    proposer: Address,
    machine: Machine<'a>,
    receipts: Vec<TxReceipt>,
    gas_used: u64,
    fees: U256,
    lost: U256,
}

impl<'a> Open<'a> {
    fn new(
        spec: &'a ChainSpec,
        reader: &'a dyn StateReader,
        header: &'a Header,
        transactions: &[Recovered],
    ) -> Result<Execution<Open<'a>>, ExecutionError> {
        let number = header.number;
        if number == 0 {
            return Err(InvalidBlock::Genesis.into());
        }
        let expected = spec.epoch(number);
        if header.epoch != expected {
            return Err(InvalidBlock::Epoch { number, expected, found: header.epoch }.into());
        }
        if header.missed.len() > MISSED_MAX {
            return Err(InvalidBlock::Missed(header.missed.len()).into());
        }
        let unknown: Vec<StateKey> = hints(spec, header, transactions)
            .into_iter()
            .filter(|key| reader.read(key) == Read::Unknown)
            .collect();
        if !unknown.is_empty() {
            return Ok(Execution::Needs(unknown));
        }

        let mut ledger = Ledger::new(reader);
        let mut surroundings = surroundings(spec, header, Params::default());
        let mut own = Own { surroundings: &surroundings, ledger: &mut ledger };
        let params = believed(params::load(&mut own));
        believed(beacon::keep(&mut own, header));
        let [_, _, set_epoch, members] =
            believed((&mut own as &mut dyn Host).load_quarters(staking::set_length_slot(header.epoch)));
        let [_, operator_slot, _] = staking::member_slots(header.epoch, header.proposer);
        let proposer = believed((&mut own as &mut dyn Host).load_address(operator_slot));
        ledger.account(proposer);
        let missing = ledger.missing()?;
        if !missing.is_empty() {
            return Ok(Execution::Needs(missing));
        }
        let members = usize::try_from(members).unwrap_or(usize::MAX);
        if set_epoch != header.epoch || members == 0 {
            return Err(InvalidBlock::NoValidators(header.epoch).into());
        }
        for index in header.missed.iter().copied().chain([header.proposer]) {
            if index >= members {
                return Err(InvalidBlock::Validator { index, members }.into());
            }
        }
        surroundings.params = params;
        surroundings.proposer = proposer;
        // EIP-2935.
        let slot = U256::from((number - 1) % HISTORY_BLOCKS);
        ledger.set_slot(HISTORY_STORAGE_ADDRESS, slot, header.parent_hash.into());

        let surroundings = Rc::new(surroundings);
        let environment = environment(spec, header, &surroundings.params, proposer, false);
        let machine = Machine::new(ledger, &environment, Rc::clone(&surroundings));
        Ok(Execution::Done(Box::new(Open {
            spec,
            header,
            surroundings,
            proposer,
            machine,
            receipts: Vec::new(),
            gas_used: 0,
            fees: U256::ZERO,
            lost: U256::ZERO,
        })))
    }

    /// Executes one more transaction, or refuses it and changes nothing.
    fn add(&mut self, transaction: &Recovered) -> Result<(), Skipped> {
        let params = &self.surroundings.params;
        check_admission(self.spec, params, transaction).map_err(Skipped::Inadmissible)?;
        let gas_left = params.block_gas_max.saturating_sub(self.gas_used);
        if transaction.gas_limit() > gas_left {
            return Err(Skipped::NoRoom);
        }
        let base_fee = params.minimum_gas_price;
        let result = self.machine.apply(transaction).map_err(Skipped::Invalid)?;
        self.lost = self.lost.saturating_add(self.machine.ledger().take_lost());
        let gas_used = result.tx_gas_used();
        let effective_gas_price = transaction.envelope().effective_gas_price(Some(base_fee));
        self.gas_used = self.gas_used.saturating_add(gas_used);
        self.fees =
            self.fees.saturating_add(U256::from(gas_used).saturating_mul(U256::from(effective_gas_price)));
        self.receipts.push(receipt(transaction, result, self.gas_used, effective_gas_price));
        Ok(())
    }

    /// Ends the block.
    fn close<'b>(
        self,
        transactions: impl ExactSizeIterator<Item = &'b Recovered>,
    ) -> Result<Execution<Executed>, ExecutionError> {
        let mut ledger = self.machine.into_ledger();
        ledger.give_back(self.proposer, self.lost);
        let mut own = Own { surroundings: &self.surroundings, ledger: &mut ledger };
        let epoch_ends = self.spec.is_epoch_last(self.header.number);
        let ended = staking::end_block(&mut own, self.header.proposer, &self.header.missed, epoch_ends);
        let upgrade = governance::upgrade(&mut own);
        let missing = ledger.missing()?;
        if !missing.is_empty() {
            return Ok(Execution::Needs(missing));
        }
        let next_validators = believed(ended);
        let upgrade = believed(upgrade);

        let transactions: Vec<&Recovered> = transactions.collect();
        let transactions_root = ordered_trie_root_with_encoder(&transactions, |transaction, out| {
            out.extend_from_slice(transaction.bytes())
        });
        let envelopes: Vec<&ReceiptEnvelope<Log>> =
            self.receipts.iter().map(|receipt| &receipt.envelope).collect();
        let receipts_root = calculate_receipt_root(&envelopes);
        let logs_bloom = envelopes.iter().fold(Bloom::ZERO, |bloom, envelope| bloom | *envelope.logs_bloom());
        Ok(Execution::Done(Box::new(Executed {
            writes: ledger.writes(),
            gas_used: self.gas_used,
            logs_bloom,
            transactions_root,
            receipts_root,
            fees: self.fees,
            next_validators,
            upgrade,
            receipts: self.receipts,
        })))
    }
}

/// The result of a rule that cannot refuse the chain itself: supply is bounded at genesis, so that nothing overflows.
pub(crate) fn believed<T>(outcome: crate::host::Outcome<T>) -> T {
    match outcome {
        Ok(value) => value,
        Err(stop) => panic!("a module refused the chain itself: {stop:?}"),
    }
}

pub(crate) fn surroundings(spec: &ChainSpec, header: &Header, params: Params) -> Surroundings {
    Surroundings {
        chain_id: spec.chain_id,
        number: header.number,
        timestamp_s: header.timestamp_ms / 1_000,
        epoch: header.epoch,
        params,
        proposer: Address::ZERO,
        vote_namespace: spec.vote_namespace(),
        signers: RefCell::default(),
    }
}

pub(crate) fn environment(
    spec: &ChainSpec,
    header: &Header,
    params: &Params,
    proposer: Address,
    simulated: bool,
) -> Environment {
    Environment {
        fork: FORK,
        chain_id: spec.chain_id,
        number: header.number,
        timestamp_s: header.timestamp_ms / 1_000,
        beneficiary: proposer,
        gas_limit: params.block_gas_max,
        transaction_gas_max: params.transaction_gas_max,
        base_fee: params.minimum_gas_price,
        excess_blob_gas: 0,
        beacon: header.beacon,
        simulated,
    }
}

/// Keys that a block certainly reads, by increasing key.
pub fn hints(spec: &ChainSpec, header: &Header, transactions: &[Recovered]) -> Vec<StateKey> {
    let mut slots: Vec<crate::host::Slot> = (0..PARAMETERS.len()).map(params::slot).collect();
    slots.push(staking::set_length_slot(header.epoch));
    slots.extend(staking::member_slots(header.epoch, header.proposer));
    slots.extend(staking::performance_slots(header));
    slots.extend(governance::upgrade_slots());
    slots.push(beacon::slot(header.epoch));
    let mut keys: Vec<StateKey> =
        Module::ALL.iter().map(|module| StateKey::account(&module.address())).collect();
    keys.push(StateKey::code(&keccak256(CODE)));
    keys.push(StateKey::slot(
        &HISTORY_STORAGE_ADDRESS,
        &U256::from(header.number.saturating_sub(1) % HISTORY_BLOCKS),
    ));
    for transaction in transactions {
        keys.push(StateKey::account(&transaction.sender()));
        if let TxKind::Call(to) = transaction.envelope().kind() {
            keys.push(StateKey::account(&to));
            if let Some(house) = channels::House::at(&to) {
                slots.extend(channels::slots_of(house, spec.chain_id, transaction.envelope().input()));
            }
        }
    }
    keys.extend(slots.iter().map(|slot| StateKey::slot(&slot.module, &slot.key)));
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn receipt(
    transaction: &Recovered,
    result: ExecutionResult,
    cumulative_gas_used: u64,
    effective_gas_price: u128,
) -> TxReceipt {
    let gas_used = result.tx_gas_used();
    let status = Eip658Value::Eip658(result.is_success());
    let contract = match &result {
        ExecutionResult::Success { output: Output::Create(_, address), .. } => *address,
        _ => None,
    };
    let output = result.output().cloned().unwrap_or_default();
    let receipt = Receipt { status, cumulative_gas_used, logs: result.into_logs() };
    let receipt: ReceiptWithBloom<Receipt<Log>> = receipt.into_with_bloom();
    let envelope = match transaction.envelope() {
        TxEnvelope::Legacy(_) => ReceiptEnvelope::Legacy(receipt),
        TxEnvelope::Eip2930(_) => ReceiptEnvelope::Eip2930(receipt),
        TxEnvelope::Eip1559(_) => ReceiptEnvelope::Eip1559(receipt),
        TxEnvelope::Eip4844(_) => ReceiptEnvelope::Eip4844(receipt),
        TxEnvelope::Eip7702(_) => ReceiptEnvelope::Eip7702(receipt),
    };
    TxReceipt {
        hash: transaction.hash(),
        sender: transaction.sender(),
        envelope,
        gas_used,
        effective_gas_price,
        contract,
        output,
    }
}
