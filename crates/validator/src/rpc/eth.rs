//! `eth_*`: what wallets, libraries and tools ask of any Ethereum node.

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::{
    FeeHistory, Filter, Log, SyncInfo, SyncStatus, Transaction, TransactionReceipt, TransactionRequest,
};
use jsonrpsee::{
    RpcModule,
    core::RegisterMethodError,
    types::{ErrorObjectOwned, Params},
};
use serde_json::Value;
use surety_chain::SimulationOutcome;

use super::{
    Services,
    error::{Answer, answer, invalid_input, invalid_params, limit, reverted, told},
    params::{self, Arguments, Quantity},
    shapes,
};
use crate::{
    indexes::{IndexedHeader, IndexedReceipt, IndexedTransaction, Place, Snapshot},
    ledger::Duty,
};

/// Blocks in one answer about fees.
const FEE_BLOCKS_MAX: u64 = 1_024;
/// Blocks in one answer about fees that looks at every transaction.
const REWARD_BLOCKS_MAX: u64 = 64;
const PERCENTILES_MAX: usize = 100;

/// Adds the methods.
pub(super) fn register(module: &mut RpcModule<Services>) -> Result<(), RegisterMethodError> {
    // What needs no reading.
    module
        .register_method("eth_chainId", |_, services, _| answer(U64::from(services.view.spec().chain_id)))?;
    module.register_method("net_version", |_, services, _| services.view.spec().chain_id.to_string())?;
    module.register_method("net_listening", |_, _, _| true)?;
    module.register_method("net_peerCount", |_, services, _| {
        answer(U64::from(services.view.ledger().status().peers))
    })?;
    module.register_method("web3_clientVersion", |_, _, _| crate::SOFTWARE)?;
    module.register_method("web3_sha3", |params, _, _| {
        let bytes: Bytes = Arguments::of(&params).needed("the data")?;
        Ok::<B256, ErrorObjectOwned>(alloy_primitives::keccak256(bytes))
    })?;
    module.register_method("eth_accounts", |_, _, _| Vec::<Address>::new())?;
    module.register_method("eth_blockNumber", |_, services, _| {
        answer(U64::from(services.indexes.tip().unwrap_or(0)))
    })?;
    module.register_method("eth_gasPrice", |_, services, _| {
        answer(U256::from(services.pool.terms().base_fee))
    })?;
    // The least price is fixed: a tip is for those in a hurry.
    module.register_method("eth_maxPriorityFeePerGas", |_, _, _| answer(U256::ZERO))?;
    module.register_method("eth_syncing", |_, services, _| answer(syncing(services)))?;
    module.register_method("txpool_status", |_, services, _| {
        let size = services.pool.size();
        serde_json::json!({ "pending": U64::from(size.executable), "queued": U64::from(size.queued) })
    })?;

    // What is read from the indexes.
    module.register_async_method("eth_getBlockByNumber", |params, services, _| async move {
        let (block, whole) = block_and_detail(&params, |tag: BlockNumberOrTag| tag.into())?;
        services.reading(move |snapshot| get_block(snapshot, block, whole)).await
    })?;
    module.register_async_method("eth_getBlockByHash", |params, services, _| async move {
        let (block, whole) = block_and_detail(&params, |hash: B256| hash.into())?;
        services.reading(move |snapshot| get_block(snapshot, block, whole)).await
    })?;
    module.register_async_method(
        "eth_getBlockTransactionCountByNumber",
        |params, services, _| async move {
            let tag: BlockNumberOrTag = Arguments::of(&params).needed("the block")?;
            services.reading(move |snapshot| transaction_count(snapshot, tag.into())).await
        },
    )?;
    module.register_async_method("eth_getBlockTransactionCountByHash", |params, services, _| async move {
        let hash = params::hash(&mut Arguments::of(&params))?;
        services.reading(move |snapshot| transaction_count(snapshot, hash.into())).await
    })?;
    for (name, is_hash) in
        [("eth_getTransactionByBlockHashAndIndex", true), ("eth_getTransactionByBlockNumberAndIndex", false)]
    {
        module.register_async_method(name, move |params, services, _| async move {
            let mut arguments = Arguments::of(&params);
            let block: BlockId = if is_hash {
                params::hash(&mut arguments)?.into()
            } else {
                arguments.needed::<BlockNumberOrTag>("the block")?.into()
            };
            let Quantity(index) = arguments.needed("the index")?;
            services.reading(move |snapshot| transaction_at(snapshot, block, index)).await
        })?;
    }
    module.register_async_method("eth_getTransactionByHash", |params, services, _| async move {
        let hash = params::hash(&mut Arguments::of(&params))?;
        let found = services.reading(move |snapshot| get_transaction(snapshot, &hash)).await?;
        Ok::<_, ErrorObjectOwned>(
            found.or_else(|| services.pool.get(&hash).map(|waiting| shapes::pending(&waiting))),
        )
    })?;
    module.register_async_method("eth_getRawTransactionByHash", |params, services, _| async move {
        let hash = params::hash(&mut Arguments::of(&params))?;
        let found = services.reading(move |snapshot| told(snapshot.find_transaction(&hash))).await?;
        let waiting = || services.pool.get(&hash).map(|waiting| waiting.encoded().clone());
        Ok::<_, ErrorObjectOwned>(found.map(|(_, body)| body.encoded).or_else(waiting))
    })?;
    module.register_async_method("eth_getTransactionReceipt", |params, services, _| async move {
        let hash = params::hash(&mut Arguments::of(&params))?;
        services.reading(move |snapshot| get_receipt(snapshot, &hash)).await
    })?;
    module.register_async_method("eth_getBlockReceipts", |params, services, _| async move {
        let block: BlockId = Arguments::of(&params).needed("the block")?;
        services.reading(move |snapshot| get_block_receipts(snapshot, block)).await
    })?;
    module.register_async_method("eth_getLogs", |params, services, _| async move {
        let filter: Filter = Arguments::of(&params).needed("the filter")?;
        let bounds = services.limits.logs;
        services
            .reading(move |snapshot| {
                let Some(query) = params::logs(snapshot, &filter)? else { return Ok(Vec::new()) };
                let found = told(snapshot.logs(&query, bounds))?;
                Ok::<Vec<Log>, _>(found.into_iter().map(shapes::log).collect())
            })
            .await
    })?;
    module.register_async_method("eth_feeHistory", |params, services, _| async move {
        let mut arguments = Arguments::of(&params);
        let Quantity(count) = arguments.needed("blockCount")?;
        let newest: BlockNumberOrTag = arguments.needed("newestBlock")?;
        let percentiles: Option<Vec<f64>> = arguments.optional("rewardPercentiles")?;
        let base_fee = services.pool.terms().base_fee;
        services.reading(move |snapshot| fee_history(snapshot, count, newest, percentiles, base_fee)).await
    })?;

    // What is read from the state.
    module.register_async_method("eth_getBalance", |params, services, _| async move {
        let (address, block) = account_and_block(&params)?;
        let (tip, account) = told(services.view.account(address).await)?;
        params::check_state_block(block, tip)?;
        Ok::<U256, ErrorObjectOwned>(account.balance)
    })?;
    module.register_async_method("eth_getCode", |params, services, _| async move {
        let (address, block) = account_and_block(&params)?;
        let (tip, code) = told(services.view.code(address).await)?;
        params::check_state_block(block, tip)?;
        Ok::<Bytes, ErrorObjectOwned>(code)
    })?;
    module.register_async_method("eth_getStorageAt", |params, services, _| async move {
        let mut arguments = Arguments::of(&params);
        let address: Address = arguments.needed("the address")?;
        let slot = params::slot(&arguments.needed::<String>("the slot")?)?;
        let block: Option<BlockId> = arguments.optional("the block")?;
        let (tip, value) = told(services.view.slot(address, slot).await)?;
        params::check_state_block(block, tip)?;
        Ok::<B256, ErrorObjectOwned>(value.into())
    })?;
    module.register_async_method("eth_getTransactionCount", |params, services, _| async move {
        let (address, block) = account_and_block(&params)?;
        let (tip, account) = told(services.view.account(address).await)?;
        params::check_state_block(block, tip)?;
        let nonce = match block {
            Some(BlockId::Number(BlockNumberOrTag::Pending)) => {
                services.pool.pending_nonce(&address, account.nonce)
            }
            _ => account.nonce,
        };
        Ok::<U64, ErrorObjectOwned>(U64::from(nonce))
    })?;
    module.register_async_method("eth_call", |params, services, _| async move {
        let (request, block) = call_and_block(&params)?;
        let (tip, outcome) = told(services.view.simulate(params::call(request)?).await)?;
        params::check_state_block(block, tip)?;
        returned(outcome)
    })?;
    module.register_async_method("eth_estimateGas", |params, services, _| async move {
        let (request, block) = call_and_block(&params)?;
        let (tip, estimate) = told(services.view.estimate(params::call(request)?).await)?;
        params::check_state_block(block, tip)?;
        match estimate {
            surety_chain::Estimate::Gas(gas) => Ok(U64::from(gas)),
            surety_chain::Estimate::Fails(outcome) => {
                returned(outcome).and_then(|_| Err(invalid_input("gas required exceeds allowance")))
            }
        }
    })?;

    // What changes something.
    module.register_async_method("eth_sendRawTransaction", |params, services, _| async move {
        let encoded = params::raw(&mut Arguments::of(&params))?;
        let admitted = told(services.pool.submit(encoded, &services.view).await)?;
        Ok::<B256, ErrorObjectOwned>(admitted.hash)
    })?;
    Ok(())
}

