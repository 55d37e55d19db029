//! Chat templates: from a request's messages to the text its model was trained to continue.
//!
//! In:     a model's template; messages, special tokens, the day if the request names one; limits.
//! Out:    the text and the steps it took, or why there is none.
//! Touches: nothing: the text is a function of the arguments, the same on every machine (`docs/spec/template.md`).
//! Holds:  whatever the template, what rendering takes is within the limits, and it never panics: a template is written by
//!         whoever admits a model, and whoever judges an answer renders it.
//! Absent: a clock, random choices, other templates to include, escaping for HTML; the choice of a model's template.

mod filters;
mod json;
mod lexer;
mod methods;
mod operations;
mod parser;
mod render;
mod syntax;
mod text;
mod value;

use std::sync::Arc;

use surety_types::{CivilDate, Message};

use crate::syntax::Statement;

/// What a template may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its source.
    pub source_bytes: u64,
    /// Words, numbers, texts and signs in it.
    pub lexemes: u64,
    /// How deep statements and expressions nest, calls of macros with what they call, and lists within lists.
    pub depth: u32,
    /// Steps of one rendering.
    pub steps: u64,
    /// Bytes of all texts, lists and mappings that one rendering makes, the prompt included.
    pub bytes: u64,
}

impl Limits {
    /// Those of the network, by which an answer is judged: the same wherever a prompt is rendered.
    pub const STANDARD: Limits =
        Limits { source_bytes: 1 << 20, lexemes: 1 << 17, depth: 200, steps: 10_000_000, bytes: 256 << 20 };
}

/// What a template is rendered with.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// What the model may call, each a JSON object.
    pub tools: &'a [String],
    /// Whether to end with the opening of the assistant's message.
    pub add_generation_prompt: bool,
    /// The text of the token that begins a sequence, or nothing.
    pub bos_token: &'a str,
    /// The text of the token that ends one, or nothing.
    pub eos_token: &'a str,
    /// Today, for templates that mention it.
    pub date: Option<CivilDate>,
}

/// A rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The prompt.
    pub text: String,
    /// The steps it took.
    pub steps: u64,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// The source is too long.
    #[error("bytes of source")]
    SourceBytes,
    /// The source holds too much.
    #[error("words and signs of source")]
    Lexemes,
    /// Something nests too deep.
    #[error("levels of nesting")]
    Depth,
    /// Rendering takes too long.
    #[error("steps")]
    Steps,
    /// Rendering makes too much.
    #[error("bytes of texts and lists")]
    Bytes,
}

/// Why there is no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is not in the language, or uses what is not in it.
    #[error("{reason} (line {line} of the template)")]
    Syntax {
        /// From 1.
        line: u32,
        /// What is wrong.
        reason: String,
    },
    /// The template raised an exception, in these words.
    #[error("{message} (line {line} of the template)")]
    Raised {
        /// From 1.
        line: u32,
        /// Its words.
        message: String,
    },
    /// It would take more than the limits allow.
    #[error("the template takes more than {allowed} {limit} (line {line} of the template)")]
    Limit {
        /// From 1.
        line: u32,
        /// Which limit.
        limit: Limit,
        /// How much that allows.
        allowed: u64,
    },
    /// The template did with a value what that value does not allow.
    #[error("{reason} (line {line} of the template)")]
    Operation {
        /// From 1.
        line: u32,
        /// What is wrong.
        reason: String,
    },
}

impl TemplateError {
    /// This error at a line, unless it knows its own.
    fn at(mut self, from: u32) -> Self {
        let (TemplateError::Syntax { line, .. }
        | TemplateError::Raised { line, .. }
        | TemplateError::Limit { line, .. }
        | TemplateError::Operation { line, .. }) = &mut self;
        if *line == 0 {
            *line = from;
        }
        self
    }
}

/// A template that can be rendered.
#[derive(Debug)]
pub struct Template {
    statements: Vec<Statement>,
    /// What its variables are called.
    names: Vec<Arc<str>>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// `TemplateError::Syntax`, or `TemplateError::Limit` if it is too long, too large or too deep.
    pub fn parse(source: &str, limits: &Limits) -> Result<Template, TemplateError> {
        if source.len() as u64 > limits.source_bytes {
            let (limit, allowed) = (Limit::SourceBytes, limits.source_bytes);
            return Err(TemplateError::Limit { line: 1, limit, allowed });
        }
        let (statements, names) = parser::parse(&lexer::normalise(source), limits)?;
        Ok(Template { statements, names })
    }

    /// Renders it.
    ///
    /// # Errors
    /// Any but `TemplateError::Syntax`.
    pub fn render(&self, variables: &Variables<'_>, limits: &Limits) -> Result<Rendered, TemplateError> {
        render::render(&self.statements, &self.names, variables, limits)
    }
}
