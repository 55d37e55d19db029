//! An honest answer holds; every way of tampering with it is refused for its own reason.

use surety_proof::{
    Check, EvidenceFault, Expected, Fault, Opened, Unchecked, check_answer, check_evidence,
    check_opened_answer, check_state, output_digest, prompt_digest, state_commitment, text_digest,
};
use surety_types::{
    Acceptance, Amount, Answer, Canonical, Digest, Envelope, Evidence, FailureCode, FinishReason, Message,
    ModelId, OpenError, Order, Outcome, Part, Price, Prompt, PublicKey, Purpose, Receipt, Request, Sampling,
    SecretKey, Seed, Signed, Text,
    digest::domain,
    order::ORDER_VERSION,
    receipt::{ARITHMETIC_VERSION, NO_ARITHMETIC, RECEIPT_VERSION},
};

const ISSUED_MS: u64 = 1_770_000_000_000;
const SALT: [u8; 32] = [5; 32];

fn payer() -> SecretKey {
    SecretKey::from_bytes(&[1; 32])
}

fn worker() -> SecretKey {
    SecretKey::from_bytes(&[2; 32])
}

fn gateway() -> SecretKey {
    SecretKey::from_bytes(&[3; 32])
}

fn stranger() -> SecretKey {
    SecretKey::from_bytes(&[4; 32])
}

fn state_digest() -> Digest {
    Digest::of(domain::OUTPUT_IDS, b"a state")
}

/// Everything that makes up an answer, before it is signed; honest unless a test changes it.
#[derive(Clone)]
struct Case {
    request: Request,
    /// What is delivered as the request, if not `request`.
    other_request: Option<Request>,
    order: Order,
    acceptance: Option<Acceptance>,
    receipt: Receipt,
    salt: [u8; 32],
    prompt_ids: Option<Vec<u32>>,
    output_ids: Vec<u32>,
    text: String,
    payer: SecretKey,
    acceptor: SecretKey,
    worker: SecretKey,
    expected: Expected,
}

/// A completed chat answer, ended by a stop string.
fn honest() -> Case {
    let request = Request {
        prompt: Prompt::chat(vec![Message::text("user", "Say something.")]),
        stop: vec!["END".into()],
        logprobs: None,
        prompt_logprobs: None,
        embedding: None,
        date: None,
        grammar: None,
    };
    let prompt_ids = vec![1, 50, 51, 52, 2];
    let output_ids = vec![60, 61, 62];
    let text = "Something.".to_owned();
    let price = Price { prompt: Amount(100), cached: Amount(10), output: Amount(500_000) };
    let order = Order {
        version: ORDER_VERSION,
        model: ModelId(Digest([7; 32])),
        request_digest: request.digest(),
        nonce: [8; 32],
        seed: Seed::Nonce,
        choice: 0,
        sampling: Sampling::default(),
        max_output_tokens: 8,
        ignore_end: false,
        deadline_ms: ISSUED_MS + 60_000,
        price_ceiling: price,
        channel: None,
        payer: payer().public(),
        issued_ms: ISSUED_MS,
        resumed: None,
        disclosure: None,
    };
    let acceptance = Acceptance {
        order: order.digest(),
        model: order.model,
        worker: worker().public(),
        deadline_ms: order.deadline_ms,
        price,
        prompt_tokens: 5,
        accepted_ms: ISSUED_MS + 10,
        max_output_tokens: 8,
        region: None,
    };
    let receipt = Receipt {
        version: RECEIPT_VERSION,
        outcome: Outcome::Completed,
        order: order.digest(),
        model: order.model,
        arithmetic: 0,
        prompt_tokens: 5,
        cached_tokens: 2,
        output_tokens: 3,
        prompt_digest: prompt_digest(&prompt_ids),
        output_digest: output_digest(&output_ids),
        text_digest: text_digest(&text),
        finish: FinishReason::Stop,
        seed: order.seed_bytes(),
        state_commitment: state_commitment(&worker().public(), &SALT, &state_digest()),
        price,
        charge: Amount(2), // (3 · 100 + 2 · 10 + 3 · 500,000) ÷ 10⁶, rounded up
        accepted_ms: ISSUED_MS + 10,
        first_token_ms: Some(ISSUED_MS + 20),
        done_ms: ISSUED_MS + 30,
        software: Text::clipped("test"),
        worker: worker().public(),
    };
    Case {
        request,
        other_request: None,
        order,
        acceptance: Some(acceptance),
        receipt,
        salt: SALT,
        prompt_ids: Some(prompt_ids),
        output_ids,
        text,
        payer: payer(),
        acceptor: worker(),
        worker: worker(),
        expected: Expected {
            payer: Some(payer().public()),
            worker: Some(worker().public()),
            context_tokens: Some(1000),
            cancelled: Some(false),
            arithmetic: Some(ARITHMETIC_VERSION),
        },
    }
}

