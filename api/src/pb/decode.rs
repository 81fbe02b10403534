//! From a body to a command.

use bytes::Bytes;
use feedlog_core::command::{Action, Command, CreateFeed, Draft, Principal};
use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, MessageKind};
use feedlog_core::ids::{ClientMsgId, FeedId, Uid};
use feedlog_service::ShelfWrite;
use percent_encoding::percent_decode_str;
use prost::Message as _;

use super::ids::Ids;
use super::wire::{BadBody, Message, MessageType, ServiceMessage};
use super::{MESSAGE_TYPE, SERVICE_TYPE, TOPIC_FEEDS, TOPIC_MESSAGE, TOPIC_SERVICE};
use crate::errors::{ApiError, Kind};
use crate::made;

/// Where a topic leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The direct feed of a [`Message`]'s two users.
    Message,
    /// The direct feed of a [`ServiceMessage`]'s two users.
    Service,
    /// This feed, with either message.
    Feed(FeedId),
}

/// A message that is to be sent.
#[derive(Debug)]
pub struct Incoming {
    /// Sends it.
    pub command: Command,
    /// Rows for the same batch.
    pub rows: Vec<ShelfWrite>,
    /// The id that the client gave it.
    pub message_id: u64,
    /// The same as the store keeps it.
    pub client_msg_id: ClientMsgId,
    /// The number that the entry gets, unless it was sent before: then [`Ids::of_retry`] knows.
    pub server_id: u64,
}

/// Where a topic leads, `None` when it is none that messages are sent to.
pub fn place(topic: &str) -> Option<Result<Place, ApiError>> {
    match topic {
        TOPIC_MESSAGE => Some(Ok(Place::Message)),
        TOPIC_SERVICE => Some(Ok(Place::Service)),
        _ => {
            let name = percent_decode_str(topic.strip_prefix(TOPIC_FEEDS)?).decode_utf8();
            let name = name.map_err(|_| ApiError::field("feed_id", "is not UTF-8"));
            Some(name.and_then(|name| {
                let feed = FeedId::parse(&name).map_err(|error| ApiError::field("feed_id", error))?;
                Ok(Place::Feed(feed))
            }))
        }
    }
}

/// What both messages say alike.
struct Said {
    message_id: u64,
    sender_id: u64,
    receiver_id: Option<u64>,
    created_ms: u64,
    kind: MessageKind,
    content_type: &'static str,
    to_reply: Option<bool>,
}

/// Reads a body. Its whole bytes become the payload, `carried` goes with it; `message_id` makes retries harmless. Fails with `Forbidden` when the
/// sender is somebody else than whoever is logged in.
pub async fn decode(
    ids: &Ids,
    principal: &Principal,
    place: &Place,
    body: Bytes,
    carried: Bytes,
) -> Result<Incoming, ApiError> {
    let said = match place {
        Place::Message => text(&body),
        Place::Service => service(&body),
        // The third field tells them apart: a text there, a number here.
        Place::Feed(_) => match Message::decode(&*body) {
            Ok(_) => text(&body),
            Err(_) => service(&body),
        },
    }?;
    if said.sender_id != ids.number_of(&principal.uid).await? {
        return Err(ApiError::new(Kind::Forbidden, "the sender is not whoever is logged in"));
    }
    let (feed, create) = match place {
        Place::Feed(feed) => (feed.clone(), None),
        Place::Message | Place::Service => {
            let missing = || ApiError::field("agent_id", "is missing");
            let receiver = ids.uid_of(said.receiver_id.ok_or_else(missing)?).await?;
            let receiver = receiver.ok_or_else(|| ApiError::field("receiver_id", "is nobody's number"))?;
            (FeedId::direct(&principal.uid, &receiver, made::digest), Some(direct(receiver)))
        }
    };
    let client_msg_id = ClientMsgId::parse(&said.message_id.to_string())
        .expect("INVARIANT: a number has 1 to 20 digits and no control character");
    let (server_id, rows) = ids.reserve(&feed, &principal.uid, &client_msg_id).await?;
    let draft = Draft {
        client_msg_id: Some(client_msg_id.clone()),
        to_reply: said.to_reply,
        sent_ms: Some(said.created_ms),
        create,
        carried,
        ..Draft::new(said.kind, said.content_type.into(), body)
    };
    let command = Command { feed, action: Action::SendMessage(Box::new(draft)) };
    Ok(Incoming { command, rows, message_id: said.message_id, client_msg_id, server_id })
}

fn direct(other: Uid) -> CreateFeed {
    CreateFeed {
        kind: FeedKind::Direct,
        title: None,
        members: vec![other],
        join: JoinMode::Invite,
        history: HistoryMode::All,
        meta: None,
    }
}

fn text(body: &[u8]) -> Result<Said, ApiError> {
    let message = Message::decode(body).map_err(|_| broken())?.checked().map_err(bad)?;
    Ok(Said {
        message_id: message.message_id,
        sender_id: message.sender_id,
        receiver_id: Some(message.receiver_id),
        created_ms: message.create_time,
        kind: MessageKind::Text,
        content_type: MESSAGE_TYPE,
        to_reply: None,
    })
}

fn service(body: &[u8]) -> Result<Said, ApiError> {
    let message = ServiceMessage::decode(body).map_err(|_| broken())?.checked().map_err(bad)?;
    let kind = match message.message_type {
        MessageType::Text => MessageKind::Text,
        MessageType::Image => MessageKind::Image,
        MessageType::Voice => MessageKind::Voice,
        MessageType::Video => MessageKind::Video,
        MessageType::ShortVideo => MessageKind::ShortVideo,
        MessageType::Location => MessageKind::Location,
        MessageType::Link => MessageKind::Link,
        MessageType::Custom => MessageKind::Custom,
        MessageType::System => MessageKind::System,
        MessageType::Recall | MessageType::Edit => {
            return Err(ApiError::field("message_type", "is one that only the server sends"));
        }
    };
    Ok(Said {
        message_id: message.message_id,
        sender_id: message.sender_id.ok_or_else(|| ApiError::field("agent_id", "is missing"))?,
        receiver_id: message.receiver_id,
        created_ms: message.create_date,
        kind,
        content_type: SERVICE_TYPE,
        to_reply: match message.to_reply {
            Some(1) => Some(true),
            Some(0) => Some(false),
            _ => None,
        },
    })
}

fn broken() -> ApiError {
    ApiError::field("body", "is not such a message")
}

fn bad(problem: BadBody) -> ApiError {
    ApiError::field(problem.field, problem.problem)
}

/// For fuzzing: no bytes make the decoders panic, and what was read is written back with what it must have.
#[doc(hidden)]
pub fn fuzz(body: &[u8]) {
    let _ = service(body);
    if text(body).is_ok() {
        let relayed = super::wire::readdressed(body, 1, "f", 2, 3).expect("what decodes can be copied");
        let message = Message::decode(&*relayed).expect("a copy decodes");
        assert_eq!((message.message_id, message.seq_id), (Some(1), Some(2)));
        assert!(message.checked().is_ok());
    }
}
