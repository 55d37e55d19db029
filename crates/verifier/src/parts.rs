//! The envelope, and that its answers belong together.

use alloc::vec::Vec;

use crate::{
    Check, Found, Refusal, Report, Unchecked,
    check::{self, Checked, resumed_tokens},
    digest::{RECEIPT, digest},
    evidence::{Answer, Evidence},
    fault::Fault,
    records::{Value, acceptance, envelope as e, order as o, part, receipt},
};

/// Whether evidence holds.
pub(crate) fn check(evidence: &Evidence<'_>) -> Result<Report, Refusal> {
    let refused = |fault, answer| Err(Refusal { fault, answer });
    let mut found = Found::default();
    if !evidence.envelope.is_signed() {
        return refused(Fault::EnvelopeSignature, None);
    }
    found.check(Check::Envelope);
    found.leave(Unchecked::Gateway);
    let envelope = &evidence.envelope.values;
    let parts = envelope[e::PARTS].many();
    if parts.len() != evidence.answers.len() {
        return refused(Fault::PartCount, None);
    }

    let mut due = 0u128;
    let (mut course, mut wholes) = (Course::default(), Vec::<Whole<'_>>::new());
    let mut answers: Vec<Found> = Vec::new();
    let mut last: Option<(&Answer<'_>, Checked)> = None;
    let mut is_checked = false;
    for (index, (named, answer)) in parts.iter().map(Value::many).zip(&evidence.answers).enumerate() {
        let refused = |fault| Err(Refusal { fault, answer: Some(index) });
        let checked = match check::check(answer) {
            Ok(checked) => checked,
            Err(fault) => return refused(fault),
        };
        let order = &answer.order.values;
        let is_check = !named[part::PURPOSE].is_absent();
        let before_is_check =
            index.checked_sub(1).map(|before| !parts[before].many()[part::PURPOSE].is_absent());
        //
        let goes_on = match &last {
            Some((before, checked_before)) if !checked_before.is_end => {
                course.continues(&before.order.values, answer) && before_is_check == Some(is_check)
            }
            _ => order[o::RESUMED].is_absent() && (is_check || before_is_check != Some(true)),
        };
        if !goes_on {
            return refused(Fault::NotAContinuation);
        }
        //
        let receipt_digest = answer.receipt.as_ref().map(|receipt| digest(RECEIPT, &[receipt.message.bytes]));
        let is_part = named[part::ORDER].bytes() == Some(&checked.order_digest)
            && named[part::FIRST_OUTPUT_TOKEN].number() == resumed_tokens(order)
            && named[part::RECEIPT].bytes() == receipt_digest.as_ref()
            && named[part::WORKER].bytes() == Some(&checked.worker)
            && named[part::OUTPUT_TOKENS].number() == checked.output_tokens;
        if !is_part {
            return refused(Fault::OtherPart);
        }
        due = due.saturating_add(checked.charge);
        if let Some(whole) = course.extend(answer, &checked) {
            match wholes.iter().find(|other| is_same_answer(other.order, whole.order)) {
                _ if !is_check => wholes.push(whole),
                None => return refused(Fault::CheckOfNothing),
                Some(other) if !whole.repeats(other) => return refused(Fault::CheckDiffers),
                Some(_) => {}
            }
        }
        is_checked |= is_check;
        answers.push(checked.found);
        last = Some((answer, checked));
    }
    // A failure may stand alone, as the whole of what came.
    let is_unfinished = |(last, checked): &(&Answer<'_>, Checked)| {
        !checked.is_end && (last.receipt.is_none() || answers.len() > 1)
    };
    if last.as_ref().is_some_and(is_unfinished) {
        return refused(Fault::Unfinished, None);
    }
    found.check(Check::Parts);
    if evidence.answers.iter().any(|answer| !answer.order.values[o::RESUMED].is_absent()) {
        found.check(Check::Continuation);
    }
    if is_checked {
        found.check(Check::Repeated);
    }
    //
    if envelope[e::CHARGE].amount() != due {
        return refused(Fault::EnvelopeCharge, None);
    }
    Ok(Report { envelope: found, answers })
}

/// What the parts of one answer have given so far.
#[derive(Default)]
struct Course {
    ids: Vec<u32>,
    text: Vec<u8>,
    workers: Vec<[u8; 32]>,
    /// Output tokens of the whole answer, at most, by the first acceptance that an end came after.
    limit: Option<u64>,
}

impl Course {
    /// whether an answer's order asks for the rest of what `before` asked for.
    fn continues(&self, before: &[Value<'_>], answer: &Answer<'_>) -> bool {
        let order = &answer.order.values;
        // Nothing that was not signed is resumed from; starting anew resumes from nothing.
        let is_prefix = answer.resumed_ids.is_empty() || *answer.resumed_ids == self.ids;
        let limit = order[o::MAX_OUTPUT_TOKENS].number();
        let is_rest = self.limit.is_none_or(|all| all.checked_sub(resumed_tokens(order)) == Some(limit));
        is_same_answer(before, order) && is_prefix && is_rest
    }

    /// Takes in a part; the answer, if this brought it to its end.
    fn extend<'a>(&mut self, answer: &'a Answer<'_>, checked: &Checked) -> Option<Whole<'a>> {
        let order = &answer.order.values;
        if order[o::RESUMED].is_absent() {
            self.text.clear();
        }
        let resumed = resumed_tokens(order);
        self.ids.truncate(resumed as usize);
        self.ids.extend(answer.output_ids);
        self.text.extend(answer.text);
        self.workers.push(checked.worker);
        if let Some(said) = answer.receipt.as_ref().filter(|_| checked.is_end) {
            let Course { ids, text, workers, limit: _ } = core::mem::take(self);
            let finish = said.values[receipt::FINISH].number();
            return Some(Whole { order, ids, text, finish, vector: answer.embedding, workers });
        }
        if let Some(said) = &answer.acceptance {
            self.limit.get_or_insert(resumed + said.values[acceptance::MAX_OUTPUT_TOKENS].number());
        }
        None
    }
}

/// An answer that was brought to its end.
struct Whole<'a> {
    /// The last order of it.
    order: &'a [Value<'a>],
    ids: Vec<u32>,
    text: Vec<u8>,
    finish: u64,
    vector: Option<&'a [u8]>,
    workers: Vec<[u8; 32]>,
}

impl Whole<'_> {
    /// whether it is the same as another, and by nobody who gave that.
    fn repeats(&self, other: &Whole<'_>) -> bool {
        self.ids == other.ids
            && self.text == other.text
            && self.finish == other.finish
            && self.vector == other.vector
            && !self.workers.iter().any(|worker| other.workers.contains(worker))
    }
}

/// Whether two orders are for one answer: of one worker after another, or of two to be compared.
fn is_same_answer(one: &[Value<'_>], other: &[Value<'_>]) -> bool {
    const MAY_DIFFER: [usize; 6] =
        [o::CHANNEL, o::PRICE_CEILING, o::DEADLINE_MS, o::ISSUED_MS, o::MAX_OUTPUT_TOKENS, o::RESUMED];
    (0..one.len()).all(|at| MAY_DIFFER.contains(&at) || one[at] == other[at])
}
