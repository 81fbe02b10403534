//! Tables in RocksDB: the default engine.
//!
//! Why a batch is durable before anybody sees it: with `sync`, RocksDB appends the batch to its WAL, calls fdatasync,
//! and only then inserts it into the memtables and publishes its sequence number. A failed append or sync inserts
//! nothing.

mod manifest;
mod options;

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, ErrorKind, FlushOptions, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use crate::Direction;
use crate::kv::{Batch, Kv, KvError, KvOptions, Op, Table, Visit};

use self::options::{EXTRA_CHECK_CACHE_BYTES, PREFIX_BYTES, Shared};

/// The directory inside the store where [`Kv::check`] puts hard links for as long as it reads them.
const CHECK_DIR: &str = "check.tmp";
/// A key of the default column family, which holds nothing else: proves that a copy has the newest state.
const CHECK_MARK: &[u8] = b"check";

/// Tables as column families of one RocksDB.
pub(crate) struct Rocks {
    db: DB,
    dir: PathBuf,
    shared: Shared,
    get_options: ReadOptions,
    sync: WriteOptions,
    /// A write failed: from then on RocksDB refuses to flush, and nothing is expected of it.
    failed: AtomicBool,
}

impl Rocks {
    /// Opens the store in the existing directory `dir`, creating what is missing.
    pub(crate) fn open(dir: &Path, options: &KvOptions) -> Result<Self, KvError> {
        let shared = Shared::new(options);
        let (db, families) = (shared.db(), shared.families());
        Self::open_with(dir, shared, &db, families)
    }

    fn open_with(
        dir: &Path,
        shared: Shared,
        db: &Options,
        families: Vec<ColumnFamilyDescriptor>,
    ) -> Result<Self, KvError> {
        remove_leftover(&dir.join(CHECK_DIR))?;
        refuse_headless(dir)?;
        manifest::check(dir)?;
        let db = DB::open_cf_descriptors(db, dir, families).map_err(opening)?;
        let mut sync = WriteOptions::default();
        sync.set_sync(true);
        let mut get_options = ReadOptions::default();
        get_options.set_verify_checksums(true);
        Ok(Self { db, dir: dir.to_owned(), shared, get_options, sync, failed: AtomicBool::new(false) })
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        family(&self.db, table)
    }

    /// Puts a checkpoint of the newest state into `dir`: hard links of table files, a copy of the manifest.
    fn checkpoint(&self, dir: &Path) -> Result<(), KvError> {
        let checkpoint = Checkpoint::new(&self.db).map_err(|error| other(&error))?;
        checkpoint.create_checkpoint(dir).map_err(|error| other(&error))
    }

    /// Reads a checkpoint back from disk, every block of every table.
    fn check_copy(&self, dir: &Path, mark: u64, progress: &mut dyn FnMut(u64)) -> Result<(), KvError> {
        let shared = Shared::new(&KvOptions { cache_bytes: EXTRA_CHECK_CACHE_BYTES });
        let copy = DB::open_cf_descriptors_read_only(&shared.db(), dir, shared.families(), false)
            .map_err(opening)?;
        // A manifest is read up to its first incomplete record, as after a crash. A damaged length looks like one and
        // would hide everything after it, so the newest state must prove that it is there.
        let found = copy.get_opt(CHECK_MARK, &self.get_options).map_err(|error| other(&error))?;
        if found.as_deref() != Some(&mark.to_be_bytes()) {
            return Err(KvError::Damaged(Arc::from("the manifest ends before the newest state")));
        }
        scan_everything(&copy, progress)
    }
}

