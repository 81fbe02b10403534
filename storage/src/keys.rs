//! Every key of every table. Big-endian, so that byte order is the order of the numbers; names end with a zero byte,
//! which no name contains, so that byte order is also the order of names.
//!
//! Keys of [`Table::Entries`] and [`Table::Rows`] begin with the feed's number as eight bytes: all that belongs to one
//! feed lies together, and a prefix bloom filter answers for the feed.

use feedlog_core::ids::{FeedId, ReactionKey, SeqId, TimeMs, Uid};
use feedlog_core::rows::{DedupScope, RowKey};

use crate::kv::Table;
use crate::{RowRange, StateTable};

/// The kinds of keys in [`Table::Rows`] (after the feed number) and [`Table::Meta`] (first byte). Numbers are stored:
/// never change or reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Rows: nothing follows.
    Feed = 1,
    /// Rows: uid.
    Member = 2,
    /// Rows: uid.
    Request = 3,
    /// Rows: the first 16 bytes of BLAKE3 over scope and id.
    Dedup = 4,
    /// Rows: block.
    Counts = 5,
    /// Rows: uid, 0, block.
    UserCounts = 6,
    /// Rows: seq.
    Fate = 7,
    /// Rows: seq, key, 0, uid.
    Reaction = 8,
    /// Meta: uid, 0, feed_id.
    UserFeed = 9,
    /// Meta: uid, 0, feed_id.
    Place = 10,
    /// Meta: feed_id, 0, uid. By name and not by number, because another feed writes it.
    Receipt = 11,
    /// Meta: time u64, feed_id, 0, seq.
    Expiry = 12,
    /// Meta: feed_id → number.
    FeedNumber = 32,
    /// Meta: number u64 → feed_id.
    FeedName = 33,
    /// Meta: table u8, key.
    State = 34,
    /// Meta: node u16, commit_no u64 → what the commit added.
    Change = 35,
}

impl Kind {
    /// Every kind, for tests and for walking over tables.
    pub(crate) const ALL: [Self; 16] = [
        Self::Feed,
        Self::Member,
        Self::Request,
        Self::Dedup,
        Self::Counts,
        Self::UserCounts,
        Self::Fate,
        Self::Reaction,
        Self::UserFeed,
        Self::Place,
        Self::Receipt,
        Self::Expiry,
        Self::FeedNumber,
        Self::FeedName,
        Self::State,
        Self::Change,
    ];

    /// The kinds of derived rows that lie in [`Table::Meta`], a contiguous range of numbers.
    pub(crate) const META_ROWS: std::ops::RangeInclusive<u8> = Self::UserFeed as u8..=Self::Expiry as u8;

    /// The kind of this number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Above every key: none is longer than a kind, two names and two numbers, or begins like this.
pub(crate) const BEYOND_ALL: &[u8] = &[u8::MAX; 16];

/// A half-open range of keys of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) table: Table,
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

impl KeyRange {
    fn prefix(table: Table, prefix: Vec<u8>) -> Self {
        let to = successor_of_prefix(&prefix);
        Self { table, from: prefix, to }
    }
}

/// The first key after every key with this prefix. The prefix never consists of 0xff alone: feed numbers are counted
/// from 1 and kinds are small.
fn successor_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut to = prefix.to_vec();
    while let Some(last) = to.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return to;
        }
        to.pop();
    }
    vec![u8::MAX; 16]
}

/// Appends a number so that byte order is numeric order, small numbers being short: how many bytes, then these bytes.
fn push_ordered(key: &mut Vec<u8>, number: u64) {
    let bytes = number.to_be_bytes();
    let skip = number.leading_zeros() as usize / 8;
    key.push((8 - skip) as u8);
    key.extend_from_slice(&bytes[skip..]);
}

fn take_ordered(key: &mut &[u8]) -> Option<u64> {
    let (&len, rest) = key.split_first()?;
    let digits = rest.get(..usize::from(len)).filter(|digits| digits.len() <= 8)?;
    *key = &rest[digits.len()..];
    Some(digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn take_text<'a>(key: &mut &'a [u8]) -> Option<&'a str> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&key[..end]).ok()?;
    *key = &key[end + 1..];
    Some(text)
}

