//! From an entry to a body, and the receipt of a message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::event::{Event, MessageKind};
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_service::views::{Receipt, View};
use feedlog_service::{Gate, ReadError};
use prost::Message as _;
use serde::Serialize;
use serde_json::Value;

use super::decode::Incoming;
use super::ids::Ids;
use super::wire::{Message, MessageType, ServiceMessage, ServiceMessageDirection, ServiceType, readdressed};
use super::{MESSAGE_TYPE, SERVICE_TYPE, TOPIC_MESSAGE, TOPIC_SERVICE};
use crate::errors::ApiError;
use crate::http::wire::input::is_json_type;

/// What is published to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// Where.
    pub topic: &'static str,
    /// What.
    pub body: Vec<u8>,
}

/// An entry as this wire shows it; the same for all readers, so it can be made once for them. `None` for what the wire has
/// no words for: members, reactions, settings, and messages that are recalled by now (their recall is shown).
///
/// A message of this wire goes out byte for byte, but with the server's id and the place it got. A text of another wire is a
/// [`Message`], any other kind a [`ServiceMessage`]. `gate` is of somebody who may read the feed.
pub async fn relay(ids: &Ids, gate: &Gate, view: &View) -> Result<Option<Down>, ApiError> {
    match &view.entry.event {
        Event::MessageSent(message) => {
            let Some(payload) = view.entry.payload.bytes() else { return Ok(None) };
            let number = ids.of_view(view).await?;
            let entry = &view.entry;
            let topic = match &*message.content_type {
                MESSAGE_TYPE => Some(TOPIC_MESSAGE),
                SERVICE_TYPE => Some(TOPIC_SERVICE),
                _ => None,
            };
            if let Some(topic) = topic
                && let Some(body) =
                    readdressed(payload, number, entry.feed.as_str(), entry.seq.0, entry.time_ms)
            {
                return Ok(Some(Down { topic, body }));
            }
            let content = content_of(payload, &message.content_type);
            let said = Said { number, content, sent_ms: message.sent_ms, to_reply: message.to_reply };
            said.write(ids, gate, view, message.kind).await.map(Some)
        }
        Event::MessageRecalled { target, .. } => {
            notice(ids, gate, view, *target, MessageType::Recall, None).await
        }
        Event::MessageEdited { target, content_type } => {
            let Some(payload) = view.entry.payload.bytes() else { return Ok(None) };
            let text = match &**content_type {
                MESSAGE_TYPE => Message::decode(&**payload).ok().and_then(|message| message.content),
                SERVICE_TYPE => ServiceMessage::decode(&**payload).ok().and_then(|message| message.content),
                _ => None,
            };
            let text = text.unwrap_or_else(|| content_of(payload, content_type));
            notice(ids, gate, view, *target, MessageType::Edit, Some(text)).await
        }
        _ => Ok(None),
    }
}

/// A message of another wire.
struct Said {
    number: u64,
    content: String,
    sent_ms: Option<u64>,
    to_reply: Option<bool>,
}

impl Said {
    async fn write(self, ids: &Ids, gate: &Gate, view: &View, kind: MessageKind) -> Result<Down, ApiError> {
        let entry = &view.entry;
        let sender = ids.number_of(&entry.sender).await?;
        let sent_ms = self.sent_ms.unwrap_or(entry.time_ms);
        let message_type = match kind {
            MessageKind::Text => {
                let message = Message {
                    message_id: Some(self.number),
                    sender_id: Some(sender),
                    content: Some(self.content),
                    create_time: Some(sent_ms),
                    receiver_id: Some(receiver(ids, gate, &entry.feed, &entry.sender).await?),
                    feed_id: Some(entry.feed.as_str().to_owned()),
                    seq_id: Some(entry.seq.0),
                    time_ms: Some(entry.time_ms),
                };
                return Ok(Down { topic: TOPIC_MESSAGE, body: message.encode_to_vec() });
            }
            MessageKind::Image => MessageType::Image,
            MessageKind::Voice => MessageType::Voice,
            MessageKind::Video => MessageType::Video,
            MessageKind::ShortVideo => MessageType::ShortVideo,
            MessageKind::Location => MessageType::Location,
            MessageKind::Link => MessageType::Link,
            MessageKind::Custom => MessageType::Custom,
            MessageKind::System => MessageType::System,
        };
        let system = kind == MessageKind::System;
        let message = ServiceMessage {
            create_date: Some(sent_ms),
            to_reply: self.to_reply.map(u32::from),
            ..service(view, self.number, sender, system, message_type, self.content)
        };
        Ok(Down { topic: TOPIC_SERVICE, body: message.encode_to_vec() })
    }
}

