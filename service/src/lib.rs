//! The asynchronous shell round the core.
//!
//! Front ends hold only a [`Gate`]: the store as one principal may use it.

pub mod admin;
mod append;
pub mod auth;
mod cache;
pub mod check;
pub mod clock;
pub mod error;
pub mod export;
mod marks;
pub mod metrics;
mod projector;
mod read;
mod shard;
mod subscribe;
pub mod views;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use feedlog_core::command::{Command, Principal};
use feedlog_core::feed::Settings;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::lane::Setup;
use feedlog_core::policy::Denied;
use feedlog_storage::Engine;
use tokio::sync::{Semaphore, oneshot};

pub use append::Receipt;
pub use error::{ReadError, SubmitError};
pub use projector::{Projection, ProjectionError};
pub use read::Reads;
pub use subscribe::Attachment;

use append::Appender;
use cache::{Places, ShardReader};
use clock::Moment;
use shard::Mailbox;
use subscribe::{Hub, Waiter};
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
pub struct Store(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) engine: Arc<dyn Engine>,
    settings: Settings,
    pub(crate) clock: clock::Clock,
    submit_wait: Duration,
    attach_queue_max: usize,
    pub(crate) appender: Appender,
    pub(crate) hub: Arc<Hub>,
    pub(crate) shards: Vec<Mailbox>,
    counters: metrics::Counters,
    pub(crate) blocking: Blocking,
    auth: auth::Auth,
    projector: projector::Projector,
    jobs: admin::Jobs,
    draining: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Runs blocking reads on threads made for that, so many at a time.
#[derive(Clone)]
pub(crate) struct Blocking(Arc<Semaphore>);

/// Blocking reads at a time.
const BLOCKING_MAX: usize = 64;

impl Blocking {
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit = self.0.clone().acquire_owned().await.map_err(|_| ReadError::Unavailable("closing"))?;
        let span = tracing::Span::current();
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(read)
        });
        // Cancelled when the runtime ends, or panicked.
        read.await.unwrap_or(Err(ReadError::Unavailable("closing")))
    }
}

impl Store {
    /// Starts the threads of the service over an open engine.
    pub fn open(config: StoreConfig, engine: Arc<dyn Engine>) -> Result<Self, OpenError> {
        Self::open_with(config, engine, Vec::new())
    }

