//! The end of all that an open feed holds, whether or not its messages carry a time.

use std::sync::Arc;

use feedlog_core::command::{Action, Command};
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::limits::EXPIRE_BATCH_MAX;
use feedlog_core::policy::Denied;
use feedlog_core::rows::{RowKey, RowValue};
use feedlog_storage::Direction;

use crate::Store;
use crate::error::SubmitError;
use crate::projector::service_itself;

/// Payload bytes that are read at once while looking for messages.
const PAGE_BYTES: usize = 1 << 20;

impl Store {
    /// The head of an open feed; 0 when there is none of that name.
    ///
    /// # Errors
    /// `Denied` for a feed of another kind.
    pub async fn open_head(&self, feed: &FeedId) -> Result<SeqId, SubmitError> {
        let (store, name) = (self.clone(), feed.clone());
        let read = move || {
            let state = store.0.engine.row(&RowKey::Feed(name.clone()))?.and_then(RowValue::into_feed);
            Ok((state.map(|state| state.kind), store.0.engine.head(&name)?.seq))
        };
        match self.0.blocking.run(read).await.map_err(|_| UNREADABLE)? {
            (None, _) => Ok(SeqId::ZERO),
            (Some(FeedKind::Open), head) => Ok(head),
            (Some(_), _) => Err(Denied::Forbidden.into()),
        }
    }

    /// Expires all messages of an open feed up to and including a place, in the name of the service itself. Whoever asks has
    /// checked that it may be. **On `Ok` all of it is durable.** Cut short, it can be asked again: what is gone is left alone.
    ///
    /// # Errors
    /// As those of a command: `Denied` for a feed of another kind, a legal hold is `Rejected`, a store that is closing
    /// `Unavailable`. Some messages may have expired before it.
    pub async fn expire_upto(&self, feed: &FeedId, upto: SeqId) -> Result<(), SubmitError> {
        let principal = Arc::new(service_itself());
        let head = self.open_head(feed).await?.min(upto);
        let mut next = SeqId(1);
        while next <= head {
            let (store, name) = (self.clone(), feed.clone());
            let read = move || {
                let (entries_max, forward) = (EXPIRE_BATCH_MAX, Direction::Forward);
                let entries = store.0.engine.read(&name, next, head, forward, entries_max, PAGE_BYTES)?;
                let last = entries.last().map(|entry| entry.seq);
                let messages = entries.iter().filter(|entry| entry.is_message());
                Ok((last, messages.map(|entry| entry.seq).collect::<Vec<_>>()))
            };
            let (last, targets) = self.0.blocking.run(read).await.map_err(|_| UNREADABLE)?;
            let Some(last) = last else { break };
            if !targets.is_empty() {
                let action = Action::ExpireMessages { targets, early: true };
                let command = Command { feed: feed.clone(), action };
                let answer = self.0.shard(feed).send_own(principal.clone(), command)?;
                answer.await.unwrap_or(Err(SubmitError::Unknown))?;
            }
            next = last.next();
        }
        Ok(())
    }
}

const UNREADABLE: SubmitError = SubmitError::Unavailable("the log could not be read");
