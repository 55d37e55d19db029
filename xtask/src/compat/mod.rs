//! Compat: the clients and test suites that developers use, against a live network.
//!
//! In:     the binary; which suites.
//! Out:    of each suite how many tests passed, which failed for a listed reason (`tests/sdk/expected.toml`), and which failed.
//! Touches: installs pinned packages into a cache folder; starts a network in a folder of its own.
//! Holds:  a test that fails without a listed reason fails the run; so does one that is listed and passes.
//! Absent: the tests themselves. Those are the clients' own, and `tests/sdk`.

mod install;
pub mod model;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::kill_matrix::network::Up;

/// The bundled model.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/shakespeare-demo.gguf");
/// Where the suites are.
const SUITES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/sdk");
/// Tokens that the model with tools has room for: some clients begin with long instructions.
const WINDOW_TOKENS: u32 = 8192;
/// Under which further names the bundled model is served: those that the clients' own tests ask for.
const ALIASES: [&str; 6] = [
    "gpt-6-astra",
    "gpt-3.5-turbo-instruct",
    "text-embedding-3-small",
    "model",
    "claude-opus-5-5",
    "model_id",
];

/// One suite: a program of `tests/sdk`.
struct Suite {
    name: &'static str,
    about: &'static str,
    needs: Needs,
    /// The program and what comes before the address.
    program: &'static [&'static str],
    ends: Ends,
    /// Whether it is part of the quick run.
    quick: bool,
}

/// What comes after the address, and what a suite ends with.
enum Ends {
    /// A report of its tests, in the file that is named.
    Report,
    /// The model's file is named; it succeeds, or not.
    Model,
    /// The gateway that it asks is paid by the request; binary and data directory are named; it succeeds, or not.
    Paid,
}

/// What has to be installed.
enum Needs {
    /// Packages that a file of `tests/sdk` pins.
    Python(&'static str),
    /// Those of `tests/sdk/package-lock.json`.
    Node,
}

const ALL: [Suite; 13] = [
    Suite {
        name: "openai-chat",
        about: "openai-python: chats, completions, vectors, receipts, errors",
        needs: Needs::Python("requirements.txt"),
        program: &["check.py"],
        ends: Ends::Report,
        quick: true,
    },
    Suite {
        name: "openai-responses",
        about: "openai-python: responses, strictly validated",
        needs: Needs::Python("requirements.txt"),
        program: &["responses.py"],
        ends: Ends::Report,
        quick: true,
    },
    Suite {
        name: "openai",
        about: "openai-python's own generated tests",
        needs: Needs::Python("requirements.txt"),
        program: &["generated.py", "openai"],
        ends: Ends::Report,
        quick: true,
    },
    Suite {
        name: "anthropic-ollama",
        about: "anthropic-sdk-python and ollama-python",
        needs: Needs::Python("requirements.txt"),
        program: &["protocols.py"],
        ends: Ends::Report,
        quick: true,
    },
    Suite {
        name: "anthropic",
        about: "anthropic-sdk-python's own generated tests",
        needs: Needs::Python("requirements.txt"),
        program: &["generated.py", "anthropic"],
        ends: Ends::Report,
        quick: true,
    },
    Suite {
        name: "ai-sdk",
        about: "the Vercel AI SDK",
        needs: Needs::Node,
        program: &["check.mjs"],
        ends: Ends::Report,
        quick: true,
    },
    Suite {
        name: "hub",
        about: "huggingface_hub and its `hf`",
        needs: Needs::Python("requirements.txt"),
        program: &["hub.py"],
        ends: Ends::Model,
        quick: true,
    },
    Suite {
        name: "x402-python",
        about: "x402 of PyPI, paying",
        needs: Needs::Python("requirements.txt"),
        program: &["x402_client.py"],
        ends: Ends::Paid,
        quick: true,
    },
    Suite {
        name: "x402-node",
        about: "@x402/fetch of npm, paying",
        needs: Needs::Node,
        program: &["x402_client.mjs"],
        ends: Ends::Paid,
        quick: true,
    },
    Suite {
        name: "langchain",
        about: "LangChain's standard tests",
        needs: Needs::Python("langchain.txt"),
        program: &["langchain_suite.py"],
        ends: Ends::Report,
        quick: false,
    },
    Suite {
        name: "llm",
        about: "Simon Willison's llm",
        needs: Needs::Python("llm.txt"),
        program: &["llm_cli.py"],
        ends: Ends::Report,
        quick: false,
    },
    Suite {
        name: "litellm",
        about: "LiteLLM's SDK, in three protocols",
        needs: Needs::Python("litellm.txt"),
        program: &["litellm_sdk.py"],
        ends: Ends::Report,
        quick: false,
    },
    Suite {
        name: "aider",
        about: "aider, one message on a tiny repository",
        needs: Needs::Python("aider.txt"),
        program: &["aider_cli.py"],
        ends: Ends::Report,
        quick: false,
    },
];

/// How it is to be run.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The program to test.
    #[arg(long, default_value = "target/release/surety")]
    pub binary: PathBuf,
    /// Only these suites, by name; `--list` names them.
    #[arg(long)]
    pub only: Vec<String>,
    /// Only the suites that take seconds, as `.ci/sdk` runs them.
    #[arg(long)]
    pub quick: bool,
    /// Name the suites, and run none.
    #[arg(long)]
    pub list: bool,
    /// Workers of the network.
    #[arg(long, default_value_t = 3)]
    pub workers: usize,
    /// Where packages are installed, and found the next time.
    #[arg(long, default_value = "target/compat")]
    pub cache: PathBuf,
    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// What came of all suites.
#[derive(Debug, Serialize)]
pub struct Report {
    /// In the order in which they were run.
    pub suites: Vec<Outcome>,
}

/// What came of one suite.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub suite: String,
    /// Of the packages it tests.
    #[serde(default)]
    pub version: String,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed for a listed reason.
    pub listed: Vec<Listed>,
    /// Tests that failed.
    pub failed: Vec<Failed>,
    /// Seconds it took.
    #[serde(default)]
    pub seconds: u64,
}

