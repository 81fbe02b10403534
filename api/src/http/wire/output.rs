//! What callers get.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::command::Done;
use feedlog_core::entry::Payload;
use feedlog_core::event::{Event, Message};
use feedlog_service::views::{
    Conversation, ExplainedUnread, FeedInfo, Gone, GoneReason, LeftOut, MemberInfo, Receipts, RequestInfo,
    Unread, UnreadTotal, Unreplied, View,
};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::input::{FeedKindWord, HistoryWord, JSON, JoinWord, MessageKindWord, RoleWord, is_json_type};

/// The bytes of a payload as this wire shows them: verbatim JSON, or base64.
#[derive(Default)]
struct Shown<'a> {
    json: Option<&'a RawValue>,
    base64: Option<String>,
    content_type: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn of(payload: &'a Payload, content_type: &'a str) -> Self {
        let Some(bytes) = payload.bytes() else { return Self::default() };
        // Bytes of a JSON type that other wires brought may still not be JSON: then they would break the answer.
        if is_json_type(content_type)
            && let Ok(json) = serde_json::from_slice::<&RawValue>(bytes)
        {
            let content_type = Some(content_type).filter(|name| *name != JSON);
            return Self { json: Some(json), base64: None, content_type };
        }
        Self { json: None, base64: Some(STANDARD.encode(bytes)), content_type: Some(content_type) }
    }
}

/// One entry. Which fields there are depends on `type`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Entry)]
pub(crate) struct EntryOut<'a> {
    pub(crate) feed_id: &'a str,
    /// The place in the feed, from 1.
    pub(crate) seq_id: u64,
    /// The previous entry that the caller may see, 0 when there is none: proof that nothing is missing between.
    pub(crate) prev_seq_id: u64,
    /// Messages up to and including this entry.
    pub(crate) ordinal: u64,
    /// The server's clock; never decreases within a feed.
    pub(crate) time_ms: u64,
    /// Who caused it.
    pub(crate) sender: &'a str,
    /// What happened.
    #[serde(rename = "type")]
    pub(crate) kind_of_entry: EntryType,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client_msg_id: Option<&'a str>,
    /// `message`: what it is. `feed_created`: the kind of feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    kind: Option<Cow<'static, str>>,
    /// JSON as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    payload: Option<&'a RawValue>,
    /// Other bytes, in base64 with padding.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payload_base64: Option<String>,
    /// Media type, when it is not `application/json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content_type: Option<&'a str>,
    /// Conversation list: the payload is larger than 4096 bytes and left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payload_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reply_to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    mentions: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    to_reply: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    seen_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sent_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    auto: Option<bool>,
    /// Set when the message was recalled; then there is no payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    recalled: Option<RecalledOut<'a>>,
    /// The newest edit; the payload shown is that of the edit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    edited_seq_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reactions: Option<Vec<ReactionOut<'a>>>,
    /// `recall`, `edit`, `reaction`: the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    target: Option<u64>,
    /// `expired`, `erased`: the messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    targets: Option<Vec<u64>>,
    /// `reaction`: which.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<&'a str>,
    /// `reaction`: added or taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    on: Option<bool>,
    /// Member entries: who.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    role: Option<RoleWord>,
    /// `join_decided`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    agreed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    join: Option<JoinWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    history: Option<HistoryWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    meta: Option<&'a RawValue>,
    /// `feed_created`: the two users of a direct feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pair: Option<Vec<&'a str>>,
    /// `hold_placed`, `hold_lifted`: name of the hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hold: Option<&'a str>,
    /// Entries of a personal feed: the other feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    of_feed_id: Option<&'a str>,
    /// `mark_moved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    read_seq_id: Option<u64>,
    /// `mark_moved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    received_seq_id: Option<u64>,
    /// `unreplied_resolved`: the last message that is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    upto_seq_id: Option<u64>,
    /// `feed_pinned`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pinned: Option<bool>,
    /// `feed_muted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    muted_until_ms: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub(crate) enum EntryType {
    FeedCreated,
    FeedChanged,
    Message,
    Edit,
    Recall,
    Reaction,
    MemberJoined,
    MemberLeft,
    MemberRemoved,
    RoleChanged,
    JoinRequested,
    JoinDecided,
    Broadcast,
    Expired,
    Erased,
    HoldPlaced,
    HoldLifted,
    MarkMoved,
    UnrepliedResolved,
    FeedPinned,
    FeedMuted,
    Notified,
}

