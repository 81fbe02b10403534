//! Derives every row from the log again, beside the live rows, and compares or replaces them (P9, I-6).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use feedlog_core::entry::{Entry, Head};
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::projection::Fold;
use feedlog_core::rows::{RowKey, RowValue, Rows, RowsError};

use crate::format::row_v1;
use crate::keys::{self, Kind};
use crate::kv::{Batch, Kv, KvError, Table};
use crate::log::LogEngine;
use crate::verify::{Pages, Phase, Progress, Stop, VerifyReport, check_entries};
use crate::{Engine, EngineError};

/// Rows that wait in memory before they go to the scratch tables.
const PENDING_MAX: usize = 32_768;
/// Rows of one batch that repairs live tables.
const REPAIR_BATCH_MAX: usize = 4096;
const SCRATCH: &str = "scratch";

/// What a rebuild did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Feeds replayed.
    pub feeds: u64,
    /// Entries replayed.
    pub entries: u64,
    /// Rows that there are now.
    pub rows: u64,
    /// Rows that were missing.
    pub added: u64,
    /// Rows that no entry accounts for.
    pub removed: u64,
    /// Rows that had another value.
    pub changed: u64,
}

/// Tables of the same kind beside the live ones, for the time of one rebuild.
pub(crate) struct Scratch<K> {
    kv: Option<K>,
    dir: PathBuf,
}

impl<K: Kv> Scratch<K> {
    pub(crate) fn new(log: &LogEngine<K>) -> Result<Self, Stop> {
        // In the data directory, which is locked: nobody else uses the name.
        let dir = log.dir().map(|dir| dir.join(SCRATCH)).unwrap_or_default();
        let failed = |error: std::io::Error| {
            Stop::Failed(EngineError::Read(Arc::from(format!("{}: {error}", dir.display()))))
        };
        if log.dir().is_some() {
            match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => std::fs::create_dir(&dir).map_err(failed)?,
            }
        }
        let kv = (log.openers().scratch)(&dir)?;
        Ok(Self { kv: Some(kv), dir })
    }

    pub(crate) fn kv(&self) -> &K {
        self.kv.as_ref().expect("only dropping takes it")
    }
}

impl<K> Drop for Scratch<K> {
    fn drop(&mut self) {
        drop(self.kv.take());
        if !self.dir.as_os_str().is_empty()
            && let Err(error) = std::fs::remove_dir_all(&self.dir)
        {
            // The next rebuild removes it.
            tracing::warn!(%error, dir = %self.dir.display(), "the scratch directory was not removed");
        }
    }
}

/// The rows as they follow from the log so far.
pub(crate) struct Rebuild<'a, K> {
    log: &'a LogEngine<K>,
    live: &'a K,
    scratch: &'a K,
    pending: HashMap<(Table, Vec<u8>), Option<Bytes>>,
    /// The feed that is replayed.
    number: u64,
    fold: Fold,
    /// The entry that is replayed, the one that projections look at most.
    entry: Option<Entry>,
}

impl<'a, K: Kv> Rebuild<'a, K> {
    pub(crate) fn new(log: &'a LogEngine<K>, live: &'a K, scratch: &'a K) -> Self {
        Self { log, live, scratch, pending: HashMap::new(), number: 0, fold: Fold::default(), entry: None }
    }

    /// The next entries are of this feed, from its first.
    pub(crate) fn begin_feed(&mut self, number: u64) -> Result<(), KvError> {
        self.number = number;
        self.fold = Fold::default();
        self.entry = None;
        if self.pending.len() >= PENDING_MAX { self.flush() } else { Ok(()) }
    }

    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<(), RowsError> {
        if self.pending.len() >= PENDING_MAX {
            self.flush().map_err(|error| RowsError(Box::new(error)))?;
        }
        self.entry = Some(entry.clone());
        let mut fold = std::mem::take(&mut self.fold);
        let applied = fold.apply(entry, self);
        self.fold = fold;
        applied
    }

    pub(crate) fn flush(&mut self) -> Result<(), KvError> {
        let mut batch = Batch::default();
        for ((table, key), value) in self.pending.drain() {
            match value {
                Some(value) => batch.put(table, key, value),
                None => batch.delete(table, key),
            }
        }
        if batch.is_empty() { Ok(()) } else { self.scratch.write(&batch) }
    }

