//! The bodies of the methods, in mqant's names.

use std::borrow::Cow;

use feedlog_core::event::{FeedKind, HistoryMode, JoinMode};
use feedlog_core::limits;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::message::MessageOut;
use crate::errors::ApiError;
use crate::http::wire::input::{HistoryWord, JoinWord, MessageKindWord, Reason, Title, present};
use crate::http::wire::names::{ClientId, FeedName, UidName, Whole};
use crate::http::wire::output::{GoneOut, NextOut};

/// A message to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImSend)]
pub(crate) struct SendBody {
    pub(super) feeds: FeedName,
    /// Any JSON; its exact text is kept and handed out unchanged.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Value)]
    pub(super) payload: Option<Box<RawValue>>,
    /// `text` when absent.
    pub(super) msg_type: Option<MessageKindWord>,
    /// The sender's own id (`MsgId`), which makes retries harmless.
    pub(super) msg_id: Option<ClientId>,
    /// Asks for an answer (`true`) or declines one (`false`).
    pub(super) to_reply: Option<bool>,
    /// What the sender had seen of the feed.
    pub(super) seen_seq: Option<Whole>,
    /// The message that this one answers.
    pub(super) reply_to: Option<Whole>,
    /// Who is addressed; `@all` addresses every member.
    #[schema(max_items = 100)]
    pub(super) mentions: Option<Vec<UidName>>,
}

/// Which page of history.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImHistoryOf)]
pub(crate) struct HistoryBody {
    pub(super) feeds: FeedName,
    /// Entries after this one, ascending; 0 when absent. `before` goes first when both are given.
    pub(super) last_seq_id: Option<Whole>,
    /// Entries before this one, descending.
    pub(super) before: Option<Whole>,
    pub(super) limit: Option<Limit>,
}

/// Which message to recall: `seq_id` or `msg_id`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImRecall)]
pub(crate) struct RecallBody {
    pub(super) feeds: FeedName,
    /// By place.
    #[serde(default, deserialize_with = "present")]
    pub(super) seq_id: Option<Whole>,
    /// By `MsgId`.
    #[serde(default, deserialize_with = "present")]
    pub(super) msg_id: Option<ClientId>,
}

/// A place in a feed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImPlace)]
pub(crate) struct PlaceBody {
    pub(super) feeds: FeedName,
    pub(super) seq_id: Whole,
}

/// A message, and which page of those who received it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImReceiptsOf)]
pub(crate) struct ReceiptsBody {
    pub(super) feeds: FeedName,
    pub(super) seq_id: Whole,
    /// `next` of the page before.
    pub(super) cursor: Option<Cursor>,
    pub(super) limit: Option<Limit>,
}

/// One feed, or all of the caller's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImUnreadOf)]
pub(crate) struct UnreadBody {
    /// All when absent.
    pub(super) feeds: Option<FeedName>,
}

/// Size of a list.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImLimit)]
pub(crate) struct LimitBody {
    pub(super) limit: Option<Limit>,
}

/// Which page.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImPage)]
pub(crate) struct PageBody {
    /// `next` of the page before.
    pub(super) cursor: Option<Cursor>,
    pub(super) limit: Option<Limit>,
}

/// A feed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImFeeds)]
pub(crate) struct FeedsBody {
    pub(super) feeds: FeedName,
}

/// A group to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImCreateFeeds)]
pub(crate) struct CreateBody {
    /// A generated name when absent.
    pub(super) feeds: Option<FeedName>,
    /// For people.
    pub(super) title: Option<Title>,
    /// The first members besides the caller.
    #[schema(max_items = 1000)]
    pub(super) members: Option<Vec<UidName>>,
    /// `invite` when absent.
    pub(super) join: Option<JoinWord>,
    /// `all` when absent.
    pub(super) history: Option<HistoryWord>,
}

impl CreateBody {
    pub(super) fn into_create(self) -> Result<feedlog_core::command::CreateFeed, ApiError> {
        let members: Vec<_> = self.members.unwrap_or_default().into_iter().map(|name| name.0).collect();
        if members.len() > limits::CREATE_MEMBERS_MAX {
            return Err(ApiError::field("members", "has more than 1000 items"));
        }
        Ok(feedlog_core::command::CreateFeed {
            kind: FeedKind::Group,
            title: self.title.map(|title| title.0),
            members,
            join: self.join.map_or(JoinMode::Invite, Into::into),
            history: self.history.map_or(HistoryMode::All, Into::into),
            meta: None,
        })
    }
}

/// A wish to join.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImJoinFeeds)]
pub(crate) struct JoinBody {
    pub(super) feeds: FeedName,
    /// For those who decide.
    pub(super) reason: Option<Reason>,
}

/// Whoever asked to join.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImApplicant)]
pub(crate) struct ApplicantBody {
    pub(super) applicant: UidName,
    pub(super) feeds: FeedName,
}

/// A member, or a user who is to be one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImMember)]
pub(crate) struct MemberBody {
    pub(super) member: UidName,
    pub(super) feeds: FeedName,
}

/// A message that is durable.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
#[schema(as = ImSent)]
pub(crate) struct SentOut<'a> {
    pub(super) seq_id: u64,
    /// The sender's own id, else `<feeds>:<SeqId>`.
    pub(super) msg_id: Cow<'a, str>,
    /// The server's clock.
    pub(super) time_create: u64,
}

/// Where a recall stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
#[schema(as = ImDone)]
pub(crate) struct RecallOut {
    /// The recall's own place.
    pub(super) seq_id: u64,
}

/// A feed that is there now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImCreated)]
pub(crate) struct CreatedOut<'a> {
    pub(super) feeds: &'a str,
}

/// A page of history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImHistory)]
pub(crate) struct HistoryOut<'a> {
    pub(super) feeds: &'a str,
    /// The head when the page was read, whoever may see it.
    pub(super) last_seq_id: u64,
    pub(super) messages: Vec<MessageOut<'a>>,
    /// What lies between and is not shown.
    pub(super) gone: Vec<GoneOut>,
    /// The parameter of the next page; `null` at the end.
    pub(super) next: Option<NextOut>,
}

/// Size of a page: 1 to 1000.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(pub(super) usize);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match usize::try_from(Whole::deserialize(deserializer)?.0) {
            Ok(limit @ 1..=limits::PAGE_ENTRIES_MAX) => Ok(Self(limit)),
            _ => Err(de::Error::custom("must be a whole number of 1 to 1000")),
        }
    }
}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        schema(serde_json::json!({
            "type": "integer", "minimum": 1, "maximum": limits::PAGE_ENTRIES_MAX,
            "description": "Size of a page; 50 when absent.",
        }))
    }
}

impl ToSchema for Limit {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Limit")
    }
}

/// An opaque place in a list.
#[derive(Debug, Clone)]
pub(crate) struct Cursor(pub(super) String);

/// Longest cursor.
const CURSOR_BYTES_MAX: usize = 4096;

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > CURSOR_BYTES_MAX {
            return Err(de::Error::custom("is longer than 4096 bytes"));
        }
        Ok(Self(text))
    }
}

impl PartialSchema for Cursor {
    fn schema() -> RefOr<Schema> {
        // A pattern cannot count bytes: what always fits.
        schema(serde_json::json!({
            "type": "string", "maxLength": CURSOR_BYTES_MAX / 4,
            "description": "Where a page begins; from an answer, never made up.",
        }))
    }
}

impl ToSchema for Cursor {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Cursor")
    }
}

fn schema(value: serde_json::Value) -> RefOr<Schema> {
    serde_json::from_value(value).expect("INVARIANT: the schema is written in this file and a test reads it")
}
