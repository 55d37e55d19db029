//! Pairs: answers that two operators compute, told as far as both have said the same.
//!
//! In:     how far each of the two has come; what came of the answer for the caller.
//! Out:    what of that may be told now; how they differ, as soon as they do.
//! Touches: nothing.
//! Holds: : nothing is told before the check has said it too, and the last of it not before both have signed for all
//!         of it. What is told of a pair that came to differ is what both had said.
//! Absent: who computes them (`place`), what is done with the other's receipt (`generate`).

use std::collections::VecDeque;

use super::{
    Event, Finished,
    course::{Course, Position, Whole},
};

/// An answer and its check.
#[derive(Debug, Default)]
pub(super) struct Pair {
    /// The check was ordered.
    pub(super) begun: bool,
    /// What came of the answer and is not told, each with where it ends.
    held: VecDeque<(Position, Event)>,
    /// How far both are the same.
    same: Position,
    answer: Option<Finished>,
    check: Option<Finished>,
}

/// Where an answer and its check differ, in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) what: String,
    /// Output tokens that are the same.
    pub(super) tokens: usize,
}

impl Pair {
    /// Takes in what came of the answer.
    pub(super) fn hold(&mut self, answer: &Course, event: Event) {
        match event {
            Event::Finished(finished) => self.answer = Some(finished),
            event => self.held.push_back((position(answer), event)),
        }
    }

    /// Takes in the end of the check. What else came of it is in its course.
    pub(super) fn check(&mut self, event: Event) {
        if let Event::Finished(finished) = event {
            self.check = Some(finished);
        }
    }

    /// Compares what is new of both, and moves what may be told to `told`.
    pub(super) fn compare(
        &mut self,
        answer: &Course,
        check: &Course,
        told: &mut impl Extend<Event>,
    ) -> Result<(), Difference> {
        let ((ids, text), (their_ids, their_text)) = (answer.said(), check.said());
        let tokens = first_difference(ids, their_ids, self.same.tokens);
        let differs = |what: String| Difference { what, tokens };
        if let (Some(own), Some(theirs)) = (ids.get(tokens), their_ids.get(tokens)) {
            return Err(differs(format!(
                "token {theirs} where the answer has {own}, after {tokens} that are the same"
            )));
        }
        let bytes = first_difference(text.as_bytes(), their_text.as_bytes(), self.same.text);
        if bytes < text.len() && bytes < their_text.len() {
            return Err(differs(format!("another text, after {bytes} bytes that are the same")));
        }
        self.same = Position { tokens, text: bytes };
        if let (Some(answer), Some(check)) = (&self.answer, &self.check) {
            ends_alike(answer, check, (ids, text) == (their_ids, their_text)).map_err(differs)?;
            told.extend(self.held.drain(..).map(|(_, event)| event));
            if let (Some(answer), Some(check)) = (self.answer.take(), self.check.take()) {
                told.extend([Event::Finished(Finished { check: Some(check.whole), ..answer })]);
            }
            return Ok(());
        }
        // The last token's is not told before the end: nobody knows which it is.
        let is_told = |end: &Position| end.tokens < tokens && end.text <= bytes;
        while let Some((_, event)) = self.held.pop_front_if(|(end, _)| is_told(end)) {
            told.extend([event]);
        }
        Ok(())
    }

    /// The two that have ended, of a pair that came to differ.
    pub(super) fn ended(&mut self) -> impl Iterator<Item = Box<Whole>> {
        self.answer.take().into_iter().chain(self.check.take()).map(|finished| finished.whole)
    }
}

/// How far a course has come.
fn position(course: &Course) -> Position {
    let (ids, text) = course.said();
    Position { tokens: ids.len(), text: text.len() }
}

/// The first place, from `from`, at which both have something and it is not the same; or else where the shorter ends.
fn first_difference<T: PartialEq>(one: &[T], other: &[T], from: usize) -> usize {
    let same = one[from..].iter().zip(&other[from..]).take_while(|(one, other)| one == other);
    from + same.count()
}

/// Whether both ended for the same reason, after the same.
fn ends_alike(answer: &Finished, check: &Finished, same: bool) -> Result<(), String> {
    if !same {
        let tokens = |finished: &Finished| finished.whole.output_tokens;
        return Err(format!("an end after {} tokens where the answer has {}", tokens(check), tokens(answer)));
    }
    if answer.reason != check.reason {
        return Err(format!("the end `{}` where the answer has `{}`", check.reason, answer.reason));
    }
    if answer.vector() != check.vector() {
        return Err("another vector".to_owned());
    }
    Ok(())
}
