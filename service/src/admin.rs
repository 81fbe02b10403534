//! Maintenance of the running store; administrators only.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use feedlog_core::ids::{FeedId, SeqId, TimeMs};
use feedlog_core::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use feedlog_storage::{EngineError, Group};
use tokio::sync::{Notify, oneshot};

use crate::Inner;
pub use crate::check::Problem;
use crate::check::{PROBLEMS_MAX, Report, check_feed, repair};
use crate::error::ReadError;
use crate::shard::Input;
pub use feedlog_storage::Record;

/// What runs over all feeds in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Checks density, checksums, chains, ordinals, and rows against a replay. Changes nothing.
    Verify,
    /// As `Verify`, and replaces rows that differ from their replay.
    Rebuild,
}

/// How a job ended, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Still at it.
    Running,
    /// Looked at everything.
    Done,
    /// Stopped by an error of the engine or by the end of the service.
    Failed,
}

/// A job and how far it is.
#[derive(Debug, Clone)]
pub struct Job {
    /// Number of the job since the start.
    pub id: u64,
    /// What it does.
    pub kind: JobKind,
    /// Whether it still runs.
    pub state: JobState,
    /// When it was started.
    pub started_ms: TimeMs,
    /// When it ended.
    pub ended_ms: Option<TimeMs>,
    /// Feeds looked at.
    pub feeds_done: u64,
    /// Entries looked at.
    pub entries_done: u64,
    /// Rows compared.
    pub rows_done: u64,
    /// The feed it is at, or stopped at.
    pub at: Option<FeedId>,
    /// How many problems were found.
    pub problem_count: u64,
    /// The first of them, bounded.
    pub problems: Vec<Problem>,
}

/// Jobs that are remembered.
const JOBS_MAX: usize = 16;
/// Feeds whose names are fetched at once.
const FEEDS_PAGE: usize = 1000;
/// How often repairing a feed is tried when it changes meanwhile.
const REPAIR_TRIES_MAX: usize = 20;

/// All jobs since the start.
#[derive(Default)]
pub(crate) struct Jobs {
    jobs: Mutex<Vec<Job>>,
    changed: Notify,
    stopped: AtomicBool,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Vec<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends running jobs soon, as failed.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    fn find(&self, id: u64) -> Option<Job> {
        self.lock().iter().find(|job| job.id == id).cloned()
    }

    fn update(&self, id: u64, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.lock().iter_mut().find(|job| job.id == id) {
            change(job);
        }
        self.changed.notify_waiters();
    }
}

/// Maintenance; made by [`crate::Store::admin`]. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pub(crate) inner: Arc<Inner>,
}

impl Admin {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Starts a job, or returns the one of its kind that is running.
    pub fn start(&self, kind: JobKind) -> Job {
        let job = {
            let mut jobs = self.inner.jobs.lock();
            let running = |job: &&Job| job.kind == kind && job.state == JobState::Running;
            if let Some(job) = jobs.iter().find(running) {
                return job.clone();
            }
            let job = Job {
                id: jobs.last().map_or(1, |job| job.id + 1),
                kind,
                state: JobState::Running,
                started_ms: self.inner.clock.now_ms(),
                ended_ms: None,
                feeds_done: 0,
                entries_done: 0,
                rows_done: 0,
                at: None,
                problem_count: 0,
                problems: Vec::new(),
            };
            if jobs.len() >= JOBS_MAX
                && let Some(oldest) = jobs.iter().position(|job| job.state != JobState::Running)
            {
                jobs.remove(oldest);
            }
            jobs.push(job.clone());
            job
        };
        let (inner, id) = (self.inner.clone(), job.id);
        let started =
            std::thread::Builder::new().name("feedlog-job".to_owned()).spawn(move || run(&inner, id, kind));
        if let Err(error) = started {
            tracing::error!(%error, "a job could not be started");
            self.inner.jobs.update(id, |job| job.state = JobState::Failed);
        }
        self.inner.jobs.find(id).unwrap_or(job)
    }

    /// A job by number.
    pub fn job(&self, id: u64) -> Option<Job> {
        self.inner.jobs.find(id)
    }

    /// The newest jobs first, bounded.
    pub fn jobs(&self) -> Vec<Job> {
        self.inner.jobs.lock().iter().rev().cloned().collect()
    }

