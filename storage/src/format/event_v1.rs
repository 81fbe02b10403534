//! Version 1 of the stored event. **Frozen**: a change of anything here is a new file, `event_v2.rs`, with an upcaster.
//!
//! The stored types are apart from the domain's, so that a new field there cannot change what is on disk.

use std::sync::Arc;

use bincode::{BorrowDecode, Encode};
use feedlog_core::entry::Payload;
use feedlog_core::event::{self as domain, Event};
use feedlog_core::ids::{ClientMsgId, FeedId, NameError, Ordinal, ReactionKey, SeqId, Uid};

use super::DecodeError;

/// Decoding allocates at most this much: nothing that is stored comes near it.
const BYTES_MAX: usize = 1 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_variable_int_encoding().with_limit::<BYTES_MAX>()
}

#[derive(Encode, BorrowDecode, Clone, Copy)]
enum KindV1 {
    Direct,
    Group,
    Open,
    Personal,
}

#[derive(Encode, BorrowDecode, Clone, Copy)]
enum JoinV1 {
    Open,
    Approval,
    Invite,
}

#[derive(Encode, BorrowDecode, Clone, Copy)]
enum HistoryV1 {
    All,
    SinceJoin,
}

#[derive(Encode, BorrowDecode, Clone, Copy)]
enum RoleV1 {
    Member,
    Admin,
    Owner,
}

#[derive(Encode, BorrowDecode, Clone, Copy)]
enum MessageKindV1 {
    Text,
    Image,
    Voice,
    Video,
    ShortVideo,
    Location,
    Link,
    Custom,
    System,
}

#[derive(Encode, BorrowDecode)]
enum ScopeV1<'a> {
    Sender,
    Shared(&'a str),
}

/// Media types that are in nearly every record take one byte.
#[derive(Encode, BorrowDecode)]
enum ContentTypeV1<'a> {
    Other(&'a str),
    Json,
    TextPlain,
    TextPlainUtf8,
    OctetStream,
    Gotapi,
}

#[derive(Encode, BorrowDecode)]
struct MessageV1<'a> {
    kind: MessageKindV1,
    content_type: ContentTypeV1<'a>,
    client_msg_id: Option<&'a str>,
    scope: ScopeV1<'a>,
    reply_to: Option<u64>,
    mentions: Vec<&'a str>,
    to_reply: Option<bool>,
    seen_seq: u64,
    sent_ms: Option<u64>,
    expires_ms: Option<u64>,
    auto: bool,
}

#[derive(Encode, BorrowDecode)]
enum EventV1<'a> {
    FeedCreated {
        kind: KindV1,
        title: Option<&'a str>,
        join: JoinV1,
        history: HistoryV1,
        meta: Option<&'a str>,
        pair: Option<(&'a str, &'a str)>,
    },
    FeedChanged {
        title: Option<&'a str>,
        join: Option<JoinV1>,
        history: Option<HistoryV1>,
        meta: Option<&'a str>,
    },
    MessageSent(MessageV1<'a>),
    MessageEdited {
        target: u64,
        content_type: ContentTypeV1<'a>,
    },
    MessageRecalled {
        target: u64,
        target_ordinal: u64,
        reason: Option<&'a str>,
    },
    ReactionChanged {
        target: u64,
        key: &'a str,
        on: bool,
    },
    MemberJoined {
        uid: &'a str,
        role: RoleV1,
    },
    MemberLeft {
        uid: &'a str,
    },
    MemberRemoved {
        uid: &'a str,
        reason: Option<&'a str>,
    },
    RoleChanged {
        uid: &'a str,
        role: RoleV1,
    },
    JoinRequested {
        reason: Option<&'a str>,
    },
    JoinDecided {
        uid: &'a str,
        agreed: bool,
    },
    Broadcast {
        content_type: ContentTypeV1<'a>,
    },
    MessagesExpired {
        targets: Vec<(u64, u64)>,
    },
    MessagesErased {
        targets: Vec<(u64, u64)>,
        reason: Option<&'a str>,
    },
    HoldPlaced {
        hold: &'a str,
    },
    HoldLifted {
        hold: &'a str,
    },
    MarkMoved {
        feed: &'a str,
        read: Option<(u64, u64)>,
        received: Option<u64>,
    },
    UnrepliedResolved {
        feed: &'a str,
        upto: u64,
    },
    FeedPinned {
        feed: &'a str,
        pinned: bool,
    },
    FeedMuted {
        feed: &'a str,
        until_ms: u64,
    },
    Notified {
        content_type: ContentTypeV1<'a>,
    },
}

