//! `xtask compare`: our engine and llama.cpp on the same file, alternated, medians.
//!
//! In:     a GGUF file and a Python that has `llama-cpp-python`.
//! Out:    a table of tokens per second and of ratios.
//! Touches: starts one Python process; packs the model in memory.
//! Holds:  both sides compute the same shapes with the same number of threads, in turn, in one run.
//! Absent: judging the answers; the two engines round differently by design.

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use surety_engine::{Model, Scheduler, SchedulerLimits, SequenceRequest};
use surety_kernels::{Backend, Executor};
use surety_types::{Digest, Sampling};

/// Arguments of `xtask compare`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// GGUF files both sides can run.
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// A Python interpreter with llama-cpp-python installed.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Thread counts to compare.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<NonZeroUsize>,
    /// Measurements of each kind; the median is reported.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

/// One kind of work, done by both sides.
#[derive(Clone, Copy)]
enum Work {
    Prefill { tokens: usize },
    Decode { streams: usize, tokens: usize },
}

impl Work {
    const ALL: [Work; 5] = [
        Work::Prefill { tokens: 128 },
        Work::Prefill { tokens: 512 },
        Work::Decode { streams: 1, tokens: 24 },
        Work::Decode { streams: 8, tokens: 12 },
        Work::Decode { streams: 16, tokens: 12 },
    ];

    fn name(self) -> String {
        match self {
            Work::Prefill { tokens } => format!("prefill/tokens={tokens}"),
            Work::Decode { streams, .. } => format!("decode/streams={streams}"),
        }
    }

    fn tokens(self) -> usize {
        match self {
            Work::Prefill { tokens } => tokens,
            Work::Decode { streams, tokens } => streams * tokens,
        }
    }
}

/// Wall seconds and processor seconds.
#[derive(Clone, Copy)]
struct Spent {
    wall: f64,
    processor: f64,
}

/// Runs the comparison.
pub fn run(arguments: &Arguments) -> Result<()> {
    for model in &arguments.models {
        for &threads in &arguments.threads {
            compare(arguments, model, threads)?;
        }
    }
    Ok(())
}

