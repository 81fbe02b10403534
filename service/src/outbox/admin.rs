//! What administrators see of the outbox, and what they can ask of it.

use feedlog_core::ids::{FeedId, SeqId, TimeMs};
use tokio::sync::oneshot;

use super::rows::*;
use super::worker::{UNAVAILABLE_WAIT, Worker, rest};
use super::{Desk, lock};
use crate::admin::Admin;
use crate::error::{ReadError, SubmitError};
use crate::subscribe::place_at;

/// Why an endpoint gets no calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// An administrator said so.
    Asked,
    /// The endpoint answered 410 Gone.
    Gone,
}

impl From<StoredPause> for Pause {
    fn from(pause: StoredPause) -> Self {
        match pause {
            StoredPause::Asked => Self::Asked,
            StoredPause::Gone => Self::Gone,
        }
    }
}

/// How an endpoint is.
#[derive(Debug, Clone)]
pub struct EndpointStatus {
    /// Its name.
    pub name: std::sync::Arc<str>,
    /// It was told of everything that was committed up to here.
    pub cursor: u64,
    /// How many commits it is behind.
    pub lag_commits: u64,
    /// Calls that wait for their answer.
    pub in_flight: usize,
    /// Calls that failed and wait to be made again.
    pub retrying: usize,
    /// Feeds whose calls fail again and again; they are told apart and hold up nobody else.
    pub parked: usize,
    /// Why it gets none.
    pub paused: Option<Pause>,
    /// There is no room for more dead letters: it stands still.
    pub full: bool,
    /// Dead letters.
    pub dead: usize,
    /// Replays that are not done.
    pub replays: usize,
    /// Calls that were taken since the start.
    pub delivered: u64,
    /// Failed tries since the start.
    pub retried: u64,
    /// When the last call was taken, since the start.
    pub last_delivered_ms: Option<TimeMs>,
    /// Why the last one failed, and when. Never what the endpoint said.
    pub last_error: Option<(String, TimeMs)>,
}

/// A call that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it.
    pub number: u64,
    /// The id of the call.
    pub id: String,
    /// The feed.
    pub feed: String,
    /// First entry.
    pub first: SeqId,
    /// Last entry.
    pub last: SeqId,
    /// How often it was tried.
    pub tries: u32,
    /// Why the last try failed.
    pub error: String,
    /// When it was given up.
    pub time_ms: TimeMs,
}

/// What is told again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// All dead letters.
    Dead,
    /// A feed from this place up to what the endpoint was told of.
    Feed(FeedId, SeqId),
    /// Everything committed after this.
    AfterCommit(u64),
}

/// Why the outbox does not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OutboxError {
    /// No such endpoint is configured.
    #[error("no such endpoint")]
    NoSuchEndpoint,
    /// There is nothing to tell again.
    #[error("there is nothing to replay")]
    Nothing,
    /// As many replays as may wait do.
    #[error("too many replays are not done yet")]
    TooMany,
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store cannot be written.
    #[error(transparent)]
    Write(#[from] SubmitError),
}

type Reply<T> = oneshot::Sender<Result<T, OutboxError>>;

/// What a worker is asked, so that it alone moves its place.
pub(super) enum Ask {
    /// The endpoint answered 410.
    Gone,
    Pause(bool, Reply<()>),
    Replay(Replay, Reply<u64>),
    /// All dead letters, or one.
    DropDead(Option<u64>, Reply<u64>),
    /// Everything up to the newest commit.
    DropBacklog(Reply<u64>),
    DropReplays(Reply<u64>),
}

impl Worker {
    /// Does it; `true` when what is under way is to be dropped.
    pub(super) async fn answer(&self, ask: Ask) -> bool {
        // Whoever asked may be gone; it is done all the same.
        match ask {
            Ask::Gone => {
                tracing::error!(endpoint = &*self.desk().endpoint.name, "the endpoint is gone (410): paused");
                if self.pause(Some(StoredPause::Gone)).await.is_err() {
                    // It is called again, is gone again, and then it may be written.
                    rest(UNAVAILABLE_WAIT).await;
                }
                true
            }
            Ask::Pause(on, reply) => {
                let _ = reply.send(self.pause(on.then_some(StoredPause::Asked)).await);
                // Also when it failed: the place may be another now than the one that is worked on.
                true
            }
            Ask::Replay(replay, reply) => {
                let _ = reply.send(self.add_replay(replay).await);
                self.desk().bell.notify_one();
                false
            }
            Ask::DropDead(number, reply) => {
                let dropped = self.drop_rows(dead_prefix(&self.desk().endpoint.name), number).await;
                if let Ok(count) = &dropped {
                    let mut vitals = lock(&self.desk().vitals);
                    vitals.dead = vitals.dead.saturating_sub(usize::try_from(*count).unwrap_or(usize::MAX));
                }
                // A letter that is being told again must not come back.
                let has_replays = lock(&self.desk().vitals).jobs > 0;
                let _ = reply.send(dropped);
                has_replays
            }
            Ask::DropReplays(reply) => {
                let dropped = self.drop_rows(job_prefix(&self.desk().endpoint.name), None).await;
                let changed = dropped.as_ref().is_ok_and(|count| *count > 0);
                if changed {
                    lock(&self.desk().vitals).jobs = 0;
                }
                let _ = reply.send(dropped);
                changed
            }
            Ask::DropBacklog(reply) => {
                let _ = reply.send(self.drop_backlog().await);
                true
            }
        }
    }