/// The recall of a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Recalled)]
pub(crate) struct RecalledOut<'a> {
    by: &'a str,
    /// The recall's own entry.
    seq_id: u64,
    time_ms: u64,
}

/// How many users reacted so.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReactionCount)]
pub(crate) struct ReactionOut<'a> {
    key: &'a str,
    count: u32,
}

fn word<T: Serialize>(word: T) -> Cow<'static, str> {
    match serde_json::to_value(word) {
        Ok(Value::String(text)) => Cow::Owned(text),
        _ => unreachable!("words are written as strings"),
    }
}

fn message_kind(kind: feedlog_core::event::MessageKind) -> Cow<'static, str> {
    match kind {
        feedlog_core::event::MessageKind::Text => Cow::Borrowed("text"),
        kind => word(MessageKindWord::from(kind)),
    }
}

/// Payloads above this are left out of the conversation list.
const PREVIEW_BYTES_MAX: usize = 4096;

impl<'a> EntryOut<'a> {
    /// The entry as it is shown in the conversation list.
    pub(crate) fn preview(view: &'a View) -> Self {
        let mut out = Self::new(view);
        if let Some(bytes) = view.entry.payload.bytes().filter(|bytes| bytes.len() > PREVIEW_BYTES_MAX) {
            out.payload = None;
            out.payload_base64 = None;
            out.payload_bytes = Some(bytes.len() as u64);
        }
        out
    }

    /// The entry as this reader may see it.
    pub(crate) fn new(view: &'a View) -> Self {
        let entry = &view.entry;
        let mut out = Self::bare(view);
        match &entry.event {
            Event::FeedCreated { kind, title, join, history, meta, pair } => {
                out.kind = Some(word(FeedKindWord::from(*kind)));
                out.title = title.as_deref();
                if matches!(kind, feedlog_core::event::FeedKind::Group) {
                    out.join = Some((*join).into());
                    out.history = Some((*history).into());
                }
                out.meta = meta.as_deref().and_then(raw);
                out.pair = pair.as_ref().map(|(a, b)| vec![a.as_str(), b.as_str()]);
            }
            Event::FeedChanged { title, join, history, meta } => {
                out.kind_of_entry = EntryType::FeedChanged;
                out.title = title.as_deref();
                out.join = join.map(Into::into);
                out.history = history.map(Into::into);
                out.meta = meta.as_deref().and_then(raw);
            }
            Event::MessageSent(message) => out.message(view, message),
            Event::MessageEdited { target, content_type } => {
                out.kind_of_entry = EntryType::Edit;
                out.target = Some(target.0);
                out.show(&entry.payload, content_type);
            }
            Event::MessageRecalled { target, reason, .. } => {
                out.kind_of_entry = EntryType::Recall;
                out.target = Some(target.0);
                out.reason = reason.as_deref();
            }
            Event::ReactionChanged { target, key, on } => {
                out.kind_of_entry = EntryType::Reaction;
                out.target = Some(target.0);
                out.key = Some(key.as_str());
                out.on = Some(*on);
            }
            Event::MemberJoined { uid, role } => {
                out.kind_of_entry = EntryType::MemberJoined;
                out.uid = Some(uid.as_str());
                out.role = Some((*role).into());
            }
            Event::MemberLeft { uid } => {
                out.kind_of_entry = EntryType::MemberLeft;
                out.uid = Some(uid.as_str());
            }
            Event::MemberRemoved { uid, reason } => {
                out.kind_of_entry = EntryType::MemberRemoved;
                out.uid = Some(uid.as_str());
                out.reason = reason.as_deref();
            }
            Event::RoleChanged { uid, role } => {
                out.kind_of_entry = EntryType::RoleChanged;
                out.uid = Some(uid.as_str());
                out.role = Some((*role).into());
            }
            Event::JoinRequested { reason } => {
                out.kind_of_entry = EntryType::JoinRequested;
                out.uid = Some(entry.sender.as_str());
                out.reason = reason.as_deref();
            }
            Event::JoinDecided { uid, agreed } => {
                out.kind_of_entry = EntryType::JoinDecided;
                out.uid = Some(uid.as_str());
                out.agreed = Some(*agreed);
            }
            Event::Broadcast { content_type } => {
                out.kind_of_entry = EntryType::Broadcast;
                out.show(&entry.payload, content_type);
            }
            Event::MessagesExpired { targets } => {
                out.kind_of_entry = EntryType::Expired;
                out.targets = Some(targets.iter().map(|(seq, _)| seq.0).collect());
            }
            Event::MessagesErased { targets, reason } => {
                out.kind_of_entry = EntryType::Erased;
                out.targets = Some(targets.iter().map(|(seq, _)| seq.0).collect());
                out.reason = reason.as_deref();
            }
            Event::HoldPlaced { hold } => {
                out.kind_of_entry = EntryType::HoldPlaced;
                out.hold = Some(hold);
            }
            Event::HoldLifted { hold } => {
                out.kind_of_entry = EntryType::HoldLifted;
                out.hold = Some(hold);
            }
            Event::MarkMoved { feed, read, received } => {
                out.kind_of_entry = EntryType::MarkMoved;
                out.of_feed_id = Some(feed.as_str());
                out.read_seq_id = read.map(|(seq, _)| seq.0);
                out.received_seq_id = received.map(|seq| seq.0);
            }
            Event::UnrepliedResolved { feed, upto } => {
                out.kind_of_entry = EntryType::UnrepliedResolved;
                out.of_feed_id = Some(feed.as_str());
                out.upto_seq_id = Some(upto.0);
            }
            Event::FeedPinned { feed, pinned } => {
                out.kind_of_entry = EntryType::FeedPinned;
                out.of_feed_id = Some(feed.as_str());
                out.pinned = Some(*pinned);
            }
            Event::FeedMuted { feed, until_ms } => {
                out.kind_of_entry = EntryType::FeedMuted;
                out.of_feed_id = Some(feed.as_str());
                out.muted_until_ms = Some(*until_ms);
            }
            Event::Notified { content_type } => {
                out.kind_of_entry = EntryType::Notified;
                out.show(&entry.payload, content_type);
            }
        }
        out
    }

