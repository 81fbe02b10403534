//! Flipped bits and cut files: found when the store is opened or verified, or without any effect. Never served.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use feedlog_core::ids::{FeedId, Uid};
use feedlog_storage::conformance::{Author, Random};
use feedlog_storage::{EngineKind, OpenError, Record, Store};

use crate::kit;

const LARGE_BYTES: usize = 5000;

/// Everything that a store holds, as its readers see it.
type Contents = Vec<(FeedId, Vec<Record>)>;

fn contents(store: &Store) -> Result<Contents, String> {
    let engine = store.engine();
    let mut found = Vec::new();
    for feed in engine.feeds(None, 100).map_err(|error| error.to_string())? {
        let head = engine.head(&feed).map_err(|error| error.to_string())?.seq;
        let records = engine
            .records(&feed, feedlog_core::ids::SeqId(1), head, 100_000, 1 << 30)
            .map_err(|error| error.to_string())?;
        found.push((feed, records));
    }
    Ok(found)
}

fn fill(store: &Store, random: &mut Random, commits: u64) {
    let mut author = Author::new(store.engine());
    for _ in 0..commits {
        for _ in 0..=random.below(8) {
            let feed = kit::feed(random.below(4));
            author.open_feed(&feed, &Uid::parse("creator").unwrap()).unwrap();
            kit::send(&mut author, &feed, LARGE_BYTES).unwrap();
        }
        author.commit().unwrap();
    }
}

/// A store as a power cut leaves it a while after its last commit: files of the open store, with an exact tail guard.
fn crashed(engine: EngineKind, dir: &Path, random: &mut Random) -> (PathBuf, Contents) {
    let live = dir.join("live");
    let image = dir.join("image");
    let store = kit::open(&live, engine).unwrap();
    fill(&store, random, 20);
    store.engine().close().unwrap();
    drop(store);
    // Some in tables, the newest in the WAL only.
    let store = kit::open(&live, engine).unwrap();
    fill(&store, random, 20);
    let expected = contents(&store).unwrap();
    kit::copy_dir(&live, &image);
    store.engine().close().unwrap();
    std::fs::copy(live.join("TAIL"), image.join("TAIL")).unwrap();
    (image, expected)
}

/// A store that was closed.
fn closed(engine: EngineKind, dir: &Path, random: &mut Random) -> (PathBuf, Contents) {
    let image = dir.join("closed");
    let store = kit::open(&image, engine).unwrap();
    fill(&store, random, 40);
    let expected = contents(&store).unwrap();
    store.engine().close().unwrap();
    (image, expected)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    FoundAtOpen,
    FoundByVerify,
    NoEffect,
}

/// What becomes of a damaged store. Panics when something else than what was written is served.
fn outcome(dir: &Path, engine: EngineKind, expected: &Contents, what: &str) -> (Outcome, String) {
    let opened = catch_unwind(AssertUnwindSafe(|| kit::open(dir, engine)));
    let store = match opened {
        Ok(Ok(store)) => store,
        Ok(Err(error)) => return (Outcome::FoundAtOpen, error.to_string()),
        Err(_) => panic!("{what}: opening panicked"),
    };
    // Readers first, as they come before anybody verifies: what they get is right or an error.
    match contents(&store) {
        Ok(found) => {
            for (feed, records) in &found {
                let right = expected.iter().find(|(other, _)| other == feed).map(|(_, records)| records);
                let right = right.unwrap_or_else(|| panic!("{what}: feed {feed:?} was never written"));
                for (record, right) in records.iter().zip(right) {
                    assert!(record == right, "{what}: served {record:?} for {right:?}");
                }
            }
            let is_equal = found == *expected;
            match store.verify(&mut |_| {}) {
                Err(error) => (Outcome::FoundByVerify, error.to_string()),
                Ok(report) => match report.damage {
                    Some(damage) => (Outcome::FoundByVerify, damage.to_string()),
                    None => {
                        assert!(is_equal, "{what}: shorter, and verify is content");
                        (Outcome::NoEffect, String::new())
                    }
                },
            }
        }
        Err(error) => {
            let found = store.verify(&mut |_| {}).map_or(true, |report| report.damage.is_some());
            assert!(found, "{what}: reading fails ({error}) and verify is content");
            (Outcome::FoundByVerify, error)
        }
    }
}

