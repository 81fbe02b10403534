//! What a PUBLISH becomes in the log.

use bytes::Bytes;
use feedlog_core::command::{CreateFeed, Draft};
use feedlog_core::event::{FeedKind, MessageKind};
use feedlog_core::ids::ClientMsgId;
use feedlog_core::limits::CONTENT_TYPE_BYTES_MAX;
use feedlog_service::{ShelfValue, ShelfWrite};

use super::super::space::{self, Target};
use super::super::wire::Publish;
use super::super::{FRONT_END, stored};
use crate::errors::Kind;
use crate::http::wire::input::check_media_type;

/// What a PUBLISH to a free topic becomes: a message of an open feed, which it creates when there is none.
pub(crate) fn free(publish: &Publish) -> Result<Draft, Kind> {
    let properties = &publish.properties;
    let text = properties.payload_format_indicator() == Some(1);
    if text && std::str::from_utf8(&publish.payload).is_err() {
        // MQTT5 §3.3.2.3.2.
        return Err(Kind::UnsupportedMediaType);
    }
    let content_type = match properties.content_type() {
        // Kept with the message in full; as the entry's own media type only when it is one that an entry can have.
        Some(name) if name.len() <= CONTENT_TYPE_BYTES_MAX && check_media_type(name).is_ok() => name,
        _ if text => "text/plain",
        _ => "application/octet-stream",
    };
    Ok(Draft {
        client_msg_id: client_msg_id(publish)?,
        create: Some(CreateFeed::new(FeedKind::Open)),
        ..Draft::new(MessageKind::Custom, content_type.into(), publish.payload.clone())
    })
}

/// The user property `client_msg_id`.
fn client_msg_id(publish: &Publish) -> Result<Option<ClientMsgId>, Kind> {
    publish
        .properties
        .user()
        .find(|(name, _)| *name == "client_msg_id")
        .map(|(_, value)| ClientMsgId::parse(value).map_err(|_| Kind::BadRequest))
        .transpose()
}

/// When a message with an expiry is gone (MQTT5 §3.3.2.3.3). One of 0 seconds is stored all the same, because it is
/// acknowledged, and is gone within a second.
pub(crate) fn expires_ms(publish: &Publish, now_ms: u64) -> Option<u64> {
    let expiry_s = publish.properties.message_expiry_s()?;
    Some(now_ms.saturating_add(u64::from(expiry_s.max(1)) * 1000))
}

/// The retained message of its topic (`[MQTT-3.3.1-5]`); one without bytes removes it and is not kept
/// (`[MQTT-3.3.1-10]`, `[MQTT-3.3.1-11]`).
pub(crate) fn retained_row(publish: &Publish) -> Option<ShelfWrite> {
    if !publish.retain {
        return None;
    }
    let value = if publish.payload.is_empty() { ShelfValue::Remove } else { ShelfValue::Place(Bytes::new()) };
    // A feed's name can be encoded in more than one way.
    let key = match space::target(&publish.topic) {
        Target::Feed(feed) => stored::retained(&space::feed_topic(&feed)),
        _ => stored::retained(&publish.topic),
    };
    Some(ShelfWrite { front_end: FRONT_END, key, value })
}
