//! Progress, shown: a bar at a terminal, a line now and then elsewhere.
//!
//! In:     reports of long work.
//! Out:    something to look at on stderr.
//! Touches: stderr.
//! Absent: the work.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use surety_worker::{Progress, Step};

use crate::output::{note, size};

/// How often a line is printed where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows one piece of work after another.
pub struct Shown {
    subject: String,
    step: Option<Step>,
    bar: Option<ProgressBar>,
    started: Instant,
    printed: Instant,
}

impl Shown {
    /// Work on this, whatever its steps.
    pub fn new(subject: impl Into<String>) -> Self {
        let now = Instant::now();
        Self { subject: subject.into(), step: None, bar: None, started: now, printed: now }
    }

    /// Takes a report.
    pub fn report(&mut self, progress: Progress) {
        let Progress { step, done, total } = progress;
        if self.step != Some(step) {
            self.begin(step, total);
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            if done >= total {
                bar.finish_and_clear();
            }
        } else if self.printed.elapsed() >= LINE_INTERVAL && done < total {
            self.printed = Instant::now();
            let percent = done.saturating_mul(100) / total.max(1);
            let rate = done as f64 / self.started.elapsed().as_secs_f64();
            note(format_args!(
                "{} {}: {percent} % ({} of {}, {}/s)",
                word(step),
                self.subject,
                size(done),
                size(total),
                size(rate as u64)
            ));
        }
    }

    fn begin(&mut self, step: Step, total: u64) {
        self.finish();
        self.step = Some(step);
        (self.started, self.printed) = (Instant::now(), Instant::now());
        if stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
            bar.set_message(format!("{} {}", word(step), self.subject));
            self.bar = Some(bar);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.finish();
    }
}

fn word(step: Step) -> &'static str {
    match step {
        Step::Hashing => "hashing",
        Step::Downloading => "downloading",
        Step::Packing => "packing",
    }
}
