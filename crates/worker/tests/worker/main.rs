//! A worker as those around it meet it: real sockets, the bundled model, a ledger in memory.

#[path = "../liar/mod.rs"]
mod liar;
#[path = "../../../client/tests/memory/mod.rs"]
mod memory;

mod dispute;
mod hosting;
mod hub;
mod money;
mod recompute;
mod serve;
