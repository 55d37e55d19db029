//! Operators: who runs workers, under which keys, for what price.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// Operators, their worker keys and endpoints, and the models they offer with prices.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IOperators {
        event OperatorRegistered(address indexed operator, string name, string url);
        event WorkerAdded(address indexed operator, bytes32 indexed key, string endpoint);
        event WorkerEndpointChanged(address indexed operator, bytes32 indexed key, string endpoint);
        /// The key signs no more receipts; it stays answerable for those it signed.
        event WorkerRetired(address indexed operator, bytes32 indexed key);
        /// A worker of the operator's was convicted: none of them is in service until then (seconds).
        event WorkersJailed(address indexed operator, uint64 until);
        event Offered(address indexed operator, bytes32 indexed model, uint128 promptPrice, uint128 cachedPrice, uint128 outputPrice);
        event OfferWithdrawn(address indexed operator, bytes32 indexed model);

        struct Operator {
            string name;
            string url;
            /// Block in which it registered; zero if it never did.
            uint64 height;
            uint64 workers;
            uint64 offers;
        }

        struct Worker {
            bytes32 key;
            /// Zero if nobody's.
            address operator;
            string endpoint;
            uint64 addedHeight;
            /// Zero while in service.
            uint64 retiredHeight;
        }

        /// What a million tokens cost, in micro-credits.
        struct Offer {
            bytes32 model;
            uint128 promptPrice;
            uint128 cachedPrice;
            uint128 outputPrice;
        }

        /// Registers the caller, or changes its name and page. Needs the worker's minimum stake.
        function register(string name, string url) external;
        /// Adds a worker's ed25519 key. `proof` is the key's signature over
        /// "surety worker key v1" ‖ chain id (8 bytes) ‖ operator (20 bytes) ‖ key (32 bytes).
        function addWorker(bytes32 key, string endpoint, bytes proof) external;
        function setEndpoint(bytes32 key, string endpoint) external;
        /// Retires one key and adds another.
        function rotateWorker(bytes32 retired, bytes32 key, string endpoint, bytes proof) external;
        function retireWorker(bytes32 key) external;
        /// Offers a published model, or changes its price. Needs the worker's minimum stake.
        function offer(bytes32 model, uint128 promptPrice, uint128 cachedPrice, uint128 outputPrice) external;
        function withdrawOffer(bytes32 model) external;

        function operatorOf(address account) external view returns (Operator operator);
        /// Seconds; until then none of its workers is in service. Zero if they never were in jail.
        function jailedUntil(address operator) external view returns (uint64);
        function worker(bytes32 key) external view returns (Worker worker_);
        function operatorCount() external view returns (uint64);
        /// At most 100 from `offset`.
        function operators(uint64 offset) external view returns (address[] accounts);
        /// At most 100 from `offset`, retired ones too.
        function workersOf(address operator, uint64 offset) external view returns (Worker[] workers);
        /// At most 100 from `offset`.
        function offersOf(address operator, uint64 offset) external view returns (Offer[] offers);
    }
}
