//! The binary and its wiring; no message logic.
//!
//! [`build`] opens the store and binds the address; [`App::run`] serves until told to stop, then drains: front ends,
//! then the service, then the engine.

mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod shutdown;
pub mod telemetry;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feedlog_api::connmix::{Connmix, ConnmixConfig};
use feedlog_api::gws::Gws;
use feedlog_api::http::{self, Face, Services};
use feedlog_api::mqtt::{Listener, Mqtt};
use feedlog_service::Store;
use feedlog_service::auth::{AuthError, Secret};

pub use config::Config;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration does not allow it.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The store did not open.
    #[error(transparent)]
    Open(#[from] feedlog_storage::OpenError),
    /// The service did not start.
    #[error(transparent)]
    Service(#[from] feedlog_service::OpenError),
    /// The first administrator's token could not be made.
    #[error("the first token could not be made: {0}")]
    Token(#[from] AuthError),
    /// The MQTT front end cannot use a file of its configuration.
    #[error(transparent)]
    Mqtt(#[from] feedlog_api::mqtt::MqttError),
    /// The gotapi-ws front end cannot use its configuration.
    #[error(transparent)]
    Gws(#[from] feedlog_api::gws::GwsError),
    /// The CONNMIX front end cannot use its configuration.
    #[error(transparent)]
    Connmix(#[from] feedlog_api::connmix::ConnmixError),
    /// The push outbox did not start.
    #[error(transparent)]
    Outbox(#[from] feedlog_service::outbox::OutboxStartError),
    /// The address cannot be bound.
    #[error("{addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A server that is ready to serve.
pub struct App {
    config: Config,
    listener: tokio::net::TcpListener,
    addr: SocketAddr,
    mqtt: Mqtt,
    gws: Option<Gws>,
    connmix: Option<Connmix>,
    /// Listeners of one system each, with their real addresses.
    alone: Vec<(http::Listener, SocketAddr)>,
    /// TCP and TLS, with their real addresses.
    mqtt_listeners: Vec<(Listener, SocketAddr)>,
    store: Store,
    storage: feedlog_storage::Store,
    first_token: Option<Secret>,
}

/// All of an [`App`] that can fail once the engine is open.
struct Built {
    store: Store,
    listener: tokio::net::TcpListener,
    addr: SocketAddr,
    mqtt: Mqtt,
    mqtt_listeners: Vec<(Listener, SocketAddr)>,
    gws: Option<Gws>,
    connmix: Option<Connmix>,
    alone: Vec<(http::Listener, SocketAddr)>,
    first_token: Option<Secret>,
}

/// Opens the store, makes the first administrator's token when there is none, and binds the address. Nothing is served
/// yet. `dev` opens everything, on loopback only.
///
/// # Errors
/// When the configuration is unsafe, or the store or the address cannot be had.
pub async fn build(config: Config, dev: bool) -> Result<App, BuildError> {
    // What can be refused without touching the data is refused first.
    config.check_bind(dev, true)?;
    let endpoints = config.endpoints()?;
    let storage = wiring::open_storage(&config)?;
    let service = wiring::service_config(&config, dev);
    let engine = storage.engine();
    let built = async {
        let store = Store::open(service, engine.clone())?;
        let has_tokens = wiring::has_tokens(&store).await?;
        config.check_bind(dev, has_tokens)?;
        let (listener, addr) = bind(config.http.addr).await?;
        let mqtt = Mqtt::new(wiring::mqtt_config(&config, dev), store.clone())?;
        let mut mqtt_listeners = Vec::new();
        for (addr, tls) in [(config.mqtt.addr, false), (config.mqtt.tls_addr, true)] {
            if let Some(addr) = addr {
                let (listener, addr) = bind(addr).await?;
                mqtt_listeners.push((Listener { listener, tls }, addr));
            }
        }
        let mut alone = Vec::new();
        let gws = if config.gws.enabled {
            if let Some(addr) = config.gws.addr {
                let (listener, addr) = bind(addr).await?;
                alone.push((http::Listener { listener, face: Face::Gws }, addr));
            }
            Some(Gws::new(wiring::gws_config(&config), store.clone())?)
        } else {
            None
        };
        let connmix = if config.connmix.enabled {
            for (addr, face) in [
                (config.connmix.client_addr, Face::ConnmixClients),
                (config.connmix.api_addr, Face::ConnmixApi),
                (config.connmix.center_addr, Face::ConnmixCenter),
            ] {
                if let Some(addr) = addr {
                    let (listener, addr) = bind(addr).await?;
                    alone.push((http::Listener { listener, face }, addr));
                }
            }
            let api = alone.iter().find(|(listener, _)| listener.face == Face::ConnmixApi);
            let connmix = ConnmixConfig {
                api_port: api.map(|(_, addr)| addr.port()),
                shared_port: Some(addr.port()),
                ..wiring::connmix_config(&config, dev)
            };
            Some(Connmix::new(connmix, store.clone())?)
        } else {
            None
        };
        let first_token = if dev || config.has_auth() || has_tokens {
            None
        } else {
            Some(wiring::create_first_token(&store).await?)
        };
        // Last: what can fail has not.
        store.start_outbox(endpoints.outbox, Arc::new(endpoints.webhooks))?;
        Ok(Built { store, listener, addr, mqtt, mqtt_listeners, gws, connmix, alone, first_token })
    };
    match built.await {
        Ok(Built { store, listener, addr, mqtt, mqtt_listeners, gws, connmix, alone, first_token }) => {
            Ok(App {
                config,
                listener,
                addr,
                mqtt,
                gws,
                connmix,
                alone,
                mqtt_listeners,
                store,
                storage,
                first_token,
            })
        }
        Err(err) => {
            // The store is closed properly, so that the next start has nothing to recover.
            if let Err(close) = engine.close() {
                tracing::warn!(error = %close, "closing the store");
            }
            Err(err)
        }
    }
}

/// Whether everything that reads the configuration would start with it: key files, access lists, names. No store is
/// opened and no address is bound.
///
/// # Errors
/// What `serve` would fail with.
pub fn check(config: &Config) -> Result<(), BuildError> {
    // Tokens of the store can make an address safe, but the store is not opened here.
    config.check_bind(false, true)?;
    config.endpoints()?;
    let store = Store::in_memory(wiring::service_config(config, false))?;
    Mqtt::new(wiring::mqtt_config(config, false), store.clone())?;
    Gws::new(wiring::gws_config(config), store.clone())?;
    Connmix::new(wiring::connmix_config(config, false), store)?;
    Ok(())
}

/// Connections that the kernel holds until they are accepted. When all clients come back at once, each that finds no room
/// waits a second or more before it tries again.
const ACCEPT_BACKLOG: u32 = 4096;

async fn bind(addr: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), BuildError> {
    let failed = |source| BuildError::Bind { addr, source };
    let socket = match addr {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }
    .map_err(failed)?;
    // As `TcpListener::bind` does, so that a restart is not refused its port.
    #[cfg(unix)]
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(addr).map_err(failed)?;
    let listener = socket.listen(ACCEPT_BACKLOG).map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

impl App {
    /// Where MQTT listens besides the HTTP port, as URLs.
    pub fn mqtt_urls(&self) -> impl Iterator<Item = String> {
        self.mqtt_listeners
            .iter()
            .map(|(listener, addr)| format!("{}://{addr}", if listener.tls { "mqtts" } else { "mqtt" }))
    }

    /// Where emulated systems listen besides the HTTP port, as URLs.
    pub fn other_urls(&self) -> impl Iterator<Item = String> {
        let tls = self.is_tls();
        self.alone.iter().map(move |(listener, addr)| {
            let scheme = match (listener.face, tls) {
                (Face::Gws | Face::ConnmixClients, false) => "ws",
                (Face::Gws | Face::ConnmixClients, true) => "wss",
                (_, false) => "http",
                (_, true) => "https",
            };
            format!("{scheme}://{addr}")
        })
    }

    /// Where it listens; the port is the real one when 0 was configured.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether clients must speak TLS.
    pub fn is_tls(&self) -> bool {
        self.config.http.tls_cert_file.is_some()
    }

    /// The first administrator's token, when this start made it: the only time it can be seen.
    pub fn first_token(&self) -> Option<&Secret> {
        self.first_token.as_ref()
    }

    /// The running store, for tests.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Serves until `stop` completes, then drains within `shutdown.drain_ms`. `Ok(false)` when work was left after
    /// that time: it was not acknowledged to anybody.
    ///
    /// # Errors
    /// When the front end cannot run.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<bool, http::HttpError> {
        let Self { config, listener, mqtt, gws, connmix, alone, mqtt_listeners, store, storage, .. } = self;
        let handle = telemetry::recorder();
        let upkeep = tokio::spawn(telemetry::upkeep(handle.clone()));
        let stats = storage.clone();
        let services = Services {
            store: store.clone(),
            metrics: Arc::new(move || telemetry::render(&handle, &stats.stats())),
            mqtt: Some(mqtt.clone()),
            gws,
            connmix,
        };
        let mqtt_listeners = mqtt_listeners.into_iter().map(|(listener, _)| listener).collect();
        let (end_mqtt, mqtt_ending) = tokio::sync::oneshot::channel::<()>();
        let mqtt_served = tokio::spawn(mqtt.serve(mqtt_listeners, async move {
            // Dropped by whoever stops first: the signal, or a front end that failed.
            let _ = mqtt_ending.await;
        }));
        let drain = Duration::from_millis(config.shutdown.drain_ms);
        let (stopped, stopping) = tokio::sync::oneshot::channel();
        let mut listeners = vec![http::Listener::from(listener)];
        listeners.extend(alone.into_iter().map(|(listener, _)| listener));
        let served = http::serve(wiring::http_config(&config), listeners, services, async move {
            stop.await;
            drop(end_mqtt);
            let _ = stopped.send(Instant::now());
        })
        .await;
        match mqtt_served.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the MQTT front end failed"),
            Err(error) => tracing::error!(%error, "the MQTT front end panicked"),
        }
        let started = stopping.await.unwrap_or_else(|_| Instant::now());
        let left = drain.saturating_sub(started.elapsed());
        let drained = store.drain(left.max(Duration::from_millis(100))).await;
        upkeep.abort();
        if let Err(err) = storage.engine().close() {
            tracing::debug!(error = %err, "closing the store again");
        }
        served.map(|()| drained)
    }
}
