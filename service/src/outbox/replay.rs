//! What is told again: dead letters, a feed from a place, everything after a commit. A piece at a time, in turn with
//! windows.

use feedlog_core::ids::{FeedId, SeqId};
use futures_util::stream::{self, StreamExt as _};

use super::calls::{Fate, Task};
use super::plan::Run;
use super::rows::*;
use super::worker::{UNAVAILABLE_WAIT, Worker, rest};
use super::{Desk, lock};

impl Worker {
    /// A piece of the oldest replay.
    pub(super) async fn replay(&self) {
        let Desk { office, endpoint, vitals, .. } = &**self.desk();
        let prefix = job_prefix(&endpoint.name);
        let rows = match office.shelf.scan(&prefix, None, 1).await {
            Ok(rows) => rows,
            Err(_) => return rest(UNAVAILABLE_WAIT).await,
        };
        let Some((key, bytes)) = rows.into_iter().next() else {
            lock(vitals).jobs = 0;
            return;
        };
        let number = number_of(&key).unwrap_or_default();
        let mut rows = Vec::new();
        let next = match decode(&bytes) {
            Ok(StoredJob::Dead { upto, at }) => self.replay_dead(number, upto, at, &mut rows).await,
            Ok(StoredJob::Feed { feed, at, last }) => self.replay_feed(number, feed, at, last).await,
            Ok(StoredJob::Commits { at, upto }) => self.replay_commits(number, at, upto).await,
            Err(_) => {
                tracing::error!(endpoint = &*endpoint.name, "a replay cannot be read and is dropped");
                None
            }
        };
        let removed = rows.len();
        let is_done = next.is_none();
        rows.push((key, next.map(|job| encode(&job))));
        while office.shelf.put(rows.clone()).await.is_err() {
            rest(UNAVAILABLE_WAIT).await;
        }
        let mut vitals = lock(vitals);
        vitals.dead = vitals.dead.saturating_sub(removed);
        vitals.jobs = vitals.jobs.saturating_sub(usize::from(is_done));
    }

    /// The next dead letter; its row goes when it was taken.
    async fn replay_dead(
        &self,
        number: u64,
        upto: u64,
        at: u64,
        rows: &mut Vec<(Vec<u8>, Option<bytes::Bytes>)>,
    ) -> Option<StoredJob> {
        let shelf = &self.desk().office.shelf;
        let prefix = dead_prefix(&self.desk().endpoint.name);
        let found = loop {
            match shelf.scan(&prefix, Some(&numbered(prefix.clone(), at)), 1).await {
                Ok(found) => break found,
                Err(_) => rest(UNAVAILABLE_WAIT).await,
            }
        };
        let (key, bytes) = found.into_iter().next()?;
        let letter = number_of(&key)?;
        if letter > upto {
            return None;
        }
        let subject = decode::<StoredDead>(&bytes).ok().and_then(|dead| dead.subject());
        let fate = match subject {
            Some((run, part)) => {
                let replay = Some(number);
                self.tell(&mut Task {
                    run,
                    part,
                    cut: false,
                    replay,
                    letter: Some(letter),
                    may_park: false,
                    tries: 0,
                })
                .await
            }
            None => Fate::Dead,
        };
        if matches!(fate, Fate::Done) {
            rows.push((key, None));
        }
        Some(StoredJob::Dead { upto, at: letter })
    }

    async fn replay_feed(&self, number: u64, feed: String, at: u64, last: u64) -> Option<StoredJob> {
        let to = last.min(at.saturating_add(self.desk().office.limits.window_entries_max.max(1) - 1));
        let name = FeedId::parse(&feed).ok()?;
        if at <= to {
            self.tell_run(Run { feed: name, first: SeqId(at), last: SeqId(to) }, Some(number), None).await;
        }
        (to < last).then_some(StoredJob::Feed { feed, at: to + 1, last })
    }

    async fn replay_commits(&self, number: u64, at: u64, upto: u64) -> Option<StoredJob> {
        let to = upto.min(at.saturating_add(self.desk().office.limits.window_commits_max.max(1) as u64));
        if let Some(runs) = self.runs(at, to).await {
            self.tell_all(runs, Some(number)).await;
            return (to < upto).then_some(StoredJob::Commits { at: to, upto });
        }
        let mut named = None;
        loop {
            let (runs, last) = self.runs_by_name(named, at, upto).await;
            self.tell_all(runs, Some(number)).await;
            named = Some(last?);
        }
    }

    async fn tell_all(&self, runs: Vec<Run>, replay: Option<u64>) {
        let at_once = self.desk().office.limits.feeds_at_once_max.max(1);
        stream::iter(runs)
            .for_each_concurrent(at_once, |run| async {
                self.tell_run(run, replay, None).await;
            })
            .await;
    }
}