/// A test that failed for a listed reason.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub test: String,
    /// Why it fails.
    pub reason: String,
    /// `model`: the demonstration model's; `scope`: it asks for what is refused by name; `test`: it supposes its maker's own data.
    pub whose: String,
    /// What it said.
    pub why: String,
}

/// A test that failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failed {
    /// Its name.
    pub test: String,
    /// What it said.
    pub why: String,
}

/// The suites there are: a line for each.
pub fn list() -> Vec<String> {
    let quick = |suite: &Suite| if suite.quick { "" } else { " (not in --quick)" };
    ALL.iter().map(|suite| format!("{:<17} {}{}", suite.name, suite.about, quick(suite))).collect()
}

/// Installs what the suites need, starts a network, and runs them.
pub fn run(settings: &Settings) -> Result<Report> {
    for name in &settings.only {
        ensure!(
            ALL.iter().any(|suite| suite.name == name),
            "there is no suite \"{name}\"; `--list` names them"
        );
    }
    let wanted = |suite: &&Suite| match settings.only.is_empty() {
        true => suite.quick || !settings.quick,
        false => settings.only.iter().any(|name| name == suite.name),
    };
    let suites: Vec<&Suite> = ALL.iter().filter(wanted).collect();
    let binary = fs::canonicalize(&settings.binary)
        .with_context(|| format!("{} is not there: build it", settings.binary.display()))?;
    fs::create_dir_all(&settings.cache)?;
    let cache = fs::canonicalize(&settings.cache)?;
    let mut programs = Vec::new();
    for suite in &suites {
        programs.push(install::program(&suite.needs, &cache)?);
    }

    let folder = tempfile::tempdir()?;
    let tooled = folder.path().join("tooled.gguf");
    model::with_tools(&tooled, WINDOW_TOKENS)?;
    let mut args = vec!["--workers".to_owned(), settings.workers.to_string()];
    let aliases = ALIASES.iter().map(|alias| format!("{alias}=shakespeare-demo"));
    for model in
        ["shakespeare-demo".to_owned(), format!("tooled={}", tooled.display())].into_iter().chain(aliases)
    {
        args.extend(["--model".to_owned(), model]);
    }
    let network = |paid: bool| suites.iter().zip(&programs).filter(move |(suite, _)| suite.is_paid() == paid);
    let mut outcomes = Vec::new();
    for (paid, args) in [(false, args), (true, vec!["--x402".to_owned()])] {
        if network(paid).next().is_none() {
            continue;
        }
        let data_dir = folder.path().join(if paid { "paid" } else { "network" });
        let up = Up::start(&binary, &data_dir, &args)?;
        let base_url = format!("http://{}/v1", up.host());
        eprintln!("workers serve at {base_url}");
        for (suite, program) in network(paid) {
            outcomes.push(suite.run(program, &base_url, &binary, &data_dir, folder.path())?);
        }
        up.stop()?;
    }
    Ok(Report { suites: outcomes })
}

