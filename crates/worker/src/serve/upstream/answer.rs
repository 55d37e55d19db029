//! Answer: one call of an upstream, from its first byte to its last.
//!
//! In:     a call; whether it is cancelled. Out: a sequence's events; the last is returned.
//! Touches: one connection.
//! Holds:  the upstream has so long to begin and then, again and again, to bring a line to its end; text ends before the first
//!         stop string; an end is one only if the upstream said why; whoever cancels gets what came until then.

use std::{future::pending, sync::Arc};

use reqwest::{Response, header::CONTENT_TYPE};
use surety_engine::TextStream;
use surety_types::{FinishReason, progress::PROGRESS_TOKENS};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use super::{
    Shared,
    body::Call,
    failure::{Failure, of_response},
    reader::{Names, Reader, Said},
    tally::Tally,
};
use crate::serve::engine::SequenceEvent;

/// Bytes of text in one event, at most.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// Why it is not read to its end.
enum Stop {
    Failed(Failure),
    Cancelled,
    /// Nobody takes the events any more.
    Gone,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Calls the upstream and passes on what it says; the last event.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    call: Call,
    events: &mpsc::Sender<SequenceEvent>,
    cancelled: watch::Receiver<bool>,
) -> SequenceEvent {
    let mut telling = Telling {
        events,
        tally: Tally::new(call.limit),
        text: Some(TextStream::new(&call.stop)),
        prompt_tokens: 0,
        finish: None,
    };
    let told = telling.run(shared, &call, cancelled).await;
    let prompt_tokens = telling.prompt_tokens;
    match told {
        Ok(finish) => SequenceEvent::Told { finish, prompt_tokens },
        Err(Stop::Cancelled | Stop::Gone) => {
            SequenceEvent::Told { finish: FinishReason::Cancelled, prompt_tokens }
        }
        Err(Stop::Failed(Failure { code, message })) => {
            tracing::warn!(%code, message, "an upstream failed");
            SequenceEvent::Broken { code, message }
        }
    }
}

struct Telling<'a> {
    events: &'a mpsc::Sender<SequenceEvent>,
    tally: Tally,
    /// None once a stop string was completed.
    text: Option<TextStream>,
    prompt_tokens: u32,
    finish: Option<FinishReason>,
}

impl Telling<'_> {
    async fn run(
        &mut self,
        shared: &Arc<Shared>,
        call: &Call,
        mut cancelled: watch::Receiver<bool>,
    ) -> Result<FinishReason, Stop> {
        let mut patience = Instant::now() + shared.patience;
        let mut response = tokio::select! {
            response = timeout_at(patience, ask(shared, call)) => match response {
                Ok(response) => response?,
                Err(_) => return Err(too_slow(shared, "did not begin").into()),
            },
            () = wish(&mut cancelled) => return Err(Stop::Cancelled),
        };
        let names = Names {
            model: &shared.model,
            answers_as: shared.answers_as.as_deref(),
            redacting: shared.redacting(),
        };
        let (mut reader, mut said) = (Reader::new(names), Vec::new());
        patience = Instant::now() + shared.patience;
        loop {
            let chunk = tokio::select! {
                chunk = timeout_at(patience, response.chunk()) => chunk,
                () = wish(&mut cancelled) => return Err(Stop::Cancelled),
            };
            let more = match chunk {
                Ok(Ok(Some(bytes))) => {
                    if reader.push(&bytes, &mut said)? {
                        patience = Instant::now() + shared.patience;
                    }
                    true
                }
                Ok(Ok(None)) => {
                    reader.end(&mut said)?;
                    false
                }
                // What it had to say is said; only the count is missing.
                Ok(Err(_)) | Err(_) if reader.finished => false,
                Ok(Err(error)) => return Err(Failure::of_connection(&error).into()),
                Err(_) => return Err(too_slow(shared, "fell silent in mid-answer").into()),
            };
            for said in said.drain(..) {
                if let Some(finish) = self.hear(said).await? {
                    return Ok(finish);
                }
            }
            if !more || reader.done {
                return self.end().await;
            }
        }
    }

    /// Takes one thing in; the end, if the text ends here whatever the upstream goes on to say.
    async fn hear(&mut self, said: Said) -> Result<Option<FinishReason>, Stop> {
        match said {
            Said::Text(text) => {
                let Some(stream) = &mut self.text else { return Ok(None) };
                let released = stream.push(text.as_bytes());
                self.tell(&released.text).await?;
                if released.stopped {
                    self.text = None;
                    return Ok(Some(FinishReason::Stop));
                }
            }
            Said::Finish(finish) => self.finish = Some(finish),
            Said::Usage { prompt_tokens, output_tokens } => {
                // Some servers count on the way, and say so each time.
                self.prompt_tokens = prompt_tokens;
                if self.finish.is_some() {
                    let more = self.tally.told(output_tokens);
                    self.count(more).await?;
                }
            }
            Said::Done => {}
        }
        Ok(None)
    }

    /// The upstream says no more.
    async fn end(&mut self) -> Result<FinishReason, Stop> {
        let Some(finish) = self.finish else {
            return Err(Failure::ours(
                "the operator's upstream broke off without saying why the answer ends",
            )
            .into());
        };
        if let Some(stream) = self.text.take() {
            self.tell(&stream.finish()).await?;
        }
        Ok(finish)
    }

    async fn tell(&mut self, text: &str) -> Result<(), Stop> {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(TEXT_BYTES_MAX));
            let tokens = self.tally.take(piece).map_err(|_| {
                Failure::ours(
                    "the operator's upstream sent more text than the tokens that were asked for can spell",
                )
            })?;
            self.send(tokens, piece).await?;
            rest = after;
        }
        Ok(())
    }

    /// Tokens without text: the end's, and those of what an upstream keeps to itself.
    async fn count(&mut self, mut tokens: u32) -> Result<(), Stop> {
        while tokens > 0 {
            let step = tokens.min(PROGRESS_TOKENS);
            self.send(step, "").await?;
            tokens -= step;
        }
        Ok(())
    }

    async fn send(&self, tokens: u32, text: &str) -> Result<(), Stop> {
        let event = SequenceEvent::Text { tokens, text: text.to_owned() };
        self.events.send(event).await.map_err(|_| Stop::Gone)
    }
}

/// Resolves when the answer is not wanted any more.
async fn wish(cancelled: &mut watch::Receiver<bool>) {
    // An error means that nobody can wish any more.
    if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
        pending::<()>().await;
    }
}

async fn ask(shared: &Arc<Shared>, call: &Call) -> Result<Response, Failure> {
    let request = shared.client.post(format!("{}{}", shared.base, call.path)).json(&call.body);
    let response = shared.authorized(request).send().await;
    let response = response.map_err(|error| Failure::of_connection(&error))?;
    if response.status() != 200 {
        return Err(of_response(shared, response).await);
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("text/event-stream") {
        return Err(Failure::ours("the operator's upstream does not stream its answer"));
    }
    Ok(response)
}

fn too_slow(shared: &Shared, what: &str) -> Failure {
    Failure::ours(format!("the operator's upstream {what} within {} s", shared.patience.as_secs()))
}
