//! The pure read algorithms: unread, unreplied, history, over durable rows and entries.

use crate::entry::{Entry, Head};
use crate::ids::{FeedId, Ordinal, SeqId, TimeMs, Uid};
use crate::policy::ReadScope;
use crate::rows::{Counts, Fate, FeedState, Place, RowKey, RowValue, RowsError, UserCounts, UserFeed};
use crate::views::{ExplainedUnread, HistoryQuery, LeftOut, Page, View};

/// Durable rows and entries, as an engine has them. Ranges are inclusive on both ends.
pub trait Reader {
    /// One row.
    fn row(&self, key: &RowKey) -> Result<Option<RowValue>, RowsError>;
    /// The head; all zero when the feed does not exist.
    fn head(&self, feed: &FeedId) -> Result<Head, RowsError>;
    /// One entry, `None` beyond the head.
    fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError>;
    /// Entries of `from..=to`, ascending or (`backward`) descending: at most `entries_max`, and as many as fit in
    /// `bytes_max` payload bytes but at least one.
    fn entries(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        backward: bool,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, RowsError>;
    /// Counted sets of blocks `from..=to` that have a row, ascending, the first `limit` of them.
    fn counts(
        &self,
        feed: &FeedId,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Counts)>, RowsError>;
    /// One user's counted sets of blocks `from..=to` that have a row, ascending or (`backward`) descending, the first
    /// `limit` of them in that order.
    fn user_counts(
        &self,
        feed: &FeedId,
        uid: &Uid,
        from: u64,
        to: u64,
        backward: bool,
        limit: usize,
    ) -> Result<Vec<(u64, UserCounts)>, RowsError>;
    /// Fates of the messages `from..=to` that have one, ascending, the first `limit` of them.
    fn fates(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        limit: usize,
    ) -> Result<Vec<(SeqId, Fate)>, RowsError>;
}

/// A user in a feed: what unread and unreplied are computed from.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// The feed.
    pub feed: &'a FeedId,
    /// The user.
    pub uid: &'a Uid,
    /// `RowKey::UserFeed(uid, feed)`.
    pub user_feed: Option<UserFeed>,
    /// `RowKey::Place(uid, feed)`, default when absent.
    pub place: Place,
    /// The head up to which to count.
    pub head: Head,
}

impl Standing<'_> {
    /// Whether messages of the feed count for the user at all: members of groups and direct feeds, the user of a personal
    /// feed, and in open feeds whoever sent there or set a mark.
    pub fn counts(&self) -> bool {
        self.user_feed.is_some() || self.place.has_received || self.place.read_seq > SeqId::ZERO
    }

    /// Messages count from after this ordinal on.
    pub fn start(&self) -> Ordinal {
        self.user_feed.map_or(Ordinal::ZERO, |row| row.since_ordinal).max(self.place.read_ordinal)
    }
}

/// How many messages are unread, and how many of them mention the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnreadCount {
    /// Messages.
    pub unread: u64,
    /// Those that mention the user.
    pub mentions: u64,
}

/// Unread of a user in a feed (P7).
#[allow(unused_variables)]
pub fn unread(reader: &dyn Reader, standing: &Standing<'_>) -> Result<UnreadCount, RowsError> {
    todo!()
}

/// Unread with its reasons. `muted` is left to the caller to judge.
#[allow(unused_variables)]
pub fn explain(
    reader: &dyn Reader,
    standing: &Standing<'_>,
    muted: bool,
) -> Result<ExplainedUnread, RowsError> {
    todo!()
}

/// What a user owes in a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// The oldest message that waits for an answer.
    pub seq: SeqId,
    /// Its sender.
    pub from: Uid,
    /// Its time.
    pub waiting_since_ms: TimeMs,
    /// How many wait.
    pub count: u64,
}

/// What the user owes in the feed, `None` when nothing (P8). Only direct feeds and groups ask.
#[allow(unused_variables)]
pub fn unreplied(reader: &dyn Reader, standing: &Standing<'_>) -> Result<Option<Owed>, RowsError> {
    todo!()
}

/// A page of history for a reader (P4, P5, P6). `limit` entries at most, [`crate::limits::PAGE_BYTES_MAX`] payload bytes.
/// `state` may be anything but the scope must come from [`crate::policy::may_read`] and allow contents.
#[allow(unused_variables)]
pub fn history(
    reader: &dyn Reader,
    feed: &FeedId,
    scope: ReadScope,
    query: HistoryQuery,
    limit: usize,
    now_ms: TimeMs,
) -> Result<Page, RowsError> {
    todo!()
}

/// What an entry is to a reader.
#[derive(Debug, Clone)]
pub enum Shown {
    /// It is shown like this.
    View(Box<View>),
    /// It is not shown.
    Gone(crate::views::GoneReason),
}

/// One entry as a reader may see it: for live delivery and single reads. `prev` is the previous shown entry when the caller
/// knows it (a live stream does); else it is looked up.
#[allow(unused_variables)]
pub fn show(
    reader: &dyn Reader,
    entry: Entry,
    scope: ReadScope,
    prev: Option<SeqId>,
    now_ms: TimeMs,
) -> Result<Shown, RowsError> {
    todo!()
}

/// The place of the message with this ordinal, `None` when the ordinal is 0 or beyond the head.
#[allow(unused_variables)]
pub fn seq_of(
    reader: &dyn Reader,
    feed: &FeedId,
    ordinal: Ordinal,
    head: Head,
) -> Result<Option<SeqId>, RowsError> {
    todo!()
}
