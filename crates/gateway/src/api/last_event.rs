//! Last event: a reader that lost its stream says how far it had come.
//!
//! In:     the header `Last-Event-ID`; what is kept of the stream.
//! Out:    where to go on, or what is wrong with that.
//! Touches: the kept streams, to read.
//! Holds:  nothing goes on that another request began, or that is not kept.
//! Absent: going on (`generate`).

use axum::http::HeaderMap;
use surety_types::receipt::NO_ARITHMETIC;

use super::ask::Ask;
use crate::{
    error::{Accountable, ApiError, Code},
    gateway::Shared,
    id::RequestId,
    keys::Tenant,
    route::Resolved,
    session::{Again, Restored},
    streams::{Begun, Entry},
};

const HEADER: &str = "last-event-id";
const EXAMPLE: &str =
    "It is the `id` of the last event of a stream, as `req_…:42`. Leave it out to ask anew.";

/// How far a reader had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastEvent {
    pub(super) request: RequestId,
    /// Bytes of text that it has.
    pub(super) position: usize,
}

/// A stream that was broken off, and is asked for again.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) last: LastEvent,
    pub(super) begun: Begun,
    /// Whether anything is kept of it; if not, it begins anew, and says the same.
    pub(super) is_kept: bool,
    /// Whether it is made anew where it cannot be gone on with: its caller names no place in it.
    or_anew: bool,
    entries: Vec<Entry>,
}

impl LastEvent {
    /// All of an answer is wanted, from its beginning.
    pub(super) fn from_the_beginning(request: RequestId) -> LastEvent {
        LastEvent { request, position: 0 }
    }

    /// What the header says, if it is there.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<LastEvent>, ApiError> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let parsed = value.to_str().ok().and_then(LastEvent::parse);
        let message = || format!("`Last-Event-ID` is no event's id. {EXAMPLE}");
        parsed.map(Some).ok_or_else(|| ApiError::invalid("Last-Event-ID", message()))
    }

    fn parse(text: &str) -> Option<LastEvent> {
        let (request, position) = text.trim().split_once(':')?;
        let is_number = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
        let position = position.parse().ok().filter(|_| is_number)?;
        Some(LastEvent { request: RequestId::parse(request)?, position })
    }
}

impl Broken {
    /// What is kept of the stream.
    pub(super) async fn find(shared: &Shared, last: LastEvent) -> Result<Broken, ApiError> {
        if shared.active.contains(last.request) {
            let message = "The stream that `Last-Event-ID` names is still being sent to another connection. Try again \
                           shortly.";
            return Err(ApiError::new(Code::Overloaded, message).with_accountable(Accountable::Caller));
        }
        let (streams, receipts) = (shared.streams.clone(), shared.receipts.clone());
        let tenant = Tenant::current(&shared.keys)?.key();
        let found = tokio::task::spawn_blocking(move || {
            let whole = receipts.find(last.request).is_ok_and(|evidence| evidence.is_some());
            let theirs = |(begun, _): &(Begun, Vec<Entry>)| !whole && begun.tenant == tenant;
            (streams.find(last.request).filter(theirs), whole)
        });
        match found.await.map_err(|_| ApiError::bug("looking for a stream panicked"))? {
            (Some((begun, entries)), _) => Ok(Broken { last, begun, is_kept: true, or_anew: false, entries }),
            (None, true) => Err(gone(&format!(
                "The stream that `Last-Event-ID` names was answered to its end, and is not sent again. All of it is in \
                 /v1/receipts/{}.",
                last.request,
            ))),
            (None, false) => Err(gone(
                "Nothing is kept of the stream that `Last-Event-ID` names: it is too old, or not this gateway's. Leave the \
                 header out to ask anew.",
            )),
        }
    }

    /// What a gateway that was stopped left of an answer that is asked for again, by a caller who knows nothing of that; none if
    /// it is to be made anew.
    pub(super) async fn left_behind(shared: &Shared, request: RequestId) -> Option<Broken> {
        let found = Broken::find(shared, LastEvent::from_the_beginning(request)).await.ok()?;
        Some(Broken { or_anew: true, ..found })
    }

