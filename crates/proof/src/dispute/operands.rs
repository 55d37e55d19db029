//! Operands: what the judge read to compute a word, named and as numbers, for those who want to see it.
//!
//! In:     the reads of a rule. Out: each with what it is of.
//! Touches: nothing.
//! Holds:  a judgement is the same, noted or not. What is noted was opened, so it is bounded by what a leaf may show.
//! Absent: the judgement (`judge`), words for people (whoever shows it).

use std::sync::Arc;

use surety_grammar::Grammar;
use surety_kernels::step;

use super::layout::{Coordinate, Layout};
use super::plan::{TENSOR_WORDS, TensorFormat, kernel_format};
use super::rules::{Inputs, RuleError, Source};

/// A run of values that a rule read.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// Words of the trace, as the worker's trace has them.
    Trace {
        /// What the first of them holds.
        first: Coordinate,
        /// Their bits.
        words: Vec<u32>,
    },
    /// Whole blocks of a tensor of the model's file, as the numbers that the arithmetic takes them for.
    Weights {
        /// As GGUF names it.
        format: &'static str,
        /// Where they begin in the file, in bytes.
        at: u64,
        /// Their elements.
        elements: Vec<f32>,
    },
    /// Cosines and sines.
    Rotary {
        /// The first one's place in the table.
        first: u64,
        /// Their bits.
        words: Vec<u32>,
    },
    /// Token ids, of those given or put out.
    Ids {
        /// Which string.
        of: Source,
        /// The first one's place in it.
        first: u64,
        /// They.
        ids: Vec<u32>,
    },
    /// Bytes of what ids spell, or of the table of where those are.
    Spelling {
        /// Where they begin.
        at: u64,
        /// They.
        bytes: Vec<u8>,
    },
}

/// What is read, noted on its way.
pub(super) struct Operands<'a> {
    layout: &'a Layout,
    pub(super) read: Vec<Operand>,
    /// Of the tensor whose entry in the plan was read last.
    format: Option<TensorFormat>,
}

impl<'a> Operands<'a> {
    pub(super) fn of(layout: &'a Layout) -> Operands<'a> {
        Operands { layout, read: Vec::new(), format: None }
    }

    pub(super) fn noting<'b>(&'b mut self, inputs: &'b mut dyn Inputs) -> Noting<'a, 'b> {
        Noting { operands: self, inputs }
    }

    fn note(&mut self, source: Source, at: u64, bytes: &[u8]) {
        let words = || bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect::<Vec<_>>();
        let noted = match source {
            Source::Trace => match self.layout.coordinate(at / 4) {
                Some((first, _)) => Operand::Trace { first, words: words() },
                None => return,
            },
            Source::Plan => {
                let number = bytes.first_chunk().map(|word| u32::from_le_bytes(*word));
                let is_tensor = bytes.len() == 4 * TENSOR_WORDS;
                let format = TensorFormat::ALL.into_iter().find(|format| Some(*format as u32) == number);
                self.format = format.filter(|_| is_tensor);
                return;
            }
            Source::File => {
                let Some(format) = self.format else { return };
                let elements = bytes.chunks_exact(format.block_bytes() as usize).flat_map(|block| {
                    let elements = 0..format.block_elements() as usize;
                    elements.map(move |index| step::element(kernel_format(format), block, index))
                });
                Operand::Weights { format: format.name(), at, elements: elements.collect() }
            }
            Source::Rotary => Operand::Rotary { first: at / 4, words: words() },
            Source::Given | Source::Output => Operand::Ids { of: source, first: at / 4, ids: words() },
            Source::Spelling | Source::Text => Operand::Spelling { at, bytes: bytes.to_vec() },
        };
        self.read.push(noted);
    }
}

/// Inputs whose reads are noted.
pub(super) struct Noting<'a, 'b> {
    operands: &'b mut Operands<'a>,
    inputs: &'b mut dyn Inputs,
}

impl Inputs for Noting<'_, '_> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        self.inputs.read(source, at, out)?;
        self.operands.note(source, at, out);
        Ok(())
    }

    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        self.inputs.grammar()
    }
}