fn rest_text<'a>(key: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(std::mem::take(key)).ok()
}

fn in_feed(number: u64, kind: Kind, room: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + room);
    key.extend_from_slice(&number.to_be_bytes());
    key.push(kind as u8);
    key
}

fn named(kind: Kind, first: &str, room: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + first.len() + room);
    key.push(kind as u8);
    key.extend_from_slice(first.as_bytes());
    key.push(0);
    key
}

/// An entry.
pub(crate) fn entry_array(number: u64, seq: SeqId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&seq.0.to_be_bytes());
    key
}

/// The inverse of [`entry_array`].
pub(crate) fn parse_entry(key: &[u8]) -> Option<(u64, SeqId)> {
    let (number, seq) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), SeqId(u64::from_be_bytes(seq.try_into().ok()?))))
}

/// The number of a feed.
pub(crate) fn feed_number(feed: &FeedId) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + feed.as_str().len());
    key.push(Kind::FeedNumber as u8);
    key.extend_from_slice(feed.as_str().as_bytes());
    key
}

/// The name of a feed.
pub(crate) fn feed_name(number: u64) -> Vec<u8> {
    let mut key = vec![Kind::FeedName as u8];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The inverse of [`feed_name`].
pub(crate) fn parse_feed_name(key: &[u8]) -> Option<u64> {
    key.strip_prefix(&[Kind::FeedName as u8])?.try_into().ok().map(u64::from_be_bytes)
}

/// A state row.
pub(crate) fn state(table: StateTable, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + key.len());
    bytes.extend_from_slice(&[Kind::State as u8, table as u8]);
    bytes.extend_from_slice(key);
    bytes
}

/// State rows whose key begins with `prefix`.
pub(crate) fn states_of(table: StateTable, prefix: &[u8]) -> KeyRange {
    KeyRange::prefix(Table::Meta, state(table, prefix))
}

/// What a commit added.
pub(crate) fn change(node: u16, commit_no: u64) -> Vec<u8> {
    let mut key = vec![Kind::Change as u8];
    key.extend_from_slice(&node.to_be_bytes());
    key.extend_from_slice(&commit_no.to_be_bytes());
    key
}

/// The inverse of [`change`].
pub(crate) fn parse_change(key: &[u8]) -> Option<(u16, u64)> {
    let (node, commit_no) = key.strip_prefix(&[Kind::Change as u8])?.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*node), u64::from_be_bytes(commit_no.try_into().ok()?)))
}

/// All keys of one kind of [`Table::Meta`].
pub(crate) fn all_of(kind: Kind) -> KeyRange {
    KeyRange::prefix(Table::Meta, vec![kind as u8])
}

/// Bounds of all entries of a feed. Both begin with the feed's number, so that a prefix bloom filter may be asked.
pub(crate) fn entries_of(number: u64) -> ([u8; 16], [u8; 16]) {
    (entry_array(number, SeqId::ZERO), entry_array(number, SeqId(u64::MAX)))
}

/// The identity of a `client_msg_id` within its feed.
pub(crate) fn dedup_hash(scope: &DedupScope, id: &str) -> [u8; 16] {
    let (tag, name) = match scope {
        DedupScope::Sender(uid) => (1, uid.as_str()),
        DedupScope::Shared(name) => (2, &**name),
    };
    // A scope and an id have no control characters, so the zero between them keeps the pairs apart.
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[tag]).update(name.as_bytes()).update(&[0]).update(id.as_bytes());
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}

/// Whether the key needs the number of its feed.
pub(crate) fn feed_of(key: &RowKey) -> Option<&FeedId> {
    match key {
        RowKey::Feed(feed)
        | RowKey::Member(feed, _)
        | RowKey::Request(feed, _)
        | RowKey::Dedup(feed, _, _)
        | RowKey::Counts(feed, _)
        | RowKey::UserCounts(feed, _, _)
        | RowKey::Fate(feed, _)
        | RowKey::Reaction(feed, _, _, _) => Some(feed),
        RowKey::UserFeed(..) | RowKey::Place(..) | RowKey::Receipt(..) | RowKey::Expiry(..) => None,
    }
}

