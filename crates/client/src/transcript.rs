//! The transcript: what a worker has said so far about one order, held against itself.
//!
//! In:     its messages, in order. Out: events, or what was wrong with a message.
//! Touches: nothing. No I/O and no clock.
//! Holds: : acceptance first, then the scored prompt, then frames without gaps and progress that agrees
//!         with them, then the receipt, which must agree with all of it.

use std::mem::take;

use surety_proof::{
    Expected, Fault, IdsHasher, Opened, TextHasher, check::check_acceptance, check_opened_answer,
};
use surety_types::{
    Acceptance, Answer, Canonical, FromWorker, Order, Price, Progress, PublicKey, Receipt, Region, Request,
    Signed, channel::COVER_TOKENS,
};

use crate::{
    connection::OrderOptions,
    session::{Completed, Refusal, SessionError, SessionEvent},
};

/// The most text that one token may stand for. Vocabularies hold nothing near it.
const MAX_TEXT_BYTES_PER_TOKEN: usize = 4096;

#[derive(Debug)]
pub(crate) struct Transcript {
    order: Signed<Order>,
    request: Request,
    resumed_ids: Vec<u32>,
    channel: Option<Vec<u8>>,
    worker: PublicKey,
    context_tokens: Option<u32>,
    arithmetic: Option<u32>,
    /// What the acceptance must say, if it matters.
    region: Option<Region>,
    acceptance: Option<Signed<Acceptance>>,
    prompt_ids: Vec<u32>,
    embedding: Option<Vec<u8>>,
    output_ids: Vec<u32>,
    text: String,
    ids_hasher: IdsHasher,
    text_hasher: TextHasher,
    /// The last progress, with the bytes of text that it signs for.
    progress: Option<(Signed<Progress>, usize)>,
    pub(crate) cancelled: bool,
}

impl Transcript {
    pub(crate) fn new(
        order: Signed<Order>,
        request: Request,
        resumed_ids: Vec<u32>,
        channel: Option<Vec<u8>>,
        worker: PublicKey,
        options: &OrderOptions,
    ) -> Self {
        Transcript {
            order,
            request,
            resumed_ids,
            channel,
            worker,
            context_tokens: options.context_tokens,
            arithmetic: options.arithmetic,
            region: options.region.clone(),
            acceptance: None,
            prompt_ids: Vec::new(),
            embedding: None,
            output_ids: Vec::new(),
            text: String::new(),
            ids_hasher: IdsHasher::output(),
            text_hasher: TextHasher::new(),
            progress: None,
            cancelled: false,
        }
    }

    pub(crate) fn order(&self) -> &Signed<Order> {
        &self.order
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.acceptance.is_some()
    }

    pub(crate) fn output_tokens(&self) -> u32 {
        self.ids_hasher.count()
    }

    /// Output tokens at the last progress.
    fn signed_tokens(&self) -> u32 {
        self.progress.as_ref().map_or(0, |(progress, _)| progress.output_tokens)
    }

    /// What would be left behind if the answer broke off now; none if it was not accepted, or is receipted.
    pub(crate) fn so_far(&self) -> Option<Answer> {
        let acceptance = self.acceptance.as_ref()?;
        let (progress, text_bytes) = match &self.progress {
            Some((progress, bytes)) => (Some(progress), *bytes),
            None => (None, 0),
        };
        let signed = self.signed_tokens() as usize;
        Some(Answer {
            order: self.order.bytes().to_vec(),
            request: self.request.to_cbor(),
            acceptance: Some(acceptance.bytes().to_vec()),
            receipt: None,
            progress: progress.map(|progress| progress.bytes().to_vec()),
            salt: [0; 32],
            // A receipt may have taken them already.
            output_ids: self.output_ids.get(..signed)?.to_vec(),
            resumed_ids: self.resumed_ids.clone(),
            text: self.text.get(..text_bytes)?.to_owned(),
            channel: self.channel.clone(),
            prompt_ids: None,
            embedding: None,
        })
    }

    /// The last progress, and what it signs for.
    pub(crate) fn signed(&self) -> Option<(&[u8], &[u32], &str)> {
        let (progress, text_bytes) = self.progress.as_ref()?;
        let ids = self.output_ids.get(..progress.output_tokens as usize)?;
        Some((progress.bytes(), ids, self.text.get(..*text_bytes)?))
    }

