//! Why a transaction is not admitted, in the words that wallets and libraries recognise.
//!
//! The beginnings of these messages are a contract: viem, ethers and `cast` tell the reasons apart by them.

use alloy_primitives::U256;

/// Why a transaction was not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is longer than the pool takes.
    #[error("oversized data: transaction size {bytes}, limit {max}")]
    Oversized {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The bytes are no transaction.
    #[error("typed transaction cannot be decoded: {0}")]
    Malformed(String),
    /// A kind of transaction this chain does not have.
    #[error("transaction type not supported: {0}")]
    Type(u8),
    /// It could be replayed on any chain.
    #[error("only replay-protected (EIP-155) transactions allowed over RPC")]
    Unprotected,
    /// It is for another chain.
    #[error("invalid chain id for signer: have {have} want {want}")]
    ChainId {
        /// The transaction's.
        have: u64,
        /// This chain's.
        want: u64,
    },
    /// Nobody signed it.
    #[error("invalid sender: the signature is not valid")]
    Signature,
    /// It asks for more gas than a transaction may (EIP-7825).
    #[error("transaction gas limit too high (cap: {max}, tx: {gas})")]
    GasLimit {
        /// What it asks for.
        gas: u64,
        /// What a transaction may ask for.
        max: u64,
    },
    /// It cannot even begin.
    #[error("intrinsic gas too low: gas {gas}, minimum needed {needed}")]
    IntrinsicGas {
        /// What it brings.
        gas: u64,
        /// What it takes.
        needed: u64,
    },
    /// Its creation code is too long (EIP-3860).
    #[error("max initcode size exceeded: code size {bytes}, limit {max}")]
    Initcode {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The tip cannot be paid out of the cap.
    #[error("max priority fee per gas higher than max fee per gas: tip {tip}, cap {cap}")]
    TipAboveCap {
        /// The priority fee.
        tip: u128,
        /// The most that may be paid in all.
        cap: u128,
    },
    /// It does not pay the chain's minimum.
    #[error("max fee per gas less than block base fee: maxFeePerGas: {cap}, baseFee: {base_fee}")]
    FeeTooLow {
        /// The most it pays per gas.
        cap: u128,
        /// The chain's minimum.
        base_fee: u64,
    },
    /// A set-code transaction without authorisations.
    #[error("EIP-7702 transaction with empty auth list")]
    NoAuthorisations,
    /// The account can send nothing more.
    #[error("nonce has max value: {0}")]
    NonceMax(u64),
    /// It is in the pool already.
    #[error("already known")]
    Known,
    /// Its nonce was used.
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow {
        /// The account's next nonce.
        next: u64,
        /// The transaction's.
        nonce: u64,
    },
    /// Too many transactions are missing before it.
    #[error("nonce too high: next nonce {next}, tx nonce {nonce}, at most {ahead_max} ahead")]
    NonceTooHigh {
        /// The account's next nonce.
        next: u64,
        /// The transaction's.
        nonce: u64,
        /// How far ahead of the account a nonce may be.
        ahead_max: u64,
    },
    /// The account cannot pay for it and for what it sent before.
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, queued cost {queued}, tx cost {cost}"
    )]
    Funds {
        /// The account's balance.
        balance: U256,
        /// What its earlier transactions in the pool may cost.
        queued: U256,
        /// What this one may cost.
        cost: U256,
    },
    /// What it may cost is more than any balance.
    #[error("insufficient funds for gas * price + value: the cost overflows 256 bits")]
    CostOverflow,
    /// It does not outbid the transaction with the same nonce.
    #[error(
        "replacement transaction underpriced: needs maxFeePerGas {cap_min} and maxPriorityFeePerGas {tip_min}"
    )]
    ReplacementUnderpriced {
        /// The least cap that replaces.
        cap_min: u128,
        /// The least tip that replaces.
        tip_min: u128,
    },
    /// The pool is full of better ones.
    #[error("transaction underpriced: the pool is full, and nothing in it is worth less")]
    PoolFull,
}
