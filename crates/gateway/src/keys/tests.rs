//! Keys under random interleavings, crashes and real threads.

use std::collections::BTreeMap;

use proptest::prelude::*;
use surety_types::{
    Amount, FinishReason, Outcome, Price, PublicKey, SecretKey, Text, receipt::RECEIPT_VERSION,
};

use super::*;
use crate::keys::hold::{HeldFor, LegHold};

const ANSWER: HeldFor = HeldFor { nonce: [0; 32], check: false };

fn receipt(worker: PublicKey, charge: u128) -> Receipt {
    Receipt {
        version: RECEIPT_VERSION,
        outcome: Outcome::Completed,
        order: Digest::ZERO,
        model: surety_types::ModelId(Digest::ZERO),
        arithmetic: 0,
        prompt_tokens: 3,
        cached_tokens: 1,
        output_tokens: 5,
        prompt_digest: Digest::ZERO,
        output_digest: Digest::ZERO,
        text_digest: Digest::ZERO,
        finish: FinishReason::Stop,
        seed: [0; 32],
        state_commitment: Digest::ZERO,
        price: Price::ZERO,
        charge: Amount(charge),
        accepted_ms: 1,
        first_token_ms: Some(2),
        done_ms: 3,
        software: Text::clipped("test/1"),
        worker,
    }
}

fn generation(id: u128, cost: u128) -> Generation {
    store::tests::generation(id, cost)
}

fn budget(micro: u128) -> KeyTerms {
    KeyTerms { budget: Some(Micro(micro)), ..KeyTerms::named("mine") }
}

fn open(directory: &Path) -> (Arc<Keys>, Writer) {
    Keys::open(directory, false, None).expect("keys")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[derive(Debug, Clone)]
enum Step {
    /// A request, with the worst of its first order.
    Begin(u128),
    /// Another worker is asked beside.
    Beside(usize, u128),
    /// An order ends without a receipt.
    Drop(usize),
    /// An order ends with a receipt for a part of its worst, in percent.
    Receipt(usize, u128),
    /// The receipts are kept, and perhaps the charge is counted.
    Complete(usize, bool),
    Fail(usize),
    /// The caller leaves.
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u128..400).prop_map(Step::Begin),
        2 => (0usize..6, 1u128..400).prop_map(|(at, worst)| Step::Beside(at, worst)),
        1 => (0usize..6).prop_map(Step::Drop),
        3 => (0usize..6, 0u128..=100).prop_map(|(at, percent)| Step::Receipt(at, percent)),
        3 => (0usize..6, any::<bool>()).prop_map(|(at, counted)| Step::Complete(at, counted)),
        1 => (0usize..6).prop_map(Step::Fail),
        1 => (0usize..6).prop_map(Step::Leave),
    ]
}

