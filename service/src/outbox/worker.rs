//! One endpoint's worker: its place, and what it is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use feedlog_core::ids::FeedId;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::admin::{Ask, Pause};
use super::parked::PARKED_CALLS_MAX;
use super::rows::*;
use super::{Desk, lock};
use crate::error::{ReadError, SubmitError};
use crate::metrics as names;

/// How long to wait when the store cannot be read or written.
pub(super) const UNAVAILABLE_WAIT: Duration = Duration::from_secs(1);

/// Waits for a time, not for a state: back-off and coalescing are times.
pub(super) async fn rest(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

async fn ended(end: &mut watch::Receiver<bool>) {
    // Also when nobody is left who could say so.
    let _ = end.wait_for(|ended| *ended).await;
}

/// Works until it ends. An endpoint without a place begins after the commit `begins`.
pub(super) async fn run(
    desk: Arc<Desk>,
    mut asks: mpsc::Receiver<Ask>,
    mut end: watch::Receiver<bool>,
    begins: u64,
) {
    let worker = {
        let mut loading = std::pin::pin!(Worker::load(desk.clone(), begins));
        let failed = || lock(&desk.vitals).last_error.is_some();
        loop {
            tokio::select! {
                worker = &mut loading => break worker,
                () = ended(&mut end) => return,
                // Nobody waits for a place that cannot be read: whoever asked is told that it is closing.
                Some(ask) = asks.recv(), if failed() => drop(ask),
                () = desk.bell.notified() => {}
            }
        }
    };
    loop {
        tokio::select! {
            biased;
            () = ended(&mut end) => return,
            () = until_interrupted(&worker, &mut asks) => {}
        }
        if asks.is_closed() {
            return;
        }
        // After all that was under way is dropped.
        tokio::select! {
            biased;
            () = ended(&mut end) => return,
            () = worker.look_again() => {}
        }
    }
}

/// Works, and answers what it is asked, until an answer means that what is under way is for a place that is no more.
async fn until_interrupted(worker: &Worker, asks: &mut mpsc::Receiver<Ask>) {
    let mut work = std::pin::pin!(worker.work());
    loop {
        tokio::select! {
            biased;
            ask = asks.recv() => {
                let Some(ask) = ask else { return };
                if worker.answer(ask).await {
                    return;
                }
            }
            () = &mut work => return,
        }
    }
}

pub(super) struct Worker {
    desk: Arc<Desk>,
    /// As stored, but for commits without anything wanted.
    place: std::sync::Mutex<StoredPlace>,
    /// Replays and windows take turns.
    replays_next: AtomicBool,
    /// Feeds that are told apart, as stored.
    pub(super) parked: std::sync::Mutex<HashMap<FeedId, StoredParked>>,
    /// Feeds of the open window that are to be parked.
    pub(super) taken: AtomicUsize,
    /// Held while the rows of parked feeds change.
    pub(super) parking: tokio::sync::Mutex<()>,
    /// Rings when a feed was parked.
    pub(super) parked_bell: Notify,
    /// Calls about parked feeds.
    pub(super) parked_calls: Semaphore,
}

impl Worker {
    async fn load(desk: Arc<Desk>, begins: u64) -> Self {
        loop {
            match Self::try_load(&desk, begins).await {
                Ok(worker) => return worker,
                Err(error) => {
                    tracing::warn!(%error, endpoint = &*desk.endpoint.name, "the outbox will try again");
                    let now_ms = desk.office.clock.now_ms();
                    lock(&desk.vitals).last_error = Some((format!("its place: {error}"), now_ms));
                    desk.bell.notify_one();
                }
            }
            rest(UNAVAILABLE_WAIT).await;
        }
    }

    async fn try_load(desk: &Arc<Desk>, begins: u64) -> Result<Self, ReadError> {
        let (office, name) = (&desk.office, &*desk.endpoint.name);
        let newest = office.engine.commit_no();
        let stored = office.shelf.get(&place_key(name)).await?;
        let place = match stored {
            Some(bytes) => {
                let place: StoredPlace = decode(&bytes)?;
                // Only where a damaged tail was given up: those numbers are given again.
                if place.upto > newest {
                    StoredPlace { cursor: place.cursor.min(newest), upto: newest, ..place }
                } else {
                    place
                }
            }
            None => {
                let place = StoredPlace { cursor: begins, upto: begins, ..StoredPlace::default() };
                let row = vec![(place_key(name), Some(encode(&place)))];
                office
                    .shelf
                    .put(row)
                    .await
                    .map_err(|_| ReadError::Unavailable("the place is not written"))?;
                place
            }
        };
        desk.count_rows().await?;
        let worker = Self {
            desk: desk.clone(),
            place: std::sync::Mutex::default(),
            replays_next: AtomicBool::new(false),
            parked: std::sync::Mutex::default(),
            taken: AtomicUsize::new(0),
            parking: tokio::sync::Mutex::default(),
            parked_bell: Notify::new(),
            parked_calls: Semaphore::new(PARKED_CALLS_MAX),
        };
        worker.load_parked().await?;
        lock(&desk.vitals).written = place.cursor;
        worker.set(place);
        lock(&desk.vitals).loaded = true;
        Ok(worker)
    }

    /// What was interrupted may have written something, and not noted it: nothing goes on before that is known.
    async fn look_again(&self) {
        loop {
            let read = async {
                self.desk.count_rows().await?;
                self.load_parked().await
            };
            let Err(error) = read.await else { return };
            tracing::warn!(%error, endpoint = &*self.desk.endpoint.name, "the outbox could not look at its rows");
            rest(UNAVAILABLE_WAIT).await;
        }
    }

    /// All there is to do, without end.
    async fn work(&self) {
        if self.place().paused.is_some() {
            return std::future::pending().await;
        }
        // What an interrupted window had taken is free again.
        self.taken.store(0, Ordering::SeqCst);
        let windows = async {
            loop {
                self.step().await;
            }
        };
        tokio::join!(windows, self.tell_parked());
    }

    /// Whether it is the turn of replays, when there are any.
    pub(super) fn is_replays_turn(&self) -> bool {
        self.replays_next.fetch_xor(true, Ordering::Relaxed)
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    pub(super) fn place(&self) -> StoredPlace {
        lock(&self.place).clone()
    }

    pub(super) fn set(&self, place: StoredPlace) {
        let mut vitals = lock(&self.desk.vitals);
        vitals.cursor = place.cursor;
        vitals.paused = place.paused.map(Pause::from);
        drop(vitals);
        *lock(&self.place) = place;
        self.show_lag();
    }

    pub(super) fn show_lag(&self) {
        let lag = self.desk.office.engine.commit_no().saturating_sub(self.place().cursor);
        metrics::gauge!(names::OUTBOX_LAG_COMMITS, "endpoint" => self.desk.endpoint.name.to_string())
            .set(lag as f64);
    }

    pub(super) fn place_row(&self, place: &StoredPlace) -> (Vec<u8>, Option<Bytes>) {
        (place_key(&self.desk.endpoint.name), Some(encode(place)))
    }

    /// The place was written.
    pub(super) fn written(&self, place: StoredPlace) {
        lock(&self.desk.vitals).written = place.cursor;
        self.set(place);
    }

    /// **On `Ok` the place is durable.**
    pub(super) async fn try_write(&self, place: StoredPlace) -> Result<(), SubmitError> {
        self.desk.office.shelf.put(vec![self.place_row(&place)]).await?;
        self.written(place);
        Ok(())
    }

    pub(super) async fn write(&self, place: StoredPlace) {
        while self.try_write(place.clone()).await.is_err() {
            rest(UNAVAILABLE_WAIT).await;
        }
    }
}

impl Worker {
    /// Reads until it can be read.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl Fn() -> Result<T, ReadError> + Clone + Send + 'static,
    ) -> T {
        loop {
            match self.desk.office.blocking.run(read.clone()).await {
                Ok(value) => return value,
                Err(error) => {
                    tracing::debug!(%error, "the outbox will read again");
                    rest(UNAVAILABLE_WAIT).await;
                }
            }
        }
    }
}

impl super::Vitals {
    /// Grows, also across restarts: numbers name replays in the ids of their calls.
    pub(super) fn next_number(&mut self, now_ms: u64) -> u64 {
        self.number = now_ms.max(self.number + 1);
        self.number
    }
}

impl Desk {
    /// Dead letters and replays, as they are stored.
    async fn count_rows(&self) -> Result<(), ReadError> {
        let (dead, newest_dead) = self.count(dead_prefix(&self.endpoint.name)).await?;
        let (jobs, newest_job) = self.count(job_prefix(&self.endpoint.name)).await?;
        let mut vitals = lock(&self.vitals);
        vitals.dead = dead;
        // Called while nothing is under way.
        vitals.dying = 0;
        vitals.jobs = jobs;
        vitals.number = vitals.number.max(newest_dead).max(newest_job);
        Ok(())
    }

    /// How many rows there are, and the number of the newest.
    async fn count(&self, prefix: Vec<u8>) -> Result<(usize, u64), ReadError> {
        let (mut total, mut newest, mut after) = (0, 0, None::<Vec<u8>>);
        loop {
            let rows = self.office.shelf.scan(&prefix, after.as_deref(), 1000).await?;
            let Some((key, _)) = rows.last() else { return Ok((total, newest)) };
            total += rows.len();
            newest = number_of(key).unwrap_or(newest);
            after = Some(key.clone());
        }
    }
}
