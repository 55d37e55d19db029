//! Backends: which instruction set the kernels run on.
//!
//! In:     what the processor and the operating system say they support.
//! Out:    a `Backend` to name, choose and pass down; results never depend on the choice.
//! Holds:  an `Available` exists only for a backend this machine can run.
//! Absent: compile-time choices. One binary carries every backend of its architecture.

use std::fmt;
use std::str::FromStr;

/// An instruction set the kernels are compiled for. Every backend gives the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Plain Rust on any machine: the definition the others are compared with.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// `Avx2` and the 256-bit byte dot product of AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL and DQ.
    Avx512,
    /// `Avx512` and the 512-bit byte dot product of AVX-512-VNNI.
    Avx512Vnni,
    /// AArch64 with NEON and the byte dot product (FEAT_DotProd).
    Neon,
}

/// Every backend, slowest first.
const ALL: [Backend; 6] =
    [Backend::Scalar, Backend::Avx2, Backend::AvxVnni, Backend::Avx512, Backend::Avx512Vnni, Backend::Neon];

impl Backend {
    /// The fastest backend of this machine.
    pub fn detect() -> Backend {
        Backend::available().pop().expect("the scalar backend runs everywhere")
    }

    /// The backends this machine can run, slowest first.
    pub fn available() -> Vec<Backend> {
        ALL.into_iter().filter(|backend| backend.is_available()).collect()
    }

    /// Whether this machine can run the backend.
    pub fn is_available(self) -> bool {
        match self {
            Backend::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Backend::AvxVnni => Backend::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => {
                Backend::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512Vnni => Backend::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "aarch64")]
            Backend::Neon => {
                std::arch::is_aarch64_feature_detected!("neon")
                    && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            _ => false,
        }
    }

    /// The name used in settings, logs and benchmarks.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Scalar => "scalar",
            Backend::Avx2 => "avx2",
            Backend::AvxVnni => "avx-vnni",
            Backend::Avx512 => "avx512",
            Backend::Avx512Vnni => "avx512-vnni",
            Backend::Neon => "neon",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no backend's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no backend is called {0:?}; there are scalar, avx2, avx-vnni, avx512, avx512-vnni and neon")]
pub struct UnknownBackend(pub String);

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Backend, UnknownBackend> {
        ALL.into_iter().find(|backend| backend.name() == name).ok_or_else(|| UnknownBackend(name.to_owned()))
    }
}

/// A backend this machine was found to support; the proof that calling its kernels is sound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Available(Backend);

impl Available {
    /// None where the machine cannot run `backend`.
    pub(crate) fn new(backend: Backend) -> Option<Available> {
        backend.is_available().then_some(Available(backend))
    }

    pub(crate) fn backend(self) -> Backend {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for backend in ALL {
            assert_eq!(backend.name().parse(), Ok(backend));
        }
        assert_eq!("sse9".parse::<Backend>(), Err(UnknownBackend("sse9".into())));
    }

    #[test]
    fn the_detected_backend_is_available() {
        assert!(Backend::detect().is_available());
        assert_eq!(Backend::available().first(), Some(&Backend::Scalar));
    }
}
