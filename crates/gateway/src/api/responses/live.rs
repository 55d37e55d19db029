//! Live: responses while they are made, and whoever reads them.
//!
//! In:     what a worker is to be asked; readers, who come and go; what was kept of responses that had not ended.
//! Out:    events from any number on, to any number of readers; the end, on the disk.
//! Touches: workers, through `generate`; the store of responses.
//! Holds:  readers hear of the end once it is on the disk. A response that is kept from its beginning outlives its reader
//!         for a while, one in the background for ever, and both outlive the gateway; any other ends with its reader.
//!         None stays in progress for ever: it ends, or its readers are told that it broke off and how to get the rest.
//! Absent: HTTP (the parent), what events say (`record`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use surety_types::CivilDate;
use tokio::{sync::watch, task::JoinHandle};
use tracing::{error, info, warn};

use super::{
    history::{self, Library},
    record::{End, Head, Transcript, broken_off},
    store::{KeepError, Keeping, Store},
};
use crate::{
    api::{
        ask::Ask,
        fields,
        generate::{self, Call, Job, resolve_soon},
        last_event::Broken,
        shapes::{SuretyNote, Usage},
        sse, unix_ms,
    },
    error::{ApiError, Code},
    gateway::Shared,
    id::RequestId,
    streams::Begun,
};

/// Bytes of events handed to a reader at once.
const PIECE_BYTES: usize = 64 << 10;
/// Responses of a gateway before this one that are looked for workers at once.
const REVIVED_AT_ONCE: usize = 8;

/// All responses: those being made, and those kept.
#[derive(Debug)]
pub(crate) struct Responses {
    pub(super) store: Store,
    live: Mutex<BTreeMap<u128, Arc<Live>>>,
    /// How many are being made.
    running: watch::Sender<usize>,
    /// For a reader that left to come back.
    reader_grace: Duration,
}

/// A response being made, or one that was.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) head: Arc<Head>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    readers: watch::Sender<usize>,
    leave: watch::Sender<Option<Leave>>,
}

#[derive(Debug)]
struct State {
    transcript: Transcript,
    /// Who answered, where that is known.
    note: Option<SuretyNote>,
    /// Why there is no end, or none that is a document.
    broke: Option<ApiError>,
    /// Nothing changes any more.
    over: bool,
}

/// Why a response is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    Cancel,
    Delete,
}

/// Where the text comes from.
pub(super) enum Source {
    /// A worker has accepted.
    Job(Box<Job>),
    /// One is to be found.
    Order(Box<Order>),
}

/// What a worker is to be asked.
pub(super) struct Order {
    pub(super) call: Call,
    pub(super) ask: Ask,
    pub(super) broken: Broken,
}

/// What is kept of a response.
pub(super) enum Kept {
    Nothing,
    /// All of it, when it has ended.
    Whole,
    /// Its beginning, once this has ended well, and then its end.
    Begun(JoinHandle<Result<(), KeepError>>),
}

/// Somebody reads a response, until this is dropped.
#[derive(Debug)]
pub(super) struct Reader(Arc<Live>);

impl Responses {
    /// None being made. Readers that leave have `reader_grace` to come back.
    pub(crate) fn new(store: Store, reader_grace: Duration) -> Self {
        Self { store, live: Mutex::default(), running: watch::Sender::new(0), reader_grace }
    }

