//! Disputes about traces that are too long to be made: only the chunks that a leaf shows are there, the rest is values.
//!
//! A tree's digest follows from a few chunks and the values beside them; what would be below those values nobody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use surety_grammar::{Grammar, json_object};
use surety_proof::dispute::game::{BYTES_CHUNKS_MAX, DIVISION_DEPTH};
use surety_proof::dispute::judge::{Digests, Leaf, LeafError, Shown, Statement, Verdict, judge};
use surety_proof::dispute::layout::Coordinate;
use surety_proof::dispute::opening::{CHUNK_BYTES, Node, Nodes, Tree, Value};
use surety_proof::dispute::plan::{PlanHeader, SpellingEntry};
use surety_proof::dispute::rules::{Inputs, RuleError, Rules, Source};
use surety_proof::dispute::{Division, Game, Turn};
use surety_types::digest::domain;
use surety_types::spelling::PIECE_BYTES_MAX;
use surety_types::{Canonical, Digest};

use crate::real::Answer;
use crate::rng::Rng;

const SOURCES: [Source; 7] = [
    Source::Trace,
    Source::Plan,
    Source::File,
    Source::Rotary,
    Source::Given,
    Source::Output,
    Source::Spelling,
];

/// What the words of a trace, file or table are that nobody computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filler {
    /// From −1 to 1.
    Floats,
    /// So small that processors are slow with them.
    Subnormals,
}

/// A string of which some chunks are there.
struct Sparse {
    tree: Tree,
    chunks: BTreeMap<u64, Vec<u8>>,
    /// The chunk that is disputed, of the trace: what holds it is divided on the way there.
    disputed: Option<u64>,
}

impl Sparse {
    /// How far below a node its division goes, if it is divided; else `depth`, how far one goes that began above it.
    fn depth(&self, node: Node, depth: u32) -> u32 {
        let is_divided = node.chunks > BYTES_CHUNKS_MAX && self.disputed.is_some_and(|own| holds(node, own));
        if depth == 0 && is_divided { DIVISION_DEPTH } else { depth }
    }

    /// The value of a node. Where nothing of it is there it is anything, but as divisions give it down to `depth`.
    fn value(&self, node: Node, depth: u32) -> Value {
        let depth = self.depth(node, depth);
        let children = node.children();
        if (depth == 0 || children.is_none()) && self.chunks.range(node.first..node.end()).next().is_none() {
            let place = [node.first.to_le_bytes(), node.chunks.to_le_bytes()].concat();
            return *blake3::hash(&place).as_bytes();
        }
        let below = depth.saturating_sub(1);
        match children {
            Some((left, right)) => self.tree.join(node, &self.value(left, below), &self.value(right, below)),
            None => self.tree.value(node, &self.chunks[&node.first]),
        }
    }

    fn bytes_below(&self, node: Node) -> Vec<u8> {
        (node.first..node.end()).flat_map(|chunk| self.chunks[&chunk].clone()).collect()
    }

    fn division(&self, node: Node) -> Division {
        if node.chunks <= BYTES_CHUNKS_MAX {
            return Division::Bytes(self.bytes_below(node));
        }
        let nodes = nodes_below(node, DIVISION_DEPTH);
        Division::Nodes(nodes.into_iter().map(|node| self.value(node, 0)).collect())
    }
}

/// A string as it is opened against nodes below which values go as [`Sparse::value`] gives them with this depth.
struct Known<'a> {
    string: &'a Sparse,
    below: Vec<(Node, u32)>,
}

impl Nodes for Known<'_> {
    fn value(&self, node: Node) -> Option<Value> {
        let (mut above, mut depth) = *self.below.iter().find(|(above, _)| holds(*above, node.first))?;
        while above != node {
            let (left, right) = above.children()?;
            depth = self.string.depth(above, depth).saturating_sub(1);
            above = if node.end() <= left.end() { left } else { right };
        }
        Some(self.string.value(node, depth))
    }

    fn bytes(&self, node: Node) -> Option<&[u8]> {
        // Chunks are asked for one by one.
        self.string.chunks.get(&node.first).filter(|_| node.chunks == 1).map(Vec::as_slice)
    }
}

