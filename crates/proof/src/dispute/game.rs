//! The game: two sides and one trace, down to the bytes in which theirs differ.
//!
//! In:     the worker's divisions, the challenger's picks.
//! Out:    the node in dispute, the nodes before it that both hold to be the same, whose turn it is.
//! Touches: nothing.
//! Holds:  a division has the value of the node it divides; a pick is one of its nodes; so whatever both sides do, the nodes
//!         agreed and the node in dispute are of the one trace the worker named first. A game is over after four
//!         divisions.
//! Absent: the last move, which is the judge's (`judge`); deadlines (`chain`).
//!
//! Rules: D-5.

use surety_types::digest::domain;

use super::layout::CHUNK_WORDS;
use super::opening::{Hashed, Node, Opening, OpeningError, Tree, Value};

/// Levels of the tree that a division goes down (D-5.2).
pub const DIVISION_DEPTH: u32 = 10;
/// A node of so many chunks or less is divided into its bytes (D-5.2).
pub const BYTES_CHUNKS_MAX: u64 = 8;
/// Words of the longest trace (D-3.11).
pub const TRACE_WORDS_MAX: u64 = 1 << 41;

const BYTES_MAX: usize = 1 + 8 + 32 + 8 + 8 + 32 + 1 + 32 * AGREED_MAX;
/// Nodes left of a path, at most.
const AGREED_MAX: usize = 3 * DIVISION_DEPTH as usize;

/// Why a move is refused. It changes nothing, and the mover's time goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// It is not this move's turn.
    #[error("it is the turn of {0}")]
    Turn(Turn),
    /// A division of another shape.
    #[error("the node in dispute is divided into {0}")]
    Shape(Shape),
    /// A division of other bytes than the node's.
    #[error("the division does not make the value of the node in dispute")]
    Value,
    /// There is no such node in the division.
    #[error("the division has {0} nodes")]
    NoSuchNode(u32),
    /// There are more or fewer values beside the path.
    #[error("the path to the node has {0} values beside it")]
    Path(u32),
}

/// Whose move is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The worker's first division, which gives the trace's digest.
    Root,
    /// The challenger's choice of a node.
    Pick,
    /// The worker's division of the node in dispute.
    Divide,
    /// The challenger's leaf.
    Leaf,
}

impl std::fmt::Display for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Turn::Root => "the worker's first division",
            Turn::Pick => "the challenger's pick",
            Turn::Divide => "the worker's division",
            Turn::Leaf => "the challenger's leaf",
        })
    }
}

/// What a node is divided into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// So many nodes.
    Nodes(u32),
    /// So many bytes.
    Bytes(usize),
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Shape::Nodes(count) => write!(f, "{count} nodes"),
            Shape::Bytes(count) => write!(f, "{count} bytes"),
        }
    }
}

/// A node, taken apart (D-5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Division {
    /// Values of the nodes below it, in order.
    Nodes(Vec<Value>),
    /// Its bytes.
    Bytes(Vec<u8>),
}

/// The state of a game; the ledger keeps it as [`Game::to_bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Game {
    tree: Tree,
    turn: Turn,
    digest: Value,
    node: Node,
    value: Value,
    /// Values of the greatest nodes left of the node in dispute, in order.
    agreed: Vec<Value>,
}

impl Game {
    /// Before the first division of a trace of so many words. `None` if there are none, or more than are disputed.
    pub fn new(words: u64) -> Option<Game> {
        if !(1..=TRACE_WORDS_MAX).contains(&words) {
            return None;
        }
        let tree = Tree::derived(domain::TRACE, 4 * words)?;
        let node = tree.root();
        Some(Game { tree, turn: Turn::Root, digest: [0; 32], node, value: [0; 32], agreed: Vec::new() })
    }

    /// Whose move is next.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// The tree of the trace.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The digest of the worker's trace; none before its first division.
    pub fn digest(&self) -> Option<&Value> {
        (self.turn != Turn::Root).then_some(&self.digest)
    }

