//! Claims: an order that was accepted and not answered.

#![allow(missing_docs, clippy::too_many_arguments)]

use alloy_sol_types::sol;

sol! {
    /// An order that a worker accepted and did not answer by its deadline: the payer claims, the worker's operator shows a
    /// receipt, or the payer is compensated from the operator's stake.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IClaims {
        /// A claim was made; a receipt can be shown until `answerUntil` (seconds).
        event Claimed(uint64 indexed id, address indexed operator, bytes32 indexed order, bytes32 worker, address claimant, address payee, uint64 answerUntil);
        /// A receipt was shown: the claim is over. `toOperator` of the bond went to the operator, the rest back.
        event Answered(uint64 indexed id, address indexed operator, bytes32 receipt, bool completed, uint256 toOperator);
        /// No receipt was shown: so much of the operator's stake went to the payer, and the bond back.
        event Compensated(uint64 indexed id, address indexed operator, address indexed payee, uint256 amount);

        struct Claim {
            bytes32 order;
            bytes32 worker;
            address operator;
            /// Who claimed, and has the bond back.
            address claimant;
            /// Who is compensated.
            address payee;
            /// 0 none, 1 open, 2 a receipt was shown, 3 a signed failure was shown, 4 compensated.
            uint8 state;
            /// Seconds.
            uint64 answerUntil;
            uint256 bond;
            /// What the answer could have cost at most, as far as the channel had it.
            uint256 cost;
            /// What was paid.
            uint256 compensation;
        }

        /// Claims that an order was accepted and not answered. `order` and `acceptance` are COSE bytes; the value sent is
        /// the bond. Where the order names a channel, `channel` is it, and its payer is compensated. Where it names
        /// none, `account` is, and `proof` is the signature of the order's payer over
        /// "surety claim v1" ‖ chain id (8 bytes) ‖ order digest (32 bytes) ‖ account (20 bytes).
        function claim(bytes order, bytes acceptance, bytes channel, address account, bytes proof) external payable returns (uint64 id);
        /// Shows a receipt of the worker's for the order, a failure's too. Anyone may.
        function answer(uint64 id, bytes order, bytes receipt) external;
        /// After the window: compensates.
        function settle(uint64 id) external returns (uint256 compensation);

        function claims(uint64 id) external view returns (Claim claim_);
        function claimCount() external view returns (uint64);
        /// The claim about a worker's acceptance of an order; zero if there is none.
        function claimOf(bytes32 order, bytes32 worker) external view returns (uint64 id);
        /// Claims about an operator, at most 100 from `offset`.
        function claimsOf(address operator, uint64 offset) external view returns (uint64[] ids);
        /// Of an operator's claims: how many were answered, how many with a failure, how many compensated.
        function recordOf(address operator) external view returns (uint64 answered, uint64 failed, uint64 compensated);
    }
}
