//! The modules: what the network adds to the EVM, as precompiles with state.
//!
//! In:     calls with Solidity's ABI, from transactions and contracts.
//! Out:    changes of their own storage and balance, events, or a revert with `Error(string)`.
//! Touches: the storage and balance of module accounts, through [`Host`], and other balances by their owners' word alone
//!         (`credit`); nobody's code is ever called.
//! Holds:  a call through delegatecall or callcode is refused, so is value where none is taken; the code of module
//!         accounts is one invalid instruction, so that they look like contracts and execute like none.
//! Absent: the EVM itself (`machine`).

pub(crate) mod audits;
pub(crate) mod beacon;
pub(crate) mod channels;
pub(crate) mod claims;
pub(crate) mod credit;
pub(crate) mod disputes;
pub(crate) mod governance;
pub(crate) mod hosting;
pub(crate) mod models;
pub(crate) mod operators;
mod papers;
pub(crate) mod params;
pub(crate) mod powers;
pub(crate) mod receipts;
pub(crate) mod staking;

#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use alloy_evm::precompiles::{DynPrecompile, PrecompileInput, PrecompilesMap};
use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::{Revert, SolError as _, SolInterface};
use revm::precompile::{PrecompileHalt, PrecompileId, PrecompileOutput};
use surety_types::abi::Module;

use crate::{
    host::{GAS_CALL, GAS_INPUT_BYTE, Host, Metered, Outcome, Stop, Surroundings, refuse, require},
    spec::MODULE_INPUT_BYTES_MAX,
};

/// The code of a module's account: `INVALID`.
pub(crate) const CODE: [u8; 1] = [0xfe];
/// Values in one page of a list.
pub(crate) const PAGE: u64 = 100;

/// A call of a module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) caller: Address,
    pub(crate) value: U256,
    pub(crate) data: &'a [u8],
}

/// Puts the modules at their addresses.
pub(crate) fn install(precompiles: &mut PrecompilesMap, surroundings: &Rc<Surroundings>) {
    for module in Module::ALL {
        let surroundings = Rc::clone(surroundings);
        precompiles.apply_precompile(&module.address(), move |_| {
            Some(DynPrecompile::new_stateful(PrecompileId::custom(module.name()), move |input| {
                Ok(enter(module, &surroundings, input))
            }))
        });
    }
}

/// A call from the EVM.
fn enter(module: Module, surroundings: &Surroundings, mut input: PrecompileInput<'_>) -> PrecompileOutput {
    let direct = input.is_direct_call();
    let call = Call { caller: input.caller, value: input.value, data: input.data };
    let (gas_limit, reservoir) = (input.gas, input.reservoir);
    let mut host = Metered {
        surroundings,
        internals: &mut input.internals,
        is_static: input.is_static,
        gas_limit,
        gas_used: 0,
    };
    let outcome = if direct { run(module, &mut host, &call) } else { refuse("modules are called directly") };
    let gas_used = host.gas_used.min(gas_limit);
    match outcome {
        Ok(output) => PrecompileOutput::new(gas_used, output.into(), reservoir),
        Err(Stop::OutOfGas) => PrecompileOutput::halt(PrecompileHalt::OutOfGas, reservoir),
        Err(Stop::Refused(reason)) => {
            let reason = Revert::from(format!("{}: {reason}", module.name())).abi_encode();
            PrecompileOutput::revert(gas_used, Bytes::from(reason), reservoir)
        }
    }
}

/// A call of a module by whatever host.
pub(crate) fn run(module: Module, host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    host.charge(GAS_CALL + GAS_INPUT_BYTE * call.data.len() as u64)?;
    require(call.data.len() <= MODULE_INPUT_BYTES_MAX, "the input is too long")?;
    match module {
        Module::Staking => staking::call(host, call),
        Module::Operators => operators::call(host, call),
        Module::Models => models::call(host, call),
        Module::Channels => channels::call(host, channels::House::Channels, call),
        Module::Receipts => receipts::call(host, call),
        Module::Governance => governance::call(host, call),
        Module::Params => params::call(host, call),
        Module::Hosting => hosting::call(host, call),
        Module::Disputes => disputes::call(host, call),
        Module::Claims => claims::call(host, call),
        Module::Audits => audits::call(host, call),
        Module::Credit => credit::call(host, call),
        Module::Escrow => channels::call(host, channels::House::Escrow, call),
    }
}

/// What a call asks for. Bytes that encode nothing are refused, and so are dirty ones where zeros belong.
pub(crate) fn decode<T: SolInterface>(call: &Call<'_>) -> Outcome<T> {
    let Some(selector) = call.data.first_chunk::<4>() else {
        return refuse("no function is named");
    };
    require(T::valid_selector(*selector), "no such function")?;
    T::abi_decode_validate(call.data).map_or_else(|_| refuse("the arguments are malformed"), Ok)
}

/// Refuses value sent to a function that takes none.
pub(crate) fn takes_no_value(call: &Call<'_>) -> Outcome<()> {
    require(call.value.is_zero(), "the function takes no value")
}
