//! Checking an answer against everything that was signed about it, without running the model.
//!
//! In:     an [`Answer`] or a whole [`Evidence`], and what the checker knows for itself.
//! Out:    what holds and what could not be checked; or the first thing that does not hold.
//! Holds:  R-4 … R-8, each rule with its own [`Fault`]. Nothing about the model's arithmetic is concluded here: that
//!         takes a recomputation, whose result [`check_state`] compares.

use std::fmt;

use surety_types::{
    Acceptance, Amount, Answer, Canonical, DecodeError, Digest, Envelope, Evidence, FinishReason, Invalid,
    OpenError, Order, Part, Price, Progress, Prompt, PublicKey, Receipt, Request, Signed,
    embedding::{vector_digest, vector_of},
    receipt::{ARITHMETIC_VERSION, NO_ARITHMETIC},
};

use crate::commit::{output_digest, prompt_digest, state_commitment, text_digest};

/// What the checker knows without being told by the answer. The default knows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// Whose order it must be.
    pub payer: Option<PublicKey>,
    /// Whose answer it must be.
    pub worker: Option<PublicKey>,
    /// The context the worker offered.
    pub context_tokens: Option<u32>,
    /// Whether the payer cancelled.
    pub cancelled: Option<bool>,
    /// The version of the arithmetic in the model's manifest, or that it has none. Unknown: the receipt says which.
    pub arithmetic: Option<u32>,
}

/// An answer that keeps to everything that was signed about it.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What was asked.
    pub order: Signed<Order>,
    /// Its content.
    pub request: Request,
    /// What was promised; none if it was refused.
    pub acceptance: Option<Signed<Acceptance>>,
    /// Who answered.
    pub worker: PublicKey,
    /// What was claimed; none if the worker broke off without a receipt.
    pub receipt: Option<Signed<Receipt>>,
    /// What it signed last, if it broke off and had signed anything.
    pub progress: Option<Signed<Progress>>,
    /// What holds.
    pub checked: Vec<Check>,
    /// What could not be checked, and would take what.
    pub unchecked: Vec<Unchecked>,
}

impl Checked {
    /// Output tokens that the worker signed for.
    pub fn output_tokens(&self) -> u32 {
        let progress = self.progress.as_ref().map_or(0, |progress| progress.output_tokens);
        self.receipt.as_ref().map_or(progress, |receipt| receipt.output_tokens)
    }

    /// Tokens that the worker was given, the prompt's and those it resumed from, as it counted them.
    pub fn prompt_tokens(&self) -> u32 {
        // an upstream counts it when it has answered.
        let accepted = self.acceptance.as_ref().filter(|_| !self.is_by_word());
        let accepted = accepted.map(|acceptance| acceptance.prompt_tokens);
        accepted.or(self.receipt.as_ref().map(|receipt| receipt.prompt_tokens)).unwrap_or(0)
    }

    /// What is to be paid by what was signed.
    pub fn charge(&self) -> Amount {
        self.receipt.as_ref().map_or(Amount::ZERO, |receipt| receipt.charge)
    }

    /// Whether it is an answer by its worker's word alone: nobody can compute it again.
    pub fn is_by_word(&self) -> bool {
        self.receipt.as_ref().is_some_and(|receipt| receipt.is_by_word())
    }

    /// Whether the answer ends here: it is receipted, and no failure.
    pub fn is_end(&self) -> bool {
        self.receipt.as_ref().is_some_and(|receipt| receipt.failure().is_none())
    }
}

/// Something that was checked and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The payer signed the order.
    OrderSignature,
    /// The order is by the payer the checker expected.
    Payer,
    /// The request is the one that was ordered.
    Request,
    /// The worker signed its acceptance of this order.
    Acceptance,
    /// The worker signed the receipt for this order.
    Receipt,
    /// The answer is by the worker the checker expected.
    Worker,
    /// Seed, model and arithmetic are those of the order.
    Parameters,
    /// The model is the order's, and no arithmetic is claimed.
    Word,
    /// The prompt's tokens are the ones in the receipt.
    PromptTokens,
    /// The tokens it resumes from are the ones that were ordered.
    Resumed,
    /// The output's tokens are the ones in the receipt.
    OutputTokens,
    /// The text is the one in the receipt.
    Text,
    /// The vector is the one that the receipt commits to.
    Vector,
    /// The worker broke off; what it had signed by then is this.
    Progress,
    /// The finish reason agrees with tokens, limit and stop strings.
    Finish,
    /// Price and charge are as accepted, within the ceiling.
    Price,
    /// It was done by the deadline.
    Deadline,
    /// The state commitment can be opened with this salt, once the state is known.
    Salt,
    /// Recomputing gave the same state.
    State,
    /// The gateway signed the envelope.
    Envelope,
    /// The envelope is by the gateway the checker expected.
    Gateway,
    /// The envelope names exactly these answers.
    Parts,
    /// Each part of an answer goes on where those before it ended, under the same order.
    Continuation,
    /// Another worker was ordered the same answer, and gave it.
    Repeated,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::OrderSignature => "the order carries its payer's signature",
            Check::Payer => "the payer is the expected one",
            Check::Request => "the request is the one that was ordered",
            Check::Acceptance => "the worker accepted this order under its signature",
            Check::Receipt => "the worker signed this receipt for this order",
            Check::Worker => "the worker is the expected one",
            Check::Parameters => "model, arithmetic and seed are the order's",
            Check::Word => {
                "the model's name is the order's; the receipt claims no arithmetic (tier `signed`)"
            }
            Check::PromptTokens => "the prompt's tokens are the receipt's",
            Check::Resumed => "the tokens it resumes from are the order's",
            Check::Progress => {
                "a worker broke off; the tokens and the text counted for it are those it had signed"
            }
            Check::Continuation => "each part of the answer goes on where the one before it ended",
            Check::Repeated => "another worker, ordered the same answer, signed for the same tokens and text",
            Check::OutputTokens => "the output's tokens are the receipt's",
            Check::Text => "the text is the receipt's, to the byte",
            Check::Vector => "the vector is the one the receipt commits to, to the bit",
            Check::Finish => "the finish reason agrees with tokens, limit and stop strings",
            Check::Price => "price and charge are as accepted and within the ceiling",
            Check::Deadline => "the answer was done by its deadline, by the worker's clock",
            Check::Salt => "the state commitment comes with its salt",
            Check::State => "recomputing the answer gave the committed state, bit for bit",
            Check::Envelope => "the envelope carries its gateway's signature",
            Check::Gateway => "the gateway is the expected one",
            Check::Parts => "the envelope names exactly these receipts",
        })
    }
}

