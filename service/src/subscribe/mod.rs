//! Attachments: replay from the log, then live, without a hole (P4).
//!
//! Each followed feed has a cursor, the newest place that was delivered. A live entry is delivered only when it is the
//! next one; whatever is beyond is fetched from the log. So the queue may lose anything at any time: it is a hint with
//! the entries enclosed.
//!
//! A pattern follows nothing by itself. The hub tells of each open feed that it matches and that is not followed yet, and
//! the feed is then followed like any other (`follow.rs`). When more were told than could be noted, and to resume, the
//! commits themselves are looked through (`scan.rs`).

mod discover;
mod follow;
mod hub;
mod scan;
mod start;
mod waiter;
mod wants;
mod water;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use feedlog_core::entry::Entry;
use feedlog_core::event::Event;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::policy::ReadScope;
use feedlog_core::read::{self, Shown};
use tokio::task::JoinHandle;

use crate::Blocking;
use crate::error::ReadError;
use crate::read::{EngineReader, Reads};
use crate::views::{Delivery, Gone, HistoryQuery, Page, View};
use hub::{Found, Queue};
pub(crate) use hub::{Hub, Published};
pub(crate) use scan::place_at;
use scan::{Scan, Step};
use start::Start;
pub(crate) use waiter::Waiter;
use wants::Wants;

/// Entries that one replay page fetches.
const REPLAY_PAGE: usize = 200;

/// What one attachment may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttachLimits {
    /// Live entries that wait.
    pub(crate) queue: usize,
    /// Feeds that are followed at a time. Those that patterns found give way; what is more than that is looked up in the
    /// log commit by commit.
    pub(crate) feeds: usize,
}

/// A reader of one or many feeds: replay, `CaughtUp`, then live. Bounded memory: a reader that is slow falls back to the
/// log.
///
/// A feed may be followed for several reasons at once: by name, as one of the reader's own, by patterns. Each of its entries
/// is delivered once, and it is followed until the last reason is gone.
pub struct Attachment {
    hub: Arc<Hub>,
    reads: Arc<Reads>,
    blocking: Blocking,
    limits: AttachLimits,
    queue: Arc<Queue>,
    mine: bool,
    /// Made by [`crate::Gate::attach`]: removing a feed by name also takes it out of the reader's own.
    plain: bool,
    next_slot: u64,
    feeds: HashMap<u64, Followed>,
    slots: HashMap<FeedId, u64>,
    /// Feeds that are to be read from the log.
    replay: VecDeque<u64>,
    /// Feeds that are caught up since the last `CaughtUp`, while some of its group are not.
    catching_up: bool,
    announced: Vec<u64>,
    live: VecDeque<(u64, Arc<Entry>)>,
    joined: Vec<(FeedId, SeqId)>,
    rescan: bool,
    wants: Arc<Wants>,
    found: Vec<Found>,
    /// More feeds were found than could be noted.
    lost: bool,
    scan: Option<Scan>,
    /// What live patterns want of commits up to here was delivered, or is of feeds that are followed.
    swept: u64,
    /// `swept` once the feeds in `found` are followed.
    sweep_to: u64,
    /// Places of an earlier attachment, until all that goes on from there was added.
    positions: HashMap<FeedId, SeqId>,
    resuming: bool,
    /// All that goes on from there was added: the queue was looked at.
    begun: bool,
    /// The low-water mark of before the queue was last taken, and the newest commit of after.
    taken: u64,
    newest: u64,
    // Kept when it was told, so that it does not seem to go back afterwards.
    settled: AtomicU64,
    reached: u64,
    ready: VecDeque<Delivery>,
    /// The log could not be read.
    failed: bool,
    // Kept here, not on the stack of `next`, so that dropping `next` loses nothing.
    reading: Option<JoinHandle<Result<Fetched, ReadError>>>,
}

struct Followed {
    feed: FeedId,
    cursor: SeqId,
    /// The newest delivered entry, when known.
    prev: Option<SeqId>,
    scope: ReadScope,
    /// The newest published place at which an older entry may have changed.
    changed: Arc<AtomicU64>,
    replaying: bool,
    /// Followed by name.
    named: bool,
    /// Followed as one of the reader's own.
    mine: bool,
    /// Of the kind that patterns match.
    is_open: bool,
    /// Nothing up to the cursor was committed after this.
    known: u64,
    /// When it last had something, in deliveries.
    used: u64,
}