macro_rules! twins {
    ($($stored:ident = $domain:path { $($variant:ident),* })*) => {
        $(impl From<$domain> for $stored {
            fn from(value: $domain) -> Self {
                match value {
                    $(<$domain>::$variant => Self::$variant,)*
                }
            }
        }

        impl From<$stored> for $domain {
            fn from(value: $stored) -> Self {
                match value {
                    $($stored::$variant => Self::$variant,)*
                }
            }
        })*
    };
}

twins! {
    KindV1 = domain::FeedKind { Direct, Group, Open, Personal }
    JoinV1 = domain::JoinMode { Open, Approval, Invite }
    HistoryV1 = domain::HistoryMode { All, SinceJoin }
    RoleV1 = domain::Role { Member, Admin, Owner }
    MessageKindV1 = domain::MessageKind {
        Text, Image, Voice, Video, ShortVideo, Location, Link, Custom, System
    }
}

const CONTENT_TYPES: [(&str, ContentTypeV1<'static>); 5] = [
    ("application/json", ContentTypeV1::Json),
    ("text/plain", ContentTypeV1::TextPlain),
    ("text/plain; charset=utf-8", ContentTypeV1::TextPlainUtf8),
    ("application/octet-stream", ContentTypeV1::OctetStream),
    ("application/vnd.gotapi+json", ContentTypeV1::Gotapi),
];

impl<'a> From<&'a str> for ContentTypeV1<'a> {
    fn from(text: &'a str) -> Self {
        match text {
            "application/json" => Self::Json,
            "text/plain" => Self::TextPlain,
            "text/plain; charset=utf-8" => Self::TextPlainUtf8,
            "application/octet-stream" => Self::OctetStream,
            "application/vnd.gotapi+json" => Self::Gotapi,
            other => Self::Other(other),
        }
    }
}

impl ContentTypeV1<'_> {
    /// Texts that are in nearly every record are shared by all of them in memory.
    fn into_domain(self) -> Arc<str> {
        use std::sync::LazyLock;
        static SHARED: LazyLock<[Arc<str>; 5]> =
            LazyLock::new(|| CONTENT_TYPES.map(|(text, _)| Arc::from(text)));
        let at = match self {
            Self::Other(text) => return Arc::from(text),
            Self::Json => 0,
            Self::TextPlain => 1,
            Self::TextPlainUtf8 => 2,
            Self::OctetStream => 3,
            Self::Gotapi => 4,
        };
        SHARED[at].clone()
    }
}

/// The stored bytes of an event.
pub(super) fn encode(event: &Event, out: &mut Vec<u8>) {
    let stored = to_stored(event);
    bincode::encode_into_std_write(&stored, out, config())
        .expect("writing to memory cannot fail and the core bounds every field");
}

/// The event of these bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let (stored, used): (EventV1<'_>, usize) =
        bincode::borrow_decode_from_slice(bytes, config()).map_err(|_| DecodeError::Value("event"))?;
    if used != bytes.len() {
        return Err(DecodeError::Value("event length"));
    }
    from_stored(stored).map_err(|_: NameError| DecodeError::Value("name"))
}

fn text(value: &Option<Arc<str>>) -> Option<&str> {
    value.as_deref()
}

fn pairs(targets: &[(SeqId, Ordinal)]) -> Vec<(u64, u64)> {
    targets.iter().map(|(seq, ordinal)| (seq.0, ordinal.0)).collect()
}

