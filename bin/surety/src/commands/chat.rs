//! `surety chat`: a conversation in the terminal, with every receipt checked as it comes.

use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::Context;
use serde_json::json;
use tokio::sync::mpsc;

use super::Outcome;
use crate::{
    api::{Answered, Api, ChatOptions, Said},
    cli::Global,
    data_dir::DataDir,
    output::{self, Style, err_style, hinted, printable},
    verification::{Known, verify},
};

/// A prompt from a pipe is never longer.
const PROMPT_BYTES_MAX: u64 = 8 << 20;

/// Arguments of `chat`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model [default: the first the gateway offers].
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The gateway to ask [default: the one `surety up` runs].
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    #[command(flatten)]
    options: ChatOptions,
    /// Ask this one thing and leave; without it, a conversation begins, or the prompt is read from a pipe.
    prompt: Option<String>,
}

/// A conversation with one model.
struct Chat {
    api: Api,
    model: String,
    options: ChatOptions,
    messages: Vec<Said>,
}

/// What checking an answer's receipt came to.
struct Check {
    holds: bool,
    line: String,
}

/// Talks.
pub async fn run(global: Global, args: Args) -> anyhow::Result<Outcome> {
    let api = Api::new(args.base_url.as_deref(), &DataDir::of(&global)?)?;
    let model = match args.model {
        Some(model) => model,
        None => api.models().await?.into_iter().next().ok_or_else(|| {
            hinted(
                "the gateway offers no model at the moment",
                "wait until its workers are ready, or name one with --model",
            )
        })?,
    };
    let mut chat = Chat { api, model, options: args.options, messages: Vec::new() };
    chat.reset();
    match args.prompt {
        Some(prompt) => chat.once(&global, prompt).await,
        None if io::stdin().is_terminal() && !global.json => chat.converse().await,
        None => {
            let mut prompt = String::new();
            io::stdin()
                .lock()
                .take(PROMPT_BYTES_MAX)
                .read_to_string(&mut prompt)
                .context("cannot read the prompt")?;
            chat.once(&global, prompt).await
        }
    }
}

impl Chat {
    fn reset(&mut self) {
        self.messages.clear();
        self.messages.extend(self.options.system.clone().map(|content| Said { role: "system", content }));
    }

    /// One question, one answer; fails unless its receipt holds.
    async fn once(&mut self, global: &Global, prompt: String) -> anyhow::Result<Outcome> {
        anyhow::ensure!(!prompt.trim().is_empty(), "there is nothing to ask");
        self.messages.push(Said { role: "user", content: prompt });
        let show = !global.json;
        let answered = self.ask(show).await?;
        let check = self.check(&answered).await;
        if global.json {
            output::json(&json!({
                "text": answered.text, "finish_reason": answered.finish, "model": self.model,
                "request_id": answered.request_id, "receipt_holds": check.holds, "check": check.line,
            }))?;
        } else {
            output::line("")?;
            output::note(check.shown());
        }
        Ok(if check.holds { Outcome::Done } else { Outcome::Failed })
    }

    /// Until the person has enough.
    async fn converse(&mut self) -> anyhow::Result<Outcome> {
        output::note(format_args!(
            "{} at your service. /reset forgets the conversation, /quit leaves, Ctrl-C stops an answer.",
            err_style(Style::Bold, &self.model)
        ));
        let mut lines = read_lines();
        let mut all_hold = true;
        loop {
            output::piece("> ")?;
            let line = tokio::select! {
                line = lines.recv() => line,
                interrupted = tokio::signal::ctrl_c() => { interrupted?; None }
            };
            let Some(line) = line else {
                output::line("")?;
                break;
            };
            match line.trim() {
                "" => continue,
                "/quit" | "/exit" => break,
                "/reset" => {
                    self.reset();
                    output::note("forgotten");
                    continue;
                }
                command if command.starts_with('/') && !command.contains(' ') => {
                    output::note(format_args!("there is no {command}; there are /reset and /quit"));
                    continue;
                }
                _ => {}
            }
            self.messages.push(Said { role: "user", content: line });
            let answered = tokio::select! {
                answered = self.ask(true) => answered,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted?;
                    // Hanging up is how an answer is stopped. It has no receipt then, so it is no part of the talk.
                    self.messages.pop();
                    output::line("")?;
                    output::note("stopped; this question and its answer are forgotten");
                    continue;
                }
            };
            output::line("")?;
            match answered {
                Ok(answered) => {
                    let check = self.check(&answered).await;
                    all_hold &= check.holds;
                    output::note(check.shown());
                    self.messages.push(Said { role: "assistant", content: answered.text });
                }
                Err(error) => {
                    self.messages.pop();
                    output::print_error(&error);
                }
            }
        }
        Ok(if all_hold { Outcome::Done } else { Outcome::Failed })
    }

    async fn ask(&self, show: bool) -> anyhow::Result<Answered> {
        self.api
            .chat(&self.model, &self.messages, &self.options, |piece| {
                if show {
                    output::piece(&printable(piece))?;
                }
                Ok(())
            })
            .await
    }

    /// Checks the receipt against what was sent and what was shown, trusting the gateway in nothing.
    async fn check(&self, answered: &Answered) -> Check {
        let bytes = match self.api.evidence(&answered.request_id).await {
            Ok(bytes) => bytes,
            Err(error) => return Check { holds: false, line: format!("no receipt to check: {error:#}") },
        };
        let known = Known {
            request_id: Some(answered.request_id.clone()),
            text: Some(answered.text.clone()),
            messages: Some(
                self.messages.iter().map(|said| (said.role.to_owned(), said.content.clone())).collect(),
            ),
            ..Known::default()
        };
        match verify(&bytes, &known) {
            Ok(verified) => {
                let answer = &verified.report.answers[0];
                let model: String = answer.model.to_string().chars().take(15).collect();
                let line = format!(
                    "receipt holds: {} ({model}…) by worker {}…; signatures, your messages, tokens and this text agree; not recomputed (surety verify {} --recompute)",
                    self.model,
                    answer.worker.short(),
                    answered.request_id
                );
                Check { holds: true, line }
            }
            Err(report) => {
                let failure = report.failure.unwrap_or_default();
                Check { holds: false, line: format!("RECEIPT DOES NOT HOLD: {failure}") }
            }
        }
    }
}

impl Check {
    fn shown(&self) -> String {
        let line = printable(&self.line);
        if self.holds { err_style(Style::Dim, line) } else { err_style(Style::Bad, line) }
    }
}

/// Lines as they are typed. The thread that waits for them ends with the process.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
