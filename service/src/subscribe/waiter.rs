//! Held reads.

use std::sync::Arc;

use feedlog_core::ids::{FeedId, Uid};

use super::hub::{Hub, Queue};

/// Rings when something was appended to a feed, for reads that wait.
pub(crate) struct Waiter {
    hub: Arc<Hub>,
    queue: Arc<Queue>,
    feed: FeedId,
}

impl Waiter {
    pub(crate) fn new(hub: Arc<Hub>, feed: FeedId, reader: &Uid) -> Self {
        // No room: the entries themselves are read from the log.
        let queue = hub.queue(0, reader);
        hub.follow(&feed, &queue, 0);
        Self { hub, queue, feed }
    }

    /// Waits for the next append; `false` when the service is closing.
    pub(crate) async fn rung(&self) -> bool {
        loop {
            let waiting = self.queue.take();
            if waiting.closed {
                return false;
            }
            if !waiting.behind.is_empty() {
                return true;
            }
            self.queue.bell.notified().await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.hub.unfollow(&self.feed, &self.queue, 0);
        self.hub.drop_queue(&self.queue);
    }
}
