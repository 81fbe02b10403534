//! The listeners: TCP and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use feedlog_service::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::acl::AclError;
use super::broker::Broker;
use super::config::MqttConfig;
use super::connection::{Connection, Origins};
use crate::doors::{Doors, Guest};
use crate::outside::BadHost;
use crate::tls::{Tls, TlsError};

/// Why the front end did not start.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The certificate, its key or the authorities of clients cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The access control file cannot be used.
    #[error("access control file: {0}")]
    Acl(#[from] AclError),
    /// A host of the proxy is not one.
    #[error(transparent)]
    Proxy(#[from] BadHost),
    /// The store does not answer.
    #[error(transparent)]
    Read(#[from] feedlog_service::ReadError),
}

/// The MQTT front end. Cheap to clone; the HTTP front end holds one for its WebSocket paths.
#[derive(Clone)]
pub struct Mqtt {
    pub(crate) broker: Arc<Broker>,
    doors: Doors,
}

/// A listener, and whether it speaks TLS.
pub struct Listener {
    /// The socket.
    pub listener: TcpListener,
    /// TLS by [`MqttConfig::tls`].
    pub tls: bool,
}

impl Mqtt {
    /// A front end over a store. Nothing is served yet.
    ///
    /// # Errors
    /// When a file of the configuration cannot be used.
    pub fn new(config: MqttConfig, store: Store) -> Result<Self, MqttError> {
        let doors = Doors::new(
            "mqtt",
            config.connections_max,
            config.connections_per_address_max,
            config.connections_per_address_per_second,
        );
        let broker = Arc::new(Broker::new(store, config)?);
        Ok(Self { broker, doors })
    }

    /// Serves on all listeners until `shutdown` completes, then tells all clients and lets them go within
    /// `drain_ms_max`. Wills that an earlier process left are published first.
    ///
    /// # Errors
    /// When a certificate cannot be loaded. A failing connection never ends the front end.
    pub async fn serve(
        self,
        listeners: Vec<Listener>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), MqttError> {
        let config = self.broker.config.clone();
        let tls = match &config.tls {
            Some(files) => Some(Arc::new(Tls::load(files.clone(), config.client_ca.clone())?)),
            None => None,
        };
        self.broker.publish_left_wills().await?;
        let mut background = JoinSet::new();
        background.spawn(self.broker.clone().sweep());
        if let Some(tls) = &tls {
            background.spawn(tls.clone().watch("mqtt"));
        }
        let mut accepting = JoinSet::new();
        for Listener { listener, tls: secure } in listeners {
            let tls = tls.clone().filter(|_| secure);
            accepting.spawn(self.clone().accept(listener, tls));
        }
        shutdown.await;
        accepting.shutdown().await;
        self.doors.drain(Duration::from_millis(config.drain_ms_max)).await;
        background.shutdown().await;
        Ok(())
    }

    async fn accept(self, listener: TcpListener, tls: Option<Arc<Tls>>) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let Some(guest) = self.doors.enter(address.ip().to_canonical()) else { continue };
                    tokio::spawn(self.clone().connection(stream, address, guest, tls.clone()));
                }
                Err(error) => {
                    // Too many open files, or a connection that was reset before it was accepted.
                    tracing::warn!(front_end = "mqtt", %error, "accepting failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, address: SocketAddr, guest: Guest, tls: Option<Arc<Tls>>) {
        let _ = stream.set_nodelay(true);
        let address = address.ip().to_canonical();
        let origins = Origins { address, certified: None, protobuf: false };
        match tls {
            None => self.talk(stream, origins, guest).await,
            // Apart, so that connections without TLS are not as large.
            Some(tls) => Box::pin(self.secured(stream, origins, guest, tls)).await,
        }
    }

    async fn secured(self, stream: TcpStream, origins: Origins, guest: Guest, tls: Arc<Tls>) {
        let within = Duration::from_millis(self.broker.config.tls_handshake_ms_max);
        let handshake = Box::pin(timeout(within, TlsAcceptor::from(tls.current()).accept(stream)));
        match handshake.await {
            Ok(Ok(stream)) => {
                let certified = crate::tls::common_name(stream.get_ref().1);
                self.talk(stream, Origins { certified, ..origins }, guest).await;
            }
            Ok(Err(error)) => tracing::debug!(front_end = "mqtt", %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(front_end = "mqtt", "TLS handshake timed out"),
        }
    }

    /// One connection over any stream of bytes.
    pub(crate) async fn talk<S>(&self, stream: S, origins: Origins, guest: Guest)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let draining: watch::Receiver<bool> = self.doors.draining();
        let mut cut = self.doors.cut();
        // In a box of its own: the future of a connection is otherwise there twice, where it is made and where it is awaited.
        let mut work = Box::pin(Connection::new(self.broker.clone(), origins).run(stream, draining));
        tokio::select! {
            () = &mut work => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
        drop(guest);
    }

    /// Largest packet.
    pub(crate) fn packet_bytes_max(&self) -> usize {
        self.broker.config.packet_bytes_max
    }

    /// Lets a connection of another listener in.
    pub(crate) fn enter(&self, address: std::net::IpAddr) -> Option<Guest> {
        self.doors.enter(address)
    }
}