    /// The node in dispute.
    pub fn node(&self) -> Node {
        self.node
    }

    /// The nodes before the node in dispute, in order, with their values: both sides hold them to be the same.
    pub fn agreed(&self) -> Vec<(Node, Value)> {
        let nodes = left_of(self.tree.root(), self.node).unwrap_or_default();
        nodes.into_iter().zip(self.agreed.iter().copied()).collect()
    }

    /// What the node in dispute must be divided into.
    pub fn shape(&self) -> Shape {
        shape(&self.tree, self.node)
    }

    /// The worker divides the node in dispute (D-5.2, D-5.4).
    ///
    /// # Errors
    /// `MoveError` if it is not its turn, or the division is not one of this node.
    pub fn divide(&mut self, division: &Division) -> Result<(), MoveError> {
        if !matches!(self.turn, Turn::Root | Turn::Divide) {
            return Err(MoveError::Turn(self.turn));
        }
        let value = division_value(&self.tree, self.node, division)?;
        if self.turn == Turn::Root {
            self.digest = value;
            self.value = value;
        }
        if value != self.value {
            return Err(MoveError::Value);
        }
        self.turn = match division {
            Division::Nodes(_) => Turn::Pick,
            Division::Bytes(_) => Turn::Leaf,
        };
        Ok(())
    }

    /// Whether a division is of the node in dispute: whoever tells it need not be believed.
    pub fn is_of_node(&self, division: &Division) -> bool {
        self.turn != Turn::Root
            && division_value(&self.tree, self.node, division).is_ok_and(|value| value == self.value)
    }

    /// The challenger picks node `index` of the last division (D-5.3). `siblings` are the values beside the path to it,
    /// from above.
    ///
    /// # Errors
    /// `MoveError` if it is not its turn, or the division has no such node of that value.
    pub fn pick(&mut self, index: u32, value: &Value, siblings: &[Value]) -> Result<(), MoveError> {
        if self.turn != Turn::Pick {
            return Err(MoveError::Turn(self.turn));
        }
        let path = path_to(self.node, index).ok_or(MoveError::NoSuchNode(nodes_below(self.node)))?;
        if siblings.len() != path.len() {
            return Err(MoveError::Path(path.len() as u32));
        }
        let found = path.iter().zip(siblings).rev().fold(*value, |value, (step, sibling)| {
            let (left, right) = if step.right { (sibling, &value) } else { (&value, sibling) };
            self.tree.join(step.parent, left, right)
        });
        if found != self.value {
            return Err(MoveError::Value);
        }
        self.agreed.extend(path.iter().zip(siblings).filter(|(step, _)| step.right).map(|(_, value)| *value));
        self.node = path.last().map_or(self.node, |step| step.child);
        self.value = *value;
        self.turn = Turn::Divide;
        Ok(())
    }

    /// The nodes that openings of the trace are checked against: those agreed, and the node in dispute once its bytes are known.
    pub fn known(&self) -> Vec<(Node, Value)> {
        let mut known = self.agreed();
        known.extend((self.turn == Turn::Leaf).then_some((self.node, self.value)));
        known
    }

    /// Checks an opening of the trace: below agreed nodes, or of the node in dispute once its bytes are known (D-5.5).
    ///
    /// # Errors
    /// `OpeningError` if it proves nothing.
    pub fn check(&self, opening: &Opening) -> Result<(), OpeningError> {
        self.tree.check_below(&self.known(), opening)
    }

    /// Checks an opening against the digest of the worker's trace (D-5.6).
    ///
    /// # Errors
    /// `OpeningError` if it proves nothing, or there is no digest yet.
    pub fn check_whole(&self, opening: &Opening) -> Result<(), OpeningError> {
        self.tree.check(self.digest().ok_or(OpeningError::Value)?, opening)
    }

