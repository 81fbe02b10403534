//! Feed topics: what is published to `feeds/<feed_id>`, and how its entries look to subscribers.
//!
//! A PUBLISH is the body of `POST /v1/feeds/{feed}/messages` when it is a JSON object with a `payload`; or else the payload
//! itself, its envelope in user properties (`client_msg_id`, `kind`, `reply_to`, `mentions` once for each, `to_reply`,
//! `seen_seq`, `sent_ms`, `auto`, `expect_head`). The user property `format` (`json` or `raw`) says which where it could be taken
//! for either.

use bytes::Bytes;
use feedlog_core::command::Draft;
use feedlog_core::event::{Event, MessageKind};
use feedlog_core::ids::{ClientMsgId, SeqId, Uid};
use feedlog_core::limits::{CONTENT_TYPE_BYTES_MAX, MENTIONS_MAX};
use feedlog_service::views::View;

use super::wire::{PropertyWriter, Publish};
use crate::errors::{ApiError, Kind};
use crate::http::wire::entry::EntryOut;
use crate::http::wire::input::{JSON, MessageKindWord, SendMessage, check_media_type, parse};

/// The message that a PUBLISH to a feed topic is.
pub(crate) fn draft(publish: &Publish, payload_max: usize) -> Result<Draft, ApiError> {
    let format = user(publish, "format");
    let json = match format {
        Some("json") => true,
        Some("raw") => false,
        Some(_) => return Err(ApiError::field("format", "is not one of the allowed values")),
        None => looks_like_a_body(&publish.payload),
    };
    let mut draft = if json {
        let body: SendMessage = parse(&publish.payload)?;
        if body.feed_id.is_some() {
            return Err(ApiError::field("feed_id", "unknown field"));
        }
        body.into_draft(payload_max)?
    } else {
        raw_draft(publish)?
    };
    if draft.client_msg_id.is_none()
        && let Some(id) = user(publish, "client_msg_id")
    {
        draft.client_msg_id = Some(ClientMsgId::parse(id).map_err(|_| bad("client_msg_id"))?);
    }
    Ok(draft)
}

/// A JSON object with a field `payload` or `payload_base64` at its top.
fn looks_like_a_body(payload: &[u8]) -> bool {
    if payload.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return false;
    }
    serde_json::from_slice::<std::collections::HashMap<&str, &serde_json::value::RawValue>>(payload)
        .is_ok_and(|fields| fields.contains_key("payload") || fields.contains_key("payload_base64"))
}

/// The media type of bytes that came without one.
fn guess(payload: &[u8]) -> &'static str {
    if serde_json::from_slice::<serde::de::IgnoredAny>(payload).is_ok() {
        JSON
    } else if std::str::from_utf8(payload).is_ok() {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}

fn raw_draft(publish: &Publish) -> Result<Draft, ApiError> {
    let content_type = match publish.properties.content_type() {
        Some(name) if name.len() <= CONTENT_TYPE_BYTES_MAX && check_media_type(name).is_ok() => name,
        Some(_) => return Err(bad("content_type")),
        None => guess(&publish.payload),
    };
    let mut draft = Draft::new(MessageKind::Text, content_type.into(), publish.payload.clone());
    for (name, value) in publish.properties.user() {
        match name {
            "kind" => {
                let word =
                    serde_json::from_value::<MessageKindWord>(value.into()).map_err(|_| bad("kind"))?;
                draft.kind = word.into();
            }
            "reply_to" => draft.reply_to = Some(seq(value, "reply_to")?),
            "seen_seq" => draft.seen_seq = Some(seq(value, "seen_seq")?),
            "expect_head" => draft.expect_head = Some(seq(value, "expect_head")?),
            "sent_ms" => draft.sent_ms = Some(seq(value, "sent_ms")?.0),
            "to_reply" => draft.to_reply = Some(flag(value, "to_reply")?),
            "auto" => draft.auto = flag(value, "auto")?,
            "mentions" if draft.mentions.len() == MENTIONS_MAX => return Err(bad("mentions")),
            "mentions" => draft.mentions.push(Uid::parse(value).map_err(|_| bad("mentions"))?),
            // Others are the sender's own and travel with the message.
            _ => {}
        }
    }
    Ok(draft)
}

fn user<'a>(publish: &'a Publish, name: &str) -> Option<&'a str> {
    publish.properties.user().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn bad(field: &'static str) -> ApiError {
    let mut error = ApiError::field(field, "is not valid");
    error.kind = Kind::BadRequest;
    error
}

fn seq(value: &str, field: &'static str) -> Result<SeqId, ApiError> {
    value.parse().ok().filter(|number| *number <= SeqId::MAX.0).map(SeqId).ok_or_else(|| bad(field))
}

fn flag(value: &str, field: &'static str) -> Result<bool, ApiError> {
    value.parse().map_err(|_| bad(field))
}

/// A word of an enumeration as it is on the wire.
fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// An entry as JSON, the same as over HTTP.
pub(crate) fn entry_json(view: &View) -> Bytes {
    serde_json::to_vec(&EntryOut::new(view)).map(Bytes::from).unwrap_or_default()
}

/// The envelope of an entry as user properties, for subscribers that take payloads as they are.
pub(crate) fn envelope(view: &View, properties: &mut PropertyWriter) {
    let entry = &view.entry;
    properties
        .user("feed_id", entry.feed.as_str())
        .user("seq_id", &entry.seq.0.to_string())
        .user("prev_seq_id", &view.prev_seq.0.to_string())
        .user("ordinal", &entry.ordinal.0.to_string())
        .user("time_ms", &entry.time_ms.to_string())
        .user("sender", entry.sender.as_str())
        .user("type", &word(EntryOut::new(view).kind_of_entry));
    let Event::MessageSent(message) = &entry.event else { return };
    if let Some(id) = &message.client_msg_id {
        properties.user("client_msg_id", id.as_str());
    }
    properties.user("kind", &word(MessageKindWord::from(message.kind)));
    if let Some(seq) = message.reply_to {
        properties.user("reply_to", &seq.0.to_string());
    }
    for uid in &message.mentions {
        properties.user("mentions", uid.as_str());
    }
    if let Some(asks) = message.to_reply {
        properties.user("to_reply", if asks { "true" } else { "false" });
    }
    if message.auto {
        properties.user("auto", "true");
    }
}
