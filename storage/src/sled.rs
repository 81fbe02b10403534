//! Tables in sled 0.34.7: the pure Rust engine.
//!
//! What sled leaves to us:
//! - **Durability.** `Tree::flush` only calls `sync_file_range`, which writes no metadata and does not empty the disk's
//!   cache. So every write ends with our own fdatasync of the one file that holds the log and the pages.
//! - **Durable before visible.** A batch is seen as soon as it is applied, before it is synced. So the old values of its
//!   keys are put into a *shadow* first; readers take the shadow's word until the sync is over. When it fails the
//!   shadow stays.
//! - **Atomic over tables.** Only a batch of one tree is recovered as a whole, so all tables share one tree, with the
//!   table's number before each key.
//! - **Blobs.** Pages above a quarter of a segment become files beside the log which sled does not sync, and recovery
//!   skips a page whose file is missing. So no value above [`INLINE_BYTES_MAX`] is handed to sled: larger ones are cut
//!   into pieces, and no page grows that large.
//! - **Full disks.** After one failed write sled fails reads as well. So room for a batch is allocated in the file
//!   before the batch begins; where there is none the batch is refused and nothing has happened.
//! - **Panics.** sled asserts things about its files. A panic inside it is caught and becomes `Damaged`.

mod disk;
mod scan;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use ::sled::{Db, IVec};
use bytes::Bytes;

use self::disk::{DB, Room, mark_unsynced, rewrite_unsynced, sync_all_files};
use crate::Direction;
use crate::kv::{Batch, Kv, KvError, KvOptions, Op, Table, Visit};

/// Largest value kept beside its key. A leaf splits above 16 items, so a page stays below 17 × (this + the longest
/// key), well under the 128 KiB (a quarter of the default segment) from which sled makes blobs.
const INLINE_BYTES_MAX: usize = 4096;
/// Set in the table's number for the pieces of large values.
const PIECES: u8 = 0x80;
/// First byte of a value that follows inline.
const INLINE: u8 = 0;
/// First byte of a value in pieces; its length (u32 BE) follows.
const CUT: u8 = 1;
/// A batch of a backup.
const BACKUP_BATCH_BYTES: usize = 1 << 20;
/// How long to wait for the file lock: sled's own threads keep the file for a moment after a store is dropped.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Values by physical key, `None` for an absent one.
type Overlay = BTreeMap<Vec<u8>, Option<IVec>>;

/// Tables in one sled tree.
pub(crate) struct Sled {
    db: Db,
    /// The file of `db`, for the sync that sled does not do. An fdatasync works on the file, whoever wrote to it.
    file: File,
    dir: PathBuf,
    /// The old values of the batch that is being written, or whose write failed.
    shadow: RwLock<Overlay>,
    /// The old values of everything written since, for each scan that goes on. Locked inside `shadow` only.
    views: Mutex<Vec<Arc<Mutex<Overlay>>>>,
    /// A write failed: nothing more is written.
    failed: AtomicBool,
    room: Mutex<Room>,
}

impl Sled {
    /// Opens the store in the existing directory `dir`, creating what is missing.
    pub(crate) fn open(dir: &Path, options: &KvOptions) -> Result<Self, KvError> {
        rewrite_unsynced(dir).map_err(|error| io("write again what was not synced", &error))?;
        let config =
            ::sled::Config::new().path(dir).cache_capacity(options.cache_bytes as u64).flush_every_ms(None); // we flush, each time
        let deadline = Instant::now() + LOCK_WAIT;
        let db = loop {
            match caught(|| config.open().map_err(|error| reading(&error))) {
                Err(error) if is_locked(&error) && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(KvError::Refused(text)) if text.contains("Unsupported") => {
                    return Err(KvError::Damaged(text)); // its settings file is not what it wrote
                }
                outcome => break outcome?,
            }
        };
        // Recovery may have found what a crash left in the page cache only, and what it shows from now on must last.
        sync_all_files(dir).map_err(|error| io("sync the store", &error))?;
        let file = File::options()
            .read(true)
            .write(true)
            .open(dir.join(DB))
            .map_err(|error| io("open the file of the store", &error))?;
        Ok(Self {
            db,
            file,
            dir: dir.to_owned(),
            shadow: RwLock::default(),
            views: Mutex::default(),
            failed: AtomicBool::new(false),
            room: Mutex::default(),
        })
    }

