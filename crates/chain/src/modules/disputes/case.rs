//! A case: the papers of a dispute, read and found to belong together.
//!
//! In:     order, receipt, manifest and the plan's first kilobyte, as the caller shows them.
//! Out:    what the trace's places and the judge are computed from; bytes out of openings.
//! Holds:  signatures are verified when a dispute opens; later the papers are recognised by their digests, so that nothing
//!         of them is kept on the ledger.

use surety_proof::dispute::{
    Game, Opening, PlanHeader,
    judge::{Leaf, Statement, Verdict, judge},
    opening::CHUNK_BYTES,
    plan,
    prompt::{PROMPT_BYTES_MAX, PromptClaim, judge_prompt},
    text::{TextClaim, judge_text},
};
use surety_types::{
    Canonical as _, Digest, Manifest, Order, Receipt, Request, Signed,
    abi::IDisputes::{self, Papers},
    digest::domain,
};

use super::{GAS_GRAMMAR, GAS_JUDGE, GAS_STEP, Record};
use crate::{
    host::{GAS_HASH, GAS_HASH_WORD, Host, Outcome, refuse, require},
    modules::papers,
};

/// Gas of a byte of request and template, for taking them apart.
const GAS_RENDER_BYTE: u64 = 8;
/// Gas of a step of rendering: some hundred nanoseconds.
const GAS_RENDER_STEP: u64 = 20;

/// The papers of a dispute.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) order: Order,
    pub(super) receipt: Receipt,
    pub(super) receipt_digest: Digest,
    manifest: Manifest,
    pub(super) header: PlanHeader,
}

impl Case {
    /// Reads papers that nobody has seen: signatures are verified, and what they say agrees.
    pub(super) fn open(host: &mut dyn Host, shown: &Papers) -> Outcome<Case> {
        let order: Signed<Order> = papers::open(host, &shown.order)?;
        let receipt: Signed<Receipt> = papers::open(host, &shown.receipt)?;
        papers::require_answers(&order, &receipt)?;
        require(receipt.failure().is_none(), "a failure claims nothing about an answer")?;
        let receipt_digest = receipt.digest();
        Case::with(host, order.into_parts().0, receipt.into_parts().0, receipt_digest, shown)
    }

    /// Reads the papers of a dispute that is open.
    pub(super) fn again(host: &mut dyn Host, shown: &Papers, record: &Record) -> Outcome<Case> {
        let order: Order = papers::read(host, &shown.order)?;
        require(order.digest().0 == record.order.0, "the order is not the dispute's")?;
        let receipt: Receipt = papers::read(host, &shown.receipt)?;
        let receipt_digest = Digest::of(domain::RECEIPT, &shown.receipt);
        require(receipt_digest.0 == record.receipt.0, "the receipt is not the dispute's")?;
        Case::with(host, order, receipt, receipt_digest, shown)
    }

    fn with(
        host: &mut dyn Host,
        order: Order,
        receipt: Receipt,
        receipt_digest: Digest,
        shown: &Papers,
    ) -> Outcome<Case> {
        papers::charge_reading(host, shown.manifest.len())?;
        let Ok(manifest) = Manifest::from_cbor(&shown.manifest) else {
            return refuse("the manifest cannot be read");
        };
        require(manifest.id() == order.model, "the manifest is not the model's")?;
        let Some(plan) = manifest.plan else { return refuse("the model has no plan: nobody can dispute it") };
        papers::charge_reading(host, shown.plan.len())?;
        let Ok(first) = <&[u8; CHUNK_BYTES as usize]>::try_from(shown.plan.as_ref()) else {
            return refuse("the plan's first kilobyte is not shown");
        };
        let header = match PlanHeader::parse(first) {
            Ok(header) => header,
            Err(error) => return refuse(format!("the plan cannot be read: {error}")),
        };
        require(header.is_of(&manifest), "the plan has other numbers than the manifest")?;
        let tree = plan::tree(&header);
        let opening = Opening::of_run(0, first.to_vec(), shown.planSiblings.to_vec());
        charge_opening(host, &opening)?;
        if let Err(error) = tree.check(&plan.0, &opening) {
            return refuse(format!("the plan is not the model's: {error}"));
        }
        Ok(Case { order, receipt, receipt_digest, manifest, header })
    }

    /// The request that was ordered.
    pub(super) fn request(&self, host: &mut dyn Host, shown: &[u8]) -> Outcome<Request> {
        papers::charge_reading(host, shown.len())?;
        require(
            Request::digest_of(shown) == self.order.request_digest,
            "the request is not the one that was ordered",
        )?;
        let Ok(request) = Request::from_cbor(shown) else { return refuse("the request cannot be read") };
        Ok(request)
    }