fn to_stored(event: &Event) -> EventV1<'_> {
    match event {
        Event::FeedCreated { kind, title, join, history, meta, pair } => EventV1::FeedCreated {
            kind: (*kind).into(),
            title: text(title),
            join: (*join).into(),
            history: (*history).into(),
            meta: text(meta),
            pair: pair.as_ref().map(|(a, b)| (a.as_str(), b.as_str())),
        },
        Event::FeedChanged { title, join, history, meta } => EventV1::FeedChanged {
            title: text(title),
            join: join.map(Into::into),
            history: history.map(Into::into),
            meta: text(meta),
        },
        Event::MessageSent(message) => EventV1::MessageSent(MessageV1 {
            kind: message.kind.into(),
            content_type: (&*message.content_type).into(),
            client_msg_id: message.client_msg_id.as_ref().map(ClientMsgId::as_str),
            scope: match &message.scope {
                domain::Scope::Sender => ScopeV1::Sender,
                domain::Scope::Shared(name) => ScopeV1::Shared(name),
            },
            reply_to: message.reply_to.map(|seq| seq.0),
            mentions: message.mentions.iter().map(Uid::as_str).collect(),
            to_reply: message.to_reply,
            seen_seq: message.seen_seq.0,
            sent_ms: message.sent_ms,
            expires_ms: message.expires_ms,
            auto: message.auto,
        }),
        Event::MessageEdited { target, content_type } => {
            EventV1::MessageEdited { target: target.0, content_type: (&**content_type).into() }
        }
        Event::MessageRecalled { target, target_ordinal, reason } => EventV1::MessageRecalled {
            target: target.0,
            target_ordinal: target_ordinal.0,
            reason: text(reason),
        },
        Event::ReactionChanged { target, key, on } => {
            EventV1::ReactionChanged { target: target.0, key: key.as_str(), on: *on }
        }
        Event::MemberJoined { uid, role } => {
            EventV1::MemberJoined { uid: uid.as_str(), role: (*role).into() }
        }
        Event::MemberLeft { uid } => EventV1::MemberLeft { uid: uid.as_str() },
        Event::MemberRemoved { uid, reason } => {
            EventV1::MemberRemoved { uid: uid.as_str(), reason: text(reason) }
        }
        Event::RoleChanged { uid, role } => EventV1::RoleChanged { uid: uid.as_str(), role: (*role).into() },
        Event::JoinRequested { reason } => EventV1::JoinRequested { reason: text(reason) },
        Event::JoinDecided { uid, agreed } => EventV1::JoinDecided { uid: uid.as_str(), agreed: *agreed },
        Event::Broadcast { content_type } => EventV1::Broadcast { content_type: (&**content_type).into() },
        Event::MessagesExpired { targets } => EventV1::MessagesExpired { targets: pairs(targets) },
        Event::MessagesErased { targets, reason } => {
            EventV1::MessagesErased { targets: pairs(targets), reason: text(reason) }
        }
        Event::HoldPlaced { hold } => EventV1::HoldPlaced { hold },
        Event::HoldLifted { hold } => EventV1::HoldLifted { hold },
        Event::MarkMoved { feed, read, received } => EventV1::MarkMoved {
            feed: feed.as_str(),
            read: read.map(|(seq, ordinal)| (seq.0, ordinal.0)),
            received: received.map(|seq| seq.0),
        },
        Event::UnrepliedResolved { feed, upto } => {
            EventV1::UnrepliedResolved { feed: feed.as_str(), upto: upto.0 }
        }
        Event::FeedPinned { feed, pinned } => EventV1::FeedPinned { feed: feed.as_str(), pinned: *pinned },
        Event::FeedMuted { feed, until_ms } => {
            EventV1::FeedMuted { feed: feed.as_str(), until_ms: *until_ms }
        }
        Event::Notified { content_type } => EventV1::Notified { content_type: (&**content_type).into() },
    }
}

