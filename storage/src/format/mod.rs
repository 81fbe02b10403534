//! How an entry looks on disk. See `docs/FORMAT.md`.
//!
//! The value of an entry, little-endian, numbers as LEB128 unless said otherwise:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of the event: 1, or 2 when a front end has carried something with a message |
//! | 1 | flags: 1 = a payload follows, 2 = the payload was stripped |
//! | 4 | CRC-32 (IEEE) over the key and every other byte of the value |
//! | number | node |
//! | number | commit_no |
//! | number | ordinal |
//! | number | time_ms |
//! | number, text | sender |
//! | number, bytes | event, see `event_v1` |
//! | 32 | chain hash |
//! | 32 | payload hash, only when the payload was stripped; otherwise it is the hash of what follows |
//! | rest | payload as received |
//!
//! The payload hash is BLAKE3 of the payload. The chain hash is BLAKE3 over: for the first entry the feed_id (u16 BE
//! length, bytes); seq, ordinal, time_ms (u64 BE each); the sender (u16 BE length, bytes); the event (u32 BE length,
//! stored bytes, with a hash for what is carried as after an erasure); the payload hash; for later entries the chain hash of the entry before. It does not cover node and
//! commit_no, so that an export keeps its chain when it is imported elsewhere; nor the version, which the event's bytes imply.

mod bytes;
mod event_v1;
mod event_v2;
pub(crate) mod row_v1;

use std::borrow::Cow;
use std::ops::Range;

use ::bytes::Bytes;
use feedlog_core::entry::{Entry, Head, Payload};
use feedlog_core::event::Event;
use feedlog_core::ids::{FeedId, Ordinal, SeqId, Uid};

use self::bytes::{Reader, put_number};
use crate::keys;

/// The newest version that is written. An event is written in the oldest version that can hold it, from
/// [`EVENT_VERSION_OLDEST`] on: so entries imported from an older export keep their chain hashes, and nothing grows by
/// what it does not use.
pub const EVENT_VERSION: u8 = 2;

/// The oldest version that is written; those before it need upcasters.
pub const EVENT_VERSION_OLDEST: u8 = 1;

const HAS_PAYLOAD: u8 = 1;
const STRIPPED: u8 = 2;
const CRC_AT: Range<usize> = 2..6;

/// Stored bytes are not what was written, or were written by something newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the bytes end too early")]
    Short,
    /// The checksum does not fit the bytes.
    #[error("the checksum does not fit")]
    Checksum,
    /// No upcaster leads from this version to today's.
    #[error("version {0} of the stored event is not known")]
    Version(u8),
    /// A field holds what it never holds.
    #[error("the {0} is not valid")]
    Value(&'static str),
}

/// Turns the stored bytes of an event of one version into those of the next: pure, without loss of what readers see.
pub trait Upcast: Send + Sync + 'static {
    /// The version it reads.
    fn version(&self) -> u8;

    /// The bytes of version `version() + 1`.
    fn upcast(&self, event: &[u8]) -> Result<Vec<u8>, DecodeError>;
}

/// The upcasters of every older version; stored bytes are never rewritten.
#[derive(Default)]
pub struct Upcasters(Vec<Box<dyn Upcast>>);

impl Upcasters {
    /// The upcasters, in any order, one for each version.
    pub fn new(upcasters: Vec<Box<dyn Upcast>>) -> Self {
        Self(upcasters)
    }

    fn decode(&self, version: u8, event: &[u8]) -> Result<Event, DecodeError> {
        if version >= EVENT_VERSION_OLDEST {
            return decode_event(version, event);
        }
        let mut event = event.to_vec();
        for version in version..EVENT_VERSION_OLDEST {
            let step = self.0.iter().find(|step| step.version() == version);
            event = step.ok_or(DecodeError::Version(version))?.upcast(&event)?;
        }
        decode_event(EVENT_VERSION_OLDEST, &event)
    }
}

fn decode_event(version: u8, event: &[u8]) -> Result<Event, DecodeError> {
    match version {
        1 => event_v1::decode(event),
        2 => event_v2::decode(event),
        _ => Err(DecodeError::Version(version)),
    }
}

