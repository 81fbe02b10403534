//! Numbers for users and for entries, because this wire has no names.
//!
//! A uid that is a decimal number below 2^52 is that number. Every other uid gets a stored alias from 2^52 up (all
//! anonymous senders share the last one), and every entry that is shown a stored number of its own. Rows of the shelf `pb`; integers are big-endian u64, names have their
//! length (u16) before them:
//!
//! | key | value |
//! |---|---|
//! | `n` | the first entry number that is not reserved |
//! | `N` | the next alias |
//! | `u` uid | alias |
//! | `a` alias | uid |
//! | `c` feed_id, sender, client_msg_id | number of a message of this wire; written with it |
//! | `s` feed_id, seq_id | number of any other entry; written before it is shown for the first time |
//! | `i` number | `f`, feed_id, seq_id, ordinal, time_ms |
//!
//! A message's own key leads to its number and not the bytes that it carries, because those are hidden with its payload: the
//! recall of a message must name it by the number that its readers know.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use feedlog_core::command::Done;
use feedlog_core::event::Scope;
use feedlog_core::ids::{ClientMsgId, FeedId, SeqId, Uid};
use feedlog_service::views::View;
use feedlog_service::{Gate, ReadError, Shelf, ShelfValue, ShelfWrite, Store};
use tokio::sync::OnceCell;

use super::wire::NUMBERS_END;
use crate::errors::{ApiError, unavailable};

/// The shelf's name.
const SHELF: &str = "pb";
/// The first alias; every decimal uid below it is its own number.
const ALIASES: u64 = 1 << 52;
/// Whoever did not authenticate. Their names last as long as a connection: an alias for each would grow for ever.
const ANONYMOUS: u64 = NUMBERS_END - 1;
/// Entry numbers reserved with one write. A restart leaves at most so many unused.
const BLOCK: u64 = 4096;
/// Numbers remembered at most; when full, all that nobody waits for go.
const REMEMBERED_MAX: usize = 16_384;

/// Numbers for users and entries. One for each store, so that one number is not given twice; cheap to clone.
#[derive(Clone)]
pub struct Ids(Arc<Inner>);

struct Inner {
    shelf: Shelf,
    /// Held while an alias is given.
    aliases: tokio::sync::Mutex<()>,
    /// Entry numbers that are reserved and not given: the next, and the first beyond.
    reserved: tokio::sync::Mutex<(u64, u64)>,
    uids: Remembered<Uid, u64>,
    entries: Remembered<(FeedId, SeqId), u64>,
    pairs: Remembered<FeedId, (Uid, Uid)>,
}

/// Values that never change once they are known, each looked up once however many ask.
struct Remembered<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

impl<K: Hash + Eq, V> Remembered<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn cell(&self, key: K) -> Arc<OnceCell<V>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            // A cell somebody is filling stays, so that nobody fills a second one of the same key.
            known.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        known.entry(key).or_default().clone()
    }
}

impl Ids {
    /// The numbers of this store.
    pub fn new(store: &Store) -> Self {
        Self(Arc::new(Inner {
            shelf: store.shelf(SHELF),
            aliases: tokio::sync::Mutex::default(),
            reserved: tokio::sync::Mutex::default(),
            uids: Remembered::new(),
            entries: Remembered::new(),
            pairs: Remembered::new(),
        }))
    }

    /// The number of a user; a uid that had none gets one.
    pub async fn number_of(&self, uid: &Uid) -> Result<u64, ApiError> {
        if let Some(number) = decimal(uid) {
            return Ok(number);
        }
        if uid.is_anonymous() {
            return Ok(ANONYMOUS);
        }
        let cell = self.0.uids.cell(uid.clone());
        cell.get_or_try_init(|| self.alias(uid)).await.copied()
    }

    async fn alias(&self, uid: &Uid) -> Result<u64, ApiError> {
        let _alone = self.0.aliases.lock().await;
        let shelf = &self.0.shelf;
        let key = key(b'u', &[uid.as_str().as_bytes()]);
        if let Some(stored) = shelf.get(&key).await? {
            return read_u64(&stored);
        }
        let alias = shelf.get(b"N").await?.map_or(Ok(ALIASES), |stored| read_u64(&stored))?;
        if alias >= ANONYMOUS {
            return Err(unavailable("out of numbers"));
        }
        let name = Bytes::copy_from_slice(uid.as_str().as_bytes());
        let rows = vec![
            (key, Some(bytes(alias))),
            (by_number(b'a', alias), Some(name)),
            (b"N".into(), Some(bytes(alias + 1))),
        ];
        shelf.put(rows).await?;
        Ok(alias)
    }

    /// The user of a number, `None` when it is nobody's.
    pub async fn uid_of(&self, number: u64) -> Result<Option<Uid>, ApiError> {
        if number < ALIASES {
            return Ok(Uid::parse(&number.to_string()).ok());
        }
        let stored = self.0.shelf.get(&by_number(b'a', number)).await?;
        Ok(stored.and_then(|name| Uid::parse(std::str::from_utf8(&name).ok()?).ok()))
    }

