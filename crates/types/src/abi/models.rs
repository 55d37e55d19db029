//! Models: manifests admitted to the network, and the names people call them by.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// Manifests admitted to the network, and the names people call them by.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IModels {
        /// A manifest was admitted. Its canonical CBOR is in the event; `id` is its digest.
        event Published(bytes32 indexed id, address indexed publisher, uint64 disputeLeafBytes, bytes manifest);
        event NameChanged(string name, bytes32 indexed id, address indexed owner_, uint64 version);
        event NameTransferred(string name, address indexed from, address indexed to);

        struct Model {
            address publisher;
            /// Block of its admission; zero if never.
            uint64 height;
            uint32 arithmetic;
            /// Worst reachable leaf of a dispute, with its openings.
            uint64 disputeLeafBytes;
            /// Whether what it says can be disputed (D-2.1); if not it is offered for nothing.
            bool disputable;
        }

        struct Name {
            address holder;
            bytes32 id;
            uint64 height;
            /// Counts from one.
            uint64 version;
        }

        /// Admits a manifest (canonical CBOR), unless a dispute about the model could need too large a leaf.
        function publish(bytes manifest) external returns (bytes32 id);
        /// Points a name at a published model. A free name becomes the caller's; a held one only its holder points.
        function setName(string name, bytes32 id) external;
        function transferName(string name, address to) external;

        function model(bytes32 id) external view returns (Model model_);
        function modelCount() external view returns (uint64);
        /// At most 100 from `offset`.
        function models(uint64 offset) external view returns (bytes32[] ids);
        function resolve(string name) external view returns (Name name_);
        /// What a name pointed at in a version, and since which block.
        function nameHistory(string name, uint64 version) external view returns (bytes32 id, uint64 height);
        /// What admission would compute for a manifest.
        function disputeLeafBytes(bytes manifest) external view returns (uint64 bytes_);
    }
}
