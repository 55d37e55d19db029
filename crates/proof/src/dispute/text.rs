//! The text: that a receipt's is not what the ids of its answer spell.
//!
//! In:     a trace that both sides hold to be the answer's; the text's digest; the request; what a challenger shows of them.
//! Out:    that the text is another, or why this does not show it.
//! Touches: nothing.
//! Holds:  no text is shown to be another that a worker sent as say, whatever anybody sends or orders. The
//!         work is bounded by what a leaf may show.
//! Absent: which ids the model samples: that is the trace's.
//!
//! Rules: D-7.1 … D-7.4.

use std::collections::BTreeSet;
use std::ops::Range;

use minicbor::{Decode, Encode};
use surety_types::digest::domain;
use surety_types::{Canonical, FinishReason, Invalid, Request};

use super::game::Game;
use super::judge::{Opened, SHOWN_BYTES_MAX, Shown, Statement, check_shown, is_in_order, shown_bytes};
use super::opening::{CHUNK_BYTES, Hashed, Opening, OpeningError, Tree};
use super::rules::{Inputs, Reader, RuleError, Rules, Source};
use super::trace::{Recording, Strings, Trace, Whole};

/// Outputs that a claim of a text that ends too early shows, at most.
pub const OUTPUTS_MAX: usize = 16;

/// What is wrong with a text (D-7.2).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TextFault {
    /// Byte `at` is not what this output releases there; the output past the last is the answer's end.
    #[n(0)]
    Byte {
        /// Of the text.
        #[n(0)]
        at: u64,
        /// From 0.
        #[n(1)]
        output: u32,
    },
    /// It is longer than what all outputs spell.
    #[n(1)]
    Long,
    /// It is shorter, and where it ends no stop string begins: of each these outputs show a byte that is another.
    #[n(2)]
    Short {
        /// From 0; the one past the last is the answer's end.
        #[n(0)]
        outputs: Vec<u32>,
    },
    /// A stop string is in it.
    #[n(3)]
    Stop {
        /// Where.
        #[n(0)]
        at: u64,
        /// Which of the request's.
        #[n(1)]
        stop: u8,
    },
}

/// The challenger's claim that the text is another (D-7.1).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TextClaim {
    /// How long the text is.
    #[n(0)]
    pub bytes: u64,
    /// What is wrong.
    #[n(1)]
    pub fault: TextFault,
    /// All that shows it.
    #[n(2)]
    pub shown: Vec<Shown>,
}

impl Canonical for TextClaim {
    const NAME: &'static str = "claim";
    const MAX_BYTES: usize = 24 << 10;

    fn check(&self) -> Result<(), Invalid> {
        if let TextFault::Short { outputs } = &self.fault
            && outputs.len() > OUTPUTS_MAX
        {
            let problem = format!("names {}; at most {OUTPUTS_MAX} are allowed", outputs.len());
            return Err(Invalid::new("outputs", problem));
        }
        check_shown(&self.shown)
    }
}

/// Why a claim shows nothing. That is no verdict, but a move that was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The worker has not named its trace.
    #[error("there is no trace yet")]
    NoTrace,
    /// It shows more than a judge reads: so many bytes, with the values beside them.
    #[error("a claim of {0} bytes; at most {SHOWN_BYTES_MAX} are read")]
    TooLarge(usize),
    /// It opens a string twice, or strings not in their order.
    #[error("a claim opens each string once, in their order")]
    Order,
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
    #[error("it cannot be computed from what is shown")]
    Rule(#[from] RuleError),
    /// The request is not shown, and has a part in it.
    #[error("the request is needed")]
    NoRequest,
    /// D-7.3, D-7.7
    #[error("this is not judged")]
    NotJudged,
    /// The end of the text is not shown.
    #[error("the text's last chunk is not shown, which proves its length")]
    NoEnd,
    /// The trace says what the receipt says.
    #[error("it is as it should be")]
    Right,
}

/// Judges a claim that the text is another (D-7.1 … D-7.4).
///
/// # Errors
/// `ClaimError` if it shows nothing.
pub fn judge_text(
    statement: &Statement,
    game: &Game,
    request: Option<&Request>,
    finish: FinishReason,
    claim: &TextClaim,
) -> Result<(), ClaimError> {
    let digest = statement.text_digest();
    let tree = Tree::derived(domain::OUTPUT_TEXT, claim.bytes);
    let tree = tree.ok_or(ClaimError::Opening { of: Source::Text, why: OpeningError::Value })?;
    let mut ends = false;
    let opened = opened(statement, game, &claim.shown, |opening| {
        tree.check(&digest.0, opening)?;
        ends = opening.chunks().any(|(index, _)| index + 1 == tree.root().end());
        Ok(())
    });
    let facts = Facts { rules: statement.rules(), request, finish, bytes: claim.bytes };
    facts.check(&claim.fault, ends, &mut opened?)
}

