//! The only write: groups are checked and staged into one batch, and the batch is written.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use feedlog_core::entry::{Entry, Head};
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::rows::RowKey;

use super::{LogEngine, Poison, Tip, Writer, damaged, read_error};
use crate::format::{self, Frame, row_v1};
use crate::keys;
use crate::kv::{Batch, Kv, KvError, Op, Table};
use crate::{Committed, EngineError, Group, LogPart};

type KeyValue = (Vec<u8>, Vec<u8>);

/// Change rows that are removed one by one: a removed range costs every later read of the table a little.
const PRUNE_SINGLY_MAX: u64 = 256;

/// A feed in the course of one commit.
struct Work {
    number: u64,
    /// The head that earlier groups of this commit left; `None` for a feed without entries.
    tip: Option<Tip>,
    /// The durable head before this commit.
    durable: SeqId,
    /// The name and number are in the batch.
    is_new: bool,
    /// The first entry that this commit adds.
    first: Option<SeqId>,
    /// A group was refused: later ones of this feed rest on it.
    refused: bool,
}

impl Work {
    fn head(&self) -> Head {
        self.tip.map(|tip| tip.head).unwrap_or_default()
    }
}

/// One batch in the making.
struct Stage<'a, K> {
    log: &'a LogEngine<K>,
    kv: &'a K,
    commit_no: u64,
    next_number: u64,
    batch: Batch,
    feeds: HashMap<FeedId, Work>,
    /// Feeds with new entries, in the order of their first.
    touched: Vec<FeedId>,
}

impl<K: Kv> LogEngine<K> {
    pub(super) fn commit_groups(&self, groups: Vec<Group>) -> Vec<Result<Committed, EngineError>> {
        let count = groups.len();
        let all = |error: EngineError| (0..count).map(|_| Err(error.clone())).collect();
        let mut writer = self.writer();
        let kv = match self.kv() {
            Ok(kv) => kv,
            Err(error) => return all(error),
        };
        if self.poison() != Poison::None {
            // INVARIANT I-7: after a failed sync nothing more is written at all.
            return all(EngineError::Poisoned);
        }
        let mut stage = Stage {
            log: self,
            kv: &kv,
            commit_no: writer.commit_no + 1,
            next_number: writer.next_number,
            batch: Batch::default(),
            feeds: HashMap::with_capacity(count),
            touched: Vec::new(),
        };
        let staged: Vec<Result<Vec<Entry>, EngineError>> =
            groups.into_iter().map(|group| stage.add(group)).collect();
        let Stage { mut batch, feeds, touched, next_number, .. } = stage;
        let commit_no = if touched.is_empty() { writer.commit_no } else { writer.commit_no + 1 };
        if !touched.is_empty() {
            let change = encode_change(&touched, &feeds);
            batch.put(Table::Meta, keys::change(self.options.node, commit_no), change);
        }
        let written = self.write(&kv, &mut writer, &batch);
        if written.is_ok() && !touched.is_empty() {
            self.advance(&mut writer, commit_no, next_number, feeds);
        }
        staged
            .into_iter()
            .map(|entries| match (entries, &written) {
                (Ok(entries), Ok(())) => Ok(Committed { entries, commit_no }),
                (Ok(_), Err(error)) => Err(error.clone()),
                (Err(error), _) => Err(error),
            })
            .collect()
    }

    /// **The durable write.** On `Ok` the batch survives a power cut.
    fn write(&self, kv: &K, writer: &mut Writer, batch: &Batch) -> Result<(), EngineError> {
        if batch.is_empty() {
            return Ok(());
        }
        if !writer.space.allows(batch.bytes() as u64) {
            return Err(EngineError::NoSpace);
        }
        kv.write(batch).map_err(|error| {
            let (poison, text) = match error {
                KvError::Refused(text) => return EngineError::Refused(text),
                KvError::Full(text) => (Poison::Full, text),
                KvError::Unknown(text) | KvError::Damaged(text) => (Poison::Hard, text),
            };
            // A failed sync is not retried: the kernel may have dropped the pages that it could not write.
            self.poison.store(poison as u8, Ordering::Release);
            tracing::error!(error = %text, "a write failed; nothing more is written until the store is opened again");
            EngineError::Unknown(text)
        })
    }

