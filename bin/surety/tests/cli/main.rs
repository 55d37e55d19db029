//! The binary as people and scripts use it: real processes, real sockets, exit statuses.

mod process;

mod commands;
mod up;
mod validator;
