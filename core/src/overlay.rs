//! Rows and entries of one feed that are decided but not yet durable, laid over the durable ones.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::entry::{Entry, Head};
use crate::ids::{FeedId, SeqId};
use crate::read::Reader;
use crate::rows::{RowKey, RowValue, Rows, RowsError};

/// What one feed's undurable groups wrote. Groups are named by the place of their last entry.
#[derive(Debug)]
pub struct Overlay {
    feed: FeedId,
    /// The newest value of each row, with the group that wrote it.
    rows: HashMap<RowKey, (SeqId, Option<RowValue>), BuildHasherDefault<KeyHasher>>,
    /// Entries of all groups, contiguous.
    entries: VecDeque<Entry>,
    /// The rows that each group wrote.
    groups: VecDeque<(SeqId, Vec<RowKey>)>,
    /// The rows that the group in the making wrote so far.
    staged: Vec<RowKey>,
}

/// A multiply-and-rotate hash. The overlay holds only what is on its way to disk, which is bounded, so keys chosen to
/// collide gain nothing; the standard library's hash was the dearest part of a send.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl KeyHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) ^ bytes.len() as u64);
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        // The map takes its bucket from the low bits, and the multiplication mixes upwards.
        self.0 ^ (self.0 >> 32)
    }
}

/// Stands for the group in the making, which has no last entry yet.
const STAGED: SeqId = SeqId(u64::MAX);

impl Overlay {
    /// An empty overlay.
    pub fn new(feed: FeedId) -> Self {
        Self {
            feed,
            rows: HashMap::default(),
            entries: VecDeque::new(),
            groups: VecDeque::new(),
            staged: Vec::new(),
        }
    }

    /// Rows of this feed as of now, and of other feeds as durable: nothing of another feed's undurable groups is in here.
    pub fn view<'a>(&'a mut self, durable: &'a dyn Reader) -> impl Rows + 'a {
        View { overlay: self, durable }
    }

    /// Makes the entries of a new group readable. Call before projecting them through `view`.
    pub fn push(&mut self, entries: &[Entry]) {
        self.entries.extend(entries.iter().cloned());
    }

    /// Ends the group whose rows were put through `view`: these are the rows to commit with its entries, each key once.
    /// `last` is the place of the group's last entry.
    pub fn seal(&mut self, last: SeqId) -> Vec<(RowKey, Option<RowValue>)> {
        let mut sealed = Vec::with_capacity(self.staged.len());
        for key in &self.staged {
            if let Some((group, value)) = self.rows.get_mut(key) {
                *group = last;
                sealed.push((key.clone(), value.clone()));
            }
        }
        self.groups.push_back((last, std::mem::take(&mut self.staged)));
        sealed
    }

    /// Everything up to and including `upto` is durable: forgets it.
    pub fn retire(&mut self, upto: SeqId) {
        while let Some((last, keys)) = self.groups.pop_front_if(|(last, _)| *last <= upto) {
            for key in keys {
                // A later group may have written the row again.
                if self.rows.get(&key).is_some_and(|(group, _)| *group == last) {
                    self.rows.remove(&key);
                }
            }
        }
        while self.entries.pop_front_if(|entry| entry.seq <= upto).is_some() {}
    }

    /// A group was refused, and with it all later ones: forgets everything.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.entries.clear();
        self.groups.clear();
        self.staged.clear();
    }

    /// Whether everything is durable.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        match self.rows.get_mut(&key) {
            Some(row) => {
                if row.0 != STAGED {
                    self.staged.push(key);
                }
                *row = (STAGED, value);
            }
            None => {
                self.staged.push(key.clone());
                self.rows.insert(key, (STAGED, value));
            }
        }
    }

    fn entry(&self, seq: SeqId) -> Option<&Entry> {
        let first = self.entries.front()?.seq;
        self.entries.get(usize::try_from(seq.0.checked_sub(first.0)?).ok()?)
    }
}

struct View<'a> {
    overlay: &'a mut Overlay,
    durable: &'a dyn Reader,
}

impl Rows for View<'_> {
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        match self.overlay.rows.get(key) {
            Some((_, value)) => Ok(value.clone()),
            None => self.durable.row(key),
        }
    }

    fn head(&mut self, feed: &FeedId) -> Result<Head, RowsError> {
        self.durable.head(feed)
    }

    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        if *feed == self.overlay.feed
            && let Some(entry) = self.overlay.entry(seq)
        {
            return Ok(Some(entry.clone()));
        }
        self.durable.entry(feed, seq)
    }

    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        self.overlay.put(key, value);
    }
}

#[cfg(test)]
mod tests;