#[test]
fn a_flipped_bit_is_found_or_dead() {
    let mut random = Random(kit::seed("flipped bits"));
    for engine in kit::engines() {
        for make in [crashed, closed] {
            let dir = tempfile::tempdir().unwrap();
            let (image, expected) = make(engine, dir.path(), &mut random);
            let state = image.file_name().unwrap().to_string_lossy().into_owned();
            // An untouched copy opens and is whole.
            let copy = dir.path().join("copy");
            kit::copy_dir(&image, &copy);
            let (untouched, error) = outcome(&copy, engine, &expected, "untouched");
            assert_eq!(untouched, Outcome::NoEffect, "{engine:?}: {error}");
            let files: Vec<_> = kit::files(&image).into_iter().filter(|(_, len)| *len > 0).collect();
            let mut tally = [0_u64; 3];
            for _ in 0..kit::setting("FEEDLOG_FLIPS", 80) {
                std::fs::remove_dir_all(&copy).unwrap();
                kit::copy_dir(&image, &copy);
                let (file, len) = &files[random.below(files.len() as u64) as usize];
                let name = file.strip_prefix(&image).unwrap();
                let mut bytes = std::fs::read(file).unwrap();
                // Files end with room that was never used: look where there is something.
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(*len, |at| at as u64 + 1);
                let (byte, bit) = (random.below(used), random.below(8));
                bytes[byte as usize] ^= 1 << bit;
                std::fs::write(copy.join(name), &bytes).unwrap();
                let what = format!("{} {state} {} byte {byte} bit {bit}", engine.name(), name.display());
                let (outcome, _) = outcome(&copy, engine, &expected, &what);
                tally[outcome as usize] += 1;
            }
            println!(
                "flipped bits, {} {state}: {} found at open, {} by verify, {} without effect",
                engine.name(),
                tally[0],
                tally[1],
                tally[2]
            );
        }
    }
}

/// The file that holds the newest commits.
fn log_file(image: &Path, engine: EngineKind) -> PathBuf {
    match engine {
        EngineKind::Sled => image.join("tables/db"),
        _ => kit::files(&image.join("tables"))
            .into_iter()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "log"))
            .max()
            .map(|(path, _)| path)
            .unwrap(),
    }
}

#[test]
fn a_log_cut_short_does_not_open() {
    let mut random = Random(kit::seed("cut log"));
    for engine in kit::engines() {
        let dir = tempfile::tempdir().unwrap();
        let (image, expected) = crashed(engine, dir.path(), &mut random);
        let log = log_file(&image, engine);
        let bytes = std::fs::read(&log).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        let copy = dir.path().join("copy");
        let (mut refused, mut whole, mut tail_lost) = (0, 0, 0);
        for round in 0..kit::setting("FEEDLOG_CUTS", 25) {
            kit::copy_dir(&image, &copy);
            let at = random.below(used);
            let mut damaged = bytes.clone();
            match round % 3 {
                0 => damaged.truncate(at as usize),
                1 => damaged[at as usize..].fill(0),
                _ => {
                    let end = (at as usize + 600).min(damaged.len());
                    damaged[at as usize..end].iter_mut().for_each(|byte| *byte = random.number() as u8);
                }
            }
            std::fs::write(copy.join(log.strip_prefix(&image).unwrap()), &damaged).unwrap();
            let what = format!("{} log cut at {at} of {used}, way {}", engine.name(), round % 3);
            match kit::open(&copy, engine) {
                Err(OpenError::TailLost { recovered, guarded }) => {
                    assert!(recovered < guarded, "{what}");
                    tail_lost += 1;
                    refused += 1;
                }
                Err(OpenError::Damaged(_) | OpenError::Engine(_)) => refused += 1,
                Err(error) => panic!("{what}: {error}"),
                Ok(store) => {
                    drop(store);
                    let (outcome, _) = outcome(&copy, engine, &expected, &what);
                    whole += u64::from(outcome == Outcome::NoEffect);
                    refused += u64::from(outcome != Outcome::NoEffect);
                }
            }
            std::fs::remove_dir_all(&copy).unwrap();
        }
        println!(
            "cut log, {}: {refused} found ({tail_lost} by the tail guard), {whole} had lost nothing",
            engine.name()
        );
        assert!(tail_lost > 0, "the tail guard was never needed");
    }
}
