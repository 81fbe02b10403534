//! A durable store made of maps.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::entry::{Entry, Head};
use crate::ids::{FeedId, ReactionKey, SeqId, Uid};
use crate::projection::Fold;
use crate::read::Reader;
use crate::rows::{Counts, Fate, RowKey, RowValue, Rows, RowsError, UserCounts};
use crate::sequencer::NewGroup;

/// Everything durable. As [`Rows`] it is what a rebuild writes to.
#[derive(Debug, Clone, Default)]
pub struct MemStore {
    /// Derived rows.
    pub rows: BTreeMap<RowKey, RowValue>,
    /// The logs.
    pub logs: BTreeMap<FeedId, Vec<Entry>>,
}

impl MemStore {
    /// Writes a group. Panics unless it follows the head and its rows belong to its feed: duties of the layer above.
    pub fn commit(&mut self, group: NewGroup, rows: Vec<(RowKey, Option<RowValue>)>) {
        let log = self.logs.entry(group.feed.clone()).or_default();
        assert_eq!(log.len() as u64, group.expected.0, "a group follows the head");
        for entry in group.entries {
            assert_eq!(entry.seq.0, log.len() as u64 + 1, "I-1: entries are contiguous");
            log.push(entry);
        }
        for seq in group.strip {
            log[seq.0 as usize - 1].strip(toy_digest);
        }
        for (key, value) in rows {
            assert_eq!(key.owner(), group.feed, "a row is written by its owner: {key:?}");
            self.put(key, value);
        }
    }

    /// All rows again, from the logs alone.
    pub fn rebuild(logs: &BTreeMap<FeedId, Vec<Entry>>) -> BTreeMap<RowKey, RowValue> {
        let mut store = Self::default();
        for (feed, entries) in logs {
            let mut fold = Fold::default();
            for entry in entries {
                // A rebuild sees no later entry than the one it is at.
                store.logs.entry(feed.clone()).or_default().push(entry.clone());
                fold.apply(entry, &mut store).expect("maps can be read");
            }
        }
        store.rows
    }

    fn range(&self, range: RangeInclusive<RowKey>) -> impl DoubleEndedIterator<Item = (&RowKey, &RowValue)> {
        self.rows.range(range)
    }

    fn log(&self, feed: &FeedId) -> &[Entry] {
        self.logs.get(feed).map_or(&[], Vec::as_slice)
    }
}

impl Rows for MemStore {
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        Ok(self.rows.get(key).cloned())
    }

    fn head(&mut self, feed: &FeedId) -> Result<Head, RowsError> {
        Reader::head(self, feed)
    }

    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        Reader::entry(self, feed, seq)
    }

    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        match value {
            Some(value) => {
                self.rows.insert(key, value);
            }
            None => {
                self.rows.remove(&key);
            }
        }
    }
}

impl Reader for MemStore {
    fn row(&self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        Ok(self.rows.get(key).cloned())
    }

    fn head(&self, feed: &FeedId) -> Result<Head, RowsError> {
        Ok(self.log(feed).last().map(Head::of).unwrap_or_default())
    }

    fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        Ok(seq.0.checked_sub(1).and_then(|at| self.log(feed).get(at as usize)).cloned())
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
        let log = self.log(feed);
        let end = (to.0 as usize).min(log.len());
        let start = (from.0.max(1) as usize - 1).min(end);
        let mut bytes = 0;
        let mut fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry.size().max(1);
            first || bytes <= bytes_max.max(1)
        };
        let part = log[start..end].iter();
        Ok(if backward {
            part.rev().take_while(&mut fits).take(entries_max).cloned().collect()
        } else {
            part.take_while(&mut fits).take(entries_max).cloned().collect()
        })
    }

    fn counts(
        &self,
        feed: &FeedId,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Counts)>, RowsError> {
        let range = self.range(RowKey::Counts(feed.clone(), from)..=RowKey::Counts(feed.clone(), to));
        let rows = range.filter_map(|(key, value)| match (key, value) {
            (RowKey::Counts(_, block), RowValue::Counts(row)) => Some((*block, **row)),
            _ => None,
        });
        Ok(rows.take(limit).collect())
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
        let key = |block| RowKey::UserCounts(feed.clone(), uid.clone(), block);
        let rows = self.range(key(from)..=key(to)).filter_map(|(key, value)| match (key, value) {
            (RowKey::UserCounts(_, _, block), RowValue::UserCounts(row)) => Some((*block, **row)),
            _ => None,
        });
        Ok(if backward { rows.rev().take(limit).collect() } else { rows.take(limit).collect() })
    }

    fn fates(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        limit: usize,
    ) -> Result<Vec<(SeqId, Fate)>, RowsError> {
        let range = self.range(RowKey::Fate(feed.clone(), from)..=RowKey::Fate(feed.clone(), to));
        let rows = range.filter_map(|(key, value)| match (key, value) {
            (RowKey::Fate(_, seq), RowValue::Fate(row)) => Some((*seq, (**row).clone())),
            _ => None,
        });
        Ok(rows.take(limit).collect())
    }
}

/// A digest for tests: it tells inputs apart, and is no more than that.
pub fn toy_digest(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (lane, chunk) in out.chunks_mut(8).enumerate() {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ lane as u64;
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash ^= hash >> 29;
        chunk.copy_from_slice(&hash.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes());
    }
    out
}

/// A reaction key for tests.
pub(super) fn reaction(text: &str) -> ReactionKey {
    ReactionKey::parse(text).expect("a short constant is a valid key")
}