fn syncing(services: &Services) -> SyncStatus {
    let status = services.view.ledger().status();
    let Duty::Syncing { target } = status.duty else { return SyncStatus::None };
    SyncStatus::Info(Box::new(SyncInfo {
        current_block: U256::from(status.number),
        highest_block: U256::from(target.unwrap_or(status.number)),
        ..Default::default()
    }))
}

fn block_and_detail<T: serde::de::DeserializeOwned>(
    params: &Params<'_>,
    block: impl FnOnce(T) -> BlockId,
) -> Answer<(BlockId, bool)> {
    let mut arguments = Arguments::of(params);
    let which = arguments.needed("the block")?;
    let whole: Option<bool> = arguments.optional("whether transactions are wanted whole")?;
    Ok((block(which), whole.unwrap_or(false)))
}

fn account_and_block(params: &Params<'_>) -> Answer<(Address, Option<BlockId>)> {
    let mut arguments = Arguments::of(params);
    Ok((arguments.needed("the address")?, arguments.optional("the block")?))
}

fn call_and_block(params: &Params<'_>) -> Answer<(TransactionRequest, Option<BlockId>)> {
    let mut arguments = Arguments::of(params);
    let request = arguments.needed("the call")?;
    let block = arguments.optional("the block")?;
    let overrides: Option<Value> = arguments.optional("state overrides")?;
    if overrides.is_some_and(|overrides| overrides.as_object().is_none_or(|object| !object.is_empty())) {
        return Err(invalid_params("state overrides are not supported"));
    }
    Ok((request, block))
}

