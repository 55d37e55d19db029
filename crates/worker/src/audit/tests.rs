//! What an auditor finds in honest answers and in others, and what a worker finds in its own.

use std::{
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
};

use alloy_primitives::{Address, B256};
use alloy_sol_types::SolCall as _;
use surety_engine::{Event, Model, Scheduler, SchedulerLimits, SequenceRequest, model::pack_in_memory};
use surety_kernels::{Backend, Executor};
use surety_types::{
    AuditEvidence, Canonical, Digest, Disclosure, FinishReason, Order, Price, Prompt, Receipt, Request,
    Sampling, SecretKey, Seed, Signed, abi::IAudits, order::ORDER_VERSION,
};

use super::{Discrepancy, Trickle, compute_again, desk};
use crate::{money::Case, receipt::Account};

const SALT: [u8; 32] = [9; 32];

fn executor() -> Arc<Executor> {
    Arc::new(Executor::new(Backend::detect(), NonZeroUsize::MIN).unwrap())
}

fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL
        .get_or_init(|| {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shakespeare-demo.gguf");
            let file = std::fs::read(path).unwrap();
            let digest = Digest(*blake3::hash(&file).as_bytes());
            let image = pack_in_memory(&file, digest, &executor()).unwrap();
            Arc::new(Model::load(Arc::new(file), digest, image, None).unwrap())
        })
        .clone()
}

/// What a model gives: tokens, text, end, state digest.
struct Computed {
    tokens: Vec<u32>,
    text: String,
    finish: FinishReason,
    state_digest: Digest,
}

fn request() -> Request {
    Request {
        prompt: Prompt::Text("What news from the wars?".into()),
        stop: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
        embedding: None,
        date: None,
        grammar: None,
    }
}

fn order(seed: i64, temperature: f32) -> Order {
    Order {
        version: ORDER_VERSION,
        model: model().id(),
        request_digest: request().digest(),
        nonce: [1; 32],
        seed: Seed::Caller(seed),
        choice: 0,
        sampling: Sampling { temperature, ..Sampling::default() },
        max_output_tokens: 12,
        ignore_end: true,
        deadline_ms: 1_000_000,
        price_ceiling: Price::ZERO,
        channel: None,
        payer: SecretKey::from_bytes(&[1; 32]).public(),
        issued_ms: 1,
        resumed: None,
        disclosure: None,
    }
}

