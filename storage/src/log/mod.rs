//! The log over any [`Kv`]: feed numbers, heads, the chain, change rows, poison. The one implementation of
//! [`Engine`]; what an engine adds is only how bytes become durable.
//!
//! | where | what |
//! |---|---|
//! | here | state, reads |
//! | `commit` | the only write: checks groups, stages one batch, writes it |
//! | `recover` | what is checked when a store is opened or opened again |

mod commit;
mod read;
mod recover;

use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use feedlog_core::entry::{Entry, Head};
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::rows::{RowKey, RowValue};
use quick_cache::sync::Cache;

use crate::dir::DataDir;
use crate::format::Upcasters;
use crate::guard::TailGuard;
use crate::keys::{self, Kind};
use crate::kv::{Kv, KvError, Table};
use crate::layout::Steps;
use crate::space::SpaceReserve;
use crate::{
    Change, Committed, Direction, Engine, EngineError, Group, OpenError, Record, RowRange, StateKey,
    StateTable,
};

/// How the log is run, whatever the engine.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    pub(crate) node: u16,
    pub(crate) free_min_bytes: u64,
    pub(crate) accept_loss: bool,
    /// Whether the newest commit is guarded by a file; not for tables that never outlive the process.
    pub(crate) is_guarded: bool,
    /// Feeds whose number and head are kept in memory.
    pub(crate) feeds_cached_max: usize,
}

/// Where a feed ends: what the next entry builds on.
#[derive(Debug, Clone, Copy)]
struct Tip {
    head: Head,
    chain: [u8; 32],
}

/// What only the writer knows.
struct Writer {
    /// Number of the newest durable commit.
    commit_no: u64,
    /// Number of the next new feed.
    next_number: u64,
    /// No change row is below this one.
    first_change: u64,
    space: SpaceReserve,
}

/// Why nothing is written any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Poison {
    None = 0,
    /// The disk was full: opening again may heal it.
    Full = 1,
    /// A write or sync failed otherwise: only a restart may heal it.
    Hard = 2,
}

type ScratchOpener<K> = Box<dyn Fn(&Path) -> Result<K, KvError> + Send + Sync>;

/// How tables come to be.
pub(crate) struct Openers<K> {
    /// The store's own.
    pub(crate) tables: Box<dyn Fn() -> Result<K, KvError> + Send + Sync>,
    /// Others of the same kind in an existing, empty directory, for a rebuild.
    pub(crate) scratch: ScratchOpener<K>,
}

/// The log over a [`Kv`].
pub(crate) struct LogEngine<K> {
    /// `None` once closed, or when opening again failed.
    kv: RwLock<Option<K>>,
    openers: Openers<K>,
    dir: Option<DataDir>,
    guard: Option<TailGuard>,
    options: LogOptions,
    upcasters: Upcasters,
    /// One writer at a time; readers never wait for it.
    writer: Mutex<Writer>,
    /// Number of the newest durable commit, for readers.
    commit_no: AtomicU64,
    poison: AtomicU8,
    /// Only ever holds durable numbers, which never change.
    numbers: Cache<FeedId, u64>,
    names: Cache<u64, FeedId>,
    /// Only the holder of `writer` may insert: a reader could insert a head that a commit has just overtaken, and the
    /// next commit would reuse its seq_ids (I-1).
    tips: Cache<u64, Tip>,
}

