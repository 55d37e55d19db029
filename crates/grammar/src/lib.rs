//! Constrained decoding: which tokens may come next, so that an answer keeps to a schema by construction.
//!
//! In:     a grammar as a request carries it: JSON Schemas between literal texts; the bytes that tokens spell.
//! Out:    an automaton over bytes whose state is a function of the bytes before; for each state the tokens it permits.
//! Touches: nothing.
//! Holds:  what is permitted can always be completed, so there is no dead end; compiling and every step are bounded,
//!         whatever the grammar; nothing panics, since a judge runs the same code on what strangers wrote.
//! Absent: sampling (`engine`), which order is bound to which grammar (`types`), OpenAI's wording (`gateway`).
//!
//! The rules `G-…` cited here are in `docs/spec/grammar.md`.

mod automaton;
mod compile;
mod json;
mod schema;
mod source;
mod vocabulary;

pub use automaton::{Grammar, STATE_WORDS, State};
pub use json::JsonError;
pub use source::{FORMS_MAX, Form, GRAMMAR_BYTES_MAX, REPEATS_MAX, forms, json_object, json_schema};
pub use vocabulary::{Mask, MissingByte, Vocabulary};

/// Why something is no grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// Longer than any may be.
    #[error("a grammar of {bytes} bytes; at most {GRAMMAR_BYTES_MAX} are taken")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not JSON.
    #[error("the grammar is no JSON")]
    Json(#[from] JsonError),
    /// Not in the form of G-2.
    #[error("the grammar is not in its canonical form: {0}")]
    Form(&'static str),
    /// A keyword that is not supported.
    #[error("`{keyword}` at `{path}` is not supported")]
    Unsupported {
        /// Of the schema it stands in, as a JSON pointer.
        path: String,
        /// Its name.
        keyword: String,
    },
    /// A keyword that says nothing that can be met.
    #[error("the schema at `{path}` {problem}")]
    Invalid {
        /// Of the schema, as a JSON pointer.
        path: String,
        /// What is wrong with it, continuing the sentence.
        problem: String,
    },
    /// The automaton would be too large.
    #[error("the schema is too large: its automaton would have more than {most} {what}")]
    TooLarge {
        /// Of what there would be too many.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Nothing finite meets it within the bound on nesting.
    #[error("nothing that is nested less than {0} deep meets the schema")]
    Endless(usize),
}

impl GrammarError {
    /// Where in the schema the problem is, as a JSON pointer.
    pub fn path(&self) -> Option<&str> {
        match self {
            GrammarError::Unsupported { path, .. } | GrammarError::Invalid { path, .. } => Some(path),
            _ => None,
        }
    }
}
