//! `cargo run --release -p xtask -- <command>`: chores of the project.

mod compare;
mod exactness;
mod mutate;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use xtask::random_model::{self, Format, Shape};
use xtask::{compat, fault_matrix, kill_matrix, ledger_matrix, liar_matrix, train};

#[derive(Debug, Parser)]
#[command(about = "Chores of the project")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Our engine and llama.cpp on the same files: alternated, medians.
    Compare(compare::Arguments),
    /// The clients and test suites that developers use, against a live network; fails if a test does that has no listed reason.
    Compat(compat::Settings),
    /// The same answers by every route, over many tokens.
    Exactness(exactness::Arguments),
    /// Injects faults of every kind into live networks and asks `surety explain` who answers for them; fails if it is right too
    /// seldom, names an honest party once, or a fault could not be injected. Links are cut in network namespaces, which takes root.
    FaultMatrix(FaultMatrixArguments),
    /// Kills, stops and cuts off workers of a running network in the middle of answers; fails if one is not whole, not
    /// what it would have been, or not paid as its receipts say.
    KillMatrix(KillMatrixArguments),
    /// Does mixed operations while the gateway is killed again and again; fails if keys, receipts, workers, payers and the ledger
    /// do not say the same of what was charged, or something was charged twice.
    LedgerMatrix(LedgerMatrixArguments),
    /// Contests answers of liars, and falsely those of an honest worker, on a real ledger, by real processes; fails if one
    /// ends otherwise than it must, or a sum is not what it must be.
    LiarMatrix(liar_matrix::Settings),
    /// Changes one bit, operator or bound of the arithmetic's voices at a time, in a copy; fails if a test does not notice.
    Mutate(mutate::Arguments),
    /// Trains the bundled demonstration model and writes it as a GGUF file.
    Train(TrainArguments),
    /// Writes a model of a real shape with random weights, for tests and measurements.
    RandomModel(RandomModelArguments),
}

