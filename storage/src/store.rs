//! Opening a store, and what its owner can do with it beyond [`Engine`].

use std::path::PathBuf;
use std::sync::Arc;

use crate::Engine;
use crate::dir::DataDir;
use crate::format::Upcasters;
#[cfg(any(feature = "rocksdb", feature = "sled"))]
use crate::kv::KvOptions;
use crate::kv::{Kv, KvError};
use crate::layout::{LayoutStep, Steps};
use crate::log::{LogEngine, LogOptions, Openers};
use crate::mem::MemKv;
use crate::rebuild::RebuildReport;
use crate::verify::{Progress, VerifyReport};

/// Which engine makes batches durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// The default.
    RocksDb,
    /// Pure Rust.
    Sled,
    /// Nothing survives the process.
    Memory,
}

impl EngineKind {
    /// Every engine, compiled in or not.
    pub const ALL: [Self; 3] = [Self::RocksDb, Self::Sled, Self::Memory];

    /// The name in `FORMAT` and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::RocksDb => "rocksdb",
            Self::Sled => "sled",
            Self::Memory => "memory",
        }
    }

    /// Whether this build has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::RocksDb => cfg!(feature = "rocksdb"),
            Self::Sled => cfg!(feature = "sled"),
            Self::Memory => true,
        }
    }
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The data directory; created when missing. `None` only for [`EngineKind::Memory`]: then nothing touches a disk.
    pub dir: Option<PathBuf>,
    /// Must be the one that the store was made with.
    pub engine: EngineKind,
    /// Memory for cached blocks, bytes.
    pub cache_bytes: usize,
    /// Writes are refused (`NoSpace`) below so much free space, bytes. 0 switches the check off.
    pub free_min_bytes: u64,
    /// Opens although the store ends before what the tail guard says. Logged.
    pub accept_loss: bool,
    /// This node's number, in every entry and change row.
    pub node: u16,
    /// Feeds whose number and head are kept in memory.
    pub feeds_cached_max: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            dir: None,
            engine: EngineKind::Memory,
            cache_bytes: 64 << 20,
            free_min_bytes: 0,
            accept_loss: false,
            node: 0,
            feeds_cached_max: 65_536,
        }
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has the store open.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// The directory holds something else.
    #[error("{0} is not a feedlog store")]
    NotAStore(PathBuf),
    /// Written by a newer version of feedlog.
    #[error("the store has format {found}, this version of feedlog reads up to {known}: use a newer feedlog")]
    NewerFormat {
        /// The store's.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The tables have a newer layout.
    #[error("the store has layout {found}, this version of feedlog knows up to {known}: use a newer feedlog")]
    NewerLayout {
        /// The store's.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The step to this layout is not in this build: a bug.
    #[error("the step to layout {0} is missing")]
    NoStep(u32),
    /// Made with another engine.
    #[error("the store was made with the engine {found}, not {asked}")]
    OtherEngine {
        /// The store's.
        found: String,
        /// The one asked for.
        asked: &'static str,
    },
    /// This build does not have the engine, or it needs a directory.
    #[error("the engine {0} is not available")]
    Unavailable(&'static str),
    /// The newest commits are missing: a write-ahead log was damaged or removed.
    #[error(
        "the store ends at commit {recovered}, but commit {guarded} was acknowledged: the newest commits are lost \
         (--accept-loss opens it as it is)"
    )]
    TailLost {
        /// What is there.
        recovered: u64,
        /// What there was.
        guarded: u64,
    },
    /// The tail guard itself is missing or damaged.
    #[error(
        "the tail guard is missing or damaged, so nobody knows whether commits after {recovered} are lost \
         (--accept-loss opens the store as it is)"
    )]
    GuardDamaged {
        /// What is there.
        recovered: u64,
    },
    /// Stored bytes are not what was written.
    #[error("stored data is damaged: {0}")]
    Damaged(Arc<str>),
    /// The engine did not open its files.
    #[error("the engine did not open: {0}")]
    Engine(Arc<str>),
}

impl From<KvError> for OpenError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Damaged(text) => Self::Damaged(text),
            KvError::Refused(text) | KvError::Full(text) | KvError::Unknown(text) => Self::Engine(text),
        }
    }
}

/// An open store. Cheap to clone; it closes when [`Engine::close`] is called or the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn Internals>,
}

/// What the log offers besides [`Engine`], whatever the tables.
trait Internals: Engine {
    fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, crate::EngineError>;
    fn rebuild(&self, progress: &mut dyn FnMut(Progress)) -> Result<RebuildReport, crate::EngineError>;
    fn compact(&self) -> Result<(), crate::EngineError>;
    fn stats(&self) -> Vec<(&'static str, u64)>;
}

impl<K: Kv> Internals for LogEngine<K> {
    fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, crate::EngineError> {
        crate::verify::verify(self, progress)
    }

