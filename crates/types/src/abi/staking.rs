//! Staking: bonds, delegation, validators, slashing and jail.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// Bonds, delegation, validators, slashing and jail. Amounts are wei of the native credit.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IStaking {
        /// A bond grew.
        event Bonded(address indexed operator, address indexed delegator, uint256 amount, uint256 bonded);
        /// A bond began to leave; it can be withdrawn at `matureAt` (seconds), if the delay has not been shortened since.
        event Unbonding(address indexed operator, address indexed delegator, uint256 amount, uint64 matureAt);
        /// Unbonded stake left; `slashed` of it was forfeited on the way.
        event Withdrawn(address indexed operator, address indexed delegator, uint256 amount, uint256 slashed);
        /// An operator stands as a validator under a key, from the next epoch on if it is among the largest.
        event ValidatorRegistered(address indexed operator, bytes32 indexed key);
        /// An operator stands no longer.
        event ValidatorRetired(address indexed operator);
        /// An operator left jail.
        event Unjailed(address indexed operator);
        /// An operator signed two conflicting votes: `amount` of what is bonded to it was forfeited, `bounty` of it
        /// paid to the reporter, the rest goes to the bonds of the next validators.
        event Slashed(address indexed operator, address indexed reporter, bytes32 key, uint64 epoch, uint64 view_, uint256 amount, uint256 bounty);

        /// An operator answered for a worker of its own: `amount` of what is bonded to it and of what leaves it was taken;
        /// `paid` of it went to those it had harmed, the rest goes to the bonds of the next validators.
        event Penalized(address indexed operator, uint256 amount, uint256 paid);

        /// A validator, or an operator that was one.
        struct Validator {
            /// The key it votes with; zero if it does not stand.
            bytes32 key;
            /// Bonded to it, by itself and others.
            uint256 bonded;
            /// Bonded to it by itself.
            uint256 ownBonded;
            /// Seconds; in jail until then, and until it asks to leave. Zero when free.
            uint64 jailedUntil;
            /// It signed conflicting votes: it can never be a validator again.
            bool slashed;
        }

        /// A member of an epoch's validator set.
        struct Member {
            bytes32 key;
            address operator;
            uint256 stake;
        }

        /// Stake on its way out.
        struct Entry {
            uint256 amount;
            /// Seconds.
            uint64 startedAt;
            /// Seconds.
            uint64 matureAt;
            uint64 epoch;
        }

        /// Bonds the value sent to the caller's own pool.
        function bond() external payable;
        /// Bonds the value sent to the pool of an operator that has bonded.
        function delegate(address operator) external payable;
        /// Begins to take stake out of an operator's pool; the largest number takes everything.
        function unbond(address operator, uint256 amount) external;
        /// Pays out what has matured of the caller's stake that left this operator.
        function withdraw(address operator) external returns (uint256 amount);
        /// Stands as a validator under an ed25519 key, or changes the key. `proof` is the key's signature over
        /// "surety validator key v1" ‖ chain id (8 bytes) ‖ operator (20 bytes) ‖ key (32 bytes).
        function registerValidator(bytes32 key, bytes proof) external;
        /// Stands no longer, from the next epoch on.
        function retireValidator() external;
        /// Leaves jail, once its time is over.
        function unjail() external;
        /// Shows two conflicting votes of one key. Kinds: 0 notarize, 1 nullify, 2 finalize. Messages are what is
        /// signed, without the namespace.
        function reportEquivocation(bytes32 key, uint8 firstKind, bytes firstMessage, bytes firstSignature, uint8 secondKind, bytes secondMessage, bytes secondSignature) external;

        /// Bonded by one account to one operator.
        function bondedOf(address operator, address delegator) external view returns (uint256);
        /// Bonded to an operator by everyone.
        function bondedTo(address operator) external view returns (uint256);
        /// Bonded by an account to everyone: its weight in votes.
        function votesOf(address account) external view returns (uint256);
        /// Bonded in all.
        function bondedTotal() external view returns (uint256);
        /// Forfeited, not yet given to the bonds of validators.
        function forfeited() external view returns (uint256);
        /// The operators to whose pools an account bonds.
        function delegationsOf(address account) external view returns (address[] operators);
        /// On its way out of an operator's pool, and answerable until it has left.
        function leaving(address operator) external view returns (uint256);
        /// What an account has on its way out of an operator's pool.
        function unbondingOf(address operator, address delegator) external view returns (Entry[] entries);
        function validatorOf(address operator) external view returns (Validator validator);
        /// Whose a validator key is or was; zero if nobody's.
        function operatorOf(bytes32 key) external view returns (address operator);
        /// Everyone who stands as a validator.
        function candidates() external view returns (address[] operators);
        /// The set of this epoch, of the one before or, at an epoch's end, of the next.
        function validatorSet(uint64 epoch) external view returns (Member[] members);
        /// SHA-256 that binds an epoch's set; kept for ever.
        function setDigest(uint64 epoch) external view returns (bytes32);
        /// How often a member of this epoch's set, or of the one before, proposed a block and missed its turn.
        function performance(uint64 epoch, uint256 index) external view returns (uint64 proposed, uint64 missed);
    }
}
