//! The thread pool: runs numbered items of one job on a fixed set of threads.
//!
//! In:     a job (a function of a worker's and an item's number) and how many items it has.
//! Out:    every item run exactly once, on some thread, before `run` returns.
//! Touches: its own threads and each one's floating-point control.
//! Holds:  a job never outlives `run`; a panic in an item stops the job and reappears in the caller.
//! Absent: any say in results. Which thread runs an item is chance, so items must not depend on it.
//!
//! Threads spin a moment for the next job, then yield, then park. The caller works too, and a thread that
//! has not woken when the items run out is not waited for: on a busy machine that saves a scheduling delay.

#![allow(unsafe_code)]

use crate::fpcr;
use std::any::Any;
use std::cell::UnsafeCell;
use std::hint;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// Polls before a waiting thread starts to yield its processor: some tens of microseconds.
const SPINS: u32 = 1 << 10;
/// Yields before a waiting thread parks.
const YIELDS: u32 = 1 << 6;

/// A fixed set of threads, the caller of `run` among them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held while a job runs, so that callers on several threads take turns.
    turn: Mutex<()>,
}

impl Pool {
    /// Starts `count − 1` threads; the caller of `run` is the last.
    pub(crate) fn new(count: NonZeroUsize) -> std::io::Result<Pool> {
        let helpers = count.get() - 1;
        let shared = Arc::new(Shared::new(helpers));
        let mut pool = Pool { shared, threads: Vec::with_capacity(helpers), turn: Mutex::new(()) };
        for helper in 0..helpers {
            let shared = Arc::clone(&pool.shared);
            let name = format!("kernels-{}", helper + 1);
            // On failure the drop of `pool` stops the threads already started.
            pool.threads.push(thread::Builder::new().name(name).spawn(move || shared.help(helper))?);
        }
        Ok(pool)
    }

    /// How many threads take part in a job.
    pub(crate) fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add(self.threads.len())
    }

    /// Runs `item(worker, i)` once for every i below `items`, and returns when all are done.
    ///
    /// `worker` is below `threads()` and differs between items that run at the same time. If an item panics,
    /// items not yet begun are dropped and the panic continues here once the running ones have ended.
    pub(crate) fn run<F: Fn(usize, usize) + Sync>(&self, items: usize, item: F) {
        let _turn = lock(&self.turn);
        fpcr::set();
        if self.threads.is_empty() || items <= 1 {
            (0..items).for_each(|i| item(0, i));
            return;
        }
        let shared = &*self.shared;
        let work = |worker: usize| {
            loop {
                let i = shared.next.fetch_add(1, Ordering::Relaxed);
                if i >= items {
                    break;
                }
                item(worker, i);
            }
        };
        shared.open(&work);
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        if own.is_err() {
            shared.skip_rest();
        }
        shared.close();
        let theirs = lock(&shared.panic).take();
        if let Some(payload) = own.err().or(theirs) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.state.fetch_add(EPOCH, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A helper catches every panic of a job, so this never fails; were it to, dropping must not panic.
            let _ = thread.join();
        }
    }
}

/// One job's number in `Shared::state`; the low half counts the helpers inside it.
const EPOCH: u64 = 1 << 32;
/// Set in `Shared::state` while helpers may enter the job.
const OPEN: u64 = 1 << 31;
/// The helpers inside the job.
const INSIDE: u64 = OPEN - 1;

/// What a helper runs: a function of its worker number, on the stack of `Pool::run`.
type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Job number, whether it is open, and how many helpers are inside.
    state: AtomicU64,
    /// The open job; written only by the caller while none is open and no helper is inside.
    job: UnsafeCell<Option<Job>>,
    /// The next item no thread has taken.
    next: AtomicUsize,
    /// The first panic of a helper in this job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    /// Per helper: it is parked, or about to be, and who to wake.
    parked: Vec<Parked>,
    /// The same for the caller.
    caller: Parked,
}

