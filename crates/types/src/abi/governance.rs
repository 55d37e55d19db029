//! Governance: proposals, votes of bonded stake, timelock, execution.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// Proposals, votes of bonded stake, timelock, execution. Nothing here acts for one account alone.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IGovernance {
        event Proposed(uint256 indexed id, address indexed proposer, uint8 kind, uint64 votingEndsAt, string title);
        event Voted(uint256 indexed id, address indexed voter, uint8 support, uint256 weight);
        /// It passed; it may be executed from `executableAt` (seconds) on.
        event Queued(uint256 indexed id, uint64 executableAt);
        event Executed(uint256 indexed id);
        event ParameterChanged(bytes32 indexed name, uint256 before, uint256 after_);
        event UpgradeScheduled(uint64 indexed height, string version, bytes32 sourceRevision, bytes32[] binaryHashes);
        event UpgradeCancelled(uint64 indexed height);

        struct Proposal {
            address proposer;
            /// 0 parameters, 1 upgrade, 2 cancel the upgrade.
            uint8 kind;
            /// 0 none, 1 voting, 2 defeated, 3 succeeded, 4 queued, 5 executable, 6 executed, 7 expired.
            uint8 state;
            uint64 votingEndsAt;
            /// Zero until queued.
            uint64 executableAt;
            uint256 votesFor;
            uint256 votesAgainst;
            uint256 votesAbstaining;
        }

        struct Change {
            bytes32 name;
            uint256 value;
        }

        struct Upgrade {
            /// Zero: none.
            uint64 height;
            string version;
            bytes32 sourceRevision;
            bytes32[] binaryHashes;
        }

        /// Proposes parameters. Needs the proposal's minimum stake.
        function proposeParameters(Change[] changes, string title) external returns (uint256 id);
        /// Proposes a version to run from a height on. Needs the proposal's minimum stake.
        function proposeUpgrade(Upgrade upgrade_, string title) external returns (uint256 id);
        /// Proposes to drop the scheduled upgrade. Needs the proposal's minimum stake.
        function proposeUpgradeCancellation(string title) external returns (uint256 id);
        /// Votes with everything the caller has bonded: 0 against, 1 for, 2 abstain. A later vote replaces an earlier one.
        function vote(uint256 id, uint8 support) external;
        /// Starts the timelock of a proposal that passed.
        function queue(uint256 id) external;
        /// Does what a proposal says, once its timelock is over.
        function execute(uint256 id) external;

        function proposalCount() external view returns (uint256);
        function proposal(uint256 id) external view returns (Proposal proposal_);
        function changesOf(uint256 id) external view returns (Change[] changes);
        function upgradeOf(uint256 id) external view returns (Upgrade upgrade_);
        function voteOf(uint256 id, address account) external view returns (uint8 support, uint256 weight);
        /// The upgrade that is scheduled, or that came last.
        function upgrade() external view returns (Upgrade upgrade_);
    }
}
