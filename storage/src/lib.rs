//! The storage engines of feedlog: the only crate that knows RocksDB, sled or how an entry looks on disk.
//!
//! [`Engine`] is the narrow waist: its only write is [`Engine::commit`]. Everything above speaks of feeds, entries and
//! typed rows; everything below is bytes in ordered tables.

mod commit_queue;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used)] // a test that others can run
pub mod conformance;
#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod damage_tests;
mod dir;
#[cfg(test)]
mod fault_tests;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
mod format;
mod guard;
mod keys;
mod kv;
#[cfg(all(test, any(feature = "rocksdb", feature = "sled")))]
mod kv_suite;
mod layout;
#[cfg(test)]
mod layout_tests;
mod log;
mod mem;
mod rebuild;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(feature = "sled")]
mod sled;
mod space;
mod store;
mod verify;

use std::path::Path;

use bytes::Bytes;
use feedlog_core::entry::{Entry, Head};
use feedlog_core::ids::{FeedId, SeqId, TimeMs, Uid};
use feedlog_core::rows::{RowKey, RowValue};

pub use commit_queue::{CommitQueue, Observer, QueueLimits, Reply, Round};
pub use dir::{FORMAT_VERSION, LAYOUT_VERSION, engine_of};
pub use format::{DecodeError, EVENT_VERSION, EVENT_VERSION_OLDEST, Upcast, Upcasters, chain_hash};
pub use kv::Table;
pub use layout::{LayoutStep, RawTables};
pub use rebuild::RebuildReport;
pub use space::free_bytes;
pub use store::{EngineKind, OpenError, OpenOptions, Store, open, open_migrating};
pub use verify::{Damage, Phase, Progress, VerifyReport};

/// One atomic, contiguous piece of one commit: new entries of one feed with the rows that change with them, or state
/// rows, or both.
#[derive(Debug, Default)]
pub struct Group {
    /// The entries and their feed. `None` for a group of state rows only.
    pub log: Option<LogPart>,
    /// State rows: not derived from any log, outside rebuild, in the backup. `None` removes.
    pub state: Vec<(StateKey, Option<Bytes>)>,
}

/// What a group adds to a feed.
#[derive(Debug)]
pub struct LogPart {
    /// The feed; created when `expected` is 0.
    pub feed: FeedId,
    /// The head that the entries follow. Within one `commit`, the head left by earlier groups of this feed.
    pub expected: SeqId,
    /// Contiguous from `expected + 1`, with their final ordinals and times. May be empty.
    pub entries: Vec<Entry>,
    /// Inline rows. `None` removes. Each key's owner is `feed`.
    pub rows: Vec<(RowKey, Option<RowValue>)>,
    /// Older entries whose payload is replaced by a tombstone in the same batch; header and hashes stay.
    pub strip: Vec<SeqId>,
}

/// The engine's answer that a group is durable. Only an engine makes one.
#[derive(Debug)]
pub struct Committed {
    entries: Vec<Entry>,
    commit_no: u64,
}

impl Committed {
    /// The entries of the group, now durable.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The number of the commit, dense per node.
    pub fn commit_no(&self) -> u64 {
        self.commit_no
    }

    /// The entries, by value.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// Why the engine did not do what was asked. The class tells the caller what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Refused: the head is not the expected one. Nothing of the group was written.
    #[error("the head of the feed is {head}, not the expected one")]
    HeadMoved {
        /// The head now.
        head: SeqId,
    },
    /// Refused: the group itself is malformed (not contiguous, foreign rows). A bug above.
    #[error("the group is malformed: {0}")]
    BadGroup(&'static str),
    /// Retry: an earlier sync failed; nothing is written until the engine is reopened.
    #[error("the engine is poisoned by an earlier failed sync")]
    Poisoned,
    /// Retry: less free space than the reserve; nothing was handed to the engine.
    #[error("free space is below the reserve")]
    NoSpace,
    /// Retry: the engine did not take the batch; nothing was written.
    #[error("the engine did not take the write: {0}")]
    Refused(std::sync::Arc<str>),
    /// Unknown: the write or its sync failed; it may have happened. The engine is poisoned from here on.
    #[error("the write failed and may or may not have happened: {0}")]
    Unknown(std::sync::Arc<str>),
    /// A stored byte is not what was written. Never served.
    #[error("stored data is damaged: {0}")]
    Damaged(std::sync::Arc<str>),
    /// Reading failed.
    #[error("reading failed: {0}")]
    Read(std::sync::Arc<str>),
    /// The engine was closed.
    #[error("the engine is closed")]
    Closed,
}

/// A row that is not derived: tokens, checkpoints, sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKey {
    /// Which kind.
    pub table: StateTable,
    /// The key within the kind.
    pub key: Vec<u8>,
}

/// The kinds of state rows. Numbers are stored: never change or reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum StateTable {
    /// Access tokens by id.
    Token = 1,
    /// Places of trailing projections by name.
    Checkpoint = 2,
    /// What front ends keep of their own: name of the front end, 0, key.
    FrontEnd = 3,
}

/// In which order to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending.
    Forward,
    /// Descending.
    Backward,
}

