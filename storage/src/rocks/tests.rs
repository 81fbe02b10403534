use std::io::Write;
use std::time::{Duration, Instant};

use super::*;

/// One flipped bit in the type of a record must end the opening, not keep it busy for ever.
#[test]
fn a_manifest_with_a_flipped_type_is_damage_and_not_an_endless_loop() {
    let dir = tempfile::tempdir().unwrap();
    let options = KvOptions { cache_bytes: 1 << 20 };
    drop(Rocks::open(dir.path(), &options).unwrap());
    let current = fs::read_to_string(dir.path().join("CURRENT")).unwrap();
    let path = dir.path().join(current.trim_end());
    let sound = fs::read(&path).unwrap();
    let places: Vec<_> = manifest::types(&sound).map(|(at, _)| at).collect();
    assert!(places.len() > 1, "a manifest has more than one record");
    for at in places {
        for bit in 0..8 {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << bit;
            fs::write(&path, &damaged).unwrap();
            assert!(Rocks::open(dir.path(), &options).is_err(), "bit {bit} of byte {at}");
        }
    }
    fs::write(&path, &sound).unwrap();
    Rocks::open(dir.path(), &options).unwrap();
}

#[test]
fn rocksdb_is_a_kv() {
    crate::kv_suite::suite(Rocks::open);
}

#[test]
fn a_store_without_its_current_file_does_not_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    let kv = Rocks::open(dir.path(), &KvOptions { cache_bytes: 1 << 20 }).unwrap();
    let mut batch = Batch::default();
    batch.put(Table::Meta, vec![1], vec![2]);
    kv.write(&batch).unwrap();
    kv.close().unwrap();
    drop(kv);
    fs::remove_file(dir.path().join("CURRENT")).unwrap();
    let opened = Rocks::open(dir.path(), &KvOptions { cache_bytes: 1 << 20 });
    assert!(matches!(opened.map(|_| ()), Err(KvError::Damaged(_))));
}

/// The options that only help when RocksDB keeps them; it changes some silently, and says so in its OPTIONS file.
#[test]
fn options_are_kept_as_set() {
    let dir = tempfile::tempdir().unwrap();
    let kv = Rocks::open(dir.path(), &KvOptions { cache_bytes: 1 << 20 }).unwrap();
    let written = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("OPTIONS-")))
        .max()
        .unwrap();
    let text = fs::read_to_string(written).unwrap();
    for line in [
        "recycle_log_file_num=3",
        "wal_recovery_mode=kPointInTimeRecovery",
        "WAL_ttl_seconds=0",
        "WAL_size_limit_MB=0",
        "atomic_flush=true",
        "avoid_flush_during_recovery=false",
        "paranoid_checks=true",
        "prefix_extractor=rocksdb.FixedPrefix.8",
    ] {
        assert!(text.contains(line), "{line} is not in force");
    }
    drop(kv);
}

/// How fast are durable batches beside the bare disk, what do the options contribute, and how long is the opening after
/// a crash? `cargo test --release -p feedlog-storage --features rocksdb --lib -- --ignored --nocapture group_commit`
///
/// Back of an envelope: a batch of 64 × 450 bytes is 29 kB; an fdatasync on the disk at hand is 150 µs to 300 µs, so the
/// bare log makes 64 / 0.25 ms = 250 k/s, and RocksDB spends 1 µs per key beside it.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn group_commit() {
    const BATCH: u64 = 64;
    const TIME: Duration = Duration::from_secs(3);
    let place = std::env::var_os("MEASURE_DIR").unwrap_or("/tmp".into());
    let entry_value = |n: u64| -> Vec<u8> {
        let mut random = n;
        (0..300)
            .map(|at| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if at < 100 { (random >> 33) as u8 } else { b'a' + ((random >> 33) % 16) as u8 }
            })
            .collect()
    };
    let bare = || {
        let dir = tempfile::tempdir_in(&place).unwrap();
        let mut file =
            File::options().create(true).truncate(false).write(true).open(dir.path().join("log")).unwrap();
        file.write_all(&vec![0; 256 << 20]).unwrap();
        file.sync_all().unwrap();
        let (begin, mut commits, mut at) = (Instant::now(), 0, 0);
        while begin.elapsed() < TIME {
            let mut bytes = Vec::new();
            for n in 0..BATCH {
                bytes.extend_from_slice(&entry_value(n));
                bytes.extend_from_slice(&[7; 150]);
            }
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, at).unwrap();
            at = (at + bytes.len() as u64) % (255 << 20);
            file.sync_data().unwrap();
            commits += 1;
        }
        commits as f64 * BATCH as f64 / begin.elapsed().as_secs_f64()
    };
    let rocks = |name: &str, change: &dyn Fn(&mut Options)| {
        let dir = tempfile::tempdir_in(&place).unwrap();
        let shared = Shared::new(&KvOptions { cache_bytes: 64 << 20 });
        let (mut db, families) = (shared.db(), shared.families());
        change(&mut db);
        let kv = Rocks::open_with(dir.path(), shared, &db, families).unwrap();
        let (begin, mut n, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
        while begin.elapsed() < TIME {
            let mut batch = Batch::default();
            for _ in 0..BATCH {
                n += 1;
                let feed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10_000;
                let entry = [feed.to_be_bytes(), n.to_be_bytes()].concat();
                let mut row = feed.to_be_bytes().to_vec();
                batch.put(Table::Entries, entry, entry_value(n));
                row.extend_from_slice(b"\x08user-name\0");
                batch.put(Table::Rows, row.clone(), vec![3; 40]);
                row.extend_from_slice(&n.to_be_bytes());
                batch.put(Table::Rows, row, vec![4; 8]);
            }
            let one = Instant::now();
            kv.write(&batch).unwrap();
            slowest = slowest.max(one.elapsed());
        }
        let speed = n as f64 / begin.elapsed().as_secs_f64();
        // As kill -9 leaves it: dropped without a flush.
        drop(kv);
        let begin = Instant::now();
        let kv = Rocks::open(dir.path(), &KvOptions { cache_bytes: 64 << 20 }).unwrap();
        println!(
            "{name}: {speed:.0} appends/s, slowest batch {} ms, opening after a crash {} ms, {:?}",
            slowest.as_millis(),
            begin.elapsed().as_millis(),
            kv.stats()
        );
        speed
    };
    for round in 0..3 {
        let limit = bare();
        println!("round {round}: bare log {limit:.0} appends/s");
        let ours = rocks("as set", &|_| ());
        println!("  {:.2} of the bare log", ours / limit);
        rocks("without recycling", &|db| db.set_recycle_log_file_num(0));
        rocks("without atomic flush", &|db| db.set_atomic_flush(false));
        rocks("WAL up to 256 MB", &|db| db.set_max_total_wal_size(256 << 20));
    }
}

