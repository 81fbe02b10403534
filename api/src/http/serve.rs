//! The server: listeners in, answers out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

use super::app::{App, Peer, drained};
use super::config::HttpConfig;
use super::faces::{Face, Faces, Listener};
use super::watched::{Activity, Patience, Watched};
use crate::connmix::Connmix;
use crate::doors::{Doors, Guest};
use crate::gws::Gws;
use crate::mqtt::Mqtt;
use crate::tls::{Tls, TlsError};

/// What the routes work on.
#[derive(Clone)]
pub struct Services {
    /// The store, with its authentication and administration.
    pub store: Store,
    /// The text of `/metrics` (Prometheus exposition format).
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// MQTT over WebSocket on the same port, when it is on.
    pub mqtt: Option<Mqtt>,
    /// gotapi-ws rooms on the same port, when they are on.
    pub gws: Option<Gws>,
    /// The CONNMIX message center on the same port, when it is on.
    pub connmix: Option<Connmix>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    listeners: Vec<Listener>,
    services: Services,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), HttpError> {
    let tls = config.tls.clone().map(|files| Tls::load(files, None)).transpose()?.map(Arc::new);
    let (drain, draining) = watch::channel(false);
    let within = Duration::from_millis(config.drain_ms_max);
    let app = App::new(config, services, draining.clone());
    let server = Arc::new(Server {
        faces: Faces::new(&app),
        doors: Doors::new("http", app.config.connections_max, app.config.connections_per_address_max, 0),
        app,
        tls,
        draining,
        connections: AtomicU64::new(0),
    });
    let mut background = JoinSet::new();
    if let Some(tls) = &server.tls {
        background.spawn(tls.clone().watch("http"));
    }
    if let Some(gws) = &server.app.services.gws {
        background.spawn(gws.clone().keep());
    }
    if let Some(connmix) = &server.app.services.connmix {
        background.spawn(connmix.clone().keep());
    }
    let mut accepting = JoinSet::new();
    for Listener { listener, face } in listeners {
        accepting.spawn(server.clone().accept(listener, face));
    }
    shutdown.await;
    accepting.shutdown().await;
    let _ = drain.send(true);
    let mut open = server.doors.open();
    let mut streams = server.app.streams.subscribe();
    let finished = timeout(within, async {
        // Upgraded connections have left hyper and are counted as streams.
        let _ = open.wait_for(|open| *open == 0).await;
        let _ = streams.wait_for(|open| *open == 0).await;
    });
    if finished.await.is_err() {
        server.doors.cut_all();
    }
    background.shutdown().await;
    Ok(())
}

struct Server {
    faces: Faces,
    app: Arc<App>,
    tls: Option<Arc<Tls>>,
    draining: watch::Receiver<bool>,
    doors: Doors,
    connections: AtomicU64,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener, face: Face) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let Some(guest) = self.doors.enter(address.ip().to_canonical()) else { continue };
                    tokio::spawn(self.clone().connection(stream, address, guest, face));
                }
                Err(error) => {
                    // Too many open files, or a connection that was reset before it was accepted.
                    tracing::warn!(front_end = "http", %error, "accepting failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, guest: Guest, face: Face) {
        let guest = Arc::new(guest);
        let _ = stream.set_nodelay(true);
        let mut cut = self.doors.cut();
        let work = async {
            match &self.tls {
                None => self.talk(stream, address, guest.clone(), face).await,
                Some(tls) => {
                    let within = Duration::from_millis(self.app.config.tls_handshake_ms_max);
                    let handshake = TlsAcceptor::from(tls.current()).accept(stream);
                    match timeout(within, handshake).await {
                        Ok(Ok(stream)) => self.talk(stream, address, guest.clone(), face).await,
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

    async fn talk<S>(&self, stream: S, address: SocketAddr, guest: Arc<Guest>, face: Face)
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
        let router = self.faces.get(face).clone();
        let mqtt = self.app.services.mqtt.clone().filter(|_| face == Face::Shared);
        let noted = activity.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answering = noted.answering();
            let (mut parts, body) = request.into_parts();
            parts.extensions.insert(peer.clone());
            parts.extensions.insert(guest.clone());
            // One port for all that begins as HTTP; each answers in its own way.
            let mqtt = mqtt.clone().filter(|_| super::mqtt::is_meant(&parts));
            let router = router.clone();
            async move {
                let response = match mqtt {
                    Some(mqtt) => Ok(super::mqtt::upgrade(&mqtt, parts).await),
                    None => router.oneshot(Request::from_parts(parts, Body::new(body))).await,
                };
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