/// What a call returned, or how it failed.
fn returned(outcome: SimulationOutcome) -> Answer<Bytes> {
    match outcome {
        SimulationOutcome { success: true, output, .. } => Ok(output),
        SimulationOutcome { invalid: Some(invalid), .. } => Err(invalid_input(invalid.to_string())),
        SimulationOutcome { halt: Some(halt), .. } => Err(invalid_input(halted(&halt))),
        outcome => Err(reverted(outcome.revert_reason(), &outcome.output)),
    }
}

/// Why a call halted, in the words of other Ethereum nodes.
fn halted(halt: &str) -> String {
    match halt {
        halt if halt.starts_with("OutOfGas") => "out of gas".to_owned(),
        "InvalidFEOpcode" => "invalid opcode: INVALID".to_owned(),
        "OpcodeNotFound" => "invalid opcode".to_owned(),
        "StackUnderflow" => "stack underflow".to_owned(),
        "StackOverflow" => "stack limit reached 1024".to_owned(),
        "InvalidJump" => "invalid jump destination".to_owned(),
        halt => format!("execution halted: {halt}"),
    }
}

/// A block's header, its transactions and what they did.
type Parts = (IndexedHeader, Vec<IndexedTransaction>, Vec<IndexedReceipt>);

fn parts(snapshot: &Snapshot, block: BlockId) -> Answer<Option<Parts>> {
    let Some(header) = params::header(snapshot, block)? else { return Ok(None) };
    let transactions = told(snapshot.transactions(header.number))?;
    let receipts = told(snapshot.receipts(header.number))?;
    Ok(Some((header, transactions, receipts)))
}

fn get_block(snapshot: &Snapshot, block: BlockId, whole: bool) -> Answer<Option<alloy_rpc_types_eth::Block>> {
    let Some((header, transactions, receipts)) = parts(snapshot, block)? else { return Ok(None) };
    told(shapes::block(&header, &transactions, &receipts, whole)).map(Some)
}

fn transaction_count(snapshot: &Snapshot, block: BlockId) -> Answer<Option<U64>> {
    Ok(params::header(snapshot, block)?.map(|header| U64::from(header.transactions)))
}

