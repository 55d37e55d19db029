//! What modules emitted in a span of time, as nodes say it.
//!
//! In:     modules; the span. Out: their events, each with its block, its transaction and its time.
//! Touches: the network, through the ledger.
//! Holds:  nothing here is proven; whoever has an event's transaction can look it up at any node.
//! Absent: what an event means, and in which words.

use alloy_primitives::Address;
use alloy_rpc_types_eth::Log;
use serde_json::{Value, json};

use super::{Ledger, LedgerError, nodes::garbage};

const LOGS: &str = "eth_getLogs";
const BLOCK: &str = "eth_getBlockByNumber";

/// An event in a final block, with all that places it.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// The module's event.
    pub log: alloy_primitives::Log,
    /// Its block's height.
    pub block: u64,
    /// Its block's time: Unix milliseconds, in whole seconds.
    pub at_ms: u64,
    /// Its transaction, by hash.
    pub transaction: alloy_primitives::B256,
}

impl Ledger {
    /// What these modules emitted from one moment to another, both included and both in Unix milliseconds: by module, in no
    /// other order. Of what nodes keep no more nothing is said.
    ///
    /// # Errors
    /// If no node answers, or one answers what cannot be.
    pub async fn events(
        &self,
        modules: &[Address],
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<Emitted>, LedgerError> {
        let tip = self.tip().await?;
        if from_ms > tip.timestamp_ms {
            return Ok(Vec::new());
        }
        let first = self.first_block(from_ms, tip.number).await?;
        let last = self.first_block(to_ms.saturating_add(1), tip.number).await?.min(tip.number);
        let mut found = Vec::new();
        for module in modules {
            found.extend(self.emitted(&[*module], &json!([]), first, last).await?);
        }
        found.retain(|event| (from_ms..=to_ms).contains(&event.at_ms));
        Ok(found)
    }

    /// The first block that is not before a moment; the one after the newest if there is none.
    async fn first_block(&self, moment_ms: u64, newest: u64) -> Result<u64, LedgerError> {
        let (mut low, mut high) = (0, newest + 1);
        while low < high {
            let middle = low.midpoint(high);
            match self.time_of(middle).await? {
                Some(at_ms) if at_ms >= moment_ms => high = middle,
                // What a node keeps no more is old.
                _ => low = middle + 1,
            }
        }
        Ok(low)
    }

    async fn time_of(&self, number: u64) -> Result<Option<u64>, LedgerError> {
        let block = self.unverified(BLOCK, json!([format!("0x{number:x}"), false])).await?;
        if block.is_null() {
            return Ok(None);
        }
        let seconds = block["timestamp"].as_str().and_then(|text| text.strip_prefix("0x"));
        let seconds = seconds.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        seconds
            .map(|seconds| Some(seconds.saturating_mul(1000)))
            .ok_or_else(|| strange(BLOCK, "it has no time"))
    }

    /// The events of modules in some blocks, with these topics; where there are too many for one answer, in halves.
    pub(super) async fn emitted(
        &self,
        modules: &[Address],
        topics: &Value,
        first: u64,
        last: u64,
    ) -> Result<Vec<Emitted>, LedgerError> {
        let (mut found, mut spans) = (Vec::new(), vec![(first, last)]);
        while let Some((first, last)) = spans.pop() {
            if first > last {
                continue;
            }
            let [from, to] = [first, last].map(|number| format!("0x{number:x}"));
            let filter = json!([{ "address": modules, "topics": topics, "fromBlock": from, "toBlock": to }]);
            match self.unverified(LOGS, filter).await {
                Ok(logs) => found.extend(placed(logs, modules)?),
                Err(_) if first < last => {
                    let middle = first.midpoint(last);
                    spans.extend([(middle + 1, last), (first, middle)]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// A node's events of some modules.
fn placed(logs: Value, modules: &[Address]) -> Result<Vec<Emitted>, LedgerError> {
    let logs: Vec<Log> = serde_json::from_value(logs).map_err(|why| strange(LOGS, why))?;
    let placed = |log: Log| {
        if log.removed {
            return Err(strange(LOGS, "it takes a final event back"));
        }
        if !modules.contains(&log.address()) {
            return Err(strange(LOGS, "it names another module's event"));
        }
        let (Some(block), Some(seconds), Some(transaction)) =
            (log.block_number, log.block_timestamp, log.transaction_hash)
        else {
            return Err(strange(LOGS, "an event has no block, no time or no transaction"));
        };
        Ok(Emitted { log: log.inner, block, at_ms: seconds.saturating_mul(1000), transaction })
    };
    logs.into_iter().map(placed).collect()
}

fn strange(method: &str, why: impl ToString) -> LedgerError {
    LedgerError::Invalid(garbage(method, why).to_string())
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;

    use super::*;

    #[test]
    fn an_event_is_placed_or_refused() {
        let module = Address::repeat_byte(3);
        let log = Log {
            inner: alloy_primitives::Log { address: module, ..Default::default() },
            block_number: Some(7),
            block_timestamp: Some(1_000),
            transaction_hash: Some(B256::repeat_byte(9)),
            ..Log::default()
        };
        let read = |log: &Log| placed(json!([log]), &[module]);
        let found = read(&log).expect("an event").remove(0);
        assert_eq!((found.block, found.at_ms, found.transaction), (7, 1_000_000, B256::repeat_byte(9)));
        for wrong in [
            Log { removed: true, ..log.clone() },
            Log { block_number: None, ..log.clone() },
            Log { block_timestamp: None, ..log.clone() },
            Log { transaction_hash: None, ..log.clone() },
            Log { inner: alloy_primitives::Log::default(), ..log.clone() },
        ] {
            assert!(read(&wrong).is_err(), "{wrong:?}");
        }
        assert!(placed(json!({ "not": "a list" }), &[module]).is_err());
    }
}
