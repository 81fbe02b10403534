//! The real binary, killed with `kill -9` in the middle of real load, again and again.
//!
//! Clients keep a ledger of every acknowledgement they were given. After every kill the store is verified offline,
//! then served again: everything in the ledger must be where the acknowledgement said, and what was in flight is sent
//! once more with the same `client_msg_id` and must end up in the log exactly once. Proves P1, P2 and P3 (I-1, I-2,
//! I-5) from outside.
//!
//! `FEEDLOG_CRASH_CYCLES` sets the number of kills (100 for RocksDB and 25 for sled unless set), `FEEDLOG_SEED` the
//! seed of payloads and times.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::ledger::{Client, Random};
use crate::server::{self, Server};

/// Clients that send at the same time; each owns one feed and all share another.
const CLIENTS: usize = 8;

pub(crate) fn cycles(default: u32) -> u32 {
    std::env::var("FEEDLOG_CRASH_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

pub(crate) fn seed() -> u64 {
    std::env::var("FEEDLOG_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64))
}

fn crash_loop(engine: &str, cycles: u32) {
    let seed = seed();
    eprintln!("crash loop: engine {engine}, {cycles} cycles, FEEDLOG_SEED={seed}");
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(n, seed)).collect();

    let mut server = Server::start(&data, engine);
    crate::ledger::create_feeds(&server.url, CLIENTS);
    for cycle in 0..cycles {
        for client in &mut clients {
            client.settle(&server.url);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_micros(20_000 + random.below(180_000));
        clients = std::thread::scope(|scope| {
            let threads: Vec<_> = clients
                .into_iter()
                .map(|mut client| {
                    let (url, stop) = (server.url.clone(), stop.clone());
                    scope.spawn(move || {
                        while !stop.load(Ordering::Relaxed) && client.send(&url) {}
                        client
                    })
                })
                .collect();
            // The kill comes at a random time, not when some state is reached.
            let until = Instant::now() + pause;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            server.kill();
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().map(|thread| thread.join().expect("a client does not panic")).collect()
        });
        verify(&data, engine, cycle);
        server = Server::start(&data, engine);
        for client in &clients {
            client.check_recent(&server.url);
        }
    }
    for client in &mut clients {
        client.settle(&server.url);
        client.check_all(&server.url);
    }
    crate::ledger::check_shared(&server.url, &clients);
    let acks: usize = clients.iter().map(Client::acks).sum();
    let unknown: usize = clients.iter().map(|client| client.settled_duplicates).sum();
    assert!(
        acks as u32 > cycles,
        "the clients were hardly served: {acks} acknowledgements in {cycles} cycles"
    );
    eprintln!(
        "crash loop: {acks} acknowledgements all found; {unknown} sends without an answer had happened"
    );
    server.terminate();
    verify(&data, engine, cycles);
}

pub(crate) fn verify(data: &Path, engine: &str, cycle: u32) {
    let output = server::feedlog().arg("verify").arg("--data-dir").arg(data).output().expect("verify runs");
    assert!(
        output.status.success(),
        "verify after kill {cycle} on {engine}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(feature = "rocksdb")]
#[test]
fn nothing_acknowledged_is_lost_doubled_or_moved_on_rocksdb() {
    crash_loop("rocksdb", cycles(100));
}

#[cfg(feature = "sled")]
#[test]
fn nothing_acknowledged_is_lost_doubled_or_moved_on_sled() {
    crash_loop("sled", cycles(25));
}