/// What a blocking read brought.
enum Fetched {
    Page(u64, Result<Page, ReadError>),
    Shown(u64, Arc<Entry>, Result<(ReadScope, Shown), ReadError>),
    Listed(Vec<(FeedId, SeqId)>),
    Joined(Vec<Start>),
    Found(Vec<Start>),
    Resumed(Vec<Start>),
    Scanned(Step),
}

impl Attachment {
    /// The next delivery; `None` when the service is closing or the log could not be read: attach again then, from the
    /// newest places delivered. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Some(delivery);
            }
            if self.failed {
                return None;
            }
            if let Some(reading) = &mut self.reading {
                let fetched = reading.await;
                self.reading = None;
                match fetched {
                    Ok(Ok(fetched)) => self.apply(fetched),
                    // The service is closing, or a read panicked: the reader attaches again.
                    Ok(Err(_)) | Err(_) => {
                        self.failed = true;
                        return None;
                    }
                }
                continue;
            }
            if let Some(&slot) = self.replay.front() {
                self.read_page(slot);
                continue;
            }
            if self.resuming {
                self.look_at_positions();
                continue;
            }
            if self.scan.is_some() {
                self.go_on_scanning();
                continue;
            }
            if self.catching_up {
                self.catching_up = false;
                let mut announced = std::mem::take(&mut self.announced);
                announced.sort_unstable();
                announced.dedup();
                let heads = announced
                    .into_iter()
                    .filter_map(|slot| self.feeds.get(&slot))
                    .map(|followed| (followed.feed.clone(), followed.cursor))
                    .collect();
                return Some(Delivery::CaughtUp(heads));
            }
            if let Some((slot, entry)) = self.live.pop_front() {
                self.deliver(slot, entry);
                continue;
            }
            // Before the reader's own: a feed that is both goes on from where its patterns are.
            if !self.found.is_empty() {
                self.look_at_found();
                continue;
            }
            if self.rescan || !self.joined.is_empty() {
                self.look_at_joined();
                continue;
            }
            if std::mem::take(&mut self.lost) {
                self.scan = Some(Scan::new(self.swept));
                continue;
            }
            if self.take_queue() {
                return None;
            }
            if self.live.is_empty() && self.replay.is_empty() && !self.has_news() {
                self.queue.bell.notified().await;
            }
        }
    }

    /// It reads for others, who come and go: the principal whose rights it has does not count as connected by it.
    pub fn read_for_others(&mut self) {
        self.queue.read_for_others();
    }

    /// Everything that was committed up to this number and is followed was returned by [`Attachment::next`]: what a session
    /// stores as its place. Goes back when a pattern or the reader's own feeds are added after an older commit.
    pub fn settled(&self) -> u64 {
        let is_quiet = self.begun
            && self.ready.is_empty()
            && self.reading.is_none()
            && self.replay.is_empty()
            && !self.resuming
            && self.scan.is_none()
            && self.live.is_empty()
            && !self.has_news()
            && !self.failed;
        // The mark is read before the queue is looked at: what it covers would be there.
        let low = self.hub.low_water();
        if is_quiet && self.queue.is_empty() {
            self.settled.fetch_max(low, Ordering::SeqCst);
        }
        self.settled.load(Ordering::SeqCst)
    }

    /// Nothing that was returned by [`Attachment::next`] was committed after this number. Once [`Attachment::settled`] has
    /// come as far, places that were noted until now are not needed any more to resume.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// Whether a feed of which [`Attachment::next`] has just returned something is open, so that patterns mean it.
    pub fn is_open(&self, feed: &FeedId) -> bool {
        // What is not followed came across a scan for patterns, which looks at nothing but open feeds.
        self.slots.get(feed).and_then(|slot| self.feeds.get(slot)).is_none_or(|followed| followed.is_open)
    }

    fn has_news(&self) -> bool {
        !self.joined.is_empty() || self.rescan || !self.found.is_empty() || self.lost
    }

    /// Takes what waits; `true` when the service is closing. Everything taken before was delivered.
    fn take_queue(&mut self) -> bool {
        self.settled.fetch_max(self.taken, Ordering::SeqCst);
        self.begun = true;
        self.positions = HashMap::new();
        // Before the queue is taken: then what it covers is in what is taken now.
        self.taken = self.hub.low_water();
        let waiting = self.queue.take();
        self.newest = self.hub.newest();
        if !waiting.entries.is_empty() {
            self.reached = self.reached.max(self.newest);
        }
        self.live = waiting.entries;
        self.joined.extend(waiting.joined);
        self.rescan |= waiting.rescan && self.mine;
        for slot in waiting.behind {
            // What is in `live` comes first: replay begins at the cursor after it, or repeats nothing.
            self.replay_later(slot);
        }
        self.note_found(waiting.found, waiting.lost);
        waiting.closed
    }

    fn replay_later(&mut self, slot: u64) {
        if let Some(followed) = self.feeds.get_mut(&slot)
            && !followed.replaying
        {
            followed.replaying = true;
            self.replay.push_back(slot);
        }
    }

    fn read_page(&mut self, slot: u64) {
        let Some(followed) = self.feeds.get(&slot) else {
            self.replay.pop_front();
            return;
        };
        let (reads, feed, after) = (self.reads.clone(), followed.feed.clone(), followed.cursor);
        self.read(move || {
            Ok(Fetched::Page(slot, reads.history(&feed, HistoryQuery::After(after), REPLAY_PAGE)))
        });
    }

    fn read(&mut self, read: impl FnOnce() -> Result<Fetched, ReadError> + Send + 'static) {
        let blocking = self.blocking.clone();
        self.reading = Some(tokio::spawn(async move { blocking.run(read).await }));
    }

    /// A live entry: the next one of its feed is delivered, an older one was, a later one means that some are missing.
    fn deliver(&mut self, slot: u64, entry: Arc<Entry>) {
        let Some(followed) = self.feeds.get_mut(&slot) else { return };
        if followed.replaying || entry.seq > followed.cursor.next() {
            self.replay_later(slot);
            return;
        }
        if entry.seq <= followed.cursor {
            return;
        }
        followed.known = followed.known.max(self.newest);
        followed.used = self.newest;
        let unchanged = followed.changed.load(Ordering::SeqCst) <= entry.seq.0;
        match (followed.prev, changes_access(&entry.event, &self.reads)) {
            // What came after it, if anything, has not touched it: no read is needed.
            (Some(prev), false)
                if unchanged && entry.seq >= followed.scope.first && !expires(&entry.event) =>
            {
                let view = View { entry: Entry::clone(&entry), prev_seq: prev, fate: None };
                followed.cursor = entry.seq;
                followed.prev = Some(entry.seq);
                self.ready.push_back(Delivery::Entry(Arc::new(view)));
            }
            (prev, access) => {
                let (reads, feed, scope) = (self.reads.clone(), followed.feed.clone(), followed.scope);
                self.read(move || {
                    let shown = show(&reads, &feed, &entry, scope, prev, access);
                    Ok(Fetched::Shown(slot, entry, shown))
                });
            }
        }
    }

    fn apply(&mut self, fetched: Fetched) {
        match fetched {
            Fetched::Page(slot, page) => self.apply_page(slot, page),
            Fetched::Shown(slot, entry, shown) => self.apply_shown(slot, &entry, shown),
            Fetched::Listed(feeds) => self.apply_listed(feeds),
            Fetched::Joined(starts) => self.apply_joined(starts),
            Fetched::Found(starts) => self.apply_found(starts),
            Fetched::Resumed(starts) => self.apply_resumed(starts),
            Fetched::Scanned(step) => self.apply_scanned(step),
        }
    }

    fn apply_page(&mut self, slot: u64, page: Result<Page, ReadError>) {
        // One commit may be on its way between the entries and the number.
        let newest = self.reads.engine.commit_no() + 1;
        let Some(followed) = self.feeds.get_mut(&slot) else {
            self.replay.retain(|other| *other != slot);
            return;
        };
        let page = match page {
            Ok(page) => page,
            Err(ReadError::Denied(_)) => return self.end(slot),
            // Not the reader's loss of a right: the attachment ends, and the reader attaches again from its cursors.
            Err(_) => return self.failed = true,
        };
        let covered = match page.next {
            Some(next) => SeqId(u64::try_from(next).unwrap_or(0)).max(followed.cursor),
            None => page.head,
        };
        followed.known = newest;
        followed.used = newest;
        self.reached = self.reached.max(newest);
        followed.prev = page.entries.last().map(|view| view.entry.seq).or(followed.prev);
        followed.cursor = covered;
        followed.scope.first = page.first;
        if page.next.is_none() {
            followed.replaying = false;
            self.replay.retain(|other| *other != slot);
        }
        self.hand_out(page);
    }

    /// Entries and gaps of a page, in their order.
    fn hand_out(&mut self, page: Page) {
        let mut gone = page.gone.into_iter().peekable();
        for view in page.entries {
            while let Some(range) = gone.next_if(|range| range.from < view.entry.seq) {
                self.ready.push_back(Delivery::Gone(page.feed.clone(), range));
            }
            self.ready.push_back(Delivery::Entry(Arc::new(view)));
        }
        for range in gone {
            self.ready.push_back(Delivery::Gone(page.feed.clone(), range));
        }
    }

    fn apply_shown(&mut self, slot: u64, entry: &Entry, shown: Result<(ReadScope, Shown), ReadError>) {
        let Some(followed) = self.feeds.get_mut(&slot) else { return };
        match shown {
            Ok((scope, shown)) => {
                followed.scope = scope;
                followed.cursor = entry.seq;
                match shown {
                    Shown::View(view) => {
                        followed.prev = Some(entry.seq);
                        self.ready.push_back(Delivery::Entry(Arc::new(*view)));
                    }
                    Shown::Gone(reason) => {
                        let gone = Gone { from: entry.seq, to: entry.seq, reason };
                        self.ready.push_back(Delivery::Gone(followed.feed.clone(), gone));
                    }
                }
            }
            Err(ReadError::Denied(_)) => {
                // The entry that ends it is the reader's own business and tells why.
                if is_departure(&entry.event, &self.reads) {
                    let prev_seq = followed.prev.unwrap_or(SeqId::ZERO);
                    let view = View { entry: entry.clone(), prev_seq, fate: None };
                    self.ready.push_back(Delivery::Entry(Arc::new(view)));
                }
                self.end(slot);
            }
            Err(_) => self.failed = true,
        }
    }

    fn end(&mut self, slot: u64) {
        if let Some(followed) = self.forget(slot)
            // What only a pattern found was never promised.
            && (followed.named || followed.mine)
        {
            self.ready.push_back(Delivery::Ended(followed.feed));
        }
    }

    fn forget(&mut self, slot: u64) -> Option<Followed> {
        let followed = self.feeds.remove(&slot)?;
        self.slots.remove(&followed.feed);
        self.replay.retain(|other| *other != slot);
        self.hub.unfollow(&followed.feed, &self.queue, slot);
        Some(followed)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        for (slot, followed) in self.feeds.drain() {
            self.hub.unfollow(&followed.feed, &self.queue, slot);
        }
        for (id, want) in self.wants.iter() {
            self.hub.unwatch(&want.pattern, &self.queue, id);
        }
        if self.mine {
            self.hub.unfollow_user(&self.reads.principal.uid, &self.queue);
        }
        self.hub.drop_queue(&self.queue);
    }
}

