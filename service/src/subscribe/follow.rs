//! What an attachment follows, from which place on, and for which reasons.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::pattern::Pattern;
use feedlog_core::policy::Denied;

use super::hub::Hub;
use super::scan::Scan;
use super::start::{Ask, Found, Start, find_start, find_start_or_wait, list_mine, start, starts};
use super::wants::Stage;
use super::{AttachLimits, Attachment, Followed};
use crate::Blocking;
use crate::error::ReadError;
use crate::read::Reads;
use crate::views::{After, AttachTo, Delivery, RESUME_POSITIONS_MAX, Resume};

/// Feeds that one attachment may name.
const NAMED_MAX: usize = 10_000;
/// Feeds whose start is looked up together.
pub(super) const STARTS_PAGE: usize = 256;

/// Why a feed is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Named,
    Mine,
    Pattern,
}

impl Attachment {
    fn new(hub: Arc<Hub>, reads: Arc<Reads>, blocking: Blocking, limits: AttachLimits) -> Self {
        let low = hub.low_water();
        let queue = hub.queue(limits.queue, &reads.principal.uid);
        Self {
            hub,
            reads,
            blocking,
            limits,
            queue,
            mine: false,
            plain: false,
            next_slot: 0,
            feeds: HashMap::new(),
            slots: HashMap::new(),
            replay: VecDeque::new(),
            catching_up: false,
            announced: Vec::new(),
            live: VecDeque::new(),
            joined: Vec::new(),
            rescan: false,
            wants: Arc::default(),
            found: Vec::new(),
            lost: false,
            scan: None,
            swept: low,
            sweep_to: low,
            positions: HashMap::new(),
            resuming: false,
            begun: false,
            taken: low,
            newest: low,
            settled: AtomicU64::new(low),
            reached: low,
            ready: VecDeque::new(),
            failed: false,
            reading: None,
        }
    }

    /// Attaches. Blocks; named feeds that may not be read are an error, except with `Mine`, where they end.
    pub(crate) fn open(
        hub: Arc<Hub>,
        reads: Arc<Reads>,
        blocking: Blocking,
        limits: AttachLimits,
        to: AttachTo,
    ) -> Result<Self, ReadError> {
        let (named, mine) = match to {
            AttachTo::Feeds(named) => (named, false),
            AttachTo::Mine(named) => (named, true),
        };
        if named.len() > NAMED_MAX {
            return Err(ReadError::BadField { field: "feeds", problem: "are too many" });
        }
        // From here on dropping `this` undoes every registration.
        let mut this = Self::new(hub, reads, blocking, limits);
        this.plain = true;
        this.catching_up = true;
        // The places named may be anywhere.
        *this.settled.get_mut() = 0;
        for (feed, after) in named {
            let start = start(&this.reads, Ask::after(feed, After::Seq(after)))?;
            match start.place {
                Some(_) => drop(this.follow(start, Why::Named)),
                None if mine => this.ready.push_back(Delivery::Ended(start.feed)),
                // Asked again for the reason.
                None => drop(this.reads.contents(&start.feed)?),
            }
        }
        if mine {
            if this.reads.principal.anonymous {
                return Err(Denied::Unauthenticated.into());
            }
            // Registered before listing: a feed joined in between is told, or listed, or both.
            this.hub.follow_user(&this.reads.principal.uid, &this.queue);
            this.mine = true;
            for (feed, _) in list_mine(&this.reads)? {
                if !this.is_mine(&feed) {
                    let start = start(&this.reads, Ask::after(feed, After::Head))?;
                    this.follow(start, Why::Mine);
                }
            }
        }
        this.announced.extend(this.feeds.keys().copied());
        Ok(this)
    }

    /// An attachment that follows nothing yet.
    pub(crate) fn resume(
        hub: Arc<Hub>,
        reads: Arc<Reads>,
        blocking: Blocking,
        limits: AttachLimits,
        resume: Option<Resume>,
    ) -> Result<Self, ReadError> {
        let mut this = Self::new(hub, reads, blocking, limits);
        if let Some(resume) = resume {
            if resume.positions.len() > RESUME_POSITIONS_MAX {
                return Err(ReadError::BadField { field: "positions", problem: "are too many" });
            }
            this.settled.fetch_min(resume.commit_no, Ordering::SeqCst);
            this.positions = resume.positions.into_iter().collect();
        }
        Ok(this)
    }

