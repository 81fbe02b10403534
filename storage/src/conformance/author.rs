//! Appends events with the rows that the core derives from them, as the service does: stores that `verify` accepts.

use std::collections::HashMap;
use std::sync::Arc;

use feedlog_core::entry::{Entry, Head, Payload};
use feedlog_core::event::{Event, FeedKind, HistoryMode, JoinMode};
use feedlog_core::ids::{FeedId, SeqId, TimeMs, Uid};
use feedlog_core::projection::Fold;
use feedlog_core::rows::{RowKey, RowValue, Rows, RowsError};

use crate::{Direction, Engine, EngineError, Group, LogPart};

/// One writer of some feeds of a store. What it writes is in the next [`Author::commit`].
pub struct Author {
    engine: Arc<dyn Engine>,
    desks: HashMap<FeedId, Desk>,
    /// Feeds with something to commit, in the order of their first event.
    pending: Vec<FeedId>,
}

/// One feed at work.
struct Desk {
    fold: Fold,
    head: Head,
    durable: SeqId,
    entries: Vec<Entry>,
    rows: HashMap<RowKey, Option<RowValue>>,
}

impl Author {
    /// An author who begins at what is durable.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, desks: HashMap::new(), pending: Vec::new() }
    }

    /// The head including what is not committed yet.
    pub fn head(&mut self, feed: &FeedId) -> Result<Head, EngineError> {
        Ok(self.desk(feed)?.head)
    }

    /// Creates an open feed, unless it exists.
    pub fn open_feed(&mut self, feed: &FeedId, creator: &Uid) -> Result<(), EngineError> {
        if self.desk(feed)?.head.seq == SeqId::ZERO {
            let event = Event::FeedCreated {
                kind: FeedKind::Open,
                title: None,
                join: JoinMode::Open,
                history: HistoryMode::All,
                meta: None,
                pair: None,
            };
            self.write(feed, creator, 0, event, Payload::None)?;
        }
        Ok(())
    }

    /// Adds one event at the end of its feed; its time is at least that of the entry before.
    pub fn write(
        &mut self,
        feed: &FeedId,
        sender: &Uid,
        time_ms: TimeMs,
        event: Event,
        payload: Payload,
    ) -> Result<SeqId, EngineError> {
        let engine = self.engine.clone();
        let desk = self.desk(feed)?;
        let is_first = desk.entries.is_empty();
        let message = event.is_message();
        let entry = Entry {
            feed: feed.clone(),
            seq: desk.head.seq.next(),
            ordinal: if message { desk.head.ordinal.next() } else { desk.head.ordinal },
            time_ms: time_ms.max(desk.head.time_ms),
            sender: sender.clone(),
            event,
            payload,
        };
        desk.head = Head::of(&entry);
        desk.entries.push(entry);
        let Desk { fold, entries, rows, .. } = desk;
        let entry = entries.last().expect("pushed above");
        fold.apply(entry, &mut View { engine: &*engine, entries, rows })
            .map_err(|error| EngineError::Read(Arc::from(error.to_string())))?;
        let seq = entry.seq;
        if is_first {
            self.pending.push(feed.clone());
        }
        Ok(seq)
    }

    /// Commits everything written since: one group per feed. Gives the entries, durable, and the commit's number. After
    /// an error the author is of no more use.
    pub fn commit(&mut self) -> Result<(Vec<Entry>, u64), EngineError> {
        let mut groups = Vec::new();
        for feed in self.pending.drain(..) {
            let Some(desk) = self.desks.get_mut(&feed) else { continue };
            let expected = desk.durable;
            desk.durable = desk.head.seq;
            let mut rows: Vec<_> = desk.rows.drain().collect();
            // A map has no order, and stored bytes should not depend on chance.
            rows.sort_by_cached_key(|(key, _)| format!("{key:?}"));
            let entries = std::mem::take(&mut desk.entries);
            groups.push(Group {
                log: Some(LogPart { feed, expected, entries, rows, strip: Vec::new() }),
                state: Vec::new(),
            });
        }
        let mut entries = Vec::new();
        let mut commit_no = self.engine.commit_no();
        for outcome in self.engine.commit(groups) {
            let committed = outcome?;
            commit_no = committed.commit_no();
            entries.extend(committed.into_entries());
        }
        Ok((entries, commit_no))
    }

    fn desk(&mut self, feed: &FeedId) -> Result<&mut Desk, EngineError> {
        if !self.desks.contains_key(feed) {
            let head = self.engine.head(feed)?;
            let state = self.engine.row(&RowKey::Feed(feed.clone()))?.and_then(RowValue::into_feed);
            let desk = Desk {
                fold: Fold { state },
                head,
                durable: head.seq,
                entries: Vec::new(),
                rows: HashMap::new(),
            };
            self.desks.insert(feed.clone(), desk);
        }
        Ok(self.desks.get_mut(feed).expect("inserted above"))
    }
}

struct View<'a> {
    engine: &'a dyn Engine,
    entries: &'a [Entry],
    rows: &'a mut HashMap<RowKey, Option<RowValue>>,
}

impl Rows for View<'_> {
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        match self.rows.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.engine.row(key).map_err(|error| RowsError(Box::new(error))),
        }
    }

    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        if let Some(entry) = self.entries.iter().find(|entry| entry.feed == *feed && entry.seq == seq) {
            return Ok(Some(entry.clone()));
        }
        let found = self.engine.read(feed, seq, seq, Direction::Forward, 1, 1);
        found.map(|mut entries| entries.pop()).map_err(|error| RowsError(Box::new(error)))
    }

    fn head(&mut self, feed: &FeedId) -> Result<Head, RowsError> {
        self.engine.head(feed).map_err(|error| RowsError(Box::new(error)))
    }

    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        self.rows.insert(key, value);
    }
}
