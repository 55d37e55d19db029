//! The books after everything: what was charged, promised and claimed, and that nothing appeared or vanished.
//!
//! In:     the evidence of answers, the gateway's word on its channels, the ledger.
//! Out:    sums, and what does not agree.
//! Touches: the gateway and a validator, to read.
//! Absent: who failed when (`kill_matrix`).

use std::collections::BTreeMap;
use std::path::Path;

use alloy_primitives::{Address, U256, hex};
use alloy_sol_types::SolCall;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use surety_types::abi::{IChannels, address};

use super::{network, wire};

/// Wei of a micro-credit.
const MICRO: u128 = 1_000_000_000_000;

/// What answers were charged, by their evidence.
#[derive(Debug, Default)]
pub struct Charges {
    /// Micro-credits.
    pub total: u128,
    /// By worker.
    pub by_worker: BTreeMap<String, u128>,
    /// Answers whose cost, envelope and receipts do not name the same sum, and those without evidence.
    pub mismatches: Vec<String>,
    /// Receipts counted.
    pub receipts: usize,
}

/// What the evidence of one answer says.
#[derive(Debug, Default)]
pub struct Trail {
    /// Workers, in the order in which they took part.
    pub workers: Vec<String>,
}

impl Charges {
    /// Takes in the evidence of an answer that cost `cost`.
    pub fn take(&mut self, host: &str, request_id: Option<&str>, cost: Option<u128>) -> Trail {
        match self.try_take(host, request_id, cost) {
            Ok(trail) => trail,
            Err(error) => {
                self.mismatches
                    .push(format!("{}: {error:#}", request_id.unwrap_or("an answer without an id")));
                Trail::default()
            }
        }
    }

    fn try_take(&mut self, host: &str, request_id: Option<&str>, cost: Option<u128>) -> Result<Trail> {
        let id = request_id.context("no x-request-id")?;
        let cost = cost.context("no cost is named")?;
        let evidence = wire::get(host, &format!("/v1/receipts/{id}"))?;
        let view = &evidence["view"];
        let envelope = amount(&view["envelope"]["charge"])?;
        let answers = view["answers"].as_array().context("the evidence has no answers")?;
        let (mut sum, mut receipts) = (0, Vec::new());
        for receipt in answers.iter().map(|answer| &answer["receipt"]).filter(|receipt| receipt.is_object()) {
            let charge = amount(&receipt["charge"])?;
            sum += charge;
            receipts.push((receipt["worker"].as_str().unwrap_or_default().to_owned(), charge));
        }
        anyhow::ensure!(
            cost == envelope && cost == sum,
            "it cost {cost}, the envelope says {envelope}, the receipts say {sum}"
        );
        self.total += sum;
        self.receipts += receipts.len();
        for (worker, charge) in receipts {
            *self.by_worker.entry(worker).or_default() += charge;
        }
        let parts = view["envelope"]["parts"].as_array().into_iter().flatten();
        Ok(Trail { workers: parts.filter_map(|part| Some(part["worker"].as_str()?.to_owned())).collect() })
    }
}

fn amount(value: &Value) -> Result<u128> {
    value.as_str().with_context(|| format!("{value} is no amount"))?.parse().context("an amount is no number")
}

/// One operator's account, in micro-credits.
#[derive(Debug)]
pub struct Account {
    /// The worker's number.
    pub number: usize,
    /// By the evidence that was seen.
    pub charged: u128,
    /// By the gateway's vouchers.
    pub promised: u128,
    /// On the ledger.
    pub claimed: u128,
    /// Of that, paid out.
    pub settled: u128,
}

/// What the gateway has promised each worker's operator, in micro-credits, by worker.
pub fn promised(host: &str) -> Result<BTreeMap<String, u128>> {
    let status = wire::get(host, "/v1/network/status")?;
    let mut promised = BTreeMap::new();
    for worker in status["workers"].as_array().into_iter().flatten() {
        let channel = &worker["channel"];
        if channel.is_object() {
            let sum = amount(&channel["spent"])?
                + amount(&channel["written_off"])?
                + amount(&channel["in_flight"])?;
            promised.insert(worker["id"].as_str().unwrap_or_default().to_owned(), sum);
        }
    }
    Ok(promised)
}

/// What the operator of worker `number` has claimed and been paid, in micro-credits.
pub fn claimed(binary: &Path, data_dir: &Path, rpc: &str, number: usize) -> Result<(u128, u128)> {
    let account = network::told(binary, data_dir, &["key", "show", &format!("worker-{number}-operator")])?;
    let receiver: Address = account["address"].as_str().context("the account has no address")?.parse()?;
    let call = IChannels::receiversCall { receiver, token: Address::ZERO };
    let data = hex::encode_prefixed(call.abi_encode());
    let answer = wire::rpc(rpc, "eth_call", json!([{ "to": address::CHANNELS, "data": data }, "latest"]))?;
    let bytes = hex::decode(answer.as_str().context("eth_call answers no text")?)?;
    let sums = IChannels::receiversCall::abi_decode_returns(&bytes)?;
    anyhow::ensure!(sums.totalClaimed % MICRO == 0, "a claim of a part of a micro-credit");
    Ok((sums.totalClaimed / MICRO, sums.totalSettled / MICRO))
}

/// What genesis named and what there is now, in wei: proven, and to be equal.
pub fn supply(binary: &Path, data_dir: &Path) -> Result<(U256, U256)> {
    let page = network::told(binary, data_dir, &["economics"])?;
    let wei = |value: &Value| -> Result<U256> { Ok(value.as_str().context("no amount")?.parse()?) };
    let mut held = U256::ZERO;
    for place in page["held"].as_array().context("economics names no places")? {
        held += wei(&place["amount"])?;
    }
    Ok((wei(&page["supply"])?, held))
}
