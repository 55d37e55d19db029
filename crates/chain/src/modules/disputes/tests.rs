//! Disputes, from the opening to every verdict, and the money of each.

use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy_sol_types::{SolCall, SolEvent as _};
use proptest::prelude::*;
use surety_proof::{
    dispute::{
        Division, Game, Hashed, Node, Tree, Turn,
        game::{self, division},
        judge::{Leaf, Shown},
        layout::{Coordinate, Layout},
        opening::CHUNK_BYTES,
        plan::{Pairs, PlanHeader, SpellingEntry},
        prompt::{PromptClaim, PromptFault},
        rules::Source,
        text::{TextClaim, TextFault},
    },
    output_digest, prompt_digest, state_commitment, text_digest,
};
use surety_types::{
    Canonical as _, Digest, FinishReason, Manifest, Order, Prompt, Receipt, Request, Spelling,
    abi::{
        IAudits,
        IChannels::{self, Voucher, VoucherClaim},
        IDisputes::{self, Opening, Papers},
        IOperators, IStaking, Module,
    },
    digest::domain,
    receipt::NO_ARITHMETIC,
};

use crate::{
    modules::{models::tests::manifest, tests::check_stakes},
    tariff::COLLECT_GAS,
    testing::{
        CREDIT, Chain, GAS_PRICE, OPERATOR, PAYER, address, channel, credits, order, receipt, secret, serve,
        served, session, signed, signed_by, worker, worker_proof,
    },
};

mod replays;

const CHALLENGER: u64 = 7;
const END: u32 = 2;
const SALT: [u8; 32] = [17; 32];
const ACCUSATION: B256 = B256::repeat_byte(3);
const STATE: [u8; 32] = [19; 32];

/// A model that has a plan, and nothing else.
struct Model {
    manifest: Manifest,
    plan: Hashed<Vec<u8>>,
}

fn header() -> PlanHeader {
    PlanHeader {
        pairs: Pairs::Interleaved,
        layers: 2,
        width: 64,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        feed_forward: 128,
        vocabulary: 600,
        context: 4_096,
        eps: 1e-6,
        q_norm: false,
        k_norm: false,
        end_tokens: vec![END],
        spelling: SpellingEntry::of(&spelling()),
    }
}

fn model() -> Model {
    let mut manifest = manifest();
    (manifest.layers, manifest.width, manifest.heads, manifest.kv_heads) = (2, 64, 2, 1);
    (manifest.head_dim, manifest.feed_forward, manifest.vocabulary, manifest.context) = (32, 128, 600, 4_096);
    let header = header();
    // Tensors that nobody looks at.
    let mut plan = header.to_bytes().to_vec();
    plan.resize(header.plan_bytes(), 0);
    let plan = Hashed::new(surety_proof::dispute::plan::tree(&header), plan);
    manifest.plan = Some(Digest(plan.digest()));
    Model { manifest, plan }
}

/// Everything about one answer: what was signed, and both sides' traces.
#[derive(Clone)]
struct Answered {
    order: Order,
    receipt: Receipt,
    prompt: Vec<u32>,
    output: Vec<u32>,
    papers: Papers,
    layout: Layout,
}

/// Every id spells itself and a space; ends are silent.
fn spelling() -> Spelling {
    let pieces: Vec<String> = (0..600).map(|id| format!("t{id} ")).collect();
    Spelling::new(pieces.iter().zip(0..).map(|(piece, id)| (piece.as_bytes(), id == END))).expect("short")
}

fn request(stop: Vec<String>) -> Request {
    Request {
        prompt: Prompt::Tokens(vec![5]),
        stop,
        logprobs: None,
        prompt_logprobs: None,
        date: None,
        grammar: None,
        embedding: None,
    }
}

/// An answer that is signed, by whatever changes.
fn answered(chain: &Chain, change: impl Fn(&mut Order, &mut Receipt, &mut Vec<u32>)) -> Answered {
    let model = model();
    let mut order = order(chain);
    order.model = model.manifest.id();
    order.request_digest = request(Vec::new()).digest();
    order.max_output_tokens = 40;
    order.sampling.temperature = 0.0;
    let prompt: Vec<u32> = (0..30).map(|index| 10 + index).collect();
    let mut output: Vec<u32> = vec![100, 101, 102, END];
    let mut receipt = receipt(&order);
    change(&mut order, &mut receipt, &mut output);
    (receipt.order, receipt.model, receipt.seed) = (order.digest(), order.model, order.seed_bytes());
    (receipt.prompt_tokens, receipt.output_tokens) = (prompt.len() as u32, output.len() as u32);
    (receipt.prompt_digest, receipt.output_digest) = (prompt_digest(&prompt), output_digest(&output));
    receipt.state_commitment = state_commitment(&worker().public(), &SALT, &Digest(STATE));
    receipt.charge = receipt.price.charge(30, 0, output.len() as u32).expect("small");
    if output.is_empty() {
        receipt.first_token_ms = None;
    }
    let opening = model.plan.open(model.plan.tree().root(), Node { first: 0, chunks: 1 });
    let outputs = receipt.output_tokens.max(1);
    let layout = Layout::new(&header(), &order.sampling, 30, 0, outputs).expect("a trace");
    let papers = Papers {
        order: signed(&order, &session()),
        receipt: signed(&receipt, &worker()),
        manifest: model.manifest.to_cbor().into(),
        plan: opening.runs[0].bytes.clone().into(),
        planSiblings: opening.siblings.into(),
    };
    Answered { order, receipt, prompt, output, papers, layout }
}

fn lie(chain: &Chain) -> Answered {
    answered(chain, |_, _, _| ())
}

impl Answered {
    fn ids(&self) -> (B256, B256) {
        (self.receipt.order.0.into(), self.receipt.worker.0.into())
    }

    fn receipt_digest(&self) -> B256 {
        Digest::of(domain::RECEIPT, &self.papers.receipt).0.into()
    }

    fn bond(&self, chain: &Chain) -> U256 {
        let (order, worker) = self.ids();
        let call = IDisputes::bondForCall { words: self.layout.words(), order, worker };
        chain.view(Module::Disputes, call).bond
    }

    fn paid(&self) -> U256 {
        U256::from(self.receipt.charge.to_wei().expect("small"))
    }

    /// The whole trace: some words, the best and the sampled ids, the state digest; or from `from` on others.
    /// The trace in which a sampled id is not the best one, the first such word.
    fn false_sample(&self) -> (Hashed<Vec<u8>>, u64) {
        let honest = self.trace(None);
        let root = honest.tree().root();
        let mut bytes = honest.bytes_below(root).to_vec();
        // One whose inputs are in the same kilobyte.
        let same = |word: &u64| word % 256 >= 2;
        let outputs = 0..self.output.len() as u64;
        let word = outputs.map(|output| self.layout.sampled_at(output)).find(same).expect("one of four");
        bytes[4 * word as usize] ^= 1;
        (Hashed::new(*honest.tree(), bytes), word)
    }

    fn trace(&self, from: Option<u64>) -> Hashed<Vec<u8>> {
        let words = self.layout.words();
        let mut bytes: Vec<u8> = (0..words)
            .flat_map(|index| {
                let word = (index as u32).wrapping_mul(2_654_435_761);
                let changed = from.is_some_and(|from| index >= from);
                (word ^ u32::from(changed)).to_le_bytes()
            })
            .collect();
        let mut put = |word: u64, value: &[u8]| {
            let at = 4 * word as usize;
            bytes[at..at + value.len()].copy_from_slice(value);
        };
        let mut length = 0;
        for (output, id) in self.output.iter().enumerate() {
            length += spelling().piece(*id).filter(|piece| !piece.silent).map_or(0, |piece| piece.bytes);
            let at = self.layout.word(&Coordinate::Text { token: output as u64 });
            put(at, &length.to_le_bytes());
            put(at + 1, &[0; 4]);
        }
        if from.is_none() {
            put(self.layout.state_digest_at(), &STATE);
            for (output, id) in self.output.iter().enumerate() {
                let at = self.layout.sampled_at(output as u64);
                put(at - 2, &1.5f32.to_le_bytes());
                put(at - 1, &id.to_le_bytes());
                put(at, &id.to_le_bytes());
            }
        }
        let tree = Tree::derived(domain::TRACE, 4 * words).expect("short");
        Hashed::new(tree, bytes)
    }
}

