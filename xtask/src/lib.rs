//! What the project needs around its own code: a writer of model files, random models of real
//! shapes for tests, the training of the bundled demonstration model, the kill matrix, those of liars and
//! of the ledger, that of faults and their explanations, and the clients and suites that developers use.
//!
//! In:     settings as plain structs, from the binary's arguments or from another crate's test.
//! Out:    GGUF files, reports; progress on stderr.
//! Holds:  the same settings and seed give the same file.
//! Absent: anything the network runs. Nothing here is part of a shipped binary.

pub mod rng;

pub mod gguf;

mod byte_alphabet;

pub mod compat;

pub mod fault_matrix;

pub mod kill_matrix;

pub mod ledger_matrix;

pub mod liar_matrix;

pub mod random_model;

pub mod train;