/// Appends the event, and gives the version.
fn encode_event(event: &Event, out: &mut Vec<u8>) -> u8 {
    if event_v2::is_needed(event) {
        event_v2::encode(event, out);
        return 2;
    }
    event_v1::encode(event, out);
    1
}

/// What the chain hash covers of a stored event: nothing that an erasure destroys.
fn lasting(version: u8, event: &[u8]) -> Cow<'_, [u8]> {
    let stripped = if version == 1 { None } else { event_v2::stripped(event) };
    stripped.map_or(Cow::Borrowed(event), Cow::Owned)
}

impl std::fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|step| step.version())).finish()
    }
}

/// The stored value of an entry, and its chain hash. `previous` is the chain hash of the entry before, not looked at
/// for the first.
pub(crate) fn encode_entry(
    key: &[u8; 16],
    entry: &Entry,
    node: u16,
    commit_no: u64,
    previous: &[u8; 32],
) -> (Vec<u8>, [u8; 32]) {
    let payload = entry.payload.bytes().map_or(&[][..], |bytes| bytes);
    let mut out = Vec::with_capacity(192 + payload.len());
    let flags = match entry.payload {
        Payload::None => 0,
        Payload::Bytes(_) => HAS_PAYLOAD,
        Payload::Stripped { .. } => STRIPPED,
    };
    out.extend_from_slice(&[0, flags, 0, 0, 0, 0]);
    for number in [u64::from(node), commit_no, entry.ordinal.0, entry.time_ms] {
        put_number(&mut out, number);
    }
    bytes::put_text(&mut out, entry.sender.as_str());
    let (version, event_at) = put_event(&mut out, &entry.event);
    out[0] = version;
    let payload_hash = match &entry.payload {
        Payload::None | Payload::Bytes(_) => crate::digest(payload),
        Payload::Stripped { hash } => *hash,
    };
    let chain_hash =
        Header::of(entry, &lasting(version, &out[event_at])).chain(&entry.feed, &payload_hash, previous);
    out.extend_from_slice(&chain_hash);
    if flags & STRIPPED != 0 {
        out.extend_from_slice(&payload_hash);
    }
    out.extend_from_slice(payload);
    seal(key, &mut out);
    (out, chain_hash)
}

/// The chain hash that an entry must have, computed from its content: proves an export without a store. `version` is
/// that of the stored event; `None` when this code cannot write it. `previous` is not looked at for the first entry.
pub fn chain_hash(
    entry: &Entry,
    version: u8,
    payload_hash: &[u8; 32],
    previous: &[u8; 32],
) -> Option<[u8; 32]> {
    let mut event = Vec::with_capacity(128);
    if encode_event(&entry.event, &mut event) != version {
        return None;
    }
    Some(Header::of(entry, &lasting(version, &event)).chain(&entry.feed, payload_hash, previous))
}

/// Appends length and bytes of the event; gives its version and where its bytes are. Most events are shorter than 128 bytes, whose length takes one byte.
fn put_event(out: &mut Vec<u8>, event: &Event) -> (u8, Range<usize>) {
    let length_at = out.len();
    out.push(0);
    let version = encode_event(event, out);
    let len = out.len() - length_at - 1;
    if len < 0x80 {
        out[length_at] = len as u8;
        return (version, length_at + 1..out.len());
    }
    let mut length = Vec::with_capacity(4);
    put_number(&mut length, len as u64);
    let start = length_at + length.len();
    out.splice(length_at..=length_at, length);
    (version, start..out.len())
}

fn seal(key: &[u8; 16], value: &mut [u8]) {
    let crc = checksum(key, value);
    value[CRC_AT].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&value[..CRC_AT.start]);
    hasher.update(&value[CRC_AT.end..]);
    hasher.finalize()
}

/// What the chain hash covers besides hashes.
struct Header<'a> {
    seq: SeqId,
    ordinal: Ordinal,
    time_ms: u64,
    sender: &'a str,
    event: &'a [u8],
}

impl<'a> Header<'a> {
    fn of(entry: &'a Entry, event: &'a [u8]) -> Self {
        Self {
            seq: entry.seq,
            ordinal: entry.ordinal,
            time_ms: entry.time_ms,
            sender: entry.sender.as_str(),
            event,
        }
    }

