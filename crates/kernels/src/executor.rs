//! The executor: one backend and one set of threads, on which every operation is a safe method.
//!
//! In:     a backend and a thread count.
//! Out:    the operations, defined in their own modules as methods of `Executor`.
//! Holds:  results never depend on either choice, only time does.
//! Absent: models. An executor knows matrices and rows, not layers.

use crate::backend::{Available, Backend};
use crate::pool::Pool;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Runs the operations on one backend and a fixed set of threads.
pub struct Executor {
    backend: Available,
    pool: Pool,
    /// Per thread, memory for what an item computes on the way.
    scratch: Vec<Mutex<Vec<f32>>>,
}

/// Why an executor could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The processor or operating system lacks the instructions.
    #[error("this machine cannot run the {0} backend")]
    Unavailable(Backend),
    /// The system would not start a thread.
    #[error("cannot start a compute thread")]
    Threads(#[source] std::io::Error),
}

impl Executor {
    /// An executor of `backend` on `threads` threads, the calling one among them.
    pub fn new(backend: Backend, threads: NonZeroUsize) -> Result<Executor, ExecutorError> {
        let backend = Available::new(backend).ok_or(ExecutorError::Unavailable(backend))?;
        let pool = Pool::new(threads).map_err(ExecutorError::Threads)?;
        let scratch = (0..threads.get()).map(|_| Mutex::default()).collect();
        Ok(Executor { backend, pool, scratch })
    }

    /// The backend the operations run on.
    pub fn backend(&self) -> Backend {
        self.backend.backend()
    }

    /// How many threads take part in an operation.
    pub fn threads(&self) -> NonZeroUsize {
        self.pool.threads()
    }

    pub(crate) fn available(&self) -> Available {
        self.backend
    }

    /// The scratch memory of thread `worker`, whatever is in it.
    pub(crate) fn scratch(&self, worker: usize) -> MutexGuard<'_, Vec<f32>> {
        self.scratch[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }
}
