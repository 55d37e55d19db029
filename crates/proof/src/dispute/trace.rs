//! A whole trace, and what a challenger shows of it.
//!
//! In:     the rules of an answer, and its strings whole: plan, file, rotary table, ids.
//! Out:    the trace under its tree; the leaf for a word of it.
//! Touches: its own threads, while a trace is made.
//! Holds:  the trace is what the rules give, word for word, on any number of threads. It takes [`Trace::memory`] bytes and
//!         little besides; of one that is kept elsewhere ([`Trace::build_in`]) a 128th of its length.
//! Absent: running a model as it is served (`engine`); which word to show (`game`).
//!
//! Everything within a position depends on positions before it only through the stage before, since the ids are given
//! (D-3.1); so the positions of a stage are made side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::thread;

use surety_grammar::Grammar;
use surety_kernels::{fpcr, step};
use surety_types::Digest;
use surety_types::digest::domain;

use super::game::{BYTES_CHUNKS_MAX, DIVISION_DEPTH, Game};
use super::judge::{Digests, Leaf, Shown, Statement};
use super::layout::{By, Coordinate, DIGITS, IDS, Layout, PART, Product, parts};
use super::opening::{CHUNK_BYTES, Hashed, Node, Nodes, Opening, STRING_BYTES_MAX, Tree, Value};
use super::plan::kernel_format;
use super::rules::{Inputs, Reader, RuleError, Rules, Source};

/// Blocks whose products are made together, at most.
const TOGETHER_MAX: usize = 16;

/// Why there is no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// It would not fit.
    #[error("the trace takes {bytes} bytes of memory; at most {max} are allowed")]
    Memory {
        /// What it takes.
        bytes: u64,
        /// What is allowed.
        max: u64,
    },
    /// The buffer is not the trace's.
    #[error("a buffer of {found} bytes for a trace of {expected}")]
    Buffer {
        /// Its length.
        found: u64,
        /// The trace's.
        expected: u64,
    },
    /// The strings are not those of this answer.
    #[error("the strings are not those of this answer")]
    Rule(#[from] RuleError),
}

/// The strings that a trace is computed from, whole.
#[derive(Clone, Debug)]
pub struct Strings<F> {
    plan: Hashed<Vec<u8>>,
    spelling: Hashed<Vec<u8>>,
    file: Hashed<F>,
    rotary: Hashed<Vec<u8>>,
    given: Hashed<Vec<u8>>,
    output: Hashed<Vec<u8>>,
    /// The answer's grammar, and its text.
    grammar: Option<(String, Arc<Grammar>)>,
}

impl<F: AsRef<[u8]>> Strings<F> {
    /// Hashes them. `None` if one is longer than any string (D-1).
    pub fn new(
        plan: Vec<u8>,
        spelling: Vec<u8>,
        file: F,
        rotary: Vec<u8>,
        given: &[u32],
        output: &[u32],
    ) -> Option<Strings<F>> {
        let ids = |domain: &str, ids: &[u32]| {
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            Some(Hashed::new(Tree::derived(domain, bytes.len() as u64)?, bytes))
        };
        Some(Strings {
            plan: Hashed::new(Tree::derived(domain::PLAN, plan.len() as u64)?, plan),
            spelling: Hashed::new(Tree::derived(domain::SPELLING, spelling.len() as u64)?, spelling),
            rotary: Hashed::new(Tree::plain(rotary.len() as u64)?, rotary),
            given: ids(domain::PROMPT_IDS, given)?,
            output: ids(domain::OUTPUT_IDS, output)?,
            file: Hashed::new(Tree::plain(file.as_ref().len() as u64)?, file),
            grammar: None,
        })
    }

    /// With the grammar that the answer keeps to, if it does.
    pub fn with_grammar(mut self, grammar: Option<&str>) -> Strings<F> {
        self.grammar = grammar.map(|text| (text.to_owned(), Arc::new(Grammar::compile_or_nothing(text))));
        self
    }

    fn grammar(&self) -> Result<Arc<Grammar>, RuleError> {
        self.grammar.as_ref().map(|(_, grammar)| grammar.clone()).ok_or(RuleError::NoGrammar)
    }

    /// Their digests and that of the text, for a statement.
    pub fn digests(&self, text: Digest) -> Digests {
        Digests {
            plan: Digest(self.plan.digest()),
            file: Digest(self.file.digest()),
            file_bytes: self.file.tree().bytes(),
            rotary: Digest(self.rotary.digest()),
            given: Digest(self.given.digest()),
            output: Digest(self.output.digest()),
            text,
        }
    }