    /// Everything, in at most 1,050 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let turn = match self.turn {
            Turn::Root => 0,
            Turn::Pick => 1,
            Turn::Divide => 2,
            Turn::Leaf => 3,
        };
        let mut bytes = vec![turn];
        bytes.extend(self.tree.bytes().to_le_bytes());
        bytes.extend(self.digest);
        bytes.extend(self.node.first.to_le_bytes());
        bytes.extend(self.node.chunks.to_le_bytes());
        bytes.extend(self.value);
        bytes.push(self.agreed.len() as u8);
        bytes.extend(self.agreed.iter().flatten());
        bytes
    }

    /// From [`Game::to_bytes`]. `None` if they are no game's.
    pub fn from_bytes(bytes: &[u8]) -> Option<Game> {
        if bytes.len() > BYTES_MAX {
            return None;
        }
        let mut rest = bytes;
        let [turn] = take::<1>(&mut rest)?;
        let turn = match turn {
            0 => Turn::Root,
            1 => Turn::Pick,
            2 => Turn::Divide,
            3 => Turn::Leaf,
            _ => return None,
        };
        let length = u64::from_le_bytes(take(&mut rest)?);
        let game = Game::new(length / 4).filter(|_| length.is_multiple_of(4))?;
        let digest = take(&mut rest)?;
        let first = u64::from_le_bytes(take(&mut rest)?);
        let chunks = u64::from_le_bytes(take(&mut rest)?);
        let node = Node { first, chunks };
        let value = take(&mut rest)?;
        let [count] = take::<1>(&mut rest)?;
        let (agreed, rest) = rest.as_chunks::<32>();
        let counted = left_of(game.tree.root(), node)?.len();
        let fits = rest.is_empty() && agreed.len() == usize::from(count) && agreed.len() == counted;
        fits.then(|| Game { turn, digest, node, value, agreed: agreed.to_vec(), ..game })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// The division of a node of a trace that is at hand.
pub fn division<B: AsRef<[u8]>>(trace: &Hashed<B>, node: Node) -> Division {
    match shape(trace.tree(), node) {
        Shape::Bytes(_) => Division::Bytes(trace.bytes_below(node).to_vec()),
        Shape::Nodes(count) => {
            let nodes = (0..count).filter_map(|index| path_to(node, index)?.last().map(|step| step.child));
            Division::Nodes(nodes.map(|node| trace.value(node)).collect())
        }
    }
}

/// What a challenger whose own trace is at hand answers to a division.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing differs.
    Same,
    /// The first node that differs, for [`Game::pick`].
    Pick {
        /// Which.
        index: u32,
        /// The worker's value.
        value: Value,
        /// The worker's values beside the path.
        siblings: Vec<Value>,
    },
    /// The first word that differs, by its index in the trace.
    Word(u64),
}

/// Compares a division of the node in dispute, which the game has taken, with one's own trace.
///
/// Panics if it is not a division of that node, or the traces are of different lengths.
pub fn answer<B: AsRef<[u8]>>(trace: &Hashed<B>, node: Node, theirs: &Division) -> Answer {
    let tree = trace.tree();
    match (theirs, division(trace, node)) {
        (Division::Bytes(theirs), Division::Bytes(ours)) => {
            assert_eq!(theirs.len(), ours.len(), "divisions of one node");
            let differs = |(a, b): (&[u8], &[u8])| a != b;
            match theirs.chunks(4).zip(ours.chunks(4)).position(differs) {
                Some(word) => Answer::Word(node.first * CHUNK_WORDS + word as u64),
                None => Answer::Same,
            }
        }
        (Division::Nodes(theirs), Division::Nodes(ours)) => {
            assert_eq!(theirs.len(), ours.len(), "divisions of one node");
            let Some(index) = theirs.iter().zip(&ours).position(|(a, b)| a != b) else { return Answer::Same };
            let mut values = theirs.as_slice();
            let mut siblings = Vec::new();
            for step in path_to(node, index as u32).unwrap_or_default() {
                let count = nodes_at(step.left, step.depth) as usize;
                let (left, right) = values.split_at(count);
                let (own, beside) = if step.right { (right, left) } else { (left, right) };
                let other = step.other();
                siblings.push(nodes_value(tree, other, step.depth, beside));
                values = own;
            }
            Answer::Pick { index: index as u32, value: theirs[index], siblings }
        }
        _ => panic!("divisions of one node have one shape"),
    }
}