    /// Whether the text is another than the outputs spell (D-7.1).
    pub(super) fn judge_text(
        &self,
        host: &mut dyn Host,
        game: &Game,
        request: &[u8],
        claim: &[u8],
    ) -> Outcome<()> {
        let request = if request.is_empty() { None } else { Some(self.request(host, request)?) };
        papers::charge_reading(host, claim.len())?;
        let claim = match TextClaim::from_cbor(claim) {
            Ok(claim) => claim,
            Err(error) => return refuse(format!("the claim cannot be read: {}", causes(&error))),
        };
        for shown in &claim.shown {
            charge_opening(host, &shown.opening)?;
        }
        host.charge(GAS_JUDGE)?;
        let judged = judge_text(&self.statement()?, game, request.as_ref(), self.receipt.finish, &claim);
        judged.or_else(|error| refuse(format!("the claim shows nothing: {}", causes(&error))))
    }

    /// Whether the prompt is another than the request renders to (D-7.5).
    pub(super) fn judge_prompt(
        &self,
        host: &mut dyn Host,
        game: &Game,
        (request, template): (&[u8], &[u8]),
        claim: &[u8],
    ) -> Outcome<()> {
        let read = request.len().saturating_add(template.len());
        require(read <= PROMPT_BYTES_MAX, "request and template are longer than what is judged")?;
        let request = self.request(host, request)?;
        papers::charge_reading(host, template.len())?;
        let template = match template {
            [] => None,
            bytes => {
                let digest = Digest::of(domain::TEMPLATE, bytes);
                require(Some(digest) == self.manifest.template_digest, "the template is not the model's")?;
                let Ok(text) = std::str::from_utf8(bytes) else { return refuse("the template is no text") };
                Some(text)
            }
        };
        papers::charge_reading(host, claim.len())?;
        let claim = match PromptClaim::from_cbor(claim) {
            Ok(claim) => claim,
            Err(error) => return refuse(format!("the claim cannot be read: {}", causes(&error))),
        };
        for shown in &claim.shown {
            charge_opening(host, &shown.opening)?;
        }
        // Reading a template takes time by its length, rendering it by its steps.
        host.charge(GAS_JUDGE + GAS_RENDER_BYTE * read as u64 + GAS_RENDER_STEP * claim.steps)?;
        let judged = judge_prompt(&self.statement()?, game, &request, template, &claim);
        judged.or_else(|error| refuse(format!("the claim shows nothing: {}", causes(&error))))
    }

    /// What the trace is of, and its places (D-3).
    pub(super) fn statement(&self) -> Outcome<Statement> {
        match Statement::new(&self.manifest, &self.header, &self.order, &self.receipt) {
            Ok(statement) => Ok(statement),
            Err(error) => refuse(format!("there is no trace of this answer: {}", causes(&error))),
        }
    }

    /// Whether the worker's word is another than the one that follows from those before (D-5.5).
    pub(super) fn judge(&self, host: &mut dyn Host, game: &Game, leaf: &[u8]) -> Outcome<bool> {
        papers::charge_reading(host, leaf.len())?;
        let leaf = match Leaf::from_cbor(leaf) {
            Ok(leaf) => leaf,
            Err(error) => return refuse(format!("the leaf cannot be read: {}", causes(&error))),
        };
        for shown in &leaf.shown {
            charge_opening(host, &shown.opening)?;
        }
        host.charge(GAS_JUDGE + if leaf.grammar.is_some() { GAS_GRAMMAR } else { 0 })?;
        match judge(&self.statement()?, game, &leaf) {
            Ok(Verdict::WorkerLied { .. }) => Ok(true),
            Ok(Verdict::WorkerRight) => Ok(false),
            Err(error) => refuse(format!("the leaf shows nothing: {}", causes(&error))),
        }
    }
}

/// An error with everything that it follows from.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push_str(": ");
        said.push_str(&error.to_string());
        cause = error.source();
    }
    said
}

/// Pays for hashing what is opened and joining it.
pub(super) fn charge_opening(host: &mut dyn Host, opening: &Opening) -> Outcome<()> {
    for run in &opening.runs {
        let chunks = run.bytes.len().div_ceil(CHUNK_BYTES as usize) as u64;
        let words = run.bytes.len().div_ceil(32) as u64;
        host.charge(GAS_HASH + GAS_HASH_WORD * words)?;
        host.charge(GAS_STEP * chunks)?;
    }
    host.charge(GAS_STEP * opening.siblings.len().div_ceil(32) as u64)
}

pub(super) fn opening_of(shown: &IDisputes::Opening) -> Opening {
    Opening::of_run(shown.first, shown.data.to_vec(), shown.siblings.to_vec())
}

/// `N` bytes of a string from byte `at` on, out of chunks that hold them.
pub(super) fn bytes_at<const N: usize>(opening: &Opening, at: u64) -> Outcome<[u8; N]> {
    opening.bytes_at(at).map_or_else(|| refuse("the chunks shown do not hold what is claimed"), Ok)
}