fn compare(arguments: &Arguments, path: &Path, threads: NonZeroUsize) -> Result<()> {
    let mut ours = Ours::load(path, threads)?;
    let mut peer = Peer::start(&arguments.python, path, threads)?;
    if !arguments.json {
        println!(
            "\n{} · {threads} threads · {} · {}",
            path.display(),
            ours.executor.backend().name(),
            peer.version
        );
        println!("{:<20} {:>12} {:>12} {:>8} {:>10}", "", "surety tok/s", "llama.cpp", "ratio", "cpu ratio");
    }
    for work in Work::ALL {
        // One unmeasured round each; then in turn, so that both meet the same noise.
        ours.measure(work);
        peer.measure(work)?;
        let (mut our_runs, mut peer_runs) = (Vec::new(), Vec::new());
        for _ in 0..arguments.repeats {
            our_runs.push(ours.measure(work));
            peer_runs.push(peer.measure(work)?);
        }
        let rate = |runs: &[Spent], of: fn(&Spent) -> f64| {
            work.tokens() as f64 / median(runs.iter().map(of).collect())
        };
        let (wall, peer_wall) = (rate(&our_runs, |run| run.wall), rate(&peer_runs, |run| run.wall));
        let processor = rate(&our_runs, |run| run.processor) / rate(&peer_runs, |run| run.processor);
        if arguments.json {
            let line = serde_json::json!({
                "model": path.display().to_string(), "threads": threads, "work": work.name(),
                "surety_tokens_per_second": wall, "llama_cpp_tokens_per_second": peer_wall,
                "ratio": wall / peer_wall, "processor_time_ratio": processor,
            });
            println!("{line}");
        } else {
            println!(
                "{:<20} {wall:>12.1} {peer_wall:>12.1} {:>8.2} {processor:>10.2}",
                work.name(),
                wall / peer_wall
            );
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Our side.
struct Ours {
    executor: Arc<Executor>,
    scheduler: Scheduler,
    vocabulary: u64,
}

impl Ours {
    fn load(path: &Path, threads: NonZeroUsize) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let digest = Digest(*blake3::hash(&bytes).as_bytes());
        let executor = Executor::new(Backend::detect(), threads)?;
        let image = surety_engine::model::pack_in_memory(&bytes, digest, &executor)?;
        let model = Arc::new(Model::load(Arc::new(bytes), digest, image, Some(1_024))?);
        let executor = Arc::new(executor);
        let limits = SchedulerLimits {
            kv_pages: 128,
            context_tokens: 1_024,
            tokens_per_step: 512,
            running_max: 16,
            waiting_max: 16,
        };
        let vocabulary = u64::from(model.architecture().vocabulary) - 256;
        let scheduler = Scheduler::new(model, executor.clone(), limits)?;
        Ok(Self { executor, scheduler, vocabulary })
    }

    fn measure(&mut self, work: Work) -> Spent {
        let Self { scheduler, vocabulary, .. } = self;
        let token = |n: usize| ((n as u64 * 7_919 + 13) % *vocabulary) as u32;
        let submit = |scheduler: &mut Scheduler, first: usize, prompt: usize, output: u32| {
            let request = SequenceRequest {
                prompt: (first..first + prompt).map(token).collect(),
                output: Vec::new(),
                sampling: Sampling { temperature: 0.0, ..Sampling::default() },
                seed: [0; 32],
                max_output_tokens: output,
                stop: Vec::new(),
                ignore_end: true,
                logprobs: None,
                prompt_logprobs: None,
                embedding: None,
                grammar: None,
            };
            scheduler.submit(request).expect("the cache holds the comparison");
        };
        match work {
            Work::Prefill { tokens } => {
                submit(scheduler, 0, tokens, 1);
                time(|| {
                    while !scheduler.is_idle() {
                        scheduler.step();
                    }
                })
            }
            Work::Decode { streams, tokens } => {
                (0..streams).for_each(|stream| submit(scheduler, stream, 1, tokens as u32 + 1));
                scheduler.step();
                time(|| {
                    while !scheduler.is_idle() {
                        scheduler.step();
                    }
                })
            }
        }
    }
}

fn time(work: impl FnOnce()) -> Spent {
    let (wall, processor) = (Instant::now(), processor_seconds());
    work();
    Spent { wall: wall.elapsed().as_secs_f64(), processor: processor_seconds() - processor }
}

/// Processor time of this process so far, from `/proc/self/schedstat`'s sum over threads.
fn processor_seconds() -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return f64::NAN };
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|line| line.split(' ').next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 1e9
}

/// llama.cpp in a Python process of its own.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    version: String,
}

impl Peer {
    fn start(python: &Path, model: &Path, threads: NonZeroUsize) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("compare/peer.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(model)
            .args([threads.to_string(), "1024".into()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut peer = Self { child, input, output, version: String::new() };
        let hello =
            peer.read().context("the peer did not start: is llama-cpp-python installed in that Python?")?;
        peer.version = format!("llama-cpp-python {}", hello["version"].as_str().unwrap_or("?"));
        Ok(peer)
    }

    fn measure(&mut self, work: Work) -> Result<Spent> {
        let request = match work {
            Work::Prefill { tokens } => serde_json::json!({ "op": "prefill", "tokens": tokens }),
            Work::Decode { streams, tokens } => {
                serde_json::json!({ "op": "decode", "streams": streams, "tokens": tokens })
            }
        };
        writeln!(self.input, "{request}")?;
        let answer = self.read()?;
        let number = |key: &str| answer[key].as_f64().context("the peer answered without a time");
        Ok(Spent { wall: number("seconds")?, processor: number("cpu_seconds")? })
    }

    fn read(&mut self) -> Result<serde_json::Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the peer ended");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