    /// Bytes of a string other than the trace.
    fn bytes(&self, source: Source, at: u64, length: usize) -> Option<&[u8]> {
        let whole = match source {
            Source::Trace | Source::Text => return None,
            Source::Plan => whole(&self.plan),
            Source::Spelling => whole(&self.spelling),
            Source::File => whole(&self.file),
            Source::Rotary => whole(&self.rotary),
            Source::Given => whole(&self.given),
            Source::Output => whole(&self.output),
        };
        whole.get(usize::try_from(at).ok()?..)?.get(..length)
    }

    fn read(&self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        let bytes = self.bytes(source, at, out.len()).ok_or(RuleError::Absent { of: source, at })?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    /// Opens consecutive chunks of one of them. `None` for the trace and the text, or if it has no such chunks.
    pub fn open(&self, source: Source, shown: Node) -> Option<Opening> {
        self.open_chunks(source, &(shown.first..shown.end()).collect::<Vec<u64>>())
    }

    /// Opens chunks of one of them, in order. `None` for the trace and the text, or if it has no such chunks.
    pub(super) fn open_chunks(&self, source: Source, shown: &[u64]) -> Option<Opening> {
        match source {
            Source::Trace | Source::Text => None,
            Source::Plan => self.plan.open_chunks(shown),
            Source::Spelling => self.spelling.open_chunks(shown),
            Source::File => self.file.open_chunks(shown),
            Source::Rotary => self.rotary.open_chunks(shown),
            Source::Given => self.given.open_chunks(shown),
            Source::Output => self.output.open_chunks(shown),
        }
    }
}

/// All bytes of a string.
fn whole<B: AsRef<[u8]>>(string: &Hashed<B>) -> &[u8] {
    string.bytes_below(string.tree().root())
}

/// The trace of an answer, under its tree. Its words are in memory, or wherever else `B` keeps bytes.
#[derive(Clone, Debug)]
pub struct Trace<B = Vec<u8>> {
    hashed: Hashed<B>,
}

impl Trace {
    /// Bytes of memory that a trace takes: 4 for each word, and 64 for each eight chunks.
    pub fn memory(layout: &Layout) -> u64 {
        let bytes = 4 * layout.words();
        bytes + 64 * bytes.div_ceil(8 * CHUNK_BYTES)
    }

