//! The judge: one word, computed from what is agreed or opens.
//!
//! In:     what is disputed and what it is computed from, by digest; the game so far; the challenger's leaf.
//! Out:    who is wrong, or why the leaf shows nothing.
//! Touches: nothing.
//! Holds:  a verdict follows from the worker's own trace left of the word and from strings whose digests were agreed on before:
//!         no two leaves for one word of one game give different verdicts. The work is bounded by [`SHOWN_BYTES_MAX`],
//!         whatever is sent, and nothing sent makes it panic.
//! Absent: which words differ (`game`), how leaves are made (`trace`), what follows from a verdict (`chain`).
//!
//! Rules: D-5.5, D-5.8, D-6.

use std::collections::BTreeMap;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use surety_grammar::Grammar;
use surety_kernels::fpcr;
use surety_types::digest::domain;
use surety_types::request::MAX_GRAMMAR_BYTES;
use surety_types::{Canonical, Digest, Invalid, Manifest, Order, Outcome, Receipt, Request};

use super::game::{Game, Turn};
use super::layout::{CHUNK_WORDS, Coordinate, Layout, LayoutError};
use super::opening::{CHUNK_BYTES, Opening, OpeningError, Tree};
use super::operands::{Operand, Operands};
use super::plan::{self, PlanHeader};
use super::rules::{Inputs, RuleError, Rules, Source};

/// Bytes that a leaf shows, with the values beside them, at most (D-5.8).
pub const SHOWN_BYTES_MAX: usize = 16 << 10;

/// An opening of one of the strings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Shown {
    /// Of which.
    #[n(0)]
    pub source: Source,
    /// Of what.
    #[n(1)]
    pub opening: Opening,
}

/// The challenger's last move (D-5.5).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Leaf {
    /// The word that is wrong, by its index in the trace.
    #[n(0)]
    pub word: u64,
    /// The worker's word, and everything it is computed from: one opening for each string, in the order of [`Source`].
    #[n(1)]
    pub shown: Vec<Shown>,
    /// The answer's grammar, if the word is computed from it.
    #[n(2)]
    pub grammar: Option<String>,
}

impl Leaf {
    /// Bytes it shows, with the values beside them.
    pub fn shown_bytes(&self) -> usize {
        shown_bytes(&self.shown)
    }
}

/// Bytes that openings show, with the values beside them.
pub(super) fn shown_bytes(shown: &[Shown]) -> usize {
    shown.iter().map(|shown| shown.opening.shown_bytes()).sum()
}

/// Whether every string is opened once at most, and they are in order.
pub(super) fn is_in_order(shown: &[Shown]) -> bool {
    shown.is_sorted_by(|one, next| one.source < next.source)
}

/// Refuses openings that no judge reads.
pub(super) fn check_shown(shown: &[Shown]) -> Result<(), Invalid> {
    if !is_in_order(shown) {
        return Err(Invalid::new("shown", "opens a string twice, or not in their order"));
    }
    let bytes = shown_bytes(shown);
    if bytes > SHOWN_BYTES_MAX {
        let problem = format!("shows {bytes} bytes; at most {SHOWN_BYTES_MAX} are allowed");
        return Err(Invalid::new("shown", problem));
    }
    Ok(())
}

impl Canonical for Leaf {
    const NAME: &'static str = "leaf";
    const MAX_BYTES: usize = SHOWN_BYTES_MAX + MAX_GRAMMAR_BYTES + (1 << 10);

    fn check(&self) -> Result<(), Invalid> {
        if self.grammar.as_ref().is_some_and(|text| text.len() > MAX_GRAMMAR_BYTES) {
            return Err(Invalid::new("grammar", format!("is longer than {MAX_GRAMMAR_BYTES} bytes")));
        }
        check_shown(&self.shown)
    }
}

/// Digests of what a trace is computed from (D-1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Of the plan.
    pub plan: Digest,
    /// Of the model's file.
    pub file: Digest,
    /// Its length.
    pub file_bytes: u64,
    /// Of the rotary table.
    pub rotary: Digest,
    /// Of the prompt ids.
    pub given: Digest,
    /// Of the output ids.
    pub output: Digest,
    /// Of the text.
    pub text: Digest,
}

/// Why a receipt cannot be disputed by a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// D-2.1
    #[error("the model has no plan")]
    NoPlan,
    /// D-2.1
    #[error("the model is {0} files; those in one can be disputed")]
    Files(usize),
    /// D-4.1
    #[error("the receipt is for a failure")]
    Failed,
    /// Its answer has no trace.
    #[error("the answer has no trace")]
    Layout(#[from] LayoutError),
    /// No string is so long.
    #[error("the model's strings are too long to be opened")]
    TooLong,
}

/// What a dispute is about: an answer's trace, and what it is computed from.
#[derive(Clone, Debug)]
pub struct Statement {
    rules: Rules,
    strings: BTreeMap<Source, (Tree, Digest)>,
    /// How long the text is nobody has signed.
    text: Digest,
}

