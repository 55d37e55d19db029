//! Hosting: pins that are proven and paid, pins that are missed, and every proof that is none.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use blake3::hazmat::{HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root};
use proptest::prelude::*;
use surety_types::{
    Canonical as _, FileDigest, Manifest,
    abi::{
        IHosting::{self, Chunk, Opening},
        IModels, IOperators, IStaking, Module,
    },
};

use super::*;
use crate::{
    modules::models::tests::manifest,
    testing::{Chain, GAS_PRICE, address, credits, secret, worker_proof},
};

const FUNDER: u64 = 9;

/// Bytes without repetition, from a seed.
fn data(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

/// The value of part of a file, by recursion over the definition.
fn value(offset: u64, data: &[u8]) -> [u8; 32] {
    if data.len() <= 1_024 {
        return blake3::Hasher::new().set_input_offset(offset).update(data).finalize_non_root();
    }
    let (left, right) = data.split_at(left_subtree_len(data.len() as u64) as usize);
    merge_subtrees_non_root(&value(offset, left), &value(offset + left.len() as u64, right), Mode::Hash)
}

fn open(file: &[u8], index: u64) -> Opening {
    let (mut offset, mut rest, mut siblings) = (0, file, Vec::new());
    while rest.len() > 1_024 {
        let (left, right) = rest.split_at(left_subtree_len(rest.len() as u64) as usize);
        let middle = offset + left.len() as u64;
        if index * 1_024 < middle {
            siblings.push(B256::from(value(middle, right)));
            rest = left;
        } else {
            siblings.push(B256::from(value(offset, left)));
            (offset, rest) = (middle, right);
        }
    }
    Opening { data: Bytes::copy_from_slice(rest), siblings }
}

/// A chain with a model of these files, published and listed.
struct World {
    chain: Chain,
    model: B256,
    files: Vec<Vec<u8>>,
    manifest: Manifest,
}

fn worker_key(operator: u64) -> B256 {
    B256::from(secret(100 + operator as u8).public().0)
}

impl World {
    fn new(sizes: &[usize]) -> World {
        World::with(sizes, |_| {})
    }

    fn with(sizes: &[usize], change: impl FnOnce(&mut crate::Genesis)) -> World {
        let files: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(seed, bytes)| data(*bytes, seed as u64)).collect();
        let digests = files.iter().enumerate().map(|(number, file)| FileDigest {
            name: format!("{number}.gguf"),
            bytes: file.len() as u64,
            blake3: Digest(*blake3::hash(file).as_bytes()),
        });
        let manifest = Manifest { files: digests.collect(), ..manifest() };
        // Long enough for everything a test does within one.
        let mut chain = Chain::with(|genesis| {
            genesis.epoch_blocks = 40;
            change(genesis);
        });
        let model = publish(&mut chain, &manifest);
        let listed = chain.call(9, Module::Hosting, U256::ZERO, list(&manifest));
        assert_eq!(listed, model);
        World { chain, model, files, manifest }
    }

    /// An operator with a worker, that pins the model.
    fn pin(&mut self, operator: u64) {
        self.join(operator);
        let pin = IHosting::pinCall { model: self.model, worker: worker_key(operator) };
        self.call(operator, pin).expect("pinned");
    }

    /// An operator with stake and a worker.
    fn join(&mut self, operator: u64) {
        let chain = &mut self.chain;
        chain.call(operator, Module::Staking, credits(10), IStaking::bondCall {});
        let register = IOperators::registerCall { name: "Acme".into(), url: String::new() };
        chain.call(operator, Module::Operators, U256::ZERO, register);
        let (key, proof) = worker_proof(address(operator), &secret(100 + operator as u8));
        let add = IOperators::addWorkerCall { key, endpoint: "a".into(), proof };
        chain.call(operator, Module::Operators, U256::ZERO, add);
    }

    fn fund(&mut self, wei: U256) {
        self.chain.call(FUNDER, Module::Hosting, wei, IHosting::fundCall { model: self.model });
    }

    fn call<C: SolCall>(&mut self, who: u64, call: C) -> Result<C::Return, String> {
        self.chain.try_call(who, Module::Hosting, U256::ZERO, call)
    }

    fn hosted(&self) -> IHosting::Hosted {
        self.chain.view(Module::Hosting, IHosting::hostedCall { model: self.model })
    }

    fn pin_of(&self, operator: u64) -> IHosting::Pin {
        let call = IHosting::pinOfCall { model: self.model, operator: address(operator) };
        self.chain.view(Module::Hosting, call)
    }

    fn challenge(&self, operator: u64) -> Vec<Chunk> {
        let call = IHosting::challengeCall { model: self.model, operator: address(operator) };
        let challenge = self.chain.view(Module::Hosting, call);
        assert_eq!(challenge.epoch, self.chain.next_header().epoch);
        challenge.chunks
    }

    /// The honest answer to the challenge of the epoch that the next block is in.
    fn answer(&self, operator: u64) -> IHosting::proveCall {
        let open = |chunk: Chunk| open(&self.files[chunk.file as usize], chunk.index);
        IHosting::proveCall {
            model: self.model,
            operator: address(operator),
            epoch: self.chain.next_header().epoch,
            openings: self.challenge(operator).into_iter().map(open).collect(),
        }
    }

    fn prove(&mut self, operator: u64) -> Result<U256, String> {
        let answer = self.answer(operator);
        self.call(8, answer)
    }

    /// Into the second block of the next epoch, whose beacon is known.
    fn next_epoch(&mut self) {
        self.chain.next_epoch();
        self.chain.block(&[]);
    }
}