/// Something that was not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unchecked {
    /// Whether the payer's key is whose the reader thinks.
    Payer,
    /// Whether the worker's key is whose the reader thinks.
    Worker,
    /// Whether the gateway's key is whose the reader thinks.
    Gateway,
    /// Whether the prompt's tokens are those of the request: takes the model's tokenizer and template.
    PromptTokens,
    /// Whether the text is that of the tokens: takes the model's tokenizer.
    TextOfTokens,
    /// Whether the model's context is what lowered the limit: takes the model.
    Limit,
    /// Whether the last token is one at which the model ends: takes the model.
    EndToken,
    /// Whether the model gives these tokens, or this vector: takes a recomputation.
    Computation,
    /// Whether a vector is the receipt's: it is not here.
    Vector,
    /// Whether the parties' clocks were right.
    Clocks,
    /// What an auditor finds: the payer lets none see it.
    Audit,
    /// Who computed it, and how.
    Upstream,
    /// How many tokens there were.
    Usage,
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unchecked::Payer => "who holds the payer's key",
            Unchecked::Worker => "who holds the worker's key",
            Unchecked::Gateway => "who holds the gateway's key",
            Unchecked::PromptTokens => {
                "that the prompt was tokenised as the model prescribes (needs the model)"
            }
            Unchecked::TextOfTokens => "that the text is what the tokens spell (needs the model)",
            Unchecked::Limit => "that the worker's context is what lowered the limit",
            Unchecked::EndToken => "that the last token is one at which the model ends (needs the model)",
            Unchecked::Computation => "that the model gives these tokens (needs a recomputation)",
            Unchecked::Vector => "the vector, which is not here",
            Unchecked::Clocks => "that the parties' clocks were right",
            Unchecked::Upstream => {
                "which model gave this text, by which parameters: a server of the operator's choice did, and nobody can \
                 compute it again (the operator's upstream sees the text)"
            }
            Unchecked::Usage => "the token counts, which are the upstream's by the operator's word",
            Unchecked::Audit => {
                "not audited: the payer forbade disclosure (whoever has this evidence can compute the answer again)"
            }
        })
    }
}

