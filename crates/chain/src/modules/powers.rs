//! Powers: every function of every module, who can use it, and what waits for the timelock.
//!
//! A list for people (`surety powers`) and for the test that compares it with the interfaces: a function that is not
//! here does not exist.

use surety_types::abi::Module;

/// Who can use a function to any effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anyone; it changes nothing.
    Reader,
    /// Anyone; it changes only what follows from what others have signed or decided, or the caller's own.
    Anyone,
    /// These only, and each for its own.
    Party(&'static str),
}

/// What a function lets someone do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Power {
    /// Where.
    pub module: Module,
    /// Its name.
    pub function: &'static str,
    /// Who can use it.
    pub who: Who,
    /// Whether it works only on what has waited the whole timelock.
    pub timelock: bool,
}

const fn power(module: Module, function: &'static str, who: Who) -> Power {
    Power { module, function, who, timelock: false }
}

const STAKED: Who = Who::Party("operator with stake");
const OPERATOR: Who = Who::Party("operator, for its own workers and offers");
const RECEIVER: Who = Who::Party("receiver of the channel or its authorizer");
const CHALLENGER: Who = Who::Party("challenger of the dispute");
const PAYER: Who = Who::Party("payer of the channel or its authorizer");
const SPENDER: Who = Who::Party("spender that the account has approved");
const PAYEE: Who = Who::Party("payee of what the payer has signed for");
const PROPOSER: Who = Who::Party("account with the proposal's minimum stake");

/// What can be told to whatever keeps channels.
const CHANNELS: [(&str, Who); 18] = [
    ("multicall", Who::Anyone),
    ("deposit", Who::Anyone),
    ("claim", RECEIVER),
    ("claimWithSignature", Who::Anyone),
    ("settle", Who::Anyone),
    ("initiateWithdraw", PAYER),
    ("finalizeWithdraw", PAYER),
    ("refund", RECEIVER),
    ("refundWithSignature", Who::Anyone),
    ("getChannelId", Who::Reader),
    ("CHANNEL_CONFIG_TYPEHASH", Who::Reader),
    ("channels", Who::Reader),
    ("pendingWithdrawals", Who::Reader),
    ("receivers", Who::Reader),
    ("getVoucherDigest", Who::Reader),
    ("getRefundDigest", Who::Reader),
    ("refundNonce", Who::Reader),
    ("getClaimBatchDigest", Who::Reader),
];
/// Where channels are kept: those of orders, and those of x402's clients.
const HOUSES: [Module; 2] = [Module::Channels, Module::Escrow];

