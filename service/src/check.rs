//! Checks one feed against itself: density, ordinals, times, hashes, and every row against a replay of the log (P9, I-6).
//! Works on a store that is running and on one that is not.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use feedlog_core::entry::{Entry, Head, Payload};
use feedlog_core::event::{Event, FeedKind};
use feedlog_core::ids::{FeedId, Ordinal, SeqId, Uid};
use feedlog_core::projection::Fold;
use feedlog_core::read::Reader;
use feedlog_core::rows::{RowKey, RowValue, Rows, RowsError};
use feedlog_storage::{Engine, EngineError, LogPart, Record, RowRange, chain_hash, digest};

use crate::read::{EngineReader, Scan};

/// Entries that are replayed at once.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 8 << 20;
/// Problems that are named; the rest is counted.
pub const PROBLEMS_MAX: usize = 100;
/// How often a feed that changes while it is compared is compared again.
const TRIES_MAX: usize = 100;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub feed: FeedId,
    /// At which entry, 0 for rows.
    pub seq: SeqId,
    /// What.
    pub what: Arc<str>,
}

/// What was found out about one feed.
#[derive(Debug, Clone)]
pub struct Report {
    /// The feed.
    pub feed: FeedId,
    /// The head up to which was looked.
    pub head: Head,
    /// The chain hash of that head; it proves everything before it.
    pub chain_hash: [u8; 32],
    /// Entries looked at.
    pub entries: u64,
    /// Rows compared.
    pub rows: u64,
    /// How many problems there are.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
    /// What `repair` would write: rows as the log says, `None` where there should be none.
    pub wrong_rows: Vec<(RowKey, Option<RowValue>)>,
}

/// Checks a feed. Rows are compared at a moment when the head did not move; a feed that never rests is reported as a
/// problem. `keep_going` is asked now and then; on `false` the report is `None`.
pub fn check_feed(
    engine: &dyn Engine,
    feed: &FeedId,
    keep_going: &dyn Fn() -> bool,
) -> Result<Option<Report>, EngineError> {
    let mut check = Check {
        engine,
        report: Report {
            feed: feed.clone(),
            head: Head::default(),
            chain_hash: [0; 32],
            entries: 0,
            rows: 0,
            problem_count: 0,
            problems: Vec::new(),
            wrong_rows: Vec::new(),
        },
        fold: Fold::default(),
        rows: Replay {
            engine,
            feed: feed.clone(),
            recent: HashMap::new(),
            rows: HashMap::new(),
            wrong: Vec::new(),
            compared: 0,
        },
    };
    for _ in 0..TRIES_MAX {
        if !check.replay(keep_going)? {
            return Ok(None);
        }
        let wrong = check.compare()?;
        if !wrong.is_empty() {
            engine.settle();
        }
        // What changed while we looked is compared again with the entries that changed it.
        if wrong.is_empty() || engine.head(feed)?.seq == check.report.head.seq {
            check.finish(wrong);
            return Ok(Some(check.report));
        }
    }
    check.problem(SeqId::ZERO, "the feed changed all the time, its rows could not be compared");
    Ok(Some(check.report))
}

/// What puts the rows of a feed right, `None` when they are. Refused by the engine (`HeadMoved`) when the feed changed.
pub fn repair(report: Report) -> Option<LogPart> {
    if report.wrong_rows.is_empty() {
        return None;
    }
    Some(LogPart {
        feed: report.feed,
        expected: report.head.seq,
        entries: Vec::new(),
        rows: report.wrong_rows,
        strip: Vec::new(),
    })
}

struct Check<'a> {
    engine: &'a dyn Engine,
    report: Report,
    fold: Fold,
    rows: Replay<'a>,
}