/// The nodes of a division, in order.
fn nodes_below(node: Node, depth: u32) -> Vec<Node> {
    match node.children().filter(|_| depth > 0) {
        None => vec![node],
        Some((left, right)) => [nodes_below(left, depth - 1), nodes_below(right, depth - 1)].concat(),
    }
}

fn holds(node: Node, chunk: u64) -> bool {
    (node.first..node.end()).contains(&chunk)
}

/// Strings that come about as they are read.
struct Growing<'a> {
    statement: &'a Statement,
    plan: &'a [u8],
    filler: Filler,
    rng: Rng,
    chunks: BTreeMap<(Source, u64), Vec<u8>>,
}

impl Growing<'_> {
    fn tree(&self, source: Source) -> Tree {
        let words = self.statement.layout().words();
        self.statement.tree(source).unwrap_or_else(|| Tree::derived(domain::TRACE, 4 * words).expect("short"))
    }

    fn chunk(&mut self, source: Source, chunk: u64) -> &[u8] {
        let length = self.tree(source).bytes_below(Node { first: chunk, chunks: 1 });
        let (rng, filler, plan) = (&mut self.rng, self.filler, self.plan);
        let vocabulary = u64::from(self.statement.rules().header().vocabulary);
        self.chunks.entry((source, chunk)).or_insert_with(|| match source {
            Source::Plan => plan[(chunk * CHUNK_BYTES) as usize..][..length].to_vec(),
            Source::Given | Source::Output => {
                (0..length / 4).flat_map(|_| (rng.below(vocabulary) as u32).to_le_bytes()).collect()
            }
            // Every id spells as much as can be, and whatever there is.
            Source::Spelling if CHUNK_BYTES * chunk < 4 * vocabulary => {
                let first = CHUNK_BYTES / 4 * chunk;
                let ends = (first..first + length as u64 / 4).map(|id| (id + 1) * PIECE_BYTES_MAX as u64);
                ends.flat_map(|end| (end as u32).to_le_bytes()).collect()
            }
            Source::Trace | Source::File | Source::Rotary | Source::Spelling => {
                let mut bytes = Vec::with_capacity(length + 4);
                while bytes.len() < length {
                    let word = rng.even().to_bits();
                    bytes.extend(match filler {
                        Filler::Floats => word.to_le_bytes(),
                        Filler::Subnormals => (word & 0x807f_ffff).to_le_bytes(),
                    });
                }
                bytes.truncate(length);
                bytes
            }
            Source::Text => unreachable!("no rule reads it"),
        })
    }
}

impl Inputs for Growing<'_> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        for (at, byte) in (at..).zip(out) {
            *byte = self.chunk(source, at / CHUNK_BYTES)[(at % CHUNK_BYTES) as usize];
        }
        Ok(())
    }

    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        Ok(Arc::new(Grammar::compile_or_nothing(&json_object())))
    }
}

/// A game that has come down to a word, with the leaf for it.
pub struct Last {
    rules: Rules,
    digests: Digests,
    pub game: Game,
    pub leaf: Leaf,
    /// Messages of the dispute, with the one that opens it and the leaf (D-5.7).
    pub messages: usize,
}

impl Last {
    /// The verdict, by all that the ledger does for it: from the leaf's bytes and the game's.
    pub fn judged(&self, leaf: &[u8], game: &[u8]) -> Result<Verdict, LeafError> {
        let leaf = Leaf::from_cbor(leaf).expect("canonical");
        let game = Game::from_bytes(game).expect("a game");
        let statement = Statement::of(self.rules.clone(), self.digests).expect("the same trees");
        judge(&statement, &game, &leaf)
    }
}

