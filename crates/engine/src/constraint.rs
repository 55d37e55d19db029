//! An answer's grammar as it is sampled: where the answer stands, and which tokens may come (A-8.1, G-7).
//!
//! In:     a grammar, the tokens of the answer.
//! Out:    logits without the tokens that may not come.
//! Touches: the logits, in place.
//! Holds:  the mask is a function of grammar and tokens, whoever produced them; a few masks are kept, which changes nothing.
//! Absent: the automaton and the tree of tokens (`surety_grammar`); the draw (`sampler`).

use std::collections::BTreeMap;
use std::sync::Arc;

use surety_grammar::{Grammar, GrammarError, Mask, MissingByte, State};
use surety_types::request::MAX_GRAMMAR_BYTES;

use crate::tokenizer::Tokenizer;

/// Masks of one answer that are kept, at most.
const MASKS_MAX: usize = 64;

const _: () = assert!(MAX_GRAMMAR_BYTES == surety_grammar::GRAMMAR_BYTES_MAX, "what is sent can be compiled");

/// Why a model cannot answer in a grammar.
#[derive(Debug, thiserror::Error)]
pub enum ConstraintError {
    /// It is none.
    #[error("the answer's grammar cannot be used")]
    Grammar(#[from] GrammarError),
    /// There might be a place where no token could come.
    #[error("the model cannot spell what the grammar asks for")]
    Byte(#[from] MissingByte),
    /// An answer that is whole could not end.
    #[error("the model has no token that ends an answer, so none can be held to a grammar")]
    NoEnd,
}

/// The automaton of a grammar that a model can keep to.
///
/// # Errors
/// `ConstraintError` says why it cannot.
pub fn constraint(grammar: &str, tokenizer: &Tokenizer) -> Result<Arc<Grammar>, ConstraintError> {
    let grammar = Grammar::compile(grammar)?;
    let vocabulary = tokenizer.constrainable();
    vocabulary.check(&grammar)?;
    if vocabulary.has_end() { Ok(Arc::new(grammar)) } else { Err(ConstraintError::NoEnd) }
}

/// Where an answer stands after some tokens (G-6); dead if they do not keep to the grammar.
pub fn state_after(grammar: &Grammar, tokenizer: &Tokenizer, tokens: &[u32]) -> State {
    tokens.iter().fold(grammar.start(), |state, token| after(grammar, tokenizer, &state, *token))
}

/// The state after one more token: one that ends an answer, or adds nothing to its text, changes nothing.
fn after(grammar: &Grammar, tokenizer: &Tokenizer, state: &State, token: u32) -> State {
    match tokenizer.is_end_of_generation(token) {
        true => state.clone(),
        false => grammar.advance_all(state, tokenizer.text_bytes(token)),
    }
}

/// The grammar of one answer in the making.
pub(crate) struct Constraint {
    grammar: Arc<Grammar>,
    state: State,
    masks: BTreeMap<State, Mask>,
}

impl Constraint {
    pub(crate) fn new(grammar: Arc<Grammar>) -> Self {
        Self { state: grammar.start(), grammar, masks: BTreeMap::new() }
    }

    /// Takes a token in.
    pub(crate) fn push(&mut self, token: u32, tokenizer: &Tokenizer) {
        self.state = after(&self.grammar, tokenizer, &self.state, token);
    }

    /// excludes the tokens that may not come.
    ///
    /// Panics if none may: `constraint` has seen that there always is one.
    pub(crate) fn apply(&mut self, logits: &mut [f32], tokenizer: &Tokenizer) {
        if !self.masks.contains_key(&self.state) {
            if self.masks.len() >= MASKS_MAX {
                self.masks.clear();
            }
            let mask = tokenizer.constrainable().mask(&self.grammar, &self.state);
            self.masks.insert(self.state.clone(), mask);
        }
        let mask = &self.masks[&self.state];
        assert!(mask.count() > 0, "a token may come");
        for (token, logit) in (0..).zip(logits) {
            if !mask.permits(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}
