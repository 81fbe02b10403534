//! The durability point. Groups of all shards meet here, are committed in one batch with one sync, and only what the
//! engine answered becomes a [`Receipt`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use bytes::Bytes;
use feedlog_core::command::Done;
use feedlog_core::sequencer::{Answer, Refusal};
use feedlog_storage::{
    CommitQueue, Committed, Engine, EngineError, Group, QueueLimits, Reply, Round, StateKey,
};
use tokio::sync::oneshot;

use crate::error::SubmitError;
use crate::metrics as names;
use crate::shard::{Flight, Input};
use crate::subscribe::Hub;

/// Proof for the caller that its entries are durable. Made only in `append.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    done: Done,
}

impl Receipt {
    /// What became of the command.
    pub fn done(&self) -> &Done {
        &self.done
    }
}

/// What the caller of a command is told.
///
/// INVARIANT I-2: the sequencer gives `Done` only for entries that it was told are durable, and `shard.rs` tells it so
/// only from a [`Committed`] or from the durable head.
pub(crate) fn answer(answer: Answer) -> Result<Receipt, SubmitError> {
    match answer {
        Answer::Done(done) => Ok(Receipt { done }),
        Answer::Refused(Refusal::Denied(denied)) => Err(denied.into()),
        Answer::Refused(Refusal::Rejected(rejected)) => Err(rejected.into()),
        Answer::Retry => Err(SubmitError::Unavailable("nothing was written")),
        Answer::Unknown => Err(SubmitError::Unknown),
    }
}

/// Hands groups to the committer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Appender {
    queue: Arc<CommitQueue<Pending>>,
    health: Arc<Health>,
}

/// How the last commits went.
#[derive(Default)]
pub(crate) struct Health {
    /// A sync failed: nothing more is written until the engine is open again.
    pub(crate) poisoned: AtomicBool,
    /// Free space is below the reserve.
    pub(crate) short_of_space: AtomicBool,
}

impl Health {
    /// The engine is open again.
    pub(crate) fn recovered(&self) {
        self.poisoned.store(false, Ordering::SeqCst);
        self.short_of_space.store(false, Ordering::SeqCst);
    }

    /// The engine says that it is not poisoned.
    pub(crate) fn is_sound(&self) {
        self.poisoned.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_short_of_space(&self) {
        self.short_of_space.store(true, Ordering::SeqCst);
    }
}

/// Who learns what became of a group.
struct Pending {
    whom: Whom,
    health: Arc<Health>,
}

enum Whom {
    /// The shard that decided it.
    Shard(Flight, Sender<Input>),
    /// Whoever wrote state rows.
    State(oneshot::Sender<Result<(), EngineError>>),
}

impl Reply for Pending {
    fn done(self, result: Result<Committed, EngineError>) {
        note(&result, &self.health);
        match self.whom {
            // A shard that has ended has answered everybody.
            Whom::Shard(flight, inputs) => drop(inputs.send(Input::Settled(flight, result))),
            Whom::State(reply) => drop(reply.send(result.map(|_| ()))),
        }
    }
}

impl Appender {
    /// Starts the one committer thread.
    pub(crate) fn start(engine: Arc<dyn Engine>, hub: Arc<Hub>) -> std::io::Result<Self> {
        let seconds = metrics::histogram!(names::APPEND_COMMIT_SECONDS);
        let groups = metrics::histogram!(names::APPEND_BATCH_GROUPS);
        let bytes = metrics::histogram!(names::APPEND_BATCH_BYTES);
        let observer = move |round: &Round| {
            hub.announce(round);
            seconds.record(round.commit_time.as_secs_f64());
            groups.record(round.groups as f64);
            bytes.record(round.bytes as f64);
        };
        let queue = CommitQueue::start(engine, QueueLimits::default(), Some(Box::new(observer)))?;
        Ok(Self { queue: Arc::new(queue), health: Arc::default() })
    }

    /// Hands over one group; what became of it comes back to the shard as an input, in order. Blocks while too much
    /// waits for the disk.
    pub(crate) fn append(&self, group: Group, flight: Flight, inputs: &Sender<Input>) {
        let whom = Whom::Shard(flight, inputs.clone());
        if let Err((_, pending)) = self.queue.submit(group, Pending { whom, health: self.health.clone() }) {
            pending.done(Err(EngineError::Closed));
        }
    }

    /// Writes state rows, all or nothing. **On `Ok` they are durable.**
    pub(crate) async fn write_state(&self, rows: Vec<(StateKey, Option<Bytes>)>) -> Result<(), SubmitError> {
        let (reply, answer) = oneshot::channel();
        let whom = Whom::State(reply);
        let group = Group { log: None, state: rows };
        if self.queue.try_submit(group, Pending { whom, health: self.health.clone() }).is_err() {
            return Err(SubmitError::Unavailable("too much waits for the disk"));
        }
        match answer.await {
            Ok(result) => result.map_err(|error| submit_error(&error)),
            Err(_) => Err(SubmitError::Unknown),
        }
    }

    /// Commits a group outside any shard, for maintenance and projections. Blocks. **On `Ok` it is durable.**
    pub(crate) fn write_blocking(&self, group: Group) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        let whom = Whom::State(reply);
        if self.queue.submit(group, Pending { whom, health: self.health.clone() }).is_err() {
            return Err(EngineError::Closed);
        }
        answer.blocking_recv().unwrap_or(Err(EngineError::Closed))
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Ends the committer after everything that was handed over before. Blocks.
    pub(crate) fn stop(&self) {
        self.queue.stop();
    }
}

fn submit_error(error: &EngineError) -> SubmitError {
    match error {
        EngineError::Unknown(_) => SubmitError::Unknown,
        EngineError::Poisoned => SubmitError::Unavailable("an earlier sync failed"),
        EngineError::NoSpace => SubmitError::Unavailable("free space is below the reserve"),
        EngineError::Closed => SubmitError::Unavailable("closing"),
        _ => SubmitError::Unavailable("the engine does not answer"),
    }
}

/// Keeps what readiness shows, and logs each change once.
fn note(result: &Result<Committed, EngineError>, health: &Health) {
    match result {
        Ok(_) => {
            if health.short_of_space.load(Ordering::Relaxed) {
                health.short_of_space.store(false, Ordering::Relaxed);
                tracing::info!("there is enough free space again");
            }
        }
        Err(error @ (EngineError::Unknown(_) | EngineError::Poisoned)) => {
            if !health.poisoned.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "nothing more is written until the engine is opened again");
            }
        }
        Err(error @ EngineError::NoSpace) => {
            if !health.short_of_space.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "writes are refused until there is space");
            }
        }
        Err(EngineError::BadGroup(what)) => tracing::error!(what, "the engine refused a malformed group"),
        Err(_) => {}
    }
}