    fn chain(&self, feed: &FeedId, payload_hash: &[u8; 32], previous: &[u8; 32]) -> [u8; 32] {
        let text = |hasher: &mut blake3::Hasher, text: &str| {
            // INVARIANT: names have at most 255 bytes.
            hasher.update(&(text.len() as u16).to_be_bytes()).update(text.as_bytes());
        };
        let mut hasher = blake3::Hasher::new();
        if self.seq == SeqId(1) {
            text(&mut hasher, feed.as_str());
        }
        for number in [self.seq.0, self.ordinal.0, self.time_ms] {
            hasher.update(&number.to_be_bytes());
        }
        text(&mut hasher, self.sender);
        // INVARIANT: an event has far less than 4 GiB; its fields are bounded by the core's limits.
        hasher.update(&(self.event.len() as u32).to_be_bytes()).update(self.event);
        hasher.update(payload_hash);
        if self.seq != SeqId(1) {
            hasher.update(previous);
        }
        *hasher.finalize().as_bytes()
    }
}

/// A stored entry whose checksum was compared, its fields still in place.
pub(crate) struct Frame<'a> {
    pub(crate) version: u8,
    pub(crate) node: u16,
    pub(crate) commit_no: u64,
    pub(crate) seq: SeqId,
    pub(crate) ordinal: Ordinal,
    pub(crate) time_ms: u64,
    pub(crate) chain_hash: [u8; 32],
    sender: &'a str,
    /// Where the length of the event begins.
    event_at: usize,
    event: &'a [u8],
    flags: u8,
    stripped_hash: [u8; 32],
    /// Where the payload lies in the value.
    pub(crate) payload: Range<usize>,
    value: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Compares the checksum and finds the fields. Never panics.
    pub(crate) fn parse(key: &[u8], value: &'a [u8]) -> Result<Self, DecodeError> {
        let (_, seq) = keys::parse_entry(key).ok_or(DecodeError::Value("key"))?;
        let stored: [u8; 4] =
            value.get(CRC_AT).and_then(|bytes| bytes.try_into().ok()).ok_or(DecodeError::Short)?;
        if u32::from_le_bytes(stored) != checksum(key, value) {
            return Err(DecodeError::Checksum);
        }
        let (version, flags) = (value[0], value[1]);
        if version == 0 || version > EVENT_VERSION {
            return Err(DecodeError::Version(version));
        }
        if flags & !(HAS_PAYLOAD | STRIPPED) != 0 || flags == HAS_PAYLOAD | STRIPPED {
            return Err(DecodeError::Value("flags"));
        }
        let mut reader = Reader(&value[CRC_AT.end..]);
        let node = u16::try_from(reader.number()?).map_err(|_| DecodeError::Value("node"))?;
        let (commit_no, ordinal, time_ms) = (reader.number()?, Ordinal(reader.number()?), reader.number()?);
        let sender = reader.text()?;
        let event_at = value.len() - reader.0.len();
        let event_len = reader.len()?;
        let event = reader.bytes(event_len)?;
        let chain_hash = reader.array()?;
        let stripped_hash = if flags & STRIPPED != 0 { reader.array()? } else { [0; 32] };
        let payload = value.len() - reader.0.len()..value.len();
        if flags & HAS_PAYLOAD == 0 && !payload.is_empty() {
            return Err(DecodeError::Value("length"));
        }
        Ok(Self {
            version,
            node,
            commit_no,
            seq,
            ordinal,
            time_ms,
            chain_hash,
            sender,
            event_at,
            event,
            flags,
            stripped_hash,
            payload,
            value,
        })
    }

    /// The head if this is the newest entry.
    pub(crate) fn head(&self) -> Head {
        Head { seq: self.seq, ordinal: self.ordinal, time_ms: self.time_ms }
    }

    /// The entry; `slice` makes the payload's bytes of their place in the value. `last` saves making the name of the
    /// same sender again.
    pub(crate) fn entry(
        &self,
        feed: &FeedId,
        upcasters: &Upcasters,
        slice: impl FnOnce(Range<usize>) -> Bytes,
        last: Option<&Uid>,
    ) -> Result<Entry, DecodeError> {
        let sender = match last {
            Some(last) if last.as_str() == self.sender => last.clone(),
            _ => Uid::parse(self.sender).map_err(|_| DecodeError::Value("sender"))?,
        };
        let payload = match self.flags {
            0 => Payload::None,
            HAS_PAYLOAD => Payload::Bytes(slice(self.payload.clone())),
            _ => Payload::Stripped { hash: self.stripped_hash },
        };
        Ok(Entry {
            feed: feed.clone(),
            seq: self.seq,
            ordinal: self.ordinal,
            time_ms: self.time_ms,
            sender,
            event: upcasters.decode(self.version, self.event)?,
            payload,
        })
    }

    /// Bytes of users: as [`Entry::size`].
    pub(crate) fn size(&self) -> usize {
        let carried = if self.version == 1 { 0 } else { event_v2::carried_len(self.event) };
        self.payload.len() + carried
    }

    /// BLAKE3 of the payload as received.
    pub(crate) fn payload_hash(&self) -> [u8; 32] {
        if self.flags & STRIPPED != 0 {
            self.stripped_hash
        } else {
            crate::digest(&self.value[self.payload.clone()])
        }
    }

    /// The chain hash as it follows from the content, given that of the entry before; to compare with what is stored.
    pub(crate) fn chain_of(&self, feed: &FeedId, previous: &[u8; 32]) -> [u8; 32] {
        let header = Header {
            seq: self.seq,
            ordinal: self.ordinal,
            time_ms: self.time_ms,
            sender: self.sender,
            event: &lasting(self.version, self.event),
        };
        header.chain(feed, &self.payload_hash(), previous)
    }

    /// The same entry with a tombstone for its payload and for what is carried; `None` when there is nothing to strip.
    pub(crate) fn stripped(&self, key: &[u8; 16]) -> Option<Vec<u8>> {
        let event = lasting(self.version, self.event);
        if self.flags & HAS_PAYLOAD == 0 && matches!(event, Cow::Borrowed(_)) {
            return None;
        }
        let mut out = self.value[..self.event_at].to_vec();
        put_number(&mut out, event.len() as u64);
        out.extend_from_slice(&event);
        out.extend_from_slice(&self.chain_hash);
        if self.flags != 0 {
            out[1] = STRIPPED;
            out.extend_from_slice(&self.payload_hash());
        }
        seal(key, &mut out);
        Some(out)
    }
}

