//! What others in this process tell a connection: bounded, and forgotten with it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Things told that wait for one connection.
const WAITING_MAX: usize = 256;
/// Their bytes; a single larger one still fits an empty inbox.
const BYTES_MAX: usize = 256 * 1024;

/// The way to tell a connection something.
pub(crate) struct Inbox<T> {
    waiting: Mutex<Waiting<T>>,
    bell: Notify,
    /// The peer takes nothing of what is ready for it.
    slow: AtomicBool,
}

struct Waiting<T> {
    told: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        let waiting = Waiting { told: VecDeque::new(), bytes: 0, closed: false };
        Self { waiting: Mutex::new(waiting), bell: Notify::new(), slow: AtomicBool::new(false) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        // Nothing here panics half way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the connection something of so many bytes. `false` when too much waits there already, or it is gone.
    pub(crate) fn tell(&self, told: T, bytes: usize) -> bool {
        let mut waiting = self.waiting();
        let full =
            waiting.told.len() >= WAITING_MAX || (waiting.bytes > 0 && waiting.bytes + bytes > BYTES_MAX);
        if waiting.closed || full {
            return false;
        }
        waiting.bytes += bytes;
        waiting.told.push_back((told, bytes));
        drop(waiting);
        self.bell.notify_one();
        true
    }

    /// Whether the connection takes what comes: it is there, its peer reads, and the inbox is not full.
    pub(crate) fn has_room(&self) -> bool {
        let waiting = self.waiting();
        !self.slow.load(Ordering::Relaxed)
            && !waiting.closed
            && waiting.told.len() < WAITING_MAX
            && waiting.bytes < BYTES_MAX
    }

    pub(super) fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    pub(super) fn take(&self) -> Option<T> {
        let mut waiting = self.waiting();
        let (told, bytes) = waiting.told.pop_front()?;
        waiting.bytes -= bytes;
        if waiting.told.is_empty() {
            // A connection that does nothing holds no buffer.
            waiting.told = VecDeque::new();
        }
        Some(told)
    }

    /// Completes when something may have been told since the last time.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.told = VecDeque::new();
        waiting.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_is_bounded_in_number_and_in_bytes() {
        let inbox = Inbox::new();
        for _ in 0..WAITING_MAX {
            assert!(inbox.tell((), 0));
        }
        assert!(!inbox.has_room() && !inbox.tell((), 0), "one past the number");
        assert!(inbox.take().is_some() && inbox.tell((), 0));

        let inbox = Inbox::new();
        assert!(inbox.tell((), BYTES_MAX + 1), "a larger one into an empty inbox");
        assert!(!inbox.tell((), 1), "one byte past");
        assert!(inbox.take().is_some() && inbox.tell((), BYTES_MAX) && !inbox.tell((), 1));
        inbox.set_slow(true);
        assert!(!inbox.has_room(), "the peer reads nothing");
        inbox.close();
        assert!(inbox.take().is_none() && !inbox.tell((), 0), "gone");
    }
}