impl Statement {
    /// The trace of the answer that a receipt claims. The caller has checked that these are of each other, and that `header`
    /// opens the plan's first chunk (D-5.1).
    ///
    /// # Errors
    /// `StatementError` if it cannot be disputed.
    pub fn new(
        manifest: &Manifest,
        header: &PlanHeader,
        order: &Order,
        receipt: &Receipt,
    ) -> Result<Statement, StatementError> {
        let [file] = manifest.files.as_slice() else {
            return Err(StatementError::Files(manifest.files.len()));
        };
        if receipt.outcome != Outcome::Completed {
            return Err(StatementError::Failed);
        }
        let digests = Digests {
            plan: manifest.plan.ok_or(StatementError::NoPlan)?,
            file: file.blake3,
            file_bytes: file.bytes,
            rotary: manifest.rotary_digest,
            given: receipt.prompt_digest,
            output: receipt.output_digest,
            text: receipt.text_digest,
        };
        let rules = Rules::new(
            header.clone(),
            order.sampling.clone(),
            order.seed_bytes(),
            order.ignore_end,
            receipt.prompt_tokens,
            order.resumed_tokens(),
            receipt.output_tokens,
        )?;
        Statement::of(rules, digests)
    }

    /// A trace by its rules and digests.
    ///
    /// # Errors
    /// `StatementError::TooLong` if a string is longer than any.
    pub fn of(rules: Rules, digests: Digests) -> Result<Statement, StatementError> {
        let (header, layout) = (rules.header(), rules.layout());
        let rotary = 4 * u64::from(header.context) * u64::from(header.head_dim);
        let strings = [
            (Source::Plan, Some(plan::tree(header)), digests.plan),
            (Source::Spelling, plan::spelling_tree(header), header.spelling.digest),
            (Source::File, Tree::plain(digests.file_bytes), digests.file),
            (Source::Rotary, Tree::plain(rotary), digests.rotary),
            (Source::Given, Tree::derived(domain::PROMPT_IDS, 4 * layout.given), digests.given),
            (Source::Output, Tree::derived(domain::OUTPUT_IDS, 4 * layout.outputs), digests.output),
        ];
        let trees = strings.map(|(source, tree, digest)| Some((source, (tree?, digest))));
        let strings = trees.into_iter().collect::<Option<_>>().ok_or(StatementError::TooLong)?;
        Ok(Statement { rules, strings, text: digests.text })
    }

    /// The rules of its trace.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The places of its trace.
    pub fn layout(&self) -> &Layout {
        self.rules.layout()
    }

    /// The digest of the text.
    pub fn text_digest(&self) -> &Digest {
        &self.text
    }

    /// The tree of any string but trace and text.
    pub fn tree(&self, source: Source) -> Option<Tree> {
        self.strings.get(&source).map(|(tree, _)| *tree)
    }

    /// Checks an opening of any string but trace and text.
    ///
    /// # Errors
    /// `OpeningError` if it proves nothing.
    pub fn check(&self, source: Source, opening: &Opening) -> Result<(), OpeningError> {
        let (tree, digest) = self.strings.get(&source).ok_or(OpeningError::Value)?;
        tree.check(&digest.0, opening)
    }
}

/// Who is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The worker's word does not follow from its own words before it.
    WorkerLied {
        /// Which word.
        word: u64,
        /// The worker's.
        claimed: u32,
        /// What the rule gives.
        computed: u32,
    },
    /// The worker's word is what the rule gives.
    WorkerRight,
}

/// Why a leaf shows nothing. That is no verdict, but a move that was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// The game is not there yet.
    #[error("it is the turn of {0}")]
    Turn(Turn),
    /// The game is about another trace.
    #[error("the game is about a trace of {game} bytes, this one has {own}")]
    Length {
        /// The game's.
        game: u64,
        /// As the answer says.
        own: u64,
    },
    /// The word is not in the node in dispute.
    #[error("word {0} is not in the node in dispute")]
    Word(u64),
    /// It shows more than a judge reads: so many bytes, with the values beside them.
    #[error("a leaf of {0} bytes; at most {SHOWN_BYTES_MAX} are read")]
    TooLarge(usize),
    /// It opens a string twice, or strings not in their order.
    #[error("a leaf opens each string once, in their order")]
    Order,
    /// The grammar is not the order's.
    #[error("the grammar is not the one that the order names")]
    Grammar,
    /// An opening does not open.
    #[error("an opening of the {of} proves nothing")]
    Opening {
        /// Of which string.
        of: Source,
        /// Why.
        #[source]
        why: OpeningError,
    },
    /// It shows too little.
    #[error("the word cannot be computed")]
    Rule(#[from] RuleError),
}

/// A word as the judge found it.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// Which word of the trace.
    pub word: u64,
    /// What it holds; where a computation gives several words, it is number `part` of them.
    pub coordinate: Coordinate,
    /// From 0.
    pub part: u64,
    /// The worker's.
    pub claimed: u32,
    /// What the rule gives.
    pub computed: u32,
    /// What it was computed from, in the order in which the rule reads.
    pub operands: Vec<Operand>,
}

