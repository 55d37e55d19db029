//! Receipts: the root of each operator's log of receipts, epoch by epoch.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// RFC 9162 log roots: one per operator and epoch, posted once.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IReceipts {
        event Posted(address indexed operator, uint64 indexed epoch, uint64 size, bytes32 root);

        struct LogRoot {
            /// RFC 9162 §2.1.1 Merkle tree hash, SHA-256.
            bytes32 root;
            /// Leaves.
            uint64 size;
            /// Block in which it was posted; zero if it was not.
            uint64 height;
        }

        /// Posts the caller's root for an epoch that is over. Once posted it stands.
        function post(uint64 epoch, uint64 size, bytes32 root) external;

        function logOf(address operator, uint64 epoch) external view returns (LogRoot log);
        /// The last epoch an operator posted for, and how many it posted for.
        function postedBy(address operator) external view returns (uint64 lastEpoch, uint64 count);
        /// Whether a leaf hash is in a posted log (RFC 9162 §2.1.3.2).
        function includes(address operator, uint64 epoch, uint64 index, bytes32 leafHash, bytes32[] path) external view returns (bool);
    }
}
