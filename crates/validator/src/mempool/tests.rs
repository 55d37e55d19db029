use std::sync::LazyLock;

use alloy_consensus::{
    SignableTransaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxEnvelope, TxLegacy, TypedTransaction,
};
use alloy_eips::{eip2718::Encodable2718, eip2930::AccessListItem};
use alloy_primitives::{Bytes, Signature, TxKind, bytes};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use proptest::prelude::*;
use surety_chain::{ChainSpec, Params, Recovered, check_admission};

use super::*;

const CHAIN_ID: u64 = 88_888;
const BASE_FEE: u64 = 1_000;

fn terms() -> Terms {
    Terms { chain_id: CHAIN_ID, transaction_gas_max: 30_000_000, base_fee: BASE_FEE }
}

fn limits() -> PoolLimits {
    PoolLimits { transactions_max: 1_000, bytes_max: 1 << 20, ahead_max: 16, lifetime_blocks: 100 }
}

fn pool(limits: PoolLimits) -> Mempool {
    Mempool::new(limits, terms())
}

fn rich(nonce: u64) -> Account {
    Account { nonce, balance: U256::from(10).pow(U256::from(18)) }
}

fn key(number: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::with_last_byte(number + 1)).expect("a key")
}

fn address(number: u8) -> Address {
    static ADDRESSES: LazyLock<Vec<Address>> =
        LazyLock::new(|| (0..16).map(|number| key(number).address()).collect());
    ADDRESSES[usize::from(number)]
}

fn transfer(nonce: u64, cap: u128, tip: u128) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: cap,
        max_priority_fee_per_gas: tip,
        to: TxKind::Call(Address::repeat_byte(0xaa)),
        value: U256::from(1),
        access_list: Default::default(),
        input: Bytes::new(),
    }
}

fn from(sender: u8, transaction: impl Into<TypedTransaction>) -> Arc<Candidate> {
    Arc::new(check(&signed_by(&key(sender), transaction)).expect("well-formed"))
}

fn sent(sender: u8, nonce: u64, cap: u128, tip: u128) -> Arc<Candidate> {
    from(sender, transfer(nonce, cap, tip))
}

fn signed(transaction: impl Into<TypedTransaction>) -> Bytes {
    signed_by(&key(7), transaction)
}

fn signed_by(key: &PrivateKeySigner, transaction: impl Into<TypedTransaction>) -> Bytes {
    let transaction = transaction.into();
    let signature = key.sign_hash_sync(&transaction.signature_hash()).expect("signed");
    let envelope: TxEnvelope = transaction.into_signed(signature).into();
    envelope.encoded_2718().into()
}

fn check(encoded: &Bytes) -> Result<Candidate, Refused> {
    Candidate::check(encoded, &terms())
}

fn refused_as(encoded: &Bytes) -> Refused {
    check(encoded).expect_err("refused")
}

#[test]
fn a_well_formed_transaction_names_its_sender() {
    let encoded = signed(transfer(3, 2_000, 5));
    let candidate = check(&encoded).expect("well-formed");
    assert_eq!(candidate.sender(), address(7));
    assert_eq!(candidate.encoded(), &encoded);
    assert_eq!(candidate.cost(), U256::from(21_000 * 2_000 + 1));
    assert_eq!((candidate.fee_cap(), candidate.tip_cap(), candidate.price(BASE_FEE)), (2_000, 5, 1_005));
    let legacy = TxLegacy {
        chain_id: Some(CHAIN_ID),
        gas_price: 3_000,
        gas_limit: 21_000,
        to: TxKind::Call(address(1)),
        ..Default::default()
    };
    let legacy = check(&signed(legacy)).expect("well-formed");
    assert_eq!((legacy.fee_cap(), legacy.tip_cap(), legacy.price(BASE_FEE)), (3_000, 3_000, 3_000));
}

