//! Simulation: what a call would do, without doing it.
//!
//! In:     a call that nobody has signed, where it would stand.
//! Out:    what it returns, what it uses; the least gas it succeeds with.
//! Holds:  nothing is charged and no nonce is checked; otherwise the rules are those of [`crate::execute()`].

use std::rc::Rc;

use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, Bytes, Log, TxKind, U256};
use alloy_sol_types::{Revert, SolError as _};
use revm::context::{
    TxEnv,
    result::{ExecutionResult, InvalidTransaction},
};

use crate::{
    execute::{Execution, ExecutionError, Header, believed, environment, surroundings},
    host::Own,
    ledger::Ledger,
    machine::Machine,
    modules,
    params::Params,
    spec::ChainSpec,
    state::StateReader,
};

/// A call to simulate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallRequest {
    /// Who would call.
    pub from: Address,
    /// Whom; nobody to create a contract.
    pub to: Option<Address>,
    /// At most; a transaction's most if it says nothing.
    pub gas: Option<u64>,
    /// In wei.
    pub value: U256,
    /// Calldata, or the code that creates a contract.
    pub input: Bytes,
    /// EIP-2930.
    pub access_list: AccessList,
}

/// What a call would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulationOutcome {
    /// Neither reverted nor halted.
    pub success: bool,
    /// What it returned or reverted with.
    pub output: Bytes,
    /// As a transaction's receipt would say.
    pub gas_used: u64,
    /// In order.
    pub logs: Vec<Log>,
    /// Why it halted, if it did: out of gas, an invalid instruction, ….
    pub halt: Option<String>,
    /// Why it would not even begin.
    pub invalid: Option<InvalidTransaction>,
}

impl SimulationOutcome {
    /// The text of an `Error(string)` it reverted with.
    pub fn revert_reason(&self) -> Option<String> {
        if self.success {
            return None;
        }
        Revert::abi_decode(&self.output).ok().map(|revert| revert.reason)
    }
}

/// How much gas a call takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Estimate {
    /// The least with which it succeeds.
    Gas(u64),
    /// It does not succeed with any.
    Fails(SimulationOutcome),
}

/// Simulates a call on the state that `reader` reads, in the block `header` describes.
pub fn simulate(
    spec: &ChainSpec,
    reader: &dyn StateReader,
    header: &Header,
    call: &CallRequest,
) -> Result<Execution<SimulationOutcome>, ExecutionError> {
    let mut ledger = Ledger::new(reader);
    let mut surroundings = surroundings(spec, header, Params::default());
    let mut own = Own { surroundings: &surroundings, ledger: &mut ledger };
    let params = believed(modules::params::load(&mut own));
    let missing = ledger.missing()?;
    if !missing.is_empty() {
        return Ok(Execution::Needs(missing));
    }
    let gas_max = params.transaction_gas_max;
    let environment = environment(spec, header, &params, Address::ZERO, true);
    surroundings.params = params;
    let mut machine = Machine::new(ledger, &environment, Rc::new(surroundings));
    let result = machine.run(TxEnv {
        caller: call.from,
        gas_limit: call.gas.unwrap_or(gas_max).min(gas_max),
        kind: call.to.map_or(TxKind::Create, TxKind::Call),
        value: call.value,
        data: call.input.clone(),
        access_list: call.access_list.clone(),
        tx_type: u8::from(!call.access_list.0.is_empty()),
        chain_id: Some(spec.chain_id),
        ..TxEnv::default()
    });
    let missing = machine.ledger().missing()?;
    if !missing.is_empty() {
        return Ok(Execution::Needs(missing));
    }
    Ok(Execution::Done(Box::new(outcome(result))))
}

/// The least gas with which a call succeeds.
pub fn estimate_gas(
    spec: &ChainSpec,
    reader: &dyn StateReader,
    header: &Header,
    call: &CallRequest,
) -> Result<Execution<Estimate>, ExecutionError> {
    let try_with = |gas: Option<u64>| simulate(spec, reader, header, &CallRequest { gas, ..call.clone() });
    let most = match try_with(call.gas)? {
        Execution::Needs(keys) => return Ok(Execution::Needs(keys)),
        Execution::Done(outcome) if !outcome.success => {
            return Ok(Execution::Done(Box::new(Estimate::Fails(*outcome))));
        }
        Execution::Done(outcome) => outcome,
    };
    // It needs what it used at least; refunds and the gas that calls hold back ask for more, seldom for twice as much.
    let (mut fails_with, mut succeeds_with) = (most.gas_used.saturating_sub(1), most.gas_used);
    loop {
        match try_with(Some(succeeds_with))? {
            Execution::Needs(keys) => return Ok(Execution::Needs(keys)),
            Execution::Done(outcome) if outcome.success => break,
            Execution::Done(_) => {
                fails_with = succeeds_with;
                succeeds_with = succeeds_with.saturating_mul(2);
                if succeeds_with == u64::MAX {
                    break;
                }
            }
        }
    }
    while succeeds_with - fails_with > 1 {
        let middle = fails_with + (succeeds_with - fails_with) / 2;
        match try_with(Some(middle))? {
            Execution::Needs(keys) => return Ok(Execution::Needs(keys)),
            Execution::Done(outcome) if outcome.success => succeeds_with = middle,
            Execution::Done(_) => fails_with = middle,
        }
    }
    Ok(Execution::Done(Box::new(Estimate::Gas(succeeds_with))))
}

fn outcome(result: Result<ExecutionResult, InvalidTransaction>) -> SimulationOutcome {
    match result {
        Err(invalid) => SimulationOutcome {
            success: false,
            output: Bytes::new(),
            gas_used: 0,
            logs: Vec::new(),
            halt: None,
            invalid: Some(invalid),
        },
        Ok(result) => SimulationOutcome {
            success: result.is_success(),
            output: result.output().cloned().unwrap_or_default(),
            gas_used: result.tx_gas_used(),
            halt: match &result {
                ExecutionResult::Halt { reason, .. } => Some(format!("{reason:?}")),
                _ => None,
            },
            logs: result.into_logs(),
            invalid: None,
        },
    }
}
