//! The gateway over real HTTP, with workers that follow scripts over the real road.

mod failover;
mod fake;
mod http;

mod answers;
mod batches;
mod canaries;
mod claims;
mod embeddings;
mod errors;
mod ledger;
mod keys;
mod explanations;
mod life;
mod looks;
#[path = "../../../client/tests/memory/mod.rs"]
mod memory;
mod once;
mod messages;
mod ollama;
mod pays;
mod responses;
mod resume;
mod routes;
mod tools;
