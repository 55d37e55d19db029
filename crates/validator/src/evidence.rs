//! Evidence of conflicting votes, turned into a transaction to staking.
//!
//! Holds:  evidence without an account to report it is not lost silently: it is logged, whole.

use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Bytes, TxKind, U256};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use surety_consensus::Evidence;
use surety_types::abi::{IStaking, address::STAKING};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{ledger::View, pool::Pool};

/// Gas of a report.
const GAS: u64 = 2_000_000;

/// Reports what comes, from the reporter's account.
pub(crate) async fn report(
    mut evidence: mpsc::Receiver<Evidence>,
    reporter: Option<PrivateKeySigner>,
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
    reporter: &PrivateKeySigner,
    input: Bytes,
    pool: &Pool,
    view: &View,
) -> Result<alloy_primitives::B256, Box<dyn std::error::Error + Send + Sync>> {
    let (_, account) = view.account(reporter.address()).await?;
    let terms = pool.terms();
    let fee = u128::from(terms.base_fee);
    let transaction = TxEip1559 {
        chain_id: terms.chain_id,
        nonce: pool.pending_nonce(&reporter.address(), account.nonce),
        gas_limit: GAS,
        max_fee_per_gas: 2 * fee,
        max_priority_fee_per_gas: fee,
        to: TxKind::Call(STAKING),
        value: U256::ZERO,
        access_list: Default::default(),
        input,
    };
    let signature = reporter.sign_hash_sync(&transaction.signature_hash())?;
    let envelope: TxEnvelope = transaction.into_signed(signature).into();
    Ok(pool.submit(envelope.encoded_2718().into(), view).await?.hash)
}
