//! What goes wrong between us and the ledger, and whose doing it is.

use std::{fmt, time::Duration};

use alloy_primitives::{B256, Bytes};
use surety_chain::{ExecutionError, StateKey};
use surety_consensus::{CertificateError, EpochRecordError, GenesisChainError};

/// Why a question to the ledger has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The genesis begins no chain.
    #[error("the genesis is not sound")]
    Genesis(#[from] GenesisChainError),
    /// Nobody to ask.
    #[error("no RPC node is named")]
    NoNodes,
    /// Not an address one could ask.
    #[error("{0:?} is no http or https URL")]
    Url(String),
    /// No client can be made.
    #[error("cannot set up HTTP")]
    Http(#[source] reqwest::Error),
    /// Every node failed.
    #[error("no RPC node gave an answer that holds: {}", listed(.0))]
    Nodes(Vec<NodeFault>),
    /// The call reverts; on proven state, so this is the ledger's word.
    #[error("the ledger refuses: {}", .reason.as_deref().unwrap_or("it gives no reason"))]
    Reverted {
        /// As the module or contract words it.
        reason: Option<String>,
        /// What it reverted with.
        output: Bytes,
    },
    /// The call cannot even begin, or halts: too little gas or money, an invalid instruction.
    #[error("the call cannot be made: {0}")]
    Invalid(String),
    /// What the call returns is not what its interface says.
    #[error("what the ledger returns is no {0}")]
    Returns(&'static str),
    /// The question asks for more of the state than is fetched for one question.
    #[error(
        "the question needs more than {keys_max} values of the state, or more than {rounds_max} rounds to find them"
    )]
    TooMuch {
        /// Values that are fetched at most.
        keys_max: usize,
        /// Rounds that are made at most.
        rounds_max: usize,
    },
    /// The rules cannot be applied to the proven state.
    #[error("the proven state cannot be used")]
    Execution(#[from] ExecutionError),
    /// Sent, and not in a block in time. It may still land.
    #[error("{} transaction(s) did not land within {} s; they still may: {}", hashes.len(), waited.as_secs(), hashed(hashes))]
    NotLanded {
        /// What was sent.
        hashes: Vec<B256>,
        /// How long was waited.
        waited: Duration,
    },
    /// The account sent something else under the same nonce, from elsewhere: the nonce is proven to be used, and no node
    /// knows this transaction. That none knows it is their word.
    #[error("another transaction of the same account took the place of {0}")]
    Replaced(B256),
}

impl LedgerError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Genesis(_) => "the causes name what is wrong with the genesis file",
            Self::NoNodes | Self::Url(_) => "name a validator's RPC, such as http://127.0.0.1:8545",
            Self::Nodes(faults) if faults.iter().any(|fault| matches!(fault.fault, Fault::Lie(_))) => {
                "a node that lies was caught: name another operator's RPC, and compare the genesis with theirs"
            }
            Self::Nodes(faults)
                if faults.iter().all(|fault| matches!(fault.fault, Fault::Refused { .. })) =>
            {
                "the nodes' own words say why"
            }
            Self::Nodes(_) => "check that a validator or follower runs there, or name another one's RPC",
            Self::TooMuch { .. } => "ask for less at once",
            Self::NotLanded { .. } => {
                "the network may be busy or the node may keep it to itself: look at the account's nonce before you \
                 send anything again"
            }
            Self::Replaced(_) => "use an account from one process at a time",
            Self::Http(_)
            | Self::Reverted { .. }
            | Self::Invalid(_)
            | Self::Returns(_)
            | Self::Execution(_) => return None,
        })
    }

    /// Whether the same question may be answered later: the nodes failed, not the question.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Nodes(_) | Self::NotLanded { .. })
    }
}

/// A node, and what it got wrong.
#[derive(Debug)]
pub struct NodeFault {
    /// Its scheme, host and port.
    pub node: String,
    /// What it got wrong.
    pub fault: Fault,
}

impl fmt::Display for NodeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.fault)
    }
}

