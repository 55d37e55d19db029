//! The engine: a model and what it says, exactly.
//!
//! In:     the bytes of a GGUF file; requests of token ids or text.
//! Out:    tokens, text and the digest that commits to how they were computed.
//! Touches: memory only.
//! Holds:  the answer is a function of model bytes, tokens, parameters and seed (`docs/spec/arithmetic.md`).
//! Absent: files, network, clock, randomness; receipts (`proof`, the worker).

pub mod chat_template;
pub mod gguf;
pub mod tokenizer;

pub mod architecture;
pub mod constraint;
mod embedding;
mod forward;
mod generation;
pub mod image;
pub mod model;
mod pages;
mod plan;
pub mod replay;
pub mod sampler;
pub mod scheduler;
mod text;

pub use constraint::ConstraintError;
pub use embedding::EmbeddingError;
pub use generation::{NonFinite, PastTheEnd, SequenceRequest};
pub use model::{Bytes, LoadError, Model, PromptError};
pub use scheduler::{Event, Scheduler, SchedulerLimits, SequenceId, SubmitError};
pub use surety_grammar::Grammar;
pub use text::{Released, TextStream};
