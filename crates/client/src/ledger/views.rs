//! Many views as of one block.
//!
//! In:     calls of the modules, one after the other; some depend on what others return.
//! Out:    what they return, all as of one block.
//! Touches: nothing itself.
//! Holds:  a call whose values are not known yet answers nothing, and those that do not depend on it are made all the same,
//!         so that what is missing is fetched together.

use std::collections::BTreeSet;

use alloy_primitives::Address;
use alloy_sol_types::SolCall;
use surety_chain::{ChainSpec, Execution, ExecutionError, StateKey, StateReader, execute::Header as Place};

use super::{Ledger, LedgerError, Viewed, call_at};

/// Calls as of one block.
pub struct Views<'a> {
    spec: &'a ChainSpec,
    state: &'a dyn StateReader,
    place: &'a Place,
    needs: BTreeSet<StateKey>,
    failed: Option<Failed>,
}

enum Failed {
    Call(LedgerError),
    Execution(ExecutionError),
}

impl Views<'_> {
    /// What a call returns; nothing where that is not known yet.
    pub fn call<C: SolCall>(&mut self, to: Address, call: &C) -> Option<C::Return> {
        let executed = call_at(self.spec, self.state, self.place, to, call);
        match self.read(|_, _| executed)? {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.get_or_insert(Failed::Call(error));
                None
            }
        }
    }

    /// What another reader reads; nothing where that is not known yet.
    pub fn read<T>(
        &mut self,
        read: impl FnOnce(&dyn StateReader, &Place) -> Result<Execution<T>, ExecutionError>,
    ) -> Option<T> {
        match read(self.state, self.place) {
            Ok(Execution::Done(value)) => Some(*value),
            Ok(Execution::Needs(keys)) => {
                self.needs.extend(keys);
                None
            }
            Err(error) => {
                self.failed.get_or_insert(Failed::Execution(error));
                None
            }
        }
    }

    /// Where the next block stands.
    #[must_use]
    pub fn place(&self) -> &Place {
        self.place
    }
}

impl Ledger {
    /// Asks several things as of one block. `ask` runs several times, and answers nothing while something is missing.
    pub async fn views<T>(
        &self,
        ask: impl Fn(&mut Views<'_>) -> Option<T>,
    ) -> Result<Viewed<T>, LedgerError> {
        let Viewed { tip, value } = self
            .read(|state, place| {
                let mut views =
                    Views { spec: self.spec(), state, place, needs: BTreeSet::new(), failed: None };
                let answer = ask(&mut views);
                // Among values that are missing a refusal means nothing.
                if !views.needs.is_empty() {
                    return Ok(Execution::Needs(views.needs.into_iter().collect()));
                }
                Ok(Execution::Done(Box::new(match (views.failed, answer) {
                    (Some(Failed::Execution(error)), _) => return Err(error),
                    (Some(Failed::Call(error)), _) => Err(error),
                    (None, Some(answer)) => Ok(answer),
                    (None, None) => Err(LedgerError::Returns("answer to the whole question")),
                })))
            })
            .await?;
        Ok(Viewed { tip, value: value? })
    }
}
