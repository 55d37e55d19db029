//! The modules of the ledger as Solidity sees them: addresses and interfaces.
//!
//! In:     nothing. Out: call, event and return types (`sol!`), and the same interfaces as JSON for wallets and libraries.
//! Touches: nothing.
//! Holds:  one module, one address, one interface, which channels and escrow share; a function that the chain answers is in its interface and the other
//!         way round. No interface has an owner, an admin, a pause, a mint or an upgrade function.
//! Absent: what the functions do (`chain`).

pub mod audits;
pub mod channels;
pub mod claims;
pub mod credit;
pub mod disputes;
pub mod governance;
pub mod hosting;
pub mod models;
pub mod operators;
pub mod params;
pub mod receipts;
pub mod staking;

use alloy_json_abi::JsonAbi;
use alloy_primitives::Address;

pub use audits::IAudits;
pub use channels::IChannels;
pub use claims::IClaims;
pub use credit::ICredit;
pub use disputes::IDisputes;
pub use governance::IGovernance;
pub use hosting::IHosting;
pub use models::IModels;
pub use operators::IOperators;
pub use params::IParams;
pub use receipts::IReceipts;
pub use staking::IStaking;

/// Where each module lives.
pub mod address {
    use alloy_primitives::{Address, address};

    /// Bonds, validators, slashing.
    pub const STAKING: Address = address!("0x0000000000000000000000000000000000000801");
    /// Operators, their workers, prices and offers.
    pub const OPERATORS: Address = address!("0x0000000000000000000000000000000000000802");
    /// Manifests and names of models.
    pub const MODELS: Address = address!("0x0000000000000000000000000000000000000803");
    /// Payment channels.
    pub const CHANNELS: Address = address!("0x0000000000000000000000000000000000000804");
    /// Roots of the operators' receipt logs.
    pub const RECEIPTS: Address = address!("0x0000000000000000000000000000000000000805");
    /// Proposals, votes, timelock, upgrades.
    pub const GOVERNANCE: Address = address!("0x0000000000000000000000000000000000000808");
    /// Parameters, to read.
    pub const PARAMS: Address = address!("0x0000000000000000000000000000000000000809");
    /// Who keeps which models, audited and paid.
    pub const HOSTING: Address = address!("0x000000000000000000000000000000000000080a");
    /// Receipts contested and judged.
    pub const DISPUTES: Address = address!("0x000000000000000000000000000000000000080b");
    /// Acceptances without a receipt.
    pub const CLAIMS: Address = address!("0x000000000000000000000000000000000000080c");
    /// Receipts that are computed again.
    pub const AUDITS: Address = address!("0x000000000000000000000000000000000000080d");
    /// The native credit as an ERC-20.
    pub const CREDIT: Address = address!("0x000000000000000000000000000000000000080e");
    /// The x402 `batch-settlement` escrow: where its clients look for it on every chain, and what they sign for.
    pub const ESCROW: Address = address!("0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003");
    /// Whom the payers of that escrow sign their deposits to (EIP-3009). Nothing is there: the escrow itself collects.
    pub const DEPOSIT_COLLECTOR: Address = address!("0x4020806089470a89826cB9fB1f4059150b550004");
}

/// A module of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// Bonds, validators, slashing.
    Staking,
    /// Operators, their workers, prices and offers.
    Operators,
    /// Manifests and names of models.
    Models,
    /// Payment channels.
    Channels,
    /// Roots of the operators' receipt logs.
    Receipts,
    /// Proposals, votes, timelock, upgrades.
    Governance,
    /// Parameters, to read.
    Params,
    /// Who keeps which models, audited and paid.
    Hosting,
    /// Receipts contested and judged.
    Disputes,
    /// Acceptances without a receipt.
    Claims,
    /// Receipts that are computed again.
    Audits,
    /// The native credit as an ERC-20.
    Credit,
    /// Payment channels of x402's clients.
    Escrow,
}

impl Module {
    /// Every module, by address.
    pub const ALL: [Module; 13] = [
        Module::Staking,
        Module::Operators,
        Module::Models,
        Module::Channels,
        Module::Receipts,
        Module::Governance,
        Module::Params,
        Module::Hosting,
        Module::Disputes,
        Module::Claims,
        Module::Audits,
        Module::Credit,
        Module::Escrow,
    ];