    /// Computes a trace on so many threads, unless it takes more than `memory_max` bytes. `progress` is told now and then
    /// how many of how many words there are.
    ///
    /// # Errors
    /// `TraceError` if it does not fit, or the strings are not of this answer.
    pub fn build<F: AsRef<[u8]> + Sync>(
        rules: &Rules,
        strings: &Strings<F>,
        threads: NonZeroUsize,
        memory_max: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Trace, TraceError> {
        let layout = rules.layout();
        let memory = Trace::memory(layout);
        if memory > memory_max {
            return Err(TraceError::Memory { bytes: memory, max: memory_max });
        }
        Trace::build_in(vec![0; 4 * layout.words() as usize], rules, strings, threads, progress)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Trace<B> {
    /// [`Trace::build`] into bytes that are there, such as a mapped file's: 4 for each word. In memory it keeps 64 for each
    /// eight chunks, a 128th of the trace.
    ///
    /// # Errors
    /// `TraceError` if there are more or fewer bytes, or the strings are not of this answer.
    pub fn build_in<F: AsRef<[u8]> + Sync>(
        mut buffer: B,
        rules: &Rules,
        strings: &Strings<F>,
        threads: NonZeroUsize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Trace<B>, TraceError> {
        let layout = rules.layout();
        let bytes = buffer.as_mut();
        let (found, expected) = (bytes.len() as u64, 4 * layout.words());
        if found != expected {
            return Err(TraceError::Buffer { found, expected });
        }
        let build = Build { rules, strings };
        let mut start = 0;
        for ends in stages(layout) {
            build.stage(bytes, start, &ends, threads)?;
            start = ends.last().copied().unwrap_or(start);
            progress(start, layout.words());
        }
        assert_eq!(start, layout.words(), "the stages are the whole trace");
        Trace::of_bytes(buffer).ok_or(TraceError::Buffer { found, expected: STRING_BYTES_MAX })
    }
}

impl<B: AsRef<[u8]>> Trace<B> {
    /// A trace that is at hand. `None` if it is longer than any.
    pub fn of_bytes(bytes: B) -> Option<Trace<B>> {
        let tree = Tree::derived(domain::TRACE, bytes.as_ref().len() as u64)?;
        Some(Trace { hashed: Hashed::new(tree, bytes) })
    }

    /// The trace with the values of its tree, for divisions and answers to them.
    pub fn hashed(&self) -> &Hashed<B> {
        &self.hashed
    }

    /// A word. `None` past the end.
    pub fn word(&self, word: u64) -> Option<u32> {
        let at = usize::try_from(word).ok()?.checked_mul(4)?;
        whole(&self.hashed).get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// The leaf for `word` (D-5.5): openings of all that its rule reads, and of the worker's word.
    ///
    /// `theirs` are the bytes of the node in dispute, as the worker's last division gives them. Left of `word` both traces
    /// must be the same, or the leaf is refused.
    ///
    /// # Errors
    /// `RuleError` if there is no such word, or a rule reads what is not there.
    pub fn leaf<F: AsRef<[u8]>>(
        &self,
        rules: &Rules,
        strings: &Strings<F>,
        game: &Game,
        theirs: &[u8],
        word: u64,
    ) -> Result<Leaf, RuleError> {
        let absent = RuleError::Absent { of: Source::Trace, at: word.saturating_mul(4) };
        let (coordinate, _) = rules.layout().coordinate(word).ok_or(absent)?;
        let mut recording = Recording::new(Whole { trace: self, strings });
        rules.compute(&coordinate, &mut recording)?;
        recording.note(Source::Trace, 4 * word, 4);
        let nodes = Sides { ours: &self.hashed, node: game.node(), theirs };
        let known = || game.agreed().into_iter().map(|(node, _)| node).chain([game.node()]);
        let shown = recording.by_source().into_iter().map(|(source, chunks)| {
            let opening = match source {
                Source::Trace => game.tree().open(known(), &chunks, &nodes),
                other => strings.open_chunks(other, &chunks),
            };
            Some(Shown { source, opening: opening? })
        });
        let shown = shown.collect::<Option<_>>().ok_or(absent)?;
        let grammar = strings.grammar.as_ref().filter(|_| recording.grammar);
        Ok(Leaf { word, shown, grammar: grammar.map(|(text, _)| text.clone()) })
    }
}

/// The worker's trace, as far as a challenger knows it: its own left of the node in dispute, and that node's bytes.
struct Sides<'a, B> {
    ours: &'a Hashed<B>,
    node: Node,
    theirs: &'a [u8],
}

impl<B: AsRef<[u8]>> Nodes for Sides<'_, B> {
    fn value(&self, node: Node) -> Option<Value> {
        match node.end() <= self.node.first {
            true => Nodes::value(self.ours, node),
            false => Some(self.ours.tree().value(node, self.bytes(node)?)),
        }
    }

    fn bytes(&self, node: Node) -> Option<&[u8]> {
        if node.end() <= self.node.first {
            return self.ours.bytes(node);
        }
        let tree = self.ours.tree();
        let is_below = self.node.first <= node.first && node.end() <= self.node.end();
        if !is_below || self.theirs.len() != tree.bytes_below(self.node) {
            return None;
        }
        let at = (node.first - self.node.first) * CHUNK_BYTES;
        self.theirs.get(at as usize..)?.get(..tree.bytes_below(node))
    }
}

/// The ends of the blocks of each stage; blocks of one stage do not read each other.
fn stages(layout: &Layout) -> impl Iterator<Item = Vec<u64>> + '_ {
    let (positions, outputs, width) = (layout.positions, layout.outputs, layout.width);
    let embedding = (1..=positions).map(|position| layout.embedding_at + position * width).collect();
    let layers = (0..layout.layers).flat_map(move |layer| {
        let rows = 1..=layout.kv_heads * layout.head_dim;
        let values = layout.values_at(layer);
        [
            (1..=positions).map(|position| layout.stage_one_at(layer, position)).collect(),
            rows.map(|row| values + row * positions).collect(),
            (1..=positions).map(|position| layout.stage_three_at(layer, position)).collect::<Vec<u64>>(),
        ]
    });
    let after = [
        (1..=outputs).map(|output| layout.state_norm_at(output)).collect(),
        (1..=outputs).map(|output| layout.state_value_at(output)).collect(),
        // The states' tree, presence and repeats go by what is before them.
        vec![layout.output_at(0)],
        (1..=outputs).map(|output| layout.output_at(output)).collect::<Vec<u64>>(),
    ];
    // Prompt and text go by what is before them.
    [vec![layout.embedding_at], embedding].into_iter().chain(layers).chain(after)
}

/// Computes a trace.
struct Build<'a, F> {
    rules: &'a Rules,
    strings: &'a Strings<F>,
}

impl<F: AsRef<[u8]> + Sync> Build<'_, F> {
    /// The words from `start` on, in blocks that end at `ends`; all before them are there.
    fn stage(
        &self,
        bytes: &mut [u8],
        start: u64,
        ends: &[u64],
        threads: NonZeroUsize,
    ) -> Result<(), RuleError> {
        let (done, mut rest) = bytes.split_at_mut(4 * start as usize);
        let done = &*done;
        let mut at = start;
        let mut blocks = Vec::with_capacity(ends.len());
        for end in ends {
            let (own, more) = rest.split_at_mut(4 * (end - at) as usize);
            blocks.push(Block { first: at, own, filled: 0 });
            (at, rest) = (*end, more);
        }
        // Every thread gets some groups, so that none waits long for the last.
        let together = (blocks.len() / (2 * threads.get())).clamp(1, TOGETHER_MAX);
        let queue = Mutex::new(blocks.chunks_mut(together));
        let next = || queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
        let work = || {
            fpcr::set();
            while let Some(blocks) = next() {
                self.blocks(done, blocks)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads.get().min(ends.len())).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().fold(own, |result, other| match other.join() {
                Ok(theirs) => result.and(theirs),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// The words of some blocks of one stage. They hold the same products in the same order, which are made together.
    fn blocks(&self, done: &[u8], blocks: &mut [Block<'_>]) -> Result<(), RuleError> {
        loop {
            let mut products = Vec::new();
            for block in &mut *blocks {
                products.extend(self.to_product(done, block)?);
            }
            if products.is_empty() {
                return Ok(());
            }
            assert_eq!(products.len(), blocks.len(), "blocks of one stage hold the same products");
            self.segments(done, blocks, &products)?;
        }
    }

    /// The words of a block up to its next product, if there is one.
    fn to_product(&self, done: &[u8], block: &mut Block<'_>) -> Result<Option<Product>, RuleError> {
        let layout = self.rules.layout();
        while block.filled < block.own.len() {
            let word = block.first + block.filled as u64 / 4;
            let Some((coordinate, 0)) = layout.coordinate(word) else {
                unreachable!("word {word} begins a coordinate");
            };
            if let Coordinate::Segment { product, .. } = coordinate {
                return Ok(Some(product));
            }
            let inputs = &mut block.inputs(self.strings, done);
            let words = match self.many(&coordinate, inputs)? {
                Some(words) => words,
                None => {
                    let words = self.rules.compute(&coordinate, inputs)?;
                    words[..coordinate.words() as usize].to_vec()
                }
            };
            block.push(&words);
        }
        Ok(None)
    }

    /// All segments of one product of each block: each row of weights is read once, each row of inputs quantised once.
    fn segments(&self, done: &[u8], blocks: &mut [Block<'_>], products: &[Product]) -> Result<(), RuleError> {
        let layout = self.rules.layout();
        let (inputs, outputs) = (layout.inputs(products[0]), self.rules.product_outputs(products[0]));
        let mut rows = Vec::with_capacity(blocks.len());
        let mut matrix = None;
        for (block, product) in blocks.iter().zip(products) {
            let read = &mut Reader { layout, inputs: &mut block.inputs(self.strings, done) };
            let own = self.rules.matrix(read, *product)?;
            assert_eq!(*matrix.get_or_insert(own), own, "blocks of one stage hold the same products");
            let row = read.floats_at(self.rules.product_input_at(*product), inputs)?;
            let format = kernel_format(own.format);
            let parts = row.chunks(PART as usize).map(|part| step::Inputs::new(format, part));
            rows.push(parts.collect::<Vec<step::Inputs>>());
        }
        let Some(matrix) = matrix else { return Ok(()) };
        let format = kernel_format(matrix.format);
        let mut words = vec![Vec::with_capacity((outputs * parts(inputs)) as usize); blocks.len()];
        for (output, part) in
            (0..outputs).flat_map(|output| (0..parts(inputs)).map(move |part| (output, part)))
        {
            let read = &mut Reader { layout, inputs: &mut blocks[0].inputs(self.strings, done) };
            let weights = self.rules.segment_weights(read, &matrix, products[0], output, part)?;
            let weights = step::Weights::read(format, &weights);
            for (words, row) in words.iter_mut().zip(&rows) {
                words.push(step::word(step::product(&weights, &row[part as usize])));
            }
        }
        blocks.iter_mut().zip(&words).for_each(|(block, words)| block.push(words));
        Ok(())
    }

    /// Words of coordinates that share their work, from the first of them on: as the rules give them one by one.
    fn many(&self, first: &Coordinate, inputs: &mut dyn Inputs) -> Result<Option<Vec<u32>>, RuleError> {
        let layout = self.rules.layout();
        let all = layout.vocabulary as usize;
        let read = &mut Reader { layout, inputs };
        Ok(Some(match *first {
            Coordinate::Standing { token, word: 0 } => self.rules.standing(read, token)?.to_vec(),
            Coordinate::Presence { row, token: 0 } => {
                let mut words = self.row_before(read, row, |row| Coordinate::Presence { row, token: 0 })?;
                let first = row * IDS;
                for id in read.ids(Source::Given, first, IDS.min(layout.given - first))? {
                    words.get_mut(id as usize).into_iter().for_each(|word| *word = 1);
                }
                words
            }
            Coordinate::Repeats { row, token: 0 } => {
                let mut words = self.row_before(read, row, |row| Coordinate::Repeats { row, token: 0 })?;
                let (first, resumed) = (row * IDS, layout.resumed);
                let ids =
                    read.ids(Source::Given, layout.given - resumed + first, IDS.min(resumed - first))?;
                count(&mut words, &ids);
                words
            }
            Coordinate::Count { output, token: 0 } => {
                let mut words = match layout.repeat_rows.checked_sub(1) {
                    None => vec![0; all],
                    Some(row) => read.words(Coordinate::Repeats { row, token: 0 }, layout.vocabulary)?,
                };
                count(&mut words, &read.ids(Source::Output, 0, output)?);
                words
            }
            Coordinate::SelectionSum { output, by, round, tile, digit: 0 } => {
                let mut sums = match tile.checked_sub(1) {
                    None => vec![0; DIGITS as usize],
                    Some(tile) => {
                        read.sums(Coordinate::SelectionSum { output, by, round, tile, digit: 0 }, by, DIGITS)?
                    }
                };
                for (digit, weight) in self.rules.selection_tile(read, output, by, round, tile)? {
                    let sum = &mut sums[usize::from(digit)];
                    *sum = sum.wrapping_add(weight);
                }
                match by {
                    By::Count => sums.iter().map(|sum| *sum as u32).collect(),
                    By::Weight => sums.iter().flat_map(|sum| [*sum as u32, (*sum >> 32) as u32]).collect(),
                }
            }
            _ => return Ok(None),
        }))
    }

    /// The row of so many tokens before this one; zeros before the first.
    fn row_before(
        &self,
        read: &mut Reader<'_>,
        row: u64,
        at: impl Fn(u64) -> Coordinate,
    ) -> Result<Vec<u32>, RuleError> {
        let all = self.rules.layout().vocabulary;
        row.checked_sub(1).map_or(Ok(vec![0; all as usize]), |before| read.words(at(before), all))
    }
}

/// Counts ids that are tokens.
fn count(counts: &mut [u32], ids: &[u32]) {
    for id in ids {
        counts.get_mut(*id as usize).into_iter().for_each(|count| *count = count.wrapping_add(1));
    }
}

/// Words of a stage that read nothing of it but each other.
struct Block<'a> {
    /// The first of them, by its index in the trace.
    first: u64,
    own: &'a mut [u8],
    /// How many bytes are there.
    filled: usize,
}

impl Block<'_> {
    fn push(&mut self, words: &[u32]) {
        let places = self.own[self.filled..].as_chunks_mut().0;
        places.iter_mut().zip(words).for_each(|(place, word)| *place = word.to_le_bytes());
        self.filled += 4 * words.len();
    }

    fn inputs<'a, F>(&'a self, strings: &'a Strings<F>, done: &'a [u8]) -> Partial<'a, F> {
        Partial { strings, done, own_at: 4 * self.first, own: &self.own[..self.filled] }
    }
}

/// A trace while it is made, for the rules of one block.
struct Partial<'a, F> {
    strings: &'a Strings<F>,
    /// All stages before this one.
    done: &'a [u8],
    /// Where the block begins, in bytes.
    own_at: u64,
    /// What there is of it.
    own: &'a [u8],
}

impl<F: AsRef<[u8]>> Inputs for Partial<'_, F> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        if source != Source::Trace {
            return self.strings.read(source, at, out);
        }
        let (bytes, at_here) = match at.checked_sub(self.own_at) {
            Some(at) => (self.own, at),
            None => (self.done, at),
        };
        let absent = RuleError::Absent { of: source, at };
        let bytes = bytes.get(at_here as usize..).and_then(|bytes| bytes.get(..out.len())).ok_or(absent)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        self.strings.grammar()
    }
}

