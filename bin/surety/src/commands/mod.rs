//! The commands, one file each: arguments become settings, settings are run.

pub mod apikey;
pub mod bench;
pub mod chat;
pub mod completions;
pub mod demo;
pub mod dispute;
pub mod doctor;
pub mod economics;
pub mod evidence;
pub mod explain;
pub mod faucet;
pub mod gateway;
pub mod gov;
pub mod key;
pub mod model;
pub mod powers;
pub mod regenesis;
pub mod relay;
pub mod status;
pub mod up;
pub mod validator;
pub mod verify;
pub mod worker;

use std::future::Future;

use anyhow::Context;

use crate::cli::{Cli, Command};

/// How a command ended that did not fail to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was asked was done, or holds.
    Done,
    /// What was to be checked does not hold.
    Failed,
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let Cli { global, command } = cli;
    match command {
        Command::Up(args) => wait(up::run(global, args)),
        Command::Chat(args) => wait(chat::run(global, args)),
        Command::Model(command) => wait(model::run(global, command)),
        Command::Verify(args) => wait(verify::run(global, args)),
        Command::Worker(command) => wait(worker::dispatch(global, command)),
        Command::Relay(relay::Command::Run(args)) => wait(relay::run(global, args)),
        Command::Gateway(gateway::Command::Run(args)) => wait(gateway::run(global, args)),
        Command::Validator(validator::Command::Init(args)) => validator::init(&global, &args),
        Command::Validator(validator::Command::Run(args)) => wait(validator::run(global, *args)),
        Command::Validator(validator::Command::Export(args)) => wait(regenesis::export(global, args)),
        Command::Validator(validator::Command::Regenesis(args)) => regenesis::regenesis(&global, &args),
        Command::Validator(validator::Command::Status(args)) => wait(validator::status(global, args)),
        Command::Status(args) => wait(status::run(global, args)),
        Command::Explain(args) => wait(explain::run(global, args)),
        Command::Evidence(args) => wait(evidence::run(global, args)),
        Command::Faucet(args) => wait(faucet::run(global, args)),
        Command::Powers(args) => wait(powers::run(global, args)),
        Command::Economics(args) => wait(economics::run(global, args)),
        Command::Gov(command) => wait(gov::run(global, command)),
        Command::Dispute(command) => wait(dispute::run(global, command)),
        Command::Demo(command) => wait(demo::run(global, command)),
        Command::Key(command) => key::run(&global, command),
        Command::Apikey(command) => wait(apikey::run(global, command)),
        Command::Bench(command) => bench::run(&global, command),
        Command::Doctor(args) => doctor::run(&global, &args),
        Command::Completions(args) => completions::run(&args),
    }
}

fn wait(work: impl Future<Output = anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let outcome = runtime.block_on(work);
    // A thread that still waits for standard input holds nobody up.
    runtime.shutdown_background();
    outcome
}
