//! Server: connections, and how much and how long they may.
//!
//! In:     a listener, a router. Out: served connections.
//! Touches: TCP.
//! Holds:  connections, headers and their time are bounded; one slow or silent client costs itself and no other; on
//!         the way out, connections end when their answers have.
//! Absent: what is served (`api`).

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};
use tracing::{debug, warn};

use crate::{api::once::Connection, gateway::Phase, settings::Limits};

/// Bytes of a request's headers.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// How long to wait after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection that is turned away gets to hear so.
const TURN_AWAY: Duration = Duration::from_secs(1);
/// What it hears. It has no request id: its request was not read.
const FULL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nretry-after-ms: 1000\r\nx-should-retry: true\r\n",
    "connection: close\r\n",
    "content-length: 280\r\n\r\n",
    r#"{"error":{"message":"The gateway has as many connections as it takes at once. Try again shortly.","#,
    r#""type":"service_unavailable_error","param":null,"code":"overloaded","metadata":{"accountable":"gateway","#,
    r#""hop":"client-gateway","charged":"0","retryable":true,"retry_after_ms":1000}}}"#,
);

/// Serves until the phase changes, then until the last connection has ended.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    mut phase: watch::Receiver<Phase>,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADER_BYTES_MAX);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                log_end(ended);
                continue;
            }
            () = leaving(&mut phase) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: connections that end will free some.
                warn!(%error, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Tokens are small and are to arrive one by one.
        let _ = stream.set_nodelay(true);
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            connections.spawn(turn_away(stream));
            continue;
        };
        let stream = TokioIo::new(Watched::new(stream, limits.write_timeout));
        let (life, routes) = (Connection::default(), TowerToHyperService::new(router.clone()));
        let ended = life.clone();
        let routes = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(life.clone());
            routes.call(request)
        });
        let connection = http.serve_connection(stream, routes);
        let mut phase = phase.clone();
        connections.spawn(async move {
            let _place = place;
            let _ended = OnDrop(ended);
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = leaving(&mut phase) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        log_end(ended);
    }
}

/// Notes that a connection has ended, however it did.
struct OnDrop(Connection);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Returns when the gateway is on its way out.
async fn leaving(phase: &mut watch::Receiver<Phase>) {
    // A sender that is gone has left.
    let _ = phase.wait_for(|phase| *phase != Phase::Open).await;
}

fn log_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        warn!("a connection's task panicked");
    }
}

async fn turn_away(mut stream: TcpStream) {
    let told = async {
        stream.write_all(FULL.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whoever does not listen is not told.
    let _ = tokio::time::timeout(TURN_AWAY, told).await;
}

/// A connection on which nothing could be written for too long is broken.
struct Watched {
    stream: TcpStream,
    limit: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        Self { stream, limit, stuck: None }
    }

    /// Starts the clock when a write has to wait, stops it when one goes through.
    fn watch<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stuck = None;
            return poll;
        }
        let limit = self.limit;
        let stuck =
            self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match stuck.as_mut().poll(context) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn the_full_answer_is_well_formed() {
        let (head, body) = FULL.split_once("\r\n\r\n").expect("a head and a body");
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "the body takes {} bytes",
            body.len()
        );
        let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(json["error"]["code"], "overloaded");
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut watched = Watched::new(stream, Duration::from_millis(100));
        let bytes = vec![0; 64 << 20];
        let error = watched.write_all(&bytes).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test]
    async fn a_slow_reader_is_not_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client =
            TcpStream::connect(listener.local_addr().expect("bound")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut watched = Watched::new(stream, Duration::from_millis(500));
        let writer = tokio::spawn(async move { watched.write_all(&vec![0; 8 << 20]).await });
        let mut piece = vec![0; 1 << 20];
        for _ in 0..8 {
            sleep(Duration::from_millis(100)).await;
            client.read_exact(&mut piece).await.expect("more");
        }
        writer.await.expect("no panic").expect("all was written");
    }
}
