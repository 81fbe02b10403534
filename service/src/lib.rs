//! The asynchronous shell round the core.
//!
//! Front ends hold only a [`Gate`]: the store as one principal may use it.

pub mod error;
pub mod views;

use feedlog_core::command::{Command, Principal};
use feedlog_core::ids::{FeedId, SeqId};

pub use error::{ReadError, SubmitError};
use views::*;

/// The running store. Cheap to clone.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// The store as this principal may use it.
    pub fn gate(&self, principal: Principal) -> Gate {
        Gate { store: self.clone(), principal }
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
