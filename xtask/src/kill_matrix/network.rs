//! The network under test: `surety up`, further workers in network namespaces of their own, and what befalls them.
//!
//! In:     the binary, how many workers of which kind.
//! Out:    members that can be killed, stopped and cut off, and that come back.
//! Touches: processes; with root, network namespaces and pairs of virtual links, named after this process.
//! Holds:  what was started is ended and what was made is removed, whoever panics.
//! Absent: when and to whom (`kill_matrix`).

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::wire;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Namespaces of one process.
pub(crate) const NAMESPACES_MAX: usize = 64;
/// A hardware address that no end of a link has.
const NOBODYS_ADDRESS: &str = "02:00:00:00:00:01";
/// The accounts that `up` makes for workers.
pub const WORKERS_MAX: usize = 8;

/// `surety up`, and what it said.
pub struct Up {
    child: Child,
    /// The line that it printed when it was ready.
    pub ready: Value,
    said: Arc<Mutex<String>>,
}

/// A worker of the network.
pub struct Member {
    /// From one, as its account and key are numbered.
    pub number: usize,
    /// Its key.
    pub id: String,
    place: Place,
}

enum Place {
    /// A child of `up`, which starts it again.
    Within { pid: u32 },
    /// In a namespace of its own.
    Apart(Box<Apart>),
}

/// A worker in a namespace of its own; started again by hand.
struct Apart {
    namespace: Namespace,
    command: Vec<String>,
    binary: PathBuf,
    child: Child,
}

/// A network namespace with one link to this one.
pub(crate) struct Namespace {
    pub(crate) name: String,
    /// The link's ends: this side's, and within.
    link: String,
    inner: String,
    pub(crate) here: Ipv4Addr,
    pub(crate) there: Ipv4Addr,
}

/// Which way of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into the namespace.
    There,
    /// Out of it.
    Back,
}

/// A command of the binary, with nothing of the caller's environment that would change it.
pub fn surety(binary: &Path, data_dir: &Path) -> Command {
    let mut command = Command::new(binary);
    for name in ["SURETY_LOG", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.env("SURETY_HOME", data_dir).env("NO_PROXY", "*").stdin(Stdio::null());
    command
}

/// The JSON that a command prints.
pub fn told(binary: &Path, data_dir: &Path, args: &[&str]) -> Result<Value> {
    let output = surety(binary, data_dir).args(args).arg("--json").output()?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

impl Up {
    /// Starts one and waits until it is ready.
    pub fn start(binary: &Path, data_dir: &Path, args: &[String]) -> Result<Self> {
        let mut command = surety(binary, data_dir);
        command.args(["up", "--json", "--port", "0", "--log", "surety_gateway=info"]).args(args);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("starting `up`")?;
        let said = Arc::new(Mutex::new(String::new()));
        let (collected, source) = (said.clone(), child.stderr.take().context("no stderr")?);
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = String::new();
            while matches!(source.read_line(&mut line), Ok(1..)) {
                collected.lock().expect("no panic").push_str(&std::mem::take(&mut line));
            }
        });
        let ready = ready_line(&mut child);
        let mut up = Up { child, ready: Value::Null, said };
        up.ready = ready.with_context(|| format!("`up` did not start: {}", up.said()))?;
        Ok(up)
    }

    /// Adds a line to what it said, where it is up to now.
    pub fn note(&self, line: &str) {
        let mut said = self.said.lock().expect("no panic");
        said.push_str(line);
        said.push('\n');
    }

    /// What it has written to stderr so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// The processes that a role (`the gateway`, `worker 1`) was started again as, in order.
    pub fn again(&self, role: &str) -> Result<Vec<u32>> {
        let (said, marker) = (self.said(), format!("{role} runs again (process "));
        let runs = said.split(&marker).skip(1);
        let number = |rest: &str| rest.split(')').next()?.parse().ok();
        runs.map(|rest| number(rest).context("`up` names no process")).collect()
    }

    /// `IP:PORT` of its gateway.
    pub fn host(&self) -> String {
        let url = self.ready["base_url"].as_str().unwrap_or_default();
        url.trim_start_matches("http://").trim_end_matches("/v1").to_owned()
    }

    /// `IP:PORT` of a validator's RPC, if there is a ledger.
    pub fn rpc(&self) -> Option<String> {
        Some(self.ready["rpc_url"].as_str()?.trim_start_matches("http://").to_owned())
    }

    /// Its workers.
    pub fn members(&self) -> Vec<Member> {
        let workers = self.ready["workers"].as_array().into_iter().flatten().zip(1..);
        let member = |(worker, number): (&Value, usize)| Member {
            number,
            id: worker["id"].as_str().unwrap_or_default().to_owned(),
            place: Place::Within { pid: worker["pid"].as_u64().unwrap_or_default() as u32 },
        };
        workers.map(member).collect()
    }

    /// Stops it in order and waits for its end.
    pub fn stop(mut self) -> Result<()> {
        kill_process(pid(self.child.id())?, Signal::TERM)?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "`up` ended with {status}: {}", self.said());
                return Ok(());
            }
            ensure!(Instant::now() < until, "`up` did not stop");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Its children notice that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The line of JSON that says that a process is ready; the rest of its output is thrown away.
