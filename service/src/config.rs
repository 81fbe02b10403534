//! How the store runs, how it is, and why it did not start.

use crate::{auth, clock};

/// How the store runs. Every bound has a default.
#[derive(Clone)]
pub struct StoreConfig {
    /// Threads that decide; 0 = one per core.
    pub shards: usize,
    /// Commands that may wait for one shard.
    pub mailbox_commands_max: usize,
    /// How long a command waits for room in a full mailbox before `Unavailable`.
    pub submit_wait_ms_max: u64,
    /// Largest payload.
    pub payload_bytes_max: usize,
    /// How long a sender may recall or edit.
    pub recall_window_ms: u64,
    /// How long a message of an open feed may be recalled by its id in a shared scope; `None`: at any time.
    pub shared_recall_window_ms: Option<u64>,
    /// Feeds whose state each shard keeps in memory.
    pub feeds_cached_max: usize,
    /// Rows that each shard keeps in memory.
    pub rows_cached_max: usize,
    /// Deliveries that may wait for one attachment before it falls back to the log.
    pub attach_queue_max: usize,
    /// Feeds that one attachment follows at most.
    pub attach_feeds_max: usize,
    /// How often expired messages are looked for; at most a minute.
    pub expire_every_ms: u64,
    /// Received marks of one user in one feed are written at most once in this time.
    pub received_every_ms: u64,
    /// Change rows that are kept at most, however far behind a checkpoint is.
    pub changes_kept_max: u64,
    /// How callers prove who they are.
    pub auth: auth::AuthConfig,
    /// The time.
    pub clock: clock::Clock,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            shards: 0,
            mailbox_commands_max: 4096,
            submit_wait_ms_max: 2_000,
            payload_bytes_max: feedlog_core::limits::PAYLOAD_BYTES_DEFAULT,
            recall_window_ms: feedlog_core::limits::RECALL_WINDOW_MS_DEFAULT,
            shared_recall_window_ms: None,
            feeds_cached_max: 16_384,
            rows_cached_max: 32_768,
            attach_queue_max: 256,
            attach_feeds_max: 10_000,
            expire_every_ms: 10_000,
            received_every_ms: 1_000,
            changes_kept_max: 1_000_000,
            auth: auth::AuthConfig::default(),
            clock: clock::Clock::system(),
        }
    }
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine does not answer.
    #[error(transparent)]
    Engine(#[from] feedlog_storage::EngineError),
    /// A key file cannot be used.
    #[error(transparent)]
    Auth(#[from] auth::AuthError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// How the store is, for readiness and metrics.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Writes are refused because an earlier sync failed.
    pub poisoned: bool,
    /// No more commands are taken.
    pub draining: bool,
    /// Free space is below the reserve: writes are refused.
    pub short_of_space: bool,
    /// The newest durable commit.
    pub commit_no: u64,
    /// Commands that wait, per shard.
    pub queued: Vec<usize>,
    /// How many commits each trailing projection is behind.
    pub lags: Vec<(&'static str, u64)>,
    /// Attachments now.
    pub attachments: usize,
}

impl Status {
    /// Whether new commands would be taken; else the reasons, stable words.
    pub fn not_ready(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        if self.poisoned {
            reasons.push("poisoned");
        }
        if self.draining {
            reasons.push("draining");
        }
        if self.short_of_space {
            reasons.push("short_of_space");
        }
        reasons
    }
}
