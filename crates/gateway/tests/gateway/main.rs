//! The gateway over real HTTP, with workers that follow scripts over the real road.

mod failover;
mod fake;
mod hostile;
mod http;

mod answers;
mod batches;
mod canaries;
mod channels;
mod claims;
mod embeddings;
mod errors;
mod explanations;
mod hub;
mod keys;
mod ledger;
mod life;
mod looks;
mod mcp;
#[path = "../../../client/tests/memory/mod.rs"]
mod memory;
mod messages;
mod network;
mod ollama;
mod once;
mod pages;
mod pays;
mod responses;
mod resume;
mod routes;
mod tenants;
mod tools;
mod verified;
mod x402;
