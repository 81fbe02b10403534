//! Group commit: one thread takes everything that waits, makes one batch of it, syncs once, then answers all. The sync
//! itself forms the next batch; there is no timer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use feedlog_core::entry::Entry;
use feedlog_core::rows::RowKey;

use crate::{Committed, Engine, EngineError, Group};

/// Takes the answer for one group. A type and not a boxed closure, so that a shard can pass a handle and a number
/// without an allocation; closures work as well.
pub trait Reply: Send + 'static {
    /// Called once, on the committer's thread. **Must not block**: everybody waits for this thread.
    fn done(self, result: Result<Committed, EngineError>);
}

impl<F: FnOnce(Result<Committed, EngineError>) + Send + 'static> Reply for F {
    fn done(self, result: Result<Committed, EngineError>) {
        self(result);
    }
}

/// What may wait, and what one batch may hold.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Most groups that wait; submitters block beyond.
    pub waiting_groups_max: usize,
    /// Most bytes that wait, roughly; submitters block beyond. A single larger group still passes alone.
    pub waiting_bytes_max: usize,
    /// Most groups of one batch.
    pub batch_groups_max: usize,
    /// Most bytes of one batch, roughly; a single larger group still passes alone.
    pub batch_bytes_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            waiting_groups_max: 16_384,
            waiting_bytes_max: 64 << 20,
            batch_groups_max: 4096,
            batch_bytes_max: 8 << 20,
        }
    }
}

/// One round of the committer, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Groups handed to the engine.
    pub groups: usize,
    /// Their bytes, roughly.
    pub bytes: usize,
    /// How long the engine took to make them durable.
    pub commit_time: Duration,
    /// How long the first of them waited before that.
    pub wait_time: Duration,
    /// The number of the commit, when it added entries.
    pub commit_no: u64,
    /// Groups that added entries: the replies that are about to follow for this number.
    pub appended: usize,
}

/// Called after each commit, on the committer's thread, before the first of its replies: whoever follows commits knows how
/// many answers there will be before there is one.
pub type Observer = Box<dyn Fn(&Round) + Send>;

/// The way to the committer's thread. Share it in an `Arc`.
pub struct CommitQueue<R> {
    shared: Arc<Shared<R>>,
    limits: QueueLimits,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared<R> {
    queue: Mutex<Queue<R>>,
    /// Something waits, or the end has come.
    filled: Condvar,
    /// There is room again, or the end has come.
    drained: Condvar,
}

struct Queue<R> {
    waiting: VecDeque<Waiting<R>>,
    bytes: usize,
    /// Nothing more is taken in.
    stopped: bool,
}

struct Waiting<R> {
    group: Group,
    reply: R,
    bytes: usize,
    since: Instant,
}

impl<R: Reply> CommitQueue<R> {
    /// Starts the thread. `observer` is called after each commit, on that thread.
    pub fn start(
        engine: Arc<dyn Engine>,
        limits: QueueLimits,
        observer: Option<Observer>,
    ) -> std::io::Result<Self> {
        let queue = Queue { waiting: VecDeque::new(), bytes: 0, stopped: false };
        let shared =
            Arc::new(Shared { queue: Mutex::new(queue), filled: Condvar::new(), drained: Condvar::new() });
        let worker = Worker { shared: shared.clone(), engine, limits, observer };
        let thread = std::thread::Builder::new().name("committer".into()).spawn(move || worker.run())?;
        Ok(Self { shared, limits, thread: Mutex::new(Some(thread)) })
    }

    /// Hands a group over; blocks while too much waits. Groups of one submitter are committed in the order of its
    /// calls. `Err` gives everything back: the queue was stopped and nothing happened.
    pub fn submit(&self, group: Group, reply: R) -> Result<(), (Group, R)> {
        let bytes = weight(&group);
        let mut queue = self.shared.lock();
        while !queue.stopped && self.is_full(&queue, bytes) {
            queue = self.shared.drained.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.stopped {
            return Err((group, reply));
        }
        self.push(queue, Waiting { group, reply, bytes, since: Instant::now() });
        Ok(())
    }

    /// As [`Self::submit`] but never blocks: `Err` also when too much waits.
    pub fn try_submit(&self, group: Group, reply: R) -> Result<(), (Group, R)> {
        let bytes = weight(&group);
        let queue = self.shared.lock();
        if queue.stopped || self.is_full(&queue, bytes) {
            return Err((group, reply));
        }
        self.push(queue, Waiting { group, reply, bytes, since: Instant::now() });
        Ok(())
    }

    /// Groups that wait for the next round.
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }

