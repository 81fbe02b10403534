//! kill -9 at random moments, again and again on the same store.
//!
//! `FEEDLOG_CRASH_CYCLES` sets the number for every engine; `FEEDLOG_SEED` repeats a run's choices (the moments of the
//! kills depend on the machine as well).

use std::time::{Duration, Instant};

use feedlog_storage::EngineKind;
use feedlog_storage::conformance::Random;

use crate::kit::{self, Acked, Job, Said};

/// A new store after so many cycles, so that checking all of it stays short.
const CYCLES_PER_STORE: u64 = 10;
/// One store in so many gets large payloads, for fewer cycles: a cycle then writes more than a memtable holds, so that
/// kills meet flushes, merges and reused WAL files.
const HEAVY_ONE_IN: u64 = 4;
const HEAVY_BYTES: usize = 1_000_000;
const HEAVY_CYCLES_PER_STORE: u64 = 3;
/// Reopening after a crash takes at most this (the promise is 2 s on a quiet machine).
const OPEN_MS_MAX: u64 = 20_000;

#[test]
fn nothing_acknowledged_is_lost_rocksdb() {
    if EngineKind::RocksDb.is_available() {
        cycles(EngineKind::RocksDb, kit::setting("FEEDLOG_CRASH_CYCLES", 100));
    }
}

#[test]
fn nothing_acknowledged_is_lost_sled() {
    if EngineKind::Sled.is_available() {
        cycles(EngineKind::Sled, kit::setting("FEEDLOG_CRASH_CYCLES", 25));
    }
}

fn cycles(engine: EngineKind, count: u64) {
    let mut random = Random(kit::seed(&format!("crash {}", engine.name())));
    let mut dir = tempfile::tempdir().unwrap();
    let mut acked = Acked::new();
    let (mut acks, mut open_ms_max, mut large_bytes) = (0, 0, 300);
    let mut cycles_left = 0;
    for cycle in 0..count {
        if cycles_left == 0 {
            dir = tempfile::tempdir().unwrap();
            acked.clear();
            // sled keeps everything in one file that only grows: large payloads tell nothing new there.
            let heavy = engine == EngineKind::RocksDb && random.one_in(HEAVY_ONE_IN);
            (large_bytes, cycles_left) =
                if heavy { (HEAVY_BYTES, HEAVY_CYCLES_PER_STORE) } else { (300, CYCLES_PER_STORE) };
        }
        cycles_left -= 1;
        let job = Job { dir: dir.path().join("store"), engine, seed: random.number(), large_bytes };
        let mut writer = job.start(None);
        if random.one_in(8) {
            // While it opens, which is recovery from the second cycle on.
            pause(random.below(60_000));
        } else {
            let acks_before = random.below(600);
            for _ in 0..acks_before {
                match writer.next() {
                    Some(Said::Open(ms)) => open_ms_max = open_ms_max.max(ms),
                    Some(Said::Ack(feed, seq)) => {
                        acked.insert(feed, seq);
                        acks += 1;
                    }
                    other => panic!("cycle {cycle}, {job:?}: the writer said {other:?}"),
                }
            }
            pause(random.below(2000));
        }
        writer.kill(&mut acked);
        let store = kit::check_store(&job, &mut acked);
        if random.one_in(2) {
            store.engine().close().unwrap();
        }
    }
    println!(
        "crash {}: {count} kills, {acks} acknowledgements read, slowest opening {open_ms_max} ms",
        engine.name()
    );
    assert!(open_ms_max <= OPEN_MS_MAX, "an opening took {open_ms_max} ms");
}

/// Lets a moment pass: the moment of the kill, not a state that is waited for.
fn pause(micros: u64) {
    let until = Instant::now() + Duration::from_micros(micros);
    while Instant::now() < until {
        std::thread::yield_now();
    }
}
