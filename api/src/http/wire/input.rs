//! What callers send.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use feedlog_core::command::{CreateFeed, Draft, RecallTarget};
use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, MessageKind, Role, Scope};
use feedlog_core::ids::FeedId;
use feedlog_core::limits;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::names::{ClientId, FeedName, Text, UidName, Whole};
use crate::errors::{ApiError, Kind};

/// The media type of payloads given as JSON.
pub(crate) const JSON: &str = "application/json";

pub(crate) type Title = Text<{ limits::TITLE_BYTES_MAX }>;
pub(crate) type Reason = Text<{ limits::REASON_BYTES_MAX }>;

/// Reads a JSON body; the error names the field.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // A value that cannot be one of an enumeration's words is a syntax error to the parser, though it is JSON.
        if inner.is_syntax() && serde_json::from_slice::<IgnoredAny>(body).is_ok() {
            return ApiError::field(path, "is of the wrong type");
        }
        explain(&path, &inner)
    })?;
    json.end().map_err(|error| explain(".", &error))?;
    Ok(value)
}

/// A JSON object. Derived code alone would also take an array, as the fields in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(value)| value).collect())
}

/// A JSON error as the caller may see it: where, and what was wrong, without the input's values.
pub(crate) fn explain(path: &str, error: &serde_json::Error) -> ApiError {
    if error.is_syntax() || error.is_eof() {
        return ApiError::new(Kind::BadRequest, "the body is not valid JSON")
            .with("line", error.line())
            .with("column", error.column());
    }
    let text = error.to_string();
    // serde quotes unknown names and values: keep the shape of the problem only.
    let problem = match &text {
        text if text.starts_with("unknown field") => "unknown field".to_owned(),
        text if text.starts_with("unknown variant") => "is not one of the allowed values".to_owned(),
        text if text.starts_with("missing field") => "is missing".to_owned(),
        text if text.starts_with("duplicate field") => "is given twice".to_owned(),
        text if text.starts_with("invalid type") || text.starts_with("invalid value") => {
            let expected = text.split(", expected ").nth(1).unwrap_or("another type");
            format!("must be {}", expected.split(" at line ").next().unwrap_or(expected))
        }
        text => text.split(" at line ").next().unwrap_or(text).to_owned(),
    };
    // The name of a missing, unknown or repeated field is in the message only.
    let named = text.split('`').nth(1).filter(|_| text.contains(" field `"));
    let field = match (path, named) {
        ("." | "", Some(name)) => name.chars().filter(|c| !c.is_control()).take(64).collect(),
        (".", None) | ("", None) => "body".to_owned(),
        (path, Some(name)) if !path.ends_with(name) => {
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            format!("{path}.{name}")
        }
        (path, _) => path.chars().filter(|c| !c.is_control()).take(128).collect(),
    };
    ApiError::field(field, problem)
}

/// A field that may be absent but not `null`.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

macro_rules! words {
    ($(#[$doc:meta])* $wire:ident, $inner:ident { $($name:ident),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs)]
        pub(crate) enum $wire { $($name),+ }

        impl From<$wire> for $inner {
            fn from(word: $wire) -> Self {
                match word { $($wire::$name => Self::$name),+ }
            }
        }

        impl From<$inner> for $wire {
            fn from(word: $inner) -> Self {
                match word { $($inner::$name => Self::$name),+ }
            }
        }
    };
}

words!(
    /// Who may read and write a feed.
    FeedKindWord, FeedKind { Direct, Group, Open, Personal }
);
words!(
    /// How one becomes a member of a group.
    JoinWord, JoinMode { Open, Approval, Invite }
);
words!(
    /// What a member of a group sees of the time before joining.
    HistoryWord, HistoryMode { All, SinceJoin }
);
words!(
    /// What a member may do in a group.
    RoleWord, Role { Member, Admin, Owner }
);

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub(crate) enum MessageKindWord {
    #[default]
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

impl From<MessageKindWord> for MessageKind {
    fn from(word: MessageKindWord) -> Self {
        match word {
            MessageKindWord::Text => Self::Text,
            MessageKindWord::Image => Self::Image,
            MessageKindWord::Voice => Self::Voice,
            MessageKindWord::Video => Self::Video,
            MessageKindWord::ShortVideo => Self::ShortVideo,
            MessageKindWord::Location => Self::Location,
            MessageKindWord::Link => Self::Link,
            MessageKindWord::Custom => Self::Custom,
            MessageKindWord::System => Self::System,
        }
    }
}

impl From<MessageKind> for MessageKindWord {
    fn from(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Text => Self::Text,
            MessageKind::Image => Self::Image,
            MessageKind::Voice => Self::Voice,
            MessageKind::Video => Self::Video,
            MessageKind::ShortVideo => Self::ShortVideo,
            MessageKind::Location => Self::Location,
            MessageKind::Link => Self::Link,
            MessageKind::Custom => Self::Custom,
            MessageKind::System => Self::System,
        }
    }
}

/// Which kinds of feed can be created; personal feeds come into being by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub(crate) enum CreateKindWord {
    Direct,
    Group,
    Open,
}