    /// Takes nothing more in, commits and answers what waits, ends the thread. Returns when that is done.
    pub fn stop(&self) {
        self.shared.lock().stopped = true;
        self.shared.filled.notify_all();
        self.shared.drained.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the committer panicked");
        }
    }

    fn is_full(&self, queue: &Queue<R>, bytes: usize) -> bool {
        let limits = &self.limits;
        !queue.waiting.is_empty()
            && (queue.waiting.len() >= limits.waiting_groups_max
                || queue.bytes + bytes > limits.waiting_bytes_max)
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue<R>>, waiting: Waiting<R>) {
        queue.bytes += waiting.bytes;
        queue.waiting.push_back(waiting);
        let is_first = queue.waiting.len() == 1;
        drop(queue);
        if is_first {
            self.shared.filled.notify_one();
        }
    }
}

impl<R> Drop for CommitQueue<R> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.filled.notify_all();
        self.shared.drained.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            // A reply may hold the last handle: then this is the committer's own thread.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl<R> std::fmt::Debug for CommitQueue<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommitQueue").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, Queue<R>> {
        // The queue is only changed by whole pushes and pops: a panic elsewhere leaves it sound.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker<R> {
    shared: Arc<Shared<R>>,
    engine: Arc<dyn Engine>,
    limits: QueueLimits,
    observer: Option<Observer>,
}

impl<R: Reply> Worker<R> {
    fn run(self) {
        let _end = StopOnExit(&self.shared);
        let mut replies = Vec::new();
        while let Some((groups, mut round)) = self.take(&mut replies) {
            let started = Instant::now();
            let results = self.engine.commit(groups);
            round.commit_time = started.elapsed();
            debug_assert_eq!(results.len(), replies.len(), "an engine answers for every group");
            for committed in results.iter().flatten().filter(|committed| !committed.entries().is_empty()) {
                round.commit_no = committed.commit_no();
                round.appended += 1;
            }
            if let Some(observer) = &self.observer {
                observer(&round);
            }
            for (reply, result) in replies.drain(..).zip(results) {
                reply.done(result);
            }
        }
    }

    /// Waits for work and takes all of it that fits one batch; `None` at the end.
    fn take(&self, replies: &mut Vec<R>) -> Option<(Vec<Group>, Round)> {
        let mut queue = self.shared.lock();
        while queue.waiting.is_empty() {
            if queue.stopped {
                return None;
            }
            queue = self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let mut groups = Vec::with_capacity(queue.waiting.len().min(self.limits.batch_groups_max));
        let mut bytes = 0;
        let mut wait_time = Duration::ZERO;
        while let Some(next) = queue.waiting.front() {
            let is_over = groups.len() >= self.limits.batch_groups_max
                || bytes + next.bytes > self.limits.batch_bytes_max;
            if is_over && !groups.is_empty() {
                break;
            }
            let Some(taken) = queue.waiting.pop_front() else { break };
            if groups.is_empty() {
                wait_time = taken.since.elapsed();
            }
            bytes += taken.bytes;
            groups.push(taken.group);
            replies.push(taken.reply);
        }
        queue.bytes -= bytes;
        drop(queue);
        self.shared.drained.notify_all();
        let commit_time = Duration::ZERO;
        let round = Round { groups: groups.len(), bytes, commit_time, wait_time, commit_no: 0, appended: 0 };
        Some((groups, round))
    }
}

/// However the thread ends, nobody waits for it afterwards: what still waits is dropped with its replies.
struct StopOnExit<'a, R>(&'a Shared<R>);

impl<R> Drop for StopOnExit<'_, R> {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.0.lock();
            queue.stopped = true;
            queue.bytes = 0;
            std::mem::take(&mut queue.waiting)
        };
        self.0.drained.notify_all();
        drop(left);
    }
}

/// Bytes of a group, roughly: payloads, and a flat price for what surrounds them.
fn weight(group: &Group) -> usize {
    const ENTRY: usize = 256;
    const ROW: usize = 64;
    let log = group.log.as_ref().map_or(0, |part| {
        let payloads: usize = part.entries.iter().map(Entry::size).sum();
        let rows = part.rows.iter().filter(|(key, _)| !matches!(key, RowKey::Feed(_))).count();
        payloads + part.entries.len() * ENTRY + rows * ROW
    });
    let state: usize = group
        .state
        .iter()
        .map(|(key, value)| key.key.len() + value.as_ref().map_or(0, bytes::Bytes::len))
        .sum();
    log + state + ROW
}