/// A refusal before any work.
fn refusal() -> Case {
    let mut case = honest();
    case.acceptance = None;
    case.prompt_ids = None;
    case.output_ids.clear();
    case.text.clear();
    case.salt = [0; 32];
    case.receipt = Receipt {
        outcome: Outcome::Failed {
            code: FailureCode::Overloaded,
            message: Text::clipped("64 orders waiting"),
        },
        finish: FinishReason::Failed,
        prompt_tokens: 0,
        cached_tokens: 0,
        output_tokens: 0,
        prompt_digest: prompt_digest(&[]),
        output_digest: output_digest(&[]),
        text_digest: text_digest(""),
        state_commitment: Digest::ZERO,
        price: Price::ZERO,
        charge: Amount::ZERO,
        first_token_ms: None,
        ..case.receipt
    };
    case
}

impl Case {
    /// After a change of the order: everything that hangs on it follows.
    fn reorder(mut self) -> Case {
        self.order.request_digest = self.request.digest();
        let digest = self.order.digest();
        if let Some(acceptance) = &mut self.acceptance {
            acceptance.order = digest;
        }
        self.receipt.order = digest;
        self.receipt.seed = self.order.seed_bytes();
        self
    }

    fn answer(&self) -> Answer {
        Answer {
            order: Signed::sign(self.order.clone(), &self.payer).bytes().to_vec(),
            request: self.other_request.as_ref().unwrap_or(&self.request).to_cbor(),
            acceptance: self
                .acceptance
                .as_ref()
                .map(|acceptance| Signed::sign(acceptance.clone(), &self.acceptor).bytes().to_vec()),
            receipt: Some(Signed::sign(self.receipt.clone(), &self.worker).bytes().to_vec()),
            progress: None,
            salt: self.salt,
            output_ids: self.output_ids.clone(),
            resumed_ids: Vec::new(),
            channel: None,
            text: self.text.clone(),
            prompt_ids: self.prompt_ids.clone(),
            embedding: None,
        }
    }
}

/// Checks that a change of the honest answer is refused with the fault that `is_expected` recognises, also by whoever opened the
/// order and the acceptance before.
fn check(mut case: Case, change: impl FnOnce(&mut Case), is_expected: impl FnOnce(&Fault) -> bool) {
    let honest = case.answer();
    check_answer(&honest, &case.expected).expect("honest before the change");
    let order = Signed::<Order>::open(&honest.order).expect("an order");
    let acceptance =
        honest.acceptance.map(|bytes| Signed::<Acceptance>::open(&bytes).expect("an acceptance"));
    let opened = Opened { order: Some(&order), acceptance: acceptance.as_ref() };
    check_opened_answer(&case.answer(), &case.expected, opened).expect("honest before the change");
    change(&mut case);
    let fault = check_answer(&case.answer(), &case.expected).expect_err("tampered with");
    assert!(is_expected(&fault), "{fault:?}");
    let again = check_opened_answer(&case.answer(), &case.expected, opened).expect_err("tampered with");
    assert_eq!(format!("{again:?}"), format!("{fault:?}"));
}

macro_rules! faults {
    ($($name:ident: $case:expr, $change:expr => $pattern:pat,)*) => {$(
        #[test]
        fn $name() {
            check($case, $change, |fault| matches!(fault, $pattern));
        }
    )*};
}

fn acceptance(case: &mut Case) -> &mut Acceptance {
    case.acceptance.as_mut().expect("accepted")
}

