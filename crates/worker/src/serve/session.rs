//! One order's life on its stream: read, refused or accepted, computed, receipted.
//!
//! In:     a stream whose first message is an order; the model's thread.
//! Out:    acceptance, frames, progress, and last of all a receipt, whatever happened.
//! Touches: the stream; the model's queue.
//! Holds:  nothing is computed before the acceptance is sent, nor what is to be paid before it is covered; a cancelled or broken stream frees its sequence at
//!         once, even while a message to a slow reader is still under way; every refusal and failure is signed.
//! Absent: what the answer is. That is the engine's.

use std::{
    future::pending,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use surety_engine::SubmitError;
use surety_net::{CloseCode, ReceiveError, Receiver, Sender, ServeStream};
use surety_types::{
    AuditEvidence, Digest, FailureCode, FinishReason, FromWorker, Order, Price, Receipt, Signed, ToWorker,
    TokenLogprob,
    channel::covered_tokens,
    embedding::vector_bytes,
    progress::{PROGRESS_IDLE_MS, PROGRESS_MS, PROGRESS_TOKENS},
    wire::MAX_FRAME_TOKENS,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    ServedModel, Shared,
    admission::{Admitted, Refusal, read_request},
    engine::{Place, Sequence, SequenceEvent, Steer},
    lanes::Presence,
};
use crate::{
    clock::now_ms,
    money::{Case, REFUSED_MAX, Tab},
    receipt::Account,
};

/// How long a stream may be open before its order is here.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after its deadline a message may still be on its way to a slow reader.
const FAREWELL: Duration = Duration::from_secs(5);
/// No order is worked at for longer, whatever its deadline.
const ORDER_LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(PROGRESS_MS);
const IDLE_INTERVAL: Duration = Duration::from_millis(PROGRESS_IDLE_MS);

/// A request of more bytes is not kept where no ledger asks for it.
const UNAUDITED_BYTES_MAX: usize = 64 << 10;

/// In a frame, where nobody knows a token's id.
const UNKNOWN_ID: u32 = 0;

/// For the next voucher to come, where without it nothing more is delivered.
const UNPAID_WAIT: Duration = Duration::from_secs(5);

/// An order that will be answered.
struct Taken {
    model: Arc<ServedModel>,
    admitted: Admitted,
    place: Place,
    /// What it is paid on, if it is to be paid.
    channel: Option<Digest>,
    accepted_ms: u64,
}

/// What the payer's messages act upon.
#[derive(Default)]
struct Steering {
    cancelled: AtomicBool,
    sequence: OnceLock<Arc<dyn Steer>>,
    changed: Notify,
}

impl Steering {
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.changed.notify_one();
        if let Some(sequence) = self.sequence.get() {
            sequence.cancel();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// How a sequence ended that did not fail.
struct End {
    finish: FinishReason,
    basis: Basis,
}

/// What an answer rests on.
enum Basis {
    /// The arithmetic, by the digest of its states.
    States(Digest),
    /// The word of an upstream, which counted so many tokens of the prompt.
    Word { prompt_tokens: u32 },
}

impl End {
    fn state_digest(&self) -> Digest {
        match self.basis {
            Basis::States(digest) => digest,
            Basis::Word { .. } => Digest::ZERO,
        }
    }
}

/// Why a sequence was not brought to its end.
enum Break {
    /// Nobody listens any more.
    Gone,
    /// It failed, which is to be signed.
    Failed(Refusal),
}

impl Break {
    fn failed(code: FailureCode, message: impl Into<String>) -> Self {
        Self::Failed(Refusal::new(code, message))
    }
}

/// Serves one order to its end.
pub async fn serve(shared: Arc<Shared>, mut stream: ServeStream) {
    let (order, request, resumed) = match stream.receive_within(ORDER_TIMEOUT).await {
        Ok(Some(ToWorker::Order { order, request, output })) => (order, request, output),
        Ok(_) | Err(ReceiveError::Frame(_) | ReceiveError::Message(_)) => {
            return stream.reset(CloseCode::BadMessage);
        }
        Err(error) => {
            tracing::debug!(%error, "a stream ended before its order came");
            return stream.reset(CloseCode::Timeout);
        }
    };
    let received_ms = now_ms();
    let order = match Signed::<Order>::open(&order) {
        Ok(order) => order,
        Err(error) => {
            tracing::debug!(peer = %stream.peer(), %error, "an order is not validly signed");
            return stream.reset(CloseCode::BadMessage);
        }
    };
    let left = Duration::from_millis(order.deadline_ms.saturating_sub(received_ms)).min(ORDER_LIFE_MAX);
    let deadline = Instant::now() + left;
    let (sender, receiver) = stream.split();
    let till = shared.till.clone();
    let price = till.as_ref().map_or(Price::ZERO, |till| till.price_of(&order));
    // Without a ledger nobody audits but the worker itself, and only what is short.
    let evidence = if till.is_some() || request.len() <= UNAUDITED_BYTES_MAX {
        AuditEvidence {
            order: order.bytes().to_vec(),
            request: request.clone(),
            resumed: resumed.clone(),
            ..AuditEvidence::default()
        }
    } else {
        AuditEvidence::default()
    };
    let mut session = Session {
        evidence,
        account: Account::open(shared.worker(), &order, price, received_ms),
        shared,
        sender,
        deadline,
        unsigned_tokens: 0,
        signed_at: Instant::now(),
        sent_at: Instant::now(),
        tab: None,
        _presence: None,
    };
    let taken = match session.take(&order, request, resumed, received_ms).await {
        Ok(taken) => taken,
        Err(refusal) => return session.refuse(refusal).await,
    };
    // Whoever stops reading does not hold the place or the memory for longer than it takes to notice.
    if let Err(Break::Gone) = session.accept(&taken).await {
        return;
    }
    if let (Some(till), Some(channel)) = (&till, taken.channel) {
        let tab = till.open(order.digest(), price, channel, session.account.prompt_tokens());
        session.tab = Some(Arc::new(tab));
    }
    let steering = Steering::default();
    let (tab, mut sequence) = (session.tab.clone(), None);
    let ended = tokio::select! {
        () = gone(receiver, &order, tab.as_deref(), &steering) => Err(Break::Gone),
        ended = session.answer(&order, taken, &steering, &mut sequence) => ended,
    };
    match ended {
        Err(Break::Gone) => session.abandon(sequence).await,
        ended => {
            drop(sequence);
            session.finish(ended).await;
        }
    }
}

/// Hears the payer out; returns when there is nobody left to answer. A wish to stop is passed on at once.
async fn gone(
    mut receiver: Receiver<ToWorker>,
    order: &Signed<Order>,
    tab: Option<&Tab>,
    steering: &Steering,
) {
    let digest = order.digest();
    let mut refused = 0;
    loop {
        match receiver.receive().await {
            Ok(Some(ToWorker::Cancel)) => steering.cancel(),
            Ok(Some(ToWorker::Voucher(voucher))) => {
                let Some(tab) = tab else {
                    // Nothing is to be paid: a voucher is only held to be for this order.
                    if voucher.order == digest {
                        continue;
                    }
                    return;
                };
                match tab.take(&voucher).await {
                    Ok(()) => {
                        let covered = *tab.covered().borrow();
                        if let (Some(sequence), Some(covered)) = (steering.sequence.get(), covered) {
                            sequence.allow(covered);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(order = %digest, %error, "a voucher does not count");
                        refused += 1;
                        if refused > REFUSED_MAX {
                            return;
                        }
                    }
                }
            }
            // The payer has said all it wanted to say, and still listens.
            Ok(None) => pending().await,
            Ok(Some(ToWorker::Order { .. })) | Err(_) => return,
        }
    }
}

struct Session {
    /// What an audit of the answer will need, as far as there is any.
    evidence: AuditEvidence,
    shared: Arc<Shared>,
    account: Account,
    sender: Sender<FromWorker>,
    deadline: Instant,
    /// Delivered, and not signed for yet.
    unsigned_tokens: u32,
    signed_at: Instant,
    /// When the payer last heard something.
    sent_at: Instant,
    /// What pays for it, if it is to be paid.
    tab: Option<Arc<Tab>>,
    /// From when it is taken, to its end.
    _presence: Option<Presence>,
}

impl Session {
    /// Takes the order, if it can be answered and there is room.
    async fn take(
        &mut self,
        order: &Signed<Order>,
        request: Vec<u8>,
        resumed: Vec<u32>,
        received_ms: u64,
    ) -> Result<Taken, Refusal> {
        let mut request = read_request(order, &request, received_ms)?;
        if let Some(lie) = &self.shared.lie {
            request = lie.request(request);
        }
        let model = self.shared.model(order.model)?;
        if model.manifest.is_by_word() {
            self.account.by_word();
        }
        let till = self.shared.till.as_ref().filter(|_| !self.account.is_by_word());
        let channel = match till {
            Some(till) => till.channel_of(order).map_err(|(code, message)| Refusal::new(code, message))?,
            None => None,
        };
        let bids_less = till.is_some_and(|till| till.price_of(order) != till.price());
        self._presence = Some(if bids_less { self.shared.lanes.batch()? } else { self.shared.lanes.full() });
        let places = model.engine.places();
        let place = places.take().ok_or_else(|| {
            let message = format!("{} requests are being answered or waiting here already", places.taken());
            Refusal::new(FailureCode::Overloaded, message)
        })?;
        // Long prompts take a while; only so many are tokenised at a time.
        let _turn = self.shared.tokenising.acquire().await.expect("never closed");
        let (task_model, task_order) = (model.clone(), order.value().clone());
        let admitted =
            tokio::task::spawn_blocking(move || task_model.engine.admit(&task_order, request, resumed));
        let admitted = admitted
            .await
            .map_err(|_| Refusal::new(FailureCode::Internal, "the prompt made the worker fail"))??;
        self.account.prompt(&admitted.given());
        if !self.account.can_be_charged(admitted.max_output_tokens) {
            return Err(Refusal::new(
                FailureCode::Internal,
                "the price of this order cannot be reckoned with",
            ));
        }
        // What is accepted behind its deadline would be a fault of this worker's.
        let accepted_ms = now_ms();
        if accepted_ms > order.deadline_ms {
            let message = "the deadline passed while the prompt was looked at";
            return Err(Refusal::new(FailureCode::DeadlineExceeded, message));
        }
        Ok(Taken { model, admitted, place, channel, accepted_ms })
    }

    async fn accept(&mut self, taken: &Taken) -> Result<(), Break> {
        let limit = taken.admitted.max_output_tokens;
        let region = self.shared.region.clone();
        let acceptance = self.account.accept(self.shared.key(), limit, region, taken.accepted_ms);
        self.signed_at = Instant::now();
        let acceptance = acceptance.into_parts().1;
        self.evidence.acceptance.clone_from(&acceptance);
        self.send(FromWorker::Acceptance(acceptance)).await
    }

    /// Waits until the order is covered, computes it, and passes on what comes.
    async fn answer(
        &mut self,
        order: &Signed<Order>,
        taken: Taken,
        steering: &Steering,
        place_of: &mut Option<Sequence>,
    ) -> Result<End, Break> {
        let Taken { model, admitted, place, .. } = taken;
        let limit = admitted.max_output_tokens;
        let allowed = match self.tab.clone() {
            Some(tab) => match self.first_cover(&tab, covered_tokens(0, limit), steering).await? {
                Some(covered) => covered,
                None => {
                    return Err(Break::failed(FailureCode::Cancelled, "cancelled before the first token"));
                }
            },
            None => u32::MAX,
        };
        let sequence = place_of.insert(model.engine.submit(order, admitted, place, allowed));
        let control = steering.sequence.get_or_init(|| sequence.steer());
        // What came in between was not passed on.
        if steering.is_cancelled() {
            control.cancel();
        }
        if let Some(covered) = self.tab.as_ref().and_then(|tab| *tab.covered().borrow()) {
            control.allow(covered);
        }
        self.stream(sequence, limit, steering).await
    }

    /// Waits for the voucher that pays for the prompt and the first tokens; none if the payer cancels.
    async fn first_cover(
        &mut self,
        tab: &Tab,
        wanted: u32,
        steering: &Steering,
    ) -> Result<Option<u32>, Break> {
        let mut covered = tab.covered();
        let due = (Instant::now() + UNPAID_WAIT).min(self.deadline);
        let shared = self.shared.clone();
        loop {
            if steering.is_cancelled() {
                return Ok(None);
            }
            let found = *covered.borrow_and_update();
            if let Some(found) = found.filter(|found| *found >= wanted) {
                return Ok(Some(found));
            }
            tokio::select! {
                // The sender is the tab's own.
                _ = covered.changed() => {}
                () = steering.changed.notified() => {}
                () = sleep_until(self.sent_at + IDLE_INTERVAL) => self.sign_progress().await?,
                () = sleep_until(due) => {
                    let why = tab.last_refused().map_or_else(
                        || "none came".to_owned(),
                        |refused| format!("the last that came does not count: {refused}"),
                    );
                    let message = format!(
                        "a voucher for the prompt and {wanted} output tokens was due within {} s; {why}",
                        UNPAID_WAIT.as_secs(),
                    );
                    return Err(Break::failed(FailureCode::PaymentRequired, message));
                }
                () = shared.stopping() => {
                    return Err(Break::failed(FailureCode::Leaving, "the worker is shutting down"));
                }
            }
        }
    }

    /// Passes the sequence's events on until it ends.
    async fn stream(
        &mut self,
        sequence: &mut Sequence,
        limit: u32,
        steering: &Steering,
    ) -> Result<End, Break> {
        let shared = self.shared.clone();
        let mut stopping = std::pin::pin!(shared.stopping());
        let mut next = None;
        let mut covered = self.tab.as_ref().map(|tab| tab.covered());
        let mut unpaid_since = None;
        let mut unpaid = false;
        loop {
            // all that is covered is delivered. It is signed for at once, and the next voucher awaited.
            let paid_up = covered.as_mut().is_some_and(|covered| {
                let covered = covered.borrow_and_update().unwrap_or(0);
                self.account.output_tokens() >= covered && covered < limit
            });
            if !paid_up {
                unpaid_since = None;
            } else if unpaid_since.is_none() {
                unpaid_since = Some(Instant::now());
                if self.unsigned_tokens > 0 {
                    self.sign_progress().await?;
                }
            }
            let unpaid_at = unpaid_since.map(|since| since + UNPAID_WAIT).filter(|_| !unpaid);
            let event = match next.take() {
                Some(event) => event,
                None => tokio::select! {
                    event = sequence.next() => event.ok_or_else(|| {
                        Break::failed(FailureCode::Internal, "the computation broke off; the worker's log says why")
                    })?,
                    () = sleep_until(self.signed_at + PROGRESS_INTERVAL), if self.unsigned_tokens > 0 => {
                        self.sign_progress().await?;
                        continue;
                    }
                    // so the payer can tell a slow worker from a dead one.
                    () = sleep_until(self.sent_at + IDLE_INTERVAL) => {
                        self.sign_progress().await?;
                        continue;
                    }
                    () = more(covered.as_mut()), if paid_up => continue,
                    () = sleep_until(unpaid_at.unwrap_or(self.deadline)), if unpaid_at.is_some() => {
                        unpaid = true;
                        sequence.steer().cancel();
                        continue;
                    }
                    () = sleep_until(self.deadline) => {
                        return Err(Break::failed(FailureCode::DeadlineExceeded, "the answer was not done by its deadline"));
                    }
                    () = &mut stopping => {
                        return Err(Break::failed(FailureCode::Leaving, "the worker is shutting down"));
                    }
                },
            };
            match event {
                SequenceEvent::Prompt(logprobs) => self.send_prompt(&logprobs).await?,
                SequenceEvent::Embedding(vector) => {
                    self.send(FromWorker::Embedding(vector_bytes(&vector))).await?;
                }
                SequenceEvent::Token { token, text, logprob } => {
                    let mut frame = Frame { tokens: vec![token], text, logprobs: Vec::from_iter(logprob) };
                    let room = PROGRESS_TOKENS - self.unsigned_tokens;
                    while (frame.tokens.len() as u32) < room {
                        match sequence.try_next() {
                            Some(SequenceEvent::Token { token, text, logprob }) => {
                                frame.tokens.push(token);
                                frame.text += &text;
                                frame.logprobs.extend(logprob);
                            }
                            other => {
                                next = other;
                                break;
                            }
                        }
                    }
                    self.send_frame(frame).await?;
                }
                SequenceEvent::Ended { finish, text, state_digest } => {
                    if !text.is_empty() {
                        // The receipt follows, and signs for it: a progress would be of text that nothing continues.
                        let frame = Frame { tokens: Vec::new(), text, logprobs: Vec::new() };
                        self.deliver(frame).await?;
                    }
                    let stopped_here =
                        unpaid && finish == FinishReason::Cancelled && !steering.is_cancelled();
                    let finish = if stopped_here { FinishReason::Unpaid } else { finish };
                    let finish = self.shared.lie.as_ref().map_or(finish, |lie| lie.finish(finish));
                    return Ok(End { finish, basis: Basis::States(state_digest) });
                }
                SequenceEvent::Text { tokens, text } => {
                    let tokens = vec![UNKNOWN_ID; tokens as usize];
                    self.send_frame(Frame { tokens, text, logprobs: Vec::new() }).await?;
                }
                SequenceEvent::Told { finish, prompt_tokens } => {
                    return Ok(End { finish, basis: Basis::Word { prompt_tokens } });
                }
                SequenceEvent::Broken { code, message } => return Err(Break::failed(code, message)),
                SequenceEvent::Failed(error) => {
                    return Err(Break::failed(FailureCode::NonFinite, error.to_string()));
                }
                SequenceEvent::Refused(error) => {
                    let code = match error {
                        SubmitError::ContextLength { .. } => FailureCode::ContextLengthExceeded,
                        SubmitError::TooLargeForMemory { .. } => FailureCode::OutOfMemory,
                        SubmitError::Overloaded { .. } => FailureCode::Overloaded,
                        SubmitError::BadToken { .. }
                        | SubmitError::EmptyPrompt
                        | SubmitError::Embedding(_)
                        | SubmitError::PastTheEnd(_) => FailureCode::BadRequest,
                    };
                    return Err(Break::failed(code, error.to_string()));
                }
            }
        }
    }

    async fn send_prompt(&mut self, logprobs: &[TokenLogprob]) -> Result<(), Break> {
        let mut index = 0;
        for piece in logprobs.chunks(MAX_FRAME_TOKENS) {
            let ids = piece.iter().map(|logprob| logprob.token).collect();
            self.send(FromWorker::Prompt { index, ids, logprobs: piece.to_vec() }).await?;
            index += piece.len() as u32;
        }
        Ok(())
    }

    /// Accounts for what is delivered; the index of its first token.
    fn note(&mut self, tokens: &[u32], text: &str) -> u32 {
        self.evidence.output.extend(tokens);
        self.evidence.text.push_str(text);
        self.account.deliver(tokens, text, now_ms())
    }

    async fn deliver(&mut self, frame: Frame) -> Result<(), Break> {
        let Frame { tokens, mut text, logprobs } = frame;
        if let Some(lie) = &self.shared.lie {
            text = lie.text(text);
        }
        self.unsigned_tokens += tokens.len() as u32;
        let index = self.note(&tokens, &text);
        self.send(FromWorker::Frame { index, tokens, text, logprobs }).await
    }

    async fn send_frame(&mut self, frame: Frame) -> Result<(), Break> {
        self.deliver(frame).await?;
        let overdue = self.unsigned_tokens > 0 && self.signed_at.elapsed() >= PROGRESS_INTERVAL;
        if self.unsigned_tokens >= PROGRESS_TOKENS || overdue {
            self.sign_progress().await?;
        }
        Ok(())
    }

    async fn sign_progress(&mut self) -> Result<(), Break> {
        self.unsigned_tokens = 0;
        self.signed_at = Instant::now();
        let progress = self.account.progress(self.shared.key(), now_ms());
        self.send(FromWorker::Progress(progress.into_parts().1)).await
    }

    /// Signs for how it ended.
    async fn finish(mut self, ended: Result<End, Break>) {
        let now_ms = now_ms();
        let end = match ended {
            Ok(end) if end.finish == FinishReason::Cancelled && self.account.output_tokens() == 0 => {
                let message = "cancelled before the first token";
                return self.refuse(Refusal::new(FailureCode::Cancelled, message)).await;
            }
            Ok(_) if self.account.is_late(now_ms) => {
                let message = "the answer was not done by its deadline";
                return self.refuse(Refusal::new(FailureCode::DeadlineExceeded, message)).await;
            }
            Ok(end) => end,
            Err(Break::Failed(refusal)) => return self.refuse(refusal).await,
            Err(Break::Gone) => return self.sender.reset(CloseCode::Timeout),
        };
        let state_digest = end.state_digest();
        let (receipt, salt) = self.complete(end, now_ms);
        match self.keep(&receipt, salt, state_digest).await {
            Ok(()) => self.send_receipt(receipt, salt).await,
            // What is not kept is not charged.
            Err(error) => {
                let receipt =
                    self.account.fail(self.shared.key(), FailureCode::Internal, &error, receipt.done_ms);
                self.send_receipt(receipt, [0; 32]).await;
            }
        }
    }

    /// The payer is gone. What it was sent and had covered is charged all the same; it has no receipt, but the
    /// worker's log does.
    async fn abandon(mut self, sequence: Option<Sequence>) {
        self.sender.reset(CloseCode::Timeout);
        let (Some(_), Some(mut sequence)) = (&self.tab, sequence) else { return };
        sequence.steer().cancel();
        let end = loop {
            match sequence.next().await {
                Some(SequenceEvent::Token { token, text, .. }) => {
                    self.note(&[token], &text);
                }
                Some(SequenceEvent::Ended { finish, text, state_digest }) => {
                    self.note(&[], &text);
                    break End { finish, basis: Basis::States(state_digest) };
                }
                Some(SequenceEvent::Prompt(_) | SequenceEvent::Embedding(_)) => {}
                // What an upstream gives is not paid.
                Some(
                    SequenceEvent::Failed(_)
                    | SequenceEvent::Refused(_)
                    | SequenceEvent::Text { .. }
                    | SequenceEvent::Told { .. }
                    | SequenceEvent::Broken { .. },
                )
                | None => return,
            }
        };
        let now_ms = now_ms();
        if self.account.output_tokens() == 0 || self.account.is_late(now_ms) {
            return;
        }
        let state_digest = end.state_digest();
        let (receipt, salt) = self.complete(end, now_ms);
        if let Err(error) = self.keep(&receipt, salt, state_digest).await {
            tracing::error!(error, "an answer whose payer left could not be charged");
        }
    }

    fn complete(&self, end: End, now_ms: u64) -> (Signed<Receipt>, [u8; 32]) {
        let (key, mut salt) = (self.shared.key(), [0; 32]);
        let receipt = match end.basis {
            Basis::States(state_digest) => {
                getrandom::fill(&mut salt).expect("the system has randomness");
                self.account.complete(key, end.finish, &state_digest, &salt, now_ms)
            }
            Basis::Word { prompt_tokens } => self.account.tell(key, end.finish, prompt_tokens, now_ms),
        };
        (receipt, salt)
    }

    /// Returns when a receipt's charge, its leaf and what an audit of it needs are on the disk, where there is a book.
    async fn keep(
        &mut self,
        receipt: &Signed<Receipt>,
        salt: [u8; 32],
        state_digest: Digest,
    ) -> Result<(), String> {
        // nobody can audit it, and nothing is paid for it.
        if self.account.is_by_word() {
            return Ok(());
        }
        let mut evidence = std::mem::take(&mut self.evidence);
        evidence.receipt = receipt.bytes().to_vec();
        let case = Case { evidence, salt, state_digest };
        if receipt.failure().is_none() && !case.evidence.order.is_empty() {
            self.shared.trickle.offer(&case);
        }
        if let Some(till) = self.shared.till.as_ref().filter(|_| self.account.is_accepted()) {
            till.keep_case(receipt.digest(), case);
        }
        let kept = match (&self.tab, &self.shared.till) {
            (Some(tab), _) => tab.close(receipt).await,
            (None, Some(till)) if self.account.is_accepted() => till.log(receipt).await,
            (None, _) => Ok(()),
        };
        kept.map_err(|error| error.to_string())
    }

    /// Signs for a failure.
    async fn refuse(mut self, refusal: Refusal) {
        if !refusal.prompt.is_empty() {
            self.account.prompt(&refusal.prompt);
        }
        let receipt = self.account.fail(self.shared.key(), refusal.code, &refusal.message, now_ms());
        if let Err(error) = self.keep(&receipt, [0; 32], Digest::ZERO).await {
            tracing::error!(error, "a failure's receipt is not in the log");
        }
        self.send_receipt(receipt, [0; 32]).await;
    }

    async fn send_receipt(&mut self, receipt: Signed<Receipt>, salt: [u8; 32]) {
        let Receipt { order, prompt_tokens, output_tokens, finish, .. } = receipt.value();
        match receipt.failure() {
            Some((code, message)) => tracing::info!(%order, %code, message, "an order failed"),
            None => tracing::debug!(%order, prompt_tokens, output_tokens, ?finish, "an order is done"),
        }
        let message = FromWorker::Receipt { receipt: receipt.into_parts().1, salt };
        if self.send(message).await.is_ok()
            && let Err(error) = self.sender.finish().await
        {
            tracing::debug!(%error, "a receipt was sent, and its arrival not confirmed");
        }
    }

    /// Sends one message. A reader that is too slow to take it by the deadline is gone.
    async fn send(&mut self, message: FromWorker) -> Result<(), Break> {
        match timeout_at(self.deadline + FAREWELL, self.sender.send(&message)).await {
            Ok(Ok(())) => {
                self.sent_at = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the payer's side is gone");
                Err(Break::Gone)
            }
            Err(_) => {
                tracing::debug!("the payer's side does not read");
                Err(Break::Gone)
            }
        }
    }
}

/// Resolves when more is covered.
async fn more(covered: Option<&mut watch::Receiver<Option<u32>>>) {
    match covered {
        // An error means that the tab is gone, and with it the order.
        Some(covered) => drop(covered.changed().await),
        None => pending().await,
    }
}

/// Output on its way.
struct Frame {
    tokens: Vec<u32>,
    text: String,
    logprobs: Vec<TokenLogprob>,
}
