//! Looking through the commits for entries that patterns want: to resume, and when more feeds were found than could be
//! noted.
//!
//! A scan delivers in the order of commits, a page of commits at a time, and follows nothing: so it needs no more memory
//! for a million feeds than for one. At its end hints of the hub take over: those of commits beyond it are new, all others
//! are done.

use std::collections::{HashMap, VecDeque};

use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::read::{self, Reader};
use feedlog_storage::Engine;

use super::REPLAY_PAGE;
use super::wants::Wants;
use crate::error::ReadError;
use crate::read::{EngineReader, Reads};
use crate::views::{HistoryQuery, Page};

/// Commits that are looked at together.
const COMMITS_PAGE: usize = 64;
/// Names of feeds that are looked at together.
const FEEDS_PAGE: usize = 256;
/// Feeds that are read together.
const RANGES_PAGE: usize = 64;
/// Payload bytes after which no further feed is read together with others.
const RANGES_BYTES: usize = 1 << 20;

/// Entries of one feed that are to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) feed: FeedId,
    pub(super) after: SeqId,
    pub(super) to: SeqId,
}

/// A scan and how far it is.
pub(super) struct Scan {
    /// Everything wanted up to this commit was delivered.
    pub(super) after: u64,
    /// The commit at which it ends; known once it has begun.
    pub(super) target: Option<u64>,
    /// Its end is announced by `CaughtUp`.
    pub(super) announced: bool,
    /// What is being delivered.
    ranges: VecDeque<Range>,
    at: At,
}

enum At {
    /// Everything up to this commit is in `ranges` or delivered.
    Commit(u64),
    /// Change rows were removed: all feeds are looked at by name. Up to this name all is in `ranges` or delivered.
    Feed(Option<FeedId>),
}

/// What a scan has to read next.
pub(super) enum Task {
    Ranges(Vec<Range>),
    Commits { after: u64, target: u64 },
    Feeds { after: Option<FeedId>, window: (u64, u64) },
    End,
}

/// What was read for a scan.
pub(super) enum Step {
    Ranges(Vec<RangePage>),
    Commits {
        upto: u64,
        ranges: Vec<Range>,
    },
    /// Some commits are not listed any more.
    Pruned,
    /// `last` is `None` when there are no more feeds.
    Feeds {
        last: Option<FeedId>,
        ranges: Vec<Range>,
    },
}

/// Entries of a range.
pub(super) struct RangePage {
    pub(super) feed: FeedId,
    /// The newest place that was looked at.
    pub(super) covered: SeqId,
    /// `None` when the feed is not for this reader.
    pub(super) page: Option<Page>,
}

impl Scan {
    pub(super) fn new(after: u64) -> Self {
        Self { after, target: None, announced: false, ranges: VecDeque::new(), at: At::Commit(after) }
    }

    /// Begins earlier. Only before it has begun.
    pub(super) fn lower(&mut self, after: u64) {
        debug_assert!(self.target.is_none());
        if after < self.after {
            self.after = after;
            self.at = At::Commit(after);
        }
    }

    /// What to read next. `newest` is the newest commit, in case it begins now.
    pub(super) fn task(&mut self, newest: u64) -> Task {
        let target = *self.target.get_or_insert(newest.max(self.after));
        if !self.ranges.is_empty() {
            return Task::Ranges(self.batch());
        }
        match &self.at {
            At::Commit(upto) => {
                self.after = *upto;
                if *upto >= target { Task::End } else { Task::Commits { after: *upto, target } }
            }
            At::Feed(after) => Task::Feeds { after: after.clone(), window: (self.after, target) },
        }
    }

    /// Small ranges are read together.
    fn batch(&self) -> Vec<Range> {
        let mut room = REPLAY_PAGE as u64;
        let mut batch = Vec::new();
        for range in self.ranges.iter().take(RANGES_PAGE) {
            let mut range = range.clone();
            // In the order of its feed: what comes later waits for what comes before.
            if batch.iter().any(|other: &Range| other.feed == range.feed) {
                break;
            }
            range.to = range.to.min(SeqId(range.after.0 + room));
            room -= range.to.0 - range.after.0;
            batch.push(range);
            if room == 0 {
                break;
            }
        }
        batch
    }

    /// What a page of commits or feeds brought.
    pub(super) fn found(&mut self, step: Step, is_wanted: impl Fn(&FeedId) -> bool) {
        let ranges = match step {
            Step::Ranges(_) => return,
            Step::Pruned => {
                self.at = At::Feed(None);
                return;
            }
            Step::Commits { upto, ranges } => {
                self.at = At::Commit(upto);
                ranges
            }
            Step::Feeds { last, ranges } => {
                self.at = match (last, self.target) {
                    (Some(last), _) => At::Feed(Some(last)),
                    (None, target) => At::Commit(target.unwrap_or(self.after)),
                };
                ranges
            }
        };
        self.ranges.extend(ranges.into_iter().filter(|range| is_wanted(&range.feed)));
    }

    /// A range was delivered up to here; `false` when it is not wanted any more.
    pub(super) fn covered(&mut self, feed: &FeedId, covered: SeqId) -> bool {
        let Some(at) = self.ranges.iter().position(|range| range.feed == *feed) else { return false };
        if covered >= self.ranges[at].to {
            self.ranges.remove(at);
        } else {
            self.ranges[at].after = covered;
        }
        true
    }

