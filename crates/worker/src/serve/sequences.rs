//! One model's scheduler, on a thread of its own.
//!
//! In:     sequences to compute and cancellations, from any task.
//! Out:    each sequence's events, on a channel of its own; counts and speeds for the status.
//! Touches: the thread; memory through the scheduler.
//! Holds:  a receiver that is slow costs only its own channel, which has room for the longest answer it may get,
//!         so the scheduler never waits for anyone; a receiver that is gone, or cancels, frees its memory before
//!         the next step; if the engine panics, the thread ends, every receiver learns of it, and so does the
//!         worker.
//! Absent: orders, receipts, the network.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc as commands,
    },
    thread,
    time::{Duration, Instant},
};

use surety_engine::{Event, Model, Scheduler, SchedulerLimits, SequenceId, SequenceRequest};
use surety_kernels::{Executor, OutOfMemory};
use surety_types::{FinishReason, Sampling};
use thiserror::Error;
use tokio::sync::mpsc;

use super::engine::{Gauges, Place, Places, Sequence, SequenceEvent, Steer};

/// Tokens of the prompt that a model's speed is first measured with.
const MEASURE_PROMPT_TOKENS: usize = 64;
/// Tokens of the output that a model's speed is first measured with.
const MEASURE_OUTPUT_TOKENS: u32 = 8;
/// Prompts shorter than this say little about the speed of prefill.
const PREFILL_SAMPLE_TOKENS: usize = 48;

/// How long the thread rests where all that could be computed waits for memory.
const REST: Duration = Duration::from_millis(1);

enum Command {
    Submit {
        request: Box<SequenceRequest>,
        ticket: u64,
        events: mpsc::Sender<SequenceEvent>,
        place: Place,
        allowed: u32,
    },
    Allow {
        ticket: u64,
        tokens: u32,
    },
    Cancel {
        ticket: u64,
    },
}

/// Why a scheduler could not be started.
#[derive(Debug, Error)]
pub enum ThreadError {
    /// There is not enough memory for its keys and values.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// The system would not start a thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// Tells, when a thread ends by a panic, whose it was.
struct Obituary {
    name: String,
    sender: mpsc::UnboundedSender<String>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.sender.send(std::mem::take(&mut self.name));
        }
    }
}

/// A running scheduler that can be asked to compute.
#[derive(Clone)]
pub struct Sequences {
    commands: commands::Sender<Command>,
    places: Places,
    gauges: Arc<Gauges>,
    tickets: Arc<AtomicU64>,
}

/// Steers one sequence of the thread's.
struct Ticket {
    commands: commands::Sender<Command>,
    ticket: u64,
}

impl Sequences {
    /// Starts the thread, which first measures the model's speed and ends with the last `Sequences`.
    ///
    /// Should it panic, it sends the model's name to `obituary`.
    pub fn start(
        name: &str,
        model: Arc<Model>,
        executor: Arc<Executor>,
        limits: SchedulerLimits,
        obituary: mpsc::UnboundedSender<String>,
    ) -> Result<Self, ThreadError> {
        let (sender, receiver) = commands::channel();
        let obituary = Obituary { name: name.to_owned(), sender: obituary };
        let gauges = Arc::new(Gauges::default());
        let runner = Runner {
            vocabulary: model.architecture().vocabulary,
            scheduler: Scheduler::new(model, executor, limits)?,
            commands: receiver,
            open: HashMap::new(),
            gauges: gauges.clone(),
            context_tokens: limits.context_tokens,
        };
        let run = move || {
            let _obituary = obituary;
            runner.run();
        };
        thread::Builder::new().name("scheduler".into()).spawn(run).map_err(ThreadError::Thread)?;
        let places = Places::new(limits.waiting_max);
        Ok(Self { commands: sender, places, gauges, tickets: Arc::default() })
    }

    /// Room for orders.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What the status tells of it.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Computes a sequence, up to `allowed` output tokens until more are allowed.
    pub fn submit(&self, request: SequenceRequest, place: Place, allowed: u32) -> Sequence {
        // Prompt, every token, the end: there is room for all that can come.
        let (sender, events) = mpsc::channel(request.max_output_tokens as usize + 2);
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let request = Box::new(request);
        // If the thread is gone, the channel of events is closed, which is how the caller learns of it.
        let _ = self.commands.send(Command::Submit { request, ticket, events: sender, place, allowed });
        Sequence::new(events, Arc::new(Ticket { commands: self.commands.clone(), ticket }))
    }
}

impl Steer for Ticket {
    fn allow(&self, tokens: u32) {
        let _ = self.commands.send(Command::Allow { ticket: self.ticket, tokens });
    }

    /// Before the next step, with `Ended`.
    fn cancel(&self) {
        let _ = self.commands.send(Command::Cancel { ticket: self.ticket });
    }
}

/// A sequence the thread computes.
struct Open {
    ticket: u64,
    events: mpsc::Sender<SequenceEvent>,
    _place: Place,
    prompt_tokens: usize,
    /// Output tokens it may have, and has.
    allowed: u32,
    produced: u32,
    submitted: Instant,
    /// Whether it has had the model to itself since it was submitted.
    alone: bool,
    started: bool,
}

struct Runner {
    scheduler: Scheduler,
    commands: commands::Receiver<Command>,
    open: HashMap<SequenceId, Open>,
    gauges: Arc<Gauges>,
    vocabulary: u32,
    context_tokens: u32,
}