fn id_opening(domain: &str, ids: &[u32], index: u32) -> Opening {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let tree = Tree::derived(domain, bytes.len() as u64).expect("short");
    open_at(&Hashed::new(tree, bytes), u64::from(index), 1)
}

/// The chunks that hold some words.
fn open_at(string: &Hashed<Vec<u8>>, word: u64, words: u64) -> Opening {
    let (first, last) = (4 * word / CHUNK_BYTES, (4 * (word + words) - 1) / CHUNK_BYTES);
    let opening = string.open(string.tree().root(), Node { first, chunks: last + 1 - first });
    let [run] = opening.runs.as_slice() else { panic!("consecutive chunks are one run") };
    Opening { first, data: run.bytes.clone().into(), siblings: opening.siblings.into() }
}

fn call<C: SolCall>(chain: &mut Chain, who: u64, call: C) -> Result<C::Return, String> {
    chain.try_call(who, Module::Disputes, U256::ZERO, call)
}

fn commit(chain: &mut Chain, who: u64, case: &Answered) {
    let (order, worker) = case.ids();
    let bytes =
        [address(who).as_slice(), order.as_slice(), worker.as_slice(), ACCUSATION.as_slice()].concat();
    call(chain, who, IDisputes::commitCall { commitment: keccak256(bytes) }).expect("committed");
}

fn try_open(chain: &mut Chain, who: u64, case: &Answered) -> Result<u64, String> {
    let bond = case.bond(chain);
    let open = IDisputes::openCall {
        papers: case.papers.clone(),
        channel: channel().to_cbor().into(),
        salt: ACCUSATION,
    };
    chain.try_call(who, Module::Disputes, bond, open)
}

fn open(chain: &mut Chain, case: &Answered) -> u64 {
    try_open(chain, CHALLENGER, case).expect("opened")
}

fn dispute(chain: &Chain, id: u64) -> IDisputes::Dispute {
    chain.view(Module::Disputes, IDisputes::disputesCall { id })
}

fn game_of(chain: &Chain, id: u64) -> Game {
    Game::from_bytes(&chain.view(Module::Disputes, IDisputes::gameOfCall { id }).game).expect("a game")
}

fn parts(division: &Division) -> (Vec<B256>, Bytes) {
    match division {
        Division::Nodes(nodes) => (nodes.iter().map(|node| B256::from(*node)).collect(), Bytes::new()),
        Division::Bytes(bytes) => (Vec::new(), bytes.clone().into()),
    }
}

/// The worker's next move, by its trace.
fn defend(chain: &mut Chain, id: u64, trace: &Hashed<Vec<u8>>) -> Result<Division, String> {
    let game = game_of(chain, id);
    let division = division(trace, game.node());
    let (nodes, data) = parts(&division);
    if game.turn() == Turn::Root {
        let root = IDisputes::rootCall { id, salt: SALT.into(), stateDigest: STATE.into(), nodes, data };
        call(chain, OPERATOR, root)?;
    } else {
        call(chain, OPERATOR, IDisputes::divideCall { id, nodes, data })?;
    }
    Ok(division)
}

/// Plays until the leaf; the word that differs, and how many messages there were.
fn play(chain: &mut Chain, id: u64, ours: &Hashed<Vec<u8>>, theirs: &Hashed<Vec<u8>>) -> (u64, u32) {
    let mut messages = 1;
    loop {
        let node = game_of(chain, id).node();
        let division = defend(chain, id, theirs).expect("a division");
        messages += 1;
        match game::answer(ours, node, &division) {
            game::Answer::Pick { index, value, siblings } => {
                let siblings = siblings.into_iter().map(B256::from).collect();
                let pick = IDisputes::pickCall { id, index, value: value.into(), siblings };
                call(chain, CHALLENGER, pick).expect("a pick");
                messages += 1;
            }
            game::Answer::Word(word) => return (word, messages),
            game::Answer::Same => panic!("the traces are the same"),
        }
    }
}

/// Of an answer that nobody can compute again.
const BY_WORD: &str =
    "the receipt claims no arithmetic: the answer is its worker's word, which nothing here shows to be false";

fn refused<T: std::fmt::Debug>(result: Result<T, String>, expected: &str) {
    assert_eq!(result.expect_err("refused"), format!("disputes: {expected}"));
}

fn fee(chain: &Chain) -> U256 {
    U256::from(chain.last.as_ref().expect("a block").gas_used) * U256::from(GAS_PRICE)
}

fn stake(chain: &Chain) -> U256 {
    chain.view(Module::Staking, IStaking::bondedToCall { operator: address(OPERATOR) })
}

fn forfeited(chain: &Chain) -> U256 {
    chain.view(Module::Staking, IStaking::forfeitedCall {})
}

fn time_out(chain: &mut Chain, id: u64) -> Result<(), String> {
    call(chain, 8, IDisputes::timeOutCall { id }).map(|_| ())
}

#[test]
fn who_falls_silent_is_convicted_and_everyone_is_paid() {
    let mut chain = served();
    let case = lie(&chain);
    commit(&mut chain, CHALLENGER, &case);
    let id = open(&mut chain, &case);
    let opened = dispute(&chain, id);
    assert_eq!((opened.state, opened.turn, opened.operator), (1, 1, address(OPERATOR)));
    assert_eq!((opened.paid, opened.payee), (case.paid(), address(PAYER)));
    assert_eq!(opened.bond, U256::from(CREDIT));
    refused(try_open(&mut chain, 8, &case), "a dispute about this answer is under way");
    refused(time_out(&mut chain, id), "the time for the next move is not over");
    check_stakes(&chain);

    // An epoch's end would give what is forfeited away.
    chain.next_epoch();
    chain.wait(chain.genesis.params.dispute_move_s);
    let [payer, challenger] = [PAYER, CHALLENGER].map(|who| chain.balance(address(who)));
    let before = forfeited(&chain);
    time_out(&mut chain, id).expect("over");
    // A tenth of 100 credits, of which the payer is refunded twice what it paid, the challenger its one move and a tenth of
    // what is left.
    let refund = case.paid() * U256::from(2);
    let costs = U256::from(2_000_000u128 * GAS_PRICE);
    let bounty = (credits(10) - refund - costs) / U256::from(10);
    assert_eq!(chain.balance(address(PAYER)), payer + refund);
    assert_eq!(chain.balance(address(CHALLENGER)), challenger + opened.bond + costs + bounty);
    assert_eq!(stake(&chain), credits(90));
    assert_eq!(forfeited(&chain), before + credits(10) - refund - costs - bounty);
    assert_eq!(dispute(&chain, id).state, 4);
    check_stakes(&chain);

    let jailed = IOperators::jailedUntilCall { operator: address(OPERATOR) };
    let until = chain.view(Module::Operators, jailed);
    assert_eq!(until, chain.header.timestamp_ms / 1_000 + 24 * 60 * 60);
    let key = B256::from(worker().public().0);
    let set = IOperators::setEndpointCall { key, endpoint: "quic://b".into() };
    let said = chain.try_call(OPERATOR, Module::Operators, U256::ZERO, set.clone());
    assert_eq!(said.map(|_| ()).expect_err("in jail"), "operators: the operator's workers are in jail");
    refused(time_out(&mut chain, id), "the dispute is over");
    refused(try_open(&mut chain, 8, &case), "the answer is convicted");
    chain.wait(24 * 60 * 60);
    chain.try_call(OPERATOR, Module::Operators, U256::ZERO, set).expect("nobody but time lets it go");
}

#[test]
fn a_lie_is_narrowed_down_to_its_word() {
    let mut chain = served();
    let case = lie(&chain);
    let from = case.layout.words() / 3;
    let (ours, theirs) = (case.trace(None), case.trace(Some(from)));
    let id = open(&mut chain, &case);
    let (word, messages) = play(&mut chain, id, &ours, &theirs);
    assert_eq!(word, from);
    assert!(messages < 9, "{messages} before the leaf");
    assert_eq!((dispute(&chain, id).turn, dispute(&chain, id).state), (4, 1));
    assert_eq!(game_of(&chain, id).digest(), Some(&theirs.digest()));
    check_stakes(&chain);
}