/// What can be told to any other module.
const OTHERS: &[Power] = &[
    power(Module::Staking, "bond", Who::Anyone),
    power(Module::Staking, "delegate", Who::Anyone),
    power(Module::Staking, "unbond", Who::Party("delegator")),
    power(Module::Staking, "withdraw", Who::Party("delegator, after the unbonding delay")),
    power(Module::Staking, "registerValidator", STAKED),
    power(Module::Staking, "retireValidator", Who::Party("validator")),
    power(Module::Staking, "unjail", Who::Party("validator in jail, after its time")),
    power(Module::Staking, "reportEquivocation", Who::Anyone),
    power(Module::Staking, "bondedOf", Who::Reader),
    power(Module::Staking, "bondedTo", Who::Reader),
    power(Module::Staking, "votesOf", Who::Reader),
    power(Module::Staking, "bondedTotal", Who::Reader),
    power(Module::Staking, "forfeited", Who::Reader),
    power(Module::Staking, "leaving", Who::Reader),
    power(Module::Staking, "delegationsOf", Who::Reader),
    power(Module::Staking, "unbondingOf", Who::Reader),
    power(Module::Staking, "validatorOf", Who::Reader),
    power(Module::Staking, "operatorOf", Who::Reader),
    power(Module::Staking, "candidates", Who::Reader),
    power(Module::Staking, "validatorSet", Who::Reader),
    power(Module::Staking, "setDigest", Who::Reader),
    power(Module::Staking, "performance", Who::Reader),
    power(Module::Operators, "register", STAKED),
    power(Module::Operators, "addWorker", OPERATOR),
    power(Module::Operators, "setEndpoint", OPERATOR),
    power(Module::Operators, "rotateWorker", OPERATOR),
    power(Module::Operators, "retireWorker", OPERATOR),
    power(Module::Operators, "offer", OPERATOR),
    power(Module::Operators, "withdrawOffer", OPERATOR),
    power(Module::Operators, "operatorOf", Who::Reader),
    power(Module::Operators, "jailedUntil", Who::Reader),
    power(Module::Operators, "worker", Who::Reader),
    power(Module::Operators, "operatorCount", Who::Reader),
    power(Module::Operators, "operators", Who::Reader),
    power(Module::Operators, "workersOf", Who::Reader),
    power(Module::Operators, "offersOf", Who::Reader),
    power(Module::Models, "publish", Who::Anyone),
    power(Module::Models, "setName", Who::Party("holder of the name; anyone if it is free")),
    power(Module::Models, "transferName", Who::Party("holder of the name")),
    power(Module::Models, "model", Who::Reader),
    power(Module::Models, "modelCount", Who::Reader),
    power(Module::Models, "models", Who::Reader),
    power(Module::Models, "resolve", Who::Reader),
    power(Module::Models, "nameHistory", Who::Reader),
    power(Module::Models, "disputeLeafBytes", Who::Reader),
    power(Module::Receipts, "post", Who::Party("registered operator")),
    power(Module::Receipts, "logOf", Who::Reader),
    power(Module::Receipts, "postedBy", Who::Reader),
    power(Module::Receipts, "includes", Who::Reader),
    power(Module::Governance, "proposeParameters", PROPOSER),
    power(Module::Governance, "proposeUpgrade", PROPOSER),
    power(Module::Governance, "proposeUpgradeCancellation", PROPOSER),
    power(Module::Governance, "vote", Who::Party("account with bonded stake")),
    power(Module::Governance, "queue", Who::Anyone),
    Power { module: Module::Governance, function: "execute", who: Who::Anyone, timelock: true },
    power(Module::Governance, "proposalCount", Who::Reader),
    power(Module::Governance, "proposal", Who::Reader),
    power(Module::Governance, "changesOf", Who::Reader),
    power(Module::Governance, "upgradeOf", Who::Reader),
    power(Module::Governance, "voteOf", Who::Reader),
    power(Module::Governance, "upgrade", Who::Reader),
    power(Module::Params, "get", Who::Reader),
    power(Module::Params, "all", Who::Reader),
    power(Module::Hosting, "list", Who::Anyone),
    power(Module::Hosting, "fund", Who::Anyone),
    power(Module::Hosting, "pin", Who::Party("operator with stake, for a worker of its own")),
    power(Module::Hosting, "unpin", Who::Party("operator that pinned")),
    power(Module::Hosting, "prove", Who::Anyone),
    power(Module::Hosting, "hosted", Who::Reader),
    power(Module::Hosting, "filesOf", Who::Reader),
    power(Module::Hosting, "pinsOf", Who::Reader),
    power(Module::Hosting, "pinOf", Who::Reader),
    power(Module::Hosting, "beacon", Who::Reader),
    power(Module::Hosting, "challenge", Who::Reader),
    power(Module::Disputes, "commit", Who::Anyone),
    power(Module::Disputes, "open", Who::Anyone),
    power(Module::Disputes, "openAsking", Who::Anyone),
    power(Module::Disputes, "showIds", Who::Party("operator of the accused worker")),
    power(Module::Disputes, "root", Who::Party("operator of the accused worker")),
    power(Module::Disputes, "pick", CHALLENGER),
    power(Module::Disputes, "divide", Who::Party("operator of the accused worker")),
    power(Module::Disputes, "leaf", CHALLENGER),
    power(Module::Disputes, "claimOutput", CHALLENGER),
    power(Module::Disputes, "claimState", CHALLENGER),
    power(Module::Disputes, "claimText", CHALLENGER),
    power(Module::Disputes, "claimPrompt", CHALLENGER),
    power(Module::Disputes, "timeOut", Who::Anyone),
    power(Module::Disputes, "twoAnswers", Who::Anyone),
    power(Module::Disputes, "pastEnd", Who::Anyone),
    power(Module::Disputes, "falseStop", Who::Anyone),
    power(Module::Disputes, "report", OPERATOR),
    power(Module::Disputes, "collect", Who::Anyone),
    power(Module::Disputes, "disputes", Who::Reader),
    power(Module::Disputes, "disputeCount", Who::Reader),
    power(Module::Disputes, "answerOf", Who::Reader),
    power(Module::Disputes, "disputeOf", Who::Reader),
    power(Module::Disputes, "disputesOf", Who::Reader),
    power(Module::Disputes, "bondFor", Who::Reader),
    power(Module::Disputes, "gameOf", Who::Reader),
    power(Module::Disputes, "reportOf", Who::Reader),
    power(Module::Claims, "claim", Who::Anyone),
    power(Module::Claims, "answer", Who::Anyone),
    power(Module::Claims, "settle", Who::Anyone),
    power(Module::Claims, "claims", Who::Reader),
    power(Module::Claims, "claimCount", Who::Reader),
    power(Module::Claims, "claimOf", Who::Reader),
    power(Module::Claims, "claimsOf", Who::Reader),
    power(Module::Claims, "recordOf", Who::Reader),
    power(Module::Audits, "disclose", Who::Party("operator whose receipt was drawn")),
    power(Module::Audits, "discloseConfidential", Who::Party("operator whose receipt was drawn")),
    power(Module::Audits, "commit", Who::Party("operator that was drawn as auditor")),
    power(Module::Audits, "reveal", Who::Party("auditor that committed")),
    power(Module::Audits, "answer", Who::Anyone),
    power(Module::Audits, "account", Who::Anyone),
    power(Module::Audits, "drawOf", Who::Reader),
    power(Module::Audits, "drawn", Who::Reader),
    power(Module::Audits, "auditOf", Who::Reader),
    power(Module::Audits, "logsOf", Who::Reader),
    power(Module::Audits, "disclosedCount", Who::Reader),
    power(Module::Audits, "disclosed", Who::Reader),
    power(Module::Audits, "standingOf", Who::Reader),
    power(Module::Audits, "exposureOf", Who::Reader),
    power(Module::Audits, "payOf", Who::Reader),
    power(Module::Credit, "name", Who::Reader),
    power(Module::Credit, "symbol", Who::Reader),
    power(Module::Credit, "version", Who::Reader),
    power(Module::Credit, "decimals", Who::Reader),
    power(Module::Credit, "totalSupply", Who::Reader),
    power(Module::Credit, "balanceOf", Who::Reader),
    power(Module::Credit, "allowance", Who::Reader),
    power(Module::Credit, "DOMAIN_SEPARATOR", Who::Reader),
    power(Module::Credit, "authorizationState", Who::Reader),
    power(Module::Credit, "authorizationUse", Who::Reader),
    power(Module::Credit, "transfer", Who::Anyone),
    power(Module::Credit, "approve", Who::Anyone),
    power(Module::Credit, "transferFrom", SPENDER),
    power(Module::Credit, "transferWithAuthorization", Who::Anyone),
    power(Module::Credit, "transferWithAuthorization", Who::Anyone),
    power(Module::Credit, "receiveWithAuthorization", PAYEE),
    power(Module::Credit, "receiveWithAuthorization", PAYEE),
    power(Module::Credit, "cancelAuthorization", Who::Anyone),
    power(Module::Credit, "cancelAuthorization", Who::Anyone),
    power(Module::Credit, "drawWithAuthorization", PAYEE),
];