/// What a node got wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection, or it broke.
    #[error("it cannot be reached ({})", root(.0))]
    Unreachable(#[source] reqwest::Error),
    /// No answer in time.
    #[error("it did not answer within {} s", .0.as_secs_f32())]
    Slow(Duration),
    /// More than an answer may be.
    #[error("its answer exceeds {0} bytes")]
    TooLong(usize),
    /// Not an RPC's answer.
    #[error("it answers {0}")]
    Status(reqwest::StatusCode),
    /// Not what was asked for.
    #[error("its answer to {method} makes no sense: {why}")]
    Garbage {
        /// What was asked.
        method: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// An error of the method.
    #[error("it refuses: {message}")]
    Refused {
        /// JSON-RPC's.
        code: i64,
        /// Its words, at most some of them.
        message: String,
    },
    /// Its tip is older than one that was seen before.
    #[error("its newest block is {number}; block {seen} has been seen already")]
    Behind {
        /// What it has.
        number: u64,
        /// What was seen.
        seen: u64,
    },
    /// Its tip is old.
    #[error("its newest block is {age_s} s old")]
    Stale {
        /// Since the block's time.
        age_s: u64,
    },
    /// It serves a chain of another genesis.
    #[error("it serves another chain, with genesis {found}; ours is {expected}")]
    OtherChain {
        /// The digest of our genesis.
        expected: B256,
        /// Of its.
        found: B256,
    },
    /// Its tip moved each time before all values were fetched.
    #[error("its tip moves too fast for so many values at once")]
    Moving,
    /// It says what is not so.
    #[error("it lies: {0}")]
    Lie(#[from] Lie),
}

impl Fault {
    /// Whether the node refused with this code.
    pub(crate) fn refused_with(&self, expected: i64) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == expected)
    }
}

/// What a node says that is not so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// Headers that do not name each other.
    #[error("header {0} does not follow from the one before")]
    Headers(u64),
    /// A header whose epoch is not that of its height.
    #[error("block {number} is not of epoch {epoch}")]
    EpochOf {
        /// The height.
        number: u64,
        /// What the header says.
        epoch: u64,
    },
    /// Another block's certificate.
    #[error("the certificate is of another block than {0}")]
    OtherBlock(u64),
    /// A certificate that shows nothing.
    #[error("the certificate of block {number} does not hold: {why}")]
    Certificate {
        /// The block it is for.
        number: u64,
        /// What is wrong.
        why: CertificateError,
    },
    /// A set of validators that was never elected.
    #[error("the record of epoch {epoch} does not follow from the epoch before: {why}")]
    Epoch {
        /// Of which epoch.
        epoch: u64,
        /// What is wrong.
        why: EpochRecordError,
    },
    /// A value that the state does not hold there.
    #[error("the proof of value {} does not lead to the state of block {number}", B256::from(key.0))]
    Proof {
        /// The value's key.
        key: StateKey,
        /// The block.
        number: u64,
    },
    /// Transactions that the block does not hold.
    #[error("these are not the transactions of block {0}")]
    Transactions(u64),
    /// Receipts that the block does not commit to.
    #[error("these are not the receipts of block {0}")]
    Receipts(u64),
    /// A transaction that is not where it is said to be.
    #[error("transaction {hash} is not in block {number}")]
    NotThere {
        /// The transaction.
        hash: B256,
        /// The block.
        number: u64,
    },
    /// Two blocks at one height, both with a certificate: more than a third of the validators misbehave.
    #[error("two certified blocks of height {0}: the chain has forked")]
    Fork(u64),
}

fn listed(faults: &[NodeFault]) -> String {
    faults.iter().map(NodeFault::to_string).collect::<Vec<_>>().join("; ")
}

fn hashed(hashes: &[B256]) -> String {
    const SHOWN: usize = 4;
    let mut text: Vec<String> = hashes.iter().take(SHOWN).map(B256::to_string).collect();
    if hashes.len() > SHOWN {
        text.push("…".to_owned());
    }
    text.join(", ")
}

/// The first cause, which says most.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
