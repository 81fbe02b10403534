//! The asynchronous shell round the core.
//!
//! Front ends hold only a [`Gate`]: the store as one principal may use it.

pub mod admin;
pub mod auth;
pub mod clock;
pub mod error;
pub mod export;
pub mod views;

use std::sync::Arc;
use std::time::Duration;

use feedlog_core::command::{Command, Principal};
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::policy::Denied;
use feedlog_storage::Engine;

pub use error::{ReadError, SubmitError};
use views::*;

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
    /// Feeds whose state each shard keeps in memory.
    pub feeds_cached_max: usize,
    /// Rows that each shard keeps in memory.
    pub rows_cached_max: usize,
    /// Deliveries that may wait for one attachment before it falls back to the log.
    pub attach_queue_max: usize,
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
            feeds_cached_max: 20_000,
            rows_cached_max: 50_000,
            attach_queue_max: 256,
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

/// The running store. Cheap to clone.
#[derive(Clone)]
pub struct Store {}

#[allow(unused_variables, clippy::todo)]
impl Store {
    /// Starts the threads of the service over an open engine.
    pub fn open(config: StoreConfig, engine: Arc<dyn Engine>) -> Result<Self, OpenError> {
        todo!()
    }

    /// The store as this principal may use it.
    pub fn gate(&self, principal: Principal) -> Gate {
        Gate { store: self.clone(), principal }
    }

    /// Credentials, tokens and rates.
    pub fn auth(&self) -> auth::Auth {
        todo!()
    }

    /// Maintenance; administrators only.
    pub fn admin(&self, principal: &Principal) -> Result<admin::Admin, Denied> {
        todo!()
    }

    /// How the store is.
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Takes no more commands, ends attachments, waits at most `deadline` for what was taken, then closes the engine.
    /// `false` when the deadline passed first.
    pub async fn drain(&self, deadline: Duration) -> bool {
        todo!()
    }
}

/// The store as one principal may use it. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    #[allow(dead_code)]
    store: Store,
    principal: Principal,
}

#[allow(unused_variables)]
impl Gate {
    /// Whose gate it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Authorizes, decides, appends and waits for the sync. **On `Ok` it is durable.**
    pub async fn submit(&self, command: Command) -> Result<Receipt, SubmitError> {
        todo!()
    }

    /// Many commands, in order; an answer for each. All are handed over before the first is waited for.
    pub async fn submit_all(&self, commands: Vec<Command>) -> Vec<Result<Receipt, SubmitError>> {
        todo!()
    }

    /// A page of history; with `wait_ms` > 0 and nothing after the place asked for, waits that long for something.
    pub async fn history(
        &self,
        feed: &FeedId,
        query: HistoryQuery,
        limit: usize,
        wait_ms: u64,
    ) -> Result<Page, ReadError> {
        todo!()
    }

    /// One entry. `NotFound` when there is none, or it is gone for this reader.
    pub async fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<View, ReadError> {
        todo!()
    }

    /// Replay, then live, without a hole.
    pub async fn attach(&self, to: AttachTo) -> Result<Attachment, ReadError> {
        todo!()
    }

    /// One feed.
    pub async fn feed(&self, feed: &FeedId) -> Result<FeedInfo, ReadError> {
        todo!()
    }

    /// The caller's conversation list, most recent first, pinned before others.
    pub async fn conversations(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<Conversation>, ReadError> {
        todo!()
    }

    /// All feeds by name; administrators only.
    pub async fn all_feeds(&self, cursor: Option<&str>, limit: usize) -> Result<Paged<FeedInfo>, ReadError> {
        todo!()
    }

    /// Members by uid.
    pub async fn members(
        &self,
        feed: &FeedId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<MemberInfo>, ReadError> {
        todo!()
    }

    /// Pending requests by uid; owner and admins.
    pub async fn requests(
        &self,
        feed: &FeedId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<RequestInfo>, ReadError> {
        todo!()
    }

    /// The caller's marks.
    pub async fn marks(&self, feed: &FeedId) -> Result<Marks, ReadError> {
        todo!()
    }

    /// Unread over all feeds of the caller.
    pub async fn unread(&self) -> Result<UnreadTotal, ReadError> {
        todo!()
    }

    /// Unread of one feed with its reasons.
    pub async fn unread_of(&self, feed: &FeedId) -> Result<ExplainedUnread, ReadError> {
        todo!()
    }

    /// Who waits for the caller, longest first.
    pub async fn unreplied(&self, limit: usize) -> Result<Vec<Unreplied>, ReadError> {
        todo!()
    }

    /// Who has received and read a message.
    pub async fn receipts(
        &self,
        feed: &FeedId,
        seq: SeqId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Receipts, ReadError> {
        todo!()
    }
}

/// A reader of one or many feeds: replay, `CaughtUp`, then live. Bounded memory: a reader that is slow falls back to the
/// log.
pub struct Attachment {}

impl Attachment {
    /// The next delivery; `None` when the service is closing. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        todo!()
    }

    /// Adds a feed, replayed after a place (WebSocket `attach` on an open connection).
    pub async fn add(&mut self, _feed: FeedId, _after: SeqId) -> Result<(), ReadError> {
        todo!()
    }

    /// Stops following a feed.
    pub fn remove(&mut self, _feed: &FeedId) {
        todo!()
    }
}