fn compute(order: &Order) -> Computed {
    let limits = SchedulerLimits {
        kv_pages: 16,
        context_tokens: 128,
        tokens_per_step: 128,
        running_max: 1,
        waiting_max: 1,
    };
    let mut scheduler = Scheduler::new(model(), executor(), limits).unwrap();
    let sequence = SequenceRequest {
        prompt: model().prompt_tokens(&request()).unwrap(),
        output: Vec::new(),
        sampling: order.sampling.clone(),
        seed: order.seed_bytes(),
        max_output_tokens: order.max_output_tokens,
        stop: Vec::new(),
        ignore_end: true,
        logprobs: None,
        prompt_logprobs: None,
        embedding: None,
        grammar: None,
    };
    scheduler.submit(sequence).unwrap();
    let (mut tokens, mut text) = (Vec::new(), String::new());
    loop {
        for event in scheduler.step() {
            match event {
                Event::Token { token, text: released, .. } => {
                    tokens.push(token);
                    text += &released;
                }
                Event::Finished { finish, text: rest, state_digest, .. } => {
                    return Computed { tokens, text: text + &rest, finish, state_digest };
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What a worker keeps that signs for this as the answer, true or not.
fn signed(order: &Order, claim: &Computed) -> Case {
    let (payer, worker) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
    let mut account = Account::open(worker.public(), order, Price::ZERO, 2);
    account.prompt(&model().prompt_tokens(&request()).unwrap());
    let acceptance = account.accept(&worker, order.max_output_tokens, None, 3);
    account.deliver(&claim.tokens, &claim.text, 4);
    let receipt = account.complete(&worker, claim.finish, &claim.state_digest, &SALT, 5);
    let evidence = AuditEvidence {
        order: Signed::sign(order.clone(), &payer).into_parts().1,
        request: request().to_cbor(),
        acceptance: acceptance.into_parts().1,
        receipt: receipt.into_parts().1,
        resumed: Vec::new(),
        output: claim.tokens.clone(),
        text: claim.text.clone(),
    };
    Case { evidence, salt: SALT, state_digest: claim.state_digest }
}

/// As the ledger shows it.
fn audit_of(case: &Case) -> IAudits::Audit {
    let receipt = Signed::<Receipt>::open(&case.evidence.receipt).unwrap();
    IAudits::Audit {
        status: desk::stage::DISCLOSED,
        index: 0,
        receipt: receipt.digest().0.into(),
        worker: receipt.worker.0.into(),
        model: receipt.model.0.0.into(),
        stateCommitment: receipt.state_commitment.0.into(),
        evidence: case.evidence.digest().0.into(),
        charge: 0,
        disclosedIn: 0,
        due: 1,
        auditor: Address::ZERO,
        auditorKey: B256::ZERO,
        commitment: B256::ZERO,
        found: B256::ZERO,
    }
}

fn found(audit: &IAudits::Audit, evidence: &AuditEvidence) -> Option<Digest> {
    desk::found(&model(), &executor(), audit, evidence.clone(), &mut || {})
}

#[test]
fn an_auditor_finds_the_state_of_an_honest_answer_without_being_told_what_opens_it() {
    for (seed, temperature) in [(1, 0.0), (2, 0.8)] {
        let order = order(seed, temperature);
        let computed = compute(&order);
        let case = signed(&order, &computed);
        assert_eq!(found(&audit_of(&case), &case.evidence), Some(computed.state_digest));
        // Neither half of what opens the commitment is in what it was given.
        let given = case.evidence.to_cbor();
        let holds = |needle: &[u8; 32]| given.windows(32).any(|window| window == needle);
        assert!(!holds(&computed.state_digest.0) && !holds(&SALT));
    }
}

#[test]
fn an_auditor_finds_nothing_that_anyone_has_where_an_answer_is_not_the_models() {
    let order = order(3, 0.8);
    let honest = compute(&order);
    let none = Some(Digest::ZERO);
    let check = |claim: &Computed| {
        let case = signed(&order, claim);
        found(&audit_of(&case), &case.evidence)
    };
    // One token edited, its state as it may be.
    let mut tokens = honest.tokens.clone();
    tokens[5] ^= 1;
    let (text, finish, state_digest) = (honest.text.clone(), honest.finish, honest.state_digest);
    assert_eq!(check(&Computed { tokens: tokens.clone(), text: text.clone(), finish, state_digest }), none);
    // Another text for the same tokens.
    let text = format!("{text}!");
    assert_eq!(check(&Computed { tokens: honest.tokens.clone(), text, finish, state_digest }), none);
    // Sampled at another temperature.
    let warmer =
        compute(&Order { sampling: Sampling { temperature: 1.5, ..Sampling::default() }, ..order.clone() });
    assert_ne!(warmer.tokens, honest.tokens);
    assert_eq!(check(&warmer), none);
    // The right words under a state that nobody computed: the auditor says what is true.
    let lie = Computed { state_digest: Digest([7; 32]), ..compute(&order) };
    assert_eq!(check(&lie), Some(honest.state_digest));
    // Evidence that is not of the receipt on the ledger, or of nothing.
    let (case, other) = (signed(&order, &honest), signed(&order, &lie));
    assert_eq!(found(&audit_of(&case), &other.evidence), none);
    assert_eq!(found(&audit_of(&case), &AuditEvidence::default()), none);
    let edited = AuditEvidence { output: tokens, ..case.evidence.clone() };
    assert_eq!(found(&audit_of(&case), &edited), none);
}

#[test]
fn a_worker_notices_an_answer_that_comes_out_otherwise_the_second_time() {
    let order = order(4, 0.8);
    let honest = signed(&order, &compute(&order));
    let mut waited = 0;
    compute_again(&model(), Backend::detect(), honest.clone(), || waited += 1).unwrap();
    assert!(waited > 0, "it gives way between pieces");
    compute_again(&model(), Backend::Scalar, honest.clone(), || {}).unwrap();
    // A bit of the state flipped while it was served.
    let mut flipped = compute(&order);
    flipped.state_digest.0[17] ^= 4;
    let flipped = signed(&order, &flipped);
    let problem = compute_again(&model(), Backend::detect(), flipped, || {}).unwrap_err();
    assert!(matches!(problem, Discrepancy::State(_)), "{problem}");

    let trickle = Trickle::default();
    assert!(trickle.take().is_none());
    trickle.offer(&honest);
    let (id, taken) = trickle.take().unwrap();
    assert_eq!((id, taken == honest), (model().id(), true));
    assert!(trickle.take().is_none(), "once is enough");
    trickle.offer(&Case { evidence: AuditEvidence::default(), ..honest });
    assert!(trickle.take().is_none(), "what has no receipt is no answer");
}

#[test]
fn what_is_confidential_is_disclosed_with_its_order_and_without_evidence() {
    let answer = Computed {
        tokens: vec![3, 4],
        text: "ab".into(),
        finish: FinishReason::Length,
        state_digest: Digest([5; 32]),
    };
    let confidential = Order { disclosure: Some(Disclosure::Payer), ..order(1, 0.0) };
    let [id, step] = [B256::repeat_byte(1), B256::repeat_byte(2)];
    let made = |order: &Order| {
        let evidence = signed(order, &answer).evidence;
        (desk::disclosure(id, vec![step], &evidence), evidence)
    };
    let (call, evidence) = made(&confidential);
    let call = IAudits::discloseConfidentialCall::abi_decode(&call.input).unwrap();
    assert_eq!((call.id, call.path), (id, vec![step]));
    assert_eq!((&call.order[..], &call.receipt[..]), (&evidence.order[..], &evidence.receipt[..]));
    let (call, evidence) = made(&order(1, 0.0));
    let call = IAudits::discloseCall::abi_decode(&call.input).unwrap();
    assert_eq!(call.evidence, B256::from(evidence.digest().0));
    assert!(super::is_confidential(&[1, 2, 3]), "what cannot be read is shown to nobody");
}
