//! QoS 1 and QoS 2 while the server is killed with `kill -9`, with ledgers on both sides.
//!
//! Publishers and subscribers of all three versions keep several messages on their way and do, after each kill, what
//! MQTT says: the same packet ids again with DUP, PUBREL where PUBREC had come. At the end everything that was
//! acknowledged is in the log and came at least once, everything of QoS 2 is in the log and came exactly once, and
//! every publisher's order is kept on both sides.
//!
//! `FEEDLOG_CRASH_CYCLES` sets the number of kills (100 for RocksDB and 10 for sled unless set), `FEEDLOG_SEED` the seed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use feedlog_api::mqtt::wire::{Level, Packet, Qos};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::crash::{cycles, seed, verify};
use crate::ledger::{Random, payloads};
use crate::mqtt::{PATIENCE, Wire, ack, clean, id, lasting, publish};
use crate::mqtt_ledger::{Cycle, Publisher, Subscriber};
use crate::server::Server;

/// Most messages that a publisher sends between two kills.
const BURST: u64 = 30;
/// How often places of sessions are written: so often that kills meet it, and so seldom that several kills come between.
const CHECKPOINT_MS: [&str; 3] = ["5", "50", "1000"];

fn start(data: &Path, engine: &str, random: &mut Random) -> Server {
    let checkpoint_ms = CHECKPOINT_MS[random.below(CHECKPOINT_MS.len() as u64) as usize];
    Server::start_with(data, engine, &[("FEEDLOG__MQTT__CHECKPOINT_MS", checkpoint_ms)])
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

async fn all<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        match tokio::time::timeout(PATIENCE, task).await.expect("a client ends in time") {
            Ok(client) => done.push(client),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    done
}

struct Crew {
    runtime: Runtime,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
}

impl Crew {
    fn new(seed: u64) -> Self {
        use Level::{V5, V31, V311};
        use Qos::{AtLeastOnce, ExactlyOnce};
        let publishers = [
            (V31, AtLeastOnce),
            (V5, AtLeastOnce),
            (V31, ExactlyOnce),
            (V311, ExactlyOnce),
            (V5, ExactlyOnce),
        ];
        let subscribers = [(V311, AtLeastOnce), (V5, AtLeastOnce), (V31, ExactlyOnce), (V5, ExactlyOnce)];
        Self {
            runtime: runtime(),
            publishers: publishers
                .into_iter()
                .enumerate()
                .map(|(n, (level, qos))| Publisher::new(n, level, qos, seed))
                .collect(),
            subscribers: subscribers
                .into_iter()
                .enumerate()
                .map(|(n, (level, qos))| Subscriber::new(n, level, qos, seed))
                .collect(),
        }
    }

    fn subscribe(&mut self, server: SocketAddr) {
        let starting = self.subscribers.drain(..).map(|one| self.runtime.spawn(one.start(server))).collect();
        self.subscribers = self.runtime.block_on(all(starting));
    }

    /// Everybody talks until the server is killed.
    fn until_killed(&mut self, server: &mut Server, after: Duration) {
        let cycle = Cycle { server: server.mqtt, burst: BURST, killed: Arc::default() };
        let publishing: Vec<_> =
            self.publishers.drain(..).map(|one| self.runtime.spawn(one.run(cycle.clone()))).collect();
        let reading: Vec<_> =
            self.subscribers.drain(..).map(|one| self.runtime.spawn(one.run(cycle.clone()))).collect();
        park(after);
        cycle.killed.store(true, Ordering::SeqCst);
        server.kill();
        self.publishers = self.runtime.block_on(all(publishing));
        self.subscribers = self.runtime.block_on(all(reading));
    }

    /// Everything ends well: publishers finish what is on its way, subscribers read all.
    fn settle(&mut self, server: &Server) {
        let cycle = Cycle { server: server.mqtt, burst: 0, killed: Arc::default() };
        let publishing =
            self.publishers.drain(..).map(|one| self.runtime.spawn(one.run(cycle.clone()))).collect();
        self.publishers = self.runtime.block_on(all(publishing));
        let goal: HashMap<String, u64> =
            self.publishers.iter().map(|one| (one.topic.clone(), one.next)).collect();
        let reading = self
            .subscribers
            .drain(..)
            .map(|mut one| {
                one.set_goal(&goal);
                self.runtime.spawn(one.run(cycle.clone()))
            })
            .collect();
        self.subscribers = self.runtime.block_on(all(reading));
    }
}

/// The kill comes at a random time, not when some state is reached.
fn park(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

fn crash_loop(engine: &str, cycles: u32) {
    let seed = seed();
    eprintln!("MQTT crash loop: engine {engine}, {cycles} cycles, FEEDLOG_SEED={seed}");
    let began = Instant::now();
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut crew = Crew::new(seed);
    let mut server = start(&data, engine, &mut random);
    crew.subscribe(server.mqtt);
    for _ in 0..cycles {
        // From the middle of the reconnects to the time when all is quiet.
        crew.until_killed(&mut server, Duration::from_micros(1_000 + random.below(150_000)));
        server = start(&data, engine, &mut random);
    }
    crew.settle(&server);
    for publisher in &crew.publishers {
        publisher.check_log(&payloads(&server.url, &publisher.topic));
    }
    server.terminate();
    verify(&data, engine, cycles);
    let sent: u64 = crew.publishers.iter().map(|one| one.next).sum();
    let repeated: usize = crew.publishers.iter().map(|one| one.repeated).sum();
    let came: usize = crew.subscribers.iter().map(|one| one.came).sum();
    assert!(sent > u64::from(cycles), "the clients were hardly served: {sent} messages");
    eprintln!(
        "MQTT crash loop: {cycles} kills in {:.1} s; {sent} messages acknowledged and found, {repeated} packets sent again, \
         {came} deliveries to {} subscribers",
        began.elapsed().as_secs_f64(),
        crew.subscribers.len(),
    );
}

#[cfg(feature = "rocksdb")]
#[test]
fn mqtt_loses_nothing_acknowledged_and_doubles_nothing_of_qos_2_on_rocksdb() {
    crash_loop("rocksdb", cycles(100));
}

#[cfg(feature = "sled")]
#[test]
fn mqtt_loses_nothing_acknowledged_and_doubles_nothing_of_qos_2_on_sled() {
    crash_loop("sled", cycles(10));
}

/// Sessions that all come back in the same moment.
const STORM: usize = 300;
/// Messages of the storm.
const STORM_MESSAGES: u64 = 40;

/// One of the crowd: connects to its session and reads until it has all messages; `None` when the server is gone.
async fn in_storm(server: SocketAddr, n: usize, first: bool, mut next: u64, until: u64) -> (u64, bool) {
    let talk = async {
        let (mut wire, connack) = Wire::connect(server, lasting(Level::V311, &format!("storm-{n}"))).await?;
        assert_eq!(connack.reason, 0, "{connack:?}");
        assert_ne!(connack.session_present, first, "storm-{n}");
        if first {
            assert_eq!(wire.subscribe("storm", Qos::AtLeastOnce).await?, 1);
        }
        while next < until {
            let Packet::Publish(message) = wire.next().await? else { panic!("not a PUBLISH") };
            let number = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse().ok());
            let number: u64 = number.expect("a number");
            assert!(number <= next, "storm-{n}: {number} where {next} is missing");
            next = next.max(number + 1);
            wire.push(&Packet::Puback(ack(message.packet_id?)));
            wire.flush().await?;
        }
        wire.leave().await;
        Some(())
    };
    let whole = talk.await.is_some();
    (next, whole)
}

#[test]
fn hundreds_of_sessions_come_back_at_once_after_a_kill() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let engine = if cfg!(feature = "rocksdb") { "rocksdb" } else { "sled" };
    let mut server = Server::start(&data, engine);
    let runtime = runtime();
    let crowd = |server: SocketAddr, first: bool, seen: &[u64], until: u64| -> Vec<_> {
        let of = |(n, next): (usize, &u64)| runtime.spawn(in_storm(server, n, first, *next, until));
        seen.iter().enumerate().map(of).collect()
    };
    let came = runtime.block_on(all(crowd(server.mqtt, true, &[0; STORM], 0)));
    assert!(came.iter().all(|(_, whole)| *whole));

    // Killed while half of them read; the others were away when it was published.
    let acked = Arc::new(AtomicBool::new(false));
    let reading = crowd(server.mqtt, false, &[0; STORM / 2], STORM_MESSAGES);
    let (mqtt, told) = (server.mqtt, acked.clone());
    let publishing = runtime.spawn(async move {
        let (mut wire, _) = Wire::connect(mqtt, clean(Level::V5, "storm")).await?;
        for number in 0..STORM_MESSAGES {
            wire.push(&Packet::Publish(publish(
                "storm",
                number.to_string().into_bytes().into(),
                Qos::AtLeastOnce,
                Some(id(1)),
            )));
            wire.flush().await?;
            let Packet::Puback(_) = wire.next().await? else { panic!("not a PUBACK") };
        }
        told.store(true, Ordering::SeqCst);
        Some(())
    });
    runtime.block_on(all(vec![publishing]));
    assert!(acked.load(Ordering::SeqCst), "all was acknowledged");
    server.kill();
    let came = runtime.block_on(all(reading));
    let whole = came.iter().filter(|(_, whole)| *whole).count();
    let mut seen: Vec<u64> = came.into_iter().map(|(next, _)| next).collect();
    seen.resize(STORM, 0);

    server = Server::start(&data, engine);
    let began = Instant::now();
    let came = runtime.block_on(all(crowd(server.mqtt, false, &seen, STORM_MESSAGES)));
    assert!(came.iter().all(|came| *came == (STORM_MESSAGES, true)), "{came:?}");
    eprintln!(
        "MQTT storm: {STORM} sessions back at once, {whole} had read all before the kill, all had within {:.2} s",
        began.elapsed().as_secs_f64()
    );
    let log: Vec<Bytes> = payloads(&server.url, "storm");
    assert_eq!(log.len() as u64, STORM_MESSAGES);
    server.terminate();
    verify(&data, engine, 1);
}
