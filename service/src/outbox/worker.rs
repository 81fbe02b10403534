//! One endpoint's worker: windows, replays, calls and their retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feedlog_core::ids::{FeedId, SeqId};
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{mpsc, watch};

use super::admin::{Ask, Pause};
use super::call::{Call, CarryError, What};
use super::plan::{Cut, Part, Run, call_id, cut};
use super::prepare::{Prepared, Sources};
use super::retry::Next;
use super::rows::*;
use super::{Desk, lock};
use crate::clock::Moment;
use crate::error::{ReadError, SubmitError};
use crate::metrics as names;
use crate::subscribe::place_at;

/// Names of feeds that are looked at together when change rows are missing.
const FEEDS_PAGE: usize = 256;
/// How long to wait when the store cannot be read or written.
pub(super) const UNAVAILABLE_WAIT: Duration = Duration::from_secs(1);
/// Tries of a dead letter in one replay.
const DEAD_TRIES_MAX: u32 = 3;
/// Commits without anything wanted after which the cursor is written all the same.
const UNWRITTEN_COMMITS_MAX: u64 = 1_000;

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
    let worker = tokio::select! {
        worker = Worker::load(desk.clone(), begins) => worker,
        () = ended(&mut end) => return,
    };
    loop {
        let work = worker.step();
        let mut work = std::pin::pin!(work);
        let mut interrupted = false;
        loop {
            tokio::select! {
                biased;
                () = ended(&mut end) => return,
                ask = asks.recv() => {
                    let Some(ask) = ask else { return };
                    if worker.answer(ask).await {
                        // What is under way is for a place that is no more. It may have been about to count something.
                        interrupted = true;
                        break;
                    }
                }
                () = &mut work => break,
            }
        }
        if interrupted && let Err(error) = worker.desk.count_rows().await {
            tracing::debug!(%error, "the rows of the outbox could not be counted");
        }
    }
}

pub(super) struct Worker {
    desk: Arc<Desk>,
    /// As stored, but for commits without anything wanted.
    place: std::sync::Mutex<StoredPlace>,
    /// Replays and windows take turns.
    replays_next: AtomicBool,
}

/// A piece of a run, for a part of the recipients.
struct Task {
    run: Run,
    part: Part,
    /// The part is still to be cut.
    cut: bool,
    replay: Option<u64>,
    /// The dead letter that it is.
    letter: Option<u64>,
}

/// What became of a task.
enum Fate {
    /// Taken, or nobody needs to know.
    Done,
    Dead,
}

/// Counts a call that is under way, also when it is dropped.
struct InFlight<'a>(&'a Desk);

impl<'a> InFlight<'a> {
    fn begin(desk: &'a Desk) -> Self {
        lock(&desk.vitals).in_flight += 1;
        Self(desk)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(&self.0.vitals).in_flight -= 1;
    }
}

/// Likewise, calls that wait for their next try.
struct Retrying<'a>(&'a Desk);

impl<'a> Retrying<'a> {
    fn begin(desk: &'a Desk) -> Self {
        lock(&desk.vitals).retrying += 1;
        Self(desk)
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        lock(&self.0.vitals).retrying -= 1;
    }
}