/// Why an answer does not keep to what was signed: the first reason found, in the order of the rules.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// the order cannot be opened.
    #[error("the order is not validly signed")]
    Order(#[source] OpenError),
    /// The order is another payer's.
    #[error("the order is by {found}, not by {expected}")]
    OtherPayer {
        /// Who was expected.
        expected: PublicKey,
        /// Who signed.
        found: PublicKey,
    },
    /// the request cannot be read.
    #[error("the request cannot be read")]
    Request(#[source] DecodeError),
    ///
    #[error("the request is not the one that was ordered")]
    OtherRequest,
    /// The request has another grammar than the one the order's parameters name, or one of them has none.
    #[error("the request's grammar is not the one that the order names")]
    OtherGrammar,
    ///
    #[error("the order resumes from {ordered} tokens; there are {found}")]
    ResumedCount {
        /// In the order.
        ordered: u32,
        /// In the answer.
        found: usize,
    },
    ///
    #[error("the tokens it resumes from are not the ones that were ordered")]
    ResumedDigest,
    /// a receipt has the last word.
    #[error("there is a receipt, and a progress beside it")]
    ProgressBesideReceipt,
    /// the progress cannot be opened.
    #[error("the progress is not validly signed by the worker")]
    Progress(#[source] OpenError),
    ///
    #[error("the progress is for another order")]
    ProgressOfOtherOrder,
    ///
    #[error("tokens or text are not those that were signed for before the worker broke off")]
    NotSignedFor,
    /// an answer without an acceptance.
    #[error("the order was answered without having been accepted")]
    AcceptanceMissing,
    /// the acceptance cannot be opened.
    #[error("the acceptance is not validly signed by the worker")]
    Acceptance(#[source] OpenError),
    ///
    #[error("the acceptance is for another order")]
    AcceptanceOfOtherOrder,
    ///
    #[error("the acceptance is for model {found}, not for {ordered}")]
    AcceptanceOfOtherModel {
        /// What was ordered.
        ordered: surety_types::ModelId,
        /// What was accepted.
        found: surety_types::ModelId,
    },
    ///
    #[error("the acceptance moves the deadline from {ordered_ms} to {accepted_ms}")]
    DeadlineMoved {
        /// The order's.
        ordered_ms: u64,
        /// The acceptance's.
        accepted_ms: u64,
    },
    ///
    #[error("the accepted price is above the order's ceiling")]
    PriceAboveCeiling,
    ///
    #[error("the acceptance raises the limit from {ordered} to {accepted} tokens")]
    LimitRaised {
        /// The order's.
        ordered: u32,
        /// The acceptance's.
        accepted: u32,
    },
    ///
    #[error(
        "the acceptance lowers the limit to {accepted} tokens, which after {prompt_tokens} of prompt is not what a \
         context of {context_tokens} leaves"
    )]
    LimitNotTheContext {
        /// The acceptance's.
        accepted: u32,
        /// The prompt's length.
        prompt_tokens: u32,
        /// The context offered.
        context_tokens: u32,
    },
    ///
    #[error("the order was accepted at {accepted_ms}, after its deadline at {deadline_ms}")]
    AcceptedLate {
        /// When it was.
        accepted_ms: u64,
        /// When it had to be.
        deadline_ms: u64,
    },
    /// the receipt cannot be opened.
    #[error("the receipt is not validly signed")]
    Receipt(#[source] OpenError),
    ///
    #[error("the receipt is by {found}, not by {expected}")]
    OtherWorker {
        /// Who accepted or was asked.
        expected: PublicKey,
        /// Who signed.
        found: PublicKey,
    },
    ///
    #[error("the receipt is for another order")]
    ReceiptOfOtherOrder,
    ///
    #[error("the receipt is for model {found}, not for {ordered}")]
    OtherModel {
        /// What was ordered.
        ordered: surety_types::ModelId,
        /// What was served.
        found: surety_types::ModelId,
    },
    ///
    #[error("{}", other_arithmetic(.0))]
    OtherArithmetic(u32),
    /// more is claimed, or less, than by a receipt of no arithmetic.
    #[error("the receipt claims no arithmetic, and {0}")]
    Word(&'static str),
    ///
    #[error("the seed is not the one the order prescribes")]
    OtherSeed,
    ///
    #[error("accepted for a prompt of {accepted} tokens, receipted for {receipted}")]
    PromptCount {
        /// In the acceptance.
        accepted: u32,
        /// In the receipt.
        receipted: u32,
    },
    ///
    #[error("the receipt counts {receipted} prompt tokens; there are {found}")]
    PromptTokens {
        /// In the receipt.
        receipted: u32,
        /// In the answer.
        found: usize,
    },
    ///
    #[error("the prompt's tokens are not the ones in the receipt")]
    PromptDigest,
    /// ids were ordered, and others reported.
    #[error("the prompt's tokens are not the ones that were ordered")]
    OtherPromptTokens,
    ///
    #[error("the receipt counts {receipted} output tokens; there are {found}")]
    OutputCount {
        /// In the receipt.
        receipted: u32,
        /// In the answer.
        found: usize,
    },
    ///
    #[error("the output's tokens are not the ones in the receipt")]
    OutputDigest,
    ///
    #[error("the text is not the one in the receipt")]
    TextDigest,
    ///
    #[error("{found} output tokens are more than the limit of {limit}")]
    OverLimit {
        /// How many.
        found: u32,
        /// How many were allowed.
        limit: u32,
    },
    ///
    #[error("said to have reached the limit of {limit} tokens with {found}")]
    LimitNotReached {
        /// How many.
        found: u32,
        /// How many were allowed.
        limit: u32,
    },
    ///
    #[error("said to have stopped by itself without a single token")]
    StoppedAtNothing,
    ///
    #[error("said to have stopped by itself, where neither an end token nor a stop string could stop it")]
    NothingToStopAt,
    ///
    #[error("said to have been cancelled, and was not")]
    NotCancelled,
    ///
    #[error("said to have ended unpaid, where nothing was to pay")]
    NothingToPay,
    ///
    #[error("the text holds a stop string, {0:?}")]
    StopStringInText(String),
    ///
    #[error("the salt of the state commitment is missing")]
    SaltMissing,
    ///
    #[error("the state commitment is missing")]
    CommitmentMissing,
    ///
    #[error("a failure that commits to a state")]
    FailureWithState,
    ///
    #[error("a refusal that counts {0} output tokens")]
    RefusalWithOutput(u32),
    ///
    #[error("the price in the receipt is not the accepted one")]
    OtherPrice,
    ///
    #[error("the charge is {found}; it should be {due}")]
    Charge {
        /// What is due.
        due: Amount,
        /// What was charged.
        found: Amount,
    },
    ///
    #[error("the charge cannot be computed")]
    ChargeOverflow(#[source] Invalid),
    ///
    #[error("the receipt says it was accepted at {receipted_ms}, the acceptance at {accepted_ms}")]
    AcceptedAt {
        /// In the acceptance.
        accepted_ms: u64,
        /// In the receipt.
        receipted_ms: u64,
    },
    ///
    #[error("done at {done_ms}, after the deadline at {deadline_ms}")]
    Late {
        /// When it was.
        done_ms: u64,
        /// When it had to be.
        deadline_ms: u64,
    },
    ///
    #[error("there is a vector where none was asked for, or none was given")]
    VectorUnasked,
    ///
    #[error("the vector cannot be one")]
    Vector(#[source] Invalid),
    ///
    #[error("the vector has {found} dimensions; {ordered} were ordered")]
    VectorDimensions {
        /// In the request.
        ordered: u32,
        /// In the answer.
        found: usize,
    },
    ///
    #[error("the vector is not the one that the receipt commits to")]
    OtherVector,
    /// a recomputation gave another state.
    #[error("recomputing the answer gave another state than the one committed to")]
    OtherState,
}

/// What a checker has opened before: where an answer holds the same bytes, their signature is not verified once more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Opened<'a> {
    /// The order.
    pub order: Option<&'a Signed<Order>>,
    /// The acceptance.
    pub acceptance: Option<&'a Signed<Acceptance>>,
}

/// Checks an answer against everything signed about it (R-4 … R-6). The receipt may be for a failure.
pub fn check_answer(answer: &Answer, expected: &Expected) -> Result<Checked, Fault> {
    check_opened_answer(answer, expected, Opened::default())
}

/// As [`check_answer`], by a checker that has opened some of it before. What comes out is the same.
pub fn check_opened_answer(
    answer: &Answer,
    expected: &Expected,
    opened: Opened<'_>,
) -> Result<Checked, Fault> {
    let mut checked = Vec::new();
    let mut unchecked = Vec::new();

    // A signed value was verified when it was made: that of these bytes is the one that opening them gives.
    let order = match opened.order {
        Some(order) if order.bytes() == answer.order => order.clone(),
        _ => Signed::<Order>::open(&answer.order).map_err(Fault::Order)?,
    };
    checked.push(Check::OrderSignature);
    match expected.payer {
        Some(payer) if payer != order.payer => {
            return Err(Fault::OtherPayer { expected: payer, found: order.payer });
        }
        Some(_) => checked.push(Check::Payer),
        None => unchecked.push(Unchecked::Payer),
    }

    let request = Request::from_cbor(&answer.request).map_err(Fault::Request)?;
    //
    if Request::digest_of(&answer.request) != order.request_digest {
        return Err(Fault::OtherRequest);
    }
    // G-1
    if !request.has_grammar_of(&order) {
        return Err(Fault::OtherGrammar);
    }
    checked.push(Check::Request);

    if order.is_confidential() {
        unchecked.push(Unchecked::Audit);
    }
    check_resumed_ids(&order, &answer.resumed_ids)?;
    if order.resumed.is_some() {
        checked.push(Check::Resumed);
    }
    let Some(receipt) = &answer.receipt else {
        return check_broken(answer, order, request, expected, checked, unchecked);
    };
    if answer.progress.is_some() {
        return Err(Fault::ProgressBesideReceipt);
    }

    let receipt = Signed::<Receipt>::open(receipt).map_err(Fault::Receipt)?;
    let acceptance = match &answer.acceptance {
        Some(bytes) => {
            let worker = expected.worker.unwrap_or(receipt.worker);
            let known = opened.acceptance.filter(|known| known.bytes() == bytes && known.worker == worker);
            match known {
                Some(known) => {
                    check_acceptance(&order, known, expected.context_tokens)?;
                    Some(known.clone())
                }
                None => Some(open_acceptance(bytes, &worker, &order, expected)?),
            }
        }
        None if receipt.failure().is_some() => None,
        //
        None => return Err(Fault::AcceptanceMissing),
    };
    if acceptance.is_some() {
        checked.push(Check::Acceptance);
    }

    check_bindings(&order, acceptance.as_deref(), &receipt, expected)?;
    let by_word = receipt.is_by_word() && receipt.failure().is_none();
    if by_word {
        check_word(&order, &request, acceptance.as_deref(), answer, &receipt)?;
    }
    checked.extend([Check::Receipt, if by_word { Check::Word } else { Check::Parameters }]);
    match expected.worker {
        Some(_) => checked.push(Check::Worker),
        None => unchecked.push(Unchecked::Worker),
    }

    if check_prompt(answer, &request, &receipt)? {
        checked.push(Check::PromptTokens);
    }
    check_output(answer, &receipt)?;
    if by_word {
        checked.push(Check::Text);
        unchecked.extend([Unchecked::Upstream, Unchecked::Usage]);
    } else {
        if !matches!(request.prompt, Prompt::Tokens(_)) {
            unchecked.push(Unchecked::PromptTokens);
        }
        checked.extend([Check::OutputTokens, Check::Text]);
        unchecked.push(Unchecked::TextOfTokens);
    }

    check_finish(&order, &request, acceptance.as_deref(), &receipt, &answer.text, expected)?;
    checked.push(Check::Finish);
    let limit_lowered =
        acceptance.as_ref().is_some_and(|acceptance| acceptance.max_output_tokens < order.max_output_tokens);
    if limit_lowered && expected.context_tokens.is_none() {
        unchecked.push(Unchecked::Limit);
    }
    if receipt.finish == FinishReason::Stop && !order.ignore_end && !by_word {
        unchecked.push(Unchecked::EndToken);
    }

    check_price(acceptance.as_deref(), &receipt)?;
    checked.push(Check::Price);
    check_times(&order, acceptance.as_deref(), &receipt)?;
    checked.push(Check::Deadline);
    unchecked.push(Unchecked::Clocks);
    check_commitment(answer, &receipt)?;
    match check_vector(answer, &request, &receipt)? {
        None => {}
        Some(true) => checked.push(Check::Vector),
        Some(false) => unchecked.push(Unchecked::Vector),
    }
    if receipt.failure().is_none() && !by_word {
        checked.push(Check::Salt);
        unchecked.push(Unchecked::Computation);
    }

    let (worker, receipt) = (receipt.worker, Some(receipt));
    Ok(Checked { order, request, acceptance, worker, receipt, progress: None, checked, unchecked })
}

/// what is left of an answer that its worker broke off.
fn check_broken(
    answer: &Answer,
    order: Signed<Order>,
    request: Request,
    expected: &Expected,
    mut checked: Vec<Check>,
    mut unchecked: Vec<Unchecked>,
) -> Result<Checked, Fault> {
    let bytes = answer.acceptance.as_ref().ok_or(Fault::AcceptanceMissing)?;
    let (_, signer) = Signed::<Acceptance>::peek_value(bytes).map_err(Fault::Acceptance)?;
    let worker = expected.worker.unwrap_or(signer);
    let acceptance = open_acceptance(bytes, &worker, &order, expected)?;
    checked.push(Check::Acceptance);
    match expected.worker {
        Some(_) => checked.push(Check::Worker),
        None => unchecked.push(Unchecked::Worker),
    }
    let progress = match &answer.progress {
        Some(bytes) => {
            let progress = Signed::<Progress>::open_by(bytes, &worker).map_err(Fault::Progress)?;
            if progress.order != order.digest() {
                return Err(Fault::ProgressOfOtherOrder);
            }
            Some(progress)
        }
        None => None,
    };
    let signed = match &progress {
        Some(progress) => {
            answer.output_ids.len() == progress.output_tokens as usize
                && output_digest(&answer.output_ids) == progress.output_digest
                && text_digest(&answer.text) == progress.text_digest
        }
        None => answer.output_ids.is_empty() && answer.text.is_empty(),
    };
    if !signed {
        return Err(Fault::NotSignedFor);
    }
    if answer.embedding.is_some() {
        return Err(Fault::VectorUnasked);
    }
    let (found, limit) = (answer.output_ids.len() as u32, acceptance.max_output_tokens);
    if found > limit {
        return Err(Fault::OverLimit { found, limit });
    }
    if answer.salt != [0; 32] {
        return Err(Fault::FailureWithState);
    }
    checked.push(Check::Progress);
    if !answer.output_ids.is_empty() {
        unchecked.extend([Unchecked::TextOfTokens, Unchecked::Computation]);
    }
    let acceptance = Some(acceptance);
    Ok(Checked { order, request, acceptance, worker, receipt: None, progress, checked, unchecked })
}

fn open_acceptance(
    bytes: &[u8],
    worker: &PublicKey,
    order: &Order,
    expected: &Expected,
) -> Result<Signed<Acceptance>, Fault> {
    let acceptance = Signed::<Acceptance>::open_by(bytes, worker).map_err(Fault::Acceptance)?;
    check_acceptance(order, &acceptance, expected.context_tokens)?;
    Ok(acceptance)
}

/// the tokens that an order resumes from are those beside it.
pub fn check_resumed_ids(order: &Order, ids: &[u32]) -> Result<(), Fault> {
    if ids.len() != order.resumed_tokens() as usize {
        return Err(Fault::ResumedCount { ordered: order.resumed_tokens(), found: ids.len() });
    }
    match order.resumed {
        Some(resumed) if output_digest(ids) != resumed.output_digest => Err(Fault::ResumedDigest),
        _ => Ok(()),
    }
}

/// an acceptance promises what was ordered, no dearer, no later, no longer. The signature is the caller's to
/// check, by opening it.
pub fn check_acceptance(
    order: &Order,
    acceptance: &Acceptance,
    context_tokens: Option<u32>,
) -> Result<(), Fault> {
    if acceptance.order != order.digest() {
        return Err(Fault::AcceptanceOfOtherOrder);
    }
    if acceptance.model != order.model {
        return Err(Fault::AcceptanceOfOtherModel { ordered: order.model, found: acceptance.model });
    }
    if acceptance.deadline_ms != order.deadline_ms {
        return Err(Fault::DeadlineMoved {
            ordered_ms: order.deadline_ms,
            accepted_ms: acceptance.deadline_ms,
        });
    }
    if !acceptance.price.within(&order.price_ceiling) {
        return Err(Fault::PriceAboveCeiling);
    }
    let accepted = acceptance.max_output_tokens;
    if accepted > order.max_output_tokens {
        return Err(Fault::LimitRaised { ordered: order.max_output_tokens, accepted });
    }
    if let Some(context_tokens) = context_tokens {
        let left = context_tokens.saturating_sub(acceptance.prompt_tokens);
        if accepted != order.max_output_tokens.min(left) {
            return Err(Fault::LimitNotTheContext {
                accepted,
                prompt_tokens: acceptance.prompt_tokens,
                context_tokens,
            });
        }
    }
    if acceptance.accepted_ms > order.deadline_ms {
        return Err(Fault::AcceptedLate {
            accepted_ms: acceptance.accepted_ms,
            deadline_ms: order.deadline_ms,
        });
    }
    Ok(())
}

/// the receipt is this worker's, for this order.
fn check_bindings(
    order: &Order,
    acceptance: Option<&Acceptance>,
    receipt: &Receipt,
    expected: &Expected,
) -> Result<(), Fault> {
    if let Some(worker) = expected.worker.or(acceptance.map(|acceptance| acceptance.worker))
        && worker != receipt.worker
    {
        return Err(Fault::OtherWorker { expected: worker, found: receipt.worker });
    }
    if receipt.order != order.digest() {
        return Err(Fault::ReceiptOfOtherOrder);
    }
    if receipt.model != order.model {
        return Err(Fault::OtherModel { ordered: order.model, found: receipt.model });
    }
    // A refusal may come from who does not know the model.
    let expected_arithmetic = expected.arithmetic.filter(|_| receipt.failure().is_none());
    let is_known = [ARITHMETIC_VERSION, NO_ARITHMETIC].contains(&receipt.arithmetic)
        && expected_arithmetic.is_none_or(|arithmetic| arithmetic == receipt.arithmetic);
    if !is_known {
        return Err(Fault::OtherArithmetic(receipt.arithmetic));
    }
    if receipt.seed != order.seed_bytes() {
        return Err(Fault::OtherSeed);
    }
    // who cannot count the prompt says afterwards what it was told.
    let counted = !receipt.is_by_word() || receipt.failure().is_some();
    if let Some(acceptance) = acceptance
        && counted
        && acceptance.prompt_tokens != receipt.prompt_tokens
    {
        return Err(Fault::PromptCount {
            accepted: acceptance.prompt_tokens,
            receipted: receipt.prompt_tokens,
        });
    }
    Ok(())
}

fn other_arithmetic(found: &u32) -> String {
    match *found {
        NO_ARITHMETIC => "the receipt claims no arithmetic, and the model has one".to_owned(),
        ARITHMETIC_VERSION => "the receipt claims an arithmetic, and the model has none".to_owned(),
        found => format!("computed by arithmetic version {found}, which this software does not know"),
    }
}

/// an answer by its worker's word claims no token ids, no state, and continues nothing.
fn check_word(
    order: &Order,
    request: &Request,
    acceptance: Option<&Acceptance>,
    answer: &Answer,
    receipt: &Receipt,
) -> Result<(), Fault> {
    let claims = [
        (order.resumed.is_some(), "continues what somebody else began"),
        (matches!(request.prompt, Prompt::Tokens(_)), "answers token ids"),
        (request.grammar.is_some(), "answers an order with a grammar"),
        (request.embedding.is_some(), "answers with a vector"),
        (
            acceptance.is_some_and(|acceptance| acceptance.prompt_tokens != 0),
            "was accepted for a counted prompt",
        ),
        (
            answer.prompt_ids.is_some() || receipt.prompt_digest != prompt_digest(&[]),
            "names the prompt's tokens",
        ),
        (answer.output_ids.iter().any(|id| *id != 0), "names the output's tokens"),
        (receipt.cached_tokens != 0, "counts cached tokens"),
        (receipt.price != Price::ZERO || order.channel.is_some(), "is to be paid"),
    ];
    match claims.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, what)) => Err(Fault::Word(what)),
        None => Ok(()),
    }
}

/// for the prompt where its ids are known. Says whether they were.
fn check_prompt(answer: &Answer, request: &Request, receipt: &Receipt) -> Result<bool, Fault> {
    let ordered = match &request.prompt {
        Prompt::Tokens(ids) => Some(ids),
        Prompt::Chat { .. } | Prompt::Text(_) => None,
    };
    if let (Some(ordered), Some(reported)) = (ordered, &answer.prompt_ids)
        && ordered != reported
    {
        return Err(Fault::OtherPromptTokens);
    }
    // A refusal may come before the prompt was tokenised.
    if answer.acceptance.is_none() && receipt.prompt_tokens == 0 {
        return Ok(false);
    }
    let Some(ids) = ordered.or(answer.prompt_ids.as_ref()) else { return Ok(false) };
    // what is resumed from is given to the model after the prompt.
    let ids = [ids.as_slice(), &answer.resumed_ids].concat();
    if ids.len() != receipt.prompt_tokens as usize {
        return Err(Fault::PromptTokens { receipted: receipt.prompt_tokens, found: ids.len() });
    }
    if prompt_digest(&ids) != receipt.prompt_digest {
        return Err(Fault::PromptDigest);
    }
    Ok(true)
}

/// for the output.
fn check_output(answer: &Answer, receipt: &Receipt) -> Result<(), Fault> {
    if answer.output_ids.len() != receipt.output_tokens as usize {
        return Err(Fault::OutputCount { receipted: receipt.output_tokens, found: answer.output_ids.len() });
    }
    if output_digest(&answer.output_ids) != receipt.output_digest {
        return Err(Fault::OutputDigest);
    }
    if text_digest(&answer.text) != receipt.text_digest {
        return Err(Fault::TextDigest);
    }
    Ok(())
}

///
fn check_finish(
    order: &Order,
    request: &Request,
    acceptance: Option<&Acceptance>,
    receipt: &Receipt,
    text: &str,
    expected: &Expected,
) -> Result<(), Fault> {
    let found = receipt.output_tokens;
    let Some(acceptance) = acceptance else {
        //
        return if found == 0 { Ok(()) } else { Err(Fault::RefusalWithOutput(found)) };
    };
    let limit = acceptance.max_output_tokens;
    if found > limit {
        return Err(Fault::OverLimit { found, limit });
    }
    let by_word = receipt.is_by_word();
    match receipt.finish {
        // where an upstream says it ends, it ends.
        FinishReason::Length | FinishReason::Stop if by_word => {}
        FinishReason::Length if found != limit => return Err(Fault::LimitNotReached { found, limit }),
        FinishReason::Stop if found == 0 && order.resumed.is_none() => return Err(Fault::StoppedAtNothing),
        FinishReason::Stop if order.ignore_end && request.stop.is_empty() => {
            return Err(Fault::NothingToStopAt);
        }
        FinishReason::Cancelled if expected.cancelled == Some(false) => return Err(Fault::NotCancelled),
        FinishReason::Unpaid if acceptance.price == Price::ZERO => return Err(Fault::NothingToPay),
        FinishReason::Stop
        | FinishReason::Length
        | FinishReason::Cancelled
        | FinishReason::Unpaid
        | FinishReason::Failed => {}
    }
    //
    match request.stop.iter().find(|stop| text.contains(stop.as_str())) {
        Some(stop) => Err(Fault::StopStringInText(stop.clone())),
        None => Ok(()),
    }
}

///
fn check_price(acceptance: Option<&Acceptance>, receipt: &Receipt) -> Result<(), Fault> {
    if receipt.price != acceptance.map_or(Price::ZERO, |acceptance| acceptance.price) {
        return Err(Fault::OtherPrice);
    }
    let due = match receipt.failure() {
        Some(_) => Amount::ZERO,
        None => receipt
            .price
            .charge(receipt.prompt_tokens, receipt.cached_tokens, receipt.output_tokens)
            .map_err(Fault::ChargeOverflow)?,
    };
    if receipt.charge != due {
        return Err(Fault::Charge { due, found: receipt.charge });
    }
    Ok(())
}

///
fn check_times(order: &Order, acceptance: Option<&Acceptance>, receipt: &Receipt) -> Result<(), Fault> {
    if let Some(acceptance) = acceptance
        && acceptance.accepted_ms != receipt.accepted_ms
    {
        return Err(Fault::AcceptedAt {
            accepted_ms: acceptance.accepted_ms,
            receipted_ms: receipt.accepted_ms,
        });
    }
    // A failure may be that the deadline passed.
    if receipt.failure().is_none() && receipt.done_ms > order.deadline_ms {
        return Err(Fault::Late { done_ms: receipt.done_ms, deadline_ms: order.deadline_ms });
    }
    Ok(())
}

///
fn check_commitment(answer: &Answer, receipt: &Receipt) -> Result<(), Fault> {
    if receipt.failure().is_some() {
        let none = answer.salt == [0; 32] && receipt.state_commitment == Digest::ZERO;
        return if none { Ok(()) } else { Err(Fault::FailureWithState) };
    }
    if receipt.is_by_word() {
        let none = answer.salt == [0; 32] && receipt.state_commitment == Digest::ZERO;
        return if none { Ok(()) } else { Err(Fault::Word("commits to a state")) };
    }
    if answer.salt == [0; 32] {
        return Err(Fault::SaltMissing);
    }
    if receipt.state_commitment == Digest::ZERO {
        return Err(Fault::CommitmentMissing);
    }
    Ok(())
}

/// whether the vector is what the receipt commits to; none if there is to be none, false if it is not here.
fn check_vector(answer: &Answer, request: &Request, receipt: &Receipt) -> Result<Option<bool>, Fault> {
    let wanted = request.embedding.filter(|_| receipt.failure().is_none());
    let (wanted, bytes) = match (wanted, &answer.embedding) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(Fault::VectorUnasked),
        // An auditor, who is not to know it, has none.
        (Some(_), None) => return Ok(Some(false)),
        (Some(wanted), Some(bytes)) => (wanted, bytes),
    };
    let found = vector_of(bytes).map_err(Fault::Vector)?.len();
    match wanted.dimensions {
        Some(ordered) if ordered as usize != found => return Err(Fault::VectorDimensions { ordered, found }),
        _ => {}
    }
    check_state(receipt, &answer.salt, &vector_digest(bytes)).map_err(|_| Fault::OtherVector)?;
    Ok(Some(true))
}

