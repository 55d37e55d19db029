//! A wallet on a ledger that nobody has to be trusted about.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, Log, U256};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use surety_chain::{CallRequest, Params};
use surety_types::{Digest, PublicKey, abi::Module};

use super::account::{Account, AccountError, ModuleCall, Moment, Noted, Wait};
use crate::ledger::{Landed, Ledger, LedgerError, TransactionCall, Wallet, records::ReceiptRecord};

/// A wallet's account on a ledger, for the money of a gateway or the duties of a worker. One process at a time uses it.
pub fn account_on(ledger: Ledger, wallet: Wallet) -> Arc<dyn Account> {
    Arc::new(OnLedger { ledger, wallet })
}

#[derive(Debug)]
struct OnLedger {
    ledger: Ledger,
    wallet: Wallet,
}

impl Account for OnLedger {
    fn chain_id(&self) -> u64 {
        self.ledger.chain_id()
    }

    fn address(&self) -> Address {
        self.wallet.address()
    }

    fn sign(&self, digest: &B256) -> [u8; 65] {
        self.wallet.sign_digest(digest)
    }

    fn moment(&self) -> Wait<'_, Moment> {
        Box::pin(async {
            let tip = self.ledger.tip().await.map_err(told)?;
            Ok(Moment { number: tip.number, timestamp_ms: tip.timestamp_ms, epoch: tip.epoch })
        })
    }

    fn balance(&self) -> Wait<'_, U256> {
        Box::pin(async {
            let account = self.ledger.account(self.address()).await.map_err(told)?;
            Ok(account.value.balance)
        })
    }

    fn params(&self) -> Wait<'_, Params> {
        Box::pin(async { Ok(self.ledger.params().await.map_err(told)?.value) })
    }

    fn view(&self, module: Module, input: Vec<u8>) -> Wait<'_, Vec<u8>> {
        Box::pin(async move {
            let to = Some(module.address());
            let request = CallRequest { to, input: input.into(), ..CallRequest::default() };
            let outcome = self.ledger.simulate(&request).await.map_err(told)?.value;
            if outcome.success {
                return Ok(outcome.output.into());
            }
            Err(refused(outcome.revert_reason()))
        })
    }

    fn logs(&self, module: Module, topics: Vec<B256>) -> Wait<'_, Vec<Log>> {
        Box::pin(async move {
            let logs = self.told_logs(module, topics).await?;
            Ok(logs.into_iter().map(|log| log.inner).collect())
        })
    }

    fn inputs(&self, module: Module, topics: Vec<B256>) -> Wait<'_, Vec<Vec<u8>>> {
        const INPUTS_MAX: usize = 64;
        Box::pin(async move {
            let logs = self.told_logs(module, topics).await?;
            let mut inputs = Vec::new();
            for hash in logs.iter().filter_map(|log| log.transaction_hash).take(INPUTS_MAX) {
                let found = self.ledger.unverified("eth_getTransactionByHash", json!([hash])).await;
                let found: Option<Called> = read("transaction", found.map_err(told)?)?;
                inputs.extend(found.map(|called| called.input.into()));
            }
            Ok(inputs)
        })
    }

    fn answer_record(
        &self,
        receipt: Option<Digest>,
        order: Digest,
        worker: PublicKey,
    ) -> Wait<'_, ReceiptRecord> {
        Box::pin(
            async move { self.ledger.answer_record(receipt.as_ref(), &order, &worker).await.map_err(told) },
        )
    }

    fn send_noted(&self, calls: Vec<ModuleCall>) -> Wait<'_, Vec<Noted>> {
        Box::pin(async move {
            let calls = calls.into_iter().map(|call| TransactionCall {
                to: call.module.address(),
                value: call.value,
                input: call.input.into(),
                gas: None,
            });
            let landed = self.ledger.submit(&self.wallet, calls.collect()).await.map_err(told)?;
            let noted = |landed: Landed| match landed.success {
                true => Ok(Noted { hash: landed.hash, logs: landed.logs, fee: landed.fee }),
                false => Err(refused(landed.revert_reason)),
            };
            landed.into_iter().map(noted).collect()
        })
    }
}

impl OnLedger {
    async fn told_logs(
        &self,
        module: Module,
        topics: Vec<B256>,
    ) -> Result<Vec<alloy_rpc_types_eth::Log>, AccountError> {
        let filter = json!([{ "address": module.address(), "topics": topics, "fromBlock": "earliest" }]);
        read("logs", self.ledger.unverified("eth_getLogs", filter).await.map_err(told)?)
    }
}

/// What is read of a transaction.
#[derive(Deserialize)]
struct Called {
    input: Bytes,
}

/// A node's words.
fn read<T: DeserializeOwned>(what: &str, words: Value) -> Result<T, AccountError> {
    serde_json::from_value(words).map_err(|error| AccountError {
        message: format!("a node's {what} cannot be read: {error}"),
        hint: "ask another node: --rpc-url".to_owned(),
        refused: false,
    })
}

fn refused(reason: Option<String>) -> AccountError {
    AccountError {
        message: format!("the ledger refuses: {}", reason.as_deref().unwrap_or("it gives no reason")),
        hint: "the ledger's words say what it asks for".to_owned(),
        refused: true,
    }
}

fn told(error: LedgerError) -> AccountError {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    let hint = error.hint().unwrap_or("the ledger's words say what it asks for").to_owned();
    let refused = matches!(error, LedgerError::Reverted { .. } | LedgerError::Invalid(_));
    AccountError { message, hint, refused }
}
