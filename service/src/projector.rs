//! What follows the log after the fact: trailing projections with their checkpoints, the expirer, the pruning of change
//! rows, and the reopening of an engine that had met a full disk. One thread, woken by time.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use feedlog_core::command::{Action, Command, Principal, Scopes};
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::limits::EXPIRE_BATCH_MAX;
use feedlog_core::rows::RowKey;
use feedlog_storage::{Change, Direction, Engine, EngineError, Group, RowRange, StateKey, StateTable};

use crate::clock::Moment;
use crate::shard::Input;
use crate::{Inner, metrics as names};

/// Changes that a projection takes at once.
const CHANGES_MAX: usize = 1000;
/// Change rows that are kept even when every projection has seen them.
const CHANGES_KEPT_MIN: u64 = 1000;
/// Change rows that are removed at once.
const PRUNE_STEP: u64 = 1000;
/// How often trailing projections look for new commits.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// How often a poisoned engine is tried.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// Why a projection could not go on; it is tried again later from its checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProjectionError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// Rows of its own, derived from the log after the fact.
pub trait Projection: Send + 'static {
    /// Names the checkpoint: never changes.
    fn name(&self) -> &'static str;

    /// Takes the next commits, in order, each at least once: after a crash some come again. The state rows returned become
    /// durable together with the checkpoint.
    fn apply(
        &mut self,
        changes: &[Change],
        engine: &dyn Engine,
    ) -> Result<Vec<(StateKey, Option<Bytes>)>, ProjectionError>;

    /// Commits after the checkpoint are not listed any more: looks at the heads of all feeds instead. Afterwards
    /// `apply` goes on from the newest commit of before the call.
    fn rescan(&mut self, engine: &dyn Engine) -> Result<Vec<(StateKey, Option<Bytes>)>, ProjectionError>;
}

/// How often and how much.
pub(crate) struct Pace {
    pub(crate) expire_every: Duration,
    pub(crate) changes_kept_max: u64,
}

/// The thread, from outside.
pub(crate) struct Projector {
    inner: Weak<Inner>,
    stopped: Arc<(Mutex<bool>, Condvar)>,
    waiting: Mutex<Vec<Box<dyn Projection>>>,
    lags: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Projector {
    pub(crate) fn new(inner: Weak<Inner>, projections: Vec<Box<dyn Projection>>) -> Self {
        Self {
            inner,
            stopped: Arc::default(),
            waiting: Mutex::new(projections),
            lags: Arc::default(),
            thread: Mutex::default(),
        }
    }

    pub(crate) fn start(&self, pace: &Pace) -> std::io::Result<()> {
        let run = Run {
            inner: self.inner.clone(),
            stopped: self.stopped.clone(),
            lags: self.lags.clone(),
            expire_every: pace.expire_every,
            changes_kept_max: pace.changes_kept_max.max(CHANGES_KEPT_MIN),
            trails: std::mem::take(&mut *lock(&self.waiting))
                .into_iter()
                .map(|projection| Trail { projection, checkpoint: None })
                .collect(),
            pruned: 0,
        };
        let thread =
            std::thread::Builder::new().name("feedlog-project".to_owned()).spawn(move || run.run())?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// How many commits each projection is behind.
    pub(crate) fn lags(&self) -> Vec<(&'static str, u64)> {
        lock(&self.lags).iter().map(|(name, lag)| (*name, *lag)).collect()
    }

    /// Ends the thread after what it is at. Blocks.
    pub(crate) fn stop(&self) {
        *lock(&self.stopped.0) = true;
        self.stopped.1.notify_all();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            // The last handle of the store may be dropped by the thread itself.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the projector panicked");
        }
    }
}

struct Run {
    inner: Weak<Inner>,
    stopped: Arc<(Mutex<bool>, Condvar)>,
    lags: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    expire_every: Duration,
    changes_kept_max: u64,
    trails: Vec<Trail>,
    pruned: u64,
}

struct Trail {
    projection: Box<dyn Projection>,
    /// The newest commit that was taken; `None` until read.
    checkpoint: Option<u64>,
}

impl Run {
    fn run(mut self) {
        let mut expired: Option<Moment> = None;
        let mut tried: Option<Moment> = None;
        let mut hopeless = false;
        loop {
            let Some(inner) = self.inner.upgrade() else { return };
            let due = |since: Option<Moment>, every| since.is_none_or(|since| since.left(every).is_zero());
            if inner.engine.is_poisoned() {
                if !hopeless && due(tried, REOPEN_EVERY) {
                    tried = Some(Moment::now());
                    hopeless = !reopen(&inner);
                }
            } else {
                // An answer from before the reopening may have been noted after it.
                inner.appender.health().is_sound();
                self.follow(&inner);
                if due(expired, self.expire_every) {
                    expired = Some(Moment::now());
                    self.expire(&inner);
                    self.prune(&inner);
                }
            }
            let pause = if self.trails.is_empty() { REOPEN_EVERY } else { FOLLOW_EVERY };
            // Not held while waiting: the last handle outside ends this thread.
            drop(inner);
            if self.rest(pause.min(self.expire_every)) {
                return;
            }
        }
    }

