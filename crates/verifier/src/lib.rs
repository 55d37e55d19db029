//! The second voice of the receipt: whether evidence holds, written from `docs/spec/receipt.md` alone, small enough for a web page.
//!
//! In:     an evidence file, as `GET /v1/receipts/{id}` gives it: JSON from anybody.
//! Out:    what was checked and what was not, by number; or the first rule that it breaks.
//! Touches: nothing. No I/O, clock, randomness; in a page, the page's memory (`page`).
//! Holds:  what `surety_types::Evidence::parse` and `surety_proof::check_evidence` accept, no more and no less, and for the same
//!         reasons: `tests/agreement.rs` compares the two on good and mutated evidence. Reading takes memory in proportion to the file.
//! Absent: words for people (`web/src/shared/receipt`), and what only a model or the ledger can say.
//!
//! Why a voice of its own: the checks of `proof` with the readers of `types` take 250 kB, nearly all of it for errors in words and
//! encodings that a page does not need. The curve's crate is the same.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

mod blake3;
mod cbor;
mod check;
mod cose;
mod digest;
mod evidence;
mod fault;
mod json;
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "a page's memory is handed over by address")]
mod page;
mod parts;
mod records;
mod view;

use alloc::vec::Vec;

pub use fault::Fault;

/// Bytes of a file, at most.
pub const MAX_EVIDENCE_BYTES: usize = 64 << 20;

/// Numbers as bits: bit n is set if number n of the list is among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bits(pub u32);

/// What is known of an answer, or of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Of [`CHECKS`].
    pub checked: Bits,
    /// Of [`NOT_CHECKED`].
    pub unchecked: Bits,
}

/// Evidence that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What holds of the envelope.
    pub envelope: Found,
    /// In the order of the envelope's parts.
    pub answers: Vec<Found>,
}

/// The first rule that evidence breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub fault: Fault,
    /// The answer that breaks it, from 0; none if it is the file or the envelope.
    pub answer: Option<usize>,
}

/// Whether an evidence file holds.
///
/// # Errors
/// The first rule it breaks.
pub fn verify(json: &[u8]) -> Result<Report, Refusal> {
    let file = evidence::File::parse(json).map_err(|fault| Refusal { fault, answer: None })?;
    let evidence = file.read().map_err(|fault| Refusal { fault, answer: None })?;
    parts::check(&evidence)
}

macro_rules! numbered {
    ($(#[$doc:meta])* $kind:ident, $names:ident: $($name:ident = $number:literal $code:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum $kind { $($name = $number,)* }

        $(#[$doc])*
        pub const $names: &[&str] = &[$($code,)*];
    };
}

numbered! {
    /// What can be checked, by number.
    Check, CHECKS:
    OrderSignature = 0 "order_signature",
    Request = 1 "request",
    Acceptance = 2 "acceptance",
    Receipt = 3 "receipt",
    Parameters = 4 "parameters",
    Word = 5 "word",
    PromptTokens = 6 "prompt_tokens",
    Resumed = 7 "resumed",
    OutputTokens = 8 "output_tokens",
    Text = 9 "text",
    Vector = 10 "vector",
    Progress = 11 "progress",
    Finish = 12 "finish",
    Price = 13 "price",
    Deadline = 14 "deadline",
    Salt = 15 "salt",
    Envelope = 16 "envelope",
    Parts = 17 "parts",
    Continuation = 18 "continuation",
    Repeated = 19 "repeated",
}

numbered! {
    /// What cannot be checked here, by number.
    Unchecked, NOT_CHECKED:
    Payer = 0 "payer",
    Worker = 1 "worker",
    Gateway = 2 "gateway",
    PromptTokens = 3 "prompt_tokens",
    TextOfTokens = 4 "text_of_tokens",
    Limit = 5 "limit",
    EndToken = 6 "end_token",
    Computation = 7 "computation",
    Vector = 8 "vector",
    Clocks = 9 "clocks",
    Audit = 10 "audit",
    Upstream = 11 "upstream",
    Usage = 12 "usage",
}

impl Bits {
    /// Whether number `number` is among them.
    pub fn has(self, number: usize) -> bool {
        number < 32 && self.0 >> number & 1 == 1
    }
}

impl Found {
    fn check(&mut self, check: Check) {
        self.checked.0 |= 1 << check as u8;
    }

    fn leave(&mut self, unchecked: Unchecked) {
        self.unchecked.0 |= 1 << unchecked as u8;
    }
}
