//! The statement: a gateway's signed word on what became of one request; and the file in which it is passed on with what
//! workers signed.
//!
//! In:     what a gateway noted of a request, or bytes and JSON from a stranger.
//! Out:    the same, checked for its bounds.
//! Holds:  R-12: a statement is its gateway's word and no proof of anything else; what is not on the list of its fields is
//!         refused; texts and lists are bounded. No text of a prompt or an answer is in it.
//! Absent: who is accountable (whoever explains).

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    amount::Amount,
    codec::{Canonical, Invalid, at_most},
    cose::{Kind, Signable},
    digest::Digest,
    envelope::MAX_ID_BYTES,
    evidence::{MAX_EVIDENCE_BYTES, base64_bytes, optional_base64_bytes},
    key::PublicKey,
    text::Text,
};

/// Routing decisions in one statement.
pub const MAX_DECISIONS: usize = 16;
/// Candidates that a decision names.
pub const MAX_CANDIDATES: usize = 8;
/// Constraints that a decision names.
pub const MAX_REMOVED: usize = 20;
/// Events in one statement.
pub const MAX_EVENTS: usize = 128;
/// Orders whose papers are in one file.
pub const MAX_PAPERS: usize = 64;
/// The version of the file this code reads and writes.
pub const DOSSIER_VERSION: u32 = 1;
/// A file, at most: a statement and papers besides an evidence.
pub const MAX_DOSSIER_BYTES: usize = MAX_EVIDENCE_BYTES + (4 << 20);

/// What a gateway says of a request. Signed by `gateway`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Statement {
    /// As in the `x-request-id` header.
    #[n(0)]
    pub request_id: String,
    /// Who signs.
    #[n(1)]
    pub gateway: PublicKey,
    /// The path that was asked.
    #[n(2)]
    pub path: Text<64>,
    /// The name the caller asked for; empty if the request was not understood so far.
    #[n(3)]
    pub model_name: String,
    /// Unix milliseconds: the request came.
    #[n(4)]
    pub received_ms: u64,
    /// Unix milliseconds: it ended, or this was noted last.
    #[n(5)]
    pub ended_ms: u64,
    /// How it ended.
    #[n(6)]
    pub end: StatedEnd,
    /// What the caller was charged.
    #[n(7)]
    pub charge: Amount,
    /// Which workers were listed and what kept how many out, each time somebody was sought, in order of time.
    #[cbor(n(8), decode_with = "crate::codec::list::<{ MAX_DECISIONS as u64 }, _, _>")]
    pub decisions: Vec<Decision>,
    /// What happened, in order of time.
    #[cbor(n(9), decode_with = "crate::codec::list::<{ MAX_EVENTS as u64 }, _, _>")]
    pub events: Vec<StatedEvent>,
    /// Decisions and events that were left out, the later ones.
    #[n(10)]
    pub left_out: u32,
}

/// How a request ended, by its gateway's word.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
#[serde(rename_all = "snake_case")]
pub enum StatedEnd {
    /// With an answer, of which there is evidence.
    #[n(0)]
    Answered,
    /// With an error that the caller was told.
    #[n(1)]
    Failed {
        /// The stable code.
        #[n(0)]
        code: Text<64>,
        /// What the caller was told.
        #[n(1)]
        message: Text<1024>,
        /// Who was said to answer for it.
        #[n(2)]
        accountable: Text<16>,
        /// The worker concerned.
        #[n(3)]
        worker: Option<PublicKey>,
    },
    /// The caller left.
    #[n(2)]
    Left,
    /// The gateway ended in the middle of it.
    #[n(3)]
    Stopped,
    /// Its prompt was counted, which was all that was asked.
    #[n(4)]
    Counted,
}

/// Who was listed for an order, and what kept the others out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Decision {
    /// Unix milliseconds.
    #[n(0)]
    pub at_ms: u64,
    /// How many workers qualified.
    #[n(1)]
    pub qualified: u32,
    /// The first of them, best first.
    #[cbor(n(2), decode_with = "crate::codec::list::<{ MAX_CANDIDATES as u64 }, _, _>")]
    pub best: Vec<PublicKey>,
    /// What kept how many out.
    #[cbor(n(3), decode_with = "crate::codec::list::<{ MAX_REMOVED as u64 }, _, _>")]
    pub removed: Vec<KeptOut>,
}

/// What kept workers out, each counted for the first constraint it fails.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct KeptOut {
    /// The constraint's stable name.
    #[n(0)]
    pub constraint: Text<64>,
    /// How many.
    #[n(1)]
    pub workers: u32,
}

/// Something that happened, by a gateway's word and clock.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct StatedEvent {
    /// Unix milliseconds.
    #[n(0)]
    pub at_ms: u64,
    /// Which.
    #[n(1)]
    pub what: What,
    /// The worker it is about.
    #[n(2)]
    pub worker: Option<PublicKey>,
    /// The order it is about, by digest.
    #[n(3)]
    pub order: Option<Digest>,
    /// Output tokens that the answer had by then.
    #[n(4)]
    pub tokens: u32,
    /// In words: why.
    #[n(5)]
    pub why: Text<160>,
}

