//! What the engine needs of a runtime: the real one and the simulated one both give it.

use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use rand_core::CryptoRng;

/// A runtime that can run a validator.
pub trait Runtime: Spawner + Metrics + CryptoRng + Clock + Storage {}

impl<T: Spawner + Metrics + CryptoRng + Clock + Storage> Runtime for T {}
