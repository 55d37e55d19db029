//! The tokens of a model as a tree of their bytes, and which of them a state permits (G-7).
//!
//! In:     what each token spells; states of a grammar.
//! Out:    masks.
//! Holds:  a mask is a function of grammar, state and vocabulary; it is never empty where a state lives and the vocabulary
//!         has the grammar's bytes one by one.
//! Absent: keeping masks for later (`engine`).

use crate::automaton::{Grammar, State};

/// Bytes of a token, at most; longer ones are never permitted.
const TOKEN_BYTES_MAX: usize = 1 << 10;

/// A byte that a grammar needs, and no token spells alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no token of the model spells the byte {0:#04x} alone")]
pub struct MissingByte(pub u8);

/// The tokens that may come next, by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    bits: Vec<u64>,
}

impl Mask {
    /// Whether a token may come.
    pub fn permits(&self, token: u32) -> bool {
        self.bits.get(token as usize / 64).is_some_and(|bits| bits >> (token % 64) & 1 == 1)
    }

    /// How many tokens may come.
    pub fn count(&self) -> u32 {
        self.bits.iter().map(|bits| bits.count_ones()).sum()
    }

    fn set(&mut self, token: u32) {
        self.bits[token as usize / 64] |= 1 << (token % 64);
    }
}

/// A node of the tree, in the order of a walk that goes down first.
#[derive(Clone, Copy, Debug)]
struct Node {
    byte: u8,
    /// From 1.
    depth: u16,
    /// The node after all that are under this one.
    skip: u32,
    /// Where its tokens begin; they end where those of the next node do.
    tokens: u32,
}

/// What the tokens of a model spell.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    nodes: Vec<Node>,
    tokens: Vec<u32>,
    ends: Vec<u32>,
    size: usize,
    depth_max: usize,
    single: [bool; 256],
}

impl Vocabulary {
    /// Of the bytes that each token adds to a text, in the order of ids; `None` of those that end an answer. A token that adds
    /// nothing is never permitted.
    pub fn new<'a>(tokens: impl IntoIterator<Item = Option<&'a [u8]>>) -> Vocabulary {
        let mut spelled: Vec<(&[u8], u32)> = Vec::new();
        let mut ends = Vec::new();
        let mut single = [false; 256];
        let mut size = 0;
        for (id, bytes) in (0..).zip(tokens) {
            size += 1;
            match bytes {
                None => ends.push(id),
                // No spelling that is judged has a longer piece.
                Some(bytes) if bytes.is_empty() || bytes.len() > TOKEN_BYTES_MAX => {}
                Some(bytes) => spelled.push((bytes, id)),
            }
            if let Some([byte]) = bytes {
                single[usize::from(*byte)] = true;
            }
        }
        spelled.sort_unstable();
        let mut nodes: Vec<Node> = Vec::new();
        // The nodes above the next one, from the root on.
        let mut open: Vec<usize> = Vec::new();
        let mut before: &[u8] = &[];
        let mut order = Vec::with_capacity(spelled.len());
        for (bytes, id) in spelled {
            let shared = bytes.iter().zip(before).take_while(|(own, other)| own == other).count();
            for node in open.drain(shared.min(open.len())..) {
                nodes[node].skip = nodes.len() as u32;
            }
            for (depth, byte) in bytes.iter().enumerate().skip(shared) {
                open.push(nodes.len());
                nodes.push(Node {
                    byte: *byte,
                    depth: depth as u16 + 1,
                    skip: 0,
                    tokens: order.len() as u32,
                });
            }
            order.push(id);
            before = bytes;
        }
        for node in open {
            nodes[node].skip = nodes.len() as u32;
        }
        let depth_max = nodes.iter().map(|node| usize::from(node.depth)).max().unwrap_or(0);
        Vocabulary { nodes, tokens: order, ends, size, depth_max, single }
    }

    /// Whether every byte of a grammar is spelled by a token alone: only then there is always one that may come.
    ///
    /// # Errors
    /// `MissingByte` names the first that is not.
    pub fn check(&self, grammar: &Grammar) -> Result<(), MissingByte> {
        let missing = (0..=u8::MAX)
            .find(|byte| grammar.bytes()[usize::from(*byte)] && !self.single[usize::from(*byte)]);
        missing.map_or(Ok(()), |byte| Err(MissingByte(byte)))
    }

    /// Whether some token ends an answer.
    pub fn has_end(&self) -> bool {
        !self.ends.is_empty()
    }

    /// The tokens that a state permits (G-7).
    pub fn mask(&self, grammar: &Grammar, state: &State) -> Mask {
        let mut mask = Mask { bits: vec![0; self.size.div_ceil(64)] };
        if state.is_dead() || grammar.is_complete(state) {
            self.ends.iter().for_each(|token| mask.set(*token));
        }
        // By depth: where the walk stands. A place is a state, of which one thread may have gone on by itself since.
        let mut states = vec![state.clone()];
        let mut places = vec![Place::new(&states, 0); self.depth_max + 1];
        let mut at = 0;
        while let Some(node) = self.nodes.get(at) {
            let depth = usize::from(node.depth);
            let before = places[depth - 1];
            states.truncate(before.base + 1);
            let plain = before.alone.and_then(|(own, calls)| {
                grammar.plain(own, node.byte, usize::from(calls)).map(|next| (next, calls))
            });
            let place = match plain {
                Some(alone) => Place { base: before.base, alone: Some(alone) },
                None => {
                    let base = &states[before.base];
                    let after = match before.alone {
                        Some((own, _)) => {
                            let threads = base.threads.iter().map(|thread| thread.at(own)).collect();
                            grammar.advance(&State { threads }, node.byte)
                        }
                        None => grammar.advance(base, node.byte),
                    };
                    if after.is_dead() {
                        at = node.skip as usize;
                        continue;
                    }
                    states.push(after);
                    Place::new(&states, states.len() - 1)
                }
            };
            places[depth] = place;
            let end = self.nodes.get(at + 1).map_or(self.tokens.len(), |next| next.tokens as usize);
            self.tokens[node.tokens as usize..end].iter().for_each(|token| mask.set(*token));
            at += 1;
        }
        mask
    }
}

/// Where a walk stands.
#[derive(Clone, Copy)]
struct Place {
    /// Which of the states kept.
    base: usize,
    /// If it has one thread: the state that this is in by now, and its calls.
    alone: Option<(u16, u8)>,
}

impl Place {
    fn new(states: &[State], base: usize) -> Place {
        let alone = match &states[base].threads[..] {
            [thread] => Some((thread.state(), thread.calls() as u8)),
            _ => None,
        };
        Place { base, alone }
    }
}