/// Plays about one word of an answer: a worker that says what its rule gives, but for the bits in `change`.
///
/// `plan` is the model's, whole; `seed` names everything else.
pub fn play(
    answer: &Answer,
    plan: &[u8],
    coordinate: &Coordinate,
    part: u64,
    change: u32,
    filler: Filler,
    seed: u64,
) -> Last {
    let statement = &answer.statement();
    let layout = statement.layout();
    let word = layout.word(coordinate) + part;
    let own = word / (CHUNK_BYTES / 4);
    let chunks = BTreeMap::new();
    let mut growing = Growing { statement, plan, filler, rng: Rng(seed), chunks };
    let computed = statement.rules().compute(coordinate, &mut growing).expect("everything grows");
    growing.chunk(Source::Trace, own);
    let shown: Vec<(Source, u64)> = growing.chunks.keys().copied().collect();
    // The worker divides the last node into its bytes.
    let mut last = growing.tree(Source::Trace).root();
    while last.chunks > BYTES_CHUNKS_MAX {
        let below = nodes_below(last, DIVISION_DEPTH);
        last = below.into_iter().find(|node| holds(*node, own)).expect("a division is the whole node");
    }
    for chunk in last.first..last.end() {
        growing.chunk(Source::Trace, chunk);
    }
    let claimed = computed[part as usize] ^ change;
    let at = (4 * word % CHUNK_BYTES) as usize;
    growing.chunks.get_mut(&(Source::Trace, own)).expect("it grew")[at..at + 4]
        .copy_from_slice(&claimed.to_le_bytes());
    let sparse = |source| {
        let disputed = (source == Source::Trace).then_some(own);
        (source, Sparse { tree: growing.tree(source), chunks: BTreeMap::new(), disputed })
    };
    let mut strings: BTreeMap<Source, Sparse> = SOURCES.map(sparse).into();
    for ((source, chunk), bytes) in growing.chunks {
        strings.get_mut(&source).expect("every source").chunks.insert(chunk, bytes);
    }
    let digest = |source| Digest(strings[&source].value(strings[&source].tree.root(), 0));
    let digests = Digests {
        plan: digest(Source::Plan),
        file: digest(Source::File),
        file_bytes: strings[&Source::File].tree.bytes(),
        rotary: digest(Source::Rotary),
        given: digest(Source::Given),
        output: digest(Source::Output),
        text: Digest::ZERO,
    };
    let spelling = SpellingEntry { digest: digest(Source::Spelling), ..answer.header.spelling };
    let header = PlanHeader { spelling, ..answer.header.clone() };
    let rules = Answer { header, sampling: answer.sampling.clone(), ids: answer.ids }.rules();
    let trace = &strings[&Source::Trace];
    let mut game = Game::new(layout.words()).expect("a trace");
    // It opens, and ends with a leaf.
    let (mut messages, mut nodes) = (2, Vec::new());
    while game.turn() != Turn::Leaf {
        let node = game.node();
        game.divide(&trace.division(node)).expect("the worker's turn");
        messages += 1;
        if game.turn() == Turn::Pick {
            let below = nodes_below(node, DIVISION_DEPTH);
            let index = below.iter().position(|node| holds(*node, own)).expect("a division is the node");
            let (mut parent, mut depth, mut siblings) = (node, DIVISION_DEPTH, Vec::new());
            while parent != below[index] {
                let (left, right) = parent.children().expect("above the node");
                let (child, other) = if holds(left, own) { (left, right) } else { (right, left) };
                depth -= 1;
                siblings.push(trace.value(other, depth));
                nodes.push((other, depth));
                parent = child;
            }
            game.pick(index as u32, &trace.value(below[index], 0), &siblings).expect("the challenger's turn");
            messages += 1;
        }
    }
    nodes.push((game.node(), 0));
    nodes.sort_by_key(|(node, _)| node.first);
    let mut chunks: BTreeMap<Source, Vec<u64>> = BTreeMap::new();
    shown.into_iter().for_each(|(source, chunk)| chunks.entry(source).or_default().push(chunk));
    let open = |(source, chunks): (Source, Vec<u64>)| {
        let string = &strings[&source];
        let below = match source {
            Source::Trace => nodes.clone(),
            _ => vec![(string.tree.root(), 0)],
        };
        let known = Known { string, below };
        let opening = string.tree.open(known.below.iter().map(|(node, _)| *node), &chunks, &known);
        Shown { source, opening: opening.expect("below known nodes") }
    };
    let leaf = Leaf { word, shown: chunks.into_iter().map(open).collect(), grammar: Some(json_object()) };
    Last { rules, digests, game, leaf, messages }
}
