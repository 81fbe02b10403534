//! The push outbox: tells endpoints of what members without a connection have missed.
//!
//! ```text
//! commits ─cut─▶ window ─▶ runs of feeds ─▶ calls ─carry─▶ endpoint
//!            row first        (prepare)        again until taken or dead
//! ```
//!
//! Each endpoint has one worker, a task that only reads what is durable (P2) and is never on the path of a send, and one
//! place: everything committed up to its cursor was told. A worker takes a window of commits, **writes its bounds before
//! the first call**, makes the calls (in order per feed, different feeds at the same time), and moves the cursor with the
//! next window's bounds. After a crash the same window is cut again, so every call has the id that it had before.
//!
//! A feed whose call fails again and again is parked (`parked.rs`), so that it holds up nobody else.
//!
//! Nothing is queued: what a call says is read from the log at the moment of the call.

mod admin;
mod call;
mod calls;
mod parked;
mod plan;
mod prepare;
mod replay;
mod retry;
mod rows;
mod told;
mod windows;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use feedlog_core::event::FeedKind;
use feedlog_core::feed::Settings;
use feedlog_core::ids::{FeedId, PERSONAL_PREFIX, TimeMs};
use feedlog_core::pattern::Pattern;
use feedlog_storage::Engine;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

pub use admin::{DeadLetter, EndpointStatus, OutboxError, Pause, Replay};
pub use call::{Call, Carrier, CarryError, Item, To, What, Withdrawal};
pub use retry::Patience;

use crate::clock::Clock;
use crate::error::ReadError;
use crate::shelf::Shelf;
use crate::subscribe::Hub;
use crate::{Blocking, Inner, Store};
use admin::Ask;
use rows::SHELF;
use told::Told;

/// An endpoint and what it wants to be told.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Names its place and its calls: 1–64 of `a-z`, `0-9`, `-`, `_`. Another name is another endpoint.
    pub name: Arc<str>,
    /// Only feeds whose name matches one of these; empty = all.
    pub feeds: Vec<Pattern>,
    /// Only feeds of these kinds; empty = all.
    pub kinds: Vec<FeedKind>,
    /// Only what one of these users or services sent; empty = all.
    pub senders: Vec<Pattern>,
    /// What of it.
    pub events: Events,
    /// Whether calls hold payloads. Default `true`.
    pub payload: bool,
    /// How long a commit waits for more that can be told together. Default 100.
    pub coalesce_ms: u64,
    /// How often calls are tried.
    pub patience: Patience,
}

/// Calls of all endpoints that are being made up at a time: so that callers' reads always find room.
const READS_MAX: usize = 8;

/// Longest name of an endpoint.
pub const ENDPOINT_NAME_BYTES_MAX: usize = 64;

impl Endpoint {
    /// Everything of all feeds.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            feeds: Vec::new(),
            kinds: Vec::new(),
            senders: Vec::new(),
            events: Events::default(),
            payload: true,
            coalesce_ms: 100,
            patience: Patience::default(),
        }
    }

    /// Whether this can be the name of an endpoint.
    pub fn is_name(name: &str) -> bool {
        let fits =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        (1..=ENDPOINT_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
    }

    /// Whether entries of the feed may make a call: its own, or reads of other feeds.
    fn may_want(&self, feed: &FeedId) -> bool {
        self.wants(feed) || self.events.reads && feed.as_str().starts_with(PERSONAL_PREFIX)
    }

    fn wants(&self, feed: &FeedId) -> bool {
        self.feeds.is_empty() || self.feeds.iter().any(|pattern| pattern.matches(feed.as_str()))
    }
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// Messages, and notices in personal feeds.
    pub messages: bool,
    /// That messages were recalled, expired or erased.
    pub withdrawals: bool,
    /// That a user has read elsewhere what may have been pushed.
    pub reads: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self { messages: true, withdrawals: true, reads: true }
    }
}

/// Every bound of the outbox.
#[derive(Debug, Clone)]
pub struct OutboxLimits {
    /// Commits that one window looks through. Default 256.
    pub window_commits_max: usize,
    /// Entries after which a window takes no further commit. Default 10,000.
    pub window_entries_max: u64,
    /// Entries that one call is about. Default 100.
    pub call_entries_max: u64,
    /// Payload bytes of one call; further payloads are left out. Default 1 MiB.
    pub call_bytes_max: usize,
    /// Members that one call may be for. Default 500.
    pub members_max: usize,
    /// Feeds that one endpoint is told of at a time. Default 8.
    pub feeds_at_once_max: usize,
    /// Dead letters of one endpoint. When there are as many, no further call is given up: the endpoint stands still
    /// instead of losing one. Default 1,000.
    pub dead_max: usize,
    /// Replays of one endpoint that are not done. Default 16.
    pub jobs_max: usize,
    /// Pairs of user and feed of which it is remembered that they were pushed. Default 65,536.
    pub told_max: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            window_commits_max: 256,
            window_entries_max: 10_000,
            call_entries_max: 100,
            call_bytes_max: 1 << 20,
            members_max: 500,
            feeds_at_once_max: 8,
            dead_max: 1_000,
            jobs_max: 16,
            told_max: 65_536,
        }
    }
}

impl OutboxLimits {
    /// Calls that one endpoint has under way at most: what its carrier must have room for.
    pub fn calls_max(&self) -> usize {
        self.feeds_at_once_max.max(1) + parked::PARKED_CALLS_MAX
    }
}

