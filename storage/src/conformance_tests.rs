//! The suite on every engine that is compiled in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::faulty::{FaultyDisk, options_in};
use crate::{OpenError, Store, conformance};

/// Disks by directory, so that a second opening finds what the first left.
fn in_memory() -> impl Fn(&Path) -> Result<Store, OpenError> {
    let disks: Mutex<HashMap<PathBuf, FaultyDisk>> = Mutex::default();
    move |dir| {
        let disk = disks.lock().unwrap().entry(dir.to_owned()).or_default().clone();
        disk.open(&options_in(dir))
    }
}

#[test]
fn memory() {
    conformance::suite(&in_memory());
}

#[test]
fn memory_random() {
    for seed in 0..4 {
        conformance::random(&in_memory(), seed, 1500);
    }
}

#[cfg(any(feature = "rocksdb", feature = "sled"))]
mod on_disk {
    use super::*;
    use crate::{EngineKind, OpenOptions, Upcasters};

    fn engine(engine: EngineKind) -> impl Fn(&Path) -> Result<Store, OpenError> {
        move |dir| crate::open(&OpenOptions { engine, ..options_in(dir) }, Upcasters::default())
    }

    #[cfg(feature = "rocksdb")]
    #[test]
    fn rocksdb() {
        conformance::suite(&engine(EngineKind::RocksDb));
    }

    #[cfg(feature = "rocksdb")]
    #[test]
    fn rocksdb_random() {
        conformance::random(&engine(EngineKind::RocksDb), 1, 1500);
    }

    #[cfg(feature = "sled")]
    #[test]
    fn sled() {
        conformance::suite(&engine(EngineKind::Sled));
    }

    #[cfg(feature = "sled")]
    #[test]
    fn sled_random() {
        conformance::random(&engine(EngineKind::Sled), 1, 600);
    }
}