/// A whole trace and all its strings, for any rule.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a, F, B = Vec<u8>> {
    /// The trace.
    pub trace: &'a Trace<B>,
    /// Its strings.
    pub strings: &'a Strings<F>,
}

impl<F: AsRef<[u8]>, B: AsRef<[u8]>> Inputs for Whole<'_, F, B> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        if source != Source::Trace {
            return self.strings.read(source, at, out);
        }
        let absent = RuleError::Absent { of: source, at };
        let bytes = usize::try_from(at).ok().and_then(|at| whole(&self.trace.hashed).get(at..));
        out.copy_from_slice(bytes.and_then(|bytes| bytes.get(..out.len())).ok_or(absent)?);
        Ok(())
    }

    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        self.strings.grammar()
    }
}

/// Notes which chunks are read.
pub(super) struct Recording<I> {
    inputs: I,
    /// Whether the grammar is.
    grammar: bool,
    chunks: BTreeSet<(Source, u64)>,
}

impl<I> Recording<I> {
    pub(super) fn new(inputs: I) -> Recording<I> {
        Recording { inputs, grammar: false, chunks: BTreeSet::new() }
    }

    pub(super) fn note(&mut self, source: Source, at: u64, length: u64) {
        let last = (at + length.max(1) - 1) / CHUNK_BYTES;
        self.chunks.extend((at / CHUNK_BYTES..=last).map(|chunk| (source, chunk)));
    }

