//! The whole way in one process: another rumqttd plays feedlog, rumqttc plays publishers and readers.

#![allow(clippy::unwrap_used)] // helpers of tests may panic as well

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use feedlog_egress::{Counters, Error, Settings, serve};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Nothing here takes longer on a working machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A broker that plays feedlog; it ends with the process.
fn upstream() -> u16 {
    let port = free_port();
    let connections = ConnectionSettings {
        connection_timeout_ms: 5000,
        max_payload_size: 1 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: false,
    };
    let server = ServerSettings {
        name: "upstream".into(),
        listen: format!("127.0.0.1:{port}").parse().unwrap(),
        tls: None,
        next_connection_delay_ms: 0,
        connections,
    };
    let router = RouterConfig {
        max_connections: 100,
        max_outgoing_packet_count: 200,
        max_segment_size: 1 << 20,
        max_segment_count: 4,
        ..RouterConfig::default()
    };
    let config = Config { router, v5: Some(HashMap::from([("x".to_owned(), server)])), ..Config::default() };
    std::thread::spawn(move || drop(Broker::new(config).start()));
    port
}

/// A client that was let in; the listener may still be on its way up.
async fn client(port: u16, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_credentials("reader", "any");
    let (client, mut events) = AsyncClient::new(options, 16);
    let connected = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.unwrap_or_else(|_| panic!("{id} is not let in"));
    (client, events)
}

/// The next packet that `wanted` takes.
async fn until<T>(events: &mut EventLoop, wanted: impl Fn(Packet) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Event::Incoming(packet) = events.poll().await.unwrap()
                && let Some(found) = wanted(packet)
            {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("a packet in time")
}

fn publish(packet: Packet) -> Option<Publish> {
    if let Packet::Publish(publish) = packet { Some(publish) } else { None }
}

fn settings(upstream: u16, bus: u16) -> Settings {
    Settings::parse_from([
        "feedlog-egress",
        "--from",
        &format!("127.0.0.1:{upstream}"),
        "--listen",
        &format!("127.0.0.1:{bus}"),
        "--filter",
        "feeds/#",
        "--probe-every-s",
        "1",
    ])
}

/// An egress that has subscribed, and what it will have failed with.
async fn egress(upstream: u16, bus: u16) -> (Arc<Counters>, tokio::task::JoinHandle<Error>) {
    let counters = Arc::new(Counters::default());
    let (settings, counted) = (settings(upstream, bus), counters.clone());
    let running = tokio::spawn(async move { serve(&settings, &counted).await });
    // It follows once something arrives; so a publisher repeats itself until then.
    let (publisher, mut events) = client(upstream, "first").await;
    let poll = tokio::spawn(async move { while events.poll().await.is_ok() {} });
    let followed = async {
        while counters.received.load(Ordering::Relaxed) == 0 {
            publisher.publish("feeds/hello", QoS::AtMostOnce, false, "hello").await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, followed).await.expect("the egress follows");
    poll.abort();
    (counters, running)
}

#[tokio::test]
async fn what_feedlog_sends_reaches_readers_under_the_prefix_with_its_properties() {
    let (upstream, bus) = (upstream(), free_port());
    let (counters, running) = egress(upstream, bus).await;
    let (reader, mut seen) = client(bus, "reader-1").await;
    reader.subscribe("bus/feeds/#", QoS::AtMostOnce).await.unwrap();
    until(&mut seen, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;

    let (publisher, mut events) = client(upstream, "sender").await;
    let properties = PublishProperties {
        content_type: Some("application/json".into()),
        user_properties: vec![("seq_id".into(), "7".into())],
        ..PublishProperties::default()
    };
    publisher.publish_with_properties("feeds/日本", QoS::AtLeastOnce, false, "{}", properties).await.unwrap();
    until(&mut events, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;

    let mut got = until(&mut seen, publish).await;
    while got.payload == "hello" {
        got = until(&mut seen, publish).await;
    }
    assert_eq!(got.topic, "bus/feeds/日本");
    assert_eq!(got.payload, "{}");
    let properties = got.properties.unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.user_properties, [("seq_id".to_owned(), "7".to_owned())]);
    assert_eq!(counters.skipped.load(Ordering::Relaxed), 0);
    assert!(!running.is_finished());
}

#[tokio::test]
async fn an_id_that_rumqttd_cannot_bear_is_refused_and_others_go_on() {
    let (upstream, bus) = (upstream(), free_port());
    let (counters, running) = egress(upstream, bus).await;
    client(bus, "reader-1").await;
    for id in ["a/b", "a+b", "#", "$x", "egress:messages"] {
        let mut options = MqttOptions::new(id, "127.0.0.1", bus);
        options.set_credentials("reader", "any");
        let mut events = EventLoop::new(options, 1);
        let answer = tokio::time::timeout(PATIENCE, events.poll()).await.expect("an answer");
        assert!(answer.is_err(), "{id}: {answer:?}");
    }
    assert_eq!(counters.refused_clients.load(Ordering::Relaxed), 5);
    client(bus, "reader-2").await;
    assert!(!running.is_finished());
}

#[tokio::test]
async fn a_bus_that_carries_nothing_any_more_ends_the_process() {
    let (upstream, bus) = (upstream(), free_port());
    let (_, running) = egress(upstream, bus).await;
    let (reader, mut events) = client(bus, "reader-1").await;
    // Cut behind its first byte by rumqttd's router, which ends with it.
    reader.publish("é/x", QoS::AtMostOnce, false, "x").await.unwrap();
    let poll = tokio::spawn(async move { while events.poll().await.is_ok() {} });
    let error = tokio::time::timeout(PATIENCE, running).await.expect("it ends").unwrap();
    assert!(matches!(error, Error::Probe(_) | Error::Bus(_)), "{error}");
    poll.abort();
}

#[tokio::test]
async fn an_address_that_is_taken_ends_the_process() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = settings(1, taken.local_addr().unwrap().port());
    let error = serve(&settings, &Arc::default()).await;
    assert!(matches!(error, Error::Listen(..)), "{error}");
}