/// The leaf about a word whose kilobyte holds all it is computed from.
fn leaf(chain: &Chain, id: u64, case: &Answered, theirs: &Hashed<Vec<u8>>, word: u64) -> IDisputes::leafCall {
    let opening = theirs.open(game_of(chain, id).node(), Node { first: word / 256, chunks: 1 });
    let leaf = Leaf { word, shown: vec![Shown { source: Source::Trace, opening }], grammar: None };
    IDisputes::leafCall { id, papers: case.papers.clone(), leaf_: leaf.to_cbor().into() }
}

#[test]
fn the_judge_convicts_a_lie_and_dismisses_an_error() {
    let mut chain = served();
    let case = lie(&chain);
    let honest = case.trace(None);
    let (lying, word) = case.false_sample();
    commit(&mut chain, CHALLENGER, &case);
    let id = open(&mut chain, &case);
    let (found, messages) = play(&mut chain, id, &honest, &lying);
    assert_eq!(found, word);
    let leaf_call = leaf(&chain, id, &case, &lying, word);
    let mut other = leaf_call.clone();
    other.papers.receipt =
        signed(&Receipt { text_digest: Digest([9; 32]), ..case.receipt.clone() }, &worker());
    refused(call(&mut chain, CHALLENGER, other), "the receipt is not the dispute's");
    let mut other = leaf_call.clone();
    other.leaf_ = Bytes::from_static(&[0xa0]);
    let said = call(&mut chain, CHALLENGER, other).expect_err("refused");
    assert!(said.starts_with("disputes: the leaf cannot be read"), "{said}");
    let mut bare = Leaf::from_cbor(&leaf_call.leaf_).expect("a leaf");
    bare.shown.clear();
    let other = IDisputes::leafCall { leaf_: bare.to_cbor().into(), ..leaf_call.clone() };
    let said = call(&mut chain, CHALLENGER, other).expect_err("refused");
    assert!(said.starts_with("disputes: the leaf shows nothing: the word cannot be computed"), "{said}");
    refused(call(&mut chain, 8, leaf_call.clone()), "the caller is not the challenger");
    let before = stake(&chain);
    assert!(call(&mut chain, CHALLENGER, leaf_call).expect("judged"));
    assert!(messages < 9);
    let ended = dispute(&chain, id);
    assert_eq!((ended.state, ended.turn), (2, 0));
    assert_eq!(stake(&chain), before - credits(10));
    check_stakes(&chain);

    // The other way round: the worker's word is right, and the challenger's is not.
    let mut chain = served();
    let case = lie(&chain);
    let id = open(&mut chain, &case);
    let (found, _) = play(&mut chain, id, &lying, &honest);
    assert_eq!(found, word);
    let leaf_call = leaf(&chain, id, &case, &honest, word);
    assert!(!call(&mut chain, CHALLENGER, leaf_call).expect("judged"));
    assert_eq!(dispute(&chain, id).state, 8);
    assert_eq!(stake(&chain), credits(100));
    let answer = case.ids();
    let lost = IDisputes::answerOfCall { order: answer.0, worker: answer.1 };
    assert_eq!(chain.view(Module::Disputes, lost).lost, 1);
    check_stakes(&chain);
}

#[test]
fn moves_are_their_side_s_in_turn_and_in_time() {
    let mut chain = served();
    let case = lie(&chain);
    let (ours, theirs) = (case.trace(None), case.trace(Some(70)));
    let id = open(&mut chain, &case);
    let pick = IDisputes::pickCall { id, index: 0, value: B256::ZERO, siblings: Vec::new() };
    refused(call(&mut chain, CHALLENGER, pick.clone()), "it is the other side's turn");
    let root = division(&theirs, theirs.tree().root());
    let (nodes, data) = parts(&root);
    let good = IDisputes::rootCall { id, salt: SALT.into(), stateDigest: STATE.into(), nodes, data };
    refused(call(&mut chain, CHALLENGER, good.clone()), "the caller is not the worker's operator");
    let other = IDisputes::rootCall { stateDigest: B256::ZERO, ..good.clone() };
    refused(call(&mut chain, OPERATOR, other), "salt and state digest do not open the receipt's commitment");
    let mut short = good.clone();
    short.nodes.pop();
    let said = call(&mut chain, OPERATOR, short).map(|_| ()).expect_err("refused");
    assert!(said.starts_with("disputes: the node in dispute is divided into"), "{said}");
    let divide = IDisputes::divideCall { id, nodes: good.nodes.clone(), data: Bytes::new() };
    refused(call(&mut chain, OPERATOR, divide), "it is the turn of the worker's root");
    // The last second counts.
    let until = dispute(&chain, id).moveUntil;
    chain.wait(until - chain.header.timestamp_ms / 1_000);
    let header = chain.next_header();
    assert_eq!(header.timestamp_ms / 1_000, until);
    call(&mut chain, OPERATOR, good).expect("in time");
    refused(call(&mut chain, 8, pick.clone()), "the caller is not the challenger");
    let none = IDisputes::pickCall { index: 5_000, ..pick.clone() };
    let said = call(&mut chain, CHALLENGER, none).map(|_| ()).expect_err("refused");
    assert!(said.starts_with("disputes: the division has"), "{said}");
    let said = call(&mut chain, CHALLENGER, pick.clone()).map(|_| ()).expect_err("refused");
    assert!(said.starts_with("disputes: the path to the node has"), "{said}");
    let leaf = IDisputes::leafCall { id, papers: case.papers.clone(), leaf_: Bytes::new() };
    refused(call(&mut chain, CHALLENGER, leaf), "the node in dispute is not taken apart yet");
    chain.wait(chain.genesis.params.dispute_move_s + 1);
    let game::Answer::Pick { index, value, siblings } = game::answer(&ours, ours.tree().root(), &root) else {
        panic!("a pick");
    };
    let siblings = siblings.into_iter().map(B256::from).collect();
    let late = IDisputes::pickCall { id, index, value: value.into(), siblings };
    refused(call(&mut chain, CHALLENGER, late), "the time for this move is over");
    check_stakes(&chain);
}

/// A challenger that loses pays for the defence, gets nothing back, and has not acquitted anybody.
#[test]
fn a_silent_challenger_loses_its_bond_and_the_next_pays_twice_as_much() {
    let mut chain = served();
    let case = lie(&chain);
    let trace = case.trace(None);
    let id = open(&mut chain, &case);
    defend(&mut chain, id, &trace).expect("the root");
    chain.next_epoch();
    chain.wait(chain.genesis.params.dispute_move_s + 1);
    let lost = dispute(&chain, id);
    let (operator, before) = (chain.balance(address(OPERATOR)), forfeited(&chain));
    let challenger = chain.balance(address(CHALLENGER));
    time_out(&mut chain, id).expect("over");
    assert_eq!(dispute(&chain, id).state, 9);
    // Five moves of gas, and less than 2^30 words.
    let defence = U256::from(5 * 2_000_000 * GAS_PRICE + CREDIT / 100);
    assert_eq!(lost.defence, defence);
    assert_eq!(chain.balance(address(OPERATOR)), operator + defence);
    assert_eq!(chain.balance(address(CHALLENGER)), challenger);
    assert_eq!(forfeited(&chain), before + lost.bond - defence);
    assert_eq!(stake(&chain), credits(100), "nothing was shown of the operator");
    check_stakes(&chain);

    assert_eq!(case.bond(&chain), lost.bond * U256::from(2));
    let cheap = IDisputes::openCall { papers: case.papers.clone(), channel: Bytes::new(), salt: B256::ZERO };
    refused(
        chain.try_call(CHALLENGER, Module::Disputes, lost.bond, cheap),
        "the value sent is not the bond of this dispute",
    );
    let again = try_open(&mut chain, 8, &case).expect("another challenger");
    chain.wait(2 * chain.genesis.params.dispute_move_s);
    time_out(&mut chain, again).expect("over");
    assert_eq!(dispute(&chain, again).state, 4);
    let (order, worker) = case.ids();
    let answer = chain.view(Module::Disputes, IDisputes::answerOfCall { order, worker });
    assert_eq!((answer.id, answer.convicted, answer.lost), (again, true, 1));
    let found = chain.view(Module::Disputes, IDisputes::disputeOfCall { receipt: case.receipt_digest() });
    assert_eq!(found, again);
    let call = IDisputes::disputesOfCall { operator: address(OPERATOR), offset: 0 };
    assert_eq!(chain.view(Module::Disputes, call), [id, again]);
    check_stakes(&chain);
}

