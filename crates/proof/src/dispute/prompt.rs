//! The prompt: that the ids given to the model are not what the request renders to.
//!
//! In:     a trace that both sides hold to be the answer's; the request and the template, whole; what a challenger shows.
//! Out:    that the model was given another prompt, or why this does not show it.
//! Touches: nothing.
//! Holds:  no prompt is shown to be another that the model's tokenizer made of the request, whatever anybody sends or orders. The
//!         work is bounded by what a leaf may show, [`PROMPT_BYTES_MAX`] and the steps that the challenger names.
//! Absent: whether the ids are the tokenizer's own division of these bytes: another one is not told from it.
//!
//! Rules: D-7.5 … D-7.8.

use minicbor::{Decode, Encode};
use surety_template::{Limits, Template, Variables};
use surety_types::{Canonical, Invalid, Prompt, Request};

use super::game::Game;
use super::judge::{Shown, Statement, check_shown};
use super::layout::Coordinate;
use super::opening::OpeningError;
use super::rules::{Inputs, Reader, RuleError, Rules, Source};
use super::text::{ClaimError, opened, show};
use super::trace::{Recording, Strings, Trace, Whole};

/// Bytes of request and template together, at most: what fits into a call with the papers and all that shows the claim (D-7.7).
pub const PROMPT_BYTES_MAX: usize = 32 << 10;
/// Steps of rendering, at most.
pub const STEPS_MAX: u64 = 1 << 20;
/// Bytes that rendering makes, at most.
const RENDERED_BYTES_MAX: u64 = 16 << 20;

/// What is wrong with a prompt (D-7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PromptFault {
    /// This id is not what belongs there.
    #[n(0)]
    Id {
        /// From 0.
        #[n(0)]
        index: u32,
    },
    /// The ids are fewer or more, or spell less or more.
    #[n(1)]
    Length,
}

/// The challenger's claim that the prompt is another (D-7.5).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PromptClaim {
    /// What is wrong.
    #[n(0)]
    pub fault: PromptFault,
    /// Steps that rendering takes, at most.
    #[n(1)]
    pub steps: u64,
    /// All that shows it.
    #[n(2)]
    pub shown: Vec<Shown>,
}

impl Canonical for PromptClaim {
    const NAME: &'static str = "claim";
    const MAX_BYTES: usize = 24 << 10;

    fn check(&self) -> Result<(), Invalid> {
        if self.steps > STEPS_MAX {
            let problem = format!("is {}; at most {STEPS_MAX} are judged", self.steps);
            return Err(Invalid::new("steps", problem));
        }
        check_shown(&self.shown)
    }
}

/// Judges a claim that the prompt is another (D-7.5 … D-7.8). The caller has checked that request and template are those of order
/// and manifest, and no longer than is judged.
///
/// # Errors
/// `ClaimError` if it shows nothing.
pub fn judge_prompt(
    statement: &Statement,
    game: &Game,
    request: &Request,
    template: Option<&str>,
    claim: &PromptClaim,
) -> Result<(), ClaimError> {
    let mut opened = opened(statement, game, &claim.shown, |_| Err(OpeningError::Value))?;
    let facts = Facts { rules: statement.rules(), request, template };
    facts.check(claim.fault, claim.steps, &mut opened)
}

/// What a claim is judged by, besides what it shows.
struct Facts<'a> {
    rules: &'a Rules,
    request: &'a Request,
    template: Option<&'a str>,
}

/// What a prompt must be.
enum Due<'a> {
    /// These ids.
    Ids(&'a [u32]),
    /// Ids that spell these bytes.
    Bytes(Vec<u8>),
}

impl<'a> Facts<'a> {
    /// What the prompt must be (D-7.6), and the steps that rendering took, of at most so many.
    fn due(&self, read: &mut Reader<'_>, steps: u64) -> Result<(Due<'a>, u64), ClaimError> {
        let entry = self.rules.header().spelling;
        let mut spelled = |id: Option<u32>| match id {
            None => Ok(Vec::new()),
            Some(id) => {
                let piece = self.rules.piece(read, id)?;
                self.rules.piece_bytes(read, piece)
            }
        };
        match &self.request.prompt {
            Prompt::Tokens(ids) => Ok((Due::Ids(ids), 0)),
            _ if !entry.prompts => Err(ClaimError::NotJudged),
            Prompt::Text(text) => {
                let bytes = [spelled(entry.first)?, text.as_bytes().to_vec(), spelled(entry.last)?].concat();
                Ok((Due::Bytes(bytes), 0))
            }
            Prompt::Chat { messages, tools } => {
                let limits = Limits { steps, bytes: RENDERED_BYTES_MAX, ..Limits::STANDARD };
                let source = self.template.ok_or(ClaimError::NotJudged)?;
                let template = Template::parse(source, &limits).map_err(|_| ClaimError::NotJudged)?;
                let (bos, eos) = (spelled(entry.bos)?, spelled(entry.eos)?);
                let variables = Variables {
                    messages,
                    tools,
                    add_generation_prompt: true,
                    bos_token: &String::from_utf8_lossy(&bos),
                    eos_token: &String::from_utf8_lossy(&eos),
                    date: self.request.date,
                };
                let rendered = template.render(&variables, &limits).map_err(|_| ClaimError::NotJudged)?;
                Ok((Due::Bytes(rendered.text.into_bytes()), rendered.steps))
            }
        }
    }

