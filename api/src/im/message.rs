//! Entries as mqant clients get them.
//!
//! Every entry is a message there, so that a client that counts `SeqId` finds each place in a pull or in its `gone`:
//! what is not a message has the entry's type as its `MsgType` and the fields of `http.md` as its `Payload`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feedlog_core::event::{Event, Message, MessageKind};
use feedlog_core::ids::{SeqId, Uid};
use feedlog_service::views::View;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::wire::input::{JSON, MessageKindWord, is_json_type};
use crate::http::wire::output::EntryOut;

/// One entry. `MsgType` is the kind of a message, or what happened (`recall`, `edit`, `member_joined` …).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
#[schema(as = ImMessage)]
pub(crate) struct MessageOut<'a> {
    /// The sender's own id, else `<feeds>:<SeqId>`.
    msg_id: Cow<'a, str>,
    feeds: &'a str,
    seq_id: u64,
    msg_type: Cow<'static, str>,
    /// `null` for messages of the system.
    from: Option<&'a str>,
    /// JSON as it was sent; other text as a string; other bytes as `{"base64"}`. Absent when recalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    payload: Option<Shown<'a>>,
    /// The server's clock.
    time_create: u64,
    /// Media type, when it is not `application/json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reply_to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    mentions: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    to_reply: Option<bool>,
    /// The newest edit, whose payload this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    edited: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    recalled: Option<RecalledOut<'a>>,
}

/// The recall of a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
#[schema(as = ImRecalled)]
pub(crate) struct RecalledOut<'a> {
    by: &'a str,
    /// The recall's own place.
    seq_id: u64,
    time_create: u64,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Verbatim(&'a RawValue),
    Made(Value),
}

impl<'a> Shown<'a> {
    /// Bytes of another wire are wrapped and never encoded anew.
    fn of(bytes: &'a [u8], content_type: &str) -> Self {
        if is_json_type(content_type)
            && let Ok(json) = serde_json::from_slice(bytes)
        {
            return Self::Verbatim(json);
        }
        // Binary formats that happen to be UTF-8 hold control characters: what is shown must not change its form from
        // message to message.
        let text = |text: &&str| !text.contains(|c: char| c.is_control() && !"\t\r\n".contains(c));
        Self::Made(match std::str::from_utf8(bytes).ok().filter(text) {
            Some(text) => Value::String(text.to_owned()),
            None => json!({"base64": STANDARD.encode(bytes)}),
        })
    }
}

impl<'a> MessageOut<'a> {
    /// The entry as this reader may see it.
    pub(crate) fn new(view: &'a View) -> Self {
        let entry = &view.entry;
        let mut out = Self {
            msg_id: Cow::Owned(derived_id(entry.feed.as_str(), entry.seq)),
            feeds: entry.feed.as_str(),
            seq_id: entry.seq.0,
            msg_type: Cow::Borrowed(""),
            from: Some(entry.sender.as_str()),
            payload: None,
            time_create: entry.time_ms,
            content_type: None,
            reply_to: None,
            mentions: None,
            to_reply: None,
            edited: None,
            recalled: None,
        };
        match &entry.event {
            Event::MessageSent(message) => out.message(view, message),
            _ => out.event(view),
        }
        out
    }

    fn message(&mut self, view: &'a View, message: &'a Message) {
        if let Some(id) = &message.client_msg_id {
            self.msg_id = Cow::Borrowed(id.as_str());
        }
        self.msg_type = word(MessageKindWord::from(message.kind));
        if message.kind == MessageKind::System {
            self.from = None;
        }
        self.reply_to = message.reply_to.map(|seq| seq.0);
        self.mentions =
            (!message.mentions.is_empty()).then(|| message.mentions.iter().map(Uid::as_str).collect());
        self.to_reply = message.to_reply;
        let fate = view.fate.as_deref();
        if let Some(recalled) = fate.and_then(|fate| fate.recalled.as_ref()) {
            // P6: whatever the layer below handed over, a recalled message shows no payload.
            self.recalled = Some(RecalledOut {
                by: recalled.by.as_str(),
                seq_id: recalled.seq.0,
                time_create: recalled.time_ms,
            });
            return;
        }
        self.edited = fate.and_then(|fate| fate.edited).map(|seq| seq.0);
        if let Some(bytes) = view.entry.payload.bytes() {
            self.payload = Some(Shown::of(bytes, &message.content_type));
            self.content_type = Some(&*message.content_type).filter(|name| *name != JSON);
        }
    }

    /// What is not a message, in the words of the native interface.
    fn event(&mut self, view: &'a View) {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(EntryOut::new(view)) else { return };
        if let Some(Value::String(kind)) = fields.remove("type") {
            self.msg_type = Cow::Owned(kind);
        }
        for told in ["feed_id", "seq_id", "prev_seq_id", "ordinal", "time_ms", "sender"] {
            fields.remove(told);
        }
        self.payload = Some(Shown::Made(Value::Object(fields)));
    }
}

fn word<T: Serialize>(word: T) -> Cow<'static, str> {
    match serde_json::to_value(word) {
        Ok(Value::String(text)) => Cow::Owned(text),
        _ => Cow::Borrowed("custom"),
    }
}

/// The `MsgId` of what its sender gave none.
pub(super) fn derived_id(feed: &str, seq: SeqId) -> String {
    format!("{feed}:{seq}")
}

/// The place that such a `MsgId` of this feed names.
pub(super) fn derived_seq(feed: &str, id: &str) -> Option<SeqId> {
    let digits = id.strip_prefix(feed)?.strip_prefix(':')?;
    let seq = SeqId(digits.parse().ok()?);
    (seq > SeqId::ZERO && seq <= SeqId::MAX && digits == seq.to_string()).then_some(seq)
}

/// The body of a push on [`super::PUSH_TOPIC`]. `head` is the feed's head at this moment: it may be beyond the message
/// when pushes pile up, and a client that sees a gap pulls.
pub fn push(view: &View, head: SeqId) -> Vec<u8> {
    #[derive(Serialize)]
    struct Push<'a> {
        feeds: &'a str,
        last_seq_id: u64,
        message: MessageOut<'a>,
    }
    let message = MessageOut::new(view);
    let last_seq_id = head.max(view.entry.seq).0;
    serde_json::to_vec(&Push { feeds: message.feeds, last_seq_id, message })
        .expect("INVARIANT: text, numbers and JSON that was read before are JSON")
}

/// JSON of something of ours.
pub(super) fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    to_raw_value(value).expect("INVARIANT: our own answers have string keys and no numbers that JSON lacks")
}
