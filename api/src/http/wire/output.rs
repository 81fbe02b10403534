//! What callers get.

use feedlog_core::command::Done;
use feedlog_service::views::{
    Conversation, ExplainedUnread, FeedInfo, Gone, GoneReason, LeftOut, MemberInfo, Receipts, RequestInfo,
    Unread, UnreadTotal, Unreplied,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

pub(crate) use super::entry::EntryOut;
use super::entry::raw;
use super::input::{FeedKindWord, HistoryWord, JoinWord, RoleWord};

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