    async fn pause(&self, paused: Option<StoredPause>) -> Result<(), OutboxError> {
        self.catch_up().await?;
        Ok(self.try_write(StoredPlace { paused, ..self.place() }).await?)
    }

    async fn drop_backlog(&self) -> Result<u64, OutboxError> {
        self.catch_up().await?;
        let newest = self.desk().office.engine.commit_no();
        let place = self.place();
        let skipped = newest.saturating_sub(place.cursor);
        // What is parked lies behind the cursor: first, so that nothing is told after the answer.
        self.drop_rows(parked_prefix(&self.desk().endpoint.name), None).await?;
        self.try_write(StoredPlace { cursor: newest, upto: newest, named: None, ..place }).await?;
        Ok(skipped)
    }

    /// What is under way may have handed over a place that is not noted here yet: takes up the stored one.
    async fn catch_up(&self) -> Result<(), OutboxError> {
        let Desk { office, endpoint, .. } = &**self.desk();
        // Writes are done in the order in which they were handed over: behind this one, which removes nothing, lie none.
        office.shelf.put(vec![(barrier_key(&endpoint.name), None)]).await?;
        if let Some(bytes) = office.shelf.get(&place_key(&endpoint.name)).await? {
            self.written(decode(&bytes)?);
        }
        Ok(())
    }

    async fn add_replay(&self, replay: Replay) -> Result<u64, OutboxError> {
        let Desk { office, endpoint, vitals, .. } = &**self.desk();
        let cursor = self.place().cursor;
        let number = {
            let mut vitals = lock(vitals);
            if vitals.jobs >= office.limits.jobs_max {
                return Err(OutboxError::TooMany);
            }
            // A letter that dies from now on has a higher number.
            vitals.next_number(office.clock.now_ms())
        };
        let job = match replay {
            Replay::Dead if lock(vitals).dead == 0 => return Err(OutboxError::Nothing),
            Replay::Dead => StoredJob::Dead { upto: number, at: 0 },
            Replay::AfterCommit(after) if after >= cursor => return Err(OutboxError::Nothing),
            Replay::AfterCommit(after) => StoredJob::Commits { at: after, upto: cursor },
            Replay::Feed(feed, _) if !endpoint.may_want(&feed) => return Err(OutboxError::Nothing),
            Replay::Feed(feed, from) => {
                // Never by `office.blocking`: what is under way, and is not polled now, may hold all of it.
                let (engine, name) = (office.engine.clone(), feed.clone());
                let last = office.callers.run(move || place_at(&*engine, &name, cursor)).await?;
                if from > last {
                    return Err(OutboxError::Nothing);
                }
                StoredJob::Feed { feed: feed.as_str().to_owned(), at: from.0.max(1), last: last.0 }
            }
        };
        let key = numbered(job_prefix(&endpoint.name), number);
        office.shelf.put(vec![(key, Some(encode(&job)))]).await?;
        lock(vitals).jobs += 1;
        Ok(number)
    }

    async fn drop_rows(&self, prefix: Vec<u8>, only: Option<u64>) -> Result<u64, OutboxError> {
        let shelf = &self.desk().office.shelf;
        let mut dropped = 0;
        loop {
            let after = only.map(|number| numbered(prefix.clone(), number.saturating_sub(1)));
            let limit = if only.is_some() { 1 } else { 1000 };
            let mut keys: Vec<_> =
                shelf.scan(&prefix, after.as_deref(), limit).await?.into_iter().map(|(key, _)| key).collect();
            keys.retain(|key| only.is_none_or(|number| number_of(key) == Some(number)));
            let count = keys.len() as u64;
            if count == 0 {
                return Ok(dropped);
            }
            shelf.put(keys.into_iter().map(|key| (key, None)).collect()).await?;
            dropped += count;
        }
    }
}

