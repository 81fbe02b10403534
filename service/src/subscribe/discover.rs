//! Feeds that an attachment did not know of: joined, found by pattern, or come across in a scan.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use feedlog_core::ids::{FeedId, SeqId};

use super::follow::{STARTS_PAGE, Why};
use super::scan::{self, RangePage, Scan, Step, Task};
use super::start::{Start, list_mine, starts};
use super::{Attachment, Fetched, Followed, Found};
use crate::views::After;

/// Part of the followed feeds that give way at a time.
const SHARE_DROPPED: usize = 8;

impl Attachment {
    /// What the hub told of patterns.
    pub(super) fn note_found(&mut self, found: HashMap<FeedId, (SeqId, u64)>, lost: bool) {
        if self.wants.is_empty() {
            return;
        }
        self.found.extend(found.into_iter().map(|(feed, (after, commit_no))| Found {
            feed,
            after,
            commit_no,
        }));
        self.found.sort_by_key(|found| found.commit_no);
        self.lost |= lost;
        self.sweep_to = self.taken;
        if self.found.is_empty() && !self.lost {
            self.swept = self.swept.max(self.sweep_to);
        }
    }

    pub(super) fn look_at_found(&mut self) {
        let found = self.found.iter().filter(|found| !self.slots.contains_key(&found.feed));
        let feeds: Vec<_> = found.map(|found| found.feed.clone()).collect();
        // Those that no pattern wants any more have no place.
        let mut asks = self.asks(feeds.into_iter().map(|feed| (feed, After::Seq(SeqId::MAX), SeqId::ZERO)));
        asks.retain(|ask| ask.covered.is_some());
        self.found.clear();
        let reads = self.reads.clone();
        self.read(move || starts(&reads, asks).map(Fetched::Found));
    }

    pub(super) fn apply_found(&mut self, starts: Vec<Start>) {
        if self.scan.is_some() {
            // It comes across all of these.
            return;
        }
        for start in starts {
            // Those for which there is no room are read commit by commit.
            self.lost = self.lost || !self.follow_found(start);
        }
        if !self.lost {
            self.swept = self.swept.max(self.sweep_to);
        }
    }

    /// `false` when there is no room.
    fn follow_found(&mut self, start: Start) -> bool {
        let wanted = start.is_open() && self.wants.matches(start.feed.as_str());
        if !wanted || self.slots.contains_key(&start.feed) {
            return true;
        }
        let has_room = self.make_room();
        if has_room {
            self.follow(start, Why::Pattern);
        }
        has_room
    }

    /// Feeds at whose places an earlier attachment was, as far as patterns match them.
    pub(super) fn look_at_positions(&mut self) {
        let names = self.positions.keys().filter(|feed| self.wants.matches(feed.as_str()));
        let names: Vec<FeedId> = names.take(STARTS_PAGE).cloned().collect();
        self.resuming = names.len() == STARTS_PAGE;
        let asks = self.asks(names.iter().map(|feed| (feed.clone(), After::Head, SeqId::ZERO)));
        for feed in &names {
            self.positions.remove(feed);
        }
        let reads = self.reads.clone();
        self.read(move || starts(&reads, asks).map(Fetched::Resumed));
    }

    pub(super) fn apply_resumed(&mut self, starts: Vec<Start>) {
        for start in starts {
            if start.is_open() && self.wants.matches(start.feed.as_str()) {
                self.follow(start, Why::Pattern);
            }
        }
    }

    /// What the hub told of the reader's own feeds.
    pub(super) fn look_at_joined(&mut self) {
        let reads = self.reads.clone();
        if std::mem::take(&mut self.rescan) {
            // Which feeds are new is not known any more: all are told, from their start for this user on.
            return self.read(move || list_mine(&reads).map(Fetched::Listed));
        }
        let count = self.joined.len().min(STARTS_PAGE);
        let mut joined: Vec<_> = self.joined.drain(..count).collect();
        joined.retain(|(feed, _)| !self.is_mine(feed));
        let asks = self.asks(joined.into_iter().map(|(feed, after)| (feed, After::Seq(after), SeqId::ZERO)));
        self.read(move || starts(&reads, asks).map(Fetched::Joined));
    }

