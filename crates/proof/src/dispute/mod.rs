//! Disputes: how a lie in a receipt is narrowed down to one word, and that word judged.
//!
//! In:     strings under their digests; the moves of both sides.
//! Out:    whose turn it is, what is agreed, and at the end who is wrong.
//! Touches: nothing.
//! Holds:  both sides and the ledger run the same code; every move is checked against what was said before.
//! Absent: money, deadlines and who may play (`chain`); running a model (`engine`).
//!
//! The rules `D-…` cited here are in `docs/spec/dispute.md`.

pub mod game;
pub mod judge;
pub mod layout;
pub mod opening;
pub mod operands;
pub mod plan;
pub mod prompt;
pub mod rules;
pub mod self_evident;
pub mod size;
pub mod text;
pub mod trace;

pub use game::{Division, Game, MoveError, Turn};
pub use judge::{Leaf, LeafError, Statement, Verdict, Weighed, judge, weigh};
pub use layout::{Coordinate, Layout, LayoutError};
pub use opening::{Hashed, Node, Opening, OpeningError, Tree};
pub use operands::Operand;
pub use plan::{Plan, PlanError, PlanHeader, TensorEntry};
pub use prompt::{PromptClaim, PromptFault, find_prompt_fault, judge_prompt};
pub use rules::{Inputs, RuleError, Rules, Source};
pub use text::{ClaimError, TextClaim, TextFault, find_text_fault, judge_text};
pub use trace::{Strings, Trace, TraceError};