    /// As [`Store::open`], with trailing projections of the caller's.
    pub fn open_with(
        config: StoreConfig,
        engine: Arc<dyn Engine>,
        projections: Vec<Box<dyn Projection>>,
    ) -> Result<Self, OpenError> {
        let settings = Settings {
            recall_window_ms: config.recall_window_ms,
            edit_window_ms: config.recall_window_ms,
            payload_bytes_max: config.payload_bytes_max,
            anonymous_open_feeds: config.auth.anonymous || config.auth.dev,
        };
        let count = match config.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let counters = metrics::Counters::new();
        let appender = Appender::start(engine.clone())?;
        let hub = Arc::new(Hub::new());
        let places = Arc::new(Places::new(config.rows_cached_max));
        let mut shards = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let (mailbox, thread) = shard::start(shard::Setting {
                index,
                reader: ShardReader::new(
                    engine.clone(),
                    places.clone(),
                    index,
                    count,
                    config.rows_cached_max,
                ),
                appender: appender.clone(),
                hub: hub.clone(),
                clock: config.clock.clone(),
                setup: Setup { settings, digest: feedlog_storage::digest },
                feeds_max: config.feeds_cached_max.max(1),
                mailbox_max: config.mailbox_commands_max,
                received_every: Duration::from_millis(config.received_every_ms),
                counters: counters.clone(),
            })?;
            shards.push(mailbox);
            threads.push(thread);
        }
        let auth = auth::Auth::open(config.auth, engine.clone(), appender.clone(), config.clock.clone())?;
        let inner = Arc::new_cyclic(|weak| Inner {
            projector: projector::Projector::new(weak.clone(), projections),
            engine,
            settings,
            clock: config.clock,
            submit_wait: Duration::from_millis(config.submit_wait_ms_max),
            attach_queue_max: config.attach_queue_max,
            appender,
            hub,
            shards,
            counters,
            blocking: Blocking(Arc::new(Semaphore::new(BLOCKING_MAX))),
            auth,
            jobs: admin::Jobs::default(),
            draining: AtomicBool::new(false),
            threads: Mutex::new(threads),
        });
        inner.projector.start(&projector::Pace {
            expire_every: Duration::from_millis(config.expire_every_ms.clamp(1, 60_000)),
            changes_kept_max: config.changes_kept_max,
        })?;
        Ok(Self(inner))
    }

    /// A store in memory: for tests of front ends, which do not know the storage, and for trying things out. Nothing of
    /// it survives the process.
    pub fn in_memory(config: StoreConfig) -> Result<Self, OpenError> {
        let options = feedlog_storage::OpenOptions::default();
        let storage = feedlog_storage::open(&options, feedlog_storage::Upcasters::default())
            .expect("INVARIANT: the memory engine without a directory touches nothing that can fail");
        Self::open(config, storage.engine())
    }

    /// The store as this principal may use it.
    pub fn gate(&self, principal: Principal) -> Gate {
        Gate { store: self.clone(), principal: Arc::new(principal) }
    }

    /// Credentials, tokens and rates.
    pub fn auth(&self) -> auth::Auth {
        self.0.auth.clone()
    }

    /// Maintenance; administrators only.
    pub fn admin(&self, principal: &Principal) -> Result<admin::Admin, Denied> {
        if principal.scopes.admin { Ok(admin::Admin::new(self.0.clone())) } else { Err(Denied::Forbidden) }
    }

    /// How the store is.
    pub fn status(&self) -> Status {
        let health = self.0.appender.health();
        Status {
            poisoned: self.0.engine.is_poisoned() || health.poisoned.load(Ordering::Relaxed),
            draining: self.0.draining.load(Ordering::SeqCst),
            short_of_space: health.short_of_space.load(Ordering::Relaxed),
            commit_no: self.0.engine.commit_no(),
            queued: self.0.shards.iter().map(Mailbox::queued).collect(),
            lags: self.0.projector.lags(),
            attachments: self.0.hub.queue_count(),
        }
    }

    /// Takes no more commands, ends attachments, waits at most `deadline` for what was taken, then closes the engine.
    /// `false` when the deadline passed first.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let began = Moment::now();
        self.0.draining.store(true, Ordering::SeqCst);
        self.0.hub.close();
        self.0.jobs.stop();
        let answered = async {
            for shard in &self.0.shards {
                shard.drain().await;
            }
        };
        let in_time = tokio::time::timeout(deadline, answered).await.is_ok();
        if !in_time {
            tracing::warn!("the time to drain is over; commands in flight are not waited for");
        }
        let inner = self.0.clone();
        let ended = tokio::task::spawn_blocking(move || inner.end());
        match tokio::time::timeout(began.left(deadline).max(Duration::from_millis(100)), ended).await {
            Ok(Ok(closed)) => in_time && closed,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

impl Inner {
    /// Ends all threads in the order in which work flows, then closes the engine. Blocks.
    fn end(&self) -> bool {
        self.projector.stop();
        for shard in &self.shards {
            shard.input(shard::Input::Stop);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a shard panicked");
            }
        }
        self.appender.stop();
        match self.engine.close() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the engine did not close");
                false
            }
        }
    }

    pub(crate) fn shard(&self, feed: &FeedId) -> &Mailbox {
        &self.shards[shard::shard_of(feed, self.shards.len())]
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A store that was not drained still leaves no thread behind; what it took is answered or unknown.
        self.projector.stop();
        for shard in &self.shards {
            shard.input(shard::Input::Stop);
        }
    }
}

/// The store as one principal may use it. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    store: Store,
    principal: Arc<Principal>,
}

/// Longest time that a read may wait for something new.
pub const WAIT_MS_MAX: u64 = 60_000;

impl Gate {
    /// Whose gate it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The same reads, blocking: for threads of one's own.
    pub fn reads(&self) -> Reads {
        Reads {
            engine: self.store.0.engine.clone(),
            principal: self.principal.clone(),
            settings: self.store.0.settings,
            clock: self.store.0.clock.clone(),
        }
    }

    /// Authorizes, decides, appends and waits for the sync. **On `Ok` it is durable.**
    pub async fn submit(&self, command: Command) -> Result<Receipt, SubmitError> {
        // Only a shard that died drops a command unanswered.
        self.hand_over(command).await?.await.unwrap_or(Err(SubmitError::Unknown))
    }

    /// Many commands, in order; an answer for each. All are handed over before the first is waited for.
    pub async fn submit_all(&self, commands: Vec<Command>) -> Vec<Result<Receipt, SubmitError>> {
        Self::submit_each(commands.into_iter().map(|command| (self.clone(), command)).collect()).await
    }