    /// The chunks of each string that was read, in order.
    pub(super) fn by_source(&self) -> BTreeMap<Source, Vec<u64>> {
        let mut all: BTreeMap<Source, Vec<u64>> = BTreeMap::new();
        self.chunks.iter().for_each(|(source, chunk)| all.entry(*source).or_default().push(*chunk));
        all
    }
}

impl<I: Inputs> Inputs for Recording<I> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        self.inputs.read(source, at, out)?;
        self.note(source, at, out.len() as u64);
        Ok(())
    }

    fn grammar(&mut self) -> Result<Arc<Grammar>, RuleError> {
        self.grammar = true;
        self.inputs.grammar()
    }
}

/// Whether a chunk is below a node.
fn holds(node: &Node, chunk: u64) -> bool {
    (node.first..node.end()).contains(&chunk)
}

/// How many bytes the leaf for `word` shows, with the values beside them, in a game over a whole trace (D-5.8).
///
/// `inputs` need be nobody's: all of them but the plan say little about it.
///
/// # Errors
/// `RuleError` if there is no such word, or it reads what is not there.
pub fn leaf_bytes(statement: &Statement, inputs: &mut dyn Inputs, word: u64) -> Result<u64, RuleError> {
    let layout = statement.layout();
    let absent = RuleError::Absent { of: Source::Trace, at: word.saturating_mul(4) };
    let (coordinate, _) = layout.coordinate(word).ok_or(absent)?;
    let mut recording = Recording::new(inputs);
    statement.rules().compute(&coordinate, &mut recording)?;
    recording.note(Source::Trace, 4 * word, 4);
    let trace = Tree::derived(domain::TRACE, 4 * layout.words()).ok_or(absent)?;
    let nodes = nodes_at_leaf(trace.root(), 4 * word / CHUNK_BYTES);
    let shown = recording.by_source().into_iter().map(|(source, chunks)| match source {
        Source::Trace => trace.opening_bytes(nodes.iter().copied(), &chunks),
        other => {
            let tree = statement.tree(other)?;
            tree.opening_bytes([tree.root()], &chunks)
        }
    });
    shown.sum::<Option<u64>>().ok_or(absent)
}

/// The nodes that are agreed when a game has come down to the bytes that hold a chunk, and their own node.
fn nodes_at_leaf(root: Node, chunk: u64) -> Vec<Node> {
    let (mut nodes, mut own) = (Vec::new(), root);
    while own.chunks > BYTES_CHUNKS_MAX {
        for _ in 0..DIVISION_DEPTH {
            let Some((left, right)) = own.children() else { break };
            own = if holds(&left, chunk) { left } else { right };
            nodes.extend((own == right).then_some(left));
        }
    }
    nodes.push(own);
    nodes
}