    fn advance(&self, writer: &mut Writer, commit_no: u64, next_number: u64, feeds: HashMap<FeedId, Work>) {
        for (feed, work) in feeds {
            if let (Some(_), Some(tip)) = (work.first, work.tip) {
                self.tips.insert(work.number, tip);
                if work.is_new {
                    self.numbers.insert(feed, work.number);
                }
            }
        }
        writer.commit_no = commit_no;
        writer.next_number = next_number;
        self.commit_no.store(commit_no, Ordering::Release);
        if let Some(guard) = &self.guard {
            guard.note(commit_no);
        }
    }

    /// Removes change rows, never the newest: it tells the number of the next commit.
    pub(super) fn prune(&self, upto: u64) -> Result<(), EngineError> {
        let mut writer = self.writer();
        let kv = self.kv()?;
        if self.poison() != Poison::None {
            return Err(EngineError::Poisoned);
        }
        let (start, end) = (writer.first_change, upto.saturating_add(1).min(writer.commit_no));
        if end <= start {
            return Ok(());
        }
        let mut batch = Batch::default();
        let node = self.options.node;
        if end - start <= PRUNE_SINGLY_MAX {
            (start..end).for_each(|commit_no| batch.delete(Table::Meta, keys::change(node, commit_no)));
        } else {
            batch.delete_range(Table::Meta, keys::change(node, start), keys::change(node, end));
        }
        self.write(&kv, &mut writer, &batch)?;
        writer.first_change = end;
        Ok(())
    }
}

fn encode_change(touched: &[FeedId], feeds: &HashMap<FeedId, Work>) -> Vec<u8> {
    let ranges: Vec<_> = touched
        .iter()
        .filter_map(|feed| {
            let work = feeds.get(feed)?;
            Some((work.number, work.first?, work.head().seq))
        })
        .collect();
    format::encode_change(&ranges)
}

