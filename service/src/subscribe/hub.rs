//! Who follows which feed. Fed only from `Committed`, by the shard of the feed, in the order of the feed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use feedlog_core::entry::Entry;
use feedlog_core::ids::{FeedId, SeqId, Uid};
use tokio::sync::Notify;

use crate::metrics as names;

const STRIPES: usize = 64;
/// Payload bytes that may wait for one attachment, unless one entry alone is larger.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Feeds that one user may join while one attachment does not look; beyond, it lists the user's feeds again.
const JOINED_MAX: usize = 256;

/// All followers of all feeds.
pub(crate) struct Hub {
    feeds: Vec<Mutex<HashMap<FeedId, Topic>>>,
    users: Vec<Mutex<HashMap<Uid, Vec<Arc<Queue>>>>>,
    queues: Mutex<HashMap<usize, Weak<Queue>>>,
    // Followers and attached users; while there are none, publishing costs one load.
    listeners: AtomicUsize,
    next_queue: AtomicUsize,
    closed: std::sync::atomic::AtomicBool,
}

struct Topic {
    head: Arc<AtomicU64>,
    followers: Vec<Follower>,
}

struct Follower {
    queue: Arc<Queue>,
    slot: u64,
}

/// What waits for one attachment. Bounded: what does not fit is read from the log later.
pub(crate) struct Queue {
    id: usize,
    max: usize,
    waiting: Mutex<Waiting>,
    pub(crate) bell: Notify,
}

/// See [`Queue`].
#[derive(Default)]
pub(crate) struct Waiting {
    /// Live entries with the slot of their feed, in order per feed.
    pub(crate) entries: VecDeque<(u64, Arc<Entry>)>,
    bytes: usize,
    /// Feeds of which entries did not fit.
    pub(crate) behind: HashSet<u64>,
    /// Feeds that are new for the user, with the place after which.
    pub(crate) joined: Vec<(FeedId, SeqId)>,
    /// More feeds are new than could be noted.
    pub(crate) rescan: bool,
    /// Nothing follows.
    pub(crate) closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stripe<T: Hash + ?Sized>(of: &T) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(of);
    (hash % STRIPES as u64) as usize
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            feeds: (0..STRIPES).map(|_| Mutex::default()).collect(),
            users: (0..STRIPES).map(|_| Mutex::default()).collect(),
            queues: Mutex::default(),
            listeners: AtomicUsize::new(0),
            next_queue: AtomicUsize::new(0),
            closed: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// A queue for one attachment with room for `max` entries.
    pub(crate) fn queue(&self, max: usize) -> Arc<Queue> {
        let id = self.next_queue.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(Queue { id, max, waiting: Mutex::default(), bell: Notify::new() });
        let mut queues = lock(&self.queues);
        queues.insert(id, Arc::downgrade(&queue));
        metrics::gauge!(names::PUSH_ATTACHMENTS).set(queues.len() as f64);
        // Checked under the lock that `close` takes, so that no queue is forgotten.
        if self.closed.load(Ordering::SeqCst) {
            lock(&queue.waiting).closed = true;
        }
        queue
    }

    /// Forgets a queue that follows nothing any more.
    pub(crate) fn drop_queue(&self, queue: &Queue) {
        let mut queues = lock(&self.queues);
        queues.remove(&queue.id);
        metrics::gauge!(names::PUSH_ATTACHMENTS).set(queues.len() as f64);
    }

    /// Attachments and held reads now.
    pub(crate) fn queue_count(&self) -> usize {
        lock(&self.queues).len()
    }

    /// Ends every attachment, also those to come.
    pub(crate) fn close(&self) {
        let queues = lock(&self.queues);
        self.closed.store(true, Ordering::SeqCst);
        for queue in queues.values().filter_map(Weak::upgrade) {
            lock(&queue.waiting).closed = true;
            queue.bell.notify_one();
        }
    }

    /// From now on entries of the feed go to the queue, under this slot. The number returned is at least the newest
    /// published place. Read the head **after** this: then nothing can fall between.
    pub(crate) fn follow(&self, feed: &FeedId, queue: &Arc<Queue>, slot: u64) -> Arc<AtomicU64> {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        let mut feeds = lock(&self.feeds[stripe(feed.as_str())]);
        let topic = feeds
            .entry(feed.clone())
            .or_insert_with(|| Topic { head: Arc::new(AtomicU64::new(0)), followers: Vec::new() });
        topic.followers.push(Follower { queue: queue.clone(), slot });
        topic.head.clone()
    }

