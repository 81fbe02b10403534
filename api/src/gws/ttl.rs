//! Rooms whose messages are to end [gws: ttl]: after so many seconds all that the room then holds expires. A row of the
//! front end's shelf for each, so that a restart forgets none. When the time has come the room's head is noted in the row
//! before anything expires: what comes later is not meant, however often it is tried.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use feedlog_core::ids::{FeedId, SeqId, TimeMs};
use feedlog_service::{Shelf, Store, SubmitError};

use crate::errors::{ApiError, Kind};

/// Rows that are read at once.
const PAGE: usize = 1_000;
/// After a refusal, e.g. under a legal hold, it is asked again so much later.
const AGAIN_MS: u64 = 60_000;
/// In front of the room's name.
const PREFIX: &[u8] = b"ttl\0";
const VERSION: u8 = 1;

/// The times that are set.
pub(super) struct Schedule {
    shelf: Shelf,
    rooms_max: usize,
    /// One change at a time: what is here and what is stored do not part.
    changing: tokio::sync::Mutex<()>,
    due: Mutex<BTreeMap<FeedId, Due>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    /// As stored.
    at_ms: TimeMs,
    /// As stored: the head when the time had come, 0 before.
    upto: SeqId,
    /// Not before this, because it was refused.
    not_before_ms: TimeMs,
}

impl Due {
    fn at(at_ms: TimeMs) -> Self {
        Self { at_ms, upto: SeqId::ZERO, not_before_ms: 0 }
    }
}

fn key(room: &FeedId) -> Vec<u8> {
    [PREFIX, room.as_str().as_bytes()].concat()
}

fn encode(due: Due) -> Bytes {
    let mut row = vec![VERSION];
    row.extend_from_slice(&due.at_ms.to_be_bytes());
    row.extend_from_slice(&due.upto.0.to_be_bytes());
    row.into()
}

fn decode(key: &[u8], row: &[u8]) -> Option<(FeedId, Due)> {
    let name = std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?;
    let (&VERSION, numbers) = row.split_first()? else { return None };
    let (at, upto) = numbers.split_first_chunk()?;
    let upto = SeqId(u64::from_be_bytes(upto.try_into().ok()?));
    Some((FeedId::parse(name).ok()?, Due { upto, ..Due::at(TimeMs::from_be_bytes(*at)) }))
}

impl Schedule {
    pub(super) fn new(store: &Store, rooms_max: usize) -> Self {
        let shelf = store.shelf("gws");
        Self { shelf, rooms_max, changing: tokio::sync::Mutex::default(), due: Mutex::default() }
    }

    fn due(&self) -> MutexGuard<'_, BTreeMap<FeedId, Due>> {
        // Nothing here panics half way through a change.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the time of a room, in place of an earlier one. **On `Ok` it is durable.**
    pub(super) async fn set(&self, room: FeedId, at_ms: TimeMs) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        {
            let due = self.due();
            if due.len() >= self.rooms_max && !due.contains_key(&room) {
                return Err(ApiError::new(Kind::Rejected, "too many rooms have a time already"));
            }
        }
        let due = Due::at(at_ms);
        self.shelf.put(vec![(key(&room), Some(encode(due)))]).await?;
        self.due().insert(room, due);
        Ok(())
    }

    /// Takes up what was set before the start.
    pub(super) async fn load(&self) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self.shelf.scan(PREFIX, after.as_deref(), PAGE).await?;
            let more = rows.len() == PAGE;
            after = rows.last().map(|(key, _)| key.clone());
            for (key, row) in rows {
                let Some((room, due)) = decode(&key, &row) else {
                    tracing::error!(front_end = "gws", "the time of a room could not be read");
                    continue;
                };
                self.due().entry(room).or_insert(due);
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Expires the messages of all rooms whose time has come. What fails is tried again later.
    pub(super) async fn run(&self, store: &Store) {
        let now_ms = store.now_ms();
        let has_come = |due: &Due| due.at_ms.max(due.not_before_ms) <= now_ms;
        let rooms: Vec<(FeedId, Due)> = self
            .due()
            .iter()
            .filter(|(_, due)| has_come(due))
            .map(|(room, due)| (room.clone(), *due))
            .collect();
        for (room, due) in rooms {
            match self.end(store, &room, due).await {
                Ok(()) => {}
                Err(SubmitError::Denied(_)) => {
                    // A feed of another kind took the name: it is not meant.
                    tracing::warn!(front_end = "gws", "the time of a room is forgotten: it is none any more");
                    let _ = self.change(&room, due, None).await;
                }
                Err(error) => {
                    tracing::warn!(front_end = "gws", %error, "the messages of a room could not be expired yet");
                    if matches!(error, SubmitError::Rejected(_))
                        && let Some(due) = self.due().get_mut(&room)
                    {
                        due.not_before_ms = now_ms.saturating_add(AGAIN_MS);
                    }
                }
            }
        }
    }

    async fn end(&self, store: &Store, room: &FeedId, mut due: Due) -> Result<(), SubmitError> {
        if due.upto == SeqId::ZERO {
            let upto = store.open_head(room).await?;
            let begun = Due { upto, ..due };
            if upto > SeqId::ZERO && !self.change(room, due, Some(begun)).await? {
                return Ok(());
            }
            due = begun;
        }
        store.expire_upto(room, due.upto).await?;
        self.change(room, due, None).await.map(drop)
    }

    /// Puts what is noted of a room in place of what was, or forgets it. `false` when another time was set meanwhile.
    async fn change(&self, room: &FeedId, was: Due, is: Option<Due>) -> Result<bool, SubmitError> {
        let _changing = self.changing.lock().await;
        if self.due().get(room).is_none_or(|due| (due.at_ms, due.upto) != (was.at_ms, was.upto)) {
            return Ok(false);
        }
        self.shelf.put(vec![(key(room), is.map(encode))]).await?;
        match is {
            Some(due) => drop(self.due().insert(room.clone(), due)),
            None => drop(self.due().remove(room)),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_others_are_no_rows() {
        let room = FeedId::parse("/room/a").unwrap();
        let due = Due { upto: SeqId(7), ..Due::at(1_700_000_000_000) };
        let (name, row) = (key(&room), encode(due));
        assert_eq!(decode(&name, &row), Some((room, due)));
        assert_eq!(decode(b"tt", &row), None);
        assert_eq!(decode(&name, &row[..16]), None);
        assert_eq!(decode(&name, &row[..8]), None);
        assert_eq!(decode(&name, &[]), None);
        assert_eq!(decode(&name, &[2; 17]), None, "another version");
        assert_eq!(decode(b"ttl\0\xff", &row), None);
    }
}
