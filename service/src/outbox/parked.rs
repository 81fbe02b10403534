//! Feeds whose call fails again and again are parked: the window goes on without them, and they are told apart, each in
//! its order, until they have caught up. Only so many; when there is no room, windows wait.
//!
//! What of a feed was begun keeps its bounds, and with them the ids of its calls; what comes after it is one further run,
//! which grows until it is begun.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use feedlog_core::ids::{FeedId, SeqId};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::lock;
use super::plan::Run;
use super::rows::*;
use super::windows::Left;
use super::worker::{UNAVAILABLE_WAIT, Worker, rest};
use crate::error::ReadError;

/// Feeds of one endpoint that are parked at a time.
pub(super) const PARKED_MAX: usize = 64;
/// Calls about parked feeds that one endpoint has under way at a time.
pub(super) const PARKED_CALLS_MAX: usize = 2;
/// Failed tries after which a feed is parked.
pub(super) const PARK_TRIES: u32 = 3;

/// What is left of a run whose next call fails again and again.
pub(super) struct Stuck {
    pub(super) rest: Run,
    /// Failed tries of that call.
    pub(super) tries: u32,
}

impl Worker {
    pub(super) fn is_parked(&self, feed: &FeedId) -> bool {
        lock(&self.parked).contains_key(feed)
    }

    /// Takes room for one more feed of this window, if there is any; it is parked when the window is closed.
    pub(super) fn take_room(&self) -> bool {
        let parked = lock(&self.parked).len();
        let take = |taken: usize| (parked + taken < PARKED_MAX).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    /// Reads what is parked.
    pub(super) async fn load_parked(&self) -> Result<(), ReadError> {
        let prefix = parked_prefix(&self.desk().endpoint.name);
        let mut after: Option<Vec<u8>> = None;
        let mut parked = HashMap::new();
        loop {
            let rows = self.desk().office.shelf.scan(&prefix, after.as_deref(), 100).await?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for (key, bytes) in rows {
                let name = std::str::from_utf8(&key[prefix.len()..]).map_err(|_| ReadError::Damaged)?;
                let feed = FeedId::parse(name).map_err(|_| ReadError::Damaged)?;
                parked.insert(feed, decode(&bytes)?);
            }
        }
        *lock(&self.parked) = parked;
        self.show_parked();
        Ok(())
    }

    fn show_parked(&self) {
        let count = lock(&self.parked).len();
        lock(&self.desk().vitals).parked = count;
    }

    fn parked_key(&self, feed: &FeedId) -> Vec<u8> {
        let mut key = parked_prefix(&self.desk().endpoint.name);
        key.extend_from_slice(feed.as_str().as_bytes());
        key
    }

    /// Closes a window: what is left of it is parked in the same batch that moves the place.
    pub(super) async fn settle(&self, mut left: Left, place: StoredPlace) {
        loop {
            let turn = self.parking.lock().await;
            // Those that have caught up meanwhile are told like others.
            let (later, free): (Vec<_>, Vec<_>) =
                left.later.into_iter().partition(|run| self.is_parked(&run.feed));
            left.later = later;
            if !free.is_empty() {
                drop(turn);
                let more = self.tell_or_park(free).await;
                left.stuck.extend(more.stuck);
                left.later.extend(more.later);
                continue;
            }
            let mut parked = lock(&self.parked).clone();
            let mut rows = Vec::new();
            for Stuck { rest, tries } in &left.stuck {
                let (first, last) = (rest.first.0, rest.last.0);
                let row = StoredParked { first, last, upto: last, tries: *tries };
                rows.push((self.parked_key(&rest.feed), Some(encode(&row))));
                parked.insert(rest.feed.clone(), row);
            }
            for run in &left.later {
                if let Some(row) = parked.get_mut(&run.feed) {
                    row.upto = run.last.0;
                    rows.push((self.parked_key(&run.feed), Some(encode(row))));
                }
            }
            rows.push(self.place_row(&place));
            while self.desk().office.shelf.put(rows.clone()).await.is_err() {
                rest(UNAVAILABLE_WAIT).await;
            }
            *lock(&self.parked) = parked;
            self.taken.store(0, Ordering::SeqCst);
            self.written(place);
            self.show_parked();
            drop(turn);
            return self.parked_bell.notify_one();
        }
    }

    /// Tells parked feeds until the end of time.
    pub(super) async fn tell_parked(&self) {
        let mut under_way = FuturesUnordered::new();
        let mut begun: HashSet<FeedId> = HashSet::new();
        loop {
            let feeds: Vec<FeedId> = lock(&self.parked).keys().cloned().collect();
            for feed in feeds {
                if begun.insert(feed.clone()) {
                    under_way.push(async move {
                        while self.tell_parked_run(&feed).await {}
                        feed
                    });
                }
            }
            tokio::select! {
                Some(feed) = under_way.next(), if !under_way.is_empty() => {
                    begun.remove(&feed);
                }
                () = self.parked_bell.notified() => {}
            }
        }
    }

    /// Tells what of a parked feed was begun; `false` when it has caught up.
    async fn tell_parked_run(&self, feed: &FeedId) -> bool {
        let Some(row) = lock(&self.parked).get(feed).cloned() else { return false };
        let run = Run { feed: feed.clone(), first: SeqId(row.first), last: SeqId(row.last) };
        self.tell_run_after(run, row.tries).await;
        let _turn = self.parking.lock().await;
        // It may have grown.
        let Some(row) = lock(&self.parked).get(feed).cloned() else { return false };
        let next = (row.upto > row.last).then(|| StoredParked {
            first: row.last + 1,
            last: row.upto,
            upto: row.upto,
            tries: 0,
        });
        let write = (self.parked_key(feed), next.as_ref().map(encode));
        while self.desk().office.shelf.put(vec![write.clone()]).await.is_err() {
            rest(UNAVAILABLE_WAIT).await;
        }
        let goes_on = next.is_some();
        match next {
            Some(next) => drop(lock(&self.parked).insert(feed.clone(), next)),
            None => drop(lock(&self.parked).remove(feed)),
        }
        self.show_parked();
        goes_on
    }
}
