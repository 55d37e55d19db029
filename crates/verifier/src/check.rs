//! One answer, against everything that was signed about it (R-4 … ).

use crate::{
    Check, Found, Unchecked,
    digest::{
        self, Digest, GRAMMAR, ORDER, OUTPUT_IDS, OUTPUT_TEXT, PROMPT_IDS, REQUEST, SAMPLING_SEED,
        STATE_COMMITMENT, ZERO, digest,
    },
    evidence::{Answer, Said},
    fault::Fault,
    records::{
        SAMPLING_GRAMMAR, TOKENS, Value, acceptance as a, finish, order as o, progress as p, receipt as r,
        request,
    },
    view::divided,
};

///
const ARITHMETIC_VERSION: u64 = 0;
///
const NO_ARITHMETIC: u64 = u32::MAX as u64;

/// An answer that keeps to everything that was signed about it.
pub(crate) struct Checked {
    pub(crate) found: Found,
    /// The digest by which all else names its order.
    pub(crate) order_digest: Digest,
    pub(crate) worker: [u8; 32],
    pub(crate) output_tokens: u64,
    pub(crate) charge: u128,
    /// Whether the answer ends here: it is receipted, and no failure.
    pub(crate) is_end: bool,
}

type Fields<'a, 'b> = &'a [Value<'b>];

fn require(holds: bool, fault: Fault) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(fault) }
}

/// Tokens of the answer that were there already.
pub(crate) fn resumed_tokens(order: Fields<'_, '_>) -> u64 {
    order[o::RESUMED].many().first().map_or(0, Value::number)
}

fn is_failure(receipt: Fields<'_, '_>) -> bool {
    receipt[r::OUTCOME].choice() == 1
}

fn is_by_word(receipt: Fields<'_, '_>) -> bool {
    receipt[r::ARITHMETIC].number() == NO_ARITHMETIC
}

fn is_free(price: &Value<'_>) -> bool {
    price.many().iter().all(|amount| amount.amount() == 0)
}

fn same(bytes: &Value<'_>, digest: &Digest) -> bool {
    bytes.bytes() == Some(digest)
}

