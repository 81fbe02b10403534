//! Reads, all of them clipped at the durable head.

use std::ops::ControlFlow;

use bytes::Bytes;
use feedlog_core::entry::Entry;
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::rows::{RowKey, RowValue};

use super::{LogEngine, Tip, changes_of, damaged, read_error};
use crate::format::{self, Frame, row_v1};
use crate::keys::{self, Kind};
use crate::kv::{Kv, Table};
use crate::{Change, Direction, EngineError, Record, RowRange, StateKey, StateTable};

impl<K: Kv> LogEngine<K> {
    /// Number and tip of a feed that exists.
    pub(super) fn tip_of(&self, kv: &K, feed: &FeedId) -> Result<Option<(u64, Tip)>, EngineError> {
        let Some(number) = self.number(kv, feed)? else { return Ok(None) };
        if let Some(tip) = self.tips.get(&number) {
            return Ok(Some((number, tip)));
        }
        // The generation is read first: when no commit ended since, what was read is still the newest.
        let before = self.commit_no.load(std::sync::atomic::Ordering::Acquire);
        let tip = load_tip(kv, number, feed)?;
        if let Ok(writer) = self.writer.try_lock()
            && writer.commit_no == before
        {
            self.tips.insert(number, tip);
        }
        Ok(Some((number, tip)))
    }

    /// As [`Self::tip_of`], for the holder of the writer lock.
    pub(super) fn tip_for_writer(&self, kv: &K, feed: &FeedId) -> Result<Option<(u64, Tip)>, EngineError> {
        let Some(number) = self.number(kv, feed)? else { return Ok(None) };
        let tip = match self.tips.get(&number) {
            Some(tip) => tip,
            None => load_tip(kv, number, feed)?,
        };
        Ok(Some((number, tip)))
    }