/// A request under way.
struct Running {
    id: u128,
    hold: Arc<Hold>,
    legs: Vec<(LegHold, u128)>,
    charged: u128,
    receipted: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever happens in which order, and wherever the process is killed: what was charged before the crash and by the
    /// receipts found after it is what the receipts say, nothing stays set aside, and the budget is never overspent.
    #[test]
    fn sums_are_exact_after_a_crash_at_any_point(
        steps in prop::collection::vec(step(), 1..40),
        at in 0usize..40,
    ) {
        const BUDGET: u128 = 1000;
        let worker = SecretKey::from_bytes(&[1; 32]).public();
        let directory = tempfile::tempdir().expect("a directory");
        let (keys, writer) = open(directory.path());
        let (secret, _) = block_on(keys.create(budget(BUDGET))).expect("a key");
        let tenant = || keys.admit(Some(&secret), Some(1)).map_err(|_| "refused").expect("a tenant");
        let mut running: Vec<Running> = Vec::new();
        // What receipts that are kept charge; and what was charged without: to those who left.
        let (mut receipts, mut settled): (BTreeMap<u128, u128>, u128) = (BTreeMap::new(), 0);
        let mut left_unsure = 0;
        for (number, step) in steps.iter().enumerate() {
            if number == at {
                break;
            }
            let pick = |which: usize| (!running.is_empty()).then(|| which % running.len());
            match *step {
                Step::Begin(worst) => {
                    let id = number as u128;
                    let hold = tenant().hold(RequestId::of_bits(id), "tiny", 1, 1);
                    if let Ok(leg) = hold.leg(ANSWER, worst) {
                        block_on(hold.on_disk());
                        running.push(Running { id, hold, legs: vec![(leg, worst)], charged: 0, receipted: false });
                    }
                }
                Step::Beside(which, worst) => {
                    if let Some(at) = pick(which)
                        && !running[at].receipted
                        && let Ok(leg) = running[at].hold.leg(ANSWER, worst)
                    {
                        running[at].legs.push((leg, worst));
                    }
                }
                Step::Drop(which) => {
                    if let Some(at) = pick(which) {
                        running[at].legs.pop();
                    }
                }
                Step::Receipt(which, percent) => {
                    if let Some(at) = pick(which)
                        && !running[at].receipted
                        && let Some((leg, worst)) = running[at].legs.pop()
                    {
                        let charge = worst * percent / 100;
                        // The others are let go later, if at all.
                        leg.charge(&receipt(worker, charge));
                        running[at].charged = charge;
                        running[at].receipted = true;
                    }
                }
                Step::Complete(which, counted) => {
                    if let Some(at) = pick(which) {
                        let Running { id, hold, legs, charged, .. } = running.swap_remove(at);
                        drop(legs);
                        receipts.insert(id, charged);
                        if counted {
                            hold.complete([3, 1, 5], Some(2), false);
                        } else {
                            // Killed between the receipt and the count; the process goes on only for the test.
                            std::mem::forget(hold);
                        }
                    }
                }
                Step::Fail(which) => {
                    if let Some(at) = pick(which) {
                        let Running { hold, legs, .. } = running.swap_remove(at);
                        hold.fail();
                        drop(legs);
                    }
                }
                Step::Leave(which) => {
                    if let Some(at) = pick(which) {
                        let Running { hold, legs, charged, .. } = running.swap_remove(at);
                        drop((legs, hold));
                        settled += charged;
                        left_unsure += charged;
                    }
                }
            }
            let (_, account) = keys.account(1).expect("the key");
            prop_assert!(account.used + account.reserved <= BUDGET, "{account:?}");
            let counted: u128 = running.iter().map(|one| one.charged).sum();
            prop_assert!(account.used + account.reserved >= settled + counted);
        }
        // Killed: what is on the disk now is all there is.
        let after = tempfile::tempdir().expect("a directory");
        std::fs::copy(directory.path().join("keys.redb"), after.path().join("keys.redb")).expect("a copy");
        running.into_iter().for_each(std::mem::forget);
        drop(keys);
        drop(writer);
        let answered = |request: RequestId| {
            receipts.get(&request.bits()).map(|charge| generation(request.bits(), *charge))
        };
        let (keys, writer) = Keys::open(after.path(), false, Some(&answered)).expect("keys");
        let (_, account) = keys.account(1).expect("the key");
        let due: u128 = receipts.values().sum();
        prop_assert_eq!(account.reserved, 0);
        // Of those who left, what was not written yet is lost; of the others nothing is, and nothing is doubled.
        prop_assert!(account.used >= due && account.used <= due + left_unsure, "{} of {}", account.used, due);
        prop_assert!(account.used <= BUDGET);
        block_on(keys.written());
        let page = keys.usage(1, 0, 1000).expect("rows");
        prop_assert_eq!(page.total.cost.0, account.used);
        prop_assert_eq!(page.generations.iter().map(|row| row.cost.0).sum::<u128>(), account.used);
        // And once more: nothing is found a second time.
        drop(keys);
        writer.join();
        let (keys, _) = Keys::open(after.path(), false, Some(&answered)).expect("keys");
        prop_assert_eq!(keys.account(1).expect("the key").1, account);
    }
}

