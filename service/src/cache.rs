//! Durable rows as a shard reads them, with the hot ones kept in memory. Nothing undurable ever gets in here.

use std::cell::RefCell;
use std::sync::Arc;

use feedlog_core::entry::{Entry, Head};
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::read::Reader;
use feedlog_core::rows::{Counts, Fate, RowKey, RowValue, RowsError, UserCounts};
use feedlog_storage::Engine;
use quick_cache::sync::GuardResult;

use crate::read::EngineReader;
use crate::shard::shard_of;

/// Places of users, shared by all shards: written by the shard of the personal feed, read by those of other feeds.
pub(crate) struct Places(quick_cache::sync::Cache<RowKey, Option<RowValue>>);

impl Places {
    pub(crate) fn new(rows_max: usize) -> Self {
        Self(quick_cache::sync::Cache::new(rows_max.max(1)))
    }

    fn get(&self, key: &RowKey, engine: &dyn Engine) -> Result<Option<RowValue>, RowsError> {
        match self.0.get_value_or_guard(key, None) {
            GuardResult::Value(value) => Ok(value),
            GuardResult::Guard(guard) => {
                let value = EngineReader(engine).row(key)?;
                // Fails when `remember` was faster: then what was read may be old, and theirs stays.
                let _ = guard.insert(value.clone());
                Ok(value)
            }
            GuardResult::Timeout => EngineReader(engine).row(key),
        }
    }

    pub(crate) fn clear(&self) {
        self.0.clear();
    }
}

/// Whether rows of this kind are remembered.
pub(crate) fn is_cached(key: &RowKey) -> bool {
    matches!(key, RowKey::Place(..)) || local_feed(key).is_some()
}

/// The feed of a row that only its own shard remembers.
fn local_feed(key: &RowKey) -> Option<&FeedId> {
    match key {
        RowKey::Member(feed, _) | RowKey::Counts(feed, _) | RowKey::UserCounts(feed, _, _) => Some(feed),
        _ => None,
    }
}

/// The durable store as one shard reads it.
pub(crate) struct ShardReader {
    engine: Arc<dyn Engine>,
    places: Arc<Places>,
    index: usize,
    shards: usize,
    rows: RefCell<quick_cache::unsync::Cache<RowKey, Option<RowValue>>>,
}

impl ShardReader {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        places: Arc<Places>,
        index: usize,
        shards: usize,
        rows_max: usize,
    ) -> Self {
        let rows = RefCell::new(quick_cache::unsync::Cache::new(rows_max.max(1)));
        Self { engine, places, index, shards, rows }
    }

    /// These rows, of feeds of this shard, are durable now.
    pub(crate) fn remember(&self, rows: Vec<(RowKey, Option<RowValue>)>) {
        if rows.is_empty() {
            return;
        }
        let mut local = self.rows.borrow_mut();
        for (key, value) in rows {
            if matches!(key, RowKey::Place(..)) {
                self.places.0.insert(key, value);
            } else {
                local.insert(key, value);
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.rows.borrow_mut().clear();
        self.places.clear();
    }
}

impl Reader for ShardReader {
    fn row(&self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        if matches!(key, RowKey::Place(..)) {
            return self.places.get(key, &*self.engine);
        }
        // Rows of feeds of other shards change without our knowing.
        let ours = local_feed(key).is_some_and(|feed| shard_of(feed, self.shards) == self.index);
        if !ours {
            return EngineReader(&*self.engine).row(key);
        }
        if let Some(value) = self.rows.borrow_mut().get(key) {
            return Ok(value.clone());
        }
        let value = EngineReader(&*self.engine).row(key)?;
        self.rows.borrow_mut().insert(key.clone(), value.clone());
        Ok(value)
    }

    fn head(&self, feed: &FeedId) -> Result<Head, RowsError> {
        EngineReader(&*self.engine).head(feed)
    }

    fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        EngineReader(&*self.engine).entry(feed, seq)
    }

    fn entries(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        backward: bool,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, RowsError> {
        EngineReader(&*self.engine).entries(feed, from, to, backward, entries_max, bytes_max)
    }

    fn counts(
        &self,
        feed: &FeedId,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Counts)>, RowsError> {
        EngineReader(&*self.engine).counts(feed, from, to, limit)
    }

    fn user_counts(
        &self,
        feed: &FeedId,
        uid: &Uid,
        from: u64,
        to: u64,
        backward: bool,
        limit: usize,
    ) -> Result<Vec<(u64, UserCounts)>, RowsError> {
        EngineReader(&*self.engine).user_counts(feed, uid, from, to, backward, limit)
    }

    fn fates(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        limit: usize,
    ) -> Result<Vec<(SeqId, Fate)>, RowsError> {
        EngineReader(&*self.engine).fates(feed, from, to, limit)
    }
}
