//! The only place that reads the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use feedlog_core::ids::TimeMs;

/// Where the service gets its time from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is moved, for tests.
    pub fn manual(start_ms: TimeMs) -> (Self, ManualClock) {
        let time = Arc::new(AtomicU64::new(start_ms));
        (Self(Source::Manual(time.clone())), ManualClock(time))
    }

    /// Milliseconds since the Unix epoch. May jump in both directions; the log may not, and does not depend on it.
    #[allow(clippy::disallowed_methods)]
    pub fn now_ms(&self) -> TimeMs {
        match &self.0 {
            Source::System => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            Source::Manual(time) => time.load(Ordering::SeqCst),
        }
    }
}

/// Moves a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Sets the time.
    pub fn set(&self, now_ms: TimeMs) {
        self.0.store(now_ms, Ordering::SeqCst);
    }

    /// Moves the time forward.
    pub fn advance(&self, by_ms: u64) {
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }
}

/// A moment of the monotonic clock, for measuring and for deadlines; it never enters the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Instant);

impl Moment {
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().0.saturating_duration_since(self.0)
    }

    /// What is left until `span` after this moment.
    pub(crate) fn left(self, span: Duration) -> Duration {
        span.saturating_sub(self.elapsed())
    }
}
