//! The binary as people and scripts use it: real processes, real sockets, exit statuses.

mod hosting;
mod http;
mod process;

mod apikey;
mod commands;
mod demo;
mod evidence;
mod explain;
mod explorer;
mod join;
mod keeping;
mod kill_matrix;
mod ledger_matrix;
mod liar_matrix;
mod look;
mod money;
mod once;
mod telemetry;
mod tools;
mod transfer;
mod up;
mod upstream;
mod validator;