faults! {
    order_by_another: honest(), |case: &mut Case| {
        case.payer = stranger();
        case.order.payer = stranger().public();
    } => Fault::OtherPayer { .. },

    other_request: honest(), |case: &mut Case| {
        let mut request = case.request.clone();
        request.prompt = Prompt::chat(vec![Message::text("user", "Say nothing.")]);
        case.other_request = Some(request);
    } => Fault::OtherRequest,

    acceptance_missing: honest(), |case: &mut Case| case.acceptance = None => Fault::AcceptanceMissing,

    acceptance_by_another: honest(), |case: &mut Case| {
        case.acceptor = stranger();
        acceptance(case).worker = stranger().public();
    } => Fault::Acceptance(OpenError::WrongSigner { .. }),

    acceptance_of_other_order: honest(), |case: &mut Case| acceptance(case).order = Digest::ZERO
        => Fault::AcceptanceOfOtherOrder,

    acceptance_of_other_model: honest(), |case: &mut Case| acceptance(case).model = ModelId(Digest::ZERO)
        => Fault::AcceptanceOfOtherModel { .. },

    deadline_moved: honest(), |case: &mut Case| acceptance(case).deadline_ms += 1 => Fault::DeadlineMoved { .. },

    price_above_ceiling: honest(), |case: &mut Case| acceptance(case).price.cached = Amount(11)
        => Fault::PriceAboveCeiling,

    limit_raised: honest(), |case: &mut Case| acceptance(case).max_output_tokens = 9
        => Fault::LimitRaised { ordered: 8, accepted: 9 },

    limit_lowered_without_need: honest(), |case: &mut Case| acceptance(case).max_output_tokens = 4
        => Fault::LimitNotTheContext { accepted: 4, prompt_tokens: 5, context_tokens: 1000 },

    accepted_late: honest(), |case: &mut Case| acceptance(case).accepted_ms = ISSUED_MS + 60_001
        => Fault::AcceptedLate { .. },

    receipt_by_another: honest(), |case: &mut Case| {
        case.worker = stranger();
        case.receipt.worker = stranger().public();
    } => Fault::OtherWorker { .. },

    receipt_of_other_order: honest(), |case: &mut Case| case.receipt.order = Digest::ZERO
        => Fault::ReceiptOfOtherOrder,

    other_model: honest(), |case: &mut Case| case.receipt.model = ModelId(Digest::ZERO) => Fault::OtherModel { .. },

    other_arithmetic: honest(), |case: &mut Case| case.receipt.arithmetic = 1 => Fault::OtherArithmetic(1),

    other_seed: honest(), |case: &mut Case| case.receipt.seed[0] ^= 1 => Fault::OtherSeed,

    prompt_count_changed: honest(), |case: &mut Case| case.receipt.prompt_tokens = 6
        => Fault::PromptCount { accepted: 5, receipted: 6 },

    prompt_truncated: honest(), |case: &mut Case| { case.prompt_ids.as_mut().unwrap().pop(); }
        => Fault::PromptTokens { receipted: 5, found: 4 },

    prompt_token_changed: honest(), |case: &mut Case| case.prompt_ids.as_mut().unwrap()[1] = 99
        => Fault::PromptDigest,

    prompt_ids_other_than_ordered: ordered_tokens(), |case: &mut Case| case.prompt_ids = Some(vec![1, 50, 51, 52, 3])
        => Fault::OtherPromptTokens,

    ordered_ids_not_those_computed: ordered_tokens(), |case: &mut Case| {
        case.prompt_ids = None;
        case.receipt.prompt_digest = prompt_digest(&[1, 50, 51, 52, 3]);
    } => Fault::PromptDigest,

    output_token_appended: honest(), |case: &mut Case| case.output_ids.push(63)
        => Fault::OutputCount { receipted: 3, found: 4 },

    output_token_removed: honest(), |case: &mut Case| { case.output_ids.pop(); }
        => Fault::OutputCount { receipted: 3, found: 2 },

    output_token_changed: honest(), |case: &mut Case| case.output_ids[1] = 99 => Fault::OutputDigest,

    output_tokens_swapped: honest(), |case: &mut Case| case.output_ids.swap(0, 1) => Fault::OutputDigest,

    text_changed: honest(), |case: &mut Case| case.text.push('\u{200b}') => Fault::TextDigest,

    over_the_limit: honest(), |case: &mut Case| {
        acceptance(case).max_output_tokens = 2;
        case.expected.context_tokens = Some(7);
    } => Fault::OverLimit { found: 3, limit: 2 },

    limit_not_reached: honest(), |case: &mut Case| case.receipt.finish = FinishReason::Length
        => Fault::LimitNotReached { found: 3, limit: 8 },

    stopped_at_nothing: honest(), |case: &mut Case| {
        case.output_ids.clear();
        case.receipt.output_tokens = 0;
        case.receipt.output_digest = output_digest(&[]);
        case.receipt.first_token_ms = None;
    } => Fault::StoppedAtNothing,

    nothing_to_stop_at: honest(), |case: &mut Case| {
        case.order.ignore_end = true;
        case.request.stop.clear();
        *case = case.clone().reorder();
    } => Fault::NothingToStopAt,

    not_cancelled: honest(), |case: &mut Case| case.receipt.finish = FinishReason::Cancelled => Fault::NotCancelled,

    nothing_to_pay: honest(), |case: &mut Case| {
        acceptance(case).price = Price::ZERO;
        case.receipt.price = Price::ZERO;
        case.receipt.charge = Amount::ZERO;
        case.receipt.finish = FinishReason::Unpaid;
    } => Fault::NothingToPay,

    stop_string_in_text: honest(), |case: &mut Case| {
        case.text = "Something. END".into();
        case.receipt.text_digest = text_digest(&case.text);
    } => Fault::StopStringInText(_),

    salt_missing: honest(), |case: &mut Case| case.salt = [0; 32] => Fault::SaltMissing,

    commitment_missing: honest(), |case: &mut Case| case.receipt.state_commitment = Digest::ZERO
        => Fault::CommitmentMissing,

    other_price: honest(), |case: &mut Case| case.receipt.price.output = Amount(499_999) => Fault::OtherPrice,

    overcharged: honest(), |case: &mut Case| case.receipt.charge = Amount(3)
        => Fault::Charge { due: Amount(2), found: Amount(3) },

    charge_overflows: honest(), |case: &mut Case| {
        case.order.price_ceiling.output = Amount(u128::MAX);
        acceptance(case).price.output = Amount(u128::MAX);
        case.receipt.price.output = Amount(u128::MAX);
        *case = case.clone().reorder();
    } => Fault::ChargeOverflow(_),

    accepted_at_another_time: honest(), |case: &mut Case| case.receipt.accepted_ms -= 1 => Fault::AcceptedAt { .. },

    late: honest(), |case: &mut Case| case.receipt.done_ms = ISSUED_MS + 60_001 => Fault::Late { .. },

    refusal_with_output: refusal(), |case: &mut Case| {
        case.output_ids = vec![60];
        case.receipt.output_tokens = 1;
        case.receipt.output_digest = output_digest(&[60]);
        case.receipt.first_token_ms = Some(ISSUED_MS + 20);
    } => Fault::RefusalWithOutput(1),

    refusal_with_state: refusal(), |case: &mut Case| case.receipt.state_commitment = state_digest()
        => Fault::FailureWithState,

    refusal_with_salt: refusal(), |case: &mut Case| case.salt = SALT => Fault::FailureWithState,

    refusal_charged: refusal(), |case: &mut Case| case.receipt.charge = Amount(1) => Fault::Charge { .. },

    refusal_of_other_order: refusal(), |case: &mut Case| case.receipt.order = Digest::ZERO
        => Fault::ReceiptOfOtherOrder,

    refusal_by_another: refusal(), |case: &mut Case| {
        case.worker = stranger();
        case.receipt.worker = stranger().public();
    } => Fault::OtherWorker { .. },
}