#[test]
fn a_trace_that_is_not_the_receipts_convicts() {
    for state in [false, true] {
        let mut chain = served();
        // The trace samples another second token, or ends in another state, than the receipt says.
        let case = lie(&chain);
        let mut honest = case.clone();
        honest.output[1] = 77;
        let trace = if state { case.trace(Some(0)) } else { honest.trace(None) };
        let id = open(&mut chain, &case);
        defend(&mut chain, id, &trace).expect("the root");
        let digest_at = case.layout.state_digest_at();
        let claim = |index: u32| IDisputes::claimOutputCall {
            id,
            papers: case.papers.clone(),
            index,
            trace: open_at(&trace, case.layout.sampled_at(index.into()), 1),
            ids: id_opening(domain::OUTPUT_IDS, &case.output, index),
        };
        let ended = IDisputes::claimStateCall {
            id,
            papers: case.papers.clone(),
            trace: open_at(&trace, digest_at, 8),
        };
        if state {
            call(&mut chain, CHALLENGER, ended).expect("another state");
        } else {
            refused(
                call(&mut chain, CHALLENGER, ended),
                "the trace has the state digest that the worker gave",
            );
            refused(call(&mut chain, CHALLENGER, claim(0)), "the receipt commits to what the trace samples");
            refused(call(&mut chain, 8, claim(1)), "the caller is not the challenger");
            let mut other = claim(1);
            other.ids = id_opening(domain::OUTPUT_IDS, &honest.output, 1);
            let said = call(&mut chain, CHALLENGER, other).map(|_| ()).expect_err("refused");
            assert!(said.starts_with("disputes: the ids are not the receipt's"), "{said}");
            let mut other = claim(1);
            other.trace = open_at(&case.trace(None), case.layout.sampled_at(1), 1);
            let said = call(&mut chain, CHALLENGER, other).map(|_| ()).expect_err("refused");
            assert!(said.starts_with("disputes: the chunks are not the trace's"), "{said}");
            call(&mut chain, CHALLENGER, claim(1)).expect("another token");
        }
        assert_eq!(dispute(&chain, id).state, 3);
        check_stakes(&chain);
    }
}

fn two(first: &Answered, second: &Answered) -> IDisputes::twoAnswersCall {
    IDisputes::twoAnswersCall {
        order: first.papers.order.clone(),
        first: first.papers.receipt.clone(),
        second: second.papers.receipt.clone(),
        channel: channel().to_cbor().into(),
        salt: ACCUSATION,
    }
}

#[test]
fn two_answers_to_one_order_convict_each_other() {
    let mut chain = served();
    let first = lie(&chain);
    let other = answered(&chain, |_, _, output| output[0] = 55);
    let again = answered(&chain, |_, receipt, _| receipt.done_ms += 1);
    let cut = answered(&chain, |_, receipt, output| {
        output.truncate(2);
        receipt.finish = FinishReason::Cancelled;
    });
    let shorter = answered(&chain, |_, receipt, output| {
        output.truncate(3);
        receipt.finish = FinishReason::Length;
    });
    refused(call(&mut chain, 8, two(&first, &again)), "the receipts do not contradict each other");
    // not even by contradicting each other.
    let told = [1, 2].map(|id| {
        answered(&chain, |_, receipt, output| (receipt.arithmetic, output[0]) = (NO_ARITHMETIC, id))
    });
    refused(call(&mut chain, 8, two(&told[0], &told[1])), BY_WORD);
    assert_eq!(stake(&chain), credits(100));
    refused(call(&mut chain, 8, two(&first, &cut)), "the receipts do not contradict each other");
    refused(call(&mut chain, 8, two(&first, &shorter)), "the receipts do not contradict each other");
    // While a dispute about one of them is under way.
    let id = open(&mut chain, &first);
    let found = call(&mut chain, 8, two(&first, &other)).expect("convicted");
    assert_eq!((dispute(&chain, found).state, dispute(&chain, found).challenger), (5, address(8)));
    assert_eq!(stake(&chain), credits(90));
    refused(call(&mut chain, 8, two(&first, &other)), "the answer is convicted");
    refused(
        defend(&mut chain, id, &first.trace(None)).map(|_| ()),
        "the answer was convicted by other evidence",
    );
    let before = chain.balance(address(CHALLENGER));
    time_out(&mut chain, id).expect("overtaken");
    assert_eq!(dispute(&chain, id).state, 10);
    assert_eq!(chain.balance(address(CHALLENGER)), before + U256::from(CREDIT));
    assert_eq!(stake(&chain), credits(90), "once");
    check_stakes(&chain);
}

#[test]
fn tokens_past_an_end_convict() {
    let mut chain = served();
    let case = answered(&chain, |_, _, output| *output = vec![100, END, 101, 102]);
    let past = |case: &Answered, index: u32| IDisputes::pastEndCall {
        papers: case.papers.clone(),
        index,
        ids: id_opening(domain::OUTPUT_IDS, &case.output, index),
        channel: Bytes::new(),
        salt: B256::ZERO,
    };
    refused(call(&mut chain, 8, past(&case, 0)), "the id 100 is as it should be");
    refused(call(&mut chain, 8, past(&case, 3)), "the opening does not show the id it must");
    let honest = lie(&chain);
    refused(call(&mut chain, 8, past(&honest, 3)), "the opening does not show the id it must");
    let mut elsewhere = past(&case, 1);
    elsewhere.ids.first = 1;
    assert!(call(&mut chain, 8, elsewhere).is_err());
    let asked = answered(&chain, |order, _, output| {
        order.ignore_end = true;
        *output = vec![100, END, 101, 102];
    });
    refused(call(&mut chain, 8, past(&asked, 1)), "the order or request allows it");

    let [payer, accuser] = [PAYER, 8].map(|who| chain.balance(address(who)));
    let id = call(&mut chain, 8, past(&case, 1)).expect("convicted");
    // Who has not committed has its costs, and no bounty; and whose channel is not shown waits.
    let costs = U256::from(2_000_000 * GAS_PRICE);
    assert_eq!(chain.balance(address(8)), accuser + costs - fee(&chain));
    assert_eq!(chain.balance(address(PAYER)), payer);
    let owed = case.paid() * U256::from(2);
    assert_eq!((dispute(&chain, id).state, dispute(&chain, id).owed), (6, owed));
    check_stakes(&chain);
    let mut foreign = channel();
    foreign.payer = address(9);
    let collect = |channel: Bytes| IDisputes::collectCall { id, channel };
    refused(call(&mut chain, 9, collect(foreign.to_cbor().into())), "the channel is not the order's");
    refused(call(&mut chain, 9, collect(Bytes::new())), "the order's channel is not shown");
    call(&mut chain, 9, collect(channel().to_cbor().into())).expect("collected");
    let gas = chain.last.as_ref().expect("a block").gas_used;
    assert!((COLLECT_GAS / 3..=COLLECT_GAS).contains(&gas), "{gas}");
    assert_eq!(chain.balance(address(PAYER)), payer + owed);
    refused(call(&mut chain, 9, collect(channel().to_cbor().into())), "nothing is owed");
    check_stakes(&chain);
}

/// Who copies an accusation can commit to it no earlier than in the same block.
#[test]
fn a_commitment_of_the_same_block_earns_no_bounty() {
    for earlier in [true, false] {
        let mut chain = served();
        let case = answered(&chain, |_, _, output| *output = vec![100, END, 101]);
        let (order, worker) = case.ids();
        let bytes =
            [address(8).as_slice(), order.as_slice(), worker.as_slice(), ACCUSATION.as_slice()].concat();
        let commit = IDisputes::commitCall { commitment: keccak256(bytes) }.abi_encode();
        let past = IDisputes::pastEndCall {
            papers: case.papers.clone(),
            index: 1,
            ids: id_opening(domain::OUTPUT_IDS, &case.output, 1),
            channel: channel().to_cbor().into(),
            salt: ACCUSATION,
        };
        let to = TxKind::Call(Module::Disputes.address());
        let nonce = chain.account(address(8)).nonce;
        let commit = chain.transaction(8, nonce, to, U256::ZERO, commit);
        let past = chain.transaction(8, nonce + 1, to, U256::ZERO, past.abi_encode());
        let executed = if earlier {
            chain.block(&[commit]);
            chain.block(&[past])
        } else {
            chain.block(&[commit, past])
        };
        let receipt = executed.receipts.last().expect("a receipt");
        assert!(receipt.envelope.status());
        let logs = receipt.envelope.logs();
        let convicted = logs.iter().find_map(|log| IDisputes::Convicted::decode_log(log).ok());
        let bounty = convicted.expect("an event").bounty;
        assert_eq!(bounty > U256::ZERO, earlier, "{bounty}");
        check_stakes(&chain);
    }
}

