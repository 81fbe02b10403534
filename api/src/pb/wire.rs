//! The messages of `proto/feedlog.proto`.
//!
//! Written by hand and not generated: three messages do not need a compiler at build time. Required fields are optional in
//! the types that decode, because prost takes a missing one for its default; the checked types have none that may miss.

use prost::encoding::{DecodeContext, WireType, decode_key, encode_key, encode_varint, skip_field};

/// What is wrong with a body: the field and the problem, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadBody {
    /// Which field; `body` when the bytes are no such message at all.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// One more than the largest number on this wire.
pub(super) const NUMBERS_END: u64 = 1 << 53;

/// A text from one user to another.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// The sender's own id; the server's in what is relayed.
    #[prost(uint64, optional, tag = "1")]
    pub message_id: Option<u64>,
    /// Who wrote it.
    #[prost(uint64, optional, tag = "2")]
    pub sender_id: Option<u64>,
    /// The text.
    #[prost(string, optional, tag = "3")]
    pub content: Option<String>,
    /// The sender's clock.
    #[prost(uint64, optional, tag = "4")]
    pub create_time: Option<u64>,
    /// Who is to read it.
    #[prost(uint64, optional, tag = "5")]
    pub receiver_id: Option<u64>,
    /// Down only: the feed.
    #[prost(string, optional, tag = "100")]
    pub feed_id: Option<String>,
    /// Down only: the place.
    #[prost(uint64, optional, tag = "101")]
    pub seq_id: Option<u64>,
    /// Down only: the server's clock.
    #[prost(uint64, optional, tag = "102")]
    pub time_ms: Option<u64>,
}

/// A message of customer service, or of a kind that [`Message`] has no place for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ServiceMessage {
    /// The sender's own id; the server's in what is relayed.
    #[prost(uint64, optional, tag = "1")]
    pub message_id: Option<u64>,
    /// The user who is served.
    #[prost(uint64, optional, tag = "2")]
    pub user_id: Option<u64>,
    /// What for.
    #[prost(enumeration = "ServiceType", optional, tag = "3")]
    pub service_type: Option<i32>,
    /// What it is.
    #[prost(enumeration = "MessageType", optional, tag = "4")]
    pub message_type: Option<i32>,
    /// The text.
    #[prost(string, optional, tag = "5")]
    pub content: Option<String>,
    /// The sender's clock.
    #[prost(uint64, optional, tag = "6")]
    pub create_date: Option<u64>,
    /// Who wrote it.
    #[prost(enumeration = "ServiceMessageDirection", optional, tag = "7")]
    pub direction: Option<i32>,
    /// Who serves.
    #[prost(uint64, optional, tag = "8")]
    pub agent_id: Option<u64>,
    /// Opaque.
    #[prost(uint32, optional, tag = "9")]
    pub post_proc: Option<u32>,
    /// 1 asks for an answer, 0 declines one.
    #[prost(uint32, optional, tag = "10")]
    pub to_reply: Option<u32>,
    /// Opaque.
    #[prost(string, optional, tag = "11")]
    pub extend: Option<String>,
    /// Down only: the feed.
    #[prost(string, optional, tag = "100")]
    pub feed_id: Option<String>,
    /// Down only: the place.
    #[prost(uint64, optional, tag = "101")]
    pub seq_id: Option<u64>,
    /// Down only: the server's clock.
    #[prost(uint64, optional, tag = "102")]
    pub time_ms: Option<u64>,
}

/// What a service message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ServiceType {
    /// People among themselves.
    Chat = 1,
    /// A user and an agent.
    Customer = 2,
    /// The system tells something.
    System = 3,
}

/// What a service message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs)] // the names are the definition
pub enum MessageType {
    Text = 1,
    Image = 2,
    Voice = 3,
    Video = 4,
    ShortVideo = 5,
    Location = 6,
    Link = 7,
    Custom = 8,
    System = 9,
    /// Down only: `content` is the server's id of the recalled message.
    Recall = 10,
    /// Down only: `content` is the server's id of the edited message, `extend` its new text.
    Edit = 11,
}

/// Who wrote a service message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ServiceMessageDirection {
    /// `user_id`.
    UserToAgent = 1,
    /// `agent_id`, or the system.
    AgentToUser = 2,
}

/// Where a user stands. Every field is always written.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BaseUserUnreadStatics {
    /// Who.
    #[prost(uint64, required, tag = "1")]
    pub user_id: u64,
    /// Unread over all feeds.
    #[prost(uint64, required, tag = "2")]
    pub unread_total: u64,
    /// Unreplied over all feeds.
    #[prost(uint64, required, tag = "3")]
    pub unreplied_total: u64,
    /// Feeds with something unread or unreplied.
    #[prost(message, repeated, tag = "4")]
    pub feeds: Vec<UserUnreadFeed>,
}

