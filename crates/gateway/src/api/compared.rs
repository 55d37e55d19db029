//! Compared: the answers of an upstream whose operator says which model it runs, before they are told and after.
//!
//! In:     answers that are whole; what is known of their workers. Out: what is said of them, or why they are not told.
//! Touches: workers that compute that model, through `comparisons`.
//! Holds:  nobody is charged for a comparison; what was asked for as `statistical` or more is not told once its worker is taken for
//!         another model's.
//! Absent: the statistic (`comparisons`).

use std::{pin::pin, sync::Arc};

use surety_types::{PublicKey, receipt::NO_ARITHMETIC};

use super::{ask::Ask, generate::stopping, shapes::SuretyNote};
use crate::{
    comparisons::{self, Subject},
    error::ApiError,
    gateway::Shared,
    journal::trail::Trail,
    route::{Demand, Resolved, preferences::Tier, upstream_note},
    session::Finished,
};

/// What was made sure of by it.
const COMPARED: &str = "its text was compared with a fresh answer of the model that it is said to be of, by how likely that model finds \
                        both (R-14): another model shows over many answers, one alone shows little";

/// Refuses what is to be compared, where nobody could compute what it is compared with for nothing: nobody is charged for that.
pub(super) fn can_be(shared: &Shared, ask: &Ask, model: &Resolved) -> Result<(), ApiError> {
    let claims = model.claims.ok_or_else(|| ApiError::bug("an answer is to be compared with nothing"))?;
    let claimed = shared.workers.resolve(&claims.to_string())?;
    let preferences = comparisons::for_nothing(comparisons::preferences_of(&ask.preferences, &[]));
    let demand = Demand {
        model: &claimed,
        preferences: &preferences,
        max_output_tokens: ask.max_output_tokens,
        context_tokens_min: None,
        without: &[],
        apart: &[],
        affinity: None,
        orders: 1,
        trail: None,
    };
    shared.workers.quoted(&demand).map(drop).map_err(|error| {
        let message = format!("The answer could not be compared before its end. {}", error.message());
        error.with_message(message)
    })
}

/// The answers that can be compared with those of the model that they are said to be of.
pub(super) fn subjects(shared: &Shared, ask: &Ask, model: &Resolved, finished: &[Finished]) -> Vec<Subject> {
    let Some(claims) = model.claims.filter(|_| model.tier == Tier::Statistical) else { return Vec::new() };
    let choices = ask.choices.max(1) as usize;
    let subject = |(index, finished): (usize, &Finished)| {
        let share = finished.whole.shares.last()?;
        let worker = share.part.worker;
        Some(Subject {
            worker,
            claims,
            request: ask.requests.get(index / choices)?.clone(),
            sampling: ask.sampling.clone(),
            max_output_tokens: ask.max_output_tokens,
            text: share.answer.text.clone(),
            preferences: comparisons::preferences_of(&ask.preferences, &shared.workers.kin(&[worker])),
        })
    };
    finished.iter().enumerate().filter_map(subject).collect()
}

/// Compares every answer before its end is told. Err: one could not be, or its worker is taken for another model's.
pub(super) async fn compare(
    shared: &Arc<Shared>,
    subjects: &[Subject],
    trail: &Trail,
    note: &mut SuretyNote,
) -> Result<(), ApiError> {
    if subjects.is_empty() {
        return Err(ApiError::bug("nothing of an answer is compared that is to be"));
    }
    let mut halted = pin!(shared.halted());
    for subject in subjects {
        let preferences = comparisons::for_nothing(subject.preferences.clone());
        let subject = Subject { preferences, ..subject.clone() };
        let compared = tokio::select! {
            compared = comparisons::compare(shared, &subject) => compared?,
            () = &mut halted => return Err(stopping()),
        };
        comparisons::note(trail, &compared);
        if compared.differs {
            return Err(comparisons::differs(subject.worker, subject.claims));
        }
        let by = compared.by.to_string();
        if !note.checked_by.contains(&by) {
            note.checked_by.push(by);
        }
    }
    note.verification = "passed";
    note.checked.push(COMPARED.to_owned());
    Ok(())
}

/// Says which tier the answers are of, by all that is known of their workers now. Err: a lesser one than was asked for.
pub(super) fn tier(
    shared: &Shared,
    ask: &Ask,
    model: &Resolved,
    finished: &[Finished],
    note: &mut SuretyNote,
) -> Result<(), ApiError> {
    if model.arithmetic != NO_ARITHMETIC {
        return Ok(());
    }
    let shares = finished.iter().filter_map(|finished| finished.whole.shares.last());
    let workers: Vec<PublicKey> = shares.map(|share| share.part.worker).collect();
    let tier = shared.workers.tier_of_answers(model, &workers);
    if let (Some(wanted), Some(worker), Some(claims)) =
        (ask.preferences.verification, workers.last(), model.claims)
        && !tier.reaches(wanted)
    {
        return Err(comparisons::differs(*worker, claims));
    }
    note.tier = tier.name();
    note.note = Some(upstream_note(model.claims, tier));
    Ok(())
}
