//! Receipts: what a worker signs about one order, from acceptance to the last word.
//!
//! In:     an order, what was accepted, what was delivered, how it ended; times and salts as arguments.
//! Out:    the signed acceptance, progress and receipt.
//! Touches: nothing.
//! Holds:  counts and digests are of exactly what was delivered; times never run backwards; a failure commits to
//!         no state and charges nothing.
//! Absent: deciding how it ended. That is `serve`.

use surety_proof::commit::{IdsHasher, TextHasher, prompt_digest, state_commitment};
use surety_types::{
    Acceptance, Amount, Digest, FailureCode, FinishReason, Order, Outcome, Price, Progress, PublicKey,
    Receipt, Region, SecretKey, Signed, Text,
    channel::cover_wei,
    receipt::{ARITHMETIC_VERSION, NO_ARITHMETIC, RECEIPT_VERSION},
};

/// Name and version of this software, as receipts and statuses carry it.
pub const SOFTWARE: &str = concat!("surety/", env!("CARGO_PKG_VERSION"));

/// The account of one order: grows with what is delivered, ends in a receipt.
pub struct Account {
    worker: PublicKey,
    order: Digest,
    model: surety_types::ModelId,
    seed: [u8; 32],
    deadline_ms: u64,
    price: Price,
    arithmetic: u32,
    accepted: bool,
    accepted_ms: u64,
    first_token_ms: Option<u64>,
    prompt_tokens: u32,
    prompt_digest: Digest,
    output: IdsHasher,
    text: TextHasher,
}

impl Account {
    /// An order that was read at this time, and is not accepted yet; what it will cost.
    pub fn open(worker: PublicKey, order: &Order, price: Price, now_ms: u64) -> Self {
        Self {
            worker,
            order: order.digest(),
            model: order.model,
            seed: order.seed_bytes(),
            deadline_ms: order.deadline_ms,
            price,
            arithmetic: ARITHMETIC_VERSION,
            accepted: false,
            accepted_ms: now_ms,
            first_token_ms: None,
            prompt_tokens: 0,
            prompt_digest: prompt_digest(&[]),
            output: IdsHasher::output(),
            text: TextHasher::new(),
        }
    }

    /// The answer will be somebody's word, which no arithmetic bears out and nobody pays for.
    pub fn by_word(&mut self) {
        (self.arithmetic, self.price) = (NO_ARITHMETIC, Price::ZERO);
    }

    /// Whether it will.
    pub fn is_by_word(&self) -> bool {
        self.arithmetic == NO_ARITHMETIC
    }

    /// Notes the prompt, once it is known.
    pub fn prompt(&mut self, ids: &[u32]) {
        self.prompt_tokens = ids.len() as u32;
        self.prompt_digest = prompt_digest(ids);
    }

    /// Accepts the order; says where the worker is, if it says so.
    pub fn accept(
        &mut self,
        key: &SecretKey,
        max_output_tokens: u32,
        region: Option<Region>,
        now_ms: u64,
    ) -> Signed<Acceptance> {
        self.accepted = true;
        self.accepted_ms = self.accepted_ms.max(now_ms);
        let acceptance = Acceptance {
            order: self.order,
            model: self.model,
            worker: self.worker,
            deadline_ms: self.deadline_ms,
            price: self.price,
            prompt_tokens: self.prompt_tokens,
            accepted_ms: self.accepted_ms,
            max_output_tokens,
            region,
        };
        Signed::sign(acceptance, key)
    }

    /// Whether the order is accepted.
    pub fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// Whether an answer of so many tokens costs an amount of wei at all.
    pub fn can_be_charged(&self, max_output_tokens: u32) -> bool {
        cover_wei(&self.price, self.prompt_tokens, max_output_tokens).is_some()
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    /// Notes what is delivered; returns the index of the first of these tokens.
    pub fn deliver(&mut self, tokens: &[u32], text: &str, now_ms: u64) -> u32 {
        let index = self.output.count();
        if !tokens.is_empty() {
            self.first_token_ms.get_or_insert(now_ms.max(self.accepted_ms));
        }
        self.output.push(tokens);
        self.text.push(text);
        index
    }

    /// Whether the deadline has passed.
    pub fn is_late(&self, now_ms: u64) -> bool {
        now_ms > self.deadline_ms
    }

    /// Output tokens delivered.
    pub fn output_tokens(&self) -> u32 {
        self.output.count()
    }

    /// Signs for what is delivered so far.
    pub fn progress(&self, key: &SecretKey, now_ms: u64) -> Signed<Progress> {
        let progress = Progress {
            order: self.order,
            output_tokens: self.output.count(),
            output_digest: self.output.digest(),
            text_digest: self.text.digest(),
            at_ms: now_ms,
            worker: self.worker,
        };
        Signed::sign(progress, key)
    }

    /// The receipt of an answer, whole or cut short by its payer.
    pub fn complete(
        &self,
        key: &SecretKey,
        finish: FinishReason,
        state_digest: &Digest,
        salt: &[u8; 32],
        now_ms: u64,
    ) -> Signed<Receipt> {
        let charge = self.price.charge(self.prompt_tokens, 0, self.output.count());
        let charge = charge.expect("what could not be charged was not accepted");
        let receipt = Receipt {
            finish,
            state_commitment: state_commitment(&self.worker, salt, state_digest),
            charge,
            ..self.receipt(Outcome::Completed, now_ms)
        };
        Signed::sign(receipt, key)
    }

    /// The receipt of an answer by an upstream's word, which counted so many tokens of the prompt.
    pub fn tell(
        &self,
        key: &SecretKey,
        finish: FinishReason,
        prompt_tokens: u32,
        now_ms: u64,
    ) -> Signed<Receipt> {
        assert!(self.is_by_word(), "what was computed is receipted with its state");
        let receipt = Receipt { finish, prompt_tokens, ..self.receipt(Outcome::Completed, now_ms) };
        Signed::sign(receipt, key)
    }

    /// The receipt of a refusal or failure. What was delivered before is accounted for.
    pub fn fail(&self, key: &SecretKey, code: FailureCode, message: &str, now_ms: u64) -> Signed<Receipt> {
        let outcome = Outcome::Failed { code, message: Text::clipped(message) };
        Signed::sign(self.receipt(outcome, now_ms), key)
    }

    fn receipt(&self, outcome: Outcome, now_ms: u64) -> Receipt {
        Receipt {
            version: RECEIPT_VERSION,
            outcome,
            order: self.order,
            model: self.model,
            arithmetic: self.arithmetic,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: 0,
            output_tokens: self.output.count(),
            prompt_digest: self.prompt_digest,
            output_digest: self.output.digest(),
            text_digest: self.text.digest(),
            finish: FinishReason::Failed,
            seed: self.seed,
            state_commitment: Digest::ZERO,
            price: if self.accepted { self.price } else { Price::ZERO },
            charge: Amount::ZERO,
            accepted_ms: self.accepted_ms,
            first_token_ms: self.first_token_ms,
            done_ms: now_ms.max(self.first_token_ms.unwrap_or(self.accepted_ms)),
            software: Text::clipped(SOFTWARE),
            worker: self.worker,
        }
    }
}