/// Whether an answer holds.
pub(crate) fn check(answer: &Answer<'_>) -> Result<Checked, Fault> {
    let mut found = Found::default();
    require(answer.order.is_signed(), Fault::OrderSignature)?;
    let order = &answer.order.values;
    let order_digest = digest(ORDER, &[answer.order.message.payload]);
    found.check(Check::OrderSignature);
    found.leave(Unchecked::Payer);

    let asked = &answer.request;
    //
    let request_digest = digest(REQUEST, &[answer.request_bytes]);
    require(same(&order[o::REQUEST_DIGEST], &request_digest), Fault::OtherRequest)?;
    // G-1
    let grammar = asked[request::GRAMMAR].text().map(|grammar| digest(GRAMMAR, &[grammar.as_bytes()]));
    let named = order[o::SAMPLING].many()[SAMPLING_GRAMMAR].bytes();
    require(grammar.as_ref() == named, Fault::OtherGrammar)?;
    found.check(Check::Request);
    if !order[o::DISCLOSURE].is_absent() {
        found.leave(Unchecked::Audit);
    }
    //
    let resumed = order[o::RESUMED].many();
    require(answer.resumed_ids.len() as u64 == resumed_tokens(order), Fault::ResumedCount)?;
    if let [_, resumed_digest] = resumed {
        require(same(resumed_digest, &digest::ids(OUTPUT_IDS, &[answer.resumed_ids])), Fault::ResumedDigest)?;
        found.check(Check::Resumed);
    }
    let Some(receipt_said) = &answer.receipt else { return check_broken(answer, order_digest, found) };
    //
    require(answer.progress.is_none(), Fault::ProgressBesideReceipt)?;

    require(receipt_said.is_signed(), Fault::ReceiptSignature)?;
    let receipt = &receipt_said.values;
    let is_failure = is_failure(receipt);
    let acceptance = match &answer.acceptance {
        Some(said) => {
            check_acceptance(said, receipt[r::WORKER].bytes(), order, &order_digest)?;
            found.check(Check::Acceptance);
            Some(said.values.as_slice())
        }
        //
        None if !is_failure => return Err(Fault::AcceptanceMissing),
        None => None,
    };
    check_bindings(order, &order_digest, acceptance, receipt)?;
    let by_word = is_by_word(receipt) && !is_failure;
    if by_word {
        check_word(answer, acceptance, receipt)?;
    }
    found.check(Check::Receipt);
    found.check(if by_word { Check::Word } else { Check::Parameters });
    found.leave(Unchecked::Worker);

    if check_prompt(answer, receipt)? {
        found.check(Check::PromptTokens);
    }
    //
    let output_ids = digest::ids(OUTPUT_IDS, &[answer.output_ids]);
    require(answer.output_ids.len() as u64 == receipt[r::OUTPUT_TOKENS].number(), Fault::OutputCount)?;
    require(same(&receipt[r::OUTPUT_DIGEST], &output_ids), Fault::OutputDigest)?;
    let text = digest(OUTPUT_TEXT, &[answer.text]);
    require(same(&receipt[r::TEXT_DIGEST], &text), Fault::TextDigest)?;
    found.check(Check::Text);
    if by_word {
        found.leave(Unchecked::Upstream);
        found.leave(Unchecked::Usage);
    } else {
        found.check(Check::OutputTokens);
        found.leave(Unchecked::TextOfTokens);
        if asked[request::PROMPT].choice() != TOKENS {
            found.leave(Unchecked::PromptTokens);
        }
    }

    check_finish(answer, acceptance, receipt)?;
    found.check(Check::Finish);
    let limit = order[o::MAX_OUTPUT_TOKENS].number();
    if acceptance.is_some_and(|acceptance| acceptance[a::MAX_OUTPUT_TOKENS].number() < limit) {
        found.leave(Unchecked::Limit);
    }
    if receipt[r::FINISH].number() == finish::STOP && order[o::IGNORE_END].number() == 0 && !by_word {
        found.leave(Unchecked::EndToken);
    }
    check_price(acceptance, receipt, is_failure)?;
    found.check(Check::Price);
    //
    if let Some(acceptance) = acceptance {
        require(acceptance[a::ACCEPTED_MS] == receipt[r::ACCEPTED_MS], Fault::AcceptedAt)?;
    }
    require(is_failure || receipt[r::DONE_MS].number() <= order[o::DEADLINE_MS].number(), Fault::Late)?;
    found.check(Check::Deadline);
    found.leave(Unchecked::Clocks);
    //
    let (has_salt, has_state) = (*answer.salt != ZERO, !same(&receipt[r::STATE_COMMITMENT], &ZERO));
    if is_failure || by_word {
        require(!has_salt && !has_state, if is_failure { Fault::FailureWithState } else { Fault::Word })?;
    } else {
        require(has_salt, Fault::SaltMissing)?;
        require(has_state, Fault::CommitmentMissing)?;
    }
    match check_vector(answer, receipt, is_failure)? {
        None => {}
        Some(true) => found.check(Check::Vector),
        Some(false) => found.leave(Unchecked::Vector),
    }
    if !is_failure && !by_word {
        found.check(Check::Salt);
        found.leave(Unchecked::Computation);
    }
    Ok(Checked {
        found,
        order_digest,
        worker: *receipt_said.message.signer,
        output_tokens: receipt[r::OUTPUT_TOKENS].number(),
        charge: receipt[r::CHARGE].amount(),
        is_end: !is_failure,
    })
}

/// what is left of an answer that its worker broke off.
fn check_broken(answer: &Answer<'_>, order_digest: Digest, mut found: Found) -> Result<Checked, Fault> {
    let said = answer.acceptance.as_ref().ok_or(Fault::AcceptanceMissing)?;
    let worker = said.message.signer;
    check_acceptance(said, Some(worker), &answer.order.values, &order_digest)?;
    found.check(Check::Acceptance);
    found.leave(Unchecked::Worker);
    let signed_for = match &answer.progress {
        Some(progress) => {
            require(progress.message.signer == worker && progress.is_signed(), Fault::ProgressSignature)?;
            let progress = &progress.values;
            require(same(&progress[p::ORDER], &order_digest), Fault::ProgressOfOtherOrder)?;
            answer.output_ids.len() as u64 == progress[p::OUTPUT_TOKENS].number()
                && same(&progress[p::OUTPUT_DIGEST], &digest::ids(OUTPUT_IDS, &[answer.output_ids]))
                && same(&progress[p::TEXT_DIGEST], &digest(OUTPUT_TEXT, &[answer.text]))
        }
        None => answer.output_ids.is_empty() && answer.text.is_empty(),
    };
    require(signed_for, Fault::NotSignedFor)?;
    require(answer.embedding.is_none(), Fault::VectorUnasked)?;
    let output_tokens = answer.output_ids.len() as u64;
    require(output_tokens <= said.values[a::MAX_OUTPUT_TOKENS].number(), Fault::OverLimit)?;
    require(*answer.salt == ZERO, Fault::FailureWithState)?;
    found.check(Check::Progress);
    if output_tokens > 0 {
        found.leave(Unchecked::TextOfTokens);
        found.leave(Unchecked::Computation);
    }
    Ok(Checked { found, order_digest, worker: *worker, output_tokens, charge: 0, is_end: false })
}