fn publish(chain: &mut Chain, manifest: &Manifest) -> B256 {
    let publish = IModels::publishCall { manifest: manifest.to_cbor().into() };
    chain.call(4, Module::Models, U256::ZERO, publish)
}

fn list(manifest: &Manifest) -> IHosting::listCall {
    IHosting::listCall { manifest: manifest.to_cbor().into() }
}

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    let reason = result.expect_err("refused");
    assert!(reason.contains(expected), "{reason}");
}

#[test]
fn a_pin_is_challenged_proven_and_paid_once_in_an_epoch() {
    let mut world = World::new(&[50_000]);
    world.fund(credits(1_000));
    for operator in [5, 6] {
        world.pin(operator);
        assert!(world.challenge(operator).is_empty(), "its beacon was known when it was pinned");
    }
    let too_early = IHosting::proveCall { openings: vec![], ..world.answer(5) };
    refused(world.call(8, too_early), "the pin is challenged from the next epoch on");
    let since = world.chain.header.epoch;
    world.next_epoch();
    assert_ne!(world.challenge(5), world.challenge(6), "two holders are drawn different chunks");
    assert_eq!(world.challenge(5).len() as u64, world.chain.genesis.params.hosting_chunks);

    let share = credits(1_000) / U256::from(10_000) / U256::from(3);
    assert_eq!(world.hosted().share, share);
    let before = world.chain.balance(address(5));
    assert_eq!(world.prove(5), Ok(share));
    assert_eq!(world.chain.balance(address(5)), before + share, "another one paid for the gas");
    assert_eq!(world.hosted().pool, credits(1_000) - share);
    refused(world.prove(5), "the pin is proven in this epoch");
    // The second gets as much, whatever was paid or given since.
    world.fund(credits(500));
    assert_eq!(world.prove(6), Ok(share));
    let pool = credits(1_500) - share * U256::from(2);
    assert_eq!(world.hosted().pool, pool);
    assert_eq!(world.chain.balance(Module::Hosting.address()), pool);
    assert_eq!((world.hosted().paid, world.hosted().pins), (2, 2));

    // The same openings are none of the next epoch, nor is the epoch.
    let (old, drawn) = (world.answer(5), world.challenge(5));
    world.next_epoch();
    assert_ne!(world.challenge(5), drawn);
    refused(world.call(8, old.clone()), "the challenge is not of the current epoch");
    let epoch = world.chain.next_header().epoch;
    refused(world.call(8, IHosting::proveCall { epoch, ..old.clone() }), "chunk");
    refused(world.call(8, IHosting::proveCall { epoch: epoch + 1, ..old }), "the challenge is not of the");
    let share = pool / U256::from(10_000) / U256::from(3);
    assert_eq!(world.prove(5), Ok(share), "a part of what is left");
    let pin = world.pin_of(5);
    assert_eq!((pin.since, pin.lastProven, pin.proven, pin.missed), (since, epoch, 2, 0));
}

