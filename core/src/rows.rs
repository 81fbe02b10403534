//! Derived rows: typed keys and values. Storage encodes them; projections are the only writers.
//!
//! Each row belongs to the log of one feed ([`RowKey::owner`]) and is written only together with entries of that
//! feed, so every row can be dropped and rebuilt from that log alone (P9, I-6).

use std::sync::Arc;

use crate::entry::{Entry, Head};
use crate::event::{FeedKind, HistoryMode, JoinMode, Role, Scope};
use crate::ids::{ClientMsgId, FeedId, Ordinal, ReactionKey, SeqId, TimeMs, Uid};
use crate::limits::COUNT_BLOCK_ORDINALS;

/// The place of a derived row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowKey {
    /// The folded state of a feed. Value: [`RowValue::Feed`].
    Feed(FeedId),
    /// A member of a group or direct feed. Value: [`RowValue::Member`].
    Member(FeedId, Uid),
    /// A pending request to join. Value: [`RowValue::Request`].
    Request(FeedId, Uid),
    /// Where a `client_msg_id` was used. Value: [`RowValue::Seq`].
    Dedup(FeedId, DedupScope, ClientMsgId),
    /// Sets of messages that concern everybody, for one block of ordinals. Value: [`RowValue::Counts`].
    Counts(FeedId, u64),
    /// Sets of messages that concern one user, for one block of ordinals. Value: [`RowValue::UserCounts`].
    UserCounts(FeedId, Uid, u64),
    /// What happened to a message after it was sent. Value: [`RowValue::Fate`].
    Fate(FeedId, SeqId),
    /// One user's reaction to a message. Value: [`RowValue::Seq`] of the entry that added it.
    Reaction(FeedId, SeqId, ReactionKey, Uid),
    /// A message that will expire, ordered by time over all feeds. Value: [`RowValue::Seq`] of the message.
    Expiry(TimeMs, FeedId, SeqId),
    /// A feed of a user: written by that feed. Value: [`RowValue::UserFeed`].
    UserFeed(Uid, FeedId),
    /// A user's place in a feed, by user: written by the user's personal feed. Value: [`RowValue::Place`].
    Place(Uid, FeedId),
    /// The marks of [`RowKey::Place`] by feed, for receipts. Written by the user's personal feed. Value:
    /// [`RowValue::Receipt`].
    Receipt(FeedId, Uid),
}

/// Where a `client_msg_id` is unique: a sender, or a constant of a front end that has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DedupScope {
    /// A sender's ids.
    Sender(Uid),
    /// Ids of one front end.
    Shared(Arc<str>),
}

impl DedupScope {
    /// The scope of a message's id, given who sends it.
    pub fn of(scope: &Scope, sender: &Uid) -> Self {
        match scope {
            Scope::Sender => Self::Sender(sender.clone()),
            Scope::Shared(name) => Self::Shared(name.clone()),
        }
    }
}

impl RowKey {
    /// The feed whose log this row is derived from.
    pub fn owner(&self) -> FeedId {
        match self {
            Self::Feed(feed)
            | Self::Member(feed, _)
            | Self::Request(feed, _)
            | Self::Dedup(feed, _, _)
            | Self::Counts(feed, _)
            | Self::UserCounts(feed, _, _)
            | Self::Fate(feed, _)
            | Self::Reaction(feed, _, _, _)
            | Self::Expiry(_, feed, _)
            | Self::UserFeed(_, feed) => feed.clone(),
            Self::Place(uid, _) | Self::Receipt(_, uid) => FeedId::personal(uid),
        }
    }
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowValue {
    /// See [`FeedState`].
    Feed(Arc<FeedState>),
    /// See [`Member`].
    Member(Member),
    /// See [`Request`].
    Request(Request),
    /// A place in the owner's log.
    Seq(SeqId),
    /// See [`Counts`].
    Counts(Box<Counts>),
    /// See [`UserCounts`].
    UserCounts(Box<UserCounts>),
    /// See [`Fate`].
    Fate(Box<Fate>),
    /// See [`UserFeed`].
    UserFeed(UserFeed),
    /// See [`Place`].
    Place(Place),
    /// See [`Receipt`].
    Receipt(Receipt),
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $variant:ident => $type:ty;)*) => {
        impl RowValue {
            $($(#[$doc])*
            pub fn $name(self) -> Option<$type> {
                match self {
                    Self::$variant(value) => Some(value),
                    _ => None,
                }
            })*
        }
    };
}

