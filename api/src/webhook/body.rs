//! A call as JSON: docs/OUTBOX.md is its description for receivers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use feedlog_core::entry::Entry;
use feedlog_core::event::Event;
use feedlog_service::outbox::{Call, Item, To, What, Withdrawal};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::http::wire::input::{FeedKindWord, MessageKindWord, is_json_type};

#[derive(Serialize)]
struct CallOut<'a> {
    id: &'a str,
    endpoint: &'a str,
    feed_id: &'a str,
    kind: FeedKindWord,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replay: bool,
    items: Vec<ItemOut<'a>>,
    to: Vec<ToOut<'a>>,
}

#[derive(Serialize)]
struct ItemOut<'a> {
    id: String,
    #[serde(flatten)]
    what: WhatOut<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WhatOut<'a> {
    Message {
        seq_id: u64,
        ordinal: u64,
        time_ms: u64,
        sender: &'a str,
        kind: MessageKindWord,
        content_type: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<PayloadOut<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        payload_left_out: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_msg_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<u64>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        mentions: Vec<&'a str>,
    },
    Notified {
        seq_id: u64,
        time_ms: u64,
        sender: &'a str,
        content_type: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<PayloadOut<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        payload_left_out: bool,
    },
    Withdrawn {
        seq_id: u64,
        reason: &'static str,
    },
    Read {
        feed_id: &'a str,
        upto_seq_id: u64,
    },
}

/// JSON as a value, other UTF-8 as a string, else base64 (DESIGN §10, payload).
#[derive(Serialize)]
#[serde(untagged)]
enum PayloadOut<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Base64 { base64: String },
}

#[derive(Serialize)]
struct ToOut<'a> {
    uid: &'a str,
    badge: u64,
    badge_unmuted: u64,
    last_seq_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<&'a [usize]>,
}

/// The body of a call.
pub(super) fn encode(call: &Call) -> Bytes {
    let out = CallOut {
        id: &call.id,
        endpoint: &call.endpoint,
        feed_id: call.feed.as_str(),
        kind: call.kind.into(),
        replay: call.replay,
        items: call.items.iter().map(|item| item_out(call, item)).collect(),
        to: call.to.iter().map(to_out).collect(),
    };
    serde_json::to_vec(&out).expect("INVARIANT: text, numbers and JSON that was read before are JSON").into()
}

fn item_out<'a>(call: &'a Call, item: &'a Item) -> ItemOut<'a> {
    let mut id = format!("{}:{}", call.feed, item.seq);
    let what = match &item.what {
        What::Message { entry, left_out } => message(entry, *left_out),
        What::Notified { entry, left_out } => {
            let content_type = match &entry.event {
                Event::Notified { content_type } => content_type,
                _ => "",
            };
            WhatOut::Notified {
                seq_id: entry.seq.0,
                time_ms: entry.time_ms,
                sender: entry.sender.as_str(),
                content_type,
                payload: payload(entry, content_type),
                payload_left_out: *left_out,
            }
        }
        What::Withdrawn { target, reason } => {
            // One entry may take back many.
            id = format!("{id}:{target}");
            let reason = match reason {
                Withdrawal::Recalled => "recalled",
                Withdrawal::Erased => "erased",
                Withdrawal::Expired => "expired",
            };
            WhatOut::Withdrawn { seq_id: target.0, reason }
        }
        What::Read { feed, upto } => WhatOut::Read { feed_id: feed.as_str(), upto_seq_id: upto.0 },
    };
    ItemOut { id, what }
}

fn message(entry: &Entry, left_out: bool) -> WhatOut<'_> {
    let Some(message) = entry.message() else {
        debug_assert!(false, "INVARIANT: only a MessageSent is told as a message");
        return WhatOut::Withdrawn { seq_id: entry.seq.0, reason: "erased" };
    };
    WhatOut::Message {
        seq_id: entry.seq.0,
        ordinal: entry.ordinal.0,
        time_ms: entry.time_ms,
        sender: entry.sender.as_str(),
        kind: message.kind.into(),
        content_type: &message.content_type,
        payload: payload(entry, &message.content_type),
        payload_left_out: left_out,
        client_msg_id: message.client_msg_id.as_ref().map(|id| id.as_str()),
        reply_to: message.reply_to.map(|seq| seq.0),
        mentions: message.mentions.iter().map(|uid| uid.as_str()).collect(),
    }
}

fn payload<'a>(entry: &'a Entry, content_type: &str) -> Option<PayloadOut<'a>> {
    let bytes = entry.payload.bytes()?;
    if is_json_type(content_type)
        && let Ok(json) = serde_json::from_slice(bytes)
    {
        return Some(PayloadOut::Json(json));
    }
    Some(match std::str::from_utf8(bytes) {
        Ok(text) => PayloadOut::Text(text),
        Err(_) => PayloadOut::Base64 { base64: STANDARD.encode(bytes) },
    })
}

