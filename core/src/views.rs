//! What the pure read algorithms of [`crate::read`] give. Plain data: front ends give it their own wire types.

use crate::entry::Entry;
use crate::ids::{FeedId, Ordinal, SeqId, TimeMs, Uid};
use crate::rows::Fate;

/// An entry as one reader may see it.
#[derive(Debug, Clone)]
pub struct View {
    /// The entry. Its payload is `Payload::None` when this reader may not see it: recalled messages, edits of
    /// recalled messages. For an edited message it is the payload of the newest edit, and a `MessageSent` carries the
    /// content type of that edit. What a front end has carried with a message is hidden with its payload.
    pub entry: Entry,
    /// The previous entry that this reader was entitled to, 0 when there is none.
    pub prev_seq: SeqId,
    /// What happened to it since, for messages.
    pub fate: Option<Box<Fate>>,
}

/// Why entries are not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneReason {
    /// Past their `expires_ms`.
    Expired,
    /// Payload destroyed.
    Erased,
    /// Older than the reader's membership.
    BeforeJoin,
}

/// Entries `from..=to` are not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// First.
    pub from: SeqId,
    /// Last.
    pub to: SeqId,
    /// Why.
    pub reason: GoneReason,
}

/// Which page of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryQuery {
    /// Entries after a place, ascending.
    After(SeqId),
    /// Entries before a place, descending.
    Before(SeqId),
    /// Entries around a place, ascending.
    Around(SeqId),
    /// Messages by ordinal, ascending from `position` (1 is the oldest; negative counts from the newest, -1).
    Position(i64),
    /// Messages by ordinal, descending from this one.
    BackFrom(Ordinal),
}

/// A page of history.
#[derive(Debug, Clone)]
pub struct Page {
    /// The feed.
    pub feed: FeedId,
    /// The durable head when the page was read.
    pub head: SeqId,
    /// Messages up to that head, shown or not.
    pub head_ordinal: Ordinal,
    /// The first place this reader is entitled to.
    pub first: SeqId,
    /// In the order of the query.
    pub entries: Vec<View>,
    /// What lies in the covered range and is not shown.
    pub gone: Vec<Gone>,
    /// Where the next page begins: the `last_seq_id` (or `before`, or `position`, or ordinal) to ask with; `None` at the end.
    pub next: Option<i64>,
}

/// Unread of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The feed.
    pub feed: FeedId,
    /// Messages.
    pub unread: u64,
    /// Those that mention the caller.
    pub mentions: u64,
    /// The caller's read mark.
    pub read_seq: SeqId,
    /// Whether the feed is muted now.
    pub muted: bool,
}

/// Unread of one feed with its reasons.
#[derive(Debug, Clone)]
pub struct ExplainedUnread {
    /// The figures.
    pub unread: Unread,
    /// Counted seq ranges, ascending, at most a page of them.
    pub counted: Vec<(SeqId, SeqId)>,
    /// Messages after the mark that do not count, each with the first rule that leaves it out.
    pub left_out: Vec<(SeqId, LeftOut)>,
    /// The lists stop here because they reached their limit; 0 when complete.
    pub truncated_at: SeqId,
}

/// The rule that leaves a message out of unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// The caller sent it.
    Own,
    /// Kind system.
    System,
    /// Recalled.
    Recalled,
    /// Payload destroyed.
    Erased,
    /// Expired.
    Expired,
}

/// Somebody waits for the caller's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreplied {
    /// Where.
    pub feed: FeedId,
    /// The oldest message that waits.
    pub seq: SeqId,
    /// Its sender.
    pub from: Uid,
    /// Its time.
    pub waiting_since_ms: TimeMs,
    /// How many wait in this feed.
    pub count: u64,
}
