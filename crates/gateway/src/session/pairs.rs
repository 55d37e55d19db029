//! Pairs: answers that two operators compute, told as far as both have said the same.
//!
//! In:     how far each of the two has come; what came of the answer for the caller.
//! Out:    what of that may be told now; how they differ, as soon as they do, and what both then sign.
//! Touches: the courses of the session.
//! Holds: : nothing is told before the check has said it too, and the last of it not before both have signed for all
//!         of it. What is told of a pair that came to differ is what both had said.
//! Absent: who computes them (`place`), what is done with the other's receipt (`generate`).

use std::{collections::VecDeque, mem};

use surety_client::SessionEvent;
use surety_types::{Answer, Receipt, Signed, What};
use tokio::time::Instant;

use super::{
    Answering, Event, Finished, LAST_RECEIPTS, Stepped,
    course::{Course, Position, Whole},
    failure, is_silence, let_go,
    place::Leg,
    step,
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

impl Answering {
    /// The course of the same answer, if it is computed twice.
    pub(super) fn partner(&self, index: usize) -> Option<usize> {
        let answers = self.pairs.len();
        (answers > 0).then(|| if index < answers { index + answers } else { index - answers })
    }

    /// Takes in what came of an answer that is checked, or of its check.
    pub(super) fn paired(&mut self, index: usize, event: Option<Event>) {
        let answers = self.pairs.len();
        let at = index % answers;
        let (pair, answer, check) = (&mut self.pairs[at], &self.courses[at], &self.courses[at + answers]);
        match event {
            Some(event) if index < answers => pair.hold(answer, event),
            Some(event) => pair.check(event),
            None => {}
        }
        let mut told = Vec::new();
        let compared = pair.compare(answer, check, &mut told);
        let is_whole = matches!(told.last(), Some(Event::Finished(_)));
        self.told.extend(told.into_iter().map(|event| (at, event)));
        let (Some(worker), Some(checker)) = (answer.said_by, check.said_by) else { return };
        let trail = &self.desk.trail;
        let noted = |what: &str, tokens| trail.noted(What::Compared, checker, None, tokens, what);
        match compared {
            Ok(()) if is_whole => noted("it is the same", answer.said().0.len()),
            Ok(()) => {}
            Err(Difference { what, tokens }) => {
                noted(&what, tokens);
                for share in self.pairs[at].ended().flat_map(|whole| whole.shares) {
                    trail.signed(share.part.order, &share.answer, None);
                }
                let error = failure::differs(worker, checker, &what);
                self.differing = Some((error, Instant::now() + LAST_RECEIPTS));
                self.leave.send_replace(true);
            }
        }
    }

    /// Hears the workers out whose answers differ: what they sign is kept.
    pub(super) fn parts(&mut self, stepped: Stepped) {
        match stepped {
            Stepped::Said(index, leg, Ok(event)) => match event {
                SessionEvent::Finished(completed) => self.signed(&leg, &completed.answer, &completed.receipt),
                SessionEvent::Refused(refusal) => self.signed(&leg, &refusal.answer, &refusal.receipt),
                _ => self.leave_leg(index, leg),
            },
            Stepped::Said(_, leg, Err(error)) => {
                if let Some(answer) = leg.session.so_far() {
                    self.desk.trail.signed(leg.session.order().digest(), &answer, None);
                }
                if is_silence(&error) {
                    leg.unreceipted();
                }
            }
            Stepped::Slow(index, leg) | Stepped::Alive(index, leg) => self.leave_leg(index, leg),
            Stepped::Placed(_, _, Ok(leg)) => let_go(leg, false),
            Stepped::Placed(..) | Stepped::LetGo(..) => {}
        }
    }

    fn signed(&self, leg: &Leg, answer: &Answer, receipt: &Signed<Receipt>) {
        self.desk.trail.signed(leg.session.order().digest(), answer, Some(receipt.bytes()));
    }

    /// Has a leg stop, and hears it to its receipt.
    fn leave_leg(&self, index: usize, mut leg: Box<Leg>) {
        // Nobody is asked beside it any more.
        leg.hedge_at = None;
        leg.silence = LAST_RECEIPTS;
        let (leader, leave) = (self.courses[index].leader.subscribe(), self.leave.subscribe());
        self.running.push(Box::pin(async move {
            leg.session.cancel().await;
            step(index, leg, leader, leave).await
        }));
    }

    /// Seeks another operator's worker for an answer that was accepted and is to be checked, once.
    pub(super) fn begin_check(&mut self, index: usize) {
        let Some(pair) = self.pairs.get_mut(index) else { return };
        if mem::replace(&mut pair.begun, true) {
            return;
        }
        let check = index + self.pairs.len();
        let agreed = self.courses[index].agreed();
        self.courses[check].agree(agreed);
        self.place(check);
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