    /// Walks over live and rebuilt rows side by side; answers how many rebuilt rows there are.
    pub(crate) fn compare(
        &self,
        on_difference: &mut dyn FnMut(Difference) -> Result<(), Stop>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<u64, Stop> {
        let meta = (vec![*Kind::META_ROWS.start()], vec![*Kind::META_ROWS.end() + 1]);
        let mut done = 0;
        for (table, from, to) in
            [(Table::Rows, vec![], keys::BEYOND_ALL.to_vec()), (Table::Meta, meta.0, meta.1)]
        {
            let mut live = Pages::new(self.live, table, from.clone(), to.clone());
            let mut rebuilt = Pages::new(self.scratch, table, from, to);
            let (mut a, mut b) = (live.next()?, rebuilt.next()?);
            loop {
                let order = match (&a, &b) {
                    (None, None) => break,
                    (Some(_), None) => std::cmp::Ordering::Less,
                    (None, Some(_)) => std::cmp::Ordering::Greater,
                    (Some((a, _)), Some((b, _))) => a.cmp(b),
                };
                match order {
                    std::cmp::Ordering::Less => {
                        let (key, _) = a.take().expect("compared as present");
                        on_difference(self.difference(table, key, None, true))?;
                        a = live.next()?;
                    }
                    std::cmp::Ordering::Greater => {
                        let (key, value) = b.take().expect("compared as present");
                        on_difference(self.difference(table, key, Some(value), false))?;
                        b = rebuilt.next()?;
                        done += 1;
                    }
                    std::cmp::Ordering::Equal => {
                        let (key, value) = b.take().expect("compared as present");
                        if a.take().expect("compared as present").1 != value {
                            on_difference(self.difference(table, key, Some(value), true))?;
                        }
                        (a, b) = (live.next()?, rebuilt.next()?);
                        done += 1;
                    }
                }
                if done % 4096 == 0 {
                    progress(Progress { phase: Phase::Rows, done });
                }
            }
        }
        progress(Progress { phase: Phase::Rows, done });
        Ok(done)
    }

    fn difference(&self, table: Table, key: Vec<u8>, rebuilt: Option<Bytes>, is_live: bool) -> Difference {
        let feed = key
            .first_chunk::<8>()
            .filter(|_| table == Table::Rows)
            .and_then(|number| self.log.name(self.live, u64::from_be_bytes(*number)).ok());
        let row = keys::parse_row(table, &key, feed.as_ref());
        let feed = feed.or_else(|| row.as_ref().map(RowKey::owner));
        Difference { table, key, rebuilt, is_live, feed, row }
    }
}

impl<K: Kv> Rows for Rebuild<'_, K> {
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        let (table, bytes) = keys::row(key, self.number);
        let found = match self.pending.get(&(table, bytes.clone())) {
            Some(value) => value.clone(),
            None => self.scratch.get(table, &bytes).map_err(|error| RowsError(Box::new(error)))?,
        };
        found.map(|value| row_v1::decode(key, &value)).transpose().map_err(|error| RowsError(Box::new(error)))
    }

    fn head(&mut self, feed: &FeedId) -> Result<Head, RowsError> {
        self.log.head(feed).map_err(|error| RowsError(Box::new(error)))
    }

    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        match &self.entry {
            Some(entry) if entry.feed == *feed && entry.seq == seq => Ok(Some(entry.clone())),
            Some(entry) if entry.feed == *feed && entry.seq < seq => Ok(None),
            _ => self
                .log
                .read(feed, seq, seq, crate::Direction::Forward, 1, 0)
                .map(|mut entries| entries.pop())
                .map_err(|error| RowsError(Box::new(error))),
        }
    }

    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        let place = keys::row(&key, self.number);
        self.pending.insert(place, value.map(|value| Bytes::from(row_v1::encode(&value))));
    }
}

/// A row that is not what the log says.
pub(crate) struct Difference {
    table: Table,
    key: Vec<u8>,
    /// What it must be; `None` when no entry accounts for it.
    rebuilt: Option<Bytes>,
    is_live: bool,
    feed: Option<FeedId>,
    row: Option<RowKey>,
}

impl Difference {
    pub(crate) fn stop(&self) -> Stop {
        let row = match &self.row {
            Some(row) => format!("{row:?}"),
            None => self.key.iter().fold("key ".to_owned(), |text, byte| format!("{text}{byte:02x}")),
        };
        let what = match (&self.rebuilt, self.is_live) {
            (None, _) => "is there, no entry accounts for it",
            (Some(_), false) => "is missing",
            (Some(_), true) => "is not what the log says",
        };
        Stop::damage(Some(self.table), self.feed.as_ref(), None, format!("row {row} {what}"))
    }
}

/// Replays the whole log and replaces every row that is not what the log says. A damaged log is refused: nothing is
/// changed then. Nothing else is written meanwhile.
pub(crate) fn rebuild<K: Kv>(
    log: &LogEngine<K>,
    progress: &mut dyn FnMut(Progress),
) -> Result<RebuildReport, EngineError> {
    let _frozen = log.freeze();
    if log.is_poisoned() {
        return Err(EngineError::Poisoned);
    }
    let kv = log.kv()?;
    run(log, &kv, progress).map_err(|stop| match stop {
        Stop::Damage(damage) => EngineError::Damaged(Arc::from(damage.to_string())),
        Stop::Failed(error) => error,
    })
}

fn run<K: Kv>(log: &LogEngine<K>, kv: &K, progress: &mut dyn FnMut(Progress)) -> Result<RebuildReport, Stop> {
    let scratch = Scratch::new(log)?;
    let mut seen = VerifyReport::default();
    let mut rebuild = Rebuild::new(log, kv, scratch.kv());
    check_entries(log, kv, &mut seen, &mut rebuild, progress)?;
    rebuild.flush()?;
    let mut report = RebuildReport { feeds: seen.feeds, entries: seen.entries, ..RebuildReport::default() };
    let mut batch = Batch::default();
    report.rows = rebuild.compare(
        &mut |difference| {
            *match (&difference.rebuilt, difference.is_live) {
                (None, _) => &mut report.removed,
                (Some(_), false) => &mut report.added,
                (Some(_), true) => &mut report.changed,
            } += 1;
            match difference.rebuilt {
                Some(value) => batch.put(difference.table, difference.key, value),
                None => batch.delete(difference.table, difference.key),
            }
            if batch.ops().len() >= REPAIR_BATCH_MAX {
                kv.write(&std::mem::take(&mut batch))?;
            }
            Ok(())
        },
        progress,
    )?;
    if !batch.is_empty() {
        kv.write(&batch)?;
    }
    Ok(report)
}