/// A service message with everything that it must have. Of the system, or written by its user.
fn service(
    view: &View,
    number: u64,
    user: u64,
    system: bool,
    message_type: MessageType,
    content: String,
) -> ServiceMessage {
    let entry = &view.entry;
    let (service_type, direction) = if system {
        (ServiceType::System, ServiceMessageDirection::AgentToUser)
    } else {
        (ServiceType::Chat, ServiceMessageDirection::UserToAgent)
    };
    ServiceMessage {
        message_id: Some(number),
        user_id: Some(user),
        service_type: Some(service_type.into()),
        message_type: Some(message_type.into()),
        content: Some(content),
        create_date: Some(entry.time_ms),
        direction: Some(direction.into()),
        agent_id: None,
        post_proc: None,
        to_reply: None,
        extend: None,
        feed_id: Some(entry.feed.as_str().to_owned()),
        seq_id: Some(entry.seq.0),
        time_ms: Some(entry.time_ms),
    }
}

/// Tells what happened to a message, by the number that its readers know.
async fn notice(
    ids: &Ids,
    gate: &Gate,
    view: &View,
    target: SeqId,
    message_type: MessageType,
    extend: Option<String>,
) -> Result<Option<Down>, ApiError> {
    let target = match gate.entry(&view.entry.feed, target).await {
        Ok(target) => ids.of_view(&target).await?,
        // Gone, or before the reader's time: nothing of it can be on show.
        Err(ReadError::NotFound) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let number = ids.of_view(view).await?;
    let user = ids.number_of(&view.entry.sender).await?;
    let message =
        ServiceMessage { extend, ..service(view, number, user, false, message_type, target.to_string()) };
    Ok(Some(Down { topic: TOPIC_SERVICE, body: message.encode_to_vec() }))
}

/// The other user of a direct feed, the user of a personal one, else nobody: 0.
async fn receiver(ids: &Ids, gate: &Gate, feed: &FeedId, sender: &Uid) -> Result<u64, ApiError> {
    let other = if let Some(uid) = feed.personal_uid() {
        uid
    } else if feed.is_reserved() {
        let (a, b) = ids.pair(gate, feed).await?;
        if a == *sender { b } else { a }
    } else {
        return Ok(0);
    };
    ids.number_of(&other).await
}

/// The text of a payload of another wire: a JSON string's text, the `text` of a JSON object that has one, else the JSON as
/// it stands; other text as it is; other bytes in base64.
fn content_of(payload: &[u8], content_type: &str) -> String {
    if is_json_type(content_type) {
        match serde_json::from_slice(payload) {
            Ok(Value::String(text)) => return text,
            Ok(Value::Object(mut fields)) => {
                if let Some(Value::String(text)) = fields.remove("text") {
                    return text;
                }
            }
            _ => {}
        }
    }
    match std::str::from_utf8(payload) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !"\t\r\n".contains(c)) => text.to_owned(),
        _ => STANDARD.encode(payload),
    }
}

/// The topic of a message's receipt.
pub fn receipt_topic(message_id: u64) -> String {
    format!("imreceipt://modulus/publish?msg_id={message_id}")
}

/// The body of a message's receipt. `server_id` is that of the [`Incoming`], or of the first time for a retry.
pub fn receipt(message_id: u64, server_id: u64, receipt: &Receipt) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        client_message_id: u64,
        message_id: u64,
        feed_id: &'a str,
        seq_id: u64,
        time_ms: u64,
        duplicate: bool,
    }
    let done = receipt.done();
    serde_json::to_vec(&Body {
        client_message_id: message_id,
        message_id: server_id,
        feed_id: done.feed.as_str(),
        seq_id: done.seq.0,
        time_ms: done.time_ms,
        duplicate: done.duplicate,
    })
    .expect("INVARIANT: text and numbers are JSON")
}

impl Incoming {
    /// The server's id of the message now that it is durable.
    pub async fn settled_id(&self, ids: &Ids, sender: &Uid, receipt: &Receipt) -> Result<u64, ApiError> {
        let done = receipt.done();
        if done.duplicate {
            ids.of_retry(done, sender, &self.client_msg_id).await
        } else {
            Ok(self.server_id)
        }
    }
}