impl Worker {
    async fn load(desk: Arc<Desk>, begins: u64) -> Self {
        loop {
            match Self::try_load(&desk, begins).await {
                Ok(worker) => return worker,
                Err(error) => {
                    tracing::warn!(%error, endpoint = &*desk.endpoint.name, "the outbox will try again")
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
        };
        lock(&desk.vitals).written = place.cursor;
        worker.set(place);
        lock(&desk.vitals).loaded = true;
        Ok(worker)
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    pub(super) fn place(&self) -> StoredPlace {
        lock(&self.place).clone()
    }

    fn set(&self, place: StoredPlace) {
        let mut vitals = lock(&self.desk.vitals);
        vitals.cursor = place.cursor;
        vitals.paused = place.paused.map(Pause::from);
        drop(vitals);
        *lock(&self.place) = place;
        self.show_lag();
    }

    fn show_lag(&self) {
        let lag = self.desk.office.engine.commit_no().saturating_sub(self.place().cursor);
        metrics::gauge!(names::OUTBOX_LAG_COMMITS, "endpoint" => self.desk.endpoint.name.to_string())
            .set(lag as f64);
    }

    /// **On `Ok` the place is durable.**
    pub(super) async fn try_write(&self, place: StoredPlace) -> Result<(), SubmitError> {
        let row = (place_key(&self.desk.endpoint.name), Some(encode(&place)));
        self.desk.office.shelf.put(vec![row]).await?;
        lock(&self.desk.vitals).written = place.cursor;
        self.set(place);
        Ok(())
    }

    async fn write(&self, place: StoredPlace) {
        while self.try_write(place.clone()).await.is_err() {
            rest(UNAVAILABLE_WAIT).await;
        }
    }

    /// One window or one piece of a replay; waits while there is nothing to do.
    async fn step(&self) {
        if self.place().paused.is_some() {
            return std::future::pending().await;
        }
        let has_jobs = lock(&self.desk.vitals).jobs > 0;
        if has_jobs && self.replays_next.swap(false, Ordering::Relaxed) {
            return self.replay().await;
        }
        self.replays_next.store(true, Ordering::Relaxed);
        let place = self.place();
        if place.upto > place.cursor || self.open_window(place, has_jobs).await {
            self.tell_window().await;
            self.close_window().await;
        }
    }

    /// Waits for commits and writes the bounds of a window; `false` when there is a replay, or nothing wanted in them.
    async fn open_window(&self, place: StoredPlace, has_jobs: bool) -> bool {
        let office = &self.desk.office;
        if !has_jobs {
            self.news(place.cursor).await;
        }
        if office.engine.commit_no() <= place.cursor {
            return false;
        }
        rest(Duration::from_millis(self.desk.endpoint.coalesce_ms)).await;
        let Cut { upto, runs, .. } = self.look(place.cursor).await;
        let next = StoredPlace { upto, ..place };
        if !runs.is_empty() {
            // Before the first call: after a crash the window is cut the same way.
            self.write(next).await;
            return true;
        }
        let next = StoredPlace { cursor: upto, ..next };
        let written = lock(&self.desk.vitals).written;
        if upto.saturating_sub(written) >= UNWRITTEN_COMMITS_MAX {
            self.write(next).await;
        } else {
            self.set(next);
        }
        false
    }

    async fn close_window(&self) {
        let place = self.place();
        let told = StoredPlace { cursor: place.upto, named: None, ..place };
        // While it is behind, the next window needs no write of its own.
        let next = self.look(told.cursor).await;
        let upto = if next.full { next.upto } else { told.cursor };
        self.write(StoredPlace { upto, ..told }).await;
    }

    /// Waits until something was committed after `cursor`, or there is a replay.
    async fn news(&self, cursor: u64) {
        let office = &self.desk.office;
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
                () = self.desk.bell.notified() => return,
            }
        }
    }

    /// The next window. Where change rows are missing it goes to the newest commit, and is said to have something.
    async fn look(&self, cursor: u64) -> Cut {
        let desk = self.desk.clone();
        self.read(move || {
            let limits = &desk.office.limits;
            let newest = desk.office.engine.commit_no();
            let changes = desk.office.engine.changes(cursor, limits.window_commits_max.max(1))?;
            let is_page = changes.len() >= limits.window_commits_max;
            let wanted = |feed: &FeedId| desk.endpoint.may_want(feed);
            match cut(&changes, cursor, limits.window_entries_max, wanted) {
                Some(cut) if cut.upto > cursor || newest <= cursor => {
                    Ok(Cut { full: (cut.full || is_page) && !cut.runs.is_empty(), ..cut })
                }
                _ => {
                    tracing::warn!(
                        endpoint = &*desk.endpoint.name,
                        "commits are not listed any more: looking at all feeds"
                    );
                    let any = FeedId::parse("?")
                        .map_or(Vec::new(), |feed| vec![Run { feed, first: SeqId(1), last: SeqId::ZERO }]);
                    Ok(Cut { upto: newest, runs: any, full: true })
                }
            }
        })
        .await
    }

    /// Reads until it can be read.
    async fn read<T: Send + 'static>(
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

    async fn tell_window(&self) {
        let place = self.place();
        if place.named.is_none()
            && let Some(runs) = self.runs(place.cursor, place.upto).await
        {
            return self.tell_all(runs, None).await;
        }
        let mut named = place.named.clone().and_then(|name| FeedId::parse(&name).ok());
        loop {
            let (runs, last) = self.runs_by_name(named, place.cursor, place.upto).await;
            self.tell_all(runs, None).await;
            let Some(last) = last else { return };
            self.write(StoredPlace { named: Some(last.as_str().to_owned()), ..place.clone() }).await;
            named = Some(last);
        }
    }

    /// What was committed after `after` up to `upto`; `None` when not all of it is listed any more.
    async fn runs(&self, after: u64, upto: u64) -> Option<Vec<Run>> {
        let desk = self.desk.clone();
        self.read(move || {
            let mut changes = Vec::new();
            let mut next = after;
            while next < upto {
                let page =
                    desk.office.engine.changes(next, usize::try_from(upto - next).unwrap_or(1).min(256))?;
                match page.last() {
                    Some(last) => next = last.commit_no,
                    None => return Ok(None),
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
    async fn runs_by_name(
        &self,
        after_name: Option<FeedId>,
        after: u64,
        upto: u64,
    ) -> (Vec<Run>, Option<FeedId>) {
        let desk = self.desk.clone();
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

    async fn tell_all(&self, runs: Vec<Run>, replay: Option<u64>) {
        let at_once = self.desk.office.limits.feeds_at_once_max.max(1);
        stream::iter(runs).for_each_concurrent(at_once, |run| self.tell_run(run, replay)).await;
    }

    /// All calls about a run, in order.
    async fn tell_run(&self, run: Run, replay: Option<u64>) {
        for run in run.pieces(self.desk.office.limits.call_entries_max) {
            let mut part = Part::default();
            loop {
                let mut task = Task { run: run.clone(), part, cut: true, replay, letter: None };
                self.tell(&mut task).await;
                match task.part.upto {
                    Some(upto) => part = Part { after: Some(upto), upto: None },
                    None => break,
                }
            }
        }
    }

    async fn prepare(&self, task: &Task) -> Result<Prepared, ReadError> {
        let desk = self.desk.clone();
        let (run, part, cut) = (task.run.clone(), task.part.clone(), task.cut);
        let read = move || {
            let office = &desk.office;
            let sources = Sources {
                engine: &office.engine,
                hub: &office.hub,
                settings: office.settings,
                clock: &office.clock,
                limits: &office.limits,
                endpoint: &desk.endpoint,
                told: &desk.told,
            };
            sources.prepare(&run, &part, cut)
        };
        self.desk.office.blocking.run(read).await
    }

    /// One call, again until it is taken or dead. The part is cut with its first try and stays.
    async fn tell(&self, task: &mut Task) -> Fate {
        let endpoint = &self.desk.endpoint;
        let mut patience = endpoint.patience;
        if task.letter.is_some() {
            patience.attempts_max = DEAD_TRIES_MAX;
        }
        let began = Moment::now();
        let mut tries = 0;
        loop {
            let prepared = match self.prepare(task).await {
                Ok(prepared) => prepared,
                Err(ReadError::Damaged) => {
                    // It would be as damaged the next time.
                    if self.bury(task, tries, "stored data is damaged").await {
                        return Fate::Dead;
                    }
                    rest(UNAVAILABLE_WAIT).await;
                    continue;
                }
                Err(_) => {
                    rest(UNAVAILABLE_WAIT).await;
                    continue;
                }
            };
            task.cut = false;
            task.part = prepared.part.clone();
            if prepared.to.is_empty() {
                return Fate::Done;
            }
            tries += 1;
            let error = match self.carry(task, prepared, tries).await {
                Ok(()) => return Fate::Done,
                Err(error) => error,
            };
            self.note_error(&error);
            let random = getrandom::u64().unwrap_or(u64::MAX);
            let wait = match patience.next(&error, tries, began.elapsed(), random) {
                Next::Again(wait) => wait,
                Next::Dead => {
                    if self.bury(task, tries, &error.to_string()).await {
                        return Fate::Dead;
                    }
                    // No room, or not written: nothing is lost, it goes on trying.
                    patience.wait(&error, tries, random)
                }
                Next::Gone => {
                    // The worker pauses and drops this.
                    let _ = self.desk.asks.send(Ask::Gone).await;
                    return std::future::pending().await;
                }
            };
            lock(&self.desk.vitals).retried += 1;
            count_call(endpoint, "retried");
            self.show_lag();
            let _waiting = Retrying::begin(&self.desk);
            rest(wait).await;
        }
    }

    async fn carry(&self, task: &Task, prepared: Prepared, tries: u32) -> Result<(), CarryError> {
        let Desk { office, endpoint, told, vitals, .. } = &*self.desk;
        let now_ms = office.clock.now_ms();
        let mut read = Vec::new();
        {
            let mut told = lock(told);
            for one in &prepared.to {
                let concerned = prepared
                    .items
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| one.items.as_ref().is_none_or(|items| items.contains(at)));
                for (_, item) in concerned {
                    match &item.what {
                        // Before the call: if it fails it may have been taken all the same.
                        What::Message { .. } => told.note(&one.uid, &task.run.feed, item.seq, now_ms),
                        What::Read { feed, upto } => read.push((one.uid.clone(), feed.clone(), *upto)),
                        What::Notified { .. } | What::Withdrawn { .. } => {}
                    }
                }
            }
        }
        let call = Call {
            endpoint: endpoint.name.clone(),
            id: self.id(task),
            feed: task.run.feed.clone(),
            kind: prepared.kind,
            items: prepared.items,
            to: prepared.to,
            attempt: tries,
            replay: task.replay.is_some(),
            time_ms: now_ms,
        };
        let in_flight = InFlight::begin(&self.desk);
        office.carrier.carry(call).await?;
        drop(in_flight);
        count_call(endpoint, "delivered");
        let mut vitals = lock(vitals);
        vitals.delivered += 1;
        vitals.last_delivered_ms = Some(office.clock.now_ms());
        drop(vitals);
        let mut told = lock(told);
        read.iter().for_each(|(uid, feed, upto)| told.read(uid, feed, *upto));
        Ok(())
    }

    fn id(&self, task: &Task) -> String {
        call_id(&self.desk.endpoint.name, &task.run, &task.part, task.replay, feedlog_storage::digest)
    }

    fn note_error(&self, error: &CarryError) {
        let now_ms = self.desk.office.clock.now_ms();
        let mut vitals = lock(&self.desk.vitals);
        let text = error.to_string();
        // Each change once, not each try.
        let is_new = vitals.last_error.as_ref().is_none_or(|(last, _)| *last != text);
        vitals.last_error = Some((text, now_ms));
        drop(vitals);
        if is_new {
            tracing::warn!(%error, endpoint = &*self.desk.endpoint.name, "a call of the outbox was not taken");
        }
    }

    /// Makes a dead letter of a call; `false` when there is no room, or it could not be written.
    async fn bury(&self, task: &Task, tries: u32, error: &str) -> bool {
        let Desk { office, endpoint, vitals, .. } = &*self.desk;
        let number = {
            let mut vitals = lock(vitals);
            match task.letter {
                Some(number) => number,
                None if vitals.dead >= office.limits.dead_max => {
                    if !vitals.full {
                        tracing::error!(
                            endpoint = &*endpoint.name,
                            "no room for more dead letters: the endpoint stands still"
                        );
                    }
                    vitals.full = true;
                    return false;
                }
                None => {
                    vitals.dead += 1;
                    vitals.next_number(office.clock.now_ms())
                }
            }
        };
        let name = |uid: &Option<feedlog_core::ids::Uid>| uid.as_ref().map(|uid| uid.as_str().to_owned());
        // The id of a letter is that of the call which died.
        let first_id = call_id(&endpoint.name, &task.run, &task.part, None, feedlog_storage::digest);
        let letter = StoredDead {
            id: first_id,
            feed: task.run.feed.as_str().to_owned(),
            first: task.run.first.0,
            last: task.run.last.0,
            after: name(&task.part.after),
            upto: name(&task.part.upto),
            tries,
            error: error.to_owned(),
            time_ms: office.clock.now_ms(),
        };
        let row = (numbered(dead_prefix(&endpoint.name), number), Some(encode(&letter)));
        let written = office.shelf.put(vec![row]).await.is_ok();
        let mut vitals = lock(vitals);
        if written {
            vitals.full = false;
            count_call(endpoint, "dead");
        } else if task.letter.is_none() {
            vitals.dead -= 1;
        }
        written
    }

    /// A piece of the oldest replay.
    async fn replay(&self) {
        let Desk { office, endpoint, vitals, .. } = &*self.desk;
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
        let shelf = &self.desk.office.shelf;
        let prefix = dead_prefix(&self.desk.endpoint.name);
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
                self.tell(&mut Task { run, part, cut: false, replay, letter: Some(letter) }).await
            }
            None => Fate::Dead,
        };
        if matches!(fate, Fate::Done) {
            rows.push((key, None));
        }
        Some(StoredJob::Dead { upto, at: letter })
    }

    async fn replay_feed(&self, number: u64, feed: String, at: u64, last: u64) -> Option<StoredJob> {
        let to = last.min(at.saturating_add(self.desk.office.limits.window_entries_max.max(1) - 1));
        let name = FeedId::parse(&feed).ok()?;
        if at <= to {
            self.tell_run(Run { feed: name, first: SeqId(at), last: SeqId(to) }, Some(number)).await;
        }
        (to < last).then_some(StoredJob::Feed { feed, at: to + 1, last })
    }

    async fn replay_commits(&self, number: u64, at: u64, upto: u64) -> Option<StoredJob> {
        let to = upto.min(at.saturating_add(self.desk.office.limits.window_commits_max.max(1) as u64));
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
}

impl super::Vitals {
    /// Grows, also across restarts: numbers name replays in the ids of their calls.
    pub(super) fn next_number(&mut self, now_ms: u64) -> u64 {
        self.number = now_ms.max(self.number + 1);
        self.number
    }
}

fn count_call(endpoint: &super::Endpoint, outcome: &'static str) {
    let endpoint = endpoint.name.to_string();
    metrics::counter!(names::OUTBOX_CALLS_TOTAL, "endpoint" => endpoint, "outcome" => outcome).increment(1);
}

impl Desk {
    /// Dead letters and replays, as they are stored.
    async fn count_rows(&self) -> Result<(), ReadError> {
        let (dead, newest_dead) = self.count(dead_prefix(&self.endpoint.name)).await?;
        let (jobs, newest_job) = self.count(job_prefix(&self.endpoint.name)).await?;
        let mut vitals = lock(&self.vitals);
        vitals.dead = dead;
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