    pub(crate) fn unfollow(&self, feed: &FeedId, queue: &Queue, slot: u64) {
        let mut feeds = lock(&self.feeds[stripe(feed.as_str())]);
        let Some(topic) = feeds.get_mut(feed) else { return };
        let before = topic.followers.len();
        topic.followers.retain(|follower| follower.queue.id != queue.id || follower.slot != slot);
        self.listeners.fetch_sub(before - topic.followers.len(), Ordering::SeqCst);
        if topic.followers.is_empty() {
            feeds.remove(feed);
        }
    }

    /// From now on the queue learns of feeds that are new for the user.
    pub(crate) fn follow_user(&self, uid: &Uid, queue: &Arc<Queue>) {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        lock(&self.users[stripe(uid.as_str())]).entry(uid.clone()).or_default().push(queue.clone());
    }

    pub(crate) fn unfollow_user(&self, uid: &Uid, queue: &Queue) {
        let mut users = lock(&self.users[stripe(uid.as_str())]);
        let Some(queues) = users.get_mut(uid) else { return };
        let before = queues.len();
        queues.retain(|other| other.id != queue.id);
        self.listeners.fetch_sub(before - queues.len(), Ordering::SeqCst);
        if queues.is_empty() {
            users.remove(uid);
        }
    }

    /// Entries that are durable now, and the users for whom the feed is new with the place before these entries.
    pub(crate) fn publish(&self, feed: &FeedId, entries: Vec<Entry>, joined: Vec<(Uid, SeqId)>) {
        // `follow` counts before it reads the head, so whoever is not counted yet reads these entries from the log.
        if self.listeners.load(Ordering::SeqCst) == 0 || entries.is_empty() {
            return;
        }
        let span = tracing::debug_span!("push", feed_id = feed.as_str());
        let _in_span = span.enter();
        for (uid, after) in joined {
            if let Some(queues) = lock(&self.users[stripe(uid.as_str())]).get(&uid) {
                queues.iter().for_each(|queue| queue.joined(feed, after));
            }
        }
        let feeds = lock(&self.feeds[stripe(feed.as_str())]);
        let Some(topic) = feeds.get(feed) else { return };
        if let Some(last) = entries.last() {
            topic.head.store(last.seq.0, Ordering::SeqCst);
        }
        let entries: Vec<Arc<Entry>> = entries.into_iter().map(Arc::new).collect();
        for follower in &topic.followers {
            follower.queue.push(follower.slot, &entries);
        }
    }

    /// Everybody reads the log again: it may have more than was published.
    pub(crate) fn all_behind(&self) {
        for stripe in &self.feeds {
            for topic in lock(stripe).values() {
                for follower in &topic.followers {
                    lock(&follower.queue.waiting).behind.insert(follower.slot);
                    follower.queue.bell.notify_one();
                }
            }
        }
        for stripe in &self.users {
            for queue in lock(stripe).values().flatten() {
                lock(&queue.waiting).rescan = true;
                queue.bell.notify_one();
            }
        }
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    entry.size()
}

impl Queue {
    fn push(&self, slot: u64, entries: &[Arc<Entry>]) {
        let mut waiting = lock(&self.waiting);
        if !waiting.behind.contains(&slot) {
            for entry in entries {
                let bytes = payload_bytes(entry);
                let fits = waiting.entries.len() < self.max
                    && (waiting.entries.is_empty() || waiting.bytes + bytes <= QUEUE_BYTES_MAX);
                if !fits {
                    waiting.behind.insert(slot);
                    if self.max > 0 {
                        metrics::counter!(names::PUSH_FALLBACKS_TOTAL).increment(1);
                    }
                    break;
                }
                waiting.bytes += bytes;
                waiting.entries.push_back((slot, entry.clone()));
            }
        }
        drop(waiting);
        self.bell.notify_one();
    }

    fn joined(&self, feed: &FeedId, after: SeqId) {
        let mut waiting = lock(&self.waiting);
        if waiting.joined.len() < JOINED_MAX {
            waiting.joined.push((feed.clone(), after));
        } else {
            waiting.rescan = true;
        }
        drop(waiting);
        self.bell.notify_one();
    }

    /// Everything that waits, leaving room for more.
    pub(crate) fn take(&self) -> Waiting {
        let mut waiting = lock(&self.waiting);
        let closed = waiting.closed;
        std::mem::replace(&mut *waiting, Waiting { closed, ..Waiting::default() })
    }
}

#[cfg(test)]
impl Queue {
    pub(crate) fn len(&self) -> usize {
        lock(&self.waiting).entries.len()
    }
}
