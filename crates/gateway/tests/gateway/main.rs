//! The gateway over real HTTP, with workers that follow scripts over the real road.

mod failover;
mod fake;
mod http;

mod answers;
mod canaries;
mod claims;
mod errors;
mod explanations;
mod life;
mod looks;
#[path = "../../../client/tests/memory/mod.rs"]
mod memory;
mod pays;
mod resume;
mod routes;