    /// Up to where a feed was delivered: that place, or all up to a commit.
    pub(super) fn place_of(&self, feed: &FeedId) -> Result<SeqId, u64> {
        match (self.ranges.iter().find(|range| range.feed == *feed), &self.at) {
            (Some(range), _) => Ok(range.after),
            (None, At::Commit(upto)) => Err(*upto),
            (None, At::Feed(Some(last))) if feed <= last => Err(self.target.unwrap_or(self.after)),
            (None, At::Feed(_)) => Err(self.after),
        }
    }

    /// Whether its end is fixed.
    pub(super) fn has_begun(&self) -> bool {
        self.target.is_some()
    }

    /// Drops what is not wanted any more.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&FeedId) -> bool) {
        self.ranges.retain(|range| is_wanted(&range.feed));
    }
}

/// Does what [`Scan::task`] said. Blocks.
pub(super) fn run(reads: &Reads, wants: &Wants, swept: u64, task: Task) -> Result<Step, ReadError> {
    match task {
        Task::Ranges(ranges) => read_ranges(reads, ranges).map(Step::Ranges),
        Task::Commits { after, target } => read_commits(&*reads.engine, wants, swept, after, target),
        Task::Feeds { after, window } => read_feeds(&*reads.engine, wants, swept, after.as_ref(), window),
        Task::End => Ok(Step::Ranges(Vec::new())),
    }
}

fn read_commits(
    engine: &dyn Engine,
    wants: &Wants,
    swept: u64,
    after: u64,
    target: u64,
) -> Result<Step, ReadError> {
    let mut upto = after;
    let mut ranges: Vec<Range> = Vec::new();
    let mut newest: HashMap<FeedId, usize> = HashMap::new();
    for change in engine.changes(after, COMMITS_PAGE)? {
        // Commits are dense; where one is missing, rows were removed.
        if change.commit_no != upto + 1 || change.commit_no > target {
            break;
        }
        upto = change.commit_no;
        for (feed, first, last) in change.feeds {
            let windows = wants.windows(feed.as_str(), swept, (upto - 1, upto));
            if windows.iter().all(|(after, upto)| after >= upto) {
                continue;
            }
            match newest.get(&feed) {
                Some(&at) if ranges[at].to.next() == first => ranges[at].to = last,
                _ => {
                    newest.insert(feed.clone(), ranges.len());
                    ranges.push(Range { feed, after: first.prev(), to: last });
                }
            }
        }
    }
    Ok(if upto == after { Step::Pruned } else { Step::Commits { upto, ranges } })
}

fn read_feeds(
    engine: &dyn Engine,
    wants: &Wants,
    swept: u64,
    after: Option<&FeedId>,
    window: (u64, u64),
) -> Result<Step, ReadError> {
    let feeds = engine.feeds(after, FEEDS_PAGE)?;
    let mut ranges = Vec::new();
    for feed in &feeds {
        for (after, upto) in wants.windows(feed.as_str(), swept, window) {
            if after >= upto {
                continue;
            }
            let (after, to) = (place_at(engine, feed, after)?, place_at(engine, feed, upto)?);
            if after < to {
                ranges.push(Range { feed: feed.clone(), after, to });
            }
        }
    }
    Ok(Step::Feeds { last: feeds.last().cloned(), ranges })
}

/// The place of the last entry that was committed up to this commit, 0 when there is none.
pub(crate) fn place_at(engine: &dyn Engine, feed: &FeedId, commit_no: u64) -> Result<SeqId, ReadError> {
    let head = engine.head(feed)?.seq;
    // Numbers of commits only grow within a feed. Most feeds did not change lately: the head is looked at first.
    let (mut place, mut beyond) = (SeqId::ZERO, head.next());
    let mut probe = head;
    while place.next() < beyond {
        match commit_of(engine, feed, probe)? {
            Some(at) if at <= commit_no => place = probe,
            _ => beyond = probe,
        }
        probe = SeqId(place.0 + (beyond.0 - place.0) / 2);
    }
    Ok(place)
}

/// The commit that added an entry.
fn commit_of(engine: &dyn Engine, feed: &FeedId, seq: SeqId) -> Result<Option<u64>, ReadError> {
    Ok(engine.records(feed, seq, seq, 1, 0)?.pop().map(|record| record.commit_no))
}

fn read_ranges(reads: &Reads, ranges: Vec<Range>) -> Result<Vec<RangePage>, ReadError> {
    let mut pages = Vec::with_capacity(ranges.len());
    let mut bytes = 0;
    for Range { feed, after, to } in ranges {
        let access = match reads.contents(&feed) {
            Ok(access) if access.state.kind == FeedKind::Open => access,
            Ok(_) | Err(ReadError::Denied(_)) => {
                // Not for this reader, now and later in this range.
                pages.push(RangePage { feed, covered: SeqId::MAX, page: None });
                continue;
            }
            Err(error) => return Err(error),
        };
        let reader: &dyn Reader = &EngineReader(&*reads.engine);
        let limit = (to.0 - after.0).clamp(1, REPLAY_PAGE as u64) as usize;
        let query = HistoryQuery::After(after);
        let mut page = read::history(reader, &feed, access.scope, query, limit, reads.clock.now_ms())?;
        let covered = page.next.map_or(page.head, |next| SeqId(u64::try_from(next).unwrap_or(0)));
        // What lies beyond comes in its own time.
        page.entries.retain(|view| view.entry.seq <= to);
        page.gone.retain(|gone| gone.from <= to);
        page.gone.iter_mut().for_each(|gone| gone.to = gone.to.min(to));
        bytes += page.entries.iter().map(|v| v.entry.payload.bytes().map_or(0, |b| b.len())).sum::<usize>();
        pages.push(RangePage { feed, covered: covered.min(to), page: Some(page) });
        if bytes > RANGES_BYTES {
            break;
        }
    }
    Ok(pages)
}
