//! Exports: feeds as lines of JSON with what proves them, verbatim enough to make the same entries again elsewhere.
//!
//! A file is: one `feedlog_export` line; for each feed, by name, its `entry` lines in order and one `feed` line with
//! its counts, head and chain hash; one `manifest` line with the totals and a digest over all `feed` lines. A file
//! without its last line was cut off. `docs/FORMAT.md` describes every field.

mod check;
mod event_json;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use feedlog_core::entry::{Entry, Payload};
use feedlog_core::event::Event;
use feedlog_core::ids::{FeedId, Ordinal, SeqId, TimeMs, Uid};
use feedlog_storage::Record;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use check::{BadLine, Checker, Proven};
pub use event_json::BadEvent;
use event_json::EventJson;

/// The version of the file format that is written. Readers refuse others.
pub const EXPORT_VERSION: u32 = 1;
/// Longest line that is read: the largest payload in base64 with room for the rest.
pub const LINE_BYTES_MAX: usize = feedlog_core::limits::PAYLOAD_BYTES_MAX / 3 * 4 + (1 << 20);

/// Why a line of an export is not what it must be. The text names the field or the rule, never a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadExport(pub String);

impl From<BadEvent> for BadExport {
    fn from(err: BadEvent) -> Self {
        Self(err.to_string())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine {
    r#type: String,
    version: u32,
    created_ms: TimeMs,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine<'a> {
    r#type: &'a str,
    feed_id: String,
    seq_id: u64,
    ordinal: u64,
    time_ms: TimeMs,
    sender: String,
    format: u8,
    event: EventJson,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    payload_stripped: bool,
    payload_hash: String,
    chain_hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedLine {
    r#type: String,
    feed_id: String,
    head_seq_id: u64,
    ordinal: u64,
    entries: u64,
    messages: u64,
    chain_hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestLine {
    r#type: String,
    feeds: u64,
    entries: u64,
    messages: u64,
    feeds_digest: String,
}

/// What the manifest says of one feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeedSum {
    /// The feed.
    pub feed_id: String,
    /// Its newest entry.
    pub head_seq_id: u64,
    /// Messages up to the head.
    pub ordinal: u64,
    /// Entries in the file.
    pub entries: u64,
    /// Messages among them.
    pub messages: u64,
    /// The chain hash of the newest entry, hexadecimal; it covers every entry before.
    pub chain_hash: String,
}

/// Totals of an export.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Feeds.
    pub feeds: u64,
    /// Entries.
    pub entries: u64,
    /// Messages among them.
    pub messages: u64,
    /// BLAKE3 over the feed lines, hexadecimal.
    pub feeds_digest: String,
}

/// Hexadecimal, lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex(field: &'static str, text: &str) -> Result<[u8; 32], BadExport> {
    let bad = || BadExport(format!("{field}: expected 64 hexadecimal digits"));
    let mut out = [0_u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(bad());
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).map_err(|_| bad())?;
    }
    Ok(out)
}

fn to_json<T: Serialize>(line: &T) -> String {
    // Keys are strings and values are plain data, so serde_json has nothing to refuse.
    serde_json::to_string(line).expect("lines are plain data")
}

/// Makes the lines of an export, in order: [`Writer::header`], then per feed its entries and [`Writer::end_feed`],
/// then [`Writer::manifest`]. Lines come without their line feed.
#[derive(Debug, Default)]
pub struct Writer {
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    feed: Option<FeedSum>,
    totals: Totals,
    digest: Option<Box<blake3::Hasher>>,
}

impl Tally {
    fn entry(&mut self, feed: &FeedId, seq: SeqId, ordinal: Ordinal, is_message: bool, chain: &[u8; 32]) {
        let sum = self.feed.get_or_insert_with(|| FeedSum {
            feed_id: feed.to_string(),
            head_seq_id: 0,
            ordinal: 0,
            entries: 0,
            messages: 0,
            chain_hash: String::new(),
        });
        sum.head_seq_id = seq.0;
        sum.ordinal = ordinal.0;
        sum.entries += 1;
        sum.messages += u64::from(is_message);
        sum.chain_hash = hex(chain);
    }

    fn end_feed(&mut self) -> Option<(FeedSum, String)> {
        let sum = self.feed.take()?;
        self.totals.feeds += 1;
        self.totals.entries += sum.entries;
        self.totals.messages += sum.messages;
        let line = to_json(&FeedLine {
            r#type: "feed".to_owned(),
            feed_id: sum.feed_id.clone(),
            head_seq_id: sum.head_seq_id,
            ordinal: sum.ordinal,
            entries: sum.entries,
            messages: sum.messages,
            chain_hash: sum.chain_hash.clone(),
        });
        self.digest.get_or_insert_default().update(line.as_bytes()).update(b"\n");
        Some((sum, line))
    }

    fn totals(&mut self) -> Totals {
        let digest = self.digest.get_or_insert_default().finalize();
        Totals { feeds_digest: hex(digest.as_bytes()), ..self.totals.clone() }
    }
}

impl Writer {
    /// The first line.
    pub fn header(&self, now_ms: TimeMs) -> String {
        to_json(&HeaderLine {
            r#type: "feedlog_export".to_owned(),
            version: EXPORT_VERSION,
            created_ms: now_ms,
        })
    }

