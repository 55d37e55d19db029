//! Verdicts: what `surety explain` says, and whether it is right.
//!
//! In:     a request's id, the fault that struck, the party it struck.
//! Out:    who was named, and rightly or not; what was charged; whether a saved file says the same without a network.
//! Touches: runs the binary.
//! Holds:  whoever explains knows the id and the gateway, and nothing of the fault.
//! Absent: injecting faults (`bare`, `paid`).

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use surety_types::{Evidence, Receipt, Signed};

use super::fault::Fault;
use crate::kill_matrix::network::surety;
use crate::kill_matrix::wire::{self, Heard, Progress};

/// A gateway, and who asks it.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) binary: PathBuf,
    /// Where whoever explains keeps its own.
    pub(super) data_dir: PathBuf,
    /// `IP:PORT`
    pub(super) host: String,
    pub(super) key: Option<String>,
    /// The ledger to ask, as arguments.
    pub(super) ledger: Vec<String>,
}

/// What is said of a request.
#[derive(Clone, Debug)]
pub(super) struct Explained {
    pub(super) accountable: String,
    pub(super) verdict: String,
    pub(super) worker: Option<String>,
    /// Workers that had a part in it.
    pub(super) parts: usize,
    /// Something was charged.
    pub(super) charged: bool,
    pub(super) same_offline: bool,
    pub(super) took: Duration,
}

/// What became of one fault.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) fault: Fault,
    pub(super) accountable: String,
    pub(super) verdict: String,
    pub(super) right: bool,
    /// A party was named that neither was struck nor answers for what was.
    pub(super) accused: bool,
    /// Something was charged for an answer that did not come.
    pub(super) charged: bool,
    /// A saved file says the same without a network.
    pub(super) same_offline: bool,
    pub(super) took: Duration,
}

impl Door {
    /// The same, waiting for a ledger that this machine may have made slow: what it decided is to be heard.
    pub(super) fn patient(mut self) -> Door {
        self.ledger.extend(["--ledger-wait-ms".to_owned(), "30000".to_owned()]);
        self
    }

    /// Asks for a chat's answer.
    pub(super) fn ask(&self, body: &Value, progress: &Progress) -> Heard {
        wire::ask_with(&self.host, self.key.as_deref(), "/v1/chat/completions", body, progress)
    }

    /// Has a request explained: by its gateway, and from a file.
    pub(super) fn explain(&self, id: &str) -> Result<Explained> {
        let file = self.data_dir.join(format!("{id}.json"));
        let path = file.display().to_string();
        let at = format!("http://{}/v1", self.host);
        let mut args = vec![id, "--export", &path, "--base-url", &at];
        args.extend(self.ledger.iter().map(String::as_str));
        let (explained, took) = self.run(&args)?;
        // A gateway that keeps nothing of it has nothing to save.
        let same_offline = file.exists() && {
            let (again, _) = self.run(&[&path, "--offline"])?;
            fs::remove_file(&file)?;
            ["verdict", "accountable", "worker", "charge"].iter().all(|name| explained[name] == again[name])
        };
        let text = |name: &str| explained[name].as_str().unwrap_or_default().to_owned();
        Ok(Explained {
            accountable: text("accountable"),
            verdict: text("verdict"),
            worker: explained["worker"].as_str().map(str::to_owned),
            parts: explained["parts"].as_array().map_or(0, Vec::len),
            charged: !is_nothing(&explained["charge"]),
            same_offline,
            took,
        })
    }

    /// Who is named by the ledger alone, for the receipt that a request ended with: its gateway is asked for nothing but the digest.
    pub(super) fn by_ledger_alone(&self, id: &str) -> Result<Value> {
        let evidence = wire::get_with(&self.host, self.key.as_deref(), &format!("/v1/receipts/{id}"))?;
        let evidence = Evidence::parse(&serde_json::to_vec(&evidence)?)?;
        let receipt = evidence.answers.last().and_then(|answer| answer.receipt.as_deref());
        let digest = Signed::<Receipt>::open(receipt.context("there is no receipt")?)?.digest().to_string();
        let args: Vec<&str> =
            [digest.as_str()].into_iter().chain(self.ledger.iter().map(String::as_str)).collect();
        Ok(self.run(&args)?.0)
    }

    fn run(&self, args: &[&str]) -> Result<(Value, Duration)> {
        let mut command = surety(&self.binary, &self.data_dir);
        if let Some(key) = &self.key {
            command.env("SURETY_API_KEY", key);
        }
        let began = Instant::now();
        let output = command.arg("explain").args(args).arg("--json").output()?;
        let took = began.elapsed();
        let told = || format!("explain {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok((serde_json::from_slice(&output.stdout).with_context(told)?, took))
    }
}

fn is_nothing(charge: &Value) -> bool {
    matches!(charge.as_str(), Some("0")) || charge.as_u64() == Some(0)
}

impl Explained {
    /// Whether one who may be named is named: nobody, somebody who is no worker, or the worker that was struck.
    fn names(&self, right: &[&str], struck: Option<&str>) -> bool {
        right.contains(&self.accountable.as_str())
            && self.worker.as_deref().is_none_or(|named| Some(named) == struck)
    }

    fn is_silent(&self) -> bool {
        ["nobody", "unknown"].contains(&self.accountable.as_str())
    }

    /// Judges it. `struck` is the worker that was struck.
    pub(super) fn judged(&self, fault: Fault, right: &[&str], struck: Option<&str>, whole: bool) -> Judged {
        let right = self.names(right, struck);
        Judged {
            fault,
            accountable: self.accountable.clone(),
            verdict: self.verdict.clone(),
            right,
            accused: !(right || self.is_silent()),
            charged: !whole && self.charged,
            same_offline: self.same_offline,
            took: self.took,
        }
    }
}

impl Judged {
    /// The same, where it was judged once before: both must be right.
    pub(super) fn after(self, before: &Judged) -> Judged {
        Judged {
            accountable: format!("{} then {}", before.accountable, self.accountable),
            verdict: if before.right { self.verdict } else { before.verdict.clone() },
            right: before.right && self.right,
            accused: before.accused || self.accused,
            charged: before.charged || self.charged,
            same_offline: before.same_offline && self.same_offline,
            took: before.took.max(self.took),
            fault: self.fault,
        }
    }
}