/// What do block size, compression and dictionary cost a pull, and what do they save on disk?
/// `cargo test --release -p feedlog-storage --features rocksdb --lib -- --ignored --nocapture pulls`
///
/// Back of an envelope: 50 entries of 300 bytes are one block of 16 KiB; zstd gives 1 GB/s, so 16 µs, lz4 a third.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn pulls() {
    use self::options::Tuning;
    use rocksdb::DBCompressionType::{Lz4hc, Zstd};

    const FEEDS: u64 = 10_000;
    const ENTRIES: u64 = 500_000;
    const PULLS: u64 = 20_000;
    const WORDS: &str = "the of and to in is you that it he was for on are as with his they at be this have from or one \
        had by word but not what all were we when your can said there use an each which she do how their if will up other \
        about out many then them these so some her would make like him into time has look two more write go see number";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut state = 1_u64;
    let mut random = move |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    // Nanoseconds that this thread ran: other work on the machine does not count.
    let cpu_ns = || -> u64 {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    let place = std::env::var_os("MEASURE_DIR").unwrap_or("/tmp".into());
    let base = Tuning::default();
    for (name, tuning) in [
        ("as set", base),
        ("8 KiB blocks", Tuning { block_bytes: 8 << 10, ..base }),
        ("lz4, dictionary", Tuning { dictionary_bytes: 16 << 10, ..base }),
        ("lz4hc 4", Tuning { last_level: Lz4hc, level: 4, ..base }),
        ("lz4hc 9, dictionary", Tuning { last_level: Lz4hc, level: 9, dictionary_bytes: 16 << 10, ..base }),
        ("zstd", Tuning { last_level: Zstd, level: 3, ..base }),
        ("zstd, dictionary", Tuning { last_level: Zstd, level: 3, dictionary_bytes: 16 << 10, ..base }),
    ] {
        let dir = tempfile::tempdir_in(&place).unwrap();
        let mut shared = Shared::new(&KvOptions { cache_bytes: 64 << 20 });
        shared.tuning = tuning;
        let (db, families) = (shared.db(), shared.families());
        let kv = Rocks::open_with(dir.path(), shared, &db, families).unwrap();
        let mut n = 0;
        while n < ENTRIES {
            let mut batch = Batch::default();
            for _ in 0..1000 {
                n += 1;
                let feed = random(FEEDS);
                // Like a record: a header, a hash that nothing compresses, text.
                let mut value =
                    format!("\u{1}\u{2}{:020}user-{feed:06}application/json m{n:012}", n * 1000).into_bytes();
                for _ in 0..4 {
                    value.extend_from_slice(&(random(1 << 31) << 33 ^ random(1 << 31) << 8).to_le_bytes());
                }
                let full = value.len() + 200;
                while value.len() < full {
                    value.extend_from_slice(words[random(words.len() as u64) as usize].as_bytes());
                    value.push(b' ');
                }
                batch.put(Table::Entries, [feed.to_be_bytes(), n.to_be_bytes()].concat(), value);
            }
            kv.write(&batch).unwrap();
        }
        let compacting = Instant::now();
        kv.compact().unwrap();
        let compacting = compacting.elapsed().as_secs_f64();
        let bytes = kv.stats().iter().find(|(name, _)| *name == "live_file_bytes").unwrap().1;
        let begin = cpu_ns();
        let mut seen = 0;
        for _ in 0..PULLS {
            let feed = random(FEEDS).to_be_bytes();
            let mut count = 0;
            kv.scan(
                Table::Entries,
                &[feed, [0; 8]].concat(),
                &[feed, [0xff; 8]].concat(),
                Direction::Backward,
                &mut |_, value| {
                    seen += value.len();
                    count += 1;
                    if count == 50 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                },
            )
            .unwrap();
        }
        let micros = (cpu_ns() - begin) as f64 / 1000.0 / PULLS as f64;
        println!(
            "{name}: {micros:.1} µs of processor per pull of 50, {} bytes on disk per entry of {} bytes, compacted in \
             {compacting:.1} s",
            bytes / ENTRIES,
            seen as u64 / PULLS / 48
        );
    }
}