    /// Registers, then reads the head: entries up to it come from the log, later ones through the queue.
    pub(super) fn follow(&mut self, start: Start, why: Why) -> Option<u64> {
        let (after, scope, is_open) = start.place?;
        let feed = start.feed;
        let slot = match self.slots.get(&feed) {
            Some(slot) => *slot,
            None => {
                let slot = self.next_slot;
                self.next_slot += 1;
                let changed = self.hub.follow(&feed, &self.queue, slot);
                let head = match self.reads.engine.head(&feed) {
                    Ok(head) => head.seq,
                    // Read with the first page, which tells what is wrong.
                    Err(_) => SeqId::MAX,
                };
                // One commit may be on its way between the head and the number.
                let known = self.reads.engine.commit_no() + 1;
                // A place beyond the head is not kept: entries up to it have yet to come.
                let cursor = after.min(head);
                let followed = Followed {
                    feed: feed.clone(),
                    cursor,
                    prev: None,
                    scope,
                    changed,
                    replaying: cursor < head,
                    named: false,
                    mine: false,
                    is_open,
                    known,
                    used: known,
                };
                if followed.replaying {
                    self.replay.push_back(slot);
                }
                self.positions.remove(&feed);
                if let Some(scan) = &mut self.scan {
                    scan.retain(|other| *other != feed);
                }
                self.slots.insert(feed, slot);
                self.feeds.insert(slot, followed);
                slot
            }
        };
        let followed = self.feeds.get_mut(&slot).expect("INVARIANT: every slot has its feed");
        followed.named |= why == Why::Named;
        followed.mine |= why == Why::Mine;
        Some(slot)
    }

    /// A feed is one of the reader's own; whether it is followed already.
    pub(super) fn is_mine(&mut self, feed: &FeedId) -> bool {
        let followed = self.slots.get(feed).and_then(|slot| self.feeds.get_mut(slot));
        followed.map(|followed| followed.mine = true).is_some()
    }

    /// How much of a feed that is not followed the patterns had.
    fn covered(&self, feed: &FeedId) -> Option<Result<SeqId, u64>> {
        let covered = match &self.scan {
            Some(scan) => scan.place_of(feed),
            None => Err(self.swept),
        };
        let commit_no = match covered {
            Ok(place) => return Some(Ok(place)),
            Err(commit_no) => commit_no,
        };
        let windows = self.wants.windows(feed.as_str(), self.swept, (commit_no, u64::MAX));
        let (first, _) = windows.into_iter().find(|(after, upto)| after < upto)?;
        match self.found.iter().find(|found| found.feed == *feed) {
            Some(found) if self.scan.is_none() && found.commit_no > first => Some(Ok(found.after)),
            _ => Some(Err(first)),
        }
    }

    pub(super) fn asks(&self, feeds: impl Iterator<Item = (FeedId, After, SeqId)>) -> Vec<Ask> {
        feeds
            .map(|(feed, after, floor)| match self.positions.get(&feed) {
                Some(seq) => Ask::after(feed, After::Seq(*seq)),
                None => Ask { covered: self.covered(&feed), feed, after, floor },
            })
            .collect()
    }

    /// What is being read is applied: nothing changes any more but by the caller.
    async fn finish_reading(&mut self) -> Result<(), ReadError> {
        if let Some(reading) = &mut self.reading {
            let fetched = reading.await;
            self.reading = None;
            match fetched {
                Ok(Ok(fetched)) => self.apply(fetched),
                Ok(Err(_)) | Err(_) => self.failed = true,
            }
        }
        if self.failed { Err(ReadError::Unavailable("the attachment has ended")) } else { Ok(()) }
    }

    /// Follows a feed by name. `CaughtUp` comes for it. One that is followed already goes on where it is, but for `Seq`: by
    /// name only, it goes to that place; for other reasons as well, it goes back when the place is older, and skips nothing.
    ///
    /// [`Attachment::settled`] does not go back for it: a session notes an older place among its positions, until
    /// `CaughtUp` names the feed.
    pub async fn add(&mut self, feed: FeedId, after: After) -> Result<(), ReadError> {
        self.add_found(feed, after, find_start).await
    }

    /// As [`Attachment::add`], also for a feed that does not exist yet: an open one, or the reader's own personal feed. It is
    /// followed from its first entry on; should it become one that the reader may not have, it ends.
    pub async fn add_coming(&mut self, feed: FeedId, after: After) -> Result<(), ReadError> {
        self.add_found(feed, after, find_start_or_wait).await
    }

