//! Params: what governance has set, to read.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// What governance has set, to read. A name is ASCII, padded with zeros.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IParams {
        struct Parameter {
            bytes32 name;
            uint256 value;
            /// Governance can set no less.
            uint256 least;
            /// Governance can set no more.
            uint256 most;
            /// Fixed at genesis.
            bool fixed_;
        }

        function get(bytes32 name) external view returns (uint256 value);
        function all() external view returns (Parameter[] parameters);
    }
}