/// What the outbox does.
#[derive(Debug, Clone, Default)]
pub struct OutboxConfig {
    /// Each with a name of its own.
    pub endpoints: Vec<Endpoint>,
    /// How much at a time.
    pub limits: OutboxLimits,
}

/// Why the outbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum OutboxStartError {
    /// It runs already.
    #[error("the outbox runs already")]
    Running,
    /// Not a name, or used twice.
    #[error("{0:?} is not a name of an endpoint, or is used twice")]
    BadName(Arc<str>),
}

/// The running outbox.
pub(crate) struct Outbox {
    desks: Vec<Arc<Desk>>,
    ended: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What all workers share.
struct Office {
    engine: Arc<dyn Engine>,
    hub: Arc<Hub>,
    /// For what workers do.
    blocking: Blocking,
    /// For what they are asked: the one that all callers share.
    callers: Blocking,
    shelf: Shelf,
    settings: Settings,
    clock: Clock,
    limits: OutboxLimits,
    carrier: Arc<dyn Carrier>,
}

/// One endpoint: what its worker, its calls and administrators share.
struct Desk {
    office: Arc<Office>,
    endpoint: Arc<Endpoint>,
    vitals: Mutex<Vitals>,
    told: Mutex<Told>,
    asks: mpsc::Sender<Ask>,
    /// Rings when there is a job.
    bell: Notify,
}

/// How an endpoint is.
#[derive(Debug, Clone, Default)]
struct Vitals {
    /// Its place was read.
    loaded: bool,
    cursor: u64,
    /// The cursor as stored.
    written: u64,
    paused: Option<Pause>,
    /// A call waits for room among the dead letters.
    full: bool,
    in_flight: usize,
    retrying: usize,
    dead: usize,
    /// Those that are being written.
    dying: usize,
    jobs: usize,
    /// Feeds that are told apart.
    parked: usize,
    delivered: u64,
    retried: u64,
    last_delivered_ms: Option<TimeMs>,
    last_error: Option<(String, TimeMs)>,
    /// The newest number given to a dead letter or a job.
    number: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Starts a worker for each endpoint; inside a runtime, once. An endpoint that is new is told of what is committed from
    /// now on.
    ///
    /// # Errors
    /// When it runs already, or a name is none.
    pub fn start_outbox(
        &self,
        config: OutboxConfig,
        carrier: Arc<dyn Carrier>,
    ) -> Result<(), OutboxStartError> {
        for (at, endpoint) in config.endpoints.iter().enumerate() {
            let is_twice = config.endpoints[..at].iter().any(|other| other.name == endpoint.name);
            if !Endpoint::is_name(&endpoint.name) || is_twice {
                return Err(OutboxStartError::BadName(endpoint.name.clone()));
            }
        }
        let inner = &*self.0;
        let office = Arc::new(Office {
            engine: inner.engine.clone(),
            hub: inner.hub.clone(),
            blocking: Blocking(Arc::new(Semaphore::new(READS_MAX))),
            callers: inner.blocking.clone(),
            shelf: self.shelf(SHELF),
            settings: inner.settings,
            clock: inner.clock.clone(),
            limits: config.limits,
            carrier,
        });
        // Before anybody can send: a new endpoint is told of everything from here on.
        let begins = office.engine.commit_no();
        let (ended, end) = watch::channel(false);
        let mut workers = Vec::new();
        let mut desks = Vec::new();
        for endpoint in config.endpoints {
            let (asks, asked) = mpsc::channel(16);
            let desk = Arc::new(Desk {
                office: office.clone(),
                endpoint: Arc::new(endpoint),
                vitals: Mutex::default(),
                told: Mutex::new(Told::new(office.limits.told_max, office.clock.now_ms())),
                asks,
                bell: Notify::new(),
            });
            workers.push((desk.clone(), asked));
            desks.push(desk);
        }
        let outbox = Outbox { desks, ended, tasks: Mutex::default() };
        inner.outbox.set(outbox).map_err(|_| OutboxStartError::Running)?;
        let Some(outbox) = inner.outbox.get() else { return Err(OutboxStartError::Running) };
        let mut tasks = lock(&outbox.tasks);
        for (desk, asked) in workers {
            tasks.push(tokio::spawn(worker::run(desk, asked, end.clone(), begins)));
        }
        Ok(())
    }
}

impl Outbox {
    /// Ends all workers. Calls under way are dropped; they are made again after the next start.
    pub(crate) async fn stop(&self) {
        self.ended.send_replace(true);
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks {
            if task.await.is_err_and(|error| error.is_panic()) {
                tracing::error!("a worker of the outbox panicked");
            }
        }
    }

    /// Change rows up to here are needed no more.
    fn floor(&self, newest: u64) -> u64 {
        self.desks.iter().map(|desk| lock(&desk.vitals).floor()).min().unwrap_or(newest)
    }
}

impl Vitals {
    fn floor(&self) -> u64 {
        if self.loaded { self.written } else { 0 }
    }
}

impl Inner {
    /// Change rows up to here are needed no more by any endpoint. Until the outbox was started, those whose place is stored
    /// may still need all.
    pub(crate) fn outbox_floor(&self, newest: u64) -> Result<u64, ReadError> {
        match self.outbox.get() {
            Some(outbox) => Ok(outbox.floor(newest)),
            None => {
                let shelf = Shelf::of(SHELF, self);
                Ok(if shelf.scan_blocking(b"e", None, 1)?.is_empty() { newest } else { 0 })
            }
        }
    }
}
