//! SSE: the pipe between an answer being made and a client that reads at its own pace.
//!
//! In:     events from one task. Out: the body of an HTTP response.
//! Touches: nothing.
//! Holds:  a body ends with the events its maker ended it with, or, if the maker vanished, with an error frame; it
//!         never just ends. Once `BUFFER_BYTES` wait for a slow reader there is no more room. A comment goes at once
//!         and whenever nothing else has for a while. Dropping the body stops the maker.
//! Absent: what the events say. That is `reply`.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::{Instant, Sleep, sleep},
};

/// Bytes that wait for a slow reader before there is no more room.
const BUFFER_BYTES: usize = 256 << 10;
/// A line that readers of server-sent events skip.
pub(crate) const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The maker's end.
#[derive(Debug)]
pub(crate) struct Events {
    queue: mpsc::UnboundedSender<Item>,
    level: Arc<Level>,
}

#[derive(Debug)]
enum Item {
    More(Bytes),
    Last(Bytes),
}

/// How much waits to be read.
#[derive(Debug, Default)]
struct Level {
    bytes: AtomicUsize,
    fell: Notify,
}

/// A pipe whose reader gets `comment`, unless it is empty, after every `keep_alive` of silence, and `abandoned` if the maker
/// vanishes.
pub(crate) fn pipe(keep_alive: Duration, comment: Bytes, abandoned: Bytes) -> (Events, Body) {
    let (queue, items) = mpsc::unbounded_channel();
    let level = Arc::new(Level::default());
    let body = Body {
        items,
        level: Arc::clone(&level),
        maker: None,
        abandoned: Some(abandoned),
        keep_alive,
        comment,
        // The first comment goes at once, so that the reader sees the line is open.
        silence: Box::pin(sleep(Duration::ZERO)),
    };
    (Events { queue, level }, body)
}

impl Events {
    /// Waits until there is room for more. May be cancelled.
    pub(crate) async fn room(&self) {
        let is_room = || self.level.bytes.load(Ordering::Acquire) < BUFFER_BYTES;
        while !is_room() {
            let fell = self.level.fell.notified();
            if is_room() {
                return;
            }
            fell.await;
        }
    }

    /// Sends events, room or not; whoever sends much asks for room first.
    pub(crate) fn send(&self, events: Bytes) {
        self.level.bytes.fetch_add(events.len(), Ordering::AcqRel);
        // A reader that is gone stops the maker.
        let _ = self.queue.send(Item::More(events));
    }

    /// Sends the last events.
    pub(crate) fn end(self, events: Bytes) {
        let _ = self.queue.send(Item::Last(events));
    }
}

/// The reader's end: the body of a response.
#[derive(Debug)]
pub(crate) struct Body {
    items: mpsc::UnboundedReceiver<Item>,
    level: Arc<Level>,
    maker: Option<AbortHandle>,
    /// What to say if the maker vanishes; `None` once the end was told.
    abandoned: Option<Bytes>,
    keep_alive: Duration,
    comment: Bytes,
    silence: Pin<Box<Sleep>>,
}

impl Body {
    /// Ties the maker's life to the body's.
    pub(crate) fn made_by(mut self, maker: AbortHandle) -> Self {
        self.maker = Some(maker);
        self
    }
}

impl Stream for Body {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.abandoned.is_none() {
            return Poll::Ready(None);
        }
        let item = match self.items.poll_recv(context) {
            Poll::Ready(Some(Item::More(events))) => {
                self.level.bytes.fetch_sub(events.len(), Ordering::AcqRel);
                self.level.fell.notify_one();
                events
            }
            Poll::Ready(Some(Item::Last(events))) => {
                self.abandoned = None;
                events
            }
            Poll::Ready(None) => match self.abandoned.take() {
                Some(frame) => frame,
                None => return Poll::Ready(None),
            },
            Poll::Pending if self.comment.is_empty() => return Poll::Pending,
            Poll::Pending => {
                ready!(self.silence.as_mut().poll(context));
                self.comment.clone()
            }
        };
        let next = Instant::now() + self.keep_alive;
        self.silence.as_mut().reset(next);
        Poll::Ready(Some(Ok(item)))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(maker) = &self.maker {
            maker.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    async fn rest(mut body: Body) -> String {
        let mut text = String::new();
        while let Some(Ok(bytes)) = body.next().await {
            text.push_str(str::from_utf8(&bytes).expect("UTF-8"));
        }
        text
    }

    #[tokio::test]
    async fn a_comment_goes_at_once_and_in_silence() {
        let (events, mut body) = pipe(Duration::from_millis(10), COMMENT, Bytes::new());
        for _ in 0..3 {
            assert_eq!(body.next().await, Some(Ok(COMMENT)));
        }
        events.end(Bytes::from_static(b"end"));
        assert_eq!(rest(body).await, "end");
    }

    #[tokio::test]
    async fn without_a_comment_silence_is_silent() {
        let (events, mut body) = pipe(Duration::from_millis(1), Bytes::new(), Bytes::new());
        let silent = tokio::time::timeout(Duration::from_millis(20), body.next()).await;
        assert!(silent.is_err(), "something was sent");
        events.end(Bytes::from_static(b"end"));
        assert_eq!(rest(body).await, "end");
    }

    #[tokio::test]
    async fn what_was_sent_arrives_in_order_and_ends() {
        let (events, body) = pipe(HOUR, COMMENT, Bytes::from_static(b"abandoned"));
        for part in ["a", "b"] {
            events.send(Bytes::from(part));
        }
        events.end(Bytes::from_static(b"c"));
        assert_eq!(rest(body).await, "abc");
    }

    #[tokio::test]
    async fn a_maker_that_vanishes_is_told_of() {
        let (events, body) = pipe(HOUR, COMMENT, Bytes::from_static(b"abandoned"));
        let maker = tokio::spawn(async move {
            events.send(Bytes::from_static(b"a;"));
            panic!("on purpose");
        });
        let body = body.made_by(maker.abort_handle());
        assert!(rest(body).await.ends_with("a;abandoned"));
    }

    #[tokio::test]
    async fn a_slow_reader_leaves_no_room() {
        let (events, mut body) = pipe(HOUR, COMMENT, Bytes::new());
        events.room().await;
        events.send(Bytes::from(vec![b'x'; BUFFER_BYTES]));
        let full = tokio::time::timeout(Duration::from_millis(20), events.room()).await;
        assert!(full.is_err(), "there is no room");
        let waiting = tokio::spawn(async move {
            events.room().await;
            events.end(Bytes::from_static(b"."));
        });
        while body.next().await.expect("an item").expect("bytes") == COMMENT {}
        waiting.await.expect("room again");
        assert_eq!(rest(body).await, ".");
    }

    #[tokio::test]
    async fn a_reader_that_leaves_stops_the_maker() {
        let (events, body) = pipe(HOUR, COMMENT, Bytes::new());
        let maker = tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(events);
        });
        let body = body.made_by(maker.abort_handle());
        drop(body);
        assert!(maker.await.expect_err("aborted").is_cancelled());
    }
}
