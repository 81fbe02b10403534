//! An export of feedlog, verbatim, into an empty store: the same entries, the same chain hashes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use feedlog_core::entry::{Entry, Head};
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::projection::Fold;
use feedlog_core::rows::{RowKey, RowValue, Rows, RowsError};
use feedlog_service::export::{FeedSum, Proven};
use feedlog_storage::{Direction, Engine, EngineError, Group, LogPart, Record};
use serde_json::json;

use crate::cli::export::{check_lines, engine_failure, open};
use crate::cli::fail::Fail;
use crate::cli::out::Out;
use crate::cli::store::{self, StoreArgs};

/// Entries in one commit.
const COMMIT_ENTRIES: usize = 1000;
/// Payload bytes in one commit, roughly.
const COMMIT_BYTES: usize = 8 << 20;

/// Imports one export.
///
/// # Errors
/// When the export is damaged (`Damage`, nothing of the damaged part is imported), the store is not empty, or it does
/// not end up with the hashes of the manifest.
pub(super) fn import(files: &[PathBuf], args: &StoreArgs, out: Out) -> Result<(), Fail> {
    let Some(dir) = &args.data_dir else {
        return Err(Fail::usage(
            "--format feedlog works offline: give --data-dir, a directory that is missing or empty",
        ));
    };
    let [file] = files else {
        return Err(Fail::usage("--format feedlog takes one file"));
    };
    let source = open(file)?;
    let started = Instant::now();
    let store = store::create(dir, args.engine)?;
    let mut writer = Writer::new(store.storage.engine());
    let totals = check_lines(source, |_, proven| match proven {
        Proven::Entry(record) => writer.entry(*record),
        Proven::Feed(sum) => writer.end_feed(sum),
        Proven::Header => Ok(()),
        Proven::Manifest(_) => writer.commit(),
    })?;
    store.storage.engine().close().map_err(engine_failure)?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    out.either(
        &json!({"data_dir": dir, "manifest": totals, "took_ms": took_ms}),
        &format!(
            "{}: {} feeds, {} entries, {} messages; heads and chain hashes are those of the export",
            dir.display(),
            totals.feeds,
            totals.entries,
            totals.messages
        ),
    )
}

/// Appends entries and derives their rows, several feeds in one commit.
struct Writer {
    engine: Arc<dyn Engine>,
    /// Entries of the feed at hand whose rows are not derived yet.
    piece: Vec<Entry>,
    /// The folded state of the feed at hand.
    fold: Fold,
    /// What goes into the next commit, with what the export says of the feeds that it completes.
    groups: Vec<Group>,
    sums: Vec<FeedSum>,
    entries: usize,
    bytes: usize,
}

impl Writer {
    fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            piece: Vec::new(),
            fold: Fold::default(),
            groups: Vec::new(),
            sums: Vec::new(),
            entries: 0,
            bytes: 0,
        }
    }

    fn entry(&mut self, record: Record) -> Result<(), Fail> {
        self.entries += 1;
        self.bytes += record.entry.size();
        self.piece.push(record.entry);
        if self.is_full() {
            // Rows of what follows in this feed rest on rows that must be durable then.
            self.group()?;
            self.commit()?;
        }
        Ok(())
    }

    fn end_feed(&mut self, sum: FeedSum) -> Result<(), Fail> {
        self.group()?;
        self.fold = Fold::default();
        self.sums.push(sum);
        // Many small feeds count as well.
        if self.is_full() || self.sums.len() >= COMMIT_ENTRIES { self.commit() } else { Ok(()) }
    }

    fn is_full(&self) -> bool {
        self.entries >= COMMIT_ENTRIES || self.bytes >= COMMIT_BYTES
    }

    /// Derives the rows of the piece at hand.
    fn group(&mut self) -> Result<(), Fail> {
        let entries = std::mem::take(&mut self.piece);
        let Some(first) = entries.first() else { return Ok(()) };
        let (feed, expected) = (first.feed.clone(), first.seq.prev());
        let mut pending = Pending { engine: self.engine.as_ref(), entries: &entries, rows: HashMap::new() };
        for entry in &entries {
            self.fold.apply(entry, &mut pending).map_err(Fail::failed)?;
        }
        let rows = pending.rows.into_iter().collect();
        let log = Some(LogPart { feed, expected, entries, rows, strip: Vec::new() });
        self.groups.push(Group { log, state: Vec::new() });
        Ok(())
    }

    /// Commits, and compares the ends of completed feeds with what the export says of them.
    fn commit(&mut self) -> Result<(), Fail> {
        (self.entries, self.bytes) = (0, 0);
        for result in self.engine.commit(std::mem::take(&mut self.groups)) {
            result.map_err(engine_failure)?;
        }
        for sum in std::mem::take(&mut self.sums) {
            let differs = || Fail::failed(format!("feed {:?} did not end up as in the export", sum.feed_id));
            let feed = FeedId::parse(&sum.feed_id).map_err(|_| differs())?;
            let Head { seq, ordinal, .. } = self.engine.head(&feed).map_err(engine_failure)?;
            let last = self.engine.records(&feed, seq, seq, 1, 0).map_err(engine_failure)?;
            let chain = last.last().map(|record| feedlog_service::export::hex(&record.chain_hash));
            if (seq.0, ordinal.0) != (sum.head_seq_id, sum.ordinal) || chain.as_ref() != Some(&sum.chain_hash)
            {
                return Err(differs());
            }
        }
        Ok(())
    }
}

/// The rows of one commit in the making, over the durable ones.
struct Pending<'a> {
    engine: &'a dyn Engine,
    entries: &'a [Entry],
    rows: HashMap<RowKey, Option<RowValue>>,
}

fn rows_error(err: EngineError) -> RowsError {
    RowsError(Box::new(err))
}

impl Rows for Pending<'_> {
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        match self.rows.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.engine.row(key).map_err(rows_error),
        }
    }

    fn head(&mut self, feed: &FeedId) -> Result<Head, RowsError> {
        self.engine.head(feed).map_err(rows_error)
    }

    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        // INVARIANT I-1: the entries of one commit are contiguous.
        let at = self.entries.first().and_then(|first| usize::try_from(seq.0.checked_sub(first.seq.0)?).ok());
        let pending = at.and_then(|at| self.entries.get(at)).filter(|entry| entry.feed == *feed);
        if pending.is_some() {
            return Ok(pending.cloned());
        }
        let read = self.engine.read(feed, seq, seq, Direction::Forward, 1, 0);
        Ok(read.map_err(rows_error)?.into_iter().next())
    }

    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        self.rows.insert(key, value);
    }
}