impl Check<'_> {
    fn problem(&mut self, seq: SeqId, what: &str) {
        self.report.problem_count += 1;
        if self.report.problems.len() < PROBLEMS_MAX {
            let feed = self.report.feed.clone();
            self.report.problems.push(Problem { feed, seq, what: what.into() });
        }
    }

    /// Folds the entries that were not folded yet; `false` when asked to stop.
    fn replay(&mut self, keep_going: &dyn Fn() -> bool) -> Result<bool, EngineError> {
        let feed = self.report.feed.clone();
        loop {
            if !keep_going() {
                return Ok(false);
            }
            let head = self.engine.head(&feed)?;
            let from = self.report.head.seq.next();
            if from > head.seq {
                if self.report.head != head {
                    self.problem(head.seq, "the head is not the last entry");
                    self.report.head = head;
                }
                return Ok(true);
            }
            let records = match self.engine.records(&feed, from, head.seq, PAGE, PAGE_BYTES) {
                Ok(records) => records,
                Err(EngineError::Damaged(what)) => {
                    self.problem(from, &format!("at or after this entry: {what}"));
                    self.report.head = head;
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            if records.is_empty() {
                self.problem(from, "the entry is missing");
                self.report.head = head;
                return Ok(true);
            }
            self.rows.recent.clear();
            for record in &records {
                self.rows.recent.insert(record.entry.seq, record.entry.clone());
            }
            for record in records {
                self.look_at(&record);
                if let Err(error) = self.fold.apply(&record.entry, &mut self.rows) {
                    self.problem(record.entry.seq, &format!("cannot be replayed: {error}"));
                }
            }
        }
    }

    fn look_at(&mut self, record: &Record) {
        let entry = &record.entry;
        let before = self.report.head;
        let seq = entry.seq;
        // INVARIANT I-1, checked after the read.
        if seq != before.seq.next() {
            self.problem(seq, "does not follow the entry before it");
        }
        let ordinal = Ordinal(before.ordinal.0 + u64::from(entry.event.is_message()));
        if entry.ordinal != ordinal {
            self.problem(seq, "has a wrong ordinal");
        }
        if entry.time_ms < before.time_ms {
            self.problem(seq, "is older than the entry before it");
        }
        if (seq == SeqId(1)) != matches!(entry.event, Event::FeedCreated { .. }) {
            self.problem(seq, "the first entry and no other must create the feed");
        }
        let payload_hash = match &entry.payload {
            Payload::None => digest(&[]),
            Payload::Bytes(bytes) => digest(bytes),
            Payload::Stripped { hash } => *hash,
        };
        if payload_hash != record.payload_hash {
            self.problem(seq, "the payload is not what its hash says");
        }
        let chain = chain_hash(entry, record.version, &record.payload_hash, &self.report.chain_hash);
        if chain.is_some_and(|chain| chain != record.chain_hash) {
            self.problem(seq, "the hash chain is broken");
        }
        self.report.chain_hash = record.chain_hash;
        self.report.head = Head::of(entry);
        self.report.entries += 1;
    }

    /// Rows that differ between the replay and the store, as they should be.
    fn compare(&mut self) -> Result<Vec<(RowKey, Option<RowValue>)>, EngineError> {
        let mut wrong = self.rows.wrong.clone();
        self.report.rows = self.rows.compared;
        for (key, value) in &self.rows.rows {
            self.report.rows += 1;
            if self.engine.row(key)?.as_ref() != value.as_ref() {
                wrong.push((key.clone(), value.clone()));
            }
        }
        for range in self.ranges() {
            let mut stored = Scan::new(self.engine, range);
            while let Some((key, _)) = stored.next()? {
                let ours = key.owner() == self.report.feed;
                if ours && !self.rows.rows.contains_key(&key) {
                    wrong.push((key, None));
                }
            }
        }
        Ok(wrong)
    }

    /// Where rows of this feed can be that the replay does not know.
    fn ranges(&self) -> Vec<RowRange> {
        let feed = &self.report.feed;
        let mut ranges = vec![
            RowRange::Members(feed.clone()),
            RowRange::Requests(feed.clone()),
            RowRange::Counts(feed.clone(), 0, u64::MAX),
            RowRange::Fates(feed.clone(), SeqId::ZERO, SeqId::MAX),
        ];
        let mut users: BTreeSet<&Uid> = BTreeSet::new();
        for key in self.rows.rows.keys() {
            match key {
                RowKey::UserCounts(_, uid, _) | RowKey::UserFeed(uid, _) | RowKey::Member(_, uid) => {
                    users.insert(uid);
                }
                RowKey::Fate(_, seq) => ranges.push(RowRange::Reactions(feed.clone(), *seq)),
                _ => {}
            }
        }
        for uid in users {
            ranges.push(RowRange::UserCounts(feed.clone(), uid.clone(), 0, u64::MAX));
        }
        let personal = self.fold.state.as_ref().is_some_and(|state| state.kind == FeedKind::Personal);
        if let (true, Some(uid)) = (personal, feed.personal_uid()) {
            ranges.push(RowRange::Places(uid));
        }
        ranges
    }

    fn finish(&mut self, wrong: Vec<(RowKey, Option<RowValue>)>) {
        for (key, value) in &wrong {
            let what = match value {
                Some(_) => format!("a row differs from the log: {}", kind_of(key)),
                None => format!("a row has no reason in the log: {}", kind_of(key)),
            };
            self.problem(SeqId::ZERO, &what);
        }
        self.report.wrong_rows = wrong;
    }
}

/// The kind of a row, without names of people.
fn kind_of(key: &RowKey) -> &'static str {
    match key {
        RowKey::Feed(..) => "feed",
        RowKey::Member(..) => "member",
        RowKey::Request(..) => "request",
        RowKey::Dedup(..) => "client_msg_id",
        RowKey::Counts(..) => "counts",
        RowKey::UserCounts(..) => "counts of a user",
        RowKey::Fate(..) => "fate of a message",
        RowKey::Reaction(..) => "reaction",
        RowKey::Expiry(..) => "expiry",
        RowKey::UserFeed(..) => "feed of a user",
        RowKey::Place(..) => "place of a user",
        RowKey::Receipt(..) => "receipt",
    }
}

/// Rows as the replay makes them.
struct Replay<'a> {
    engine: &'a dyn Engine,
    feed: FeedId,
    /// The page that is being folded.
    recent: HashMap<SeqId, Entry>,
    /// `None` for rows that were removed again.
    rows: HashMap<RowKey, Option<RowValue>>,
    wrong: Vec<(RowKey, Option<RowValue>)>,
    compared: u64,
}

impl Rows for Replay<'_> {
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        Ok(self.rows.get(key).cloned().flatten())
    }

    fn head(&mut self, feed: &FeedId) -> Result<Head, RowsError> {
        EngineReader(self.engine).head(feed)
    }

    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        match self.recent.get(&seq) {
            Some(entry) if *feed == self.feed => Ok(Some(entry.clone())),
            _ => EngineReader(self.engine).entry(feed, seq),
        }
    }

    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        // There is one for every message and it never changes: compared at once, so that memory does not grow with
        // the feed.
        if matches!(key, RowKey::Dedup(..)) {
            self.compared += 1;
            if !self.engine.row(&key).is_ok_and(|stored| stored == value) {
                self.wrong.push((key, value));
            }
            return;
        }
        self.rows.insert(key, value);
    }
}