/// whether a recomputed state is the one a receipt commits to.
pub fn check_state(receipt: &Receipt, salt: &[u8; 32], state_digest: &Digest) -> Result<(), Fault> {
    if state_commitment(&receipt.worker, salt, state_digest) != receipt.state_commitment {
        return Err(Fault::OtherState);
    }
    Ok(())
}

/// Evidence whose every answer holds, under an envelope that names them.
#[derive(Debug, Clone)]
pub struct CheckedEvidence {
    /// What the gateway signed.
    pub envelope: Signed<Envelope>,
    /// In the order of the envelope's parts.
    pub answers: Vec<Checked>,
    /// What holds of the envelope.
    pub checked: Vec<Check>,
    /// What could not be checked of it.
    pub unchecked: Vec<Unchecked>,
}

/// Why evidence does not hold.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceFault {
    /// the envelope cannot be opened.
    #[error("the envelope is not validly signed")]
    Envelope(#[source] OpenError),
    /// The envelope is another gateway's.
    #[error("the envelope is by {found}, not by {expected}")]
    OtherGateway {
        /// Who was expected.
        expected: PublicKey,
        /// Who signed.
        found: PublicKey,
    },
    ///
    #[error("the evidence is for another request than the envelope")]
    OtherRequest,
    ///
    #[error("the envelope names {named} answers; there are {found}")]
    PartCount {
        /// In the envelope.
        named: usize,
        /// In the evidence.
        found: usize,
    },
    /// An answer does not hold.
    #[error("answer {index} does not hold")]
    Answer {
        /// Which, from 0.
        index: usize,
        /// Why.
        #[source]
        fault: Fault,
    },
    ///
    #[error("answer {index} is not the one the envelope names")]
    OtherPart {
        /// Which, from 0.
        index: usize,
    },
    ///
    #[error("answer {index} does not go on where the one before it ended")]
    NotAContinuation {
        /// Which, from 0.
        index: usize,
    },
    ///
    #[error("the last answer is not brought to its end")]
    Unfinished,
    ///
    #[error("answer {index} is named as a check, and repeats no answer before it")]
    CheckOfNothing {
        /// Which, from 0.
        index: usize,
    },
    ///
    #[error("answer {index} is named as a check of another, and is not the same or not by others")]
    CheckDiffers {
        /// Which, from 0.
        index: usize,
    },
    ///
    #[error("the envelope charges {found}; its receipts charge {due}")]
    Charge {
        /// The receipts' sum.
        due: Amount,
        /// The envelope's.
        found: Amount,
    },
}