impl Desk {
    fn status(&self) -> EndpointStatus {
        let vitals = lock(&self.vitals).clone();
        EndpointStatus {
            name: self.endpoint.name.clone(),
            cursor: vitals.cursor,
            lag_commits: self.office.engine.commit_no().saturating_sub(vitals.cursor),
            in_flight: vitals.in_flight,
            retrying: vitals.retrying,
            parked: vitals.parked,
            paused: vitals.paused,
            full: vitals.full && vitals.dead >= self.office.limits.dead_max,
            dead: vitals.dead,
            replays: vitals.jobs,
            delivered: vitals.delivered,
            retried: vitals.retried,
            last_delivered_ms: vitals.last_delivered_ms,
            last_error: vitals.last_error,
        }
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, OutboxError> {
        let closing = || OutboxError::Write(SubmitError::Unavailable("the endpoint does not work"));
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| closing())?;
        answer.await.map_err(|_| closing())?
    }
}

impl Admin {
    fn desk(&self, endpoint: &str) -> Result<&Desk, OutboxError> {
        let desks = self.inner.outbox.get().map(|outbox| &outbox.desks[..]).unwrap_or_default();
        let desk = desks.iter().find(|desk| *desk.endpoint.name == *endpoint);
        desk.map(|desk| &**desk).ok_or(OutboxError::NoSuchEndpoint)
    }

    /// All endpoints of the outbox, in the order of the configuration.
    pub fn outbox(&self) -> Vec<EndpointStatus> {
        let desks = self.inner.outbox.get().map(|outbox| &outbox.desks[..]).unwrap_or_default();
        desks.iter().map(|desk| desk.status()).collect()
    }

    /// Dead letters of an endpoint with a number above `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// No such endpoint, or the store cannot be read.
    pub async fn outbox_dead(
        &self,
        endpoint: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, OutboxError> {
        let desk = self.desk(endpoint)?;
        let prefix = dead_prefix(endpoint);
        let after = after.map(|after| numbered(prefix.clone(), after));
        let rows = desk.office.shelf.scan(&prefix, after.as_deref(), limit.clamp(1, 1000)).await?;
        let letter = |(key, bytes): (Vec<u8>, bytes::Bytes)| {
            let dead: StoredDead = decode(&bytes)?;
            Ok(DeadLetter {
                number: number_of(&key).ok_or(ReadError::Damaged)?,
                id: dead.id,
                feed: dead.feed,
                first: SeqId(dead.first),
                last: SeqId(dead.last),
                tries: dead.tries,
                error: dead.error,
                time_ms: dead.time_ms,
            })
        };
        rows.into_iter().map(letter).collect()
    }

    /// Tells an endpoint again; the number of the replay, which the ids of its calls carry. **On `Ok` it is durable.**
    ///
    /// # Errors
    /// No such endpoint, nothing to tell, too many replays, or the store cannot be read or written.
    pub async fn outbox_replay(&self, endpoint: &str, replay: Replay) -> Result<u64, OutboxError> {
        self.desk(endpoint)?.ask(|reply| Ask::Replay(replay, reply)).await
    }

    /// Stops or resumes calls. **On `Ok` it is durable.**
    ///
    /// # Errors
    /// No such endpoint, or the store cannot be written.
    pub async fn outbox_pause(&self, endpoint: &str, on: bool) -> Result<(), OutboxError> {
        self.desk(endpoint)?.ask(|reply| Ask::Pause(on, reply)).await
    }

    /// Forgets dead letters, all or the one of this number: they are told no more. How many there were.
    ///
    /// # Errors
    /// No such endpoint, or the store cannot be read or written.
    pub async fn outbox_drop_dead(&self, endpoint: &str, number: Option<u64>) -> Result<u64, OutboxError> {
        self.desk(endpoint)?.ask(|reply| Ask::DropDead(number, reply)).await
    }

    /// Skips everything that was committed until now. How many commits that is.
    ///
    /// # Errors
    /// No such endpoint, or the store cannot be written.
    pub async fn outbox_drop_backlog(&self, endpoint: &str) -> Result<u64, OutboxError> {
        self.desk(endpoint)?.ask(Ask::DropBacklog).await
    }

    /// Ends replays that are not done. How many there were.
    ///
    /// # Errors
    /// No such endpoint, or the store cannot be read or written.
    pub async fn outbox_drop_replays(&self, endpoint: &str) -> Result<u64, OutboxError> {
        self.desk(endpoint)?.ask(Ask::DropReplays).await
    }
}
