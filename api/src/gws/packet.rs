//! Packets: what a frame is, and what clients are sent. No IO, and no bytes make it panic.
//!
//! Frames are read as the original reads them, with the decoder of Go's standard library [gws: classification]: keys match in
//! any case, of repeated keys the last one counts, `null` leaves a field as it is, unknown keys are passed over, and a known
//! field of another type makes the whole no packet.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use feedlog_core::ids::ClientMsgId;
use md5::{Digest as _, Md5};
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::http::wire::input::is_json_type;

/// The media type of stored packets.
pub(crate) const GOTAPI: &str = "application/vnd.gotapi+json";

/// The uuid of a packet without one, as the original acknowledges it.
const NONE: &str = "\"\"";

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// No packet, or one without type and command: handed on as it is.
    Raw,
    /// Type 2: stored, acknowledged, handed on.
    Data(Uuid<'a>),
    /// Type 1: a ping, or a command that asks for nothing.
    Swallowed,
    /// Any other type, or a command without one.
    Dropped,
}

/// The `uuid` of a packet, as the JSON text that it came as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Uuid<'a>(Option<&'a str>);

impl<'a> Uuid<'a> {
    /// The id under which the packet is known again. None for an empty, missing or unfit one: such packets are stored each
    /// time they come, and cannot be recalled by their uuid.
    pub(crate) fn id(self) -> Option<ClientMsgId> {
        let text = serde_json::from_str::<Cow<'a, str>>(self.0?).ok()?;
        ClientMsgId::parse(&text).ok()
    }

    /// As JSON text.
    pub(crate) fn json(self) -> &'a str {
        self.0.unwrap_or(NONE)
    }

    /// The same as a part of the packet that it was read from, so that it is not copied.
    pub(crate) fn within(self, packet: &Bytes) -> Bytes {
        match self.0 {
            Some(text) => packet.slice_ref(text.as_bytes()),
            None => Bytes::from_static(NONE.as_bytes()),
        }
    }
}

/// Says what a frame is.
pub(crate) fn classify(text: &str) -> Kind<'_> {
    // Most raw frames are no JSON objects, and need no further look.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Kind::Raw;
    }
    // Names of keys are read as bytes below, which lets control characters pass that are no JSON.
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Kind::Raw;
    }
    let (mut kind, mut command, mut uuid) = (0, 0, None);
    let is_packet = each_field(text, &mut |name, value| {
        if is_named(name, "type") {
            integer(value, &mut kind)
        } else if is_named(name, "command") {
            integer(value, &mut command)
        } else if is_named(name, "uuid") {
            string(value, &mut uuid)
        } else if is_named(name, "body") {
            each_field(value, &mut |name, value| {
                if is_named(name, "hash") {
                    string(value, &mut None)
                } else {
                    // `data` is any value.
                    !is_named(name, "sent") || matches!(value, "true" | "false" | "null")
                }
            })
        } else if is_named(name, "queryargs") {
            each_field(value, &mut |name, value| !is_named(name, "uuid") || string(value, &mut None))
        } else if is_named(name, "pullargs") {
            each_field(value, &mut |name, value| {
                let known = is_named(name, "offset") || is_named(name, "size");
                !known || integer(value, &mut 0)
            })
        } else {
            true
        }
    });
    match (kind, command) {
        _ if !is_packet => Kind::Raw,
        (0, 0) => Kind::Raw,
        (2, _) => Kind::Data(Uuid(uuid)),
        (1, _) => Kind::Swallowed,
        _ => Kind::Dropped,
    }
}

/// Reads a number as Go reads an `int`; `false` when it is none.
fn integer(value: &str, into: &mut i64) -> bool {
    match value.parse() {
        Ok(number) => *into = number,
        Err(_) => return value == "null",
    }
    true
}

/// Keeps the text of a string; `false` when it is none.
fn string<'a>(value: &'a str, into: &mut Option<&'a str>) -> bool {
    if value.starts_with('"') {
        *into = Some(value);
        return true;
    }
    value == "null"
}

/// Whether a key means a field, whose name is in lower case: in any case, and with the two other letters that Go folds to
/// `s` and `k`.
fn is_named(key: &[u8], field: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(field.as_bytes());
    }
    let Ok(key) = std::str::from_utf8(key) else { return false };
    let folded = key.chars().map(|letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    });
    folded.eq(field.chars())
}

