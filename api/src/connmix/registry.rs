//! Which clients are connected and what they subscribe to: for counts and for what is sent to one of them. What they are
//! delivered does not come this way but from the log.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::socket::Inbox;

/// Client ids of one second: those of a server that was started later are greater as long as fewer clients a second
/// came to this one.
const IDS_PER_SECOND: u64 = 1 << 22;
/// 2020-01-01T00:00:00Z, in seconds: ids stay below 2^53 until the year 2088.
const EPOCH_S: u64 = 1_577_836_800;

type Seats<T> = HashMap<u64, Arc<Inbox<T>>>;

/// All clients of this process. Bounded by the doors, and by the channels that one connection may have.
pub(crate) struct Registry<T> {
    next: AtomicU64,
    clients: Mutex<Seats<T>>,
    channels: Mutex<HashMap<Arc<str>, Seats<T>>>,
}

/// A client's place in the registry, left with it.
pub(crate) struct Seat<T> {
    registry: Arc<Registry<T>>,
    pub(crate) id: u64,
    inbox: Arc<Inbox<T>>,
    channels: HashSet<Arc<str>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Registry<T> {
    /// Nobody is there. `now_ms` is the start of the process.
    pub(crate) fn new(now_ms: u64) -> Self {
        let first = (now_ms / 1000).saturating_sub(EPOCH_S).max(1) * IDS_PER_SECOND;
        Self { next: AtomicU64::new(first), clients: Mutex::default(), channels: Mutex::default() }
    }

    /// A client connected.
    pub(crate) fn enter(self: &Arc<Self>, inbox: Arc<Inbox<T>>) -> Seat<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.clients).insert(id, inbox.clone());
        Seat { registry: self.clone(), id, inbox, channels: HashSet::new() }
    }

    /// Tells a client something of so many bytes; `false` when it is gone or takes nothing.
    pub(crate) fn tell(&self, id: u64, told: T, bytes: usize) -> bool {
        let inbox = lock(&self.clients).get(&id).cloned();
        inbox.is_some_and(|inbox| inbox.tell(told, bytes))
    }

    /// How many connections that subscribe to the channel take what comes, and how many do not now.
    pub(crate) fn count(&self, channel: &str) -> (u64, u64) {
        let channels = lock(&self.channels);
        let Some(seats) = channels.get(channel) else { return (0, 0) };
        let failed = seats.values().filter(|inbox| !inbox.has_room()).count() as u64;
        (seats.len() as u64 - failed, failed)
    }
}

impl<T> Seat<T> {
    /// The client subscribes.
    pub(crate) fn subscribe(&mut self, channel: &Arc<str>) {
        if self.channels.insert(channel.clone()) {
            let mut channels = lock(&self.registry.channels);
            channels.entry(channel.clone()).or_default().insert(self.id, self.inbox.clone());
        }
    }

    /// The client does not any more.
    pub(crate) fn unsubscribe(&mut self, channel: &str) {
        if self.channels.remove(channel) {
            self.registry.forget(self.id, channel);
        }
    }

    /// The client subscribes to nothing any more.
    pub(crate) fn clear(&mut self) {
        for channel in std::mem::take(&mut self.channels) {
            self.registry.forget(self.id, &channel);
        }
    }
}

impl<T> Registry<T> {
    fn forget(&self, id: u64, channel: &str) {
        let mut channels = lock(&self.channels);
        if let Some(seats) = channels.get_mut(channel) {
            seats.remove(&id);
            if seats.is_empty() {
                channels.remove(channel);
            }
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        self.clear();
        lock(&self.registry.clients).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;

    #[test]
    fn clients_are_counted_by_channel_and_forgotten_when_they_go() {
        let registry = Arc::new(Registry::<()>::new(NOW_MS));
        let inboxes = [(); 2].map(|()| Arc::new(Inbox::new()));
        let [mut ann, mut bob] = inboxes.clone().map(|inbox| registry.enter(inbox));
        assert!(ann.id != bob.id && bob.id < 1 << 53);
        let (user, video): (Arc<str>, Arc<str>) = ("user:1".into(), "video:1".into());
        for _ in 0..2 {
            ann.subscribe(&user);
        }
        ann.subscribe(&video);
        bob.subscribe(&user);
        assert_eq!(
            (registry.count("user:1"), registry.count("video:1"), registry.count("x")),
            ((2, 0), (1, 0), (0, 0))
        );
        while inboxes[0].tell((), 0) {}
        assert_eq!(registry.count("user:1"), (1, 1), "one takes nothing now");
        assert!(!registry.tell(ann.id, (), 0) && registry.tell(bob.id, (), 0));
        ann.unsubscribe("user:1");
        ann.unsubscribe("user:1");
        assert_eq!(registry.count("user:1"), (1, 0));
        let id = bob.id;
        drop((ann, bob));
        assert_eq!((registry.count("user:1"), registry.count("video:1")), ((0, 0), (0, 0)));
        assert!(!registry.tell(id, (), 0), "gone");
        assert!(lock(&registry.channels).is_empty() && lock(&registry.clients).is_empty());
    }

    #[test]
    fn ids_of_a_later_start_are_greater() {
        let old = Arc::new(Registry::<()>::new(NOW_MS));
        let new = Arc::new(Registry::<()>::new(NOW_MS + 1000));
        let last = (0..1000).map(|_| old.enter(Arc::new(Inbox::new())).id).max();
        assert!(last < Some(new.enter(Arc::new(Inbox::new())).id));
    }
}