/// The value of a change row: how many feeds, then number, first seq and how many more for each.
pub(crate) fn encode_change(feeds: &[(u64, SeqId, SeqId)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + 8 * feeds.len());
    put_number(&mut out, feeds.len() as u64);
    for (number, first, last) in feeds {
        put_number(&mut out, *number);
        put_number(&mut out, first.0);
        put_number(&mut out, last.0 - first.0);
    }
    out
}

/// The inverse of [`encode_change`].
pub(crate) fn decode_change(value: &[u8]) -> Result<Vec<(u64, SeqId, SeqId)>, DecodeError> {
    let mut reader = Reader(value);
    let count = reader.number()?;
    let mut feeds = Vec::new();
    for _ in 0..count {
        let (number, first, more) = (reader.number()?, reader.number()?, reader.number()?);
        let last = first.checked_add(more).ok_or(DecodeError::Value("range"))?;
        feeds.push((number, SeqId(first), SeqId(last)));
    }
    reader.end()?;
    Ok(feeds)
}

/// The value of a feed's number.
pub(crate) fn encode_feed_number(number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(4);
    put_number(&mut out, number);
    out
}

/// The inverse of [`encode_feed_number`].
pub(crate) fn decode_feed_number(value: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader(value);
    let number = reader.number()?;
    reader.end()?;
    Ok(number)
}

/// The value of a feed's name.
pub(crate) fn decode_feed_name(value: &[u8]) -> Result<FeedId, DecodeError> {
    let text = std::str::from_utf8(value).map_err(|_| DecodeError::Value("name"))?;
    FeedId::parse(text).map_err(|_| DecodeError::Value("name"))
}

#[cfg(test)]
mod tests;