impl<K: Kv> LogEngine<K> {
    /// Opens the tables, brings them to today's layout, checks what was recovered against the change rows and the tail guard. `dir` is `None` for
    /// stores that are not on disk.
    pub(crate) fn open(
        openers: Openers<K>,
        mut dir: Option<DataDir>,
        options: LogOptions,
        upcasters: Upcasters,
        steps: &Steps<'_>,
    ) -> Result<Self, OpenError> {
        let kv = (openers.tables)().map_err(OpenError::from)?;
        if let Some(dir) = &mut dir {
            steps.run(&kv, dir)?;
        }
        let recovered = recover::check(&kv, options.node)?;
        let guard = dir
            .as_ref()
            .filter(|_| options.is_guarded)
            .map(|dir| TailGuard::open(dir.path(), options.node, recovered.commit_no, options.accept_loss))
            .transpose()?;
        let space = SpaceReserve::new(dir.as_ref().map(DataDir::path), options.free_min_bytes);
        let feeds = options.feeds_cached_max;
        Ok(Self {
            kv: RwLock::new(Some(kv)),
            openers,
            dir,
            guard,
            upcasters,
            writer: Mutex::new(Writer {
                commit_no: recovered.commit_no,
                next_number: recovered.next_number,
                first_change: recovered.first_change,
                space,
            }),
            commit_no: AtomicU64::new(recovered.commit_no),
            poison: AtomicU8::new(Poison::None as u8),
            numbers: Cache::new(feeds),
            names: Cache::new(feeds.div_ceil(4)),
            tips: Cache::new(feeds),
            options,
        })
    }

    /// The tables, for the time of one call.
    pub(crate) fn kv(&self) -> Result<KvRef<'_, K>, EngineError> {
        let guard = self.kv.read().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() { Ok(KvRef(guard)) } else { Err(EngineError::Closed) }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic while staging leaves the numbers untouched: they change only after a durable write.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poison(&self) -> Poison {
        match self.poison.load(Ordering::Acquire) {
            0 => Poison::None,
            1 => Poison::Full,
            _ => Poison::Hard,
        }
    }

    /// The number of a feed that exists.
    pub(crate) fn number(&self, kv: &K, feed: &FeedId) -> Result<Option<u64>, EngineError> {
        if let Some(number) = self.numbers.get(feed) {
            return Ok(Some(number));
        }
        let Some(value) = kv.get(Table::Meta, &keys::feed_number(feed)).map_err(read_error)? else {
            return Ok(None);
        };
        let number = crate::format::decode_feed_number(&value)
            .map_err(|error| damaged(format_args!("number of feed {feed:?}: {error}")))?;
        self.numbers.insert(feed.clone(), number);
        Ok(Some(number))
    }

    /// The name of a feed that exists.
    pub(crate) fn name(&self, kv: &K, number: u64) -> Result<FeedId, EngineError> {
        if let Some(name) = self.names.get(&number) {
            return Ok(name);
        }
        let value = kv.get(Table::Meta, &keys::feed_name(number)).map_err(read_error)?;
        let value = value.ok_or_else(|| damaged(format_args!("feed number {number} has no name")))?;
        let name = crate::format::decode_feed_name(&value)
            .map_err(|error| damaged(format_args!("name of feed number {number}: {error}")))?;
        self.names.insert(number, name.clone());
        Ok(name)
    }

    /// The directory with the lock, when on disk.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.dir.as_ref().map(DataDir::path)
    }

    pub(crate) fn openers(&self) -> &Openers<K> {
        &self.openers
    }

    pub(crate) fn upcasters(&self) -> &Upcasters {
        &self.upcasters
    }

    /// Nothing is written while the answer is held.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen(self.writer())
    }
}

/// While it lives, nothing is written.
pub(crate) struct Frozen<'a>(#[allow(dead_code)] MutexGuard<'a, Writer>);

/// The tables while they are open.
pub(crate) struct KvRef<'a, K>(RwLockReadGuard<'a, Option<K>>);

impl<K> std::ops::Deref for KvRef<'_, K> {
    type Target = K;

    fn deref(&self) -> &K {
        self.0.as_ref().expect("checked when the guard was taken")
    }
}

pub(crate) fn read_error(error: KvError) -> EngineError {
    match error {
        KvError::Damaged(text) => EngineError::Damaged(text),
        KvError::Refused(text) | KvError::Full(text) | KvError::Unknown(text) => EngineError::Read(text),
    }
}

pub(crate) fn damaged(text: std::fmt::Arguments<'_>) -> EngineError {
    EngineError::Damaged(Arc::from(text.to_string()))
}

