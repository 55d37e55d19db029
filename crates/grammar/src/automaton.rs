//! The automaton: where an answer stands in its grammar (G-6).
//!
//! In:     bytes of an answer, in order.
//! Out:    whether they may come, whether the answer may end; the state as words for a trace.
//! Holds:  a state that took a byte can be completed; a state has at most eight threads of at most 31 calls, so a step is
//!         bounded; words that are no state are the dead state.
//! Absent: tokens (`vocabulary`).

use crate::GrammarError;
use crate::compile::{STATES_MAX, Way};
use crate::schema;
use crate::source::Source;

/// Calls within each other, at most.
pub(crate) const CALLS_MAX: usize = 31;
/// Ways to read the same bytes, at most; of more the first are kept.
const THREADS_MAX: usize = 8;
/// Words of a state in a trace.
pub const STATE_WORDS: usize = THREADS_MAX * THREAD_IDS / 2;
/// Ids of a thread: its own state and those it returns to.
const THREAD_IDS: usize = CALLS_MAX + 1;
/// No state.
pub(crate) const NONE: u16 = u16::MAX;
/// Of a state from which a rule never ends.
const NEVER: u8 = u8::MAX;

const _: () = assert!(STATES_MAX < NONE as usize, "every state has an id");

/// One way to read the bytes so far: the state in the rule at hand, then the states to return to, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Thread {
    ids: [u16; THREAD_IDS],
}

impl Thread {
    fn state(&self) -> u16 {
        self.ids[0]
    }

    fn calls(&self) -> usize {
        self.ids[1..].iter().position(|id| *id == NONE).unwrap_or(CALLS_MAX)
    }

    fn at(mut self, state: u16) -> Thread {
        self.ids[0] = state;
        self
    }
}

/// Where an answer stands. The default is dead: nothing may come, and nothing is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// In order, without duplicates.
    pub(crate) threads: Vec<Thread>,
}

impl State {
    /// Whether the bytes so far keep to no grammar.
    pub fn is_dead(&self) -> bool {
        self.threads.is_empty()
    }

    /// The words of a trace (G-8).
    pub fn to_words(&self) -> [u32; STATE_WORDS] {
        let mut ids = [NONE; 2 * STATE_WORDS];
        for (thread, ids) in self.threads.iter().zip(ids.chunks_exact_mut(THREAD_IDS)) {
            ids.copy_from_slice(&thread.ids);
        }
        let mut words = [0; STATE_WORDS];
        for (word, pair) in words.iter_mut().zip(ids.chunks_exact(2)) {
            *word = u32::from(pair[0]) | u32::from(pair[1]) << 16;
        }
        words
    }
}

/// An automaton over bytes.
#[derive(Clone, Debug)]
pub struct Grammar {
    /// [states][256]: the state after a byte in the same rule.
    next: Vec<u16>,
    /// By state: the rules that may be called here, by their first state, and the state after.
    calls: Vec<Vec<(u16, u16)>>,
    /// By state: the rule may end here.
    ends: Vec<bool>,
    /// By state: calls that are needed within each other until the rule ends, at least.
    need: Vec<u8>,
    /// Bytes that some state takes.
    bytes: [bool; 256],
}

impl Grammar {
    /// The automaton of a grammar as a request carries it (G-2).
    ///
    /// # Errors
    /// `GrammarError` if it is none, or too large a one.
    pub fn compile(text: &str) -> Result<Grammar, GrammarError> {
        let ways = schema::rules(&Source::parse(text)?)?.determine()?;
        let need = need(&ways);
        if need[0] == NEVER {
            return Err(GrammarError::Endless(CALLS_MAX));
        }
        let lives = |state: usize| need[state] != NEVER;
        let mut next = vec![NONE; 256 * ways.len()];
        let mut bytes = [false; 256];
        let mut calls = Vec::with_capacity(ways.len());
        for (state, way) in ways.iter().enumerate() {
            for (low, high, to) in way.bytes.iter().filter(|(_, _, to)| lives(state) && lives(*to)) {
                for byte in usize::from(*low)..=usize::from(*high) {
                    next[256 * state + byte] = *to as u16;
                    bytes[byte] = true;
                }
            }
            let own = way.calls.iter().filter(|(callee, to)| lives(state) && lives(*callee) && lives(*to));
            calls.push(own.map(|(callee, to)| (*callee as u16, *to as u16)).collect());
        }
        Ok(Grammar { next, calls, ends: ways.iter().map(|way| way.end).collect(), need, bytes })
    }

    /// The automaton of a text, or if that is no grammar one that nothing keeps to (G-9).
    pub fn compile_or_nothing(text: &str) -> Grammar {
        Grammar::compile(text).unwrap_or_else(|_| Grammar {
            next: Vec::new(),
            calls: Vec::new(),
            ends: Vec::new(),
            need: Vec::new(),
            bytes: [false; 256],
        })
    }

