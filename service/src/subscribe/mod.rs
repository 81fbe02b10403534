//! Attachments: replay from the log, then live, without a hole (P4).
//!
//! Each followed feed has a cursor, the newest place that was delivered. A live entry is delivered only when it is the
//! next one; whatever is beyond is fetched from the log. So the queue may lose anything at any time: it is a hint with
//! the entries enclosed.

mod hub;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use feedlog_core::entry::Entry;
use feedlog_core::event::Event;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::policy::{Denied, ReadScope};
use feedlog_core::read::{self, Shown};
use tokio::task::JoinHandle;

use crate::Blocking;
use crate::error::ReadError;
use crate::read::{EngineReader, Reads};
use crate::views::{AttachTo, Delivery, Gone, HistoryQuery, Page, View};
pub(crate) use hub::{Hub, Queue};

/// Entries that one replay page fetches.
const REPLAY_PAGE: usize = 200;
/// Feeds that one attachment may name.
const FEEDS_MAX: usize = 10_000;

/// A reader of one or many feeds: replay, `CaughtUp`, then live. Bounded memory: a reader that is slow falls back to the
/// log.
pub struct Attachment {
    hub: Arc<Hub>,
    reads: Arc<Reads>,
    blocking: Blocking,
    queue: Arc<Queue>,
    mine: bool,
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
    /// The newest published place.
    published: Arc<AtomicU64>,
    replaying: bool,
}

/// What a blocking read brought.
enum Fetched {
    Page(u64, Result<Page, ReadError>),
    Shown(u64, Arc<Entry>, Result<(ReadScope, Shown), ReadError>),
    Joined(Vec<(FeedId, SeqId, Result<ReadScope, ReadError>)>),
}

impl Attachment {
    /// Attaches. Blocks; named feeds that may not be read are an error, except with `Mine`, where they end.
    pub(crate) fn open(
        hub: Arc<Hub>,
        reads: Arc<Reads>,
        blocking: Blocking,
        queue_max: usize,
        to: AttachTo,
    ) -> Result<Self, ReadError> {
        let (named, mine) = match to {
            AttachTo::Feeds(named) => (named, false),
            AttachTo::Mine(named) => (named, true),
        };
        if named.len() > FEEDS_MAX {
            return Err(ReadError::BadField { field: "feeds", problem: "are too many" });
        }
        let queue = hub.queue(queue_max.max(1));
        // From here on dropping `this` undoes every registration.
        let mut this = Self {
            hub,
            reads,
            blocking,
            queue,
            mine,
            next_slot: 0,
            feeds: HashMap::new(),
            slots: HashMap::new(),
            replay: VecDeque::new(),
            catching_up: true,
            announced: Vec::new(),
            live: VecDeque::new(),
            joined: Vec::new(),
            rescan: false,
            ready: VecDeque::new(),
            failed: false,
            reading: None,
        };
        for (feed, after) in named {
            match this.reads.contents(&feed) {
                Ok(access) => this.follow(feed, Some(after), access.scope)?,
                Err(ReadError::Denied(_)) if mine => this.ready.push_back(Delivery::Ended(feed)),
                Err(error) => return Err(error),
            }
        }
        if mine {
            if this.reads.principal.anonymous {
                return Err(Denied::Unauthenticated.into());
            }
            // Registered before listing: a feed joined in between is told, or listed, or both.
            this.hub.follow_user(&this.reads.principal.uid, &this.queue);
            for feed in this.list_mine()? {
                this.follow_from_head(feed)?;
            }
        }
        this.announced.extend(this.feeds.keys().copied());
        Ok(this)
    }

    fn list_mine(&self) -> Result<Vec<FeedId>, ReadError> {
        let mut feeds = Vec::new();
        self.reads.each_feed(|feed, user_feed, _| {
            if user_feed.is_some() {
                feeds.push(feed);
            }
            Ok(())
        })?;
        Ok(feeds)
    }

