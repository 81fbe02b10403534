//! The seam between the log and the engines: ordered tables with atomic, durable batches.
//!
//! [`crate::log::LogEngine`] has all of feedlog's semantics; a [`Kv`] only keeps bytes in order and makes a batch
//! durable. Private to this crate.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::Direction;

/// The tables. Numbers are stored by engines that keep all tables in one tree: never change or reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Entries: (feed number u64 BE, seq u64 BE) → frame. Inserted in ascending order per feed, almost never
    /// rewritten, never deleted. Read by range within one 8-byte prefix. The bulk of the data.
    Entries = 1,
    /// Rows of one feed: (feed number u64 BE, kind u8, rest) → small values, many rewritten often. Read by key (most
    /// often keys that do not exist) and by range within one 8-byte prefix.
    Rows = 2,
    /// Everything else: (kind u8, rest) → small values. Names and numbers of feeds, rows by user or by time, state,
    /// change rows (appended at the end, deleted at the front). Read by key and by range; no fixed prefix.
    Meta = 3,
}

impl Table {
    /// Every table.
    pub(crate) const ALL: [Self; 3] = [Self::Entries, Self::Rows, Self::Meta];

    /// A stable name for column families and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Rows => "rows",
            Self::Meta => "meta",
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// Inserts or replaces.
    Put(Table, Vec<u8>, Bytes),
    /// Removes; of an absent key, nothing.
    Delete(Table, Vec<u8>),
    /// Removes every key of `from..to`.
    DeleteRange(Table, Vec<u8>, Vec<u8>),
}

/// Changes that become durable together or not at all. Applied in order: a later one of the same key wins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    ops: Vec<Op>,
    bytes: usize,
}

impl Batch {
    pub(crate) fn put(&mut self, table: Table, key: Vec<u8>, value: impl Into<Bytes>) {
        let value = value.into();
        self.bytes += key.len() + value.len();
        self.ops.push(Op::Put(table, key, value));
    }

    pub(crate) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.bytes += key.len();
        self.ops.push(Op::Delete(table, key));
    }

    pub(crate) fn delete_range(&mut self, table: Table, from: Vec<u8>, to: Vec<u8>) {
        self.bytes += from.len() + to.len();
        self.ops.push(Op::DeleteRange(table, from, to));
    }

    pub(crate) fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// Why a table did not do what was asked. The class decides what becomes of the caller and of the engine.
// Without an engine on disk nothing makes some of these.
#[cfg_attr(not(any(feature = "rocksdb", feature = "sled")), allow(dead_code))]
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum KvError {
    /// Of a write: nothing was written and nothing will be; the store stays usable. Of anything else: it failed.
    #[error("{0}")]
    Refused(Arc<str>),
    /// Of a write: the disk is full. The batch may be there after the store is opened again, wholly or not at all;
    /// until then this store shows nothing of it and writes nothing more. Opening again may heal it.
    #[error("the disk is full: {0}")]
    Full(Arc<str>),
    /// Of a write: the write or its sync failed otherwise (EIO). As `Full`, but only a restart may open it again.
    #[error("{0}")]
    Unknown(Arc<str>),
    /// A stored byte is not what was written. Names file and offset where the engine knows them.
    #[error("{0}")]
    Damaged(Arc<str>),
}

/// How a table is opened. Every engine has `fn open(dir: &Path, options: &KvOptions) -> Result<Self, KvError>`, which
/// creates what is missing in the existing directory `dir`.
#[cfg(any(feature = "rocksdb", feature = "sled"))]
#[derive(Debug, Clone)]
pub(crate) struct KvOptions {
    /// Memory for cached blocks.
    pub(crate) cache_bytes: usize,
}

/// What a scan calls with each key and value; `Break` ends the scan.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Ordered tables of bytes in one directory.
///
/// Duties:
/// - **`write` is atomic over all tables and durable on `Ok`** (fdatasync of every file that recovery needs, and of the
///   directory when a file was created). One thread writes at a time; reads come from many.
/// - **No `get` or `scan` shows any part of a batch before it is durable**, nor after its write failed.
/// - A read that begins after `write` answered `Ok` sees the batch. A `scan` shows one state of one table.
/// - Every block read is checked against a checksum: damage is `Damaged`, never other bytes.
/// - Opening recovers every batch whose write answered `Ok`, in order, none of them in part. (Batches lost to a
///   damaged WAL are found above, by the tail guard.)
pub(crate) trait Kv: Send + Sync + 'static {
    /// Makes the batch durable, wholly or not at all.
    fn write(&self, batch: &Batch) -> Result<(), KvError>;

    /// The durable value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Visits the durable keys of `from..to` (`to` excluded) in `direction` until `visit` breaks.
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), KvError>;

    /// A consistent copy of everything durable into the new directory `dir` (whose parent exists), synced, while
    /// writes go on. The copy opens as a `Kv` of the same kind.
    fn backup(&self, dir: &Path) -> Result<(), KvError>;

    /// Reads and checks every live byte (tables, manifest, WAL); calls `progress` with bytes checked so far.
    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<(), KvError>;

    /// Rewrites everything into its smallest form. For measuring; a hint.
    fn compact(&self) -> Result<(), KvError> {
        Ok(())
    }

    /// Bytes of memory the engine holds beyond its block cache budget, roughly, and other figures for metrics.
    fn stats(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Flushes what makes the next opening fast. Called once, before the value is dropped; dropping it releases every
    /// file and lock, so that the directory can be opened again at once.
    fn close(&self) -> Result<(), KvError>;
}