/// The entry as the reader may see it, and what the reader may see now. When the entry may have changed that, the
/// durable rows decide.
fn show(
    reads: &Reads,
    feed: &FeedId,
    entry: &Entry,
    scope: ReadScope,
    prev: Option<SeqId>,
    access: bool,
) -> Result<(ReadScope, Shown), ReadError> {
    let scope = if access { reads.contents(feed)?.scope } else { scope };
    let reader = EngineReader(&*reads.engine);
    if entry.seq < scope.first {
        return Ok((scope, Shown::Gone(crate::views::GoneReason::BeforeJoin)));
    }
    Ok((scope, read::show(&reader, entry.clone(), scope, prev, reads.clock.now_ms())?))
}

fn is_departure(event: &Event, reads: &Reads) -> bool {
    matches!(event, Event::MemberLeft { uid } | Event::MemberRemoved { uid, .. } if *uid == reads.principal.uid)
}

/// Whether an event may change what this reader may see.
fn changes_access(event: &Event, reads: &Reads) -> bool {
    match event {
        // The first of a feed that was followed before it existed tells what it became.
        Event::FeedCreated { .. } | Event::FeedChanged { .. } => true,
        Event::MemberJoined { uid, .. } => *uid == reads.principal.uid,
        event => is_departure(event, reads),
    }
}

/// Whether the time decides if the entry is shown.
fn expires(event: &Event) -> bool {
    matches!(event, Event::MessageSent(message) if message.expires_ms.is_some())
}

#[cfg(test)]
mod tests;