fn transaction_at(snapshot: &Snapshot, block: BlockId, index: u64) -> Answer<Option<Transaction>> {
    let Some(header) = params::header(snapshot, block)? else { return Ok(None) };
    let Ok(index) = u32::try_from(index) else { return Ok(None) };
    let place = Place { number: header.number, index };
    let Some(body) = told(snapshot.transaction(place))? else { return Ok(None) };
    told(shapes::included(&body, place, &header)).map(Some)
}

fn get_transaction(snapshot: &Snapshot, hash: &B256) -> Answer<Option<Transaction>> {
    let Some((place, body)) = told(snapshot.find_transaction(hash))? else { return Ok(None) };
    let Some(header) = told(snapshot.header(place.number))? else { return Ok(None) };
    told(shapes::included(&body, place, &header)).map(Some)
}

fn get_receipt(snapshot: &Snapshot, hash: &B256) -> Answer<Option<TransactionReceipt>> {
    let Some((place, body)) = told(snapshot.find_transaction(hash))? else { return Ok(None) };
    let Some(header) = told(snapshot.header(place.number))? else { return Ok(None) };
    let Some(receipt) = told(snapshot.receipt(place))? else { return Ok(None) };
    told(shapes::receipt(&body, &receipt, place, &header)).map(Some)
}

fn get_block_receipts(snapshot: &Snapshot, block: BlockId) -> Answer<Option<Vec<TransactionReceipt>>> {
    let Some((header, transactions, receipts)) = parts(snapshot, block)? else { return Ok(None) };
    let both = (0..).zip(transactions.iter().zip(&receipts));
    let all = both.map(|(index, (body, receipt))| {
        shapes::receipt(body, receipt, Place { number: header.number, index }, &header)
    });
    told(all.collect::<Result<_, _>>()).map(Some)
}

fn fee_history(
    snapshot: &Snapshot,
    count: u64,
    newest: BlockNumberOrTag,
    percentiles: Option<Vec<f64>>,
    base_fee_next: u64,
) -> Answer<FeeHistory> {
    let percentiles = percentiles.unwrap_or_default();
    let rising = percentiles.windows(2).all(|pair| pair[0] <= pair[1]);
    if !rising || percentiles.iter().any(|percentile| !(0.0..=100.0).contains(percentile)) {
        return Err(invalid_params("reward percentiles must be between 0 and 100, in ascending order"));
    }
    if percentiles.len() > PERCENTILES_MAX {
        return Err(limit(format!("more than {PERCENTILES_MAX} reward percentiles")));
    }
    let Some(last) = params::number(snapshot, newest.into())? else {
        return Err(invalid_input("request beyond head block"));
    };
    let count_max = if percentiles.is_empty() { FEE_BLOCKS_MAX } else { REWARD_BLOCKS_MAX };
    let earliest = told(snapshot.earliest())?.unwrap_or(0);
    let first = (last + 1).saturating_sub(count.min(count_max)).max(earliest);
    let mut history = FeeHistory { oldest_block: first, ..Default::default() };
    let mut rewards = Vec::new();
    for number in first..=last {
        let Some(header) = told(snapshot.header(number))? else { break };
        history.base_fee_per_gas.push(header.base_fee.into());
        history.gas_used_ratio.push(header.gas_used as f64 / header.gas_limit.max(1) as f64);
        if !percentiles.is_empty() {
            rewards.push(rewards_of(snapshot, &header, &percentiles)?);
        }
    }
    // One more than there are blocks: the next block's.
    let next = told(snapshot.header(last + 1))?.map_or(base_fee_next, |header| header.base_fee);
    history.base_fee_per_gas.push(next.into());
    history.reward = (!percentiles.is_empty()).then_some(rewards);
    Ok(history)
}

/// The tips that a block's gas paid, at percentiles of its gas.
fn rewards_of(snapshot: &Snapshot, header: &IndexedHeader, percentiles: &[f64]) -> Answer<Vec<u128>> {
    let transactions = told(snapshot.transactions(header.number))?;
    let receipts = told(snapshot.receipts(header.number))?;
    let mut tips = Vec::new();
    for (index, (body, receipt)) in (0..).zip(transactions.iter().zip(&receipts)) {
        let place = Place { number: header.number, index };
        tips.push((told(shapes::tip(body, place, header))?, receipt.gas_used));
    }
    tips.sort_unstable();
    Ok(percentiles
        .iter()
        .map(|percentile| {
            let threshold = header.gas_used as f64 * percentile / 100.0;
            let mut gas = 0_u64;
            let reached = tips.iter().find(|(_, used)| {
                gas = gas.saturating_add(*used);
                gas as f64 >= threshold
            });
            reached.or(tips.last()).map_or(0, |(tip, _)| *tip)
        })
        .collect())
}