impl<K: Kv> Engine for LogEngine<K> {
    fn commit(&self, groups: Vec<Group>) -> Vec<Result<Committed, EngineError>> {
        self.commit_groups(groups)
    }

    fn head(&self, feed: &FeedId) -> Result<Head, EngineError> {
        let kv = self.kv()?;
        Ok(self.tip_of(&kv, feed)?.map_or_else(Head::default, |(_, tip)| tip.head))
    }

    fn read(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        direction: Direction,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, EngineError> {
        self.read_entries(feed, from, to, direction, entries_max, bytes_max)
    }

    fn row(&self, key: &RowKey) -> Result<Option<RowValue>, EngineError> {
        self.read_row(key)
    }

    fn rows(
        &self,
        range: &RowRange,
        direction: Direction,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, RowValue)>, EngineError> {
        self.read_rows(range, direction, after, limit)
    }

    fn feeds(&self, after: Option<&FeedId>, limit: usize) -> Result<Vec<FeedId>, EngineError> {
        self.read_feeds(after, limit)
    }

    fn states(
        &self,
        table: StateTable,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StateKey, Bytes)>, EngineError> {
        self.read_states(table, prefix, after, limit)
    }

    fn state(&self, key: &StateKey) -> Result<Option<Bytes>, EngineError> {
        self.kv()?.get(Table::Meta, &keys::state(key.table, &key.key)).map_err(read_error)
    }

    fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, EngineError> {
        self.read_changes(after, limit)
    }

    fn records(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, EngineError> {
        self.read_records(feed, from, to, entries_max, bytes_max)
    }

    fn backup(&self, dir: &Path) -> Result<(), EngineError> {
        let kv = self.kv()?;
        let failed = |error: std::io::Error| EngineError::Read(Arc::from(format!("backup: {error}")));
        // Before the copy: the copy may have more, never less.
        let commit_no = self.commit_no();
        std::fs::create_dir(dir).map_err(failed)?;
        kv.backup(&dir.join(crate::dir::TABLES)).map_err(read_error)?;
        if let Some(own) = &self.dir {
            own.copy_format(dir).map_err(failed)?;
            TailGuard::write_new(dir, self.options.node, commit_no).map_err(failed)?;
        }
        crate::dir::sync_dir(dir).map_err(failed)
    }

    fn settle(&self) {
        // A commit is written and its heads are moved under this lock.
        drop(self.writer());
    }

    fn prune_changes(&self, upto: u64) -> Result<(), EngineError> {
        self.prune(upto)
    }

    fn commit_no(&self) -> u64 {
        self.commit_no.load(Ordering::Acquire)
    }

    fn is_poisoned(&self) -> bool {
        self.poison() != Poison::None
    }

    fn reopen(&self) -> Result<(), EngineError> {
        self.open_again()
    }

    fn close(&self) -> Result<(), EngineError> {
        let kv = {
            // After the writer: no commit is cut short, and none begins on closed tables.
            let _writer = self.writer();
            self.kv.write().unwrap_or_else(PoisonError::into_inner).take()
        };
        let Some(kv) = kv else { return Ok(()) };
        // While poisoned the tables may hold what was never acknowledged: the next opening sorts that out.
        let closed = if self.is_poisoned() { Ok(()) } else { kv.close().map_err(read_error) };
        drop(kv);
        if let Some(guard) = &self.guard {
            guard.close();
        }
        if let Some(dir) = &self.dir {
            dir.unlock();
        }
        closed
    }
}

impl<K> std::fmt::Debug for LogEngine<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogEngine")
            .field("commit_no", &self.commit_no)
            .field("options", &self.options)
            .finish()
    }
}

/// All keys of commits of one node.
fn changes_of(node: u16) -> (Vec<u8>, Vec<u8>) {
    let to = match node.checked_add(1) {
        Some(next) => keys::change(next, 0),
        None => vec![Kind::Change as u8 + 1],
    };
    (keys::change(node, 0), to)
}
