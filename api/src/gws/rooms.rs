//! The rooms that have a connection in this process, and the way to those connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use feedlog_core::ids::FeedId;

use crate::socket::{Frame, Inbox};

/// Whether a text names a room: a path, short enough for a feed.
pub(super) fn is_room_name(name: &str) -> bool {
    name.starts_with('/') && FeedId::parse(name).is_ok()
}

type Way = Arc<Inbox<Frame>>;

/// Rooms with a connection. One that nobody is in any more is forgotten.
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<FeedId, Room>>,
    rooms_max: usize,
}

#[derive(Default)]
struct Room {
    next: u64,
    /// Without a way until the connection is open.
    seats: BTreeMap<u64, Option<Way>>,
}

/// A connection's place in its room, given back when this is dropped.
pub(crate) struct Seat {
    rooms: Arc<Rooms>,
    room: FeedId,
    number: u64,
}

impl Rooms {
    pub(super) fn new(rooms_max: usize) -> Self {
        Self { rooms: Mutex::default(), rooms_max }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<FeedId, Room>> {
        // Nothing here panics half way through a change.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in a room; `None` when there are too many rooms.
    pub(crate) fn enter(self: &Arc<Self>, room: &FeedId) -> Option<Seat> {
        let mut rooms = self.rooms();
        if rooms.len() >= self.rooms_max && !rooms.contains_key(room) {
            return None;
        }
        let entered = rooms.entry(room.clone()).or_default();
        let number = entered.next;
        entered.next += 1;
        entered.seats.insert(number, None);
        Some(Seat { rooms: self.clone(), room: room.clone(), number })
    }

    /// Their names, in order.
    pub(super) fn names(&self) -> Vec<FeedId> {
        let mut names: Vec<FeedId> = self.rooms().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Hands a frame to the connections of a room, but for one. Those that have no room for it miss it.
    pub(crate) fn tell(&self, room: &FeedId, except: Option<&Seat>, frame: &Frame) {
        let except = except.map(|seat| seat.number);
        let ways: Vec<Way> = match self.rooms().get(room) {
            Some(room) => {
                let others = room.seats.iter().filter(|(number, _)| Some(**number) != except);
                others.filter_map(|(_, way)| way.clone()).collect()
            }
            None => return,
        };
        let bytes = match frame {
            Frame::Text(text) => text.len(),
            Frame::Binary(bytes) => bytes.len(),
        };
        let missed = ways.iter().filter(|way| !way.tell(frame.clone(), bytes)).count();
        if missed > 0 {
            metrics::counter!("feedlog_gws_raw_missed_total").increment(missed as u64);
        }
    }
}

impl Seat {
    /// The connection is open: from now on it is told what is handed to the room.
    pub(super) fn open(&self, way: Way) {
        if let Some(room) = self.rooms.rooms().get_mut(&self.room)
            && let Some(seat) = room.seats.get_mut(&self.number)
        {
            *seat = Some(way);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut rooms = self.rooms.rooms();
        if let Some(room) = rooms.get_mut(&self.room) {
            room.seats.remove(&self.number);
            if room.seats.is_empty() {
                rooms.remove(&self.room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> FeedId {
        FeedId::parse(name).unwrap()
    }

    #[test]
    fn rooms_are_bounded_and_an_empty_one_goes() {
        let rooms = Arc::new(Rooms::new(2));
        let first = rooms.enter(&room("/b")).unwrap();
        let second = rooms.enter(&room("/a")).unwrap();
        assert!(rooms.enter(&room("/c")).is_none(), "one past the limit");
        let third = rooms.enter(&room("/a")).unwrap();
        assert_eq!(rooms.names(), [room("/a"), room("/b")]);
        drop(second);
        assert_eq!(rooms.names(), [room("/a"), room("/b")], "somebody is left");
        drop(third);
        assert_eq!(rooms.names(), [room("/b")]);
        assert!(rooms.enter(&room("/c")).is_some());
        drop(first);
        assert!(rooms.names().is_empty());
    }
}