    /// An answer that begins as `begun` says, or has begun so: all of it is wanted. Reads the disk.
    pub(super) fn from_the_start(shared: &Shared, request: RequestId, begun: Begun) -> Broken {
        let last = LastEvent { request, position: 0 };
        let same = |kept: &Begun| (kept.nonce, kept.model) == (begun.nonce, begun.model);
        match shared.streams.find(request).filter(|(kept, _)| same(kept)) {
            Some((begun, entries)) => Broken { last, begun, is_kept: true, or_anew: false, entries },
            None => Broken::anew(request, begun),
        }
    }

    /// An answer that begins as `begun` says.
    pub(super) fn anew(request: RequestId, begun: Begun) -> Broken {
        let last = LastEvent { request, position: 0 };
        Broken { last, begun, is_kept: false, or_anew: false, entries: Vec::new() }
    }

    /// The answer as far as it was signed for, and the place from which it is wanted, if this is the request that began it; none if
    /// it is to be made anew.
    pub(super) fn restore(self, ask: &Ask, model: &Resolved) -> Result<Option<(usize, Restored)>, ApiError> {
        let (position, or_anew) = (self.last.position, self.or_anew);
        match self.restored(ask, model) {
            Err(_) if or_anew => Ok(None),
            restored => restored.map(|restored| Some((position, restored))),
        }
    }

    fn restored(self, ask: &Ask, model: &Resolved) -> Result<Restored, ApiError> {
        if model.arithmetic == NO_ARITHMETIC && self.is_kept {
            let message = "An upstream of its operator's began the answer, and nobody can go on with that: it would be another. \
                           Leave `Last-Event-ID` out to ask anew.";
            return Err(ApiError::new(Code::NotFound, message).with_param("Last-Event-ID"));
        }
        let other = || {
            let message = "The stream that `Last-Event-ID` names began with another request. Send the very same one, or \
                           leave the header out to ask anew.";
            ApiError::invalid("Last-Event-ID", message)
        };
        let [request] = &ask.requests[..] else { return Err(other()) };
        // A response with functions is told as the model wrote it, and divided by whoever tells it on.
        let is_whole = self.last.position == 0 && (ask.could_go_on() || (ask.stream && ask.answers() == 1));
        if !(ask.goes_on() || is_whole) || model.id != self.begun.model {
            return Err(other());
        }
        let again = Again { request, sampling: &ask.sampling, seed: ask.seed, ignore_end: ask.ignore_end };
        // What is to be told only once it was compared is computed again by both.
        let entries = if ask.preferences.checked { Vec::new() } else { self.entries };
        let restored = Restored::read(&self.begun, entries, again).map_err(|_| other())?;
        let position = self.last.position;
        if position <= restored.text.len() && !restored.text.is_char_boundary(position) {
            let message = format!("`Last-Event-ID` names a place within a character. {EXAMPLE}");
            return Err(ApiError::invalid("Last-Event-ID", message));
        }
        Ok(restored)
    }
}

fn gone(message: &str) -> ApiError {
    ApiError::new(Code::NotFound, message.to_owned()).with_param("Last-Event-ID")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_events_say_is_read(bits in any::<u128>(), position in 0usize..1 << 40) {
            let id = format!("req_{bits:032x}");
            let last = LastEvent::parse(&format!("{id}:{position}")).expect("an event's id");
            prop_assert_eq!((last.request.to_string(), last.position), (id, position));
        }

        #[test]
        fn nothing_else_is(text in ".{0,60}") {
            if let Some(last) = LastEvent::parse(&text) {
                prop_assert!(text.contains(&last.request.to_string()["req_".len()..]));
            }
        }
    }

    #[test]
    fn near_misses_are_refused() {
        let id = "req_0123456789abcdef0123456789abcdef";
        for text in
            [id.to_owned(), format!("{id}:"), format!("{id}:+1"), format!("{id}:1:2"), format!("{id}: 1")]
        {
            assert_eq!(LastEvent::parse(&text), None, "{text}");
        }
        assert_eq!(LastEvent::parse(&format!("{id}:{}0", usize::MAX)), None);
    }
}
