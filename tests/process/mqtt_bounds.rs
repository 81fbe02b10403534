//! What clients of MQTT may cost, whatever they do: idle ones, some that do not read, that never acknowledge, that never
//! say who they are.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use feedlog_api::mqtt::wire::{Level, Packet, Qos, encode};

use crate::connections::raise_open_files;
use crate::mqtt::{PATIENCE, Wire, clean, id, publish};
use crate::server::Server;

const CONNECTIONS: usize = 10_000;
/// What an idle connection may cost the server, in KiB. Futures are larger where nothing is optimized.
const KIB_PER_CONNECTION_MAX: u64 = if cfg!(debug_assertions) { 16 } else { 8 };
/// What the log and its caches may take beside the clients of a test, in KiB.
const SLACK_KIB: u64 = 96 << 10;

const ENGINE: &str = if cfg!(feature = "rocksdb") { "rocksdb" } else { "sled" };

fn dial(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    stream
}

#[test]
fn ten_thousand_idle_mqtt_connections_are_held_and_others_are_served() {
    let Some(_alone) = raise_open_files(CONNECTIONS as u64 + 256) else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("data"), ENGINE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // What the first client of all costs is not what each costs.
    let (first, _) = runtime.block_on(Wire::connect(server.mqtt, clean(Level::V5, "first"))).expect("served");
    let before = server.rss_kib();
    let began = Instant::now();
    let mut idle: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|n| {
            let mut stream = dial(server.mqtt);
            let mut connect = clean(Level::V311, &format!("idle-{n}"));
            connect.keep_alive_s = 0;
            let mut bytes = BytesMut::new();
            encode::packet(Level::V311, &Packet::Connect(Box::new(connect)), &mut bytes);
            stream.write_all(&bytes).expect("the server reads");
            stream
        })
        .collect();
    for stream in &mut idle {
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).expect("an answer");
        assert_eq!(connack, [0x20, 2, 0, 0]);
    }
    let took = began.elapsed();
    let grown = server.rss_kib().saturating_sub(before);
    eprintln!(
        "{CONNECTIONS} idle MQTT connections in {:.1} s: {grown} KiB, {:.1} KiB each",
        took.as_secs_f64(),
        grown as f64 / CONNECTIONS as f64
    );
    runtime.block_on(async {
        first.leave().await;
        let (mut wire, _) = Wire::connect(server.mqtt, clean(Level::V5, "other")).await.expect("served");
        for _ in 0..20 {
            let message = publish("idle", Bytes::from_static(b"1"), Qos::AtLeastOnce, Some(id(1)));
            wire.push(&Packet::Publish(message));
            wire.flush().await.expect("served");
            assert!(matches!(wire.next().await, Some(Packet::Puback(_))));
        }
        wire.leave().await;
    });
    // Held: the server has closed none of them, and has nothing to say to them.
    for stream in idle.iter().step_by(97) {
        stream.set_nonblocking(true).expect("a socket option");
        let peeked = stream.peek(&mut [0]);
        assert!(matches!(&peeked, Err(error) if error.kind() == ErrorKind::WouldBlock), "{peeked:?}");
    }
    assert!(
        grown <= KIB_PER_CONNECTION_MAX * CONNECTIONS as u64,
        "{grown} KiB for {CONNECTIONS} connections"
    );
    drop(idle);
    server.terminate();
}

/// Subscribers of each kind.
const BAD: usize = 40;
/// Messages, and how large each is: for every subscriber 20 MiB, for all of them 1.6 GiB.
const MESSAGES: u16 = 640;
const BYTES: usize = 32 << 10;
/// Messages that a client may have without acknowledging any (`mqtt.in_flight_max`).
const WINDOW: usize = 64;

