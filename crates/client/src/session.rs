//! The session: one order with one worker, from sending it to the checked answer.
//!
//! In:     a link, a signed order, its request. Out: events, in their turn, and in the end a checked answer.
//! Holds: : silence, loss and lateness become errors in time; a dropped session stops the worker. Nothing that
//!         follows something signed is told before its signature is verified; what others have to tell may be, meanwhile.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use surety_net::{CloseCode, Link, Lost, OpenError, ReceiveError, Receiver, SendError, Sender};
use surety_proof::{Checked, Fault, check::check_resumed_ids};
use surety_types::{
    Acceptance, Answer, Canonical, FromWorker, Invalid, Order, PublicKey, Receipt, Request, Signed, ToWorker,
    TokenLogprob,
};
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};

use crate::{
    channel::{Paid, Purse, PurseError, Terms, Till},
    connection::OrderOptions,
    transcript::{ProgressProblem, Transcript},
};

/// One order with one worker. Dropped before its last event, it tells the worker to stop.
#[derive(Debug)]
pub struct Session {
    towards: Towards,
    receiver: Receiver<FromWorker>,
    transcript: Transcript,
    /// What has come, and is not taken yet.
    pending: Option<FromWorker>,
    worker: PublicKey,
    stall: Duration,
    acceptance: Duration,
    heard: Instant,
    deadline: Instant,
    ended: bool,
}

/// The direction towards the worker.
#[derive(Debug)]
enum Towards {
    /// Nothing is paid.
    Free(Sender<ToWorker>),
    /// Vouchers go there too.
    Paying(Till),
}

/// What comes of an order, in this order: one acceptance, the scored prompt if asked for, tokens, one end. Or a refusal
/// at any time.
#[derive(Debug)]
pub enum SessionEvent {
    /// The worker promises to answer.
    Accepted(Acceptance),
    /// A piece of the scored prompt.
    Prompt {
        /// Index of its first token in the prompt.
        index: u32,
        /// Its tokens.
        ids: Vec<u32>,
        /// How likely each was.
        logprobs: Vec<TokenLogprob>,
    },
    /// Output.
    Tokens {
        /// What was sampled; may be empty where only text was held back.
        tokens: Vec<u32>,
        /// What it adds to the text; may be empty.
        text: String,
        /// How likely each was, if asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// The end: an answer, whole or (by its finish reason) partial, that holds against everything signed.
    Finished(Box<Completed>),
    /// The end: a failure that the worker signed, before any work or in the middle of it.
    Refused(Box<Refusal>),
}

/// A checked answer.
#[derive(Debug)]
pub struct Completed {
    /// Everything signed, and the tokens and text.
    pub answer: Answer,
    /// The receipt, opened.
    pub receipt: Signed<Receipt>,
    /// What was checked of it and what was not.
    pub checked: Checked,
}

/// A signed failure.
#[derive(Debug)]
pub struct Refusal {
    /// Everything signed, and what was delivered before.
    pub answer: Answer,
    /// The failure receipt, opened.
    pub receipt: Signed<Receipt>,
}

/// Who has to answer for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// The worker: it broke its word, or the protocol.
    Worker,
    /// Nobody provably: a connection that was not made.
    Network,
    /// This side.
    Payer,
}

