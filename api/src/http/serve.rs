//! The server: listeners in, answers out.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use feedlog_service::Store;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::app::{App, Peer, drained, router};
use super::config::HttpConfig;
use super::tls::Tls;
use super::watched::{Activity, Patience, Watched};

/// What the routes work on.
#[derive(Clone)]
pub struct Services {
    /// The store, with its authentication and administration.
    pub store: Store,
    /// The text of `/metrics` (Prometheus exposition format).
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The certificate or its key cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A listener failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves HTTP on all listeners until `shutdown` completes, then drains: stops accepting, ends streams with a clear
/// frame, lets running requests finish within `drain_ms_max`, and returns.
///
/// # Errors
/// When the certificate cannot be loaded. A failing connection never ends the server.
pub async fn serve(
    config: HttpConfig,
    listeners: Vec<TcpListener>,
    services: Services,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), HttpError> {
    let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
    let (drain, draining) = watch::channel(false);
    let within = Duration::from_millis(config.drain_ms_max);
    let app = App::new(config, services, draining.clone());
    let server = Arc::new(Server {
        router: router(&app),
        doors: Doors::new(app.config.connections_max, app.config.connections_per_address_max),
        app,
        tls,
        draining,
        connections: AtomicU64::new(0),
    });
    let mut background = JoinSet::new();
    if let Some(tls) = &server.tls {
        background.spawn(tls.clone().watch());
    }
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(server.clone().accept(listener));
    }
    shutdown.await;
    accepting.shutdown().await;
    let _ = drain.send(true);
    let mut open = server.doors.open.subscribe();
    let mut streams = server.app.streams.subscribe();
    let finished = timeout(within, async {
        // Upgraded connections have left hyper and are counted as streams.
        let _ = open.wait_for(|open| *open == 0).await;
        let _ = streams.wait_for(|open| *open == 0).await;
    });
    if finished.await.is_err() {
        tracing::warn!(
            front_end = "http",
            open = *server.doors.open.borrow(),
            "connections were cut by the drain"
        );
        let _ = server.doors.cut.send(true);
    }
    background.shutdown().await;
    Ok(())
}

struct Server {
    router: Router,
    app: Arc<App>,
    tls: Option<Arc<Tls>>,
    draining: watch::Receiver<bool>,
    doors: Doors,
    connections: AtomicU64,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let Some(guest) = self.doors.enter(address.ip().to_canonical()) else {
                        metrics::counter!("feedlog_http_connections_refused_total").increment(1);
                        continue;
                    };
                    tokio::spawn(self.clone().connection(stream, address, guest));
                }
                Err(error) => {
                    // Too many open files, or a connection that was reset before it was accepted.
                    tracing::warn!(front_end = "http", %error, "accepting failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, guest: Guest) {
        let guest = Arc::new(guest);
        let _ = stream.set_nodelay(true);
        let mut cut = self.doors.cut.subscribe();
        let work = async {
            match &self.tls {
                None => self.talk(stream, address, guest.clone()).await,
                Some(tls) => {
                    let within = Duration::from_millis(self.app.config.tls_handshake_ms_max);
                    let handshake = TlsAcceptor::from(tls.current()).accept(stream);
                    match timeout(within, handshake).await {
                        Ok(Ok(stream)) => self.talk(stream, address, guest.clone()).await,
                        Ok(Err(error)) => tracing::debug!(front_end = "http", %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(front_end = "http", "TLS handshake timed out"),
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = drained(&mut cut) => {}
        }
    }

    async fn talk<S>(&self, stream: S, address: SocketAddr, guest: Arc<Guest>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = &self.app.config;
        let activity = Activity::new();
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let peer = Peer {
            address: address.ip().to_canonical(),
            connection: format!("{:x}-{number:x}", self.app.started_ms).into(),
        };
        let router = self.router.clone();
        let noted = activity.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answering = noted.answering();
            let (mut parts, body) = request.into_parts();
            parts.extensions.insert(peer.clone());
            parts.extensions.insert(guest.clone());
            let answer = router.clone().oneshot(Request::from_parts(parts, Body::new(body)));
            async move {
                let response = answer.await;
                drop(answering);
                response
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(config.header_read_ms_max))
            .max_buf_size(config.header_bytes_max.max(8192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.h2_streams_max)
            .max_header_list_size(u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX))
            .max_send_buf_size(256 * 1024)
            .keep_alive_interval(Duration::from_millis(config.keep_alive_ms.max(1)))
            .keep_alive_timeout(Duration::from_millis(config.stalled_reader_ms_max));
        let io = TokioIo::new(Watched::new(stream, activity.clone()));
        let connection = builder.serve_connection_with_upgrades(io, service);
        let patience = Patience {
            first_request_ms: config.header_read_ms_max,
            idle_ms: config.idle_ms_max,
            stalled_ms: config.stalled_reader_ms_max,
        };
        let mut draining = self.draining.clone();
        tokio::pin!(connection);
        let cut = activity.watch(patience);
        tokio::pin!(cut);
        let mut told = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(front_end = "http", %error, "a connection ended with an error");
                    }
                    return;
                }
                reason = cut.as_mut() => {
                    metrics::counter!("feedlog_http_connections_cut_total", "reason" => reason).increment(1);
                    return;
                }
                () = drained(&mut draining), if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// How many may be inside, in all and from one address.
struct Doors {
    all_max: usize,
    address_max: usize,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    open: watch::Sender<usize>,
    /// Turns true when the drain's time is over.
    cut: watch::Sender<bool>,
}

/// One connection that was let in. A WebSocket takes it along, so that it counts as long as it is open.
pub(crate) struct Guest {
    address: IpAddr,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    open: watch::Sender<usize>,
}

impl Doors {
    fn new(all_max: usize, address_max: usize) -> Self {
        let (open, _) = watch::channel(0);
        let (cut, _) = watch::channel(false);
        Self { all_max, address_max, addresses: Arc::default(), open, cut }
    }

    fn enter(&self, address: IpAddr) -> Option<Guest> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.open.borrow() >= self.all_max {
            return None;
        }
        let inside = addresses.entry(address).or_insert(0);
        if *inside >= self.address_max {
            return None;
        }
        *inside += 1;
        self.open.send_modify(|open| *open += 1);
        metrics::gauge!("feedlog_http_connections_open").increment(1.0);
        Some(Guest { address, addresses: self.addresses.clone(), open: self.open.clone() })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inside) = addresses.get_mut(&self.address) {
            *inside -= 1;
            if *inside == 0 {
                addresses.remove(&self.address);
            }
        }
        drop(addresses);
        self.open.send_modify(|open| *open -= 1);
        metrics::gauge!("feedlog_http_connections_open").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_count_in_all_and_per_address() {
        let doors = Doors::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = doors.enter(a).unwrap();
        let _second = doors.enter(a).unwrap();
        assert!(doors.enter(a).is_none(), "two from one address");
        let _third = doors.enter(b).unwrap();
        assert!(doors.enter(b).is_none(), "three in all");
        drop(first);
        assert!(doors.enter(b).is_some());
    }
}