    /// Waits for the end of a job.
    pub async fn finished(&self, id: u64) -> Option<Job> {
        loop {
            let changed = self.inner.jobs.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Registered before looking, so that no change falls between.
            changed.as_mut().enable();
            let job = self.inner.jobs.find(id)?;
            if job.state != JobState::Running {
                return Some(job);
            }
            changed.await;
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Inner) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let inner = self.inner.clone();
        self.inner.blocking.run(move || read(&inner)).await
    }

    /// Names of feeds in order, after `after`, at most `limit`.
    pub async fn feeds(&self, after: Option<FeedId>, limit: usize) -> Result<Vec<FeedId>, ReadError> {
        let limit = limit.clamp(1, FEEDS_PAGE);
        self.read(move |inner| Ok(inner.engine.feeds(after.as_ref(), limit)?)).await
    }

    /// Entries of a feed after a place with what proves them, whoever may read them, at most `limit` and about 8 MiB.
    /// Empty at the head and for a feed that does not exist.
    pub async fn export(&self, feed: FeedId, after: SeqId, limit: usize) -> Result<Vec<Record>, ReadError> {
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        self.read(move |inner| {
            Ok(inner.engine.records(&feed, after.next(), SeqId::MAX, limit, PAGE_BYTES_MAX)?)
        })
        .await
    }

    /// A consistent copy of everything durable, while writes go on. `dir` must not exist; the directory it lies in is
    /// made when missing.
    pub async fn backup(&self, dir: PathBuf) -> Result<(), ReadError> {
        self.read(move |inner| {
            if let Some(parent) = dir.parent() {
                // The engine tells better than we could why `dir` cannot be made.
                let _ = std::fs::create_dir_all(parent);
            }
            Ok(inner.engine.backup(&dir)?)
        })
        .await
    }
}

fn run(inner: &Inner, id: u64, kind: JobKind) {
    let jobs = &inner.jobs;
    let result = walk(inner, id, kind);
    if let Err(error) = &result {
        tracing::error!(%error, ?kind, "a job stopped");
    }
    jobs.update(id, |job| {
        job.ended_ms = Some(inner.clock.now_ms());
        job.state = if matches!(result, Ok(true)) { JobState::Done } else { JobState::Failed };
    });
}

/// Looks at every feed; `false` when asked to stop.
fn walk(inner: &Inner, id: u64, kind: JobKind) -> Result<bool, EngineError> {
    let keep_going = || !inner.jobs.stopped.load(Ordering::SeqCst);
    let mut after: Option<FeedId> = None;
    loop {
        let feeds = inner.engine.feeds(after.as_ref(), FEEDS_PAGE)?;
        let Some(last) = feeds.last() else { return Ok(true) };
        after = Some(last.clone());
        for feed in feeds {
            inner.jobs.update(id, |job| job.at = Some(feed.clone()));
            let Some(report) = check_feed(&*inner.engine, &feed, &keep_going)? else { return Ok(false) };
            inner.jobs.update(id, |job| {
                job.feeds_done += 1;
                job.entries_done += report.entries;
                job.rows_done += report.rows;
                job.problem_count += report.problem_count;
                let room = PROBLEMS_MAX.saturating_sub(job.problems.len());
                job.problems.extend(report.problems.iter().take(room).cloned());
            });
            if kind == JobKind::Rebuild && !put_right(inner, report, &keep_going)? {
                return Ok(false);
            }
        }
    }
}

/// Replaces the rows of a feed that differ from the log, until none do.
fn put_right(inner: &Inner, report: Report, keep_going: &dyn Fn() -> bool) -> Result<bool, EngineError> {
    let feed = report.feed.clone();
    let mut report = report;
    for _ in 0..REPAIR_TRIES_MAX {
        let Some(part) = repair(report) else { return Ok(true) };
        let rows = part.rows.len();
        match inner.appender.write_blocking(Group { log: Some(part), state: Vec::new() }) {
            Ok(()) => tracing::warn!(feed_id = feed.as_str(), rows, "rows were replaced from the log"),
            // The feed went on meanwhile: look again.
            Err(EngineError::HeadMoved { .. }) => {}
            Err(error) => return Err(error),
        }
        // Commands decided before this on the old rows may have written them again: so look again.
        let (done, forgotten) = oneshot::channel();
        inner.shard(&feed).input(Input::Forget(feed.clone(), done));
        let _ = forgotten.blocking_recv();
        match check_feed(&*inner.engine, &feed, keep_going)? {
            Some(next) => report = next,
            None => return Ok(false),
        }
    }
    tracing::error!(feed_id = feed.as_str(), "rows could not be replaced while the feed changes so much");
    Ok(true)
}