#[test]
fn what_is_not_proven_in_time_is_missed() {
    let mut world = World::new(&[5_000]);
    world.fund(credits(9));
    world.pin(5);
    let missed = |world: &World| (world.pin_of(5).proven, world.pin_of(5).missed);
    world.next_epoch();
    assert_eq!(missed(&world), (0, 0), "there is still time");
    world.next_epoch();
    world.next_epoch();
    assert_eq!(missed(&world), (0, 2));
    world.prove(5).expect("proven");
    assert_eq!(missed(&world), (1, 2));
    world.next_epoch();
    assert_eq!(missed(&world), (1, 2));
    world.next_epoch();
    assert_eq!(missed(&world), (1, 3));
    let pool = world.hosted().pool;

    // Leaving does not undo a challenge that is known, nor what was missed before.
    world.call(5, IHosting::unpinCall { model: world.model }).expect("unpinned");
    assert_eq!(missed(&world), (1, 4));
    assert_eq!((world.hosted().pins, world.hosted().pool), (0, pool), "what nobody earned stays");
    refused(world.call(5, IHosting::unpinCall { model: world.model }), "the caller does not pin the model");
    refused(world.prove(5), "the operator does not pin the model");
    world.next_epoch();
    assert_eq!(missed(&world), (1, 4));
    let again = IHosting::pinCall { model: world.model, worker: worker_key(5) };
    world.call(5, again).expect("pinned again");
    world.call(5, IHosting::unpinCall { model: world.model }).expect("before any challenge");
    let again = IHosting::pinCall { model: world.model, worker: worker_key(5) };
    world.call(5, again).expect("pinned again");
    world.next_epoch();
    world.prove(5).expect("proven");
    world.call(5, IHosting::unpinCall { model: world.model }).expect("unpinned after its proof");
    assert_eq!(missed(&world), (2, 4));
}

#[test]
fn as_many_are_paid_as_are_wanted_and_the_others_are_recorded() {
    let mut world = World::with(&[3_000], |genesis| {
        (genesis.params.hosting_replicas, genesis.params.hosting_payout_ppm) = (2, 1_000_000);
    });
    world.fund(U256::from(7));
    for operator in [5, 6, 7] {
        world.pin(operator);
    }
    world.next_epoch();
    assert_eq!(world.prove(7), Ok(U256::from(3)));
    assert_eq!(world.prove(5), Ok(U256::from(3)));
    assert_eq!(world.hosted().share, U256::ZERO);
    assert_eq!(world.prove(6), Ok(U256::ZERO));
    assert_eq!(world.pin_of(6).proven, 1);
    assert_eq!(world.hosted().pool, U256::from(1), "what does not divide stays");
    world.next_epoch();
    assert_eq!(world.prove(6), Ok(U256::ZERO), "less than a wei for each");
    let pins = world.chain.view(Module::Hosting, IHosting::pinsOfCall { model: world.model, offset: 0 });
    let mut operators: Vec<Address> = pins.iter().map(|pin| pin.operator).collect();
    operators.sort();
    let mut expected = [5, 6, 7].map(address).to_vec();
    expected.sort();
    assert_eq!(operators, expected);
    // One in the middle of the list leaves; the others are found as before.
    world.call(5, IHosting::unpinCall { model: world.model }).expect("unpinned");
    world.call(7, IHosting::unpinCall { model: world.model }).expect("unpinned");
    let pins = world.chain.view(Module::Hosting, IHosting::pinsOfCall { model: world.model, offset: 0 });
    assert_eq!(pins.iter().map(|pin| pin.operator).collect::<Vec<_>>(), [address(6)]);
}