#[test]
fn each_malformed_transaction_is_refused_for_its_own_reason() {
    let refused = |transaction: TxEip1559| check(&signed(transaction)).expect_err("refused").to_string();
    let with = |change: fn(&mut TxEip1559)| {
        let mut transaction = transfer(0, 2_000, 0);
        change(&mut transaction);
        transaction
    };
    for (expected, transaction) in [
        ("invalid chain id for signer: have 1 want 88888", with(|t| t.chain_id = 1)),
        (
            "max priority fee per gas higher than max fee per gas",
            with(|t| t.max_priority_fee_per_gas = 2_001),
        ),
        ("transaction gas limit too high (cap: 30000000, tx: 30000001)", with(|t| t.gas_limit = 30_000_001)),
        ("intrinsic gas too low: gas 20999, minimum needed 21000", with(|t| t.gas_limit = 20_999)),
        // One byte that is not zero: 4 tokens, of 4 gas each, but at least 10 (EIP-7623).
        ("intrinsic gas too low: gas 21000, minimum needed 21040", with(|t| t.input = bytes!("01"))),
        ("max fee per gas less than block base fee", with(|t| t.max_fee_per_gas = 999)),
        ("nonce has max value", with(|t| t.nonce = u64::MAX)),
        ("insufficient funds for gas * price + value: the cost overflows", with(|t| t.value = U256::MAX)),
        (
            "max initcode size exceeded: code size 49153",
            with(|t| {
                (t.to, t.gas_limit, t.input) = (TxKind::Create, 10_000_000, vec![0; 49_153].into());
            }),
        ),
        (
            "intrinsic gas too low: gas 53000, minimum needed 53006",
            with(|t| (t.to, t.gas_limit, t.input) = (TxKind::Create, 53_000, vec![0; 1].into())),
        ),
    ] {
        let told = refused(transaction);
        assert!(told.starts_with(expected), "{told}");
    }
    let unprotected = TxLegacy { gas_price: 3_000, gas_limit: 21_000, ..Default::default() };
    assert_eq!(refused_as(&signed(unprotected)), Refused::Unprotected);
    let blob =
        TxEip4844 { chain_id: CHAIN_ID, gas_limit: 21_000, max_fee_per_gas: 2_000, ..Default::default() };
    let blob: TxEnvelope = blob.into_signed(Signature::test_signature()).into();
    assert_eq!(refused_as(&blob.encoded_2718().into()), Refused::Type(3));
    let empty =
        TxEip7702 { chain_id: CHAIN_ID, gas_limit: 50_000, max_fee_per_gas: 2_000, ..Default::default() };
    assert_eq!(refused_as(&signed(empty)), Refused::NoAuthorisations);
    let access = TxEip2930 {
        chain_id: CHAIN_ID,
        gas_price: 2_000,
        gas_limit: 21_000 + 2_400 + 2 * 1_900 - 1,
        access_list: vec![AccessListItem { address: address(1), storage_keys: vec![B256::ZERO; 2] }].into(),
        ..Default::default()
    };
    assert!(matches!(refused_as(&signed(access)), Refused::IntrinsicGas { needed: 59_200, .. }));
}

#[test]
fn bytes_that_are_no_transaction_are_refused() {
    let good = signed(transfer(0, 2_000, 0));
    let oversized = Bytes::from(vec![2; surety_chain::TRANSACTION_BYTES_MAX + 1]);
    assert!(matches!(check(&oversized), Err(Refused::Oversized { .. })));
    assert!(matches!(check(&Bytes::new()), Err(Refused::Malformed(_))));
    let mut long = good.to_vec();
    long.push(0);
    assert!(matches!(refused_as(&long.into()), Refused::Malformed(_)));
    // The same signature with its mirrored s is valid mathematics, and refused (EIP-2).
    let TxEnvelope::Eip1559(inner) = check(&good).expect("well-formed").envelope().clone() else { panic!() };
    let signature = *inner.signature();
    let order = U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
        .expect("n");
    let mirrored = Signature::new(signature.r(), order - signature.s(), !signature.v());
    let mirrored: TxEnvelope = inner.tx().clone().into_signed(mirrored).into();
    assert_eq!(refused_as(&mirrored.encoded_2718().into()), Refused::Signature);
}