    pub(super) fn apply_listed(&mut self, feeds: Vec<(FeedId, SeqId)>) {
        for (feed, since) in feeds {
            if self.mine && !self.is_mine(&feed) {
                self.joined.push((feed, since.prev()));
            }
        }
    }

    pub(super) fn apply_joined(&mut self, starts: Vec<Start>) {
        for start in starts {
            if self.mine {
                // A feed that was left again meanwhile has nothing to show.
                self.follow(start, Why::Mine);
            }
        }
    }

    pub(super) fn go_on_scanning(&mut self) {
        let newest = self.reads.engine.commit_no();
        let Some(scan) = &mut self.scan else { return };
        let task = scan.task(newest);
        let after = scan.after;
        if self.live.is_empty() && !self.has_news() && !self.wants.has_waiting() {
            self.settled.fetch_max(after.min(self.taken), Ordering::SeqCst);
        }
        if matches!(task, Task::End) {
            return self.end_scan();
        }
        let (reads, wants, swept) = (self.reads.clone(), self.wants.clone(), self.swept);
        self.read(move || scan::run(&reads, &wants, swept, task).map(Fetched::Scanned));
    }

    pub(super) fn apply_scanned(&mut self, step: Step) {
        // Nothing matches any more, or so much was removed that it began anew.
        let Some(scan) = &mut self.scan else { return };
        let pages = match step {
            Step::Ranges(pages) => pages,
            step => {
                let (slots, wants) = (&self.slots, &self.wants);
                // What is followed delivers its entries itself.
                return scan.found(step, |feed| !slots.contains_key(feed) && wants.matches(feed.as_str()));
            }
        };
        self.reached = self.reached.max(scan.target.unwrap_or(0));
        for RangePage { feed, covered, page } in pages {
            if let (Some(scan), Some(page)) = (&mut self.scan, page)
                && scan.covered(&feed, covered)
            {
                self.hand_out(page);
            } else if let Some(scan) = &mut self.scan {
                scan.covered(&feed, covered);
            }
        }
    }

    fn end_scan(&mut self) {
        let Some(scan) = self.scan.take() else { return };
        self.swept = self.swept.max(scan.after);
        self.catching_up |= scan.announced;
        if let Some(first) = Arc::make_mut(&mut self.wants).advance() {
            let mut next = Scan::new(first.min(self.swept));
            next.announced = true;
            self.scan = Some(next);
        }
    }

    /// Makes room for one more feed: of those that patterns found and that are caught up, those that had nothing for longest
    /// give way. Their next entry finds them again. `false` when there is no room.
    pub(super) fn make_room(&mut self) -> bool {
        let max = self.limits.feeds;
        if self.feeds.len() < max {
            return true;
        }
        if self.scan.is_some() {
            // It leaves out what is followed, and would come across entries that were delivered.
            return false;
        }
        if self.hub.low_water() < self.swept {
            // A scan went beyond what was published: of a feed that is followed, more may be on its way.
            return false;
        }
        let may_go = |followed: &Followed| {
            // What was committed up to `swept` is never looked at again: so none of it comes twice.
            !followed.named && !followed.mine && !followed.replaying && followed.known <= self.swept
        };
        let idle = self.feeds.iter().filter(|(_, followed)| may_go(followed));
        let mut idle: Vec<(u64, u64)> = idle.map(|(slot, followed)| (followed.used, *slot)).collect();
        idle.sort_unstable();
        let wanted = self.feeds.len() - max + 1 + max / SHARE_DROPPED;
        for (_, slot) in idle.into_iter().take(wanted) {
            let followed = &self.feeds[&slot];
            if self.hub.unfollow_quiet(&followed.feed, &self.queue, slot, followed.cursor) {
                let feed = followed.feed.clone();
                self.feeds.remove(&slot);
                self.slots.remove(&feed);
            }
        }
        self.feeds.len() < max
    }
}