    fn is_stopped(&self) -> bool {
        *lock(&self.stopped.0)
    }

    /// Waits; `true` when it is time to end.
    fn rest(&self, pause: Duration) -> bool {
        let (stopped, bell) = &*self.stopped;
        let guard = lock(stopped);
        let (guard, _) = bell
            .wait_timeout_while(guard, pause, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }

    /// Lets every projection take what was committed since its checkpoint.
    fn follow(&mut self, inner: &Inner) {
        for at in 0..self.trails.len() {
            while !self.is_stopped() {
                let trail = &mut self.trails[at];
                match trail.step(inner) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        let projection = trail.projection.name();
                        tracing::warn!(%error, projection, "a projection will try again");
                        break;
                    }
                }
            }
            let trail = &self.trails[at];
            let lag = inner.engine.commit_no().saturating_sub(trail.checkpoint.unwrap_or(0));
            let name = trail.projection.name();
            lock(&self.lags).insert(name, lag);
            metrics::gauge!(names::PROJECTION_LAG_COMMITS, "projection" => name).set(lag as f64);
        }
    }

    /// Appends MessagesExpired for everything past its time.
    fn expire(&self, inner: &Inner) {
        let principal = Arc::new(service_itself());
        let mut after: Option<RowKey> = None;
        let range = RowRange::Expiries(inner.clock.now_ms());
        while !self.is_stopped() {
            let rows = match inner.engine.rows(&range, Direction::Forward, after.as_ref(), EXPIRE_BATCH_MAX) {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::warn!(%error, "expired messages could not be listed");
                    return;
                }
            };
            let last_page = rows.len() < EXPIRE_BATCH_MAX;
            after = rows.last().map(|(key, _)| key.clone());
            let mut feeds: BTreeMap<FeedId, Vec<SeqId>> = BTreeMap::new();
            for (key, _) in rows {
                if let RowKey::Expiry(_, feed, seq) = key {
                    feeds.entry(feed).or_default().push(seq);
                }
            }
            // All are handed over before the first is waited for: they share a sync.
            let answers: Vec<_> = feeds
                .into_iter()
                .map(|(feed, mut targets)| {
                    targets.sort_unstable();
                    let count = targets.len() as u64;
                    let mailbox = inner.shard(&feed);
                    let command = Command { feed, action: Action::ExpireMessages { targets, early: false } };
                    (count, mailbox.send_own(principal.clone(), command))
                })
                .collect();
            for (count, answer) in answers {
                match answer.map(tokio::sync::oneshot::Receiver::blocking_recv) {
                    Ok(Ok(Ok(receipt))) if !receipt.done().duplicate => {
                        metrics::counter!(names::PROJECTION_EXPIRED_TOTAL).increment(count);
                    }
                    Ok(Ok(Ok(_))) => {}
                    Ok(Ok(Err(error))) => tracing::warn!(%error, "messages could not be expired yet"),
                    // Closing.
                    Ok(Err(_)) | Err(_) => return,
                }
            }
            if last_page {
                return;
            }
        }
    }

    /// Removes change rows that every projection has seen, and those beyond the bound.
    fn prune(&mut self, inner: &Inner) {
        let newest = inner.engine.commit_no();
        let seen = self.trails.iter().map(|trail| trail.checkpoint.unwrap_or(0)).min().unwrap_or(newest);
        let needed = match inner.outbox_floor(newest) {
            Ok(needed) => needed,
            Err(error) => return tracing::warn!(%error, "change rows were not pruned"),
        };
        let upto = seen
            .min(needed)
            .min(newest.saturating_sub(CHANGES_KEPT_MIN))
            .max(newest.saturating_sub(self.changes_kept_max));
        if upto < self.pruned + PRUNE_STEP {
            return;
        }
        match inner.engine.prune_changes(upto) {
            Ok(()) => self.pruned = upto,
            Err(error) => tracing::warn!(%error, "change rows were not pruned"),
        }
    }
}