    /// The state before the first byte.
    pub fn start(&self) -> State {
        if self.ends.is_empty() {
            return State::default();
        }
        let mut ids = [NONE; THREAD_IDS];
        ids[0] = 0;
        State { threads: vec![Thread { ids }] }
    }

    /// The state after one more byte; dead if it may not come.
    pub fn advance(&self, state: &State, byte: u8) -> State {
        let mut threads = Vec::new();
        for thread in &state.threads {
            self.step(thread, thread.calls(), byte, &mut threads);
        }
        threads.sort_unstable();
        threads.dedup();
        threads.truncate(THREADS_MAX);
        State { threads }
    }

    /// The state after some more bytes.
    pub fn advance_all(&self, state: &State, bytes: &[u8]) -> State {
        let mut state = state.clone();
        for byte in bytes {
            if state.is_dead() {
                break;
            }
            state = self.advance(&state, *byte);
        }
        state
    }

    /// Whether a byte may come.
    pub fn allows(&self, state: &State, byte: u8) -> bool {
        !self.advance(state, byte).is_dead()
    }

    /// Whether the answer may end here.
    pub fn is_complete(&self, state: &State) -> bool {
        state.threads.iter().any(|thread| {
            let calls = thread.calls();
            thread.ids[..=calls].iter().all(|id| self.ends[usize::from(*id)])
        })
    }

    /// The state that words of a trace say; dead if they say none.
    pub fn state_of(&self, words: &[u32]) -> State {
        let ids: Vec<u16> = words.iter().flat_map(|word| [*word as u16, (*word >> 16) as u16]).collect();
        let mut threads = Vec::new();
        for ids in ids.chunks_exact(THREAD_IDS) {
            let Ok(ids) = <[u16; THREAD_IDS]>::try_from(ids) else { continue };
            let thread = Thread { ids };
            let known = ids[..=thread.calls()].iter().all(|id| usize::from(*id) < self.ends.len());
            if known {
                threads.push(thread);
            }
        }
        let state = State { threads };
        if state.to_words() == words { state } else { State::default() }
    }

    /// Bytes that some state takes.
    pub(crate) fn bytes(&self) -> &[bool; 256] {
        &self.bytes
    }

    /// Whether a rule at a state can still end within the bound, so many calls deep.
    fn fits(&self, calls: usize, state: u16) -> bool {
        calls + usize::from(self.need[usize::from(state)]) <= CALLS_MAX
    }

    /// The threads after one more byte.
    fn step(&self, thread: &Thread, calls: usize, byte: u8, out: &mut Vec<Thread>) {
        let at = usize::from(thread.state());
        let next = self.next[256 * at + usize::from(byte)];
        if next != NONE && self.fits(calls, next) {
            out.push(thread.at(next));
        }
        for (callee, to) in &self.calls[at] {
            if calls < CALLS_MAX && self.fits(calls + 1, *callee) && self.fits(calls, *to) {
                let mut called = thread.at(*callee);
                called.ids[calls + 1] = *to;
                self.step(&called, calls + 1, byte, out);
            }
        }
        if self.ends[at] && calls > 0 {
            let mut returned = thread.at(thread.ids[calls]);
            returned.ids[calls] = NONE;
            self.step(&returned, calls - 1, byte, out);
        }
    }
}

/// By state: calls that are needed within each other until its rule ends, at least.
fn need(ways: &[Way]) -> Vec<u8> {
    // Ways backwards: from where they lead, where they come from, and what they call.
    let mut back: Vec<Vec<(usize, Option<usize>)>> = vec![Vec::new(); ways.len()];
    for (state, way) in ways.iter().enumerate() {
        way.bytes.iter().for_each(|(_, _, to)| back[*to].push((state, None)));
        way.calls.iter().for_each(|(callee, to)| back[*to].push((state, Some(*callee))));
    }
    let mut need = vec![NEVER; ways.len()];
    for level in 0..=CALLS_MAX as u8 {
        let before = need.clone();
        let mut queue: Vec<usize> =
            (0..ways.len()).filter(|state| ways[*state].end || need[*state] != NEVER).collect();
        queue.iter().for_each(|state| need[*state] = need[*state].min(level));
        while let Some(to) = queue.pop() {
            for (from, callee) in &back[to] {
                // A call goes one deeper than what it needs itself, which is known from the levels before.
                let open = callee.is_none_or(|callee| before[callee] < level);
                if need[*from] == NEVER && open {
                    need[*from] = level;
                    queue.push(*from);
                }
            }
        }
    }
    need
}
