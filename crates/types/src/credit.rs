//! Credit: what is signed so that somebody else may move one's credits (EIP-3009).
//!
//! In:     authorizations; a chain's id. Out: their EIP-712 digests.
//! Touches: nothing. No curve: signing and recovering are the caller's.
//! Holds:  the chain and whoever takes such payments hash by this code alone.
//! Absent: balances, and which nonces were used (`chain`).

use alloy_primitives::{Address, B256};
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain};

use crate::abi::address::CREDIT;

/// What the domain and the token are called.
pub const CREDIT_NAME: &str = "Surety Credit";
/// The domain's version.
pub const CREDIT_VERSION: &str = "1";

/// What is signed, as EIP-712 spells it.
pub mod signed {
    #![allow(missing_docs)]

    alloy_sol_types::sol! {
        #[derive(Debug, PartialEq, Eq)]
        struct TransferWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }
        #[derive(Debug, PartialEq, Eq)]
        struct ReceiveWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }
        struct CancelAuthorization {
            address authorizer;
            bytes32 nonce;
        }
    }
}

/// The EIP-712 domain of a chain's credit.
pub fn domain(chain_id: u64) -> Eip712Domain {
    eip712_domain! {
        name: CREDIT_NAME,
        version: CREDIT_VERSION,
        chain_id: chain_id,
        verifying_contract: CREDIT,
    }
}

/// What is signed for a transfer that anyone may make.
pub fn transfer_digest(chain_id: u64, transfer: &signed::TransferWithAuthorization) -> B256 {
    transfer.eip712_signing_hash(&domain(chain_id))
}

/// What is signed for a transfer that the payee alone may make.
pub fn receive_digest(chain_id: u64, transfer: &signed::ReceiveWithAuthorization) -> B256 {
    transfer.eip712_signing_hash(&domain(chain_id))
}

/// What is signed to have an authorization refused.
pub fn cancel_digest(chain_id: u64, authorizer: Address, nonce: B256) -> B256 {
    signed::CancelAuthorization { authorizer, nonce }.eip712_signing_hash(&domain(chain_id))
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{U256, keccak256};

    use super::*;

    #[test]
    fn a_transfer_digest_is_eip_3009_s() {
        // keccak256(0x1901 ‖ domain separator ‖ keccak256(typehash ‖ fields)), laid out by hand.
        let transfer = signed::TransferWithAuthorization {
            from: Address::repeat_byte(1),
            to: Address::repeat_byte(2),
            value: U256::from(3),
            validAfter: U256::from(4),
            validBefore: U256::from(5),
            nonce: B256::repeat_byte(6),
        };
        let word = |number: u64| U256::from(number).to_be_bytes::<32>();
        let mut structure = keccak256(
            "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)",
        )
        .to_vec();
        structure.extend(transfer.from.into_word());
        structure.extend(transfer.to.into_word());
        structure.extend([3, 4, 5].into_iter().flat_map(word));
        structure.extend(transfer.nonce);
        let mut separator =
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
                .to_vec();
        separator.extend(keccak256(CREDIT_NAME));
        separator.extend(keccak256(CREDIT_VERSION));
        separator.extend(word(7));
        separator.extend(CREDIT.into_word());
        let (separator, structure) = (keccak256(separator), keccak256(structure));
        let signed = [&[0x19, 0x01], separator.as_slice(), structure.as_slice()];
        assert_eq!(transfer_digest(7, &transfer), keccak256(signed.concat()));
        assert_ne!(transfer_digest(8, &transfer), transfer_digest(7, &transfer));
    }
}