impl Runner {
    fn run(mut self) {
        self.measure();
        loop {
            if self.scheduler.is_idle() {
                match self.commands.recv() {
                    Ok(command) => self.obey(command),
                    // Nobody can ask any more.
                    Err(commands::RecvError) => return,
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command);
            }
            let started = Instant::now();
            let events = self.scheduler.step();
            self.note_speed(&events, started.elapsed());
            if events.is_empty() && self.open.values().any(|open| open.produced >= open.allowed) {
                // Those that rest may hold the memory that the others wait for.
                thread::sleep(REST);
            }
            for event in events {
                self.deliver(event);
            }
            self.gauges.running.store(self.scheduler.running() as u32, Ordering::Relaxed);
            self.gauges.waiting.store(self.scheduler.waiting() as u32, Ordering::Relaxed);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit { request, ticket, events, place, allowed } => {
                let prompt_tokens = request.prompt.len();
                match self.scheduler.submit(*request) {
                    Ok(id) => {
                        let alone = self.open.is_empty();
                        self.open.values_mut().for_each(|open| open.alone = false);
                        let submitted = Instant::now();
                        let open = Open {
                            ticket,
                            events,
                            _place: place,
                            prompt_tokens,
                            allowed,
                            produced: 0,
                            submitted,
                            alone,
                            started: false,
                        };
                        self.open.insert(id, open);
                    }
                    Err(error) => send(&events, SequenceEvent::Refused(error)),
                }
            }
            Command::Allow { ticket, tokens } => {
                let open = self.open.iter_mut().find(|(_, open)| open.ticket == ticket);
                let Some((id, open)) = open else { return };
                open.allowed = open.allowed.max(tokens);
                if open.produced < open.allowed {
                    self.scheduler.set_paused(*id, false);
                }
            }
            Command::Cancel { ticket } => {
                let Some(id) = self.open.iter().find(|(_, open)| open.ticket == ticket).map(|(id, _)| *id)
                else {
                    return;
                };
                let open = self.open.remove(&id).expect("just found");
                if let Some(cancelled) = self.scheduler.cancel(id) {
                    let finish = FinishReason::Cancelled;
                    let (text, state_digest) = (cancelled.text, cancelled.state_digest);
                    send(&open.events, SequenceEvent::Ended { finish, text, state_digest });
                }
            }
        }
    }

    fn deliver(&mut self, event: Event) {
        let (id, event, last) = match event {
            Event::Prompt { sequence, logprobs } => (sequence, SequenceEvent::Prompt(logprobs), false),
            Event::Embedding { sequence, vector } => (sequence, SequenceEvent::Embedding(vector), false),
            Event::Token { sequence, token, text, logprob } => {
                (sequence, SequenceEvent::Token { token, text, logprob }, false)
            }
            Event::Finished { sequence, finish, text, state_digest } => {
                (sequence, SequenceEvent::Ended { finish, text, state_digest }, true)
            }
            Event::Failed { sequence, error } => (sequence, SequenceEvent::Failed(error), true),
        };
        if let (SequenceEvent::Token { .. }, Some(open)) = (&event, self.open.get_mut(&id)) {
            open.produced += 1;
            if open.produced >= open.allowed {
                self.scheduler.set_paused(id, true);
            }
        }
        let open = if last { self.open.remove(&id) } else { None };
        if let Some(open) = open.as_ref().or_else(|| self.open.get(&id)) {
            send(&open.events, event);
        }
    }

    /// Learns from a step, where its time belongs to one sequence alone.
    fn note_speed(&mut self, events: &[Event], elapsed: Duration) {
        let mut tokens = events.iter().filter_map(|event| match event {
            Event::Token { sequence, .. } => Some(*sequence),
            _ => None,
        });
        let (Some(id), None) = (tokens.next(), tokens.next()) else { return };
        let single = self.open.len() == 1;
        let Some(open) = self.open.get_mut(&id) else { return };
        if open.alone && single {
            if open.started {
                note(&self.gauges.decode, 1.0 / elapsed.as_secs_f64());
            } else if open.prompt_tokens >= PREFILL_SAMPLE_TOKENS {
                note(
                    &self.gauges.prefill,
                    open.prompt_tokens as f64 / open.submitted.elapsed().as_secs_f64(),
                );
            }
        }
        open.started = true;
    }

    /// Computes one short sequence for the sake of its time. It also brings the weights into memory.
    fn measure(&mut self) {
        let output = MEASURE_OUTPUT_TOKENS.min(self.context_tokens.saturating_sub(1));
        let length = MEASURE_PROMPT_TOKENS.min((self.context_tokens - output) as usize);
        let request = SequenceRequest {
            prompt: (0..length as u32).map(|n| n * 7 % self.vocabulary).collect(),
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
        if let Err(error) = self.scheduler.submit(request) {
            tracing::debug!(%error, "the model's speed was not measured");
            return;
        }
        let mut started = Instant::now();
        let mut first = true;
        while !self.scheduler.is_idle() {
            for event in self.scheduler.step() {
                if let Event::Token { .. } = event {
                    let elapsed = started.elapsed().as_secs_f64();
                    if first {
                        note(&self.gauges.prefill, length as f64 / elapsed);
                    } else {
                        note(&self.gauges.decode, 1.0 / elapsed);
                    }
                    first = false;
                    started = Instant::now();
                }
            }
        }
    }
}

/// Keeps a running mean that follows what was seen lately.
fn note(gauge: &AtomicU32, per_second: f64) {
    let before = f64::from(gauge.load(Ordering::Relaxed));
    let now = if before == 0.0 { per_second } else { before + (per_second - before) / 8.0 };
    gauge.store(now.round().clamp(1.0, f64::from(u32::MAX)) as u32, Ordering::Relaxed);
}

/// Passes an event on. A receiver that is gone has cancelled, or will be noticed at its next token.
fn send(events: &mpsc::Sender<SequenceEvent>, event: SequenceEvent) {
    match events.try_send(event) {
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        Err(mpsc::error::TrySendError::Full(event)) => {
            panic!("more events than a sequence of its length can have: {event:?}")
        }
    }
}