    fn bare(view: &'a View) -> Self {
        let entry = &view.entry;
        Self {
            feed_id: entry.feed.as_str(),
            seq_id: entry.seq.0,
            prev_seq_id: view.prev_seq.0,
            ordinal: entry.ordinal.0,
            time_ms: entry.time_ms,
            sender: entry.sender.as_str(),
            kind_of_entry: EntryType::FeedCreated,
            client_msg_id: None,
            kind: None,
            payload: None,
            payload_base64: None,
            content_type: None,
            payload_bytes: None,
            reply_to: None,
            mentions: None,
            to_reply: None,
            seen_seq: None,
            sent_ms: None,
            expires_ms: None,
            auto: None,
            recalled: None,
            edited_seq_id: None,
            reactions: None,
            target: None,
            targets: None,
            key: None,
            on: None,
            uid: None,
            role: None,
            agreed: None,
            reason: None,
            title: None,
            join: None,
            history: None,
            meta: None,
            pair: None,
            hold: None,
            of_feed_id: None,
            read_seq_id: None,
            received_seq_id: None,
            upto_seq_id: None,
            pinned: None,
            muted_until_ms: None,
        }
    }

    fn message(&mut self, view: &'a View, message: &'a Message) {
        self.kind_of_entry = EntryType::Message;
        self.client_msg_id = message.client_msg_id.as_ref().map(|id| id.as_str());
        self.kind = Some(message_kind(message.kind));
        self.reply_to = message.reply_to.map(|seq| seq.0);
        self.mentions = (!message.mentions.is_empty())
            .then(|| message.mentions.iter().map(feedlog_core::ids::Uid::as_str).collect());
        self.to_reply = message.to_reply;
        self.seen_seq = Some(message.seen_seq.0);
        self.sent_ms = message.sent_ms;
        self.expires_ms = message.expires_ms;
        self.auto = message.auto.then_some(true);
        let fate = view.fate.as_deref();
        if let Some(recalled) = fate.and_then(|fate| fate.recalled.as_ref()) {
            // I-8 of the reader's side: whatever the layer below handed over, a recalled message shows no payload (P6).
            self.recalled = Some(RecalledOut {
                by: recalled.by.as_str(),
                seq_id: recalled.seq.0,
                time_ms: recalled.time_ms,
            });
            return;
        }
        self.edited_seq_id = fate.and_then(|fate| fate.edited).map(|seq| seq.0);
        self.reactions = fate.filter(|fate| !fate.reactions.is_empty()).map(|fate| {
            fate.reactions
                .iter()
                .map(|(key, count)| ReactionOut { key: key.as_str(), count: *count })
                .collect()
        });
        self.show(&view.entry.payload, &message.content_type);
    }