/// What a claim shows, each opening checked; those of the text by `text`.
pub(super) fn opened<'a>(
    statement: &Statement,
    game: &Game,
    shown: &'a [Shown],
    mut text: impl FnMut(&Opening) -> Result<(), OpeningError>,
) -> Result<Opened<'a>, ClaimError> {
    if game.digest().is_none() {
        return Err(ClaimError::NoTrace);
    }
    if !is_in_order(shown) {
        return Err(ClaimError::Order);
    }
    let bytes = shown_bytes(shown);
    if bytes > SHOWN_BYTES_MAX {
        return Err(ClaimError::TooLarge(bytes));
    }
    for Shown { source, opening } in shown {
        let opens = match source {
            Source::Trace => game.check_whole(opening),
            Source::Text => text(opening),
            other => statement.check(*other, opening),
        };
        opens.map_err(|why| ClaimError::Opening { of: *source, why })?;
    }
    Ok(Opened::of(shown, 4 * statement.layout().words()))
}

/// What a claim is judged by, besides what it shows.
struct Facts<'a> {
    rules: &'a Rules,
    request: Option<&'a Request>,
    finish: FinishReason,
    /// The text's length.
    bytes: u64,
}

/// What an output releases, and where that lies in the text.
struct Released {
    at: u64,
    text: String,
}

impl Released {
    fn range(&self) -> Range<u64> {
        self.at..self.at + self.text.len() as u64
    }
}

impl Facts<'_> {
    /// Whether a fault is one. `ends` says that the text is known to have the length it is said to have.
    fn check(&self, fault: &TextFault, ends: bool, inputs: &mut dyn Inputs) -> Result<(), ClaimError> {
        let layout = self.rules.layout();
        let read = &mut Reader { layout, inputs };
        let proven = || if ends { Ok(()) } else { Err(ClaimError::NoEnd) };
        let shows = |holds: bool| if holds { Ok(()) } else { Err(ClaimError::Right) };
        match fault {
            TextFault::Byte { at, output } => {
                self.require_begin()?;
                let released = self.released(read, *output)?;
                if !released.range().contains(at) {
                    return Err(ClaimError::Right);
                }
                let mut byte = [0];
                read.inputs.read(Source::Text, *at, &mut byte)?;
                shows(byte[0] != released.text.as_bytes()[(at - released.at) as usize])
            }
            TextFault::Long => {
                self.require_begin()?;
                proven()?;
                shows(self.bytes > self.whole(read)?)
            }
            TextFault::Short { outputs } => {
                self.require_begin()?;
                proven()?;
                if !matches!(self.finish, FinishReason::Stop | FinishReason::Length) {
                    return Err(ClaimError::NotJudged);
                }
                let whole = self.whole(read)?;
                let mut known = Vec::new();
                for output in outputs.iter().take(OUTPUTS_MAX) {
                    known.push(self.released(read, *output)?);
                }
                let stops = &self.request.ok_or(ClaimError::NoRequest)?.stop;
                let is_none = |stop: &String| {
                    let mut places = (self.bytes..).zip(stop.bytes());
                    self.bytes + stop.len() as u64 > whole
                        || places.any(|(at, byte)| {
                            let released = known.iter().find(|released| released.range().contains(&at));
                            released.is_some_and(|own| own.text.as_bytes()[(at - own.at) as usize] != byte)
                        })
                };
                shows(self.bytes < whole && stops.iter().all(is_none))
            }
            TextFault::Stop { at, stop } => {
                let stops = &self.request.ok_or(ClaimError::NoRequest)?.stop;
                let stop = stops.get(usize::from(*stop)).ok_or(ClaimError::Right)?;
                let mut found = vec![0; stop.len()];
                read.inputs.read(Source::Text, *at, &mut found)?;
                shows(!stop.is_empty() && found == stop.as_bytes())
            }
        }
    }

    /// D-7.3: a resumed answer whose text may begin with what was held back for a stop string is not judged.
    fn require_begin(&self) -> Result<(), ClaimError> {
        if self.rules.layout().resumed == 0 {
            return Ok(());
        }
        let request = self.request.ok_or(ClaimError::NoRequest)?;
        if request.stop.is_empty() { Ok(()) } else { Err(ClaimError::NotJudged) }
    }

    /// What an output releases: of the one past the last what is held back at the end.
    fn released(&self, read: &mut Reader<'_>, output: u32) -> Result<Released, ClaimError> {
        let layout = self.rules.layout();
        if u64::from(output) > layout.outputs {
            return Err(ClaimError::Right);
        }
        let token = layout.resumed + u64::from(output);
        let (length, mut held) = self.rules.text_before(read, token)?;
        let text = match u64::from(output) == layout.outputs {
            true => held.finish(),
            false => held.push(&self.rules.text_piece(read, token)?),
        };
        let (begin, _) = self.rules.text_before(read, layout.resumed)?;
        let at = length.checked_sub(begin).ok_or(ClaimError::Right)?;
        Ok(Released { at: at.into(), text })
    }

    /// How long the text is that all outputs spell.
    fn whole(&self, read: &mut Reader<'_>) -> Result<u64, ClaimError> {
        let outputs = self.rules.layout().outputs;
        Ok(self.released(read, outputs as u32)?.range().end)
    }
}

