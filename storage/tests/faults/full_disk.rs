//! A disk of 8 MB that fills up.

use std::path::Path;
use std::process::Command;

use feedlog_core::ids::Uid;
use feedlog_storage::conformance::{Author, Random};
use feedlog_storage::{EngineError, EngineKind, OpenOptions, Store, Upcasters};

use crate::kit::{self, Acked, Job};

/// A small file system, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, where mounting is not permitted.
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", dir.path().to_str()?])
            .map_err(|reason| println!("skipped: no tmpfs can be mounted here: {reason}"))
            .ok()?;
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn grow(&self, size: &str) {
        let path = self.path().to_str().unwrap();
        run("mount", &["-o", &format!("remount,size={size}"), path]).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A test that failed may still hold files open.
        let _ = run("umount", &["-l", self.path().to_str().unwrap_or_default()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn open(dir: &Path, engine: EngineKind, free_min_bytes: u64) -> Store {
    let options = OpenOptions { free_min_bytes, ..kit::options(dir, engine) };
    feedlog_storage::open(&options, Upcasters::default()).unwrap()
}

/// Sends until a commit fails; notes what was acknowledged.
fn fill(store: &Store, random: &mut Random, acked: &mut Acked) -> EngineError {
    let mut author = Author::new(store.engine());
    let creator = Uid::parse("creator").unwrap();
    loop {
        let written = (|| {
            for _ in 0..=random.below(16) {
                let feed = kit::feed(random.below(8));
                author.open_feed(&feed, &creator)?;
                kit::send(&mut author, &feed, LARGE_BYTES)?;
            }
            author.commit()
        })();
        match written {
            Ok((entries, _)) => {
                for entry in entries {
                    let number = entry.feed.as_str()["feed-".len()..].parse().unwrap();
                    acked.insert(number, entry.seq.0);
                }
            }
            Err(error) => return error,
        }
    }
}

const LARGE_BYTES: usize = 20_000;

#[test]
fn the_reserve_refuses_before_the_engine_meets_a_full_disk() {
    let mut random = Random(kit::seed("reserve"));
    for engine in kit::engines() {
        let Some(disk) = SmallDisk::mount("8m") else { return };
        let job = Job { dir: disk.path().join("store"), engine, seed: 0, large_bytes: LARGE_BYTES };
        let store = open(&job.dir, engine, 2 << 20);
        let mut acked = Acked::new();
        let error = fill(&store, &mut random, &mut acked);
        assert!(matches!(error, EngineError::NoSpace), "{engine:?}: {error}");
        assert!(!store.engine().is_poisoned());
        for (number, seq) in &acked {
            let found = kit::check_feed(&*store.engine(), &kit::feed(*number), LARGE_BYTES).unwrap();
            assert_eq!(found, *seq, "{engine:?}");
        }
        // With room again the same store goes on.
        disk.grow("64m");
        let before = acked.clone();
        let mut author = Author::new(store.engine());
        // The free space is asked for again at the latest after a quarter of a second.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        loop {
            kit::send(&mut author, &kit::feed(0), LARGE_BYTES).unwrap();
            match author.commit() {
                Ok(_) => break,
                Err(EngineError::NoSpace) if std::time::Instant::now() < until => {
                    author = Author::new(store.engine());
                }
                Err(error) => panic!("{engine:?}: {error}"),
            }
        }
        store.engine().close().unwrap();
        drop(store);
        acked = before;
        kit::check_store(&job, &mut acked).engine().close().unwrap();
        println!("reserve {}: {} entries fitted", engine.name(), acked.values().sum::<u64>());
    }
}

#[test]
fn a_full_disk_that_the_engine_meets_loses_nothing() {
    let mut random = Random(kit::seed("full disk"));
    for engine in kit::engines() {
        for round in 0..kit::setting("FEEDLOG_FULL_CYCLES", 4) {
            let Some(disk) = SmallDisk::mount("8m") else { return };
            let job = Job { dir: disk.path().join("store"), engine, seed: 0, large_bytes: LARGE_BYTES };
            let store = open(&job.dir, engine, 0);
            let mut acked = Acked::new();
            let error = fill(&store, &mut random, &mut acked);
            match engine {
                // sled cannot read on after it met a full disk, so room is taken before it is needed.
                EngineKind::Sled => {
                    assert!(matches!(error, EngineError::Refused(_)), "{engine:?}: {error}");
                    for (number, seq) in &acked {
                        let found = kit::check_feed(&*store.engine(), &kit::feed(*number), LARGE_BYTES);
                        assert_eq!(found.as_ref(), Ok(seq), "{engine:?}");
                    }
                }
                _ => {
                    assert!(matches!(error, EngineError::Unknown(_)), "{engine:?}: {error}");
                    kit::still_reads(&*store.engine(), &acked, LARGE_BYTES)
                        .unwrap_or_else(|what| panic!("{engine:?}: {what}"));
                }
            }
            disk.grow("64m");
            if round % 2 == 0 {
                // As the service does it.
                store.engine().reopen().unwrap_or_else(|error| panic!("{engine:?}: {error}"));
                assert!(!store.engine().is_poisoned());
                let mut author = Author::new(store.engine());
                kit::send(&mut author, &kit::feed(0), LARGE_BYTES).unwrap();
                let (entries, _) = author.commit().unwrap();
                // The batch that met the full disk may be there as well.
                acked.insert(0, entries[0].seq.0);
                store.engine().close().unwrap();
            }
            drop(store);
            kit::check_store(&job, &mut acked).engine().close().unwrap();
            println!("full disk {}: {} entries fitted", engine.name(), acked.values().sum::<u64>());
        }
    }
}
