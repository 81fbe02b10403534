//! Proves that a store is what it must be: every byte readable, every feed dense, every chain whole, change rows in
//! agreement, every row equal to its rebuild from the log (P1, P9).
//!
//! Everything streams: memory grows neither with feeds nor with messages.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use feedlog_core::entry::{Entry, Head};
use feedlog_core::ids::{FeedId, SeqId};

use crate::format::{self, Frame};
use crate::keys::{self, Kind};
use crate::kv::{Kv, KvError, Table};
use crate::log::LogEngine;
use crate::rebuild::{Rebuild, Scratch};
use crate::{Direction, EngineError};

/// What verify has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The engine's own checksums; counts bytes.
    Physical,
    /// Feeds, entries, hashes; counts entries.
    Entries,
    /// Change rows; counts rows.
    Changes,
    /// Derived rows against their rebuild; counts rows.
    Rows,
}

/// How far a phase is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Which.
    pub phase: Phase,
    /// How many of what the phase counts.
    pub done: u64,
}

/// What verify looked at, and the first damage it found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Feeds.
    pub feeds: u64,
    /// Entries.
    pub entries: u64,
    /// Entries that are messages.
    pub messages: u64,
    /// Bytes of payloads that are still there.
    pub payload_bytes: u64,
    /// Derived rows.
    pub rows: u64,
    /// Change rows.
    pub changes: u64,
    /// Newest commit.
    pub commit_no: u64,
    /// The first damage; `None` when the store is sound.
    pub damage: Option<Damage>,
}

/// Where something is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The feed, when it is known.
    pub feed: Option<FeedId>,
    /// The entry, when it is one.
    pub seq: Option<SeqId>,
    /// The table, when it is known.
    pub table: Option<&'static str>,
    /// What is wrong; names file and offset where the engine knows them. Never a payload.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(table) = self.table {
            write!(f, "table {table}: ")?;
        }
        if let Some(feed) = &self.feed {
            write!(f, "feed {feed:?}: ")?;
        }
        if let Some(seq) = self.seq {
            write!(f, "entry {seq}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// Ends a check: damage is a result, anything else is a failure to look.
pub(crate) enum Stop {
    Damage(Box<Damage>),
    Failed(EngineError),
}

impl From<KvError> for Stop {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Damaged(text) => Self::damage(None, None, None, text.to_string()),
            other => Self::Failed(crate::log::read_error(other)),
        }
    }
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Damaged(text) => Self::damage(None, None, None, text.to_string()),
            other => Self::Failed(other),
        }
    }
}

impl Stop {
    pub(crate) fn damage(
        table: Option<Table>,
        feed: Option<&FeedId>,
        seq: Option<SeqId>,
        what: impl Into<String>,
    ) -> Self {
        let table = table.map(Table::name);
        Self::Damage(Box::new(Damage { feed: feed.cloned(), seq, table, what: what.into() }))
    }
}

/// Keys and values that are read at once …
const PAGE_KEYS_MAX: usize = 1024;
/// … and their bytes, at most; one is always read.
const PAGE_BYTES_MAX: usize = 4 << 20;
const PROGRESS_EVERY: u64 = 4096;

/// Some keys with their values, ascending. In pages, because looking at them reads the same tables.
pub(crate) struct Pages<'a, K> {
    kv: &'a K,
    table: Table,
    next: Option<Vec<u8>>,
    to: Vec<u8>,
    page: std::vec::IntoIter<(Vec<u8>, Bytes)>,
}

impl<'a, K: Kv> Pages<'a, K> {
    pub(crate) fn new(kv: &'a K, table: Table, from: Vec<u8>, to: Vec<u8>) -> Self {
        Self { kv, table, next: Some(from), to, page: Vec::new().into_iter() }
    }

    /// Every key of a table.
    pub(crate) fn all(kv: &'a K, table: Table) -> Self {
        Self::new(kv, table, Vec::new(), keys::BEYOND_ALL.to_vec())
    }