pub(crate) fn ready_line(child: &mut Child) -> Result<Value> {
    let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let ready = serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))?;
    thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
    Ok(ready)
}

fn pid(pid: u32) -> Result<Pid> {
    Pid::from_raw(pid as i32).context("no process has the id 0")
}

impl Member {
    /// Starts a worker in a namespace of its own, which reaches the ledger through `relay`.
    pub fn apart(
        binary: &Path,
        data_dir: &Path,
        number: usize,
        rpc: &str,
        models: &[String],
    ) -> Result<Self> {
        ensure!(number <= WORKERS_MAX, "there are accounts for {WORKERS_MAX} workers");
        let namespace = Namespace::make(number)?;
        let relay = relay(namespace.here, rpc)?;
        let mut command: Vec<String> = ["worker", "run", "--json", "--stop-with-parent", "--threads", "1"]
            .into_iter()
            .map(str::to_owned)
            .collect();
        let text = |path: PathBuf| path.display().to_string();
        command.extend([
            "--data-dir".into(),
            text(data_dir.to_owned()),
            "--key".into(),
            format!("worker-{number}"),
        ]);
        command.extend(["--genesis".into(), text(data_dir.join("ledger/genesis.json"))]);
        command.extend(["--rpc-url".into(), format!("http://{relay}")]);
        command.extend(["--account".into(), format!("worker-{number}-operator")]);
        command.extend(["--listen".into(), format!("{}:7801", namespace.there)]);
        models.iter().for_each(|model| command.extend(["--model".into(), model.clone()]));
        let (child, ready) = launch(binary, &namespace, &command)?;
        let address = ready["address"].as_str().context("the worker names no address")?;
        let id = address.split('@').next().unwrap_or_default().to_owned();
        let apart = Apart { namespace, command, binary: binary.to_owned(), child };
        Ok(Member { number, id, place: Place::Apart(Box::new(apart)) })
    }

    /// Whether its link can be cut.
    pub fn is_apart(&self) -> bool {
        matches!(self.place, Place::Apart(_))
    }

    /// Learns its process if `up` has started it again, or starts it again if that is nobody else's task.
    pub fn revive(&mut self, up: &Up) -> Result<()> {
        match &mut self.place {
            Place::Within { pid } => {
                if let Some(again) = up.again(&format!("worker {}", self.number))?.last() {
                    *pid = *again;
                }
            }
            Place::Apart(apart) => {
                if apart.child.try_wait()?.is_some() {
                    apart.child = launch(&apart.binary, &apart.namespace, &apart.command)?.0;
                }
            }
        }
        Ok(())
    }