    /// Where it lives.
    pub const fn address(self) -> Address {
        match self {
            Module::Staking => address::STAKING,
            Module::Operators => address::OPERATORS,
            Module::Models => address::MODELS,
            Module::Channels => address::CHANNELS,
            Module::Receipts => address::RECEIPTS,
            Module::Governance => address::GOVERNANCE,
            Module::Params => address::PARAMS,
            Module::Hosting => address::HOSTING,
            Module::Disputes => address::DISPUTES,
            Module::Claims => address::CLAIMS,
            Module::Audits => address::AUDITS,
            Module::Credit => address::CREDIT,
            Module::Escrow => address::ESCROW,
        }
    }

    /// The module at an address.
    pub fn at(address: &Address) -> Option<Module> {
        Module::ALL.into_iter().find(|module| module.address() == *address)
    }

    /// What it is called, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Module::Staking => "staking",
            Module::Operators => "operators",
            Module::Models => "models",
            Module::Channels => "channels",
            Module::Receipts => "receipts",
            Module::Governance => "governance",
            Module::Params => "params",
            Module::Hosting => "hosting",
            Module::Disputes => "disputes",
            Module::Claims => "claims",
            Module::Audits => "audits",
            Module::Credit => "credit",
            Module::Escrow => "escrow",
        }
    }

    /// Its interface.
    pub fn abi(self) -> JsonAbi {
        match self {
            Module::Staking => staking::IStaking::abi::contract(),
            Module::Operators => operators::IOperators::abi::contract(),
            Module::Models => models::IModels::abi::contract(),
            Module::Channels | Module::Escrow => channels::IChannels::abi::contract(),
            Module::Receipts => receipts::IReceipts::abi::contract(),
            Module::Governance => governance::IGovernance::abi::contract(),
            Module::Params => params::IParams::abi::contract(),
            Module::Hosting => hosting::IHosting::abi::contract(),
            Module::Disputes => disputes::IDisputes::abi::contract(),
            Module::Claims => claims::IClaims::abi::contract(),
            Module::Audits => audits::IAudits::abi::contract(),
            Module::Credit => credit::ICredit::abi::contract(),
        }
    }
}

/// Every interface, as the JSON that wallets and libraries read: `{"staking": {"address": …, "abi": […]}, …}`.
pub fn json() -> serde_json::Value {
    let modules = Module::ALL.into_iter().map(|module| {
        let entry = serde_json::json!({ "address": module.address().to_checksum(None), "abi": module.abi() });
        (module.name().to_owned(), entry)
    });
    serde_json::Value::Object(modules.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_has_its_own_address_in_order() {
        let addresses: Vec<Address> = Module::ALL.into_iter().map(Module::address).collect();
        assert!(addresses.windows(2).all(|pair| pair[0] < pair[1]));
        for module in Module::ALL {
            assert_eq!(Module::at(&module.address()), Some(module));
        }
        assert_eq!(Module::at(&Address::ZERO), None);
    }

    #[test]
    fn no_interface_gives_anyone_power_alone() {
        let words =
            ["owner", "admin", "pause", "mint", "burn", "upgradeto", "initialize", "setparam", "grantrole"];
        for module in Module::ALL {
            for function in module.abi().functions() {
                let name = function.name.to_lowercase();
                for word in words {
                    assert!(!name.contains(word), "{}.{}", module.name(), function.name);
                }
            }
        }
    }

    #[test]
    fn the_exported_json_is_what_libraries_read() {
        let json = json();
        let exported = serde_json::to_string_pretty(&json).expect("text") + "\n";
        assert_eq!(exported, include_str!("../../abi.json"), "{exported}");
        let bond = &json["staking"]["abi"].as_array().expect("a list");
        let bond = bond.iter().find(|item| item["name"] == "bond").expect("bond is a function");
        assert_eq!(bond["type"], "function");
        assert_eq!(bond["stateMutability"], "payable");
        assert_eq!(json["params"]["address"], "0x0000000000000000000000000000000000000809");
    }
}
