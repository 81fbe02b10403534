//! Who follows which feed, by name, by user and by pattern. Fed only from `Committed`, by the shard of the feed, in the
//! order of the feed.
//!
//! Only followers by name get entries. Who follows by user or by pattern is told of feeds that it does not follow yet, and
//! then follows them by name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use feedlog_core::entry::Entry;
use feedlog_core::event::Event;
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::pattern::{Pattern, PatternSet};
use feedlog_storage::Round;
use tokio::sync::Notify;

use super::water::LowWater;
use crate::metrics as names;

const STRIPES: usize = 64;
/// Payload bytes that may wait for one attachment, unless one entry alone is larger.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Feeds that one user may join while one attachment does not look; beyond, it lists the user's feeds again.
const JOINED_MAX: usize = 256;
/// Feeds that may be found by pattern while one attachment does not look; beyond, it looks through the commits.
const FOUND_MAX: usize = 256;

/// All followers of all feeds.
pub(crate) struct Hub {
    feeds: Vec<Mutex<HashMap<FeedId, Topic>>>,
    users: Vec<Mutex<HashMap<Uid, Vec<Arc<Queue>>>>>,
    pub(super) patterns: RwLock<PatternSet<Watcher>>,
    /// Grows with every new pattern.
    generation: AtomicU64,
    queues: Mutex<HashMap<usize, Weak<Queue>>>,
    // Followers, attached users and patterns; while there are none, publishing costs next to nothing.
    listeners: AtomicUsize,
    next_queue: AtomicUsize,
    closed: AtomicBool,
    water: LowWater,
    /// Rings when something was committed, for those who follow the commits themselves.
    news: Notify,
}

/// A queue with one of its patterns.
pub(super) struct Watcher {
    queue: Arc<Queue>,
    id: u32,
}

struct Topic {
    head: Arc<AtomicU64>,
    /// The newest published entry that may have changed an older one.
    changed: Arc<AtomicU64>,
    followers: Vec<Follower>,
    /// The generation of patterns at which every queue with a matching pattern was among the followers: while it is the
    /// newest, nobody needs to be told.
    told: u64,
}

/// What became durable of a feed with one group.
pub(crate) struct Published<'a> {
    pub(crate) feed: &'a FeedId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) commit_no: u64,
    /// The feed is of the kind that patterns match.
    pub(crate) is_open: bool,
    /// Users for whom the feed is new, with the place before these entries.
    pub(crate) joined: Vec<(Uid, SeqId)>,
}

/// A feed that a pattern matches and that is not followed.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) feed: FeedId,
    /// The place before the entries of this commit.
    pub(crate) after: SeqId,
    pub(crate) commit_no: u64,
}

struct Follower {
    queue: Arc<Queue>,
    slot: u64,
}

/// What waits for one attachment. Bounded: what does not fit is read from the log later.
pub(crate) struct Queue {
    id: usize,
    /// Who reads.
    reader: Uid,
    /// It reads for others, whoever they are.
    for_others: AtomicBool,
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
    /// Feeds that were found by pattern, with the first commit of each.
    pub(crate) found: HashMap<FeedId, (SeqId, u64)>,
    /// More were found than could be noted.
    pub(crate) lost: bool,
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
    /// `commit_no` is the newest commit of the engine, before anything is published.
    pub(crate) fn new(commit_no: u64) -> Self {
        Self {
            feeds: (0..STRIPES).map(|_| Mutex::default()).collect(),
            users: (0..STRIPES).map(|_| Mutex::default()).collect(),
            patterns: RwLock::default(),
            generation: AtomicU64::new(1),
            queues: Mutex::default(),
            listeners: AtomicUsize::new(0),
            next_queue: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            water: LowWater::new(commit_no),
            news: Notify::new(),
        }
    }

    /// Every entry that was committed up to here was published. Read it **before** taking a queue: then what is taken holds
    /// all of them.
    pub(crate) fn low_water(&self) -> u64 {
        self.water.low()
    }

    /// Nothing that was committed after this was published yet.
    pub(crate) fn newest(&self) -> u64 {
        self.water.newest()
    }

    /// A commit is durable and its groups are about to be published.
    pub(crate) fn announce(&self, round: &Round) {
        self.water.announce(round.commit_no, round.appended, || self.all_behind());
        self.news.notify_waiters();
    }