/// A feed to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateFeedBody {
    /// Group and open feeds: the name; a group without one gets a generated name. Not for direct feeds.
    pub(crate) feed_id: Option<FeedName>,
    pub(crate) kind: CreateKindWord,
    /// For people.
    pub(crate) title: Option<Title>,
    /// Group: the first members besides the caller. Direct: the other user.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub(crate) members: Option<Vec<UidName>>,
    /// Groups: `invite` when absent.
    pub(crate) join: Option<JoinWord>,
    /// Groups: `all` when absent.
    pub(crate) history: Option<HistoryWord>,
    /// Any JSON object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    pub(crate) meta: Option<Box<RawValue>>,
}

impl CreateFeedBody {
    /// What the core is to create.
    pub(crate) fn into_create(self) -> Result<CreateFeed, ApiError> {
        let members: Vec<_> = self.members.unwrap_or_default().into_iter().map(|name| name.0).collect();
        if members.len() > limits::CREATE_MEMBERS_MAX {
            return Err(ApiError::field("members", "has more than 1000 items"));
        }
        Ok(CreateFeed {
            kind: match self.kind {
                CreateKindWord::Direct => FeedKind::Direct,
                CreateKindWord::Group => FeedKind::Group,
                CreateKindWord::Open => FeedKind::Open,
            },
            title: self.title.map(|title| title.0),
            members,
            join: self.join.map_or(JoinMode::Invite, Into::into),
            history: self.history.map_or(HistoryMode::All, Into::into),
            meta: self.meta.map(|meta| meta_text(&meta)).transpose()?,
        })
    }
}

fn meta_text(meta: &RawValue) -> Result<Arc<str>, ApiError> {
    let text = meta.get();
    if !text.starts_with('{') {
        return Err(ApiError::field("meta", "must be an object"));
    }
    if text.len() > limits::META_BYTES_MAX {
        return Err(ApiError::field("meta", "is larger than 16384 bytes"));
    }
    Ok(Arc::from(text))
}

/// What changes of a feed; absent fields stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeFeedBody {
    /// For people.
    pub(crate) title: Option<Title>,
    pub(crate) join: Option<JoinWord>,
    pub(crate) history: Option<HistoryWord>,
    /// Any JSON object of at most 16 KiB; replaces the old one.
    #[schema(value_type = Option<Object>)]
    pub(crate) meta: Option<Box<RawValue>>,
}

impl ChangeFeedBody {
    pub(crate) fn meta(&self) -> Result<Option<Arc<str>>, ApiError> {
        self.meta.as_deref().map(meta_text).transpose()
    }
}

/// A member to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddMemberBody {
    pub(crate) uid: UidName,
    /// `member` when absent.
    pub(crate) role: Option<RoleWord>,
}

/// A new role; `owner` hands the group on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeRoleBody {
    pub(crate) role: RoleWord,
}

/// The caller's own settings of a feed; absent fields stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsBody {
    /// On top of the list.
    pub(crate) pinned: Option<bool>,
    /// Muted until then; 0 = not muted.
    pub(crate) muted_until_ms: Option<Whole>,
}

/// A wish to join.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinBody {
    /// For those who decide.
    pub(crate) reason: Option<Reason>,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub(crate) enum DecisionWord {
    Agree,
    Reject,
}