/// Why a session has no checked answer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no connection to the worker.
    #[error("worker {worker} is not reachable")]
    Unreachable {
        /// Which.
        worker: PublicKey,
        /// Why the last attempt failed, if there was one.
        #[source]
        lost: Option<Lost>,
    },
    /// The connection broke before the receipt.
    #[error("worker {worker} was lost after {output_tokens} tokens")]
    WorkerLost {
        /// Which.
        worker: PublicKey,
        /// What had come.
        output_tokens: u32,
        /// Whether it had accepted.
        accepted: bool,
        /// How.
        #[source]
        lost: Lost,
    },
    /// The worker broke the stream off, or ended it without a receipt.
    #[error("worker {worker} broke off after {output_tokens} tokens: {code}")]
    BrokenOff {
        /// Which.
        worker: PublicKey,
        /// What had come.
        output_tokens: u32,
        /// Whether it had accepted.
        accepted: bool,
        /// What it said; `Done` if it simply ended.
        code: CloseCode,
    },
    /// The worker is connected and says nothing.
    #[error("worker {worker} sent nothing for {} s, after {output_tokens} tokens", stall.as_secs_f32())]
    Stalled {
        /// Which.
        worker: PublicKey,
        /// What had come.
        output_tokens: u32,
        /// Whether it had accepted.
        accepted: bool,
        /// For how long.
        stall: Duration,
    },
    /// The order's deadline passed before the receipt.
    #[error("worker {worker} was not done by the deadline, with {output_tokens} tokens")]
    DeadlineExceeded {
        /// Which.
        worker: PublicKey,
        /// What had come.
        output_tokens: u32,
        /// Whether it had accepted.
        accepted: bool,
    },
    /// A frame of the stream is too long, empty, incomplete, or no message.
    #[error("worker {worker} sent what cannot be read")]
    BadMessage {
        /// Which.
        worker: PublicKey,
        /// What about it.
        #[source]
        source: ReceiveError,
    },
    /// A message that had no place where it came.
    #[error("worker {worker} sent {what}")]
    OutOfTurn {
        /// Which.
        worker: PublicKey,
        /// What it was.
        what: &'static str,
    },
    /// Tokens are missing or repeated.
    #[error("worker {worker} sent token {found} where {expected} was due")]
    Gap {
        /// Which.
        worker: PublicKey,
        /// The index that was due.
        expected: u32,
        /// The index that came.
        found: u32,
    },
    /// A frame that breaks a bound.
    #[error("worker {worker} sent {what}")]
    BadFrame {
        /// Which.
        worker: PublicKey,
        /// What it was.
        what: &'static str,
    },
    /// An acceptance that is not of this order.
    #[error("worker {worker} sent a bad acceptance")]
    BadAcceptance {
        /// Which.
        worker: PublicKey,
        /// What about it.
        #[source]
        fault: Box<Fault>,
    },
    /// A progress that is not of what was sent.
    #[error("worker {worker} sent a bad progress")]
    BadProgress {
        /// Which.
        worker: PublicKey,
        /// What about it.
        #[source]
        problem: ProgressProblem,
    },
    /// A receipt that is not of what was sent.
    #[error("worker {worker} sent a bad receipt")]
    BadReceipt {
        /// Which.
        worker: PublicKey,
        /// What about it.
        #[source]
        fault: Box<Fault>,
    },
    /// The order or request is out of its bounds; nothing was sent.
    #[error("the order cannot be sent")]
    Invalid(#[source] Invalid),
    /// The last event has been yielded already.
    #[error("the session has ended")]
    Ended,
}

impl SessionError {
    /// Who has to answer for it.
    pub fn accountable(&self) -> Party {
        match self {
            SessionError::Unreachable { .. } => Party::Network,
            // Before the acceptance nothing was promised.
            SessionError::WorkerLost { accepted, .. }
            | SessionError::Stalled { accepted, .. }
            | SessionError::DeadlineExceeded { accepted, .. }
            | SessionError::BrokenOff { accepted, .. } => {
                if *accepted {
                    Party::Worker
                } else {
                    Party::Network
                }
            }
            SessionError::BadMessage { .. }
            | SessionError::OutOfTurn { .. }
            | SessionError::Gap { .. }
            | SessionError::BadFrame { .. }
            | SessionError::BadAcceptance { .. }
            | SessionError::BadProgress { .. }
            | SessionError::BadReceipt { .. } => Party::Worker,
            SessionError::Invalid(_) | SessionError::Ended => Party::Payer,
        }
    }

    /// Whether the worker broke the protocol: then nothing that it said is relied on.
    pub fn breaks_protocol(&self) -> bool {
        match self {
            SessionError::BadMessage { .. }
            | SessionError::OutOfTurn { .. }
            | SessionError::Gap { .. }
            | SessionError::BadFrame { .. }
            | SessionError::BadAcceptance { .. }
            | SessionError::BadProgress { .. }
            | SessionError::BadReceipt { .. } => true,
            SessionError::Unreachable { .. }
            | SessionError::WorkerLost { .. }
            | SessionError::BrokenOff { .. }
            | SessionError::Stalled { .. }
            | SessionError::DeadlineExceeded { .. }
            | SessionError::Invalid(_)
            | SessionError::Ended => false,
        }
    }

    /// Whether another worker, or this one later, may do better.
    pub fn is_retryable(&self) -> bool {
        match self {
            // The order's own deadline has passed for every worker.
            SessionError::DeadlineExceeded { .. } | SessionError::Invalid(_) | SessionError::Ended => false,
            _ => true,
        }
    }
}

