//! Facts, in the past tense. An event becomes an [`crate::entry::Entry`] when it gets its place in a feed.
//!
//! Payload bytes are not part of an event: they travel beside it (see [`Payload`]), so that they can be erased while the
//! event and its hash stay. What a front end has carried with a message can be erased likewise.

use std::sync::Arc;

use crate::entry::Payload;
use crate::ids::{ClientMsgId, Ordinal, ReactionKey, SeqId, TimeMs, Uid};

/// Who may read and write a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeedKind {
    /// Exactly two users.
    Direct,
    /// Members with roles.
    Group,
    /// Any authenticated user.
    Open,
    /// One user; services may append.
    Personal,
}

/// How one becomes a member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinMode {
    /// Whoever asks is a member at once.
    Open,
    /// Owner or admins decide.
    Approval,
    /// Only by being added.
    Invite,
}

/// What a member of a group sees of the time before joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryMode {
    /// Everything.
    All,
    /// Only entries from the member's own MemberJoined entry on; the rest is `before_join`.
    SinceJoin,
}

/// What a member may do in a group; ordered by power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads and writes.
    Member,
    /// Also manages members and recalls others' messages.
    Admin,
    /// Also names admins and hands the feed on. Exactly one per group.
    Owner,
}

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the definition
pub enum MessageKind {
    Text,
    Image,
    Voice,
    Video,
    ShortVideo,
    Location,
    Link,
    Custom,
    /// Written by the system: never counts as unread, asks for nothing unless `to_reply`.
    System,
}

/// The namespace in which a `client_msg_id` is unique within a feed: the sender's uid, or a constant of a front end
/// that has no senders.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The sender of the entry.
    Sender,
    /// A constant shared by all senders of one front end, e.g. `gws`.
    Shared(Arc<str>),
}

/// What travels round the payload of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: MessageKind,
    /// Media type of the payload bytes. JSON text is `application/json`.
    pub content_type: Arc<str>,
    /// The sender's own id.
    pub client_msg_id: Option<ClientMsgId>,
    /// Where `client_msg_id` is unique.
    pub scope: Scope,
    /// The message that this one answers.
    pub reply_to: Option<SeqId>,
    /// Who is addressed; the uid `@all` addresses every member of that moment.
    pub mentions: Vec<Uid>,
    /// Asks for an answer, declines one, or says nothing about it.
    pub to_reply: Option<bool>,
    /// What the sender had seen of this feed when sending. Resolved by `decide`, never above the head before this entry.
    pub seen_seq: SeqId,
    /// The sender's clock: a claim, never used for order.
    pub sent_ms: Option<TimeMs>,
    /// From then on reads hide the payload.
    pub expires_ms: Option<TimeMs>,
    /// Written by a bot or an automatic reply.
    pub auto: bool,
    /// What the front end that took the message wants handed back to its own kind; the first byte says which front end.
    /// Never looked into here, and not part of what a repeated message must equal. Hidden and destroyed with the payload.
    pub carried: Payload,
}

/// The uid in `mentions` that addresses every member.
pub const MENTION_ALL: &str = "@all";

/// A fact of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Always the first entry.
    FeedCreated {
        /// Who may read and write.
        kind: FeedKind,
        /// For people.
        title: Option<Arc<str>>,
        /// How one becomes a member.
        join: JoinMode,
        /// What a member sees of the time before joining.
        history: HistoryMode,
        /// A JSON object of the creator's.
        meta: Option<Arc<str>>,
        /// The two users of a direct feed, sorted.
        pair: Option<(Uid, Uid)>,
    },
    /// Fields that are `None` did not change.
    FeedChanged {
        /// New title.
        title: Option<Arc<str>>,
        /// New join mode.
        join: Option<JoinMode>,
        /// New history mode.
        history: Option<HistoryMode>,
        /// New meta, a JSON object.
        meta: Option<Arc<str>>,
    },
    /// The only event that counts in the ordinal. Has a payload.
    MessageSent(Message),
    /// Replaces what readers see of `target`. Has a payload.
    MessageEdited {
        /// The message.
        target: SeqId,
        /// Media type of the new payload.
        content_type: Arc<str>,
    },
    /// Hides `target` from readers.
    MessageRecalled {
        /// The message.
        target: SeqId,
        /// Its ordinal.
        target_ordinal: Ordinal,
        /// For people.
        reason: Option<Arc<str>>,
    },
    /// A user reacted or took it back. The user is the entry's sender.
    ReactionChanged {
        /// The message.
        target: SeqId,
        /// Usually one emoji.
        key: ReactionKey,
        /// `true` when added.
        on: bool,
    },
    /// A user is a member from here on.
    MemberJoined {
        /// The member.
        uid: Uid,
        /// With this role.
        role: Role,
    },
    /// A member left.
    MemberLeft {
        /// The former member.
        uid: Uid,
    },
    /// A member was removed by the entry's sender.
    MemberRemoved {
        /// The former member.
        uid: Uid,
        /// For people.
        reason: Option<Arc<str>>,
    },
    /// A member's role changed.
    RoleChanged {
        /// The member.
        uid: Uid,
        /// The new role.
        role: Role,
    },
    /// A user (the entry's sender) asked to join.
    JoinRequested {
        /// For people.
        reason: Option<Arc<str>>,
    },
    /// A request was decided by the entry's sender; if agreed, MemberJoined follows in the same group.
    JoinDecided {
        /// Who had asked.
        uid: Uid,
        /// The decision.
        agreed: bool,
    },
    /// A raw frame that is not a message. Has a payload.
    Broadcast {
        /// Media type of the payload.
        content_type: Arc<str>,
    },
    /// These messages passed their `expires_ms`.
    MessagesExpired {
        /// The messages with their ordinals, ascending.
        targets: Vec<(SeqId, Ordinal)>,
    },
    /// The payloads of these messages were destroyed.
    MessagesErased {
        /// The messages with their ordinals, ascending.
        targets: Vec<(SeqId, Ordinal)>,
        /// For compliance.
        reason: Option<Arc<str>>,
    },
    /// Nothing of this feed is expired or erased until every hold is lifted.
    HoldPlaced {
        /// Name of the hold.
        hold: Arc<str>,
    },
    /// The hold of this name ended.
    HoldLifted {
        /// Name of the hold.
        hold: Arc<str>,
    },
    /// Personal feeds: the owner's place in another feed changed.
    MarkMoved {
        /// The other feed.
        feed: crate::ids::FeedId,
        /// The new read mark with the ordinal at it; may be lower than before when the user marked unread.
        read: Option<(SeqId, Ordinal)>,
        /// The new received mark.
        received: Option<SeqId>,
    },
    /// Personal feeds: what others asked in `feed` up to and including `upto` needs no answer any more.
    UnrepliedResolved {
        /// The other feed.
        feed: crate::ids::FeedId,
        /// The last message that is closed.
        upto: SeqId,
    },
    /// Personal feeds: pinned or unpinned.
    FeedPinned {
        /// The other feed.
        feed: crate::ids::FeedId,
        /// Whether it is pinned now.
        pinned: bool,
    },
    /// Personal feeds: muted until a time, 0 = not muted.
    FeedMuted {
        /// The other feed.
        feed: crate::ids::FeedId,
        /// Milliseconds since the epoch.
        until_ms: TimeMs,
    },
    /// Personal feeds: something to tell the user that is not a message. Has a payload.
    Notified {
        /// Media type of the payload.
        content_type: Arc<str>,
    },
}

impl Event {
    /// Whether the event takes the next ordinal.
    pub fn is_message(&self) -> bool {
        matches!(self, Self::MessageSent(_))
    }
}
