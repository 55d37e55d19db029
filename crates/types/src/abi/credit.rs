//! Credit: the native credit as an ERC-20, with EIP-3009.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// The native credit as an ERC-20 with EIP-3009: balances are those of the accounts themselves, in wei, so there is no other
    /// money here than the ledger's. Only what moves through this face notes `Transfer`; nobody's code is called by it.
    /// EIP-712 domain: name "Surety Credit", version "1", this chain, this address.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface ICredit {
        event Transfer(address indexed from, address indexed to, uint256 value);
        event Approval(address indexed owner, address indexed spender, uint256 value);
        event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
        event AuthorizationCanceled(address indexed authorizer, bytes32 indexed nonce);

        function name() external view returns (string);
        function symbol() external view returns (string);
        function version() external view returns (string);
        function decimals() external view returns (uint8);
        /// All there is, as genesis named it.
        function totalSupply() external view returns (uint256);
        function balanceOf(address account) external view returns (uint256);
        function allowance(address account, address spender) external view returns (uint256);
        function DOMAIN_SEPARATOR() external view returns (bytes32);
        /// Whether an authorization with this nonce was used or canceled.
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
        /// By which authorization (its EIP-712 digest) a nonce was used, and how much was moved; 1 and 0: it was canceled.
        function authorizationUse(address authorizer, bytes32 nonce) external view returns (bytes32 digest, uint256 moved);

        function transfer(address to, uint256 value) external returns (bool);
        function approve(address spender, uint256 value) external returns (bool);
        function transferFrom(address from, address to, uint256 value) external returns (bool);
        /// EIP-3009: anyone moves what `from` signed for.
        function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature) external;
        function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external;
        /// EIP-3009: the same, and only the payee can.
        function receiveWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature) external;
        function receiveWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external;
        /// EIP-3009: has an authorization that was not used refused.
        function cancelAuthorization(address authorizer, bytes32 nonce, bytes signature) external;
        function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external;
        /// The payee takes a part, `amount`, of what a transferWithAuthorization was signed for, and gives up the rest.
        function drawWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature, uint256 amount) external;
    }
}
