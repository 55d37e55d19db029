//! Disputes once more, from their bundles alone; and bundles that somebody has bent.

use surety_types::{BUNDLE_VERSION, Bundle, BundleMove};

use alloy_consensus::TxEip1559;

use super::*;
use crate::{
    Recovered, ReplayError, Shown, bundled_parameters, replay,
    testing::{Made, sign},
};

/// What a node would collect of a dispute.
fn bundle(chain: &Chain, id: u64, lost_before: u64) -> Bundle {
    let is_move = |made: &&Made| {
        made.logs.iter().any(|log| {
            let [event, of, ..] = log.topics() else { return false };
            let moves = [
                IDisputes::Opened::SIGNATURE_HASH,
                IDisputes::Moved::SIGNATURE_HASH,
                IDisputes::Convicted::SIGNATURE_HASH,
                IDisputes::Dismissed::SIGNATURE_HASH,
            ];
            *of == B256::from(U256::from(id)) && moves.contains(event)
        })
    };
    let moves = chain.made.iter().filter(is_move).map(|made| BundleMove {
        number: made.number,
        timestamp_ms: made.timestamp_ms,
        block: Digest([1; 32]),
        transaction: made.transaction.bytes().to_vec(),
    });
    Bundle {
        version: BUNDLE_VERSION,
        chain_id: chain.spec.chain_id,
        id,
        lost_before,
        parameters: bundled_parameters(&chain.genesis.params),
        moves: moves.collect(),
        recorded: IDisputes::disputesCall::abi_encode_returns(&dispute(chain, id)),
        digest: Digest::ZERO,
    }
    .sealed()
}

/// A dispute that ends in a conviction by a leaf.
fn convicted(chain: &mut Chain) -> (Answered, u64, u64) {
    let case = lie(chain);
    let honest = case.trace(None);
    let (lying, word) = case.false_sample();
    commit(chain, CHALLENGER, &case);
    let id = open(chain, &case);
    play(chain, id, &honest, &lying);
    let leaf_call = leaf(chain, id, &case, &lying, word);
    assert!(call(chain, CHALLENGER, leaf_call).expect("judged"));
    (case, id, word)
}

#[test]
fn a_bundle_alone_gives_the_verdict() {
    let mut chain = served();
    let (_, id, word) = convicted(&mut chain);
    let replayed = replay(&bundle(&chain, id, 0)).expect("it holds");
    assert_eq!(replayed.dispute.state, 2);
    let functions: Vec<&str> = replayed.steps.iter().map(|step| step.function).collect();
    assert_eq!((functions.first(), functions.last()), (Some(&"open"), Some(&"leaf")));
    let Some(Shown::Word { word: found, kind, lie: Some((claimed, computed)) }) =
        replayed.steps.last().map(|step| &step.shown)
    else {
        panic!("{replayed:?}")
    };
    assert_eq!((*found, *kind), (word, "sampled id"));
    assert_eq!(*claimed ^ 1, *computed);
    // What the judge computed it from is shown, and each move leaves less in question.
    let weighed = replayed.steps.last().and_then(|step| step.weighed.as_ref()).expect("a judged word");
    assert_eq!((weighed.word, weighed.claimed, weighed.computed), (word, *claimed, *computed));
    assert!(!weighed.operands.is_empty());
    let left: Vec<u64> = replayed.steps.iter().filter_map(|step| step.node).map(|node| node.chunks).collect();
    assert!(left.is_sorted_by(|one, next| one >= next) && left.len() + 1 >= functions.len(), "{left:?}");
    assert!(functions.len() <= 9, "{functions:?}");
}