impl Session {
    pub(crate) async fn start(
        link: &Link,
        order: Signed<Order>,
        request: Request,
        resumed: Vec<u32>,
        options: OrderOptions,
        purse: Option<Box<dyn Purse>>,
    ) -> Result<Session, SessionError> {
        // Until the order may have been read, nothing can be owed for it.
        let mut purse = Unsent(purse);
        let worker = link.address().key;
        let encoded = request.try_to_cbor().map_err(SessionError::Invalid)?;
        assert_eq!(Request::digest_of(&encoded), order.request_digest, "an order names its request");
        assert!(check_resumed_ids(&order, &resumed).is_ok(), "an order names what it resumes from");

        let now = Instant::now();
        let left = order.deadline_ms.saturating_sub(unix_ms());
        let deadline = now + Duration::from_millis(left).min(LONGEST_DEADLINE);
        let not_started = |lost| SessionError::WorkerLost { worker, output_tokens: 0, accepted: false, lost };

        let mut stream = link.open_order().await.map_err(|error| match error {
            OpenError::Lost(lost) => not_started(lost),
            OpenError::Busy => {
                SessionError::BrokenOff { worker, output_tokens: 0, accepted: false, code: CloseCode::Busy }
            }
        })?;
        let message = ToWorker::Order { order: order.bytes().to_vec(), request: encoded, output: resumed };
        let sending = stream.send(&message).await;
        let ToWorker::Order { output: resumed, .. } = message else { unreachable!("it was made so") };
        match sending {
            Ok(()) => {}
            // The worker may have said why on its own direction: let the session tell.
            Err(SendError::Stopped(_)) => {}
            Err(SendError::Lost(lost)) => return Err(not_started(lost)),
            Err(SendError::Timeout | SendError::Ended) => {
                return Err(SessionError::Stalled {
                    worker,
                    output_tokens: 0,
                    accepted: false,
                    stall: options.stall,
                });
            }
        }
        let (sender, receiver) = stream.split();
        let channel = purse.0.as_ref().map(|purse| purse.channel().to_cbor());
        let towards = match purse.0.take() {
            Some(purse) => Towards::Paying(Till::open(sender, purse)),
            None => Towards::Free(sender),
        };
        Ok(Session {
            towards,
            receiver,
            transcript: Transcript::new(order, request, resumed, channel, worker, &options),
            pending: None,
            worker,
            stall: options.stall,
            acceptance: options.acceptance,
            heard: Instant::now(),
            deadline,
            ended: false,
        })
    }

    /// Who is asked.
    pub fn worker(&self) -> PublicKey {
        self.worker
    }

    /// What is asked.
    pub fn order(&self) -> &Signed<Order> {
        self.transcript.order()
    }

    /// The next event. May be cancelled without loss.
    ///
    /// After `Finished`, `Refused` or an error there is none: then it is [`SessionError::Ended`].
    pub async fn next(&mut self) -> Result<SessionEvent, SessionError> {
        loop {
            if let Some(event) = self.hear().await? {
                return Ok(event);
            }
        }
    }

    /// As [`Session::next`], but returns for a sign of life too: then there is no event. May be cancelled without loss.
    pub async fn hear(&mut self) -> Result<Option<SessionEvent>, SessionError> {
        if self.ended {
            return Err(SessionError::Ended);
        }
        match self.step().await {
            Ok(Some(event @ (SessionEvent::Finished(_) | SessionEvent::Refused(_)))) => {
                self.end(CloseCode::Done);
                Ok(Some(event))
            }
            Ok(event) => Ok(event),
            Err(error) => {
                self.end(match error {
                    SessionError::Stalled { .. } | SessionError::DeadlineExceeded { .. } => {
                        CloseCode::Timeout
                    }
                    _ => CloseCode::BadMessage,
                });
                Err(error)
            }
        }
    }

    /// When the worker last said something.
    pub fn heard_at(&self) -> Instant {
        self.heard
    }

    /// What the worker has signed, and the tokens and text it has signed for: what is left if it breaks off now, or has
    /// . None if it had not accepted.
    pub fn so_far(&self) -> Option<Answer> {
        self.transcript.so_far()
    }

    /// The last progress, and the tokens and text that it signs for; none before the first, or after the end.
    pub fn signed(&self) -> Option<(&[u8], &[u32], &str)> {
        self.transcript.signed()
    }

    /// Asks the worker to stop. What it has delivered is still receipted: go on with [`Session::next`].
    pub async fn cancel(&mut self) {
        if self.ended || self.transcript.cancelled {
            return;
        }
        self.transcript.cancelled = true;
        match &mut self.towards {
            // A failure to send shows when the next event is awaited.
            Towards::Free(sender) => drop(sender.send(&ToWorker::Cancel).await),
            Towards::Paying(till) => till.cancel(),
        }
    }