/// The decision about a request to join.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecisionBody {
    pub(crate) decision: DecisionWord,
}

/// A message to be: `payload`, or `payload_base64` with its `content_type`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SendMessage {
    /// Batch and WebSocket only: where to.
    #[serde(default, deserialize_with = "present")]
    pub(crate) feed_id: Option<FeedName>,
    /// Batch only, by services (scope `send_as`): whose message this is, as `X-Feedlog-User` says it for a whole request.
    #[serde(default, deserialize_with = "present")]
    pub(crate) sender: Option<UidName>,
    pub(crate) client_msg_id: Option<ClientId>,
    /// `text` when absent.
    pub(crate) kind: Option<MessageKindWord>,
    /// Any JSON; its exact text is kept and handed out unchanged.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Value)]
    pub(crate) payload: Option<Box<RawValue>>,
    /// Bytes that are not JSON, in base64 with padding.
    #[serde(default, deserialize_with = "present")]
    pub(crate) payload_base64: Option<String>,
    /// Media type of `payload_base64`.
    #[serde(default, deserialize_with = "present")]
    pub(crate) content_type: Option<String>,
    /// The message that this one answers.
    pub(crate) reply_to: Option<Whole>,
    /// Who is addressed; `@all` addresses every member.
    #[schema(max_items = 100)]
    pub(crate) mentions: Option<Vec<UidName>>,
    /// Asks for an answer (`true`) or declines one (`false`).
    pub(crate) to_reply: Option<bool>,
    /// What the sender had seen of the feed.
    pub(crate) seen_seq: Option<Whole>,
    /// The sender's clock; a claim, never used for order.
    pub(crate) sent_ms: Option<Whole>,
    /// From then on the message is not shown.
    pub(crate) expires_ms: Option<Whole>,
    /// Written by a bot.
    pub(crate) auto: Option<bool>,
    /// Send only if the feed's head is this.
    pub(crate) expect_head: Option<Whole>,
}

impl SendMessage {
    /// The draft for the core. `payload_max` bounds the payload.
    pub(crate) fn into_draft(self, payload_max: usize) -> Result<Draft, ApiError> {
        if self.sender.is_some() {
            // A batch took it out before; elsewhere it is not a field.
            return Err(ApiError::field("sender", "unknown field"));
        }
        let (content_type, payload) =
            payload_of(self.payload, self.payload_base64, self.content_type, payload_max)?;
        let mentions: Vec<_> = self.mentions.unwrap_or_default().into_iter().map(|name| name.0).collect();
        if mentions.len() > limits::MENTIONS_MAX {
            return Err(ApiError::field("mentions", "has more than 100 items"));
        }
        Ok(Draft {
            kind: self.kind.unwrap_or_default().into(),
            content_type,
            payload,
            client_msg_id: self.client_msg_id.map(|id| id.0),
            scope: Scope::Sender,
            reply_to: self.reply_to.map(Into::into),
            mentions,
            to_reply: self.to_reply,
            seen_seq: self.seen_seq.map(Into::into),
            sent_ms: self.sent_ms.map(|ms| ms.0),
            expires_ms: self.expires_ms.map(|ms| ms.0),
            auto: self.auto.unwrap_or(false),
            carried: Bytes::new(),
            expect_head: self.expect_head.map(Into::into),
            create: None,
        })
    }
}

/// The new payload of a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditBody {
    /// Any JSON; its exact text is kept and handed out unchanged.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Value)]
    pub(crate) payload: Option<Box<RawValue>>,
    /// Bytes that are not JSON, in base64 with padding.
    #[serde(default, deserialize_with = "present")]
    pub(crate) payload_base64: Option<String>,
    /// Media type of `payload_base64`.
    #[serde(default, deserialize_with = "present")]
    pub(crate) content_type: Option<String>,
}