#[test]
fn threads_never_overspend_together() {
    let directory = tempfile::tempdir().expect("a directory");
    let (keys, _writer) = open(directory.path());
    let (secret, _) = block_on(keys.create(budget(10 * 50))).expect("a key");
    let worker = SecretKey::from_bytes(&[1; 32]).public();
    let barrier = std::sync::Barrier::new(200);
    let granted: usize = std::thread::scope(|scope| {
        let one = |number: u128| {
            let (keys, secret, barrier) = (&keys, &secret, &barrier);
            scope.spawn(move || {
                let tenant = keys.admit(Some(secret), Some(1)).map_err(|_| "refused").expect("a tenant");
                let hold = tenant.hold(RequestId::of_bits(number), "tiny", 1, 1);
                barrier.wait();
                let leg = hold.leg(ANSWER, 50);
                barrier.wait();
                match leg {
                    Ok(leg) => {
                        leg.charge(&receipt(worker, 50));
                        hold.complete([3, 1, 5], None, false);
                        1
                    }
                    Err(error) => {
                        assert_eq!(error.code(), Code::BudgetExhausted);
                        assert!(
                            error.message().contains("0 credits left of its budget of 0.0005"),
                            "{error:?}"
                        );
                        0
                    }
                }
            })
        };
        let threads: Vec<_> = (0..200).map(one).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(granted, 10);
    let (report, account) = keys.account(1).expect("the key");
    assert_eq!((account.used, account.reserved, report.left), (500, 0, Some(Micro(0))));
}

#[test]
fn only_those_who_may_come_in() {
    let directory = tempfile::tempdir().expect("a directory");
    let (keys, writer) = open(directory.path());
    // Open as long as there is no key.
    assert_eq!(keys.admit(None, Some(1)).map_err(|_| ()).expect("anyone").key(), NOBODY);
    assert_eq!(keys.admit(Some("none"), Some(1)).map_err(|_| ()).expect("anyone").key(), NOBODY);
    let old = KeyTerms { expires_ms: Some(1), ..KeyTerms::named("old") };
    let (secret, report) = block_on(keys.create(KeyTerms::named("mine"))).expect("a key");
    let (expired, _) = block_on(keys.create(old)).expect("a key");
    let (gone, _) = block_on(keys.create(KeyTerms::named("gone"))).expect("a key");
    assert_eq!(report.state, "active");
    assert_eq!(block_on(keys.revoke("gone")).expect("revoked").state, "revoked");
    assert_eq!(
        block_on(keys.create(KeyTerms::named("gone"))).err(),
        Some(KeysError::NameTaken("gone".into()))
    );
    assert!(matches!(block_on(keys.revoke("none")), Err(KeysError::Unknown { .. })));
    let check = |keys: &Arc<Keys>| {
        for (shown, word) in [
            (None, "shows none"),
            (Some("none"), "not known"),
            (Some("sk-surety-00"), "not known"),
            (Some(&expired[..]), "expired at 1970-01-01"),
            (Some(&gone[..]), "was revoked"),
        ] {
            let Refused { error, key: None, .. } = keys.admit(shown, Some(1)).expect_err("refused") else {
                panic!("it names a key")
            };
            assert_eq!(error.code(), Code::BadKey);
            assert!(error.message().contains(word), "{}", error.message());
            assert!(!error.message().contains("sk-surety-0"), "no secret is repeated");
        }
        assert_eq!(keys.admit(Some(&secret), None).map_err(|_| ()).expect("the key").name(), Some("mine"));
    };
    check(&keys);
    drop(keys);
    writer.join();
    let (keys, writer) = open(directory.path());
    check(&keys);
    // A gateway whose only key was revoked is not open.
    block_on(keys.revoke("mine")).expect("revoked");
    assert!(keys.is_closed() && keys.admit(None, None).is_err());
    let bytes = std::fs::read(directory.path().join("keys.redb")).expect("the file");
    let digits = &secret.as_bytes()[SECRET_DIGITS..];
    assert!(!bytes.windows(digits.len()).any(|window| window == digits), "no secret is on the disk");
    drop(keys);
    writer.join();
    let empty = tempfile::tempdir().expect("a directory");
    let (keys, _) = Keys::open(empty.path(), true, None).expect("keys");
    assert!(keys.admit(None, None).is_err(), "one is required before there is one");
}

const SECRET_DIGITS: usize = terms::SECRET_PREFIX.len();

#[test]
fn limits_are_per_key_and_counted_tokens_replace_the_estimate() {
    let directory = tempfile::tempdir().expect("a directory");
    let (keys, _writer) = open(directory.path());
    let terms = |name: &str| KeyTerms { rpm: Some(2), tpm: Some(100), ..KeyTerms::named(name) };
    let (first, _) = block_on(keys.create(terms("first"))).expect("a key");
    let (second, _) = block_on(keys.create(terms("second"))).expect("a key");
    let admit = |secret: &str, tokens| keys.admit(Some(secret), Some(tokens));
    let tenant = admit(&first, 30).map_err(|_| ()).expect("room");
    assert_eq!(tenant.room().tokens.map(|level| level.remaining), Some(70));
    let hold = tenant.hold(RequestId::of_bits(1), "tiny", 1, 1);
    hold.complete([50, 0, 40], None, false);
    drop((hold, tenant));
    let tenant = admit(&first, 5).map_err(|_| ()).expect("room");
    let level = tenant.room().tokens.expect("a limit");
    assert!((5..=6).contains(&level.remaining), "{level:?}");
    drop(tenant);
    let Refused { error, room, key } = admit(&first, 1).expect_err("two were had");
    assert_eq!(key, Some(1));
    assert_eq!(error.code(), Code::RateLimited);
    assert!(error.message().contains("2 requests a minute"), "{}", error.message());
    assert_eq!(room.requests.map(|level| (level.limit, level.remaining)), Some((2, 0)));
    assert!(admit(&second, 1).is_ok(), "another key has its own");
}

proptest! {
    #[test]
    fn credits_are_told_exactly(micro in 0u128..=u128::from(u64::MAX)) {
        let text = credits(micro);
        let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
        let read = whole.parse::<u128>().expect("digits") * 1_000_000
            + format!("{part:0<6}").parse::<u128>().expect("digits");
        prop_assert_eq!(read, micro);
        prop_assert!(!part.ends_with('0'));
    }

    #[test]
    fn foreign_evidence_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(of_evidence(&bytes).is_none());
    }
}

#[test]
fn who_left_and_went_on_is_charged_for_both_parts_wherever_the_gateway_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (keys, _writer) = open(directory.path());
    let (secret, _) = block_on(keys.create(budget(1000))).expect("a key");
    let worker = SecretKey::from_bytes(&[1; 32]).public();
    let begin = || {
        let tenant = keys.admit(Some(&secret), None).expect("it may come in");
        let hold = tenant.hold(RequestId::of_bits(9), "m", 1, 1);
        let leg = hold.leg(ANSWER, 100).expect("it is set aside");
        (hold, leg)
    };
    let part = hold::part_of(&receipt(worker, 5), false);
    let evidence = Generation { parts: vec![part], ..generation(9, 5) };
    // What the next gateway says was used, if this one is killed now.
    let used = || {
        block_on(keys.written());
        let copy = tempfile::tempdir().expect("a directory");
        std::fs::copy(directory.path().join("keys.redb"), copy.path().join("keys.redb")).expect("copied");
        let answered = |_| Some(evidence.clone());
        let (keys, _writer) = Keys::open(copy.path(), false, Some(&answered)).expect("keys");
        keys.show("mine").expect("the key").used.0
    };
    let ((left, left_leg), (gone_on, leg)) = (begin(), begin());
    left_leg.charge(&receipt(worker, 7));
    drop((left_leg, left));
    assert_eq!(used(), 12, "of the second part there is a receipt, and it was not charged");
    let again = begin();
    leg.charge(&receipt(worker, 5));
    gone_on.complete([3, 1, 5], None, false);
    assert_eq!(used(), 12, "it was charged; what is held still is of another attempt");
    drop((leg, again));
    assert_eq!(used(), 12);
    assert_eq!(keys.show("mine").expect("the key").reserved, Micro(0));
}