/// Rows that lie together.
#[derive(Debug, Clone)]
pub enum RowRange {
    /// All members of a feed, by uid.
    Members(FeedId),
    /// All pending requests, by uid.
    Requests(FeedId),
    /// Counted sets of blocks `from..=to`.
    Counts(FeedId, u64, u64),
    /// One user's counted sets of blocks `from..=to`.
    UserCounts(FeedId, Uid, u64, u64),
    /// Counted sets of all users of a feed, by uid and block.
    AllUserCounts(FeedId),
    /// Fates of the messages `from..=to`.
    Fates(FeedId, SeqId, SeqId),
    /// Reactions to one message.
    Reactions(FeedId, SeqId),
    /// Messages that expire at or before a time, over all feeds, by time.
    Expiries(TimeMs),
    /// A user's feeds, by feed_id.
    UserFeeds(Uid),
    /// A user's places, by feed_id.
    Places(Uid),
    /// Marks of a feed, by uid.
    Receipts(FeedId),
}

/// One commit as readers of many feeds resume from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Dense per node, from 1.
    pub commit_no: u64,
    /// What it added: feed, first and last new seq_id.
    pub feeds: Vec<(FeedId, SeqId, SeqId)>,
}

/// An entry with what proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The entry.
    pub entry: Entry,
    /// Format version of the stored event.
    pub version: u8,
    /// BLAKE3 of the payload as received; of nothing when there is none.
    pub payload_hash: [u8; 32],
    /// Covers the header, the payload hash and the previous entry's chain hash.
    pub chain_hash: [u8; 32],
    /// The node that committed it.
    pub node: u16,
    /// The commit on that node.
    pub commit_no: u64,
}

/// Makes batches durable and reads them back.
///
/// Duties, tested by one conformance suite on every engine:
/// - seq_ids of a feed are dense for every reader at every time;
/// - what `commit` answered with `Ok` survives `kill -9` and a power cut;
/// - a row written by a group is found after `Ok`;
/// - an unknown outcome is never reported as success;
/// - a read after `Ok` sees it, and no read shows what can later vanish.
pub trait Engine: Send + Sync + 'static {
    /// Writes the groups in order in one batch, syncs once, then answers for each. Blocks.
    ///
    /// **On `Ok` the group is durable.** `HeadMoved` and `BadGroup` refuse one group (and later groups of its feed);
    /// the other errors hold for all. After `Unknown` everything answers `Poisoned` until the store is reopened.
    fn commit(&self, groups: Vec<Group>) -> Vec<Result<Committed, EngineError>>;

    /// The durable head of a feed; all zero when there is none.
    fn head(&self, feed: &FeedId) -> Result<Head, EngineError>;

    /// Durable entries of `from..=to` that exist, in `direction`: at most `entries_max`, and as many as fit in
    /// `bytes_max` payload bytes but at least one.
    fn read(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        direction: Direction,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, EngineError>;

    /// One durable derived row.
    fn row(&self, key: &RowKey) -> Result<Option<RowValue>, EngineError>;

    /// Durable derived rows of a range in `direction`, those strictly beyond `after`, at most `limit`.
    fn rows(
        &self,
        range: &RowRange,
        direction: Direction,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, RowValue)>, EngineError>;

    /// Names of feeds in order, after `after`, at most `limit`.
    fn feeds(&self, after: Option<&FeedId>, limit: usize) -> Result<Vec<FeedId>, EngineError>;

    /// State rows of a table whose key begins with `prefix` and is above `after` (from the first when `None`), at most
    /// `limit`.
    fn states(
        &self,
        table: StateTable,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StateKey, Bytes)>, EngineError>;

    /// One state row.
    fn state(&self, key: &StateKey) -> Result<Option<Bytes>, EngineError>;

    /// Commits of this node after `after`, at most `limit`. The first may be above `after + 1` when older change rows
    /// were pruned: then the reader rescans heads.
    fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, EngineError>;

    /// Entries with their proofs, ascending, as [`Engine::read`].
    fn records(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, EngineError>;

    /// A consistent copy of everything durable, while writes go on. `dir` must not exist.
    fn backup(&self, dir: &Path) -> Result<(), EngineError>;

    /// Waits until whatever a reader may have seen of a commit is covered by its heads: rows of a commit can be read a
    /// moment before the head that belongs to them.
    fn settle(&self);

    /// Removes change rows up to and including `commit_no`.
    fn prune_changes(&self, upto: u64) -> Result<(), EngineError>;

    /// The newest durable `commit_no`.
    fn commit_no(&self) -> u64;

    /// Whether a failed sync stopped all writes.
    fn is_poisoned(&self) -> bool;

    /// Opens the tables again after a write failed because the disk was full, so that writing goes on. `NoSpace` while
    /// there is still no room, `Poisoned` after any other failure: then only a restart helps. The groups answered
    /// `Unknown` are there or not: whoever keeps state of feeds must reload it. Nothing to do when not poisoned.
    fn reopen(&self) -> Result<(), EngineError>;

    /// Flushes and closes; later calls answer `Closed`.
    fn close(&self) -> Result<(), EngineError>;
}

/// BLAKE3 of some bytes: payload hashes, names of direct feeds.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