/// an acceptance by this worker promises what was ordered, no dearer, no later, no longer.
fn check_acceptance(
    said: &Said<'_>,
    worker: Option<&[u8; 32]>,
    order: Fields<'_, '_>,
    order_digest: &Digest,
) -> Result<(), Fault> {
    require(Some(said.message.signer) == worker && said.is_signed(), Fault::AcceptanceSignature)?;
    let acceptance = &said.values;
    require(same(&acceptance[a::ORDER], order_digest), Fault::AcceptanceOfOtherOrder)?;
    require(acceptance[a::MODEL] == order[o::MODEL], Fault::AcceptanceOfOtherModel)?;
    require(acceptance[a::DEADLINE_MS] == order[o::DEADLINE_MS], Fault::DeadlineMoved)?;
    let (price, ceiling) = (acceptance[a::PRICE].many(), order[o::PRICE_CEILING].many());
    let within = price.iter().zip(ceiling).all(|(price, most)| price.amount() <= most.amount());
    require(within, Fault::PriceAboveCeiling)?;
    let limit = order[o::MAX_OUTPUT_TOKENS].number();
    require(acceptance[a::MAX_OUTPUT_TOKENS].number() <= limit, Fault::LimitRaised)?;
    require(acceptance[a::ACCEPTED_MS].number() <= order[o::DEADLINE_MS].number(), Fault::AcceptedLate)
}

///
fn check_bindings(
    order: Fields<'_, '_>,
    order_digest: &Digest,
    acceptance: Option<Fields<'_, '_>>,
    receipt: Fields<'_, '_>,
) -> Result<(), Fault> {
    require(same(&receipt[r::ORDER], order_digest), Fault::ReceiptOfOtherOrder)?;
    require(receipt[r::MODEL] == order[o::MODEL], Fault::OtherModel)?;
    let arithmetic = receipt[r::ARITHMETIC].number();
    require(arithmetic == ARITHMETIC_VERSION || arithmetic == NO_ARITHMETIC, Fault::OtherArithmetic)?;
    require(same(&receipt[r::SEED], &sampling_seed(order)), Fault::OtherSeed)?;
    // who cannot count the prompt says afterwards what it was told.
    let is_counted = !is_by_word(receipt) || is_failure(receipt);
    let agrees = |acceptance: Fields<'_, '_>| acceptance[a::PROMPT_TOKENS] == receipt[r::PROMPT_TOKENS];
    require(!is_counted || acceptance.is_none_or(agrees), Fault::PromptCount)
}

///
fn sampling_seed(order: Fields<'_, '_>) -> Digest {
    let caller = order[o::SEED].many().first().map(|seed| seed.number().to_le_bytes());
    let nonce = order[o::NONCE].bytes().unwrap_or(&ZERO);
    let begin = caller.as_ref().map_or(&nonce[..], |caller| &caller[..]);
    digest(SAMPLING_SEED, &[begin, &(order[o::CHOICE].number() as u32).to_le_bytes()])
}

/// an answer by its worker's word claims no token ids, no state, and continues nothing.
fn check_word(
    answer: &Answer<'_>,
    acceptance: Option<Fields<'_, '_>>,
    receipt: Fields<'_, '_>,
) -> Result<(), Fault> {
    let (order, asked) = (&answer.order.values, &answer.request);
    let claims_nothing = order[o::RESUMED].is_absent()
        && asked[request::PROMPT].choice() != TOKENS
        && asked[request::GRAMMAR].is_absent()
        && asked[request::EMBEDDING].is_absent()
        && acceptance.is_none_or(|acceptance| acceptance[a::PROMPT_TOKENS].number() == 0)
        && answer.prompt_ids.is_none()
        && same(&receipt[r::PROMPT_DIGEST], &digest::ids(PROMPT_IDS, &[]))
        && answer.output_ids.iter().all(|id| *id == 0)
        && receipt[r::CACHED_TOKENS].number() == 0
        && is_free(&receipt[r::PRICE])
        && order[o::CHANNEL].is_absent();
    require(claims_nothing, Fault::Word)
}

/// for the prompt where its ids are known. Says whether they were.
fn check_prompt(answer: &Answer<'_>, receipt: Fields<'_, '_>) -> Result<bool, Fault> {
    let prompt = &answer.request[request::PROMPT];
    let ordered: Option<alloc::vec::Vec<u32>> = (prompt.choice() == TOKENS)
        .then(|| prompt.many()[0].many().iter().map(|id| id.number() as u32).collect());
    if let (Some(ordered), Some(reported)) = (&ordered, answer.prompt_ids) {
        require(ordered == reported, Fault::OtherPromptTokens)?;
    }
    let counted = receipt[r::PROMPT_TOKENS].number();
    // A refusal may come before the prompt was tokenised.
    if answer.acceptance.is_none() && counted == 0 {
        return Ok(false);
    }
    let Some(ids) = ordered.as_deref().or(answer.prompt_ids) else { return Ok(false) };
    // what is resumed from is given to the model after the prompt.
    require((ids.len() + answer.resumed_ids.len()) as u64 == counted, Fault::PromptTokens)?;
    let prompt_ids = digest::ids(PROMPT_IDS, &[ids, answer.resumed_ids]);
    require(same(&receipt[r::PROMPT_DIGEST], &prompt_ids), Fault::PromptDigest)?;
    Ok(true)
}

