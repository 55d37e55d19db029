//! Parameters of requests: what people mean by a block, a call or a filter.

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{B256, Bytes, TxKind, U256};
use alloy_rpc_types_eth::{Filter, FilterBlockOption, TransactionRequest};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde::{Deserialize, de::DeserializeOwned};
use surety_chain::CallRequest;

use super::error::{Answer, invalid_input, invalid_params, not_found, pruned, told};
use crate::{
    indexes::{IndexedHeader, LogQuery, Snapshot},
    ledger::Tip,
};

/// Reads parameters by position; `names` are for errors.
pub(super) struct Arguments<'a> {
    sequence: jsonrpsee::types::params::ParamsSequence<'a>,
}

impl<'a> Arguments<'a> {
    pub(super) fn of(params: &'a Params<'_>) -> Self {
        Self { sequence: params.sequence() }
    }

    /// The next, which must be there.
    pub(super) fn needed<T: DeserializeOwned>(&mut self, name: &str) -> Answer<T> {
        self.sequence.next().map_err(|error| wrong(name, &error))
    }

    /// The next, if there is one.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Answer<Option<T>> {
        self.sequence.optional_next().map_err(|error| wrong(name, &error))
    }
}

fn wrong(name: &str, error: &ErrorObjectOwned) -> ErrorObjectOwned {
    let why = error.data().map_or_else(String::new, |data| format!(": {}", data.get().trim_matches('"')));
    invalid_params(format!("{name} is missing or invalid{why}"))
}

/// A number that clients write as hexadecimal, as decimal, or as a JSON number.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct Quantity(#[serde(with = "alloy_serde::quantity")] pub(super) u64);

/// A place in storage: any hexadecimal number, as clients pad it or not.
pub(super) fn slot(text: &str) -> Answer<U256> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || digits.len() > 64 {
        return Err(invalid_params("slot is not a hexadecimal number of at most 32 bytes"));
    }
    U256::from_str_radix(digits, 16)
        .map_err(|_| invalid_params("slot is not a hexadecimal number of at most 32 bytes"))
}

/// The height that a block parameter means; none if there is no such block.
pub(super) fn number(snapshot: &Snapshot, block: BlockId) -> Answer<Option<u64>> {
    let tip = told(snapshot.tip())?.map(|tip| tip.number);
    match block {
        BlockId::Hash(hash) => told(snapshot.number(&hash.block_hash)),
        // Only finalised blocks are shown, so every name for the newest means the same.
        BlockId::Number(
            BlockNumberOrTag::Latest
            | BlockNumberOrTag::Pending
            | BlockNumberOrTag::Safe
            | BlockNumberOrTag::Finalized,
        ) => Ok(tip),
        BlockId::Number(BlockNumberOrTag::Earliest) => told(snapshot.earliest()),
        BlockId::Number(BlockNumberOrTag::Number(number)) => {
            let earliest = told(snapshot.earliest())?;
            match earliest {
                Some(earliest) if number < earliest => Err(pruned(number, earliest)),
                _ => Ok(Some(number).filter(|number| tip.is_some_and(|tip| *number <= tip))),
            }
        }
    }
}

/// The header that a block parameter means; none if there is no such block.
pub(super) fn header(snapshot: &Snapshot, block: BlockId) -> Answer<Option<IndexedHeader>> {
    match number(snapshot, block)? {
        Some(number) => told(snapshot.header(number)),
        None => Ok(None),
    }
}

/// Whether a question is about the state this node keeps, which is the newest.
pub(super) fn check_state_block(block: Option<BlockId>, tip: Tip) -> Answer<()> {
    let asked = match block {
        None
        | Some(BlockId::Number(
            BlockNumberOrTag::Latest
            | BlockNumberOrTag::Pending
            | BlockNumberOrTag::Safe
            | BlockNumberOrTag::Finalized,
        )) => return Ok(()),
        Some(BlockId::Number(BlockNumberOrTag::Number(number))) if number == tip.number => return Ok(()),
        Some(BlockId::Hash(hash)) if hash.block_hash == tip.hash => return Ok(()),
        Some(asked) => asked,
    };
    let asked = match asked {
        BlockId::Number(BlockNumberOrTag::Number(number)) => format!("block {number}"),
        BlockId::Number(tag) => format!("the {tag} block"),
        BlockId::Hash(hash) => format!("block {}", hash.block_hash),
    };
    Err(invalid_input(format!(
        "historical state is not available: {asked} was asked for, and this node keeps the state of the newest block, {}",
        tip.number
    )))
}

/// A call as the chain simulates it.
pub(super) fn call(request: TransactionRequest) -> Answer<CallRequest> {
    let input = match (request.input.input, request.input.data) {
        (Some(input), Some(data)) if input != data => {
            return Err(invalid_params("both \"data\" and \"input\" are set and not equal"));
        }
        (input, data) => input.or(data).unwrap_or_default(),
    };
    if request.blob_versioned_hashes.is_some_and(|hashes| !hashes.is_empty()) || request.sidecar.is_some() {
        return Err(invalid_input("transaction type not supported: 3"));
    }
    if request.authorization_list.is_some_and(|list| !list.is_empty()) {
        return Err(invalid_input("authorizations cannot be simulated: call without authorizationList"));
    }
    Ok(CallRequest {
        from: request.from.unwrap_or_default(),
        to: request.to.and_then(|kind| match kind {
            TxKind::Call(to) => Some(to),
            TxKind::Create => None,
        }),
        gas: request.gas,
        value: request.value.unwrap_or_default(),
        input,
        access_list: request.access_list.unwrap_or_default(),
    })
}

/// The logs that a filter means.
pub(super) fn logs(snapshot: &Snapshot, filter: &Filter) -> Answer<Option<LogQuery>> {
    let tip = told(snapshot.tip())?.map(|tip| tip.number);
    let Some(tip) = tip else { return Ok(None) };
    let (from, to) = match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => {
            let number = told(snapshot.number(&hash))?.ok_or_else(|| not_found("unknown block"))?;
            (number, number)
        }
        FilterBlockOption::Range { from_block, to_block } => {
            let earliest = told(snapshot.earliest())?.unwrap_or(0);
            let height = |tag: Option<BlockNumberOrTag>| match tag {
                Some(BlockNumberOrTag::Number(number)) => number,
                Some(BlockNumberOrTag::Earliest) => 0,
                _ => tip,
            };
            let (from, to) = (height(from_block), height(to_block));
            if from > to {
                return Err(invalid_params("invalid block range params: fromBlock is after toBlock"));
            }
            if from < earliest && matches!(from_block, Some(BlockNumberOrTag::Number(_))) && from > 0 {
                return Err(pruned(from, earliest));
            }
            (from, to.min(tip))
        }
    };
    let topics = std::array::from_fn(|position| sorted(filter.topics[position].iter().copied()));
    Ok(Some(LogQuery { from, to, addresses: sorted(filter.address.iter().copied()), topics }))
}

/// Sets arrive in no particular order.
pub(super) fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items
}

/// Bytes that were sent as a transaction.
pub(super) fn raw(arguments: &mut Arguments<'_>) -> Answer<Bytes> {
    arguments.needed("the transaction")
}

/// A block's digest.
pub(super) fn hash(arguments: &mut Arguments<'_>) -> Answer<B256> {
    arguments.needed("the hash")
}
