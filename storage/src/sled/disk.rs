//! The files of sled as we treat them: room before it is needed, syncs that last.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::io;
use crate::kv::{Batch, KvError};

/// Room allocated beyond the end of the file at a time.
const ROOM_BYTES: u64 = 1 << 20;
/// What sled may write for a batch besides its bytes: headers, pages that it rewrites on the way.
const ROOM_FACTOR: u64 = 4;
const ROOM_PER_KEY_BYTES: u64 = 1024;

/// The file that holds everything.
pub(super) const DB: &str = "db";
/// Left behind by a failed sync: what the kernel still shows of [`DB`] may not be on the disk.
const UNSYNCED: &str = "unsynced";

/// How far the file has blocks of its own.
#[derive(Default)]
pub(super) struct Room {
    /// Length of the file when that was found.
    seen_length: u64,
    upto: u64,
}

impl Room {
    /// Allocates blocks for a batch, beyond the end of the file. Nothing has happened when it fails.
    pub(super) fn make(&mut self, file: &File, batch: &Batch) -> Result<(), KvError> {
        let length = file.metadata().map_err(|error| io("look at the file of the store", &error))?.len();
        let need =
            ROOM_BYTES + ROOM_FACTOR * batch.bytes() as u64 + ROOM_PER_KEY_BYTES * batch.ops().len() as u64;
        // sled may cut the file when its last segments are free, and the room goes with them.
        let was_cut = length < self.seen_length;
        self.seen_length = length;
        if !was_cut && length + need <= self.upto {
            return Ok(());
        }
        let upto = length + need + ROOM_BYTES;
        match fallocate(file, FallocateFlags::KEEP_SIZE, length, upto - length) {
            Ok(()) => self.upto = upto,
            Err(Errno::OPNOTSUPP) => {} // this file system finds out when it writes
            Err(error) => {
                let text = format!("no room for a batch of {} bytes: {error}", batch.bytes());
                return Err(KvError::Refused(Arc::from(text)));
            }
        }
        Ok(())
    }
}

/// Notes for the next opening that a sync failed.
pub(super) fn mark_unsynced(dir: &Path) {
    // A disk that takes no more may not take this either; then only a restart of the machine tells the truth.
    let marked = File::create(dir.join(UNSYNCED)).and_then(|_| File::open(dir)?.sync_all());
    if let Err(error) = marked {
        tracing::warn!(%error, "a failed sync could not be noted");
    }
}

/// After a failed sync the kernel may keep pages as clean that never reached the disk, and syncing again does nothing.
/// Only bytes that are written again are sure to be there before anybody relies on them.
pub(super) fn rewrite_unsynced(dir: &Path) -> std::io::Result<()> {
    let (db, new, mark) = (dir.join(DB), dir.join("db.new"), dir.join(UNSYNCED));
    if !mark.exists() {
        return Ok(());
    }
    fs::copy(&db, &new)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, &db)?;
    File::open(dir)?.sync_all()?;
    fs::remove_file(&mark)?;
    File::open(dir)?.sync_all()
}

/// Everything below a directory, and the names in it.
pub(super) fn sync_all_files(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all_files(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}
