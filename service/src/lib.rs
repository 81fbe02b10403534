//! The asynchronous shell round the core.
//!
//! Front ends hold only a [`Gate`]: the store as one principal may use it.

pub mod admin;
mod answers;
mod append;
pub mod auth;
mod cache;
pub mod check;
pub mod clock;
mod config;
pub mod error;
mod expire;
pub mod export;
mod gate;
mod mailbox;
mod marks;
pub mod metrics;
pub mod outbox;
mod projector;
mod read;
mod shard;
mod shelf;
mod subscribe;
pub mod views;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use feedlog_core::command::Principal;
use feedlog_core::feed::Settings;
use feedlog_core::ids::{FeedId, TimeMs};
use feedlog_core::lane::Setup;
use feedlog_core::policy::Denied;
use feedlog_storage::Engine;
use tokio::sync::Semaphore;

pub use answers::Answers;
pub use append::Receipt;
pub use config::{OpenError, Status, StoreConfig};
pub use error::{ReadError, SubmitError};
pub use gate::{Gate, WAIT_MS_MAX};
pub use projector::{Projection, ProjectionError};
pub use read::Reads;
pub use shelf::{Shelf, ShelfValue, ShelfWrite};
pub use subscribe::Attachment;

use append::Appender;
use cache::{Places, ShardReader};
use clock::Moment;
use mailbox::Mailbox;
use subscribe::{AttachLimits, Hub};

/// The running store. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) engine: Arc<dyn Engine>,
    settings: Settings,
    pub(crate) clock: clock::Clock,
    submit_wait: Duration,
    attach_limits: AttachLimits,
    pub(crate) appender: Appender,
    pub(crate) hub: Arc<Hub>,
    pub(crate) shards: Vec<Mailbox>,
    counters: metrics::Counters,
    pub(crate) blocking: Blocking,
    auth: auth::Auth,
    projector: projector::Projector,
    jobs: admin::Jobs,
    pub(crate) outbox: OnceLock<outbox::Outbox>,
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
            shared_recall_window_ms: config.shared_recall_window_ms,
            edit_window_ms: config.recall_window_ms,
            payload_bytes_max: config.payload_bytes_max,
            anonymous_open_feeds: config.auth.anonymous || config.auth.dev,
        };
        let count = match config.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let counters = metrics::Counters::new();
        let hub = Arc::new(Hub::new(engine.commit_no()));
        let appender = Appender::start(engine.clone(), hub.clone())?;
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
            attach_limits: AttachLimits {
                queue: config.attach_queue_max.max(1),
                feeds: config.attach_feeds_max.max(1),
            },
            appender,
            hub,
            shards,
            counters,
            blocking: Blocking(Arc::new(Semaphore::new(BLOCKING_MAX))),
            auth,
            jobs: admin::Jobs::default(),
            outbox: OnceLock::new(),
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

    /// The time of the service: milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> TimeMs {
        self.0.clock.now_ms()
    }

    /// The clock of the service.
    pub fn clock(&self) -> clock::Clock {
        self.0.clock.clone()
    }

    /// The newest durable commit.
    pub fn commit_no(&self) -> u64 {
        self.0.engine.commit_no()
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
        let answered = async {
            if let Some(outbox) = self.0.outbox.get() {
                outbox.stop().await;
            }
            answered.await;
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