    /// As [`Gate::submit_all`], each command through its own gate: a service hands in messages of many users.
    pub async fn submit_each(commands: Vec<(Self, Command)>) -> Vec<Result<Receipt, SubmitError>> {
        let mut waiting = Vec::with_capacity(commands.len());
        for (gate, command) in commands {
            waiting.push(gate.hand_over(command).await);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(SubmitError::Unknown)),
                Err(error) => Err(error),
            });
        }
        answers
    }

    async fn hand_over(
        &self,
        command: Command,
    ) -> Result<oneshot::Receiver<Result<Receipt, SubmitError>>, SubmitError> {
        let inner = &*self.store.0;
        if inner.draining.load(Ordering::Relaxed) {
            return Err(SubmitError::Unavailable("closing"));
        }
        if inner.appender.health().poisoned.load(Ordering::Relaxed) {
            return Err(SubmitError::Unavailable("an earlier sync failed"));
        }
        inner
            .shard(&command.feed)
            .send(self.principal.clone(), command, inner.submit_wait, &inner.counters)
            .await
    }

    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        read: impl FnOnce(&Reads) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let reads = self.reads();
        let began = Moment::now();
        let answer = self.store.0.blocking.run(move || read(&reads)).await;
        ::metrics::histogram!(metrics::READ_SECONDS, "what" => what).record(began.elapsed().as_secs_f64());
        answer
    }

    /// A page of history; with `wait_ms` > 0 and nothing after the place asked for, waits that long for something.
    pub async fn history(
        &self,
        feed: &FeedId,
        query: HistoryQuery,
        limit: usize,
        wait_ms: u64,
    ) -> Result<Page, ReadError> {
        let page = self.history_now(feed, query, limit).await?;
        if wait_ms == 0 || !matches!(query, HistoryQuery::After(_)) || !is_empty(&page) {
            return Ok(page);
        }
        let wait = Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
        let began = Moment::now();
        let waiter = Waiter::new(self.store.0.hub.clone(), feed.clone());
        loop {
            // Read again after registering: nothing that came in between is missed.
            let page = self.history_now(feed, query, limit).await?;
            if !is_empty(&page) {
                return Ok(page);
            }
            match tokio::time::timeout(began.left(wait), waiter.rung()).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return Ok(page),
            }
        }
    }

    async fn history_now(&self, feed: &FeedId, query: HistoryQuery, limit: usize) -> Result<Page, ReadError> {
        let feed = feed.clone();
        self.read("history", move |reads| reads.history(&feed, query, limit)).await
    }

    /// One entry. `NotFound` when there is none, or it is gone for this reader.
    pub async fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<View, ReadError> {
        let feed = feed.clone();
        self.read("entry", move |reads| reads.entry(&feed, seq)).await
    }

    /// Replay, then live, without a hole.
    pub async fn attach(&self, to: AttachTo) -> Result<Attachment, ReadError> {
        let inner = &*self.store.0;
        if inner.draining.load(Ordering::Relaxed) {
            return Err(ReadError::Unavailable("closing"));
        }
        let (hub, blocking) = (inner.hub.clone(), inner.blocking.clone());
        let queue_max = inner.attach_queue_max;
        self.read("attach", move |reads| {
            Attachment::open(hub, Arc::new(reads.clone()), blocking, queue_max, to)
        })
        .await
    }

    /// One feed.
    pub async fn feed(&self, feed: &FeedId) -> Result<FeedInfo, ReadError> {
        let feed = feed.clone();
        self.read("feed", move |reads| reads.feed(&feed)).await
    }

    /// The caller's conversation list, most recent first, pinned before others.
    pub async fn conversations(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<Conversation>, ReadError> {
        let cursor = cursor.map(str::to_owned);
        self.read("conversations", move |reads| reads.conversations(cursor.as_deref(), limit)).await
    }

    /// All feeds by name; administrators only.
    pub async fn all_feeds(&self, cursor: Option<&str>, limit: usize) -> Result<Paged<FeedInfo>, ReadError> {
        let cursor = cursor.map(str::to_owned);
        self.read("all_feeds", move |reads| reads.all_feeds(cursor.as_deref(), limit)).await
    }

    /// Members by uid.
    pub async fn members(
        &self,
        feed: &FeedId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<MemberInfo>, ReadError> {
        let (feed, cursor) = (feed.clone(), cursor.map(str::to_owned));
        self.read("members", move |reads| reads.members(&feed, cursor.as_deref(), limit)).await
    }

    /// Pending requests by uid; owner and admins.
    pub async fn requests(
        &self,
        feed: &FeedId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<RequestInfo>, ReadError> {
        let (feed, cursor) = (feed.clone(), cursor.map(str::to_owned));
        self.read("requests", move |reads| reads.requests(&feed, cursor.as_deref(), limit)).await
    }

    /// The caller's marks.
    pub async fn marks(&self, feed: &FeedId) -> Result<Marks, ReadError> {
        let feed = feed.clone();
        self.read("marks", move |reads| reads.marks(&feed)).await
    }

    /// Unread over all feeds of the caller.
    pub async fn unread(&self) -> Result<UnreadTotal, ReadError> {
        self.read("unread", Reads::unread).await
    }

    /// Unread of one feed with its reasons.
    pub async fn unread_of(&self, feed: &FeedId) -> Result<ExplainedUnread, ReadError> {
        let feed = feed.clone();
        self.read("unread_of", move |reads| reads.unread_of(&feed)).await
    }

    /// Who waits for the caller, longest first.
    pub async fn unreplied(&self, limit: usize) -> Result<Vec<Unreplied>, ReadError> {
        self.read("unreplied", move |reads| reads.unreplied(limit)).await
    }

    /// Who has received and read a message.
    pub async fn receipts(
        &self,
        feed: &FeedId,
        seq: SeqId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Receipts, ReadError> {
        let (feed, cursor) = (feed.clone(), cursor.map(str::to_owned));
        self.read("receipts", move |reads| reads.receipts(&feed, seq, cursor.as_deref(), limit)).await
    }
}

fn is_empty(page: &Page) -> bool {
    page.entries.is_empty() && page.gone.is_empty()
}
