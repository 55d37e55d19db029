//! Params: where parameters are stored, and how anyone reads them.
//!
//! In:     reads. Out: values and bounds.
//! Touches: its own storage, written at genesis and by `governance` only.
//! Holds:  no function of the interface changes anything.

use alloy_primitives::U256;
use alloy_sol_types::SolCall as _;
use surety_types::abi::{IParams, address::PARAMS};

use super::{Call, decode, takes_no_value};
use crate::{
    host::{Host, Outcome, Slot, refuse},
    params::{PARAMETERS, Parameter, Params},
};

const VALUES: u8 = 1;

/// Where a parameter is stored.
pub(crate) fn slot(index: usize) -> Slot {
    Slot::new(PARAMS, VALUES, &[PARAMETERS[index].name_word().as_slice()])
}

/// Every parameter as it stands.
pub(crate) fn load(host: &mut dyn Host) -> Outcome<Params> {
    let values = (0..PARAMETERS.len()).map(|index| host.load(slot(index))).collect::<Outcome<Vec<U256>>>()?;
    Ok(Params::from_values(|index| values[index].saturating_to()))
}

pub(crate) fn store(host: &mut dyn Host, params: &Params) -> Outcome<()> {
    for index in 0..PARAMETERS.len() {
        let value = params.value(index).unwrap_or_default();
        host.store(slot(index), U256::from(value))?;
    }
    Ok(())
}

pub(super) fn call(host: &mut dyn Host, call: &Call<'_>) -> Outcome<Vec<u8>> {
    use IParams::IParamsCalls as Calls;
    takes_no_value(call)?;
    match decode::<Calls>(call)? {
        Calls::get(get) => match Parameter::index_of(&get.name) {
            Some(index) => Ok(IParams::getCall::abi_encode_returns(&host.load(slot(index))?)),
            None => refuse("no such parameter"),
        },
        Calls::all(_) => {
            let mut parameters = Vec::with_capacity(PARAMETERS.len());
            for (index, parameter) in PARAMETERS.iter().enumerate() {
                parameters.push(IParams::Parameter {
                    name: parameter.name_word(),
                    value: host.load(slot(index))?,
                    least: U256::from(parameter.least),
                    most: U256::from(parameter.most),
                    fixed_: parameter.fixed,
                });
            }
            Ok(IParams::allCall::abi_encode_returns(&parameters))
        }
    }
}