    /// Takes the next message. None for one that has nothing to tell.
    pub(crate) fn take(&mut self, message: FromWorker) -> Result<Option<SessionEvent>, SessionError> {
        match message {
            FromWorker::Acceptance(bytes) => self.take_acceptance(&bytes).map(Some),
            FromWorker::Prompt { index, ids, logprobs } => {
                self.take_prompt(index, &ids)?;
                Ok(Some(SessionEvent::Prompt { index, ids, logprobs }))
            }
            FromWorker::Frame { index, tokens, text, logprobs } => {
                self.take_frame(index, &tokens, &text, logprobs.len())?;
                Ok(Some(SessionEvent::Tokens { tokens, text, logprobs }))
            }
            FromWorker::Embedding(vector) => self.take_embedding(vector).map(|()| None),
            FromWorker::Progress(bytes) => self.take_progress(&bytes).map(|()| None),
            FromWorker::Receipt { receipt, salt } => self.take_receipt(receipt, salt).map(Some),
        }
    }

    ///
    fn take_acceptance(&mut self, bytes: &[u8]) -> Result<SessionEvent, SessionError> {
        if self.acceptance.is_some() {
            return Err(self.out_of_turn("a second acceptance"));
        }
        let bad = |fault| SessionError::BadAcceptance { worker: self.worker, fault };
        let acceptance = Signed::<Acceptance>::open_by(bytes, &self.worker)
            .map_err(|error| bad(Fault::Acceptance(error).into()))?;
        check_acceptance(&self.order, &acceptance, self.context_tokens).map_err(|fault| bad(fault.into()))?;
        if self.region.is_some() && self.region != acceptance.region {
            return Err(self.bad_frame("an acceptance that claims another region than its status"));
        }
        let event = SessionEvent::Accepted(acceptance.value().clone());
        self.acceptance = Some(acceptance);
        Ok(event)
    }

    ///
    fn take_prompt(&mut self, index: u32, ids: &[u32]) -> Result<(), SessionError> {
        let Some(acceptance) = &self.acceptance else {
            return Err(self.out_of_turn("a prompt before the acceptance"));
        };
        if self.request.prompt_logprobs.is_none() {
            return Err(self.out_of_turn("a scored prompt that was not asked for"));
        }
        if !self.output_ids.is_empty() || !self.text.is_empty() {
            return Err(self.out_of_turn("a prompt after the first frame"));
        }
        self.expect_index(index, self.prompt_ids.len())?;
        if self.prompt_ids.len() + ids.len() > prompt_tokens(acceptance, &self.order) {
            return Err(self.bad_frame("a longer prompt than was accepted"));
        }
        self.prompt_ids.extend(ids);
        Ok(())
    }

    ///
    fn take_frame(
        &mut self,
        index: u32,
        tokens: &[u32],
        text: &str,
        logprobs: usize,
    ) -> Result<(), SessionError> {
        let Some(acceptance) = &self.acceptance else {
            return Err(self.out_of_turn("a frame before the acceptance"));
        };
        if self.request.prompt_logprobs.is_some()
            && self.prompt_ids.len() != prompt_tokens(acceptance, &self.order)
        {
            return Err(self.out_of_turn("a frame before the whole of the scored prompt"));
        }
        self.expect_index(index, self.output_ids.len())?;
        if self.output_ids.len() + tokens.len() > acceptance.max_output_tokens as usize {
            return Err(self.bad_frame("more tokens than were accepted"));
        }
        // What was held back at the end of an answer that is resumed may come before any token.
        let spelling = self.resumed_ids.len() + self.output_ids.len() + tokens.len();
        if self.text.len() + text.len() > MAX_TEXT_BYTES_PER_TOKEN * spelling {
            return Err(self.bad_frame("more text than its tokens can spell"));
        }
        if logprobs != if self.request.logprobs.is_some() { tokens.len() } else { 0 } {
            return Err(self.bad_frame("other log-probabilities than were asked for"));
        }
        //
        let unsigned = (self.output_ids.len() + tokens.len()).saturating_sub(self.signed_tokens() as usize);
        if acceptance.price != Price::ZERO && unsigned > COVER_TOKENS as usize {
            return Err(self.out_of_turn("two steps of paid tokens without signing for them"));
        }
        self.output_ids.extend(tokens);
        self.text.push_str(text);
        self.ids_hasher.push(tokens);
        self.text_hasher.push(text);
        Ok(())
    }

    ///
    fn take_embedding(&mut self, vector: Vec<u8>) -> Result<(), SessionError> {
        if self.acceptance.is_none() {
            return Err(self.out_of_turn("a vector before the acceptance"));
        }
        let Some(wanted) = self.request.embedding else {
            return Err(self.out_of_turn("a vector that was not asked for"));
        };
        if self.embedding.is_some() {
            return Err(self.out_of_turn("a second vector"));
        }
        if wanted.dimensions.is_some_and(|wanted| vector.len() != 4 * wanted as usize) {
            return Err(self.bad_frame("a vector of other dimensions than were ordered"));
        }
        self.embedding = Some(vector);
        Ok(())
    }