proptest! {
    #[test]
    fn any_bytes_are_a_transaction_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(&bytes.into());
    }

    #[test]
    fn what_is_taken_is_what_the_chain_admits(
        gas in 20_000_u64..120_000, cap in 900_u128..1_200, tip in 0_u128..1_300,
        zeros in 0_usize..100, others in 0_usize..100, create: bool,
    ) {
        let mut transaction = transfer(0, cap, tip);
        transaction.gas_limit = gas;
        transaction.input = [vec![0; zeros], vec![1; others]].concat().into();
        if create {
            transaction.to = TxKind::Create;
        }
        let encoded = signed(transaction);
        let recovered = Recovered::decode(&encoded).expect("a transaction");
        let params = Params { minimum_gas_price: BASE_FEE, transaction_gas_max: 30_000_000, ..Params::default() };
        let spec = ChainSpec { chain_id: CHAIN_ID, epoch_blocks: 10 };
        let admitted = check_admission(&spec, &params, &recovered);
        prop_assert_eq!(check(&encoded).is_ok(), admitted.is_ok(), "{:?}", admitted);
    }

    #[test]
    fn a_changed_transaction_is_another_or_none(position in 0_usize..110, flip in 1_u8..) {
        let good = signed(transfer(3, 2_000, 5));
        let original = check(&good).expect("well-formed");
        let mut bytes = good.to_vec();
        let position = position % bytes.len();
        bytes[position] ^= flip;
        if let Ok(changed) = check(&bytes.into()) {
            prop_assert_ne!(changed.hash(), original.hash());
            prop_assert_ne!(changed.sender(), original.sender());
        }
    }
}

#[test]
fn nonces_wait_for_the_missing_one() {
    let mut pool = pool(limits());
    let admitted = pool.insert(sent(1, 7, 2_000, 0), rich(5)).expect("admitted");
    assert!(!admitted.executable);
    assert_eq!(pool.pending_nonce(&address(1), 5), 5);
    assert!(pool.insert(sent(1, 5, 2_000, 0), rich(5)).expect("admitted").executable);
    assert_eq!(pool.pending_nonce(&address(1), 5), 6);
    assert!(pool.insert(sent(1, 6, 2_000, 0), rich(5)).expect("admitted").executable);
    assert_eq!(pool.pending_nonce(&address(1), 5), 8);
    assert_eq!(pool.size(), PoolSize { executable: 3, queued: 0, bytes: pool.bytes });
    assert_eq!(pool.pending_nonce(&address(2), 9), 9);
}

#[test]
fn each_unfit_transaction_is_refused_for_its_own_reason() {
    let mut pool = pool(limits());
    let told = |result: Result<Admitted, Refused>| result.expect_err("refused").to_string();
    pool.insert(sent(1, 5, 2_000, 10), rich(5)).expect("admitted");
    assert_eq!(told(pool.insert(sent(1, 5, 2_000, 10), rich(5))), "already known");
    assert_eq!(told(pool.insert(sent(1, 4, 2_000, 0), rich(5))), "nonce too low: next nonce 5, tx nonce 4");
    assert_eq!(
        told(pool.insert(sent(1, 21, 2_000, 0), rich(5))),
        "nonce too high: next nonce 5, tx nonce 21, at most 16 ahead"
    );
    let one = sent(2, 0, 2_000, 0);
    let poor = |balance: U256| Account { nonce: 0, balance };
    assert!(
        told(pool.insert(one.clone(), poor(one.cost() - U256::from(1))))
            .starts_with("insufficient funds for gas * price + value")
    );
    pool.insert(one.clone(), poor(one.cost())).expect("just enough");
    let second = pool.insert(sent(2, 1, 2_000, 0), poor(one.cost() + U256::from(1)));
    assert!(matches!(second, Err(Refused::Funds { queued, .. }) if queued == one.cost()), "{second:?}");
}

