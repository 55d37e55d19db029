//! Inclusion: what a worker's word about a receipt's place in its log is worth.
//!
//! In:     the word, and the root that its operator posted. Out: whether the one leads to the other.
//! Touches: the ledger, through an account that has proven what it returns.
//! Holds:  what counts as included leads to a root on the ledger; an honest worker whose root is young is not called false.
//! Absent: asking the worker ([`crate::Connection::inclusion`]).

use alloy_primitives::Address;
use surety_chain::{leaf_hash, verify_inclusion};
use surety_types::{
    Digest, Inclusion,
    abi::{IReceipts, Module},
};

use crate::channel::{Account, AccountError, view};

/// Whether a receipt is in its operator's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Included {
    /// It is: the path leads from it to the root on the ledger.
    Shown(InclusionProof),
    /// By the worker's word it will be; the ledger has no root of that epoch yet.
    NotYet {
        /// Which.
        epoch: u64,
    },
    /// The worker showed a path that does not lead there.
    Refuted {
        /// Of which epoch it says to be.
        epoch: u64,
    },
    /// The worker showed nothing.
    NotShown,
}

/// That a receipt is in the log of an epoch. RFC 9162 §2.1.3, SHA-256; its entry is the receipt's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// The ledger's.
    pub epoch: u64,
    /// The leaf's, from 0.
    pub index: u64,
    /// Leaves of the log.
    pub size: u64,
    /// The log's, as it stands on the ledger.
    pub root: Digest,
    /// From the leaf to the root.
    pub path: Vec<Digest>,
}

/// What `said` is worth, by the log that `operator` posted.
pub async fn checked(
    account: &dyn Account,
    operator: Address,
    receipt: &Digest,
    said: Inclusion,
) -> Result<Included, AccountError> {
    let (epoch, index, path) = match said {
        Inclusion::Unknown => return Ok(Included::NotShown),
        Inclusion::Unposted { epoch } => return Ok(Included::NotYet { epoch }),
        Inclusion::Posted { epoch, index, path } => (epoch, index, path),
    };
    let log = view(account, Module::Receipts, &IReceipts::logOfCall { operator, epoch }).await?;
    if log.height == 0 {
        return Ok(Included::NotYet { epoch });
    }
    let proof = InclusionProof { epoch, index, size: log.size, root: Digest(log.root.0), path };
    Ok(if proof.holds(receipt) { Included::Shown(proof) } else { Included::Refuted { epoch } })
}

impl InclusionProof {
    /// Whether the path leads from the receipt to the root.
    pub fn holds(&self, receipt: &Digest) -> bool {
        let path: Vec<[u8; 32]> = self.path.iter().map(|hash| hash.0).collect();
        verify_inclusion(&self.root.0, self.size, self.index, &leaf_hash(&receipt.0), &path)
    }
}

impl Included {
    /// The same in words, for people.
    pub fn said(&self) -> String {
        match self {
            Included::Shown(InclusionProof { epoch, index, size, .. }) => format!(
                "its receipt is entry {} of {size} in its operator's log of epoch {epoch}, by the root on the ledger",
                index + 1
            ),
            Included::NotYet { epoch } => format!(
                "by its worker's word its receipt is in the log of epoch {epoch}, whose root is not on the ledger yet"
            ),
            Included::Refuted { epoch } => format!(
                "its worker shows a place in the log of epoch {epoch} that the root on the ledger does not bear out"
            ),
            Included::NotShown => {
                "its worker shows its receipt in no log: no audit can draw what is in none".to_owned()
            }
        }
    }
}