    async fn add_found(
        &mut self,
        feed: FeedId,
        after: After,
        find: fn(&Reads, &Ask) -> Result<Found, ReadError>,
    ) -> Result<(), ReadError> {
        self.finish_reading().await?;
        let slot = self.slots.get(&feed).copied();
        let named = || self.feeds.values().filter(|followed| followed.named).count();
        if self.feeds.len() >= self.limits.feeds && slot.is_none() && named() >= self.limits.feeds {
            return Err(ReadError::BadField { field: "feeds", problem: "are too many" });
        }
        if slot.is_none() {
            self.make_room();
        }
        let mut asks = self.asks(std::iter::once((feed.clone(), after, SeqId::ZERO)));
        let reads = self.reads.clone();
        let ask = asks.pop().expect("INVARIANT: one for each feed");
        let place = self.blocking.run(move || find(&reads, &ask)).await?;
        let slot = match slot {
            Some(slot) => {
                self.rewind(slot, after, place.0);
                slot
            }
            None => {
                let start = Start { feed, place: Some(place) };
                self.follow(start, Why::Named).expect("INVARIANT: it has a place")
            }
        };
        if let Some(followed) = self.feeds.get_mut(&slot) {
            followed.named = true;
        }
        self.announced.push(slot);
        self.catching_up = true;
        Ok(())
    }

    /// A feed that is followed is named again.
    fn rewind(&mut self, slot: u64, after: After, place: SeqId) {
        let Some(followed) = self.feeds.get(&slot) else { return };
        let only_named = followed.named && !self.is_wanted(followed, false);
        let cursor = match after {
            After::Seq(_) if only_named => place,
            After::Seq(_) => place.min(self.delivered(followed)),
            // Whatever is prepared or on its way is not skipped, and nothing is repeated.
            After::Head | After::Commit(_) => return,
        };
        let feed = followed.feed.clone();
        self.drop_ready(&feed, true);
        let head = self.reads.engine.head(&feed).map_or(SeqId::MAX, |head| head.seq);
        let followed = self.feeds.get_mut(&slot).expect("INVARIANT: looked up above");
        followed.cursor = cursor.min(head);
        followed.prev = None;
        self.replay_later(slot);
    }

    /// The newest place of which nothing waits in `ready`.
    fn delivered(&self, followed: &Followed) -> SeqId {
        let first = self.ready.iter().find_map(|delivery| match delivery {
            Delivery::Entry(view) if view.entry.feed == followed.feed => Some(view.entry.seq),
            Delivery::Gone(feed, gone) if *feed == followed.feed => Some(gone.from),
            _ => None,
        });
        first.map_or(followed.cursor, SeqId::prev)
    }

    /// Whether a feed is followed for any reason, or any but its name.
    fn is_wanted(&self, followed: &Followed, also_named: bool) -> bool {
        also_named && followed.named
            || followed.mine
            || followed.is_open && self.wants.matches(followed.feed.as_str())
    }

    /// Stops following a feed by name. When nothing else follows it, deliveries of it that were prepared are dropped.
    pub fn remove(&mut self, feed: &FeedId) {
        if let Some(slot) = self.slots.get(feed).copied()
            && let Some(followed) = self.feeds.get_mut(&slot)
        {
            followed.named = false;
            followed.mine &= !self.plain;
            let followed = &self.feeds[&slot];
            if self.is_wanted(followed, true) {
                return;
            }
            self.forget(slot);
        }
        self.drop_ready(feed, false);
    }

    fn drop_ready(&mut self, feed: &FeedId, keep_end: bool) {
        self.ready.retain(|delivery| match delivery {
            Delivery::Entry(view) => view.entry.feed != *feed,
            Delivery::Gone(of, _) => of != feed,
            Delivery::Ended(of) => of != feed || keep_end,
            Delivery::CaughtUp(_) => true,
        });
    }

    /// Drops what nothing wants any more.
    fn drop_unwanted(&mut self) {
        let unwanted: Vec<u64> = self
            .feeds
            .iter()
            .filter(|(_, followed)| !self.is_wanted(followed, true))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in unwanted {
            self.forget(slot);
        }
        let (slots, wants) = (&self.slots, &self.wants);
        let is_wanted = |feed: &FeedId| slots.contains_key(feed) || wants.matches(feed.as_str());
        self.ready.retain(|delivery| match delivery {
            Delivery::Entry(view) => is_wanted(&view.entry.feed),
            Delivery::Gone(feed, _) => is_wanted(feed),
            Delivery::Ended(_) | Delivery::CaughtUp(_) => true,
        });
        if let Some(scan) = &mut self.scan {
            scan.retain(|feed| wants.matches(feed.as_str()));
        }
        self.found.retain(|found| wants.matches(found.feed.as_str()));
    }