fn to_out(to: &To) -> ToOut<'_> {
    ToOut {
        uid: to.uid.as_str(),
        badge: to.badge,
        badge_unmuted: to.badge_unmuted,
        last_seq_id: to.last_seq.0,
        items: to.items.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use feedlog_core::entry::Payload;
    use feedlog_core::event::{FeedKind, Message, MessageKind, Scope};
    use feedlog_core::ids::{ClientMsgId, FeedId, Ordinal, SeqId, Uid};

    use super::*;

    fn sent(seq: u64, content_type: &str, bytes: &'static [u8]) -> Item {
        let uid = |name: &str| Uid::parse(name).unwrap();
        let message = Message {
            kind: MessageKind::Text,
            content_type: content_type.into(),
            client_msg_id: (seq == 4).then(|| ClientMsgId::parse("m1").unwrap()),
            scope: Scope::Sender,
            reply_to: (seq == 5).then_some(SeqId(4)),
            mentions: if seq == 4 { vec![uid("bob")] } else { Vec::new() },
            to_reply: None,
            seen_seq: SeqId(3),
            sent_ms: None,
            expires_ms: None,
            auto: false,
            carried: Payload::None,
        };
        let entry = Entry {
            feed: FeedId::parse("team/a").unwrap(),
            seq: SeqId(seq),
            ordinal: Ordinal(seq - 3),
            time_ms: 1_700_000_000_000,
            sender: uid("ann"),
            event: Event::MessageSent(message),
            payload: Payload::if_any(bytes.into()),
        };
        Item { seq: SeqId(seq), what: What::Message { entry: Box::new(entry), left_out: bytes.is_empty() } }
    }

    fn call(items: Vec<Item>) -> Call {
        let to = |name: &str, items| To {
            uid: Uid::parse(name).unwrap(),
            badge: 3,
            badge_unmuted: 2,
            last_seq: SeqId(3),
            items,
        };
        Call {
            endpoint: "apns".into(),
            id: "apns:team/a:4-8".into(),
            feed: FeedId::parse("team/a").unwrap(),
            kind: FeedKind::Group,
            items,
            to: vec![to("bob", None), to("cat", Some(vec![1, 3]))],
            attempt: 1,
            replay: false,
            time_ms: 1_700_000_000_500,
        }
    }

    fn lines(call: &Call) -> String {
        String::from_utf8(encode(call).to_vec()).unwrap()
    }

    /// As docs/OUTBOX.md shows it.
    #[test]
    fn the_body_of_a_call() {
        let items = vec![
            sent(4, "application/json", br#"{"text": "hello", "n": 1.0}"#),
            sent(5, "text/plain", "grüße".as_bytes()),
            sent(6, "audio/ogg", &[0xff, 0, 1]),
            sent(7, "text/plain", b""),
            Item { seq: SeqId(8), what: What::Withdrawn { target: SeqId(2), reason: Withdrawal::Recalled } },
        ];
        assert_eq!(
            lines(&call(items)),
            concat!(
                r#"{"id":"apns:team/a:4-8","endpoint":"apns","feed_id":"team/a","kind":"group","items":["#,
                r#"{"id":"team/a:4","type":"message","seq_id":4,"ordinal":1,"time_ms":1700000000000,"sender":"ann","#,
                r#""kind":"text","content_type":"application/json","payload":{"text": "hello", "n": 1.0},"#,
                r#""client_msg_id":"m1","mentions":["bob"]},"#,
                r#"{"id":"team/a:5","type":"message","seq_id":5,"ordinal":2,"time_ms":1700000000000,"sender":"ann","#,
                r#""kind":"text","content_type":"text/plain","payload":"grüße","reply_to":4},"#,
                r#"{"id":"team/a:6","type":"message","seq_id":6,"ordinal":3,"time_ms":1700000000000,"sender":"ann","#,
                r#""kind":"text","content_type":"audio/ogg","payload":{"base64":"/wAB"}},"#,
                r#"{"id":"team/a:7","type":"message","seq_id":7,"ordinal":4,"time_ms":1700000000000,"sender":"ann","#,
                r#""kind":"text","content_type":"text/plain","payload_left_out":true},"#,
                r#"{"id":"team/a:8:2","type":"withdrawn","seq_id":2,"reason":"recalled"}],"#,
                r#""to":[{"uid":"bob","badge":3,"badge_unmuted":2,"last_seq_id":3},"#,
                r#"{"uid":"cat","badge":3,"badge_unmuted":2,"last_seq_id":3,"items":[1,3]}]}"#,
            )
        );
    }

    #[test]
    fn what_says_json_and_is_none_is_text() {
        let body =
            lines(&call(vec![sent(4, "application/json", b"{\"a\":"), sent(5, "application/json", b"\xff")]));
        assert!(
            body.contains(r#""payload":"{\"a\":""#) && body.contains(r#""payload":{"base64":"/w=="}"#),
            "{body}"
        );
    }

    #[test]
    fn reads_and_replays() {
        let what = What::Read { feed: FeedId::parse("team/a").unwrap(), upto: SeqId(9) };
        let mut call = call(vec![Item { seq: SeqId(4), what }]);
        call.feed = FeedId::parse("user:bob").unwrap();
        call.kind = FeedKind::Personal;
        call.replay = true;
        let body = lines(&call);
        assert!(body.contains(r#""kind":"personal","replay":true,"#), "{body}");
        let item = r#"{"id":"user:bob:4","type":"read","feed_id":"team/a","upto_seq_id":9}"#;
        assert!(body.contains(item), "{body}");
    }
}
