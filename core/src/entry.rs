//! Events that have their place.

use bytes::Bytes;

use crate::event::{Event, Message};
use crate::ids::{Digest, FeedId, Ordinal, SeqId, TimeMs, Uid};

/// Bytes of users that can be hidden, and destroyed while the event and its hash stay.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// There are none.
    None,
    /// As received; stored and handed on without re-encoding.
    Bytes(Bytes),
    /// Destroyed; only the hash is left.
    Stripped {
        /// BLAKE3 of the bytes that were here.
        hash: [u8; 32],
    },
}

impl Payload {
    /// These bytes, or nothing when there are none.
    pub fn if_any(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::None } else { Self::Bytes(bytes) }
    }

    /// How many bytes are here.
    pub fn size(&self) -> usize {
        self.bytes().map_or(0, Bytes::len)
    }

    /// The tombstone: the hash stands for the bytes.
    pub fn strip(&mut self, digest: Digest) {
        if let Self::Bytes(bytes) = self {
            *self = Self::Stripped { hash: digest(bytes) };
        }
    }

    /// The bytes, when they are still here.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::None | Self::Stripped { .. } => None,
        }
    }
}

/// Shows sizes only: bodies never reach logs (I-8).
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => write!(f, "None"),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Stripped { .. } => write!(f, "Stripped"),
        }
    }
}

/// One event at one place of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The feed.
    pub feed: FeedId,
    /// The place, from 1.
    pub seq: SeqId,
    /// Messages up to and including this entry.
    pub ordinal: Ordinal,
    /// The server's clock; never decreases within a feed.
    pub time_ms: TimeMs,
    /// Who caused it.
    pub sender: Uid,
    /// What happened.
    pub event: Event,
    /// The bytes beside it.
    pub payload: Payload,
}

impl Entry {
    /// Whether it is a message, so that its ordinal is its own.
    pub fn is_message(&self) -> bool {
        self.event.is_message()
    }

    /// Bytes of users beside the event: the payload, and what a front end has carried with a message.
    pub fn size(&self) -> usize {
        self.payload.size() + self.message().map_or(0, |message| message.carried.size())
    }

    /// Hides the payload, and what a front end has carried with it.
    pub fn hide(&mut self) {
        self.payload = Payload::None;
        if let Event::MessageSent(message) = &mut self.event {
            message.carried = Payload::None;
        }
    }

    /// Destroys the payload, and what a front end has carried with it; their hashes stay.
    pub fn strip(&mut self, digest: Digest) {
        self.payload.strip(digest);
        if let Event::MessageSent(message) = &mut self.event {
            message.carried.strip(digest);
        }
    }

    /// What travels round the payload, when it is a message.
    pub fn message(&self) -> Option<&Message> {
        match &self.event {
            Event::MessageSent(message) => Some(message),
            _ => None,
        }
    }
}

/// Where a feed ends. All zero for a feed that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// `seq_id` of the newest entry, 0 when there is none.
    pub seq: SeqId,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// Its time.
    pub time_ms: TimeMs,
}

impl Head {
    /// The head after this entry.
    pub fn of(entry: &Entry) -> Self {
        Self { seq: entry.seq, ordinal: entry.ordinal, time_ms: entry.time_ms }
    }
}