fn ordered_tokens() -> Case {
    let mut case = honest();
    case.request.prompt = Prompt::Tokens(vec![1, 50, 51, 52, 2]);
    case.reorder()
}

#[test]
fn signatures_are_checked() {
    let case = honest();
    let tampered = |change: fn(&mut Answer)| {
        let mut answer = case.answer();
        change(&mut answer);
        check_answer(&answer, &case.expected).unwrap_err()
    };
    let fault = tampered(|answer| *answer.order.last_mut().unwrap() ^= 1);
    assert!(matches!(fault, Fault::Order(OpenError::BadSignature { .. })), "{fault:?}");
    let fault = tampered(|answer| *answer.acceptance.as_mut().unwrap().last_mut().unwrap() ^= 1);
    assert!(matches!(fault, Fault::Acceptance(OpenError::BadSignature { .. })), "{fault:?}");
    let fault = tampered(|answer| *answer.receipt.as_mut().unwrap().last_mut().unwrap() ^= 1);
    assert!(matches!(fault, Fault::Receipt(OpenError::BadSignature { .. })), "{fault:?}");
    let fault = tampered(|answer| answer.request.push(0));
    assert!(matches!(fault, Fault::Request(_)), "{fault:?}");
    // A receipt in the place of an acceptance, and the other way round.
    let fault = tampered(|answer| answer.acceptance = answer.receipt.clone());
    assert!(matches!(fault, Fault::Acceptance(_)), "{fault:?}");
    let fault = tampered(|answer| answer.receipt = answer.acceptance.clone());
    assert!(matches!(fault, Fault::Receipt(_)), "{fault:?}");
}

