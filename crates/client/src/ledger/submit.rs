//! Transactions: sent, waited for, and found again in a proven block.
//!
//! In:     calls, and the wallet that makes them.
//! Out:    what came of each.
//! Touches: the network; the clock.
//! Holds:  nonces follow each other, one submission of a wallet at a time; every node is told; what came of a transaction
//!         is what the block's header commits to.
//! Absent: paying more to be faster, and giving up a nonce.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use alloy_consensus::{
    ReceiptEnvelope, Transaction as _, TxEip1559, TxEnvelope,
    proofs::{calculate_receipt_root, calculate_transaction_root},
};
use alloy_primitives::{Address, B256, Bytes, Log, TxKind, U256};
use alloy_rpc_types_eth::{Block, TransactionReceipt};
use serde_json::json;
use surety_chain::{AccountState, CallRequest, Estimate, Execution, Params, estimate_gas};
use surety_consensus::Header;
use tokio::time::sleep;

use super::{
    Inner, Ledger, SOON, SOON_ATTEMPTS, Viewed, Wallet,
    error::{Fault, LedgerError, Lie},
    failure,
    nodes::{Node, garbage},
};

/// Calls in one submission.
const CALLS_MAX: usize = 64;
/// Between two looks at whether they landed.
const LOOK: Duration = Duration::from_millis(200);
/// After which all nodes are told again.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// A call to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionCall {
    /// Whom to call.
    pub to: Address,
    /// In wei.
    pub value: U256,
    /// Calldata.
    pub input: Bytes,
    /// At most; none: what it would use now and a third more.
    pub gas: Option<u64>,
}

/// What came of a transaction.
///
/// That it is in the block, whether it succeeded, its gas and its logs are proven: they are what the block's header commits
/// to, and two thirds of the validators signed that. Its fee is gas times a price that only the node names; it is within what
/// the wallet offered. The reason is no part of any block: it is what the same call would be told now, on proven state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    /// Of the transaction.
    pub hash: B256,
    /// The block it is in.
    pub number: u64,
    /// Whether it did what it was to do.
    pub success: bool,
    /// If it did not: what the same call would be told now.
    pub revert_reason: Option<String>,
    /// What it used.
    pub gas_used: u64,
    /// What that cost, in wei.
    pub fee: U256,
    /// What it noted.
    pub logs: Vec<Log>,
}

/// A transaction on its way.
struct Sent {
    hash: B256,
    bytes: Bytes,
    call: CallRequest,
    max_fee: u128,
}