/// Judges the challenger's last move.
///
/// # Errors
/// `LeafError` if it shows nothing.
pub fn judge(statement: &Statement, game: &Game, leaf: &Leaf) -> Result<Verdict, LeafError> {
    let Weighed { word, claimed, computed, .. } = weighed(statement, game, leaf, None)?;
    Ok(match claimed == computed {
        true => Verdict::WorkerRight,
        false => Verdict::WorkerLied { word, claimed, computed },
    })
}

/// The same judgement, with everything that it was made from.
///
/// # Errors
/// `LeafError` if the leaf shows nothing.
pub fn weigh(statement: &Statement, game: &Game, leaf: &Leaf) -> Result<Weighed, LeafError> {
    let mut operands = Operands::of(statement.layout());
    let found = weighed(statement, game, leaf, Some(&mut operands))?;
    Ok(Weighed { operands: operands.read, ..found })
}

fn weighed(
    statement: &Statement,
    game: &Game,
    leaf: &Leaf,
    operands: Option<&mut Operands<'_>>,
) -> Result<Weighed, LeafError> {
    if game.turn() != Turn::Leaf {
        return Err(LeafError::Turn(game.turn()));
    }
    let layout = statement.layout();
    let (bytes, own) = (game.tree().bytes(), 4 * layout.words());
    if bytes != own {
        return Err(LeafError::Length { game: bytes, own });
    }
    let outside = LeafError::Word(leaf.word);
    let (coordinate, part) = layout.coordinate(leaf.word).ok_or(outside)?;
    if !(game.node().first..game.node().end()).contains(&(leaf.word / CHUNK_WORDS)) {
        return Err(outside);
    }
    if !is_in_order(&leaf.shown) {
        return Err(LeafError::Order);
    }
    let shown = leaf.shown_bytes();
    if shown > SHOWN_BYTES_MAX {
        return Err(LeafError::TooLarge(shown));
    }
    for Shown { source, opening } in &leaf.shown {
        let opens = match source {
            Source::Trace => game.check(opening),
            other => statement.check(*other, opening),
        };
        opens.map_err(|why| LeafError::Opening { of: *source, why })?;
    }
    let named = statement.rules.sampling().grammar;
    if leaf.grammar.as_ref().is_some_and(|text| Some(Request::grammar_digest(text)) != named) {
        return Err(LeafError::Grammar);
    }
    fpcr::set();
    let first = leaf.word - part;
    let mut opened = Opened::of(&leaf.shown, 4 * first);
    opened.grammar = leaf.grammar.as_deref().map(|text| Arc::new(Grammar::compile_or_nothing(text)));
    let computed = match operands {
        None => statement.rules.compute(&coordinate, &mut opened)?,
        Some(operands) => statement.rules.compute(&coordinate, &mut operands.noting(&mut opened))?,
    };
    let computed = computed[part as usize];
    opened.trace_end = 4 * layout.words();
    let mut claimed = [0; 4];
    opened.read(Source::Trace, 4 * leaf.word, &mut claimed)?;
    let claimed = u32::from_le_bytes(claimed);
    Ok(Weighed { word: leaf.word, coordinate, part, claimed, computed, operands: Vec::new() })
}

/// What a leaf shows, once its openings are checked.
pub(super) struct Opened<'a> {
    chunks: BTreeMap<(Source, u64), &'a [u8]>,
    /// Of the trace nothing is read from here on: the judge reads left of the word.
    trace_end: u64,
    /// The answer's grammar, where it is shown.
    grammar: Option<Arc<Grammar>>,
}

impl<'a> Opened<'a> {
    /// The chunks of openings; of the trace those before byte `trace_end`.
    pub(super) fn of(shown: &'a [Shown], trace_end: u64) -> Opened<'a> {
        let chunks = shown.iter().flat_map(|Shown { source, opening }| {
            opening.chunks().map(|(index, chunk)| ((*source, index), chunk))
        });
        Opened { chunks: chunks.collect(), trace_end, grammar: None }
    }
}

impl Inputs for Opened<'_> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        let end = at.saturating_add(out.len() as u64);
        if source == Source::Trace && end > self.trace_end {
            return Err(RuleError::Absent { of: source, at });
        }
        let mut filled = 0;
        while filled < out.len() {
            let byte = at.saturating_add(filled as u64);
            let absent = RuleError::Absent { of: source, at: byte };
            let chunk = self.chunks.get(&(source, byte / CHUNK_BYTES)).ok_or(absent)?;
            let rest = chunk.get((byte % CHUNK_BYTES) as usize..).filter(|rest| !rest.is_empty());
            let rest = rest.ok_or(absent)?;
            let count = rest.len().min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
        }
        Ok(())
    }

    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        self.grammar.clone().ok_or(RuleError::NoGrammar)
    }
}