accessors! {
    /// The value of [`RowKey::Feed`].
    into_feed: Feed => Arc<FeedState>;
    /// The value of [`RowKey::Member`].
    into_member: Member => Member;
    /// The value of [`RowKey::Request`].
    into_request: Request => Request;
    /// The value of [`RowKey::Dedup`], [`RowKey::Reaction`] and [`RowKey::Expiry`].
    into_seq: Seq => SeqId;
    /// The value of [`RowKey::Counts`].
    into_counts: Counts => Box<Counts>;
    /// The value of [`RowKey::UserCounts`].
    into_user_counts: UserCounts => Box<UserCounts>;
    /// The value of [`RowKey::Fate`].
    into_fate: Fate => Box<Fate>;
    /// The value of [`RowKey::UserFeed`].
    into_user_feed: UserFeed => UserFeed;
    /// The value of [`RowKey::Place`].
    into_place: Place => Place;
    /// The value of [`RowKey::Receipt`].
    into_receipt: Receipt => Receipt;
}

/// The folded state of a feed: what is needed to authorize and decide besides rows. Never holds the member list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedState {
    /// Who may read and write.
    pub kind: FeedKind,
    /// For people.
    pub title: Option<Arc<str>>,
    /// How one becomes a member.
    pub join: JoinMode,
    /// What a member sees of the time before joining.
    pub history: HistoryMode,
    /// A JSON object of the creator's.
    pub meta: Option<Arc<str>>,
    /// The two users of a direct feed, sorted.
    pub pair: Option<(Uid, Uid)>,
    /// Who created it.
    pub creator: Uid,
    /// The owner of a group; `None` for other kinds.
    pub owner: Option<Uid>,
    /// When.
    pub created_ms: TimeMs,
    /// How many members there are now (groups and direct feeds).
    pub member_count: u64,
    /// Names of the holds in force.
    pub holds: Vec<Arc<str>>,
}

/// A member of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// What the member may do.
    pub role: Role,
    /// The MemberJoined entry (FeedCreated in direct feeds) of the current membership.
    pub joined_seq: SeqId,
    /// The ordinal at that entry.
    pub joined_ordinal: Ordinal,
    /// When.
    pub joined_ms: TimeMs,
}

/// A pending request to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The JoinRequested entry.
    pub seq: SeqId,
    /// When.
    pub time_ms: TimeMs,
    /// For those who decide.
    pub reason: Option<Arc<str>>,
}

/// A feed in a user's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserFeed {
    /// The kind of the feed.
    pub kind: FeedKind,
    /// Messages count from after this ordinal: the start of the current membership; in open feeds the first own
    /// message, in personal feeds 0.
    pub since_ordinal: Ordinal,
    /// The place of the same moment.
    pub since_seq: SeqId,
}

/// A user's place in a feed. Absent = all default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Read up to here.
    pub read_seq: SeqId,
    /// The ordinal at `read_seq`.
    pub read_ordinal: Ordinal,
    /// Received up to here; never below `read_seq` unless the user marked unread afterwards.
    pub received_seq: SeqId,
    /// Whether a received mark was ever set: then it, else the head, stands for what an answer had seen.
    pub has_received: bool,
    /// What others asked up to here needs no answer.
    pub resolved_seq: SeqId,
    /// On top of the list.
    pub pinned: bool,
    /// Not counted in `total_unmuted` until then.
    pub muted_until_ms: TimeMs,
}

/// How far one user has received and read one feed, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    /// Read up to here.
    pub read_seq: SeqId,
    /// When that mark was set.
    pub read_ms: TimeMs,
    /// Received up to here.
    pub received_seq: SeqId,
    /// When that mark was set.
    pub received_ms: TimeMs,
}

/// A set of ordinals within one block of [`COUNT_BLOCK_ORDINALS`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Bits(pub [u64; (COUNT_BLOCK_ORDINALS / 64) as usize]);

impl Bits {
    /// The empty set.
    pub const EMPTY: Self = Self([0; (COUNT_BLOCK_ORDINALS / 64) as usize]);

    /// The block that an ordinal belongs to.
    pub fn block(ordinal: Ordinal) -> u64 {
        ordinal.0 / COUNT_BLOCK_ORDINALS
    }

    /// The ordinals of `block` that are above `after` and not above `upto`.
    pub fn range(block: u64, after: Ordinal, upto: Ordinal) -> Self {
        let start = block * COUNT_BLOCK_ORDINALS;
        let from = (after.0 + 1).saturating_sub(start).min(COUNT_BLOCK_ORDINALS);
        let to = (upto.0 + 1).saturating_sub(start).min(COUNT_BLOCK_ORDINALS);
        let mut bits = Self::EMPTY;
        for (i, word) in bits.0.iter_mut().enumerate() {
            let low = from.saturating_sub(i as u64 * 64).min(64);
            let high = to.saturating_sub(i as u64 * 64).min(64);
            if low < high {
                let upper = if high == 64 { u64::MAX } else { (1 << high) - 1 };
                let lower = if low == 0 { 0 } else { (1 << low) - 1 };
                *word = upper & !lower;
            }
        }
        bits
    }