fn from_stored(stored: EventV1<'_>) -> Result<Event, NameError> {
    let shared = |text: Option<&str>| text.map(Arc::from);
    let targets = |pairs: Vec<(u64, u64)>| {
        pairs.into_iter().map(|(seq, ordinal)| (SeqId(seq), Ordinal(ordinal))).collect()
    };
    Ok(match stored {
        EventV1::FeedCreated { kind, title, join, history, meta, pair } => Event::FeedCreated {
            kind: kind.into(),
            title: shared(title),
            join: join.into(),
            history: history.into(),
            meta: shared(meta),
            pair: match pair {
                None => None,
                Some((a, b)) => Some((Uid::parse(a)?, Uid::parse(b)?)),
            },
        },
        EventV1::FeedChanged { title, join, history, meta } => Event::FeedChanged {
            title: shared(title),
            join: join.map(Into::into),
            history: history.map(Into::into),
            meta: shared(meta),
        },
        EventV1::MessageSent(message) => Event::MessageSent(domain::Message {
            kind: message.kind.into(),
            content_type: message.content_type.into_domain(),
            client_msg_id: message.client_msg_id.map(ClientMsgId::parse).transpose()?,
            scope: match message.scope {
                ScopeV1::Sender => domain::Scope::Sender,
                ScopeV1::Shared(name) => domain::Scope::Shared(Arc::from(name)),
            },
            reply_to: message.reply_to.map(SeqId),
            mentions: message.mentions.into_iter().map(Uid::parse).collect::<Result<_, _>>()?,
            to_reply: message.to_reply,
            seen_seq: SeqId(message.seen_seq),
            sent_ms: message.sent_ms,
            expires_ms: message.expires_ms,
            auto: message.auto,
            carried: Payload::None,
        }),
        EventV1::MessageEdited { target, content_type } => {
            Event::MessageEdited { target: SeqId(target), content_type: content_type.into_domain() }
        }
        EventV1::MessageRecalled { target, target_ordinal, reason } => Event::MessageRecalled {
            target: SeqId(target),
            target_ordinal: Ordinal(target_ordinal),
            reason: shared(reason),
        },
        EventV1::ReactionChanged { target, key, on } => {
            Event::ReactionChanged { target: SeqId(target), key: ReactionKey::parse(key)?, on }
        }
        EventV1::MemberJoined { uid, role } => {
            Event::MemberJoined { uid: Uid::parse(uid)?, role: role.into() }
        }
        EventV1::MemberLeft { uid } => Event::MemberLeft { uid: Uid::parse(uid)? },
        EventV1::MemberRemoved { uid, reason } => {
            Event::MemberRemoved { uid: Uid::parse(uid)?, reason: shared(reason) }
        }
        EventV1::RoleChanged { uid, role } => Event::RoleChanged { uid: Uid::parse(uid)?, role: role.into() },
        EventV1::JoinRequested { reason } => Event::JoinRequested { reason: shared(reason) },
        EventV1::JoinDecided { uid, agreed } => Event::JoinDecided { uid: Uid::parse(uid)?, agreed },
        EventV1::Broadcast { content_type } => Event::Broadcast { content_type: content_type.into_domain() },
        EventV1::MessagesExpired { targets: pairs } => Event::MessagesExpired { targets: targets(pairs) },
        EventV1::MessagesErased { targets: pairs, reason } => {
            Event::MessagesErased { targets: targets(pairs), reason: shared(reason) }
        }
        EventV1::HoldPlaced { hold } => Event::HoldPlaced { hold: Arc::from(hold) },
        EventV1::HoldLifted { hold } => Event::HoldLifted { hold: Arc::from(hold) },
        EventV1::MarkMoved { feed, read, received } => Event::MarkMoved {
            feed: FeedId::parse(feed)?,
            read: read.map(|(seq, ordinal)| (SeqId(seq), Ordinal(ordinal))),
            received: received.map(SeqId),
        },
        EventV1::UnrepliedResolved { feed, upto } => {
            Event::UnrepliedResolved { feed: FeedId::parse(feed)?, upto: SeqId(upto) }
        }
        EventV1::FeedPinned { feed, pinned } => Event::FeedPinned { feed: FeedId::parse(feed)?, pinned },
        EventV1::FeedMuted { feed, until_ms } => Event::FeedMuted { feed: FeedId::parse(feed)?, until_ms },
        EventV1::Notified { content_type } => Event::Notified { content_type: content_type.into_domain() },
    })
}