const ALL: [Power; OTHERS.len() + HOUSES.len() * CHANNELS.len()] = {
    let mut all = [OTHERS[0]; OTHERS.len() + HOUSES.len() * CHANNELS.len()];
    let mut index = 0;
    while index < OTHERS.len() {
        all[index] = OTHERS[index];
        index += 1;
    }
    while index < all.len() {
        let number = index - OTHERS.len();
        let (function, who) = CHANNELS[number % CHANNELS.len()];
        all[index] = power(HOUSES[number / CHANNELS.len()], function, who);
        index += 1;
    }
    all
};

/// Every function of every module.
pub const POWERS: &[Power] = &ALL;

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::U256;
    use surety_types::abi::address::GOVERNANCE;

    use crate::testing::{Chain, address};

    #[test]
    fn the_list_is_the_interfaces() {
        let mut listed: Vec<(Module, &str)> =
            POWERS.iter().map(|power| (power.module, power.function)).collect();
        let mut existing = Vec::new();
        let interfaces: Vec<_> = Module::ALL.into_iter().map(|module| (module, module.abi())).collect();
        for (module, abi) in &interfaces {
            for function in abi.functions() {
                existing.push((*module, function.name.as_str()));
                let power = POWERS
                    .iter()
                    .find(|power| (power.module, power.function) == (*module, function.name.as_str()));
                let power =
                    power.unwrap_or_else(|| panic!("{}.{} is not listed", module.name(), function.name));
                let reads = matches!(
                    function.state_mutability,
                    alloy_json_abi::StateMutability::View | alloy_json_abi::StateMutability::Pure
                );
                assert_eq!(power.who == Who::Reader, reads, "{}.{}", module.name(), function.name);
            }
        }
        listed.sort();
        existing.sort();
        assert_eq!(listed, existing);
        let waiting: Vec<&str> =
            POWERS.iter().filter(|power| power.timelock).map(|power| power.function).collect();
        assert_eq!(waiting, ["execute"]);
    }

    /// A stranger who calls anything with whatever arguments changes nothing that others have.
    #[test]
    fn a_stranger_moves_nothing_of_others() {
        let mut chain = Chain::new();
        chain.block(&[]);
        for module in Module::ALL {
            for function in module.abi().functions() {
                for fill in [0u8, 1, 0xff] {
                    let mut input = function.selector().to_vec();
                    input.extend(std::iter::repeat_n(fill, 32 * 8));
                    let before: Vec<U256> = (0..9).map(|number| chain.balance(address(number))).collect();
                    let modules: Vec<U256> =
                        Module::ALL.map(|module| chain.balance(module.address())).to_vec();
                    let proposer = chain.next_proposer();
                    let fees = chain.send(9, module.address(), U256::ZERO, input).gas_used;
                    for number in 0..9u64 {
                        let fee = if address(number) == proposer {
                            U256::from(fees) * U256::from(crate::testing::GAS_PRICE)
                        } else {
                            U256::ZERO
                        };
                        assert_eq!(
                            chain.balance(address(number)),
                            before[number as usize] + fee,
                            "{}.{}",
                            module.name(),
                            function.name
                        );
                    }
                    assert_eq!(Module::ALL.map(|module| chain.balance(module.address())).to_vec(), modules);
                }
            }
        }
        assert_eq!(chain.balance(GOVERNANCE), U256::ZERO);
    }
}