fn shape(tree: &Tree, node: Node) -> Shape {
    match node.chunks <= BYTES_CHUNKS_MAX {
        true => Shape::Bytes(tree.bytes_below(node)),
        false => Shape::Nodes(nodes_below(node)),
    }
}

/// Nodes of a division.
fn nodes_below(node: Node) -> u32 {
    nodes_at(node, DIVISION_DEPTH)
}

/// How many nodes there are `depth` below a node, or above that where they are chunks.
fn nodes_at(node: Node, depth: u32) -> u32 {
    match node.children().filter(|_| depth > 0) {
        None => 1,
        // A left child is full.
        Some((left, right)) => {
            let full = left.chunks.min(1 << (depth - 1)) as u32;
            full + nodes_at(right, depth - 1)
        }
    }
}

/// One step down.
#[derive(Clone, Copy, Debug)]
struct Step {
    parent: Node,
    left: Node,
    child: Node,
    /// To the right child.
    right: bool,
    /// How far down the division goes below the child.
    depth: u32,
}

impl Step {
    fn other(&self) -> Node {
        match self.right {
            true => self.left,
            false => Node { first: self.child.end(), chunks: self.parent.chunks - self.child.chunks },
        }
    }
}

/// The path from a node to one of its division.
fn path_to(node: Node, index: u32) -> Option<Vec<Step>> {
    if index >= nodes_below(node) {
        return None;
    }
    let (mut parent, mut index, mut depth) = (node, index, DIVISION_DEPTH);
    let mut path = Vec::with_capacity(DIVISION_DEPTH as usize);
    while let Some((left, right)) = parent.children().filter(|_| depth > 0) {
        depth -= 1;
        let count = nodes_at(left, depth);
        let goes_right = index >= count;
        if goes_right {
            index -= count;
        }
        let child = if goes_right { right } else { left };
        path.push(Step { parent, left, child, right: goes_right, depth });
        parent = child;
    }
    Some(path)
}

/// The greatest nodes below `root` that lie left of `node`, in order; `None` if it is no node below it.
fn left_of(root: Node, node: Node) -> Option<Vec<Node>> {
    let mut nodes = Vec::new();
    let mut parent = root;
    while parent != node {
        let (left, right) = parent.children()?;
        parent = if node.first < right.first { left } else { right };
        if parent == right {
            nodes.push(left);
        }
    }
    Some(nodes)
}

fn division_value(tree: &Tree, node: Node, division: &Division) -> Result<Value, MoveError> {
    let shape = shape(tree, node);
    match division {
        Division::Bytes(bytes) if shape == Shape::Bytes(bytes.len()) => Ok(tree.value(node, bytes)),
        Division::Nodes(values) if shape == Shape::Nodes(values.len() as u32) => {
            Ok(nodes_value(tree, node, DIVISION_DEPTH, values))
        }
        _ => Err(MoveError::Shape(shape)),
    }
}

/// The value of a node from those of the nodes `depth` below it, of which there are as many as there must be.
fn nodes_value(tree: &Tree, node: Node, depth: u32, values: &[Value]) -> Value {
    match node.children().filter(|_| depth > 0) {
        None => values[0],
        Some((left, right)) => {
            let (first, second) = values.split_at(nodes_at(left, depth - 1) as usize);
            let first = nodes_value(tree, left, depth - 1, first);
            let second = nodes_value(tree, right, depth - 1, second);
            tree.join(node, &first, &second)
        }
    }
}

#[cfg(test)]
mod tests;