/// The key of a row; `number` is that of the feed of [`feed_of`], and not looked at when there is none.
pub(crate) fn row(key: &RowKey, number: u64) -> (Table, Vec<u8>) {
    let bytes = match key {
        RowKey::Feed(_) => in_feed(number, Kind::Feed, 0),
        RowKey::Member(_, uid) => with(in_feed(number, Kind::Member, uid.as_str().len()), uid.as_str()),
        RowKey::Request(_, uid) => with(in_feed(number, Kind::Request, uid.as_str().len()), uid.as_str()),
        RowKey::Dedup(_, scope, id) => {
            let mut bytes = in_feed(number, Kind::Dedup, 16);
            bytes.extend_from_slice(&dedup_hash(scope, id.as_str()));
            bytes
        }
        RowKey::Counts(_, block) => {
            let mut bytes = in_feed(number, Kind::Counts, 9);
            push_ordered(&mut bytes, *block);
            bytes
        }
        RowKey::UserCounts(_, uid, block) => {
            let mut bytes = user_counts_of(number, uid);
            push_ordered(&mut bytes, *block);
            bytes
        }
        RowKey::Fate(_, seq) => {
            let mut bytes = in_feed(number, Kind::Fate, 9);
            push_ordered(&mut bytes, seq.0);
            bytes
        }
        RowKey::Reaction(_, seq, key, uid) => {
            let mut bytes = in_feed(number, Kind::Reaction, 10 + key.as_str().len() + uid.as_str().len());
            push_ordered(&mut bytes, seq.0);
            bytes.extend_from_slice(key.as_str().as_bytes());
            bytes.push(0);
            with(bytes, uid.as_str())
        }
        RowKey::UserFeed(uid, feed) => {
            with(named(Kind::UserFeed, uid.as_str(), feed.as_str().len()), feed.as_str())
        }
        RowKey::Place(uid, feed) => {
            with(named(Kind::Place, uid.as_str(), feed.as_str().len()), feed.as_str())
        }
        RowKey::Receipt(feed, uid) => {
            with(named(Kind::Receipt, feed.as_str(), uid.as_str().len()), uid.as_str())
        }
        RowKey::Expiry(time, feed, seq) => {
            let mut bytes = Vec::with_capacity(19 + feed.as_str().len());
            bytes.push(Kind::Expiry as u8);
            bytes.extend_from_slice(&time.to_be_bytes());
            bytes.extend_from_slice(feed.as_str().as_bytes());
            bytes.push(0);
            push_ordered(&mut bytes, seq.0);
            bytes
        }
    };
    let table = if feed_of(key).is_some() { Table::Rows } else { Table::Meta };
    (table, bytes)
}

fn with(mut key: Vec<u8>, text: &str) -> Vec<u8> {
    key.extend_from_slice(text.as_bytes());
    key
}

fn user_counts_of(number: u64, uid: &Uid) -> Vec<u8> {
    let mut key = in_feed(number, Kind::UserCounts, 10 + uid.as_str().len());
    key.extend_from_slice(uid.as_str().as_bytes());
    key.push(0);
    key
}

