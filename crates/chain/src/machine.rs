//! The EVM over a ledger, with the modules in place.
//!
//! In:     where a block stands; transactions, one by one.
//! Out:    what each did; the ledger afterwards.
//! Holds:  Prague's rules, unchanged; module calls go to `modules`.
//! Absent: what begins and ends a block (`execute`).

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use alloy_evm::{
    EthEvm, EthEvmFactory, Evm as _, EvmEnv, EvmFactory as _, FromRecoveredTx as _,
    precompiles::PrecompilesMap,
};
use alloy_primitives::{Address, B256, U256};
use revm::{
    DatabaseCommit as _,
    context::{
        BlockEnv, CfgEnv, TxEnv,
        result::{EVMError, ExecutionResult, InvalidTransaction},
    },
    inspector::NoOpInspector,
    primitives::hardfork::SpecId,
};

use crate::{
    host::Surroundings,
    ledger::Ledger,
    modules,
    state::{AccountState, StateReader},
    transaction::Recovered,
};

/// What the EVM is told about a block.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The rules. Ours are [`FORK`]; comparisons with Ethereum's tests may ask for others.
    pub fork: SpecId,
    /// EIP-155.
    pub chain_id: u64,
    /// Of the block.
    pub number: u64,
    /// In seconds.
    pub timestamp_s: u64,
    /// Who is paid.
    pub beneficiary: Address,
    /// Gas of the block.
    pub gas_limit: u64,
    /// Gas of a transaction.
    pub transaction_gas_max: u64,
    /// Wei a unit of gas costs at least.
    pub base_fee: u64,
    /// EIP-4844. There are no blobs here, so that it is zero.
    pub excess_blob_gas: u64,
    /// `PREVRANDAO`.
    pub beacon: B256,
    /// Whether calls are spared fees, balance for them and nonces.
    pub simulated: bool,
}

/// The fork whose rules we follow.
pub const FORK: SpecId = SpecId::PRAGUE;

impl Environment {
    fn evm(&self) -> EvmEnv {
        let mut config = CfgEnv::new_with_spec(self.fork);
        config.chain_id = self.chain_id;
        config.max_blobs_per_tx = Some(if self.fork.is_enabled_in(SpecId::PRAGUE) { 9 } else { 6 });
        config.tx_gas_limit_cap = Some(self.transaction_gas_max);
        if self.simulated {
            config.disable_nonce_check = true;
            config.disable_base_fee = true;
            config.disable_balance_check = true;
            config.disable_fee_charge = true;
            config.disable_eip3607 = true;
        }
        let mut block = BlockEnv {
            number: U256::from(self.number),
            beneficiary: self.beneficiary,
            timestamp: U256::from(self.timestamp_s),
            gas_limit: self.gas_limit,
            basefee: self.base_fee,
            difficulty: U256::ZERO,
            prevrandao: Some(self.beacon),
            ..BlockEnv::default()
        };
        let fraction = if self.fork.is_enabled_in(SpecId::PRAGUE) {
            alloy_eips::eip7691::BLOB_GASPRICE_UPDATE_FRACTION_PECTRA
        } else {
            alloy_eips::eip4844::BLOB_GASPRICE_UPDATE_FRACTION
        };
        block.set_blob_excess_gas_and_price(self.excess_blob_gas, fraction as u64);
        EvmEnv::new(config, block)
    }
}

/// The EVM over a ledger.
pub(crate) struct Machine<'a> {
    evm: EthEvm<Ledger<'a>, NoOpInspector, PrecompilesMap>,
    surroundings: Rc<Surroundings>,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(ledger: Ledger<'a>, environment: &Environment, surroundings: Rc<Surroundings>) -> Self {
        let mut evm = EthEvmFactory::default().create_evm(ledger, environment.evm());
        modules::install(evm.precompiles_mut(), &surroundings);
        Machine { evm, surroundings }
    }

    /// Executes a transaction and takes over its changes; nothing changes if it is invalid.
    pub(crate) fn apply(&mut self, transaction: &Recovered) -> Result<ExecutionResult, InvalidTransaction> {
        *self.surroundings.signers.borrow_mut() = Arc::clone(transaction.voucher_signers());
        let result = self.run(TxEnv::from_recovered_tx(transaction.envelope(), transaction.sender()));
        *self.surroundings.signers.borrow_mut() = Arc::default();
        result
    }

    /// Executes what a transaction says.
    pub(crate) fn run(&mut self, transaction: TxEnv) -> Result<ExecutionResult, InvalidTransaction> {
        transact(&mut self.evm, transaction)
    }

    pub(crate) fn ledger(&mut self) -> &mut Ledger<'a> {
        self.evm.db_mut()
    }

    /// The ledger, for the end of the block.
    pub(crate) fn into_ledger(self) -> Ledger<'a> {
        let (ledger, _) = self.evm.finish();
        ledger
    }
}

fn transact(
    evm: &mut EthEvm<Ledger<'_>, NoOpInspector, PrecompilesMap>,
    transaction: TxEnv,
) -> Result<ExecutionResult, InvalidTransaction> {
    match evm.transact_raw(transaction) {
        Ok(done) => {
            evm.db_mut().commit(done.state);
            Ok(done.result)
        }
        Err(EVMError::Transaction(invalid)) => Err(invalid),
        // The header is ours, the ledger cannot fail, and modules refuse rather than abort.
        Err(error) => panic!("the EVM failed for a reason that cannot be: {error:?}"),
    }
}

/// What one transaction changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// No account: it does not exist any more.
    pub accounts: BTreeMap<Address, Option<AccountState>>,
    /// By account and slot.
    pub slots: BTreeMap<(Address, U256), U256>,
}

/// Executes one transaction by Ethereum's own rules: without our modules, burning what Ethereum burns.
///
/// It is the executor of our blocks otherwise, and exists to be compared with Ethereum's tests.
pub fn execute_as_ethereum(
    reader: &dyn StateReader,
    environment: &Environment,
    transaction: TxEnv,
) -> Result<(ExecutionResult, Changes), InvalidTransaction> {
    let mut evm = EthEvmFactory::default().create_evm(Ledger::new(reader), environment.evm());
    let result = transact(&mut evm, transaction)?;
    Ok((result, evm.db_mut().changes()))
}
