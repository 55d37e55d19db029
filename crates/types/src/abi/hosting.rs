//! Hosting: who keeps the files of which model, shown by audits, paid from what others gave for it.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol! {
    /// Who keeps the files of which model, shown by audits and paid for from a pool that anyone fills.
    ///
    /// In every epoch each pin is challenged with some 1 KiB chunks of the model's files, drawn by a beacon that nobody knew
    /// in the epoch before. Who opens them against the files' BLAKE3 digests before the epoch ends has proven the pin,
    /// and the first of a model to do so share what its pool pays in that epoch.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IHosting {
        /// The files of a model are known here from now on.
        event Listed(bytes32 indexed model, uint64 files, uint64 chunks);
        event Funded(bytes32 indexed model, address indexed from, uint256 amount, uint256 pool);
        /// An operator says that it keeps a model; it is challenged from the next epoch on.
        event Pinned(bytes32 indexed model, address indexed operator, bytes32 indexed worker);
        event Unpinned(bytes32 indexed model, address indexed operator, uint64 proven, uint64 missed);
        /// A pin was proven in an epoch. Nothing is paid to those who come after enough others, or from an empty pool.
        event Proven(bytes32 indexed model, address indexed operator, uint64 indexed epoch, uint256 paid);

        struct File {
            /// Plain BLAKE3 of its bytes.
            bytes32 digest;
            uint64 bytes_;
        }

        struct Hosted {
            /// Files; zero if the model is not listed.
            uint64 files;
            /// Chunks of all its files: 1 KiB each, the last of a file shorter.
            uint64 chunks;
            /// In wei: what was given for the model and is not yet paid.
            uint256 pool;
            uint64 pins;
            /// In wei: what the next pin proven in this epoch is paid.
            uint256 share;
            /// Pins that were paid in this epoch.
            uint64 paid;
        }

        struct Pin {
            address operator;
            /// Draws the chunks, and is asked for them.
            bytes32 worker;
            /// The epoch in which it was pinned; challenged in those after.
            uint64 since;
            /// The last epoch in which it was proven; zero if in none.
            uint64 lastProven;
            /// Epochs in which it was challenged and proven, and those in which it was not, of this operator and model.
            uint64 proven;
            uint64 missed;
        }

        /// A chunk of a file of a model.
        struct Chunk {
            /// Counts from zero, as the manifest does.
            uint64 file;
            /// Counts from zero, within the file.
            uint64 index;
        }

        /// A chunk's bytes and the values beside its path in BLAKE3's tree, from the root down.
        struct Opening {
            bytes data;
            bytes32[] siblings;
        }

        /// Makes the files of a published model known, from its manifest (canonical CBOR). Once is enough, by anyone.
        function list(bytes manifest) external returns (bytes32 model);
        /// Gives the value sent for the hosting of a listed model. It is paid to who proves to keep the model, a part in
        /// every epoch, and to nobody else: it is not refunded.
        function fund(bytes32 model) external payable;
        /// Says that the caller, an operator with the worker's minimum of stake, keeps a listed model with a worker of its
        /// own that is in service. One pin for a model and operator.
        function pin(bytes32 model, bytes32 worker) external;
        /// Takes the caller's pin back. What was challenged in this epoch and is not proven is missed.
        function unpin(bytes32 model) external;
        /// Proves an operator's pin for the current epoch with openings of every chunk of its challenge, in order. Anyone
        /// may send it; the operator is paid.
        function prove(bytes32 model, address operator, uint64 epoch, Opening[] openings) external returns (uint256 paid);

        function hosted(bytes32 model) external view returns (Hosted hosted_);
        function filesOf(bytes32 model) external view returns (File[] files);
        /// At most 100 from `offset`.
        function pinsOf(bytes32 model, uint64 offset) external view returns (Pin[] pins);
        /// The pin of an operator; `since` and `worker` are zero if there is none now.
        function pinOf(bytes32 model, address operator) external view returns (Pin pin_);
        /// The current epoch and what draws its chunks.
        function beacon() external view returns (uint64 epoch, bytes32 beacon_);
        /// The chunks that an operator has to open in the current epoch; none if its pin is younger.
        function challenge(bytes32 model, address operator) external view returns (uint64 epoch, Chunk[] chunks);
    }
}