/// The inverse of [`row`]; `None` when the bytes are no such key. A dedup row's scope and id are not in its key, so
/// dedup keys do not parse. `feed` names the feed of the number at the front of keys of [`Table::Rows`].
pub(crate) fn parse_row(table: Table, key: &[u8], feed: Option<&FeedId>) -> Option<RowKey> {
    let (kind, mut rest) = match table {
        Table::Rows => (*key.get(8)?, &key[9..]),
        Table::Meta => (*key.first()?, &key[1..]),
        Table::Entries => return None,
    };
    let rest = &mut rest;
    let uid = |text: &str| Uid::parse(text).ok();
    let own = || feed.cloned();
    let parsed = match Kind::of(kind)? {
        Kind::Feed => RowKey::Feed(own()?),
        Kind::Member => RowKey::Member(own()?, uid(rest_text(rest)?)?),
        Kind::Request => RowKey::Request(own()?, uid(rest_text(rest)?)?),
        Kind::Counts => RowKey::Counts(own()?, take_ordered(rest)?),
        Kind::UserCounts => {
            let user = uid(take_text(rest)?)?;
            RowKey::UserCounts(own()?, user, take_ordered(rest)?)
        }
        Kind::Fate => RowKey::Fate(own()?, SeqId(take_ordered(rest)?)),
        Kind::Reaction => {
            let seq = SeqId(take_ordered(rest)?);
            let key = ReactionKey::parse(take_text(rest)?).ok()?;
            RowKey::Reaction(own()?, seq, key, uid(rest_text(rest)?)?)
        }
        Kind::UserFeed => {
            let user = uid(take_text(rest)?)?;
            RowKey::UserFeed(user, FeedId::parse(rest_text(rest)?).ok()?)
        }
        Kind::Place => {
            let user = uid(take_text(rest)?)?;
            RowKey::Place(user, FeedId::parse(rest_text(rest)?).ok()?)
        }
        Kind::Receipt => {
            let feed = FeedId::parse(take_text(rest)?).ok()?;
            RowKey::Receipt(feed, uid(rest_text(rest)?)?)
        }
        Kind::Expiry => {
            let (time, mut after) = rest.split_first_chunk::<8>()?;
            let feed = FeedId::parse(take_text(&mut after)?).ok()?;
            let seq = SeqId(take_ordered(&mut after)?);
            *rest = after;
            RowKey::Expiry(TimeMs::from_be_bytes(*time), feed, seq)
        }
        Kind::Dedup | Kind::FeedNumber | Kind::FeedName | Kind::State | Kind::Change => return None,
    };
    rest.is_empty().then_some(parsed)
}

/// The feed whose number a range needs.
pub(crate) fn feed_of_range(range: &RowRange) -> Option<&FeedId> {
    match range {
        RowRange::Members(feed)
        | RowRange::Requests(feed)
        | RowRange::Counts(feed, _, _)
        | RowRange::UserCounts(feed, _, _, _)
        | RowRange::AllUserCounts(feed)
        | RowRange::Fates(feed, _, _)
        | RowRange::Reactions(feed, _) => Some(feed),
        RowRange::Expiries(_) | RowRange::UserFeeds(_) | RowRange::Places(_) | RowRange::Receipts(_) => None,
    }
}

/// The keys of a range of rows; `number` is that of the feed of [`feed_of_range`].
pub(crate) fn row_range(range: &RowRange, number: u64) -> KeyRange {
    let between = |prefix: Vec<u8>, from: u64, to: u64| {
        let (mut low, mut high) = (prefix.clone(), prefix);
        push_ordered(&mut low, from);
        push_ordered(&mut high, to);
        // No key continues after its number, so a zero byte more is the first key beyond.
        high.push(0);
        KeyRange { table: Table::Rows, from: low, to: high }
    };
    match range {
        RowRange::Members(_) => KeyRange::prefix(Table::Rows, in_feed(number, Kind::Member, 0)),
        RowRange::Requests(_) => KeyRange::prefix(Table::Rows, in_feed(number, Kind::Request, 0)),
        RowRange::Counts(_, from, to) => between(in_feed(number, Kind::Counts, 10), *from, *to),
        RowRange::UserCounts(_, uid, from, to) => between(user_counts_of(number, uid), *from, *to),
        RowRange::AllUserCounts(_) => KeyRange::prefix(Table::Rows, in_feed(number, Kind::UserCounts, 0)),
        RowRange::Fates(_, from, to) => between(in_feed(number, Kind::Fate, 10), from.0, to.0),
        RowRange::Reactions(_, seq) => {
            let mut prefix = in_feed(number, Kind::Reaction, 9);
            push_ordered(&mut prefix, seq.0);
            KeyRange::prefix(Table::Rows, prefix)
        }
        RowRange::UserFeeds(uid) => KeyRange::prefix(Table::Meta, named(Kind::UserFeed, uid.as_str(), 0)),
        RowRange::Places(uid) => KeyRange::prefix(Table::Meta, named(Kind::Place, uid.as_str(), 0)),
        RowRange::Receipts(feed) => KeyRange::prefix(Table::Meta, named(Kind::Receipt, feed.as_str(), 0)),
        RowRange::Expiries(upto) => {
            let from = vec![Kind::Expiry as u8];
            let mut to = from.clone();
            to.extend_from_slice(&upto.to_be_bytes());
            KeyRange { table: Table::Meta, from, to: successor_of_prefix(&to) }
        }
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
