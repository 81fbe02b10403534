//! What readers get. Plain data: front ends give it their own wire types.

use std::sync::Arc;

pub use crate::append::Receipt;
use bytes::Bytes;
use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, Role};
use feedlog_core::ids::{FeedId, Ordinal, SeqId, TimeMs, Uid};
pub use feedlog_core::views::{
    ExplainedUnread, Gone, GoneReason, HistoryQuery, LeftOut, Page, Unread, Unreplied, View,
};

/// A feed as a caller sees it.
#[derive(Debug, Clone)]
pub struct FeedInfo {
    /// The feed.
    pub feed: FeedId,
    /// Who may read and write.
    pub kind: FeedKind,
    /// For people.
    pub title: Option<Arc<str>>,
    /// How one becomes a member.
    pub join: JoinMode,
    /// What a member sees of the time before joining.
    pub history: HistoryMode,
    /// A JSON object of the creator's. Only for members.
    pub meta: Option<Arc<str>>,
    /// The caller's role, `None` when not a member.
    pub role: Option<Role>,
    /// The durable head, 0 for callers who may only know of the feed.
    pub head: SeqId,
    /// Members now.
    pub member_count: u64,
    /// When it was created.
    pub created_ms: TimeMs,
    /// The two users of a direct feed.
    pub pair: Option<(Uid, Uid)>,
}

/// One row of the conversation list.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// The feed.
    pub info: FeedInfo,
    /// The caller's read mark.
    pub read_seq: SeqId,
    /// Unread messages.
    pub unread: u64,
    /// Those of them that mention the caller.
    pub mentions: u64,
    /// Messages the caller owes an answer.
    pub unreplied: u64,
    /// On top.
    pub pinned: bool,
    /// Muted until then, 0 = not.
    pub muted_until_ms: TimeMs,
    /// The newest message the caller may see.
    pub last: Option<View>,
    /// Time of the newest entry.
    pub active_ms: TimeMs,
}

/// A page with an opaque place to go on from.
#[derive(Debug, Clone)]
pub struct Paged<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Give it back to get the next page; `None` at the end.
    pub next: Option<String>,
}

/// A member as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Who.
    pub uid: Uid,
    /// The role.
    pub role: Role,
    /// The entry of joining.
    pub joined_seq: SeqId,
    /// When.
    pub joined_ms: TimeMs,
}

/// A pending request to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    /// Who.
    pub uid: Uid,
    /// The entry of asking.
    pub seq: SeqId,
    /// When.
    pub time_ms: TimeMs,
    /// Why.
    pub reason: Option<Arc<str>>,
}

/// The caller's marks in a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Read up to here.
    pub read_seq: SeqId,
    /// Received up to here.
    pub received_seq: SeqId,
}

/// Unread over all feeds of the caller.
#[derive(Debug, Clone)]
pub struct UnreadTotal {
    /// Over all feeds.
    pub total: u64,
    /// Without muted feeds.
    pub total_unmuted: u64,
    /// Mentions over all feeds.
    pub mentions: u64,
    /// Feeds with something unread.
    pub feeds: Vec<Unread>,
}

/// Who has received and read a message.
#[derive(Debug, Clone)]
pub struct Receipts {
    /// Members other than the sender whose received mark covers it.
    pub delivered: u64,
    /// Whose read mark covers it.
    pub read: u64,
    /// A page of members.
    pub members: Vec<ReceiptRow>,
    /// The next page.
    pub next: Option<String>,
}

/// One member's receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptRow {
    /// Who.
    pub uid: Uid,
    /// When the mark that covers it was set, `None` when it does not.
    pub received_ms: Option<TimeMs>,
    /// Likewise for reading.
    pub read_ms: Option<TimeMs>,
}

/// What an attachment delivers, in order per feed.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// An entry, replayed or live.
    Entry(Arc<View>),
    /// Entries that lie here and are not shown.
    Gone(FeedId, Gone),
    /// Once: everything up to these heads was delivered; what follows is live.
    CaughtUp(Vec<(FeedId, SeqId)>),
    /// This feed ends for this reader: removed, or no longer allowed.
    Ended(FeedId),
}

/// Which feeds to attach to.
#[derive(Debug, Clone)]
pub enum AttachTo {
    /// These, each after a place.
    Feeds(Vec<(FeedId, SeqId)>),
    /// All feeds of the caller, also those joined later; after the places named, from the head for the others.
    Mine(Vec<(FeedId, SeqId)>),
}

/// After which place to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// After this entry.
    Seq(SeqId),
    /// From now on.
    Head,
    /// After all entries that were committed up to this number, which [`crate::Attachment::settled`] gave. What a
    /// [`Resume`] says of a feed comes first.
    Commit(u64),
}

/// How far another attachment had come. All that goes on from there is added before the first [`crate::Attachment::next`]:
/// patterns first, then the reader's own feeds, then feeds by name, because a feed is followed from where the first of them
/// wants it.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// Its [`crate::Attachment::settled`].
    pub commit_no: u64,
    /// Feeds that are to go on after exactly this place, because more of them was delivered, or not all of it was
    /// acknowledged. At most [`RESUME_POSITIONS_MAX`].
    pub positions: Vec<(FeedId, SeqId)>,
}

/// Most positions of a [`Resume`].
pub const RESUME_POSITIONS_MAX: usize = 1 << 16;

/// Payload with media type, as a front end hands it in.
#[derive(Debug, Clone)]
pub struct Body {
    /// Media type.
    pub content_type: Arc<str>,
    /// Bytes as received.
    pub bytes: Bytes,
}

/// Number of messages up to a place.
pub type Position = Ordinal;