    /// Whether a fault is one. Rendering takes at most so many steps.
    fn check(&self, fault: PromptFault, steps: u64, inputs: &mut dyn Inputs) -> Result<(), ClaimError> {
        let layout = self.rules.layout();
        let read = &mut Reader { layout, inputs };
        let (due, _) = self.due(read, steps)?;
        let prompt = layout.prompt();
        let differs = match (fault, due) {
            (PromptFault::Id { index }, _) if u64::from(index) >= prompt => false,
            (PromptFault::Id { index }, Due::Ids(ids)) => {
                let id = read.ids(Source::Given, index.into(), 1)?[0];
                ids.get(index as usize).is_some_and(|due| *due != id)
            }
            (PromptFault::Length, Due::Ids(ids)) => ids.len() as u64 != prompt,
            (PromptFault::Id { index }, Due::Bytes(bytes)) => {
                let start = read.count_before(index.into(), |index| Coordinate::Spelled { index })?;
                let id = read.ids(Source::Given, index.into(), 1)?[0];
                let piece = self.rules.piece(read, id)?;
                let piece = self.rules.piece_bytes(read, piece)?;
                let due = bytes.get(start as usize..).and_then(|bytes| bytes.get(..piece.len()));
                due != Some(piece.as_slice())
            }
            (PromptFault::Length, Due::Bytes(bytes)) => {
                let spelled = read.count_before(prompt, |index| Coordinate::Spelled { index })?;
                u64::from(spelled) != bytes.len() as u64
            }
        };
        if differs { Ok(()) } else { Err(ClaimError::Right) }
    }
}

/// What is wrong with the prompt of an answer whose trace is at hand, if anything is that can be judged.
///
/// # Errors
/// `RuleError` if the strings are not those of the answer.
pub fn find_prompt_fault<F: AsRef<[u8]>, B: AsRef<[u8]>>(
    rules: &Rules,
    strings: &Strings<F>,
    trace: &Trace<B>,
    request: &Request,
    template: Option<&str>,
) -> Result<Option<PromptClaim>, RuleError> {
    let chat = matches!(request.prompt, Prompt::Chat { .. });
    let template = template.filter(|_| chat);
    if request.to_cbor().len() + template.map_or(0, str::len) > PROMPT_BYTES_MAX {
        return Ok(None);
    }
    let (layout, facts) = (rules.layout(), Facts { rules, request, template });
    let mut inputs = Whole { trace, strings };
    let read = &mut Reader { layout, inputs: &mut inputs };
    let Ok((due, steps)) = facts.due(read, STEPS_MAX) else { return Ok(None) };
    let ids = read.ids(Source::Given, 0, layout.prompt())?;
    let differs = match due {
        Due::Ids(due) => ids.iter().zip(due).position(|(id, due)| id != due),
        Due::Bytes(bytes) => {
            let (mut start, mut differs) = (0, None);
            for (index, id) in ids.iter().enumerate() {
                let piece = rules.piece(read, *id)?;
                let piece = rules.piece_bytes(read, piece)?;
                let end = start + piece.len();
                if bytes.get(start..end) != Some(piece.as_slice()) {
                    differs = Some(index);
                    break;
                }
                start = end;
            }
            differs
        }
    };
    let fault = differs.map_or(PromptFault::Length, |index| PromptFault::Id { index: index as u32 });
    let mut inputs = Recording::new(Whole { trace, strings });
    if facts.check(fault, steps, &mut inputs).is_err() {
        return Ok(None);
    }
    let shown = show(&inputs, strings, trace, None)?;
    Ok(Some(PromptClaim { fault, steps, shown }))
}
