//! The bus: rumqttd, its links, and the probe.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::Packet as Incoming;
use rumqttc::v5::{Event, EventLoop, MqttOptions};
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{Packet, Publish, PublishProperties};
use rumqttd::{Broker, Config, ConnectionSettings, Notification, RouterConfig, ServerSettings};
use subtle::ConstantTimeEq;
use tokio::sync::mpsc::UnboundedSender;

use crate::{Counters, Error, Settings, safe};

/// Ids of our own links begin with it; no reader may take one over.
const OWN: &str = "egress:";
/// Packets to one reader before the next one has its turn.
const PACKETS_PER_TURN: u64 = 200;
/// Pieces that the backlog of a filter is cut into; the oldest one is dropped.
const SEGMENTS: u64 = 8;

/// Where messages are handed over.
pub(crate) struct Link {
    tx: LinkTx,
    /// Nothing comes here, but the router would take its absence for the end of the link.
    _rx: LinkRx,
}

impl Link {
    /// Hands a message to the router; waits while it has too much to do.
    pub(crate) async fn publish(
        &mut self,
        topic: String,
        payload: bytes::Bytes,
        properties: Option<PublishProperties>,
    ) -> Result<(), Error> {
        let publish = Publish::new(bytes::Bytes::from(topic), payload, false);
        match self.tx.send(Packet::Publish(publish, properties)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Bus(error.to_string())),
        }
    }
}

/// Starts the bus and its probe. What fails later is told through `failed`.
pub(crate) fn start(
    settings: &Settings,
    counters: &Arc<Counters>,
    failed: &UnboundedSender<Error>,
) -> Result<Link, Error> {
    // rumqttd only logs that an address is taken.
    drop(TcpListener::bind(settings.listen).map_err(|error| Error::Listen(settings.listen, error))?);
    let mut broker = Broker::new(config(settings, counters));
    let link =
        |name: &str| broker.link(&format!("{OWN}{name}")).map_err(|error| Error::Bus(error.to_string()));
    let (tx, rx) = link("messages")?;
    let probe = link("probe")?;

    let told = failed.clone();
    std::thread::Builder::new().name("bus".into()).spawn(move || {
        let ended = broker.start().map_or_else(|error| error.to_string(), |()| "it ended".to_owned());
        // Nobody listens when the process ends anyway.
        let _ = told.send(Error::Bus(ended));
    })?;
    let (settings, told) = (settings.clone(), failed.clone());
    std::thread::Builder::new().name("probe".into()).spawn(move || {
        let _ = told.send(probe_for_ever(&settings, probe));
    })?;
    Ok(Link { tx, _rx: rx })
}

fn config(settings: &Settings, counters: &Arc<Counters>) -> Config {
    let mut connections = ConnectionSettings {
        connection_timeout_ms: 5000,
        max_payload_size: settings.packet_bytes_max as usize,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: false,
    };
    let (password, counters) = (settings.bus_password.clone(), counters.clone());
    connections.set_auth_handler(move |id: String, _user: String, given: String| {
        let known =
            password.as_ref().is_none_or(|password| password.as_bytes().ct_eq(given.as_bytes()).into());
        let welcome = known && safe::client_id(&id) && !id.starts_with(OWN);
        if !welcome {
            Counters::add(&counters.refused_clients);
        }
        std::future::ready(welcome)
    });
    let server = ServerSettings {
        name: "bus".into(),
        listen: settings.listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections,
    };
    Config {
        id: 0,
        router: RouterConfig {
            // Our own two links besides.
            max_connections: settings.readers_max + 2,
            max_outgoing_packet_count: PACKETS_PER_TURN,
            max_segment_size: usize::try_from(settings.backlog_bytes / SEGMENTS).unwrap_or(usize::MAX),
            max_segment_count: SEGMENTS as usize,
            ..RouterConfig::default()
        },
        // MQTT 5 only: its 3.1.1 half is the older one, and nobody needs it here.
        v5: Some(HashMap::from([("bus".to_owned(), server)])),
        ..Config::default()
    }
}

/// Sends a message and waits for it, again and again; returns when one does not come back.
fn probe_for_ever(settings: &Settings, (mut tx, mut rx): (LinkTx, LinkRx)) -> Error {
    let within = Duration::from_millis(settings.probe_within_ms);
    // Outside the prefix: it is no reader's business.
    let topic = format!("{OWN}probe");
    let fail = |error: rumqttd::local::LinkError| Error::Bus(error.to_string());
    if let Err(error) = tx.subscribe(topic.clone()) {
        return fail(error);
    }
    let greeter = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return error.into(),
    };
    for number in 0_u64.. {
        let payload = number.to_string();
        let deadline = Instant::now() + within;
        if let Err(error) = tx.publish(topic.clone(), payload.clone()) {
            return fail(error);
        }
        loop {
            match rx.recv_deadline(deadline) {
                Ok(Some(Notification::Forward(forward))) if forward.publish.payload == payload => break,
                // The router sends no more until it is told that this much was taken.
                Ok(Some(Notification::Unschedule)) => {
                    if let Err(error) = rx.ready() {
                        return fail(error);
                    }
                }
                Ok(_) => {}
                Err(_) => return Error::Probe(within),
            }
        }
        // Its listener and router are different threads.
        if !greeter.block_on(greet(settings, within)) {
            return Error::Probe(within);
        }
        std::thread::sleep(Duration::from_secs(settings.probe_every_s));
    }
    unreachable!("no process lives for 2^64 probes")
}

/// Whether a reader that connects now is let in.
async fn greet(settings: &Settings, within: Duration) -> bool {
    let mut options =
        MqttOptions::new("egress-greeting", settings.listen.ip().to_string(), settings.listen.port());
    options.set_credentials("egress", settings.bus_password.clone().unwrap_or_default());
    let mut events = EventLoop::new(options, 1);
    // The listener may have come up a moment later than the router.
    let greeting = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => return,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(within, greeting).await.is_ok()
}
