//! Receipts that are false by themselves, without a trace (D-4.2).
//!
//! In:     a receipt with its order, and whatever shows it false: another receipt, the request, the plan's header, openings of
//!         ids.
//! Out:    that it is false, or why this does not show it.
//! Touches: nothing.
//! Holds:  no receipt of a worker that keeps to the rules is shown false, whatever anybody sends or orders.
//! Absent: signatures, and that order, request, manifest and header are of each other: the caller has checked those.

use surety_types::digest::domain;
use surety_types::{Digest, FinishReason, Order, Outcome, Receipt, Request};

use super::opening::{Opening, OpeningError, Tree};
use super::plan::PlanHeader;

/// Why a receipt is not shown to be false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotShown {
    /// Other parties or orders, or a failure, which claims nothing about ids.
    #[error("the receipts are not completed ones of one worker for one order")]
    Unrelated,
    /// Both can be true.
    #[error("the receipts do not contradict each other")]
    Agree,
    /// The order may go on, or the request may end where no end token is.
    #[error("the order or request allows it")]
    Allowed,
    /// There is no such id, or what is opened does not hold it.
    #[error("the opening does not show the id it must")]
    Id,
    /// The id is such as it should be.
    #[error("the id {0} is as it should be")]
    Right(u32),
    /// The opening does not open.
    #[error("the opening proves nothing")]
    Opening(#[from] OpeningError),
}

/// D-4.2 (a): two receipts for one order that cannot both be the model's answer.
///
/// # Errors
/// `NotShown` if they can.
pub fn contradict(one: &Receipt, other: &Receipt) -> Result<(), NotShown> {
    let completed = |receipt: &Receipt| receipt.outcome == Outcome::Completed;
    if one.worker != other.worker || one.order != other.order || !completed(one) || !completed(other) {
        return Err(NotShown::Unrelated);
    }
    let prompt = |receipt: &Receipt| (receipt.prompt_tokens, receipt.prompt_digest);
    let output = |receipt: &Receipt| receipt.output_digest;
    // Answers of one order that broke off at different places are beginnings of each other, which digests do not show.
    let contradict = prompt(one) != prompt(other)
        || one.output_tokens == other.output_tokens && output(one) != output(other);
    if contradict { Ok(()) } else { Err(NotShown::Agree) }
}

/// D-4.2 (b): the output id `index`, which `opening` shows, is an end token, and the answer goes on after it.
///
/// # Errors
/// `NotShown` if that is not so, or may be.
pub fn goes_on_past_an_end(
    header: &PlanHeader,
    order: &Order,
    receipt: &Receipt,
    index: u32,
    opening: &Opening,
) -> Result<(), NotShown> {
    if receipt.outcome != Outcome::Completed {
        return Err(NotShown::Unrelated);
    }
    if order.ignore_end {
        return Err(NotShown::Allowed);
    }
    if index.checked_add(1).is_none_or(|next| next >= receipt.output_tokens) {
        return Err(NotShown::Id);
    }
    let id = id(domain::OUTPUT_IDS, receipt.output_tokens, &receipt.output_digest, index, opening)?;
    if header.ends(id) { Ok(()) } else { Err(NotShown::Right(id)) }
}

/// D-4.2 (c): the answer ends in *stop*, and its last id, or without any the last given, which `opening` shows, is no end token;
/// nor are there stop strings.
///
/// # Errors
/// `NotShown` if that is not so, or may be.
pub fn stops_at_no_end(
    header: &PlanHeader,
    request: &Request,
    receipt: &Receipt,
    opening: &Opening,
) -> Result<(), NotShown> {
    if receipt.outcome != Outcome::Completed || receipt.finish != FinishReason::Stop {
        return Err(NotShown::Unrelated);
    }
    if !request.stop.is_empty() {
        return Err(NotShown::Allowed);
    }
    let (domain, count, digest) = match receipt.output_tokens {
        0 => (domain::PROMPT_IDS, receipt.prompt_tokens, &receipt.prompt_digest),
        count => (domain::OUTPUT_IDS, count, &receipt.output_digest),
    };
    let last = count.checked_sub(1).ok_or(NotShown::Id)?;
    let id = id(domain, count, digest, last, opening)?;
    if header.ends(id) { Err(NotShown::Right(id)) } else { Ok(()) }
}

