//! The command line: what can be said, in which words.
//!
//! In:     arguments and the environment.
//! Out:    one plain struct per command.
//! Touches: nothing.
//! Absent: defaults that depend on the machine. The commands fill those in.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands;

/// An open network for hosting, running and verifying AI models.
#[derive(Debug, Parser)]
#[command(
    name = "surety",
    version,
    about,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Print results as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Where models, keys, receipts and packed weights are kept [default: the platform's data directory].
    #[arg(long, global = true, value_name = "DIR", env = "SURETY_HOME")]
    pub data_dir: Option<PathBuf>,
    /// What to log to stderr: error, warn, info, debug, trace, or a filter such as `surety_worker=debug`.
    #[arg(long, global = true, value_name = "FILTER", env = "SURETY_LOG")]
    pub log: Option<String>,
    /// How to log it.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        env = "SURETY_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole network on this machine: an OpenAI-compatible API with signed receipts, and the ledger that pays for it.
    Up(commands::up::Args),
    /// Chat in the terminal; every answer's receipt is checked.
    Chat(commands::chat::Args),
    /// Add, list, fetch, publish, audit and remove models.
    #[command(subcommand)]
    Model(commands::model::Command),
    /// Check a receipt, and on request re-run the answer to the bit.
    Verify(commands::verify::Args),
    /// Tell what became of a request, who answers for what went wrong, and what can be done.
    Explain(commands::explain::Args),
    /// Gather what happened in a span of time: who asked, what changed, what went wrong, how often answers were as they should be.
    Evidence(commands::evidence::Args),
    /// Join with a worker, run it, steer it, see what it earned.
    #[command(subcommand)]
    Worker(commands::worker::Command),
    /// Run a relay, for workers that can only call out.
    #[command(subcommand)]
    Relay(commands::relay::Command),
    /// Run a gateway.
    #[command(subcommand)]
    Gateway(commands::gateway::Command),
    /// Run a validator, or follow a chain: the ledger, with Ethereum's JSON-RPC.
    #[command(subcommand)]
    Validator(commands::validator::Command),
    /// Show how the network is doing: chain, validators, workers, prices.
    Status(commands::status::Args),
    /// Show who controls what, computed from the ledger.
    Powers(commands::powers::Args),
    /// Show what there is, where it is, who paid whom; or simulate whether honesty pays.
    Economics(commands::economics::Args),
    /// List, make and decide proposals.
    #[command(subcommand)]
    Gov(commands::gov::Command),
    /// Contest receipts on the ledger, and see what came of it.
    #[command(subcommand)]
    Dispute(commands::dispute::Command),
    /// Guided shows on a throw-away network.
    #[command(subcommand)]
    Demo(commands::demo::Command),
    /// Give an account credits of a local network (`surety up`), to try things out with.
    Faucet(commands::faucet::Args),
    /// Make and show keys.
    #[command(subcommand)]
    Key(commands::key::Command),
    /// Make, list and revoke the API keys of this machine's gateway, with budgets and limits; show what each has used.
    #[command(subcommand)]
    Apikey(commands::apikey::Command),
    /// Measure this machine.
    #[command(subcommand)]
    Bench(commands::bench::Command),
    /// Look at this machine: what will work, what will be slow, and why.
    Doctor(commands::doctor::Args),
    /// Print a completion script for a shell.
    Completions(commands::completions::Args),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_scripts_rely_on_is_understood() {
        let check = |line: &str| {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        };
        check("surety up");
        check(
            "surety up --json --ephemeral --port 0 --model shakespeare-demo --model gpt-4o=shakespeare-demo",
        );
        check("surety up --validators 0 --workers 3");
        check(
            "surety up --model hf:a/b --model ./c.gguf --workers 2 --data-dir /d --open --threads 2 --context 4096",
        );
        check("surety chat --model m --base-url http://127.0.0.1:1/v1 hello");
        check("surety model add hf:owner/repo/file.gguf --name x");
        check("surety model list --json");
        check("surety model inspect x@abcd");
        check("surety model remove blake3:abcd");
        check(
            "surety model pull blake3:0000000000000000000000000000000000000000000000000000000000000000 --name x --from 0000000000000000000000000000000000000000000000000000000000000000@127.0.0.1:1 0000000000000000000000000000000000000000000000000000000000000000@[::1]:2",
        );
        check("surety model pull qwen3@abcd --genesis g.json --rpc-url http://127.0.0.1:1 --json");
        check("surety model inspect qwen3 --hosts");
        check("surety model publish ./x.gguf --alias x --account purse");
        check("surety model audit qwen3 --challenges 459 --within 30 --json");
        check("surety model pin x");
        check("surety model gc --keep 20G --dry-run");
        check("surety worker run --share served --share-bytes-per-second 1000000");
        check("surety model serve --listen 0.0.0.0:4433 --key worker --bytes-per-second 1000000 --json");
        check("surety verify chatcmpl-1 --recompute --base-url http://127.0.0.1:1");
        check("surety verify receipt.json --offline --recompute --model x.gguf --text answer.txt");
        check("surety explain req_1 --base-url http://127.0.0.1:1 --json");
        check("surety explain answer.json --offline");
        check("surety explain req_1 --ledger-wait-ms 5000");
        check("surety evidence --from 2026-10-01 --to 2026-11-01T10:00:00Z --out october --json");
        check("surety evidence");
        check("surety worker run --model x --listen 127.0.0.1:0");
        check(
            "surety gateway run --worker 0000000000000000000000000000000000000000000000000000000000000000@127.0.0.1:1",
        );
        check("surety validator init --genesis genesis.json --json");
        check(
            "surety validator run --listen 127.0.0.1:0 --rpc 127.0.0.1:0 --follow --state-sync --blocks-kept 1000",
        );
        check(
            "surety validator run --peer 0000000000000000000000000000000000000000000000000000000000000000@127.0.0.1:1",
        );
        check("surety validator status --rpc-url http://127.0.0.1:8545");
        check("surety status --json");
        check("surety status --watch");
        check("surety powers --rpc-url http://127.0.0.1:1 --rpc-url http://127.0.0.1:2 --genesis g.json");
        check("surety economics --json");
        check("surety economics --simulate --jobs 100000 --seed 7 --json");
        check("surety gov list");
        check("surety gov show 3 --json");
        check("surety gov propose parameter pace_ms=500 voting_s=60 --title faster --account mine");
        check(
            "surety gov propose upgrade --height 9000 --to 2.0.0 --source-revision 0123456789012345678901234567890123456789 --title next --account mine",
        );
        check("surety gov propose cancel-upgrade --title no --account mine");
        check("surety gov vote 3 against --account mine");
        check("surety gov queue 3 --account mine");
        check("surety gov execute 3 --account mine");
        check("surety dispute open req_1 --account purse --model x --json");
        check("surety dispute list");
        check("surety dispute show 3 --json --export dispute-3.cbor");
        check("surety dispute replay dispute-3.cbor --json");
        check("surety dispute replay 3 --genesis g.json --rpc-url http://a");
        check("surety verify req_1 --recompute --challenge --account purse --passphrase-file p");
        check("surety verify receipt.json --genesis g.json --rpc-url http://a");
        check("surety demo liar --kind early-stop --json");
        check("surety key new mine --no-passphrase");
        check("surety key new purse --account");
        check(
            "surety worker run --genesis g.json --rpc-url http://a --rpc-url http://b --account x --bond 12.5 --price 0.1/0/1 --batch-price 30 --operator-name me --listen 0.0.0.0:7801 --reach direct=192.0.2.1:7801",
        );
        check("surety worker join --genesis g.json --rpc-url http://a --yes");
        check(
            "surety worker join --genesis g.json --dry-run --json --account x --reach relay=192.0.2.1:7842 --bond 20",
        );
        check("surety worker drain --grace 2m --retire");
        check("surety worker pause --resume-after 10m --key worker");
        check("surety worker resume");
        check("surety worker status --json");
        check("surety worker earnings --genesis g.json --account x");
        check("surety relay run --listen 0.0.0.0:7842 --connections 100 --bytes-per-second 1000000");
        check("surety gateway run --genesis g.json --account x --deposit 5 --price-ceiling 1/1/1");
        check("surety apikey create");
        check(
            "surety apikey create mine --budget 2.5 --rpm 60 --tpm 100000 --models a,b --expires 30d --max-price 1/1/4 --json",
        );
        check("surety apikey list --json");
        check("surety apikey show mine");
        check("surety apikey revoke mine");
        check("surety apikey usage mine --csv");
        check("surety gateway run --mdns --require-key");
        check("surety gateway run --genesis g.json --account x --x402");
        check("surety up --x402 --port 0");
        check("surety faucet 0x00000000000000000000000000000000000000aa --amount 2.5 --json");
        check("surety key list");
        check("surety key show mine");
        check("surety bench engine");
        check("surety bench receipt --model x");
        check("surety bench audit --prompt-tokens 64 --output-tokens 32 --streams 2 --model x");
        check("surety bench gateway --part latency --part idle --streams 1,16 --model x");
        check("surety doctor --json");
        check("surety completions bash");
    }
}