/// A receipt is for its own request: presented with another order, nothing fits.
#[test]
fn a_receipt_does_not_travel() {
    let mine = honest();
    let mut other = honest();
    other.order.nonce = [9; 32];
    let other = other.reorder();
    let answer = Answer { order: mine.answer().order, request: mine.answer().request, ..other.answer() };
    let fault = check_answer(&answer, &mine.expected).unwrap_err();
    assert!(matches!(fault, Fault::AcceptanceOfOtherOrder), "{fault:?}");
    let answer = Answer { receipt: other.answer().receipt, ..mine.answer() };
    let fault = check_answer(&answer, &mine.expected).unwrap_err();
    assert!(matches!(fault, Fault::ReceiptOfOtherOrder), "{fault:?}");
}

/// What a worker gives that has an upstream answer.
fn by_word() -> Case {
    let mut case = honest();
    case.expected.arithmetic = Some(NO_ARITHMETIC);
    (case.prompt_ids, case.output_ids, case.salt) = (None, vec![0; 3], [0; 32]);
    case.order.price_ceiling = Price::ZERO;
    let acceptance = case.acceptance.as_mut().expect("accepted");
    (acceptance.price, acceptance.prompt_tokens) = (Price::ZERO, 0);
    case.receipt = Receipt {
        arithmetic: NO_ARITHMETIC,
        cached_tokens: 0,
        prompt_digest: prompt_digest(&[]),
        output_digest: output_digest(&case.output_ids),
        state_commitment: Digest::ZERO,
        price: Price::ZERO,
        charge: Amount::ZERO,
        ..case.receipt
    };
    case.reorder()
}

#[test]
fn an_answer_by_word_claims_no_more_than_that() {
    let case = by_word();
    for expected in [case.expected, Expected::default()] {
        let checked = check_answer(&case.answer(), &expected).unwrap();
        assert!(checked.is_by_word() && checked.checked.contains(&Check::Word));
        assert!(checked.checked.contains(&Check::Text));
        for overstated in [Check::Parameters, Check::PromptTokens, Check::OutputTokens, Check::Salt] {
            assert!(!checked.checked.contains(&overstated), "{overstated}");
        }
        assert!(
            checked.unchecked.contains(&Unchecked::Upstream) && checked.unchecked.contains(&Unchecked::Usage)
        );
        assert!(!checked.unchecked.contains(&Unchecked::Computation), "nothing can compute it");
    }
    // An end is the upstream's word.
    let mut ended = by_word();
    ended.receipt.finish = FinishReason::Length;
    check_answer(&ended.answer(), &ended.expected).unwrap();

    let word = |change: fn(&mut Case), what: &str| {
        let expected = what.to_owned();
        check(by_word(), change, |fault| matches!(fault, Fault::Word(found) if *found == expected));
    };
    word(|case| case.salt = SALT, "commits to a state");
    word(|case| case.receipt.state_commitment = Digest([1; 32]), "commits to a state");
    word(|case| case.receipt.cached_tokens = 1, "counts cached tokens");
    word(|case| case.receipt.prompt_digest = prompt_digest(&[1]), "names the prompt's tokens");
    word(|case| case.output_ids[1] = 60, "names the output's tokens");
    word(|case| case.acceptance.as_mut().unwrap().prompt_tokens = 5, "was accepted for a counted prompt");
    let price = Price { output: Amount(1), ..Price::ZERO };
    let mut paid = by_word();
    paid.receipt.price = price;
    let fault = check_answer(&paid.answer(), &paid.expected).unwrap_err();
    assert!(matches!(fault, Fault::Word("is to be paid")), "{fault}");

    // Who has an exact model claims its arithmetic, and who has none claims none.
    check(
        honest(),
        |case| case.receipt.arithmetic = NO_ARITHMETIC,
        |fault| matches!(fault, Fault::OtherArithmetic(NO_ARITHMETIC)),
    );
    check(
        by_word(),
        |case| case.receipt.arithmetic = ARITHMETIC_VERSION,
        |fault| matches!(fault, Fault::OtherArithmetic(ARITHMETIC_VERSION)),
    );
    // A refusal may come from who does not know the model.
    let mut refusal = refusal();
    refusal.receipt.arithmetic = NO_ARITHMETIC;
    check_answer(&refusal.answer(), &refusal.expected).unwrap();
}