/// An operator that has nothing left is convicted all the same.
#[test]
fn who_has_nothing_left_loses_nothing_and_is_convicted() {
    let mut chain = served();
    let unbond = IStaking::unbondCall { operator: address(OPERATOR), amount: U256::MAX };
    chain.call(OPERATOR, Module::Staking, U256::ZERO, unbond);
    chain.wait(chain.genesis.params.unbonding_s);
    chain.block(&[]);
    let withdraw = IStaking::withdrawCall { operator: address(OPERATOR) };
    chain.call(OPERATOR, Module::Staking, U256::ZERO, withdraw);
    let case = lie(&chain);
    let id = open(&mut chain, &case);
    chain.wait(2 * chain.genesis.params.dispute_move_s);
    let challenger = chain.balance(address(CHALLENGER));
    time_out(&mut chain, id).expect("over");
    assert_eq!((dispute(&chain, id).state, dispute(&chain, id).owed), (4, U256::ZERO));
    assert_eq!(chain.balance(address(CHALLENGER)), challenger + U256::from(CREDIT), "the bond");
    check_stakes(&chain);
}

#[test]
fn a_stop_at_no_end_convicts() {
    let mut chain = served();
    let stop = |case: &Answered, request: &Request| {
        let ids = match case.output.len() as u32 {
            0 => id_opening(domain::PROMPT_IDS, &case.prompt, case.prompt.len() as u32 - 1),
            count => id_opening(domain::OUTPUT_IDS, &case.output, count - 1),
        };
        IDisputes::falseStopCall {
            papers: case.papers.clone(),
            request: request.to_cbor().into(),
            ids,
            channel: channel().to_cbor().into(),
            salt: B256::ZERO,
        }
    };
    let plain = request(Vec::new());
    let honest = lie(&chain);
    refused(call(&mut chain, 8, stop(&honest, &plain)), "the id 2 is as it should be");
    let stops = request(vec!["x".into()]);
    refused(call(&mut chain, 8, stop(&honest, &stops)), "the request is not the one that was ordered");
    let stopped = answered(&chain, |order, _, output| {
        order.request_digest = request(vec!["x".into()]).digest();
        output.pop();
    });
    refused(call(&mut chain, 8, stop(&stopped, &stops)), "the order or request allows it");
    let long = answered(&chain, |_, receipt, _| receipt.finish = FinishReason::Length);
    refused(call(&mut chain, 8, stop(&long, &plain)), "the receipt does not say that it stopped");

    let early = answered(&chain, |_, _, output| {
        output.pop();
    });
    let id = call(&mut chain, 8, stop(&early, &plain)).expect("convicted");
    assert_eq!(dispute(&chain, id).state, 7);
    let empty = answered(&chain, |order, _, output| {
        order.nonce = [1; 32];
        output.clear();
    });
    let id = call(&mut chain, 8, stop(&empty, &plain)).expect("convicted");
    assert_eq!((dispute(&chain, id).state, dispute(&chain, id).operator), (7, address(OPERATOR)));
    check_stakes(&chain);
}

#[test]
fn papers_of_something_else_open_nothing() {
    let mut chain = served();
    let case = lie(&chain);
    let bond = case.bond(&chain);
    let mut check = |change: &dyn Fn(&mut Papers), expected: &str| {
        let mut papers = case.papers.clone();
        change(&mut papers);
        let open = IDisputes::openCall { papers, channel: Bytes::new(), salt: B256::ZERO };
        let said = chain.try_call(CHALLENGER, Module::Disputes, bond, open).map(|_| ()).expect_err("refused");
        assert!(said.starts_with(&format!("disputes: {expected}")), "{said}");
    };
    let with = |change: fn(&mut Receipt)| -> Bytes {
        let mut receipt = case.receipt.clone();
        change(&mut receipt);
        signed(&receipt, &worker())
    };
    check(&|papers| papers.order = Bytes::new(), "not a COSE_Sign1 message");
    check(&|papers| papers.receipt = papers.order.clone(), "");
    check(&|papers| papers.receipt = with(|r| r.order.0[0] ^= 1), "the receipt is for another order");
    check(
        &|papers| papers.receipt = with(|r| r.seed[0] ^= 1),
        "the seed is not the one the order prescribes",
    );
    check(&|papers| papers.receipt = with(|r| r.charge.0 += 1), "the charge is not what the price says");
    check(&|papers| papers.receipt = with(|r| r.prompt_tokens = 1 << 20), "the charge is not what");
    check(
        &|papers| papers.receipt = with(|r| r.arithmetic = NO_ARITHMETIC),
        "the receipt claims no arithmetic: the answer is its worker's word",
    );
    check(&|papers| papers.manifest = manifest().to_cbor().into(), "the manifest is not the model's");
    let wrong = |papers: &mut Papers| {
        let mut plan = papers.plan.to_vec();
        // An end token.
        plan[52] ^= 1;
        papers.plan = plan.into();
    };
    check(&wrong, "the plan is not the model's");
    let failure = crate::testing::failure(&case.order);
    check(&|papers| papers.receipt = signed(&failure, &worker()), "a failure claims nothing about an answer");
    let foreign = Receipt { worker: secret(51).public(), ..case.receipt.clone() };
    check(&|papers| papers.receipt = signed(&foreign, &secret(51)), "the worker is no operator's");
    let mut foreign = channel();
    foreign.payer = address(9);
    let other = IDisputes::openCall {
        papers: case.papers.clone(),
        channel: foreign.to_cbor().into(),
        salt: B256::ZERO,
    };
    refused(chain.try_call(CHALLENGER, Module::Disputes, bond, other), "the channel is not the order's");

    let nowhere = answered(&chain, |order, _, _| order.channel = None);
    refused(try_open(&mut chain, 8, &nowhere), "the order names no channel");
    chain.wait(2 * 24 * 60 * 60 + 1);
    refused(try_open(&mut chain, 8, &case), "the receipt is too old to be disputed");
    check_stakes(&chain);
}

#[test]
fn a_challenger_has_a_bounded_number_of_disputes_open() {
    let mut chain = served();
    let cases: Vec<Answered> =
        (0..9).map(|nonce| answered(&chain, |order, _, _| order.nonce = [nonce; 32])).collect();
    for case in &cases[..8] {
        open(&mut chain, case);
    }
    refused(try_open(&mut chain, CHALLENGER, &cases[8]), "the challenger has too many disputes open");
    try_open(&mut chain, 8, &cases[8]).expect("someone else");
    chain.wait(2 * chain.genesis.params.dispute_move_s);
    time_out(&mut chain, 1).expect("over");
    let more = answered(&chain, |order, _, _| order.nonce = [99; 32]);
    open(&mut chain, &more);
    check_stakes(&chain);
}

/// A report is worth something if it comes before the accusation was committed to, once for an operator in a time, and where
/// a word of the trace is wrong.
#[test]
fn a_fault_that_was_reported_before_costs_less() {
    for (before, expected) in [(true, 2), (false, 10)] {
        let mut chain = served();
        let case = lie(&chain);
        let (_, key) = case.ids();
        let report = IDisputes::reportCall { worker: key, receipt: case.receipt_digest() };
        refused(call(&mut chain, 8, report.clone()), "the key is not the caller's");
        if before {
            call(&mut chain, OPERATOR, report.clone()).expect("reported");
            commit(&mut chain, CHALLENGER, &case);
        } else {
            commit(&mut chain, CHALLENGER, &case);
            call(&mut chain, OPERATOR, report.clone()).expect("reported");
        }
        let before_long = "a fault of this operator was reported not long ago";
        refused(call(&mut chain, OPERATOR, report), before_long);
        let reported = chain.view(Module::Disputes, IDisputes::reportOfCall { operator: address(OPERATOR) });
        assert_eq!(reported.receipt, case.receipt_digest());
        let window = chain.genesis.params.dispute_report_s;
        let latest = chain.header.timestamp_ms / 1_000 + window;
        assert!((latest - 2..=latest).contains(&reported.again), "{} {latest}", reported.again);
        let id = open(&mut chain, &case);
        let (lying, word) = case.false_sample();
        play(&mut chain, id, &case.trace(None), &lying);
        let leaf_call = leaf(&chain, id, &case, &lying, word);
        let payer = chain.balance(address(PAYER));
        let before = stake(&chain);
        assert!(call(&mut chain, CHALLENGER, leaf_call).expect("judged"));
        assert_eq!(stake(&chain), before - credits(expected));
        assert_eq!(chain.balance(address(PAYER)), payer + case.paid() * U256::from(2), "the refund is whole");
        check_stakes(&chain);
    }
}

