//! The gateway over real HTTP, with workers that follow scripts over the real road.

mod failover;
mod fake;
mod http;

mod answers;
mod canaries;
mod claims;
mod errors;
mod life;
mod looks;
#[path = "../../../client/tests/memory/mod.rs"]
mod memory;
mod messages;
mod ollama;
mod pays;
mod resume;
mod routes;
