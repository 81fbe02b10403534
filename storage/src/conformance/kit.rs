//! Entries and groups for tests, short to write.

use std::sync::Arc;

use bytes::Bytes;
use feedlog_core::entry::{Entry, Payload};
use feedlog_core::event::{Event, FeedKind, HistoryMode, JoinMode, Message, MessageKind, Scope};
use feedlog_core::ids::{FeedId, Ordinal, SeqId, Uid};
use feedlog_core::rows::{RowKey, RowValue};

use crate::{Group, LogPart, StateKey, StateTable};

/// A small, fast, repeatable source of numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// `true` in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A user.
pub fn uid(name: &str) -> Uid {
    Uid::parse(name).expect("a test's name is valid")
}

/// A feed.
pub(super) fn feed(name: &str) -> FeedId {
    FeedId::parse(name).expect("a test's name is valid")
}

/// A text message without anything special.
pub fn message() -> Message {
    Message {
        kind: MessageKind::Text,
        content_type: Arc::from("text/plain"),
        client_msg_id: None,
        scope: Scope::Sender,
        reply_to: None,
        mentions: Vec::new(),
        to_reply: None,
        seen_seq: SeqId::ZERO,
        sent_ms: None,
        expires_ms: None,
        auto: false,
        carried: Payload::None,
    }
}

/// An entry by alice at second `seq`.
pub fn entry(feed: &FeedId, seq: u64, ordinal: u64, event: Event, payload: Payload) -> Entry {
    Entry {
        feed: feed.clone(),
        seq: SeqId(seq),
        ordinal: Ordinal(ordinal),
        time_ms: 1_700_000_000_000 + seq * 1000,
        sender: uid("alice"),
        event,
        payload,
    }
}

/// The first entry of an open feed.
pub fn created(feed: &FeedId) -> Entry {
    let event = Event::FeedCreated {
        kind: FeedKind::Open,
        title: None,
        join: JoinMode::Open,
        history: HistoryMode::All,
        meta: None,
        pair: None,
    };
    entry(feed, 1, 0, event, Payload::None)
}

/// Message number `seq - 1` of a feed whose first entry is [`created`] and whose others are messages.
pub fn sent(feed: &FeedId, seq: u64, payload: &[u8]) -> Entry {
    let payload = Payload::Bytes(Bytes::copy_from_slice(payload));
    entry(feed, seq, seq - 1, Event::MessageSent(message()), payload)
}

/// As [`sent`], with something that a front end has carried.
pub fn carrying(feed: &FeedId, seq: u64, payload: &[u8], carried: &[u8]) -> Entry {
    let carried = Payload::Bytes(Bytes::copy_from_slice(carried));
    let event = Event::MessageSent(Message { carried, ..message() });
    Entry { event, ..sent(feed, seq, payload) }
}

/// A group of entries alone, expecting the head before the first.
pub fn group(entries: Vec<Entry>) -> Group {
    let first = entries.first().expect("a test's group has entries");
    let part = LogPart {
        feed: first.feed.clone(),
        expected: first.seq.prev(),
        entries,
        rows: Vec::new(),
        strip: Vec::new(),
    };
    Group { log: Some(part), state: Vec::new() }
}

/// A group of one entry with rows.
pub fn rows_group(entry: Entry, rows: Vec<(RowKey, Option<RowValue>)>) -> Group {
    let mut group = group(vec![entry]);
    if let Some(part) = &mut group.log {
        part.rows = rows;
    }
    group
}

/// A group of one state row.
pub fn state_group(key: &[u8], value: Option<&'static [u8]>) -> Group {
    let key = StateKey { table: StateTable::Checkpoint, key: key.to_vec() };
    Group { log: None, state: vec![(key, value.map(Bytes::from_static))] }
}