#[test]
fn files_of_every_shape_are_proven_chunk_by_chunk() {
    // Of one chunk, whole and short; with a short last chunk; several, one of them empty.
    let shapes: [&[usize]; 7] =
        [&[1], &[1_024], &[1_025], &[6 * 1_024], &[7 * 1_024 + 1], &[40_000, 700, 0, 1_024], &[0]];
    for sizes in shapes {
        let mut world = World::new(sizes);
        world.fund(credits(3));
        world.pin(5);
        let files = world.chain.view(Module::Hosting, IHosting::filesOfCall { model: world.model });
        assert_eq!(files.iter().map(|file| file.bytes_ as usize).collect::<Vec<_>>(), sizes);
        let chunks: u64 = sizes.iter().map(|bytes| bytes.div_ceil(1_024).max(1) as u64).sum();
        assert_eq!((world.hosted().files, world.hosted().chunks), (sizes.len() as u64, chunks));
        for _ in 0..3 {
            world.next_epoch();
            assert_eq!(world.challenge(5).len() as u64, chunks.min(8), "{sizes:?}");
            world.prove(5).expect("proven");
        }
    }
}

/// What somebody does to an honest answer.
type Change = fn(&mut Vec<Opening>);

#[test]
fn an_answer_with_anything_wrong_proves_nothing() {
    let mut world = World::new(&[30_500, 9_000]);
    world.pin(5);
    world.next_epoch();
    let right = world.answer(5);
    let attempts: [(&str, Change); 8] = [
        ("one opening is needed for each", |openings| openings.truncate(7)),
        ("one opening is needed for each", |openings| openings.push(openings[0].clone())),
        ("chunk", |openings| openings.reverse()),
        ("the bytes are not those of the file", |openings| {
            let mut data = openings[3].data.to_vec();
            data[0] ^= 1;
            openings[3].data = data.into();
        }),
        ("bytes, not", |openings| openings[7].data = openings[7].data.slice(1..)),
        ("bytes, not 0", |openings| openings[0].data = Bytes::new()),
        ("values beside it, not", |openings| openings[1].siblings.truncate(1)),
        ("the bytes are not those of the file", |openings| openings[1].siblings[0].0[9] ^= 4),
    ];
    for (expected, change) in attempts {
        let mut answer = right.clone();
        change(&mut answer.openings);
        assert_ne!(answer.openings, right.openings);
        refused(world.call(8, answer), expected);
    }
    world.call(8, right).expect("nothing of that stood in its way");
}