impl Ledger {
    /// Makes calls, one transaction each, in order, and waits until all are in final blocks.
    ///
    /// A call that would revert now is not sent, and nothing after it. One whose gas is given is sent as it is: give it where
    /// a call depends on those before it. A transaction that fails in its block is no error but a [`Landed`] without success.
    pub async fn submit(
        &self,
        wallet: &Wallet,
        calls: Vec<TransactionCall>,
    ) -> Result<Vec<Landed>, LedgerError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        if calls.len() > CALLS_MAX {
            return Err(LedgerError::Invalid(format!("at most {CALLS_MAX} calls are made at once")));
        }
        let turn = self.0.turn(wallet.address());
        let _turn = turn.lock().await;
        let sent = self.sign(wallet, calls).await?;
        let next = sent.1.saturating_add(sent.0.len() as u64);
        let sent = sent.0;
        self.0.tell(&sent).await?;
        self.landed(wallet.address(), &sent, next).await?;
        let mut landed = Vec::with_capacity(sent.len());
        let mut blocks = BTreeMap::new();
        for sent in &sent {
            let mut found = self.0.find(sent, &mut blocks).await?;
            if !found.success
                && let Ok(Viewed { value: outcome, .. }) = self.simulate(&sent.call).await
            {
                found.revert_reason = outcome.revert_reason().or(outcome.halt);
            }
            landed.push(found);
        }
        Ok(landed)
    }

    /// The calls as signed transactions, and the first one's nonce.
    async fn sign(
        &self,
        wallet: &Wallet,
        calls: Vec<TransactionCall>,
    ) -> Result<(Vec<Sent>, u64), LedgerError> {
        let from = wallet.address();
        let Viewed { value: (params, account), .. } = self.terms(from).await?;
        let (chain_id, max_fee) = (self.chain_id(), u128::from(params.minimum_gas_price) * 2);
        let mut sent = Vec::with_capacity(calls.len());
        for (nonce, call) in (account.nonce..).zip(calls) {
            let request = CallRequest {
                from,
                to: Some(call.to),
                gas: None,
                value: call.value,
                input: call.input,
                ..CallRequest::default()
            };
            let gas_limit = match call.gas {
                Some(gas) => gas,
                None => self.gas(&request).await?.min(params.transaction_gas_max),
            };
            let (hash, bytes) = wallet.sign_transaction(TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: max_fee,
                max_priority_fee_per_gas: 0,
                to: TxKind::Call(call.to),
                value: request.value,
                access_list: Default::default(),
                input: request.input.clone(),
            });
            sent.push(Sent { hash, bytes, call: request, max_fee });
        }
        Ok((sent, account.nonce))
    }

    /// What a transaction of this account must keep to.
    async fn terms(&self, from: Address) -> Result<Viewed<(Params, AccountState)>, LedgerError> {
        self.read(|state, _| {
            Ok(match (surety_chain::params(state)?, surety_chain::account(state, from)?) {
                (Execution::Done(params), Execution::Done(account)) => {
                    Execution::Done(Box::new((*params, account.unwrap_or_default())))
                }
                (params, account) => {
                    let mut keys = needs(params);
                    keys.extend(needs(account));
                    Execution::Needs(keys)
                }
            })
        })
        .await
    }

    /// What a call would use now, and a third more: the state may move on until it lands.
    async fn gas(&self, request: &CallRequest) -> Result<u64, LedgerError> {
        let estimated = self.read(|state, place| estimate_gas(self.spec(), state, place, request)).await?;
        match estimated.value {
            Estimate::Gas(gas) => Ok(gas.saturating_add(gas / 3)),
            Estimate::Fails(outcome) => Err(failure(outcome)),
        }
    }

    /// Waits until the account's proven nonce has passed every transaction.
    async fn landed(&self, from: Address, sent: &[Sent], next: u64) -> Result<(), LedgerError> {
        let (begun, timeout) = (Instant::now(), self.0.bounds.landing_timeout);
        let mut told = begun;
        loop {
            // That no node answers just now is no reason to forget what was sent.
            let account = self.account(from).await;
            if account.as_ref().is_ok_and(|account| account.value.nonce >= next) {
                return Ok(());
            }
            if begun.elapsed() >= timeout {
                let hashes = sent.iter().map(|sent| sent.hash).collect();
                return Err(account.err().unwrap_or(LedgerError::NotLanded { hashes, waited: timeout }));
            }
            if told.elapsed() >= TELL_AGAIN {
                told = Instant::now();
                // Most refuse it because they have it, or because it has landed.
                let _ = self.0.tell(sent).await;
            }
            sleep(LOOK).await;
        }
    }
}

/// The keys that an execution needs.
fn needs<T>(execution: Execution<T>) -> Vec<surety_chain::StateKey> {
    match execution {
        Execution::Needs(keys) => keys,
        Execution::Done(_) => Vec::new(),
    }
}

impl Inner {
    fn turn(&self, address: Address) -> Arc<tokio::sync::Mutex<()>> {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever waits for a turn holds it.
        sending.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(sending.entry(address).or_default())
    }

    /// Tells every node; one must take them all.
    async fn tell(&self, sent: &[Sent]) -> Result<(), LedgerError> {
        let mut round = self.nodes.round();
        let mut taken = false;
        while let Some(node) = round.next() {
            let mut refused = None;
            for sent in sent {
                let told = self.nodes.call::<B256>(node, "eth_sendRawTransaction", json!([sent.bytes])).await;
                match told {
                    Ok(hash) if hash == sent.hash => {}
                    Ok(_) => {
                        refused = Some(garbage("eth_sendRawTransaction", "the hash of another transaction"));
                        break;
                    }
                    Err(Fault::Refused { message, .. }) if message.contains("already known") => {}
                    Err(fault) => {
                        refused = Some(fault);
                        break;
                    }
                }
            }
            match refused {
                None => taken = true,
                // Its word against our transaction: it may well be right, and is no worse a node for it.
                Some(fault @ Fault::Refused { .. }) => round.refused(fault),
                Some(fault) => round.failed(fault),
            }
        }
        if taken { Ok(()) } else { Err(round.exhausted()) }
    }

    /// A transaction that has landed, in the block that commits to it.
    async fn find(
        &self,
        sent: &Sent,
        blocks: &mut BTreeMap<u64, Vec<Proven>>,
    ) -> Result<Landed, LedgerError> {
        if let Some(found) = blocks.iter().find_map(|(number, block)| sent.in_block(*number, block)) {
            return Ok(found);
        }
        let mut round = self.nodes.round();
        let (mut unknown, mut failed) = (false, false);
        while let Some(node) = round.next() {
            match self.find_at(node, sent).await {
                Ok(Some((number, block))) => {
                    if let Some(found) = sent.in_block(number, &block) {
                        round.answered();
                        blocks.insert(number, block);
                        return Ok(found);
                    }
                    failed = true;
                    round.failed(Lie::NotThere { hash: sent.hash, number }.into());
                }
                Ok(None) => {
                    unknown = true;
                    round.refused(garbage("eth_getTransactionReceipt", "it knows no such transaction"));
                }
                Err(fault) => {
                    failed = true;
                    round.failed(fault);
                }
            }
        }
        Err(if unknown && !failed { LedgerError::Replaced(sent.hash) } else { round.exhausted() })
    }