#[test]
fn a_replacement_raises_both_caps_by_a_tenth() {
    for (cap, tip, replaces) in [
        (2_200, 110, true),
        (2_199, 110, false),
        (2_200, 109, false),
        (3_000, 100, false),
        (2_000, 1_000, false),
        (9_000, 9_000, true),
    ] {
        let mut pool = pool(limits());
        let old = pool.insert(sent(1, 0, 2_000, 100), rich(0)).expect("admitted").hash;
        let result = pool.insert(sent(1, 0, cap, tip), rich(0));
        if replaces {
            assert_eq!(result.expect("replaces").replaced, Some(old));
            assert_eq!(pool.size().executable, 1);
        } else {
            let told = result.expect_err("underpriced").to_string();
            assert!(
                told.starts_with("replacement transaction underpriced: needs maxFeePerGas 2200 and maxPriorityFeePerGas 110"),
                "{told}"
            );
            assert!(pool.get(&old).is_some());
        }
    }
    // Of nothing, a tenth is nothing: it must still rise.
    let mut pool = pool(limits());
    pool.insert(sent(1, 0, 2_000, 0), rich(0)).expect("admitted");
    assert!(pool.insert(sent(1, 0, 2_200, 0), rich(0)).is_err());
    assert!(pool.insert(sent(1, 0, 2_200, 1), rich(0)).is_ok());
}

#[test]
fn a_full_pool_gives_up_its_cheapest_last_transaction() {
    let mut pool = pool(PoolLimits { transactions_max: 3, ..limits() });
    pool.insert(sent(1, 0, 9_000, 900), rich(0)).expect("admitted");
    let tail = pool.insert(sent(1, 1, 9_000, 100), rich(0)).expect("admitted").hash;
    pool.insert(sent(2, 0, 9_000, 500), rich(0)).expect("admitted");
    // Neither cheaper nor equal ones come in.
    assert_eq!(pool.insert(sent(3, 0, 9_000, 50), rich(0)), Err(Refused::PoolFull));
    assert_eq!(pool.insert(sent(3, 0, 9_000, 100), rich(0)), Err(Refused::PoolFull));
    assert_eq!(pool.insert(sent(3, 0, 9_000, 101), rich(0)).expect("admitted").evicted, [tail]);
    // A dear transaction does not shelter the cheap one before it.
    pool.insert(sent(3, 1, 9_000, 5_000), rich(0)).expect_err("worth no more than what it follows");
    assert_eq!(pool.size().executable, 3);
}

#[test]
fn what_waits_for_another_goes_first() {
    let mut pool = pool(PoolLimits { transactions_max: 2, ..limits() });
    let gapped = pool.insert(sent(1, 3, 9_000, 8_000), rich(0)).expect("admitted").hash;
    pool.insert(sent(2, 0, 9_000, 1), rich(0)).expect("admitted");
    assert_eq!(pool.insert(sent(3, 0, 9_000, 2), rich(0)).expect("admitted").evicted, [gapped]);
    assert_eq!(pool.insert(sent(4, 7, 9_000, 8_000), rich(0)), Err(Refused::PoolFull));
}

#[test]
fn a_large_newcomer_evicts_nobody_in_vain() {
    let small = sent(4, 0, 9_000, 400);
    let bytes_max = small.encoded().len() * 4;
    let mut pool = pool(PoolLimits { bytes_max, ..limits() });
    for (sender, tip) in [(1, 10), (2, 20), (3, 300), (4, 400)] {
        pool.insert(sent(sender, 0, 9_000, tip), rich(0)).expect("admitted");
    }
    let before = pool.size();
    let large = |tip: u128| {
        let mut transaction = transfer(0, 9_000, tip);
        (transaction.gas_limit, transaction.input) = (1_000_000, vec![1; small.encoded().len()].into());
        from(9, transaction)
    };
    assert_eq!(pool.insert(large(200), rich(0)), Err(Refused::PoolFull), "it needs the room of three");
    assert_eq!(pool.size(), before);
    assert_eq!(pool.insert(large(350), rich(0)).expect("admitted").evicted.len(), 3);
}