/// What may happen to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// An order was sent to a worker.
    #[n(0)]
    Ordered,
    /// It accepted.
    #[n(1)]
    Accepted,
    /// It did not take the order.
    #[n(2)]
    Declined,
    /// It broke off what it had accepted.
    #[n(3)]
    BrokeOff,
    /// It signed that it failed.
    #[n(4)]
    GaveUp,
    /// Another worker is to go on.
    #[n(5)]
    HandedOver,
    /// It is slow or silent; another is asked beside it.
    #[n(6)]
    Slow,
    /// It brought the answer to its end.
    #[n(7)]
    Finished,
    /// The gateway itself stood still, by its own clock.
    #[n(8)]
    StoodStill,
    /// What it computed was compared with the answer; `why` says what came of it.
    #[n(9)]
    Compared,
}

impl Canonical for Statement {
    const NAME: &'static str = "statement";
    const MAX_BYTES: usize = 64 << 10;

    fn check(&self) -> Result<(), Invalid> {
        at_most("request_id", "bytes", self.request_id.len(), MAX_ID_BYTES)?;
        at_most("model_name", "bytes", self.model_name.len(), MAX_ID_BYTES)?;
        at_most("decisions", "decisions", self.decisions.len(), MAX_DECISIONS)?;
        at_most("events", "events", self.events.len(), MAX_EVENTS)?;
        for decision in &self.decisions {
            at_most("best", "workers", decision.best.len(), MAX_CANDIDATES)?;
            at_most("removed", "constraints", decision.removed.len(), MAX_REMOVED)?;
        }
        //
        if self.ended_ms < self.received_ms {
            return Err(Invalid::new("ended_ms", "the times are not in order"));
        }
        Ok(())
    }
}

impl Signable for Statement {
    const KIND: Kind = Kind::Statement;
    fn signer(&self) -> &PublicKey {
        &self.gateway
    }
}

/// What was signed about one order, without the texts it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// COSE bytes of the [`crate::Order`].
    #[serde(with = "base64_bytes")]
    pub order: Vec<u8>,
    /// COSE bytes of the worker's [`crate::Acceptance`].
    #[serde(with = "optional_base64_bytes")]
    pub acceptance: Option<Vec<u8>>,
    /// COSE bytes of the worker's last [`crate::Progress`], if it signed any.
    #[serde(with = "optional_base64_bytes")]
    pub progress: Option<Vec<u8>>,
    /// COSE bytes of the worker's [`crate::Receipt`].
    #[serde(with = "optional_base64_bytes")]
    pub receipt: Option<Vec<u8>>,
}

/// A file with all that is known of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dossier {
    /// [`DOSSIER_VERSION`]. Named so that no other file of ours is taken for one.
    pub surety_dossier: u32,
    /// The request.
    pub request_id: String,
    /// COSE bytes of its gateway's [`Statement`].
    #[serde(with = "optional_base64_bytes")]
    pub statement: Option<Vec<u8>>,
    /// What was signed about its orders, if it has no evidence.
    pub papers: Vec<Paper>,
    /// Its [`crate::Evidence`], if it was answered.
    pub evidence: Option<Box<RawValue>>,
    /// What whoever saved the file read of the ledger: their word. A gateway leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Box<RawValue>>,
}

/// Why a file is not a dossier.
#[derive(Debug, thiserror::Error)]
pub enum DossierError {
    /// Longer than any.
    #[error("a file of {bytes} bytes; at most {MAX_DOSSIER_BYTES} are allowed")]
    TooLong {
        /// What was offered.
        bytes: usize,
    },
    /// Not JSON of the right shape.
    #[error("not a file about a request")]
    Malformed(#[source] serde_json::Error),
    /// Of another version.
    #[error("a file of version {0}; this software reads {DOSSIER_VERSION}")]
    Version(u32),
    /// Too many papers.
    #[error("a file with the papers of {0} orders; at most {MAX_PAPERS} are allowed")]
    Papers(usize),
}

impl Dossier {
    /// Reads one; nothing in it is believed by that.
    pub fn parse(bytes: &[u8]) -> Result<Dossier, DossierError> {
        if bytes.len() > MAX_DOSSIER_BYTES {
            return Err(DossierError::TooLong { bytes: bytes.len() });
        }
        let dossier: Dossier = serde_json::from_slice(bytes).map_err(DossierError::Malformed)?;
        if dossier.surety_dossier != DOSSIER_VERSION {
            return Err(DossierError::Version(dossier.surety_dossier));
        }
        if dossier.papers.len() > MAX_PAPERS {
            return Err(DossierError::Papers(dossier.papers.len()));
        }
        Ok(dossier)
    }

    /// Whether a file is meant as one, and not as evidence.
    pub fn is_meant(bytes: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Named {
            surety_dossier: u32,
        }
        bytes.len() <= MAX_DOSSIER_BYTES
            && serde_json::from_slice::<Named>(bytes).is_ok_and(|named| named.surety_dossier > 0)
    }
}
