//! Connections: who may connect, how much, how long.
//!
//! Holds:  a page that a browser shows can use RPC only if its origin was named; a name that leads to this machine by
//!         trickery is refused; a slow or silent connection costs itself and no other.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{self, HeaderMap, HeaderValue},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use jsonrpsee::server::{
    BatchRequestConfig, HttpBody, HttpResponse, IdProvider, PingConfig, Server, ServerConfig, ServerHandle,
    middleware::rpc::RpcServiceBuilder, stop_channel,
};
use jsonrpsee::types::SubscriptionId;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{RpcSettings, Services, count::Counted, methods};

/// Bytes of a request's headers.
const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 100;
/// How long to wait after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Running RPC.
#[derive(Debug)]
pub struct RpcServer {
    address: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<()>,
}

impl RpcServer {
    /// Listens and serves.
    pub async fn start(settings: RpcSettings, services: Services) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let (stopped, handle) = stop_channel();
        let limits = settings.limits;
        let metrics = Arc::clone(&services.metrics);
        let services = Arc::new(services);
        let module = methods(Arc::clone(&services)).expect("every method has one name");
        let names: Arc<[&'static str]> = module.method_names().collect();
        let config = ServerConfig::builder()
            .max_connections(limits.connections_max)
            .max_request_body_size(limits.request_bytes_max)
            .max_response_body_size(limits.answer_bytes_max)
            .set_batch_request_config(BatchRequestConfig::Limit(limits.batch_max))
            .max_subscriptions_per_connection(limits.subscriptions_max)
            .set_message_buffer_capacity(limits.messages_max)
            .set_id_provider(HexIds)
            .enable_ws_ping(PingConfig::new())
            .build();
        let counting = Arc::clone(&metrics);
        let middleware = RpcServiceBuilder::new().layer_fn(move |service| Counted {
            service,
            metrics: Arc::clone(&counting),
            names: Arc::clone(&names),
        });
        let door = Arc::new(Door::new(&settings, services));
        let builder =
            Server::builder().set_config(config).set_rpc_middleware(middleware).to_service_builder();
        let task = tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(limits.connections_max as usize));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(limits.header_timeout)
                .max_headers(HEADERS_MAX)
                .max_header_size(HEADER_BYTES_MAX);
            let mut connections = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                    () = stopped.clone().shutdown() => break,
                };
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        warn!(%error, "a connection was not accepted");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                // One that finds no place is closed: it will try again, or elsewhere.
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let _ = stream.set_nodelay(true);
                let service =
                    TowerToHyperService::new(builder.clone().build(module.clone(), stopped.clone()));
                let door = Arc::clone(&door);
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (service, door) = (service.clone(), Arc::clone(&door));
                    async move {
                        let origin = match door.admit(&request) {
                            Admission::Answered(response) => {
                                return Ok::<_, std::convert::Infallible>(response);
                            }
                            Admission::Let { origin } => origin,
                        };
                        let mut response = match timeout(limits.request_timeout, service.call(request)).await
                        {
                            Ok(Ok(response)) => response,
                            Ok(Err(_)) => text(StatusCode::BAD_REQUEST, "the request could not be read\n"),
                            Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the request took too long\n"),
                        };
                        if let Some(origin) = origin {
                            allow(response.headers_mut(), origin);
                        }
                        Ok(response)
                    }
                });
                let connection = http.serve_connection(TokioIo::new(stream), answer).with_upgrades();
                let (stopping, metrics) = (stopped.clone(), Arc::clone(&metrics));
                connections.spawn(async move {
                    let _place = place;
                    metrics.connections.inc();
                    let mut connection = pin!(connection);
                    let ended = tokio::select! {
                        ended = connection.as_mut() => ended,
                        () = stopping.shutdown() => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    };
                    metrics.connections.dec();
                    if let Err(error) = ended {
                        debug!(%error, "a connection ended early");
                    }
                });
            }
            drop(listener);
            let ending = async { while connections.join_next().await.is_some() {} };
            // What still runs then is dropped with the set.
            let _ = timeout(limits.stop_grace, ending).await;
        });
        Ok(Self { address, handle, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: requests that run may end, subscriptions are closed.
    pub async fn stop(self) {
        // It may have stopped by itself.
        let _ = self.handle.stop();
        let _ = self.task.await;
    }
}

/// What the door says of a request.
enum Admission {
    /// It is answered already.
    Answered(HttpResponse),
    /// It may go on; an answer goes to a page of this origin.
    Let { origin: Option<HeaderValue> },
}

/// What is decided before JSON-RPC: paths, host names, origins.
struct Door {
    hosts: Vec<String>,
    origins: Vec<String>,
    services: Arc<Services>,
}

impl Door {
    fn new(settings: &RpcSettings, services: Arc<Services>) -> Self {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { hosts: lower(&settings.hosts), origins: lower(&settings.origins), services }
    }

    fn admit(&self, request: &Request<Incoming>) -> Admission {
        if !self.host_is_known(request.headers()) {
            let message = "this host name is not served here; name it among the RPC hosts\n";
            return Admission::Answered(text(StatusCode::FORBIDDEN, message));
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/health") => return Admission::Answered(text(StatusCode::OK, "ok\n")),
            (&Method::GET, "/metrics") => return Admission::Answered(metrics(self.services.metrics_text())),
            _ => {}
        }
        let origin = match request.headers().get(header::ORIGIN) {
            None => None,
            Some(origin) if self.origin_is_allowed(origin) => Some(origin.clone()),
            Some(_) => {
                let message = "pages of this origin may not use this RPC; name it among the RPC origins\n";
                return Admission::Answered(text(StatusCode::FORBIDDEN, message));
            }
        };
        if request.method() == Method::OPTIONS {
            let mut response = text(StatusCode::NO_CONTENT, "");
            if let Some(origin) = origin {
                allow(response.headers_mut(), origin);
            }
            return Admission::Answered(response);
        }
        Admission::Let { origin }
    }

    /// A page can make its own name lead to this machine, but cannot make the browser say another name.
    fn host_is_known(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(header::HOST) else { return true };
        let Ok(host) = host.to_str() else { return false };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok() || self.hosts.contains(&name)
    }

    fn origin_is_allowed(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.to_ascii_lowercase();
        self.origins.iter().any(|allowed| *allowed == "*" || *allowed == origin)
    }
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
}

fn text(status: StatusCode, message: impl Into<HttpBody>) -> HttpResponse {
    let mut response = HttpResponse::new(message.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn metrics(body: String) -> HttpResponse {
    let mut response = text(StatusCode::OK, body);
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Subscriptions are named as other Ethereum nodes name them: sixteen random bytes in hexadecimal.
#[derive(Debug)]
struct HexIds;

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system has randomness");
        SubscriptionId::Str(format!("{:#x}", alloy_primitives::FixedBytes(bytes)).into())
    }
}