    /// Rings when something was committed. Enable the wait **before** looking at the number of the newest commit.
    pub(crate) fn news(&self) -> &Notify {
        &self.news
    }

    /// A queue for one attachment of `reader` with room for `max` entries.
    pub(crate) fn queue(&self, max: usize, reader: &Uid) -> Arc<Queue> {
        let id = self.next_queue.fetch_add(1, Ordering::Relaxed);
        let (reader, for_others, bell) = (reader.clone(), AtomicBool::new(false), Notify::new());
        let queue = Arc::new(Queue { id, reader, for_others, max, waiting: Mutex::default(), bell });
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
    /// published place at which an older entry may have changed. Read the head **after** this: then nothing can fall
    /// between.
    pub(crate) fn follow(&self, feed: &FeedId, queue: &Arc<Queue>, slot: u64) -> Arc<AtomicU64> {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        let mut feeds = lock(&self.feeds[stripe(feed.as_str())]);
        let topic = feeds.entry(feed.clone()).or_insert_with(|| Topic {
            head: Arc::default(),
            changed: Arc::default(),
            followers: Vec::new(),
            told: 0,
        });
        topic.followers.push(Follower { queue: queue.clone(), slot });
        topic.changed.clone()
    }

    pub(crate) fn unfollow(&self, feed: &FeedId, queue: &Queue, slot: u64) {
        self.unfollow_if(feed, queue, slot, |_| true);
    }

    /// Stops following when nothing beyond `cursor` was published: whatever comes later is told by pattern.
    pub(crate) fn unfollow_quiet(&self, feed: &FeedId, queue: &Queue, slot: u64, cursor: SeqId) -> bool {
        self.unfollow_if(feed, queue, slot, |head| head <= cursor)
    }

    fn unfollow_if(&self, feed: &FeedId, queue: &Queue, slot: u64, may: impl FnOnce(SeqId) -> bool) -> bool {
        let mut feeds = lock(&self.feeds[stripe(feed.as_str())]);
        let Some(topic) = feeds.get_mut(feed) else { return true };
        if !may(SeqId(topic.head.load(Ordering::SeqCst))) {
            return false;
        }
        let before = topic.followers.len();
        topic.followers.retain(|follower| follower.queue.id != queue.id || follower.slot != slot);
        self.listeners.fetch_sub(before - topic.followers.len(), Ordering::SeqCst);
        // Its patterns may still match.
        topic.told = 0;
        if topic.followers.is_empty() {
            feeds.remove(feed);
        }
        true
    }

    /// From now on the queue learns of open feeds that match and that it does not follow. Read the number of the newest
    /// commit **after** this: what was committed later is told.
    pub(crate) fn watch(&self, pattern: &Pattern, queue: &Arc<Queue>, id: u32) {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        let mut patterns = self.patterns.write().unwrap_or_else(PoisonError::into_inner);
        patterns.insert(pattern, Watcher { queue: queue.clone(), id });
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn unwatch(&self, pattern: &Pattern, queue: &Queue, id: u32) {
        let mut patterns = self.patterns.write().unwrap_or_else(PoisonError::into_inner);
        patterns.remove(pattern, |watcher| watcher.queue.id == queue.id && watcher.id == id);
        self.listeners.fetch_sub(1, Ordering::SeqCst);
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

    /// Who follows this feed at this moment by name or, when it is open, by pattern. Who follows all feeds of their own is
    /// not listed: see [`Hub::follows_own`].
    pub(crate) fn readers(&self, feed: &FeedId, is_open: bool) -> HashSet<Uid> {
        let mut readers = HashSet::new();
        if let Some(topic) = lock(&self.feeds[stripe(feed.as_str())]).get(feed) {
            readers.extend(topic.followers.iter().filter_map(|follower| follower.queue.reader()));
        }
        if is_open {
            let patterns = self.patterns.read().unwrap_or_else(PoisonError::into_inner);
            patterns.each(feed.as_str(), |watcher| {
                readers.extend(watcher.queue.reader());
            });
        }
        readers
    }

    /// Whether this user follows all feeds of their own at this moment.
    pub(crate) fn follows_own(&self, uid: &Uid) -> bool {
        lock(&self.users[stripe(uid.as_str())]).contains_key(uid)
    }

    /// Hands on entries that are durable now.
    pub(crate) fn publish(&self, published: Published<'_>) {
        if published.entries.is_empty() {
            return;
        }
        let commit_no = published.commit_no;
        // `follow` counts before it reads the head, so whoever is not counted yet reads these entries from the log.
        if self.listeners.load(Ordering::SeqCst) > 0 {
            self.push(published);
        }
        self.water.retire(commit_no);
    }

    fn push(&self, published: Published<'_>) {
        let Published { feed, entries, commit_no, is_open, joined } = published;
        let span = tracing::debug_span!("push", feed_id = feed.as_str());
        let _in_span = span.enter();
        for (uid, after) in joined {
            if let Some(queues) = lock(&self.users[stripe(uid.as_str())]).get(&uid) {
                queues.iter().for_each(|queue| queue.joined(feed, after));
            }
        }
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        let (after, last) = (first.seq.prev(), last.seq);
        let mut feeds = lock(&self.feeds[stripe(feed.as_str())]);
        let mut topic = feeds.get_mut(feed);
        if is_open && topic.as_ref().is_none_or(|topic| topic.told != self.generation.load(Ordering::SeqCst))
        {
            self.tell(&Found { feed: feed.clone(), after, commit_no }, topic.as_deref_mut());
        }
        let Some(topic) = topic else { return };
        topic.head.store(last.0, Ordering::SeqCst);
        // Before anybody gets the entries: who sees an older number has not got the change either.
        if let Some(change) = entries.iter().rev().find(|entry| changes_older(&entry.event)) {
            topic.changed.store(change.seq.0, Ordering::SeqCst);
        }
        let entries: Vec<Arc<Entry>> = entries.into_iter().map(Arc::new).collect();
        for follower in &topic.followers {
            follower.queue.push(follower.slot, &entries);
        }
    }

    /// Tells those whose patterns match and who do not follow yet.
    fn tell(&self, found: &Found, topic: Option<&mut Topic>) {
        let patterns = self.patterns.read().unwrap_or_else(PoisonError::into_inner);
        if patterns.is_empty() {
            return;
        }
        let followers: HashSet<usize> = match &topic {
            Some(topic) => topic.followers.iter().map(|follower| follower.queue.id).collect(),
            None => HashSet::new(),
        };
        let mut all_follow = true;
        patterns.each(found.feed.as_str(), |watcher| {
            if !followers.contains(&watcher.queue.id) {
                all_follow = false;
                watcher.queue.found(found);
            }
        });
        if let (Some(topic), true) = (topic, all_follow) {
            // Stands still while the patterns are read.
            topic.told = self.generation.load(Ordering::SeqCst);
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
        // Without a pattern there is nothing that can be lost.
        for queue in lock(&self.queues).values().filter_map(Weak::upgrade) {
            lock(&queue.waiting).lost = true;
            queue.bell.notify_one();
        }
    }
}

/// Whether an event may change how an older entry is shown.
fn changes_older(event: &Event) -> bool {
    !matches!(
        event,
        Event::MessageSent(_) | Event::Broadcast { .. } | Event::MarkMoved { .. } | Event::Notified { .. }
    )
}

fn payload_bytes(entry: &Entry) -> usize {
    entry.size()
}

impl Queue {
    /// From now on nobody counts as connected because of it.
    pub(super) fn read_for_others(&self) {
        self.for_others.store(true, Ordering::SeqCst);
    }

    fn reader(&self) -> Option<Uid> {
        (!self.for_others.load(Ordering::SeqCst)).then(|| self.reader.clone())
    }

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

    fn found(&self, found: &Found) {
        let mut waiting = lock(&self.waiting);
        if !waiting.found.contains_key(&found.feed) {
            if waiting.found.len() < FOUND_MAX {
                // The first of its feed says from where on.
                waiting.found.insert(found.feed.clone(), (found.after, found.commit_no));
            } else {
                waiting.lost = true;
            }
        }
        drop(waiting);
        self.bell.notify_one();
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        let waiting = lock(&self.waiting);
        waiting.entries.is_empty()
            && waiting.behind.is_empty()
            && waiting.joined.is_empty()
            && waiting.found.is_empty()
            && !waiting.rescan
            && !waiting.lost
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
