//! Channels: the x402 `batch-settlement` escrow, in native credit; that of orders, and that of x402's own clients.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// The x402 `batch-settlement` escrow, in native credit. In the channels of orders `token` is zero and a deposit is the
    /// value sent; in the escrow of x402's clients `token` is the credit module and a deposit is what the payer signed for.
    /// EIP-712 domain: name "x402 Batch Settlement", version "1", this chain, this address.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IChannels {
        event Deposited(bytes32 indexed channelId, address indexed sender, uint128 amount, uint128 balance);
        event Claimed(bytes32 indexed channelId, address indexed sender, uint128 amount, uint128 totalClaimed);
        /// `amount` is what was claimed; an operator is paid it less the shares that `Shared` of the audits names.
        event Settled(address indexed receiver, address indexed token, address indexed sender, uint128 amount);
        event Refunded(bytes32 indexed channelId, address indexed sender, uint128 amount);
        event WithdrawInitiated(bytes32 indexed channelId, uint128 amount, uint40 finalizeAfter);
        event WithdrawFinalized(bytes32 indexed channelId, address indexed sender, uint128 amount);

        /// What a channel is; its EIP-712 hash is its identity.
        struct ChannelConfig {
            address payer;
            /// Signs vouchers.
            address payerAuthorizer;
            address receiver;
            /// Claims and refunds for the receiver.
            address receiverAuthorizer;
            /// The native credit: zero, or in the escrow the credit module.
            address token;
            /// Seconds.
            uint40 withdrawDelay;
            bytes32 salt;
        }

        struct Voucher {
            ChannelConfig channel;
            uint128 maxClaimableAmount;
        }

        struct VoucherClaim {
            Voucher voucher;
            /// The payer authorizer's, over Voucher(bytes32 channelId,uint128 maxClaimableAmount).
            bytes signature;
            /// Everything claimed on the channel, this claim included.
            uint128 totalClaimed;
        }

        /// Several calls, all or none; none of them a deposit.
        function multicall(bytes[] data) external returns (bytes[] results);
        /// Adds the value sent, which must be `amount`, to a channel. There is no collector: both its arguments are empty.
        /// In the escrow: adds what the payer signed for (EIP-3009, to the collector) by
        /// abi.encode(uint256 validAfter, uint256 validBefore, uint256 salt, bytes signature), its nonce
        /// keccak256(abi.encode(channelId, salt)); no value.
        function deposit(ChannelConfig config, uint128 amount, address collector, bytes collectorData) external payable;
        /// Claims on channels whose receiver or receiver authorizer the caller is.
        function claim(VoucherClaim[] voucherClaims) external;
        /// Claims by anyone with the receiver authorizer's signature over ClaimBatch(ClaimEntry[] claims).
        function claimWithSignature(VoucherClaim[] voucherClaims, bytes authorizerSignature) external;
        /// Pays a receiver what has been claimed for it; an operator less the shares for auditors and validators.
        function settle(address receiver, address token) external;
        /// The payer's way out without the receiver: starts the delay. Capped to what is not claimed.
        function initiateWithdraw(ChannelConfig config, uint128 amount) external;
        /// Pays the payer after the delay, capped to what is not claimed by then.
        function finalizeWithdraw(ChannelConfig config) external;
        /// Gives what is not claimed back to the payer at once. Receiver or receiver authorizer.
        function refund(ChannelConfig config, uint128 amount) external;
        /// The same, with the receiver authorizer's signature over Refund(bytes32 channelId,uint256 nonce,uint128 amount).
        function refundWithSignature(ChannelConfig config, uint128 amount, uint256 nonce, bytes receiverAuthorizerSignature) external;

        function getChannelId(ChannelConfig config) external view returns (bytes32);
        function CHANNEL_CONFIG_TYPEHASH() external view returns (bytes32);
        function channels(bytes32 channelId) external view returns (uint128 balance, uint128 totalClaimed);
        function pendingWithdrawals(bytes32 channelId) external view returns (uint128 amount, uint40 initiatedAt);
        function receivers(address receiver, address token) external view returns (uint128 totalClaimed, uint128 totalSettled);
        function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) external view returns (bytes32);
        function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) external view returns (bytes32);
        function refundNonce(bytes32 channelId) external view returns (uint256);
        function getClaimBatchDigest(VoucherClaim[] voucherClaims) external view returns (bytes32);
    }
}