    fn follow_from_head(&mut self, feed: FeedId) -> Result<(), ReadError> {
        if self.slots.contains_key(&feed) {
            return Ok(());
        }
        match self.reads.contents(&feed) {
            Ok(access) => self.follow(feed, None, access.scope),
            Err(ReadError::Denied(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Registers, then reads the head: entries up to it come from the log, later ones through the queue.
    fn follow(&mut self, feed: FeedId, after: Option<SeqId>, scope: ReadScope) -> Result<(), ReadError> {
        if self.slots.contains_key(&feed) {
            return Ok(());
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        let published = self.hub.follow(&feed, &self.queue, slot);
        let followed = Followed {
            feed: feed.clone(),
            cursor: SeqId::ZERO,
            prev: None,
            scope,
            published,
            replaying: false,
        };
        self.slots.insert(feed.clone(), slot);
        self.feeds.insert(slot, followed);
        let head = self.reads.engine.head(&feed)?.seq;
        // A place beyond the head is not kept: entries up to it have yet to come.
        let cursor = after.unwrap_or(head).min(head);
        let followed = self.feeds.get_mut(&slot).expect("INVARIANT: inserted above");
        followed.cursor = cursor;
        if cursor < head {
            followed.replaying = true;
            self.replay.push_back(slot);
        }
        Ok(())
    }

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
                    Ok(Err(_)) | Err(_) => return None,
                }
                continue;
            }
            if let Some(&slot) = self.replay.front() {
                self.read_page(slot);
                continue;
            }
            if self.catching_up {
                self.catching_up = false;
                let heads = std::mem::take(&mut self.announced)
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
            if self.rescan || !self.joined.is_empty() {
                self.look_at_joined();
                continue;
            }
            if self.take_queue() {
                return None;
            }
            if self.live.is_empty() && self.replay.is_empty() && self.joined.is_empty() && !self.rescan {
                self.queue.bell.notified().await;
            }
        }
    }

    /// Takes what waits; `true` when the service is closing.
    fn take_queue(&mut self) -> bool {
        let waiting = self.queue.take();
        self.live = waiting.entries;
        self.joined.extend(waiting.joined);
        self.rescan |= waiting.rescan;
        for slot in waiting.behind {
            // What is in `live` comes first: replay begins at the cursor after it, or repeats nothing.
            self.replay_later(slot);
        }
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
        let newest = followed.published.load(Ordering::SeqCst) <= entry.seq.0;
        match (followed.prev, changes_access(&entry.event, &self.reads)) {
            // Nothing came after it, so nothing can have happened to it: no read is needed.
            (Some(prev), false) if newest && entry.seq >= followed.scope.first && !expires(&entry.event) => {
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

    fn look_at_joined(&mut self) {
        let mut joined = std::mem::take(&mut self.joined);
        let rescan = std::mem::take(&mut self.rescan);
        joined.retain(|(feed, _)| !self.slots.contains_key(feed));
        if joined.is_empty() && !rescan {
            return;
        }
        let reads = self.reads.clone();
        self.read(move || {
            if rescan {
                // Which feeds are new is not known any more: all are told, from their start for this user on.
                reads.each_feed(|feed, user_feed, _| {
                    joined.extend(user_feed.map(|row| (feed, row.since_seq.prev())));
                    Ok(())
                })?;
            }
            let looked = joined.into_iter().map(|(feed, after)| {
                let scope = reads.contents(&feed).map(|access| access.scope);
                (feed, after, scope)
            });
            Ok(Fetched::Joined(looked.collect()))
        });
    }

    fn apply(&mut self, fetched: Fetched) {
        match fetched {
            Fetched::Page(slot, page) => self.apply_page(slot, page),
            Fetched::Shown(slot, entry, shown) => self.apply_shown(slot, &entry, shown),
            Fetched::Joined(feeds) => {
                for (feed, after, scope) in feeds {
                    // A feed that was left again meanwhile has nothing to show, and the head of a feed that
                    // cannot be read now will be read with its first entry.
                    if let Ok(scope) = scope {
                        let _ = self.follow(feed, Some(after), scope);
                    }
                }
            }
        }
    }

    fn apply_page(&mut self, slot: u64, page: Result<Page, ReadError>) {
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
        let mut gone = page.gone.into_iter().peekable();
        for view in page.entries {
            while let Some(range) = gone.next_if(|range| range.from < view.entry.seq) {
                self.ready.push_back(Delivery::Gone(followed.feed.clone(), range));
            }
            followed.prev = Some(view.entry.seq);
            self.ready.push_back(Delivery::Entry(Arc::new(view)));
        }
        for range in gone {
            self.ready.push_back(Delivery::Gone(followed.feed.clone(), range));
        }
        followed.cursor = covered;
        followed.scope.first = page.first;
        if page.next.is_none() {
            followed.replaying = false;
            self.replay.retain(|other| *other != slot);
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
        if let Some(followed) = self.forget(slot) {
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

    /// Adds a feed, replayed after a place (WebSocket `attach` on an open connection). `CaughtUp` follows for it.
    pub async fn add(&mut self, feed: FeedId, after: SeqId) -> Result<(), ReadError> {
        if self.feeds.len() >= FEEDS_MAX && !self.slots.contains_key(&feed) {
            return Err(ReadError::BadField { field: "feeds", problem: "are too many" });
        }
        let (reads, name) = (self.reads.clone(), feed.clone());
        let access = self.blocking.run(move || reads.contents(&name)).await?;
        self.remove(&feed);
        self.follow(feed.clone(), Some(after), access.scope)?;
        self.announced.extend(self.slots.get(&feed));
        self.catching_up = true;
        Ok(())
    }

    /// Stops following a feed. Deliveries of it that were prepared are dropped.
    pub fn remove(&mut self, feed: &FeedId) {
        if let Some(slot) = self.slots.get(feed).copied() {
            self.forget(slot);
        }
        self.ready.retain(|delivery| match delivery {
            Delivery::Entry(view) => view.entry.feed != *feed,
            Delivery::Gone(of, _) | Delivery::Ended(of) => of != feed,
            Delivery::CaughtUp(_) => true,
        });
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        for (slot, followed) in self.feeds.drain() {
            self.hub.unfollow(&followed.feed, &self.queue, slot);
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
        Event::FeedChanged { .. } => true,
        Event::MemberJoined { uid, .. } => *uid == reads.principal.uid,
        event => is_departure(event, reads),
    }
}

/// Whether the time decides if the entry is shown.
fn expires(event: &Event) -> bool {
    matches!(event, Event::MessageSent(message) if message.expires_ms.is_some())
}

/// Rings when something was appended to a feed, for reads that wait.
pub(crate) struct Waiter {
    hub: Arc<Hub>,
    queue: Arc<Queue>,
    feed: FeedId,
}

impl Waiter {
    pub(crate) fn new(hub: Arc<Hub>, feed: FeedId) -> Self {
        // No room: the entries themselves are read from the log.
        let queue = hub.queue(0);
        hub.follow(&feed, &queue, 0);
        Self { hub, queue, feed }
    }

    /// Waits for the next append; `false` when the service is closing.
    pub(crate) async fn rung(&self) -> bool {
        loop {
            let waiting = self.queue.take();
            if waiting.closed {
                return false;
            }
            if !waiting.behind.is_empty() {
                return true;
            }
            self.queue.bell.notified().await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.hub.unfollow(&self.feed, &self.queue, 0);
        self.hub.drop_queue(&self.queue);
    }
}

#[cfg(test)]
mod tests;
