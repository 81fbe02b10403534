//! The engine as the core reads it, and ranges of rows fetched in pages.

use feedlog_core::entry::{Entry, Head};
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::read::Reader;
use feedlog_core::rows::{Counts, Fate, RowKey, RowValue, RowsError, UserCounts};
use feedlog_storage::{Direction, Engine, EngineError, RowRange};

use crate::error::ReadError;

/// An engine as the core reads it.
pub(crate) struct EngineReader<'a>(pub(crate) &'a dyn Engine);

/// Rows that one scan fetches at once.
const SCAN_MAX: usize = 1000;

fn failed(error: EngineError) -> RowsError {
    RowsError(Box::new(error))
}

impl Reader for EngineReader<'_> {
    fn row(&self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        self.0.row(key).map_err(failed)
    }

    fn head(&self, feed: &FeedId) -> Result<Head, RowsError> {
        self.0.head(feed).map_err(failed)
    }

    fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        if seq == SeqId::ZERO {
            return Ok(None);
        }
        let mut entries = self.0.read(feed, seq, seq, Direction::Forward, 1, 0).map_err(failed)?;
        Ok(entries.pop())
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
        self.0.read(feed, from, to, direction(backward), entries_max, bytes_max).map_err(failed)
    }

    fn counts(
        &self,
        feed: &FeedId,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Counts)>, RowsError> {
        // One block is the usual case, and a point read is much cheaper than a scan.
        if from == to {
            let row = self.row(&RowKey::Counts(feed.clone(), from))?.and_then(RowValue::into_counts);
            return Ok(row.map(|row| (from, *row)).into_iter().collect());
        }
        let range = RowRange::Counts(feed.clone(), from, to);
        let rows = self.0.rows(&range, Direction::Forward, None, limit).map_err(failed)?;
        Ok(rows
            .into_iter()
            .filter_map(|row| match row {
                (RowKey::Counts(_, block), RowValue::Counts(counts)) => Some((block, *counts)),
                _ => None,
            })
            .collect())
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
        if from == to {
            let key = RowKey::UserCounts(feed.clone(), uid.clone(), from);
            let row = self.row(&key)?.and_then(RowValue::into_user_counts);
            return Ok(row.map(|row| (from, *row)).into_iter().collect());
        }
        let range = RowRange::UserCounts(feed.clone(), uid.clone(), from, to);
        let rows = self.0.rows(&range, direction(backward), None, limit).map_err(failed)?;
        Ok(rows
            .into_iter()
            .filter_map(|row| match row {
                (RowKey::UserCounts(_, _, block), RowValue::UserCounts(counts)) => Some((block, *counts)),
                _ => None,
            })
            .collect())
    }

    fn fates(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        limit: usize,
    ) -> Result<Vec<(SeqId, Fate)>, RowsError> {
        let range = RowRange::Fates(feed.clone(), from, to);
        let rows = self.0.rows(&range, Direction::Forward, None, limit).map_err(failed)?;
        Ok(rows
            .into_iter()
            .filter_map(|row| match row {
                (RowKey::Fate(_, seq), RowValue::Fate(fate)) => Some((seq, *fate)),
                _ => None,
            })
            .collect())
    }
}

fn direction(backward: bool) -> Direction {
    if backward { Direction::Backward } else { Direction::Forward }
}

impl From<RowsError> for ReadError {
    fn from(error: RowsError) -> Self {
        match error.0.downcast_ref::<EngineError>() {
            Some(error) => error.clone().into(),
            None => {
                tracing::error!(%error, "a read failed");
                Self::Damaged
            }
        }
    }
}

impl From<EngineError> for ReadError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Damaged(_) => {
                tracing::error!(%error, "damaged data was not served");
                Self::Damaged
            }
            EngineError::Closed => Self::Unavailable("closing"),
            EngineError::NoSpace => Self::Unavailable("free space is below the reserve"),
            EngineError::Poisoned => Self::Unavailable("an earlier sync failed"),
            error => {
                tracing::error!(%error, "a read failed");
                Self::Unavailable("the engine does not answer")
            }
        }
    }
}

/// All rows of a range, fetched in pages.
pub(crate) struct Scan<'a> {
    engine: &'a dyn Engine,
    range: RowRange,
    page: std::vec::IntoIter<(RowKey, RowValue)>,
    after: Option<RowKey>,
    ended: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(engine: &'a dyn Engine, range: RowRange) -> Self {
        Self { engine, range, page: Vec::new().into_iter(), after: None, ended: false }
    }

    pub(crate) fn next(&mut self) -> Result<Option<(RowKey, RowValue)>, EngineError> {
        if self.page.as_slice().is_empty() && !self.ended {
            let page = self.engine.rows(&self.range, Direction::Forward, self.after.as_ref(), SCAN_MAX)?;
            self.ended = page.len() < SCAN_MAX;
            self.after = page.last().map(|(key, _)| key.clone());
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}