    /// The block that a node says a transaction is in, proven; none if the node knows no such transaction.
    async fn find_at(&self, node: &Node, sent: &Sent) -> Result<Option<(u64, Vec<Proven>)>, Fault> {
        const METHOD: &str = "eth_getTransactionReceipt";
        let mut attempts = 0;
        let receipt: TransactionReceipt = loop {
            attempts += 1;
            match self.nodes.call(node, METHOD, json!([sent.hash])).await? {
                Some(receipt) => break receipt,
                None if attempts < SOON_ATTEMPTS => sleep(SOON).await,
                None => return Ok(None),
            }
        };
        let number = receipt.block_number.ok_or_else(|| garbage(METHOD, "no block"))?;
        Ok(Some((number, self.block(node, number).await?)))
    }

    /// What a block did, as its header commits to it.
    pub(crate) async fn block(&self, node: &Node, number: u64) -> Result<Vec<Proven>, Fault> {
        Ok(self.whole_block(node, number).await?.1)
    }

    /// The same, with the header.
    pub(crate) async fn whole_block(&self, node: &Node, number: u64) -> Result<(Header, Vec<Proven>), Fault> {
        let header = self.final_header(node, number, None).await?;
        let contents = self.contents(node, &header).await?;
        Ok((header, contents))
    }

    /// What is in the block of a header: what it commits to.
    pub(crate) async fn contents(&self, node: &Node, header: &Header) -> Result<Vec<Proven>, Fault> {
        let number = header.number;
        let height = format!("{number:#x}");
        let block: Option<Block> =
            self.nodes.call(node, "eth_getBlockByNumber", json!([height, true])).await?;
        let block = block.ok_or_else(|| garbage("eth_getBlockByNumber", "no block"))?;
        let transactions: Vec<TxEnvelope> = block
            .transactions
            .into_transactions()
            .map(|transaction| transaction.inner.into_inner())
            .collect();
        if calculate_transaction_root(&transactions).0 != header.transactions_root {
            return Err(Lie::Transactions(number).into());
        }
        let receipts: Option<Vec<TransactionReceipt>> =
            self.nodes.call(node, "eth_getBlockReceipts", json!([height])).await?;
        let receipts = receipts.ok_or_else(|| garbage("eth_getBlockReceipts", "no receipts"))?;
        let prices: Vec<u128> = receipts.iter().map(|receipt| receipt.effective_gas_price).collect();
        let receipts: Vec<ReceiptEnvelope> =
            receipts.into_iter().map(|receipt| receipt.inner.into_primitives_receipt()).collect();
        if receipts.len() != transactions.len() || calculate_receipt_root(&receipts).0 != header.receipts_root
        {
            return Err(Lie::Receipts(number).into());
        }
        let mut before = 0;
        let proven =
            transactions.into_iter().zip(receipts).zip(prices).map(|((transaction, receipt), price)| {
                let gas_used = receipt.cumulative_gas_used().saturating_sub(before);
                before = receipt.cumulative_gas_used();
                let price = price.min(transaction.max_fee_per_gas());
                Proven { transaction, receipt, gas_used, price }
            });
        Ok(proven.collect())
    }
}

/// A transaction and its receipt, both committed to by a final header.
pub(crate) struct Proven {
    pub(crate) transaction: TxEnvelope,
    pub(crate) receipt: ReceiptEnvelope,
    pub(crate) gas_used: u64,
    /// What the node says a unit of gas cost; at most what was offered.
    pub(crate) price: u128,
}

impl Sent {
    fn in_block(&self, number: u64, block: &[Proven]) -> Option<Landed> {
        let proven = block.iter().find(|proven| *proven.transaction.tx_hash() == self.hash)?;
        debug_assert!(proven.price <= self.max_fee);
        Some(Landed {
            hash: self.hash,
            number,
            success: proven.receipt.status(),
            revert_reason: None,
            gas_used: proven.gas_used,
            fee: U256::from(proven.gas_used) * U256::from(proven.price),
            logs: proven.receipt.logs().to_vec(),
        })
    }
}