    ///
    fn take_progress(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.acceptance.is_none() {
            return Err(self.out_of_turn("progress before the acceptance"));
        }
        let bad = |problem| SessionError::BadProgress { worker: self.worker, problem };
        let progress = Signed::<Progress>::open_by(bytes, &self.worker)
            .map_err(|error| bad(ProgressProblem::Unsigned(error)))?;
        if progress.order != self.order.digest() {
            return Err(bad(ProgressProblem::OtherOrder));
        }
        if progress.output_tokens != self.ids_hasher.count()
            || progress.output_digest != self.ids_hasher.digest()
        {
            return Err(bad(ProgressProblem::OtherTokens));
        }
        if progress.text_digest != self.text_hasher.digest() {
            return Err(bad(ProgressProblem::OtherText));
        }
        self.progress = Some((progress, self.text.len()));
        Ok(())
    }

    ///
    fn take_receipt(&mut self, receipt: Vec<u8>, salt: [u8; 32]) -> Result<SessionEvent, SessionError> {
        // A failure may come before the whole of the scored prompt: then there are no ids to hold it against.
        let failed =
            Signed::<Receipt>::peek_value(&receipt).is_ok_and(|(receipt, _)| receipt.failure().is_some());
        let prompt_ids =
            (self.request.prompt_logprobs.is_some() && !failed).then(|| take(&mut self.prompt_ids));
        if self.request.embedding.is_some() && self.embedding.is_none() && !failed {
            return Err(self.out_of_turn("a receipt without the vector"));
        }
        // What was kept moves into the answer: nothing can follow a receipt.
        let answer = Answer {
            order: self.order.bytes().to_vec(),
            request: self.request.to_cbor(),
            acceptance: self.acceptance.as_ref().map(|acceptance| acceptance.bytes().to_vec()),
            receipt: Some(receipt),
            progress: None,
            salt,
            output_ids: take(&mut self.output_ids),
            resumed_ids: take(&mut self.resumed_ids),
            text: take(&mut self.text),
            channel: take(&mut self.channel),
            prompt_ids,
            embedding: take(&mut self.embedding).filter(|_| !failed),
        };
        let expected = Expected {
            payer: Some(self.order.payer),
            worker: Some(self.worker),
            context_tokens: self.context_tokens,
            cancelled: Some(self.cancelled),
            arithmetic: self.arithmetic,
        };
        let opened = Opened { order: Some(&self.order), acceptance: self.acceptance.as_ref() };
        let checked = match check_opened_answer(&answer, &expected, opened) {
            Ok(checked) => checked,
            Err(fault) => {
                (self.output_ids, self.resumed_ids, self.text) =
                    (answer.output_ids, answer.resumed_ids, answer.text);
                return Err(SessionError::BadReceipt { worker: self.worker, fault: Box::new(fault) });
            }
        };
        let receipt = checked.receipt.clone().expect("it was in the answer");
        Ok(match receipt.failure() {
            Some(_) => SessionEvent::Refused(Box::new(Refusal { receipt, answer })),
            None => SessionEvent::Finished(Box::new(Completed { receipt, answer, checked })),
        })
    }

    fn expect_index(&self, found: u32, expected: usize) -> Result<(), SessionError> {
        if found as usize == expected {
            return Ok(());
        }
        Err(SessionError::Gap { worker: self.worker, expected: expected as u32, found })
    }

    fn out_of_turn(&self, what: &'static str) -> SessionError {
        SessionError::OutOfTurn { worker: self.worker, what }
    }

    fn bad_frame(&self, what: &'static str) -> SessionError {
        SessionError::BadFrame { worker: self.worker, what }
    }
}

/// Tokens of the request's own prompt, as a worker accepted it.
fn prompt_tokens(acceptance: &Acceptance, order: &Order) -> usize {
    acceptance.prompt_tokens.saturating_sub(order.resumed_tokens()) as usize
}

/// What is wrong with a progress.
#[derive(Debug, thiserror::Error)]
pub enum ProgressProblem {
    /// It cannot be opened.
    #[error("it is not validly signed")]
    Unsigned(#[source] surety_types::OpenError),
    /// It is for another order.
    #[error("it is for another order")]
    OtherOrder,
    /// Its tokens are not those that were sent.
    #[error("its tokens are not the ones that were sent")]
    OtherTokens,
    /// Its text is not the one that was sent.
    #[error("its text is not the one that was sent")]
    OtherText,
}