#[test]
fn clients_that_do_not_read_or_never_acknowledge_are_not_buffered_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&dir.path().join("data"), ENGINE);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let subscriber = |name: String, qos: Qos| async move {
            let (mut wire, _) = Wire::connect(server.mqtt, clean(Level::V5, &name)).await.expect("served");
            assert_eq!(wire.subscribe("flood", qos).await, Some(qos as u8));
            wire
        };
        let (mut deaf, mut mute) = (Vec::new(), Vec::new());
        for n in 0..BAD {
            deaf.push(subscriber(format!("deaf-{n}"), Qos::AtMostOnce).await);
            mute.push(subscriber(format!("mute-{n}"), Qos::AtLeastOnce).await);
        }
        let mut good = subscriber("good".into(), Qos::AtLeastOnce).await;
        let before = server.rss_kib();
        let reading = tokio::spawn(async move {
            for _ in 0..MESSAGES {
                let Some(Packet::Publish(message)) = good.next().await else { panic!("not a PUBLISH") };
                assert_eq!(message.payload.len(), BYTES);
                good.push(&Packet::Puback(crate::mqtt::ack(message.packet_id.expect("QoS 1"))));
                good.flush().await.expect("served");
            }
        });
        let (mut publisher, _) =
            Wire::connect(server.mqtt, clean(Level::V5, "flooder")).await.expect("served");
        let payload = Bytes::from(vec![b'x'; BYTES]);
        for number in 1..=MESSAGES {
            publisher.push(&Packet::Publish(publish(
                "flood",
                payload.clone(),
                Qos::AtLeastOnce,
                Some(id(number)),
            )));
            publisher.flush().await.expect("served");
            assert!(matches!(publisher.next().await, Some(Packet::Puback(_))));
        }
        tokio::time::timeout(PATIENCE, reading).await.expect("the good one has all in time").expect("reads");
        let grown = server.rss_kib().saturating_sub(before);
        eprintln!(
            "{BAD} deaf and {BAD} mute subscribers, {} MiB for each: {} MiB more in the server",
            (usize::from(MESSAGES) * BYTES) >> 20,
            grown >> 10
        );
        assert!(grown <= SLACK_KIB + 2 * BAD as u64 * 512, "{grown} KiB");
        // As many as may be on their way, and not one more.
        for wire in &mut mute {
            for _ in 0..WINDOW {
                assert!(matches!(wire.next().await, Some(Packet::Publish(_))));
            }
            wire.push(&Packet::Pingreq);
            wire.flush().await.expect("served");
            assert_eq!(wire.next().await, Some(Packet::Pingresp));
        }
    });
    server.terminate();
}

/// Connections of each kind that never say who they are.
const STRANGERS: usize = 200;

#[test]
fn connections_without_connect_cost_little_and_are_closed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let server = Server::start_with(&data, ENGINE, &[("FEEDLOG__MQTT__CONNECT_MAX_MS", "3000")]);
    let before = server.rss_kib();
    let with = |bytes: &[u8]| -> Vec<TcpStream> {
        let one = |_| {
            let mut stream = dial(server.mqtt);
            // The server may have closed before it has all.
            let _ = stream.write_all(bytes);
            stream
        };
        (0..STRANGERS).map(one).collect()
    };
    // A CONNECT of 60,000 bytes of which the last never comes.
    let mut slow = vec![0x10, 0xe0, 0xd4, 0x03, 0, 4];
    slow.extend(b"MQTT\x04\x06\0\0\0\x01a\0\x01t");
    slow.extend(60_000_u16.to_be_bytes());
    slow.resize(59_000, b'x');
    // A packet of 256 MiB is announced, and a good part of it comes.
    let mut huge = vec![0x10, 0xff, 0xff, 0xff, 0x7f];
    huge.resize(1 << 20, b'x');
    // Not CONNECT: a flood of publications.
    let flood = [&[0x30, 3, 0, 1, b'a'][..]; 10_000].concat();
    let began = Instant::now();
    let (silent, slow) = (with(b""), with(&slow));
    let grown = server.rss_kib().saturating_sub(before);
    let (huge, flood) = (with(&huge), with(&flood));
    let at_most = server.rss_kib().saturating_sub(before).max(grown);
    eprintln!(
        "{} connections without CONNECT: {grown} KiB for silent and slow ones, {at_most} KiB with floods",
        4 * STRANGERS
    );
    // Packets of strangers may have 65 KiB.
    assert!(at_most <= STRANGERS as u64 * (65 + 65 + 24 + 24) + (16 << 10), "{at_most} KiB");

    let mut told = [0; 64];
    for mut stream in huge.into_iter().chain(flood).chain(slow).chain(silent) {
        loop {
            match stream.read(&mut told) {
                Ok(0) => break,
                // At most a refusal.
                Ok(count) => assert!(count <= 16, "{count} bytes for a stranger"),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("not closed: {error}"),
            }
        }
    }
    assert!(began.elapsed() < Duration::from_secs(20), "all were closed after {:?}", began.elapsed());
    let answer = ureq::get(format!("{}/livez", server.url)).call().expect("others are served");
    assert_eq!(answer.status(), 200);
    server.terminate();
}
