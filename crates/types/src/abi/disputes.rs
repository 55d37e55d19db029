//! Disputes: receipts contested, and judged by arithmetic.

#![allow(missing_docs, clippy::too_many_arguments)]

use alloy_sol_types::sol;

sol! {
    /// Receipts contested, and judged by arithmetic (`docs/spec/dispute.md`). Nobody votes.
    ///
    /// What an *answer* is here: an order and the worker that receipted it. It is disputed by one challenger at a time, and
    /// convicted at most once.
    #[derive(Debug, PartialEq, Eq)]
    #[sol(abi)]
    interface IDisputes {
        event Committed(bytes32 indexed commitment, address indexed from);
        /// A dispute was opened; the worker moves until `moveUntil` (seconds).
        event Opened(uint64 indexed id, address indexed operator, bytes32 indexed receipt, bytes32 order, bytes32 worker, address challenger, uint64 words, uint256 bond, uint64 moveUntil);
        /// A move was made; `turn` moves next.
        event Moved(uint64 indexed id, uint8 turn, uint64 moveUntil);
        /// The node in dispute was divided (D-5.2), into nodes or into bytes: what the challenger picks from.
        event Divided(uint64 indexed id, bytes32[] nodes, bytes data);
        /// The worker showed the ids it was asked for: what it gave to the model.
        event IdsShown(uint64 indexed id, bytes ids);
        /// The worker is convicted: `slashed` of its operator's stake went to the payer (`refund`), to the challenger
        /// (`costs` and `bounty`) and, the rest, to the bonds of the next validators.
        event Convicted(uint64 indexed id, address indexed operator, address indexed challenger, uint8 state, uint256 slashed, uint256 refund, uint256 costs, uint256 bounty);
        /// The challenger lost: `toOperator` of its bond went to the operator, the rest to the bonds of the next validators.
        event Dismissed(uint64 indexed id, address indexed operator, address indexed challenger, uint8 state, uint256 toOperator, uint256 forfeited);
        /// The answer was convicted by other evidence meanwhile: the bond went back.
        event Overtaken(uint64 indexed id, address indexed challenger);
        /// An operator says itself that a receipt is false.
        event Reported(address indexed operator, bytes32 indexed worker, bytes32 indexed receipt);
        /// A refund was paid.
        event Refunded(uint64 indexed id, address indexed payee, uint256 amount);

        struct Dispute {
            bytes32 order;
            bytes32 receipt;
            bytes32 worker;
            address operator;
            address challenger;
            /// Who is refunded; zero while nobody has shown the order's channel, or it names none.
            address payee;
            /// 0 none, 1 open; convicted: 2 by its leaf, 3 its trace is not the receipt's, 4 silent, 5 two answers to
            /// one order, 6 tokens after an end, 7 a stop that is none; dismissed: 8 the leaf is right, 9 the
            /// challenger was silent; 10 convicted by other evidence meanwhile.
            uint8 state;
            /// Who moves: 1 the worker its root, 2 the challenger its pick, 3 the worker its division, 4 the challenger its
            /// leaf, 5 the worker the ids it was asked for; 0 nobody.
            uint8 turn;
            uint64 words;
            uint64 openedAt;
            /// Seconds.
            uint64 moveUntil;
            /// Made by the challenger, the opening too.
            uint64 moves;
            uint256 bond;
            /// What the operator is paid of it if the challenger loses.
            uint256 defence;
            /// What was paid for the answer, as far as its channel had it.
            uint256 paid;
            /// What of the refund waits for `collect`.
            uint256 owed;
        }

        /// What a dispute is about. Signed messages are COSE bytes.
        struct Papers {
            bytes order;
            bytes receipt;
            /// The model's, canonical CBOR.
            bytes manifest;
            /// The plan's first kilobyte (D-2.2), and the values beside its path.
            bytes plan;
            bytes planSiblings;
        }

        /// Chunks of a string (D-1.2).
        struct Opening {
            uint64 first;
            bytes data;
            bytes siblings;
        }

        /// Commits to an accusation: keccak256(sender ‖ order digest ‖ worker ‖ salt). Whoever did so in an earlier block is
        /// paid a bounty, and reports made since do not count.
        function commit(bytes32 commitment) external;
        /// Opens a dispute (D-5.1). The value sent is the bond. `channel` is the order's; it may be left out.
        function open(Papers papers, bytes channel, bytes32 salt) external payable returns (uint64 id);
        /// The same (D-5.1), by a challenger who does not know the prompt's ids: the worker is to show them first (D-5.9).
        function openAsking(Papers papers, bytes channel, bytes32 salt) external payable returns (uint64 id);
        /// The worker shows the prompt's ids that it was asked for, and those resumed from: words of 32 bits, little-endian.
        function showIds(uint64 id, Papers papers, bytes ids) external;
        /// The worker's root (D-5.2): what opens the state commitment, and the trace's first division, of nodes or of bytes.
        function root(uint64 id, bytes32 salt, bytes32 stateDigest, bytes32[] nodes, bytes data) external;
        /// The challenger's pick (D-5.3), with the values beside its path, from above.
        function pick(uint64 id, uint32 index, bytes32 value, bytes32[] siblings) external;
        /// The worker's division (D-5.4), of nodes or of bytes.
        function divide(uint64 id, bytes32[] nodes, bytes data) external;
        /// The challenger's leaf (D-5.5): canonical CBOR.
        function leaf(uint64 id, Papers papers, bytes leaf_) external returns (bool convicted);
        /// The challenger's claim (D-5.6) that output `index` is not the one the trace samples: the chunks of trace and
        /// output ids that hold both.
        function claimOutput(uint64 id, Papers papers, uint32 index, Opening trace, Opening ids) external;
        /// The challenger's claim (D-5.6) that the trace's state digest is another than the worker's.
        function claimState(uint64 id, Papers papers, Opening trace) external;
        /// The challenger's claim (D-7.1) that the text is not what the outputs spell: canonical CBOR. `request` is the order's,
        /// where the claim has a part in it.
        function claimText(uint64 id, Papers papers, bytes request, bytes claim) external;
        /// The challenger's claim (D-7.5) that the prompt is not what the request renders to: canonical CBOR. Request and template
        /// are shown whole; the template of a chat only.
        function claimPrompt(uint64 id, Papers papers, bytes request, bytes template, bytes claim) external;
        /// Ends a dispute in which someone's time is over.
        function timeOut(uint64 id) external;

        /// Convicts by two receipts that say otherwise about one answer (D-4.2 a).
        function twoAnswers(bytes order, bytes first, bytes second, bytes channel, bytes32 salt) external returns (uint64 id);
        /// Convicts by an end token before the last (D-4.2 b); `ids` shows it.
        function pastEnd(Papers papers, uint32 index, Opening ids, bytes channel, bytes32 salt) external returns (uint64 id);
        /// Convicts by a stop at no end token (D-4.2 c); `ids` shows the last.
        function falseStop(Papers papers, bytes request, Opening ids, bytes channel, bytes32 salt) external returns (uint64 id);

        /// An operator names a false receipt of a worker of its own before anyone accuses it of it. Once in a time.
        function report(bytes32 worker, bytes32 receipt) external;
        /// Pays what is owed of a refund, to the payer of the order's channel.
        function collect(uint64 id, bytes channel) external;

        function disputes(uint64 id) external view returns (Dispute dispute);
        function disputeCount() external view returns (uint64);
        /// The last dispute about an answer, whether it was convicted, and how many challengers lost.
        function answerOf(bytes32 order, bytes32 worker) external view returns (uint64 id, bool convicted, uint64 lost);
        /// The last dispute about a receipt, by its digest; zero if there is none.
        function disputeOf(bytes32 receipt) external view returns (uint64 id);
        /// Disputes about an operator, at most 100 from `offset`.
        function disputesOf(address operator, uint64 offset) external view returns (uint64[] ids);
        /// What a challenger must send, and what of it the operator is paid for a defence.
        function bondFor(uint64 words, bytes32 order, bytes32 worker) external view returns (uint256 bond, uint256 defence);
        /// What the nodes and the turn of an open dispute are: the state of the game, as `surety_proof` reads it.
        function gameOf(uint64 id) external view returns (bytes game, bytes32 stateDigest);
        /// What an operator reported last, and when (in seconds) it can again; zeros if it never did.
        function reportOf(address operator) external view returns (bytes32 receipt, uint64 height, uint64 again);
    }
}
