//! The harness the operations' tests share: every backend, alone and on several threads, against the scalar one.

use crate::generate::Generator;
use crate::{Backend, Executor};
use std::num::NonZeroUsize;

/// An executor, for tests.
pub(crate) fn executor(backend: Backend, threads: usize) -> Executor {
    Executor::new(backend, NonZeroUsize::new(threads).expect("at least one")).expect("an available backend")
}

/// Bits for comparison; which NaN a NaN is, is nobody's business.
pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }).collect()
}

/// Checks that on `cases` generated cases every backend gives the scalar backend's result.
///
/// Every fourth case runs on three threads, the others on one. Panics naming the seed of a case that differs, or if
/// half of the results hold no number but zero: such data would prove nothing.
pub(crate) fn twins_agree<C>(
    cases: usize,
    make: impl Fn(&mut Generator) -> C,
    run: impl Fn(&Executor, &C) -> Vec<u32>,
) {
    let scalar = executor(Backend::Scalar, 1);
    let backends: Vec<Backend> =
        Backend::available().into_iter().filter(|backend| *backend != Backend::Scalar).collect();
    let twins: Vec<[Executor; 2]> =
        backends.iter().map(|backend| [1, 3].map(|threads| executor(*backend, threads))).collect();
    let mut trivial = 0;
    for seed in 0..cases as u64 {
        let case = make(&mut Generator::new(seed));
        let expected = run(&scalar, &case);
        trivial += usize::from(expected.iter().all(|bits| bits << 1 == 0));
        for [alone, together] in &twins {
            let twin = if seed % 4 == 3 { together } else { alone };
            let found = run(twin, &case);
            assert_eq!(found.len(), expected.len(), "seed {seed}, {}", twin.backend());
            if let Some(at) = (0..found.len()).find(|at| found[*at] != expected[*at]) {
                panic!(
                    "seed {seed}, {} on {} threads: {:08x} where the definition has {:08x}, at {at} of {}",
                    twin.backend(),
                    twin.threads(),
                    found[at],
                    expected[at],
                    found.len()
                );
            }
        }
    }
    assert!(trivial * 2 < cases, "{trivial} of {cases} results are all zero");
}