/// Checks whole evidence: the envelope, every answer, and that they belong together.
pub fn check_evidence(
    evidence: &Evidence,
    gateway: Option<&PublicKey>,
    expected: &Expected,
) -> Result<CheckedEvidence, EvidenceFault> {
    let mut checked = Vec::new();
    let mut unchecked = Vec::new();
    let envelope = Signed::<Envelope>::open(&evidence.envelope).map_err(EvidenceFault::Envelope)?;
    checked.push(Check::Envelope);
    match gateway {
        Some(gateway) if *gateway != envelope.gateway => {
            return Err(EvidenceFault::OtherGateway { expected: *gateway, found: envelope.gateway });
        }
        Some(_) => checked.push(Check::Gateway),
        None => unchecked.push(Unchecked::Gateway),
    }
    if envelope.request_id != evidence.request_id {
        return Err(EvidenceFault::OtherRequest);
    }
    if envelope.parts.len() != evidence.answers.len() {
        return Err(EvidenceFault::PartCount { named: envelope.parts.len(), found: evidence.answers.len() });
    }

    let mut answers: Vec<Checked> = Vec::new();
    let mut due = Amount::ZERO;
    let (mut course, mut wholes) = (Course::default(), Vec::<Whole>::new());
    for (index, (part, answer)) in envelope.parts.iter().zip(&evidence.answers).enumerate() {
        let checked =
            check_answer(answer, expected).map_err(|fault| EvidenceFault::Answer { index, fault })?;
        //
        let before = index.checked_sub(1).map(|before| &envelope.parts[before]);
        let goes_on = match answers.last() {
            Some(last) if !last.is_end() => {
                course.continues(&last.order, &checked.order, answer)
                    && before.is_none_or(|before| before.purpose == part.purpose)
            }
            _ => checked.order.resumed.is_none() && (part.is_check() || !before.is_some_and(Part::is_check)),
        };
        if !goes_on {
            return Err(EvidenceFault::NotAContinuation { index });
        }
        //
        let is_part = part.order == checked.order.digest()
            && part.first_output_token == checked.order.resumed_tokens()
            && part.receipt == checked.receipt.as_ref().map(Signed::digest)
            && part.worker == checked.worker
            && part.output_tokens == checked.output_tokens();
        if !is_part {
            return Err(EvidenceFault::OtherPart { index });
        }
        due = due.checked_add(checked.charge()).unwrap_or(Amount(u128::MAX));
        if let Some(whole) = course.extend(&checked, answer) {
            match wholes.iter().find(|other| is_same_answer(&other.order, &whole.order)) {
                _ if !part.is_check() => wholes.push(whole),
                None => return Err(EvidenceFault::CheckOfNothing { index }),
                Some(other) if !whole.repeats(other) => return Err(EvidenceFault::CheckDiffers { index }),
                Some(_) => {}
            }
        }
        answers.push(checked);
    }
    // A failure may stand alone, as the whole of what came.
    let unfinished = |last: &Checked| !last.is_end() && (last.receipt.is_none() || answers.len() > 1);
    if answers.last().is_some_and(unfinished) {
        return Err(EvidenceFault::Unfinished);
    }
    checked.push(Check::Parts);
    if answers.iter().any(|answer| answer.order.resumed.is_some()) {
        checked.push(Check::Continuation);
    }
    if envelope.parts.iter().any(Part::is_check) {
        checked.push(Check::Repeated);
    }
    //
    if envelope.charge != due {
        return Err(EvidenceFault::Charge { due, found: envelope.charge });
    }
    Ok(CheckedEvidence { envelope, answers, checked, unchecked })
}