    fn show(&mut self, payload: &'a Payload, content_type: &'a str) {
        let shown = Shown::of(payload, content_type);
        self.payload = shown.json;
        self.payload_base64 = shown.base64;
        self.content_type = shown.content_type;
    }
}

fn raw(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

/// What became of a command.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Done)]
pub(crate) struct DoneOut<'a> {
    feed_id: &'a str,
    /// The entry that stands for it; 0 when nothing had to change.
    seq_id: u64,
    time_ms: u64,
    /// It had been done before, nothing was appended.
    duplicate: bool,
}

impl<'a> From<&'a Done> for DoneOut<'a> {
    fn from(done: &'a Done) -> Self {
        Self {
            feed_id: done.feed.as_str(),
            seq_id: done.seq.0,
            time_ms: done.time_ms,
            duplicate: done.duplicate,
        }
    }
}

/// A message that is durable.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Sent)]
pub(crate) struct SentOut<'a> {
    pub(crate) feed_id: &'a str,
    pub(crate) seq_id: u64,
    pub(crate) ordinal: u64,
    pub(crate) time_ms: u64,
    pub(crate) client_msg_id: Option<&'a str>,
    /// A retry: these are the values of the first time.
    pub(crate) duplicate: bool,
}

impl<'a> SentOut<'a> {
    pub(crate) fn new(done: &'a Done, client_msg_id: Option<&'a str>) -> Self {
        Self {
            feed_id: done.feed.as_str(),
            seq_id: done.seq.0,
            ordinal: done.ordinal.0,
            time_ms: done.time_ms,
            client_msg_id,
            duplicate: done.duplicate,
        }
    }
}

/// Entries that lie here and are not shown.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Gone)]
pub(crate) struct GoneOut {
    from: u64,
    to: u64,
    reason: GoneWord,
}

/// Why entries are not shown.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub(crate) enum GoneWord {
    Expired,
    Erased,
    BeforeJoin,
}

impl From<&Gone> for GoneOut {
    fn from(gone: &Gone) -> Self {
        Self {
            from: gone.from.0,
            to: gone.to.0,
            reason: match gone.reason {
                GoneReason::Expired => GoneWord::Expired,
                GoneReason::Erased => GoneWord::Erased,
                GoneReason::BeforeJoin => GoneWord::BeforeJoin,
            },
        }
    }
}

/// Where the next page begins: the parameter to ask with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NextOut {
    /// Ascending.
    LastSeqId(u64),
    /// Descending.
    Before(u64),
    /// By ordinal.
    Position(i64),
}

/// A page of history.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EntryPage)]
pub(crate) struct EntryPageOut<'a> {
    pub(crate) feed_id: &'a str,
    /// The newest entry, whoever may see it.
    pub(crate) head_seq_id: u64,
    /// The first place the caller is entitled to.
    pub(crate) first_seq_id: u64,
    pub(crate) entries: Vec<EntryOut<'a>>,
    /// What lies between and is not shown.
    pub(crate) gone: Vec<GoneOut>,
    /// `null` at the end.
    pub(crate) next: Option<NextOut>,
}

/// A feed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Feed)]
pub(crate) struct FeedOut<'a> {
    feed_id: &'a str,
    kind: FeedKindWord,
    title: Option<&'a str>,
    join: JoinWord,
    history: HistoryWord,
    #[schema(value_type = Option<Object>)]
    meta: Option<&'a RawValue>,
    /// The caller's; `null` when not a member.
    role: Option<RoleWord>,
    head_seq_id: u64,
    member_count: u64,
    created_ms: u64,
    /// The two users of a direct feed.
    pair: Option<Vec<&'a str>>,
}

