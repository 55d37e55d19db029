//! Simulations: what the network's rules give when its parties do not behave.
//!
//! In:     rules, assumptions about a market, parties, a seed.
//! Out:    figures; the same for the same seed, on every machine.
//! Touches: nothing.
//! Holds:  every run is checked while it goes; one that breaks an invariant is an error that names the seed.
//! Absent: the real ledger, workers and models: what is here is a model of the rules, written from their text.

pub mod economics;
