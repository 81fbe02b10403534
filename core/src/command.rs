//! Wishes, not yet allowed or true.

use std::sync::Arc;

use bytes::Bytes;

use crate::event::{FeedKind, HistoryMode, JoinMode, MessageKind, Role, Scope};
use crate::ids::{ClientMsgId, FeedId, Ordinal, ReactionKey, SeqId, TimeMs, Uid};

/// What a principal may do besides being its uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes {
    /// Acts as its own uid: reads and writes where that user may.
    pub user: bool,
    /// A service: may act for any user, may append to personal feeds, may recall any message.
    pub send_as: bool,
    /// Reads every feed.
    pub audit: bool,
    /// Administers: tokens, all feeds, maintenance; manages every group like its owner.
    pub admin: bool,
}

/// Whoever is asking. Made by authentication, never by a front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The name under which entries are written.
    pub uid: Uid,
    /// What it may do.
    pub scopes: Scopes,
    /// Not authenticated: may use open feeds where configured, and nothing else.
    pub anonymous: bool,
    /// The service that acts for `uid`, if one does.
    pub via: Option<Uid>,
}

/// A wish about one feed.
#[derive(Debug, Clone)]
pub struct Command {
    /// The feed whose log would get the entries.
    pub feed: FeedId,
    /// What is wished.
    pub action: Action,
}

/// What is wished.
#[derive(Debug, Clone)]
pub enum Action {
    /// Create the feed `Command::feed`.
    CreateFeed(CreateFeed),
    /// Change title, meta, join or history.
    ChangeFeed {
        /// New title.
        title: Option<Arc<str>>,
        /// New join mode.
        join: Option<JoinMode>,
        /// New history mode.
        history: Option<HistoryMode>,
        /// New meta, a JSON object.
        meta: Option<Arc<str>>,
    },
    /// Append a message.
    SendMessage(Box<Draft>),
    /// Replace the payload of one's own message.
    EditMessage {
        /// The message.
        target: SeqId,
        /// Media type of the new payload.
        content_type: Arc<str>,
        /// New payload.
        payload: Bytes,
    },
    /// Hide a message from readers.
    RecallMessage {
        /// Which.
        target: RecallTarget,
        /// For people.
        reason: Option<Arc<str>>,
    },
    /// React to a message or take it back.
    React {
        /// The message.
        target: SeqId,
        /// Usually one emoji.
        key: ReactionKey,
        /// Add or take back.
        on: bool,
    },
    /// Add a member at once.
    AddMember {
        /// Who.
        uid: Uid,
        /// With this role.
        role: Role,
    },
    /// Remove a member; oneself = leave.
    RemoveMember {
        /// Who.
        uid: Uid,
        /// For people.
        reason: Option<Arc<str>>,
    },
    /// Change a member's role; naming another owner hands the feed on.
    ChangeRole {
        /// Who.
        uid: Uid,
        /// The new role.
        role: Role,
    },
    /// Join, or ask to.
    Join {
        /// For those who decide.
        reason: Option<Arc<str>>,
    },
    /// Decide a request to join.
    DecideJoin {
        /// Who had asked.
        uid: Uid,
        /// The decision.
        agree: bool,
    },
    /// Append a raw frame.
    Broadcast {
        /// Media type.
        content_type: Arc<str>,
        /// The frame.
        payload: Bytes,
        /// Creates the feed when absent.
        create: Option<CreateFeed>,
    },
    /// The service itself: messages that passed their `expires_ms`.
    ExpireMessages {
        /// Candidates; those already gone are skipped.
        targets: Vec<SeqId>,
        /// Also those without an `expires_ms` or with one that lies ahead: somebody set an end to all that the feed held.
        early: bool,
    },
    /// Compliance: destroy payloads.
    EraseMessages {
        /// Which.
        targets: Vec<SeqId>,
        /// Why.
        reason: Option<Arc<str>>,
    },
    /// Personal feed: move marks of `feed`. Forward only, except `unread_from`.
    MoveMarks {
        /// The other feed.
        feed: FeedId,
        /// Read up to here.
        read: Option<SeqId>,
        /// Received up to here.
        received: Option<SeqId>,
        /// Mark unread from this entry on: the read mark goes before it.
        unread_from: Option<SeqId>,
    },
    /// Personal feed: close what is owed in `feed` up to and including `upto`.
    ResolveUnreplied {
        /// The other feed.
        feed: FeedId,
        /// The last message that is closed.
        upto: SeqId,
    },
    /// Personal feed: own settings of `feed`.
    ChangeSettings {
        /// The other feed.
        feed: FeedId,
        /// Pin or unpin.
        pinned: Option<bool>,
        /// Mute until a time, 0 = unmute.
        muted_until_ms: Option<TimeMs>,
    },
    /// Personal feed: tell the user something.
    Notify {
        /// Media type.
        content_type: Arc<str>,
        /// What.
        payload: Bytes,
    },
}

