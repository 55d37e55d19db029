//! Evidence of conflicting votes, turned into a transaction to staking.
//!
//! In:     evidence as `consensus` found it; an account to report it from.
//! Out:    transactions in the pool.
//! Holds:  evidence without an account to report it is not lost silently: it is logged, whole.

use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use alloy_sol_types::SolCall;
use surety_consensus::Evidence;
use surety_types::abi::{IStaking, address::STAKING};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{ledger::View, pool::Pool};

/// Gas of a report.
const GAS: u64 = 2_000_000;

/// Signs a digest: `r ‖ s ‖ v`.
pub type SignDigest = dyn Fn(&B256) -> [u8; 65] + Send + Sync;

/// The account that reports, and is paid the bounty for it. Whoever keeps its key signs.
#[derive(Clone)]
pub struct Reporter {
    /// Its address.
    pub address: Address,
    /// Signs with its key.
    pub sign: Arc<SignDigest>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Reporter").field(&self.address).finish()
    }
}

/// Reports what comes, from the reporter's account.
pub(crate) async fn report(
    mut evidence: mpsc::Receiver<Evidence>,
    reporter: Option<Reporter>,
    pool: Arc<Pool>,
    view: View,
) {
    while let Some(evidence) = evidence.recv().await {
        let input: Bytes = calldata(&evidence).into();
        let Some(reporter) = &reporter else {
            warn!(call = %input, to = %STAKING, "no account is set that could report it: send this call from any");
            continue;
        };
        match send(reporter, input.clone(), &pool, &view).await {
            Ok(hash) => info!(%hash, "conflicting votes were reported"),
            Err(error) => {
                warn!(%error, call = %input, to = %STAKING, "conflicting votes could not be reported")
            }
        }
    }
}

fn calldata(evidence: &Evidence) -> Vec<u8> {
    let (key, first, second) = evidence.for_staking();
    IStaking::reportEquivocationCall {
        key: key.into(),
        firstKind: first.kind as u8,
        firstMessage: first.message.into(),
        firstSignature: first.signature.into(),
        secondKind: second.kind as u8,
        secondMessage: second.message.into(),
        secondSignature: second.signature.into(),
    }
    .abi_encode()
}

async fn send(
    reporter: &Reporter,
    input: Bytes,
    pool: &Pool,
    view: &View,
) -> Result<B256, Box<dyn std::error::Error + Send + Sync>> {
    let (_, account) = view.account(reporter.address).await?;
    let terms = pool.terms();
    let fee = u128::from(terms.base_fee);
    let transaction = TxEip1559 {
        chain_id: terms.chain_id,
        nonce: pool.pending_nonce(&reporter.address, account.nonce),
        gas_limit: GAS,
        max_fee_per_gas: 2 * fee,
        max_priority_fee_per_gas: fee,
        to: TxKind::Call(STAKING),
        value: U256::ZERO,
        access_list: Default::default(),
        input,
    };
    let signature = Signature::from_raw_array(&(reporter.sign)(&transaction.signature_hash()))?;
    let envelope: TxEnvelope = transaction.into_signed(signature).into();
    Ok(pool.submit(envelope.encoded_2718().into(), view).await?.hash)
}