#[test]
fn a_block_takes_the_dearest_first_and_each_sender_in_order() {
    let mut pool = pool(limits());
    for (sender, nonce, tip) in [(1, 0, 10), (1, 1, 900), (2, 0, 500), (2, 1, 5), (3, 1, 999)] {
        pool.insert(sent(sender, nonce, 9_000, tip), rich(0)).expect("admitted");
    }
    let room = Room { bytes_max: 1 << 20, gas_max: 30_000_000 };
    let order = |pool: &Mempool, room: Room, ahead: &BTreeMap<Address, u64>| -> Vec<(u8, u64)> {
        let number = |sender| (0..16).find(|number| address(*number) == sender).expect("one of ours");
        pool.propose(room, ahead)
            .iter()
            .map(|candidate| (number(candidate.sender()), candidate.nonce()))
            .collect()
    };
    let none = BTreeMap::new();
    assert_eq!(order(&pool, room, &none), [(2, 0), (1, 0), (1, 1), (2, 1)]);
    assert_eq!(order(&pool, Room { gas_max: 63_000, ..room }, &none), [(2, 0), (1, 0), (1, 1)]);
    assert_eq!(order(&pool, Room { gas_max: 20_999, ..room }, &none), []);
    assert_eq!(order(&pool, Room { bytes_max: 0, ..room }, &none), []);
    // What unfinished blocks hold is not proposed again.
    let ahead = BTreeMap::from([(address(1), 1), (address(2), 2)]);
    assert_eq!(order(&pool, room, &ahead), [(1, 1)]);
}

#[test]
fn a_block_takes_away_what_it_made_impossible() {
    let mut pool = pool(limits());
    let hashes: Vec<B256> =
        (0..3).map(|nonce| pool.insert(sent(1, nonce, 2_000, 0), rich(0)).expect("admitted").hash).collect();
    let left = pool.follow(1, terms(), [(address(1), rich(2))]);
    assert_eq!(left, hashes[..2]);
    assert_eq!(pool.size().executable, 1);
    // Without money it stays, and is not proposed.
    assert!(pool.follow(2, terms(), [(address(1), Account { nonce: 2, balance: U256::ZERO })]).is_empty());
    assert_eq!((pool.size().executable, pool.size().queued), (0, 1));
    // It waits only so long.
    assert!(pool.follow(99, terms(), []).is_empty());
    assert_eq!(pool.follow(100, terms(), []), hashes[2..]);
    assert_eq!(pool.size(), PoolSize::default());
}

#[test]
fn a_higher_base_fee_keeps_the_cheap_ones_out_of_blocks() {
    let mut pool = pool(limits());
    pool.insert(sent(1, 0, 2_000, 0), rich(0)).expect("admitted");
    pool.insert(sent(2, 0, 9_000, 0), rich(0)).expect("admitted");
    pool.follow(1, Terms { base_fee: 3_000, ..terms() }, []);
    let room = Room { bytes_max: 1 << 20, gas_max: 30_000_000 };
    let proposed = pool.propose(room, &BTreeMap::new());
    assert_eq!(proposed.iter().map(|candidate| candidate.sender()).collect::<Vec<_>>(), [address(2)]);
    assert!(matches!(pool.insert(sent(3, 0, 2_000, 0), rich(0)), Err(Refused::FeeTooLow { .. })));
}

/// One thing that can happen to a pool.
#[derive(Debug, Clone)]
enum Event {
    Insert { sender: u8, nonce: u64, cap: u128, tip: u128, bytes: usize, account: Account },
    Block { sender: u8, account: Account, base_fee: u64 },
    Remove(usize),
}