    fn process(&self) -> u32 {
        match &self.place {
            Place::Within { pid } => *pid,
            Place::Apart(apart) => apart.child.id(),
        }
    }

    /// Sends it a signal; one that is gone already needs none.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match kill_process(pid(self.process())?, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether its process is there.
    pub fn is_alive(&self) -> bool {
        // A process that ended and was not waited for is a zombie.
        fs::read_to_string(format!("/proc/{}/stat", self.process()))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
    }

    /// Takes its link down or up again.
    pub fn set_link(&self, up: bool) -> Result<()> {
        match &self.place {
            Place::Within { .. } => bail!("worker {} has no link of its own", self.number),
            Place::Apart(apart) => apart.namespace.set_link(up),
        }
    }

    /// Nanoseconds that its threads have computed.
    pub fn computed_ns(&self) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process()));
        let spent = |thread: io::Result<fs::DirEntry>| -> Option<u64> {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        threads.into_iter().flatten().filter_map(spent).sum()
    }

    /// Ends a worker that `up` does not, in order.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        if let Place::Apart(apart) = &mut self.place {
            let until = Instant::now() + PATIENCE;
            while apart.child.try_wait()?.is_none() {
                ensure!(Instant::now() < until, "worker {} did not stop", self.number);
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a worker in a namespace and waits until it is ready.
fn launch(binary: &Path, namespace: &Namespace, args: &[String]) -> Result<(Child, Value)> {
    let mut command = Command::new("ip");
    // `ip` becomes the worker: the process is the same.
    command.args(["netns", "exec", &namespace.name]).arg(binary).args(args);
    command.env_remove("SURETY_LOG").env("NO_PROXY", "*");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a worker")?;
    match ready_line(&mut child) {
        Ok(ready) => Ok((child, ready)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error.context("a worker in a namespace of its own did not start"))
        }
    }
}

/// Why no worker can have a namespace of its own, if so.
pub fn no_namespaces() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this is not root".into());
    }
    let name = format!("surety-try-{}", std::process::id());
    let made = ip(&["netns", "add", &name]);
    let _ = ip(&["netns", "del", &name]);
    made.err().map(|error| format!("{error:#}"))
}

