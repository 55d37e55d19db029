//! The ledger through a real node, and through one that lies.

mod explorer;
mod liar;
mod lies;
mod models;
mod node;
mod pages;
mod reads;
mod writes;