    /// Visits the entries of `from..=to` that exist, `to` clipped at the durable head, until `visit` breaks.
    fn scan_entries(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        direction: Direction,
        mut visit: impl FnMut(&Frame<'_>, &[u8]) -> Result<ControlFlow<()>, EngineError>,
    ) -> Result<(), EngineError> {
        let kv = self.kv()?;
        let Some((number, tip)) = self.tip_of(&kv, feed)? else { return Ok(()) };
        let (from, to) = (from.max(SeqId(1)), to.min(tip.head.seq));
        if from > to {
            return Ok(());
        }
        let (low, high) = (keys::entry_array(number, from), keys::entry_array(number, to.next()));
        let mut expected = if direction == Direction::Forward { from } else { to };
        let mut failed = None;
        let mut ended_early = false;
        kv.scan(Table::Entries, &low, &high, direction, &mut |key, value| {
            let step = Frame::parse(key, value)
                .map_err(|error| damaged(format_args!("entry {expected} of feed {feed:?}: {error}")))
                .and_then(|frame| {
                    // INVARIANT I-1: what a reader is given has no gap.
                    if frame.seq != expected {
                        return Err(damaged(format_args!("entry {expected} of feed {feed:?} is missing")));
                    }
                    visit(&frame, value)
                });
            expected = if direction == Direction::Forward { expected.next() } else { expected.prev() };
            match step {
                Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
                Ok(ControlFlow::Break(())) => {
                    ended_early = true;
                    ControlFlow::Break(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })
        .map_err(read_error)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let beyond = if direction == Direction::Forward { to.next() } else { from.prev() };
        if !ended_early && expected != beyond {
            return Err(damaged(format_args!("entry {expected} of feed {feed:?} is missing")));
        }
        Ok(())
    }

    pub(super) fn read_entries(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        direction: Direction,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, EngineError> {
        let mut page = Page::new(entries_max, bytes_max);
        if entries_max == 0 {
            return Ok(Vec::new());
        }
        if direction == Direction::Backward
            && let Some(entries) = self.read_newest(feed, from, to, entries_max, bytes_max)?
        {
            return Ok(entries);
        }
        let mut sender: Option<Uid> = None;
        self.scan_entries(feed, from, to, direction, |frame, value| {
            if !page.takes(frame.size()) {
                return Ok(ControlFlow::Break(()));
            }
            let entry = self.decode(feed, frame, value, sender.as_ref())?;
            sender = Some(entry.sender.clone());
            Ok(page.push(entry))
        })?;
        Ok(page.items)
    }

    /// A small page backwards, read forwards: the log is dense, so its first entry is known, and engines step forwards
    /// much faster. `None` when the page is large or its payloads do not fit: then it must be read from its end.
    fn read_newest(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Vec<Entry>>, EngineError> {
        let kv = self.kv()?;
        let Some((_, tip)) = self.tip_of(&kv, feed)? else { return Ok(Some(Vec::new())) };
        drop(kv);
        let to = to.min(tip.head.seq);
        if entries_max > FORWARD_PAGE_MAX || from > to {
            return Ok(None);
        }
        let from = from.max(SeqId((to.0 + 1).saturating_sub(entries_max as u64)));
        let mut entries = Vec::with_capacity((to.0 + 1 - from.0) as usize);
        let mut bytes_left = bytes_max;
        let mut fits = true;
        let mut sender: Option<Uid> = None;
        self.scan_entries(feed, from, to, Direction::Forward, |frame, value| {
            match bytes_left.checked_sub(frame.size()) {
                Some(left) => bytes_left = left,
                None => {
                    fits = false;
                    return Ok(ControlFlow::Break(()));
                }
            }
            let entry = self.decode(feed, frame, value, sender.as_ref())?;
            sender = Some(entry.sender.clone());
            entries.push(entry);
            Ok(ControlFlow::Continue(()))
        })?;
        entries.reverse();
        Ok(fits.then_some(entries))
    }

    pub(super) fn read_records(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, EngineError> {
        let mut page = Page::new(entries_max, bytes_max);
        if entries_max == 0 {
            return Ok(Vec::new());
        }
        self.scan_entries(feed, from, to, Direction::Forward, |frame, value| {
            if !page.takes(frame.size()) {
                return Ok(ControlFlow::Break(()));
            }
            Ok(page.push(Record {
                entry: self.decode(feed, frame, value, None)?,
                version: frame.version,
                payload_hash: frame.payload_hash(),
                chain_hash: frame.chain_hash,
                node: frame.node,
                commit_no: frame.commit_no,
            }))
        })?;
        Ok(page.items)
    }

    fn decode(
        &self,
        feed: &FeedId,
        frame: &Frame<'_>,
        value: &[u8],
        sender: Option<&Uid>,
    ) -> Result<Entry, EngineError> {
        frame
            .entry(feed, &self.upcasters, |range| Bytes::copy_from_slice(&value[range]), sender)
            .map_err(|error| damaged(format_args!("entry {} of feed {feed:?}: {error}", frame.seq)))
    }

    pub(super) fn read_row(&self, key: &RowKey) -> Result<Option<RowValue>, EngineError> {
        let kv = self.kv()?;
        let number = match keys::feed_of(key) {
            None => 0,
            Some(feed) => match self.number(&kv, feed)? {
                Some(number) => number,
                None => return Ok(None),
            },
        };
        let (table, bytes) = keys::row(key, number);
        let Some(value) = kv.get(table, &bytes).map_err(read_error)? else { return Ok(None) };
        decode_row(key, &value).map(Some)
    }

    pub(super) fn read_rows(
        &self,
        range: &RowRange,
        direction: Direction,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, RowValue)>, EngineError> {
        let kv = self.kv()?;
        let feed = keys::feed_of_range(range);
        let number = match feed {
            None => 0,
            Some(feed) => match self.number(&kv, feed)? {
                Some(number) => number,
                None => return Ok(Vec::new()),
            },
        };
        let mut bounds = keys::row_range(range, number);
        if let Some(after) = after {
            let (_, mut key) = keys::row(after, number);
            match direction {
                Direction::Forward => {
                    key.push(0);
                    bounds.from = bounds.from.max(key);
                }
                Direction::Backward => bounds.to = bounds.to.min(key),
            }
        }
        let mut rows = Vec::new();
        if limit == 0 || bounds.from >= bounds.to {
            return Ok(rows);
        }
        let mut failed = None;
        kv.scan(bounds.table, &bounds.from, &bounds.to, direction, &mut |key, value| {
            let row = keys::parse_row(bounds.table, key, feed)
                .ok_or_else(|| damaged(format_args!("a key of {range:?} is no key")))
                .and_then(|key| decode_row(&key, value).map(|value| (key, value)));
            match row {
                Ok(row) => rows.push(row),
                Err(error) => failed = Some(error),
            }
            if failed.is_some() || rows.len() >= limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .map_err(read_error)?;
        failed.map_or(Ok(rows), Err)
    }

    pub(super) fn read_feeds(
        &self,
        after: Option<&FeedId>,
        limit: usize,
    ) -> Result<Vec<FeedId>, EngineError> {
        let range = keys::all_of(Kind::FeedNumber);
        let from = after.map_or(range.from, |after| {
            let mut key = keys::feed_number(after);
            key.push(0);
            key
        });
        self.collect(&from, &range.to, limit, |key, _| {
            format::decode_feed_name(&key[1..])
                .map_err(|error| damaged(format_args!("a feed's name: {error}")))
        })
    }

    pub(super) fn read_states(
        &self,
        table: StateTable,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(StateKey, Bytes)>, EngineError> {
        let range = keys::states_of(table, prefix);
        let mut from = range.from;
        if let Some(after) = after {
            let mut beyond = keys::state(table, after);
            beyond.push(0);
            from = from.max(beyond);
        }
        self.collect(&from, &range.to, limit, |key, value| {
            Ok((StateKey { table, key: key[2..].to_vec() }, Bytes::copy_from_slice(value)))
        })
    }

    pub(super) fn read_changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, EngineError> {
        let (_, to) = changes_of(self.options.node);
        let upto = self.commit_no.load(std::sync::atomic::Ordering::Acquire);
        let (Some(first), true) = (after.checked_add(1), after < upto) else { return Ok(Vec::new()) };
        let from = keys::change(self.options.node, first);
        let numbered = self.collect(&from, &to, limit, |key, value| {
            let (_, commit_no) =
                keys::parse_change(key).ok_or_else(|| damaged(format_args!("the key of a change row")))?;
            let feeds = format::decode_change(value)
                .map_err(|error| damaged(format_args!("change row {commit_no}: {error}")))?;
            Ok((commit_no, feeds))
        })?;
        let kv = self.kv()?;
        numbered
            .into_iter()
            .take_while(|(commit_no, _)| *commit_no <= upto)
            .map(|(commit_no, feeds)| {
                let feeds = feeds
                    .into_iter()
                    .map(|(number, first, last)| Ok((self.name(&kv, number)?, first, last)))
                    .collect::<Result<_, EngineError>>()?;
                Ok(Change { commit_no, feeds })
            })
            .collect()
    }

    fn collect<T>(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        mut decode: impl FnMut(&[u8], &[u8]) -> Result<T, EngineError>,
    ) -> Result<Vec<T>, EngineError> {
        let kv = self.kv()?;
        let mut items = Vec::new();
        if limit == 0 || from >= to {
            return Ok(items);
        }
        let mut failed = None;
        kv.scan(Table::Meta, from, to, Direction::Forward, &mut |key, value| {
            match decode(key, value) {
                Ok(item) => items.push(item),
                Err(error) => failed = Some(error),
            }
            if failed.is_some() || items.len() >= limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .map_err(read_error)?;
        failed.map_or(Ok(items), Err)
    }
}

fn decode_row(key: &RowKey, value: &[u8]) -> Result<RowValue, EngineError> {
    row_v1::decode(key, value).map_err(|error| damaged(format_args!("row {key:?}: {error}")))
}

/// The tip of a feed that has a number: its last entry.
pub(super) fn load_tip<K: Kv>(kv: &K, number: u64, feed: &FeedId) -> Result<Tip, EngineError> {
    let (from, to) = keys::entries_of(number);
    let mut tip = None;
    kv.scan(Table::Entries, &from, &to, Direction::Backward, &mut |key, value| {
        tip = Some(Frame::parse(key, value).map(|frame| Tip { head: frame.head(), chain: frame.chain_hash }));
        ControlFlow::Break(())
    })
    .map_err(read_error)?;
    match tip {
        Some(Ok(tip)) => Ok(tip),
        Some(Err(error)) => Err(damaged(format_args!("last entry of feed {feed:?}: {error}"))),
        // A number is written only together with a first entry.
        None => Err(damaged(format_args!("feed {feed:?} has a number and no entries"))),
    }
}

/// Larger pages backwards are read from their end.
const FORWARD_PAGE_MAX: usize = 256;

/// What a page still takes.
struct Page<T> {
    items: Vec<T>,
    entries_max: usize,
    bytes_left: usize,
}

impl<T> Page<T> {
    fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { items: Vec::with_capacity(entries_max.min(64)), entries_max, bytes_left: bytes_max }
    }

    /// Whether an entry with this much payload fits; the first one always does.
    fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.items.is_empty() || bytes <= self.bytes_left;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        fits
    }

    fn push(&mut self, item: T) -> ControlFlow<()> {
        self.items.push(item);
        if self.items.len() >= self.entries_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