#[test]
fn what_holds_and_what_is_open_is_said() {
    let case = honest();
    let checked = check_answer(&case.answer(), &case.expected).unwrap();
    for check in [Check::Payer, Check::Worker, Check::PromptTokens, Check::Text, Check::Finish, Check::Salt] {
        assert!(checked.checked.contains(&check), "{check}");
    }
    let open = [
        Unchecked::PromptTokens,
        Unchecked::TextOfTokens,
        Unchecked::EndToken,
        Unchecked::Clocks,
        Unchecked::Computation,
    ];
    assert_eq!(checked.unchecked, open);

    let mut unknown = honest();
    unknown.prompt_ids = None;
    unknown.expected = Expected::default();
    unknown.acceptance.as_mut().unwrap().max_output_tokens = 4;
    let checked = check_answer(&unknown.answer(), &unknown.expected).unwrap();
    assert!(!checked.checked.contains(&Check::PromptTokens));
    assert!(!checked.checked.contains(&Check::Payer));
    for open in [Unchecked::Payer, Unchecked::Worker, Unchecked::Limit] {
        assert!(checked.unchecked.contains(&open), "{open}");
    }

    let refused = check_answer(&refusal().answer(), &refusal().expected).unwrap();
    assert!(!refused.checked.contains(&Check::Salt));
    assert!(!refused.unchecked.contains(&Unchecked::Computation));
}

#[test]
fn other_endings_hold() {
    let mut cancelled = honest();
    cancelled.receipt.finish = FinishReason::Cancelled;
    cancelled.expected.cancelled = Some(true);
    check_answer(&cancelled.answer(), &cancelled.expected).unwrap();

    let mut full = honest();
    full.receipt.finish = FinishReason::Length;
    full.acceptance.as_mut().unwrap().max_output_tokens = 3;
    full.expected.context_tokens = Some(8);
    check_answer(&full.answer(), &full.expected).unwrap();

    let mut unpaid = honest();
    unpaid.receipt.finish = FinishReason::Unpaid;
    check_answer(&unpaid.answer(), &unpaid.expected).unwrap();

    // A failure in the middle: what was delivered is counted, and nothing is charged.
    let mut broken = honest();
    broken.salt = [0; 32];
    broken.receipt = Receipt {
        outcome: Outcome::Failed { code: FailureCode::NonFinite, message: Text::clipped("token 3") },
        finish: FinishReason::Failed,
        state_commitment: Digest::ZERO,
        charge: Amount::ZERO,
        done_ms: broken.order.deadline_ms + 1,
        ..broken.receipt
    };
    check_answer(&broken.answer(), &broken.expected).unwrap();

    // Nothing but the prompt's score.
    let mut scored = honest();
    scored.order.max_output_tokens = 0;
    scored.acceptance.as_mut().unwrap().max_output_tokens = 0;
    scored.output_ids.clear();
    scored.text.clear();
    scored.receipt = Receipt {
        finish: FinishReason::Length,
        output_tokens: 0,
        output_digest: output_digest(&[]),
        text_digest: text_digest(""),
        first_token_ms: None,
        charge: Amount(1),
        ..scored.receipt
    };
    let scored = scored.reorder();
    check_answer(&scored.answer(), &scored.expected).unwrap();
}

#[test]
fn a_recomputed_state_is_compared() {
    let receipt = honest().receipt;
    check_state(&receipt, &SALT, &state_digest()).unwrap();
    assert!(matches!(check_state(&receipt, &SALT, &Digest::ZERO), Err(Fault::OtherState)));
    assert!(matches!(check_state(&receipt, &[6; 32], &state_digest()), Err(Fault::OtherState)));
}

// ---- evidence ----