impl Namespace {
    /// Makes one; the number is this process's own.
    pub(crate) fn make(number: usize) -> Result<Self> {
        ensure!(number < NAMESPACES_MAX, "there are addresses for {NAMESPACES_MAX} namespaces");
        let (process, number) = (std::process::id(), number as u32);
        // A link of four addresses, in a range that few others use.
        let net = process.wrapping_mul(NAMESPACES_MAX as u32) + number;
        let address = |last: u32| Ipv4Addr::from((10 << 24) | (222 << 16) | ((net << 2) % (1 << 16)) | last);
        let namespace = Namespace {
            name: format!("surety-{process}-{number}"),
            link: format!("sv{process}h{number}"),
            inner: format!("sv{process}w{number}"),
            here: address(1),
            there: address(2),
        };
        let Namespace { name, link, inner, .. } = &namespace;
        ip(&["netns", "add", name])?;
        ip(&["link", "add", link, "type", "veth", "peer", "name", inner])?;
        ip(&["link", "set", inner, "netns", name])?;
        ip(&["addr", "add", &format!("{}/30", namespace.here), "dev", link])?;
        ip(&["link", "set", link, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/30", namespace.there), "dev", inner])?;
        ip(&["-n", name, "link", "set", inner, "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Takes the link down or up again.
    pub(crate) fn set_link(&self, up: bool) -> Result<()> {
        ip(&["link", "set", &self.link, if up { "up" } else { "down" }])
    }

    /// Loses everything that is sent one way, silently: it goes to a machine that is not there.
    pub(crate) fn lose(&self, way: Way) -> Result<()> {
        let (to, dev, mut args) = self.neighbour(way);
        args.extend(["neigh", "replace", &to, "lladdr", NOBODYS_ADDRESS, "dev", dev, "nud", "permanent"]);
        ip(&args)
    }

    /// Lets so many bits pass in a second, each way.
    pub(crate) fn slow(&self, bits_per_second: u32) -> Result<()> {
        let rate = format!("{bits_per_second}bit");
        for way in [Way::There, Way::Back] {
            let (_, dev, inside) = self.neighbour(way);
            let mut args = inside;
            args.extend(["qdisc", "replace", "dev", dev, "root", "tbf", "rate", &rate]);
            args.extend(["burst", "1600", "latency", "2s"]);
            run("tc", &args)?;
        }
        Ok(())
    }

    /// Makes the link whole again, whatever was done to it.
    pub(crate) fn mend(&self) -> Result<()> {
        self.set_link(true)?;
        for way in [Way::There, Way::Back] {
            let (to, dev, inside) = self.neighbour(way);
            // Both fail where there is nothing to undo.
            let _ = ip(&[inside.as_slice(), &["neigh", "del", &to, "dev", dev]].concat());
            let _ = run("tc", &[inside.as_slice(), &["qdisc", "del", "dev", dev, "root"]].concat());
        }
        Ok(())
    }

    /// Who is at the other end of a way, the end it begins at, and what makes `ip` and `tc` act there.
    fn neighbour(&self, way: Way) -> (String, &str, Vec<&str>) {
        match way {
            Way::There => (self.there.to_string(), &self.link, Vec::new()),
            Way::Back => (self.here.to_string(), &self.inner, vec!["-n", &self.name]),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Both ends of the link go with either.
        let _ = ip(&["link", "del", &self.link]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<()> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("running `{program}`"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Passes connections on to `target`, which listens on loopback only.
fn relay(here: Ipv4Addr, target: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((here, 0)).context("listening for a worker's calls to the ledger")?;
    let address = listener.local_addr()?;
    let target = target.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(onward) = TcpStream::connect(&target) else { continue };
            let (Ok(back), Ok(forth)) = (stream.try_clone(), onward.try_clone()) else { continue };
            thread::spawn(move || pass(stream, onward));
            thread::spawn(move || pass(forth, back));
        }
    });
    Ok(address)
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 1 << 14];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// Waits until at least so many of these workers are there, and the gateway holds them ready and can pay them. It may hold ready
/// for a while who was killed just now.
pub fn until_ready(host: &str, up: &Up, members: &mut [Member], count: usize) -> Result<()> {
    until_counted(host, count, |ids| {
        members.iter_mut().try_for_each(|member| member.revive(up))?;
        Ok(members.iter().filter(|member| member.is_alive() && ids.contains(&member.id)).count())
    })
}

/// Waits until the gateway holds at least so many workers ready.
pub fn until_held_ready(host: &str, count: usize) -> Result<()> {
    until_counted(host, count, |ids| Ok(ids.len()))
}

/// Waits until so many of the workers that the gateway holds ready count.
fn until_counted(host: &str, wanted: usize, mut count: impl FnMut(&[String]) -> Result<usize>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let ready = count(&ready_ids(host)?)?;
        if ready >= wanted {
            return Ok(());
        }
        ensure!(Instant::now() < until, "only {ready} of {wanted} workers became ready");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The workers that the gateway holds ready; where there is a ledger, those it can pay.
pub fn ready_ids(host: &str) -> Result<Vec<String>> {
    let status = wire::get(host, "/v1/network/status")?;
    let paid = !status["ledger"].is_null();
    let workers = status["workers"].as_array().into_iter().flatten();
    let ready =
        workers.filter(|worker| worker["state"] == "ready" && (!paid || worker["channel"].is_object()));
    Ok(ready.filter_map(|worker| Some(worker["id"].as_str()?.to_owned())).collect())
}