/// Media type and bytes of a payload, from its two spellings.
pub(crate) fn payload_of(
    payload: Option<Box<RawValue>>,
    base64: Option<String>,
    content_type: Option<String>,
    payload_max: usize,
) -> Result<(Arc<str>, Bytes), ApiError> {
    let too_large = || {
        ApiError::new(Kind::TooLarge, format!("the payload is larger than {payload_max} bytes"))
            .with("field", "payload")
            .with("bytes_max", payload_max)
    };
    match (payload, base64) {
        (Some(payload), None) => {
            if content_type.is_some() {
                return Err(ApiError::field("content_type", "belongs to payload_base64"));
            }
            if payload.get().len() > payload_max {
                return Err(too_large());
            }
            let text: Box<str> = payload.into();
            Ok((json_type(), Bytes::from(text.into_boxed_bytes())))
        }
        (None, Some(text)) => {
            let content_type = content_type.ok_or_else(|| ApiError::field("content_type", "is missing"))?;
            check_media_type(&content_type)?;
            if text.len() / 4 * 3 > payload_max.saturating_add(3) {
                return Err(too_large());
            }
            let bytes = STANDARD
                .decode(&text)
                .map_err(|_| ApiError::field("payload_base64", "is not base64 with padding"))?;
            if bytes.len() > payload_max {
                return Err(too_large());
            }
            // Readers get payloads of JSON types as JSON, so they must be.
            if is_json_type(&content_type) && serde_json::from_slice::<IgnoredAny>(&bytes).is_err() {
                return Err(ApiError::field("payload_base64", "is not the JSON that content_type says"));
            }
            Ok((Arc::from(content_type), Bytes::from(bytes)))
        }
        (Some(_), Some(_)) => Err(ApiError::field("payload_base64", "excludes payload")),
        (None, None) => Err(ApiError::field("payload", "is missing")),
    }
}

fn json_type() -> Arc<str> {
    static TYPE: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| Arc::from(JSON));
    TYPE.clone()
}

/// Whether payloads of this media type are JSON (RFC 6839 §3.1).
pub(crate) fn is_json_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(JSON) || essence.len() > 5 && essence.to_ascii_lowercase().ends_with("+json")
}

/// The pattern of media types, as documented and as checked.
pub(crate) const MEDIA_TYPE_PATTERN: &str =
    "^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*( *; *[A-Za-z0-9!#$&^_.+=\" -]*)?$";

pub(crate) fn check_media_type(text: &str) -> Result<(), ApiError> {
    let token = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    let (essence, parameters) = match text.split_once(';') {
        Some((essence, parameters)) => (essence.trim_end_matches(' '), parameters),
        None => (text, ""),
    };
    let essence_ok = essence.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub));
    let parameters_ok =
        parameters.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+=\" -".contains(&b));
    if text.len() > limits::CONTENT_TYPE_BYTES_MAX {
        Err(ApiError::field("content_type", "is longer than 127 bytes"))
    } else if !essence_ok || !parameters_ok {
        Err(ApiError::field("content_type", "is not a media type"))
    } else {
        Ok(())
    }
}

/// Many messages at once.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchBody {
    /// Sent in this order.
    #[schema(min_items = 1, max_items = 1000)]
    #[serde(deserialize_with = "objects")]
    pub(crate) messages: Vec<SendMessage>,
}

/// Which message to recall: `seq_id` or `client_msg_id`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecallBody {
    /// WebSocket only: where.
    #[serde(default, deserialize_with = "present")]
    pub(crate) feed_id: Option<FeedName>,
    /// By place.
    #[serde(default, deserialize_with = "present")]
    pub(crate) seq_id: Option<Whole>,
    /// By the sender's own id.
    #[serde(default, deserialize_with = "present")]
    pub(crate) client_msg_id: Option<ClientId>,
    /// With `client_msg_id`: whose message; the caller's own when absent.
    #[serde(default, deserialize_with = "present")]
    pub(crate) sender: Option<UidName>,
    /// For people.
    pub(crate) reason: Option<Reason>,
}

impl RecallBody {
    pub(crate) fn target(&mut self) -> Result<RecallTarget, ApiError> {
        match (self.seq_id, self.client_msg_id.take()) {
            (Some(_), None) if self.sender.is_some() => {
                Err(ApiError::field("sender", "belongs to client_msg_id"))
            }
            (Some(seq), None) => Ok(RecallTarget::Seq(seq.into())),
            (None, Some(id)) => Ok(RecallTarget::ClientMsgId {
                sender: self.sender.take().map(|name| name.0),
                scope: Scope::Sender,
                id: id.0,
            }),
            (Some(_), Some(_)) => Err(ApiError::field("client_msg_id", "excludes seq_id")),
            (None, None) => Err(ApiError::field("seq_id", "is missing")),
        }
    }
}