#[test]
fn every_way_to_end_is_replayed() {
    let ended = |chain: &Chain, id: u64, lost: u64, state: u8| {
        let replayed = replay(&bundle(chain, id, lost)).unwrap_or_else(|error| panic!("{state}: {error}"));
        assert_eq!((replayed.dispute.state, dispute(chain, id).state), (state, state));
    };
    // Silence of the worker's, after a challenger that was silent and lost: the bond is twice what it was.
    let mut chain = served();
    let case = lie(&chain);
    let id = open(&mut chain, &case);
    defend(&mut chain, id, &case.trace(None)).expect("a root");
    chain.wait(chain.genesis.params.dispute_move_s + 1);
    time_out(&mut chain, id).expect("over");
    ended(&chain, id, 0, 9);
    let again = open(&mut chain, &case);
    chain.wait(chain.genesis.params.dispute_move_s + 10);
    time_out(&mut chain, again).expect("over");
    ended(&chain, again, 1, 4);
    let first = replay(&bundle(&chain, again, 0)).expect_err("another bond");
    assert!(matches!(first, ReplayError::Refused { index: 1, .. }), "{first}");

    // The worker's word is right.
    let mut chain = served();
    let case = lie(&chain);
    let (lying, word) = case.false_sample();
    let id = open(&mut chain, &case);
    play(&mut chain, id, &lying, &case.trace(None));
    let leaf_call = leaf(&chain, id, &case, &case.trace(None), word);
    assert!(!call(&mut chain, CHALLENGER, leaf_call).expect("judged"));
    ended(&chain, id, 0, 8);

    // False by itself.
    let mut chain = served();
    let case = answered(&chain, |_, _, output| output.insert(1, END));
    let past = IDisputes::pastEndCall {
        papers: case.papers.clone(),
        index: 1,
        ids: id_opening(domain::OUTPUT_IDS, &case.output, 1),
        channel: channel().to_cbor().into(),
        salt: ACCUSATION,
    };
    let id = call(&mut chain, CHALLENGER, past).expect("convicted");
    ended(&chain, id, 0, 6);

    // It is not over.
    let mut chain = served();
    let case = lie(&chain);
    let id = open(&mut chain, &case);
    ended(&chain, id, 0, 1);
}