    fn shadow(&self) -> RwLockReadGuard<'_, Overlay> {
        self.shadow.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn shadow_mut(&self) -> RwLockWriteGuard<'_, Overlay> {
        self.shadow.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn views(&self) -> MutexGuard<'_, Vec<Arc<Mutex<Overlay>>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the batch does to the tree, large values in pieces.
    fn physical(&self, batch: &Batch) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>, KvError> {
        let mut logical: BTreeMap<(Table, &[u8]), Option<&Bytes>> = BTreeMap::new();
        let mut found: Vec<(Table, Vec<u8>)> = Vec::new(); // keys of the tree within a deleted range
        let mut ranged: Vec<(usize, usize)> = Vec::new();
        for op in batch.ops() {
            if let Op::DeleteRange(table, from, to) = op {
                let start = found.len();
                for item in self.db.range(prefixed(*table as u8, from)..prefixed(*table as u8, to)) {
                    found.push((*table, item.map_err(|error| reading(&error))?.0[1..].to_vec()));
                }
                ranged.push((start, found.len()));
            }
        }
        let mut ranged = ranged.into_iter();
        for op in batch.ops() {
            match op {
                Op::Put(table, key, value) => {
                    logical.insert((*table, key), Some(value));
                }
                Op::Delete(table, key) => {
                    logical.insert((*table, key), None);
                }
                Op::DeleteRange(table, from, to) => {
                    let within = (*table, from.as_slice())..(*table, to.as_slice());
                    if from < to {
                        logical.range_mut(within).for_each(|(_, value)| *value = None);
                    }
                    let (start, end) = ranged.next().expect("one entry per deleted range");
                    for (table, key) in &found[start..end] {
                        logical.insert((*table, key), None);
                    }
                }
            }
        }
        let mut physical = BTreeMap::new();
        for ((table, key), value) in logical {
            let at = prefixed(table as u8, key);
            if let Some(old) = self.db.get(&at).map_err(|error| reading(&error))? {
                for piece in 0..pieces_of(&old)? {
                    physical.insert(piece_key(table, key, piece), None);
                }
            }
            match value {
                None => {
                    physical.insert(at, None);
                }
                Some(value) if value.len() <= INLINE_BYTES_MAX => {
                    physical.insert(at, Some(prefixed(INLINE, value)));
                }
                Some(value) => {
                    let length = u32::try_from(value.len())
                        .map_err(|_| KvError::Refused(Arc::from("a value is larger than 4 GiB")))?;
                    physical.insert(at, Some(prefixed(CUT, &length.to_be_bytes())));
                    for (piece, bytes) in (0..).zip(value.chunks(INLINE_BYTES_MAX)) {
                        physical.insert(piece_key(table, key, piece), Some(bytes.to_vec()));
                    }
                }
            }
        }
        Ok(physical)
    }