    /// How many are being made.
    pub(crate) fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }

    /// One that is being made, and kept.
    pub(super) fn live(&self, id: RequestId) -> Option<Arc<Live>> {
        self.all().get(&id.bits()).cloned()
    }

    /// Has it found by its id.
    pub(super) fn list(&self, live: &Arc<Live>) {
        self.all().insert(live.head.id.bits(), Arc::clone(live));
    }

    fn unlist(&self, id: RequestId) {
        self.all().remove(&id.bits());
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u128, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// A response that begins.
    pub(super) fn new(transcript: Transcript) -> Arc<Live> {
        Arc::new(Live {
            head: Arc::clone(&transcript.head),
            state: Mutex::new(State { transcript, note: None, broke: None, over: false }),
            changed: watch::Sender::new(()),
            readers: watch::Sender::new(0),
            leave: watch::Sender::new(None),
        })
    }

    /// A response that has ended.
    pub(super) fn ended(transcript: Transcript) -> Arc<Live> {
        let live = Live::new(transcript);
        live.state().over = true;
        live
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_replace(());
    }

    /// A worker has accepted.
    pub(super) fn begin(&self) {
        self.change(|state| state.transcript.begin());
    }

    /// The response as it stands.
    pub(super) fn document(&self) -> Vec<u8> {
        self.state().transcript.document()
    }

    /// Looks at it as it stands.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Transcript) -> T) -> T {
        look(&self.state().transcript)
    }

    /// Reads it.
    pub(super) fn read(self: &Arc<Self>) -> Reader {
        self.readers.send_modify(|readers| *readers += 1);
        Reader(Arc::clone(self))
    }

    /// Has it end, and waits until it has.
    pub(super) async fn leave(&self, why: Leave) {
        self.leave.send_replace(Some(why));
        self.over().await;
    }

    async fn over(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.state().over {
                return;
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns when it is not wanted any more: somebody said so, or nobody has read it for so long.
    async fn unwanted(&self, patience: Option<Duration>) -> Leave {
        let (mut leave, mut readers) = (self.leave.subscribe(), self.readers.subscribe());
        let said = async {
            let why = leave.wait_for(Option::is_some).await.map(|why| *why);
            why.ok().flatten().unwrap_or(Leave::Cancel)
        };
        let alone = async {
            let Some(patience) = patience else { return std::future::pending().await };
            loop {
                let _ = readers.wait_for(|readers| *readers == 0).await;
                tokio::select! {
                    biased;
                    _ = readers.wait_for(|readers| *readers > 0) => {}
                    () = tokio::time::sleep(patience) => return Leave::Cancel,
                }
            }
        };
        tokio::select! {
            why = said => why,
            why = alone => why,
        }
    }
}

impl Reader {
    /// Waits until it has ended; then the document and who answered, or why there is none.
    pub(super) async fn whole(self) -> Result<(Vec<u8>, Option<SuretyNote>), ApiError> {
        self.0.over().await;
        let mut state = self.0.state();
        match state.broke.take() {
            Some(failure) => Err(failure),
            None => Ok((state.transcript.document(), state.note.take())),
        }
    }

    /// The events from this number on, as they come.
    pub(super) fn stream(self, from: u64, keep_alive: Duration) -> Body {
        let vanished = ApiError::bug("the task that sent the events ended without a word");
        let mut abandoned = Vec::new();
        broken_off(&vanished, self.0.head.id, from, &mut abandoned);
        let (events, body) = sse::pipe(keep_alive, sse::COMMENT, Bytes::from(abandoned));
        let sender = tokio::spawn(self.send(from, events));
        Body::from_stream(body.made_by(sender.abort_handle()))
    }

    async fn send(self, mut next: u64, events: sse::Events) {
        let mut changed = self.0.changed.subscribe();
        loop {
            events.room().await;
            changed.borrow_and_update();
            let mut out = Vec::new();
            let is_last = self.0.state().events(&mut next, &mut out);
            if is_last {
                return events.end(Bytes::from(out));
            }
            if out.is_empty() {
                // The sender lives as long as this reader.
                let _ = changed.changed().await;
            } else {
                events.send(Bytes::from(out));
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.readers.send_modify(|readers| *readers -= 1);
    }
}

impl State {
    /// Appends the events there are from `next` on, up to a bound; returns whether the stream ends with them.
    fn events(&self, next: &mut u64, out: &mut Vec<u8>) -> bool {
        let transcript = &self.transcript;
        while out.len() < PIECE_BYTES {
            // Whoever has seen more than there is hears of the end all the same.
            if *next >= transcript.events() && transcript.end().is_none() {
                if let Some(failure) = self.broke.as_ref().filter(|_| self.over) {
                    broken_off(failure, transcript.head.id, *next, out);
                    return true;
                }
                return false;
            }
            transcript.event(*next, out);
            if transcript.is_last(*next) {
                return true;
            }
            *next += 1;
        }
        false
    }
}

/// Counts a response as being made, and sees that its readers are told if whoever makes it vanishes.
struct Making<'a> {
    responses: &'a Responses,
    live: &'a Live,
}

impl<'a> Making<'a> {
    fn begin(responses: &'a Responses, live: &'a Live) -> Self {
        responses.running.send_modify(|running| *running += 1);
        Self { responses, live }
    }

    /// Nothing changes any more.
    fn over(&self, change: impl FnOnce(&mut State)) {
        // Whoever hears of the end finds it on the disk.
        self.responses.unlist(self.live.head.id);
        self.live.change(|state| {
            change(state);
            state.over = true;
        });
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if !self.live.state().over {
            self.over(|state| state.broke = Some(ApiError::bug("the task that made the response vanished")));
        }
        self.responses.running.send_modify(|running| *running -= 1);
    }
}

/// What came of making a response: it was told, or failed.
type Told = Result<(&'static str, Usage, SuretyNote), ApiError>;

/// Makes a response to its end.
pub(super) async fn make(shared: Arc<Shared>, live: Arc<Live>, source: Source, kept: Kept) {
    let id = live.head.id;
    let making = Making::begin(&shared.responses, &live);
    let patience = match &kept {
        _ if live.head.asked.background => None,
        Kept::Begun(_) => Some(shared.responses.reader_grace),
        Kept::Nothing | Kept::Whole => Some(Duration::ZERO),
    };
    let outcome: Result<Told, Leave> = tokio::select! {
        biased;
        why = live.unwanted(patience) => Err(why),
        told = tell(&shared, &live, source) => Ok(told),
    };
    let keeping = match kept {
        Kept::Nothing => None,
        Kept::Whole => Some(Keeping::Whole),
        Kept::Begun(written) => match written.await {
            Ok(Ok(())) => Some(Keeping::Ended),
            _ => Some(Keeping::Whole),
        },
    };
    let is_stream = live.head.asked.stream;
    let is_begun = keeping == Some(Keeping::Ended);
    let now_ms = unix_ms();
    let (mut end, mut told) = match outcome {
        Err(Leave::Delete) => {
            if let Err(failure) = shared.responses.store.forget(id).await {
                warn!(request = %id, %failure, "a response was not deleted");
            }
            shared.streams.go_on(id).forget();
            let message = "The response was deleted.";
            return making.over(|state| state.broke = Some(ApiError::new(Code::NotFound, message)));
        }
        Err(Leave::Cancel) => (End::cancelled(now_ms), None),
        Ok(Ok((reason, usage, note))) => {
            (End::told(reason, now_ms, usage, &note), Some((reason, usage, note)))
        }
        // It is gone on with by the gateway that begins in this one's directory.
        Ok(Err(ref failure)) if is_begun && failure.code() == Code::GatewayStopping => {
            return making.over(|state| state.broke = Some(stopped(id)));
        }
        Ok(Err(failure)) => {
            info!(request = %id, code = failure.code().as_str(), "a response failed");
            let end = End::failed(&failure, id, now_ms);
            let is_document = !live.head.asked.stream && !live.head.asked.background;
            if is_document {
                // Its caller gets the error itself.
                return making.over(|state| {
                    state.broke = Some(failure);
                    state.transcript.end_with(end);
                });
            }
            (end, None)
        }
    };
    // Nobody learnt the id of what was left before its document was there.
    let keeping = keeping.filter(|keeping| end.status.is_whole() || *keeping == Keeping::Ended || is_stream);
    if let Some(keeping) = keeping {
        let record = live.look(|transcript| transcript.to_bytes(Some(&end)));
        if let Err(failure) = shared.responses.store.keep(id, keeping, record).await
            && let Some((reason, usage, note)) = &mut told
        {
            let before = note.note.take().map_or_else(String::new, |before| format!("{before}; "));
            note.note = Some(format!("{before}{failure}"));
            end = End::told(reason, now_ms, *usage, note);
        }
    }
    if live.head.asked.is_kept_from_the_start() {
        shared.streams.go_on(id).forget();
    }
    making.over(|state| {
        state.note = told.map(|(_, _, note)| note);
        state.transcript.end_with(end);
    });
}

async fn tell(shared: &Arc<Shared>, live: &Arc<Live>, source: Source) -> Told {
    let mut job = match source {
        Source::Job(job) => job,
        Source::Order(order) => {
            let Order { call, ask, broken } = *order;
            let job = generate::start(Arc::clone(shared), call, ask, Some(broken)).await?;
            live.begin();
            Box::new(job)
        }
    };
    job.tell(|text| live.change(|state| state.transcript.hear(text))).await
}

/// What a response begins with, so that it says the same whenever it is begun with that again.
pub(super) fn begun(head: &Head, model: surety_types::ModelId) -> Begun {
    let date = CivilDate::from_unix_ms(head.received_ms);
    Begun { model, nonce: head.nonce, date, received_ms: head.received_ms }
}

/// Finds the responses that a gateway before this one had not ended: until they are gone on with, they are in progress.
/// Reads the disk.
pub(crate) fn unfinished(shared: &Shared) -> Revived {
    let found = shared.responses.store.unfinished().unwrap_or_else(|error| {
        error!(%error, "which responses had not ended cannot be read");
        Vec::new()
    });
    let mut lives = Vec::with_capacity(found.len());
    for (id, record) in found {
        match Transcript::parse(id, &record) {
            Ok(transcript) => {
                let live = Live::new(transcript);
                shared.responses.list(&live);
                lives.push(live);
            }
            Err(error) => error!(request = %id, %error, "a response cannot be gone on with"),
        }
    }
    Revived(lives)
}

/// Responses that had not ended.
#[derive(Debug)]
pub(crate) struct Revived(Vec<Arc<Live>>);

impl Revived {
    /// Goes on with all of them, and returns when each has a worker, or none.
    pub(crate) async fn go_on(self, shared: Arc<Shared>) {
        if !self.0.is_empty() {
            info!(responses = self.0.len(), "going on with responses that had not ended");
        }
        let lives = futures::stream::iter(self.0);
        lives.for_each_concurrent(REVIVED_AT_ONCE, |live| revive(Arc::clone(&shared), live)).await;
    }
}

async fn revive(shared: Arc<Shared>, live: Arc<Live>) {
    let written = tokio::spawn(std::future::ready(Ok(())));
    let source = tokio::select! {
        source = revived(&shared, &live) => source,
        () = shared.halted() => Err(stopped(live.head.id)),
    };
    let making = match source {
        Ok(order) => {
            let source = Source::Order(Box::new(order));
            tokio::spawn(make(Arc::clone(&shared), Arc::clone(&live), source, Kept::Begun(written)))
        }
        Err(failure) => {
            tokio::spawn(fail(Arc::clone(&shared), Arc::clone(&live), failure));
            return;
        }
    };
    // The next is begun when this one has a worker, or has ended.
    let mut changed = live.changed.subscribe();
    while !making.is_finished() && live.look(|transcript| !transcript.is_begun()) {
        changed.borrow_and_update();
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

/// What is to be asked again, and what is kept of the answer.
async fn revived(shared: &Arc<Shared>, live: &Arc<Live>) -> Result<Order, ApiError> {
    let head = Arc::clone(&live.head);
    let model = resolve_soon(shared, &head.asked.model).await?;
    if model.id.to_string() != head.model_id {
        let message = format!(
            "\"{}\" stands for another model than when the response began, so it cannot be gone on with. Ask anew.",
            fields::quote(&head.asked.model),
        );
        return Err(ApiError::new(Code::ModelUnknown, message).with_param("model"));
    }
    let library = Library::of(shared);
    let (id, begun, kept_in) = (head.id, begun(&head, model.id), Arc::clone(shared));
    let today = begun.date;
    let read = tokio::task::spawn_blocking(move || {
        let conversation = history::conversation(&library, &head.asked, head.id)?;
        let ask = head.asked.ask(conversation, today)?;
        Ok((ask, Broken::from_the_start(&kept_in, id, begun)))
    });
    let (ask, broken) = read.await.map_err(|_| ApiError::bug("reading a response panicked"))??;
    let call = Call { id, received_ms: live.head.received_ms, today, share: None };
    Ok(Order { call, ask, broken })
}

/// The gateway stops, and what it makes is kept.
fn stopped(id: RequestId) -> ApiError {
    let message = format!(
        "The gateway was stopped before the response was whole. It goes on when the gateway does: GET \
         /v1/responses/{}?stream=true with `starting_after`.",
        id.response(),
    );
    ApiError::new(Code::GatewayStopping, message)
}

/// Ends a response that cannot be gone on with.
async fn fail(shared: Arc<Shared>, live: Arc<Live>, failure: ApiError) {
    let making = Making::begin(&shared.responses, &live);
    if failure.code() == Code::GatewayStopping {
        return making.over(|state| state.broke = Some(failure));
    }
    let end = End::failed(&failure, live.head.id, unix_ms());
    let record = live.look(|transcript| transcript.to_bytes(Some(&end)));
    if let Err(failure) = shared.responses.store.keep(live.head.id, Keeping::Ended, record).await {
        warn!(request = %live.head.id, %failure, "how a response ended was not stored");
    }
    making.over(|state| state.transcript.end_with(end));
}
