//! Child processes: roles started by `up`, which live no longer than it does.
//!
//! In:     a role's arguments.
//! Out:    the running child and the line it printed when it was ready.
//! Touches: processes, and the pipes to them.
//! Holds:  a child's standard input is a pipe that only its parent holds: however the parent ends, the pipe closes,
//!         and the child stops. A child is in a process group of its own, so Ctrl-C reaches the parent alone, which
//!         stops the children in order.
//! Absent: when to start and stop which (`commands/up`).

use std::{
    ffi::OsString,
    io::Read,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::oneshot,
    time::timeout,
};

/// A ready line is never longer.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What a role is told by the process that started it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ChildArgs {
    /// Stop when standard input closes, as it does when the parent process ends.
    #[arg(long, hide = true)]
    pub stop_with_parent: bool,
}

/// A running child.
pub struct Running {
    child: Child,
    /// Closed to ask the child to stop.
    stdin: Option<ChildStdin>,
    /// Its process id.
    pub pid: u32,
}

/// Starts this program with other arguments, and waits for the line that says it is ready.
pub async fn start<T: DeserializeOwned>(args: &[OsString]) -> anyhow::Result<(Running, T)> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(args).arg("--stop-with-parent").arg("--json");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().context("cannot start a process")?;
    let pid = child.id().context("the process ended at once")?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().context("the process has no output")?;
    let mut running = Running { child, stdin, pid };
    let mut lines = BufReader::new(stdout.take(LINE_BYTES_MAX));
    let mut line = String::new();
    lines.read_line(&mut line).await.context("the process cannot be heard")?;
    if line.is_empty() {
        let status = running.ended().await?;
        anyhow::bail!("it ended before it was ready ({})", describe(status));
    }
    let ready = serde_json::from_str(&line).context("the process did not say that it is ready")?;
    Ok((running, ready))
}

impl Running {
    /// Resolves when it has ended, however it did.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().await.context("a process cannot be waited for")
    }

    /// Asks it to stop, gives it some time, then ends it.
    pub async fn stop(mut self, grace: Duration) {
        drop(self.stdin.take());
        if timeout(grace, self.child.wait()).await.is_err() {
            tracing::warn!(pid = self.pid, "a process did not stop in time and was ended");
            // It may have ended this very moment.
            let _ = self.child.kill().await;
        }
    }
}

/// Lets this process open as many files as the system grants. Usual systems set a lower limit for programs that would
/// misread large descriptors; a gateway has a socket for each of its callers.
pub fn allow_open_files() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit on open files stays");
    }
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            return format!("killed by signal {signal}");
        }
    }
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => "no exit status".into(),
    }
}

/// Resolves when this process is to stop: Ctrl-C, SIGTERM, or the end of its parent.
pub async fn stop_requested(args: ChildArgs) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("cannot listen for signals")?;
    let orphaned = async {
        if args.stop_with_parent {
            input_closed().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for Ctrl-C")?,
        _ = terminate.recv() => {}
        () = orphaned => {}
    }
    Ok(())
}

/// Resolves when standard input closes. The thread that waits for it ends with the process.
async fn input_closed() {
    let (sender, receiver) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while matches!(stdin.read(&mut buffer), Ok(1..)) {}
        drop(sender);
    });
    // Nothing is ever sent; the end of the thread is the message.
    let _ = receiver.await;
}