impl<K: Kv> Stage<'_, K> {
    /// Stages a group whole or not at all.
    fn add(&mut self, group: Group) -> Result<Vec<Entry>, EngineError> {
        let entries = match group.log {
            Some(part) => self.add_log(part)?,
            None => Vec::new(),
        };
        for (key, value) in group.state {
            let bytes = keys::state(key.table, &key.key);
            match value {
                Some(value) => self.batch.put(Table::Meta, bytes, value),
                None => self.batch.delete(Table::Meta, bytes),
            }
        }
        Ok(entries)
    }

    fn add_log(&mut self, part: LogPart) -> Result<Vec<Entry>, EngineError> {
        let mut work = match self.feeds.remove(&part.feed) {
            Some(work) => work,
            None => self.load(&part.feed)?,
        };
        let staged = self.add_to_feed(&part, &mut work);
        work.refused |= staged.is_err();
        self.feeds.insert(part.feed, work);
        staged.map(|()| part.entries)
    }

    fn load(&self, feed: &FeedId) -> Result<Work, EngineError> {
        Ok(match self.log.tip_for_writer(self.kv, feed)? {
            Some((number, tip)) => Work {
                number,
                tip: Some(tip),
                durable: tip.head.seq,
                is_new: false,
                first: None,
                refused: false,
            },
            None => {
                Work { number: 0, tip: None, durable: SeqId::ZERO, is_new: true, first: None, refused: false }
            }
        })
    }

    fn add_to_feed(&mut self, part: &LogPart, work: &mut Work) -> Result<(), EngineError> {
        let head = work.head();
        // INVARIANT I-7: after a refused head nothing more is written for that feed until its state is reloaded.
        if work.refused || part.expected != head.seq {
            return Err(EngineError::HeadMoved { head: head.seq });
        }
        check(part, head)?;
        let stripped = self.strip(part, work)?;

        // From here on nothing fails: a group is staged whole or not at all.
        if work.tip.is_none() && !part.entries.is_empty() {
            work.number = self.next_number;
            self.next_number += 1;
            let name = part.feed.as_str().as_bytes().to_vec();
            self.batch.put(
                Table::Meta,
                keys::feed_number(&part.feed),
                format::encode_feed_number(work.number),
            );
            self.batch.put(Table::Meta, keys::feed_name(work.number), name);
        }
        for entry in &part.entries {
            let key = keys::entry_array(work.number, entry.seq);
            let previous = work.tip.map_or([0; 32], |tip| tip.chain);
            let (value, chain) =
                format::encode_entry(&key, entry, self.log.options.node, self.commit_no, &previous);
            self.batch.put(Table::Entries, key.to_vec(), value);
            work.tip = Some(Tip { head: Head::of(entry), chain });
        }
        for (key, value) in stripped {
            self.batch.put(Table::Entries, key, value);
        }
        for (key, value) in &part.rows {
            let (table, bytes) = keys::row(key, work.number);
            match value {
                Some(value) => self.batch.put(table, bytes, row_v1::encode(value)),
                None => self.batch.delete(table, bytes),
            }
        }
        if let (None, Some(entry)) = (work.first, part.entries.first()) {
            work.first = Some(entry.seq);
            self.touched.push(part.feed.clone());
        }
        Ok(())
    }

    /// The tombstones of the entries that the group strips.
    ///
    /// INVARIANT I-3: this is all that ever replaces a stored entry; place, header and hashes stay.
    fn strip(&self, part: &LogPart, work: &Work) -> Result<Vec<KeyValue>, EngineError> {
        let mut stripped = Vec::with_capacity(part.strip.len());
        for seq in &part.strip {
            if *seq == SeqId::ZERO || *seq > part.expected {
                return Err(EngineError::BadGroup("it strips an entry that is not older than the group"));
            }
            let key = keys::entry_array(work.number, *seq);
            let value = if *seq > work.durable {
                self.staged(&key)
            } else {
                self.kv.get(Table::Entries, &key).map_err(read_error)?
            };
            let place = |error: &dyn std::fmt::Display| {
                damaged(format_args!("entry {seq} of feed {:?}: {error}", part.feed))
            };
            let value = value.ok_or_else(|| place(&"missing"))?;
            let frame = Frame::parse(&key, &value).map_err(|error| place(&error))?;
            if let Some(tombstone) = frame.stripped(&key) {
                stripped.push((key.to_vec(), tombstone));
            }
        }
        Ok(stripped)
    }

    /// A value of this batch. Erasing what is appended in the same commit is rare: looking through is enough.
    fn staged(&self, key: &[u8]) -> Option<bytes::Bytes> {
        self.batch.ops().iter().rev().find_map(|op| match op {
            Op::Put(Table::Entries, at, value) if at == key => Some(value.clone()),
            _ => None,
        })
    }
}

/// INVARIANT I-1: entries are contiguous, their ordinals dense, their times in order; rows are the feed's own.
fn check(part: &LogPart, mut head: Head) -> Result<(), EngineError> {
    let bad = |what| Err(EngineError::BadGroup(what));
    for entry in &part.entries {
        if entry.feed != part.feed {
            return bad("an entry is of another feed");
        }
        if entry.seq != head.seq.next() || entry.seq > SeqId::MAX {
            return bad("the entries are not contiguous");
        }
        let ordinal = if entry.event.is_message() { head.ordinal.next() } else { head.ordinal };
        if entry.ordinal != ordinal {
            return bad("an ordinal is not the count of messages");
        }
        if entry.time_ms < head.time_ms {
            return bad("the time runs backwards");
        }
        head = Head::of(entry);
    }
    if head.seq == SeqId::ZERO && !part.rows.is_empty() {
        return bad("rows of a feed without entries");
    }
    for (key, value) in &part.rows {
        if !is_owner(key, &part.feed) {
            return bad("a row is owned by another feed");
        }
        if value.as_ref().is_some_and(|value| !row_v1::fits(key, value)) {
            return bad("a row's value is not of its key's type");
        }
    }
    Ok(())
}

/// As [`RowKey::owner`], without making a name.
fn is_owner(key: &RowKey, feed: &FeedId) -> bool {
    match key {
        RowKey::Place(uid, _) | RowKey::Receipt(_, uid) => {
            feed.as_str().strip_prefix(feedlog_core::ids::PERSONAL_PREFIX) == Some(uid.as_str())
        }
        RowKey::UserFeed(_, owner) | RowKey::Expiry(_, owner, _) => owner == feed,
        other => keys::feed_of(other) == Some(feed),
    }
}