///
fn check_finish(
    answer: &Answer<'_>,
    acceptance: Option<Fields<'_, '_>>,
    receipt: Fields<'_, '_>,
) -> Result<(), Fault> {
    let order = &answer.order.values;
    let count = receipt[r::OUTPUT_TOKENS].number();
    let Some(acceptance) = acceptance else { return require(count == 0, Fault::RefusalWithOutput) };
    let limit = acceptance[a::MAX_OUTPUT_TOKENS].number();
    require(count <= limit, Fault::OverLimit)?;
    let stops = answer.request[request::STOP].many();
    match receipt[r::FINISH].number() {
        // where an upstream says it ends, it ends.
        finish::STOP | finish::LENGTH if is_by_word(receipt) => {}
        finish::LENGTH => require(count == limit, Fault::LimitNotReached)?,
        finish::STOP => {
            require(count > 0 || !order[o::RESUMED].is_absent(), Fault::StoppedAtNothing)?;
            require(order[o::IGNORE_END].number() == 0 || !stops.is_empty(), Fault::NothingToStopAt)?;
        }
        finish::UNPAID => require(!is_free(&acceptance[a::PRICE]), Fault::NothingToPay)?,
        _ => {}
    }
    let is_in_text = |stop: &Value<'_>| {
        let stop = stop.text().unwrap_or_default().as_bytes();
        answer.text.windows(stop.len().max(1)).any(|window| window == stop)
    };
    require(!stops.iter().any(is_in_text), Fault::StopStringInText)
}

///
fn check_price(
    acceptance: Option<Fields<'_, '_>>,
    receipt: Fields<'_, '_>,
    is_failure: bool,
) -> Result<(), Fault> {
    let is_accepted = match acceptance {
        Some(acceptance) => acceptance[a::PRICE] == receipt[r::PRICE],
        None => is_free(&receipt[r::PRICE]),
    };
    require(is_accepted, Fault::OtherPrice)?;
    let due = if is_failure { Some(0) } else { due(receipt) };
    require(receipt[r::CHARGE].amount() == due.ok_or(Fault::ChargeOverflow)?, Fault::Charge)
}

/// What the tokens cost, rounded up once; none if it is beyond 128 bits.
fn due(receipt: Fields<'_, '_>) -> Option<u128> {
    let [prompt, cached, output] =
        [r::PROMPT_TOKENS, r::CACHED_TOKENS, r::OUTPUT_TOKENS].map(|at| receipt[at].number());
    let counts = [prompt - cached, cached, output];
    let mut sum = 0u128;
    for (price, count) in receipt[r::PRICE].many().iter().zip(counts) {
        sum = sum.checked_add(price.amount().checked_mul(count.into())?)?;
    }
    let (whole, rest) = divided(sum, 1_000_000);
    Some(whole + u128::from(rest > 0))
}

/// whether the vector is what the receipt commits to; none if there is to be none, false if it is not here.
fn check_vector(
    answer: &Answer<'_>,
    receipt: Fields<'_, '_>,
    is_failure: bool,
) -> Result<Option<bool>, Fault> {
    let wanted = &answer.request[request::EMBEDDING];
    if wanted.is_absent() || is_failure {
        require(answer.embedding.is_none(), Fault::VectorUnasked)?;
        return Ok(None);
    }
    let Some(bytes) = answer.embedding else { return Ok(Some(false)) };
    let (words, rest) = bytes.as_chunks::<4>();
    let is_finite = words.iter().all(|word| f32::from_le_bytes(*word).is_finite());
    require(rest.is_empty() && (1..=1 << 16).contains(&words.len()) && is_finite, Fault::Vector)?;
    let dimensions = &wanted.many()[0];
    require(dimensions.is_absent() || dimensions.number() == words.len() as u64, Fault::VectorDimensions)?;
    //
    let worker = receipt[r::WORKER].bytes().unwrap_or(&ZERO);
    let commitment = digest(STATE_COMMITMENT, &[worker, answer.salt, &digest::plain(bytes)]);
    require(same(&receipt[r::STATE_COMMITMENT], &commitment), Fault::OtherVector)?;
    Ok(Some(true))
}