impl<'a> From<&'a FeedInfo> for FeedOut<'a> {
    fn from(info: &'a FeedInfo) -> Self {
        Self {
            feed_id: info.feed.as_str(),
            kind: info.kind.into(),
            title: info.title.as_deref(),
            join: info.join.into(),
            history: info.history.into(),
            meta: info.meta.as_deref().and_then(raw),
            role: info.role.map(Into::into),
            head_seq_id: info.head.0,
            member_count: info.member_count,
            created_ms: info.created_ms,
            pair: info.pair.as_ref().map(|(a, b)| vec![a.as_str(), b.as_str()]),
        }
    }
}

/// A page of feeds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FeedPage)]
pub(crate) struct FeedPageOut<'a> {
    pub(crate) feeds: Vec<FeedOut<'a>>,
    pub(crate) next: Option<String>,
}

/// A row of the conversation list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Conversation)]
pub(crate) struct ConversationOut<'a> {
    feed_id: &'a str,
    kind: FeedKindWord,
    title: Option<&'a str>,
    role: Option<RoleWord>,
    /// The two users of a direct feed.
    pair: Option<Vec<&'a str>>,
    head_seq_id: u64,
    read_seq_id: u64,
    unread: u64,
    mentions: u64,
    unreplied: u64,
    pinned: bool,
    muted: bool,
    muted_until_ms: u64,
    last: Option<EntryOut<'a>>,
    active_ms: u64,
}

impl<'a> ConversationOut<'a> {
    pub(crate) fn new(row: &'a Conversation, now_ms: u64) -> Self {
        let info = &row.info;
        Self {
            feed_id: info.feed.as_str(),
            kind: info.kind.into(),
            title: info.title.as_deref(),
            role: info.role.map(Into::into),
            pair: info.pair.as_ref().map(|(a, b)| vec![a.as_str(), b.as_str()]),
            head_seq_id: info.head.0,
            read_seq_id: row.read_seq.0,
            unread: row.unread,
            mentions: row.mentions,
            unreplied: row.unreplied,
            pinned: row.pinned,
            muted: row.muted_until_ms > now_ms,
            muted_until_ms: row.muted_until_ms,
            last: row.last.as_ref().map(EntryOut::preview),
            active_ms: row.active_ms,
        }
    }
}

/// A page of the conversation list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConversationPage)]
pub(crate) struct ConversationPageOut<'a> {
    pub(crate) feeds: Vec<ConversationOut<'a>>,
    pub(crate) next: Option<&'a str>,
}

/// A member.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Member)]
pub(crate) struct MemberOut<'a> {
    uid: &'a str,
    role: RoleWord,
    joined_seq_id: u64,
    joined_ms: u64,
}

impl<'a> From<&'a MemberInfo> for MemberOut<'a> {
    fn from(info: &'a MemberInfo) -> Self {
        Self {
            uid: info.uid.as_str(),
            role: info.role.into(),
            joined_seq_id: info.joined_seq.0,
            joined_ms: info.joined_ms,
        }
    }
}

/// A page of members.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MemberPage)]
pub(crate) struct MemberPageOut<'a> {
    pub(crate) members: Vec<MemberOut<'a>>,
    pub(crate) next: Option<&'a str>,
}

/// A pending request to join.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JoinRequest)]
pub(crate) struct RequestOut<'a> {
    uid: &'a str,
    seq_id: u64,
    time_ms: u64,
    reason: Option<&'a str>,
}

impl<'a> From<&'a RequestInfo> for RequestOut<'a> {
    fn from(info: &'a RequestInfo) -> Self {
        Self {
            uid: info.uid.as_str(),
            seq_id: info.seq.0,
            time_ms: info.time_ms,
            reason: info.reason.as_deref(),
        }
    }
}

/// A page of requests.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JoinRequestPage)]
pub(crate) struct RequestPageOut<'a> {
    pub(crate) requests: Vec<RequestOut<'a>>,
    pub(crate) next: Option<&'a str>,
}

/// The caller's marks in a feed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Marks)]
pub(crate) struct MarksOut<'a> {
    pub(crate) feed_id: &'a str,
    pub(crate) read_seq_id: u64,
    pub(crate) received_seq_id: u64,
}

/// Unread of one feed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FeedUnread)]
pub(crate) struct FeedUnreadOut<'a> {
    feed_id: &'a str,
    unread: u64,
    mentions: u64,
    read_seq_id: u64,
    muted: bool,
    /// Only with `explain=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    explain: Option<ExplainOut>,
}

