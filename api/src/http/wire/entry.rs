//! Entries as callers get them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::entry::Payload;
use feedlog_core::event::{Event, Message};
use feedlog_service::views::View;
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

pub(super) fn raw(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}