    /// A number for a message that is to be, with the rows that lead there and back; they belong into the batch of its
    /// command, so that a message that is there has its number and a retry writes none.
    pub(super) async fn reserve(
        &self,
        feed: &FeedId,
        sender: &Uid,
        id: &ClientMsgId,
    ) -> Result<(u64, Vec<ShelfWrite>), ApiError> {
        let number = self.take().await?;
        let row = |key, value| ShelfWrite { front_end: SHELF, key, value };
        let rows = vec![
            row(own_key(feed, sender, id), ShelfValue::Bytes(bytes(number))),
            row(
                by_number(b'i', number),
                ShelfValue::Place(Bytes::from(key(b'f', &[feed.as_str().as_bytes()]))),
            ),
        ];
        Ok((number, rows))
    }

    /// The number of an entry that is shown; one that came without gets it before it is shown for the first time.
    pub async fn of_view(&self, view: &View) -> Result<u64, ApiError> {
        let entry = &view.entry;
        let own = entry
            .message()
            .filter(|message| message.scope == Scope::Sender)
            .and_then(|message| message.client_msg_id.as_ref())
            .map(|id| (&entry.sender, id));
        self.of_place(&entry.feed, [entry.seq.0, entry.ordinal.0, entry.time_ms], own).await
    }

    /// The number of a message that had been sent before under the same id.
    pub async fn of_retry(&self, done: &Done, sender: &Uid, id: &ClientMsgId) -> Result<u64, ApiError> {
        self.of_place(&done.feed, [done.seq.0, done.ordinal.0, done.time_ms], Some((sender, id))).await
    }

    async fn of_place(
        &self,
        feed: &FeedId,
        place: [u64; 3],
        own: Option<(&Uid, &ClientMsgId)>,
    ) -> Result<u64, ApiError> {
        let cell = self.0.entries.cell((feed.clone(), SeqId(place[0])));
        let number = cell.get_or_try_init(|| async {
            let shelf = &self.0.shelf;
            if let Some((sender, id)) = own
                && let Some(stored) = shelf.get(&own_key(feed, sender, id)).await?
            {
                return read_u64(&stored);
            }
            let feed = feed.as_str().as_bytes();
            let at = key(b's', &[feed, &place[0].to_be_bytes()]);
            if let Some(stored) = shelf.get(&at).await? {
                return read_u64(&stored);
            }
            let number = self.take().await?;
            let mut to = key(b'f', &[feed]);
            to.extend(place.iter().flat_map(|part| part.to_be_bytes()));
            shelf.put(vec![(at, Some(bytes(number))), (by_number(b'i', number), Some(to.into()))]).await?;
            Ok(number)
        });
        number.await.copied()
    }

    /// The place of an entry's number, `None` when no entry has it.
    pub async fn place_of(&self, number: u64) -> Result<Option<(FeedId, SeqId)>, ApiError> {
        let stored = self.0.shelf.get(&by_number(b'i', number)).await?;
        stored.map(|row| read_place(&row).ok_or_else(|| ReadError::Damaged.into())).transpose()
    }

    /// The two users of a direct feed, as somebody who may read it sees them.
    pub(super) async fn pair(&self, gate: &Gate, feed: &FeedId) -> Result<(Uid, Uid), ApiError> {
        let cell = self.0.pairs.cell(feed.clone());
        let pair = cell.get_or_try_init(|| async {
            let info = gate.feed(feed).await?;
            info.pair.ok_or_else(|| ApiError::from(ReadError::NotFound))
        });
        pair.await.cloned()
    }

    /// The next entry number; reserves a block when the last one is used up.
    async fn take(&self) -> Result<u64, ApiError> {
        let mut reserved = self.0.reserved.lock().await;
        if reserved.0 == reserved.1 {
            let begin = self.0.shelf.get(b"n").await?.map_or(Ok(1), |stored| read_u64(&stored))?;
            let end = begin.saturating_add(BLOCK);
            if end > NUMBERS_END {
                return Err(unavailable("out of numbers"));
            }
            self.0.shelf.put(vec![(b"n".into(), Some(bytes(end)))]).await?;
            *reserved = (begin, end);
        }
        let number = reserved.0;
        reserved.0 += 1;
        Ok(number)
    }
}

/// A uid that is the decimal spelling of a number below the aliases.
fn decimal(uid: &Uid) -> Option<u64> {
    let number = uid.as_str().parse::<u64>().ok()?;
    (number < ALIASES && number.to_string() == uid.as_str()).then_some(number)
}

/// A key of these parts, each with its length before it.
fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    for part in parts {
        // INVARIANT: names have at most 255 bytes, so a length fits in two.
        key.extend_from_slice(&(part.len() as u16).to_be_bytes());
        key.extend_from_slice(part);
    }
    key
}

fn by_number(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn own_key(feed: &FeedId, sender: &Uid, id: &ClientMsgId) -> Vec<u8> {
    key(b'c', &[feed.as_str().as_bytes(), sender.as_str().as_bytes(), id.as_str().as_bytes()])
}

fn bytes(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn read_u64(stored: &[u8]) -> Result<u64, ApiError> {
    stored.try_into().map(u64::from_be_bytes).map_err(|_| ReadError::Damaged.into())
}

fn read_place(row: &[u8]) -> Option<(FeedId, SeqId)> {
    let (length, rest) = row.strip_prefix(b"f")?.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let (seq, _) = rest.split_first_chunk::<8>()?;
    let feed = FeedId::parse(std::str::from_utf8(name).ok()?).ok()?;
    Some((feed, SeqId(u64::from_be_bytes(*seq))))
}