/// Keys are cheap: another one reports nothing more, until the time is over.
#[test]
fn faults_are_reported_once_whatever_the_key() {
    let mut chain = served();
    let report = |byte: u8, worker: B256| IDisputes::reportCall { worker, receipt: B256::repeat_byte(byte) };
    let first = B256::from(worker().public().0);
    call(&mut chain, OPERATOR, report(1, first)).expect("reported");
    let (key, proof) = worker_proof(address(OPERATOR), &secret(51));
    let rotate = IOperators::rotateWorkerCall { retired: first, key, endpoint: "quic://b".into(), proof };
    chain.call(OPERATOR, Module::Operators, U256::ZERO, rotate);
    let not_yet = "a fault of this operator was reported not long ago";
    refused(call(&mut chain, OPERATOR, report(2, key)), not_yet);
    chain.wait(chain.genesis.params.dispute_report_s - 10);
    refused(call(&mut chain, OPERATOR, report(2, key)), not_yet);
    chain.wait(10);
    call(&mut chain, OPERATOR, report(2, key)).expect("reported");
}

/// A payer is made whole out of what the liar is not paid yet, where the stake does not reach; and the liar is not paid while
/// its workers are in jail.
#[test]
fn what_stake_does_not_refund_comes_out_of_what_is_unpaid() {
    let mut chain = Chain::with(|genesis| {
        (genesis.params.dispute_slash_bps, genesis.params.dispute_slash_max_bps) = (1, 1);
        genesis.params.dispute_refund_bps = 1_000_000;
    });
    serve(&mut chain);
    let case = lie(&chain);
    // A ten-thousandth of 100 credits is the advance and the penalty; 3.4 credits are a hundred times what it charged.
    let wanted = case.paid() * U256::from(100);
    let advance = credits(1) / U256::from(100);
    let config = channel().config();
    let typed = surety_types::ChannelDigests::new(chain.spec.chain_id);
    let voucher = {
        let digest = typed.voucher(typed.channel_id(&config), 5 * CREDIT);
        VoucherClaim {
            voucher: Voucher { channel: config, maxClaimableAmount: 5 * CREDIT },
            signature: signed_by(PAYER, &digest),
            totalClaimed: 5 * CREDIT,
        }
    };
    let claim = IChannels::claimCall { voucherClaims: vec![voucher] };
    chain.call(OPERATOR, Module::Channels, U256::ZERO, claim);
    let settle = || IChannels::settleCall { receiver: address(OPERATOR), token: Address::ZERO };
    chain.call(8, Module::Channels, U256::ZERO, settle());
    let unpaid = |chain: &Chain| {
        let call = IAudits::payOfCall { operator: address(OPERATOR) };
        chain.view(Module::Audits, call).unpaid
    };
    assert_eq!(unpaid(&chain), credits(5) - advance);
    let id = open(&mut chain, &case);
    chain.wait(2 * chain.genesis.params.dispute_move_s);
    let before = chain.balance(address(PAYER));
    time_out(&mut chain, id).expect("over");
    assert_eq!(chain.balance(address(PAYER)), before + wanted);
    assert_eq!(stake(&chain), credits(100) - advance);
    assert_eq!(unpaid(&chain), credits(5) - wanted);
    chain.call(8, Module::Channels, U256::ZERO, settle());
    assert_eq!(unpaid(&chain), credits(5) - wanted, "not while its workers are in jail");
    check_stakes(&chain);
}

/// Stake that begins to leave after the lie is taken from like the rest, and nobody else's is.
#[test]
fn what_is_leaving_answers_too() {
    let mut chain = served();
    chain.call(8, Module::Staking, credits(100), IStaking::delegateCall { operator: address(OPERATOR) });
    let case = lie(&chain);
    let unbond = IStaking::unbondCall { operator: address(OPERATOR), amount: credits(60) };
    chain.call(OPERATOR, Module::Staking, U256::ZERO, unbond);
    let id = open(&mut chain, &case);
    chain.wait(2 * chain.genesis.params.dispute_move_s);
    time_out(&mut chain, id).expect("over");
    // A tenth of 200 credits: 14 of the 140 that are bonded, 6 of the 60 that leave.
    assert_eq!(stake(&chain), credits(126));
    let leaving = IStaking::leavingCall { operator: address(OPERATOR) };
    assert_eq!(chain.view(Module::Staking, leaving), credits(54));
    check_stakes(&chain);
    chain.wait(chain.genesis.params.unbonding_s);
    let withdraw = IStaking::withdrawCall { operator: address(OPERATOR) };
    assert_eq!(chain.call(OPERATOR, Module::Staking, U256::ZERO, withdraw), credits(54));
    check_stakes(&chain);
}

/// The tariff covers the moves: whoever is paid by it has not paid more.
#[test]
fn a_move_costs_no_more_gas_than_the_tariff_says() {
    let mut chain = served();
    // Long enough for divisions of 1,024 nodes.
    let case = answered(&chain, |_, _, output| *output = (0..40).map(|index| 100 + index).collect());
    assert!(case.layout.words() >= 1_024 * 256, "{}", case.layout.words());
    let honest = case.trace(None);
    let (lying, word) = case.false_sample();
    let mut most = Vec::new();
    let mut note = |chain: &Chain, what: &'static str| {
        most.push((what, chain.last.as_ref().expect("a block").gas_used));
    };
    let id = open(&mut chain, &case);
    note(&chain, "open");
    while game_of(&chain, id).turn() != Turn::Leaf {
        let node = game_of(&chain, id).node();
        let division = defend(&mut chain, id, &lying).expect("a division");
        note(&chain, "division");
        if let game::Answer::Pick { index, value, siblings } = game::answer(&honest, node, &division) {
            let siblings = siblings.into_iter().map(B256::from).collect();
            let pick = IDisputes::pickCall { id, index, value: value.into(), siblings };
            call(&mut chain, CHALLENGER, pick).expect("a pick");
            note(&chain, "pick");
        }
    }
    let leaf_call = leaf(&chain, id, &case, &lying, word);
    call(&mut chain, CHALLENGER, leaf_call).expect("judged");
    note(&chain, "leaf");
    for (what, gas) in &most {
        assert!(*gas <= chain.genesis.params.dispute_move_gas, "{what} takes {gas}");
    }
    assert!(most.iter().any(|(_, gas)| *gas > 800_000), "a long division is among them: {most:?}");
}