/// What a new feed is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateFeed {
    /// Who may read and write.
    pub kind: FeedKind,
    /// For people.
    pub title: Option<Arc<str>>,
    /// First members besides the creator (group), or the two users (direct).
    pub members: Vec<Uid>,
    /// How one becomes a member.
    pub join: JoinMode,
    /// What a member sees of the time before joining.
    pub history: HistoryMode,
    /// A JSON object of the creator's.
    pub meta: Option<Arc<str>>,
}

impl CreateFeed {
    /// A feed of this kind that anybody may join and read from its beginning, with no title and nobody in it yet.
    pub fn new(kind: FeedKind) -> Self {
        Self {
            kind,
            title: None,
            members: Vec::new(),
            join: JoinMode::Open,
            history: HistoryMode::All,
            meta: None,
        }
    }
}

/// A message to be.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What it is.
    pub kind: MessageKind,
    /// Media type of the payload.
    pub content_type: Arc<str>,
    /// As received.
    pub payload: Bytes,
    /// The sender's own id.
    pub client_msg_id: Option<ClientMsgId>,
    /// Where `client_msg_id` is unique.
    pub scope: Scope,
    /// The message that this one answers.
    pub reply_to: Option<SeqId>,
    /// Who is addressed.
    pub mentions: Vec<Uid>,
    /// Asks for an answer or declines one.
    pub to_reply: Option<bool>,
    /// What the sender says to have seen.
    pub seen_seq: Option<SeqId>,
    /// The sender's clock.
    pub sent_ms: Option<TimeMs>,
    /// When the payload is to be hidden.
    pub expires_ms: Option<TimeMs>,
    /// Written by a bot.
    pub auto: bool,
    /// What the front end wants handed back to its own kind, see [`crate::event::Message::carried`]. Empty: nothing.
    pub carried: Bytes,
    /// Refuse unless the feed's head is this.
    pub expect_head: Option<SeqId>,
    /// Creates the feed when absent (open and direct feeds, and personal ones by services).
    pub create: Option<CreateFeed>,
}

impl Draft {
    /// A message with nothing but its body: of its sender, without an id, to a feed that is there.
    pub fn new(kind: MessageKind, content_type: Arc<str>, payload: Bytes) -> Self {
        Self {
            kind,
            content_type,
            payload,
            client_msg_id: None,
            scope: Scope::Sender,
            reply_to: None,
            mentions: Vec::new(),
            to_reply: None,
            seen_seq: None,
            sent_ms: None,
            expires_ms: None,
            auto: false,
            expect_head: None,
            create: None,
            carried: Bytes::new(),
        }
    }
}

/// How a recall names its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecallTarget {
    /// By place.
    Seq(SeqId),
    /// By the sender's own id; the caller's own unless `sender` or a shared scope is given.
    ClientMsgId {
        /// Whose message.
        sender: Option<Uid>,
        /// Where the id is unique.
        scope: Scope,
        /// The id.
        id: ClientMsgId,
    },
}

/// What became of a command, told to the caller once durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The feed.
    pub feed: FeedId,
    /// The entry that answers the command: the new one, or for a repeated command the first one. 0 when the command
    /// changed nothing and no entry stands for it.
    pub seq: SeqId,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// Its time.
    pub time_ms: TimeMs,
    /// Nothing was appended: this had been done before.
    pub duplicate: bool,
    /// `Join` where approval is needed: a request was filed (or was pending already) and waits for a decision.
    pub requested: bool,
}
