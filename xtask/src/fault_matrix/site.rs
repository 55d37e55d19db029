//! Processes of the networks that faults are injected into.
//!
//! In:     the binary, what it is told, where it is to run.
//! Out:    processes that are ready, can be stopped, killed, started again, with another clock or as another version.
//! Touches: processes; the folder they keep things in.
//! Holds:  what was started is ended, whoever panics.
//! Absent: what befalls them (`bare`, `paid`).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::kill_matrix::network::{Namespace, ready_line, surety};

/// The library that moves clocks; empty where it could not be built.
static SKEW: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/skew.so"));
/// The variable that it reads.
const CLOCK_VARIABLE: &str = "FAULT_MATRIX_CLOCK_S";
/// The name of the protocol of orders, and what the next version would be called.
const PROTOCOL: (&[u8], &[u8]) = (b"surety/serve/1", b"surety/serve/2");

/// A process, killed when nobody holds it.
pub(super) struct Process(pub(super) Child);

impl Process {
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        send(self.0.id(), signal)
    }

    pub(super) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(super) fn is_gone(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a signal to a process; one that is gone needs none.
pub(super) fn send(process: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(process as i32).context("no process has the id 0")?;
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How a process is started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How<'a> {
    /// Where from; here, if not given.
    pub(super) namespace: Option<&'a str>,
    /// Seconds that its calendar is ahead.
    pub(super) clock_s: i64,
}

/// Starts one, and waits for the line that says that it is ready.
pub(super) fn launch(
    binary: &Path,
    data_dir: &Path,
    args: &[impl AsRef<OsStr>],
    how: How<'_>,
) -> Result<(Process, Value)> {
    let log = fs::OpenOptions::new().create(true).append(true).open(data_dir.join("log"))?;
    let mut command = surety(binary, data_dir);
    if let Some(namespace) = how.namespace {
        // `ip` becomes the program: the process is the same.
        let mut within = Command::new("ip");
        within.args(["netns", "exec", namespace]).arg(binary);
        let set = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        within.envs(set.collect::<Vec<_>>()).env_remove("SURETY_LOG");
        command = within;
    }
    if how.clock_s != 0 {
        command.env("LD_PRELOAD", skew(data_dir)?).env(CLOCK_VARIABLE, how.clock_s.to_string());
    }
    command.args(args).args([
        "--json",
        "--stop-with-parent",
        "--log",
        "surety_gateway=info,surety_worker=info",
    ]);
    let child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().context("starting")?;
    let mut process = Process(child);
    let ready = ready_line(&mut process.0).with_context(|| format!("see {}", data_dir.display()))?;
    if how.clock_s != 0 {
        // A program that is linked statically loads no library.
        let maps = fs::read_to_string(format!("/proc/{}/maps", process.0.id()))?;
        ensure!(maps.contains("skew.so"), "this program loads no library that would move its clock");
    }
    Ok((process, ready))
}

/// Why clocks cannot be moved, if so.
pub(super) fn no_clocks(binary: &Path) -> Result<Option<String>> {
    if SKEW.is_empty() {
        return Ok(Some("there was no C compiler when this program was built".into()));
    }
    let program = fs::read(binary)
        .with_context(|| format!("reading {}; --binary names another program", binary.display()))?;
    let linked = program.windows(9).any(|window| window == b"libc.so.6");
    Ok((!linked)
        .then(|| "the program is linked statically, and loads no library that would move its clock".into()))
}

fn skew(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("skew.so");
    if !path.exists() {
        fs::write(&path, SKEW)?;
    }
    Ok(path)
}

/// A copy of the program that calls the protocol of orders by the next version's name.
pub(super) fn next_version(binary: &Path, folder: &Path) -> Result<PathBuf> {
    let path = folder.join("surety-next");
    if path.exists() {
        return Ok(path);
    }
    let mut program = fs::read(binary)?;
    let (now, next) = PROTOCOL;
    let places: Vec<usize> = program
        .windows(now.len())
        .enumerate()
        .filter_map(|(at, window)| (window == now).then_some(at))
        .collect();
    ensure!(!places.is_empty(), "the program does not hold the name of the protocol in one piece");
    places.iter().for_each(|at| program[*at..at + next.len()].copy_from_slice(next));
    fs::write(&path, program)?;
    fs::set_permissions(&path, fs::metadata(binary)?.permissions())?;
    Ok(path)
}

/// A worker of a network without a ledger, with its model in a file of its own.
pub(super) struct Worker {
    pub(super) process: Process,
    pub(super) key: String,
    /// `IP:PORT`
    pub(super) address: String,
    pub(super) data_dir: PathBuf,
    pub(super) namespace: Option<Namespace>,
    /// What it serves, as arguments.
    pub(super) models: Vec<String>,
    /// It runs, and otherwise than it should.
    pub(super) altered: bool,
}

impl Worker {
    pub(super) fn start(
        binary: &Path,
        data_dir: PathBuf,
        namespace: Option<Namespace>,
        models: Vec<String>,
    ) -> Result<Worker> {
        let listen = match &namespace {
            Some(namespace) => format!("{}:7801", namespace.there),
            None => "127.0.0.1:0".to_owned(),
        };
        let how = How { namespace: namespace.as_ref().map(|namespace| namespace.name.as_str()), clock_s: 0 };
        let (process, ready) = serve(binary, &data_dir, &listen, &models, how)?;
        let (key, address) =
            ready["address"].as_str().and_then(|text| text.split_once('@')).context("no address")?;
        let (key, address) = (key.to_owned(), address.to_owned());
        Ok(Worker { process, key, address, data_dir, namespace, models, altered: false })
    }

    /// Ends it, and starts it again where it was.
    pub(super) fn again(&mut self, binary: &Path, clock_s: i64) -> Result<()> {
        self.process.end();
        let namespace = self.namespace.as_ref().map(|namespace| namespace.name.as_str());
        let how = How { namespace, clock_s };
        self.process = serve(binary, &self.data_dir, &self.address, &self.models, how)?.0;
        Ok(())
    }

    /// The model's file.
    pub(super) fn model(&self) -> PathBuf {
        self.data_dir.join("model.gguf")
    }
}

fn serve(
    binary: &Path,
    data_dir: &Path,
    listen: &str,
    models: &[String],
    how: How<'_>,
) -> Result<(Process, Value)> {
    // Slow, so that there is a middle to strike at.
    let mut args = vec!["worker", "run", "--listen", listen, "--threads", "1", "--backend", "scalar"];
    models.iter().for_each(|model| args.extend(["--model", model]));
    launch(binary, data_dir, &args, how)
}

/// Changes a byte in the middle of a file, and nothing that the file system would tell of it.
pub(super) fn damage(path: &Path) -> Result<()> {
    let modified = fs::metadata(path)?.modified()?;
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).with_context(|| format!("{} is empty", path.display()))? ^= 0x55;
    fs::write(path, bytes)?;
    fs::File::options().write(true).open(path)?.set_modified(modified)?;
    Ok(())
}