/// What is wrong with the text of an answer whose trace is at hand, if anything is that can be judged.
///
/// # Errors
/// `RuleError` if the strings are not those of the answer.
pub fn find_text_fault<F: AsRef<[u8]>, B: AsRef<[u8]>>(
    rules: &Rules,
    strings: &Strings<F>,
    trace: &Trace<B>,
    request: &Request,
    finish: FinishReason,
    text: &str,
) -> Result<Option<TextClaim>, RuleError> {
    let layout = rules.layout();
    if layout.resumed > 0 && !request.stop.is_empty() {
        return Ok(None);
    }
    // What the outputs release, and where each begins.
    let inputs = &mut Whole { trace, strings };
    let read = &mut Reader { layout, inputs };
    let (_, mut held) = rules.text_before(read, layout.resumed)?;
    let (mut spelled, mut starts) = (String::new(), Vec::new());
    for output in 0..layout.outputs {
        starts.push(spelled.len());
        spelled += &held.push(&rules.text_piece(read, layout.resumed + output)?);
    }
    starts.push(spelled.len());
    spelled += &held.finish();
    let output_at = |at: usize| (starts.partition_point(|start| *start <= at) - 1) as u32;
    let differs = text.bytes().zip(spelled.bytes()).position(|(own, right)| own != right);
    let stop_in = || {
        let found = |(stop, own): (usize, &String)| Some((text.find(own.as_str())?, stop));
        request.stop.iter().enumerate().find_map(found)
    };
    let fault = if let Some(at) = differs {
        TextFault::Byte { at: at as u64, output: output_at(at) }
    } else if text.len() > spelled.len() {
        TextFault::Long
    } else if let Some((at, stop)) = stop_in() {
        TextFault::Stop { at: at as u64, stop: stop as u8 }
    } else if text.len() < spelled.len() && matches!(finish, FinishReason::Stop | FinishReason::Length) {
        let rest = &spelled.as_bytes()[text.len()..];
        let mut outputs = BTreeSet::new();
        for stop in request.stop.iter().filter(|stop| stop.len() <= rest.len()) {
            let Some(other) = stop.bytes().zip(rest).position(|(a, b)| a != *b) else { return Ok(None) };
            outputs.insert(output_at(text.len() + other));
        }
        if outputs.len() > OUTPUTS_MAX {
            return Ok(None);
        }
        TextFault::Short { outputs: outputs.into_iter().collect() }
    } else {
        return Ok(None);
    };
    let bytes = text.len() as u64;
    let Some(tree) = Tree::derived(domain::OUTPUT_TEXT, bytes) else { return Ok(None) };
    let text = Hashed::new(tree, text.as_bytes());
    let last = tree.root().end() - 1;
    let shows_end = matches!(fault, TextFault::Long | TextFault::Short { .. });
    let mut inputs = Recording::new(WithText { whole: Whole { trace, strings }, text: &text });
    let facts = Facts { rules, request: Some(request), finish, bytes };
    if facts.check(&fault, true, &mut inputs).is_err() {
        return Ok(None);
    }
    if shows_end {
        inputs.note(Source::Text, last * CHUNK_BYTES, 1);
    }
    let shown = show(&inputs, strings, trace, Some(&text))?;
    Ok(Some(TextClaim { bytes, fault, shown }))
}

/// Opens what was read against the digests of its strings.
pub(super) fn show<F: AsRef<[u8]>, B: AsRef<[u8]>, I>(
    read: &Recording<I>,
    strings: &Strings<F>,
    trace: &Trace<B>,
    text: Option<&Hashed<&[u8]>>,
) -> Result<Vec<Shown>, RuleError> {
    let shown = read.by_source().into_iter().map(|(source, chunks)| {
        let opening = match source {
            Source::Trace => trace.hashed().open_chunks(&chunks),
            Source::Text => text.and_then(|text| text.open_chunks(&chunks)),
            other => strings.open_chunks(other, &chunks),
        };
        let absent = RuleError::Absent { of: source, at: chunks[0] * CHUNK_BYTES };
        Ok(Shown { source, opening: opening.ok_or(absent)? })
    });
    shown.collect()
}

/// A trace, its strings, and the text that was sent.
struct WithText<'a, F, B> {
    whole: Whole<'a, F, B>,
    text: &'a Hashed<&'a [u8]>,
}

impl<F: AsRef<[u8]>, B: AsRef<[u8]>> Inputs for WithText<'_, F, B> {
    fn read(&mut self, source: Source, at: u64, out: &mut [u8]) -> Result<(), RuleError> {
        if source != Source::Text {
            return self.whole.read(source, at, out);
        }
        let absent = RuleError::Absent { of: source, at };
        let text = self.text.bytes_below(self.text.tree().root());
        let bytes = usize::try_from(at).ok().and_then(|at| text.get(at..));
        out.copy_from_slice(bytes.and_then(|bytes| bytes.get(..out.len())).ok_or(absent)?);
        Ok(())
    }
}