#[test]
fn a_bent_bundle_is_refused_or_says_something_else() {
    let mut chain = served();
    let (case, id, _) = convicted(&mut chain);
    let whole = bundle(&chain, id, 0);
    let bent = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = whole.clone();
        change(&mut bundle);
        // Whoever bends it seals it again.
        replay(&bundle.sealed())
    };
    assert!(bent(&|_| ()).is_ok());
    let recorded = |change: &dyn Fn(&mut IDisputes::Dispute)| {
        let mut told = dispute(&chain, id);
        change(&mut told);
        let told = IDisputes::disputesCall::abi_encode_returns(&told);
        bent(&move |bundle| bundle.recorded = told.clone())
    };
    // What the ledger recorded.
    for change in [
        (|told| told.state = 8) as fn(&mut IDisputes::Dispute),
        |told| told.state = 10,
        |told| told.order = B256::repeat_byte(1),
        |told| told.receipt = B256::repeat_byte(1),
        |told| told.worker = B256::repeat_byte(1),
        |told| told.operator = address(8),
        |told| told.operator = alloy_primitives::Address::ZERO,
        |told| told.challenger = address(8),
        |told| told.words += 1,
        |told| told.moves += 1,
        |told| told.openedAt += 1,
        |told| told.turn = 3,
        |told| told.bond += U256::ONE,
        |told| told.defence += U256::ONE,
    ] {
        assert!(recorded(&change).is_err());
    }
    assert_eq!(bent(&|bundle| bundle.recorded.truncate(5)), Err(ReplayError::Recorded));
    // Where and when.
    assert!(bent(&|bundle| bundle.chain_id += 1).is_err());
    assert!(bent(&|bundle| bundle.id += 1).is_err());
    assert!(bent(&|bundle| bundle.id = 0).is_err());
    assert!(bent(&|bundle| bundle.lost_before = 1).is_err());
    for index in 0..whole.moves.len() {
        assert!(bent(&|bundle| bundle.moves[index].timestamp_ms += 86_400_000).is_err(), "{index}");
        // A move that is left out, made twice, or made by somebody else.
        assert!(bent(&|bundle| drop(bundle.moves.remove(index))).is_err(), "{index}");
        assert!(bent(&|bundle| bundle.moves.insert(index, bundle.moves[index].clone())).is_err(), "{index}");
        let own = Recovered::decode(&whole.moves[index].transaction).expect("a transaction");
        let alloy_consensus::TxEnvelope::Eip1559(own) = own.envelope().clone() else {
            panic!("of another kind")
        };
        let stolen = sign(8, own.into_parts().0).bytes().to_vec();
        assert!(bent(&|bundle| bundle.moves[index].transaction = stolen.clone()).is_err(), "{index}");
    }
    assert!(bent(&|bundle| bundle.moves.swap(0, 1)).is_err());
    // The parameters.
    assert!(bent(&|bundle| bundle.parameters[0].name.push('x')).is_err());
    let set = |name: &'static str, value: u128| {
        bent(&move |bundle| {
            let parameter = bundle.parameters.iter_mut().find(|parameter| parameter.name == name);
            parameter.expect("a parameter").value = value;
        })
    };
    assert!(set("dispute_bond_min", u128::MAX).is_err());
    assert!(set("dispute_bond_min", CREDIT + 1).is_err());
    assert!(set("dispute_move_gas", 40_000_000).is_err());
    // The papers, by whom they were signed: a challenger that bends them signs for that itself.
    let (at, own) = whole
        .moves
        .iter()
        .enumerate()
        .find_map(|(at, made)| {
            let transaction = Recovered::decode(&made.transaction).ok()?;
            let alloy_consensus::TxEnvelope::Eip1559(own) = transaction.envelope().clone() else {
                return None;
            };
            IDisputes::openCall::abi_decode(&own.tx().input).ok().map(|_| (at, own.into_parts().0))
        })
        .expect("an opening");
    let opened = |change: &dyn Fn(&mut IDisputes::openCall)| {
        let mut open = IDisputes::openCall::abi_decode(&own.input).expect("an opening");
        change(&mut open);
        let transaction = TxEip1559 { input: open.abi_encode().into(), ..own.clone() };
        let bytes = sign(CHALLENGER, transaction).bytes().to_vec();
        bent(&move |bundle| bundle.moves[at].transaction = bytes.clone())
    };
    assert!(opened(&|_| ()).is_ok());
    let flipped = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Bytes::from(bytes)
    };
    assert!(opened(&|open| open.papers.order = flipped(&open.papers.order)).is_err());
    assert!(opened(&|open| open.papers.receipt = flipped(&open.papers.receipt)).is_err());
    assert!(opened(&|open| open.papers.manifest = flipped(&open.papers.manifest)).is_err());
    assert!(opened(&|open| open.papers.plan = flipped(&open.papers.plan)).is_err());
    assert!(opened(&|open| open.papers.planSiblings = flipped(&open.papers.planSiblings)).is_err());
    let other = signed(&Receipt { text_digest: Digest([9; 32]), ..case.receipt.clone() }, &worker());
    assert!(opened(&|open| open.papers.receipt = other.clone()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn garbage_in_a_bundle_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        what in 0u8..3,
    ) {
        let mut chain = served();
        let case = lie(&chain);
        let id = open(&mut chain, &case);
        defend(&mut chain, id, &case.trace(None)).expect("a root");
        let mut bundle = bundle(&chain, id, 0);
        match what {
            0 => bundle.recorded = bytes,
            1 => bundle.moves[1].transaction = bytes,
            _ => {
                let made = &mut bundle.moves[0].transaction;
                let at = at.index(made.len());
                made[at] ^= 1 << bit;
            }
        }
        let replayed = replay(&bundle.sealed());
        prop_assert!(replayed.is_err(), "{replayed:?}");
    }
}