impl Trail {
    /// Takes the next commits; `false` when there are none.
    fn step(&mut self, inner: &Inner) -> Result<bool, ProjectionError> {
        let key = checkpoint_key(self.projection.name());
        let from = match self.checkpoint {
            Some(from) => from,
            None => {
                let stored = inner.engine.state(&key).map_err(boxed)?;
                let from = stored.and_then(|bytes| decode_checkpoint(&bytes)).unwrap_or(0);
                self.checkpoint = Some(from);
                from
            }
        };
        let newest = inner.engine.commit_no();
        let changes = inner.engine.changes(from, CHANGES_MAX).map_err(boxed)?;
        let pruned = match changes.first() {
            Some(change) => change.commit_no > from + 1,
            None => newest > from,
        };
        let (upto, rows) = if pruned {
            (newest, self.projection.rescan(&*inner.engine)?)
        } else {
            let Some(last) = changes.last() else { return Ok(false) };
            let upto = last.commit_no;
            // Writing a checkpoint is itself a commit: one that only says so is not worth another.
            if changes.iter().all(|change| change.feeds.is_empty()) {
                self.checkpoint = Some(upto);
                return Ok(changes.len() == CHANGES_MAX);
            }
            (upto, self.projection.apply(&changes, &*inner.engine)?)
        };
        let mut state = rows;
        state.push((key, Some(encode_checkpoint(upto))));
        inner.appender.write_blocking(Group { log: None, state }).map_err(boxed)?;
        self.checkpoint = Some(upto);
        Ok(true)
    }
}

fn boxed(error: EngineError) -> ProjectionError {
    ProjectionError(Box::new(error))
}

fn checkpoint_key(name: &str) -> StateKey {
    StateKey { table: StateTable::Checkpoint, key: name.as_bytes().to_vec() }
}

const CHECKPOINT_VERSION: u8 = 1;

fn encode_checkpoint(commit_no: u64) -> Bytes {
    let mut bytes = vec![CHECKPOINT_VERSION];
    bytes.extend_from_slice(&commit_no.to_be_bytes());
    bytes.into()
}

fn decode_checkpoint(bytes: &[u8]) -> Option<u64> {
    match bytes.split_first() {
        Some((&CHECKPOINT_VERSION, number)) => Some(u64::from_be_bytes(number.try_into().ok()?)),
        _ => None,
    }
}

/// Tries to open the engine again after a full disk; `false` when only a restart helps.
fn reopen(inner: &Inner) -> bool {
    let health = inner.appender.health();
    match inner.engine.reopen() {
        Ok(()) => {
            // First everybody forgets what may not be so, then commands are taken again.
            for shard in &inner.shards {
                shard.input(Input::Reset);
            }
            inner.hub.all_behind();
            health.recovered();
            tracing::info!("the engine was opened again, writing goes on");
            true
        }
        Err(EngineError::NoSpace) => {
            health.is_short_of_space();
            true
        }
        Err(error) => {
            tracing::error!(%error, "the engine cannot be opened again while running: restart");
            false
        }
    }
}

/// In whose name the service acts by itself.
pub(crate) fn service_itself() -> Principal {
    Principal {
        uid: Uid::parse("feedlog").expect("INVARIANT: `feedlog` is a valid uid"),
        scopes: Scopes { user: false, send_as: false, audit: false, admin: true },
        anonymous: false,
        via: None,
    }
}