/// Something that anyone may try.
#[derive(Debug, Clone)]
enum Step {
    Commit { who: u64, case: usize },
    Open { who: u64, case: usize },
    Defend { id: u64, honest: bool },
    Pick { who: u64, id: u64, index: u32 },
    Output { who: u64, id: u64, case: usize },
    TimeOut { id: u64 },
    Two { who: u64 },
    Report { case: usize },
    Unbond { amount: u64 },
    Withdraw,
    Bond { amount: u64 },
    Collect { id: u64 },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (who, case, id) = (7u64..10, 0usize..3, 1u64..5);
    prop_oneof![
        1 => (who.clone(), case.clone()).prop_map(|(who, case)| Step::Commit { who, case }),
        4 => (who.clone(), case.clone()).prop_map(|(who, case)| Step::Open { who, case }),
        3 => (id.clone(), any::<bool>()).prop_map(|(id, honest)| Step::Defend { id, honest }),
        2 => (who.clone(), id.clone(), 0u32..4).prop_map(|(who, id, index)| Step::Pick { who, id, index }),
        1 => (who.clone(), id.clone(), case.clone()).prop_map(|(who, id, case)| Step::Output { who, id, case }),
        3 => id.clone().prop_map(|id| Step::TimeOut { id }),
        1 => who.prop_map(|who| Step::Two { who }),
        1 => case.prop_map(|case| Step::Report { case }),
        1 => (1u64..40).prop_map(|amount| Step::Unbond { amount }),
        1 => Just(Step::Withdraw),
        1 => (1u64..40).prop_map(|amount| Step::Bond { amount }),
        1 => id.prop_map(|id| Step::Collect { id }),
        3 => (0u64..9_000).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]
    /// Whatever is tried in whatever order: no money appears or vanishes (every block is checked), the modules have what
    /// they owe, and no answer is convicted twice.
    #[test]
    fn whatever_is_played_money_is_conserved(steps in prop::collection::vec(step(), 1..40)) {
        let mut chain = Chain::with(|genesis| {
            let params = &mut genesis.params;
            (params.dispute_slash_bps, params.dispute_slash_max_bps) = (3_333, 7_777);
        });
        serve(&mut chain);
        let cases = [
            lie(&chain),
            answered(&chain, |_, _, output| output[0] = 55),
            answered(&chain, |order, _, _| order.nonce = [1; 32]),
        ];
        let traces = [cases[0].trace(None), cases[0].trace(Some(500))];
        for step in &steps {
            match *step {
                Step::Commit { who, case } => {
                    let (order, worker) = cases[case].ids();
                    let who_ = address(who);
                    let parts = [who_.as_slice(), order.as_slice(), worker.as_slice(), ACCUSATION.as_slice()];
                    let commitment = keccak256(parts.concat());
                    let _ = call(&mut chain, who, IDisputes::commitCall { commitment });
                }
                Step::Open { who, case } => {
                    let _ = try_open(&mut chain, who, &cases[case]);
                }
                Step::Defend { id, honest } => {
                    if dispute(&chain, id).state == 1 {
                        let _ = defend(&mut chain, id, &traces[usize::from(honest)]);
                    }
                }
                Step::Pick { who, id, index } => {
                    let root = traces[0].tree().root();
                    if let Division::Nodes(nodes) = division(&traces[0], root) {
                        let value = B256::from(nodes[index as usize]);
                        let siblings = vec![B256::ZERO; 10];
                        let _ = call(&mut chain, who, IDisputes::pickCall { id, index, value, siblings });
                    }
                }
                Step::Output { who, id, case } => {
                    let case = &cases[case];
                    let claim = IDisputes::claimOutputCall {
                        id,
                        papers: case.papers.clone(),
                        index: 0,
                        trace: open_at(&traces[0], case.layout.sampled_at(0), 1),
                        ids: id_opening(domain::OUTPUT_IDS, &case.output, 0),
                    };
                    let _ = call(&mut chain, who, claim);
                }
                Step::TimeOut { id } => {
                    let _ = time_out(&mut chain, id);
                }
                Step::Two { who } => {
                    let _ = call(&mut chain, who, two(&cases[0], &cases[1]));
                }
                Step::Report { case } => {
                    let (_, worker) = cases[case].ids();
                    let receipt = cases[case].receipt_digest();
                    let _ = call(&mut chain, OPERATOR, IDisputes::reportCall { worker, receipt });
                }
                Step::Unbond { amount } => {
                    let unbond = IStaking::unbondCall {
                        operator: address(OPERATOR),
                        amount: U256::from(amount) * U256::from(1_000_000_000_000_000_003u64),
                    };
                    let _ = chain.try_call(OPERATOR, Module::Staking, U256::ZERO, unbond);
                }
                Step::Withdraw => {
                    let withdraw = IStaking::withdrawCall { operator: address(OPERATOR) };
                    let _ = chain.try_call(OPERATOR, Module::Staking, U256::ZERO, withdraw);
                }
                Step::Bond { amount } => {
                    let _ = chain.try_call(OPERATOR, Module::Staking, credits(amount), IStaking::bondCall {});
                }
                Step::Collect { id } => {
                    let collect = IDisputes::collectCall { id, channel: channel().to_cbor().into() };
                    let _ = call(&mut chain, 9, collect);
                }
                Step::Wait { seconds } => chain.wait(seconds),
            }
        }
        check_stakes(&chain);
        let count = chain.view(Module::Disputes, IDisputes::disputeCountCall {});
        let mut convicted = Vec::new();
        for id in 1..=count {
            let dispute = dispute(&chain, id);
            if (2..=7).contains(&dispute.state) {
                convicted.push((dispute.order, dispute.worker));
            }
        }
        convicted.sort();
        let all = convicted.len();
        convicted.dedup();
        prop_assert_eq!(convicted.len(), all, "an answer is convicted once");
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Random bytes in every argument: refused by name, and nothing moves.
    #[test]
    fn garbage_is_refused(
        bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 6),
        word in any::<[u8; 32]>(),
        number in any::<u64>(),
        damage in any::<prop::sample::Index>(),
        which in 0usize..5,
    ) {
        let mut chain = served();
        let case = lie(&chain);
        let garbage = Papers {
            order: bytes[0].clone().into(),
            receipt: bytes[1].clone().into(),
            manifest: bytes[2].clone().into(),
            plan: bytes[3].clone().into(),
            planSiblings: bytes[4].clone().into(),
        };
        let mut damaged = case.papers.clone();
        let part = match which {
            0 => &mut damaged.order,
            1 => &mut damaged.receipt,
            2 => &mut damaged.manifest,
            3 => &mut damaged.plan,
            _ => &mut damaged.planSiblings,
        };
        let mut changed = part.to_vec();
        let at = damage.index(changed.len() * 8);
        changed[at / 8] ^= 1 << (at % 8);
        *part = changed.into();
        let bond = case.bond(&chain);
        let before = chain.view(Module::Disputes, IDisputes::disputeCountCall {});
        for papers in [garbage, damaged] {
            let (channel, salt) = (Bytes::from(bytes[5].clone()), B256::from(word));
            let open = IDisputes::openCall { papers: papers.clone(), channel: channel.clone(), salt };
            prop_assert!(chain.try_call(CHALLENGER, Module::Disputes, bond, open).is_err());
            let ids = Opening { first: number, data: channel.clone(), siblings: channel.clone() };
            let past = IDisputes::pastEndCall {
                papers: papers.clone(),
                index: number as u32,
                ids: ids.clone(),
                channel: channel.clone(),
                salt,
            };
            prop_assert!(call(&mut chain, 8, past).is_err());
            let stop = IDisputes::falseStopCall { papers: papers.clone(), request: channel.clone(), ids, channel, salt };
            prop_assert!(call(&mut chain, 8, stop).is_err());
        }
        // And in a dispute that is under way.
        let id = open(&mut chain, &case);
        let root = IDisputes::rootCall {
            id,
            salt: word.into(),
            stateDigest: word.into(),
            nodes: vec![word.into(); (number % 2_000) as usize],
            data: bytes[0].clone().into(),
        };
        prop_assert!(call(&mut chain, OPERATOR, root).is_err());
        defend(&mut chain, id, &case.trace(None)).expect("the root");
        let siblings = vec![word.into(); (number % 40) as usize];
        let pick = IDisputes::pickCall { id, index: number as u32, value: word.into(), siblings };
        prop_assert!(call(&mut chain, CHALLENGER, pick).is_err());
        prop_assert_eq!(chain.view(Module::Disputes, IDisputes::disputeCountCall {}), before + 1);
        check_stakes(&chain);
    }
}

/// A claim about a text that shows the first kilobytes of everything.
fn text_claim(case: &Answered, trace: &Hashed<Vec<u8>>, text: &str, fault: TextFault) -> TextClaim {
    let derived = |domain: &str, bytes: Vec<u8>| {
        Hashed::new(Tree::derived(domain, bytes.len() as u64).expect("short"), bytes)
    };
    let ids = case.output.iter().flat_map(|id| id.to_le_bytes()).collect();
    let strings = [
        (Source::Trace, trace.clone()),
        (Source::Output, derived(domain::OUTPUT_IDS, ids)),
        (Source::Spelling, derived(domain::SPELLING, spelling().to_bytes())),
        (Source::Text, derived(domain::OUTPUT_TEXT, text.into())),
    ];
    let shown = strings.into_iter().map(|(source, string)| {
        let root = string.tree().root();
        Shown { source, opening: string.open(root, Node { first: 0, chunks: root.chunks.min(6) }) }
    });
    TextClaim { bytes: text.len() as u64, fault, shown: shown.collect() }
}