    /// Adds an ordinal of this block.
    pub fn insert(&mut self, ordinal: Ordinal) {
        let at = ordinal.0 % COUNT_BLOCK_ORDINALS;
        self.0[(at / 64) as usize] |= 1 << (at % 64);
    }

    /// Whether an ordinal of this block is in the set.
    pub fn contains(&self, ordinal: Ordinal) -> bool {
        let at = ordinal.0 % COUNT_BLOCK_ORDINALS;
        self.0[(at / 64) as usize] & (1 << (at % 64)) != 0
    }

    /// How many ordinals are in the set.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// In both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// In either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// In this one and not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// The ordinals in the set, given their block, ascending.
    pub fn iter(self, block: u64) -> impl Iterator<Item = Ordinal> {
        (0..COUNT_BLOCK_ORDINALS)
            .filter(move |at| self.0[(at / 64) as usize] & (1 << (at % 64)) != 0)
            .map(move |at| Ordinal(block * COUNT_BLOCK_ORDINALS + at))
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let mut out = self;
        for (a, b) in out.0.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        out
    }
}

impl std::fmt::Debug for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter(0).map(|o| o.0)).finish()
    }
}

/// Sets of messages of one block that concern everybody. No row = all empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Recalled, erased or expired: counts nowhere.
    pub gone: Bits,
    /// Kind system: not unread.
    pub system: Bits,
    /// Direct feeds: asks for nothing: declined by `to_reply`, or auto or system without `to_reply`.
    pub quiet: Bits,
    /// Groups: asks every member of that moment for an answer.
    pub ask_all: Bits,
    /// Mentions every member of that moment.
    pub mention_all: Bits,
}

/// Sets of messages of one block that concern one user. No row = all empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserCounts {
    /// Sent by the user.
    pub own: Bits,
    /// Mention the user by name.
    pub mention: Bits,
    /// Groups: ask this user for an answer (by mention or by answering one of the user's messages).
    pub ask: Bits,
    /// Over the user's own messages of this block that answer (not auto, not recalled): the largest `seen_seq`.
    pub answered_seq: SeqId,
    /// The place of the user's first own message of this block, 0 when there is none. Whatever the user sent before
    /// had seen less than this.
    pub first_own_seq: SeqId,
}

/// What happened to a message after it was sent. No row = nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fate {
    /// The recall.
    pub recalled: Option<Recalled>,
    /// The newest edit.
    pub edited: Option<SeqId>,
    /// The edits before it, ascending: erasing or expiring the message destroys their payloads too.
    pub earlier_edits: Vec<SeqId>,
    /// The MessagesExpired entry.
    pub expired: Option<SeqId>,
    /// The MessagesErased entry.
    pub erased: Option<SeqId>,
    /// How many users reacted with each key, ordered by key; never 0.
    pub reactions: Vec<(ReactionKey, u32)>,
}

/// A recall as the reader of the message sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    /// Who.
    pub by: Uid,
    /// The recall's own entry.
    pub seq: SeqId,
    /// When.
    pub time_ms: TimeMs,
}

/// Reading or scanning a row failed in the layer below; nothing can be decided or derived.
#[derive(Debug, thiserror::Error)]
#[error("rows could not be read: {0}")]
pub struct RowsError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What `decide` gathers from and projections read and write: durable rows plus everything that earlier, not yet
/// durable groups of the same shard wrote.
pub trait Rows {
    /// The row as of now.
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, RowsError>;
    /// The durable head of another feed than the one being decided; all zero when it does not exist.
    fn head(&mut self, feed: &FeedId) -> Result<Head, RowsError>;
    /// An entry as of now, `None` beyond the head.
    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError>;
    /// Writes a row, or removes it with `None`.
    fn put(&mut self, key: RowKey, value: Option<RowValue>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_bits_agree_with_counting() {
        for (after, upto) in
            [(0, 0), (0, 1), (63, 64), (0, 255), (254, 300), (255, 256), (300, 900), (511, 512)]
        {
            let (after, upto) = (Ordinal(after), Ordinal(upto));
            for block in 0..4 {
                let bits = Bits::range(block, after, upto);
                let naive: Vec<_> =
                    (after.0 + 1..=upto.0).filter(|o| o / 256 == block).map(Ordinal).collect();
                assert_eq!(bits.iter(block).collect::<Vec<_>>(), naive, "block {block} of {after}..{upto}");
                assert_eq!(bits.len(), naive.len() as u64);
            }
        }
    }
}