#[derive(Debug, Args)]
struct FaultMatrixArguments {
    #[command(flatten)]
    settings: fault_matrix::Settings,
    /// Only list the faults: names, the requirements' rows, and why one cannot be injected on this machine.
    #[arg(long)]
    list: bool,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct KillMatrixArguments {
    #[command(flatten)]
    settings: kill_matrix::Settings,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct LedgerMatrixArguments {
    #[command(flatten)]
    settings: ledger_matrix::Settings,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TrainArguments {
    /// The text to learn: speeches separated by blank lines.
    #[arg(long, default_value = "../shared/data/tinyshakespeare.txt")]
    text: PathBuf,
    /// The file to write.
    #[arg(long, default_value = "models/shakespeare-demo.gguf")]
    out: PathBuf,
    /// Where an interrupted training goes on from.
    #[arg(long, default_value = "target/shakespeare-demo.checkpoint")]
    checkpoint: PathBuf,
    /// Refuse to write a model whose held-out loss is above this many bits per byte.
    #[arg(long, default_value_t = 2.4)]
    bits_per_byte_max: f64,
    /// Optimiser steps.
    #[arg(long, default_value_t = train::Recipe::default().steps)]
    steps: u32,
    /// Names initial weights, windows and masks.
    #[arg(long, default_value_t = train::Recipe::default().seed)]
    seed: u64,
}

#[derive(Debug, Args)]
struct RandomModelArguments {
    /// qwen3-0.6b, llama-3.2-1b, tiny-qwen3, tiny-qwen2 or tiny-llama.
    #[arg(long)]
    shape: Shape,
    /// q8_0, q4_0, q4_k_m, f16, bf16 or f32.
    #[arg(long)]
    format: Format,
    /// Names the weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The file to write.
    out: PathBuf,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Compat(settings) => compat(&settings),
        Command::Exactness(arguments) => exactness::run(&arguments),
        Command::FaultMatrix(arguments) => fault_matrix(&arguments),
        Command::KillMatrix(arguments) => kill_matrix(&arguments),
        Command::LedgerMatrix(arguments) => ledger_matrix(&arguments),
        Command::LiarMatrix(settings) => liar_matrix(&settings),
        Command::Mutate(arguments) => mutate::run(&arguments),
        Command::Train(arguments) => train(arguments),
        Command::RandomModel(arguments) => random_model(&arguments),
    }
}

fn kill_matrix(arguments: &KillMatrixArguments) -> Result<()> {
    let report = kill_matrix::run(&arguments.settings)?;
    if arguments.json {
        println!("{}", report.json());
    } else {
        report.lines().iter().for_each(|line| println!("{line}"));
    }
    let failures: Vec<String> = report.failures().into_iter().chain(report.too_slow()).collect();
    ensure!(failures.is_empty(), "it does not hold: {}", failures.join("; "));
    Ok(())
}

fn ledger_matrix(arguments: &LedgerMatrixArguments) -> Result<()> {
    let report = ledger_matrix::run(&arguments.settings)?;
    if arguments.json {
        println!("{}", report.json());
    } else {
        report.lines().iter().for_each(|line| println!("{line}"));
    }
    let failures = report.failures();
    ensure!(
        failures.is_empty(),
        "seed {}: it does not hold: {}",
        arguments.settings.seed,
        failures.join("; ")
    );
    Ok(())
}

fn compat(settings: &compat::Settings) -> Result<()> {
    if settings.list {
        compat::list().iter().for_each(|line| println!("{line}"));
        return Ok(());
    }
    let report = compat::run(settings)?;
    if settings.json {
        println!("{}", report.json()?);
    } else {
        report.lines().iter().for_each(|line| println!("{line}"));
    }
    ensure!(report.failures() == 0, "{} tests fail without a listed reason", report.failures());
    Ok(())
}

fn fault_matrix(arguments: &FaultMatrixArguments) -> Result<()> {
    if arguments.list {
        for (fault, why) in fault_matrix::list(&arguments.settings.binary)? {
            let why = why.map(|why| format!("  not on this machine: {why}")).unwrap_or_default();
            println!("{:24} {}{why}", fault.name(), fault.row());
        }
        return Ok(());
    }
    let report = fault_matrix::run(&arguments.settings)?;
    if arguments.json {
        println!("{}", report.json());
    } else {
        report.lines().iter().for_each(|line| println!("{line}"));
    }
    let failures: Vec<String> = report.failures().into_iter().chain(report.too_slow()).collect();
    ensure!(failures.is_empty(), "it does not hold: {}", failures.join("; "));
    Ok(())
}

fn liar_matrix(settings: &liar_matrix::Settings) -> Result<()> {
    let report = liar_matrix::run(settings)?;
    report.lines().iter().for_each(|line| println!("{line}"));
    let failures = report.failures();
    ensure!(failures.is_empty(), "it does not hold: {}", failures.join("; "));
    Ok(())
}

fn train(arguments: TrainArguments) -> Result<()> {
    let mut recipe = train::Recipe::default();
    (recipe.seed, recipe.steps) = (arguments.seed, arguments.steps);
    let report = train::run(&train::Settings {
        text: arguments.text,
        out: arguments.out,
        checkpoint: arguments.checkpoint,
        bits_per_byte_max: arguments.bits_per_byte_max,
        recipe,
    })?;
    println!(
        "{} parameters, {} bytes of file; held-out bits per byte {:.4} in f32, {:.4} in Q8_0; {} s",
        report.parameters,
        report.file_size,
        report.bits_per_byte_f32,
        report.bits_per_byte_q8_0,
        report.elapsed.as_secs()
    );
    Ok(())
}

fn random_model(arguments: &RandomModelArguments) -> Result<()> {
    let RandomModelArguments { shape, format, seed, ref out } = *arguments;
    random_model::run(&random_model::Settings { shape, format, seed }, out)
        .with_context(|| format!("writing {}", out.display()))
}