#[test]
fn a_manifest_that_lies_about_its_sizes_is_never_paid_for() {
    // The file has more chunks than are told, or fewer, or the last is longer: the last told chunk opens in no way.
    for (bytes, told) in
        [(5_000_u64, 4_096_u64), (5_000, 4_999), (5_000, 5_001), (5_000, 5_121), (900, 1_024)]
    {
        let file = data(bytes as usize, 1);
        let files = vec![FileDigest {
            name: "a.gguf".into(),
            bytes: told,
            blake3: Digest(*blake3::hash(&file).as_bytes()),
        }];
        let manifest = Manifest { files, ..manifest() };
        let mut chain = Chain::new();
        let model = publish(&mut chain, &manifest);
        chain.call(9, Module::Hosting, U256::ZERO, list(&manifest));
        let mut world = World { chain, model, files: vec![file], manifest };
        world.fund(credits(3));
        world.pin(5);
        world.next_epoch();
        let chunks = world.challenge(5);
        assert_eq!(chunks.len() as u64, told.div_ceil(1_024), "all of so few are drawn");
        let known = bytes.div_ceil(1_024);
        let open = |chunk: Chunk| open(&world.files[0], chunk.index.min(known - 1));
        let answer = IHosting::proveCall {
            model,
            operator: address(5),
            epoch: world.chain.next_header().epoch,
            openings: chunks.into_iter().map(open).collect(),
        };
        refused(world.call(8, answer), "is not proven");
        assert_eq!(world.hosted().pool, credits(3));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = World::new(&[2_000]);
    let model = world.model;
    let again = list(&world.manifest);
    refused(world.call(9, again), "the model is listed");
    let mut other = Manifest { name: "another".into(), ..world.manifest.clone() };
    refused(world.call(9, list(&other)), "the model is not published");
    refused(world.call(9, IHosting::listCall { manifest: vec![0; 9].into() }), "not a canonical manifest");
    other.files[0].bytes = FILE_BYTES_MAX + 1;
    let huge = publish(&mut world.chain, &other);
    refused(world.call(9, list(&other)), "a file is too large to be audited");

    let fund = |model| IHosting::fundCall { model };
    refused(world.call(9, fund(model)), "nothing was sent");
    let unlisted = world.chain.try_call(9, Module::Hosting, U256::ONE, fund(huge));
    refused(unlisted, "the model is not listed");
    let paid = world.chain.try_call(9, Module::Hosting, U256::ONE, IHosting::unpinCall { model });
    refused(paid, "the function takes no value");

    let pin = |worker| IHosting::pinCall { model, worker };
    refused(world.call(5, pin(worker_key(5))), "less than the worker's minimum is bonded");
    world.join(5);
    world.join(6);
    refused(world.call(5, pin(worker_key(6))), "the key is not the caller's");
    refused(world.call(5, pin(B256::ZERO)), "the key is not the caller's");
    refused(
        world.call(5, IHosting::pinCall { model: huge, worker: worker_key(5) }),
        "the model is not listed",
    );
    world.call(5, pin(worker_key(5))).expect("pinned");
    refused(world.call(5, pin(worker_key(5))), "the caller pins the model already");
    world.next_epoch();
    let answer = world.answer(5);
    refused(
        world.call(8, IHosting::proveCall { operator: address(6), ..answer.clone() }),
        "the operator does not pin",
    );
    refused(world.call(8, IHosting::proveCall { model: huge, ..answer.clone() }), "the model is not listed");

    // Neither a worker that retired nor an operator whose stake left proves anything.
    let unbond = IStaking::unbondCall { operator: address(5), amount: credits(1) };
    world.chain.call(5, Module::Staking, U256::ZERO, unbond);
    refused(world.call(8, answer.clone()), "less than the worker's minimum is bonded");
    world.chain.call(5, Module::Staking, credits(1), IStaking::bondCall {});
    let retire = IOperators::retireWorkerCall { key: worker_key(5) };
    world.chain.call(5, Module::Operators, U256::ZERO, retire);
    refused(world.call(8, answer), "the key is retired");
}

#[test]
fn a_beacon_is_of_its_epoch_and_of_no_later_one() {
    let mut world = World::new(&[90_000]);
    world.pin(5);
    world.next_epoch();
    let beacon = |world: &World| world.chain.view(Module::Hosting, IHosting::beaconCall {});
    let (first, drawn) = (beacon(&world), world.challenge(5));
    assert_eq!(first.epoch, world.chain.header.epoch);
    while !world.chain.spec.is_epoch_last(world.chain.header.number) {
        world.chain.block(&[]);
        if !world.chain.spec.is_epoch_last(world.chain.header.number) {
            assert_eq!((beacon(&world), world.challenge(5)), (first.clone(), drawn.clone()));
        }
    }
    // After an epoch's last block nobody knows the next one's.
    let unknown = world.chain.simulate(
        Address::ZERO,
        Module::Hosting.address(),
        U256::ZERO,
        IHosting::beaconCall {}.abi_encode(),
    );
    assert_eq!(
        unknown.revert_reason().as_deref(),
        Some("hosting: the beacon of this epoch is not known yet")
    );
    world.chain.block(&[]);
    let next = beacon(&world);
    assert_eq!((next.epoch, next.beacon_), (first.epoch + 1, world.chain.header.beacon));
}

#[test]
fn chunks_are_drawn_from_everywhere() {
    // 900 chunks in two files; a holder that lacks a tenth of them is seen as often as the docstring says.
    let mut world = World::new(&[600 * 1_024, 299 * 1_024 + 5]);
    world.pin(5);
    let (mut caught, mut files, epochs) = (0, [0, 0], 60);
    for _ in 0..epochs {
        world.next_epoch();
        let drawn = world.challenge(5);
        caught += u32::from(drawn.iter().any(|chunk| chunk.index % 10 == 3));
        drawn.iter().for_each(|chunk| files[chunk.file as usize] += 1);
    }
    // 57 % expected, of 60; and two thirds of 480 from the first file.
    assert!((22..=46).contains(&caught), "{caught}");
    assert!((270..=370).contains(&files[0]), "{files:?}");
}

#[test]
fn a_pool_of_everything_overflows_nothing() {
    let mut world = World::with(&[2_000], |genesis| {
        let stakes = genesis.validators.iter().fold(U256::ZERO, |sum, validator| sum + validator.stake);
        let others = credits(100_000) * U256::from(9);
        genesis.balances[9].amount = U256::from(u128::MAX) - stakes - others;
        (genesis.params.hosting_payout_ppm, genesis.params.hosting_replicas) = (1_000_000, 1);
    });
    world.pin(5);
    let all = world.chain.balance(address(FUNDER)) - credits(1);
    world.fund(all);
    world.next_epoch();
    assert_eq!(world.prove(5), Ok(all));
    assert_eq!(
        (world.hosted().pool, world.chain.balance(Module::Hosting.address())),
        (U256::ZERO, U256::ZERO)
    );
}

#[test]
fn what_an_audit_costs() {
    let mut world = World::new(&[16 << 20]);
    world.fund(credits(1));
    world.pin(5);
    world.next_epoch();
    let answer = world.answer(5);
    let depth = answer.openings[0].siblings.len();
    let input = answer.abi_encode();
    let bytes = input.len();
    let receipt = world.chain.send(8, Module::Hosting.address(), U256::ZERO, input);
    assert!(receipt.envelope.status());
    let fee = U256::from(receipt.gas_used) * U256::from(GAS_PRICE);
    println!("8 chunks, 14 steps: {bytes} bytes, {} gas, {fee} wei", receipt.gas_used);
    assert_eq!(depth, 14);
    assert!((13_000..15_000).contains(&bytes), "{bytes}");
    assert!((500_000..800_000).contains(&receipt.gas_used), "{}", receipt.gas_used);
}

#[derive(Debug, Clone)]
enum Step {
    Fund(u64),
    Pin(u64),
    Unpin(u64),
    Prove(u64),
    Forge(u64, u8, u16),
    Epoch,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..1_000_000_u64).prop_map(Step::Fund),
        1 => (5..8_u64).prop_map(Step::Pin),
        1 => (5..8_u64).prop_map(Step::Unpin),
        4 => (5..8_u64).prop_map(Step::Prove),
        1 => (5..8_u64, any::<u8>(), any::<u16>()).prop_map(|(who, part, at)| Step::Forge(who, part, at)),
        3 => Just(Step::Epoch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn money_is_conserved_and_only_proofs_are_paid(steps in prop::collection::vec(step(), 1..30)) {
        let mut world = World::with(&[20_000], |genesis| genesis.params.hosting_payout_ppm = 100_000);
        for operator in 5..8 {
            world.join(operator);
        }
        let (mut given, mut paid) = (U256::ZERO, U256::ZERO);
        for step in steps {
            match step {
                Step::Fund(wei) => {
                    let fund = IHosting::fundCall { model: world.model };
                    if world.chain.try_call(FUNDER, Module::Hosting, U256::from(wei), fund).is_ok() {
                        given += U256::from(wei);
                    }
                }
                Step::Pin(who) => {
                    let pin = IHosting::pinCall { model: world.model, worker: worker_key(who) };
                    let _ = world.call(who, pin);
                }
                Step::Unpin(who) => drop(world.call(who, IHosting::unpinCall { model: world.model })),
                Step::Prove(who) => {
                    let expected = world.hosted().share;
                    if let Ok(earned) = world.prove(who) {
                        prop_assert_eq!(earned, expected);
                        paid += earned;
                    }
                }
                Step::Forge(who, part, at) => {
                    let mut answer = world.answer(who);
                    let count = answer.openings.len();
                    if count > 0 {
                        let opening = &mut answer.openings[usize::from(part) % count];
                        if part % 2 == 0 {
                            let mut data = opening.data.to_vec();
                            let at = usize::from(at) % data.len();
                            data[at] ^= 1 | part;
                            opening.data = data.into();
                        } else {
                            let at = usize::from(at) % opening.siblings.len();
                            opening.siblings[at].0[usize::from(part) % 32] ^= 1;
                        }
                    }
                    prop_assert!(world.call(8, answer).is_err());
                }
                Step::Epoch => world.next_epoch(),
            }
            prop_assert_eq!(world.hosted().pool, given - paid);
            prop_assert_eq!(world.chain.balance(Module::Hosting.address()), given - paid);
            prop_assert!(world.hosted().paid <= 3);
        }
    }
}