/// Where the caller's marks go; absent ones stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MarksBody {
    /// WebSocket only: where.
    #[serde(default, deserialize_with = "present")]
    pub(crate) feed_id: Option<FeedName>,
    /// Read up to here; never moves back.
    pub(crate) read_seq_id: Option<Whole>,
    /// Received up to here; never moves back.
    pub(crate) received_seq_id: Option<Whole>,
    /// Mark unread from this entry on: the read mark moves before it.
    pub(crate) unread_from: Option<Whole>,
}

/// Up to where nothing needs an answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResolveBody {
    /// WebSocket only: where.
    #[serde(default, deserialize_with = "present")]
    pub(crate) feed_id: Option<FeedName>,
    /// The last message that needs no answer.
    pub(crate) seq_id: Whole,
}

/// What the bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[allow(missing_docs)]
pub(crate) enum ScopeWord {
    #[serde(rename = "user")]
    User,
    #[serde(rename = "send-as")]
    SendAs,
    #[serde(rename = "audit")]
    Audit,
    #[serde(rename = "admin")]
    Admin,
}

/// A token to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTokenBody {
    pub(crate) uid: UidName,
    /// `user` when absent.
    #[schema(min_items = 1, max_items = 4)]
    pub(crate) scopes: Option<Vec<ScopeWord>>,
    /// When it ends; never when absent.
    pub(crate) expires_ms: Option<Whole>,
    /// For people.
    pub(crate) note: Option<Title>,
}

/// Where to put a backup.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupBody {
    /// A directory of the server that does not exist yet: absolute, or below the configured one.
    pub(crate) dir: Text<1024>,
}

/// What the push outbox is to tell again: `dead`, or `feed_id` with `from_seq_id`, or `after_commit`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayBody {
    /// `true`: all dead letters.
    pub(crate) dead: Option<bool>,
    /// This feed, up to what the endpoint was told of.
    pub(crate) feed_id: Option<FeedName>,
    /// From this place on; from the first when absent.
    pub(crate) from_seq_id: Option<Whole>,
    /// Everything that was committed after this number.
    pub(crate) after_commit: Option<Whole>,
}

/// What the push outbox is to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DropWord {
    /// Calls that were given up.
    Dead,
    /// Everything that was committed until now.
    Backlog,
    /// Replays that are not done.
    Replays,
}

/// What the push outbox is to drop.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DropBody {
    pub(crate) what: DropWord,
    /// Only the dead letter of this number.
    pub(crate) number: Option<Whole>,
}

/// Whether the push outbox is to stop.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseBody {
    /// `true` stops, `false` goes on.
    pub(crate) on: bool,
}

/// The feed that a batch item or a WebSocket command must name.
pub(crate) fn required_feed(feed: Option<FeedName>) -> Result<FeedId, ApiError> {
    feed.map(|name| name.0).ok_or_else(|| ApiError::field("feed_id", "is missing"))
}

/// Refuses `feed_id` where the path names the feed.
pub(crate) fn no_feed(feed: Option<&FeedName>) -> Result<(), ApiError> {
    feed.map_or(Ok(()), |_| Err(ApiError::field("feed_id", "unknown field")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_an_object_and_not_its_fields_in_order() {
        assert!(parse::<SettingsBody>(b"{\"pinned\":true}").is_ok());
        for body in ["[true,0]", "[null,null]", "[]", "null", "true", "\"x\"", "1"] {
            let error = parse::<SettingsBody>(body.as_bytes()).unwrap_err();
            assert_eq!(error.kind, Kind::BadRequest, "{body}");
        }
        let items = |json: &str| parse::<BatchBody>(format!("{{\"messages\":[{json}]}}").as_bytes());
        let whole = items("{\"feed_id\":\"f\",\"payload\": [1, 2] }").unwrap();
        assert_eq!(whole.messages[0].payload.as_ref().unwrap().get(), "[1, 2]", "byte for byte");
        assert!(items("[\"f\",null,null,\"hi\"]").is_err());
    }
}