    /// Why the answer could not be paid to its end, if so: then it was cancelled.
    pub fn payment_problem(&self) -> Option<&PurseError> {
        match &self.towards {
            Towards::Free(_) => None,
            Towards::Paying(till) => till.problem(),
        }
    }

    /// Waits for one message and takes it.
    async fn step(&mut self) -> Result<Option<SessionEvent>, SessionError> {
        if self.pending.is_none() {
            let message = self.receive().await?;
            self.heard = Instant::now();
            let is_signed = !matches!(
                message,
                FromWorker::Frame { .. } | FromWorker::Prompt { .. } | FromWorker::Embedding(_)
            );
            self.pending = Some(message);
            if is_signed {
                // Verifying takes as long as passing on several frames: those that are here already go first, this
                // session's last among them. What comes after it waits for it.
                yield_now().await;
            }
        }
        let message = self.pending.take().expect("it has come");
        self.transcript.cancelled |= self.payment_problem().is_some();
        let is_progress = matches!(message, FromWorker::Progress(_));
        let event = self.transcript.take(message)?;
        self.pay(is_progress, event.as_ref());
        Ok(event)
    }

    /// Waits for one message.
    async fn receive(&mut self) -> Result<FromWorker, SessionError> {
        let stall = if self.transcript.is_accepted() { self.stall } else { self.acceptance };
        let stalled = self.heard + stall;
        let received = timeout_at(stalled.min(self.deadline), self.receiver.receive()).await;
        let (worker, output_tokens, accepted) =
            (self.worker, self.transcript.output_tokens(), self.transcript.is_accepted());
        let broken_off = |code| SessionError::BrokenOff { worker, output_tokens, accepted, code };
        match received {
            //
            Err(_) if self.deadline <= stalled => {
                Err(SessionError::DeadlineExceeded { worker, output_tokens, accepted })
            }
            Err(_) => Err(SessionError::Stalled { worker, output_tokens, accepted, stall }),
            Ok(Ok(Some(message))) => Ok(message),
            // An end without a receipt is no end.
            Ok(Ok(None)) => Err(broken_off(CloseCode::Done)),
            Ok(Err(ReceiveError::Reset(code))) => Err(broken_off(code)),
            Ok(Err(ReceiveError::Lost(lost))) => {
                Err(SessionError::WorkerLost { worker, output_tokens, accepted, lost })
            }
            Ok(Err(
                source @ (ReceiveError::Frame(_)
                | ReceiveError::Message(_)
                | ReceiveError::SlowFrame(_)
                | ReceiveError::Silence(_)
                | ReceiveError::Ended),
            )) => Err(SessionError::BadMessage { worker, source }),
        }
    }

    /// Tells the paying side what a message means to it.
    fn pay(&mut self, is_progress: bool, event: Option<&SessionEvent>) {
        let Towards::Paying(till) = &self.towards else { return };
        match event {
            Some(SessionEvent::Accepted(acceptance)) => till.accepted(Terms {
                price: acceptance.price,
                prompt_tokens: acceptance.prompt_tokens,
                max_output_tokens: acceptance.max_output_tokens,
            }),
            Some(SessionEvent::Finished(completed)) => {
                till.end(Paid::Charged(completed.receipt.charge), CloseCode::Done);
            }
            Some(SessionEvent::Refused(_)) => till.end(Paid::Nothing, CloseCode::Done),
            Some(SessionEvent::Prompt { .. } | SessionEvent::Tokens { .. }) => {}
            // what is signed for is answered by the next voucher.
            None if is_progress => till.delivered(self.transcript.output_tokens()),
            None => {}
        }
    }

    fn end(&mut self, code: CloseCode) {
        self.ended = true;
        match &mut self.towards {
            Towards::Free(sender) => sender.reset(code),
            // Without a signed end nobody knows what will be claimed, unless nothing was ever agreed.
            Towards::Paying(till) if self.transcript.is_accepted() => till.end(Paid::Unknown, code),
            Towards::Paying(till) => till.end(Paid::Nothing, code),
        }
        self.receiver.stop(code);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // breaking off with this code is a cancellation, and needs no message of its own.
        if !self.ended {
            self.end(CloseCode::Cancelled);
        }
    }
}

/// A purse whose order has not been sent: given back, nothing is owed.
struct Unsent(Option<Box<dyn Purse>>);

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(purse) = self.0.take() {
            purse.release();
        }
    }
}

/// Deadlines further away are as good as none.
const LONGEST_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