fn account() -> impl Strategy<Value = Account> {
    (0_u64..6, 0_u64..12)
        .prop_map(|(nonce, funds)| Account { nonce, balance: U256::from(funds * 50_000_000) })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_u8..5, 0_u64..10, 1_000_u128..4_000, 0_u128..1_000, 0_usize..200, account()).prop_map(
            |(sender, nonce, cap, tip, bytes, account)| Event::Insert { sender, nonce, cap, tip, bytes, account }
        ),
        1 => (0_u8..5, account(), 900_u64..2_000)
            .prop_map(|(sender, account, base_fee)| Event::Block { sender, account, base_fee }),
        1 => (0_usize..20).prop_map(Event::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn the_pool_keeps_its_promises(events in proptest::collection::vec(event(), 1..80)) {
        let limits = PoolLimits { transactions_max: 12, bytes_max: 2_500, ahead_max: 6, lifetime_blocks: 30 };
        let mut pool = pool(limits);
        let mut height = 0;
        for event in events {
            match event {
                Event::Insert { sender, nonce, cap, tip, bytes, account } => {
                    let mut transaction = transfer(nonce, cap, tip.min(cap));
                    transaction.gas_limit = 25_000;
                    transaction.input = vec![1; bytes.min(100)].into();
                    let candidate = from(sender, transaction);
                    let (before, known) = (pool.places.len(), pool.get(&candidate.hash()).is_some());
                    let size = pool.size();
                    match pool.insert(Arc::clone(&candidate), account) {
                        Ok(admitted) => {
                            prop_assert!(!known);
                            prop_assert!(pool.get(&admitted.hash).is_some());
                            let gone = admitted.evicted.len() + usize::from(admitted.replaced.is_some());
                            // News of the account may also have ended some.
                            prop_assert!(pool.places.len() + gone <= before + 1);
                        }
                        Err(Refused::PoolFull) => prop_assert!(pool.size().bytes <= size.bytes),
                        Err(_) => {}
                    }
                }
                Event::Block { sender, account, base_fee } => {
                    height += 3;
                    let terms = Terms { base_fee, ..terms() };
                    for hash in pool.follow(height, terms, [(address(sender), account)]) {
                        prop_assert!(pool.get(&hash).is_none());
                    }
                }
                Event::Remove(index) => {
                    let hash = pool.ages.values().nth(index).map(|(sender, nonce)| {
                        pool.senders[sender].transactions[nonce].candidate.hash()
                    });
                    if let Some(hash) = hash {
                        prop_assert!(pool.remove(&hash).is_some());
                    }
                }
            }
            assert_sound(&pool);
        }
    }
}

/// Everything that must hold of a pool at any time.
fn assert_sound(pool: &Mempool) {
    let all: Vec<&Pooled> = pool.senders.values().flat_map(|queue| queue.transactions.values()).collect();
    assert!(all.len() <= pool.limits.transactions_max);
    assert_eq!(all.iter().map(|pooled| pooled.candidate.encoded().len()).sum::<usize>(), pool.bytes);
    assert!(pool.bytes <= pool.limits.bytes_max);
    assert_eq!((all.len(), all.len()), (pool.places.len(), pool.ages.len()));
    assert_eq!(pool.ranks.len(), pool.senders.len());
    for (rank, sender) in &pool.ranks {
        assert_eq!(pool.senders[sender].rank(pool.terms.base_fee).as_ref(), Some(rank));
    }
    for (sender, queue) in &pool.senders {
        assert!(!queue.transactions.is_empty());
        for (nonce, pooled) in &queue.transactions {
            assert_eq!((pooled.candidate.sender(), pooled.candidate.nonce()), (*sender, *nonce));
            assert_eq!(pool.places[&pooled.candidate.hash()], (*sender, *nonce));
            assert!(*nonce >= queue.account.nonce);
        }
    }
    let size = pool.size();
    assert_eq!(size.executable + size.queued, all.len());
    let room = Room { bytes_max: 1_000, gas_max: 150_000 };
    let proposed = pool.propose(room, &BTreeMap::new());
    assert!(proposed.iter().map(|candidate| candidate.encoded().len()).sum::<usize>() <= room.bytes_max);
    assert!(proposed.len() <= 6);
    let mut state: BTreeMap<Address, Account> =
        pool.senders.iter().map(|(sender, queue)| (*sender, queue.account)).collect();
    for candidate in &proposed {
        let account = state.get_mut(&candidate.sender()).expect("a sender of the pool");
        assert_eq!(candidate.nonce(), account.nonce, "proposed in an order in which they run");
        account.nonce += 1;
        account.balance = account.balance.checked_sub(candidate.cost()).expect("it can be paid for");
        assert!(candidate.fee_cap() >= u128::from(pool.terms.base_fee));
    }
}