    /// Applies what is already shadowed, and syncs it.
    fn apply(&self, physical: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Result<(), KvError> {
        let mut batch = ::sled::Batch::default();
        for (key, value) in physical {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(|error| writing(&error))?;
        self.db.flush().map_err(|error| writing(&error))?;
        self.file.sync_data().map_err(|error| {
            let text = Arc::from(format!("fdatasync: {error}"));
            match error.kind() {
                std::io::ErrorKind::StorageFull => KvError::Full(text),
                _ => KvError::Unknown(text),
            }
        })
    }

    /// The value of a physical key, where `overlay` has the last word.
    fn peek(&self, overlay: &Overlay, key: &[u8]) -> Result<Option<IVec>, KvError> {
        match overlay.get(key) {
            Some(old) => Ok(old.clone()),
            None => self.db.get(key).map_err(|error| reading(&error)),
        }
    }

    /// A value as it was put, given what its key holds.
    fn assemble(&self, overlay: &Overlay, table: Table, key: &[u8], held: &[u8]) -> Result<Bytes, KvError> {
        let pieces = pieces_of(held)?;
        if pieces == 0 {
            return Ok(Bytes::copy_from_slice(&held[1..]));
        }
        let mut value = Vec::with_capacity(pieces as usize * INLINE_BYTES_MAX);
        for piece in 0..pieces {
            match self.peek(overlay, &piece_key(table, key, piece))? {
                Some(bytes) => value.extend_from_slice(&bytes),
                None => return Err(KvError::Damaged(Arc::from("a piece of a large value is missing"))),
            }
        }
        if value.len() != cut_length(held)? {
            return Err(KvError::Damaged(Arc::from("the pieces of a large value have another length")));
        }
        Ok(Bytes::from(value))
    }
}

impl Kv for Sled {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(KvError::Unknown(Arc::from("an earlier write failed")));
        }
        lock(&self.room).make(&self.file, batch)?;
        // Until the shadow is there nothing has changed, and a failure is a refusal.
        let (physical, old) = caught(|| {
            let physical = self.physical(batch)?;
            let mut old = Overlay::new();
            for key in physical.keys() {
                old.insert(key.clone(), self.db.get(key).map_err(|error| reading(&error))?);
            }
            Ok((physical, old))
        })?;
        {
            let mut shadow = self.shadow_mut();
            for view in self.views().iter() {
                let mut past = lock(view);
                for (key, value) in &old {
                    past.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
            *shadow = old;
        }
        match catch_unwind(AssertUnwindSafe(|| self.apply(physical))) {
            Ok(Ok(())) => {
                // Durable: from here on readers see the batch.
                let old = std::mem::take(&mut *self.shadow_mut());
                drop(old);
                Ok(())
            }
            failure => {
                self.failed.store(true, Ordering::Release);
                mark_unsynced(&self.dir);
                Err(match failure {
                    Ok(Err(error)) => error,
                    _ => KvError::Unknown(Arc::from("sled panicked")),
                })
            }
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        caught(|| {
            let shadow = self.shadow();
            match self.peek(&shadow, &prefixed(table as u8, key))? {
                Some(held) => self.assemble(&shadow, table, key, &held).map(Some),
                None => Ok(None),
            }
        })
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), KvError> {
        if from >= to {
            return Ok(());
        }
        let range =
            (Bound::Included(prefixed(table as u8, from)), Bound::Excluded(prefixed(table as u8, to)));
        self.walk(
            range,
            direction,
            |overlay, key, held| self.assemble(overlay, table, &key[1..], held),
            |key, value| visit(&key[1..], value),
        )
    }

    fn backup(&self, dir: &Path) -> Result<(), KvError> {
        // sled cannot copy itself while it is written to, so the copy is a new store with the same keys. Writes go on;
        // what they replace is remembered until the copy is complete.
        fs::create_dir(dir).map_err(|error| io("create the copy", &error))?;
        let copy = Self::open(dir, &KvOptions { cache_bytes: 8 << 20 })?;
        let mut pending = BTreeMap::new();
        let mut bytes = 0;
        let mut outcome = Ok(());
        self.walk_everything(|key, value| {
            bytes += key.len() + value.len();
            pending.insert(key.to_vec(), Some(value.to_vec()));
            if bytes >= BACKUP_BATCH_BYTES {
                bytes = 0;
                outcome = caught(|| copy.apply(std::mem::take(&mut pending)));
            }
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome.and_then(|()| caught(|| copy.apply(pending)))?;
        drop(copy);
        sync_all_files(dir)
            .and_then(|()| File::open(dir.parent().unwrap_or(dir))?.sync_all())
            .map_err(|error| io("sync the copy", &error))
    }

    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<(), KvError> {
        const REPORT_EVERY_BYTES: u64 = 1 << 20;
        let (mut bytes, mut reported) = (0, 0);
        // Each page and message has a checksum that sled compares when it loads it. What it has in its cache it does not
        // load again, so this is complete right after opening only.
        self.walk_everything(|key, value| {
            bytes += (key.len() + value.len()) as u64;
            if bytes - reported >= REPORT_EVERY_BYTES {
                progress(bytes);
                reported = bytes;
            }
            ControlFlow::Continue(())
        })?;
        for table in Table::ALL {
            // Again as values, so that a lost piece is found.
            self.scan(table, &[], &[0xff; 600], Direction::Forward, &mut |_, _| ControlFlow::Continue(()))?;
        }
        progress(bytes);
        Ok(())
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let size = self.db.size_on_disk().unwrap_or(0);
        let shadow = self.views().iter().map(|view| lock(view).len() as u64).sum();
        vec![("live_file_bytes", size), ("scan_overlay_keys", shadow)]
    }

    fn close(&self) -> Result<(), KvError> {
        if self.failed.load(Ordering::Acquire) {
            return Ok(()); // What was answered with Ok is on the disk.
        }
        caught(|| {
            self.db.flush().map_err(|error| reading(&error))?;
            self.file.sync_all().map_err(|error| io("sync the store", &error))
        })
    }
}

/// Runs sled code; a panic becomes `Damaged`.
fn caught<T>(run: impl FnOnce() -> Result<T, KvError>) -> Result<T, KvError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(KvError::Damaged(Arc::from(format!("sled panicked: {text}"))))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prefixed(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + rest.len());
    bytes.push(first);
    bytes.extend_from_slice(rest);
    bytes
}

/// Where a piece of a large value lies. The fixed length of the number keeps pieces of different keys apart.
fn piece_key(table: Table, key: &[u8], piece: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + key.len());
    bytes.push(table as u8 | PIECES);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&piece.to_be_bytes());
    bytes
}

/// In how many pieces a value is, 0 when it is inline.
fn pieces_of(held: &[u8]) -> Result<u32, KvError> {
    match held.first() {
        Some(&INLINE) => Ok(0),
        _ => Ok(cut_length(held)?.div_ceil(INLINE_BYTES_MAX) as u32),
    }
}

fn cut_length(held: &[u8]) -> Result<usize, KvError> {
    match held {
        [CUT, length @ ..] if length.len() == 4 => {
            Ok(length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
        }
        _ => Err(KvError::Damaged(Arc::from("a value has neither an inline nor a cut form"))),
    }
}

fn is_locked(error: &KvError) -> bool {
    matches!(error, KvError::Refused(text) if text.contains("could not acquire lock"))
}

fn is_full(error: &::sled::Error) -> bool {
    // Errors of sled's writing threads are copied as text: the kind stays, the number does not.
    matches!(error, ::sled::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull)
}

/// A write failed after it began: it may be recovered.
fn writing(error: &::sled::Error) -> KvError {
    let text = Arc::from(error.to_string());
    if is_full(error) { KvError::Full(text) } else { KvError::Unknown(text) }
}

fn reading(error: &::sled::Error) -> KvError {
    let text = error.to_string();
    match error {
        ::sled::Error::Corruption { .. } | ::sled::Error::ReportableBug(_) => {
            KvError::Damaged(Arc::from(text))
        }
        ::sled::Error::Unsupported(_) => KvError::Refused(Arc::from(format!("Unsupported: {text}"))),
        _ if is_full(error) => KvError::Full(Arc::from(text)),
        _ => KvError::Refused(Arc::from(text)),
    }
}

fn io(what: &str, error: &std::io::Error) -> KvError {
    let text = Arc::from(format!("{what}: {error}"));
    match error.kind() {
        std::io::ErrorKind::StorageFull => KvError::Full(text),
        _ => KvError::Refused(text),
    }
}

#[cfg(test)]
mod tests;