/// Visits the fields of a JSON object until one does not fit; whether all did. `null` has none.
fn each_field<'a>(text: &'a str, visit: &mut dyn FnMut(&[u8], &'a str) -> bool) -> bool {
    struct Fields<'f, 'a>(&'f mut dyn FnMut(&[u8], &'a str) -> bool);

    impl<'a> Visitor<'a> for Fields<'_, 'a> {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_unit<E>(self) -> Result<bool, E> {
            Ok(true)
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<bool, A::Error> {
            let mut all = true;
            while let Some(key) = map.next_key_seed(Key)? {
                let value = map.next_value::<&'a RawValue>()?;
                all = all && (self.0)(&key, value.get());
            }
            Ok(all)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(text);
    match text.as_bytes().first() {
        Some(b'n') => text == "null",
        _ => deserializer.deserialize_map(Fields(visit)).unwrap_or(false),
    }
}

/// A key, also one that is no Unicode once its escapes are read.
struct Key;

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Cow<'a, [u8]>;

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Cow<'a, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_bytes<E>(self, key: &'a [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_vec()))
    }
}

/// The acknowledgement of a packet, as the original writes it [gws: ack]. `uuid` is JSON text.
pub(crate) fn ack(uuid: &str) -> String {
    format!(
        "{{\"uuid\":{uuid},\"body\":{{\"data\":null,\"sent\":false,\"hash\":\"\"}},\"type\":1,\"command\":1,\
         \"queryArgs\":{{\"uuid\":\"\"}},\"pullargs\":{{\"offset\":0,\"size\":0}}}}"
    )
}

/// Tells that a packet was recalled [gws: what to tell peers on cancel].
pub(crate) fn cancelled(uuid: &str) -> String {
    format!("{{\"uuid\":{},\"type\":1,\"command\":6}}", quoted(uuid))
}

/// Tells the same to applications that know `eventType` 7, which travels in the data as text.
pub(crate) fn rollback(uuid: &str, own_uuid: &str) -> String {
    let data = format!("{{\"eventType\":7,\"data\":{{\"uuid\":{}}}}}", quoted(uuid));
    data_packet(&quoted(&data), &hash(data.as_bytes()), own_uuid)
}

/// The packet for a message that another wire brought.
pub(crate) fn foreign(uuid: &str, payload: &[u8], content_type: &str) -> String {
    if let Some(json) = json_of(payload, content_type) {
        // A client hashes the text of a string, without its quotes.
        let text = serde_json::from_str::<Cow<'_, str>>(json.get());
        let hash = hash(text.as_deref().unwrap_or(json.get()).as_bytes());
        return data_packet(json.get(), &hash, uuid);
    }
    let text = match std::str::from_utf8(payload) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(STANDARD.encode(payload)),
    };
    data_packet(&quoted(&text), &hash(text.as_bytes()), uuid)
}

/// The payload as JSON text, when its sender says it is JSON; of a sender that says nothing, an object or an array is.
fn json_of<'a>(payload: &'a [u8], content_type: &str) -> Option<&'a RawValue> {
    let said = is_json_type(content_type);
    if !said && content_type != "application/octet-stream" {
        return None;
    }
    let json = serde_json::from_slice::<&RawValue>(payload).ok()?;
    (said || json.get().starts_with(['{', '['])).then_some(json)
}

/// `data` is JSON text. The keys are in the order in which clients write them.
fn data_packet(data: &str, hash: &str, uuid: &str) -> String {
    let uuid = quoted(uuid);
    format!("{{\"body\":{{\"sent\":false,\"data\":{data},\"hash\":\"{hash}\"}},\"type\":2,\"uuid\":{uuid}}}")
}

/// Text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("INVARIANT: a string can be written as JSON")
}

/// MD5 in hex: a habit of this protocol, and no proof of anything.
pub(crate) fn hash(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut hex = String::with_capacity(32);
    for byte in Md5::digest(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// For fuzzing: no bytes make the classification panic, and what is written about them is what it must be.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    for content_type in [GOTAPI, "application/octet-stream", "text/plain"] {
        let packet = foreign("a\"\\\u{7f}", bytes, content_type);
        let Kind::Data(uuid) = classify(&packet) else { panic!("a generated packet is one: {packet}") };
        assert_eq!(serde_json::from_str::<String>(uuid.json()).as_deref().ok(), Some("a\"\\\u{7f}"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Kind::Data(uuid) = classify(text) else { return };
    let ack = ack(uuid.json());
    assert_eq!(classify(&ack), Kind::Swallowed, "{ack}");
    serde_json::from_str::<IgnoredAny>(&ack).expect("an acknowledgement is JSON");
    if let Some(id) = uuid.id() {
        assert_eq!(classify(&cancelled(id.as_str())), Kind::Swallowed);
        assert!(matches!(classify(&rollback(id.as_str(), "x")), Kind::Data(_)));
    }
}