fn evidence_of(cases: &[Case], change: impl FnOnce(&mut Envelope)) -> Evidence {
    let answers: Vec<Answer> = cases.iter().map(Case::answer).collect();
    let mut envelope = Envelope {
        request_id: "req-1".into(),
        gateway: gateway().public(),
        model_name: "model".into(),
        parts: cases
            .iter()
            .map(|case| Part {
                order: case.order.digest(),
                receipt: Some(Signed::sign(case.receipt.clone(), &case.worker).digest()),
                worker: case.receipt.worker,
                first_output_token: 0,
                output_tokens: case.receipt.output_tokens,
                purpose: None,
            })
            .collect(),
        received_ms: ISSUED_MS,
        first_byte_ms: ISSUED_MS + 21,
        done_ms: ISSUED_MS + 31,
        charge: Amount(cases.iter().map(|case| case.receipt.charge.0).sum()),
    };
    change(&mut envelope);
    Evidence {
        request_id: "req-1".into(),
        envelope: Signed::sign(envelope, &gateway()).bytes().to_vec(),
        answers,
    }
}

#[test]
fn whole_evidence_holds() {
    let mut second = honest();
    second.order.choice = 1;
    let cases = [honest(), second.reorder()];
    let evidence = evidence_of(&cases, |_| {});
    let checked =
        check_evidence(&evidence, Some(&gateway().public()), &cases[0].expected).expect("honest evidence");
    assert_eq!(checked.answers.len(), 2);
    assert_eq!(checked.checked, [Check::Envelope, Check::Gateway, Check::Parts]);
    assert!(checked.unchecked.is_empty());

    let checked = check_evidence(&evidence, None, &Expected::default()).unwrap();
    assert_eq!(checked.unchecked, [Unchecked::Gateway]);
}

/// The same answer by another worker, ordered at another price.
fn repeated() -> Case {
    let mut case = honest();
    case.worker = stranger();
    case.acceptor = stranger();
    case.order.price_ceiling.output = Amount(600_000);
    case.order.issued_ms += 1;
    case.expected = Expected::default();
    case = case.reorder();
    case.receipt.worker = stranger().public();
    if let Some(acceptance) = &mut case.acceptance {
        acceptance.worker = stranger().public();
    }
    case.receipt.state_commitment = state_commitment(&stranger().public(), &SALT, &state_digest());
    case
}

fn named_as_checks(from: usize) -> impl Fn(&mut Envelope) {
    move |envelope| {
        envelope.parts[from..].iter_mut().for_each(|part| part.purpose = Some(Purpose::Check));
    }
}

#[test]
fn a_check_repeats_an_answer_by_another_worker() {
    let fault = |cases: &[Case], from: usize| {
        let evidence = evidence_of(cases, named_as_checks(from));
        check_evidence(&evidence, None, &Expected::default()).map(|checked| checked.checked)
    };
    let checked = fault(&[honest(), repeated()], 1).expect("it repeats it");
    assert!(checked.contains(&Check::Repeated));
    // Two answers of which neither is said to check the other are two answers.
    let checked = fault(&[honest(), repeated()], 2).expect("two answers");
    assert!(!checked.contains(&Check::Repeated));

    let by_the_same = honest();
    assert!(matches!(fault(&[honest(), by_the_same], 1), Err(EvidenceFault::CheckDiffers { index: 1 })));
    let mut otherwise = repeated();
    otherwise.output_ids[1] = 77;
    otherwise.receipt.output_digest = output_digest(&otherwise.output_ids);
    assert!(matches!(fault(&[honest(), otherwise], 1), Err(EvidenceFault::CheckDiffers { index: 1 })));
    let mut other_text = repeated();
    other_text.text.push('!');
    other_text.receipt.text_digest = text_digest(&other_text.text);
    assert!(matches!(fault(&[honest(), other_text], 1), Err(EvidenceFault::CheckDiffers { index: 1 })));
    let mut of_another = repeated();
    of_another.order.nonce = [9; 32];
    let mut of_another = of_another.reorder();
    of_another.receipt.seed = of_another.order.seed_bytes();
    assert!(matches!(fault(&[honest(), of_another], 1), Err(EvidenceFault::CheckOfNothing { index: 1 })));
    assert!(matches!(fault(&[honest(), repeated()], 0), Err(EvidenceFault::CheckOfNothing { index: 0 })));
    // Answers come first.
    let mut second = honest();
    second.order.choice = 1;
    let evidence = evidence_of(&[honest(), repeated(), second.reorder()], |envelope| {
        envelope.parts[1].purpose = Some(Purpose::Check);
    });
    let fault = check_evidence(&evidence, None, &Expected::default()).expect_err("an answer behind a check");
    assert!(matches!(fault, EvidenceFault::NotAContinuation { index: 2 }), "{fault:?}");
}

