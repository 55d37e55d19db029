//! Files between real endpoints on loopback: pulled whole from holders of which some lie, dawdle or leave; served within
//! limits; audited.

mod audits;
mod holders;
mod holding;
mod pulling;
mod reading;
