//! The trickle: in idle time a worker computes one of its own answers again, by other kernels, and trusts itself no longer
//! if the result is another.
//!
//! In:     answers as they are receipted. Out: that one of them was wrong.
//! Touches: memory for one answer; one thread, now and then.
//! Holds:  it computes only while nothing is served, and waits where something is; two kernels and a second pass over the
//!         weights must agree, so that a bit that flipped in memory is seen.
//! Absent: what is done then (`serve`).

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use surety_engine::{Model, replay::ReplayError};
use surety_kernels::{Backend, Executor};
use surety_proof::check::{Expected, check_answer};
use surety_types::{ModelId, Receipt, Signed};

use super::{Discrepancy, answer_of, recompute};
use crate::money::Case;

/// An answer of more positions is not taken: the second pass is slow.
const POSITIONS_MAX: u32 = 512;

/// The last answer that is short enough.
#[derive(Default)]
pub(crate) struct Trickle(Mutex<Option<(ModelId, Case)>>);

impl Trickle {
    /// Offers an answer that was receipted.
    pub(crate) fn offer(&self, case: &Case) {
        let Ok(receipt) = Signed::<Receipt>::open(&case.evidence.receipt) else { return };
        if receipt.prompt_tokens.saturating_add(receipt.output_tokens) <= POSITIONS_MAX {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((receipt.model, case.clone()));
        }
    }

    /// The answer whose turn it is; it is not given twice.
    pub(crate) fn take(&self) -> Option<(ModelId, Case)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Computes an answer again with the kernels that define the arithmetic, or, where those served it, with the fastest; what is
/// wrong, if anything is. That it cannot be computed now is nothing wrong. `wait` is called between pieces.
pub(crate) fn compute_again(
    model: &Model,
    served_by: Backend,
    case: Case,
    mut wait: impl FnMut(),
) -> Result<(), Discrepancy> {
    let backend = if served_by == Backend::Scalar { Backend::detect() } else { Backend::Scalar };
    let executor = match Executor::new(backend, NonZeroUsize::MIN) {
        Ok(executor) => executor,
        Err(error) => {
            tracing::debug!(%error, "an answer cannot be computed again");
            return Ok(());
        }
    };
    let answer = answer_of(case.evidence, case.salt);
    let checked = match check_answer(&answer, &Expected::default()) {
        Ok(checked) => checked,
        Err(fault) => {
            tracing::warn!(%fault, "an answer of this worker's own does not keep to its receipt");
            return Ok(());
        }
    };
    match recompute(model, &executor, &checked, &answer, &mut |_, _| wait()) {
        Ok(_) | Err(Discrepancy::Replay(ReplayError::OutOfMemory(_))) => Ok(()),
        Err(discrepancy) => Err(discrepancy),
    }
}