/// A gateway that orders something else than it was asked for signs evidence that holds, and that says so: the request in it is
/// the one that was answered, for the caller to compare with its own.
#[test]
fn a_gateway_that_asks_for_something_else_shows_what() {
    let asked = honest().request;
    let mut other = honest();
    other.request.prompt = Prompt::chat(vec![Message::text("user", "Say the sponsor's name.")]);
    let evidence = evidence_of(&[other.reorder()], |_| {});
    let checked = check_evidence(&evidence, Some(&gateway().public()), &honest().expected).unwrap();
    assert_ne!(checked.answers[0].request, asked);

    // It cannot show the caller's request in its place.
    let mut shown = evidence;
    shown.answers[0].request = asked.to_cbor();
    let fault = check_evidence(&shown, None, &Expected::default()).unwrap_err();
    assert!(matches!(fault, EvidenceFault::Answer { index: 0, fault: Fault::OtherRequest }), "{fault:?}");
}

#[test]
fn evidence_that_was_tampered_with_is_refused() {
    let fault = |evidence: &Evidence, by: &PublicKey| {
        check_evidence(evidence, Some(by), &honest().expected).expect_err("tampered with")
    };
    let case = [honest()];
    let gateway = gateway().public();
    let honest = evidence_of(&case, |_| {});

    assert!(matches!(fault(&honest, &stranger().public()), EvidenceFault::OtherGateway { .. }));
    let mut evidence = honest.clone();
    *evidence.envelope.last_mut().unwrap() ^= 1;
    assert!(matches!(fault(&evidence, &gateway), EvidenceFault::Envelope(_)));
    let evidence = Evidence { request_id: "req-2".into(), ..honest.clone() };
    assert!(matches!(fault(&evidence, &gateway), EvidenceFault::OtherRequest));
    let evidence =
        Evidence { answers: [honest.answers.clone(), honest.answers.clone()].concat(), ..honest.clone() };
    assert!(matches!(fault(&evidence, &gateway), EvidenceFault::PartCount { named: 1, found: 2 }));
    let mut evidence = honest.clone();
    evidence.answers[0].text.push('!');
    assert!(matches!(
        fault(&evidence, &gateway),
        EvidenceFault::Answer { index: 0, fault: Fault::TextDigest }
    ));
    let other_parts: [fn(&mut Part); 6] = [
        |part| part.receipt = None,
        |part| part.order = Digest::ZERO,
        |part| part.receipt = Some(Digest::ZERO),
        |part| part.worker = stranger().public(),
        |part| part.first_output_token = 1,
        |part| part.output_tokens = 4,
    ];
    for change in other_parts {
        let evidence = evidence_of(&case, |envelope| change(&mut envelope.parts[0]));
        assert!(matches!(fault(&evidence, &gateway), EvidenceFault::OtherPart { index: 0 }));
    }
    let evidence = evidence_of(&case, |envelope| envelope.charge = Amount(3));
    assert!(matches!(fault(&evidence, &gateway), EvidenceFault::Charge { .. }));
}

/// Every bit of an evidence file: none can be changed without the file being refused.
#[test]
fn no_bit_of_an_evidence_file_can_be_changed() {
    let case = [honest()];
    let json = evidence_of(&case, |_| {}).to_json().unwrap().into_bytes();
    let holds = |json: &[u8]| {
        Evidence::parse(json)
            .is_ok_and(|evidence| check_evidence(&evidence, None, &Expected::default()).is_ok())
    };
    assert!(holds(&json));
    // The salt is held against the state only by a recomputation.
    let salt = String::from_utf8_lossy(&json).find("\"salt\":\"").unwrap() + 8;
    for index in (0..json.len()).filter(|index| !(salt..salt + 64).contains(index)) {
        for bit in 0..8 {
            let mut edited = json.clone();
            edited[index] ^= 1 << bit;
            assert!(!holds(&edited), "bit {bit} of byte {index} went unnoticed");
        }
    }
}