/// Where a user stands in one feed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UserUnreadFeed {
    /// Which.
    #[prost(string, required, tag = "1")]
    pub feed: String,
    /// Unread messages.
    #[prost(uint64, required, tag = "2")]
    pub unread: u64,
    /// Messages that wait for an answer.
    #[prost(uint64, required, tag = "3")]
    pub unreplied: u64,
    /// The newest entry.
    #[prost(uint64, required, tag = "4")]
    pub last_seq_id: u64,
    /// The read mark.
    #[prost(uint64, required, tag = "5")]
    pub read_seq_id: u64,
}

/// A [`Message`] with everything that it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) message_id: u64,
    pub(super) sender_id: u64,
    pub(super) create_time: u64,
    pub(super) receiver_id: u64,
}

/// A [`ServiceMessage`] with everything that it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckedService {
    pub(super) message_id: u64,
    /// Whoever the direction says.
    pub(super) sender_id: Option<u64>,
    pub(super) receiver_id: Option<u64>,
    pub(super) message_type: MessageType,
    pub(super) create_date: u64,
    pub(super) to_reply: Option<u32>,
}

fn missing(field: &'static str) -> BadBody {
    BadBody { field, problem: "is missing" }
}

fn number(field: &'static str, value: Option<u64>) -> Result<u64, BadBody> {
    let value = value.ok_or(missing(field))?;
    if value < NUMBERS_END { Ok(value) } else { Err(BadBody { field, problem: "is 2^53 or more" }) }
}

fn known<T: TryFrom<i32>>(field: &'static str, value: Option<i32>) -> Result<T, BadBody> {
    let value = value.ok_or(missing(field))?;
    T::try_from(value).map_err(|_| BadBody { field, problem: "is not one of the known values" })
}

impl Message {
    pub(super) fn checked(&self) -> Result<Checked, BadBody> {
        if self.content.is_none() {
            return Err(missing("content"));
        }
        Ok(Checked {
            message_id: number("message_id", self.message_id)?,
            sender_id: number("sender_id", self.sender_id)?,
            create_time: number("create_time", self.create_time)?,
            receiver_id: number("receiver_id", self.receiver_id)?,
        })
    }
}

impl ServiceMessage {
    pub(super) fn checked(&self) -> Result<CheckedService, BadBody> {
        if self.content.is_none() {
            return Err(missing("content"));
        }
        let user = number("user_id", self.user_id)?;
        let agent = self.agent_id.map(|id| number("agent_id", Some(id))).transpose()?;
        let _: ServiceType = known("service_type", self.service_type)?;
        let (sender_id, receiver_id) = match known("direction", self.direction)? {
            ServiceMessageDirection::UserToAgent => (Some(user), agent),
            ServiceMessageDirection::AgentToUser => (agent, Some(user)),
        };
        Ok(CheckedService {
            message_id: number("message_id", self.message_id)?,
            sender_id,
            receiver_id,
            message_type: known("message_type", self.message_type)?,
            create_date: number("create_date", self.create_date)?,
            to_reply: self.to_reply,
        })
    }
}

/// The same encoded message with another `message_id` and with the place it got; everything else byte for byte, fields we
/// do not know included. `None` when the bytes are no message.
pub(super) fn readdressed(
    body: &[u8],
    message_id: u64,
    feed: &str,
    seq_id: u64,
    time_ms: u64,
) -> Option<Vec<u8>> {
    const OURS: [u32; 4] = [1, 100, 101, 102];
    let mut out = Vec::with_capacity(body.len() + feed.len() + 40);
    encode_key(1, WireType::Varint, &mut out);
    encode_varint(message_id, &mut out);
    let mut rest = body;
    while !rest.is_empty() {
        let whole = rest;
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?;
        if !OURS.contains(&tag) {
            out.extend_from_slice(whole.get(..whole.len() - rest.len())?);
        }
    }
    encode_key(100, WireType::LengthDelimited, &mut out);
    encode_varint(feed.len() as u64, &mut out);
    out.extend_from_slice(feed.as_bytes());
    encode_key(101, WireType::Varint, &mut out);
    encode_varint(seq_id, &mut out);
    encode_key(102, WireType::Varint, &mut out);
    encode_varint(time_ms, &mut out);
    Some(out)
}