    /// The line of an entry.
    pub fn entry(&mut self, record: &Record) -> String {
        let entry = &record.entry;
        self.tally.entry(&entry.feed, entry.seq, entry.ordinal, entry.event.is_message(), &record.chain_hash);
        let json = entry.payload.bytes().and_then(|bytes| verbatim_json(bytes));
        let payload_base64 = match (&entry.payload, json) {
            (Payload::Bytes(bytes), None) => Some(STANDARD.encode(bytes)),
            _ => None,
        };
        to_json(&EntryLine {
            r#type: "entry",
            feed_id: entry.feed.to_string(),
            seq_id: entry.seq.0,
            ordinal: entry.ordinal.0,
            time_ms: entry.time_ms,
            sender: entry.sender.to_string(),
            format: record.version,
            event: EventJson::from(&entry.event),
            payload: json,
            payload_base64,
            payload_stripped: matches!(entry.payload, Payload::Stripped { .. }),
            payload_hash: hex(&record.payload_hash),
            chain_hash: hex(&record.chain_hash),
        })
    }

    /// The line that ends a feed; `None` when the feed had no entry.
    pub fn end_feed(&mut self) -> Option<String> {
        self.tally.end_feed().map(|(_, line)| line)
    }

    /// The last line.
    pub fn manifest(&mut self) -> String {
        let totals = self.tally.totals();
        to_json(&ManifestLine {
            r#type: "manifest".to_owned(),
            feeds: totals.feeds,
            entries: totals.entries,
            messages: totals.messages,
            feeds_digest: totals.feeds_digest,
        })
    }

    /// What was written so far.
    pub fn totals(&mut self) -> Totals {
        self.tally.totals()
    }
}

/// The bytes as JSON that a line can carry unchanged: one value, nothing round it, no line break inside.
fn verbatim_json(bytes: &Bytes) -> Option<&RawValue> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.contains(['\n', '\r']) {
        return None;
    }
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    // `null` would come back as an absent payload.
    (raw.get() == text && text != "null").then_some(raw)
}

/// A line of an export, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The first line.
    Header,
    /// An entry with what proves it; `node` and `commit_no` are those of no store: 0.
    Entry(Box<Record>),
    /// The end of a feed, with what the file says of it.
    Feed(FeedSum),
    /// The last line.
    Manifest(Totals),
}

/// Parses one line (without its line feed). Checks names, numbers and the payload's hash, not the order of lines.
///
/// # Errors
/// When a field is missing, unknown or of the wrong type, or the payload does not have its hash.
pub fn parse_line(line: &str) -> Result<Line, BadExport> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow)]
        r#type: std::borrow::Cow<'a, str>,
    }
    // serde_json names the column; its messages repeat field names and types, not values of payloads.
    let json = |err: serde_json::Error| BadExport(format!("column {}: {}", err.column(), kind_of(&err)));
    let peek: Peek<'_> = serde_json::from_str(line).map_err(json)?;
    match peek.r#type.as_ref() {
        "feedlog_export" => {
            let header: HeaderLine = serde_json::from_str(line).map_err(json)?;
            if header.version != EXPORT_VERSION {
                return Err(BadExport(format!(
                    "version {}: this program reads version {EXPORT_VERSION}",
                    header.version
                )));
            }
            Ok(Line::Header)
        }
        "entry" => parse_entry(serde_json::from_str(line).map_err(json)?),
        "feed" => {
            let line: FeedLine = serde_json::from_str(line).map_err(json)?;
            Ok(Line::Feed(FeedSum {
                feed_id: line.feed_id,
                head_seq_id: line.head_seq_id,
                ordinal: line.ordinal,
                entries: line.entries,
                messages: line.messages,
                chain_hash: line.chain_hash,
            }))
        }
        "manifest" => {
            let line: ManifestLine = serde_json::from_str(line).map_err(json)?;
            Ok(Line::Manifest(Totals {
                feeds: line.feeds,
                entries: line.entries,
                messages: line.messages,
                feeds_digest: line.feeds_digest,
            }))
        }
        _ => Err(BadExport("type: expected feedlog_export, entry, feed or manifest".to_owned())),
    }
}

fn kind_of(err: &serde_json::Error) -> &'static str {
    match err.classify() {
        serde_json::error::Category::Data => "a field is missing, unknown or of the wrong type",
        serde_json::error::Category::Eof => "the line ends early",
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "not JSON",
    }
}

fn parse_entry(line: EntryLine<'_>) -> Result<Line, BadExport> {
    let named = |field: &str, err: feedlog_core::ids::NameError| BadExport(format!("{field}: {err}"));
    let payload_hash = unhex("payload_hash", &line.payload_hash)?;
    let payload = match (line.payload, line.payload_base64, line.payload_stripped) {
        (None, None, false) => Payload::None,
        (None, None, true) => Payload::Stripped { hash: payload_hash },
        (Some(raw), None, false) => Payload::Bytes(Bytes::copy_from_slice(raw.get().as_bytes())),
        (None, Some(text), false) => Payload::Bytes(
            STANDARD.decode(text).map_err(|_| BadExport("payload_base64: not base64".to_owned()))?.into(),
        ),
        _ => return Err(BadExport("payload: given twice".to_owned())),
    };
    let expected = match &payload {
        Payload::None => feedlog_storage::digest(&[]),
        Payload::Bytes(bytes) => feedlog_storage::digest(bytes),
        Payload::Stripped { hash } => *hash,
    };
    if expected != payload_hash {
        return Err(BadExport("payload_hash: is not the hash of this payload".to_owned()));
    }
    Ok(Line::Entry(Box::new(Record {
        entry: Entry {
            feed: FeedId::parse(&line.feed_id).map_err(|err| named("feed_id", err))?,
            seq: SeqId(line.seq_id),
            ordinal: Ordinal(line.ordinal),
            time_ms: line.time_ms,
            sender: Uid::parse(&line.sender).map_err(|err| named("sender", err))?,
            event: Event::try_from(line.event)?,
            payload,
        },
        version: line.format,
        payload_hash,
        chain_hash: unhex("chain_hash", &line.chain_hash)?,
        node: 0,
        commit_no: 0,
    })))
}

#[cfg(test)]
mod tests;
