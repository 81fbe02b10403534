//! Rooms whose messages are to end [gws: ttl]: after so many seconds all that the room then holds expires. A row of the
//! front end's shelf for each, so that a restart forgets none.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use feedlog_core::ids::{FeedId, TimeMs};
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
    /// Not before this, because it was refused.
    not_before_ms: TimeMs,
}

fn key(room: &FeedId) -> Vec<u8> {
    [PREFIX, room.as_str().as_bytes()].concat()
}

fn encode(at_ms: TimeMs) -> Bytes {
    let mut row = vec![VERSION];
    row.extend_from_slice(&at_ms.to_be_bytes());
    row.into()
}

fn decode(key: &[u8], row: &[u8]) -> Option<(FeedId, TimeMs)> {
    let name = std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?;
    match row.split_first() {
        Some((&VERSION, at)) => Some((FeedId::parse(name).ok()?, TimeMs::from_be_bytes(at.try_into().ok()?))),
        _ => None,
    }
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
        self.shelf.put(vec![(key(&room), Some(encode(at_ms)))]).await?;
        self.due().insert(room, Due { at_ms, not_before_ms: 0 });
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
                let Some((room, at_ms)) = decode(&key, &row) else {
                    tracing::error!(front_end = "gws", "the time of a room could not be read");
                    continue;
                };
                self.due().entry(room).or_insert(Due { at_ms, not_before_ms: 0 });
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
            match store.expire_all(&room).await {
                Ok(_) => self.is_done(&room, due).await,
                Err(error) => {
                    tracing::warn!(front_end = "gws", %error, "the messages of a room could not be expired yet");
                    if matches!(error, SubmitError::Rejected(_) | SubmitError::Denied(_))
                        && let Some(due) = self.due().get_mut(&room)
                    {
                        due.not_before_ms = now_ms.saturating_add(AGAIN_MS);
                    }
                }
            }
        }
    }

    /// Forgets a time, unless another was set meanwhile.
    async fn is_done(&self, room: &FeedId, done: Due) {
        let _changing = self.changing.lock().await;
        if self.due().get(room).is_none_or(|due| due.at_ms != done.at_ms) {
            return;
        }
        match self.shelf.put(vec![(key(room), None)]).await {
            Ok(()) => drop(self.due().remove(room)),
            Err(error) => tracing::warn!(front_end = "gws", %error, "the time of a room is still noted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_others_are_no_rows() {
        let room = FeedId::parse("/room/a").unwrap();
        let (name, row) = (key(&room), encode(1_700_000_000_000));
        assert_eq!(decode(&name, &row), Some((room, 1_700_000_000_000)));
        assert_eq!(decode(b"tt", &row), None);
        assert_eq!(decode(&name, &row[..8]), None);
        assert_eq!(decode(&name, &[]), None);
        assert_eq!(decode(&name, &[2; 9]), None, "another version");
        assert_eq!(decode(b"ttl\0\xff", &row), None);
    }
}