    pub(crate) fn next(&mut self) -> Result<Option<(Vec<u8>, Bytes)>, KvError> {
        if let Some(item) = self.page.next() {
            return Ok(Some(item));
        }
        let Some(from) = self.next.take() else { return Ok(None) };
        let mut page = Vec::new();
        let mut bytes = 0;
        let mut is_full = false;
        self.kv.scan(self.table, &from, &self.to, Direction::Forward, &mut |key, value| {
            page.push((key.to_vec(), Bytes::copy_from_slice(value)));
            bytes += key.len() + value.len();
            is_full = page.len() >= PAGE_KEYS_MAX || bytes >= PAGE_BYTES_MAX;
            if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if is_full {
            self.next = page.last().map(|(key, _)| {
                let mut next = key.clone();
                next.push(0);
                next
            });
        }
        self.page = page.into_iter();
        Ok(self.page.next())
    }
}

/// Checks everything; nothing is written meanwhile, so a running server verifies a backup of itself.
pub(crate) fn verify<K: Kv>(
    log: &LogEngine<K>,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, EngineError> {
    let _frozen = log.freeze();
    let kv = log.kv()?;
    let mut report = VerifyReport { commit_no: crate::Engine::commit_no(log), ..VerifyReport::default() };
    match run(log, &kv, &mut report, progress) {
        Ok(()) => Ok(report),
        Err(Stop::Damage(damage)) => {
            report.damage = Some(*damage);
            Ok(report)
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn run<K: Kv>(
    log: &LogEngine<K>,
    kv: &K,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Stop> {
    kv.check(&mut |done| progress(Progress { phase: Phase::Physical, done }))?;
    let scratch = Scratch::new(log)?;
    let mut rebuild = Rebuild::new(log, kv, scratch.kv());
    let covered = check_entries(log, kv, report, &mut rebuild, progress)?;
    rebuild.flush()?;
    check_changes(kv, report, &covered, progress)?;
    report.rows = rebuild.compare(&mut |difference| Err(difference.stop()), progress)?;
    Ok(())
}

/// The lowest change row of each node: entries of earlier commits are covered by none.
type Lowest = BTreeMap<u16, u64>;

/// Per node, how many entries change rows must cover.
#[derive(Default)]
pub(crate) struct Covered {
    lowest: Lowest,
    entries: BTreeMap<u16, u64>,
}

/// Names, entries, hashes; each entry is also handed to the rebuild.
pub(crate) fn check_entries<K: Kv>(
    log: &LogEngine<K>,
    kv: &K,
    report: &mut VerifyReport,
    rebuild: &mut Rebuild<'_, K>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Covered, Stop> {
    let mut covered = Covered { lowest: lowest_changes(kv)?, ..Covered::default() };
    let mut current: Option<Feed> = None;
    let mut names = Names::new(kv);
    let mut entries = Pages::all(kv, Table::Entries);
    while let Some((key, value)) = entries.next()? {
        let Some((number, seq)) = keys::parse_entry(&key) else {
            return Err(Stop::damage(Some(Table::Entries), None, None, "a key is no key"));
        };
        if current.as_ref().is_none_or(|feed| feed.number != number) {
            let name = names.next_is(number)?;
            current = Some(Feed { number, name, head: Head::default(), chain: [0; 32] });
            rebuild.begin_feed(number)?;
            report.feeds += 1;
        }
        let Some(feed) = &mut current else { continue };
        let (entry, node, commit_no) = feed.check(log, &key, &value, seq)?;
        report.entries += 1;
        report.messages += u64::from(entry.event.is_message());
        report.payload_bytes += entry.payload.size() as u64;
        if covered.lowest.get(&node).is_some_and(|lowest| commit_no >= *lowest) {
            *covered.entries.entry(node).or_default() += 1;
        }
        rebuild
            .apply(&entry)
            .map_err(|error| Stop::damage(None, Some(&feed.name), Some(seq), error.to_string()))?;
        if report.entries.is_multiple_of(PROGRESS_EVERY) {
            progress(Progress { phase: Phase::Entries, done: report.entries });
        }
    }
    names.end(report.feeds)?;
    progress(Progress { phase: Phase::Entries, done: report.entries });
    Ok(covered)
}

struct Feed {
    number: u64,
    name: FeedId,
    head: Head,
    chain: [u8; 32],
}

impl Feed {
    fn damage(&self, seq: SeqId, what: impl Into<String>) -> Stop {
        Stop::damage(Some(Table::Entries), Some(&self.name), Some(seq), what)
    }

    /// INVARIANT I-1: dense seq_ids and ordinals, times in order; and the chain that proves the rest.
    fn check<K: Kv>(
        &mut self,
        log: &LogEngine<K>,
        key: &[u8],
        value: &Bytes,
        seq: SeqId,
    ) -> Result<(Entry, u16, u64), Stop> {
        let expected = self.head.seq.next();
        if seq != expected {
            return Err(self.damage(expected, "is missing"));
        }
        let frame = Frame::parse(key, value).map_err(|error| self.damage(seq, error.to_string()))?;
        let entry = frame
            .entry(&self.name, log.upcasters(), |range| value.slice(range), None)
            .map_err(|error| self.damage(seq, error.to_string()))?;
        let is_created = matches!(entry.event, feedlog_core::event::Event::FeedCreated { .. });
        if is_created != (seq == SeqId(1)) {
            return Err(self.damage(seq, "FeedCreated must be the first entry and no other"));
        }
        let ordinal = if entry.event.is_message() { self.head.ordinal.next() } else { self.head.ordinal };
        if entry.ordinal != ordinal {
            return Err(self.damage(seq, format!("has ordinal {}, not {ordinal}", entry.ordinal)));
        }
        if entry.time_ms < self.head.time_ms {
            return Err(self.damage(seq, "is earlier than the entry before it"));
        }
        if frame.chain_of(&self.name, &self.chain) != frame.chain_hash {
            return Err(self.damage(seq, "does not continue the chain of hashes"));
        }
        self.head = Head::of(&entry);
        self.chain = frame.chain_hash;
        Ok((entry, frame.node, frame.commit_no))
    }
}

/// Numbers and names of feeds, side by side with their entries.
struct Names<'a, K> {
    kv: &'a K,
    by_number: Pages<'a, K>,
}

impl<'a, K: Kv> Names<'a, K> {
    fn new(kv: &'a K) -> Self {
        let range = keys::all_of(Kind::FeedName);
        Self { kv, by_number: Pages::new(kv, Table::Meta, range.from, range.to) }
    }

    /// The name of the next feed, which must have this number.
    fn next_is(&mut self, number: u64) -> Result<FeedId, Stop> {
        let stop = |what: String| Stop::damage(Some(Table::Meta), None, None, what);
        let Some((key, value)) = self.by_number.next()? else {
            return Err(stop(format!("feed number {number} has entries and no name")));
        };
        let named =
            keys::parse_feed_name(&key).ok_or_else(|| stop("the key of a feed's name is no key".into()))?;
        let name = format::decode_feed_name(&value)
            .map_err(|error| stop(format!("name of feed number {named}: {error}")))?;
        if named != number {
            return Err(if named < number {
                Stop::damage(Some(Table::Entries), Some(&name), Some(SeqId(1)), "is missing")
            } else {
                stop(format!("feed number {number} has entries and no name"))
            });
        }
        let back = self.kv.get(Table::Meta, &keys::feed_number(&name))?;
        let back = back.and_then(|value| format::decode_feed_number(&value).ok());
        if back != Some(number) {
            return Err(Stop::damage(
                Some(Table::Meta),
                Some(&name),
                None,
                format!("has number {number}, its name leads to {back:?}"),
            ));
        }
        Ok(name)
    }

    /// No name is left over, and each number has one name.
    fn end(&mut self, feeds: u64) -> Result<(), Stop> {
        let stop = |what: String| Stop::damage(Some(Table::Meta), None, None, what);
        if let Some((_, value)) = self.by_number.next()? {
            let name =
                format::decode_feed_name(&value).map_err(|error| stop(format!("name of a feed: {error}")))?;
            return Err(Stop::damage(Some(Table::Entries), Some(&name), Some(SeqId(1)), "is missing"));
        }
        let range = keys::all_of(Kind::FeedNumber);
        let mut numbers = Pages::new(self.kv, Table::Meta, range.from, range.to);
        let mut count = 0;
        while numbers.next()?.is_some() {
            count += 1;
        }
        if count == feeds { Ok(()) } else { Err(stop(format!("{count} names lead to {feeds} feeds"))) }
    }
}

fn lowest_changes<K: Kv>(kv: &K) -> Result<Lowest, Stop> {
    let mut lowest = Lowest::new();
    let range = keys::all_of(Kind::Change);
    let mut from = range.from;
    // One seek per node.
    loop {
        let mut first = None;
        kv.scan(Table::Meta, &from, &range.to, Direction::Forward, &mut |key, _| {
            first = keys::parse_change(key);
            ControlFlow::Break(())
        })?;
        let Some((node, commit_no)) = first else { return Ok(lowest) };
        lowest.insert(node, commit_no);
        let Some(next) = node.checked_add(1) else { return Ok(lowest) };
        from = keys::change(next, 0);
    }
}

/// Change rows are dense per node, name entries of their own commit, and together name every entry since the lowest.
fn check_changes<K: Kv>(
    kv: &K,
    report: &mut VerifyReport,
    covered: &Covered,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Stop> {
    let stop = |what: String| Stop::damage(Some(Table::Meta), None, None, what);
    let range = keys::all_of(Kind::Change);
    let mut rows = Pages::new(kv, Table::Meta, range.from, range.to);
    let mut last: Option<(u16, u64)> = None;
    let mut found: BTreeMap<u16, u64> = BTreeMap::new();
    while let Some((key, value)) = rows.next()? {
        let Some((node, commit_no)) = keys::parse_change(&key) else {
            return Err(stop("the key of a change row is no key".into()));
        };
        if last.is_some_and(|(before, no)| before == node && no + 1 != commit_no) {
            return Err(stop(format!(
                "change row {commit_no} of node {node} does not follow the one before"
            )));
        }
        last = Some((node, commit_no));
        let feeds = format::decode_change(&value)
            .map_err(|error| stop(format!("change row {commit_no} of node {node}: {error}")))?;
        for (number, first, to) in feeds {
            for seq in [first, to] {
                let key = keys::entry_array(number, seq);
                let value = kv.get(Table::Entries, &key)?;
                let fits = value.is_some_and(|value| {
                    Frame::parse(&key, &value)
                        .is_ok_and(|frame| (frame.node, frame.commit_no) == (node, commit_no))
                });
                if !fits {
                    return Err(stop(format!(
                        "change row {commit_no} of node {node} names entry {seq} of feed number {number}, which is \
                         not of that commit"
                    )));
                }
            }
            *found.entry(node).or_default() += to.0 - first.0 + 1;
        }
        report.changes += 1;
        if report.changes.is_multiple_of(PROGRESS_EVERY) {
            progress(Progress { phase: Phase::Changes, done: report.changes });
        }
    }
    progress(Progress { phase: Phase::Changes, done: report.changes });
    if found == covered.entries {
        Ok(())
    } else {
        Err(stop(format!("change rows name {found:?} entries by node, there are {:?}", covered.entries)))
    }
}