/// Why the figure is what it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Explain)]
pub(crate) struct ExplainOut {
    /// Ranges of messages that count.
    counted: Vec<RangeOut>,
    /// Messages after the mark that do not count, each with the rule.
    left_out: Vec<LeftOutOut>,
    /// The lists stop here because they are long; 0 when complete.
    truncated_at: u64,
}

/// A range of places.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Range)]
pub(crate) struct RangeOut {
    from: u64,
    to: u64,
}

/// A message that does not count.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LeftOut)]
pub(crate) struct LeftOutOut {
    seq_id: u64,
    rule: RuleWord,
}

/// The rule that leaves a message out.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub(crate) enum RuleWord {
    Own,
    System,
    Recalled,
    Erased,
    Expired,
}

impl<'a> FeedUnreadOut<'a> {
    pub(crate) fn new(unread: &'a Unread) -> Self {
        Self {
            feed_id: unread.feed.as_str(),
            unread: unread.unread,
            mentions: unread.mentions,
            read_seq_id: unread.read_seq.0,
            muted: unread.muted,
            explain: None,
        }
    }

    pub(crate) fn explained(view: &'a ExplainedUnread) -> Self {
        let counted = view.counted.iter().map(|(from, to)| RangeOut { from: from.0, to: to.0 }).collect();
        let left_out = view
            .left_out
            .iter()
            .map(|(seq, rule)| LeftOutOut {
                seq_id: seq.0,
                rule: match rule {
                    LeftOut::Own => RuleWord::Own,
                    LeftOut::System => RuleWord::System,
                    LeftOut::Recalled => RuleWord::Recalled,
                    LeftOut::Erased => RuleWord::Erased,
                    LeftOut::Expired => RuleWord::Expired,
                },
            })
            .collect();
        let explain = ExplainOut { counted, left_out, truncated_at: view.truncated_at.0 };
        Self { explain: Some(explain), ..Self::new(&view.unread) }
    }
}

/// Unread over all feeds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UnreadTotal)]
pub(crate) struct UnreadTotalOut<'a> {
    total: u64,
    total_unmuted: u64,
    mentions: u64,
    feeds: Vec<FeedUnreadOut<'a>>,
}

impl<'a> From<&'a UnreadTotal> for UnreadTotalOut<'a> {
    fn from(view: &'a UnreadTotal) -> Self {
        Self {
            total: view.total,
            total_unmuted: view.total_unmuted,
            mentions: view.mentions,
            feeds: view.feeds.iter().map(FeedUnreadOut::new).collect(),
        }
    }
}

/// Somebody waits for the caller's answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Unreplied)]
pub(crate) struct UnrepliedOut<'a> {
    feed_id: &'a str,
    /// The oldest message that waits.
    seq_id: u64,
    from: &'a str,
    waiting_since_ms: u64,
    /// How many wait in this feed.
    count: u64,
}

impl<'a> From<&'a Unreplied> for UnrepliedOut<'a> {
    fn from(row: &'a Unreplied) -> Self {
        Self {
            feed_id: row.feed.as_str(),
            seq_id: row.seq.0,
            from: row.from.as_str(),
            waiting_since_ms: row.waiting_since_ms,
            count: row.count,
        }
    }
}

/// Who waits, longest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UnrepliedList)]
pub(crate) struct UnrepliedListOut<'a> {
    pub(crate) unreplied: Vec<UnrepliedOut<'a>>,
}

/// Who has received and read a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Receipts)]
pub(crate) struct ReceiptsOut<'a> {
    delivered: u64,
    read: u64,
    members: Vec<ReceiptOut<'a>>,
    next: Option<&'a str>,
}

/// One member's receipt.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MemberReceipt)]
pub(crate) struct ReceiptOut<'a> {
    uid: &'a str,
    received_ms: Option<u64>,
    read_ms: Option<u64>,
}

impl<'a> From<&'a Receipts> for ReceiptsOut<'a> {
    fn from(view: &'a Receipts) -> Self {
        Self {
            delivered: view.delivered,
            read: view.read,
            members: view
                .members
                .iter()
                .map(|row| ReceiptOut {
                    uid: row.uid.as_str(),
                    received_ms: row.received_ms,
                    read_ms: row.read_ms,
                })
                .collect(),
            next: view.next.as_deref(),
        }
    }
}