    fn rebuild(&self, progress: &mut dyn FnMut(Progress)) -> Result<RebuildReport, crate::EngineError> {
        crate::rebuild::rebuild(self, progress)
    }

    fn compact(&self) -> Result<(), crate::EngineError> {
        self.kv()?.compact().map_err(crate::log::read_error)
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        self.kv().map(|kv| kv.stats()).unwrap_or_default()
    }
}

impl Store {
    pub(crate) fn of<K: Kv>(log: LogEngine<K>) -> Self {
        Self { inner: Arc::new(log) }
    }

    /// Checks every live byte, every feed, every hash, and every derived row against its rebuild from the log. Commits
    /// wait meanwhile: a running server verifies a backup of itself. Memory does not grow with the data; the rebuilt rows
    /// take their room on disk beside the live ones for that time.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, crate::EngineError> {
        self.inner.verify(progress)
    }

    /// Derives every row from the log again and replaces those that differ; durable on return. `Damaged` when the log
    /// itself is: then nothing was changed. Commits wait meanwhile; whoever keeps rows in memory must forget them.
    pub fn rebuild(&self, progress: &mut dyn FnMut(Progress)) -> Result<RebuildReport, crate::EngineError> {
        self.inner.rebuild(progress)
    }

    /// The store as the service uses it.
    pub fn engine(&self) -> Arc<dyn Engine> {
        self.inner.clone()
    }

    /// Rewrites everything into its smallest form. For measuring.
    pub fn compact(&self) -> Result<(), crate::EngineError> {
        self.inner.compact()
    }

    /// Figures of the engine for metrics.
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        self.inner.stats()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("commit_no", &self.inner.commit_no()).finish_non_exhaustive()
    }
}

/// Opens a store, or makes a new one in an empty directory. What is durable is there on return; feeds touched by the
/// newest commits were found dense, and nothing that the tail guard knows of is missing.
pub fn open(options: &OpenOptions, upcasters: Upcasters) -> Result<Store, OpenError> {
    open_migrating(options, upcasters, &[])
}

/// As [`open`]; runs every layout step that the store has not seen.
pub fn open_migrating(
    options: &OpenOptions,
    upcasters: Upcasters,
    steps: &[Box<dyn LayoutStep>],
) -> Result<Store, OpenError> {
    let steps = Steps { steps, engine: options.engine };
    let log = LogOptions {
        node: options.node,
        free_min_bytes: options.free_min_bytes,
        accept_loss: options.accept_loss,
        is_guarded: options.engine != EngineKind::Memory,
        feeds_cached_max: options.feeds_cached_max,
    };
    let dir =
        options.dir.as_deref().map(|dir| DataDir::open(dir, options.engine, steps.newest())).transpose()?;
    let tables = dir.as_ref().map(DataDir::tables);
    match (options.engine, tables) {
        (EngineKind::Memory, tables) => {
            let openers = Openers {
                tables: Box::new(move || MemKv::open(tables.as_deref())),
                scratch: Box::new(|_| Ok(MemKv::default())),
            };
            Ok(Store::of(LogEngine::open(openers, dir, log, upcasters, &steps)?))
        }
        #[cfg(feature = "rocksdb")]
        (EngineKind::RocksDb, Some(tables)) => {
            let openers = on_disk(tables, cache(options), crate::rocks::Rocks::open);
            Ok(Store::of(LogEngine::open(openers, dir, log, upcasters, &steps)?))
        }
        #[cfg(feature = "sled")]
        (EngineKind::Sled, Some(tables)) => {
            let openers = on_disk(tables, cache(options), crate::sled::Sled::open);
            Ok(Store::of(LogEngine::open(openers, dir, log, upcasters, &steps)?))
        }
        // Not compiled in, or without a directory.
        (EngineKind::RocksDb | EngineKind::Sled, _) => Err(OpenError::Unavailable(options.engine.name())),
    }
}

#[cfg(any(feature = "rocksdb", feature = "sled"))]
fn cache(options: &OpenOptions) -> KvOptions {
    KvOptions { cache_bytes: options.cache_bytes }
}

/// The openers of an engine on disk, from its `open`.
#[cfg(any(feature = "rocksdb", feature = "sled"))]
fn on_disk<K: Kv>(
    tables: PathBuf,
    options: KvOptions,
    open: fn(&std::path::Path, &KvOptions) -> Result<K, KvError>,
) -> Openers<K> {
    // A rebuild writes much and reads little of it again.
    let small = KvOptions { cache_bytes: options.cache_bytes.min(SCRATCH_CACHE_BYTES) };
    Openers {
        tables: Box::new(move || open(&tables, &options)),
        scratch: Box::new(move |dir| open(dir, &small)),
    }
}

#[cfg(any(feature = "rocksdb", feature = "sled"))]
const SCRATCH_CACHE_BYTES: usize = 16 << 20;
