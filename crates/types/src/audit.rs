//! What an audited worker gives to its auditor.
//!
//! In, out: values; `net` moves their bytes. Holds: every list is bounded before it is read (U-4.4, U-4.5).
//! Absent: salt and state digest. Who knew them could claim to have computed.

use minicbor::{Decode, Encode};

use crate::{
    codec::{Canonical, Invalid, at_most},
    digest::{Digest, domain},
    order::MAX_OUTPUT_TOKENS,
    receipt::MAX_SIGNED_RECEIPT_BYTES,
    request::MAX_REQUEST_BYTES,
};

/// Bytes of a text, at most.
pub const MAX_TEXT_BYTES: usize = 16 << 20;
/// Bytes of a signed order or acceptance, at most.
const MAX_SIGNED_BYTES: usize = 32 << 10;

/// Everything that one answer can be computed again from, and what was signed about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuditEvidence {
    /// COSE bytes of an [`crate::Order`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub order: Vec<u8>,
    /// Canonical CBOR of a [`crate::Request`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub request: Vec<u8>,
    /// COSE bytes of an [`crate::Acceptance`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub acceptance: Vec<u8>,
    /// COSE bytes of a [`crate::Receipt`].
    #[cbor(n(3), with = "minicbor::bytes")]
    pub receipt: Vec<u8>,
    /// Ids that the order resumes from.
    #[cbor(n(4), decode_with = "crate::codec::list::<{ MAX_OUTPUT_TOKENS as u64 }, _, _>")]
    pub resumed: Vec<u32>,
    /// Ids of the output.
    #[cbor(n(5), decode_with = "crate::codec::list::<{ MAX_OUTPUT_TOKENS as u64 }, _, _>")]
    pub output: Vec<u32>,
    /// The delivered text.
    #[n(6)]
    pub text: String,
}

impl AuditEvidence {
    /// The digest that a disclosure names (U-3.2). Panics if it is out of its bounds.
    pub fn digest(&self) -> Digest {
        Digest::of(domain::AUDIT_EVIDENCE, &self.to_cbor())
    }
}

impl Canonical for AuditEvidence {
    const NAME: &'static str = "audit evidence";
    const MAX_BYTES: usize =
        MAX_REQUEST_BYTES + 2 * 5 * MAX_OUTPUT_TOKENS as usize + MAX_TEXT_BYTES + 3 * MAX_SIGNED_BYTES;

    fn check(&self) -> Result<(), Invalid> {
        at_most("order", "bytes", self.order.len(), MAX_SIGNED_BYTES)?;
        at_most("request", "bytes", self.request.len(), MAX_REQUEST_BYTES)?;
        at_most("acceptance", "bytes", self.acceptance.len(), MAX_SIGNED_BYTES)?;
        at_most("receipt", "bytes", self.receipt.len(), MAX_SIGNED_RECEIPT_BYTES)?;
        at_most("resumed", "tokens", self.resumed.len(), MAX_OUTPUT_TOKENS as usize)?;
        at_most("output", "tokens", self.output.len(), MAX_OUTPUT_TOKENS as usize)?;
        at_most("text", "bytes", self.text.len(), MAX_TEXT_BYTES)
    }
}

/// Asks a worker for the evidence of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EvidenceRequest {
    /// The audit's id on the ledger.
    #[n(0)]
    pub id: Digest,
}

impl Canonical for EvidenceRequest {
    const NAME: &'static str = "evidence request";
    const MAX_BYTES: usize = 64;

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn evidence_is_read_as_written_and_every_part_is_in_its_digest() {
        let evidence = AuditEvidence {
            order: vec![1; 40],
            request: vec![2; 9],
            acceptance: vec![3; 7],
            receipt: vec![4; 50],
            resumed: vec![5, 6],
            output: vec![7, 70_000],
            text: "word".into(),
        };
        assert_eq!(AuditEvidence::from_cbor(&evidence.to_cbor()).unwrap(), evidence);
        for changed in [
            AuditEvidence { order: vec![1; 41], ..evidence.clone() },
            AuditEvidence { request: vec![], ..evidence.clone() },
            AuditEvidence { acceptance: vec![4; 7], ..evidence.clone() },
            AuditEvidence { receipt: vec![], ..evidence.clone() },
            AuditEvidence { resumed: vec![6, 5], ..evidence.clone() },
            AuditEvidence { output: vec![7], ..evidence.clone() },
            AuditEvidence { text: "words".into(), ..evidence.clone() },
        ] {
            assert_ne!(changed.digest(), evidence.digest(), "{changed:?}");
        }
        assert!(AuditEvidence { receipt: vec![0; 2_049], ..evidence }.try_to_cbor().is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = AuditEvidence::from_cbor(&bytes);
            let _ = EvidenceRequest::from_cbor(&bytes);
        }
    }
}