impl Kv for Rocks {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        // Each record has a header of 1 + 4 (column family) + lengths of at most 5 bytes each.
        let mut out = WriteBatch::with_capacity_bytes(16 + batch.bytes() + 15 * batch.ops().len());
        for op in batch.ops() {
            match op {
                Op::Put(table, key, value) => out.put_cf(self.family(*table), key, value),
                Op::Delete(table, key) => out.delete_cf(self.family(*table), key),
                Op::DeleteRange(table, from, to) => {
                    out.delete_range_cf(self.family(*table), from.as_slice(), to.as_slice());
                }
            }
        }
        self.db.write_opt(out, &self.sync).map_err(|error| {
            self.failed.store(true, Ordering::Release);
            writing(&error)
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.db
            .get_pinned_cf_opt(self.family(table), key, &self.get_options)
            .map(|found| found.map(|value| Bytes::copy_from_slice(&value)))
            .map_err(|error| other(&error))
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
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        // The prefix bloom may be asked only when every key of the range has the prefix; else it would hide keys.
        let one_prefix = table != Table::Meta
            && from.len() >= PREFIX_BYTES
            && to.len() >= PREFIX_BYTES
            && from[..PREFIX_BYTES] == to[..PREFIX_BYTES];
        if one_prefix {
            options.set_prefix_same_as_start(true);
        } else {
            options.set_total_order_seek(true);
        }
        let mut at = self.db.raw_iterator_cf_opt(self.family(table), options);
        match direction {
            Direction::Forward => at.seek(from),
            Direction::Backward => at.seek_for_prev(to),
        }
        while let Some((key, value)) = at.item() {
            // `seek_for_prev` may stop at `to` itself, which does not belong to the range.
            if key < to && visit(key, value) == ControlFlow::Break(()) {
                return Ok(());
            }
            match direction {
                Direction::Forward => at.next(),
                Direction::Backward => at.prev(),
            }
        }
        at.status().map_err(|error| other(&error))
    }

    fn backup(&self, dir: &Path) -> Result<(), KvError> {
        self.checkpoint(dir)?;
        sync_tree(dir).and_then(|()| sync_parent(dir)).map_err(|error| io("sync the copy", &error))
    }

    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<(), KvError> {
        if self.failed.load(Ordering::Acquire) {
            // No checkpoint without a flush, and no flush after a failed write: what is not cached is read and checked.
            return scan_everything(&self.db, progress);
        }
        // An open RocksDB never reads again what it has cached, so the files are read through a second, read-only
        // opening of hard links. Making them flushes the memtables, so the WAL holds nothing that the tables lack.
        let mark = self.db.latest_sequence_number(); // never the same twice
        self.db.put_opt(CHECK_MARK, mark.to_be_bytes(), &self.sync).map_err(|error| writing(&error))?;
        let dir = self.dir.join(CHECK_DIR);
        remove_leftover(&dir)?;
        self.checkpoint(&dir)?;
        let outcome = self.check_copy(&dir, mark, progress);
        remove_leftover(&dir)?;
        outcome
    }

    fn compact(&self) -> Result<(), KvError> {
        let mut options = rocksdb::CompactOptions::default();
        // Also what is at the last level already, so that everything has the last level's compression.
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::ForceOptimized);
        for table in Table::ALL {
            self.db.compact_range_cf_opt(self.family(table), None::<&[u8]>, None::<&[u8]>, &options);
        }
        Ok(())
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let sum = |name: &str| {
            Table::ALL
                .iter()
                .filter_map(|table| self.db.property_int_value_cf(self.family(*table), name).ok().flatten())
                .sum()
        };
        vec![
            ("memtable_bytes", sum("rocksdb.cur-size-all-mem-tables")),
            ("table_reader_bytes", sum("rocksdb.estimate-table-readers-mem")),
            ("block_cache_bytes", self.shared.cache_bytes_used() as u64),
            ("live_file_bytes", sum("rocksdb.live-sst-files-size")),
            ("compaction_pending_bytes", sum("rocksdb.estimate-pending-compaction-bytes")),
            ("keys", sum("rocksdb.estimate-num-keys")),
        ]
    }

    fn close(&self) -> Result<(), KvError> {
        if self.failed.load(Ordering::Acquire) {
            return Ok(()); // What was answered with Ok is in the WAL.
        }
        // Everything into tables, so that the next opening replays nothing.
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families: Vec<_> = Table::ALL.iter().map(|table| self.family(*table)).collect();
        self.db.flush_cfs_opt(&families, &options).map_err(|error| other(&error))
    }
}

fn family(db: &DB, table: Table) -> &ColumnFamily {
    db.cf_handle(table.name()).expect("every table is a column family of an open database")
}

/// Reads every key and value of every table from disk, past the block cache.
fn scan_everything(db: &DB, progress: &mut dyn FnMut(u64)) -> Result<(), KvError> {
    const REPORT_EVERY_BYTES: u64 = 1 << 20;
    let (mut bytes, mut reported) = (0, 0);
    for table in Table::ALL {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.set_total_order_seek(true);
        options.fill_cache(false);
        let mut at = db.raw_iterator_cf_opt(family(db, table), options);
        at.seek_to_first();
        while let Some((key, value)) = at.item() {
            bytes += (key.len() + value.len()) as u64;
            if bytes - reported >= REPORT_EVERY_BYTES {
                progress(bytes);
                reported = bytes;
            }
            at.next();
        }
        at.status().map_err(|error| other(&error))?;
    }
    progress(bytes);
    Ok(())
}

/// RocksDB takes a directory without `CURRENT` for a new one and would begin again beside the old files.
fn refuse_headless(dir: &Path) -> Result<(), KvError> {
    if dir.join("CURRENT").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(|error| io("list the store", &error))? {
        let entry = entry.map_err(|error| io("list the store", &error))?;
        let name = entry.file_name();
        let data = [".sst", ".log"].iter().any(|end| name.to_string_lossy().ends_with(end));
        if data && entry.metadata().is_ok_and(|meta| meta.len() > 0) {
            return Err(KvError::Damaged(Arc::from(
                "there are table files but no file CURRENT that names them",
            )));
        }
    }
    Ok(())
}

fn remove_leftover(dir: &Path) -> Result<(), KvError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("remove the links of an earlier check", &error))
        }
        _ => Ok(()),
    }
}

fn sync_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

fn sync_parent(dir: &Path) -> std::io::Result<()> {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The text that RocksDB gives ENOSPC, from strerror.
const NO_SPACE: &str = "No space left on device";

/// A write failed: whatever the reason, the batch may be in the WAL.
fn writing(error: &rocksdb::Error) -> KvError {
    let text = Arc::from(error.as_ref());
    if error.as_ref().contains(NO_SPACE) { KvError::Full(text) } else { KvError::Unknown(text) }
}

fn opening(error: rocksdb::Error) -> KvError {
    let text = error.as_ref();
    // Files that the manifest or CURRENT names and that are not there, and families that the manifest does not name.
    let missing = text.contains("No such file or directory") || error.kind() == ErrorKind::InvalidArgument;
    if missing { KvError::Damaged(Arc::from(text)) } else { other(&error) }
}

fn other(error: &rocksdb::Error) -> KvError {
    let text = error.as_ref();
    match error.kind() {
        ErrorKind::Corruption => KvError::Damaged(Arc::from(text)),
        _ if text.contains(NO_SPACE) => KvError::Full(Arc::from(text)),
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