#[test]
fn a_text_that_is_not_what_the_outputs_spell_convicts() {
    let right = "t100 t101 t102 ";
    for (sent, fault) in [
        ("t100 t901 t102 ", TextFault::Byte { at: 6, output: 1 }),
        ("t100 t101 t102 t103 ", TextFault::Long),
        ("t100 t101 ", TextFault::Short { outputs: Vec::new() }),
    ] {
        let mut chain = served();
        let case = answered(&chain, |_, receipt, _| {
            (receipt.text_digest, receipt.finish) = (text_digest(sent), FinishReason::Stop);
        });
        let trace = case.trace(None);
        let id = open(&mut chain, &case);
        let claim = |text: &str, fault: TextFault| IDisputes::claimTextCall {
            id,
            papers: case.papers.clone(),
            request: request(Vec::new()).to_cbor().into(),
            claim: text_claim(&case, &trace, text, fault).to_cbor().into(),
        };
        refused(call(&mut chain, CHALLENGER, claim(sent, fault.clone())), "it is the other side's turn");
        defend(&mut chain, id, &trace).expect("a root");
        let other = claim(right, fault.clone());
        let said = call(&mut chain, CHALLENGER, other).expect_err("refused");
        assert!(said.starts_with("disputes: the claim shows nothing: an opening of the text"), "{said}");
        let other = claim(sent, TextFault::Byte { at: 0, output: 0 });
        refused(call(&mut chain, CHALLENGER, other), "the claim shows nothing: it is as it should be");
        let mut other = claim(sent, fault.clone());
        other.request = request(vec!["t1".into()]).to_cbor().into();
        refused(call(&mut chain, CHALLENGER, other), "the request is not the one that was ordered");
        let before = stake(&chain);
        call(&mut chain, CHALLENGER, claim(sent, fault)).expect("convicted");
        assert_eq!((dispute(&chain, id).state, dispute(&chain, id).turn), (3, 0));
        assert_eq!(stake(&chain), before - credits(10));
        check_stakes(&chain);
    }
}

#[test]
fn a_text_as_it_should_be_is_claimed_in_vain() {
    let mut chain = served();
    let sent = "t100 t101 t102 ";
    let case = answered(&chain, |_, receipt, _| {
        (receipt.text_digest, receipt.finish) = (text_digest(sent), FinishReason::Stop);
    });
    let trace = case.trace(None);
    let id = open(&mut chain, &case);
    defend(&mut chain, id, &trace).expect("a root");
    for fault in [
        TextFault::Byte { at: 6, output: 1 },
        TextFault::Byte { at: 14, output: 4 },
        TextFault::Long,
        TextFault::Short { outputs: vec![0, 1, 2, 3, 4] },
        TextFault::Stop { at: 0, stop: 0 },
    ] {
        let claim = IDisputes::claimTextCall {
            id,
            papers: case.papers.clone(),
            request: request(Vec::new()).to_cbor().into(),
            claim: text_claim(&case, &trace, sent, fault).to_cbor().into(),
        };
        refused(call(&mut chain, CHALLENGER, claim), "the claim shows nothing: it is as it should be");
    }
}

fn open_asking(chain: &mut Chain, case: &Answered) -> u64 {
    let channel = channel().to_cbor().into();
    let open = IDisputes::openAskingCall { papers: case.papers.clone(), channel, salt: ACCUSATION };
    let bond = case.bond(chain);
    chain.try_call(CHALLENGER, Module::Disputes, bond, open).expect("opened")
}

fn show_ids(case: &Answered, id: u64, ids: &[u32]) -> IDisputes::showIdsCall {
    let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    IDisputes::showIdsCall { id, papers: case.papers.clone(), ids: ids.into() }
}

fn prompt_claim(
    case: &Answered,
    id: u64,
    request: Vec<u8>,
    fault: PromptFault,
) -> IDisputes::claimPromptCall {
    let (papers, template) = (case.papers.clone(), Bytes::new());
    let claim = PromptClaim { fault, steps: 0, shown: Vec::new() }.to_cbor().into();
    IDisputes::claimPromptCall { id, papers, request: request.into(), template, claim }
}

#[test]
fn a_worker_shows_the_ids_it_is_asked_for_and_is_convicted_by_them() {
    let mut chain = served();
    let case = lie(&chain);
    let trace = case.trace(None);
    let id = open_asking(&mut chain, &case);
    assert_eq!((dispute(&chain, id).state, dispute(&chain, id).turn), (1, 5));
    refused(defend(&mut chain, id, &trace), "the prompt's ids are to be shown first");
    let right = show_ids(&case, id, &case.prompt);
    refused(call(&mut chain, CHALLENGER, right.clone()), "the caller is not the worker's operator");
    for other in [&case.prompt[1..], &[&case.prompt[..], &[0]].concat(), &[]] {
        let other = show_ids(&case, id, other);
        refused(call(&mut chain, OPERATOR, other), "the ids are not those that the receipt commits to");
    }
    call(&mut chain, OPERATOR, right.clone()).expect("shown");
    assert_eq!(dispute(&chain, id).turn, 1);
    refused(call(&mut chain, OPERATOR, right), "no ids are asked for");

    // The request is one id; the worker gave thirty.
    let asked = request(Vec::new()).to_cbor();
    let claim = prompt_claim(&case, id, asked.clone(), PromptFault::Length);
    refused(call(&mut chain, CHALLENGER, claim.clone()), "it is the other side's turn");
    defend(&mut chain, id, &trace).expect("a root");
    let long = prompt_claim(&case, id, vec![0; (32 << 10) + 1], PromptFault::Length);
    refused(call(&mut chain, CHALLENGER, long), "request and template are longer than what is judged");
    let other = prompt_claim(&case, id, vec![0; 100], PromptFault::Length);
    refused(call(&mut chain, CHALLENGER, other), "the request is not the one that was ordered");
    let other = IDisputes::claimPromptCall { template: Bytes::from_static(b"{{ x }}"), ..claim.clone() };
    refused(call(&mut chain, CHALLENGER, other), "the template is not the model's");
    let bare = prompt_claim(&case, id, asked, PromptFault::Id { index: 0 });
    let said = call(&mut chain, CHALLENGER, bare).expect_err("refused");
    assert!(said.starts_with("disputes: the claim shows nothing: it cannot be computed"), "{said}");
    let before = stake(&chain);
    call(&mut chain, CHALLENGER, claim).expect("convicted");
    assert_eq!((dispute(&chain, id).state, dispute(&chain, id).turn), (3, 0));
    assert_eq!(stake(&chain), before - credits(10));
    check_stakes(&chain);
}

#[test]
fn a_worker_that_does_not_show_its_ids_has_lost() {
    let mut chain = served();
    let case = lie(&chain);
    let id = open_asking(&mut chain, &case);
    refused(time_out(&mut chain, id), "the time for the next move is not over");
    chain.wait(chain.genesis.params.dispute_move_s + 1);
    time_out(&mut chain, id).expect("over");
    assert_eq!(dispute(&chain, id).state, 4);
}

#[test]
fn a_prompt_as_it_should_be_is_claimed_in_vain() {
    let mut chain = served();
    let asked = |ids: &[u32]| Request { prompt: Prompt::Tokens(ids.to_vec()), ..request(Vec::new()) };
    let prompt: Vec<u32> = (10..40).collect();
    let case = answered(&chain, |order, _, _| order.request_digest = asked(&prompt).digest());
    assert_eq!(case.prompt, prompt);
    let trace = case.trace(None);
    let id = open(&mut chain, &case);
    refused(call(&mut chain, OPERATOR, show_ids(&case, id, &prompt)), "no ids are asked for");
    defend(&mut chain, id, &trace).expect("a root");
    for fault in [PromptFault::Length, PromptFault::Id { index: 30 }] {
        let claim = prompt_claim(&case, id, asked(&prompt).to_cbor(), fault);
        refused(call(&mut chain, CHALLENGER, claim), "the claim shows nothing: it is as it should be");
    }
    check_stakes(&chain);
}
