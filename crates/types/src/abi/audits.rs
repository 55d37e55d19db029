//! Audits: which receipts are computed again, by whom, and what came of it.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// Which receipts of an operator's posted logs are computed again by another operator, and what came of it
    /// (docs/spec/audit.md).
    ///
    /// An audit is named by its id: operator (20 bytes) ‖ epoch of the log (8 bytes) ‖ number of the draw (4 bytes). Nothing
    /// here slashes anyone and no vote counts: a lie is proved in a dispute.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IAudits {
        event Disclosed(bytes32 indexed id, address indexed operator, bytes32 indexed model, bytes32 receipt, bytes32 evidence);
        event Committed(bytes32 indexed id, address indexed auditor, bytes32 commitment);
        event Revealed(bytes32 indexed id, address indexed auditor, bytes32 stateDigest);
        /// Both computed the same; the auditor was paid.
        event Passed(bytes32 indexed id, address indexed auditor, uint256 paid);
        /// They computed different things. A dispute says who lied.
        event Differing(bytes32 indexed id, address indexed auditor, bytes32 found, bytes32 claimed);
        /// Logs were closed: draws that were not answered, and those that no auditor came through with.
        event Accounted(address indexed operator, uint64 missed, uint64 unconfirmed);
        /// What was settled for an operator, less what it was paid: for auditors, and for the block's proposer.
        event Shared(address indexed operator, uint256 auditors, uint256 proposer);
        /// What was claimed for an operator and is not paid before it is audited.
        event Held(address indexed operator, uint256 unpaid);
        /// What draws that it missed took of an operator's pay, to the bonds of the next validators.
        event Forfeited(address indexed operator, uint256 amount);

        /// What is drawn of one log.
        struct Draw {
            /// The epoch whose beacon draws.
            uint64 drawnIn;
            /// Entries of the log, how many of a million are drawn, and how many are; none before the beacon is known.
            uint64 size;
            uint64 ratePpm;
            uint64 count;
            /// The last epoch in which a draw can be disclosed.
            uint64 discloseBy;
            /// The last epoch in which anything of it can be answered.
            uint64 closesAfter;
        }

        struct Audit {
            /// 0 not disclosed, 1 disclosed, 2 nothing to compute (a failure), 3 committed, 4 revealed, 5 passed, 6 differing,
            /// 7 confidential by its payer's wish.
            uint8 status;
            /// Place in the log.
            uint64 index;
            bytes32 receipt;
            bytes32 worker;
            bytes32 model;
            bytes32 stateCommitment;
            /// Digest of what the auditor is given.
            bytes32 evidence;
            /// In wei, by the receipt.
            uint128 charge;
            uint64 disclosedIn;
            /// The last epoch for what comes next; zero if nothing does.
            uint64 due;
            /// Whose turn it is, or whose result stands; zero if nobody's.
            address auditor;
            bytes32 auditorKey;
            bytes32 commitment;
            /// The state digest that the auditor revealed.
            bytes32 found;
        }

        struct Standing {
            /// Of a million entries of the next log, so many are drawn.
            uint64 ratePpm;
            /// Audits passed, less what was taken off for misses.
            uint64 score;
            uint64 passed;
            /// Draws that were not disclosed, and results that were not answered.
            uint64 missed;
            /// Draws that no auditor came through with.
            uint64 unconfirmed;
            uint64 differing;
            /// Pay is withheld until this epoch begins; zero if it is not.
            uint64 withheldUntil;
            /// In wei: what there is for auditors of this operator.
            uint256 pool;
            /// Logs posted, and those that are closed and accounted for.
            uint64 logs;
            uint64 accounted;
        }

        /// Shows what was drawn: the receipt (COSE bytes), its inclusion in the log, and the digest of what the auditor is
        /// given. The operator of the log.
        function disclose(bytes32 id, bytes receipt, bytes32[] path, bytes32 evidence) external;
        /// The same for a receipt whose order's payer lets no auditor see it (U-3.6): `order` (COSE bytes) says so. The operator of
        /// the log.
        function discloseConfidential(bytes32 id, bytes receipt, bytes32[] path, bytes order) external;
        /// The drawn auditor: BLAKE3 of its worker's key, a salt and the state digest it computed (U-4.2).
        function commit(bytes32 id, bytes32 commitment) external;
        /// The same auditor, in a later block: what it committed to.
        function reveal(bytes32 id, bytes32 salt, bytes32 stateDigest) external;
        /// Opens the receipt's state commitment, once the auditor has revealed. Anyone who knows it.
        function answer(bytes32 id, bytes32 salt, bytes32 stateDigest) external;
        /// Accounts for an operator's logs that are closed. Anyone.
        function account(address operator) external;

        function drawOf(address operator, uint64 epoch) external view returns (Draw draw);
        /// The places in the log that are drawn, by number; at most 100 from `offset`.
        function drawn(address operator, uint64 epoch, uint64 offset) external view returns (uint64[] indexes);
        function auditOf(bytes32 id) external view returns (Audit audit);
        /// Epochs of the logs an operator posted, in the order in which it did; at most 100 from `offset`.
        function logsOf(address operator, uint64 offset) external view returns (uint64[] epochs);
        function disclosedCount() external view returns (uint64);
        /// Ids of what was disclosed, in that order; at most 100 from `offset`.
        function disclosed(uint64 offset) external view returns (bytes32[] ids);
        function standingOf(address operator) external view returns (Standing standing);
        /// In wei: what was claimed for an operator and is in no log that is closed; and how much of it is paid before it is.
        function exposureOf(address operator) external view returns (uint256 exposure, uint256 cap);
        /// In wei: what was claimed for an operator and is not paid; what of it settling would let go now; and what draws that
        /// it missed have still to take of its pay.
        function payOf(address operator) external view returns (uint256 unpaid, uint256 due, uint256 forfeited);
    }
}