impl Suite {
    fn is_paid(&self) -> bool {
        matches!(self.ends, Ends::Paid)
    }

    fn run(
        &self,
        program: &install::Program,
        base_url: &str,
        binary: &Path,
        data_dir: &Path,
        folder: &Path,
    ) -> Result<Outcome> {
        eprintln!("== {}: {}", self.name, self.about);
        let began = Instant::now();
        let file = folder.join(format!("{}.json", self.name));
        let (script, more) = self.program.split_first().context("a suite has a program")?;
        let mut command = Command::new(&program.interpreter);
        command.arg(program.scripts.join(script)).args(more).arg(base_url);
        match self.ends {
            Ends::Report => command.arg("--report").arg(&file),
            Ends::Model => command.arg(fs::canonicalize(MODEL)?),
            Ends::Paid => command.arg(binary).arg(data_dir),
        };
        // What a caller's environment says of other servers is not meant for these.
        for name in
            ["OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OLLAMA_HOST"]
        {
            command.env_remove(name);
        }
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "127.0.0.1,localhost");
        // Results alone are for stdout, and what the suites say is not.
        let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
        let status = status.with_context(|| format!("starting {}", program.interpreter.display()))?;
        let outcome = fs::read(&file).ok().and_then(|json| serde_json::from_slice::<Outcome>(&json).ok());
        let holds = status.success() && !matches!(self.ends, Ends::Report);
        let failed =
            || Failed { test: self.name.to_owned(), why: format!("it ended with {status} and no report") };
        let mut outcome = outcome.unwrap_or_else(|| Outcome {
            suite: self.name.to_owned(),
            version: String::new(),
            passed: usize::from(holds),
            listed: Vec::new(),
            failed: if holds { Vec::new() } else { vec![failed()] },
            seconds: 0,
        });
        outcome.seconds = began.elapsed().as_secs();
        Ok(outcome)
    }
}

impl Report {
    /// How many tests failed.
    pub fn failures(&self) -> usize {
        self.suites.iter().map(|suite| suite.failed.len()).sum()
    }

    /// One line of JSON.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// The table, the reasons, and what failed.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<17} {:>6} {:>6} {:>6} {:>5}  version",
            "suite", "passed", "listed", "failed", "s"
        )];
        for Outcome { suite, version, passed, listed, failed, seconds } in &self.suites {
            let (listed, failed) = (listed.len(), failed.len());
            lines.push(format!("{suite:<17} {passed:>6} {listed:>6} {failed:>6} {seconds:>5}  {version}"));
        }
        for suite in &self.suites {
            let mut reasons: Vec<(&str, &str, usize)> = Vec::new();
            for Listed { reason, whose, .. } in &suite.listed {
                match reasons.iter_mut().find(|(known, ..)| known == reason) {
                    Some((.., count)) => *count += 1,
                    None => reasons.push((reason, whose, 1)),
                }
            }
            for (reason, whose, count) in reasons {
                lines.push(format!("listed, {}: {count} ({whose}): {reason}", suite.suite));
            }
        }
        for suite in &self.suites {
            for Failed { test, why } in &suite.failed {
                lines.push(format!("FAILED, {}: {test}: {why}", suite.suite));
            }
        }
        lines
    }
}
