//! Windows of commits: taken, told, closed.

use std::sync::Mutex;
use std::time::Duration;

use feedlog_core::ids::FeedId;
use futures_util::stream::{self, StreamExt as _};

use super::lock;
use super::parked::Stuck;
use super::plan::{Cut, Run, cut};
use super::rows::*;
use super::worker::{Worker, rest};
use crate::subscribe::place_at;

/// Names of feeds that are looked at together when change rows are missing.
const FEEDS_PAGE: usize = 256;
/// Change rows that are read together.
const COMMITS_PAGE: u64 = 256;
/// Commits without anything wanted after which the cursor is written all the same.
const UNWRITTEN_COMMITS_MAX: u64 = 1_000;

/// What is left of a window when every run was told as far as it goes.
#[derive(Default)]
pub(super) struct Left {
    /// Calls that fail again and again, with the rest of their runs.
    pub(super) stuck: Vec<Stuck>,
    /// Runs of feeds that are parked already.
    pub(super) later: Vec<Run>,
}

impl Worker {
    /// One window or one piece of a replay; waits while there is nothing to do.
    pub(super) async fn step(&self) {
        let has_jobs = lock(&self.desk().vitals).jobs > 0;
        if has_jobs && self.is_replays_turn() {
            return self.replay().await;
        }
        let place = self.place();
        if place.upto > place.cursor || self.open_window(place, has_jobs).await {
            self.tell_window().await;
        }
    }

    /// Waits for commits and writes the bounds of a window; `false` when there is a replay, or nothing wanted in them.
    async fn open_window(&self, place: StoredPlace, has_jobs: bool) -> bool {
        let office = &self.desk().office;
        if !has_jobs {
            self.news(place.cursor).await;
        }
        if office.engine.commit_no() <= place.cursor {
            return false;
        }
        rest(Duration::from_millis(self.desk().endpoint.coalesce_ms)).await;
        let Some(Cut { upto, runs, .. }) = self.look(place.cursor).await else {
            tracing::warn!(
                endpoint = &*self.desk().endpoint.name,
                "commits are not listed any more: looking at all feeds"
            );
            self.write(StoredPlace { upto: office.engine.commit_no(), ..place }).await;
            return true;
        };
        let next = StoredPlace { upto, ..place };
        if !runs.is_empty() {
            // Before the first call: after a crash the window is cut the same way.
            self.write(next).await;
            return true;
        }
        let next = StoredPlace { cursor: upto, ..next };
        let written = lock(&self.desk().vitals).written;
        if upto.saturating_sub(written) >= UNWRITTEN_COMMITS_MAX {
            self.write(next).await;
        } else {
            self.set(next);
        }
        false
    }

    /// Waits until something was committed after `cursor`, or there is a replay.
    async fn news(&self, cursor: u64) {
        let office = &self.desk().office;
        loop {
            let committed = office.hub.news().notified();
            let mut committed = std::pin::pin!(committed);
            // Registered before looking.
            committed.as_mut().enable();
            if office.engine.commit_no() > cursor {
                return;
            }
            tokio::select! {
                () = committed => {}
                () = self.desk().bell.notified() => return,
            }
        }
    }

    /// The next window; `None` where change rows are missing.
    async fn look(&self, cursor: u64) -> Option<Cut> {
        let desk = self.desk().clone();
        self.read(move || {
            let limits = &desk.office.limits;
            let newest = desk.office.engine.commit_no();
            let changes = desk.office.engine.changes(cursor, limits.window_commits_max.max(1))?;
            let is_page = changes.len() >= limits.window_commits_max;
            let cut = cut(&changes, cursor, limits.window_entries_max, |feed| desk.endpoint.may_want(feed));
            let cut = cut.filter(|cut| cut.upto > cursor || newest <= cursor);
            Ok(cut.map(|cut| Cut { full: (cut.full || is_page) && !cut.runs.is_empty(), ..cut }))
        })
        .await
    }

    /// Makes the calls of the window that is open, and closes it.
    async fn tell_window(&self) {
        let place = self.place();
        if place.named.is_none()
            && let Some(runs) = self.runs(place.cursor, place.upto).await
        {
            let left = self.tell_or_park(runs).await;
            let told = StoredPlace { cursor: place.upto, ..place };
            // While it is behind, the next window needs no write of its own.
            let next = self.look(told.cursor).await.filter(|next| next.full);
            let upto = next.map_or(told.cursor, |next| next.upto);
            return self.settle(left, StoredPlace { upto, ..told }).await;
        }
        let mut named = place.named.clone().and_then(|name| FeedId::parse(&name).ok());
        loop {
            let (runs, last) = self.runs_by_name(named, place.cursor, place.upto).await;
            let left = self.tell_or_park(runs).await;
            let Some(last) = last else {
                return self
                    .settle(left, StoredPlace { cursor: place.upto, named: None, ..place.clone() })
                    .await;
            };
            let named_now = Some(last.as_str().to_owned());
            self.settle(left, StoredPlace { named: named_now, ..place.clone() }).await;
            named = Some(last);
        }
    }

    /// Tells runs of different feeds at the same time; what is stuck does not hold up the others.
    pub(super) async fn tell_or_park(&self, runs: Vec<Run>) -> Left {
        let at_once = self.desk().office.limits.feeds_at_once_max.max(1);
        let left = Mutex::new(Left::default());
        let tell = |run: Run| {
            let left = &left;
            async move {
                if self.is_parked(&run.feed) {
                    lock(left).later.push(run);
                } else if let Some(stuck) = self.tell_run(run, None, Some(0)).await {
                    lock(left).stuck.push(stuck);
                }
            }
        };
        stream::iter(runs).for_each_concurrent(at_once, tell).await;
        left.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What was committed after `after` up to `upto`; `None` when not all of it is listed any more.
    pub(super) async fn runs(&self, after: u64, upto: u64) -> Option<Vec<Run>> {
        let desk = self.desk().clone();
        self.read(move || {
            let mut changes = Vec::new();
            let mut next = after;
            while next < upto {
                let limit = usize::try_from((upto - next).min(COMMITS_PAGE)).unwrap_or(1);
                let page = desk.office.engine.changes(next, limit)?;
                match (page.first(), page.last()) {
                    (Some(first), Some(last)) if first.commit_no == next + 1 => next = last.commit_no,
                    _ => return Ok(None),
                }
                changes.extend(page);
            }
            changes.retain(|change| change.commit_no <= upto);
            let cut = cut(&changes, after, u64::MAX, |feed| desk.endpoint.may_want(feed));
            Ok(cut.filter(|cut| cut.upto == upto).map(|cut| cut.runs))
        })
        .await
    }

    /// The same by looking at feeds, after a name; and the name up to which was looked, `None` when there are no more.
    pub(super) async fn runs_by_name(
        &self,
        after_name: Option<FeedId>,
        after: u64,
        upto: u64,
    ) -> (Vec<Run>, Option<FeedId>) {
        let desk = self.desk().clone();
        self.read(move || {
            let engine = &*desk.office.engine;
            let feeds = engine.feeds(after_name.as_ref(), FEEDS_PAGE)?;
            let last = feeds.last().cloned();
            let mut runs = Vec::new();
            for feed in feeds {
                if !desk.endpoint.may_want(&feed) {
                    continue;
                }
                let (from, last) = (place_at(engine, &feed, after)?, place_at(engine, &feed, upto)?);
                if from < last {
                    runs.push(Run { feed, first: from.next(), last });
                }
            }
            Ok((runs, last))
        })
        .await
    }
}