/// What the parts of one answer have given so far.
#[derive(Default)]
struct Course {
    ids: Vec<u32>,
    text: String,
    workers: Vec<PublicKey>,
    /// Output tokens of the whole answer, at most, by the first acceptance that an end came after.
    limit: Option<u32>,
}

impl Course {
    /// whether an order asks for the rest of what `before` asked for.
    fn continues(&self, before: &Order, order: &Order, answer: &Answer) -> bool {
        let resumed = &answer.resumed_ids;
        let same = is_same_answer(before, order);
        // Nothing that was not signed is resumed from; starting anew resumes from nothing.
        let prefix = resumed.is_empty() || *resumed == self.ids;
        let rest = self
            .limit
            .is_none_or(|limit| limit.checked_sub(order.resumed_tokens()) == Some(order.max_output_tokens));
        same && prefix && rest
    }

    /// Takes in a part; the answer, if this brought it to its end.
    fn extend(&mut self, checked: &Checked, answer: &Answer) -> Option<Whole> {
        if checked.order.resumed.is_none() {
            self.text.clear();
        }
        self.ids.truncate(checked.order.resumed_tokens() as usize);
        self.ids.extend(&answer.output_ids);
        self.text.push_str(&answer.text);
        self.workers.push(checked.worker);
        if let Some(receipt) = checked.receipt.as_ref().filter(|_| checked.is_end()) {
            let Course { ids, text, workers, limit: _ } = std::mem::take(self);
            let (order, vector) = (Order::clone(&checked.order), answer.embedding.clone());
            return Some(Whole { order, ids, text, finish: receipt.finish, vector, workers });
        }
        if let Some(acceptance) = &checked.acceptance {
            self.limit.get_or_insert(checked.order.resumed_tokens() + acceptance.max_output_tokens);
        }
        None
    }
}

/// An answer that was brought to its end.
struct Whole {
    /// By the last order of it.
    order: Order,
    ids: Vec<u32>,
    text: String,
    finish: FinishReason,
    vector: Option<Vec<u8>>,
    workers: Vec<PublicKey>,
}

impl Whole {
    /// whether it is the same as another, and by nobody who gave that.
    fn repeats(&self, other: &Whole) -> bool {
        (&self.ids, &self.text, self.finish, &self.vector)
            == (&other.ids, &other.text, other.finish, &other.vector)
            && self.workers.iter().all(|worker| !other.workers.contains(worker))
    }
}

/// Whether two orders are for one answer: of one worker after another, or of two to be compared.
fn is_same_answer(one: &Order, other: &Order) -> bool {
    Order {
        channel: one.channel,
        price_ceiling: one.price_ceiling,
        deadline_ms: one.deadline_ms,
        issued_ms: one.issued_ms,
        max_output_tokens: one.max_output_tokens,
        resumed: one.resumed,
        ..other.clone()
    } == *one
}