// SAFETY: `job` is written only between jobs, by the one caller that holds `Pool::turn`, before the `OPEN` store
// that publishes it; helpers read it only after entering an open job. What it points to is `Sync`, and lives
// until `close` has seen the last helper leave.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// A thread that may be asleep.
#[derive(Default)]
struct Parked {
    asleep: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

impl Parked {
    /// Returns when `ready` does: spinning, then yielding, then parked. Whoever makes it ready calls `wake`.
    fn wait(&self, ready: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if ready() {
                return;
            }
            hint::spin_loop();
        }
        for _ in 0..YIELDS {
            if ready() {
                return;
            }
            thread::yield_now();
        }
        *lock(&self.thread) = Some(thread::current());
        // Either the waker sees `asleep` and unparks, or this thread sees what the waker did: both are SeqCst.
        self.asleep.store(true, Ordering::SeqCst);
        while !ready() {
            thread::park();
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = lock(&self.thread).as_ref()
        {
            thread.unpark();
        }
    }
}

impl Shared {
    fn new(helpers: usize) -> Shared {
        Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            parked: (0..helpers).map(|_| Parked::default()).collect(),
            caller: Parked::default(),
        }
    }

    /// Caller: offers `job` to the helpers. `close` must follow before `job` dies.
    fn open(&self, job: &(dyn Fn(usize) + Sync)) {
        self.next.store(0, Ordering::Relaxed);
        // SAFETY: only the lifetime is erased, and `close` ends every use before it does. The cell is not shared
        // now: the previous job is closed and left, and `Pool::turn` keeps other callers out.
        unsafe { *self.job.get() = Some(std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job)) };
        let epoch = self.state.load(Ordering::Relaxed) & !(OPEN | INSIDE);
        self.state.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        self.parked.iter().for_each(Parked::wake);
    }

    /// Caller: lets no more helpers in, and waits for those inside to leave.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::SeqCst);
        self.caller.wait(|| self.state.load(Ordering::SeqCst) & INSIDE == 0);
    }

    /// Makes the items not yet begun unreachable. Far from overflow: each thread adds one more at most.
    fn skip_rest(&self) {
        self.next.store(usize::MAX / 2, Ordering::Relaxed);
    }

    /// Helper: the life of a thread.
    fn help(&self, helper: usize) {
        fpcr::set();
        let mut seen = 0;
        loop {
            let epoch = |state: u64| state / EPOCH;
            self.parked[helper].wait(|| epoch(self.state.load(Ordering::SeqCst)) != seen);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let mut state = self.state.load(Ordering::SeqCst);
            seen = epoch(state);
            while state & OPEN != 0 && epoch(state) == seen {
                match self.state.compare_exchange(state, state + 1, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => {
                        self.work_inside(helper);
                        break;
                    }
                    Err(now) => state = now,
                }
            }
        }
    }

    fn work_inside(&self, helper: usize) {
        // SAFETY: this helper is counted in `INSIDE` of an open job, so the caller neither rewrites the cell nor
        // returns from `run`, where the job lives, until the count is given back below.
        let job = unsafe { &*(*self.job.get()).expect("an open job is set") };
        fpcr::set();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(helper + 1))) {
            self.skip_rest();
            lock(&self.panic).get_or_insert(payload);
        }
        if (self.state.fetch_sub(1, Ordering::SeqCst) - 1) & (OPEN | INSIDE) == 0 {
            self.caller.wake();
        }
    }
}

/// Locks a mutex whose data is whole at every step, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).expect("at least one")).expect("threads start")
    }

    #[test]
    fn every_item_runs_exactly_once() {
        for threads in 1..=4 {
            let pool = pool(threads);
            for items in (0..300).chain([10_000]) {
                let runs: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                pool.run(items, |worker, i| {
                    assert!(worker < threads);
                    runs[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {items}");
            }
        }
    }

    #[test]
    fn sleeping_threads_wake_for_the_next_job() {
        let pool = pool(3);
        for _ in 0..20 {
            thread::sleep(std::time::Duration::from_millis(2));
            let sum = AtomicUsize::new(0);
            pool.run(100, |_, i| {
                thread::sleep(std::time::Duration::from_micros(10));
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        for threads in 1..=3 {
            let pool = pool(threads);
            for at in [0, 1, 57, 99] {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    pool.run(100, |_, i| assert!(i != at, "item {i}"));
                }));
                let message =
                    *outcome.expect_err("the item panicked").downcast::<String>().expect("a message");
                assert_eq!(message, format!("item {at}"));
                let count = AtomicUsize::new(0);
                pool.run(50, |_, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(count.into_inner(), 50);
            }
        }
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let pool = pool(2);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for items in 0..500 {
                        let count = AtomicUsize::new(0);
                        pool.run(items, |_, _| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                        assert_eq!(count.into_inner(), items);
                    }
                });
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn helpers_compute_with_the_arithmetics_control_state() {
        let pool = pool(2);
        pool.run(1000, |_, _| assert!(fpcr::is_set()));
    }
}
