//! Events as JSON, field for field, both ways: what an export needs to make the same stored bytes again.
//!
//! The names here are part of the export format: a released name is never changed or reused.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::entry::Payload;
use feedlog_core::event::{Event, FeedKind, HistoryMode, JoinMode, Message, MessageKind, Role, Scope};
use feedlog_core::ids::{ClientMsgId, FeedId, Ordinal, ReactionKey, SeqId, Uid};
use feedlog_core::limits::CARRIED_BYTES_MAX;
use serde::{Deserialize, Serialize};

use super::{hex, unhex};

/// A field that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadEvent {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum EventJson {
    FeedCreated {
        kind: KindJson,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        join: JoinJson,
        history: HistoryJson,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        meta: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pair: Option<(String, String)>,
    },
    FeedChanged {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        join: Option<JoinJson>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history: Option<HistoryJson>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        meta: Option<String>,
    },
    MessageSent(Box<MessageJson>),
    MessageEdited {
        target: u64,
        content_type: String,
    },
    MessageRecalled {
        target: u64,
        target_ordinal: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    ReactionChanged {
        target: u64,
        key: String,
        on: bool,
    },
    MemberJoined {
        uid: String,
        role: RoleJson,
    },
    MemberLeft {
        uid: String,
    },
    MemberRemoved {
        uid: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    RoleChanged {
        uid: String,
        role: RoleJson,
    },
    JoinRequested {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    JoinDecided {
        uid: String,
        agreed: bool,
    },
    Broadcast {
        content_type: String,
    },
    MessagesExpired {
        targets: Vec<(u64, u64)>,
    },
    MessagesErased {
        targets: Vec<(u64, u64)>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    HoldPlaced {
        hold: String,
    },
    HoldLifted {
        hold: String,
    },
    MarkMoved {
        feed_id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        read: Option<(u64, u64)>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        received: Option<u64>,
    },
    UnrepliedResolved {
        feed_id: String,
        upto: u64,
    },
    FeedPinned {
        feed_id: String,
        pinned: bool,
    },
    FeedMuted {
        feed_id: String,
        until_ms: u64,
    },
    Notified {
        content_type: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageJson {
    kind: MessageKindJson,
    content_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<String>,
    /// Absent: the sender's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mentions: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_reply: Option<bool>,
    seen_seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    auto: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    carried_base64: Option<String>,
    /// What was carried was destroyed: its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    carried_stripped: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

macro_rules! names {
    ($($name:ident = $core:ident { $($variant:ident),+ })+) => {
        $(
            #[derive(Serialize, Deserialize, Clone, Copy)]
            #[serde(rename_all = "snake_case")]
            pub(super) enum $name { $($variant,)+ }

            impl From<$core> for $name {
                fn from(value: $core) -> Self {
                    match value { $($core::$variant => Self::$variant,)+ }
                }
            }

            impl From<$name> for $core {
                fn from(value: $name) -> Self {
                    match value { $($name::$variant => Self::$variant,)+ }
                }
            }
        )+
    };
}

names! {
    KindJson = FeedKind { Direct, Group, Open, Personal }
    JoinJson = JoinMode { Open, Approval, Invite }
    HistoryJson = HistoryMode { All, SinceJoin }
    RoleJson = Role { Member, Admin, Owner }
    MessageKindJson = MessageKind { Text, Image, Voice, Video, ShortVideo, Location, Link, Custom, System }
}

fn text(text: &Option<Arc<str>>) -> Option<String> {
    text.as_deref().map(str::to_owned)
}

fn pairs(targets: &[(SeqId, Ordinal)]) -> Vec<(u64, u64)> {
    targets.iter().map(|(seq, ordinal)| (seq.0, ordinal.0)).collect()
}

impl From<&Event> for EventJson {
    fn from(event: &Event) -> Self {
        match event {
            Event::FeedCreated { kind, title, join, history, meta, pair } => Self::FeedCreated {
                kind: (*kind).into(),
                title: text(title),
                join: (*join).into(),
                history: (*history).into(),
                meta: text(meta),
                pair: pair.as_ref().map(|(a, b)| (a.to_string(), b.to_string())),
            },
            Event::FeedChanged { title, join, history, meta } => Self::FeedChanged {
                title: text(title),
                join: join.map(Into::into),
                history: history.map(Into::into),
                meta: text(meta),
            },
            Event::MessageSent(message) => Self::MessageSent(Box::new(message.into())),
            Event::MessageEdited { target, content_type } => {
                Self::MessageEdited { target: target.0, content_type: content_type.to_string() }
            }
            Event::MessageRecalled { target, target_ordinal, reason } => Self::MessageRecalled {
                target: target.0,
                target_ordinal: target_ordinal.0,
                reason: text(reason),
            },
            Event::ReactionChanged { target, key, on } => {
                Self::ReactionChanged { target: target.0, key: key.to_string(), on: *on }
            }
            Event::MemberJoined { uid, role } => {
                Self::MemberJoined { uid: uid.to_string(), role: (*role).into() }
            }
            Event::MemberLeft { uid } => Self::MemberLeft { uid: uid.to_string() },
            Event::MemberRemoved { uid, reason } => {
                Self::MemberRemoved { uid: uid.to_string(), reason: text(reason) }
            }
            Event::RoleChanged { uid, role } => {
                Self::RoleChanged { uid: uid.to_string(), role: (*role).into() }
            }
            Event::JoinRequested { reason } => Self::JoinRequested { reason: text(reason) },
            Event::JoinDecided { uid, agreed } => Self::JoinDecided { uid: uid.to_string(), agreed: *agreed },
            Event::Broadcast { content_type } => Self::Broadcast { content_type: content_type.to_string() },
            Event::MessagesExpired { targets } => Self::MessagesExpired { targets: pairs(targets) },
            Event::MessagesErased { targets, reason } => {
                Self::MessagesErased { targets: pairs(targets), reason: text(reason) }
            }
            Event::HoldPlaced { hold } => Self::HoldPlaced { hold: hold.to_string() },
            Event::HoldLifted { hold } => Self::HoldLifted { hold: hold.to_string() },
            Event::MarkMoved { feed, read, received } => Self::MarkMoved {
                feed_id: feed.to_string(),
                read: read.map(|(seq, ordinal)| (seq.0, ordinal.0)),
                received: received.map(|seq| seq.0),
            },
            Event::UnrepliedResolved { feed, upto } => {
                Self::UnrepliedResolved { feed_id: feed.to_string(), upto: upto.0 }
            }
            Event::FeedPinned { feed, pinned } => {
                Self::FeedPinned { feed_id: feed.to_string(), pinned: *pinned }
            }
            Event::FeedMuted { feed, until_ms } => {
                Self::FeedMuted { feed_id: feed.to_string(), until_ms: *until_ms }
            }
            Event::Notified { content_type } => Self::Notified { content_type: content_type.to_string() },
        }
    }
}

impl From<&Message> for MessageJson {
    fn from(message: &Message) -> Self {
        Self {
            kind: message.kind.into(),
            content_type: message.content_type.to_string(),
            client_msg_id: message.client_msg_id.as_ref().map(ToString::to_string),
            scope: match &message.scope {
                Scope::Sender => None,
                Scope::Shared(name) => Some(name.to_string()),
            },
            reply_to: message.reply_to.map(|seq| seq.0),
            mentions: message.mentions.iter().map(ToString::to_string).collect(),
            to_reply: message.to_reply,
            seen_seq: message.seen_seq.0,
            sent_ms: message.sent_ms,
            expires_ms: message.expires_ms,
            auto: message.auto,
            carried_base64: message.carried.bytes().map(|bytes| STANDARD.encode(bytes)),
            carried_stripped: match &message.carried {
                Payload::Stripped { hash } => Some(hex(hash)),
                Payload::None | Payload::Bytes(_) => None,
            },
        }
    }
}

fn name<T>(field: &'static str, parsed: Result<T, feedlog_core::ids::NameError>) -> Result<T, BadEvent> {
    parsed.map_err(|err| BadEvent { field, problem: err.to_string() })
}

fn uid(field: &'static str, text: &str) -> Result<Uid, BadEvent> {
    name(field, Uid::parse(text))
}

fn feed(text: &str) -> Result<FeedId, BadEvent> {
    name("event.feed_id", FeedId::parse(text))
}

fn shared(text: Option<String>) -> Option<Arc<str>> {
    text.map(Arc::from)
}

fn targets(pairs: Vec<(u64, u64)>) -> Vec<(SeqId, Ordinal)> {
    pairs.into_iter().map(|(seq, ordinal)| (SeqId(seq), Ordinal(ordinal))).collect()
}

impl TryFrom<EventJson> for Event {
    type Error = BadEvent;

    fn try_from(json: EventJson) -> Result<Self, BadEvent> {
        Ok(match json {
            EventJson::FeedCreated { kind, title, join, history, meta, pair } => Self::FeedCreated {
                kind: kind.into(),
                title: shared(title),
                join: join.into(),
                history: history.into(),
                meta: shared(meta),
                pair: match pair {
                    Some((a, b)) => Some((uid("event.pair", &a)?, uid("event.pair", &b)?)),
                    None => None,
                },
            },
            EventJson::FeedChanged { title, join, history, meta } => Self::FeedChanged {
                title: shared(title),
                join: join.map(Into::into),
                history: history.map(Into::into),
                meta: shared(meta),
            },
            EventJson::MessageSent(message) => Self::MessageSent((*message).try_into()?),
            EventJson::MessageEdited { target, content_type } => {
                Self::MessageEdited { target: SeqId(target), content_type: content_type.into() }
            }
            EventJson::MessageRecalled { target, target_ordinal, reason } => Self::MessageRecalled {
                target: SeqId(target),
                target_ordinal: Ordinal(target_ordinal),
                reason: shared(reason),
            },
            EventJson::ReactionChanged { target, key, on } => Self::ReactionChanged {
                target: SeqId(target),
                key: name("event.key", ReactionKey::parse(&key))?,
                on,
            },
            EventJson::MemberJoined { uid: who, role } => {
                Self::MemberJoined { uid: uid("event.uid", &who)?, role: role.into() }
            }
            EventJson::MemberLeft { uid: who } => Self::MemberLeft { uid: uid("event.uid", &who)? },
            EventJson::MemberRemoved { uid: who, reason } => {
                Self::MemberRemoved { uid: uid("event.uid", &who)?, reason: shared(reason) }
            }
            EventJson::RoleChanged { uid: who, role } => {
                Self::RoleChanged { uid: uid("event.uid", &who)?, role: role.into() }
            }
            EventJson::JoinRequested { reason } => Self::JoinRequested { reason: shared(reason) },
            EventJson::JoinDecided { uid: who, agreed } => {
                Self::JoinDecided { uid: uid("event.uid", &who)?, agreed }
            }
            EventJson::Broadcast { content_type } => Self::Broadcast { content_type: content_type.into() },
            EventJson::MessagesExpired { targets: list } => Self::MessagesExpired { targets: targets(list) },
            EventJson::MessagesErased { targets: list, reason } => {
                Self::MessagesErased { targets: targets(list), reason: shared(reason) }
            }
            EventJson::HoldPlaced { hold } => Self::HoldPlaced { hold: hold.into() },
            EventJson::HoldLifted { hold } => Self::HoldLifted { hold: hold.into() },
            EventJson::MarkMoved { feed_id, read, received } => Self::MarkMoved {
                feed: feed(&feed_id)?,
                read: read.map(|(seq, ordinal)| (SeqId(seq), Ordinal(ordinal))),
                received: received.map(SeqId),
            },
            EventJson::UnrepliedResolved { feed_id, upto } => {
                Self::UnrepliedResolved { feed: feed(&feed_id)?, upto: SeqId(upto) }
            }
            EventJson::FeedPinned { feed_id, pinned } => Self::FeedPinned { feed: feed(&feed_id)?, pinned },
            EventJson::FeedMuted { feed_id, until_ms } => Self::FeedMuted { feed: feed(&feed_id)?, until_ms },
            EventJson::Notified { content_type } => Self::Notified { content_type: content_type.into() },
        })
    }
}

fn carried(base64: Option<String>, stripped: Option<String>) -> Result<Payload, BadEvent> {
    let bad = |problem: &str| BadEvent { field: "event.carried", problem: problem.to_owned() };
    match (base64, stripped) {
        (None, None) => Ok(Payload::None),
        (Some(text), None) => {
            let bytes = STANDARD.decode(text).map_err(|_| bad("not base64"))?;
            if bytes.len() > CARRIED_BYTES_MAX {
                return Err(bad("larger than any store takes"));
            }
            Ok(Payload::Bytes(bytes.into()))
        }
        (None, Some(text)) => {
            let hash = unhex("event.carried_stripped", &text).map_err(|_| bad("not a hash"))?;
            Ok(Payload::Stripped { hash })
        }
        (Some(_), Some(_)) => Err(bad("given twice")),
    }
}

impl TryFrom<MessageJson> for Message {
    type Error = BadEvent;

    fn try_from(json: MessageJson) -> Result<Self, BadEvent> {
        Ok(Self {
            kind: json.kind.into(),
            content_type: json.content_type.into(),
            client_msg_id: match json.client_msg_id {
                Some(id) => Some(name("event.client_msg_id", ClientMsgId::parse(&id))?),
                None => None,
            },
            scope: json.scope.map_or(Scope::Sender, |name| Scope::Shared(name.into())),
            reply_to: json.reply_to.map(SeqId),
            mentions: json.mentions.iter().map(|who| uid("event.mentions", who)).collect::<Result<_, _>>()?,
            to_reply: json.to_reply,
            seen_seq: SeqId(json.seen_seq),
            sent_ms: json.sent_ms,
            expires_ms: json.expires_ms,
            auto: json.auto,
            carried: carried(json.carried_base64, json.carried_stripped)?,
        })
    }
}