    /// Follows open feeds whose name matches, existing or created later; feeds of other kinds never match, and of open feeds
    /// that may not be read nothing is told. `after` is `Head`, or a commit that [`Attachment::settled`] once gave or that
    /// this gave for the same pattern; then `CaughtUp` comes after what was missed. A feed that is followed already is not
    /// read again from an older place.
    ///
    /// Entries committed after the number returned are delivered, earlier ones are not. One pattern takes the place of
    /// another with the same `id`.
    pub fn add_pattern(&mut self, id: u32, pattern: Pattern, after: After) -> u64 {
        self.remove_pattern(id);
        self.hub.watch(&pattern, &self.queue, id);
        // After registering: what is committed later is told.
        let newest = self.reads.engine.commit_no();
        if self.wants.is_empty() {
            self.swept = newest;
            self.found.clear();
            self.lost = false;
            self.scan = None;
        }
        let mut from = newest;
        let mut stage = Stage::Live;
        if let After::Commit(commit_no) = after {
            self.resuming |= !self.positions.is_empty();
            if commit_no < newest {
                from = commit_no;
                stage = self.scan_from(commit_no);
                self.settled.fetch_min(commit_no, Ordering::SeqCst);
            } else if self.scan.is_none() {
                self.catching_up = true;
            }
        }
        Arc::make_mut(&mut self.wants).insert(id, pattern, from, stage);
        from
    }

    /// What was committed since then is to be looked through.
    fn scan_from(&mut self, commit_no: u64) -> Stage {
        let scan = match &mut self.scan {
            Some(scan) if scan.has_begun() => return Stage::Waiting,
            Some(scan) => scan,
            none => none.insert(Scan::new(self.swept.min(commit_no))),
        };
        scan.lower(commit_no);
        scan.announced = true;
        // The scan comes across these too.
        self.found.clear();
        self.lost = false;
        Stage::Lagging
    }

    /// Stops following by a pattern. Feeds that nothing else follows are dropped, with deliveries that were prepared.
    pub fn remove_pattern(&mut self, id: u32) {
        let Some(want) = Arc::make_mut(&mut self.wants).remove(id) else { return };
        self.hub.unwatch(&want.pattern, &self.queue, id);
        self.drop_unwanted();
    }

    /// Follows all feeds of the reader, also those joined later. With `Commit`, `CaughtUp` comes after what was missed;
    /// otherwise they are followed from now on. When this is dropped half way, call it again.
    pub async fn add_mine(&mut self, after: After) -> Result<(), ReadError> {
        self.finish_reading().await?;
        if self.reads.principal.anonymous {
            return Err(Denied::Unauthenticated.into());
        }
        if !self.mine {
            // Registered before listing: a feed joined in between is told, or listed, or both.
            self.hub.follow_user(&self.reads.principal.uid, &self.queue);
            self.mine = true;
        }
        let added = self.follow_mine(after).await;
        if added.is_err() {
            self.remove_mine();
        }
        added
    }

    async fn follow_mine(&mut self, after: After) -> Result<(), ReadError> {
        let after = match after {
            After::Seq(_) => After::Head,
            after => after,
        };
        let reads = self.reads.clone();
        let listed = self.blocking.run(move || list_mine(&reads)).await?;
        for feeds in listed.chunks(STARTS_PAGE) {
            let new: Vec<_> = feeds.iter().filter(|(feed, _)| !self.is_mine(feed)).collect();
            let asks = self.asks(new.into_iter().map(|(feed, since)| (feed.clone(), after, since.prev())));
            let reads = self.reads.clone();
            let starts = self.blocking.run(move || starts(&reads, asks)).await?;
            for start in starts {
                let slot = self.follow(start, Why::Mine);
                if matches!(after, After::Commit(_)) {
                    self.announced.extend(slot);
                }
            }
        }
        if let After::Commit(commit_no) = after {
            self.settled.fetch_min(commit_no, Ordering::SeqCst);
            self.catching_up = true;
        }
        Ok(())
    }

    /// Stops following the reader's own feeds, but for those that are followed for other reasons.
    pub fn remove_mine(&mut self) {
        if !std::mem::take(&mut self.mine) {
            return;
        }
        self.hub.unfollow_user(&self.reads.principal.uid, &self.queue);
        self.feeds.values_mut().for_each(|followed| followed.mine = false);
        self.joined.clear();
        self.rescan = false;
        self.drop_unwanted();
    }
}
