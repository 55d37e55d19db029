//! The tokens of a model as a tree of their bytes, and which of them a state permits (G-7).
//!
//! In:     what each token spells; states of a grammar.
//! Out:    masks.
//! Holds:  a mask is a function of grammar, state and vocabulary; it is never empty where a state lives and the vocabulary
//!         has the grammar's bytes one by one.
//! Absent: keeping masks for later (`engine`).

use std::collections::BTreeMap;

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
        let mut steps = Steps::new(grammar);
        // By depth: where the walk stands.
        let mut places = vec![steps.place(state.clone()); self.depth_max + 1];
        let mut at = 0;
        while let Some(node) = self.nodes.get(at) {
            let depth = usize::from(node.depth);
            if steps.states.len() >= STATES_MAX {
                steps.begin_anew(&mut places[..depth]);
            }
            let place = steps.after(places[depth - 1], node.byte);
            if place == DEAD {
                at = node.skip as usize;
                continue;
            }
            places[depth] = place;
            let end = self.nodes.get(at + 1).map_or(self.tokens.len(), |next| next.tokens as usize);
            self.tokens[node.tokens as usize..end].iter().for_each(|token| mask.set(*token));
            at += 1;
        }
        mask
    }
}

/// A state, by its number in a walk.
type Place = u16;
/// The dead state.
const DEAD: Place = Place::MAX;
/// Not known yet.
const UNKNOWN: Place = Place::MAX - 1;
/// States that one walk knows at once, at most.
const STATES_MAX: usize = 1 << 12;

const _: () = assert!(STATES_MAX > TOKEN_BYTES_MAX + 1, "a walk's own path is known");
const _: () = assert!(STATES_MAX < UNKNOWN as usize, "every state has a number");

/// The steps of a walk: most tokens take a few states around and around, and each of those a byte the same way every time.
struct Steps<'a> {
    grammar: &'a Grammar,
    states: Vec<State>,
    places: BTreeMap<State, Place>,
    /// By place: where each byte leads.
    rows: Vec<[Place; 256]>,
}

impl<'a> Steps<'a> {
    fn new(grammar: &'a Grammar) -> Self {
        Self { grammar, states: Vec::new(), places: BTreeMap::new(), rows: Vec::new() }
    }

    fn place(&mut self, state: State) -> Place {
        if state.is_dead() {
            return DEAD;
        }
        if let Some(place) = self.places.get(&state) {
            return *place;
        }
        let place = self.states.len() as Place;
        self.places.insert(state.clone(), place);
        self.states.push(state);
        self.rows.push([UNKNOWN; 256]);
        place
    }

    /// Where one more byte leads.
    fn after(&mut self, from: Place, byte: u8) -> Place {
        let Some(row) = self.rows.get(usize::from(from)) else { return DEAD };
        let known = row[usize::from(byte)];
        if known != UNKNOWN {
            return known;
        }
        let to = self.place(self.grammar.advance(&self.states[usize::from(from)], byte));
        self.rows[usize::from(from)][usize::from(byte)] = to;
        to
    }

    /// Forgets all states but those of a path, which get new numbers.
    fn begin_anew(&mut self, path: &mut [Place]) {
        let states: Vec<State> = path.iter().map(|place| self.states[usize::from(*place)].clone()).collect();
        *self = Self::new(self.grammar);
        for (place, state) in path.iter_mut().zip(states) {
            *place = self.place(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::json_schema;

    #[test]
    fn a_walk_of_more_states_than_it_knows_at_once_comes_to_the_same() {
        let words: Vec<String> = (0..1_300).map(|number| format!("\"{:05x}", number * 799)).collect();
        let listed: Vec<String> = words.iter().map(|word| format!("{word}\"")).collect();
        let schema = json_schema(&format!(r#"{{"enum":[{}]}}"#, listed.join(","))).expect("a schema");
        let grammar = Grammar::compile(&schema).expect("a grammar");
        let known = |end: usize| words.iter().map(|word| &word[..end]).collect::<BTreeSet<_>>().len();
        assert!((1..=6).map(known).sum::<usize>() > STATES_MAX, "each beginning of a word is a state");
        let mut pieces = listed;
        pieces.extend(words.iter().flat_map(|word| [format!("{word}!"), word[..4].to_owned()]));
        let vocabulary = Vocabulary::new(pieces.iter().map(|piece| Some(piece.as_bytes())));
        let mask = vocabulary.mask(&grammar, &grammar.start());
        for (token, piece) in (0..).zip(&pieces) {
            let may = !grammar.advance_all(&grammar.start(), piece.as_bytes()).is_dead();
            assert_eq!(mask.permits(token), may, "{piece}");
            assert_eq!(may, !piece.ends_with('!'), "{piece}");
        }
    }
}
