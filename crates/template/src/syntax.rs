//! What a template is made of, once read.
//!
//! In:     what `parser` builds.
//! Out:    what `render` walks.
//! Touches: nothing.
//! Holds:  every expression knows its line, and how many lie within one another.
//! Absent: resolved filters, tests and methods: an unknown one is refused where it is reached, as an unknown name is.

use std::sync::Arc;

/// A name of a variable, by its place in the template's list of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Symbol(pub(crate) u32);

/// The names every template has, in this order.
pub(crate) const NAMES: [&str; 13] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
    "range",
    "namespace",
    "dict",
    "raise_exception",
    "strftime_now",
    "loop",
    "caller",
];

/// `loop`, within a loop.
pub(crate) const LOOP: Symbol = Symbol(11);
/// `caller`, within a macro that a call block calls.
pub(crate) const CALLER: Symbol = Symbol(12);

#[derive(Debug)]
pub(crate) enum Statement {
    Data(Arc<str>),
    Print(Expression),
    Set {
        target: Target,
        value: Expression,
    },
    SetBlock {
        target: Target,
        filters: Vec<FilterCall>,
        body: Vec<Statement>,
    },
    If {
        branches: Vec<(Expression, Vec<Statement>)>,
        otherwise: Vec<Statement>,
    },
    For(Box<For>),
    Macro(Box<Macro>),
    /// A macro called with a body as `caller`.
    CallBlock {
        call: Expression,
        body: Box<Macro>,
    },
    FilterBlock {
        filters: Vec<FilterCall>,
        body: Vec<Statement>,
    },
    /// Variables for a body, and no longer.
    With {
        variables: Vec<(Target, Expression)>,
        body: Vec<Statement>,
    },
    Break,
    Continue,
}

#[derive(Debug)]
pub(crate) enum Target {
    Name(Symbol),
    /// An attribute of a namespace.
    Attribute(u32, Symbol, Arc<str>),
    Parts(u32, Vec<Target>),
}

#[derive(Debug)]
pub(crate) struct For {
    pub(crate) line: u32,
    pub(crate) target: Target,
    pub(crate) items: Expression,
    pub(crate) filter: Option<Expression>,
    pub(crate) body: Vec<Statement>,
    pub(crate) otherwise: Vec<Statement>,
}

#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) name: Symbol,
    pub(crate) parameters: Vec<(Symbol, Option<Expression>)>,
    pub(crate) body: Vec<Statement>,
}

#[derive(Debug)]
pub(crate) struct FilterCall {
    pub(crate) line: u32,
    pub(crate) name: Arc<str>,
    pub(crate) arguments: Arguments,
}

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) positional: Vec<Expression>,
    pub(crate) named: Vec<(Arc<str>, Expression)>,
}

#[derive(Debug)]
pub(crate) struct Expression {
    pub(crate) line: u32,
    /// How many expressions lie within one another, this one included.
    pub(crate) depth: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    List(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Name(Symbol),
    Attribute(Box<Expression>, Arc<str>),
    Item(Box<Expression>, Box<Expression>),
    Slice(Box<Expression>, Box<[Option<Expression>; 3]>),
    Call(Box<Expression>, Box<Arguments>),
    Filter(Box<Expression>, Box<FilterCall>),
    Test(Box<Expression>, Box<FilterCall>),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Positive(Box<Expression>),
    Binary(Box<Expression>, Operator, Box<Expression>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    /// A value if a condition holds, else another or nothing.
    Choice(Box<[Expression; 2]>, Option<Box<Expression>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
    Join,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}
