//! Maintenance of the running store; administrators only.

use std::path::PathBuf;
use std::sync::Arc;

use feedlog_core::ids::{FeedId, SeqId, TimeMs};

use crate::error::ReadError;
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

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub feed: FeedId,
    /// At which entry, 0 for rows.
    pub seq: SeqId,
    /// What.
    pub what: Arc<str>,
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

/// Maintenance; made by [`crate::Store::admin`]. Cheap to clone.
#[derive(Clone)]
pub struct Admin {}

#[allow(unused_variables, clippy::todo)]
impl Admin {
    /// Starts a job, or returns the one of its kind that is running.
    pub fn start(&self, kind: JobKind) -> Job {
        todo!()
    }

    /// A job by number.
    pub fn job(&self, id: u64) -> Option<Job> {
        todo!()
    }

    /// The newest jobs first, bounded.
    pub fn jobs(&self) -> Vec<Job> {
        todo!()
    }

    /// Waits for the end of a job.
    pub async fn finished(&self, id: u64) -> Option<Job> {
        todo!()
    }

    /// Names of feeds in order, after `after`, at most `limit`.
    pub async fn feeds(&self, after: Option<FeedId>, limit: usize) -> Result<Vec<FeedId>, ReadError> {
        todo!()
    }

    /// Entries of a feed after a place with what proves them, whoever may read them, at most `limit` and about 8 MiB.
    pub async fn export(&self, feed: FeedId, after: SeqId, limit: usize) -> Result<Vec<Record>, ReadError> {
        todo!()
    }

    /// A consistent copy of everything durable, while writes go on. `dir` must not exist.
    pub async fn backup(&self, dir: PathBuf) -> Result<(), ReadError> {
        todo!()
    }
}