/// One of so many ids.
fn id(domain: &str, count: u32, digest: &Digest, index: u32, opening: &Opening) -> Result<u32, NotShown> {
    let tree = Tree::derived(domain, 4 * u64::from(count)).ok_or(NotShown::Id)?;
    tree.check(&digest.0, opening)?;
    opening.bytes_at(4 * u64::from(index)).map(u32::from_le_bytes).ok_or(NotShown::Id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use surety_types::{ModelId, Price, Prompt, PublicKey, Sampling, Seed, Text};

    use super::*;
    use crate::commit::{output_digest, prompt_digest};
    use crate::dispute::opening::{CHUNK_BYTES, Hashed, Node};
    use crate::dispute::plan::{Pairs, SpellingEntry};

    fn header() -> PlanHeader {
        PlanHeader {
            pairs: Pairs::Halves,
            layers: 1,
            width: 32,
            heads: 1,
            kv_heads: 1,
            head_dim: 32,
            feed_forward: 32,
            vocabulary: 40,
            context: 4_000,
            eps: 1e-5,
            q_norm: false,
            k_norm: false,
            end_tokens: vec![7, 9],
            spelling: SpellingEntry::default(),
        }
    }

    fn order() -> Order {
        Order {
            version: 1,
            model: ModelId(Digest([1; 32])),
            request_digest: Digest([2; 32]),
            nonce: [3; 32],
            seed: Seed::Nonce,
            choice: 0,
            sampling: Sampling::default(),
            max_output_tokens: 4_000,
            ignore_end: false,
            deadline_ms: 2,
            price_ceiling: price(),
            channel: None,
            payer: PublicKey([4; 32]),
            issued_ms: 1,
            resumed: None,
            disclosure: None,
        }
    }

    fn price() -> Price {
        let free = surety_types::Amount::ZERO;
        Price { prompt: free, cached: free, output: free }
    }

    fn receipt(given: &[u32], output: &[u32], finish: FinishReason) -> Receipt {
        Receipt {
            version: 1,
            outcome: Outcome::Completed,
            order: order().digest(),
            model: order().model,
            arithmetic: 0,
            prompt_tokens: given.len() as u32,
            cached_tokens: 0,
            output_tokens: output.len() as u32,
            prompt_digest: prompt_digest(given),
            output_digest: output_digest(output),
            text_digest: Digest::ZERO,
            finish,
            seed: order().seed_bytes(),
            state_commitment: Digest([5; 32]),
            price: price(),
            charge: surety_types::Amount::ZERO,
            accepted_ms: 1,
            first_token_ms: None,
            done_ms: 2,
            software: Text::new("test").expect("short"),
            worker: PublicKey([6; 32]),
        }
    }

    fn request(stop: &[&str]) -> Request {
        Request {
            prompt: Prompt::Tokens(vec![1]),
            stop: stop.iter().map(|stop| (*stop).into()).collect(),
            logprobs: None,
            prompt_logprobs: None,
            embedding: None,
            date: None,
            grammar: None,
        }
    }

    fn opening(domain: &str, ids: &[u32], index: usize) -> Opening {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let hashed = Hashed::new(Tree::derived(domain, bytes.len() as u64).expect("short"), bytes);
        hashed.open(hashed.tree().root(), Node { first: 4 * index as u64 / CHUNK_BYTES, chunks: 1 })
    }

    /// 600 ids, end tokens at some places.
    fn ids(ends: &[usize]) -> Vec<u32> {
        (0..600).map(|i| if ends.contains(&i) { 7 + 2 * (i as u32 % 2) } else { i as u32 % 7 }).collect()
    }

    #[test]
    fn receipts_of_one_order_that_differ_contradict() {
        let one = receipt(&[1, 2], &[3, 4], FinishReason::Length);
        let other = receipt(&[1, 2], &[3, 5], FinishReason::Length);
        assert_eq!(contradict(&one, &other), Ok(()));
        assert_eq!(contradict(&one, &receipt(&[1, 3], &[3], FinishReason::Length)), Ok(()));
        // The same answer once more, later; or broken off before.
        let again = Receipt { done_ms: 9, state_commitment: Digest([8; 32]), ..one.clone() };
        assert_eq!(contradict(&one, &again), Err(NotShown::Agree));
        assert_eq!(contradict(&one, &one), Err(NotShown::Agree));
        let shorter = receipt(&[1, 2], &[3], FinishReason::Cancelled);
        assert_eq!(contradict(&one, &shorter), Err(NotShown::Agree));
        let message = Text::new("busy").expect("short");
        let outcome = Outcome::Failed { code: surety_types::FailureCode::Overloaded, message };
        for unrelated in [
            Receipt { worker: PublicKey([7; 32]), ..other.clone() },
            Receipt { order: Digest([7; 32]), ..other.clone() },
            Receipt { outcome, finish: FinishReason::Failed, ..other },
        ] {
            assert_eq!(contradict(&one, &unrelated), Err(NotShown::Unrelated));
        }
    }

    #[test]
    fn an_end_before_the_last_id_is_shown() {
        let output = ids(&[300, 599]);
        let receipt = receipt(&[1], &output, FinishReason::Stop);
        let show = |order: &Order, index: u32, at: usize| {
            let opening = opening(domain::OUTPUT_IDS, &output, at);
            goes_on_past_an_end(&header(), order, &receipt, index, &opening)
        };
        assert_eq!(show(&order(), 300, 300), Ok(()));
        assert_eq!(show(&order(), 299, 299), Err(NotShown::Right(299 % 7)));
        assert_eq!(show(&order(), 599, 599), Err(NotShown::Id), "the last may be one");
        assert_eq!(show(&order(), u32::MAX, 599), Err(NotShown::Id));
        assert_eq!(show(&order(), 300, 0), Err(NotShown::Id), "another chunk");
        assert_eq!(show(&order(), 0, 300), Err(NotShown::Id), "another chunk");
        assert_eq!(show(&Order { ignore_end: true, ..order() }, 300, 300), Err(NotShown::Allowed));
    }

    #[test]
    fn a_stop_without_an_end_is_shown() {
        let check = |given: &[u32], output: &[u32], stop: &[&str], finish| {
            let receipt = receipt(given, output, finish);
            let (domain, ids) = match output {
                [] => (domain::PROMPT_IDS, given),
                output => (domain::OUTPUT_IDS, output),
            };
            let opening = opening(domain, ids, ids.len() - 1);
            stops_at_no_end(&header(), &request(stop), &receipt, &opening)
        };
        let stop = FinishReason::Stop;
        assert_eq!(check(&[1], &ids(&[]), &[], stop), Ok(()));
        assert_eq!(check(&[1, 7], &[], &[], stop), Err(NotShown::Right(7)), "an end resumed from");
        assert_eq!(check(&[7, 1], &[], &[], stop), Ok(()));
        assert_eq!(check(&[1], &ids(&[599]), &[], stop), Err(NotShown::Right(9)));
        assert_eq!(check(&[1], &ids(&[]), &["end"], stop), Err(NotShown::Allowed));
        assert_eq!(check(&[1], &ids(&[]), &[], FinishReason::Length), Err(NotShown::Unrelated));
        let nothing = receipt(&[], &[], stop);
        let empty = Opening::of_run(0, Vec::new(), Vec::new());
        assert_eq!(stops_at_no_end(&header(), &request(&[]), &nothing, &empty), Err(NotShown::Id));
    }

    proptest! {
        #[test]
        fn garbage_shows_nothing(
            first in any::<u64>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..2_100),
            siblings in proptest::collection::vec(any::<u8>(), 0..100),
            index in any::<u32>(),
        ) {
            let opening = Opening::of_run(first, bytes, siblings);
            let receipt = receipt(&[1], &ids(&[]), FinishReason::Stop);
            prop_assert!(goes_on_past_an_end(&header(), &order(), &receipt, index, &opening).is_err());
            prop_assert!(stops_at_no_end(&header(), &request(&[]), &receipt, &opening).is_err());
        }
    }
}
